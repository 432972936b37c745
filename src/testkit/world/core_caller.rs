//! Who calls at a bare core, step by step: what `client/connection.rs` does for users of actors, and
//! [`super::tree`] as a user of it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::agenda::WakeKey;
use super::book::ClientEnd;
use super::core::Cores;
use super::core_stream::{StreamWish, Streaming};
use super::plan::{HostIndex, SERVICE};
use super::secured;
use crate::proto::CallFailure;
use crate::proto::channel::{Command, Start};
use crate::proto::router::RouteId;
use crate::testkit::inline::{Asked, Connecting, User};
use crate::testkit::{CallRef, StartToken};
use crate::wire::{ChannelIndex, ServiceId};

/// Tries of one call with connections that turn out to be closed.
const TRIES_MAX: u32 = 4;

/// A server, and the call that has its connection for itself.
pub(super) type BundleKey = (HostIndex, Option<u32>);

/// A client's call under way.
pub(super) struct ClientCall {
    pub bundle: BundleKey,
    pub began: Duration,
    pub stage: Stage,
    pub slot: Option<(usize, ChannelIndex)>,
    pub tries: u32,
    pub reply: Vec<u8>,
    pub stream: Option<Streaming>,
    pub told: Told,
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Nothing: it has just been made.
    New,
    /// A connection of its own.
    Alone,
    /// A place among the calls of its bundle.
    Queued,
    /// The connection of its place, which another opens.
    Opening,
    /// The same, which it has asked for itself.
    Connecting,
    /// A channel, or all of the reply.
    Asked(RouteId, Asked, StartToken),
    /// Words of its channel: it is streamed.
    Running(CallRef),
}

/// What a caller was told, and has not looked at.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub has_place: bool,
    pub is_late: bool,
    pub is_given_up: bool,
    pub is_awake: bool,
    pub connection: Option<RouteId>,
    pub opened: Option<CallRef>,
    pub is_returned: bool,
    pub end: Option<ClientEnd>,
}

#[derive(Default)]
pub(super) struct Slot {
    /// Channels that calls have been sent to, or will be.
    pub taken: [bool; ChannelIndex::COUNT],
    pub route: Option<RouteId>,
    pub is_opening: bool,
    /// Calls that wait for the connection.
    pub waiting: VecDeque<u32>,
}

/// The connections of a client to one server.
pub(super) struct Bundle {
    pub slots: Vec<Slot>,
    pub places: usize,
    pub queue: VecDeque<u32>,
}

impl Cores {
    pub(super) fn begin(&mut self, id: u32) {
        let plan = self.plan.clone();
        let Some(call) = plan.call(id) else { return };
        let Some(host) = &mut self.hosts[call.client] else {
            return self.book.never_begins(id);
        };
        self.book.client_began(id);
        let record = ClientCall {
            bundle: (call.server, call.exclusive.then_some(id)),
            began: self.world.now(),
            stage: Stage::New,
            slot: None,
            tries: 0,
            reply: Vec::new(),
            stream: call.streamed.map(|streamed| Streaming::new(call, streamed)),
            told: Told::default(),
        };
        host.calls.insert(id, record);
        host.endpoint.wake_user(User::Caller(id));
        self.run(call.client);
    }

    /// Says something to a caller.
    pub(super) fn tell(&mut self, index: HostIndex, id: u32, say: impl FnOnce(&mut Told)) {
        if let Some(host) = &mut self.hosts[index]
            && let Some(call) = host.calls.get_mut(&id)
        {
            say(&mut call.told);
            host.endpoint.wake_user(User::Caller(id));
        }
    }

