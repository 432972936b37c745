//! The same through the actors: a place is given back wherever a call ends up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use rxrpc::net::MemoryHub;
use rxrpc::{
    AbortCode, CallError, CallFailure, Endpoint, IncomingCall, ServiceFault, ServiceOptions,
};

use crate::support::{SERVER, address};

/// How many calls run, and the most that ever did.
#[derive(Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Seen {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn pair(waiting: usize, running: usize, seen: Arc<Seen>) -> (Endpoint, Endpoint) {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let (_, source) = hub.bind_source(SERVER.into()).unwrap();
    // `d`rops its call, `p`anics, `f`ails; all else is echoed after a second.
    let service = move |mut call: IncomingCall| {
        let seen = seen.clone();
        async move {
            seen.enter();
            let request = call.read_all(1 << 20).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            seen.leave();
            match request[0] {
                b'd' => drop(call),
                b'p' => panic!("a test breaks this call"),
                b'f' => return Err(ServiceFault(AbortCode(7))),
                _ => call.reply(request),
            }
            Ok(())
        }
    };
    let options = ServiceOptions {
        running_calls_max: std::num::NonZeroUsize::new(running),
        ..ServiceOptions::default()
    };
    let server = Endpoint::builder()
        .network(source)
        .configure(|config| config.queued_calls_max = Some(waiting))
        .service_with(1, service, options)
        .start()
        .await
        .unwrap();
    let (_, source) = hub.bind_source(address(7001)).unwrap();
    let client = Endpoint::builder().network(source).start().await.unwrap();
    (client, server)
}

#[actix_rt::test]
async fn two_run_one_waits_and_one_beyond_is_told() {
    let seen = Arc::new(Seen::default());
    let (client, server) = pair(1, 2, seen.clone()).await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let replies = join_all((0..3).map(|_| connection.call("x"))).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    let replies = join_all((0..4).map(|_| connection.call("x"))).await;
    let failed: Vec<_> = replies.into_iter().filter_map(Result::err).collect();
    let code = AbortCode::CALL_DEAD;
    assert_eq!(failed, [CallError::Failed(CallFailure::PeerAborted(code))]);
    assert_eq!(seen.most.load(Ordering::Relaxed), 2);
    let counters = server.inspect().await.unwrap().counters;
    assert_eq!(counters.dropped_for(rxrpc::proto::DropReason::Overload), 1);
    assert_eq!(connection.call("y").await.unwrap(), Bytes::from("y"));
}

#[actix_rt::test]
async fn however_a_call_ends_its_place_is_free_again() {
    let seen = Arc::new(Seen::default());
    let (client, server) = pair(100, 2, seen.clone()).await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    for kinds in ["dx", "fx", "px", "pd", "ff", "dddddddd"] {
        let calls = kinds.bytes().map(|kind| connection.call(vec![kind]));
        let replies = join_all(calls).await;
        for (kind, reply) in kinds.bytes().zip(replies) {
            assert_eq!(reply.is_ok(), kind == b'x', "{kinds}: {reply:?}");
        }
    }
    // Callers that go away, of calls that run and of calls that wait.
    for _ in 0..5 {
        let mut calls = join_all((0..8).map(|_| connection.call("x").boxed_local()));
        let _ = futures::poll!(&mut calls);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = futures::poll!(&mut calls);
        drop(calls);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(connection.call("y").await.unwrap(), Bytes::from("y"));
    assert_eq!(seen.most.load(Ordering::Relaxed), 2);
    server.shutdown(Duration::from_secs(1)).await;
}
