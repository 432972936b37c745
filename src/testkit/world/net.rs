//! The world itself: hosts by address, links between them, what is under way, and what happened.
//!
//! Knows datagrams and time, and hands each datagram to whoever is there; what stands at an address, actors or
//! a bare core or a script, is none of its business. Time is told, or is Tokio's.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::hostile::{self, HostilePlan};
use super::link::{Fate, Link, LinkOptions, whole_ms};
use super::plan::{Plan, Sabotage};
use super::random::{Seed, Stream};
use super::referee::Referee;
use super::trace::{Entry, Trace, What, ladder};
use crate::net::{Incoming, Network, NetworkSource, PathError, Transmit, network_source};
use crate::testkit::states;
use crate::wire::{CallNumber, Cid, Epoch, HEADER_LEN, Header, PacketType, Seq};

/// A world. Clones are the same world.
#[derive(Clone, Debug)]
pub struct World {
    state: Arc<Mutex<State>>,
}

/// Something that arrives at a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram.
    Datagram {
        /// Its sender.
        from: SocketAddr,
        /// Where it arrives.
        to: SocketAddr,
        /// The datagram.
        datagram: Bytes,
    },
    /// The network tells `to` that nobody listens at `about`.
    Unreachable {
        /// Who is told.
        to: SocketAddr,
        /// Of whom.
        about: SocketAddr,
    },
}

/// When something arrives, and the order among what arrives at that time: by link, then as it was sent.
type FlightKey = (Duration, SocketAddr, SocketAddr, u64, u64);

#[derive(Debug)]
struct State {
    seed: Seed,
    clock: Clock,
    links: BTreeMap<(SocketAddr, SocketAddr), Link>,
    default_link: LinkOptions,
    hosts: BTreeMap<SocketAddr, Host>,
    flights: BTreeMap<FlightKey, Arrival>,
    posted: u64,
    trace: Trace,
    notes: BTreeMap<(SocketAddr, u32), u64>,
    referee: Referee,
    reports_unreachable: bool,
    /// Hosts that need not keep the rules.
    exempt: Vec<SocketAddr>,
    activity: u64,
    mover: Option<Waker>,
    arrivals: Vec<Duration>,
    /// What was sent lately, where somebody means harm.
    memory: Option<hostile::Memory>,
    harms: u64,
    lost: Option<BTreeSet<(SocketAddr, SocketAddr, u64)>>,
    sabotage: Option<Saboteur>,
}

#[derive(Clone, Copy, Debug)]
enum Clock {
    Told(Instant, Duration),
    Tokio(tokio::time::Instant),
}

#[derive(Debug, Default)]
struct Host {
    is_up: bool,
    /// Lives so far: what an earlier life sends or says is not heard any more.
    life: u32,
    inbox: VecDeque<Incoming>,
    waker: Option<Waker>,
}

impl World {
    /// A quiet world whose time is told by [`World::set_time`]. `keeps` = its trace can be read, not only
    /// compared.
    pub fn new(seed: u64, keeps: bool) -> World {
        World::with_clock(seed, keeps, Clock::Told(Instant::now(), Duration::ZERO))
    }

    /// A quiet world whose time is Tokio's, which must be paused; see [`super::simulate`].
    pub(super) fn under_tokio(seed: u64, keeps: bool) -> World {
        World::with_clock(seed, keeps, Clock::Tokio(tokio::time::Instant::now()))
    }

    fn with_clock(seed: u64, keeps: bool, clock: Clock) -> World {
        states::watch(keeps);
        World {
            state: Arc::new(Mutex::new(State {
                seed: Seed(seed),
                clock,
                links: BTreeMap::new(),
                default_link: LinkOptions::default(),
                hosts: BTreeMap::new(),
                flights: BTreeMap::new(),
                posted: 0,
                trace: Trace::new(keeps),
                notes: BTreeMap::new(),
                referee: Referee::new(),
                reports_unreachable: false,
                exempt: Vec::new(),
                activity: 0,
                mover: None,
                arrivals: Vec::new(),
                memory: None,
                harms: 0,
                lost: None,
                sabotage: None,
            })),
        }
    }

