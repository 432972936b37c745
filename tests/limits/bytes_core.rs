//! Bytes buffered for a connection, for the endpoint, and for unproved peers (rx-flow.md 6, "bytes").

use std::time::Instant;

use rxrpc::proto::channel::Command;
use rxrpc::proto::event::{Event, MemoryLimit, MemoryScope};
use rxrpc::proto::{CALL_BYTES_MIN, DropReason};
use rxrpc::testkit::InlineEndpoint;
use rxrpc::wire::{AckReason, ChannelIndex, Flags, Packet, Payload};

use crate::support::{World, address, data, secs, server, unread_bytes};

/// What may come between a byte and the word that it is there: 64 KiB a call.
const LAG: usize = 64 << 10;
const KIB: usize = 1 << 10;

fn crossings(endpoint: &mut InlineEndpoint) -> Vec<(MemoryScope, bool)> {
    let limit = |event: Event| match event {
        Event::MemoryLimit(MemoryLimit { scope, is_passed }) => Some((scope, is_passed)),
        _ => None,
    };
    endpoint.take_router_events().into_iter().filter_map(|(_, event)| limit(event)).collect()
}

fn request(kind: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x55; len];
    bytes[0] = kind;
    bytes
}

/// 18 packets of 1412 bytes: what a channel tells is 25,416 bytes then.
const TOLD: usize = 18 * 1412;

#[test]
fn a_limit_is_kept_at_its_value_and_passed_one_beyond() {
    for (scope, max, passed) in [
        (MemoryScope::Connection, TOLD, 0),
        (MemoryScope::Connection, TOLD - 1, 1),
        (MemoryScope::Endpoint, TOLD, 0),
        (MemoryScope::Endpoint, TOLD - 1, 1),
        (MemoryScope::Unproved, TOLD, 0),
        (MemoryScope::Unproved, TOLD - 1, 1),
    ] {
        let now = Instant::now();
        let mut server = server(now, false, |config| match scope {
            MemoryScope::Connection => config.server.buffered_max_bytes = max,
            MemoryScope::Endpoint => config.buffered_max_bytes = max,
            MemoryScope::Unproved => config.unproved_buffered_max_bytes = max,
        });
        for seq in 1..=18 {
            server.receive(now, address(7001), &data(4, seq, Flags::NONE, &[0; 1412]));
        }
        assert_eq!(server.router().buffered_bytes(), TOLD);
        assert_eq!(server.counters().memory_limits, passed, "{scope:?} {max}");
        assert_eq!(server.counters().dropped_for(DropReason::NoBuffer), 0);
        let expected = if passed == 1 { vec![(scope, true)] } else { Vec::new() };
        assert_eq!(crossings(&mut server), expected);
        // The call ends badly, and what it held is free.
        server.advance(now + secs(120));
        assert_eq!((unread_bytes(&server), server.router().buffered_bytes()), (0, 0));
        assert_eq!(crossings(&mut server).last().is_some(), passed == 1);
    }
}

/// `receive_buffer_max_bytes`: the window of a call opens below that many unread bytes, and not at them.
#[test]
fn the_window_of_a_call_opens_below_its_bytes_and_not_at_them() {
    let now = Instant::now();
    let mut server = server(now, false, |config| {
        config.server.call.receive_window_initial_packets = 8;
        config.server.call.receive_buffer_max_bytes = 6000;
    });
    for seq in 1..=8 {
        server.receive(now, address(7001), &data(4, seq, Flags::NONE, &[0; 1000]));
    }
    let notices = server.take_notices();
    let call = notices.first().expect("a call").0;
    let ninth = data(4, 9, Flags::NONE, &[0; 1000]);
    for (packets, within) in [(2, false), (1, true)] {
        let bytes = packets as usize * 1000;
        server.command(now, call, Command::Consumed { packets, bytes });
        let before = unread_bytes(&server);
        server.take_sent();
        server.receive(now, address(7001), &ninth);
        let took = unread_bytes(&server) - before;
        assert_eq!(took, if within { 1000 } else { 0 }, "{before} bytes are unread");
        let exceeds = server.take_sent().iter().any(|(_, datagram)| {
            let packet = Packet::decode(datagram).unwrap();
            matches!(packet.payload, Payload::Ack(ack) if ack.reason == AckReason::ExceedsWindow)
        });
        assert_eq!(exceeds, !within, "{before} bytes are unread");
    }
    // Another call of the connection has bytes of its own.
    let route = server.routes()[0];
    server.receive(now, address(7001), &data(5, 1, Flags::NONE, &[0; 1000]));
    let other = server.channel(route, ChannelIndex::ALL[1]).unwrap();
    assert_eq!(other.buffered_bytes(), 1000);
}

