//! Runs many calls, some at once, and says how it went.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use rxrpc::{CallOptions, Endpoint};
use serde::Serialize;
use tokio::time::Instant;

use crate::NAME;
use crate::common::args::{Stop, seconds, status, trouble};
use crate::common::chaos::ChaosArgs;

/// The options of a load.
#[derive(clap::Args, Debug)]
pub struct LoadArgs {
    /// How many calls, in all
    #[arg(long, value_name = "CALLS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// How many of them at once
    #[arg(long, value_name = "CALLS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub parallel: u32,
    /// Connections that they share; each carries four at once, the others wait. Default: as many as needed
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub connections: Option<u32>,
    /// Longest time of a call; looking up the host's name counts into that of the first ones
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, allow_negative_numbers = true)]
    pub timeout: Duration,
    /// Packets per datagram, from the server and to it if it takes so many; 1 = no jumbograms
    #[arg(long, value_name = "PACKETS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=6))]
    pub jumbo: u32,
    /// Threads that the connections are spread over, with a socket each at one port
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub shards: u32,
    #[command(flatten)]
    pub chaos: ChaosArgs,
    /// Begin further calls also after one has failed
    #[arg(long)]
    pub keep_going: bool,
    /// Print the result as a line of JSON
    ///
    /// It always has: ok (no call failed), op, calls (that ended), failed, bytes (that good calls moved, both
    /// ways), seconds, busy, retransmitted (packets); if it is not ok, also error. Without any call, since the
    /// command line was wrong or there is no such host, the numbers are 0.
    #[arg(long, verbatim_doc_comment)]
    pub json: bool,
}

impl LoadArgs {
    /// Connections of the bundle.
    pub fn connections(&self) -> usize {
        let needed = self.parallel.div_ceil(4).clamp(1, 64);
        self.connections.unwrap_or(needed) as usize
    }

    /// How call `index` is made, if looking up the host's name took `spent`.
    pub fn options(&self, index: u64, spent: Duration) -> CallOptions {
        let is_first = index < u64::from(self.parallel);
        let spent = if is_first { spent } else { Duration::ZERO };
        CallOptions::within(self.timeout.saturating_sub(spent))
    }

    /// Says why no call was made.
    pub fn tell(&self, failure: Stop, op: &str) -> ExitCode {
        if self.json { failure.tell_json(op) } else { failure.tell(NAME) }
    }
}

/// How a load went.
#[derive(Debug)]
pub struct Outcome {
    calls: u64,
    failed: u64,
    bytes: u64,
    took: Duration,
    micros: Histogram<u64>,
    first_error: Option<String>,
}

/// Bytes that have gone or come so far, also those of calls that are not over or will fail: for the eye.
#[derive(Debug, Default)]
pub struct Moved(Cell<u64>);

impl Moved {
    /// So many more.
    pub fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }
}

/// What the calls have in common while they run.
#[derive(Debug)]
struct Progress {
    moved: Moved,
    begun: Cell<u64>,
    ended: Cell<u64>,
    failed: Cell<u64>,
    bytes: Cell<u64>,
    micros: RefCell<Histogram<u64>>,
    first_error: RefCell<Option<String>>,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            moved: Moved::default(),
            begun: Cell::new(0),
            ended: Cell::new(0),
            failed: Cell::new(0),
            bytes: Cell::new(0),
            // Grows as needed; three digits.
            micros: RefCell::new(Histogram::new(3).expect("three digits are allowed")),
            first_error: RefCell::new(None),
        }
    }
}

/// Makes the calls 0 to `count`, each by `call`, which returns the bytes that it moved, and says meanwhile how
/// it gets on. A call that fails is the last to begin, unless the options say otherwise.
pub async fn run(
    args: &LoadArgs,
    call: impl AsyncFn(u64, &Moved) -> Result<u64, String>,
) -> Outcome {
    let progress = Progress::new();
    let began = Instant::now();
    let at_once = u64::from(args.parallel).min(args.count);
    // Each carries one call after the other: no task and no allocation per call here.
    let carriers: FuturesUnordered<_> =
        (0..at_once).map(|_| carry(args, &progress, &call)).collect();
    let all = carriers.collect::<()>();
    if io::stderr().is_terminal() {
        let shown = std::pin::pin!(show(args, &progress));
        if let Either::Right((never, _)) = select(all, shown).await {
            match never {}
        }
        eprint!("\r\x1b[K");
    } else {
        all.await;
    }
    let took = began.elapsed();
    Outcome {
        calls: progress.ended.get(),
        failed: progress.failed.get(),
        bytes: progress.bytes.get(),
        took,
        micros: progress.micros.into_inner(),
        first_error: progress.first_error.into_inner(),
    }
}

