//! A plan played by bare cores: no actors, no tasks, no clock but the world's.
//!
//! Each endpoint has its turns as actors have theirs ([`crate::testkit::inline`]), and what stands for
//! applications here does in turns of its own, word for word, what the actors' user halves do in [`super::tree`]:
//! when credit goes back, how a reply is cut, when a call gets its place. A difference shows as a difference of
//! traces.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::agenda::{Agenda, Event, WakeKey};
use super::book::{Book, ClientEnd};
use super::core_caller::{Bundle, BundleKey, ClientCall, Slot};
use super::core_checks::settings_of;
use super::core_link::{Serving, Wish};
use super::link::whole_ms;
use super::net::{Arrival, World};
use super::plan::{HostIndex, Plan, SERVICE, UPGRADED};
use super::secured;
use crate::proto::NetworkProblem;
use crate::proto::channel::{Command, Notice};
use crate::proto::router::Offer;
use crate::testkit::inline::User;
use crate::testkit::{CallRef, InlineEndpoint, SentDatagram, StartToken};
use crate::wire::{ChannelIndex, ServiceId};

pub(super) struct Host {
    pub(super) life: u32,
    pub(super) endpoint: InlineEndpoint,
    pub(super) bundles: BTreeMap<BundleKey, Bundle>,
    pub(super) calls: BTreeMap<u32, ClientCall>,
    pub(super) by_token: HashMap<StartToken, u32>,
    pub(super) by_call: HashMap<CallRef, u32>,
    serving: HashMap<CallRef, Serving>,
    /// Services whose sleep is over.
    awake: Vec<CallRef>,
}

