//! What a user sees of the actors' edges: ends, faults and failures of services and networks, over a network
//! in memory and under a paused clock.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rxrpc::actors::messages::{Break, BreakAt};
use rxrpc::net::{Incoming, MemoryHub, Network, Transmit};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::wire::ChannelIndex;
use rxrpc::{
    AbortCode, CallError, CallFailure, CallOptions, CloseReason, ConnectError, ConnectOptions,
    Connection, Endpoint, IncomingCall, Request, ServiceFault, ServiceOptions, ShutdownReport,
    StreamError, unary,
};

#[path = "scenarios/support/fake_class.rs"]
#[allow(dead_code)]
mod fake_class;

use fake_class::FakeClass;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A hub, a server without services and a client, on one paused clock.
struct Pair {
    hub: MemoryHub,
    server: Endpoint,
    client: Endpoint,
}

async fn pair() -> Pair {
    pair_with(|_| {}).await
}

async fn pair_with(adjust: impl Fn(&mut EndpointConfig)) -> Pair {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let start = async |port| {
        let (_, source) = hub.bind_source(at(port)).unwrap();
        Endpoint::builder().network(source).configure(&adjust).start().await.unwrap()
    };
    Pair { server: start(7000).await, client: start(7001).await, hub }
}

impl Pair {
    async fn connect(&self, service: u16) -> Connection {
        self.client.connect(self.server.local_addr(), service).await.unwrap()
    }

    /// The server to itself.
    async fn connect_own(&self, service: u16) -> Connection {
        self.server.connect(self.server.local_addr(), service).await.unwrap()
    }
}

async fn echo(mut call: IncomingCall) -> Result<(), StreamError> {
    let bytes = call.read_all(64 << 20).await?;
    call.reply(bytes);
    Ok(())
}

fn aborted(code: i32) -> CallError {
    CallError::Failed(CallFailure::PeerAborted(AbortCode(code)))
}

/// The service drops the call by returning; its code comes after that in the code, but not on the wire.
#[actix_rt::test]
async fn a_service_that_returns_a_fault_aborts_with_its_code() {
    let pair = pair().await;
    pair.server.offer(1, async |mut call: IncomingCall| {
        call.read_all(100).await?;
        Err::<(), _>(ServiceFault(AbortCode(4711)))
    });
    assert_eq!(pair.connect(1).await.call("x").await, Err(aborted(4711)));
}

/// A service that panics before its first await: an async one, and one that is all by hand.
#[actix_rt::test]
async fn a_service_that_panics_at_once_breaks_its_call_and_nothing_else() {
    struct Broken;

    impl rxrpc::Service for Broken {
        fn serve(self: Arc<Self>, _: IncomingCall) {
            panic!("a test broke this service");
        }
    }

    #[allow(unreachable_code)]
    fn broken(_: IncomingCall) -> std::future::Ready<Result<(), ServiceFault>> {
        panic!("a test broke this service")
    }

    let pair = pair().await;
    pair.server.offer(1, broken);
    pair.server.offer(2, Broken);
    for service in [1, 2] {
        let connection = pair.connect(service).await;
        // More often than channels may be replaced.
        for _ in 0..20 {
            assert_eq!(connection.call("x").await, Err(aborted(-1)));
        }
    }
    let snapshot = pair.server.inspect().await.unwrap();
    assert!(snapshot.connections.iter().all(|connection| connection.channels.len() == 4));
    assert_eq!(snapshot.counters.server_calls, 40);
}

/// A `unary` service begins in its channel's turn. It may break, ask its own endpoint something first, or wait.
#[actix_rt::test]
async fn a_unary_service_may_break_or_call_its_own_endpoint_before_it_waits() {
    let pair = pair().await;
    let own = pair.connect_own(2).await;
    pair.server.offer(
        1,
        unary(move |request: Request| {
            let own = own.clone();
            async move {
                assert_ne!(&request.bytes[..], b"break", "a test broke this service");
                let asked = own.call(request.bytes.clone());
                if request.bytes.is_empty() {
                    drop(asked);
                    return Err(AbortCode(7));
                }
                // Its first poll asks, in the midst of a step of a channel of the endpoint that is asked.
                asked.await.map_err(|_| AbortCode(8))
            }
        }),
    );
    pair.server.offer(
        2,
        unary(async |request: Request| {
            tokio::task::yield_now().await;
            Ok(request.bytes.repeat(2).into())
        }),
    );
    pair.server.offer(3, unary(async |request: Request| Ok(request.bytes)).request_max_bytes(4));
    let connection = pair.connect(1).await;
    for _ in 0..20 {
        assert_eq!(connection.call("break").await, Err(aborted(-1)));
        assert_eq!(connection.call("").await, Err(aborted(7)));
        let both = futures::join!(connection.call("ab"), connection.call("break"));
        assert_eq!(both, (Ok("abab".into()), Err(aborted(-1))));
    }
    let small = pair.connect(3).await;
    assert_eq!(small.call("abcd").await, Ok("abcd".into()));
    assert_eq!(small.call("abcde").await, Err(aborted(AbortCode::PROTOCOL_ERROR.0)));
    let snapshot = pair.server.inspect().await.unwrap();
    assert!(snapshot.connections.iter().all(|connection| connection.channels.len() == 4));
    assert_eq!(
        snapshot.counters.connections_opened, 4,
        "both ends of its own, and two from outside"
    );
}

