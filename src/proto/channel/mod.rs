//! One channel of a connection, for the connection's life: its call numbers, the memory of its last call,
//! and the present call.
//!
//! Inputs are runs of packets, commands of the application, words of the connection, and the passing of
//! time; each carries `now`. Outputs gather in a [`ChannelOutput`]; [`Channel::next_deadline`] says when
//! time itself is the next input. Nothing here knows a socket, a clock or an actor. Whoever drives it hands
//! the inputs over one at a time, which is all that the order of a channel needs (rx-race.md 4).

mod acks;
mod choices;
mod client;
mod deadlines;
#[cfg(feature = "testkit")]
pub mod exploring;
mod memory;
mod output;
mod receive;
mod server;
mod sizes;
mod transmit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use memory::{ChannelMemory, LastEnd};
pub use output::{ChannelOutput, ChannelToConnection, Incoming, Notice, Pieces};

use self::choices::Choices;
use super::call::{Call, CallState, TurnState};
use super::config::CallConfig;
use super::connection::ConnectionToChannel;
use super::peer::{PeerHint, PeerReport};
use super::{
    CallFailure, CallTag, ConnectionFailure, DropReason, Event, Holding, NetworkProblem, Role,
    Room, SerialCounter, TurnWord, Why, event,
};
use crate::security::{Identity, Session};
use crate::wire::{
    AbortCode, CallNumber, ChannelIndex, Cid, Epoch, Flags, Header, PacketType, SecurityIndex, Seq,
    Serial, ServiceId, check_jumbo, encode_abort,
};

/// Consecutive datagrams of one channel, received together.
#[derive(Clone, Debug)]
pub struct Run {
    /// The datagrams, one after the other.
    pub data: Bytes,
    /// Size of every datagram but the last, which may be shorter.
    pub stride: usize,
}

/// Whether packets can be opened.
#[derive(Clone, Debug)]
pub enum Security {
    /// Yes, by this session; `None` = packets are as they are.
    Ready(Option<Arc<dyn Session>>),
    /// Not yet: what comes is held, within the initial window.
    Pending,
}

/// Most pieces that there is room for before they have come.
const PIECES_EXPECTED_MAX: usize = 256;

/// What a channel is made with.
#[derive(Clone, Debug)]
pub struct ChannelSetup {
    /// Our side.
    pub role: Role,
    /// The connection's epoch.
    pub epoch: Epoch,
    /// The connection's id, channel bits clear.
    pub cid: Cid,
    /// Which of the four.
    pub index: ChannelIndex,
    /// The class in every packet.
    pub security_index: SecurityIndex,
    /// The service in every packet that we send.
    pub service_id: ServiceId,
    /// Settings.
    pub config: Arc<CallConfig>,
    /// The connection's serials.
    pub serials: SerialCounter,
    /// Whether packets can be opened.
    pub security: Security,
    /// Server: whether the service waits for the proof of the client's address.
    pub needs_reach: bool,
    /// What is known of the peer: shared by the channels until each learns more.
    pub hint: Arc<PeerHint>,
    /// What is left of an earlier channel in this place; default for a new connection.
    pub memory: ChannelMemory,
}

/// A client's call, about to begin.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The first bytes of the request.
    pub request: Bytes,
    /// Whether they are all of it.
    pub is_whole: bool,
    /// Longest duration of the whole call from now; `None` = the connection's setting.
    pub deadline: Option<Duration>,
    /// Whether the first packet asks for a service upgrade.
    pub asks_upgrade: bool,
    /// userStatus of its packets, where it asks for no upgrade.
    pub user_status: u8,
}

