//! The send window: what the application has queued, what is in flight, what was acknowledged
//! (rx-flow.md 2, 3 and 7).

#[cfg(feature = "testkit")]
mod exploring;
mod loss;
mod sizes;
mod spare;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::proto::Room;
use crate::proto::path::DATAGRAM_DEFAULT;
use crate::proto::room::CALL_BYTES_MIN;
use crate::wire::{Ack, AckReason, DATA_PAYLOAD_MAX, SACK_ENTRIES_MAX, Seq, Serial};

use loss::Rack;

/// Packets that an application may always queue ahead, however small the window.
const QUEUE_PACKETS_MIN: u32 = 64;

/// Bytes by which a packet may pass the usual size without counting for one more.
const WEIGHT_ALLOWANCE: usize = 64;

/// How many packets of the usual size a packet with so many bytes counts for: what it may be more than 1412 bytes
/// long must not make windows larger (rx-flow.md 9.3).
#[inline]
pub fn weight_of(payload_len: usize) -> u32 {
    if payload_len <= DATA_PAYLOAD_MAX + WEIGHT_ALLOWANCE {
        return 1;
    }
    let whole = payload_len.saturating_sub(WEIGHT_ALLOWANCE).div_ceil(DATA_PAYLOAD_MAX);
    whole as u32
}

/// A packet that has its sequence number.
#[derive(Clone, Debug, Hash)]
pub struct Sent {
    /// Where its plain payload begins in the stream.
    pub offset: u64,
    /// Plain bytes.
    pub len: u16,
    /// How many packets it counts for in every window: [`weight_of`] its plain bytes.
    pub weight: u16,
    /// The direction's last packet.
    pub is_last: bool,
    /// Its sealed form and header checksum, where the connection has a session.
    pub sealed: Option<(Bytes, u16)>,
    /// Serial of its last transmission; 0 before the first.
    pub serial: Serial,
    /// When it was last transmitted.
    pub sent_at: Instant,
    /// Acknowledged softly: held by the peer, who may still change its mind.
    pub is_acked: bool,
    /// To be transmitted again.
    pub is_lost: bool,
    /// Whether it was transmitted more than once.
    pub is_resent: bool,
    /// A later transmission has arrived and this one has not.
    pub is_missing: bool,
    /// A later transmission has arrived, and the peer's table is too short to tell of this one: it is not under
    /// way any more, either way (docs/recovery.md 4).
    pub is_untold: bool,
    /// It counted as lost at least once, and nothing has shown yet that it was not.
    pub was_lost: bool,
    /// Whether it was the last of its datagram: only then its serial gives an RTT sample.
    pub ends_datagram: bool,
    /// Size of the datagram that it was last transmitted in; 0 before the first time.
    pub datagram_len: u16,
    /// Whether that datagram could be fragmented.
    pub may_fragment: bool,
}

impl Sent {
    /// Bytes of its payload as it is sent.
    pub fn payload_len(&self) -> usize {
        self.sealed.as_ref().map_or(usize::from(self.len), |(sealed, _)| sealed.len())
    }
}

/// What an ACK changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets acknowledged for the first time, hard or soft, by weight.
    pub newly_acked: u32,
    /// The highest serial of a datagram above the usual size that is now known to have arrived.
    pub large: Option<Serial>,
    /// Send time of the packet whose last serial the ACK names, if that packet was acknowledged by it.
    pub sample_from: Option<Instant>,
    /// Whether firstPacket moved.
    pub moved: bool,
    /// The transmission sent last of those that are now known to have arrived, and when it was sent.
    pub delivered: Option<(Serial, Instant)>,
    /// Packets that counted as lost and had arrived, by weight.
    pub spurious: u32,
}

/// Why an ACK was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckRefused {
    /// firstPacket went back: stale.
    Stale,
    /// firstPacket 0, or a packet listed as received that was never sent: drop and count.
    Bad,
    /// firstPacket lies beyond what was sent: a protocol error.
    BeyondSent,
}

