//! The 28-byte header of every Rx packet (rx-wire.md 1 to 3).

use std::fmt;

use super::{CallNumber, Cid, Epoch, SecurityIndex, Seq, Serial, ServiceId};

/// Bytes of the header.
pub const HEADER_LEN: usize = 28;

/// Where the flags stand: a jumbogram's writer sets one after the header is written.
pub(super) const FLAGS_OFFSET: usize = offset::FLAGS;

mod offset {
    pub const EPOCH: usize = 0;
    pub const CID: usize = 4;
    pub const CALL_NUMBER: usize = 8;
    pub const SEQ: usize = 12;
    pub const SERIAL: usize = 16;
    pub const TYPE: usize = 20;
    pub const FLAGS: usize = 21;
    pub const USER_STATUS: usize = 22;
    pub const SECURITY_INDEX: usize = 23;
    pub const CKSUM: usize = 24;
    pub const SERVICE_ID: usize = 26;
}

/// Packet type, byte 20. Unknown types are values, not errors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PacketType {
    /// 1: part of a request or a reply.
    Data,
    /// 2: acknowledgement; also PING and its answer.
    Ack,
    /// 3: the server cannot end the channel's present call.
    Busy,
    /// 4: ends a call, or the connection where the call number is 0.
    Abort,
    /// 5: everything sent so far is acknowledged.
    AckAll,
    /// 6: the server asks the client to prove itself.
    Challenge,
    /// 7: the client's proof.
    Response,
    /// 8: a question of `rxdebug`, or its answer.
    Debug,
    /// 9, 10, 11: assigned long ago and never used.
    Params(u8),
    /// 13: a question for the version, its answer, or a NAT keepalive.
    Version,
    /// Any other value.
    Unknown(u8),
}

impl PacketType {
    /// The type of this byte.
    #[inline]
    pub const fn from_byte(byte: u8) -> PacketType {
        match byte {
            1 => PacketType::Data,
            2 => PacketType::Ack,
            3 => PacketType::Busy,
            4 => PacketType::Abort,
            5 => PacketType::AckAll,
            6 => PacketType::Challenge,
            7 => PacketType::Response,
            8 => PacketType::Debug,
            9..=11 => PacketType::Params(byte),
            13 => PacketType::Version,
            _ => PacketType::Unknown(byte),
        }
    }

    /// The byte of this type.
    #[inline]
    pub const fn byte(self) -> u8 {
        match self {
            PacketType::Data => 1,
            PacketType::Ack => 2,
            PacketType::Busy => 3,
            PacketType::Abort => 4,
            PacketType::AckAll => 5,
            PacketType::Challenge => 6,
            PacketType::Response => 7,
            PacketType::Debug => 8,
            PacketType::Version => 13,
            PacketType::Params(byte) | PacketType::Unknown(byte) => byte,
        }
    }
}

/// Flags, byte 21. Two bits mean different things on DATA and on ACK.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// The sender is the client of the connection: a direction bit, on all that the client sends.
    pub const CLIENT_INITIATED: Flags = Flags(0x01);
    /// DATA: acknowledge at once. ACK: only on PING.
    pub const REQUEST_ACK: Flags = Flags(0x02);
    /// DATA: the direction's last packet.
    pub const LAST_PACKET: Flags = Flags(0x04);
    /// DATA: more packets of the same burst follow; a hint.
    pub const MORE_PACKETS: Flags = Flags(0x08);
    /// ACK: a proposed extension of the SACK table, read as a plain ACK (rx-wire.md 4.4.4).
    pub const EXTENDED_SACK: Flags = Flags(0x08);
    /// DATA: another sub-packet follows in this datagram.
    pub const JUMBO_PACKET: Flags = Flags(0x20);
    /// ACK: the sender supports slow start.
    pub const SLOW_START_OK: Flags = Flags(0x20);

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    #[inline]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These bits without those of `other`.
    #[inline]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// `self.with(other)` if `condition`, else `self`.
    #[inline]
    pub const fn with_if(self, condition: bool, other: Flags) -> Flags {
        if condition { self.with(other) } else { self }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// The header of a packet, all of its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Incarnation of the connection's client.
    pub epoch: Epoch,
    /// Connection and channel.
    pub cid: Cid,
    /// The call, or 0 for the connection.
    pub call_number: CallNumber,
    /// DATA only: position in this direction of the call.
    pub seq: Seq,
    /// The sender's packet counter of this connection.
    pub serial: Serial,
    /// Packet type.
    pub packet_type: PacketType,
    /// Flags.
    pub flags: Flags,
    /// Application byte; 1 on the first DATA of a connection asks for a service upgrade.
    pub user_status: u8,
    /// Security class of the connection.
    pub security_index: SecurityIndex,
    /// The security class's header checksum; means something in DATA only (rx-wire.md 1.4).
    pub cksum: u16,
    /// The service addressed.
    pub service_id: ServiceId,
}

