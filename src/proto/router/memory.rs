//! Bytes that channels hold, added up by connection, for all, and for peers that have not proved their
//! addresses; and who goes on when there is room again.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::{ChannelIndex, NOWHERE, RouteId, Router};
use crate::proto::event::{MemoryLimit, MemoryScope};
use crate::proto::room::Gauge;
use crate::proto::{Holding, Role, Room};

/// What all channels of an endpoint hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    all: Gauge,
    unproved: Gauge,
    /// Connections with channels that wait for room which all together lack.
    waiting: BTreeSet<RouteId>,
    /// Channels that there is room for again.
    relieved: VecDeque<(RouteId, ChannelIndex)>,
}

/// What the channels of one connection hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RouteMemory {
    bytes: [usize; ChannelIndex::COUNT],
    gauge: Gauge,
    /// Channels that wait for room, a bit each.
    waits: u8,
    is_unproved: bool,
}

impl RouteMemory {
    pub fn new(is_unproved: bool) -> RouteMemory {
        RouteMemory { is_unproved, ..RouteMemory::default() }
    }
}

impl<T> Router<T> {
    /// Takes over what a channel holds. Ask for [`Router::next_relieved`] afterwards.
    pub fn note_holding(
        &mut self,
        now: Instant,
        id: RouteId,
        channel: ChannelIndex,
        holding: Holding,
    ) {
        let Some(route) = self.table.get_mut(id) else { return };
        let old = std::mem::replace(&mut route.memory.bytes[channel.index()], holding.bytes);
        let bit = 1 << channel.index();
        route.memory.waits = route.memory.waits & !bit | if holding.waits { bit } else { 0 };
        let is_proved = self.peers.get(route.peer_id).peer.hint.is_proved(now);
        let is_unproved = route.role == Role::Server && !is_proved;
        let (ids, max) = (route.ids, self.config.buffered_max_bytes_of(route.role));
        let crossed = route.memory.gauge.change(old, holding.bytes, max);
        self.move_unproved(id, is_unproved, old, holding.bytes);
        if let Some(is_passed) = crossed {
            self.note(ids, MemoryLimit { scope: MemoryScope::Connection, is_passed });
        }
        let crossed = self.memory.all.change(old, holding.bytes, self.config.buffered_max_bytes);
        if let Some(is_passed) = crossed {
            self.note_at(NOWHERE, MemoryLimit { scope: MemoryScope::Endpoint, is_passed }.into());
        }
        if crossed == Some(false) {
            self.relieve_all();
        }
        self.relieve(id);
    }

    /// A channel whose calls may go on as fast as they can: tell it.
    pub fn next_relieved(&mut self) -> Option<(RouteId, ChannelIndex)> {
        self.memory.relieved.pop_front()
    }

    /// Bytes that all channels hold, as far as they have told.
    pub fn buffered_bytes(&self) -> usize {
        self.memory.all.bytes()
    }

    /// Of those, for peers that have not proved their addresses.
    pub fn unproved_buffered_bytes(&self) -> usize {
        self.memory.unproved.bytes()
    }

    /// How much a connection's channels may hold now.
    pub(super) fn room(&self, memory: &RouteMemory, role: Role) -> Room {
        let own = memory.gauge.room(self.config.buffered_max_bytes_of(role));
        let all = self.memory.all.room(self.config.buffered_max_bytes);
        // They have promised nothing yet that would have to be kept.
        let is_full = memory.is_unproved && self.memory.unproved.is_short();
        own.max(all).max(if is_full { Room::None } else { Room::Free })
    }

    /// The peer of a connection has proved its address.
    pub(super) fn note_proved(&mut self, id: RouteId) {
        self.move_unproved(id, false, 0, 0);
    }

    /// A connection is gone.
    pub(super) fn forget_memory(&mut self, id: RouteId, memory: &RouteMemory) {
        self.memory.waiting.remove(&id);
        let bytes = memory.gauge.bytes();
        if memory.is_unproved {
            self.change_unproved(bytes, 0);
        }
        let crossed = self.memory.all.change(bytes, 0, self.config.buffered_max_bytes);
        if crossed == Some(false) {
            let limit = MemoryLimit { scope: MemoryScope::Endpoint, is_passed: false };
            self.note_at(NOWHERE, limit.into());
            self.relieve_all();
        }
    }

    /// The connection's bytes have changed from `old` to `new` in one channel, and count as unproved or not
    /// from now on.
    fn move_unproved(&mut self, id: RouteId, is_unproved: bool, old: usize, new: usize) {
        let Some(route) = self.table.get_mut(id) else { return };
        let after = route.memory.gauge.bytes();
        let before = (after + old).saturating_sub(new);
        let was_unproved = std::mem::replace(&mut route.memory.is_unproved, is_unproved);
        let counted = |is_counted: bool, bytes: usize| if is_counted { bytes } else { 0 };
        self.change_unproved(counted(was_unproved, before), counted(is_unproved, after));
    }

    fn change_unproved(&mut self, less: usize, more: usize) {
        let max = self.config.unproved_buffered_max_bytes;
        let crossed = self.memory.unproved.change(less, more, max);
        if let Some(is_passed) = crossed {
            self.note_at(NOWHERE, MemoryLimit { scope: MemoryScope::Unproved, is_passed }.into());
        }
        if crossed == Some(false) {
            self.relieve_all();
        }
    }

    /// If there is room for the waiting channels of a connection, they are told; else it waits, unless its
    /// own limit is all that it waits for.
    fn relieve(&mut self, id: RouteId) {
        let Some(route) = self.table.get(id) else { return };
        let (memory, role) = (route.memory, route.role);
        if memory.waits == 0 {
            return;
        }
        let is_free = self.room(&memory, role) == Room::Free;
        if is_free && let Some(route) = self.table.get_mut(id) {
            route.memory.waits = 0;
            let waits = |index: &ChannelIndex| memory.waits & 1 << index.index() != 0;
            let channels = ChannelIndex::ALL.into_iter().filter(waits);
            self.memory.relieved.extend(channels.map(|index| (id, index)));
        } else if self.memory.all.is_short() || self.memory.unproved.is_short() {
            self.memory.waiting.insert(id);
        }
    }

    fn relieve_all(&mut self) {
        for id in std::mem::take(&mut self.memory.waiting) {
            self.relieve(id);
        }
    }
}
