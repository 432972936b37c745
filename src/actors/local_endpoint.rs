//! The LocalEndpoint actor: one socket, its receive loop, its routes, its egress and its deadlines.

mod egress;
mod receive;
mod shares;
pub(crate) mod siblings;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler};
use futures::channel::oneshot;
use rand::TryRngCore;
use tokio::sync::mpsc;

use super::channel::{Answering, Channel};
use super::connection::{Connection, ConnectionParts, Contexts};
use super::lifetime::{ArcAddr, ChildGone, Children, Held};
use super::marks::Mark;
use super::messages;
use super::messages::{
    ChannelReplaced, Close, Connect, Connected, Drain, Draining, Due, Inspect, MoreRoom,
    OfferService, Output, Packets, RunningCall, Secured, ShardEnd, Shutdown, Strays, TurnOver,
    Unreachable, Wake,
};
use super::snapshot::SnapshotPart;
use super::step::give_back_output;
use crate::error::{CloseReason, ConnectError, ShutdownReport};
use crate::net::Network;
use crate::proto::channel::{ChannelMemory, ChannelSetup, Security};
use crate::proto::config::EndpointConfig;
use crate::proto::connection::{ConnectionSetup, Handshake};
use crate::proto::event::{CallEnded, Event, Origin, Subscriber};
use crate::proto::router::{
    Identity, Offer, Opening, RouteId, Router, RouterOutput, Shard, Turn, Waker,
};
use crate::proto::{CallFailure, CallTag, Holding, Moderation, Role, SerialCounter, TurnWord};
use crate::security::EntropySource;
use crate::server::Service;
use crate::wire::{ChannelIndex, Cid, Epoch, Serial, ServiceId};
use egress::Egress;
use receive::ReceiveLoop;
use shares::Shares;
use siblings::Siblings;

/// Now, by the one clock of the shells: Tokio's, so that a test that pauses it pauses everything.
#[inline]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What reaches a connection: the packet path's look-up ends here.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub connection: ArcAddr<Connection>,
    pub channels: [ArcAddr<Channel>; ChannelIndex::COUNT],
}

/// What a LocalEndpoint is built with.
pub(crate) struct LocalEndpointParts {
    pub network: Box<dyn Network>,
    pub config: Arc<EndpointConfig>,
    pub subscribers: Vec<Box<dyn Subscriber>>,
    /// Says why it ended, by being sent or dropped.
    pub closed: oneshot::Sender<CloseReason>,
    /// Dropped with the last actor of the tree.
    pub life: Arc<dyn Held>,
    /// Names and seeds: the same for all shards.
    pub identity: Identity,
    /// Whether the serials of server connections begin anywhere; not so in tests that repeat exactly.
    pub has_random_serials: bool,
    /// One of several does not receive before it has joined the others.
    pub shard: Shard,
}

/// See the module.
pub struct LocalEndpoint {
    network: Box<dyn Network>,
    shard: Shard,
    /// The other shards, once it has joined them.
    siblings: Option<Box<Siblings>>,
    /// What they have handed over and the receive loop has not taken yet; they limit it.
    strays: VecDeque<Strays>,
    /// See [`LocalEndpointParts::has_random_serials`].
    has_random_serials: bool,
    config: Arc<EndpointConfig>,
    router: Router<Target>,
    router_out: RouterOutput,
    services: HashMap<ServiceId, Arc<dyn Service>>,
    connections: Children<Connection>,
    /// Routes of server connections that were lost, and until when their packets are refused.
    lost: VecDeque<(Instant, RouteId)>,
    egress: Egress,
    moderation: Moderation,
    /// What a batch has for one channel, while the batch is looked through.
    gathered: Option<((RouteId, ChannelIndex), Packets)>,
    shares: Shares,
    /// What connections and channels put out: a queue of its own, which costs a third of a message.
    outputs: mpsc::UnboundedReceiver<Box<Output>>,
    outbox: Outbox,
    /// Our own address; made with the first connection.
    own: Option<ArcAddr<LocalEndpoint>>,
    subscribers: Vec<Box<dyn Subscriber>>,
    client_call: Arc<crate::proto::config::CallConfig>,
    server_call: Arc<crate::proto::config::CallConfig>,
    client_connection: Arc<crate::proto::config::ConnectionConfig>,
    server_connection: Arc<crate::proto::config::ConnectionConfig>,
    ending: Option<Ending>,
    closed: Option<oneshot::Sender<CloseReason>>,
    mark: Mark,
    /// Held by every connection too: it ends with the last of them, also if this actor breaks.
    life: Arc<dyn Held>,
}

