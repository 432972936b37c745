//! Services that run only so many calls at once, and the calls that wait for their turn (rx-calls.md 4.1).

use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::FixedState;

use super::{ChannelIndex, RouteId, Router};
use crate::proto::{CallTag, Role, ServiceLoad, TurnWord};
use crate::wire::{AbortCode, ServiceId};

/// What a call is told that asked for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It runs now, until [`Router::end_turn`].
    Now,
    /// It waits: [`Router::next_turn`] names it when it may run.
    Waits,
    /// Too many wait: it is ended with this code.
    Refused(AbortCode),
}

type Waiter = (RouteId, ChannelIndex, CallTag);

/// How many calls of a service run on all shards of an endpoint together. Its clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct SharedTurns(Arc<AtomicUsize>);

/// A service whose calls at once are limited.
#[derive(Debug)]
struct Limited {
    running: usize,
    /// Those of all shards; `None` = there is one.
    shared: Option<SharedTurns>,
    running_max: usize,
    /// In the order in which they asked.
    waiting: BTreeMap<u64, Waiter>,
}

impl Limited {
    /// Whether all run that may.
    fn is_full(&self) -> bool {
        let running = match &self.shared {
            None => self.running,
            Some(SharedTurns(running)) => running.load(Ordering::Relaxed),
        };
        running >= self.running_max
    }

    /// One more runs, if it may.
    fn begin(&mut self) -> bool {
        let may = match &self.shared {
            None => self.running < self.running_max,
            Some(SharedTurns(running)) => {
                let one_more = |count| (count < self.running_max).then_some(count + 1);
                running.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
            }
        };
        self.running += usize::from(may);
        may
    }

    fn end(&mut self) {
        if self.running > 0 {
            self.running -= 1;
            if let Some(SharedTurns(running)) = &self.shared {
                running.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    services: HashMap<ServiceId, Limited, FixedState>,
    waiting: usize,
    last_ticket: u64,
}

impl Turns {
    pub fn new(hasher: FixedState) -> Turns {
        Turns { services: HashMap::with_hasher(hasher), waiting: 0, last_ticket: 0 }
    }
}

impl<T> Router<T> {
    /// A service runs so many calls at once from now on; `None` = any number. Calls that run go on.
    pub fn limit_service(&mut self, service_id: ServiceId, running_max: Option<NonZeroUsize>) {
        // One that was limited is counted on: its calls wait and end as before.
        let running_max = running_max.map_or(usize::MAX, NonZeroUsize::get);
        if let Some(limited) = self.turns.services.get_mut(&service_id) {
            limited.running_max = running_max;
        } else if running_max != usize::MAX {
            let limited =
                Limited { running: 0, shared: None, running_max, waiting: BTreeMap::new() };
            self.turns.services.insert(service_id, limited);
        }
    }

    /// The limit of a service holds for all shards together, from before its first call on. When a call has
    /// ended, all of them have to ask [`Router::next_turn`].
    pub fn share_turns(&mut self, service_id: ServiceId, turns: SharedTurns) {
        if let Some(limited) = self.turns.services.get_mut(&service_id) {
            limited.shared.get_or_insert(turns);
        }
    }

    /// A channel's call wants its turn, or does not wait for it any more.
    pub fn handle_turn_word(
        &mut self,
        id: RouteId,
        channel: ChannelIndex,
        word: TurnWord,
    ) -> Option<(CallTag, Turn)> {
        self.forget_ticket(id, channel);
        let TurnWord::Wants(tag) = word else { return None };
        let service_id = self.table.get(id)?.service_id;
        let Some(limited) = self.turns.services.get_mut(&service_id) else {
            return Some((tag, Turn::Now));
        };
        // Those of another shard may have ended, and ours not been asked yet: they come first.
        if limited.waiting.is_empty() && limited.begin() {
            return Some((tag, Turn::Now));
        }
        if self.config.queued_calls_max.is_some_and(|max| self.turns.waiting >= max) {
            return Some((tag, Turn::Refused(self.config.overload_code)));
        }
        self.turns.last_ticket += 1;
        let ticket = self.turns.last_ticket;
        limited.waiting.insert(ticket, (id, channel, tag));
        self.turns.waiting += 1;
        if let Some(route) = self.table.get_mut(id) {
            route.tickets[channel.index()] = NonZeroU64::new(ticket);
        }
        Some((tag, Turn::Waits))
    }

    /// A call of a service that had its turn is over.
    pub fn end_turn(&mut self, service_id: ServiceId) {
        if let Some(limited) = self.turns.services.get_mut(&service_id) {
            limited.end();
        }
    }

    /// A call of a service that has waited and may run now: ask after each [`Router::end_turn`], and when
    /// a limit was raised.
    pub fn next_turn(&mut self, service_id: ServiceId) -> Option<Waiter> {
        let limited = self.turns.services.get_mut(&service_id)?;
        if limited.waiting.is_empty() || !limited.begin() {
            return None;
        }
        let (_, waiter) = limited.waiting.pop_first()?;
        self.turns.waiting -= 1;
        let (id, channel, _) = waiter;
        if let Some(route) = self.table.get_mut(id) {
            route.tickets[channel.index()] = None;
        }
        Some(waiter)
    }

    /// Calls that wait for their service.
    pub fn queued_calls(&self) -> usize {
        self.turns.waiting
    }

    /// What a channel has to know of a service.
    pub(super) fn service_load(&self, service_id: ServiceId, role: Role) -> ServiceLoad {
        if self.turns.services.is_empty() || role == Role::Client {
            return ServiceLoad::Unlimited;
        }
        let Some(limited) = self.turns.services.get(&service_id) else {
            return ServiceLoad::Unlimited;
        };
        let is_full = limited.is_full()
            && self.config.queued_calls_max.is_some_and(|max| self.turns.waiting >= max);
        if is_full { ServiceLoad::Full(self.config.overload_code) } else { ServiceLoad::Limited }
    }

    /// A channel's call waits no more.
    pub(super) fn forget_ticket(&mut self, id: RouteId, channel: ChannelIndex) {
        let Some(route) = self.table.get_mut(id) else { return };
        let Some(ticket) = route.tickets[channel.index()].take().map(NonZeroU64::get) else {
            return;
        };
        let service_id = route.service_id;
        if let Some(limited) = self.turns.services.get_mut(&service_id)
            && limited.waiting.remove(&ticket).is_some()
        {
            self.turns.waiting -= 1;
        }
    }
}
