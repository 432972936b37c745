//! Section B: jumbograms.

use rxrpc::proto::DropReason;

use crate::support::{ms, server};

#[test]
fn s_028_a_jumbogram_is_one_request() {
    let mut t = server("S-28");
    t.send("D n1 q1 s1 [CJ] len1412 + [CL] len10");
    t.expect(&["D n1 q1 [M] len1412", "D n1 q2 [L] len10"]);
    let mut request = vec![1; 1412];
    request.extend([2; 10]);
    t.expect_bytes(1, &request);
    t.done();
}

#[test]
fn s_029_the_last_packet_asks_for_an_ack() {
    let mut t = server("S-29");
    t.send("D n1 q1 s1 [CJ] len1412 + [CRL] len10");
    t.expect(&["A n1 f3 p2 s2 =REQUESTED a[]", "D n1 q1 [M] len1412", "D n1 q2 [L] len10"]);
    t.done();
}

#[test]
fn s_030_a_packet_too_short_to_be_followed() {
    let mut t = server("S-30");
    t.dropped(DropReason::BadJumbogram, "D n1 q1 [CJ] len1415").expect_connections(0);
    t.done();
}

#[test]
fn s_031_the_last_packet_is_not_followed() {
    let mut t = server("S-31");
    t.dropped(DropReason::BadJumbogram, "D n1 q1 [CJL] len1412 + [CL] len10");
    t.expect_connections(0).done();
}

#[test]
fn s_032_the_end_of_a_datagram_is_not_followed() {
    let mut t = server("S-32");
    t.dropped(DropReason::BadJumbogram, "D n1 q1 [CJ] len1412 + [CJ] len10");
    t.expect_connections(0);
    // On a connection that exists nothing of it is delivered either.
    t.send("D n1 q1 [C] len1412").pass(ms(100)).ignore_left();
    t.dropped(DropReason::BadJumbogram, "D n1 q2 [CJ] len1412 + [CJ] len10");
    assert_eq!(t.call(1).bytes.len(), 1412, "S-32");
    t.done();
}

#[test]
fn s_033_the_last_packet_may_be_empty() {
    let mut t = server("S-33");
    t.send("D n1 q1 [CJ] len1412 + [CL] len0").expect(&["D n1 q1 [L] len1412"]);
    t.expect_bytes(1, &[1; 1412]);
    t.done();
}

#[test]
fn s_034_one_ack_for_a_datagram() {
    let mut t = server("S-34");
    t.send("D n1 q1 s1 [C] len1412").expect(&[]);
    t.send("D n1 q1 s10 [CJ] len1412 + [CJ] len1412 + [C] len5");
    t.expect(&["A n1 f4 p3 s10 =DUPLICATE a[] w30"]);
    t.after(ms(100), &["A n1 f4 p3 s0 =DELAY a[] w32"]).none();
    assert_eq!(t.call(1).bytes.len(), 2 * 1412 + 5, "S-34");
    t.done();
}

#[test]
fn s_035_the_window_ends_inside_a_datagram() {
    let mut t = server("S-35");
    t.send("D n1 q2 s2 [C]").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1]"]);
    t.send("D n1 q31 s50 [CJ] len1412 + [CJ] len1412 + [CJ] len1412 + [C] len5");
    t.expect(&["A n1 f1 p32 s50 =OUT_OF_SEQUENCE a[0,1,0x28,1,1]"]).none();
    t.done();
}

#[test]
fn s_036_more_packets_than_a_datagram_can_hold() {
    let mut t = server("S-36");
    let mut line = "D n1 q1 [CJ] len1412".to_owned();
    line.push_str(&" + [CJ] len1412".repeat(45));
    t.dropped(DropReason::BadJumbogram, &format!("{line} + [CL] len1"));
    t.expect_connections(0).done();
}
