//! Receive moderation: how long DATA is left to gather before it is taken, as network cards do it.
//!
//! A peer without segmentation offload sends a datagram a system call. Taken one by one each costs a wake of our
//! thread, which its sender pays for as well, a receive, a step and often an ACK. After a rest one receive brings
//! many of them, and one ACK answers all.
//!
//! A rest is a delay for whatever else comes, so only bulk is left to gather, and only what comes in single packets
//! and quick succession. It is no longer than a part of the peer's window takes, and gets shorter again where a
//! longer one brought no more: then the peer waits for our ACKs.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::wire::{Flags, Header, PacketType};

/// DATA beyond this is of a call that moves much.
const BULK_SEQ: u32 = 64;
/// Larger datagrams are batches by themselves: so few of them fit a window that resting costs more than it saves.
const DATAGRAM_BYTES_MAX: usize = 1500;
/// Datagrams of a receive, at the most, that came one by one.
const FEW_DATAGRAMS: usize = 8;
/// So many such receives before a rest, with no more time between two of them.
const STREAK: u32 = 4;
const QUICK: Duration = Duration::from_micros(250);
/// A rest that brought fewer was of no use: whoever sends is slower, or waits.
const USEFUL_DATAGRAMS: usize = 3;
/// What a rest should bring: OpenAFS sends 32 packets ahead (rx-flow.md 6), and shall not have to stop.
const WANTED_DATAGRAMS: RangeInclusive<usize> = 18..=26;
/// The first rest, and the shortest that is worth its timer.
const FIRST: Duration = Duration::from_micros(30);
const SHORTEST: Duration = Duration::from_micros(10);
/// Rests of a round; after each round they may get longer or shorter.
const ROUND: u32 = 16;
/// Rounds in which they do not get longer again, after longer ones had brought no more.
const CAUTION: u32 = 8;

/// When to rest, and for how long. One for all that comes to a socket.
#[derive(Debug)]
pub struct Moderation {
    longest: Duration,
    rest: Duration,
    /// Receives of single datagrams in a row, and when the last was.
    streak: u32,
    last: Option<Instant>,
    /// While there is a rest after each receive.
    round: Option<Round>,
    /// Datagrams of the round before, if its rests were shorter.
    shorter: Option<usize>,
    caution: u32,
}

#[derive(Debug, Default)]
struct Round {
    rests: u32,
    datagrams: usize,
}

impl Moderation {
    /// Rests are `longest` at the most. Zero: none.
    pub fn new(longest: Duration) -> Moderation {
        Moderation {
            longest,
            rest: FIRST.min(longest),
            streak: 0,
            last: None,
            round: None,
            shorter: None,
            caution: 0,
        }
    }

    /// Something was received: batches of one sender each, cut every so many bytes. For how long to receive
    /// nothing from now on; `now` is asked only if that is of interest.
    pub fn rest_after<'data>(
        &mut self,
        batches: impl IntoIterator<Item = (&'data [u8], usize)>,
        now: impl FnOnce() -> Instant,
    ) -> Option<Duration> {
        if self.longest.is_zero() {
            return None;
        }
        let Some(datagrams) = single_packets_of_bulk(batches) else {
            self.stop();
            return None;
        };
        match &mut self.round {
            Some(_) if datagrams < USEFUL_DATAGRAMS => {
                self.stop();
                None
            }
            Some(round) => {
                round.rests += 1;
                round.datagrams += datagrams;
                if round.rests == ROUND { self.end_round() } else { Some(self.rest) }
            }
            None => self.begin(datagrams, now()),
        }
    }

    /// The network cannot rest: it is not asked again.
    pub fn refuse(&mut self) {
        self.longest = Duration::ZERO;
        self.stop();
    }

    fn stop(&mut self) {
        self.round = None;
        self.shorter = None;
        self.streak = 0;
        self.last = None;
    }

