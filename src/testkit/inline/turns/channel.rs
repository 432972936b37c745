//! Turns of channels: as `actors/channel.rs`.

use std::time::Instant;

use bytes::Bytes;

use super::{CallRef, InlineEndpoint, Letter, Output, Port, Task, User, Word, Work};
use crate::proto::channel::{ChannelOutput, ChannelToConnection, Command, Notice};
use crate::proto::connection::ConnectionToChannel;
use crate::proto::event::{CallTally, Origin};
use crate::proto::router::{ChannelBrief, RouteId, Waker};
use crate::proto::{CallTag, ConnectionFailure, Role};
use crate::wire::ChannelIndex;

impl InlineEndpoint {
    pub(super) fn channel_hears(
        &mut self,
        now: Instant,
        route: RouteId,
        index: ChannelIndex,
        letter: Letter,
    ) {
        let (Some(tree), Some(turns)) = (self.trees.get_mut(&route), &mut self.turn_by_turn) else {
            return;
        };
        let place = turns.places.entry(route).or_default();
        if place.gone[index.index()] {
            if let Letter::StartCall(work) = letter {
                self.returned.push(work.token);
                let user = turns.callers.get(&work.token).copied();
                turns.wake(Task::User(User::Caller(user.unwrap_or(u32::MAX))));
            }
            return;
        }
        let service_id = tree.setup.service_id;
        let core = &mut tree.channels[index.index()];
        let port = &mut place.ports[index.index()];
        let mut out = ChannelOutput::default();
        let mut stops = false;
        let mut begins = None;
        match letter {
            Letter::Packets(run, hint) => core.handle_run(now, &hint, &run, &mut out),
            Letter::ConnectionSays(word) => core.handle_connection(now, word, &mut out),
            Letter::Command(tag, command) => core.handle_command(now, tag, command, &mut out),
            Letter::Unreachable(problem) => core.handle_network_problem(now, problem, &mut out),
            Letter::MoreRoom => core.handle_room(now, &mut out),
            Letter::StartCall(work) => {
                if turns.canceled.remove(&work.token) {
                    return;
                }
                if !core.may_begin() {
                    return turns.tell(Task::Connection(route), Letter::StartCall(work));
                }
                begins = Some((work, true));
            }
            Letter::CancelCall(token) => {
                let Some(its) = port.take_if(|its| its.token == token) else {
                    return turns.tell(Task::Connection(route), Letter::CancelCall(token));
                };
                core.handle_command(now, its.tag, Command::End, &mut out);
            }
            Letter::Begin(work) => {
                if core.state().is_some() || turns.canceled.remove(&work.token) {
                    let last = core.memory().last;
                    let word = ChannelToConnection::CallOver { last, avoid: false };
                    turns.tell(Task::Connection(route), Letter::Says(index, word));
                } else {
                    begins = Some((work, false));
                }
            }
            Letter::CancelBegun(token) => {
                let Some(its) = port.take_if(|its| its.token == token) else { return };
                core.handle_command(now, its.tag, Command::End, &mut out);
            }
            Letter::AskIdle => {
                let since = core.idle_since();
                turns.tell(Task::Connection(route), Letter::IdleSince(index, since));
                return;
            }
            Letter::Turn(tag, turn) => {
                let takes = core.handle_turn(now, tag, turn, &mut out);
                let is_served = out
                    .notices
                    .iter()
                    .any(|(its, notice)| *its == tag && matches!(notice, Notice::Incoming(_)));
                if takes && is_served {
                    self.turns.insert(CallRef { route, channel: index, tag }, service_id);
                } else if turn.is_ok() {
                    // Said when the step is over.
                    self.conclude_channel(now, route, index, out);
                    return self.turns_mut().tell_endpoint(Word::TurnOver(service_id));
                }
            }
            Letter::Due => {
                place.published[index.index()].fired();
                core.handle_deadline(now, &mut out);
            }
            Letter::Close => {
                let word = ConnectionToChannel::Failed(ConnectionFailure::Closed);
                core.handle_connection(now, word, &mut out);
                stops = true;
            }
            _ => return,
        }
        if let Some((Work { token, start, .. }, by_leave)) = begins.map(|(work, by)| (*work, by)) {
            let user = turns.callers.get(&token).copied().unwrap_or(u32::MAX);
            let is_whole = start.is_whole;
            let tag = CallTag(core.tag().0.wrapping_add(1));
            turns.place(route).ports[index.index()] = Some(Port { tag, token, user, is_whole });
            self.started.push((token, CallRef { route, channel: index, tag }));
            if !is_whole {
                turns.wake(Task::User(User::Caller(user)));
            }
            if by_leave {
                core.handle_start_by_leave(now, start, &mut out);
            } else {
                core.handle_start(now, start, &mut out);
            }
        }
        self.conclude_channel(now, route, index, out);
        if stops {
            self.turns_mut().tell(Task::Connection(route), Letter::ChannelGone(index));
        }
    }

