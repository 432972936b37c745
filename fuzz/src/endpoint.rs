//! A whole endpoint core in both roles, between several addresses that send it anything: router, connections
//! and channels, with time passing and applications at work.
//!
//! After each step its limits hold, no unproved address has drawn more than three times its bytes, and no
//! deadline stays in the past. In the end, when nothing comes any more, everything comes to an end.

mod app;
mod forge;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use rxrpc::proto::channel::{Command, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::proto::{NetworkProblem, Role};
use rxrpc::security::rxkad::{Client, Level, Server, SessionKey, Token};
use rxrpc::security::{ClientClass, RxNull};
use rxrpc::testkit::{InlineEndpoint, StartToken};
use rxrpc::wire::{
    ChannelIndex, Cid, Epoch, Flags, HEADER_LEN, Header, PacketType, Serial, ServiceId,
};

use super::tickets::KEYS;
use app::Apps;
use forge::{Forge, Forged};

/// Addresses that we have no connections to.
const STRANGERS: usize = 3;
/// Addresses in all.
const ADDRESSES: usize = 5;
/// Longest request and longest piece of one: more packets than small windows let through, and not so many that most
/// of the time goes into sealing them.
const LEN_MAX: u16 = 6000;
/// While only time passes, channels are looked at in each so manieth step.
const LOOKS_EVERY: usize = 8;
/// More than any list of operations needs to come to its end: timers of an hour, one after the other.
const QUIET_STEPS_MAX: usize = 20_000;

/// One thing that happens.
#[derive(Arbitrary, Debug)]
enum Operation {
    /// A datagram of any bytes.
    Raw {
        from: u8,
        len: u8,
    },
    /// Several of one size, received together.
    Batch {
        from: u8,
        stride: u8,
        len: u16,
    },
    /// One that fits something that exists.
    Forged {
        from: u8,
        forged: Forged,
    },
    /// The same datagram, so often in one batch.
    Storm {
        from: u8,
        times: u8,
        forged: Forged,
    },
    /// What the endpoint sent comes back, perhaps changed.
    Reflected {
        from: u8,
        which: u8,
        at: u8,
        flip: u8,
    },
    /// Time passes, in milliseconds.
    Wait {
        ms: u16,
    },
    /// As much as to the next deadline.
    NextDeadline,
    /// A client connection to one of two addresses.
    Connect {
        to: bool,
        secured: bool,
        asks_upgrade: bool,
    },
    /// A call on one of the connections.
    Call {
        route: u8,
        len: u16,
        is_whole: bool,
        deadline_ms: Option<u16>,
        upgrades: bool,
    },
    /// An application does something with its call.
    Act {
        call: u8,
        act: app::Act,
    },
    /// A call that waits is given up.
    Cancel {
        token: u8,
    },
    Problem {
        from: u8,
        kind: u8,
    },
    PathSize {
        from: u8,
        max: u16,
    },
    CloseConnection {
        route: u8,
    },
    DrainConnection {
        route: u8,
    },
    BreakChannel {
        route: u8,
        channel: u8,
    },
}

/// An endpoint and what is known about it.
struct World {
    endpoint: InlineEndpoint,
    config: EndpointConfig,
    now: Instant,
    apps: Apps,
    forge: Forge,
    tokens: Vec<StartToken>,
    /// Bytes from and to each stranger while it was unproved.
    shares: HashMap<SocketAddr, (u64, u64)>,
}

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    let Ok(mut world) = World::new(&mut source) else { return };
    while !source.is_empty()
        && let Ok(operation) = source.arbitrary()
    {
        if world.happen(operation, &mut source).is_err() {
            break;
        }
        world.check();
    }
    world.end();
}

fn address(which: u8) -> SocketAddr {
    let which = which % ADDRESSES as u8;
    SocketAddr::from(([10, 0, 0, which + 1], 7000 + u16::from(which)))
}

fn is_stranger(at: SocketAddr) -> bool {
    usize::from(at.port() - 7000) < STRANGERS
}

