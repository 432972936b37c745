//! A plan played by bare cores: no actors, no tasks, no clock but the world's.
//!
//! What stands for applications here does, word for word, what the actors' user halves do in
//! [`super::tree`]: when credit goes back, how a reply is cut, when a call gets its place. A difference shows as
//! a difference of traces.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::agenda::{Agenda, Event, WakeKey};
use super::book::{Book, ClientEnd};
use super::core_checks::without_limits;
use super::core_link::{Serving, Wish};
use super::core_stream::{StreamWish, Streaming};
use super::link::whole_ms;
use super::net::{Arrival, World};
use super::plan::{HostIndex, Plan, SERVICE, Sabotage, UPGRADED};
use super::secured;
use crate::proto::channel::{Command, Notice, Start};
use crate::proto::router::{Offer, RouteId};
use crate::proto::{CallFailure, NetworkProblem};
use crate::testkit::{CallRef, InlineEndpoint, SentDatagram, StartToken};
use crate::wire::{ChannelIndex, ServiceId};

/// Tries of one call with connections that turn out to be closed.
const TRIES_MAX: u32 = 4;

/// A server, and the call that has its connection for itself.
type BundleKey = (HostIndex, Option<u32>);

/// A client's call under way.
struct ClientCall {
    bundle: BundleKey,
    began: Duration,
    slot: Option<usize>,
    token: Option<StartToken>,
    call: Option<CallRef>,
    tries: u32,
    reply: Vec<u8>,
    stream: Option<Streaming>,
}

#[derive(Default)]
struct Slot {
    calls: usize,
    route: Option<RouteId>,
}

/// The connections of a client to one server.
struct Bundle {
    slots: Vec<Slot>,
    places: usize,
    queue: VecDeque<u32>,
}

pub(super) struct Host {
    life: u32,
    pub(super) endpoint: InlineEndpoint,
    bundles: BTreeMap<BundleKey, Bundle>,
    /// Calls whose notices go to their users, and are not answered at once.
    streamed: Rc<RefCell<BTreeSet<CallRef>>>,
    calls: BTreeMap<u32, ClientCall>,
    by_token: HashMap<StartToken, u32>,
    by_call: HashMap<CallRef, u32>,
    serving: HashMap<CallRef, Serving>,
    /// Calls that were given a place. Their tasks have their turn after the endpoint had its own, which fires
    /// what is due by then: a final ACK that may not wait leaves before the next call's DATA.
    /// After the end of a streamed call (`true`) they have it at once: its user's task gave the place back.
    placed: VecDeque<(u32, bool)>,
}

/// See the module.
pub(super) struct Cores {
    pub(super) plan: Rc<Plan>,
    pub(super) world: World,
    book: Book,
    pub(super) hosts: Vec<Option<Host>>,
    agenda: Agenda,
    sleeping: BTreeMap<WakeKey, (HostIndex, CallRef)>,
}

impl Cores {
    pub fn new(plan: Rc<Plan>, world: World) -> Cores {
        let book = Book::new(plan.clone(), world.clone());
        let hosts = plan.hosts().map(|_| None).collect();
        let agenda = Agenda::new(&plan);
        let mut cores = Cores { plan, world, book, hosts, agenda, sleeping: BTreeMap::new() };
        // Servers first: a client that connects finds them.
        for host in cores.plan.hosts().rev() {
            cores.start(host);
        }
        cores
    }

    /// Plays until all is over, or a rule is broken.
    pub fn play(mut self) -> Book {
        loop {
            self.timers();
            if self.world.violation().is_some() {
                break;
            }
            self.check_cores();
            if let Some(event) = self.agenda.take_due(&self.world) {
                self.happen(event);
                continue;
            }
            if self.agenda.is_over(&self.book) {
                break;
            }
            let next = [self.agenda.next(&self.world), self.next_timer()];
            let Some(next) = next.into_iter().flatten().min() else { break };
            self.world.set_time(next);
        }
        self.book
    }

