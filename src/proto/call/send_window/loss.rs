//! Which packets count as lost (rx-flow.md 7).

use super::{Progress, SendWindow};
use crate::wire::{Seq, Serial};

/// Negative ACKs after which a packet counts as lost.
const NACKS_MAX: u32 = 3;

impl SendWindow {
    /// The retransmission timer ran out: everything unacknowledged counts as lost. Returns how many.
    pub fn lose_all(&mut self) -> u32 {
        let mut count = 0;
        for sent in self.packets.iter_mut().filter(|sent| !sent.is_acked) {
            sent.is_lost = true;
            count += 1;
        }
        self.lost = count;
        self.flying = 0;
        self.nacks = 0;
        count
    }

    /// Lowest seq that is marked lost.
    pub fn first_lost(&self) -> Option<Seq> {
        let index = self.packets.iter().position(|sent| sent.is_lost)?;
        Some(self.una.plus(index as u32))
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
                progress.lost_first.get_or_insert(self.una.plus(index as u32));
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
}
