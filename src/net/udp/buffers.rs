//! Buffers that the kernel receives into, and their way to readers and back.
//!
//! Knows lengths and who still reads; knows nothing of sockets and addresses. Every buffer stays
//! initialised and full-size for its whole life, so none is ever filled with zeros again.

use std::{array, collections::VecDeque, io::IoSliceMut, mem};

use bytes::{Bytes, BytesMut};
use quinn_udp::BATCH_SIZE;

/// Length of a buffer: above the largest batch that the kernel builds (65 535 bytes), so that nothing
/// is ever cut off.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// What is received in one piece up to this length is copied: a slow reader must not keep much more memory
/// than it has bytes, here at most twice as much.
const COPIED_BYTES_MAX: usize = BUFFER_BYTES / 2;

/// Up to this length copies lie one behind the other in chunks, for an allocation in a chunk and not in each.
const SMALL_BYTES_MAX: usize = 256;

/// Length of a chunk: a reader that keeps one small piece of it keeps no more than about a full packet.
const CHUNK_BYTES: usize = 2048;

/// Most buffers that are remembered to come back (4 MiB); beyond, readers free them.
const LENT_BUFFERS_MAX: usize = 64;

/// Most lent buffers that are looked at for a free one before a new one is made.
const LENT_LOOKUPS_MAX: usize = 8;

/// One buffer per message of a batch, and those that readers have.
pub(super) struct Buffers {
    slots: [BytesMut; BATCH_SIZE],
    /// Slots at and after this one have their buffer.
    refill_until: usize,
    lent: VecDeque<Bytes>,
    /// Where small copies go; what is free of it.
    chunk: BytesMut,
    made: u64,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers {
            slots: array::from_fn(|_| BytesMut::new()),
            refill_until: BATCH_SIZE,
            lent: VecDeque::with_capacity(LENT_BUFFERS_MAX),
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            made: 0,
        }
    }

    /// All slots, each with a whole buffer. Slots are refilled here and not at once when they were
    /// emptied, because by now a quick reader is done.
    pub(super) fn slices(&mut self) -> [IoSliceMut<'_>; BATCH_SIZE] {
        for index in 0..mem::take(&mut self.refill_until) {
            if self.slots[index].is_empty() {
                self.slots[index] = self.reclaimed_or_new();
            }
        }
        self.slots.each_mut().map(|slot| IoSliceMut::new(slot))
    }

    /// The first `len` bytes of a slot.
    pub(super) fn take(&mut self, index: usize, len: usize) -> Bytes {
        if len <= COPIED_BYTES_MAX {
            return self.copy(index, len);
        }
        let buffer = mem::take(&mut self.slots[index]).freeze();
        self.refill_until = self.refill_until.max(index + 1);
        let data = buffer.slice(..len);
        if self.lent.len() == LENT_BUFFERS_MAX {
            self.lent.pop_front();
        }
        // The whole buffer, not the slice: it comes back in its full, initialised length.
        self.lent.push_back(buffer);
        data
    }

    fn copy(&mut self, index: usize, len: usize) -> Bytes {
        let bytes = &self.slots[index][..len];
        if len > SMALL_BYTES_MAX {
            return Bytes::copy_from_slice(bytes);
        }
        if self.chunk.capacity() < len {
            // The same chunk again, if nobody reads in it any more.
            self.chunk.reserve(CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }

    /// How many buffers were ever allocated.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    fn reclaimed_or_new(&mut self) -> BytesMut {
        for _ in 0..self.lent.len().min(LENT_LOOKUPS_MAX) {
            let Some(oldest) = self.lent.pop_front() else { break };
            match oldest.try_into_mut() {
                Ok(buffer) => return buffer,
                Err(still_read) => self.lent.push_back(still_read),
            }
        }
        self.made += 1;
        let mut buffer = BytesMut::zeroed(BUFFER_BYTES);
        // Splitting makes the buffer reference-counted for good. Otherwise each `freeze` would
        // allocate the count, and each `try_into_mut` free it.
        drop(buffer.split_off(BUFFER_BYTES));
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pretends that `len` bytes of `value` came into slot 0.
    fn receive(buffers: &mut Buffers, len: usize, value: u8) -> Bytes {
        buffers.slices()[0][..len].fill(value);
        buffers.take(0, len)
    }

    #[test]
    fn a_small_batch_is_copied_and_its_slot_stays() {
        let mut buffers = Buffers::new();
        let small = receive(&mut buffers, COPIED_BYTES_MAX, 1);
        assert_eq!(buffers.lent.len(), 0);
        let large = receive(&mut buffers, COPIED_BYTES_MAX + 1, 2);
        assert_eq!(buffers.lent.len(), 1);
        assert!(small.iter().all(|&byte| byte == 1) && small.len() == COPIED_BYTES_MAX);
        assert!(large.iter().all(|&byte| byte == 2) && large.len() == COPIED_BYTES_MAX + 1);
    }

    #[test]
    fn a_quick_reader_gets_the_same_buffers_again() {
        let mut buffers = Buffers::new();
        let _ = buffers.slices();
        let made = buffers.made();
        for round in 0..1000 {
            let data = receive(&mut buffers, BUFFER_BYTES - 1, round as u8);
            assert!(data.iter().all(|&byte| byte == round as u8));
        }
        assert_eq!(buffers.made(), made);
        assert!(buffers.slices().iter().all(|slice| slice.len() == BUFFER_BYTES));
    }

    /// Readers that never let go cost a new buffer each, but only so many are remembered, and what
    /// they read never changes.
    #[test]
    fn a_slow_reader_keeps_its_data_and_blocks_nobody() {
        let mut buffers = Buffers::new();
        let kept: Vec<_> =
            (0..200).map(|n| receive(&mut buffers, 40_000 + n, n as u8)).collect::<Vec<_>>();
        assert_eq!(buffers.lent.len(), LENT_BUFFERS_MAX);
        for (n, data) in kept.iter().enumerate() {
            assert!(data.len() == 40_000 + n && data.iter().all(|&byte| byte == n as u8));
        }
        drop(kept);
        let _ = buffers.slices();
        let made = buffers.made();
        for _ in 0..200 {
            receive(&mut buffers, 40_000, 0);
        }
        assert_eq!(buffers.made(), made);
    }
}
