//! Scripted peers: the protocol in a few lines each, against bare cores and against the tree of actors; services
//! and clients as users have them; and what is said when a script fails.

use std::time::Duration;

use rxrpc::testkit::script::{App, Bench, Peer};
use rxrpc::testkit::world::{LinkOptions, Loss, Wiring, seeds, simulate};
use rxrpc::{CallOptions, Endpoint, unary};

/// A client whose congestion window is no limit.
fn client() -> Bench {
    Bench::client().configure(|config| config.client.call.congestion_window_initial_packets = 32)
}

#[test]
fn a_hole_in_an_ack_brings_the_packet_again() {
    client().play(
        r#"
        call len7060                                  // five packets
        expect D n1 q1 len1412
        expect D n1 q2
        expect D n1 q3
        expect D n1 q4
        expect D n1 q5 [CL]
        send   A n1 f2 p5 s5 a[0,1,1,1] =OUT_OF_SEQUENCE
        expect within 400 ms D n1 q2 [CR]
        send   A n1 f6 s6 =REQUESTED
        send   D n1 q1 [L] "done"
        app    good "done"
        expect A n1 f2 =IDLE
        "#,
    );
}

#[test]
fn a_reply_without_an_ack_comes_again_ever_later() {
    Bench::server(App::Echo).play(
        r#"
        send   D n1 q1 [CL] "x"
        expect D n1 q1 [L] "x"
        app    asked "x"
        expect after 1 s D n1 q1 h2 [L] "x"
        expect after 2 s D n1 q1 h3 [L] "x"
        send   A n1 f2 =IDLE
        app    acknowledged
        quiet  30 s
        "#,
    );
}

#[test]
fn the_next_call_acknowledges_the_last_reply() {
    Bench::server(App::Echo).play(
        r#"
        send   D n1 q1 [CL] "1"
        expect D n1 q1 [L] "1"
        app    asked "1"
        send   D n2 q1 [CL] "2"
        app    acknowledged
        expect D n2 q1 [L] "2"
        send   A n1 f2 =IDLE                          // late, and of no use any more
        send   A n2 f2 =IDLE
        quiet  5 s
        "#,
    );
}

#[test]
fn a_request_that_comes_twice_runs_once() {
    Bench::server(App::Script).play(
        r#"
        send   D n1 q1 [CL] "x"
        app    asked "x"
        send   D n1 q1 [CL] "x"
        expect A n1 f2 =DUPLICATE
        reply  "y"
        expect D n1 q1 [L] "y"
        send   D n1 q1 [CL] "x"                       // the ACK of it was lost
        ignore A
        wait   10 ms
        send   A n1 f2 =IDLE
        app    acknowledged
        "#,
    );
}

#[test]
fn one_packet_is_acknowledged_after_a_delay_two_at_once() {
    Bench::server(App::Script).play(
        r#"
        send   D n1 q1 [C] len1412
        expect A n1 f2 w255                           // it is read: the window opens
        send   D n1 q2 [C] len1412
        expect after 100 ms A n1 f3 =DELAY
        send   D n1 q3 [C] len1412
        send   D n1 q4 [C] len1412
        expect A n1 f5 =IDLE
        "#,
    );
}

#[test]
fn a_ping_is_answered_and_proves_that_the_call_lives() {
    Bench::server(App::Script).play(
        r#"
        send   D n1 q1 [CL] "x"
        app    asked "x"
        expect after 100 ms A n1 f2 =DELAY
        wait   15 s
        send   A n1 f1 p0 s0 h77 [CR] =PING
        expect A n1 f2 s77 =PING_RESPONSE
        wait   15 s
        send   A n1 f1 p0 s0 h78 [CR] =PING
        expect A n1 f2 s78 =PING_RESPONSE
        reply  "at last"
        expect D n1 q1 [L] "at last"
        "#,
    );
}

