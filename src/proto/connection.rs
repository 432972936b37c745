//! One connection: which channel a waiting call gets, the security phase, failure and expiry
//! (rx-calls.md 2 and 3).
//!
//! Payload, windows and sequence numbers are the channels' own. `W` is whatever the driver keeps for a call
//! that waits for a channel; it comes back untouched.

mod client;
mod leave;
mod server;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::channel::{ChannelMemory, ChannelToConnection, Security};
use super::config::ConnectionConfig;
use super::datagrams::Datagrams;
use super::{CallFailure, ConnectionFailure, DropReason, Event, Role, SerialCounter, event};
use crate::security::{
    ClientHandshake, ConnectionIds, EntropySource, Identity, SecurityBrief, ServerHandshake,
    Session, Verification, VerificationFuture, Verified,
};
use crate::wire::{
    AbortCode, CallNumber, ChannelIndex, Flags, Header, PacketType, Seq, ServiceId, decode_abort,
    encode_abort,
};

/// What a connection is made with.
#[derive(Debug)]
pub struct ConnectionSetup {
    /// Our side.
    pub role: Role,
    /// Its names.
    pub ids: ConnectionIds,
    /// Settings.
    pub config: Arc<ConnectionConfig>,
    /// Its serials, shared with its channels.
    pub serials: SerialCounter,
    /// The handshake of its class, if it has one.
    pub handshake: Handshake,
    /// Client: whether the first call asks for a service upgrade.
    pub asks_upgrade: bool,
    /// Where random bytes for its challenges and responses come from.
    pub entropy: EntropySource,
}

/// Our half of the handshake of a security class.
#[derive(Debug)]
pub enum Handshake {
    /// rxnull: none.
    None,
    /// We are the client.
    Client(Box<dyn ClientHandshake>),
    /// We are the server.
    Server(Box<dyn ServerHandshake>),
}

/// Names a call that waits for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaitKey(u64);

/// What a channel is told.
#[derive(Clone, Debug)]
pub enum ConnectionToChannel {
    /// Packets can be opened and sealed from now on.
    Secured {
        /// By this session; `None` = packets are as they are.
        session: Option<Arc<dyn Session>>,
        /// The client's call number on this channel, as its RESPONSE gave it; 0 = none.
        call_number: CallNumber,
        /// Who the client is.
        identity: Option<Arc<Identity>>,
    },
    /// Nobody answered the challenge: the waiting call is over.
    Unchallenged,
    /// The whole connection has failed or is closed.
    Failed(ConnectionFailure),
    /// The server answers for this service.
    ServiceAdopted(ServiceId),
    /// No new calls: the endpoint is shutting down.
    Drain,
    /// Client: calls may begin that come straight from users, and need not be told of if they end well.
    Leave,
    /// Client: not any more; the channel says how it stands.
    LeaveOver,
}

/// Gathers the output of one step.
pub struct ConnectionOutput<W> {
    /// To the network, in order.
    pub datagrams: Datagrams,
    /// To whoever watches.
    pub events: Vec<Event>,
    /// To the channels, in order.
    pub channels: Vec<(ChannelIndex, ConnectionToChannel)>,
    /// Calls that start now, each on its channel; `true` = it asks for a service upgrade.
    pub starts: Vec<(ChannelIndex, W, bool)>,
    /// Calls that never started.
    pub refused: Vec<(W, CallFailure)>,
    /// Calls that another connection has to take: this one is used up, failed or closing.
    pub returned: Vec<W>,
    /// The client has proved itself; what its class says of it, for DEBUG answers.
    pub secured: Option<SecurityBrief>,
    /// A verification to be worked out; its result goes to [`Connection::handle_verified`].
    pub verification: Option<VerificationFuture>,
    /// The channels shall say since when they are idle: [`Connection::handle_idle`].
    pub asks_idle: bool,
    /// The peer has proved its address.
    pub proved: bool,
    /// The connection has nothing more to do: close it.
    pub closes: bool,
}

impl<W> Default for ConnectionOutput<W> {
    fn default() -> Self {
        ConnectionOutput {
            datagrams: Datagrams::default(),
            events: Vec::new(),
            channels: Vec::new(),
            starts: Vec::new(),
            refused: Vec::new(),
            returned: Vec::new(),
            secured: None,
            verification: None,
            asks_idle: false,
            proved: false,
            closes: false,
        }
    }
}

#[derive(Debug)]
struct Waiting<W> {
    key: WaitKey,
    work: W,
    prefers: Option<ChannelIndex>,
    since: Instant,
    until: Option<Instant>,
}

