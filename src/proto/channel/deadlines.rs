//! Time as an input: every timer of a channel (rx-calls.md 9, rx-flow.md 4 and 5).

use std::time::Instant;

use super::{Channel, ChannelOutput, LastEnd, Notice};
use crate::proto::call::CallState;
use crate::proto::event::ResendCause;
use crate::proto::{CallFailure, Role};
use crate::wire::{AbortCode, Serial};

impl Channel {
    /// When time alone is the next input; `None` = never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let Some(call) = &self.call else { return self.final_ack };
        let timers = &call.timers;
        [
            self.final_ack,
            timers.retransmit,
            self.size_probe_due(),
            timers.probe,
            timers.reorder,
            timers.pace,
            call.ack.deadline(),
            timers.reach_ping,
            self.ping_due(),
            self.dead_at(),
            self.idle_at(),
            self.hard_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has come to `now`. Harmless when nothing is due: a timer that was set anew since, or belongs
    /// to a call that is over, does nothing.
    pub fn handle_deadline(&mut self, now: Instant, out: &mut ChannelOutput) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.final_ack) {
            self.send_final_ack(now, out);
        }
        if is_due(self.hard_at()) {
            self.time_out_hard(now, out);
        } else if is_due(self.dead_at()) {
            self.die(now, out);
        } else if is_due(self.idle_at()) {
            self.time_out_idle(now, out);
        }
        if self.call.as_ref().is_some_and(|call| is_due(call.timers.retransmit)) {
            self.retransmit(now, out);
        }
        if is_due(self.size_probe_due()) {
            self.lose_size_probe(now, out);
        }
        if let Some(call) = self.call.as_mut().filter(|call| is_due(call.timers.pace)) {
            // What may go leaves at the end of the step.
            call.timers.pace = None;
        }
        if self.call.as_ref().is_some_and(|call| is_due(call.timers.reorder)) {
            self.detect_losses(now, self.in_flight_packets());
        }
        if self.call.as_ref().is_some_and(|call| is_due(call.timers.probe)) {
            self.probe_tail(now, out);
        }
        if self.call.as_ref().is_some_and(|call| is_due(call.timers.reach_ping)) {
            self.send_reach_ping(now, out);
        }
        if is_due(self.ping_due()) {
            self.send_ping(now, out);
            self.give_up_if_unreachable(now, out);
        }
        self.conclude(now, out);
    }

    /// The retransmission timer: everything unacknowledged goes again, from a congestion window of one.
    fn retransmit(&mut self, now: Instant, out: &mut ChannelOutput) {
        if self.give_up_if_unreachable(now, out) {
            return;
        }
        let Some(call) = &mut self.call else { return };
        call.timers.stop_recovery();
        // Where nothing comes back more packets do not help.
        call.timers.probes_sent = u32::MAX;
        let cause = if call.send.peer_window() == 0 {
            ResendCause::WindowProbe
        } else {
            ResendCause::Timeout
        };
        let in_flight = call.send.in_flight();
        let next_serial = self.serials.peek();
        let lost = call.send.lose_all();
        if lost > 0 {
            call.congestion.on_timeout(now, lost, in_flight, next_serial);
        }
        call.rtt.back_off();
        let timeouts = call.rtt.timeouts();
        self.suspect_size(timeouts, Serial::NONE);
        self.probe_size(now, out);
        self.transmit(now, cause, out);
    }

    /// Nothing was heard for longer than a round trip and its spread: one packet goes again, whatever the
    /// congestion window says, and nothing counts as lost before its answer (docs/recovery.md 2).
    fn probe_tail(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &mut self.call else { return };
        call.timers.probe = None;
        call.timers.probes_sent += 1;
        self.transmit(now, ResendCause::TailProbe, out);
        // The answer must have had its time before the timer gives everything up.
        let Some(call) = &mut self.call else { return };
        if let (Some(rto), Some(wait)) = (call.timers.retransmit, call.rtt.probe_timeout(true)) {
            call.timers.retransmit = Some(rto.max(now + wait));
        }
    }

    /// The network called the peer unreachable and nothing was heard since (rx-calls.md 10).
    fn give_up_if_unreachable(&mut self, now: Instant, out: &mut ChannelOutput) -> bool {
        let Some(problem) = self.call.as_ref().and_then(|call| call.problem) else {
            return false;
        };
        self.fail_call(now, CallFailure::Network(problem), LastEnd::Failed, out);
        true
    }

    /// A PING is due when nothing was sent for a sixth of the dead time.
    pub(super) fn ping_due(&self) -> Option<Instant> {
        let call = self.call.as_ref()?;
        let pings = self.config.keepalive
            && call.timers.reach_ping.is_none()
            && matches!(
                call.state,
                CallState::ClientSend
                    | CallState::ClientAwaitReply
                    | CallState::ClientReceiveReply
                    | CallState::ServerReceive
                    | CallState::ServerWork
                    | CallState::ServerReply
            );
        if pings { call.timers.last_sent.checked_add(self.config.ping_interval()) } else { None }
    }

    pub(super) fn dead_at(&self) -> Option<Instant> {
        let call = self.call.as_ref()?;
        let lives = matches!(
            call.state,
            CallState::ClientReserved | CallState::ClientDone | CallState::ServerDying
        );
        if lives { None } else { call.timers.last_received.checked_add(self.config.dead_timeout) }
    }

    pub(super) fn idle_at(&self) -> Option<Instant> {
        let call = self.call.as_ref()?;
        call.timers.waiting_since?.checked_add(self.config.idle_timeout?)
    }

    pub(super) fn hard_at(&self) -> Option<Instant> {
        let call = self.call.as_ref()?;
        let over = matches!(
            call.state,
            CallState::ClientDone | CallState::ServerAwaitAck | CallState::ServerDying
        );
        if over { None } else { call.timers.hard }
    }

    /// Silence: the peer hears nothing of it, since it says nothing.
    fn die(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        if call.state == CallState::ServerAwaitAck {
            let tag = call.tag;
            out.notify(tag, Notice::Acknowledged(false));
            // The client may be there again and still wait: its PINGs must not be answered as if the reply
            // could come.
            return self.end_call(now, Ok(()), LastEnd::Failed, false, out);
        }
        let failure = match call.problem {
            Some(problem) => CallFailure::Network(problem),
            None => CallFailure::Dead(self.config.dead_timeout),
        };
        self.fail_call(now, failure, LastEnd::Failed, out);
    }

    fn time_out_idle(&mut self, now: Instant, out: &mut ChannelOutput) {
        let failure = CallFailure::Idle(self.config.idle_timeout.unwrap_or_default());
        self.abort_call(now, AbortCode::CALL_TIMEOUT, failure, out);
    }

    fn time_out_hard(&mut self, now: Instant, out: &mut ChannelOutput) {
        let Some(call) = &self.call else { return };
        let limit = call.timers.hard.map(|hard| hard.saturating_duration_since(call.started));
        let failure = CallFailure::Deadline(limit.unwrap_or_default());
        debug_assert!(self.role == Role::Client || self.config.hard_timeout.is_some());
        self.abort_call(now, AbortCode::CALL_TIMEOUT, failure, out);
    }
}
