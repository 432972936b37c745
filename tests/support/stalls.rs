//! Calls that stalled, and for what: each by its own packets, and none by what befell another.
//!
//! The time of a call falls into what lies between its datagrams. It is explained where it begins while one of them is
//! missing, that is: was lost on the way, with no copy of it through yet; for as long as its sender may wait before it
//! sends another. It is explained where a thread of one of the processes stood still, for long at a time. What is left of
//! the call's time then is what nobody can explain.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::ledger::{Event, Trace, What};
use crate::machine::{Pause, stood_still};

/// A call has stalled that took so long; nothing explains a wait that long between two of its datagrams. Nothing that is lost comes again sooner: the
/// least retransmission timeout is 350 ms (`rto_min`; OpenAFS's the same). And nothing else takes so long between two
/// processes of a machine that is not at an end.
pub const STALL_MIN: Duration = Duration::from_millis(300);
/// Nothing explains so much of a call, though none of it is such a wait.
const PIECES_MAX: Duration = Duration::from_secs(1);
/// Moments in which a run may have had no processor.
const MOMENTS_MAX: u64 = 16;
/// Of how many stalls of a kind a line is printed; all of them are in the file.
const PRINTED_MAX: u64 = 10;

/// How long who has lost a packet so many times one after the other may wait before it goes again; first for what
/// the client sends, then for what the server does.
#[derive(Clone, Copy)]
pub struct Patience(pub fn(u32) -> Duration, pub fn(u32) -> Duration);

/// Ours: `rto_initial`, 1 s, doubled each time, and half of it more for a tail probe before (docs/recovery.md 2).
pub fn our_patience(lost: u32) -> Duration {
    Duration::from_millis(1500) * 2u32.saturating_pow(lost.saturating_sub(1))
}

/// OpenAFS's, as far as it was seen: its server sends a reply again after 3.2 s, its client a request after 6.2 s and up to
/// 8 s; doubled each time.
pub fn openafs_patience(lost: u32) -> Duration {
    let doubled = Duration::from_secs(10) * 2u32.saturating_pow(lost.saturating_sub(1));
    doubled.min(Duration::from_secs(60))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    RequestLost,
    ReplyLost,
    BothLost,
    /// A PING of the server for a proof of the address, or its answer.
    ProofLost,
    /// A thread stood still.
    Machine,
    /// It never waited so long, but often: all was slow.
    Pieces,
    Unexplained,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::RequestLost => "request lost",
            Cause::ReplyLost => "reply lost",
            Cause::BothLost => "both lost",
            Cause::ProofLost => "reach check lost",
            Cause::Machine => "the machine",
            Cause::Pieces => "slow in pieces",
            Cause::Unexplained => "unexplained",
        })
    }
}

/// A call that took [`STALL_MIN`] or longer.
#[derive(Clone, Debug)]
pub struct Stall {
    /// Which, for people.
    pub call: String,
    pub from: Instant,
    pub to: Instant,
    pub events: Vec<Event>,
}

/// What is missing at some time, and how often it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing {
    from_client: bool,
    is_proof: bool,
    lost: u32,
}

impl Stall {
    /// What explains it. For the machine: only what no loss does.
    pub fn judge(&self, patience: Patience, pauses: &[Pause]) -> Cause {
        let mut causes = Vec::new();
        // What no loss explains, of which the machine explains some, and what is left of that.
        let (mut open, mut still, mut waits) = (Duration::ZERO, Duration::ZERO, Vec::new());
        for (from, to) in self.gaps() {
            let missing = self.missing(from);
            let may_wait = missing.iter().map(|missing| missing.may_wait(patience)).max();
            let by_loss = may_wait.unwrap_or_default().min(to - from);
            if !by_loss.is_zero() {
                causes.extend(missing);
            }
            let rest = to - from - by_loss;
            open += rest;
            still += stood_still(pauses, from, to).min(rest);
            waits.push(rest.saturating_sub(stood_still(pauses, from, to)));
        }
        let left: Duration = waits.iter().sum();
        if left >= PIECES_MAX || waits.iter().any(|wait| *wait >= STALL_MIN) {
            return Cause::Unexplained;
        }
        let lost = |what: fn(&Missing) -> bool| causes.iter().any(what);
        let request = lost(|missing| missing.from_client && !missing.is_proof);
        let reply = lost(|missing| !missing.from_client && !missing.is_proof);
        match (open < STALL_MIN, request, reply) {
            (true, true, true) => Cause::BothLost,
            (true, true, false) => Cause::RequestLost,
            (true, false, true) => Cause::ReplyLost,
            (true, false, false) => Cause::ProofLost,
            (false, ..) if left < STALL_MIN && !still.is_zero() => Cause::Machine,
            (false, ..) => Cause::Pieces,
        }
    }

