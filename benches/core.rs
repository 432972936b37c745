//! Costs of the protocol core by parts, without sockets and actors: `cargo bench --bench core`; a word more
//! measures only what has it in its name.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use rxrpc::proto::channel::{Channel, ChannelOutput, ChannelSetup, Command, Run, Security, Start};
use rxrpc::proto::config::{CallConfig, EndpointConfig};
use rxrpc::proto::peer::PeerHint;
use rxrpc::proto::router::{Identity, Router, RouterOutput, Step};
use rxrpc::proto::{Role, SerialCounter};
use rxrpc::security::ConnectionIds;
use rxrpc::wire::{
    Ack, AckReason, CallNumber, ChannelIndex, Cid, Epoch, Flags, FullTrailer, HEADER_LEN, Header,
    Packet, PacketType, SecurityIndex, Seq, Serial, ServiceId, Trailer,
};

const PAYLOAD_BYTES: usize = 1412;
const STRIDE: usize = HEADER_LEN + PAYLOAD_BYTES;
const RUN: u32 = 45;
const WINDOW: u32 = 255;
const EPOCH: Epoch = Epoch(0x4000_0001);

fn header(packet_type: PacketType, flags: Flags, seq: u32) -> Header {
    Header {
        epoch: EPOCH,
        cid: Cid(4),
        call_number: CallNumber(1),
        seq: Seq(seq),
        serial: Serial(seq.max(1)),
        packet_type,
        flags,
        user_status: 0,
        security_index: SecurityIndex::NULL,
        cksum: 0,
        service_id: ServiceId(1),
    }
}

/// Full DATA packets of a client, one behind the other.
fn data(seqs: impl Iterator<Item = u32>) -> Bytes {
    let mut bytes = Vec::new();
    for seq in seqs {
        bytes.extend_from_slice(&header(PacketType::Data, Flags::CLIENT_INITIATED, seq).encode());
        bytes.resize(bytes.len() + PAYLOAD_BYTES, 7);
    }
    bytes.into()
}

fn ack(first: u32, sacks: &[u8], flags: Flags) -> Vec<u8> {
    let ack = Ack {
        buffer_space: 0,
        max_skew: 0,
        first_packet: Seq(first),
        previous_packet: Seq(first + sacks.len() as u32),
        serial: Serial(1),
        reason: AckReason::Delay,
        sacks,
        padding: [0; 3],
        trailer: Trailer::Full(FullTrailer {
            max_mtu: 1444,
            if_mtu: 1444,
            rwind: WINDOW,
            jumbo_max: 1,
        }),
        excess: &[],
    };
    let mut bytes = header(PacketType::Ack, flags, 0).encode().to_vec();
    ack.encode(&mut bytes);
    bytes
}

fn codecs(c: &mut Criterion) {
    let mut group = c.benchmark_group("codecs");
    let packet = data(1..2);
    group.bench_function("header, decode", |b| b.iter(|| Header::decode(black_box(&packet))));
    let parsed = Header::decode(&packet).expect("a header");
    group.bench_function("header, encode", |b| b.iter(|| black_box(&parsed).encode()));
    group.bench_function("DATA, decode", |b| {
        b.iter(|| Packet::decode(black_box(&packet)).is_ok());
    });
    let table = [1; WINDOW as usize];
    let packet = ack(1, &table, Flags::NONE);
    group.bench_function("ACK with 255 entries, decode", |b| {
        b.iter(|| Packet::decode(black_box(&packet)).is_ok());
    });
    group.bench_function("ACK with 255 entries, encode", |b| {
        b.iter(|| ack(1, black_box(&table), Flags::NONE));
    });
    group.finish();
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("routing");
    let now = Instant::now();
    let peer = SocketAddr::from(([10, 0, 0, 1], 7001));
    let config = EndpointConfig {
        connections_max: 1_000_000,
        connections_per_peer_max: 1_000_000,
        ..EndpointConfig::default()
    };
    for count in [1, 1_000, 100_000] {
        let identity = Identity { epoch: EPOCH, first_cid: Cid(4), hash_seed: 7 };
        let mut router: Router<()> = Router::new(Arc::new(config.clone()), identity, now);
        let mut cids = Vec::new();
        for _ in 0..count {
            let ids: ConnectionIds = router.allocate(ServiceId(1), SecurityIndex::NULL);
            router.insert_client(now, ids, peer, (), &mut RouterOutput::default());
            cids.push(ids.cid);
        }
        // Replies: one full packet for each of 64 connections, and a run of 45 for one.
        let datagram = |cid: Cid, seq: u32| {
            let header = Header { cid, ..header(PacketType::Data, Flags::NONE, seq) };
            [&header.encode()[..], &[7; PAYLOAD_BYTES]].concat()
        };
        let mixed: Vec<u8> = (0..64)
            .flat_map(|at| datagram(cids[at * 769 % cids.len()], 1))
            .take(STRIDE * RUN as usize)
            .collect();
        let run: Vec<u8> = (1..=RUN).flat_map(|seq| datagram(cids[0], seq)).collect();
        for (name, batch) in [("one run", &run), ("a connection each", &mixed)] {
            group.throughput(Throughput::Elements(RUN.into()));
            group.bench_function(format!("batch of 45, {name}, {count} connections"), |b| {
                let mut out = RouterOutput::default();
                b.iter(|| {
                    router.begin_batch(now, peer, batch.len(), STRIDE);
                    let (mut at, mut steps) = (0, 0);
                    while let Some(step) =
                        router.next_step(now, peer, batch, STRIDE, &mut at, &mut out)
                    {
                        steps += usize::from(matches!(step, Step::Run { .. }));
                    }
                    assert!(steps > 0, "datagrams find their connection");
                });
            });
        }
    }
    group.finish();
}

