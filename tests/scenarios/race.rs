//! The tests of rx-race.md 7, each with the packets handed over one by one and in one burst.
//!
//! RC-27 needs two processes and real sockets: `tests/soak.rs`.

use bytes::Bytes;
use rxrpc::proto::channel::Command;
use rxrpc::proto::{CallFailure, CallState, DropReason};
use rxrpc::wire::{AbortCode, ChannelIndex, ServiceId};

use crate::support::fake_class::GOOD_RESPONSE;
use crate::support::{
    App, FakeClass, Scenario, WAYS, Way, client, ms, parse, secs, server, server_with,
};

/// Rounds of the tests that repeat.
const ROUNDS: u32 = 10_000;

/// A server whose call 1 has replied and awaits the ACK.
#[track_caller]
fn awaiting(id: &'static str) -> Scenario {
    let mut t = server(id);
    t.send("D n1 q1 [CL] \"1\"").expect(&["D n1 q1 [L] \"1\""]);
    t.expect_state(Some(CallState::ServerAwaitAck));
    t
}

/// A server whose call 2 is being worked on, call 1 having been acknowledged by it.
#[track_caller]
fn working_on_call_2(id: &'static str) -> Scenario {
    let mut t = awaiting(id);
    t.app(App::Manual);
    t.send("D n2 q1 [CL] \"2\"").expect(&[]).expect_state(Some(CallState::ServerWork));
    t
}

#[test]
fn rc_01_the_final_ack_and_then_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-01");
        t.deliver(way, &["A n1 f2", "D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.expect_calls(&[1, 2]).expect_acknowledged(1, Some(true)).expect_failure(1, None);
        t.expect_order(&["n1 acknowledged: true", "n2 comes in"]);
        t.done();
    }
}

#[test]
fn rc_02_never_a_busy_nor_an_abort_in_ten_thousand_rounds() {
    for way in WAYS {
        let mut t = server("RC-02");
        t.send("D n1 q1 [CL]").expect(&["D n1 q1 [L]"]);
        for number in 2..=ROUNDS {
            let ack = format!("A n{} f2", number - 1);
            t.deliver(way, &[&ack, &format!("D n{number} q1 [CL]")]);
            t.expect(&[&format!("D n{number} q1 [L]")]).expect_calls_of_round(number);
        }
        let counters = t.t.counters();
        assert_eq!((counters.busy_sent, counters.aborts_sent, counters.resent), (0, 0, 0));
        assert_eq!(counters.server_calls, u64::from(ROUNDS));
        t.done();
    }
}

#[test]
fn rc_03_the_final_ack_is_overtaken_by_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-03");
        // The DATA is as long as the ACK, so that the burst is one batch.
        t.deliver(way, &["D n2 q1 [CL] len37", "A n1 f2"]).expect(&["D n2 q1 [L] len37"]);
        t.expect_acknowledged(1, Some(true)).expect_dropped(DropReason::StaleCall, 1).none();
        t.done();
    }
}

#[test]
fn rc_04_the_next_call_alone_ends_the_last() {
    for way in WAYS {
        let mut t = awaiting("RC-04");
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.expect_acknowledged(1, Some(true));
        t.send("A n2 f2").silent(secs(30));
        assert_eq!(t.t.counters().resent, 0);
        t.done();
    }
}

#[test]
fn rc_05_what_is_unacknowledged_of_the_last_reply_is_not_sent_again() {
    for way in WAYS {
        let mut t = server_with("RC-05", |config| {
            config.server.call.congestion_window_initial_packets = 16;
        });
        t.app(App::Reply(10));
        t.send("D n1 q1 [CL]");
        assert_eq!(t.take_left().len(), 10);
        t.app(App::Echo);
        t.deliver(way, &["A n1 f5 p4", "D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.expect_acknowledged(1, Some(true)).expect_failure(1, None);
        t.send("A n2 f2").silent(secs(30));
        t.done();
    }
}

#[test]
fn rc_06_a_soft_final_ack_is_enough() {
    for way in WAYS {
        let mut t = awaiting("RC-06");
        t.deliver(way, &["A n1 f1 p1 a[1]"]).expect(&[]).expect_state(None);
        t.expect_acknowledged(1, Some(true));
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.done();

        let mut t = awaiting("RC-06");
        t.deliver(way, &["A n1 f1 p1 a[1]", "D n2 q1 [CL] \"2\""]);
        t.expect(&["D n2 q1 [L] \"2\""]);
        t.done();
    }
}

#[test]
fn rc_07_ackall_and_then_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-07");
        t.deliver(way, &["ACKALL n1", "D n2 q1 [CL]"]).expect(&["D n2 q1 [L] \"\""]);
        t.expect_calls(&[1, 2]).expect_acknowledged(1, Some(true));
        t.expect_order(&["n1 acknowledged: true", "n2 comes in"]);
        t.done();
    }
}

