//! What seals and opens DATA packets.
//!
//! Nothing here depends on the packets before: checksum and seal of a packet follow from the key, the
//! connection and the packet's numbers. No number of a packet says which way it goes, so a reply's checksum
//! is that of the request's packet with the same numbers.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::{Buf, Bytes, BytesMut};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::fcrypt::{BLOCK_LEN, Fcrypt};
use super::pcbc::{self, LANES};
use super::{Level, RxkadError, SessionKey};
use crate::security::{
    ConnectionIds, PacketIds, PlainPacket, SealedEnd, SealedPacket, SecurityBrief, Session,
};
use crate::wire::AbortCode;

/// At auth: the word with check and length.
const AUTH_HEADER_LEN: usize = 4;
/// At crypt: the same, and a word that is 0.
const CRYPT_HEADER_LEN: usize = 8;

/// A session key with its schedule, ready for use. As an IV all 64 bits of the key count.
#[derive(Clone, ZeroizeOnDrop)]
pub(super) struct ReadyKey {
    pub cipher: Fcrypt,
    pub iv: u64,
}

impl ReadyKey {
    pub fn new(key: &SessionKey) -> ReadyKey {
        ReadyKey { cipher: Fcrypt::new(key), iv: u64::from_be_bytes(*key.expose()) }
    }
}

/// One connection, from the moment its key is known.
pub(super) struct RxkadSession {
    level: Level,
    key: ReadyKey,
    /// Binds header checksums to the connection.
    preseq: u64,
    /// Server: when the ticket ends.
    expires: Option<SystemTime>,
    /// Version 1: whether a right checksum has come. Until then packets without one are taken.
    checksummed: Option<AtomicBool>,
}

impl RxkadSession {
    pub fn new(
        ids: &ConnectionIds,
        key: ReadyKey,
        level: Level,
        expires: Option<SystemTime>,
    ) -> RxkadSession {
        let preseq = preseq(ids, &key);
        RxkadSession { level, key, preseq, expires, checksummed: None }
    }

    /// Takes packets without a checksum in their header, until one comes that has one: clients of version 1 send
    /// none.
    pub fn without_checksums(mut self) -> RxkadSession {
        self.checksummed = Some(AtomicBool::new(false));
        self
    }

    /// What the header checksum is made of; what it is before it is sealed.
    fn checksum_block(&self, packet: &PacketIds) -> u64 {
        let place = (packet.cid.0 & 3) << 30 | (packet.seq.0 & 0x3fff_ffff);
        (u64::from(packet.call_number.0) << 32 | u64::from(place)) ^ self.preseq
    }

    fn checksum(&self, packet: &PacketIds) -> u16 {
        checksum_of(self.key.cipher.encrypt(self.checksum_block(packet)))
    }

    /// Appends security header, plain bytes and padding: what is left is to encrypt it.
    fn lay_out(&self, packet: &PacketIds, plain: &[u8], out: &mut BytesMut) {
        let start = out.len();
        let word = u32::from(check(packet)) << 16 | (plain.len() as u32 & 0xffff);
        match self.level {
            Level::Clear => return out.extend_from_slice(plain),
            Level::Auth => out.extend_from_slice(&word.to_be_bytes()),
            Level::Crypt => out.extend_from_slice(&(u64::from(word) << 32).to_be_bytes()),
        }
        out.extend_from_slice(plain);
        let len = out.len() - start;
        let padded = match self.level {
            Level::Crypt => len.next_multiple_of(BLOCK_LEN),
            _ => len.max(BLOCK_LEN),
        };
        out.resize(start + padded, 0);
    }

    /// The part of a sealed payload that is encrypted.
    fn encrypted(&self, payload: Range<usize>) -> Range<usize> {
        let len = match self.level {
            Level::Clear => 0,
            Level::Auth => BLOCK_LEN,
            Level::Crypt => payload.len() / BLOCK_LEN * BLOCK_LEN,
        };
        payload.start..payload.start + len
    }

    /// At auth a single block, without an IV.
    fn iv(&self) -> &u64 {
        if self.level == Level::Crypt { &self.key.iv } else { &0 }
    }

    /// Compares header checksums. One of 0, from a peer that sends none, is wrong as well, but in version 1.
    fn verify(&self, expected: u16, cksum: u16) -> Result<(), RxkadError> {
        let is_right = expected.ct_eq(&cksum).into();
        match &self.checksummed {
            None if is_right => Ok(()),
            Some(seen) if is_right => {
                seen.store(true, Ordering::Relaxed);
                Ok(())
            }
            Some(seen) if cksum == 0 && !seen.load(Ordering::Relaxed) => Ok(()),
            _ => Err(RxkadError::SealedInconsistent),
        }
    }

