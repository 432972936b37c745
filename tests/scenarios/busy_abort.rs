//! Section G: BUSY and ABORT.

use rxrpc::proto::{CallFailure, CallState, ConnectionFailure, DropReason};
use rxrpc::wire::{AbortCode, CallNumber, ChannelIndex};

use crate::support::{App, Scenario, client, ms, secs, server};

/// T's call 5 on channel 0 has just sent its request.
fn calling(id: &'static str) -> Scenario {
    let mut t = client(id);
    let route = t.route.unwrap();
    t.t.set_last_call(t.now(), route, ChannelIndex::ALL[0], CallNumber(4));
    t.start(b"q");
    t.expect(&["D n5 q1 [CL] \"q\""]);
    t
}

/// T's application works on call 1.
fn working(id: &'static str) -> Scenario {
    let mut t = server(id);
    t.app(App::Manual);
    t.send("D n1 q1 [CL] \"x\"").after(ms(100), &["A n1 f2 p1 s0 =DELAY a[]"]);
    t
}

#[test]
fn s_100_a_busy_server_is_asked_again() {
    let mut t = calling("S-100");
    t.pass(secs(1)).send("BUSY n5").after(ms(400), &["D n5 q1 [CRL] \"q\""]);
    assert_eq!(t.t.counters().busy_received, 1, "S-100");
    // BUSY came at 1 s, so the call dies at 21 s.
    t.pass(ms(19_599)).ignore_left().expect_state(Some(CallState::ClientAwaitReply));
    t.pass(ms(1)).ignore_left().expect_failure(5, Some(CallFailure::Dead(secs(20))));
    t.done();
}

#[test]
fn s_101_another_call_takes_another_channel() {
    let mut t = calling("S-101");
    t.send("BUSY n5").expect(&[]);
    t.start(b"other");
    t.expect(&["D n1 q1 [CL] ch1 \"other\""]);
    // Call 5 given up: its channel comes last.
    t.abort(5, -6).expect(&["ABORT n5 -6"]);
    for channel in [2, 3, 0] {
        t.start(b"more");
        t.expect(&[&format!("D q1 [CL] ch{channel} \"more\"")]);
    }
    t.done();
}

#[test]
fn s_102_a_busy_call_stays_on_its_channel() {
    let mut t = calling("S-102");
    for _ in 0..10 {
        t.send("BUSY n5").expect(&[]);
    }
    t.send("A n5 f2 p1 s1").none();
    t.send("D n5 q1 s20 [L] \"r\"").expect_bytes(5, b"r").end(5);
    t.after(ms(10), &["A n5 f2 p1 s0 =IDLE a[]"]);
    assert_eq!((t.t.counters().client_calls, t.t.counters().resent), (1, 0), "S-102");
    t.done();
}

#[test]
fn s_103_the_number_in_a_busy() {
    let mut t = calling("S-103");
    t.send("BUSY n6").none();
    assert_eq!(t.t.counters().busy_received, 1, "S-103");
    t.dropped(DropReason::StaleCall, "BUSY n4");
    assert_eq!(t.t.counters().busy_received, 1, "S-103");
    t.done();
}

#[test]
fn s_104_busy_from_a_client() {
    let mut t = working("S-104");
    t.dropped(DropReason::WrongDirection, "BUSY n1 [C]");
    t.done();
}

#[test]
fn s_105_the_client_gives_up() {
    let mut t = working("S-105");
    t.send("ABORT n1 -6").none().expect_state(None);
    t.expect_failure(1, Some(CallFailure::PeerAborted(AbortCode::USER_ABORT)));
    t.done();
}

#[test]
fn s_106_a_copy_of_a_request_given_up() {
    let mut t = working("S-106");
    t.send("ABORT n1 -6").none();
    t.send("D n1 q1 [CL] \"x\"").expect(&["ABORT n1 -1"]).none().expect_calls(&[1]);
    t.done();
}

/// Two calls run on K when its client aborts it.
fn aborted(id: &'static str) -> Scenario {
    let mut t = server(id);
    t.app(App::Manual).send("D n1 q1 [CL] \"a\"").send("D n1 q1 [CL] ch1 \"b\"");
    t.send("ABORT n0 19270409").none();
    t
}

