//! In memory and in virtual time: the test decides which shard a datagram comes to, all shards are on one arbiter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use rxrpc::net::{Incoming, MemoryHub, NetworkSource};
use rxrpc::proto::DropReason;
use rxrpc::{
    CallFailure, ConnectOptions, Connection, Endpoint, EndpointBuilder, NetworkProblem,
    ServiceOptions,
};
use tokio::time::{Instant, sleep};

use super::split::Split;
use super::*;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// An endpoint whose datagrams all come to the shard that `choose` names.
fn divided(
    hub: &MemoryHub,
    port: u16,
    count: usize,
    choose: impl FnMut(&Incoming) -> usize + Send + 'static,
) -> EndpointBuilder {
    let (_, sources) = Split::new(hub, at(port), count, choose);
    builder(sources)
}

fn builder(sources: Vec<NetworkSource>) -> EndpointBuilder {
    Endpoint::builder().networks(sources).own_thread(false)
}

async fn whole(hub: &MemoryHub, port: u16) -> Endpoint {
    let (_, source) = hub.bind_source(at(port)).unwrap();
    let builder = Endpoint::builder().network(source).own_thread(false).service(1, echo);
    builder.start().await.unwrap()
}

/// One connection on each of `count` shards.
async fn one_each(client: &Endpoint, count: usize, port: u16) -> Vec<Connection> {
    let connections = (0..count).map(|_| client.connect(at(port), 1));
    join_all(connections).await.into_iter().map(Result::unwrap).collect()
}

async fn call(connection: &Connection, len: usize) {
    let request = pattern(len);
    assert!(connection.call(request.clone()).await.unwrap() == request, "{len} bytes");
}

/// Whichever shard a packet comes to, its connection gets it: all to one, and each to another.
#[actix_rt::test]
async fn replies_find_their_connection_from_every_shard() {
    tokio::time::pause();
    for count in [2, 3, 7, 64] {
        for arrival in [Some(0), Some(count - 1), None] {
            let hub = MemoryHub::new();
            let _server = whole(&hub, 7009).await;
            let mut next = 0;
            let choose = move |_: &Incoming| {
                next += 1;
                arrival.unwrap_or(next)
            };
            let client = divided(&hub, 7001, count, choose).start().await.unwrap();
            let connections = one_each(&client, count, 7009).await;
            join_all(connections.iter().map(async |connection| {
                for len in [0, 1412, 100_000] {
                    call(connection, len).await;
                }
            }))
            .await;
            let snapshot = client.inspect().await.unwrap();
            assert_eq!(spread(&snapshot, count), vec![1; count]);
            assert!(snapshot.shards.iter().all(|shard| shard.client_calls == 3));
            assert_eq!(snapshot.counters.dropped_for(DropReason::UnknownClientConnection), 0);
            assert_eq!(snapshot.counters.dropped_for(DropReason::StrayOverflow), 0);
            let by_type = snapshot.counters.received_by_type.iter().sum::<u64>();
            assert_eq!(by_type, snapshot.counters.datagrams_received, "each is counted once");
            let mut from: Vec<_> = snapshot.shards.iter().map(|shard| shard.strays > 0).collect();
            if let Some(arrival) = arrival {
                assert!(from.remove(arrival), "{count} shards, {arrival}");
                assert!(!from.contains(&true), "{count} shards, {arrival}");
            }
        }
    }
}

/// As a Linux kernel would, an address that nobody listens at is told to one socket, not to the one that sent.
#[actix_rt::test]
async fn what_the_network_says_of_an_address_reaches_every_shard() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let client = divided(&hub, 7001, 3, |_| 1).start().await.unwrap();
    let began = Instant::now();
    for connection in one_each(&client, 3, 7009).await {
        let error = connection.call("anybody?").await.unwrap_err();
        let unreachable = CallFailure::Network(NetworkProblem::PortUnreachable);
        assert_eq!(error, unreachable.into());
    }
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
}

