//! Tickets, keys and Kerberos's cryptography against known answers (`tests/vectors`), tickets of real
//! servers (`tests/captures`), and everything that is cut short or damaged.
#![cfg(feature = "rxkad")]

#[path = "support/pcap.rs"]
#[allow(dead_code)]
mod pcap;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use rxrpc::security::rxkad::keys::ccache::{Ccache, CcacheError};
use rxrpc::security::rxkad::keys::{KeyArgument, KeyFileError, ServerKeys, TicketForm};
use rxrpc::security::rxkad::krb5::{EncType, Krb5Error, Krb5Key, TICKET_USAGE, session_key};
use rxrpc::security::rxkad::ticket::{KVNO_K5_PART, KVNO_K5_WHOLE, LIFETIME_MAX, Print};
use rxrpc::security::rxkad::{
    OpenedTicket, Principal, RxkadError, SessionKey, TicketOpener, Token,
};
use serde_json::Value;

// ---- helpers ------------------------------------------------------------------------------------

fn vectors(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let text = std::fs::read_to_string(path).expect("the vectors are in the repository");
    serde_json::from_str(&text).expect("they are JSON")
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().expect("a hexadecimal string"))
}

fn number(value: &Value) -> i64 {
    value.as_i64().expect("a number")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn session(value: &Value) -> SessionKey {
    value.as_str().expect("a string").parse().expect("eight bytes")
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds as u64)
}

fn keys(enctype: i32, kvno: u32, hex: &str) -> ServerKeys {
    let argument: KeyArgument = format!("{enctype}:{kvno}:{hex}").parse().expect("a key");
    argument.into()
}

fn principal(name: &str, instance: &str, cell: &str) -> Principal {
    Principal { name: name.into(), instance: instance.into(), cell: cell.into() }
}

/// Truncated at every byte it is no ticket. With a bit flipped:
///
/// - Kerberos 5: no ticket, or, in one of the two numbers by which a key is looked for, an unknown key. Only
///   where a whole ticket names its server, which nobody looks at, it opens, and as what it was.
/// - Kerberos 4 style, where nothing proves that a ticket is whole: no ticket, a ticket of other times, or the
///   same client's.
fn damage(keys: &ServerKeys, kvno: u32, ticket: &[u8], now: SystemTime) {
    let whole = keys.open_ticket(kvno, ticket, now).expect("it opens");
    let is_krb5 = matches!(kvno, KVNO_K5_PART | KVNO_K5_WHOLE);
    let part = if is_krb5 { Some(encrypted_part(ticket)) } else { None };
    for len in 0..ticket.len() {
        let opened = keys.open_ticket(kvno, &ticket[..len], now);
        assert_eq!(opened, Err(RxkadError::BadTicket), "{len} of {} bytes", ticket.len());
    }
    for bit in 0..ticket.len() * 8 {
        let mut bad = ticket.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let opened = keys.open_ticket(kvno, &bad, now);
        match (&part, opened) {
            (Some(part), Ok(opened)) => {
                assert!(bit / 8 < part.start, "bit {bit}");
                assert_eq!(opened, whole, "bit {bit}");
            }
            (Some(part), Err(error)) => {
                let enctype = bad[part.enctype];
                let is_number = bit / 8 == part.enctype || part.kvno.contains(&(bit / 8));
                // Of the three kinds of DES each opens with the same key.
                let kinds = [ticket[part.enctype], enctype];
                let is_des =
                    bit / 8 == part.enctype && kinds.iter().all(|kind| (1..=3).contains(kind));
                let is_long = part.kvno.len() > 1 && error == RxkadError::BadTicket;
                let expected = match is_number && !is_des && !is_long {
                    true => RxkadError::UnknownKey,
                    false => RxkadError::BadTicket,
                };
                assert_eq!(error, expected, "bit {bit}");
            }
            (None, Ok(opened)) => assert_eq!(opened.client, whole.client, "bit {bit}"),
            (None, Err(error)) => {
                let known = [RxkadError::BadTicket, RxkadError::Expired, RxkadError::NoAuth];
                assert!(known.contains(&error), "bit {bit}: {error}");
            }
        }
    }
}

/// Where the contents of etype and kvno stand, and where the part begins that has them.
struct EncryptedPart {
    start: usize,
    enctype: usize,
    kvno: std::ops::Range<usize>,
}

/// `etype[0] INTEGER, kvno[1] INTEGER OPTIONAL, cipher[2]`: as no other two fields of a ticket do, they follow
/// each other.
fn encrypted_part(ticket: &[u8]) -> EncryptedPart {
    let is_it = |it: &[u8]| it[..4] == [0xa0, 3, 2, 1] && (it[5] == 0xa2 || it[7] == 2);
    let start = ticket.windows(8).position(is_it).expect("an encrypted part");
    let kvno = match ticket[start + 5..] {
        [0xa1, len, 2, ..] => start + 9..start + 7 + usize::from(len),
        _ => start..start,
    };
    EncryptedPart { start, enctype: start + 4, kvno }
}

// ---- known answers ------------------------------------------------------------------------------

/// A section that is added to the vectors and read by no test would prove nothing.
#[test]
fn every_section_of_the_vectors_is_read_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files =
        ["tests/rxkad.rs", "tests/rxkad_tickets.rs"].map(|file| root.join(file)).to_vec();
    let mut folders = vec![root.join("src/security/rxkad")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let sources: String =
        files.iter().map(|file| std::fs::read_to_string(file).expect("a source")).collect();
    let vectors = vectors("rxkad.json");
    let sections = vectors.as_object().expect("sections").iter();
    // Those that are text say what the others are.
    for (section, _) in sections.filter(|(_, contents)| !contents.is_string()) {
        let here = format!("[\"{section}\"]");
        let in_a_unit = format!("vectors::get(\"{section}\")");
        let is_read = sources.contains(&here) || sources.contains(&in_a_unit);
        assert!(is_read, "no test reads {section}");
    }
}

#[test]
fn messages_are_sealed_as_mit_kerberos_seals_them() {
    for entry in list(&vectors("krb5.json")["encrypt"]) {
        let enctype = EncType(number(&entry["etype"]) as i32);
        let key = Krb5Key::new(enctype, &bytes(&entry["key"])).unwrap();
        let usage = number(&entry["usage"]) as u32;
        for case in list(&entry["encrypt"]) {
            let mut entropy = [0; 32];
            let confounder = bytes(&case["confounder"]);
            entropy[..confounder.len()].copy_from_slice(&confounder);
            let (plain, cipher) = (bytes(&case["plain"]), bytes(&case["cipher"]));
            assert_eq!(key.encrypt(usage, &entropy, &plain), cipher, "{enctype}");
            let opened = key.decrypt(usage, &cipher).unwrap();
            // Triple DES has zeros behind it, to the end of a block.
            let block = if enctype == EncType::DES3_SHA1 { 8 } else { 1 };
            let mut expected = plain.clone();
            expected.resize(plain.len().next_multiple_of(block), 0);
            assert_eq!(*opened, expected, "{enctype}");
        }
    }
}

