//! ACK payload: state of the receiver, SACK table, trailer (rx-wire.md 4.4 and 5).

use super::{Seq, Serial};

/// Bytes before the SACK table.
pub const ACK_FIXED_LEN: usize = 18;
/// Zero bytes between the SACK table and the trailer words.
pub const ACK_PADDING_LEN: usize = 3;
/// Entries a SACK table can have.
pub const SACK_ENTRIES_MAX: usize = 255;
/// The longest ACK payload that [`Ack::encode`] writes.
pub const ACK_LEN_MAX: usize = ACK_FIXED_LEN + SACK_ENTRIES_MAX + ACK_PADDING_LEN + 16;

/// Why an ACK was sent (rx-wire.md 5). Unknown reasons are values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AckReason {
    /// 1: the DATA asked for it.
    Requested,
    /// 2: the DATA is already held or consumed.
    Duplicate,
    /// 3: the DATA leaves or meets a gap.
    OutOfSequence,
    /// 4: the DATA lies beyond the window.
    ExceedsWindow,
    /// 5: no buffers.
    NoSpace,
    /// 6: asks for a PING_RESPONSE.
    Ping,
    /// 7: answers a PING.
    PingResponse,
    /// 8: the delayed ACK's timer fired, or the application consumed data.
    Delay,
    /// 9: nothing special.
    Idle,
    /// 0 or above 9.
    Other(u8),
}

impl AckReason {
    /// The reason of this byte.
    pub const fn from_byte(byte: u8) -> AckReason {
        match byte {
            1 => AckReason::Requested,
            2 => AckReason::Duplicate,
            3 => AckReason::OutOfSequence,
            4 => AckReason::ExceedsWindow,
            5 => AckReason::NoSpace,
            6 => AckReason::Ping,
            7 => AckReason::PingResponse,
            8 => AckReason::Delay,
            9 => AckReason::Idle,
            other => AckReason::Other(other),
        }
    }

    /// The byte of this reason.
    pub const fn byte(self) -> u8 {
        match self {
            AckReason::Requested => 1,
            AckReason::Duplicate => 2,
            AckReason::OutOfSequence => 3,
            AckReason::ExceedsWindow => 4,
            AckReason::NoSpace => 5,
            AckReason::Ping => 6,
            AckReason::PingResponse => 7,
            AckReason::Delay => 8,
            AckReason::Idle => 9,
            AckReason::Other(byte) => byte,
        }
    }
}

/// The trailer words that an ACK carried (rx-wire.md 4.4.2). Old peers send fewer than four.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Trailer {
    /// Before AFS 3.3, or truncated: no size information. What does stand after the table, padding
    /// included, is in [`Ack::excess`].
    #[default]
    None,
    /// AFS 3.3: sizes only.
    Sizes {
        /// Largest packet the sender of the ACK accepts, Rx header included.
        max_mtu: u32,
        /// The size its interface suggests.
        if_mtu: u32,
    },
    /// AFS 3.4a: the window may only lower the send window.
    Window {
        /// Largest packet the sender of the ACK accepts, Rx header included.
        max_mtu: u32,
        /// The size its interface suggests.
        if_mtu: u32,
        /// Its receive window in packets, counted from `first_packet`.
        rwind: u32,
    },
    /// AFS 3.5 and every current peer.
    Full(FullTrailer),
}

/// All four trailer words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FullTrailer {
    /// Largest packet the sender of the ACK accepts, Rx header included.
    pub max_mtu: u32,
    /// The size its interface suggests.
    pub if_mtu: u32,
    /// Its receive window in packets, counted from `first_packet`.
    pub rwind: u32,
    /// Packets per datagram it accepts; 0 from Linux: "I do path-MTU discovery".
    pub jumbo_max: u32,
}

/// An ACK payload as received; the SACK table borrows from the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// Unused, 0 from every current peer.
    pub buffer_space: u16,
    /// Unused.
    pub max_skew: u16,
    /// Lowest seq that is not hard-acknowledged.
    pub first_packet: Seq,
    /// Unreliable across peers (rx-wire.md 4.4.5); ours is the highest seq accepted.
    pub previous_packet: Seq,
    /// Serial of the packet that provoked this ACK; 0 if none.
    pub serial: Serial,
    /// Why it was sent.
    pub reason: AckReason,
    /// The SACK table: entry i speaks of `first_packet + i`; only bit 0 counts.
    pub sacks: &'a [u8],
    /// The three bytes before the trailer: 0, but for extended SACK; ignored. Not written if there is
    /// no trailer.
    pub padding: [u8; ACK_PADDING_LEN],
    /// The trailer words.
    pub trailer: Trailer,
    /// Bytes after the trailer: the zero padding of an MTU probe, or a cut trailer word. Without a
    /// trailer, all bytes after the table.
    pub excess: &'a [u8],
}

/// Why an ACK payload cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AckError {
    /// Shorter than the fixed part.
    #[error("an ACK shorter than its fixed part of {ACK_FIXED_LEN} bytes")]
    Short,
    /// The table is longer than the payload.
    #[error("an ACK shorter than its SACK table")]
    TableCut,
}

