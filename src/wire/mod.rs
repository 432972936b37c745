//! Bytes to values and back: every packet of Rx, both directions.
//!
//! Knows layouts and nothing else: no time, no state, no sockets. Decoding never panics and never
//! allocates by a number that the peer sent; encoding writes into the caller's buffer. Section numbers
//! name `docs/protocol/rx-wire.md`.

mod abort;
mod ack;
mod challenge;
mod data;
pub mod debug;
#[cfg(test)]
mod examples;
mod header;
mod numbers;
mod packet;
mod version;

pub use abort::{ABORT_LEN, decode_abort, encode_abort};
pub use ack::{
    ACK_FIXED_LEN, ACK_LEN_MAX, ACK_PADDING_LEN, Ack, AckError, AckReason, FullTrailer,
    SACK_ENTRIES_MAX, Trailer,
};
pub use challenge::{Challenge, Response};
pub use data::{
    AppendError, DATA_PAYLOAD_MAX, JUMBO_HEADER_LEN, JUMBO_PACKETS_MAX, JumboError, JumboWriter,
    SubPacket, SubPackets, check_jumbo, sub_packets,
};
pub use header::{Flags, HEADER_LEN, Header, PacketType};
pub use numbers::{
    AbortCode, CallNumber, ChannelIndex, Cid, Epoch, SecurityIndex, Seq, Serial, ServiceId,
};
pub use packet::{Data, Packet, PacketError, Payload};
pub use version::{
    VERSION_REQUEST_LEN, VERSION_REQUEST_PAYLOAD, VERSION_TEXT_LEN, Version, encode_nat_keepalive,
    encode_version_reply, encode_version_request,
};