#[test]
fn session_keys_are_derived_as_openafs_derives_them() {
    let vectors = vectors("rxkad.json");
    let entries = list(&vectors["session_key_from_k5"]);
    assert!(entries.len() >= 8);
    for entry in entries {
        let enctype = EncType(number(&entry["enctype"]) as i32);
        let derived = session_key(enctype, &bytes(&entry["key"])).unwrap();
        assert_eq!(derived, session(&entry["des_key"]), "{enctype}");
    }
}

#[test]
fn kerberos_4_tickets_open_and_are_printed_alike() {
    let vectors = vectors("rxkad.json");
    for entry in list(&vectors["ticket_v4"]) {
        let keys = keys(1, 7, entry["server_key"].as_str().unwrap());
        let ticket = bytes(&entry["ticket"]);
        let text = |field: &str| entry[field].as_str().unwrap().to_owned();
        let client = principal(&text("client"), &text("instance"), &text("realm"));
        let start = number(&entry["start"]);
        let expected = OpenedTicket {
            key: session(&entry["session_key"]),
            client: client.clone(),
            starts: at(start),
            expires: at(number(&entry["end_decoded"])),
        };
        let now = at(start.max(1_700_000_000) + 10);
        assert_eq!(keys.open_ticket(7, &ticket, now), Ok(expected.clone()), "{}", entry["name"]);
        assert_eq!(keys.open_ticket(8, &ticket, now), Err(RxkadError::UnknownKey));
        damage(&keys, 7, &ticket, now);

        // Printed again it has the same contents; the service's name is another.
        let starts = at(start);
        let expires = at(number(&entry["end_requested"]));
        let print = Print { client: &client, key: &expected.key, starts, expires };
        let key = bytes(&entry["server_key"]).try_into().unwrap();
        let printed = print.seal_v4(&key).unwrap();
        assert_eq!(keys.open_ticket(7, &printed, now), Ok(expected));
    }
}

#[test]
fn kerberos_5_tickets_open_whole_and_in_part() {
    let vectors = vectors("rxkad.json");
    for entry in list(&vectors["ticket_k5"]) {
        let enctype = number(&entry["service_enctype"]) as i32;
        let kvno = number(&entry["service_kvno"]) as u32;
        let hex = entry["service_key"].as_str().unwrap();
        let names: Vec<_> =
            list(&entry["client"]).iter().map(|name| name.as_str().unwrap()).collect();
        let start = entry["starttime"].as_i64().unwrap_or(number(&entry["authtime"]));
        let expected = OpenedTicket {
            key: session(&entry["rxkad_session_key"]),
            client: principal(
                names[0],
                names.get(1).copied().unwrap_or(""),
                entry["realm"].as_str().unwrap(),
            ),
            starts: at(start),
            expires: at(number(&entry["endtime"])),
        };
        let now = at(start + 5);
        let right = keys(enctype, kvno, hex);
        for (form, field) in
            [(KVNO_K5_PART, "encrypted_data_type213"), (KVNO_K5_WHOLE, "ticket_type256")]
        {
            let ticket = bytes(&entry[field]);
            let open = |keys: &ServerKeys, now| keys.open_ticket(form, &ticket, now);
            assert_eq!(open(&right, now), Ok(expected.clone()));
            assert_eq!(open(&ServerKeys::new(), now), Err(RxkadError::UnknownKey));
            assert_eq!(open(&keys(enctype, kvno + 1, hex), now), Err(RxkadError::UnknownKey));
            let mut wrong = hex.to_owned();
            wrong.replace_range(0..1, "f");
            assert_eq!(open(&keys(enctype, kvno, &wrong), now), Err(RxkadError::BadTicket));
            // The end is sharp here, the start has the skew of all forms.
            let end = number(&entry["endtime"]);
            assert!(open(&right, at(end)).is_ok());
            assert_eq!(open(&right, at(end + 1)), Err(RxkadError::Expired));
            assert!(open(&right, at(start - 900)).is_ok());
            assert_eq!(open(&right, at(start - 901)), Err(RxkadError::NoAuth));
            damage(&right, form, &ticket, now);
        }
        let other_form = bytes(&entry["ticket_type256"]);
        assert_eq!(right.open_ticket(KVNO_K5_PART, &other_form, now), Err(RxkadError::BadTicket));
    }
}

#[test]
fn of_several_keys_of_one_version_and_type_the_right_one_is_found() {
    // Two realms for one cell.
    let vectors = vectors("rxkad.json");
    let entry = &list(&vectors["ticket_k5"])[0];
    let mut both = keys(18, 9, &"11".repeat(32));
    both.extend(keys(18, 9, entry["service_key"].as_str().unwrap()));
    let ticket = bytes(&entry["ticket_type256"]);
    assert!(both.open_ticket(KVNO_K5_WHOLE, &ticket, at(1_700_000_005)).is_ok());
}

#[test]
fn of_several_des_keys_of_one_version_the_right_one_is_found_in_every_form() {
    let (right, other, weak) = ("a7838acbc783ec94", "0123456789abcdef", "0101010101010101");
    let key = SessionKey::new([7; 8]);
    let client = principal("alice", "", "");
    let now = at(1_800_000_000);
    let print = Print::from_now(&client, &key, now, Duration::from_secs(3600));
    let des = |enctype| Krb5Key::new(EncType(enctype), &unhex(right)).expect("a key");
    let mut tickets = vec![(2, print.seal_v4(unhex(right)[..].try_into().unwrap()).unwrap())];
    tickets.extend((1..=3).map(|it| (KVNO_K5_PART, print.seal_k5(&des(it), 2, &[5; 32]))));
    for (order, is_good) in [
        (&[right][..], true),
        (&[other, right], true),
        (&[weak, other, right], true),
        (&[right, other, weak], true),
        (&[other], false),
        (&[], false),
    ] {
        let mut all = keys(1, 3, right);
        order.iter().for_each(|hex| all.extend(keys(1, 2, hex)));
        for (kvno, ticket) in &tickets {
            let opened = all.open_ticket(*kvno, ticket, now).map(|ticket| ticket.key);
            let refused =
                if order.is_empty() { RxkadError::UnknownKey } else { RxkadError::BadTicket };
            let expected = if is_good { Ok(key.clone()) } else { Err(refused) };
            assert_eq!(opened, expected, "{order:?}, {kvno}");
        }
    }
}

