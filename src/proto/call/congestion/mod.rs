//! Congestion control in packets (docs/recovery.md 3): what all controllers share. Slow start with its exits,
//! one reduction for a round trip, undoing a reduction that was for nothing, what is remembered of a path.
//!
//! Slow start grows by all that an ACK newly acknowledges, as OpenAFS does, not by two at the most as
//! rx-flow.md 8 has it: one ACK stands for a whole run of packets, so a limit of two would turn slow start into
//! linear growth.

mod cubic;
mod hystart;
mod new_reno;
mod rounds;
mod westwood;

use std::time::{Duration, Instant};

use crate::proto::config::{CallConfig, CongestionControl};
use crate::proto::peer::CongestionMemory;
use crate::wire::Serial;

use cubic::Cubic;
use hystart::{Growth, HyStart};
use new_reno::NewReno;
use rounds::Rounds;
use westwood::Westwood;

/// Least window after a reduction, and least threshold.
const WINDOW_MIN: u32 = 2;
/// How long the threshold of a former call holds.
const THRESHOLD_TTL: Duration = Duration::from_secs(10);

/// What is known of the path when a controller decides.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub now: Instant,
    /// Smoothed round-trip time.
    pub srtt: Option<Duration>,
    /// Packets that the path delivered in the time of the least round trip: what it holds without a queue.
    pub pipe: u32,
    /// Whether round trips now take clearly longer than the least one.
    pub is_queueing: bool,
    /// Whether the delivery rate has still grown by a quarter within the last three rounds.
    pub is_filling: bool,
    /// Packets lost in this round.
    pub lost_in_round: u32,
}

/// How a window grows where slow start has ended, and what is left of it after a loss.
pub trait Controller {
    /// Packets were acknowledged: the window from now on.
    fn grow(&mut self, path: &Path, window: u32, packets: u32) -> u32;

    /// Packets were lost, with so many in flight: the threshold from now on.
    fn reduce(&mut self, path: &Path, window: u32, in_flight: u32) -> u32;

    /// Nothing was sent for a while: time that passed does not count.
    fn on_idle(&mut self) {}

    /// Whether slow start goes on although packets were lost.
    fn tolerates(&self, _path: &Path, _window: u32) -> bool {
        false
    }
}

#[derive(Clone, Debug, Hash)]
enum Algorithm {
    NewReno(NewReno),
    Cubic(Cubic),
    Westwood(Westwood),
}

impl Algorithm {
    fn controller(&mut self) -> &mut dyn Controller {
        match self {
            Algorithm::NewReno(it) => it,
            Algorithm::Cubic(it) => it,
            Algorithm::Westwood(it) => it,
        }
    }
}

/// What an ACK says of the path.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub now: Instant,
    /// Packets acknowledged for the first time.
    pub packets: u32,
    /// Packets in flight before.
    pub in_flight: u32,
    /// Highest serial of ours that is known to have arrived.
    pub delivered: Option<Serial>,
    /// The serial that our next packet will have.
    pub next_serial: Serial,
    /// A round-trip sample.
    pub sample: Option<Duration>,
    /// Smoothed and least round-trip time.
    pub srtt: Option<Duration>,
    pub least_rtt: Option<Duration>,
}

/// The state before a reduction, while it may turn out to have been for nothing.
#[derive(Clone, Debug, Hash)]
struct Undo {
    window: u32,
    threshold: u32,
    algorithm: Algorithm,
    /// Packets that counted as lost, less those of which it was wrong.
    lost: u32,
    is_timeout: bool,
}

/// Congestion window of one call.
#[derive(Clone, Debug, Hash)]
pub struct Congestion {
    algorithm: Algorithm,
    window: u32,
    threshold: u32,
    window_max: u32,
    initial: u32,
    hystart: HyStart,
    rounds: Rounds,
    srtt: Option<Duration>,
    /// The last reduction was made before this serial: what was lost of those before it is the same loss, even
    /// if a short table tells of it much later.
    reduced_at: Option<Serial>,
    /// Until something after `reduced_at` arrives, the window does not grow.
    recovering: bool,
    undo: Option<Box<Undo>>,
    saw_loss: bool,
}

