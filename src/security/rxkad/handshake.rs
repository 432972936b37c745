//! Bodies of CHALLENGE and RESPONSE, and the two sides of a handshake.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use subtle::{Choice, ConstantTimeEq};

use super::session::{ReadyKey, RxkadSession};
use super::{Level, OpenedTicket, RxkadError, TICKET_LEN, TicketOpener, Token, pcbc};
use crate::security::{
    ClientHandshake, ConnectionIds, Entropy, Identity, SecurityBrief, ServerHandshake,
    Verification, Verified,
};
use crate::wire::{AbortCode, CallNumber};

/// The protocol's version in challenges and responses; the old form has no such field.
const VERSION: u32 = 2;
const CHALLENGE_LEN: usize = 16;
const OLD_CHALLENGE_LEN: usize = 8;
/// A response without its ticket.
const RESPONSE_LEN: usize = 56;
/// The same of the old form.
const OLD_RESPONSE_LEN: usize = 16;
/// The part of it that is encrypted.
const SEALED: std::ops::Range<usize> = 8..48;
const CHECKSUM_AT: usize = 16;

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
        pcbc::encrypt(&key.cipher, &key.iv, &mut body[SEALED]);
        body.extend_from_slice(self.ticket);
        body
    }

    fn encode_old(&self, key: &ReadyKey) -> Vec<u8> {
        let mut body = words(&[self.nonce, self.level, self.kvno, self.ticket.len() as u32]);
        pcbc::encrypt(&key.cipher, &0, &mut body[..8]);
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
    pub takes_version_1: bool,
}