#[test]
fn s_107_an_abort_of_the_connection_ends_all_its_calls() {
    let mut t = aborted("S-107");
    let code = AbortCode(19_270_409);
    let failures: Vec<_> = t.calls.iter().map(|call| call.failure).collect();
    assert_eq!(failures, [Some(CallFailure::PeerAbortedConnection(code)); 2], "S-107");
    let route = t.t.routes()[0];
    assert_eq!(t.t.failure(route), Some(ConnectionFailure::PeerAborted(code)), "S-107");
    t.done_elsewhere();
}

#[test]
fn s_108_an_aborted_connection_answers_with_its_code() {
    let mut t = aborted("S-108");
    for _ in 0..10 {
        t.send("D n2 q1 [CL]").expect(&["ABORT n0 [] 19270409"]);
    }
    t.send("D n2 q1 [CL]").none();
    t.pass(secs(3)).send("D n2 q1 [CL]").expect(&["ABORT n0 [] 19270409"]);
    t.expect_calls(&[1, 1]);
    t.done_elsewhere();
}

#[test]
fn s_109_no_abort_for_an_abort_of_the_connection() {
    let mut t = aborted("S-109");
    t.send("ABORT n0 19270409").none();
    t.done_elsewhere();
}

#[test]
fn s_110_an_application_that_refuses_the_request() {
    let mut t = server("S-110");
    t.app(App::Manual).send("D n1 q1 [C] \"a\"").expect(&[]);
    t.abort(1, 77).expect(&["ABORT n1 77"]);
    t.send("D n1 q2 [C] \"b\"").expect(&["ABORT n1 77"]);
    t.send("D n1 q3 [CL] \"c\"").expect(&["ABORT n1 77"]).none().expect_calls(&[1]);
    t.done();
}

#[test]
fn s_111_an_abort_after_the_request_was_acknowledged() {
    let mut t = calling("S-111");
    t.send("A n5 f2 p1 s1").expect(&[]);
    t.abort(5, 42).expect(&["ABORT n5 [C] 42"]).none();
    t.done();
}

/// How a call ended before its request comes once more.
#[derive(Clone, Copy, Debug)]
enum Abort {
    ByClient,
    ByService,
    OfConnection,
}

/// The whole request again, and some of it again after that: whatever ended the call, and however much of it had come,
/// the memory of the call, or of the aborted connection, is there for `aborted_linger`, 10 s, and runs nothing.
#[test]
fn a_request_that_comes_again_after_an_abort_runs_nothing() {
    const REQUEST: [&str; 3] = ["D n1 q1 [C] \"a\"", "D n1 q2 [C] \"b\"", "D n1 q3 [CL] \"c\""];
    for abort in [Abort::ByClient, Abort::ByService, Abort::OfConnection] {
        for come in 1..=3 {
            let mut t = server("replay after an abort");
            t.app(App::Manual).send_all(&REQUEST[..come]).ignore_left().expect_calls(&[1]);
            match abort {
                Abort::ByClient => t.send("ABORT n1 -6"),
                Abort::ByService => t.abort(1, 77),
                Abort::OfConnection => t.send("ABORT n0 5"),
            };
            t.ignore_left();
            let bytes = t.call(1).bytes.clone();
            for after in [ms(0), ms(1), secs(3), ms(6_998)] {
                t.pass(after).send_all(&REQUEST).send_together(&REQUEST);
                t.send_all(&[REQUEST[2], REQUEST[0], REQUEST[1]]).ignore_left();
                t.expect_calls(&[1]).expect_connections(1);
                assert_eq!(t.call(1).bytes, bytes, "{abort:?}, {come} packets: more was delivered");
            }
            // It is not deaf: the next call runs, once, unless the connection is over.
            t.app(App::Echo).send("D n2 q1 [CL] \"next\"").send("D n2 q1 [CL] \"next\"");
            match abort {
                Abort::OfConnection => t.expect_calls(&[1]),
                _ => t.expect_calls(&[1, 2]),
            };
        }
    }
}
