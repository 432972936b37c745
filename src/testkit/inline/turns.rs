//! An inline endpoint whose parts have their turns one after the other, as the actors of one thread have them.
//!
//! Endpoint, connections, channels and users are tasks. A task that is told something gets in line, once; when it
//! has its turn it hears all that it was told, and what it says others hear in turns of theirs. What a channel or a
//! connection puts out the endpoint takes in the endpoint's turn: so what leaves, and when a channel hears of more
//! room, has the order that it has among actors (docs/architecture.md). Users are played by whoever drives the
//! endpoint: [`InlineEndpoint::next_turn`] says whose turn it is.

mod channel;
mod connection;
mod endpoint;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{CallRef, InlineEndpoint, StartToken, Work};
use crate::proto::channel::{Channel, ChannelToConnection, Command, Run, Start};
use crate::proto::connection::ConnectionToChannel;
use crate::proto::event::{CallTally, Origin};
use crate::proto::peer::{PeerHint, PeerReport};
use crate::proto::router::{ChannelBrief, Published, RouteId, Waker};
use crate::proto::{CallTag, Datagrams, Event, Holding, NetworkProblem, TurnWord};
use crate::security::{ClientClass, SecurityBrief, VerificationFuture, Verified};
use crate::wire::{AbortCode, ChannelIndex, ServiceId};

/// Somebody who uses the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::testkit) enum User {
    /// Who makes the call of this name.
    Caller(u32),
    /// The service of this call.
    Service(CallRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Endpoint,
    Connection(RouteId),
    Channel(RouteId, ChannelIndex),
    Verification(RouteId),
    User(User),
}

/// What a connection or a channel is told.
enum Letter {
    Control(Bytes),
    Says(ChannelIndex, ChannelToConnection),
    StartCall(Box<Work>),
    CancelCall(StartToken),
    IdleSince(ChannelIndex, Option<Instant>),
    Verified(Result<Verified, AbortCode>),
    ChannelGone(ChannelIndex),
    Packets(Run, PeerHint),
    ConnectionSays(ConnectionToChannel),
    Begin(Box<Work>),
    CancelBegun(StartToken),
    Command(CallTag, Command),
    AskIdle,
    Unreachable(NetworkProblem),
    MoreRoom,
    Turn(CallTag, Result<(), AbortCode>),
    Due,
    Close,
}

/// A connection that a caller asks for.
pub(in crate::testkit) struct Connecting {
    /// Who asks.
    pub user: u32,
    /// As [`InlineEndpoint::connect`] takes it.
    pub peer: SocketAddr,
    pub service_id: ServiceId,
    pub class: Arc<dyn ClientClass>,
    pub asks_upgrade: bool,
}

/// Who is asked to make a call.
#[derive(Clone, Copy, Debug)]
pub(in crate::testkit) enum Asked {
    Channel,
    Connection,
}

impl Asked {
    fn task(self, (route, index): (RouteId, ChannelIndex)) -> Task {
        match self {
            Asked::Channel => Task::Channel(route, index),
            Asked::Connection => Task::Connection(route),
        }
    }
}

/// What the endpoint is told.
enum Word {
    Connect(Box<Connecting>),
    Secured(RouteId, SecurityBrief),
    Draining(RouteId),
    ConnectionGone(RouteId),
    TurnOver(ServiceId),
}

/// What arrives.
enum Arrived {
    Datagram(SocketAddr, Bytes),
    Problem(SocketAddr, NetworkProblem),
}

/// What one step of a connection or channel put out.
struct Output {
    whose: Waker,
    origin: Origin,
    datagrams: Datagrams,
    events: Vec<Event>,
    tally: CallTally,
    peer: PeerReport,
    holding: Option<Holding>,
    turn: Option<TurnWord>,
    deadline: Option<Instant>,
    brief: Option<ChannelBrief>,
}

/// A client's call on a channel.
#[derive(Clone, Copy)]
struct Port {
    tag: CallTag,
    token: StartToken,
    user: u32,
    is_whole: bool,
}

