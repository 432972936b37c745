//! The bars, and how far each is met: ratios of pairs, in one table.

use std::fmt::Write;

use crate::benches::{AFS_THREADS, LOSSES, ROUND_TRIPS_MS, SCALE, cell};
use crate::sample::{At, Book, Sample, Spread, at};

/// Payload of a full packet.
const PACKET_BYTES: f64 = 1412.0;

/// One line of the table.
struct Bar {
    what: String,
    spread: Option<Spread>,
    land: f64,
    goal: f64,
    /// Whether smaller is better.
    is_most: bool,
    unit: &'static str,
}

impl Bar {
    fn verdict(&self) -> &'static str {
        let Some(spread) = self.spread else { return "not measured" };
        let meets = |bar: f64| match self.is_most {
            true => spread.median <= bar,
            false => spread.median >= bar,
        };
        match (meets(self.land), meets(self.goal)) {
            (_, true) => "goal",
            (true, false) => "met",
            (false, false) => "MISSED",
        }
    }
}

struct Bars<'a> {
    book: &'a Book,
    bars: Vec<Bar>,
}

impl Bars<'_> {
    fn least(&mut self, what: &str, spread: Option<Spread>, land: f64, goal: f64) {
        let what = what.to_owned();
        self.bars.push(Bar { what, spread, land, goal, is_most: false, unit: "" });
    }

    fn most(&mut self, what: &str, spread: Option<Spread>, land: f64, goal: f64) {
        let what = what.to_owned();
        self.bars.push(Bar { what, spread, land, goal, is_most: true, unit: "" });
    }

    fn absolute(
        &mut self,
        what: &str,
        spread: Option<Spread>,
        [land, goal]: [f64; 2],
        unit: &'static str,
    ) {
        let what = what.to_owned();
        self.bars.push(Bar { what, spread, land, goal, is_most: true, unit });
    }

    fn rates(&self, of: At<'_>, to: At<'_>) -> Option<Spread> {
        self.book.ratio(&of, &to, Sample::rate)
    }
}

/// The whole table of bars, as Markdown.
pub fn table(book: &Book) -> String {
    let mut bars = Bars { book, bars: Vec::new() };
    for way in ["recv", "send"] {
        let ours = at("bulk", way, "ours");
        let to = |stack| at("bulk", way, stack);
        for (name, stack, land, goal) in [
            ("raw GSO", "raw", 0.30, 0.50),
            ("quinn", "quinn", 2.5, 5.0),
            ("tonic", "tonic", 1.3, 2.5),
            ("TCP", "tcp", 0.5, 1.0),
        ] {
            let spread = bars.rates(ours, to(stack));
            bars.least(&format!("bulk {way}, one call, of {name}"), spread, land, goal);
        }
        let afs = at("openafs", way, "openafs");
        let spread = bars.rates(ours, afs);
        bars.least(&format!("bulk {way}, one call, of OpenAFS"), spread, 10.0, 20.0);
        let spread = book.ratio(&ours, &to("raw"), Sample::cpu_per_unit);
        bars.most(&format!("bulk {way}, CPU s/GB both ends, of raw GSO"), spread, 4.0, 3.0);
    }
    for suffix in ["", " jumbo"] {
        for way in ["recv", "send"] {
            let case = format!("{way}{suffix}");
            let alone = at("openafs", &case, "openafs");
            for stack in ["ours to openafs", "openafs to ours"] {
                let both = at("openafs", &case, stack);
                let spread = bars.rates(both, alone);
                bars.least(&format!("{stack}, {case}, of OpenAFS with itself"), spread, 1.0, 1.5);
                // Ours against theirs of the same run.
                let ours: fn(&Sample) -> f64 = match stack {
                    "ours to openafs" => |sample| sample.client_cpu_s / sample.server_cpu_s,
                    _ => |sample| sample.server_cpu_s / sample.client_cpu_s,
                };
                let spread = book.figure(&both, ours);
                bars.most(&format!("{stack}, {case}, our CPU of theirs"), spread, 0.5, 0.5);
            }
        }
    }
    calls(&mut bars);
    grid(&mut bars);
    rest(&mut bars);
    let mut out = String::from(
        "| bar | median | min to max | pairs (disturbed) | land | goal | |\n|---|---|---|---|---|---|---|\n",
    );
    for bar in &bars.bars {
        let sign = if bar.is_most { "<=" } else { ">=" };
        let (median, range, pairs) = match bar.spread {
            None => ("-".into(), "-".into(), "-".into()),
            Some(Spread { median, min, max, count, disturbed }) => (
                short(median),
                format!("{} to {}", short(min), short(max)),
                format!("{count} ({disturbed})"),
            ),
        };
        let Bar { what, land, goal, unit, .. } = bar;
        let verdict = bar.verdict();
        let _ = writeln!(
            out,
            "| {what} | {median}{unit} | {range} | {pairs} | {sign} {land} | {goal} | {verdict} |"
        );
    }
    let missed = bars.bars.iter().filter(|bar| bar.verdict() == "MISSED").count();
    let absent = bars.bars.iter().filter(|bar| bar.spread.is_none()).count();
    let _ = writeln!(out, "\n{} bars, {missed} missed, {absent} not measured.", bars.bars.len());
    out
}