impl ClientHandshake for ClientSide {
    fn respond(
        &mut self,
        challenge: &[u8],
        call_numbers: [CallNumber; 4],
        _: &Entropy,
    ) -> Result<Vec<u8>, AbortCode> {
        let challenge = Challenge::decode(challenge)?;
        if challenge.is_old && !self.takes_version_1 {
            return Err(RxkadError::Inconsistency.code());
        }
        // As a signed number it would be below any level: it is none.
        if challenge.level > self.level.wire() {
            return Err(RxkadError::LevelFail.code());
        }
        // No server takes it, and what is longer than a datagram could not even be sent.
        if !TICKET_LEN.contains(&self.token.ticket.len()) {
            return Err(RxkadError::TicketLen.code());
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
    pub takes_version_1: bool,
    /// Whether the client is asked in the form of version 1, and has to answer in it.
    pub is_old: bool,
    /// Drawn for the first challenge and kept for its repetitions: the answer to any of them is one.
    pub nonce: Option<u32>,
}

impl ServerHandshake for ServerSide {
    fn begin(&mut self, cksum: u16) {
        self.is_old = self.takes_version_1 && cksum == 0;
    }

    fn brief(&self) -> SecurityBrief {
        super::class::brief(self.minimum_level)
    }

    fn challenge(&mut self, entropy: &Entropy) -> Vec<u8> {
        let drawn = word_at(entropy, 0).unwrap_or_default();
        let nonce = *self.nonce.get_or_insert(drawn);
        Challenge { is_old: self.is_old, nonce, level: self.minimum_level.wire() }.encode()
    }

    fn verify(&mut self, response: &[u8], now: SystemTime) -> Verification {
        Verification::Done(self.judge(response, now).map_err(RxkadError::code))
    }
}

impl ServerSide {
    /// In the order of OpenAFS, so that the same fault has the same name. The ticket comes first, because the
    /// key is in it.
    fn judge(&self, response: &[u8], now: SystemTime) -> Result<Verified, RxkadError> {
        if self.is_old {
            return self.judge_old(response, now);
        }
        let Some((fixed, rest)) = response.split_first_chunk::<RESPONSE_LEN>() else {
            return Err(RxkadError::PacketShort);
        };
        let word = |at| word_at(fixed, at).unwrap_or_default();
        if word(0) != VERSION {
            return Err(RxkadError::Inconsistency);
        }
        let ticket = self.open_ticket(word(48), word(52), rest, now)?;
        let key = ReadyKey::new(&ticket.key);
        let (level, call_numbers) = self.judge_sealed(*fixed, &key)?;
        let session = RxkadSession::new(&self.ids, key, level, Some(ticket.expires));
        Ok(self.verified(ticket, session, level, call_numbers))
    }

    /// The old form, which names neither connection nor calls: whose answer it is, the nonce alone says.
    fn judge_old(&self, response: &[u8], now: SystemTime) -> Result<Verified, RxkadError> {
        let Some((fixed, rest)) = response.split_first_chunk::<OLD_RESPONSE_LEN>() else {
            return Err(RxkadError::PacketShort);
        };
        let mut fixed = *fixed;
        let word = |at| word_at(&fixed, at).unwrap_or_default();
        let ticket = self.open_ticket(word(8), word(12), rest, now)?;
        let key = ReadyKey::new(&ticket.key);
        pcbc::decrypt(&key.cipher, &0, &mut fixed[..8]);
        let word = |at| word_at(&fixed, at).unwrap_or_default();
        let level = self.judge_answer(word(0), word(4))?;
        let session = RxkadSession::new(&self.ids, key, level, Some(ticket.expires));
        let session = session.without_checksums();
        Ok(self.verified(ticket, session, level, [CallNumber::NONE; 4]))
    }

    fn open_ticket(
        &self,
        kvno: u32,
        len: u32,
        rest: &[u8],
        now: SystemTime,
    ) -> Result<OpenedTicket, RxkadError> {
        let len = len as usize;
        let ticket = rest.get(..len).ok_or(RxkadError::PacketShort)?;
        if !TICKET_LEN.contains(&len) {
            return Err(RxkadError::TicketLen);
        }
        self.tickets.open_ticket(kvno, ticket, now)
    }

    fn verified(
        &self,
        ticket: OpenedTicket,
        session: RxkadSession,
        level: Level,
        call_numbers: [CallNumber; 4],
    ) -> Verified {
        let identity = Identity {
            name: ticket.client.to_string(),
            expires: Some(ticket.expires),
            principal: Some(ticket.client),
            level: Some(level),
        };
        Verified { session: Some(Arc::new(session)), call_numbers, identity: Some(identity) }
    }

    fn judge_sealed(
        &self,
        mut fixed: [u8; RESPONSE_LEN],
        key: &ReadyKey,
    ) -> Result<(Level, [CallNumber; 4]), RxkadError> {
        pcbc::decrypt(&key.cipher, &key.iv, &mut fixed[SEALED]);
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
        Ok((self.judge_answer(word(40), word(44))?, call_numbers))
    }

    /// Whether it is the challenge's nonce and one, and a level that will do.
    fn judge_answer(&self, answer: u32, level: u32) -> Result<Level, RxkadError> {
        let nonce = self.nonce.ok_or(RxkadError::OutOfSequence)?;
        if !bool::from(answer.ct_eq(&nonce.wrapping_add(1))) {
            return Err(RxkadError::OutOfSequence);
        }
        match Level::from_wire(level) {
            Some(level) if level >= self.minimum_level => Ok(level),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::security::rxkad::vectors::{self, Vector};
    use crate::security::rxkad::{Principal, SessionKey};
    use crate::wire::{Cid, Epoch, SecurityIndex, ServiceId};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// Opens one ticket, of one key version.
    #[derive(Debug)]
    struct OneTicket(u32, Vec<u8>, SessionKey);

    impl TicketOpener for OneTicket {
        fn open_ticket(
            &self,
            kvno: u32,
            ticket: &[u8],
            now: SystemTime,
        ) -> Result<OpenedTicket, RxkadError> {
            match () {
                () if kvno != self.0 => Err(RxkadError::UnknownKey),
                () if ticket != self.1 => Err(RxkadError::BadTicket),
                () => Ok(OpenedTicket {
                    key: self.2.clone(),
                    client: Principal {
                        name: "alice".into(),
                        instance: "admin".into(),
                        cell: "EXAMPLE.ORG".into(),
                    },
                    starts: now,
                    expires: now + Duration::from_secs(60),
                }),
            }
        }
    }

    fn ids(vector: &Vector) -> ConnectionIds {
        ConnectionIds {
            epoch: Epoch(vector.at("epoch").number()),
            cid: Cid(vector.at("cid").number() & !3),
            service_id: ServiceId(4),
            security_index: SecurityIndex(2),
        }
    }

    fn client(vector: &Vector, ids: ConnectionIds, level: Level) -> ClientSide {
        let key = vector.at("session_key").key();
        let ready = ReadyKey::new(&key);
        let (kvno, ticket) = (vector.at("kvno").number(), vector.at("ticket").bytes());
        let token = Arc::new(Token { kvno, ticket, key, expires: NOW });
        ClientSide { ids, token, level, key: ready, takes_version_1: true }
    }

    fn server(vector: &Vector, ids: ConnectionIds, minimum_level: Level) -> ServerSide {
        let (kvno, ticket) = (vector.at("kvno").number(), vector.at("ticket").bytes());
        let tickets = Arc::new(OneTicket(kvno, ticket, vector.at("session_key").key()));
        let nonce = Some(vector.at("challenge_nonce").number());
        ServerSide { ids, tickets, minimum_level, takes_version_1: false, is_old: false, nonce }
    }

    fn call_numbers(vector: &Vector) -> [CallNumber; 4] {
        let numbers: Vec<_> =
            vector.at("call_numbers").list().iter().map(|it| CallNumber(it.number())).collect();
        numbers.try_into().expect("four")
    }

    fn challenge(nonce: u32, level: u32) -> Vec<u8> {
        Challenge { is_old: false, nonce, level }.encode()
    }

    fn level(vector: &Vector) -> Level {
        Level::from_wire(vector.at("level").number()).expect("a level")
    }

    fn responses() -> Vec<Vector> {
        vectors::get("response_v2").list()
    }

    #[test]
    fn challenges_are_as_published() {
        for vector in vectors::get("challenge").list() {
            let challenge = Challenge {
                is_old: vector.find("version").is_some_and(|version| version.is_text()),
                nonce: vector.at("nonce").number(),
                level: vector.at("level").number(),
            };
            assert_eq!(challenge.encode(), vector.at("body").bytes());
            assert_eq!(Challenge::decode(&vector.at("body").bytes()), Ok(challenge));
        }
    }

    #[test]
    fn checksums_are_as_published() {
        for vector in vectors::get("response_checksum").list() {
            assert_eq!(checksum(&vector.at("body").bytes()), vector.at("checksum").number());
        }
    }

    #[test]
    fn responses_are_as_published_and_are_taken() {
        for vector in responses() {
            let (ids, level) = (ids(&vector), level(&vector));
            let challenge = challenge(vector.at("challenge_nonce").number(), 0);
            let numbers = call_numbers(&vector);
            let body = client(&vector, ids, level).respond(&challenge, numbers, &[0; 32]);
            assert_eq!(body, Ok(vector.at("body").bytes()));
            let verified = server(&vector, ids, Level::Clear).judge(&body.expect("it"), NOW);
            let verified = verified.expect("a good response");
            assert_eq!(verified.call_numbers, numbers);
            let identity = verified.identity.expect("an identity");
            assert_eq!(identity.name, "alice.admin@EXAMPLE.ORG");
            assert_eq!(identity.level, Some(level));
            assert_eq!(identity.expires, Some(NOW + Duration::from_secs(60)));
        }
        for vector in vectors::get("response_old").list() {
            let challenge = words(&[vector.at("challenge_nonce").number(), 0]);
            let ids = ids(&responses()[0]);
            let mut client = client(&vector, ids, level(&vector));
            let body = client.respond(&challenge, [CallNumber(1); 4], &[0; 32]);
            assert_eq!(body, Ok(vector.at("body").bytes()));
        }
    }

    #[test]
    fn a_client_goes_as_far_as_its_level_and_no_further() {
        let vector = &responses()[0];
        for level in [Level::Clear, Level::Auth, Level::Crypt] {
            for (asked, is_fine) in [
                (0, true),
                (level.wire(), true),
                (level.wire() + 1, false),
                (3, false),
                (u32::MAX, false),
            ] {
                let mut client = client(vector, ids(vector), level);
                for challenge in [challenge(7, asked), words(&[7, asked])] {
                    let body = client.respond(&challenge, [CallNumber(1); 4], &[0; 32]);
                    let expected = if is_fine { Ok(()) } else { Err(RxkadError::LevelFail.code()) };
                    assert_eq!(body.map(drop), expected, "{level} {asked}");
                }
            }
        }
    }

    #[test]
    fn a_client_sends_no_ticket_that_every_server_refuses() {
        let vector = &responses()[0];
        for (len, is_fine) in [
            (0, false),
            (31, false),
            (32, true),
            (12_000, true),
            (12_001, false),
            (70_000, false),
            (1_000_000, false),
        ] {
            let mut client = client(vector, ids(vector), Level::Crypt);
            Arc::get_mut(&mut client.token).expect("ours alone").ticket = vec![7; len];
            for (challenge, fixed) in
                [(challenge(7, 0), RESPONSE_LEN), (words(&[7, 0]), OLD_RESPONSE_LEN)]
            {
                let body = client.respond(&challenge, [CallNumber(1); 4], &[0; 32]);
                let refused = Err(RxkadError::TicketLen.code());
                let expected = if is_fine { Ok(fixed + len) } else { refused };
                assert_eq!(body.map(|body| body.len()), expected, "{len} bytes");
            }
        }
    }

    #[test]
    fn a_client_that_wants_version_2_refuses_the_other_at_every_level() {
        let vector = &responses()[0];
        for level in [Level::Clear, Level::Auth, Level::Crypt] {
            let mut client = client(vector, ids(vector), level);
            client.takes_version_1 = false;
            let mut respond =
                |challenge: &[u8]| client.respond(challenge, [CallNumber(1); 4], &[0; 32]);
            let refused = Err(RxkadError::Inconsistency.code());
            // Even where the level would be refused as well: what is asked is not looked at.
            for asked in 0..4 {
                assert_eq!(respond(&words(&[7, asked])), refused, "{level}");
            }
            assert!(respond(&challenge(7, 0)).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_server_takes_its_minimum_and_more_and_no_less() {
        let vector = &responses()[0];
        for minimum in [Level::Clear, Level::Auth, Level::Crypt] {
            let challenged = server(vector, ids(vector), minimum).challenge(&[0; 32]);
            assert_eq!(word_at(&challenged, 8), Some(minimum.wire()));
            for offered in [0, 1, 2, 3, u32::MAX] {
                let body = response(vector, |it| it.level = offered);
                let judged = server(vector, ids(vector), minimum).judge(&body, NOW);
                let is_fine = (minimum.wire()..=2).contains(&offered);
                let expected = if is_fine { Ok(()) } else { Err(RxkadError::LevelFail) };
                assert_eq!(judged.map(drop), expected, "{minimum} {offered}");
            }
        }
    }

    /// A response that is sealed well, of contents that may be bad.
    fn response(vector: &Vector, change: impl FnOnce(&mut Response<'_>)) -> Vec<u8> {
        let ticket = vector.at("ticket").bytes();
        let mut response = Response {
            call_numbers: call_numbers(vector),
            nonce: vector.at("challenge_nonce").number().wrapping_add(1),
            level: vector.at("level").number(),
            kvno: vector.at("kvno").number(),
            ticket: &ticket,
        };
        change(&mut response);
        response.encode(&ids(vector), &ReadyKey::new(&vector.at("session_key").key()))
    }

    #[test]
    fn every_fault_has_its_name() {
        let vector = &responses()[0];
        let judge = |body: &[u8]| server(vector, ids(vector), Level::Clear).judge(body, NOW);
        let name = |change: &dyn Fn(&mut Response<'_>)| {
            judge(&response(vector, change)).map(drop).expect_err("a fault")
        };
        assert!(judge(&response(vector, |_| {})).is_ok());
        assert_eq!(name(&|it| it.nonce += 1), RxkadError::OutOfSequence);
        assert_eq!(name(&|it| it.nonce -= 1), RxkadError::OutOfSequence);
        assert_eq!(name(&|it| it.kvno += 1), RxkadError::UnknownKey);
        assert_eq!(name(&|it| it.ticket = &it.ticket[8..]), RxkadError::BadTicket);
        assert_eq!(name(&|it| it.ticket = &it.ticket[..31]), RxkadError::TicketLen);
        assert_eq!(name(&|it| it.ticket = &it.ticket[..32]), RxkadError::BadTicket);
        assert_eq!(name(&|it| it.ticket = &[7; 12_000]), RxkadError::BadTicket);
        assert_eq!(name(&|it| it.ticket = &[7; 12_001]), RxkadError::TicketLen);
        assert_eq!(
            name(&|it| it.call_numbers[3] = CallNumber(0x8000_0000)),
            RxkadError::SealedInconsistent
        );
        let judge_ids = |change: &dyn Fn(&mut ConnectionIds)| {
            let mut ids = ids(vector);
            change(&mut ids);
            let server = server(vector, ids, Level::Clear);
            server.judge(&response(vector, |_| {}), NOW).map(drop).expect_err("a fault")
        };
        assert_eq!(judge_ids(&|ids| ids.epoch.0 ^= 1), RxkadError::SealedInconsistent);
        assert_eq!(judge_ids(&|ids| ids.cid.0 ^= 4), RxkadError::SealedInconsistent);
        let mut body = response(vector, |_| {});
        body[3] = 3;
        assert_eq!(judge(&body).map(drop), Err(RxkadError::Inconsistency));
        // Sealed with another key.
        let mut body = response(vector, |_| {});
        body[SEALED].fill(0);
        assert_eq!(judge(&body).map(drop), Err(RxkadError::SealedInconsistent));
        // Without a challenge of ours there is nothing that it could answer.
        let mut server = server(vector, ids(vector), Level::Clear);
        server.nonce = None;
        let judged = server.judge(&response(vector, |_| {}), NOW).map(drop);
        assert_eq!(judged, Err(RxkadError::OutOfSequence));
    }

    #[test]
    fn a_damaged_response_is_refused_by_name() {
        for vector in responses() {
            let server = server(&vector, ids(&vector), Level::Clear);
            let body = vector.at("body").bytes();
            for len in 0..body.len() {
                let judged = server.judge(&body[..len], NOW).map(drop);
                assert_eq!(judged, Err(RxkadError::PacketShort), "{len} bytes");
            }
            for bit in 0..body.len() * 8 {
                let mut body = body.clone();
                body[bit / 8] ^= 1 << (bit % 8);
                let claimed = word_at(&body, 52).expect("a length") as usize;
                let expected = match bit / 8 {
                    0..4 => RxkadError::Inconsistency,
                    // Sealed, or under the checksum that is.
                    4..48 => RxkadError::SealedInconsistent,
                    48..52 => RxkadError::UnknownKey,
                    52..56 if claimed > body.len() - RESPONSE_LEN => RxkadError::PacketShort,
                    52..56 if claimed < *TICKET_LEN.start() => RxkadError::TicketLen,
                    _ => RxkadError::BadTicket,
                };
                assert_eq!(server.judge(&body, NOW).map(drop), Err(expected), "bit {bit}");
            }
        }
    }

    /// As [`server`], that takes version 1 and saw a first packet without a checksum.
    fn old_server(vector: &Vector, minimum_level: Level) -> ServerSide {
        let mut server = server(vector, ids(&responses()[0]), minimum_level);
        server.takes_version_1 = true;
        server.begin(0);
        server
    }

    fn old_responses() -> Vec<Vector> {
        vectors::get("response_old").list()
    }

    #[test]
    fn version_1_is_asked_for_where_it_is_taken_and_no_checksum_came() {
        let vector = &old_responses()[0];
        for (takes_version_1, cksum, is_old) in
            [(true, 0, true), (true, 1, false), (false, 0, false), (false, 1, false)]
        {
            let mut server = server(vector, ids(&responses()[0]), Level::Auth);
            server.takes_version_1 = takes_version_1;
            server.begin(cksum);
            let challenge = Challenge::decode(&server.challenge(&[0; 32])).expect("a challenge");
            let nonce = vector.at("challenge_nonce").number();
            assert_eq!(challenge, Challenge { is_old, nonce, level: 1 });
            // The answer to the other form is none.
            let judged = server.judge(&vector.at("body").bytes(), NOW).map(drop);
            match is_old {
                true => assert_ne!(judged, Err(RxkadError::Inconsistency)),
                false => assert_eq!(judged, Err(RxkadError::Inconsistency)),
            }
        }
    }

    #[test]
    fn responses_of_version_1_are_taken_by_a_server_that_asked_for_them() {
        for vector in old_responses() {
            let verified = old_server(&vector, Level::Clear).judge(&vector.at("body").bytes(), NOW);
            let verified = verified.expect("a good response");
            assert_eq!(verified.call_numbers, [CallNumber::NONE; 4], "it names none");
            let identity = verified.identity.expect("an identity");
            assert_eq!(identity.name, "alice.admin@EXAMPLE.ORG");
            assert_eq!(identity.level, Some(level(&vector)));
            assert_eq!(identity.expires, Some(NOW + Duration::from_secs(60)));
            for minimum in [Level::Clear, Level::Auth, Level::Crypt] {
                for offered in [0, 1, 2, 3, u32::MAX] {
                    let (key, ticket) =
                        (vector.at("session_key").key(), vector.at("ticket").bytes());
                    let nonce = vector.at("challenge_nonce").number().wrapping_add(1);
                    let body = Response {
                        call_numbers: [CallNumber(1); 4],
                        nonce,
                        level: offered,
                        kvno: vector.at("kvno").number(),
                        ticket: &ticket,
                    };
                    let body = body.encode_old(&ReadyKey::new(&key));
                    let judged = old_server(&vector, minimum).judge(&body, NOW).map(drop);
                    let is_fine = (minimum.wire()..=2).contains(&offered);
                    let expected = if is_fine { Ok(()) } else { Err(RxkadError::LevelFail) };
                    assert_eq!(judged, expected, "{minimum} {offered}");
                }
            }
            let mut server = old_server(&vector, Level::Clear);
            server.nonce = None;
            let judged = server.judge(&vector.at("body").bytes(), NOW).map(drop);
            assert_eq!(judged, Err(RxkadError::OutOfSequence), "nobody asked");
        }
    }

    #[test]
    fn a_damaged_response_of_version_1_is_refused_by_name() {
        for vector in old_responses() {
            let server = old_server(&vector, Level::Clear);
            let body = vector.at("body").bytes();
            for len in 0..body.len() {
                let judged = server.judge(&body[..len], NOW).map(drop);
                assert_eq!(judged, Err(RxkadError::PacketShort), "{len} bytes");
            }
            for bit in 0..body.len() * 8 {
                let mut body = body.clone();
                body[bit / 8] ^= 1 << (bit % 8);
                let claimed = word_at(&body, 12).expect("a length") as usize;
                let expected = match bit / 8 {
                    // One block: a flipped bit makes another nonce of it.
                    0..8 => RxkadError::OutOfSequence,
                    8..12 => RxkadError::UnknownKey,
                    12..16 if claimed > body.len() - OLD_RESPONSE_LEN => RxkadError::PacketShort,
                    12..16 if claimed < *TICKET_LEN.start() => RxkadError::TicketLen,
                    _ => RxkadError::BadTicket,
                };
                assert_eq!(server.judge(&body, NOW).map(drop), Err(expected), "bit {bit}");
            }
            // That of version 2 begins with what is a nonce in version 1.
            for other in responses() {
                let judged = server.judge(&other.at("body").bytes(), NOW).map(drop);
                assert!(judged.is_err());
            }
        }
    }

    #[test]
    fn a_damaged_challenge_is_answered_as_another_or_refused_by_name() {
        let vector = &responses()[0];
        let mut client = client(vector, ids(vector), Level::Auth);
        let mut respond = |challenge: &[u8]| {
            let body = client.respond(challenge, [CallNumber(1); 4], &[0; 32]);
            body.map_err(|code| RxkadError::from_code(code).expect("a name"))
        };
        let whole = challenge(0x1234_5678, 1);
        for len in 0..whole.len() {
            // Eight bytes are a challenge of the old form.
            let expected = if len == 8 { RxkadError::LevelFail } else { RxkadError::PacketShort };
            assert_eq!(respond(&whole[..len]), Err(expected), "{len} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut challenge = whole.clone();
            challenge[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..4 => Err(RxkadError::Inconsistency),
                8..12 if bit != 11 * 8 => Err(RxkadError::LevelFail),
                _ => Ok(()),
            };
            assert_eq!(respond(&challenge).map(drop), expected, "bit {bit}");
        }
    }

    #[test]
    fn a_challenge_is_repeated_with_its_nonce_and_answered_anew() {
        let vector = &responses()[0];
        let mut server = server(vector, ids(vector), Level::Clear);
        server.nonce = None;
        let first = server.challenge(&[1; 32]);
        assert_eq!(first, server.challenge(&[2; 32]));
        assert_eq!(word_at(&first, 4), Some(0x0101_0101));
        let mut client = client(vector, ids(vector), Level::Crypt);
        for number in [1, 2] {
            let numbers = [CallNumber(number); 4];
            let body = client.respond(&first, numbers, &[0; 32]).expect("an answer");
            assert_eq!(server.judge(&body, NOW).expect("good").call_numbers, numbers);
        }
    }

    #[test]
    fn neither_side_prints_its_key() {
        let vector = &responses()[0];
        let client = client(vector, ids(vector), Level::Crypt);
        assert_eq!(format!("{client:?}"), "ClientSide { level: Crypt, .. }");
    }
}