/// The turn of a call that is answered at once is given back all the same.
#[actix_rt::test]
async fn a_unary_service_of_one_call_at_once_answers_many() {
    let pair = pair().await;
    let options = ServiceOptions { running_calls_max: NonZeroUsize::new(1), ..Default::default() };
    let shout = unary(async |request: Request| Ok(request.bytes.to_ascii_uppercase().into()));
    pair.server.offer_with(1, shout, options);
    let connection = pair.connect(1).await;
    for _ in 0..10 {
        let calls = (0..16).map(|_| connection.call("x"));
        let replies = futures::future::join_all(calls).await;
        assert!(replies.iter().all(|reply| *reply == Ok("X".into())), "{replies:?}");
    }
}

/// Calls go straight to a channel, and their connection does not hear of them; it is not idle for all that.
#[actix_rt::test]
async fn a_connection_whose_call_takes_longer_than_it_may_be_idle_ends_after_it() {
    let pair = pair_with(|config| config.client.client_idle = secs(5)).await;
    pair.server.offer(
        1,
        unary(async |request: Request| {
            tokio::time::sleep(secs(u64::from(request.bytes[0]))).await;
            Ok(request.bytes)
        }),
    );
    let connection = pair.connect(1).await;
    let opened = async || pair.client.inspect().await.unwrap().counters.connections_opened;
    let alive = async || pair.client.inspect().await.unwrap().connections.len();
    for _ in 0..3 {
        assert!(connection.call(&[33][..]).await.is_ok());
        assert!(connection.call(&[0][..]).await.is_ok());
    }
    assert_eq!(opened().await, 1);
    tokio::time::sleep(secs(4)).await;
    assert_eq!(alive().await, 1);
    tokio::time::sleep(secs(7)).await;
    assert_eq!(alive().await, 0);
    assert!(connection.call(&[0][..]).await.is_ok());
    assert_eq!((opened().await, alive().await), (2, 1));
}

/// Users go on to send calls to the channel that broke; its connection has them.
#[actix_rt::test]
async fn a_connection_keeps_its_users_when_a_channel_of_theirs_breaks() {
    let pair = pair().await;
    pair.server.offer(1, echo);
    let connection = pair.connect(1).await;
    for count in 1..=4u8 {
        assert_eq!(connection.call("x").await, Ok("x".into()));
        let at = BreakAt::Channel(0, ChannelIndex::ALL[0]);
        pair.client.actor().do_send(Break { at: Some(at) });
        let sent_with_it = connection.call("y").await;
        assert!(matches!(sent_with_it, Ok(_) | Err(CallError::Failed(CallFailure::Broken))));
        let calls = (0..u32::from(count)).map(|_| connection.call("z"));
        assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    }
    assert_eq!(pair.client.inspect().await.unwrap().counters.connections_opened, 1);
}

/// Four users, each with a channel; one gives up, and the next has that channel at once. Nobody's call is lost or runs
/// twice.
#[actix_rt::test]
async fn calls_that_are_given_up_leave_their_channels_to_the_next() {
    let pair = pair().await;
    let ran = Arc::new(AtomicUsize::new(0));
    let runs = ran.clone();
    pair.server.offer(
        1,
        unary(move |request: Request| {
            let runs = runs.clone();
            async move {
                if &request.bytes[..] == b"never" {
                    std::future::pending::<()>().await;
                }
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(request.bytes)
            }
        }),
    );
    let options = ConnectOptions { connections_max: 1, ..Default::default() };
    let connection = pair.client.connect_with(pair.server.local_addr(), 1, options).await.unwrap();
    for round in 0..50u64 {
        let given_up = connection.call("never");
        let pause = tokio::time::sleep(Duration::from_millis(round % 4));
        let others = (0..7).map(|_| connection.call("x"));
        let (_, replies) = futures::join!(
            futures::future::select(Box::pin(given_up), Box::pin(pause)),
            futures::future::join_all(others),
        );
        assert!(replies.iter().all(Result::is_ok), "{round}: {replies:?}");
    }
    assert_eq!(ran.load(Ordering::Relaxed), 50 * 7);
    assert_eq!(pair.client.inspect().await.unwrap().counters.connections_opened, 1);
}

