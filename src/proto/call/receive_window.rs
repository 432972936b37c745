//! The receive window: what may come, what is held, what the ACK says of it (rx-flow.md 6.1 and 6.2).
//!
//! In-order packets leave at once to the application's queue; `consumed` moves when the application gives
//! credit back, so the upper edge is what bounds memory. The edge never moves back: no promise is withdrawn.

mod unlikely;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::Room;
use crate::proto::room::{CALL_BYTES_MIN, CALL_PACKETS_MIN};
use crate::wire::{DATA_PAYLOAD_MAX, SACK_ENTRIES_MAX, Seq};

/// A DATA packet as received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Its payload, still sealed where the connection has a session.
    pub payload: Bytes,
    /// The checksum field of its header.
    pub cksum: u16,
}

/// What became of an offered packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// In order; it and what was held behind it are delivered.
    InOrder {
        /// Whether packets were held behind it: a gap is filled, at least in part.
        filled_gap: bool,
    },
    /// Held: something before it is missing.
    Queued,
    /// Held or delivered before.
    Duplicate,
    /// Beyond the upper edge.
    Beyond,
    /// It would pass a hard byte limit: the call's own, or that of all together.
    NoBuffer,
    /// Past the packet marked as the last.
    AfterLast,
    /// Marked as the last, while another is, or while a later one is held.
    DifferentLast,
}

/// Bytes that a packet of a promised window is reckoned with. A sender of larger ones counts each for as many as it
/// is long (rx-flow.md 9.3).
const PACKET_BYTES: usize = 1444;

/// What the window learns of the sender's speed.
#[derive(Clone, Debug, Default, Hash)]
struct Tuning {
    /// The edge that an ACK moved on, and when it left.
    mark: Option<(Seq, Instant)>,
    /// The least time between such an ACK and a packet that it allowed.
    rtt: Option<Duration>,
    /// When a round trip was begun.
    interval: Option<Instant>,
    /// What the application has taken since: packets, or full packets of the usual size if that is more.
    taken: u32,
    /// The window that was wanted at the most, in packets.
    size: u32,
}

/// See the module.
#[derive(Clone, Debug, Hash)]
pub struct ReceiveWindow {
    /// W: packets beyond what the application has consumed.
    size: u32,
    size_max: u32,
    /// C: lowest seq that the application has not wholly taken.
    consumed: Seq,
    /// r: lowest seq not received in order.
    next: Seq,
    /// h: highest seq accepted; 0 if none.
    highest: Seq,
    /// U: first seq not allowed.
    upper: Seq,
    /// U in the ACK sent last.
    advertised: Seq,
    /// firstPacket in the ACK sent last.
    first: Seq,
    /// Whether that was held back for the bytes that are unread.
    is_first_held: bool,
    /// Packets came that are larger than what windows reckon with.
    has_large: bool,
    last: Option<Seq>,
    /// Packets after `next`; index 0 is `next + 1`.
    held: VecDeque<Option<Packet>>,
    buffered_bytes: usize,
    soft_bytes_max: usize,
    room: Room,
    /// Only the room for all calls together keeps the edge where it is.
    is_held_back: bool,
    tuning: Tuning,
}

impl ReceiveWindow {
    /// A window of `size` packets that grows to `size_max`: to 255 when the application reads, beyond that as it
    /// reads fast. It stops opening while `soft_bytes_max` bytes are buffered.
    pub fn new(size: u32, size_max: u32, soft_bytes_max: usize) -> ReceiveWindow {
        let upper = Seq::FIRST.plus(size);
        ReceiveWindow {
            size,
            size_max,
            consumed: Seq::FIRST,
            next: Seq::FIRST,
            highest: Seq(0),
            upper,
            advertised: upper,
            first: Seq::FIRST,
            is_first_held: false,
            has_large: false,
            last: None,
            held: VecDeque::new(),
            buffered_bytes: 0,
            soft_bytes_max,
            room: Room::Free,
            is_held_back: false,
            tuning: Tuning::default(),
        }
    }

