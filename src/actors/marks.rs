//! What tests see of actors: when each of them started and stopped, states of channels, and channels that take
//! their time. Without feature `testkit` nothing of it is there.

#[cfg(feature = "testkit")]
pub(super) use crate::testkit::{
    Watch,
    tree::{Mark, dawdle},
};

#[cfg(not(feature = "testkit"))]
mod nothing {
    use crate::proto::channel::Channel;
    use crate::wire::{Cid, Epoch};

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

    /// Nothing.
    #[derive(Debug)]
    pub struct Watch;

    impl Watch {
        pub fn new(_: bool, _: Epoch, _: Cid) -> Watch {
            Watch
        }

        pub fn note(&self, _: &Channel) {}
    }

    pub fn dawdle<A: actix::Actor>(_: &mut A::Context) {}
}

#[cfg(not(feature = "testkit"))]
pub(super) use nothing::{Mark, Watch, dawdle};
