//! Simulated worlds by seed: see docs/testkit.md.

use std::time::Instant;

use rxrpc::testkit::world::{Plan, Sabotage, Wiring, check, check_plan, play};
use rxrpc::testkit::{ChoiceOptions, taken};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(from: u64, count: u64, both: impl Fn(u64) -> bool + Sync) {
    let began = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failures = std::thread::scope(|scope| {
        let both = &both;
        let work = |worker: u64| {
            let seeds = (from..from + count).skip(worker as usize).step_by(workers as usize);
            seeds.filter_map(|seed| check(seed, both(seed)).err()).take(3).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..workers).map(|it| scope.spawn(move || work(it))).collect();
        workers.into_iter().flat_map(|it| it.join().expect("no panic")).collect::<Vec<String>>()
    });
    let time = began.elapsed();
    println!("{count} seeds in {time:?}, {:.0} a second", count as f64 / time.as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_seed_keeps_the_rules_and_repeats() {
    let from = number("RXRPC_SIM_FROM").unwrap_or(0);
    let both = number("RXRPC_SIM_BOTH").unwrap_or(10);
    run(from, number("RXRPC_SIM_SEEDS").unwrap_or(2000), |seed| both > 0 && seed % both == 0);
}

/// The seed of RXRPC_SIM_SEED, with all that happens.
#[test]
fn one_seed() {
    let Some(seed) = number("RXRPC_SIM_SEED") else { return };
    for wiring in [Wiring::Core, Wiring::Actors] {
        let outcome = play(&Plan::drawn(seed), wiring, true);
        println!("{wiring:?}: {} {:?}", outcome.count, outcome.violation);
        if wiring == Wiring::Core {
            outcome.entries.iter().for_each(|entry| println!("{entry}"));
        }
    }
    run(seed, 1, |_| true);
}

/// A choice that no seed ever takes would be a test that cannot fail.
#[test]
fn every_unlikely_choice_is_taken() {
    taken();
    for seed in 0..60 {
        let mut plan = Plan::drawn(seed);
        let choices = ChoiceOptions::all(seed, 4);
        plan.config.client.call.keepalive = true;
        plan.config.server.call.keepalive = true;
        plan.config.client.call.choices = choices;
        plan.config.server.call.choices = choices;
        if let Err(report) = check_plan(&plan, seed % 10 == 0) {
            panic!("{report}");
        }
    }
    let counts = taken();
    println!("{counts:?}");
    assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
}

/// A mistake that only a lost packet brings to light is found among many calls, and shown in a few packets.
#[test]
fn a_failure_is_shown_in_few_packets() {
    let broken = |seed| Plan { sabotage: Some(Sabotage::ResentDataDiffers), ..Plan::drawn(seed) };
    let fails = |plan: &Plan| play(plan, Wiring::Core, true);
    let big = (0..200).map(broken).find(|plan| {
        let outcome = fails(plan);
        plan.calls.len() > 8 && outcome.violation.is_some() && outcome.packets() > 50
    });
    let big = big.expect("a seed with many calls, in which something is lost");
    let report = check_plan(&big, false).expect_err("resent DATA is not what was sent");
    println!("{} packets before:\n{report}", fails(&big).packets());
    let (_, packets) = report.split_once(" faults, ").expect("the report says how small it is");
    let packets: usize = packets.split(' ').next().expect("a word").parse().expect("a number");
    assert!(packets <= 8, "{report}");
    assert!(report.contains("is not what was sent") && report.contains("RXRPC_SIM_SEED="));
}
