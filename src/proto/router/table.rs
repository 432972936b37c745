//! The route table: one look-up from a header to a connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;

use foldhash::fast::FixedState;

use super::deadlines::{Known, SLOTS};
use super::memory::RouteMemory;
use super::peers::PeerId;
use crate::proto::channel::SealedTraffic;
use crate::proto::{CallState, Role};
use crate::security::{ConnectionIds, SecurityBrief};
use crate::wire::{CallNumber, ChannelIndex, Cid, Epoch, Serial, ServiceId};

/// Names a connection of this endpoint, and never another after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    index: u32,
    generation: u32,
}

/// What a connection is looked up by (rx-calls.md 1, step 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// We are the client: we chose the id.
    Client(Cid),
    /// We are the server, the peer's address counts.
    Server(SocketAddr, Epoch, Cid),
    /// We are the server, the peer may come from anywhere.
    ServerAnywhere(Epoch, Cid),
}

/// What a channel was at when it last had something to send: for DEBUG answers only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelBrief {
    /// The present or last call.
    pub number: CallNumber,
    /// The present call's state.
    pub state: Option<CallState>,
    /// The connection's last serial then.
    pub serial: Serial,
    /// What the security class had to do.
    pub sealed: SealedTraffic,
}

#[derive(Debug)]
pub(super) struct Route<T> {
    pub key: Key,
    pub role: Role,
    pub ids: ConnectionIds,
    /// The service that answers: another than in `ids` after an upgrade.
    pub service_id: ServiceId,
    pub peer: SocketAddr,
    pub peer_id: PeerId,
    pub target: T,
    pub is_closing: bool,
    /// It was lost, with the memory of its calls.
    pub is_broken: bool,
    /// It counts among the connections whose peers have not proved their addresses.
    pub is_unproved: bool,
    /// There once a channel had something to say, and only where DEBUG is answered.
    pub briefs: Option<Box<[ChannelBrief; ChannelIndex::COUNT]>>,
    /// What its class says, for DEBUG answers, and whether it is secured.
    pub security: SecurityBrief,
    pub is_secured: bool,
    pub deadlines: [Known; SLOTS],
    pub memory: RouteMemory,
    /// Of channels whose calls wait for their service.
    pub tickets: [Option<NonZeroU64>; ChannelIndex::COUNT],
}

impl<T> Route<T> {
    /// What its channels were at last.
    pub fn briefs(&self) -> [ChannelBrief; ChannelIndex::COUNT] {
        self.briefs.as_deref().copied().unwrap_or_default()
    }

    pub fn new(
        key: Key,
        role: Role,
        ids: ConnectionIds,
        peer: SocketAddr,
        peer_id: PeerId,
        target: T,
    ) -> Route<T> {
        Route {
            key,
            role,
            ids,
            service_id: ids.service_id,
            peer,
            peer_id,
            target,
            is_closing: false,
            is_broken: false,
            is_unproved: false,
            briefs: None,
            security: SecurityBrief::default(),
            is_secured: false,
            deadlines: [Known::default(); SLOTS],
            memory: RouteMemory::default(),
            tickets: [None; ChannelIndex::COUNT],
        }
    }
}

/// Slots with generations, and a hash from keys to slots.
#[derive(Debug)]
pub(super) struct Table<T> {
    by_key: HashMap<Key, RouteId, FixedState>,
    slots: Vec<(u32, Option<Route<T>>)>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub fn new(hasher: FixedState) -> Table<T> {
        Table { by_key: HashMap::with_hasher(hasher), slots: Vec::new(), free: Vec::new() }
    }

    #[inline]
    pub fn find(&self, key: &Key) -> Option<RouteId> {
        self.by_key.get(key).copied()
    }

    #[inline]
    pub fn get(&self, id: RouteId) -> Option<&Route<T>> {
        let (generation, route) = self.slots.get(id.index as usize)?;
        route.as_ref().filter(|_| *generation == id.generation)
    }

    #[inline]
    pub fn get_mut(&mut self, id: RouteId) -> Option<&mut Route<T>> {
        let (generation, route) = self.slots.get_mut(id.index as usize)?;
        route.as_mut().filter(|_| *generation == id.generation)
    }

    pub fn insert(&mut self, route: Route<T>) -> RouteId {
        let key = route.key;
        let id = match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.1 = Some(route);
                RouteId { index, generation: slot.0 }
            }
            None => {
                self.slots.push((0, Some(route)));
                RouteId { index: self.slots.len() as u32 - 1, generation: 0 }
            }
        };
        self.by_key.insert(key, id);
        id
    }

    pub fn remove(&mut self, id: RouteId) -> Option<Route<T>> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        let route = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(id.index);
        self.by_key.remove(&route.key);
        Some(route)
    }

    pub fn iter(&self) -> impl Iterator<Item = (RouteId, &Route<T>)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, route))| {
            let id = RouteId { index: index as u32, generation: *generation };
            route.as_ref().map(|route| (id, route))
        })
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
