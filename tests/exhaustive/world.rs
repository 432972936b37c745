//! One state of everything: two channels of the real core, the network between them, their applications,
//! and what may still go wrong.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use rxrpc::proto::Role;
use rxrpc::proto::channel::Channel;
use rxrpc::proto::channel::exploring::Timer;
use rxrpc::proto::peer::PeerHint;
use rxrpc::wire::Serial;

use crate::apps::{Call, Word};
use crate::rules::{Obligations, Rule};

/// Most calls of a search.
pub const CALLS_MAX: usize = 3;
/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// This datagram of the network arrives.
    Deliver(usize),
    /// It arrives, and will arrive again.
    Repeat(usize),
    /// These two arrive as one run.
    Together(usize, usize),
    /// It is lost.
    Lose(usize),
    /// The ACK at the head of the queue that should not be there is looked at.
    Unpark,
    /// A timer is due and served.
    Fire(Role, Timer),
    /// The delayed ACK is due, and something else comes first.
    Lapse(Role),
    /// An application of this call does something.
    Say(Role, usize, Word),
}

/// A datagram in the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    pub to: Role,
    pub datagram: Arc<[u8]>,
}

/// One end of the channel.
#[derive(Clone, Debug)]
pub struct Host {
    pub channel: Arc<Channel>,
    /// What its endpoint remembers of the other.
    pub hint: PeerHint,
    pub obligations: Obligations,
    /// The serials that the channel keeps, once they are numbered anew; none since it changed.
    pub serials: Option<Arc<[(Role, Serial)]>>,
    pub fingerprint: u64,
}

impl Host {
    pub fn replace(&mut self, channel: Channel) {
        self.channel = Arc::new(channel);
        (self.serials, self.fingerprint) = (None, 0);
    }
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub losses: u8,
    pub repeats: u8,
    pub resends: u8,
    pub pings: u8,
    pub aborts: u8,
    pub deaths: u8,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct World {
    pub client: Arc<Host>,
    pub server: Arc<Host>,
    /// By receiver, then by serial.
    pub net: Vec<Flight>,
    /// ACKs that wait elsewhere, in a server that is broken so.
    pub parked: Vec<Flight>,
    pub calls: [Call; CALLS_MAX],
    pub left: Left,
    pub broken: Option<Rule>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.fingerprint(), self.left).hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.fingerprint() == other.fingerprint() && self.left == other.left
    }
}

impl World {
    /// All but what may still go wrong.
    pub fn fingerprint(&self) -> u64 {
        let hosts = (self.client.fingerprint, self.server.fingerprint);
        fingerprint(&(hosts, &self.net, &self.parked, &self.calls, self.broken))
    }

    pub fn host(&self, role: Role) -> &Host {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    pub fn host_mut(&mut self, role: Role) -> &mut Host {
        match role {
            Role::Client => Arc::make_mut(&mut self.client),
            Role::Server => Arc::make_mut(&mut self.server),
        }
    }

    pub fn break_rule(&mut self, rule: Option<Rule>) {
        self.broken = self.broken.or(rule);
    }
}

pub fn fingerprint(value: &impl Hash) -> u64 {
    FixedState::with_seed(0x5eed).hash_one(value)
}
