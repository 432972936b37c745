//! The other limits of the core, a row each: as many as may be, then one more.

use std::time::{Duration, Instant};

use rxrpc::proto::channel::Start;
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::{CallFailure, CallState, DropReason};
use rxrpc::testkit::InlineEndpoint;
use rxrpc::wire::{ChannelIndex, Flags, Header, PacketType, ServiceId};

use crate::fake_class::FakeClass;
use crate::support::{World, address, data, offer, secs, server_with};

/// A limit that a stranger's packets come to.
struct Row {
    name: &'static str,
    /// Sets it.
    set: fn(&mut EndpointConfig, usize),
    /// What counts against it, for the `n`th time.
    once: fn(&mut InlineEndpoint, Instant, usize),
    /// How what is beyond is counted.
    reason: DropReason,
    /// Packets that answer what is within, and what is beyond.
    answers: (usize, usize),
}

/// The first packet of a call, which is also its last.
fn first(server: &mut InlineEndpoint, now: Instant, client: u16, cid: u32, service: u8) {
    let mut datagram = data(cid, 1, Flags::LAST_PACKET, &[1; 100]);
    datagram[27] = service;
    server.receive(now, address(client), &datagram);
}

fn version(server: &mut InlineEndpoint, now: Instant, client: u16) {
    let mut datagram = Vec::new();
    rxrpc::wire::encode_version_request(0x8f3a_21c4, &mut datagram);
    server.receive(now, address(client), &datagram);
}

fn rxdebug(server: &mut InlineEndpoint, now: Instant, client: u16) {
    let mut datagram = data(0, 0, Flags::NONE, &[0, 0, 0, 1, 0, 0, 0, 0]);
    datagram[20] = PacketType::Debug.byte();
    server.receive(now, address(client), &datagram);
}

/// Service 1 answers anybody, 2 waits for proofs, 3 challenges, 9 is not there.
const ROWS: [Row; 14] = [
    Row {
        name: "connections_max",
        set: |config, max| {
            config.connections_max = max;
            config.unproved_connections_max = max;
        },
        once: |server, now, n| first(server, now, n as u16, 4, 1),
        reason: DropReason::ConnectionLimit,
        answers: (1, 1),
    },
    Row {
        name: "connections_per_peer_max",
        set: |config, max| config.connections_per_peer_max = max,
        once: |server, now, n| first(server, now, 1, 4 * n as u32, 1),
        reason: DropReason::ConnectionLimit,
        answers: (1, 1),
    },
    Row {
        name: "unproved_connections_max",
        set: |config, max| config.unproved_connections_max = max,
        // The oldest makes room and is told; one beyond is answered as those before it.
        once: |server, now, n| first(server, now, n as u16, 4, 2),
        reason: DropReason::ConnectionLimit,
        answers: (1, 2),
    },
    Row {
        name: "answers_per_peer_per_second, aborts",
        set: |config, max| config.answers_per_peer_per_second = max as u32,
        once: |server, now, n| first(server, now, 1, 4 * n as u32, 9),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "answers_per_second, aborts",
        set: |config, max| config.answers_per_second = max as u32,
        once: |server, now, n| {
            let from = std::net::SocketAddr::from(([10, 0, 1, n as u8], 7001));
            let mut datagram = data(4, 1, Flags::LAST_PACKET, b"x");
            datagram[27] = 9;
            server.receive(now, from, &datagram);
        },
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "answers_per_peer_per_second, VERSION",
        set: |config, max| config.answers_per_peer_per_second = max as u32,
        once: |server, now, _| version(server, now, 1),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "debug_answers_per_peer_per_second",
        set: |config, max| {
            config.debug_answers_per_peer_per_second = max as u32;
            config.debug_answers_per_peer_burst = max as u32;
        },
        once: |server, now, _| rxdebug(server, now, 1),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "debug_answers_per_peer_burst",
        set: |config, max| config.debug_answers_per_peer_burst = max as u32,
        once: |server, now, _| rxdebug(server, now, 1),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "debug_answers_burst",
        set: |config, max| {
            config.debug_answers_per_peer_burst = max as u32;
            config.debug_answers_burst = max as u32;
        },
        once: |server, now, n| rxdebug(server, now, n as u16),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "debug_answers_per_second",
        set: |config, max| {
            config.debug_answers_per_peer_per_second = max as u32;
            config.debug_answers_per_second = max as u32;
            config.debug_answers_per_peer_burst = max as u32;
            config.debug_answers_burst = max as u32;
        },
        once: |server, now, n| rxdebug(server, now, n as u16),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "reach_pings_per_peer_per_second",
        set: |config, max| config.reach_pings_per_peer_per_second = max as u32,
        once: |server, now, n| first(server, now, n as u16, 4, 2),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "reach_pings_per_second",
        set: |config, max| {
            config.reach_pings_per_peer_per_second = max as u32;
            config.reach_pings_per_second = max as u32;
        },
        once: |server, now, n| first(server, now, 1, 4 * n as u32, 2),
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "abort_burst",
        set: |config, max| config.server.call.abort_burst = max as u32,
        once: |server, now, n| {
            if n == 1 {
                // An aborted call, whose client goes on: each of its packets is told again.
                first(server, now, 1, 4, 1);
                let mut end = data(4, 0, Flags::NONE, &(-6i32).to_be_bytes());
                end[20] = PacketType::Abort.byte();
                server.receive(now, address(1), &end);
                server.take_sent();
            }
            first(server, now, 1, 4, 1);
        },
        reason: DropReason::Throttled,
        answers: (1, 0),
    },
    Row {
        name: "receive_window_initial_packets",
        set: |config, max| config.server.call.receive_window_initial_packets = max as u32,
        // A first packet so far ahead begins no call.
        once: |server, now, n| {
            server.receive(now, address(n as u16), &data(4, n as u32, Flags::NONE, b"x"));
        },
        reason: DropReason::FarAhead,
        answers: (1, 0),
    },
];

