//! Round trips by serial, and what the path delivers in one.

use std::time::{Duration, Instant};

use super::Acked;
use crate::wire::Serial;

/// Rounds of which the best counts.
const ROUNDS_KEPT: usize = 3;
/// Rounds without growth after which the path is full.
const FULL_ROUNDS: u32 = 3;
/// Least and greatest delay that means a queue.
const QUEUE_DELAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// See the module.
#[derive(Clone, Debug, Hash)]
pub struct Rounds {
    began: Instant,
    /// The first serial sent in this round: when it arrives, the round is over.
    end: Option<Serial>,
    delivered: u32,
    lost: u32,
    /// Most packets in flight in this round and the last.
    peaks: [u32; 2],
    /// Whether the window was the limit in this round.
    is_limited: bool,
    /// Packets delivered in the time of the least round trip, in the last rounds.
    pipes: [u32; ROUNDS_KEPT],
    least: Option<Duration>,
    /// The last two samples.
    samples: [Option<Duration>; 2],
    /// Packets a second: the best so far that was a quarter better than the one before.
    rate: u64,
    rounds_without_growth: u32,
}

impl Rounds {
    pub fn new(now: Instant) -> Rounds {
        Rounds {
            began: now,
            end: None,
            delivered: 0,
            lost: 0,
            peaks: [0; 2],
            is_limited: false,
            pipes: [0; ROUNDS_KEPT],
            least: None,
            samples: [None; 2],
            rate: 0,
            rounds_without_growth: 0,
        }
    }

    /// An ACK came; whether a round begins with it.
    pub fn on_acked(&mut self, acked: &Acked, window: u32) -> bool {
        self.delivered += acked.packets;
        self.peaks[0] = self.peaks[0].max(acked.in_flight);
        self.least = acked.least_rtt.or(self.least);
        self.is_limited |= acked.in_flight >= window;
        if acked.sample.is_some() {
            self.samples = [acked.sample, self.samples[0]];
        }
        let is_over = match (self.end, acked.delivered) {
            (None, _) => true,
            (Some(end), Some(delivered)) => !delivered.before(end),
            _ => false,
        };
        if is_over {
            self.finish(acked);
        }
        is_over
    }

    fn finish(&mut self, acked: &Acked) {
        let time = acked.now.saturating_duration_since(self.began);
        if self.end.is_some() && !time.is_zero() {
            let packets = u128::from(self.delivered);
            // What is lost at random was sent at the same rate; where a queue is full it was not.
            let lost = if self.is_queueing() { 0 } else { self.lost.min(self.delivered / 8) };
            let carried = packets + u128::from(lost);
            let least = self.least.unwrap_or(time).min(time);
            self.pipes.rotate_right(1);
            self.pipes[0] = (carried * least.as_nanos()).div_ceil(time.as_nanos()) as u32;
            let rate = (packets * 1_000_000_000 / time.as_nanos()) as u64;
            if rate >= self.rate + self.rate / 4 {
                self.rate = rate;
                self.rounds_without_growth = 0;
            } else if self.is_limited {
                self.rounds_without_growth += 1;
            }
        }
        self.began = acked.now;
        self.peaks = [0, self.peaks[0]];
        self.end = Some(acked.next_serial);
        (self.delivered, self.lost, self.is_limited) = (0, 0, false);
    }

    pub fn on_lost(&mut self, packets: u32) {
        self.lost += packets;
    }

    /// Most packets in flight in this round and the last.
    pub fn peak(&self) -> u32 {
        self.peaks[0].max(self.peaks[1])
    }

    /// Packets lost in this round.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Packets that the path delivered in the time of the least round trip.
    pub fn pipe(&self) -> u32 {
        self.pipes.iter().copied().max().unwrap_or(0)
    }

    /// Whether the delivery rate still grows.
    pub fn is_filling(&self) -> bool {
        self.rounds_without_growth < FULL_ROUNDS
    }

    /// Whether round trips take clearly longer than the least one.
    pub fn is_queueing(&self) -> bool {
        let now = self.samples.into_iter().flatten().min();
        let (Some(least), Some(now)) = (self.least, now) else { return false };
        now > least + (least / 8).clamp(QUEUE_DELAY.0, QUEUE_DELAY.1)
    }
}
