//! What an idle connection holds in memory, both ends together: five actors at each, their addresses and mailboxes,
//! and what the endpoints know of it.
//!
//! Bytes that were asked for are counted, on this one thread; what the allocator adds (about a tenth) and pages in
//! part used are not. `bench idle` measures what is resident.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rxrpc::{ConnectOptions, Connection, Endpoint, EndpointBuilder, unary};

/// Bytes of an idle connection, both ends: three in a hundred above what it is. The target is 8 kB an end.
const BYTES_MAX: usize = 13_600;
/// Twice as many are open at the end: tables that grow by doubling are as full as they were.
const CONNECTIONS: usize = 512;
const AT_ONCE: usize = 32;
const ECHO: u16 = 1;

fn builder() -> EndpointBuilder {
    Endpoint::builder().bind(([127, 0, 0, 1], 0)).configure(|config| {
        config.connections_max = 4 * CONNECTIONS;
        config.connections_per_peer_max = 4 * CONNECTIONS;
        config.unproved_connections_max = 4 * CONNECTIONS;
    })
}

/// Opens connections; each makes one call, and rests when its final ACK has left.
async fn open(client: &Endpoint, server: &Endpoint, all: &mut Vec<Connection>) {
    let options = ConnectOptions { connections_max: 1, ..ConnectOptions::default() };
    let one = async || {
        let options = options.clone();
        let connection = client.connect_with(server.local_addr(), ECHO, options).await.unwrap();
        assert_eq!(connection.call(Bytes::from_static(b"hello")).await.unwrap().len(), 5);
        connection
    };
    for _ in 0..CONNECTIONS / AT_ONCE {
        all.extend(join_all((0..AT_ONCE).map(|_| one())).await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[test]
fn an_idle_connection_is_small() {
    let system = actix_rt::System::new();
    let mut connections = Vec::with_capacity(2 * CONNECTIONS);
    let [server, client] = system.block_on(async {
        let echo = unary(async |request| Ok(request.bytes));
        let server = builder().service(ECHO, echo).start().await.unwrap();
        let client = builder().start().await.unwrap();
        open(&client, &server, &mut connections).await;
        [server, client]
    });
    let held = allocation_counter::measure(|| {
        system.block_on(open(&client, &server, &mut connections));
    });
    let bytes = held.bytes_current as f64 / CONNECTIONS as f64;
    let count = held.count_current as f64 / CONNECTIONS as f64;
    println!("an idle connection, both ends: {bytes:.0} bytes in {count:.1} allocations");
    assert!(bytes <= BYTES_MAX as f64, "{bytes:.0} bytes");
}
