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
/// The same for sizes above the usual one, which few paths take; and how long a proof of them holds.
pub const LARGER_INTERVAL: Duration = Duration::from_secs(3600);
/// Sizes above the usual one that are tried: jumbograms of OpenAFS of two and four packets (the latter is the most
/// that it says it takes), what fits an Ethernet of 9000 bytes with room for tunnels and a whole number of times
/// into one send, and halves of that send. The first says whether there is anything to be had.
pub const LARGER: [u16; 7] = [2856, 4060, 5692, 8124, 16_248, 32_500, DATAGRAM_MAX];
/// Largest datagram that is ever sent, or said to be taken: that many bytes fit one send.
pub const DATAGRAM_MAX: u16 = 65_000;
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
    /// Until when a size above the usual one counts as proved.
    proved_until: Option<Instant>,
    changes: u32,
}

impl Default for PathSize {
    fn default() -> PathSize {
        PathSize {
            datagram_max: DATAGRAM_DEFAULT,
            refused: u16::MAX,
            search_at: None,
            proved_until: None,
            changes: 0,
        }
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

    /// Whether a size above the usual one was proved not long ago; without that it is to be proved again first.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.proved_until.is_some_and(|until| now < until)
    }

    /// Whether something says that datagrams of this size do not pass.
    pub fn is_refused(&self, size: u16) -> bool {
        size >= self.refused
    }

