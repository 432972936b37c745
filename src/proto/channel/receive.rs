//! DATA of the present call, either side (rx-calls.md 4.3), and the credit that comes back for it.

use std::time::Instant;

use bytes::Bytes;

use super::choices::Unlikely;
use super::output::OpenScratch;
use super::transmit::SEQ_MAX;
use super::{Channel, ChannelOutput, LastEnd, Notice, Received, Security};
use crate::proto::call::{Offer, Packet, WindowUpdate};
use crate::proto::{CallFailure, DropReason, Holding, Role, Room, Why};
use crate::security::{PacketIds, SealedPacket, Session};
use crate::wire::{AbortCode, AckReason, Flags, Header, Seq, sub_packets};

/// Half of the largest batch that a network receives in one buffer.
const DENSE_BYTES_MIN: usize = 32 << 10;

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
        call.receive.note_arrival(now, seq);
        if call.receive.has_held() && self.choices.take(Unlikely::ForgetHeld) {
            call.receive.forget_held();
        }
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
                } else if self.choices.take(Unlikely::DelayAck) {
                    call.ack.delay(now + self.config.delayed_ack);
                } else if self.choices.take(Unlikely::AckAtOnce) {
                    call.ack.demand(AckReason::Idle, serial);
                } else {
                    call.ack.received_in_order(serial, now, self.config.delayed_ack);
                }
            }
            Offer::Queued => call.ack.demand(AckReason::OutOfSequence, serial),
            Offer::Duplicate => {
                out.duplicates += 1;
                call.ack.demand(AckReason::Duplicate, serial);
            }
            Offer::Beyond if had_accepted => call.ack.demand(AckReason::ExceedsWindow, serial),
            // With firstPacket 1 and previousPacket 0 a Linux client would give the call up (S-178).
            Offer::Beyond => return out.drop(DropReason::BeyondWindow),
            Offer::NoBuffer => {
                call.note_heard(now);
                return out.drop(DropReason::NoBuffer);
            }
            Offer::AfterLast => return self.refuse_data(now, Why::DataAfterLast, out),
            Offer::DifferentLast => return self.refuse_data(now, Why::DifferentLast, out),
        }
        call.note_heard(now);
        if !call.attached {
            // The service may start right now: then they go to it from here, else to those that wait.
        } else if matches!(self.security, Security::Ready(Some(_))) {
            out.scratch.unopened.append(&mut out.scratch.delivered);
        } else {
            let mut delivered = std::mem::take(&mut out.scratch.delivered);
            self.deliver(now, &mut delivered, out);
            out.scratch.delivered = delivered;
        }
    }

    /// Keeps what came for a call that has not reached its service: it waits for a proof, perhaps for ever, so
    /// without the buffers that it came in.
    pub(super) fn keep_unattached(&mut self, out: &mut ChannelOutput) {
        match &mut self.call {
            Some(call) if !call.attached => {
                call.unattached.extend(out.scratch.delivered.drain(..).map(|(seq, packet)| {
                    let payload = Bytes::copy_from_slice(&packet.payload);
                    (seq, Packet { payload, ..packet })
                }));
            }
            _ => out.scratch.delivered.clear(),
        }
    }

    fn refuse_data(&mut self, now: Instant, why: Why, out: &mut ChannelOutput) {
        out.scratch.delivered.clear();
        self.open_received(now, out);
        let code = AbortCode::PROTOCOL_ERROR;
        self.abort_call(now, code, CallFailure::Aborted { code, why }, out);
    }

    /// Opens what this run has brought so far, and hands it to the application. Before anything else
    /// happens to the call: its end, its failure, another call.
    pub(super) fn open_received(&mut self, now: Instant, out: &mut ChannelOutput) {
        if out.scratch.unopened.is_empty() {
            return;
        }
        let mut unopened = std::mem::take(&mut out.scratch.unopened);
        self.deliver(now, &mut unopened, out);
        out.scratch.unopened = unopened;
    }

    /// As [`Channel::open_received`], once the peer's direction is complete: its end comes after its bytes.
    pub(super) fn open_if_complete(&mut self, now: Instant, out: &mut ChannelOutput) {
        if self.call.as_ref().is_some_and(|call| call.receive.is_complete()) {
            self.open_received(now, out);
        }
    }

    /// Opens packets and hands them to the application; none are left in `packets`.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        packets: &mut Vec<(Seq, Packet)>,
        out: &mut ChannelOutput,
    ) {
        match self.security.clone() {
            Security::Ready(None) => {
                for (_, packet) in packets.drain(..) {
                    self.deliver_plain(packet.payload, out);
                }
            }
            Security::Ready(Some(session)) => self.deliver_sealed(now, &*session, packets, out),
            Security::Pending => packets.clear(),
        }
    }

    fn deliver_sealed(
        &mut self,
        now: Instant,
        session: &dyn Session,
        packets: &mut Vec<(Seq, Packet)>,
        out: &mut ChannelOutput,
    ) {
        let Some(call_number) = self.call.as_ref().map(|call| call.number) else {
            return packets.clear();
        };
        let (cid, from_client) = (self.cid, self.role == Role::Server);
        let OpenScratch { mut sealed, mut plain, mut memory } =
            std::mem::take(&mut out.scratch.open);
        sealed.extend(packets.drain(..).map(|(seq, packet)| SealedPacket {
            ids: PacketIds { cid, call_number, seq, from_client },
            cksum: packet.cksum,
            payload: packet.payload,
        }));
        let room = memory.room(sealed.iter().map(|packet| packet.payload.len()).sum());
        let outcome = session.open_run(&sealed, room, &mut plain);
        for (packet, plain) in sealed.drain(..).zip(plain.drain(..)) {
            let traffic = self.sealed.get_or_insert_default();
            traffic.opened_packets = traffic.opened_packets.wrapping_add(1);
            traffic.opened_bytes = traffic.opened_bytes.wrapping_add(packet.payload.len() as u32);
            if let Some(call) = &mut self.call {
                call.receive.note_opened(packet.payload.len(), plain.len());
            }
            self.deliver_plain(plain, out);
        }
        out.scratch.open = OpenScratch { sealed, plain, memory };
        if let Err(code) = outcome {
            let failure = CallFailure::Aborted { code, why: Why::Security };
            self.abort_call(now, code, failure, out);
        }
    }

    fn deliver_plain(&mut self, plain: Bytes, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        call.bytes_received += plain.len() as u64;
        if call.discards {
            call.receive.consume(1, plain.len());
        } else {
            out.deliver(call.tag, plain);
        }
    }

    /// A slow reader keeps what it has, and not much more of the buffers that it came in: where a step has
    /// delivered less than half of a buffer for each of its runs, what it delivers is copied.
    pub(super) fn compact(&self, runs: usize, out: &mut ChannelOutput) {
        let Some(call) = self.call.as_ref().filter(|call| call.receive.is_backlogged()) else {
            return;
        };
        let delivered = || {
            out.notices.iter().filter_map(|(tag, notice)| match notice {
                Notice::Data(pieces) if *tag == call.tag => Some(pieces),
                _ => None,
            })
        };
        let bytes: usize = delivered().flatten().map(Bytes::len).sum();
        if bytes >= runs * DENSE_BYTES_MIN {
            return;
        }
        for (tag, notice) in &mut out.notices {
            if let Notice::Data(pieces) = notice
                && *tag == call.tag
            {
                pieces.iter_mut().for_each(|piece| *piece = Bytes::copy_from_slice(piece));
            }
        }
    }

    /// The application has taken what it was given.
    pub(super) fn consume(&mut self, now: Instant, packets: u32, bytes: usize) {
        let Some(call) = &mut self.call else { return };
        let was_exhausted = call.receive.is_exhausted();
        call.receive.tune(now, call.rtt.least());
        call.receive.consume(packets, bytes);
        self.update_window(now, was_exhausted);
    }

    /// How much room all calls together have now.
    pub(super) fn set_room(&mut self, now: Instant, room: Room) {
        if self.hint.room != room {
            self.hint_mut().room = room;
        }
        let Some(call) = &mut self.call else { return };
        let was_exhausted = call.receive.is_exhausted();
        let was_held_back = call.receive.is_held_back();
        call.receive.set_room(room);
        if was_held_back && !call.receive.is_held_back() {
            self.update_window(now, was_exhausted);
        }
    }

    /// The edge may have moved: the peer hears of it, at once if it waits for it.
    fn update_window(&mut self, now: Instant, was_exhausted: bool) {
        let Some(call) = &mut self.call else { return };
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

    /// Tells the endpoint what the call holds, where that changed much.
    pub(super) fn report_holding(&mut self, out: &mut ChannelOutput) {
        let holding = self.holding();
        if out.holding.take().is_some() {
            // It has not left yet.
            self.told = self.told_before;
        }
        if holding == self.told {
            return;
        }
        // Less is told with what goes anyway, or where it matters: the call is over, or room is short.
        let is_free = self.call.is_none()
            || self.hint.room != Room::Free
            || !out.datagrams.is_empty()
            || !out.peer.is_empty();
        if holding.differs(self.told, is_free) {
            self.told_before = std::mem::replace(&mut self.told, holding);
            out.holding = Some(holding);
        }
    }

    pub(super) fn holding(&self) -> Holding {
        let Some(call) = &self.call else { return Holding::default() };
        let mut bytes = call.receive.buffered_bytes() + call.send.held_bytes();
        if matches!(self.security, Security::Ready(Some(_))) {
            // Sealed packets are copies.
            bytes += call.send.packed_unacked_bytes();
        }
        let waits = call.receive.is_held_back() || call.send.is_held_back();
        Holding { bytes, waits }
    }

    /// The application wants no more of the request; what comes is acknowledged and thrown away.
    pub(super) fn discard(&mut self, now: Instant) {
        let Some(call) = &mut self.call else { return };
        call.discards = true;
        let (packets, bytes) = (call.receive.unread_packets(), call.receive.buffered_bytes());
        self.consume(now, packets, bytes);
    }

    /// Bytes of the application for its direction of the call.
    pub(super) fn write(&mut self, bytes: Bytes, ends: bool, flushes: bool) {
        let Some(call) = &mut self.call else { return };
        if call.send.is_closed() {
            return;
        }
        if self.role == Role::Server && call.receive.is_complete() {
            // A service that has turned to its reply has the request, or wants no more of it.
            let (packets, bytes) = (call.receive.unread_packets(), call.receive.buffered_bytes());
            call.receive.consume(packets, bytes);
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
        call.timers.stop_recovery();
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
            (_, Some(code))
                if self.throttles.get_or_insert_default().aborts.allows(
                    code,
                    now,
                    &self.config,
                ) =>
            {
                self.send_abort(number, code, out);
            }
            (_, Some(_)) => out.drop(DropReason::Throttled),
            _ => out.drop(DropReason::CallOver),
        }
    }
}
