//! Two endpoints of the bare core with a network between them that loses, doubles, delays and reorders by a
//! seed: the same seed gives the same world.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{Cid, Epoch, ServiceId};

use super::{Scenario, ms};

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 7001);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 7000);

/// What the network does to packets, each way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub seed: u64,
    /// Of a hundred packets so many are lost.
    pub lost: u32,
    /// So many arrive twice.
    pub doubled: u32,
    /// So many are late by up to five milliseconds, which is up to five packets or more.
    pub late: u32,
}

/// A call of the world: what it asks and what it must get.
struct Wanted {
    id: u32,
    reply: Vec<u8>,
    got: Vec<u8>,
}

/// See the module. The server replies to a request of number, reply length and filler with so much filler.
pub struct Relay {
    weather: Weather,
    state: u64,
    pub now: Instant,
    pub client: InlineEndpoint,
    pub server: InlineEndpoint,
    route: RouteId,
    in_flight: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    posted: u64,
    wanted: HashMap<CallRef, Wanted>,
    starting: HashMap<u64, Wanted>,
    requests: HashMap<CallRef, Vec<u8>>,
    /// How often each request was executed.
    pub executed: HashMap<u32, u32>,
    pub replied: u32,
    /// Whether packets from the server to the client arrive.
    pub answers_arrive: bool,
}

impl Relay {
    pub fn new(weather: Weather, adjust: impl FnOnce(&mut EndpointConfig)) -> Relay {
        let now = Instant::now();
        let identity = |seed: u32| Identity {
            epoch: Epoch::from_random(seed),
            first_cid: Cid(4),
            hash_seed: 1,
        };
        let mut config = EndpointConfig::default();
        adjust(&mut config);
        let mut server = InlineEndpoint::new(config.clone(), identity(2), now);
        server.offer(ServiceId(1), Offer { needs_reach: true, ..Scenario::plain_offer() });
        let mut client = InlineEndpoint::new(config, identity(1), now);
        let route = client.connect(now, SERVER.into(), ServiceId(1), &RxNull, false);
        Relay {
            weather,
            state: weather.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now,
            client,
            server,
            route,
            in_flight: BTreeMap::new(),
            posted: 0,
            wanted: HashMap::new(),
            starting: HashMap::new(),
            requests: HashMap::new(),
            executed: HashMap::new(),
            replied: 0,
            answers_arrive: true,
        }
    }

