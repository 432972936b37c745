//! How do I test my service without a network?
//!
//! Three ways, from the outside to the inside. Each function below is the body of a test; in your crate it
//! stands under `#[actix_rt::test]`.
//!
//! 1. In memory: client and server are real, the wire is not, and the clock is paused, so that a timeout of
//!    20 s takes no time.
//! 2. In memory, with faults drawn from a seed: does it survive a bad line?
//! 3. `MockNetwork` (feature `mock`): the test is the peer, byte by byte.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::net::{
    FaultControl, Faults, FaultyNetwork, Incoming, MemoryHub, MockNetwork, network_source,
};
use rxrpc::proto::router::Identity;
use rxrpc::wire::{
    Ack, AckReason, CallNumber, Cid, Epoch, Flags, Header, PacketType, Payload, SecurityIndex, Seq,
    Serial,
};
use rxrpc::{AbortCode, Endpoint, Service, ServiceId, ServiceOptions, unary};
use tokio::sync::mpsc;

const SHOUT: u16 = 147;

/// The service under test.
fn shout() -> impl Service {
    unary(async |request| match request.bytes.is_empty() {
        false => Ok(request.bytes.to_ascii_uppercase().into()),
        true => Err(AbortCode(4711)),
    })
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

async fn in_memory() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let (server_addr, network) = hub.bind_source(at(7000)).unwrap();
    let server = Endpoint::builder().network(network).service(SHOUT, shout()).start();
    let server = server.await.unwrap();
    let (_, network) = hub.bind_source(at(7001)).unwrap();
    let client = Endpoint::builder().network(network).start().await.unwrap();

    let connection = client.connect(server_addr, SHOUT).await.unwrap();
    assert_eq!(connection.call("hello").await.unwrap(), "HELLO");
    assert_eq!(connection.call("").await.unwrap_err().abort_code(), Some(AbortCode(4711)));

    // Nobody is there to say that the server is gone: the client finds out by itself.
    let silence = hub.bind(at(7002)).unwrap();
    let began = tokio::time::Instant::now();
    let connection = client.connect(at(7002), SHOUT).await.unwrap();
    println!("in memory: {}", connection.call("hello").await.unwrap_err());
    assert_eq!(began.elapsed().as_secs(), 20);
    drop((server, silence));
    tokio::time::resume();
}

async fn on_a_bad_line() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let (server_addr, network) = hub.bind_source(at(7000)).unwrap();
    let server = Endpoint::builder().network(network).service(SHOUT, shout()).start();
    let server = server.await.unwrap();

    // A fifth of all datagrams is lost in each direction, some come twice or late. The seed names the case:
    // print it when a test fails.
    let (faults, seed) = (FaultControl::new(), 7);
    faults.set(Faults {
        loss_probability: 0.2,
        duplicate_probability: 0.1,
        delay_ms: 10,
        jitter_ms: 30,
        ..Faults::default()
    });
    let line = hub.bind(at(7001)).unwrap();
    let control = faults.clone();
    let network = network_source(move || Ok(FaultyNetwork::new(line, seed, control)));
    let client = Endpoint::builder().network(network).start().await.unwrap();

    let connection = client.connect(server_addr, SHOUT).await.unwrap();
    let request = vec![b'x'; 100_000];
    assert_eq!(connection.call(request).await.unwrap(), vec![b'X'; 100_000]);
    let lost =
        faults.outgoing_counters().lost_datagrams + faults.incoming_counters().lost_datagrams;
    println!("on a bad line: {lost} datagrams were lost, and sent again");
    assert!(lost > 0);
    drop(server);
    tokio::time::resume();
}

/// A client's packet. The numbers are the test's own, so that it can say what must come back.
fn packet(seq: u32, serial: u32, packet_type: PacketType, flags: Flags, payload: &[u8]) -> Bytes {
    let header = Header {
        epoch: Epoch(0x8000_1234),
        cid: Cid(0x0001_0000),
        call_number: CallNumber(1),
        seq: Seq(seq),
        serial: Serial(serial),
        packet_type,
        flags: flags.with(Flags::CLIENT_INITIATED),
        user_status: 0,
        security_index: SecurityIndex::NULL,
        cksum: 0,
        service_id: ServiceId(SHOUT),
    };
    [&header.encode(), payload].concat().into()
}

async fn byte_by_byte() {
    let peer: SocketAddr = "192.0.2.1:7001".parse().unwrap();
    let (to_server, mut arriving) = mpsc::unbounded_channel::<Bytes>();
    let (leaving, mut from_server) = mpsc::unbounded_channel();
    let mut network = MockNetwork::new();
    network.expect_local_addr().return_const(at(7000));
    network.expect_max_segments().return_const(1usize);
    network.expect_poll_receive().returning(move |task, into| {
        let Poll::Ready(Some(data)) = arriving.poll_recv(task) else { return Poll::Pending };
        let stride = data.len();
        into.push(Incoming::Datagrams { from: peer, data, stride });
        Poll::Ready(Ok(()))
    });
    network.expect_try_send().returning(move |transmit| {
        assert_eq!(transmit.to, peer);
        let _ = leaving.send(transmit.contents.to_vec());
        Ok(())
    });

    // Without the check of the client's address, which would be a PING first.
    let options = ServiceOptions::small_replies();
    // Names and serials that repeat; others are drawn at random.
    let identity = Identity { epoch: Epoch(0x8000_0001), first_cid: Cid(4), hash_seed: 1 };
    let server = Endpoint::builder()
        .identity(identity)
        .network(network_source(move || Ok(network)))
        .service_with(SHOUT, shout(), options)
        .start()
        .await
        .unwrap();

    // The request, in one packet: it is the last one of its direction.
    to_server.send(packet(1, 1, PacketType::Data, Flags::LAST_PACKET, b"hello")).unwrap();
    let reply = from_server.recv().await.unwrap();
    println!("byte by byte: {reply:02x?}");
    #[rustfmt::skip]
    let expected = [
        0x80, 0x00, 0x12, 0x34,     // epoch: the client's
        0x00, 0x01, 0x00, 0x00,     // connection id, channel 0
        0x00, 0x00, 0x00, 0x01,     // call number
        0x00, 0x00, 0x00, 0x01,     // seq: the reply's first packet
        0x00, 0x00, 0x00, 0x01,     // serial: the server's first packet
        1, 4, 0, 0,                 // DATA, flags: last packet, user status, security index
        0x00, 0x00,                 // checksum: none
        0x00, 0x93,                 // service 147
        b'H', b'E', b'L', b'L', b'O',
    ];
    assert_eq!(reply, expected);

    // The final ACK; without it the server would send the reply again.
    let ack = Ack {
        buffer_space: 0,
        max_skew: 0,
        first_packet: Seq(2),
        previous_packet: Seq(1),
        serial: Serial(1),
        reason: AckReason::Idle,
        sacks: &[],
        padding: [0; 3],
        trailer: rxrpc::wire::Trailer::None,
        excess: &[],
    };
    let mut payload = Vec::new();
    Payload::Ack(ack).encode(&mut payload);
    to_server.send(packet(0, 2, PacketType::Ack, Flags::NONE, &payload)).unwrap();
    let report = server.shutdown(Duration::from_secs(5)).await;
    assert_eq!(report.calls_cut, 0);
}

#[actix_rt::main]
async fn main() {
    in_memory().await;
    on_a_bad_line().await;
    byte_by_byte().await;
}
