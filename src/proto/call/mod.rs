//! One call, by noun: what it may send, what it has received, when it acknowledges, how fast it goes.
//!
//! A call's state is a box that an idle channel does not have.

mod ack_policy;
mod congestion;
mod pacer;
mod receive_window;
mod rtt;
mod send_window;
mod size_probe;
mod spare;
mod timers;

use std::time::{Duration, Instant};

pub(crate) use ack_policy::AckPolicy;
pub(crate) use congestion::{Acked, Congestion};
pub(crate) use pacer::{PACE_INTERVAL, Pacer};
pub(crate) use receive_window::{Offer, Packet, ReceiveWindow, WindowUpdate};
pub(crate) use rtt::{LAST_PACKET_ALLOWANCE, Rtt};
pub(crate) use send_window::{AckRefused, Progress, SendWindow, weight_of};
pub(crate) use size_probe::{LARGER_LOST_MAX, PROBES_LOST_MAX, SizeProbe};
pub(crate) use spare::Spare;
pub(crate) use timers::Timers;

use super::config::CallConfig;
use super::peer::PeerHint;
use super::{CallTag, NetworkProblem};
use crate::wire::{CallNumber, Seq, Serial};

/// PINGs whose answers are awaited.
const PROBES_MAX: usize = 4;
/// Tail probes in a row; then only the retransmission timer is left.
const TAIL_PROBES_MAX: u32 = 3;

/// Who waits for what (rx-calls.md 4.2 and 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallState {
    /// Client: the channel is taken, no packet has left and no number is used.
    ClientReserved,
    /// Client: sends its request.
    ClientSend,
    /// Client: the request's last packet has left, no reply has come.
    ClientAwaitReply,
    /// Client: receives the reply.
    ClientReceiveReply,
    /// Client: has the whole reply, the application has not ended the call.
    ClientDone,
    /// Server: receives the request.
    ServerReceive,
    /// Server: has the whole request, no reply has left.
    ServerWork,
    /// Server: sends its reply.
    ServerReply,
    /// Server: the reply's last packet has left, not all is acknowledged.
    ServerAwaitAck,
    /// Server, takeover off: overtaken, waiting for the application to notice.
    ServerDying,
}

/// The state of one call.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Call {
    pub tag: CallTag,
    pub number: CallNumber,
    pub state: CallState,
    pub started: Instant,
    pub send: SendWindow,
    pub receive: ReceiveWindow,
    pub ack: AckPolicy,
    pub rtt: Rtt,
    pub congestion: Congestion,
    pub pacer: Pacer,
    pub timers: Timers,
    /// Server: the service has been started. Client: always.
    pub attached: bool,
    /// Server: whether it has asked its service for its turn.
    pub turn: TurnState,
    /// Server: the client has proved its address in this call, however short a proof holds for others.
    pub is_proved: bool,
    /// In-order packets that wait for the service to be started.
    pub unattached: Vec<(Seq, Packet)>,
    /// What comes is thrown away: the application wants no more of the request.
    pub discards: bool,
    /// Something valid came from the peer.
    pub heard: bool,
    /// An ACK of ours has acknowledged the peer's whole direction for good.
    pub closed_by_ack: bool,
    /// Something of ours was ever acknowledged.
    pub was_acked: bool,
    /// The network said that the peer cannot be reached, and nothing was heard since.
    pub problem: Option<NetworkProblem>,
    /// PINGs in flight, oldest first.
    pub probes: Vec<(Serial, Instant)>,
    /// The padded PING in flight.
    pub size_probe: Option<SizeProbe>,
    /// It is in doubt that the path takes what it took: until it is known, datagrams above this size may be
    /// fragmented, and no new ones are made.
    pub size_suspect: Option<u16>,
    /// Largest datagram that the peer says it takes, in this call; 0 before it has said anything.
    pub peer_datagram_max: u16,
    /// The highest serial of a datagram above the usual size that is known to have arrived.
    pub large_delivered: Option<Serial>,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// userStatus of the peer's latest DATA.
    pub remote_status: u8,
    /// userStatus of our DATA.
    pub local_status: u8,
    /// Client: this call asks for a service upgrade, and no answer has come.
    pub asks_upgrade: bool,
    /// When DATA last asked for an ACK.
    pub ack_requested_at: Option<Instant>,
    /// Whether the DATA sent last did.
    pub last_asked: bool,
    /// Packets were found lost: one may leave whatever the congestion window says.
    pub must_resend: bool,
}

/// A call of a service that runs only so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TurnState {
    /// It has not asked.
    None,
    /// It waits.
    Asked,
    /// It may run.
    Granted,
}

