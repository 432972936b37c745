//! What is left of a call for the next one of its channel: memory without contents. A call with a packet each
//! way then allocates nothing here.

use super::Call;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spare(Option<Box<Call>>);

impl Spare {
    /// Keeps the memory of a call that is over, and none of what was in it.
    pub fn keep(&mut self, mut call: Box<Call>) {
        call.send.clear();
        call.receive.clear();
        call.unattached.clear();
        call.unattached.shrink_to(1);
        call.probes.clear();
        self.0 = Some(call);
    }

    /// `call`, which has nothing in it yet, with the memory of the one before it.
    pub fn furnish(&mut self, mut call: Call) -> Box<Call> {
        let Some(mut spare) = self.0.take() else { return Box::new(call) };
        call.send.furnish(&mut spare.send);
        call.unattached = std::mem::take(&mut spare.unattached);
        call.probes = std::mem::take(&mut spare.probes);
        *spare = call;
        spare
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Keeps nothing: the channel rests.
    pub fn release(&mut self) {
        self.0 = None;
    }
}
