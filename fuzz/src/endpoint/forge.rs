//! Datagrams that fit what exists: ids that are known, numbers near those in use, payloads with a form.

use arbitrary::{Arbitrary, Result, Unstructured};
use rxrpc::wire::{
    AbortCode, Ack, AckReason, CallNumber, Cid, Epoch, Flags, FullTrailer, Header, PacketType,
    SecurityIndex, Seq, Serial, ServiceId, Trailer, encode_abort,
};

/// Of the endpoint's client connections.
pub const OUR_EPOCH: Epoch = Epoch(0x8000_0001);
/// Datagrams of the endpoint that are kept to be sent back.
const SENT_KEPT: usize = 16;

/// A header's numbers, each from a small range around what is in use.
#[derive(Arbitrary, Debug)]
pub struct Forged {
    epoch: u8,
    cid: u8,
    call_number: u8,
    seq: u8,
    serial: u8,
    packet_type: u8,
    flags: u8,
    security_index: bool,
    service_id: u8,
    user_status: u8,
    payload: ForgedPayload,
}

#[derive(Arbitrary, Debug)]
enum ForgedPayload {
    Filled {
        len: u16,
    },
    Bytes {
        len: u8,
    },
    Ack {
        first: u8,
        previous: u8,
        serial: u8,
        reason: u8,
        table: u8,
        fill: u8,
        window: u8,
        sizes: u16,
    },
    Abort {
        code: i32,
    },
    Jumbogram {
        packets: u8,
        last_len: u8,
        flags: u8,
    },
}

/// What datagrams are made of.
#[derive(Debug, Default)]
pub struct Forge {
    sent: Vec<Vec<u8>>,
    next: usize,
}

impl Forge {
    /// The endpoint has sent this.
    pub fn note(&mut self, datagram: Vec<u8>) {
        if self.sent.len() < SENT_KEPT {
            self.sent.push(datagram);
        } else {
            self.sent[self.next % SENT_KEPT] = datagram;
        }
        self.next += 1;
    }

    pub fn sent(&self, which: u8) -> Option<Vec<u8>> {
        // 0 is the latest.
        let back = usize::from(which) % self.sent.len().max(1) + 1;
        self.sent.get((self.next.checked_sub(back)?) % SENT_KEPT).cloned()
    }

    pub fn datagram(&self, forged: &Forged, source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let is_ours = forged.epoch % 4 < 2;
        let epoch = match forged.epoch % 4 {
            0 | 1 => OUR_EPOCH,
            at => super::THEIR_EPOCHS[usize::from(at - 2)],
        };
        let flags = Flags(forged.flags);
        // Mostly in the right direction.
        let flags = match forged.epoch & 0x80 == 0 {
            true if is_ours => flags.without(Flags::CLIENT_INITIATED),
            true => flags.with(Flags::CLIENT_INITIATED),
            false => flags,
        };
        let near = |number: u8| {
            if number < 250 { u32::from(number) } else { u32::MAX - u32::from(255 - number) }
        };
        let header = Header {
            epoch,
            cid: Cid(4 + u32::from(forged.cid % 32)),
            call_number: CallNumber(near(forged.call_number)),
            seq: Seq(near(forged.seq)),
            serial: Serial(near(forged.serial)),
            packet_type: PacketType::from_byte(forged.packet_type % 16),
            flags,
            user_status: forged.user_status,
            security_index: SecurityIndex(if forged.security_index { 2 } else { 0 }),
            cksum: 0,
            service_id: ServiceId(u16::from(forged.service_id % 5)),
        };
        let mut datagram = header.encode().to_vec();
        match forged.payload {
            ForgedPayload::Filled { len } => {
                datagram.resize(datagram.len() + usize::from(len % 1500), forged.seq);
            }
            ForgedPayload::Bytes { len } => {
                let len = usize::from(len).min(source.len());
                datagram.extend_from_slice(source.bytes(len)?);
            }
            ForgedPayload::Ack { first, previous, serial, reason, table, fill, window, sizes } => {
                let table = vec![fill; usize::from(table % 64)];
                let trailer = FullTrailer {
                    max_mtu: u32::from(sizes),
                    if_mtu: 1444,
                    rwind: near(window),
                    jumbo_max: u32::from(window % 8),
                };
                let ack = Ack {
                    buffer_space: 0,
                    max_skew: 0,
                    first_packet: Seq(near(first)),
                    previous_packet: Seq(near(previous)),
                    serial: Serial(near(serial)),
                    reason: AckReason::from_byte(reason % 12),
                    sacks: &table,
                    padding: [0; 3],
                    trailer: if sizes == 0 { Trailer::None } else { Trailer::Full(trailer) },
                    excess: &[],
                };
                ack.encode(&mut datagram);
            }
            ForgedPayload::Abort { code } => {
                datagram.extend_from_slice(&encode_abort(AbortCode(code)));
            }
            ForgedPayload::Jumbogram { packets, last_len, flags } => {
                let packets = usize::from(packets % 47);
                datagram[21] |= if packets > 0 { Flags::JUMBO_PACKET.0 } else { 0 };
                datagram[21] &= !Flags::LAST_PACKET.0;
                for packet in 0..packets {
                    datagram.resize(datagram.len() + 1412, packet as u8);
                    let jumbo = Flags(flags).with_if(packet + 1 < packets, Flags::JUMBO_PACKET);
                    datagram.extend_from_slice(&[jumbo.0, 0, 0, 0]);
                }
                datagram.resize(datagram.len() + usize::from(last_len), 1);
            }
        }
        Ok(datagram)
    }
}
