//! Tickets of every form: as they come, and with contents that are sealed here, so that what is behind the
//! cryptography is reached.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use rxrpc::security::rxkad::keys::ServerKeys;
use rxrpc::security::rxkad::krb5::des::Des;
use rxrpc::security::rxkad::krb5::{EncType, Krb5Key, TICKET_USAGE};
use rxrpc::security::rxkad::ticket::{self, KVNO_K5_PART, KVNO_K5_WHOLE, Print};
use rxrpc::security::rxkad::{OpenedTicket, Principal, SessionKey};

use super::rest;

/// A key of odd parity that is not weak: what a server takes.
const DES_KEY: [u8; 8] = [0xa7, 0x83, 0x8a, 0xcb, 0xc7, 0x83, 0xec, 0x94];
const DES_KVNO: u32 = 2;
const ENCTYPES: [i32; 9] = [1, 2, 3, 16, 17, 18, 19, 20, 23];
const ENTROPY: [u8; 32] = [7; 32];

/// One key of each enctype; those that are not DES have the captures' version and value.
pub(crate) static KEYS: LazyLock<ServerKeys> = LazyLock::new(|| {
    let mut keys = ServerKeys::new();
    keys.insert(DES_KVNO, key(EncType::DES_CBC_CRC));
    for enctype in ENCTYPES.map(EncType).into_iter().filter(|enctype| !enctype.is_des()) {
        keys.insert(1, key(enctype));
    }
    keys
});

pub(crate) fn key(enctype: EncType) -> Krb5Key {
    let counted: Vec<u8> = (0..32).collect();
    let len = enctype.key_len().expect("a type that is known");
    let bytes = if enctype.is_des() { &DES_KEY[..] } else { &counted[..len] };
    Krb5Key::new(enctype, bytes).expect("of its length")
}

/// Opens a ticket that somebody made.
pub fn run(bytes: &[u8]) {
    let _ = open(&mut Unstructured::new(bytes));
}

fn open(source: &mut Unstructured<'_>) -> Result<()> {
    let form: u8 = source.arbitrary()?;
    let now = UNIX_EPOCH + Duration::from_secs(u64::from(source.arbitrary::<u32>()?));
    match form % 8 {
        0 => _ = check(KVNO_K5_PART, rest(source), now),
        1 => _ = check(KVNO_K5_WHOLE, rest(source), now),
        2 => _ = check(u32::from(source.arbitrary::<u16>()?), rest(source), now),
        3 => {
            // The contents of a ticket in the style of Kerberos 4.
            let mut plain = rest(source).to_vec();
            plain.resize(plain.len().next_multiple_of(8), 0);
            Des::new(&DES_KEY).pcbc_encrypt(&DES_KEY, &mut plain);
            check(DES_KVNO, &plain, now);
        }
        4 | 5 => {
            // Those of a Kerberos 5 ticket.
            let enctype = EncType(*source.choose(&ENCTYPES)?);
            let part = sealed_part(enctype, rest(source));
            check(KVNO_K5_PART, &part, now);
        }
        6 => {
            // A whole one, whose outside is anything.
            let enctype = EncType(*source.choose(&ENCTYPES)?);
            let outside: u8 = source.arbitrary()?;
            let outside = source.bytes(usize::from(outside).min(source.len()))?;
            let part = sealed_part(enctype, rest(source));
            let inner = [outside, &element(0xa3, &part)].concat();
            check(KVNO_K5_WHOLE, &element(0x61, &element(0x30, &inner)), now);
        }
        _ => printed(source, now)?,
    }
    Ok(())
}

fn check(kvno: u32, ticket: &[u8], now: SystemTime) -> Option<OpenedTicket> {
    let opened = ticket::open(&KEYS, kvno, ticket, now).ok()?;
    assert!(opened.starts < opened.expires);
    // The skew that two clocks may have.
    assert!(now <= opened.expires + Duration::from_secs(900));
    assert!(!opened.client.to_string().contains('\0'));
    Some(opened)
}

/// What is printed opens, and says what was printed.
fn printed(source: &mut Unstructured<'_>, now: SystemTime) -> Result<()> {
    let enctype = EncType(*source.choose(&ENCTYPES)?);
    let (is_v4, lifetime): (bool, u32) = source.arbitrary()?;
    let key = SessionKey::new([0x26, 0x58, 0x7f, 0xf4, 0x43, 0xae, 0xce, 0x2a]);
    let (name, instance, cell): (&str, &str, &str) = source.arbitrary()?;
    let client = Principal { name: name.into(), instance: instance.into(), cell: cell.into() };
    if now < UNIX_EPOCH + Duration::from_secs(86_400) {
        return Ok(());
    }
    let lifetime = Duration::from_secs(u64::from(lifetime).max(1));
    let print = Print::from_now(&client, &key, now, lifetime);
    let opened = if is_v4 {
        let Ok(ticket) = print.seal_v4(&DES_KEY) else { return Ok(()) };
        let opened = check(DES_KVNO, &ticket, now);
        // Its life is one of 256 steps; never shorter than what was asked for.
        assert!(
            opened.as_ref().is_some_and(|opened| opened.expires >= print.expires),
            "{client:?}"
        );
        opened
    } else {
        let kvno = if enctype.is_des() { DES_KVNO } else { 1 };
        let ticket = print.seal_k5(&self::key(enctype), kvno, &ENTROPY);
        let opened = check(KVNO_K5_PART, &ticket, now);
        // Not every name that can be written is one that a server takes.
        assert!(opened.as_ref().is_none_or(|opened| opened.expires == print.expires));
        opened
    };
    if let Some(opened) = opened {
        assert_eq!(opened.key, key);
        // A service of a host has another name in AFS.
        assert!(opened.client.name == client.name || client.name == "host");
    }
    Ok(())
}

fn sealed_part(enctype: EncType, plain: &[u8]) -> Vec<u8> {
    let kvno = if enctype.is_des() { DES_KVNO } else { 1 };
    let cipher = key(enctype).encrypt(TICKET_USAGE, &ENTROPY, plain);
    let parts = [
        element(0xa0, &element(0x02, &[enctype.0 as u8])),
        element(0xa1, &element(0x02, &[kvno as u8])),
        element(0xa2, &element(0x04, &cipher)),
    ];
    element(0x30, &parts.concat())
}

/// DER, with the shortest form of the length.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
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
