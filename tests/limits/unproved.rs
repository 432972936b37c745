//! What an address may cost us that has not proved itself: in the bare core with literal times and through the
//! real tree.

use std::time::Instant;

use bytes::Bytes;
use rxrpc::net::{Incoming, MemoryHub, Network, Transmit};
use rxrpc::proto::DropReason;
use rxrpc::proto::channel::Notice;
use rxrpc::wire::{
    Ack, AckReason, ChannelIndex, Flags, FullTrailer, Header, PacketType, Seq, Serial, ServiceId,
    Trailer,
};
use rxrpc::{Endpoint, IncomingCall, StreamError};

use crate::support::{address, data, secs, server};

fn blind_answer(cid: u32, serial: u32, header_serial: u32) -> Vec<u8> {
    let header = Header {
        packet_type: PacketType::Ack,
        seq: Seq(0),
        serial: Serial(header_serial),
        ..Header::decode(&data(cid, 1, Flags::NONE, b"")).unwrap()
    };
    let ack = Ack {
        buffer_space: 0,
        max_skew: 0,
        first_packet: Seq(1),
        previous_packet: Seq(0),
        serial: Serial(serial),
        reason: AckReason::PingResponse,
        sacks: &[],
        padding: [0; 3],
        trailer: Trailer::Full(FullTrailer {
            max_mtu: 1444,
            if_mtu: 1444,
            rwind: 255,
            jumbo_max: 1,
        }),
        excess: &[],
    };
    let mut datagram = header.encode().to_vec();
    ack.encode(&mut datagram);
    datagram
}

#[test]
fn the_oldest_unproved_connection_makes_room_for_one_beyond_the_limit() {
    let now = Instant::now();
    let mut server = server(now, true, |config| config.unproved_connections_max = 3);
    for client in 0..3 {
        server.receive(now, address(7001 + client), &data(4, 2, Flags::NONE, b"x"));
    }
    let first = server.routes()[0];
    assert_eq!(server.routes().len(), 3);
    assert_eq!(server.counters().dropped_for(DropReason::ConnectionLimit), 0);
    server.receive(now, address(7004), &data(4, 2, Flags::NONE, b"x"));
    assert_eq!(server.routes().len(), 3);
    assert!(!server.routes().contains(&first));
    assert_eq!(server.counters().dropped_for(DropReason::ConnectionLimit), 1);
}

#[test]
fn a_connection_that_served_no_call_is_forgotten_soon_and_one_that_did_is_not() {
    let mut now = Instant::now();
    let mut server = server(now, false, |_| {});
    server.receive(now, address(7001), &data(4, 2, Flags::NONE, b"x"));
    server.receive(now, address(7002), &data(4, 1, Flags::LAST_PACKET, b"x"));
    let served = server.routes()[1];
    let end = now + secs(60);
    while let Some(next) = server.next_deadline().filter(|next| *next <= end) {
        now = now.max(next);
        server.advance(now);
    }
    assert_eq!(server.routes(), [served]);
}

#[test]
fn outsized_packets_of_an_unread_call_end_at_twice_its_window() {
    let now = Instant::now();
    let mut server = server(now, true, |_| {});
    let payload = vec![0; 40_000];
    for seq in 2..32 {
        server.receive(now, address(7001), &data(4, seq, Flags::NONE, &payload));
    }
    let route = server.routes()[0];
    let held = server.channel(route, ChannelIndex::ALL[0]).unwrap().buffered_bytes();
    assert!(held <= 2 * 32 * 1444, "{held}");
    assert_eq!(server.counters().dropped_for(DropReason::NoBuffer), 28);
}

/// What a stranger has seen of a client, sent from an address of its own, is a call of another connection.
#[test]
fn a_copy_from_elsewhere_runs_only_where_no_address_has_to_be_proved() {
    let now = Instant::now();
    let request = data(4, 1, Flags::LAST_PACKET, b"x");
    for (needs_reach, runs) in [(true, 0), (false, 2)] {
        let mut server = server(now, needs_reach, |_| {});
        for from in [address(7001), address(7002), address(7001)] {
            server.receive(now, from, &request);
        }
        let notices = server.take_notices();
        let run = notices.iter().filter(|(_, notice)| matches!(notice, Notice::Incoming(_)));
        assert_eq!(run.count(), runs, "proof is asked for: {needs_reach}");
    }
}

/// Found by fuzzing: the aborts of packets without a connection came on top of what the connections of the same
/// address might be sent.
#[test]
fn aborts_without_a_connection_come_out_of_the_same_share() {
    let mut now = Instant::now();
    let mut server = server(now, true, |_| {});
    // A call that waits for the proof of its address: its PINGs use up the share.
    let first = data(4, 1, Flags::LAST_PACKET, b"x");
    let unknown = Header {
        service_id: ServiceId(9),
        ..Header::decode(&data(8, 1, Flags::NONE, b"")).unwrap()
    };
    let mut received = first.len();
    server.receive(now, address(7001), &first);
    let mut sent = 0;
    for _ in 0..20 {
        server.receive(now, address(7001), &unknown.encode());
        received += unknown.encode().len();
        now += secs(2);
        server.advance(now);
        sent += server.take_sent().iter().map(|(_, datagram)| datagram.len()).sum::<usize>();
        assert!(sent <= 3 * received, "{received} bytes drew {sent}");
    }
    assert!(server.counters().aborts_sent > 1);
    assert!(server.counters().dropped_for(DropReason::Amplification) > 0);
    // Nothing at all, where that is what was asked for.
    let mut silent = crate::support::server(now, true, |config| config.amplification_max = Some(0));
    silent.receive(now, address(7001), &unknown.encode());
    assert!(silent.take_sent().is_empty());
}

/// Somebody who sends from an address that is not its own sees no answer. It guesses serials.
#[actix_rt::test]
async fn a_blind_sender_draws_no_more_than_three_times_its_bytes() {
    tokio::time::pause();
    let hub = MemoryHub::new();
    let (at, source) = hub.bind_source(address(7009)).unwrap();
    let large = |call: IncomingCall| async move {
        call.reply(Bytes::from(vec![7; 5_000_000]));
        Ok::<_, StreamError>(())
    };
    let _server = Endpoint::builder().network(source).service(1, large).start().await.unwrap();
    let mut sender = hub.bind(address(7001)).unwrap();
    let mut sent = 0;
    let mut send = |datagram: Vec<u8>| {
        sent += datagram.len();
        let transmit = Transmit::datagram(at, &datagram);
        sender.try_send(&transmit).unwrap();
    };
    send(data(4, 1, Flags::LAST_PACKET, b"all of it"));
    for guess in 1..=50 {
        send(blind_answer(4, guess, guess + 1));
    }
    tokio::time::sleep(secs(60)).await;
    let mut drawn = 0;
    let mut batch = Vec::new();
    std::future::poll_fn(|task| {
        while sender.poll_receive(task, &mut batch).is_ready() {}
        std::task::Poll::Ready(())
    })
    .await;
    for incoming in batch {
        if let Incoming::Datagrams { data, .. } = incoming {
            drawn += data.len();
        }
    }
    assert!(drawn > 0 && drawn <= 3 * sent, "{sent} bytes drew {drawn}");
}
