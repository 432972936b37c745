//! Section N: scripts that imitate a peer's habits.

use rxrpc::proto::router::Offer;
use rxrpc::proto::{CallState, DropReason};
use rxrpc::wire::ServiceId;

use crate::support::{PEER, Scenario, client, client_with, ms, secs, server};

#[test]
fn s_167_an_openafs_client_ends_calls_with_the_next_one() {
    let mut t = server("S-167");
    for number in 1..=100 {
        t.send(&format!("D n{number} q1 [CL] \"x\""));
        t.expect(&[&format!("D n{number} q1 [L] \"x\"")]).silent(ms(1));
    }
    t.send("A n100 f2").silent(secs(30));
    assert_eq!((t.t.counters().resent, t.t.counters().calls_good), (0, 100));
    t.done();
}

#[test]
fn s_168_an_openafs_client_ends_its_last_call_with_a_delayed_ack() {
    let mut t = server("S-168");
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 [L] \"x\""]).silent(ms(400));
    t.send("A n1 f2 p1 s0 =DELAY").expect(&[]).expect_state(None);
    t.expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn s_169_an_openafs_client_that_closes_says_ackall() {
    let mut t = server("S-169");
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 [L] \"x\""]);
    t.send("ACKALL n1").expect(&[]).expect_state(None).expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn s_170_a_linux_client_asks_for_an_ack_of_its_whole_request() {
    let mut t = server("S-170");
    t.send("D n1 q1 s1 [CLR] \"x\"");
    t.expect(&["A n1 f2 p1 s1 =REQUESTED a[]", "D n1 q1 [L] \"x\""]);
    t.done();
}

#[test]
fn s_171_a_linux_server_pings_at_once_and_wants_a_hard_ack_in_the_end() {
    let mut t = client("S-171");
    t.start(b"x");
    t.expect(&["D n1 q1 [CL] \"x\""]);
    t.send("A n1 f1 p0 h1 [R] =PING jumbo0");
    t.expect(&["A n1 f1 p0 s1 [C] =PING_RESPONSE a[]"]);
    t.send("D n1 q1 s2 \"y\"").send("D n1 q2 s3 [L] \"z\"").expect(&[]).end(1);
    t.after(ms(10), &["A n1 f3 p2 s0 [C] =IDLE a[]"]).expect_bytes(1, b"yz").none();
}

#[test]
fn s_172_a_linux_mtu_probe_draws_an_answer_of_normal_size() {
    let mut t = server("S-172");
    t.send("D n1 q1 [CR] \"x\"").expect(&["A n1 f2 =REQUESTED"]);
    t.after(ms(100), &["A n1 f2 =DELAY"]);
    let probe = t.datagram("A n1 f1 p0 h33 [CR] =PING excess2791");
    assert_eq!(probe.len(), 2856);
    t.send_raw(&probe);
    let left = t.take_left();
    assert_eq!(left.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [65]);
    t.done();
}

#[test]
fn s_173_an_openafs_server_checks_the_address_before_it_answers() {
    let mut t = client("S-173");
    t.start(b"x");
    t.expect(&["D n1 q1 [CL] \"x\""]);
    t.send("A n1 f1 p1 h1 s0 [R] =PING a[1]");
    t.expect(&["A n1 f1 p0 s1 [C] =PING_RESPONSE a[]"]);
    // The request is held there: it need not go again.
    t.silent(secs(10)).send("D n1 q1 [L] \"y\"").expect_bytes(1, b"y");
}

#[test]
fn s_174_a_window_beyond_the_configured_one_is_not_used() {
    for window in [255, 256, 300, 65_535] {
        let mut t = client_with("S-174", |config| {
            config.client.call.send_window_max_packets = 255;
            config.client.call.datagram_max_bytes = 1440;
        });
        t.start(&vec![0; 3000 * 1412]);
        let mut most = 0;
        loop {
            let left = t.take_left();
            let Some((_, last)) = left.last() else { break };
            most = most.max(left.len());
            let at = |at: usize| u32::from_be_bytes(last[at..at + 4].try_into().expect("four"));
            let (seq, serial) = (at(12), at(16));
            t.send(&format!("A n1 f{} s{serial} w{window} jumbo1 =IDLE", seq + 1)).forget();
        }
        assert_eq!(most, 255, "window {window}");
        t.expect_state(Some(CallState::ClientAwaitReply));
    }
}

/// Whoever names no serial of ours may have heard nothing (rx-flow.md 9.3).
#[test]
fn a_padded_ping_goes_to_a_proved_address_only() {
    for (names_serials, largest) in [(false, 1440), (true, 2856)] {
        let mut t = client("padded PING");
        t.start(&vec![0; 1000 * 1412]);
        let mut sizes = Vec::new();
        for _ in 0..200 {
            let left = t.take_left();
            sizes.extend(left.iter().map(|(_, bytes)| bytes.len()));
            let word = |bytes: &[u8], at: usize| {
                u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"))
            };
            let last = left.iter().map(|(_, bytes)| (word(bytes, 12), word(bytes, 16))).max();
            let Some((seq, serial)) = last.filter(|(seq, _)| *seq > 0) else { break };
            let serial = if names_serials { serial } else { 0 };
            t.send(&format!("A n1 f{} s{serial} w32 jumbo1 =IDLE", seq + 1)).forget();
        }
        assert!(sizes.len() >= 1000, "{} datagrams", sizes.len());
        assert_eq!(sizes.into_iter().max(), Some(largest), "names serials: {names_serials}");
    }
}

