//! Makes the first corpora from packet captures: `seeds INTO CAPTURE.pcap...`. What a fuzzer finds on the way
//! from there is added by `cargo fuzz cmin`.

#[path = "../../tests/support/pcap.rs"]
#[allow(dead_code)]
mod pcap;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rxrpc::wire::{HEADER_LEN, Header, PacketType};

/// Seeds of a target, of each kind of packet.
const SEEDS_MAX: usize = 40;

#[derive(Default)]
struct Seeds {
    into: PathBuf,
    /// Kinds that are there already, and how often.
    kinds: std::collections::BTreeMap<String, usize>,
    written: BTreeSet<(String, Vec<u8>)>,
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(into) = arguments.next() else {
        eprintln!("usage: seeds INTO CAPTURE.pcap...");
        std::process::exit(2);
    };
    let mut seeds = Seeds { into: into.into(), ..Seeds::default() };
    for path in arguments {
        let file = std::fs::read(&path).expect("a file");
        let capture = pcap::read(&file).expect("a capture");
        for datagram in &capture.datagrams {
            seeds.datagram(&datagram.payload);
        }
        // The same order of packets at an endpoint, as far as it has their ids.
        for part in capture.datagrams.chunks(12).take(3) {
            let mut operations = vec![0; 4];
            for datagram in part {
                let len = datagram.payload.len().min(255);
                operations.extend([0, 0, 0, 0, 1, len as u8]);
                operations.extend_from_slice(&datagram.payload[..len]);
            }
            seeds.put("endpoint", "capture", &operations);
        }
    }
    seeds.written_by_hand();
    println!("{} seeds", seeds.written.len());
}

impl Seeds {
    fn datagram(&mut self, datagram: &[u8]) {
        let Some(header) = Header::decode(datagram) else { return };
        let payload = &datagram[HEADER_LEN..];
        let kind = format!("{:?} {:?} {}", header.packet_type, header.flags, payload.len().min(64));
        self.put("packet", &kind, datagram);
        self.put("header", &kind, &datagram[..HEADER_LEN]);
        match header.packet_type {
            PacketType::Data => {
                self.put("data", &kind, datagram);
                self.put("sessions", &kind, &[&[0; 12], payload].concat());
            }
            PacketType::Ack => {
                self.put("ack", &kind, payload);
                let header = &datagram[..HEADER_LEN];
                self.put("structures", &kind, &[header, &[2], payload].concat());
            }
            PacketType::Debug => self.put("debug", &kind, payload),
            PacketType::Challenge => self.put("handshake", &kind, &[&[1; 23], payload].concat()),
            PacketType::Response => {
                self.put("handshake", &kind, &[&[0; 7], payload].concat());
                let time = 1_753_000_000u32.to_le_bytes();
                if let Some(ticket) = payload.get(56..) {
                    self.put("tickets", &kind, &[&[0], &time[..], ticket].concat());
                }
            }
            _ => {
                let header = &datagram[..HEADER_LEN];
                let number = header[20];
                self.put("structures", &kind, &[header, &[number], payload].concat());
            }
        }
    }

    /// What no capture holds.
    fn written_by_hand(&mut self) {
        for text in [
            "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "1:2:a7838acbc783ec94",
            "23:4294967295:00112233445566778899aabbccddeeff",
            "0123456789abcdef",
            "::",
        ] {
            self.put("key_arguments", "text", text.as_bytes());
        }
        let key_file = [&[0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 2, 4, 7, 8, 11, 13, 14]].concat();
        self.put("key_files", "KeyFile", &key_file);
        let keytab = [
            &[5, 2, 0, 0, 0, 49, 0, 1, 0, 7][..],
            b"EXAMPLE",
            &[0, 3],
            b"afs",
            &[0, 0, 0, 1, 1, 2, 3, 4, 1, 0, 17, 0, 16],
            &[9; 16],
            &[0, 0, 0, 1],
        ];
        self.put("key_files", "keytab", &keytab.concat());
        let ccache = [
            &[5, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7][..],
            b"EXAMPLE",
            &[0, 0, 0, 2],
            b"me",
        ];
        self.put("key_files", "ccache", &ccache.concat());
        for form in 0..8u8 {
            let mut ticket = vec![form];
            ticket.extend(1_753_000_000u32.to_le_bytes());
            ticket.extend([3; 60]);
            self.put("tickets", "form", &ticket);
        }
        for what in 0..4u8 {
            self.put("handshake", "what", &[&[what, 1, 2, 3, 4, 2, 2][..], &[0; 40]].concat());
        }
        // Lists of operations: some of each kind.
        for first in 0..18u8 {
            let mut operations = vec![first % 2; 8];
            for at in 0..60u8 {
                operations.extend([0, 0, 0, at.wrapping_mul(14).wrapping_add(first * 13)]);
                operations.extend([at, first, 0, 1, 0]);
            }
            self.put("channels", "operations", &operations);
            self.put("endpoint", "operations", &operations);
        }
    }

    fn put(&mut self, target: &str, kind: &str, bytes: &[u8]) {
        let count = self.kinds.entry(format!("{target} {kind}")).or_default();
        if *count >= SEEDS_MAX || bytes.len() > 6000 {
            return;
        }
        if self.written.insert((target.to_owned(), bytes.to_vec())) {
            *count += 1;
            let folder = Path::new(&self.into).join(target);
            std::fs::create_dir_all(&folder).expect("a folder");
            let name = format!("seed-{:04}", self.written.len());
            std::fs::write(folder.join(name), bytes).expect("room");
        }
    }
}
