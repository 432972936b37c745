//! Which channel or connection a datagram is for (rx-calls.md 1), and what is answered without one.
//!
//! The router owns the route table, the memory of peers, the offered services, the limits and the deadline
//! queue of an endpoint. `T` is whatever reaches a connection and its channels: addresses of actors, or an
//! index. Nothing before an accepted first DATA makes state.

mod answers;
mod deadlines;
mod limiter;
mod memory;
mod peers;
mod runs;
mod shards;
mod table;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::FixedState;

pub use answers::RouterOutput;
pub use deadlines::{Published, Waker};
pub use peers::PeerSummary;
pub use runs::Step;
pub use shards::Shard;
pub use table::{ChannelBrief, RouteId};
pub use turns::{SharedTurns, Turn};

use super::config::EndpointConfig;
use super::connection::Handshake;
use super::event;
use super::path::PathSize;
use super::peer::{PeerHint, PeerReport};
use super::{Counters, DropReason, Event, NetworkProblem, Role};
use crate::security::{ConnectionIds, SecurityBrief, ServerClass};
use crate::wire::{
    AckReason, ChannelIndex, Cid, Epoch, HEADER_LEN, Header, PacketType, SecurityIndex, ServiceId,
};
use deadlines::DeadlineQueue;
use limiter::{AnswerLimiter, BurstLimiter};
use peers::Peers;
use table::{Key, Route, Table};

/// A service as the router knows it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Security classes that it may be asked for with.
    pub classes: Vec<Arc<dyn ServerClass>>,
    /// Whether a call waits until the client's address is proved. Off only for services whose reply is
    /// never larger than the request.
    pub needs_reach: bool,
    /// The service that a client is upgraded to, if it asks.
    pub upgrades_to: Option<ServiceId>,
}

/// A server connection about to be made.
#[derive(Debug)]
pub struct Opening {
    /// Its names; the service is the one that was asked for.
    pub ids: ConnectionIds,
    /// The service that answers: another after an upgrade.
    pub service_id: ServiceId,
    /// The peer.
    pub peer: SocketAddr,
    /// What is known of it.
    pub hint: PeerHint,
    /// Whether its calls wait for the proof of the peer's address.
    pub needs_reach: bool,
    /// The handshake of its class.
    pub handshake: Handshake,
    /// What its class says of it, for DEBUG answers.
    pub security: SecurityBrief,
}

/// See the module.
#[derive(Debug)]
pub struct Router<T> {
    config: Arc<EndpointConfig>,
    epoch: Epoch,
    next_cid: Cid,
    shard: Shard,
    /// Of a shard: what came last is not yet credited to its sender.
    is_uncredited: bool,
    table: Table<T>,
    peers: Peers,
    offers: HashMap<ServiceId, Offer, FixedState>,
    deadlines: DeadlineQueue,
    versions: AnswerLimiter,
    debugs: BurstLimiter,
    aborts: AnswerLimiter,
    counters: Counters,
    /// What happened without a connection's or channel's doing, for subscribers; `None` = there are none.
    events: Option<Vec<(event::Origin, Event)>>,
    is_closing: bool,
    /// Server connections whose peers had not proved their addresses when they came, oldest first; those
    /// that have since, or are gone, are passed over.
    unproved: VecDeque<RouteId>,
    /// Those that neither have nor are.
    unproved_count: usize,
    pings: AnswerLimiter,
    memory: memory::Memory,
    turns: turns::Turns,
    /// With the endpoint's secret seed: makes numbers that others cannot guess.
    hasher: FixedState,
}

/// The random numbers that an endpoint is born with.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Of all client connections of this endpoint.
    pub epoch: Epoch,
    /// Of the first client connection.
    pub first_cid: Cid,
    /// Of the route table: remotes choose the keys, so their hash must not be known.
    pub hash_seed: u64,
}

impl<T> Router<T> {
    /// An empty table.
    pub fn new(config: Arc<EndpointConfig>, identity: Identity, now: Instant) -> Router<T> {
        let hasher = FixedState::with_seed(identity.hash_seed);
        let limiter = || {
            AnswerLimiter::new(config.answers_per_peer_per_second, config.answers_per_second, now)
        };
        Router {
            epoch: identity.epoch,
            next_cid: identity.first_cid.connection(),
            shard: Shard::ALONE,
            is_uncredited: false,
            table: Table::new(hasher.clone()),
            peers: Peers::new(hasher.clone()),
            turns: turns::Turns::new(hasher.clone()),
            offers: HashMap::with_hasher(hasher.clone()),
            deadlines: DeadlineQueue::default(),
            versions: limiter(),
            debugs: BurstLimiter::new(
                (config.debug_answers_per_peer_per_second, config.debug_answers_per_peer_burst),
                (config.debug_answers_per_second, config.debug_answers_burst),
                now,
            ),
            aborts: limiter(),
            counters: Counters::default(),
            events: None,
            is_closing: false,
            unproved: VecDeque::new(),
            unproved_count: 0,
            pings: AnswerLimiter::new(
                config.reach_pings_per_peer_per_second,
                config.reach_pings_per_second,
                now,
            ),
            memory: memory::Memory::default(),
            hasher,
            config,
        }
    }

