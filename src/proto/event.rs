//! Every observable fact, declared once. Log lines, counters and tests read the same events.
//!
//! An event costs nothing where nothing unusual happens: packets are counted by run, and only what is
//! worth a line of its own is an event.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{CallFailure, ConnectionFailure, NetworkProblem, Role};
use crate::wire::{AbortCode, CallNumber, Cid, Epoch, Header, PacketType, Seq, ServiceId};

/// Why a datagram or packet was ignored. Each has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than a header.
    TooShort,
    /// A type that does not exist.
    UnknownType,
    /// Types 9 to 11, which were never used.
    Params,
    /// Call number 0 where a call is needed, or the other way round.
    BadCallNumber,
    /// DATA with sequence number 0.
    SeqZero,
    /// A payload too short for its type.
    PayloadShort,
    /// A jumbogram that breaks the rules.
    BadJumbogram,
    /// Service 0.
    ServiceZero,
    /// A type that this side of the connection never receives.
    WrongDirection,
    /// No client connection of ours.
    UnknownClientConnection,
    /// Not DATA, for a server connection that does not exist.
    UnknownServerConnection,
    /// DATA beyond the initial window of a call that does not exist.
    FarAhead,
    /// A service or security index that is not offered, and no first DATA.
    NotOffered,
    /// Another security index than the connection's.
    SecurityMismatch,
    /// A call number lower than the channel's.
    StaleCall,
    /// A call number that the channel has not reached.
    FutureCall,
    /// For a call that is over, and nothing is to be said.
    CallOver,
    /// DATA with a sequence number beyond the window, nothing of the call being accepted.
    BeyondWindow,
    /// A DATA packet that would pass the hard byte limit of its call.
    NoBuffer,
    /// An ACK that cannot be read, or that names packets that were never sent.
    BadAck,
    /// An ACK whose firstPacket went back.
    StaleAck,
    /// A packet type that the call's state has no use for.
    OutOfState,
    /// A VERSION or DEBUG request that is malformed, or with the responder off.
    Unanswered,
    /// An abort that was not repeated, by its rate limit.
    Throttled,
    /// To an address that has not proved itself, beyond the answer limit.
    Amplification,
    /// A connection limit was reached.
    ConnectionLimit,
    /// A call was refused: too many wait for its service.
    Overload,
    /// The security class had no use for a CHALLENGE or RESPONSE.
    UnwantedChallenge,
    /// A tool's answer, or a NAT keepalive: nothing to do.
    ToolAnswer,
    /// The security class panicked as it was to take a new connection.
    SecurityBroke,
    /// For another shard, which has not yet taken as much as may be on its way to it.
    StrayOverflow,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [DropReason; 31] = [
        DropReason::TooShort,
        DropReason::UnknownType,
        DropReason::Params,
        DropReason::BadCallNumber,
        DropReason::SeqZero,
        DropReason::PayloadShort,
        DropReason::BadJumbogram,
        DropReason::ServiceZero,
        DropReason::WrongDirection,
        DropReason::UnknownClientConnection,
        DropReason::UnknownServerConnection,
        DropReason::FarAhead,
        DropReason::NotOffered,
        DropReason::SecurityMismatch,
        DropReason::StaleCall,
        DropReason::FutureCall,
        DropReason::CallOver,
        DropReason::BeyondWindow,
        DropReason::NoBuffer,
        DropReason::BadAck,
        DropReason::StaleAck,
        DropReason::OutOfState,
        DropReason::Unanswered,
        DropReason::Throttled,
        DropReason::Amplification,
        DropReason::ConnectionLimit,
        DropReason::Overload,
        DropReason::UnwantedChallenge,
        DropReason::ToolAnswer,
        DropReason::SecurityBroke,
        DropReason::StrayOverflow,
    ];

    /// The counter's name.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::UnknownType => "unknown_type",
            DropReason::Params => "params",
            DropReason::BadCallNumber => "bad_call_number",
            DropReason::SeqZero => "seq_zero",
            DropReason::PayloadShort => "payload_short",
            DropReason::BadJumbogram => "bad_jumbogram",
            DropReason::ServiceZero => "service_zero",
            DropReason::WrongDirection => "wrong_direction",
            DropReason::UnknownClientConnection => "unknown_client_connection",
            DropReason::UnknownServerConnection => "unknown_server_connection",
            DropReason::FarAhead => "far_ahead",
            DropReason::NotOffered => "not_offered",
            DropReason::SecurityMismatch => "security_mismatch",
            DropReason::StaleCall => "stale_call",
            DropReason::FutureCall => "future_call",
            DropReason::CallOver => "call_over",
            DropReason::BeyondWindow => "beyond_window",
            DropReason::NoBuffer => "no_buffer",
            DropReason::BadAck => "bad_ack",
            DropReason::StaleAck => "stale_ack",
            DropReason::OutOfState => "out_of_state",
            DropReason::Unanswered => "unanswered",
            DropReason::Throttled => "throttled",
            DropReason::Amplification => "amplification",
            DropReason::ConnectionLimit => "connection_limit",
            DropReason::Overload => "overload",
            DropReason::UnwantedChallenge => "unwanted_challenge",
            DropReason::ToolAnswer => "tool_answer",
            DropReason::SecurityBroke => "security_broke",
            DropReason::StrayOverflow => "stray_overflow",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What made a packet leave again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResendCause {
    /// Packets behind it were acknowledged.
    Nacked,
    /// The retransmission timer ran out.
    Timeout,
    /// Nothing was heard for longer than a round trip: one packet, to learn what is missing.
    TailProbe,
    /// The peer's window is 0 and is being probed.
    WindowProbe,
    /// They left in datagrams larger than what the path takes.
    TooBig,
}