/// See the module.
#[derive(Clone, Debug, Hash)]
pub struct SendWindow {
    chunks: VecDeque<Bytes>,
    /// Stream offset of the first chunk's first byte.
    chunks_start: u64,
    /// Stream offset after the last queued byte.
    queued: u64,
    /// Stream offset of the first byte that has no packet yet.
    packed: u64,
    /// Bytes up to here shall leave even in a short packet.
    flushed: u64,
    is_closed: bool,
    una: Seq,
    packets: VecDeque<Sent>,
    peer_window: u32,
    window_max: u32,
    /// Packets acknowledged softly without a gap from `una`.
    soft_contiguous: u32,
    /// Weight of `packets`.
    held: u32,
    /// Weight of those in `packets` that are not acknowledged, not marked lost, and not untold.
    flying: u32,
    lost: u32,
    untold: u32,
    /// No packet from here on is untold.
    untold_to: Seq,
    /// No packet below is marked lost: the search for the first goes on from here.
    lost_from: Seq,
    rack: Rack,
    /// Highest header serial of an ACK applied.
    ack_serial_max: Option<Serial>,
    credit_given: u64,
    /// Only the room for all calls together keeps back credit.
    is_held_back: bool,
    last: Option<Seq>,
}

impl SendWindow {
    /// An empty window; the peer is taken to allow `peer_window` packets until it says otherwise, and
    /// never more than `window_max`.
    pub fn new(peer_window: u32, window_max: u32) -> SendWindow {
        SendWindow {
            chunks: VecDeque::new(),
            chunks_start: 0,
            queued: 0,
            packed: 0,
            flushed: 0,
            is_closed: false,
            una: Seq::FIRST,
            packets: VecDeque::new(),
            peer_window: peer_window.min(window_max),
            window_max,
            soft_contiguous: 0,
            held: 0,
            flying: 0,
            lost: 0,
            untold: 0,
            untold_to: Seq::FIRST,
            lost_from: Seq::FIRST,
            rack: Rack::default(),
            ack_serial_max: None,
            credit_given: 0,
            is_held_back: false,
            last: None,
        }
    }

