//! Section D: call numbers.

use rxrpc::proto::channel::Start;
use rxrpc::proto::{CallFailure, CallState, DropReason};
use rxrpc::wire::{CallNumber, ChannelIndex};

use crate::support::{App, Scenario, client, ms, server};

#[test]
fn s_054_the_first_number_need_not_be_1() {
    let mut t = server("S-54");
    t.send("D n7 q1 s1 [CL] \"x\"").expect(&["D n7 q1 s1 [L] \"x\""]);
    t.expect_calls(&[7]);
    t.done();
}

#[test]
fn s_055_a_lower_number_is_not_executed() {
    let mut t = server("S-55");
    t.send("D n7 q1 [CL]").expect(&["D n7 q1 [L]"]).send("A n7 f2").none();
    t.expect_state(None);
    t.dropped(DropReason::StaleCall, "D n6 q1 [CL]").expect_calls(&[7]);
    t.done();
}

#[test]
fn s_056_a_copy_of_a_finished_request_is_not_executed() {
    let mut t = server("S-56");
    t.send("D n7 q1 [CL]").expect(&["D n7 q1 [L]"]).send("A n7 f2").none();
    t.dropped(DropReason::CallOver, "D n7 q1 [CL]").expect_calls(&[7]);
    t.done();
}

#[test]
fn s_057_a_copy_of_an_aborted_request_draws_the_abort_again() {
    let mut t = server("S-57");
    t.app(App::Manual);
    t.send("D n7 q1 [CL]").expect(&[]).abort(7, -455).expect(&["ABORT n7 -455"]);
    t.expect_state(None);
    t.send("D n7 q1 [CL]").expect(&["ABORT n7 -455"]).expect_calls(&[7]);
    t.done();
}

#[test]
fn s_058_numbers_may_be_skipped() {
    let mut t = server("S-58");
    t.send("D n7 q1 [CL]").expect(&["D n7 q1 [L]"]).send("A n7 f2").none();
    t.send("D n9 q1 [CL] \"9\"").expect(&["D n9 q1 [L] \"9\""]);
    t.dropped(DropReason::StaleCall, "D n8 q1 [CL]").expect_calls(&[7, 9]);
    t.done();
}

#[test]
fn s_059_the_next_call_acknowledges_the_reply() {
    let mut t = server("S-59");
    t.send("D n7 q1 [CL]").expect(&["D n7 q1 [L]"]);
    t.expect_state(Some(CallState::ServerAwaitAck));
    t.send("D n8 q1 [CL] \"8\"").expect(&["D n8 q1 [L] \"8\""]);
    t.expect_acknowledged(7, Some(true)).expect_failure(7, None);
    t.done();
}

#[test]
fn s_060_only_data_ends_a_call_implicitly() {
    let mut t = server("S-60");
    t.send("D n7 q1 [CL]").expect(&["D n7 q1 [L]"]);
    t.dropped(DropReason::FutureCall, "A n8 f1 p0 =PING [CR]");
    t.expect_state(Some(CallState::ServerAwaitAck));
    t.done();
}

#[test]
fn s_061_a_newer_call_takes_over_an_incomplete_one() {
    let mut t = server("S-61");
    t.send("D n7 q1 [C] \"a\"").send("D n7 q3 s3 [CL] \"c\"");
    t.expect(&["A n7 f2 p3 s3 =OUT_OF_SEQUENCE a[0,1]"]);
    t.send("D n8 q1 [CL] \"8\"").expect(&["D n8 q1 [L] \"8\""]).silent(ms(500));
    t.expect_failure(7, Some(CallFailure::Overtaken));
    t.done();
}

/// T's client connection has had `last` calls on channel 0, and runs the next.
fn client_in_call(id: &'static str, number: u32) -> Scenario {
    let mut t = client(id);
    let route = t.route.unwrap();
    t.t.set_last_call(t.now(), route, ChannelIndex::ALL[0], CallNumber(number - 1));
    t.start(b"q");
    t.expect(&[&format!("D n{number} q1 [CL] \"q\"")]);
    t
}

#[test]
fn s_062_a_reply_to_a_call_not_made_yet_is_dropped() {
    let mut t = client_in_call("S-62", 3);
    t.dropped(DropReason::FutureCall, "D n4 q1 [L] \"r\"");
    t.send("D n3 q1 [L] \"r\"").expect_bytes(3, b"r").end(3);
    t.after(ms(10), &["A n3 f2 p1 s0 =IDLE a[]"]);
    t.done();
}

#[test]
fn s_063_a_reply_to_an_older_call_is_dropped() {
    let mut t = client_in_call("S-63", 3);
    t.dropped(DropReason::StaleCall, "D n2 q1 [L] \"r\"");
    t.send("D n3 q1 [L] \"r\"").expect_bytes(3, b"r");
    t.after(ms(100), &["A n3 f2 p1 s0 =DELAY a[]"]);
    t.done();
}

#[test]
fn s_064_a_channel_without_numbers_retires_its_connection() {
    let mut t = client_in_call("S-64", 0x7fff_ffff);
    t.send("D n2147483647 q1 [L] \"r\"").expect_bytes(0x7fff_ffff, b"r").end(0x7fff_ffff);
    t.after(ms(10), &["A n2147483647 f2 =IDLE"]);
    t.start(b"next");
    t.expect(&[]);
    assert_eq!(t.returned, 1, "S-64: the call wants another connection");
    let route = t.connect();
    t.start_on(route, Start { request: "next".into(), is_whole: true, ..Start::default() });
    t.expect(&["D n1 q1 [CL] cid5d0e9a38 \"next\""]);
    t.done();
}
