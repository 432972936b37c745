//! Where the protocol leaves a choice, a channel asks here whether it makes the unlikely one. It never does, but
//! in a simulation: without feature `testkit` nothing of this is left.

#[cfg(feature = "testkit")]
pub(super) use crate::testkit::{Choices, Unlikely};

#[cfg(not(feature = "testkit"))]
pub(super) use never::{Choices, Unlikely};

#[cfg(not(feature = "testkit"))]
mod never {
    /// Names of choices; what they are is told in `testkit::Unlikely`.
    #[derive(Clone, Copy)]
    pub enum Unlikely {
        DelayAck,
        AckAtOnce,
        ShrinkWindow,
        ForgetHeld,
        SplitWrite,
        LoseSend,
        LateTimerFirst,
    }

    #[derive(Clone, Debug, Default)]
    pub struct Choices;

    impl Choices {
        #[inline(always)]
        pub fn take(&mut self, _: Unlikely) -> bool {
            false
        }
    }
}
