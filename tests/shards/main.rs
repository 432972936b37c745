//! Endpoints of several shards: over UDP, where the kernel spreads, and in memory, where the test does.

mod datagrams;
mod split;
mod strays;
mod udp;
mod unproved;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::actors::snapshot::Snapshot;
use rxrpc::{IncomingCall, StreamError};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

async fn echo(mut call: IncomingCall) -> Result<(), StreamError> {
    let bytes = call.read_all(64 << 20).await?;
    call.reply(bytes);
    Ok(())
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}

/// How many connections live on each of `count` shards.
fn spread(snapshot: &Snapshot, count: usize) -> Vec<usize> {
    let on = |shard| snapshot.connections.iter().filter(|of| of.shard == shard).count();
    (0..count).map(on).collect()
}
