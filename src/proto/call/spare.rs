//! What is left of calls for later ones: memory without contents. A call with a packet each way then allocates
//! nothing here.

use super::Call;

/// Most that are kept: more calls than this rarely end between two that begin.
const KEPT_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
// A channel takes the box as it is.
#[expect(clippy::vec_box)]
pub(crate) struct Spare(Vec<Box<Call>>);

impl Spare {
    /// Keeps the memory of a call that is over, and none of what was in it.
    pub fn keep(&mut self, mut call: Box<Call>) {
        if self.0.len() == KEPT_MAX {
            return;
        }
        call.send.clear();
        call.receive.clear();
        call.unattached.clear();
        call.unattached.shrink_to(1);
        call.probes.clear();
        self.0.push(call);
    }

    /// `call`, which has nothing in it yet, with the memory of one before it.
    pub fn furnish(&mut self, mut call: Call) -> Box<Call> {
        let Some(mut spare) = self.0.pop() else { return Box::new(call) };
        call.send.furnish(&mut spare.send);
        call.unattached = std::mem::take(&mut spare.unattached);
        call.probes = std::mem::take(&mut spare.probes);
        *spare = call;
        spare
    }
}
