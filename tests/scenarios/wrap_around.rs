//! Section J: numbers that wrap. S-134 is a test of the window code itself, in
//! `src/proto/call/send_window.rs` and `receive_window.rs`.

use std::time::Instant;

use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::Identity;
use rxrpc::security::RxNull;
use rxrpc::testkit::InlineEndpoint;
use rxrpc::wire::{Cid, Epoch, Serial, ServiceId};

use crate::support::{App, PEER, ms, server, server_with};

#[test]
fn s_130_serials_skip_0_when_they_wrap() {
    let mut t = server("S-130");
    t.t.set_first_serial(Serial(u32::MAX));
    t.send("D n1 q1 [CR] \"a\"").expect(&["A n1 h4294967295 f2 =REQUESTED"]);
    t.send("D n1 q2 [CR] \"b\"").expect(&["A n1 h1 f3 =REQUESTED"]);
    t.send("D n1 q3 [CR] \"c\"").expect(&["A n1 h2 f4 =REQUESTED"]);
    t.done();
}

#[test]
fn s_131_an_ack_after_the_wrap_is_newer_than_one_before() {
    let mut t = server_with("S-131", |config| {
        config.server.call.congestion_window_initial_packets = 16;
    });
    t.app(App::Reply(6));
    t.send("D n1 q1 s4294967279 [CL]");
    assert_eq!(t.take_left().len(), 6);
    t.send("A n1 h4294967280 s0 f1 p5 a[1,1,1,1,1]").expect(&[]);
    // Only a newer ACK can say that something is missing.
    t.send("A n1 h5 s6 f1 p5 a[0,1,1,1,1]").expect(&["D n1 q1 [R] len1412"]);
    t.send("A n1 h4294967290 s6 f1 p5 a[1,0,1,1,1]").expect(&[]);
    t.send("A n1 h6 f7").expect(&[]).expect_state(None);
    t.done();
}

#[test]
fn s_132_serial_0_of_a_peer_that_does_not_skip_it_is_accepted() {
    let mut t = server("S-132");
    t.send("D n1 q1 s4294967295 [CL] \"1\"").expect(&["D n1 q1 [L] \"1\""]);
    t.send("A n1 h0 f2").expect(&[]).expect_state(None);
    t.send("D n2 q1 s0 [CL] \"2\"").expect(&["D n2 q1 [L] \"2\""]);
    t.done();
}

#[test]
fn s_133_an_ack_that_names_no_serial_gives_no_sample() {
    let mut t = server("S-133");
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 h1 [L]"]);
    let route = t.t.routes()[0];
    t.silent(ms(50)).send("A n1 f2 s0 =IDLE").expect(&[]);
    assert_eq!(t.t.router().hint(route).rtt, None);
    t.send("D n2 q1 [CL]").expect(&["D n2 q1 h2 [L]"]);
    t.silent(ms(50)).send("A n2 f2 s2 =IDLE").expect(&[]);
    assert_eq!(t.t.router().hint(route).rtt.map(|rtt| rtt.srtt), Some(ms(50)));
    t.done();
}

#[test]
fn s_135_connection_ids_skip_0_when_they_wrap() {
    let now = Instant::now();
    let identity = Identity { epoch: Epoch(1 << 31), first_cid: Cid(0xffff_fffc), hash_seed: 1 };
    let mut t = InlineEndpoint::new(EndpointConfig::default(), identity, now);
    let cids = [0, 1].map(|_| {
        let route = t.connect(now, PEER.into(), ServiceId(1), &RxNull, false);
        t.ids(route).map(|ids| ids.cid)
    });
    assert_eq!(cids, [Some(Cid(0xffff_fffc)), Some(Cid(4))]);
}
