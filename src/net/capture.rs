//! A network that writes what passes as a pcap file, for Wireshark and tcpdump.
//!
//! Knows the classic pcap format and makes up the IP and UDP headers that a socket never shows.
//! Changes nothing of what passes; when writing fails it stops writing, not the network.

use std::{
    fmt,
    io::{self, BufWriter, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::{Duration, Instant};

use super::{Incoming, Network, Transmit, cut};

/// Microsecond timestamps, in the byte order that we write: big-endian.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const PCAP_VERSION: (u16, u16) = (2, 4);
/// Packets begin with an IPv4 or IPv6 header (LINKTYPE_RAW).
const LINK_TYPE_RAW: u32 = 101;
/// Above any packet that we write.
const SNAP_BYTES: u32 = 1 << 17;

const IPV4_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;

/// Decorates a network with a capture of all datagrams that were received, or sent without error.
/// What the network says about paths is not in it.
pub struct CaptureNetwork<N, W: Write> {
    inner: N,
    /// `None` once writing failed.
    writer: Option<BufWriter<W>>,
    packet: Vec<u8>,
    started: Instant,
    /// Since 1970.
    started_at: Duration,
}

impl<N: Network, W: Write + 'static> CaptureNetwork<N, W> {
    /// Decorates `inner` and begins the file in `writer`; buffering is done here. The file is whole
    /// whenever nothing is waiting to be received, and when the network is dropped.
    pub fn new(inner: N, writer: W) -> io::Result<CaptureNetwork<N, W>> {
        let mut writer = BufWriter::new(writer);
        writer.write_all(&PCAP_MAGIC.to_be_bytes())?;
        writer.write_all(&PCAP_VERSION.0.to_be_bytes())?;
        writer.write_all(&PCAP_VERSION.1.to_be_bytes())?;
        writer.write_all(&[0; 8])?; // time zone, accuracy: always zero
        writer.write_all(&SNAP_BYTES.to_be_bytes())?;
        writer.write_all(&LINK_TYPE_RAW.to_be_bytes())?;
        Ok(CaptureNetwork {
            inner,
            writer: Some(writer),
            packet: Vec::new(),
            started: Instant::now(),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        })
    }

    fn capture<'a>(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) {
        let Some(writer) = &mut self.writer else { return };
        // The clock that tests can pause, so that a capture shows what the timers saw.
        let time = self.started_at + self.started.elapsed();
        for datagram in datagrams {
            packet(&mut self.packet, from, to, datagram);
            if let Err(error) = record(writer, time, &self.packet) {
                log::error!("capture ends: {error}");
                self.writer = None;
                return;
            }
        }
    }
}

impl<N, W: Write> fmt::Debug for CaptureNetwork<N, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureNetwork").finish_non_exhaustive()
    }
}

impl<N: Network, W: Write + 'static> Network for CaptureNetwork<N, W> {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.inner.max_segments()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let had = into.len();
        let result = self.inner.poll_receive(cx, into);
        for incoming in &into[had..] {
            if let Incoming::Datagrams { from, data, stride } = incoming {
                self.capture(*from, self.inner.local_addr(), cut(data, *stride));
            }
        }
        if result.is_pending()
            && let Some(Err(error)) = self.writer.as_mut().map(Write::flush)
        {
            log::error!("capture ends: {error}");
            self.writer = None;
        }
        result
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.capture(self.inner.local_addr(), transmit.to, transmit.datagrams());
        Ok(())
    }

    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_send_ready(cx)
    }

    fn rest(&mut self, time: std::time::Duration) -> bool {
        self.inner.rest(time)
    }
}

fn record(writer: &mut impl Write, time: Duration, packet: &[u8]) -> io::Result<()> {
    let bytes = (packet.len() as u32).to_be_bytes();
    writer.write_all(&(time.as_secs() as u32).to_be_bytes())?;
    writer.write_all(&time.subsec_micros().to_be_bytes())?;
    writer.write_all(&bytes)?; // of the packet in the file
    writer.write_all(&bytes)?; // of the packet in the network
    writer.write_all(packet)
}

/// Writes `datagram` with headers into `packet`.
fn packet(packet: &mut Vec<u8>, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
    // Longer ones pass no socket, but they may pass memory; the headers have 16 bits for it.
    let datagram = &datagram[..datagram.len().min(65_507)];
    let udp_bytes = (UDP_HEADER_BYTES + datagram.len()) as u16;
    packet.clear();
    let addresses = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_header(packet, from, to, udp_bytes),
        (from, to) => ipv6_header(packet, as_ipv6(from), as_ipv6(to), udp_bytes),
    };
    let udp_at = packet.len();
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&udp_bytes.to_be_bytes());
    packet.extend_from_slice(&[0; 2]);
    packet.extend_from_slice(datagram);
    let pseudo = sum(&packet[addresses..udp_at]) + u32::from(PROTOCOL_UDP) + u32::from(udp_bytes);
    // Zero would mean "no checksum".
    let checksum = match checksum(pseudo + sum(&packet[udp_at..])) {
        0 => 0xffff,
        checksum => checksum,
    };
    packet[udp_at + 6..][..2].copy_from_slice(&checksum.to_be_bytes());
}