fn config(source: &mut Unstructured<'_>) -> Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    let (limits, windows, switches): (bool, bool, u8) = source.arbitrary()?;
    if limits {
        config.connections_max = 7;
        config.connections_per_peer_max = 3;
        config.unproved_connections_max = 4;
        config.server.waiting_calls_max = 2;
        config.client.waiting_calls_max = 2;
    }
    for connection in [&mut config.server, &mut config.client] {
        let call = &mut connection.call;
        if windows {
            call.receive_window_initial_packets = 3;
            call.receive_window_max_packets = 9;
            call.send_window_initial_packets = 2;
            call.send_window_max_packets = 5;
            call.receive_buffer_max_bytes = 4000;
        }
        call.takeover = switches & 1 == 0;
        call.keepalive = switches & 2 == 0;
        call.jumbo_receive_packets = if switches & 4 == 0 { 1 } else { 4 };
    }
    config.strict_address = switches & 8 == 0;
    config.debug_responder = switches & 16 != 0;
    config.nat_ping = (switches & 32 != 0).then_some(Duration::from_secs(20));
    if switches & 64 != 0 {
        config.server.call.hard_timeout = Some(Duration::from_secs(90));
    }
    assert_eq!(config.validate(), Ok(()));
    Ok(config)
}

impl World {
    fn new(source: &mut Unstructured<'_>) -> Result<World> {
        let config = config(source)?;
        let now = Instant::now();
        let identity = Identity { epoch: forge::OUR_EPOCH, first_cid: Cid(4), hash_seed: 1 };
        let mut endpoint = InlineEndpoint::new(config.clone(), identity, now);
        if source.arbitrary()? {
            // Just before the wrap.
            endpoint.set_first_serial(Serial(0xffff_fffd));
        }
        endpoint.set_wall_clock(SystemTime::UNIX_EPOCH + Duration::from_secs(1_753_000_000));
        let rxkad = Arc::new(Server::new(Arc::new(KEYS.clone()), Level::Clear));
        for (service, needs_reach, upgrades_to) in [(1, true, None), (2, false, Some(ServiceId(3)))]
        {
            let classes: Vec<Arc<dyn rxrpc::security::ServerClass>> =
                vec![Arc::new(RxNull), rxkad.clone()];
            endpoint.offer(ServiceId(service), Offer { classes, needs_reach, upgrades_to });
        }
        let offer = Offer { classes: vec![Arc::new(RxNull)], needs_reach: true, upgrades_to: None };
        endpoint.offer(ServiceId(3), offer);
        Ok(World {
            endpoint,
            config,
            now,
            apps: Apps::default(),
            forge: Forge::default(),
            tokens: Vec::new(),
            shares: HashMap::new(),
        })
    }