    fn begin(&mut self, datagrams: usize, now: Instant) -> Option<Duration> {
        let last = self.last.replace(now);
        let is_quick = last.is_some_and(|last| now.saturating_duration_since(last) <= QUICK);
        self.streak = match datagrams {
            ..=FEW_DATAGRAMS if is_quick => self.streak + 1,
            ..=FEW_DATAGRAMS => 1,
            _ => 0,
        };
        if self.streak < STREAK {
            return None;
        }
        self.round = Some(Round::default());
        Some(self.rest)
    }

    fn end_round(&mut self) -> Option<Duration> {
        let datagrams = self.round.replace(Round::default())?.datagrams;
        let each = datagrams / ROUND as usize;
        self.caution = self.caution.saturating_sub(1);
        // A third longer, at the least, should bring more than an eighth more, whatever timer and wake take besides.
        if self.shorter.take().is_some_and(|shorter| datagrams <= shorter + shorter / 8) {
            self.rest = (self.rest / 2).max(SHORTEST);
            self.caution = CAUTION;
        } else if each > *WANTED_DATAGRAMS.end() {
            if self.rest <= SHORTEST {
                // They come by more than single datagrams.
                self.stop();
                return None;
            }
            self.rest = (self.rest * 3 / 4).max(SHORTEST);
        } else if each < *WANTED_DATAGRAMS.start()
            && self.caution == 0
            && self.rest * 4 / 3 <= self.longest
        {
            self.shorter = Some(datagrams);
            self.rest = (self.rest * 3 / 2).min(self.longest);
        }
        Some(self.rest)
    }
}

