//! What a packet and a call cost in allocations, both ends together, through the tree of actors and the kernel.
//!
//! Both endpoints are on this thread, so nothing depends on which of two threads is faster. Lengths are
//! subtracted from each other: start and end of a connection do not count.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rxrpc::{CallOptions, ConnectOptions, Connection, Endpoint, IncomingCall, ServiceFault, unary};

/// Allocations for a DATA packet of a long transfer; growing a buffer counts as one.
const PER_PACKET_MAX: f64 = 0.25;
/// Allocations for a call with one packet each way, one after the other.
const PER_CALL_MAX: f64 = 12.0;
/// The same, many at once, where fewer packets come together on a machine that does nothing else.
const PER_CALL_OF_MANY_MAX: f64 = 12.0;
/// The same, in turns on many connections that are idle in between.
const PER_CALL_IN_TURN_MAX: f64 = 18.0;
/// And the client's datagrams: the next call acknowledges the reply.
const DATAGRAMS_IN_TURN_MAX: f64 = 1.1;
/// Connections of that, and how long they are idle: longer than a lone call's final ACK waits.
const IN_TURN: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);
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

/// Rounds of a call on each of many connections, four at once. How many datagrams the last rounds needed.
async fn calls_in_turn(client: Endpoint, server: SocketAddr, rounds: usize) -> f64 {
    let options = ConnectOptions { connections_max: 1, ..ConnectOptions::default() };
    let mut connections = Vec::new();
    for _ in 0..IN_TURN {
        connections.push(client.connect_with(server, ECHO, options.clone()).await.unwrap());
    }
    let request = Bytes::from(vec![7; 64]);
    let sent = async || client.inspect().await.expect("it runs").counters.datagrams_sent;
    let (mut before, warm) = (0, 2);
    for round in 0..rounds {
        if round == warm {
            before = sent().await;
        }
        let calls = futures::stream::iter(&connections);
        let calls = calls.map(|connection| connection.call(request.clone()));
        calls
            .buffer_unordered(4)
            .for_each(async |reply| assert_eq!(reply.unwrap().len(), 64))
            .await;
        tokio::time::sleep(PAUSE).await;
    }
    (sent().await - before) as f64 / (IN_TURN * (rounds - warm)) as f64
}

#[test]
fn a_call_on_one_of_many_connections_has_few_allocations_and_no_ack_of_its_own() {
    let of = |rounds| {
        let mut datagrams = 0.0;
        let count =
            count(async |client, server| datagrams = calls_in_turn(client, server, rounds).await);
        (count, datagrams)
    };
    of(4);
    let more = 20;
    let per_call = || {
        let ((long, datagrams), (short, _)) = (of(4 + more), of(4));
        ((long - short) / (IN_TURN * more) as f64, datagrams)
    };
    // On a machine that is busy with other things some calls come late.
    let is_good = |(count, datagrams): &(f64, f64)| {
        *count <= PER_CALL_IN_TURN_MAX && *datagrams <= DATAGRAMS_IN_TURN_MAX
    };
    let found = (0..5).map(|_| per_call()).find(is_good).unwrap_or_else(per_call);
    let (count, datagrams) = found;
    println!("in turn: {count:.2} allocations per call, {datagrams:.2} datagrams of the client");
    assert!(is_good(&found), "{count:.2}, {datagrams:.2}");
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
    // A machine that is busy with other things has smaller batches, which only ever add some.
    let few = |per_packet: &dyn Fn() -> f64| {
        let found = (0..5).map(|_| per_packet()).find(|count| *count <= PER_PACKET_MAX);
        found.unwrap_or_else(per_packet)
    };
    let [recv, send] = [few(&|| per_packet(receive)), few(&|| per_packet(send))];
    for (way, count) in [("recv", recv), ("send", send)] {
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
