//! Limits in time of the core: nothing a moment before, and at that moment what docs/limits.md says.

use std::time::{Duration, Instant};

use rxrpc::proto::CallFailure;
use rxrpc::testkit::InlineEndpoint;
use rxrpc::wire::{AbortCode, Flags, Header, PacketType};

use crate::support::{World, address, data, secs, server};

const MOMENT: Duration = Duration::from_millis(1);

/// Serves all deadlines up to `end`.
fn pass(server: &mut InlineEndpoint, end: Instant) {
    while let Some(next) = server.next_deadline().filter(|next| *next <= end) {
        server.advance(next);
    }
    server.advance(end);
}

#[test]
fn a_call_takes_as_long_as_it_may_and_no_longer() {
    let mut world = World::new(|config| config.server.call.hard_timeout = Some(secs(70)));
    let route = world.connect();
    // Its service has it whole and does nothing; its client is there.
    world.call(route, 0, b"h".to_vec(), true);
    world.pass(secs(70) - MOMENT);
    assert_eq!(world.ended.get(&0), None);
    assert_eq!(world.server.counters().calls_failed, 0);
    world.pass(MOMENT);
    let told = CallFailure::PeerAborted(AbortCode::CALL_TIMEOUT);
    assert_eq!(world.ended.get(&0), Some(&Err(told)));
    assert_eq!(world.server.counters().calls_failed, 1);
    world.call(route, 1, b"e".to_vec(), true);
    assert!(world.is_answered(1, b"e"));
}

#[test]
fn an_aborted_connection_answers_as_long_as_it_lingers() {
    for linger in [secs(5), Duration::ZERO] {
        let now = Instant::now();
        let mut server = server(now, false, |config| config.server.aborted_linger = linger);
        let request = data(4, 1, Flags::NONE, &[1; 100]);
        server.receive(now, address(1), &request);
        let mut abort = data(4, 0, Flags::NONE, &(-7i32).to_be_bytes());
        // Call number 0: the whole connection.
        abort[8..12].fill(0);
        abort[20] = PacketType::Abort.byte();
        server.receive(now, address(1), &abort);
        server.take_sent();
        if linger > Duration::ZERO {
            pass(&mut server, now + linger - MOMENT);
            assert_eq!(server.routes().len(), 1);
            server.receive(now + linger - MOMENT, address(1), &request);
            let sent = server.take_sent();
            let types = sent.iter().map(|(_, it)| Header::decode(it).unwrap().packet_type);
            assert_eq!(types.collect::<Vec<_>>(), [PacketType::Abort]);
        }
        pass(&mut server, now + linger);
        assert_eq!(server.routes().len(), 0, "after {linger:?}");
    }
}

/// Looked after once in each `peer_linger`, so at the latest after twice as long.
#[test]
fn a_proved_peer_without_connections_is_remembered_as_long_as_it_lingers() {
    let linger = secs(7);
    let mut world = World::new(|config| {
        config.peer_linger = linger;
        config.server.server_idle = secs(20);
    });
    let route = world.connect();
    world.call(route, 0, b"e".to_vec(), true);
    assert!(world.is_answered(0, b"e"));
    while !world.server.routes().is_empty() {
        world.pass(MOMENT);
    }
    world.pass(linger - MOMENT * 2);
    assert_eq!(world.server.router().peer_summaries().len(), 1);
    world.pass(linger + MOMENT * 2);
    assert_eq!(world.server.router().peer_summaries().len(), 0);
}

#[test]
fn a_server_connection_without_calls_is_forgotten_when_it_has_been_idle() {
    let mut world = World::new(|config| config.server.server_idle = secs(20));
    let route = world.connect();
    world.call(route, 0, b"e".to_vec(), true);
    assert!(world.is_answered(0, b"e"));
    world.pass(secs(20) - MOMENT);
    assert_eq!(world.server.routes().len(), 1);
    // The client's last ACK may have been a delayed one.
    world.pass(secs(1));
    assert_eq!(world.server.routes().len(), 0);
}

#[test]
fn a_server_connection_that_has_served_no_call_is_forgotten_sooner() {
    let now = Instant::now();
    let mut server = server(now, true, |config| config.server.unserved_idle = secs(25));
    server.receive(now, address(1), &data(4, 1, Flags::NONE, b"x"));
    pass(&mut server, now + secs(25) - MOMENT);
    assert_eq!(server.routes().len(), 1);
    pass(&mut server, now + secs(20 + 25) + MOMENT);
    assert_eq!(server.routes().len(), 0);
}
