//! What sealing and opening takes from the allocator: a binary of its own, since it counts all of a thread.
#![cfg(feature = "rxkad")]

use std::time::SystemTime;

use bytes::Bytes;
use rxrpc::security::rxkad::{Client, INDEX, Level, SessionKey, Token};
use rxrpc::security::{ClientClass, ConnectionIds, PacketIds, PlainPacket, SealedPacket};
use rxrpc::wire::{CallNumber, Cid, Epoch, Seq, ServiceId};

/// The buffer that all packets of a run are opened into, what shares it, and the list of places in it.
const OPEN_RUN_ALLOCATIONS_MAX: u64 = 3;

fn ids(seq: u32) -> PacketIds {
    PacketIds { cid: Cid(4), call_number: CallNumber(1), seq: Seq(seq), from_client: true }
}

#[test]
fn nothing_is_allocated_for_a_packet() {
    let ids_of_connection = ConnectionIds {
        epoch: Epoch(1),
        cid: Cid(4),
        service_id: ServiceId(4),
        security_index: INDEX,
    };
    for level in [Level::Clear, Level::Auth, Level::Crypt] {
        let key = SessionKey::new([1; 8]);
        let token = Token { kvno: 1, ticket: Vec::new(), key, expires: SystemTime::UNIX_EPOCH };
        let start = Client::new(token, level).connect(ids_of_connection, &[0; 32]);
        let session = start.session.expect("a session");
        let len = session.plain_max(1412);
        for count in [1, 2, 7, 8, 9, 32, 255] {
            let plain = vec![7; len * count];
            let packets: Vec<_> =
                (1..=count as u32).map(|seq| PlainPacket { ids: ids(seq), len }).collect();
            // Used over and over by a connection: they have grown already.
            let (mut out, mut ends) = (Vec::with_capacity(2000 * count), Vec::with_capacity(count));
            let sealing = allocation_counter::measure(|| {
                session.seal_run(&packets, &plain, &mut out, &mut ends);
            });
            assert_eq!(sealing.count_total, 0, "{level}, {count} packets sealed");
            let all = Bytes::from(out);
            let mut from = 0;
            let sealed: Vec<_> = (packets.iter().zip(&ends))
                .map(|(packet, sealed)| {
                    let payload = all.slice(std::mem::replace(&mut from, sealed.end)..sealed.end);
                    SealedPacket { ids: packet.ids, cksum: sealed.cksum, payload }
                })
                .collect();
            let mut opened = Vec::with_capacity(count);
            let opening = allocation_counter::measure(|| {
                session.open_run(&sealed, &mut opened).expect("it opens");
            });
            assert!(opened.concat() == plain, "{level}, {count} packets");
            let most = if level == Level::Clear { 0 } else { OPEN_RUN_ALLOCATIONS_MAX };
            assert!(opening.count_total <= most, "{level}, {count} packets opened: {opening:?}");
        }
    }
}
