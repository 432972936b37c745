//! What happens in a simulation, before it happens: who calls whom with what, what the network does when, how
//! the endpoints are set. A plan is a value, so that it can be drawn from a seed, printed, and shrunk.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::hostile::{self, HostilePlan};
use super::link::{LinkOptions, Loss};
use super::random::{Seed, Stream, mix};
use super::secured;
use super::settings;
use super::shrink::Nth;
use crate::proto::config::EndpointConfig;
use crate::proto::router::Identity;
use crate::security::Level;
use crate::wire::{AbortCode, Cid, Epoch};

/// A host of a plan: clients first, then servers.
pub type HostIndex = usize;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the world's own draws come from.
    pub seed: u64,
    /// Hosts that call.
    pub clients: usize,
    /// Hosts that answer.
    pub servers: usize,
    /// Connections of one client to one server.
    pub connections_max: usize,
    /// Settings of all endpoints.
    pub config: EndpointConfig,
    /// Whether connections are secured with rxkad, and at which level.
    pub security: Option<Level>,
    /// Whether clients ask to be upgraded to a second service, which servers offer.
    pub upgrades: bool,
    /// Whether servers wait for the proof of a client's address.
    pub needs_reach: bool,
    /// Calls of a service that run at once at each server; others wait, or too many wait and are aborted.
    pub running_calls_max: Option<NonZeroUsize>,
    /// Whether nobody at an address is reported to who sends there.
    pub reports_unreachable: bool,
    /// What all links are like while there are faults.
    pub link: LinkOptions,
    /// Single faults, in the order of time.
    pub faults: Vec<Fault>,
    /// What somebody does who means harm, in the order of time.
    pub hostile: Vec<HostilePlan>,
    /// Which datagrams links lose, whatever their options say; `None` = as these say.
    pub lost: Option<Vec<Nth>>,
    /// A mistake that hosts make on purpose, to see it found.
    pub sabotage: Option<Sabotage>,
    /// When all faults end.
    pub faults_end: Duration,
    /// Within this time after the end of faults, everything must have ended.
    pub patience: Duration,
    /// The calls, each with its own id.
    pub calls: Vec<CallPlan>,
}

/// A change of the world.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// What.
    pub what: FaultKind,
}

/// See [`Fault`]. A fault between hosts is one direction.
#[derive(Clone, Copy, Debug)]
pub enum FaultKind {
    /// The link is like this from now on.
    Link(HostIndex, HostIndex, LinkOptions),
    /// Nothing passes.
    Part(HostIndex, HostIndex),
    /// It passes again.
    Join(HostIndex, HostIndex),
    /// What is sent waits.
    Clog(HostIndex, HostIndex),
    /// And arrives.
    Unclog(HostIndex, HostIndex),
    /// The host dies.
    Crash(HostIndex),
    /// And lives again, knowing nothing.
    Restart(HostIndex),
}

/// See [`Plan::sabotage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A DATA packet that is sent again has another last byte.
    ResentDataDiffers,
    /// Bare cores: the retransmission timer is lost.
    RetransmissionForgotten,
    /// Bare cores: the endpoint forgets when channels want their turns.
    DeadlinesForgotten,
    /// Windows and buffers are larger than the plan's settings say.
    LimitsIgnored,
    /// Server connections are kept a hundred times as long as the plan's settings say.
    NothingForgotten,
}

/// One call.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// Its place in the plan it was drawn for.
    pub id: u32,
    /// Who calls.
    pub client: HostIndex,
    /// Who answers.
    pub server: HostIndex,
    /// When.
    pub at: Duration,
    /// Bytes of the request: at least 4, for the id.
    pub request_bytes: usize,
    /// Bytes of the reply.
    pub reply_bytes: usize,
    /// What the service does at last.
    pub answer: Answer,
    /// How long the service works.
    pub think: Duration,
    /// A slow reader: after so many pieces of the request the service pauses.
    pub pause_every: Option<u32>,
    /// See [`CallPlan::pause_every`].
    pub pause: Duration,
    /// The call's deadline.
    pub deadline: Option<Duration>,
    /// When the client gives it up, counted from its begin.
    pub given_up_after: Option<Duration>,
    /// Whether it is written and read in pieces.
    pub streamed: Option<Streamed>,
    /// Whether it has a connection of its own.
    pub exclusive: bool,
    /// Whether it comes after all faults and must end well.
    pub must_be_good: bool,
}

