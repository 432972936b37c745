//! Turns of connections: as `actors/connection.rs`.

use std::time::Instant;

use super::{InlineEndpoint, Letter, Output, Task, User, Word, Work};
use crate::proto::channel::{ChannelToConnection, Start};
use crate::proto::connection::ConnectionOutput;
use crate::proto::event::Origin;
use crate::proto::peer::PeerReport;
use crate::proto::router::{RouteId, Waker};
use crate::wire::ChannelIndex;

impl InlineEndpoint {
    pub(super) fn connection_hears(&mut self, now: Instant, route: RouteId, letter: Letter) {
        let wall_clock = self.wall_clock;
        let (Some(tree), Some(turns)) = (self.trees.get_mut(&route), &mut self.turn_by_turn) else {
            return;
        };
        let place = turns.places.entry(route).or_default();
        let core = &mut tree.connection;
        let mut out = ConnectionOutput::default();
        match letter {
            Letter::Control(datagram) => core.handle_control(now, wall_clock, &datagram, &mut out),
            Letter::Says(index, word) => {
                if matches!(word, ChannelToConnection::CallOver { .. }) {
                    place.running[index.index()] = None;
                }
                core.handle_channel(now, index, word, &mut out);
            }
            Letter::StartCall(work) => {
                if turns.canceled.remove(&work.token) {
                    return;
                }
                let (token, deadline) = (work.token, work.start.deadline);
                let prefers = work.prefers;
                let out = &mut out;
                if let Some(key) = core.handle_start_near(now, *work, deadline, prefers, out) {
                    self.waiting.insert(token, (route, key));
                }
            }
            Letter::CancelCall(token) => {
                if let Some((_, key)) = self.waiting.remove(&token) {
                    core.cancel(key);
                } else {
                    let index = place.running.iter().position(|its| *its == Some(token));
                    if let Some(index) = index.and_then(|index| ChannelIndex::new(index as u8)) {
                        turns.tell(Task::Channel(route, index), Letter::CancelBegun(token));
                    }
                    return;
                }
            }
            Letter::IdleSince(index, since) => core.handle_idle(now, index, since, &mut out),
            Letter::Verified(result) => core.handle_verified(now, result, &mut out),
            Letter::Due => {
                place.connection_published.fired();
                core.handle_deadline(now, &mut out);
            }
            Letter::Close => {
                core.close(&mut out);
                out.closes = true;
            }
            Letter::ChannelGone(index) => {
                place.gone[index.index()] = true;
                if place.gone.iter().all(|gone| *gone) {
                    turns.tell_endpoint(Word::ConnectionGone(route));
                }
                return;
            }
            _ => return,
        }
        self.conclude_connection(now, route, out);
    }

    fn conclude_connection(
        &mut self,
        now: Instant,
        route: RouteId,
        mut out: ConnectionOutput<Work>,
    ) {
        let (Some(tree), Some(turns)) = (self.trees.get(&route), &mut self.turn_by_turn) else {
            return;
        };
        for (index, word) in out.channels.drain(..) {
            turns.tell(Task::Channel(route, index), Letter::ConnectionSays(word));
        }
        for (index, work, asks_upgrade) in out.starts.drain(..) {
            self.waiting.remove(&work.token);
            turns.place(route).running[index.index()] = Some(work.token);
            let waited = now.saturating_duration_since(work.asked_at);
            let deadline = work.start.deadline.map(|deadline| deadline.saturating_sub(waited));
            let start = Start { asks_upgrade, deadline, ..work.start };
            let work = Box::new(Work { start, ..work });
            turns.tell(Task::Channel(route, index), Letter::Begin(work));
        }
        for (work, failure) in out.refused.drain(..) {
            self.waiting.remove(&work.token);
            self.refused.push((work.token, failure));
            if let Some(user) = turns.callers.get(&work.token).copied() {
                turns.wake(Task::User(User::Caller(user)));
            }
        }
        for work in out.returned.drain(..) {
            self.waiting.remove(&work.token);
            self.returned.push(work.token);
            if let Some(user) = turns.callers.get(&work.token).copied() {
                turns.wake(Task::User(User::Caller(user)));
            }
        }
        if out.asks_idle {
            for index in ChannelIndex::ALL {
                turns.tell(Task::Channel(route, index), Letter::AskIdle);
            }
        }
        if let Some(security) = out.secured {
            turns.tell_endpoint(Word::Secured(route, security));
        }
        if let Some(future) = out.verification {
            turns.verifications.push_back((route, future));
            turns.wake(Task::Verification(route));
        }
        let published = &mut turns.place(route).connection_published;
        let deadline = published.news(tree.connection.next_deadline(), !out.datagrams.is_empty());
        if deadline.is_some() || !out.datagrams.is_empty() || !out.events.is_empty() || out.proved {
            let origin = Origin { epoch: tree.ids.epoch, cid: tree.ids.cid };
            turns.put_out(Output {
                datagrams: out.datagrams.take(),
                events: out.events,
                peer: PeerReport { proved: out.proved, ..PeerReport::default() },
                deadline,
                ..Output::of(Waker::Connection(route), origin)
            });
        }
        if out.closes && !std::mem::replace(&mut turns.place(route).is_closing, true) {
            turns.tell_endpoint(Word::Draining(route));
            for index in ChannelIndex::ALL {
                turns.tell(Task::Channel(route, index), Letter::Close);
            }
        }
    }
}
