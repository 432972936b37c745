//! How one thing that happens leads from one world to the next.
//!
//! It all happens at one instant: a timer that runs may be due next, whatever it was set to. See
//! docs/exploration.md.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::channel::exploring::Timer;
use rxrpc::proto::channel::{
    Channel, ChannelMemory, ChannelOutput, ChannelSetup, Notice, Security, Start,
};
use rxrpc::proto::config::CallConfig;
use rxrpc::proto::path::PathSize;
use rxrpc::proto::peer::{Peer, PeerHint};
use rxrpc::proto::{CallTag, DropReason, Event, Role, SerialCounter};
use rxrpc::wire::{
    CallNumber, ChannelIndex, Cid, Epoch, Header, PacketType, SecurityIndex, ServiceId,
};

use crate::alike::next_serial;
use crate::apps::{self, Call, End, Word};
use crate::bounds::{Bounds, Flaw};
use crate::flaws::is_ack;
use crate::kept::Kept;
use crate::rules::{self, Obligations, Rule};
use crate::story::Story;
use crate::world::{Action, Flight, Host, Left, World};

/// What leads from one world to the next.
#[derive(Debug)]
pub struct Physics {
    pub bounds: Bounds,
    /// The one instant.
    pub now: Instant,
    config: Arc<CallConfig>,
    /// Whether serials are numbered anew; not where a story is told.
    pub renumbers: bool,
    pub kept: Kept,
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
        Physics { bounds, now, config: Arc::new(config), renumbers: true, kept: Kept::default() }
    }

    /// The same with the serials as they are.
    pub fn telling(&self) -> Physics {
        let (bounds, config) = (self.bounds.clone(), self.config.clone());
        Physics { bounds, now: self.now, config, renumbers: false, kept: Kept::default() }
    }

    /// Nothing has happened.
    pub fn beginning(&self) -> World {
        let Bounds { losses, repeats, resends, pings, aborts, deaths, .. } = self.bounds;
        let mut world = World {
            client: Arc::new(self.new_host(Role::Client)),
            server: Arc::new(self.new_host(Role::Server)),
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
        let hint = PeerHint { path: PathSize::new(29), ..PeerHint::default() };
        Host {
            channel: Arc::new(self.new_channel(role, hint, ChannelMemory::default())),
            hint,
            obligations: Obligations::default(),
            serials: None,
            fingerprint: 0,
        }
    }

    pub fn new_channel(&self, role: Role, hint: PeerHint, memory: ChannelMemory) -> Channel {
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
            hint: hint.into(),
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
        (is_free && !(self.bounds.has(Flaw::ClientAcksFirst) && owes)).then_some(next)
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
                if self.bounds.has(Flaw::AcksLeaveLate) {
                    let (client, window) = (next.host_mut(Role::Client), self.bounds.window);
                    let rule = client.obligations.send(&flight.datagram, CallNumber(0), window);
                    next.break_rule(rule);
                    self.leave(&mut next, Role::Client, flight.datagram, story);
                } else {
                    self.receive(&mut next, &flight, story);
                }
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
        let resends = timer == Timer::Retransmit;
        self.drive_for(world, role, story, resends, |channel, out| {
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

    /// One step of a channel, with all that comes of it.
    pub fn drive(
        &self,
        world: &mut World,
        role: Role,
        story: &mut Story,
        step: impl FnOnce(&mut Channel, &mut ChannelOutput),
    ) {
        self.drive_for(world, role, story, false, step);
    }

    /// The same; `resends` = by the retransmission timer.
    fn drive_for(
        &self,
        world: &mut World,
        role: Role,
        story: &mut Story,
        resends: bool,
        step: impl FnOnce(&mut Channel, &mut ChannelOutput),
    ) {
        let host = world.host(role);
        let mut channel = host.channel.fork();
        let before = (channel.call_number(), channel.state());
        let mut serial = next_serial(&mut channel);
        let mut out = ChannelOutput::default();
        step(&mut channel, &mut out);
        if self.bounds.has(Flaw::NoRetransmission) && role == Role::Server {
            channel.forget_retransmission();
        }
        self.reorder(role, &mut out.notices);
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
            let is_right = self.bounds.flaws.is_empty();
            let wrong =
                if is_right { None } else { Some(self.misspeak(world, role, resends, datagram)) };
            let datagram = match &wrong {
                None => datagram,
                Some(Some(datagram)) => datagram,
                Some(None) => continue,
            };
            let kept = self.kept.datagram(datagram);
            if self.bounds.has(Flaw::AcksLeaveLate) && role == Role::Client && is_ack(datagram) {
                world.parked.push(Flight { to: Role::Server, datagram: kept });
                continue;
            }
            let window = self.bounds.window;
            let rule = rules::state_follows(role, datagram, &channel)
                .or(world.host_mut(role).obligations.send(datagram, before.0, window))
                .or_else(|| self.judge_busy(world, datagram));
            world.break_rule(rule);
            world.break_rule(rules::serial_grows(&mut serial, datagram));
            self.leave(world, role, kept, story);
        }
        world.break_rule(rules::has_timer(&channel));
        let mut peer = Peer::new(self.now);
        let host = world.host_mut(role);
        peer.hint = host.hint;
        peer.learn(self.now, &out.peer, self.config.reach_ttl, self.config.dead_timeout);
        host.hint = peer.hint;
        host.replace(channel);
    }

    /// A datagram gets into the network.
    fn leave(&self, world: &mut World, role: Role, datagram: Arc<[u8]>, story: &mut Story) {
        story.sent(role, &datagram);
        let to = if role == Role::Client { Role::Server } else { Role::Client };
        world.net.push(Flight { to, datagram });
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
