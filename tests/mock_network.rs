//! An endpoint on a mocked network: literal datagrams in, literal datagrams out; and what a slow reader holds.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use rxrpc::net::{Incoming, MemoryHub, MockNetwork, network_source};
use rxrpc::proto::router::Identity;
use rxrpc::wire::{Cid, Epoch};
use rxrpc::{
    AbortCode, CallError, CallFailure, CallOptions, CloseReason, Endpoint, EndpointBuilder,
    IncomingCall, Request, ServiceFault, ServiceOptions,
};

/// Where the other end is.
fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 7001))
}

/// The bytes of hexadecimal digits; blanks are skipped.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// Datagrams, each with its destination.
type Sent = Vec<(SocketAddr, Vec<u8>)>;

/// A mocked network, the datagrams that it receives, and those that were sent on it.
struct Wire {
    receive: mpsc::UnboundedSender<Vec<u8>>,
    sent: Arc<Mutex<Sent>>,
}

impl Wire {
    fn new() -> (Wire, MockNetwork) {
        let (receive, mut received) = mpsc::unbounded::<Vec<u8>>();
        let sent = Arc::new(Mutex::new(Sent::new()));
        let mut network = MockNetwork::new();
        network.expect_local_addr().return_const(SocketAddr::from(([192, 0, 2, 2], 7000)));
        network.expect_max_segments().return_const(1usize);
        network.expect_poll_receive().returning(move |task, into| {
            match received.poll_next_unpin(task) {
                Poll::Ready(Some(datagram)) => {
                    let stride = datagram.len().max(1);
                    into.push(Incoming::Datagrams { from: peer(), data: datagram.into(), stride });
                    Poll::Ready(Ok(()))
                }
                _ => Poll::Pending,
            }
        });
        let record = sent.clone();
        network.expect_try_send().returning(move |transmit| {
            let datagrams = transmit.datagrams().map(|datagram| (transmit.to, datagram.to_vec()));
            record.lock().unwrap().extend(datagrams);
            Ok(())
        });
        network.expect_poll_send_ready().returning(|_| Poll::Ready(Ok(())));
        (Wire { receive, sent }, network)
    }

    /// An endpoint on a mocked network, with the names of the examples of rx-wire.md 7.
    async fn endpoint(build: impl FnOnce(EndpointBuilder) -> EndpointBuilder) -> (Wire, Endpoint) {
        tokio::time::pause();
        let (wire, network) = Wire::new();
        let identity =
            Identity { epoch: Epoch(0x8f3a_21c4), first_cid: Cid(0x5d0e_9a34), hash_seed: 1 };
        let builder = Endpoint::builder()
            .network(network_source(move || Ok(network)))
            .identity(identity)
            .configure(|config| config.server.call.keepalive = false);
        (wire, build(builder).start().await.unwrap())
    }

    /// The other end sends this, and the endpoint does what it has to do within a millisecond.
    async fn send(&self, hex: &str) {
        self.receive.unbounded_send(bytes(hex)).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Exactly these datagrams were sent to the other end since the last look.
    #[track_caller]
    fn expect(&self, hex: &[&str]) {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap());
        let expected: Vec<_> = hex.iter().map(|hex| (peer(), bytes(hex))).collect();
        assert_eq!(sent, expected);
    }
}

/// A service as a user would write it.
async fn pong(request: Request) -> Result<Bytes, AbortCode> {
    match &request.bytes[..] {
        b"ping" => Ok("pong".into()),
        _ => Err(AbortCode(-455)),
    }
}

/// W1, W2 and W8 of rx-wire.md, byte by byte.
#[actix_rt::test]
async fn a_ping_draws_a_pong_and_anything_else_an_abort() {
    let (wire, endpoint) = Wire::endpoint(|builder| {
        builder.service_with(1, rxrpc::unary(pong), ServiceOptions::small_replies())
    })
    .await;
    wire.send("8f3a21c4 5d0e9a36 00000001 00000001 00000001 01050000 00000001 70696e67").await;
    wire.expect(&["8f3a21c4 5d0e9a36 00000001 00000001 00000001 01040000 00000001 706f6e67"]);
    // The next call acknowledges the reply.
    wire.send("8f3a21c4 5d0e9a36 00000002 00000001 00000002 01050000 00000001 70756e67").await;
    wire.expect(&["8f3a21c4 5d0e9a36 00000002 00000000 00000002 04000000 00000001 fffffe39"]);
    let report = endpoint.shutdown(Duration::ZERO).await;
    wire.expect(&[]);
    assert_eq!((report.calls_cut, report.connections_closed), (0, 1));
    // A mock that is called in a way that it does not expect breaks its endpoint.
    assert_eq!(endpoint.closed().await, CloseReason::Shutdown);
}

