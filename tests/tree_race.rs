//! The tests of rx-race.md 7 through the real tree of actors: packets one by one, in one burst, and in one
//! burst with every message to a channel followed by a rest of 50 ms.
//!
//! The same ids on the bare core, packet by packet and at exact times: `tests/scenarios/race.rs`.

#[allow(dead_code, unused_imports)]
mod tree_support;

use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt;
use rxrpc::ServiceOptions;
use rxrpc::actors::messages::{Break, BreakAt};
use rxrpc::proto::{CallState, DropReason};
use rxrpc::security::{ConnectionIds, Entropy, ServerClass, ServerHandshake, Verification};
use rxrpc::wire::{ChannelIndex, SecurityIndex};

use tree_support::fake_class::FakeClass;
use tree_support::notation::{parse, show};
use tree_support::{App, Tree, WAYS, Way, client, ms, secs, server, server_with};

/// Rounds of the tests that repeat.
const ROUNDS: u32 = 10_000;

/// A server whose call 1 has replied and awaits the ACK.
async fn awaiting(id: &'static str, way: Way) -> Tree {
    let mut t = server(id, way).await;
    t.send("D n1 q1 [CL] \"1\"").await.expect(&["D n1 q1 [L] \"1\""]);
    t.expect_state(Some(CallState::ServerAwaitAck)).await;
    t
}

/// A server whose call 2 is being worked on, call 1 having been acknowledged by it.
async fn working_on_call_2(id: &'static str, way: Way) -> Tree {
    let mut t = awaiting(id, way).await;
    t.app(App::Manual).send("D n2 q1 [CL] \"2\"").await.expect(&[]);
    t.expect_state(Some(CallState::ServerWork)).await;
    // Its own delayed ACK is not what this is about.
    t.pass(ms(150)).await.take_left();
    t
}

#[actix_rt::test]
async fn rc_01_the_final_ack_and_then_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-01", way).await;
        t.deliver(&["A n1 f2", "D n2 q1 [CL] \"2\""]).await.expect(&["D n2 q1 [L] \"2\""]);
        t.expect_calls(&[1, 2]).expect_log(&["n1 acknowledged: true"]);
        t.expect_smooth().await.done().await;
    }
}

#[actix_rt::test]
async fn rc_02_never_a_busy_nor_an_abort_in_ten_thousand_rounds() {
    for way in WAYS {
        let mut t = server("RC-02", way).await;
        t.send("D n1 q1 [CL]").await.expect(&["D n1 q1 [L]"]);
        for number in 2..=ROUNDS {
            let ack = format!("A n{} f2", number - 1);
            t.deliver(&[&ack, &format!("D n{number} q1 [CL]")]).await;
            t.expect(&[&format!("D n{number} q1 [L]")]);
        }
        t.expect_calls(&Vec::from_iter(1..=ROUNDS)).expect_smooth().await.done().await;
    }
}

#[actix_rt::test]
async fn rc_03_the_final_ack_is_overtaken_by_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-03", way).await;
        // The DATA is as long as the ACK, so that the burst is one batch.
        t.deliver(&["D n2 q1 [CL] len37", "A n1 f2"]).await.expect(&["D n2 q1 [L] len37"]);
        t.expect_log(&["n1 acknowledged: true"]);
        t.expect_dropped(DropReason::StaleCall, 1).await;
        t.send("A n2 f2").await.none().await.done().await;
    }
}

#[actix_rt::test]
async fn rc_04_the_next_call_alone_ends_the_last() {
    for way in WAYS {
        let mut t = awaiting("RC-04", way).await;
        t.deliver(&["D n2 q1 [CL] \"2\""]).await.expect(&["D n2 q1 [L] \"2\""]);
        t.expect_log(&["n1 acknowledged: true"]);
        t.send("A n2 f2").await.silent(secs(30)).await.expect_smooth().await.done().await;
    }
}

#[actix_rt::test]
async fn rc_05_what_is_unacknowledged_of_the_last_reply_is_not_sent_again() {
    for way in WAYS {
        let mut t = server_with("RC-05", way, |config| {
            config.server.call.congestion_window_initial_packets = 16;
        })
        .await;
        t.app(App::Reply(10)).send("D n1 q1 [CL]").await;
        assert_eq!(t.take_left().iter().filter(|left| show(left).starts_with('D')).count(), 10);
        t.app(App::Echo).deliver(&["A n1 f5 p4", "D n2 q1 [CL] \"2\""]).await;
        t.expect(&["D n2 q1 [L] \"2\""]).expect_log(&["n1 acknowledged: true"]);
        t.send("A n2 f2").await.silent(secs(30)).await.expect_smooth().await.done().await;
    }
}