/// What an application does with its call.
#[derive(Clone, Debug)]
pub enum Command {
    /// Bytes of the request (client) or reply (server).
    Write {
        /// The bytes.
        bytes: Bytes,
        /// Whether they end this direction.
        ends: bool,
        /// Whether they shall leave now even in a short packet.
        flushes: bool,
    },
    /// So much of what was delivered is wholly taken: credit for the peer.
    Consumed {
        /// Packets.
        packets: u32,
        /// Their bytes.
        bytes: usize,
    },
    /// Server: the rest of the request is not wanted.
    Discard,
    /// The application has what it wants, or has gone away.
    End,
    /// The application ends the call with this code.
    Abort(AbortCode),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Channel {
    role: Role,
    epoch: Epoch,
    cid: Cid,
    security_index: SecurityIndex,
    service_id: ServiceId,
    config: Arc<CallConfig>,
    serials: SerialCounter,
    security: Security,
    needs_reach: bool,
    /// Its own from the first change on: most channels of most connections never have a call.
    hint: Arc<PeerHint>,
    memory: ChannelMemory,
    call: Option<Box<Call>>,
    /// Client: when the final ACK of the last call is due.
    final_ack: Option<Instant>,
    /// Client: the present call came within the time of a delayed ACK after the one before.
    is_called_often: bool,
    /// Client: calls may begin that come straight from users.
    has_leave: bool,
    /// Client: the connection was not told that the present call began, and is not if it ends well.
    is_quiet: bool,
    /// The connection has failed or is closed.
    failure: Option<ConnectionFailure>,
    /// Server: a call has reached its service.
    has_served: bool,
    /// Server: no new calls; the endpoint is shutting down.
    draining: bool,
    /// Server: who the client is.
    identity: Option<Arc<Identity>>,
    /// There once one was needed.
    throttles: Option<Box<memory::Throttles>>,
    /// When a call last ended, or the channel began.
    idle_since: Instant,
    /// What the endpoint was told that the channel holds.
    told: Holding,
    /// And before that.
    told_before: Holding,
    /// There once something was opened or sealed.
    sealed: Option<Box<SealedTraffic>>,
    /// Which of the legal ways it goes, where there are several.
    choices: Choices,
}

/// What was opened and sealed on a channel, for DEBUG answers; each counter wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedTraffic {
    /// Packets opened.
    pub opened_packets: u32,
    /// Their bytes as they came, sealed.
    pub opened_bytes: u32,
    /// Packets sealed; sent again, one counts no more.
    pub sealed_packets: u32,
    /// Their bytes before they were sealed.
    pub sealed_bytes: u32,
}

impl Channel {
    /// An idle channel.
    pub fn new(setup: ChannelSetup, now: Instant) -> Channel {
        let cid = setup.cid.with_channel(setup.index);
        #[cfg(feature = "testkit")]
        let choices = Choices::new(&setup.config.choices, setup.role, setup.epoch, cid);
        #[cfg(not(feature = "testkit"))]
        let choices = Choices;
        Channel {
            role: setup.role,
            epoch: setup.epoch,
            cid,
            security_index: setup.security_index,
            service_id: setup.service_id,
            config: setup.config,
            serials: setup.serials,
            security: setup.security,
            needs_reach: setup.needs_reach,
            hint: setup.hint,
            memory: setup.memory,
            call: None,
            final_ack: None,
            is_called_often: false,
            has_leave: false,
            is_quiet: false,
            failure: None,
            has_served: false,
            draining: false,
            identity: None,
            throttles: None,
            idle_since: now,
            told: Holding::default(),
            told_before: Holding::default(),
            sealed: None,
            choices,
        }
    }

    /// Datagrams for this channel, in the order of reception: one step, at most one ACK.
    pub fn handle_run(
        &mut self,
        now: Instant,
        hint: &PeerHint,
        run: &Run,
        out: &mut ChannelOutput,
    ) {
        self.handle_runs(now, hint, std::slice::from_ref(run), out);
    }

    /// As [`Channel::handle_run`], for several that were received together.
    pub fn handle_runs(
        &mut self,
        now: Instant,
        hint: &PeerHint,
        runs: &[Run],
        out: &mut ChannelOutput,
    ) {
        // The endpoint may not have heard yet of the proof that came here.
        // Nor of the sizes that were found here.
        let proved_until = self.hint.proved_until.max(hint.proved_until);
        let room = self.hint.room;
        let mut path = self.hint.path;
        path.merge(&hint.path);
        let is_linux = self.hint.is_linux || hint.is_linux;
        let asks_sizes = self.hint.asks_sizes || hint.asks_sizes;
        *self.hint_mut() = PeerHint { proved_until, path, is_linux, asks_sizes, ..*hint };
        if hint.room != room {
            self.set_room(now, hint.room);
        }
        let datagrams = |run: &Run| run.data.len().div_ceil(run.stride.max(1));
        let expected: usize = runs.iter().map(datagrams).sum();
        out.scratch.pieces_expected = expected.min(PIECES_EXPECTED_MAX);
        for run in runs {
            let stride = run.stride.max(1);
            let mut start = 0;
            while start < run.data.len() {
                let end = (start + stride).min(run.data.len());
                self.handle_datagram(now, &run.data, start..end, out);
                start = end;
            }
        }
        self.open_received(now, out);
        self.compact(runs.len(), out);
        self.conclude(now, out);
    }

