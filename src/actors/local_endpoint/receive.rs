//! The receive loop: an `ActorFuture` of the LocalEndpoint, so no message for a datagram.
//!
//! Each turn: flush what the last round of handlers gave out, fire deadlines, read a bounded number of
//! batches, cut them into runs and hand each to its channel. Then yield, so that every other actor of the
//! arbiter runs before more is read: that keeps mailboxes short.
//!
//! Many channels with a packet each are handed over in shares, a turn for each. What the first share causes
//! has left before the last is begun, so that the peer works at the same time instead of after us.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix::fut::ActorFuture;
use actix::{Addr, Handler};
use bytes::Bytes;
use smallvec::smallvec;
use tokio::time::Sleep;

use super::shares::Shares;
use super::siblings::part;
use super::{LocalEndpoint, Packets, Unreachable, now};
use crate::actors::messages::{Control, PathSized, Strays, StraysTaken};
use crate::net::{Incoming, PathError};
use crate::proto::channel::Run;
use crate::proto::router::Step;
use crate::proto::{DropReason, NetworkProblem};

/// IP and UDP headers of a datagram: the network reports sizes with them.
const IPV4_UDP_HEADERS: u32 = 28;
const IPV6_UDP_HEADERS: u32 = 48;

/// Where a batch is from, and when it is handed over.
#[derive(Clone, Copy)]
struct Source {
    from: std::net::SocketAddr,
    /// Whether another shard has received, and counted, it.
    is_sibling: bool,
    now: Instant,
}

/// See the module.
pub(super) struct ReceiveLoop {
    own: Addr<LocalEndpoint>,
    /// Made when it is first needed: an actor whose System ends before it ran is started all the same, where
    /// there is no clock any more.
    sleep: Option<Pin<Box<Sleep>>>,
    unread: Unread,
    /// Whether the other shards come first this time, and the socket after them.
    strays_first: bool,
}

/// What was received and is not handed over yet.
#[derive(Default)]
struct Unread {
    batch: Vec<Incoming>,
    /// The first of `batch` that is not handed over, and how many of its bytes are.
    next: usize,
    at: usize,
    /// Steps of one turn.
    share: usize,
    /// Who handed it over, and what for, if another shard has received it.
    lender: Option<(usize, usize)>,
}

impl Unread {
    /// Takes what another shard has handed over, if there is any.
    fn take_strays(&mut self, strays: &mut VecDeque<Strays>) -> bool {
        let Some(strays) = strays.pop_front() else { return false };
        self.batch.extend(strays.incoming);
        self.lender = Some((strays.from, strays.bytes));
        true
    }

    /// Divides what has just been received, so many datagrams.
    fn divide(&mut self, shares: &Shares) -> usize {
        let datagrams = self.batch.iter().map(count).sum();
        self.share = shares.of(datagrams);
        datagrams
    }
}

fn count(incoming: &Incoming) -> usize {
    match incoming {
        Incoming::Datagrams { data, stride, .. } => data.len().div_ceil((*stride).max(1)).max(1),
        Incoming::PathError { .. } => 1,
    }
}

impl ReceiveLoop {
    pub fn new(own: Addr<LocalEndpoint>) -> ReceiveLoop {
        ReceiveLoop { own, sleep: None, unread: Unread::default(), strays_first: false }
    }
}