#[actix_rt::test]
async fn rc_06_a_soft_final_ack_is_enough() {
    for way in WAYS {
        let mut t = awaiting("RC-06", way).await;
        t.deliver(&["A n1 f1 p1 a[1]"]).await.expect(&[]).expect_state(None).await;
        t.expect_log(&["n1 acknowledged: true"]);
        t.deliver(&["D n2 q1 [CL] \"2\""]).await.expect(&["D n2 q1 [L] \"2\""]).done().await;

        let mut t = awaiting("RC-06", way).await;
        t.deliver(&["A n1 f1 p1 a[1]", "D n2 q1 [CL] \"2\""]).await;
        t.expect(&["D n2 q1 [L] \"2\""]).done().await;
    }
}

#[actix_rt::test]
async fn rc_07_ackall_and_then_the_next_call() {
    for way in WAYS {
        let mut t = awaiting("RC-07", way).await;
        t.deliver(&["ACKALL n1", "D n2 q1 [CL]"]).await.expect(&["D n2 q1 [L] \"\""]);
        t.expect_calls(&[1, 2]).expect_log(&["n1 acknowledged: true"]).done().await;
    }
}

/// P's next call is in T's socket when the send call for the reply's last packet returns.
#[actix_rt::test]
async fn rc_08_the_next_call_comes_while_the_last_packet_is_being_sent() {
    for way in WAYS {
        let t = looping::start(way, ROUNDS).await;
        while t.calls().len() < ROUNDS as usize {
            tokio::time::sleep(secs(1)).await;
        }
        let counters = t.endpoint.inspect().await.unwrap().counters;
        assert_eq!((counters.busy_sent, counters.aborts_sent, counters.resent), (0, 0, 0));
        assert_eq!(t.calls(), Vec::from_iter(1..=ROUNDS));
        t.endpoint.shutdown(secs(1)).await;
        t.endpoint.closed().await;
    }
}

#[actix_rt::test]
async fn rc_09_a_newer_call_takes_the_channel_from_one_that_is_worked_on() {
    for way in WAYS {
        let mut t = server("RC-09", way).await;
        t.app(App::Manual).deliver(&["D n1 q1 [CL] \"1\"", "D n2 q1 [CL] \"2\""]).await.expect(&[]);
        t.expect_calls(&[1, 2]);
        // Its application learns of it when it does something next.
        t.write(1, b"late").await;
        t.expect(&[]).expect_log(&["n1 failed: a newer call took the channel"]);
        t.write(2, b"two").await.expect(&["D n2 q1 [L] \"two\""]).done().await;
    }
}

#[actix_rt::test]
async fn rc_10_without_takeover_the_newer_call_is_told_busy() {
    for way in WAYS {
        let mut t = server_with("RC-10", way, |config| config.server.call.takeover = false).await;
        t.app(App::Manual).deliver(&["D n1 q1 [CL] \"1\""]).await.expect(&[]);
        t.deliver(&["D n2 q1 [CL] \"2\""]).await;
        let busy = t.take_left();
        let busy = busy.iter().find(|left| show(left).starts_with("BUSY")).expect("a BUSY");
        assert_eq!(parse("BUSY n2 q0 [] idx0 \"\"").differences(busy), Vec::<String>::new());
        t.expect_calls(&[1]).send("D n2 q1 [CL] \"2\"").await.expect(&["BUSY n2"]);
        t.write(1, b"late").await.expect(&[]).expect_state(None).await;
        t.expect_log(&["n1 failed: a newer call took the channel"]);
        t.app(App::Echo).deliver(&["D n2 q1 s9 [CLR] \"2\""]).await;
        t.expect(&["A n2 f2 p1 s9 =REQUESTED a[]", "D n2 q1 [L] \"2\""]).expect_calls(&[1, 2]);
        t.send("A n2 f2").await.done().await;
    }
}

