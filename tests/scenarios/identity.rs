//! Section C: direction, identity, service.

use std::net::SocketAddr;

use rxrpc::proto::channel::Start;
use rxrpc::proto::{CallFailure, CallState, DropReason};
use rxrpc::security::{ClientClass, ClientStart, ConnectionIds, Entropy};
use rxrpc::wire::{AbortCode, SecurityIndex};

use crate::support::{PEER, client, ms, server, server_with};

/// Another host, the same port.
const ELSEWHERE: ([u8; 4], u16) = ([10, 0, 0, 2], 7001);

#[test]
fn s_037_the_direction_selects_the_connection() {
    let mut t = client("S-37");
    t.start(b"q");
    t.expect(&["D n1 q1 [CL] \"q\""]);
    t.send("D n1 q1 s1 [CL] \"x\"").expect(&["D n1 q1 s1 [L] \"x\""]).expect_connections(2);
    t.expect_state(Some(CallState::ClientAwaitReply));
    t.send("D n1 q1 s1 [L] \"r\"").expect(&[]);
    let reply = t.calls.iter().find(|call| call.is_client).map(|call| call.bytes.clone());
    assert_eq!(reply.as_deref(), Some(&b"r"[..]), "S-37");
    t.pass(ms(100)).ignore_left().done();
}

#[test]
fn s_038_a_reply_for_a_server_connection() {
    let mut t = server("S-38");
    t.send("D n1 q1 s1 [CL]").expect(&["D n1 q1 [L]"]);
    t.dropped(DropReason::UnknownClientConnection, "D n1 q1 s1 [L]");
    t.done();
}

#[test]
fn s_039_a_service_that_is_not_offered() {
    let mut t = server("S-39");
    t.send("D n1 q1 [CL] svc999").expect(&["ABORT n1 q0 s0 [] idx0 ck0 svc999 -2"]);
    t.expect_connections(0).done();
}

#[test]
fn s_040_not_the_first_packet_for_a_service_that_is_not_offered() {
    let mut t = server("S-40");
    t.dropped(DropReason::NotOffered, "D n1 q2 [CL] svc999").expect_connections(0);
    t.done();
}

#[test]
fn s_041_no_abort_for_an_abort() {
    let mut t = server("S-41");
    t.dropped(DropReason::UnknownServerConnection, "ABORT n1 -5 svc999").expect_connections(0);
    t.done();
}

#[test]
fn s_042_a_class_that_is_not_offered() {
    let mut t = server("S-42");
    t.send("D n1 q1 [CL] idx2").expect(&["ABORT n1 s0 [] idx2 svc1 -2"]);
    t.expect_connections(0).done();
}

#[test]
fn s_043_another_class_than_the_connections() {
    let mut t = server("S-43");
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]);
    t.dropped(DropReason::SecurityMismatch, "D n2 q1 [CL] idx2");
    t.done();
}

#[test]
fn s_044_the_service_of_later_packets_is_ignored() {
    let mut t = server("S-44");
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]);
    t.send("D n2 q1 [CL] svc77 \"x\"").expect(&["D n2 q1 [L] svc1 \"x\""]);
    assert_eq!(t.call(2).service, 1, "S-44");
    t.done();
}

#[test]
fn s_045_an_address_that_changes_draws_no_answer_to_the_new_one() {
    let mut t = server("S-45");
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]);
    t.from = ELSEWHERE.into();
    t.send("D n2 q1 [CL] \"x\"").expect_to(PEER.into(), "D n2 q1 [L] \"x\"");
    t.expect_connections(1).done();
}

#[test]
fn s_046_strict_address_makes_a_new_connection() {
    let mut t = server_with("S-46", |config| config.strict_address = true);
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]);
    t.from = ELSEWHERE.into();
    t.send("D n2 q1 [CL] \"x\"").expect_to(ELSEWHERE.into(), "D n2 q1 [L] \"x\"");
    t.expect_connections(2).done();
}

