//! An endpoint made of the same core as the actors', wired by plain calls: packets, commands and `now` go
//! in, datagrams and notices come out. No clock, no socket, no task.

mod receive;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::proto::channel::{
    Channel, ChannelOutput, ChannelSetup, ChannelToConnection, Command, Notice, Security, Start,
};
use crate::proto::config::EndpointConfig;
use crate::proto::connection::{
    Connection, ConnectionOutput, ConnectionSetup, ConnectionToChannel, Handshake, WaitKey,
};
use crate::proto::event::Origin;
use crate::proto::peer::PeerReport;
use crate::proto::router::{
    ChannelBrief, Identity, Offer, Opening, Published, RouteId, Router, RouterOutput, Turn, Waker,
};
use crate::proto::{
    CallFailure, CallTag, ConnectionFailure, Counters, Event, Holding, NetworkProblem, Role,
    SerialCounter,
};
use crate::security::{ClientClass, ConnectionIds, Entropy, EntropySource, VerificationFuture};
use crate::testkit::Watch;
use crate::wire::{AbortCode, CallNumber, ChannelIndex, Serial, ServiceId};
use turns::Turns;
pub(in crate::testkit) use turns::{Asked, Connecting, User};

/// Names a call of this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallRef {
    /// Its connection.
    pub route: RouteId,
    /// Its channel.
    pub channel: ChannelIndex,
    /// Which of the channel's calls.
    pub tag: CallTag,
}

/// Names a call from the moment it was asked for, before it has a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartToken(pub u64);

/// What waits for a channel.
#[derive(Debug)]
struct Work {
    token: StartToken,
    /// The channel that its user takes for its own, where users speak to channels.
    prefers: Option<ChannelIndex>,
    start: Start,
    asked_at: Instant,
}

#[derive(Debug)]
struct Tree {
    connection: Connection<Work>,
    channels: [Channel; ChannelIndex::COUNT],
    ids: ConnectionIds,
    serials: SerialCounter,
    setup: ChannelSetup,
    watches: [Watch; ChannelIndex::COUNT],
    /// Of the channels; the last is the connection's.
    published: [Published; ChannelIndex::COUNT + 1],
}

enum Message {
    Due(Waker),
    ToConnection(RouteId, ChannelIndex, ChannelToConnection),
    ToChannel(RouteId, ChannelIndex, ConnectionToChannel),
    Start(RouteId, ChannelIndex, Work, bool),
    AskIdle(RouteId),
    Room(RouteId, ChannelIndex),
    Turn(RouteId, ChannelIndex, CallTag, Result<(), AbortCode>),
}

impl Message {
    /// Whose mailbox it is in; `None` = the connection's.
    fn to(&self) -> (RouteId, Option<ChannelIndex>) {
        match self {
            Message::Due(Waker::Connection(route))
            | Message::ToConnection(route, ..)
            | Message::AskIdle(route) => (*route, None),
            Message::Due(Waker::Channel(route, index))
            | Message::ToChannel(route, index, _)
            | Message::Room(route, index)
            | Message::Turn(route, index, ..)
            | Message::Start(route, index, ..) => (*route, Some(*index)),
        }
    }
}

/// What an application answers to a notice within the step that gave it.
type Answering = Box<dyn FnMut(CallRef, &Notice) -> Option<Command>>;

/// A datagram that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentDatagram {
    /// Where to.
    pub to: SocketAddr,
    /// Its bytes.
    pub datagram: Vec<u8>,
    /// Whether it may be fragmented on its way.
    pub may_fragment: bool,
}

