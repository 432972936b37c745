//! What a channel remembers of its last call, and how often it repeats itself.

use std::time::Instant;

use crate::proto::CallTag;
use crate::proto::config::CallConfig;
use crate::wire::{AbortCode, CallNumber};

/// What outlives a call, and must outlive the channel's actor: without it a finished call could run twice
/// (rx-race.md 2, R6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChannelMemory {
    /// The last call number used; 0 if none.
    pub last: CallNumber,
    /// How that call ended.
    pub end: LastEnd,
    /// The tag given out last.
    pub tag: CallTag,
}

/// How the last call ended, for answering its late packets (rx-calls.md 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LastEnd {
    /// There was none.
    #[default]
    None,
    /// Well.
    Success {
        /// Packets of the peer's direction.
        packets: u32,
        /// The receive window advertised last.
        window: u32,
    },
    /// We aborted it.
    Aborted(AbortCode),
    /// The peer aborted it, or it died.
    Failed,
}

impl LastEnd {
    /// The code that repeats for late packets; `None` after success.
    pub fn abort_code(self) -> Option<AbortCode> {
        match self {
            LastEnd::None | LastEnd::Success { .. } => None,
            LastEnd::Aborted(code) => Some(code),
            LastEnd::Failed => Some(AbortCode::CALL_DEAD),
        }
    }
}

/// Limits what a channel repeats to packets that should not come.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Throttles {
    pub aborts: AbortThrottle,
    pub busies: AbortThrottle,
}

/// Limits identical aborts (rx-calls.md 13, "abort throttle").
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct AbortThrottle {
    code: AbortCode,
    count: u32,
    last: Option<Instant>,
}

impl AbortThrottle {
    /// Whether an abort with `code` may be repeated now.
    pub fn allows(&mut self, code: AbortCode, now: Instant, config: &CallConfig) -> bool {
        if self.code != code {
            *self = AbortThrottle { code, count: 0, last: None };
        }
        let due = self.last.is_none_or(|last| now >= last + config.abort_interval);
        if self.count >= config.abort_burst && !due {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_identical_aborts_then_one_every_three_seconds() {
        let config = CallConfig::default();
        let mut throttle = AbortThrottle::default();
        let now = Instant::now();
        for _ in 0..10 {
            assert!(throttle.allows(AbortCode(7), now, &config));
        }
        assert!(!throttle.allows(AbortCode(7), now, &config));
        assert!(throttle.allows(AbortCode(8), now, &config), "another code is another matter");
        for _ in 0..10 {
            throttle.allows(AbortCode(7), now, &config);
        }
        assert!(!throttle.allows(AbortCode(7), now, &config));
        assert!(throttle.allows(AbortCode(7), now + config.abort_interval, &config));
    }
}