impl ActorFuture<LocalEndpoint> for ReceiveLoop {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        endpoint: &mut LocalEndpoint,
        context: &mut actix::Context<LocalEndpoint>,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        let this = &mut *self;
        endpoint.take_outputs(|| this.own.clone());
        // To be woken for more.
        while let Poll::Ready(Some(output)) = endpoint.outputs.poll_recv(task) {
            endpoint.take_output(now(), output, || this.own.clone());
        }
        endpoint.flush(task);
        let mut datagrams = 0;
        for _ in 0..endpoint.config.receives_per_turn {
            if !endpoint.take_share(&mut this.unread, &this.own) {
                break;
            }
            match this.receive(endpoint, task) {
                Poll::Ready(Ok(())) => {
                    datagrams += this.unread.divide(&endpoint.shares);
                    endpoint.moderate(&mut this.unread);
                    // Many small ones in few receives: timers that are due shall not wait for all of them.
                    if datagrams >= endpoint.config.datagrams_per_turn as usize {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => {
                    endpoint.fail(&error);
                    endpoint.end_if_finished(context);
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    endpoint.hand_over_strays();
                    endpoint.fire_due(now());
                    endpoint.flush(task);
                    return this.wait(endpoint, task);
                }
            }
        }
        endpoint.hand_over_strays();
        endpoint.fire_due(now());
        endpoint.flush(task);
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ReceiveLoop {
    /// What comes next, from the socket and the other shards in turn: neither waits for the other.
    fn receive(
        &mut self,
        endpoint: &mut LocalEndpoint,
        task: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.strays_first = !self.strays_first && !endpoint.strays.is_empty();
        if self.strays_first && self.unread.take_strays(&mut endpoint.strays) {
            return Poll::Ready(Ok(()));
        }
        match endpoint.network.poll_receive(task, &mut self.unread.batch) {
            Poll::Pending if self.unread.take_strays(&mut endpoint.strays) => Poll::Ready(Ok(())),
            received => received,
        }
    }

    /// Nothing to read: until something comes, or the next deadline.
    fn wait(&mut self, endpoint: &LocalEndpoint, task: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = endpoint.next_deadline() else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(deadline);
        let mut sleep =
            self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline))).as_mut();
        if sleep.deadline() != deadline || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        if sleep.poll(task).is_ready() {
            task.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Handler<Strays> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, strays: Strays, _: &mut actix::Context<LocalEndpoint>) {
        // The receive loop, which runs next, takes it by shares as it does what comes by the socket.
        self.strays.push_back(strays);
    }
}

impl Handler<StraysTaken> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, taken: StraysTaken, _: &mut actix::Context<LocalEndpoint>) {
        if let Some(siblings) = &mut self.siblings {
            siblings.note_taken(taken);
        }
    }
}

impl LocalEndpoint {
    fn flush(&mut self, task: &mut Context<'_>) {
        self.egress.flush(&mut *self.network, &mut self.router);
        if self.egress.is_blocked() && self.network.poll_send_ready(task).is_ready() {
            self.egress.flush(&mut *self.network, &mut self.router);
            if self.egress.is_blocked() {
                task.waker().wake_by_ref();
            }
        }
        for (to, problem) in self.egress.take_unreachable() {
            self.tell_unreachable(to, problem);
        }
    }

    /// Lets more gather before the next receive, if what has just been received is of that kind.
    fn moderate(&mut self, unread: &mut Unread) {
        let batches = unread.batch.iter().map(|incoming| match incoming {
            Incoming::Datagrams { data, stride, .. } => (&data[..], *stride),
            Incoming::PathError { .. } => (&[][..], 1),
        });
        if unread.lender.is_none()
            && let Some(time) = self.moderation.rest_after(batches, now)
        {
            if self.network.rest(time) {
                // The peer goes on sending by itself: nothing is gained by answering a part of it sooner.
                unread.share = usize::MAX;
            } else {
                self.moderation.refuse();
            }
        }
    }

    /// Hands over one share of what was received; whether nothing of it is left.
    fn take_share(&mut self, unread: &mut Unread, own: &Addr<LocalEndpoint>) -> bool {
        if unread.batch.is_empty() {
            return true;
        }
        let now = now();
        let mut left = unread.share;
        while left > 0
            && let Some(incoming) = unread.batch.get(unread.next)
        {
            match incoming {
                Incoming::Datagrams { from, data, stride } => {
                    let is_sibling = unread.lender.is_some();
                    let source = Source { from: *from, is_sibling, now };
                    self.route(source, data, *stride, &mut unread.at, &mut left, own);
                    if unread.at < data.len() {
                        break;
                    }
                }
                Incoming::PathError { to, error } => {
                    left -= 1;
                    self.hand_over();
                    self.path_error(*to, *error);
                    // The kernel gives it to the socket that the peer's answers would come to.
                    if unread.lender.is_none()
                        && let Some(siblings) = &mut self.siblings
                    {
                        siblings.take_for_all(incoming);
                    }
                }
            }
            unread.next += 1;
            unread.at = 0;
        }
        self.hand_over();
        if unread.next < unread.batch.len() {
            return false;
        }
        unread.batch.clear();
        unread.next = 0;
        if let Some((from, bytes)) = unread.lender.take()
            && let Some(siblings) = &mut self.siblings
        {
            siblings.acknowledge(from, bytes);
        }
        true
    }

