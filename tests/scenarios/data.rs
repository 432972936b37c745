//! Section E: receiving DATA.

use rxrpc::proto::channel::Command;
use rxrpc::proto::{CallFailure, CallState, Why};
use rxrpc::wire::AbortCode;

use crate::support::{App, Scenario, ms, server};

fn refused(t: &mut Scenario, why: Why) {
    let code = AbortCode::PROTOCOL_ERROR;
    t.expect_failure(1, Some(CallFailure::Aborted { code, why })).none();
    t.done();
}

#[test]
fn s_065_every_second_packet_is_acknowledged() {
    let mut t = server("S-65");
    t.send("D n1 q1 s1 [C] \"a\"").expect(&[]);
    t.send("D n1 q2 s2 [C] \"b\"").expect(&["A n1 f3 p2 s2 =IDLE a[]"]);
    t.send("D n1 q3 s3 [CL] \"c\"").expect(&["D n1 q1 [L] \"abc\""]).none();
    t.done();
}

#[test]
fn s_066_one_packet_is_acknowledged_late() {
    let mut t = server("S-66");
    t.send("D n1 q1 s1 [C]").after(ms(100), &["A n1 f2 p1 s0 =DELAY a[]"]).none();
    t.done();
}

#[test]
fn s_067_a_requested_ack_is_sent_at_once() {
    let mut t = server("S-67");
    t.send("D n1 q1 s1 [CR]").expect(&["A n1 f2 p1 s1 =REQUESTED a[] w31"]);
    // The application has read it since: the window opens without haste (rx-flow.md 4).
    t.after(ms(100), &["A n1 f2 p1 s0 =DELAY a[] w32"]).none();
    t.done();
}

#[test]
fn s_068_a_gap_is_reported_at_once() {
    let mut t = server("S-68");
    t.send("D n1 q2 s2 [C]").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1]"]).none();
    t.expect_calls(&[]);
    t.done();
}

#[test]
fn s_069_a_filled_gap_is_reported_at_once() {
    let mut t = server("S-69");
    t.send("D n1 q2 s2 [C] \"b\"").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1]"]);
    t.send("D n1 q1 s3 [C] \"a\"").expect(&["A n1 f3 p2 s3 =IDLE a[] w30"]);
    t.after(ms(100), &["A n1 f3 p2 s0 =DELAY a[] w32"]).none();
    assert_eq!(t.call(1).bytes, b"ab", "S-69");
    t.done();
}

#[test]
fn s_070_a_copy_of_a_delivered_packet() {
    let mut t = server("S-70");
    t.send("D n1 q1 s1 [C] \"a\"").expect(&[]);
    t.send("D n1 q1 s5 [C] \"a\"").expect(&["A n1 f2 p1 s5 =DUPLICATE a[]"]).none();
    assert_eq!(t.call(1).bytes, b"a", "S-70");
    t.done();
}

#[test]
fn s_071_a_copy_of_a_held_packet() {
    let mut t = server("S-71");
    t.send("D n1 q3 s3 [C]").expect(&["A n1 f1 p3 s3 =OUT_OF_SEQUENCE a[0,0,1]"]);
    t.send("D n1 q3 s9 [C]").expect(&["A n1 f1 p3 s9 =DUPLICATE a[0,0,1]"]).none();
    t.done();
}

#[test]
fn s_072_a_packet_beyond_the_window() {
    let mut t = server("S-72");
    t.send("D n1 q2 s2 [C]").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1] w32"]);
    t.send("D n1 q33 s40 [C]").expect(&["A n1 f1 p2 s40 =EXCEEDS_WINDOW a[0,1] w32"]).none();
    t.done();
}

#[test]
fn s_072_a_number_beyond_all_windows_is_beyond_the_window() {
    let mut t = server("S-72");
    t.send("D n1 q2 s2 [C]").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1]"]);
    for seq in [0x7fff_ffffu32, 0x8000_0000, 0x8000_0002, 0xffff_ffff] {
        t.send(&format!("D n1 q{seq} s40 [C]")).expect(&["A n1 f1 p2 s40 =EXCEEDS_WINDOW a[0,1]"]);
    }
    t.done();
}

#[test]
fn s_073_data_after_the_last_packet() {
    let mut t = server("S-73");
    t.app(App::Manual).send_all(&["D n1 q1 [C]", "D n1 q2 [C]", "D n1 q3 [CL]"]).ignore_left();
    t.send("D n1 q4 [C]").expect(&["ABORT n1 -5"]);
    refused(&mut t, Why::DataAfterLast);
}

