//! Every rxkad connection of OpenAFS that was captured: its RESPONSE is verified with the server's key,
//! answered again byte for byte, and every DATA packet of it, both ways, is opened and sealed again.
//!
//! The captures and their keys are described in `captures/README.md`. Run with `--nocapture` for the table.
#![cfg(feature = "rxkad")]

#[path = "support/pcap.rs"]
mod pcap;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use rxrpc::security::rxkad::keys::{KeyArgument, ServerKeys};
use rxrpc::security::rxkad::{
    Client, INDEX, Level, RxkadError, Server, SessionKey, TicketOpener, Token,
};
use rxrpc::security::{
    ClientClass, ConnectionIds, Entropy, PacketIds, PlainPacket, SealedPacket, ServerClass,
    Session, Verification, Verified,
};
use rxrpc::wire::{CallNumber, Flags, HEADER_LEN, Header, PacketType, Seq, sub_packets};

/// Key of the captures named `rxkad-`.
const SERVICE_KEY: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// And of the one with a Kerberos 4 style ticket.
const DES_KEY: &str = "1:2:a7838acbc783ec94";
/// Session key of them all.
const SESSION_KEY: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
/// Session key of the captures of the cell that have a ticket of its KDC.
const CELL_SESSION_KEY: [u8; 8] = [0x26, 0x58, 0x7f, 0xf4, 0x43, 0xae, 0xce, 0x2a];

/// One connection of a capture: who and what it is called.
type Name = (SocketAddrV4, SocketAddrV4, u32, u32);

#[derive(Default)]
struct Connection {
    ids: Option<ConnectionIds>,
    /// Body of the last challenge.
    challenge: Vec<u8>,
    /// Bodies of responses, each with the challenge before it and its time.
    responses: Vec<(Vec<u8>, Vec<u8>, SystemTime)>,
    aborts: Vec<i32>,
    packets: Vec<SealedPacket>,
}

#[derive(Default)]
struct Totals {
    connections: usize,
    responses: usize,
    packets: usize,
    bytes: usize,
}

#[test]
fn every_rxkad_packet_of_every_connection_opens() {
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    let mut refused = Vec::new();
    // A connection may begin in one capture and go on in another.
    let mut known: Vec<(ConnectionIds, Arc<dyn Session>)> = Vec::new();
    let captures: Vec<_> = captures()
        .into_iter()
        .map(|(name, file)| (name, connections(&file)))
        .filter(|(_, connections)| !connections.is_empty())
        .collect();
    for (name, connections) in &captures {
        let keys = server_keys(name);
        for connection in connections.values() {
            if let Some(session) = session(name, &keys, connection, &mut refused) {
                known.push((connection.ids.expect("a name"), session));
            }
        }
    }
    for (name, connections) in &captures {
        for connection in connections.values() {
            let totals = totals.entry(name.clone()).or_default();
            totals.connections += 1;
            totals.responses += connection.responses.len();
            totals.packets += connection.packets.len();
            let ids = connection.ids.expect("a name");
            let session = known.iter().find(|(known, _)| *known == ids);
            let session = session.map(|(_, session)| session.clone());
            let session = session.unwrap_or_else(|| guess_session(name, ids, &connection.packets));
            totals.bytes += check_packets(name, &*session, &connection.packets);
        }
    }
    println!("{:22} connections responses packets plain bytes", "");
    for (name, totals) in &totals {
        let Totals { connections, responses, packets, bytes } = totals;
        println!("{name:22} {connections:11} {responses:9} {packets:7} {bytes:11}");
    }
    // The first three counted with another reader as well, by the bytes of the headers.
    let expected = [
        ("cell-fs-file", 2, 1, 59, 68_780),
        ("cell-fs-setacl", 2, 2, 10, 1032),
        ("cell-pts-krb5-crypt", 1, 1, 2, 28),
        ("cell-pts-localauth", 1, 1, 2, 932),
        ("cell-vos-dump", 2, 2, 40, 43_577),
        ("rxkad-auth", 1, 1, 16, 20_048),
        ("rxkad-clear", 1, 1, 16, 20_048),
        ("rxkad-crypt", 1, 1, 16, 20_048),
        ("rxkad-krb4-crypt", 1, 1, 2, 2024),
        ("rxkad-refused", 2, 1, 2, 2088),
    ];
    let found: Vec<_> = (totals.iter())
        .map(|(name, it)| (&**name, it.connections, it.responses, it.packets, it.bytes))
        .collect();
    assert_eq!(found, expected);
    // The one ticket under a key that the server has not.
    assert_eq!(refused, [RxkadError::UnknownKey]);
}

