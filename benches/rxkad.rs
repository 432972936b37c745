//! What it costs to seal and open full packets, one by one and as a run.
//!
//! `cargo bench --bench rxkad`; with an argument, only levels of that name. Prints the best of several
//! rounds: other work on the machine only ever makes it slower.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use rxrpc::security::rxkad::{self, SessionKey, Token};
use rxrpc::security::{
    ClientClass, ConnectionIds, Level, PacketIds, PlainPacket, SealedPacket, Session,
};
use rxrpc::wire::{CallNumber, Cid, Epoch, Seq, ServiceId};

/// Room for a payload in a packet, and packets of a run.
const ROOM: usize = 1412;
const RUN: usize = 32;
/// Short ones, so that some of them are not interrupted.
const ROUNDS: usize = 1000;
const RUNS_PER_ROUND: usize = 2;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("{RUN} packets of at most {ROOM} bytes a run; per packet, best of {ROUNDS} rounds");
    for level in [Level::Clear, Level::Auth, Level::Crypt] {
        if wanted.is_empty() || wanted.contains(&level.to_string()) {
            measure_level(level);
        }
    }
}

fn measure_level(level: Level) {
    let session = session(level);
    let session = &*session;
    let len = session.plain_max(ROOM);
    let plain = vec![0x5a; len * RUN];
    let packets: Vec<_> = (1..=RUN as u32).map(|seq| PlainPacket { ids: ids(seq), len }).collect();
    let mut sealed = Vec::new();
    for (packet, plain) in packets.iter().zip(plain.chunks(len)) {
        let mut out = BytesMut::new();
        let cksum = session.seal(&packet.ids, plain, &mut out);
        sealed.push(SealedPacket { ids: packet.ids, cksum, payload: Bytes::from(out) });
    }
    let mut out = BytesMut::new();
    let mut ends = Vec::new();
    let single = measure(|| {
        for (packet, plain) in packets.iter().zip(plain.chunks(len)) {
            out.clear();
            black_box(session.seal(&packet.ids, black_box(plain), &mut out));
        }
    });
    let run = measure(|| {
        out.clear();
        ends.clear();
        session.seal_run(&packets, black_box(&plain), &mut out, &mut ends);
    });
    report(level, "seal", len, single, run);
    let (mut memory, mut opened) = (BytesMut::new(), Vec::new());
    let single = measure(|| {
        for packet in &sealed {
            let opened = session.open(&packet.ids, packet.cksum, packet.payload.clone());
            let _ = black_box(opened);
        }
    });
    let run = measure(|| {
        opened.clear();
        memory.reserve(ROOM * RUN);
        let _ = black_box(session.open_run(black_box(&sealed), &mut memory, &mut opened));
    });
    report(level, "open", len, single, run);
}

/// Best time of a packet.
fn measure(mut work: impl FnMut()) -> Duration {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..RUNS_PER_ROUND {
            work();
        }
        start.elapsed() / (RUNS_PER_ROUND * RUN) as u32
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

fn report(level: Level, what: &str, len: usize, single: Duration, run: Duration) {
    let rate = |time: Duration| len as f64 / time.as_secs_f64() / 1e6;
    println!(
        "{level:>5} {what} {len} B: alone {:>6} ns ({:>6.0} MB/s), in a run {:>6} ns ({:>6.0} MB/s), {:.2} times",
        single.as_nanos(),
        rate(single),
        run.as_nanos(),
        rate(run),
        single.as_secs_f64() / run.as_secs_f64(),
    );
}

fn session(level: Level) -> std::sync::Arc<dyn Session> {
    let key = SessionKey::new(*b"\x01\x23\x45\x67\x89\xab\xcd\xef");
    let token = Token { kvno: 1, ticket: Vec::new(), key, expires: SystemTime::UNIX_EPOCH };
    let ids = ConnectionIds {
        epoch: Epoch(1),
        cid: Cid(4),
        service_id: ServiceId(4),
        security_index: rxkad::INDEX,
    };
    let start = rxkad::Client::new(token, level).connect(ids, &[0; 32]);
    start.session.expect("a session")
}

fn ids(seq: u32) -> PacketIds {
    PacketIds { cid: Cid(4), call_number: CallNumber(1), seq: Seq(seq), from_client: true }
}
