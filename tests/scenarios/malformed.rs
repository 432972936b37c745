//! Section A: malformed datagrams.

use rxrpc::proto::{CallFailure, CallState, DropReason, Why};
use rxrpc::wire::AbortCode;

use crate::support::{App, Scenario, ms, secs, server, server_with};

/// The request is answered with so many packets, which are on their way.
fn reply_sent(id: &'static str, packets: usize) -> Scenario {
    let mut t = server(id);
    t.app(App::Reply(packets));
    t.send("D n1 q1 s1 [CL] \"x\"");
    let lines: Vec<String> = (1..=packets)
        .map(|seq| format!("D n1 q{seq} [{}] len1412", if seq == packets { "L" } else { "M" }))
        .collect();
    t.expect(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    t.expect_state(Some(CallState::ServerAwaitAck));
    t
}

/// The request is complete, the application works, its delayed ACK has left.
fn working(id: &'static str) -> Scenario {
    let mut t = server(id);
    t.app(App::Manual);
    t.send("D n1 q1 s1 [CL] \"x\"").after(ms(100), &["A n1 f2 p1 s0 =DELAY a[]"]);
    t.expect_state(Some(CallState::ServerWork));
    t
}

#[test]
fn s_001_nothing_at_all() {
    let mut t = server("S-01");
    t.dropped_raw(DropReason::TooShort, &[]);
    t.done();
}

#[test]
fn s_002_a_cut_header() {
    let mut t = server("S-02");
    let datagram = t.datagram("D n1 q1 s1 [CL]");
    t.dropped_raw(DropReason::TooShort, &datagram[..27]).expect_connections(0);
    t.done();
}

#[test]
fn s_003_type_0() {
    let mut t = server("S-03");
    t.dropped(DropReason::UnknownType, "TYPE0 n1").expect_connections(0);
    t.done();
}

#[test]
fn s_004_types_that_do_not_exist() {
    let mut t = server("S-04");
    for line in ["TYPE12 n1", "TYPE14 n1", "TYPE255 n1"] {
        t.dropped(DropReason::UnknownType, line).expect_connections(0);
    }
    t.done();
}

#[test]
fn s_005_params() {
    let mut t = server("S-05");
    for packet_type in [9, 10, 11] {
        for number in [0, 1] {
            let line = format!("TYPE{packet_type} n{number}");
            t.dropped(DropReason::Params, &line).expect_connections(0);
        }
    }
    t.done();
}

#[test]
fn s_006_data_without_a_call() {
    let mut t = server("S-06");
    t.dropped(DropReason::BadCallNumber, "D n0 q1 s1 [CL]").expect_connections(0);
    t.done();
}

#[test]
fn s_007_data_without_a_place() {
    let mut t = server("S-07");
    t.dropped(DropReason::SeqZero, "D n1 q0 s1 [CL]").expect_connections(0);
    t.done();
}

#[test]
fn s_008_reserved_flags_are_ignored() {
    let mut t = server("S-08");
    t.send("D n1 q1 s1 [CL] bitsd0 \"x\"").expect(&["D n1 q1 s1 [L] \"x\""]);
    t.done();
}

#[test]
fn s_009_status_and_checksum_of_an_rxnull_packet() {
    let mut t = server("S-09");
    t.send("D n1 q1 s1 [CL] ust7 ck1234 \"x\"").expect(&["D n1 q1 [L] ust0 ck0 \"x\""]);
    assert_eq!(t.call(1).user_status, 7, "S-09");
    t.done();
}

#[test]
fn s_010_service_0() {
    let mut t = server("S-10");
    t.dropped(DropReason::ServiceZero, "D n1 q1 s1 [CL] svc0").expect_connections(0);
    t.done();
}

#[test]
fn s_011_an_ack_of_17_bytes_is_no_sign_of_life() {
    let mut t = reply_sent("S-11", 1);
    t.pass(secs(10)).ignore_left();
    t.dropped(DropReason::PayloadShort, &format!("A n1 x{}", "00".repeat(17)));
    t.pass(ms(9_499)).expect_state(Some(CallState::ServerAwaitAck));
    t.pass(ms(1)).ignore_left().expect_state(None).expect_acknowledged(1, Some(false));
    t.done();
}

#[test]
fn s_012_a_sack_table_that_is_cut() {
    let mut t = reply_sent("S-12", 3);
    t.dropped(DropReason::BadAck, "A n1 x0000000000000001000000000000000009030101");
    t.expect_state(Some(CallState::ServerAwaitAck));
    t.done();
}

#[test]
fn s_013_zeros_beyond_what_was_sent() {
    let mut t = reply_sent("S-13", 3);
    t.send("A n1 f1 p3 r3 a[1,1,1,0,0,0]").none();
    t.expect_state(None).expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn s_014_a_one_beyond_what_was_sent() {
    let mut t = reply_sent("S-14", 3);
    t.dropped(DropReason::BadAck, "A n1 f1 p5 a[1,1,1,0,1]");
    t.expect_state(Some(CallState::ServerAwaitAck));
    t.done();
}

#[test]
fn s_015_a_hard_ack_beyond_what_was_sent() {
    let mut t = reply_sent("S-15", 3);
    t.send("A n1 f5").expect(&["ABORT n1 -5"]).none();
    let code = AbortCode::PROTOCOL_ERROR;
    t.expect_failure(1, Some(CallFailure::Aborted { code, why: Why::AckBeyondSent }));
    t.done();
}

#[test]
fn s_016_first_packet_0() {
    let mut t = reply_sent("S-16", 3);
    t.dropped(DropReason::BadAck, "A n1 f0 p0");
    t.expect_state(Some(CallState::ServerAwaitAck));
    t.done();
}

#[test]
fn s_017_an_ack_without_a_trailer() {
    let mut t = server_with("S-17", |config| {
        config.server.call.congestion_window_initial_packets = 32;
    });
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 [L] \"x\""]);
    assert_eq!(t.datagram("A n1 f2 words0").len(), 28 + 18, "S-17");
    t.send("A n1 f2 words0").none().expect_state(None).expect_acknowledged(1, Some(true));
    t.app(App::Reply(40)).send("D n2 q1 [CL]").ignore_left();
    // 16 are out. A window of 15 reaches to 16, one of 16 to 17.
    t.send("A n2 f2 words0").expect(&[]);
    t.send("A n2 f3 words0").expect(&["D n2 q17 [R]"]);
    t.done();
}

