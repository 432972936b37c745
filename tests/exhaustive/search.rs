//! The search itself, by stateright: what can happen next, and what must hold.

use std::time::{Duration, Instant};

use rxrpc::proto::Role;
use rxrpc::proto::channel::exploring::Timer;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::apps::Word;
use crate::bounds::Bounds;
use crate::fair::{self, Ends};
use crate::physics::Physics;
use crate::story::Story;
use crate::world::{Action, World};

const RULES: &str = "every rule holds";
const CLEAN_END: &str = "a clean end can be reached";

/// All worlds within the bounds.
#[derive(Debug)]
pub struct Search {
    physics: Physics,
    ends: Ends,
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.physics.beginning()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_none() {
            self.network(world, actions);
            self.applications(world, actions);
            self.timers(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.physics.step(world, action, &mut Story::untold()))
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.net.len() + world.parked.len() <= self.physics.bounds.in_flight
    }

    fn properties(&self) -> Vec<Property<Search>> {
        vec![
            Property::always(RULES, |_, world: &World| world.broken.is_none()),
            Property::always(CLEAN_END, |search: &Search, world: &World| {
                world.broken.is_some() || fair::ends_well(&search.physics, &search.ends, world)
            }),
        ]
    }
}

impl Search {
    fn network(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, flight) in world.net.iter().enumerate() {
            let same = index > 0 && world.net[index - 1] == *flight;
            let waits = index > 0 && world.net[index - 1].to == flight.to;
            if same || (waits && !self.physics.bounds.reorders) {
                continue;
            }
            actions.push(Action::Deliver(index));
            if world.left.repeats > 0 {
                actions.push(Action::Repeat(index));
            }
            if world.left.losses > 0 {
                actions.push(Action::Lose(index));
            }
        }
        if self.physics.bounds.runs {
            self.runs(world, actions);
        }
        if !world.parked.is_empty() {
            actions.push(Action::Unpark);
        }
    }

    /// A run has datagrams of one size, but for the last, which may be shorter.
    fn runs(&self, world: &World, actions: &mut Vec<Action>) {
        for (first, one) in world.net.iter().enumerate() {
            for (second, other) in world.net.iter().enumerate() {
                let fits = one.to == other.to && one.datagram.len() >= other.datagram.len();
                if first != second && fits && (self.physics.bounds.reorders || first < second) {
                    actions.push(Action::Together(first, second));
                }
            }
        }
    }

    fn applications(&self, world: &World, actions: &mut Vec<Action>) {
        if let Some(index) = self.physics.next_call(world) {
            actions.push(Action::Say(Role::Client, index, Word::Start));
        }
        for (index, call) in world.calls.iter().enumerate() {
            for role in [Role::Client, Role::Server] {
                let words = call.words(role, self.physics.bounds.eager);
                actions.extend(words.map(|word| Action::Say(role, index, word)));
                if world.left.aborts > 0 && call.may_abort(role) {
                    actions.push(Action::Say(role, index, Word::Abort));
                }
            }
        }
    }

    fn timers(&self, world: &World, actions: &mut Vec<Action>) {
        for role in [Role::Client, Role::Server] {
            let channel = &world.host(role).channel;
            for timer in Timer::ALL {
                let may = match timer {
                    Timer::DelayedAck | Timer::FinalAck => true,
                    Timer::Retransmit => world.left.resends > 0,
                    Timer::Ping | Timer::ReachPing => world.left.pings > 0,
                    Timer::Dead => world.left.deaths > 0,
                    Timer::Idle | Timer::Hard => false,
                };
                if may && channel.timer(timer).is_some() {
                    actions.push(Action::Fire(role, timer));
                }
            }
            let delayed = channel.timer(Timer::DelayedAck);
            if self.physics.bounds.late_timers && delayed.is_some_and(|at| !self.physics.is_due(at))
            {
                actions.push(Action::Lapse(role));
            }
        }
    }
}

/// What a search has seen.
#[derive(Debug)]
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The longest way by which a state was first reached.
    pub depth: usize,
    /// What does not hold, and the ladder that shows it.
    pub failure: Option<(String, String)>,
}

/// Visits every state within `bounds`, or all up to the first in which something does not hold.
pub fn explore(bounds: Bounds, threads: usize) -> Found {
    let search = Search { physics: Physics::new(bounds), ends: Ends::default() };
    let checker =
        search.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs();
    let checker = report(checker).join();
    let discoveries = checker.discoveries();
    let way = discoveries.get(RULES).or(discoveries.get(CLEAN_END));
    let failure = way.map(|way| tell(&checker.model().physics, way.clone().into_actions()));
    Found {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        failure,
    }
}

/// A line a minute, where a search takes minutes.
fn report<C: Checker<Search>>(mut checker: C) -> C {
    let mut handles = checker.handles();
    let began = Instant::now();
    let mut minutes = 0;
    while handles.iter().any(|handle| !handle.is_finished()) {
        std::thread::sleep(Duration::from_millis(10));
        if began.elapsed().as_secs() / 10 > minutes {
            minutes += 1;
            let (states, depth) = (checker.unique_state_count(), checker.max_depth());
            println!("  {states} states, depth {depth}, {:.0?}", began.elapsed());
        }
    }
    handles.drain(..).for_each(|handle| handle.join().expect("a search without a panic"));
    checker
}

/// The ladder of a way to a state in which something does not hold: the rule, or, on from there, how the fair
/// schedule fails to end.
fn tell(physics: &Physics, way: Vec<Action>) -> (String, String) {
    let mut story = Story::told_to_a_reader();
    let telling = physics.telling();
    let mut world = telling.beginning();
    let mut twin = physics.beginning();
    for action in way {
        world = telling.step(&world, action, &mut story);
        twin = physics.step(&twin, action, &mut Story::untold());
    }
    story.remark("from here on nothing more goes wrong");
    let mut seen = Vec::new();
    let why = loop {
        if let Some(rule) = world.broken {
            break format!("broken: {rule}");
        }
        if seen.contains(&twin.fingerprint()) {
            break "goes round for ever".to_owned();
        }
        seen.push(twin.fingerprint());
        let Some(action) = fair::next(physics, &twin) else { break "not a clean end".to_owned() };
        world = telling.step(&world, action, &mut story);
        twin = physics.step(&twin, action, &mut Story::untold());
    };
    story.remark(&why);
    (why, story.text())
}
