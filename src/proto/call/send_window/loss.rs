//! Which packets count as lost (docs/recovery.md 1 and 2): RACK (RFC 8985) with serials instead of times.
//!
//! A serial names one transmission, and serials of a connection are in the order of sending. So an ACK says
//! exactly which transmissions came before the last one known to have arrived.

use std::time::{Duration, Instant};

use super::{Progress, SendWindow, Sent};
use crate::proto::call::Rtt;
use crate::wire::{Seq, Serial};

/// Negative ACKs, or packets behind a hole, after which a packet counts as lost at once.
const NACKS_MAX: u32 = 3;
/// Parts of the least round trip that a packet may be late, where packets were seen to overtake each other.
const STEPS_MAX: u32 = 16;
/// Least time that a packet may be late: what a timer of a busy host is worth.
const REORDER_MIN: Duration = Duration::from_millis(1);

/// What is known of the order in which transmissions arrive.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Rack {
    /// The highest serial known to have arrived.
    delivered: Option<Serial>,
    /// When it was sent, of those whose time is known.
    latest: Option<(Serial, Instant)>,
    /// How long that one took until its ACK.
    took: Option<Duration>,
    saw_reordering: bool,
    /// Quarters of the least round trip that a packet may be late, less one.
    steps: u32,
    nacks: u32,
    /// No packet from here on is missing.
    missing_to: Seq,
}

impl Rack {
    /// A packet arrives after later ones were acknowledged, though it was sent once.
    pub fn note_order(&mut self, sent: &Sent) {
        self.saw_reordering |= !sent.is_resent && sent.is_missing;
    }

    /// OpenAFS's counter of negative ACKs (rx-flow.md 7).
    pub fn count_nack(&mut self, acked_behind_hole: u32) {
        self.nacks = match acked_behind_hole {
            0 => 0,
            behind => (self.nacks + 1).max(behind),
        };
    }

    /// See [`SendWindow::settle`].
    #[cfg(feature = "testkit")]
    pub fn settle(&mut self) {
        self.nacks = self.nacks.min(NACKS_MAX);
        (self.latest, self.took, self.steps) = (None, None, 0);
    }

    /// The serials that are remembered.
    #[cfg(feature = "testkit")]
    pub fn each_serial(&mut self, visit: &mut dyn FnMut(&mut Serial)) {
        self.delivered.iter_mut().for_each(visit);
    }
}

/// What was found lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets, by weight.
    pub packets: u32,
    /// The lowest of them.
    pub first: Option<Seq>,
    /// The highest serial among them.
    pub last: Serial,
    /// When time alone makes more of them.
    pub again_at: Option<Instant>,
}

impl SendWindow {
    /// Takes over what an ACK showed.
    pub(super) fn note_delivered(&mut self, progress: &Progress) {
        let Some((serial, sent_at)) = progress.delivered else { return };
        let rack = &mut self.rack;
        if rack.delivered.is_none_or(|known| serial.after(known)) {
            rack.delivered = Some(serial);
        }
        if rack.latest.is_none_or(|(known, _)| serial.after(known)) {
            rack.latest = Some((serial, sent_at));
            rack.took = None;
        }
    }

    /// Which of the first `judged` packets an ACK leaves out although a later transmission had arrived when it
    /// was sent.
    pub(super) fn note_missing(&mut self, serial: Serial, judged: usize, progress: &Progress) {
        let rack = &mut self.rack;
        let named = Some(serial).filter(|serial| !serial.is_none());
        for serial in named.into_iter().chain(progress.delivered.map(|it| it.0)) {
            if rack.delivered.is_none_or(|known| serial.after(known)) {
                rack.delivered = Some(serial);
            }
        }
        let Some(delivered) = rack.delivered else { return };
        for (index, sent) in self.packets.iter_mut().take(judged).enumerate() {
            if sent.serial.before(delivered) {
                if !sent.is_acked && !sent.is_lost {
                    sent.is_missing = true;
                    rack.missing_to = rack.missing_to.later(self.una.plus(index as u32 + 1));
                }
            } else if !sent.is_resent {
                // What lies behind was sent later still.
                break;
            }
        }
    }