#[actix_rt::test]
async fn rc_11_the_next_call_comes_twice() {
    for way in WAYS {
        let mut t = awaiting("RC-11", way).await;
        t.deliver(&["D n2 q1 s8 [CL] \"2\"", "D n2 q1 s9 [CL] \"2\""]).await;
        let (ack, reply) = ("A n2 f2 p1 s9 =DUPLICATE a[]", "D n2 q1 [L] \"2\"");
        match way {
            Way::OneByOne => t.expect(&[reply, ack]),
            Way::Burst | Way::Slow => t.expect(&[ack, reply]),
        };
        t.expect_calls(&[1, 2]).expect_bytes(2, b"2").done().await;
    }
}

#[actix_rt::test]
async fn rc_12_a_late_copy_of_the_last_request_is_dropped() {
    for way in WAYS {
        let mut t = working_on_call_2("RC-12", way).await;
        t.send("D n1 q1 [CL] \"1\"").await.none().await;
        t.expect_dropped(DropReason::StaleCall, 1).await.expect_calls(&[1, 2]).done().await;

        let mut t = awaiting("RC-12", way).await;
        t.deliver(&["D n2 q1 [CL] \"2\"", "D n1 q1 [CL] \"1\""]).await;
        t.expect(&["D n2 q1 [L] \"2\""]).expect_calls(&[1, 2]);
        t.expect_dropped(DropReason::StaleCall, 1).await.done().await;
    }
}

#[actix_rt::test]
async fn rc_13_a_late_ping_of_the_last_call_is_dropped() {
    for way in WAYS {
        let mut t = working_on_call_2("RC-13", way).await;
        t.send("A n1 f2 =PING [CR]").await.none().await;
        t.expect_dropped(DropReason::StaleCall, 1).await.done().await;

        let mut t = awaiting("RC-13", way).await;
        t.deliver(&["D n2 q1 [CL] len37", "A n1 f2 =PING [CR]"]).await;
        t.expect(&["D n2 q1 [L] len37"]).expect_dropped(DropReason::StaleCall, 1).await;
        t.done().await;
    }
}

#[actix_rt::test]
async fn rc_14_a_late_abort_of_the_last_call_hurts_nobody() {
    for way in WAYS {
        let mut t = working_on_call_2("RC-14", way).await;
        t.send("ABORT n1 -6").await.none().await.expect_dropped(DropReason::StaleCall, 1).await;
        t.write(2, b"two").await.expect(&["D n2 q1 [L] \"two\""]).done().await;

        let mut t = awaiting("RC-14", way).await;
        t.deliver(&["D n2 q1 [CL] len4", "ABORT n1 -6"]).await.expect(&["D n2 q1 [L] len4"]);
        t.expect_log(&["n1 acknowledged: true"]);
        t.expect_dropped(DropReason::StaleCall, 1).await.done().await;
    }
}

#[actix_rt::test]
async fn rc_15_only_data_of_the_next_call_ends_the_last() {
    for way in WAYS {
        let mut t = awaiting("RC-15", way).await;
        t.deliver(&["A n2 f1 p0 =PING [CR]"]).await.expect(&[]);
        t.expect_dropped(DropReason::FutureCall, 1).await;
        t.expect_state(Some(CallState::ServerAwaitAck)).await;
        t.send("A n1 f2").await.done().await;
    }
}

#[actix_rt::test]
async fn rc_16_numbers_may_be_skipped_but_not_go_back() {
    for way in WAYS {
        let mut t = awaiting("RC-16", way).await;
        t.deliver(&["D n5 q1 [CL] \"5\"", "D n3 q1 [CL] \"3\""]).await;
        t.expect(&["D n5 q1 [L] \"5\""]).expect_calls(&[1, 5]);
        t.send("A n5 f2").await.none().await;
        t.expect_log(&["n1 acknowledged: true"]);
        t.expect_dropped(DropReason::StaleCall, 1).await.done().await;
    }
}

/// The timer and the packet are both there when T looks: the packet is first in the channel's mailbox.
#[actix_rt::test]
async fn rc_17_the_retransmission_timer_is_due_with_the_next_call() {
    for way in [Way::OneByOne, Way::Burst] {
        let mut t = awaiting("RC-17", way).await;
        t.silent(ms(998)).await;
        t.burst(&["D n2 q1 [CL] \"2\""]);
        tokio::time::advance(ms(4)).await;
        t.settle().await;
        t.expect(&["D n2 q1 [L] \"2\""]);
        t.silent(ms(900)).await.send("A n2 f2").await.silent(secs(30)).await;
        t.expect_smooth().await.done().await;

        // The other way round the packet leaves, and never again after the DATA.
        let mut t = awaiting("RC-17", way).await;
        t.after(secs(1), &["D n1 q1 [L] \"1\""]).await;
        t.deliver(&["D n2 q1 [CL] \"2\""]).await.expect(&["D n2 q1 [L] \"2\""]);
        t.send("A n2 f2").await.silent(secs(30)).await.done().await;
    }
}

