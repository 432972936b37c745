//! One queue for the deadlines of all connections and channels of an endpoint.

use std::collections::BTreeSet;
use std::time::Instant;

use super::table::RouteId;
use crate::wire::ChannelIndex;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waker {
    /// A connection's own.
    Connection(RouteId),
    /// A channel's.
    Channel(RouteId, ChannelIndex),
}

/// Slot of a connection's own deadline; below it the channels'.
pub(super) const CONNECTION_SLOT: usize = ChannelIndex::COUNT;
/// Deadlines of one route.
pub(super) const SLOTS: usize = CONNECTION_SLOT + 1;

/// Deadlines in order of time.
#[derive(Debug, Default)]
pub(super) struct DeadlineQueue {
    queue: BTreeSet<(Instant, RouteId, usize)>,
}

impl DeadlineQueue {
    pub fn insert(&mut self, at: Instant, route: RouteId, slot: usize) {
        self.queue.insert((at, route, slot));
    }

    pub fn remove(&mut self, at: Instant, route: RouteId, slot: usize) {
        self.queue.remove(&(at, route, slot));
    }

    pub fn forget(&mut self, known: &Known, route: RouteId, slot: usize) {
        if let Some(at) = known.queued {
            self.remove(at, route, slot);
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, ..)| *at)
    }

    pub fn pop_due(&mut self, now: Instant) -> Option<(RouteId, usize)> {
        let (at, route, slot) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        Some((route, slot))
    }
}

/// What the queue knows of one deadline.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Where it stands in the queue.
    queued: Option<Instant>,
    /// Where it is by now, which is no earlier; without meaning where nothing is queued.
    latest: Option<Instant>,
}

/// What a connection or channel has told of its deadline. Every change to an earlier one must be told; one to a
/// later is told with something that is sent anyway, or not at all: then the earlier fires, and finds nothing due.
///
/// Where calls follow each other closely, each brings a later deadline and then an earlier one again: there the
/// later one is not told, so that the earlier needs no word, until what is known has fired.
#[derive(Clone, Copy, Debug, Default)]
pub struct Published {
    known: Option<Instant>,
    later: Later,
}

/// What has become of the last word of a later deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Later {
    /// Nothing yet.
    #[default]
    Untold,
    /// It is what is known.
    Told,
    /// It had to be taken back.
    InVain,
}

impl Published {
    /// What is to be told now that the deadline is `deadline`; `sends` = something goes to the endpoint anyway.
    pub fn news(&mut self, deadline: Option<Instant>, sends: bool) -> Option<Instant> {
        let at = deadline?;
        if let Some(known) = self.known {
            if at < known {
                if self.later == Later::Told {
                    self.later = Later::InVain;
                }
            } else if at > known && sends && self.later != Later::InVain {
                self.later = Later::Told;
            } else {
                return None;
            }
        }
        self.known = Some(at);
        self.known
    }

    /// It has fired: none is known any more.
    pub fn fired(&mut self) {
        *self = Published::default();
    }
}

impl<T> super::Router<T> {
    /// Publishes the deadline of a connection or channel; `None` = it is what it was. A later one than is queued
    /// is only noted, and queued when the earlier is reached. So a timer that moves with every packet costs
    /// nothing, and wakes nobody.
    pub fn set_deadline(&mut self, whose: Waker, at: Option<Instant>) {
        let (id, slot) = match whose {
            Waker::Connection(id) => (id, CONNECTION_SLOT),
            Waker::Channel(id, channel) => (id, channel.index()),
        };
        let (Some(route), Some(at)) = (self.table.get_mut(id), at) else { return };
        let known = &mut route.deadlines[slot];
        known.latest = Some(at);
        if known.queued.is_some_and(|queued| queued <= at) {
            return;
        }
        if let Some(queued) = known.queued.replace(at) {
            self.deadlines.remove(queued, id, slot);
        }
        self.deadlines.insert(at, id, slot);
    }