#[test]
fn key_versions_that_stand_for_nothing_are_unknown_keys() {
    let keys = keys(1, 257, "a7838acbc783ec94");
    for kvno in [257, 300, 511, 512, u32::MAX] {
        assert_eq!(keys.open_ticket(kvno, &[0; 56], at(5)), Err(RxkadError::UnknownKey));
    }
}

#[test]
fn des_keys_that_are_weak_or_of_bad_parity_are_named() {
    for hex in ["0101010101010101", "fe01fe01fe01fe01", "0023456789abcdef"] {
        let keys = keys(1, 2, hex);
        assert_eq!(keys.open_ticket(2, &[7; 48], at(5)), Err(RxkadError::BadKey));
    }
}

// ---- printed tickets ----------------------------------------------------------------------------

const NOW: i64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn key_of(enctype: i32) -> KeyArgument {
    let hex = match EncType(enctype).key_len().unwrap() {
        8 => "a7838acbc783ec94".to_owned(),
        len => "5a".repeat(len),
    };
    format!("{enctype}:3:{hex}").parse().unwrap()
}

fn printed(enctype: i32, form: TicketForm, client: &Principal) -> (ServerKeys, Token) {
    let key = key_of(enctype);
    let session: SessionKey = "0123456789abcdef".parse().unwrap();
    let print = Print::from_now(client, &session, at(NOW), HOUR);
    let token = key.print_token(form, &print, &[9; 32]).unwrap();
    (key.into(), token)
}

#[test]
fn a_printed_ticket_opens_with_any_enctype_and_damage_is_seen() {
    for enctype in [1, 2, 3, 16, 17, 18, 19, 20, 23] {
        for client in [principal("rxtest", "", "RXTEST.LOCAL"), principal("a", "admin", "")] {
            let (keys, token) = printed(enctype, TicketForm::Krb5, &client);
            assert_eq!(token.kvno, KVNO_K5_PART);
            let opened = keys.open_ticket(token.kvno, &token.ticket, at(NOW)).unwrap();
            assert_eq!((&opened.key, &opened.client), (&token.key, &client), "{enctype}");
            assert_eq!((opened.starts, opened.expires), (at(NOW - 300), at(NOW + 3600)));
            damage(&keys, token.kvno, &token.ticket, at(NOW));
        }
    }
}

#[test]
fn a_printed_kerberos_4_ticket_opens_and_needs_a_des_key() {
    let client = principal("rxtest", "", "");
    let (keys, token) = printed(1, TicketForm::V4, &client);
    let opened = keys.open_ticket(token.kvno, &token.ticket, at(NOW)).unwrap();
    assert_eq!((token.kvno, &opened.client), (3, &client));
    damage(&keys, token.kvno, &token.ticket, at(NOW));
    let session: SessionKey = "0123456789abcdef".parse().unwrap();
    let print = Print::from_now(&client, &session, at(NOW), HOUR);
    let refused = key_of(18).print_token(TicketForm::V4, &print, &[9; 32]);
    assert!(refused.is_err());
}

#[test]
fn a_printed_ticket_lasts_as_long_as_a_server_takes_it() {
    let afs = principal("afs", "", "");
    for (enctype, kvno) in [(18, 5), (1, 7)] {
        let keys =
            keys(enctype, kvno, &"a7838acbc783ec94".repeat(if enctype == 18 { 4 } else { 1 }));
        let token = keys.print_token(&afs, at(NOW), Duration::MAX, &[9; 32]).unwrap();
        assert_eq!(token.expires, at(NOW) + LIFETIME_MAX);
        let last = token.expires - Duration::from_secs(1);
        for now in [at(NOW), last] {
            assert!(keys.open_ticket(token.kvno, &token.ticket, now).is_ok());
        }
    }
}

#[test]
fn ones_own_token_is_made_with_the_newest_key() {
    let afs = principal("afs", "", "");
    let mut all = ServerKeys::new();
    let print = |keys: &ServerKeys| keys.print_token(&afs, at(NOW), HOUR, &[9; 32]);
    assert!(print(&all).is_err());
    all.extend(keys(1, 999, "a7838acbc783ec94"));
    assert!(print(&all).is_err(), "999 is no version");
    all.extend(keys(1, 7, "a7838acbc783ec94"));
    assert_eq!(print(&all).unwrap().kvno, 7);
    let opens = |opener: &ServerKeys| {
        let token = print(&all).unwrap();
        opener.open_ticket(token.kvno, &token.ticket, at(NOW)).is_ok_and(|o| o.client == afs)
    };
    assert!(opens(&all));
    for (enctype, kvno) in [(17, 4), (18, 5), (20, 5), (17, 5)] {
        all.extend(keys(enctype, kvno, &"22".repeat(EncType(enctype).key_len().unwrap())));
    }
    let newest = keys(18, 5, &"22".repeat(32));
    let token = print(&all).unwrap();
    assert!(newest.open_ticket(token.kvno, &token.ticket, at(NOW)).is_ok());
    // Made of the random bytes that came in, and of nothing else.
    assert_eq!(print(&all).unwrap(), token);
    let other = all.print_token(&afs, at(NOW), HOUR, &[10; 32]).unwrap();
    assert!(other.key != token.key && other.ticket != token.ticket);
}

// ---- tickets of real servers ----------------------------------------------------------------------

/// The tickets in the RESPONSE packets of a capture: key version, ticket, and when it was seen.
fn tickets(name: &str) -> Vec<(u32, Vec<u8>, SystemTime)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let file = std::fs::read(folder.join(format!("{name}.pcap"))).expect("the capture is there");
    let mut found = Vec::new();
    for datagram in &pcap::read(&file).expect("it is a capture").datagrams {
        let payload = &datagram.payload;
        // Packet type 7, security index 2.
        if payload.len() < 84 || payload[20] != 7 || payload[23] != 2 {
            continue;
        }
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let (kvno, len) = (word(28 + 48), word(28 + 52) as usize);
        let ticket = payload[84..84 + len].to_vec();
        found.push((kvno, ticket, UNIX_EPOCH + datagram.at));
    }
    found
}

