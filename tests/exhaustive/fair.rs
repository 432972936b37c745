//! From every state a clean end can be reached: by one fair schedule on which nothing more goes wrong.
//!
//! Datagrams arrive, oldest first; else applications do what they have to do; else timers run out, but none
//! by which a call dies, unless its client is past it and the server cannot hear of it. Since the schedule leads
//! from each state to one other, it is enough to go on until a state that was seen to end well.

use std::collections::HashSet;
use std::sync::Mutex;

use rxrpc::proto::Role;
use rxrpc::proto::channel::exploring::Timer;

use crate::apps::{Call, End, Word};
use crate::physics::Physics;
use crate::story::Story;
use crate::world::{Action, World};

const SHARDS: usize = 64;

/// States from which the schedule is known to end well.
#[derive(Debug)]
pub struct Ends([Mutex<HashSet<u64>>; SHARDS]);

impl Default for Ends {
    fn default() -> Self {
        Ends(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Ends {
    fn contains(&self, state: u64) -> bool {
        self.shard(state).lock().is_ok_and(|states| states.contains(&state))
    }

    fn insert(&self, state: u64) {
        let _ = self.shard(state).lock().map(|mut states| states.insert(state));
    }

    fn shard(&self, state: u64) -> &Mutex<HashSet<u64>> {
        &self.0[(state >> 58) as usize % SHARDS]
    }
}

/// Whether the schedule ends well from here.
pub fn ends_well(physics: &Physics, ends: &Ends, world: &World) -> bool {
    let mut way = Vec::new();
    let mut world = world.clone();
    loop {
        let state = world.fingerprint();
        if ends.contains(state) {
            break;
        }
        if way.contains(&state) || world.broken.is_some() {
            return false;
        }
        way.push(state);
        match next(physics, &world) {
            Some(action) => world = physics.step(&world, action, &mut Story::untold()),
            None if is_clean(physics, &world) => break,
            None => return false,
        }
    }
    way.into_iter().for_each(|state| ends.insert(state));
    true
}

/// The schedule's next action.
pub fn next(physics: &Physics, world: &World) -> Option<Action> {
    if !world.net.is_empty() {
        return Some(Action::Deliver(0));
    }
    if !world.parked.is_empty() {
        return Some(Action::Unpark);
    }
    for (index, call) in world.calls.iter().enumerate() {
        for role in [Role::Client, Role::Server] {
            if let Some(word) = call.words(role, physics.bounds.eager).next() {
                return Some(Action::Say(role, index, word));
            }
        }
    }
    if let Some(index) = physics.next_call(world) {
        return Some(Action::Say(Role::Client, index, Word::Start));
    }
    if is_forsaken(world) {
        return Some(Action::Fire(Role::Server, Timer::Dead));
    }
    let timers =
        [Timer::DelayedAck, Timer::FinalAck, Timer::Retransmit, Timer::ReachPing, Timer::Ping];
    let sides = [Role::Client, Role::Server];
    let mut all = timers.iter().flat_map(|timer| sides.map(|role| (role, *timer)));
    let (role, timer) =
        all.find(|(role, timer)| world.host(*role).channel.timer(*timer).is_some())?;
    Some(Action::Fire(role, timer))
}

/// Whether the server has a call of which its client knows nothing any more: a later one, of which the server
/// has heard nothing, was lost and given up. Packets of the older call do nothing at the client then
/// (rx-race.md R12), so only silence ends it.
fn is_forsaken(world: &World) -> bool {
    let (client, server) = (&world.client.channel, &world.server.channel);
    let last = client.call_number();
    let given_up = |call: &Call| call.number == last.0 && call.is_excused;
    client.state().is_none()
        && last > server.call_number()
        && world.calls.iter().any(given_up)
        && server.timer(Timer::Dead).is_some()
}

/// All is over, and well where no application and no death ended it.
fn is_clean(physics: &Physics, world: &World) -> bool {
    let idle = |role| world.host(role).channel.state().is_none();
    let calls = &world.calls[..physics.bounds.calls.len()];
    idle(Role::Client)
        && idle(Role::Server)
        && calls.iter().all(|call| {
            let good = [call.client.end, call.server.end].iter().all(|end| *end == Some(End::Good));
            call.is_over() && (good || call.is_excused)
        })
}
