//! Limits that the actors themselves keep: work of one turn, connections that we open, requests and replies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::join_all;
use rxrpc::actors::connection::CHANNEL_RESTARTS_MAX;
use rxrpc::actors::messages::{Break, BreakAt};
use rxrpc::net::{Incoming, MemoryHub, Network, Transmit};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::wire::ChannelIndex;
use rxrpc::{
    AbortCode, CallError, CallFailure, CallOptions, ConnectError, ConnectOptions, Endpoint,
    IncomingCall, StreamError,
};

use crate::support::{SERVER, address};

/// Has always something to read, up to a number of receives, and counts how often it was asked.
struct Busy {
    left: usize,
    /// Datagrams of a receive.
    each: usize,
    asked: Arc<AtomicUsize>,
}

impl Network for Busy {
    fn local_addr(&self) -> SocketAddr {
        SERVER.into()
    }

    fn max_segments(&self) -> usize {
        1
    }

    fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Pending;
        }
        self.left -= 1;
        self.asked.fetch_add(1, Ordering::Relaxed);
        into.push(Incoming::Datagrams {
            from: address(1),
            data: vec![b'?'; self.each].into(),
            stride: 1,
        });
        Poll::Ready(Ok(()))
    }

    fn try_send(&mut self, _: &Transmit<'_>) -> io::Result<()> {
        Ok(())
    }

    fn poll_send_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Until every other task of the thread that is ready has had its turn.
