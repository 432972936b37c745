//! A bench with a bare core: the endpoint, its application and its peer in one loop.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::bench::{App, Bench, bench_addr, identity, peer_addr, verdict};
use super::player::{Move, Player};
use super::steps::{Act, Step, Told};
use crate::proto::channel::{Command, Notice, Start};
use crate::proto::router::{Offer, RouteId};
use crate::security::RxNull;
use crate::testkit::world::{Arrival, World};
use crate::testkit::{CallRef, InlineEndpoint};
use crate::wire::{AbortCode, ServiceId};

const SERVICE: ServiceId = ServiceId(1);

struct Bare {
    world: World,
    life: u32,
    endpoint: InlineEndpoint,
    app: Option<App>,
    route: Option<RouteId>,
    calls: Vec<(CallRef, Vec<u8>)>,
    /// Calls whose requests wait for the script's answer.
    waiting: VecDeque<CallRef>,
    aborted: Option<CallRef>,
    player: Player,
}

/// What came of it, and the ladder.
pub(super) fn play_bare(
    bench: &Bench,
    seed: u64,
    steps: Vec<Step>,
) -> (Result<(), String>, String) {
    let world = World::new(seed, true);
    world.set_default_link(bench.link);
    world.exempt(peer_addr());
    let peer_life = world.place(peer_addr());
    let life = world.place(bench_addr());
    let mut endpoint = InlineEndpoint::new(bench.config.clone(), identity(), world.instant());
    let offer = Offer {
        classes: vec![std::sync::Arc::new(RxNull)],
        needs_reach: bench.needs_reach,
        upgrades_to: None,
    };
    let mut route = None;
    if bench.app.is_some() {
        endpoint.offer(SERVICE, offer);
    } else {
        route = Some(endpoint.connect(world.instant(), peer_addr(), SERVICE, &RxNull, false));
    }
    let mut player = Player::new(bench.app.is_some());
    player.add(Duration::ZERO, steps);
    let mut bare = Bare {
        world: world.clone(),
        life,
        endpoint,
        app: bench.app,
        route,
        calls: Vec::new(),
        waiting: VecDeque::new(),
        aborted: None,
        player,
    };
    let result = bare.play(peer_life).and_then(|()| verdict(&world));
    (result, world.ladder(usize::MAX))
}

impl Bare {
    fn play(&mut self, peer_life: u32) -> Result<(), String> {
        loop {
            self.settle();
            match self.player.step(self.world.now()) {
                Move::Done => return Ok(()),
                Move::Failed(why) => return Err(why),
                Move::Send(datagram) => {
                    self.world.send(peer_addr(), peer_life, bench_addr(), datagram, false);
                }
                Move::Act(act) => self.act(act)?,
                Move::WaitUntil(at) => {
                    let start = self.world.instant() - self.world.now();
                    let timer = self.endpoint.next_deadline();
                    // As the actors' clock, which has no smaller steps.
                    let timer = timer.map(|at| {
                        let time = at.saturating_duration_since(start);
                        Duration::from_millis(time.as_nanos().div_ceil(1_000_000) as u64)
                    });
                    let next = [self.world.next_arrival(), timer, Some(at)];
                    self.world.set_time(next.into_iter().flatten().min().unwrap_or(at));
                }
            }
        }
    }

    /// All that is due by now happens.
    fn settle(&mut self) {
        loop {
            let now = self.world.instant();
            if self.endpoint.next_deadline().is_some_and(|at| at <= now) {
                self.endpoint.advance(now);
                self.pump();
                continue;
            }
            match self.world.take_arrival() {
                None => return,
                Some(Arrival::Datagram { from, to, datagram }) if to == bench_addr() => {
                    let len = datagram.len().max(1);
                    self.endpoint.receive_batch(now, from, datagram, len);
                    self.pump();
                }
                Some(Arrival::Datagram { datagram, .. }) => {
                    self.player.receive(self.world.now(), datagram);
                }
                Some(Arrival::Unreachable { .. }) => {}
            }
        }
    }

    fn act(&mut self, act: Act) -> Result<(), String> {
        let now = self.world.instant();
        match act {
            Act::Call(request) => {
                let route = self.route.ok_or("a server's application makes no calls")?;
                let start = Start { request: request.into(), is_whole: true, ..Start::default() };
                self.endpoint.start(now, route, start);
            }
            Act::Reply(bytes) => {
                let call = self.waiting.pop_front().ok_or("no call waits for a reply")?;
                let bytes = Bytes::from(bytes);
                self.endpoint.command(
                    now,
                    call,
                    Command::Write { bytes, ends: true, flushes: false },
                );
            }
            Act::Abort(code) => {
                let call = self.waiting.pop_front().ok_or("no call waits for an abort")?;
                self.aborted = Some(call);
                self.endpoint.command(now, call, Command::Abort(AbortCode(code)));
            }
        }
        self.pump();
        Ok(())
    }

    fn pump(&mut self) {
        loop {
            for sent in self.endpoint.take_sent_datagrams() {
                let datagram = sent.datagram.into();
                self.world.send(bench_addr(), self.life, sent.to, datagram, sent.may_fragment);
            }
            let refused = self.endpoint.take_refused();
            refused.iter().for_each(|_| self.tell(Told::Failed));
            let notices = self.endpoint.take_notices();
            if notices.is_empty() {
                return;
            }
            for (call, notice) in notices {
                self.take(call, notice);
            }
        }
    }

    fn take(&mut self, call: CallRef, notice: Notice) {
        let now = self.world.instant();
        let known = self.calls.iter_mut().position(|(at, _)| *at == call).unwrap_or_else(|| {
            self.calls.push((call, Vec::new()));
            self.calls.len() - 1
        });
        match notice {
            Notice::Data(pieces) => {
                pieces.iter().for_each(|piece| self.calls[known].1.extend_from_slice(piece));
                let bytes = pieces.iter().map(Bytes::len).sum();
                let packets = pieces.len() as u32;
                self.endpoint.command(now, call, Command::Consumed { packets, bytes });
            }
            Notice::End => {
                let bytes = std::mem::take(&mut self.calls[known].1);
                self.tell_end(call, bytes);
            }
            // Its own deed is no news to the application.
            Notice::Failed(_) if self.aborted == Some(call) => {}
            Notice::Failed(_) => {
                self.waiting.retain(|at| *at != call);
                self.tell(Told::Failed);
                self.endpoint.command(now, call, Command::End);
            }
            Notice::Acknowledged(wholly) => self.tell(Told::Acknowledged(wholly)),
            Notice::Credit(_) | Notice::Incoming(_) | Notice::Started(_) => {}
        }
    }

    fn tell_end(&mut self, call: CallRef, bytes: Vec<u8>) {
        let now = self.world.instant();
        let reply = match self.app {
            None => {
                self.tell(Told::Good(bytes));
                return self.endpoint.command(now, call, Command::End);
            }
            Some(App::Script) => {
                self.waiting.push_back(call);
                return self.tell(Told::Asked(bytes));
            }
            Some(App::Reply(len)) => vec![0x55; len],
            Some(App::Echo) => bytes.clone(),
        };
        self.tell(Told::Asked(bytes));
        let bytes = Bytes::from(reply);
        self.endpoint.command(now, call, Command::Write { bytes, ends: true, flushes: false });
    }

    fn tell(&mut self, told: Told) {
        self.player.tell(self.world.now(), told);
    }
}
