//! What connections and channels run in: actix's mailbox and nothing that they have no use for.
//!
//! [`actix::Context`] keeps room for futures that wait and run beside an actor's messages, 300 bytes of it in each
//! actor. A connection is five actors, which spawn nothing and mostly rest: for them that was a quarter of all
//! memory. This one has the same order and the same ends: messages one at a time in the order in which they were
//! sent; after a `stop` none; an actor that nobody can reach any more stops.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use actix::dev::channel::{AddressReceiver, channel};
use actix::dev::{Envelope, EnvelopeProxy, OneshotSender, ToEnvelope};
use actix::fut::ActorFuture;
use actix::{
    Actor, ActorContext, ActorState, Addr, AsyncContext, Handler, Message, Running, SpawnHandle,
};
use futures::Stream;

/// As actix has it. It binds only who sends by other ways than `do_send`.
const MAILBOX_CAPACITY: usize = 16;

type BoxFuture<A> = Pin<Box<dyn ActorFuture<A, Output = ()>>>;

/// See the module.
pub struct Context<A: Actor<Context = Context<A>>> {
    mailbox: AddressReceiver<A>,
    futures: Option<Box<Futures<A>>>,
    state: ActorState,
}

/// What runs beside the messages; there once something does.
struct Futures<A: Actor<Context = Context<A>>> {
    /// While there is one, no message is handled. The last goes first.
    waits: Vec<BoxFuture<A>>,
    /// `None` while it is polled.
    spawned: Vec<(SpawnHandle, Option<BoxFuture<A>>)>,
    last: SpawnHandle,
}

impl<A: Actor<Context = Context<A>>> Default for Futures<A> {
    fn default() -> Self {
        Futures { waits: Vec::new(), spawned: Vec::new(), last: SpawnHandle::default() }
    }
}

impl<A: Actor<Context = Context<A>>> std::fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<A: Actor<Context = Context<A>>> Context<A> {
    /// A context whose actor is still to come: it has an address already.
    pub fn new() -> Context<A> {
        let (_, mailbox) = channel(MAILBOX_CAPACITY);
        Context { mailbox, futures: None, state: ActorState::Started }
    }

    /// Starts the actor on the current arbiter.
    pub fn run(self, actor: A) {
        actix_rt::spawn(Run { actor, context: self });
    }

    fn is_stopping(&self) -> bool {
        self.state.stopping()
    }

    fn is_waiting(&self) -> bool {
        self.futures.as_ref().is_some_and(|futures| !futures.waits.is_empty())
    }
}

impl<A: Actor<Context = Context<A>>> Default for Context<A> {
    fn default() -> Self {
        Context::new()
    }
}

impl<A: Actor<Context = Context<A>>> ActorContext for Context<A> {
    fn stop(&mut self) {
        if !self.is_stopping() {
            self.state = ActorState::Stopping;
        }
    }

    fn terminate(&mut self) {
        self.state = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.state
    }
}

impl<A: Actor<Context = Context<A>>> AsyncContext<A> for Context<A> {
    fn address(&self) -> Addr<A> {
        Addr::new(self.mailbox.sender())
    }

    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        let futures = self.futures.get_or_insert_default();
        futures.last = futures.last.next();
        futures.spawned.push((futures.last, Some(Box::pin(future))));
        futures.last
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.futures.get_or_insert_default().waits.push(Box::pin(future));
    }

    fn waiting(&self) -> bool {
        self.is_waiting() || self.is_stopping()
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        let Some(futures) = &mut self.futures else { return false };
        let before = futures.spawned.len();
        futures.spawned.retain(|(its, _)| *its != handle);
        futures.spawned.len() < before
    }
}

impl<A, M> ToEnvelope<A, M> for Context<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(message: M, reply: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        Envelope::new(message, reply)
    }
}

/// An actor and its context: one task.
struct Run<A: Actor<Context = Context<A>>> {
    actor: A,
    context: Context<A>,
}