/// How a call ended, for those who watch.
pub type CallOutcome = Result<(), CallFailure>;

/// A datagram or packet was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
}

/// A connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOpened {
    /// Our side of it.
    pub role: Role,
    /// The peer.
    pub peer: SocketAddr,
    /// The service.
    pub service_id: ServiceId,
}

/// A connection failed; its calls fail with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionFailed {
    /// Why.
    pub failure: ConnectionFailure,
}

/// A connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionClosed {
    /// Our side of it.
    pub role: Role,
}

/// A call took its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStarted {
    /// Our side of it.
    pub role: Role,
    /// The call.
    pub number: CallNumber,
}

/// A call is over at our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEnded {
    /// Our side of it.
    pub role: Role,
    /// The call.
    pub number: CallNumber,
    /// How.
    pub outcome: CallOutcome,
    /// Payload bytes sent, retransmissions not counted.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// How long it took.
    pub duration: Duration,
}

/// DATA packets left again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resent {
    /// The call.
    pub number: CallNumber,
    /// The lowest of them.
    pub seq: Seq,
    /// How many.
    pub packets: u32,
    /// What made them.
    pub cause: ResendCause,
}

/// A BUSY came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The number in it.
    pub number: CallNumber,
    /// Whether we sent it.
    pub sent: bool,
}

/// An ABORT came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The call; 0 = the connection.
    pub number: CallNumber,
    /// The code.
    pub code: AbortCode,
    /// Whether we sent it.
    pub sent: bool,
}

/// The address of a peer was proved, or a PING asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Whether it is proved now.
    pub proved: bool,
}

/// A CHALLENGE went out or was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenged {
    /// Whether the connection is secured now.
    pub secured: bool,
}

/// The server answered for another service than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceUpgraded {
    /// The service that answers now.
    pub service_id: ServiceId,
}

/// The network reported something about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReported {
    /// The peer.
    pub peer: SocketAddr,
    /// What it said.
    pub problem: NetworkProblem,
}

