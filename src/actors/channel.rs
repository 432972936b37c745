//! The Channel actor: one strictly ordered queue around [`crate::proto::channel::Channel`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, ActorContext, Handler};

use super::connection::Connection;
use super::context::Context;
use super::lifetime::{ArcAddr, Child, ChildGone, Lease};
use super::local_endpoint::Outbox;
use super::marks::{Mark, Watch, dawdle};
use super::messages::{
    AskIdle, Begin, CallCommand, CallKey, CancelBegun, CancelCall, ChannelSays, Close,
    ConnectionSays, Drain, Due, IdleSince, Inspect, MoreRoom, Packets, PathSized, RunningCall,
    StartCall, Turn, Unreachable,
};
use super::snapshot::{ChannelSnapshot, SnapshotPart};
use super::step::{StepOutput, spare_output};
use crate::client::port::ClientPort;
use crate::proto::channel::{self, ChannelMemory, Command, Notice};
use crate::proto::connection::ConnectionToChannel;
use crate::proto::event::{CallTally, Origin};
use crate::proto::router::{ChannelBrief, Published, RouteId, Waker};
use crate::proto::{CallTag, ConnectionFailure};
use crate::server::port::ServerPort;
use crate::server::{CallInfo, IncomingCall, Service};
use crate::stream::Begun;
use crate::wire::ChannelIndex;

/// What answers the calls of a server's channel.
#[derive(Clone)]
pub(crate) struct Answering {
    pub service: Arc<dyn Service>,
    pub peer: std::net::SocketAddr,
}

/// Where the application of the present call is.
enum Port {
    Client(CallKey, ClientPort),
    Server(ServerPort),
}

/// See the module.
pub struct Channel {
    core: channel::Channel,
    out: StepOutput,
    route: RouteId,
    index: ChannelIndex,
    origin: Origin,
    outbox: Outbox,
    answering: Option<Arc<Answering>>,
    port: Option<(CallTag, Port)>,
    /// The place of the call that starts now, where its service runs only so many at once.
    running: Option<RunningCall>,
    published: Published,
    draining: bool,
    mark: Mark,
    watch: Watch,
    /// Our own address, for the user's ends of calls.
    own: ArcAddr<Channel>,
    /// Whether somebody subscribes to events; without, calls are only counted.
    wants_events: bool,
    /// What no message has told the endpoint yet: it goes with the next one.
    tally: CallTally,
    lease: Lease<Connection, Channel>,
}

impl Child for Channel {
    type Key = ChannelIndex;
    type Report = ChannelMemory;
}

/// What a Channel is built with.
pub(crate) struct ChannelParts {
    pub core: channel::Channel,
    pub route: RouteId,
    pub index: ChannelIndex,
    pub origin: Origin,
    pub outbox: Outbox,
    pub answering: Option<Arc<Answering>>,
    pub own: ArcAddr<Channel>,
    pub mark: Mark,
    pub wants_events: bool,
    pub lease: Lease<Connection, Channel>,
}

impl Channel {
    pub(crate) fn new(parts: ChannelParts) -> Channel {
        let is_client = parts.answering.is_none();
        let watch = Watch::new(is_client, parts.origin.epoch, parts.origin.cid);
        watch.note(&parts.core);
        Channel {
            core: parts.core,
            out: StepOutput::default(),
            route: parts.route,
            index: parts.index,
            origin: parts.origin,
            outbox: parts.outbox,
            answering: parts.answering,
            port: None,
            running: None,
            published: Published::default(),
            draining: false,
            mark: parts.mark,
            watch,
            own: parts.own,
            wants_events: parts.wants_events,
            tally: CallTally::default(),
            lease: parts.lease,
        }
    }

