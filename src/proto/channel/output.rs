//! What a channel puts out in one step.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::proto::call::{Packet, Spare};
use crate::proto::datagrams::Datagrams;
use crate::proto::peer::PeerReport;
use crate::proto::{CallFailure, CallTag, DropReason, Event, Holding, TurnWord};
use crate::security::{PlainPacket, SealedEnd, SealedPacket};
use crate::wire::{CallNumber, Seq, ServiceId};

/// Gathers the output of one step. Whoever drives the channel empties it.
#[derive(Debug, Default)]
pub struct ChannelOutput {
    /// To the network, in order.
    pub datagrams: Datagrams,
    /// DATA packets that had come before.
    pub duplicates: u32,
    /// To whoever watches.
    pub events: Vec<Event>,
    /// To applications, in order.
    pub notices: Vec<(CallTag, Notice)>,
    /// To the connection, in order.
    pub connection: Vec<ChannelToConnection>,
    /// To the endpoint's memory of the peer.
    pub peer: PeerReport,
    /// What the channel holds, where that changed much.
    pub holding: Option<Holding>,
    /// Whether a call waits for its service.
    pub turn: Option<TurnWord>,
    /// Memory that is used again in each step.
    pub(super) scratch: Scratch,
}

/// Vectors that a step needs for a moment, without contents between steps: those of the next may be another
/// channel's.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub burst: Vec<Seq>,
    pub delivered: Vec<(Seq, Packet)>,
    /// In order, of the present call, and not opened yet: packets of one run are opened together.
    pub unopened: Vec<(Seq, Packet)>,
    pub open: OpenScratch,
    pub seal: SealScratch,
    /// Memory of calls that are over.
    pub spare: Spare,
    /// So many packets may be delivered together: room for them at once.
    pub pieces_expected: usize,
    /// Entries of an ACK's table.
    pub sacks: Vec<u8>,
}

impl Scratch {
    /// Whether nothing of a packet is left in it, so that another channel may have it.
    fn is_empty(&self) -> bool {
        let Scratch { delivered, unopened, open, seal, .. } = self;
        let is_open_empty = open.sealed.is_empty() && open.plain.is_empty();
        delivered.is_empty() && unopened.is_empty() && is_open_empty && seal.packets.is_empty()
    }
}

/// Packets on their way through [`crate::security::Session::open_run`].
#[derive(Debug, Default)]
pub(super) struct OpenScratch {
    pub sealed: Vec<SealedPacket>,
    pub plain: Vec<Bytes>,
    pub memory: Chunks,
}

/// Packets on their way through [`crate::security::Session::seal_run`].
#[derive(Debug, Default)]
pub(super) struct SealScratch {
    pub packets: Vec<PlainPacket>,
    pub plain: Vec<u8>,
    pub ends: Vec<SealedEnd>,
    pub memory: Chunks,
}

/// Memory for the bytes of packets, which lie one behind the other in chunks: an allocation in a chunk and not in
/// each packet, and none at all where nobody has any of a chunk any more when it is full.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    small: BytesMut,
    large: BytesMut,
    long: BytesMut,
}

/// Runs up to this length share small chunks: who keeps a small piece for long keeps no more than about a full packet.
const SMALL_RUN_BYTES_MAX: usize = 256;
const SMALL_CHUNK_BYTES: usize = 2 << 10;
/// A few full packets.
const LARGE_CHUNK_BYTES: usize = 16 << 10;
/// Longer runs, which are rare, have memory of their own, and nobody keeps it for others.
const RUN_BYTES_MAX: usize = 64 << 10;

impl Chunks {
    /// Room for so many bytes, empty.
    pub fn room(&mut self, bytes: usize) -> &mut BytesMut {
        self.long = BytesMut::new();
        let (chunk, chunk_bytes) = if bytes <= SMALL_RUN_BYTES_MAX {
            (&mut self.small, SMALL_CHUNK_BYTES)
        } else if bytes <= RUN_BYTES_MAX {
            (&mut self.large, LARGE_CHUNK_BYTES)
        } else {
            (&mut self.long, bytes)
        };
        // What a session has left there is shown to nobody else.
        chunk.clear();
        let chunk_bytes = bytes.max(chunk_bytes);
        // The same chunk again, if nobody has any of it.
        if chunk.capacity() < bytes && !chunk.try_reclaim(chunk_bytes) {
            *chunk = BytesMut::with_capacity(chunk_bytes);
        }
        chunk
    }
}

/// Most bytes that a channel keeps between steps, only so as not to ask for them again.
const PLAIN_KEPT_BYTES_MAX: usize = 16 * 1024;

impl SealScratch {
    /// Empty again.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.ends.clear();
        self.plain.clear();
        self.plain.shrink_to(PLAIN_KEPT_BYTES_MAX);
    }
}

