//! Section L: VERSION, DEBUG, limits of what is answered, and the proof of an address.

use std::net::SocketAddr;
use std::time::Duration;

use rxrpc::proto::DropReason;
use rxrpc::proto::router::Offer;
use rxrpc::wire::debug::{Record, Reply, TimeValue};
use rxrpc::wire::{PacketType, Serial, ServiceId};

use crate::support::bytes_of_hex;
use crate::support::{App, PEER, Scenario, client, ms, secs, server, server_with, show};

/// W11 of rx-wire.md: a VERSION request.
const W11: &str = "000003e7 00000000 00000065 00000000 00000000 0d050000 00000000 00";
/// W12: a NAT keepalive.
const W12: &str = "000003e7 00000000 00000000 00000000 00000000 0d040000 00000000 00";
/// W13: a DEBUG request of type 1.
const W13: &str =
    "000003e7 00000000 00000066 00000000 00000000 08050000 00000000 00000001 00000000";

/// A DEBUG request.
fn debug_request(request_type: i32, index: i32) -> Vec<u8> {
    let mut request = bytes_of_hex(W13);
    request[28..32].copy_from_slice(&request_type.to_be_bytes());
    request[32..36].copy_from_slice(&index.to_be_bytes());
    request
}

/// The payload of T's one answer, whose header must be the request's with CLIENT_INITIATED cleared.
#[track_caller]
fn answer(t: &mut Scenario, request: &[u8]) -> Vec<u8> {
    t.send_raw(request);
    let left = t.take_left();
    let [(to, answer)] = left.as_slice() else { t.fail("one answer") };
    assert_eq!(*to, PEER.into());
    let mut header = request[..28].to_vec();
    header[21] &= !0x01;
    assert_eq!(answer[..28], header, "{}", show(answer));
    t.expect_connections(0);
    answer[28..].to_vec()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[test]
fn s_141_a_version_request_is_answered_with_65_bytes() {
    let mut t = server_with("S-141", |config| config.version_text = "rxrpc test".into());
    t.send_raw(&bytes_of_hex(W11));
    let left = t.take_left();
    let [(to, answer)] = left.as_slice() else { t.fail("one answer") };
    assert_eq!((*to, answer.len()), (PEER.into(), 93));
    let header = "000003e7 00000000 00000065 00000000 00000000 0d040000 00000000";
    assert_eq!(answer[..28], bytes_of_hex(header));
    let mut text = b"rxrpc test".to_vec();
    text.resize(65, 0);
    assert_eq!(answer[28..], text);
    t.expect_connections(0);
    assert_eq!(t.t.router().peer_summaries(), []);
    t.done();
}

#[test]
fn s_142_a_nat_keepalive_is_not_answered() {
    let mut t = server("S-142");
    t.dropped_raw(DropReason::ToolAnswer, &bytes_of_hex(W12)).expect_connections(0);
    t.done();
}

#[test]
fn s_143_a_version_request_without_payload_is_not_answered() {
    let mut t = server("S-143");
    let mut request = bytes_of_hex(W11);
    request.pop();
    t.dropped_raw(DropReason::Unanswered, &request);
    t.done();
}

#[test]
fn s_144_an_answer_is_not_answered() {
    let mut t = server("S-144");
    let mut reply = bytes_of_hex(W12);
    reply.resize(93, 0);
    t.dropped_raw(DropReason::ToolAnswer, &reply);
    t.done();
}

#[test]
fn s_145_statistics_say_the_version_letter_s() {
    let mut t = server("S-145");
    let payload = answer(&mut t, &bytes_of_hex(W13));
    assert_eq!((payload.len(), payload[14]), (56, b'S'));
    t.done();
}

/// What T says of this type and index, T having connections.
#[track_caller]
fn record(t: &mut Scenario, request_type: i32, index: i32) -> Record {
    t.send_raw(&debug_request(request_type, index));
    let left = t.take_left();
    let [(_, answer)] = left.as_slice() else { t.fail("one answer") };
    Reply::decode(&answer[28..]).record().expect("a record")
}

#[test]
fn s_145_the_fields_are_filled() {
    let mut t = server("S-145 values");
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 h1 [L] \"x\""]);
    t.send("D n1 q1 [CL] \"x\"").take_left();
    t.after(secs(1), &["D n1 q1 [L] \"x\""]);
    let Record::Connection(connection) = record(&mut t, 3, 0) else { t.fail("a connection") };
    assert_eq!((connection.serial, connection.nat_mtu), (Serial(3), 1440));
    t.skip(ms(40)).send("A n1 f2 s3 =REQUESTED mtu1300").send("D n2 q1 [CL]");
    t.take_left();
    t.send("D n1 q1 [CL] \"x\"").take_left();
    let Record::Peer(peer) = record(&mut t, 5, 0) else { t.fail("a peer") };
    assert_eq!((peer.rtt, peer.rtt_dev), (8 * 40, 4 * 20));
    assert_eq!(peer.timeout, TimeValue { seconds: 0, microseconds: 350_000 });
    assert_eq!((peer.sent, peer.resends, peer.ref_count), (4, 1, 1));
    let sizes = (peer.if_mtu, peer.nat_mtu, peer.max_mtu, peer.mtu);
    assert_eq!(sizes, (1440, 1300, 1300, 1300));
    let Record::Statistics(all) = record(&mut t, 4, 0) else { t.fail("statistics") };
    assert_eq!((all.data_packets_read, all.dup_packets_read, all.spurious_packets_read), (4, 1, 1));
    assert_eq!((all.data_packets_sent, all.data_packets_resent), (2, 1));
    assert_eq!((all.calls, all.free_calls), (1, 0));
    let Record::Connection(connection) = record(&mut t, 3, 0) else { t.fail("a connection") };
    assert_eq!((connection.serial, connection.nat_mtu), (Serial(4), 1300));
}