impl Congestion {
    /// Starts with the configured window, or with what is remembered of the path: the window halves for each
    /// `rto` that it was not used (RFC 2861), the threshold holds for ten seconds.
    pub fn new(
        config: &CallConfig,
        memory: Option<CongestionMemory>,
        now: Instant,
        rto: Duration,
    ) -> Congestion {
        let initial = config.congestion_window_initial_packets;
        let window_max = config.send_window_max_packets.max(initial);
        let (mut window, mut threshold) = (initial, window_max);
        if let Some(memory) = memory {
            let age = now.saturating_duration_since(memory.at);
            let halvings = (age.as_micros() / rto.as_micros().max(1)).min(31) as u32;
            window = (memory.window >> halvings).max(initial);
            if age <= THRESHOLD_TTL {
                threshold = memory.threshold.max(WINDOW_MIN);
            }
        }
        let algorithm = match config.congestion_control {
            CongestionControl::NewReno => Algorithm::NewReno(NewReno::default()),
            CongestionControl::Cubic => Algorithm::Cubic(Cubic::default()),
            CongestionControl::Westwood => Algorithm::Westwood(Westwood::default()),
        };
        Congestion {
            algorithm,
            window: window.min(window_max),
            threshold,
            window_max,
            initial,
            hystart: HyStart::default(),
            rounds: Rounds::new(now),
            srtt: None,
            reduced_at: None,
            recovering: false,
            undo: None,
            saw_loss: false,
        }
    }

    /// Packets that may be in flight.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Whether the window grows with every acknowledged packet.
    pub fn is_slow_start(&self) -> bool {
        !self.recovering && self.window < self.threshold
    }

    /// Whether a loss is being mended.
    pub fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// Whether the last reduction was that of a timeout, and may yet be undone.
    pub fn is_after_timeout(&self) -> bool {
        self.undo.as_ref().is_some_and(|undo| undo.is_timeout)
    }

    /// An ACK came.
    pub fn on_acked(&mut self, acked: &Acked) {
        self.srtt = acked.srtt.or(self.srtt);
        let begins = self.rounds.on_acked(acked, self.window);
        if begins {
            self.hystart.begin_round();
        }
        if let (Some(delivered), Some(reduced_at)) = (acked.delivered, self.reduced_at)
            && !delivered.before(reduced_at)
        {
            // What was sent after the reduction arrives: the loss is mended, or will be found again.
            self.recovering = false;
            self.undo = None;
        }
        if self.recovering || acked.packets == 0 {
            return;
        }
        if self.window < self.threshold {
            self.grow_slowly(acked);
        } else if acked.in_flight >= self.window {
            let path = self.path(acked.now);
            self.window = self.algorithm.controller().grow(&path, self.window, acked.packets);
        }
        self.window = self.window.min(self.window_max);
    }

    /// Slow start. A window of which not half was used says nothing of the path.
    fn grow_slowly(&mut self, acked: &Acked) {
        if 2 * acked.in_flight <= self.window {
            return;
        }
        let packets = match self.hystart.on_acked(acked.sample, acked.packets) {
            Growth::Slow(packets) => packets,
            Growth::Done => {
                self.threshold = self.window;
                return;
            }
        };
        self.window = (self.window + packets).min(self.threshold.max(self.window));
    }