    fn happen(&mut self, operation: Operation, source: &mut Unstructured<'_>) -> Result<()> {
        let now = self.now;
        match operation {
            Operation::Raw { from, len } => {
                let bytes = source.bytes(usize::from(len).min(source.len()))?;
                self.receive(address(from), Bytes::copy_from_slice(bytes), bytes.len());
            }
            Operation::Batch { from, stride, len } => {
                let bytes = source.bytes(usize::from(len).min(source.len()))?;
                self.receive(address(from), Bytes::copy_from_slice(bytes), usize::from(stride));
            }
            Operation::Forged { from, forged } => {
                let datagram = self.forge.datagram(&forged, source)?;
                let len = datagram.len();
                self.receive(address(from), datagram.into(), len);
            }
            Operation::Storm { from, times, forged } => {
                let datagram = self.forge.datagram(&forged, source)?;
                let len = datagram.len();
                let batch = datagram.repeat(usize::from(times % 65));
                self.receive(address(from), batch.into(), len);
            }
            Operation::Reflected { from, which, at, flip } => {
                let Some(mut datagram) = self.forge.sent(which) else { return Ok(()) };
                let at = usize::from(at) % datagram.len();
                datagram[at] ^= flip;
                let len = datagram.len();
                self.receive(address(from), datagram.into(), len);
            }
            Operation::Wait { ms } => self.wait(now + Duration::from_millis(u64::from(ms))),
            Operation::NextDeadline => {
                if let Some(at) = self.endpoint.next_deadline() {
                    self.wait(at.max(now));
                }
            }
            Operation::Connect { to, secured, asks_upgrade } => {
                let routes = self.endpoint.routes().len();
                if routes < self.config.connections_max {
                    let peer = address((STRANGERS + usize::from(to)) as u8);
                    let class: Box<dyn ClientClass> =
                        if secured { Box::new(rxkad_client()) } else { Box::new(RxNull) };
                    let service = ServiceId(2);
                    self.endpoint.connect(now, peer, service, &*class, asks_upgrade);
                }
            }
            Operation::Call { route, len, is_whole, deadline_ms, upgrades } => {
                let clients = self.client_routes();
                let Some(route) = pick(&clients, route) else { return Ok(()) };
                let start = Start {
                    request: vec![7; usize::from(len % LEN_MAX)].into(),
                    is_whole,
                    deadline: deadline_ms.map(|ms| Duration::from_millis(u64::from(ms))),
                    asks_upgrade: upgrades,
                    user_status: len as u8,
                };
                self.tokens.push(self.endpoint.start(now, *route, start));
            }
            Operation::Act { call, act } => {
                if let Some((call, command)) = self.apps.act(call, act) {
                    self.endpoint.command(now, call, command);
                }
            }
            Operation::Cancel { token } => {
                if let Some(token) = pick(&self.tokens, token) {
                    self.endpoint.cancel(*token);
                }
            }
            Operation::Problem { from, kind } => {
                let problem = [
                    NetworkProblem::PortUnreachable,
                    NetworkProblem::HostUnreachable,
                    NetworkProblem::NetUnreachable,
                    NetworkProblem::Prohibited,
                ][usize::from(kind % 4)];
                self.endpoint.network_problem(now, address(from), problem);
            }
            Operation::PathSize { from, max } => {
                self.endpoint.path_size(now, address(from), usize::from(max));
            }
            Operation::CloseConnection { route } => {
                if let Some(route) = pick(&self.endpoint.routes(), route) {
                    self.endpoint.close_connection(now, *route);
                }
            }
            Operation::DrainConnection { route } => {
                if let Some(route) = pick(&self.endpoint.routes(), route) {
                    self.endpoint.drain_connection(now, *route);
                }
            }
            Operation::BreakChannel { route, channel } => {
                if let Some(route) = pick(&self.endpoint.routes(), route) {
                    let channel = ChannelIndex::ALL[usize::from(channel % 4)];
                    self.endpoint.break_channel(now, *route, channel);
                }
            }
        }
        self.endpoint.finish_verifications(now);
        Ok(())
    }

    fn client_routes(&self) -> Vec<RouteId> {
        let is_client = |route: &RouteId| {
            self.endpoint.ids(*route).is_some_and(|ids| ids.epoch == forge::OUR_EPOCH)
                && self.endpoint.router().role_of(*route) == Some(Role::Client)
        };
        self.endpoint.routes().into_iter().filter(is_client).collect()
    }

    fn receive(&mut self, from: SocketAddr, data: Bytes, stride: usize) {
        if !self.is_proved(from) {
            self.shares.entry(from).or_default().0 += data.len() as u64;
        }
        self.endpoint.receive_batch(self.now, from, data, stride.max(1));
    }

    fn wait(&mut self, until: Instant) {
        // What is due on the way happens in its time, as far as there is not too much of it.
        for _ in 0..50 {
            match self.endpoint.next_deadline() {
                Some(at) if at < until => {
                    self.now = self.now.max(at);
                    self.endpoint.advance(self.now);
                    self.check_step();
                }
                _ => break,
            }
        }
        self.now = until;
        self.endpoint.advance(until);
    }

    fn check(&mut self) {
        self.check_step();
        self.check_state();
    }

    /// What came out, and that nothing stays due.
    fn check_step(&mut self) {
        self.take();
        let deadline = self.endpoint.next_deadline();
        if deadline.is_some_and(|at| at <= self.now) {
            // Something is due at once; but not for ever.
            for _ in 0..100 {
                self.endpoint.advance(self.now);
            }
            let left = self.endpoint.next_deadline();
            assert!(left.is_none_or(|at| at > self.now), "due for ever");
            self.take();
        }
    }

