//! What can be checked of the tree of actors from outside: what each of them says of itself, that memory is within its
//! limits, and that whatever has come to its end is forgotten in its time.

use std::time::Duration;

use super::core_checks::{call_bytes_max, sum_bytes_max};
use crate::actors::snapshot::Snapshot;
use crate::proto::Role;
use crate::proto::config::EndpointConfig;
use crate::proto::path::DATAGRAM_MAX;
use crate::wire::{ChannelIndex, DATA_PAYLOAD_MAX};

/// For so many packets of the usual size the largest counts: who may send one may send that.
const PACKETS_MAX: u32 = DATAGRAM_MAX as u32 / DATA_PAYLOAD_MAX as u32;

/// What is wrong with what a tree says of itself.
pub(super) fn fault_of(tree: &Snapshot, config: &EndpointConfig) -> Option<String> {
    let mut all = 0;
    for connection in &tree.connections {
        let of_role = match connection.role {
            Role::Client => &config.client,
            Role::Server => &config.server,
        };
        let mut of_connection = 0;
        for channel in &connection.channels {
            let fault = |text: &str| {
                Some(format!("call {}: {:?} {text}", channel.call_number, channel.state))
            };
            let bytes = channel.buffered_bytes;
            of_connection += bytes;
            if bytes > call_bytes_max(&of_role.call) {
                return fault(&format!("buffers {bytes} bytes"));
            }
            let window = of_role.call.send_window_max_packets;
            if channel.in_flight_packets > window + PACKETS_MAX {
                return fault(&format!("has {} packets in flight", channel.in_flight_packets));
            }
        }
        if of_connection > sum_bytes_max(of_role.buffered_max_bytes, ChannelIndex::COUNT) {
            return Some(format!("a connection buffers {of_connection} bytes"));
        }
        if connection.waiting_calls > of_role.waiting_calls_max {
            return Some(format!("{} calls wait at a connection", connection.waiting_calls));
        }
        all += of_connection;
    }
    let channels = tree.connections.len() * ChannelIndex::COUNT;
    if all > sum_bytes_max(config.buffered_max_bytes, channels) {
        return Some(format!("{all} bytes buffered in all"));
    }
    None
}

/// What is still there when everything should be forgotten: somebody who waits for a timer that is lost.
pub(super) fn left_of(tree: &Snapshot) -> Option<String> {
    let Snapshot { connections, peers, .. } = tree;
    let is_left = !connections.is_empty() || !peers.is_empty();
    is_left.then(|| {
        format!("{} connections and {} peers are never forgotten", connections.len(), peers.len())
    })
}

/// After this time without a call everything is forgotten: client connections, then server connections, of which the
/// last packets may have come from a client's, then peers, at which an endpoint looks once in each `peer_linger`.
pub(super) fn forgotten_after(config: &EndpointConfig) -> Duration {
    let connections = config.client.client_idle + config.server.server_idle;
    let lingering = config.client.aborted_linger + config.server.aborted_linger;
    connections + lingering + 3 * config.peer_linger + config.server.call.dead_timeout
}