fn calls(bars: &mut Bars<'_>) {
    let ours = |case| at("calls", case, "ours");
    let afs_best = AFS_THREADS.to_string();
    for (name, case, stack, land, goal) in [
        ("calls/s, 64 in flight, of quinn", "64", "quinn", 1.2, 1.7),
        ("calls/s, 64 in flight, of tarpc", "64", "tarpc", 1.4, 1.4),
        ("calls/s, 64 in flight, of tonic", "64", "tonic", 5.0, 5.0),
        ("calls/s, 16 in flight, of quinn", "16", "quinn", 1.0, 1.3),
    ] {
        let spread = bars.rates(ours(case), at("calls", case, stack));
        bars.least(name, spread, land, goal);
    }
    let spread = bars.rates(ours("64"), at("calls", &afs_best, "openafs"));
    bars.least("calls/s, 64 in flight, of OpenAFS's best (32 threads)", spread, 8.0, 8.0);
    let spread = bars.book.ratio(&ours("64"), &at("calls", "64", "quinn"), Sample::cpu_per_unit);
    bars.most("CPU per call, 64 in flight, of quinn", spread, 0.8, 0.55);
    let spread = bars.book.ratio(&ours("1"), &at("calls", "1", "raw"), Sample::p50);
    bars.most("p50, one in flight, of raw UDP ping-pong", spread, 1.15, 1.05);
}

fn grid(bars: &mut Bars<'_>) {
    for round_trip in ROUND_TRIPS_MS {
        for loss in LOSSES {
            let case = cell(round_trip, loss);
            let goal = if loss >= 0.01 { 2.0 } else { 1.0 };
            for stack in ["quinn", "openafs"] {
                let spread = bars.rates(at("grid", &case, "ours"), at("grid", &case, stack));
                bars.least(&format!("grid {case}, of {stack}"), spread, 1.0, goal);
            }
        }
    }
}

fn rest(bars: &mut Bars<'_>) {
    let book = bars.book;
    let idle = book.samples.iter().filter(|sample| sample.bench == "idle");
    let kib = |at: usize| {
        move |sample: &Sample| {
            sample.resident.unwrap_or_default()[at] as f64 / sample.units as f64 / 1e3
        }
    };
    for (at, end) in ["client", "server"].into_iter().enumerate() {
        let spread = Spread::of(idle.clone().map(kib(at)));
        bars.absolute(
            &format!("resident memory per idle connection, {end}"),
            spread,
            [8.0, 6.0],
            " kB",
        );
    }
    let one = SCALE[0].to_string();
    for (count, land, goal) in [(SCALE[1], 1.3, 1.15), (SCALE[2], 3.5, 2.5)] {
        let count = count.to_string();
        let (many, one) = (at("scale", &count, "ours"), at("scale", &one, "ours"));
        let spread = book.ratio(&many, &one, Sample::cpu_per_unit);
        bars.most(&format!("CPU per call, {count} connections, of one"), spread, land, goal);
    }
    let (ours, inline) = (at("bulk", "recv", "ours"), at("bulk", "recv", "inline"));
    let spread = book.ratio(&ours, &inline, Sample::cpu_per_unit);
    bars.most("the actors' share: CPU of bulk recv, of an inline loop", spread, 1.2, 1.1);
    for case in ["timer beside bulk", "timer under flood"] {
        let spread = book.figure(&at("fair", case, "ours"), |sample| sample.max() / 1e3);
        bars.absolute(&format!("{case}: latest of 20"), spread, [10.0, 3.0], " ms");
    }
    let (beside, alone) =
        (at("fair", "calls beside bulk", "ours"), at("fair", "calls alone", "ours"));
    let spread = book.ratio(&beside, &alone, Sample::p999);
    bars.most("p99.9 of small calls beside bulk, of alone", spread, 5.0, 2.0);
    let per_packet = |sample: &Sample| sample.allocations() / (sample.units as f64 / PACKET_BYTES);
    for way in ["recv", "send"] {
        let spread = book.figure(&at("bulk", way, "ours"), per_packet);
        bars.most(
            &format!("allocations per DATA packet, both ends, bulk {way}"),
            spread,
            0.25,
            0.12,
        );
    }
    let per_call = |sample: &Sample| sample.allocations() / sample.units as f64;
    let spread = book.figure(&at("calls", "64", "ours"), per_call);
    bars.most("allocations per call, both ends, 64 in flight", spread, 20.0, 12.0);
}

/// Figures of all samples by bench, case and stack, as Markdown.
pub fn figures(book: &Book) -> String {
    let mut names: Vec<(&str, &str, &str)> = Vec::new();
    for sample in &book.samples {
        let name = (&sample.bench[..], &sample.case[..], &sample.stack[..]);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut out = String::from(
        "| bench | case | stack | rate | CPU, both ends | p50 / p99 / p99.9 us | datagrams per receive / send | sent again |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (bench, case, stack) in names {
        let at = at(bench, case, stack);
        let median = |metric: fn(&Sample) -> f64| {
            book.figure(&at, metric).map_or("-".to_owned(), |spread| short(spread.median))
        };
        let is_bulk = matches!(bench, "bulk" | "grid" | "openafs" | "window" | "sizes")
            || (bench == "raw" && case != "ping-pong");
        let (rate, cpu) = if is_bulk {
            let rate = median(|sample| sample.rate() / 1e6);
            (rate + " MB/s", median(|sample| sample.cpu_per_unit() * 1e9) + " s/GB")
        } else {
            let rate = median(Sample::rate);
            (rate + " /s", median(|sample| sample.cpu_per_unit() * 1e6) + " us")
        };
        let latency =
            [Sample::p50, |sample: &Sample| sample.p99_us.unwrap_or(f64::NAN), Sample::p999]
                .map(median)
                .join(" / ");
        let per_receive = median(|sample| sample.per_receive.unwrap_or(f64::NAN));
        let per_send = median(|sample| sample.per_send.unwrap_or(f64::NAN));
        let resent = median(|sample| sample.resent() as f64);
        let _ = writeln!(
            out,
            "| {bench} | {case} | {stack} | {rate} | {cpu} | {latency} | {per_receive} / {per_send} | {resent} |"
        );
    }
    out
}

/// Three digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".into(),
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}
