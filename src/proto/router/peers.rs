//! The peers of an endpoint: made with their first connection, forgotten some time after their last.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use super::table::RouteId;
use crate::proto::peer::{Peer, RttMemory};

/// Sweeps are at least so far apart, however many peers there are: a keepalive is late by no more.
const SWEEP_MIN: Duration = Duration::from_secs(1);

/// Place of a peer in [`Peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerId(u32);

#[derive(Debug)]
pub(super) struct PeerEntry {
    pub address: SocketAddr,
    pub peer: Peer,
    /// Its connections, to tell them what the network says.
    pub routes: Vec<RouteId>,
}

#[derive(Debug)]
pub(super) struct Peers {
    by_address: HashMap<SocketAddr, PeerId, FixedState>,
    slots: Vec<PeerEntry>,
    free: Vec<PeerId>,
    sweep_at: Option<Instant>,
}

/// A peer, for those who look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerSummary {
    /// Its address.
    pub address: SocketAddr,
    /// Round-trip time, if it was ever measured.
    pub rtt: Option<RttMemory>,
    /// Largest DATA payload for it, in bytes.
    pub payload_max: u16,
    /// Largest datagram that is known to reach it unfragmented, in bytes of UDP payload.
    pub datagram_max: u16,
    /// Packets per datagram that it takes.
    pub jumbo_max: u8,
    /// Whether it is known to be a Linux kernel.
    pub is_linux: bool,
    /// Congestion window and threshold of its last call, in packets.
    pub congestion: Option<(u32, u32)>,
    /// Datagrams that came from it and went to it.
    pub datagrams: (u64, u64),
    /// Bytes that came from it and went to it.
    pub bytes: (u64, u64),
    /// Connections with it, as client and as server.
    pub connections: (usize, usize),
    /// Whether its address counts as proved, when last asked.
    pub is_proved: bool,
}

impl Peers {
    pub fn new(hasher: FixedState) -> Peers {
        Peers {
            by_address: HashMap::with_hasher(hasher),
            slots: Vec::new(),
            free: Vec::new(),
            sweep_at: None,
        }
    }

    pub fn find(&self, address: SocketAddr) -> Option<PeerId> {
        self.by_address.get(&address).copied()
    }

    /// The peer at `address`, made if need be.
    pub fn enter(&mut self, now: Instant, address: SocketAddr) -> PeerId {
        if let Some(id) = self.find(address) {
            self.get_mut(id).peer.last_used = now;
            return id;
        }
        let entry = PeerEntry { address, peer: Peer::new(now), routes: Vec::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = entry;
                id
            }
            None => {
                self.slots.push(entry);
                PeerId(self.slots.len() as u32 - 1)
            }
        };
        self.by_address.insert(address, id);
        id
    }

    /// Forgets a peer without connections that has never proved its address: there is nothing to remember of
    /// it, and such addresses cost a sender nothing. What it was sent was no more than it may be sent.
    pub fn forget_if_stranger(&mut self, id: PeerId) {
        let entry = self.get(id);
        let peer = &entry.peer;
        if peer.client_connections + peer.server_connections == 0
            && peer.hint.proved_until.is_none()
        {
            let address = entry.address;
            if self.by_address.remove(&address).is_some() {
                self.free.push(id);
            }
        }
    }

    #[inline]
    pub fn get(&self, id: PeerId) -> &PeerEntry {
        &self.slots[id.0 as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, id: PeerId) -> &mut PeerEntry {
        &mut self.slots[id.0 as usize]
    }

    pub fn next_sweep(&self) -> Option<Instant> {
        if self.by_address.is_empty() { None } else { self.sweep_at }
    }

    /// Forgets peers without connections that were not used for `linger`, and returns those that want a
    /// NAT keepalive: they have client connections and were sent nothing for `nat_ping`.
    pub fn sweep(
        &mut self,
        now: Instant,
        linger: Duration,
        nat_ping: Option<Duration>,
    ) -> Vec<SocketAddr> {
        let mut pings = Vec::new();
        let mut gone = Vec::new();
        let mut next = now + nat_ping.map_or(linger, |ping| linger.min(ping));
        for (address, id) in &self.by_address {
            let peer = &mut self.slots[id.0 as usize].peer;
            if peer.client_connections + peer.server_connections == 0 {
                if now >= peer.last_used + linger {
                    gone.push((*address, *id));
                }
            } else if let Some(interval) = nat_ping
                && peer.client_connections > 0
            {
                let due = peer.last_sent.map_or(now, |last| last + interval);
                if due <= now {
                    peer.last_sent = Some(now);
                    pings.push(*address);
                } else {
                    next = next.min(due);
                }
            }
        }
        for (address, id) in gone {
            self.by_address.remove(&address);
            self.free.push(id);
        }
        self.sweep_at = Some(next.max(now + SWEEP_MIN));
        pings
    }

    /// Makes sure that a sweep is due some time.
    pub fn arm_sweep(&mut self, now: Instant, linger: Duration, nat_ping: Option<Duration>) {
        if self.sweep_at.is_none() {
            self.sweep_at = Some(now + nat_ping.map_or(linger, |ping| linger.min(ping)));
        }
    }

    pub fn is_sweep_due(&self, now: Instant) -> bool {
        self.next_sweep().is_some_and(|at| at <= now)
    }

    pub fn iter(&self) -> impl Iterator<Item = &PeerEntry> {
        let mut ids: Vec<_> = self.by_address.values().copied().collect();
        ids.sort_unstable_by_key(|id| id.0);
        ids.into_iter().map(|id| self.get(id))
    }

    pub fn summaries(&self) -> Vec<PeerSummary> {
        self.iter()
            .map(|entry| {
                let peer = &entry.peer;
                PeerSummary {
                    address: entry.address,
                    rtt: peer.hint.rtt,
                    payload_max: peer.hint.payload_max(),
                    datagram_max: peer.hint.path.datagram_max(),
                    jumbo_max: peer.hint.sizes.jumbo_max,
                    is_linux: peer.hint.is_linux,
                    congestion: peer
                        .hint
                        .congestion
                        .map(|memory| (memory.window, memory.threshold)),
                    datagrams: (peer.datagrams_received, peer.datagrams_sent),
                    bytes: (peer.bytes_received, peer.bytes_sent),
                    connections: (peer.client_connections, peer.server_connections),
                    is_proved: peer.hint.proved_until.is_some(),
                }
            })
            .collect()
    }
}
