//! The Connection actor: security, channels for calls that wait, expiry. DATA and ACK never pass it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actix::{Actor, ActorContext, AsyncContext, Handler};
use futures::FutureExt;

use super::channel::{Answering, Channel, ChannelGone, ChannelParts};
use super::context::Context;
use super::lifetime::{ArcAddr, Child, Children, Held, Lease};
use super::local_endpoint::{LocalEndpoint, Outbox, Target};
use super::marks::Mark;
use super::messages::{
    AskIdle, Begin, CallKey, CancelBegun, CancelCall, ChannelReplaced, ChannelSays, Close,
    ConnectionSays, Control, Drain, Draining, Due, IdleSince, Inspect, Secured, StartCall,
    VerificationDone,
};
use super::snapshot::{ConnectionSnapshot, SnapshotPart};
use super::step::spare_output;
use crate::client::port::ClientPort;
use crate::proto::CallFailure;
use crate::proto::channel::{self, ChannelMemory, ChannelSetup, Start};
use crate::proto::connection::{self, ConnectionOutput, ConnectionToChannel, WaitKey};
use crate::proto::event::Origin;
use crate::proto::peer::PeerReport;
use crate::proto::router::{Published, RouteId, Waker};
use crate::wire::{AbortCode, ChannelIndex};

/// Channels that one connection replaces before it is aborted: more would be a call that breaks us each
/// time it comes.
pub const CHANNEL_RESTARTS_MAX: u32 = 8;

/// A call that waits for a channel.
struct Work {
    key: CallKey,
    asked_at: Instant,
    start: Start,
    port: ClientPort,
}

/// See the module.
pub struct Connection {
    core: connection::Connection<Work>,
    out: ConnectionOutput<Work>,
    route: RouteId,
    origin: Origin,
    peer: std::net::SocketAddr,
    setup: ChannelSetup,
    answering: Option<Arc<Answering>>,
    wants_events: bool,
    channels: Children<Channel>,
    restarts: u32,
    /// Calls that wait, and the channels of those that run.
    waiting: HashMap<CallKey, WaitKey>,
    running: [Option<CallKey>; ChannelIndex::COUNT],
    published: Published,
    drain: Drained,
    mark: Mark,
    outbox: Outbox,
    lease: Arc<Lease<LocalEndpoint, Connection>>,
}

/// Channels that have said they are idle while the connection drains.
#[derive(Clone, Copy, Debug, Default)]
struct Drained {
    wanted: bool,
    idle: u8,
}

impl Child for Connection {
    type Key = RouteId;
    type Report = ();
}

/// What a Connection is built with.
pub(crate) struct ConnectionParts {
    pub core_setup: connection::ConnectionSetup,
    pub route: RouteId,
    pub origin: Origin,
    pub peer: std::net::SocketAddr,
    pub setup: ChannelSetup,
    pub answering: Option<Arc<Answering>>,
    pub mark: Mark,
    pub wants_events: bool,
    pub outbox: Outbox,
    pub lease: Lease<LocalEndpoint, Connection>,
}

/// The contexts of a connection and its channels, made before any of them runs, so that their addresses can
/// stand in the route table in the handler that makes the connection.
pub(crate) struct Contexts {
    connection: Context<Connection>,
    channels: [Context<Channel>; ChannelIndex::COUNT],
    /// Made once: each is three allocations.
    addresses: Target,
}

impl Contexts {
    pub fn new() -> Contexts {
        let connection = Context::new();
        let channels = [(); ChannelIndex::COUNT].map(|()| Context::new());
        let addresses = Target {
            connection: Arc::new(connection.address()),
            channels: channels.each_ref().map(|context: &Context<_>| Arc::new(context.address())),
        };
        Contexts { connection, channels, addresses }
    }

    /// Their addresses.
    pub fn addresses(&self) -> &Target {
        &self.addresses
    }

