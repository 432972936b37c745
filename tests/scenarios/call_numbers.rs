//! Section D: call numbers.

use rxrpc::proto::{CallFailure, CallState, DropReason};

use crate::support::{App, ms, server};

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