    /// A stream of the world's seed for whatever a test draws.
    pub fn stream(&self, name: &str) -> Stream {
        self.state().seed.stream(name)
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.state().now()
    }

    /// The same as the clock of a core.
    pub fn instant(&self) -> Instant {
        match self.state().clock {
            Clock::Told(start, now) => start + now,
            Clock::Tokio(_) => tokio::time::Instant::now().into_std(),
        }
    }

    /// Tells the time, in a world where it is not Tokio's. It does not go back.
    pub fn set_time(&self, to: Duration) {
        if let Clock::Told(_, now) = &mut self.state().clock {
            *now = to.max(*now);
        }
    }

    /// Places a host at `at`, or a new life of one that crashed. What stands there then sends with
    /// [`World::send`].
    pub fn place(&self, at: SocketAddr) -> u32 {
        let mut state = self.state();
        if state.hosts.get(&at).is_some_and(|host| host.life > 0) {
            state.note_world(format!("{at} lives again"));
        }
        let host = state.hosts.entry(at).or_default();
        host.is_up = true;
        host.life += 1;
        host.inbox.clear();
        let life = host.life;
        state.referee.lives_again(at);
        life
    }

    /// The network of a host at `at`, for [`crate::EndpointBuilder::network`]: places the host.
    pub fn network(&self, at: SocketAddr) -> NetworkSource {
        let network = SimulatedNetwork { world: self.clone(), at, life: self.place(at) };
        network_source(move || Ok(network))
    }

    /// As [`World::network`], with the number of the life.
    pub(crate) fn host(&self, at: SocketAddr) -> (Box<dyn Network + Send>, u32) {
        let life = self.place(at);
        (Box::new(SimulatedNetwork { world: self.clone(), at, life }), life)
    }

    /// What is sent from `at` need not keep the rules of Rx.
    pub fn exempt(&self, at: SocketAddr) {
        self.state().exempt.push(at);
    }

    /// The host at `at` dies: what it sends from now on is not sent, what comes for it is lost.
    pub fn crash(&self, at: SocketAddr) {
        let mut state = self.state();
        state.note_world(format!("{at} crashes"));
        let Some(host) = state.hosts.get_mut(&at) else { return };
        host.is_up = false;
        host.inbox.clear();
    }

    /// The play is over for this host: nothing that it sends or says counts.
    pub(in crate::testkit) fn mute(&self, at: SocketAddr) {
        if let Some(host) = self.state().hosts.get_mut(&at) {
            host.is_up = false;
        }
    }

    /// When the last thing happened.
    pub(super) fn end_time(&self) -> Duration {
        self.state().trace.now()
    }

    /// Which life of the host at `at` it is now, if it is up.
    pub fn life(&self, at: SocketAddr) -> Option<u32> {
        self.state().hosts.get(&at).filter(|host| host.is_up).map(|host| host.life)
    }

    /// What links are like that nothing else was said of.
    pub fn set_default_link(&self, options: LinkOptions) {
        let mut state = self.state();
        if state.default_link != options {
            state.note_world(format!("default link: {options:?}"));
            state.default_link = options;
        }
    }

    /// What the link from `from` to `to` is like from now on.
    pub fn set_link(&self, from: SocketAddr, to: SocketAddr, options: LinkOptions) {
        let mut state = self.state();
        if state.link(from, to).options != options {
            state.note_world(format!("link {from} to {to}: {options:?}"));
            state.link(from, to).options = options;
        }
    }

    /// What all links are like from now on, those that come later too. None is parted or clogged any more.
    pub fn set_all_links(&self, options: LinkOptions) {
        let mut state = self.state();
        state.note_world("all links set".to_owned());
        state.default_link = options;
        let pairs: Vec<_> = state.links.keys().copied().collect();
        for (from, to) in pairs {
            let link = state.link(from, to);
            link.options = options;
            link.is_parted = false;
            state.unclog(from, to);
        }
    }