/// More than may be on its way is lost, counted, and sent again.
#[actix_rt::test]
async fn a_stray_too_many_is_lost_counted_and_mended() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let _server = whole(&hub, 7009).await;
    let client = divided(&hub, 7001, 2, |_| 0).configure(|config| config.strays_max_bytes = 0);
    let client = client.start().await.unwrap();
    let connections = one_each(&client, 2, 7009).await;
    join_all(connections.iter().map(|connection| call(connection, 8_000_000))).await;
    let snapshot = client.inspect().await.unwrap();
    let lost = snapshot.shards[0].dropped_for(DropReason::StrayOverflow);
    assert!(lost > 0, "128 KiB at once hold all of 8 MB");
    assert!(snapshot.shards[0].strays > 5000);
    // What was taken was given back: it goes on.
    call(&connections[0], 100_000).await;
    call(&connections[1], 100_000).await;
}

/// With addresses that do not count, a client that comes from another one finds its connection, wherever it
/// arrives. With addresses that do, nothing is ever handed over for a server.
#[actix_rt::test]
async fn a_client_with_two_addresses_has_one_connection() {
    tokio::time::pause();
    for strict in [false, true] {
        let hub = MemoryHub::new();
        let by_port = |incoming: &Incoming| match incoming {
            Incoming::Datagrams { from, .. } => usize::from(from.port()),
            Incoming::PathError { .. } => 0,
        };
        let server = divided(&hub, 7009, 3, by_port).service(1, echo);
        let server = server.configure(|config| config.strict_address = strict);
        let server = server.start().await.unwrap();
        let mut clients = Vec::new();
        for port in [7001, 7003, 7005, 7007] {
            let home = hub.bind(at(port)).unwrap();
            let other = hub.bind(at(port + 1)).unwrap();
            let source = super::split::homes(home, other, !strict);
            let client = Endpoint::builder().network(source).own_thread(false);
            clients.push(client.start().await.unwrap());
        }
        let connections = join_all(clients.iter().map(async |client| {
            let connection = client.connect(at(7009), 1).await.unwrap();
            for _ in 0..6 {
                call(&connection, 20_000).await;
            }
            connection
        }))
        .await;
        let snapshot = server.inspect().await.unwrap();
        assert_eq!(snapshot.connections.len(), 4, "strict {strict}: {:?}", spread(&snapshot, 3));
        assert_eq!(snapshot.counters.server_calls, 24, "strict {strict}: no call ran twice");
        assert_eq!(snapshot.counters.strays > 0, !strict);
        let ports: Vec<_> = snapshot.connections.iter().map(|of| of.peer.port() % 2).collect();
        assert_eq!(ports, [1; 4], "the address that a connection began with stays its peer");
        drop(connections);
    }
}

/// Both are client and server of each other on the one port.
#[actix_rt::test]
async fn callbacks_between_divided_endpoints() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let turns = || {
        let next = Arc::new(AtomicUsize::new(0));
        move |incoming: &Incoming| match incoming {
            // As clients: anywhere. As servers: by the client's address, which is always the same.
            Incoming::Datagrams { data, .. } if data[21] & 1 == 0 => {
                next.fetch_add(1, Ordering::Relaxed)
            }
            _ => 1,
        }
    };
    let here = divided(&hub, 7001, 2, turns()).service(1, echo).start().await.unwrap();
    let there = divided(&hub, 7009, 3, turns()).service(1, echo).start().await.unwrap();
    let forth = one_each(&here, 4, 7009).await;
    let back = one_each(&there, 4, 7001).await;
    join_all(forth.iter().chain(&back).map(async |connection| {
        for len in [1, 50_000, 300_000] {
            call(connection, len).await;
        }
    }))
    .await;
    for (endpoint, count) in [(here, 2), (there, 3)] {
        let snapshot = endpoint.inspect().await.unwrap();
        assert_eq!(snapshot.connections.len(), 8, "{:?}", spread(&snapshot, count));
        assert_eq!((snapshot.counters.client_calls, snapshot.counters.server_calls), (12, 12));
        assert_eq!(snapshot.counters.calls_failed, 0);
    }
}