#[test]
fn s_074_a_last_packet_before_one_that_is_held() {
    let mut t = server("S-74");
    t.send("D n1 q1 [C]").send("D n1 q5 [C]").ignore_left();
    t.send("D n1 q3 [CL]").expect(&["ABORT n1 -5"]);
    refused(&mut t, Why::DifferentLast);
}

#[test]
fn s_075_a_second_last_packet() {
    let mut t = server("S-75");
    t.app(App::Manual).send_all(&["D n1 q1 [C]", "D n1 q2 [C]", "D n1 q3 [CL]"]).ignore_left();
    t.send("D n1 q2 [CL]").expect(&["ABORT n1 -5"]);
    refused(&mut t, Why::DifferentLast);
}

#[test]
fn s_076_a_copy_of_the_last_packet() {
    let mut t = server("S-76");
    t.app(App::Manual).send_all(&["D n1 q1 [C]", "D n1 q2 [C]", "D n1 q3 [CL]"]).ignore_left();
    t.send("D n1 q3 s9 [CL]").expect(&["A n1 f4 p3 s9 =DUPLICATE a[]"]).none();
    t.expect_state(Some(CallState::ServerWork));
    t.done();
}

#[test]
fn s_077_an_empty_request() {
    let mut t = server("S-77");
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L] len0"]).expect_bytes(1, b"");
    t.done();
}

#[test]
fn s_078_an_empty_packet_that_is_not_the_last() {
    let mut t = server("S-78");
    t.send("D n1 q1 [C]").expect(&[]).send("D n1 q2 [CL] \"ab\"").expect(&["D n1 q1 [L] \"ab\""]);
    t.expect_bytes(1, b"ab");
    t.done();
}

#[test]
fn s_079_a_packet_larger_than_ours() {
    let mut t = server("S-79");
    t.send("D n1 q1 [C] len1416").expect(&[]);
    t.send("D n1 q2 [CL] len5").expect(&["D n1 q1 [M] len1412", "D n1 q2 [L] len9"]);
    assert_eq!(t.call(1).bytes.len(), 1421, "S-79");
    t.done();
}

#[test]
fn s_080_a_reader_that_does_not_read() {
    let mut t = server("S-80");
    t.app(App::Manual);
    for seq in 1..=31 {
        t.send(&format!("D n1 q{seq} s{seq} [C]"));
        if seq % 2 == 0 {
            let first = (seq + 1).min(17);
            t.expect(&[&format!("A n1 f{first} p{seq} s{seq} =IDLE")]);
        }
    }
    t.send("D n1 q32 s32 [CR]").expect(&["A n1 f17 p32 s32 =REQUESTED a[1x16] w16"]);
    t.send("D n1 q33 s90 [C]").expect(&["A n1 f17 p32 s90 =EXCEEDS_WINDOW a[1x16] w16"]);
    t.read_all(1).expect(&["A n1 f33 p32 s0 =DELAY a[] w32"]);
    t.send("D n1 q33 s91 [CL]").after(ms(100), &["A n1 f34 p33 s0 =DELAY a[] w32"]);
    t.expect_state(Some(CallState::ServerWork));
    t.done();
}

#[test]
fn s_080_a_reader_that_gives_up_reading() {
    let mut t = server("S-80");
    t.app(App::Manual);
    for seq in 1..=32 {
        t.send(&format!("D n1 q{seq} s{seq} [C]")).ignore_left();
    }
    t.command(1, Command::Discard).expect(&["A n1 f33 p32 s0 =DELAY a[] w32"]);
    t.send("D n1 q33 [CL]").expect(&[]).expect_state(Some(CallState::ServerWork));
    t.write(1, b"no", true).expect(&["D n1 q1 [L] \"no\""]);
    t.done();
}

#[test]
fn s_081_the_request_comes_again_during_the_reply() {
    let mut t = server("S-81");
    t.app(App::Manual).send("D n1 q1 s1 [CL] \"x\"").write_packets(1, 1, false);
    t.expect(&["D n1 q1 [R] len1412"]).expect_state(Some(CallState::ServerReply));
    t.send("D n1 q1 s8 [CL] \"x\"").expect(&["A n1 f2 p1 s8 =DUPLICATE a[]"]);
    t.write(1, b"end", true).expect(&["D n1 q2 [L] \"end\""]).none();
    t.done();
}
