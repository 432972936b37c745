//! What is known of the size of datagrams that reach a peer in one piece (rx-flow.md 9.3).
//!
//! All sizes are bytes of UDP payload, Rx header included. A larger datagram is not lost for that: it may
//! be fragmented, which the datagrams of a known size are not.

use std::time::{Duration, Instant};

/// What fits an Ethernet packet: a DATA packet of 1412 bytes. Sent without proof.
pub const DATAGRAM_DEFAULT: u16 = 1440;
/// What fits the least packet of IPv6, and passes nearly everywhere (RFC 8899, BASE_PLPMTU).
pub const DATAGRAM_BASE: u16 = 1200;
/// Least size that anybody can make us keep to (rx-wire.md 4.4.2).
pub const DATAGRAM_MIN: u16 = 520;
/// How long a size that did not pass is not tried again (RFC 8899, PMTU_RAISE_TIMER).
pub const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// How long others leave the search to the call that probes; it may end without an answer.
const PROBE_REST: Duration = Duration::from_secs(5);

/// See the module. Copies are held by the endpoint and by each channel; whichever changed last is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathSize {
    datagram_max: u16,
    /// Least size that did not pass; `u16::MAX` = none.
    refused: u16,
    /// No search for more before; `None` = at any time.
    search_at: Option<Instant>,
    changes: u32,
}

impl Default for PathSize {
    fn default() -> PathSize {
        PathSize { datagram_max: DATAGRAM_DEFAULT, refused: u16::MAX, search_at: None, changes: 0 }
    }
}

impl PathSize {
    /// A path that takes datagrams of `datagram_max` bytes, at least 29: a header and a byte.
    pub fn new(datagram_max: u16) -> PathSize {
        let datagram_max = datagram_max.max(crate::wire::HEADER_LEN as u16 + 1);
        PathSize { datagram_max, ..PathSize::default() }
    }

    /// Largest datagram that is sent unfragmented.
    pub fn datagram_max(&self) -> u16 {
        self.datagram_max
    }

    /// The network, or probes that were lost, say that no datagram larger than `size` passes. Returns whether
    /// that makes datagrams smaller.
    pub fn shrink(&mut self, now: Instant, size: u16) -> bool {
        let size = size.max(DATAGRAM_MIN);
        let is_news = size < self.datagram_max;
        if is_news || size < self.refused.saturating_sub(1) {
            self.datagram_max = self.datagram_max.min(size);
            self.refused = size.saturating_add(1);
            self.put_off(now, RAISE_INTERVAL);
        }
        is_news
    }

    /// The next size to probe, of `sizes`, which fall: the first that is more than is known to pass, and that
    /// nothing says does not. The search rests for a moment: one call probes at a time.
    pub fn next_probe(
        &mut self,
        now: Instant,
        mut sizes: impl Iterator<Item = u16>,
    ) -> Option<u16> {
        if let Some(at) = self.search_at {
            if now < at {
                return None;
            }
            // What did not pass long ago may pass now.
            self.search_at = None;
            self.refused = u16::MAX;
        }
        let size = sizes.find(|size| *size < self.refused).filter(|size| *size > self.datagram_max);
        if size.is_some() {
            self.put_off(now, PROBE_REST);
        } else if self.refused != u16::MAX {
            self.put_off(now, RAISE_INTERVAL);
        }
        size
    }

    /// A datagram of `size` has arrived.
    pub fn prove(&mut self, size: u16) {
        if size > self.datagram_max {
            self.datagram_max = size;
            self.search_at = None;
            self.changes += 1;
        }
        if size >= self.refused {
            self.refused = u16::MAX;
        }
    }

    /// Probes of `size` were lost, while smaller datagrams passed. Returns whether that makes datagrams
    /// smaller.
    pub fn refuse(&mut self, now: Instant, size: u16) -> bool {
        if size <= self.datagram_max {
            return self.shrink(now, step_below(size));
        }
        self.refused = self.refused.min(size);
        self.search_at = None;
        self.changes += 1;
        false
    }

    fn put_off(&mut self, now: Instant, time: Duration) {
        self.search_at = now.checked_add(time);
        self.changes += 1;
    }

    /// Takes over a copy that has changed since.
    pub fn merge(&mut self, other: &PathSize) {
        if other.changes > self.changes {
            *self = *other;
        } else if other.changes == self.changes && other.datagram_max < self.datagram_max {
            *self = PathSize { changes: self.changes + 1, ..*other };
        }
    }
}

/// The next size to try below one that does not pass.
fn step_below(size: u16) -> u16 {
    [DATAGRAM_DEFAULT, DATAGRAM_BASE].into_iter().find(|step| *step < size).unwrap_or(DATAGRAM_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_makes_datagrams_smaller_and_never_larger_nor_tiny() {
        let now = Instant::now();
        let mut path = PathSize::default();
        assert!(!path.shrink(now, 1440), "what is sent already");
        assert!(path.shrink(now, 1252) && path.datagram_max() == 1252);
        assert!(!path.shrink(now, 1400) && path.datagram_max() == 1252);
        assert!(path.shrink(now, 0) && path.datagram_max() == DATAGRAM_MIN);
        assert!(!path.shrink(now, 0));
    }

    #[test]
    fn sizes_are_probed_from_the_largest_down_and_again_after_ten_minutes() {
        let now = Instant::now();
        let sizes = || [5688, 4272, 2856].into_iter();
        let mut path = PathSize::default();
        assert_eq!(path.next_probe(now, sizes()), Some(5688));
        assert_eq!(path.next_probe(now, sizes()), None, "one at a time");
        assert!(!path.refuse(now, 5688));
        assert_eq!(path.next_probe(now, sizes()), Some(4272));
        path.prove(4272);
        assert_eq!(path.datagram_max(), 4272);
        assert_eq!(path.next_probe(now, sizes()), None);
        let again = now + RAISE_INTERVAL;
        assert_eq!(path.next_probe(again - Duration::from_millis(1), sizes()), None);
        assert_eq!(path.next_probe(again, sizes()), Some(5688));
        path.prove(5688);
        assert_eq!(path.next_probe(again, sizes()), None);
        assert_eq!(path.next_probe(again + 2 * RAISE_INTERVAL, sizes()), None, "there is no more");
    }

    #[test]
    fn what_passed_and_does_not_any_more_goes_down_in_steps() {
        let now = Instant::now();
        let mut path = PathSize::default();
        path.prove(5688);
        for expected in [1440, 1200, 520] {
            assert!(path.refuse(now, path.datagram_max()));
            assert_eq!(path.datagram_max(), expected);
        }
        assert!(!path.refuse(now, 520), "there is no less");
    }

    #[test]
    fn the_copy_that_changed_last_is_right() {
        let now = Instant::now();
        let (mut old, mut new) = (PathSize::default(), PathSize::default());
        new.shrink(now, 1200);
        new.merge(&old);
        assert_eq!(new.datagram_max(), 1200);
        old.merge(&new);
        assert_eq!(old, new);
        let mut other = old;
        other.shrink(now, 600);
        old.prove(2856);
        old.merge(&other);
        assert_eq!(old.datagram_max(), 600, "of two at once the smaller one");
    }
}
