//! Section H: CHALLENGE and RESPONSE, with a class that proves nothing.

use std::sync::Arc;
use std::time::Duration;

use rxrpc::proto::router::{Offer, RouteId};
use rxrpc::proto::{CallFailure, ConnectionFailure, DropReason, Why};
use rxrpc::security::RxNull;
use rxrpc::wire::{AbortCode, CallNumber, ChannelIndex, PacketType, ServiceId};

use crate::support::fake_class::{EXPIRED, REFUSAL};
use crate::support::{App, FakeClass, PEER, Scenario, client, ms, secs, server, server_with};

/// T offers service 1 with the fake class, and without any.
fn secured_with(id: &'static str, class: &FakeClass) -> Scenario {
    let mut t = server(id);
    let classes: Offer = Offer {
        classes: vec![Arc::new(RxNull), Arc::new(class.clone())],
        needs_reach: false,
        upgrades_to: None,
    };
    t.t.offer(ServiceId(1), classes);
    t
}

/// What is kept of a challenge is kept with its connection, and a peer has only so many.
#[test]
fn a_peer_is_challenged_on_its_last_connection_and_not_on_one_beyond() {
    let class = FakeClass::default();
    let mut t = server_with("challenges", |config| config.connections_per_peer_max = 3);
    t.t.offer(ServiceId(1), class.offer());
    let begin = |t: &mut Scenario, number: u32| {
        t.send(&format!("D n1 q1 [CL] idx2 cid{:08x} \"x\"", number << 2));
        t.take_left().iter().map(|(_, datagram)| datagram[20]).collect::<Vec<_>>()
    };
    for number in 1..=3 {
        assert_eq!(begin(&mut t, number), [PacketType::Challenge.byte()]);
    }
    assert_eq!(begin(&mut t, 4), [PacketType::Abort.byte()]);
    t.expect_connections(3).expect_dropped(DropReason::ConnectionLimit, 1).expect_calls(&[]);
    let record = class.take_record();
    // One beyond the limit costs the class nothing: it is not even asked.
    for asked in ["accept", "challenge"] {
        assert_eq!(record.iter().filter(|what| *what == asked).count(), 3, "{asked}");
    }
    // Another peer has its own.
    t.from = std::net::SocketAddr::from(([10, 0, 0, 77], 7001));
    assert_eq!(begin(&mut t, 5), [PacketType::Challenge.byte()]);
    t.expect_connections(4);
}

/// As [`secured_with`], after S-112: call 1 waits for the client's RESPONSE.
#[track_caller]
fn challenged(id: &'static str) -> (Scenario, FakeClass) {
    let class = FakeClass::default();
    let mut t = secured_with(id, &class);
    t.send("D n1 q1 [CL] idx2 \"x\"").expect(&["CHALLENGE n0 q0 h1 [] idx2 \"who?\""]);
    (t, class)
}

#[test]
fn s_112_the_first_data_of_a_secured_service_draws_a_challenge_and_waits() {
    let (mut t, class) = challenged("S-112");
    assert_eq!(class.take_record(), ["accept", "challenge"]);
    t.expect_calls(&[]);
    // It is held, and acknowledged like any.
    t.after(ms(100), &["A n1 f2 p1 s0 =DELAY a[] idx2"]).none();
    t.done_elsewhere();
}

#[test]
fn s_113_the_challenge_is_repeated_every_two_seconds() {
    let (mut t, class) = challenged("S-113");
    t.after(ms(100), &["A n1 f2 =DELAY idx2"]);
    t.after(ms(1900), &["CHALLENGE n0 q0 h3 idx2 \"who?\""]);
    t.after(secs(2), &["CHALLENGE n0 q0 h4 idx2 \"who?\""]);
    // Ten in all; the client is alive meanwhile.
    for _ in 3..=9 {
        t.after(secs(2), &["CHALLENGE n0 idx2"]);
        t.send("D n1 q1 [CL] idx2 \"x\"").expect(&["A n1 f2 =DUPLICATE idx2"]);
    }
    t.after(secs(2), &["ABORT n1 -1 idx2"]).silent(secs(60));
    assert_eq!(class.take_record().len(), 11);
    t.expect_calls(&[]);
    // The next call is challenged anew.
    t.send("D n2 q1 [CL] idx2 \"2\"").expect(&["CHALLENGE n0 idx2"]);
    t.send("RESPONSE idx2 \"me\"").expect(&["D n2 q1 [L] idx2 \"2\""]);
    t.done_elsewhere();
}