fn service_key_of_the_cell() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/cell-service-key.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("(0x").expect("klist -K prints keys so");
    rest.split_once(')').expect("in parentheses").0.to_owned()
}

#[test]
fn tickets_in_the_captures_open_with_the_listed_keys() {
    let plain: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let cell = service_key_of_the_cell();
    let cases = [
        ("rxkad-clear", keys(18, 1, &plain), vec!["rxtest@RXTEST.LOCAL"]),
        ("rxkad-auth", keys(18, 1, &plain), vec!["rxtest@RXTEST.LOCAL"]),
        ("rxkad-crypt", keys(18, 1, &plain), vec!["rxtest@RXTEST.LOCAL"]),
        ("rxkad-krb4-crypt", keys(1, 2, "a7838acbc783ec94"), vec!["rxtest"]),
        ("cell-pts-localauth", keys(18, 1, &cell), vec!["afs@"]),
        ("cell-vos-dump", keys(18, 1, &cell), vec!["afs@"]),
        ("cell-pts-krb5-crypt", keys(18, 1, &cell), vec!["admin@RXTEST.LOCAL"]),
        ("cell-fs-setacl", keys(18, 1, &cell), vec!["admin@RXTEST.LOCAL", "afs@"]),
        ("cell-fs-file", keys(18, 1, &cell), vec!["admin@RXTEST.LOCAL", "afs@"]),
    ];
    for (name, keys, clients) in cases {
        let tickets = tickets(name);
        assert!(!tickets.is_empty(), "{name}");
        for (kvno, ticket, seen) in tickets {
            let opened = keys.open_ticket(kvno, &ticket, seen).expect(name);
            let client = opened.client.to_string();
            let is_known = clients.iter().any(|known| match known.strip_suffix('@') {
                Some(name) => client == name || client.starts_with(known),
                None => client == *known,
            });
            assert!(is_known, "{name}: {client}");
            if name.starts_with("rxkad") {
                assert_eq!(opened.key, "0123456789abcdef".parse().unwrap(), "{name}");
            }
            damage(&keys, kvno, &ticket, seen);
        }
    }
}

#[test]
fn the_session_keys_of_a_kdcs_tickets_are_those_that_openafs_derived() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/cell-session-keys.txt");
    let listed = std::fs::read_to_string(path).unwrap();
    let keys = keys(18, 1, &service_key_of_the_cell());
    for (kvno, ticket, seen) in tickets("cell-pts-krb5-crypt") {
        let opened = keys.open_ticket(kvno, &ticket, seen).unwrap();
        let hex: String = opened.key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(listed.contains(&hex));
    }
}