/// Datagrams to a peer may be larger, or have to be smaller, from now on: the network said so, or padded PINGs
/// showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSized {
    /// The peer.
    pub peer: SocketAddr,
    /// Largest datagram that is sent unfragmented, in bytes of UDP payload.
    pub datagram_max: u16,
}

/// A VERSION or DEBUG request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolAnswered {
    /// VERSION or DEBUG.
    pub packet_type: PacketType,
}

/// Whose bytes a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryScope {
    /// Those of one connection.
    Connection,
    /// Those of all connections.
    Endpoint,
    /// Those for peers that have not proved their addresses.
    Unproved,
}

/// The calls of a connection, or of the endpoint, hold more bytes than they may, or do not any more. Until
/// then their windows stay as they are, and they go on slowly (rx-flow.md 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Whose.
    pub scope: MemoryScope,
    /// Whether it is passed now.
    pub is_passed: bool,
}

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// See [`Dropped`].
    Dropped(Dropped),
    /// See [`ConnectionOpened`].
    ConnectionOpened(ConnectionOpened),
    /// See [`ConnectionFailed`].
    ConnectionFailed(ConnectionFailed),
    /// See [`ConnectionClosed`].
    ConnectionClosed(ConnectionClosed),
    /// See [`CallStarted`].
    CallStarted(CallStarted),
    /// See [`CallEnded`].
    CallEnded(CallEnded),
    /// See [`Resent`].
    Resent(Resent),
    /// See [`Busy`].
    Busy(Busy),
    /// See [`Aborted`].
    Aborted(Aborted),
    /// See [`Reach`].
    Reach(Reach),
    /// See [`Challenged`].
    Challenged(Challenged),
    /// See [`ServiceUpgraded`].
    ServiceUpgraded(ServiceUpgraded),
    /// See [`PathReported`].
    PathReported(PathReported),
    /// See [`PathSized`].
    PathSized(PathSized),
    /// See [`ToolAnswered`].
    ToolAnswered(ToolAnswered),
    /// See [`MemoryLimit`].
    MemoryLimit(MemoryLimit),
}

macro_rules! wrap {
    ($($name:ident),*) => {
        $(impl From<$name> for Event {
            fn from(event: $name) -> Event {
                Event::$name(event)
            }
        })*
    };
}
wrap!(
    Dropped,
    ConnectionOpened,
    ConnectionFailed,
    ConnectionClosed,
    CallStarted,
    CallEnded,
    Resent,
    Busy,
    Aborted,
    Reach,
    Challenged,
    ServiceUpgraded,
    PathReported,
    PathSized,
    ToolAnswered,
    MemoryLimit
);

impl From<DropReason> for Event {
    fn from(reason: DropReason) -> Event {
        Event::Dropped(Dropped { reason })
    }
}

/// Where an event happened. Datagrams that found no connection have ids of their own header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The connection's epoch.
    pub epoch: Epoch,
    /// The connection and channel.
    pub cid: Cid,
}

/// Somebody who wants to know. Called on the endpoint's arbiter, in order; it must not block. One that panics is
/// called no more.
pub trait Subscriber: Send + 'static {
    /// Something happened at `origin`.
    fn on_event(&mut self, origin: Origin, event: &Event);
}

/// Writes each event as a log line: drops and details at trace and debug, failures at info.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSubscriber;

impl Subscriber for LogSubscriber {
    fn on_event(&mut self, origin: Origin, event: &Event) {
        let level = match event {
            Event::Dropped(_) | Event::CallStarted(_) => log::Level::Trace,
            Event::CallEnded(CallEnded { outcome: Err(_), .. })
            | Event::ConnectionFailed(_)
            | Event::MemoryLimit(_) => log::Level::Info,
            _ => log::Level::Debug,
        };
        log::log!(level, "{}/{}: {event:?}", origin.epoch, origin.cid);
    }
}