    /// A command of the application whose call has this tag; commands of calls that are over do nothing.
    pub fn handle_command(
        &mut self,
        now: Instant,
        tag: CallTag,
        command: Command,
        out: &mut ChannelOutput,
    ) {
        let Some(call) = self.call.as_ref().filter(|call| call.tag == tag) else { return };
        if call.state == CallState::ServerDying {
            self.bury(now, &command, out);
            return self.report_holding(out);
        }
        match (command, self.role) {
            (Command::Consumed { packets, bytes }, _) => self.consume(now, packets, bytes),
            (Command::Write { bytes, ends, flushes }, _) => self.write(bytes, ends, flushes),
            (Command::Discard, _) => self.discard(now),
            (Command::End, Role::Client) => self.client_end(now, out),
            (Command::End, Role::Server) => self.server_end(now, out),
            (Command::Abort(code), Role::Client) => self.client_abort(now, code, out),
            (Command::Abort(code), Role::Server) => self.server_abort(now, code, out),
        }
        self.conclude(now, out);
    }

    /// Client: a call takes the channel, which must be free. Its tag is [`Channel::tag`] afterwards.
    pub fn handle_start(&mut self, now: Instant, start: Start, out: &mut ChannelOutput) {
        self.client_start(now, start, out);
        self.conclude(now, out);
    }

    /// Client: calls may begin that come straight from users, until the connection says otherwise.
    pub fn take_leave(&mut self) {
        self.has_leave = true;
    }

    /// Client: whether a call may begin that comes straight from a user, now.
    pub fn may_begin(&self) -> bool {
        self.has_leave && self.call.is_none() && self.failure.is_none() && !self.is_used_up()
    }

    /// As [`Channel::handle_start`], for a call that comes straight from a user: [`Channel::may_begin`] says whether it
    /// may.
    pub fn handle_start_by_leave(&mut self, now: Instant, start: Start, out: &mut ChannelOutput) {
        debug_assert!(self.may_begin());
        self.client_start(now, start, out);
        self.is_quiet = true;
        self.conclude(now, out);
    }

    /// Whether there is no call number left.
    fn is_used_up(&self) -> bool {
        self.memory.last.next().is_none()
    }

    /// A word of the connection.
    pub fn handle_connection(
        &mut self,
        now: Instant,
        word: ConnectionToChannel,
        out: &mut ChannelOutput,
    ) {
        match word {
            ConnectionToChannel::Secured { session, call_number, identity } => {
                self.identity = identity;
                self.secure(now, session, call_number, out);
            }
            ConnectionToChannel::Unchallenged => {
                let code = AbortCode::CALL_DEAD;
                let failure = CallFailure::Aborted { code, why: Why::Unchallenged };
                self.abort_call(now, code, failure, out);
            }
            ConnectionToChannel::Failed(failure) => self.fail_connection(now, failure, out),
            ConnectionToChannel::ServiceAdopted(service_id) => self.service_id = service_id,
            ConnectionToChannel::Drain => self.draining = true,
            ConnectionToChannel::Leave => self.has_leave = true,
            ConnectionToChannel::LeaveOver => {
                self.has_leave = false;
                self.is_quiet = false;
                let (last, idle_since) = (self.memory.last, self.idle_since());
                out.connection.push(ChannelToConnection::Stands { last, idle_since });
            }
        }
        self.conclude(now, out);
    }

    /// Packets can be opened from now on. `call_number` is the client's next call number on this channel,
    /// as its RESPONSE gave it: what lies before it is over.
    fn secure(
        &mut self,
        now: Instant,
        session: Option<Arc<dyn Session>>,
        call_number: CallNumber,
        out: &mut ChannelOutput,
    ) {
        self.security = Security::Ready(session);
        // A valid RESPONSE came from where the CHALLENGE went.
        self.hint_mut().proved_until = Some(now + self.config.reach_ttl);
        if let Some(call) = &mut self.call {
            call.is_proved = true;
        }
        if self.role == Role::Server {
            // A held call that the client says is over is an old one, played again by somebody else: its
            // seals would fit, and it would run a second time.
            let is_over = |call: &Call| !call.attached && call.number < call_number;
            if self.call.as_deref().is_some_and(is_over) {
                self.end_call(now, Err(CallFailure::Overtaken), LastEnd::Failed, false, out);
            }
            if self.call.is_none() && call_number > self.memory.last {
                self.memory.last = CallNumber(call_number.0 - 1);
                self.memory.end = LastEnd::None;
            }
            self.try_attach(now, out);
        }
    }