/// How many there are, if all are from the middle of calls that move much, a packet each.
fn single_packets_of_bulk<'data>(
    batches: impl IntoIterator<Item = (&'data [u8], usize)>,
) -> Option<usize> {
    let mut datagrams = 0;
    for (data, stride) in batches {
        let header = Header::decode(data)?;
        let is_bulk = header.packet_type == PacketType::Data
            && header.seq.0 > BULK_SEQ
            && !header.flags.has(Flags::LAST_PACKET)
            && stride.min(data.len()) <= DATAGRAM_BYTES_MAX;
        if !is_bulk {
            return None;
        }
        datagrams += data.len().div_ceil(stride.max(1));
    }
    Some(datagrams)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(100);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn packet(kind: u8, seq: u32, flags: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[12..16].copy_from_slice(&seq.to_be_bytes());
        (packet[20], packet[21]) = (kind, flags);
        packet
    }

    fn data() -> Vec<u8> {
        packet(1, 1000, 0, 1440)
    }

    /// A receive of so many single DATA packets of bulk.
    fn receive(moderation: &mut Moderation, count: usize, now: Instant) -> Option<Duration> {
        let data = data();
        moderation.rest_after(vec![(&data[..], 1440); count], || now)
    }

    /// The first rest of a moderation that has just begun.
    fn begun(start: Instant) -> Moderation {
        let mut moderation = Moderation::new(LONGEST);
        for at in 0..3 {
            assert_eq!(receive(&mut moderation, 1, start + micros(20 * at)), None);
        }
        assert_eq!(receive(&mut moderation, 1, start + micros(60)), Some(micros(30)));
        moderation
    }

    /// A round of rests that bring `each`; the last answer.
    fn round(moderation: &mut Moderation, each: usize) -> Option<Duration> {
        let data = data();
        let batches = || vec![(&data[..], 1440); each];
        let rests: Vec<_> =
            (0..ROUND).map(|_| moderation.rest_after(batches(), || unreachable!())).collect();
        rests.last().copied().flatten()
    }

    #[test]
    fn it_begins_after_four_receives_of_few_in_quick_succession() {
        let start = Instant::now();
        begun(start);
        let mut slow = Moderation::new(LONGEST);
        for at in 0..100 {
            assert_eq!(receive(&mut slow, 1, start + micros(251 * at)), None);
        }
        let mut many = Moderation::new(LONGEST);
        for at in 0..100 {
            assert_eq!(receive(&mut many, 9, start + micros(20 * at)), None, "it comes in batches");
        }
    }

    #[test]
    fn only_single_packets_from_the_middle_of_large_calls_count() {
        let start = Instant::now();
        let (data, early) = (data(), packet(1, 64, 0, 1440));
        let (ack, last) = (packet(2, 1000, 0, 60), packet(1, 1000, 4, 1440));
        let (jumbogram, short) = (packet(1, 1000, 32, 5688), vec![0; 27]);
        for other in [early, ack, last, jumbogram, short, Vec::new()] {
            let mut moderation = Moderation::new(LONGEST);
            for at in 0..100 {
                let batches = [(&other[..], other.len())];
                assert_eq!(moderation.rest_after(batches, || start + micros(at)), None);
            }
            // Anything else among it ends it.
            let mut moderation = begun(start);
            let batches = [(&data[..], 1440), (&other[..], other.len())];
            assert_eq!(moderation.rest_after(batches, || start + micros(99)), None);
            assert_eq!(receive(&mut moderation, 9, start + micros(120)), None);
        }
    }

    #[test]
    fn a_rest_that_brings_hardly_anything_is_the_last() {
        let start = Instant::now();
        let mut moderation = begun(start);
        assert_eq!(receive(&mut moderation, 3, start + micros(99)), Some(micros(30)));
        assert_eq!(receive(&mut moderation, 2, start + micros(140)), None);
        for at in 0..3 {
            assert_eq!(receive(&mut moderation, 1, start + micros(160 + at)), None);
        }
        assert!(receive(&mut moderation, 1, start + micros(163)).is_some());
    }

    #[test]
    fn rests_get_longer_until_they_bring_more_than_half_a_window_of_openafs() {
        let mut moderation = begun(Instant::now());
        assert_eq!(round(&mut moderation, 8), Some(micros(45)));
        assert_eq!(round(&mut moderation, 10), Some(Duration::from_nanos(67_500)));
        assert_eq!(round(&mut moderation, 13), Some(LONGEST));
        assert_eq!(round(&mut moderation, 17), Some(LONGEST), "no longer than that");
        assert_eq!(round(&mut moderation, 18), Some(LONGEST));
        assert_eq!(round(&mut moderation, 26), Some(LONGEST));
        assert_eq!(round(&mut moderation, 27), Some(micros(75)));
        assert_eq!(round(&mut moderation, 20), Some(micros(75)));
    }

    /// A peer with a window of 8 packets stops until we answer: longer rests bring no more.
    #[test]
    fn a_peer_that_waits_for_us_gets_its_answers_sooner() {
        let mut moderation = begun(Instant::now());
        assert_eq!(round(&mut moderation, 8), Some(micros(45)));
        assert_eq!(round(&mut moderation, 9), Some(Duration::from_nanos(22_500)));
        let (mut rests, rounds) = (Duration::ZERO, 900);
        for _ in 0..rounds {
            rests += round(&mut moderation, 8).unwrap();
        }
        assert!(rests / rounds < micros(20), "{:?}", rests / rounds);
    }

    #[test]
    fn what_comes_faster_than_the_shortest_rest_can_divide_is_taken_as_it_comes() {
        let mut moderation = begun(Instant::now());
        let mut rounds = 0;
        while round(&mut moderation, 32).is_some() {
            rounds += 1;
            assert!(rounds < 10);
        }
        assert_eq!(receive(&mut moderation, 32, Instant::now()), None);
    }

    #[test]
    fn off_it_looks_at_nothing() {
        let mut moderation = Moderation::new(Duration::ZERO);
        let data = data();
        for _ in 0..10 {
            assert_eq!(moderation.rest_after([(&data[..], 1440)], || unreachable!()), None);
        }
        let mut moderation = begun(Instant::now());
        moderation.refuse();
        assert_eq!(moderation.rest_after([(&data[..], 1440)], || unreachable!()), None);
    }
}