/// Where connections and channels put [`Output`]. It is taken before anything else that they, or anybody, has
/// said later: see [`LocalEndpoint::take_outputs`].
pub(crate) type Outbox = mpsc::UnboundedSender<Box<Output>>;

/// A shutdown under way.
struct Ending {
    /// When calls that still run are cut off; `None` = they have been.
    cut_at: Option<Instant>,
    report: ShutdownReport,
    reason: CloseReason,
    replies: Vec<oneshot::Sender<ShutdownReport>>,
}

impl LocalEndpoint {
    pub(crate) fn new(parts: LocalEndpointParts) -> LocalEndpoint {
        let mut router = Router::new(parts.config.clone(), parts.identity, now());
        router.enter_shard(parts.shard);
        if !parts.subscribers.is_empty() {
            router.keep_events();
        }
        let (outbox, outputs) = mpsc::unbounded_channel();
        LocalEndpoint {
            gathered: None,
            shares: Shares::default(),
            outputs,
            outbox,
            own: None,
            egress: Egress::new(parts.network.max_segments(), parts.config.egress_max_bytes),
            moderation: Moderation::new(parts.config.receive_moderation),
            network: parts.network,
            shard: parts.shard,
            siblings: None,
            strays: VecDeque::new(),
            has_random_serials: parts.has_random_serials,
            router,
            router_out: RouterOutput::default(),
            services: HashMap::new(),
            connections: Children::default(),
            lost: VecDeque::new(),
            subscribers: parts.subscribers,
            client_call: Arc::new(parts.config.client.call.clone()),
            server_call: Arc::new(parts.config.server.call.clone()),
            client_connection: Arc::new(parts.config.client.clone()),
            server_connection: Arc::new(parts.config.server.clone()),
            config: parts.config,
            ending: None,
            closed: Some(parts.closed),
            mark: Mark::root(),
            life: parts.life,
        }
    }

    /// A server connection for a first DATA packet.
    fn open_server(&mut self, opening: Opening, own: &Addr<LocalEndpoint>) {
        let now = now();
        let Some(service) = self.services.get(&opening.ids.service_id).cloned() else { return };
        let security = match opening.handshake {
            Handshake::Server(_) => Security::Pending,
            _ => Security::Ready(None),
        };
        // Whoever does not receive at its address must not be able to name our serials: naming one is
        // the proof of an address (rx-calls.md 4.1).
        let serials = if self.has_random_serials {
            SerialCounter::starting_at(random_serial())
        } else {
            SerialCounter::new()
        };
        let setup = ChannelSetup {
            role: Role::Server,
            epoch: opening.ids.epoch,
            cid: opening.ids.cid,
            index: ChannelIndex::ALL[0],
            security_index: opening.ids.security_index,
            service_id: opening.service_id,
            config: self.server_call.clone(),
            serials: serials.clone(),
            security,
            needs_reach: opening.needs_reach,
            hint: Arc::new(opening.hint),
            memory: ChannelMemory::default(),
        };
        // After an upgrade the calls are those of the other service.
        let service = self.services.get(&opening.service_id).cloned().unwrap_or(service);
        let answering = Some(Arc::new(Answering { service, peer: opening.peer }));
        let contexts = Contexts::new();
        let target = contexts.addresses().clone();
        let route = self.router.insert_server(now, &opening, target);
        let core_setup = ConnectionSetup {
            role: Role::Server,
            ids: opening.ids,
            config: self.server_connection.clone(),
            serials,
            handshake: opening.handshake,
            asks_upgrade: false,
            entropy: os_entropy(),
        };
        self.run_connection(route, contexts, core_setup, setup, answering, own);
        while let Some(oldest) = self.router.excess(now) {
            if let Some(target) = self.router.target(oldest) {
                target.connection.do_send(Close);
            }
            self.router.start_closing(oldest);
        }
    }