/// With an upgrade asked for, the second call waits in the connection until the first is over.
#[actix_rt::test]
async fn waiting_for_a_channel_uses_up_the_deadline() {
    let pair = pair().await;
    let _silent = pair.hub.bind(at(7009)).unwrap();
    let options = ConnectOptions { asks_upgrade: true, ..Default::default() };
    let connection = pair.client.connect_with(at(7009), 1, options).await.unwrap();
    let began = tokio::time::Instant::now();
    let results = futures::join!(
        connection.call_with("1", CallOptions::within(secs(2))),
        connection.call_with("2", CallOptions::within(secs(3))),
    );
    for result in [results.0, results.1] {
        assert!(matches!(result, Err(CallError::Failed(CallFailure::Deadline(_)))), "{result:?}");
    }
    assert_eq!(began.elapsed().as_secs(), 3);
}

/// The second call comes while the first ends: it is refused, and cuts nothing off.
#[actix_rt::test]
async fn a_client_that_shuts_down_takes_no_new_calls_and_lets_old_ones_end() {
    let pair = pair().await;
    pair.server.offer(1, async |call: IncomingCall| {
        tokio::time::sleep(secs(3)).await;
        call.reply("late");
        Ok::<_, ServiceFault>(())
    });
    let connection = pair.connect(1).await;
    let began = tokio::time::Instant::now();
    let (first, second, report) = futures::join!(
        connection.call("1"),
        async {
            tokio::time::sleep(secs(1)).await;
            connection.call("2").await
        },
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            pair.client.shutdown(secs(60)).await
        },
    );
    assert_eq!(first.unwrap(), "late");
    assert_eq!(second, Err(CallError::Failed(CallFailure::Closed)));
    assert_eq!((report.calls_cut, report.connections_closed), (0, 0));
    assert_eq!(began.elapsed().as_secs(), 3);
}

/// A connection whose channels broke too often lingers to answer copies, but not until the grace is over.
#[actix_rt::test]
async fn a_connection_that_lost_a_channel_for_good_does_not_hold_up_a_shutdown() {
    use rxrpc::actors::messages::{Break, BreakAt};
    let pair = pair().await;
    pair.server.offer(1, echo);
    let connection = pair.connect(1).await;
    connection.call("x").await.unwrap();
    for _ in 0..=rxrpc::actors::connection::CHANNEL_RESTARTS_MAX {
        let at = Some(BreakAt::Channel(0, rxrpc::wire::ChannelIndex::ALL[1]));
        pair.server.actor().do_send(Break { at });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pair.server.inspect().await.unwrap().connections[0].channels.len(), 3);
    let began = tokio::time::Instant::now();
    let report = pair.server.shutdown(secs(60)).await;
    assert_eq!((report.calls_cut, report.connections_closed), (0, 0));
    assert!(began.elapsed() < secs(1));
}

/// No grace is too long; and when the last call is over there is nothing to wait for.
#[actix_rt::test]
async fn a_shutdown_may_have_all_the_time_there_is() {
    let pair = pair().await;
    let report = pair.client.shutdown(Duration::MAX).await;
    assert_eq!(report.calls_cut, 0);
    assert_eq!(pair.client.closed().await, CloseReason::Shutdown);
}

/// A network that fails when it is told to.
struct Failing(rxrpc::net::MemoryNetwork, futures::channel::oneshot::Receiver<()>);

impl Network for Failing {
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.0.max_segments()
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        if self.1.poll_unpin(task).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.0.poll_receive(task, into)
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_send_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send_ready(task)
    }
}

