//! Single datagrams over UDP, from ports that the kernel gives to different sockets.

use std::net::UdpSocket;

use rxrpc::wire::{
    CallNumber, Cid, Epoch, Flags, HEADER_LEN, Header, PacketType, SecurityIndex, Seq, Serial,
    ServiceId,
};
use rxrpc::{Endpoint, ServiceOptions};

use super::*;

/// A socket whose datagrams come to `shard`, found by trying.
async fn socket_of(server: &Endpoint, shard: usize) -> UdpSocket {
    let mut others = Vec::new();
    for _ in 0..64 {
        let socket = UdpSocket::bind(loopback()).unwrap();
        let before = server.inspect().await.unwrap();
        socket.send_to(b"short", server.local_addr()).unwrap();
        let came = loop {
            let now = server.inspect().await.unwrap();
            let shards = now.shards.iter().zip(&before.shards);
            let mut more =
                shards.map(|(now, then)| now.datagrams_received > then.datagrams_received);
            if let Some(came) = more.position(|more| more) {
                break came;
            }
        };
        if came == shard {
            socket.set_read_timeout(Some(secs(10))).unwrap();
            return socket;
        }
        others.push(socket);
    }
    panic!("64 ports, and none comes to shard {shard}");
}

fn data(cid: u32, call: u32, seq: u32, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        epoch: Epoch(0x8765_4321),
        cid: Cid(cid),
        call_number: CallNumber(call),
        seq: Seq(seq),
        serial: Serial(seq),
        packet_type: PacketType::Data,
        flags: Flags::CLIENT_INITIATED.with_if(is_last, Flags::LAST_PACKET),
        user_status: 0,
        security_index: SecurityIndex::NULL,
        cksum: 0,
        service_id: ServiceId(1),
    };
    [&header.encode()[..], payload].concat()
}

/// The payload of the next DATA of a call.
fn reply(socket: &UdpSocket, cid: u32, call: u32) -> Option<Vec<u8>> {
    let mut buffer = [0; 2048];
    while let Ok(len) = socket.recv(&mut buffer) {
        let datagram = &buffer[..len];
        let header = Header::decode(datagram)?;
        let is_of_call = (header.cid, header.call_number) == (Cid(cid), CallNumber(call));
        if header.packet_type == PacketType::Data && is_of_call {
            return Some(datagram[HEADER_LEN..].to_vec());
        }
    }
    None
}

async fn server(strict: bool) -> Endpoint {
    let builder = Endpoint::builder().bind(loopback()).shards(2);
    let builder = builder.service_with(1, echo, ServiceOptions::small_replies());
    let builder = builder.configure(|config| {
        config.strict_address = strict;
        // What comes from the second address earns the first, which is not proved, no answers.
        config.amplification_max = None;
    });
    builder.start().await.unwrap()
}

/// A client whose address changes in the middle of a call, as behind a NAT that forgets: where addresses do not
/// count, its connection goes on, wherever it lives and whichever socket the packets come to.
#[tokio::test]
async fn a_call_goes_on_from_an_address_of_another_shard() {
    let server = server(false).await;
    let first = socket_of(&server, 0).await;
    let second = socket_of(&server, 1).await;
    // Eight connections: by their ids they live on both shards.
    for cid in (1..9).map(|place| place << 2) {
        first.send_to(&data(cid, 1, 1, false, b"from here, "), server.local_addr()).unwrap();
        // The kernel's two queues have no order between them.
        while server.inspect().await.unwrap().connections.len() < (cid >> 2) as usize {}
        second.send_to(&data(cid, 1, 2, true, b"and there"), server.local_addr()).unwrap();
        assert_eq!(reply(&first, cid, 1).unwrap(), b"from here, and there", "to where it began");
        // A late copy from anywhere runs nothing again.
        second.send_to(&data(cid, 1, 1, false, b"from here, "), server.local_addr()).unwrap();
        // The next call comes from the new address alone.
        second.send_to(&data(cid, 2, 1, true, b"moved"), server.local_addr()).unwrap();
        assert_eq!(reply(&first, cid, 2).unwrap(), b"moved");
    }
    let snapshot = server.inspect().await.unwrap();
    assert_eq!(snapshot.connections.len(), 8);
    assert_eq!(snapshot.counters.server_calls, 16);
    assert!(spread(&snapshot, 2).iter().all(|count| *count > 0), "{:?}", spread(&snapshot, 2));
    assert!(snapshot.shards.iter().all(|shard| shard.strays > 0));
    let here = first.local_addr().unwrap();
    assert!(snapshot.connections.iter().all(|connection| connection.peer == here));
}

/// Where addresses count, the new address is a new client.
#[tokio::test]
async fn where_addresses_count_nothing_is_handed_over() {
    let server = server(true).await;
    let first = socket_of(&server, 0).await;
    let second = socket_of(&server, 1).await;
    for socket in [&first, &second] {
        socket.send_to(&data(4, 1, 1, true, b"hello"), server.local_addr()).unwrap();
        assert_eq!(reply(socket, 4, 1).unwrap(), b"hello");
    }
    let snapshot = server.inspect().await.unwrap();
    assert_eq!(spread(&snapshot, 2), [1, 1]);
    assert_eq!(snapshot.counters.strays, 0);
}

/// What is no packet of any connection of ours is dropped where it came, and costs no other shard anything.
#[tokio::test]
async fn junk_is_not_handed_over() {
    let client = Endpoint::builder().bind(loopback()).shards(2).start().await.unwrap();
    let peer = UdpSocket::bind(loopback()).unwrap();
    let connection = client.connect(peer.local_addr().unwrap(), 1).await.unwrap();
    let call = connection.call("x");
    let epoch = client.inspect().await.unwrap().connections[0].ids.epoch;
    let send = |epoch: Epoch, cid: u32, packet_type: PacketType, payload: &[u8]| {
        let header = Header {
            epoch,
            packet_type,
            flags: Flags::NONE,
            ..Header::decode(&data(cid, 1, 1, true, b"")).unwrap()
        };
        let datagram = [&header.encode()[..], payload].concat();
        peer.send_to(&datagram, client.local_addr()).unwrap();
    };
    for cid in (0..64).map(|place| place << 2) {
        send(Epoch(epoch.0 ^ 1), cid, PacketType::Data, b"another epoch");
        send(epoch, cid, PacketType::Ack, b"too short");
        send(epoch, cid, PacketType::Params(9), b"");
        send(epoch, cid, PacketType::Version, b"nobody has asked\0");
    }
    while client.inspect().await.unwrap().counters.datagrams_received < 256 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counters = client.inspect().await.unwrap().counters;
    assert_eq!((counters.strays, counters.dropped_total()), (0, 256));
    // Of our own epoch it is handed over, and dropped by whoever would own it.
    for cid in (0..64).map(|place| place << 2) {
        send(epoch, cid, PacketType::Data, b"forged");
    }
    while client.inspect().await.unwrap().counters.dropped_total() < 256 + 64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counters = client.inspect().await.unwrap().counters;
    assert_eq!((counters.strays, counters.dropped_total()), (32, 256 + 64));
    drop(call);
}