    fn open_client(
        &mut self,
        connect: &Connect,
        own: &Addr<LocalEndpoint>,
    ) -> Result<Target, ConnectError> {
        if self.ending.is_some() {
            return Err(ConnectError::Closed);
        }
        if self.router.len() >= self.config.connections_max {
            return Err(ConnectError::TooMany(self.config.connections_max));
        }
        let now = now();
        let ids = self.router.allocate(connect.service_id, connect.class.index());
        let mut entropy = os_entropy();
        let drawn = entropy.draw();
        // The class is not ours: one that breaks costs this connection and nothing else.
        let started = catch_unwind(AssertUnwindSafe(|| {
            let start = connect.class.connect(ids, &drawn);
            let brief = start.session.as_ref().map(|session| session.brief());
            (start, brief.unwrap_or_default())
        }));
        let Ok((start, security)) = started else {
            log::error!("security class {} broke as it made a connection", ids.security_index);
            return Err(ConnectError::SecurityClass);
        };
        let contexts = Contexts::new();
        let target = contexts.addresses().clone();
        let out = &mut self.router_out;
        let route = self.router.insert_client(now, ids, connect.peer, target.clone(), out);
        self.router.set_security(route, security, false);
        let serials = SerialCounter::new();
        let setup = ChannelSetup {
            role: Role::Client,
            epoch: ids.epoch,
            cid: ids.cid,
            index: ChannelIndex::ALL[0],
            security_index: ids.security_index,
            service_id: ids.service_id,
            config: self.client_call.clone(),
            serials: serials.clone(),
            security: Security::Ready(start.session),
            needs_reach: false,
            hint: Arc::new(self.router.hint(route)),
            memory: ChannelMemory::default(),
        };
        let core_setup = ConnectionSetup {
            role: Role::Client,
            ids,
            config: self.client_connection.clone(),
            serials,
            handshake: start.handshake.map_or(Handshake::None, Handshake::Client),
            asks_upgrade: connect.asks_upgrade,
            entropy,
        };
        self.run_connection(route, contexts, core_setup, setup, None, own);
        Ok(target)
    }

    /// Starts the actors of a connection whose route is already there.
    fn run_connection(
        &mut self,
        route: RouteId,
        contexts: Contexts,
        core_setup: ConnectionSetup,
        setup: ChannelSetup,
        answering: Option<Arc<Answering>>,
        own: &Addr<LocalEndpoint>,
    ) {
        let address = contexts.addresses().connection.clone();
        let above = Some(self.life.clone());
        let own = self.shared(own);
        let Some(lease) = self.connections.lease(&own, route, address, (), above) else {
            self.router.remove(now(), route);
            return;
        };
        let origin = Origin { epoch: setup.epoch, cid: setup.cid };
        let Some(peer) = self.router.peer_of(route) else { return };
        let mark = self.mark.child();
        let parts = ConnectionParts {
            core_setup,
            route,
            origin,
            peer,
            setup,
            answering,
            wants_events: !self.subscribers.is_empty(),
            outbox: self.outbox.clone(),
            mark,
            lease,
        };
        contexts.start(parts, now());
    }

    /// Our own address, for those that hold it.
    fn shared(&mut self, own: &Addr<LocalEndpoint>) -> ArcAddr<LocalEndpoint> {
        self.own.get_or_insert_with(|| Arc::new(own.clone())).clone()
    }

    /// A connection is gone. One that drained has ended its calls; one that did not has broken, and
    /// whether its calls have run is not known any more: copies of their requests must not run them again.
    fn forget(&mut self, route: RouteId) {
        let now = now();
        let has_broken = self.router.target(route).is_some();
        if !has_broken || self.router.role_of(route) == Some(Role::Client) {
            self.router.remove(now, route);
            return;
        }
        log::error!("a connection broke: its calls are over");
        self.router.start_rejecting(route);
        // So long as a client may go on sending, if it is as patient as we are.
        let config = &self.config.server;
        self.lost.push_back((after(config.aborted_linger.max(config.call.dead_timeout)), route));
    }