/// What opens the connection's packets, by a good RESPONSE and the server's keys.
fn session(
    name: &str,
    keys: &ServerKeys,
    connection: &Connection,
    refused: &mut Vec<RxkadError>,
) -> Option<Arc<dyn Session>> {
    let ids = connection.ids.expect("a name");
    let mut session = None;
    for (challenge, response, at) in &connection.responses {
        match verify(keys, ids, challenge, response, *at) {
            Ok(verified) => {
                check_response(name, keys, ids, (challenge, response, *at), &verified);
                session = verified.session;
            }
            Err(error) => {
                assert!(connection.aborts.contains(&error.code().0), "{name}: {error}");
                refused.push(error);
            }
        }
    }
    session
}

/// The session of a client that was refused: its key is known, its level only by what opens.
fn guess_session(name: &str, ids: ConnectionIds, packets: &[SealedPacket]) -> Arc<dyn Session> {
    assert_eq!(name, "rxkad-refused");
    let session = |level| client(ids, SESSION_KEY, level, 0, &[]).session.expect("one");
    let opens = |session: &Arc<dyn Session>| {
        session.open_run(packets, &mut BytesMut::new(), &mut Vec::new()).is_ok()
    };
    let levels = [Level::Crypt, Level::Auth, Level::Clear];
    levels.map(session).into_iter().find(opens).expect("a level that fits")
}

fn verify(
    keys: &ServerKeys,
    ids: ConnectionIds,
    challenge: &[u8],
    response: &[u8],
    now: SystemTime,
) -> Result<Verified, RxkadError> {
    let level = u32::from_be_bytes(challenge[8..12].try_into().expect("a word"));
    let level = Level::from_wire(level).expect("a level");
    let server = Server::new(Arc::new(keys.clone()), level);
    let mut handshake = server.accept(ids).expect("a handshake");
    let mut entropy: Entropy = [0; 32];
    entropy[..4].copy_from_slice(&challenge[4..8]);
    assert_eq!(handshake.challenge(&entropy), challenge);
    let Verification::Done(result) = handshake.verify(response, now) else {
        panic!("rxkad verifies at once");
    };
    result.map_err(|code| RxkadError::from_code(code).expect("a name"))
}

/// Our client gives the very response that was captured, and the ticket holds the session key that is listed.
fn check_response(
    name: &str,
    keys: &ServerKeys,
    ids: ConnectionIds,
    (challenge, response, at): (&[u8], &[u8], SystemTime),
    verified: &Verified,
) {
    let word = |at: usize| u32::from_be_bytes(response[at..at + 4].try_into().expect("a word"));
    let (kvno, ticket) = (word(48), &response[56..]);
    let opened = keys.open_ticket(kvno, ticket, at).expect("a good ticket");
    let listed = match name {
        "cell-pts-localauth" | "cell-vos-dump" => None,
        // The file server calls the ptserver with a ticket of its own making.
        "cell-fs-setacl" | "cell-fs-file" if opened.client.name == "afs" => None,
        _ if name.starts_with("cell-") => Some(CELL_SESSION_KEY),
        _ => Some(SESSION_KEY),
    };
    if let Some(listed) = listed {
        assert_eq!(opened.key, SessionKey::new(listed), "{name} {}", opened.client);
    }
    let level = verified.identity.as_ref().and_then(|identity| identity.level).expect("a level");
    let start = client(ids, *opened.key.expose(), level, kvno, ticket);
    let mut handshake = start.handshake.expect("a handshake");
    let again = handshake.respond(challenge, verified.call_numbers, &[0; 32]);
    assert_eq!(again.as_deref(), Ok(response), "{name}");
}

fn client(
    ids: ConnectionIds,
    key: [u8; 8],
    level: Level,
    kvno: u32,
    ticket: &[u8],
) -> rxrpc::security::ClientStart {
    let key = SessionKey::new(key);
    let token = Token { kvno, ticket: ticket.to_vec(), key, expires: UNIX_EPOCH };
    Client::new(token, level).connect(ids, &[0; 32])
}

