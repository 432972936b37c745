//! What happened in a world, in one order that does not depend on how it was wired, and as a ladder to read.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::link::Fate;
use super::random::mix;
use crate::testkit::notation::show;
use crate::testkit::{StateWord, states};

/// One thing that happened. What states channels were in does not count when entries are compared.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When, since the world began.
    pub at: Duration,
    /// What.
    pub what: What,
    /// State of the channel that a packet came to, before; of the channel that sent one, afterwards.
    pub before: Option<StateWord>,
    /// State of the channel that a packet came to, when all that it caused had happened.
    pub after: Option<StateWord>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.at == other.at && self.what == other.what
    }
}

impl Eq for Entry {}

/// See [`Entry`]. The order of the variants and of their fields is that of things of one instant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The world changed: a fault, or its end.
    World(String),
    /// A datagram arrived.
    Arrived {
        /// Its sender.
        from: SocketAddr,
        /// Where it arrived.
        to: SocketAddr,
        /// Which of the sender's to this address it was, from 0.
        number: u64,
        /// The datagram.
        datagram: Bytes,
    },
    /// A datagram was sent.
    Sent {
        /// Its sender.
        from: SocketAddr,
        /// Where to.
        to: SocketAddr,
        /// Which of the sender's to this address it was, from 0.
        number: u64,
        /// The datagram.
        datagram: Bytes,
        /// What becomes of it.
        fate: Fate,
    },
    /// An application was told something, or did something.
    Told {
        /// Where.
        host: SocketAddr,
        /// Which of its calls.
        call: u32,
        /// Which of the notes of this call, from 0.
        number: u64,
        /// What.
        what: String,
    },
}

/// What happened, and the states of its channel.
#[derive(Debug)]
struct Happening {
    what: What,
    before: Option<StateWord>,
    after: Option<StateWord>,
}

/// The order of things within one instant, and what they are.
///
/// Things of one instant are sorted: changes of the world, then arrivals, then what was sent, by link and
/// number, then what applications were told, by host, call and number. Two links, and two calls, have no
/// order among themselves at one instant; nothing can depend on it, since a datagram takes at least a
/// millisecond.
#[derive(Debug, Default)]
pub struct Trace {
    keeps: bool,
    hash: u64,
    now: Duration,
    instant: Vec<Happening>,
    entries: Vec<Entry>,
    count: u64,
    /// The last arrival, until what it caused has happened.
    arrived: Option<usize>,
}

impl Trace {
    /// A trace that only hashes, or that keeps its entries too.
    pub fn new(keeps: bool) -> Trace {
        Trace { keeps, ..Trace::default() }
    }

    /// Adds what happened at `at`, which never goes back.
    pub fn add(&mut self, at: Duration, what: What) {
        if at != self.now {
            self.end_instant();
            self.now = at;
        }
        self.count += 1;
        let before = match &what {
            _ if !self.keeps => None,
            What::Arrived { datagram, .. } => states::of_packet(datagram, true),
            What::Sent { datagram, .. } => states::of_packet(datagram, false),
            _ => None,
        };
        let is_arrival = matches!(what, What::Arrived { .. });
        self.instant.push(Happening { what, before, after: None });
        if self.keeps && is_arrival {
            self.arrived = Some(self.instant.len() - 1);
        }
    }

    /// All that the last arrival caused has happened.
    pub fn settled(&mut self) {
        if let Some(happening) = self.arrived.take().and_then(|at| self.instant.get_mut(at))
            && let What::Arrived { datagram, .. } = &happening.what
        {
            happening.after = states::of_packet(datagram, true);
        }
    }

    /// The hash of all so far.
    pub fn hash(&mut self) -> u64 {
        self.end_instant();
        self.hash
    }

    /// When the last thing happened.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Things so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The entries, if they were kept.
    pub fn entries(&mut self) -> &[Entry] {
        self.end_instant();
        &self.entries
    }

    fn end_instant(&mut self) {
        self.settled();
        self.instant.sort_by(|one, other| one.what.cmp(&other.what));
        for Happening { what, before, after } in self.instant.drain(..) {
            let mut hasher = Fold(self.hash ^ self.now.as_nanos() as u64);
            absorb(&what, &mut hasher);
            self.hash = mix(hasher.0);
            if self.keeps {
                self.entries.push(Entry { at: self.now, what, before, after });
            }
        }
    }
}

/// A hash that is the same in every build and on every machine.
struct Fold(u64);

impl Fold {
    fn word(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word).wrapping_add(word.rotate_left(17));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // Payloads are long: one multiplication a word.
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 ^= self.0 >> 29;
        }
    }

    fn address(&mut self, address: &SocketAddr) {
        match address.ip() {
            std::net::IpAddr::V4(ip) => self.word(u64::from(u32::from(ip))),
            std::net::IpAddr::V6(ip) => self.bytes(&ip.octets()),
        }
        self.word(u64::from(address.port()));
    }
}

fn absorb(what: &What, hasher: &mut Fold) {
    match what {
        What::World(text) => hasher.bytes(text.as_bytes()),
        What::Arrived { from, to, number, datagram } => {
            hasher.address(from);
            hasher.address(to);
            hasher.word(*number);
            hasher.bytes(datagram);
        }
        What::Sent { from, to, number, datagram, fate } => {
            hasher.address(from);
            hasher.address(to);
            hasher.word(*number << 8 | *fate as u64);
            hasher.bytes(datagram);
        }
        What::Told { host, call, number, what } => {
            hasher.address(host);
            hasher.word(u64::from(*call) << 32 | *number);
            hasher.bytes(what.as_bytes());
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} ", self.at.as_secs_f64())?;
        match &self.what {
            What::World(text) => write!(f, "**** {text}"),
            What::Arrived { from, to, number, datagram } => {
                write!(f, "{from} -> {to}  #{number} {}", show(datagram))?;
                let word =
                    |word: Option<StateWord>| word.map_or("-".to_owned(), |it| it.to_string());
                match (self.before, self.after) {
                    (None, None) => Ok(()),
                    (before, after) if before == after => write!(f, "   | {}", word(after)),
                    (before, after) => write!(f, "   | {} => {}", word(before), word(after)),
                }
            }
            What::Sent { from, to, number, datagram, fate } => {
                write!(f, "{from} >> {to}  #{number} {}", show(datagram))?;
                if let Some(state) = self.before {
                    write!(f, "   | {state}")?;
                }
                if *fate != Fate::Arrives {
                    write!(f, "   ({fate:?})")?;
                }
                Ok(())
            }
            What::Told { host, call, what, .. } => write!(f, "{host} call {call}: {what}"),
        }
    }
}

/// A ladder of the last `lines` entries: time, direction, packet (`>>` it leaves, `->` it arrives), and the state
/// of the channel: after it left; before and after it arrived.
pub fn ladder(entries: &[Entry], lines: usize) -> String {
    let mut text = String::new();
    let first = entries.len().saturating_sub(lines);
    if first > 0 {
        let _ = writeln!(text, "    ... {first} lines before");
    }
    for entry in &entries[first..] {
        let _ = writeln!(text, "{entry}");
    }
    text
}