/// How a client streams a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Bytes that are written at once: at least 1.
    pub piece_bytes: usize,
    /// How long the client rests after each of them.
    pub pause: Duration,
    /// Whether each leaves at once.
    pub flushes: bool,
    /// A slow reader: after so many pieces of the reply it rests too.
    pub reads_every: Option<u32>,
}

/// What a service does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Replies.
    Reply,
    /// Aborts with this code.
    Abort(AbortCode),
    /// Drops the call.
    Drop,
}

/// The service that all servers of a plan offer.
pub(super) const SERVICE: u16 = 147;
/// What clients are upgraded to, where they ask.
pub(super) const UPGRADED: u16 = 148;

impl Plan {
    /// Everything drawn from a seed, how much of it and how bad it is too.
    pub fn drawn(seed: u64) -> Plan {
        let mut plan = Plan::drawn_at_first(seed);
        settings::draw_more(seed, &mut plan.config);
        draw_long(&mut Seed(seed).stream("plan long"), &mut plan);
        if !plan.config.server.call.keepalive {
            // What a small window refuses waits for a timer that a clogged link has made long.
            let last = plan.calls.iter_mut().filter(|call| call.must_be_good);
            last.for_each(|call| (call.request_bytes, call.reply_bytes) = (1000, 1000));
        }
        plan
    }

    /// As [`Plan::drawn`], without what has come to be drawn since there are plans: a seed that was found then goes on
    /// showing what it was found for.
    pub fn drawn_at_first(seed: u64) -> Plan {
        let of = |name: &str| Seed(seed).stream(name);
        let mut hosts = of("plan hosts");
        let clients = hosts.pick(&[1, 1, 1, 2, 3]);
        let servers = hosts.pick(&[1, 1, 1, 2]);
        let faults_end = Duration::from_millis(of("plan end").between(500, 40_000));
        let (config, running_calls_max) = settings::drawn(seed);
        let link = drawn_link(&mut of("plan link"));
        let faults = drawn_faults(seed, clients, clients + servers, faults_end);
        let mut calls = drawn_calls(&mut of("plan calls"), clients, servers, faults_end);
        draw_styles(&mut of("plan styles"), &mut calls);
        if !config.server.call.keepalive {
            // Small packets of an unproved client may draw one ACK and not the one that opens the window.
            let last = calls.iter_mut().filter(|call| call.must_be_good);
            last.for_each(|call| call.streamed = None);
        }
        let first_calls = calls.iter().filter(|call| !call.must_be_good);
        let spread = first_calls.map(|call| call.at).max().unwrap_or_default();
        let hostile = hostile::drawn(seed, clients, clients + servers, spread, faults_end);
        Plan {
            seed,
            clients,
            servers,
            connections_max: hosts.pick(&[1, 1, 2]),
            config,
            security: secured::drawn(&mut of("plan security")),
            upgrades: of("plan upgrades").chance(0.15),
            needs_reach: hosts.chance(0.5),
            running_calls_max,
            reports_unreachable: hosts.chance(0.3),
            link,
            faults,
            hostile,
            lost: None,
            sabotage: None,
            faults_end,
            patience: Duration::from_secs(200),
            calls,
        }
    }

    /// Where a host is.
    pub fn address(&self, host: HostIndex) -> SocketAddr {
        if host < self.clients {
            SocketAddr::from(([10, 0, 0, 1 + host as u8], 7001))
        } else {
            SocketAddr::from(([10, 0, 1, 1 + (host - self.clients) as u8], 7000))
        }
    }

    /// Which datagrams are lost by name, by addresses.
    pub(super) fn lost_by_address(&self) -> Option<BTreeSet<(SocketAddr, SocketAddr, u64)>> {
        let lost = self.lost.as_ref()?.iter();
        Some(lost.map(|(from, to, nth)| (self.address(*from), self.address(*to), *nth)).collect())
    }

    /// All hosts.
    pub fn hosts(&self) -> std::ops::Range<HostIndex> {
        0..self.clients + self.servers
    }

    pub(super) fn is_client(&self, host: HostIndex) -> bool {
        host < self.clients
    }

    pub(super) fn call(&self, id: u32) -> Option<&CallPlan> {
        let in_place = self.calls.get(id as usize).filter(|call| call.id == id);
        // Calls of a shrunk plan have moved.
        in_place.or_else(|| self.calls.iter().find(|call| call.id == id))
    }