#[test]
fn a_ticket_under_another_key_is_an_unknown_key() {
    let server: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let server = keys(18, 1, &server);
    let client = keys(18, 9, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    let (kvno, ticket, seen) = tickets("rxkad-refused").swap_remove(0);
    assert_eq!(server.open_ticket(kvno, &ticket, seen), Err(RxkadError::UnknownKey));
    assert!(client.open_ticket(kvno, &ticket, seen).is_ok());
}

// ---- files of keys --------------------------------------------------------------------------------

/// What came of a file, in words that can be compared.
fn read(result: Result<ServerKeys, KeyFileError>) -> Result<String, String> {
    result.map(|keys| format!("{keys:?}")).map_err(|error| format!("{error:?}"))
}

fn refused(error: KeyFileError) -> Result<String, String> {
    Err(format!("{error:?}"))
}

fn with_bit_flipped(file: &[u8], bit: usize) -> Vec<u8> {
    let mut bad = file.to_vec();
    bad[bit / 8] ^= 1 << (bit % 8);
    bad
}

fn with_word(file: &[u8], at: usize, word: u32) -> Vec<u8> {
    let mut bad = file.to_vec();
    bad[at..at + 4].copy_from_slice(&word.to_be_bytes());
    bad
}

fn word_of(file: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(file[at..at + 4].try_into().expect("four bytes"))
}

/// Numbers that make no sense as a length.
const ABSURD: [u32; 5] = [0x7fff_ffff, 0x8000_0000, u32::MAX - 15, u32::MAX - 3, u32::MAX];

#[test]
fn a_damaged_key_file_is_refused_by_name_or_has_other_keys() {
    let vectors = vectors("rxkad.json");
    let file = bytes(&vectors["key_files"]["KeyFile"]["bytes"]);
    let whole = read(ServerKeys::parse_key_file(&file));
    assert_eq!(
        whole.as_deref(),
        Ok("ServerKeys { des kvno: [1, 2, 4], (kvno, enctype): [] }"),
        "of three keys"
    );
    assert_eq!(file.len(), 4 + 3 * 12);
    for len in 0..file.len() {
        let entry = if len < 4 { 0 } else { 1 + (len - 4) / 12 };
        let expected = refused(KeyFileError::Truncated(entry));
        assert_eq!(read(ServerKeys::parse_key_file(&file[..len])), expected, "{len} bytes");
        assert_eq!(read(ServerKeys::parse(&file[..len])), expected, "{len} bytes of any file");
    }
    for bit in 0..file.len() * 8 {
        let bad = with_bit_flipped(&file, bit);
        let found = read(ServerKeys::parse_key_file(&bad));
        let unknown = read(ServerKeys::parse(&bad));
        match (bit / 8, (bit / 8 + 8) % 12) {
            (0..4, _) => {
                let expected = match word_of(&bad, 0) {
                    count @ 9.. => refused(KeyFileError::TooManyKeys(count)),
                    count @ 4.. => {
                        assert_eq!(count, 7);
                        refused(KeyFileError::Truncated(4))
                    }
                    count => {
                        let versions = &[1, 2][..count as usize];
                        Ok(format!("ServerKeys {{ des kvno: {versions:?}, (kvno, enctype): [] }}"))
                    }
                };
                assert_eq!((found, unknown), (expected.clone(), expected), "bit {bit}");
            }
            (_, 0..4) => {
                // Another version. That of the first key can make it look like a KeyFileExt, which it is none of.
                let other = word_of(&bad, bit / 8 / 4 * 4).to_string();
                let keys = found.expect("another version");
                assert!(keys != *whole.as_ref().unwrap() && keys.contains(&other), "{bit}: {keys}");
                match bit / 8 < 8 && word_of(&bad, 4) >= 16 {
                    true => assert_eq!(unknown, refused(KeyFileError::Truncated(1)), "bit {bit}"),
                    false => assert_eq!(unknown, Ok(keys), "bit {bit}"),
                }
            }
            // Nothing tells that a key is another.
            _ => assert_eq!((&found, &unknown), (&whole, &whole), "bit {bit}"),
        }
    }
    for count in [9, 999].into_iter().chain(ABSURD) {
        let expected = refused(KeyFileError::TooManyKeys(count));
        assert_eq!(read(ServerKeys::parse_key_file(&with_word(&file, 0, count))), expected);
    }
}

/// A key of a KeyFileExt, by its place in the file.
struct ExtEntry {
    start: usize,
    key: std::ops::Range<usize>,
}

fn ext_entries(file: &[u8]) -> Vec<ExtEntry> {
    let mut entries = Vec::new();
    let mut start = 4;
    while start < file.len() {
        assert_eq!(word_of(file, start), 16, "no more metadata than there must be");
        let key = start + 20..start + 20 + word_of(file, start + 16) as usize;
        start = key.end;
        entries.push(ExtEntry { start: key.start - 20, key });
    }
    entries
}

#[test]
fn a_damaged_key_file_ext_is_refused_by_name_or_has_other_keys() {
    let vectors = vectors("rxkad.json");
    let file = bytes(&vectors["key_files"]["KeyFileExt"]["bytes"]);
    let entries = ext_entries(&file);
    let parse = |file: &[u8]| read(ServerKeys::parse_key_file_ext(file));
    let whole = parse(&file);
    let listed = |keys: &[(u32, u32)]| {
        Ok(format!("ServerKeys {{ des kvno: [], (kvno, enctype): {keys:?} }}"))
    };
    assert_eq!(whole, listed(&[(5, 17), (6, 17), (6, 18)]));
    for len in 0..file.len() {
        let entry = match len {
            0..4 => 0,
            _ => 1 + entries.iter().filter(|entry| entry.key.end <= len).count(),
        };
        let expected = refused(KeyFileError::Truncated(entry));
        assert_eq!(parse(&file[..len]), expected, "{len} bytes");
        assert_eq!(read(ServerKeys::parse(&file[..len])), expected, "{len} bytes of any file");
    }
    for bit in 0..32 {
        let bad = with_bit_flipped(&file, bit);
        let expected = match word_of(&bad, 0) {
            count @ 0..3 => {
                let end = entries[count as usize].start;
                refused(KeyFileError::Trailing(file.len() - end))
            }
            _ => refused(KeyFileError::Truncated(4)),
        };
        assert_eq!(parse(&bad), expected, "bit {bit}");
        assert_eq!(read(ServerKeys::parse(&bad)), expected, "bit {bit}");
    }
    for (number, entry) in (1..).zip(&entries) {
        for bit in entry.start * 8..entry.key.end * 8 {
            let bad = with_bit_flipped(&file, bit);
            let found = parse(&bad);
            let [metadata, key_type, kvno, enctype, len] =
                [0, 4, 8, 12, 16].map(|at| word_of(&bad, entry.start + at));
            let mut keys = vec![(5, 17), (6, 17), (6, 18)];
            let what = format!("entry {number}, bit {bit}, byte {}", bit / 8 - entry.start);
            let key_error = |len: usize| KeyFileError::Key {
                entry: number,
                source: Krb5Error::KeyLength { enctype: EncType(enctype as i32), len },
            };
            let expected = match bit / 8 - entry.start {
                0..4 if metadata < 16 => refused(KeyFileError::Metadata(number, metadata)),
                // What stands in the place of the key's length is another number then.
                0..4 => {
                    let at = match ServerKeys::parse_key_file_ext(&bad) {
                        Err(KeyFileError::Truncated(at) | KeyFileError::Key { entry: at, .. }) => {
                            at
                        }
                        other => panic!("{what}: {other:?}"),
                    };
                    assert_eq!(at, number, "{what}");
                    continue;
                }
                4..8 => {
                    assert_ne!(key_type, 2);
                    keys.remove(number - 1);
                    listed(&keys)
                }
                8..12 => {
                    keys[number - 1].0 = kvno;
                    listed(&keys)
                }
                12..16 => match i32::try_from(enctype).map(|it| EncType(it).key_len()) {
                    Err(_) => refused(KeyFileError::Damaged(number)),
                    Ok(None) => {
                        keys.remove(number - 1);
                        listed(&keys)
                    }
                    Ok(Some(right)) if right == entry.key.len() => {
                        keys[number - 1].1 = enctype;
                        listed(&keys)
                    }
                    Ok(Some(_)) => refused(key_error(entry.key.len())),
                },
                16..20 if len as usize > file.len() - entry.key.start => {
                    refused(KeyFileError::Truncated(number))
                }
                16..20 => refused(key_error(len as usize)),
                _ => listed(&keys),
            };
            assert_eq!(found, expected, "{what}");
        }
        for absurd in ABSURD {
            let expected = refused(KeyFileError::Truncated(number));
            for at in [entry.start, entry.start + 16] {
                assert_eq!(parse(&with_word(&file, at, absurd)), expected, "{at}: {absurd:x}");
            }
        }
    }
    for count in ABSURD {
        let expected = refused(KeyFileError::Truncated(4));
        assert_eq!(parse(&with_word(&file, 0, count)), expected, "{count:x} keys");
    }
    let more = [&file[..], &[0]].concat();
    assert_eq!(parse(&more), refused(KeyFileError::Trailing(1)));
}

#[test]
fn the_key_files_of_openafs_are_read() {
    let vectors = vectors("rxkad.json");
    let files = &vectors["key_files"];
    let key_file = bytes(&files["KeyFile"]["bytes"]);
    let keys = ServerKeys::parse(&key_file).unwrap();
    assert_eq!(format!("{keys:?}"), "ServerKeys { des kvno: [1, 2, 4], (kvno, enctype): [] }");
    let padded = [&key_file[..], &[0x55; 60]].concat();
    assert_eq!(ServerKeys::parse(&padded).unwrap().len(), 3);

    let key_file_ext = bytes(&files["KeyFileExt"]["bytes"]);
    let keys = ServerKeys::parse(&key_file_ext).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "ServerKeys { des kvno: [], (kvno, enctype): [(5, 17), (6, 17), (6, 18)] }"
    );
}

