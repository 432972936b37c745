//! What is remembered of a peer (address and port) across calls and connections (rx-flow.md 10).
//!
//! The endpoint owns the memory. A channel works on the [`PeerHint`] that comes with each run and sends
//! what it learns back as a [`PeerReport`]; no order between calls matters for any of it.

use std::time::{Duration, Instant};

use super::path::{DATAGRAM_DEFAULT, PathSize};
use super::{CallTag, NetworkProblem, Room};
use crate::wire::{AbortCode, CallNumber, HEADER_LEN};

/// What a peer says that it takes (rx-wire.md 4.4.2). Sizes are bytes of UDP payload, Rx header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerSizes {
    /// Largest datagram: its trailer's first word.
    pub datagram_max: u16,
    /// What it suggests: the second word, where that is less.
    pub suggested_max: u16,
    /// Packets per datagram, 1..=6.
    pub jumbo_max: u8,
}

impl Default for PeerSizes {
    /// Until it has said anything.
    fn default() -> PeerSizes {
        PeerSizes { datagram_max: DATAGRAM_DEFAULT, suggested_max: DATAGRAM_DEFAULT, jumbo_max: 1 }
    }
}

/// A snapshot of what the endpoint knows, for one call's use: of its peer, and of the room there is.
#[derive(Clone, Copy, Debug, PartialEq, Hash)]
pub struct PeerHint {
    /// Smoothed round-trip time and its variation; `None` without a sample.
    pub rtt: Option<RttMemory>,
    /// Congestion state of the last calls.
    pub congestion: Option<CongestionMemory>,
    /// What the peer takes.
    pub sizes: PeerSizes,
    /// What the path takes.
    pub path: PathSize,
    /// Whether the peer is a Linux kernel: its trailer's last word was once 0, or its VERSION says so
    /// (rx-flow.md 5.3).
    pub is_linux: bool,
    /// Whether the peer has asked by padded PINGs how large datagrams may be, and so may be told of large ones
    /// (rx-flow.md 9.3).
    pub asks_sizes: bool,
    /// Until when the peer's address counts as proved.
    pub proved_until: Option<Instant>,
    /// How much the connection's calls may buffer.
    pub room: Room,
    /// Server: whether the service has time for calls.
    pub load: ServiceLoad,
}

/// Whether a service runs a call as soon as it can be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServiceLoad {
    /// Yes, however many there are.
    #[default]
    Unlimited,
    /// It runs only so many at once: a call asks for its turn.
    Limited,
    /// All those run, and as many wait as may: a new call is ended with this code.
    Full(AbortCode),
}

/// What a channel says of its call to whoever gives out the turns of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnWord {
    /// This call could run. One that waited before it does not any more.
    Wants(CallTag),
    /// The call that waited is over.
    Gone,
}

impl Default for PeerHint {
    fn default() -> Self {
        PeerHint {
            rtt: None,
            congestion: None,
            sizes: PeerSizes::default(),
            path: PathSize::default(),
            is_linux: false,
            asks_sizes: false,
            proved_until: None,
            room: Room::Free,
            load: ServiceLoad::Unlimited,
        }
    }
}

impl PeerHint {
    /// Whether the address counts as proved at `now`.
    pub fn is_proved(&self, now: Instant) -> bool {
        self.proved_until.is_some_and(|until| now < until)
    }

    /// Largest payload of a DATA packet that goes unfragmented and that no proof is needed for, in bytes.
    pub fn payload_max(&self) -> u16 {
        self.usual_datagram_max() - HEADER_LEN as u16
    }

    /// Largest datagram that no proof is needed for.
    pub fn usual_datagram_max(&self) -> u16 {
        self.sizes.suggested_max.min(DATAGRAM_DEFAULT).min(self.path.datagram_max())
    }
}

/// RTT state that outlives a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RttMemory {
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// Its variation.
    pub var: Duration,
    /// Samples so far; saturates.
    pub samples: u32,
}