/// Returns where the addresses begin, which the UDP checksum covers; they end with the header.
fn ipv4_header(packet: &mut Vec<u8>, from: Ipv4Addr, to: Ipv4Addr, udp_bytes: u16) -> usize {
    let total_bytes = (IPV4_HEADER_BYTES as u16).saturating_add(udp_bytes);
    packet.extend_from_slice(&[0x45, 0]); // version and length in words, no type of service
    packet.extend_from_slice(&total_bytes.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0]); // no identification, do not fragment
    packet.extend_from_slice(&[HOP_LIMIT, PROTOCOL_UDP, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let checksum = checksum(sum(packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    12
}

/// Returns where the addresses begin, which the UDP checksum covers; they end with the header.
fn ipv6_header(packet: &mut Vec<u8>, from: Ipv6Addr, to: Ipv6Addr, udp_bytes: u16) -> usize {
    packet.extend_from_slice(&[0x60, 0, 0, 0]); // version, no traffic class, no flow label
    packet.extend_from_slice(&udp_bytes.to_be_bytes());
    packet.extend_from_slice(&[PROTOCOL_UDP, HOP_LIMIT]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    8
}

/// A dual-stack socket bound to `[::]` talks to plain IPv4 peers: then both are written as IPv6.
fn as_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Sum of 16-bit words; at most 64 KiB of them stay well below 2^32.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum()
}

fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::MemoryHub;
    use std::{
        sync::{Arc, Mutex},
        task::Waker,
    };

    #[derive(Clone, Default)]
    struct File(Arc<Mutex<Vec<u8>>>);

    impl Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Packets of a file: seconds, microseconds, bytes.
    fn packets(file: &File) -> Vec<(u32, u32, Vec<u8>)> {
        let file = file.0.lock().unwrap();
        let word = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(20)), (PCAP_MAGIC, 2 << 16 | 4, LINK_TYPE_RAW));
        let (mut packets, mut at) = (Vec::new(), 24);
        while at < file.len() {
            let bytes = word(at + 8) as usize;
            assert_eq!(word(at + 12) as usize, bytes);
            packets.push((word(at), word(at + 4), file[at + 16..][..bytes].to_vec()));
            at += 16 + bytes;
        }
        packets
    }

    #[tokio::test(start_paused = true)]
    async fn both_directions_are_captured_datagram_by_datagram() {
        let hub = MemoryHub::new();
        let file = File::default();
        let mut a =
            CaptureNetwork::new(hub.bind("127.0.0.1:7000".parse().unwrap()).unwrap(), file.clone())
                .unwrap();
        let mut b = hub.bind("127.0.0.1:7001".parse().unwrap()).unwrap();
        a.try_send(&Transmit::run(b.local_addr(), b"abcde", 2)).unwrap();
        tokio::time::advance(Duration::from_millis(1500)).await;
        b.try_send(&Transmit::datagram(a.local_addr(), b"")).unwrap();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(a.poll_receive(cx, &mut Vec::new()).is_ready());
        assert!(a.poll_receive(cx, &mut Vec::new()).is_pending());

        let packets = packets(&file);
        let payloads: Vec<_> = packets.iter().map(|packet| &packet.2[28..]).collect();
        assert_eq!(payloads, [&b"ab"[..], b"cd", b"e", b""]);
        let ports: Vec<_> = packets.iter().map(|packet| &packet.2[20..24]).collect();
        let (out, back) = ([0x1b, 0x58, 0x1b, 0x59], [0x1b, 0x59, 0x1b, 0x58]);
        assert_eq!(ports, [out, out, out, back]);
        let micros =
            |index: usize| u64::from(packets[index].0) * 1_000_000 + u64::from(packets[index].1);
        assert_eq!(micros(3) - micros(0), 1_500_000);
    }

    /// A receiver's check over a header with a right checksum gives zero.
    #[test]
    fn checksums_are_right() {
        let (v4, v6) = ("192.0.2.1:7000".parse().unwrap(), "[2001:db8::1]:7001".parse().unwrap());
        for (from, to, addresses, udp) in [(v4, v4, 12, 20), (v6, v6, 8, 40), (v6, v4, 8, 40)] {
            for datagram in [&b"odd"[..], b"even", b"", &[0xff; 65_507]] {
                let mut bytes = Vec::new();
                packet(&mut bytes, from, to, datagram);
                let pseudo = sum(&bytes[addresses..udp]) + 17 + sum(&bytes[udp + 4..udp + 6]);
                assert_eq!(checksum(pseudo + sum(&bytes[udp..])), 0);
                if udp == 20 {
                    assert_eq!(checksum(sum(&bytes[..20])), 0);
                }
                assert_eq!(&bytes[udp + 8..], datagram);
            }
        }
    }

    #[test]
    fn a_broken_file_does_not_break_the_network() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let hub = MemoryHub::new();
        let inner = hub.bind("127.0.0.1:7000".parse().unwrap()).unwrap();
        let mut a = CaptureNetwork::new(inner, Full(100)).unwrap();
        let to = a.local_addr();
        for _ in 0..1000 {
            a.try_send(&Transmit::datagram(to, &[0; 100])).unwrap();
        }
        assert!(a.writer.is_none());
    }
}
