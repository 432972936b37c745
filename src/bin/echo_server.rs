//! `echo-server`: service 1 sends back what it gets, service 147 is that of rxperf and of `rx perf`.

mod common;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use actix_rt::signal::unix::{SignalKind, signal};
use clap::Parser;
use common::args::{self, HostPort, Stop};
use common::chaos::ChaosArgs;
use common::security::ServerArgs;
use common::service::{ECHO_SERVICE, PERF_SERVICE, echo, perf};
use futures::future::{Either, join, select};
use rxrpc::{CloseReason, Endpoint, ServiceOptions, ShutdownReport};
use serde::Serialize;

const NAME: &str = "echo-server";
/// How long the name of the address to listen on may be looked up.
const LOOK_UP_MAX: Duration = Duration::from_secs(30);

/// A server of Rx to try clients with.
///
/// Service 1 sends back what it gets. Service 147 speaks the operations of rxperf, and those of `rx perf`.
/// Prints one line, `listening on ADDRESS:PORT`, when it is ready. SIGTERM and SIGINT end it in order.
/// Exit status: 0 all is well, 1 it could not start or broke, 2 the command line was wrong or names what is
/// of no use.
#[derive(Parser, Debug)]
#[command(name = NAME, version)]
struct Args {
    /// Address and port to listen on; port 0 = any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7009")]
    listen: HostPort,
    /// At the end, print the totals as a line of JSON
    ///
    /// It always has: ok (it ended in order), calls (begun), failed, bytes (of all datagrams, received and
    /// sent, without UDP and IP headers), seconds (since it was ready), busy (sent), retransmitted (packets);
    /// if it is not ok, also error. Calls that end within the grace, or are cut off, count. A server that could
    /// not start says so on such a line too; of one that breaks the numbers are lost, and 0.
    #[arg(long, verbatim_doc_comment)]
    json: bool,
    /// Answer the questions of rxdebug
    #[arg(long)]
    debug: bool,
    /// Packets per datagram, from clients and to those that take so many; 1 = no jumbograms
    #[arg(long, value_name = "PACKETS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=6))]
    jumbo: u32,
    /// Let also calls of service 1 wait until their client has proved its address
    #[arg(long)]
    reach_check: bool,
    /// Threads, with a socket each at the one port: clients are spread over them by their addresses
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    #[command(flatten)]
    chaos: ChaosArgs,
    #[command(flatten)]
    security: ServerArgs,
    /// Windows, in packets
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(1..=65535))]
    window: Option<u32>,
    /// Largest request that is echoed, since it is held until it is complete; others are aborted
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = args::size)]
    request_max: u64,
    /// How long calls may go on after SIGTERM or SIGINT
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = args::seconds, allow_negative_numbers = true)]
    grace: Duration,
}

fn main() -> ExitCode {
    env_logger::init();
    let args: Args = match args::parse(NAME, |wrong| Totals::default().print(Some(&wrong))) {
        Ok(args) => args,
        Err(status) => return status,
    };
    let (totals, ended) = match args.security.check() {
        Ok(()) => actix_rt::System::new().block_on(run(&args)),
        Err(error) => (Totals::default(), Err(Stop::usage(error))),
    };
    if args.json {
        totals.print(ended.as_ref().err());
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(NAME),
    }
}

/// From the start to the end.
async fn run(args: &Args) -> (Totals, Result<(), Stop>) {
    // Before the line that says we are ready: whoever reads it may send a signal at once.
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)))
        .map_err(|error| Stop::trouble(format_args!("cannot wait for signals: {error}")));
    let started = match signals {
        Ok(signals) => start(args).await.map(|endpoint| (signals, endpoint)),
        Err(failure) => Err(failure),
    };
    let ((mut terminate, mut interrupt), endpoint) = match started {
        Ok(started) => started,
        Err(failure) => return (Totals::default(), Err(failure)),
    };
    let began = Instant::now();
    let mut out = std::io::stdout();
    let ready = writeln!(out, "listening on {}", endpoint.local_addr()).and_then(|()| out.flush());
    if let Err(error) = ready {
        log::warn!("nobody reads our standard output: {error}");
    }
    let stop = async || {
        let (term, int) = (std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv()));
        select(term, int).await;
    };
    let (report, ended) = serve(&endpoint, args.grace, stop).await;
    (Totals::new(report, began.elapsed()), ended)
}

