//! One copy of everything that many states have in common: of the millions of worlds that wait to be looked
//! at, most have a host, and all have datagrams, that others have too.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::world::Host;

const SHARDS: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Kept {
    hosts: [Mutex<Hosts>; SHARDS],
    datagrams: Mutex<HashSet<Arc<[u8]>>>,
}

#[derive(Debug, Default)]
struct Hosts {
    by_fingerprint: HashMap<u64, Arc<Host>>,
    /// Size at which those are let go that nobody else has.
    next_sweep: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Kept { hosts: std::array::from_fn(|_| Mutex::default()), datagrams: Mutex::default() }
    }
}

impl Kept {
    /// The copy of a host.
    pub fn host(&self, host: &mut Arc<Host>) {
        let shard = &self.hosts[(host.fingerprint >> 58) as usize % SHARDS];
        let Ok(mut hosts) = shard.lock() else { return };
        if hosts.by_fingerprint.len() >= hosts.next_sweep {
            hosts.by_fingerprint.retain(|_, host| Arc::strong_count(host) > 1);
            hosts.next_sweep = (2 * hosts.by_fingerprint.len()).max(1024);
        }
        let kept = hosts.by_fingerprint.entry(host.fingerprint).or_insert_with(|| host.clone());
        *host = kept.clone();
    }

    /// The copy of a datagram.
    pub fn datagram(&self, datagram: &[u8]) -> Arc<[u8]> {
        let Ok(mut datagrams) = self.datagrams.lock() else { return datagram.into() };
        if let Some(kept) = datagrams.get(datagram) {
            return kept.clone();
        }
        let kept: Arc<[u8]> = datagram.into();
        datagrams.insert(kept.clone());
        kept
    }
}
