//! DATA packets and jumbograms (rx-wire.md 4.1 and 4.2).
//!
//! A jumbogram carries several DATA packets of one call: each but the last is exactly 1412 bytes and is
//! followed by a 4-byte header for the next. The whole datagram is checked before any part of it is used.

use super::header::FLAGS_OFFSET;
use super::{Flags, HEADER_LEN, Header};

/// Payload of every sub-packet of a jumbogram but the last, and our largest DATA payload.
pub const DATA_PAYLOAD_MAX: usize = 1412;
/// Bytes of the short header between two sub-packets.
pub const JUMBO_HEADER_LEN: usize = 4;
/// Most sub-packets that one UDP datagram can hold.
pub const JUMBO_PACKETS_MAX: usize = 46;

/// Why a DATA datagram cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JumboError {
    /// A sub-packet that is not the last is shorter than 1412 bytes plus the next header.
    #[error(
        "a sub-packet with JUMBO_PACKET shorter than {DATA_PAYLOAD_MAX} + {JUMBO_HEADER_LEN} bytes"
    )]
    Short,
    /// LAST_PACKET together with JUMBO_PACKET.
    #[error("a sub-packet with both LAST_PACKET and JUMBO_PACKET")]
    LastInside,
    /// More sub-packets than a UDP datagram can hold.
    #[error("more than {JUMBO_PACKETS_MAX} sub-packets")]
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
    /// As [`sub_packets`], but the bytes begin after the header.
    pub(super) fn of_payload(header: Header, payload_len: usize) -> SubPackets {
        SubPackets { next: Some(header), at: 0, datagram_len: payload_len }
    }

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

/// Writes one DATA datagram packet by packet: the second makes it a jumbogram.
///
/// Whether the peer takes jumbograms, and how many packets in one, is for the caller to know; never send a
/// retransmission in one (rx-wire.md 4.2).
pub struct JumboWriter<'a> {
    buffer: &'a mut Vec<u8>,
    /// Where the flags byte of the packet written last stands.
    flags_at: usize,
    payload_len: usize,
    packets: usize,
}

/// Why a packet cannot follow in the same datagram. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The packet before it is not exactly 1412 bytes.
    #[error("the packet before has {came} bytes, expected {DATA_PAYLOAD_MAX}")]
    NotFull {
        /// Payload of the packet before.
        came: usize,
    },
    /// The packet before it has LAST_PACKET.
    #[error("the packet before has LAST_PACKET")]
    AfterLast,
    /// The datagram has 46 packets.
    #[error("the datagram has {JUMBO_PACKETS_MAX} packets")]
    Full,
}