    /// Cuts a batch into runs, from `at` on, for as many steps as are `left`.
    fn route(
        &mut self,
        source: Source,
        data: &Bytes,
        stride: usize,
        at: &mut usize,
        left: &mut usize,
        own: &Addr<LocalEndpoint>,
    ) {
        let Source { from, is_sibling, now } = source;
        if *at == 0 {
            if is_sibling {
                self.router.begin_forwarded();
            } else {
                self.router.begin_batch(now, from, data.len(), stride);
            }
        }
        while *left > 0
            && let Some(step) =
                self.router.next_step(now, from, data, stride, at, &mut self.router_out)
        {
            *left -= 1;
            match step {
                Step::Run { route, channel, at } => {
                    self.shares.note((route, channel));
                    let run = Run { data: data.slice(at), stride };
                    match &mut self.gathered {
                        Some((to, packets)) if *to == (route, channel) => packets.runs.push(run),
                        _ => {
                            self.hand_over();
                            let hint = self.router.hint(route);
                            let packets = Packets { at: now, runs: smallvec![run], hint };
                            self.gathered = Some(((route, channel), packets));
                        }
                    }
                }
                Step::Control { route, at } => {
                    self.hand_over();
                    if let Some(target) = self.router.target(route) {
                        target.connection.do_send(Control { datagram: data.slice(at) });
                    }
                }
                Step::Open(opening) => {
                    self.hand_over();
                    self.open_server(*opening, own);
                }
                Step::Stray { shard, at } => {
                    self.take_strays(
                        shard,
                        Incoming::Datagrams { from, data: part(data, at), stride },
                    );
                }
            }
        }
        self.take_router_output();
    }

    /// Gathers what another shard owns.
    fn take_strays(&mut self, shard: usize, incoming: Incoming) {
        let datagrams = count(&incoming);
        let siblings = self.siblings.as_mut();
        if siblings.is_some_and(|siblings| siblings.take(shard, incoming)) {
            self.router.counters_mut().strays += datagrams as u64;
        } else {
            self.router.drop_datagrams(datagrams, DropReason::StrayOverflow);
        }
    }

    fn hand_over_strays(&mut self) {
        if let Some(siblings) = &mut self.siblings {
            siblings.hand_over();
        }
    }

    /// Sends the runs that were gathered for one channel: one message for all that was received together.
    fn hand_over(&mut self) {
        let Some(((route, channel), packets)) = self.gathered.take() else { return };
        if let Some(target) = self.router.target(route) {
            target.channels[channel.index()].do_send(packets);
        }
    }

    fn path_error(&mut self, to: std::net::SocketAddr, error: PathError) {
        let problem = match error {
            PathError::PortUnreachable => NetworkProblem::PortUnreachable,
            PathError::HostUnreachable => NetworkProblem::HostUnreachable,
            PathError::NetUnreachable => NetworkProblem::NetUnreachable,
            PathError::Prohibited => NetworkProblem::Prohibited,
            PathError::TooBig { mtu } => {
                let headers = if to.is_ipv4() { IPV4_UDP_HEADERS } else { IPV6_UDP_HEADERS };
                return self.tell_path_size(to, mtu.saturating_sub(headers) as usize);
            }
            _ => return,
        };
        self.tell_unreachable(to, problem);
    }

    fn tell_path_size(&mut self, to: std::net::SocketAddr, datagram_max: usize) {
        if let Some((path, routes)) = self.router.handle_path_size(now(), to, datagram_max) {
            for target in routes.into_iter().filter_map(|route| self.router.target(route)) {
                for channel in &target.channels {
                    channel.do_send(PathSized { path });
                }
            }
        }
        self.take_router_output();
    }

    fn tell_unreachable(&mut self, to: std::net::SocketAddr, problem: NetworkProblem) {
        for route in self.router.handle_network_problem(to, problem) {
            if let Some(target) = self.router.target(route) {
                for channel in &target.channels {
                    channel.do_send(Unreachable { problem });
                }
            }
        }
        self.take_router_output();
    }
}
