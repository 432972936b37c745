//! A soak with OpenAFS's library, both ways: calls as fast as they go, a tenth of them through loss.
//!
//! Counters of both ends decide, never the clock: every call is good and its content right, nobody was told BUSY, and
//! nothing was sent again but for a datagram that was lost. Each request carries its call's number, and the server,
//! theirs or ours, notes which has run: each once. Our end, whichever it is, notes every datagram and whether it was
//! lost; a call that stalled is explained by its own, or by a machine that stood still, or it fails the run.
//! `RXRPC_SOAK_OPENAFS_CALLS` sets the number of calls each way. A million:
//! `RXRPC_SOAK_OPENAFS_CALLS=1000000 cargo test --release --test soak_openafs -- --nocapture`

#[path = "support/ledger.rs"]
#[allow(dead_code)]
mod ledger;
#[path = "support/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "support/machine.rs"]
mod machine;
#[path = "support/openafs.rs"]
mod openafs;
#[path = "support/runs.rs"]
#[allow(dead_code)]
mod runs;
#[path = "support/stalls.rs"]
#[allow(dead_code)]
mod stalls;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger::Ledger;
use machine::{Machine, Pause};
use openafs::{Load, Rig, Table, number, openafs_is, rig, run_telling, say, serial};
use runs::{Runs, Sums};
use rxrpc::net::FaultControl;
use rxrpc::{Endpoint, Request, unary};
use stalls::{Patience, STALL_MIN, Stalls, openafs_patience, our_patience};

const CALLS: u32 = 4_000;
/// One call in so many goes through loss.
const LOSSY_PART: u32 = 10;
const LOSS: f64 = 0.01;
/// The server has to run each call itself, and to see that what came is what was sent.
const OPERATION: &str = "sum";
const SERVICE: u16 = 147;
/// A request's words: the version, the operation, two hints, and how many bytes follow; see interop/openafs.
const HEAD: [u32; 5] = [3, 260, 65_536, 65_536, CONTENT_BYTES];
const CONTENT_BYTES: u32 = 20;
const COOKIE: u32 = 0x4711;
/// Calls at once, and their connections: as many as there are channels. Who waits for a timer keeps one.
const CLEAN: (u32, u32) = (4, 1);
const LOSSY: (u32, u32) = (64, 16);

/// A run of `calls`, `parallel` at once over so many connections, with a loss each way.
#[derive(Clone, Copy)]
struct Size {
    calls: u32,
    parallel: u32,
    connections: u32,
    loss: Option<f64>,
}

impl Size {
    fn new(calls: u32, (parallel, connections): (u32, u32), loss: Option<f64>) -> Size {
        Size { calls: calls.next_multiple_of(parallel), parallel, connections, loss }
    }
}

/// Far longer than any machine takes for a call, those that wait for a timer among them.
const CALL_LIMIT_MS: u64 = 20;
/// Where a reply is lost, the request goes again too.
const RESENT_PER_LOSS_MAX: i64 = 2;