    /// A caller goes on as far as it can.
    pub(super) fn caller_turn(&mut self, index: HostIndex, id: u32) {
        let Some(call) = self.call_mut(index, id) else { return };
        match call.stage {
            Stage::New if call.bundle.1.is_some() => {
                call.stage = Stage::Alone;
                self.ask_to_connect(index, id);
            }
            Stage::New => self.ask_for_place(index, id),
            Stage::Alone => {
                let Some(route) = call.told.connection.take() else { return };
                let key = call.bundle;
                let slots = vec![Slot { route: Some(route), ..Slot::default() }];
                let bundle = Bundle { slots, places: ChannelIndex::COUNT, queue: VecDeque::new() };
                if let Some(host) = &mut self.hosts[index] {
                    host.bundles.insert(key, bundle);
                }
                self.ask_for_place(index, id);
            }
            Stage::Queued if call.told.has_place => self.take_place(index, id),
            Stage::Queued if call.told.is_late => {
                self.end(index, id, ClientEnd::Failed(CallFailure::Deadline(Duration::ZERO)));
            }
            Stage::Opening => self.find_connection(index, id),
            Stage::Connecting => {
                let Some(route) = call.told.connection.take() else { return };
                let Some(slot) = self.slot_mut(index, id) else { return };
                (slot.route, slot.is_opening) = (Some(route), false);
                let next = slot.waiting.pop_front();
                if let (Some(next), Some(host)) = (next, &mut self.hosts[index]) {
                    host.endpoint.wake_user(User::Caller(next));
                }
                self.start_call(index, id, route, Asked::Channel);
            }
            Stage::Asked(route, asked, _) => {
                if let Some(end) = call.told.end.take() {
                    return self.end(index, id, end);
                }
                if std::mem::take(&mut call.told.is_returned) {
                    return match asked {
                        Asked::Channel => self.start_call(index, id, route, Asked::Connection),
                        Asked::Connection => self.try_another(index, id, route),
                    };
                }
                if call.stream.is_some()
                    && let Some(at) = call.told.opened
                {
                    call.stage = Stage::Running(at);
                    return self.stream(index, id, at);
                }
                if call.told.is_given_up {
                    self.give_up(index, id);
                }
            }
            Stage::Running(at) => self.stream(index, id, at),
            Stage::Queued if call.told.is_given_up => self.give_up(index, id),
            Stage::Queued => {}
        }
    }

    fn call_mut(&mut self, index: HostIndex, id: u32) -> Option<&mut ClientCall> {
        self.hosts[index].as_mut()?.calls.get_mut(&id)
    }

    fn slot_mut(&mut self, index: HostIndex, id: u32) -> Option<&mut Slot> {
        let host = self.hosts[index].as_mut()?;
        let call = host.calls.get(&id)?;
        host.bundles.get_mut(&call.bundle)?.slots.get_mut(call.slot?.0)
    }

    fn ask_to_connect(&mut self, index: HostIndex, id: u32) {
        let Some(planned) = self.plan.call(id) else { return };
        let connecting = Connecting {
            user: id,
            peer: self.plan.address(planned.server),
            service_id: ServiceId(SERVICE),
            class: secured::client_class(self.plan.security),
            asks_upgrade: self.plan.upgrades,
        };
        if let Some(host) = &mut self.hosts[index] {
            host.endpoint.ask_to_connect(connecting);
        }
    }

    fn ask_for_place(&mut self, index: HostIndex, id: u32) {
        let has_deadline = self.plan.call(id).is_some_and(|call| call.deadline.is_some());
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let Some(bundle) = host.bundles.get_mut(&call.bundle) else { return };
        if bundle.places > 0 {
            bundle.places -= 1;
            return self.take_place(index, id);
        }
        call.stage = Stage::Queued;
        bundle.queue.push_back(id);
        if has_deadline {
            // Who waits with a deadline has the endpoint watch the time.
            host.endpoint.wake_endpoint();
        }
    }

    fn take_place(&mut self, index: HostIndex, id: u32) {
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let Some(bundle) = host.bundles.get_mut(&call.bundle) else { return };
        let free = |slot: &Slot| slot.taken.iter().position(|taken| !taken);
        let mut free = bundle.slots.iter().map(free).enumerate();
        let Some((slot, channel)) = free.find_map(|(slot, free)| Some((slot, free?))) else {
            return;
        };
        bundle.slots[slot].taken[channel] = true;
        call.slot = Some((slot, ChannelIndex::ALL[channel]));
        self.find_connection(index, id);
    }

    fn find_connection(&mut self, index: HostIndex, id: u32) {
        let Some(slot) = self.slot_mut(index, id) else { return };
        if let Some(route) = slot.route {
            let next = slot.waiting.pop_front();
            if let (Some(next), Some(host)) = (next, &mut self.hosts[index]) {
                host.endpoint.wake_user(User::Caller(next));
            }
            return self.start_call(index, id, route, Asked::Channel);
        }
        let stage = if slot.is_opening {
            slot.waiting.push_back(id);
            Stage::Opening
        } else {
            slot.is_opening = true;
            self.ask_to_connect(index, id);
            Stage::Connecting
        };
        if let Some(call) = self.call_mut(index, id) {
            call.stage = stage;
        }
    }