    fn start(&mut self, index: HostIndex) {
        let at = self.plan.address(index);
        let life = self.world.place(at);
        let now = self.world.instant();
        let config = match self.plan.sabotage {
            Some(Sabotage::LimitsIgnored) => without_limits(&self.plan.config),
            _ => self.plan.config.clone(),
        };
        let identity = self.plan.identity(index, life);
        let mut endpoint = InlineEndpoint::new(config, identity, now);
        let streamed = Rc::<RefCell<BTreeSet<CallRef>>>::default();
        if self.plan.is_client(index) {
            let streamed = streamed.clone();
            endpoint.answer_notices(move |call, notice| {
                if streamed.borrow().contains(&call) { None } else { answer_whole_call(notice) }
            });
        } else {
            let upgrades_to = self.plan.upgrades.then_some(ServiceId(UPGRADED));
            for (service_id, upgrades_to) in [(SERVICE, upgrades_to), (UPGRADED, None)] {
                let offer = Offer {
                    classes: secured::server_classes(self.plan.security),
                    needs_reach: self.plan.needs_reach,
                    upgrades_to,
                };
                endpoint.offer(ServiceId(service_id), offer);
            }
        }
        let mut host = Host {
            life,
            endpoint,
            bundles: BTreeMap::new(),
            streamed,
            calls: BTreeMap::new(),
            by_token: HashMap::new(),
            by_call: HashMap::new(),
            serving: HashMap::new(),
            placed: VecDeque::new(),
        };
        if self.plan.is_client(index) {
            for server in self.plan.clients..self.plan.clients + self.plan.servers {
                let count = self.plan.connections_max;
                let mut slots: Vec<Slot> = (0..count).map(|_| Slot::default()).collect();
                let peer = self.plan.address(server);
                let route = connect(&self.plan, &mut host.endpoint, now, peer);
                slots[0].route = Some(route);
                let places = count * ChannelIndex::COUNT;
                let bundle = Bundle { slots, places, queue: VecDeque::new() };
                host.bundles.insert((server, None), bundle);
            }
        }
        self.hosts[index] = Some(host);
    }

    fn next_timer(&self) -> Option<Duration> {
        let start = self.world.instant() - self.world.now();
        let hosts = self.hosts.iter().flatten();
        let timers = hosts.clone().filter_map(|host| host.endpoint.next_deadline());
        let timers = timers.map(|at| whole_ms(at.saturating_duration_since(start)));
        let places = self.hosts.iter().flatten().flat_map(|host| self.place_deadlines(host));
        timers.chain(places.map(|(at, _)| at)).min()
    }

    /// When calls that wait for a place are out of time.
    fn place_deadlines(&self, host: &Host) -> Vec<(Duration, u32)> {
        let waiting = host.bundles.values().flat_map(|bundle| bundle.queue.iter());
        waiting
            .filter_map(|id| {
                let deadline = self.plan.call(*id)?.deadline?;
                Some((host.calls.get(id)?.began + deadline, *id))
            })
            .collect()
    }