#[test]
fn s_018_two_or_three_trailer_words() {
    let mut t = server_with("S-18", |config| {
        config.server.call.congestion_window_initial_packets = 32;
    });
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]).send("A n1 f2 words2").none();
    t.expect_acknowledged(1, Some(true));
    t.send("D n2 q1 [CL]").expect(&["D n2 q1 [L]"]).send("A n2 f2 words3").none();
    t.expect_acknowledged(2, Some(true));
    t.app(App::Reply(40)).send("D n3 q1 [CL]").ignore_left();
    t.send("A n3 f2 words3 w30").expect(&["D n3 q17 [R]"]);
    t.send("A n3 f3 words3 w4").expect(&[]).send("A n3 f14 words3 w30").expect(&[]);
    t.send("A n3 f15 words3 w30").expect(&["D n3 q18 [R]"]);
    t.done();
}

#[test]
fn s_019_padding_after_the_trailer_of_a_ping() {
    let mut t = working("S-19");
    t.send("A n1 f1 p0 =PING [CR] h33 excess600");
    t.expect(&["A n1 f2 p1 s33 =PING_RESPONSE [] a[]"]).none();
    t.done();
}

#[test]
fn s_020_padding_before_the_trailer() {
    let mut t = reply_sent("S-20", 1);
    t.send("A n1 f2 pad").none().expect_state(None).expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn s_021_bit_0_of_a_sack_byte_counts() {
    let mut t = reply_sent("S-21", 2);
    t.send("A n1 f1 p2 a[3,129]").none().expect_state(None).expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn s_022_other_bits_of_a_sack_byte_do_not() {
    let mut t = reply_sent("S-22", 2);
    t.send("A n1 f1 p2 a[2,1]").expect_state(Some(CallState::ServerAwaitAck));
    t.after(secs(1), &["D n1 q1 [R] len1412"]).send("A n1 f3").none().expect_state(None);
    t.done();
}

#[test]
fn s_023_extended_sack_is_read_as_plain() {
    let mut t = reply_sent("S-23", 2);
    t.send("A n1 f1 p2 a[1,1] bits08").none().expect_state(None);
    t.done();
}

#[test]
fn s_024_unknown_reasons() {
    let mut t = reply_sent("S-24", 1);
    t.send("A n1 f2 r0").none().expect_state(None);
    t.send("D n2 q1 [CL]").expect(&["D n2 q1 [L]"]).send("A n2 f2 r200").none().expect_state(None);
    t.done();
}

#[test]
fn s_025_an_abort_of_three_bytes() {
    let mut t = working("S-25");
    t.dropped(DropReason::PayloadShort, "ABORT n1 x000001");
    t.expect_state(Some(CallState::ServerWork));
    t.done();
}

#[test]
fn s_026_an_abort_with_code_0() {
    let mut t = working("S-26");
    t.send("ABORT n1 0").none().expect_state(None);
    t.expect_failure(1, Some(CallFailure::PeerAborted(AbortCode(0))));
    t.done();
}

#[test]
fn s_027_a_long_abort() {
    let mut t = working("S-27");
    t.send("ABORT n1 5 excess20").none().expect_state(None);
    t.expect_failure(1, Some(CallFailure::PeerAborted(AbortCode(5))));
    t.done();
}