#[test]
fn s_146_the_list_of_connections_ends_with_a_cid_of_all_ones() {
    let mut t = server("S-146");
    let payload = answer(&mut t, &debug_request(2, 0));
    assert_eq!((payload.len(), word(&payload, 0), word(&payload, 4)), (176, 0, 0xffff_ffff));
    t.done();
}

#[test]
fn s_147_the_list_of_peers_ends_with_a_host_of_all_ones() {
    let mut t = server("S-147");
    let payload = answer(&mut t, &debug_request(5, 0));
    assert_eq!((payload.len(), word(&payload, 0)), (132, 0xffff_ffff));
    t.done();
}

#[test]
fn s_148_an_unknown_type_has_an_answer_of_its_own() {
    let mut t = server("S-148");
    assert_eq!(answer(&mut t, &debug_request(99, 0)), bytes_of_hex("fffffff8 fffffff8"));
    t.done();
}

#[test]
fn s_149_a_debug_request_that_is_too_short_is_dropped() {
    let mut t = server("S-149");
    let mut request = bytes_of_hex(W13);
    request.truncate(35);
    t.dropped_raw(DropReason::Unanswered, &request);
    t.done();
}

#[test]
fn s_150_with_the_responder_off_there_is_no_answer() {
    let mut t = server_with("S-150", |config| config.debug_responder = false);
    t.dropped_raw(DropReason::Unanswered, &bytes_of_hex(W13));
    t.done();
}

#[test]
fn s_151_types_and_indices_at_their_edges() {
    let mut t = server("S-151");
    assert_eq!(answer(&mut t, &debug_request(-1, 0)), bytes_of_hex("fffffff8 fffffff8"));
    assert_eq!(word(&answer(&mut t, &debug_request(3, i32::MAX)), 4), 0xffff_ffff);
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 [L]"]);
    t.silent(secs(1) - ms(1));
    for index in [-1, 0, i32::MIN] {
        t.skip(secs(1)).send_raw(&debug_request(3, index));
        let left = t.take_left();
        let record = left.iter().find(|(_, bytes)| bytes.len() == 28 + 176).expect("a record");
        assert_eq!((word(&record.1, 28 + 4), word(&record.1, 28)), (0x5d0e_9a34, 0x0a00_0001));
    }
    t.send("A n1 f2").take_left();
    t.done();
}