/// Congestion state that outlives a call.
#[derive(Clone, Copy, Debug, PartialEq, Hash)]
pub struct CongestionMemory {
    /// Congestion window at a call's end, in packets.
    pub window: u32,
    /// Slow-start threshold, in packets.
    pub threshold: u32,
    /// When it was current.
    pub at: Instant,
    /// Whether the call saw a loss: then it replaces what is remembered, else the greater window stays.
    pub saw_loss: bool,
}

/// So much of the age of a window need not be told: it halves after a retransmission timeout without use, which is ten
/// times as long.
const CONGESTION_AGE_UNTOLD_MAX: Duration = Duration::from_millis(25);

impl CongestionMemory {
    /// Whether somebody who remembers `known` has to hear of this: it says more than that the window was in use
    /// a moment ago. Where small calls follow each other, it does not.
    pub fn is_news(&self, known: Option<&CongestionMemory>) -> bool {
        known.is_none_or(|known| {
            self.saw_loss
                || self.window > known.window
                || self.threshold != known.threshold
                || self.at.saturating_duration_since(known.at) > CONGESTION_AGE_UNTOLD_MAX
        })
    }
}

/// What a channel learnt of its peer in one step; all empty where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerReport {
    /// A new estimate.
    pub rtt: Option<RttMemory>,
    /// A call's end.
    pub congestion: Option<CongestionMemory>,
    /// What it takes now.
    pub sizes: Option<PeerSizes>,
    /// What the path takes now.
    pub path: Option<PathSize>,
    /// It is a Linux kernel.
    pub is_linux: bool,
    /// It asks how large datagrams may be.
    pub asks_sizes: bool,
    /// The address was proved now.
    pub proved: bool,
}

impl PeerReport {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == PeerReport::default()
    }
}

/// The endpoint's memory of one peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What calls start with.
    pub hint: PeerHint,
    /// Bytes that came from it.
    pub bytes_received: u64,
    /// Bytes that went to it.
    pub bytes_sent: u64,
    /// Datagrams that came from it.
    pub datagrams_received: u64,
    /// Datagrams that went to it.
    pub datagrams_sent: u64,
    /// DATA packets that went to it again.
    pub packets_resent: u64,
    /// Server connections with it.
    pub server_connections: usize,
    /// Client connections with it.
    pub client_connections: usize,
    /// When it was last heard or sent to.
    pub last_used: Instant,
    /// When it was last sent to.
    pub last_sent: Option<Instant>,
    /// What the network last said of the path, until something is heard again.
    pub problem: Option<NetworkProblem>,
    /// The number of our VERSION request to it.
    pub version_asked: Option<CallNumber>,
    /// Bytes received from it while its address was unproved.
    unproved_received: u64,
    /// Until when answers are not limited.
    unlimited_until: Option<Instant>,
    /// Bytes sent to it, as an answer, while its address was unproved.
    unproved_sent: u64,
}

impl Peer {
    /// A peer of which nothing is known.
    pub fn new(now: Instant) -> Peer {
        Peer {
            hint: PeerHint::default(),
            bytes_received: 0,
            bytes_sent: 0,
            datagrams_received: 0,
            datagrams_sent: 0,
            packets_resent: 0,
            server_connections: 0,
            client_connections: 0,
            last_used: now,
            last_sent: None,
            problem: None,
            version_asked: None,
            unlimited_until: None,
            unproved_received: 0,
            unproved_sent: 0,
        }
    }

    /// Counts what came from it.
    #[inline]
    pub fn received(&mut self, now: Instant, datagrams: usize, bytes: usize) {
        self.last_used = now;
        self.problem = None;
        self.datagrams_received += datagrams as u64;
        self.bytes_received += bytes as u64;
        if !self.is_unlimited(now) {
            self.unproved_received += bytes as u64;
        }
    }