    /// Everything that is due at `now`.
    fn fire_due(&mut self, now: Instant) {
        while let Some(whose) = self.router.pop_due(now) {
            match whose {
                Waker::Connection(route) => {
                    if let Some(target) = self.router.target(route) {
                        target.connection.do_send(Due);
                    }
                }
                Waker::Channel(route, channel) => {
                    if let Some(target) = self.router.target(route) {
                        target.channels[channel.index()].do_send(Due);
                    }
                }
            }
        }
        while let Some((until, route)) = self.lost.front().copied()
            && until <= now
        {
            self.lost.pop_front();
            self.router.remove(now, route);
        }
        self.router.sweep(now, &mut self.router_out);
        self.take_router_output();
        let cut = self.ending.as_ref().and_then(|ending| ending.cut_at);
        if cut.is_some_and(|at| at <= now) {
            self.cut_off();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let cut = self.ending.as_ref().and_then(|ending| ending.cut_at);
        let lost = self.lost.front().map(|(until, _)| *until);
        [self.router.next_deadline(), cut, lost].into_iter().flatten().min()
    }

    fn take_router_output(&mut self) {
        for (to, datagram) in self.router_out.answers.drain(..) {
            self.egress.push_single(to, datagram);
        }
        while let Some((route, channel)) = self.router.next_relieved() {
            if let Some(target) = self.router.target(route) {
                target.channels[channel.index()].do_send(MoreRoom);
            }
        }
        if !self.subscribers.is_empty() {
            for (origin, event) in self.router.take_events() {
                self.tell(origin, &event);
            }
        }
    }

    fn take_turn_word(
        &mut self,
        route: RouteId,
        channel: ChannelIndex,
        word: TurnWord,
        own: &Addr<LocalEndpoint>,
    ) {
        let Some((tag, turn)) = self.router.handle_turn_word(route, channel, word) else { return };
        match turn {
            Turn::Now => self.give_turn(route, channel, tag, own),
            Turn::Waits => {}
            Turn::Refused(code) => {
                if let Some(target) = self.router.target(route) {
                    let turn = messages::Turn { tag, turn: Err(code) };
                    target.channels[channel.index()].do_send(turn);
                }
            }
        }
    }

    /// Calls that have waited for others of their service to end.
    fn give_turns(&mut self, service_id: ServiceId, own: &Addr<LocalEndpoint>) {
        while let Some((route, channel, tag)) = self.router.next_turn(service_id) {
            self.give_turn(route, channel, tag, own);
        }
    }

    fn give_turn(
        &mut self,
        route: RouteId,
        channel: ChannelIndex,
        tag: CallTag,
        own: &Addr<LocalEndpoint>,
    ) {
        let Some(service_id) = self.router.service_of(route) else { return };
        // Whatever becomes of it from here on, its place is given back.
        let turn = Ok(RunningCall::new(self.shared(own), service_id));
        if let Some(target) = self.router.target(route) {
            target.channels[channel.index()].do_send(messages::Turn { tag, turn });
        }
    }

    /// A subscriber is not ours: one that breaks is told no more, and nothing else ends.
    fn tell(&mut self, origin: Origin, event: &Event) {
        self.subscribers.retain_mut(|subscriber| {
            let told = catch_unwind(AssertUnwindSafe(|| subscriber.on_event(origin, event)));
            if told.is_err() {
                log::error!("a subscriber broke and is told no more");
            }
            told.is_ok()
        });
    }

    fn begin_to_end(&mut self, grace: Duration, reason: CloseReason) {
        if self.ending.is_some() {
            return;
        }
        self.router.close();
        let cut_at = Some(after(grace));
        let report = ShutdownReport::default();
        self.ending = Some(Ending { cut_at, report, reason, replies: Vec::new() });
        if let Some(siblings) = &mut self.siblings {
            siblings.end_with(grace, reason);
        }
        if grace.is_zero() {
            self.cut_off();
        } else {
            for connection in self.connections.iter() {
                connection.do_send(Drain);
            }
        }
    }

    /// The grace is over: what runs is cut off. Nothing below can refuse, so the end is near.
    fn cut_off(&mut self) {
        if self.connections.is_closed() {
            return;
        }
        if let Some(ending) = &mut self.ending {
            ending.cut_at = None;
            ending.report.connections_closed = self.connections.len();
        }
        self.connections.close();
    }

    /// When the last connection is gone, and what it sent has left, the endpoint ends.
    fn end_if_finished(&mut self, context: &mut Context<LocalEndpoint>) {
        if self.ending.is_none() || !self.connections.is_empty() {
            return;
        }
        if !self.connections.is_closed() {
            self.connections.close();
        }
        if self.siblings.as_mut().is_some_and(|siblings| !siblings.finish()) {
            return;
        }
        self.egress.flush(&mut *self.network, &mut self.router);
        let Some(mut ending) = self.ending.take() else { return };
        ending.report.counters = self.router.counters().clone();
        for reply in ending.replies {
            // Whoever does not wait any more does not want to know.
            let _ = reply.send(ending.report.clone());
        }
        if let Some(closed) = self.closed.take() {
            let _ = closed.send(ending.reason);
        }
        context.stop();
    }

    /// The network is no more, so no deadline will be looked at any more either: no grace.
    fn fail(&mut self, error: &std::io::Error) {
        log::error!("the network failed: {error}");
        let reason = CloseReason::Network(error.kind());
        if self.ending.is_some()
            && let Some(siblings) = &mut self.siblings
        {
            siblings.tell(ShardEnd::Failed(reason));
        }
        self.end_at_once(reason);
    }

    fn end_at_once(&mut self, reason: CloseReason) {
        self.begin_to_end(Duration::ZERO, reason);
        if let Some(ending) = &mut self.ending {
            ending.reason = reason;
        }
        self.cut_off();
    }
}

/// So much later; a time beyond the end of the clock is one that nobody lives to see.
fn after(time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    let now = now();
    now.checked_add(time).unwrap_or(now + CENTURY)
}

pub(crate) fn random_identity() -> Identity {
    let mut bytes = [0; 16];
    fill_from_os(&mut bytes);
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Identity {
        epoch: Epoch::from_random(word(0)),
        first_cid: Cid(word(4)),
        hash_seed: u64::from(word(8)) << 32 | u64::from(word(12)),
    }
}

/// Below 2^31, so that a peer that compares by signed difference from 0 sees it as new.
fn random_serial() -> Serial {
    let mut bytes = [0; 4];
    fill_from_os(&mut bytes);
    Serial((u32::from_ne_bytes(bytes) >> 1).max(1))
}

fn os_entropy() -> EntropySource {
    EntropySource::new(|| {
        let mut bytes = [0; 32];
        fill_from_os(&mut bytes);
        bytes
    })
}

/// Without randomness nobody can tell connections of two lives apart: better to end.
fn fill_from_os(bytes: &mut [u8]) {
    rand::rngs::OsRng.try_fill_bytes(bytes).expect("the operating system gives random bytes");
}

impl Actor for LocalEndpoint {
    type Context = Context<LocalEndpoint>;