/// Until it is told to stop, or ends by itself.
async fn serve(
    endpoint: &Endpoint,
    grace: Duration,
    mut stop: impl AsyncFnMut(),
) -> (ShutdownReport, Result<(), Stop>) {
    let ended_with = |reason| Stop::trouble(format_args!("the endpoint ended: {reason}"));
    let closed = std::pin::pin!(endpoint.closed());
    if let Either::Right((reason, _)) = select(std::pin::pin!(stop()), closed).await {
        return (ShutdownReport::default(), Err(ended_with(reason)));
    }
    let shutdown = std::pin::pin!(endpoint.shutdown(grace));
    let report = match select(shutdown, std::pin::pin!(stop())).await {
        Either::Left((report, _)) => report,
        Either::Right((_, shutdown)) => {
            let (_, report) = join(endpoint.shutdown(Duration::ZERO), shutdown).await;
            return (report, Err(Stop::trouble("a second signal: calls are cut off")));
        }
    };
    match endpoint.closed().await {
        CloseReason::Shutdown => (report, Ok(())),
        reason => (report, Err(ended_with(reason))),
    }
}

async fn start(args: &Args) -> Result<Endpoint, Stop> {
    let security_classes = args.security.classes().map_err(Stop::usage)?;
    let (at, _) = args.listen.resolve(LOOK_UP_MAX).await.map_err(Stop::trouble)?;
    let echoes = ServiceOptions {
        reach_check: args.reach_check,
        security_classes: security_classes.clone(),
        ..ServiceOptions::small_replies()
    };
    // Its replies can be larger than its requests: the check is always on.
    let measured = ServiceOptions { security_classes, ..ServiceOptions::default() };
    args.chaos
        .bind(Endpoint::builder(), at, args.shards)?
        .configure(|config| {
            config.debug_responder = args.debug;
            args::set_jumbo(&mut config.server.call, args.jumbo);
            if let Some(packets) = args.window {
                args::set_window(&mut config.server.call, packets);
            }
        })
        .service_with(ECHO_SERVICE, echo(args.request_max), echoes)
        .service_with(PERF_SERVICE, perf(args.request_max), measured)
        .start()
        .await
        .map_err(Stop::trouble)
}

/// The line at the end; its names stay.
#[derive(Debug, Default, Serialize)]
struct Totals {
    ok: bool,
    event: &'static str,
    calls: u64,
    failed: u64,
    bytes: u64,
    seconds: f64,
    busy: u64,
    retransmitted: u64,
    calls_good: u64,
    calls_failed: u64,
    calls_cut: usize,
    dropped: u64,
    aborts_sent: u64,
    datagrams_received: u64,
    datagrams_sent: u64,
    bytes_received: u64,
    bytes_sent: u64,
    strays: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Totals {
    fn new(report: ShutdownReport, took: Duration) -> Totals {
        let ShutdownReport { calls_cut, counters, .. } = report;
        Totals {
            calls: counters.server_calls,
            failed: counters.calls_failed,
            bytes: counters.bytes_received + counters.bytes_sent,
            seconds: took.as_secs_f64(),
            busy: counters.busy_sent,
            retransmitted: counters.resent,
            calls_good: counters.calls_good,
            calls_failed: counters.calls_failed,
            calls_cut,
            dropped: counters.dropped_total(),
            aborts_sent: counters.aborts_sent,
            datagrams_received: counters.datagrams_received,
            datagrams_sent: counters.datagrams_sent,
            bytes_received: counters.bytes_received,
            bytes_sent: counters.bytes_sent,
            strays: counters.strays,
            ..Totals::default()
        }
    }

    /// Prints them, and why it did not end in order.
    fn print(self, failure: Option<&Stop>) {
        let error = failure.map(|failure| failure.error().to_owned());
        let totals = Totals { ok: error.is_none(), event: "totals", error, ..self };
        match serde_json::to_string(&totals) {
            // Nobody reads it: no error.
            Ok(line) => drop(writeln!(std::io::stdout(), "{line}")),
            Err(error) => log::error!("totals: {error}"),
        }
    }
}
