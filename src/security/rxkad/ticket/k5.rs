//! Kerberos 5 tickets, RFC 4120 sections 5.2.9 and 5.3.

use zeroize::Zeroizing;

use super::der::{self, Reader, tag, write, write_all, write_field, write_integer, write_time};
use super::{Contents, Print, first_good, identity, seconds};
use crate::security::Entropy;
use crate::security::rxkad::keys::ServerKeys;
use crate::security::rxkad::krb5::des::{has_odd_parity, is_weak};
use crate::security::rxkad::krb5::{EncType, Krb5Key, TICKET_USAGE, session_key};
use crate::security::rxkad::{Principal, RxkadError};

const TICKET: u8 = tag::application(1);
const ENC_TICKET_PART: u8 = tag::application(3);

/// `tkt-vno`.
const VERSION: u32 = 5;
/// The flag of a postdated ticket that the KDC has not validated yet.
const FLAG_INVALID: usize = 7;
/// NT-PRINCIPAL.
const NAME_OF_A_USER: u32 = 1;

/// `Ticket ::= [APPLICATION 1] SEQUENCE { tkt-vno[0], realm[1], sname[2], enc-part[3] }`. For whom it is makes
/// no difference: that our key opens it says so.
pub(super) fn open_whole(
    keys: &ServerKeys,
    ticket: &[u8],
    now: i64,
) -> Result<Contents, RxkadError> {
    let mut outer = Reader::new(ticket).inside(TICKET)?;
    let mut ticket = outer.inside(tag::SEQUENCE)?;
    if der::integer(ticket.field(0, tag::INTEGER)?)? != i64::from(VERSION) {
        return Err(RxkadError::BadTicket);
    }
    ticket.skip(1)?;
    ticket.skip(2)?;
    open_part(keys, ticket.element(tag::field(3))?, now)
}

/// `EncryptedData ::= SEQUENCE { etype[0], kvno[1] OPTIONAL, cipher[2] }`. What is behind it is not looked at.
pub(super) fn open_part(keys: &ServerKeys, part: &[u8], now: i64) -> Result<Contents, RxkadError> {
    let mut part = Reader::new(part).inside(tag::SEQUENCE)?;
    let enctype = der::integer(part.field(0, tag::INTEGER)?)?;
    let kvno = part.optional(1, tag::INTEGER)?.map_or(Ok(0), der::integer)?;
    let cipher = part.field(2, tag::OCTET_STRING)?;
    let enctype = i32::try_from(enctype).map_err(|_| RxkadError::UnknownKey)?;
    // Some KDCs write it as a signed number.
    let plain = decrypt(keys, EncType(enctype), kvno as u32, cipher)?;
    let contents = parse(&plain)?;
    // No skew here, other than in the check that all forms share.
    if now > contents.end {
        return Err(RxkadError::Expired);
    }
    Ok(contents)
}

/// Single-DES keys are kept by version alone, the others by version and type.
fn decrypt(
    keys: &ServerKeys,
    enctype: EncType,
    kvno: u32,
    cipher: &[u8],
) -> Result<Zeroizing<Vec<u8>>, RxkadError> {
    let open = |key: &Krb5Key| key.decrypt(TICKET_USAGE, cipher).map_err(|_| RxkadError::BadTicket);
    if !enctype.is_des() {
        return first_good(keys.krb5(kvno, enctype), open);
    }
    first_good(keys.des(kvno), |key| {
        if !has_odd_parity(key) || is_weak(key) {
            return Err(RxkadError::BadKey);
        }
        open(&Krb5Key::new(enctype, key).map_err(|_| RxkadError::BadKey)?)
    })
}

