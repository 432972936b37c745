//! Bodies of CHALLENGE and RESPONSE, and the two sides of a handshake.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use subtle::{Choice, ConstantTimeEq};

use super::session::{ReadyKey, RxkadSession};
use super::{Level, RxkadError, TicketOpener, Token, pcbc};
use crate::security::{
    ClientHandshake, ConnectionIds, Entropy, Identity, ServerHandshake, Verification, Verified,
};
use crate::wire::{AbortCode, CallNumber};

/// The protocol's version in challenges and responses; the old form has no such field.
const VERSION: u32 = 2;
const CHALLENGE_LEN: usize = 16;
const OLD_CHALLENGE_LEN: usize = 8;
/// A response without its ticket.
const RESPONSE_LEN: usize = 56;
/// The part of it that is encrypted.
const SEALED: std::ops::Range<usize> = 8..48;
const CHECKSUM_AT: usize = 16;
/// Tickets that OpenAFS takes.
const TICKET_LEN_MIN: usize = 32;
const TICKET_LEN_MAX: usize = 12_000;

/// What a server asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Challenge {
    is_old: bool,
    nonce: u32,
    level: u32,
}

impl Challenge {
    /// What OpenAFS does not look at is not looked at, but for the version.
    fn decode(body: &[u8]) -> Result<Challenge, RxkadError> {
        let word = |at| word_at(body, at).ok_or(RxkadError::PacketShort);
        // The forms are told apart by their length.
        if body.len() <= OLD_CHALLENGE_LEN {
            return Ok(Challenge { is_old: true, nonce: word(0)?, level: word(4)? });
        }
        if body.len() < CHALLENGE_LEN {
            return Err(RxkadError::PacketShort);
        }
        if word(0)? != VERSION {
            return Err(RxkadError::Inconsistency);
        }
        Ok(Challenge { is_old: false, nonce: word(4)?, level: word(8)? })
    }

    fn encode(self) -> Vec<u8> {
        match self.is_old {
            true => words(&[self.nonce, self.level]),
            false => words(&[VERSION, self.nonce, self.level, 0]),
        }
    }
}

/// What both sides know of a response before its ticket is opened.
#[derive(Clone, Copy, Debug)]
struct Response<'a> {
    call_numbers: [CallNumber; 4],
    nonce: u32,
    level: u32,
    kvno: u32,
    ticket: &'a [u8],
}

impl Response<'_> {
    fn encode(&self, ids: &ConnectionIds, key: &ReadyKey) -> Vec<u8> {
        let [a, b, c, d] = self.call_numbers.map(|number| number.0);
        let (epoch, cid) = (ids.epoch.0, ids.cid.0 & !3);
        let index = u32::from(ids.security_index.0);
        let ticket_len = self.ticket.len() as u32;
        let mut body = words(&[
            VERSION, 0, epoch, cid, 0, index, a, b, c, d, self.nonce, self.level, self.kvno,
            ticket_len,
        ]);
        let checksum = checksum(&body);
        body[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_be_bytes());
        pcbc::encrypt(&key.cipher, key.iv, &mut body[SEALED]);
        body.extend_from_slice(self.ticket);
        body
    }

    fn encode_old(&self, key: &ReadyKey) -> Vec<u8> {
        let mut body = words(&[self.nonce, self.level, self.kvno, self.ticket.len() as u32]);
        pcbc::encrypt(&key.cipher, 0, &mut body[..8]);
        body.extend_from_slice(self.ticket);
        body
    }
}

/// The client's side, for one connection.
pub(super) struct ClientSide {
    pub ids: ConnectionIds,
    pub token: Arc<Token>,
    pub level: Level,
    pub key: ReadyKey,
}

impl ClientHandshake for ClientSide {
    fn respond(
        &mut self,
        challenge: &[u8],
        call_numbers: [CallNumber; 4],
        _: &Entropy,
    ) -> Result<Vec<u8>, AbortCode> {
        let challenge = Challenge::decode(challenge)?;
        // As a signed number it would be below any level: it is none.
        if challenge.level > self.level.wire() {
            return Err(RxkadError::LevelFail.code());
        }
        let response = Response {
            call_numbers,
            nonce: challenge.nonce.wrapping_add(1),
            level: self.level.wire(),
            kvno: self.token.kvno,
            ticket: &self.token.ticket,
        };
        Ok(match challenge.is_old {
            true => response.encode_old(&self.key),
            false => response.encode(&self.ids, &self.key),
        })
    }
}

