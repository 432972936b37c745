//! The shards behind a handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::Addr;

use crate::actors::LocalEndpoint;

/// The LocalEndpoints of an endpoint; one, unless it is divided. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shards {
    all: Arc<[Addr<LocalEndpoint>]>,
    next: Arc<AtomicUsize>,
}

impl Shards {
    /// At least one.
    pub fn new(all: Vec<Addr<LocalEndpoint>>) -> Shards {
        Shards { all: all.into(), next: Arc::default() }
    }

    /// The shard whose turn it is to get a connection.
    pub fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()
    }

    /// All of them, from that at `first` on.
    pub fn from(&self, first: usize) -> impl Iterator<Item = &Addr<LocalEndpoint>> {
        let count = self.all.len();
        (first..first + count).map(move |place| &self.all[place % count])
    }

    /// In order.
    pub fn all(&self) -> &[Addr<LocalEndpoint>] {
        &self.all
    }
}
