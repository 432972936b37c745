//! What the actors say to each other. Imperative downward, past tense upward; all by `do_send`.

use std::sync::Arc;
use std::time::Instant;

use actix::Message;
use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use smallvec::SmallVec;

use super::Channel;
use super::lifetime::ArcAddr;
use super::local_endpoint::Target;
use super::local_endpoint::siblings::Siblings;
use super::snapshot::SnapshotPart;
use crate::client::port::ClientPort;
use crate::error::{CloseReason, ConnectError, ShutdownReport};
use crate::net::Incoming;
use crate::proto::channel::{ChannelToConnection, Command, Run, Start};
use crate::proto::connection::ConnectionToChannel;
use crate::proto::event::{CallTally, Event, Origin};
use crate::proto::path::PathSize;
use crate::proto::peer::{PeerHint, PeerReport};
use crate::proto::router::{ChannelBrief, RouteId, SharedTurns, Waker};
use crate::proto::{CallTag, Datagrams, Holding, NetworkProblem, TurnWord};
use crate::security::{ClientClass, SecurityBrief, Verified};
use crate::server::{Service, ServiceOptions};
use crate::wire::{AbortCode, ChannelIndex, ServiceId};

/// Endpoint to channel: packets that came together.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Packets {
    /// When they were received.
    pub at: Instant,
    /// The packets: runs that were received together.
    pub runs: SmallVec<[Run; 1]>,
    /// What is known of the peer.
    pub hint: PeerHint,
}

/// Endpoint to connection: a packet with call number 0.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Control {
    /// The datagram.
    pub datagram: Bytes,
}

/// Endpoint to connection or channel: the deadline published last has come.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Due;

/// Endpoint to channel: the network says that the peer cannot be reached.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Unreachable {
    /// What it said.
    pub problem: NetworkProblem,
}

/// Endpoint to channel: there is room again for what its call buffers.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct MoreRoom;

/// Endpoint to channel: a call of a service that runs only so many at once may run, or is refused.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Turn {
    /// Which call.
    pub tag: CallTag,
    /// Its place among those that run, or the code that it is ended with.
    pub turn: Result<RunningCall, AbortCode>,
}

/// The place of a call among those of its service that run at once: free again when this is dropped, wherever
/// the call ends up, also if it gets lost.
#[derive(Debug)]
pub struct RunningCall {
    endpoint: ArcAddr<super::LocalEndpoint>,
    service_id: ServiceId,
}

impl RunningCall {
    pub(crate) fn new(
        endpoint: ArcAddr<super::LocalEndpoint>,
        service_id: ServiceId,
    ) -> RunningCall {
        RunningCall { endpoint, service_id }
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.endpoint.do_send(TurnOver { service_id: self.service_id });
    }
}

/// Service to endpoint: a call that had its turn is over.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct TurnOver {
    /// Whose.
    pub service_id: ServiceId,
}

/// Shard to shard: a call has ended, of a service whose limit is one for all. It goes round, so that no shard's calls
/// wait for ever behind those of another.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct TurnFree {
    /// Whose.
    pub service_id: ServiceId,
    /// Shards that it still goes to.
    pub hops: usize,
}

/// Endpoint to channel: the path to the peer takes smaller datagrams than was thought.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct PathSized {
    /// What it takes now.
    pub path: PathSize,
}

/// Downward: end what runs, then yourself.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Close;

/// Downward: take no new calls, and end when the last one does.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Connection or channel to endpoint: what one step put out. Not in its mailbox, but in a queue beside it; written and
/// read where it is, since moving it costs more than all the rest of its way.
#[derive(Debug)]
pub struct Output {
    /// Whose.
    pub whose: Waker,
    /// Where its events happened.
    pub origin: Origin,
    /// To the network.
    pub datagrams: Datagrams,
    /// To whoever watches.
    pub events: Vec<Event>,
    /// Calls begun and ended that no event tells of.
    pub tally: CallTally,
    /// To the memory of the peer.
    pub peer: Option<PeerReport>,
    /// What a channel holds, where that changed much.
    pub holding: Option<Holding>,
    /// Whether a channel's call waits for its service.
    pub turn: Option<TurnWord>,
    /// The next deadline; `None` = none, or none earlier than was published before.
    pub deadline: Option<Instant>,
    /// What a channel is at.
    pub brief: Option<ChannelBrief>,
}

/// Room for events that an emptied [`Output`] keeps.
const EVENTS_KEPT_MAX: usize = 16;

impl Output {
    /// None yet.
    pub fn new(whose: Waker, origin: Origin) -> Output {
        Output {
            whose,
            origin,
            datagrams: Datagrams::default(),
            events: Vec::new(),
            tally: CallTally::default(),
            peer: None,
            holding: None,
            turn: None,
            deadline: None,
            brief: None,
        }
    }

    /// Empties it for the next; `false` if something is left in it, or more memory than is worth keeping.
    pub fn clear(&mut self) -> bool {
        let Output { whose: _, origin: _, datagrams, events, tally, .. } = self;
        let is_taken = datagrams.byte_count() == 0 && events.is_empty();
        *tally = CallTally::default();
        (self.peer, self.holding, self.turn) = (None, None, None);
        (self.deadline, self.brief) = (None, None);
        is_taken && self.events.capacity() <= EVENTS_KEPT_MAX
    }
}

/// Connection to endpoint: nothing more shall come; the route's key stays taken until the lease ends.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Draining {
    /// Which.
    pub route: RouteId,
}

/// Connection to endpoint: the client has proved itself.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Secured {
    /// The connection.
    pub route: RouteId,
    /// What its class says of it.
    pub security: SecurityBrief,
}