#[actix_rt::test]
async fn a_network_that_fails_ends_everything_also_in_the_grace_of_a_shutdown() {
    tokio::time::pause();
    for shuts_down in [false, true] {
        let hub = MemoryHub::new();
        let _silent = hub.bind(at(7009)).unwrap();
        let (fail, failing) = futures::channel::oneshot::channel();
        let network = Failing(hub.bind(at(7001)).unwrap(), failing);
        let source = rxrpc::net::network_source(move || Ok(network));
        let client = Endpoint::builder().network(source).start().await.unwrap();
        let connection = client.connect(at(7009), 1).await.unwrap();
        let (call, cut, ()) = futures::join!(
            connection.call("x"),
            async {
                tokio::time::sleep(secs(1)).await;
                if shuts_down { client.shutdown(secs(1000)).await.calls_cut } else { 1 }
            },
            async {
                tokio::time::sleep(secs(2)).await;
                fail.send(()).unwrap();
            },
        );
        assert_eq!((call, cut), (Err(CallError::Failed(CallFailure::Closed)), 1));
        assert_eq!(client.closed().await, CloseReason::Network(io::ErrorKind::BrokenPipe));
        let refused = client.connect(at(7009), 1).await;
        assert_eq!(refused.unwrap_err(), ConnectError::Closed);
    }
}

/// An endpoint that was made and never ran is dropped with its System: nothing of it may need a runtime.
#[test]
fn a_system_may_end_before_an_endpoint_has_run() {
    let system = actix_rt::System::new();
    let endpoint = system.block_on(async {
        let (_, source) = MemoryHub::new().bind_source(at(7000)).unwrap();
        Endpoint::builder().network(source).start().await.unwrap()
    });
    let here = std::thread::current().id();
    let panics = Arc::new(AtomicUsize::new(0));
    let (count, before) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        let is_here = std::thread::current().id() == here;
        count.fetch_add(usize::from(is_here), Ordering::Relaxed);
        before(panic);
    }));
    drop(system);
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    let closed = futures::executor::block_on(endpoint.closed());
    assert_eq!(closed, CloseReason::Broken);
}

#[actix_rt::test]
async fn a_stream_ends_with_its_failure() {
    let pair = pair().await;
    pair.server.offer(1, async |call: IncomingCall| {
        let mut reply = call.into_reply();
        reply.write("some").await?;
        reply.flush_now()?;
        tokio::time::sleep(secs(1)).await;
        reply.abort(AbortCode(3));
        Ok::<_, ServiceFault>(())
    });
    let connection = pair.connect(1).await;
    let request = connection.open_call(CallOptions::default()).await.unwrap();
    let items: Vec<_> = request.finish().unwrap().collect().await;
    let failure = StreamError::Failed(CallFailure::PeerAborted(AbortCode(3)));
    assert_eq!(items, [Ok("some".into()), Err(failure)]);
}

/// The call waits for the verification; when that breaks, it is refused as a wrong answer would be.
#[actix_rt::test]
async fn a_verification_that_panics_is_a_refusal() {
    let class = FakeClass { breaks: true, ..FakeClass::default() };
    let pair = pair().await;
    let options = ServiceOptions {
        security_classes: vec![Arc::new(class.clone())],
        ..ServiceOptions::default()
    };
    pair.server.offer_with(1, echo, options);
    let options = ConnectOptions { security: Arc::new(class), ..ConnectOptions::default() };
    let connection = pair.client.connect_with(pair.server.local_addr(), 1, options).await.unwrap();
    let failure = CallFailure::PeerAbortedConnection(AbortCode(-1));
    assert_eq!(connection.call("x").await, Err(CallError::Failed(failure)));
}