    fn started(&mut self, context: &mut Context<LocalEndpoint>) {
        self.mark.started();
        if self.shard == Shard::ALONE {
            context.spawn(ReceiveLoop::new(context.address()));
        }
    }
}

impl LocalEndpoint {
    /// Takes what connections and channels have put out. First in every turn and every handler: whoever put it
    /// out may have caused, right behind it, what is handled now.
    fn take_outputs(&mut self, own: impl Fn() -> Addr<LocalEndpoint>) {
        if let Ok(output) = self.outputs.try_recv() {
            let now = now();
            self.take_output(now, output, &own);
            while let Ok(output) = self.outputs.try_recv() {
                self.take_output(now, output, &own);
            }
        }
    }

    fn take_output(
        &mut self,
        now: Instant,
        mut output: Box<Output>,
        own: impl Fn() -> Addr<LocalEndpoint>,
    ) {
        let (Waker::Connection(route) | Waker::Channel(route, _)) = output.whose;
        if let Some(report) = &output.peer {
            self.router.learn(now, route, report);
        }
        if !output.datagrams.is_empty() {
            self.egress.push(now, route, &mut output.datagrams, &mut self.router);
        }
        self.router.counters_mut().add(&output.tally);
        for event in output.events.drain(..) {
            self.router.record(route, &event);
            if let (
                Event::CallEnded(CallEnded { outcome: Err(CallFailure::Closed), .. }),
                Some(ending),
            ) = (&event, &mut self.ending)
            {
                ending.report.calls_cut += 1;
            }
            self.tell(output.origin, &event);
        }
        if let (Waker::Channel(_, channel), Some(holding)) = (output.whose, output.holding) {
            self.router.note_holding(now, route, channel, holding);
            self.take_router_output();
        }
        if let (Waker::Channel(_, channel), Some(word)) = (output.whose, output.turn) {
            self.take_turn_word(route, channel, word, &own());
        }
        if let (Waker::Channel(_, channel), Some(brief)) = (output.whose, output.brief)
            && self.config.debug_responder
        {
            self.router.set_brief(route, channel, brief);
        }
        self.router.set_deadline(output.whose, output.deadline);
        give_back_output(output);
    }
}

impl Handler<Connect> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, connect: Connect, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        if connect.reply.is_canceled() {
            return;
        }
        let opened = self.open_client(&connect, &context.address());
        self.take_router_output();
        // Lost on its way, it is closed.
        let _ = connect.reply.send(opened.map(Connected::new));
    }
}

