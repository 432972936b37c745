//! The server's side of a channel (rx-calls.md 4.1, 4.2, 6, 7.1, 8).

use std::time::Instant;

use super::{
    Channel, ChannelOutput, ChannelToConnection, Command, Incoming, LastEnd, Notice, Received,
    Security,
};
use crate::proto::call::{Call, CallState, TurnState};
use crate::proto::{CallFailure, CallTag, DropReason, Event, ServiceLoad, TurnWord, Why, event};
use crate::wire::{AbortCode, Ack, AckReason, Flags, PacketType, Seq, Serial, decode_abort};

/// The part of `reach_ping_interval` after which a packet of the call that waits draws the next PING.
const REACH_PING_SHARE: u32 = 10;

impl Channel {
    pub(super) fn server_packet(
        &mut self,
        now: Instant,
        packet: &Received<'_>,
        out: &mut ChannelOutput,
    ) {
        let number = packet.header.call_number;
        let is_data = packet.header.packet_type == PacketType::Data;
        match &self.call {
            Some(call) if number == call.number => self.server_current(now, packet, out),
            Some(call) if number < call.number => out.drop(DropReason::StaleCall),
            // Only DATA ends a call implicitly (rx-calls.md 6).
            Some(_) if is_data => self.server_next(now, packet, out),
            Some(_) => out.drop(DropReason::FutureCall),
            None if number < self.memory.last => out.drop(DropReason::StaleCall),
            None if number == self.memory.last => self.server_late(now, packet, out),
            None if is_data => self.server_accept(now, packet, out),
            None => out.drop(DropReason::FutureCall),
        }
    }

    /// DATA of a higher call number: the present call is over, one way or the other.
    fn server_next(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        if self.is_far_ahead(packet.header.seq) {
            return out.drop(DropReason::FarAhead);
        }
        let Some(call) = &mut self.call else { return };
        if call.state == CallState::ServerAwaitAck {
            // The client reuses a channel only when it has the whole reply.
            let tag = call.tag;
            out.notify(tag, Notice::Acknowledged(true));
            self.end_call(now, Ok(()), self.success(), false, out);
        } else if self.config.takeover {
            self.fail_call(now, CallFailure::Overtaken, LastEnd::Failed, out);
        } else {
            if call.state != CallState::ServerDying {
                let (tag, attached) = (call.tag, call.attached);
                // An application that has written all its reply has no more to say.
                let over = !attached || call.send.is_closed();
                call.state = CallState::ServerDying;
                call.ack.clear();
                call.timers.stop_recovery();
                if attached {
                    out.notify(tag, Notice::Failed(CallFailure::Overtaken));
                }
                if over {
                    self.end_call(now, Err(CallFailure::Overtaken), LastEnd::Failed, false, out);
                }
            }
            return self.refuse_as_busy(now, packet, out);
        }
        self.server_accept(now, packet, out);
    }

    fn refuse_as_busy(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        if packet.header.seq != Seq::FIRST && !packet.header.flags.has(Flags::REQUEST_ACK) {
            return out.drop(DropReason::OutOfState);
        }
        // Not more often than an abort would be (rx-calls.md 8).
        let throttle = &mut self.throttles.get_or_insert_default().busies;
        if !throttle.allows(AbortCode::default(), now, &self.config) {
            return out.drop(DropReason::Throttled);
        }
        let number = packet.header.call_number;
        let header = self.header(PacketType::Busy, number, Seq(0), Flags::NONE);
        out.datagrams.push(&header, &[]);
        out.events.push(Event::Busy(event::Busy { number, sent: true }));
    }

    /// First DATA of a new call.
    fn server_accept(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let header = packet.header;
        // DATA from far ahead belongs to a call from before a restart (rx-calls.md 1.2).
        if self.is_far_ahead(header.seq) {
            return out.drop(DropReason::FarAhead);
        }
        if self.draining {
            self.memory.last = header.call_number;
            self.memory.end = LastEnd::Aborted(AbortCode::RESTARTING);
            return self.send_abort(header.call_number, AbortCode::RESTARTING, out);
        }
        if let ServiceLoad::Full(code) = self.hint.load {
            self.memory.last = header.call_number;
            self.memory.end = LastEnd::Aborted(code);
            out.drop(DropReason::Overload);
            return self.send_abort(header.call_number, code, out);
        }
        self.memory.tag = CallTag(self.memory.tag.0.wrapping_add(1));
        let call = Call::new(
            self.memory.tag,
            header.call_number,
            CallState::ServerReceive,
            now,
            &self.hint,
            &self.config,
        );
        self.call = Some(out.scratch.spare.furnish(call));
        let (role, number) = (self.role, header.call_number);
        out.events.push(Event::CallStarted(event::CallStarted { role, number }));
        self.server_data(now, packet, out);
    }

