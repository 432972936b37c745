//! Which packets count as lost (rx-flow.md 7).

use super::{Progress, SendWindow};
use crate::wire::{Seq, Serial};

/// Negative ACKs after which a packet counts as lost.
pub(super) const NACKS_MAX: u32 = 3;

impl SendWindow {
    /// The retransmission timer ran out: everything unacknowledged counts as lost. Returns how many.
    pub fn lose_all(&mut self) -> u32 {
        let mut count = 0;
        for sent in self.packets.iter_mut().filter(|sent| !sent.is_acked) {
            sent.is_lost = true;
            count += 1;
        }
        self.lost = count;
        self.lost_from = self.una;
        self.flying = 0;
        self.nacks = 0;
        count
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
            self.lost -= 1;
            self.flying += 1;
            self.lost_from = seq.plus(1);
        }
        seq
    }

    /// OpenAFS's counter of negative ACKs; what it marks must have been sent before the packet that
    /// provoked the ACK (rx-flow.md 7).
    pub(super) fn judge_holes(
        &mut self,
        serial: Serial,
        highest_acked: Option<usize>,
        acked_behind_hole: u32,
        progress: &mut Progress,
    ) {
        if acked_behind_hole == 0 {
            self.nacks = 0;
            return;
        }
        self.nacks = (self.nacks + 1).max(acked_behind_hole);
        let Some(highest) = highest_acked else { return };
        if self.nacks < NACKS_MAX {
            return;
        }
        for index in 0..highest {
            let sent = &mut self.packets[index];
            let judged =
                if serial.is_none() { !sent.is_resent } else { sent.serial.before(serial) };
            if !sent.is_acked && !sent.is_lost && judged {
                sent.is_lost = true;
                self.flying -= 1;
                self.lost += 1;
                progress.lost += 1;
                let seq = self.una.plus(index as u32);
                progress.lost_first.get_or_insert(seq);
                self.lost_from = self.lost_from.earlier(seq);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ack, window};
    use super::*;

    #[test]
    fn three_negative_acks_or_three_packets_behind_a_hole_mean_loss() {
        // S-87, S-88.
        let mut window = window(6);
        for (serial, sacks) in [(2, &[0, 1][..]), (3, &[0, 1, 1])] {
            let (_, progress) = window.acknowledge(&ack(1, serial, sacks), Serial(serial)).unwrap();
            assert_eq!(progress.lost, 0);
        }
        let (_, progress) = window.acknowledge(&ack(1, 4, &[0, 1, 1, 1]), Serial(4)).unwrap();
        assert_eq!((progress.lost, progress.lost_first), (1, Some(Seq(1))));
        let mut window = self::window(6);
        let (_, progress) = window.acknowledge(&ack(1, 6, &[0, 0, 0, 1, 1, 1]), Serial(1)).unwrap();
        assert_eq!(progress.lost, 3);
    }

    #[test]
    fn a_packet_sent_after_the_provoking_one_is_not_judged() {
        // S-89.
        let mut window = window(4);
        if let Some(sent) = window.packet_mut(Seq(1)) {
            sent.serial = Serial(20);
            sent.is_resent = true;
        }
        let (_, progress) = window.acknowledge(&ack(1, 15, &[0, 1, 1, 1]), Serial(1)).unwrap();
        assert_eq!(progress.lost, 0);
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
        let (_, progress) = window.acknowledge(&ack(1, 24, &acked), Serial(2)).unwrap();
        assert_eq!(progress.lost_first, Some(Seq(2)));
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
