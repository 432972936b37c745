//! Fixed amounts of work of the protocol core, for counting instructions: `benches/instructions.sh` runs this
//! under callgrind and compares with what was counted before. No socket, no clock, no randomness.
//!
//! Only what happens in [`measured`] is counted.

use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{Cid, Epoch};

/// Rounds of each kind of work.
const ROUNDS: usize = 200;
const PACKET_BYTES: usize = 1412;
const SERVICE: u16 = 1;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    match &name[..] {
        "call" => calls(),
        "run5" => transfer(5, Which::Receive),
        "run45" => transfer(45, Which::Receive),
        "send45" => transfer(45, Which::Send),
        "ack45" => transfer(45, Which::Ack),
        _ => {
            eprintln!("usage: instructions call|run5|run45|send45|ack45");
            return ExitCode::from(2);
        }
    }
    println!("{name} {ROUNDS}");
    ExitCode::SUCCESS
}

/// What is counted. Not inlined, so that callgrind finds it.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

struct End {
    endpoint: InlineEndpoint,
    address: SocketAddr,
    /// Calls that this end has got notices of.
    call: Option<CallRef>,
    is_over: bool,
    unread: (u32, usize),
}

type Batch = (SocketAddr, Vec<u8>, usize);

impl End {
    fn new(port: u16, now: Instant) -> End {
        let epoch = Epoch(0x4000_0000 | u32::from(port));
        let identity = Identity { epoch, first_cid: Cid(4), hash_seed: 7 };
        let mut config = EndpointConfig::default();
        // The fixed work is packets of the usual size.
        for side in [&mut config.client, &mut config.server] {
            side.call.datagram_max_bytes = 1440;
        }
        let mut endpoint = InlineEndpoint::new(config, identity, now);
        endpoint.keep_batches();
        let classes = vec![Arc::new(RxNull) as _];
        endpoint.offer(SERVICE.into(), Offer { classes, needs_reach: false, upgrades_to: None });
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        End { endpoint, address, call: None, is_over: false, unread: (0, 0) }
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, batch: Batch) {
        let (_, bytes, stride) = batch;
        self.endpoint.receive_batch(now, from, Bytes::from(bytes), stride);
    }

    /// Notices what the application is told.
    fn notice(&mut self) {
        for (call, notice) in self.endpoint.take_notices() {
            self.call = Some(call);
            match notice {
                Notice::Data(pieces) => {
                    self.unread.0 += pieces.len() as u32;
                    self.unread.1 += pieces.iter().map(Bytes::len).sum::<usize>();
                }
                Notice::End => self.is_over = true,
                Notice::Failed(failure) => panic!("a call failed: {failure}"),
                _ => {}
            }
        }
        self.endpoint.take_events();
    }

    fn consume(&mut self, now: Instant) {
        let (packets, bytes) = std::mem::take(&mut self.unread);
        if let Some(call) = self.call
            && packets > 0
        {
            self.endpoint.command(now, call, Command::Consumed { packets, bytes });
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        let call = self.call.expect("a call");
        self.endpoint.command(now, call, command);
    }
}

/// Hands over all that both have sent, until nothing is left.
fn exchange(now: Instant, client: &mut End, server: &mut End) {
    loop {
        let up = client.endpoint.take_batches();
        let down = server.endpoint.take_batches();
        if up.is_empty() && down.is_empty() {
            return;
        }
        for batch in up {
            server.receive(now, client.address, batch);
        }
        for batch in down {
            client.receive(now, server.address, batch);
        }
        server.notice();
        client.notice();
    }
}

/// Whole calls, a packet each way, both ends.
fn calls() {
    let mut now = Instant::now();
    let (mut client, mut server) = (End::new(7001, now), End::new(7009, now));
    let route = client.endpoint.connect(now, server.address, SERVICE.into(), &RxNull, false);
    let request = Bytes::from(vec![7; 64]);
    for round in 0..ROUNDS + 10 {
        now += Duration::from_micros(50);
        let mut work = || call(now, &mut client, &mut server, route, &request);
        if round < 10 { work() } else { measured(work) }
    }
}

fn call(now: Instant, client: &mut End, server: &mut End, route: RouteId, request: &Bytes) {
    let start = Start { request: request.clone(), is_whole: true, ..Start::default() };
    client.endpoint.start(now, route, start);
    exchange(now, client, server);
    assert!(server.is_over, "the request has come");
    server.consume(now);
    server.command(now, Command::Write { bytes: request.clone(), ends: true, flushes: false });
    exchange(now, client, server);
    assert!(client.is_over, "the reply has come");
    client.consume(now);
    client.command(now, Command::End);
    (client.is_over, server.is_over) = (false, false);
    exchange(now, client, server);
}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Send,
    Receive,
    Ack,
}

/// One long request, `packets` at a time: written and sent, received, acknowledged.
fn transfer(packets: usize, which: Which) {
    let mut now = Instant::now();
    let (mut client, mut server) = (End::new(7001, now), End::new(7009, now));
    let route = client.endpoint.connect(now, server.address, SERVICE.into(), &RxNull, false);
    client.endpoint.start(now, route, Start::default());
    let (_, call) = client.endpoint.take_started()[0];
    client.call = Some(call);
    let bytes = Bytes::from(vec![7; packets * PACKET_BYTES]);
    // The windows open first.
    for round in 0..ROUNDS + 100 {
        now += Duration::from_micros(50);
        let counts = |this| round >= 100 && which == this;
        let write = Command::Write { bytes: bytes.clone(), ends: false, flushes: true };
        let send = || client.command(now, write);
        if counts(Which::Send) {
            measured(send)
        } else {
            send()
        }
        for _ in 0..100 {
            let sent = client.endpoint.take_batches();
            if sent.is_empty() {
                break;
            }
            for batch in sent {
                let receive = || server.receive(now, client.address, batch);
                if counts(Which::Receive) {
                    measured(receive)
                } else {
                    receive()
                }
                server.notice();
            }
            server.consume(now);
            // Delayed acknowledgements are due by then.
            let later = now + Duration::from_millis(200);
            if server.endpoint.next_deadline().is_some_and(|at| at <= later) {
                now = later;
                server.endpoint.advance(now);
            }
            for batch in server.endpoint.take_batches() {
                let receive = || client.receive(now, server.address, batch);
                if counts(Which::Ack) { measured(receive) } else { receive() }
            }
            client.notice();
        }
    }
    let received = server.endpoint.counters().received_by_type[1];
    assert_eq!(received as usize, packets * (ROUNDS + 100), "all packets arrive once");
}
