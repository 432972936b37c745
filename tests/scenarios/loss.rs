//! Section I: loss, reordering, duplication.

use rxrpc::proto::CallFailure;
use rxrpc::wire::DATA_PAYLOAD_MAX;

use crate::support::relay::{Relay, Weather};
use crate::support::{App, client, client_with, ms, secs, server, server_with};

#[test]
fn s_122_a_request_that_comes_backwards_is_put_in_order() {
    let mut t = server("S-122");
    t.send("D n1 q10 s1 [CL] \"j\"");
    t.expect(&["A n1 f1 p10 s1 =OUT_OF_SEQUENCE a[0x9,1]"]);
    for seq in (2..=9).rev() {
        let text = char::from(b'a' + seq - 1);
        t.send(&format!("D n1 q{seq} s{} [C] \"{text}\"", 11 - seq));
        let (missing, held) = (seq - 1, 11 - seq);
        t.expect(&[&format!("A n1 f1 p10 s{} =OUT_OF_SEQUENCE a[0x{missing},1x{held}]", 11 - seq)]);
    }
    t.send("D n1 q1 s10 [C] \"a\"");
    t.expect(&["A n1 f11 p10 s10 =IDLE a[]", "D n1 q1 [L] \"abcdefghij\""]);
    t.done();
}

#[test]
fn s_123_the_last_packet_of_a_reply_goes_again_without_asking() {
    let mut t = server("S-123");
    t.app(App::Reply(3));
    t.send("D n1 q1 [CL]").expect(&["D n1 q1 h1 [M]", "D n1 q2 h2 [M]", "D n1 q3 h3 [L]"]);
    t.silent(ms(1)).send("A n1 f3").after(secs(1), &["D n1 q3 h4 [L]"]);
    t.after(secs(2), &["D n1 q3 h5 [L]"]).send("A n1 f4").silent(secs(60));
    t.done();
}

#[test]
fn s_124_a_lost_final_ack_is_asked_for_by_the_retransmission() {
    let mut t = server("S-124");
    t.send("D n1 q1 [CL] \"x\"").expect(&["D n1 q1 h1 [L]"]);
    t.after(secs(1), &["D n1 q1 h2 [L] \"x\""]);
    t.send("A n1 f2 p1 s2 =DUPLICATE").none();
    t.expect_state(None).expect_acknowledged(1, Some(true)).silent(secs(60));
    t.done();
}

#[test]
fn s_125_a_reply_that_comes_twice_is_delivered_once() {
    let mut t = client("S-125");
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]);
    t.send("D n1 q1 s1 \"a\"").send("D n1 q2 s2 [L] \"b\"").expect(&[]);
    t.send("D n1 q1 s3 \"a\"").expect(&["A n1 f3 p2 s3 [C] =DUPLICATE a[]"]);
    t.send("D n1 q2 s4 [L] \"b\"").expect(&["A n1 f3 p2 s4 [C] =DUPLICATE a[]"]);
    t.expect_bytes(1, b"ab").end(1).silent(secs(30));
}

/// Runs so many calls, eight at a time, each direction of up to 100 packets.
fn run(weather: Weather, calls: u32) -> Relay {
    let mut world = Relay::new(weather, |_| {});
    let mut next = 0;
    while world.replied < calls {
        while next < calls && next < world.replied + 8 {
            next += 1;
            let sizes = [0, 1].map(|_| {
                let packets = world.random(101) as usize;
                let odd = world.random(DATA_PAYLOAD_MAX as u32) as usize;
                (packets * DATA_PAYLOAD_MAX).saturating_sub(odd)
            });
            world.start(next, sizes[0], sizes[1]);
        }
        world.pass(ms(5));
    }
    assert_eq!(world.executed.len() as u32, calls);
    assert!(world.executed.values().all(|count| *count == 1), "each is executed once");
    let (client, server) = (world.client.counters(), world.server.counters());
    for counters in [client, server] {
        let bad = (counters.busy_sent, counters.aborts_sent, counters.calls_failed);
        assert_eq!(bad, (0, 0, 0));
    }
    assert_eq!(client.calls_good, u64::from(calls));
    world
}

#[test]
fn s_126_a_thousand_calls_come_through_twenty_percent_of_loss() {
    run(Weather { seed: 126, lost: 20, doubled: 0, late: 0 }, 1000);
}

#[test]
fn s_127_calls_on_four_channels_come_through_reordering_and_duplicates() {
    for seed in 1..=5 {
        run(Weather { seed, lost: 0, doubled: 10, late: 30 }, 100);
    }
}

#[test]
fn calls_come_through_all_of_it_at_once() {
    for seed in 1..=5 {
        run(Weather { seed, lost: 10, doubled: 10, late: 30 }, 50);
    }
}

#[test]
fn nothing_is_sent_again_where_nothing_is_lost() {
    let world = run(Weather { seed: 1, lost: 0, doubled: 0, late: 0 }, 200);
    assert_eq!((world.client.counters().resent, world.server.counters().resent), (0, 0));
    assert_eq!(world.client.counters().dropped_total(), 0);
    assert_eq!(world.server.counters().dropped_total(), 0);
}

#[test]
fn s_128_a_first_packet_that_is_lost_goes_again_until_the_call_dies() {
    let mut t = client("S-128");
    t.start(b"x");
    t.expect(&["D n1 q1 h1 [CL]"]);
    for (time, serial) in [(1400, 2), (2800, 3), (5600, 4)] {
        t.after(ms(time), &[&format!("D n1 q1 h{serial} [CLR] \"x\"")]);
    }
    t.silent(ms(10_200) - ms(1)).expect_failure(1, None);
    t.silent(ms(1)).expect_failure(1, Some(CallFailure::Dead(secs(20)))).silent(secs(60));

    let mut t = client_with("S-128", |config| config.client.call.dead_timeout = secs(1000));
    t.start(b"x");
    t.expect(&["D n1 q1 [CL]"]);
    for time in [1400, 2800, 5600, 11_200, 22_400, 44_800, 60_000, 60_000, 60_000] {
        t.after(ms(time), &["D n1 q1 [CLR] \"x\""]);
    }
}

#[test]
fn s_129_a_sender_without_acks_sends_one_packet_at_a_time_and_goes_on_when_they_return() {
    let mut t = server_with("S-129", |config| {
        config.server.call.congestion_window_initial_packets = 4;
    });
    t.app(App::Reply(20));
    t.send("D n1 q1 [CL]");
    t.expect(&["D n1 q1 [M]", "D n1 q2 [M]", "D n1 q3 [M]", "D n1 q4 [R]"]);
    for time in [1, 2, 4] {
        t.after(secs(time), &["D n1 q1 [R]"]);
    }
    // They return. From one packet the window opens again, and soon the reply is complete.
    let mut first = 5;
    t.send("A n1 f5");
    for _ in 0..20 {
        let left = t.take_left();
        if left.is_empty() {
            break;
        }
        first += left.len();
        t.send(&format!("A n1 f{first}"));
    }
    t.expect_state(None).expect_acknowledged(1, Some(true));
    t.done();

    // The same between two endpoints.
    let mut world = Relay::new(Weather { seed: 1, lost: 0, doubled: 0, late: 0 }, |_| {});
    world.start(1, 100 * DATA_PAYLOAD_MAX, 10);
    world.pass(ms(7));
    world.answers_arrive = false;
    world.pass(secs(15));
    world.answers_arrive = true;
    world.finish(secs(10));
    assert_eq!(world.executed.get(&1), Some(&1));
}