#[test]
fn a_hoarding_call_slows_the_others_of_its_connection_and_kills_none() {
    let max = 64 * KIB;
    let mut world = World::new(|config| config.server.buffered_max_bytes = max);
    let route = world.connect();
    for id in 0..3 {
        world.call(route, id, request(b'h', 400 * KIB), true);
    }
    let echo = request(b'e', 300 * KIB);
    world.call(route, 3, echo.clone(), true);
    world.pass(secs(50));
    assert!(world.is_answered(3, &echo), "an honest call gets through");
    assert!(world.unread_max <= 2 * max + 4 * LAG, "{}", world.unread_max);
    assert_eq!(crossings(&mut world.server).first(), Some(&(MemoryScope::Connection, true)));
    world.release();
    world.pass(secs(120));
    for id in 0..3 {
        assert!(matches!(world.ended.get(&id), Some(Ok(reply)) if reply.len() == 400 * KIB));
    }
    assert_eq!(crossings(&mut world.server).last(), Some(&(MemoryScope::Connection, false)));
    assert_eq!(world.server.router().buffered_bytes(), 0);
    assert_eq!(world.server.counters().calls_failed, 0);
}

#[test]
fn a_hoarding_connection_slows_others_only_beyond_the_limit_of_the_endpoint() {
    let max = 128 * KIB;
    let mut world = World::new(|config| config.buffered_max_bytes = max);
    let (hoarder, honest) = (world.connect(), world.connect());
    for id in 0..4 {
        world.call(hoarder, id, request(b'h', 400 * KIB), true);
    }
    let echo = request(b'e', 300 * KIB);
    world.call(honest, 4, echo.clone(), true);
    world.pass(secs(50));
    assert!(world.is_answered(4, &echo));
    assert!(world.unread_max <= 2 * max + 5 * LAG, "{}", world.unread_max);
    assert_eq!(crossings(&mut world.server).first(), Some(&(MemoryScope::Endpoint, true)));
    world.release();
    world.pass(secs(60));
    assert_eq!(world.ended.len(), 5);
    assert!(world.ended.values().all(Result::is_ok), "{:?}", world.ended.keys());
    // With room again calls are as fast as ever: no timer is needed.
    let small = request(b'e', 40 * KIB);
    world.call(honest, 5, small.clone(), true);
    assert!(world.is_answered(5, &small));
    world.pass(secs(1));
    assert_eq!(world.server.router().buffered_bytes(), 0);
    assert_eq!(world.server.counters().calls_failed, 0);
}

#[test]
fn writers_wait_behind_readers_that_do_not_read() {
    let max = 64 * KIB;
    let mut world = World::new(|config| config.server.buffered_max_bytes = max);
    let route = world.connect();
    let wanted = |len: u32| [&b"w"[..], &len.to_be_bytes()].concat();
    for id in 0..3 {
        world.call(route, id, wanted(3_000_000), false);
    }
    world.pass(secs(10));
    let held = world.server.router().buffered_bytes();
    assert!(held > max && held <= max + 4 * LAG, "{held}");
    world.call(route, 3, wanted(300_000), true);
    world.pass(secs(30));
    assert!(matches!(world.ended.get(&3), Some(Ok(reply)) if reply.len() == 300_000));
    world.read();
    world.pass(secs(60));
    assert!((0..3).all(|id| matches!(&world.ended[&id], Ok(reply) if reply.len() == 3_000_000)));
    assert_eq!(world.server.router().buffered_bytes(), 0);
    assert_eq!(world.server.counters().calls_failed, 0);
}

#[test]
fn unproved_peers_share_a_limit_of_their_own_and_a_proof_leads_out_of_it() {
    let max = 64 * KIB;
    let mut world = World::new(|config| config.unproved_buffered_max_bytes = max);
    for port in 0..40 {
        for seq in 1..=32 {
            let packet = data(4, seq, Flags::NONE, &[0; 1412]);
            world.server.receive(world.now, address(8000 + port), &packet);
        }
    }
    let held = unread_bytes(&world.server);
    assert!(held > max && held <= max + LAG + 40 * CALL_BYTES_MIN, "{held}");
    assert!(world.server.router().unproved_buffered_bytes() > max);
    assert!(world.server.counters().dropped_for(DropReason::NoBuffer) > 1000);
    assert_eq!(crossings(&mut world.server), [(MemoryScope::Unproved, true)]);
    let route = world.connect();
    let echo = request(b'e', 300 * KIB);
    world.call(route, 0, echo.clone(), true);
    assert!(world.is_answered(0, &echo), "it proves itself and needs no timer");
    world.pass(secs(60));
    assert_eq!(crossings(&mut world.server), [(MemoryScope::Unproved, false)]);
    assert_eq!(world.server.router().unproved_buffered_bytes(), 0);
}