/// A call that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its number on the channel.
    pub number: CallNumber,
    /// The service.
    pub service_id: ServiceId,
    /// userStatus of the latest DATA that has come.
    pub user_status: u8,
    /// Bytes of the reply that may be written at once.
    pub credit: u64,
}

/// Bytes of consecutive packets, one piece a packet.
pub type Pieces = SmallVec<[Bytes; 1]>;

/// What the application of a call is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Server: a call has come; its service starts.
    Incoming(Incoming),
    /// Client: the call has taken this number; its first packet leaves.
    Started(CallNumber),
    /// Bytes, in order, one piece a packet. Each piece wholly taken is credit to give back, empty ones too.
    Data(Pieces),
    /// The peer's direction is complete.
    End,
    /// So many more bytes may be written.
    Credit(u64),
    /// The call failed; nothing more comes.
    Failed(CallFailure),
    /// Server: the reply is acknowledged, wholly (`true`), or nothing more was heard (`false`).
    Acknowledged(bool),
}

/// What the connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelToConnection {
    /// The channel is free.
    CallOver {
        /// The last call number that it used.
        last: CallNumber,
        /// Whether the peer may still be at work on that call.
        avoid: bool,
    },
    /// Client: its leave to begin calls is over, and it stands so.
    Stands {
        /// The last call number that it used, of a call that is over.
        last: CallNumber,
        /// Since when it has had no call; `None` = it has one.
        idle_since: Option<Instant>,
    },
    /// The peer is busy on this channel.
    Busy,
    /// Server: a call waits for the connection to be secured.
    NeedsSecurity,
    /// Server: a call of the channel has reached its service, for the first time.
    Served,
    /// Client: the server answers for this service.
    ServiceAdopted(ServiceId),
    /// DATA came although the connection has failed: the peer does not know.
    DataAfterFailure,
}

impl ChannelOutput {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
            && self.events.is_empty()
            && self.notices.is_empty()
            && self.connection.is_empty()
            && self.peer.is_empty()
            && self.holding.is_none()
            && self.turn.is_none()
            && self.scratch.is_empty()
    }

    /// Notes an ignored packet.
    pub(super) fn drop(&mut self, reason: DropReason) {
        self.events.push(reason.into());
    }

    /// Tells the application of a call.
    pub(super) fn notify(&mut self, tag: CallTag, notice: Notice) {
        self.notices.push((tag, notice));
    }

    /// Delivers bytes; the pieces of one step come together.
    pub(super) fn deliver(&mut self, tag: CallTag, piece: Bytes) {
        if let Some((last, Notice::Data(pieces))) = self.notices.last_mut()
            && *last == tag
        {
            pieces.push(piece);
            return;
        }
        let mut pieces = Pieces::with_capacity(std::mem::take(&mut self.scratch.pieces_expected));
        pieces.push(piece);
        self.notify(tag, Notice::Data(pieces));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a session fills it, and a step takes its packets.
    fn take(chunks: &mut Chunks, len: usize) -> Bytes {
        let room = chunks.room(len);
        assert!(room.is_empty() && room.capacity() >= len);
        room.resize(len, 7);
        room.split().freeze()
    }

    #[test]
    fn packets_share_chunks_and_a_chunk_that_nobody_has_is_used_again() {
        for (len, most) in [(40, SMALL_CHUNK_BYTES), (1412, LARGE_CHUNK_BYTES)] {
            let mut chunks = Chunks::default();
            drop(take(&mut chunks, len));
            let allocated = allocation_counter::measure(|| {
                for _ in 0..1000 {
                    drop(take(&mut chunks, len));
                }
            });
            assert_eq!(allocated.count_total, 0, "{len} bytes, read at once");
            let mut kept = Vec::with_capacity(1000);
            let allocated = allocation_counter::measure(|| {
                kept.extend((0..1000).map(|_| take(&mut chunks, len)));
            });
            // A chunk, and the count of those who have some of it.
            let chunk_count = 1000usize.div_ceil(most / len) as u64;
            assert!(allocated.count_total <= 2 * chunk_count, "{len} bytes: {allocated:?}");
            assert!(allocated.bytes_max <= (chunk_count + 1) * (most as u64 + 64), "{len} bytes");
        }
    }

    #[test]
    fn a_long_run_leaves_no_large_memory_and_what_a_session_leaves_is_gone() {
        let mut chunks = Chunks::default();
        drop(take(&mut chunks, RUN_BYTES_MAX + 1));
        let held = allocation_counter::measure(|| drop(take(&mut chunks, 40)));
        assert!(held.bytes_current < 0, "{held:?}");
        chunks.room(40).extend_from_slice(b"left");
        assert!(chunks.room(40).is_empty());
    }
}