impl<A: Actor<Context = Context<A>>> Run<A> {
    /// What the actor waits for, the last first; `Ready` = there is nothing more, or it stops.
    fn poll_waits(&mut self, task: &mut task::Context<'_>) -> Poll<()> {
        while !self.context.is_stopping()
            && let Some(mut wait) = self.context.futures.as_mut().and_then(|it| it.waits.pop())
        {
            let had = self.context.futures.as_ref().map_or(0, |it| it.waits.len());
            if wait.as_mut().poll(&mut self.actor, &mut self.context, task).is_pending() {
                // Below what it has put there itself, which has to be polled too.
                let waits = &mut self.context.futures.get_or_insert_default().waits;
                let is_last = waits.len() == had;
                waits.insert(had, wait);
                if is_last {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    fn take_messages(&mut self, task: &mut task::Context<'_>) {
        while !self.context.waiting() {
            match Pin::new(&mut self.context.mailbox).poll_next(task) {
                Poll::Ready(Some(mut envelope)) => {
                    envelope.handle(&mut self.actor, &mut self.context);
                }
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn poll_spawned(&mut self, task: &mut task::Context<'_>) {
        let mut at = 0;
        while !self.context.waiting()
            && let Some((handle, place)) =
                self.context.futures.as_mut().and_then(|it| it.spawned.get_mut(at))
        {
            let (handle, future) = (*handle, place.take());
            let is_pending = future.map(|mut future| {
                let poll = future.as_mut().poll(&mut self.actor, &mut self.context, task);
                poll.is_pending().then_some(future)
            });
            let spawned = &mut self.context.futures.get_or_insert_default().spawned;
            // It may have been cancelled meanwhile, or others before it.
            let Some(now_at) = spawned.iter().position(|(its, _)| *its == handle) else { continue };
            match is_pending.flatten() {
                Some(future) => {
                    spawned[now_at].1 = Some(future);
                    at = now_at + 1;
                }
                None => {
                    spawned.remove(now_at);
                    at = now_at;
                }
            }
        }
    }

    fn is_reachable(&self) -> bool {
        let has_work = |it: &Futures<A>| !it.waits.is_empty() || !it.spawned.is_empty();
        self.context.mailbox.connected() || self.context.futures.as_deref().is_some_and(has_work)
    }
}

impl<A: Actor<Context = Context<A>>> Future for Run<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.context.state == ActorState::Started {
            this.context.state = ActorState::Running;
            this.actor.started(&mut this.context);
        }
        loop {
            if this.poll_waits(task).is_pending() {
                return Poll::Pending;
            }
            this.take_messages(task);
            this.poll_spawned(task);
            if this.context.is_waiting() && !this.context.is_stopping() {
                continue;
            }
            if !this.context.is_stopping() && this.is_reachable() {
                return Poll::Pending;
            }
            let is_terminated = this.context.state == ActorState::Stopped;
            this.context.state = ActorState::Stopping;
            if is_terminated || this.actor.stopping(&mut this.context) == Running::Stop {
                this.context.state = ActorState::Stopped;
                this.actor.stopped(&mut this.context);
                return Poll::Ready(());
            }
            this.context.state = ActorState::Running;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use actix::fut::wrap_future;

    use super::*;

    type Log = Rc<RefCell<Vec<&'static str>>>;

    struct Scribe(Log);

    impl Scribe {
        fn note(&self, what: &'static str) {
            self.0.borrow_mut().push(what);
        }
    }

    impl Actor for Scribe {
        type Context = Context<Scribe>;

        fn started(&mut self, _: &mut Context<Scribe>) {
            self.note("started");
        }

        fn stopped(&mut self, _: &mut Context<Scribe>) {
            self.note("stopped");
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    enum Do {
        Note(&'static str),
        /// Waits until something else has run, and says so.
        Wait,
        Spawn,
        SpawnAndCancel,
        Stop,
    }

    impl Handler<Do> for Scribe {
        type Result = ();

        fn handle(&mut self, message: Do, context: &mut Context<Scribe>) {
            let yielding = async || tokio::task::yield_now().await;
            let log = self.0.clone();
            match message {
                Do::Note(what) => self.note(what),
                Do::Wait => context.wait(wrap_future(async move {
                    yielding().await;
                    log.borrow_mut().push("waited");
                })),
                Do::Spawn | Do::SpawnAndCancel => {
                    let handle = context.spawn(wrap_future(async move {
                        yielding().await;
                        log.borrow_mut().push("spawned");
                    }));
                    if matches!(message, Do::SpawnAndCancel) {
                        assert!(context.cancel_future(handle));
                    }
                }
                Do::Stop => context.stop(),
            }
        }
    }

    /// What an actor does that is sent these messages; then nobody has its address any more.
    fn what_happens(messages: Vec<Do>) -> Vec<&'static str> {
        let log = Log::default();
        actix_rt::System::new().block_on(async {
            let context = Context::new();
            let address = context.address();
            // The first before it runs.
            let mut messages = messages.into_iter();
            messages.next().into_iter().for_each(|message| address.do_send(message));
            context.run(Scribe(log.clone()));
            tokio::task::yield_now().await;
            messages.for_each(|message| address.do_send(message));
            drop(address);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        });
        log.take()
    }

    #[test]
    fn messages_are_handled_in_order_and_an_actor_that_nobody_reaches_stops() {
        let seen = what_happens(vec![Do::Note("a"), Do::Note("b"), Do::Note("c")]);
        assert_eq!(seen, ["started", "a", "b", "c", "stopped"]);
    }

    #[test]
    fn after_a_stop_nothing_is_handled() {
        let seen = what_happens(vec![Do::Note("a"), Do::Stop, Do::Note("b")]);
        assert_eq!(seen, ["started", "a", "stopped"]);
    }

    #[test]
    fn messages_wait_for_what_the_actor_waits_for() {
        let seen = what_happens(vec![Do::Note("a"), Do::Wait, Do::Note("b")]);
        assert_eq!(seen, ["started", "a", "waited", "b", "stopped"]);
    }

    #[test]
    fn what_was_spawned_runs_beside_the_messages_and_is_waited_for() {
        let seen = what_happens(vec![Do::Spawn, Do::SpawnAndCancel, Do::Note("a")]);
        assert_eq!(seen, ["started", "a", "spawned", "stopped"]);
    }
}