#[test]
fn s_114_a_valid_response_lets_the_call_through_and_its_copy_does_nothing() {
    let (mut t, class) = challenged("S-114");
    t.send("RESPONSE idx2 \"me\"").expect(&["D n1 q1 [L] idx2 \"x\""]);
    let identity = t.t.channel(t.t.routes()[0], ChannelIndex::ALL[0]).and_then(|it| it.identity());
    assert_eq!(identity.map(|identity| identity.name.as_str()), Some("me@EXAMPLE.ORG"));
    t.send("A n1 f2 idx2").expect(&[]);
    t.dropped(DropReason::UnwantedChallenge, "RESPONSE idx2 \"me\"");
    assert_eq!(
        class.take_record(),
        ["accept", "challenge", "verify me", "open n1 q1", "seal n1 q1"]
    );
    t.send("D n2 q1 [CL] idx2 \"2\"").expect(&["D n2 q1 [L] idx2 \"2\""]);
    t.done_elsewhere();
}

/// The RESPONSE names the client's next call on each channel. A call below it that is held since before was
/// recorded and is played again: it must not run, and nothing is said of it.
#[test]
fn a_held_call_that_the_response_says_is_over_does_not_run() {
    let class = FakeClass {
        call_numbers: [CallNumber(1), CallNumber(8), CallNumber(0), CallNumber(0)],
        ..FakeClass::default()
    };
    let mut t = secured_with("replayed call", &class);
    t.send("D n7 q1 [CL] idx2 ch1 \"again\"").expect(&["CHALLENGE n0 idx2"]);
    t.send("D n1 q1 [CL] idx2 \"new\"");
    t.send("RESPONSE idx2 \"me\"").expect(&["D n1 q1 [L] idx2 \"new\""]);
    assert!(!class.take_record().iter().any(|what| what.contains("n7")));
    t.send("A n1 f2 idx2").expect(&[]);
    t.send("D n8 q1 [CL] idx2 ch1 \"8\"").expect(&["D n8 q1 [L] idx2 ch1 \"8\""]);
    t.done_elsewhere();
}

#[test]
fn s_115_a_response_that_was_not_asked_for_is_ignored() {
    let class = FakeClass::default();
    let mut t = secured_with("S-115", &class);
    t.dropped(DropReason::UnknownServerConnection, "RESPONSE idx2 \"me\"").expect_connections(0);
    // A connection without a call that could start: no challenge has been sent.
    t.send("D n1 q2 s2 [CL] idx2 \"b\"").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1] idx2"]);
    t.dropped(DropReason::UnwantedChallenge, "RESPONSE idx2 \"me\"");
    t.send("D n1 q1 [C] idx2 \"a\"");
    t.expect(&["A n1 f3 p2 =IDLE a[] idx2", "CHALLENGE n0 idx2"]);
    assert_eq!(class.take_record(), ["accept", "challenge"]);
    t.send("RESPONSE idx2 \"me\"").expect(&["D n1 q1 [L] idx2 \"ab\""]);
    t.done_elsewhere();
}

#[test]
fn s_116_an_invalid_response_kills_the_connection_after_a_second() {
    let (mut t, _) = challenged("S-116");
    t.send("RESPONSE idx2 \"you\"").after(ms(100), &["A n1 f2 =DELAY idx2"]);
    t.dropped(DropReason::UnwantedChallenge, "RESPONSE idx2 \"me\"");
    t.after(ms(400), &["ABORT n0 q0 [] 19270407 idx2"]).silent(secs(2));
    t.expect_calls(&[]);
    let refused = ConnectionFailure::Aborted { code: REFUSAL, why: Why::BadResponse };
    assert_eq!(t.t.failure(t.t.routes()[0]), Some(refused));
    t.send("D n2 q1 [CL] idx2").expect(&["ABORT n0 19270407 idx2"]);
    t.silent(secs(8)).expect_connections(0);
    t.done_elsewhere();
}