#[actix_rt::test]
async fn a_call_that_is_cut_off_is_aborted_on_the_wire() {
    let (wire, endpoint) = Wire::endpoint(|builder| {
        builder.service_with(
            1,
            async |mut call: IncomingCall| {
                call.failed().await;
                Ok::<_, ServiceFault>(())
            },
            ServiceOptions::small_replies(),
        )
    })
    .await;
    wire.send("8f3a21c4 5d0e9a36 00000001 00000001 00000001 01050000 00000001 70696e67").await;
    wire.expect(&[]);
    let report = endpoint.shutdown(Duration::from_millis(50)).await;
    assert_eq!((report.calls_cut, report.connections_closed), (1, 1));
    let counters = report.counters;
    assert_eq!((counters.server_calls, counters.calls_failed, counters.aborts_sent), (1, 1, 1));
    wire.expect(&["8f3a21c4 5d0e9a36 00000001 00000000 00000001 04000000 00000001 ffffffff"]);
    assert_eq!(endpoint.closed().await, CloseReason::Shutdown);
}

/// W11 asks for the version, and is answered without a connection.
#[actix_rt::test]
async fn a_version_request_is_answered_with_65_bytes() {
    let (wire, endpoint) = Wire::endpoint(|builder| {
        builder.configure(|config| config.version_text = "rxrpc test".into())
    })
    .await;
    wire.send("000003e7 00000000 00000065 00000000 00000000 0d050000 00000000 00").await;
    let mut answer = bytes("000003e7 00000000 00000065 00000000 00000000 0d040000 00000000");
    answer.extend_from_slice(b"rxrpc test");
    answer.resize(28 + 65, 0);
    let sent = std::mem::take(&mut *wire.sent.lock().unwrap());
    assert_eq!(sent, [(peer(), answer)]);
    assert!(endpoint.inspect().await.unwrap().connections.is_empty());
}

