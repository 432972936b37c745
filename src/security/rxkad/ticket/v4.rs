//! Tickets in the style of Kerberos 4: DES in PCBC mode, key and IV the server's key, nothing to prove that
//! they are whole but that they parse.

use zeroize::Zeroizing;

use super::{Contents, NAME_MAX, Print, life, seconds};
use crate::security::rxkad::krb5::des::{BLOCK_LEN, Des, has_odd_parity, is_weak};
use crate::security::rxkad::{Principal, RxkadError, SessionKey};

/// Host and start time are little-endian.
const LITTLE_ENDIAN: u8 = 1;
/// A ticket of this length is let through whatever its padding: some that were made long ago have too much.
const LEN_WITH_ANY_PADDING: usize = 56;
/// More than any ticket that we print: three names, and 24 bytes.
const LEN_MAX: usize = 256;
/// The service that a printed ticket names; nobody checks it.
const SERVICE: &str = "afs";

fn schedule(key: &[u8; BLOCK_LEN]) -> Result<Des, RxkadError> {
    if !has_odd_parity(key) || is_weak(key) {
        return Err(RxkadError::BadKey);
    }
    Ok(Des::new(key))
}

pub(super) fn open(key: &[u8; BLOCK_LEN], ticket: &[u8]) -> Result<Contents, RxkadError> {
    if ticket.is_empty() || !ticket.len().is_multiple_of(BLOCK_LEN) {
        return Err(RxkadError::BadTicket);
    }
    let mut plain = Zeroizing::new(ticket.to_vec());
    schedule(key)?.pcbc_decrypt(key, &mut plain);
    parse(&plain).ok_or(RxkadError::BadTicket)
}

fn parse(plain: &[u8]) -> Option<Contents> {
    let mut reader = Reader(plain);
    let [flags] = *reader.take()?;
    let name = reader.text()?;
    let instance = reader.text()?;
    let cell = reader.text()?;
    let _host: &[u8; 4] = reader.take()?;
    let key = SessionKey::new(*reader.take()?);
    let [life] = *reader.take()?;
    let start = *reader.take()?;
    let service = reader.text()?;
    let _service_instance = reader.text()?;
    let parsed = plain.len() - reader.0.len();
    let is_padded_right = parsed.next_multiple_of(BLOCK_LEN) == plain.len();
    if name.is_empty() || service.is_empty() {
        return None;
    }
    if !is_padded_right && plain.len() != LEN_WITH_ANY_PADDING {
        return None;
    }
    let start = match flags & LITTLE_ENDIAN {
        0 => u32::from_be_bytes(start),
        _ => u32::from_le_bytes(start),
    };
    let [name, instance, cell] = [name, instance, cell].map(str::to_owned);
    let client = Principal { name, instance, cell };
    Some(Contents { key, client, start: start.into(), end: life::end(start, life) })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    /// Up to a NUL, which is not part of it. What is no UTF-8 is refused: replaced by other characters, two
    /// names could become one.
    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().take(NAME_MAX + 1).position(|byte| *byte == 0)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        std::str::from_utf8(text).ok()
    }
}

pub(super) fn seal(print: &Print<'_>, key: &[u8; BLOCK_LEN]) -> Result<Vec<u8>, RxkadError> {
    let Principal { name, instance, cell } = print.client;
    let fits = |text: &str| text.len() <= NAME_MAX && !text.contains('\0');
    if name.is_empty() || ![name, instance, cell].into_iter().all(|text| fits(text)) {
        return Err(RxkadError::BadTicket);
    }
    let (start, end) = (seconds(print.starts), seconds(print.expires));
    let life = life::life(start, end).ok_or(RxkadError::BadTicket)?;
    let start = u32::try_from(start).map_err(|_| RxkadError::BadTicket)?;
    // Before there is a copy of the session key that only encryption would wipe.
    let des = schedule(key)?;
    // Room for all of it: a vector that grows leaves the session key where it was before.
    let mut ticket = Vec::with_capacity(LEN_MAX);
    ticket.push(0);
    for text in [name, instance, cell] {
        ticket.extend_from_slice(text.as_bytes());
        ticket.push(0);
    }
    ticket.extend_from_slice(&[0; 4]);
    ticket.extend_from_slice(print.key.expose());
    ticket.push(life);
    ticket.extend_from_slice(&start.to_be_bytes());
    ticket.extend_from_slice(SERVICE.as_bytes());
    // The service's NUL, and its empty instance.
    ticket.extend_from_slice(&[0; 2]);
    ticket.resize(ticket.len().next_multiple_of(BLOCK_LEN), 0);
    des.pcbc_encrypt(key, &mut ticket);
    Ok(ticket)
}