    /// The names that a host has in one of its lives.
    pub(super) fn identity(&self, host: HostIndex, life: u32) -> Identity {
        let mut stream = Seed(self.seed).stream(&format!("identity {host} {life}"));
        Identity {
            epoch: Epoch::from_random(stream.draw() as u32),
            first_cid: Cid(stream.draw() as u32 & !3),
            hash_seed: stream.draw(),
        }
    }
}

impl CallPlan {
    pub(super) fn request(&self) -> Vec<u8> {
        let mut bytes = pattern(self.id, 1, self.request_bytes.max(4));
        bytes[..4].copy_from_slice(&self.id.to_be_bytes());
        bytes
    }

    pub(super) fn reply(&self) -> Vec<u8> {
        pattern(self.id, 2, self.reply_bytes)
    }
}

/// Bytes that no other call has in the same place.
fn pattern(id: u32, what: u64, len: usize) -> Vec<u8> {
    let base = u64::from(id) << 32 | what << 24;
    let mut bytes = vec![0; len];
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = mix(base ^ at as u64).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn drawn_link(stream: &mut Stream) -> LinkOptions {
    let mut link =
        LinkOptions { latency: ms(stream.pick(&[1, 1, 5, 20, 150])), ..Default::default() };
    if stream.chance(0.4) {
        link.jitter = ms(stream.pick(&[1, 5, 50]));
    }
    link.loss = match stream.below(4) {
        0 => Loss::None,
        1 | 2 => Loss::Random(stream.pick(&[0.005, 0.02, 0.1, 0.3, 0.5])),
        _ => Loss::Bursts {
            turns_bad: stream.pick(&[0.005, 0.02, 0.1]),
            turns_good: stream.pick(&[0.05, 0.2, 0.5]),
            lost_while_bad: stream.pick(&[0.5, 0.9, 1.0]),
        },
    };
    if stream.chance(0.4) {
        link.duplicated = stream.pick(&[0.01, 0.1, 0.5]);
    }
    if stream.chance(0.4) {
        link.reordered = stream.pick(&[0.01, 0.1, 0.5]);
        link.held_back = ms(stream.pick(&[2, 10, 300]));
    }
    if stream.chance(0.25) {
        link.rate = Some(stream.pick(&[20_000, 200_000, 2_000_000]));
        link.queue_bytes_max = stream.pick(&[3_000, 30_000, 300_000]);
    }
    link
}

fn drawn_faults(seed: u64, clients: usize, hosts: usize, end: Duration) -> Vec<Fault> {
    let mut stream = Seed(seed).stream("plan faults");
    let mut faults = Vec::new();
    let count = stream.pick(&[0, 0, 1, 2, 5]);
    for _ in 0..count {
        let at = ms(stream.below(end.as_millis() as u64));
        let until = at + ms(stream.pick(&[5, 100, 1000, 10_000, 25_000]));
        let until = until.min(end);
        let client = stream.below(clients as u64) as usize;
        let server = clients + stream.below((hosts - clients) as u64) as usize;
        let (from, to) = if stream.chance(0.5) { (client, server) } else { (server, client) };
        let host = if stream.chance(0.7) { server } else { client };
        let (begins, ends): (Vec<FaultKind>, Vec<FaultKind>) = match stream.below(6) {
            0 => (vec![FaultKind::Part(from, to)], vec![FaultKind::Join(from, to)]),
            1 => (
                vec![FaultKind::Part(from, to), FaultKind::Part(to, from)],
                vec![FaultKind::Join(from, to), FaultKind::Join(to, from)],
            ),
            2 => (vec![FaultKind::Clog(from, to)], vec![FaultKind::Unclog(from, to)]),
            3 => (vec![FaultKind::Link(from, to, drawn_link(&mut stream))], Vec::new()),
            4 => {
                let mtu = stream.pick(&[1000, 1440, 2000]);
                let link = LinkOptions { mtu, ..LinkOptions::default() };
                (vec![FaultKind::Link(from, to, link)], Vec::new())
            }
            _ => (vec![FaultKind::Crash(host)], vec![FaultKind::Restart(host)]),
        };
        faults.extend(begins.into_iter().map(|what| Fault { at, what }));
        faults.extend(ends.into_iter().map(|what| Fault { at: until, what }));
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn drawn_calls(
    stream: &mut Stream,
    clients: usize,
    servers: usize,
    end: Duration,
) -> Vec<CallPlan> {
    let count = stream.pick(&[1, 2, 4, 4, 8, 8, 12, 24]);
    // Calls come close together as often as not.
    let spread = stream.pick(&[1, 50, 1000, end.as_millis() as u64]);
    let big = stream.pick(&[100, 1500, 3000, 3000, 9000, 60_000]);
    let mut calls: Vec<CallPlan> = (0..count)
        .map(|id| {
            let size = |stream: &mut Stream| match stream.below(6) {
                0 => stream.below(2) as usize,
                1 => 1412,
                2 => stream.pick(&[1411, 1413, 2824, 2825]),
                _ => stream.below(big) as usize,
            };
            CallPlan {
                id,
                client: stream.below(clients as u64) as usize,
                server: clients + stream.below(servers as u64) as usize,
                at: ms(stream.below(spread.min(end.as_millis() as u64))),
                request_bytes: size(stream).max(4),
                reply_bytes: size(stream),
                answer: match stream.below(20) {
                    0 => Answer::Abort(AbortCode(4711)),
                    1 => Answer::Drop,
                    _ => Answer::Reply,
                },
                think: ms(stream.pick(&[0, 0, 0, 1, 5, 50, 300, 8000])),
                pause_every: stream.chance(0.15).then_some(stream.pick(&[1, 3, 20])),
                pause: ms(stream.pick(&[1, 20, 300])),
                deadline: stream.chance(0.15).then(|| ms(stream.pick(&[1, 10, 200, 3000, 15_000]))),
                given_up_after: stream
                    .chance(0.15)
                    .then(|| ms(stream.pick(&[1, 3, 30, 500, 5000]))),
                streamed: None,
                exclusive: false,
                must_be_good: false,
            }
        })
        .collect();
    // What comes when all is well again must be well.
    for client in 0..clients {
        for server in clients..clients + servers {
            calls.push(CallPlan {
                id: calls.len() as u32,
                client,
                server,
                at: end + Duration::from_secs(60),
                request_bytes: 2000,
                reply_bytes: 2000,
                answer: Answer::Reply,
                think: Duration::ZERO,
                pause_every: None,
                pause: Duration::ZERO,
                deadline: None,
                given_up_after: None,
                streamed: None,
                exclusive: false,
                must_be_good: true,
            });
        }
    }
    calls
}

/// Which calls are streamed, in plans that stream at all, and which have connections of their own.
fn draw_styles(stream: &mut Stream, calls: &mut [CallPlan]) {
    let streamed = stream.pick(&[0.0, 0.0, 0.3, 1.0]);
    let exclusive = stream.pick(&[0.0, 0.0, 0.0, 0.3]);
    for call in calls {
        let drawn = Streamed {
            piece_bytes: stream.pick(&[1, 100, 1412, 3000, 20_000]),
            pause: ms(stream.pick(&[0, 0, 1, 20, 300])),
            flushes: stream.chance(0.3),
            reads_every: stream.chance(0.5).then_some(stream.pick(&[1, 3, 20])),
        };
        // A request of many small pieces would be a plan of nothing else.
        let piece_bytes = drawn.piece_bytes.max(call.request_bytes / 40).max(1);
        call.streamed = stream.chance(streamed).then_some(Streamed { piece_bytes, ..drawn });
        call.exclusive = stream.chance(exclusive);
    }
}

/// In one of thirty plans a call is so long that larger datagrams are worth a search, where windows are large enough
/// for it to end in time.
fn draw_long(stream: &mut Stream, plan: &mut Plan) {
    let is_long = stream.chance(0.035);
    let (size, answers) = (stream.pick(&[250_000, 600_000]), stream.chance(0.5));
    let call = &plan.config.server.call;
    let window = call.receive_window_max_packets.min(call.send_window_max_packets);
    let Some(long) = plan.calls.iter_mut().find(|call| !call.must_be_good) else { return };
    if !is_long || window < 8 || call.receive_buffer_max_bytes < 20_000 {
        return;
    }
    if answers {
        long.reply_bytes = size;
    } else {
        long.request_bytes = size;
    }
    (long.pause_every, long.streamed, long.answer) = (None, None, Answer::Reply);
}
