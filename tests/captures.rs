//! Every Rx packet that OpenAFS was seen to send is read, and written again byte for byte.
//!
//! The captures and what they hold are described in `captures/README.md`. Run with `--nocapture` for the
//! table of packets.

#[path = "support/pcap.rs"]
mod pcap;

use std::collections::BTreeMap;
use std::path::Path;

use rxrpc::wire::{Flags, Header, JumboWriter, Packet, Payload, Trailer};

/// Counts by column of the table.
type Counts = BTreeMap<&'static str, usize>;

const COLUMNS: [&str; 12] = [
    "datagrams",
    "DATA",
    "jumbo",
    "ACK",
    "BUSY",
    "ABORT",
    "ACKALL",
    "CHALL",
    "RESP",
    "DEBUG",
    "VERSION",
    "other",
];

#[test]
fn every_captured_packet_comes_out_as_it_went_in() {
    let files = files();
    assert!(!files.is_empty());
    let mut table = vec![format!("{:20}", "")];
    table[0].extend(COLUMNS.iter().map(|column| format!(" {column:>9}")));
    let mut sums = Counts::new();
    for (name, file) in &files {
        let counts = check_file(name, file);
        assert!(counts["datagrams"] > 0, "{name}: no Rx packet");
        table.push(row(name, &counts));
        for (column, count) in counts {
            *sums.entry(column).or_default() += count;
        }
    }
    table.push(row("all", &sums));
    println!("{}", table.join("\n"));
}

#[test]
fn the_captures_hold_what_they_are_named_for() {
    let counts: BTreeMap<String, Counts> =
        files().iter().map(|(name, file)| (name.clone(), check_file(name, file))).collect();
    for (name, column) in [
        ("abort", "ABORT"),
        ("busy", "BUSY"),
        ("cell-fs-file", "RESP"),
        ("debug-version", "DEBUG"),
        ("debug-version", "VERSION"),
        ("jumbo-recv", "jumbo"),
        ("jumbo-send", "jumbo"),
        ("null-echo", "ACK"),
        ("rxkad-clear", "CHALL"),
        ("rxkad-clear", "RESP"),
        ("rxkad-refused", "ABORT"),
    ] {
        assert!(counts[name].contains_key(column), "{name} has no {column}");
    }
    for name in ["null-send", "loss-send", "loss-recv"] {
        assert!(!counts[name].contains_key("jumbo"), "{name} was made without jumbograms");
    }
}

/// Name without ending, and content, of each capture.
fn files() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pcap"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn row(name: &str, counts: &Counts) -> String {
    let mut row = format!("{name:20}");
    for column in COLUMNS {
        row.push_str(&format!(" {:>9}", counts.get(column).copied().unwrap_or_default()));
    }
    row
}

/// Decodes and encodes every datagram of a file, and counts the packets by type.
fn check_file(name: &str, file: &[u8]) -> Counts {
    let capture = pcap::read(file).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(capture.incomplete, 0, "{name}");
    let mut counts = Counts::new();
    let mut count = |column, packets| *counts.entry(column).or_default() += packets;
    for datagram in &capture.datagrams {
        let place = format!("{name} frame {}", datagram.frame);
        let bytes = &datagram.payload;
        let packet = Packet::decode(bytes).unwrap_or_else(|error| panic!("{place}: {error}"));
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(&again, bytes, "{place}");
        check_parts(&place, &packet, bytes);
        count("datagrams", 1);
        match packet.payload {
            Payload::Data(data) => {
                count("DATA", data.packets);
                if data.packets > 1 {
                    count("jumbo", 1);
                }
            }
            Payload::Ack(_) => count("ACK", 1),
            Payload::Busy { .. } => count("BUSY", 1),
            Payload::Abort { .. } => count("ABORT", 1),
            Payload::AckAll { .. } => count("ACKALL", 1),
            Payload::Challenge(_) => count("CHALL", 1),
            Payload::Response(_) => count("RESP", 1),
            Payload::DebugRequest { .. } | Payload::DebugReply(_) => count("DEBUG", 1),
            Payload::Version(_) => count("VERSION", 1),
            Payload::Params(_) | Payload::Unknown(_) => count("other", 1),
        }
    }
    counts
}

/// What a view passes on as bytes is taken apart and put together again too, and nothing that OpenAFS
/// sends is left over.
fn check_parts(place: &str, packet: &Packet<'_>, bytes: &[u8]) {
    match packet.payload {
        Payload::Data(data) => {
            let packets: Vec<(Header, &[u8])> = data.packets(packet.header).collect();
            assert_eq!(packets.len(), data.packets, "{place}");
            let mut again = Vec::new();
            let (first, payload) = packets[0];
            let mut writer = JumboWriter::start(&mut again, &first, payload);
            for (header, payload) in &packets[1..] {
                let flags = header.flags.without(Flags::JUMBO_PACKET);
                writer.append(flags, header.cksum, payload).unwrap();
            }
            assert_eq!(again, bytes, "{place}");
        }
        Payload::Ack(ack) => {
            assert!(matches!(ack.trailer, Trailer::Full(_)), "{place}: {ack:?}");
            assert_eq!(ack.excess, [0; 0], "{place}");
        }
        Payload::Busy { excess }
        | Payload::Abort { excess, .. }
        | Payload::AckAll { excess }
        | Payload::DebugRequest { excess, .. } => assert_eq!(excess, [0; 0], "{place}"),
        Payload::DebugReply(reply) => {
            let record = reply.record().unwrap_or_else(|| panic!("{place}: {reply:?}"));
            let mut again = Vec::new();
            record.encode(&mut again);
            assert_eq!(again, reply.payload, "{place}");
        }
        Payload::Version(version) if !version.is_request(&packet.header) => {
            assert!(version.text().is_ascii() && !version.text().is_empty(), "{place}");
        }
        Payload::Version(_) | Payload::Challenge(_) | Payload::Response(_) => {}
        Payload::Params(_) | Payload::Unknown(_) => panic!("{place}: {:?}", packet.header),
    }
}

