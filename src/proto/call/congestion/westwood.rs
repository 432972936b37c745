//! CUBIC that tells losses apart, after TCP Westwood+ and BBR's startup: a path that delivers as much as
//! before, without a queue, has lost a packet to noise and not to a full buffer.
//!
//! - A reduction never goes below what the path delivered in the time of its least round trip. Where packets
//!   are lost to a full buffer that is the path without its queue; where they are lost at random it is the
//!   present window.
//! - Slow start goes on through losses while the delivery rate still grows, no queue has built up, and no more
//!   than an eighth of the window is lost in a round.

use super::cubic::Cubic;
use super::{Controller, Path};

/// Losses in one round of a small window that say nothing.
const FEW: u32 = 3;

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub struct Westwood {
    cubic: Cubic,
}

impl Controller for Westwood {
    fn grow(&mut self, path: &Path, window: u32, packets: u32) -> u32 {
        self.cubic.grow(path, window, packets)
    }

    fn reduce(&mut self, path: &Path, window: u32, in_flight: u32) -> u32 {
        let reduced = self.cubic.reduce(path, window, in_flight);
        let pipe = path.pipe.min(window);
        if pipe <= reduced {
            return reduced;
        }
        self.cubic.restart();
        pipe
    }

    fn on_idle(&mut self) {
        self.cubic.on_idle();
    }

    fn tolerates(&self, path: &Path, window: u32) -> bool {
        path.is_filling && !path.is_queueing && path.lost_in_round <= FEW.max(window / 8)
    }
}
