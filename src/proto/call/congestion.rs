//! Congestion control in packets: NewReno after rx-flow.md 8.
//!
//! One difference from that table: slow start grows by all that an ACK newly acknowledges, as OpenAFS does,
//! not by two at the most. We and our peers send one ACK for a whole run of packets, so a limit of two would
//! turn slow start into linear growth.

use std::time::Instant;

use crate::proto::peer::CongestionMemory;

/// Congestion window of one call.
#[derive(Clone, Debug, Hash)]
pub struct Congestion {
    window: u32,
    threshold: u32,
    window_max: u32,
    /// Newly acknowledged packets since the window last grew, in avoidance.
    credit: u32,
    recovering: bool,
    saw_loss: bool,
    initial: u32,
}

impl Congestion {
    /// Starts with `initial` packets, or with what the peer's memory holds if it is `fresh`; grows to
    /// `window_max`.
    pub fn new(
        initial: u32,
        window_max: u32,
        memory: Option<CongestionMemory>,
        is_fresh: bool,
    ) -> Congestion {
        let threshold = memory.map_or(window_max, |memory| memory.threshold.max(2));
        let window = match memory {
            Some(memory) if is_fresh => memory.window.max(initial),
            _ => initial,
        };
        Congestion {
            window: window.min(window_max.max(initial)),
            threshold,
            window_max,
            credit: 0,
            recovering: false,
            saw_loss: false,
            initial,
        }
    }

    /// Packets that may be in flight.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Whether the window grows with every acknowledged packet.
    pub fn is_slow_start(&self) -> bool {
        !self.recovering && self.window < self.threshold
    }

    /// An ACK acknowledged `packets` for the first time. `is_limited` = the window was what held us back;
    /// else growing it would mean nothing.
    pub fn on_acked(&mut self, packets: u32, is_limited: bool) {
        if self.recovering {
            self.recovering = false;
            self.window = self.threshold;
            self.credit = 0;
            return;
        }
        if !is_limited {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + packets).min(self.threshold.max(self.window));
        } else {
            self.credit += packets;
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window += 1;
            }
        }
        self.window = self.window.min(self.window_max);
    }

    /// An ACK acknowledged nothing new while a loss is being mended.
    pub fn on_duplicate(&mut self) {
        if self.recovering {
            self.window = (self.window + 1).min(self.window_max);
        }
    }

    /// Packets were found lost by SACK, with `in_flight` outstanding.
    pub fn on_loss(&mut self, in_flight: u32) {
        self.saw_loss = true;
        if self.recovering {
            return;
        }
        self.recovering = true;
        self.threshold = (in_flight / 2).max(2);
        self.window = (self.threshold + 3).min(self.window_max.max(1));
        self.credit = 0;
    }

    /// The retransmission timer ran out.
    pub fn on_timeout(&mut self, in_flight: u32) {
        self.saw_loss = true;
        self.recovering = false;
        self.threshold = (in_flight / 2).max(2);
        self.window = 1;
        self.credit = 0;
    }

    /// Nothing was sent for longer than a retransmission timeout.
    pub fn on_idle(&mut self) {
        self.window = self.window.min(self.initial);
    }

    /// What later calls to the peer start with.
    pub fn memory(&self, now: Instant) -> CongestionMemory {
        CongestionMemory {
            window: if self.recovering { self.threshold } else { self.window },
            threshold: self.threshold,
            at: now,
            saw_loss: self.saw_loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_doubles_and_stops_at_the_threshold() {
        let mut congestion = Congestion::new(4, 255, None, false);
        for expected in [8, 16, 32, 64, 128, 255, 255] {
            congestion.on_acked(congestion.window(), true);
            assert_eq!(congestion.window(), expected);
        }
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut congestion = Congestion::new(4, 255, None, false);
        congestion.on_acked(4, false);
        assert_eq!(congestion.window(), 4);
    }

    #[test]
    fn a_loss_halves_and_recovery_ends_with_the_next_progress() {
        let mut congestion = Congestion::new(40, 255, None, false);
        congestion.on_loss(40);
        assert_eq!(congestion.window(), 23);
        congestion.on_loss(40);
        assert_eq!(congestion.window(), 23, "one reduction a loss");
        congestion.on_duplicate();
        assert_eq!(congestion.window(), 24);
        congestion.on_acked(10, true);
        assert_eq!(congestion.window(), 20);
        for _ in 0..20 {
            congestion.on_acked(1, true);
        }
        assert_eq!(congestion.window(), 21, "one more for each window acknowledged");
    }

    #[test]
    fn a_timeout_starts_over_from_one() {
        // S-129.
        let mut congestion = Congestion::new(40, 255, None, false);
        congestion.on_timeout(40);
        assert_eq!(congestion.window(), 1);
        congestion.on_acked(1, true);
        assert_eq!(congestion.window(), 2);
    }
}
