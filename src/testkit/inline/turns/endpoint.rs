//! The endpoint's turn: as `actors/local_endpoint.rs` and its receive loop.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::{Arrived, InlineEndpoint, Letter, Output, Task, User, Word};
use crate::proto::channel::Run;
use crate::proto::router::{RouteId, RouterOutput, Step, Turn, Waker};
use crate::proto::{CallTag, NetworkProblem};
use crate::wire::ChannelIndex;

impl InlineEndpoint {
    pub(super) fn endpoint_turn(&mut self, now: Instant) {
        while let Some(word) = self.turns_mut().words.pop_front() {
            self.take_outputs(now);
            self.endpoint_hears(now, word);
        }
        self.take_outputs(now);
        self.turns_mut().listens = true;
        while let Some(arrived) = self.turns_mut().arrived.pop_front() {
            match arrived {
                Arrived::Datagram(from, datagram) => self.route_datagram(now, from, &datagram),
                Arrived::Problem(peer, problem) => self.tell_unreachable(peer, problem),
            }
        }
        while let Some(whose) = self.router.pop_due(now) {
            let task = match whose {
                Waker::Connection(route) => Task::Connection(route),
                Waker::Channel(route, index) => Task::Channel(route, index),
            };
            self.turns_mut().tell(task, Letter::Due);
        }
        let mut out = RouterOutput::default();
        self.router.sweep(now, &mut out);
        self.take_router_output(&mut out);
    }

    fn endpoint_hears(&mut self, now: Instant, word: Word) {
        match word {
            Word::Connect(it) => {
                let route = self.connect(now, it.peer, it.service_id, &*it.class, it.asks_upgrade);
                self.take_router_output(&mut RouterOutput::default());
                let turns = self.turns_mut();
                turns.connected.push((it.user, route));
                turns.wake(Task::User(User::Caller(it.user)));
            }
            Word::Secured(route, security) => self.router.set_security(route, security, true),
            Word::Draining(route) => self.router.start_closing(route),
            Word::ConnectionGone(route) => {
                self.trees.remove(&route);
                self.turns_mut().places.remove(&route);
                self.router.remove(now, route);
                self.take_router_output(&mut RouterOutput::default());
            }
            Word::TurnOver(service_id) => {
                self.router.end_turn(service_id);
                while let Some((route, index, tag)) = self.router.next_turn(service_id) {
                    self.grant_turn(route, index, tag);
                }
            }
        }
    }

    fn take_outputs(&mut self, now: Instant) {
        while let Some(output) = self.turns_mut().outputs.pop_front() {
            self.take_output(now, output);
        }
    }

    fn take_output(&mut self, now: Instant, mut output: Output) {
        let (Waker::Connection(route) | Waker::Channel(route, _)) = output.whose;
        if !output.datagrams.is_empty() || !output.peer.is_empty() {
            self.router.learn(now, route, &output.peer);
            self.send(now, route, &mut output.datagrams);
        }
        self.router.counters_mut().add(&output.tally);
        self.record(route, output.origin, output.events);
        if let (Waker::Channel(_, index), Some(holding)) = (output.whose, output.holding) {
            self.router.note_holding(now, route, index, holding);
            self.take_router_output(&mut RouterOutput::default());
        }
        if let (Waker::Channel(_, index), Some(word)) = (output.whose, output.turn)
            && let Some((tag, turn)) = self.router.handle_turn_word(route, index, word)
        {
            match turn {
                Turn::Now => self.grant_turn(route, index, tag),
                Turn::Waits => {}
                Turn::Refused(code) => {
                    let letter = Letter::Turn(tag, Err(code));
                    self.turns_mut().tell(Task::Channel(route, index), letter);
                }
            }
        }
        if let (Waker::Channel(_, index), Some(brief)) = (output.whose, output.brief)
            && self.config.debug_responder
        {
            self.router.set_brief(route, index, brief);
        }
        self.router.set_deadline(output.whose, output.deadline);
    }

    fn grant_turn(&mut self, route: RouteId, index: ChannelIndex, tag: CallTag) {
        self.turns_mut().tell(Task::Channel(route, index), Letter::Turn(tag, Ok(())));
    }

    fn take_router_output(&mut self, out: &mut RouterOutput) {
        self.note_answers(out);
        while let Some((route, index)) = self.router.next_relieved() {
            self.turns_mut().tell(Task::Channel(route, index), Letter::MoreRoom);
        }
    }

    fn route_datagram(&mut self, now: Instant, from: SocketAddr, data: &Bytes) {
        let stride = data.len().max(1);
        let mut out = RouterOutput::default();
        self.router.begin_batch(now, from, data.len(), stride);
        let (mut at, mut runs) = (0, Vec::new());
        while let Some(step) = self.router.next_step(now, from, data, stride, &mut at, &mut out) {
            match step {
                Step::Run { route, channel, at } => {
                    let run = Run { data: data.slice(at), stride };
                    runs.push((route, channel, run, self.router.hint(route)));
                }
                Step::Control { route, at } => {
                    let letter = Letter::Control(data.slice(at));
                    self.turns_mut().tell(Task::Connection(route), letter);
                }
                Step::Open(opening) => {
                    self.open(now, *opening);
                    while let Some(oldest) = self.router.excess(now) {
                        self.ask_to_close(oldest);
                        self.router.start_closing(oldest);
                    }
                }
                Step::Stray { .. } => unreachable!("this endpoint is not divided"),
            }
        }
        self.take_router_output(&mut out);
        for (route, channel, run, hint) in runs {
            self.turns_mut().tell(Task::Channel(route, channel), Letter::Packets(run, hint));
        }
    }

    fn tell_unreachable(&mut self, peer: SocketAddr, problem: NetworkProblem) {
        for route in self.router.handle_network_problem(peer, problem) {
            for index in ChannelIndex::ALL {
                let letter = Letter::Unreachable(problem);
                self.turns_mut().tell(Task::Channel(route, index), letter);
            }
        }
        self.take_router_output(&mut RouterOutput::default());
    }

    pub(super) fn verification_turn(&mut self, route: RouteId) {
        let turns = self.turns_mut();
        let Some(at) = turns.verifications.iter().position(|(its, _)| *its == route) else {
            return;
        };
        if let Some((_, future)) = turns.verifications.remove(at) {
            let result = futures::executor::block_on(future);
            self.turns_mut().tell(Task::Connection(route), Letter::Verified(result));
        }
    }
}