/// What a connection and its channels are besides their cores.
#[derive(Default)]
struct Place {
    ports: [Option<Port>; ChannelIndex::COUNT],
    /// As far as the connection knows.
    running: [Option<StartToken>; ChannelIndex::COUNT],
    published: [Published; ChannelIndex::COUNT],
    connection_published: Published,
    /// Channels that have stopped.
    gone: [bool; ChannelIndex::COUNT],
    is_closing: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Turns {
    line: VecDeque<Task>,
    letters: VecDeque<(Task, Letter)>,
    words: VecDeque<Word>,
    outputs: VecDeque<Output>,
    arrived: VecDeque<Arrived>,
    verifications: VecDeque<(RouteId, VerificationFuture)>,
    places: HashMap<RouteId, Place>,
    callers: HashMap<StartToken, u32>,
    canceled: HashSet<StartToken>,
    /// Connections for callers who asked.
    connected: Vec<(u32, RouteId)>,
    has_turn: Option<Task>,
    /// The endpoint was told something in its own turn.
    again: bool,
    /// The endpoint is woken by the next output.
    listens: bool,
}

impl Turns {
    fn wake(&mut self, task: Task) {
        if self.has_turn == Some(task) {
            self.again |= task == Task::Endpoint;
        } else if !self.line.contains(&task) {
            self.line.push_back(task);
        }
    }

    fn tell(&mut self, task: Task, letter: Letter) {
        self.wake(task);
        self.letters.push_back((task, letter));
    }

    fn tell_endpoint(&mut self, word: Word) {
        self.wake(Task::Endpoint);
        self.words.push_back(word);
    }

    fn put_out(&mut self, output: Output) {
        self.outputs.push_back(output);
        if std::mem::take(&mut self.listens) {
            self.wake(Task::Endpoint);
        }
    }

    fn next_letter(&mut self, task: Task) -> Option<Letter> {
        let at = self.letters.iter().position(|(to, _)| *to == task)?;
        self.letters.remove(at).map(|(_, letter)| letter)
    }

    fn place(&mut self, route: RouteId) -> &mut Place {
        self.places.entry(route).or_default()
    }
}

/// What users and the network do.
impl InlineEndpoint {
    /// From now on the parts have their turns, and nothing happens but in [`InlineEndpoint::next_turn`].
    pub(in crate::testkit) fn take_turns(&mut self) {
        self.turn_by_turn.get_or_insert_default().listens = true;
    }

    /// Somebody has its turn; whose, if it is a user's. `None` = nobody has anything to do.
    pub(in crate::testkit) fn next_turn(&mut self, now: Instant) -> Option<User> {
        while let Some(task) = self.turns_mut().line.pop_front() {
            self.turns_mut().has_turn = Some(task);
            match task {
                Task::User(user) => {
                    self.turns_mut().has_turn = None;
                    return Some(user);
                }
                Task::Endpoint => self.endpoint_turn(now),
                Task::Verification(route) => self.verification_turn(route),
                Task::Connection(route) => {
                    while let Some(letter) = self.turns_mut().next_letter(task) {
                        self.connection_hears(now, route, letter);
                    }
                }
                Task::Channel(route, index) => {
                    while let Some(letter) = self.turns_mut().next_letter(task) {
                        self.channel_hears(now, route, index, letter);
                    }
                }
            }
            let turns = self.turns_mut();
            turns.has_turn = None;
            if std::mem::take(&mut turns.again) {
                turns.wake(Task::Endpoint);
            }
        }
        None
    }

    /// A user shall have its turn.
    pub(in crate::testkit) fn wake_user(&mut self, user: User) {
        self.turns_mut().wake(Task::User(user));
    }

    /// The endpoint shall look at the time.
    pub(in crate::testkit) fn wake_endpoint(&mut self) {
        self.turns_mut().wake(Task::Endpoint);
    }

    /// A datagram is there to be read.
    pub(in crate::testkit) fn arrive(&mut self, from: SocketAddr, datagram: Bytes) {
        let turns = self.turns_mut();
        turns.arrived.push_back(Arrived::Datagram(from, datagram));
        turns.wake(Task::Endpoint);
    }

