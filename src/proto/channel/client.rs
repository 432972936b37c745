//! The client's side of a channel (rx-calls.md 4.4, 6, 7.2, 7.3, 8).

use std::time::Instant;

use super::{Channel, ChannelOutput, ChannelToConnection, LastEnd, Notice, Received, Start};
use crate::proto::call::{Call, CallState};
use crate::proto::{CallFailure, CallTag, DropReason, Event, Why, event};
use crate::wire::{AbortCode, Ack, AckReason, CallNumber, PacketType, Serial, decode_abort};

impl Channel {
    pub(super) fn client_start(&mut self, now: Instant, start: Start, out: &mut ChannelOutput) {
        debug_assert!(self.call.is_none() && self.failure.is_none());
        let pause = now.saturating_duration_since(self.idle_since);
        let had_call = self.memory.tag != CallTag::default();
        self.is_called_often = had_call && pause <= self.config.delayed_ack;
        let number = self.memory.last.next().unwrap_or(CallNumber::MAX);
        self.memory.tag = CallTag(self.memory.tag.0.wrapping_add(1));
        let call = Call::new(
            self.memory.tag,
            number,
            CallState::ClientReserved,
            now,
            &self.hint,
            &self.config,
        );
        let mut call = out.scratch.spare.furnish(call);
        call.attached = true;
        call.asks_upgrade = start.asks_upgrade;
        call.local_status = if start.asks_upgrade { 1 } else { start.user_status };
        if let Some(deadline) = start.deadline {
            // A deadline beyond the end of the clock is none.
            call.timers.hard = now.checked_add(deadline);
        }
        call.send.write(start.request);
        if start.is_whole {
            call.send.close();
        }
        self.call = Some(call);
    }

    /// The application ends the call: it has the whole reply, or gives up.
    pub(super) fn client_end(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.state != CallState::ClientDone {
            return self.client_abort(now, AbortCode::USER_ABORT, out);
        }
        // The next call's DATA acknowledges this reply; only if none comes soon an ACK of its own does,
        // unless one has left already (rx-calls.md 4.4).
        let due = now + self.config.final_ack_delay;
        self.final_ack = match call.ack.deadline() {
            _ if call.closed_by_ack => None,
            // The next call is likely to come, and the server waits so long for any ACK (rx-flow.md 4).
            Some(held) if self.is_called_often && !self.config.final_ack_delay.is_zero() => {
                Some(due.max(held))
            }
            _ => Some(due),
        };
        self.end_call(now, Ok(()), self.success(), false, out);
    }

    pub(super) fn client_abort(&mut self, now: Instant, code: AbortCode, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.state == CallState::ClientDone {
            return self.client_end(now, out);
        }
        let failure = CallFailure::Aborted { code, why: Why::Application };
        self.abort_call(now, code, failure, out);
    }

    /// The first DATA of a call leaves: it takes its number, and acknowledges the reply before it.
    pub(super) fn client_take_number(&mut self, now: Instant, out: &mut ChannelOutput) {
        self.final_ack = None;
        let Some(call) = &mut self.call else { return };
        call.state = CallState::ClientSend;
        call.started = now;
        call.timers.last_received = now;
        let (tag, number) = (call.tag, call.number);
        out.notify(tag, Notice::Started(number));
        let role = self.role;
        out.events.push(Event::CallStarted(event::CallStarted { role, number }));
    }

    pub(super) fn client_packet(
        &mut self,
        now: Instant,
        packet: &Received<'_>,
        out: &mut ChannelOutput,
    ) {
        let number = packet.header.call_number;
        let current = self
            .call
            .as_ref()
            .filter(|call| call.state != CallState::ClientReserved)
            .map(|call| call.number);
        if packet.header.packet_type == PacketType::Busy {
            return self.client_busy(now, number, current, out);
        }
        match current {
            Some(current) if number == current => self.client_current(now, packet, out),
            Some(current) if number < current => out.drop(DropReason::StaleCall),
            Some(_) => out.drop(DropReason::FutureCall),
            None if number == self.memory.last && self.call.is_none() => {
                self.client_late(now, packet, out);
            }
            None if number <= self.memory.last => out.drop(DropReason::StaleCall),
            None => out.drop(DropReason::FutureCall),
        }
    }