#[test]
fn silence_ends_a_call_and_its_service_is_told() {
    Bench::server(App::Script).play(
        r#"
        send   D n1 q1 [CL] "x"
        app    asked "x"
        ignore A =DELAY
        app    after 19 s within 21 s failed
        quiet  5 s
        send   A n1 f1 p0 s0 [CR] =PING
        expect ABORT n1
        "#,
    );
}

#[test]
fn an_abort_of_the_service_frees_the_channel_for_the_next_call() {
    Bench::server(App::Script).play(
        r#"
        send   D n1 q1 [CL] "x"
        app    asked "x"
        abort  -17
        expect ABORT n1 -17
        send   D n2 q1 [CL] "y"
        app    asked "y"
        reply  "z"
        expect D n2 q1 [L] "z"
        "#,
    );
}

#[test]
fn an_abort_of_the_peer_fails_the_call_and_no_packet_answers_it() {
    Bench::client().play(
        r#"
        call   "x"
        expect D n1 q1 [CL] "x"
        send   ABORT n1 4711
        app    failed
        quiet  5 s
        call   "y"
        expect D n2 q1 [CL] "y"
        "#,
    );
}

#[test]
fn a_closed_window_lets_one_packet_out_until_it_opens() {
    client().configure(|config| config.client.call.send_window_initial_packets = 2).play(
        r#"
        call   len5648                                // four packets, the window takes two
        expect D n1 q1
        expect D n1 q2
        quiet  500 ms
        send   A n1 f3 s2 w0 =REQUESTED
        quiet  300 ms
        expect within 3 s D n1 q3                     // a probe
        send   A n1 f3 s0 w2 =IDLE                    // no room was made for it, but now there is
        ignore D n1 q3
        expect within 3 s D n1 q4 [CL]
        "#,
    );
}

#[test]
fn a_busy_server_is_asked_again() {
    Bench::client().play(
        r#"
        call   "x"
        expect D n1 q1 [CL] "x"
        send   BUSY n1
        ignore A
        expect within 20 s D q1 [CRL] "x"
        "#,
    );
}

#[test]
fn a_service_with_a_reach_check_is_told_of_nobody_who_does_not_answer() {
    Bench::server(App::Echo).reach_check(true).play(
        r#"
        send   D n1 q1 [CL] "x"
        expect A n1 s0 =PING
        quiet  5 s                                    // three times what came, and not a byte more
        send   A n1 f1 p0 s1 =PING_RESPONSE
        app    asked "x"
        expect D n1 q1 [L] "x"
        "#,
    );
}

#[test]
fn an_answer_from_far_away_is_waited_for() {
    let far = LinkOptions { latency: Duration::from_millis(300), ..LinkOptions::default() };
    Bench::server(App::Echo).link(far).play(
        r#"
        send   D n1 q1 [CL] "x"
        expect after 600 ms D n1 q1 [L] "x"
        send   A n1 f2 =IDLE
        app    asked "x"
        app    after 300 ms acknowledged
        "#,
    );
}

/// A client of a user's, and a server that the test plays: what becomes of a call whose reply has a hole?
#[test]
fn a_users_client_reads_a_reply_that_comes_in_the_wrong_order() {
    simulate(3, async |world| {
        let (here, there) = (([10, 0, 0, 1], 7001).into(), ([10, 0, 0, 2], 7000).into());
        let client = Endpoint::builder().network(world.network(here)).start().await.unwrap();
        let mut server = Peer::server(&world, there);
        let connection = client.connect(there, 147).await.unwrap();
        let options = CallOptions::within(Duration::from_secs(10));
        let (reply, ()) = futures::join!(
            connection.call_with("when?", options),
            server.play(
                r#"
                expect D n1 q1 svc147 [CL] "when?"
                send   D n1 q2 svc147 [L] "day"
                expect A n1 f1 a[0,1] =OUT_OF_SEQUENCE
                send   D n1 q1 svc147 "to"
                expect A n1 f3
                "#,
            )
        );
        assert_eq!(reply.unwrap(), "today");
    });
}