/// The key is not printed.
impl fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSide").field("level", &self.level).finish_non_exhaustive()
    }
}

/// The server's side, for one connection.
#[derive(Debug)]
pub(super) struct ServerSide {
    pub ids: ConnectionIds,
    pub tickets: Arc<dyn TicketOpener>,
    pub minimum_level: Level,
    /// Drawn for the first challenge and kept for its repetitions: the answer to any of them is one.
    pub nonce: Option<u32>,
}

impl ServerHandshake for ServerSide {
    fn challenge(&mut self, entropy: &Entropy) -> Vec<u8> {
        let drawn = word_at(entropy, 0).unwrap_or_default();
        let nonce = *self.nonce.get_or_insert(drawn);
        Challenge { is_old: false, nonce, level: self.minimum_level.wire() }.encode()
    }

    fn verify(&mut self, response: &[u8], now: SystemTime) -> Verification {
        Verification::Done(self.judge(response, now).map_err(RxkadError::code))
    }
}

impl ServerSide {
    /// In the order of OpenAFS, so that the same fault has the same name. The ticket comes first, because the
    /// key is in it.
    fn judge(&self, response: &[u8], now: SystemTime) -> Result<Verified, RxkadError> {
        let Some((fixed, rest)) = response.split_first_chunk::<RESPONSE_LEN>() else {
            return Err(RxkadError::PacketShort);
        };
        let word = |at| word_at(fixed, at).unwrap_or_default();
        if word(0) != VERSION {
            return Err(RxkadError::Inconsistency);
        }
        let (kvno, ticket_len) = (word(48), word(52) as usize);
        let ticket = rest.get(..ticket_len).ok_or(RxkadError::PacketShort)?;
        if !(TICKET_LEN_MIN..=TICKET_LEN_MAX).contains(&ticket_len) {
            return Err(RxkadError::TicketLen);
        }
        let ticket = self.tickets.open_ticket(kvno, ticket, now)?;
        let key = ReadyKey::new(&ticket.key);
        let (level, call_numbers) = self.judge_sealed(*fixed, &key)?;
        let identity = Identity {
            name: ticket.client.to_string(),
            expires: Some(ticket.expires),
            principal: Some(ticket.client),
            level: Some(level),
        };
        let session = RxkadSession::new(&self.ids, key, level, Some(ticket.expires));
        Ok(Verified { session: Some(Arc::new(session)), call_numbers, identity: Some(identity) })
    }

    fn judge_sealed(
        &self,
        mut fixed: [u8; RESPONSE_LEN],
        key: &ReadyKey,
    ) -> Result<(Level, [CallNumber; 4]), RxkadError> {
        pcbc::decrypt(&key.cipher, key.iv, &mut fixed[SEALED]);
        let found = word_at(&fixed, CHECKSUM_AT).unwrap_or_default();
        fixed[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        let word = |at| word_at(&fixed, at).unwrap_or_default();
        let index = u32::from(self.ids.security_index.0);
        let mut is_ours = Choice::from(1);
        for (found, expected) in [
            (found, checksum(&fixed)),
            (word(8), self.ids.epoch.0),
            (word(12), self.ids.cid.0 & !3),
            (word(20), index),
        ] {
            is_ours &= found.ct_eq(&expected);
        }
        let call_numbers = [24, 28, 32, 36].map(|at| CallNumber(word(at)));
        let are_positive = call_numbers.iter().all(|number| *number <= CallNumber::MAX);
        if !bool::from(is_ours) || !are_positive {
            return Err(RxkadError::SealedInconsistent);
        }
        let nonce = self.nonce.ok_or(RxkadError::OutOfSequence)?;
        if !bool::from(word(40).ct_eq(&nonce.wrapping_add(1))) {
            return Err(RxkadError::OutOfSequence);
        }
        match Level::from_wire(word(44)) {
            Some(level) if level >= self.minimum_level => Ok((level, call_numbers)),
            _ => Err(RxkadError::LevelFail),
        }
    }
}

/// The checksum of a response, over its plain form with the checksum's own field 0.
fn checksum(fixed: &[u8]) -> u32 {
    fixed.iter().fold(1_000_003, |sum: u32, byte| {
        sum.wrapping_mul(0x1020_4081).wrapping_add(u32::from(*byte))
    })
}

fn word_at(body: &[u8], at: usize) -> Option<u32> {
    body.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