fn channel(role: Role, now: Instant) -> Channel {
    let setup = ChannelSetup {
        role,
        epoch: EPOCH,
        cid: Cid(4),
        index: ChannelIndex::ALL[0],
        security_index: SecurityIndex::NULL,
        service_id: ServiceId(1),
        config: Arc::new(CallConfig::server()),
        serials: SerialCounter::starting_at(Serial(1)),
        security: Security::Ready(None),
        needs_reach: false,
        hint: PeerHint::default().into(),
        memory: Default::default(),
    };
    Channel::new(setup, now)
}

/// A server's channel that reads a request: the window is open wide.
fn reading(now: Instant) -> (Channel, u32) {
    let mut channel = channel(Role::Server, now);
    let mut out = ChannelOutput::default();
    let mut next = 1;
    while next < 2 * WINDOW {
        let run = Run { data: data(next..next + 5), stride: STRIDE };
        channel.handle_run(now, &PeerHint::default(), &run, &mut out);
        consume(&mut channel, now, 5, &mut out);
        next += 5;
    }
    (channel, next)
}

fn consume(channel: &mut Channel, now: Instant, packets: u32, out: &mut ChannelOutput) {
    let bytes = packets as usize * PAYLOAD_BYTES;
    let command = Command::Consumed { packets, bytes };
    channel.handle_command(now, channel.tag(), command, out);
    *out = ChannelOutput::default();
}

/// All up to this packet.
fn hard_ack(last: u32) -> Run {
    let data = Bytes::from(ack(last + 1, &[], Flags::NONE));
    Run { stride: data.len(), data }
}

fn windows(c: &mut Criterion) {
    let mut group = c.benchmark_group("windows");
    let now = Instant::now();
    let (server, next) = reading(now);
    for packets in [1, RUN, 200] {
        let run = Run { data: data(next..next + packets), stride: STRIDE };
        group.throughput(Throughput::Elements(packets.into()));
        group.bench_function(format!("receive a run of {packets}"), |b| {
            b.iter_batched_ref(
                || (server.clone(), ChannelOutput::default()),
                |(channel, out)| channel.handle_run(now, &PeerHint::default(), &run, out),
                BatchSize::SmallInput,
            );
        });
    }
    let mut client = channel(Role::Client, now);
    let mut out = ChannelOutput::default();
    client.handle_start(now, Start::default(), &mut out);
    out = ChannelOutput::default();
    let write = |packets: usize| Command::Write {
        bytes: Bytes::from(vec![7; packets * PAYLOAD_BYTES]),
        ends: false,
        flushes: true,
    };
    // Slow start, until the window is open wide; nothing is on its way then.
    let (mut sent, mut acked) = (0, 0);
    for _ in 0..1000 {
        if sent < 4 * WINDOW {
            client.handle_command(now, client.tag(), write(32), &mut out);
        }
        sent += out.datagrams.count() as u32;
        out = ChannelOutput::default();
        if acked < sent {
            let run = hard_ack(sent);
            let now = now + Duration::from_micros(50);
            client.handle_run(now, &PeerHint::default(), &run, &mut out);
            acked = sent;
        }
    }
    assert_eq!(client.in_flight_packets(), 0);
    group.throughput(Throughput::Elements(RUN.into()));
    group.bench_function("send 45", |b| {
        b.iter_batched_ref(
            || (client.clone(), ChannelOutput::default(), write(RUN as usize)),
            |(channel, out, write)| {
                channel.handle_command(now, channel.tag(), write.clone(), out);
                assert_eq!(out.datagrams.count(), RUN as usize, "all leave");
            },
            BatchSize::SmallInput,
        );
    });
    client.handle_command(now, client.tag(), write(RUN as usize), &mut out);
    let run = hard_ack(acked + RUN);
    group.bench_function("hard ACK of 45", |b| {
        b.iter_batched_ref(
            || (client.clone(), ChannelOutput::default()),
            |(channel, out)| {
                channel.handle_run(now, &PeerHint::default(), &run, out);
                assert_eq!(channel.in_flight_packets(), 0, "it is an ACK of all");
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn sack(c: &mut Criterion) {
    let mut group = c.benchmark_group("SACK");
    let now = Instant::now();
    let (server, next) = reading(now);
    // The first is missing: each run is answered with a table.
    for (name, step) in [("one gap", 1), ("every other missing", 2)] {
        let seqs = (next + 1..next + 200).step_by(step).take(90);
        let run = Run { data: data(seqs), stride: STRIDE };
        group.bench_function(format!("90 packets out of order, {name}: window and table"), |b| {
            b.iter_batched_ref(
                || (server.clone(), ChannelOutput::default()),
                |(channel, out)| channel.handle_run(now, &PeerHint::default(), &run, out),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for part in [codecs, routing, windows, sack] {
        part(&mut criterion);
    }
    criterion.final_summary();
}