    /// Counts what goes to it, and says whether it may: while its address is unproved, answers never pass
    /// `factor_max` times what came from it.
    #[inline]
    pub fn may_send(
        &mut self,
        now: Instant,
        datagrams: usize,
        bytes: usize,
        factor_max: Option<u32>,
    ) -> bool {
        if let Some(factor) = factor_max
            && !self.is_unlimited(now)
        {
            let sent = self.unproved_sent + bytes as u64;
            if sent > self.unproved_received.saturating_mul(u64::from(factor)) {
                return false;
            }
            self.unproved_sent = sent;
        }
        self.last_used = now;
        self.last_sent = Some(now);
        self.datagrams_sent += datagrams as u64;
        self.bytes_sent += bytes as u64;
        true
    }

    /// Whether answers are not limited: the address was proved not long ago.
    fn is_unlimited(&self, now: Instant) -> bool {
        self.unlimited_until.is_some_and(|until| now < until)
    }

    /// Takes over what a channel learnt. A proof stands for calls to come for `reach_ttl`; for answers of the
    /// calls that it was given in, at least for `hold`, so that a proof that is asked for anew often does not
    /// keep their packets back in between.
    pub fn learn(
        &mut self,
        now: Instant,
        report: &PeerReport,
        reach_ttl: Duration,
        hold: Duration,
    ) {
        let hint = &mut self.hint;
        if report.rtt.is_some() {
            hint.rtt = report.rtt;
        }
        if let Some(new) = report.congestion {
            // OpenAFS's merge rule: the greater window stays unless a loss was seen (rx-flow.md 8).
            hint.congestion = Some(match hint.congestion {
                Some(old) if !new.saw_loss && old.window > new.window => {
                    CongestionMemory { at: new.at, ..old }
                }
                _ => new,
            });
        }
        if let Some(sizes) = report.sizes {
            hint.sizes = sizes;
        }
        if let Some(path) = report.path {
            hint.path.merge(&path);
        }
        hint.is_linux |= report.is_linux;
        hint.asks_sizes |= report.asks_sizes;
        if report.proved {
            hint.proved_until = Some(now + reach_ttl);
            self.unlimited_until = Some(now + reach_ttl.max(hold));
            self.unproved_received = 0;
            self.unproved_sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproved_address_draws_three_times_its_bytes_and_not_one_more() {
        let now = Instant::now();
        let mut peer = Peer::new(now);
        peer.received(now, 1, 29);
        assert!(peer.may_send(now, 1, 65, Some(3)));
        assert!(!peer.may_send(now, 1, 23, Some(3)));
        assert!(peer.may_send(now, 1, 22, Some(3)));
        peer.learn(
            now,
            &PeerReport { proved: true, ..PeerReport::default() },
            Duration::from_secs(60),
            Duration::from_secs(20),
        );
        assert!(peer.may_send(now, 1, 1_000_000, Some(3)));
        assert!(!peer.may_send(now + Duration::from_secs(60), 1, 1, Some(3)), "the proof ends");
    }

    #[test]
    fn a_window_that_is_known_is_told_again_when_it_has_aged_and_any_other_at_once() {
        let now = Instant::now();
        let ms = |count| now + Duration::from_millis(count);
        let known = CongestionMemory { window: 10, threshold: 64, at: now, saw_loss: false };
        let is_news = |memory: CongestionMemory| memory.is_news(Some(&known));
        assert!(known.is_news(None));
        assert!(!is_news(CongestionMemory { at: ms(25), ..known }));
        assert!(is_news(CongestionMemory { at: ms(26), ..known }));
        assert!(!is_news(CongestionMemory { window: 9, ..known }), "the greater stays");
        assert!(is_news(CongestionMemory { window: 11, ..known }));
        assert!(is_news(CongestionMemory { threshold: 63, ..known }));
        assert!(is_news(CongestionMemory { window: 9, saw_loss: true, ..known }));
    }
}