/// The connection is there, but whoever asked for it has gone before it learnt that.
#[actix_rt::test]
async fn a_connection_that_nobody_waits_for_any_more_is_closed() {
    let pair = pair().await;
    let mut connecting = Box::pin(pair.connect(1));
    assert!(futures::poll!(&mut connecting).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(pair.client.inspect().await.unwrap().connections.len(), 1);
    drop(connecting);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(pair.client.inspect().await.unwrap().connections.len(), 0);
}

/// A client whose endpoint breaks under a call; `Broken` and not `Closed` would mean that the call's channel
/// was dropped with its thread.
#[actix_rt::test]
async fn an_endpoint_that_breaks_on_a_thread_of_its_own_ends_its_tree_first() {
    let hub = MemoryHub::new();
    let _silent = hub.bind(at(7009)).unwrap();
    for _ in 0..20 {
        let (_, source) = hub.bind_source(at(7001)).unwrap();
        let client = Endpoint::builder().network(source).own_thread(true).start().await.unwrap();
        let connection = client.connect(at(7009), 1).await.unwrap();
        let request = connection.open_call(CallOptions::default()).await.unwrap();
        client.actor().do_send(rxrpc::actors::messages::Break { at: None });
        let reply: Vec<_> = request.finish().unwrap().collect().await;
        assert_eq!(reply, [Err(StreamError::Failed(CallFailure::Closed))]);
        assert_eq!(client.closed().await, CloseReason::Broken);
        assert_eq!(client.shutdown(secs(1)).await, ShutdownReport::default());
        assert_eq!(connection.call("x").await, Err(CallError::Connect(ConnectError::Closed)));
    }
}

/// It has room for a whole window, which nobody will read.
#[actix_rt::test]
async fn a_writer_learns_of_a_failure_at_its_next_write() {
    let pair = pair().await;
    pair.server.offer(1, async |call: IncomingCall| {
        let mut reply = call.into_reply();
        reply.write("some").await?;
        reply.flush_now()?;
        tokio::time::sleep(secs(1)).await;
        assert_eq!(
            reply.write("more").await,
            Err(StreamError::Failed(CallFailure::PeerAborted(AbortCode::USER_ABORT)))
        );
        Err::<(), _>(ServiceFault(AbortCode(1)))
    });
    let connection = pair.connect(1).await;
    let mut reply = connection.open_call(CallOptions::default()).await.unwrap().finish().unwrap();
    assert_eq!(reply.next().await.unwrap().unwrap(), "some");
    drop(reply);
    tokio::time::sleep(secs(2)).await;
    let counters = pair.server.inspect().await.unwrap().counters;
    assert_eq!((counters.aborts_sent, counters.server_calls), (0, 1));
}

/// The System ends with calls under way: users elsewhere get an answer.
#[test]
fn a_system_that_ends_without_a_shutdown_leaves_nobody_waiting() {
    for _ in 0..20 {
        let hub = MemoryHub::new();
        let _silent = hub.bind(at(7009)).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = futures::channel::oneshot::channel();
        let (_, source) = hub.bind_source(at(7001)).unwrap();
        let system = std::thread::spawn(move || {
            let system = actix_rt::System::new();
            system.block_on(async {
                let endpoint = Endpoint::builder().network(source).start().await.unwrap();
                tell.send(endpoint).unwrap();
                ended.await.unwrap();
            });
        });
        let client = told.recv().unwrap();
        futures::executor::block_on(async {
            let connection = client.connect(at(7009), 1).await.unwrap();
            let mut stream = connection.open_call(CallOptions::default()).await.unwrap();
            let (whole, streamed, ()) =
                futures::join!(connection.call("x"), stream.failed(), async {
                    while client.inspect().await.unwrap().counters.client_calls == 0 {}
                    end.send(()).unwrap();
                });
            assert!(matches!(whole, Err(CallError::Failed(_))), "{whole:?}");
            assert!(matches!(streamed, CallFailure::Broken | CallFailure::Closed), "{streamed:?}");
            assert_eq!(client.closed().await, CloseReason::Broken);
            assert_eq!(connection.call("x").await, Err(CallError::Connect(ConnectError::Closed)));
            assert!(client.inspect().await.is_none());
            client.shutdown(secs(1)).await;
        });
        system.join().unwrap();
    }
}

/// No Tokio, no actix: every channel is taken, and the deadline of the next call passes all the same.
#[test]
fn deadlines_pass_also_where_there_is_no_runtime() {
    let hub = MemoryHub::new();
    let _silent = hub.bind(at(7009)).unwrap();
    let (_, source) = hub.bind_source(at(7001)).unwrap();
    futures::executor::block_on(async {
        let client = Endpoint::builder().network(source).start().await.unwrap();
        let options = ConnectOptions { connections_max: 1, ..ConnectOptions::default() };
        let connection = client.connect_with(at(7009), 1, options).await.unwrap();
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(connection.open_call(CallOptions::default()).await.unwrap());
        }
        let deadline = Duration::from_millis(30);
        let late = connection.call_with("x", CallOptions::within(deadline)).await;
        assert_eq!(late, Err(CallError::Failed(CallFailure::Deadline(deadline))));
        open.pop();
        let late = connection.call_with("x", CallOptions::within(deadline)).await;
        assert_eq!(late, Err(CallError::Failed(CallFailure::Deadline(deadline))));
        let waits = connection.call_with("x", CallOptions::within(secs(100)));
        open.push(connection.open_call(CallOptions::default()).await.unwrap());
        let (cut, report) = futures::join!(waits, client.shutdown(Duration::from_millis(20)));
        assert_eq!((cut.is_err(), report.calls_cut), (true, 0));
        client.closed().await;
    });
}