    /// Offers a service. An earlier offer of the same id is replaced.
    pub fn offer(&mut self, service_id: ServiceId, offer: Offer) {
        self.offers.insert(service_id, offer);
    }

    /// Names for a new client connection: +4 from a random start, skipping 0 and those in use
    /// (rx-wire.md 1.2).
    pub fn allocate(&mut self, service_id: ServiceId, index: SecurityIndex) -> ConnectionIds {
        loop {
            let cid = self.next_cid;
            self.next_cid = self.shard.next_cid(cid);
            if cid.0 != 0 && self.table.find(&Key::Client(cid)).is_none() {
                return ConnectionIds { epoch: self.epoch, cid, service_id, security_index: index };
            }
        }
    }

    /// Adds a client connection to `peer`.
    pub fn insert_client(
        &mut self,
        now: Instant,
        ids: ConnectionIds,
        peer: SocketAddr,
        target: T,
        out: &mut RouterOutput,
    ) -> RouteId {
        let peer_id = self.peers.enter(now, peer);
        self.peers.arm_sweep(now, self.config.peer_linger, self.config.nat_ping);
        let route = Route::new(Key::Client(ids.cid), Role::Client, ids, peer, peer_id, target);
        let id = self.table.insert(route);
        let entry = self.peers.get_mut(peer_id);
        entry.peer.client_connections += 1;
        entry.routes.push(id);
        self.note(
            ids,
            event::ConnectionOpened { role: Role::Client, peer, service_id: ids.service_id },
        );
        self.ask_version(peer, out);
        id
    }

    /// Adds the server connection of an opening.
    pub fn insert_server(&mut self, now: Instant, opening: &Opening, target: T) -> RouteId {
        let peer_id = self.peers.enter(now, opening.peer);
        let key = self.server_key(opening.ids.epoch, opening.ids.cid, opening.peer);
        let role = Role::Server;
        let mut route = Route::new(key, role, opening.ids, opening.peer, peer_id, target);
        route.service_id = opening.service_id;
        route.security = opening.security;
        let id = self.table.insert(route);
        let entry = self.peers.get_mut(peer_id);
        entry.routes.push(id);
        let peer = &mut entry.peer;
        peer.server_connections += 1;
        let is_unproved = !peer.hint.is_proved(now);
        if is_unproved {
            self.unproved.push_back(id);
            self.unproved_count += 1;
        }
        if let Some(route) = self.table.get_mut(id) {
            route.is_unproved = is_unproved;
            route.memory = memory::RouteMemory::new(is_unproved);
        }
        self.note(
            opening.ids,
            event::ConnectionOpened {
                role: Role::Server,
                peer: opening.peer,
                service_id: opening.ids.service_id,
            },
        );
        id
    }

    /// The oldest server connection whose peer has not proved its address, if there are more of those than
    /// there may be: close it. Ask after each [`Router::insert_server`].
    pub fn excess(&mut self, now: Instant) -> Option<RouteId> {
        let max = self.config.unproved_connections_max;
        if self.unproved.len() > 2 * max {
            let table = &self.table;
            self.unproved.retain(|id| table.get(*id).is_some_and(|route| route.is_unproved));
        }
        while self.unproved_count > max {
            let id = self.unproved.pop_front()?;
            if !self.count_as_proved(id) {
                continue;
            }
            let Some(route) = self.table.get(id).filter(|route| !route.is_closing) else {
                continue;
            };
            // Another connection of the same peer may have proved it.
            if !self.peers.get(route.peer_id).peer.hint.is_proved(now) {
                self.note_at(NOWHERE, DropReason::ConnectionLimit.into());
                return Some(id);
            }
        }
        None
    }

    /// The connection is none of the unproved any more; whether it was.
    fn count_as_proved(&mut self, id: RouteId) -> bool {
        let Some(route) = self.table.get_mut(id) else { return false };
        let was_unproved = std::mem::take(&mut route.is_unproved);
        self.unproved_count -= usize::from(was_unproved);
        was_unproved
    }

    /// The connection drains: nothing more goes to it, but its key stays taken.
    pub fn start_closing(&mut self, id: RouteId) {
        if let Some(route) = self.table.get_mut(id) {
            route.is_closing = true;
        }
    }

    /// A server's connection was lost, and nobody knows any more which calls it has run: its packets are
    /// answered with an ABORT until it is removed, so that none runs again.
    pub fn start_rejecting(&mut self, id: RouteId) {
        if let Some(route) = self.table.get_mut(id) {
            route.is_closing = true;
            route.is_broken = true;
        }
    }

