//! Packets and the datagrams that they left in (rx-flow.md 9.3).

use super::SendWindow;
use crate::wire::{DATA_PAYLOAD_MAX, Seq};

impl SendWindow {
    /// How many of the first packets of `burst` may leave in one datagram: consecutive ones that have never
    /// left, each but the last of exactly 1412 bytes, at most `packets_max`; at least 1 (rx-wire.md 4.2).
    pub fn joinable(&self, burst: &[Seq], packets_max: usize) -> usize {
        let mut count = 0;
        for (place, seq) in burst.iter().take(packets_max).enumerate() {
            let Some(sent) = self.packets.get(self.una.distance_to(*seq) as usize) else { break };
            let follows = *seq == burst[0].plus(place as u32);
            if !follows || sent.is_resent || sent.payload_len() > DATA_PAYLOAD_MAX {
                break;
            }
            count += 1;
            if sent.is_last || sent.payload_len() != DATA_PAYLOAD_MAX {
                break;
            }
        }
        count.max(1)
    }

    /// Size of the largest datagram in flight, or lost, that might not be fragmented; 0 = there is none.
    pub fn largest_unfragmented(&self) -> u16 {
        let whole = self.packets.iter().filter(|sent| !sent.is_acked && !sent.may_fragment);
        whole.map(|sent| sent.datagram_len).max().unwrap_or(0)
    }

    /// What is in flight in datagrams above `datagram_max` that might not be fragmented counts as lost.
    /// Returns their weight.
    pub fn lose_larger(&mut self, datagram_max: u16) -> u32 {
        let mut count = 0;
        for (index, sent) in self.packets.iter_mut().enumerate() {
            let is_larger = sent.datagram_len > datagram_max && !sent.may_fragment;
            if is_larger && !sent.is_acked && !sent.is_lost {
                (sent.is_lost, sent.was_lost) = (true, true);
                let weight = u32::from(sent.weight);
                if std::mem::take(&mut sent.is_untold) {
                    self.untold -= weight;
                } else {
                    self.flying -= weight;
                }
                count += weight;
                self.lost_from = self.lost_from.earlier(self.una.plus(index as u32));
            }
        }
        self.lost += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ack, window};
    use super::*;
    use crate::wire::Serial;

    #[test]
    fn only_full_new_packets_in_a_row_share_a_datagram() {
        let mut window = window(6);
        let burst = [1, 2, 3, 4, 5, 6].map(Seq);
        assert_eq!(window.joinable(&burst, 4), 4);
        assert_eq!(window.joinable(&burst[4..], 4), 2, "the last one ends it");
        assert_eq!(window.joinable(&[Seq(1), Seq(3)], 4), 1);
        window.packet_mut(Seq(2)).unwrap().is_resent = true;
        assert_eq!(window.joinable(&burst, 4), 1, "what was sent before goes by itself");
        window.packet_mut(Seq(3)).unwrap().len = 1411;
        assert_eq!(window.joinable(&burst[2..], 4), 1, "a short one cannot be followed");
    }

    #[test]
    fn what_is_too_large_is_lost_once() {
        let mut window = window(4);
        for seq in 1..=4 {
            window.packet_mut(Seq(seq)).unwrap().datagram_len = 1440;
        }
        window.acknowledge(&ack(1, 2, &[0, 1]), Serial(1)).unwrap();
        assert_eq!(window.lose_larger(1440), 0);
        assert_eq!((window.lose_larger(1439), window.in_flight()), (3, 0));
        assert_eq!(window.first_lost(), Some(Seq(1)));
        for seq in [1, 3, 4] {
            assert_eq!(window.take_next(Seq(100), 1412, std::time::Instant::now()), Some(Seq(seq)));
            window.packet_mut(Seq(seq)).unwrap().may_fragment = true;
        }
        assert_eq!((window.lose_larger(600), window.largest_unfragmented()), (0, 0));
    }
}
