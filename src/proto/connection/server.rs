//! The server's side of a connection: challenges and their answers, expiry (rx-calls.md 3.1 and 3.2).

use std::time::{Instant, SystemTime};

use super::{
    AbortCode, ChannelIndex, Connection, ConnectionFailure, ConnectionOutput, ConnectionToChannel,
    DropReason, Event, Handshake, Phase, Verification, Verified, bit, event, later_by,
};
use crate::proto::Why;
use crate::wire::PacketType;

impl<W> Connection<W> {
    /// The result of a verification that took its time.
    pub fn handle_verified(
        &mut self,
        now: Instant,
        result: Result<Verified, AbortCode>,
        out: &mut ConnectionOutput<W>,
    ) {
        if !matches!(self.phase, Phase::Verifying) {
            return;
        }
        let result = result.and_then(|verified| match session_end(&verified, self.response_came) {
            // Let through within the clocks' tolerance, but over: no call shall run on it.
            Some((at, code)) if at <= now => Err(code),
            end => Ok((verified, end)),
        });
        match result {
            Ok((verified, end)) => {
                self.session_end = end;
                self.secure(verified, out);
            }
            Err(code) => {
                // A second of silence makes guessing slow.
                self.phase = Phase::Refused { code, at: now + self.config.refusal_delay };
            }
        }
    }

    /// Since when a channel is idle; `None` = it has a call. Closes the connection when all four have been
    /// idle long enough.
    pub fn handle_idle(
        &mut self,
        now: Instant,
        index: ChannelIndex,
        since: Option<Instant>,
        out: &mut ConnectionOutput<W>,
    ) {
        let has_failed = self.failure().is_some();
        let answers = self.idle_answers.get_or_insert_default();
        answers[index.index()] = Some(since);
        if answers.iter().any(Option::is_none) || has_failed {
            return;
        }
        let answers = answers.map(Option::flatten);
        self.idle_answers = None;
        let limit = if self.is_served {
            self.config.server_idle
        } else {
            self.config.unserved_idle.min(self.config.server_idle)
        };
        if answers.iter().any(Option::is_none) {
            self.idle_due = later_by(now, limit);
            return;
        }
        let last = answers.into_iter().flatten().max().unwrap_or(now);
        if now.saturating_duration_since(last) >= limit {
            self.close(out);
        } else {
            self.idle_due = later_by(last, limit);
        }
    }

    pub(super) fn challenge_for(
        &mut self,
        now: Instant,
        index: ChannelIndex,
        out: &mut ConnectionOutput<W>,
    ) {
        self.unsecured_calls |= bit(index);
        match self.phase {
            Phase::Unsecured => {
                self.phase = Phase::Challenging { again: None, sent: 0 };
                self.send_challenge(now, out);
            }
            Phase::Challenging { again: None, .. } => {
                self.phase = Phase::Challenging { again: None, sent: 0 };
                self.send_challenge(now, out);
            }
            _ => {}
        }
    }

    /// The challenge timer: again while a call waits, but not for ever.
    pub(super) fn challenge_again(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        let Phase::Challenging { again, sent } = &mut self.phase else { return };
        if self.unsecured_calls == 0 {
            *again = None;
            return;
        }
        if *sent < self.config.challenge_max {
            return self.send_challenge(now, out);
        }
        *again = None;
        for index in ChannelIndex::ALL {
            if self.unsecured_calls & bit(index) != 0 {
                out.channels.push((index, ConnectionToChannel::Unchallenged));
            }
        }
        self.unsecured_calls = 0;
    }

    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        wall_clock: SystemTime,
        payload: &[u8],
        out: &mut ConnectionOutput<W>,
    ) {
        // Only while a challenge is out: a second answer, or one never asked for, is nothing.
        let (Phase::Challenging { .. }, Handshake::Server(handshake)) =
            (&self.phase, &mut self.handshake)
        else {
            return out.events.push(DropReason::UnwantedChallenge.into());
        };
        let verification = handshake.verify(payload, wall_clock);
        self.response_came = Some((now, wall_clock));
        self.phase = Phase::Verifying;
        match verification {
            Verification::Done(result) => self.handle_verified(now, result, out),
            Verification::Later(future) => out.verification = Some(future),
        }
    }

    pub(super) fn refuse(&mut self, now: Instant, code: AbortCode, out: &mut ConnectionOutput<W>) {
        self.send_abort(code, out);
        self.fail(now, ConnectionFailure::Aborted { code, why: Why::BadResponse }, out);
    }

    /// The client's credentials have ended: nothing of it is taken any more, and it gets no answers. It is
    /// told at once, so that its calls do not wait for what will not come.
    pub(super) fn end_session(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        let Some((_, code)) = self.session_end.filter(|(at, _)| *at <= now) else { return };
        self.send_abort(code, out);
        self.fail(now, ConnectionFailure::Aborted { code, why: Why::Security }, out);
    }

    fn secure(&mut self, verified: Verified, out: &mut ConnectionOutput<W>) {
        self.phase = Phase::Open;
        self.identity = verified.identity.map(std::sync::Arc::new);
        self.session = verified.session.clone();
        out.secured = self.session.as_ref().map(|session| session.brief());
        self.call_numbers = verified.call_numbers;
        self.unsecured_calls = 0;
        out.proved = true;
        out.events.push(Event::Challenged(event::Challenged { secured: true }));
        for index in ChannelIndex::ALL {
            out.channels.push((
                index,
                ConnectionToChannel::Secured {
                    session: verified.session.clone(),
                    call_number: verified.call_numbers[index.index()],
                    identity: self.identity.clone(),
                },
            ));
        }
    }

    fn send_challenge(&mut self, now: Instant, out: &mut ConnectionOutput<W>) {
        let entropy = self.entropy.draw();
        let Handshake::Server(handshake) = &mut self.handshake else { return };
        let body = handshake.challenge(&entropy);
        out.datagrams.push(&self.header(PacketType::Challenge), &body);
        out.events.push(Event::Challenged(event::Challenged { secured: false }));
        if let Phase::Challenging { again, sent } = &mut self.phase {
            *sent += 1;
            *again = later_by(now, self.config.challenge_interval);
        }
    }
}

/// When a session ends, by the clock that counts. One that has ended already ended when its RESPONSE came;
/// `None` = never, or beyond the end of the clock.
fn session_end(
    verified: &Verified,
    response_came: Option<(Instant, SystemTime)>,
) -> Option<(Instant, AbortCode)> {
    let (expires, code) = verified.session.as_ref()?.expires()?;
    let (came, wall_clock) = response_came?;
    let left = expires.duration_since(wall_clock).unwrap_or_default();
    Some((later_by(came, left)?, code))
}
