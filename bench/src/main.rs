//! What rxrpc costs, beside the machine's limits and what one would use instead.
//!
//! Both ends of each sample are processes of their own, pinned to a processor each. Stacks take turns, in
//! pairs; what counts is the median of the pairs' ratios. Loopback only.

mod alloc;
mod bars;
mod benches;
mod ends;
mod harness;
mod openafs;
mod plot;
mod relay;
mod sample;
mod spec;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use benches::Options;

use sample::Book;
use spec::{End, Stack};

#[derive(Parser, Debug)]
#[command(
    name = "bench",
    about = "What rxrpc costs, beside the machine's limits and its peers",
    version
)]
struct Args {
    /// How often each comparison is made
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    /// Length of a sample, about
    #[arg(long, global = true, value_name = "SECONDS", default_value = "0.4", value_parser = seconds)]
    seconds: f64,
    /// Folder for samples.jsonl, tables and plots
    #[arg(long, global = true, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// Seed of the relay's losses
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Connections of `idle`, and the most of `scale`
    #[arg(long, global = true, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    connections: u32,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The machine's limits: GSO and GRO in full batches, and a ping-pong
    Raw {
        /// Bytes of a datagram; may be given several times
        #[arg(long, default_values_t = [1440], value_parser = clap::value_parser!(u16).range(64..=65000))]
        datagram: Vec<u16>,
    },
    /// One call as fast as it goes, each way, beside the raw loop and an inline loop over the same core; and
    /// over the window
    Bulk,
    /// Bulk over the size of datagrams, ours and the raw loop's
    Sizes,
    /// Small calls, 1, 16 and 64 in flight, or as many as said
    Calls {
        /// Calls in flight; may be given several times
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
        in_flight: Vec<u16>,
    },
    /// Bulk through loss and delay, beside quinn and OpenAFS
    Grid,
    /// Resident memory per idle connection
    Idle,
    /// CPU of a call with 1, 1 000 and 100 000 connections
    Scale,
    /// A due timer and small calls beside floods
    Fair,
    /// Bulk and calls beside TCP, quinn, tonic, tarpc and OpenAFS
    Peers,
    /// All of it, and the table of bars
    #[command(alias = "all")]
    Table,
    #[command(hide = true)]
    End { spec: String },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.05 to 60 seconds".into()),
    }
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("bad arguments");
            eprintln!("bench: {}", line.strip_prefix("error: ").unwrap_or(line));
            return ExitCode::from(2);
        }
        Err(asked) => {
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
    };
    if let What::End { spec } = &args.what {
        return match serde_json::from_str::<End>(spec).map_err(Into::into).and_then(ends::run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                ends::say(&spec::Said::Failed(format!("{error:#}")));
                ExitCode::FAILURE
            }
        };
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    use Stack::*;
    let began = std::time::Instant::now();
    let mut book = Book::open(&args.out)?;
    let options = Options {
        pairs: args.pairs.into(),
        seconds: args.seconds,
        seed: args.seed,
        connections: args.connections as usize,
    };
    let (o, b) = (&options, &mut book);
    let is_all = matches!(args.what, What::Table);
    let wants_afs = is_all || matches!(args.what, What::Peers | What::Grid);
    let afs = if wants_afs { openafs::OpenAfs::build(&args.out.join("openafs"))? } else { None };
    match &args.what {
        What::Raw { datagram } => {
            let datagrams: Vec<_> = datagram.iter().map(|bytes| usize::from(*bytes)).collect();
            benches::raw(b, o, &datagrams);
        }
        What::Bulk => {
            benches::bulk(b, o, &[Ours, Raw, Inline]);
            benches::windows(b, o);
        }
        What::Sizes => benches::sizes(b, o),
        What::Calls { in_flight } if in_flight.is_empty() => {
            benches::calls(b, o, &[(1, &[Ours, Raw]), (16, &[Ours]), (64, &[Ours])]);
        }
        What::Calls { in_flight } => {
            let plan: Vec<(usize, &[Stack])> =
                in_flight.iter().map(|count| (usize::from(*count), &[Ours][..])).collect();
            benches::calls(b, o, &plan);
        }
        What::Grid => benches::grid(b, o, afs.as_ref()),
        What::Idle => benches::idle(b, o),
        What::Scale => benches::scale(b, o),
        What::Fair => benches::fair(b, o),
        What::Peers => peers(b, o, afs.as_ref()),
        What::Table => {
            peers(b, o, afs.as_ref());
            benches::windows(b, o);
            benches::fair(b, o);
            benches::idle(b, o);
            benches::scale(b, o);
            benches::grid(b, o, afs.as_ref());
        }
        What::End { .. } => {}
    }
    let figures = bars::figures(&book);
    let table = bars::table(&book);
    println!("\n{figures}");
    std::fs::write(args.out.join("figures.md"), &figures)?;
    if is_all {
        println!("{table}");
        std::fs::write(args.out.join("bars.md"), &table)?;
    }
    for file in plot::draw(&book)? {
        println!("{file}");
    }
    let took = began.elapsed().as_secs_f64();
    println!("{} samples in {took:.0} s, seed {}; {}", book.samples.len(), args.seed, machine());
    match book.faults.len() {
        0 => Ok(()),
        count => bail!("{count} faults, the first: {}", book.faults[0]),
    }
}

fn peers(book: &mut Book, options: &Options, afs: Option<&openafs::OpenAfs>) {
    use Stack::*;
    benches::bulk(book, options, &[Ours, Raw, Inline, Tcp, Quinn, Tonic]);
    let one: &[Stack] = &[Ours, Raw, Tcp, Quinn, Tonic, Tarpc];
    benches::calls(
        book,
        options,
        &[(1, one), (16, &[Ours, Quinn]), (64, &[Ours, Quinn, Tarpc, Tonic])],
    );
    if let Some(afs) = afs {
        benches::openafs(book, options, afs);
    }
}

/// Processor and system, for whoever reads the figures later.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, |count| count.get());
    format!("{model}, {cores} processors, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
