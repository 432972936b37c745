//! The actors as a test sees them: when each of them started and stopped, and channels that take their time.
//!
//! All of it is a matter of the thread that the actors run on. A thread that records nothing pays for one
//! look at a flag.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, AsyncContext};

/// What happened to an actor. Its parent is above it in the tree; an endpoint has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Names the actor, on this thread.
    pub actor: u64,
    /// Names its parent.
    pub parent: Option<u64>,
    /// What happened.
    pub what: What,
}

/// See [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It handles messages from now on.
    Started,
    /// It is dropped, and with it whatever it holds; an actor that never started is dropped too.
    Stopped,
    /// It is dropped by a panic.
    Broke,
}

thread_local! {
    static RECORD: RefCell<Option<Vec<Moment>>> = const { RefCell::new(None) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
    static DELAY: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Records from now on what happens to the actors of this thread.
pub fn record() {
    RECORD.set(Some(Vec::new()));
}

/// What was recorded; nothing more is.
pub fn take_record() -> Vec<Moment> {
    RECORD.take().unwrap_or_default()
}

/// Each channel of this thread rests for so long after each message that it has handled; `None` = it does
/// not. Messages wait meanwhile, in order.
pub fn slow_down_channels(delay: Option<Duration>) {
    DELAY.set(delay);
}

/// One actor's line in the record. Held by the actor, and dropped with it.
#[derive(Debug)]
pub(crate) struct Mark {
    actor: u64,
    parent: Option<u64>,
}

impl Mark {
    pub fn root() -> Mark {
        Mark::new(None)
    }

    pub fn child(&self) -> Mark {
        Mark::new(Some(self.actor))
    }

    pub fn started(&self) {
        self.note(What::Started);
    }

    fn new(parent: Option<u64>) -> Mark {
        let actor = NEXT.get();
        NEXT.set(actor + 1);
        Mark { actor, parent }
    }

    fn note(&self, what: What) {
        let moment = Moment { actor: self.actor, parent: self.parent, what };
        // Actors are dropped at the very end of a thread too, when there is no record any more.
        let _ = RECORD.try_with(|record| {
            if let Some(record) = &mut *record.borrow_mut() {
                record.push(moment);
            }
        });
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.note(if std::thread::panicking() { What::Broke } else { What::Stopped });
    }
}

/// What a slow channel does after each message.
pub(crate) fn dawdle<A: Actor<Context: AsyncContext<A>>>(context: &mut A::Context) {
    if let Some(delay) = DELAY.get() {
        context.wait(wrap_future(tokio::time::sleep(delay)));
    }
}
