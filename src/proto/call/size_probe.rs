//! A padded PING in flight: does a datagram of its size arrive? (rx-flow.md 9.3)

use std::time::Instant;

use crate::wire::Serial;

/// Probes that may be lost before their size, which has passed, counts as too large: any one may meet an ordinary
/// loss.
pub const PROBES_LOST_MAX: u8 = 3;
/// The same for a size that has not passed yet.
pub const LARGER_LOST_MAX: u8 = 2;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeProbe {
    /// Bytes of its datagram.
    pub size: u16,
    /// Its serial, which the answer names.
    pub serial: Serial,
    /// When it left.
    pub sent_at: Instant,
    /// Probes of this size that were lost before it.
    pub lost: u8,
}