    /// Packets behind a full table, sent before the last transmission that has arrived.
    pub(super) fn note_untold(&mut self, described: usize) {
        let Some(delivered) = self.rack.delivered else { return };
        let from = self.una.plus(described as u32).later(self.untold_to);
        let from = self.una.distance_to(from) as usize;
        for (index, sent) in self.packets.iter_mut().enumerate().skip(from) {
            if sent.serial.before(delivered) {
                if !sent.is_acked && !sent.is_lost && !sent.is_untold {
                    sent.is_untold = true;
                    self.flying -= u32::from(sent.weight);
                    self.untold += u32::from(sent.weight);
                }
            } else if !sent.is_resent {
                self.untold_to = self.una.plus(index as u32);
                return;
            }
        }
        self.untold_to = self.una.plus(self.packets.len() as u32);
    }

    /// Marks what is missing as lost: at once, if three negative ACKs say so and packets keep their order on
    /// this path; else when it is later than it may be.
    pub fn detect_losses(&mut self, now: Instant, rtt: &Rtt, recovering: bool) -> Losses {
        let mut losses = Losses::default();
        let rack = &mut self.rack;
        let took = match (rack.took, rack.latest) {
            (None, Some((_, sent_at))) => {
                rack.took = Some(now.saturating_duration_since(sent_at));
                rack.took
            }
            (took, _) => took,
        };
        if !rack.missing_to.after(self.una) {
            return losses;
        }
        let at_once = !rack.saw_reordering && (rack.nacks >= NACKS_MAX || recovering);
        let may_take = took.zip(rtt.least()).map(|(took, least)| {
            let late = (least / 4 * (rack.steps + 1)).max(REORDER_MIN);
            took + late.min(rtt.memory().map_or(late, |memory| memory.srtt.max(REORDER_MIN)))
        });
        let to = self.una.distance_to(rack.missing_to) as usize;
        for (index, sent) in self.packets.iter_mut().take(to).enumerate() {
            if !sent.is_missing || sent.is_acked || sent.is_lost {
                continue;
            }
            let due = may_take.map(|may_take| sent.sent_at + may_take);
            if !at_once && due.is_none_or(|due| due > now) {
                losses.again_at = losses.again_at.into_iter().chain(due).min();
                continue;
            }
            let seq = self.una.plus(index as u32);
            let weight = u32::from(sent.weight);
            (sent.is_lost, sent.was_lost) = (true, true);
            if std::mem::take(&mut sent.is_untold) {
                self.untold -= weight;
            } else {
                self.flying -= weight;
            }
            self.lost += weight;
            losses.packets += weight;
            losses.first.get_or_insert(seq);
            losses.last = match losses.last.is_none() {
                true => sent.serial,
                false => losses.last.later(sent.serial),
            };
            self.lost_from = self.lost_from.earlier(seq);
        }
        if losses.again_at.is_none() {
            self.rack.missing_to = self.una;
        }
        losses
    }

    /// The highest serial known to have arrived.
    pub fn delivered(&self) -> Option<Serial> {
        self.rack.delivered
    }

    /// Packets were sent again for nothing: others may be as late.
    pub fn allow_later(&mut self) {
        self.rack.steps = (self.rack.steps + 1).min(STEPS_MAX);
        self.rack.saw_reordering = true;
    }

    /// The retransmission timer ran out: everything unacknowledged counts as lost. Returns its weight.
    pub fn lose_all(&mut self) -> u32 {
        let mut count = 0;
        for sent in self.packets.iter_mut().filter(|sent| !sent.is_acked) {
            (sent.is_lost, sent.was_lost, sent.is_missing) = (true, true, false);
            sent.is_untold = false;
            count += u32::from(sent.weight);
        }
        self.lost = count;
        self.lost_from = self.una;
        (self.flying, self.untold) = (0, 0);
        self.rack.nacks = 0;
        self.rack.missing_to = self.una;
        count
    }

    /// The timer ran out for nothing: what has not been sent again is on its way after all.
    pub fn trust_again(&mut self) {
        for sent in self.packets.iter_mut().filter(|sent| sent.is_lost) {
            (sent.is_lost, sent.was_lost) = (false, false);
            self.flying += u32::from(sent.weight);
        }
        self.lost = 0;
    }