    /// The network, or probes that were lost, say that no datagram larger than `size` passes. Returns whether
    /// that makes datagrams smaller.
    pub fn shrink(&mut self, now: Instant, size: u16) -> bool {
        let size = size.max(DATAGRAM_MIN);
        let is_news = size < self.datagram_max;
        if is_news || size < self.refused.saturating_sub(1) {
            self.datagram_max = self.datagram_max.min(size);
            self.refused = size.saturating_add(1);
            if is_news {
                let is_usual = self.datagram_max >= DATAGRAM_DEFAULT;
                self.put_off(now, if is_usual { LARGER_INTERVAL } else { RAISE_INTERVAL });
            } else {
                // The search goes on below it.
                self.search_at = None;
                self.changes += 1;
            }
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

    /// The next size above the usual one to probe, where `wanted` would be of use: the least of [`LARGER`], then
    /// all that is wanted, then what lies between, by halves. `None` = none, or not now.
    pub fn next_larger(&mut self, now: Instant, wanted: u16) -> Option<u16> {
        if wanted <= self.datagram_max || self.search_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.search_at.take().is_some() {
            self.refused = u16::MAX;
        }
        let (known, refused) = (self.datagram_max, self.refused);
        let size = if known < LARGER[0].min(wanted) {
            Some(LARGER[0].min(wanted))
        } else if refused > wanted {
            Some(wanted)
        } else {
            let between = LARGER.iter().filter(|size| **size > known && **size < refused);
            let count = between.clone().count();
            between.copied().nth(count / 2)
        };
        let size = size.filter(|size| *size < refused);
        self.put_off(now, if size.is_some() { PROBE_REST } else { LARGER_INTERVAL });
        size
    }

    /// A datagram of `size` has arrived.
    pub fn prove(&mut self, now: Instant, size: u16) {
        let before = *self;
        if size > self.datagram_max {
            self.datagram_max = size;
            self.search_at = None;
        }
        if size > DATAGRAM_DEFAULT {
            if !self.is_fresh(now) {
                // What was known is too old to stand beside it.
                self.datagram_max = size;
            }
            self.proved_until = now.checked_add(LARGER_INTERVAL);
        }
        if size >= self.refused {
            self.refused = u16::MAX;
        }
        self.changes += u32::from(*self != before);
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
        path.prove(now, 4272);
        assert_eq!(path.datagram_max(), 4272);
        assert_eq!(path.next_probe(now, sizes()), None);
        let again = now + RAISE_INTERVAL;
        assert_eq!(path.next_probe(again - Duration::from_millis(1), sizes()), None);
        assert_eq!(path.next_probe(again, sizes()), Some(5688));
        path.prove(now, 5688);
        assert_eq!(path.next_probe(again, sizes()), None);
        assert_eq!(path.next_probe(again + 2 * RAISE_INTERVAL, sizes()), None, "there is no more");
    }

    #[test]
    fn what_passed_and_does_not_any_more_goes_down_in_steps() {
        let now = Instant::now();
        let mut path = PathSize::default();
        path.prove(now, 5688);
        for expected in [1440, 1200, 520] {
            assert!(path.refuse(now, path.datagram_max()));
            assert_eq!(path.datagram_max(), expected);
        }
        assert!(!path.refuse(now, 520), "there is no less");
    }

    #[test]
    fn larger_sizes_are_probed_least_first_then_all_that_is_wanted_then_by_halves() {
        let now = Instant::now();
        let secs = |count| now + Duration::from_secs(count);
        let mut path = PathSize::default();
        assert_eq!(path.next_larger(now, 1440), None, "no more is wanted");
        assert_eq!(path.next_larger(now, 8124), Some(2856));
        assert_eq!(path.next_larger(secs(4), 8124), None, "one call at a time");
        assert_eq!(path.next_larger(secs(5), 8124), Some(2856), "which may have ended");
        path.prove(secs(6), 2856);
        assert_eq!(path.next_larger(secs(6), 8124), Some(8124));
        assert!(!path.refuse(secs(7), 8124));
        assert_eq!(path.next_larger(secs(7), 8124), Some(5692));
        assert!(!path.refuse(secs(8), 5692));
        assert_eq!(path.next_larger(secs(8), 8124), Some(4060));
        path.prove(secs(9), 4060);
        assert_eq!((path.next_larger(secs(9), 8124), path.datagram_max()), (None, 4060));
        assert_eq!(path.next_larger(secs(3608), 8124), None);
        assert_eq!(path.next_larger(secs(3609), 8124), Some(8124), "an hour later");
        path.prove(secs(3610), 8124);
        assert_eq!(path.next_larger(secs(9999), 8124), None, "there is no more");
        assert_eq!(path.next_larger(secs(9999), 65_000), Some(65_000), "if more is wanted");
    }

    #[test]
    fn a_path_that_takes_none_of_them_is_left_alone_for_an_hour() {
        let now = Instant::now();
        let secs = |count| now + Duration::from_secs(count);
        let mut path = PathSize::default();
        assert_eq!(path.next_larger(now, 8124), Some(2856));
        path.refuse(secs(1), 2856);
        assert_eq!(path.next_larger(secs(1), 8124), None);
        assert_eq!(path.next_larger(secs(3600), 8124), None);
        assert_eq!(path.next_larger(secs(3601), 8124), Some(2856));
        // An Ethernet says so.
        assert!(!path.shrink(secs(3602), 1472), "what is sent is no larger");
        assert!(path.is_refused(2856) && !path.is_refused(1472));
        assert_eq!(path.next_larger(secs(3602), 8124), None);
        assert_eq!(path.next_larger(secs(7201), 8124), None);
        assert_eq!(path.next_larger(secs(7202), 8124), Some(2856));
    }

    #[test]
    fn a_proof_of_a_larger_size_holds_an_hour_and_an_older_one_does_not_stand_beside_it() {
        let now = Instant::now();
        let secs = |count| now + Duration::from_secs(count);
        let mut path = PathSize::default();
        assert!(!path.is_fresh(now));
        path.prove(now, 8124);
        assert!(path.is_fresh(secs(3599)) && !path.is_fresh(secs(3600)));
        path.prove(secs(3600), 2856);
        assert_eq!((path.datagram_max(), path.is_fresh(secs(7199))), (2856, true));
        assert!(path.refuse(secs(3700), 2856));
        assert_eq!(path.datagram_max(), 1440);
        assert_eq!(path.next_larger(secs(7299), 8124), None);
        assert_eq!(path.next_larger(secs(7300), 8124), Some(2856));
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
        old.prove(now, 2856);
        old.merge(&other);
        assert_eq!(old.datagram_max(), 600, "of two at once the smaller one");
    }
}
