//! Properties of the decoders and encoders over all inputs: nothing panics, nothing is lost.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rxrpc::wire::debug::{self, Record, Reply, Request, RequestType};
use rxrpc::wire::{
    AbortCode, Ack, AckReason, CallNumber, Challenge, Cid, DATA_PAYLOAD_MAX, Data, Epoch, Flags,
    FullTrailer, Header, JumboWriter, Packet, PacketType, Payload, Response, SecurityIndex, Seq,
    Serial, ServiceId, Trailer, Version, check_jumbo, sub_packets,
};

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut buffer = Vec::new();
    packet.encode(&mut buffer);
    buffer
}

prop_compose! {
    /// A header of any values.
    fn header()(
        (epoch, cid, call_number, seq, serial) in any::<(u32, u32, u32, u32, u32)>(),
        (packet_type, flags, user_status, security_index) in any::<(u8, u8, u8, u8)>(),
        (cksum, service_id) in any::<(u16, u16)>(),
    ) -> Header {
        Header {
            epoch: Epoch(epoch),
            cid: Cid(cid),
            call_number: CallNumber(call_number),
            seq: Seq(seq),
            serial: Serial(serial),
            packet_type: PacketType::from_byte(packet_type),
            flags: Flags(flags),
            user_status,
            security_index: SecurityIndex(security_index),
            cksum,
            service_id: ServiceId(service_id),
        }
    }
}

/// Trailers of 0, 2, 3 and 4 words, and excess that does not make one of the others of them.
fn trailer() -> impl Strategy<Value = (Trailer, Vec<u8>)> {
    let words = || any::<[u32; 4]>();
    prop_oneof![
        vec(any::<u8>(), 0..11).prop_map(|excess| (Trailer::None, excess)),
        (words(), vec(any::<u8>(), 0..8).prop_filter("three words", |excess| excess.len() != 4))
            .prop_map(|([max_mtu, if_mtu, ..], excess)| {
                (Trailer::Sizes { max_mtu, if_mtu }, excess)
            }),
        words().prop_map(|[max_mtu, if_mtu, rwind, _]| {
            (Trailer::Window { max_mtu, if_mtu, rwind }, Vec::new())
        }),
        (words(), vec(any::<u8>(), 0..1500)).prop_map(
            |([max_mtu, if_mtu, rwind, jumbo_max], excess)| {
                (Trailer::Full(FullTrailer { max_mtu, if_mtu, rwind, jumbo_max }), excess)
            }
        ),
    ]
}