#[test]
fn rc_08_the_next_call_comes_while_the_last_packet_is_being_sent() {
    for way in WAYS {
        let mut t = server("RC-08");
        t.app(App::Manual);
        t.send("D n1 q1 [CL]").expect(&[]);
        for number in 1..ROUNDS {
            let at = t.call(number).at;
            let write = Command::Write { bytes: Bytes::new(), ends: true, flushes: false };
            t.t.command(t.now(), at, write);
            // Nothing of T has run since its socket took the packet.
            let left = t.t.take_sent();
            let [(_, reply)] = left.as_slice() else { t.fail("one packet of reply") };
            let last = parse(&format!("D n{number} q1 [L] \"\"")).differences(reply);
            assert_eq!(last, Vec::<String>::new());
            let next = format!("D n{} q1 [CL]", number + 1);
            match way {
                Way::OneByOne => t.send(&next).expect(&[]),
                // Its copy comes along, and is acknowledged as one.
                Way::Burst => t.send_burst(&[&next, &next]).expect(&["A f2 p1 =DUPLICATE"]),
            };
            t.expect_calls_of_round(number + 1);
        }
        let counters = t.t.counters();
        assert_eq!((counters.busy_sent, counters.aborts_sent, counters.resent), (0, 0, 0));
        assert_eq!(counters.server_calls, u64::from(ROUNDS));
    }
}

#[test]
fn rc_09_a_newer_call_takes_the_channel_from_one_that_is_worked_on() {
    for way in WAYS {
        let mut t = server("RC-09");
        t.app(App::Manual);
        t.deliver(way, &["D n1 q1 [CL] \"1\"", "D n2 q1 [CL] \"2\""]).expect(&[]);
        t.expect_calls(&[1, 2]).expect_failure(1, Some(CallFailure::Overtaken));
        t.write(1, b"late", true).abort(1, 7).end(1).expect(&[]);
        t.write(2, b"two", true).expect(&["D n2 q1 [L] \"two\""]);
        t.done();
    }
}

#[test]
fn rc_10_without_takeover_the_newer_call_is_told_busy() {
    for way in WAYS {
        let mut t = server_with("RC-10", |config| config.server.call.takeover = false);
        t.app(App::Manual);
        t.deliver(way, &["D n1 q1 [CL] \"1\"", "D n2 q1 [CL] \"2\""]);
        t.expect(&["BUSY n2 q0 h1 [] idx0 \"\""]);
        t.expect_calls(&[1]).expect_failure(1, Some(CallFailure::Overtaken));
        t.send("D n2 q1 [CL] \"2\"").expect(&["BUSY n2 h2"]).expect_calls(&[1]);
        t.write(1, b"late", true).expect(&[]).expect_state(None);
        t.app(App::Echo);
        t.deliver(way, &["D n2 q1 s9 [CLR] \"2\""]);
        t.expect(&["A n2 f2 p1 s9 =REQUESTED a[]", "D n2 q1 [L] \"2\""]);
        t.expect_calls(&[1, 2]).send("A n2 f2");
        t.done();
    }
}

#[test]
fn rc_10_a_reply_that_is_written_but_not_sent_does_not_keep_the_channel_busy() {
    for way in WAYS {
        let mut t = server_with("RC-10", |config| config.server.call.takeover = false);
        t.app(App::Reply(20));
        t.send("D n1 q1 [CL] \"1\"");
        assert_eq!(t.take_left().len(), 10);
        t.expect_state(Some(CallState::ServerReply)).app(App::Echo);
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&["BUSY n2"]).expect_state(None);
        t.expect_failure(1, Some(CallFailure::Overtaken));
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.done();
    }
}