/// T's client connection with the fake class.
fn secured_client(id: &'static str) -> (Scenario, FakeClass, RouteId) {
    let class = FakeClass::default();
    let mut t = server(id);
    let route = t.t.connect(t.now(), PEER.into(), ServiceId(1), &class, false);
    t.route = Some(route);
    (t, class, route)
}

#[test]
fn s_117_each_challenge_is_answered_anew() {
    let (mut t, class, _) = secured_client("S-117");
    t.start(b"x");
    t.expect(&["D n1 q1 h1 [CL] idx2 \"x\""]);
    t.send("CHALLENGE [] idx2 \"who?\"").expect(&["RESPONSE n0 q0 h2 [C] idx2 \"me\""]);
    t.send("CHALLENGE [] idx2 \"who?\"").expect(&["RESPONSE n0 q0 h3 [C] idx2 \"me\""]);
    t.send("D n1 q1 [L] idx2 \"y\"").expect(&[]).end(1);
    // Of a call that is over the next number, of a channel without any none.
    t.start(b"z");
    t.expect(&["D n2 q1 [CL] idx2 \"z\""]);
    t.send("CHALLENGE [] idx2 \"who?\"").expect(&["RESPONSE n0 [C] idx2"]);
    assert_eq!(
        class.take_record(),
        [
            "connect",
            "seal n1 q1",
            "respond who? [1, 0, 0, 0]",
            "respond who? [1, 0, 0, 0]",
            "open n1 q1",
            "seal n2 q1",
            "respond who? [2, 0, 0, 0]"
        ]
    );
}

#[test]
fn s_118_a_client_without_a_call_answers_no_challenge() {
    let (mut t, class, _) = secured_client("S-118");
    t.dropped(DropReason::UnwantedChallenge, "CHALLENGE [] idx2 \"who?\"");
    t.start(b"x");
    t.send("D n1 q1 [L] idx2 \"y\"").end(1).expect(&["D n1 q1 [CL] idx2"]);
    t.after(ms(10), &["A n1 f2 [C] =IDLE idx2"]);
    t.dropped(DropReason::UnwantedChallenge, "CHALLENGE [] idx2 \"who?\"");
    assert!(!class.take_record().iter().any(|line| line.starts_with("respond")));
}

#[test]
fn s_119_a_client_without_security_answers_no_challenge() {
    let mut t = client("S-119");
    t.dropped(DropReason::UnwantedChallenge, "CHALLENGE \"who?\"");
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]);
    t.dropped(DropReason::UnwantedChallenge, "CHALLENGE \"who?\"");
    t.send("D n1 q1 [L] \"y\"").expect_bytes(1, b"y").expect_failure(1, None);
}

#[test]
fn s_120_what_waits_for_a_response_is_held_within_the_window() {
    let (mut t, _) = challenged("S-120");
    for seq in 2..=32 {
        t.send(&format!("D n1 q{seq} [C] idx2 len1412"));
    }
    t.take_left();
    // Call 1 was of one packet: this one is longer, and abandons it.
    t.send("D n2 q1 s100 [C] idx2 len1412");
    for seq in 2..=32 {
        t.send(&format!("D n2 q{seq} [C] idx2 len1412"));
    }
    t.take_left();
    for seq in 33..=40 {
        let serial = 200 + seq;
        t.send(&format!("D n2 q{seq} s{serial} [C] idx2 len1412"));
        t.expect(&[&format!("A n2 f17 p32 s{serial} =EXCEEDS_WINDOW a[1x16] w16 idx2")]);
    }
    let held = t.t.channel(t.t.routes()[0], ChannelIndex::ALL[0]).map(|it| it.buffered_bytes());
    assert_eq!(held, Some(32 * 1412));
    t.send("RESPONSE idx2 \"me\"").expect_calls(&[2]);
    assert_eq!(t.call(2).bytes.len(), 32 * 1412);
    t.take_left();
    t.done_elsewhere();
}