proptest! {
    // The default place is beside lib.rs, which an integration test has none of.
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("regressions"),
    ))]

    #[test]
    fn arbitrary_bytes_never_panic_and_come_out_as_they_went_in(
        bytes in vec(any::<u8>(), 0..2000),
    ) {
        if let Ok(packet) = Packet::decode(&bytes) {
            prop_assert_eq!(encoded(&packet), bytes);
        }
    }

    // Arbitrary bytes rarely have a type that is known.
    #[test]
    fn arbitrary_payloads_of_known_types_never_panic_and_come_out_as_they_went_in(
        header in header(),
        packet_type in 0..=16u8,
        payload in vec(any::<u8>(), 0..400),
    ) {
        let header = Header { packet_type: PacketType::from_byte(packet_type), ..header };
        let bytes = [&header.encode()[..], &payload].concat();
        if let Ok(packet) = Packet::decode(&bytes) {
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(&encoded(&packet), &bytes);
            match packet.payload {
                Payload::Data(data) => {
                    let seen = data.packets(header).count();
                    prop_assert_eq!(seen, data.packets);
                }
                Payload::DebugReply(reply) => {
                    reply.record();
                }
                Payload::Version(version) => {
                    prop_assert!(version.text().len() <= 65);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn arbitrary_records_come_out_as_they_went_in(
        len in prop::sample::select(vec![8, 56, 132, 176, 284]),
        bytes in vec(any::<u8>(), 284),
    ) {
        let bytes = if len == 8 { &[0xff, 0xff, 0xff, 0xf8, 0xff, 0xff, 0xff, 0xf8] } else { &bytes[..len] };
        let mut buffer = Vec::new();
        Reply::decode(bytes).record().unwrap().encode(&mut buffer);
        prop_assert_eq!(buffer, bytes);
    }

    #[test]
    fn a_connection_of_version_l_keeps_what_it_has(bytes in vec(any::<u8>(), 172)) {
        let Some(Record::Connection(connection)) = Reply::decode(&bytes).record() else {
            return Err(TestCaseError::fail("not read"));
        };
        let mut current = Vec::new();
        connection.encode(&mut current);
        prop_assert_eq!(debug::Connection::decode(&current), Some(connection));
        prop_assert_eq!(&current[..37], &bytes[..37]);
        prop_assert_eq!(&current[40..56], &bytes[37..53]);
        prop_assert_eq!(&current[56..132], &bytes[56..132]);
    }

    #[test]
    fn headers_come_back(header in header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Some(header));
    }

    #[test]
    fn acks_come_back(
        header in header(),
        (first_packet, previous_packet, serial) in any::<(u32, u32, u32)>(),
        (buffer_space, max_skew, reason) in any::<(u16, u16, u8)>(),
        sacks in vec(any::<u8>(), 0..=255),
        padding in any::<[u8; 3]>(),
        (trailer, excess) in trailer(),
    ) {
        let ack = Ack {
            buffer_space,
            max_skew,
            first_packet: Seq(first_packet),
            previous_packet: Seq(previous_packet),
            serial: Serial(serial),
            reason: AckReason::from_byte(reason),
            sacks: &sacks,
            padding: if trailer == Trailer::None { [0; 3] } else { padding },
            trailer,
            excess: &excess,
        };
        let packet = Packet {
            header: Header { packet_type: PacketType::Ack, ..header },
            payload: Payload::Ack(ack),
        };
        let datagram = encoded(&packet);
        prop_assert_eq!(Packet::decode(&datagram), Ok(packet));
    }

    #[test]
    fn other_packets_come_back(
        header in header(),
        which in 0..10,
        code in any::<i32>(),
        (request_type, index) in any::<(i32, i32)>(),
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let excess = &bytes[..];
        let request = Request { request_type: RequestType::from_number(request_type), index };
        let (packet_type, payload) = match which {
            0 => (PacketType::Busy, Payload::Busy { excess }),
            1 => (PacketType::Abort, Payload::Abort { code: AbortCode(code), excess }),
            2 => (PacketType::AckAll, Payload::AckAll { excess }),
            3 => (PacketType::Challenge, Payload::Challenge(Challenge { body: excess })),
            4 => (PacketType::Response, Payload::Response(Response { body: excess })),
            5 => (PacketType::Debug, Payload::DebugRequest { request, excess }),
            6 => (PacketType::Debug, Payload::DebugReply(Reply { payload: excess })),
            7 => (PacketType::Params(10), Payload::Params(excess)),
            8 => (PacketType::Version, Payload::Version(Version { payload: excess })),
            _ => (PacketType::Unknown(12), Payload::Unknown(excess)),
        };
        let flags = match which {
            5 => header.flags.with(Flags::CLIENT_INITIATED),
            6 => header.flags.without(Flags::CLIENT_INITIATED),
            _ => header.flags,
        };
        let packet = Packet { header: Header { packet_type, flags, ..header }, payload };
        let datagram = encoded(&packet);
        prop_assert_eq!(Packet::decode(&datagram), Ok(packet));
    }

    #[test]
    fn data_packets_come_back(header in header(), bytes in vec(any::<u8>(), 0..3000)) {
        let flags = header.flags.without(Flags::JUMBO_PACKET);
        let packet = Packet {
            header: Header { packet_type: PacketType::Data, flags, ..header },
            payload: Payload::Data(Data { bytes: &bytes, packets: 1 }),
        };
        let datagram = encoded(&packet);
        prop_assert_eq!(Packet::decode(&datagram), Ok(packet));
    }

    #[test]
    fn jumbograms_come_back_packet_by_packet(
        header in header(),
        rest in vec(any::<(u8, u16, u8)>(), 0..46),
        last in vec(any::<u8>(), 0..=DATA_PAYLOAD_MAX),
    ) {
        let no_jumbo = |flags: Flags| flags.without(Flags::JUMBO_PACKET);
        let inside = |flags: Flags| no_jumbo(flags).without(Flags::LAST_PACKET);
        let count = rest.len() + 1;
        // Each packet's flags, checksum and payload as they are written; only the last may be LAST.
        let packets: Vec<(Flags, u16, Vec<u8>)> = [(header.flags.0, header.cksum, 0)]
            .into_iter()
            .chain(rest)
            .enumerate()
            .map(|(at, (flags, cksum, fill))| {
                if at + 1 == count {
                    (no_jumbo(Flags(flags)), cksum, last.clone())
                } else {
                    (inside(Flags(flags)), cksum, vec![fill; DATA_PAYLOAD_MAX])
                }
            })
            .collect();
        let header = Header { packet_type: PacketType::Data, flags: packets[0].0, ..header };
        let mut datagram = Vec::new();
        let mut writer = JumboWriter::start(&mut datagram, &header, &packets[0].2);
        for (flags, cksum, payload) in &packets[1..] {
            writer.append(*flags, *cksum, payload).unwrap();
        }
        let first = Header::decode(&datagram).unwrap();
        prop_assert_eq!(check_jumbo(&first, &datagram), Ok(count));
        let mut walk = sub_packets(first, datagram.len());
        for (at, (flags, cksum, payload)) in (0..).zip(&packets) {
            let came = walk.next_in(&datagram).unwrap();
            let jumbo = Flags::NONE.with_if(at + 1 < count as u32, Flags::JUMBO_PACKET);
            let expected = Header {
                seq: header.seq.plus(at),
                serial: header.serial.plus(at),
                flags: flags.with(jumbo),
                cksum: *cksum,
                user_status: if at == 0 { header.user_status } else { 0 },
                ..header
            };
            prop_assert_eq!(came.header, expected);
            prop_assert_eq!(&datagram[came.payload], &payload[..]);
        }
        prop_assert_eq!(walk.next_in(&datagram), None);
        prop_assert_eq!(encoded(&Packet::decode(&datagram).unwrap()), datagram);
    }

    #[test]
    fn damaged_jumbograms_never_panic_and_come_out_as_they_went_in(
        packets in 1..=5usize,
        (at, flip) in any::<(prop::sample::Index, u8)>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let header = Header::decode(&[1; 28]).unwrap();
        let mut datagram = Vec::new();
        let mut writer = JumboWriter::start(&mut datagram, &header, &[0; DATA_PAYLOAD_MAX]);
        for _ in 1..packets {
            writer.append(Flags::NONE, 0, &[0; DATA_PAYLOAD_MAX]).unwrap();
        }
        let at = at.index(datagram.len());
        datagram[at] ^= flip;
        datagram.truncate(cut.index(datagram.len() + 1));
        if let Ok(packet) = Packet::decode(&datagram) {
            prop_assert_eq!(encoded(&packet), &datagram[..]);
        }
        if let Some(header) = Header::decode(&datagram) {
            let mut walk = sub_packets(header, datagram.len());
            while let Some(packet) = walk.next_in(&datagram) {
                prop_assert!(datagram.get(packet.payload).is_some());
            }
        }
    }
}
