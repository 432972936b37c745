//! Simulated worlds by seed: see docs/testkit.md.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rxrpc::testkit::world::{
    Answer, CallPlan, Plan, Sabotage, What, Wiring, check, check_plan, play,
};
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

/// Calls whose requests come faster than they are read, all at once over one connection.
fn slow_readers() -> Plan {
    let mut plan = Plan { faults: Vec::new(), hostile: Vec::new(), ..Plan::drawn(0) };
    (plan.clients, plan.servers, plan.connections_max) = (1, 1, 1);
    (plan.security, plan.needs_reach, plan.upgrades) = (None, false, false);
    (plan.config, plan.link) = Default::default();
    let mut call = plan.calls[0].clone();
    (call.client, call.server, call.answer, call.reply_bytes) = (0, 1, Answer::Reply, 4);
    (call.request_bytes, call.pause_every, call.pause) =
        (60_000, Some(1), Duration::from_millis(300));
    (call.deadline, call.given_up_after, call.streamed) = (None, None, None);
    (call.exclusive, call.must_be_good, call.at) = (false, false, Duration::ZERO);
    plan.calls = (0..4).map(|id| CallPlan { id, ..call.clone() }).collect();
    plan
}

/// Each rule about the inside of a core finds an endpoint that breaks it, and passes one that does not.
#[test]
fn what_is_checked_inside_of_cores_can_fail() {
    let window = |plan: &mut Plan| {
        plan.config.server.call.receive_window_max_packets = 8;
        plan.config.server.call.receive_window_initial_packets = 8;
    };
    let connection = |plan: &mut Plan| plan.config.server.buffered_max_bytes = 8192;
    let endpoint = |plan: &mut Plan| plan.config.buffered_max_bytes = 8192;
    type Case = (Sabotage, fn(&mut Plan), &'static str);
    let cases: [Case; 5] = [
        (Sabotage::RetransmissionForgotten, |_| {}, "no timer for them"),
        (Sabotage::DeadlinesForgotten, |_| {}, "a timer that the endpoint does not know"),
        (Sabotage::LimitsIgnored, window, "(ServerReceive) buffers"),
        (Sabotage::LimitsIgnored, connection, "a connection buffers"),
        (Sabotage::LimitsIgnored, endpoint, "bytes buffered in all"),
    ];
    for (sabotage, change, says) in cases {
        let mut plan = slow_readers();
        change(&mut plan);
        assert_eq!(play(&plan, Wiring::Core, false).violation, None, "{sabotage:?}");
        plan.sabotage = Some(sabotage);
        let violation = play(&plan, Wiring::Core, false).violation;
        println!("{sabotage:?}: {violation:?}");
        assert!(violation.is_some_and(|text| text.contains(says)), "{sabotage:?}: {says}");
    }
}

/// What plans are made of happens, and ends well at least sometimes.
#[test]
fn every_kind_of_call_and_of_harm_happens() {
    let mut counts = BTreeMap::<String, u64>::new();
    for seed in 0..300 {
        let plan = Plan::drawn(seed);
        for entry in play(&plan, Wiring::Core, true).entries {
            match entry.what {
                What::Told { call: id, what, .. } => {
                    let Some(end) = what.strip_prefix("client: ") else { continue };
                    let call =
                        plan.calls.iter().find(|call| call.id == id).expect("a planned call");
                    let end = if end.starts_with("good") { "good" } else { end };
                    let mut note = |kind: &str| {
                        *counts.entry(format!("{kind} {end}")).or_default() += 1;
                    };
                    call.streamed.iter().for_each(|_| note("streamed"));
                    call.exclusive.then(|| note("exclusive"));
                    plan.upgrades.then(|| note("upgraded"));
                    plan.security.iter().for_each(|level| note(&format!("{level:?}")));
                    (!plan.hostile.is_empty()).then(|| note("amid harm"));
                }
                What::World(text) => {
                    if let Some((_, kind)) = text.rsplit_once(": ") {
                        *counts.entry(format!("harm {kind}")).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
    }
    println!("{counts:#?}");
    for kind in [
        "streamed good",
        "streamed given up",
        "exclusive good",
        "upgraded good",
        "Clear good",
        "Auth good",
        "Crypt good",
        "amid harm good",
        "harm Repeat",
        "harm Own",
        "harm Nobody",
        "harm Spoofed",
        "harm Mangled",
        "harm Noise",
    ] {
        assert!(counts.get(kind).is_some_and(|count| *count > 0), "{kind}: {counts:#?}");
    }
}
