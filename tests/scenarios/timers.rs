//! Section M: timers and liveness, by a virtual clock.

use rxrpc::proto::channel::{Command, Start};
use rxrpc::proto::{CallFailure, CallState, DropReason, NetworkProblem};

use crate::support::{App, PEER, Scenario, client_with, ms, secs, server, server_with};

/// A sixth of 20 s.
const PING: std::time::Duration = secs(20).checked_div(6).expect("six is not zero");

/// A server with keepalive, at work on call 1 since now; its request has been acknowledged.
#[track_caller]
fn at_work(id: &'static str) -> Scenario {
    let mut t = server_with(id, |config| config.server.call.keepalive = true);
    t.app(App::Manual);
    t.send("D n1 q1 s1 [CLR] \"x\"").expect(&["A n1 f2 p1 s1 =REQUESTED"]);
    t.expect_state(Some(CallState::ServerWork));
    t
}

#[test]
fn s_158_a_quiet_call_pings_and_dies_after_twenty_seconds_of_silence() {
    let mut t = at_work("S-158");
    // At 3.33 s, 6.67 s, ... 20 s: six in all.
    for _ in 1..=6 {
        t.after(PING, &["A n1 f2 p1 s0 [R] =PING a[]"]).expect_failure(1, None);
    }
    t.silent(secs(20) - 6 * PING).expect_failure(1, Some(CallFailure::Dead(secs(20))));
    t.silent(secs(60));
    t.done();
}

#[test]
fn s_159_answered_pings_keep_a_call_alive() {
    let mut t = at_work("S-159");
    for _ in 0..600 {
        t.after(PING, &["A n1 [R] =PING"]);
        let serial = t.last_serial();
        t.send(&format!("A n1 f1 p0 s{serial} =PING_RESPONSE")).expect(&[]);
    }
    t.expect_failure(1, None).write(1, b"at last", true).expect(&["D n1 q1 [L] \"at last\""]);
    t.done();
}

#[test]
fn s_160_stale_acks_do_not_keep_a_call_alive() {
    let mut t = server_with("S-160", |config| config.server.call.keepalive = true);
    t.app(App::Reply(100));
    t.send("D n1 q1 [CL]").ignore_left();
    t.send("A n1 f3").expect_state(Some(CallState::ServerReply));
    for _ in 0..19 {
        t.pass(secs(1)).send("A n1 f2").ignore_left();
    }
    t.pass(ms(999)).expect_failure(1, None);
    t.pass(ms(1)).expect_failure(1, Some(CallFailure::Dead(secs(20)))).ignore_left();
    t.expect_dropped(DropReason::StaleAck, 19);
    t.done();
}

#[test]
fn s_161_an_application_waits_sixty_seconds_for_data_and_no_longer() {
    let mut t = server("S-161");
    t.send("D n1 q1 s1 [CR] \"x\"").expect(&["A n1 f2 s1 =REQUESTED"]);
    // The application took the packet: the window has moved.
    t.after(ms(100), &["A n1 f2 s0 =DELAY"]).silent(secs(5) - ms(100));
    t.send("A n1 f1 p0 [CR] =PING").expect(&["A n1 f2 p1 =PING_RESPONSE"]);
    for _ in 0..10 {
        t.silent(secs(5)).send("A n1 f1 p0 [CR] =PING").expect(&["A n1 f2 p1 =PING_RESPONSE"]);
    }
    t.after(secs(5), &["ABORT n1 -3"]);
    t.expect_failure(1, Some(CallFailure::Idle(secs(60)))).silent(secs(60));
    t.done();
}

#[test]
fn s_162_pings_of_the_server_keep_a_client_waiting() {
    let mut t = client_with("S-162", |config| config.client.call.keepalive = true);
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]).send("A n1 f2 s1").expect(&[]);
    for round in 0..100 {
        t.pass(secs(3)).expect(&[]);
        let serial = 100 + round;
        t.send(&format!("A n1 f2 p1 h{serial} [R] =PING"));
        t.expect(&[&format!("A n1 f1 p0 s{serial} [C] =PING_RESPONSE a[]")]);
    }
    t.expect_failure(1, None).send("D n1 q1 [L] \"y\"").expect_bytes(1, b"y");
}

#[test]
fn s_163_port_unreachable_before_the_first_answer_ends_the_call() {
    let mut t = client_with("S-163", |_| {});
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]);
    t.problem(NetworkProblem::PortUnreachable).expect(&[]);
    t.expect_failure(1, Some(CallFailure::Network(NetworkProblem::PortUnreachable)));
    t.silent(secs(30));
}

