//! ACKs, out and in (rx-flow.md 3 and 4).

use std::time::{Duration, Instant};

use super::choices::Unlikely;
use super::{Channel, ChannelOutput, Received};
use crate::proto::call::{AckRefused, Acked, Progress};
use crate::proto::path::DATAGRAM_MIN;
use crate::proto::peer::{PeerReport, PeerSizes};
use crate::proto::{CallFailure, DropReason, Event, Role, Room, Why, event};
use crate::wire::{
    ACK_FIXED_LEN, AbortCode, Ack, AckReason, CallNumber, DATA_PAYLOAD_MAX, Flags, FullTrailer,
    HEADER_LEN, JUMBO_HEADER_LEN, PacketType, Seq, Serial, Trailer,
};

/// The size that our trailers suggest: what fits an Ethernet packet by OpenAFS's reckoning.
const MTU_ADVERTISED: u32 = 1444;
/// Padding and trailer of our ACKs.
const ACK_TAIL_BYTES: usize = 3 + 16;
/// Window of a peer whose ACKs have no trailer (rx-wire.md 4.4.2).
const WINDOW_WITHOUT_TRAILER: u32 = 15;

impl Channel {
    /// The ACK that the call owes, if it is due.
    pub(super) fn send_due_ack(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if let Some((reason, serial)) = call.ack.due(now) {
            self.send_ack(now, reason, serial, out);
        }
    }

    /// An ACK of the present call, with its whole state. Returns its serial.
    pub(super) fn send_ack(
        &mut self,
        now: Instant,
        reason: AckReason,
        serial: Serial,
        out: &mut ChannelOutput,
    ) -> Serial {
        self.send_padded_ack(now, reason, serial, 0, out)
    }