    fn start_call(&mut self, index: HostIndex, id: u32, route: RouteId, asked: Asked) {
        let plan = self.plan.clone();
        let Some(planned) = plan.call(id) else { return };
        let (now, instant) = (self.world.now(), self.world.instant());
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let passed = now - call.began;
        let left = planned.deadline.map(|deadline| deadline.saturating_sub(passed));
        if left == Some(Duration::ZERO) {
            let failure = CallFailure::Deadline(planned.deadline.unwrap_or_default());
            return self.end(index, id, ClientEnd::Failed(failure));
        }
        call.tries += u32::from(matches!(asked, Asked::Channel));
        let Some((_, channel)) = call.slot else { return };
        let request = match call.stream {
            Some(_) => Bytes::new(),
            None => planned.request().into(),
        };
        let is_whole = call.stream.is_none();
        let start = Start { request, is_whole, deadline: left, ..Start::default() };
        let token = host.endpoint.ask_to_start(instant, (route, channel), asked, id, start);
        call.stage = Stage::Asked(route, asked, token);
        host.by_token.insert(token, id);
    }

    /// The connection takes no calls any more: the call tries another.
    fn try_another(&mut self, index: HostIndex, id: u32, closed: RouteId) {
        let Some(slot) = self.slot_mut(index, id) else { return };
        if slot.route == Some(closed) {
            slot.route = None;
        }
        if self.call_mut(index, id).is_some_and(|call| call.tries >= TRIES_MAX) {
            return self.end(index, id, ClientEnd::Failed(CallFailure::Closed));
        }
        self.find_connection(index, id);
    }

    fn give_up(&mut self, index: HostIndex, id: u32) {
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get(&id) else { return };
        match call.stage {
            Stage::Asked(route, asked, token) => {
                if let Some((_, channel)) = call.slot {
                    host.endpoint.ask_to_cancel((route, channel), asked, token);
                }
            }
            Stage::Running(at) => host.endpoint.say(at, Command::End),
            _ => {}
        }
        self.end(index, id, ClientEnd::GivenUp);
    }

    /// The user of a streamed call goes on.
    fn stream(&mut self, index: HostIndex, id: u32, at: CallRef) {
        let now = self.world.now();
        let Some(host) = &mut self.hosts[index] else { return };
        let Some(call) = host.calls.get_mut(&id) else { return };
        let Some(stream) = &mut call.stream else { return };
        let wish = stream.poll(std::mem::take(&mut call.told.is_awake));
        for command in stream.take_commands() {
            host.endpoint.say(at, command);
        }
        match wish {
            StreamWish::Over(end) => {
                call.reply = std::mem::take(&mut stream.reply);
                return self.end(index, id, end);
            }
            StreamWish::Sleep(time) => {
                let key = WakeKey { id, life: host.life, is_client: true };
                self.agenda.wake_at(now + time, key);
            }
            StreamWish::Wait => {}
        }
        if call.told.is_given_up {
            self.give_up(index, id);
        }
    }

    /// A client's call is over: its place goes to the next.
    fn end(&mut self, index: HostIndex, id: u32, end: ClientEnd) {
        let Some(host) = &mut self.hosts[index] else { return };
        let life = host.life;
        let Some(call) = host.calls.remove(&id) else { return };
        if let Some(at) = call.told.opened {
            host.by_call.remove(&at);
        }
        let asked = self.plan.call(id).and_then(|call| call.deadline);
        let end = match (end, asked) {
            (ClientEnd::Failed(CallFailure::Deadline(_)), Some(asked)) => {
                ClientEnd::Failed(CallFailure::Deadline(asked))
            }
            _ => end,
        };
        let Some(bundle) = host.bundles.get_mut(&call.bundle) else { return };
        if let Some(slot) = call.slot {
            bundle.slots[slot.0].taken[slot.1.index()] = false;
        }
        if call.slot.is_none() && !call.told.has_place {
            bundle.queue.retain(|waiting| *waiting != id);
        } else if let Some(next) = bundle.queue.pop_front() {
            if let Some(next) = host.calls.get_mut(&next) {
                next.told.has_place = true;
            }
            host.endpoint.wake_user(User::Caller(next));
        } else {
            bundle.places += 1;
        }
        if call.bundle.1.is_some()
            && let Some(bundle) = host.bundles.remove(&call.bundle)
        {
            for route in bundle.slots.iter().filter_map(|slot| slot.route) {
                host.endpoint.ask_to_close(route);
            }
        }
        let reply = if end == ClientEnd::Good { &call.reply[..] } else { &[] };
        self.book.client_ended(index, life, id, end, reply);
    }
}