    /// Hands over packets whose header checksum is right, up to the first that is not, or that fails.
    fn verify_run(
        &self,
        packets: &[SealedPacket],
        mut each: impl FnMut(&SealedPacket) -> Result<(), RxkadError>,
    ) -> Result<(), AbortCode> {
        for group in packets.chunks(LANES) {
            let mut blocks = [0; LANES];
            for (block, packet) in blocks.iter_mut().zip(group) {
                *block = self.checksum_block(&packet.ids);
            }
            for (packet, block) in group.iter().zip(self.key.cipher.encrypt_lanes(blocks)) {
                self.verify(checksum_of(block), packet.cksum)?;
                each(packet)?;
            }
        }
        Ok(())
    }

    /// Decrypts a payload in place and says where its plain bytes are. Padding is not looked at: it is
    /// whatever the sender had in its buffer.
    fn open_in_place(
        &self,
        packet: &PacketIds,
        payload: &mut [u8],
    ) -> Result<Range<usize>, RxkadError> {
        let header_len = match self.level {
            Level::Clear => return Ok(0..payload.len()),
            Level::Auth => AUTH_HEADER_LEN,
            Level::Crypt => CRYPT_HEADER_LEN,
        };
        if payload.len() < BLOCK_LEN {
            return Err(RxkadError::SealedInconsistent);
        }
        let encrypted = self.encrypted(0..payload.len());
        pcbc::decrypt(&self.key.cipher, self.iv(), &mut payload[encrypted.clone()]);
        let Some(word) = payload[encrypted.clone()].first_chunk() else {
            return Err(RxkadError::SealedInconsistent);
        };
        let word = u32::from_be_bytes(*word);
        if (word >> 16) as u16 != check(packet) {
            return Err(RxkadError::SealedInconsistent);
        }
        let end = header_len + (word & 0xffff) as usize;
        let room = if self.level == Level::Crypt { encrypted.len() } else { payload.len() };
        if end > room { Err(RxkadError::DataLen) } else { Ok(header_len..end) }
    }

    /// Decrypts a payload in `memory`, which is empty, and splits its plain bytes off. Of one that does not open
    /// nothing is left there.
    fn open_into(
        &self,
        packet: &PacketIds,
        payload: &[u8],
        memory: &mut BytesMut,
    ) -> Result<Bytes, RxkadError> {
        memory.extend_from_slice(payload);
        let place = self.open_in_place(packet, memory).inspect_err(|_| memory.clear())?;
        let mut plain = memory.split();
        plain.truncate(place.end);
        plain.advance(place.start);
        Ok(plain.freeze())
    }
}

impl Session for RxkadSession {
    fn plain_max(&self, room: usize) -> usize {
        match self.level {
            Level::Clear => room,
            Level::Auth if room < BLOCK_LEN => 0,
            Level::Auth => room - AUTH_HEADER_LEN,
            Level::Crypt => (room / BLOCK_LEN * BLOCK_LEN).saturating_sub(CRYPT_HEADER_LEN),
        }
        // The length's field is of 16 bits.
        .min(usize::from(u16::MAX))
    }

    fn seal(&self, packet: &PacketIds, plain: &[u8], out: &mut BytesMut) -> u16 {
        let start = out.len();
        self.lay_out(packet, plain, out);
        let encrypted = self.encrypted(start..out.len());
        pcbc::encrypt(&self.key.cipher, self.iv(), &mut out[encrypted]);
        self.checksum(packet)
    }

    fn open(&self, packet: &PacketIds, cksum: u16, sealed: Bytes) -> Result<Bytes, AbortCode> {
        self.verify(self.checksum(packet), cksum)?;
        if self.level == Level::Clear {
            return Ok(sealed);
        }
        self.open_into(packet, &sealed, &mut BytesMut::new()).map_err(RxkadError::code)
    }

