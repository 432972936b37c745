//! What a packet and a call cost in allocations, both ends together, through the tree of actors and the kernel.
//!
//! Both endpoints are on this thread, so nothing depends on which of two threads is faster. Lengths are
//! subtracted from each other: start and end of a connection do not count.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rxrpc::{CallOptions, ConnectOptions, Connection, Endpoint, IncomingCall, ServiceFault, unary};

/// Allocations for a DATA packet of a long transfer; growing a buffer counts as one.
const PER_PACKET_MAX: f64 = 0.25;
/// Allocations for a call with one packet each way, one after the other.
const PER_CALL_MAX: f64 = 20.0;
/// The same, many at once, where fewer packets come together on a machine that does nothing else.
const PER_CALL_OF_MANY_MAX: f64 = 21.5;
const PACKET_BYTES: usize = 1412;
const PIECE_BYTES: usize = 64 << 10;
const ECHO: u16 = 1;
const ZEROS: u16 = 2;
const SINK: u16 = 3;

/// As many bytes as the request asks for.
async fn zeros(mut call: IncomingCall) -> Result<(), ServiceFault> {
    let request = call.read_all(8).await?;
    let mut left = u64::from_be_bytes(request[..].try_into().expect("eight bytes")) as usize;
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let mut writer = call.into_reply();
    while left > 0 {
        let most = left.min(PIECE_BYTES);
        writer.write(piece.slice(..most)).await?;
        left -= most;
    }
    Ok(writer.finish()?)
}

async fn sink(mut call: IncomingCall) -> Result<(), ServiceFault> {
    while let Some(piece) = call.next().await {
        piece?;
    }
    call.reply(Bytes::new());
    Ok(())
}

/// Allocations of all that happens while `work` has a client and the address of a server.
fn count(work: impl AsyncFnOnce(Endpoint, SocketAddr)) -> f64 {
    let info = allocation_counter::measure(|| {
        actix_rt::System::new().block_on(async {
            let echo = unary(async |request| Ok(request.bytes));
            let at = ([127, 0, 0, 1], 0);
            let server = Endpoint::builder().bind(at).service(ECHO, echo);
            let server = server.service(ZEROS, zeros).service(SINK, sink).start().await.unwrap();
            let client = Endpoint::builder().bind(at).start().await.unwrap();
            work(client, server.local_addr()).await;
        });
    });
    info.count_total as f64
}

async fn receive(client: Endpoint, server: SocketAddr, bytes: usize) {
    let connection = client.connect(server, ZEROS).await.unwrap();
    let mut request = connection.open_call(CallOptions::default()).await.unwrap();
    request.write(Bytes::copy_from_slice(&(bytes as u64).to_be_bytes())).await.unwrap();
    let mut reply = request.finish().unwrap();
    let mut came = 0;
    while let Some(piece) = reply.next().await {
        came += piece.unwrap().len();
    }
    assert_eq!(came, bytes);
}

async fn send(client: Endpoint, server: SocketAddr, bytes: usize) {
    let connection = client.connect(server, SINK).await.unwrap();
    let mut request = connection.open_call(CallOptions::default()).await.unwrap();
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    for _ in 0..bytes / PIECE_BYTES {
        request.write(piece.clone()).await.unwrap();
    }
    request.finish().unwrap().read_all(0).await.unwrap();
}

async fn calls(client: Endpoint, server: SocketAddr, in_flight: usize, each: usize) {
    let options = ConnectOptions { connections_max: 16, ..ConnectOptions::default() };
    let connection = client.connect_with(server, ECHO, options).await.unwrap();
    let carry = async |connection: Connection| {
        let request = Bytes::from(vec![7; 64]);
        for _ in 0..each {
            assert_eq!(connection.call(request.clone()).await.unwrap().len(), 64);
        }
    };
    let mut carriers: FuturesUnordered<_> =
        (0..in_flight).map(|_| carry(connection.clone())).collect();
    while carriers.next().await.is_some() {}
}

fn per_packet(transfer: impl AsyncFn(Endpoint, SocketAddr, usize)) -> f64 {
    let [short, long] = [8 << 20, 40 << 20];
    let of = |bytes| count(async |client, server| transfer(client, server, bytes).await);
    // The first transfer fills what belongs to the process.
    of(short);
    (of(long) - of(short)) / ((long - short) / PACKET_BYTES) as f64
}

#[test]
fn a_packet_of_a_transfer_has_few_allocations() {
    for (way, count) in [("recv", per_packet(receive)), ("send", per_packet(send))] {
        println!("{way}: {count:.3} allocations per DATA packet, both ends");
        assert!(count <= PER_PACKET_MAX, "{way}: {count:.3}");
    }
}

#[test]
fn a_call_has_few_allocations() {
    for (in_flight, most) in
        [(1, PER_CALL_MAX), (16, PER_CALL_OF_MANY_MAX), (64, PER_CALL_OF_MANY_MAX)]
    {
        let of = |each| count(async |client, server| calls(client, server, in_flight, each).await);
        of(10);
        let more = 200;
        let per_call = || (of(10 + more) - of(10)) / (in_flight * more) as f64;
        // A machine that is busy with other things has timers run out, which only ever adds some.
        let count = (0..5).map(|_| per_call()).find(|count| *count <= most);
        let count = count.unwrap_or_else(per_call);
        println!("{in_flight} in flight: {count:.2} allocations per call, both ends");
        assert!(count <= most, "{in_flight} in flight: {count:.2}");
    }
}
