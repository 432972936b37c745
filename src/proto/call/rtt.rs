//! Round-trip time and retransmission timeout (rx-flow.md 5.3): RFC 6298 with a floor that leaves room for
//! peers that delay an ACK.

use std::time::Duration;

use crate::proto::config::CallConfig;
use crate::proto::peer::RttMemory;

/// Time that a peer may hold an ACK back.
const ACK_ALLOWANCE: Duration = Duration::from_millis(200);
/// More of it where only a client's last request packet is unacknowledged: OpenAFS may hold that ACK 400 ms.
pub const LAST_PACKET_ALLOWANCE: Duration = Duration::from_millis(400);
/// Time that a peer may hold the ACK of a lone packet that did not ask for one, as OpenAFS and we do.
const DELAYED_ACK: Duration = Duration::from_millis(110);
/// Least time that a tail probe waits beyond a round trip: what timers and a busy host may be late.
const PROBE_MIN: Duration = Duration::from_millis(10);
/// Least weight of the variation.
const VARIATION_MIN: Duration = Duration::from_millis(10);
/// Doublings of the backoff; 2^16 is beyond any `rto_max`.
const BACKOFF_MAX: u32 = 16;

/// RTT estimate of one call, begun with what is known of the peer.
#[derive(Clone, Debug, Hash)]
pub struct Rtt {
    memory: Option<RttMemory>,
    /// The least of this call.
    least: Option<Duration>,
    backoff: u32,
}

impl Rtt {
    /// Starts with the peer's memory.
    pub fn new(memory: Option<RttMemory>) -> Rtt {
        Rtt { memory, least: None, backoff: 0 }
    }

    /// Takes a sample.
    pub fn sample(&mut self, rtt: Duration) {
        self.memory = Some(match self.memory {
            None => RttMemory { srtt: rtt, var: rtt / 2, samples: 1 },
            Some(old) => RttMemory {
                srtt: old.srtt * 7 / 8 + rtt / 8,
                var: old.var * 3 / 4 + old.srtt.abs_diff(rtt) / 4,
                samples: old.samples.saturating_add(1),
            },
        });
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        self.backoff = 0;
    }

    /// The retransmission timer ran out.
    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// How often the timer ran out since an ACK last acknowledged something new.
    pub fn timeouts(&self) -> u32 {
        self.backoff
    }

    /// An ACK acknowledged something new.
    pub fn progress(&mut self) {
        self.backoff = 0;
    }

    /// The retransmission timeout, backoff included. `extra` is added before it doubles.
    pub fn rto(&self, config: &CallConfig, extra: Duration) -> Duration {
        let base = match self.memory {
            None => config.rto_initial,
            Some(memory) => (memory.srtt + (memory.var * 4).max(VARIATION_MIN) + ACK_ALLOWANCE)
                .max(config.rto_min),
        };
        (base + extra).saturating_mul(1 << self.backoff).min(config.rto_max)
    }

    /// How long a tail probe waits (docs/recovery.md 2); `None` without a sample. `asked` = an ACK was asked
    /// for, so that the peer has no reason to hold it.
    pub fn probe_timeout(&self, asked: bool) -> Option<Duration> {
        let memory = self.memory?;
        let spread = (memory.var * 4).max(memory.srtt / 4).max(PROBE_MIN);
        Some(memory.srtt + spread + if asked { Duration::ZERO } else { DELAYED_ACK })
    }

    /// The least round trip of this call.
    pub fn least(&self) -> Option<Duration> {
        self.least
    }

    /// Samples so far, those of former calls to the peer included.
    pub fn samples(&self) -> u32 {
        self.memory.map_or(0, |memory| memory.samples)
    }

    /// The estimate.
    pub fn memory(&self) -> Option<RttMemory> {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn without_a_sample_the_timeout_is_the_initial_one_and_doubles_to_the_most() {
        // S-128.
        let config = CallConfig::default();
        let mut rtt = Rtt::new(None);
        assert_eq!(rtt.rto(&config, LAST_PACKET_ALLOWANCE), MS(1400));
        rtt.back_off();
        assert_eq!(rtt.rto(&config, LAST_PACKET_ALLOWANCE), MS(2800));
        for _ in 0..20 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(&config, Duration::ZERO), Duration::from_secs(60));
        rtt.progress();
        assert_eq!(rtt.rto(&config, Duration::ZERO), MS(1000));
    }

    #[test]
    fn samples_are_smoothed_as_rfc_6298_says() {
        let config = CallConfig::default();
        let mut rtt = Rtt::new(None);
        rtt.sample(MS(80));
        assert_eq!(rtt.memory().map(|memory| (memory.srtt, memory.var)), Some((MS(80), MS(40))));
        assert_eq!(rtt.rto(&config, Duration::ZERO), MS(80 + 160 + 200));
        rtt.sample(MS(160));
        assert_eq!(rtt.memory().map(|memory| (memory.srtt, memory.var)), Some((MS(90), MS(50))));
        let mut fast = Rtt::new(None);
        fast.sample(MS(1));
        assert_eq!(fast.rto(&config, Duration::ZERO), config.rto_min, "the floor");
    }
}
