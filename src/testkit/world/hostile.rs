//! Somebody who means harm, and what he sends when.
//!
//! Without a security class, who sees the packets of a call can forge them: no rule could hold. So he sees nothing
//! but what is sent to himself, and knows everybody's address and port; he forges datagrams in his own name, in that
//! of an address where nobody is, and in that of a host. Besides, the network itself repeats what hosts have sent,
//! seconds later and unchanged: as long as a server may be taken to remember a connection.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::plan::{HostIndex, Plan, SERVICE};
use super::random::{Seed, Stream};
use crate::wire::{
    Ack, AckReason, CallNumber, Cid, Epoch, Flags, Header, PacketType, SecurityIndex, Seq, Serial,
    ServiceId, Trailer,
};

/// How long a datagram may be repeated: an aborted connection is remembered for 10 s.
const REPEATED_MAX: Duration = Duration::from_secs(8);
/// Datagrams remembered of each link.
const REMEMBERED_MAX: usize = 32;
/// His epochs: of a client that is known by its address, and of one that is not.
const EPOCHS: [Epoch; 2] = [Epoch(0x3bad_0001), Epoch(0xbbad_0002)];

/// Something that he does.
#[derive(Clone, Copy, Debug)]
pub struct HostilePlan {
    /// When.
    pub at: Duration,
    /// Whose packets are repeated, or in whose name he forges.
    pub from: HostIndex,
    /// Who gets it.
    pub to: HostIndex,
    /// What he does.
    pub what: HostileKind,
    /// What the rest is drawn from.
    pub seed: u64,
}

/// See [`HostilePlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostileKind {
    /// A datagram of the last seconds comes once more, as it was.
    Repeat,
    /// Forged, from his own address.
    Own,
    /// Forged, from an address where nobody is.
    Nobody,
    /// Forged, from the address of the host [`HostilePlan::from`].
    Spoofed,
    /// What was sent to him, with some bits changed or cut short, from his own address.
    Mangled,
    /// Bytes without meaning, from the address of the host.
    Noise,
}

/// His address.
pub(super) fn own_address() -> SocketAddr {
    SocketAddr::from(([10, 66, 0, 1], 7001))
}

/// An address where nobody is.
pub(super) fn nobodys_address() -> SocketAddr {
    SocketAddr::from(([10, 66, 0, 2], 7001))
}

/// Whether only he uses this epoch.
pub(super) fn is_his(epoch: Epoch) -> bool {
    EPOCHS.contains(&epoch)
}

/// What was sent lately and when, by link.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<(SocketAddr, SocketAddr), VecDeque<(Duration, Bytes)>>);

impl Memory {
    pub fn note(&mut self, now: Duration, from: SocketAddr, to: SocketAddr, datagram: &Bytes) {
        let link = self.0.entry((from, to)).or_default();
        if link.len() == REMEMBERED_MAX {
            link.pop_front();
        }
        link.push_back((now, datagram.clone()));
    }

    fn pick(
        &self,
        now: Duration,
        from: SocketAddr,
        to: SocketAddr,
        stream: &mut Stream,
    ) -> Option<Bytes> {
        let link = self.0.get(&(from, to))?;
        let fresh = link.iter().filter(|(at, _)| now - *at <= REPEATED_MAX);
        let fresh: Vec<_> = fresh.collect();
        let index = stream.below(fresh.len() as u64) as usize;
        fresh.get(index).map(|(_, datagram)| datagram.clone())
    }

    /// What he sends now, and in whose name; nothing, if there is nothing to repeat.
    pub fn act(
        &self,
        now: Duration,
        plan: &Plan,
        hostile: &HostilePlan,
    ) -> Option<(SocketAddr, Bytes)> {
        let stream = &mut Seed(hostile.seed).stream("hostile");
        let (from, to) = (plan.address(hostile.from), plan.address(hostile.to));
        Some(match hostile.what {
            HostileKind::Repeat => (from, self.pick(now, from, to, stream)?),
            HostileKind::Own => (own_address(), forged(stream)),
            HostileKind::Nobody => (nobodys_address(), forged(stream)),
            HostileKind::Spoofed => (from, forged(stream)),
            HostileKind::Mangled => {
                let heard = self.pick(now, to, own_address(), stream)?;
                (own_address(), mangled(&heard, stream))
            }
            HostileKind::Noise => {
                let len = stream.below(64) as usize;
                let mut noise: Vec<u8> = (0..len).map(|_| stream.draw() as u8).collect();
                // Not by chance the epoch of somebody.
                noise.iter_mut().zip(EPOCHS[0].0.to_be_bytes()).for_each(|(at, byte)| *at = byte);
                (from, noise.into())
            }
        })
    }
}

