//! A whole datagram as one value: the header and the payload of its type (rx-wire.md 3).
//!
//! For whoever wants to look at any packet: tools, logs, tests. Every datagram that [`Packet::decode`]
//! accepts, [`Packet::encode`] gives back byte for byte: what a receiver ignores is kept. The protocol core
//! reads the header first and then only what it needs.

use super::debug::{self, Reply, Request};
use super::{
    ABORT_LEN, ACK_FIXED_LEN, AbortCode, Ack, AckError, Challenge, HEADER_LEN, Header, JumboError,
    PacketType, Response, SubPackets, Version, check_jumbo, decode_abort, encode_abort,
};

/// A datagram; payloads borrow from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The datagram's header; its type is that of the payload.
    pub header: Header,
    /// What follows it.
    pub payload: Payload<'a>,
}

/// What follows the header, by the header's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// One DATA packet or a jumbogram.
    Data(Data<'a>),
    /// The receiver's state.
    Ack(Ack<'a>),
    /// The channel's present call cannot be ended.
    Busy {
        /// Ignored.
        excess: &'a [u8],
    },
    /// The call, or the connection, is over.
    Abort {
        /// Why.
        code: AbortCode,
        /// Ignored.
        excess: &'a [u8],
    },
    /// Everything is acknowledged.
    AckAll {
        /// Ignored.
        excess: &'a [u8],
    },
    /// The server's question.
    Challenge(Challenge<'a>),
    /// The client's proof.
    Response(Response<'a>),
    /// DEBUG with CLIENT_INITIATED.
    DebugRequest {
        /// What is asked for.
        request: Request,
        /// Ignored.
        excess: &'a [u8],
    },
    /// DEBUG without CLIENT_INITIATED.
    DebugReply(Reply<'a>),
    /// Types 9, 10 and 11: to be discarded.
    Params(&'a [u8]),
    /// Request, reply or NAT keepalive.
    Version(Version<'a>),
    /// Any other type: to be discarded.
    Unknown(&'a [u8]),
}

/// Payload of a DATA datagram: one packet, or a well-formed jumbogram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data<'a> {
    /// All after the header, short headers of a jumbogram included.
    pub bytes: &'a [u8],
    /// Packets in it: 1, or 2..=46 in a jumbogram.
    pub packets: usize,
}

/// Why a datagram is no packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketError {
    /// Too short for a header.
    #[error("{came} bytes came, expected a header of {HEADER_LEN}")]
    HeaderShort {
        /// Bytes of the datagram.
        came: usize,
    },
    /// Too short for what its type needs.
    #[error("a payload of {came} bytes came in {packet_type:?}, expected {expected} at least")]
    PayloadShort {
        /// The header's type.
        packet_type: PacketType,
        /// Bytes it needs: of an ACK, its SACK table included.
        expected: usize,
        /// Bytes after the header.
        came: usize,
    },
    /// DATA whose packets do not fit together.
    #[error(transparent)]
    Jumbogram(#[from] JumboError),
}

impl<'a> Packet<'a> {
    /// Reads a datagram of any type and either direction.
    pub fn decode(datagram: &'a [u8]) -> Result<Packet<'a>, PacketError> {
        let too_short = PacketError::HeaderShort { came: datagram.len() };
        let header = Header::decode(datagram).ok_or(too_short)?;
        let bytes = &datagram[HEADER_LEN..];
        let short = |expected| PacketError::PayloadShort {
            packet_type: header.packet_type,
            expected,
            came: bytes.len(),
        };
        let payload = match header.packet_type {
            PacketType::Data => {
                Payload::Data(Data { bytes, packets: check_jumbo(&header, datagram)? })
            }
            PacketType::Ack => Payload::Ack(Ack::decode(bytes).map_err(|error| match error {
                AckError::Short => short(ACK_FIXED_LEN),
                AckError::TableCut => short(ACK_FIXED_LEN + usize::from(bytes[ACK_FIXED_LEN - 1])),
            })?),
            PacketType::Busy => Payload::Busy { excess: bytes },
            PacketType::Abort => Payload::Abort {
                code: decode_abort(bytes).ok_or(short(ABORT_LEN))?,
                excess: &bytes[ABORT_LEN..],
            },
            PacketType::AckAll => Payload::AckAll { excess: bytes },
            PacketType::Challenge => Payload::Challenge(Challenge::decode(bytes)),
            PacketType::Response => Payload::Response(Response::decode(bytes)),
            PacketType::Debug if header.is_from_client() => Payload::DebugRequest {
                request: Request::decode(bytes).ok_or(short(debug::REQUEST_LEN))?,
                excess: &bytes[debug::REQUEST_LEN..],
            },
            PacketType::Debug => Payload::DebugReply(Reply::decode(bytes)),
            PacketType::Params(_) => Payload::Params(bytes),
            PacketType::Version => Payload::Version(Version::decode(bytes)),
            PacketType::Unknown(_) => Payload::Unknown(bytes),
        };
        Ok(Packet { header, payload })
    }

    /// Appends the datagram to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.header.encode());
        self.payload.encode(buffer);
    }
}

impl Payload<'_> {
    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match self {
            Payload::Data(data) => buffer.extend_from_slice(data.bytes),
            Payload::Ack(ack) => ack.encode(buffer),
            Payload::Abort { code, excess } => {
                buffer.extend_from_slice(&encode_abort(*code));
                buffer.extend_from_slice(excess);
            }
            Payload::Challenge(challenge) => challenge.encode(buffer),
            Payload::Response(response) => response.encode(buffer),
            Payload::DebugRequest { request, excess } => {
                request.encode(buffer);
                buffer.extend_from_slice(excess);
            }
            Payload::DebugReply(reply) => reply.encode(buffer),
            Payload::Version(version) => version.encode(buffer),
            Payload::Busy { excess: bytes }
            | Payload::AckAll { excess: bytes }
            | Payload::Params(bytes)
            | Payload::Unknown(bytes) => buffer.extend_from_slice(bytes),
        }
    }
}

impl<'a> Data<'a> {
    /// Each packet: its own header, as it would stand on a datagram of its own, and its payload.
    ///
    /// `header` is the datagram's.
    pub fn packets(&self, header: Header) -> impl Iterator<Item = (Header, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let mut walk = SubPackets::of_payload(header, bytes.len());
        std::iter::from_fn(move || {
            let packet = walk.next_in(bytes)?;
            Some((packet.header, bytes.get(packet.payload)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{self, *};
    use super::super::{CallNumber, Flags, Seq, Serial, Trailer};
    use super::*;

    fn encoded(packet: &Packet<'_>) -> Vec<u8> {
        let mut buffer = Vec::new();
        packet.encode(&mut buffer);
        buffer
    }

    #[test]
    fn every_example_comes_out_as_it_went_in() {
        for (number, datagram) in (1..).zip(examples::all()) {
            let packet = Packet::decode(&datagram);
            let packet = packet.unwrap_or_else(|error| panic!("W{number}: {error}"));
            assert_eq!(encoded(&packet), datagram, "W{number}");
        }
    }

    #[test]
    fn every_example_has_the_type_it_is_named_for() {
        let types: Vec<u8> = examples::all().iter().map(|datagram| datagram[20]).collect();
        assert_eq!(types, [1, 1, 2, 2, 2, 2, 3, 4, 4, 5, 13, 13, 8, 8, 1]);
        let busy = bytes(W7);
        let busy = Packet::decode(&busy).unwrap();
        assert_eq!(busy.payload, Payload::Busy { excess: &[] });
        assert_eq!((busy.header.call_number, busy.header.serial), (CallNumber(6), Serial(40)));
        let ack_all = bytes(W10);
        let ack_all = Packet::decode(&ack_all).unwrap();
        assert_eq!(ack_all.payload, Payload::AckAll { excess: &[] });
        assert!(ack_all.header.is_from_client());
        let request = bytes(W13);
        let request = Packet::decode(&request).unwrap();
        assert!(matches!(request.payload, Payload::DebugRequest { excess: [], .. }));
        let reply = bytes(W14);
        let reply = Packet::decode(&reply).unwrap();
        assert!(matches!(reply.payload, Payload::DebugReply(_)));
    }

    #[test]
    fn every_truncation_is_an_error_or_comes_out_as_it_went_in() {
        for (number, datagram) in (1..).zip(examples::all()) {
            for len in 0..datagram.len() {
                let cut = &datagram[..len];
                match Packet::decode(cut) {
                    Ok(packet) => assert_eq!(encoded(&packet), cut, "W{number} cut to {len}"),
                    Err(PacketError::HeaderShort { came }) => {
                        assert!(came == len && len < 28, "W{number} cut to {len}");
                    }
                    Err(PacketError::PayloadShort { expected, came, .. }) => {
                        assert!(came + 28 == len && came < expected, "W{number} cut to {len}");
                    }
                    Err(PacketError::Jumbogram(error)) => {
                        assert_eq!((number, error), (15, JumboError::Short));
                        assert!(len < 28 + 1412 + 4, "cut to {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_that_a_receiver_ignores_are_kept() {
        for (number, mut datagram) in (1..).zip(examples::all()) {
            datagram.extend([0xa5, 0x5a, 0xff]);
            let packet = Packet::decode(&datagram).unwrap();
            assert_eq!(encoded(&packet), datagram, "W{number}");
        }
    }

    #[test]
    fn every_type_and_flag_is_a_value() {
        for packet_type in 0..=255 {
            for flags in 0..=255 {
                let mut datagram = bytes(W3);
                datagram[20] = packet_type;
                datagram[21] = flags;
                match Packet::decode(&datagram) {
                    Ok(packet) => assert_eq!(encoded(&packet), datagram),
                    Err(error) => {
                        assert!(packet_type == 1 && flags & 0x20 != 0, "{packet_type}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn old_bytes_in_the_checksum_field_are_kept() {
        // OpenAFS leaves them in CHALLENGE, RESPONSE and ABORT (rx-wire.md 1.4).
        let mut datagram = bytes(W9);
        datagram[24..26].copy_from_slice(&[0x03, 0xe7]);
        let packet = Packet::decode(&datagram).unwrap();
        assert_eq!(packet.header.cksum, 999);
        assert_eq!(encoded(&packet), datagram);
    }

    #[test]
    fn errors_name_what_was_expected_and_what_came() {
        let shown = |datagram: &[u8]| Packet::decode(datagram).unwrap_err().to_string();
        assert_eq!(shown(&bytes(W1)[..27]), "27 bytes came, expected a header of 28");
        assert_eq!(
            shown(&bytes(W8)[..31]),
            "a payload of 3 bytes came in Abort, expected 4 at least"
        );
        assert_eq!(
            shown(&bytes(W4)[..48]),
            "a payload of 20 bytes came in Ack, expected 21 at least"
        );
    }

    #[test]
    fn a_jumbogram_is_seen_packet_by_packet() {
        let datagram = w15();
        let packet = Packet::decode(&datagram).unwrap();
        let Payload::Data(data) = packet.payload else { panic!("{packet:?}") };
        assert_eq!(data.packets, 2);
        let seen: Vec<_> = data.packets(packet.header).collect();
        assert_eq!(seen.len(), 2);
        let (first, last) = (seen[0], seen[1]);
        assert_eq!((first.0.seq, first.0.serial, first.1.len()), (Seq(5), Serial(70), 1412));
        assert_eq!((last.0.seq, last.0.serial, last.1.len()), (Seq(6), Serial(71), 10));
        assert_eq!(last.0.flags, Flags::CLIENT_INITIATED.with(Flags::LAST_PACKET));
    }

    #[test]
    fn an_ack_whose_trailer_is_cut_keeps_the_pieces() {
        let whole = bytes(W3);
        for len in 46..=whole.len() {
            let packet = Packet::decode(&whole[..len]).unwrap();
            let Payload::Ack(ack) = packet.payload else { panic!("{packet:?}") };
            let (words, excess) = match len - 46 {
                after @ 0..11 => (0, after),
                after @ 11..15 => (2, after - 11),
                15 => (3, 0),
                after @ 16..19 => (2, after - 11),
                _ => (4, 0),
            };
            let came = match ack.trailer {
                Trailer::None => 0,
                Trailer::Sizes { .. } => 2,
                Trailer::Window { .. } => 3,
                Trailer::Full(_) => 4,
            };
            assert_eq!((came, ack.excess.len()), (words, excess), "cut to {len}");
        }
    }
}
