//! A channel as one value among many: for searches that visit every state it can be in
//! (docs/exploration.md). Not part of what runs.
//!
//! What the future depends on is hashed; clocks and numbers that only grow are brought to one form first, by
//! [`Channel::settle`] and [`Channel::each_serial`].

use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use super::{Channel, Security};
use crate::proto::call::{Pacer, Rtt};
use crate::proto::peer::{PeerHint, RttMemory};
use crate::proto::{Role, SerialCounter};
use crate::wire::Serial;

/// What time alone can do to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// The ACK of the peer's data, which waited for a better reason.
    DelayedAck,
    /// Client: the final ACK of the last call.
    FinalAck,
    /// What is not acknowledged goes again, or a closed window is probed.
    Retransmit,
    /// The proof of the client's address is asked for again.
    ReachPing,
    /// A PING, after silence of ours.
    Ping,
    /// The peer's silence ends the call.
    Dead,
    /// The application has waited too long.
    Idle,
    /// The call's deadline.
    Hard,
}

impl Timer {
    /// All of them.
    pub const ALL: [Timer; 8] = [
        Timer::DelayedAck,
        Timer::FinalAck,
        Timer::Retransmit,
        Timer::ReachPing,
        Timer::Ping,
        Timer::Dead,
        Timer::Idle,
        Timer::Hard,
    ];
}

impl Channel {
    /// A copy that shares nothing with this one, not even the serials.
    pub fn fork(&self) -> Channel {
        let serials = SerialCounter::starting_at(self.serials.peek());
        Channel { serials, ..self.clone() }
    }

    /// When this timer is due, if it runs.
    pub fn timer(&self, timer: Timer) -> Option<Instant> {
        let call = self.call.as_deref();
        match timer {
            Timer::DelayedAck => call?.ack.deadline(),
            Timer::FinalAck => self.final_ack,
            Timer::Retransmit => call?.timers.retransmit,
            Timer::ReachPing => call?.timers.reach_ping,
            Timer::Ping => self.ping_due(),
            Timer::Dead => self.dead_at(),
            Timer::Idle => self.idle_at(),
            Timer::Hard => self.hard_at(),
        }
    }

    /// Bytes that the present call holds now, received and written, as its endpoint adds them up.
    pub fn held_bytes(&self) -> usize {
        self.holding().bytes
    }

    /// The same, as the endpoint was told last.
    pub fn told_bytes(&self) -> usize {
        self.told.bytes
    }

    /// Bytes that the application wrote within its credit and that are not acknowledged for good.
    pub fn written_bytes(&self) -> usize {
        self.call.as_ref().map_or(0, |call| call.send.held_bytes())
    }

    /// Breaks the channel: what is in flight has no timer any more. For checks that must see it.
    pub fn forget_retransmission(&mut self) {
        if let Some(call) = &mut self.call {
            call.timers.retransmit = None;
        }
    }

    /// This timer, which runs, is due at `now`, and no other because of it.
    pub fn lapse(&mut self, now: Instant, timer: Timer) {
        if timer == Timer::FinalAck {
            self.final_ack = Some(now);
        }
        let Some(call) = &mut self.call else { return };
        match timer {
            Timer::DelayedAck => call.ack.delay(now),
            Timer::FinalAck => {}
            Timer::Retransmit => call.timers.retransmit = Some(now),
            Timer::ReachPing => call.timers.reach_ping = Some(now),
            Timer::Ping => call.timers.last_sent = now - self.config.ping_interval(),
            Timer::Dead => call.timers.last_received = now - self.config.dead_timeout,
            Timer::Idle => {
                call.timers.waiting_since = self.config.idle_timeout.map(|limit| now - limit);
            }
            Timer::Hard => call.timers.hard = Some(now),
        }
    }

    /// Takes out what only says how long something takes, where any timer may be due at any time, and the
    /// upper part of counters that are only asked whether they have reached their limit.
    pub fn settle(&mut self, now: Instant) {
        settle_hint(self.hint_mut());
        if self.config.abort_interval.is_zero() {
            self.throttles = None;
        }
        let Some(call) = &mut self.call else { return };
        call.rtt = Rtt::new(call.rtt.memory().map(settled_rtt));
        call.send.settle();
        call.receive.settle();
        call.congestion.settle(now);
        call.pacer = Pacer::new(now);
        // They send sooner what the retransmission timer sends.
        (call.timers.probe, call.timers.reorder, call.timers.pace) = (None, None, None);
        call.timers.probes_sent = 0;
        if call.timers.retransmit.is_some() {
            call.timers.retransmit = Some(now + self.config.rto_max);
        }
    }

    /// Shows every serial that the channel keeps, with the side that gave it out; each may be changed.
    pub fn each_serial(&mut self, visit: &mut dyn FnMut(Role, &mut Serial)) {
        let peer = match self.role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let mut next = self.serials.peek();
        visit(self.role, &mut next);
        self.serials = SerialCounter::starting_at(next);
        let Some(call) = &mut self.call else { return };
        call.probes.iter_mut().for_each(|(serial, _)| visit(self.role, serial));
        call.send.each_serial_sent(&mut |serial| visit(self.role, serial));
        call.congestion.each_serial(&mut |serial| visit(self.role, serial));
        call.send.ack_serial_mut().iter_mut().for_each(|serial| visit(peer, serial));
        call.ack.each_serial(&mut |serial| visit(peer, serial));
    }
}

/// RTT samples are only asked whether they are three.
pub const RTT_SAMPLES_TOLD_APART: u32 = 3;

/// As [`Channel::settle`], for the endpoint's own memory of the peer.
pub fn settle_hint(hint: &mut PeerHint) {
    hint.rtt = hint.rtt.map(settled_rtt);
}

fn settled_rtt(rtt: RttMemory) -> RttMemory {
    RttMemory {
        srtt: Duration::ZERO,
        var: Duration::ZERO,
        samples: rtt.samples.min(RTT_SAMPLES_TOLD_APART),
    }
}

/// All that can make a difference: a field that is new has to be judged here.
impl Hash for Channel {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Channel {
            role,
            epoch,
            cid,
            security_index,
            service_id,
            config: _,
            serials,
            security,
            needs_reach,
            hint,
            memory,
            call,
            final_ack,
            // Says only how long the final ACK waits.
            is_called_often: _,
            has_leave,
            is_quiet,
            failure,
            has_served,
            draining,
            identity: _,
            throttles,
            idle_since,
            told,
            told_before,
            // Told to whoever asks, and else without effect.
            sealed: _,
            choices: _,
        } = self;
        (role, epoch, cid, security_index, service_id, serials.peek()).hash(hasher);
        (matches!(security, Security::Pending), needs_reach, hint, memory).hash(hasher);
        (call, final_ack, has_leave, is_quiet, failure, has_served, draining).hash(hasher);
        (throttles, idle_since, told, told_before).hash(hasher);
    }
}
