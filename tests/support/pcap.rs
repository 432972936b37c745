//! UDP datagrams of a packet capture: the classic pcap format, IPv4, fragments put together.
//!
//! Reads the captures that tests use, not any that there is: no pcapng, no IPv6, no VLAN tags. What is
//! not IPv4/UDP is counted and skipped; what is cut or malformed is an error.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// What a capture holds.
#[derive(Debug, Default)]
pub struct Capture {
    /// In the order in which they were complete.
    pub datagrams: Vec<Datagram>,
    /// Frames without IPv4/UDP: ICMP and the like.
    pub other_frames: usize,
    /// Datagrams of which a fragment is missing.
    pub incomplete: usize,
}

/// One UDP datagram.
#[derive(Debug)]
#[allow(dead_code, reason = "each test looks at something else")]
pub struct Datagram {
    /// Number of its (last) frame, from 1 as in Wireshark.
    pub frame: usize,
    /// Time since 1970.
    pub at: Duration,
    /// Source.
    pub from: SocketAddrV4,
    /// Destination.
    pub to: SocketAddrV4,
    /// UDP payload.
    pub payload: Vec<u8>,
}

const FILE_HEADER_LEN: usize = 24;
const FRAME_HEADER_LEN: usize = 16;
const UDP_HEADER_LEN: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const ETHERTYPE_IPV4: u16 = 0x0800;

/// Reads a whole capture file.
pub fn read(file: &[u8]) -> Result<Capture, String> {
    let order = Order::of(file).ok_or("no pcap file")?;
    let link_type = order.word(file, 20).ok_or("the file's header is cut")? & 0xffff;
    let mut capture = Capture::default();
    let mut fragments = Fragments::default();
    let mut rest = &file[FILE_HEADER_LEN..];
    for frame in 1.. {
        if rest.is_empty() {
            break;
        }
        let at = order.time(rest).ok_or_else(|| format!("frame {frame}: its header is cut"))?;
        let len = order.word(rest, 8).unwrap_or_default() as usize;
        let original_len = order.word(rest, 12).unwrap_or_default() as usize;
        if len < original_len {
            return Err(format!("frame {frame}: {len} of {original_len} bytes captured"));
        }
        let (bytes, after) = rest[FRAME_HEADER_LEN..]
            .split_at_checked(len)
            .ok_or_else(|| format!("frame {frame}: the file ends in it"))?;
        rest = after;
        let packet = ipv4_of(link_type, bytes)
            .map_err(|error| format!("frame {frame}: {error}"))?
            .map(|packet| Ipv4::parse(packet).ok_or_else(|| format!("frame {frame}: bad IPv4")))
            .transpose()?;
        let Some(packet) = packet.filter(|packet| packet.protocol == PROTOCOL_UDP) else {
            capture.other_frames += 1;
            continue;
        };
        let Some(udp) = fragments.put(&packet) else { continue };
        let datagram = datagram(frame, at, &packet, &udp);
        capture.datagrams.push(datagram.ok_or_else(|| format!("frame {frame}: bad UDP"))?);
    }
    capture.incomplete = fragments.pending.len();
    Ok(capture)
}

/// Byte order and unit of time, which the file's first word tells.
struct Order {
    is_little: bool,
    is_nano: bool,
}