    /// The ending of every handler: words to the connection, notices to the application, one message to
    /// the endpoint with the datagrams, the events and the deadline.
    fn conclude(&mut self, mut now: Instant, context: &mut Context<Channel>) {
        // First: a channel that breaks while it tells an application must not forget the call it has begun.
        self.lease.set_report(self.core.memory());
        loop {
            for word in self.out.get().connection.drain(..) {
                let index = self.index;
                self.lease.parent().do_send(ChannelSays { index, word });
            }
            if self.out.get().notices.is_empty() {
                break;
            }
            let step = self.out.step();
            let spare = std::mem::take(&mut step.spare_notices);
            let mut notices = std::mem::replace(&mut step.out.notices, spare);
            let mut each = notices.drain(..).peekable();
            while let Some((tag, notice)) = each.next() {
                let Notice::Incoming(incoming) = notice else {
                    self.deliver(now, tag, notice);
                    continue;
                };
                let mut begun = Begun::default();
                while let Some((_, notice)) =
                    each.next_if(|(its, notice)| *its == tag && Begun::takes(notice))
                {
                    begun.take(notice);
                }
                now = self.serve(now, tag, incoming, begun);
            }
            drop(each);
            self.out.step().spare_notices = notices;
        }
        self.lease.set_report(self.core.memory());
        self.watch.note(&self.core);
        self.publish();
        self.out.conclude();
        if self.draining && self.core.state().is_none() {
            self.lease.parent().do_send(IdleSince { index: self.index, since: Some(now) });
        }
        dawdle::<Channel>(context);
    }

    fn publish(&mut self) {
        let deadline = self.core.next_deadline();
        let out = self.out.get();
        let deadline = self.published.news(deadline, !out.datagrams.is_empty());
        if !self.wants_events {
            let tally = &mut self.tally;
            out.events.retain(|event| !tally.absorb(event));
        }
        self.tally.duplicates += std::mem::take(&mut out.duplicates);
        if deadline.is_none()
            && out.datagrams.is_empty()
            && out.events.is_empty()
            && out.peer.is_empty()
            && out.holding.is_none()
            && out.turn.is_none()
        {
            return;
        }
        let whose = Waker::Channel(self.route, self.index);
        let mut output = spare_output(whose, self.origin);
        self.out.take_datagrams(&mut output.datagrams);
        let out = self.out.get();
        output.events.append(&mut out.events);
        output.tally = std::mem::take(&mut self.tally);
        if !out.peer.is_empty() {
            output.peer = Some(std::mem::take(&mut out.peer));
        }
        output.holding = out.holding.take();
        output.turn = out.turn.take();
        output.deadline = deadline;
        output.brief = Some(ChannelBrief {
            number: self.core.call_number(),
            state: self.core.state(),
            serial: self.core.last_serial(),
            sealed: self.core.sealed_traffic(),
        });
        // An endpoint that is gone wants nothing more.
        let _ = self.outbox.send(output);
    }

    fn deliver(&mut self, now: Instant, tag: CallTag, notice: Notice) {
        let is_over = matches!(notice, Notice::Failed(_) | Notice::Acknowledged(_));
        let command = match &mut self.port {
            Some((held, Port::Client(_, port))) if *held == tag => port.notify(notice),
            Some((held, Port::Server(port))) if *held == tag => port.notify(notice),
            _ => None,
        };
        if is_over {
            self.port = None;
        }
        if let Some(command) = command {
            let ends = matches!(command, Command::End | Command::Abort(_));
            self.core.handle_command(now, tag, command, self.out.get());
            if ends && let Some((_, Port::Client(_, port))) = self.port.take() {
                // The connection learns that the channel is free before the user can ask for another call.
                for word in self.out.get().connection.drain(..) {
                    let index = self.index;
                    self.lease.parent().do_send(ChannelSays { index, word });
                }
                port.finish();
            }
        }
    }