    /// The service that answers a connection's calls.
    pub fn service_of(&self, id: RouteId) -> Option<ServiceId> {
        self.table.get(id).map(|route| route.service_id)
    }

    /// Our side of a connection.
    pub fn role_of(&self, id: RouteId) -> Option<Role> {
        self.table.get(id).map(|route| route.role)
    }

    /// The connection is gone.
    pub fn remove(&mut self, now: Instant, id: RouteId) -> Option<T> {
        for channel in ChannelIndex::ALL {
            self.forget_ticket(id, channel);
        }
        self.count_as_proved(id);
        let route = self.table.remove(id)?;
        self.forget_memory(id, &route.memory);
        for (slot, known) in route.deadlines.iter().enumerate() {
            self.deadlines.forget(known, id, slot);
        }
        let entry = self.peers.get_mut(route.peer_id);
        entry.peer.last_used = now;
        if let Some(place) = entry.routes.iter().position(|place| *place == id) {
            entry.routes.swap_remove(place);
        }
        match route.role {
            Role::Client => entry.peer.client_connections -= 1,
            Role::Server => entry.peer.server_connections -= 1,
        }
        self.peers.forget_if_stranger(route.peer_id);
        self.note(route.ids, event::ConnectionClosed { role: route.role });
        Some(route.target)
    }

    /// What reaches a connection; `None` if it is gone or drains.
    pub fn target(&self, id: RouteId) -> Option<&T> {
        self.table.get(id).filter(|route| !route.is_closing).map(|route| &route.target)
    }

    /// As [`Router::target`], for a change: a channel was replaced. Drains or not.
    pub fn target_mut(&mut self, id: RouteId) -> Option<&mut T> {
        self.table.get_mut(id).map(|route| &mut route.target)
    }

    /// All connections, draining ones too.
    pub fn iter(&self) -> impl Iterator<Item = (RouteId, &T)> {
        self.table.iter().map(|(id, route)| (id, &route.target))
    }

    /// Connections, draining ones too.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// No new server connections from now on.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// What a call of a connection has to know.
    pub fn hint(&self, id: RouteId) -> PeerHint {
        let Some(route) = self.table.get(id) else { return PeerHint::default() };
        let room = self.room(&route.memory, route.role);
        let load = self.service_load(route.service_id, route.role);
        PeerHint { room, load, ..self.peers.get(route.peer_id).peer.hint }
    }

    /// What is known of an address.
    pub fn hint_of(&self, peer: SocketAddr) -> PeerHint {
        self.peers.find(peer).map(|id| self.peers.get(id).peer.hint).unwrap_or_default()
    }

    /// The peer of a connection.
    pub fn peer_of(&self, id: RouteId) -> Option<SocketAddr> {
        self.table.get(id).map(|route| route.peer)
    }

    /// Takes over what a channel learnt of its peer.
    pub fn learn(&mut self, now: Instant, id: RouteId, report: &PeerReport) {
        if report.is_empty() {
            return;
        }
        if let Some(route) = self.table.get(id) {
            let call = &self.config.server.call;
            let entry = self.peers.get_mut(route.peer_id);
            let before = entry.peer.hint.path.datagram_max();
            entry.peer.learn(now, report, call.reach_ttl, call.dead_timeout);
            let (peer, datagram_max) = (entry.address, entry.peer.hint.path.datagram_max());
            if datagram_max != before {
                self.note_at(NOWHERE, event::PathSized { peer, datagram_max }.into());
            }
        }
        if report.proved {
            self.count_as_proved(id);
            self.note_proved(id);
        }
    }

    /// What its class says of a connection, for DEBUG, and whether the client has proved itself.
    pub fn set_security(&mut self, id: RouteId, security: SecurityBrief, is_secured: bool) {
        if let Some(route) = self.table.get_mut(id) {
            (route.security, route.is_secured) = (security, is_secured);
        }
    }

    /// What a channel is at, for DEBUG.
    pub fn set_brief(&mut self, id: RouteId, channel: ChannelIndex, brief: ChannelBrief) {
        if let Some(route) = self.table.get_mut(id) {
            route.briefs.get_or_insert_default()[channel.index()] = brief;
        }
    }

