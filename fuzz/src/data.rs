//! DATA: single packets and jumbograms.

use rxrpc::wire::{Flags, HEADER_LEN, Header, JumboWriter, PacketType, check_jumbo, sub_packets};

/// The walk over a datagram's packets never leaves it; a datagram that passes the check is told whole by its
/// packets, and written anew from them it reads the same.
pub fn run(datagram: &[u8]) {
    let Some(header) = Header::decode(datagram) else { return };
    let header = Header { packet_type: PacketType::Data, ..header };
    let checked = check_jumbo(&header, datagram);
    let packets = packets(header, datagram);
    let Ok(count) = checked else { return };
    assert_eq!(packets.len(), count);
    let bytes: usize = packets.iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(HEADER_LEN + bytes + 4 * (count - 1), datagram.len());

    let mut written = Vec::with_capacity(datagram.len());
    let mut writer = JumboWriter::start(&mut written, &packets[0].0, packets[0].1);
    for (header, payload) in &packets[1..] {
        let appended = writer.append(header.flags, header.cksum, payload);
        assert_eq!(appended, Ok(()));
    }
    assert_eq!(writer.packets(), count);
    assert_eq!(check_jumbo(&header, &written), Ok(count));
    let mut again = self::packets(header, &written);
    // Whether another packet follows is the writer's to say.
    assert!(!again[count - 1].0.flags.has(Flags::JUMBO_PACKET));
    again[count - 1].0.flags = packets[count - 1].0.flags;
    assert_eq!(again, packets);
}

fn packets(header: Header, datagram: &[u8]) -> Vec<(Header, &[u8])> {
    let mut walk = sub_packets(header, datagram.len());
    let next = || walk.next_in(datagram).map(|packet| (packet.header, &datagram[packet.payload]));
    std::iter::from_fn(next).collect()
}
