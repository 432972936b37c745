//! Faults in the tree: of services, actors, networks and whoever runs them, and who sees what within what time.
//! The table of them all is docs/faults.md.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rxrpc::actors::messages::{Break, BreakAt};
use rxrpc::net::{
    Incoming, MemoryHub, MemoryNetwork, Network, PathError, Transmit, network_source,
};
use rxrpc::proto::DropReason;
use rxrpc::proto::event::{Event, Origin, Subscriber};
use rxrpc::security::{
    ClientClass, ClientStart, ConnectionIds, Entropy, ServerClass, ServerHandshake,
};
use rxrpc::wire::{ChannelIndex, SecurityIndex};
use rxrpc::{
    AbortCode, CallError, CallFailure, CallOptions, CloseReason, ConnectError, ConnectOptions,
    Connection, Endpoint, IncomingCall, NetworkProblem, ServiceFault, ServiceOptions, StreamError,
};
use tokio::time::{Instant, sleep};

const DEAD_TIMEOUT: Duration = secs(20);
/// Without an answer a packet is sent again after this, the first time.
const RTO: Duration = secs(1);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

async fn echo(mut call: IncomingCall) -> Result<(), StreamError> {
    let bytes = call.read_all(64 << 20).await?;
    call.reply(bytes);
    Ok(())
}

/// Echoes after so many seconds as the request's first byte says.
async fn late(mut call: IncomingCall) -> Result<(), StreamError> {
    let bytes = call.read_all(1 << 20).await?;
    sleep(secs(u64::from(bytes.first().copied().unwrap_or(0)))).await;
    call.reply(bytes);
    Ok(())
}

async fn endpoint(hub: &MemoryHub, port: u16) -> Endpoint {
    let (_, source) = hub.bind_source(at(port)).unwrap();
    Endpoint::builder().network(source).start().await.unwrap()
}

/// A server with services 1 (echo) and 2 (late), and a client, on one paused clock.
async fn pair() -> (MemoryHub, Endpoint, Endpoint) {
    tokio::time::pause();
    another_pair().await
}

/// The same, where the clock stands still already.
async fn another_pair() -> (MemoryHub, Endpoint, Endpoint) {
    let hub = MemoryHub::new();
    let server = endpoint(&hub, 7000).await;
    server.offer(1, echo);
    server.offer(2, late);
    let client = endpoint(&hub, 7001).await;
    (hub, server, client)
}

fn failed(failure: CallFailure) -> Result<Bytes, CallError> {
    Err(CallError::Failed(failure))
}

// ---- services -----------------------------------------------------------------------------------

/// One call's service breaks in the middle; the three beside it on the same connection go on.
#[actix_rt::test]
async fn a_service_that_panics_in_the_middle_ends_its_call_at_once_and_no_other() {
    let (_hub, server, client) = pair().await;
    server.offer(3, async |call: IncomingCall| {
        let mut call = call;
        let bytes = call.read_all(100).await?;
        sleep(secs(1)).await;
        assert!(bytes != "break", "a test broke this service");
        call.reply(bytes);
        Ok::<_, StreamError>(())
    });
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let began = Instant::now();
    let results = futures::join!(
        connection.call("1"),
        connection.call("break"),
        connection.call("3"),
        connection.call("4"),
    );
    assert_eq!(results.1, failed(CallFailure::PeerAborted(AbortCode::CALL_DEAD)));
    assert_eq!([results.0, results.2, results.3].map(Result::unwrap), ["1", "3", "4"]);
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(client.inspect().await.unwrap().connections.len(), 1);
}

/// The peer is there and answers PINGs, so only the caller's own deadline ends it.
#[actix_rt::test]
async fn a_service_that_never_ends_is_ended_by_the_callers_deadline_and_learns_that() {
    let (_hub, server, client) = pair().await;
    let told = Arc::new(Mutex::new(None));
    let tell = told.clone();
    server.offer(3, move |mut call: IncomingCall| {
        let tell = tell.clone();
        async move {
            *tell.lock().unwrap() = Some(call.failed().await);
            Ok::<_, ServiceFault>(())
        }
    });
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let neighbour = client.connect(server.local_addr(), 1).await.unwrap();
    let patience = secs(300);
    let began = Instant::now();
    let (never, other) =
        futures::join!(connection.call_with("x", CallOptions::within(patience)), async {
            sleep(secs(200)).await;
            neighbour.call("y").await
        },);
    assert_eq!((never, other.unwrap()), (failed(CallFailure::Deadline(patience)), "y".into()));
    assert_eq!(began.elapsed().as_secs(), 300);
    sleep(secs(1)).await;
    let told = told.lock().unwrap().take();
    assert_eq!(told, Some(CallFailure::PeerAborted(AbortCode::CALL_TIMEOUT)));
}