/// Opens all packets, alone and together, seals them again, and returns how many plain bytes they have.
fn check_packets(name: &str, session: &dyn Session, packets: &[SealedPacket]) -> usize {
    let mut together = Vec::new();
    session
        .open_run(packets, &mut BytesMut::new(), &mut together)
        .unwrap_or_else(|code| panic!("{name}: {code}"));
    let plain: Vec<PlainPacket> = packets
        .iter()
        .zip(&together)
        .map(|(packet, plain)| PlainPacket { ids: packet.ids, len: plain.len() })
        .collect();
    let (mut out, mut ends) = (BytesMut::new(), Vec::new());
    session.seal_run(&plain, &together.concat(), &mut out, &mut ends);
    let mut start = 0;
    for ((packet, plain), sealed) in packets.iter().zip(&together).zip(ends) {
        let place = format!("{name} {:?}", packet.ids);
        let alone = session.open(&packet.ids, packet.cksum, packet.payload.clone());
        assert_eq!(alone.as_ref(), Ok(plain), "{place}");
        assert_eq!(sealed.cksum, packet.cksum, "{place}");
        let ours = out[start..sealed.end].to_vec();
        start = sealed.end;
        assert_eq!(ours.len(), packet.payload.len(), "{place}");
        assert!(plain.len() <= session.plain_max(packet.payload.len()), "{place}");
        // The padding of OpenAFS is whatever was in its buffer, and so are blocks that have some in them.
        let opened = session.open(&packet.ids, sealed.cksum, Bytes::from(ours));
        assert_eq!(opened.as_ref(), Ok(plain), "{place}");
    }
    together.iter().map(Bytes::len).sum()
}

fn server_keys(name: &str) -> ServerKeys {
    let key = |text: &str| text.parse::<KeyArgument>().expect("a key");
    if name.starts_with("cell-") {
        let path = directory().join("cell-service-key.txt");
        let text = std::fs::read_to_string(path).expect("the key's file");
        let (_, hex) = text.rsplit_once("(0x").expect("the key");
        let hex = hex.trim_end().trim_end_matches(')');
        return key(&format!("18:1:{hex}")).into();
    }
    let mut keys = ServerKeys::from(key(SERVICE_KEY));
    keys.extend(key(DES_KEY).into());
    keys
}

/// The rxkad connections of a capture.
fn connections(file: &[u8]) -> BTreeMap<Name, Connection> {
    let mut connections: BTreeMap<Name, Connection> = BTreeMap::new();
    for datagram in pcap::read(file).expect("a capture").datagrams {
        let header = Header::decode(&datagram.payload).expect("a header");
        let is_about_rxkad = header.security_index == INDEX;
        if !is_about_rxkad || header.packet_type == PacketType::Version {
            continue;
        }
        let from_client = header.flags.has(Flags::CLIENT_INITIATED);
        let (client, server) = match from_client {
            true => (datagram.from, datagram.to),
            false => (datagram.to, datagram.from),
        };
        let cid = header.cid.0 & !3;
        let connection = connections.entry((client, server, header.epoch.0, cid)).or_default();
        connection.ids = Some(ConnectionIds {
            epoch: header.epoch,
            cid: rxrpc::wire::Cid(cid),
            service_id: header.service_id,
            security_index: INDEX,
        });
        let body = &datagram.payload[HEADER_LEN..];
        match header.packet_type {
            PacketType::Challenge => connection.challenge = body.to_vec(),
            PacketType::Response => {
                let challenge = connection.challenge.clone();
                connection.responses.push((challenge, body.to_vec(), UNIX_EPOCH + datagram.at));
            }
            PacketType::Abort => {
                let code = body.first_chunk().copied().map(i32::from_be_bytes);
                connection.aborts.extend(code);
            }
            PacketType::Data => {
                let mut packets = sub_packets(header, datagram.payload.len());
                let mut end = 0;
                while let Some(sub) = packets.next_in(&datagram.payload) {
                    end = sub.payload.end;
                    connection.packets.push(SealedPacket {
                        ids: PacketIds {
                            cid: header.cid,
                            call_number: CallNumber(header.call_number.0),
                            seq: Seq(sub.header.seq.0),
                            from_client,
                        },
                        cksum: sub.header.cksum,
                        payload: Bytes::copy_from_slice(&datagram.payload[sub.payload]),
                    });
                }
                assert_eq!(end, datagram.payload.len(), "a jumbogram's last packet is whole");
            }
            _ => {}
        }
    }
    connections
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

fn captures() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory())
        .expect("the captures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pcap"))
        .map(|path| {
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            (name, std::fs::read(path).expect("a file"))
        })
        .collect();
    files.sort();
    files
}