/// See the module.
pub struct InlineEndpoint {
    router: Router<()>,
    trees: BTreeMap<RouteId, Tree>,
    config: Arc<EndpointConfig>,
    queue: VecDeque<Message>,
    closed: Vec<RouteId>,
    next_token: u64,
    sent: Vec<SentDatagram>,
    /// What left, in batches; `None` = datagram by datagram, in `sent`.
    batches: Option<Vec<(SocketAddr, Vec<u8>, usize)>>,
    events: Vec<(Origin, Event)>,
    notices: Vec<(CallRef, Notice)>,
    started: Vec<(StartToken, CallRef)>,
    waiting: BTreeMap<StartToken, (RouteId, WaitKey)>,
    refused: Vec<(StartToken, CallFailure)>,
    returned: Vec<StartToken>,
    verifications: Vec<(RouteId, VerificationFuture)>,
    /// Calls that run, of services that run only so many at once.
    turns: BTreeMap<CallRef, ServiceId>,
    first_serial: Serial,
    wall_clock: SystemTime,
    entropy: Entropy,
    answering: Option<Answering>,
    /// Memory of the step before.
    spare: Option<Box<ChannelOutput>>,
    /// If its parts have their turns.
    turn_by_turn: Option<Box<Turns>>,
}

impl InlineEndpoint {
    /// An endpoint without services or connections.
    pub fn new(config: EndpointConfig, identity: Identity, now: Instant) -> InlineEndpoint {
        let config = Arc::new(config);
        InlineEndpoint {
            router: Router::new(config.clone(), identity, now),
            trees: BTreeMap::new(),
            config,
            queue: VecDeque::new(),
            closed: Vec::new(),
            next_token: 0,
            sent: Vec::new(),
            batches: None,
            events: Vec::new(),
            notices: Vec::new(),
            started: Vec::new(),
            waiting: BTreeMap::new(),
            refused: Vec::new(),
            returned: Vec::new(),
            verifications: Vec::new(),
            turns: BTreeMap::new(),
            first_serial: Serial(1),
            wall_clock: SystemTime::UNIX_EPOCH,
            entropy: [7; 32],
            answering: None,
            spare: None,
            turn_by_turn: None,
        }
    }

    /// Each notice is answered at once, in the step that gave it, as the actors' port of a whole call does it.
    /// The notice is in [`InlineEndpoint::take_notices`] all the same.
    pub fn answer_notices(
        &mut self,
        answering: impl FnMut(CallRef, &Notice) -> Option<Command> + 'static,
    ) {
        self.answering = Some(Box::new(answering));
    }

    /// Offers a service.
    pub fn offer(&mut self, service_id: ServiceId, offer: Offer) {
        self.router.offer(service_id, offer);
    }

    /// A service runs so many calls at once: until each is answered, or over. `None` = any number.
    pub fn limit_service(&mut self, service_id: ServiceId, running_max: Option<NonZeroUsize>) {
        self.router.limit_service(service_id, running_max);
        self.give_next_turns(service_id);
    }

    /// First serial of connections made from now on.
    pub fn set_first_serial(&mut self, serial: Serial) {
        self.first_serial = serial;
    }

    /// What the clock on the wall says from now on: it stands still until it is set again.
    pub fn set_wall_clock(&mut self, wall_clock: SystemTime) {
        self.wall_clock = wall_clock;
    }

    /// The random bytes of connections made from now on: the same each time that they are asked for.
    pub fn set_entropy(&mut self, entropy: Entropy) {
        self.entropy = entropy;
    }

    /// Opens a client connection.
    pub fn connect(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        service_id: ServiceId,
        class: &dyn ClientClass,
        asks_upgrade: bool,
    ) -> RouteId {
        let ids = self.router.allocate(service_id, class.index());
        let start = class.connect(ids, &self.entropy);
        let handshake = start.handshake.map_or(Handshake::None, Handshake::Client);
        let mut answers = RouterOutput::default();
        let security = start.session.as_ref().map(|session| session.brief()).unwrap_or_default();
        let route = self.router.insert_client(now, ids, peer, (), &mut answers);
        self.router.set_security(route, security, false);
        self.note_answers(&mut answers);
        let hint = self.router.hint(route);
        let serials = SerialCounter::starting_at(self.first_serial);
        let setup = ChannelSetup {
            role: Role::Client,
            epoch: ids.epoch,
            cid: ids.cid,
            index: ChannelIndex::ALL[0],
            security_index: ids.security_index,
            service_id,
            config: Arc::new(self.config.client.call.clone()),
            serials: serials.clone(),
            security: Security::Ready(start.session),
            needs_reach: false,
            hint: hint.into(),
            memory: Default::default(),
        };
        let connection = Connection::new(
            ConnectionSetup {
                role: Role::Client,
                ids,
                config: Arc::new(self.config.client.clone()),
                serials,
                handshake,
                asks_upgrade,
                entropy: fixed_entropy(self.entropy),
            },
            now,
        );
        self.insert_tree(now, route, ids, connection, setup);
        route
    }