    /// The network has a word for the endpoint.
    pub(in crate::testkit) fn arrive_problem(&mut self, peer: SocketAddr, what: NetworkProblem) {
        let turns = self.turns_mut();
        turns.arrived.push_back(Arrived::Problem(peer, what));
        turns.wake(Task::Endpoint);
    }

    /// A caller asks for a connection: [`InlineEndpoint::take_connected`] has it in a turn of the caller's.
    pub(in crate::testkit) fn ask_to_connect(&mut self, connecting: Connecting) {
        self.turns_mut().tell_endpoint(Word::Connect(Box::new(connecting)));
    }

    /// Connections that callers asked for, since the last call of this.
    pub(in crate::testkit) fn take_connected(&mut self) -> Vec<(u32, RouteId)> {
        std::mem::take(&mut self.turns_mut().connected)
    }

    /// A caller asks for a call.
    pub(in crate::testkit) fn ask_to_start(
        &mut self,
        now: Instant,
        at: (RouteId, ChannelIndex),
        asked: Asked,
        user: u32,
        start: Start,
    ) -> StartToken {
        let (route, index) = at;
        self.next_token += 1;
        let token = StartToken(self.next_token);
        self.turns_mut().callers.insert(token, user);
        if !self.trees.contains_key(&route) {
            self.returned.push(token);
            self.wake_user(User::Caller(user));
            return token;
        }
        let work = Work { token, prefers: Some(index), start, asked_at: now };
        self.turns_mut().tell(asked.task(at), Letter::StartCall(Box::new(work)));
        token
    }

    /// A caller does not want its call any more, and has heard nothing of it.
    pub(in crate::testkit) fn ask_to_cancel(
        &mut self,
        at: (RouteId, ChannelIndex),
        asked: Asked,
        token: StartToken,
    ) {
        let turns = self.turns_mut();
        turns.canceled.insert(token);
        turns.tell(asked.task(at), Letter::CancelCall(token));
    }

    /// A user speaks to its call.
    pub(in crate::testkit) fn say(&mut self, call: CallRef, command: Command) {
        let letter = Letter::Command(call.tag, command);
        self.turns_mut().tell(Task::Channel(call.route, call.channel), letter);
    }

    /// A service lets go of its call.
    pub(in crate::testkit) fn let_go(&mut self, call: CallRef) {
        if let Some(service_id) = self.turns.remove(&call) {
            self.turns_mut().tell_endpoint(Word::TurnOver(service_id));
        }
    }

    /// A connection shall close.
    pub(in crate::testkit) fn ask_to_close(&mut self, route: RouteId) {
        self.turns_mut().tell(Task::Connection(route), Letter::Close);
    }

    fn turns_mut(&mut self) -> &mut Turns {
        self.turn_by_turn.get_or_insert_default()
    }

    /// A connection and its channels begin to be: they are in line, in this order.
    pub(super) fn enter_line(&mut self, route: RouteId) {
        let deadline = self.trees.get(&route).and_then(|tree| tree.connection.next_deadline());
        let Some(tree) = self.trees.get_mut(&route) else { return };
        if tree.connection.allow_leave() {
            tree.channels.iter_mut().for_each(Channel::take_leave);
        }
        let origin = Origin { epoch: tree.ids.epoch, cid: tree.ids.cid };
        let turns = self.turns_mut();
        let deadline = turns.place(route).connection_published.news(deadline, false);
        if deadline.is_some() {
            turns.put_out(Output { deadline, ..Output::of(Waker::Connection(route), origin) });
        }
        turns.wake(Task::Connection(route));
        for index in ChannelIndex::ALL {
            turns.wake(Task::Channel(route, index));
        }
    }
}

impl Output {
    fn of(whose: Waker, origin: Origin) -> Output {
        Output {
            whose,
            origin,
            datagrams: Datagrams::default(),
            events: Vec::new(),
            tally: CallTally::default(),
            peer: PeerReport::default(),
            holding: None,
            turn: None,
            deadline: None,
            brief: None,
        }
    }
}
