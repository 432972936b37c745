//! The connection's serial counter: one per sender, shared by its four channels and its control packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::wire::Serial;

/// Hands out serials: +1 for every transmitted packet, skipping 0 at the wrap (rx-wire.md 1.3). A client's
/// begin at 1, a server's anywhere below 2^31.
///
/// The one piece of state that the channels of a connection share. It is an atomic because actix wants
/// whatever travels in a message to be `Send`; nothing is ordered by it across channels, so the order is
/// relaxed.
#[derive(Clone, Debug)]
pub struct SerialCounter(Arc<AtomicU32>);

impl SerialCounter {
    /// A counter whose first serial is 1.
    pub fn new() -> SerialCounter {
        SerialCounter::starting_at(Serial(1))
    }

    /// A counter whose first serial is `first`.
    pub fn starting_at(first: Serial) -> SerialCounter {
        SerialCounter(Arc::new(AtomicU32::new(first.0)))
    }

    /// The next serial, never 0.
    #[inline]
    pub fn next(&self) -> Serial {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Serial(self.0.fetch_add(1, Ordering::Relaxed)),
            serial => Serial(serial),
        }
    }

    /// The first of `count` serials in a row, none of them 0: for the packets of a jumbogram.
    pub fn take(&self, count: u32) -> Serial {
        loop {
            let first = self.0.fetch_add(count, Ordering::Relaxed);
            if first != 0 && first.checked_add(count - 1).is_some() {
                return Serial(first);
            }
        }
    }

    /// The serial of the last packet sent; before the first one, the number before its.
    pub fn last(&self) -> Serial {
        Serial(self.0.load(Ordering::Relaxed).wrapping_sub(1))
    }

    /// The serial that the next packet will carry.
    pub fn peek(&self) -> Serial {
        Serial(self.0.load(Ordering::Relaxed).max(1))
    }
}

impl Default for SerialCounter {
    fn default() -> Self {
        SerialCounter::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_skipped_at_the_wrap() {
        // S-130.
        let counter = SerialCounter::starting_at(Serial(u32::MAX));
        assert_eq!(
            [counter.next(), counter.next(), counter.next()],
            [Serial(u32::MAX), Serial(1), Serial(2)]
        );
        assert_eq!(counter.last(), Serial(2));
    }

    #[test]
    fn serials_in_a_row_do_not_go_across_the_wrap() {
        let counter = SerialCounter::starting_at(Serial(u32::MAX - 3));
        assert_eq!(counter.take(4), Serial(u32::MAX - 3));
        assert_eq!(counter.take(2), Serial(2), "not 0 and 1");
        let counter = SerialCounter::starting_at(Serial(u32::MAX - 2));
        assert_eq!(counter.take(4), Serial(1));
        assert_eq!(counter.next(), Serial(5));
    }
}
