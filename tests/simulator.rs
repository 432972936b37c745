//! Simulated worlds by seed: see docs/testkit.md.

use std::time::Instant;

use rxrpc::testkit::world::{Plan, Wiring, check, play};

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
