//! A whole datagram of any type and either direction.

use rxrpc::wire::{Packet, Payload, VERSION_TEXT_LEN};

/// What is read is written again byte for byte; what can be asked of it can be asked.
pub fn run(datagram: &[u8]) {
    let Ok(packet) = Packet::decode(datagram) else { return };
    let mut written = Vec::with_capacity(datagram.len());
    packet.encode(&mut written);
    assert_eq!(written, datagram);
    match packet.payload {
        Payload::Data(data) => {
            let bytes: usize = data.packets(packet.header).map(|(_, payload)| payload.len()).sum();
            assert_eq!(data.packets(packet.header).count(), data.packets);
            assert_eq!(bytes + 4 * (data.packets - 1), data.bytes.len());
        }
        Payload::Ack(ack) => {
            let acked = (0..300).filter(|index| ack.is_acked(*index)).count();
            assert!(acked <= ack.sacks.len());
        }
        Payload::DebugReply(reply) => {
            reply.record();
        }
        Payload::Version(version) => {
            assert!(version.text().len() <= VERSION_TEXT_LEN);
            if version.is_request(&packet.header) {
                assert!(packet.header.is_from_client());
            }
        }
        _ => {}
    }
}
