//! Plays a plan in either wiring, compares, and shrinks what fails.

use std::rc::Rc;
use std::time::Duration;

use super::clock::{in_system, reproduce};
use super::core::Cores;
use super::net::World;
use super::plan::Plan;
use super::shrink::shrink;
use super::trace::{Entry, What};
use super::tree;
use crate::proto::config::EndpointConfig;
use crate::testkit::Unlikely;

/// How a plan is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Bare cores, called directly: thousands of plans a minute.
    Core,
    /// The real tree of actors and its public API, under a paused clock.
    Actors,
}

/// What came of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of all that happened.
    pub trace_hash: u64,
    /// How many things happened.
    pub count: u64,
    /// How long it took in the world.
    pub time: Duration,
    /// What went wrong, if anything.
    pub violation: Option<String>,
    /// What happened, if it was to be kept.
    pub entries: Vec<Entry>,
}

impl Outcome {
    /// Datagrams that were sent, of those that were kept.
    pub fn packets(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.what, What::Sent { .. })).count()
    }
}

/// Plays a plan. `keeps` = with all that happened.
pub fn play(plan: &Plan, wiring: Wiring, keeps: bool) -> Outcome {
    let plan = Rc::new(plan.clone());
    match wiring {
        Wiring::Core => {
            let world = World::new(plan.seed, keeps);
            prepare(&plan, &world);
            Cores::new(plan, world.clone()).play().check_end();
            outcome(&world)
        }
        Wiring::Actors => {
            let seed = plan.seed;
            in_system(
                || World::under_tokio(seed, keeps),
                async move |world| {
                    prepare(&plan, &world);
                    tree::play(plan, world).await
                },
            )
        }
    }
}

fn prepare(plan: &Plan, world: &World) {
    world.prepare(plan);
    let call = &plan.config.server.call;
    world.with_referee(|referee| {
        // A connection whose client has proved nothing goes sooner, or of which no service has had a call.
        let server = &plan.config.server;
        let idle = server.server_idle.min(call.dead_timeout).min(server.unserved_idle);
        referee.set_rules(call.send_window_initial_packets, call.takeover, idle);
        referee.set_amplification(plan.config.amplification_max);
        referee.set_proof_time(call.reach_ttl.max(call.dead_timeout));
        // Two in each of four channels; PINGs that are put off have had their serials.
        let loses_sends = call.choices.one_in[Unlikely::LoseSend as usize] > 0;
        let default = EndpointConfig::default();
        let puts_off = plan.config.reach_pings_per_second < default.reach_pings_per_second;
        let put_off_max =
            call.dead_timeout.as_millis() / call.reach_ping_interval.as_millis().max(1);
        let put_off_max = if puts_off { 4 * put_off_max as u32 } else { 0 };
        referee.set_lost_first(put_off_max + if loses_sends { 8 } else { 0 });
    });
}

pub(super) fn outcome(world: &World) -> Outcome {
    Outcome {
        trace_hash: world.trace_hash(),
        count: world.count(),
        time: world.end_time(),
        violation: world.violation(),
        entries: world.entries(),
    }
}

/// Plays what `seed` draws in both wirings if `both`, else in the core twice, and says what is wrong, with a
/// ladder of a shrunk plan.
///
/// # Errors
/// A rule is broken, or two plays of one seed differ.
pub fn check(seed: u64, both: bool) -> Result<(), String> {
    check_plan(&Plan::drawn(seed), both)
}

/// As [`check`], of any plan. The report begins with what is wrong, and how it is seen again, if the test takes its
/// seeds from [`super::seeds`]; then comes what is left of the plan.
///
/// # Errors
/// As [`check`].
pub fn check_plan(plan: &Plan, both: bool) -> Result<(), String> {
    let Some(why) = fault_of(plan, both) else { return Ok(()) };
    Err(report(plan, both, &why))
}

/// What is wrong with a plan, if anything.
fn fault_of(plan: &Plan, both: bool) -> Option<String> {
    let first = play(plan, Wiring::Core, false);
    if let Some(violation) = first.violation {
        return Some(violation);
    }
    if play(plan, Wiring::Core, false).trace_hash != first.trace_hash {
        return Some("two plays of the cores differ".to_owned());
    }
    if !both {
        return None;
    }
    let actors = play(plan, Wiring::Actors, false);
    if let Some(violation) = actors.violation {
        return Some(format!("among actors: {violation}"));
    }
    if actors.trace_hash != first.trace_hash {
        return Some("cores and actors differ".to_owned());
    }
    let again = play(plan, Wiring::Actors, false);
    (again.trace_hash != actors.trace_hash).then(|| "two plays of the actors differ".to_owned())
}

fn report(plan: &Plan, both: bool, why: &str) -> String {
    let kind = kind_of(why);
    let small = shrink(plan, |plan| fault_of(plan, both).is_some_and(|it| kind_of(&it) == kind));
    let why = fault_of(&small, both).unwrap_or_else(|| why.to_owned());
    let wiring = if why.starts_with("among actors") { Wiring::Actors } else { Wiring::Core };
    let kept = play(&small, wiring, true);
    let mut text = format!("seed {}: {why}\n", plan.seed);
    text += &reproduce(plan.seed);
    let (calls, faults) = (small.calls.len(), small.faults.len());
    text += &format!("shrunk to {calls} calls, {faults} faults, {} packets:\n", kept.packets());
    small.calls.iter().for_each(|call| text += &format!("  {call:?}\n"));
    small.faults.iter().for_each(|fault| text += &format!("  {fault:?}\n"));
    small.hostile.iter().for_each(|hostile| text += &format!("  {hostile:?}\n"));
    if let Some(lost) = &small.lost {
        text += &format!("  lost: {lost:?}\n");
    }
    text += &format!("  {:?}\n", small.config);
    text += &format!("  {:?}\n", small.link);
    if why.starts_with("cores and actors") {
        let actors = play(&small, Wiring::Actors, true);
        text += &first_difference(&kept.entries, &actors.entries);
    } else {
        text += &super::trace::ladder(&kept.entries, number("RXRPC_SIM_LINES", 80));
    }
    text
}

/// Violations of one kind differ in numbers only.
fn kind_of(why: &str) -> String {
    why.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

fn first_difference(cores: &[Entry], actors: &[Entry]) -> String {
    let at = cores.iter().zip(actors).take_while(|(core, actor)| core == actor).count();
    let mut text = super::trace::ladder(&cores[..at], 30);
    let some = |entries: &[Entry]| -> String {
        entries.iter().skip(at).take(6).map(|entry| format!("{entry}\n")).collect()
    };
    text += &format!("--- cores go on:\n{}--- actors go on:\n{}", some(cores), some(actors));
    text
}

/// A number of the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