impl Header {
    /// Reads the header at the start of `datagram`; `None` if it is shorter than 28 bytes.
    /// Any 28 bytes are a header.
    #[inline]
    pub fn decode(datagram: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_LEN] = datagram.first_chunk()?;
        Some(Header {
            epoch: Epoch(word(bytes, offset::EPOCH)),
            cid: Cid(word(bytes, offset::CID)),
            call_number: CallNumber(word(bytes, offset::CALL_NUMBER)),
            seq: Seq(word(bytes, offset::SEQ)),
            serial: Serial(word(bytes, offset::SERIAL)),
            packet_type: PacketType::from_byte(bytes[offset::TYPE]),
            flags: Flags(bytes[offset::FLAGS]),
            user_status: bytes[offset::USER_STATUS],
            security_index: SecurityIndex(bytes[offset::SECURITY_INDEX]),
            cksum: half(bytes, offset::CKSUM),
            service_id: ServiceId(half(bytes, offset::SERVICE_ID)),
        })
    }

    /// The header as 28 bytes.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[offset::EPOCH..][..4].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[offset::CID..][..4].copy_from_slice(&self.cid.0.to_be_bytes());
        bytes[offset::CALL_NUMBER..][..4].copy_from_slice(&self.call_number.0.to_be_bytes());
        bytes[offset::SEQ..][..4].copy_from_slice(&self.seq.0.to_be_bytes());
        bytes[offset::SERIAL..][..4].copy_from_slice(&self.serial.0.to_be_bytes());
        bytes[offset::TYPE] = self.packet_type.byte();
        bytes[offset::FLAGS] = self.flags.0;
        bytes[offset::USER_STATUS] = self.user_status;
        bytes[offset::SECURITY_INDEX] = self.security_index.0;
        bytes[offset::CKSUM..][..2].copy_from_slice(&self.cksum.to_be_bytes());
        bytes[offset::SERVICE_ID..][..2].copy_from_slice(&self.service_id.0.to_be_bytes());
        bytes
    }

    /// Whether the sender is the client of the connection.
    #[inline]
    pub const fn is_from_client(&self) -> bool {
        self.flags.has(Flags::CLIENT_INITIATED)
    }
}

#[inline]
fn word(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn half(bytes: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::super::examples::{W1, W9, bytes};
    use super::*;

    #[test]
    fn a_header_is_read_and_written() {
        let datagram = bytes(W1);
        let header = Header {
            epoch: Epoch(0x8f3a_21c4),
            cid: Cid(0x5d0e_9a36),
            call_number: CallNumber(1),
            seq: Seq(1),
            serial: Serial(1),
            packet_type: PacketType::Data,
            flags: Flags::CLIENT_INITIATED.with(Flags::LAST_PACKET),
            user_status: 0,
            security_index: SecurityIndex::NULL,
            cksum: 0,
            service_id: ServiceId(1),
        };
        assert_eq!(Header::decode(&datagram), Some(header));
        assert_eq!(header.encode(), datagram[..HEADER_LEN]);
        let abort = Header::decode(&bytes(W9)).unwrap();
        assert_eq!(
            (abort.security_index, abort.packet_type),
            (SecurityIndex(2), PacketType::Abort)
        );
    }

    #[test]
    fn every_byte_has_its_place() {
        // The checksum comes before the service id, unlike in OpenAFS's struct (rx-wire.md 1).
        let bytes: [u8; HEADER_LEN] = std::array::from_fn(|at| at as u8);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!((header.cksum, header.service_id), (0x1819, ServiceId(0x1a1b)));
        assert_eq!((header.user_status, header.security_index), (22, SecurityIndex(23)));
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn every_truncation_is_refused_and_more_is_ignored() {
        let datagram = bytes(W1);
        for len in 0..=datagram.len() {
            assert_eq!(Header::decode(&datagram[..len]).is_some(), len >= HEADER_LEN);
        }
    }

    #[test]
    fn every_type_is_a_value() {
        for byte in 0..=255 {
            let packet_type = PacketType::from_byte(byte);
            assert_eq!(packet_type.byte(), byte);
            let is_unknown = matches!(packet_type, PacketType::Unknown(_));
            assert_eq!(is_unknown, matches!(byte, 0 | 12 | 14..));
        }
    }

    #[test]
    fn flags_are_sets() {
        let both = Flags::CLIENT_INITIATED.with(Flags::JUMBO_PACKET);
        assert!(both.has(Flags::CLIENT_INITIATED) && both.has(both) && both.has(Flags::NONE));
        assert!(!Flags::CLIENT_INITIATED.has(both));
        assert_eq!(both.without(Flags::JUMBO_PACKET), Flags::CLIENT_INITIATED);
        assert_eq!(both.with_if(false, Flags::LAST_PACKET), both);
        assert_eq!(both.with_if(true, Flags::LAST_PACKET), Flags(0x25));
    }
}