/// What a client's connection knows of a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    busy: bool,
    last: CallNumber,
    /// When the peer was last known to be busy on it, until a call goes well.
    avoid: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// Secured, or without security.
    Open,
    /// Server: no CHALLENGE has been sent.
    Unsecured,
    /// Server: a CHALLENGE is out.
    Challenging { again: Option<Instant>, sent: u32 },
    /// Server: a RESPONSE is being verified.
    Verifying,
    /// Server: a RESPONSE was refused; the ABORT waits.
    Refused { code: AbortCode, at: Instant },
    /// Failed; packets are answered until the end of its time.
    Failed { failure: ConnectionFailure, until: Option<Instant> },
    /// Closed here.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Connection<W> {
    role: Role,
    ids: ConnectionIds,
    /// The service in our packets; another than asked for after an upgrade.
    service_id: ServiceId,
    config: Arc<ConnectionConfig>,
    serials: SerialCounter,
    handshake: Handshake,
    entropy: EntropySource,
    phase: Phase,
    identity: Option<Arc<Identity>>,
    /// Server: what opens and seals, for a channel that is replaced.
    session: Option<Arc<dyn Session>>,
    /// Server: the client's call numbers, as its RESPONSE gave them; the same.
    call_numbers: [CallNumber; ChannelIndex::COUNT],
    /// Server: the two clocks when the RESPONSE came: the session's end is told by the one on the wall.
    response_came: Option<(Instant, SystemTime)>,
    /// Server: when its session ends, and the code that says so.
    session_end: Option<(Instant, AbortCode)>,
    slots: [Slot; ChannelIndex::COUNT],
    waiting: VecDeque<Waiting<W>>,
    next_key: u64,
    /// Client: the first call asks for an upgrade and has not been answered.
    upgrade: Upgrade,
    leave: leave::Leave,
    /// Server: channels whose call waits for security, a bit each.
    unsecured_calls: u8,
    idle_since: Instant,
    /// Server: answers to the question how long the channels have been idle.
    idle_answers: Option<Box<IdleAnswers>>,
    idle_due: Option<Instant>,
    /// Server: a call has reached its service. One that never had such a call is not kept for long.
    is_served: bool,
    failures_answered: u32,
    failure_answered_at: Option<Instant>,
}

/// Since when each channel is idle, as far as they have said so.
type IdleAnswers = [Option<Option<Instant>>; ChannelIndex::COUNT];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    No,
    Wanted,
    Asked,
}

impl<W> Connection<W> {
    /// A connection without calls.
    pub fn new(setup: ConnectionSetup, now: Instant) -> Connection<W> {
        let phase = match &setup.handshake {
            Handshake::Server(_) => Phase::Unsecured,
            _ => Phase::Open,
        };
        let idle = match setup.role {
            Role::Client => setup.config.client_idle,
            Role::Server => setup.config.unserved_idle.min(setup.config.server_idle),
        };
        Connection {
            role: setup.role,
            ids: setup.ids,
            service_id: setup.ids.service_id,
            config: setup.config,
            serials: setup.serials,
            handshake: setup.handshake,
            entropy: setup.entropy,
            phase,
            identity: None,
            session: None,
            call_numbers: [CallNumber::NONE; ChannelIndex::COUNT],
            response_came: None,
            session_end: None,
            slots: [Slot::default(); ChannelIndex::COUNT],
            waiting: VecDeque::new(),
            next_key: 0,
            upgrade: if setup.asks_upgrade { Upgrade::Wanted } else { Upgrade::No },
            leave: leave::Leave::default(),
            unsecured_calls: 0,
            idle_since: now,
            idle_answers: None,
            idle_due: later_by(now, idle),
            is_served: false,
            failures_answered: 0,
            failure_answered_at: None,
        }
    }

    /// A packet with call number 0.
    pub fn handle_control(
        &mut self,
        now: Instant,
        wall_clock: SystemTime,
        datagram: &[u8],
        out: &mut ConnectionOutput<W>,
    ) {
        let Some(header) = Header::decode(datagram) else {
            return out.events.push(DropReason::TooShort.into());
        };
        let payload = &datagram[crate::wire::HEADER_LEN..];
        match (header.packet_type, self.role) {
            (PacketType::Abort, _) => self.handle_abort(now, payload, out),
            (PacketType::Challenge, Role::Client) => self.handle_challenge(now, payload, out),
            (PacketType::Response, Role::Server) => {
                self.handle_response(now, wall_clock, payload, out);
            }
            _ => out.events.push(DropReason::WrongDirection.into()),
        }
    }

