//! DATA out: what may go now, in one burst, each packet once through the windows (rx-flow.md 2).

use std::time::{Duration, Instant};

use super::choices::Unlikely;
use super::{Channel, ChannelOutput, Security};
use crate::proto::call::{Call, CallState, PACE_INTERVAL, weight_of};
use crate::proto::event::{self, ResendCause};
use crate::proto::{CallFailure, Event, Role, Why};
use crate::security::{PacketIds, PlainPacket};
use crate::wire::{AbortCode, Flags, HEADER_LEN, Header, PacketType, Seq, Serial};

/// RTT samples below which DATA asks for ACKs.
const RTT_SAMPLES_MIN: u32 = 3;
/// How long RTT may go unmeasured while there is something to measure.
const RTT_INTERVAL: Duration = Duration::from_secs(1);
/// Packets of one direction of a call: 2^31 (rx-wire.md 1.3).
pub(super) const SEQ_MAX: u32 = 0x7fff_ffff;
/// Packets of one burst, by weight, so that one step stays bounded whatever the windows are.
const BURST_PACKETS_MAX: u32 = 512;
/// Packets of the usual size that are sealed into one buffer, which lasts until the last of them is acknowledged.
const SEAL_PACKETS_MAX: usize = 32;

impl Channel {
    /// Sends what the windows allow; lost packets first. `cause` is what made packets leave again.
    pub(super) fn transmit(&mut self, now: Instant, cause: ResendCause, out: &mut ChannelOutput) {
        if !self.may_transmit() {
            return;
        }
        let mut payload_max = self.plain_max(now);
        let rto = {
            let extra = self.rto_extra();
            let Some(call) = &self.call else { return };
            call.rtt.rto(&self.config, extra)
        };
        let Some(call) = &mut self.call else { return };
        if call.send.in_flight() == 0
            && call.timers.last_data_sent.is_some_and(|last| now > last + rto)
            && cause == ResendCause::Nacked
        {
            call.congestion.on_idle();
        }
        if call.send.has_unsent(payload_max) && self.choices.take(Unlikely::SplitWrite) {
            payload_max = payload_max.div_ceil(2);
        }
        let mut limit = call.send.limit();
        if cause == ResendCause::WindowProbe {
            limit = limit.later(call.send.una().plus(1));
        }
        let window = call.congestion.window();
        let mut burst = std::mem::take(&mut out.scratch.burst);
        if cause == ResendCause::TailProbe {
            burst.extend(call.send.take_tail_probe());
        }
        call.timers.pace = None;
        let is_slow_start = call.congestion.is_slow_start();
        let paced = call.pacer.allowed(now, &call.rtt, window, is_slow_start);
        let most = paced.map_or(BURST_PACKETS_MAX, |paced| BURST_PACKETS_MAX.min(paced));
        let before = call.send.in_flight().saturating_sub(burst.len() as u32);
        while (call.send.in_flight() < window || call.must_resend)
            && (call.send.in_flight() - before < most || (call.must_resend && burst.is_empty()))
            && let Some(seq) = call.send.take_next(limit, payload_max, now)
        {
            burst.push(seq);
            call.must_resend = false;
        }
        let taken = call.send.in_flight() - before;
        call.pacer.take(taken);
        if taken >= most
            && paced.is_some()
            && call.send.in_flight() < window
            && call.send.has_next(limit, payload_max)
        {
            call.timers.pace = Some(now + PACE_INTERVAL);
        }
        let timer_fired = matches!(cause, ResendCause::Timeout | ResendCause::WindowProbe);
        if burst.is_empty() && timer_fired && call.send.first_lost().is_some() {
            // The window shrank below what is outstanding (rx-flow.md 2 and 6; S-95).
            burst.extend(call.send.take_probe());
        }
        self.send_what_may_go(now, cause, &burst, payload_max, out);
        burst.clear();
        out.scratch.burst = burst;
    }

    fn send_what_may_go(
        &mut self,
        now: Instant,
        cause: ResendCause,
        burst: &[Seq],
        payload_max: usize,
        out: &mut ChannelOutput,
    ) {
        let Some(last) = burst.last().copied() else {
            return self.arm_window_probe(now);
        };
        if last.0 >= SEQ_MAX {
            let code = AbortCode::PROTOCOL_ERROR;
            let failure = CallFailure::Aborted { code, why: Why::TooManyPackets };
            return self.abort_call(now, code, failure, out);
        }
        if self.state() == Some(CallState::ClientReserved) {
            self.client_take_number(now, out);
        }
        self.send_burst(now, burst, payload_max, out);
        self.note_resent(burst, cause, out);
        self.after_burst(now);
    }

    /// Plain bytes that fit a packet of the usual size: what credit is reckoned with.
    pub(super) fn usual_plain_max(&self) -> usize {
        self.plain_max_of(self.hint.usual_datagram_max())
    }

    /// Plain bytes that fit one DATA packet.
    pub(super) fn plain_max(&self, now: Instant) -> usize {
        self.plain_max_of(self.datagram_max(now))
    }