fn record(fields: &[u32], key: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
    bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

#[test]
fn a_key_file_ext_may_hold_more_than_we_know() {
    // Excess metadata, a key of another class, an enctype that is not known here; then one that is.
    let file = [
        4u32.to_be_bytes().to_vec(),
        record(&[24, 2, 1, 17, 77, 88], &[1; 16]),
        record(&[16, 1, 2, 18], &[2; 32]),
        record(&[16, 2, 3, 26], &[3; 32]),
        record(&[16, 2, 4, 20], &[4; 32]),
    ]
    .concat();
    let keys = ServerKeys::parse_key_file_ext(&file).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "ServerKeys { des kvno: [], (kvno, enctype): [(1, 17), (4, 20)] }"
    );
    let short_metadata = [1u32.to_be_bytes().to_vec(), record(&[15, 2, 1, 17], &[1; 16])].concat();
    assert!(matches!(
        ServerKeys::parse_key_file_ext(&short_metadata),
        Err(KeyFileError::Metadata(1, 15))
    ));
    let wrong_length = [1u32.to_be_bytes().to_vec(), record(&[16, 2, 1, 17], &[1; 15])].concat();
    assert!(matches!(
        ServerKeys::parse_key_file_ext(&wrong_length),
        Err(KeyFileError::Key { entry: 1, .. })
    ));
    // Numbers that promise more than there is cost nothing.
    let promise = [u32::MAX.to_be_bytes().to_vec(), record(&[u32::MAX, 2, 1, 17], &[])].concat();
    assert!(matches!(ServerKeys::parse_key_file_ext(&promise), Err(KeyFileError::Truncated(1))));
    assert!(matches!(
        ServerKeys::parse_key_file(&9u32.to_be_bytes()),
        Err(KeyFileError::TooManyKeys(9))
    ));
}

fn keytab_entry(
    components: &[&str],
    kvno8: u8,
    enctype: u16,
    key: &[u8],
    kvno: Option<u32>,
) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut record = (components.len() as u16).to_be_bytes().to_vec();
    record.extend(text("EXAMPLE.ORG"));
    components.iter().for_each(|component| record.extend(text(component)));
    record.extend([0, 0, 0, 1, 0, 0, 0, 0, kvno8]);
    record.extend(enctype.to_be_bytes());
    record.extend((key.len() as u16).to_be_bytes());
    record.extend(key);
    record.extend(kvno.into_iter().flat_map(u32::to_be_bytes));
    [&(record.len() as i32).to_be_bytes()[..], &record].concat()
}

#[test]
fn a_keytab_gives_the_keys_of_afs_alone() {
    let hole = [&(-6i32).to_be_bytes()[..], &[9; 6]].concat();
    let parts = [
        vec![5, 2],
        keytab_entry(&["afs", "example.org"], 1, 18, &[1; 32], Some(300)),
        hole,
        keytab_entry(&["host", "www.example.org"], 2, 18, &[2; 32], None),
        keytab_entry(&["afs"], 3, 17, &[3; 16], None),
        keytab_entry(&["afs", "example.org"], 4, 3, &[4; 8], Some(0)),
        keytab_entry(&["afs", "example.org"], 5, 26, &[5; 32], Some(5)),
    ];
    let file = parts.concat();
    let keys = ServerKeys::parse(&file).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "ServerKeys { des kvno: [4], (kvno, enctype): [(300, 18), (3, 17)] }"
    );
    // An entry less is still a keytab.
    let ends: Vec<usize> = (1..=parts.len()).map(|n| parts[..n].concat().len()).collect();
    for len in 0..file.len() {
        let found = read(ServerKeys::parse(&file[..len]));
        let entry = ends.iter().filter(|end| **end <= len).count();
        match ends.contains(&len) {
            true => assert!(found.is_ok(), "{len} bytes: {found:?}"),
            false => assert_eq!(found, refused(KeyFileError::Truncated(entry)), "{len} bytes"),
        }
    }
    let hole = 2;
    for (number, entry) in parts.iter().enumerate().skip(1) {
        let start = ends[number - 1];
        for absurd in ABSURD.into_iter().chain([(-(file.len() as i32)) as u32]) {
            let bad = with_word(&file, start, absurd);
            if (absurd as i32).unsigned_abs() <= 16 {
                // A small hole, and whatever is behind it.
                assert!(ServerKeys::parse(&bad).is_err(), "entry {number}, {absurd:x}");
                continue;
            }
            let expected = refused(KeyFileError::Truncated(number));
            assert_eq!(read(ServerKeys::parse(&bad)), expected, "entry {number}, {absurd:x}");
        }
        if number == hole {
            continue;
        }
        // A record that is too short for what it says it holds, or that holds less than it must.
        let len = entry.len() - 4;
        let must = len - if number == 3 || number == 4 { 0 } else { 4 };
        for short in 1..must {
            let cut =
                [&file[..start], &(short as u32).to_be_bytes(), &entry[4..4 + short]].concat();
            let expected = refused(KeyFileError::Damaged(number));
            assert_eq!(read(ServerKeys::parse(&cut)), expected, "entry {number}, {short} bytes");
        }
        // Number of components, length of the realm, of the first component; of the key.
        let name = u16::from_be_bytes([entry[4], entry[5]]);
        assert!(name == 1 || name == 2);
        for at in [4, 6, 8 + "EXAMPLE.ORG".len()] {
            let mut bad = file.clone();
            bad[start + at] = 0xff;
            let expected = refused(KeyFileError::Damaged(number));
            assert_eq!(read(ServerKeys::parse(&bad)), expected, "entry {number}, byte {at}");
        }
    }
    let whole = read(ServerKeys::parse(&file));
    for bit in 0..file.len() * 8 {
        let bad = with_bit_flipped(&file, bit);
        if bit < 16 {
            assert_eq!(read(ServerKeys::parse_keytab(&bad)), refused(KeyFileError::NotAKeytab));
            continue;
        }
        // No more than one entry is another one, or the file is refused, at that entry or, where its length is
        // wrong, at what is then taken for one.
        let number = ends.iter().filter(|end| **end <= bit / 8).count();
        let is_size = bit / 8 - ends[number - 1] < 4;
        match ServerKeys::parse(&bad) {
            Ok(keys) if is_size => assert!(keys.len() <= 3, "bit {bit}: {keys:?}"),
            Ok(keys) => assert!((2..=4).contains(&keys.len()), "bit {bit}: {keys:?}"),
            Err(KeyFileError::Truncated(at)) => assert!(is_size && at >= number, "bit {bit}: {at}"),
            Err(KeyFileError::Damaged(at)) => assert!(at >= number && (is_size || at == number)),
            Err(KeyFileError::Key { entry, source: Krb5Error::KeyLength { .. } }) => {
                assert_eq!(entry, number, "bit {bit}");
            }
            Err(other) => panic!("bit {bit}: {other:?}"),
        }
    }
    assert_eq!(read(ServerKeys::parse(&file)), whole);
    assert!(matches!(ServerKeys::parse_keytab(&[5, 1]), Err(KeyFileError::NotAKeytab)));
    // Of two bytes the second is missing.
    assert!(matches!(ServerKeys::parse(&[5]), Err(KeyFileError::Truncated(0))));
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_an_error() {
    let error = ServerKeys::load("/nonexistent/KeyFileExt").unwrap_err().to_string();
    assert!(error.contains("/nonexistent/KeyFileExt"), "{error}");
    assert!(matches!(ServerKeys::load("/dev/zero"), Err(KeyFileError::TooLarge(_))));
}

