//! What the tree looks like at one moment, told by each actor of itself.

use std::net::SocketAddr;

use crate::proto::event::CallTally;
use crate::proto::router::{PeerSummary, RouteId};
use crate::proto::{CallState, Counters, Role};
use crate::security::ConnectionIds;
use crate::wire::{CallNumber, ChannelIndex, ServiceId};

/// The whole tree.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Our address.
    pub local_addr: SocketAddr,
    /// Totals, of all shards together.
    pub counters: Counters,
    /// Totals of each shard, in order.
    pub shards: Vec<Counters>,
    /// Peers remembered; one that several shards have to do with, by each of them.
    pub peers: Vec<PeerSummary>,
    /// Connections, oldest first, those of one shard after those of another.
    pub connections: Vec<ConnectionSnapshot>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionSnapshot {
    /// The shard that it lives on, from 0.
    pub shard: usize,
    /// Our side.
    pub role: Role,
    /// Its names.
    pub ids: ConnectionIds,
    /// The service that answers: another than in `ids` after an upgrade.
    pub service_id: ServiceId,
    /// The peer.
    pub peer: SocketAddr,
    /// Calls that wait for a channel.
    pub waiting_calls: usize,
    /// Whether it is secured, or needs no security.
    pub is_secured: bool,
    /// Its channels; fewer than four while one is being replaced.
    pub channels: Vec<ChannelSnapshot>,
}

/// One channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSnapshot {
    /// Which.
    pub index: ChannelIndex,
    /// The present call, or the last one; 0 if there was none.
    pub call_number: CallNumber,
    /// State of the present call; `None` = idle.
    pub state: Option<CallState>,
    /// Bytes received that the application has not taken. What a service takes of a request that has come to
    /// its end counts until its reply begins.
    pub buffered_bytes: usize,
    /// Packets sent and not acknowledged.
    pub in_flight_packets: u32,
}

/// What one actor says.
#[derive(Debug)]
pub enum SnapshotPart {
    /// The endpoint.
    Endpoint {
        /// Our address.
        local_addr: SocketAddr,
        /// Totals.
        counters: Box<Counters>,
        /// Peers remembered.
        peers: Vec<PeerSummary>,
    },
    /// A connection.
    Connection(RouteId, Box<ConnectionSnapshot>),
    /// A channel of a connection, and what it has not told the endpoint yet.
    Channel(RouteId, ChannelSnapshot, CallTally),
}

impl Snapshot {
    /// Puts the parts together; `None` if the endpoint did not answer.
    pub fn assemble(parts: Vec<SnapshotPart>) -> Option<Snapshot> {
        let mut endpoint = None;
        let mut connections = std::collections::BTreeMap::new();
        let mut channels = Vec::new();
        let mut tallies = Vec::new();
        for part in parts {
            match part {
                SnapshotPart::Endpoint { local_addr, counters, peers } => {
                    endpoint = Some((local_addr, *counters, peers));
                }
                SnapshotPart::Connection(route, connection) => {
                    connections.insert(route, *connection);
                }
                SnapshotPart::Channel(route, channel, tally) => {
                    channels.push((route, channel));
                    tallies.push(tally);
                }
            }
        }
        for (route, channel) in channels {
            if let Some(connection) = connections.get_mut(&route) {
                connection.channels.push(channel);
            }
        }
        let mut connections: Vec<_> = connections.into_values().collect();
        for connection in &mut connections {
            connection.channels.sort_by_key(|channel| channel.index);
        }
        let (local_addr, mut counters, peers): (_, Counters, _) = endpoint?;
        tallies.iter().for_each(|tally| counters.add(tally));
        let shards = vec![counters.clone()];
        Some(Snapshot { local_addr, counters, shards, peers, connections })
    }

    /// All shards as one; `None` if none has answered.
    pub(crate) fn of_shards(shards: impl Iterator<Item = Option<Snapshot>>) -> Option<Snapshot> {
        let mut all: Option<Snapshot> = None;
        for (index, shard) in shards.enumerate() {
            let Some(mut shard) = shard else { continue };
            shard.connections.iter_mut().for_each(|connection| connection.shard = index);
            match &mut all {
                None => all = Some(shard),
                Some(all) => {
                    all.counters.merge(&shard.counters);
                    all.shards.append(&mut shard.shards);
                    all.peers.append(&mut shard.peers);
                    all.connections.append(&mut shard.connections);
                }
            }
        }
        all
    }
}