/// As one that never ends: what the client may send is a window, and its deadline ends the call.
#[actix_rt::test]
async fn a_service_that_does_not_read_its_request_holds_a_window_and_nobody_else() {
    let (_hub, server, client) = pair().await;
    server.offer(3, async |call: IncomingCall| {
        let _unread = call;
        std::future::pending::<Result<(), ServiceFault>>().await
    });
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let began = Instant::now();
    let (stuck, held, other) = futures::join!(
        connection.call_with(pattern(8 << 20), CallOptions::within(secs(100))),
        async {
            sleep(secs(30)).await;
            let snapshot = server.inspect().await.unwrap();
            let channels = snapshot.connections.iter().flat_map(|connection| &connection.channels);
            channels.map(|channel| channel.buffered_bytes).max()
        },
        async {
            sleep(secs(30)).await;
            client.connect(server.local_addr(), 1).await.unwrap().call("y").await
        },
    );
    assert_eq!(stuck, failed(CallFailure::Deadline(secs(100))));
    assert_eq!(began.elapsed().as_secs(), 100);
    assert!((1..=4 << 20).contains(&held.unwrap()), "{held:?}");
    assert_eq!(other.unwrap(), "y");
}

// ---- actors -------------------------------------------------------------------------------------

/// Counts how often each request ran.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<Bytes>>>);

impl Runs {
    fn offer(&self, server: &Endpoint, service: u16) {
        let runs = self.clone();
        server.offer(service, move |mut call: IncomingCall| {
            let runs = runs.clone();
            async move {
                let bytes = call.read_all(100).await?;
                runs.0.lock().unwrap().push(bytes.clone());
                sleep(secs(5)).await;
                call.reply(bytes);
                Ok::<_, StreamError>(())
            }
        });
    }

    fn sorted(&self) -> Vec<Bytes> {
        let mut runs = self.0.lock().unwrap().clone();
        runs.sort();
        runs
    }
}

/// What the service has: nothing, a call, or a call and how it ended.
type Heard = Arc<Mutex<Option<Option<CallFailure>>>>;

/// Service 3 echoes, but for "x": it waits for the end of that call.
fn offer_patience(server: &Endpoint) -> Heard {
    let heard = Heard::default();
    let tell = heard.clone();
    server.offer(3, move |mut call: IncomingCall| {
        let tell = tell.clone();
        async move {
            let bytes = call.read_all(100).await?;
            if bytes != "x" {
                call.reply(bytes);
                return Ok(());
            }
            *tell.lock().unwrap() = Some(None);
            *tell.lock().unwrap() = Some(Some(call.failed().await));
            Ok::<_, StreamError>(())
        }
    });
    heard
}

/// Four calls at once on one connection, and something of `broken`'s breaks a second later.
async fn four_calls_and_a_break(
    connection: &Connection,
    broken: &Endpoint,
    at: BreakAt,
) -> [Result<Bytes, CallError>; 4] {
    let calls = ["0", "1", "2", "3"].map(|request| connection.call(request));
    let (results, ()) = futures::join!(futures::future::join_all(calls), async {
        sleep(secs(1)).await;
        broken.actor().do_send(Break { at: Some(at) });
    });
    results.try_into().unwrap()
}

#[actix_rt::test]
async fn a_servers_channel_that_breaks_costs_its_call_and_its_three_siblings_notice_nothing() {
    let (_hub, server, client) = pair().await;
    let runs = Runs::default();
    runs.offer(&server, 3);
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let began = Instant::now();
    let at = BreakAt::Channel(0, ChannelIndex::ALL[1]);
    let results = four_calls_and_a_break(&connection, &server, at).await;
    let failures: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
    // The client hears of it when it asks next: with its PING after a sixth of the dead time.
    assert_eq!(failures, [&failed(CallFailure::PeerAborted(AbortCode::CALL_DEAD))]);
    assert!(began.elapsed() < secs(6), "{:?}", began.elapsed());
    assert_eq!(runs.sorted(), ["0", "1", "2", "3"]);
    // The same connection, all four channels.
    let again = futures::future::join_all(["4", "5", "6", "7"].map(|it| connection.call(it)));
    assert!(again.await.iter().all(Result::is_ok));
    assert_eq!(runs.sorted().len(), 8);
    assert_eq!(server.inspect().await.unwrap().counters.connections_opened, 1);
}