#[test]
fn s_152_version_answers_are_limited_by_address_and_in_all() {
    let mut t = server("S-152");
    let request = bytes_of_hex(W11);
    for _ in 0..1000 {
        t.send_raw(&request).skip(ms(1));
    }
    assert_eq!(t.take_left().len(), 10);
    t.expect_dropped(DropReason::Throttled, 990);
    for last in 2..=201 {
        t.from = SocketAddr::from(([10, 0, 0, last], 7001));
        t.send_raw(&request);
    }
    assert_eq!(t.take_left().len(), 100);
    t.from = PEER.into();
    t.skip(secs(1)).send_raw(&request);
    assert_eq!(t.take_left().len(), 1);
    t.done();
}

#[test]
fn debug_answers_have_limits_of_their_own() {
    let mut t = server("DEBUG limits");
    let (version, debug) = (bytes_of_hex(W11), debug_request(3, 0));
    // A tool that lists many connections; what it has asked takes nothing from VERSION.
    for _ in 0..1000 {
        t.send_raw(&debug);
    }
    assert_eq!(t.take_left().len(), 1000);
    t.dropped_raw(DropReason::Throttled, &debug);
    t.send_raw(&version);
    assert_eq!(t.take_left().len(), 1);
    for last in 2..=6 {
        t.from = SocketAddr::from(([10, 0, 0, last], 7001));
        for _ in 0..200 {
            t.send_raw(&debug);
        }
    }
    assert_eq!(t.take_left().len(), 1000);
    // In the long run a hundred a second in all, and ten for an address.
    let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 7001));
    let began = t.now();
    let mut answered = |from: SocketAddr, skipped: Duration| {
        t.from = from;
        t.skip(skipped);
        for _ in 0..1000 {
            t.send_raw(&debug);
        }
        (t.take_left().len(), t.now() - began)
    };
    let (more, _) = answered(address(7), Duration::ZERO);
    assert_eq!(
        more, 50,
        "2000 in all, and what came back in the half second that the VERSION took"
    );
    for last in 2..=6 {
        let (more, _) = answered(address(last), secs(1));
        assert_eq!(more, 100);
    }
    let (more, time) = answered(PEER.into(), secs(1));
    assert_eq!((more, time), (65, secs(6)), "what six and a half seconds brought back");
}

#[test]
fn packets_are_counted_once_also_the_first_of_a_connection() {
    let mut t = server("counters");
    let received = |t: &Scenario| {
        let counters = t.t.counters();
        (counters.datagrams_received, counters.received_by_type.iter().sum::<u64>())
    };
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 [L]"]);
    assert_eq!(received(&t), (1, 1));
    t.send("A n1 f2 s0").send("D n2 q1 [CL]").expect(&["D n2 q1 [L]"]);
    assert_eq!(received(&t), (3, 3));
    t.send_burst(&["D n1 q1 [C] cid00000010 len1412", "D n1 q2 [CL] cid00000010 len1412"]);
    assert_eq!(received(&t), (5, 5));
}

#[test]
fn debug_limits_are_as_configured() {
    let mut t = server_with("DEBUG limits", |config| {
        config.debug_answers_per_peer_per_second = 1;
        config.debug_answers_per_second = 1;
        config.debug_answers_per_peer_burst = 2;
        config.debug_answers_burst = 3;
    });
    let debug = debug_request(1, 0);
    t.send_raw(&debug).send_raw(&debug);
    assert_eq!(t.take_left().len(), 2);
    t.dropped_raw(DropReason::Throttled, &debug);
    t.from = SocketAddr::from(([10, 0, 0, 2], 7001));
    t.send_raw(&debug);
    assert_eq!(t.take_left().len(), 1);
    t.dropped_raw(DropReason::Throttled, &debug);
    t.done();
}