    /// As [`Channel::send_ack`], with zeros behind it that make its datagram `len` bytes, if it is not so
    /// long anyway.
    pub(super) fn send_padded_ack(
        &mut self,
        now: Instant,
        reason: AckReason,
        serial: Serial,
        len: usize,
        out: &mut ChannelOutput,
    ) -> Serial {
        let Some(call) = &mut self.call else { return Serial::NONE };
        let mut sacks = std::mem::take(&mut out.scratch.sacks);
        sacks.clear();
        let mut described = call.receive.describe(&mut sacks);
        call.receive.note_described(now);
        if self.choices.take(Unlikely::ShrinkWindow) {
            described.window = call.receive.shrink_window(described.first);
        }
        call.ack.clear();
        call.timers.last_sent = now;
        call.closed_by_ack = call.receive.is_complete();
        let ack = Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: described.first,
            previous_packet: described.previous,
            serial,
            reason,
            sacks: &sacks,
            padding: [0; 3],
            trailer: self.trailer(described.window),
            excess: &[],
        };
        let number = self.call_number();
        let serial = self.push_ack(number, &ack, len, out);
        out.scratch.sacks = sacks;
        serial
    }

    /// An ACK of a call that is over: all of the peer's direction is acknowledged for good.
    pub(super) fn send_closing_ack(
        &mut self,
        number: CallNumber,
        reason: AckReason,
        serial: Serial,
        packets: u32,
        window: u32,
        out: &mut ChannelOutput,
    ) {
        let ack = Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: Seq::FIRST.plus(packets),
            previous_packet: Seq(packets),
            serial,
            reason,
            sacks: &[],
            padding: [0; 3],
            trailer: self.trailer(window),
            excess: &[],
        };
        self.push_ack(number, &ack, 0, out);
    }

    /// A PING of the present call: keeps it alive, measures, proves the peer's address.
    pub(super) fn send_ping(&mut self, now: Instant, out: &mut ChannelOutput) {
        let serial = self.send_ack(now, AckReason::Ping, Serial::NONE, out);
        if let Some(call) = &mut self.call {
            call.note_probe(serial, now);
        }
    }

    /// A PING that asks for the proof of the client's address, and the time of the next.
    pub(super) fn send_reach_ping(&mut self, now: Instant, out: &mut ChannelOutput) {
        self.send_ping(now, out);
        out.events.push(Event::Reach(event::Reach { proved: false }));
        if let Some(call) = &mut self.call {
            call.timers.reach_ping = Some(now + self.config.reach_ping_interval);
        }
    }

    /// An ACK for the present call. `sending` = its state applies to our send window.
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        packet: &Received<'_>,
        sending: bool,
        out: &mut ChannelOutput,
    ) {
        let header = packet.header;
        let Ok(mut ack) = Ack::decode(packet.payload()) else {
            return out.drop(DropReason::BadAck);
        };
        let next_serial = self.serials.peek();
        if !ack.serial.before(next_serial) {
            // Never sent: it says nothing of what has arrived.
            ack.serial = Serial::NONE;
        }
        if ack.reason == AckReason::Ping {
            self.note_size_question(now, packet.datagram().len(), out);
        }
        // Always, even if stale: a stalled peer may hang on it (rx-flow.md 3, step 0).
        if ack.reason == AckReason::Ping || header.flags.has(Flags::REQUEST_ACK) {
            self.send_ack(now, AckReason::PingResponse, header.serial, out);
        }
        let Some(call) = &mut self.call else { return };
        let in_flight = call.send.in_flight();
        let (newest, progress) = match call.send.acknowledge(&ack, header.serial) {
            Ok(applied) => applied,
            Err(AckRefused::Stale) => return out.drop(DropReason::StaleAck),
            Err(AckRefused::Bad) => return out.drop(DropReason::BadAck),
            Err(AckRefused::BeyondSent) => {
                let code = AbortCode::PROTOCOL_ERROR;
                let failure = CallFailure::Aborted { code, why: Why::AckBeyondSent };
                return self.abort_call(now, code, failure, out);
            }
        };
        let mut sample = None;
        if newest {
            call.note_heard(now);
            sample = self.sample_rtt(now, &ack, &progress, out);
            self.read_trailer(now, &ack.trailer, out);
        }
        if sending {
            self.apply_progress(now, progress, in_flight, sample);
        }
        if ack.reason == AckReason::PingResponse {
            self.note_ping_answered(now, ack.serial, out);
        }
        if newest && ack.reason == AckReason::PingResponse && self.role == Role::Server {
            self.try_attach(now, out);
        }
    }

    fn sample_rtt(
        &mut self,
        now: Instant,
        ack: &Ack<'_>,
        progress: &Progress,
        out: &mut ChannelOutput,
    ) -> Option<Duration> {
        let call = self.call.as_mut()?;
        let sent_at = match ack.reason {
            AckReason::Delay => None,
            AckReason::PingResponse => call.take_probe(ack.serial),
            _ => progress.sample_from,
        };
        let sample = sent_at.map(|sent_at| now.saturating_duration_since(sent_at));
        if let Some(sample) = sample {
            call.rtt.sample(sample);
            call.is_proved = true;
            let rtt = call.rtt.memory();
            // Only a host that receives at its address can name the serial of a PING, or of DATA: the
            // proof of a call that goes on for longer than it holds renews itself.
            if !self.hint.is_proved(now) {
                out.events.push(Event::Reach(event::Reach { proved: true }));
            }
            self.learn(now, out, PeerReport { rtt, proved: true, ..PeerReport::default() });
        }
        sample
    }

    /// Window and sizes (rx-wire.md 4.4.2).
    fn read_trailer(&mut self, now: Instant, trailer: &Trailer, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        let mut jumbo_max = None;
        let sizes = match *trailer {
            Trailer::None => {
                call.send.set_peer_window(WINDOW_WITHOUT_TRAILER, true);
                None
            }
            Trailer::Sizes { max_mtu, if_mtu } => Some((max_mtu, if_mtu)),
            Trailer::Window { max_mtu, if_mtu, rwind } => {
                call.send.set_peer_window(rwind, false);
                Some((max_mtu, if_mtu))
            }
            Trailer::Full(full) => {
                call.send.set_peer_window(full.rwind, true);
                jumbo_max = Some(full.jumbo_max.min(6) as u8);
                Some((full.max_mtu, full.if_mtu))
            }
        };
        let mut change = PeerReport::default();
        let mut takes = PeerSizes { jumbo_max: jumbo_max.unwrap_or(1).max(1), ..self.hint.sizes };
        if let Some((max_mtu, if_mtu)) = sizes {
            let sane = |word: u32| word.clamp(DATAGRAM_MIN.into(), u16::MAX.into()) as u16;
            takes.datagram_max = sane(max_mtu);
            call.peer_datagram_max = takes.datagram_max;
            takes.suggested_max = sane(max_mtu.min(if_mtu));
        }
        if takes != self.hint.sizes {
            change.sizes = Some(takes);
        }
        change.is_linux = jumbo_max == Some(0) && !self.hint.is_linux;
        self.learn(now, out, change);
    }

    /// What an ACK showed, for the window and the clocks (docs/recovery.md 1 to 3).
    fn apply_progress(
        &mut self,
        now: Instant,
        progress: Progress,
        in_flight: u32,
        sample: Option<Duration>,
    ) {
        let Some(call) = &mut self.call else { return };
        call.large_delivered = progress.large.or(call.large_delivered);
        if progress.newly_acked > 0 || progress.moved {
            call.was_acked = true;
        }
        if progress.spurious > 0 {
            let was_timeout = call.congestion.is_after_timeout();
            if call.congestion.on_spurious(progress.spurious) {
                call.send.allow_later();
                if was_timeout {
                    call.send.trust_again();
                }
            }
        }
        call.congestion.on_acked(&Acked {
            now,
            packets: progress.newly_acked,
            in_flight,
            delivered: call.send.delivered(),
            next_serial: self.serials.peek(),
            sample,
            srtt: call.rtt.memory().map(|memory| memory.srtt),
            least_rtt: call.rtt.least(),
        });
        if progress.newly_acked > 0 {
            call.rtt.progress();
            call.timers.probes_sent = 0;
        }
        self.detect_losses(now, in_flight);
        self.arm_recovery(now, progress.newly_acked > 0);
    }

    /// Packets that others have overtaken count as lost, now or by the timer.
    pub(super) fn detect_losses(&mut self, now: Instant, in_flight: u32) {
        let next_serial = self.serials.peek();
        let Some(call) = &mut self.call else { return };
        let losses = call.send.detect_losses(now, &call.rtt, call.congestion.is_recovering());
        call.timers.reorder = losses.again_at;
        if losses.packets > 0 {
            call.congestion.on_lost(now, losses.packets, losses.last, in_flight, next_serial);
            call.must_resend = true;
            self.suspect_size(0, losses.last);
        }
    }

    /// Timers of what is in flight; `anew` = something was acknowledged.
    pub(super) fn arm_recovery(&mut self, now: Instant, anew: bool) {
        let extra = self.rto_extra();
        let Some(call) = &mut self.call else { return };
        if !call.send.has_unacked() {
            return call.timers.stop_recovery();
        }
        if anew || call.timers.retransmit.is_none() {
            call.timers.retransmit = Some(now + call.rtt.rto(&self.config, extra));
        }
        if anew || call.timers.probe.is_none() {
            call.arm_probe(now, extra);
            if self.choices.take(Unlikely::LateTimerFirst) {
                call.timers.probe = None;
            }
        }
    }

    /// An OpenAFS server may hold the ACK of a request's last packet 400 ms (rx-flow.md 5.3).
    pub(super) fn rto_extra(&self) -> Duration {
        let waits = self.role == Role::Client
            && !self.hint.is_linux
            && self.call.as_ref().is_some_and(|call| call.send.only_last_unacked());
        if waits { crate::proto::call::LAST_PACKET_ALLOWANCE } else { Duration::ZERO }
    }

    /// Largest datagram that everybody is told that we take: a jumbogram, if we take those.
    pub(super) fn usual_receive_max(&self) -> u32 {
        let jumbo_step = (DATA_PAYLOAD_MAX + JUMBO_HEADER_LEN) as u32;
        MTU_ADVERTISED + (self.config.jumbo_receive_packets - 1) * jumbo_step
    }

    fn trailer(&self, window: u32) -> Trailer {
        let jumbo_max = self.config.jumbo_receive_packets;
        // OpenAFS would send large datagrams to whoever takes them, in fragments; so only those hear of it that
        // have asked what the path takes. Where room is short a call lives on a few small packets at a time.
        let takes_larger = self.hint.asks_sizes && self.hint.room == Room::Free;
        let larger = if takes_larger { self.config.datagram_max_bytes } else { 0 };
        Trailer::Full(FullTrailer {
            max_mtu: self.usual_receive_max().max(larger),
            if_mtu: MTU_ADVERTISED,
            rwind: window,
            jumbo_max,
        })
    }

    fn push_ack(
        &mut self,
        number: CallNumber,
        ack: &Ack<'_>,
        len: usize,
        out: &mut ChannelOutput,
    ) -> Serial {
        let flags = Flags::SLOW_START_OK.with_if(ack.reason == AckReason::Ping, Flags::REQUEST_ACK);
        let header = self.header(PacketType::Ack, number, Seq(0), flags);
        let needed = HEADER_LEN + ACK_FIXED_LEN + ack.sacks.len() + ACK_TAIL_BYTES;
        out.datagrams.reserve(needed.max(len));
        let buffer = out.datagrams.begin(&header);
        let start = buffer.len() - HEADER_LEN;
        ack.encode(buffer);
        buffer.resize(buffer.len().max(start + len), 0);
        if self.choices.take(Unlikely::LoseSend) {
            out.datagrams.abandon();
        } else if len > 0 {
            out.datagrams.finish_alone();
        } else {
            out.datagrams.finish();
        }
        header.serial
    }
}
