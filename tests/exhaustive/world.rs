//! One state of everything: two channels of the real core, the network between them, their applications,
//! and what may still go wrong; and how one thing that happens leads from one state to the next.
//!
//! It all happens at one instant: a timer that runs may be due next, whatever it was set to. Serials are
//! numbered anew after each step, in their order. See docs/exploration.md.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::FixedState;
use rxrpc::proto::channel::exploring::{Timer, settle_hint};
use rxrpc::proto::channel::{
    Channel, ChannelMemory, ChannelOutput, ChannelSetup, Notice, Run, Security, Start,
};
use rxrpc::proto::config::CallConfig;
use rxrpc::proto::peer::{Peer, PeerHint};
use rxrpc::proto::{CallState, CallTag, DropReason, Event, Role, SerialCounter};
use rxrpc::wire::{
    CallNumber, ChannelIndex, Cid, Epoch, Flags, HEADER_LEN, Header, PacketType, SecurityIndex,
    Serial, ServiceId,
};

use crate::apps::{self, Call, End, Word};
use crate::bounds::Bounds;
use crate::rules::{self, Obligations, Rule};
use crate::story::Story;

/// Most calls of a search.
pub const CALLS_MAX: usize = 3;
/// Where a datagram has its serial and type, and an ACK the serial that it is about.
const SERIAL_AT: usize = 16;
const TYPE_AT: usize = 20;
const ACK_SERIAL_AT: usize = HEADER_LEN + 12;

/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// This datagram of the network arrives.
    Deliver(usize),
    /// It arrives, and will arrive again.
    Repeat(usize),
    /// These two arrive as one run.
    Together(usize, usize),
    /// It is lost.
    Lose(usize),
    /// The ACK at the head of the queue that should not be there is looked at.
    Unpark,
    /// A timer is due and served.
    Fire(Role, Timer),
    /// The delayed ACK is due, and something else comes first.
    Lapse(Role),
    /// An application of this call does something.
    Say(Role, usize, Word),
}

/// A datagram in the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    pub to: Role,
    pub datagram: Arc<[u8]>,
}

/// One end of the channel.
#[derive(Clone, Debug)]
pub struct Host {
    pub channel: Arc<Channel>,
    /// What its endpoint remembers of the other.
    hint: PeerHint,
    obligations: Obligations,
    /// The serials that the channel keeps, once they are numbered anew; none since it changed.
    serials: Option<Arc<[(Role, Serial)]>>,
    fingerprint: u64,
}

impl Host {
    fn replace(&mut self, channel: Channel) {
        self.channel = Arc::new(channel);
        (self.serials, self.fingerprint) = (None, 0);
    }
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub losses: u8,
    pub repeats: u8,
    pub resends: u8,
    pub pings: u8,
    pub aborts: u8,
    pub deaths: u8,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct World {
    pub client: Host,
    pub server: Host,
    /// By receiver, then by serial.
    pub net: Vec<Flight>,
    /// ACKs that wait elsewhere, in a server that is broken so.
    pub parked: Vec<Flight>,
    pub calls: [Call; CALLS_MAX],
    pub left: Left,
    pub broken: Option<Rule>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.fingerprint(), self.left).hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.fingerprint() == other.fingerprint() && self.left == other.left
    }
}

impl World {
    /// All but what may still go wrong.
    pub fn fingerprint(&self) -> u64 {
        let hosts = (self.client.fingerprint, self.server.fingerprint);
        fingerprint(&(hosts, &self.net, &self.parked, &self.calls, self.broken))
    }