async fn next_turn() {
    let mut has_waited = false;
    std::future::poll_fn(|task| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[actix_rt::test]
async fn a_flood_lets_others_have_their_turn_after_so_many_receives() {
    for max in [1, 4, 16] {
        receives_of_turns(1, max, |config| config.receives_per_turn = max as u32).await;
    }
}

#[actix_rt::test]
async fn a_flood_lets_others_have_their_turn_after_so_many_datagrams() {
    // Of 100 datagrams each: at the limit, and one beyond what two receives bring.
    for (datagrams, receives) in [(1, 1), (100, 1), (101, 2), (200, 2), (201, 3), (1_000_000, 4)] {
        let limit = |config: &mut EndpointConfig| config.datagrams_per_turn = datagrams;
        receives_of_turns(100, receives, limit).await;
    }
}

/// Floods an endpoint: no turn has more than `most` receives, and one has that many.
async fn receives_of_turns(each: usize, most: usize, limit: impl FnOnce(&mut EndpointConfig)) {
    const RECEIVES: usize = 1600;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let busy = move || Ok(Busy { left: RECEIVES, each, asked: count });
    let source = rxrpc::net::network_source(busy);
    let endpoint = Endpoint::builder().network(source).configure(limit).start().await.unwrap();
    // Another task of the thread, always ready.
    let other = actix_rt::spawn(async move {
        let mut turns = Vec::new();
        while turns.iter().sum::<usize>() < RECEIVES {
            next_turn().await;
            turns.push(asked.swap(0, Ordering::Relaxed));
        }
        turns.retain(|turn| *turn > 0);
        turns
    });
    let turns = other.await.unwrap();
    // An actor that starts has two turns in one.
    assert!(turns[0] <= 2 * most, "{turns:?}");
    assert_eq!(turns[1..].iter().copied().max(), Some(most));
    let counters = endpoint.inspect().await.unwrap().counters;
    let dropped = counters.dropped_for(rxrpc::proto::DropReason::TooShort);
    assert_eq!(dropped, (RECEIVES * each) as u64);
    endpoint.shutdown(Duration::ZERO).await;
}

#[actix_rt::test]
async fn connections_are_opened_up_to_the_limit_and_one_beyond_is_an_error() {
    let hub = MemoryHub::new();
    let (_, source) = hub.bind_source(address(7001)).unwrap();
    let client = Endpoint::builder()
        .network(source)
        .configure(|config| {
            config.connections_max = 2;
            config.unproved_connections_max = 2;
        })
        .start()
        .await
        .unwrap();
    let first = client.connect(SERVER.into(), 1).await.unwrap();
    let _second = client.connect(SERVER.into(), 1).await.unwrap();
    let error = client.connect(SERVER.into(), 1).await.unwrap_err();
    assert_eq!(error, ConnectError::TooMany(2));
    drop(first);
    // Its place is free as soon as it is gone.
    while client.inspect().await.unwrap().connections.len() == 2 {
        tokio::task::yield_now().await;
    }
    client.connect(SERVER.into(), 1).await.unwrap();
}

#[actix_rt::test]
async fn requests_and_replies_are_taken_up_to_the_limit_and_one_byte_beyond_is_not() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let (_, source) = hub.bind_source(SERVER.into()).unwrap();
    let unary = rxrpc::unary(async |request: rxrpc::Request| Ok(request.bytes));
    let echo = async |mut call: IncomingCall| {
        let request = call.read_all(1 << 20).await?;
        call.reply(request);
        Ok::<_, StreamError>(())
    };
    let server = Endpoint::builder()
        .network(source)
        .service(1, unary.request_max_bytes(5000))
        .service(2, echo)
        .start()
        .await
        .unwrap();
    let (_, source) = hub.bind_source(address(7001)).unwrap();
    let client = Endpoint::builder().network(source).start().await.unwrap();
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    assert_eq!(connection.call(vec![1; 5000]).await.unwrap().len(), 5000);
    let error = connection.call(vec![1; 5001]).await.unwrap_err();
    let code = AbortCode::PROTOCOL_ERROR;
    assert_eq!(error, CallError::Failed(CallFailure::PeerAborted(code)));
    let connection = client.connect(server.local_addr(), 2).await.unwrap();
    let options = CallOptions { reply_max_bytes: 5000, ..CallOptions::default() };
    let call = |len| connection.call_with(vec![1; len], options);
    assert_eq!(call(5000).await.unwrap().len(), 5000);
    assert_eq!(call(5001).await.unwrap_err(), CallError::ReplyTooLarge(5000));
    assert_eq!(call(5000).await.unwrap().len(), 5000);
}

/// `connections_max` of a bundle: four calls at once for each of its connections, and one beyond waits.
#[actix_rt::test]
async fn a_bundle_has_so_many_connections_and_one_call_beyond_them_waits() {
    tokio::time::pause();
    for (max, connections) in [(0, 1), (1, 1), (3, 3), (64, 64), (65, 64)] {
        let hub = MemoryHub::new();
        let (at, source) = hub.bind_source(SERVER.into()).unwrap();
        let running = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let count = running.clone();
        let service = move |call: IncomingCall| {
            let running = count.clone();
            async move {
                let now = running[0].fetch_add(1, Ordering::Relaxed) + 1;
                running[1].fetch_max(now, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                running[0].fetch_sub(1, Ordering::Relaxed);
                call.reply("done");
                Ok::<_, StreamError>(())
            }
        };
        let server = Endpoint::builder().network(source).service(1, service).start().await.unwrap();
        let (_, source) = hub.bind_source(address(7001)).unwrap();
        let client = Endpoint::builder().network(source).start().await.unwrap();
        let options = ConnectOptions { connections_max: max, ..ConnectOptions::default() };
        let connection = client.connect_with(at, 1, options).await.unwrap();
        for (calls, seconds) in [(4 * connections, 1), (4 * connections + 1, 2)] {
            let began = tokio::time::Instant::now();
            let replies = join_all((0..calls).map(|_| connection.call("x"))).await;
            assert!(replies.iter().all(Result::is_ok), "{max}");
            assert_eq!(began.elapsed().as_secs(), seconds, "{calls} calls, {max} connections");
        }
        assert_eq!(running[1].load(Ordering::Relaxed), 4 * connections);
        let opened = server.inspect().await.unwrap().counters.connections_opened;
        assert_eq!(opened, connections as u64, "{max}");
    }
}

/// `CHANNEL_RESTARTS_MAX`: so many channels of a connection are replaced, one more ends it.
#[actix_rt::test]
async fn channels_that_break_are_replaced_up_to_the_limit_and_one_beyond_ends_their_connection() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let (at, source) = hub.bind_source(SERVER.into()).unwrap();
    let echo = async |mut call: IncomingCall| {
        let request = call.read_all(100).await?;
        call.reply(request);
        Ok::<_, StreamError>(())
    };
    let server = Endpoint::builder().network(source).service(1, echo).start().await.unwrap();
    let (_, source) = hub.bind_source(address(7001)).unwrap();
    let client = Endpoint::builder().network(source).start().await.unwrap();
    let connection = client.connect(at, 1).await.unwrap();
    let break_one = async || {
        let at = Some(BreakAt::Channel(0, ChannelIndex::ALL[1]));
        server.actor().do_send(Break { at });
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let four = async || join_all((0..4).map(|_| connection.call("x"))).await;
    let state = async || {
        let snapshot = server.inspect().await.unwrap();
        (snapshot.connections[0].channels.len(), snapshot.counters.connections_opened)
    };
    four().await;
    for _ in 0..CHANNEL_RESTARTS_MAX {
        break_one().await;
    }
    assert!(four().await.iter().all(Result::is_ok));
    assert_eq!(state().await, (4, 1));
    break_one().await;
    assert_eq!(state().await, (3, 1), "the last is not replaced");
    four().await;
    // Another connection, all four channels.
    assert!(four().await.iter().all(Result::is_ok));
    assert_eq!(state().await.1, 2);
}
