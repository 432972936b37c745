//! What tests see of actors: when each of them started and stopped, and channels that take their time. Without
//! feature `testkit` nothing of it is there.

#[cfg(feature = "testkit")]
pub(super) use crate::testkit::tree::{Mark, dawdle};

#[cfg(not(feature = "testkit"))]
mod nothing {
    /// Nothing.
    #[derive(Debug)]
    pub struct Mark;

    impl Mark {
        pub fn root() -> Mark {
            Mark
        }

        pub fn child(&self) -> Mark {
            Mark
        }

        pub fn started(&self) {}
    }

    pub fn dawdle<A: actix::Actor>(_: &mut actix::Context<A>)
    where
        A: actix::Actor<Context = actix::Context<A>>,
    {
    }
}

#[cfg(not(feature = "testkit"))]
pub(super) use nothing::{Mark, dawdle};