    /// Nothing passes from `from` to `to` any more; what is under way arrives.
    pub fn part(&self, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        state.note_world(format!("{from} is parted from {to}"));
        state.link(from, to).is_parted = true;
    }

    /// Ends [`World::part`].
    pub fn join(&self, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        state.note_world(format!("{from} reaches {to} again"));
        state.link(from, to).is_parted = false;
    }

    /// What is sent from `from` to `to` waits until the link is unclogged.
    pub fn clog(&self, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        state.note_world(format!("{from} to {to} is clogged"));
        state.link(from, to).is_clogged = true;
    }

    /// Ends [`World::clog`]: what waited arrives at once, in order.
    pub fn unclog(&self, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        state.note_world(format!("{from} to {to} is free"));
        state.unclog(from, to);
    }

    /// Whether who sends to an address where nobody is is told so, as by ICMP. Not, at first.
    pub fn set_reports_unreachable(&self, reports: bool) {
        self.state().reports_unreachable = reports;
    }

    /// How many times the bytes that came from an address an endpoint may send there before the address has proved
    /// itself, by naming a serial or answering a challenge: a rule of the world's. `None` = any number. 3, as
    /// [`EndpointConfig::amplification_max`](crate::proto::config::EndpointConfig::amplification_max) is, unless set.
    pub fn set_amplification_max(&self, times: Option<u32>) {
        self.state().referee.set_amplification(times);
    }

    /// Sends a datagram from a host; `life` is what [`World::place`] gave.
    pub fn send(
        &self,
        from: SocketAddr,
        life: u32,
        to: SocketAddr,
        datagram: Bytes,
        may_fragment: bool,
    ) {
        let mover = {
            let mut state = self.state();
            state.post(from, life, to, datagram, may_fragment);
            state.mover.take()
        };
        if let Some(mover) = mover {
            mover.wake();
        }
    }

    /// What a plan says of hosts and links, once and for all.
    pub(super) fn prepare(&self, plan: &Plan) {
        let mut state = self.state();
        state.default_link = plan.link;
        state.reports_unreachable = plan.reports_unreachable;
        state.lost = plan.lost_by_address();
        state.sabotage = plan.sabotage.map(|what| Saboteur { what, seen: HashSet::new() });
        if !plan.hostile.is_empty() {
            state.memory = Some(hostile::Memory::default());
            // He hears what is sent to him.
            let own = state.hosts.entry(hostile::own_address()).or_default();
            own.is_up = true;
        }
    }

    /// Somebody means harm. It comes a millisecond later, whatever links are like.
    pub(super) fn harm(&self, plan: &Plan, hostile: &HostilePlan) {
        let mut state = self.state();
        let now = state.now();
        let to = plan.address(hostile.to);
        let Some((from, datagram)) =
            state.memory.as_ref().and_then(|memory| memory.act(now, plan, hostile))
        else {
            return;
        };
        state.harms += 1;
        let number = u64::MAX - state.harms;
        let at = now + Duration::from_millis(1);
        state.flights.insert((at, from, to, number, 0), Arrival::Datagram { from, to, datagram });
        state.note_world(format!("harm for {to} in the name of {from}: {:?}", hostile.what));
    }

