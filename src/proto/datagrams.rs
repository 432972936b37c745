//! What a handler sends: datagrams in one buffer, already in the shape that segmentation offload takes.

use bytes::Bytes;

use super::path::DATAGRAM_MIN;
use crate::wire::Header;

/// Datagrams to one peer, in order, in one buffer.
///
/// Consecutive datagrams of one size form a batch, which a shorter one may close; a batch can leave with
/// one system call. No batch has more than 64 segments or 65 000 bytes.
#[derive(Debug, Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    /// The first batch stands by itself: most steps have no other, and need no second allocation.
    first: Option<Batch>,
    more: Vec<Batch>,
    open: Option<usize>,
}

/// A run of datagrams of one size in the buffer; only the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Size of every datagram but the last.
    pub segment: usize,
    /// Bytes of the batch.
    pub len: usize,
    /// Datagrams of the batch.
    pub count: usize,
    /// Whether they may be fragmented on their way.
    pub may_fragment: bool,
}

/// Most segments of a batch: the kernel's limit for one send.
pub const BATCH_SEGMENTS_MAX: usize = 64;
/// Most bytes of a batch: what fits one UDP send.
pub const BATCH_BYTES_MAX: usize = 65_000;

impl Datagrams {
    /// Takes an empty buffer that has been used before, where there are no datagrams and no memory.
    pub fn furnish(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = buffer();
            debug_assert!(self.bytes.is_empty());
        }
    }

    /// Starts a datagram with `header`; the caller appends the payload to the returned buffer, then calls
    /// [`Datagrams::finish`].
    pub fn begin(&mut self, header: &Header) -> &mut Vec<u8> {
        debug_assert!(self.open.is_none());
        self.open = Some(self.bytes.len());
        self.bytes.extend_from_slice(&header.encode());
        &mut self.bytes
    }

    /// Ends the datagram begun last, which is not to be fragmented, and returns its size.
    pub fn finish(&mut self) -> usize {
        self.finish_as(false)
    }

    /// Appends to the datagram begun last; for more, returns the buffer.
    pub fn go_on(&mut self, bytes: &[u8]) -> &mut Vec<u8> {
        debug_assert!(self.open.is_some());
        self.bytes.extend_from_slice(bytes);
        &mut self.bytes
    }

    /// Size of the datagram begun last, so far.
    pub fn open_len(&self) -> usize {
        self.open.map_or(0, |start| self.bytes.len() - start)
    }

    /// As [`Datagrams::finish`], and says whether it may be fragmented.
    pub fn finish_as(&mut self, may_fragment: bool) -> usize {
        let start = self.open.take().unwrap_or(self.bytes.len());
        let len = self.bytes.len() - start;
        match self.more.last_mut().or(self.first.as_mut()) {
            Some(batch)
                if batch.len == batch.segment * batch.count
                    && len <= batch.segment
                    && may_fragment == batch.may_fragment
                    && batch.count < BATCH_SEGMENTS_MAX
                    && batch.len + len <= BATCH_BYTES_MAX =>
            {
                batch.len += len;
                batch.count += 1;
            }
            last => {
                let batch = Batch { segment: len, len, count: 1, may_fragment };
                match last {
                    None => self.first = Some(batch),
                    Some(_) => self.more.push(batch),
                }
            }
        }
        len
    }

    /// As [`Datagrams::finish`], for a datagram that may turn out to be too large: nothing that follows shall be lost
    /// with it in one send.
    pub fn finish_alone(&mut self) -> usize {
        let start = self.open.take().unwrap_or(self.bytes.len());
        let len = self.bytes.len() - start;
        // A batch whose only datagram is a short one takes no other.
        let batch = Batch { segment: len + 1, len, count: 1, may_fragment: false };
        match self.first {
            None => self.first = Some(batch),
            Some(_) => self.more.push(batch),
        }
        len
    }

    /// The datagram begun last does not leave.
    pub fn abandon(&mut self) {
        if let Some(start) = self.open.take() {
            self.bytes.truncate(start);
        }
    }

    /// Room for `bytes` more, in one allocation.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// A whole datagram that is not DATA. A large one, such as a RESPONSE with its ticket, may be fragmented:
    /// it cannot be made smaller.
    pub fn push(&mut self, header: &Header, payload: &[u8]) {
        self.begin(header).extend_from_slice(payload);
        let may_fragment = self.open_len() > usize::from(DATAGRAM_MIN);
        self.finish_as(may_fragment);
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes of all datagrams.
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// Datagrams in all batches.
    pub fn count(&self) -> usize {
        self.first.iter().chain(&self.more).map(|batch| batch.count).sum()
    }

    /// The batches, in order, each with its bytes.
    pub fn batches(&self) -> impl Iterator<Item = (Batch, &[u8])> {
        let mut at = 0;
        self.first.iter().chain(&self.more).map(move |batch| {
            let start = at;
            at += batch.len;
            (*batch, &self.bytes[start..at])
        })
    }

    /// The buffer itself, if it holds a single batch: nothing is copied.
    pub fn take_only_batch(&mut self) -> Option<(Batch, Vec<u8>)> {
        if !self.more.is_empty() {
            return None;
        }
        Some((self.first.take()?, std::mem::take(&mut self.bytes)))
    }

    /// The buffer, and the batches in it, one behind the other.
    pub fn into_parts(self) -> (Bytes, impl Iterator<Item = Batch>) {
        (self.bytes.into(), self.first.into_iter().chain(self.more))
    }

    /// The datagrams, one by one, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.batches().flat_map(|(batch, bytes)| bytes.chunks(batch.segment.max(1)))
    }

    /// Takes all of `self`, leaving it empty.
    pub fn take(&mut self) -> Datagrams {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::*;

    fn header() -> Header {
        Header {
            epoch: Epoch(1),
            cid: Cid(4),
            call_number: CallNumber(1),
            seq: Seq(1),
            serial: Serial(1),
            packet_type: PacketType::Data,
            flags: Flags::NONE,
            user_status: 0,
            security_index: SecurityIndex::NULL,
            cksum: 0,
            service_id: ServiceId(1),
        }
    }

    #[test]
    fn equal_sizes_share_a_batch_and_a_shorter_one_closes_it() {
        let mut out = Datagrams::default();
        for len in [100, 100, 40, 40, 100] {
            out.push(&header(), &vec![0; len]);
        }
        let batches: Vec<_> =
            out.batches().map(|(batch, _)| (batch.segment, batch.count)).collect();
        assert_eq!(batches, [(128, 3), (68, 1), (128, 1)]);
        let sizes: Vec<_> = out.iter().map(<[u8]>::len).collect();
        assert_eq!(sizes, [128, 128, 68, 68, 128]);
    }

    #[test]
    fn what_may_be_fragmented_has_batches_of_its_own() {
        let mut out = Datagrams::default();
        for (len, may_fragment) in [(100, false), (100, true), (100, true), (50, false)] {
            out.begin(&header()).extend(vec![0; len]);
            assert_eq!(out.finish_as(may_fragment), 28 + len);
        }
        out.push(&header(), &[0; 1000]);
        let batches: Vec<_> =
            out.batches().map(|(batch, _)| (batch.count, batch.may_fragment)).collect();
        assert_eq!(batches, [(1, false), (2, true), (1, false), (1, true)]);
    }

    #[test]
    fn nothing_joins_a_datagram_that_may_be_too_large() {
        let mut out = Datagrams::default();
        out.push(&header(), &[0; 72]);
        out.begin(&header()).extend(vec![0; 72]);
        assert_eq!(out.finish_alone(), 100);
        out.push(&header(), &[0; 72]);
        out.push(&header(), &[0; 72]);
        let counts: Vec<_> =
            out.batches().map(|(batch, bytes)| (batch.count, bytes.len())).collect();
        assert_eq!(counts, [(1, 100), (1, 100), (2, 200)]);
        assert!(out.iter().all(|datagram| datagram.len() == 100) && out.iter().count() == 4);
    }

    #[test]
    fn a_batch_has_at_most_64_segments() {
        let mut out = Datagrams::default();
        for _ in 0..65 {
            out.push(&header(), &[]);
        }
        let counts: Vec<_> = out.batches().map(|(batch, _)| batch.count).collect();
        assert_eq!(counts, [64, 1]);
    }
}