/// A packet that could be one of a call.
fn forged(stream: &mut Stream) -> Bytes {
    let packet_type = match stream.below(8) {
        0..=3 => PacketType::Data,
        4 | 5 => PacketType::Ack,
        6 => PacketType::Abort,
        _ => PacketType::from_byte(stream.below(16) as u8),
    };
    let from_client = stream.chance(0.9);
    let flags = Flags(stream.below(64) as u8 & !Flags::CLIENT_INITIATED.0);
    let header = Header {
        epoch: stream.pick(&EPOCHS),
        cid: Cid(stream.between(4, 11) as u32),
        call_number: CallNumber(stream.between(0, 3) as u32),
        seq: Seq(stream.pick(&[1, 1, 1, 2, 3, 33, 0x7fff_ffff])),
        serial: Serial(stream.between(1, 100) as u32),
        packet_type,
        flags: flags.with_if(from_client, Flags::CLIENT_INITIATED),
        user_status: 0,
        security_index: SecurityIndex(stream.pick(&[0, 0, 0, 0, 2])),
        cksum: 0,
        service_id: ServiceId(stream.pick(&[SERVICE, SERVICE, SERVICE, 1])),
    };
    let mut bytes = header.encode().to_vec();
    if packet_type == PacketType::Ack {
        let sacks: Vec<u8> = (0..stream.below(5)).map(|_| stream.below(2) as u8).collect();
        Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: Seq(stream.below(5) as u32),
            previous_packet: Seq(stream.below(5) as u32),
            // Not one that was sent: whoever names that has proved the address that he uses.
            serial: Serial(stream.draw() as u32 | 0x8000_0000),
            reason: AckReason::from_byte(stream.between(1, 9) as u8),
            sacks: &sacks,
            padding: [0; 3],
            trailer: Trailer::None,
            excess: &[],
        }
        .encode(&mut bytes);
    } else {
        // The request of no call: see `Book::request_so_far`.
        let len = stream.pick(&[0, 4, 100, 1412]);
        bytes.resize(bytes.len() + len, 0xff);
    }
    if stream.chance(0.1) {
        bytes.truncate(stream.below(bytes.len() as u64) as usize);
    }
    bytes.into()
}

/// With bits changed behind the epoch, or cut short.
fn mangled(heard: &Bytes, stream: &mut Stream) -> Bytes {
    let mut bytes = heard.to_vec();
    // As if a client had sent it.
    if let Some(flags) = bytes.get_mut(21) {
        *flags |= Flags::CLIENT_INITIATED.0;
    }
    for _ in 0..stream.between(1, 4) {
        let at = 4 + stream.below(bytes.len().saturating_sub(4) as u64) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << stream.below(8);
        }
    }
    if stream.chance(0.3) {
        bytes.truncate(stream.between(1, bytes.len().max(1) as u64) as usize);
    }
    bytes.into()
}

/// Harm for a quarter of the seeds, while there are faults.
pub(super) fn drawn(
    seed: u64,
    clients: usize,
    hosts: usize,
    spread: Duration,
    end: Duration,
) -> Vec<HostilePlan> {
    let mut stream = Seed(seed).stream("plan hostile");
    let count = stream.pick(&[0, 0, 0, 0, 0, 0, 10, 60]);
    let mut all: Vec<HostilePlan> = (0..count)
        .map(|_| {
            let what = match stream.below(12) {
                0..=4 => HostileKind::Repeat,
                5 | 6 => HostileKind::Own,
                7 | 8 => HostileKind::Nobody,
                9 => HostileKind::Spoofed,
                10 => HostileKind::Mangled,
                _ => HostileKind::Noise,
            };
            let client = stream.below(clients as u64) as usize;
            let server = clients + stream.below((hosts - clients) as u64) as usize;
            let (from, to) = match what {
                HostileKind::Repeat if stream.chance(0.4) => (server, client),
                _ if stream.chance(0.1) => (server, client),
                _ => (client, server),
            };
            // Half of it while calls begin.
            let until = if stream.chance(0.5) { spread * 2 } else { end };
            let at = stream.below(until.min(end).as_millis() as u64);
            HostilePlan { at: Duration::from_millis(at), from, to, what, seed: stream.draw() }
        })
        .collect();
    all.sort_by_key(|hostile| hostile.at);
    all
}