/// A service of a user's, its real client on a bad line, and a third who knows no manners.
#[test]
fn a_users_service_serves_its_client_whatever_a_stranger_sends() {
    for seed in seeds(0..5) {
        simulate(seed, async |world| {
            let (here, there) = (([10, 0, 0, 1], 7001).into(), ([10, 0, 0, 2], 7000).into());
            let stranger = ([10, 0, 0, 9], 9).into();
            let loss = LinkOptions { loss: Loss::Random(0.2), ..LinkOptions::default() };
            world.set_link(here, there, loss);
            let echo = unary(async |request| Ok(request.bytes));
            let server = Endpoint::builder().network(world.network(there)).service(1, echo);
            let _server = server.start().await.unwrap();
            let client = Endpoint::builder().network(world.network(here)).start().await.unwrap();
            let connection = client.connect(there, 1).await.unwrap();
            let mut stranger = Peer::client(&world, stranger, there);
            let rude = stranger.play(
                r#"
                send   D n5 q9 [CJL] len3
                send   A n5 f9 p100 a[1x255]
                send   TYPE14 n1
                send   ABORT n1 1
                quiet  1 s
                "#,
            );
            let (reply, ()) = futures::join!(connection.call("hello"), rude);
            assert_eq!(reply.unwrap(), "hello");
        });
    }
}

#[test]
fn a_failure_says_where_it_failed_what_came_and_how_it_happens_again() {
    let bench = Bench::server(App::Echo).seed(12);
    for (wiring, name) in [(Wiring::Core, "Core"), (Wiring::Actors, "Actors")] {
        let failure = bench
            .try_play(
                wiring,
                r#"
                send   D n1 q1 [CL] "x"
                expect D n1 q1 [L] "y"
                "#,
            )
            .unwrap_err();
        let lines: Vec<&str> = failure.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                &format!("{name}: line 3 of the script: expect D n1 q1 [L] \"y\""),
                "came, after 2 ms: D n1 q1 h1 [L] \"x\"",
                "payload: expected \"y\", got \"x\"",
                "0.000 10.0.0.1:7001 >> 10.0.0.2:7000  #0 D n1 q1 h1 [CL] \"x\"",
                "0.001 10.0.0.1:7001 -> 10.0.0.2:7000  #0 D n1 q1 h1 [CL] \"x\"   | - => n1 AwaitAck+1",
                "0.001 10.0.0.2:7000 >> 10.0.0.1:7001  #0 D n1 q1 h1 [L] \"x\"   | n1 AwaitAck+1",
                "0.002 10.0.0.2:7000 -> 10.0.0.1:7001  #0 D n1 q1 h1 [L] \"x\"",
                "reproduce: RXRPC_SIM_SEED=12 cargo test \
                 a_failure_says_where_it_failed_what_came_and_how_it_happens_again -- --exact --nocapture",
            ],
            "{failure}"
        );
    }
}

#[test]
fn each_expectation_can_fail() {
    let fails = |script: &str, why: &str| {
        for wiring in [Wiring::Core, Wiring::Actors] {
            let failure = Bench::server(App::Script).try_play(wiring, script).unwrap_err();
            assert!(failure.contains(why), "{script}\nsaid {failure}");
        }
    };
    fails("expect D n1", "nothing came within 50 ms");
    fails(
        "send D n1 q1 [C]\n quiet 1 s",
        "line 2 of the script: quiet 1 s\n  came, after 2 ms: A n1",
    );
    fails("send D n1 q1 [C]\n expect after 200 ms A n1", "that is too early");
    fails("send D n1 q1 [C]\n wait 1 s\n expect within 0 ms A n1 =IDLE", "reason: expected");
    fails("app asked \"x\"", "the application was told nothing within 50 ms");
    fails(
        "send D n1 q1 [CL] \"x\"\n app asked \"y\"",
        "the application was told, after 1 ms: asked \"x\"",
    );
    fails("send D n1 q1 [CL] \"x\"\n app after 5 ms asked \"x\"", "after 1 ms");
    fails("expct D n1", "line 1: expct D n1");
}