/// The shard that the replies come to has nothing of its own left, and stays until the others are done.
#[actix_rt::test]
async fn a_shard_that_is_done_hands_over_until_all_are() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let late = async |mut call: IncomingCall| {
        let bytes = call.read_all(1 << 20).await?;
        sleep(secs(5)).await;
        call.reply(bytes);
        Ok::<_, StreamError>(())
    };
    let (_, source) = hub.bind_source(at(7009)).unwrap();
    let server = Endpoint::builder().network(source).own_thread(false).service(1, late);
    let _server = server.start().await.unwrap();
    let client = divided(&hub, 7001, 3, |_| 0).start().await.unwrap();
    let mut connections = one_each(&client, 3, 7009).await;
    drop(connections.remove(0));
    let calls = connections.iter().map(|connection| connection.call("late"));
    let shutdown = async {
        sleep(secs(1)).await;
        client.shutdown(secs(10)).await
    };
    let began = Instant::now();
    let (replies, report) = futures::future::join(join_all(calls), shutdown).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap() == "late"));
    assert_eq!((report.calls_cut, report.counters.calls_good), (0, 2));
    assert!(began.elapsed() < secs(6), "{:?}", began.elapsed());
    assert_eq!(client.closed().await, rxrpc::CloseReason::Shutdown);
    assert!(client.inspect().await.is_none());
}

#[actix_rt::test]
async fn a_grace_that_is_over_cuts_off_the_calls_of_all_shards() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let never = async |mut call: IncomingCall| {
        call.failed().await;
        Ok::<_, StreamError>(())
    };
    let by_port = |incoming: &Incoming| match incoming {
        Incoming::Datagrams { from, .. } => usize::from(from.port()),
        Incoming::PathError { .. } => 0,
    };
    let server = divided(&hub, 7009, 2, by_port).service(1, never).start().await.unwrap();
    let mut clients = Vec::new();
    for port in 7001..7005 {
        clients.push(whole(&hub, port).await);
    }
    let calls = clients.iter().map(async |client| {
        client.connect(at(7009), 1).await.unwrap().call("ever").await.unwrap_err()
    });
    let shutdown = async {
        sleep(secs(1)).await;
        assert_eq!(spread(&server.inspect().await.unwrap(), 2), [2, 2]);
        server.shutdown(secs(3)).await
    };
    let began = Instant::now();
    let (errors, report) = futures::future::join(join_all(calls), shutdown).await;
    assert!(errors.iter().all(|error| error.abort_code().is_some()), "{errors:?}");
    assert_eq!((report.calls_cut, report.connections_closed), (4, 4));
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
}

/// Half an endpoint would take calls and answer none.
#[actix_rt::test]
async fn a_shard_whose_network_fails_ends_the_others() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let _server = whole(&hub, 7009).await;
    let (split, sources) = Split::new(&hub, at(7001), 3, |_| 0);
    let client = builder(sources).start().await.unwrap();
    let connections = one_each(&client, 3, 7009).await;
    join_all(connections.iter().map(|connection| call(connection, 1000))).await;
    split.fail(1, std::io::ErrorKind::BrokenPipe);
    let reason = client.closed().await;
    assert_eq!(reason, rxrpc::CloseReason::Network(std::io::ErrorKind::BrokenPipe));
    for connection in connections {
        assert!(connection.call("anybody?").await.is_err());
    }
    assert!(client.connect(at(7009), 1).await.is_err());
    assert!(client.inspect().await.is_none());
    assert!(hub.bind(at(7001)).is_err(), "the test still holds the network");
    drop(split);
    hub.bind(at(7001)).unwrap();
}