// ---- credential caches ------------------------------------------------------------------------------

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn cached_name(components: &[&str], realm: &str) -> Vec<u8> {
    let mut name = [1u32.to_be_bytes(), (components.len() as u32).to_be_bytes()].concat();
    name.extend(counted(realm.as_bytes()));
    components.iter().for_each(|component| name.extend(counted(component.as_bytes())));
    name
}

struct Cached<'a> {
    server: &'a [&'a str],
    realm: &'a str,
    enctype: u16,
    key: &'a [u8],
    ends: u32,
    ticket: &'a [u8],
}

/// A ticket as short as one can be, that begins so.
fn short_ticket(start: &[u8]) -> Vec<u8> {
    let mut ticket = start.to_vec();
    ticket.resize(32, b'.');
    ticket
}

fn cached(version: u8, entry: &Cached<'_>) -> Vec<u8> {
    let mut bytes = cached_name(&["admin"], "EXAMPLE.ORG");
    bytes.extend(cached_name(entry.server, entry.realm));
    bytes.extend(entry.enctype.to_be_bytes());
    if version == 3 {
        bytes.extend(entry.enctype.to_be_bytes());
    }
    bytes.extend(counted(entry.key));
    for time in [5, 5, entry.ends, 0] {
        bytes.extend(u32::to_be_bytes(time));
    }
    bytes.push(0);
    bytes.extend([0, 0, 0, 0]);
    // One address, one piece of authorization data.
    bytes.extend([0, 0, 0, 1, 0, 2, 0, 0, 0, 4, 127, 0, 0, 1]);
    bytes.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 2, 9, 9]);
    bytes.extend(counted(entry.ticket));
    bytes.extend(counted(&[]));
    bytes
}

