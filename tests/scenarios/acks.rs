//! Section F: a sender and the ACKs that come.

use rxrpc::proto::channel::Start;
use rxrpc::proto::{CallFailure, CallState, DropReason, Why};
use rxrpc::wire::{AbortCode, Serial};

use crate::support::{App, Scenario, client, ms, secs, server_with};

/// T is a server whose congestion window is no limit.
fn wide(id: &'static str) -> Scenario {
    server_with(id, |config| config.server.call.congestion_window_initial_packets = 32)
}

/// So many packets of a longer reply are on their way.
fn sending(id: &'static str, packets: usize) -> Scenario {
    let mut t = wide(id);
    send_reply(&mut t, packets);
    t
}

fn send_reply(t: &mut Scenario, packets: usize) {
    t.app(App::Manual).send("D n1 q1 [CL]").write_packets(1, packets, false);
    let lines: Vec<String> = (1..=packets)
        .map(|seq| {
            // The burst's last, and every half window, asks for an ACK.
            let more = if seq == packets { "" } else { "M" };
            let asks = if seq == packets || seq % 8 == 0 { "R" } else { "" };
            format!("D n1 q{seq} [{asks}{more}] len1412")
        })
        .collect();
    t.expect(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    t.expect_state(Some(CallState::ServerReply));
}

fn in_flight(t: &Scenario) -> u32 {
    let channel = t.t.channel(t.t.routes()[0], rxrpc::wire::ChannelIndex::ALL[0]);
    channel.map_or(0, |channel| channel.in_flight_packets())
}

/// 1 to 3 are acknowledged for good, 4 to 6 softly.
fn soft_acked(id: &'static str) -> Scenario {
    let mut t = sending(id, 6);
    t.send("A n1 f4 p6 a[1,1,1] h10").expect(&[]);
    t
}

#[test]
fn s_082_soft_acked_packets_are_not_sent_again() {
    let mut t = soft_acked("S-82");
    t.silent(secs(5));
    assert_eq!(in_flight(&t), 0, "S-82");
    t.done();
}

#[test]
fn s_083_a_soft_ack_may_be_withdrawn() {
    let mut t = soft_acked("S-83");
    t.send("A n1 f4 p6 a[1,0,1] h11").after(secs(1), &["D n1 q5 [R] len1412"]);
    t.send("A n1 f7").none();
    t.done();
}

#[test]
fn s_084_a_first_packet_that_goes_back_is_no_sign_of_life() {
    let mut t = soft_acked("S-84");
    t.pass(secs(10));
    t.dropped(DropReason::StaleAck, "A n1 f2 h12");
    t.pass(ms(9_499)).expect_state(Some(CallState::ServerReply));
    t.pass(ms(1)).expect_failure(1, Some(CallFailure::Dead(secs(20)))).expect_state(None);
    t.done();
}

#[test]
fn s_085_an_older_ack_takes_nothing_back() {
    let mut t = soft_acked("S-85");
    t.send("A n1 f4 p6 a[0,0,0] h9").silent(secs(5));
    assert_eq!(in_flight(&t), 0, "S-85");
    t.done();
}

#[test]
fn s_086_a_filled_hole_is_believed_whatever_previous_packet_says() {
    let mut t = sending("S-86", 5);
    t.send("A n1 f1 p5 a[1,1,0,1,1] h10").expect(&[]);
    t.send("A n1 f1 p3 a[1,1,1,1,1] h11").silent(secs(5));
    t.done();
}

#[test]
fn s_087_three_negative_acks_resend_once() {
    let mut t = sending("S-87", 6);
    t.send("A n1 f1 p2 s2 h10 a[0,1]").expect(&[]);
    t.send("A n1 f1 p3 s3 h11 a[0,1,1]").expect(&[]);
    t.send("A n1 f1 p4 s4 h12 a[0,1,1,1]").expect(&["D n1 q1 h7 [R] len1412"]);
    t.send("A n1 f1 p5 s5 h13 a[0,1,1,1,1]").expect(&[]);
    t.send("A n1 f1 p6 s6 h14 a[0,1,1,1,1,1]").silent(ms(9));
    t.send("A n1 f7 p6 s7 h15").none();
    assert_eq!(t.t.counters().resent, 1, "S-87");
    t.done();
}

#[test]
fn s_088_three_packets_behind_a_hole_suffice() {
    let mut t = sending("S-88", 6);
    t.send("A n1 f1 p6 s6 a[0,0,0,1,1,1]").expect(&[
        "D n1 q1 [RM] len1412",
        "D n1 q2 [RM] len1412",
        "D n1 q3 [R] len1412",
    ]);
    t.send("A n1 f7 s9").none();
    t.done();
}

#[test]
fn s_089_a_packet_sent_after_the_provoking_one_is_not_judged() {
    let mut t = wide("S-89");
    t.t.set_first_serial(Serial(12));
    send_reply(&mut t, 8);
    t.after(secs(1), &["D n1 q1 h20 [R] len1412"]);
    t.send("A n1 f1 p4 s15 a[0,1,1,1]").none();
    t.done();
}

#[test]
fn s_090_a_ping_during_the_reply() {
    let mut t = sending("S-90", 1);
    t.send("A n1 f1 p0 =PING [CR] h33").expect(&["A n1 f2 p1 s33 [] =PING_RESPONSE a[]"]).none();
    t.done();
}

#[test]
fn s_091_a_ping_that_does_not_ask() {
    let mut t = sending("S-91", 1);
    t.send("A n1 f1 p0 =PING [C] h33").expect(&["A n1 f2 p1 s33 [] =PING_RESPONSE a[]"]).none();
    t.done();
}

#[test]
fn s_092_an_answer_that_asks_draws_one_answer() {
    let mut t = sending("S-92", 1);
    t.send("A n1 f1 p0 =PING_RESPONSE [CR] h33");
    t.expect(&["A n1 f2 p1 s33 [] =PING_RESPONSE a[]"]).none();
    t.done();
}

#[test]
fn s_093_a_stale_ack_that_asks_is_answered() {
    let mut t = soft_acked("S-93");
    t.send("A n1 f2 [CR] h33").expect(&["A n1 f2 p1 s33 [] =PING_RESPONSE a[]"]).none();
    assert_eq!(t.t.counters().dropped_for(DropReason::StaleAck), 1, "S-93");
    t.done();
}

#[test]
fn s_094_the_peers_window_is_kept() {
    let mut t = wide("S-94");
    t.app(App::Manual).send("D n1 q1 [CL]");
    t.send("A n1 f1 p0 =PING [CR] w4").expect(&["A n1 =PING_RESPONSE"]);
    t.write_packets(1, 20, true);
    t.expect(&["D n1 q1 [M]", "D n1 q2 [RM]", "D n1 q3 [M]", "D n1 q4 [R]"]).none();
    t.send("A n1 f5 w4");
    t.expect(&["D n1 q5 [M]", "D n1 q6 [RM]", "D n1 q7 [M]", "D n1 q8 [R]"]).none();
    t.done();
}

#[test]
fn s_095_a_closed_window_is_probed() {
    let mut t = wide("S-95");
    t.app(App::Manual).send("D n1 q1 [CL]");
    t.send("A n1 f1 p0 =PING [CR] w0").expect(&["A n1 =PING_RESPONSE"]);
    t.write_packets(1, 3, true);
    t.after(secs(1), &["D n1 q1 [R] len1412"]).after(secs(2), &["D n1 q1 [R] len1412"]);
    t.send("A n1 f2 p1 w0").expect(&[]);
    // The peer took the probe and stays closed: the next one is new data.
    t.after(secs(1), &["D n1 q2 [R] len1412"]);
    t.send("A n1 f3 p2 w8").expect(&["D n1 q3 [L] len1412"]);
    t.done();
}

#[test]
fn s_095_a_window_that_shrinks_below_what_is_out_is_probed() {
    for window in [0, 1, 2] {
        let mut t = sending("S-95", 4);
        t.send(&format!("A n1 f1 p2 a[1,1] w{window}")).expect(&[]);
        t.after(secs(1), &["D n1 q1 [R] len1412"]).after(secs(2), &["D n1 q1 [R] len1412"]);
        t.send("A n1 f3 p2 w8").expect(&["D n1 q3 [R] len1412"]);
        t.send("A n1 f5 p4 w8").expect(&[]);
        t.done();
    }
}

#[test]
fn s_096_ackall_frees_what_was_sent() {
    let mut t = server_with("S-96", |config| {
        config.server.call.congestion_window_initial_packets = 4;
    });
    t.app(App::Reply(6)).send("D n1 q1 [CL]");
    t.expect(&["D n1 q1 [M]", "D n1 q2 [M]", "D n1 q3 [M]", "D n1 q4 [R]"]);
    t.send("ACKALL n1").expect(&["D n1 q5 [M]", "D n1 q6 [L]"]);
    t.send("ACKALL n1").none().expect_state(None).expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn s_097_the_reply_acknowledges_the_request() {
    let mut t = client("S-97");
    t.start(&[7; 3 * 1412]);
    t.expect(&["D n1 q1 [CM]", "D n1 q2 [CM]", "D n1 q3 [CL]"]);
    t.send("D n1 q1 s1 [L] \"r\"").expect_bytes(1, b"r");
    t.after(ms(100), &["A n1 f2 p1 s0 =DELAY a[]"]).silent(secs(5));
    // All is acknowledged for good already: the end of the call adds nothing.
    t.end(1).none();
    t.done();
}

#[test]
fn s_098_a_reply_before_the_request_is_complete() {
    let mut t = client("S-98");
    t.start_with(Start { request: vec![7; 1412].into(), ..Start::default() });
    t.expect(&["D n1 q1 [CR] len1412"]);
    t.send("D n1 q1 s1 [L] \"r\"").expect(&["ABORT n1 [C] -5"]).none();
    let code = AbortCode::PROTOCOL_ERROR;
    t.expect_failure(1, Some(CallFailure::Aborted { code, why: Why::EarlyReply }));
    t.done();
}

#[test]
fn s_099_a_server_that_lost_the_call() {
    let mut t = client("S-99");
    t.start(b"q");
    t.expect(&["D n1 q1 [CL] \"q\""]);
    t.send("A n1 f1 p0 s1 =EXCEEDS_WINDOW").none();
    t.expect_failure(1, Some(CallFailure::NetReset));
    t.done();
}
