//! A send window as one value among many (docs/exploration.md).

use super::SendWindow;
use crate::wire::Serial;

impl SendWindow {
    /// Negative ACKs are only asked whether they are enough; how long a packet took is not asked at all.
    pub fn settle(&mut self) {
        self.rack.settle();
    }

    /// The serials of what is in flight.
    pub fn each_serial_sent(&mut self, visit: &mut dyn FnMut(&mut Serial)) {
        self.packets.iter_mut().for_each(|sent| visit(&mut sent.serial));
        self.rack.each_serial(visit);
    }

    /// The serial of the newest ACK.
    pub fn ack_serial_mut(&mut self) -> &mut Option<Serial> {
        &mut self.ack_serial_max
    }
}
