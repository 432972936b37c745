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

impl<T> super::Router<T> {
    /// Publishes the deadline of a connection or channel. A later one than is known does nothing yet: the
    /// earlier one fires, finds nothing due, and is answered with the later. So a timer that moves with
    /// every packet costs nothing.
    pub fn set_deadline(&mut self, whose: Waker, at: Option<Instant>) {
        let (id, slot) = match whose {
            Waker::Connection(id) => (id, CONNECTION_SLOT),
            Waker::Channel(id, channel) => (id, channel.index()),
        };
        let (Some(route), Some(at)) = (self.table.get_mut(id), at) else { return };
        let held = &mut route.deadlines[slot];
        if held.is_some_and(|held| held <= at) {
            return;
        }
        if let Some(held) = held.replace(at) {
            self.deadlines.remove(held, id, slot);
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
        let (id, slot) = self.deadlines.pop_due(now)?;
        if let Some(route) = self.table.get_mut(id) {
            route.deadlines[slot] = None;
        }
        Some(match ChannelIndex::new(slot as u8) {
            Some(channel) => Waker::Channel(id, channel),
            None => Waker::Connection(id),
        })
    }
}
