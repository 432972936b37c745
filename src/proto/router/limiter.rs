//! How many answers leave without a connection: VERSION, DEBUG, raw aborts; and PINGs for proofs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Counts answers by address within one second. Its memory is bounded by the limit for all addresses.
#[derive(Debug)]
pub(super) struct AnswerLimiter {
    per_address: u32,
    in_all: u32,
    since: Instant,
    total: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl AnswerLimiter {
    pub fn new(per_address: u32, in_all: u32, now: Instant) -> AnswerLimiter {
        AnswerLimiter { per_address, in_all, since: now, total: 0, by_address: HashMap::new() }
    }

    /// Whether `to` may be answered now.
    pub fn allows(&mut self, to: SocketAddr, now: Instant) -> bool {
        if now >= self.since + SECOND {
            self.since = now;
            self.total = 0;
            self.by_address.clear();
        }
        // 0 for an address would remember each, and never count it.
        if self.total >= self.in_all || self.per_address == 0 {
            return false;
        }
        let count = self.by_address.entry(to.ip()).or_insert(0);
        if *count >= self.per_address {
            return false;
        }
        *count += 1;
        self.total += 1;
        true
    }
}

/// Lets so many answers go at once, by address and in all, and so many a second after those. Who asks no faster
/// than that is always answered.
#[derive(Debug)]
pub(super) struct BurstLimiter {
    per_address: Allowance,
    in_all: Allowance,
    /// When each allowance is whole again.
    whole_at: Instant,
    addresses: HashMap<IpAddr, Instant>,
    swept_at: Instant,
}

/// How many at once, and how long each takes to come back.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    interval: Duration,
    burst: u32,
}

impl Allowance {
    fn new(per_second: u32, burst: u32) -> Allowance {
        Allowance { interval: SECOND / per_second.max(1), burst: burst.max(1) }
    }

    /// When it is whole again if one more is taken now, if there is one.
    fn take(self, whole_at: Instant, now: Instant) -> Option<Instant> {
        let next = whole_at.max(now) + self.interval;
        (next <= now + self.interval * self.burst).then_some(next)
    }
}

impl BurstLimiter {
    /// `(per second, burst)`: of one address, and of all.
    pub fn new(per_address: (u32, u32), in_all: (u32, u32), now: Instant) -> BurstLimiter {
        BurstLimiter {
            per_address: Allowance::new(per_address.0, per_address.1),
            in_all: Allowance::new(in_all.0, in_all.1),
            whole_at: now,
            addresses: HashMap::new(),
            swept_at: now,
        }
    }

    /// Whether `to` may be answered now.
    pub fn allows(&mut self, to: SocketAddr, now: Instant) -> bool {
        if now >= self.swept_at + SECOND {
            // Who has all of its allowance again need not be remembered.
            self.swept_at = now;
            self.addresses.retain(|_, whole_at| *whole_at > now);
        }
        let Some(all) = self.in_all.take(self.whole_at, now) else { return false };
        let known = self.addresses.get(&to.ip()).copied().unwrap_or(now);
        let Some(own) = self.per_address.take(known, now) else { return false };
        self.whole_at = all;
        self.addresses.insert(to.ip(), own);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_at_once_and_then_as_many_as_come_back() {
        let now = Instant::now();
        let mut limiter = BurstLimiter::new((10, 50), (100, 120), now);
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 7001));
        let mut allowed = |last: u8, now: Instant| {
            (0..1000).filter(|_| limiter.allows(address(last), now)).count()
        };
        assert_eq!(allowed(1, now), 50);
        assert_eq!(allowed(1, now + Duration::from_millis(99)), 0);
        assert_eq!(allowed(1, now + Duration::from_millis(100)), 1);
        assert_eq!(allowed(1, now + Duration::from_millis(100)), 0);
        assert_eq!(allowed(1, now + SECOND), 9, "ten in the first second after the burst");
        // 60 of 120 are taken, and all of these have come back.
        let later = now + 10 * SECOND;
        assert_eq!(allowed(2, later) + allowed(3, later) + allowed(4, later), 120);
        assert_eq!(allowed(5, later), 0);
        assert_eq!(allowed(5, later + SECOND), 50, "of the hundred that came back");
    }

    #[test]
    fn addresses_are_remembered_for_as_long_as_something_is_missing() {
        let mut now = Instant::now();
        let mut limiter = BurstLimiter::new((10, 50), (100, 200), now);
        for last in 0..100_000u32 {
            now += Duration::from_millis(1);
            limiter.allows(SocketAddr::from((last.to_be_bytes(), 7001)), now);
            assert!(limiter.addresses.len() <= 400, "{}", limiter.addresses.len());
        }
    }

    #[test]
    fn ten_a_second_for_an_address_and_a_hundred_for_all() {
        // S-152.
        let now = Instant::now();
        let mut limiter = AnswerLimiter::new(10, 100, now);
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 7001));
        let allowed = (0..1000).filter(|_| limiter.allows(address(1), now)).count();
        assert_eq!(allowed, 10);
        let allowed = (2..=200).filter(|last| limiter.allows(address(*last), now)).count();
        assert_eq!(allowed, 90);
        assert!(limiter.allows(address(1), now + SECOND));
    }
}