#[actix_rt::test]
async fn a_clients_channel_that_breaks_costs_its_call_at_once() {
    let (_hub, server, client) = pair().await;
    let runs = Runs::default();
    runs.offer(&server, 3);
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let at = BreakAt::Channel(0, ChannelIndex::ALL[1]);
    let results = four_calls_and_a_break(&connection, &client, at).await;
    let failures: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
    assert_eq!(failures, [&failed(CallFailure::Broken)]);
    // The next call on that channel ends the lost one at the server too, and runs.
    let again = futures::future::join_all(["4", "5", "6", "7"].map(|it| connection.call(it)));
    assert!(again.await.iter().all(Result::is_ok));
    assert_eq!(runs.sorted(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

/// A connection that breaks costs its four calls, at either side; those of another connection go on.
#[actix_rt::test]
async fn a_connection_that_breaks_costs_its_calls_and_no_other_connections() {
    tokio::time::pause();
    for at_server in [true, false] {
        let (_hub, server, client) = another_pair().await;
        let runs = Runs::default();
        runs.offer(&server, 3);
        let connection = client.connect(server.local_addr(), 3).await.unwrap();
        connection.call("first").await.unwrap();
        let other = client.connect(server.local_addr(), 2).await.unwrap();
        let broken = if at_server { &server } else { &client };
        let (results, late) = futures::join!(
            four_calls_and_a_break(&connection, broken, BreakAt::Connection(0)),
            other.call(&b"\x08"[..]),
        );
        for result in results {
            let failure = match result {
                Err(CallError::Failed(failure)) => failure,
                result => panic!("{result:?}"),
            };
            let expected = match at_server {
                true => matches!(failure, CallFailure::PeerAborted(AbortCode::CALL_DEAD)),
                false => failure == CallFailure::Broken || failure == CallFailure::Closed,
            };
            assert!(expected, "{failure:?}");
        }
        assert_eq!(late.unwrap(), &b"\x08"[..]);
        if at_server {
            // The client's connection does not know yet that there is none at the other end: it is told, and
            // what it asked for has not run.
            let told = CallFailure::PeerAbortedConnection(AbortCode::CALL_DEAD);
            assert_eq!(connection.call("told").await, failed(told));
        }
        // The handle makes another connection, and nothing runs twice.
        assert_eq!(connection.call("last").await.unwrap(), "last");
        assert_eq!(runs.sorted(), ["0", "1", "2", "3", "first", "last"]);
    }
}

/// Its socket is gone with it, and the network says so to whoever sends next: a call that waits, with its PING.
/// Where the network says nothing, the peer finds out by silence.
#[actix_rt::test]
async fn an_endpoint_that_breaks_is_unreachable_to_its_peers_or_dead() {
    tokio::time::pause();
    for is_told in [true, false] {
        let (mood, server, client) = moody().await;
        mood.lock().unwrap().hides_problems = !is_told;
        let connection = client.connect(server.local_addr(), 2).await.unwrap();
        let began = Instant::now();
        let (lost, ()) = futures::join!(
            async { (connection.call(&b"\x50"[..]).await, began.elapsed()) },
            async {
                sleep(secs(1)).await;
                server.actor().do_send(Break { at: None });
            },
        );
        let unreachable = CallFailure::Network(NetworkProblem::PortUnreachable);
        let (expected, within) = match is_told {
            true => (unreachable, DEAD_TIMEOUT / 6 * 2 + RTO),
            // As if it had been silent from the start, since nothing was heard in between.
            false => (CallFailure::Dead(DEAD_TIMEOUT), DEAD_TIMEOUT + secs(1)),
        };
        assert_eq!(lost.0, failed(expected));
        assert!(lost.1 <= within, "{:?}", lost.1);
        assert_eq!(server.closed().await, CloseReason::Broken);
    }
}

/// A network in memory that does to whoever uses it what it is told.
struct Moody {
    inner: MemoryNetwork,
    mood: Arc<Mutex<Mood>>,
}

/// What becomes of a datagram that is sent.
type OnSend = Box<dyn FnMut(&Transmit<'_>) -> io::Result<()> + Send>;

/// What is to happen with each datagram that is sent, and with what is received.
struct Mood {
    send: OnSend,
    news: Vec<Incoming>,
    breaks: bool,
    /// What the network says about paths is not heard.
    hides_problems: bool,
}

impl Network for Moody {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn max_segments(&self) -> usize {
        1
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let mut mood = self.mood.lock().unwrap();
        assert!(!mood.breaks, "a test broke this network");
        into.append(&mut mood.news);
        let result = self.inner.poll_receive(task, into);
        if mood.hides_problems {
            into.retain(|incoming| matches!(incoming, Incoming::Datagrams { .. }));
        }
        match result {
            Poll::Pending if !into.is_empty() => Poll::Ready(Ok(())),
            result => result,
        }
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        (self.mood.lock().unwrap().send)(transmit)?;
        self.inner.try_send(transmit)
    }

    fn poll_send_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_send_ready(task)
    }
}

/// A client on such a network, and a server with services 1 (echo) and 2 (late).
async fn moody() -> (Arc<Mutex<Mood>>, Endpoint, Endpoint) {
    let (hub, server, _) = another_pair().await;
    let (send, news) = (Box::new(|_: &Transmit<'_>| Ok(())), Vec::new());
    let mood = Mood { send, news, breaks: false, hides_problems: false };
    let mood = Arc::new(Mutex::new(mood));
    let network = Moody { inner: hub.bind(at(7009)).unwrap(), mood: mood.clone() };
    let source = network_source(move || Ok(network));
    let client = Endpoint::builder().network(source).start().await.unwrap();
    (mood, server, client)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[actix_rt::test]
async fn a_receive_loop_that_breaks_ends_its_endpoint_and_every_call_at_once() {
    tokio::time::pause();
    let (mood, server, client) = moody().await;
    let connection = client.connect(server.local_addr(), 2).await.unwrap();
    let began = Instant::now();
    let (call, (), reason) = futures::join!(
        connection.call(&b"\x3c"[..]),
        async {
            sleep(secs(1)).await;
            mood.lock().unwrap().breaks = true;
        },
        client.closed(),
    );
    assert!(
        matches!(call, Err(CallError::Failed(CallFailure::Closed | CallFailure::Broken))),
        "{call:?}"
    );
    assert_eq!(reason, CloseReason::Broken);
    // The loop's next turn is at the latest that of the next PING.
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(connection.call("x").await, Err(CallError::Connect(ConnectError::Closed)));
}

/// The same at a server: its next turn is a PING of its client's, and the one after that finds nobody.
#[actix_rt::test]
async fn a_receive_loop_of_a_server_that_breaks_leaves_its_clients_an_unreachable_port() {
    tokio::time::pause();
    let (mood, client, server) = moody().await;
    let heard = offer_patience(&server);
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let began = Instant::now();
    let (call, (), reason) = futures::join!(
        connection.call("x"),
        async {
            sleep(secs(1)).await;
            mood.lock().unwrap().breaks = true;
        },
        server.closed(),
    );
    assert_eq!(call, failed(CallFailure::Network(NetworkProblem::PortUnreachable)));
    assert!(began.elapsed() <= DEAD_TIMEOUT / 6 * 3 + RTO, "{:?}", began.elapsed());
    assert_eq!(reason, CloseReason::Broken);
    assert!(heard.lock().unwrap().is_some(), "the call ran");
}

/// A security class of a user's, which breaks as it takes or makes a connection while it is told to.
#[derive(Clone, Debug, Default)]
struct Brittle(Arc<AtomicBool>);

impl Brittle {
    fn hold(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "a test broke this security class");
    }
}

impl ServerClass for Brittle {
    fn index(&self) -> SecurityIndex {
        SecurityIndex(7)
    }

    fn accept(&self, _: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
        self.hold();
        None
    }
}

impl ClientClass for Brittle {
    fn index(&self) -> SecurityIndex {
        SecurityIndex(7)
    }

    fn connect(&self, _: ConnectionIds, _: &Entropy) -> ClientStart {
        self.hold();
        ClientStart::default()
    }
}

/// Of the connection that it is asked for, the client is told at once; everybody else notices nothing.
#[actix_rt::test]
async fn a_security_class_that_breaks_costs_the_connection_that_it_was_asked_for_and_no_other() {
    let (_hub, server, client) = pair().await;
    let (at_server, at_client) = (Brittle::default(), Brittle::default());
    let security_classes: Vec<Arc<dyn ServerClass>> = vec![Arc::new(at_server.clone())];
    let options = ServiceOptions { security_classes, ..ServiceOptions::default() };
    server.offer_with(3, echo, options);
    let options =
        || ConnectOptions { security: Arc::new(at_client.clone()), ..ConnectOptions::default() };
    let good = client.connect_with(server.local_addr(), 3, options()).await.unwrap();
    assert_eq!(good.call("first").await.unwrap(), "first");
    let slow = client.connect(server.local_addr(), 2).await.unwrap();
    let late = slow.call(&b"\x05"[..]);
    let meanwhile = async {
        sleep(secs(1)).await;
        at_server.0.store(true, Ordering::Relaxed);
        let refused = client.connect_with(server.local_addr(), 3, options()).await.unwrap();
        let began = Instant::now();
        let failure = CallFailure::PeerAborted(AbortCode::CALL_DEAD);
        assert_eq!(refused.call("x").await, failed(failure));
        assert!(began.elapsed() < RTO, "{:?}", began.elapsed());
        at_client.0.store(true, Ordering::Relaxed);
        let none = client.connect_with(server.local_addr(), 3, options()).await;
        assert_eq!(none.unwrap_err(), ConnectError::SecurityClass);
        // The connection that was there is none the worse.
        assert_eq!(good.call("again").await.unwrap(), "again");
        at_server.0.store(false, Ordering::Relaxed);
        assert_eq!(refused.call("y").await.unwrap(), "y");
        let counters = server.inspect().await.unwrap().counters;
        assert_eq!(counters.dropped_for(DropReason::SecurityBroke), 1);
    };
    let (late, ()) = futures::join!(late, meanwhile);
    assert_eq!(late.unwrap(), &b"\x05"[..]);
}

// ---- the network --------------------------------------------------------------------------------

/// No room in the kernel: as if the packet had been lost on its way.
#[actix_rt::test]
async fn a_send_without_buffers_is_a_lost_packet() {
    const ENOBUFS: i32 = 105;
    tokio::time::pause();
    let (mood, server, client) = moody().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let mut count = 0;
    mood.lock().unwrap().send = Box::new(move |_| {
        count += 1;
        if count % 3 == 1 { Err(errno(ENOBUFS)) } else { Ok(()) }
    });
    let request = pattern(100_000);
    let began = Instant::now();
    assert_eq!(connection.call(request.clone()).await.unwrap(), request);
    assert!(began.elapsed() < secs(20), "{:?}", began.elapsed());
    let counters = client.inspect().await.unwrap().counters;
    assert!(counters.send_failures > 10 && counters.resent > 0, "{counters:?}");
}

/// The path takes smaller datagrams than ours, and the network says so. What is numbered cannot be cut anew
/// (rx-flow.md 9.3): it goes again in fragments, and later packets are smaller.
#[actix_rt::test]
async fn packets_too_large_for_the_path_go_again_in_fragments() {
    let (calls, fragmented) = calls_over_a_narrow_path(true).await;
    assert_eq!(calls, [Ok(()), Ok(()), Ok(())]);
    assert!(fragmented > 0);
}

/// As above, where fragments are lost too: the call dies, and the next one is good.
#[actix_rt::test]
async fn packets_too_large_for_the_path_cost_their_call_where_fragments_are_lost() {
    let (calls, _) = calls_over_a_narrow_path(false).await;
    assert_eq!(calls, [Err(CallFailure::Dead(DEAD_TIMEOUT)), Ok(()), Ok(())]);
}

/// A large call, a small one beside it, and a large one after them; and how many datagrams might be fragmented.
async fn calls_over_a_narrow_path(takes_fragments: bool) -> ([Result<(), CallFailure>; 3], usize) {
    const EMSGSIZE: i32 = 90;
    const MTU: u32 = 1000;
    tokio::time::pause();
    let (mood, server, client) = moody().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let news = mood.clone();
    let fragmented = Arc::new(AtomicUsize::new(0));
    let count = fragmented.clone();
    mood.lock().unwrap().send = Box::new(move |transmit| {
        let fits = transmit.contents.len() + 28 <= MTU as usize;
        if !fits && transmit.may_fragment {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match fits || (takes_fragments && transmit.may_fragment) {
            true => Ok(()),
            false => Err(errno(EMSGSIZE)),
        }
    });
    let request = pattern(50_000);
    let echo = async |bytes: Bytes| match connection.call(bytes.clone()).await {
        Ok(reply) => {
            assert_eq!(reply, bytes);
            Ok(())
        }
        Err(CallError::Failed(failure)) => Err(failure),
        Err(other) => panic!("{other}"),
    };
    let (large, small, ()) =
        futures::join!(echo(request.clone()), echo(Bytes::from_static(b"x")), async {
            sleep(Duration::from_millis(1)).await;
            let error = PathError::TooBig { mtu: MTU };
            news.lock().unwrap().news.push(Incoming::PathError { to: at(7000), error });
        });
    ([large, small, echo(request).await], fragmented.load(Ordering::Relaxed))
}

/// Nobody listens: a call that has heard nothing fails at once, one whose peer was there at its next packet.
#[actix_rt::test]
async fn a_refused_send_fails_the_call_that_made_it() {
    tokio::time::pause();
    let (mood, server, client) = moody().await;
    let connection = client.connect(server.local_addr(), 2).await.unwrap();
    let began = Instant::now();
    let (call, ()) = futures::join!(connection.call(&b"\x3c"[..]), async {
        sleep(secs(1)).await;
        let refuse = |_: &Transmit<'_>| Err(io::ErrorKind::ConnectionRefused.into());
        mood.lock().unwrap().send = Box::new(refuse);
    });
    let refused = failed(CallFailure::Network(NetworkProblem::PortUnreachable));
    assert_eq!(call, refused);
    // The next packet is a PING, and the one after it the last.
    assert!(began.elapsed() < secs(8), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(connection.call("x").await, refused);
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
}

/// The network is down for a while: a call that has a packet to send then fails, the next one is good; a call
/// that has none notices nothing.
#[actix_rt::test]
async fn a_network_that_is_down_for_a_while_costs_only_calls_that_send_meanwhile() {
    tokio::time::pause();
    let (mood, server, client) = moody().await;
    let connection = client.connect(server.local_addr(), 2).await.unwrap();
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    mood.lock().unwrap().send = Box::new(move |_| match is_down.load(Ordering::Relaxed) {
        true => Err(io::ErrorKind::NetworkDown.into()),
        false => Ok(()),
    });
    let (waits, sends, ()) = futures::join!(
        connection.call(&b"\x02"[..]),
        async {
            sleep(Duration::from_millis(700)).await;
            connection.call(&b"\x00"[..]).await
        },
        async {
            sleep(Duration::from_millis(500)).await;
            down.store(true, Ordering::Relaxed);
            sleep(secs(1)).await;
            down.store(false, Ordering::Relaxed);
        },
    );
    assert_eq!(waits.unwrap(), &b"\x02"[..]);
    assert_eq!(sends, failed(CallFailure::Network(NetworkProblem::NetUnreachable)));
    assert_eq!(connection.call(&b"\x00"[..]).await.unwrap(), &b"\x00"[..]);
}

/// A descriptor that is no socket any more, but only for sending: nothing leaves, and nothing spins.
#[actix_rt::test]
async fn a_socket_that_sends_no_more_is_silence() {
    const EBADF: i32 = 9;
    tokio::time::pause();
    let (mood, server, client) = moody().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let sends = Arc::new(AtomicUsize::new(0));
    let count = sends.clone();
    mood.lock().unwrap().send = Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err(errno(EBADF))
    });
    let began = Instant::now();
    assert_eq!(connection.call("x").await, failed(CallFailure::Dead(DEAD_TIMEOUT)));
    assert_eq!(began.elapsed().as_secs(), DEAD_TIMEOUT.as_secs());
    assert!((2..50).contains(&sends.load(Ordering::Relaxed)), "{sends:?}");
    mood.lock().unwrap().send = Box::new(|_| Ok(()));
    assert_eq!(connection.call("y").await.unwrap(), "y");
}

// ---- whoever runs it ----------------------------------------------------------------------------

/// A client whose server's thread ends under a call. `end` ends it, and has seen it end.
async fn a_client_loses(hub: &MemoryHub, server: Endpoint, end: impl FnOnce()) {
    let heard = offer_patience(&server);
    let client = endpoint(hub, 7001).await;
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let (call, began) = futures::join!(connection.call("x"), async {
        while heard.lock().unwrap().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        end();
        // Only the client's own time is left: it passes at once.
        tokio::time::pause();
        Instant::now()
    });
    // Its next PING finds nobody, and the one after it is the last.
    let unreachable = CallFailure::Network(NetworkProblem::PortUnreachable);
    assert_eq!(call, failed(unreachable));
    assert!(began.elapsed() <= DEAD_TIMEOUT / 6 * 2 + RTO, "{:?}", began.elapsed());
    assert_eq!(server.closed().await, CloseReason::Broken);
    // No new call hangs, and a server that comes back is found.
    let began = Instant::now();
    assert_eq!(connection.call("y").await, failed(unreachable));
    assert!(began.elapsed() < RTO, "{:?}", began.elapsed());
    let again = endpoint(hub, 7000).await;
    again.offer(3, echo);
    let connection = client.connect(again.local_addr(), 3).await.unwrap();
    assert_eq!(connection.call("z").await.unwrap(), "z");
}

#[test]
fn an_arbiter_of_a_server_that_ends_early_leaves_its_clients_an_unreachable_port() {
    let hub = MemoryHub::new();
    let (_, source) = hub.bind_source(at(7000)).unwrap();
    actix_rt::System::new().block_on(async {
        let arbiter = actix_rt::Arbiter::new();
        let (tell, told) = futures::channel::oneshot::channel();
        arbiter.spawn(async move {
            let endpoint = Endpoint::builder().network(source).start().await.unwrap();
            assert!(tell.send(endpoint).is_ok());
        });
        let server = told.await.unwrap();
        let end = move || {
            arbiter.stop();
            arbiter.join().unwrap();
        };
        a_client_loses(&hub, server, end).await;
    });
}

#[test]
fn a_system_of_a_server_that_ends_leaves_its_clients_an_unreachable_port() {
    let hub = MemoryHub::new();
    let (_, source) = hub.bind_source(at(7000)).unwrap();
    let (tell, told) = futures::channel::oneshot::channel();
    let (dismiss, dismissed) = futures::channel::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async {
            let endpoint = Endpoint::builder().network(source).start().await.unwrap();
            assert!(tell.send(endpoint).is_ok());
            dismissed.await.unwrap();
        });
    });
    actix_rt::System::new().block_on(async {
        let server = told.await.unwrap();
        let end = move || {
            dismiss.send(()).unwrap();
            thread.join().unwrap();
        };
        a_client_loses(&hub, server, end).await;
    });
}

/// The arbiter stops, its System does not.
#[test]
fn an_arbiter_that_ends_early_leaves_nobody_waiting() {
    let hub = MemoryHub::new();
    let _silent = hub.bind(at(7009)).unwrap();
    let (_, source) = hub.bind_source(at(7001)).unwrap();
    actix_rt::System::new().block_on(async {
        let arbiter = actix_rt::Arbiter::new();
        let (tell, told) = futures::channel::oneshot::channel();
        arbiter.spawn(async move {
            let endpoint = Endpoint::builder().network(source).start().await.unwrap();
            assert!(tell.send(endpoint).is_ok());
        });
        let client = told.await.unwrap();
        let connection = client.connect(at(7009), 1).await.unwrap();
        let mut stream = connection.open_call(CallOptions::default()).await.unwrap();
        let (whole, streamed, ()) = futures::join!(connection.call("x"), stream.failed(), async {
            sleep(Duration::from_millis(20)).await;
            arbiter.stop();
        });
        assert!(matches!(whole, Err(CallError::Failed(_))), "{whole:?}");
        assert!(matches!(streamed, CallFailure::Broken | CallFailure::Closed), "{streamed:?}");
        assert_eq!(client.closed().await, CloseReason::Broken);
        assert_eq!(connection.call("x").await, Err(CallError::Connect(ConnectError::Closed)));
        arbiter.join().unwrap();
        // Another endpoint of the same System is none the worse.
        let (_, source) = hub.bind_source(at(7002)).unwrap();
        let other = Endpoint::builder().network(source).service(1, echo).start().await.unwrap();
        let own = other.connect(other.local_addr(), 1).await.unwrap();
        assert_eq!(own.call("y").await.unwrap(), "y");
    });
}

/// An endpoint on a thread of its own has a System of its own: the caller's may end.
#[test]
fn the_end_of_a_system_spares_an_endpoint_on_a_thread_of_its_own() {
    let hub = MemoryHub::new();
    let (_, source) = hub.bind_source(at(7001)).unwrap();
    let endpoint = actix_rt::System::new().block_on(async {
        let builder = Endpoint::builder().network(source).service(1, echo);
        builder.own_thread(true).start().await.unwrap()
    });
    futures::executor::block_on(async {
        let connection = endpoint.connect(endpoint.local_addr(), 1).await.unwrap();
        assert_eq!(connection.call("x").await.unwrap(), "x");
        endpoint.shutdown(secs(1)).await;
        assert_eq!(endpoint.closed().await, CloseReason::Shutdown);
    });
}

/// The handles are gone while calls run: a client's goes on, a server's is told at once that nobody serves it.
#[actix_rt::test]
async fn handles_dropped_in_the_middle_of_a_call() {
    let (_hub, server, client) = pair().await;
    let connection = client.connect(server.local_addr(), 2).await.unwrap();
    drop(client);
    assert_eq!(connection.call(&b"\x03"[..]).await.unwrap(), &b"\x03"[..]);
    let began = Instant::now();
    let (call, ()) = futures::join!(connection.call(&b"\x3c"[..]), async {
        sleep(secs(1)).await;
        drop(server);
    });
    let code = call.unwrap_err().abort_code();
    assert_eq!((code, began.elapsed().as_secs()), (Some(AbortCode::CALL_DEAD), 1));
}

/// The machine slept for an hour: what ran is over, for both ends, and what comes after is good.
#[actix_rt::test]
async fn an_hour_that_passes_at_once_ends_what_ran_and_nothing_more() {
    let (_hub, server, client) = pair().await;
    let heard = offer_patience(&server);
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let patience = tokio::time::timeout(secs(2 * 3600), connection.call("x"));
    let (call, ()) = futures::join!(patience, async {
        sleep(secs(1)).await;
        tokio::time::advance(secs(3600)).await;
    });
    assert_eq!(call.unwrap(), failed(CallFailure::Dead(DEAD_TIMEOUT)));
    sleep(RTO).await;
    let heard = heard.lock().unwrap().take();
    assert!(matches!(heard, Some(Some(CallFailure::Dead(_) | CallFailure::PeerAborted(_)))));
    let began = Instant::now();
    assert_eq!(connection.call("y").await.unwrap(), "y");
    assert!(began.elapsed() < RTO * 4, "{:?}", began.elapsed());
}

/// Somebody who watches events and takes his time slows the endpoint, and costs it nothing else.
#[actix_rt::test]
async fn a_slow_subscriber_slows_and_loses_nothing() {
    struct Slow(Arc<AtomicUsize>);

    impl Subscriber for Slow {
        fn on_event(&mut self, _: Origin, _: &Event) {
            std::thread::sleep(Duration::from_millis(2));
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    tokio::time::pause();
    let hub = MemoryHub::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let (_, source) = hub.bind_source(at(7000)).unwrap();
    let server = Endpoint::builder().network(source).service(1, echo).subscribe(Slow(seen.clone()));
    let server = server.start().await.unwrap();
    let client = endpoint(&hub, 7001).await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    for _ in 0..20 {
        assert_eq!(connection.call(pattern(20_000)).await.unwrap().len(), 20_000);
    }
    // A beginning and an end of each.
    assert!(seen.load(Ordering::Relaxed) >= 40);
}

/// A subscriber is not ours: one that panics is called no more, and everything else goes on.
#[actix_rt::test]
async fn a_subscriber_that_panics_is_called_no_more_and_costs_no_call() {
    struct Broken(Arc<AtomicUsize>);

    impl Subscriber for Broken {
        fn on_event(&mut self, _: Origin, _: &Event) {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) < 3, "a test broke this subscriber");
        }
    }

    struct Whole(Arc<AtomicUsize>);

    impl Subscriber for Whole {
        fn on_event(&mut self, _: Origin, _: &Event) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    tokio::time::pause();
    let hub = MemoryHub::new();
    let (broken, whole) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (_, source) = hub.bind_source(at(7000)).unwrap();
    let server = Endpoint::builder().network(source).service(1, echo);
    let server = server.subscribe(Broken(broken.clone())).subscribe(Whole(whole.clone()));
    let server = server.start().await.unwrap();
    let client = endpoint(&hub, 7001).await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    for _ in 0..5 {
        assert_eq!(connection.call("x").await.unwrap(), "x");
    }
    assert_eq!(broken.load(Ordering::Relaxed), 4);
    assert!(whole.load(Ordering::Relaxed) >= 10);
    let grace = secs(1);
    assert_eq!(server.shutdown(grace).await.calls_cut, 0);
    assert_eq!(server.closed().await, CloseReason::Shutdown);
}

/// One reply is not read: it holds its window, and the other channels of the connection go on.
#[actix_rt::test]
async fn a_reply_that_is_not_read_holds_up_nobody_else() {
    let (_hub, server, client) = pair().await;
    server.offer(3, async |call: IncomingCall| {
        call.reply(pattern(8 << 20));
        Ok::<_, ServiceFault>(())
    });
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let mut unread = connection.open_call(CallOptions::default()).await.unwrap().finish().unwrap();
    sleep(secs(30)).await;
    let snapshot = client.inspect().await.unwrap();
    let channels = snapshot.connections.iter().flat_map(|connection| &connection.channels);
    let held = channels.map(|channel| channel.buffered_bytes).max();
    assert!((1..=4 << 20).contains(&held.unwrap()), "{held:?}");
    for _ in 0..3 {
        assert_eq!(connection.call("x").await.unwrap().len(), 8 << 20);
    }
    let mut len = 0;
    while let Some(piece) = unread.next().await {
        len += piece.unwrap().len();
    }
    assert_eq!(len, 8 << 20);
}