    fn seal_run(
        &self,
        packets: &[PlainPacket],
        mut plain: &[u8],
        out: &mut BytesMut,
        sealed: &mut Vec<SealedEnd>,
    ) {
        let security_len = CRYPT_HEADER_LEN + BLOCK_LEN;
        out.reserve(plain.len() + packets.len() * security_len);
        for group in packets.chunks(LANES) {
            // As many chains as are encrypted at once; of fewer, the others are empty.
            let mut chains = [const { 0..0 }; LANES];
            let mut checksums = [0; LANES];
            for (lane, packet) in group.iter().enumerate() {
                let (own, rest) = plain.split_at(packet.len);
                plain = rest;
                let start = out.len();
                self.lay_out(&packet.ids, own, out);
                chains[lane] = self.encrypted(start..out.len());
                checksums[lane] = self.checksum_block(&packet.ids);
                sealed.push(SealedEnd { end: out.len(), cksum: 0 });
            }
            let first = sealed.len() - group.len();
            pcbc::encrypt_many(&self.key.cipher, self.iv(), out, &chains[..group.len()]);
            let checksums = self.key.cipher.encrypt_lanes(checksums);
            for (sealed, block) in sealed[first..].iter_mut().zip(checksums) {
                sealed.cksum = checksum_of(block);
            }
        }
    }

    fn open_run(
        &self,
        packets: &[SealedPacket],
        memory: &mut BytesMut,
        plain: &mut Vec<Bytes>,
    ) -> Result<(), AbortCode> {
        self.verify_run(packets, |packet| {
            plain.push(match self.level {
                Level::Clear => packet.payload.clone(),
                _ => self.open_into(&packet.ids, &packet.payload, memory)?,
            });
            Ok(())
        })
    }

    fn expires(&self) -> Option<(SystemTime, AbortCode)> {
        self.expires.map(|at| (at, RxkadError::Expired.code()))
    }

    fn brief(&self) -> SecurityBrief {
        let checks_headers = self.checksummed.is_none();
        SecurityBrief { expires: self.expires, checks_headers, ..super::class::brief(self.level) }
    }
}

/// The key is not printed.
impl fmt::Debug for RxkadSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxkadSession")
            .field("level", &self.level)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Drop for RxkadSession {
    fn drop(&mut self) {
        self.preseq.zeroize();
    }
}

/// The last block of the connection's names, chained with the key as IV.
fn preseq(ids: &ConnectionIds, key: &ReadyKey) -> u64 {
    let mut block = Zeroizing::new([0; 2 * BLOCK_LEN]);
    block[..4].copy_from_slice(&ids.epoch.0.to_be_bytes());
    block[4..8].copy_from_slice(&(ids.cid.0 & !3).to_be_bytes());
    block[12..].copy_from_slice(&u32::from(ids.security_index.0).to_be_bytes());
    pcbc::encrypt(&key.cipher, &key.iv, &mut *block);
    u64::from_be_bytes(block[BLOCK_LEN..].try_into().expect("a block"))
}

/// The header's checksum from its encrypted block: 16 bits of it, and never 0, which says that there is none.
fn checksum_of(block: u64) -> u16 {
    ((block >> 16) as u16).max(1)
}

