//! Decisions that need a state of their own to be seen: while a connection drains, at a limit and one
//! beyond, after a pause, and from an ACK that says nothing of the way.

use std::net::SocketAddr;

use rxrpc::proto::router::Offer;
use rxrpc::proto::{CallState, DropReason};
use rxrpc::wire::{PacketType, ServiceId};

use crate::support::{App, Scenario, ms, secs, server, server_with};

#[test]
fn a_draining_connection_ends_its_calls_and_refuses_new_ones() {
    let mut t = server("draining");
    t.app(App::Manual);
    t.send("D n1 q1 [CL] \"x\"").expect_state(Some(CallState::ServerWork));
    let route = t.t.routes()[0];
    let now = t.now();
    t.t.drain_connection(now, route);
    t.pump();
    // A call that runs goes on to its end.
    t.write(1, b"y", true);
    t.expect(&["D n1 q1 [L] \"y\""]).send("A n1 f2 s0").expect_state(None);
    // A new one is refused on each channel, and again if it comes again.
    t.send("D n2 q1 [CL]").expect(&["ABORT n2 -100"]).expect_calls(&[1]);
    t.send("D n2 q1 [CLR]").expect(&["ABORT n2 -100"]).expect_calls(&[1]);
    t.send("D n1 q1 ch3 [CL]").expect(&["ABORT n1 ch3 -100"]).expect_calls(&[1]);
    t.expect_state(None);
    t.done_elsewhere();
}

/// T is a server whose call 1 has sent and been acknowledged 28 packets, the last at this moment, so that
/// its congestion window is 32.
fn grown(id: &'static str) -> Scenario {
    let mut t = server_with(id, |config| {
        config.server.call.congestion_window_initial_packets = 4;
    });
    t.app(App::Manual);
    t.send("D n1 q1 [CL]");
    for (packets, end) in [(4, 5), (8, 13), (16, 29)] {
        t.write_packets(1, packets, false);
        assert_eq!(data_left(&mut t), packets);
        t.send(&format!("A n1 f{end} s0 w255"));
    }
    t
}

/// How many DATA packets have left since the last look.
fn data_left(t: &mut Scenario) -> usize {
    let left = t.take_left();
    left.iter().filter(|(_, bytes)| bytes[20] == PacketType::Data.byte()).count()
}

#[test]
fn after_a_pause_longer_than_the_timeout_the_window_is_the_initial_one() {
    // rx-flow.md 8; nothing was measured, so that the timeout is a second.
    let mut t = grown("no pause");
    t.pass(secs(1)).write_packets(1, 40, false);
    assert_eq!(data_left(&mut t), 32);
    let mut t = grown("pause");
    t.pass(secs(1) + ms(1)).write_packets(1, 40, false);
    assert_eq!(data_left(&mut t), 4);
    t.send("A n1 f33 s0 w255");
    assert_eq!(data_left(&mut t), 8, "it grows again");
}

#[test]
fn an_ack_that_was_delayed_gives_no_sample() {
    // rx-flow.md 5.3: it says how long the peer waited, not how long the way is.
    let srtt = |reason: &str| {
        let mut t = server("sample");
        t.send("D n1 q1 [CL]").expect(&["D n1 q1 h1 [L]"]);
        let route = t.t.routes()[0];
        t.silent(ms(50)).send(&format!("A n1 f2 s1 ={reason}")).expect(&[]).expect_state(None);
        t.t.router().hint(route).rtt.map(|rtt| rtt.srtt)
    };
    assert_eq!(srtt("DELAY"), None);
    assert_eq!(srtt("IDLE"), Some(ms(50)));
    assert_eq!(srtt("REQUESTED"), Some(ms(50)));
}

#[test]
fn the_last_connection_is_taken_and_one_beyond_is_told() {
    let mut t = server_with("connections", |config| {
        config.connections_max = 3;
        config.unproved_connections_max = 3;
    });
    let from = |t: &mut Scenario, last: u8| {
        t.from = SocketAddr::from(([10, 0, 0, last], 7001));
        t.send(&format!("D n1 q1 [CL] cid{:08x} \"x\"", u32::from(last) << 2));
    };
    for last in 1..=3 {
        from(&mut t, last);
        assert_eq!(data_left(&mut t), 1);
        t.expect_connections(usize::from(last)).expect_dropped(DropReason::ConnectionLimit, 0);
    }
    from(&mut t, 4);
    let left = t.take_left();
    let [(to, abort)] = left.as_slice() else { t.fail("one ABORT") };
    assert_eq!((*to, abort[20]), (t.from, PacketType::Abort.byte()));
    assert_eq!(abort[28..], (-1i32).to_be_bytes());
    t.expect_connections(3).expect_dropped(DropReason::ConnectionLimit, 1);
    // What does not begin a call is not answered.
    t.send("D n1 q2 [CL] cid00000010").expect(&[]).expect_connections(3);
}

#[test]
fn the_status_of_a_call_is_that_of_the_latest_data_before_its_service_starts() {
    // rx-wire.md 1.4: it is stored with each packet. The proof of the address gives time for several.
    let mut t = server("status");
    t.t.offer(ServiceId(1), Offer { needs_reach: true, ..Scenario::plain_offer() });
    t.send("D n1 q1 [C] ust7 len1412").expect(&["A n1 h1 [R] =PING"]).expect_calls(&[]);
    t.send("D n1 q2 [C] ust8 len1412").send("D n1 q3 [CL] ust9 \"x\"").expect_calls(&[]);
    t.ignore_left().send("A n1 f1 p0 s1 ust5 =PING_RESPONSE").expect_calls(&[1]);
    assert_eq!(t.call(1).user_status, 9);
}