    /// Packets were found lost, the one sent last of them with this serial.
    pub fn on_lost(&mut self, now: Instant, lost: u32, last: Serial, in_flight: u32, next: Serial) {
        self.saw_loss = true;
        self.rounds.on_lost(lost);
        if self.reduced_at.is_some_and(|at| last.before(at)) {
            if let Some(undo) = &mut self.undo {
                undo.lost += lost;
            }
            return;
        }
        let path = self.path(now);
        if self.is_slow_start() && self.algorithm.controller().tolerates(&path, self.window) {
            return;
        }
        self.save_for_undo(lost, false);
        let used = self.rounds.peak().max(in_flight).min(self.window);
        self.threshold =
            self.algorithm.controller().reduce(&path, self.window, used).max(WINDOW_MIN);
        self.window = self.threshold.min(self.window_max);
        self.reduced_at = Some(next);
        self.recovering = true;
    }

    /// The retransmission timer ran out, and so many packets count as lost.
    pub fn on_timeout(&mut self, now: Instant, lost: u32, in_flight: u32, next: Serial) {
        self.saw_loss = true;
        if !self.is_after_timeout() {
            self.save_for_undo(lost, true);
        }
        let path = self.path(now);
        self.threshold =
            self.algorithm.controller().reduce(&path, self.window, in_flight).max(WINDOW_MIN);
        self.window = 1;
        self.recovering = false;
        self.reduced_at = Some(next);
        self.hystart = HyStart::default();
    }

    /// So many packets that counted as lost had arrived. Returns whether the reduction was undone: after a
    /// timeout one is enough, as F-RTO has it (RFC 5682), else all of them (RFC 4015).
    pub fn on_spurious(&mut self, packets: u32) -> bool {
        let Some(undo) = &mut self.undo else { return false };
        undo.lost = undo.lost.saturating_sub(packets);
        if undo.lost > 0 && !undo.is_timeout {
            return false;
        }
        let Some(undo) = self.undo.take() else { return false };
        self.window = self.window.max(undo.window);
        self.threshold = self.threshold.max(undo.threshold);
        self.algorithm = undo.algorithm;
        self.recovering = false;
        self.reduced_at = None;
        true
    }

    /// Nothing was sent for longer than a retransmission timeout (RFC 5681 4.1).
    pub fn on_idle(&mut self) {
        self.threshold = self.threshold.max(self.window * 3 / 4);
        self.window = self.window.min(self.initial);
        self.algorithm.controller().on_idle();
    }

    /// What later calls to the peer start with.
    pub fn memory(&self, now: Instant) -> CongestionMemory {
        CongestionMemory {
            window: if self.recovering { self.threshold } else { self.window },
            threshold: self.threshold,
            at: now,
            saw_loss: self.saw_loss,
        }
    }

    /// Takes out what only says how fast a path is (docs/exploration.md).
    #[cfg(feature = "testkit")]
    pub fn settle(&mut self, now: Instant) {
        self.rounds = Rounds::new(now);
        self.hystart = HyStart::default();
        self.srtt = None;
    }

    /// The serials that are remembered.
    #[cfg(feature = "testkit")]
    pub fn each_serial(&mut self, visit: &mut dyn FnMut(&mut Serial)) {
        self.reduced_at.iter_mut().for_each(visit);
    }

    fn save_for_undo(&mut self, lost: u32, is_timeout: bool) {
        self.undo = Some(Box::new(Undo {
            window: self.window,
            threshold: self.threshold,
            algorithm: self.algorithm.clone(),
            lost,
            is_timeout,
        }));
    }

