//! When packets may leave that the windows allow (docs/recovery.md 3): on long paths not all at once, since a
//! burst of half a window overflows queues that would carry the same packets well spread out.

use std::time::{Duration, Instant};

use super::Rtt;

/// Paths with a shorter round trip are not paced: timers are late by a millisecond.
const RTT_MIN: Duration = Duration::from_millis(5);
/// Packets that may always leave together.
const BURST_MIN: u64 = 16;
/// What has not been sent for this long may leave together.
const BURST_TIME: Duration = Duration::from_millis(2);
const MILLI: u64 = 1000;

/// A bucket of packets. Plain data; whoever sends asks first.
#[derive(Clone, Debug, Hash)]
pub struct Pacer {
    /// Thousandths of packets that may leave now.
    tokens: u64,
    filled_at: Instant,
}

impl Pacer {
    /// A full bucket.
    pub fn new(now: Instant) -> Pacer {
        Pacer { tokens: BURST_MIN * MILLI, filled_at: now }
    }

    /// Packets that may leave now; `None` = any number, where the path is short: by the least round trip of the
    /// call, since a busy host makes them long on any path. A window is spread over the round trip, at twice the
    /// speed in slow start, where it shall double, and a quarter more elsewhere, so as not to fall behind.
    pub fn allowed(
        &mut self,
        now: Instant,
        rtt: &Rtt,
        window: u32,
        is_slow_start: bool,
    ) -> Option<u32> {
        rtt.least().filter(|least| *least >= RTT_MIN)?;
        let srtt = rtt.memory()?.srtt.max(RTT_MIN);
        let elapsed = now.saturating_duration_since(self.filled_at);
        let gain = if is_slow_start { 2000 } else { 1250 };
        let in_time = |time: Duration| {
            let packets = u128::from(window) * gain * time.as_nanos() / srtt.as_nanos();
            packets.min(u128::from(u32::MAX)) as u64
        };
        let most = (BURST_MIN * MILLI).max(in_time(BURST_TIME));
        let more = in_time(elapsed);
        if more > 0 {
            self.tokens = (self.tokens + more).min(most);
            self.filled_at = now;
        }
        Some((self.tokens / MILLI) as u32)
    }

    /// So many packets have left.
    pub fn take(&mut self, packets: u32) {
        self.tokens = self.tokens.saturating_sub(u64::from(packets) * MILLI);
    }
}

/// When to ask again.
pub const PACE_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn rtt(ms: u64) -> Rtt {
        let mut rtt = Rtt::new(None);
        rtt.sample(Duration::from_millis(ms));
        rtt
    }

    #[test]
    fn a_window_is_spread_over_a_round_trip() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut pacer = Pacer::new(start);
        let mut sent = 0;
        for at in 0..=100 {
            let allowed = pacer.allowed(start + ms(at), &rtt(100), 1000, false);
            pacer.take(allowed.unwrap_or(0));
            sent += allowed.unwrap_or(0);
        }
        assert_eq!(sent, 16 + 1250);
        // After a pause no more than 2 ms of it, or 16.
        assert_eq!(pacer.allowed(start + ms(500), &rtt(100), 1000, true), Some(40));
        let mut pacer = Pacer::new(start);
        assert_eq!(pacer.allowed(start + ms(500), &rtt(100), 10, true), Some(16));
        assert_eq!(pacer.allowed(start, &rtt(4), 10, true), None, "a short path");
        assert_eq!(pacer.allowed(start, &Rtt::new(None), 10, true), None);
    }
}