    /// The whole connection has failed, or is closed. A call that is complete stays so.
    fn fail_connection(
        &mut self,
        now: Instant,
        failure: ConnectionFailure,
        out: &mut ChannelOutput,
    ) {
        if self.failure.is_some() {
            return;
        }
        if failure == ConnectionFailure::Closed {
            self.close_call(now, out);
            self.send_final_ack(now, out);
        } else if let Some(call) = &self.call {
            let end = LastEnd::Aborted(failure.code());
            if call.state == CallState::ClientDone {
                self.end_call(now, Ok(()), self.success(), false, out);
            } else {
                self.fail_call(now, failure.of_call(), end, out);
            }
        }
        self.final_ack = None;
        self.failure = Some(failure);
    }

    /// The network says that datagrams to the peer do not arrive. ICMP is forgeable: only a call that has
    /// heard nothing yet fails at once (rx-calls.md 10).
    pub fn handle_network_problem(
        &mut self,
        now: Instant,
        problem: NetworkProblem,
        out: &mut ChannelOutput,
    ) {
        let Some(call) = &mut self.call else { return };
        if call.heard || call.state == CallState::ClientReserved {
            call.problem = Some(problem);
            return;
        }
        self.fail_call(now, CallFailure::Network(problem), LastEnd::Failed, out);
        self.conclude(now, out);
    }

    /// There is room again: what was held back for want of it goes on.
    pub fn handle_room(&mut self, now: Instant, out: &mut ChannelOutput) {
        self.set_room(now, Room::Free);
        self.conclude(now, out);
    }

    /// Server: who the client is, once it has proved itself.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// The call that runs now, or else the last one.
    pub fn tag(&self) -> CallTag {
        self.memory.tag
    }

    /// What a channel in the place of this one has to know.
    pub fn memory(&self) -> ChannelMemory {
        match &self.call {
            // A server call cut off in the middle must not run again; a client call's number is used.
            Some(call) if call.state != CallState::ClientReserved => ChannelMemory {
                last: call.number,
                end: LastEnd::Aborted(AbortCode::CALL_DEAD),
                tag: call.tag,
            },
            _ => self.memory,
        }
    }

    /// State of the present call.
    pub fn state(&self) -> Option<CallState> {
        self.call.as_ref().map(|call| call.state)
    }

    /// Number of the present call, or else of the last one.
    pub fn call_number(&self) -> CallNumber {
        match &self.call {
            Some(call) if call.state != CallState::ClientReserved => call.number,
            _ => self.memory.last,
        }
    }

    /// The connection's last serial.
    pub fn last_serial(&self) -> Serial {
        self.serials.last()
    }

    /// What it has opened and sealed.
    pub fn sealed_traffic(&self) -> SealedTraffic {
        self.sealed.as_deref().copied().unwrap_or_default()
    }

    /// Since when the channel has had no call; `None` while it has one.
    pub fn idle_since(&self) -> Option<Instant> {
        self.call.is_none().then_some(self.idle_since)
    }

    /// Bytes that the peer sent and the application has not taken.
    pub fn buffered_bytes(&self) -> usize {
        self.call.as_ref().map_or(0, |call| call.receive.buffered_bytes())
    }

    /// Packets sent and not acknowledged.
    pub fn in_flight_packets(&self) -> u32 {
        self.call.as_ref().map_or(0, |call| call.send.in_flight())
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        data: &Bytes,
        at: std::ops::Range<usize>,
        out: &mut ChannelOutput,
    ) {
        let datagram = &data[at.clone()];
        let Some(header) = Header::decode(datagram) else {
            return out.drop(DropReason::TooShort);
        };
        if header.packet_type == PacketType::Data && check_jumbo(&header, datagram).is_err() {
            return out.drop(DropReason::BadJumbogram);
        }
        if let Some(failure) = self.failure {
            if header.packet_type == PacketType::Data && failure != ConnectionFailure::Closed {
                out.connection.push(ChannelToConnection::DataAfterFailure);
            }
            return out.drop(DropReason::OutOfState);
        }
        let continues = header.packet_type == PacketType::Data
            && self.call.as_ref().is_some_and(|call| call.number == header.call_number);
        if !continues {
            self.open_received(now, out);
        }
        let packet = Received { header, data, at };
        match self.role {
            Role::Client => self.client_packet(now, &packet, out),
            Role::Server => self.server_packet(now, &packet, out),
        }
    }

