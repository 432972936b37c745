//! One direction of a faulty network: decides each datagram's fate, and holds what is late.
//!
//! Two stages. The first counts datagrams: loss, duplicates, and holding back until others have
//! overtaken. The second counts time: delay. Knows nothing of networks and wakers.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range};

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::{FaultCounters, Faults};
use crate::net::Incoming;

/// How long a datagram that waits to be overtaken waits at most, in milliseconds.
pub const REORDER_HOLD_MS_MAX: u64 = 20;

/// Bytes that one direction holds back or delays at most; what comes beyond is lost, as in a full queue.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// Datagrams from or to one peer.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) peer: SocketAddr,
    pub(super) data: Bytes,
    pub(super) stride: usize,
    pub(super) may_fragment: bool,
}

impl Run {
    pub(super) fn datagrams(&self) -> usize {
        self.data.len().div_ceil(self.stride).max(1)
    }

    fn part(&self, datagrams: Range<usize>) -> Run {
        let end = (datagrams.end * self.stride).min(self.data.len());
        Run { data: self.data.slice(datagrams.start * self.stride..end), ..*self }
    }
}

impl From<Run> for Incoming {
    fn from(Run { peer: from, data, stride, .. }: Run) -> Incoming {
        Incoming::Datagrams { from, data, stride }
    }
}

/// What a lane needs to know, and where things go.
pub(super) struct Exit<'a> {
    pub(super) faults: &'a Faults,
    pub(super) now: Instant,
    pub(super) counters: &'a mut FaultCounters,
    pub(super) out: &'a mut Vec<Run>,
}

#[derive(Debug)]
pub(super) struct Lane {
    random: SplitMix64,
    /// Datagrams that left the first stage.
    passed: u64,
    overtaken: Vec<Overtaken>,
    /// The second part of the key keeps the order of equal times.
    delayed: BTreeMap<(Instant, u64), Run>,
    delays: u64,
    /// Bytes of both.
    held_bytes: usize,
}

/// A datagram that waits until `passed` has come to `until`, or for its time.
#[derive(Debug)]
struct Overtaken {
    until: u64,
    deadline: Instant,
    run: Run,
}

/// A datagram's lot, all drawn at once: the same number of draws for each datagram, so that changing
/// one fault leaves the others where they strike.
struct Lot {
    is_lost: bool,
    is_doubled: bool,
    /// By how many it is overtaken; zero for none.
    overtaken_by: u64,
    delay: Duration,
}

impl Lane {
    pub(super) fn new(seed: u64) -> Lane {
        Lane {
            random: SplitMix64(seed),
            passed: 0,
            overtaken: Vec::new(),
            delayed: BTreeMap::new(),
            delays: 0,
            held_bytes: 0,
        }
    }

    /// Takes a run in; what passes at once comes out.
    pub(super) fn admit(&mut self, run: Run, exit: &mut Exit<'_>) {
        // The datagrams `piece` have passed alike and are not handed on yet.
        let (mut piece, mut piece_delay) = (0..0, Duration::ZERO);
        for index in 0..run.datagrams() {
            let lot = self.draw(exit.faults);
            let copies = if lot.is_lost { 0 } else { 1 + u64::from(lot.is_doubled) };
            let is_held = copies > 0 && lot.overtaken_by > 0;
            let in_turn = copies - u64::from(is_held);
            count(exit.counters, &lot, is_held);
            if is_held && self.takes(run.part(index..index + 1).data.len(), 1, exit) {
                self.overtaken.push(Overtaken {
                    until: self.passed + in_turn + lot.overtaken_by,
                    deadline: exit.now + Duration::from_millis(REORDER_HOLD_MS_MAX),
                    run: run.part(index..index + 1),
                });
            }
            for _ in 0..in_turn {
                if piece.end != index || piece_delay != lot.delay {
                    self.hand_on_part(&run, piece, piece_delay, exit);
                    (piece, piece_delay) = (index..index, lot.delay);
                }
                piece.end = index + 1;
                self.passed += 1;
                if self.next_overtaken().is_some() {
                    self.hand_on_part(&run, piece, piece_delay, exit);
                    piece = index + 1..index + 1;
                    self.let_go(exit);
                }
            }
        }
        self.hand_on_part(&run, piece, piece_delay, exit);
    }

    /// Lets go what is due, or everything once there are no faults any more.
    pub(super) fn release(&mut self, faults: &Faults, now: Instant, out: &mut Vec<Run>) {
        let is_over = faults.are_none();
        while let Some(first) = self.delayed.first_entry() {
            if !is_over && first.key().0 > now {
                break;
            }
            let run = first.remove();
            self.held_bytes -= run.data.len();
            out.push(run);
        }
        let due = |overtaken: &mut Overtaken| is_over || overtaken.deadline <= now;
        for overtaken in self.overtaken.extract_if(.., due) {
            self.held_bytes -= overtaken.run.data.len();
            out.push(overtaken.run);
        }
    }