    fn is_far_ahead(&self, seq: Seq) -> bool {
        // Plain, not modulo: seq 2^31 and above is far ahead too, not behind.
        seq.0 > self.config.receive_window_initial_packets
    }

    fn server_current(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.state == CallState::ServerDying {
            return out.drop(DropReason::OutOfState);
        }
        let state = call.state;
        match packet.header.packet_type {
            PacketType::Data => self.server_data(now, packet, out),
            PacketType::Ack => {
                let sending = matches!(state, CallState::ServerReply | CallState::ServerAwaitAck);
                self.handle_ack(now, packet, sending, out);
            }
            PacketType::AckAll => match state {
                CallState::ServerReply | CallState::ServerAwaitAck => {
                    if let Some(call) = &mut self.call {
                        call.note_heard(now);
                    }
                    self.acknowledge_all(now);
                }
                _ => out.drop(DropReason::OutOfState),
            },
            PacketType::Abort => {
                let Some(code) = decode_abort(packet.payload()) else {
                    return out.drop(DropReason::PayloadShort);
                };
                let number = packet.header.call_number;
                out.events.push(Event::Aborted(event::Aborted { number, code, sent: false }));
                self.fail_call(now, CallFailure::PeerAborted(code), LastEnd::Failed, out);
            }
            _ => out.drop(DropReason::WrongDirection),
        }
    }

    fn server_data(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        self.receive_datagram(now, packet, out);
        self.open_if_complete(now, out);
        let Some(call) = &mut self.call else { return out.scratch.delivered.clear() };
        call.remote_status = packet.header.user_status;
        if call.state == CallState::ServerReceive && call.receive.is_complete() {
            call.state = CallState::ServerWork;
            let (tag, tell) = (call.tag, call.attached && !call.discards);
            if tell {
                out.notify(tag, Notice::End);
            }
        }
        self.try_attach(now, out);
        self.keep_unattached(out);
    }

    /// Starts the service if the call has something for it, the connection is secured, and the client's
    /// address is proved where the service wants that (rx-calls.md 4.1).
    pub(super) fn try_attach(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.attached || !call.receive.has_in_order() {
            return;
        }
        if matches!(self.security, Security::Pending) {
            out.connection.push(ChannelToConnection::NeedsSecurity);
            return;
        }
        let is_proved = call.is_proved || self.hint.is_proved(now);
        if self.needs_reach && !is_proved && call.turn == TurnState::None {
            // What comes while it waits is most likely sent again, because the PING or its answer was lost: the
            // next one goes in the place of that packet's ACK, and not only when it is its time.
            let interval = self.config.reach_ping_interval;
            let again = |due: Instant| now + interval >= due + interval / REACH_PING_SHARE;
            if call.timers.reach_ping.is_none_or(again) {
                self.send_reach_ping(now, out);
            }
            return;
        }
        if self.hint.load != ServiceLoad::Unlimited && call.turn != TurnState::Granted {
            return self.ask_turn(out);
        }
        let payload_max = self.usual_plain_max();
        let Some(call) = &mut self.call else { return };
        call.attached = true;
        call.timers.reach_ping = None;
        if !std::mem::replace(&mut self.has_served, true) {
            out.connection.push(ChannelToConnection::Served);
        }
        let (tag, is_complete) = (call.tag, call.receive.is_complete());
        let incoming = Incoming {
            number: call.number,
            service_id: self.service_id,
            user_status: call.remote_status,
            credit: call
                .send
                .take_credit(payload_max, call.congestion.window(), self.hint.room)
                .unwrap_or(0),
        };
        let mut held = std::mem::take(&mut call.unattached);
        out.notify(tag, Notice::Incoming(incoming));
        self.deliver(now, &mut held, out);
        // What has just come need not wait.
        let mut fresh = std::mem::take(&mut out.scratch.delivered);
        self.deliver(now, &mut fresh, out);
        out.scratch.delivered = fresh;
        if is_complete && self.call.is_some() {
            out.notify(tag, Notice::End);
        }
    }