/// A channel that is slow finds the expired timer behind the packet in its mailbox.
#[actix_rt::test]
async fn rc_17_a_slow_channel_finds_its_timer_behind_the_next_call() {
    let mut t = awaiting("RC-17", Way::Slow).await;
    // So many messages that the channel still rests when its timer is due; then DATA.
    for _ in 0..40 {
        t.burst(&["A n1 f1 p0"]);
        // Each received by itself: together they would be one message.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    t.burst(&["D n2 q1 [CL] \"2\""]);
    t.pass(ms(2000)).await.expect(&["D n2 q1 [L] \"2\""]);
    t.expect_calls(&[1, 2]).send("A n2 f2").await.silent(secs(30)).await.done().await;
}

#[actix_rt::test]
async fn rc_18_the_delayed_ack_of_a_request_does_not_outlive_it() {
    for way in WAYS {
        let mut t = server("RC-18", way).await;
        t.app(App::Manual).send("D n1 q1 [CL] \"1\"").await.expect(&[]);
        t.write(1, b"one").await.expect(&["D n1 q1 [L] \"one\""]);
        t.deliver(&["D n2 q1 [CL] \"2\""]).await;
        if way != Way::Slow {
            t.after(ms(100), &["A n2 f2 p1 s0 =DELAY a[]"]).await;
        }
        t.silent(ms(500)).await;
        t.write(2, b"two").await.expect(&["D n2 q1 [L] \"two\""]).done().await;
    }
}

/// A client whose call 1 gets a reply of two packets, and ends.
async fn replied(id: &'static str, way: Way) -> Tree {
    let mut t = client(id, way).await;
    let call = call(&t, "one");
    t.settle().await;
    t.expect(&["D n1 q1 [CL] \"one\""]);
    t.deliver(&["D n1 q1 s1 \"a\"", "D n1 q2 s2 [L] \"b\""]).await;
    assert_eq!(call.await.unwrap(), "ab");
    t
}

/// T's application makes a call.
fn call(t: &Tree, request: &'static str) -> tokio::task::JoinHandle<String> {
    let connection = t.connection.clone().unwrap();
    actix_rt::spawn(async move {
        match connection.call(request).await {
            Ok(reply) => String::from_utf8(reply.to_vec()).unwrap(),
            Err(error) => error.to_string(),
        }
    })
}

#[actix_rt::test]
async fn rc_19_the_next_call_of_a_client_takes_the_place_of_its_final_ack() {
    // A slow channel is too late for it: the 10 ms are over when it hears of the next call.
    for way in [Way::OneByOne, Way::Burst] {
        let mut t = replied("RC-19", way).await;
        t.silent(ms(6)).await;
        let _call = call(&t, "two");
        t.settle().await;
        t.expect(&["D n2 q1 [CL] \"two\""]).none().await;
    }
}

#[actix_rt::test]
async fn rc_20_a_client_that_makes_no_other_call_sends_one_final_ack() {
    for way in WAYS {
        let mut t = replied("RC-20", way).await;
        if way != Way::Slow {
            t.after(ms(10), &["A n1 f3 p2 s0 [C] =IDLE a[]"]).await;
        }
        // The slow one has sent it already.
        else {
            t.expect(&["A n1 f3 p2 s0 [C] =IDLE a[]"]);
        }
        t.silent(secs(30)).await;
    }
}

#[actix_rt::test]
async fn rc_21_a_late_copy_of_the_reply_draws_the_final_ack_again() {
    for way in WAYS {
        let mut t = replied("RC-21", way).await;
        t.pass(ms(20)).await.expect(&["A n1 f3 p2 s0 [C] =IDLE a[]"]);
        t.deliver(&["D n1 q2 s7 [L] \"b\""]).await;
        t.expect(&["A n1 f3 p2 s7 [C] =DUPLICATE a[]"]).none().await;
        let _call = call(&t, "two");
        t.settle().await;
        t.expect(&["D n2 q1 [CL] \"two\""]);
        t.deliver(&["D n1 q2 s8 [L] \"b\""]).await.expect(&[]);
        t.expect_dropped(DropReason::StaleCall, 1).await.expect(&[]);
    }
}

#[actix_rt::test]
async fn rc_22_four_channels_at_once_are_each_as_if_alone() {
    const NUMBERS: u32 = 500;
    for way in WAYS {
        let mut t = server("RC-22", way).await;
        t.deliver(&[
            "D n1 q1 [CL] len37",
            "D n1 q1 [CL] ch1 len37",
            "D n1 q1 [CL] ch2 len37",
            "D n1 q1 [CL] ch3 len37",
        ])
        .await;
        t.expect(&["D n1", "D n1 ch1", "D n1 ch2", "D n1 ch3"]);
        for number in 2..=NUMBERS {
            let mut lines = Vec::new();
            for channel in 0..4 {
                lines.push(format!("A n{} f2 ch{channel}", number - 1));
            }
            for channel in [2, 0, 3, 1] {
                lines.push(format!("D n{number} q1 [CL] ch{channel} len37"));
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            t.deliver(&lines).await;
            // Between channels no order is promised.
            let mut left: Vec<String> = t.take_left().iter().map(|left| show(left)).collect();
            left.retain(|line| !(way == Way::Slow && line.contains("=DELAY")));
            left.sort_by_key(|line| line.find("ch").map(|at| line[at..at + 3].to_owned()));
            assert_eq!(left.len(), 4, "{left:?}");
            for (channel, line) in left.iter().enumerate() {
                assert!(line.starts_with(&format!("D n{number} q1 ")), "{left:?}");
                assert!(channel == 0 || line.contains(&format!("ch{channel}")), "{left:?}");
            }
        }
        t.expect_smooth().await;
        let counters = t.snapshot().await.counters;
        assert_eq!(counters.server_calls, u64::from(4 * NUMBERS));
        t.done().await;
    }
}

#[actix_rt::test]
async fn rc_23_a_channel_that_broke_does_not_run_its_call_again() {
    for way in WAYS {
        let mut t = server("RC-23", way).await;
        t.app(App::Manual).send("D n3 q1 [CL] \"3\"").await.expect(&[]);
        let at = Some(BreakAt::Channel(0, ChannelIndex::ALL[0]));
        t.t.actor().do_send(Break { at });
        t.settle().await;
        t.app(App::Echo);
        t.deliver(&["D n3 q1 [CL] \"3\"", "D n2 q1 [CL] \"2\"", "D n4 q1 [CL] \"4\""]).await;
        t.expect(&["ABORT n3 -1", "D n4 q1 [L] \"4\""]).expect_calls(&[3, 4]);
        t.expect_dropped(DropReason::StaleCall, 1).await.done().await;
    }
}

/// The Connection breaks, and with it the memory of all its calls.
#[actix_rt::test]
async fn rc_23_a_connection_that_broke_does_not_run_its_calls_again() {
    for way in WAYS {
        let mut t = server("RC-23", way).await;
        t.app(App::Manual).send("D n3 q1 [CL] \"3\"").await.expect(&[]);
        t.t.actor().do_send(Break { at: Some(BreakAt::Connection(0)) });
        t.settle().await;
        t.app(App::Echo).expect(&["ABORT n3 -1"]);
        t.deliver(&["D n3 q1 [CL] \"3\""]).await.expect(&["ABORT n0 -1 h0"]);
        t.deliver(&["D n4 q1 [CL] \"4\""]).await.expect(&["ABORT n0 -1 h0"]);
        t.deliver(&["A n3 f1 =PING [CR]"]).await.expect(&[]).expect_calls(&[3]);
        // Another connection, which is what the client makes of that.
        t.send("D n1 q1 [CL] cid00123450 \"new\"").await;
        t.expect(&["D n1 q1 [L] cid00123450 \"new\""]);
        // Not for ever: nobody sends copies after so long a time.
        t.pass(secs(21)).await.take_left();
        t.done().await;
    }
}

#[actix_rt::test]
async fn rc_24_a_flood_of_copies_loses_no_word_of_the_application() {
    for way in WAYS {
        // The reply was written before the flood.
        let mut t = awaiting("RC-24", way).await;
        let copies = vec!["D n2 q1 [CL] \"2\""; 1000];
        t.app(App::Manual).deliver(&copies).await;
        t.pass(ms(110)).await;
        let mut acks = t.take_left();
        acks.retain(|ack| !show(ack).contains("=DELAY"));
        assert_eq!(acks.len(), if way == Way::OneByOne { 999 } else { 1 });
        assert!(acks.iter().all(|ack| parse("A n2 f2 =DUPLICATE").differences(ack).is_empty()));
        t.expect_calls(&[1, 2]).expect_log(&["n1 acknowledged: true"]);
        assert!(t.snapshot().await.connections[0].channels[0].buffered_bytes <= 1);
        t.write(2, b"two").await.expect(&["D n2 q1 [L] \"two\""]).done().await;

        // It is written after it: the call is over, and its reply belongs to nobody.
        let mut t = server("RC-24", way).await;
        t.app(App::Manual).send("D n1 q1 [CL] \"1\"").await.deliver(&copies).await.take_left();
        t.write(1, b"one").await.pass(ms(110)).await.take_left();
        t.expect_log(&["n1 failed: a newer call took the channel"]);
        t.expect_calls(&[1, 2]);
        t.write(2, b"two").await.expect(&["D n2 q1 [L] \"two\""]).done().await;

        // It is written into it: the mailbox holds thousands of messages, and this word between them.
        let mut t = server("RC-24", way).await;
        t.app(App::Manual).send("D n1 q1 [CL] \"1\"").await.take_left();
        for _ in 0..1000 {
            t.burst(&["D n1 q1 [CL] \"1\""]);
        }
        let reply = t.write(1, b"one").await.pass(secs(60)).await.take_left();
        assert!(reply.iter().any(|left| parse("D n1 q1 [L] \"one\"").differences(left).is_empty()));
        t.expect_calls(&[1]).send("A n1 f2").await.take_left();
        t.done().await;
    }
}

/// A class whose verification takes 100 ms.
#[derive(Debug)]
struct SlowClass(FakeClass);

#[derive(Debug)]
struct SlowHandshake(Box<dyn ServerHandshake>);

impl ServerClass for SlowClass {
    fn index(&self) -> SecurityIndex {
        ServerClass::index(&self.0)
    }

    fn accept(&self, ids: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
        Some(Box::new(SlowHandshake(self.0.accept(ids)?)))
    }
}

impl ServerHandshake for SlowHandshake {
    fn challenge(&mut self, entropy: &Entropy) -> Vec<u8> {
        self.0.challenge(entropy)
    }

    fn verify(&mut self, response: &[u8], now: SystemTime) -> Verification {
        match self.0.verify(response, now) {
            Verification::Done(result) => Verification::Later(Box::pin(async {
                tokio::time::sleep(ms(100)).await;
                result
            })),
            later => later,
        }
    }
}

#[actix_rt::test]
async fn rc_25_what_comes_while_a_response_is_verified_is_delivered_in_order() {
    for way in [Way::OneByOne, Way::Burst] {
        let class = FakeClass::default();
        let mut t = server("RC-25", way).await;
        let service = t.service.clone();
        t.t.offer_with(
            2,
            move |call| {
                let serve = service.clone().serve(call);
                async {
                    serve.await;
                    Ok::<_, rxrpc::AbortCode>(())
                }
            },
            ServiceOptions {
                security_classes: vec![Arc::new(SlowClass(class.clone()))],
                ..ServiceOptions::small_replies()
            },
        );
        t.deliver(&[
            "D n1 q1 s1 [C] idx2 svc2 \"aa\"",
            "D n1 q2 s2 [C] idx2 svc2 \"bb\"",
            "D n1 q3 s3 [C] idx2 svc2 \"cc\"",
        ])
        .await;
        let left = t.take_left();
        assert!(left.iter().any(|left| show(left).starts_with("CHALLENGE n0")));
        t.deliver(&["RESPONSE s4 idx2 svc2 \"me\"", "D n1 q4 s5 [CL] idx2 svc2 \"dd\""]).await;
        t.pass(ms(90)).await.expect(&[]).expect_calls(&[]);
        t.pass(ms(20)).await;
        // The delayed ACK is due at the same time.
        let mut left = t.take_left();
        left.retain(|left| !show(left).contains("=DELAY"));
        let reply = parse("D n1 q1 [L] idx2 \"aabbccdd\"");
        assert!(left.len() == 1 && reply.differences(&left[0]).is_empty(), "{left:?}");
        t.expect_bytes(1, b"aabbccdd");
        let record = class.take_record();
        let opened: Vec<_> = record.iter().filter(|line| line.starts_with("open")).collect();
        assert_eq!(opened, ["open n1 q1", "open n1 q2", "open n1 q3", "open n1 q4"]);
    }
}

/// What the RESPONSE says of a channel is on its way to it when the channel breaks: the one in its place must
/// hear it too, or a call that is over, recorded and played again, would run a second time.
#[actix_rt::test]
async fn a_channel_that_broke_before_it_heard_the_response_runs_no_call_that_is_over() {
    for way in [Way::OneByOne, Way::Burst] {
        let call_numbers = [1, 8, 0, 0].map(rxrpc::wire::CallNumber);
        let class = FakeClass { call_numbers, ..FakeClass::default() };
        let mut t = server("replayed call", way).await;
        let service = t.service.clone();
        t.t.offer_with(
            2,
            move |call| service.clone().serve(call).map(Ok::<_, rxrpc::AbortCode>),
            ServiceOptions {
                security_classes: vec![Arc::new(class.clone())],
                ..ServiceOptions::small_replies()
            },
        );
        t.deliver(&["D n1 q1 s1 [C] idx2 svc2 \"a\""]).await.take_left();
        t.t.actor().do_send(Break { at: Some(BreakAt::Channel(0, ChannelIndex::ALL[1])) });
        t.burst(&["RESPONSE s2 idx2 svc2 \"me\""]);
        t.settle().await;
        t.expect_calls(&[1]);
        t.deliver(&["D n7 q1 s3 [CL] idx2 svc2 ch1 \"again\""]).await;
        t.expect_calls(&[1]);
        t.deliver(&["D n8 q1 s4 [CL] idx2 svc2 ch1 \"8\""]).await;
        t.expect_calls(&[1, 8]);
        assert!(!class.take_record().iter().any(|what| what.contains("n7")));
    }
}

#[actix_rt::test]
async fn rc_26_nothing_is_delivered_after_a_connection_abort() {
    for way in WAYS {
        let mut t = server("RC-26", way).await;
        t.app(App::Manual).deliver(&["D n1 q1 [C] len4", "ABORT n0 5", "D n1 q2 [CL] len4"]).await;
        // In a burst the second DATA may be first (rx-race.md 5): then the request was complete.
        let before = t.take_left();
        assert!(before.iter().all(|left| show(left).starts_with("ABORT n0")), "{before:?}");
        let bytes = t.service.get().bytes[&1].clone();
        t.send("D n1 q2 [CL] len4").await.expect(&["ABORT n0 5"]);
        t.expect_bytes(1, &bytes).expect_calls(&[1]);
        // Throttled: ten at once, then one in three seconds.
        for _ in 0..20 {
            t.burst(&["D n2 q1 [CL] len4"]);
        }
        t.settle().await;
        t.pass(secs(2)).await;
        let count = t.take_left().len();
        assert!((8..=10).contains(&count), "{count}");
        if way != Way::OneByOne {
            t.write(1, b"late").await.expect(&[]);
        }
        t.expect_log(&["n1 failed: the peer aborted the connection with code 5"]);
        t.expect_calls(&[1]);
    }
}

/// Whatever ended a call, and however its request comes again while that is remembered: through the tree, too, it runs
/// nothing. (An aborted connection is remembered for `aborted_linger`, 10 s, no longer.) Packet by packet:
/// `tests/scenarios/busy_abort.rs`.
#[actix_rt::test]
async fn a_request_that_comes_again_after_an_abort_runs_nothing() {
    const REQUEST: [&str; 2] = ["D n1 q1 [C] len4", "D n1 q2 [CL] len4"];
    for way in WAYS {
        for (abort, code) in [("ABORT n1 -6", 0), ("", 77), ("ABORT n0 5", 0)] {
            let mut t = server("replay after an abort", way).await;
            t.app(App::Manual).deliver(&REQUEST).await.take_left();
            match abort {
                "" => t.abort(1, code).await,
                abort => t.deliver(&[abort]).await,
            };
            t.pass(ms(500)).await.take_left();
            t.expect_calls(&[1]);
            let bytes = t.service.get().bytes[&1].clone();
            for after in [ms(0), secs(2), secs(2)] {
                t.pass(after).await.deliver(&REQUEST).await;
                t.deliver(&[REQUEST[1], REQUEST[0]]).await.take_left();
                t.expect_calls(&[1]).expect_bytes(1, &bytes);
            }
            t.app(App::Echo).deliver(&["D n2 q1 [CL] \"2\"", "D n2 q1 [CL] \"2\""]).await;
            t.pass(ms(500)).await.take_left();
            t.expect_calls(if abort == "ABORT n0 5" { &[1] } else { &[1, 2] });
            let counters = t.snapshot().await.counters;
            assert_eq!(counters.server_calls, if abort == "ABORT n0 5" { 1 } else { 2 });
        }
    }
}

/// A network whose other end is a client that answers within the send call.
mod looping {
    use std::collections::VecDeque;
    use std::io;
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Waker};

    use rxrpc::net::{Incoming, Network, Transmit, network_source};
    use rxrpc::testkit::tree;
    use rxrpc::wire::{Flags, Header, PacketType};
    use rxrpc::{AbortCode, Endpoint, ServiceOptions};

    use super::Way;
    use super::tree_support::notation::{Defaults, parse};
    use super::tree_support::{REST, identity, pause_clock, peer_addr, settings, tree_addr};

    pub struct Looping {
        pub endpoint: Endpoint,
        calls: Arc<Mutex<Vec<u32>>>,
    }

    impl Looping {
        pub fn calls(&self) -> Vec<u32> {
            self.calls.lock().unwrap().clone()
        }
    }

    impl Drop for Looping {
        fn drop(&mut self) {
            tree::slow_down_channels(None);
        }
    }

    pub async fn start(way: Way, rounds: u32) -> Looping {
        pause_clock();
        tree::slow_down_channels((way == Way::Slow).then_some(REST));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = calls.clone();
        let mut network = Loop { way, rounds, inbox: VecDeque::new(), waker: None, serial: 0 };
        network.call(1);
        let endpoint = Endpoint::builder()
            .network(network_source(move || Ok(network)))
            .config(settings())
            .identity(identity())
            .service_with(
                1,
                move |call: rxrpc::IncomingCall| {
                    seen.lock().unwrap().push(call.info().call_number.0);
                    call.reply("");
                    async { Ok::<_, AbortCode>(()) }
                },
                ServiceOptions::small_replies(),
            )
            .start()
            .await
            .unwrap();
        Looping { endpoint, calls }
    }

    struct Loop {
        way: Way,
        rounds: u32,
        inbox: VecDeque<Incoming>,
        waker: Option<Waker>,
        serial: u32,
    }

    impl Loop {
        fn call(&mut self, number: u32) {
            // In a burst its copy comes along.
            let copies = if self.way == Way::OneByOne { 1 } else { 2 };
            let mut data = Vec::new();
            for _ in 0..copies {
                self.serial += 1;
                let defaults = Defaults {
                    epoch: identity().epoch.0,
                    cid: identity().first_cid.0,
                    serial: self.serial,
                    flags: Flags::CLIENT_INITIATED.0,
                };
                data.extend(parse(&format!("D n{number} q1 [CL]")).encode(&defaults));
            }
            let stride = data.len() / copies;
            self.inbox.push_back(Incoming::Datagrams {
                from: peer_addr(),
                data: data.into(),
                stride,
            });
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    impl Network for Loop {
        fn local_addr(&self) -> SocketAddr {
            tree_addr()
        }

        fn max_segments(&self) -> usize {
            64
        }

        fn poll_receive(
            &mut self,
            task: &mut Context<'_>,
            into: &mut Vec<Incoming>,
        ) -> Poll<io::Result<()>> {
            match self.inbox.pop_front() {
                Some(incoming) => {
                    into.push(incoming);
                    Poll::Ready(Ok(()))
                }
                None => {
                    self.waker = Some(task.waker().clone());
                    Poll::Pending
                }
            }
        }

        fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
            for datagram in transmit.datagrams() {
                let header = Header::decode(datagram).unwrap();
                let is_last = header.flags.has(Flags::LAST_PACKET);
                let number = header.call_number.0;
                if header.packet_type == PacketType::Data && is_last && number < self.rounds {
                    self.call(number + 1);
                }
            }
            Ok(())
        }

        fn poll_send_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
