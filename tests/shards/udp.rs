//! Over UDP on loopback: the kernel decides which socket a datagram comes to.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use rxrpc::net::UdpOptions;
use rxrpc::proto::DropReason;
use rxrpc::proto::event::{Event, Origin, Subscriber};
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
    // Of two replies of 8 MB each datagram, if all of them are as large as may be.
    let strays = snapshot.counters.strays;
    assert!(strays >= 2 * 8_000_000 / 8124, "{strays}");
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

#[tokio::test]
async fn events_are_told_by_the_shard_they_happen_on() {
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<(usize, String)>>>);
    struct Of(usize, Seen);
    impl Subscriber for Of {
        fn on_event(&mut self, _: Origin, event: &Event) {
            if matches!(event, Event::ConnectionOpened(_)) {
                let thread = std::thread::current().name().unwrap_or_default().to_owned();
                self.1.0.lock().unwrap().push((self.0, thread));
            }
        }
    }
    let seen = Seen::default();
    let builder = || Endpoint::builder().bind(loopback()).shards(2);
    let error = builder().subscribe(Of(0, seen.clone())).start().await.map(drop).unwrap_err();
    assert!(error.to_string().contains("subscribe_each"), "{error}");
    let each = seen.clone();
    let builder = builder().subscribe_each(move |shard| Of(shard, each.clone()));
    let endpoint = builder.start().await.unwrap();
    for _ in 0..4 {
        endpoint.connect(endpoint.local_addr(), 1).await.unwrap();
    }
    endpoint.shutdown(Duration::ZERO).await;
    let mut seen = seen.0.lock().unwrap().clone();
    seen.sort();
    let on = |shard| (shard, format!("rxrpc-{shard}"));
    assert_eq!(seen, [on(0), on(0), on(1), on(1)]);
}

/// Each connection's handshake and seals stay on its shard, and connections are on all of them.
#[cfg(feature = "rxkad")]
#[tokio::test]
async fn sealed_calls_are_spread_over_the_shards_of_both_ends() {
    use std::time::SystemTime;

    use rxrpc::ServiceOptions;
    use rxrpc::security::rxkad::keys::{KeyArgument, ServerKeys, TicketForm};
    use rxrpc::security::rxkad::ticket::Print;
    use rxrpc::security::rxkad::{Level, Principal, SessionKey};
    use rxrpc::security::{rxkad_client, rxkad_server};

    let key = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let key: KeyArgument = key.parse().unwrap();
    let [name, instance, cell] = ["alice", "", "EXAMPLE.ORG"].map(str::to_owned);
    let session = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    let alice = Principal { name, instance, cell };
    let print = Print::from_now(&alice, &session, SystemTime::now(), secs(3600));
    let token = key.print_token(TicketForm::Krb5, &print, &[5; 32]).unwrap();

    let security_classes = vec![rxkad_server(ServerKeys::from(key), Level::Crypt)];
    let options = ServiceOptions { security_classes, ..ServiceOptions::default() };
    let server = Endpoint::builder().bind(loopback()).shards(2).service_with(4, echo, options);
    let server = server.start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(client(2).await);
    }
    let security = rxkad_client(token, Level::Crypt);
    let options = ConnectOptions { security, connections_max: 2, ..ConnectOptions::default() };
    let connections = join_all(clients.iter().map(async |client| {
        let options = options.clone();
        let connection = client.connect_with(server.local_addr(), 4, options).await.unwrap();
        let request = pattern(100_000);
        let calls = join_all((0..8).map(|_| connection.call(request.clone()))).await;
        assert!(calls.into_iter().all(|reply| reply.unwrap() == request));
        assert_eq!(spread(&client.inspect().await.unwrap(), 2), [1, 1]);
        connection
    }))
    .await;
    let snapshot = server.inspect().await.unwrap();
    assert_eq!((snapshot.connections.len(), snapshot.counters.server_calls), (24, 96));
    assert!(spread(&snapshot, 2).iter().all(|count| *count > 0), "{:?}", spread(&snapshot, 2));
    assert!(snapshot.connections.iter().all(|connection| connection.is_secured));
    drop(connections);
}