    fn plain_max_of(&self, datagram: u16) -> usize {
        let room = usize::from(datagram) - HEADER_LEN;
        match &self.security {
            Security::Ready(Some(session)) => session.plain_max(room),
            _ => room,
        }
    }

    /// A call has two halves: the request, then the reply (rx-calls.md 5).
    fn may_transmit(&self) -> bool {
        self.call.as_ref().is_some_and(|call| {
            matches!(
                call.state,
                CallState::ClientReserved
                    | CallState::ClientSend
                    | CallState::ClientAwaitReply
                    | CallState::ServerWork
                    | CallState::ServerReply
                    | CallState::ServerAwaitAck
            )
        }) && !matches!(self.security, Security::Pending)
    }

    fn send_burst(
        &mut self,
        now: Instant,
        burst: &[Seq],
        payload_max: usize,
        out: &mut ChannelOutput,
    ) {
        let asks = self.asks_for_ack(now, burst, payload_max);
        let plain: usize = self.call.as_ref().map_or(0, |call| call.send.plain_len(burst));
        out.datagrams.reserve(burst.len() * HEADER_LEN + plain);
        if matches!(self.security, Security::Ready(Some(_))) {
            let in_run = SEAL_PACKETS_MAX / weight_of(payload_max) as usize;
            for run in burst.chunks(in_run.max(1)) {
                self.seal_new(run, out);
            }
        }
        let packets_max = self.jumbo_packets();
        let mut rest = burst;
        while !rest.is_empty() {
            let count = match &self.call {
                Some(call) if packets_max > 1 => call.send.joinable(rest, packets_max),
                _ => 1,
            };
            let (packets, after) = rest.split_at(count);
            self.send_data(now, packets, &asks, after.is_empty(), out);
            rest = after;
        }
    }

    /// Seals the packets of a run that have not been sealed yet, all at once. A packet is sealed once: sent
    /// again it is what it was.
    fn seal_new(&mut self, run: &[Seq], out: &mut ChannelOutput) {
        let (role, cid) = (self.role, self.cid);
        let (Security::Ready(Some(session)), Some(call)) = (&self.security, &mut self.call) else {
            return;
        };
        let scratch = &mut out.scratch.seal;
        for &seq in run {
            let Some(sent) = call.send.packet_mut(seq).filter(|sent| sent.sealed.is_none()) else {
                continue;
            };
            let (offset, len) = (sent.offset, usize::from(sent.len));
            call.send.copy_plain(offset, len, &mut scratch.plain);
            let from_client = role == Role::Client;
            let ids = PacketIds { cid, call_number: call.number, seq, from_client };
            scratch.packets.push(PlainPacket { ids, len });
        }
        let traffic = self.sealed.get_or_insert_default();
        traffic.sealed_packets = traffic.sealed_packets.wrapping_add(scratch.packets.len() as u32);
        traffic.sealed_bytes = traffic.sealed_bytes.wrapping_add(scratch.plain.len() as u32);
        let sealed = scratch.memory.room(scratch.plain.len() + 16 * scratch.packets.len());
        session.seal_run(&scratch.packets, &scratch.plain, sealed, &mut scratch.ends);
        debug_assert_eq!(scratch.packets.len(), scratch.ends.len());
        let mut start = 0;
        for (packet, end) in scratch.packets.iter().zip(&scratch.ends) {
            let bytes = sealed.split_to(end.end - start).freeze();
            if let Some(sent) = call.send.packet_mut(packet.ids.seq) {
                sent.sealed = Some((bytes, end.cksum));
            }
            start = end.end;
        }
        scratch.clear();
    }

    /// One datagram of DATA: a single packet, or a jumbogram of new ones (rx-wire.md 4.2). `ends_burst` = it
    /// is the burst's last.
    fn send_data(
        &mut self,
        now: Instant,
        packets: &[Seq],
        asks: &Asks,
        ends_burst: bool,
        out: &mut ChannelOutput,
    ) {
        let Some((&first, &last)) = packets.first().zip(packets.last()) else { return };
        let number = self.call_number();
        let template = self.header_with(PacketType::Data, number, first, Flags::NONE, Serial::NONE);
        let first_serial = match packets.len() {
            1 => self.serials.next(),
            count => self.serials.take(count as u32),
        };
        let wants = packets.iter().any(|seq| asks.wants(*seq, ends_burst && *seq == last));
        let role = self.role;
        let Some(call) = &mut self.call else { return };
        let mut serial = first_serial;
        for &seq in packets {
            let ends_datagram = seq == last;
            let user_status =
                if call.asks_upgrade && seq != Seq::FIRST { 0 } else { call.local_status };
            let Some(sent) = call.send.packet_mut(seq) else { break };
            sent.serial = serial;
            sent.sent_at = now;
            sent.ends_datagram = ends_datagram;
            // OpenAFS clients answer a requested ACK of a reply's end softly and may send no hard one.
            let reply_end = sent.is_last && role == Role::Server;
            let asks_here = ends_datagram && (wants || sent.is_resent) && !reply_end;
            let flags = template
                .flags
                .with_if(sent.is_last, Flags::LAST_PACKET)
                .with_if(asks_here, Flags::REQUEST_ACK)
                .with_if(!(ends_burst && ends_datagram), Flags::MORE_PACKETS)
                .with_if(!ends_datagram, Flags::JUMBO_PACKET);
            let cksum = sent.sealed.as_ref().map_or(0, |(_, cksum)| *cksum);
            let buffer = if seq == first {
                out.datagrams.begin(&Header { serial, flags, user_status, cksum, ..template })
            } else {
                let [high, low] = cksum.to_be_bytes();
                out.datagrams.go_on(&[flags.0, 0, high, low])
            };
            let (offset, len) = (sent.offset, usize::from(sent.len));
            match &sent.sealed {
                Some((sealed, _)) => buffer.extend_from_slice(sealed),
                None => call.send.copy_plain(offset, len, buffer),
            }
            call.last_asked = asks_here;
            if asks_here {
                call.ack_requested_at = Some(now);
            }
            serial = serial.plus(1);
        }
        let datagram_len = out.datagrams.open_len();
        let may_fragment = self.may_fragment(datagram_len);
        if self.choices.take(Unlikely::LoseSend) {
            out.datagrams.abandon();
        } else {
            out.datagrams.finish_as(may_fragment);
        }
        let Some(call) = &mut self.call else { return };
        for &seq in packets {
            if let Some(sent) = call.send.packet_mut(seq) {
                sent.datagram_len = datagram_len as u16;
                sent.may_fragment = may_fragment;
            }
        }
    }