impl Call {
    pub fn new(
        tag: CallTag,
        number: CallNumber,
        state: CallState,
        now: Instant,
        hint: &PeerHint,
        config: &CallConfig,
    ) -> Call {
        let rtt = Rtt::new(hint.rtt);
        let rto = rtt.rto(config, Duration::ZERO);
        let mut receive = ReceiveWindow::new(
            config.receive_window_initial_packets,
            config.receive_window_max_packets,
            config.receive_buffer_max_bytes,
        );
        receive.set_room(hint.room);
        Call {
            tag,
            number,
            state,
            started: now,
            send: SendWindow::new(
                config.send_window_initial_packets,
                config.send_window_max_packets,
            ),
            receive,
            ack: AckPolicy::default(),
            rtt,
            congestion: Congestion::new(config, hint.congestion, now, rto),
            pacer: Pacer::new(now),
            timers: Timers::new(now, config),
            attached: false,
            turn: TurnState::None,
            is_proved: false,
            unattached: Vec::new(),
            discards: false,
            heard: false,
            closed_by_ack: false,
            was_acked: false,
            problem: None,
            probes: Vec::new(),
            size_probe: None,
            size_suspect: None,
            peer_datagram_max: 0,
            large_delivered: None,
            bytes_received: 0,
            remote_status: 0,
            local_status: 0,
            asks_upgrade: false,
            ack_requested_at: None,
            last_asked: false,
            must_resend: false,
        }
    }

    /// Something valid came.
    pub fn note_heard(&mut self, now: Instant) {
        self.heard = true;
        self.problem = None;
        self.timers.last_received = now;
    }

    /// When the next tail probe is due, if there may be another: before the retransmission timer, or not at all.
    pub fn arm_probe(&mut self, now: Instant, extra: Duration) {
        self.timers.probe = None;
        if self.timers.probes_sent >= TAIL_PROBES_MAX || !self.send.has_unacked() {
            return;
        }
        let Some(wait) = self.rtt.probe_timeout(self.last_asked) else { return };
        let extra = if self.last_asked { Duration::ZERO } else { extra };
        let at = now + (wait + extra) * (1 << self.timers.probes_sent);
        self.timers.probe =
            Some(at).filter(|at| self.timers.retransmit.is_none_or(|rto| *at < rto));
    }

    /// Remembers a PING for its answer.
    pub fn note_probe(&mut self, serial: Serial, now: Instant) {
        if self.probes.len() == PROBES_MAX {
            self.probes.remove(0);
        }
        self.probes.push((serial, now));
    }

    /// The PING that an answer names, and all older ones, are done; returns when it was sent.
    pub fn take_probe(&mut self, serial: Serial) -> Option<Instant> {
        let index = self.probes.iter().position(|(probe, _)| *probe == serial)?;
        let (_, at) = self.probes[index];
        self.probes.drain(..=index);
        Some(at)
    }

    /// Whether the application waits for the peer: for data to read, or for room to write.
    pub fn application_waits(&self) -> bool {
        let reads = || self.receive.unread_packets() == 0 && !self.receive.is_complete();
        match self.state {
            CallState::ClientReserved | CallState::ClientDone => false,
            CallState::ClientSend | CallState::ServerReply => self.send.is_application_stuck(),
            CallState::ClientAwaitReply | CallState::ClientReceiveReply => reads(),
            CallState::ServerReceive => self.attached && reads(),
            CallState::ServerWork | CallState::ServerAwaitAck | CallState::ServerDying => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four PINGs may wait for their answers; a fifth makes the oldest forgotten.
    #[test]
    fn four_probes_are_remembered_and_the_oldest_goes_for_a_fifth() {
        let now = Instant::now();
        let config = CallConfig::default();
        let hint = PeerHint::default();
        let call = |probes: u32| {
            let (tag, number) = (CallTag::default(), CallNumber(1));
            let mut call = Call::new(tag, number, CallState::ClientSend, now, &hint, &config);
            for index in 0..probes {
                call.note_probe(Serial(1 + index), now + Duration::from_secs(index.into()));
            }
            call
        };
        assert_eq!(call(4).take_probe(Serial(1)), Some(now));
        assert_eq!(call(5).take_probe(Serial(1)), None);
        assert_eq!(call(5).take_probe(Serial(2)), Some(now + Duration::from_secs(1)));
        let mut answered = call(4);
        answered.take_probe(Serial(3));
        assert_eq!(answered.take_probe(Serial(2)), None, "older ones are done with it");
        assert!(answered.take_probe(Serial(4)).is_some());
    }
}
