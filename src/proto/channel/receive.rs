//! DATA of the present call, either side (rx-calls.md 4.3), and the credit that comes back for it.

use std::time::Instant;

use super::transmit::SEQ_MAX;
use super::{Channel, ChannelOutput, LastEnd, Received, Security};
use crate::proto::call::{Offer, Packet, WindowUpdate};
use crate::proto::{CallFailure, DropReason, Role, Why};
use crate::security::PacketIds;
use crate::wire::{AbortCode, AckReason, Flags, Header, Seq, sub_packets};

impl Channel {
    /// All DATA packets of one datagram.
    pub(super) fn receive_datagram(
        &mut self,
        now: Instant,
        packet: &Received<'_>,
        out: &mut ChannelOutput,
    ) {
        let mut packets = sub_packets(packet.header, packet.at.len());
        while let Some(sub) = packets.next_in(packet.datagram()) {
            let at = packet.at.start + sub.payload.start..packet.at.start + sub.payload.end;
            let piece = Packet { payload: packet.data.slice(at), cksum: sub.header.cksum };
            self.receive_packet(now, &sub.header, piece, out);
            if self.call.is_none() {
                return;
            }
        }
    }

    fn receive_packet(
        &mut self,
        now: Instant,
        header: &Header,
        packet: Packet,
        out: &mut ChannelOutput,
    ) {
        let Some(call) = &mut self.call else { return };
        let (seq, serial) = (header.seq, header.serial);
        if seq == Seq(0) {
            return out.drop(DropReason::SeqZero);
        }
        let had_accepted = call.receive.has_accepted();
        let is_last = header.flags.has(Flags::LAST_PACKET);
        let offer = if seq.0 > SEQ_MAX {
            Offer::Beyond
        } else {
            call.receive.offer(seq, is_last, packet, &mut out.scratch.delivered)
        };
        match offer {
            Offer::InOrder { filled_gap } => {
                if header.flags.has(Flags::REQUEST_ACK) {
                    call.ack.demand(AckReason::Requested, serial);
                } else if filled_gap {
                    call.ack.demand(AckReason::Idle, serial);
                }
                if call.receive.next().0 > SEQ_MAX && !call.receive.is_complete() {
                    return self.refuse_data(now, Why::TooManyPackets, out);
                }
                if call.receive.is_complete() {
                    call.ack.received_last(now, self.config.delayed_ack);
                } else {
                    call.ack.received_in_order(serial, now, self.config.delayed_ack);
                }
            }
            Offer::Queued => call.ack.demand(AckReason::OutOfSequence, serial),
            Offer::Duplicate => call.ack.demand(AckReason::Duplicate, serial),
            Offer::Beyond if had_accepted => call.ack.demand(AckReason::ExceedsWindow, serial),
            // With firstPacket 1 and previousPacket 0 a Linux client would give the call up (S-178).
            Offer::Beyond => return out.drop(DropReason::BeyondWindow),
            Offer::NoBuffer => return out.drop(DropReason::NoBuffer),
            Offer::AfterLast => return self.refuse_data(now, Why::DataAfterLast, out),
            Offer::DifferentLast => return self.refuse_data(now, Why::DifferentLast, out),
        }
        call.note_heard(now);
        if call.attached {
            let mut delivered = std::mem::take(&mut out.scratch.delivered);
            self.deliver(now, delivered.drain(..), out);
            out.scratch.delivered = delivered;
        } else {
            call.unattached.append(&mut out.scratch.delivered);
        }
    }

    fn refuse_data(&mut self, now: Instant, why: Why, out: &mut ChannelOutput) {
        out.scratch.delivered.clear();
        let code = AbortCode::PROTOCOL_ERROR;
        self.abort_call(now, code, CallFailure::Aborted { code, why }, out);
    }

    /// Opens packets and hands them to the application.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        packets: impl Iterator<Item = (Seq, Packet)>,
        out: &mut ChannelOutput,
    ) {
        let Security::Ready(session) = self.security.clone() else { return };
        for (seq, packet) in packets {
            let Some(call) = &mut self.call else { return };
            let sealed_len = packet.payload.len();
            let plain = match &session {
                None => packet.payload,
                Some(session) => {
                    let ids = PacketIds {
                        cid: self.cid,
                        call_number: call.number,
                        seq,
                        from_client: self.role == Role::Server,
                    };
                    match session.open(&ids, packet.cksum, packet.payload) {
                        Ok(plain) => plain,
                        Err(code) => {
                            let failure = CallFailure::Aborted { code, why: Why::Security };
                            return self.abort_call(now, code, failure, out);
                        }
                    }
                }
            };
            call.bytes_received += plain.len() as u64;
            call.receive.note_opened(sealed_len, plain.len());
            if call.discards {
                call.receive.consume(1, plain.len());
            } else {
                let tag = call.tag;
                out.deliver(tag, plain);
            }
        }
    }

    /// The application has taken what it was given.
    pub(super) fn consume(&mut self, now: Instant, packets: u32, bytes: usize) {
        let Some(call) = &mut self.call else { return };
        let was_exhausted = call.receive.is_exhausted();
        call.receive.consume(packets, bytes);
        match call.receive.wants_update() {
            WindowUpdate::Now => {
                call.ack.demand(AckReason::Delay, crate::wire::Serial::NONE);
            }
            WindowUpdate::Delayed if !was_exhausted => {
                call.ack.delay(now + self.config.delayed_ack);
            }
            _ => {}
        }
    }

    /// The application wants no more of the request; what comes is acknowledged and thrown away.
    pub(super) fn discard(&mut self, now: Instant) {
        let Some(call) = &mut self.call else { return };
        call.discards = true;
        let (packets, bytes) = (call.receive.unread_packets(), call.receive.buffered_bytes());
        self.consume(now, packets, bytes);
    }

    /// Bytes of the application for its direction of the call.
    pub(super) fn write(&mut self, bytes: bytes::Bytes, ends: bool, flushes: bool) {
        let Some(call) = &mut self.call else { return };
        if call.send.is_closed() {
            return;
        }
        call.send.write(bytes);
        if flushes {
            call.send.flush();
        }
        if ends {
            call.send.close();
        }
    }

    /// Everything sent so far is acknowledged.
    pub(super) fn acknowledge_all(&mut self, now: Instant) {
        let Some(call) = &mut self.call else { return };
        call.note_heard(now);
        if call.send.acknowledge_all().newly_acked > 0 {
            call.was_acked = true;
        }
        call.timers.retransmit = None;
    }

    /// Answers a late packet of the last call: its end repeats.
    pub(super) fn answer_late(
        &mut self,
        now: Instant,
        number: crate::wire::CallNumber,
        reason: AckReason,
        serial: crate::wire::Serial,
        out: &mut ChannelOutput,
    ) {
        match (self.memory.end, self.memory.end.abort_code()) {
            (LastEnd::Success { packets, window }, _) => {
                self.final_ack = None;
                self.send_closing_ack(number, reason, serial, packets, window, out);
            }
            (_, Some(code)) if self.aborts.allows(code, now, &self.config) => {
                self.send_abort(number, code, out);
            }
            (_, Some(_)) => out.drop(DropReason::Throttled),
            _ => out.drop(DropReason::CallOver),
        }
    }
}
