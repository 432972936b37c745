//! How large datagrams may be: what padded PINGs prove, what losses and the network say (rx-flow.md 9.3).

use std::time::{Duration, Instant};

use super::{Channel, ChannelOutput};
use crate::proto::call::{PROBES_LOST_MAX, SizeProbe};
use crate::proto::event::ResendCause;
use crate::proto::path::{DATAGRAM_BASE, DATAGRAM_DEFAULT, PathSize};
use crate::proto::peer::PeerReport;
use crate::wire::{AckReason, DATA_PAYLOAD_MAX, HEADER_LEN, JUMBO_HEADER_LEN, Seq, Serial};

/// Packets that a call has sent before a search for larger datagrams is worth its PINGs.
const PROBE_AFTER_PACKETS: u32 = 32;
/// Least time, besides two round trips, that the answer to a probe may take.
const PROBE_ALLOWANCE: Duration = Duration::from_millis(20);
/// What a packet more makes a jumbogram larger.
const JUMBO_STEP: u16 = (DATA_PAYLOAD_MAX + JUMBO_HEADER_LEN) as u16;

/// Size of a jumbogram of so many full packets.
fn jumbogram_len(packets: u16) -> u16 {
    HEADER_LEN as u16 + packets * JUMBO_STEP - JUMBO_HEADER_LEN as u16
}

/// Full packets that fit a datagram of this size as a jumbogram; at least 1.
fn packets_in(datagram: u16) -> u16 {
    let packets =
        (datagram.saturating_sub(HEADER_LEN as u16) + JUMBO_HEADER_LEN as u16) / JUMBO_STEP;
    packets.max(1)
}

impl Channel {
    /// The path takes other sizes than was thought. What is in flight in larger datagrams has not arrived:
    /// it goes again at once, and may be fragmented, since a packet that has its number keeps its size.
    pub fn handle_path_size(&mut self, now: Instant, path: &PathSize, out: &mut ChannelOutput) {
        let mut merged = self.hint.path;
        merged.merge(path);
        if merged != self.hint.path {
            self.hint_mut().path = merged;
        }
        self.resend_larger(now, out);
        self.conclude(now, out);
    }

    /// Full packets that one datagram may carry now: 1 unless jumbograms are to be sent, the peer takes
    /// them, and the path is known to.
    pub(super) fn jumbo_packets(&self) -> usize {
        if self.config.jumbo_send_packets < 2 || self.is_size_suspect() {
            return 1;
        }
        usize::from(self.jumbo_packets_wanted().min(packets_in(self.hint.path.datagram_max())))
    }

    /// The same, if the path took all.
    fn jumbo_packets_wanted(&self) -> u16 {
        let sizes = &self.hint.sizes;
        (self.config.jumbo_send_packets as u16)
            .min(u16::from(sizes.jumbo_max))
            .min(packets_in(sizes.datagram_max))
    }

    /// Whether a DATA datagram of this size may be fragmented: it is an old packet, larger than what the
    /// path turned out to take, or what the path takes is in doubt.
    pub(super) fn may_fragment(&self, datagram: usize) -> bool {
        datagram > usize::from(self.hint.path.datagram_max())
            || (datagram > usize::from(DATAGRAM_BASE) && self.is_size_suspect())
    }