    /// Starts the connection, then its channels: their tasks run in this order.
    pub fn start(self, parts: ConnectionParts, now: Instant) {
        let Target { connection: address, channels: addresses } = self.addresses;
        let mut core = connection::Connection::new(parts.core_setup, now);
        let has_leave = core.allow_leave();
        let mut actor = Connection {
            core,
            out: ConnectionOutput::default(),
            route: parts.route,
            origin: parts.origin,
            peer: parts.peer,
            setup: parts.setup,
            answering: parts.answering,
            wants_events: parts.wants_events,
            channels: Children::default(),
            restarts: 0,
            waiting: HashMap::new(),
            running: [None; ChannelIndex::COUNT],
            published: Published::default(),
            drain: Drained::default(),
            mark: parts.mark,
            outbox: parts.outbox,
            lease: Arc::new(parts.lease),
        };
        actor.publish();
        let memory = ChannelMemory::default();
        let mut index = ChannelIndex::ALL.into_iter();
        let channels = addresses.map(|own| {
            let index = index.next()?;
            let mut channel = actor.build_channel(index, own, &address, memory, now)?;
            if has_leave {
                channel.take_leave();
            }
            Some(channel)
        });
        self.connection.run(actor);
        for (context, channel) in self.channels.into_iter().zip(channels) {
            if let Some(channel) = channel {
                context.run(channel);
            }
        }
    }
}

impl Connection {
    fn build_channel(
        &mut self,
        index: ChannelIndex,
        own: ArcAddr<Channel>,
        parent: &ArcAddr<Connection>,
        memory: ChannelMemory,
        now: Instant,
    ) -> Option<Channel> {
        let above: Arc<dyn Held> = self.lease.clone();
        let lease = self.channels.lease(parent, index, own.clone(), memory, Some(above))?;
        let setup = ChannelSetup { index, memory, ..self.setup.clone() };
        Some(Channel::new(ChannelParts {
            core: channel::Channel::new(setup, now),
            route: self.route,
            index,
            origin: Origin { cid: self.origin.cid.with_channel(index), ..self.origin },
            outbox: self.outbox.clone(),
            answering: self.answering.clone(),
            own,
            mark: self.mark.child(),
            wants_events: self.wants_events,
            lease,
        }))
    }

    /// The ending of every handler: words to the channels, calls to start, refusals to users, one message
    /// to the endpoint.
    fn conclude(&mut self, now: Instant, context: &mut Context<Connection>) {
        if self.is_drained() {
            self.core.close(&mut self.out);
        }
        for (index, word) in self.out.channels.drain(..) {
            remember(&mut self.setup, &word);
            if let Some(channel) = self.channels.get(index) {
                channel.do_send(ConnectionSays { word });
            }
        }
        for (index, work, asks_upgrade) in self.out.starts.drain(..) {
            self.waiting.remove(&work.key);
            self.running[index.index()] = Some(work.key);
            self.drain.idle &= !(1 << index.index());
            if let Some(channel) = self.channels.get(index) {
                // Waiting has used up some of the time.
                let waited = now.saturating_duration_since(work.asked_at);
                let deadline = work.start.deadline.map(|deadline| deadline.saturating_sub(waited));
                let start = Start { asks_upgrade, deadline, ..work.start };
                channel.do_send(Begin { key: work.key, start, port: work.port });
            }
        }
        for (work, failure) in self.out.refused.drain(..) {
            self.waiting.remove(&work.key);
            work.port.refuse(failure);
        }
        for work in self.out.returned.drain(..) {
            self.waiting.remove(&work.key);
            work.port.give_back(work.start);
        }
        if std::mem::take(&mut self.out.asks_idle) {
            for channel in self.channels.iter() {
                channel.do_send(AskIdle);
            }
        }
        if let Some(security) = self.out.secured.take() {
            self.lease.parent().do_send(Secured { route: self.route, security });
        }
        if let Some(future) = self.out.verification.take() {
            let address = context.address();
            // Not on the packet path: its result comes back as a message of its own (R10).
            actix_rt::spawn(async move {
                let result = AssertUnwindSafe(future).catch_unwind().await;
                // One that breaks has not verified anything.
                let result = result.unwrap_or(Err(AbortCode::CALL_DEAD));
                address.do_send(VerificationDone { result });
            });
        }
        self.publish();
        if std::mem::take(&mut self.out.closes) {
            self.begin_to_end(context);
        }
    }