/// The reader of captures, on captures made here: what the files above do not have.
mod reader {
    use super::pcap::{self, Capture};

    /// A capture file of these frames, in either byte order.
    fn file(is_little: bool, link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let word = |word: u32| if is_little { word.to_le_bytes() } else { word.to_be_bytes() };
        let mut file = word(0xa1b2_c3d4).to_vec();
        file.extend([0; 16]);
        file.extend(word(link_type));
        for frame in frames {
            let len = frame.len() as u32;
            file.extend([word(7), word(500_000), word(len), word(len)].concat());
            file.extend(frame);
        }
        file
    }

    /// An IPv4 packet or fragment; `offset` in bytes.
    fn ipv4(protocol: u8, id: u8, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
        let [high, low] = ((20 + payload.len()) as u16).to_be_bytes();
        let [offset_high, offset_low] = ((offset / 8) as u16).to_be_bytes();
        let flags = offset_high | if more { 0x20 } else { 0 };
        let mut packet = vec![0x45, 0, high, low, 0, id, flags, offset_low, 64, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(payload);
        packet
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        let [high, low] = ((8 + payload.len()) as u16).to_be_bytes();
        let mut udp = vec![0x1b, 0x58, 0x1b, 0x59, high, low, 0, 0];
        udp.extend(payload);
        udp
    }

    fn payloads(capture: &Capture) -> Vec<&[u8]> {
        capture.datagrams.iter().map(|datagram| &datagram.payload[..]).collect()
    }

    #[test]
    fn reads_every_link_type_in_both_byte_orders() {
        let link_headers: [(u32, Vec<u8>); 7] = [
            (0, vec![2, 0, 0, 0]),
            (1, [&[0; 12][..], &[8, 0]].concat()),
            (101, vec![]),
            (108, vec![0, 0, 0, 2]),
            (113, [&[0; 14][..], &[8, 0]].concat()),
            (228, vec![]),
            (276, [&[8, 0][..], &[0; 18]].concat()),
        ];
        let packet = ipv4(17, 1, 0, false, &udp(b"ping"));
        for (link_type, header) in link_headers {
            for is_little in [false, true] {
                let frame = [&header[..], &packet, &[0; 6]].concat();
                let capture = pcap::read(&file(is_little, link_type, &[frame])).unwrap();
                assert_eq!(payloads(&capture), [b"ping"], "link type {link_type}");
                let datagram = &capture.datagrams[0];
                assert_eq!(datagram.from.to_string(), "10.0.0.1:7000");
                assert_eq!(datagram.to.to_string(), "10.0.0.2:7001");
                assert_eq!((datagram.frame, datagram.at.as_millis()), (1, 7500));
            }
        }
        assert!(pcap::read(&file(true, 147, &[packet])).is_err());
    }

    #[test]
    fn puts_fragments_together_in_any_order() {
        let first: Vec<u8> = (0..2000).map(|at| at as u8).collect();
        let second: Vec<u8> = first.iter().rev().copied().collect();
        let fragments = |id, payload: &[u8]| {
            let udp = udp(payload);
            let part = |from: usize, to: usize| ipv4(17, id, from, to < udp.len(), &udp[from..to]);
            [part(0, 800), part(800, 1600), part(1600, udp.len())]
        };
        let [a, b, c] = fragments(1, &first);
        let [d, e, f] = fragments(2, &second);
        let repeated = a.clone();
        let frames = [c, d, a, repeated, f, e, b];
        let capture = pcap::read(&file(false, 101, &frames)).unwrap();
        assert_eq!(payloads(&capture), [second, first]);
        assert_eq!((capture.incomplete, capture.datagrams[1].frame), (0, 7));
        let capture = pcap::read(&file(false, 101, &frames[..6])).unwrap();
        assert_eq!((capture.incomplete, capture.datagrams.len()), (1, 1));
    }

    #[test]
    fn counts_what_is_not_udp_and_refuses_what_is_cut() {
        let icmp = ipv4(1, 1, 0, false, &[3, 3, 0, 0]);
        let ipv6 = vec![0x60; 40];
        let packet = ipv4(17, 1, 0, false, &udp(b"pong"));
        let whole = file(true, 101, &[icmp, ipv6, packet.clone()]);
        let capture = pcap::read(&whole).unwrap();
        assert_eq!((payloads(&capture), capture.other_frames), (vec![&b"pong"[..]], 2));
        for cut in 1..packet.len() + 16 {
            assert!(pcap::read(&whole[..whole.len() - cut]).is_err(), "{cut}");
        }
        for cut in 0..24 {
            assert!(pcap::read(&whole[..cut]).is_err(), "{cut}");
        }
    }
}
