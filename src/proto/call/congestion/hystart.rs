//! HyStart++ (RFC 9406): slow start ends where round trips become longer, before packets are lost. It first
//! goes on more slowly, in case that the delay was a passing one.

use std::time::Duration;

/// Samples of a round before it is judged.
const SAMPLES_MIN: u32 = 4;
/// Least and greatest delay that counts.
const DELAY: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));
/// On paths that are shorter such a delay is a busy host's, not a queue's.
const SHORT: Duration = Duration::from_millis(5);
/// Share of slow start's growth in the time of doubt.
const DOUBT_SHARE: u32 = 4;
/// Rounds of doubt after which slow start is over.
const DOUBT_ROUNDS: u32 = 5;

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub struct HyStart {
    last: Option<Duration>,
    current: Option<Duration>,
    samples: u32,
    /// Rounds of doubt so far, and the least round trip when it began.
    doubt: Option<(u32, Duration)>,
    /// What is not a whole packet of the slower growth.
    carry: u32,
}

/// What slow start does with an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It grows by so many packets.
    Slow(u32),
    /// It is over.
    Done,
}

impl HyStart {
    /// Another round trip begins.
    pub fn begin_round(&mut self) {
        if self.samples > 0 {
            self.last = self.current.take();
        }
        self.samples = 0;
        if let Some((rounds, _)) = &mut self.doubt {
            *rounds += 1;
        }
    }

    /// Packets were acknowledged.
    pub fn on_acked(&mut self, sample: Option<Duration>, packets: u32) -> Growth {
        if let Some(sample) = sample {
            self.current = Some(self.current.map_or(sample, |least| least.min(sample)));
            self.samples += 1;
        }
        self.judge();
        match self.doubt {
            None => Growth::Slow(packets),
            Some((rounds, _)) if rounds >= DOUBT_ROUNDS => Growth::Done,
            Some(_) => {
                self.carry += packets;
                let whole = self.carry / DOUBT_SHARE;
                self.carry %= DOUBT_SHARE;
                Growth::Slow(whole)
            }
        }
    }

    fn judge(&mut self) {
        let (Some(last), Some(current)) = (self.last, self.current) else { return };
        if self.samples < SAMPLES_MIN || last < SHORT {
            return;
        }
        match self.doubt {
            None => {
                if current >= last + (last / 8).clamp(DELAY.0, DELAY.1) {
                    self.doubt = Some((0, current));
                }
            }
            Some((_, began)) if current < began => self.doubt = None,
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn round(it: &mut HyStart, rtt: u64) -> Vec<Growth> {
        it.begin_round();
        (0..SAMPLES_MIN).map(|_| it.on_acked(Some(MS(rtt)), 8)).collect()
    }

    #[test]
    fn a_longer_round_trip_slows_slow_start_and_five_rounds_end_it() {
        let mut it = HyStart::default();
        assert_eq!(round(&mut it, 100), [Growth::Slow(8); 4]);
        assert_eq!(round(&mut it, 112), [Growth::Slow(8); 4], "an eighth of 100 is 12.5");
        assert_eq!(round(&mut it, 126)[3], Growth::Slow(2));
        for _ in 0..4 {
            assert_eq!(round(&mut it, 130)[0], Growth::Slow(2));
        }
        assert_eq!(round(&mut it, 130)[0], Growth::Done);
    }

    #[test]
    fn a_passing_delay_is_forgiven() {
        let mut it = HyStart::default();
        round(&mut it, 10);
        assert_eq!(round(&mut it, 15)[3], Growth::Slow(2));
        assert_eq!(round(&mut it, 11)[3], Growth::Slow(8));
    }
}