/// T's service 1 wants the address proved, and answers to one that is not are limited as by default.
fn careful(id: &'static str) -> Scenario {
    let mut t = server_with(id, |config| config.amplification_max = Some(3));
    t.t.offer(ServiceId(1), Offer { needs_reach: true, ..Scenario::plain_offer() });
    t
}

#[test]
fn s_153_a_flood_of_connections_draws_less_than_three_times_its_bytes() {
    let mut t = careful("S-153");
    let mut bytes_in = 0;
    for index in 0..10_000u32 {
        let datagram = t.datagram(&format!("D n1 q1 s1 [CL] cid{:08x} \"x\"", (index + 1) << 2));
        bytes_in += datagram.len();
        t.t.receive(t.now(), PEER.into(), &datagram);
    }
    t.pump();
    let count = |left: &[(SocketAddr, Vec<u8>)], packet_type: PacketType| {
        left.iter().filter(|(_, bytes)| bytes[20] == packet_type.byte()).count()
    };
    let left = t.take_left();
    assert_eq!(count(&left, PacketType::Ack), 1024, "a PING for each connection allowed");
    assert_eq!(count(&left, PacketType::Abort), 10, "of the others some are told");
    assert_eq!(left.len(), 1034);
    t.expect_dropped(DropReason::ConnectionLimit, 10_000 - 1024);
    let mut bytes_out: usize = left.iter().map(|(_, bytes)| bytes.len()).sum();
    t.pass(secs(700));
    bytes_out += t.take_left().iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    assert!(bytes_out <= 3 * bytes_in, "{bytes_out} bytes out for {bytes_in}");
    t.expect_calls(&[]).expect_connections(0);
}

#[test]
fn s_154_a_new_address_is_pinged_and_nothing_else() {
    let mut t = careful("S-154");
    t.app(App::Reply(20));
    t.send("D n1 q1 [CL] \"x\"").expect(&["A n1 f2 p1 s0 [R] =PING a[]"]);
    t.expect_calls(&[]).none();
}

#[test]
fn s_155_the_answer_to_the_ping_proves_the_address_for_a_minute() {
    let mut t = careful("S-155");
    t.send("D n1 q1 [CL] \"x\"").expect(&["A n1 h1 f2 s0 [R] =PING"]);
    // Another serial proves nothing.
    t.send("A n1 f1 p0 s7 =PING_RESPONSE").expect(&[]).expect_calls(&[]);
    t.send("A n1 f1 p0 s1 =PING_RESPONSE").expect(&["D n1 q1 h2 [L] \"x\""]);
    t.send("A n1 f2 s0").silent(ms(59_999));
    t.send("D n1 q1 [CL] cid00123450 \"y\"").expect(&["D n1 q1 [L] cid00123450 \"y\""]);
    t.send("A n1 f2 s0 cid00123450").silent(ms(1));
    t.send("D n2 q1 [CL] \"z\"").expect(&["A n2 f2 p1 s0 [R] =PING"]).expect_calls(&[1, 1]);
}

#[test]
fn s_156_the_ping_is_repeated_every_two_seconds_within_the_answer_limit() {
    let mut t = careful("S-156");
    // 44 bytes in: 132 may go out, which is two PINGs.
    t.send("D n1 q1 [CL] len16").expect(&["A n1 h1 f2 s0 [R] =PING"]);
    t.after(secs(2), &["A n1 h2 f2 s0 [R] =PING"]);
    t.silent(secs(2)).expect_dropped(DropReason::Amplification, 1);
    // The client sends its request again, and so pays for more.
    t.send("D n1 q1 [CLR] len16").expect(&["A n1 f2 =DUPLICATE"]);
    t.after(secs(2), &["A n1 f2 s0 [R] =PING"]);
}

