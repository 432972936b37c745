//! Where a step of a channel gathers its output.
//!
//! Every channel needs the same memory in each step and none between two steps, so the channels of a thread have one
//! between them: it is in the processor's cache already, and an idle channel is small. So have their datagrams, until
//! these have left: the endpoint gives the buffers back. What is handed on is empty, so no channel can learn of another
//! by it. The same goes for the messages in which output goes to the endpoint.

use std::cell::Cell;

use super::messages::Output;
use crate::proto::channel::{ChannelOutput, Notice};
use crate::proto::event::Origin;
use crate::proto::router::Waker;
use crate::proto::{CallTag, Datagrams};

thread_local! {
    /// Of this thread, between two steps.
    static SPARE: Cell<Option<Box<Step>>> = const { Cell::new(None) };
    /// Empty buffers of datagrams that have left.
    static BUFFERS: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
    /// Messages that the endpoint has taken all out of.
    #[allow(clippy::vec_box, reason = "they are sent as they are")]
    static OUTPUTS: Cell<Vec<Box<Output>>> = const { Cell::new(Vec::new()) };
}

/// Most buffers that are kept: about as many as wait for one turn of the endpoint.
const BUFFERS_MAX: usize = 64;
/// Most messages that are kept, likewise.
const OUTPUTS_MAX: usize = 64;
/// Largest buffer that is kept: some small datagrams joined.
const BUFFER_BYTES_MAX: usize = 8 * 1024;

/// The datagrams in this buffer have left: it is some next step's.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    if (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity()) {
        buffer.clear();
        with_buffers(|buffers| {
            if buffers.len() < BUFFERS_MAX {
                buffers.push(buffer);
            }
        });
    }
}

/// What was given back, or an empty one that grows. For a thread that ends there is none any more.
fn spare_buffer() -> Vec<u8> {
    with_buffers(Vec::pop).flatten().unwrap_or_default()
}

fn with_buffers<T>(with: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> Option<T> {
    BUFFERS
        .try_with(|kept| {
            let mut buffers = kept.take();
            let result = with(&mut buffers);
            kept.set(buffers);
            result
        })
        .ok()
}

/// A message that has nothing to tell yet.
pub(super) fn spare_output(whose: Waker, origin: Origin) -> Box<Output> {
    let spare = OUTPUTS.try_with(|kept| {
        let mut outputs = kept.take();
        let spare = outputs.pop();
        kept.set(outputs);
        spare
    });
    match spare.ok().flatten() {
        Some(mut output) => {
            output.whose = whose;
            output.origin = origin;
            output
        }
        None => Box::new(Output::new(whose, origin)),
    }
}

/// The endpoint has taken all that it told.
pub(super) fn give_back_output(mut output: Box<Output>) {
    if output.clear() {
        // For a thread that ends there are none any more.
        let _ = OUTPUTS.try_with(|kept| {
            let mut outputs = kept.take();
            if outputs.len() < OUTPUTS_MAX {
                outputs.push(output);
            }
            kept.set(outputs);
        });
    }
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

    /// Moves what goes to the network; what the next step sends has another buffer.
    pub fn take_datagrams(&mut self, into: &mut Datagrams) {
        let datagrams = &mut self.get().datagrams;
        if !datagrams.is_empty() {
            std::mem::swap(datagrams, into);
            datagrams.furnish(spare_buffer);
        }
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
    use crate::proto::TurnWord;
    use crate::proto::config::EndpointConfig;
    use crate::proto::router::{Identity, Router, RouterOutput};
    use crate::wire::{Cid, Epoch, SecurityIndex, ServiceId};

    #[test]
    fn a_buffer_whose_datagrams_have_left_is_the_next_steps_and_large_ones_are_not_kept() {
        let kept = || with_buffers(|buffers| buffers.iter().map(Vec::len).sum::<usize>());
        give_back(Vec::new());
        give_back(vec![1; BUFFER_BYTES_MAX + 1]);
        assert_eq!(with_buffers(|buffers| buffers.len()), Some(0));
        for _ in 0..2 * BUFFERS_MAX {
            give_back(vec![1; 100]);
        }
        assert_eq!(with_buffers(|buffers| buffers.len()), Some(BUFFERS_MAX));
        assert_eq!(kept(), Some(0), "empty");
        assert!(spare_buffer().capacity() >= 100);
        assert_eq!(with_buffers(|buffers| buffers.len()), Some(BUFFERS_MAX - 1));
    }

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

    #[test]
    fn a_message_comes_back_empty_and_one_with_much_memory_is_not_kept() {
        let identity = Identity { epoch: Epoch(1), first_cid: Cid(4), hash_seed: 1 };
        let now = std::time::Instant::now();
        let mut router = Router::<()>::new(EndpointConfig::default().into(), identity, now);
        let ids = router.allocate(ServiceId(1), SecurityIndex::NULL);
        let peer = ([10, 0, 0, 1], 7000).into();
        let route = router.insert_client(now, ids, peer, (), &mut RouterOutput::default());
        let origin = |cid| Origin { epoch: Epoch(1), cid: Cid(cid) };
        let mut output = spare_output(Waker::Connection(route), origin(4));
        output.turn = Some(TurnWord::Gone);
        output.tally.good = 1;
        let at = &raw const *output;
        give_back_output(output);
        let mut output = spare_output(Waker::Connection(route), origin(8));
        assert_eq!((&raw const *output, output.origin.cid), (at, Cid(8)));
        assert!(output.turn.is_none() && output.tally.good == 0);
        output.events.reserve(100);
        give_back_output(output);
        assert_eq!(spare_output(Waker::Connection(route), origin(4)).events.capacity(), 0);
    }
}