    /// When `release` next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let overtaken = self.overtaken.iter().map(|overtaken| overtaken.deadline).min();
        delayed.into_iter().chain(overtaken).min()
    }

    /// Whether there is room to hold so much.
    fn takes(&mut self, bytes: usize, datagrams: u64, exit: &mut Exit<'_>) -> bool {
        let fits = self.held_bytes + bytes <= HELD_BYTES_MAX;
        if fits {
            self.held_bytes += bytes;
        } else {
            exit.counters.overflowed_datagrams += datagrams;
        }
        fits
    }

    fn draw(&mut self, faults: &Faults) -> Lot {
        let is_lost = self.random.strikes(faults.loss_probability);
        let is_doubled = self.random.strikes(faults.duplicate_probability);
        let is_reordered = self.random.strikes(faults.reorder_probability);
        let distance = self.random.up_to(u64::from(faults.reorder_datagrams_max.max(1)) - 1) + 1;
        let jitter_us = self.random.up_to(faults.jitter_ms.saturating_mul(1000));
        Lot {
            is_lost,
            is_doubled,
            overtaken_by: if is_reordered && faults.reorder_datagrams_max > 0 {
                distance
            } else {
                0
            },
            delay: Duration::from_millis(faults.delay_ms) + Duration::from_micros(jitter_us),
        }
    }

    fn next_overtaken(&self) -> Option<usize> {
        self.overtaken.iter().position(|overtaken| overtaken.until <= self.passed)
    }

    /// Those that were overtaken often enough; they have their delay still before them.
    fn let_go(&mut self, exit: &mut Exit<'_>) {
        while let Some(index) = self.next_overtaken() {
            let overtaken = self.overtaken.remove(index);
            self.held_bytes -= overtaken.run.data.len();
            self.passed += 1;
            self.hand_on(overtaken.run, Duration::from_millis(exit.faults.delay_ms), exit);
        }
    }

    fn hand_on_part(
        &mut self,
        run: &Run,
        part: Range<usize>,
        delay: Duration,
        exit: &mut Exit<'_>,
    ) {
        if !part.is_empty() {
            self.hand_on(run.part(part), delay, exit);
        }
    }

    fn hand_on(&mut self, run: Run, delay: Duration, exit: &mut Exit<'_>) {
        if delay.is_zero() {
            exit.out.push(run);
        } else if self.takes(run.data.len(), run.datagrams() as u64, exit) {
            exit.counters.delayed_datagrams += run.datagrams() as u64;
            self.delayed.insert((exit.now + delay, self.delays), run);
            self.delays += 1;
        }
    }
}

fn count(counters: &mut FaultCounters, lot: &Lot, is_held: bool) {
    counters.lost_datagrams += u64::from(lot.is_lost);
    counters.duplicated_datagrams += u64::from(!lot.is_lost && lot.is_doubled);
    counters.reordered_datagrams += u64::from(is_held);
    counters.passed_datagrams += u64::from(!lot.is_lost && !lot.is_doubled && !is_held);
}

/// Sebastiano Vigna's SplitMix64. Our own six lines, because a seed must mean the same faults in every
/// later version of this crate, which `rand` does not promise for its small generators.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with this probability: never at 0, always at 1.
    fn strikes(&mut self, probability: f64) -> bool {
        let evenly_below_one = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        evenly_below_one < probability
    }

    /// Evenly from 0 to `max`.
    fn up_to(&mut self, max: u64) -> u64 {
        ((u128::from(self.next()) * (u128::from(max) + 1)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_held_up_to_the_limit_and_what_comes_beyond_is_lost() {
        let reorder =
            Faults { reorder_probability: 1.0, reorder_datagrams_max: 1000, ..Faults::default() };
        for faults in [Faults { delay_ms: 50, ..Faults::default() }, reorder] {
            let mut lane = Lane::new(1);
            let mut counters = FaultCounters::default();
            let (now, mut out) = (Instant::now(), Vec::new());
            let peer = SocketAddr::from(([10, 0, 0, 1], 7001));
            let mut admit = |lane: &mut Lane| {
                let run = Run {
                    peer,
                    data: Bytes::from_static(&[0; 1 << 20]),
                    stride: 1 << 20,
                    may_fragment: false,
                };
                let mut exit =
                    Exit { faults: &faults, now, counters: &mut counters, out: &mut Vec::new() };
                lane.admit(run, &mut exit);
                counters.overflowed_datagrams
            };
            for _ in 0..64 {
                assert_eq!(admit(&mut lane), 0);
            }
            assert_eq!(admit(&mut lane), 1);
            lane.release(&faults, now + Duration::from_secs(1), &mut out);
            assert_eq!((out.len(), lane.held_bytes), (64, 0));
            assert_eq!(admit(&mut lane), 1, "there is room again");
        }
    }

    #[test]
    fn seeds_mean_the_same_for_ever() {
        // First outputs of the reference implementation for seed 1234567.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        let mut random = SplitMix64(0);
        let mut seen = [false; 4];
        (0..1000).for_each(|_| seen[random.up_to(3) as usize] = true);
        assert_eq!(seen, [true; 4]);
    }
}