#[test]
fn rc_10_busy_is_not_said_without_end() {
    for way in WAYS {
        let mut t = server_with("RC-10", |config| config.server.call.takeover = false);
        t.app(App::Manual);
        t.send("D n1 q1 [CL] \"1\"").deliver(way, &["D n2 q1 [CL] \"2\""; 1000]);
        assert_eq!(t.take_left().len(), 10);
        t.silent(secs(3)).deliver(way, &["D n2 q1 [CL] \"2\""; 10]).expect(&["BUSY n2"]);
    }
}

#[test]
fn rc_11_the_next_call_comes_twice() {
    for way in WAYS {
        let mut t = awaiting("RC-11");
        t.deliver(way, &["D n2 q1 s8 [CL] \"2\"", "D n2 q1 s9 [CL] \"2\""]);
        let (ack, reply) = ("A n2 f2 p1 s9 =DUPLICATE a[]", "D n2 q1 [L] \"2\"");
        match way {
            Way::OneByOne => t.expect(&[reply, ack]),
            Way::Burst => t.expect(&[ack, reply]),
        };
        t.expect_calls(&[1, 2]).expect_bytes(2, b"2");
        t.done();
    }
}

#[test]
fn rc_12_a_late_copy_of_the_last_request_is_dropped() {
    let mut t = working_on_call_2("RC-12");
    // Its own delayed ACK is not what this is about.
    t.after(ms(100), &["A n2 f2 p1 =DELAY"]);
    t.dropped(DropReason::StaleCall, "D n1 q1 [CL] \"1\"").expect_calls(&[1, 2]);
    t.done();

    let mut t = awaiting("RC-12");
    t.send_burst(&["D n2 q1 [CL] \"2\"", "D n1 q1 [CL] \"1\""]).expect(&["D n2 q1 [L] \"2\""]);
    t.expect_dropped(DropReason::StaleCall, 1).expect_calls(&[1, 2]);
    t.done();
}

#[test]
fn rc_13_a_late_ping_of_the_last_call_is_dropped() {
    let mut t = working_on_call_2("RC-13");
    t.after(ms(100), &["A n2 f2 p1 =DELAY"]);
    t.dropped(DropReason::StaleCall, "A n1 f2 =PING [CR]");
    t.done();

    let mut t = awaiting("RC-13");
    t.send_burst(&["D n2 q1 [CL] len37", "A n1 f2 =PING [CR]"]).expect(&["D n2 q1 [L] len37"]);
    t.expect_dropped(DropReason::StaleCall, 1);
    t.done();
}

#[test]
fn rc_14_a_late_abort_of_the_last_call_hurts_nobody() {
    let mut t = working_on_call_2("RC-14");
    t.after(ms(100), &["A n2 f2 p1 =DELAY"]);
    t.dropped(DropReason::StaleCall, "ABORT n1 -6").expect_failure(2, None);
    t.write(2, b"two", true).expect(&["D n2 q1 [L] \"two\""]);
    t.done();

    let mut t = awaiting("RC-14");
    t.send_burst(&["D n2 q1 [CL] len4", "ABORT n1 -6"]).expect(&["D n2 q1 [L] len4"]);
    t.expect_dropped(DropReason::StaleCall, 1).expect_acknowledged(1, Some(true));
    t.done();
}

#[test]
fn rc_15_only_data_of_the_next_call_ends_the_last() {
    for way in WAYS {
        let mut t = awaiting("RC-15");
        t.deliver(way, &["A n2 f1 p0 =PING [CR]"]).expect(&[]);
        t.expect_dropped(DropReason::FutureCall, 1);
        t.expect_state(Some(CallState::ServerAwaitAck)).expect_acknowledged(1, None);
        t.done();
    }
}

#[test]
fn rc_16_numbers_may_be_skipped_but_not_go_back() {
    for way in WAYS {
        let mut t = awaiting("RC-16");
        t.deliver(way, &["D n5 q1 [CL] \"5\"", "D n3 q1 [CL] \"3\""]);
        t.expect(&["D n5 q1 [L] \"5\""]).expect_calls(&[1, 5]).none();
        t.expect_acknowledged(1, Some(true)).expect_dropped(DropReason::StaleCall, 1);
        t.done();
    }
}

