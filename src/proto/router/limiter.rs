//! How many answers leave without a connection: VERSION, DEBUG, raw aborts.

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

#[cfg(test)]
mod tests {
    use super::*;

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
