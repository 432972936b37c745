//! Where a step of a channel gathers its output.
//!
//! Every channel needs the same memory in each step and none between two steps, so the channels of a thread have one
//! between them: it is in the processor's cache already, and an idle channel is small. What is handed on is empty,
//! so no channel can learn of another by it.

use std::cell::Cell;

use crate::proto::CallTag;
use crate::proto::channel::{ChannelOutput, Notice};

thread_local! {
    /// Of this thread, between two steps.
    static SPARE: Cell<Option<Box<Step>>> = const { Cell::new(None) };
}

/// See the module. It is there from a step's first output on, until all of it is taken.
#[derive(Default)]
pub(super) struct StepOutput(Option<Box<Step>>);

#[derive(Default)]
pub(super) struct Step {
    pub out: ChannelOutput,
    /// Memory that is used again in each step.
    pub spare_notices: Vec<(CallTag, Notice)>,
}

impl StepOutput {
    pub fn get(&mut self) -> &mut ChannelOutput {
        &mut self.step().out
    }

    pub fn step(&mut self) -> &mut Step {
        // A thread that ends may have none any more.
        let spare = || SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default();
        self.0.get_or_insert_with(spare)
    }

    /// The step is over: its memory is the next one's, whosever that is.
    pub fn conclude(&mut self) {
        if let Some(step) = self.0.take_if(|step| step.out.is_empty()) {
            let _ = SPARE.try_with(|spare| spare.set(Some(step)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_from_step_to_step_and_output_stays_with_its_channel() {
        let mut one = StepOutput::default();
        one.get().notices.reserve(100);
        one.conclude();
        let mut two = StepOutput::default();
        assert!(two.get().notices.capacity() >= 100);
        two.get().duplicates = 0;
        two.get().notices.push((CallTag(1), Notice::End));
        two.conclude();
        assert_eq!(one.get().notices.len(), 0, "another's");
        assert_eq!(two.get().notices.len(), 1, "its own");
    }
}