impl<'a> Ack<'a> {
    /// Reads an ACK payload. The table's length is checked against the payload before it is used.
    pub fn decode(payload: &'a [u8]) -> Result<Ack<'a>, AckError> {
        let (fixed, rest) = payload.split_first_chunk::<ACK_FIXED_LEN>().ok_or(AckError::Short)?;
        let (sacks, rest) = rest.split_at_checked(fixed[17] as usize).ok_or(AckError::TableCut)?;
        let (padding, trailer, excess) = match rest.split_first_chunk::<ACK_PADDING_LEN>() {
            Some((padding, words)) => match Trailer::decode(words) {
                (Trailer::None, _) => ([0; ACK_PADDING_LEN], Trailer::None, rest),
                (trailer, len) => (*padding, trailer, &words[len..]),
            },
            None => ([0; ACK_PADDING_LEN], Trailer::None, rest),
        };
        Ok(Ack {
            buffer_space: u16::from_be_bytes([fixed[0], fixed[1]]),
            max_skew: u16::from_be_bytes([fixed[2], fixed[3]]),
            first_packet: Seq(word(fixed, 4)),
            previous_packet: Seq(word(fixed, 8)),
            serial: Serial(word(fixed, 12)),
            reason: AckReason::from_byte(fixed[16]),
            sacks,
            padding,
            trailer,
            excess,
        })
    }

    /// Appends the payload to `buffer`: fixed part, table (its first 255 entries), padding, trailer, excess.
    ///
    /// Whatever [`Ack::decode`] accepted comes out as it was.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let sacks = &self.sacks[..self.sacks.len().min(SACK_ENTRIES_MAX)];
        buffer.extend_from_slice(&self.buffer_space.to_be_bytes());
        buffer.extend_from_slice(&self.max_skew.to_be_bytes());
        buffer.extend_from_slice(&self.first_packet.0.to_be_bytes());
        buffer.extend_from_slice(&self.previous_packet.0.to_be_bytes());
        buffer.extend_from_slice(&self.serial.0.to_be_bytes());
        buffer.extend_from_slice(&[self.reason.byte(), sacks.len() as u8]);
        buffer.extend_from_slice(sacks);
        if self.trailer != Trailer::None {
            buffer.extend_from_slice(&self.padding);
        }
        self.trailer.encode(buffer);
        buffer.extend_from_slice(self.excess);
    }

    /// Whether entry `index` says "received".
    #[inline]
    pub fn is_acked(&self, index: usize) -> bool {
        self.sacks.get(index).is_some_and(|entry| entry & 1 == 1)
    }
}

