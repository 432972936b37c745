//! A server and its clients around one link each way, of a rate, a queue, a delay and a loss: bare cores in
//! virtual time. What a seed gives is the same each time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{Cid, Epoch, ServiceId};

/// What the link does, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// There and back, without the queue.
    pub rtt: Duration,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that wait for the rate; what comes beyond is lost.
    pub queue_bytes_max: u64,
    pub seed: u64,
}

impl Default for Path {
    /// A gigabit and a megabyte of queue, without loss.
    fn default() -> Path {
        Path {
            rtt: Duration::from_millis(10),
            loss: 0.0,
            rate: 125_000_000,
            queue_bytes_max: 1 << 20,
            seed: 1,
        }
    }
}

/// Counts of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub datagrams: u64,
    pub lost: u64,
    pub overflowed: u64,
}

#[derive(Debug)]
struct Link {
    free_at: Instant,
    state: u64,
    traffic: Traffic,
}

/// What a call has still to do at one end.
#[derive(Debug, Default)]
struct Work {
    to_write: u64,
    credit: u64,
    request: u64,
    id: usize,
}

struct Client {
    endpoint: InlineEndpoint,
    route: RouteId,
    starting: VecDeque<(u64, Work, usize)>,
    calls: HashMap<CallRef, (Work, usize)>,
}

/// See the module. A request names how many bytes the reply shall have, and the call.
pub struct Bottleneck {
    path: Path,
    pub now: Instant,
    began: Instant,
    links: [Link; 2],
    flights: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    posted: u64,
    pub server: InlineEndpoint,
    serving: HashMap<CallRef, (Work, u64)>,
    /// By call that sends: bytes that the service has taken.
    received: HashMap<usize, u64>,
    clients: Vec<Client>,
    /// By call: bytes that have arrived, and when it was over.
    results: Vec<(u64, Option<Duration>, u64)>,
    filler: Bytes,
}

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7000);

fn client_address(index: usize) -> SocketAddr {
    ([10, 0, 0, 2 + index as u8], 7001).into()
}

impl Bottleneck {
    pub fn new(path: Path) -> Bottleneck {
        Bottleneck::with_server(path, |_| {})
    }

