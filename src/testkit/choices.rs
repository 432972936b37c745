//! Choices that the protocol allows and that a channel does not make by itself: in a simulation it makes them
//! now and then, so that what is rare on a network is common in a test (docs/testkit.md).
//!
//! Each channel draws from streams of its own, one for each kind of choice: a choice more of one kind, or in
//! one channel, shifts none of another.

use std::cell::Cell;

use super::world::{Seed, Stream};
use crate::proto::Role;
use crate::wire::{Cid, Epoch};

/// A choice that is unlikely and legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unlikely {
    /// The second packet in order without an ACK is not answered at once, but when the delay is over
    /// (rx-flow.md 4).
    DelayAck,
    /// The first packet in order is answered at once (rx-flow.md 4).
    AckAtOnce,
    /// An ACK allows one packet beyond what has come, and takes back what others allowed (rx-flow.md 2).
    ShrinkWindow,
    /// Packets that were acknowledged softly are thrown away (rx-flow.md 3).
    ForgetHeld,
    /// What the application wrote leaves in packets half as large as they may be (rx-flow.md 2).
    SplitWrite,
    /// A datagram is made and does not leave, as when a socket has no room. Twice in a channel at the most.
    LoseSend,
    /// No tail probe: the later timer, that of retransmission, comes first (docs/recovery.md 2).
    LateTimerFirst,
}

impl Unlikely {
    /// All of them.
    pub const ALL: [Unlikely; 7] = [
        Unlikely::DelayAck,
        Unlikely::AckAtOnce,
        Unlikely::ShrinkWindow,
        Unlikely::ForgetHeld,
        Unlikely::SplitWrite,
        Unlikely::LoseSend,
        Unlikely::LateTimerFirst,
    ];

    /// How often a channel takes it at the most: what costs a retransmission must not end a call.
    fn times_max(self) -> u32 {
        if self == Unlikely::LoseSend { 2 } else { u32::MAX }
    }
}

/// Which choices channels make, and how often. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoiceOptions {
    /// What the channels' streams come from.
    pub seed: u64,
    /// By [`Unlikely`]: one opportunity in so many is taken; 0 = none.
    pub one_in: [u32; Unlikely::ALL.len()],
}

impl ChoiceOptions {
    /// Every choice, at one opportunity in so many.
    pub fn all(seed: u64, one_in: u32) -> ChoiceOptions {
        ChoiceOptions { seed, one_in: [one_in; Unlikely::ALL.len()] }
    }

    /// Whether no choice is made.
    pub fn is_none(&self) -> bool {
        self.one_in == [0; Unlikely::ALL.len()]
    }
}

/// One kind of choice in one channel.
#[derive(Clone, Debug)]
struct Kind {
    stream: Stream,
    one_in: u32,
    times_left: u32,
}

/// The choices of one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices(Option<Box<[Kind; Unlikely::ALL.len()]>>);

impl Choices {
    pub fn new(options: &ChoiceOptions, role: Role, epoch: Epoch, cid: Cid) -> Choices {
        if options.is_none() {
            return Choices(None);
        }
        let kind = |choice: Unlikely| Kind {
            stream: Seed(options.seed).stream(&format!("{role:?} {epoch} {cid} {choice:?}")),
            one_in: options.one_in[choice as usize],
            times_left: choice.times_max(),
        };
        Choices(Some(Box::new(Unlikely::ALL.map(kind))))
    }

    /// Whether the channel makes this choice now, where it can.
    #[inline]
    pub fn take(&mut self, choice: Unlikely) -> bool {
        self.0.as_mut().is_some_and(|kinds| kinds[choice as usize].take(choice))
    }
}

impl Kind {
    fn take(&mut self, choice: Unlikely) -> bool {
        let takes = self.one_in > 0
            && self.times_left > 0
            && self.stream.below(u64::from(self.one_in)) == 0;
        if takes {
            self.times_left -= 1;
            let mut taken = TAKEN.get();
            taken[choice as usize] += 1;
            TAKEN.set(taken);
        }
        takes
    }
}

thread_local! {
    static TAKEN: Cell<[u64; Unlikely::ALL.len()]> = const { Cell::new([0; Unlikely::ALL.len()]) };
}

/// How often channels of this thread have made each choice since this was asked last.
pub fn taken() -> [(Unlikely, u64); Unlikely::ALL.len()] {
    let taken = TAKEN.replace([0; Unlikely::ALL.len()]);
    Unlikely::ALL.map(|choice| (choice, taken[choice as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(options: ChoiceOptions, cid: u32) -> Choices {
        Choices::new(&options, Role::Client, Epoch(1), Cid(cid))
    }

    fn drawn(choices: &mut Choices, choice: Unlikely) -> Vec<bool> {
        (0..64).map(|_| choices.take(choice)).collect()
    }

    #[test]
    fn by_default_none_is_made() {
        let mut choices = choices(ChoiceOptions::default(), 4);
        assert!(Unlikely::ALL.iter().all(|choice| !drawn(&mut choices, *choice).contains(&true)));
    }

    #[test]
    fn one_kind_shifts_no_other_and_channels_differ() {
        let options = ChoiceOptions::all(7, 3);
        let (mut one, mut other) = (choices(options, 4), choices(options, 4));
        drawn(&mut other, Unlikely::AckAtOnce);
        let expected = drawn(&mut one, Unlikely::DelayAck);
        assert_eq!(expected, drawn(&mut other, Unlikely::DelayAck));
        assert_ne!(expected, drawn(&mut choices(options, 5), Unlikely::DelayAck));
    }

    #[test]
    fn two_sends_are_lost_at_the_most() {
        let mut choices = choices(ChoiceOptions::all(7, 1), 4);
        let lost = drawn(&mut choices, Unlikely::LoseSend);
        assert_eq!(lost.iter().filter(|lost| **lost).count(), 2);
    }
}