/// Totals since the endpoint's start. Reading them costs nothing on the packet path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Bytes received, without UDP and IP headers.
    pub bytes_received: u64,
    /// Receive calls that gave datagrams: `datagrams_received / receives` is the batch size.
    pub receives: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes sent, without UDP and IP headers.
    pub bytes_sent: u64,
    /// Datagrams sent by packet type; index as for `received_by_type`.
    pub sent_by_type: [u64; 14],
    /// Send calls.
    pub sends: u64,
    /// Datagrams that the network refused to take.
    pub send_failures: u64,
    /// Datagrams received by packet type 1..=13; index is the type, 0 = others.
    pub received_by_type: [u64; 14],
    /// Packets ignored, by reason; index is the reason's place in [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Calls begun as client.
    pub client_calls: u64,
    /// Calls begun as server.
    pub server_calls: u64,
    /// Calls that ended well.
    pub calls_good: u64,
    /// Calls that failed.
    pub calls_failed: u64,
    /// DATA packets sent again.
    pub resent: u64,
    /// Of those, by timer.
    pub resent_by_timer: u64,
    /// DATA packets of present calls that had come before.
    pub duplicates: u64,
    /// BUSY received.
    pub busy_received: u64,
    /// BUSY sent.
    pub busy_sent: u64,
    /// ABORT received.
    pub aborts_received: u64,
    /// ABORT sent.
    pub aborts_sent: u64,
    /// Connections opened, either role.
    pub connections_opened: u64,
    /// Connections closed, either role.
    pub connections_closed: u64,
    /// How often a limit of buffered bytes was passed.
    pub memory_limits: u64,
    /// Datagrams that came to another shard than their connection's, and were handed over to it.
    pub strays: u64,
}

impl Counters {
    /// Adds what `event` tells.
    pub fn record(&mut self, event: &Event) {
        match event {
            Event::Dropped(dropped) => self.dropped[dropped.reason as usize] += 1,
            Event::ConnectionOpened(_) => self.connections_opened += 1,
            Event::ConnectionClosed(_) => self.connections_closed += 1,
            Event::CallStarted(CallStarted { role: Role::Client, .. }) => self.client_calls += 1,
            Event::CallStarted(CallStarted { role: Role::Server, .. }) => self.server_calls += 1,
            Event::CallEnded(CallEnded { outcome: Ok(()), .. }) => self.calls_good += 1,
            Event::CallEnded(CallEnded { outcome: Err(_), .. }) => self.calls_failed += 1,
            Event::Resent(resent) => {
                self.resent += u64::from(resent.packets);
                if resent.cause == ResendCause::Timeout {
                    self.resent_by_timer += u64::from(resent.packets);
                }
            }
            Event::Busy(Busy { sent: true, .. }) => self.busy_sent += 1,
            Event::Busy(Busy { sent: false, .. }) => self.busy_received += 1,
            Event::Aborted(Aborted { sent: true, .. }) => self.aborts_sent += 1,
            Event::Aborted(Aborted { sent: false, .. }) => self.aborts_received += 1,
            Event::MemoryLimit(MemoryLimit { is_passed: true, .. }) => self.memory_limits += 1,
            _ => {}
        }
    }

    /// Adds datagrams that are sent: every `segment` bytes one, the last may be shorter.
    pub fn record_sent(&mut self, segment: usize, datagrams: &[u8]) {
        for datagram in datagrams.chunks(segment.max(1)) {
            self.datagrams_sent += 1;
            self.bytes_sent += datagram.len() as u64;
            self.sent_by_type
                [Header::decode(datagram).map_or(0, |header| type_slot(header.packet_type))] += 1;
        }
    }

    /// Adds what `tally` tells.
    pub fn add(&mut self, tally: &CallTally) {
        self.client_calls += u64::from(tally.client_calls);
        self.server_calls += u64::from(tally.server_calls);
        self.calls_good += u64::from(tally.good);
        self.calls_failed += u64::from(tally.failed);
        self.duplicates += u64::from(tally.duplicates);
    }