    /// The one ending of every step: the ACK that is due, packets that may go, credit for the writer.
    fn conclude(&mut self, now: Instant, out: &mut ChannelOutput) {
        if self.call.is_some() {
            self.serve_call(now, out);
        }
        self.report_holding(out);
    }

    fn serve_call(&mut self, now: Instant, out: &mut ChannelOutput) {
        self.send_due_ack(now, out);
        self.probe_size(now, out);
        self.transmit(now, event::ResendCause::Nacked, out);
        self.check_reply_acknowledged(now, out);
        let payload_max = self.usual_plain_max();
        let Some(call) = &mut self.call else { return };
        if matches!(
            call.state,
            CallState::ClientReserved
                | CallState::ClientSend
                | CallState::ServerReceive
                | CallState::ServerWork
                | CallState::ServerReply
        ) && call.attached
            && !call.send.is_closed()
            && let Some(bytes) =
                call.send.take_credit(payload_max, call.congestion.window(), self.hint.room)
        {
            let tag = call.tag;
            out.notify(tag, Notice::Credit(bytes));
        }
        let Some(call) = &mut self.call else { return };
        if !call.application_waits() {
            call.timers.waiting_since = None;
        } else if call.timers.waiting_since.is_none() {
            call.timers.waiting_since = Some(now);
        }
    }

    /// Ends the present call and frees the channel.
    fn end_call(
        &mut self,
        now: Instant,
        outcome: event::CallOutcome,
        end: LastEnd,
        avoid: bool,
        out: &mut ChannelOutput,
    ) {
        self.conclude_sizes(now, out);
        let Some(call) = self.call.take() else { return };
        if call.turn == TurnState::Asked {
            out.turn = Some(TurnWord::Gone);
        }
        self.idle_since = now;
        self.memory.tag = call.tag;
        let was_sent = call.state != CallState::ClientReserved;
        if was_sent {
            self.memory.last = call.number;
            self.memory.end = end;
            if call.send.has_sent() {
                let memory = call.congestion.memory(now);
                if memory.is_news(self.hint.congestion.as_ref()) {
                    out.peer.congestion = Some(memory);
                    self.hint_mut().congestion = out.peer.congestion;
                }
            }
            out.events.push(Event::CallEnded(event::CallEnded {
                role: self.role,
                number: call.number,
                outcome,
                bytes_sent: call.send.packed_bytes(),
                bytes_received: call.bytes_received,
                duration: now.saturating_duration_since(call.started),
            }));
        }
        // A server's connection need not know, but while it counts calls that wait for security.
        let is_quiet = std::mem::take(&mut self.is_quiet) && !avoid && !self.is_used_up();
        self.has_leave &= !avoid;
        if !is_quiet && (self.role == Role::Client || matches!(self.security, Security::Pending)) {
            let last = self.memory.last;
            out.connection.push(ChannelToConnection::CallOver { last, avoid });
        }
        out.scratch.spare.keep(call);
    }

    /// Ends the present call badly and tells its application, if it has one that still cares.
    fn fail_call(
        &mut self,
        now: Instant,
        failure: CallFailure,
        end: LastEnd,
        out: &mut ChannelOutput,
    ) {
        let Some(call) = &self.call else { return };
        if call.attached && call.state != CallState::ServerDying {
            out.notify(call.tag, Notice::Failed(failure));
        }
        // The server may still be executing what we gave up on (rx-calls.md 4.4): prefer other channels.
        // Of a call that sent nothing it knows nothing (S-180).
        let avoid = self.role == Role::Client
            && call.state != CallState::ClientReserved
            && !matches!(failure, CallFailure::PeerAborted(_) | CallFailure::NetReset);
        self.end_call(now, Err(failure), end, avoid, out);
    }