    /// A word of one of the channels.
    pub fn handle_channel(
        &mut self,
        now: Instant,
        index: ChannelIndex,
        word: ChannelToConnection,
        out: &mut ConnectionOutput<W>,
    ) {
        match word {
            ChannelToConnection::CallOver { last, avoid } => {
                self.unsecured_calls &= !bit(index);
                let slot = &mut self.slots[index.index()];
                slot.busy = false;
                slot.last = last;
                slot.avoid = avoid.then_some(now);
                self.leave.misplaced &= !bit(index);
                self.idle_since = now;
                if self.upgrade == Upgrade::Asked {
                    // The call that asked is over without an answer: the next one asks.
                    self.upgrade = Upgrade::Wanted;
                }
                self.start_waiting(now, out);
                self.note_idle(now);
                self.give_leave(out);
            }
            ChannelToConnection::Stands { last, idle_since } => {
                self.hear_stand(now, index, last, idle_since, out);
            }
            ChannelToConnection::Busy => self.slots[index.index()].avoid = Some(now),
            ChannelToConnection::NeedsSecurity => self.challenge_for(now, index, out),
            ChannelToConnection::Served => self.is_served = true,
            ChannelToConnection::ServiceAdopted(service_id) => {
                self.adopt_service(now, index, service_id, out);
            }
            ChannelToConnection::DataAfterFailure => self.answer_failed(now, out),
        }
    }

    /// A channel was lost and another took its place, with this memory: its call is over.
    pub fn handle_channel_replaced(
        &mut self,
        now: Instant,
        index: ChannelIndex,
        memory: ChannelMemory,
        out: &mut ConnectionOutput<W>,
    ) {
        // What the channels were told, it was not; before it gets a call.
        match (&self.phase, &self.handshake) {
            (Phase::Failed { failure, .. }, _) => {
                out.channels.push((index, ConnectionToChannel::Failed(*failure)));
            }
            (Phase::Closed, _) => {
                let failure = ConnectionFailure::Closed;
                out.channels.push((index, ConnectionToChannel::Failed(failure)));
            }
            (Phase::Open, Handshake::Server(_)) => {
                let secured = ConnectionToChannel::Secured {
                    session: self.session.clone(),
                    // The one before may never have heard of it: what it says is over must not run.
                    call_number: self.call_numbers[index.index()],
                    identity: self.identity.clone(),
                };
                out.channels.push((index, secured));
            }
            _ => {}
        }
        if self.service_id != self.ids.service_id {
            out.channels.push((index, ConnectionToChannel::ServiceAdopted(self.service_id)));
        }
        self.end_leave_for_good(index);
        let word = ChannelToConnection::CallOver { last: memory.last, avoid: true };
        self.handle_channel(now, index, word, out);
        self.go_on_with_known_channels(now, out);
    }

    /// Time has come to `now`.
    pub fn handle_deadline(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        self.expire_waiting(now, out);
        match self.phase {
            Phase::Challenging { again: Some(again), .. } if again <= now => {
                self.challenge_again(now, out);
            }
            Phase::Refused { code, at } if at <= now => self.refuse(now, code, out),
            Phase::Open => self.end_session(now, out),
            Phase::Failed { failure, until: Some(until) } if until <= now => {
                // Once: whoever drives it may take its time to close it.
                self.phase = Phase::Failed { failure, until: None };
                out.closes = true;
            }
            _ => {}
        }
        if self.idle_due.is_some_and(|due| due <= now) {
            self.expire_idle(now, out);
        }
    }