    /// The lowest packet in flight once more: its answer says what has arrived and what has not.
    pub fn take_tail_probe(&mut self) -> Option<Seq> {
        let index = self.packets.iter().position(|sent| !sent.is_acked && !sent.is_lost)?;
        let sent = &mut self.packets[index];
        (sent.is_resent, sent.is_missing) = (true, false);
        if std::mem::take(&mut sent.is_untold) {
            self.untold -= u32::from(sent.weight);
            self.flying += u32::from(sent.weight);
        }
        Some(self.una.plus(index as u32))
    }

    /// Lowest seq that is marked lost.
    pub fn first_lost(&mut self) -> Option<Seq> {
        if self.lost == 0 {
            return None;
        }
        let from = self.una.distance_to(self.lost_from);
        let behind = self.packets.iter().skip(from as usize).position(|sent| sent.is_lost)?;
        self.lost_from = self.lost_from.plus(behind as u32);
        Some(self.lost_from)
    }

    /// This packet, the first that is lost, is transmitted again.
    pub(super) fn take_lost(&mut self, seq: Seq) -> Seq {
        if let Some(sent) = self.packet_mut(seq) {
            sent.is_lost = false;
            sent.is_resent = true;
            sent.is_missing = false;
            let weight = u32::from(sent.weight);
            self.lost -= weight;
            self.flying += weight;
            self.lost_from = seq.plus(1);
        }
        seq
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ack, window};
    use super::*;
    use crate::wire::{Ack, AckReason};

    const MS: Duration = Duration::from_millis(1);

    /// As [`window`], a packet each millisecond from `start` on.
    fn paced(packets: u32) -> (SendWindow, Instant) {
        let mut window = window(packets);
        let start = Instant::now();
        for (index, sent) in window.packets.iter_mut().enumerate() {
            sent.sent_at = start + MS * index as u32;
        }
        (window, start)
    }

    /// A path of so many milliseconds.
    fn rtt(ms: u32) -> Rtt {
        let mut rtt = Rtt::new(None);
        rtt.sample(MS * ms);
        rtt
    }

    fn lost(window: &mut SendWindow) -> (u32, Option<Seq>) {
        let losses = window.detect_losses(Instant::now(), &Rtt::new(None), false);
        (losses.packets, losses.first)
    }

    #[test]
    fn three_negative_acks_or_three_packets_behind_a_hole_mean_loss() {
        // S-87, S-88.
        let mut window = window(6);
        for (serial, sacks) in [(2, &[0, 1][..]), (3, &[0, 1, 1])] {
            window.acknowledge(&ack(1, serial, sacks), Serial(serial)).unwrap();
            assert_eq!(lost(&mut window), (0, None));
        }
        window.acknowledge(&ack(1, 4, &[0, 1, 1, 1]), Serial(4)).unwrap();
        assert_eq!(lost(&mut window), (1, Some(Seq(1))));
        let mut window = self::window(6);
        window.acknowledge(&ack(1, 6, &[0, 0, 0, 1, 1, 1]), Serial(1)).unwrap();
        assert_eq!(lost(&mut window), (3, Some(Seq(1))));
    }

    #[test]
    fn a_packet_sent_after_the_provoking_one_is_not_judged() {
        // S-89.
        let mut window = window(4);
        if let Some(sent) = window.packet_mut(Seq(1)) {
            sent.serial = Serial(20);
            sent.is_resent = true;
        }
        window.acknowledge(&ack(1, 15, &[0, 1, 1, 1]), Serial(1)).unwrap();
        assert_eq!(lost(&mut window), (0, None));
        // One more, sent after it, and it is lost for the second time.
        window.acknowledge(&ack(1, 21, &[0, 1, 1, 1]), Serial(2)).unwrap();
        assert_eq!(lost(&mut window), (1, Some(Seq(1))));
    }

