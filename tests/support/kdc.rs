//! Whole Kerberos 5 tickets (256 on the wire), as a KDC makes them with a service's key, in a credential cache: so
//! that each enctype of that key can be tried, and no KDC is needed. Written from RFC 4120 sections 5.2 and 5.3, not
//! with the library's own writer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rxrpc::security::rxkad::krb5::{EncType, Krb5Key, TICKET_USAGE};

const REALM: &str = "RXTEST.LOCAL";
/// Whom the ticket is for.
pub const SERVICE: &str = "afs/rxtest.local@RXTEST.LOCAL";
const COMPONENTS: [&str; 2] = ["afs", "rxtest.local"];
const CLIENT: &str = "rxtest";

/// A session key of AES-256: rxkad-kdf has to make a DES key of it, as of most that KDCs give out today.
const SESSION_ENCTYPE: u16 = 18;
const SESSION: [u8; 32] = [0x5c; 32];

/// A cache in this folder, with a ticket under a key that is written ENCTYPE:KVNO:HEX.
pub fn cache(folder: &Path, key: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
    let (starts, ends) = (now - 300, now + 36_000);
    let (enctype, rest) = key.split_once(':').expect("an enctype");
    let file = ccache(&ticket(key, starts, ends), starts, ends);
    let version = rest.split(':').next().expect("a version");
    let path = folder.join(format!("cc.{enctype}.{version}.{}", std::process::id()));
    std::fs::write(&path, file).expect("the work folder can be written");
    path
}

fn ticket(key: &str, starts: u32, ends: u32) -> Vec<u8> {
    let parts: Vec<&str> = key.split(':').collect();
    let enctype: u8 = parts[0].parse().expect("an enctype");
    let kvno: u8 = parts[1].parse().expect("a version");
    let digit = |at| u8::from_str_radix(&parts[2][at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..parts[2].len()).step_by(2).map(digit).collect();
    let key = Krb5Key::new(EncType(enctype.into()), &bytes).expect("a key");

    let session = [number(0, SESSION_ENCTYPE as u8), field(1, &tlv(OCTETS, &SESSION))];
    let transited = [number(0, 1), field(1, &tlv(OCTETS, &[]))];
    // Forwardable, initial, pre-authenticated.
    let part = [
        field(0, &tlv(BITS, &[0, 0x40, 0x60, 0, 0])),
        field(1, &tlv(SEQUENCE, &session.concat())),
        field(2, &tlv(TEXT, REALM.as_bytes())),
        field(3, &name(1, &[CLIENT])),
        field(4, &tlv(SEQUENCE, &transited.concat())),
        field(5, &time(starts)),
        field(6, &time(starts)),
        field(7, &time(ends)),
    ];
    let part = tlv(APPLICATION | 3, &tlv(SEQUENCE, &part.concat()));
    let cipher = key.encrypt(TICKET_USAGE, &[0x3a; 32], &part);
    let sealed = [number(0, enctype), number(1, kvno), field(2, &tlv(OCTETS, &cipher))];
    let ticket = [
        number(0, 5),
        field(1, &tlv(TEXT, REALM.as_bytes())),
        field(2, &name(2, &COMPONENTS)),
        field(3, &tlv(SEQUENCE, &sealed.concat())),
    ];
    tlv(APPLICATION | 1, &tlv(SEQUENCE, &ticket.concat()))
}

const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const TIME: u8 = 0x18;
const TEXT: u8 = 0x1b;
const SEQUENCE: u8 = 0x30;
const APPLICATION: u8 = 0x60;

fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let len = contents.len();
    let mut out = vec![tag];
    match len {
        0..128 => out.push(len as u8),
        128..256 => out.extend([0x81, len as u8]),
        _ => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    out.extend_from_slice(contents);
    out
}

fn field(number: u8, element: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, element)
}

/// An INTEGER below 128.
fn number(at: u8, value: u8) -> Vec<u8> {
    field(at, &tlv(0x02, &[value]))
}

fn name(name_type: u8, components: &[&str]) -> Vec<u8> {
    let strings: Vec<u8> = components.iter().flat_map(|c| tlv(TEXT, c.as_bytes())).collect();
    tlv(SEQUENCE, &[number(0, name_type), field(1, &tlv(SEQUENCE, &strings))].concat())
}

fn time(seconds: u32) -> Vec<u8> {
    let mut date = Command::new("date");
    date.args(["-u", "-d", &format!("@{seconds}"), "+%Y%m%d%H%M%SZ"]);
    let printed = date.output().expect("date is there").stdout;
    tlv(TIME, printed.trim_ascii_end())
}

// ---- FILE cache, version 4 ----------------------------------------------------------------------

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn principal(name_type: u32, components: &[&str]) -> Vec<u8> {
    let mut out = words(&[name_type, components.len() as u32]);
    out.extend(counted(REALM.as_bytes()));
    components.iter().for_each(|component| out.extend(counted(component.as_bytes())));
    out
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn ccache(ticket: &[u8], starts: u32, ends: u32) -> Vec<u8> {
    let client = principal(1, &[CLIENT]);
    [
        vec![5, 4, 0, 0],
        client.clone(),
        client,
        principal(2, &COMPONENTS),
        SESSION_ENCTYPE.to_be_bytes().into(),
        counted(&SESSION),
        words(&[starts, starts, ends, 0]),
        // For no other user's ticket; the flags again; neither addresses nor authorization data.
        vec![0],
        words(&[0x4060_0000, 0, 0]),
        counted(ticket),
        counted(&[]),
    ]
    .concat()
}