    /// The times between its datagrams, and before and after them.
    fn gaps(&self) -> impl Iterator<Item = (Instant, Instant)> {
        let within = |at: &Instant| *at > self.from && *at < self.to;
        let mut times: Vec<_> = self.events.iter().map(|event| event.at).filter(within).collect();
        times.sort();
        let starts = std::iter::once(self.from).chain(times.clone());
        let ends = times.into_iter().chain([self.to]).collect::<Vec<_>>();
        starts.zip(ends).collect::<Vec<_>>().into_iter()
    }

    /// What was lost by then and has not come in another copy.
    fn missing(&self, at: Instant) -> Vec<Missing> {
        let mut losses: BTreeMap<(bool, Option<u32>), u32> = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.at <= at) {
            let key = match event.what {
                What::Data { seq, .. } => (event.from_client, Some(seq)),
                // Either of them lost, and the proof is missing.
                What::Ping | What::Pong => (true, None),
                What::Other(_) => continue,
            };
            let is_whole = event.is_through && event.what != What::Ping;
            match (is_whole, event.is_through) {
                (true, _) => _ = losses.insert(key, 0),
                (false, false) => *losses.entry(key).or_default() += 1,
                (false, true) => {}
            }
        }
        let missing = losses.into_iter().filter(|(_, lost)| *lost > 0);
        missing
            .map(|((from_client, seq), lost)| Missing {
                from_client,
                is_proof: seq.is_none(),
                lost,
            })
            .collect()
    }

    /// What there was, in the order of time.
    fn story(&self) -> String {
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.at);
        let told = events.iter().map(|event| {
            let arrow = if event.from_client { '>' } else { '<' };
            let what = match event.what {
                What::Data { seq, is_last } => format!("q{seq}{}", if is_last { "L" } else { "" }),
                What::Ping => "PING".to_owned(),
                What::Pong => "PONG".to_owned(),
                What::Other(packet_type) => format!("{packet_type:?}").to_uppercase(),
            };
            let at = event.at.saturating_duration_since(self.from);
            let lost = if event.is_through { "" } else { " lost" };
            format!("{:.3} {arrow}{what}#{}{lost}", at.as_secs_f64(), event.serial)
        });
        let told: Vec<_> = told.collect();
        if told.is_empty() { "no datagram of it was seen".to_owned() } else { told.join(", ") }
    }
}

impl Missing {
    fn may_wait(&self, Patience(client, server): Patience) -> Duration {
        match (self.is_proof, self.from_client) {
            // `reach_ping_interval`, of either; the request goes again besides.
            (true, _) => Duration::from_secs(3) * self.lost,
            (false, true) => client(self.lost),
            (false, false) => server(self.lost),
        }
    }
}

/// The calls of a run that have stalled, and the longest that there was.
#[derive(Clone, Default)]
pub struct Stalls(Arc<Mutex<(Vec<Stall>, Duration)>>);

impl Stalls {
    pub fn add(&self, call: impl FnOnce() -> String, from: Instant, to: Instant, events: &[Event]) {
        let (stalls, slowest) = &mut *self.0.lock().unwrap();
        *slowest = (*slowest).max(to - from);
        if to - from >= STALL_MIN {
            stalls.push(Stall { call: call(), from, to, events: events.to_vec() });
        }
    }