    #[test]
    fn one_packet_behind_a_hole_is_enough_after_a_quarter_of_a_round_trip() {
        // RFC 8985 6.2, step 5; the packet 1 was sent a millisecond before 2, which took 40.
        let (mut window, start) = paced(2);
        window.acknowledge(&ack(1, 2, &[0, 1]), Serial(1)).unwrap();
        let at = start + MS * 41;
        let losses = window.detect_losses(at, &rtt(40), false);
        assert_eq!((losses.packets, losses.again_at), (0, Some(start + MS * 50)));
        let losses = window.detect_losses(start + MS * 50, &rtt(40), false);
        assert_eq!((losses.packets, losses.first, losses.last), (1, Some(Seq(1)), Serial(1)));
    }

    #[test]
    fn a_path_that_reorders_is_given_time_whatever_the_count() {
        let (mut window, start) = paced(8);
        window.acknowledge(&ack(1, 2, &[0, 1]), Serial(1)).unwrap();
        window.detect_losses(start + MS * 41, &rtt(40), false);
        // It was late, not lost.
        window.acknowledge(&ack(3, 1, &[]), Serial(2)).unwrap();
        window.acknowledge(&ack(3, 8, &[0, 1, 1, 1, 1, 1]), Serial(3)).unwrap();
        let losses = window.detect_losses(start + MS * 47, &rtt(40), true);
        assert_eq!((losses.packets, losses.again_at), (0, Some(start + MS * 52)));
        assert_eq!(window.detect_losses(start + MS * 52, &rtt(40), true).packets, 1);
    }

    #[test]
    fn what_a_later_answer_does_not_mention_was_lost_at_the_tail() {
        // The answer to a PING, or to a probe, names a serial later than all of them.
        let (mut window, start) = paced(5);
        window.acknowledge(&ack(3, 2, &[]), Serial(1)).unwrap();
        window.detect_losses(start + MS * 41, &rtt(40), false);
        assert_eq!(window.in_flight(), 3);
        window.acknowledge(&ack(3, 9, &[]), Serial(2)).unwrap();
        assert_eq!(window.detect_losses(start + MS * 60, &rtt(40), false).packets, 3);
        // What a full table cannot describe is not judged.
        let mut window = SendWindow::new(1000, 1000);
        window.write(bytes::Bytes::from(vec![0; 400]));
        window.close();
        while let Some(seq) = window.take_next(Seq(1001), 1, start) {
            window.packet_mut(seq).unwrap().serial = Serial(seq.0);
        }
        let mut sacks = [1; 255];
        sacks[0] = 0;
        window.acknowledge(&ack(1, 400, &sacks), Serial(1)).unwrap();
        assert_eq!(window.detect_losses(start + MS * 60, &rtt(40), false).packets, 1);
        assert_eq!(
            (window.in_flight(), window.unacked()),
            (1, 1 + 400 - 255),
            "nor is it under way"
        );
        // As the table goes on, it tells of them.
        window.take_next(Seq(1001), 1, start);
        window.packet_mut(Seq(1)).unwrap().serial = Serial(401);
        window
            .acknowledge(&ack(256, 401, &[[0].as_slice(), &[1; 144]].concat()), Serial(2))
            .unwrap();
        assert_eq!((window.in_flight(), window.unacked()), (0, 1));
        assert_eq!(lost(&mut window), (1, Some(Seq(256))));
    }