    /// The service runs only so many calls at once.
    fn ask_turn(&mut self, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        // Whoever waits has proved its address already, and has not to do so again.
        call.timers.reach_ping = None;
        if call.turn == TurnState::None {
            call.turn = TurnState::Asked;
            out.turn = Some(TurnWord::Wants(call.tag));
        }
    }

    /// The call with this tag has its turn, or is ended with a code: too many wait (rx-calls.md 4.1). `false`
    /// = there is no such call any more, and it takes no turn.
    pub fn handle_turn(
        &mut self,
        now: Instant,
        tag: CallTag,
        turn: Result<(), AbortCode>,
        out: &mut ChannelOutput,
    ) -> bool {
        let Some(call) = self.call.as_mut().filter(|call| call.tag == tag && !call.attached) else {
            return false;
        };
        match turn {
            Ok(()) => {
                call.turn = TurnState::Granted;
                self.try_attach(now, out);
            }
            Err(code) => {
                call.turn = TurnState::None;
                out.drop(DropReason::Overload);
                let failure = CallFailure::Aborted { code, why: Why::Overload };
                self.abort_call(now, code, failure, out);
            }
        }
        self.conclude(now, out);
        turn.is_ok()
    }

    /// A word of the application of a call that is overtaken already: the one that ends its part, in
    /// whatever way, frees the channel (RC-10).
    pub(super) fn bury(&mut self, now: Instant, command: &Command, out: &mut ChannelOutput) {
        if matches!(command, Command::End | Command::Abort(_) | Command::Write { ends: true, .. }) {
            self.end_call(now, Err(CallFailure::Overtaken), LastEnd::Failed, false, out);
        }
    }

    /// The application has ended its part without a word, or gone away.
    pub(super) fn server_end(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        match call.state {
            // The reply is on its way, and goes on without its writer.
            CallState::ServerAwaitAck => {}
            // It goes when the request is complete, which nobody reads any more.
            _ if call.send.is_closed() => self.discard(now),
            _ => self.server_abort(now, AbortCode::CALL_DEAD, out),
        }
    }

    pub(super) fn server_abort(&mut self, now: Instant, code: AbortCode, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        match call.state {
            CallState::ServerAwaitAck => {}
            _ => {
                let failure = CallFailure::Aborted { code, why: Why::Application };
                self.abort_call(now, code, failure, out);
            }
        }
    }

    /// Packets of the last call (rx-calls.md 7.1).
    fn server_late(&mut self, now: Instant, packet: &Received<'_>, out: &mut ChannelOutput) {
        let header = packet.header;
        match header.packet_type {
            PacketType::Data if self.memory.end.abort_code().is_some() => {
                self.answer_late(now, header.call_number, AckReason::Duplicate, Serial::NONE, out);
            }
            // Its reply has arrived, else the call would not be over.
            PacketType::Data => out.drop(DropReason::CallOver),
            PacketType::Ack => match Ack::decode(packet.payload()) {
                Ok(ack)
                    if ack.reason == AckReason::Ping || header.flags.has(Flags::REQUEST_ACK) =>
                {
                    let reason = AckReason::PingResponse;
                    self.answer_late(now, header.call_number, reason, header.serial, out);
                }
                _ => out.drop(DropReason::CallOver),
            },
            _ => out.drop(DropReason::CallOver),
        }
    }

    /// Whether the reply is wholly acknowledged: then the call is over. Soft ACKs suffice, since OpenAFS
    /// clients may end a call with them (rx-calls.md 4.2).
    pub(super) fn check_reply_acknowledged(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.state == CallState::ServerAwaitAck && call.send.is_finished(true) {
            let tag = call.tag;
            out.notify(tag, Notice::Acknowledged(true));
            self.end_call(now, Ok(()), self.success(), false, out);
        }
    }
}