impl Order {
    fn of(file: &[u8]) -> Option<Order> {
        let (is_little, is_nano) = match file.get(..4)? {
            [0xa1, 0xb2, 0xc3, 0xd4] => (false, false),
            [0xd4, 0xc3, 0xb2, 0xa1] => (true, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (false, true),
            [0x4d, 0x3c, 0xb2, 0xa1] => (true, true),
            _ => return None,
        };
        Some(Order { is_little, is_nano })
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// Of a frame whose header, complete if this is `Some`, begins at `bytes`.
    fn time(&self, bytes: &[u8]) -> Option<Duration> {
        let header = bytes.get(..FRAME_HEADER_LEN)?;
        let (seconds, fraction) = (self.word(header, 0)?, self.word(header, 4)?);
        let nanos = if self.is_nano { fraction } else { fraction.checked_mul(1000)? };
        Some(Duration::from_secs(seconds.into()) + Duration::from_nanos(nanos.into()))
    }
}

/// The frame without its link header; `None` if it does not hold IPv4.
fn ipv4_of(link_type: u32, frame: &[u8]) -> Result<Option<&[u8]>, String> {
    // Length of the header, and where the Ethernet type stands in it.
    let (len, type_at) = match link_type {
        1 => (14, Some(12)),        // Ethernet; Linux's loopback looks like it
        113 => (16, Some(14)),      // Linux cooked
        276 => (20, Some(0)),       // Linux cooked, version 2
        0 | 108 => (4, None),       // BSD loopback: an address family instead of the type
        12 | 14 | 101 => (0, None), // raw IP
        228 => (0, None),           // raw IPv4
        other => return Err(format!("link type {other} is not known here")),
    };
    let (header, packet) = frame.split_at_checked(len).ok_or("shorter than its link header")?;
    let is_ipv4 = match type_at {
        Some(at) => half(header, at) == ETHERTYPE_IPV4,
        None => packet.first().is_some_and(|byte| byte >> 4 == 4),
    };
    Ok(is_ipv4.then_some(packet))
}

/// An IPv4 packet, or a fragment of one.
struct Ipv4<'a> {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    id: u16,
    more_fragments: bool,
    /// Where the payload belongs in the whole one.
    offset: usize,
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    fn parse(packet: &'a [u8]) -> Option<Ipv4<'a>> {
        let fixed: &[u8; 20] = packet.first_chunk()?;
        let header_len = usize::from(fixed[0] & 15) * 4;
        let total_len = usize::from(half(fixed, 2));
        let fragment = half(fixed, 6);
        Some(Ipv4 {
            source: Ipv4Addr::from(*fixed[12..].first_chunk::<4>()?),
            destination: Ipv4Addr::from(*fixed[16..].first_chunk::<4>()?),
            protocol: fixed[9],
            id: half(fixed, 4),
            more_fragments: fragment & 0x2000 != 0,
            offset: usize::from(fragment & 0x1fff) * 8,
            // Ethernet pads short frames, so the frame's end is not the packet's.
            payload: packet.get(header_len.max(20)..total_len)?,
        })
    }
}

/// Fragments whose datagram is not complete, by source, destination and id.
#[derive(Default)]
struct Fragments {
    pending: BTreeMap<(Ipv4Addr, Ipv4Addr, u16), Pending>,
}

#[derive(Default)]
struct Pending {
    parts: BTreeMap<usize, Vec<u8>>,
    /// Known when the last fragment has come.
    total_len: Option<usize>,
}

impl Fragments {
    /// The whole payload if the packet is no fragment, or the one that was missing.
    fn put(&mut self, packet: &Ipv4<'_>) -> Option<Vec<u8>> {
        if packet.offset == 0 && !packet.more_fragments {
            return Some(packet.payload.to_vec());
        }
        let key = (packet.source, packet.destination, packet.id);
        let pending = self.pending.entry(key).or_default();
        pending.parts.insert(packet.offset, packet.payload.to_vec());
        if !packet.more_fragments {
            pending.total_len = Some(packet.offset + packet.payload.len());
        }
        let whole = pending.whole()?;
        self.pending.remove(&key);
        Some(whole)
    }
}

impl Pending {
    fn whole(&self) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        for (offset, part) in &self.parts {
            // A gap. (Overlapping fragments are not put together either: no sender makes them.)
            if *offset != whole.len() {
                return None;
            }
            whole.extend_from_slice(part);
        }
        (Some(whole.len()) == self.total_len).then_some(whole)
    }
}

fn datagram(frame: usize, at: Duration, packet: &Ipv4<'_>, udp: &[u8]) -> Option<Datagram> {
    let header: &[u8; UDP_HEADER_LEN] = udp.first_chunk()?;
    Some(Datagram {
        frame,
        at,
        from: SocketAddrV4::new(packet.source, half(header, 0)),
        to: SocketAddrV4::new(packet.destination, half(header, 2)),
        payload: udp.get(UDP_HEADER_LEN..usize::from(half(header, 4)))?.to_vec(),
    })
}

/// Network byte order. The caller has checked the length.
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