    /// Hands a call to its service, and its answer to the core if that is there at once. Returns the time after that.
    fn serve(
        &mut self,
        now: Instant,
        tag: CallTag,
        incoming: channel::Incoming,
        begun: Begun,
    ) -> Instant {
        let own = self.own.clone();
        let Some(answering) = &self.answering else { return now };
        let info = CallInfo {
            peer: answering.peer,
            service_id: incoming.service_id,
            call_number: incoming.number,
            user_status: incoming.user_status,
            identity: self.core.identity().cloned(),
        };
        let running = self.running.take();
        let listens = answering.service.listens();
        let (port, call) =
            IncomingCall::new(info, tag, incoming.credit, own, running, begun, listens);
        self.port = Some((tag, Port::Server(port)));
        let service = answering.service.clone();
        // A service is not ours: it may break its call, but not the channel. The call is dropped by then.
        match catch_unwind(AssertUnwindSafe(|| service.serve_now(call))) {
            Ok(None) => now,
            Ok(Some(answered)) => {
                // It may have computed for long.
                let now = super::local_endpoint::now();
                self.core.handle_command(now, tag, answered.into_command(), self.out.get());
                now
            }
            Err(_) => {
                log::error!("a service broke as it began its call {}", incoming.number);
                now
            }
        }
    }
}

impl Actor for Channel {
    type Context = Context<Channel>;

    fn started(&mut self, _: &mut Context<Channel>) {
        self.mark.started();
    }
}

impl Drop for Channel {
    /// However it ends: what it has counted is told before its lease ends, so that the last totals are whole.
    fn drop(&mut self) {
        if self.tally != CallTally::default() {
            let mut output = spare_output(Waker::Channel(self.route, self.index), self.origin);
            output.tally = std::mem::take(&mut self.tally);
            // An endpoint that is gone counts no more.
            let _ = self.outbox.send(output);
        }
    }
}

impl Handler<Packets> for Channel {
    type Result = ();