    /// When something arrives next.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.state().flights.first_key_value().map(|(key, _)| key.0)
    }

    /// The next thing that arrives at a host that is up, if it is due. What stands there has to take it.
    pub fn take_arrival(&self) -> Option<Arrival> {
        self.state().take_arrival()
    }

    /// As [`World::take_arrival`], but into the inbox of the host's network too.
    pub(super) fn deliver(&self) -> Option<Arrival> {
        let (arrival, waker) = {
            let mut state = self.state();
            let arrival = state.take_arrival()?;
            let (to, incoming) = match arrival.clone() {
                Arrival::Datagram { from, to, datagram } => {
                    let stride = datagram.len().max(1);
                    (to, Incoming::Datagrams { from, data: datagram, stride })
                }
                Arrival::Unreachable { to, about } => {
                    (to, Incoming::PathError { to: about, error: PathError::PortUnreachable })
                }
            };
            let waker = state.hosts.get_mut(&to).and_then(|host| {
                host.inbox.push_back(incoming);
                host.waker.take()
            });
            (arrival, waker)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(arrival)
    }

    /// Writes down what the application of a call was told, or did; nothing, if its host has died since.
    pub fn note(&self, host: SocketAddr, life: u32, call: u32, what: String) {
        let mut state = self.state();
        if state.hosts.get(&host).is_none_or(|it| !it.is_up || it.life != life) {
            return;
        }
        let number = state.notes.entry((host, call)).or_default();
        *number += 1;
        let number = *number;
        let at = state.now();
        state.trace.add(at, What::Told { host, call, number, what });
    }

    /// The hash of all that happened. Equal worlds have equal hashes.
    pub fn trace_hash(&self) -> u64 {
        self.state().trace.hash()
    }

    /// What happened, if the world keeps it.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().trace.entries().to_vec()
    }

    /// How many things happened.
    pub fn count(&self) -> u64 {
        self.state().trace.count()
    }

    /// The last `lines` of what happened, to be read.
    pub fn ladder(&self, lines: usize) -> String {
        ladder(self.state().trace.entries(), lines)
    }

    /// The first rule of Rx that somebody broke, if any: serials, call numbers and firstPacket go back, DATA
    /// beyond the window, BUSY without a cause.
    pub fn violation(&self) -> Option<String> {
        self.state().referee.violation().map(str::to_owned)
    }

    pub(super) fn with_referee<T>(&self, look: impl FnOnce(&mut Referee) -> T) -> T {
        look(&mut self.state().referee)
    }

    pub(super) fn activity(&self) -> u64 {
        self.state().activity
    }

    /// Pending until a datagram is sent, or [`World::stir`].
    pub(super) fn poll_sent(&self, seen: u64, task: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.posted != seen {
            return Poll::Ready(());
        }
        state.mover = Some(task.waker().clone());
        Poll::Pending
    }

    /// Something ended of which no datagram tells: whoever waits looks again.
    pub(super) fn stir(&self) {
        let mover = {
            let mut state = self.state();
            state.posted += 1;
            state.mover.take()
        };
        if let Some(mover) = mover {
            mover.wake();
        }
    }

    pub(super) fn posted(&self) -> u64 {
        self.state().posted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; a test that did is failing already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> Duration {
        match self.clock {
            Clock::Told(_, now) => now,
            Clock::Tokio(start) => tokio::time::Instant::now() - start,
        }
    }

    fn note_world(&mut self, text: String) {
        let at = self.now();
        self.trace.add(at, What::World(text));
    }

    fn link(&mut self, from: SocketAddr, to: SocketAddr) -> &mut Link {
        let (seed, options) = (self.seed, self.default_link);
        self.links
            .entry((from, to))
            .or_insert_with(|| Link::new(seed, &format!("link {from} {to}"), options))
    }

    fn post(
        &mut self,
        from: SocketAddr,
        life: u32,
        to: SocketAddr,
        datagram: Bytes,
        may_fragment: bool,
    ) {
        self.activity += 1;
        if self.hosts.get(&from).is_none_or(|host| !host.is_up || host.life != life) {
            return;
        }
        let now = self.now();
        self.posted += 1;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let datagram = match &mut self.sabotage {
            Some(saboteur) => saboteur.pass(from, datagram),
            None => datagram,
        };
        let number = self.link(from, to).sent;
        let is_lost = self.lost.as_ref().map(|lost| lost.contains(&(from, to, number)));
        if let Some(memory) = &mut self.memory {
            memory.note(now, from, to, &datagram);
        }
        let link = self.link(from, to);
        link.sent += 1;
        let fate = link.send(now, datagram.len(), may_fragment, is_lost, &mut arrivals);
        if fate == Fate::Arrives && link.is_clogged {
            link.clogged.push((now, datagram.clone()));
            arrivals.clear();
        }
        if !self.exempt.contains(&from) {
            self.referee.sent(now, life, from, to, &datagram);
        }
        for (copy, at) in arrivals.drain(..).enumerate() {
            let arrival = Arrival::Datagram { from, to, datagram: datagram.clone() };
            self.flights.insert((at, from, to, number, copy as u64), arrival);
        }
        self.arrivals = arrivals;
        self.trace.add(now, What::Sent { from, to, number, datagram, fate });
    }

    fn unclog(&mut self, from: SocketAddr, to: SocketAddr) {
        let now = self.now();
        let link = self.link(from, to);
        link.is_clogged = false;
        let at = whole_ms(now + link.options.latency.max(Duration::from_millis(1)));
        let first = link.sent;
        let waiting = std::mem::take(&mut link.clogged);
        for (number, (_, datagram)) in waiting.into_iter().enumerate() {
            let arrival = Arrival::Datagram { from, to, datagram };
            self.flights.insert((at, from, to, first, u64::MAX / 2 + number as u64), arrival);
        }
    }

    fn take_arrival(&mut self) -> Option<Arrival> {
        self.trace.settled();
        let now = self.now();
        loop {
            let entry = self.flights.first_entry().filter(|entry| entry.key().0 <= now)?;
            let number = entry.key().3;
            let arrival = entry.remove();
            match &arrival {
                Arrival::Datagram { from, to, datagram } => {
                    let (from, to) = (*from, *to);
                    if !self.hosts.get(&to).is_some_and(|host| host.is_up) {
                        self.report_unreachable(now, from, to, number);
                        continue;
                    }
                    self.referee.arrived(now, from, to, datagram);
                    let datagram = datagram.clone();
                    self.trace.add(now, What::Arrived { from, to, number, datagram });
                    return Some(arrival);
                }
                Arrival::Unreachable { to, .. } => {
                    if self.hosts.get(to).is_some_and(|host| host.is_up) {
                        return Some(arrival);
                    }
                }
            }
        }
    }

    fn report_unreachable(
        &mut self,
        now: Duration,
        to: SocketAddr,
        about: SocketAddr,
        number: u64,
    ) {
        if self.reports_unreachable {
            let at = now + Duration::from_millis(1);
            self.flights
                .insert((at, about, to, number, u64::MAX), Arrival::Unreachable { to, about });
        }
    }
}

