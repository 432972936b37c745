//! A way through the states as a ladder to read.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::proto::channel::{Channel, Notice};
use rxrpc::proto::{CallState, CallTag, Role};
use rxrpc::testkit::world::{Entry, Fate, What, ladder};
use rxrpc::wire::CallNumber;

use crate::world::{Action, World};

/// Takes down what happens, if anybody wants to know. Each step is a second.
#[derive(Debug, Default)]
pub struct Story {
    entries: Option<Vec<Entry>>,
    steps: u64,
}

impl Story {
    /// Nobody wants to know.
    pub fn untold() -> Story {
        Story::default()
    }

    pub fn told_to_a_reader() -> Story {
        Story { entries: Some(Vec::new()), steps: 0 }
    }

    pub fn remark(&mut self, text: &str) {
        self.add(|| What::World(text.to_owned()));
    }

    /// What happens next.
    pub fn act(&mut self, world: &World, action: Action) {
        self.steps += 1;
        let (from, to) = match action {
            Action::Deliver(index) | Action::Repeat(index) | Action::Lose(index) => {
                ends(world.net[index].to)
            }
            Action::Together(first, second) => {
                self.remark("received together:");
                for index in [first, second] {
                    let datagram = Bytes::copy_from_slice(&world.net[index].datagram);
                    let (from, to) = ends(world.net[index].to);
                    self.add(|| What::Arrived { from, to, number: 0, datagram });
                }
                return;
            }
            Action::Unpark => ends(Role::Server),
            Action::Fire(role, timer) => {
                return self.remark(&format!("{role:?}: timer {timer:?} is due"));
            }
            Action::Lapse(role) => {
                return self.remark(&format!("{role:?}: delayed ACK is due, its timer late"));
            }
            Action::Say(role, call, word) => {
                return self.remark(&format!("{role:?} application, call {}: {word:?}", call + 1));
            }
        };
        let flight = match action {
            Action::Unpark => &world.parked[0],
            Action::Deliver(index) | Action::Repeat(index) | Action::Lose(index) => {
                &world.net[index]
            }
            _ => return,
        };
        let datagram = Bytes::copy_from_slice(&flight.datagram);
        match action {
            Action::Lose(_) => {
                self.add(|| What::Sent { from, to, number: 0, datagram, fate: Fate::Lost })
            }
            Action::Unpark => {
                self.remark("next in the queue of ACKs:");
                self.add(|| What::Arrived { from, to, number: 0, datagram });
            }
            _ => {
                if matches!(action, Action::Repeat(_)) {
                    self.remark("the network will deliver this once more:");
                }
                self.add(|| What::Arrived { from, to, number: 0, datagram });
            }
        }
    }

    pub fn sent(&mut self, role: Role, datagram: &[u8]) {
        let (to, from) = ends(role);
        let datagram = Bytes::copy_from_slice(datagram);
        self.add(|| What::Sent { from, to, number: 0, datagram, fate: Fate::Arrives });
    }

    pub fn told(&mut self, role: Role, tag: CallTag, notice: &Notice) {
        let (_, host) = ends(role);
        let what = format!("is told {notice:?}");
        self.add(|| What::Told { host, call: tag.0, number: 0, what });
    }

    pub fn changed(
        &mut self,
        role: Role,
        before: (CallNumber, Option<CallState>),
        channel: &Channel,
    ) {
        let after = (channel.call_number(), channel.state());
        if before == after {
            return;
        }
        let show = |(number, state): (CallNumber, Option<CallState>)| match state {
            Some(state) => format!("n{number} {state:?}"),
            None => format!("idle after n{number}"),
        };
        self.remark(&format!("{role:?}: {} -> {}", show(before), show(after)));
    }

    /// The ladder.
    pub fn text(&self) -> String {
        let entries = self.entries.as_deref().unwrap_or_default();
        let text = ladder(entries, usize::MAX);
        let [client, server] = [Role::Client, Role::Server].map(|role| ends(role).1.to_string());
        text.replace(&client, "client").replace(&server, "server")
    }

    fn add(&mut self, what: impl FnOnce() -> What) {
        if let Some(entries) = &mut self.entries {
            let at = Duration::from_secs(self.steps);
            entries.push(Entry { at, what: what(), before: None, after: None });
        }
    }
}

/// Names of the other end, and of this one.
fn ends(role: Role) -> (SocketAddr, SocketAddr) {
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = SocketAddr::from(([127, 0, 0, 1], 2));
    match role {
        Role::Client => (server, client),
        Role::Server => (client, server),
    }
}