    fn handle(&mut self, packets: Packets, context: &mut Context<Channel>) {
        let now = packets.at;
        self.core.handle_runs(now, &packets.hint, &packets.runs, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<CallCommand> for Channel {
    type Result = ();

    fn handle(&mut self, message: CallCommand, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.core.handle_command(now, message.tag, message.command, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<Begin> for Channel {
    type Result = ();

    fn handle(&mut self, begin: Begin, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        let port = begin.port;
        let is_free = self.core.state().is_none() && self.port_is_free();
        if !is_free || port.is_canceled() {
            // Nothing was sent and no number is used; the channel is free again.
            let last = self.core.memory().last;
            let word = channel::ChannelToConnection::CallOver { last, avoid: false };
            self.lease.parent().do_send(ChannelSays { index: self.index, word });
            return self.conclude(now, context);
        }
        self.begin(begin.key, port);
        self.core.handle_start(now, begin.start, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<StartCall> for Channel {
    type Result = ();

    fn handle(&mut self, message: StartCall, context: &mut Context<Channel>) {
        if message.port.is_canceled() {
            return;
        }
        if self.draining || !self.core.may_begin() {
            return self.lease.parent().do_send(message);
        }
        let now = super::local_endpoint::now();
        let StartCall { key, start, mut port, .. } = message;
        port.taken();
        self.begin(key, port);
        self.core.handle_start_by_leave(now, start, self.out.get());
        self.conclude(now, context);
    }
}

impl Channel {
    /// Users may send their calls here.
    pub(crate) fn take_leave(&mut self) {
        self.core.take_leave();
    }

    /// The next call of the core has this port.
    fn begin(&mut self, key: CallKey, mut port: ClientPort) {
        let tag = CallTag(self.core.tag().0.wrapping_add(1));
        if port.wants_link() {
            port.opened(self.own.clone(), tag);
        }
        self.port = Some((tag, Port::Client(key, port)));
    }

    fn port_is_free(&self) -> bool {
        self.port.is_none() || self.core.state().is_none()
    }

    /// Ends the call with this key, if it is here.
    fn cancel(&mut self, key: CallKey, context: &mut Context<Channel>) -> bool {
        let Some((tag, Port::Client(its, _))) = &self.port else { return false };
        if *its != key {
            return false;
        }
        let (now, tag) = (super::local_endpoint::now(), *tag);
        self.port = None;
        self.core.handle_command(now, tag, Command::End, self.out.get());
        self.conclude(now, context);
        true
    }
}

impl Handler<CancelCall> for Channel {
    type Result = ();

    fn handle(&mut self, message: CancelCall, context: &mut Context<Channel>) {
        if !self.cancel(message.key, context) {
            // It was handed on, and so is this.
            self.lease.parent().do_send(message);
        }
    }
}

impl Handler<CancelBegun> for Channel {
    type Result = ();

    fn handle(&mut self, message: CancelBegun, context: &mut Context<Channel>) {
        self.cancel(message.key, context);
    }
}

impl Handler<ConnectionSays> for Channel {
    type Result = ();

    fn handle(&mut self, message: ConnectionSays, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.core.handle_connection(now, message.word, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<Due> for Channel {
    type Result = ();

    fn handle(&mut self, _: Due, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.published.fired();
        self.core.handle_deadline(now, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<Unreachable> for Channel {
    type Result = ();

    fn handle(&mut self, message: Unreachable, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.core.handle_network_problem(now, message.problem, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<MoreRoom> for Channel {
    type Result = ();

    fn handle(&mut self, _: MoreRoom, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.core.handle_room(now, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<PathSized> for Channel {
    type Result = ();

    fn handle(&mut self, message: PathSized, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.core.handle_path_size(now, &message.path, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<Turn> for Channel {
    type Result = ();

    fn handle(&mut self, message: Turn, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        let turn = match message.turn {
            Ok(running) => {
                self.running = Some(running);
                Ok(())
            }
            Err(code) => Err(code),
        };
        self.core.handle_turn(now, message.tag, turn, self.out.get());
        self.conclude(now, context);
        // A call that is over by now takes no place.
        self.running = None;
    }
}

impl Handler<AskIdle> for Channel {
    type Result = ();

    fn handle(&mut self, _: AskIdle, _: &mut Context<Channel>) {
        let since = self.core.idle_since();
        self.lease.parent().do_send(IdleSince { index: self.index, since });
    }
}

impl Handler<Drain> for Channel {
    type Result = ();

    fn handle(&mut self, _: Drain, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.draining = true;
        self.core.handle_connection(now, ConnectionToChannel::Drain, self.out.get());
        self.conclude(now, context);
    }
}

impl Handler<Close> for Channel {
    type Result = ();

    fn handle(&mut self, _: Close, context: &mut Context<Channel>) {
        let now = super::local_endpoint::now();
        self.draining = false;
        let word = ConnectionToChannel::Failed(ConnectionFailure::Closed);
        self.core.handle_connection(now, word, self.out.get());
        self.conclude(now, context);
        context.stop();
    }
}

impl Handler<Inspect> for Channel {
    type Result = ();

    fn handle(&mut self, message: Inspect, _: &mut Context<Channel>) {
        // A receiver that went away does not want to know.
        let _ = message.to.unbounded_send(SnapshotPart::Channel(
            self.route,
            ChannelSnapshot {
                index: self.index,
                call_number: self.core.call_number(),
                state: self.core.state(),
                buffered_bytes: self.core.buffered_bytes(),
                in_flight_packets: self.core.in_flight_packets(),
            },
            self.tally,
        ));
    }
}

#[cfg(feature = "testkit")]
impl Handler<super::messages::Break> for Channel {
    type Result = ();

    fn handle(&mut self, _: super::messages::Break, _: &mut Context<Channel>) {
        panic!("a test broke this channel");
    }
}

/// So that the connection's module can name it.
pub(crate) type ChannelGone = ChildGone<Channel>;