    fn is_size_suspect(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.size_suspect)
    }

    /// Packets were lost. Twice in a row by the timer, or any of a datagram above the usual size: perhaps
    /// the path does not take such datagrams any more, and nobody says so.
    pub(super) fn suspect_size(&mut self, timeouts: u32) {
        let verifies = self.config.jumbo_send_packets > 1;
        let Some(call) = self.call.as_mut().filter(|_| verifies) else { return };
        let least = if timeouts >= 2 { DATAGRAM_BASE } else { DATAGRAM_DEFAULT };
        if !call.size_suspect && call.send.largest_unfragmented() > least {
            call.size_suspect = true;
            call.size_probe = None;
        }
    }

    /// Sends a padded PING if one is due: to verify the present size if that is in doubt, else to find a
    /// larger one where that would be of use.
    pub(super) fn probe_size(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.size_probe.is_some() {
            return;
        }
        if call.size_suspect {
            let size = self.hint.path.datagram_max();
            return self.send_size_probe(now, size, 0, out);
        }
        let packets = self.jumbo_packets_wanted();
        let wanted = if packets < 2 { DATAGRAM_DEFAULT } else { jumbogram_len(packets) };
        let is_bulk = Seq::FIRST.plus(PROBE_AFTER_PACKETS).before(call.send.next_seq())
            && !call.send.has_sent_last();
        if wanted <= self.hint.path.datagram_max() || !is_bulk {
            return;
        }
        let jumbograms = (2..=packets).rev().map(jumbogram_len);
        let mut path = self.hint.path;
        let size = path.next_probe(now, jumbograms.chain([DATAGRAM_DEFAULT, DATAGRAM_BASE]));
        if path != self.hint.path {
            self.hint_mut().path = path;
            out.peer.path = Some(path);
        }
        if let Some(size) = size {
            self.send_size_probe(now, size, 0, out);
        }
    }

    fn send_size_probe(&mut self, now: Instant, size: u16, lost: u8, out: &mut ChannelOutput) {
        let serial = self.send_padded_ack(now, AckReason::Ping, Serial::NONE, size.into(), out);
        if let Some(call) = &mut self.call {
            call.note_probe(serial, now);
            call.size_probe = Some(SizeProbe { size, serial, sent_at: now, lost });
        }
    }

    /// A PING was answered: if it was a padded one, its size passes.
    pub(super) fn note_ping_answered(
        &mut self,
        now: Instant,
        serial: Serial,
        out: &mut ChannelOutput,
    ) {
        let Some(call) = &mut self.call else { return };
        let Some(probe) = call.size_probe.take_if(|probe| probe.serial == serial) else { return };
        call.size_suspect = false;
        let mut path = self.hint.path;
        path.prove(probe.size);
        self.learn(now, out, PeerReport { path: Some(path), ..PeerReport::default() });
    }

    /// When a padded PING counts as lost.
    pub(super) fn size_probe_due(&self) -> Option<Instant> {
        let call = self.call.as_ref()?;
        let probe = call.size_probe?;
        // A PING's answer is never delayed, so the timeout of DATA is too long.
        let patience = match call.rtt.memory() {
            Some(memory) => 2 * memory.srtt + (4 * memory.var).max(PROBE_ALLOWANCE),
            None => call.rtt.rto(&self.config, Duration::ZERO),
        };
        probe.sent_at.checked_add(patience.min(self.config.rto_max))
    }

    /// A padded PING has not been answered. It counts as lost for its size only if something else came from
    /// the peer meanwhile.
    pub(super) fn lose_size_probe(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        let Some(probe) = call.size_probe.take() else { return };
        let lost = probe.lost + u8::from(call.timers.last_received > probe.sent_at);
        if lost < PROBES_LOST_MAX {
            return self.send_size_probe(now, probe.size, lost, out);
        }
        call.size_suspect = false;
        self.refuse_size(now, probe.size, out);
        self.resend_larger(now, out);
    }

    /// The call ends while a size is in doubt. That it could end although the probe stays unanswered says
    /// enough: what got through was fragmented.
    pub(super) fn conclude_sizes(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.size_suspect
            && let Some(probe) = call.size_probe
            && call.timers.last_received > probe.sent_at
        {
            self.refuse_size(now, probe.size, out);
        }
    }

    fn refuse_size(&mut self, now: Instant, size: u16, out: &mut ChannelOutput) {
        let mut path = self.hint.path;
        path.refuse(now, size);
        self.learn(now, out, PeerReport { path: Some(path), ..PeerReport::default() });
    }

    fn resend_larger(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        if call.send.lose_larger(self.hint.path.datagram_max()) > 0 {
            self.transmit(now, ResendCause::TooBig, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumbograms_of_two_to_six_packets_have_the_sizes_of_openafs() {
        for (packets, len) in [(2, 2856), (4, 5688), (6, 8520)] {
            assert_eq!((jumbogram_len(packets), packets_in(len)), (len, packets));
            assert_eq!(packets_in(len - 1), packets - 1);
        }
        assert_eq!((packets_in(0), packets_in(1440), packets_in(5692)), (1, 1, 4));
    }
}