/// See the module.
pub(super) struct Cores {
    pub(super) plan: Rc<Plan>,
    pub(super) world: World,
    pub(super) book: Book,
    pub(super) hosts: Vec<Option<Host>>,
    pub(super) agenda: Agenda,
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
        let config = settings_of(&self.plan);
        let identity = self.plan.identity(index, life);
        let mut endpoint = InlineEndpoint::new(config, identity, now);
        endpoint.take_turns();
        if !self.plan.is_client(index) {
            let upgrades_to = self.plan.upgrades.then_some(ServiceId(UPGRADED));
            for (service_id, upgrades_to) in [(SERVICE, upgrades_to), (UPGRADED, None)] {
                let offer = Offer {
                    classes: secured::server_classes(self.plan.security),
                    needs_reach: self.plan.needs_reach,
                    upgrades_to,
                };
                endpoint.offer(ServiceId(service_id), offer);
                endpoint.limit_service(ServiceId(service_id), self.plan.running_calls_max);
            }
        }
        let mut host = Host {
            life,
            endpoint,
            bundles: BTreeMap::new(),
            calls: BTreeMap::new(),
            by_token: HashMap::new(),
            by_call: HashMap::new(),
            serving: HashMap::new(),
            awake: Vec::new(),
        };
        if self.plan.is_client(index) {
            for server in self.plan.clients..self.plan.clients + self.plan.servers {
                let count = self.plan.connections_max;
                let mut slots: Vec<Slot> = (0..count).map(|_| Slot::default()).collect();
                let peer = self.plan.address(server);
                let class = secured::client_class(self.plan.security);
                let (service_id, asks) = (ServiceId(SERVICE), self.plan.upgrades);
                let route = host.endpoint.connect(now, peer, service_id, &*class, asks);
                slots[0].route = Some(route);
                let places = count * ChannelIndex::COUNT;
                let bundle = Bundle { slots, places, queue: VecDeque::new() };
                host.bundles.insert((server, None), bundle);
            }
        }
        self.hosts[index] = Some(host);
        self.run(index);
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
                host.endpoint.wake_endpoint();
                self.run(index);
            }
            let Some(host) = &self.hosts[index] else { continue };
            let late = self.place_deadlines(host);
            let now = self.world.now();
            for (_, id) in late.into_iter().filter(|(at, _)| *at <= now) {
                self.tell(index, id, |told| told.is_late = true);
            }
            self.run(index);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(Arrival::Datagram { from, to, datagram }) => {
                let Some(index) = self.host_at(to) else { return };
                if let Some(host) = &mut self.hosts[index] {
                    host.endpoint.arrive(from, datagram);
                }
                self.run(index);
            }
            Event::Arrival(Arrival::Unreachable { to, about }) => {
                let Some(index) = self.host_at(to) else { return };
                if let Some(host) = &mut self.hosts[index] {
                    host.endpoint.arrive_problem(about, NetworkProblem::PortUnreachable);
                }
                self.run(index);
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
            Event::GiveUp(id) => {
                let Some(index) = self.plan.call(id).map(|call| call.client) else { return };
                self.tell(index, id, |told| told.is_given_up = true);
                self.run(index);
            }
            Event::Wake(WakeKey { id, life, is_client: true }) => {
                let Some(index) = self.plan.call(id).map(|call| call.client) else { return };
                if self.hosts[index].as_ref().is_some_and(|host| host.life == life) {
                    self.tell(index, id, |told| told.is_awake = true);
                    self.run(index);
                }
            }
            Event::Wake(key) => {
                if let Some((index, call)) = self.sleeping.remove(&key)
                    && let Some(host) = self.hosts[index].as_mut().filter(|it| it.life == key.life)
                {
                    host.awake.push(call);
                    host.endpoint.wake_user(User::Service(call));
                    self.run(index);
                }
            }
        }
    }

    fn host_at(&self, at: std::net::SocketAddr) -> Option<HostIndex> {
        self.plan.hosts().find(|index| self.plan.address(*index) == at)
    }

    /// Everybody who has something to do has turns, until nobody has.
    pub(super) fn run(&mut self, index: HostIndex) {
        loop {
            let now = self.world.instant();
            let Some(host) = &mut self.hosts[index] else { return };
            let user = host.endpoint.next_turn(now);
            for SentDatagram { to, datagram, may_fragment } in host.endpoint.take_sent_datagrams() {
                let from = self.plan.address(index);
                self.world.send(from, host.life, to, datagram.into(), may_fragment);
            }
            self.hand_over(index);
            match user {
                Some(User::Caller(id)) => self.caller_turn(index, id),
                Some(User::Service(at)) => self.service_turn(index, at),
                None => return,
            }
        }
    }

    /// What users were told, for their turns.
    fn hand_over(&mut self, index: HostIndex) {
        let Some(host) = &mut self.hosts[index] else { return };
        host.endpoint.take_events();
        for (id, route) in host.endpoint.take_connected() {
            if let Some(call) = host.calls.get_mut(&id) {
                call.told.connection = Some(route);
            }
        }
        for (token, at) in host.endpoint.take_started() {
            if let Some(id) = host.by_token.remove(&token)
                && let Some(call) = host.calls.get_mut(&id)
            {
                call.told.opened = Some(at);
                host.by_call.insert(at, id);
            }
        }
        for token in host.endpoint.take_returned() {
            if let Some(id) = host.by_token.remove(&token)
                && let Some(call) = host.calls.get_mut(&id)
            {
                call.told.is_returned = true;
            }
        }
        for (token, failure) in host.endpoint.take_refused() {
            if let Some(id) = host.by_token.remove(&token)
                && let Some(call) = host.calls.get_mut(&id)
            {
                call.told.end = Some(ClientEnd::Failed(failure));
            }
        }
        for (at, notice) in host.endpoint.take_notices() {
            if !self.plan.is_client(index) {
                if let Notice::Incoming(incoming) = &notice {
                    self.book.service_began(index);
                    host.serving.insert(at, Serving::new(incoming.credit));
                } else if let Some(serving) = host.serving.get_mut(&at) {
                    serving.tell(notice);
                }
                continue;
            }
            let Some(id) = host.by_call.get(&at) else { continue };
            let Some(call) = host.calls.get_mut(id) else { continue };
            match (&mut call.stream, notice) {
                (Some(stream), notice) => stream.tell(notice),
                (None, Notice::Data(pieces)) => {
                    pieces.iter().for_each(|piece| call.reply.extend_from_slice(piece));
                }
                (None, Notice::End) => call.told.end = Some(ClientEnd::Good),
                (None, Notice::Failed(failure)) => {
                    call.told.end = Some(ClientEnd::Failed(failure));
                }
                _ => {}
            }
        }
    }

    fn service_turn(&mut self, index: HostIndex, at: CallRef) {
        let now = self.world.now();
        let Some(host) = &mut self.hosts[index] else { return };
        let slept = host.awake.iter().position(|it| *it == at);
        let is_awake = slept.map(|slept| host.awake.swap_remove(slept)).is_some();
        let Some(serving) = host.serving.get_mut(&at) else { return };
        let life = host.life;
        let wish = serving.poll(&self.book, index, life, is_awake);
        let mut commands = serving.take_commands();
        // The end of a call that is let go of is the last word of its link, whose place has been given back by then.
        let is_let_go = matches!((&wish, commands.last()), (Wish::Over, Some(Command::End)));
        let last = if is_let_go { commands.pop() } else { None };
        for command in commands {
            host.endpoint.say(at, command);
        }
        match wish {
            Wish::Wait => {}
            Wish::Sleep(id, time) => {
                let key = WakeKey { id, life, is_client: false };
                self.agenda.wake_at(now + time, key);
                self.sleeping.insert(key, (index, at));
            }
            Wish::Over => {
                host.serving.remove(&at);
                host.endpoint.let_go(at);
                if let Some(last) = last {
                    host.endpoint.say(at, last);
                }
                self.book.service_ended(index, life);
            }
        }
    }
}
