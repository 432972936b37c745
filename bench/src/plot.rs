//! Plots from samples, as SVG: lines over a logarithmic axis.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::benches::{LOSSES, ROUND_TRIPS_MS, SCALE, WINDOWS, cell};
use crate::sample::{Book, Sample, at};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#3a8f5c", "#8b5fbf", "#c98b1c", "#555555"];

struct Line {
    name: String,
    /// Place on the axis, and value.
    points: Vec<(usize, f64)>,
    dash: &'static str,
    colour: &'static str,
}

struct Plot<'a> {
    title: &'a str,
    across: &'a str,
    up: &'a str,
    /// The places across, evenly spaced.
    places: Vec<String>,
    lines: Vec<Line>,
    is_log: bool,
}

/// Draws what there are samples for into the book's folder; gives the names of the files.
pub fn draw(book: &Book) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (name, plot) in [
        ("window.svg", over_window(book)),
        ("grid.svg", over_loss(book)),
        ("scale.svg", over_connections(book)),
    ] {
        if plot.lines.iter().all(|line| line.points.is_empty()) {
            continue;
        }
        let path = book.folder.join(name);
        std::fs::write(&path, plot.svg()).with_context(|| path.display().to_string())?;
        files.push(path.display().to_string());
    }
    Ok(files)
}

fn points(
    book: &Book,
    bench: &str,
    stack: &str,
    cases: &[String],
    metric: fn(&Sample) -> f64,
) -> Vec<(usize, f64)> {
    let of = |(place, case): (usize, &String)| {
        Some((place, book.figure(&at(bench, case, stack), metric)?.median))
    };
    cases.iter().enumerate().filter_map(of).collect()
}

fn over_window(book: &Book) -> Plot<'static> {
    let places: Vec<_> = WINDOWS.iter().map(u32::to_string).collect();
    let points = points(book, "window", "ours", &places, |sample| sample.rate() / 1e6);
    Plot {
        title: "Bulk to the client over the window, loopback",
        across: "window, packets",
        up: "MB/s",
        places,
        lines: vec![Line { name: "ours".into(), points, dash: "", colour: COLOURS[0] }],
        is_log: false,
    }
}

fn over_loss(book: &Book) -> Plot<'static> {
    let mut lines = Vec::new();
    for (stack, colour) in ["ours", "quinn", "openafs"].into_iter().zip(COLOURS) {
        for (round_trip, dash) in ROUND_TRIPS_MS.into_iter().zip(["", "6 3", "2 3"]) {
            let cases: Vec<_> = LOSSES.iter().map(|loss| cell(round_trip, *loss)).collect();
            let points = points(book, "grid", stack, &cases, |sample| sample.rate() / 1e6);
            lines.push(Line { name: format!("{stack}, {round_trip} ms"), points, dash, colour });
        }
    }
    Plot {
        title: "Bulk to the client over loss and round trip",
        across: "loss each way, %",
        up: "MB/s",
        places: LOSSES.iter().map(|loss| (loss * 100.0).to_string()).collect(),
        lines,
        is_log: true,
    }
}

fn over_connections(book: &Book) -> Plot<'static> {
    let places: Vec<_> = SCALE.iter().map(usize::to_string).collect();
    let points = points(book, "scale", "ours", &places, |sample| sample.cpu_per_unit() * 1e6);
    Plot {
        title: "CPU of a call over connections in use, 4 calls in flight",
        across: "connections",
        up: "us, both ends",
        places,
        lines: vec![Line { name: "ours".into(), points, dash: "", colour: COLOURS[0] }],
        is_log: false,
    }
}

impl Plot<'_> {
    fn svg(&self) -> String {
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let most = values().fold(f64::MIN_POSITIVE, f64::max);
        let least = values().fold(f64::MAX, f64::min).max(f64::MIN_POSITIVE);
        let (low, high, ticks) = match self.is_log {
            true => {
                let (low, high) = (least.log10().floor(), most.log10().ceil());
                let ticks = (low as i32..=high as i32).map(f64::from).collect::<Vec<_>>();
                (low, high.max(low + 1.0), ticks)
            }
            false => {
                let step = round_step(most / 5.0);
                let count = (most / step).ceil() as usize;
                let ticks = (0..=count).map(|at| at as f64 * step).collect();
                (0.0, count as f64 * step, ticks)
            }
        };
        let x = |place: usize| {
            let gaps = self.places.len().saturating_sub(1).max(1) as f64;
            LEFT + (WIDTH - LEFT - RIGHT) * (place as f64 + 0.15) / (gaps + 0.3)
        };
        let y = |at: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (at - low) / (high - low);
        let scaled = |value: f64| if self.is_log { value.log10() } else { value };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut text = |at: (f64, f64), anchor: &str, more: &str, words: &str| {
            let (x, y) = at;
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{words}</text>"
            );
        };
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        text((middle, 22.0), "middle", " font-size=\"14\"", self.title);
        text((middle, HEIGHT - 14.0), "middle", "", self.across);
        let turned = format!(" transform=\"rotate(-90 16 {})\"", HEIGHT / 2.0);
        text((16.0, HEIGHT / 2.0), "middle", &turned, self.up);
        for (place, name) in self.places.iter().enumerate() {
            text((x(place), HEIGHT - BOTTOM + 18.0), "middle", "", name);
        }
        for tick in &ticks {
            let value = if self.is_log { 10f64.powf(*tick) } else { *tick };
            text((LEFT - 6.0, y(*tick) + 4.0), "end", "", &trim(value));
        }
        for tick in &ticks {
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
                WIDTH - RIGHT,
                y(*tick),
                y(*tick)
            );
        }
        let drawn = self.lines.iter().filter(|line| !line.points.is_empty());
        for (at, Line { name, points, dash, colour }) in drawn.enumerate() {
            let places = points.iter().map(|(place, value)| (x(*place), y(scaled(*value))));
            let path: Vec<_> = places.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let path = path.join(" ");
            let style = format!(
                "fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\""
            );
            let _ = writeln!(out, "<polyline points=\"{path}\" {style}/>");
            for (x, y) in places {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let (left, height) = (WIDTH - RIGHT + 10.0, TOP + 8.0 + 18.0 * at as f64);
            let end = left + 24.0;
            let _ = writeln!(out, "<polyline points=\"{left},{height} {end},{height}\" {style}/>");
            let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{name}</text>", end + 6.0, height + 4.0);
        }
        out.push_str("</svg>\n");
        out
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|it| it * power).find(|it| *it >= least).unwrap_or(power)
}

fn trim(value: f64) -> String {
    if value >= 1.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value}") }
}