fn cache(version: u8, entries: &[Cached<'_>]) -> Vec<u8> {
    let mut file = vec![5, version];
    if version == 4 {
        file.extend([0, 12, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    file.extend(cached_name(&["admin"], "EXAMPLE.ORG"));
    entries.iter().for_each(|entry| file.extend(cached(version, entry)));
    file
}

#[test]
fn the_ticket_of_a_service_is_found_in_a_cache() {
    let raw: Vec<u8> = (0..32).collect();
    let tickets =
        ["tgt", "setting", "old", "new", "other", "useless", "three", "one", "at", "realm"]
            .map(|start| short_ticket(start.as_bytes()));
    let [tgt, setting, old, new, other, useless, three, one, at_home, realm] = &tickets;
    let entry = |server: &'static [&'static str], realm, enctype, ends, ticket| Cached {
        server,
        realm,
        enctype,
        key: &raw,
        ends,
        ticket,
    };
    let entries = [
        entry(&["krbtgt", "EXAMPLE.ORG"], "EXAMPLE.ORG", 18, 1000, tgt),
        entry(&["krb5_ccache_conf_data", "x"], "X-CACHECONF:", 0, 0, setting),
        entry(&["afs", "example.org"], "EXAMPLE.ORG", 18, 1000, old),
        entry(&["afs", "example.org"], "EXAMPLE.ORG", 18, 2000, new),
        entry(&["afs", "example.org"], "OTHER.ORG", 18, 1500, other),
        entry(&["afs", "useless.org"], "EXAMPLE.ORG", 9, 2000, useless),
        // Another three principals, none of them `afs/example.org`.
        entry(&["afs", "example.org", "x"], "EXAMPLE.ORG", 18, 3000, three),
        entry(&["afs/example.org"], "EXAMPLE.ORG", 18, 3000, one),
        entry(&["afs", "at@home"], "EXAMPLE.ORG", 18, 3000, at_home),
        entry(&["afs", "realm"], "A@B", 18, 3000, realm),
    ];
    for version in [3, 4] {
        let file = cache(version, &entries);
        let cache = Ccache::parse(&file).unwrap();
        let token = cache.token("afs/example.org@EXAMPLE.ORG", at(999)).unwrap();
        assert_eq!((token.kvno, &token.ticket[..]), (KVNO_K5_WHOLE, &new[..]));
        assert_eq!(token.key, "b60db5e30b266b16".parse().unwrap());
        assert_eq!(token.expires, at(2000));
        let of = |name: &str, now| cache.token(name, at(now)).map(|token| token.ticket);
        assert_eq!(of("afs/example.org@OTHER.ORG", 999).unwrap(), *other);
        assert_eq!(of("afs/example.org", 999).unwrap(), *new);
        assert!(matches!(of("afs/example.org", 2000), Err(CcacheError::Expired { .. })));
        assert!(matches!(of("afs/useless.org", 5), Err(CcacheError::SessionKey { .. })));
        assert_eq!(of("afs/example.org/x@EXAMPLE.ORG", 5).unwrap(), *three);
        assert_eq!(of("afs\\/example.org", 5).unwrap(), *one);
        assert_eq!(of("afs/at\\@home@EXAMPLE.ORG", 5).unwrap(), *at_home);
        assert_eq!(of("afs/realm@A@B", 5).map_err(drop), Err(()), "two realms");
        assert_eq!(of("afs/realm@A\\@B", 5).unwrap(), *realm);
        let listed = format!("{cache:?}");
        assert!(listed.contains(r#""afs/at\@home@EXAMPLE.ORG""#), "{listed}");
        for missing in [
            "afs",
            "afs/example",
            "afs/example.org/",
            "afs/example.org\\",
            "",
            "afs/example.org@",
            "x@X-CACHECONF:",
        ] {
            assert!(matches!(of(missing, 5), Err(CcacheError::NoTicket { .. })), "{missing}");
        }
        // An entry more or less is still a cache; cut inside one it is none.
        let ends: Vec<usize> =
            (0..=entries.len()).map(|n| cache_len(version, &entries[..n])).collect();
        let entry_at = |place: usize| ends.iter().filter(|end| **end <= place).count();
        for len in 0..file.len() {
            match Ccache::parse(&file[..len]) {
                Ok(_) => assert!(ends.contains(&len), "{len} bytes"),
                Err(CcacheError::NotACcache) => assert!(len < 2, "{len} bytes"),
                Err(CcacheError::Truncated(entry)) => {
                    assert_eq!((entry, ends.contains(&len)), (entry_at(len), false), "{len} bytes");
                }
                Err(other) => panic!("{len} bytes: {other}"),
            }
        }
        for bit in 0..file.len() * 8 {
            match Ccache::parse(&with_bit_flipped(&file, bit)) {
                Ok(cache) => match cache.token("afs/example.org", at(5)) {
                    Ok(_)
                    | Err(
                        CcacheError::NoTicket { .. }
                        | CcacheError::Expired { .. }
                        | CcacheError::SessionKey { .. },
                    ) => assert!(bit >= 16, "bit {bit}"),
                    Err(other) => panic!("bit {bit}: {other}"),
                },
                Err(CcacheError::NotACcache) => assert!(bit < 16, "bit {bit}"),
                Err(CcacheError::Truncated(entry)) => {
                    assert!(bit >= 16 && entry >= entry_at(bit / 8), "bit {bit}: {entry}");
                }
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
        // The number of components, the length of the realm and of the first component, of the first name; of
        // the last ticket, and of what is behind it.
        let name = if version == 4 { 16 } else { 2 };
        for place in [name + 4, name + 8, name + 12 + "EXAMPLE.ORG".len()] {
            for absurd in ABSURD {
                let cache = Ccache::parse(&with_word(&file, place, absurd)).map(drop);
                assert!(matches!(cache, Err(CcacheError::Truncated(0))), "{place}: {absurd:x}");
            }
        }
        for place in [file.len() - 4, file.len() - 8 - realm.len()] {
            for absurd in ABSURD {
                let cache = Ccache::parse(&with_word(&file, place, absurd)).map(drop);
                let last = entries.len();
                let is_named = matches!(cache, Err(CcacheError::Truncated(at)) if at == last);
                assert!(is_named, "{place}: {absurd:x}: {cache:?}");
            }
        }
    }
    for bad in [&[][..], &[5], &[5, 1, 0, 0], &[5, 2, 0, 0], &[4, 4]] {
        assert!(matches!(Ccache::parse(bad), Err(CcacheError::NotACcache)), "{bad:?}");
    }
}

#[test]
fn a_ticket_in_a_cache_that_no_server_takes_is_refused_by_its_length() {
    for (len, is_fine) in [
        (0, false),
        (31, false),
        (32, true),
        (12_000, true),
        (12_001, false),
        (20_000, false),
        (70_000, false),
        (1_000_000, false),
    ] {
        let (server, realm) = (&["afs", "x"], "X");
        let (key, ticket) = (&[7; 32], &vec![9; len]);
        let entry = Cached { server, realm, enctype: 18, key, ends: 1000, ticket };
        let token = Ccache::parse(&cache(4, &[entry])).unwrap().token("afs/x", at(5));
        match token {
            Ok(token) => assert!(is_fine && token.ticket == *ticket, "{len} bytes"),
            Err(error) => {
                assert!(!is_fine, "{len} bytes: {error}");
                let said = format!("the ticket for afs/x has {len} bytes: rxkad takes 32 to 12000");
                assert_eq!(error.to_string(), said);
            }
        }
    }
}

fn cache_len(version: u8, entries: &[Cached<'_>]) -> usize {
    cache(version, entries).len()
}

// ---- anything at all ----------------------------------------------------------------------------------

proptest! {
    #[test]
    fn parsers_take_anything(mut file in prop::collection::vec(any::<u8>(), 0..300), start in 0..4) {
        let magic: &[u8] = match start { 0 => &[5, 2], 1 => &[5, 3], 2 => &[5, 4, 0, 0], _ => &[] };
        file.splice(0..0, magic.iter().copied());
        let _ = ServerKeys::parse(&file);
        let _ = ServerKeys::parse_key_file_ext(&file);
        let _ = ServerKeys::parse_key_file(&file);
        let _ = Ccache::parse(&file);
    }

    #[test]
    fn key_arguments_take_anything(text in ".*", numbers in "[0-9]{0,3}:[0-9]{0,3}:[0-9a-f]{0,66}") {
        let _ = text.parse::<KeyArgument>();
        let _ = numbers.parse::<KeyArgument>();
        let _ = text.parse::<SessionKey>();
    }

    #[test]
    fn tickets_may_be_anything(ticket in prop::collection::vec(any::<u8>(), 0..300), kvno in 0u32..520) {
        let mut keys = keys(1, kvno, "a7838acbc783ec94");
        keys.extend(self::keys(18, 0, &"11".repeat(32)));
        let _ = keys.open_ticket(kvno, &ticket, at(NOW));
        let _ = keys.open_ticket(KVNO_K5_PART, &ticket, at(NOW));
        let _ = keys.open_ticket(KVNO_K5_WHOLE, &ticket, at(NOW));
    }

    /// What stands inside a ticket is chosen by whoever has the key, or by a KDC that is trusted with less.
    #[test]
    fn the_inside_of_a_ticket_may_be_anything(
        mut part in prop::collection::vec(any::<u8>(), 0..300),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        is_real in any::<bool>(),
    ) {
        if is_real {
            part = bytes(&list(&vectors("rxkad.json")["ticket_k5"])[0]["enc_ticket_part"]);
            for (at, byte) in mutations {
                let at = at.index(part.len());
                part[at] = byte;
            }
        }
        let key = Krb5Key::new(EncType::AES128_SHA1, &[7; 16]).unwrap();
        let cipher = key.encrypt(TICKET_USAGE, &[5; 32], &part);
        let mut keys = ServerKeys::new();
        keys.insert(0, key);
        let element = |tag: u8, bytes: &[u8]| {
            let [high, low] = (bytes.len() as u16).to_be_bytes();
            let len: &[u8] = match bytes.len() { 0..=0x7f => &[low], 0x80..=0xff => &[0x81, low], _ => &[0x82, high, low] };
            [&[tag], len, bytes].concat()
        };
        let fields = [
            element(0xa0, &element(2, &[17])),
            element(0xa2, &element(4, &cipher)),
        ].concat();
        let opened = keys.open_ticket(KVNO_K5_PART, &element(0x30, &fields), at(1_700_000_005));
        if let Err(error) = opened {
            prop_assert!(matches!(
                error,
                RxkadError::BadTicket | RxkadError::BadKey | RxkadError::NoAuth | RxkadError::Expired
            ));
        }
    }
}