#[test]
fn a_request_that_is_sent_again_draws_the_next_ping_before_its_time() {
    // rx-calls.md 4.1: the first PING, or its answer, was lost; the PING stands for the ACK of the copy.
    let mut t = careful("reach");
    t.send("D n1 q1 [CL] len100").expect(&["A n1 f2 s0 [R] =PING"]);
    t.skip(ms(199)).send("D n1 q1 s2 [CLR] len100").expect(&["A n1 f2 s2 =DUPLICATE"]);
    t.skip(ms(1)).send("D n1 q1 s3 [CLR] len100").expect(&["A n1 h3 f2 s0 [R] =PING"]);
    t.send("D n1 q1 s4 [CLR] len100").expect(&["A n1 f2 s4 =DUPLICATE"]);
    t.after(secs(2), &["A n1 f2 s0 [R] =PING"]);
}

#[test]
fn s_157_a_flood_for_an_unknown_service_draws_few_aborts() {
    let mut t = server("S-157");
    for index in 0..1000u32 {
        t.send(&format!("D n1 q1 [CL] svc999 cid{:08x}", (index + 1) << 2)).skip(ms(1));
    }
    let left = t.take_left();
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|(_, bytes)| bytes.len() == 32));
    t.expect_dropped(DropReason::Throttled, 990).expect_connections(0);
    assert_eq!(t.t.router().peer_summaries(), []);
    t.done();
}