    /// Queues bytes of the application.
    pub fn write(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len() as u64;
            self.chunks.push_back(bytes);
        }
    }

    /// What is queued so far shall leave, even in a short packet.
    pub fn flush(&mut self) {
        self.flushed = self.queued;
    }

    /// Nothing more will be written.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether the application has ended this direction.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether the last packet has its sequence number.
    pub fn has_sent_last(&self) -> bool {
        self.last.is_some()
    }

    /// Whether any packet was sent.
    pub fn has_sent(&self) -> bool {
        self.next_seq() != Seq::FIRST
    }

    /// Whether every packet, the last included, is acknowledged; `soft` = soft acknowledgements suffice.
    pub fn is_finished(&self, soft: bool) -> bool {
        self.last.is_some()
            && (self.packets.is_empty()
                || (soft && self.soft_contiguous as usize == self.packets.len()))
    }

    /// Whether anything sent waits for an acknowledgement.
    pub fn has_unacked(&self) -> bool {
        self.unacked() > 0
    }

    /// Whether the only unacknowledged packet is the last one.
    pub fn only_last_unacked(&self) -> bool {
        self.last.is_some()
            && self
                .packets
                .back()
                .is_some_and(|sent| !sent.is_acked && self.unacked() == u32::from(sent.weight))
    }

    /// Packets sent and not acknowledged, lost or not, by weight.
    pub fn unacked(&self) -> u32 {
        self.flying + self.lost + self.untold
    }

    /// Packets in flight, by weight: sent, not acknowledged, not lost, and not known to be under way no more.
    pub fn in_flight(&self) -> u32 {
        self.flying
    }

    /// Lowest seq not hard-acknowledged.
    pub fn una(&self) -> Seq {
        self.una
    }

    /// The seq that the next new packet will have.
    pub fn next_seq(&self) -> Seq {
        self.una.plus(self.packets.len() as u32)
    }

    /// The peer's window, clamped to ours.
    pub fn peer_window(&self) -> u32 {
        self.peer_window
    }

    /// Bytes of the application that have been packetised.
    pub fn packed_bytes(&self) -> u64 {
        self.packed
    }

    /// Whether bytes, or the end, wait for a packet.
    pub fn has_unsent(&self, payload_max: usize) -> bool {
        self.next_len(payload_max).is_some()
    }

    /// First seq that the peer's window does not allow (rx-flow.md 2).
    pub fn limit(&self) -> Seq {
        self.una.plus(self.peer_window)
    }

    /// Whether [`SendWindow::take_next`] would give a packet.
    pub fn has_next(&mut self, limit: Seq, payload_max: usize) -> bool {
        match self.first_lost() {
            Some(seq) => seq.before(limit),
            None => {
                self.next_len(payload_max).is_some_and(|(len, _)| self.fits(limit, weight_of(len)))
            }
        }
    }

    /// Whether a new packet lies below `limit`, which is not before `una`, if each before it is counted by its
    /// weight: a peer's window is meant for packets of the usual size. A packet that nothing is before may leave in
    /// any case.
    #[inline]
    fn fits(&self, limit: Seq, weight: u32) -> bool {
        let room = self.una.distance_to(limit);
        self.held + weight <= room || (self.packets.is_empty() && room > 0)
    }

    /// The next packet to transmit below `limit`: lost ones first, then a new one, which takes at most
    /// `payload_max` plain bytes. Returns its seq.
    pub fn take_next(&mut self, limit: Seq, payload_max: usize, now: Instant) -> Option<Seq> {
        if let Some(seq) = self.first_lost() {
            return seq.before(limit).then(|| self.take_lost(seq));
        }
        let (len, is_last) = self.next_len(payload_max)?;
        let weight = weight_of(len);
        if !self.fits(limit, weight) {
            return None;
        }
        let seq = self.next_seq();
        self.packets.push_back(Sent {
            offset: self.packed,
            len: len as u16,
            weight: weight as u16,
            is_last,
            sealed: None,
            serial: Serial::NONE,
            sent_at: now,
            is_acked: false,
            is_lost: false,
            is_resent: false,
            is_missing: false,
            is_untold: false,
            was_lost: false,
            ends_datagram: true,
            datagram_len: 0,
            may_fragment: false,
        });
        self.packed += len as u64;
        self.held += weight;
        self.flying += weight;
        if is_last {
            self.last = Some(seq);
        }
        Some(seq)
    }

    /// The oldest packet once more, acknowledged softly or not: the peer's window lets nothing else out, and
    /// the answer says whether it has opened.
    pub fn take_probe(&mut self) -> Option<Seq> {
        let sent = self.packets.front_mut()?;
        let weight = u32::from(sent.weight);
        sent.is_resent = true;
        if std::mem::take(&mut sent.is_lost) {
            self.lost -= weight;
            self.flying += weight;
        } else if std::mem::take(&mut sent.is_untold) {
            self.untold -= weight;
            self.flying += weight;
        }
        Some(self.una)
    }

    /// The packet with this seq; `None` if it is acknowledged for good or not yet made.
    pub fn packet_mut(&mut self, seq: Seq) -> Option<&mut Sent> {
        let index = self.una.distance_to(seq) as usize;
        self.packets.get_mut(index)
    }

    /// Plain bytes of these packets together.
    pub fn plain_len(&self, burst: &[Seq]) -> usize {
        let packet = |seq: &Seq| self.packets.get(self.una.distance_to(*seq) as usize);
        burst.iter().filter_map(packet).map(|sent| usize::from(sent.len)).sum()
    }

    /// Whether the packet `index` places after `una` was transmitted more than once.
    pub fn is_resent(&self, index: u32) -> bool {
        self.packets.get(index as usize).is_some_and(|sent| sent.is_resent)
    }

    /// Appends the plain bytes `offset..offset + len` of the stream to `out`: the one copy of a send.
    pub fn copy_plain(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        let mut skip = (offset - self.chunks_start) as usize;
        let mut left = len;
        for chunk in &self.chunks {
            if skip >= chunk.len() {
                skip -= chunk.len();
                continue;
            }
            let take = left.min(chunk.len() - skip);
            out.extend_from_slice(&chunk[skip..skip + take]);
            left -= take;
            skip = 0;
            if left == 0 {
                break;
            }
        }
    }

    /// Applies the state part of an ACK (rx-flow.md 3, steps 1 to 9). `header_serial` orders ACKs.
    /// Returns whether it was newer than all before it, and what it changed.
    pub fn acknowledge(
        &mut self,
        ack: &Ack<'_>,
        header_serial: Serial,
    ) -> Result<(bool, Progress), AckRefused> {
        let first = ack.first_packet;
        if first == Seq(0) {
            return Err(AckRefused::Bad);
        }
        if first.before(self.una) {
            return Err(AckRefused::Stale);
        }
        if first.after(self.next_seq()) {
            return Err(AckRefused::BeyondSent);
        }
        let describable = first.distance_to(self.next_seq()) as usize;
        if ack.sacks.iter().skip(describable).any(|entry| entry & 1 == 1) {
            return Err(AckRefused::Bad);
        }
        let newest = match self.ack_serial_max {
            None => true,
            // Far behind means that the peer's numbering started anew (rx-flow.md 3, step 3).
            Some(max) => header_serial.after(max) || header_serial.distance_to(max) > 65_536,
        };
        if newest {
            self.ack_serial_max = Some(header_serial);
        }
        let mut progress = Progress::default();
        self.acknowledge_hard(first, ack.serial, &mut progress);
        self.acknowledge_soft(ack, newest, &mut progress);
        self.note_delivered(&progress);
        Ok((newest, progress))
    }

    /// Everything sent so far is acknowledged: the answer's first DATA, or ACKALL.
    pub fn acknowledge_all(&mut self) -> Progress {
        let mut progress = Progress::default();
        self.acknowledge_hard(self.next_seq(), Serial::NONE, &mut progress);
        progress
    }

    /// The peer's window as its trailer says it; `may_rise` is false for the three-word trailer of old.
    pub fn set_peer_window(&mut self, window: u32, may_rise: bool) {
        let window = window.min(self.window_max);
        if may_rise || window < self.peer_window {
            self.peer_window = window;
        }
    }

    /// Bytes that the application may write beyond what it was told before; `None` where it is too little
    /// to be worth telling, or where all calls together have no room for more. Twice what may be in flight: no
    /// more is sent before the next word of it.
    pub fn take_credit(
        &mut self,
        payload_max: usize,
        congestion_window: u32,
        room: Room,
    ) -> Option<u64> {
        let packets = (2 * self.peer_window.min(congestion_window)).max(QUEUE_PACKETS_MIN);
        let base = self.unacknowledged_from();
        let limit = base + u64::from(packets) * payload_max as u64;
        let mut more = limit.saturating_sub(self.credit_given);
        let worth = u64::from(packets / 4) * payload_max as u64;
        self.is_held_back = false;
        if more == 0 || (more < worth && self.credit_given > self.queued) {
            return None;
        }
        if room != Room::Free {
            self.is_held_back = true;
            more = (base + CALL_BYTES_MIN as u64).saturating_sub(self.credit_given);
            if more == 0 || self.credit_given > self.queued {
                return None;
            }
        }
        self.credit_given += more;
        Some(more)
    }

    /// Whether the writer would get credit if there were more room.
    pub fn is_held_back(&self) -> bool {
        self.is_held_back && !self.is_closed
    }

    /// Bytes that the application wrote, within the credit it was given, and that are not acknowledged for
    /// good. What it hands over beyond that, at once and whole, was its own before and stays in one piece.
    pub fn held_bytes(&self) -> usize {
        self.queued.min(self.credit_given).saturating_sub(self.unacknowledged_from()) as usize
    }

    /// Bytes that have packets, not acknowledged for good.
    pub fn packed_unacked_bytes(&self) -> usize {
        (self.packed - self.unacknowledged_from()) as usize
    }

    fn unacknowledged_from(&self) -> u64 {
        self.packets.front().map_or(self.packed, |sent| sent.offset)
    }

    /// Whether the application has used all the credit it was given.
    pub fn is_application_stuck(&self) -> bool {
        !self.is_closed && self.queued >= self.credit_given
    }

    /// Length of the next new packet and whether it is the last; `None` if nothing is to be sent.
    fn next_len(&self, payload_max: usize) -> Option<(usize, bool)> {
        if self.last.is_some() {
            return None;
        }
        let unsent = self.queued - self.packed;
        let is_last = self.is_closed && unsent <= payload_max as u64;
        // A large packet is not waited for where a full one of the usual size could leave and nothing is under way.
        let enough = match self.packets.is_empty() {
            true => payload_max.min(DATA_PAYLOAD_MAX),
            false => payload_max,
        };
        if is_last || unsent >= enough as u64 || self.flushed > self.packed {
            return Some((unsent.min(payload_max as u64) as usize, is_last));
        }
        None
    }

    fn acknowledge_hard(&mut self, first: Seq, serial: Serial, progress: &mut Progress) {
        let count = self.una.distance_to(first);
        let (mut gone, mut newly_acked, mut flown) = (0, 0, 0);
        for _ in 0..count {
            let Some(sent) = self.packets.pop_front() else { break };
            let weight = u32::from(sent.weight);
            gone += weight;
            if !sent.is_acked {
                newly_acked += weight;
                if sent.is_lost {
                    self.lost -= weight;
                } else if sent.is_untold {
                    self.untold -= weight;
                } else {
                    flown += weight;
                }
                note_arrived(&sent, serial, progress);
                self.rack.note_order(&sent);
            }
        }
        if count > 0 {
            self.held -= gone;
            self.flying -= flown;
            progress.newly_acked += newly_acked;
            progress.moved = true;
            self.una = first;
            self.lost_from = self.lost_from.later(first);
            self.soft_contiguous = self.soft_contiguous.saturating_sub(count);
            self.free_chunks();
        }
    }

    fn acknowledge_soft(&mut self, ack: &Ack<'_>, newest: bool, progress: &mut Progress) {
        let described = ack.sacks.len().min(self.packets.len());
        let mut first_hole = None;
        let mut acked_behind_hole = 0;
        let mut acked_weight = 0;
        for index in 0..described {
            let sent = &mut self.packets[index];
            let weight = u32::from(sent.weight);
            if ack.is_acked(index) {
                // What only an older ACK has, a newer one has taken back: that the peer has dropped it since.
                if newest && !sent.is_acked {
                    sent.is_acked = true;
                    progress.newly_acked += weight;
                    note_arrived(sent, ack.serial, progress);
                    if std::mem::take(&mut sent.is_lost) {
                        self.lost -= weight;
                    } else if std::mem::take(&mut sent.is_untold) {
                        self.untold -= weight;
                    } else {
                        self.flying -= weight;
                    }
                    self.rack.note_order(sent);
                    sent.is_missing = false;
                } else if sent.is_acked
                    && ack.reason == AckReason::Duplicate
                    && sent.serial == ack.serial
                {
                    // The peer had it already when it came again.
                    progress.spurious += weight * u32::from(std::mem::take(&mut sent.was_lost));
                }
                acked_behind_hole += u32::from(first_hole.is_some());
            } else if newest {
                // Only the newest ACK can say that something is missing: an older one did not know yet.
                if sent.is_acked {
                    sent.is_acked = false;
                    self.flying += weight;
                }
                first_hole.get_or_insert(index);
            }
            acked_weight += weight * u32::from(sent.is_acked);
        }
        let is_full = ack.sacks.len() == SACK_ENTRIES_MAX;
        if newest && !is_full && self.held - self.unacked() > acked_weight {
            // A table that ends before what was acknowledged takes it back too: its receiver has lost it, as one that
            // has crashed and was sent the first packets again.
            for sent in self.packets.iter_mut().skip(described) {
                if std::mem::take(&mut sent.is_acked) {
                    self.flying += u32::from(sent.weight);
                }
            }
        }
        self.soft_contiguous = self.packets.iter().take_while(|sent| sent.is_acked).count() as u32;
        if newest {
            self.rack.count_nack(acked_behind_hole);
            // A full table says nothing of what lies behind it (rx-flow.md 6.2).
            let judged = if is_full { described } else { self.packets.len() };
            self.note_missing(ack.serial, judged, progress);
            if is_full {
                self.note_untold(described);
            }
        }
    }

    fn free_chunks(&mut self) {
        let keep_from = self.unacknowledged_from();
        while let Some(chunk) = self.chunks.front() {
            let end = self.chunks_start + chunk.len() as u64;
            if end > keep_from {
                break;
            }
            self.chunks_start = end;
            self.chunks.pop_front();
        }
    }
}

