//! Over UDP on loopback: the kernel decides which socket a datagram comes to.

use std::net::UdpSocket;

use futures::future::join_all;
use rxrpc::net::UdpOptions;
use rxrpc::proto::DropReason;
use rxrpc::{CloseReason, ConnectOptions, Endpoint, StartError};

use super::*;

async fn server(shards: usize) -> Endpoint {
    let builder = Endpoint::builder().bind(loopback()).shards(shards).service(1, echo);
    builder.start().await.unwrap()
}

async fn client(shards: usize) -> Endpoint {
    Endpoint::builder().bind(loopback()).shards(shards).start().await.unwrap()
}

#[tokio::test]
async fn clients_of_a_server_are_spread_and_all_are_answered() {
    let server = server(2).await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(client(1).await);
    }
    let calls = clients.iter().enumerate().map(async |(index, client)| {
        let connection = client.connect(server.local_addr(), 1).await.unwrap();
        let request = pattern(index * 5000);
        assert!(connection.call(request.clone()).await.unwrap() == request, "client {index}");
        connection
    });
    let connections = join_all(calls).await;
    let snapshot = server.inspect().await.unwrap();
    assert_eq!(snapshot.connections.len(), 24);
    // By chance all are on one shard once in eight million.
    assert!(spread(&snapshot, 2).iter().all(|count| *count > 0), "{:?}", spread(&snapshot, 2));
    assert_eq!(snapshot.counters.server_calls, 24);
    assert_eq!(snapshot.shards.iter().map(|of| of.server_calls).sum::<u64>(), 24);
    assert_eq!(snapshot.counters.strays, 0, "each client's packets come to one socket");
    drop(connections);
    let report = server.shutdown(secs(1)).await;
    assert_eq!((report.calls_cut, report.counters.server_calls), (0, 24));
    assert_eq!(server.closed().await, CloseReason::Shutdown);
}

#[tokio::test]
async fn connections_of_a_client_are_spread_and_their_replies_find_them() {
    let server = server(1).await;
    let client = client(2).await;
    let options = ConnectOptions { connections_max: 6, ..ConnectOptions::default() };
    let connection = client.connect_with(server.local_addr(), 1, options).await.unwrap();
    let call = async |index: usize| {
        let request = pattern(index * 10_000);
        assert!(connection.call(request.clone()).await.unwrap() == request, "call {index}");
    };
    join_all((0..96).map(call)).await;
    let snapshot = client.inspect().await.unwrap();
    assert_eq!(spread(&snapshot, 2), [3, 3], "a bundle's connections in turn");
    assert_eq!(snapshot.counters.client_calls, 96);
    // All replies come to one socket: those of the other shard's connections are handed over.
    let strays: Vec<_> = snapshot.shards.iter().map(|of| of.strays).collect();
    assert!(strays.iter().filter(|count| **count > 0).count() == 1, "{strays:?}");
    assert_eq!(snapshot.counters.dropped_for(DropReason::UnknownClientConnection), 0);
    assert_eq!(snapshot.counters.dropped_for(DropReason::StrayOverflow), 0);
    client.shutdown(secs(1)).await;
    server.shutdown(secs(1)).await;
}

#[tokio::test]
async fn a_bulk_call_is_whole_whichever_socket_its_packets_come_to() {
    let (server, client) = (server(2).await, client(2).await);
    let mut connections = Vec::new();
    for _ in 0..4 {
        let connection = client.connect(server.local_addr(), 1).await.unwrap();
        let request = pattern(8_000_000);
        assert!(connection.call(request.clone()).await.unwrap() == request);
        connections.push(connection);
    }
    let snapshot = client.inspect().await.unwrap();
    assert_eq!(spread(&snapshot, 2), [2, 2]);
    assert!(snapshot.counters.strays > 5000, "two replies of 8 MB: {}", snapshot.counters.strays);
}

#[tokio::test]
async fn an_address_in_use_is_refused_and_nothing_is_left() {
    let taken = UdpSocket::bind(loopback()).unwrap();
    let addr = taken.local_addr().unwrap();
    for shards in [1, 2, 5] {
        let error = Endpoint::builder().bind(addr).shards(shards).start().await.unwrap_err();
        assert!(matches!(error, StartError::Bind { address, .. } if address == addr), "{error}");
    }
    drop(taken);
    // Another endpoint's shards are somebody else too, and it has ended when it says so.
    let first = Endpoint::builder().bind(addr).shards(2).start().await.unwrap();
    let error = Endpoint::builder().bind(addr).shards(2).start().await.unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
    first.shutdown(secs(1)).await;
    first.closed().await;
    let second = Endpoint::builder().bind(addr).shards(3).start().await.unwrap();
    assert_eq!(second.local_addr(), addr);
    assert_eq!(second.actors().len(), 3);
}

#[tokio::test]
async fn one_socket_cannot_be_divided_and_several_may_be_brought() {
    let start = async |builder: rxrpc::EndpointBuilder| {
        builder.start().await.map(drop).unwrap_err().to_string()
    };
    for count in [0, 65] {
        let error = start(Endpoint::builder().bind(loopback()).shards(count)).await;
        assert_eq!(error, format!("shards: expected 1 to 64, got {count}"));
    }
    let socket = UdpSocket::bind(loopback()).unwrap();
    let options = UdpOptions::inherited(socket);
    let error = start(Endpoint::builder().udp(options).shards(2)).await;
    assert!(error.contains("an inherited socket cannot be divided"), "{error}");

    let bound = UdpOptions::bind_to(loopback()).bind_shared(3).unwrap();
    let mut sources: Vec<_> = bound.into_iter().map(|bound| bound.into_source()).collect();
    let other = UdpOptions::bind_to(loopback()).bind().unwrap().into_source();
    let last = std::mem::replace(&mut sources[2], other);
    let error = start(Endpoint::builder().networks(sources)).await;
    assert!(error.contains("expected that of the first, 127.0.0.1:"), "{error}");
    drop(last);

    let bound = UdpOptions::bind_to(loopback()).bind_shared(3).unwrap();
    let sources = bound.into_iter().map(|bound| bound.into_source()).collect();
    let server = Endpoint::builder().networks(sources).service(1, echo).start().await.unwrap();
    let client = client(1).await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    assert_eq!(connection.call("brought").await.unwrap(), "brought");
}