#[test]
fn the_whole_first_batch_of_an_address_counts_for_its_answer() {
    let mut t = server_with("batch", |config| {
        config.amplification_max = Some(3);
        config.server.call.congestion_window_initial_packets = 16;
    });
    let lines: Vec<String> = (1..=10)
        .map(|seq| format!("D n1 q{seq} [{}] len1412", if seq == 10 { "CL" } else { "C" }))
        .collect();
    t.send_burst(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(t.take_left().len(), 10, "the reply is as long as the request");
    t.expect_dropped(DropReason::Amplification, 0);
}

#[test]
fn a_long_reply_renews_the_proof_of_its_address() {
    let mut t = careful("renewal");
    t.app(App::Reply(4000));
    t.send("D n1 q1 [CL] \"x\"").expect(&["A n1 h1 [R] =PING"]);
    t.send("A n1 f1 p0 s1 =PING_RESPONSE");
    for _ in 0..200 {
        let left = t.take_left();
        let last = left.iter().map(|(_, bytes)| (word(bytes, 12), word(bytes, 16))).max();
        let Some((seq, serial)) = last else { t.fail("the reply stalls") };
        if seq == 4000 {
            break;
        }
        t.skip(secs(1)).send(&format!("A n1 f{} s{serial} w32 =IDLE", seq + 1));
    }
    t.expect_dropped(DropReason::Amplification, 0);
    assert_eq!(t.t.counters().resent, 0);
}

#[test]
fn an_endpoint_that_is_only_a_client_forgets_its_peers_and_keeps_nats_open() {
    let mut t = crate::support::client_with("NAT ping", |config| {
        config.nat_ping = Some(secs(20));
    });
    t.start(b"x");
    t.send("D n1 q1 [L]").end(1).expect(&["D n1 q1 [CL]"]);
    t.after(ms(10), &["A n1 f2 [C] =IDLE"]);
    t.pass(ms(19_990));
    // At most a second late.
    t.expect(&[]).pass(secs(1));
    let left = t.take_left();
    let [(to, ping)] = left.as_slice() else { t.fail("one keepalive") };
    assert_eq!((*to, ping.len(), ping[20], ping[21]), (PEER.into(), 29, 13, 0x04));
    t.pass(secs(300)).take_left();
    t.expect_connections(0);
    assert_eq!(t.t.router().peer_summaries(), []);
    assert_eq!(t.t.next_deadline(), None);
}

#[test]
fn what_the_network_says_of_a_path_holds_whatever_the_peer_says() {
    let mut t = server("path size");
    t.app(App::Reply(2));
    t.send("D n1 q1 [CL]");
    t.take_left();
    t.send("A n1 f3").expect(&[]);
    t.t.path_size(t.now(), PEER.into(), 1028);
    t.send("D n2 q1 [CL]").expect(&["D n2 q1 len1000", "D n2 q2 len1000", "D n2 q3 len824"]);
    t.send("A n2 f4 mtu1444").expect(&[]);
    t.send("D n3 q1 [CL]").expect(&["D n3 q1 len1000", "D n3 q2 len1000", "D n3 q3 len824"]);
    t.t.path_size(t.now(), PEER.into(), 1400);
    t.send("A n3 f4").send("D n4 q1 [CL]");
    t.expect(&["D n4 q1 len1000", "D n4 q2 len1000", "D n4 q3 len824"]);
}

#[test]
fn what_left_too_large_goes_again_at_once_and_may_be_fragmented() {
    let mut t = server("too big");
    t.app(App::Reply(2));
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 [M] len1412", "D n1 q2 [L] len1412"]);
    let now = t.now();
    t.t.path_size(now, PEER.into(), 1000);
    let sent = t.t.take_sent_datagrams();
    let sizes: Vec<_> = sent.iter().map(|it| (it.datagram.len(), it.may_fragment)).collect();
    // Their numbers are given: they keep their size (rx-flow.md 9.3).
    assert_eq!(sizes, [(1440, true), (1440, true)]);
    // The same word again changes nothing, and neither does a larger size; a smaller one resends nothing that
    // can be fragmented already.
    for size in [1000, 1200, 600] {
        t.t.path_size(now, PEER.into(), size);
        assert_eq!(t.t.take_sent_datagrams(), []);
    }
    let summary = t.t.router().peer_summaries()[0];
    assert_eq!((summary.datagram_max, summary.payload_max), (600, 572));
    let resent = t.t.counters().resent;
    assert_eq!((resent, t.t.counters().resent_by_timer), (2, 0));
}

/// The answer to a VERSION request with this number.
fn version_answer(number: u32, text: &str) -> Vec<u8> {
    let mut request = Vec::new();
    rxrpc::wire::encode_version_request(number, &mut request);
    let mut answer = Vec::new();
    let header = rxrpc::wire::Header::decode(&request).unwrap();
    rxrpc::wire::encode_version_reply(&header, text, &mut answer);
    answer
}

/// Whether a client that asks a server for its version, and hears `text`, takes it for Linux.
fn is_linux_by_version(text: &str) -> bool {
    let mut t = crate::support::client_with("VERSION", |config| config.ask_version = true);
    t.start(b"x");
    let left = t.take_left();
    let [(to, question), (_, data)] = left.as_slice() else { t.fail("a question and a request") };
    assert_eq!((*to, question.len(), data[20]), (PEER.into(), 29, 1));
    assert_eq!(question[20..22], [13, 0x05]);
    let number = u32::from_be_bytes(question[8..12].try_into().unwrap());
    // Another's answer, and one that says nothing, count for nothing.
    t.dropped_raw(DropReason::ToolAnswer, &version_answer(number ^ 1, "linux-6.1.0 AF_RXRPC"));
    t.dropped_raw(DropReason::ToolAnswer, &version_answer(number, ""));
    assert!(!t.t.router().peer_summaries()[0].is_linux);
    t.send_raw(&version_answer(number, text));
    t.t.router().peer_summaries()[0].is_linux
}

#[test]
fn a_peer_is_known_as_linux_by_its_version() {
    // rx-flow.md 5.3.
    assert!(!is_linux_by_version("OpenAFS 1.8.9 built  2023"));
    assert!(is_linux_by_version("linux-6.1.0-13-amd64 AF_RXRPC"));
    assert!(!is_linux_by_version("not linux-6.1.0 AF_RXRPC"));
}

#[test]
fn a_peer_that_was_known_as_linux_stays_so() {
    let mut t = client("Linux by its trailer");
    t.start(b"x");
    t.take_left();
    t.send("A n1 f1 a[1] s1 jumbo0").send("A n1 f1 a[1] s1 jumbo4");
    let summary = t.t.router().peer_summaries()[0];
    assert_eq!((summary.is_linux, summary.jumbo_max), (true, 4));
}

#[test]
fn nobody_is_asked_for_a_version_unless_that_is_wanted() {
    let mut t = client("VERSION off");
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]).none();
}