#[test]
fn rc_17_the_retransmission_timer_is_due_with_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-17");
        t.silent(ms(999)).skip(ms(1));
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.silent(ms(999)).send("A n2 f2").silent(secs(30));
        t.done();

        // The other way round the packet leaves, and never again after the DATA.
        let mut t = awaiting("RC-17");
        t.after(secs(1), &["D n1 q1 [L] \"1\""]);
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&["D n2 q1 [L] \"2\""]);
        t.send("A n2 f2").silent(secs(30));
        t.done();
    }
}

#[test]
fn rc_18_the_delayed_ack_of_a_request_does_not_outlive_it() {
    for way in WAYS {
        let mut t = server("RC-18");
        t.app(App::Manual);
        t.send("D n1 q1 [CL] \"1\"").silent(ms(50));
        t.write(1, b"one", true).expect(&["D n1 q1 [L] \"one\""]).silent(ms(10));
        t.deliver(way, &["D n2 q1 [CL] \"2\""]).expect(&[]);
        t.after(ms(100), &["A n2 f2 p1 s0 =DELAY a[]"]).silent(secs(1));
        t.write(2, b"two", true).expect(&["D n2 q1 [L] \"two\""]);
        t.done();
    }
}

/// A client whose call 1 has its reply of two packets.
#[track_caller]
fn replied(id: &'static str, way: Way) -> Scenario {
    let mut t = client(id);
    t.start(b"one");
    t.expect(&["D n1 q1 [CL] \"one\""]);
    t.deliver(way, &["D n1 q1 s1 \"a\"", "D n1 q2 s2 [L] \"b\""]).expect(&[]);
    t.expect_bytes(1, b"ab");
    t
}

#[test]
fn rc_19_the_next_call_of_a_client_takes_the_place_of_its_final_ack() {
    for way in WAYS {
        let mut t = replied("RC-19", way);
        t.end(1).silent(ms(9));
        t.start(b"two");
        t.expect(&["D n2 q1 [CL] \"two\""]).silent(ms(500));
    }
}

/// Where calls follow each other closely the next one is likely to come: the final ACK waits for it as any other
/// ACK may, 100 ms from the reply on, and no longer (rx-flow.md 4).
#[test]
fn the_final_ack_of_calls_that_follow_each_other_closely_waits_for_the_next() {
    for way in WAYS {
        let mut t = replied("final ACK", way);
        t.end(1).silent(ms(9));
        for (number, text) in [(2, "two"), (3, "three")] {
            t.start(text.as_bytes());
            t.expect(&[&format!("D n{number} q1 [CL]")]);
            t.deliver(way, &[&format!("D n{number} q1 [L] \"b\"")]).silent(ms(30));
            t.end(number).silent(ms(60));
        }
        t.silent(ms(9)).after(ms(1), &["A n3 f2 p1 s0 [C] =IDLE a[]"]);
        // After a pause it is as with a first call.
        t.silent(secs(1)).start(b"four");
        t.expect(&["D n4 q1 [CL]"]);
        t.deliver(way, &["D n4 q1 [L] \"b\""]).silent(ms(30));
        t.end(4).silent(ms(9)).after(ms(1), &["A n4 f2 p1 s0 [C] =IDLE a[]"]);
        t.done();
    }
}

#[test]
fn rc_20_a_client_that_makes_no_other_call_sends_one_final_ack() {
    for way in WAYS {
        let mut t = replied("RC-20", way);
        t.end(1).after(ms(10), &["A n1 f3 p2 s0 [C] =IDLE a[]"]).silent(secs(30));
    }
}

#[test]
fn rc_21_a_late_copy_of_the_reply_draws_the_final_ack_again() {
    for way in WAYS {
        let mut t = replied("RC-21", way);
        t.end(1).after(ms(10), &["A n1 f3 p2 s0 [C] =IDLE a[]"]);
        t.deliver(way, &["D n1 q2 s7 [L] \"b\""]);
        t.expect(&["A n1 f3 p2 s7 [C] =DUPLICATE a[]"]).none();
        t.start(b"two");
        t.expect(&["D n2 q1 [CL] \"two\""]);
        t.deliver(way, &["D n1 q2 s8 [L] \"b\""]).expect(&[]);
        t.expect_dropped(DropReason::StaleCall, 1).none();
    }
}