    /// A number below `below`, by the seed.
    pub fn random(&mut self, below: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 33) % u64::from(below.max(1))) as u32
    }

    /// Starts call `id`; both directions have the given sizes, but a request has at least 8 bytes.
    pub fn start(&mut self, id: u32, request_len: usize, reply_len: usize) {
        let mut request = filler(id, request_len.max(8));
        request[..4].copy_from_slice(&id.to_be_bytes());
        request[4..8].copy_from_slice(&(reply_len as u32).to_be_bytes());
        let start = Start { request: Bytes::from(request), is_whole: true, ..Start::default() };
        let token = self.client.start(self.now, self.route, start);
        let reply = filler(id.wrapping_add(1), reply_len);
        self.starting.insert(token.0, Wanted { id, reply, got: Vec::new() });
        self.settle();
    }

    /// Time passes until all calls have their replies; the virtual time that took.
    pub fn finish(&mut self, limit: Duration) -> Duration {
        let (began, end) = (self.now, self.now + limit);
        while !(self.wanted.is_empty() && self.starting.is_empty()) {
            assert!(self.now < end, "{} calls are not over", self.wanted.len());
            self.step(end);
        }
        self.now - began
    }

    /// So much time passes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// The next packet or timer, but not beyond `end`.
    fn step(&mut self, end: Instant) {
        let packet = self.in_flight.keys().next().map(|(at, _)| *at);
        let next = [packet, self.client.next_deadline(), self.server.next_deadline()];
        let next = next.into_iter().flatten().min().unwrap_or(end).min(end);
        self.now = self.now.max(next);
        while let Some(entry) = self.in_flight.first_entry().filter(|it| it.key().0 <= self.now) {
            let (to_server, datagram) = entry.remove();
            let (endpoint, from): (_, SocketAddr) = match to_server {
                true => (&mut self.server, CLIENT.into()),
                false => (&mut self.client, SERVER.into()),
            };
            endpoint.receive(self.now, from, &datagram);
        }
        self.client.advance(self.now);
        self.server.advance(self.now);
        self.settle();
    }

    /// Applications act and packets leave until nothing moves.
    fn settle(&mut self) {
        loop {
            for (token, call) in self.client.take_started() {
                let wanted = self.starting.remove(&token.0).expect("a call that was started");
                self.wanted.insert(call, wanted);
            }
            let sent = [(true, self.client.take_sent()), (false, self.server.take_sent())];
            for (to_server, datagrams) in sent {
                for (_, datagram) in datagrams {
                    self.post(to_server, datagram);
                }
            }
            let notices = (self.client.take_notices(), self.server.take_notices());
            if notices.0.is_empty() && notices.1.is_empty() {
                return;
            }
            for (call, notice) in notices.0 {
                self.tell_client(call, notice);
            }
            for (call, notice) in notices.1 {
                self.tell_server(call, notice);
            }
        }
    }

    fn post(&mut self, to_server: bool, datagram: Vec<u8>) {
        if !to_server && !self.answers_arrive {
            return;
        }
        let Weather { lost, doubled, late, .. } = self.weather;
        let copies = 1 + u32::from(self.random(100) < doubled);
        for _ in 0..copies {
            if self.random(100) < lost {
                continue;
            }
            let delay = if self.random(100) < late { self.random(5000) } else { 0 };
            self.posted += 1;
            let at = self.now + ms(5) + Duration::from_micros(u64::from(delay));
            self.in_flight.insert((at, self.posted), (to_server, datagram.clone()));
        }
    }

    fn tell_client(&mut self, call: CallRef, notice: Notice) {
        let Some(wanted) = self.wanted.get_mut(&call) else { return };
        match notice {
            Notice::Data(pieces) => {
                pieces.iter().for_each(|piece| wanted.got.extend_from_slice(piece));
                self.client.command(self.now, call, consumed(&pieces));
            }
            Notice::End => {
                let wanted = self.wanted.remove(&call).expect("looked at above");
                assert!(wanted.got == wanted.reply, "the reply of call {}", wanted.id);
                self.replied += 1;
                self.client.command(self.now, call, Command::End);
            }
            Notice::Failed(failure) => panic!("call {}: {failure}", wanted.id),
            _ => {}
        }
    }

    fn tell_server(&mut self, call: CallRef, notice: Notice) {
        match notice {
            Notice::Data(pieces) => {
                let request = self.requests.entry(call).or_default();
                pieces.iter().for_each(|piece| request.extend_from_slice(piece));
                self.server.command(self.now, call, consumed(&pieces));
            }
            Notice::End => {
                let request = self.requests.remove(&call).expect("a request");
                let word = |at: usize| {
                    u32::from_be_bytes(request[at..at + 4].try_into().expect("four bytes"))
                };
                let (id, reply_len) = (word(0), word(4) as usize);
                assert!(request[8..] == filler(id, request.len())[8..], "the request of call {id}");
                *self.executed.entry(id).or_default() += 1;
                let bytes = Bytes::from(filler(id.wrapping_add(1), reply_len));
                let write = Command::Write { bytes, ends: true, flushes: false };
                self.server.command(self.now, call, write);
            }
            Notice::Failed(failure) => panic!("at the server: {failure}"),
            _ => {}
        }
    }
}

fn consumed(pieces: &[Bytes]) -> Command {
    let bytes = pieces.iter().map(Bytes::len).sum();
    Command::Consumed { packets: pieces.len() as u32, bytes }
}

fn filler(id: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(31).wrapping_add(id * 7) % 251) as u8).collect()
}