    /// When a burst asks for an ACK (rx-flow.md 2). Never for a first transmission whose burst contains
    /// the last packet: the answer acknowledges it.
    fn asks_for_ack(&self, now: Instant, burst: &[Seq], payload_max: usize) -> Asks {
        let Some(call) = &self.call else { return Asks::default() };
        let contains_last = call.send.has_sent_last()
            && burst.last().copied() == Some(call.send.next_seq().minus(1));
        if contains_last {
            return Asks::default();
        }
        let window = call.send.peer_window();
        let weight = weight_of(payload_max);
        let at_end = (call.congestion.is_slow_start() && call.congestion.window() <= 4)
            || window <= 2
            || call.rtt.samples() < RTT_SAMPLES_MIN
            || call.ack_requested_at.is_none_or(|at| now > at + RTT_INTERVAL)
            || !call.send.has_unsent(payload_max)
            // The burst fills the window: nothing more leaves until an ACK comes.
            || call.send.in_flight() + weight > call.congestion.window().min(window);
        Asks { at_end, every: (window / 2 / weight).max(1) }
    }

    fn note_resent(&self, burst: &[Seq], cause: ResendCause, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        let mut packets = 0;
        let mut first = None;
        for &seq in burst {
            let index = call.send.una().distance_to(seq);
            if call.send.is_resent(index) {
                packets += 1;
                first.get_or_insert(seq);
            }
        }
        if let Some(seq) = first {
            let number = call.number;
            out.events.push(Event::Resent(event::Resent { number, seq, packets, cause }));
        }
    }

    fn after_burst(&mut self, now: Instant) {
        let extra = self.rto_extra();
        let role = self.role;
        let Some(call) = &mut self.call else { return };
        call.timers.last_sent = now;
        call.timers.last_data_sent = Some(now);
        if call.timers.retransmit.is_none() {
            call.timers.retransmit = Some(now + call.rtt.rto(&self.config, extra));
        }
        call.arm_probe(now, extra);
        if self.choices.take(Unlikely::LateTimerFirst) {
            call.timers.probe = None;
        }
        // The reply's DATA acknowledges the request.
        if role == Role::Server {
            call.ack.clear();
        }
        call.state = next_state(call);
    }

    /// The peer's window lets nothing out and something waits: a probe goes out when the timer fires.
    fn arm_window_probe(&mut self, now: Instant) {
        let payload_max = self.plain_max(now);
        let Some(call) = &mut self.call else { return };
        let is_closed = call.send.peer_window() == 0 && call.send.has_unsent(payload_max);
        let waits = is_closed || call.send.has_unacked();
        if waits && call.timers.retransmit.is_none() {
            call.timers.retransmit = Some(now + call.rtt.rto(&self.config, Duration::ZERO));
        }
    }
}

/// Sending the last packet and changing the state are one step: that is what rx-race.md R2 asks for.
fn next_state(call: &Call) -> CallState {
    match call.state {
        CallState::ClientSend if call.send.has_sent_last() => CallState::ClientAwaitReply,
        CallState::ServerWork | CallState::ServerReply if call.send.has_sent_last() => {
            CallState::ServerAwaitAck
        }
        CallState::ServerWork => CallState::ServerReply,
        state => state,
    }
}

/// Which packets of a burst ask for an ACK.
#[derive(Clone, Copy, Debug, Default)]
struct Asks {
    /// The burst's final packet.
    at_end: bool,
    /// Every so many sequence numbers, so that a window never closes unasked; 0 = none.
    every: u32,
}

impl Asks {
    fn wants(self, seq: Seq, is_final: bool) -> bool {
        (is_final && self.at_end) || (self.every > 0 && seq.0.is_multiple_of(self.every))
    }
}