#[test]
fn s_121_the_challenge_timer_stops_with_the_last_call() {
    let (mut t, class) = challenged("S-121");
    t.send("ABORT n1 -6 idx2").silent(secs(30));
    assert_eq!(class.take_record(), ["accept", "challenge"]);
    t.send("D n2 q1 [CL] idx2 \"2\"").expect(&["CHALLENGE n0 idx2"]);
    t.send("RESPONSE idx2 \"me\"").expect(&["D n2 q1 [L] idx2 \"2\""]);
    t.done_elsewhere();
}

#[test]
fn what_a_seal_adds_makes_packets_shorter_and_never_closes_the_window() {
    let class = FakeClass { seal_len: 12, ..FakeClass::default() };
    let mut t = secured_with("seals", &class);
    t.app(App::Reply(1));
    t.send("D n1 q1 [C] idx2 len1412").send("RESPONSE idx2 \"me\"");
    for seq in 2..=9999 {
        t.send(&format!("D n1 q{seq} [C] idx2 len1412")).take_left();
    }
    let buffered = t.t.channel(t.t.routes()[0], ChannelIndex::ALL[0]).map(|it| it.buffered_bytes());
    assert_eq!(buffered, Some(0));
    t.send("D n1 q10000 [CL] idx2 len1412");
    // 1412 plain bytes, of which one packet takes 1400.
    t.expect(&["D n1 q1 [M] idx2 len1412 ck0001", "D n1 q2 [L] idx2 len24 ck0002"]);
    // Sent again it is what it was.
    t.after(secs(1), &["D n1 q1 [R] idx2 len1412 ck0001"]);
}

#[test]
fn a_session_that_ends_takes_the_connection_along() {
    // rxkad.md 4: a server whose ticket has expired refuses the packet, both ways.
    let class = FakeClass { lifetime: Some(Duration::from_secs(10)), ..FakeClass::default() };
    let mut t = secured_with("expiry", &class);
    t.app(App::Manual);
    t.send("D n1 q1 [CL] idx2 \"x\"").expect(&["CHALLENGE n0 idx2"]);
    t.send("RESPONSE idx2 \"me\"").expect_calls(&[1]);
    t.after(ms(100), &["A n1 f2 p1 =DELAY idx2"]);
    t.after(ms(9900), &["ABORT n0 q0 [] 19270409 idx2"]);
    let failure = ConnectionFailure::Aborted { code: EXPIRED, why: Why::Security };
    assert_eq!(t.t.failure(t.t.routes()[0]), Some(failure));
    t.send("D n2 q1 [CL] idx2").expect(&["ABORT n0 19270409 idx2"]);
    assert!(!class.take_record().contains(&"open n2 q1".to_owned()));
    t.done_elsewhere();
}

#[test]
fn a_session_that_has_ended_already_is_refused_before_a_call_runs() {
    let class = FakeClass { lifetime: Some(Duration::ZERO), ..FakeClass::default() };
    let mut t = secured_with("expiry", &class);
    t.send("D n1 q1 [CL] idx2 \"x\"").expect(&["CHALLENGE n0 idx2"]);
    t.send("RESPONSE idx2 \"me\"").after(ms(100), &["A n1 f2 =DELAY idx2"]);
    t.after(ms(900), &["ABORT n0 q0 [] 19270409 idx2"]);
    t.expect_calls(&[]);
    t.done_elsewhere();
}

#[test]
fn a_packet_that_does_not_open_ends_the_call_with_the_code_of_the_class() {
    let class = FakeClass { seal_len: 12, ..FakeClass::default() };
    let mut t = secured_with("seals", &class);
    t.send("D n1 q1 [C] idx2 len20").expect(&["CHALLENGE n0 idx2"]);
    t.send("RESPONSE idx2 \"me\"").expect(&[]);
    t.send("D n1 q2 [C] idx2 len11").expect(&["ABORT n1 19270401 idx2"]);
    let code = AbortCode(19_270_401);
    t.expect_failure(1, Some(CallFailure::Aborted { code, why: Why::Security }));
    t.done_elsewhere();
}
