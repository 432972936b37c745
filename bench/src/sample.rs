//! What is written down of each sample, and ratios of samples taken in pairs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::harness::Reading;
use crate::spec::Stat;

/// More than this share of the machine used by others: the pair is left out where enough are left.
const FOREIGN_MAX: f64 = 0.15;
/// Pairs that must be left for that.
const PAIRS_MIN: usize = 3;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    pub bench: String,
    pub case: String,
    pub stack: String,
    pub pair: usize,
    pub wall_s: f64,
    /// Bytes, calls or connections.
    pub units: u64,
    pub client_cpu_s: f64,
    pub server_cpu_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Stat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Stat>,
    /// Datagrams for each receive and each send call, of whichever end has more of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_receive: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_send: Option<f64>,
    /// Lost in the kernel.
    pub kernel_drops: u64,
    /// Dropped by the relay on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<u64>,
    /// Resident bytes that an end grew by, the larger of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident: Option<[u64; 2]>,
    pub foreign: f64,
}

impl Sample {
    pub fn from_reading(
        bench: &str,
        case: &str,
        stack: &str,
        pair: usize,
        reading: &Reading,
    ) -> Sample {
        let Reading { outcome, client, server, .. } = reading;
        let micros = |at: usize| outcome.micros.map(|micros| micros[at]);
        let nets = [client.net, server.net];
        let most = |parts: fn(&crate::spec::Net) -> (u64, u64)| {
            let busiest = nets.iter().flatten().map(parts).max();
            busiest.filter(|(_, calls)| *calls > 0).map(|(all, calls)| all as f64 / calls as f64)
        };
        Sample {
            bench: bench.into(),
            case: case.into(),
            stack: stack.into(),
            pair,
            wall_s: outcome.wall_s,
            units: outcome.units,
            client_cpu_s: reading.client_cpu_s,
            server_cpu_s: reading.server_cpu_s,
            p50_us: micros(0),
            p99_us: micros(1),
            p999_us: micros(2),
            max_us: micros(3),
            client: Some(*client),
            server: Some(*server),
            per_receive: most(|net| (net.datagrams_received, net.receives)),
            per_send: most(|net| (net.datagrams_sent, net.sends)),
            kernel_drops: reading.kernel_drops,
            injected: None,
            resident: Some(reading.resident.map(|[before, after]| after.saturating_sub(before))),
            foreign: reading.foreign,
        }
    }

    /// Units a second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.wall_s
    }

    /// CPU seconds of both ends for a unit.
    pub fn cpu_per_unit(&self) -> f64 {
        (self.client_cpu_s + self.server_cpu_s) / self.units as f64
    }

    pub fn p50(&self) -> f64 {
        self.p50_us.unwrap_or(f64::NAN)
    }

    pub fn p999(&self) -> f64 {
        self.p999_us.unwrap_or(f64::NAN)
    }

    pub fn max(&self) -> f64 {
        self.max_us.unwrap_or(f64::NAN)
    }

    /// Sent again by either end.
    pub fn resent(&self) -> u64 {
        let nets = [&self.client, &self.server].map(|stat| stat.as_ref().and_then(|stat| stat.net));
        nets.iter().flatten().map(|net| net.resent).sum()
    }

    pub fn allocations(&self) -> f64 {
        let ends = [&self.client, &self.server];
        ends.iter().filter_map(|stat| stat.as_ref()).map(|stat| stat.allocations as f64).sum()
    }

    /// Bytes of a datagram of the sending end.
    pub fn datagram(&self) -> Option<usize> {
        let nets = [&self.client, &self.server].map(|stat| stat.as_ref().and_then(|stat| stat.net));
        let most = nets.into_iter().flatten().max_by_key(|net| net.bytes_sent)?;
        (most.datagrams_sent > 0)
            .then(|| (most.bytes_sent as f64 / most.datagrams_sent as f64).round() as usize)
    }
}

/// All that was taken, and what went wrong.
pub struct Book {
    pub samples: Vec<Sample>,
    /// Why the run as a whole is no good.
    pub faults: Vec<String>,
    file: Option<std::fs::File>,
    pub folder: PathBuf,
}

impl Book {
    /// Samples go to standard output, and to `samples.jsonl` in the folder.
    pub fn open(folder: &Path) -> Result<Book> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let file = std::fs::File::create(folder.join("samples.jsonl"))?;
        Ok(Book {
            samples: Vec::new(),
            faults: Vec::new(),
            file: Some(file),
            folder: folder.to_owned(),
        })
    }

    pub fn add(&mut self, sample: Sample) {
        let line = serde_json::to_string(&sample).expect("plain values");
        println!("{line}");
        if let Some(file) = &mut self.file
            && let Err(error) = writeln!(file, "{line}")
        {
            self.fault(format!("samples.jsonl: {error}"));
            self.file = None;
        }
        self.samples.push(sample);
    }

    /// Something that makes the bench fail.
    pub fn fault(&mut self, why: String) {
        eprintln!("FAILED: {why}");
        self.faults.push(why);
    }

    /// Takes a sample, or notes why there is none.
    pub fn take(&mut self, what: &str, sample: Result<Sample>) -> Option<Sample> {
        match sample {
            Ok(sample) => {
                self.add(sample.clone());
                Some(sample)
            }
            Err(error) => {
                self.fault(format!("{what}: {error:#}"));
                None
            }
        }
    }

    pub fn of<'a>(&'a self, bench: &str, case: &str, stack: &str) -> Vec<&'a Sample> {
        let is_it = |sample: &&Sample| {
            sample.bench == bench && sample.case == case && sample.stack == stack
        };
        self.samples.iter().filter(is_it).collect()
    }

    /// A figure of single samples.
    pub fn figure(&self, at: &At<'_>, metric: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.of(at.bench, at.case, at.stack).into_iter().map(metric))
    }

    /// The ratio of two, pair by pair. Disturbed pairs are left out if enough others are left.
    pub fn ratio(&self, of: &At<'_>, to: &At<'_>, metric: fn(&Sample) -> f64) -> Option<Spread> {
        self.ratio_of(of, metric, to, metric)
    }

    pub fn ratio_of(
        &self,
        of: &At<'_>,
        metric: fn(&Sample) -> f64,
        to: &At<'_>,
        other: fn(&Sample) -> f64,
    ) -> Option<Spread> {
        let below = self.of(to.bench, to.case, to.stack);
        let pairs: Vec<_> = self
            .of(of.bench, of.case, of.stack)
            .into_iter()
            .filter_map(|a| Some((a, *below.iter().find(|b| b.pair == a.pair)?)))
            .collect();
        let is_quiet =
            |(a, b): &&(&Sample, &Sample)| a.foreign <= FOREIGN_MAX && b.foreign <= FOREIGN_MAX;
        let quiet = pairs.iter().filter(is_quiet).count();
        let ratios = pairs.iter().filter(|pair| quiet < PAIRS_MIN || is_quiet(pair));
        let mut spread = Spread::of(ratios.map(|(a, b)| metric(a) / other(b)))?;
        spread.disturbed = pairs.len() - quiet;
        Some(spread)
    }
}

/// Names samples.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    pub bench: &'a str,
    pub case: &'a str,
    pub stack: &'a str,
}

pub fn at<'a>(bench: &'a str, case: &'a str, stack: &'a str) -> At<'a> {
    At { bench, case, stack }
}

/// Several values of one figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
    /// Pairs with much foreign work.
    pub disturbed: usize,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (min, max) = (*values.first()?, *values.last()?);
        let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        Some(Spread { median, min, max, count, disturbed: 0 })
    }
}