    /// Adds the totals of another shard.
    pub fn merge(&mut self, other: &Counters) {
        // Named one by one, so that a new one is not forgotten.
        let Counters {
            datagrams_received,
            bytes_received,
            receives,
            datagrams_sent,
            bytes_sent,
            sent_by_type,
            sends,
            send_failures,
            received_by_type,
            dropped,
            client_calls,
            server_calls,
            calls_good,
            calls_failed,
            resent,
            resent_by_timer,
            duplicates,
            busy_received,
            busy_sent,
            aborts_received,
            aborts_sent,
            connections_opened,
            connections_closed,
            memory_limits,
            strays,
        } = other;
        for (sum, more) in [
            (&mut self.datagrams_received, datagrams_received),
            (&mut self.bytes_received, bytes_received),
            (&mut self.receives, receives),
            (&mut self.datagrams_sent, datagrams_sent),
            (&mut self.bytes_sent, bytes_sent),
            (&mut self.sends, sends),
            (&mut self.send_failures, send_failures),
            (&mut self.client_calls, client_calls),
            (&mut self.server_calls, server_calls),
            (&mut self.calls_good, calls_good),
            (&mut self.calls_failed, calls_failed),
            (&mut self.resent, resent),
            (&mut self.resent_by_timer, resent_by_timer),
            (&mut self.duplicates, duplicates),
            (&mut self.busy_received, busy_received),
            (&mut self.busy_sent, busy_sent),
            (&mut self.aborts_received, aborts_received),
            (&mut self.aborts_sent, aborts_sent),
            (&mut self.connections_opened, connections_opened),
            (&mut self.connections_closed, connections_closed),
            (&mut self.memory_limits, memory_limits),
            (&mut self.strays, strays),
        ] {
            *sum += more;
        }
        for (sums, more) in [
            (&mut self.sent_by_type[..], &sent_by_type[..]),
            (&mut self.received_by_type[..], &received_by_type[..]),
            (&mut self.dropped[..], &dropped[..]),
        ] {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }

    /// How many packets were ignored for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many packets were ignored in all.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// Index of a type's counter.
pub(super) fn type_slot(packet_type: PacketType) -> usize {
    match packet_type.byte() {
        byte @ 1..=13 => usize::from(byte),
        _ => 0,
    }
}

/// Calls begun and ended, as numbers: what travels in place of events that nobody subscribes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTally {
    /// Begun as client.
    pub client_calls: u32,
    /// Begun as server.
    pub server_calls: u32,
    /// Ended well.
    pub good: u32,
    /// Failed.
    pub failed: u32,
    /// DATA packets that had come before.
    pub duplicates: u32,
}

impl CallTally {
    /// Takes `event` in; `false` if it says more than these numbers can.
    pub fn absorb(&mut self, event: &Event) -> bool {
        match event {
            Event::CallStarted(CallStarted { role: Role::Client, .. }) => self.client_calls += 1,
            Event::CallStarted(CallStarted { role: Role::Server, .. }) => self.server_calls += 1,
            Event::CallEnded(CallEnded { outcome: Ok(()), .. }) => self.good += 1,
            // A call that a shutdown cut off is told of by itself.
            Event::CallEnded(CallEnded { outcome: Err(CallFailure::Closed), .. }) => return false,
            Event::CallEnded(CallEnded { outcome: Err(_), .. }) => self.failed += 1,
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_counted_by_type() {
        let mut two = Vec::new();
        crate::wire::encode_version_request(1, &mut two);
        two.extend_from_slice(&two.clone()[..28]);
        let mut counters = Counters::default();
        counters.record_sent(29, &two);
        assert_eq!((counters.datagrams_sent, counters.bytes_sent), (2, 57));
        assert_eq!(counters.sent_by_type[13], 2);
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        let mut counters = Counters::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            counters.record(&reason.into());
            assert_eq!(counters.dropped_for(reason), 1);
        }
        assert_eq!(counters.dropped_total(), DropReason::ALL.len() as u64);
    }
}
