//! Packets as values: whatever can be built is read back as it was written.

use arbitrary::{Arbitrary, Result, Unstructured};
use rxrpc::wire::debug::{Reply, Request, RequestType};
use rxrpc::wire::{
    AbortCode, Ack, AckReason, CallNumber, Challenge, Cid, Data, Epoch, Flags, FullTrailer, Header,
    Packet, PacketType, Payload, Response, SecurityIndex, Seq, Serial, ServiceId, Trailer, Version,
};

use super::rest;

/// Writes a packet of any values and reads it.
pub fn run(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    let Ok(header) = header(&mut source) else { return };
    let Ok((packet_type, flags, payload)) = payload(&mut source, header.flags) else { return };
    let packet = Packet { header: Header { packet_type, flags, ..header }, payload };
    let mut datagram = Vec::new();
    packet.encode(&mut datagram);
    assert_eq!(Packet::decode(&datagram), Ok(packet));
}

fn header(source: &mut Unstructured<'_>) -> Result<Header> {
    let (epoch, cid, call_number, seq, serial) = Arbitrary::arbitrary(source)?;
    let (flags, user_status, security_index, cksum, service_id) = Arbitrary::arbitrary(source)?;
    Ok(Header {
        epoch: Epoch(epoch),
        cid: Cid(cid),
        call_number: CallNumber(call_number),
        seq: Seq(seq),
        serial: Serial(serial),
        packet_type: PacketType::Data,
        flags: Flags(flags),
        user_status,
        security_index: SecurityIndex(security_index),
        cksum,
        service_id: ServiceId(service_id),
    })
}

fn payload<'a>(
    source: &mut Unstructured<'a>,
    flags: Flags,
) -> Result<(PacketType, Flags, Payload<'a>)> {
    let number = source.arbitrary()?;
    let packet_type = PacketType::from_byte(number);
    let from_client = flags.with(Flags::CLIENT_INITIATED);
    Ok(match packet_type {
        PacketType::Data => {
            let flags = flags.without(Flags::JUMBO_PACKET);
            (packet_type, flags, Payload::Data(Data { bytes: rest(source), packets: 1 }))
        }
        PacketType::Ack => (packet_type, flags, Payload::Ack(ack(source)?)),
        PacketType::Busy => (packet_type, flags, Payload::Busy { excess: rest(source) }),
        PacketType::Abort => {
            let code = AbortCode(source.arbitrary()?);
            (packet_type, flags, Payload::Abort { code, excess: rest(source) })
        }
        PacketType::AckAll => (packet_type, flags, Payload::AckAll { excess: rest(source) }),
        PacketType::Challenge => {
            (packet_type, flags, Payload::Challenge(Challenge { body: rest(source) }))
        }
        PacketType::Response => {
            (packet_type, flags, Payload::Response(Response { body: rest(source) }))
        }
        PacketType::Debug if source.arbitrary()? => {
            let request_type = RequestType::from_number(source.arbitrary()?);
            let request = Request { request_type, index: source.arbitrary()? };
            let excess = rest(source);
            (packet_type, from_client, Payload::DebugRequest { request, excess })
        }
        PacketType::Debug => {
            let reply = Reply { payload: rest(source) };
            let from_server = flags.without(Flags::CLIENT_INITIATED);
            (packet_type, from_server, Payload::DebugReply(reply))
        }
        PacketType::Params(_) => (packet_type, flags, Payload::Params(rest(source))),
        PacketType::Version => {
            (packet_type, flags, Payload::Version(Version { payload: rest(source) }))
        }
        PacketType::Unknown(_) => (packet_type, flags, Payload::Unknown(rest(source))),
    })
}

fn ack<'a>(source: &mut Unstructured<'a>) -> Result<Ack<'a>> {
    let (buffer_space, max_skew, first_packet, previous_packet, serial) = source.arbitrary()?;
    let (reason, table_len, padding, words): (u8, u8, [u8; 3], [u32; 4]) = source.arbitrary()?;
    let [max_mtu, if_mtu, rwind, jumbo_max] = words;
    let trailer = match source.int_in_range(0..=3)? {
        0 => Trailer::None,
        1 => Trailer::Sizes { max_mtu, if_mtu },
        2 => Trailer::Window { max_mtu, if_mtu, rwind },
        _ => Trailer::Full(FullTrailer { max_mtu, if_mtu, rwind, jumbo_max }),
    };
    let sacks = source.bytes(usize::from(table_len).min(source.len()))?;
    let rest = rest(source);
    // What stands behind a trailer must not make a longer one of it (rx-wire.md 4.4.2).
    let excess = match trailer {
        Trailer::None => &rest[..rest.len().min(10)],
        Trailer::Sizes { .. } if rest.len() == 4 => &rest[..3],
        Trailer::Sizes { .. } => &rest[..rest.len().min(7)],
        Trailer::Window { .. } => &[],
        Trailer::Full(_) => rest,
    };
    Ok(Ack {
        buffer_space,
        max_skew,
        first_packet: Seq(first_packet),
        previous_packet: Seq(previous_packet),
        serial: Serial(serial),
        reason: AckReason::from_byte(reason),
        sacks,
        padding: if trailer == Trailer::None { [0; 3] } else { padding },
        trailer,
        excess,
    })
}
