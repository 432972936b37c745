//! An endpoint's tree of actors as text.

use std::fmt::Write;

use rxrpc::actors::snapshot::{ChannelSnapshot, ConnectionSnapshot, Snapshot};
use rxrpc::proto::{CallState, Role};

/// Draws it; each line ends with a line feed.
pub fn draw(snapshot: &Snapshot) -> String {
    let mut text = format!("LocalEndpoint {}\n", snapshot.local_addr);
    let last = snapshot.connections.len().saturating_sub(1);
    for (index, connection) in snapshot.connections.iter().enumerate() {
        let (branch, below) = branches(index == last);
        draw_connection(&mut text, connection, branch, below);
    }
    text
}

fn branches(is_last: bool) -> (&'static str, &'static str) {
    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn draw_connection(text: &mut String, it: &ConnectionSnapshot, branch: &str, below: &str) {
    let ConnectionSnapshot { ids, peer, service_id, waiting_calls, channels, .. } = it;
    let direction = match it.role {
        Role::Client => "to",
        Role::Server => "from",
    };
    let ids = format_args!("{}/{}", ids.epoch, ids.cid);
    // Writing to a String cannot fail.
    let _ = write!(text, "{branch}Connection {ids}, service {service_id}, {direction} {peer}");
    let _ = match waiting_calls {
        0 => writeln!(text),
        calls => writeln!(text, ", {calls} calls wait"),
    };
    let last = channels.len().saturating_sub(1);
    for (index, channel) in channels.iter().enumerate() {
        let (branch, _) = branches(index == last);
        let _ = writeln!(text, "{below}{branch}{}", describe(channel));
    }
}

fn describe(channel: &ChannelSnapshot) -> String {
    let mut text = format!("Channel {}  ", channel.index.index());
    let number = channel.call_number.0;
    let _ = match channel.state {
        None if number == 0 => write!(text, "unused"),
        None => write!(text, "idle after call {number}"),
        Some(state) => write!(text, "call {number}: {}", activity(state)),
    };
    if channel.in_flight_packets > 0 {
        let _ = write!(text, ", {} packets on their way", channel.in_flight_packets);
    }
    if channel.buffered_bytes > 0 {
        let _ = write!(text, ", {} bytes not read yet", channel.buffered_bytes);
    }
    text
}

fn activity(state: CallState) -> &'static str {
    match state {
        CallState::ClientReserved => "about to begin",
        CallState::ClientSend => "sends its request",
        CallState::ClientAwaitReply => "waits for the reply",
        CallState::ClientReceiveReply => "receives the reply",
        CallState::ClientDone => "has the reply",
        CallState::ServerReceive => "receives the request",
        CallState::ServerWork => "works on the request",
        CallState::ServerReply => "sends its reply",
        CallState::ServerAwaitAck => "waits for the last acknowledgement",
        CallState::ServerDying => "is overtaken by a newer call",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rxrpc::Endpoint;

    #[actix_rt::test]
    async fn the_tree_shows_who_is_whose_child() {
        let hub = rxrpc::net::MemoryHub::new();
        let at = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
        let (_, network) = hub.bind_source(at(7009)).unwrap();
        let service = crate::common::service::echo(100);
        let server =
            Endpoint::builder().network(network).service(1, service).start().await.unwrap();
        let (_, network) = hub.bind_source(at(7001)).unwrap();
        let client = Endpoint::builder().network(network).start().await.unwrap();
        let connection = client.connect(at(7009), 1).await.unwrap();
        connection.call("x").await.unwrap();
        let text = draw(&client.inspect().await.unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "LocalEndpoint 10.0.0.1:7001");
        assert!(lines[1].starts_with("└─ Connection "), "{text}");
        assert!(lines[1].ends_with(", service 1, to 10.0.0.1:7009"), "{text}");
        assert_eq!(lines[2], "   ├─ Channel 0  idle after call 1");
        assert_eq!(lines[5], "   └─ Channel 3  unused");
        let text = draw(&server.inspect().await.unwrap());
        assert!(text.contains(", service 1, from 10.0.0.1:7001\n"), "{text}");
    }
}
