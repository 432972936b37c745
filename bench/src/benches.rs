//! The benches: which samples are taken, in turns.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::harness::{Pair, Process, sample};
use crate::openafs::{AfsLoad, OpenAfs};
use crate::relay::{Path, Relay};
use crate::sample::{Book, Sample};
use crate::spec::{End, Load, Stack, Way};

/// Fewer datagrams than this a receive in bulk: not the regime that is named.
const PER_RECEIVE_MIN: f64 = 20.0;
/// Datagram of the raw loop until ours has shown its own: header and payload of a full packet.
const DATAGRAM_BYTES: usize = 1440;
/// What OpenAFS moves a second, so that its samples take about as long as the others'.
const AFS_PLAIN_RATE: f64 = 150e6;
const AFS_JUMBO_RATE: f64 = 280e6;
const AFS_CALL_RATE: f64 = 40e3;
/// Threads with which OpenAFS makes most calls; with 64 it stalls.
pub const AFS_THREADS: u64 = 32;
/// Windows of the plot of throughput over window, packets; 0 = the defaults.
pub const WINDOWS: [u32; 7] = [8, 16, 32, 64, 128, 255, 1024];
/// Datagrams of `sizes`, bytes.
const SIZES: [usize; 6] = [1440, 2856, 4060, 8124, 16_248, 32_500];
pub const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.05];
pub const ROUND_TRIPS_MS: [f64; 3] = [0.1, 10.0, 100.0];
/// Connections of `scale`.
pub const SCALE: [usize; 3] = [1, 1_000, 100_000];
/// Deadlines taken in one sample of `fair`, and their length.
const DEADLINES: usize = 20;
const DEADLINE_MS: u64 = 50;

pub struct Options {
    pub pairs: usize,
    pub seconds: f64,
    pub seed: u64,
    /// Connections of `idle` and the greatest number of `scale`.
    pub connections: usize,
}

/// Where the raw loop's ends find their counter.
struct Shared(PathBuf);