    /// A call of which only its packets are known: from the first of the request to the end of the reply.
    pub fn add_seen(&self, trace: &Trace) {
        let data = |from_client| {
            let is_data = |event: &&Event| matches!(event.what, What::Data { .. });
            trace.events.iter().filter(is_data).filter(move |e| e.from_client == from_client)
        };
        let Some(first) = data(true).map(|event| event.at).min() else { return };
        let is_end = |event: &&Event| {
            event.is_through && matches!(event.what, What::Data { is_last: true, .. })
        };
        let whole = data(false).filter(is_end).map(|event| event.at).min();
        // One without a reply lasts as long as anything is heard of it.
        let last = trace.events.iter().map(|event| event.at).max().unwrap_or(first);
        let (channel, number) = (trace.channel, trace.call_number);
        let name = || format!("call {number} of {:08x}/{:08x}", channel.epoch, channel.cid);
        self.add(name, first, whole.unwrap_or(last).max(first), &trace.events);
    }

    pub fn slowest(&self) -> Duration {
        self.0.lock().unwrap().1
    }

    /// Says of each why, all of them into a file of this name, and counts. `began` is when the first call did.
    pub fn judge(
        &self,
        file: &str,
        began: Instant,
        patience: Patience,
        pauses: &[Pause],
    ) -> Verdict {
        let stalls = self.0.lock().unwrap().0.clone();
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file);
        let mut log = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        let mut verdict = Verdict { counts: BTreeMap::new(), unexplained: Vec::new(), path };
        for stall in &stalls {
            let cause = stall.judge(patience, pauses);
            let line = format!(
                "stall: {}, {:.1?} after the first, took {:.3?}: {cause}; {}",
                stall.call,
                stall.from.saturating_duration_since(began),
                stall.to - stall.from,
                stall.story()
            );
            writeln!(log, "{line}").unwrap();
            let count = verdict.counts.entry(cause).or_default();
            *count += 1;
            if *count <= PRINTED_MAX {
                println!("{line}");
            }
            if cause == Cause::Unexplained {
                verdict.unexplained.push(line);
            }
        }
        log.flush().unwrap();
        verdict
    }
}

/// How many stalled, and for what.
pub struct Verdict {
    counts: BTreeMap<Cause, u64>,
    unexplained: Vec<String>,
    /// Where each of them is told.
    path: PathBuf,
}

