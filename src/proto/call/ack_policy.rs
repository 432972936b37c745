//! When to acknowledge and why (rx-flow.md 4): at most one ACK for all that is received together, with the
//! most urgent reason among them.

use std::time::{Duration, Instant};

use crate::wire::{AckReason, Serial};

/// Packets without an ACK after which one is sent at once.
const UNACKED_MAX: u32 = 2;

/// The ACK that a call owes.
#[derive(Clone, Debug, Default, Hash)]
pub struct AckPolicy {
    due: Option<(AckReason, Serial)>,
    unacked: u32,
    /// The packet that made `unacked` enough for an ACK.
    by_count: Option<Serial>,
    delayed_until: Option<Instant>,
}

impl AckPolicy {
    /// An ACK is due now for this packet. The most urgent reason stays; among equals the first, but among
    /// REQUESTED the last (rx-wire.md 5).
    pub fn demand(&mut self, reason: AckReason, serial: Serial) {
        let replaces = match self.due {
            None => true,
            Some((AckReason::Requested, _)) if reason == AckReason::Requested => true,
            Some((held, _)) => urgency(reason) > urgency(held),
        };
        if replaces {
            self.due = Some((reason, serial));
        }
    }

    /// A packet came in order, with nothing special about it: the second without an ACK is answered now,
    /// the first within `delay`.
    pub fn received_in_order(&mut self, serial: Serial, now: Instant, delay: Duration) {
        self.unacked += 1;
        if self.unacked >= UNACKED_MAX {
            self.by_count = Some(serial);
        } else {
            self.delay(now + delay);
        }
    }

    /// The direction's last packet came in order: its ACK may wait, since the answer acknowledges it.
    pub fn received_last(&mut self, now: Instant, delay: Duration) {
        self.by_count = None;
        self.delay(now + delay);
    }

    /// An ACK shall leave at `at` unless one does before.
    pub fn delay(&mut self, at: Instant) {
        self.delayed_until = Some(self.delayed_until.map_or(at, |held| held.min(at)));
    }

    /// The ACK to send now, if one is due.
    pub fn due(&self, now: Instant) -> Option<(AckReason, Serial)> {
        if let Some(due) = self.due {
            return Some(due);
        }
        if let Some(serial) = self.by_count {
            return Some((AckReason::Idle, serial));
        }
        (self.delayed_until? <= now).then_some((AckReason::Delay, Serial::NONE))
    }

    /// Anything that carries the state of an ACK has left, or the reply's DATA: nothing is owed.
    pub fn clear(&mut self) {
        *self = AckPolicy::default();
    }

    /// When a delayed ACK is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.delayed_until
    }

    /// The peer's serials that ACKs will name.
    #[cfg(feature = "testkit")]
    pub fn each_serial(&mut self, visit: &mut dyn FnMut(&mut Serial)) {
        self.due.iter_mut().for_each(|(_, serial)| visit(serial));
        self.by_count.iter_mut().for_each(visit);
    }
}

/// rx-wire.md 5: OUT_OF_SEQUENCE > NOSPACE > EXCEEDS_WINDOW > DUPLICATE > REQUESTED > DELAY > IDLE.
fn urgency(reason: AckReason) -> u8 {
    match reason {
        AckReason::OutOfSequence => 7,
        AckReason::NoSpace => 6,
        AckReason::ExceedsWindow => 5,
        AckReason::Duplicate => 4,
        AckReason::Requested => 3,
        AckReason::Delay => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    #[test]
    fn the_second_packet_is_acknowledged_and_the_first_after_the_delay() {
        // S-65, S-66.
        let now = Instant::now();
        let mut policy = AckPolicy::default();
        policy.received_in_order(Serial(1), now, DELAY);
        assert_eq!(policy.due(now), None);
        assert_eq!(policy.deadline(), Some(now + DELAY));
        assert_eq!(policy.due(now + DELAY), Some((AckReason::Delay, Serial::NONE)));
        policy.received_in_order(Serial(2), now, DELAY);
        assert_eq!(policy.due(now), Some((AckReason::Idle, Serial(2))));
        policy.clear();
        assert_eq!(policy.deadline(), None);
    }

    #[test]
    fn one_ack_has_the_most_urgent_reason_of_a_run() {
        // rx-wire.md 5, S-35.
        let mut policy = AckPolicy::default();
        let now = Instant::now();
        policy.demand(AckReason::Requested, Serial(1));
        policy.demand(AckReason::Requested, Serial(2));
        assert_eq!(policy.due(now), Some((AckReason::Requested, Serial(2))));
        policy.demand(AckReason::ExceedsWindow, Serial(3));
        policy.demand(AckReason::OutOfSequence, Serial(4));
        policy.demand(AckReason::OutOfSequence, Serial(5));
        policy.demand(AckReason::Duplicate, Serial(6));
        assert_eq!(policy.due(now), Some((AckReason::OutOfSequence, Serial(4))));
    }

    #[test]
    fn the_last_packet_of_a_run_may_wait_for_the_reply() {
        let now = Instant::now();
        let mut policy = AckPolicy::default();
        policy.received_in_order(Serial(1), now, DELAY);
        policy.received_in_order(Serial(2), now, DELAY);
        policy.received_last(now, DELAY);
        assert_eq!(policy.due(now), None);
    }
}