impl Trailer {
    /// The trailer in the bytes after the padding, and how many bytes it takes.
    fn decode(words: &[u8]) -> (Trailer, usize) {
        let at = |index: usize| {
            let bytes = words.get(index * 4..index * 4 + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        match (at(0), at(1), at(2), at(3)) {
            (Some(max_mtu), Some(if_mtu), Some(rwind), Some(jumbo_max)) => {
                (Trailer::Full(FullTrailer { max_mtu, if_mtu, rwind, jumbo_max }), 16)
            }
            // OpenAFS takes a third word only from a payload that ends exactly after it.
            (Some(max_mtu), Some(if_mtu), Some(rwind), None) if words.len() == 12 => {
                (Trailer::Window { max_mtu, if_mtu, rwind }, 12)
            }
            (Some(max_mtu), Some(if_mtu), ..) => (Trailer::Sizes { max_mtu, if_mtu }, 8),
            _ => (Trailer::None, 0),
        }
    }

    fn encode(&self, buffer: &mut Vec<u8>) {
        let mut put = |words: &[u32]| {
            for word in words {
                buffer.extend_from_slice(&word.to_be_bytes());
            }
        };
        match *self {
            Trailer::None => {}
            Trailer::Sizes { max_mtu, if_mtu } => put(&[max_mtu, if_mtu]),
            Trailer::Window { max_mtu, if_mtu, rwind } => put(&[max_mtu, if_mtu, rwind]),
            Trailer::Full(full) => put(&[full.max_mtu, full.if_mtu, full.rwind, full.jumbo_max]),
        }
    }
}

fn word(fixed: &[u8; ACK_FIXED_LEN], at: usize) -> u32 {
    u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::super::HEADER_LEN;
    use super::super::examples::{W3, W4, W5, W6, bytes};
    use super::*;

    fn payload(example: &str) -> Vec<u8> {
        bytes(example).split_off(HEADER_LEN)
    }

    fn encoded(ack: &Ack<'_>) -> Vec<u8> {
        let mut buffer = Vec::new();
        ack.encode(&mut buffer);
        buffer
    }

    fn trailer(max_mtu: u32, rwind: u32, jumbo_max: u32) -> Trailer {
        Trailer::Full(FullTrailer { max_mtu, if_mtu: 1444, rwind, jumbo_max })
    }

    /// W3 without what differs between the examples.
    const PLAIN: Ack<'static> = Ack {
        buffer_space: 0,
        max_skew: 0,
        first_packet: Seq(1),
        previous_packet: Seq(0),
        serial: Serial(0),
        reason: AckReason::Idle,
        sacks: &[],
        padding: [0; 3],
        trailer: Trailer::None,
        excess: &[],
    };

    #[test]
    fn the_examples_are_read_and_written() {
        let final_ack = Ack {
            first_packet: Seq(2),
            previous_packet: Seq(1),
            serial: Serial(1),
            trailer: trailer(5692, 32, 4),
            ..PLAIN
        };
        let gap = Ack {
            first_packet: Seq(3),
            previous_packet: Seq(5),
            serial: Serial(9),
            reason: AckReason::OutOfSequence,
            sacks: &[0, 1, 1],
            trailer: trailer(5692, 32, 4),
            ..PLAIN
        };
        let ping = Ack { reason: AckReason::Ping, trailer: trailer(1444, 16, 1), ..PLAIN };
        let answer = Ack { reason: AckReason::PingResponse, serial: Serial(8), ..ping };
        for (example, ack) in [(W3, final_ack), (W4, gap), (W5, ping), (W6, answer)] {
            assert_eq!(Ack::decode(&payload(example)), Ok(ack));
            assert_eq!(encoded(&ack), payload(example));
        }
        assert!(!gap.is_acked(0) && gap.is_acked(1) && gap.is_acked(2) && !gap.is_acked(3));
    }

    #[test]
    fn every_truncation_is_an_error_or_comes_out_as_it_went_in() {
        let whole = payload(W4);
        for len in 0..whole.len() {
            match Ack::decode(&whole[..len]) {
                Ok(ack) => assert_eq!(encoded(&ack), whole[..len], "{len}"),
                Err(AckError::Short) => assert!(len < 18, "{len}"),
                Err(AckError::TableCut) => assert!((18..21).contains(&len), "{len}"),
            }
        }
    }

    #[test]
    fn a_trailer_is_read_as_openafs_reads_it() {
        // rx-wire.md 4.4.2: of 9 to 11 bytes and of 13 to 15 only the sizes count.
        let words: Vec<u8> = [1u32, 2, 3, 4].into_iter().flat_map(u32::to_be_bytes).collect();
        let sizes = Trailer::Sizes { max_mtu: 1, if_mtu: 2 };
        for len in 0..=16 {
            let mut payload = encoded(&PLAIN);
            payload.extend([0; ACK_PADDING_LEN]);
            payload.extend(&words[..len]);
            let expected = match len {
                0..8 => Trailer::None,
                12 => Trailer::Window { max_mtu: 1, if_mtu: 2, rwind: 3 },
                8..16 => sizes,
                _ => Trailer::Full(FullTrailer { max_mtu: 1, if_mtu: 2, rwind: 3, jumbo_max: 4 }),
            };
            let ack = Ack::decode(&payload).unwrap();
            assert_eq!(ack.trailer, expected, "{len}");
            assert_eq!(encoded(&ack), payload, "{len}");
        }
    }

    #[test]
    fn the_padding_of_an_mtu_probe_is_kept_apart_from_the_trailer() {
        let mut probe = payload(W5);
        probe.extend([0; 1379]);
        let ack = Ack::decode(&probe).unwrap();
        assert_eq!(ack.trailer, trailer(1444, 16, 1));
        assert_eq!(ack.excess.len(), 1379);
        assert_eq!(encoded(&ack), probe);
    }

    #[test]
    fn tables_are_full_at_255_entries() {
        for (given, written) in [(254, 254), (255, 255), (256, 255)] {
            let table = vec![1; given];
            let ack = Ack { sacks: &table, trailer: trailer(1444, 32, 1), ..PLAIN };
            let bytes = encoded(&ack);
            assert_eq!(bytes.len(), ACK_LEN_MAX - 255 + written);
            assert_eq!(Ack::decode(&bytes).unwrap().sacks.len(), written);
        }
    }

    #[test]
    fn odd_values_are_kept_and_only_bit_0_of_an_entry_counts() {
        let mut odd = payload(W4);
        odd[..18].fill(0xff);
        odd[17] = 3;
        odd[18..21].copy_from_slice(&[0xfe, 0xff, 0x01]);
        odd[21..24].copy_from_slice(&[1, 4, 0]);
        let ack = Ack::decode(&odd).unwrap();
        assert_eq!((ack.reason, ack.padding), (AckReason::Other(255), [1, 4, 0]));
        assert!(!ack.is_acked(0) && ack.is_acked(1) && ack.is_acked(2));
        assert_eq!(encoded(&ack), odd);
    }

    #[test]
    fn every_reason_is_a_value() {
        for byte in 0..=255 {
            let reason = AckReason::from_byte(byte);
            assert_eq!(reason.byte(), byte);
            assert_eq!(matches!(reason, AckReason::Other(_)), !(1..=9).contains(&byte));
        }
    }
}