    fn timers(&mut self) {
        let now = self.world.instant();
        for index in self.plan.hosts() {
            while let Some(host) = &mut self.hosts[index]
                && host.endpoint.next_deadline().is_some_and(|at| at <= now)
            {
                host.endpoint.advance(now);
                self.pump(index);
            }
            let Some(host) = &self.hosts[index] else { continue };
            let (life, late) = (host.life, self.place_deadlines(host));
            for (_, id) in late.into_iter().filter(|(at, _)| *at <= self.world.now()) {
                let Some(host) = &mut self.hosts[index] else { continue };
                let Some(call) = host.calls.remove(&id) else { continue };
                if let Some(bundle) = host.bundles.get_mut(&call.bundle) {
                    bundle.queue.retain(|waiting| *waiting != id);
                }
                let deadline = self.plan.call(id).and_then(|call| call.deadline);
                let end = ClientEnd::Failed(CallFailure::Deadline(deadline.unwrap_or_default()));
                self.book.client_ended(index, life, id, end, &[]);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(Arrival::Datagram { from, to, datagram }) => {
                let now = self.world.instant();
                let Some(index) = self.host_at(to) else { return };
                if let Some(host) = &mut self.hosts[index] {
                    let len = datagram.len().max(1);
                    host.endpoint.receive_batch(now, from, datagram, len);
                }
                self.pump(index);
            }
            Event::Arrival(Arrival::Unreachable { to, about }) => {
                let now = self.world.instant();
                let Some(index) = self.host_at(to) else { return };
                if let Some(host) = &mut self.hosts[index] {
                    let problem = NetworkProblem::PortUnreachable;
                    host.endpoint.network_problem(now, about, problem);
                }
                self.pump(index);
            }
            Event::Crash(index) => {
                if self.hosts[index].take().is_some() {
                    self.world.crash(self.plan.address(index));
                    self.book.host_died(index);
                }
            }
            Event::Restart(index) => {
                if self.hosts[index].is_none() {
                    self.start(index);
                }
            }
            Event::Begin(id) => self.begin(id),
            Event::GiveUp(id) => self.give_up(id),
            Event::Wake(WakeKey { id, life, is_client: true }) => {
                let Some(index) = self.plan.call(id).map(|call| call.client) else { return };
                if self.hosts[index].as_ref().is_some_and(|host| host.life == life) {
                    self.stream(index, id, true);
                    self.pump(index);
                }
            }
            Event::Wake(key) => {
                if let Some((index, call)) = self.sleeping.remove(&key) {
                    let life = self.hosts[index].as_ref().map(|host| host.life);
                    if life == Some(key.life) {
                        self.serve(index, call, true);
                        self.pump(index);
                    }
                }
            }
        }
    }

    fn host_at(&self, at: std::net::SocketAddr) -> Option<HostIndex> {
        self.plan.hosts().find(|index| self.plan.address(*index) == at)
    }

    // ---- clients ----

    fn begin(&mut self, id: u32) {
        let plan = self.plan.clone();
        let Some(call) = plan.call(id) else { return };
        let Some(host) = &mut self.hosts[call.client] else {
            return self.book.never_begins(id);
        };
        self.book.client_began(id);
        let began = self.world.now();
        let record = ClientCall {
            bundle: (call.server, call.exclusive.then_some(id)),
            began,
            slot: None,
            token: None,
            call: None,
            tries: 0,
            reply: Vec::new(),
            stream: call.streamed.map(|streamed| Streaming::new(call, streamed)),
        };
        let key = record.bundle;
        host.calls.insert(id, record);
        if call.exclusive {
            let now = self.world.instant();
            let route = connect(&plan, &mut host.endpoint, now, plan.address(call.server));
            let slots = vec![Slot { calls: 0, route: Some(route) }];
            let bundle = Bundle { slots, places: ChannelIndex::COUNT, queue: VecDeque::new() };
            host.bundles.insert(key, bundle);
        }
        let Some(bundle) = host.bundles.get_mut(&key) else { return };
        if bundle.places == 0 {
            bundle.queue.push_back(id);
            return;
        }
        bundle.places -= 1;
        self.take_place(call.client, id);
        self.pump(call.client);
    }

    fn take_place(&mut self, index: HostIndex, id: u32) {
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let Some(bundle) = host.bundles.get_mut(&call.bundle) else { return };
        let full = ChannelIndex::COUNT;
        let Some(slot) = bundle.slots.iter().position(|slot| slot.calls < full) else { return };
        bundle.slots[slot].calls += 1;
        call.slot = Some(slot);
        self.try_start(index, id);
    }

    fn try_start(&mut self, index: HostIndex, id: u32) {
        let plan = self.plan.clone();
        let Some(planned) = plan.call(id) else { return };
        let now = self.world.instant();
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let Some(bundle) = host.bundles.get_mut(&call.bundle) else { return };
        let slot = &mut bundle.slots[call.slot.unwrap_or(0)];
        let peer = plan.address(planned.server);
        let route =
            *slot.route.get_or_insert_with(|| connect(&plan, &mut host.endpoint, now, peer));
        let passed = self.world.now() - call.began;
        let left = planned.deadline.map(|deadline| deadline.saturating_sub(passed));
        if left == Some(Duration::ZERO) {
            let failure = CallFailure::Deadline(planned.deadline.unwrap_or_default());
            return self.end(index, id, ClientEnd::Failed(failure));
        }
        call.tries += 1;
        let request = match call.stream {
            Some(_) => Bytes::new(),
            None => planned.request().into(),
        };
        let is_whole = call.stream.is_none();
        let start = Start { request, is_whole, deadline: left, ..Start::default() };
        let token = host.endpoint.start(now, route, start);
        call.token = Some(token);
        host.by_token.insert(token, id);
    }

    /// A client's call is over: its place goes to the next.
    fn end(&mut self, index: HostIndex, id: u32, end: ClientEnd) {
        let Some(host) = &mut self.hosts[index] else { return };
        let life = host.life;
        let Some(call) = host.calls.remove(&id) else { return };
        if let Some(at) = call.call {
            host.by_call.remove(&at);
            host.streamed.borrow_mut().remove(&at);
        }
        let asked = self.plan.call(id).and_then(|call| call.deadline);
        let end = match (end, asked) {
            (ClientEnd::Failed(CallFailure::Deadline(_)), Some(asked)) => {
                ClientEnd::Failed(CallFailure::Deadline(asked))
            }
            _ => end,
        };
        let Some(bundle) = host.bundles.get_mut(&call.bundle) else { return };
        let next = match call.slot {
            Some(slot) => {
                bundle.slots[slot].calls -= 1;
                let next = bundle.queue.pop_front();
                bundle.places += usize::from(next.is_none());
                next
            }
            None => {
                bundle.queue.retain(|waiting| *waiting != id);
                None
            }
        };
        let at_once = call.stream.is_some();
        host.placed.extend(next.map(|next| (next, at_once)));
        if call.bundle.1.is_some()
            && let Some(bundle) = host.bundles.remove(&call.bundle)
        {
            let now = self.world.instant();
            bundle.slots.iter().filter_map(|slot| slot.route).for_each(|route| {
                host.endpoint.close_connection(now, route);
            });
        }
        self.book.client_ended(index, life, id, end, &call.reply);
    }

    fn give_up(&mut self, id: u32) {
        let Some(planned) = self.plan.call(id) else { return };
        let index = planned.client;
        let now = self.world.instant();
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get(&id) else { return };
        if let Some(at) = call.call {
            host.endpoint.command(now, at, Command::End);
        } else if let Some(token) = call.token {
            host.endpoint.cancel(token);
        }
        self.end(index, id, ClientEnd::GivenUp);
        self.pump(index);
    }

    // ---- both ----

    /// Datagrams leave and applications act, until nothing moves.
    fn pump(&mut self, index: HostIndex) {
        loop {
            let now = self.world.instant();
            let Some(host) = &mut self.hosts[index] else { return };
            host.endpoint.finish_verifications(now);
            for SentDatagram { to, datagram, may_fragment } in host.endpoint.take_sent_datagrams() {
                let from = self.plan.address(index);
                self.world.send(from, host.life, to, datagram.into(), may_fragment);
            }
            let mut begun = Vec::new();
            for (token, at) in host.endpoint.take_started() {
                if let Some(id) = host.by_token.remove(&token)
                    && let Some(call) = host.calls.get_mut(&id)
                {
                    (call.token, call.call) = (None, Some(at));
                    host.by_call.insert(at, id);
                    if call.stream.is_some() {
                        host.streamed.borrow_mut().insert(at);
                        begun.push(id);
                    }
                }
            }
            host.endpoint.take_events();
            let returned = host.endpoint.take_returned();
            let refused = host.endpoint.take_refused();
            let notices = host.endpoint.take_notices();
            let is_quiet = returned.is_empty() && refused.is_empty() && notices.is_empty();
            if is_quiet && begun.is_empty() {
                let Some((_, at_once)) = host.placed.front().copied() else { return };
                if !at_once && host.endpoint.next_deadline().is_some_and(|at| at <= now) {
                    host.endpoint.advance(now);
                    continue;
                }
                for (id, _) in std::mem::take(&mut host.placed) {
                    self.take_place(index, id);
                }
                continue;
            }
            for token in returned {
                self.give_back(index, token);
            }
            for (token, failure) in refused {
                let id = self.hosts[index].as_mut().and_then(|host| host.by_token.remove(&token));
                if let Some(id) = id {
                    self.end(index, id, ClientEnd::Failed(failure));
                }
            }
            if !begun.is_empty()
                && let Some(host) = &mut self.hosts[index]
                && host.endpoint.next_deadline().is_some_and(|at| at <= now)
            {
                // The endpoint has its turn before those hear that they have channels.
                host.endpoint.advance(now);
            }
            self.tell(index, notices);
            for id in begun {
                self.stream(index, id, false);
            }
        }
    }

    /// A connection that takes no calls any more: the call tries another.
    fn give_back(&mut self, index: HostIndex, token: StartToken) {
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(id) = host.by_token.remove(&token) else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        if call.tries >= TRIES_MAX {
            return self.end(index, id, ClientEnd::Failed(CallFailure::Closed));
        }
        if let Some(bundle) = host.bundles.get_mut(&call.bundle) {
            bundle.slots[call.slot.unwrap_or(0)].route = None;
        }
        self.try_start(index, id);
    }

    fn tell(&mut self, index: HostIndex, notices: Vec<(CallRef, Notice)>) {
        let (mut touched, mut streamed) = (Vec::new(), Vec::new());
        for (at, notice) in notices {
            if self.plan.is_client(index) {
                streamed.extend(self.tell_client(index, at, notice));
                continue;
            }
            let Some(host) = &mut self.hosts[index] else { return };
            if let Notice::Incoming(incoming) = &notice {
                self.book.service_began(index);
                host.serving.insert(at, Serving::new(incoming.credit));
            } else if let Some(serving) = host.serving.get_mut(&at) {
                serving.tell(notice);
            }
            if !touched.contains(&at) {
                touched.push(at);
            }
        }
        for at in touched {
            self.serve(index, at, false);
        }
        streamed.dedup();
        for id in streamed {
            self.stream(index, id, false);
        }
    }

    /// The call, if it is streamed: then its user goes on.
    fn tell_client(&mut self, index: HostIndex, at: CallRef, notice: Notice) -> Option<u32> {
        let host = self.hosts[index].as_mut()?;
        let id = host.by_call.get(&at).copied()?;
        let call = host.calls.get_mut(&id)?;
        if let Some(stream) = &mut call.stream {
            stream.tell(notice);
            return Some(id);
        }
        match notice {
            Notice::Data(pieces) => {
                pieces.iter().for_each(|piece| call.reply.extend_from_slice(piece));
            }
            Notice::End => self.end(index, id, ClientEnd::Good),
            Notice::Failed(failure) => self.end(index, id, ClientEnd::Failed(failure)),
            _ => {}
        }
        None
    }

    /// The user of a streamed call goes on.
    fn stream(&mut self, index: HostIndex, id: u32, is_awake: bool) {
        let (now, instant) = (self.world.now(), self.world.instant());
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let (Some(at), Some(stream)) = (call.call, &mut call.stream) else { return };
        let wish = stream.poll(is_awake);
        let commands = stream.take_commands();
        if let StreamWish::Over(_) = wish {
            call.reply = std::mem::take(&mut stream.reply);
        }
        let life = host.life;
        for command in commands {
            host.endpoint.command(instant, at, command);
        }
        match wish {
            StreamWish::Wait => {}
            StreamWish::Sleep(time) => {
                self.agenda.wake_at(now + time, WakeKey { id, life, is_client: true });
            }
            StreamWish::Over(end) => self.end(index, id, end),
        }
    }

    // ---- servers ----

    fn serve(&mut self, index: HostIndex, at: CallRef, is_awake: bool) {
        let now = self.world.now();
        let instant = self.world.instant();
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(serving) = host.serving.get_mut(&at) else { return };
        let life = host.life;
        let wish = serving.poll(&self.book, index, life, is_awake);
        let commands = serving.take_commands();
        match wish {
            Wish::Wait => {}
            Wish::Sleep(id, time) => {
                let key = WakeKey { id, life, is_client: false };
                self.agenda.wake_at(now + time, key);
                self.sleeping.insert(key, (index, at));
            }
            Wish::Over => {
                host.serving.remove(&at);
                self.book.service_ended(index, life);
            }
        }
        for command in commands {
            if let Some(host) = &mut self.hosts[index] {
                host.endpoint.command(instant, at, command);
            }
        }
    }
}

/// What the actors' port of a whole call answers, in the step of the notice.
fn answer_whole_call(notice: &Notice) -> Option<Command> {
    match notice {
        Notice::Data(pieces) => {
            let bytes = pieces.iter().map(Bytes::len).sum();
            Some(Command::Consumed { packets: pieces.len() as u32, bytes })
        }
        Notice::End => Some(Command::End),
        _ => None,
    }
}

/// A new connection to a server of the plan.
fn connect(plan: &Plan, endpoint: &mut InlineEndpoint, now: Instant, peer: SocketAddr) -> RouteId {
    let class = secured::client_class(plan.security);
    endpoint.connect(now, peer, ServiceId(SERVICE), &*class, plan.upgrades)
}