fn calls() -> u32 {
    let text = std::env::var("RXRPC_SOAK_OPENAFS_CALLS");
    text.map_or(CALLS, |text| text.parse().expect("RXRPC_SOAK_OPENAFS_CALLS is a number"))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// IEEE's, bit by bit: nobody's library judges itself.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

fn request(number: u64) -> Bytes {
    let mut request = words(&HEAD);
    request.extend_from_slice(&number.to_be_bytes());
    request.extend((8..CONTENT_BYTES as u8).map(|index| index.wrapping_mul(number as u8)));
    request.into()
}

/// What `sum` answers to that request.
fn reply(request: &[u8]) -> Vec<u8> {
    let content = &request[4 * HEAD.len()..];
    words(&[content.len() as u32, crc32(content), COOKIE])
}

/// What both ends say of a run.
struct Said {
    /// As made, as served, and those of them that failed at either.
    made: i64,
    served: i64,
    failed: i64,
    runs: Sums,
    busy: [i64; 2],
    resent: [i64; 2],
    lost: u64,
    stalls: Stalls,
    slowest: Duration,
    began: Instant,
    took: Duration,
    pauses: Vec<Pause>,
    detail: String,
}

fn judge(table: &mut Table, what: &str, said: &Said, size: Size, patience: Patience) {
    let file = format!("{}.log", what.replace([',', '%'], "").replace(' ', "-"));
    let verdict = said.stalls.judge(&file, said.began, patience, &said.pauses);
    let Said { made, served, failed, runs, busy, resent, lost, slowest, took, .. } = said;
    let never = i64::from(size.calls) - runs.ran as i64;
    say(&format!(
        "{what}: calls {made}, served {served}, failed {failed}, lost {never}, doubled {}, of nobody {}, BUSY sent \
         {}, BUSY received {}, datagrams lost {lost}, sent again by the client {} and the server {}, {verdict}; \
         slowest {slowest:.2?}, took {took:.1?}",
        runs.again, runs.strange, busy[1], busy[0], resent[0], resent[1]
    ));
    let detail = &said.detail;
    let calls = i64::from(size.calls);
    table.check(&format!("{what}: every call is good"), (*made, *failed) == (calls, 0), detail);
    let once = Sums { ran: calls as u64, again: 0, strange: 0 };
    table.check(&format!("{what}: each ran once"), *runs == once && *served == calls, detail);
    table.check(&format!("{what}: no BUSY"), *busy == [0, 0], detail);
    let explained = resent.iter().all(|resent| *resent >= 0)
        && resent.iter().sum::<i64>() <= RESENT_PER_LOSS_MAX * *lost as i64;
    table.check(&format!("{what}: nothing is sent again without a loss"), explained, detail);
    let trouble = verdict.trouble(calls as u64, size.parallel.into());
    let why = trouble.clone().unwrap_or_default();
    table.check(&format!("{what}: each stall is explained"), trouble.is_none(), &why);
    // A client that waited while no datagram of its call was on its way shows in no list of them.
    let longest = said.pauses.iter().map(|pause| pause.length).max().unwrap_or_default();
    let seen = said.stalls.slowest() + STALL_MIN + longest;
    let why = format!("{slowest:?} for its caller, {seen:?} at most by its datagrams");
    table.check(&format!("{what}: no stall is hidden"), *slowest <= seen, &why);
}

/// Calls of ours to OpenAFS's server.
fn ours_to_openafs(rig: &Rig, size: Size) -> Said {
    let peer = rig.peer(&["--number"]);
    let machine = Machine::watch(&[std::process::id(), peer.id()]);
    let control = FaultControl::new();
    let ledger = Ledger::new(|request| {
        let content = request.get(4 * HEAD.len()..)?;
        Some(u64::from_be_bytes(*content.first_chunk()?))
    });
    let ledger = Arc::new(Mutex::new(ledger));
    let network = load::tapped(size.loss.map(|loss| (loss, &control)), &ledger);
    let load = load::Load {
        server: peer.address().parse().unwrap(),
        service: SERVICE,
        calls: size.calls.into(),
        connections: size.connections as usize,
        request,
        is_reply: |request, came| came == reply(request),
    };
    let made = actix_rt::System::new().block_on(async move {
        let client = Endpoint::builder().network(network).start().await.unwrap();
        load::make_calls(client, load, ledger).await
    });
    let pauses = machine.pauses();
    let totals = peer.stop();
    let of = |key| number(&totals, key).unwrap_or(-1);
    let ours = &made.ours;
    Said {
        made: ours.calls_good as i64,
        served: of("calls"),
        failed: of("errors") + ours.calls_failed as i64,
        runs: Sums {
            ran: of("ran") as u64,
            again: of("again") as u64,
            strange: of("strange") as u64,
        },
        busy: [ours.busy_received as i64, of("busy")],
        resent: [ours.resent as i64, of("retransmitted")],
        lost: load::lost(&control),
        slowest: made.stalls.slowest(),
        stalls: made.stalls,
        began: made.began,
        took: made.took,
        pauses,
        detail: format!("client {ours:?}, server {totals}"),
    }
}

/// Calls of OpenAFS's client to a server of ours.
fn openafs_to_ours(rig: &Rig, size: Size) -> Said {
    let machine = Machine::watch(&[std::process::id()]);
    let (stalls, runs) = (Stalls::default(), Arc::new(Mutex::new(Runs::default())));
    let seen = stalls.clone();
    let ledger = Arc::new(Mutex::new(Ledger::telling(move |trace| seen.add_seen(&trace))));
    let control = FaultControl::new();
    let network = load::tapped(size.loss.map(|loss| (loss, &control)), &ledger);
    let noted = runs.clone();
    let sum = unary(move |request: Request| {
        let bytes = &request.bytes;
        noted.lock().unwrap().note(bytes.get(4 * HEAD.len()..).unwrap_or_default());
        std::future::ready(Ok(reply(bytes).into()))
    });
    let began = Instant::now();
    let (ran, counters) = actix_rt::System::new().block_on(async {
        let server = Endpoint::builder().network(network).service(SERVICE, sum);
        let server = server.start().await.unwrap();
        let mut load =
            Load::new(OPERATION, CONTENT_BYTES.into()).parallel(size.parallel, size.connections);
        load.calls = size.calls;
        let limit_s = 65 + u64::from(size.calls) * CALL_LIMIT_MS / 1000;
        let mut command = load.openafs(rig, server.local_addr().port());
        command.arg("--number");
        let run = move || {
            let ran = run_telling(&mut command, limit_s, |process| machine.watch_also(process));
            (ran, machine.pauses())
        };
        let ran = actix_rt::task::spawn_blocking(run).await.unwrap();
        let counters = server.inspect().await.unwrap().counters;
        server.shutdown(Duration::from_secs(5)).await;
        (ran, counters)
    });
    let (ran, pauses) = ran;
    let took = began.elapsed();
    ledger.lock().unwrap().finish();
    let client = ran.json();
    let of = |key| number(client, key).unwrap_or(-1);
    let is_good = openafs_is(&ran, openafs::Expect::Good);
    let runs = runs.lock().unwrap().sums();
    Said {
        made: of("calls"),
        served: counters.server_calls as i64,
        failed: counters.calls_failed as i64 + i64::from(!is_good),
        runs,
        busy: [of("busy"), counters.busy_sent as i64],
        resent: [of("retransmitted"), counters.resent as i64],
        lost: load::lost(&control),
        slowest: Duration::from_micros(of("us_max").max(0) as u64),
        stalls,
        began,
        took,
        pauses,
        detail: format!("client {client}, server {counters:?}; {}", ran.stderr),
    }
}

fn soak(title: &'static str, patience: Patience, run: fn(&Rig, Size) -> Said) {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new(title);
    let lossy = calls() / LOSSY_PART;
    let size = Size::new(calls() - lossy, CLEAN, None);
    judge(&mut table, &format!("{title}, without loss"), &run(rig, size), size, patience);
    let size = Size::new(lossy, LOSSY, Some(LOSS));
    let said = run(rig, size);
    judge(&mut table, &format!("{title}, through 1 % loss"), &said, size, patience);
    table.check("something was lost", said.lost > 0, &said.lost.to_string());
    table.finish();
}

#[test]
fn calls_of_ours_to_openafs_are_good_and_run_once() {
    soak("soak, our client", Patience(our_patience, openafs_patience), ours_to_openafs);
}

#[test]
fn calls_of_openafs_to_us_are_good_and_run_once() {
    soak("soak, our server", Patience(openafs_patience, our_patience), openafs_to_ours);
}

#[test]
fn a_checksum_is_that_of_the_standard() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    let second = request(2);
    assert_eq!(reply(&second)[..4], [0, 0, 0, 20]);
    assert_ne!(reply(&second), reply(&request(3)));
}
