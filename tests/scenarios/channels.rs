//! Section K: four channels.

use rxrpc::proto::channel::Command;
use rxrpc::proto::{CallFailure, DropReason};
use rxrpc::wire::AbortCode;

use crate::support::{App, client, ms, server};

#[test]
fn s_136_four_calls_at_once_each_on_its_channel() {
    let mut t = server("S-136");
    let requests = [0, 1, 2, 3].map(|channel| format!("D n1 q1 [CL] ch{channel} \"{channel}\""));
    t.send_burst(&requests.each_ref().map(String::as_str));
    // The serials of one connection rise: the harness looks at each.
    t.expect(&[
        "D n1 q1 h1 [L] \"0\"",
        "D n1 q1 h2 [L] ch1 \"1\"",
        "D n1 q1 h3 [L] ch2 \"2\"",
        "D n1 q1 h4 [L] ch3 \"3\"",
    ]);
    t.expect_connections(1).done();
}

#[test]
fn s_137_a_blocked_channel_holds_up_no_other() {
    let mut t = server("S-137");
    t.app(App::Manual);
    for seq in 1..=32 {
        t.send(&format!("D n1 q{seq} [C] len1412"));
    }
    t.take_left();
    t.send("D n1 q33 s99 [C]").expect(&["A n1 f17 p32 s99 =EXCEEDS_WINDOW a[1x16] w16"]);
    t.app(App::Echo);
    for number in 1..=100 {
        t.send(&format!("D n{number} q1 [CL] ch1 \"x\""));
        t.expect(&[&format!("D n{number} q1 [L] ch1 \"x\"")]);
    }
    let blocked = t.calls[0].clone();
    assert_eq!((blocked.bytes.len(), blocked.failure), (32 * 1412, None));
}

#[test]
fn s_138_a_fifth_call_waits_for_one_of_the_four() {
    let mut t = client("S-138");
    for request in [b"a", b"b", b"c", b"d", b"e"] {
        t.start(request);
    }
    t.expect(&["D n1 q1 [CL]", "D n1 ch1", "D n1 ch2", "D n1 ch3"]).none();
    t.send("D n1 q1 ch2 [L] \"C\"").expect(&[]);
    let third = t.calls[2].at;
    t.t.command(t.now(), third, Command::End);
    t.pump();
    t.expect(&["D n2 q1 [CL] ch2 \"e\""]);
    t.expect_connections(1);
}

#[test]
fn s_139_an_abort_affects_its_channel_only() {
    let mut t = server("S-139");
    t.app(App::Manual);
    for channel in 0..4 {
        t.send(&format!("D n1 q1 [CL] ch{channel} \"x\""));
    }
    t.send("ABORT n1 ch2 9").expect(&[]);
    let failures: Vec<_> = t.calls.iter().map(|call| call.failure).collect();
    assert_eq!(failures, [None, None, Some(CallFailure::PeerAborted(AbortCode(9))), None]);
    t.after(ms(100), &["A n1 f2 =DELAY", "A n1 f2 =DELAY ch1", "A n1 f2 =DELAY ch3"]);
    t.done();
}

#[test]
fn s_140_all_of_a_jumbogram_belongs_to_the_channel_of_its_header() {
    let mut t = server("S-140");
    t.send("D n1 q1 [CJ] ch1 len1412 + [CL] len10");
    t.expect(&["D n1 q1 [M] ch1 len1412", "D n1 q2 [L] ch1 len10"]);
    t.expect_dropped(DropReason::StaleCall, 0);
    t.done();
}