/// `EncTicketPart`; zeros may stand behind it, which is how DES fills its last block.
fn parse(plain: &[u8]) -> Result<Contents, RxkadError> {
    let mut outer = Reader::new(plain).inside(ENC_TICKET_PART)?;
    let mut part = outer.inside(tag::SEQUENCE)?;
    let is_invalid = der::has_bit(part.field(0, tag::BIT_STRING)?, FLAG_INVALID)?;
    let mut key = Reader::new(part.field(1, tag::SEQUENCE)?);
    let enctype = der::integer(key.field(0, tag::INTEGER)?)?;
    let key_bytes = key.field(1, tag::OCTET_STRING)?;
    let realm = der::text(part.field(2, tag::GENERAL_STRING)?)?;
    let client = client(Reader::new(part.field(3, tag::SEQUENCE)?), realm)?;
    part.skip(4)?;
    let auth_time = der::time(part.field(5, tag::GENERALIZED_TIME)?)?;
    let start_time = part.optional(6, tag::GENERALIZED_TIME)?.map(der::time).transpose()?;
    let end = der::time(part.field(7, tag::GENERALIZED_TIME)?)?;
    part.skip_rest(7)?;
    if is_invalid {
        return Err(RxkadError::NoAuth);
    }
    let enctype = i32::try_from(enctype).map_err(|_| RxkadError::BadKey)?;
    let key = session_key(EncType(enctype), key_bytes)?;
    Ok(Contents { key, client, start: start_time.unwrap_or(auth_time), end })
}

/// `PrincipalName ::= SEQUENCE { name-type[0], name-string[1] SEQUENCE OF GeneralString }`.
fn client(mut name: Reader<'_>, realm: &str) -> Result<Principal, RxkadError> {
    name.field(0, tag::INTEGER)?;
    let mut strings = Reader::new(name.field(1, tag::SEQUENCE)?);
    let mut components = Vec::with_capacity(2);
    while !strings.is_empty() {
        if components.len() == 2 {
            return Err(RxkadError::BadTicket);
        }
        components.push(der::text(strings.element(tag::GENERAL_STRING)?)?);
    }
    identity::principal(&components, realm)
}

// ---- printing -----------------------------------------------------------------------------------

pub(super) fn seal_part(print: &Print<'_>, key: &Krb5Key, kvno: u32, entropy: &Entropy) -> Vec<u8> {
    let plain = Zeroizing::new(enc_ticket_part(print));
    let cipher = key.encrypt(TICKET_USAGE, entropy, &plain);
    let parts = [
        write_field(0, write_integer(key.enctype().0 as u32)),
        write_field(1, write_integer(kvno)),
        write_field(2, write(tag::OCTET_STRING, &cipher)),
    ];
    write_all(tag::SEQUENCE, parts)
}

/// The session key goes in as what it is for rxkad, a DES key: then nothing is derived from it.
fn enc_ticket_part(print: &Print<'_>) -> Vec<u8> {
    let string = |text: &str| write(tag::GENERAL_STRING, text.as_bytes());
    let Principal { name, instance, cell } = print.client;
    let mut components = string(name);
    if !instance.is_empty() {
        components.extend_from_slice(&string(instance));
    }
    let key = [
        write_field(0, write_integer(EncType::DES_CBC_CRC.0 as u32)),
        write_field(1, write(tag::OCTET_STRING, print.key.expose())),
    ];
    let client = [
        write_field(0, write_integer(NAME_OF_A_USER)),
        write_field(1, write(tag::SEQUENCE, &components)),
    ];
    let transited =
        [write_field(0, write_integer(0)), write_field(1, write(tag::OCTET_STRING, &[]))];
    let (start, end) = (seconds(print.starts), seconds(print.expires));
    let parts = [
        write_field(0, write(tag::BIT_STRING, &[0, 0, 0, 0, 0])),
        write_field(1, write_all(tag::SEQUENCE, key)),
        write_field(2, string(cell)),
        write_field(3, write_all(tag::SEQUENCE, client)),
        write_field(4, write_all(tag::SEQUENCE, transited)),
        write_field(5, write_time(start)),
        write_field(6, write_time(start)),
        write_field(7, write_time(end)),
    ];
    write_all(ENC_TICKET_PART, [write_all(tag::SEQUENCE, parts)])
}