/// A client's limit of connections holds for all shards together, and one that is full sends on to the next.
#[actix_rt::test]
async fn a_shard_that_is_full_sends_on_to_the_next() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let _server = whole(&hub, 7009).await;
    let client = divided(&hub, 7001, 3, |_| 0).configure(|config| {
        config.connections_max = 6;
        config.unproved_connections_max = 6;
    });
    let client = client.start().await.unwrap();
    let mut connections = one_each(&client, 6, 7009).await;
    assert_eq!(spread(&client.inspect().await.unwrap(), 3), [2, 2, 2]);
    let error = client.connect(at(7009), 1).await.unwrap_err();
    assert_eq!(error, rxrpc::ConnectError::TooMany(6));
    // One place is free, on a shard whose turn it is not.
    drop(connections.remove(0));
    sleep(secs(20)).await;
    assert_eq!(spread(&client.inspect().await.unwrap(), 3), [1, 2, 2]);
    connections.push(client.connect(at(7009), 1).await.unwrap());
    assert_eq!(spread(&client.inspect().await.unwrap(), 3), [2, 2, 2]);
    join_all(connections.iter().map(|connection| call(connection, 1000))).await;
    // Those of one bundle and of a call of its own are spread too.
    drop(connections);
    sleep(secs(20)).await;
    let options = ConnectOptions { connections_max: 2, ..ConnectOptions::default() };
    let connection = client.connect_with(at(7009), 1, options).await.unwrap();
    join_all((0..8).map(|_| call(&connection, 1000))).await;
    let spread = spread(&client.inspect().await.unwrap(), 3);
    assert!(spread.iter().all(|count| *count < 2), "{spread:?}");
}

/// However many shards there are, a service runs so many calls at once, and whoever waits gets a turn.
#[actix_rt::test]
async fn calls_at_once_are_counted_over_all_shards() {
    tokio::time::pause();
    for (max, calls) in [(1, 24), (2, 24), (5, 60)] {
        let hub = MemoryHub::new();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let most_seen = most.clone();
        let service = move |mut call: IncomingCall| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(1 + running.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                let bytes = call.read_all(1 << 20).await?;
                sleep(secs(1)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                if bytes == "fail" {
                    return Err(StreamError::TooLarge(4));
                }
                call.reply(bytes);
                Ok::<_, StreamError>(())
            }
        };
        let by_port = |incoming: &Incoming| match incoming {
            Incoming::Datagrams { from, .. } => usize::from(from.port()),
            Incoming::PathError { .. } => 0,
        };
        let running_calls_max = std::num::NonZeroUsize::new(max);
        let options = ServiceOptions { running_calls_max, ..ServiceOptions::default() };
        let server =
            divided(&hub, 7009, 3, by_port).service_with(1, service.clone(), options.clone());
        let server = server.start().await.unwrap();
        let mut clients = Vec::new();
        for port in 7001..7007 {
            clients.push(whole(&hub, port).await);
        }
        let connections =
            join_all(clients.iter().map(async |client| client.connect(at(7009), 1).await.unwrap()))
                .await;
        let began = Instant::now();
        let round = async || {
            let calls = (0..calls).map(|index| connections[index % 6].call("x"));
            let replies = join_all(calls).await;
            assert!(replies.iter().all(Result::is_ok), "{replies:?}");
        };
        round().await;
        let took = began.elapsed().as_millis() as usize;
        assert_eq!(most_seen.load(Ordering::Relaxed), max);
        // None of the places was idle for long.
        assert!(took < 1000 * calls.div_ceil(max) + 500, "{max} at once: {took} ms");
        // Offered anew, those that run still count; and calls that fail give their places back.
        server.offer_with(1, service, options);
        let failed = join_all(connections.iter().map(|connection| connection.call("fail"))).await;
        assert!(failed.iter().all(Result::is_err));
        round().await;
        assert_eq!(most_seen.load(Ordering::Relaxed), max);
    }
}