/// Binds a sealed payload to its packet.
fn check(packet: &PacketIds) -> u16 {
    (packet.seq.0 ^ packet.call_number.0) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::security::rxkad::vectors::{self, Vector};
    use crate::wire::{CallNumber, Cid, Epoch, SecurityIndex, Seq, ServiceId};

    const LEVELS: [Level; 3] = [Level::Clear, Level::Auth, Level::Crypt];

    fn ids(epoch: u32, cid: u32) -> ConnectionIds {
        ConnectionIds {
            epoch: Epoch(epoch),
            cid: Cid(cid & !3),
            service_id: ServiceId(4),
            security_index: SecurityIndex(2),
        }
    }

    fn session(key: &SessionKey, ids: &ConnectionIds, level: Level) -> RxkadSession {
        RxkadSession::new(ids, ReadyKey::new(key), level, None)
    }

    fn packet(vector: &Vector, cid: u32) -> PacketIds {
        PacketIds {
            cid: Cid(cid),
            call_number: CallNumber(vector.at("call_number").number()),
            seq: Seq(vector.at("seq").number()),
            from_client: true,
        }
    }

    fn some_packet(seq: u32) -> PacketIds {
        let (cid, call_number) = (Cid(0x57b0_c659), CallNumber(7));
        PacketIds { cid, call_number, seq: Seq(seq), from_client: false }
    }

    fn some_session(level: Level) -> RxkadSession {
        let key = SessionKey::new(*b"\xfd\x1c\x1a\x2f\x3d\x4c\xa8\xb9");
        session(&key, &ids(1, 0x57b0_c658), level)
    }

    #[test]
    fn preseqs_are_as_published() {
        for vector in vectors::get("preseq").list() {
            let ids = ids(vector.at("epoch").number(), vector.at("cid").number());
            let key = ReadyKey::new(&vector.at("session_key").key());
            assert_eq!(preseq(&ids, &key), vector.at("preseq").block());
        }
    }

    #[test]
    fn header_checksums_are_as_published() {
        let vector = vectors::get("header_checksum");
        let ids = ids(vector.at("epoch").number(), vector.at("cid").number());
        let session = session(&vector.at("session_key").key(), &ids, Level::Clear);
        for case in vector.at("cases").list() {
            let packet = packet(&case, case.at("cid").number());
            let spare = case.at("spare").number();
            assert_eq!(u32::from(session.checksum(&packet)), spare, "{case:?}");
            let sealed = session.key.cipher.encrypt(session.checksum_block(&packet));
            assert_eq!(sealed, case.at("encrypted").block());
        }
    }

    #[test]
    fn payloads_are_sealed_as_published_and_opened_with_either_padding() {
        let vector = vectors::get("seal");
        let key = vector.at("session_key").key();
        for case in vector.at("cases").list() {
            let level = Level::from_wire(case.at("level").number()).expect("a level");
            let session = session(&key, &ids(1, 4), level);
            let packet = packet(&case, 4);
            let plain = case.at("plain").bytes();
            let mut sealed = BytesMut::new();
            let cksum = session.seal(&packet, &plain, &mut sealed);
            assert_eq!(sealed, case.at("sealed").bytes(), "{case:?}");
            let linux = case.find("sealed_linux_style");
            for sealed in linux.into_iter().chain([case.at("sealed")]) {
                let opened = session.open(&packet, cksum, sealed.bytes().into());
                assert_eq!(opened.as_deref(), Ok(&*plain), "{case:?}");
            }
        }
    }

    #[test]
    fn as_many_plain_bytes_as_fit_and_not_one_more() {
        for room in 0..3000 {
            for level in LEVELS {
                let session = some_session(level);
                let max = session.plain_max(room);
                let sealed_len = |len| {
                    let mut sealed = BytesMut::new();
                    session.seal(&some_packet(1), &vec![0; len], &mut sealed);
                    sealed.len()
                };
                if max > 0 || sealed_len(0) <= room {
                    assert!(sealed_len(max) <= room, "{level} {room}");
                }
                assert!(sealed_len(max + 1) > room, "{level} {room}");
            }
        }
        // What the field sends in a packet of 1412 bytes, or a little less.
        assert_eq!(LEVELS.map(|level| some_session(level).plain_max(1412)), [1412, 1408, 1400]);
        // Of datagrams of 8124, 5692 and 65,000 bytes (rx-flow.md 9.3).
        assert_eq!(LEVELS.map(|level| some_session(level).plain_max(8096)), [8096, 8092, 8088]);
        assert_eq!(LEVELS.map(|level| some_session(level).plain_max(5664)), [5664, 5660, 5656]);
        let largest = LEVELS.map(|level| some_session(level).plain_max(64_972));
        assert_eq!(largest, [64_972, 64_968, 64_960]);
    }

    #[test]
    fn padding_is_not_looked_at() {
        for level in [Level::Auth, Level::Crypt] {
            let session = some_session(level);
            let mut body = BytesMut::new();
            session.lay_out(&some_packet(3), b"a", &mut body);
            // Header and one byte; the rest is whatever was in the buffer.
            let used = if level == Level::Auth { 5 } else { 9 };
            body.resize(32, 0xee);
            body[used..].fill(0xee);
            let encrypted = session.encrypted(0..body.len());
            pcbc::encrypt(&session.key.cipher, session.iv(), &mut body[encrypted]);
            let cksum = session.checksum(&some_packet(3));
            let opened = session.open(&some_packet(3), cksum, body.into());
            assert_eq!(opened.as_deref(), Ok(b"a".as_slice()), "{level}");
        }
    }

    #[test]
    fn a_length_beyond_the_packet_is_refused_by_the_byte() {
        for (level, header_len) in [(Level::Auth, 4), (Level::Crypt, 8)] {
            let session = some_session(level);
            for (claimed, expected) in
                [(24 - header_len, Ok(())), (25 - header_len, Err(RxkadError::DataLen.code()))]
            {
                let packet = some_packet(9);
                let mut body = vec![0; 24];
                let word = u32::from(check(&packet)) << 16 | claimed as u32;
                body[..4].copy_from_slice(&word.to_be_bytes());
                let encrypted = session.encrypted(0..24);
                pcbc::encrypt(&session.key.cipher, session.iv(), &mut body[encrypted]);
                let opened = session.open(&packet, session.checksum(&packet), body.into());
                assert_eq!(opened.map(drop), expected, "{level} {claimed}");
            }
        }
    }

    /// Every truncation and every flipped bit of a sealed packet: in the first block the check or the length
    /// catches it; behind that nothing does, and what comes is data of the same length, changed from there on.
    #[test]
    fn truncated_and_flipped_packets_end_in_a_named_error_or_as_data() {
        let packet = some_packet(2);
        let plain: Vec<u8> = (0..45).collect();
        let names = [RxkadError::SealedInconsistent, RxkadError::DataLen].map(RxkadError::code);
        for level in LEVELS {
            let session = some_session(level);
            let mut sealed = BytesMut::new();
            let cksum = session.seal(&packet, &plain, &mut sealed);
            let open = |body: &[u8]| {
                let payload = Bytes::copy_from_slice(body);
                let opened = session.open(&packet, cksum, payload.clone());
                let (mut memory, mut plain) = (BytesMut::new(), Vec::new());
                let run = session.open_run(
                    &[SealedPacket { ids: packet, cksum, payload }],
                    &mut memory,
                    &mut plain,
                );
                assert_eq!(run.map(|()| plain.remove(0)), opened, "alone and in a run");
                assert!(plain.is_empty() && memory.is_empty(), "{level}");
                opened
            };
            for len in 0..sealed.len() {
                let expected = match level {
                    Level::Clear => Ok(&plain[..len]),
                    // Up to 3 bytes of padding may be lacking.
                    Level::Crypt if len / 8 * 8 >= 8 + plain.len() => Ok(&plain[..]),
                    // There is no first block.
                    _ if len < BLOCK_LEN => Err(RxkadError::SealedInconsistent.code()),
                    _ => Err(RxkadError::DataLen.code()),
                };
                let opened = open(&sealed[..len]);
                assert_eq!(
                    opened.as_deref().map_err(|code| *code),
                    expected,
                    "{level}, {len} bytes"
                );
            }
            for bit in 0..sealed.len() * 8 {
                let mut body = sealed.clone();
                body[bit / 8] ^= 1 << (bit % 8);
                let opened = open(&body);
                match level {
                    Level::Clear => assert_eq!(opened, Ok(body.into()), "{level}, bit {bit}"),
                    _ if bit < 8 * BLOCK_LEN => {
                        let code = opened.expect_err("the first block is checked");
                        assert!(names.contains(&code), "{level}, bit {bit}: {code}");
                    }
                    Level::Auth => {
                        let mut changed = plain.clone();
                        changed[bit / 8 - AUTH_HEADER_LEN] ^= 1 << (bit % 8);
                        assert_eq!(opened, Ok(changed.into()), "{level}, bit {bit}");
                    }
                    Level::Crypt => {
                        let opened = opened.expect("garbage that nothing is known of");
                        let same = bit / 8 / BLOCK_LEN * BLOCK_LEN - CRYPT_HEADER_LEN;
                        assert_eq!(opened.len(), plain.len(), "{level}, bit {bit}");
                        assert_eq!(opened[..same], plain[..same], "{level}, bit {bit}");
                        assert_ne!(opened[same..], plain[same..], "{level}, bit {bit}");
                    }
                }
            }
            for bit in 0..16 {
                let opened = session.open(&packet, cksum ^ 1 << bit, sealed.clone().into());
                assert_eq!(opened, Err(RxkadError::SealedInconsistent.code()));
            }
            let none = session.open(&packet, 0, sealed.clone().into());
            assert_eq!(none, Err(RxkadError::SealedInconsistent.code()));
        }
    }

    #[test]
    fn packets_without_a_checksum_are_taken_in_version_1_until_one_comes_that_has_one() {
        for level in LEVELS {
            let session = some_session(level).without_checksums();
            let sealed = |seq| {
                let mut sealed = BytesMut::new();
                let cksum = session.seal(&some_packet(seq), b"some bytes", &mut sealed);
                (cksum, Bytes::from(sealed))
            };
            let refused = Err(RxkadError::SealedInconsistent.code());
            let open = |seq, cksum: u16| session.open(&some_packet(seq), cksum, sealed(seq).1);
            let opened = Ok(Bytes::from_static(b"some bytes"));
            assert_eq!(open(1, 0), opened, "{level}");
            // A wrong one is none that has come.
            assert_eq!(open(2, !sealed(2).0), refused, "{level}");
            let run = [2, 3].map(|seq| {
                let (_, payload) = sealed(seq);
                SealedPacket { ids: some_packet(seq), cksum: 0, payload }
            });
            assert_eq!(
                session.open_run(&run, &mut BytesMut::new(), &mut Vec::new()),
                Ok(()),
                "{level}"
            );
            assert!(!session.brief().checks_headers);
            assert_eq!(open(4, sealed(4).0), opened, "{level}");
            assert_eq!(open(5, 0), refused, "{level}");
            assert_eq!(open(5, sealed(5).0), opened, "{level}");
        }
    }

    #[test]
    fn what_follows_a_packet_that_does_not_open_is_not_opened() {
        for level in LEVELS {
            let session = some_session(level);
            let mut run = Vec::new();
            for seq in 1..=7 {
                let mut sealed = BytesMut::new();
                let cksum = session.seal(&some_packet(seq), &[seq as u8; 9], &mut sealed);
                let cksum = if seq == 6 { !cksum } else { cksum };
                run.push(SealedPacket { ids: some_packet(seq), cksum, payload: sealed.into() });
            }
            let mut plain = Vec::new();
            let outcome = session.open_run(&run, &mut BytesMut::new(), &mut plain);
            assert_eq!(outcome, Err(RxkadError::SealedInconsistent.code()));
            let expected: Vec<_> = (1..=5).map(|seq| vec![seq; 9]).collect();
            assert_eq!(plain, expected, "{level}");
        }
    }

    /// By their types: what is left in memory is not looked at. Whoever takes the wiping from one of them
    /// takes this from being compiled.
    #[test]
    fn keys_are_wiped_when_dropped() {
        const fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<SessionKey>();
        is_wiped::<Fcrypt>();
        is_wiped::<ReadyKey>();
        is_wiped::<crate::security::rxkad::krb5::Krb5Key>();
    }

    #[test]
    fn keys_are_not_printed() {
        let printed = format!("{:?}", some_session(Level::Crypt));
        assert_eq!(printed, "RxkadSession { level: Crypt, expires: None, .. }");
    }

    proptest! {
        /// What is sealed opens to what it was, alone and with others, and a run is sealed as its
        /// packets are one by one.
        #[test]
        fn what_is_sealed_opens(
            key in any::<[u8; 8]>(),
            (epoch, cid) in any::<(u32, u32)>(),
            (call, first) in any::<(u32, u32)>(),
            plain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1600), 0..11),
        ) {
            for level in LEVELS {
                let session = session(&SessionKey::new(key), &ids(epoch, cid), level);
                let packet = |at: usize| PacketIds {
                    cid: Cid(cid),
                    call_number: CallNumber(call),
                    seq: Seq(first.wrapping_add(at as u32)),
                    from_client: true,
                };
                let packets: Vec<_> = (plain.iter().enumerate())
                    .map(|(at, plain)| PlainPacket { ids: packet(at), len: plain.len() })
                    .collect();
                let (mut out, mut ends) = (BytesMut::from("before"), Vec::new());
                session.seal_run(&packets, &plain.concat(), &mut out, &mut ends);
                prop_assert_eq!(ends.len(), plain.len());
                let mut start = b"before".len();
                let mut sealed = Vec::new();
                for (at, end) in ends.iter().enumerate() {
                    let body = &out[start..end.end];
                    let mut alone = BytesMut::new();
                    let cksum = session.seal(&packet(at), &plain[at], &mut alone);
                    prop_assert_eq!((cksum, &*alone), (end.cksum, body));
                    let opened = session.open(&packet(at), cksum, alone.into());
                    prop_assert_eq!(opened.as_deref(), Ok(&*plain[at]));
                    let payload = Bytes::copy_from_slice(body);
                    sealed.push(SealedPacket { ids: packet(at), cksum, payload });
                    start = end.end;
                }
                let mut opened = Vec::new();
                prop_assert_eq!(session.open_run(&sealed, &mut BytesMut::new(), &mut opened), Ok(()));
                prop_assert_eq!(&opened, &plain);
            }
        }
    }
}
