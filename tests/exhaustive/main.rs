//! Every order of events on a channel, tried: see docs/exploration.md.

mod alike;
mod apps;
mod arrivals;
mod bounds;
mod failing;
mod fair;
mod flaws;
mod kept;
mod physics;
mod rules;
mod search;
mod story;
mod world;

use std::time::Instant;

use bounds::{Bounds, Shape};
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

/// The bounds of RXRPC_EXPLORE.
#[test]
fn as_far_as_one_likes() {
    let Ok(text) = std::env::var("RXRPC_EXPLORE") else { return };
    let bounds = Bounds::parse(&text).unwrap_or_else(|word| panic!("RXRPC_EXPLORE: {word}"));
    assert_eq!(visit(&text, bounds, 2).failure, None);
}
