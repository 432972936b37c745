//! Plays steps: packets, words of applications and the time go in; packets, deeds and a verdict come out.
//! Knows no network and no endpoint.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::steps::{Act, Span, Step, Told, What};
use crate::testkit::notation::{Defaults, Line, show};
use crate::wire::{Flags, Header, PacketType};

/// What the player wants next.
#[derive(Debug)]
pub(super) enum Move {
    /// This datagram leaves.
    Send(Bytes),
    /// The application at the other end does this.
    Act(Act),
    /// Something comes, or this time does.
    WaitUntil(Duration),
    /// All steps are done.
    Done,
    /// A step went wrong.
    Failed(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Player {
    steps: VecDeque<Step>,
    /// When the last step was done.
    since: Duration,
    inbox: VecDeque<(Duration, Bytes)>,
    told: VecDeque<(Duration, Told)>,
    ignored: Vec<Line>,
    /// The connection that packets belong to which name no other.
    connection: Option<(u32, u32)>,
    /// The last serials sent: as a server, as a client.
    serials: [u32; 2],
    is_client: bool,
}

impl Player {
    pub fn new(is_client: bool) -> Player {
        Player {
            steps: VecDeque::new(),
            since: Duration::ZERO,
            inbox: VecDeque::new(),
            told: VecDeque::new(),
            ignored: Vec::new(),
            connection: None,
            serials: [0; 2],
            is_client,
        }
    }

    /// More to play, from now on.
    pub fn add(&mut self, now: Duration, steps: Vec<Step>) {
        self.since = now;
        self.steps.extend(steps);
    }

    pub fn receive(&mut self, now: Duration, datagram: Bytes) {
        if let Some(header) = Header::decode(&datagram)
            && self.connection.is_none()
            && header.epoch.0 != 0
        {
            self.connection = Some((header.epoch.0, header.cid.connection().0));
        }
        if !self.ignored.iter().any(|line| line.differences(&datagram).is_empty()) {
            self.inbox.push_back((now, datagram));
        }
    }

    pub fn tell(&mut self, now: Duration, told: Told) {
        self.told.push_back((now, told));
    }

    /// The next move. All that came until `now` has been received.
    pub fn step(&mut self, now: Duration) -> Move {
        loop {
            let Some(step) = self.steps.front() else { return Move::Done };
            let elapsed = now - self.since;
            let what = step.what.clone();
            let done_at = match what {
                What::Send(line) => {
                    let datagram = self.datagram(&line);
                    self.done(now);
                    return Move::Send(datagram);
                }
                What::Act(act) => {
                    self.done(now);
                    return Move::Act(act);
                }
                What::Ignore(line) => {
                    self.inbox.retain(|(_, datagram)| !line.differences(datagram).is_empty());
                    self.ignored.push(line);
                    now
                }
                What::Forget => {
                    self.inbox.clear();
                    self.told.clear();
                    now
                }
                What::Wait(time) if elapsed < time => return Move::WaitUntil(self.since + time),
                What::Wait(_) => now,
                What::Quiet(time) => match self.inbox.front() {
                    Some((at, datagram)) if *at <= self.since + time => {
                        return self.fail(&format!(
                            "came, after {}: {}",
                            self.after(*at),
                            show(datagram)
                        ));
                    }
                    _ if elapsed < time => return Move::WaitUntil(self.since + time),
                    _ => now,
                },
                What::Expect(span, line) => match self.inbox.front().cloned() {
                    None => match self.patience(now, span, "nothing came") {
                        Some(answer) => return answer,
                        None => continue,
                    },
                    Some((at, datagram)) => {
                        if let Some(failure) = self.misfit(at, span, &line, &datagram) {
                            return failure;
                        }
                        self.inbox.pop_front();
                        at
                    }
                },
                What::Told(span, expected) => match self.told.front().cloned() {
                    None => match self.patience(now, span, "the application was told nothing") {
                        Some(answer) => return answer,
                        None => continue,
                    },
                    Some((at, told)) => {
                        // What was said before a packet came may be looked at afterwards.
                        let passed = at.saturating_sub(self.since);
                        let is_in_time = passed >= span.not_before && passed <= span.within;
                        if told != expected || !is_in_time {
                            let after = self.after(at);
                            return self.fail(&format!(
                                "the application was told, after {after}: {}",
                                shown(&told)
                            ));
                        }
                        self.told.pop_front();
                        at
                    }
                },
            };
            self.done(done_at.max(self.since));
        }
    }

    /// Whether there is time left for what has not come.
    fn patience(&self, now: Duration, span: Span, what: &str) -> Option<Move> {
        let until = self.since + span.within;
        // What comes at that very time is in time.
        Some(if now <= until {
            Move::WaitUntil(until + Duration::from_millis(1))
        } else {
            self.fail(&format!("{what} within {} ms", span.within.as_millis()))
        })
    }

    fn misfit(&self, at: Duration, span: Span, line: &Line, datagram: &[u8]) -> Option<Move> {
        let differences = line.differences(datagram);
        let came = || format!("came, after {}: {}", self.after(at), show(datagram));
        if !differences.is_empty() {
            return Some(self.fail(&format!("{}\n  {}", came(), differences.join("\n  "))));
        }
        let passed = at.saturating_sub(self.since);
        if passed < span.not_before {
            return Some(self.fail(&format!("{}\n  that is too early", came())));
        }
        (passed > span.within).then(|| self.fail(&format!("{}\n  that is too late", came())))
    }

    fn after(&self, at: Duration) -> String {
        format!("{} ms", at.saturating_sub(self.since).as_millis())
    }

    fn done(&mut self, at: Duration) {
        self.steps.pop_front();
        self.since = at;
    }

    fn fail(&self, why: &str) -> Move {
        let step = self.steps.front();
        let (line, text) = step.map_or((0, ""), |step| (step.line, step.text.as_str()));
        Move::Failed(format!("line {line} of the script: {text}\n  {why}"))
    }

    fn datagram(&mut self, line: &Line) -> Bytes {
        let from_client = line.is_from_client(self.is_client);
        let last = &mut self.serials[usize::from(from_client)];
        let is_ack = line.packet_type == PacketType::Ack.byte();
        let named = if is_ack { line.header_serial } else { line.header_serial.or(line.serial) };
        let serial = named.unwrap_or_else(|| last.wrapping_add(1).max(1));
        if serial != 0 {
            *last = serial.wrapping_add(line.more.len() as u32);
        }
        let mut defaults = Defaults { serial, ..Defaults::default() };
        if from_client {
            defaults.flags = Flags::CLIENT_INITIATED.0;
        }
        if let Some((epoch, cid)) = self.connection {
            (defaults.epoch, defaults.cid) = (epoch, cid);
        }
        line.encode(&defaults).into()
    }
}

fn shown(told: &Told) -> String {
    let bytes = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() < 40 => format!("{text:?}"),
        _ => format!("len{}", bytes.len()),
    };
    match told {
        Told::Good(reply) => format!("good {}", bytes(reply)),
        Told::Asked(request) => format!("asked {}", bytes(request)),
        Told::Failed => "failed".to_owned(),
        Told::Acknowledged(true) => "acknowledged".to_owned(),
        Told::Acknowledged(false) => "unacknowledged".to_owned(),
    }
}
