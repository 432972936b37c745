//! How shards end: in order, or because one of them broke. By itself, since it counts the threads of its process.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::join_all;
use rxrpc::actors::messages::{Break, BreakAt};
use rxrpc::net::{Incoming, Network, Transmit, UdpOptions, network_source};
use rxrpc::wire::ChannelIndex;
use rxrpc::{
    CallError, CallFailure, CloseReason, ConnectError, Endpoint, IncomingCall, StreamError,
};

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

/// Threads of this process that are of shards.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks
        .flatten()
        .filter_map(|task| name(task).ok())
        .filter(|name| name.starts_with("rxrpc-"))
        .count()
}

async fn until_threads_are(count: usize) {
    for _ in 0..500 {
        if threads() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(threads(), count);
}

/// A network that ends, by a panic or an error, as soon as anybody receives from it, or never has anything.
#[derive(Clone, Copy)]
enum Unfit {
    Panics,
    Fails,
    Silent,
}

impl Network for Unfit {
    fn local_addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], 7777).into()
    }

    fn max_segments(&self) -> usize {
        1
    }

    fn poll_receive(&mut self, _: &mut Context<'_>, _: &mut Vec<Incoming>) -> Poll<io::Result<()>> {
        match self {
            Unfit::Panics => panic!("a test broke this network"),
            Unfit::Fails => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Unfit::Silent => Poll::Pending,
        }
    }

    fn try_send(&mut self, _: &Transmit<'_>) -> io::Result<()> {
        Ok(())
    }

    fn poll_send_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The earliest that a shard can break: the others know it by then, and none of them stays.
async fn one_that_breaks_at_once_is_noticed() {
    for (unfit, reason) in [
        (Unfit::Panics, CloseReason::Broken),
        (Unfit::Fails, CloseReason::Network(io::ErrorKind::ConnectionReset)),
    ] {
        for round in 0..10 {
            let network = move |place| if place == round % 3 { unfit } else { Unfit::Silent };
            let sources = (0..32).map(|place| network_source(move || Ok(network(place))));
            let endpoint = Endpoint::builder().networks(sources.collect()).start().await.unwrap();
            let closed = tokio::time::timeout(secs(60), endpoint.closed()).await;
            assert_eq!(closed, Ok(reason), "round {round}");
            tokio::time::timeout(secs(60), endpoint.shutdown(secs(1))).await.unwrap();
        }
    }
}

/// A shard that breaks: who calls is told, the others end, and so do their threads and sockets.
#[tokio::test]
async fn one_that_breaks_takes_the_others_with_it() {
    let bind = async |addr, shards| {
        let builder = Endpoint::builder().bind(addr).shards(shards).service(1, echo);
        builder.start().await
    };
    let never = async |mut call: IncomingCall| {
        call.failed().await;
        Ok::<_, StreamError>(())
    };
    let server = Endpoint::builder().bind(loopback()).service(1, never).start().await.unwrap();
    let before = threads();
    for broken in [0, 2] {
        let endpoint = bind(loopback(), 3).await.unwrap();
        let addr = endpoint.local_addr();
        assert!(threads() >= 3);
        let open = async || endpoint.connect(server.local_addr(), 1).await.unwrap();
        let connections = [open().await, open().await, open().await];
        let calls = connections.iter().map(|connection| connection.call("ever"));
        let breaks = async {
            while endpoint.inspect().await.unwrap().counters.client_calls < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            endpoint.actors()[broken].do_send(Break { at: None });
        };
        let (errors, ()) = futures::future::join(join_all(calls), breaks).await;
        let errors: Vec<_> = errors.into_iter().map(Result::unwrap_err).collect();
        let ends = |error: &CallError| {
            matches!(error, CallError::Failed(CallFailure::Broken | CallFailure::Closed))
        };
        assert!(errors.iter().all(ends), "{errors:?}");
        assert_eq!(endpoint.closed().await, CloseReason::Broken);
        let error = endpoint.connect(server.local_addr(), 1).await.unwrap_err();
        assert_eq!(error, ConnectError::Closed);
        assert!(endpoint.inspect().await.is_none());
        let report = endpoint.shutdown(secs(1)).await;
        assert_eq!(report.counters.client_calls, 0, "nobody is left to tell");
        until_threads_are(before).await;
        let again = bind(addr, 2).await.unwrap();
        again.shutdown(Duration::ZERO).await;
        again.closed().await;
        until_threads_are(before).await;
    }
    // What breaks below a shard is that shard's business.
    let endpoint = bind(loopback(), 2).await.unwrap();
    let client = Endpoint::builder().bind(loopback()).start().await.unwrap();
    let connection = client.connect(endpoint.local_addr(), 1).await.unwrap();
    connection.call("a").await.unwrap();
    for shard in endpoint.actors() {
        shard.do_send(Break { at: Some(BreakAt::Channel(0, ChannelIndex::ALL[0])) });
    }
    while connection.call("b").await.is_err() {}
    assert!(endpoint.inspect().await.is_some());
    // Dropped, it ends at once, without anybody asking.
    let closed = endpoint.closed();
    drop(endpoint);
    assert_eq!(closed.await, CloseReason::Shutdown);
    until_threads_are(before).await;
    // One that cannot start leaves nothing behind, whichever it is.
    for bad in 0..3 {
        let bound = UdpOptions::bind_to(loopback()).bind_shared(3).unwrap();
        let mut sources: Vec<_> = bound.into_iter().map(|bound| bound.into_source()).collect();
        sources[bad] = Box::new(|| Err(std::io::ErrorKind::PermissionDenied.into()));
        let error = Endpoint::builder().networks(sources).start().await.map(drop).unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
        until_threads_are(before).await;
    }
    one_that_breaks_at_once_is_noticed().await;
    until_threads_are(before).await;
}