    /// When the next deadline is due; `None` = never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let own = self.peers.next_sweep();
        [self.deadlines.next(), own].into_iter().flatten().min()
    }

    /// Somebody whose deadline is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        loop {
            let (id, slot) = self.deadlines.pop_due(now)?;
            if let Some(route) = self.table.get_mut(id) {
                let known = &mut route.deadlines[slot];
                if let Some(later) = known.latest.filter(|latest| *latest > now) {
                    known.queued = Some(later);
                    self.deadlines.insert(later, id, slot);
                    continue;
                }
                *known = Known::default();
            }
            return Some(match ChannelIndex::new(slot as u8) {
                Some(channel) => Waker::Channel(id, channel),
                None => Waker::Connection(id),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::config::EndpointConfig;
    use crate::proto::router::{Identity, Router, RouterOutput};
    use crate::wire::{Cid, Epoch, SecurityIndex, ServiceId};

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_deadline_that_moved_later_wakes_nobody_before_and_one_that_moved_earlier_does() {
        let start = Instant::now();
        let identity = Identity { epoch: Epoch(1), first_cid: Cid(4), hash_seed: 1 };
        let mut router = Router::<()>::new(EndpointConfig::default().into(), identity, start);
        let ids = router.allocate(ServiceId(1), SecurityIndex::NULL);
        let peer = ([10, 0, 0, 1], 7000).into();
        let mut out = RouterOutput::default();
        let route = router.insert_client(start, ids, peer, (), &mut out);
        let whose = ChannelIndex::ALL.map(|index| Waker::Channel(route, index));
        for (which, at) in [(0, 10), (1, 20), (0, 30), (0, 40), (1, 15)] {
            router.set_deadline(whose[which], Some(start + ms(at)));
        }
        assert_eq!(router.next_deadline(), Some(start + ms(10)));
        assert_eq!(router.pop_due(start + ms(10)), None);
        assert_eq!(router.next_deadline(), Some(start + ms(15)));
        assert_eq!(router.pop_due(start + ms(15)), Some(whose[1]));
        assert_eq!(router.pop_due(start + ms(39)), None);
        assert_eq!(router.pop_due(start + ms(40)), Some(whose[0]));
        assert_eq!(router.pop_due(start + ms(1000)), None);
        // One that stands later than it is: both are over.
        for at in [50, 60] {
            router.set_deadline(whose[2], Some(start + ms(at)));
        }
        assert_eq!(router.pop_due(start + ms(70)), Some(whose[2]));
        assert_eq!(router.pop_due(start + ms(1000)), None);
    }

    #[test]
    fn an_earlier_deadline_is_news_at_once_and_a_later_one_with_what_is_sent_anyway() {
        let start = Instant::now();
        let at = |count| Some(start + ms(count));
        let mut published = Published::default();
        assert_eq!(published.news(None, true), None);
        assert_eq!(published.news(at(10), false), at(10));
        assert_eq!(published.news(at(20), false), None);
        assert_eq!(published.news(at(20), true), at(20));
        assert_eq!(published.news(at(20), true), None);
        assert_eq!(published.news(at(15), false), at(15));
        assert_eq!(published.news(None, true), None);
        published.fired();
        assert_eq!(published.news(at(20), false), at(20));
    }

    #[test]
    fn a_later_deadline_that_had_to_be_taken_back_is_not_told_again_before_what_is_known_has_fired()
    {
        let start = Instant::now();
        let at = |count| Some(start + ms(count));
        let mut published = Published::default();
        let calls = |published: &mut Published, from: u64| {
            // A request comes, and its ACK may wait; the reply leaves, and may have to be sent again.
            (0..10)
                .map(|call| {
                    let of_request = published.news(at(from + 100 + call), false);
                    let of_reply = published.news(at(from + 350 + call), true);
                    u32::from(of_request.is_some()) + u32::from(of_reply.is_some())
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(calls(&mut published, 0), [2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        published.fired();
        assert_eq!(calls(&mut published, 101), [2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