    /// Whether nothing runs and nothing waits, and nothing shall come. A channel that is not replaced any
    /// more has no say.
    fn is_drained(&self) -> bool {
        let is_idle = |index: ChannelIndex| {
            let has_said_so = self.drain.idle & 1 << index.index() != 0;
            self.running[index.index()].is_none()
                && (has_said_so || self.channels.get(index).is_none())
        };
        self.drain.wanted
            && self.core.waiting_calls() == 0
            && ChannelIndex::ALL.into_iter().all(is_idle)
    }

    fn publish(&mut self) {
        let out = &mut self.out;
        let deadline = self.published.news(self.core.next_deadline(), !out.datagrams.is_empty());
        if deadline.is_none() && out.datagrams.is_empty() && out.events.is_empty() && !out.proved {
            return;
        }
        let mut output = spare_output(Waker::Connection(self.route), self.origin);
        output.datagrams = out.datagrams.take();
        output.events.append(&mut out.events);
        if std::mem::take(&mut out.proved) {
            output.peer = Some(PeerReport { proved: true, ..PeerReport::default() });
        }
        output.deadline = deadline;
        // An endpoint that is gone wants nothing more.
        let _ = self.outbox.send(output);
    }

    /// Tells the endpoint, closes the channels, and stops when the last of them is gone.
    fn begin_to_end(&mut self, context: &mut Context<Connection>) {
        if self.channels.is_closed() {
            return;
        }
        self.lease.parent().do_send(Draining { route: self.route });
        self.channels.close();
        self.stop_if_finished(context);
    }

    fn stop_if_finished(&mut self, context: &mut Context<Connection>) {
        if self.channels.is_finished() {
            context.stop();
        }
    }

    fn replace_channel(
        &mut self,
        index: ChannelIndex,
        memory: ChannelMemory,
        context: &mut Context<Connection>,
    ) {
        let now = super::local_endpoint::now();
        self.restarts += 1;
        self.running[index.index()] = None;
        log::warn!("{}: channel {index} broke and is replaced", self.origin.cid);
        if self.restarts > CHANNEL_RESTARTS_MAX {
            self.core.give_up(now, &mut self.out);
            self.conclude(now, context);
            return;
        }
        let own_context = Context::new();
        let own = Arc::new(own_context.address());
        let parent = Arc::new(context.address());
        let built = self.build_channel(index, own.clone(), &parent, memory, now);
        if let Some(channel) = built {
            own_context.run(channel);
            if let Some(failure) = self.core.failure() {
                own.do_send(ConnectionSays { word: ConnectionToChannel::Failed(failure) });
            }
            if self.drain.wanted {
                own.do_send(Drain);
            }
            self.lease.parent().do_send(ChannelReplaced { route: self.route, index, channel: own });
            self.core.handle_channel_replaced(now, index, memory, &mut self.out);
            self.conclude(now, context);
        }
    }
}

/// What channels were told, a channel made later has to know too.
fn remember(setup: &mut ChannelSetup, word: &ConnectionToChannel) {
    match word {
        ConnectionToChannel::Secured { session, .. } => {
            setup.security = channel::Security::Ready(session.clone());
        }
        ConnectionToChannel::ServiceAdopted(service_id) => setup.service_id = *service_id,
        _ => {}
    }
}

impl Actor for Connection {
    type Context = Context<Connection>;

    fn started(&mut self, _: &mut Context<Connection>) {
        self.mark.started();
    }
}

impl Handler<Control> for Connection {
    type Result = ();

    fn handle(&mut self, control: Control, context: &mut Context<Connection>) {
        let now = super::local_endpoint::now();
        self.core.handle_control(now, SystemTime::now(), &control.datagram, &mut self.out);
        self.conclude(now, context);
    }
}

impl Handler<ChannelSays> for Connection {
    type Result = ();

    fn handle(&mut self, message: ChannelSays, context: &mut Context<Connection>) {
        let now = super::local_endpoint::now();
        if matches!(message.word, channel::ChannelToConnection::CallOver { .. }) {
            self.running[message.index.index()] = None;
        }
        self.core.handle_channel(now, message.index, message.word, &mut self.out);
        self.conclude(now, context);
    }
}

impl Handler<StartCall> for Connection {
    type Result = ();

