//! Whole and streaming calls through the actors, over UDP and in memory.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use rxrpc::net::{Incoming, MemoryHub, Network, Transmit};
use rxrpc::{
    AbortCode, CallError, CallFailure, CallOptions, Endpoint, IncomingCall, ServiceFault,
    StreamError,
};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn echo(mut call: IncomingCall) -> Result<(), StreamError> {
    let bytes = call.read_all(64 << 20).await?;
    call.reply(bytes);
    Ok(())
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}

async fn pair() -> (Endpoint, Endpoint) {
    let server = Endpoint::builder().bind(loopback()).service(1, echo).start().await.unwrap();
    let client = Endpoint::builder().bind(loopback()).start().await.unwrap();
    (client, server)
}

async fn sizes() {
    let (client, server) = pair().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    for len in [0, 1, 1411, 1412, 1413, 65_536, 1_000_000, 5_000_000] {
        let request = pattern(len);
        let reply = connection.call(request.clone()).await.unwrap();
        assert!(reply == request, "{len} bytes");
    }
    let snapshot = server.inspect().await.unwrap();
    assert_eq!(snapshot.connections.len(), 1);
    assert_eq!(snapshot.connections[0].channels.len(), 4);
    assert_eq!(snapshot.counters.busy_sent, 0);
    drop(connection);
    let report = client.shutdown(Duration::from_secs(1)).await;
    assert_eq!(report.calls_cut, 0);
    server.shutdown(Duration::from_secs(1)).await;
}

/// Channels that have nothing else to say tell of their calls when they end.
#[actix_rt::test]
async fn the_report_of_a_shutdown_counts_every_call() {
    const CALLS: u64 = 100;
    let (client, server) = pair().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    for _ in 0..CALLS / 10 {
        let calls = (0..10).map(|_| connection.call(pattern(10)));
        futures::future::try_join_all(calls).await.unwrap();
    }
    drop(connection);
    for endpoint in [client, server] {
        let counters = endpoint.shutdown(Duration::from_secs(10)).await.counters;
        assert_eq!((counters.calls_good, counters.calls_failed), (CALLS, 0));
        assert_eq!(counters.client_calls + counters.server_calls, CALLS);
    }
}

#[actix_rt::test]
async fn requests_of_every_size_come_back_on_one_arbiter() {
    sizes().await;
}

#[tokio::test]
async fn requests_of_every_size_come_back_under_plain_tokio() {
    sizes().await;
}

#[actix_rt::test]
async fn more_calls_than_channels_run_at_once() {
    let (client, server) = pair().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let calls = (0..64).map(|index| {
        let connection = connection.clone();
        async move { connection.call(pattern(index * 100)).await.unwrap() }
    });
    let replies = futures::future::join_all(calls).await;
    assert!(replies.iter().enumerate().all(|(index, reply)| *reply == pattern(index * 100)));
    assert_eq!(client.inspect().await.unwrap().connections.len(), 4);
}

/// A reply has begun: nothing of its request counts as waiting for the service any more.
#[actix_rt::test]
async fn a_call_that_is_answered_has_no_request_to_be_read() {
    let service = async |mut call: IncomingCall| {
        call.read_all(1 << 20).await?;
        let mut reply = call.into_reply();
        reply.write_all(b"first").await?;
        reply.flush().await?;
        reply.failed().await;
        Ok::<_, ServiceFault>(())
    };
    let server = Endpoint::builder().bind(loopback()).service(1, service).start().await.unwrap();
    let client = Endpoint::builder().bind(loopback()).start().await.unwrap();
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let mut request = connection.open_call(CallOptions::default()).await.unwrap();
    request.write_all(&pattern(100_000)).await.unwrap();
    let mut reply = request.finish().unwrap();
    assert_eq!(reply.next().await.unwrap().unwrap(), "first");
    let channel = &server.inspect().await.unwrap().connections[0].channels[0];
    assert_eq!((channel.buffered_bytes, channel.call_number.0), (0, 1));
}

#[actix_rt::test]
async fn a_call_streams_both_ways() {
    let (client, server) = pair().await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let mut request = connection.open_call(CallOptions::default()).await.unwrap();
    let body = pattern(300_000);
    AsyncWriteExt::write_all(&mut request, &body[..100_000]).await.unwrap();
    request.write(body.slice(100_000..)).await.unwrap();
    let mut reply = request.finish().unwrap();
    let mut first = vec![0; 1000];
    AsyncReadExt::read_exact(&mut reply, &mut first).await.unwrap();
    let mut rest = first;
    while let Some(piece) = reply.next().await {
        rest.extend_from_slice(&piece.unwrap());
    }
    assert!(rest == body);
}