    fn conclude_channel(
        &mut self,
        now: Instant,
        route: RouteId,
        index: ChannelIndex,
        mut out: ChannelOutput,
    ) {
        let (Some(tree), Some(turns)) = (self.trees.get_mut(&route), &mut self.turn_by_turn) else {
            return;
        };
        let core = &mut tree.channels[index.index()];
        loop {
            for word in out.connection.drain(..) {
                turns.tell(Task::Connection(route), Letter::Says(index, word));
            }
            if out.notices.is_empty() {
                break;
            }
            for (tag, notice) in std::mem::take(&mut out.notices) {
                let call = CallRef { route, channel: index, tag };
                if tree.setup.role == Role::Server {
                    self.notices.push((call, notice));
                    turns.wake(Task::User(User::Service(call)));
                    continue;
                }
                let place = turns.places.entry(route).or_default();
                let port = &mut place.ports[index.index()];
                let Some(held) = port.filter(|held| held.tag == tag) else { continue };
                if matches!(notice, Notice::Failed(_) | Notice::Acknowledged(_)) {
                    *port = None;
                }
                let user = Task::User(User::Caller(held.user));
                let is_end = matches!(notice, Notice::End);
                let command = match &notice {
                    Notice::Data(pieces) if held.is_whole => {
                        let bytes = pieces.iter().map(Bytes::len).sum();
                        Some(Command::Consumed { packets: pieces.len() as u32, bytes })
                    }
                    Notice::End if held.is_whole => Some(Command::End),
                    _ => None,
                };
                let wakes = !held.is_whole || matches!(notice, Notice::Failed(_));
                self.notices.push((call, notice));
                if wakes {
                    turns.wake(user);
                }
                if let Some(command) = command {
                    core.handle_command(now, tag, command, &mut out);
                }
                if held.is_whole && is_end {
                    turns.place(route).ports[index.index()] = None;
                    for word in out.connection.drain(..) {
                        turns.tell(Task::Connection(route), Letter::Says(index, word));
                    }
                    turns.wake(user);
                }
            }
        }
        tree.watches[index.index()].note(core);
        let mut tally = CallTally::default();
        out.events.retain(|event| !tally.absorb(event));
        tally.duplicates += out.duplicates;
        let published = &mut turns.place(route).published[index.index()];
        let deadline = published.news(core.next_deadline(), !out.datagrams.is_empty());
        if deadline.is_none()
            && out.datagrams.is_empty()
            && out.events.is_empty()
            && out.peer.is_empty()
            && out.holding.is_none()
            && out.turn.is_none()
        {
            self.router.counters_mut().add(&tally);
            return;
        }
        let cid = tree.ids.cid.with_channel(index);
        let brief = ChannelBrief {
            number: core.call_number(),
            state: core.state(),
            serial: core.last_serial(),
            sealed: core.sealed_traffic(),
        };
        turns.put_out(Output {
            datagrams: out.datagrams.take(),
            events: out.events,
            tally,
            peer: std::mem::take(&mut out.peer),
            holding: out.holding.take(),
            turn: out.turn.take(),
            deadline,
            brief: Some(brief),
            ..Output::of(Waker::Channel(route, index), Origin { epoch: tree.ids.epoch, cid })
        });
    }
}