/// Makes the mistake of a plan.
#[derive(Debug)]
struct Saboteur {
    what: Sabotage,
    seen: HashSet<(SocketAddr, Epoch, Cid, CallNumber, Seq)>,
}

impl Saboteur {
    fn pass(&mut self, from: SocketAddr, datagram: Bytes) -> Bytes {
        let Some(header) = Header::decode(&datagram) else { return datagram };
        if header.packet_type != PacketType::Data || datagram.len() == HEADER_LEN {
            return datagram;
        }
        let key = (from, header.epoch, header.cid, header.call_number, header.seq);
        match self.what {
            Sabotage::ResentDataDiffers if !self.seen.insert(key) => {
                let mut bytes = datagram.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                bytes.into()
            }
            _ => datagram,
        }
    }
}

/// What an endpoint of actors sends and receives with in a [`World`].
#[derive(Debug)]
struct SimulatedNetwork {
    world: World,
    at: SocketAddr,
    life: u32,
}

impl Network for SimulatedNetwork {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn max_segments(&self) -> usize {
        64
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.world.state();
        state.activity += 1;
        let life = self.life;
        let Some(host) = state.hosts.get_mut(&self.at).filter(|host| host.life == life) else {
            return Poll::Pending;
        };
        if let Some(incoming) = host.inbox.pop_front() {
            into.push(incoming);
            return Poll::Ready(Ok(()));
        }
        host.waker = Some(task.waker().clone());
        Poll::Pending
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        for datagram in transmit.datagrams() {
            let (to, datagram) = (transmit.to, Bytes::copy_from_slice(datagram));
            self.world.send(self.at, self.life, to, datagram, transmit.may_fragment);
        }
        Ok(())
    }

    fn poll_send_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
