//! Simulated worlds by seed: see docs/testkit.md.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use rxrpc::testkit::world::{
    Answer, CallPlan, Fault, FaultKind, Plan, Sabotage, What, Wiring, check, check_plan, play,
    seeds,
};
use rxrpc::testkit::{ChoiceOptions, taken};
use rxrpc::wire::{Header, PacketType};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(from: u64, count: u64, both: impl Fn(u64) -> bool + Sync) {
    let began = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failures = std::thread::scope(|scope| {
        let both = &both;
        let work = |worker: u64| {
            let own = seeds(from..from + count).skip(worker as usize).step_by(workers as usize);
            own.filter_map(|seed| check(seed, both(seed)).err()).take(3).collect::<Vec<_>>()
        };
        // Failures name the test by its thread.
        let name = std::thread::current().name().unwrap_or("main").to_owned();
        let spawn = |it| {
            let worker = std::thread::Builder::new().name(name.clone());
            worker.spawn_scoped(scope, move || work(it)).expect("a thread")
        };
        let workers: Vec<_> = (0..workers).map(spawn).collect();
        workers.into_iter().flat_map(|it| it.join().expect("no panic")).collect::<Vec<String>>()
    });
    let time = began.elapsed();
    let count = seeds(from..from + count).count();
    println!("{count} seeds in {time:?}, {:.0} a second", count as f64 / time.as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_seed_keeps_the_rules_and_repeats() {
    let from = number("RXRPC_SIM_FROM").unwrap_or(0);
    let both = number("RXRPC_SIM_BOTH").unwrap_or(5);
    let is_one = number("RXRPC_SIM_SEED").is_some();
    let both = |seed| is_one || (both > 0 && seed % both == 0);
    run(from, number("RXRPC_SIM_SEEDS").unwrap_or(2000), both);
}

/// In these, a call is delivered, or begins to answer, in the instant in which there is room again for what comes:
/// its service has said what it has read before its channel hears of the room, so that a window is told in one ACK
/// or in two, and before or behind what another channel sends.
#[test]
fn room_that_comes_with_a_call_is_told_in_the_same_order_in_both_wirings() {
    for seed in seeds(0..5) {
        let seed = [5910, 12970, 21300, 80400, 92340].get(seed as usize).copied().unwrap_or(seed);
        if let Err(report) = check_plan(&Plan::drawn_at_first(seed), true) {
            panic!("{report}");
        }
    }
}

/// A call begins with a reply in one large packet, of which another channel has found that the path takes it, at a
/// client whose window is of one packet: it is taken.
#[test]
fn a_first_packet_larger_than_a_small_window_is_taken() {
    for seed in seeds(0..2) {
        let seed = [21508, 21709].get(seed as usize).copied().unwrap_or(seed);
        if let Err(report) = check(seed, true) {
            panic!("{report}");
        }
    }
}

/// A server that crashes forgets a packet that it had acknowledged softly, and says so by a table that ends before it:
/// it is sent again (rx-flow.md 1, soft ACK).
#[test]
fn what_a_crashed_server_had_acknowledged_softly_is_sent_again() {
    for seed in seeds(0..1) {
        let seed = [56305].get(seed as usize).copied().unwrap_or(seed);
        if let Err(report) = check(seed, true) {
            panic!("{report}");
        }
    }
}

/// Three that blamed what is right: clients that crashed when they had the whole reply and had gone on to the next call,
/// and a forgotten connection that began again with packets which an unproved address may not be sent.
#[test]
fn a_client_that_crashed_had_its_reply_and_first_packets_may_be_refused() {
    for seed in seeds(0..3) {
        let seed = [16975, 48453, 61678].get(seed as usize).copied().unwrap_or(seed);
        if let Err(report) = check(seed, true) {
            panic!("{report}");
        }
    }
}

/// A call waits for its turn and fills its connection's room; the one whose turn it is has a sender that sends one
/// packet, or two, at a time, and goes on all the same: what its application takes is acknowledged for good.
#[test]
fn small_send_windows_get_on_while_room_is_short() {
    for seed in seeds(0..2) {
        let seed = [12737, 72544].get(seed as usize).copied().unwrap_or(seed);
        if let Err(report) = check_plan(&Plan::drawn_at_first(seed), true) {
            panic!("{report}");
        }
    }
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
    for seed in seeds(0..60) {
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
    let is_one = number("RXRPC_SIM_SEED").is_some();
    assert!(is_one || counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
}

fn broken(seed: u64) -> Plan {
    Plan { sabotage: Some(Sabotage::ResentDataDiffers), ..Plan::drawn(seed) }
}

/// Fails where the next test wants it to.
#[test]
fn a_plan_of_its_own_fails() {
    if std::env::var_os("RXRPC_SIM_FAILS").is_none() {
        return;
    }
    for seed in seeds(0..200) {
        // The first few are well.
        let plan = if seed % 8 == 7 { broken(seed) } else { Plan::drawn(seed) };
        if let Err(report) = check_plan(&plan, false) {
            panic!("{report}");
        }
    }
}

/// What a failing test prints is run, as cargo runs it, and fails in the same way: with that seed alone.
#[test]
fn the_line_that_is_printed_shows_the_failure_again() {
    let play = |seed: Option<&str>, arguments: &[&str]| {
        let mut test = Command::new(std::env::current_exe().expect("a test knows its path"));
        test.args(arguments).env("RXRPC_SIM_FAILS", "1").env("RUST_BACKTRACE", "0");
        test.env_remove("RXRPC_SIM_SEED").envs(seed.map(|seed| ("RXRPC_SIM_SEED", seed)));
        let output = test.output().expect("it runs");
        assert!(!output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let from = text.find("seed ").expect("a report");
        let to = text.find("\nnote: run with").expect("its end");
        text[from..to].to_owned()
    };
    let first = play(None, &["a_plan_of_its_own_fails", "--exact", "--nocapture"]);
    let line = first.lines().find_map(|line| line.strip_prefix("reproduce: ")).expect("a line");
    println!("{line}");
    let words: Vec<_> = line.split(' ').collect();
    let ["cargo", "test", arguments @ ..] = &words[1..] else { panic!("{line}") };
    let seed = words[0].strip_prefix("RXRPC_SIM_SEED=").expect("a seed");
    let arguments: Vec<_> = arguments.iter().copied().filter(|word| *word != "--").collect();
    assert_eq!(play(Some(seed), &arguments), first);
}

/// A mistake that only a lost packet brings to light is found among many calls, and shown in a few packets.
#[test]
fn a_failure_is_shown_in_few_packets() {
    let fails = |plan: &Plan| play(plan, Wiring::Core, true);
    let big = seeds(0..200).map(broken).find(|plan| {
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
    plan.running_calls_max = None;
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

/// Nothing that is sent to the clients of a plan arrives.
fn hears_nothing(plan: &mut Plan) {
    let (at, until) = (Duration::ZERO, plan.faults_end);
    plan.faults = vec![
        Fault { at, what: FaultKind::Part(1, 0) },
        Fault { at: until, what: FaultKind::Join(1, 0) },
    ];
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
    let unproved = |plan: &mut Plan| {
        plan.config.unproved_buffered_max_bytes = 8192;
        hears_nothing(plan);
    };
    let written = |plan: &mut Plan| {
        for connection in [&mut plan.config.client, &mut plan.config.server] {
            connection.call.send_window_max_packets = 8;
            connection.call.send_window_initial_packets = 8;
        }
        plan.calls.iter_mut().for_each(|call| call.reply_bytes = 3_000_000);
    };
    let amplified = |plan: &mut Plan| {
        plan.calls.iter_mut().for_each(|call| (call.request_bytes, call.reply_bytes) = (4, 9000));
        hears_nothing(plan);
    };
    type Case = (Sabotage, fn(&mut Plan), &'static str);
    let cases: [Case; 8] = [
        (Sabotage::RetransmissionForgotten, |_| {}, "no timer for them"),
        (Sabotage::DeadlinesForgotten, |_| {}, "a timer that the endpoint does not know"),
        (Sabotage::LimitsIgnored, window, "(ServerReceive) buffers"),
        (Sabotage::LimitsIgnored, connection, "a connection buffers"),
        (Sabotage::LimitsIgnored, endpoint, "bytes buffered in all"),
        (Sabotage::LimitsIgnored, unproved, "peers that have not proved"),
        (Sabotage::LimitsIgnored, written, "that its application wrote"),
        (Sabotage::LimitsIgnored, amplified, "to an unproved address"),
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
    // Of a tree less can be seen from outside.
    let nothing = |_: &mut Plan| {};
    let cases: [Case; 4] = [
        (Sabotage::LimitsIgnored, window, "(ServerReceive) buffers"),
        (Sabotage::LimitsIgnored, connection, "a connection buffers"),
        (Sabotage::LimitsIgnored, endpoint, "bytes buffered in all"),
        (Sabotage::NothingForgotten, nothing, "never forgotten"),
    ];
    for (sabotage, change, says) in cases {
        let mut plan = slow_readers();
        change(&mut plan);
        assert_eq!(play(&plan, Wiring::Actors, false).violation, None, "{sabotage:?}");
        plan.sabotage = Some(sabotage);
        let violation = play(&plan, Wiring::Actors, false).violation;
        println!("among actors, {sabotage:?}: {violation:?}");
        assert!(violation.is_some_and(|text| text.contains(says)), "{sabotage:?}: {says}");
    }
}

/// What plans are made of happens, and ends well at least sometimes.
#[test]
fn every_kind_of_call_and_of_harm_happens() {
    /// Words of what worlds say of their changes.
    const CHANGES: [&str; 7] =
        ["crashes", "lives again", "is parted", "reaches", "is clogged", "is free", "mtu: 1000"];
    let mut counts = BTreeMap::<String, u64>::new();
    for seed in 0..300 {
        let plan = Plan::drawn(seed);
        let mut arrived = HashSet::new();
        for entry in play(&plan, Wiring::Core, true).entries {
            match entry.what {
                What::Told { call: id, what, .. } => {
                    let Some(end) = what.strip_prefix("client: ") else { continue };
                    let call =
                        plan.calls.iter().find(|call| call.id == id).expect("a planned call");
                    let end = match end {
                        _ if end.starts_with("good") => "good",
                        _ if end.contains("4712") => "overloaded",
                        _ => end,
                    };
                    let mut note = |kind: &str| {
                        *counts.entry(format!("{kind} {end}")).or_default() += 1;
                    };
                    call.streamed.iter().for_each(|_| note("streamed"));
                    call.exclusive.then(|| note("exclusive"));
                    plan.upgrades.then(|| note("upgraded"));
                    plan.security.iter().for_each(|level| note(&format!("{level:?}")));
                    (!plan.hostile.is_empty()).then(|| note("amid harm"));
                    plan.running_calls_max.iter().for_each(|_| note("limited"));
                }
                What::Sent { fate, datagram, .. } => {
                    *counts.entry(format!("{fate:?}")).or_default() += 1;
                    let kind = Header::decode(&datagram).map(|header| header.packet_type);
                    let is_large = datagram.len() > 1500 && kind == Some(PacketType::Data);
                    let kinds = [
                        (is_large, "large DATA"),
                        (kind == Some(PacketType::Version), "VERSION"),
                        (kind == Some(PacketType::Debug), "DEBUG"),
                    ];
                    for (_, kind) in kinds.into_iter().filter(|(is_so, _)| *is_so) {
                        *counts.entry(kind.to_owned()).or_default() += 1;
                    }
                }
                What::Arrived { from, to, number, .. } => {
                    if !arrived.insert((from, to, number)) {
                        *counts.entry("arrives twice".to_owned()).or_default() += 1;
                    }
                }
                What::World(text) => {
                    for kind in CHANGES.iter().filter(|kind| text.contains(**kind)) {
                        *counts.entry((*kind).to_owned()).or_default() += 1;
                    }
                    if text.starts_with("harm")
                        && let Some((_, kind)) = text.rsplit_once(": ")
                    {
                        *counts.entry(format!("harm {kind}")).or_default() += 1;
                    }
                }
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
        "limited good",
        "limited overloaded",
        "harm Repeat",
        "harm Own",
        "harm Nobody",
        "harm Spoofed",
        "harm Mangled",
        "harm Noise",
        "Arrives",
        "Lost",
        "Overflowed",
        "TooBig",
        "Parted",
        "arrives twice",
        "large DATA",
        "VERSION",
    ]
    .iter()
    .chain(&CHANGES)
    {
        assert!(counts.get(*kind).is_some_and(|count| *count > 0), "{kind}: {counts:#?}");
    }
}