/// T offers service 52 without security.
fn with_service_52(id: &'static str, upgrades_to: Option<ServiceId>) -> Scenario {
    let mut t = server(id);
    t.t.offer(ServiceId(52), Offer { upgrades_to, ..Scenario::plain_offer() });
    t
}

#[test]
fn s_175_a_service_with_a_successor_is_upgraded_when_asked() {
    let mut t = with_service_52("S-175", Some(ServiceId(9052)));
    t.send("D n1 q1 [CL] svc52 ust1 \"1\"").expect(&["D n1 q1 [L] svc9052 ust0 \"1\""]);
    assert_eq!(t.call(1).service, 9052);
    t.send("D n2 q1 [CL] svc52 \"2\"").expect(&["D n2 q1 [L] svc9052 \"2\""]);
    t.send("D n3 q1 [CL] svc9052 \"3\"").expect(&["D n3 q1 [L] svc9052 \"3\""]);
    t.send("D n1 q1 ch1 [CL] svc9052 \"4\"").expect(&["D n1 q1 ch1 [L] svc9052 \"4\""]);
    // Not asked, not upgraded.
    t.send("D n1 q1 [CL] svc52 cid00123450").expect(&["D n1 q1 [L] svc52 cid00123450"]);
}

#[test]
fn s_176_a_service_without_a_successor_answers_as_itself() {
    let mut t = with_service_52("S-176", None);
    t.send("D n1 q1 [CL] svc52 ust1 \"1\"").expect(&["D n1 q1 [L] svc52 \"1\""]);
    assert_eq!((t.call(1).service, t.call(1).user_status), (52, 1));
}

#[test]
fn a_client_asks_for_an_upgrade_with_one_call_and_adopts_the_answer() {
    let mut t = server("upgrade");
    t.route =
        Some(t.t.connect(t.now(), PEER.into(), ServiceId(52), &rxrpc::security::RxNull, true));
    t.start(b"1");
    t.start(b"2");
    t.expect(&["D n1 q1 [CL] svc52 ust1 \"1\""]).silent(ms(500));
    t.send("D n1 q1 [L] svc9052 \"one\"").expect(&["D n1 q1 ch1 [CL] svc9052 ust0 \"2\""]);
    assert_eq!((t.calls[0].bytes.as_slice(), t.calls[0].ended), (&b"one"[..], true));
}

#[test]
fn an_upgrade_that_got_no_answer_is_asked_for_again() {
    let mut t = server("upgrade");
    t.route =
        Some(t.t.connect(t.now(), PEER.into(), ServiceId(52), &rxrpc::security::RxNull, true));
    t.start(b"1");
    t.start(b"2");
    t.expect(&["D n1 q1 [CL] svc52 ust1 \"1\""]);
    // The service in an ABORT means nothing.
    t.send("ABORT n1 [] 9 svc0").expect(&["D n2 q1 [CL] svc52 ust1 \"2\""]);
    t.send("D n2 q1 [L] svc52 \"two\"").expect_bytes(2, b"two");
    t.start(b"3");
    t.expect(&["D n1 q1 ch1 [CL] svc52 ust0 \"3\""]);
}

#[test]
fn s_177_a_gap_at_the_start_is_reported_with_the_highest_packet_held() {
    let mut t = server("S-177");
    t.send("D n1 q2 s2 [C] \"b\"").expect(&["A n1 f1 p2 s2 =OUT_OF_SEQUENCE a[0,1]"]);
    t.send("D n1 q3 s3 [CL] \"c\"").expect(&["A n1 f1 p3 s3 =OUT_OF_SEQUENCE a[0,1,1]"]);
    t.send("D n1 q1 s4 [CR] \"a\"");
    t.expect(&["A n1 f4 p3 s4 =REQUESTED a[]", "D n1 q1 [L] \"abc\""]);
    t.done();
}

#[test]
fn s_178_data_beyond_the_window_of_a_call_that_does_not_exist_is_dropped() {
    let mut t = server("S-178");
    t.dropped(DropReason::FarAhead, "D n1 q33 [C]").expect_connections(0);
    t.dropped(DropReason::FarAhead, "D n1 q2147483648 [C]").expect_connections(0);
    t.dropped(DropReason::FarAhead, "D n1 q4294967295 [C]").expect_connections(0);
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 [L] \"x\""]);
    t.dropped(DropReason::FarAhead, "D n2 q33 [C]").expect_state(Some(CallState::ServerAwaitAck));
    t.send("A n1 f2");
    t.dropped(DropReason::FarAhead, "D n2 q33 [C]").expect_calls(&[1]);
    t.dropped(DropReason::FarAhead, "D n2 q4294967295 [C]").expect_calls(&[1]);
    t.done();
}

#[test]
fn a_linux_peer_is_known_by_its_trailer() {
    // Then its ACK of a request's last packet needs no 400 ms of patience (rx-flow.md 5.3).
    let mut t = client_with("Linux", |_| {});
    t.start(b"x");
    t.expect(&["D n1 q1 h1 [CL]"]).silent(ms(40));
    t.send("A n1 f1 p0 h1 [R] jumbo0 =PING").expect(&["A n1 [C] =PING_RESPONSE"]);
    t.send("D n1 q1 [L]").end(1).start(b"y");
    t.expect(&["D n1 q1 [CL] ch1"].map(|_| "D n2 q1 [CL]")).after(secs(1), &["D n2 q1 [CLR]"]);
}