impl Verdict {
    pub fn of(&self, cause: Cause) -> u64 {
        self.counts.get(&cause).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Why the run fails, if it does. The machine may have had no time for all calls of some moments, and for one in a
    /// thousand besides; where there was more of it, nothing was shown.
    pub fn trouble(&self, calls: u64, at_once: u64) -> Option<String> {
        let machine_max = MOMENTS_MAX * at_once + calls / 1000;
        if let Some(first) = self.unexplained.first() {
            let count = self.unexplained.len();
            return Some(format!("{count} stalls that nothing explains, the first: {first}"));
        }
        let machine = self.of(Cause::Machine) + self.of(Cause::Pieces);
        (machine > machine_max).then(|| {
            format!("{machine} stalls for want of a processor, of at most {machine_max}: try again on a quieter machine")
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Cause::*;
        write!(f, "stalls {} (", self.total())?;
        for cause in [RequestLost, ReplyLost, BothLost, ProofLost, Machine, Pieces, Unexplained] {
            let comma = if cause == RequestLost { "" } else { ", " };
            write!(f, "{comma}{cause} {}", self.of(cause))?;
        }
        write!(f, "), each in {}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const OURS: Patience = Patience(our_patience, our_patience);

    /// A call of so many milliseconds, and its packets: when, from the client, sequence number, through.
    fn stall(took: u32, events: &[(u32, bool, What, bool)]) -> Stall {
        let from = Instant::now();
        let event =
            |(serial, (ms, from_client, what, is_through)): (usize, &(u32, bool, _, bool))| Event {
                at: from + MS * *ms,
                from_client: *from_client,
                serial: serial as u32 + 1,
                what: *what,
                is_through: *is_through,
            };
        let events = events.iter().enumerate().map(event).collect();
        Stall { call: "call 1".to_owned(), from, to: from + MS * took, events }
    }

    const Q1: What = What::Data { seq: 1, is_last: true };
    const ACK: What = What::Other(rxrpc::wire::PacketType::Ack);

    #[test]
    fn a_stall_is_explained_by_a_packet_of_its_own_that_was_missing() {
        let request =
            stall(1001, &[(0, true, Q1, false), (1000, true, Q1, true), (1001, false, Q1, true)]);
        assert_eq!(request.judge(OURS, &[]), Cause::RequestLost);
        let reply =
            stall(1001, &[(0, true, Q1, true), (1, false, Q1, false), (1000, false, Q1, true)]);
        assert_eq!(reply.judge(OURS, &[]), Cause::ReplyLost);
        let both = [
            (0, true, Q1, false),
            (900, true, Q1, true),
            (901, false, Q1, false),
            (1900, false, Q1, true),
        ];
        assert_eq!(stall(1900, &both).judge(OURS, &[]), Cause::BothLost);
        let proof = [
            (0, true, Q1, true),
            (1, false, What::Ping, true),
            (2, true, What::Pong, false),
            (2000, false, What::Ping, true),
            (2001, true, What::Pong, true),
            (2002, false, Q1, true),
        ];
        assert_eq!(stall(2002, &proof).judge(OURS, &[]), Cause::ProofLost);
    }

    #[test]
    fn a_loss_that_was_made_good_or_explains_less_explains_nothing() {
        // Nothing was lost.
        assert_eq!(
            stall(1000, &[(0, true, Q1, true), (999, false, Q1, true)]).judge(OURS, &[]),
            Cause::Unexplained
        );
        // An ACK is nothing that a call waits for.
        let ack = [(0, true, Q1, true), (1, false, ACK, false), (999, false, Q1, true)];
        assert_eq!(stall(1000, &ack).judge(OURS, &[]), Cause::Unexplained);
        // It came again soon, and the server slept.
        let again = [(0, true, Q1, false), (100, true, Q1, true), (2000, false, Q1, true)];
        assert_eq!(stall(2000, &again).judge(OURS, &[]), Cause::Unexplained);
        // The caller was told long after the reply had come.
        let told = [(0, true, Q1, true), (1, false, Q1, true)];
        assert_eq!(stall(500, &told).judge(OURS, &[]), Cause::Unexplained);
        // The packet was missing, and its sender did not care.
        let late = [(0, true, Q1, false), (9000, true, Q1, true), (9001, false, Q1, true)];
        assert_eq!(stall(9001, &late).judge(OURS, &[]), Cause::Unexplained);
        assert_eq!(stall(500, &[]).judge(OURS, &[]), Cause::Unexplained);
    }

    #[test]
    fn what_is_slow_in_pieces_is_told_apart_from_a_wait() {
        let slow = [(100, true, Q1, true), (300, false, Q1, true)];
        assert_eq!(stall(400, &slow).judge(OURS, &[]), Cause::Pieces);
        let often: Vec<_> = (1..5).map(|index| (250 * index, true, Q1, true)).collect();
        assert_eq!(stall(1001, &often).judge(OURS, &[]), Cause::Unexplained, "a second of it");
    }

    #[test]
    fn the_machine_explains_what_it_stood_still_for_and_counts_for_itself() {
        let call = stall(1000, &[(0, true, Q1, true), (999, false, Q1, true)]);
        let pause = |from: u32, length: u32| Pause {
            from: call.from + MS * from,
            to: call.from + MS * (from + length),
            length: MS * length,
        };
        assert_eq!(call.judge(OURS, &[pause(100, 800)]), Cause::Machine);
        assert_eq!(call.judge(OURS, &[pause(100, 600)]), Cause::Unexplained, "too short");
        assert_eq!(
            call.judge(OURS, &[pause(100, 300), pause(300, 380)]),
            Cause::Unexplained,
            "at once"
        );
        assert_eq!(call.judge(OURS, &[pause(2000, 800)]), Cause::Unexplained, "another time");
        let stalls = Stalls::default();
        let began = Instant::now();
        for _ in 0..66 {
            stalls.add(|| call.call.clone(), call.from, call.to, &call.events);
        }
        let verdict = stalls.judge("stalls-of-the-machine.log", began, OURS, &[pause(100, 800)]);
        assert_eq!((verdict.total(), verdict.of(Cause::Machine)), (66, 66));
        assert_eq!(verdict.trouble(2000, 4), None);
        assert!(verdict.trouble(1000, 4).unwrap().contains("at most 65"));
        let verdict = stalls.judge("stalls-of-nobody.log", began, OURS, &[]);
        assert!(verdict.trouble(1_000_000, 4).unwrap().contains("66 stalls that nothing explains"));
    }
}