    fn client_current(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        let state = call.state;
        match packet.header.packet_type {
            PacketType::Data => self.client_data(now, packet, out),
            PacketType::Ack => self.client_ack(now, packet, out),
            PacketType::AckAll => match state {
                CallState::ClientSend | CallState::ClientAwaitReply => {
                    self.adopt_service(packet, out);
                    self.acknowledge_all(now);
                }
                _ => out.drop(DropReason::OutOfState),
            },
            PacketType::Abort => {
                let Some(code) = decode_abort(packet.payload()) else {
                    return out.drop(DropReason::PayloadShort);
                };
                if state == CallState::ClientDone {
                    return out.drop(DropReason::OutOfState);
                }
                let number = packet.header.call_number;
                out.events.push(Event::Aborted(event::Aborted { number, code, sent: false }));
                self.fail_call(now, CallFailure::PeerAborted(code), LastEnd::Failed, out);
            }
            _ => out.drop(DropReason::WrongDirection),
        }
    }

    fn client_data(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        if call.state == CallState::ClientSend {
            let code = AbortCode::PROTOCOL_ERROR;
            let failure = CallFailure::Aborted { code, why: Why::EarlyReply };
            return self.abort_call(now, code, failure, out);
        }
        if call.state == CallState::ClientAwaitReply {
            // The reply's first DATA acknowledges the whole request (rx-calls.md 5).
            call.state = CallState::ClientReceiveReply;
            call.send.acknowledge_all();
            call.was_acked = true;
            call.timers.stop_recovery();
        }
        self.adopt_service(packet, out);
        self.receive_datagram(now, packet, out);
        self.open_if_complete(now, out);
        if let Some(call) = &mut self.call
            && call.state == CallState::ClientReceiveReply
            && call.receive.is_complete()
        {
            call.state = CallState::ClientDone;
            let tag = call.tag;
            out.notify(tag, Notice::End);
        }
    }

    fn client_ack(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        let sending = matches!(call.state, CallState::ClientSend | CallState::ClientAwaitReply);
        if sending
            && !call.was_acked
            && Ack::decode(packet.payload()).is_ok_and(|ack| {
                ack.reason == AckReason::ExceedsWindow
                    && ack.first_packet.0 == 1
                    && ack.previous_packet.0 == 0
            })
        {
            // The server lost the call, or never had it (rx-wire.md 5, row 4; S-99).
            return self.fail_call(now, CallFailure::NetReset, LastEnd::Failed, out);
        }
        self.adopt_service(packet, out);
        self.handle_ack(now, packet, sending, out);
    }

    fn client_busy(
        &mut self,
        now: Instant,
        number: CallNumber,
        current: Option<CallNumber>,
        out: &mut ChannelOutput,
    ) {
        // OpenAFS puts the old call's number + 1 into it, others the refused packet's (rx-calls.md 8).
        if number < current.unwrap_or(self.memory.last) {
            return out.drop(DropReason::StaleCall);
        }
        out.events.push(Event::Busy(event::Busy { number, sent: false }));
        // The connection wants to know when this call has gone well.
        self.has_leave = false;
        self.is_quiet = false;
        out.connection.push(ChannelToConnection::Busy);
        if let Some(call) = &mut self.call
            && matches!(call.state, CallState::ClientSend | CallState::ClientAwaitReply)
        {
            call.note_heard(now);
        }
    }

    /// Packets of the last call, while no newer one has the channel (rx-calls.md 7.2).
    fn client_late(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let header = packet.header;
        let reason = match header.packet_type {
            PacketType::Data => AckReason::Duplicate,
            PacketType::Ack => match Ack::decode(packet.payload()) {
                Ok(Ack { reason: AckReason::Ping, .. }) => AckReason::PingResponse,
                _ => return out.drop(DropReason::CallOver),
            },
            _ => return out.drop(DropReason::CallOver),
        };
        self.answer_late(now, header.call_number, reason, header.serial, out);
    }

    /// The final ACK of 7.3, if one is still owed.
    pub(super) fn send_final_ack(&mut self, _: Instant, out: &mut ChannelOutput) {
        if self.final_ack.take().is_none() {
            return;
        }
        if let LastEnd::Success { packets, window } = self.memory.end {
            self.send_closing_ack(
                self.memory.last,
                AckReason::Idle,
                Serial::NONE,
                packets,
                window,
                out,
            );
        }
    }

    /// While an upgrade is asked for, the service of the first answer holds for the whole connection
    /// (rx-calls.md 12).
    fn adopt_service(&mut self, packet: &Received<'_>, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        if !std::mem::take(&mut call.asks_upgrade) {
            return;
        }
        let service_id = packet.header.service_id;
        if service_id != self.service_id {
            self.service_id = service_id;
            out.events.push(Event::ServiceUpgraded(event::ServiceUpgraded { service_id }));
        }
        out.connection.push(ChannelToConnection::ServiceAdopted(service_id));
    }
}