    #[test]
    fn serials_show_what_was_sent_again_for_nothing() {
        let resend = |window: &mut SendWindow| {
            window.acknowledge(&ack(1, 4, &[0, 1, 1, 1]), Serial(1)).unwrap();
            assert_eq!(lost(window).0, 1);
            assert_eq!(window.take_next(Seq(100), 1412, Instant::now()), Some(Seq(1)));
            window.packet_mut(Seq(1)).unwrap().serial = Serial(20);
        };
        let spurious = |first: u32, serial: u32, duplicate: bool, window: &mut SendWindow| {
            let reason = if duplicate { AckReason::Duplicate } else { AckReason::Idle };
            let ack = Ack { reason, ..ack(first, serial, &[1]) };
            let progress = window.acknowledge(&ack, Serial(serial.max(2))).unwrap().1;
            (progress.spurious, progress.delivered.map(|it| it.0))
        };
        // An ACK provoked by an earlier transmission: the first one was only late.
        let mut window = window(5);
        resend(&mut window);
        assert_eq!(spurious(5, 5, false, &mut window), (1, Some(Serial(5))));
        // Provoked by the second one: it was lost.
        let mut window = self::window(5);
        resend(&mut window);
        assert_eq!(spurious(5, 20, false, &mut window), (0, Some(Serial(20))));
        // The peer had it when the second one came.
        let mut window = self::window(5);
        resend(&mut window);
        assert_eq!(spurious(1, 0, false, &mut window), (0, None));
        assert_eq!(spurious(1, 20, true, &mut window), (1, None));
        assert_eq!(spurious(1, 20, true, &mut window), (0, None), "once");
        // All were late: the timer ran out for nothing.
        let mut window = self::window(5);
        assert_eq!(window.lose_all(), 5);
        assert_eq!(spurious(3, 2, false, &mut window).0, 3);
        window.trust_again();
        assert_eq!((window.in_flight(), window.first_lost()), (2, None));
    }

    #[test]
    fn a_tail_probe_is_the_lowest_packet_in_flight() {
        let mut window = window(4);
        window.acknowledge(&ack(1, 4, &[1, 0, 0, 1]), Serial(1)).unwrap();
        assert_eq!(window.take_tail_probe(), Some(Seq(2)));
        assert_eq!(window.in_flight(), 2);
    }

    /// Where the first lost packet is, searched for from the beginning.
    fn searched(window: &SendWindow) -> Option<Seq> {
        let index = window.packets.iter().position(|sent| sent.is_lost)?;
        Some(window.una.plus(index as u32))
    }

    #[test]
    fn the_search_for_lost_packets_goes_on_where_it_ended() {
        const PACKETS: u32 = 65_535;
        let mut window = SendWindow::new(PACKETS, PACKETS);
        window.write(bytes::Bytes::from(vec![0; PACKETS as usize]));
        window.close();
        let now = std::time::Instant::now();
        while window.take_next(Seq(PACKETS + 1), 1, now).is_some() {}
        assert_eq!(window.lose_all(), PACKETS);
        for seq in 1..=PACKETS {
            assert_eq!(window.lost_from, Seq(seq), "one step for each packet");
            assert_eq!(window.take_next(Seq(PACKETS + 1), 1, now), Some(Seq(seq)));
        }
        assert_eq!((window.first_lost(), window.in_flight()), (None, PACKETS));
    }

    #[test]
    fn the_first_lost_packet_is_found_whatever_came_between() {
        let mut window = window(12);
        let now = std::time::Instant::now();
        let take = |window: &mut SendWindow, expected: u32| {
            assert_eq!(window.first_lost(), searched(window));
            assert_eq!(window.take_next(Seq(100), 1412, now), Some(Seq(expected)));
            if let Some(sent) = window.packet_mut(Seq(expected)) {
                sent.serial = Serial(20 + expected);
            }
        };
        window.lose_all();
        (1..=4).for_each(|seq| take(&mut window, seq));
        // What lies ahead has come meanwhile, 5 to 7 and 9.
        let acked = [0, 0, 0, 0, 1, 1, 1, 0, 1];
        window.acknowledge(&ack(1, 9, &acked), Serial(1)).unwrap();
        take(&mut window, 8);
        // 2 is lost again: the search goes back.
        let acked = [1, 0, 1, 1, 1, 1, 1, 1, 1];
        window.acknowledge(&ack(1, 24, &acked), Serial(2)).unwrap();
        assert_eq!(lost(&mut window).1, Some(Seq(2)));
        take(&mut window, 2);
        take(&mut window, 10);
        // All that was searched is acknowledged, and more.
        window.acknowledge(&ack(12, 0, &[]), Serial(3)).unwrap();
        take(&mut window, 12);
        assert_eq!((window.first_lost(), searched(&window)), (None, None));
        // A probe, and a timeout, begin anew.
        window.lose_all();
        assert_eq!(window.first_lost(), Some(Seq(12)));
        window.take_probe();
        assert_eq!((window.first_lost(), searched(&window)), (None, None));
    }
}