#[actix_rt::test]
async fn failures_say_what_happened() {
    let (client, server) = pair().await;
    let refuse = rxrpc::unary(|_| async { Err::<Bytes, _>(AbortCode(4711)) });
    server.offer(2, refuse);
    let connection = client.connect(server.local_addr(), 2).await.unwrap();
    let error = connection.call("x").await.unwrap_err();
    assert_eq!(error, CallError::Failed(CallFailure::PeerAborted(AbortCode(4711))));
    let connection = client.connect(server.local_addr(), 999).await.unwrap();
    let error = connection.call("x").await.unwrap_err();
    assert_eq!(error.abort_code(), Some(AbortCode::INVALID_OPERATION));
    let free = std::net::UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    let connection = client.connect(free, 1).await.unwrap();
    let error = connection.call("x").await.unwrap_err();
    assert!(matches!(error, CallError::Failed(CallFailure::Network(_))), "{error}");
}

#[actix_rt::test]
async fn silence_ends_a_call_at_its_deadline_and_at_the_dead_time() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let (_, source) = hub.bind_source(at(7001)).unwrap();
    let _silent = hub.bind(at(7009)).unwrap();
    let client = Endpoint::builder().network(source).start().await.unwrap();
    let connection = client.connect(at(7009), 1).await.unwrap();
    let began = tokio::time::Instant::now();
    let error =
        connection.call_with("x", CallOptions::within(Duration::from_secs(3))).await.unwrap_err();
    assert_eq!(error, CallError::Failed(CallFailure::Deadline(Duration::from_secs(3))));
    assert_eq!(began.elapsed().as_secs(), 3);
    let error = connection.call("x").await.unwrap_err();
    assert_eq!(error, CallError::Failed(CallFailure::Dead(Duration::from_secs(20))));
    assert_eq!(began.elapsed().as_secs(), 23);
}

/// A network whose system has no route to anybody.
struct NoRoute(rxrpc::net::MemoryNetwork);

impl Network for NoRoute {
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
        self.0.poll_receive(task, into)
    }

    fn try_send(&mut self, _: &Transmit<'_>) -> io::Result<()> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }

    fn poll_send_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send_ready(task)
    }
}

#[actix_rt::test]
async fn a_send_without_a_route_fails_the_call_at_once() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let network = NoRoute(hub.bind(SocketAddr::from(([10, 0, 0, 1], 7001))).unwrap());
    let source = rxrpc::net::network_source(move || Ok(network));
    let client = Endpoint::builder().network(source).start().await.unwrap();
    let connection = client.connect(SocketAddr::from(([10, 0, 0, 2], 7009)), 1).await.unwrap();
    let began = tokio::time::Instant::now();
    let error = connection.call("x").await.unwrap_err();
    let unreachable = CallFailure::Network(rxrpc::NetworkProblem::NetUnreachable);
    assert_eq!(error, CallError::Failed(unreachable));
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// A service fails in one of several ways; its future holds the call, and drops it before anybody sees the
/// error. The client is sent the error's code all the same.
async fn fails(call: IncomingCall) -> Result<(), ServiceFault> {
    let mut call = call;
    match call.read_all(100).await?.as_ref() {
        b"at once" => Err(AbortCode(4711).into()),
        b"call dropped" => {
            drop(call);
            tokio::time::sleep(Duration::from_millis(5)).await;
            Err(AbortCode(4712).into())
        }
        b"in the reply" => {
            let mut reply = call.into_reply();
            reply.write(pattern(100_000)).await?;
            Err(AbortCode(4713).into())
        }
        b"no word" => Ok(()),
        b"elsewhere" => {
            actix_rt::spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                call.reply("late");
            });
            Ok(())
        }
        _ => {
            actix_rt::spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                drop(call);
            });
            Ok(())
        }
    }
}

#[actix_rt::test]
async fn a_service_that_fails_is_quoted_and_one_without_a_word_is_dead() {
    let (client, server) = pair().await;
    server.offer(3, fails);
    let connection = client.connect(server.local_addr(), 3).await.unwrap();
    let codes = [
        ("at once", AbortCode(4711)),
        ("call dropped", AbortCode(4712)),
        ("in the reply", AbortCode(4713)),
        ("no word", AbortCode::CALL_DEAD),
        ("no word elsewhere", AbortCode::CALL_DEAD),
    ];
    for (request, code) in codes {
        let error = connection.call(request).await.unwrap_err();
        assert_eq!(error.abort_code(), Some(code), "{request}: {error}");
    }
    assert_eq!(connection.call("elsewhere").await.unwrap(), "late");
}
