//! Section O: client states, and the edge of the receive window.

use rxrpc::proto::channel::{Command, Start};
use rxrpc::proto::{CallFailure, CallState, DropReason, Why};
use rxrpc::wire::AbortCode;

use crate::support::{App, Scenario, client, ms, secs, server, server_with};

/// A client whose four channels have a call each.
#[track_caller]
fn all_in_use(id: &'static str) -> Scenario {
    let mut t = client(id);
    for _ in 0..4 {
        t.start(b"x");
    }
    t.expect(&["D n1 q1 [CL]", "D n1 q1 [CL] ch1", "D n1 q1 [CL] ch2", "D n1 q1 [CL] ch3"]);
    t
}

/// The application of the call on this channel ends it.
fn end_on(t: &mut Scenario, channel: usize) {
    let at = t.calls.iter().rev().find(|call| call.at.channel.index() == channel);
    let at = at.expect("a call on the channel").at;
    t.t.command(t.now(), at, Command::End);
    t.pump();
}

#[test]
fn s_179_a_late_reply_of_an_aborted_call_draws_the_abort_until_the_next_call() {
    // The other channels are in use: else the next call would avoid this one (S-184).
    let mut t = all_in_use("S-179");
    let at = t.calls[0].at;
    t.t.command(t.now(), at, Command::Abort(AbortCode(-6)));
    t.pump();
    t.expect(&["ABORT n1 [C] -6"]);
    let failure = CallFailure::Aborted { code: AbortCode(-6), why: Why::Application };
    assert_eq!(t.calls[0].failure, Some(failure));
    t.send("D n1 q1 [L] \"late\"").expect(&["ABORT n1 [C] -6"]);
    t.start(b"two");
    t.expect(&["D n2 q1 [CL] \"two\""]);
    t.dropped(DropReason::StaleCall, "D n1 q1 [L] \"late\"");
}

#[test]
fn s_180_a_call_that_never_left_uses_no_number() {
    let mut t = all_in_use("S-180");
    let waiting = t.start(b"never");
    assert!(t.t.cancel(waiting));
    t.send("D n1 q1 [L] \"y\"").expect(&[]);
    end_on(&mut t, 0);
    t.start(b"two");
    t.expect(&["D n2 q1 [CL] \"two\""]);

    // The same where it has a channel already, but no byte of it.
    let mut t = client("S-180");
    t.start_with(Start::default());
    t.expect(&[]).expect_state(Some(CallState::ClientReserved));
    let at = t.calls[0].at;
    t.t.command(t.now(), at, Command::Abort(AbortCode(-6)));
    t.pump();
    t.none();
    t.start(b"one");
    t.expect(&["D n1 q1 [CL] \"one\""]);
}

#[test]
fn s_181_the_last_ack_of_a_request_advertises_the_whole_window() {
    let mut t = server("S-181");
    t.app(App::Manual);
    for seq in 1..=19 {
        t.send(&format!("D n1 q{seq} [C] \"x\""));
    }
    t.ignore_left();
    t.send("D n1 q20 s20 [CLR] \"x\"").expect(&["A n1 f21 p20 s20 =REQUESTED a[] w32"]);
    t.read_all(1).write(1, b"y", true).expect(&["D n1 q1 [L] \"y\""]);
    t.done();
}

#[test]
fn s_182_the_opening_of_a_full_window_is_repeated_with_each_keepalive() {
    let mut t = server_with("S-182", |config| config.server.call.keepalive = true);
    t.app(App::Manual);
    for seq in 1..=32 {
        t.send(&format!("D n1 q{seq} [C] \"x\""));
    }
    t.ignore_left();
    t.send("D n1 q33 s90 [C]").expect(&["A n1 f17 p32 s90 =EXCEEDS_WINDOW a[1x16] w16"]);
    t.read_all(1).expect(&["A n1 f33 p32 s0 =DELAY a[] w32"]);
    // It is lost; the peer is stuck.
    for _ in 0..3 {
        t.pass(secs(20) / 6).expect(&["A n1 f33 p32 s0 [R] =PING a[] w32"]);
    }
    t.app(App::Echo).send("D n1 q33 [CL] \"x\"").ignore_left();
    t.expect_bytes(1, &[b'x'; 33]);
    t.done();
}

#[test]
fn s_183_a_client_that_has_its_reply_keeps_it() {
    let mut t = client("S-183");
    t.app(App::Manual);
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]).send("D n1 q1 s1 [L] \"reply\"").expect(&[]);
    t.expect_state(Some(CallState::ClientDone));
    t.send("D n1 q1 s2 [L] \"reply\"").expect(&["A n1 f2 p1 s2 [C] =DUPLICATE a[]"]);
    t.dropped(DropReason::OutOfState, "ABORT n1 9");
    t.expect_bytes(1, b"reply").expect_failure(1, None);
    // The DUPLICATE has acknowledged all of it for good: no final ACK is owed (rx-calls.md 4.4).
    t.read_all(1).end(1).expect(&[]).silent(secs(1));
    assert_eq!(t.t.counters().calls_good, 1);
}

#[test]
fn s_184_the_channel_of_a_dead_call_is_avoided() {
    let mut t = client("S-184");
    t.start(b"x");
    t.send("A n1 f2").ignore_left();
    t.silent(secs(20)).expect_failure(1, Some(CallFailure::Dead(secs(20))));
    t.start(b"y");
    t.expect(&["D n1 q1 [CL] ch1 \"y\""]);
}

#[test]
fn a_channel_is_avoided_only_as_long_as_there_is_another() {
    let mut t = client("avoid");
    for channel in 0..4 {
        t.start(b"x");
        t.expect(&[&format!("D n1 q1 [CL] ch{channel}")]);
        t.send(&format!("A n1 f2 ch{channel}")).pass(secs(20)).ignore_left();
    }
    // All four died: the one that did longest ago.
    t.start(b"y");
    t.expect(&["D n2 q1 [CL] \"y\""]);
    t.send("D n2 q1 [L]");
    end_on(&mut t, 0);
    t.after(ms(10), &["A n2 f2 [C] =IDLE"]);
}
