//! How large datagrams may be: what padded PINGs prove, what losses and the network say (rx-flow.md 9.3).

use std::time::{Duration, Instant};

use super::{Channel, ChannelOutput};
use crate::proto::call::{LARGER_LOST_MAX, PROBES_LOST_MAX, SizeProbe};
use crate::proto::event::ResendCause;
use crate::proto::path::{DATAGRAM_BASE, DATAGRAM_DEFAULT, LARGER, PathSize};
use crate::proto::peer::PeerReport;
use crate::wire::{AckReason, DATA_PAYLOAD_MAX, HEADER_LEN, JUMBO_HEADER_LEN, Seq, Serial};

/// Packets that a call has sent before a search for larger datagrams is worth its PINGs.
const PROBE_AFTER_PACKETS: u32 = 32;
/// The same for single packets above the usual size, which gain less.
const LARGER_AFTER_PACKETS: u32 = 128;
/// What a PING of OpenAFS that asks for a path's size is larger than what it was told that we take.
const OPENAFS_PROBE_EXCESS: u32 = 128;
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
        if let Some(call) = &mut self.call {
            // The answer is there.
            call.size_probe.take_if(|probe| merged.is_refused(probe.size));
        }
        self.resend_larger(now, out);
        self.conclude(now, out);
    }

    /// Largest datagram of a single packet that may be made now. Above the usual size only where the peer has said
    /// in this call that it takes it, and not long after the path was shown to.
    pub(super) fn datagram_max(&self, now: Instant) -> u16 {
        let usual = self.hint.usual_datagram_max();
        let Some(call) = &self.call else { return usual };
        let larger = call.peer_datagram_max.min(self.hint.path.datagram_max());
        if larger < self.least_larger()
            || usual < DATAGRAM_DEFAULT
            || self.sends_jumbograms()
            || call.size_suspect.is_some()
            || !self.hint.path.is_fresh(now)
        {
            return usual;
        }
        larger.min(self.config.datagram_max_bytes as u16)
    }

    /// Less above the usual size is not worth the trouble.
    fn least_larger(&self) -> u16 {
        LARGER[0].min(self.config.datagram_max_bytes as u16)
    }

    fn sends_jumbograms(&self) -> bool {
        self.config.jumbo_send_packets > 1
    }

    /// A PING of `len` bytes came. One that is larger than what anybody would send whom we have not told that we
    /// take so much asks what the path takes: then we may say it.
    pub(super) fn note_size_question(&mut self, now: Instant, len: usize, out: &mut ChannelOutput) {
        let usual = self.usual_receive_max();
        if len > (usual + OPENAFS_PROBE_EXCESS) as usize
            && self.config.datagram_max_bytes > usual
            && !self.hint.asks_sizes
        {
            self.learn(now, out, PeerReport { asks_sizes: true, ..PeerReport::default() });
        }
    }

    /// Full packets that one datagram may carry now: 1 unless jumbograms are to be sent, the peer takes
    /// them, and the path is known to.
    pub(super) fn jumbo_packets(&self) -> usize {
        let is_suspect = self.call.as_ref().is_some_and(|call| call.size_suspect.is_some());
        if !self.sends_jumbograms() || is_suspect {
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
            || self
                .call
                .as_ref()
                .and_then(|call| call.size_suspect)
                .is_some_and(|least| datagram > usize::from(least))
    }

    /// Packets were lost, by the timer for so many times in a row, or up to the serial `last`: perhaps the path does
    /// not take such datagrams any more, and nobody says so.
    pub(super) fn suspect_size(&mut self, timeouts: u32, last: Serial) {
        let (jumbograms, known) = (self.sends_jumbograms(), self.hint.path.datagram_max());
        let Some(call) = &mut self.call else { return };
        if call.size_suspect.is_some() || (!jumbograms && known <= DATAGRAM_DEFAULT) {
            return;
        }
        // Of jumbograms any loss is one too many. Of large packets those count that none came after: others meet
        // the losses of any path.
        let (at_least, suspect) = match (jumbograms, timeouts) {
            (true, 2..) => (DATAGRAM_BASE, DATAGRAM_BASE),
            (true, _) => (DATAGRAM_DEFAULT, DATAGRAM_BASE),
            (false, 0) if call.large_delivered.is_some_and(|large| !last.after(large)) => return,
            (false, _) => (DATAGRAM_DEFAULT, DATAGRAM_DEFAULT),
        };
        if call.send.largest_unfragmented() > at_least {
            call.size_suspect = Some(suspect);
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
        if call.size_suspect.is_some() {
            let size = self.hint.path.datagram_max();
            return self.send_size_probe(now, size, 0, out);
        }
        if !self.sends_jumbograms() && self.hint.path.datagram_max() >= DATAGRAM_DEFAULT {
            return self.probe_larger(now, out);
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

    /// As [`Channel::probe_size`], for single packets above the usual size.
    fn probe_larger(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        let known = self.hint.path.datagram_max();
        let most = self.config.datagram_max_bytes as u16;
        let least = self.least_larger();
        // A peer that has not said that it takes so much is asked what it says to a large PING.
        let wanted = call.peer_datagram_max.min(most).max(least);
        let is_stale = known > DATAGRAM_DEFAULT && !self.hint.path.is_fresh(now);
        if (wanted <= known && !is_stale)
            || most <= DATAGRAM_DEFAULT
            || call.peer_datagram_max == 0
            || !Seq::FIRST.plus(LARGER_AFTER_PACKETS).before(call.send.next_seq())
            || call.send.has_sent_last()
            || !(call.is_proved || self.hint.is_proved(now))
        {
            return;
        }
        if is_stale {
            return self.send_size_probe(now, wanted.min(known), 0, out);
        }
        let mut path = self.hint.path;
        let size = path.next_larger(now, wanted);
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
        call.size_suspect = None;
        let mut path = self.hint.path;
        path.prove(now, probe.size);
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
        let is_known = probe.size <= self.hint.path.datagram_max();
        if lost < if is_known { PROBES_LOST_MAX } else { LARGER_LOST_MAX } {
            return self.send_size_probe(now, probe.size, lost, out);
        }
        call.size_suspect = None;
        self.refuse_size(now, probe.size, out);
        self.resend_larger(now, out);
    }

    /// The call ends while a size is in doubt. That it could end although the probe stays unanswered says
    /// enough: what got through was fragmented. The same goes for a larger size that was asked for long enough ago.
    pub(super) fn conclude_sizes(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        let Some(probe) = call.size_probe else { return };
        let patience = match call.size_suspect {
            Some(_) => Duration::ZERO,
            None => call.rtt.memory().map_or(PROBE_ALLOWANCE, |memory| 2 * memory.srtt),
        };
        if call.timers.last_received.saturating_duration_since(probe.sent_at) > patience {
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
