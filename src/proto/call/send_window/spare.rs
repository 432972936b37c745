//! A send window's memory, handed on from call to call.

use super::SendWindow;

/// Entries that a window without contents keeps room for: what a small call needs. A long transfer's room is
/// given back.
const KEPT_MAX: usize = 4;

impl SendWindow {
    /// Lets go of all bytes and packets.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.chunks.shrink_to(KEPT_MAX);
        self.packets.clear();
        self.packets.shrink_to(KEPT_MAX);
    }

    /// Takes over the memory of a window that was cleared.
    pub fn furnish(&mut self, cleared: &mut SendWindow) {
        std::mem::swap(&mut self.chunks, &mut cleared.chunks);
        std::mem::swap(&mut self.packets, &mut cleared.packets);
    }
}