#[test]
fn s_047_an_epoch_without_bit_31_is_bound_to_its_address() {
    let mut t = server("S-47");
    t.send("D n1 q1 [CL] epoch0f3a21c4").expect(&["D n1 q1 [L] epoch0f3a21c4"]);
    t.from = ELSEWHERE.into();
    t.send("D n2 q1 [CL] epoch0f3a21c4 \"x\"");
    t.expect_to(ELSEWHERE.into(), "D n2 q1 [L] epoch0f3a21c4 \"x\"");
    t.expect_connections(2).done();
}

#[test]
fn s_048_a_reply_from_another_address() {
    let mut t = client("S-48");
    t.start(b"q");
    t.expect(&["D n1 q1 [CL] \"q\""]);
    t.from = ELSEWHERE.into();
    t.send("D n1 q1 s1 [L] \"r\"").expect(&[]).expect_bytes(1, b"r").end(1);
    t.pass(ms(10)).expect_to(PEER.into(), "A n1 f2 p1 s0 =IDLE a[]");
    t.done();
}

#[test]
fn s_049_a_reply_from_another_port() {
    let mut t = client("S-49");
    t.start(b"q");
    t.expect(&["D n1 q1 [CL] \"q\""]);
    t.from.set_port(7002);
    t.dropped(DropReason::UnknownClientConnection, "D n1 q1 s1 [L] \"r\"");
    t.from = SocketAddr::from(PEER);
    t.send("D n1 q1 s1 [L] \"r\"").expect_bytes(1, b"r");
    t.pass(ms(100)).ignore_left().done();
}

#[test]
fn s_050_a_ping_makes_no_connection() {
    let mut t = server("S-50");
    t.dropped(DropReason::UnknownServerConnection, "A n1 f1 =PING [CR]").expect_connections(0);
    t.done();
}

#[test]
fn s_051_data_from_far_ahead_makes_no_connection() {
    let mut t = server("S-51");
    t.dropped(DropReason::FarAhead, "D n1 q33 [C]").expect_connections(0);
    // Nor a call on a connection that exists.
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]).send("A n1 f2").none();
    t.dropped(DropReason::FarAhead, "D n2 q33 [C]").expect_calls(&[1]);
    t.done();
}

#[test]
fn s_052_packets_for_client_connections_that_do_not_exist() {
    let mut t = client("S-52");
    for line in [
        "D n1 q1 [L] cid5d0e9a40",
        "A n1 [] cid5d0e9a40",
        "BUSY n1 [] cid5d0e9a40",
        "CHALLENGE n0 [] cid5d0e9a40 x00",
    ] {
        t.dropped(DropReason::UnknownClientConnection, line);
    }
    t.expect_connections(1).done();
}

/// A class by its number only: packets are as they are.
#[derive(Debug)]
struct Index2;

impl ClientClass for Index2 {
    fn index(&self) -> SecurityIndex {
        SecurityIndex::RXKAD
    }

    fn connect(&self, _: ConnectionIds, _: &Entropy) -> ClientStart {
        ClientStart::default()
    }
}

#[test]
fn s_053_rejects_made_without_a_connection() {
    let mut t = server("S-53");
    let failure = Some(CallFailure::PeerAborted(AbortCode::INVALID_OPERATION));
    let route = t.connect_with(&Index2);
    t.start(b"q");
    t.expect(&["D n1 q1 [CL] idx2 \"q\""]);
    t.send("BUSY n1 s0 []").none();
    assert_eq!(t.t.counters().busy_received, 1, "S-53");
    t.send("ABORT n1 s0 [] -2").none().expect_failure(1, failure);
    t.t.close_connection(t.now(), route);
    t.route = Some(t.connect());
    let start = Start { request: "q".into(), is_whole: true, ..Start::default() };
    t.start_with(start);
    t.expect(&["D n1 q1 [CL] idx0 cid5d0e9a38 \"q\""]);
    t.send("ABORT n1 s0 [] cid5d0e9a38 svc0 ck0001 -2").none().expect_failure(1, failure);
    t.done();
}