impl Shared {
    fn new() -> Result<Shared> {
        let name = format!("rxrpc-bench-{}", std::process::id());
        let folder = std::path::Path::new("/dev/shm");
        let folder = if folder.is_dir() { folder.to_owned() } else { std::env::temp_dir() };
        let path = folder.join(name);
        std::fs::write(&path, [0; 8]).with_context(|| path.display().to_string())?;
        Ok(Shared(path))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn raw_bulk(pair: usize, case: &str, datagram: usize, seconds: f64) -> Result<Sample> {
    let shared = Shared::new()?;
    let mut end = End::server(Stack::Raw);
    end.datagram = datagram;
    end.shared = shared.0.to_string_lossy().into_owned();
    sample("bulk", case, pair, &end, &end, Load::Bulk { way: Way::Send, seconds })
}

/// The machine's limits alone.
pub fn raw(book: &mut Book, options: &Options, datagrams: &[usize]) {
    for pair in 0..options.pairs {
        for &datagram in datagrams {
            let case = format!("{datagram} B");
            let result = raw_bulk(pair, &case, datagram, options.seconds).map(|mut sample| {
                sample.bench = "raw".into();
                sample
            });
            if let Some(sample) = book.take(&format!("raw {case}"), result) {
                check_regime(book, &sample);
            }
        }
        let end = End::server(Stack::Raw);
        let load = Load::Calls { in_flight: 1, seconds: options.seconds };
        let result = sample("raw", "ping-pong", pair, &end, &end, load);
        book.take("raw ping-pong", result);
    }
}

fn bulk_sample(pair: usize, way: Way, stack: Stack, seconds: f64) -> Result<Sample> {
    let end = End::server(stack);
    sample("bulk", way.name(), pair, &end, &end, Load::Bulk { way, seconds })
}

/// One call or stream as fast as it goes, each way, all stacks in turns.
pub fn bulk(book: &mut Book, options: &Options, stacks: &[Stack]) {
    let mut datagram = DATAGRAM_BYTES;
    for pair in 0..options.pairs {
        for way in [Way::Recv, Way::Send] {
            for &stack in stacks {
                if stack == Stack::Inline && way == Way::Send {
                    continue;
                }
                let result = match stack {
                    Stack::Raw => raw_bulk(pair, way.name(), datagram, options.seconds),
                    _ => bulk_sample(pair, way, stack, options.seconds),
                };
                let what = format!("bulk {} {}", way.name(), stack.name());
                let Some(sample) = book.take(&what, result) else { continue };
                if matches!(stack, Stack::Ours | Stack::Inline | Stack::Raw) {
                    check_regime(book, &sample);
                }
                if stack == Stack::Ours {
                    // The limit is that of the same datagrams.
                    datagram = sample.datagram().map_or(datagram, |it| it.clamp(512, 65_000));
                }
            }
        }
    }
}

/// Nothing may be lost or sent again where nothing was injected, and bulk must come in batches.
fn check_regime(book: &mut Book, sample: &Sample) {
    let name = format!("{} {} {} pair {}", sample.bench, sample.case, sample.stack, sample.pair);
    if sample.kernel_drops > 0 || sample.resent() > 0 {
        let (lost, again) = (sample.kernel_drops, sample.resent());
        book.fault(format!(
            "{name}: {lost} datagrams lost in the kernel, {again} packets sent again"
        ));
    }
    // Larger datagrams make batches of fewer: a batch has 64 KiB at the most.
    let few = sample.datagram().map_or(PER_RECEIVE_MIN, |bytes| 28_000.0 / bytes as f64);
    match sample.per_receive {
        Some(count) if count < few.min(PER_RECEIVE_MIN) => {
            book.fault(format!("{name}: another regime: {count:.1} datagrams a receive"));
        }
        _ => {}
    }
}

/// Throughput over the window.
pub fn windows(book: &mut Book, options: &Options) {
    for pair in 0..options.pairs.min(3) {
        for window in WINDOWS {
            let mut end = End::server(Stack::Ours);
            end.window = window;
            let load = Load::Bulk { way: Way::Recv, seconds: options.seconds / 2.0 };
            let result = sample("window", &window.to_string(), pair, &end, &end, load);
            book.take(&format!("window {window}"), result);
        }
    }
}

/// Throughput over the size of datagrams, beside the raw loop's of the same size.
pub fn sizes(book: &mut Book, options: &Options) {
    for pair in 0..options.pairs {
        for size in SIZES {
            for (stack, way) in
                [(Stack::Ours, Way::Recv), (Stack::Ours, Way::Send), (Stack::Raw, Way::Send)]
            {
                let case = format!("{size} B {}", way.name());
                let mut end = End::server(stack);
                end.datagram = size;
                let result = match stack {
                    Stack::Raw => raw_bulk(pair, &case, size, options.seconds),
                    _ => {
                        let load = Load::Bulk { way, seconds: options.seconds };
                        sample("sizes", &case, pair, &end, &end, load)
                    }
                };
                let result = result.map(|sample| Sample { bench: "sizes".into(), ..sample });
                if let Some(sample) = book.take(&format!("sizes {case} {}", stack.name()), result) {
                    check_regime(book, &sample);
                }
            }
        }
    }
}

/// Small calls in a closed loop: for each number in flight, these stacks in turns.
pub fn calls(book: &mut Book, options: &Options, plan: &[(usize, &[Stack])]) {
    for pair in 0..options.pairs {
        for &(in_flight, stacks) in plan {
            for &stack in stacks {
                let end = End::server(stack);
                let case = in_flight.to_string();
                let load = Load::Calls { in_flight, seconds: options.seconds };
                let result = sample("calls", &case, pair, &end, &end, load);
                let what = format!("calls {case} {}", stack.name());
                let Some(sample) = book.take(&what, result) else { continue };
                if stack == Stack::Ours && (sample.kernel_drops > 0 || sample.resent() > 0) {
                    check_regime(book, &Sample { per_receive: None, ..sample });
                }
            }
        }
    }
}

/// OpenAFS with itself and with ours, each direction, jumbograms on or off on both sides.
pub fn openafs(book: &mut Book, options: &Options, afs: &OpenAfs) {
    for pair in 0..options.pairs {
        for (stack, rate) in
            [(Stack::OpenAfs, AFS_PLAIN_RATE), (Stack::OpenAfsJumbo, AFS_JUMBO_RATE)]
        {
            for way in [Way::Recv, Way::Send] {
                let bytes = (rate * options.seconds) as u64;
                let load = AfsLoad::Bulk { way, bytes };
                let case = format!("{}{}", way.name(), suffix(stack));
                let what = |who: &str| format!("openafs {case} {who}");
                let result = afs_alone(afs, ["openafs", &case, "openafs"], pair, stack, &load);
                book.take(&what("openafs"), result);
                let result = ours_to_afs(afs, &case, pair, stack, way, options.seconds);
                book.take(&what("ours to openafs"), result);
                let result = afs_to_ours(afs, &case, pair, stack, &load);
                book.take(&what("openafs to ours"), result);
            }
        }
        for threads in [1, 16, AFS_THREADS] {
            let each = (AFS_CALL_RATE * options.seconds) as u64
                / threads
                / if threads == 1 { 4 } else { 1 };
            let load = AfsLoad::Calls { threads, each };
            let case = threads.to_string();
            let result = afs_alone(afs, ["calls", &case, "openafs"], pair, Stack::OpenAfs, &load);
            book.take(&format!("calls {case} openafs"), result);
        }
    }
}

fn suffix(stack: Stack) -> &'static str {
    if stack == Stack::OpenAfsJumbo { " jumbo" } else { "" }
}

fn afs_alone(
    afs: &OpenAfs,
    names: [&str; 3],
    pair: usize,
    stack: Stack,
    load: &AfsLoad,
) -> Result<Sample> {
    let (mut server, port) = afs.server(stack)?;
    afs.sample(names, pair, stack, &mut server, port, load)
}

/// Packets per datagram that our side offers.
fn jumbo(stack: Stack) -> u32 {
    if stack == Stack::OpenAfsJumbo { 4 } else { 1 }
}

fn ours_to_afs(
    afs: &OpenAfs,
    case: &str,
    pair: usize,
    stack: Stack,
    way: Way,
    seconds: f64,
) -> Result<Sample> {
    let (server, port) = afs.server(stack)?;
    let mut end = End::server(Stack::Ours);
    end.jumbo = jumbo(stack);
    let load = Load::Bulk { way, seconds };
    let reading = Pair::with_server(server, port, &end, vec![load])?.run_foreign()?;
    let mut sample = Sample::from_reading("openafs", case, "ours to openafs", pair, &reading);
    sample.server = None;
    Ok(sample)
}

fn afs_to_ours(
    afs: &OpenAfs,
    case: &str,
    pair: usize,
    stack: Stack,
    load: &AfsLoad,
) -> Result<Sample> {
    let mut end = End::server(Stack::Ours);
    end.jumbo = jumbo(stack);
    let (mut server, port) = Process::server(&end)?;
    afs.sample(["openafs", case, "openafs to ours"], pair, stack, &mut server, port, load)
}

pub fn cell(round_trip_ms: f64, loss: f64) -> String {
    format!("{round_trip_ms} ms, {} %", loss * 100.0)
}

/// Bulk to the client through a path with loss and delay.
pub fn grid(book: &mut Book, options: &Options, afs: Option<&OpenAfs>) {
    for pair in 0..options.pairs {
        for round_trip_ms in ROUND_TRIPS_MS {
            for loss in LOSSES {
                let path = Path {
                    round_trip: Duration::from_secs_f64(round_trip_ms / 1e3),
                    loss,
                    seed: options.seed.wrapping_add(pair as u64),
                };
                let case = cell(round_trip_ms, loss);
                // Long enough for some round trips.
                let seconds = if round_trip_ms > 50.0 { 3.0 } else { 1.2 } * options.seconds;
                for stack in [Stack::Ours, Stack::Quinn] {
                    let what = format!("grid {case} {}", stack.name());
                    let result = grid_sample(&case, pair, stack, path, seconds);
                    book.take(&what, result);
                }
                if let Some(afs) = afs {
                    let result = grid_openafs(afs, &case, pair, path, seconds);
                    book.take(&format!("grid {case} openafs"), result);
                }
            }
        }
    }
}

fn grid_sample(case: &str, pair: usize, stack: Stack, path: Path, seconds: f64) -> Result<Sample> {
    let end = End::server(stack);
    let (mut ends, relay) = Pair::through(&end, &end, vec![Load::Timed { seconds }], |port| {
        let relay = Relay::start(port, path)?;
        Ok((relay.port, relay))
    })?;
    ends.warm()?;
    let before = relay.injected();
    let reading = ends.go()?;
    if relay.overflowed() > 0 {
        bail!("the relay itself lost {} datagrams", relay.overflowed());
    }
    let mut sample = Sample::from_reading("grid", case, stack.name(), pair, &reading);
    sample.injected = Some(relay.injected() - before);
    Ok(sample)
}

/// What OpenAFS moves in such a cell a second, about: its client takes bytes, not time.
fn grid_openafs(
    afs: &OpenAfs,
    case: &str,
    pair: usize,
    path: Path,
    seconds: f64,
) -> Result<Sample> {
    let window = 32.0 * 1412.0 / path.round_trip.as_secs_f64();
    let lossy = 1.5e6 / (path.loss * 100.0).max(0.001).powf(1.3);
    let rate = window.min(80e6).min(lossy * 10.0).max(60e3);
    let load = AfsLoad::Bulk { way: Way::Recv, bytes: (rate * seconds) as u64 };
    let (mut server, port) = afs.server(Stack::OpenAfs)?;
    let relay = Relay::start(port, path)?;
    let names = ["grid", case, "openafs"];
    let mut sample = afs.sample(names, pair, Stack::OpenAfs, &mut server, relay.port, &load)?;
    sample.injected = Some(relay.injected());
    Ok(sample)
}

/// Resident memory of connections that rest.
pub fn idle(book: &mut Book, options: &Options) {
    let connections = options.connections;
    let end = End::server(Stack::Ours);
    let result = Pair::start(&end, &end, vec![Load::Open { connections }])
        .and_then(|mut pair| pair.run())
        .map(|reading| Sample::from_reading("idle", &connections.to_string(), "ours", 0, &reading));
    book.take("idle", result);
}

/// CPU of a call over connections, all of them in use: 4 in flight, as many as one connection carries.
pub fn scale(book: &mut Book, options: &Options) {
    for pair in 0..options.pairs.min(3) {
        let seconds = options.seconds;
        let steps: Vec<_> = SCALE.iter().map(|count| (*count).min(options.connections)).collect();
        let loads = steps.iter().flat_map(|&connections| {
            [Load::Open { connections }, Load::Rounds { in_flight: 4, seconds }]
        });
        let end = End::server(Stack::Ours);
        let mut ends = match Pair::start(&end, &end, loads.collect()) {
            Ok(ends) => ends,
            Err(error) => return book.fault(format!("scale: {error:#}")),
        };
        for connections in &steps {
            let result = ends.run().and_then(|_| ends.run()).map(|reading| {
                Sample::from_reading("scale", &connections.to_string(), "ours", pair, &reading)
            });
            if book.take(&format!("scale {connections}"), result).is_none() {
                return;
            }
        }
    }
}

/// A due timer beside floods, and small calls beside a bulk transfer.
pub fn fair(book: &mut Book, options: &Options) {
    for pair in 0..options.pairs {
        let end = End::server(Stack::Ours);
        let deadlines =
            |beside| Load::Deadlines { count: DEADLINES, deadline_ms: DEADLINE_MS, beside };
        for (case, beside) in [("timer alone", 0), ("timer beside bulk", 3)] {
            let result = sample("fair", case, pair, &end, &end, deadlines(beside));
            book.take(&format!("fair {case}"), result);
        }
        let result = flooded(&end, pair, deadlines(0));
        book.take("fair timer under flood", result);
        let seconds = 2.0 * options.seconds;
        for (case, bulk) in [("calls alone", 0), ("calls beside bulk", 1)] {
            let result = sample("fair", case, pair, &end, &end, Load::Beside { seconds, bulk });
            book.take(&format!("fair {case}"), result);
        }
    }
}

/// The client's endpoint is flooded with datagrams of one channel by a third process, as fast as it can.
fn flooded(end: &End, pair: usize, load: Load) -> Result<Sample> {
    let mut ends = Pair::start(end, end, vec![load])?;
    ends.warm()?;
    let port = ends.client_port.context("the client told no port")?;
    let flood = End::server(Stack::Raw).client(port, vec![Load::Flood {}]);
    let flooder = Process::flooder(&flood)?;
    let reading = ends.go()?;
    drop(flooder);
    Ok(Sample::from_reading("fair", "timer under flood", "ours", pair, &reading))
}