    fn check_state(&self) {
        let router = self.endpoint.router();
        assert!(router.len() <= self.config.connections_max);
        let peers = router.peer_summaries();
        assert!(peers.len() <= ADDRESSES);
        let unproved = peers.iter().filter(|peer| !peer.is_proved).map(|peer| peer.connections.1);
        assert!(unproved.sum::<usize>() <= self.config.unproved_connections_max);
        for peer in peers {
            assert!(peer.connections.1 <= self.config.connections_per_peer_max, "{peer:?}");
        }
        self.check_channels();
    }

    fn check_channels(&self) {
        let router = self.endpoint.router();
        let deadline = self.endpoint.next_deadline();
        for route in self.endpoint.routes() {
            let config = match router.role_of(route) {
                Some(Role::Client) => &self.config.client.call,
                _ => &self.config.server.call,
            };
            for channel in
                ChannelIndex::ALL.iter().filter_map(|at| self.endpoint.channel(route, *at))
            {
                app::check_channel(channel, config);
                let later =
                    channel.next_deadline().is_some_and(|at| deadline.is_none_or(|all| all > at));
                assert!(!later, "{:?}: its timer is not known", channel.state());
            }
        }
    }

    /// What came out of the last step.
    fn take(&mut self) {
        self.apps.note(self.endpoint.take_notices());
        self.endpoint.take_started();
        self.endpoint.take_refused();
        self.endpoint.take_returned();
        assert!(self.endpoint.take_events().len() <= 8192, "too much is told of one step");
        for (to, datagram) in self.endpoint.take_sent() {
            self.count(to, &datagram);
            self.forge.note(datagram);
        }
    }

    /// Unproved addresses never draw more than three times what they sent; VERSION and DEBUG stand outside.
    fn count(&mut self, to: SocketAddr, datagram: &[u8]) {
        let header = Header::decode(datagram).expect("we send packets");
        assert!(datagram.len() >= HEADER_LEN && datagram.len() < 65_000);
        let is_tool = matches!(header.packet_type, PacketType::Version | PacketType::Debug);
        if is_tool || !is_stranger(to) {
            return;
        }
        if self.is_proved(to) {
            self.shares.remove(&to);
            return;
        }
        let share = self.shares.entry(to).or_default();
        share.1 += datagram.len() as u64;
        assert!(share.1 <= 3 * share.0, "{to}: {} bytes drew {}", share.0, share.1);
        assert!(!header.flags.has(Flags::CLIENT_INITIATED) || header.serial.is_none());
    }

    fn is_proved(&self, at: SocketAddr) -> bool {
        self.endpoint.router().hint_of(at).is_proved(self.now)
    }

    /// Nothing comes any more, and all applications let go.
    fn end(mut self) {
        self.take();
        for call in self.apps.let_go() {
            self.endpoint.command(self.now, call, Command::End);
        }
        self.check();
        for step in 0..QUIET_STEPS_MAX {
            let Some(at) = self.endpoint.next_deadline() else { break };
            self.now = self.now.max(at);
            self.endpoint.advance(self.now);
            self.check_step();
            if step % LOOKS_EVERY == 0 {
                self.check_state();
            }
            for call in self.apps.let_go() {
                self.endpoint.command(self.now, call, Command::End);
            }
        }
        self.check();
        let left: Vec<_> = self.endpoint.routes();
        assert!(left.is_empty() && self.endpoint.next_deadline().is_none(), "{left:?} stay");
        assert!(self.endpoint.router().peer_summaries().is_empty());
        let counters = self.endpoint.counters();
        assert_eq!(counters.connections_opened, counters.connections_closed);
        let begun = counters.client_calls + counters.server_calls;
        let ended = counters.calls_good + counters.calls_failed;
        assert!(
            ended <= begun && begun - ended <= self.apps.broken_max,
            "{begun} begun, {ended} ended"
        );
    }
}

fn rxkad_client() -> Client {
    let key = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    Client::new(Token { kvno: 213, ticket: vec![1; 40], key, expires }, Level::Crypt)
}

fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    if list.is_empty() { None } else { list.get(usize::from(which) % list.len()) }
}

/// The epoch of peers that speak to us as clients; the second is of those that move about.
pub(crate) const THEIR_EPOCHS: [Epoch; 2] = [Epoch(0x0f3a_21c4), Epoch(0x8f3a_21c4)];