    pub fn host(&self, role: Role) -> &Host {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    fn host_mut(&mut self, role: Role) -> &mut Host {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn break_rule(&mut self, rule: Option<Rule>) {
        self.broken = self.broken.or(rule);
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    use std::hash::BuildHasher;
    FixedState::with_seed(0x5eed).hash_one(value)
}

/// What leads from one world to the next.
#[derive(Debug)]
pub struct Physics {
    pub bounds: Bounds,
    /// The one instant.
    now: Instant,
    config: Arc<CallConfig>,
    /// Whether serials are numbered anew; not where a story is told.
    renumbers: bool,
}

impl Physics {
    pub fn new(bounds: Bounds) -> Physics {
        let window = bounds.window;
        let config = CallConfig {
            receive_window_initial_packets: window,
            receive_window_max_packets: window,
            send_window_initial_packets: window,
            send_window_max_packets: window.max(4),
            takeover: bounds.takeover,
            abort_interval: Duration::ZERO,
            ..CallConfig::default()
        };
        // Timers that are due are set into the past.
        let now = Instant::now() + Duration::from_secs(86_400);
        Physics { bounds, now, config: Arc::new(config), renumbers: true }
    }

    /// The same with the serials as they are.
    pub fn telling(&self) -> Physics {
        let (bounds, config) = (self.bounds.clone(), self.config.clone());
        Physics { bounds, now: self.now, config, renumbers: false }
    }

    /// Nothing has happened.
    pub fn beginning(&self) -> World {
        let Bounds { losses, repeats, resends, pings, aborts, deaths, .. } = self.bounds;
        let mut world = World {
            client: self.new_host(Role::Client),
            server: self.new_host(Role::Server),
            net: Vec::new(),
            parked: Vec::new(),
            calls: Default::default(),
            left: Left { losses, repeats, resends, pings, aborts, deaths },
            broken: None,
        };
        self.settle(&mut world);
        world
    }

    fn new_host(&self, role: Role) -> Host {
        // One byte a packet.
        let hint = PeerHint { payload_max: 1, path_max: 1, ..PeerHint::default() };
        Host {
            channel: Arc::new(self.new_channel(role, hint, ChannelMemory::default())),
            hint,
            obligations: Obligations::default(),
            serials: None,
            fingerprint: 0,
        }
    }

    fn new_channel(&self, role: Role, hint: PeerHint, memory: ChannelMemory) -> Channel {
        let setup = ChannelSetup {
            role,
            epoch: Epoch(0x8000_0001),
            cid: Cid(4),
            index: ChannelIndex::ALL[0],
            security_index: SecurityIndex::NULL,
            service_id: ServiceId(1),
            config: self.config.clone(),
            serials: SerialCounter::new(),
            security: Security::Ready(None),
            needs_reach: self.bounds.reach && role == Role::Server,
            hint,
            memory,
        };
        Channel::new(setup, self.now)
    }

    /// The call that the client may begin.
    pub fn next_call(&self, world: &World) -> Option<usize> {
        let calls = &world.calls[..self.bounds.calls.len()];
        let next = calls.iter().position(|call| call.client.tag.is_none())?;
        let is_free = next == 0 || calls[next - 1].client.end.is_some();
        let owes = world.client.channel.timer(Timer::FinalAck).is_some();
        (is_free && !(self.bounds.broken.client_acks_first && owes)).then_some(next)
    }

    pub fn is_due(&self, at: Instant) -> bool {
        at <= self.now
    }

    /// What follows.
    pub fn step(&self, world: &World, action: Action, story: &mut Story) -> World {
        let mut next = world.clone();
        story.act(world, action);
        match action {
            Action::Deliver(index) => {
                let flight = next.net.remove(index);
                self.arrive(&mut next, flight, story);
            }
            Action::Repeat(index) => {
                next.left.repeats -= 1;
                let flight = next.net[index].clone();
                self.arrive(&mut next, flight, story);
            }
            Action::Together(first, second) => {
                self.arrive_together(&mut next, first, second, story)
            }
            Action::Lose(index) => {
                next.left.losses -= 1;
                next.net.remove(index);
            }
            Action::Unpark => {
                let flight = next.parked.remove(0);
                self.receive(&mut next, &flight, story);
            }
            Action::Fire(role, timer) => self.fire(&mut next, role, timer, story),
            Action::Lapse(role) => {
                let mut channel = next.host(role).channel.fork();
                channel.lapse(self.now, Timer::DelayedAck);
                next.host_mut(role).replace(channel);
            }
            Action::Say(role, call, word) => self.say(&mut next, role, call, word, story),
        }
        self.settle(&mut next);
        next
    }

    fn fire(&self, world: &mut World, role: Role, timer: Timer, story: &mut Story) {
        let left = &mut world.left;
        match timer {
            Timer::Retransmit => left.resends = left.resends.saturating_sub(1),
            Timer::Ping | Timer::ReachPing => left.pings = left.pings.saturating_sub(1),
            Timer::Dead => {
                left.deaths = left.deaths.saturating_sub(1);
                let number = world.host(role).channel.call_number().0;
                let mut calls = world.calls.iter_mut();
                calls.find(|call| call.number == number).into_iter().for_each(Call::excuse);
            }
            _ => {}
        }
        self.drive(world, role, story, |channel, out| {
            channel.lapse(self.now, timer);
            channel.handle_deadline(self.now, out);
        });
    }

    fn say(&self, world: &mut World, role: Role, index: usize, word: Word, story: &mut Story) {
        let shape = self.bounds.calls[index];
        if word == Word::Start {
            let call = &mut world.calls[index];
            let (request, is_whole) = if shape.is_piecewise {
                (Bytes::new(), false)
            } else {
                apps::write(call, index, role, shape)
            };
            let tag = CallTag(world.client.channel.tag().0 + 1);
            call.client.tag = Some(tag);
            let start = Start { request, is_whole, ..Start::default() };
            return self.drive(world, role, story, |channel, out| {
                channel.handle_start(self.now, start, out);
            });
        }
        if word == Word::Abort {
            world.left.aborts -= 1;
        }
        let call = &mut world.calls[index];
        let Some(tag) = call.side(role).tag else { unreachable!("no call to speak of") };
        let ends = word == Word::End;
        let command = apps::command(call, index, role, word, shape);
        self.drive(world, role, story, |channel, out| {
            channel.handle_command(self.now, tag, command, out);
        });
        if ends {
            let rule = apps::client_ends(&mut world.calls[index]);
            world.break_rule(rule);
        }
    }

    /// A datagram has reached its host.
    fn arrive(&self, world: &mut World, flight: Flight, story: &mut Story) {
        let is_ack = Header::decode(&flight.datagram)
            .is_some_and(|header| header.packet_type == PacketType::Ack);
        if self.bounds.broken.ack_queue && flight.to == Role::Server && is_ack {
            world.parked.push(flight);
        } else {
            self.receive(world, &flight, story);
        }
    }

    /// A host looks at a datagram.
    fn receive(&self, world: &mut World, flight: &Flight, story: &mut Story) {
        let Some(mut header) = Header::decode(&flight.datagram) else {
            return world.break_rule(Some(Rule::HonestPacketRefused));
        };
        let role = flight.to;
        let mut datagram = flight.datagram.to_vec();
        if role == Role::Server {
            if self.bounds.broken.no_implicit_end && self.is_refused(&world.server, &header) {
                return self.refuse(world, header, story);
            }
            if self.bounds.broken.no_number_check {
                self.forget_numbers(&mut world.server, &mut header);
                datagram[..HEADER_LEN].copy_from_slice(&header.encode());
            }
        }
        let host = world.host_mut(role);
        host.obligations.receive(&datagram);
        let hint = host.hint;
        let is_old = header.call_number < host.channel.call_number();
        let nothing = is_old.then(|| self.after_nothing(host));
        let run = Run { stride: datagram.len(), data: Bytes::from(datagram) };
        let mut acts = false;
        self.drive(world, role, story, |channel, out| {
            channel.handle_run(self.now, &hint, &run, out);
            acts = nothing.is_some_and(|nothing| nothing != outcome(channel, out));
        });
        world.break_rule(acts.then_some(Rule::OldPacketActs));
    }

    /// Two datagrams as one run: the channel answers once.
    fn arrive_together(&self, world: &mut World, first: usize, second: usize, story: &mut Story) {
        let flights = [first, second].map(|index| world.net[index].clone());
        world.net.remove(first.max(second));
        world.net.remove(first.min(second));
        let host = world.host_mut(flights[0].to);
        flights.iter().for_each(|flight| host.obligations.receive(&flight.datagram));
        let (hint, stride) = (host.hint, flights[0].datagram.len());
        let data = flights.iter().flat_map(|flight| flight.datagram.iter().copied()).collect();
        self.drive(world, flights[0].to, story, |channel, out| {
            channel.handle_run(self.now, &hint, &Run { data, stride }, out);
        });
    }

    /// What becomes of a channel to which a run without packets comes.
    fn after_nothing(&self, host: &Host) -> (u64, usize, usize) {
        let mut channel = host.channel.fork();
        let mut out = ChannelOutput::default();
        let run = Run { data: Bytes::new(), stride: 1 };
        channel.handle_run(self.now, &host.hint, &run, &mut out);
        outcome(&channel, &out)
    }

    /// Without the implicit end, a call that waits for its final ACK keeps the next one out.
    fn is_refused(&self, server: &Host, header: &Header) -> bool {
        header.packet_type == PacketType::Data
            && header.call_number > server.channel.call_number()
            && server.channel.state() == Some(CallState::ServerAwaitAck)
    }

    fn refuse(&self, world: &mut World, header: Header, story: &mut Story) {
        self.drive(world, Role::Server, story, |channel, out| {
            let (packet_type, serial) = (PacketType::Busy, next_serial(channel));
            let (flags, seq) = (Flags::NONE, Default::default());
            let busy = Header { packet_type, serial, flags, seq, ..header };
            out.datagrams.push(&busy, &[]);
        });
    }

    /// Without the check of call numbers, a packet belongs to the present call, or begins one.
    fn forget_numbers(&self, server: &mut Host, header: &mut Header) {
        let channel = &server.channel;
        if channel.state().is_some() {
            header.call_number = channel.call_number();
        } else if header.packet_type == PacketType::Data {
            let last = CallNumber(header.call_number.0 - 1);
            let memory = ChannelMemory { last, tag: channel.tag(), ..ChannelMemory::default() };
            let mut forgetful = self.new_channel(Role::Server, server.hint, memory);
            let next = next_serial(&mut channel.fork());
            let mut is_first = true;
            forgetful.each_serial(&mut |_, serial| {
                if std::mem::take(&mut is_first) {
                    *serial = next;
                }
            });
            server.replace(forgetful);
        }
    }

    /// One step of a channel, with all that comes of it.
    fn drive(
        &self,
        world: &mut World,
        role: Role,
        story: &mut Story,
        step: impl FnOnce(&mut Channel, &mut ChannelOutput),
    ) {
        let host = world.host(role);
        let mut channel = host.channel.fork();
        let before = (channel.call_number(), channel.state());
        let mut serial = next_serial(&mut channel);
        let mut out = ChannelOutput::default();
        step(&mut channel, &mut out);
        story.changed(role, before, &channel);
        for event in &out.events {
            world.break_rule(judge(event));
        }
        for (tag, notice) in &out.notices {
            story.told(role, *tag, notice);
            let rule = self.hear(world, role, *tag, notice);
            world.break_rule(rule);
        }
        for datagram in out.datagrams.iter() {
            story.sent(role, datagram);
            let window = self.bounds.window;
            let rule = rules::state_follows(role, datagram, &channel)
                .or(world.host_mut(role).obligations.send(datagram, before.0, window))
                .or_else(|| self.judge_busy(world, datagram));
            world.break_rule(rule);
            world.break_rule(rules::serial_grows(&mut serial, datagram));
            let to = if role == Role::Client { Role::Server } else { Role::Client };
            world.net.push(Flight { to, datagram: datagram.into() });
        }
        world.break_rule(rules::has_timer(&channel));
        let mut peer = Peer::new(self.now);
        let host = world.host_mut(role);
        peer.hint = host.hint;
        peer.learn(self.now, &out.peer, self.config.reach_ttl, self.config.dead_timeout);
        host.hint = peer.hint;
        host.replace(channel);
    }

    fn hear(&self, world: &mut World, role: Role, tag: CallTag, notice: &Notice) -> Option<Rule> {
        if let Notice::Incoming(incoming) = notice {
            let number = incoming.number.0;
            let Some(index) = world.calls.iter().position(|call| call.number == number) else {
                return Some(Rule::NobodysCall);
            };
            if world.calls[index].server.tag.is_some() {
                return Some(Rule::DeliveredTwice);
            }
            world.calls[index].server.tag = Some(tag);
            let mut earlier = world.calls[..index].iter().map(|call| call.server);
            let still_runs = earlier.any(|side| side.tag.is_some() && side.end.is_none());
            return still_runs.then_some(Rule::NextBeforeEnd);
        }
        let mut calls = world.calls.iter_mut().enumerate();
        let (index, call) = calls.find(|(_, call)| call.side(role).tag == Some(tag))?;
        apps::hear(call, index, role, notice)
    }

    /// BUSY is right only without takeover, and while the service of a call that its client gave up has not
    /// noticed (rx-calls.md 8).
    fn judge_busy(&self, world: &World, datagram: &[u8]) -> Option<Rule> {
        let header = Header::decode(datagram)?;
        if header.packet_type != PacketType::Busy {
            return None;
        }
        let works = |call: &Call| {
            call.number < header.call_number.0
                && call.client.end == Some(End::Failed)
                && call.server.tag.is_some()
                && !call.reply.closed
        };
        let is_right = !self.bounds.takeover && world.calls.iter().any(works);
        (!is_right).then_some(Rule::Busy)
    }

    /// Brings a world into the one form of all that are alike.
    fn settle(&self, world: &mut World) {
        for host in [&mut world.client, &mut world.server] {
            if host.serials.is_none() {
                self.note_serials(host);
            }
        }
        if self.renumbers {
            self.renumber(world);
        }
        world.net.sort_by_key(|flight| (flight.to as u8, serial_of(flight)));
        for host in [&mut world.client, &mut world.server] {
            settle_hint(&mut host.hint);
            if host.fingerprint == 0 {
                host.fingerprint = fingerprint(&(&*host.channel, host.hint, host.obligations));
            }
        }
    }

    fn note_serials(&self, host: &mut Host) {
        let channel = own(&mut host.channel);
        channel.settle(self.now);
        let mut serials = Vec::with_capacity(8);
        channel.each_serial(&mut |by, serial| serials.push((by, *serial)));
        host.serials = Some(serials.into());
    }

    /// Numbers each side's serials from 1, in their order. What does not change is shared with the world
    /// before.
    fn renumber(&self, world: &mut World) {
        let mut given = [vec![0], vec![0]];
        let mut note = |by: Role, serial: &mut Serial| given[by as usize].push(serial.0);
        for host in [&world.client, &world.server] {
            let serials = host.serials.iter().flat_map(|serials| serials.iter());
            serials.for_each(|(by, serial)| note(*by, &mut serial.clone()));
        }
        let World { net, parked, .. } = world;
        net.iter_mut().chain(parked).for_each(|flight| each_serial_of(flight, &mut note));
        for serials in &mut given {
            serials.sort_unstable();
            serials.dedup();
        }
        let place = |by: Role, serial: Serial| {
            Serial(given[by as usize].binary_search(&serial.0).map_or(0, |place| place as u32))
        };
        let mut change = |by: Role, serial: &mut Serial| *serial = place(by, *serial);
        let World { net, parked, client, server, .. } = world;
        net.iter_mut().chain(parked).for_each(|flight| each_serial_of(flight, &mut change));
        for host in [client, server] {
            let serials = host.serials.iter().flat_map(|serials| serials.iter());
            if serials.clone().all(|(by, serial)| place(*by, *serial) == *serial) {
                continue;
            }
            host.serials = Some(serials.map(|(by, serial)| (*by, place(*by, *serial))).collect());
            host.fingerprint = 0;
            own(&mut host.channel).each_serial(&mut change);
        }
    }
}

/// The channel, to be changed: itself if nobody else has it, else a copy.
fn own(channel: &mut Arc<Channel>) -> &mut Channel {
    if Arc::get_mut(channel).is_none() {
        *channel = Arc::new(channel.fork());
    }
    Arc::get_mut(channel).expect("a channel of our own")
}

/// What can be seen of a step.
fn outcome(channel: &Channel, out: &ChannelOutput) -> (u64, usize, usize) {
    (fingerprint(channel), out.datagrams.count(), out.notices.len())
}

/// The serial that the channel's next packet will have.
fn next_serial(channel: &mut Channel) -> Serial {
    let mut next = None;
    channel.each_serial(&mut |_, serial| {
        next.get_or_insert(*serial);
    });
    next.unwrap_or_default()
}

fn judge(event: &Event) -> Option<Rule> {
    let Event::Dropped(dropped) = event else { return None };
    let is_fair = matches!(
        dropped.reason,
        DropReason::StaleCall
            | DropReason::FutureCall
            | DropReason::CallOver
            | DropReason::StaleAck
            | DropReason::OutOfState
            | DropReason::BeyondWindow
            | DropReason::FarAhead
    );
    (!is_fair).then_some(Rule::HonestPacketRefused)
}

fn serial_of(flight: &Flight) -> u32 {
    word_at(&flight.datagram, SERIAL_AT)
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_be_bytes)
}

/// The serials of a datagram, with the side that gave each out.
fn each_serial_of(flight: &mut Flight, visit: &mut dyn FnMut(Role, &mut Serial)) {
    let (from, to) = match flight.to {
        Role::Client => (Role::Server, Role::Client),
        Role::Server => (Role::Client, Role::Server),
    };
    let is_ack = flight.datagram[TYPE_AT] == PacketType::Ack.byte();
    let places = [(SERIAL_AT, from), (ACK_SERIAL_AT, to)];
    for (at, by) in places.into_iter().take(1 + usize::from(is_ack)) {
        let before = Serial(word_at(&flight.datagram, at));
        let mut serial = before;
        visit(by, &mut serial);
        if serial != before {
            let mut datagram = flight.datagram.to_vec();
            datagram[at..at + 4].copy_from_slice(&serial.0.to_be_bytes());
            flight.datagram = datagram.into();
        }
    }
}