    /// Takes a packet, or says why not. In-order packets are appended to `delivered`.
    pub fn offer(
        &mut self,
        seq: Seq,
        is_last: bool,
        packet: Packet,
        delivered: &mut Vec<(Seq, Packet)>,
    ) -> Offer {
        if let Some(last) = self.last {
            if seq.after(last) {
                return Offer::AfterLast;
            }
            if is_last && seq != last {
                return Offer::DifferentLast;
            }
        } else if is_last && self.highest.after(seq) {
            return Offer::DifferentLast;
        }
        if seq.before(self.next) || self.holds(seq) {
            return Offer::Duplicate;
        }
        if !seq.before(self.upper) {
            return Offer::Beyond;
        }
        // Whoever has made a packet has nothing smaller to send in its place: where nothing is held, it is taken.
        let is_alone = self.buffered_bytes == 0 && seq == self.next;
        if (self.buffered_bytes + packet.payload.len() > self.hard_bytes_max() && !is_alone)
            || (self.room == Room::None && !self.has_own_room(seq, packet.payload.len()))
        {
            return Offer::NoBuffer;
        }
        if is_last {
            self.last = Some(seq);
        }
        self.highest = self.highest.later(seq);
        self.buffered_bytes += packet.payload.len();
        self.has_large |= packet.payload.len() > PACKET_BYTES;
        if seq != self.next {
            let index = self.next.distance_to(seq) as usize - 1;
            if self.held.len() <= index {
                self.held.resize(index + 1, None);
            }
            // It may stay: without the buffer that it came in, of which it may be a small part.
            let payload = Bytes::copy_from_slice(&packet.payload);
            self.held[index] = Some(Packet { payload, ..packet });
            return Offer::Queued;
        }
        let filled_gap = !self.held.is_empty();
        delivered.push((seq, packet));
        self.next = self.next.plus(1);
        while let Some(slot) = self.held.pop_front() {
            match slot {
                Some(packet) => {
                    delivered.push((self.next, packet));
                    self.next = self.next.plus(1);
                }
                None => break,
            }
        }
        Offer::InOrder { filled_gap }
    }

    /// A delivered packet of `sealed` bytes was opened to `plain` bytes, which is what comes back as
    /// consumed.
    pub fn note_opened(&mut self, sealed: usize, plain: usize) {
        self.buffered_bytes = (self.buffered_bytes + plain).saturating_sub(sealed);
    }

    /// The application has wholly taken `packets` more packets with `bytes` bytes.
    pub fn consume(&mut self, packets: u32, bytes: usize) {
        let packets = packets.min(self.consumed.distance_to(self.next));
        if packets == 0 {
            return;
        }
        self.consumed = self.consumed.plus(packets);
        let taken = packets.max((bytes / DATA_PAYLOAD_MAX) as u32);
        self.tuning.taken = self.tuning.taken.saturating_add(taken);
        self.buffered_bytes = self.buffered_bytes.saturating_sub(bytes);
        self.open();
    }