/// A packet is acknowledged for the first time. Exact serials leave no ambiguity, so retransmitted packets give
/// samples too (rx-flow.md 5.3), and show whether sending them again was for nothing (docs/recovery.md 1).
fn note_arrived(sent: &Sent, serial: Serial, progress: &mut Progress) {
    let is_named = !serial.is_none() && sent.serial == serial;
    if is_named && sent.ends_datagram {
        progress.sample_from = Some(sent.sent_at);
    }
    if (is_named || !sent.is_resent)
        && progress.delivered.is_none_or(|(latest, _)| sent.serial.after(latest))
    {
        progress.delivered = Some((sent.serial, sent.sent_at));
    }
    if sent.was_lost && (sent.is_lost || (!serial.is_none() && serial.before(sent.serial))) {
        progress.spurious += u32::from(sent.weight);
    }
    if sent.datagram_len > DATAGRAM_DEFAULT {
        note_large(sent, is_named, progress);
    }
}

#[inline(never)]
fn note_large(sent: &Sent, is_named: bool, progress: &mut Progress) {
    if is_named || !sent.is_resent {
        let newest = progress.large.map_or(sent.serial, |known| known.later(sent.serial));
        progress.large = Some(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::Rtt;
    use crate::wire::Trailer;

    pub(super) fn window(packets: u32) -> SendWindow {
        let mut window = SendWindow::new(255, 255);
        window.write(Bytes::from(vec![7; packets as usize * 1412]));
        window.close();
        let now = Instant::now();
        while let Some(seq) = window.take_next(Seq(1000), 1412, now) {
            if let Some(sent) = window.packet_mut(seq) {
                sent.serial = Serial(seq.0);
            }
        }
        window
    }

    pub(super) fn ack(first: u32, serial: u32, sacks: &[u8]) -> Ack<'_> {
        Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: Seq(first),
            previous_packet: Seq(0),
            serial: Serial(serial),
            reason: AckReason::Idle,
            sacks,
            padding: [0; 3],
            trailer: Trailer::None,
            excess: &[],
        }
    }

    #[test]
    fn a_packet_counts_for_as_many_as_it_is_long() {
        for (len, weight) in [(0, 1), (1412, 1), (1476, 1), (1477, 2), (2828, 2), (5664, 4)] {
            assert_eq!(weight_of(len), weight, "{len}");
        }
        assert_eq!((weight_of(8096), weight_of(64_972)), (6, 46));
    }

    #[test]
    fn large_packets_use_up_the_windows_by_their_length() {
        let mut window = SendWindow::new(32, 255);
        window.write(Bytes::from(vec![7; 300_000]));
        let now = Instant::now();
        let mut taken = Vec::new();
        while let Some(seq) = window.take_next(window.limit(), 8096, now) {
            window.packet_mut(seq).unwrap().serial = Serial(seq.0);
            taken.push(seq.0);
        }
        assert_eq!(taken, [1, 2, 3, 4, 5], "five times six of 32");
        assert_eq!((window.in_flight(), window.unacked()), (30, 30));
        let progress = window.acknowledge(&ack(2, 2, &[1, 0, 1]), Serial(1)).unwrap().1;
        assert_eq!((progress.newly_acked, window.in_flight()), (18, 12));
        assert_eq!(window.take_next(window.limit(), 8096, now), Some(Seq(6)));
        assert_eq!(window.take_next(window.limit(), 8096, now), None);
        assert_eq!(window.take_next(window.limit(), 1412, now), Some(Seq(7)), "a small one fits");
        assert_eq!((window.lose_all(), window.in_flight()), (6 + 6 + 6 + 1, 0));
        assert_eq!(window.take_next(window.limit(), 8096, now), Some(Seq(3)));
        assert_eq!(window.in_flight(), 6);
        assert_eq!(window.acknowledge_all().newly_acked, 19);
        assert_eq!((window.in_flight(), window.unacked()), (0, 0));
        // However small the window, one may leave.
        window.set_peer_window(1, true);
        assert_eq!(window.take_next(window.limit(), 8096, now), Some(Seq(8)));
        assert_eq!(window.take_next(window.limit(), 8096, now), None);
    }

    #[test]
    fn a_large_packet_is_not_waited_for_while_nothing_is_under_way() {
        let mut window = SendWindow::new(32, 255);
        let now = Instant::now();
        window.write(Bytes::from(vec![7; 1411]));
        assert_eq!(window.take_next(Seq(100), 8096, now), None);
        window.write(Bytes::from(vec![7; 600]));
        assert_eq!(window.take_next(Seq(100), 8096, now), Some(Seq(1)));
        assert_eq!(window.packet_mut(Seq(1)).map(|sent| sent.len), Some(2011));
        window.write(Bytes::from(vec![7; 8095]));
        assert_eq!(window.take_next(Seq(100), 8096, now), None);
        window.write(Bytes::from(vec![7; 1]));
        assert_eq!(window.take_next(Seq(100), 8096, now), Some(Seq(2)));
    }

    #[test]
    fn a_stream_becomes_full_packets_and_a_last_one() {
        for (bytes, expected) in [
            (0, vec![(0, true)]),
            (1, vec![(1, true)]),
            (1411, vec![(1411, true)]),
            (1412, vec![(1412, true)]),
            (1413, vec![(1412, false), (1, true)]),
        ] {
            let mut window = SendWindow::new(16, 255);
            window.write(Bytes::from(vec![0; bytes]));
            window.close();
            let mut made = Vec::new();
            while let Some(seq) = window.take_next(Seq(100), 1412, Instant::now()) {
                let sent = window.packet_mut(seq).map(|sent| (sent.len, sent.is_last));
                made.extend(sent);
            }
            assert_eq!(made, expected, "{bytes} bytes");
        }
    }

    #[test]
    fn a_short_packet_leaves_only_when_flushed() {
        let mut window = SendWindow::new(16, 255);
        window.write(Bytes::from_static(b"abc"));
        assert_eq!(window.take_next(Seq(100), 1412, Instant::now()), None);
        window.flush();
        assert_eq!(window.take_next(Seq(100), 1412, Instant::now()), Some(Seq(1)));
        assert_eq!(window.take_next(Seq(100), 1412, Instant::now()), None);
    }

    #[test]
    fn bytes_are_copied_across_chunks_and_freed_behind_the_window() {
        let mut window = SendWindow::new(16, 255);
        for chunk in [&b"ab"[..], b"cdefg", b"h"] {
            window.write(Bytes::copy_from_slice(chunk));
        }
        window.close();
        let now = Instant::now();
        let mut text = Vec::new();
        while let Some(seq) = window.take_next(Seq(100), 3, now) {
            let (offset, len) =
                window.packet_mut(seq).map(|sent| (sent.offset, sent.len)).unwrap_or_default();
            window.copy_plain(offset, len as usize, &mut text);
        }
        assert_eq!(text, b"abcdefgh");
        assert_eq!(
            window.acknowledge(&ack(2, 0, &[]), Serial(1)).map(|(_, p)| p.newly_acked),
            Ok(1)
        );
        assert_eq!(window.chunks_start, 2);
        window.copy_plain(3, 3, &mut text);
        assert_eq!(&text[8..], b"def");
    }

    #[test]
    fn soft_acks_stop_a_packet_and_hard_acks_free_it() {
        // S-82, S-84.
        let mut window = window(6);
        let (_, progress) = window.acknowledge(&ack(4, 6, &[1, 1, 1]), Serial(1)).unwrap();
        assert_eq!(progress.newly_acked, 6);
        assert!(!window.has_unacked() && window.is_finished(true) && !window.is_finished(false));
        assert_eq!(window.acknowledge(&ack(2, 6, &[]), Serial(2)), Err(AckRefused::Stale));
        assert!(window.acknowledge(&ack(7, 0, &[]), Serial(3)).is_ok());
        assert!(window.is_finished(false));
    }

    #[test]
    fn a_soft_ack_can_be_withdrawn_by_a_newer_ack_only() {
        // S-83, S-85.
        let mut window = window(6);
        window.acknowledge(&ack(4, 6, &[1, 1, 1]), Serial(10)).unwrap();
        let (newest, progress) = window.acknowledge(&ack(4, 0, &[0, 0, 0]), Serial(9)).unwrap();
        assert!(!newest && progress == Progress::default() && !window.has_unacked());
        window.acknowledge(&ack(4, 0, &[1, 0, 1]), Serial(11)).unwrap();
        assert_eq!(window.in_flight(), 1);
    }

    #[test]
    fn a_newer_table_that_ends_before_what_was_acknowledged_takes_it_back() {
        // S-83: the peer crashed, and was sent 4 again; of 5 and 6, which it had before, it says nothing.
        let mut window = window(6);
        window.acknowledge(&ack(4, 6, &[0, 1, 1]), Serial(10)).unwrap();
        assert_eq!(window.unacked(), 1);
        window.acknowledge(&ack(5, 4, &[]), Serial(9)).unwrap();
        assert!(!window.has_unacked(), "an older one takes nothing back");
        window.acknowledge(&ack(5, 4, &[]), Serial(11)).unwrap();
        assert_eq!((window.unacked(), window.in_flight()), (2, 2));
        window.acknowledge(&ack(5, 6, &[0, 1]), Serial(12)).unwrap();
        window.acknowledge(&ack(5, 6, &[1]), Serial(13)).unwrap();
        assert_eq!(window.unacked(), 1, "6 again, behind one that came");
    }

    #[test]
    fn what_a_newer_ack_took_back_no_older_one_acknowledges() {
        // rx-flow.md 3 step 4: the peer dropped 5 and 6 again; its older ACKs come late, or twice.
        let mut window = window(6);
        window.acknowledge(&ack(4, 6, &[0, 1, 1]), Serial(10)).unwrap();
        window.acknowledge(&ack(4, 6, &[1, 0, 0]), Serial(12)).unwrap();
        for serial in [10, 11] {
            let late = window.acknowledge(&ack(4, 6, &[0, 1, 1]), Serial(serial)).unwrap();
            assert_eq!(late, (false, Progress::default()));
            assert!(window.in_flight() == 2 && !window.is_finished(true));
        }
        window.acknowledge(&ack(4, 6, &[1, 1, 1]), Serial(13)).unwrap();
        assert!(window.is_finished(true));
    }

    #[test]
    fn entries_beyond_what_was_sent_may_say_no_but_not_yes() {
        // S-13, S-14, S-15, S-16.
        let mut window = window(3);
        assert!(window.acknowledge(&ack(1, 3, &[1, 1, 1, 0, 0, 0]), Serial(1)).is_ok());
        assert_eq!(
            window.acknowledge(&ack(1, 0, &[1, 1, 1, 0, 1]), Serial(2)),
            Err(AckRefused::Bad)
        );
        assert_eq!(window.acknowledge(&ack(5, 0, &[]), Serial(3)), Err(AckRefused::BeyondSent));
        assert_eq!(window.acknowledge(&ack(0, 0, &[]), Serial(4)), Err(AckRefused::Bad));
    }

    #[test]
    fn a_serial_gives_a_sample_of_the_packet_it_names() {
        let mut window = window(3);
        let at = window.packet_mut(Seq(2)).map(|sent| sent.sent_at);
        let (_, progress) = window.acknowledge(&ack(3, 2, &[]), Serial(1)).unwrap();
        assert_eq!(progress.sample_from, at);
    }

    #[test]
    fn ack_serials_wrap_and_resynchronise() {
        // S-131, and rx-flow.md 3 step 3.
        let mut window = window(3);
        assert!(window.acknowledge(&ack(1, 0, &[1]), Serial(0xffff_fff0)).unwrap().0);
        assert!(window.acknowledge(&ack(1, 0, &[1]), Serial(5)).unwrap().0);
        assert!(!window.acknowledge(&ack(1, 0, &[1]), Serial(5)).unwrap().0);
        assert!(window.acknowledge(&ack(1, 0, &[1]), Serial(5u32.wrapping_sub(70_000))).unwrap().0);
    }

    #[test]
    fn credit_follows_the_acknowledged_bytes() {
        let mut window = SendWindow::new(16, 255);
        assert_eq!(window.take_credit(1412, 255, Room::Free), Some(64 * 1412));
        assert_eq!(window.take_credit(1412, 255, Room::Free), None);
        window.write(Bytes::from(vec![0; 64 * 1412]));
        assert!(window.is_application_stuck());
        let now = Instant::now();
        while window.take_next(window.limit(), 1412, now).is_some() {}
        assert_eq!(window.in_flight(), 16);
        assert_eq!(window.take_credit(1412, 255, Room::Free), None);
        window.acknowledge(&ack(17, 0, &[]), Serial(1)).unwrap();
        assert_eq!(window.take_credit(1412, 255, Room::Free), Some(16 * 1412));
    }

    #[test]
    fn s_134_the_window_keeps_its_order_across_2_to_the_31() {
        const UNA: u32 = 0x7fff_fff0;
        let mut window = SendWindow::new(32, 255);
        window.una = Seq(UNA);
        window.write(Bytes::from(vec![7; 40 * 1412]));
        window.close();
        let now = Instant::now();
        for packet in 0..32 {
            let seq = window.take_next(window.limit(), 1412, now);
            assert_eq!(seq, Some(Seq(UNA + packet)));
            if let Some(sent) = window.packet_mut(Seq(UNA + packet)) {
                sent.serial = Serial(packet + 1);
            }
        }
        assert_eq!(window.take_next(window.limit(), 1412, now), None, "the limit lies beyond too");
        assert_eq!(window.acknowledge(&ack(UNA - 1, 0, &[]), Serial(1)), Err(AckRefused::Stale));
        let beyond = window.acknowledge(&ack(UNA + 33, 0, &[]), Serial(1));
        assert_eq!(beyond, Err(AckRefused::BeyondSent));
        // The hole is the packet 7fffffff; what lies behind it was received.
        let sacks = [vec![1; 15], vec![0, 1, 1, 1]].concat();
        window.acknowledge(&ack(UNA, 19, &sacks), Serial(1)).unwrap();
        let losses = window.detect_losses(now, &Rtt::new(None), false);
        assert_eq!((losses.packets, losses.first), (1, Some(Seq(0x7fff_ffff))));
        let progress = window.acknowledge(&ack(UNA + 32, 0, &[]), Serial(2)).map(|it| it.1);
        assert_eq!(progress.ok().map(|it| it.newly_acked), Some(14));
        assert_eq!((window.una(), window.in_flight()), (Seq(0x8000_0010), 0));
    }
}