impl Handler<Wake> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: Wake, _: &mut Context<LocalEndpoint>) {
        let Wake { after, mut reply } = message;
        actix_rt::spawn(async move {
            let asked = tokio::time::timeout(after, reply.cancellation()).await;
            if asked.is_err() {
                // Whoever does not wait any more does not want to know.
                let _ = reply.send(());
            }
        });
    }
}

impl Handler<OfferService> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, offer: OfferService, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        self.services.insert(offer.service_id, offer.service);
        self.router.offer(
            offer.service_id,
            Offer {
                classes: offer.options.security_classes,
                needs_reach: offer.options.reach_check,
                upgrades_to: offer.options.upgrades_to,
            },
        );
        self.router.limit_service(offer.service_id, offer.options.running_calls_max);
        if let Some(turns) = offer.turns {
            self.router.share_turns(offer.service_id, turns);
        }
        self.give_turns(offer.service_id, &context.address());
    }
}

impl Handler<TurnOver> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, over: TurnOver, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        self.router.end_turn(over.service_id);
        match &mut self.siblings {
            // We are the last that it comes to.
            Some(siblings) => siblings.pass_turn(over.service_id, self.shard.count()),
            None => self.give_turns(over.service_id, &context.address()),
        }
    }
}

impl Handler<Draining> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: Draining, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        self.router.start_closing(message.route);
    }
}

impl Handler<Secured> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: Secured, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        self.router.set_security(message.route, message.security, true);
    }
}

impl Handler<ChannelReplaced> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: ChannelReplaced, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        if let Some(target) = self.router.target_mut(message.route) {
            target.channels[message.index.index()] = message.channel;
        }
        // What the one before it held or waited for is gone with it.
        self.router.handle_turn_word(message.route, message.index, TurnWord::Gone);
        self.router.note_holding(now(), message.route, message.index, Holding::default());
        self.take_router_output();
    }
}

impl Handler<ChildGone<Connection>> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, word: ChildGone<Connection>, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        if self.connections.gone(&word) {
            self.forget(word.key);
            self.take_router_output();
        }
        self.end_if_finished(context);
    }
}

impl Handler<Inspect> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: Inspect, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        let part = SnapshotPart::Endpoint {
            local_addr: self.network.local_addr(),
            counters: Box::new(self.router.counters().clone()),
            peers: self.router.peer_summaries(),
        };
        // A receiver that went away does not want to know.
        let _ = message.to.unbounded_send(part);
        for connection in self.connections.iter() {
            connection.do_send(message.clone());
        }
    }
}

impl Handler<Shutdown> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: Shutdown, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        self.begin_to_end(message.grace, CloseReason::Shutdown);
        if let Some(ending) = &mut self.ending {
            let cut_at = after(message.grace);
            ending.cut_at = ending.cut_at.map(|at| at.min(cut_at));
            ending.replies.extend(message.reply);
        }
        self.end_if_finished(context);
    }
}

#[cfg(feature = "testkit")]
impl Handler<super::messages::Break> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, message: super::messages::Break, _: &mut Context<LocalEndpoint>) {
        use super::messages::BreakAt;
        let (BreakAt::Connection(place) | BreakAt::Channel(place, _)) = match message.at {
            None => panic!("a test broke this endpoint"),
            Some(at) => at,
        };
        let targets = || self.router.iter().filter_map(|(route, _)| self.router.target(route));
        let count = targets().count().max(1);
        if let Some(target) = targets().nth(place % count) {
            target.connection.do_send(message);
        }
    }
}
