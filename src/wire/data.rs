//! DATA packets and jumbograms (rx-wire.md 4.1 and 4.2).
//!
//! A jumbogram carries several DATA packets of one call: each but the last is exactly 1412 bytes and is
//! followed by a 4-byte header for the next. The whole datagram is checked before any part of it is used.

use super::{Flags, HEADER_LEN, Header};

/// Payload of every sub-packet of a jumbogram but the last, and our largest DATA payload.
pub const DATA_PAYLOAD_MAX: usize = 1412;
/// Bytes of the short header between two sub-packets.
pub const JUMBO_HEADER_LEN: usize = 4;
/// Most sub-packets that one UDP datagram can hold.
pub const JUMBO_PACKETS_MAX: usize = 46;

/// Why a DATA datagram cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JumboError {
    /// A sub-packet that is not the last is shorter than 1412 bytes plus the next header.
    Short,
    /// LAST_PACKET together with JUMBO_PACKET.
    LastInside,
    /// More sub-packets than a UDP datagram can hold.
    TooMany,
}

/// Checks a whole DATA datagram and counts its packets: 1 unless it is a jumbogram.
///
/// `header` is the datagram's own, `datagram` includes it.
pub fn check_jumbo(header: &Header, datagram: &[u8]) -> Result<usize, JumboError> {
    let mut flags = header.flags;
    let mut rest = datagram.get(HEADER_LEN..).unwrap_or_default();
    let mut packets = 1;
    while flags.has(Flags::JUMBO_PACKET) {
        if flags.has(Flags::LAST_PACKET) {
            return Err(JumboError::LastInside);
        }
        if packets == JUMBO_PACKETS_MAX {
            return Err(JumboError::TooMany);
        }
        let next = rest.get(DATA_PAYLOAD_MAX..).ok_or(JumboError::Short)?;
        let (short, after) =
            next.split_first_chunk::<JUMBO_HEADER_LEN>().ok_or(JumboError::Short)?;
        flags = Flags(short[0]);
        rest = after;
        packets += 1;
    }
    Ok(packets)
}

/// One DATA packet of a datagram: its header with seq, serial, flags and checksum of its own, and where
/// its payload lies in the datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubPacket {
    /// The header as it would stand on a datagram of its own.
    pub header: Header,
    /// The payload's place in the datagram.
    pub payload: std::ops::Range<usize>,
}

/// Walks the packets of a DATA datagram that [`check_jumbo`] has passed. On one that it has not, the walk
/// ends early and never panics.
pub fn sub_packets(header: Header, datagram_len: usize) -> SubPackets {
    SubPackets { next: Some(header), at: HEADER_LEN, datagram_len }
}

/// Iterator of [`sub_packets`]; it needs the datagram's bytes at each step.
pub struct SubPackets {
    next: Option<Header>,
    at: usize,
    datagram_len: usize,
}

impl SubPackets {
    /// The next packet.
    pub fn next_in(&mut self, datagram: &[u8]) -> Option<SubPacket> {
        let header = self.next.take()?;
        let start = self.at.min(self.datagram_len);
        if !header.flags.has(Flags::JUMBO_PACKET) {
            return Some(SubPacket { header, payload: start..self.datagram_len });
        }
        let end = start + DATA_PAYLOAD_MAX;
        let short: &[u8; JUMBO_HEADER_LEN] = datagram.get(end..)?.first_chunk()?;
        self.at = end + JUMBO_HEADER_LEN;
        self.next = Some(Header {
            seq: header.seq.plus(1),
            serial: header.serial.plus(1),
            flags: Flags(short[0]),
            user_status: 0,
            cksum: u16::from_be_bytes([short[2], short[3]]),
            ..header
        });
        Some(SubPacket { header, payload: start..end })
    }
}