#[test]
fn rc_22_four_channels_at_once_are_each_as_if_alone() {
    for way in WAYS {
        let mut t = server("RC-22");
        for channel in 0..4 {
            t.send(&format!("D n1 q1 [CL] ch{channel} len37"));
        }
        t.expect(&["D n1", "D n1 ch1", "D n1 ch2", "D n1 ch3"]);
        for number in 2..=500 {
            let mut lines = Vec::new();
            for channel in 0..4 {
                lines.push(format!("A n{} f2 ch{channel}", number - 1));
            }
            for channel in [2, 0, 3, 1] {
                lines.push(format!("D n{number} q1 [CL] ch{channel} len37"));
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            t.deliver(way, &lines);
            let replies =
                [2, 0, 3, 1].map(|channel| format!("D n{number} q1 [L] ch{channel} len37"));
            t.expect(&replies.each_ref().map(String::as_str)).forget();
        }
        let counters = t.t.counters();
        assert_eq!((counters.busy_sent, counters.aborts_sent, counters.resent), (0, 0, 0));
        assert_eq!((counters.server_calls, counters.calls_good), (2000, 1996));
        t.done();
    }
}

#[test]
fn rc_23_a_channel_that_broke_does_not_run_its_call_again() {
    for way in WAYS {
        let mut t = server("RC-23");
        t.app(App::Manual);
        t.send("D n3 q1 [CL] \"3\"").expect(&[]);
        let route = t.t.routes()[0];
        t.t.break_channel(t.now(), route, ChannelIndex::ALL[0]);
        t.pump();
        t.expect(&[]).expect_failure(3, Some(CallFailure::Broken));
        t.app(App::Echo);
        t.deliver(way, &["D n3 q1 [CL] \"3\"", "D n2 q1 [CL] \"2\"", "D n4 q1 [CL] \"4\""]);
        t.expect(&["ABORT n3 -1", "D n4 q1 [L] \"4\""]).expect_calls(&[3, 4]);
        t.expect_dropped(DropReason::StaleCall, 1);
        t.done();
    }
}

#[test]
fn rc_23_a_channel_that_broke_on_a_secured_connection_stays_secured() {
    let class = FakeClass::default();
    let mut t = server("RC-23");
    t.t.offer(ServiceId(2), class.offer());
    t.send("D n1 q1 [CL] idx2 svc2 \"1\"").expect(&["CHALLENGE n0 idx2 svc2"]);
    t.send("RESPONSE idx2 svc2 \"me\"").expect(&["D n1 q1 [L] idx2 \"1\""]);
    let route = t.t.routes()[0];
    t.t.break_channel(t.now(), route, ChannelIndex::ALL[0]);
    t.pump();
    t.send("D n2 q1 [CL] idx2 svc2 \"2\"").expect(&["D n2 q1 [L] idx2 \"2\""]);
}

#[test]
fn rc_24_a_flood_of_copies_loses_no_word_of_the_application() {
    for way in WAYS {
        // The reply was written before the flood.
        let mut t = awaiting("RC-24");
        let copies = vec!["D n2 q1 [CL] \"2\""; 1000];
        t.app(App::Manual);
        t.deliver(way, &copies);
        let acks = t.take_left();
        assert_eq!(acks.len(), if way == Way::Burst { 1 } else { 999 });
        assert!(
            acks.iter().all(|(_, ack)| parse("A n2 f2 =DUPLICATE").differences(ack).is_empty())
        );
        t.expect_calls(&[1, 2]).expect_acknowledged(1, Some(true)).expect_failure(1, None);
        let channel = t.t.channel(t.t.routes()[0], ChannelIndex::ALL[0]);
        assert_eq!(channel.map(|channel| channel.buffered_bytes()), Some(1));
        t.write(2, b"two", true).expect(&["D n2 q1 [L] \"two\""]);
        t.done();

        // It is written after it: the call is over, and its reply belongs to nobody.
        let mut t = server("RC-24");
        t.app(App::Manual);
        t.send("D n1 q1 [CL] \"1\"").deliver(way, &copies).take_left();
        t.write(1, b"one", true).expect(&[]);
        t.expect_failure(1, Some(CallFailure::Overtaken)).expect_calls(&[1, 2]);
        t.write(2, b"two", true).expect(&["D n2 q1 [L] \"two\""]);
        t.done();
    }
}

#[test]
fn rc_25_what_comes_while_a_response_is_verified_is_delivered_in_order() {
    for way in WAYS {
        let class = FakeClass { is_slow: true, ..FakeClass::default() };
        let mut t = server("RC-25");
        t.t.offer(ServiceId(2), class.offer());
        t.deliver(
            way,
            &[
                "D n1 q1 s1 [C] idx2 svc2 \"aa\"",
                "D n1 q2 s2 [C] idx2 svc2 \"bb\"",
                "D n1 q3 s3 [C] idx2 svc2 \"cc\"",
                "RESPONSE s4 idx2 svc2 \"me\"",
                "D n1 q4 s5 [CL] idx2 svc2 \"dd\"",
            ],
        );
        // One by one the CHALLENGE is there before the RESPONSE, in one burst it is not (the RESPONSE
        // was never asked for): then it is sent again.
        let ack = "A n1 f3 p2 s2 =IDLE a[] idx2";
        match way {
            Way::OneByOne => t.expect(&["CHALLENGE n0 idx2 \"who?\"", ack]),
            Way::Burst => t.expect(&["A n1 f4 p3 s3 =IDLE a[] idx2", "CHALLENGE n0 idx2"]),
        };
        if way == Way::Burst {
            t.expect_dropped(DropReason::UnwantedChallenge, 1);
            t.send("RESPONSE s6 idx2 svc2 \"me\"").expect(&[]);
        }
        t.expect_calls(&[]).after(ms(100), &["A n1 f5 p4 s0 =DELAY a[] idx2"]);
        t.t.finish_verifications(t.now());
        t.pump();
        t.expect(&["D n1 q1 [L] idx2 \"aabbccdd\""]).expect_bytes(1, b"aabbccdd");
        let record = class.take_record();
        let opened: Vec<_> = record.iter().filter(|line| line.starts_with("open")).collect();
        assert_eq!(opened, ["open n1 q1", "open n1 q2", "open n1 q3", "open n1 q4"]);
        assert_eq!(GOOD_RESPONSE, b"me");
    }
}

#[test]
fn rc_26_nothing_is_delivered_after_a_connection_abort() {
    for way in WAYS {
        let mut t = server("RC-26");
        t.app(App::Manual);
        t.deliver(way, &["D n1 q1 [C] len4", "ABORT n0 5", "D n1 q2 [CL] len4"]);
        let failure = CallFailure::PeerAbortedConnection(AbortCode(5));
        t.expect_failure(1, Some(failure));
        match way {
            Way::OneByOne => t.expect(&["ABORT n0 5"]),
            // The two go to different mailboxes: DATA of the same burst may come first (rx-race.md 5).
            Way::Burst => t.expect(&[]),
        };
        let bytes = t.call(1).bytes;
        t.send("D n1 q2 [CL] len4").expect(&["ABORT n0 5"]);
        assert_eq!(t.call(1).bytes, bytes);
        // Throttled: ten at once, then one in three seconds.
        for _ in 0..20 {
            t.send("D n2 q1 [CL] len4");
        }
        let count = t.take_left().len();
        assert_eq!(count, if way == Way::OneByOne { 8 } else { 9 });
        t.expect_calls(&[1]);
        t.done_elsewhere();
    }
}

impl Scenario {
    /// Only the call of this round is new; then it is forgotten, so that many rounds stay cheap.
    #[track_caller]
    fn expect_calls_of_round(&mut self, number: u32) -> &mut Self {
        let fresh = self.calls.iter().filter(|call| call.number == number).count();
        if fresh != 1 {
            self.fail(&format!("call {number} came {fresh} times"));
        }
        if number.is_multiple_of(64) {
            let current = self.call(number);
            self.forget();
            self.calls.push(current);
        }
        self
    }
}