/// The client's side: W1 leaves but for the channel, W2 comes back, and the final ACK is sent after 10 ms.
#[actix_rt::test]
async fn a_client_asks_and_acknowledges_the_answer() {
    let (wire, endpoint) = Wire::endpoint(|builder| builder).await;
    let connection = endpoint.connect(peer(), 1).await.unwrap();
    wire.expect(&[]);
    let mut call = Box::pin(connection.call("ping"));
    assert!(futures::poll!(&mut call).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    wire.expect(&["8f3a21c4 5d0e9a34 00000001 00000001 00000001 01050000 00000001 70696e67"]);
    wire.send("8f3a21c4 5d0e9a34 00000001 00000001 00000001 01040000 00000001 706f6e67").await;
    assert_eq!(call.now_or_never().unwrap().unwrap(), "pong");
    wire.expect(&[]);
    tokio::time::sleep(Duration::from_millis(15)).await;
    let sent = std::mem::take(&mut *wire.sent.lock().unwrap());
    let ack = bytes(
        "8f3a21c4 5d0e9a34 00000001 00000000 00000002 02210000 00000001 \
         00000000 00000002 00000001 00000000 09000000",
    );
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1[..ack.len()], ack);
    // A call dropped before it began leaves no trace; a dropped call is aborted.
    assert!(futures::poll!(&mut Box::pin(connection.call("ping"))).is_pending());
    let mut call = Box::pin(connection.call("ping"));
    assert!(futures::poll!(&mut call).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    wire.expect(&["8f3a21c4 5d0e9a34 00000002 00000001 00000003 01050000 00000001 70696e67"]);
    drop(call);
    tokio::time::sleep(Duration::from_millis(1)).await;
    wire.expect(&["8f3a21c4 5d0e9a34 00000002 00000000 00000004 04010000 00000001 fffffffa"]);
    let mut call = Box::pin(connection.call_with("x", CallOptions::within(Duration::from_secs(3))));
    assert!(futures::poll!(&mut call).is_pending());
    endpoint.shutdown(Duration::ZERO).await;
    assert_eq!(call.await, Err(CallError::Failed(CallFailure::Closed)));
}

/// Sixteen calls that come in one batch are answered in shares: the first answers have left before the last
/// request is looked at, so that the peer need not wait for all of them.
#[actix_rt::test]
async fn many_calls_at_once_are_answered_in_shares() {
    const CALLS: usize = 16;
    tokio::time::pause();
    let request = |call: usize| {
        let cid = 0x5d0e_9a34_u32 + call as u32;
        bytes(&format!("8f3a21c4 {cid:08x} 00000001 00000001 00000001 01050000 00000001 70696e67"))
    };
    let batch: Vec<u8> = (0..CALLS).flat_map(request).collect();
    let mut batch = Some(Bytes::from(batch));
    let served = Arc::new(AtomicUsize::new(0));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut network = MockNetwork::new();
    network.expect_local_addr().return_const(SocketAddr::from(([192, 0, 2, 2], 7000)));
    network.expect_max_segments().return_const(64usize);
    network.expect_poll_send_ready().returning(|_| Poll::Ready(Ok(())));
    network.expect_poll_receive().returning(move |_, into| {
        let Some(data) = batch.take() else { return Poll::Pending };
        into.push(Incoming::Datagrams { from: peer(), stride: data.len() / CALLS, data });
        Poll::Ready(Ok(()))
    });
    let (record, at) = (sent.clone(), served.clone());
    network.expect_try_send().returning(move |transmit| {
        let answered = transmit.datagrams().filter(|datagram| datagram[20] == 1).count();
        record.lock().unwrap().push((at.load(Ordering::Relaxed), answered));
        Ok(())
    });
    let count = served.clone();
    let service = rxrpc::unary(move |request: Request| {
        count.fetch_add(1, Ordering::Relaxed);
        pong(request)
    });
    let endpoint = Endpoint::builder()
        .network(network_source(move || Ok(network)))
        .service_with(1, service, ServiceOptions::small_replies())
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    assert_eq!(served.load(Ordering::Relaxed), CALLS);
    assert_eq!(sent.iter().map(|(_, answered)| answered).sum::<usize>(), CALLS, "{sent:?}");
    assert!(sent[0].0 <= CALLS / 2 && sent.len() > 2, "answers wait for all requests: {sent:?}");
    endpoint.shutdown(Duration::ZERO).await;
}

/// Memory that the process has, in bytes.
#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[cfg(not(target_os = "linux"))]
fn resident_bytes() -> usize {
    0
}

/// A reply of 100 MB that is read slowly: both ends hold their windows and what a writer may be ahead by,
/// and no more, at any time.
#[actix_rt::test]
async fn a_slow_reader_of_a_large_reply_holds_its_window_and_no_more() {
    tokio::time::pause();
    read_slowly(1440, |window| window * 1412).await;
}

/// Large packets are held by their bytes: at most a window and a half of 1444 each (rx-flow.md 9.3).
#[actix_rt::test]
async fn a_slow_reader_of_large_packets_holds_a_window_and_a_half_and_no_more() {
    tokio::time::pause();
    read_slowly(8124, |window| window * 1444 * 3 / 2).await;
}

async fn read_slowly(datagram_max_bytes: u32, held_max: impl Fn(usize) -> usize) {
    const REPLY: usize = 100 << 20;
    const PIECE: usize = 64 << 10;
    let hub = MemoryHub::new();
    let start = async |port: u16, written: Arc<Mutex<usize>>| {
        let at = SocketAddr::from(([10, 0, 0, 1], port));
        let (_, source) = hub.bind_source(at).unwrap();
        let service = move |call: IncomingCall| {
            let written = written.clone();
            async move {
                let mut reply = call.into_reply();
                let piece = Bytes::from(vec![7; PIECE]);
                for _ in 0..REPLY / PIECE {
                    reply.write(piece.clone()).await?;
                    *written.lock().unwrap() += PIECE;
                }
                reply.finish()?;
                Ok::<_, ServiceFault>(())
            }
        };
        let builder = Endpoint::builder().network(source).service(1, service);
        let builder = builder.configure(|config| {
            for side in [&mut config.client, &mut config.server] {
                side.call.datagram_max_bytes = datagram_max_bytes;
            }
        });
        builder.start().await.unwrap()
    };
    let written = Arc::new(Mutex::new(0));
    let server = start(7000, written.clone()).await;
    let client = start(7001, Arc::default()).await;
    let connection = client.connect(server.local_addr(), 1).await.unwrap();
    let request = connection.open_call(CallOptions::default()).await.unwrap();
    let mut reply = request.finish().unwrap();
    let config = rxrpc::proto::config::CallConfig::default();
    let window = held_max(config.receive_window_max_packets as usize);
    let (mut read, mut pieces) = (0, 0);
    let before = resident_bytes();
    let mut grown = 0;
    while let Some(piece) = reply.next().await {
        read += piece.unwrap().len();
        pieces += 1;
        if pieces % 1000 != 0 {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let held = client.inspect().await.unwrap().connections[0].channels[0];
        assert!(held.buffered_bytes <= window, "{held:?}");
        let sends = server.inspect().await.unwrap().connections[0].channels[0];
        assert!(sends.in_flight_packets <= config.receive_window_max_packets, "{sends:?}");
        // The reader's window, the packets that the writer may be ahead by, and a piece under way.
        let ahead = *written.lock().unwrap() - read;
        assert!(ahead <= 4 * window + PIECE, "{ahead} bytes between the writer and the reader");
        grown = grown.max(resident_bytes().saturating_sub(before));
    }
    assert_eq!(read, REPLY);
    assert!(grown < 32 << 20, "{grown} bytes more than before");
    let counters = client.inspect().await.unwrap().counters;
    assert_eq!(counters.resent, 0);
    server.shutdown(Duration::from_secs(1)).await;
}