    /// Asks for a call on a connection.
    pub fn start(&mut self, now: Instant, route: RouteId, start: Start) -> StartToken {
        self.next_token += 1;
        let token = StartToken(self.next_token);
        let Some(tree) = self.trees.get_mut(&route) else {
            self.returned.push(token);
            return token;
        };
        let mut out = ConnectionOutput::default();
        let deadline = start.deadline;
        let work = Work { token, prefers: None, start, asked_at: now };
        if let Some(key) = tree.connection.handle_start(now, work, deadline, &mut out) {
            self.waiting.insert(token, (route, key));
        }
        self.take_connection(now, route, out);
        self.settle(now);
        token
    }

    /// Gives up a call that waits for a channel; nothing happens to one that has it.
    pub fn cancel(&mut self, token: StartToken) -> bool {
        let Some((route, key)) = self.waiting.remove(&token) else { return false };
        self.trees.get_mut(&route).is_some_and(|tree| tree.connection.cancel(key).is_some())
    }

    /// An application speaks to its call.
    pub fn command(&mut self, now: Instant, call: CallRef, command: Command) {
        let Some(tree) = self.trees.get_mut(&call.route) else { return };
        let mut out = self.spare.take().unwrap_or_default();
        let channel = &mut tree.channels[call.channel.index()];
        let ends =
            matches!(command, Command::Write { ends: true, .. } | Command::End | Command::Abort(_));
        channel.handle_command(now, call.tag, command, &mut out);
        if ends {
            self.end_turn(call);
        }
        self.take_channel(now, call.route, call.channel, out);
        self.settle(now);
    }

    /// Time passes to `now`: everything due happens, in order.
    pub fn advance(&mut self, now: Instant) {
        loop {
            // All that is due is known before any of it is handled, as in the actors' mailboxes.
            while let Some(whose) = self.router.pop_due(now) {
                self.queue.push_back(Message::Due(whose));
            }
            if self.queue.is_empty() {
                break;
            }
            self.settle(now);
        }
        let mut out = RouterOutput::default();
        self.router.sweep(now, &mut out);
        self.note_answers(&mut out);
    }

