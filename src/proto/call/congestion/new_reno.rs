//! NewReno (RFC 5681, RFC 6582; rx-flow.md 8): one packet more for each window, half after a loss.

use super::{Controller, Path};

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub struct NewReno {
    /// Packets acknowledged since the window last grew.
    credit: u32,
}

impl Controller for NewReno {
    fn grow(&mut self, _: &Path, window: u32, packets: u32) -> u32 {
        self.credit += packets;
        if self.credit < window {
            return window;
        }
        self.credit -= window;
        window + 1
    }

    fn reduce(&mut self, _: &Path, _: u32, in_flight: u32) -> u32 {
        self.credit = 0;
        in_flight / 2
    }
}
