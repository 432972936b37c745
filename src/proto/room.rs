//! Room for payload, shared by all calls of a connection and of an endpoint (rx-flow.md 6, "bytes").
//!
//! A channel says what it holds, coarsely and only where that changed much ([`Holding`]); the router adds up
//! and says with each run how much room there is ([`Room`]). Nothing is asked for and nothing is shared.

/// Bytes that each call may hold whatever the others do: with them it goes on, if slowly. They count for no
/// limit: what a call holds is told in steps of at least so much.
pub const CALL_BYTES_MIN: usize = 8 * 1024;
/// Packets that each call's window keeps open, once its application has taken what came before them.
pub(super) const CALL_PACKETS_MIN: u32 = 4;
/// What a call holds is told at the latest when it has grown by this.
const STEP_BYTES_MAX: usize = 64 * 1024;

/// What a call may still take, beyond what it may in any case ([`CALL_BYTES_MIN`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// As much as its own limits allow.
    #[default]
    Free,
    /// A limit is passed: what was promised is taken, but windows do not open and writers get no credit.
    Short,
    /// Twice a limit is passed, or that of addresses that have not proved themselves: packets are dropped
    /// without an ACK, so that they come again.
    None,
}

/// What a channel holds for its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holding {
    /// Bytes that came and that the application has not taken, and bytes that it has written, within what it
    /// was told it may write, and that are not acknowledged for good.
    pub bytes: usize,
    /// Whether the call would go on faster if there were more room: tell it when there is.
    pub waits: bool,
}

impl Holding {
    /// Whether the change from what was told last is worth telling; `is_free` = telling costs nothing now.
    pub(super) fn differs(self, told: Holding, is_free: bool) -> bool {
        let step = (told.bytes / 2).clamp(CALL_BYTES_MIN, STEP_BYTES_MAX);
        let grew = self.bytes >= told.bytes + step;
        let shrank = self.bytes + step <= told.bytes || (self.bytes == 0 && told.bytes > 0);
        grew || self.waits != told.waits || (is_free && shrank)
    }
}

/// Bytes held against a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauge {
    bytes: usize,
    is_short: bool,
}

impl Gauge {
    /// Takes over a change; whether the limit is now passed (`true`) or kept again (`false`). It is kept
    /// again only with an eighth to spare, so that calls are not stopped and started for each packet.
    pub fn change(&mut self, less: usize, more: usize, max: usize) -> Option<bool> {
        self.bytes = self.bytes.saturating_sub(less) + more;
        let is_short = if self.is_short { self.bytes > max - max / 8 } else { self.bytes > max };
        (std::mem::replace(&mut self.is_short, is_short) != is_short).then_some(is_short)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_short(&self) -> bool {
        self.is_short
    }

    pub fn room(&self, max: usize) -> Room {
        match self.is_short {
            false => Room::Free,
            true if self.bytes > max.saturating_mul(2) => Room::None,
            true => Room::Short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_passed_one_beyond_it_and_kept_again_an_eighth_below() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.change(0, 800, 800), None);
        assert_eq!(gauge.room(800), Room::Free);
        assert_eq!(gauge.change(0, 1, 800), Some(true));
        assert_eq!(gauge.room(800), Room::Short);
        assert_eq!(gauge.change(0, 799, 800), None);
        assert_eq!(gauge.room(800), Room::Short);
        assert_eq!(gauge.change(0, 1, 800), None);
        assert_eq!(gauge.room(800), Room::None, "1601 bytes are more than twice 800");
        assert_eq!(gauge.change(1601, 701, 800), None);
        assert_eq!(gauge.room(800), Room::Short);
        assert_eq!(gauge.change(1, 0, 800), Some(false));
        assert_eq!((gauge.bytes(), gauge.room(800)), (700, Room::Free));
    }

    #[test]
    fn what_is_told_is_never_far_from_what_is_held() {
        let holds = |bytes| Holding { bytes, waits: false };
        let least = CALL_BYTES_MIN;
        assert!(!holds(least - 1).differs(holds(0), true));
        assert!(holds(least).differs(holds(0), false));
        assert!(!holds(149_999).differs(holds(100_000), false));
        assert!(holds(150_000).differs(holds(100_000), false));
        assert!(holds((1 << 20) + STEP_BYTES_MAX).differs(holds(1 << 20), false));
        // Less is told with the next message that goes anyway.
        assert!(!holds(0).differs(holds(1 << 20), false));
        assert!(holds(0).differs(holds(1 << 20), true));
        assert!(Holding { bytes: 0, waits: true }.differs(holds(0), false));
    }
}