#[test]
fn s_164_port_unreachable_later_is_believed_when_nothing_is_heard_any_more() {
    let gone = CallFailure::Network(NetworkProblem::HostUnreachable);
    // By the next PING.
    let mut t = client_with("S-164", |config| config.client.call.keepalive = true);
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]).send("A n1 f2 s1").expect(&[]);
    t.silent(secs(1)).problem(NetworkProblem::HostUnreachable).expect_failure(1, None);
    t.pass(PING).expect(&["A n1 f1 [CR] =PING"]).expect_failure(1, Some(gone));

    // By the next retransmission.
    let mut t = client_with("S-164", |_| {});
    t.start(&[0; 3000]);
    t.ignore_left().send("A n1 f2").problem(NetworkProblem::HostUnreachable);
    t.pass(ms(999)).expect_failure(1, None);
    t.pass(ms(401)).expect_failure(1, Some(gone)).expect(&[]);

    // Whatever is heard in between takes it back.
    let mut t = client_with("S-164", |_| {});
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]).send("A n1 f2 s1");
    t.problem(NetworkProblem::HostUnreachable).send("A n1 f2 p1 [R] =PING");
    t.expect(&["A n1 [C] =PING_RESPONSE"]).silent(secs(15)).expect_failure(1, None);
    t.send("D n1 q1 [L] \"y\"").expect_bytes(1, b"y");
}

#[test]
fn s_165_a_server_connection_without_a_call_is_forgotten_after_ten_minutes() {
    let mut t = server("S-165");
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 h1 [L]"]).send("A n1 f2");
    t.silent(secs(600) - ms(1)).expect_connections(1);
    t.silent(ms(1)).expect_connections(0);
    // A connection of its own: its serials begin anew.
    t.forget_serials()
        .send("D n9 q1 [CL] \"9\"")
        .expect(&["D n9 q1 h1 [L] \"9\""])
        .expect_connections(1);
    t.done();
}

#[test]
fn s_165_a_call_within_the_time_keeps_the_connection() {
    let mut t = server("S-165");
    t.app(App::Manual);
    t.send("D n1 q1 [CL]").send("A n1 f1 p0").ignore_left();
    for _ in 0..100 {
        t.pass(secs(10)).send("A n1 f1 p0 [CR] =PING").ignore_left();
    }
    t.expect_connections(1).write(1, b"late", true).expect(&["D n1 q1 [L] \"late\""]);
    t.send("A n1 f2").silent(secs(600) - ms(1)).expect_connections(1);
    t.silent(ms(1)).expect_connections(0);
}

#[test]
fn s_166_a_pending_final_ack_leaves_before_the_endpoint_closes() {
    let mut t = client_with("S-166", |_| {});
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]).send("D n1 q1 [L] \"y\"").end(1).expect(&[]);
    t.t.close(t.now());
    t.pump();
    t.expect(&["A n1 f2 p1 s0 [C] =IDLE a[]"]).expect_connections(0);
    assert_eq!(t.call(1).failure, None);
}

#[test]
fn s_166_a_call_that_runs_is_aborted_when_the_endpoint_closes() {
    let mut t = client_with("S-166", |_| {});
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]);
    t.t.close(t.now());
    t.pump();
    t.expect(&["ABORT n1 [C] -6"]).expect_failure(1, Some(CallFailure::Closed));
}

#[test]
fn an_idle_client_connection_ends_two_minutes_after_its_last_call() {
    let mut t = client_with("client idle", |_| {});
    t.pass(secs(100)).start(b"x");
    t.send("D n1 q1 [L]").end(1).ignore_left();
    t.pass(secs(120) - ms(1)).expect_connections(1);
    t.pass(ms(1)).expect_connections(0);
}

#[test]
fn a_deadline_beyond_the_end_of_the_clock_is_none() {
    let never = std::time::Duration::MAX;
    let mut t = client_with("deadline", |config| {
        config.client.client_idle = never;
        config.client.call.idle_timeout = Some(never);
        config.client.call.hard_timeout = Some(never);
    });
    for _ in 0..5 {
        t.start_with(Start { is_whole: true, deadline: Some(never), ..Default::default() });
    }
    t.send("D n1 q1 [L]").expect_failure(1, None);
}

#[test]
fn waiting_for_a_channel_uses_up_the_deadline() {
    let mut t = client_with("deadline", |_| {});
    for _ in 0..4 {
        t.start(b"x");
    }
    let start = Start { is_whole: true, deadline: Some(secs(3)), ..Default::default() };
    t.start_with(start.clone());
    t.start_with(start);
    t.pass(secs(1)).ignore_left();
    // One gets a channel after a second, the other never.
    t.send("D n1 q1 [L]");
    let first = t.calls[0].at;
    t.t.command(t.now(), first, Command::End);
    t.pump();
    t.expect(&["D n2 q1 [CL]"]);
    t.pass(ms(1999)).ignore_left();
    assert_eq!(t.refused, []);
    t.pass(ms(1)).expect(&["ABORT n2 [C] -3"]);
    t.expect_failure(2, Some(CallFailure::Deadline(secs(2))));
    assert_eq!(t.refused, [CallFailure::Deadline(secs(3))]);
}

impl Scenario {
    /// The network says this of the path to P.
    fn problem(&mut self, problem: NetworkProblem) -> &mut Self {
        self.t.network_problem(self.now(), PEER.into(), problem);
        self.pump();
        self
    }

    /// Serial of the packet that left T last on its first connection.
    pub fn last_serial(&self) -> u32 {
        self.t.next_serial(self.t.routes()[0]).map_or(0, |serial| serial.0 - 1)
    }
}