    pub fn with_server(path: Path, adjust: impl FnOnce(&mut EndpointConfig)) -> Bottleneck {
        let now = Instant::now();
        let mut config = EndpointConfig::default();
        adjust(&mut config);
        let mut server = InlineEndpoint::new(config, identity(99), now);
        server.offer(
            ServiceId(1),
            Offer {
                classes: vec![std::sync::Arc::new(RxNull)],
                needs_reach: true,
                upgrades_to: None,
            },
        );
        let link = |salt: u64| Link {
            free_at: now,
            state: (path.seed ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            traffic: Traffic::default(),
        };
        Bottleneck {
            path,
            now,
            began: now,
            links: [link(0), link(0x5555)],
            flights: BTreeMap::new(),
            posted: 0,
            server,
            serving: HashMap::new(),
            received: HashMap::new(),
            clients: Vec::new(),
            results: Vec::new(),
            filler: Bytes::from(vec![7; 1 << 20]),
        }
    }

    /// Another client.
    pub fn client(&mut self, adjust: impl FnOnce(&mut EndpointConfig)) -> usize {
        let mut config = EndpointConfig::default();
        adjust(&mut config);
        let index = self.clients.len();
        let mut endpoint = InlineEndpoint::new(config, identity(index as u32 + 1), self.now);
        let route = endpoint.connect(self.now, SERVER.into(), ServiceId(1), &RxNull, false);
        let (starting, calls) = (VecDeque::new(), HashMap::new());
        self.clients.push(Client { endpoint, route, starting, calls });
        index
    }

    /// A call that sends so many bytes, or asks for them.
    pub fn start(&mut self, client: usize, bytes: u64, is_send: bool) -> usize {
        let id = self.results.len();
        self.results.push((if is_send { 16 + bytes } else { bytes }, None, 0));
        let (to_write, reply) = if is_send { (bytes, 0) } else { (0, bytes) };
        let start = Start {
            request: Bytes::from([u64::to_be_bytes(reply), u64::to_be_bytes(id as u64)].concat()),
            is_whole: !is_send,
            ..Start::default()
        };
        let it = &mut self.clients[client];
        let token = it.endpoint.start(self.now, it.route, start);
        it.starting.push_back((token.0, Work { to_write, ..Work::default() }, id));
        self.settle();
        id
    }

    /// Time passes until all calls are over; the time since the beginning.
    pub fn finish(&mut self, limit: Duration) -> Duration {
        while self.results.iter().any(|result| result.1.is_none()) {
            assert!(self.now < self.began + limit, "calls are not over: {:?}", self.results);
            self.step(self.began + limit);
        }
        self.now - self.began
    }

    /// So much time passes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// Whether the call has brought all its bytes.
    pub fn is_good(&self, call: usize) -> bool {
        self.results[call].0 == self.results[call].2
    }

    /// Bytes of a call that have arrived at the server.
    pub fn arrived(&self, call: usize) -> u64 {
        self.received.get(&call).copied().unwrap_or(0)
    }

    /// Towards the server, and from it.
    pub fn traffic(&self) -> [Traffic; 2] {
        [self.links[0].traffic, self.links[1].traffic]
    }

    fn step(&mut self, end: Instant) {
        let arrival = self.flights.keys().next().map(|(at, _)| *at);
        let deadlines = self.clients.iter().map(|it| it.endpoint.next_deadline());
        let next = deadlines.chain([arrival, self.server.next_deadline()]).flatten().min();
        self.now = self.now.max(next.unwrap_or(end).min(end));
        while let Some(entry) = self.flights.first_entry().filter(|it| it.key().0 <= self.now) {
            let (from, to, mut data) = entry.remove();
            // What arrives together is received together.
            let stride = data.len();
            while let Some(entry) = self.flights.first_entry().filter(|it| {
                let (next_from, next_to, next) = it.get();
                it.key().0 <= self.now
                    && (*next_from, *next_to) == (from, to)
                    && next.len() <= stride
                    && data.len().is_multiple_of(stride)
                    && data.len() < 60_000
            }) {
                data.extend_from_slice(&entry.remove().2);
            }
            let to_server = to == SERVER.into();
            let endpoint = match to_server {
                true => &mut self.server,
                false => {
                    let SocketAddr::V4(to) = to else { continue };
                    &mut self.clients[usize::from(to.ip().octets()[3] - 2)].endpoint
                }
            };
            endpoint.receive_batch(self.now, from, Bytes::from(data), stride);
        }
        self.server.advance(self.now);
        for client in &mut self.clients {
            client.endpoint.advance(self.now);
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for (to, datagram) in self.server.take_sent() {
                self.post(1, SERVER.into(), to, datagram);
            }
            for (call, notice) in self.server.take_notices() {
                moved = true;
                self.tell_server(call, notice);
            }
            for index in 0..self.clients.len() {
                for (token, call) in self.clients[index].endpoint.take_started() {
                    let starting = &mut self.clients[index].starting;
                    let at = starting.iter().position(|it| it.0 == token.0).expect("asked for");
                    let (_, work, id) = starting.remove(at).expect("found");
                    self.clients[index].calls.insert(call, (work, id));
                }
                for (to, datagram) in self.clients[index].endpoint.take_sent() {
                    self.post(0, client_address(index), to, datagram);
                }
                for (call, notice) in self.clients[index].endpoint.take_notices() {
                    moved = true;
                    self.tell_client(index, call, notice);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn post(&mut self, way: usize, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        let link = &mut self.links[way];
        link.traffic.datagrams += 1;
        link.state ^= link.state << 13;
        link.state ^= link.state >> 7;
        link.state ^= link.state << 17;
        let draw = (link.state >> 11) as f64 / (1u64 << 53) as f64;
        if draw < self.path.loss {
            link.traffic.lost += 1;
            return;
        }
        let waits = link.free_at.saturating_duration_since(self.now);
        let queued = waits.as_secs_f64() * self.path.rate as f64;
        if queued as u64 + datagram.len() as u64 > self.path.queue_bytes_max {
            link.traffic.overflowed += 1;
            return;
        }
        let takes = Duration::from_secs_f64(datagram.len() as f64 / self.path.rate as f64);
        link.free_at = link.free_at.max(self.now) + takes;
        self.posted += 1;
        let at = link.free_at + self.path.rtt / 2;
        self.flights.insert((at, self.posted), (from, to, datagram));
    }

    fn tell_client(&mut self, index: usize, call: CallRef, notice: Notice) {
        let Some((work, id)) = self.clients[index].calls.get_mut(&call) else { return };
        let id = *id;
        match notice {
            Notice::Credit(bytes) => {
                work.credit += bytes;
                for command in writes(work, &self.filler) {
                    self.clients[index].endpoint.command(self.now, call, command);
                }
            }
            Notice::Data(pieces) => {
                self.results[id].2 += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
                self.clients[index].endpoint.command(self.now, call, consumed(&pieces));
            }
            Notice::End => {
                self.clients[index].calls.remove(&call);
                self.results[id].1 = Some(self.now - self.began);
                if self.results[id].2 == 0 {
                    // A call that sends: the service answers when it has all.
                    self.results[id].2 = self.results[id].0;
                }
                self.clients[index].endpoint.command(self.now, call, Command::End);
            }
            Notice::Failed(failure) => panic!("call {id}: {failure}"),
            _ => {}
        }
    }

    fn tell_server(&mut self, call: CallRef, notice: Notice) {
        let (work, received) = self.serving.entry(call).or_default();
        match notice {
            Notice::Incoming(incoming) => work.credit = incoming.credit,
            Notice::Credit(bytes) => {
                work.credit += bytes;
                for command in writes(work, &self.filler) {
                    self.server.command(self.now, call, command);
                }
            }
            Notice::Data(pieces) => {
                for piece in &pieces {
                    if *received == 0 {
                        let word = |at: usize| {
                            u64::from_be_bytes(piece[at..at + 8].try_into().expect("eight bytes"))
                        };
                        (work.request, work.id) = (word(0), word(8) as usize);
                    }
                    *received += piece.len() as u64;
                    *self.received.entry(work.id).or_default() += piece.len() as u64;
                }
                self.server.command(self.now, call, consumed(&pieces));
            }
            Notice::End => {
                work.to_write = work.request;
                let commands = match work.to_write {
                    0 => vec![Command::Write { bytes: Bytes::new(), ends: true, flushes: true }],
                    _ => writes(work, &self.filler),
                };
                for command in commands {
                    self.server.command(self.now, call, command);
                }
            }
            Notice::Failed(failure) => panic!("at the server: {failure}"),
            _ => {}
        }
    }
}

/// What an application writes that has credit.
fn writes(work: &mut Work, filler: &Bytes) -> Vec<Command> {
    let mut commands = Vec::new();
    while work.to_write > 0 && work.credit > 0 {
        let len = work.to_write.min(work.credit).min(filler.len() as u64);
        work.to_write -= len;
        work.credit -= len;
        let (bytes, ends) = (filler.slice(..len as usize), work.to_write == 0);
        commands.push(Command::Write { bytes, ends, flushes: ends });
    }
    commands
}

fn consumed(pieces: &[Bytes]) -> Command {
    let bytes = pieces.iter().map(Bytes::len).sum();
    Command::Consumed { packets: pieces.len() as u32, bytes }
}

fn identity(seed: u32) -> Identity {
    Identity { epoch: Epoch::from_random(seed), first_cid: Cid(4), hash_seed: 1 }
}
