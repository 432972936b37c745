//! What rxkad takes from the allocator: for a packet that is sealed nothing, for a run of packets that are opened, be
//! it of one or of many, the buffer that they share, and for an input no more than its bytes explain.
#![cfg(feature = "rxkad")]

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rxrpc::security::rxkad::keys::ccache::Ccache;
use rxrpc::security::rxkad::keys::{KeyArgument, ServerKeys};
use rxrpc::security::rxkad::ticket::{KVNO_K5_PART, KVNO_K5_WHOLE};
use rxrpc::security::rxkad::{Client, INDEX, Level, Server, SessionKey, TicketOpener, Token};
use rxrpc::security::{
    ClientClass, ConnectionIds, PacketIds, PlainPacket, SealedPacket, ServerClass,
};
use rxrpc::wire::{CallNumber, Cid, Epoch, Seq, ServiceId};

/// The buffer that all packets of a run are opened into, and what shares it.
const OPEN_RUN_ALLOCATIONS_MAX: u64 = 2;
/// Of more packets than this, the list of their places too.
const PLACES_INLINE: usize = 8;

fn ids(seq: u32) -> PacketIds {
    PacketIds { cid: Cid(4), call_number: CallNumber(1), seq: Seq(seq), from_client: true }
}

fn connection() -> ConnectionIds {
    ConnectionIds { epoch: Epoch(1), cid: Cid(4), service_id: ServiceId(4), security_index: INDEX }
}

#[test]
fn nothing_is_allocated_to_seal_and_one_shared_buffer_to_open_a_run() {
    for level in [Level::Clear, Level::Auth, Level::Crypt] {
        let key = SessionKey::new([1; 8]);
        let token = Token { kvno: 1, ticket: Vec::new(), key, expires: SystemTime::UNIX_EPOCH };
        let start = Client::new(token, level).connect(connection(), &[0; 32]);
        let session = start.session.expect("a session");
        let len = session.plain_max(1412);
        for count in [1, 2, 7, 8, 9, 32, 255] {
            let plain = vec![7; len * count];
            let packets: Vec<_> =
                (1..=count as u32).map(|seq| PlainPacket { ids: ids(seq), len }).collect();
            // Used over and over by a connection: they have grown already.
            let (mut out, mut ends) = (Vec::with_capacity(2000 * count), Vec::with_capacity(count));
            let sealing = allocation_counter::measure(|| {
                session.seal_run(&packets, &plain, &mut out, &mut ends);
            });
            assert_eq!(sealing.count_total, 0, "{level}, {count} packets sealed");
            let all = Bytes::from(out);
            let mut from = 0;
            let sealed: Vec<_> = (packets.iter().zip(&ends))
                .map(|(packet, sealed)| {
                    let payload = all.slice(std::mem::replace(&mut from, sealed.end)..sealed.end);
                    SealedPacket { ids: packet.ids, cksum: sealed.cksum, payload }
                })
                .collect();
            let mut opened = Vec::with_capacity(count);
            let opening = allocation_counter::measure(|| {
                session.open_run(&sealed, &mut opened).expect("it opens");
            });
            assert!(opened.concat() == plain, "{level}, {count} packets");
            let most = match level {
                Level::Clear => 0,
                _ => OPEN_RUN_ALLOCATIONS_MAX + u64::from(count > PLACES_INLINE),
            };
            assert!(opening.count_total <= most, "{level}, {count} packets opened: {opening:?}");
        }
    }
}

/// What any of the inputs below may take: some kilobytes of buffers, whatever its numbers say.
const PARSER_BYTES_MAX: u64 = 32 << 10;

/// Bytes behind their number in four bytes, as that number says or not.
fn counted(count: u32, bytes: &[u8]) -> Vec<u8> {
    [&count.to_be_bytes()[..], bytes].concat()
}

#[test]
fn no_number_in_an_input_decides_how_much_memory_it_takes() {
    let huge = [0x7fff_ffff_u32, 0x8000_0000, 0xffff_ffff, 0x00ff_ffff, 0x0100_0000];
    let mut took = Vec::new();
    let mut measure = |what: &str, parse: &mut dyn FnMut()| {
        let measured = allocation_counter::measure(parse);
        took.push((what.to_owned(), measured.bytes_max));
    };
    let key = |kind: &str, hex: String| -> ServerKeys {
        let key: KeyArgument = format!("{kind}:{hex}").parse().expect("a key");
        key.into()
    };
    let mut keys = key("18:1", "5a".repeat(32));
    keys.extend(key("1:2", "a7838acbc783ec94".into()));
    for number in huge {
        let file = counted(number, &counted(number, &[0; 40]));
        measure("KeyFile", &mut || drop(ServerKeys::parse_key_file(&file)));
        measure("KeyFileExt, keys", &mut || drop(ServerKeys::parse_key_file_ext(&file)));
        let key = counted(1, &counted(16, &[&[0; 12], &counted(number, &[7; 16])[..]].concat()));
        measure("KeyFileExt, key", &mut || drop(ServerKeys::parse_key_file_ext(&key)));
        let keytab = [&[5, 2][..], &counted(number, &[0xff; 60])].concat();
        measure("keytab", &mut || drop(ServerKeys::parse_keytab(&keytab)));
        // Of the cache's owner: type, components; then what should be a realm.
        for ccache in [
            counted(1, &counted(number, &counted(0, &[]))),
            counted(1, &counted(1, &counted(number, &[]))),
        ] {
            let ccache = [&[5, 3][..], &ccache].concat();
            measure("ccache", &mut || drop(Ccache::parse(&ccache)));
        }
        let [_, a, b, c] = number.to_be_bytes();
        for ticket in [[0x30, 0x83, a, b, c], [0x61, 0x83, a, b, c], [0x30, 0x84, a, b, c]] {
            let ticket = [&ticket[..], &[0; 40]].concat();
            for kvno in [KVNO_K5_PART, KVNO_K5_WHOLE] {
                let now = SystemTime::UNIX_EPOCH;
                measure("ticket", &mut || drop(keys.open_ticket(kvno, &ticket, now)));
            }
        }
        let server = Server::new(Arc::new(keys.clone()), Level::Clear);
        let mut handshake = server.accept(connection()).expect("a handshake");
        let mut response = vec![0; 56 + 32];
        response[3] = 2;
        response[52..56].copy_from_slice(&number.to_be_bytes());
        measure("response", &mut || {
            drop(handshake.verify(&response, SystemTime::UNIX_EPOCH));
        });
    }
    assert_eq!(took.len(), huge.len() * 13);
    for (what, bytes) in took {
        assert!(bytes <= PARSER_BYTES_MAX, "{what}: {bytes} bytes");
    }
}