    fn path(&self, now: Instant) -> Path {
        Path {
            now,
            srtt: self.srtt,
            pipe: self.rounds.pipe(),
            is_queueing: self.rounds.is_queueing(),
            is_filling: self.rounds.is_filling(),
            lost_in_round: self.rounds.lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn config(control: CongestionControl) -> CallConfig {
        CallConfig {
            congestion_control: control,
            send_window_max_packets: 255,
            ..CallConfig::default()
        }
    }

    fn congestion(initial: u32) -> Congestion {
        let config = CallConfig {
            congestion_window_initial_packets: initial,
            ..config(CongestionControl::NewReno)
        };
        Congestion::new(&config, None, Instant::now(), 350 * MS)
    }

    pub(super) fn acked(packets: u32, in_flight: u32, delivered: u32, next: u32) -> Acked {
        Acked {
            now: Instant::now(),
            packets,
            in_flight,
            delivered: Some(Serial(delivered)),
            next_serial: Serial(next),
            sample: None,
            srtt: None,
            least_rtt: None,
        }
    }

    #[test]
    fn slow_start_doubles_and_stops_at_the_most() {
        let mut congestion = congestion(4);
        for expected in [8, 16, 32, 64, 128, 255, 255] {
            let window = congestion.window();
            congestion.on_acked(&acked(window, window, 1, 2));
            assert_eq!(congestion.window(), expected);
        }
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut congestion = congestion(8);
        congestion.on_acked(&acked(4, 4, 1, 2));
        assert_eq!(congestion.window(), 8);
    }

    #[test]
    fn a_loss_reduces_once_for_a_round_trip() {
        let now = Instant::now();
        let mut congestion = congestion(40);
        congestion.on_lost(now, 1, Serial(10), 40, Serial(50));
        assert_eq!((congestion.window(), congestion.is_recovering()), (20, true));
        congestion.on_acked(&acked(20, 40, 49, 60));
        congestion.on_lost(now, 3, Serial(49), 20, Serial(60));
        assert_eq!(congestion.window(), 20, "what was sent before the reduction is the same loss");
        congestion.on_lost(now, 1, Serial(50), 20, Serial(70));
        assert_eq!(congestion.window(), 10, "what was sent after it, or sent again, is another");
        congestion.on_acked(&acked(1, 10, 70, 80));
        assert!(!congestion.is_recovering());
        for _ in 0..9 {
            congestion.on_acked(&acked(1, 10, 75, 80));
        }
        assert_eq!(congestion.window(), 11, "one more for each window acknowledged");
    }

    #[test]
    fn a_timeout_starts_over_from_one() {
        // S-129.
        let mut congestion = congestion(40);
        congestion.on_timeout(Instant::now(), 40, 40, Serial(50));
        assert_eq!(congestion.window(), 1);
        congestion.on_acked(&acked(1, 1, 50, 51));
        assert_eq!(congestion.window(), 2);
    }

    #[test]
    fn what_was_reduced_for_nothing_is_given_back() {
        let now = Instant::now();
        let mut congestion = congestion(40);
        congestion.on_lost(now, 2, Serial(10), 40, Serial(50));
        assert!(!congestion.on_spurious(1), "one of the two was lost");
        assert!(congestion.on_spurious(1));
        assert_eq!((congestion.window(), congestion.is_slow_start()), (40, true));
        // One is enough after a timeout: the ACKs were late, all of them.
        congestion.on_timeout(now, 40, 40, Serial(60));
        assert!(congestion.on_spurious(1) && !congestion.on_spurious(1));
        assert_eq!(congestion.window(), 40);
        // Once what was sent afterwards has arrived, it is over.
        congestion.on_lost(now, 1, Serial(60), 40, Serial(70));
        congestion.on_acked(&acked(1, 20, 70, 71));
        assert!(!congestion.on_spurious(1));
    }

    #[test]
    fn what_is_remembered_of_a_path_ages() {
        let now = Instant::now();
        let memory = CongestionMemory { window: 64, threshold: 32, at: now, saw_loss: true };
        let at = |age: Duration| {
            let config = config(CongestionControl::Cubic);
            let it = Congestion::new(&config, Some(memory), now + age, 350 * MS);
            (it.window, it.threshold)
        };
        assert_eq!(at(349 * MS), (64, 32));
        assert_eq!(at(350 * MS), (32, 32));
        assert_eq!(at(700 * MS), (16, 32));
        assert_eq!(at(10_000 * MS), (10, 32));
        assert_eq!(at(10_001 * MS), (10, 255));
    }
}