    /// When time alone is the next input; `None` = never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Challenging { again, .. } => again,
            Phase::Refused { at, .. } => Some(at),
            Phase::Failed { until, .. } => until,
            Phase::Open => self.session_end.map(|(at, _)| at),
            _ => None,
        };
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.until).min();
        [phase, waiting, self.idle_due].into_iter().flatten().min()
    }

    /// Ends the connection: calls that run are cut off, final ACKs leave, calls that wait are refused.
    pub fn close(&mut self, out: &mut ConnectionOutput<W>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        for index in ChannelIndex::ALL {
            out.channels.push((index, ConnectionToChannel::Failed(ConnectionFailure::Closed)));
        }
        for waiting in self.waiting.drain(..) {
            out.refused.push((waiting.work, CallFailure::Closed));
        }
        self.phase = Phase::Closed;
        self.idle_due = None;
        out.closes = true;
    }

    /// Our side cannot go on: the peer is told, and the calls fail.
    pub fn give_up(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        let code = AbortCode::CALL_DEAD;
        self.send_abort(code, out);
        self.fail(now, ConnectionFailure::Closed, out);
    }

    /// Its names.
    pub fn ids(&self) -> ConnectionIds {
        self.ids
    }

    /// The service in its packets: another than asked for after an upgrade.
    pub fn service_id(&self) -> ServiceId {
        self.service_id
    }

    /// Server: who the client is, once it has proved itself.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Calls that wait for a channel.
    pub fn waiting_calls(&self) -> usize {
        self.waiting.len()
    }

    /// Why it failed, if it has.
    pub fn failure(&self) -> Option<ConnectionFailure> {
        match self.phase {
            Phase::Failed { failure, .. } => Some(failure),
            Phase::Closed => Some(ConnectionFailure::Closed),
            _ => None,
        }
    }

    /// What a channel made now has to be told of security.
    pub fn is_secured(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn handle_abort(&mut self, now: Instant, payload: &[u8], out: &mut ConnectionOutput<W>) {
        let Some(code) = decode_abort(payload) else {
            return out.events.push(DropReason::PayloadShort.into());
        };
        out.events.push(Event::Aborted(event::Aborted {
            number: CallNumber::NONE,
            code,
            sent: false,
        }));
        // Never an abort for an abort (S-109).
        self.fail(now, ConnectionFailure::PeerAborted(code), out);
    }

    fn fail(&mut self, now: Instant, failure: ConnectionFailure, out: &mut ConnectionOutput<W>) {
        if matches!(self.phase, Phase::Failed { .. } | Phase::Closed) {
            return;
        }
        out.events.push(Event::ConnectionFailed(event::ConnectionFailed { failure }));
        for index in ChannelIndex::ALL {
            out.channels.push((index, ConnectionToChannel::Failed(failure)));
        }
        for waiting in self.waiting.drain(..) {
            out.refused.push((waiting.work, failure.of_call()));
        }
        let until = Some(now + self.config.aborted_linger);
        self.phase = Phase::Failed { failure, until };
        self.idle_due = None;
    }

    /// The peer does not know that the connection has failed; tell it again, but not without end.
    fn answer_failed(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        let Phase::Failed { failure, .. } = self.phase else { return };
        let call = &self.config.call;
        let due = self.failure_answered_at.is_none_or(|at| now >= at + call.abort_interval);
        if self.failures_answered >= call.abort_burst && !due {
            return out.events.push(DropReason::Throttled.into());
        }
        self.failures_answered += 1;
        self.failure_answered_at = Some(now);
        self.send_abort(failure.code(), out);
    }

    fn send_abort(&mut self, code: AbortCode, out: &mut ConnectionOutput<W>) {
        out.datagrams.push(&self.header(PacketType::Abort), &encode_abort(code));
        out.events.push(Event::Aborted(event::Aborted {
            number: CallNumber::NONE,
            code,
            sent: true,
        }));
    }

    fn expire_idle(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        if !self.knows_channels(out) {
            self.idle_due = None;
            return self.keep_idle_due();
        }
        match self.role {
            Role::Client
                if self.is_unused()
                    && now.saturating_duration_since(self.idle_since)
                        >= self.config.client_idle =>
            {
                self.close(out);
            }
            Role::Client => self.note_idle(now),
            Role::Server => {
                self.idle_answers = None;
                self.idle_due = None;
                out.asks_idle = true;
            }
        }
    }

    fn is_unused(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(|slot| !slot.busy)
    }

    fn note_idle(&mut self, now: Instant) {
        if self.role == Role::Client && matches!(self.phase, Phase::Open) {
            // Set once and checked when it fires: calls come and go without touching a timer.
            let since = if self.is_unused() { self.idle_since } else { now };
            let due = later_by(since, self.config.client_idle);
            if self.idle_due.is_none_or(|held| held <= now) {
                self.idle_due = due;
            }
        }
    }

    fn header(&self, packet_type: PacketType) -> Header {
        Header {
            epoch: self.ids.epoch,
            cid: self.ids.cid,
            call_number: CallNumber::NONE,
            seq: Seq(0),
            serial: self.serials.next(),
            packet_type,
            flags: Flags::NONE.with_if(self.role == Role::Client, Flags::CLIENT_INITIATED),
            user_status: 0,
            security_index: self.ids.security_index,
            cksum: 0,
            service_id: self.service_id,
        }
    }
}

/// What a channel of the connection starts with.
pub fn initial_security(handshake: &Handshake, session: Option<Arc<dyn Session>>) -> Security {
    match handshake {
        Handshake::Server(_) => Security::Pending,
        _ => Security::Ready(session),
    }
}

fn bit(index: ChannelIndex) -> u8 {
    1 << index.index()
}

/// `None` = beyond the end of the clock: never.
fn later_by(now: Instant, delay: Duration) -> Option<Instant> {
    now.checked_add(delay)
}
