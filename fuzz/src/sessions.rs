//! Packets of a secured connection: anything is opened or refused, and what is sealed opens.

use arbitrary::{Result, Unstructured};
use bytes::{Bytes, BytesMut};
use rxrpc::security::rxkad::{Client, INDEX, Level, SessionKey, Token};
use rxrpc::security::{
    ClientClass, ConnectionIds, PacketIds, PlainPacket, SealedEnd, SealedPacket, Session,
};
use rxrpc::wire::{CallNumber, Cid, Epoch, Seq, ServiceId};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

/// One for each level.
static SESSIONS: LazyLock<[Arc<dyn Session>; 3]> =
    LazyLock::new(|| [Level::Clear, Level::Auth, Level::Crypt].map(session));

fn session(level: Level) -> Arc<dyn Session> {
    let key = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    let token = Token { kvno: 213, ticket: Vec::new(), key, expires: SystemTime::UNIX_EPOCH };
    let ids = ConnectionIds {
        epoch: Epoch(0x8f3a_21c4),
        cid: Cid(4),
        service_id: ServiceId(4),
        security_index: INDEX,
    };
    Client::new(token, level).connect(ids, &[0; 32]).session.expect("rxkad has a session")
}

/// See the module.
pub fn run(bytes: &[u8]) {
    let _ = one(&mut Unstructured::new(bytes));
}

fn one(source: &mut Unstructured<'_>) -> Result<()> {
    let session = source.choose(&SESSIONS[..])?;
    let (call_number, seq, channel, from_client): (u32, u32, u8, bool) = source.arbitrary()?;
    let packet = |seq: u32| PacketIds {
        cid: Cid(4 | u32::from(channel & 3)),
        call_number: CallNumber(call_number),
        seq: Seq(seq),
        from_client,
    };
    if source.arbitrary()? {
        // Packets that others made, one by one and together.
        let mut packets = Vec::new();
        while packets.len() < 40
            && let Ok((is_right, cksum, len)) = source.arbitrary::<(bool, u16, u8)>()
            && !source.is_empty()
        {
            let ids = packet(seq.wrapping_add(packets.len() as u32));
            // The checksum depends on the numbers alone: with the right one the payload is looked at.
            let cksum =
                if is_right { session.seal(&ids, b"", &mut BytesMut::new()) } else { cksum };
            let payload = source.bytes(usize::from(len).min(source.len()))?;
            let payload = Bytes::copy_from_slice(payload);
            packets.push(SealedPacket { ids, cksum, payload });
        }
        let mut together = Vec::new();
        let result = session.open_run(&packets, &mut BytesMut::new(), &mut together);
        let mut apart = Vec::new();
        let one_by_one = packets.iter().try_for_each(|packet| {
            let opened = session.open(&packet.ids, packet.cksum, packet.payload.clone())?;
            assert!(opened.len() <= packet.payload.len());
            apart.push(opened);
            Ok(())
        });
        assert_eq!((result, together), (one_by_one, apart));
        return Ok(());
    }
    // Packets of ours, one by one and together, and opened again.
    let mut plain = Vec::new();
    let mut packets = Vec::new();
    while packets.len() < 40
        && let Ok(len) = source.arbitrary::<u8>()
        && !source.is_empty()
    {
        let bytes = source.bytes(usize::from(len).min(source.len()))?;
        let ids = packet(seq.wrapping_add(packets.len() as u32));
        packets.push(PlainPacket { ids, len: bytes.len() });
        plain.extend_from_slice(bytes);
    }
    let (mut together, mut ends) = (BytesMut::new(), Vec::new());
    session.seal_run(&packets, &plain, &mut together, &mut ends);
    let (mut apart, mut at, mut start) = (BytesMut::new(), 0, 0);
    assert_eq!(ends.len(), packets.len());
    for (packet, SealedEnd { end, cksum }) in packets.iter().zip(ends) {
        let own = &plain[at..at + packet.len];
        at += packet.len;
        assert_eq!(session.seal(&packet.ids, own, &mut apart), cksum);
        assert_eq!(apart, together[..end]);
        assert!(session.plain_max(end - start) >= own.len());
        let sealed = Bytes::copy_from_slice(&together[start..end]);
        assert_eq!(session.open(&packet.ids, cksum, sealed).as_deref(), Ok(own));
        start = end;
    }
    Ok(())
}