    /// How much room all calls together have. Where there is room again, the edge moves.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
        if room == Room::Free && self.is_held_back {
            self.open();
        }
    }

    /// Whether the edge would move if there were more room.
    pub fn is_held_back(&self) -> bool {
        self.is_held_back && !self.is_complete()
    }

    fn open(&mut self) {
        self.is_held_back = false;
        if self.buffered_bytes >= self.soft_bytes_max {
            return;
        }
        self.is_held_back = self.room != Room::Free;
        if !self.is_held_back {
            // Together with the edge, never without: firstPacket hangs on both and must not go back.
            self.size =
                self.size.max(self.size_max.min(SACK_ENTRIES_MAX as u32)).max(self.tuning.size);
            self.upper = self.upper.later(self.consumed.plus(self.size));
        } else if self.buffered_bytes < CALL_BYTES_MIN {
            let packets = CALL_PACKETS_MIN.min(self.size);
            self.upper = self.upper.later(self.consumed.plus(packets));
        }
    }

    /// A packet of this direction came: whether it shows how long a round trip is.
    #[inline]
    pub fn note_arrival(&mut self, now: Instant, seq: Seq) {
        if let Some((edge, at)) = self.tuning.mark
            && !seq.before(edge)
        {
            // It could be sent only when that ACK had arrived.
            let took = now.saturating_duration_since(at);
            self.tuning.rtt = Some(self.tuning.rtt.map_or(took, |least| least.min(took)));
            self.tuning.mark = None;
        }
    }

    /// Twice what the application takes in a round trip is what the window should be (docs/recovery.md 4).
    /// `rtt` = a measured one. What it comes to is adopted with the next [`ReceiveWindow::consume`].
    pub fn tune(&mut self, now: Instant, rtt: Option<Duration>) {
        if self.size_max <= SACK_ENTRIES_MAX as u32 {
            return;
        }
        let Some(rtt) = rtt.into_iter().chain(self.tuning.rtt).min() else { return };
        let Some(since) = self.tuning.interval else {
            (self.tuning.interval, self.tuning.taken) = (Some(now), 0);
            return;
        };
        if now.saturating_duration_since(since) < rtt {
            return;
        }
        let promised_max = (self.soft_bytes_max / PACKET_BYTES) as u32;
        let wanted = self.tuning.taken.saturating_mul(2);
        self.tuning.size = self.tuning.size.max(wanted.min(self.size_max).min(promised_max));
        (self.tuning.interval, self.tuning.taken) = (Some(now), 0);
    }

    /// Whether everything up to the last packet was received in order.
    pub fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| self.next.after(last))
    }

    /// Whether a packet of this direction was ever accepted.
    pub fn has_accepted(&self) -> bool {
        self.highest != Seq(0)
    }

    /// Whether the first packet is there, so that an application can start.
    pub fn has_in_order(&self) -> bool {
        self.next != Seq::FIRST
    }

    /// Whether the application is so far behind that what it is given should not keep receive buffers.
    pub fn is_backlogged(&self) -> bool {
        2 * self.unread_packets() > self.size || (self.has_large && self.is_half_full())
    }

    /// Packets delivered that the application has not wholly taken.
    pub fn unread_packets(&self) -> u32 {
        self.consumed.distance_to(self.next)
    }

    /// Bytes delivered or held that the application has not taken.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Packets received in order so far; the length of this direction once complete.
    pub fn received_packets(&self) -> u32 {
        Seq::FIRST.distance_to(self.next)
    }

    /// Lowest seq not received in order.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Whether the sender has used up what the last ACK allowed.
    pub fn is_exhausted(&self) -> bool {
        !self.is_complete() && !self.next.before(self.advertised)
    }

    /// Whether the edge has moved since the last ACK, far enough for an ACK of its own: the sender is
    /// stuck, or it has less than half the window left and gains a quarter.
    pub fn wants_update(&self) -> WindowUpdate {
        let gained = self.advertised.distance_to(self.upper);
        if self.is_first_held && !self.is_half_full() && !self.is_complete() {
            return WindowUpdate::Now;
        }
        if self.is_complete() {
            return WindowUpdate::None;
        }
        if gained == 0 {
            // Where the edge stands still, what was taken is news to a sender with a small window.
            let is_news = self.unread_packets() == 0 && self.hard_edge() == self.consumed;
            return if is_news { WindowUpdate::Delayed } else { WindowUpdate::None };
        }
        let usable = if self.next.before(self.advertised) {
            self.next.distance_to(self.advertised)
        } else {
            0
        };
        if usable == 0 || (usable < self.size.div_ceil(2) && gained >= (self.size / 4).max(4)) {
            WindowUpdate::Now
        } else {
            WindowUpdate::Delayed
        }
    }

    /// What an ACK says now; its SACK entries are appended to `sacks`.
    pub fn describe(&self, sacks: &mut Vec<u8>) -> Described {
        let previous = self.highest;
        if self.is_complete() {
            // The peer may remember the window of a call's last ACK for its channel: say all of it.
            return Described { first: self.next, previous, window: self.size };
        }
        let first = self.first_packet();
        let mut seq = first;
        while !seq.after(self.highest) && sacks.len() < SACK_ENTRIES_MAX {
            sacks.push(u8::from(seq.before(self.next) || self.holds(seq)));
            seq = seq.plus(1);
        }
        Described { first, previous, window: first.distance_to(self.upper) }
    }

    /// Up to here packets in order are acknowledged for good: all but half a window, and what the application has
    /// taken. The latter matters where the edge stands still for want of room: a sender whose own window is smaller
    /// than that half would wait for ever.
    fn hard_edge(&self) -> Seq {
        self.upper.minus(self.size.div_ceil(2)).later(self.consumed)
    }

    /// Lets go of all packets held.
    pub fn clear(&mut self) {
        self.held = VecDeque::new();
    }

    /// Notes that an ACK with the present edge has left.
    pub fn note_described(&mut self, now: Instant) {
        if self.tuning.mark.is_none() && self.upper.after(self.advertised) {
            self.tuning.mark = Some((self.advertised, now));
        }
        self.advertised = self.upper;
        self.is_first_held = self.holds_first_back();
        self.first = self.first_packet();
    }

    /// Takes out what only says how fast a path is (docs/exploration.md).
    #[cfg(feature = "testkit")]
    pub fn settle(&mut self) {
        self.tuning = Tuning::default();
        if !self.has_large {
            // Nobody asks for it.
            self.first = Seq::FIRST;
        }
    }

    fn holds(&self, seq: Seq) -> bool {
        seq.after(self.next)
            && self.held.get(self.next.distance_to(seq) as usize - 1).is_some_and(Option::is_some)
    }

    /// firstPacket: as far as packets are taken off the sender's hands for good. Half a window may be unread
    /// besides what the rest of the window may bring (rx-flow.md 6.1).
    fn first_packet(&self) -> Seq {
        let first = match self.holds_first_back() {
            true => self.first,
            false => self.next.earlier(self.hard_edge()),
        };
        first.later(self.next.minus(self.describable()))
    }

    /// Large packets that are unread fill half a window by their bytes, however few they are.
    fn holds_first_back(&self) -> bool {
        self.has_large && self.is_half_full()
    }

    fn is_half_full(&self) -> bool {
        2 * self.buffered_bytes > self.size as usize * PACKET_BYTES
    }

    /// In-order packets that a table can describe, so that firstPacket does not fall behind it.
    fn describable(&self) -> u32 {
        let received = Seq::FIRST.distance_to(self.next);
        received.min(SACK_ENTRIES_MAX as u32)
    }

    /// What a call may take in any case: a little, and what an application waits for that has nothing left
    /// to read.
    fn has_own_room(&self, seq: Seq, len: usize) -> bool {
        (seq == self.next && self.unread_packets() == 0)
            || self.buffered_bytes + len <= CALL_BYTES_MIN
    }

    /// Only outsized packets can reach this: windows count packets (rx-flow.md 6, "bytes").
    fn hard_bytes_max(&self) -> usize {
        2 * self.size as usize * PACKET_BYTES
    }
}