    /// Where `datagrams` of a connection, which are `bytes`, go; `None` = nowhere: the connection is gone, or
    /// its peer has not proved its address and has had its share.
    pub fn admit(
        &mut self,
        now: Instant,
        id: RouteId,
        datagrams: usize,
        bytes: &[u8],
    ) -> Option<SocketAddr> {
        let route = self.table.get_mut(id)?;
        let factor = match route.role {
            Role::Client => None,
            Role::Server => self.config.amplification_max,
        };
        let (peer, ids) = (route.peer, route.ids);
        let entry = self.peers.get_mut(route.peer_id);
        // PINGs go alone. One too many is sent again when its time has come.
        if route.is_unproved && is_ping(bytes) && !self.pings.allows(peer, now) {
            self.note(ids, event::Dropped { reason: DropReason::Throttled });
            return None;
        }
        if !entry.peer.may_send(now, datagrams, bytes.len(), factor) {
            for _ in 0..datagrams {
                self.note(ids, event::Dropped { reason: DropReason::Amplification });
            }
            return None;
        }
        Some(peer)
    }

    /// The network says that datagrams to `peer` do not arrive: the client connections that want to know.
    pub fn handle_network_problem(
        &mut self,
        peer: SocketAddr,
        problem: NetworkProblem,
    ) -> Vec<RouteId> {
        let Some(peer_id) = self.peers.find(peer) else { return Vec::new() };
        let entry = self.peers.get_mut(peer_id);
        entry.peer.problem = Some(problem);
        let routes = entry.routes.clone();
        self.note_at(NOWHERE, event::PathReported { peer, problem }.into());
        let mut clients = routes;
        clients.retain(|id| self.role_of(*id) == Some(Role::Client));
        clients
    }

    /// The network says that the path to `peer` takes datagrams of `datagram_max` bytes only; 0 = it does
    /// not say how large. Believed if it makes them smaller, or larger ones futile: then what the path takes now, and the connections
    /// whose channels want to know.
    pub fn handle_path_size(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        datagram_max: usize,
    ) -> Option<(PathSize, Vec<RouteId>)> {
        let peer_id = self.peers.find(peer)?;
        let entry = self.peers.get_mut(peer_id);
        let path = &mut entry.peer.hint.path;
        let before = *path;
        let shrinks = match u16::try_from(datagram_max).unwrap_or(u16::MAX) {
            0 => path.refuse(now, path.datagram_max()),
            size => path.shrink(now, size),
        };
        if *path == before {
            return None;
        }
        // Where it only says what is not to be had, whoever probes for it wants to know.
        let (path, routes) = (*path, entry.routes.clone());
        if shrinks {
            let datagram_max = path.datagram_max();
            self.note_at(NOWHERE, event::PathSized { peer, datagram_max }.into());
        }
        Some((path, routes))
    }

    /// Totals.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Totals, for the driver's own: receives, sends, events.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Counts what a connection or one of its channels tells.
    pub fn record(&mut self, id: RouteId, event: &Event) {
        self.counters.record(event);
        if let Event::Resent(resent) = event
            && let Some(route) = self.table.get(id)
        {
            self.peers.get_mut(route.peer_id).peer.packets_resent += u64::from(resent.packets);
        }
    }

    /// Counts datagrams that whoever drives this could not handle.
    pub fn drop_datagrams(&mut self, count: usize, reason: DropReason) {
        for _ in 0..count {
            self.note_at(NOWHERE, reason.into());
        }
    }

    /// The router's own events are wanted: take them with [`Router::take_events`] after each step.
    pub fn keep_events(&mut self) {
        self.events.get_or_insert_default();
    }

    /// The router's own events since the last call of this.
    pub fn take_events(&mut self) -> Vec<(event::Origin, Event)> {
        self.events.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The peers remembered.
    pub fn peer_summaries(&self) -> Vec<PeerSummary> {
        self.peers.summaries()
    }

    fn server_key(&self, epoch: Epoch, cid: Cid, peer: SocketAddr) -> Key {
        let cid = cid.connection();
        if !self.config.strict_address && epoch.is_address_free() {
            Key::ServerAnywhere(epoch, cid)
        } else {
            Key::Server(peer, epoch, cid)
        }
    }

    fn note(&mut self, ids: ConnectionIds, event: impl Into<Event>) {
        self.note_at(event::Origin { epoch: ids.epoch, cid: ids.cid }, event.into());
    }

    fn note_at(&mut self, origin: event::Origin, event: Event) {
        self.counters.record(&event);
        if let Some(events) = &mut self.events {
            events.push((origin, event));
        }
    }
}

/// Whether a datagram of ours is a PING.
fn is_ping(datagram: &[u8]) -> bool {
    const REASON: usize = HEADER_LEN + 16;
    datagram.get(20) == Some(&PacketType::Ack.byte())
        && datagram.get(REASON) == Some(&AckReason::Ping.byte())
}

/// Of events that belong to no connection.
const NOWHERE: event::Origin = event::Origin { epoch: Epoch(0), cid: Cid(0) };

/// Whether the fields that place an ABORT or BUSY say that Linux made it without a connection: then its
/// security index means nothing (rx-wire.md 1.4).
fn is_raw_reject(header: &Header) -> bool {
    header.serial.is_none() && header.security_index == SecurityIndex::NULL
}