    /// When time alone is the next input.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.router.next_deadline()
    }

    /// The network says that datagrams to `peer` do not arrive.
    pub fn network_problem(&mut self, now: Instant, peer: SocketAddr, problem: NetworkProblem) {
        for route in self.router.handle_network_problem(peer, problem) {
            for channel in ChannelIndex::ALL {
                let Some(tree) = self.trees.get_mut(&route) else { continue };
                let mut out = self.spare.take().unwrap_or_default();
                tree.channels[channel.index()].handle_network_problem(now, problem, &mut out);
                self.take_channel(now, route, channel, out);
            }
        }
        self.settle(now);
    }

    /// The network says that the path to `peer` takes datagrams of `datagram_max` bytes only.
    /// 0 = it does not say how large.
    pub fn path_size(&mut self, now: Instant, peer: SocketAddr, datagram_max: usize) {
        let told = self.router.handle_path_size(now, peer, datagram_max);
        let Some((path, routes)) = told else { return };
        for route in routes {
            for channel in ChannelIndex::ALL {
                let Some(tree) = self.trees.get_mut(&route) else { continue };
                let mut out = self.spare.take().unwrap_or_default();
                tree.channels[channel.index()].handle_path_size(now, &path, &mut out);
                self.take_channel(now, route, channel, out);
            }
        }
        self.settle(now);
    }

    /// Works out pending verifications to the end.
    pub fn finish_verifications(&mut self, now: Instant) {
        for (route, future) in std::mem::take(&mut self.verifications) {
            let result = futures::executor::block_on(future);
            let Some(tree) = self.trees.get_mut(&route) else { continue };
            let mut out = ConnectionOutput::default();
            tree.connection.handle_verified(now, result, &mut out);
            self.take_connection(now, route, out);
        }
        self.settle(now);
    }

    /// Closes one connection.
    pub fn close_connection(&mut self, now: Instant, route: RouteId) {
        if let Some(tree) = self.trees.get_mut(&route) {
            let mut out = ConnectionOutput::default();
            tree.connection.close(&mut out);
            self.take_connection(now, route, out);
        }
        self.settle(now);
    }

    /// A connection takes no new calls any more; those that run go on.
    pub fn drain_connection(&mut self, now: Instant, route: RouteId) {
        for index in ChannelIndex::ALL {
            self.queue.push_back(Message::ToChannel(route, index, ConnectionToChannel::Drain));
        }
        self.settle(now);
    }

    /// Closes everything.
    pub fn close(&mut self, now: Instant) {
        self.router.close();
        let routes: Vec<_> = self.trees.keys().copied().collect();
        for route in routes {
            self.close_connection(now, route);
        }
    }

    /// A channel breaks and is replaced, as the actors' connection does it after a panic.
    pub fn break_channel(&mut self, now: Instant, route: RouteId, index: ChannelIndex) {
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let channel = &mut tree.channels[index.index()];
        let memory = channel.memory();
        let call = CallRef { route, channel: index, tag: channel.tag() };
        if channel.state().is_some() {
            self.notices.push((call, Notice::Failed(CallFailure::Broken)));
        }
        *channel = Channel::new(ChannelSetup { index, memory, ..tree.setup.clone() }, now);
        tree.published[index.index()] = Published::default();
        let mut out = ConnectionOutput::default();
        tree.connection.handle_channel_replaced(now, index, memory, &mut out);
        // What the one before it held is gone with it.
        self.router.note_holding(now, route, index, Holding::default());
        self.relieve();
        self.take_connection(now, route, out);
        self.settle(now);
    }

    /// The router's own events are wanted from now on.
    pub fn keep_router_events(&mut self) {
        self.router.keep_events();
    }

    /// The router's own events since the last call of this: connections, limits, what was dropped.
    pub fn take_router_events(&mut self) -> Vec<(Origin, Event)> {
        self.router.take_events()
    }

    /// Datagrams that left, in order, since the last call of this.
    pub fn take_sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.take_sent_datagrams().into_iter().map(|sent| (sent.to, sent.datagram)).collect()
    }

    /// As [`InlineEndpoint::take_sent`], with what the network is told besides.
    pub fn take_sent_datagrams(&mut self) -> Vec<SentDatagram> {
        std::mem::take(&mut self.sent)
    }

    /// What connections send stays in batches from now on, as a socket with segmentation offload wants it: take
    /// it with [`InlineEndpoint::take_batches`].
    pub fn keep_batches(&mut self) {
        self.batches.get_or_insert_default();
    }

    /// Batches that left, in order, since the last call of this: the peer, the datagrams one behind the other,
    /// and the size of each but the last.
    pub fn take_batches(&mut self) -> Vec<(SocketAddr, Vec<u8>, usize)> {
        let answers = self.sent.drain(..).map(|SentDatagram { to, datagram, .. }| {
            let segment = datagram.len();
            (to, datagram, segment)
        });
        let mut batches = self.batches.as_mut().map(std::mem::take).unwrap_or_default();
        batches.extend(answers);
        batches
    }

    /// What applications were told since the last call of this.
    pub fn take_notices(&mut self) -> Vec<(CallRef, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// Events since the last call of this. What the router ignored is in [`InlineEndpoint::counters`] only.
    pub fn take_events(&mut self) -> Vec<(Origin, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Calls that got a channel since the last call of this.
    pub fn take_started(&mut self) -> Vec<(StartToken, CallRef)> {
        std::mem::take(&mut self.started)
    }

    /// Calls that never got one, and why.
    pub fn take_refused(&mut self) -> Vec<(StartToken, CallFailure)> {
        std::mem::take(&mut self.refused)
    }

    /// Calls that want another connection.
    pub fn take_returned(&mut self) -> Vec<StartToken> {
        std::mem::take(&mut self.returned)
    }

    /// Totals.
    pub fn counters(&self) -> &Counters {
        self.router.counters()
    }

    /// The router.
    pub fn router(&self) -> &Router<()> {
        &self.router
    }

    /// Connections alive.
    pub fn routes(&self) -> Vec<RouteId> {
        self.trees.keys().copied().collect()
    }

    /// Names of a connection.
    pub fn ids(&self, route: RouteId) -> Option<ConnectionIds> {
        self.trees.get(&route).map(|tree| tree.ids)
    }

    /// A channel.
    pub fn channel(&self, route: RouteId, index: ChannelIndex) -> Option<&Channel> {
        self.trees.get(&route).map(|tree| &tree.channels[index.index()])
    }

    /// All channels of all connections.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.trees.values().flat_map(|tree| &tree.channels)
    }

    pub(in crate::testkit) fn channels_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.trees.values_mut().flat_map(|tree| &mut tree.channels)
    }

    /// Breaks the endpoint: it does not know any more when its channels want their turns.
    pub(in crate::testkit) fn forget_deadlines(&mut self) {
        while let Some(at) = self.router.next_deadline()
            && self.router.pop_due(at + Duration::from_secs(1 << 20)).is_some()
        {}
    }

    /// Why a connection failed, if it has.
    pub fn failure(&self, route: RouteId) -> Option<ConnectionFailure> {
        self.trees.get(&route)?.connection.failure()
    }

    /// The serial that a connection's next packet will carry.
    pub fn next_serial(&self, route: RouteId) -> Option<Serial> {
        self.trees.get(&route).map(|tree| tree.serials.peek())
    }

    /// Sets what a channel remembers, for tests of call numbers. The channel must be idle.
    pub fn set_last_call(
        &mut self,
        now: Instant,
        route: RouteId,
        index: ChannelIndex,
        last: CallNumber,
    ) {
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let mut memory = tree.channels[index.index()].memory();
        memory.last = last;
        tree.channels[index.index()] =
            Channel::new(ChannelSetup { index, memory, ..tree.setup.clone() }, now);
        let mut out = ConnectionOutput::default();
        let word = ChannelToConnection::CallOver { last, avoid: false };
        tree.connection.handle_channel(now, index, word, &mut out);
        self.take_connection(now, route, out);
    }

    fn open(&mut self, now: Instant, opening: Opening) {
        let route = self.router.insert_server(now, &opening, ());
        let serials = SerialCounter::starting_at(self.first_serial);
        let security = match opening.handshake {
            Handshake::Server(_) => Security::Pending,
            _ => Security::Ready(None),
        };
        let setup = ChannelSetup {
            role: Role::Server,
            epoch: opening.ids.epoch,
            cid: opening.ids.cid,
            index: ChannelIndex::ALL[0],
            security_index: opening.ids.security_index,
            service_id: opening.service_id,
            config: Arc::new(self.config.server.call.clone()),
            serials: serials.clone(),
            security,
            needs_reach: opening.needs_reach,
            hint: opening.hint.into(),
            memory: Default::default(),
        };
        let connection = Connection::new(
            ConnectionSetup {
                role: Role::Server,
                ids: opening.ids,
                config: Arc::new(self.config.server.clone()),
                serials,
                handshake: opening.handshake,
                asks_upgrade: false,
                entropy: fixed_entropy(self.entropy),
            },
            now,
        );
        self.insert_tree(now, route, opening.ids, connection, setup);
    }

    fn insert_tree(
        &mut self,
        now: Instant,
        route: RouteId,
        ids: ConnectionIds,
        connection: Connection<Work>,
        setup: ChannelSetup,
    ) {
        let channels = ChannelIndex::ALL
            .map(|index| Channel::new(ChannelSetup { index, ..setup.clone() }, now));
        let deadline = connection.next_deadline();
        let serials = setup.serials.clone();
        let is_client = setup.role == Role::Client;
        let watches = ChannelIndex::ALL
            .map(|index| Watch::new(is_client, ids.epoch, ids.cid.with_channel(index)));
        let published = [Published::default(); ChannelIndex::COUNT + 1];
        let tree = Tree { connection, channels, ids, serials, setup, watches, published };
        self.trees.insert(route, tree);
        if self.turn_by_turn.is_some() {
            return self.enter_line(route);
        }
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let deadline = tree.published[ChannelIndex::COUNT].news(deadline, false);
        self.router.set_deadline(Waker::Connection(route), deadline);
    }

    fn control(&mut self, now: Instant, route: RouteId, datagram: &[u8]) {
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let mut out = ConnectionOutput::default();
        tree.connection.handle_control(now, self.wall_clock, datagram, &mut out);
        self.take_connection(now, route, out);
    }

    /// Messages between the parts, until there are none: each part empties its mailbox before the next has
    /// its turn, in the order in which they were first written to, as actors of one thread do.
    fn settle(&mut self, now: Instant) {
        loop {
            self.empty_mailboxes(now);
            if self.closed.is_empty() {
                return;
            }
            for route in std::mem::take(&mut self.closed) {
                self.trees.remove(&route);
                self.router.remove(now, route);
            }
            self.relieve();
        }
    }

    fn empty_mailboxes(&mut self, now: Instant) {
        while let Some(first) = self.queue.front() {
            let whose = first.to();
            let next = |queue: &VecDeque<Message>| queue.iter().position(|it| it.to() == whose);
            while let Some(message) = next(&self.queue).and_then(|at| self.queue.remove(at)) {
                self.handle(now, message);
            }
        }
    }

    fn handle(&mut self, now: Instant, message: Message) {
        match message {
            Message::Due(Waker::Connection(route)) => {
                let Some(tree) = self.trees.get_mut(&route) else { return };
                let mut out = ConnectionOutput::default();
                tree.published[ChannelIndex::COUNT].fired();
                tree.connection.handle_deadline(now, &mut out);
                self.take_connection(now, route, out);
            }
            Message::Due(Waker::Channel(route, channel)) => {
                let Some(tree) = self.trees.get_mut(&route) else { return };
                let mut out = self.spare.take().unwrap_or_default();
                tree.published[channel.index()].fired();
                tree.channels[channel.index()].handle_deadline(now, &mut out);
                self.take_channel(now, route, channel, out);
            }
            Message::ToConnection(route, index, word) => {
                let Some(tree) = self.trees.get_mut(&route) else { return };
                let mut out = ConnectionOutput::default();
                tree.connection.handle_channel(now, index, word, &mut out);
                self.take_connection(now, route, out);
            }
            Message::ToChannel(route, index, word) => {
                let Some(tree) = self.trees.get_mut(&route) else { return };
                let mut out = self.spare.take().unwrap_or_default();
                tree.channels[index.index()].handle_connection(now, word, &mut out);
                self.take_channel(now, route, index, out);
            }
            Message::Room(route, index) => {
                let Some(tree) = self.trees.get_mut(&route) else { return };
                let mut out = self.spare.take().unwrap_or_default();
                tree.channels[index.index()].handle_room(now, &mut out);
                self.take_channel(now, route, index, out);
            }
            Message::Turn(route, index, tag, turn) => self.give_turn(now, route, index, tag, turn),
            Message::Start(route, index, work, asks_upgrade) => {
                self.begin(now, route, index, work, asks_upgrade);
            }
            Message::AskIdle(route) => {
                for index in ChannelIndex::ALL {
                    let Some(tree) = self.trees.get_mut(&route) else { break };
                    let since = tree.channels[index.index()].idle_since();
                    let mut out = ConnectionOutput::default();
                    tree.connection.handle_idle(now, index, since, &mut out);
                    self.take_connection(now, route, out);
                }
            }
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        route: RouteId,
        index: ChannelIndex,
        work: Work,
        asks_upgrade: bool,
    ) {
        self.waiting.remove(&work.token);
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let mut out = self.spare.take().unwrap_or_default();
        let channel = &mut tree.channels[index.index()];
        // Waiting has used up some of the time.
        let waited = now.saturating_duration_since(work.asked_at);
        let deadline = work.start.deadline.map(|deadline| deadline.saturating_sub(waited));
        let start = Start { asks_upgrade, deadline, ..work.start };
        channel.handle_start(now, start, &mut out);
        let call = CallRef { route, channel: index, tag: channel.tag() };
        self.started.push((work.token, call));
        self.take_channel(now, route, index, out);
    }

    fn take_channel(
        &mut self,
        now: Instant,
        route: RouteId,
        index: ChannelIndex,
        mut out: Box<ChannelOutput>,
    ) {
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let mut over = Vec::new();
        while !out.notices.is_empty() {
            for (tag, notice) in std::mem::take(&mut out.notices) {
                let call = CallRef { route, channel: index, tag };
                if let Some(answering) = &mut self.answering
                    && let Some(command) = answering(call, &notice)
                {
                    let channel = &mut tree.channels[index.index()];
                    channel.handle_command(now, tag, command, &mut out);
                }
                over.extend(is_over(&notice).then_some(call));
                self.notices.push((call, notice));
            }
        }
        let origin = Origin { epoch: tree.ids.epoch, cid: tree.ids.cid.with_channel(index) };
        let channel = &tree.channels[index.index()];
        tree.watches[index.index()].note(channel);
        let sends = !out.datagrams.is_empty();
        let deadline = tree.published[index.index()].news(channel.next_deadline(), sends);
        let (number, state) = (channel.call_number(), channel.state());
        let serial = channel.last_serial();
        let brief = ChannelBrief { number, state, serial, sealed: channel.sealed_traffic() };
        self.router.counters_mut().duplicates += u64::from(std::mem::take(&mut out.duplicates));
        self.router.set_brief(route, index, brief);
        self.router.learn(now, route, &std::mem::take(&mut out.peer));
        self.send(now, route, &mut out.datagrams.take());
        self.record(route, origin, std::mem::take(&mut out.events));
        for word in out.connection.drain(..) {
            self.queue.push_back(Message::ToConnection(route, index, word));
        }
        self.router.set_deadline(Waker::Channel(route, index), deadline);
        if let Some(holding) = out.holding.take() {
            self.router.note_holding(now, route, index, holding);
        }
        let word = out.turn.take();
        debug_assert!(out.is_empty(), "a step leaves nothing to another channel's");
        self.spare = Some(out);
        self.relieve();
        for call in over {
            self.end_turn(call);
        }
        if let Some(word) = word
            && let Some((tag, turn)) = self.router.handle_turn_word(route, index, word)
        {
            let turn = match turn {
                Turn::Now => Ok(()),
                Turn::Refused(code) => Err(code),
                Turn::Waits => return,
            };
            self.queue.push_back(Message::Turn(route, index, tag, turn));
        }
    }

    fn give_turn(
        &mut self,
        now: Instant,
        route: RouteId,
        index: ChannelIndex,
        tag: CallTag,
        turn: Result<(), AbortCode>,
    ) {
        let mut out = self.spare.take().unwrap_or_default();
        let mut takes = false;
        let mut service_id = None;
        if let Some(tree) = self.trees.get_mut(&route) {
            service_id = Some(tree.setup.service_id);
            takes = tree.channels[index.index()].handle_turn(now, tag, turn, &mut out);
        }
        let call = CallRef { route, channel: index, tag };
        if let Some(service_id) = service_id.filter(|_| turn.is_ok()) {
            self.turns.insert(call, service_id);
            if !takes {
                self.end_turn(call);
            }
        }
        self.take_channel(now, route, index, out);
    }

    /// The application has answered the call, or the call is over.
    fn end_turn(&mut self, call: CallRef) {
        let Some(service_id) = self.turns.remove(&call) else { return };
        self.router.end_turn(service_id);
        self.give_next_turns(service_id);
    }

    fn give_next_turns(&mut self, service_id: ServiceId) {
        while let Some((route, index, tag)) = self.router.next_turn(service_id) {
            self.queue.push_back(Message::Turn(route, index, tag, Ok(())));
        }
    }

    fn relieve(&mut self) {
        while let Some((route, index)) = self.router.next_relieved() {
            self.queue.push_back(Message::Room(route, index));
        }
    }

    fn take_connection(&mut self, now: Instant, route: RouteId, mut out: ConnectionOutput<Work>) {
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let origin = Origin { epoch: tree.ids.epoch, cid: tree.ids.cid };
        let sends = !out.datagrams.is_empty();
        let known = &mut tree.published[ChannelIndex::COUNT];
        let deadline = known.news(tree.connection.next_deadline(), sends);
        let report = PeerReport { proved: out.proved, ..PeerReport::default() };
        self.router.learn(now, route, &report);
        self.send(now, route, &mut out.datagrams.take());
        self.record(route, origin, out.events);
        for (index, word) in out.channels {
            self.queue.push_back(Message::ToChannel(route, index, word));
        }
        for (index, work, asks_upgrade) in out.starts {
            self.queue.push_back(Message::Start(route, index, work, asks_upgrade));
        }
        for (work, failure) in out.refused {
            self.waiting.remove(&work.token);
            self.refused.push((work.token, failure));
        }
        for work in out.returned {
            self.waiting.remove(&work.token);
            self.returned.push(work.token);
        }
        if let Some(security) = out.secured {
            self.router.set_security(route, security, true);
        }
        if let Some(future) = out.verification {
            self.verifications.push((route, future));
        }
        if out.asks_idle {
            self.queue.push_back(Message::AskIdle(route));
        }
        if out.closes {
            self.router.start_closing(route);
            self.closed.push(route);
        }
        self.router.set_deadline(Waker::Connection(route), deadline);
    }

    fn send(&mut self, now: Instant, route: RouteId, datagrams: &mut crate::proto::Datagrams) {
        if let Some(batches) = &mut self.batches
            && let Some((batch, bytes)) = datagrams.take_only_batch()
        {
            let admitted = self.router.admit(now, route, batch.count, &bytes);
            if let Some(peer) = admitted {
                self.router.counters_mut().record_sent(batch.segment, &bytes);
                batches.push((peer, bytes, batch.segment));
            }
            return;
        }
        for (batch, bytes) in datagrams.batches() {
            // By batch, as the endpoint's egress does it: an unproved peer gets all of one or nothing.
            let Some(peer) = self.router.admit(now, route, batch.count, bytes) else {
                continue;
            };
            self.router.counters_mut().record_sent(batch.segment, bytes);
            if let Some(batches) = &mut self.batches {
                batches.push((peer, bytes.to_vec(), batch.segment));
                continue;
            }
            let each = crate::net::cut(bytes, batch.segment);
            self.sent.extend(each.map(|datagram| SentDatagram {
                to: peer,
                datagram: datagram.to_vec(),
                may_fragment: batch.may_fragment,
            }));
        }
    }

    fn note_answers(&mut self, out: &mut RouterOutput) {
        self.sent.extend(out.answers.drain(..).map(|(to, datagram)| SentDatagram {
            to,
            datagram,
            may_fragment: false,
        }));
    }

    fn record(&mut self, route: RouteId, origin: Origin, events: Vec<Event>) {
        for event in events {
            self.router.record(route, &event);
            self.events.push((origin, event));
        }
    }
}

/// Whether an application hears nothing more of its call.
fn is_over(notice: &Notice) -> bool {
    matches!(notice, Notice::Failed(_) | Notice::Acknowledged(_))
}

/// The same bytes each time: worlds made of inline endpoints repeat exactly.
fn fixed_entropy(entropy: Entropy) -> EntropySource {
    EntropySource::new(move || entropy)
}
