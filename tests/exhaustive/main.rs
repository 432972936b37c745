//! Every order of events on a channel, tried: see docs/exploration.md.

mod alike;
mod apps;
mod arrivals;
mod bounds;
mod fair;
mod kept;
mod physics;
mod rules;
mod search;
mod story;
mod world;

use std::time::Instant;

use bounds::{Bounds, Broken, Shape};
use rules::Rule;
use search::{Found, explore};

const ONE: Shape = Shape { request: 1, reply: 1, is_piecewise: false };

const TWO: Shape = Shape { request: 2, reply: 2, is_piecewise: false };
const PIECEWISE: Shape = Shape { is_piecewise: true, ..TWO };

/// Visits all states and says how many they were.
fn visit(name: &str, bounds: Bounds, threads: usize) -> Found {
    let began = Instant::now();
    let found = explore(bounds, threads);
    let Found { states, steps, depth, failure } = &found;
    let time = began.elapsed();
    println!("{name}: {states} states, {steps} steps, depth {depth}, {time:?}");
    if let Some((why, ladder)) = failure {
        println!("{name}: {why}\n{ladder}");
    }
    found
}

#[track_caller]
fn holds(name: &str, bounds: Bounds) {
    let found = visit(name, bounds, 2);
    assert!(found.failure.is_none() && found.states > 100, "{name}");
}

/// By one thread, which finds the shortest way.
#[track_caller]
fn breaks(name: &str, bounds: Bounds, rule: Rule) -> String {
    let found = visit(name, bounds, 1);
    let (why, ladder) = found.failure.unwrap_or_else(|| panic!("{name}: nothing is found"));
    assert_eq!(why, format!("broken: {rule}"), "{name}");
    ladder
}

#[test]
fn calls_end_cleanly_in_every_order_of_events() {
    holds("two calls", Bounds { in_flight: 3, losses: 1, ..Bounds::new(&[ONE, ONE]) });
}

#[test]
fn a_call_of_two_packets_each_way_survives_a_loss_and_a_window_of_one() {
    holds("small window", Bounds { window: 1, losses: 1, ..Bounds::new(&[TWO]) });
}

#[test]
fn slow_writers_do_no_harm() {
    holds("slow writers", Bounds { in_flight: 3, ..Bounds::new(&[PIECEWISE]) });
}

#[test]
fn copies_of_old_packets_run_no_call_again() {
    holds("copies", Bounds { in_flight: 2, repeats: 1, ..Bounds::new(&[ONE, ONE]) });
}

#[test]
fn calls_that_are_given_up_leave_the_channel_usable() {
    for takeover in [true, false] {
        let bounds = Bounds { in_flight: 2, aborts: 1, takeover, ..Bounds::new(&[ONE, ONE]) };
        holds("aborts", bounds);
    }
    holds("deaths", Bounds { in_flight: 2, deaths: 1, ..Bounds::new(&[ONE, ONE]) });
}

/// And what is added to `plain` does happen: other states are visited than without it.
#[track_caller]
fn holds_with(name: &str, plain: Bounds, adds: impl Fn(&mut Bounds)) {
    let without = visit("  without", plain.clone(), 2);
    let mut bounds = plain;
    adds(&mut bounds);
    let found = visit(name, bounds, 2);
    assert!(without.failure.is_none() && found.failure.is_none(), "{name}");
    assert!(found.states != without.states && without.states > 100, "{name} happen nowhere");
}

fn few(calls: &[Shape]) -> Bounds {
    Bounds { in_flight: 2, ..Bounds::new(calls) }
}

#[test]
fn packets_sent_again_by_a_timer_do_no_harm() {
    let copies = Bounds { repeats: 1, ..few(&[ONE]) };
    holds_with("resends and copies", copies, |bounds| bounds.resends = 1);
    let losses = Bounds { losses: 1, ..few(&[ONE]) };
    holds_with("resends and losses", losses, |bounds| bounds.resends = 1);
}

#[test]
fn three_calls_follow_one_another() {
    let bounds = Bounds { reorders: false, losses: 1, ..few(&[ONE, ONE, ONE]) };
    holds("three calls", bounds);
}

#[test]
fn a_call_of_two_packets_ends_before_the_next() {
    holds("two packets, then one", Bounds { reorders: false, ..few(&[TWO, ONE]) });
}

#[test]
fn packets_that_come_together_are_answered_once() {
    holds_with("runs", few(&[TWO]), |bounds| bounds.runs = true);
}

#[test]
fn services_wait_for_the_proof_of_an_address() {
    holds_with("reach", few(&[ONE, ONE]), |bounds| bounds.reach = true);
}

#[test]
fn replies_may_begin_before_the_request_has_ended() {
    holds_with("eager", few(&[PIECEWISE]), |bounds| bounds.eager = true);
}

#[test]
fn pings_and_late_timers_do_no_harm() {
    holds_with("pings", few(&[ONE]), |bounds| bounds.pings = 1);
    holds_with("late timers", few(&[TWO]), |bounds| bounds.late_timers = true);
}

// The search can fail: servers made wrong on purpose.

/// rx-race.md R3, R4: the next call's DATA may be all that ends a call.
#[test]
fn without_the_implicit_end_a_client_is_told_busy() {
    let broken = Broken { no_implicit_end: true, ..Broken::default() };
    let bounds = Bounds { broken, ..Bounds::new(&[ONE, ONE]) };
    let ladder = breaks("no implicit end", bounds, Rule::Busy);
    assert!(ladder.contains("server >> client  #0 BUSY n2"), "{ladder}");
}

/// rx-race.md R6.
#[test]
fn without_the_check_of_call_numbers_a_call_runs_twice() {
    let broken = Broken { no_number_check: true, ..Broken::default() };
    let bounds = Bounds { broken, in_flight: 3, repeats: 1, ..Bounds::new(&[ONE, ONE]) };
    breaks("no check of call numbers", bounds, Rule::DeliveredTwice);
}

/// The same by a timer: the request that is sent again is the copy.
#[test]
fn without_the_check_of_call_numbers_a_retransmission_runs_a_call_again() {
    let broken = Broken { no_number_check: true, ..Broken::default() };
    let bounds = Bounds { broken, in_flight: 3, resends: 1, ..Bounds::new(&[ONE, ONE]) };
    breaks("no check, resends", bounds, Rule::DeliveredTwice);
}

/// rx-race.md R1: a network without a fault, a client that acknowledges each reply before it calls again.
/// With one queue all is well even without the implicit end; with a queue for ACKs it is not.
#[test]
fn acks_on_a_queue_of_their_own_are_the_race_of_2014() {
    let mut broken = Broken { no_implicit_end: true, client_acks_first: true, ..Broken::default() };
    let bounds = Bounds { reorders: false, broken, ..Bounds::new(&[ONE, ONE]) };
    holds("one queue", bounds.clone());
    broken.ack_queue = true;
    breaks("two queues", Bounds { broken, ..bounds.clone() }, Rule::Busy);
    broken.no_implicit_end = false;
    holds("two queues and the implicit end", Bounds { broken, ..bounds });
}

/// The bounds of RXRPC_EXPLORE.
#[test]
fn as_far_as_one_likes() {
    let Ok(text) = std::env::var("RXRPC_EXPLORE") else { return };
    let bounds = Bounds::parse(&text).unwrap_or_else(|word| panic!("RXRPC_EXPLORE: {word}"));
    assert_eq!(visit(&text, bounds, 2).failure, None);
}