impl<'a> JumboWriter<'a> {
    /// Appends `header`, without JUMBO_PACKET, and the first packet's payload to `buffer`.
    pub fn start(buffer: &'a mut Vec<u8>, header: &Header, payload: &[u8]) -> JumboWriter<'a> {
        let flags = header.flags.without(Flags::JUMBO_PACKET);
        let flags_at = buffer.len() + FLAGS_OFFSET;
        buffer.extend_from_slice(&Header { flags, ..*header }.encode());
        buffer.extend_from_slice(payload);
        JumboWriter { buffer, flags_at, payload_len: payload.len(), packets: 1 }
    }

    /// Appends the next packet: its seq and serial are one above those of the packet before.
    ///
    /// `flags` needs CLIENT_INITIATED again on the client's side; JUMBO_PACKET is set and cleared here.
    pub fn append(&mut self, flags: Flags, cksum: u16, payload: &[u8]) -> Result<(), AppendError> {
        let before = Flags(self.buffer[self.flags_at]);
        if before.has(Flags::LAST_PACKET) {
            return Err(AppendError::AfterLast);
        }
        if self.payload_len != DATA_PAYLOAD_MAX {
            return Err(AppendError::NotFull { came: self.payload_len });
        }
        if self.packets == JUMBO_PACKETS_MAX {
            return Err(AppendError::Full);
        }
        self.buffer[self.flags_at] = before.with(Flags::JUMBO_PACKET).0;
        self.flags_at = self.buffer.len();
        let [high, low] = cksum.to_be_bytes();
        self.buffer.extend_from_slice(&[flags.without(Flags::JUMBO_PACKET).0, 0, high, low]);
        self.buffer.extend_from_slice(payload);
        self.payload_len = payload.len();
        self.packets += 1;
        Ok(())
    }

    /// Packets written so far: 1..=46.
    pub fn packets(&self) -> usize {
        self.packets
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{W1, W2, bytes, w15};
    use super::super::{Seq, Serial};
    use super::*;

    const LAST: Flags = Flags::CLIENT_INITIATED.with(Flags::LAST_PACKET);

    /// A jumbogram of `packets` packets, the last of `last_len` bytes; byte values say which packet.
    fn jumbogram(packets: usize, last_len: usize) -> Vec<u8> {
        let header = Header::decode(&bytes(W2)).unwrap();
        let header = Header { flags: Flags::NONE, ..header };
        let mut buffer = Vec::new();
        let len = |packet| if packet == packets { last_len } else { DATA_PAYLOAD_MAX };
        let mut writer = JumboWriter::start(&mut buffer, &header, &vec![1; len(1)]);
        for packet in 2..=packets {
            let flags = Flags::NONE.with_if(packet == packets, Flags::LAST_PACKET);
            let payload = vec![packet as u8; len(packet)];
            writer.append(flags, 1000 + packet as u16, &payload).unwrap();
        }
        assert_eq!(writer.packets(), packets);
        buffer
    }

    fn checked(datagram: &[u8]) -> Result<usize, JumboError> {
        check_jumbo(&Header::decode(datagram).unwrap(), datagram)
    }

    /// Header and payload of each packet.
    fn walked(datagram: &[u8]) -> Vec<(Header, &[u8])> {
        let mut walk = sub_packets(Header::decode(datagram).unwrap(), datagram.len());
        std::iter::from_fn(|| walk.next_in(datagram))
            .map(|packet| (packet.header, &datagram[packet.payload]))
            .collect()
    }

    #[test]
    fn a_single_packet_is_one_packet_of_any_size() {
        for (example, text) in [(W1, b"ping"), (W2, b"pong")] {
            let datagram = bytes(example);
            let header = Header::decode(&datagram).unwrap();
            assert_eq!(checked(&datagram), Ok(1));
            assert_eq!(walked(&datagram), [(header, &text[..])]);
            let mut buffer = Vec::new();
            JumboWriter::start(&mut buffer, &header, text);
            assert_eq!(buffer, datagram);
        }
        // From a sender without jumbograms a large packet is legal (rx-wire.md 4.1).
        for len in [0, 1, 1411, 1412, 1413, 1416, 16_000] {
            let datagram = jumbogram(1, len);
            assert_eq!((checked(&datagram), walked(&datagram)[0].1.len()), (Ok(1), len));
        }
    }

    #[test]
    fn the_example_is_read_and_written() {
        let datagram = w15();
        assert_eq!(checked(&datagram), Ok(2));
        let packets = walked(&datagram);
        let [(first, full), (last, ten)] = packets[..] else { panic!("{packets:?}") };
        assert_eq!((first.seq, first.serial, full.len()), (Seq(5), Serial(70), 1412));
        assert_eq!((last.seq, last.serial, ten.len()), (Seq(6), Serial(71), 10));
        assert_eq!((last.flags, last.cid, last.call_number), (LAST, first.cid, first.call_number));
        let mut buffer = Vec::new();
        JumboWriter::start(&mut buffer, &first, full).append(last.flags, 0, ten).unwrap();
        assert_eq!(buffer, datagram);
    }

    #[test]
    fn every_truncation_of_the_first_packet_is_refused() {
        let datagram = w15();
        for len in HEADER_LEN..datagram.len() {
            let expected = if len < 28 + 1412 + 4 { Err(JumboError::Short) } else { Ok(2) };
            assert_eq!(checked(&datagram[..len]), expected, "{len}");
        }
    }

    #[test]
    fn the_walk_over_what_was_not_checked_ends() {
        let datagram = jumbogram(4, 5);
        let header = Header::decode(&datagram).unwrap();
        for len in 0..datagram.len() {
            for claimed in [0, len, datagram.len(), usize::MAX] {
                let mut walk = sub_packets(header, claimed);
                let packets = std::iter::from_fn(|| walk.next_in(&datagram[..len])).count();
                assert!(packets <= 4);
            }
        }
    }

    #[test]
    fn jumbograms_hold_1_to_46_packets() {
        for packets in 1..=46 {
            let datagram = jumbogram(packets, 7);
            assert_eq!(datagram.len(), 28 + (packets - 1) * 1416 + 7);
            assert_eq!(checked(&datagram), Ok(packets));
            for (at, (header, payload)) in (0..).zip(walked(&datagram)) {
                let is_last = at as usize == packets - 1;
                assert_eq!((header.seq, header.serial), (Seq(1 + at), Serial(1 + at)));
                assert_eq!(header.flags.has(Flags::JUMBO_PACKET), !is_last);
                assert_eq!(header.flags.has(Flags::LAST_PACKET), is_last && packets > 1);
                assert_eq!(header.cksum, if at == 0 { 0 } else { 1001 + at as u16 });
                assert!(payload.iter().all(|byte| u32::from(*byte) == at + 1));
            }
        }
    }

    #[test]
    fn a_47th_packet_is_refused() {
        let mut datagram = jumbogram(46, DATA_PAYLOAD_MAX);
        let last_flags_at = 28 + 45 * 1416 - 4;
        datagram[last_flags_at] = Flags::JUMBO_PACKET.0;
        datagram.extend([0; 4]);
        assert_eq!(checked(&datagram), Err(JumboError::TooMany));
    }

    #[test]
    fn the_last_packet_cannot_be_followed_by_another() {
        let mut datagram = w15();
        datagram[FLAGS_OFFSET] |= Flags::LAST_PACKET.0;
        assert_eq!(checked(&datagram), Err(JumboError::LastInside));
    }

    #[test]
    fn numbers_wrap_inside_a_jumbogram() {
        let mut datagram = w15();
        datagram[12..20].fill(0xff);
        let packets = walked(&datagram);
        assert_eq!((packets[1].0.seq, packets[1].0.serial), (Seq(0), Serial(0)));
    }

    #[test]
    fn the_reserved_byte_of_a_short_header_is_ignored() {
        let mut datagram = w15();
        datagram[28 + 1412 + 1] = 0xff;
        assert_eq!(walked(&datagram), walked(&w15()));
    }

    #[test]
    fn a_packet_is_not_appended_where_it_would_be_misread() {
        let header = Header::decode(&bytes(W2)).unwrap();
        let open = Header { flags: Flags::JUMBO_PACKET, ..header };
        let mut buffer = vec![0xee; 3];
        let refused = |buffer: &mut Vec<u8>, header: &Header, len: usize| {
            let mut writer = JumboWriter::start(buffer, header, &vec![0; len]);
            writer.append(Flags::NONE, 0, b"more").unwrap_err()
        };
        assert_eq!(refused(&mut buffer, &header, 1412), AppendError::AfterLast);
        assert_eq!(buffer.len(), 3 + 28 + 1412);
        for came in [0, 1411, 1413] {
            buffer.truncate(3);
            assert_eq!(refused(&mut buffer, &open, came), AppendError::NotFull { came });
            assert_eq!(buffer.len(), 3 + 28 + came);
            assert_eq!(checked(&buffer[3..]), Ok(1));
        }
        let mut buffer = Vec::new();
        let full = [0; DATA_PAYLOAD_MAX];
        let mut writer = JumboWriter::start(&mut buffer, &open, &full);
        for _ in 2..=46 {
            writer.append(Flags::NONE, 0, &full).unwrap();
        }
        assert_eq!(writer.append(Flags::NONE, 0, &full), Err(AppendError::Full));
        assert_eq!((buffer.len(), checked(&buffer)), (65_160, Ok(46)));
    }
}
