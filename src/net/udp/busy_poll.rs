//! Looking for datagrams for a while before sleeping.

use std::time::{Duration, Instant};

/// See [`UdpOptions::busy_poll`](super::UdpOptions::busy_poll).
pub(super) struct BusyPoll {
    time: Duration,
    /// When there was nothing any more.
    since: Option<Instant>,
    is_looking: bool,
}

impl BusyPoll {
    pub fn new(time: Duration) -> BusyPoll {
        BusyPoll { time, since: None, is_looking: false }
    }

    pub fn is_on(&self) -> bool {
        !self.time.is_zero()
    }

    /// Whether to ask the socket itself: nobody waits for its readiness.
    pub fn is_looking(&self) -> bool {
        self.is_looking
    }

    /// Something came.
    pub fn received(&mut self) {
        self.since = None;
        // Until there is nothing more.
        self.is_looking = !self.time.is_zero();
    }

    /// There is nothing. Whether to look again instead of sleeping; once it is time to sleep, always no until
    /// something comes.
    pub fn looks_again(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.is_looking {
            let now = now();
            let since = *self.since.get_or_insert(now);
            self.is_looking = now.saturating_duration_since(since) < self.time;
        }
        self.is_looking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(50);

    #[test]
    fn it_looks_for_so_long_after_each_datagram_and_then_sleeps() {
        let start = Instant::now();
        let mut busy = BusyPoll::new(TIME);
        assert!(!busy.looks_again(|| start), "nothing has come yet");
        for start in [start, start + 9 * TIME] {
            busy.received();
            assert!(busy.is_looking());
            assert!(busy.looks_again(|| start));
            assert!(busy.looks_again(|| start + TIME - Duration::from_nanos(1)));
            assert!(!busy.looks_again(|| start + TIME));
            assert!(!busy.is_looking());
            assert!(!busy.looks_again(|| start), "once it sleeps, it sleeps");
        }
    }

    #[test]
    fn unless_asked_it_never_looks_at_the_clock() {
        let mut busy = BusyPoll::new(Duration::ZERO);
        busy.received();
        assert!(!busy.is_looking());
        assert!(!busy.looks_again(|| unreachable!()));
    }
}
