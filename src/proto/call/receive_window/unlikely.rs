//! What a receiver may do and we only do in simulations (docs/testkit.md): take back what it allowed, and throw away
//! what it acknowledged softly.

use super::ReceiveWindow;
use crate::wire::Seq;

impl ReceiveWindow {
    /// What the window word of the ACK that has just been described becomes when it allows one packet beyond what
    /// has come, and no more. What was allowed before is taken all the same.
    pub fn shrink_window(&mut self, first: Seq) -> u32 {
        if self.is_complete() {
            // The peer may remember the window of a call's last ACK for its channel: say all of it.
            return self.size;
        }
        self.advertised = self.next.plus(1).earlier(self.upper);
        first.distance_to(self.advertised)
    }

    /// Whether packets are held until a gap before them is filled.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Throws away what is held; the peer has to send it again (rx-flow.md 3).
    pub fn forget_held(&mut self) {
        let bytes: usize = self.held.drain(..).flatten().map(|packet| packet.payload.len()).sum();
        self.buffered_bytes = self.buffered_bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Offer, Packet, WindowUpdate};
    use super::*;

    fn offer(window: &mut ReceiveWindow, seq: u32) -> Offer {
        let packet = Packet { payload: Bytes::from(vec![0; 10]), cksum: 0 };
        window.offer(Seq(seq), false, packet, &mut Vec::new())
    }

    #[test]
    fn what_is_forgotten_is_not_acknowledged_any_more_and_taken_again() {
        let mut window = ReceiveWindow::new(8, 8, 1 << 20);
        offer(&mut window, 1);
        assert_eq!(offer(&mut window, 3), Offer::Queued);
        assert!(window.has_held());
        window.forget_held();
        let mut sacks = Vec::new();
        let described = window.describe(&mut sacks);
        assert_eq!((described.first, described.previous), (Seq(2), Seq(3)));
        assert_eq!((sacks, window.buffered_bytes()), (vec![0, 0], 10));
        assert_eq!(offer(&mut window, 3), Offer::Queued);
        assert_eq!(offer(&mut window, 2), Offer::InOrder { filled_gap: true });
    }

    #[test]
    fn a_window_taken_back_still_takes_what_it_allowed_and_says_so_when_it_is_read() {
        let mut window = ReceiveWindow::new(8, 8, 1 << 20);
        offer(&mut window, 1);
        let first = window.describe(&mut Vec::new()).first;
        assert_eq!(window.shrink_window(first), 1);
        assert_eq!(offer(&mut window, 2), Offer::InOrder { filled_gap: false });
        assert_eq!(offer(&mut window, 3), Offer::InOrder { filled_gap: false });
        assert!(window.is_exhausted());
        window.consume(3, 30);
        assert_eq!(window.wants_update(), WindowUpdate::Now);
    }
}