/// Connection to endpoint: a channel broke and another has taken its place.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ChannelReplaced {
    /// The connection.
    pub route: RouteId,
    /// The place.
    pub index: ChannelIndex,
    /// The new channel.
    pub channel: ArcAddr<Channel>,
}

/// Channel to connection: a word of the core.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ChannelSays {
    /// Which channel.
    pub index: ChannelIndex,
    /// The word.
    pub word: ChannelToConnection,
}

/// Connection to channel: a word of the core.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ConnectionSays {
    /// The word.
    pub word: ConnectionToChannel,
}

/// Connection to channel: since when are you idle?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct AskIdle;

/// Channel to connection: since then; `None` = it has a call.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct IdleSince {
    /// Which channel.
    pub index: ChannelIndex,
    /// Since when.
    pub since: Option<Instant>,
}

/// A verification that took its time is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct VerificationDone {
    /// Its result.
    pub result: Result<Verified, AbortCode>,
}

/// User to channel: make a call. A channel that may not begin it now hands it on to its connection; where users have
/// no channel any more, they ask the connection themselves.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StartCall {
    /// Names the call towards its connection, for [`CancelCall`].
    pub key: CallKey,
    /// The channel that the user takes for its own.
    pub index: ChannelIndex,
    /// The call.
    pub start: Start,
    /// Where its answers go.
    pub port: ClientPort,
}

/// Names a call of a connection from the moment a user asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey(pub u64);

/// User to channel or connection, where its [`StartCall`] went, and on from there in the same way: the call is not
/// wanted any more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CancelCall {
    /// Which.
    pub key: CallKey,
}

/// Connection to channel: begin this call.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Begin {
    /// Which.
    pub key: CallKey,
    /// The call.
    pub start: Start,
    /// Where its answers go.
    pub port: ClientPort,
}

/// Connection to channel: end the call with this key, if you still have it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CancelBegun {
    /// Which.
    pub key: CallKey,
}

/// User to channel: a command for the call with this tag.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CallCommand {
    /// Which call.
    pub tag: CallTag,
    /// What.
    pub command: Command,
}

/// User to endpoint: open a client connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Connect {
    /// The peer.
    pub peer: std::net::SocketAddr,
    /// The service.
    pub service_id: ServiceId,
    /// The security class.
    pub class: std::sync::Arc<dyn ClientClass>,
    /// Whether the first call asks for a service upgrade.
    pub asks_upgrade: bool,
    /// The connection, or why not.
    pub reply: oneshot::Sender<Result<Connected, ConnectError>>,
}

/// A client connection on its way to its user: closed, if it gets lost there.
#[derive(Debug)]
pub struct Connected(Option<Arc<Target>>);

impl Connected {
    pub(crate) fn new(target: Target) -> Connected {
        Connected(Some(Arc::new(target)))
    }

    /// The connection, for somebody who will close it.
    pub(crate) fn keep(mut self) -> Option<Arc<Target>> {
        self.0.take()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(target) = &self.0 {
            target.connection.do_send(Close);
        }
    }
}

/// Shard to shard: what came to the wrong one, of one turn of its receive loop.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Strays {
    /// The shard that received it.
    pub from: usize,
    /// What was received, in order.
    pub incoming: Vec<Incoming>,
    /// What it counts for until it is taken.
    pub bytes: usize,
}

/// Shard to shard: so much is taken, since this was last said.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct StraysTaken {
    /// The shard that took it.
    pub by: usize,
    /// What it counted for.
    pub bytes: usize,
}

/// Whoever starts shards, to each of them: these are the others.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Join(pub Box<Siblings>);

/// Whoever starts shards, to each of them when all have been told of the others: begin to receive. So none can fail,
/// or hand anything over, before the others know it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Receive;

/// Shard to shard: how it ends.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ShardEnds {
    /// Which.
    pub shard: usize,
    /// How far it is.
    pub end: ShardEnd,
}

/// What a shard tells of its end.
#[derive(Clone, Copy, Debug)]
pub enum ShardEnd {
    /// It cannot go on, and nobody else shall.
    Failed(CloseReason),
    /// Its connections are gone; it stays until those of the others are.
    Finished,
    /// It is gone: in order if all had finished, else it broke.
    Gone,
}

/// User to endpoint: offer a service from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OfferService {
    /// Its id.
    pub service_id: ServiceId,
    /// What answers.
    pub service: std::sync::Arc<dyn Service>,
    /// How.
    pub options: ServiceOptions,
    /// Its calls on all shards, where there are several.
    pub turns: Option<SharedTurns>,
}

/// User to endpoint: tell me when so much time has passed. Users may be where there is no clock.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wake {
    /// How much.
    pub after: std::time::Duration,
    /// Told then.
    pub reply: oneshot::Sender<()>,
}

/// User to everybody: say what you are at.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Inspect {
    /// Where to.
    pub to: mpsc::UnboundedSender<SnapshotPart>,
}

/// User to endpoint: end, at the latest after `grace`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// How long calls that run may go on.
    pub grace: std::time::Duration,
    /// What was cut off.
    pub reply: Option<oneshot::Sender<ShutdownReport>>,
}

/// For tests of the tree: panic when this is handled.
#[cfg(feature = "testkit")]
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Break {
    /// Where: `None` = the endpoint itself.
    pub at: Option<BreakAt>,
}

/// Which actor breaks.
#[cfg(feature = "testkit")]
#[derive(Clone, Copy, Debug)]
pub enum BreakAt {
    /// The connection at this place among those alive.
    Connection(usize),
    /// A channel of the connection at this place.
    Channel(usize, ChannelIndex),
}