async fn carry(
    args: &LoadArgs,
    progress: &Progress,
    call: &impl AsyncFn(u64, &Moved) -> Result<u64, String>,
) {
    loop {
        let index = progress.begun.get();
        if index == args.count || (progress.failed.get() > 0 && !args.keep_going) {
            return;
        }
        progress.begun.set(index + 1);
        let began = Instant::now();
        let result = call(index, &progress.moved).await;
        let took = began.elapsed();
        progress.ended.set(progress.ended.get() + 1);
        match result {
            Ok(bytes) => {
                progress.bytes.set(progress.bytes.get() + bytes);
                // Refused only beyond 2^63 microseconds.
                let _ = progress.micros.borrow_mut().record(took.as_micros() as u64);
            }
            Err(error) => {
                progress.failed.set(progress.failed.get() + 1);
                progress.first_error.borrow_mut().get_or_insert_with(|| {
                    let (number, of, after) = (index + 1, args.count, took.as_secs_f64());
                    format!("call {number} of {of}: {error}; after {after:.3} s")
                });
            }
        }
    }
}

/// A line on the terminal that is written over and over.
async fn show(args: &LoadArgs, progress: &Progress) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let (mut before, mut began) = (0, ticks.tick().await);
    loop {
        ticks.tick().await;
        let (now, moved) = (Instant::now(), progress.moved.0.get());
        let line = progress.line(args.count, moved - before, now - began);
        (before, began) = (moved, now);
        eprint!("\r{line}\x1b[K");
        let _ = io::stderr().flush();
    }
}

impl Progress {
    /// How far `count` calls are; `bytes` have moved within the last `time`.
    fn line(&self, count: u64, bytes: u64, time: Duration) -> String {
        let (ended, failed) = (self.ended.get(), self.failed.get());
        let moved = self.moved.0.get() as f64 / 1e6;
        let rate = bytes as f64 / 1e6 / time.as_secs_f64().max(1e-3);
        format!("{ended} of {count} calls, {failed} failed, {moved:.1} MB, {rate:.1} MB/s")
    }
}

/// The line of JSON; its names stay.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    op: &'a str,
    calls: u64,
    failed: u64,
    bytes: u64,
    seconds: f64,
    calls_per_second: f64,
    bytes_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    busy: u64,
    retransmitted: u64,
    strays: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Outcome {
    /// Whether every call was good.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// Why the first bad call was bad.
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.as_deref()
    }

    /// Prints it all, and says how to exit.
    pub async fn print(&self, op: &str, json: bool, endpoint: &Endpoint) -> ExitCode {
        let counters = endpoint.inspect().await.map(|snapshot| snapshot.counters);
        let counters = counters.unwrap_or_default();
        let seconds = self.took.as_secs_f64();
        let report = Report {
            ok: self.is_good(),
            op,
            calls: self.calls,
            failed: self.failed,
            bytes: self.bytes,
            seconds,
            calls_per_second: (self.calls - self.failed) as f64 / seconds,
            bytes_per_second: self.bytes as f64 / seconds,
            p50_us: self.micros.value_at_quantile(0.50),
            p99_us: self.micros.value_at_quantile(0.99),
            max_us: self.micros.max(),
            busy: counters.busy_received + counters.busy_sent,
            retransmitted: counters.resent,
            strays: counters.strays,
            error: self.first_error(),
        };
        let mut out = io::stdout();
        let printed = if json { report.print_json(&mut out) } else { report.print(&mut out) };
        match printed {
            Ok(()) => self.status(),
            Err(error) => trouble(NAME, format_args!("cannot print the result: {error}")),
        }
    }

    /// How to exit.
    pub fn status(&self) -> ExitCode {
        status(self.is_good())
    }
}

impl Report<'_> {
    fn print_json(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", serde_json::to_string(self)?)
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Report { op, calls, failed, bytes, seconds, busy, retransmitted, .. } = self;
        writeln!(out, "{op}: {calls} calls, {failed} failed, {bytes} bytes in {seconds:.3} s")?;
        if calls > failed {
            writeln!(
                out,
                "{:.0} calls/s, {:.1} MB/s; latency {} us median, {} us 99 %, {} us at most",
                self.calls_per_second,
                self.bytes_per_second / 1e6,
                self.p50_us,
                self.p99_us,
                self.max_us
            )?;
        }
        writeln!(out, "{busy} busy, {retransmitted} packets sent again")?;
        if let Some(error) = self.error {
            eprintln!("{NAME}: {error}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_on_the_terminal_tells_of_calls_that_are_not_over() {
        let progress = Progress::new();
        progress.moved.add(20_000_000);
        progress.moved.add(5_500_000);
        let line = progress.line(1, 5_500_000, Duration::from_millis(500));
        assert_eq!(line, "0 of 1 calls, 0 failed, 25.5 MB, 11.0 MB/s");
    }
}