#[test]
fn each_limit_at_its_value_and_one_beyond() {
    for Row { name, set, once, reason, answers } in ROWS {
        for max in [1, 3, 7] {
            let now = Instant::now();
            let mut config = EndpointConfig { debug_responder: true, ..EndpointConfig::default() };
            config.server.call.delayed_ack = Duration::ZERO;
            set(&mut config, max);
            config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut server = server_with(config, now);
            server.offer(ServiceId(1), offer(false));
            server.offer(ServiceId(2), offer(true));
            for n in 1..=max {
                once(&mut server, now, n);
                assert_eq!(server.take_sent().len(), answers.0, "{name}: {n} of {max}");
            }
            assert_eq!(server.counters().dropped_total(), 0, "{name}: {max} are within");
            let held = server.routes();
            once(&mut server, now, max + 1);
            assert_eq!(server.take_sent().len(), answers.1, "{name}: one beyond {max}");
            assert_eq!(server.counters().dropped_for(reason), 1, "{name}");
            assert_eq!(server.counters().dropped_total(), 1, "{name}: nothing else is lost");
            // Everybody else goes on: whoever was there but the oldest that made room is there.
            let gone = held.iter().filter(|route| !server.routes().contains(route)).count();
            assert_eq!(gone, usize::from(name == "unproved_connections_max"), "{name}");
            if name.contains("per_second") {
                let later = now + secs(1);
                once(&mut server, later, max + 2);
                assert_eq!(server.take_sent().len(), answers.0, "{name}: the next second");
            }
        }
    }
}

#[test]
fn proved_and_closed_connections_do_not_count_as_unproved() {
    let now = Instant::now();
    let mut world = World::new(|config| config.unproved_connections_max = 4);
    // One that stays unproved, then many that prove themselves.
    world.server.receive(now, address(1), &data(4, 1, Flags::NONE, b"x"));
    let oldest = world.server.routes()[0];
    for id in 0..40 {
        let route = world.connect();
        world.call(route, id, vec![b'e'; 100], true);
        assert!(world.is_answered(id, &[b'e'; 100]));
    }
    assert!(world.server.routes().contains(&oldest));
    assert_eq!(world.server.counters().dropped_for(DropReason::ConnectionLimit), 0);
    // Now three more are within the limit, and a fourth takes the place of the oldest.
    for client in 2..=4 {
        world.server.receive(now, address(client), &data(4, 1, Flags::NONE, b"x"));
    }
    assert!(world.server.routes().contains(&oldest));
    world.server.receive(now, address(5), &data(4, 1, Flags::NONE, b"x"));
    assert!(!world.server.routes().contains(&oldest));
    assert_eq!(world.server.counters().dropped_for(DropReason::ConnectionLimit), 1);
}

#[test]
fn an_address_that_never_proved_itself_is_forgotten_with_its_last_connection() {
    let now = Instant::now();
    let config = EndpointConfig { unproved_connections_max: 3, ..EndpointConfig::default() };
    let mut server = server_with(config, now);
    server.offer(ServiceId(2), offer(true));
    for client in 1..=1000 {
        first(&mut server, now, client, 4, 2);
    }
    assert_eq!(server.routes().len(), 3);
    assert_eq!(server.router().peer_summaries().len(), 3);
}

#[test]
fn a_challenge_is_repeated_up_to_the_limit_and_then_its_call_is_over() {
    for max in [1, 3] {
        let mut now = Instant::now();
        let mut config = EndpointConfig { amplification_max: None, ..EndpointConfig::default() };
        config.server.challenge_max = max;
        config.server.call.keepalive = false;
        config.server.call.dead_timeout = secs(100);
        config.server.call.idle_timeout = None;
        let mut server = server_with(config, now);
        server.offer(ServiceId(3), FakeClass::default().offer());
        let mut datagram = data(4, 1, Flags::LAST_PACKET, b"x");
        (datagram[23], datagram[27]) = (2, 3);
        server.receive(now, address(1), &datagram);
        let route = server.routes()[0];
        let is_challenge = |datagram: &[u8]| {
            Header::decode(datagram).unwrap().packet_type == PacketType::Challenge
        };
        let mut challenges = 0;
        let end = now + secs(25);
        while let Some(next) = server.next_deadline().filter(|next| *next <= end) {
            let left = server.take_sent();
            challenges += left.iter().filter(|(_, datagram)| is_challenge(datagram)).count();
            let state = server.channel(route, ChannelIndex::ALL[0]).unwrap().state();
            assert_eq!(state, Some(CallState::ServerWork), "{challenges} of {max}");
            now = now.max(next);
            server.advance(now);
            if server.counters().calls_failed > 0 {
                break;
            }
        }
        assert_eq!(challenges, max as usize);
        assert_eq!(server.channel(route, ChannelIndex::ALL[0]).unwrap().state(), None);
    }
}

#[test]
fn calls_wait_for_a_channel_up_to_the_limit_and_one_beyond_is_refused() {
    let mut config = EndpointConfig::default();
    config.client.waiting_calls_max = 3;
    let now = Instant::now();
    let mut client = server_with(config, now);
    let route = client.connect(now, address(1), ServiceId(1), &rxrpc::security::RxNull, false);
    for _ in 0..4 + 3 {
        client.start(now, route, Start { is_whole: true, ..Start::default() });
    }
    assert!(client.take_refused().is_empty());
    client.start(now, route, Start { is_whole: true, ..Start::default() });
    let refused = client.take_refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].1, CallFailure::Queue(3));
    assert_eq!(client.take_started().len(), 4);
}
