//! The client's side of a connection: channels for calls, challenges, service upgrade.

use std::time::{Duration, Instant};

use super::{
    CallFailure, CallNumber, ChannelIndex, Connection, ConnectionFailure, ConnectionOutput,
    ConnectionToChannel, DropReason, Event, Handshake, Phase, ServiceId, Upgrade, WaitKey, Waiting,
    bit, event,
};
use crate::proto::Why;
use crate::wire::PacketType;

impl<W> Connection<W> {
    /// A call wants a channel: it gets one now, or waits: then the result names it for [`Connection::cancel`]. `deadline` counts from now; waiting uses it up.
    pub fn handle_start(
        &mut self,
        now: Instant,
        work: W,
        deadline: Option<Duration>,
        out: &mut ConnectionOutput<W>,
    ) -> Option<WaitKey> {
        self.handle_start_near(now, work, deadline, None, out)
    }

    /// As [`Connection::handle_start`], for a call whose user has sent it to the channel `prefers` before: that is the
    /// one that its user's next call goes to, so it is the first choice if all are alike.
    pub fn handle_start_near(
        &mut self,
        now: Instant,
        work: W,
        deadline: Option<Duration>,
        prefers: Option<ChannelIndex>,
        out: &mut ConnectionOutput<W>,
    ) -> Option<WaitKey> {
        if !matches!(self.phase, Phase::Open) || self.is_used_up() {
            out.returned.push(work);
            return None;
        }
        if self.waiting.len() >= self.config.waiting_calls_max {
            out.refused.push((work, CallFailure::Queue(self.config.waiting_calls_max)));
            return None;
        }
        self.next_key += 1;
        let key = WaitKey(self.next_key);
        // A deadline beyond the end of the clock is none.
        let until = deadline.and_then(|deadline| now.checked_add(deadline));
        if self.waiting.capacity() == 0 {
            self.waiting.reserve_exact(1);
        }
        self.waiting.push_back(Waiting { key, work, prefers, since: now, until });
        self.start_waiting(now, out);
        self.waiting.back().is_some_and(|last| last.key == key).then_some(key)
    }

    /// A call that waits is not wanted any more: nothing was sent for it, and no number used.
    pub fn cancel(&mut self, key: WaitKey) -> Option<W> {
        let index = self.waiting.iter().position(|waiting| waiting.key == key)?;
        self.waiting.remove(index).map(|waiting| waiting.work)
    }

    /// Whether a channel has used its last call number: the connection takes no more calls (S-64).
    pub fn is_used_up(&self) -> bool {
        self.slots.iter().any(|slot| slot.last.next().is_none())
    }

    /// Gives waiting calls their channels.
    pub(super) fn start_waiting(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        if !matches!(self.phase, Phase::Open)
            || self.waiting.is_empty()
            || !self.knows_channels(out)
        {
            return;
        }
        if self.is_used_up() {
            out.returned.extend(self.waiting.drain(..).map(|waiting| waiting.work));
            return;
        }
        while let Some(waiting) = self.waiting.front()
            && self.upgrade != Upgrade::Asked
            && let Some(index) = self.choose_channel(waiting.prefers)
        {
            let Some(waiting) = self.waiting.pop_front() else { break };
            if waiting.until.is_some_and(|until| until <= now) {
                out.refused.push((waiting.work, expired(&waiting.since, now)));
                continue;
            }
            self.slots[index.index()].busy = true;
            if waiting.prefers != Some(index) {
                self.leave.misplaced |= bit(index);
            }
            let asks = self.upgrade == Upgrade::Wanted;
            if asks {
                self.upgrade = Upgrade::Asked;
            }
            if out.starts.capacity() == 0 {
                // Mostly there is one, and an idle connection keeps the place.
                out.starts.reserve_exact(1);
            }
            out.starts.push((index, waiting.work, asks));
        }
    }

    /// The lowest free channel on which the peer is not known to be busy; else the one where that is
    /// longest ago (rx-calls.md 2). Among equals the one that is preferred.
    fn choose_channel(&self, prefers: Option<ChannelIndex>) -> Option<ChannelIndex> {
        ChannelIndex::ALL
            .into_iter()
            .filter(|index| !self.slots[index.index()].busy)
            .min_by_key(|index| (self.slots[index.index()].avoid, prefers != Some(*index)))
    }

    pub(super) fn expire_waiting(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].until.is_some_and(|until| until <= now)
                && let Some(waiting) = self.waiting.remove(index)
            {
                out.refused.push((waiting.work, expired(&waiting.since, now)));
            } else {
                index += 1;
            }
        }
    }

    pub(super) fn adopt_service(
        &mut self,
        now: Instant,
        index: ChannelIndex,
        service_id: ServiceId,
        out: &mut ConnectionOutput<W>,
    ) {
        self.upgrade = Upgrade::No;
        if service_id != self.service_id {
            self.service_id = service_id;
            for other in ChannelIndex::ALL.into_iter().filter(|other| *other != index) {
                out.channels.push((other, ConnectionToChannel::ServiceAdopted(service_id)));
            }
        }
        self.start_waiting(now, out);
        self.give_leave(out);
    }

    /// Each CHALLENGE is answered anew, but only while a call is active: else we would answer questions
    /// for anybody (rx-calls.md 3.1).
    pub(super) fn handle_challenge(
        &mut self,
        now: Instant,
        payload: &[u8],
        out: &mut ConnectionOutput<W>,
    ) {
        let open = matches!(self.phase, Phase::Open);
        if !open || !matches!(self.handshake, Handshake::Client(_)) {
            return out.events.push(DropReason::UnwantedChallenge.into());
        }
        if !self.knows_channels(out) {
            return self.keep_challenge(payload);
        }
        let active = self.slots.iter().any(|slot| slot.busy);
        let call_numbers = self.slots.map(|slot| match (slot.busy, slot.last) {
            (false, CallNumber::NONE) => CallNumber::NONE,
            (_, last) => last.next().unwrap_or(CallNumber::MAX),
        });
        let entropy = self.entropy.draw();
        let Handshake::Client(handshake) = &mut self.handshake else { return };
        if !active {
            out.events.push(DropReason::UnwantedChallenge.into());
            return self.give_leave(out);
        }
        match handshake.respond(payload, call_numbers, &entropy) {
            Ok(response) => {
                out.datagrams.push(&self.header(PacketType::Response), &response);
                out.events.push(Event::Challenged(event::Challenged { secured: true }));
            }
            Err(code) => {
                self.send_abort(code, out);
                self.fail(now, ConnectionFailure::Aborted { code, why: Why::Challenge }, out);
            }
        }
        self.give_leave(out);
    }
}

fn expired(since: &Instant, now: Instant) -> CallFailure {
    CallFailure::Deadline(now.saturating_duration_since(*since))
}