/// Whether consuming data calls for an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowUpdate {
    /// No.
    None,
    /// With the next ACK, or when the delayed-ACK timer fires.
    Delayed,
    /// At once.
    Now,
}

/// The window's part of an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// firstPacket.
    pub first: Seq,
    /// previousPacket: the highest accepted, never going back (rx-wire.md 4.4.5).
    pub previous: Seq,
    /// The trailer's window word.
    pub window: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize) -> Packet {
        Packet { payload: Bytes::from(vec![0; len]), cksum: 0 }
    }

    fn offer(window: &mut ReceiveWindow, seq: u32) -> Offer {
        window.offer(Seq(seq), false, packet(10), &mut Vec::new())
    }

    fn ack(window: &ReceiveWindow) -> (u32, u32, u32, Vec<u8>) {
        let mut sacks = Vec::new();
        let described = window.describe(&mut sacks);
        (described.first.0, described.previous.0, described.window, sacks)
    }

    #[test]
    fn large_packets_are_soft_acked_once_half_a_window_of_bytes_is_unread() {
        let now = Instant::now();
        let mut window = ReceiveWindow::new(32, 32, 1 << 20);
        let large = |window: &mut ReceiveWindow, seq: u32| {
            window.offer(Seq(seq), false, packet(8096), &mut Vec::new())
        };
        // Half of 32 packets of 1444 bytes are 23,104.
        for (seq, first) in [(1, 2), (2, 3), (3, 3), (4, 3), (5, 3)] {
            assert_eq!(large(&mut window, seq), Offer::InOrder { filled_gap: false });
            let (said, _, rwind, sacks) = ack(&window);
            assert_eq!((said, rwind, sacks.len()), (first, 33 - first, (seq + 1 - first) as usize));
            window.note_described(now);
        }
        window.consume(2, 2 * 8096);
        assert_eq!(window.wants_update(), WindowUpdate::Delayed, "24,288 bytes are unread");
        window.consume(1, 8096);
        assert_eq!(window.wants_update(), WindowUpdate::Now);
        assert_eq!(ack(&window), (6, 5, 30, Vec::new()));
        window.note_described(now);
        assert_eq!(window.wants_update(), WindowUpdate::None);
        // Nobody who keeps to the window comes near the end.
        let mut seq = 6;
        while large(&mut window, seq) != Offer::NoBuffer {
            seq += 1;
        }
        assert_eq!(window.buffered_bytes(), 2 * 32 * 1444 / 8096 * 8096);
    }

    #[test]
    fn an_unread_window_closes_by_soft_acks_and_opens_at_the_read() {
        // S-80.
        let mut window = ReceiveWindow::new(32, 32, 1 << 20);
        for seq in 1..=32 {
            assert_eq!(offer(&mut window, seq), Offer::InOrder { filled_gap: false });
        }
        assert_eq!(ack(&window), (17, 32, 16, vec![1; 16]));
        assert_eq!(offer(&mut window, 33), Offer::Beyond);
        window.consume(32, 320);
        assert_eq!(window.wants_update(), WindowUpdate::Now);
        assert_eq!(ack(&window), (33, 32, 32, vec![]));
    }

    #[test]
    fn a_gap_is_listed_and_filled() {
        // S-68, S-69.
        let mut window = ReceiveWindow::new(32, 255, 1 << 20);
        assert_eq!(offer(&mut window, 2), Offer::Queued);
        assert_eq!(ack(&window), (1, 2, 32, vec![0, 1]));
        assert_eq!(offer(&mut window, 2), Offer::Duplicate);
        let mut delivered = Vec::new();
        let offer = window.offer(Seq(1), false, packet(1), &mut delivered);
        assert_eq!(offer, Offer::InOrder { filled_gap: true });
        let seqs: Vec<_> = delivered.iter().map(|(seq, _)| seq.0).collect();
        assert_eq!(seqs, [1, 2]);
        assert_eq!(ack(&window), (3, 2, 30, vec![]));
    }

    #[test]
    fn the_last_packet_is_one_only() {
        // S-73 to S-76.
        let mut window = ReceiveWindow::new(32, 255, 1 << 20);
        let mut none = Vec::new();
        offer(&mut window, 5);
        assert_eq!(window.offer(Seq(3), true, packet(1), &mut none), Offer::DifferentLast);
        let mut window = ReceiveWindow::new(32, 255, 1 << 20);
        offer(&mut window, 1);
        offer(&mut window, 2);
        assert_eq!(
            window.offer(Seq(3), true, packet(1), &mut none),
            Offer::InOrder { filled_gap: false }
        );
        assert!(window.is_complete());
        assert_eq!(offer(&mut window, 4), Offer::AfterLast);
        assert_eq!(window.offer(Seq(2), true, packet(1), &mut none), Offer::DifferentLast);
        assert_eq!(window.offer(Seq(3), true, packet(1), &mut none), Offer::Duplicate);
        assert_eq!(ack(&window), (4, 3, 32, vec![]));
    }

    #[test]
    fn edges_never_move_back_and_the_advertised_window_never_falls_below_half() {
        // rx-flow.md 6.1, over many orders of arrival and reading.
        for seed in 0..200u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut draw = |below: u32| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % u64::from(below)) as u32
            };
            let mut window = ReceiveWindow::new(32, 64, 1 << 20);
            let (mut first, mut edge) = (0, 0);
            for _ in 0..400 {
                let seq = window.next().0 + draw(40);
                offer(&mut window, seq.max(1));
                if draw(3) == 0 {
                    let packets = draw(8);
                    window.consume(packets, packets as usize * 10);
                }
                let (now_first, previous, rwind, sacks) = ack(&window);
                assert!(now_first >= first && now_first + rwind >= edge, "seed {seed}");
                assert!(rwind >= 16 && sacks.len() <= 255);
                assert!(sacks.is_empty() || now_first + sacks.len() as u32 - 1 == previous);
                (first, edge) = (now_first, now_first + rwind);
            }
        }
    }

    #[test]
    fn a_window_beyond_255_describes_every_packet_received_in_order() {
        // rx-flow.md 6.2.
        let mut window = ReceiveWindow::new(1000, 1000, 16 << 20);
        for seq in 1..=900 {
            offer(&mut window, seq);
        }
        let (first, previous, rwind, sacks) = ack(&window);
        assert_eq!((first, previous, sacks.len()), (646, 900, 255));
        assert_eq!(first + rwind, 1001);
    }

    #[test]
    fn the_window_grows_with_what_the_application_takes_in_a_round_trip() {
        // docs/recovery.md 4.
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut window = ReceiveWindow::new(32, 4096, 8 << 20);
        let (mut seq, mut sizes) = (1, Vec::new());
        for round in 0..12 {
            // The sender uses all of the window in each round trip of 10 ms; the reader keeps up.
            let now = start + ms(10 * round);
            for _ in 0..window.size {
                window.note_arrival(now, Seq(seq));
                offer(&mut window, seq);
                seq += 1;
                window.tune(now, None);
                window.consume(1, 10);
            }
            window.note_described(now);
            sizes.push(window.size);
        }
        assert_eq!(window.tuning.rtt, Some(ms(10)));
        assert!(sizes[0] == 255 && sizes.is_sorted() && sizes[11] == 4096, "{sizes:?}");
        // Never more than may be buffered; and nothing where the reader is slow.
        let mut window = ReceiveWindow::new(32, 65_535, 1444 * 300);
        window.tuning.rtt = Some(ms(1));
        for round in 0..1000 {
            offer(&mut window, round + 1);
            window.tune(start + ms(u64::from(round) / 500), None);
            window.consume(1, 10);
        }
        assert_eq!(window.size, 300);
        let mut window = ReceiveWindow::new(32, 4096, 8 << 20);
        for round in 0..1000 {
            offer(&mut window, round + 1);
            window.tune(start + ms(u64::from(round) * 10), Some(ms(10)));
            window.consume(1, 10);
        }
        assert_eq!(window.size, 255);
    }

    #[test]
    fn the_byte_cap_stops_the_edge_at_its_limit_and_not_before() {
        let mut window = ReceiveWindow::new(4, 4, 40);
        for seq in 1..=4 {
            offer(&mut window, seq);
        }
        window.consume(1, 0);
        assert_eq!(window.wants_update(), WindowUpdate::None, "40 bytes are still buffered");
        window.consume(1, 10);
        assert_eq!(window.wants_update(), WindowUpdate::Now);
    }

    #[test]
    fn outsized_packets_end_at_the_hard_limit() {
        let mut window = ReceiveWindow::new(2, 2, 1412);
        let mut none = Vec::new();
        let limit = 2 * 2 * 1444;
        assert_eq!(
            window.offer(Seq(1), false, packet(limit), &mut none),
            Offer::InOrder { filled_gap: false }
        );
        assert_eq!(window.offer(Seq(2), false, packet(1), &mut none), Offer::NoBuffer);
    }

    /// Found by simulation: a window of one packet dropped the first large one again and again, and both sides waited.
    #[test]
    fn a_packet_larger_than_a_small_window_is_taken_alone() {
        let mut window = ReceiveWindow::new(1, 255, 1 << 20);
        let mut none = Vec::new();
        let large = 2 * 1444 + 1;
        assert_eq!(
            window.offer(Seq(1), false, packet(large), &mut none),
            Offer::InOrder { filled_gap: false }
        );
        assert_eq!(window.buffered_bytes(), large);
        // Not what comes out of order, and not beside another.
        let mut window = ReceiveWindow::new(2, 255, 1 << 20);
        let over = 2 * 2 * 1444 + 1;
        assert_eq!(window.offer(Seq(2), false, packet(over), &mut none), Offer::NoBuffer);
        offer(&mut window, 1);
        assert_eq!(window.offer(Seq(2), false, packet(over), &mut none), Offer::NoBuffer);
    }

    #[test]
    fn what_a_seal_adds_to_a_packet_does_not_stay_in_the_buffer() {
        // rx-flow.md 6, "bytes".
        let mut window = ReceiveWindow::new(32, 32, 1 << 20);
        for seq in 1..=20 {
            offer(&mut window, seq);
            window.note_opened(10, 4);
            window.consume(1, 4);
        }
        assert_eq!(window.buffered_bytes(), 0);
    }

    #[test]
    fn first_packet_does_not_go_back_while_the_byte_limit_holds_the_edge() {
        // rx-flow.md 6.1, properties.
        let mut window = ReceiveWindow::new(32, 255, 100);
        for seq in 1..=32 {
            offer(&mut window, seq);
        }
        assert_eq!(ack(&window).0, 17);
        window.consume(1, 10);
        assert_eq!(ack(&window), (17, 32, 16, vec![1; 16]));
        window.consume(31, 310);
        assert_eq!(ack(&window), (33, 32, 255, vec![]));
    }

    #[test]
    fn what_is_taken_is_acknowledged_for_good_also_while_there_is_no_room_for_more() {
        let mut window = ReceiveWindow::new(32, 255, 1 << 20);
        window.set_room(Room::Short);
        for seq in 1..=20 {
            offer(&mut window, seq);
            window.consume(1, 10);
            let (first, ..) = ack(&window);
            assert_eq!(first, seq + 1, "a sender that has one packet under way goes on");
        }
    }

    #[test]
    fn s_134_the_window_keeps_its_order_across_2_to_the_31() {
        const NEXT: u32 = 0x7fff_fff0;
        let mut window = ReceiveWindow::new(32, 32, 1 << 20);
        (window.consumed, window.next, window.highest) = (Seq(NEXT), Seq(NEXT), Seq(NEXT - 1));
        (window.upper, window.advertised) = (Seq(NEXT + 32), Seq(NEXT + 32));
        assert_eq!(offer(&mut window, NEXT + 31), Offer::Queued);
        assert_eq!(offer(&mut window, NEXT + 32), Offer::Beyond);
        assert_eq!(offer(&mut window, NEXT - 1), Offer::Duplicate);
        for seq in NEXT..NEXT + 31 {
            let filled_gap = true;
            assert_eq!(offer(&mut window, seq), Offer::InOrder { filled_gap });
        }
        let half = NEXT + 16;
        assert_eq!(ack(&window), (half, NEXT + 31, 16, vec![1; 16]));
        window.consume(32, 320);
        assert_eq!(ack(&window), (0x8000_0010, NEXT + 31, 32, vec![]));
    }
}