    /// Ends the present call with an ABORT.
    fn abort_call(
        &mut self,
        now: Instant,
        code: AbortCode,
        failure: CallFailure,
        out: &mut ChannelOutput,
    ) {
        let Some(call) = &self.call else { return };
        let (number, was_sent) = (call.number, call.state != CallState::ClientReserved);
        // The channel is free before the ABORT leaves (openafs-observed.md 1).
        self.fail_call(now, failure, LastEnd::Aborted(code), out);
        if was_sent {
            self.send_abort(number, code, out);
        }
    }

    /// An ABORT of a call that has already ended here.
    fn send_abort(&mut self, number: CallNumber, code: AbortCode, out: &mut ChannelOutput) {
        let header = self.header(PacketType::Abort, number, Seq(0), Flags::NONE);
        out.datagrams.push(&header, &encode_abort(code));
        out.events.push(Event::Aborted(event::Aborted { number, code, sent: true }));
    }

    /// The connection closes: what runs is cut off, and the peer is told.
    fn close_call(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        match (self.role, call.state) {
            (Role::Client, CallState::ClientDone) => self.client_end(now, out),
            (Role::Client, _) => {
                self.abort_call(now, AbortCode::USER_ABORT, CallFailure::Closed, out);
            }
            (Role::Server, CallState::ServerAwaitAck) => {
                self.end_call(now, Ok(()), self.success(), false, out);
            }
            (Role::Server, _) => {
                self.abort_call(now, AbortCode::CALL_DEAD, CallFailure::Closed, out);
            }
        }
    }

    /// The memory of a call that ended well.
    fn success(&self) -> LastEnd {
        let (packets, window) = self.call.as_ref().map_or((0, 1), |call| {
            let described = call.receive.describe(&mut Vec::new());
            (call.receive.received_packets(), described.window)
        });
        LastEnd::Success { packets, window }
    }

    /// A header of ours, with the next serial.
    fn header(
        &self,
        packet_type: PacketType,
        call_number: CallNumber,
        seq: Seq,
        flags: Flags,
    ) -> Header {
        self.header_with(packet_type, call_number, seq, flags, self.serials.next())
    }

    fn header_with(
        &self,
        packet_type: PacketType,
        call_number: CallNumber,
        seq: Seq,
        flags: Flags,
        serial: Serial,
    ) -> Header {
        Header {
            epoch: self.epoch,
            cid: self.cid,
            call_number,
            seq,
            serial,
            packet_type,
            flags: flags.with_if(self.role == Role::Client, Flags::CLIENT_INITIATED),
            user_status: 0,
            security_index: self.security_index,
            cksum: 0,
            service_id: self.service_id,
        }
    }

    /// Reports a change of the peer's memory to the endpoint, and believes it here at once.
    fn learn(&mut self, now: Instant, out: &mut ChannelOutput, change: PeerReport) {
        let PeerReport { rtt, congestion: _, sizes, path, is_linux, asks_sizes, proved } = change;
        let is_news =
            rtt.is_some() || sizes.is_some() || path.is_some() || is_linux || asks_sizes || proved;
        if !is_news {
            return;
        }
        let proved_until = proved.then(|| now + self.config.reach_ttl);
        let hint = self.hint_mut();
        if rtt.is_some() {
            out.peer.rtt = rtt;
            hint.rtt = rtt;
        }
        if let Some(sizes) = sizes {
            out.peer.sizes = Some(sizes);
            hint.sizes = sizes;
        }
        if let Some(path) = path {
            out.peer.path = Some(path);
            hint.path = path;
        }
        if is_linux {
            out.peer.is_linux = true;
            hint.is_linux = true;
        }
        if asks_sizes {
            out.peer.asks_sizes = true;
            hint.asks_sizes = true;
        }
        if proved {
            out.peer.proved = true;
            hint.proved_until = proved_until;
        }
    }

    /// What is known of the peer, to be changed: from here on this channel has its own.
    fn hint_mut(&mut self) -> &mut PeerHint {
        Arc::make_mut(&mut self.hint)
    }
}

/// One datagram of a run.
struct Received<'a> {
    header: Header,
    data: &'a Bytes,
    at: std::ops::Range<usize>,
}

impl Received<'_> {
    fn datagram(&self) -> &[u8] {
        &self.data[self.at.clone()]
    }

    fn payload(&self) -> &[u8] {
        self.datagram().get(crate::wire::HEADER_LEN..).unwrap_or_default()
    }
}