    fn handle(&mut self, message: StartCall, context: &mut Context<Connection>) {
        if message.port.is_canceled() {
            return;
        }
        let now = super::local_endpoint::now();
        let StartCall { key, index, start, mut port } = message;
        if self.drain.wanted {
            return port.refuse(CallFailure::Closed);
        }
        port.taken();
        let deadline = start.deadline;
        let work = Work { key, asked_at: now, start, port };
        let out = &mut self.out;
        if let Some(wait) = self.core.handle_start_near(now, work, deadline, Some(index), out) {
            self.waiting.insert(key, wait);
        }
        self.conclude(now, context);
    }
}

impl Handler<CancelCall> for Connection {
    type Result = ();

    fn handle(&mut self, message: CancelCall, context: &mut Context<Connection>) {
        if let Some(wait) = self.waiting.remove(&message.key) {
            self.core.cancel(wait);
            return self.conclude(super::local_endpoint::now(), context);
        }
        let running = self.running.iter().position(|key| *key == Some(message.key));
        if let Some(index) = running.and_then(|index| ChannelIndex::new(index as u8))
            && let Some(channel) = self.channels.get(index)
        {
            channel.do_send(CancelBegun { key: message.key });
        }
    }
}

impl Handler<IdleSince> for Connection {
    type Result = ();

    fn handle(&mut self, message: IdleSince, context: &mut Context<Connection>) {
        let now = super::local_endpoint::now();
        self.core.handle_idle(now, message.index, message.since, &mut self.out);
        if self.drain.wanted && message.since.is_some() {
            self.drain.idle |= 1 << message.index.index();
        }
        self.conclude(now, context);
    }
}

impl Handler<VerificationDone> for Connection {
    type Result = ();

    fn handle(&mut self, message: VerificationDone, context: &mut Context<Connection>) {
        let now = super::local_endpoint::now();
        self.core.handle_verified(now, message.result, &mut self.out);
        self.conclude(now, context);
    }
}

impl Handler<Due> for Connection {
    type Result = ();

    fn handle(&mut self, _: Due, context: &mut Context<Connection>) {
        let now = super::local_endpoint::now();
        self.published.fired();
        self.core.handle_deadline(now, &mut self.out);
        self.conclude(now, context);
    }
}

impl Handler<Drain> for Connection {
    type Result = ();

    fn handle(&mut self, _: Drain, context: &mut Context<Connection>) {
        self.drain = Drained { wanted: true, idle: 0 };
        for channel in self.channels.iter() {
            channel.do_send(Drain);
        }
        self.conclude(super::local_endpoint::now(), context);
    }
}

impl Handler<Close> for Connection {
    type Result = ();

    fn handle(&mut self, _: Close, context: &mut Context<Connection>) {
        let now = super::local_endpoint::now();
        self.core.close(&mut self.out);
        self.out.closes = true;
        self.conclude(now, context);
    }
}

impl Handler<ChannelGone> for Connection {
    type Result = ();

    fn handle(&mut self, word: ChannelGone, context: &mut Context<Connection>) {
        if !self.channels.gone(&word) {
            return;
        }
        if self.channels.is_closed() {
            self.stop_if_finished(context);
        } else {
            self.replace_channel(word.key, word.report, context);
        }
    }
}

impl Handler<Inspect> for Connection {
    type Result = ();

    fn handle(&mut self, message: Inspect, _: &mut Context<Connection>) {
        let snapshot = ConnectionSnapshot {
            // Whoever puts it together knows.
            shard: 0,
            role: self.setup.role,
            ids: self.core.ids(),
            service_id: self.setup.service_id,
            peer: self.peer,
            waiting_calls: self.core.waiting_calls(),
            is_secured: self.core.is_secured(),
            channels: Vec::new(),
        };
        let part = SnapshotPart::Connection(self.route, Box::new(snapshot));
        // A receiver that went away does not want to know.
        let _ = message.to.unbounded_send(part);
        for channel in self.channels.iter() {
            channel.do_send(message.clone());
        }
    }
}

#[cfg(feature = "testkit")]
impl Handler<super::messages::Break> for Connection {
    type Result = ();

    fn handle(&mut self, message: super::messages::Break, _: &mut Context<Connection>) {
        match message.at {
            Some(super::messages::BreakAt::Channel(_, index)) => {
                if let Some(channel) = self.channels.get(index) {
                    channel.do_send(message);
                }
            }
            _ => panic!("a test broke this connection"),
        }
    }
}
