//! The shards behind a handle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::Addr;

use crate::actors::LocalEndpoint;
use crate::actors::messages::OfferService;
use crate::proto::router::SharedTurns;
use crate::server::{Service, ServiceOptions};
use crate::wire::ServiceId;

/// The LocalEndpoints of an endpoint; one, unless it is divided. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shards {
    all: Arc<[Addr<LocalEndpoint>]>,
    next: Arc<AtomicUsize>,
    turns: AllTurns,
}

impl Shards {
    /// At least one; what they have been offered has its turns from `turns`.
    pub fn new(all: Vec<Addr<LocalEndpoint>>, turns: AllTurns) -> Shards {
        Shards { all: all.into(), next: Arc::default(), turns }
    }

    /// All of them offer it from now on.
    pub fn offer(
        &self,
        service_id: ServiceId,
        service: &Arc<dyn Service>,
        options: &ServiceOptions,
    ) {
        let turns = self.turns.of(service_id, self.all.len());
        for shard in &*self.all {
            let (service, options, turns) = (service.clone(), options.clone(), turns.clone());
            shard.do_send(OfferService { service_id, service, options, turns });
        }
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

/// The calls at once of every service that was ever offered by several shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllTurns(Arc<Mutex<HashMap<ServiceId, SharedTurns>>>);

impl AllTurns {
    /// Those of a service on `shards`; one shard counts for itself.
    pub fn of(&self, service_id: ServiceId, shards: usize) -> Option<SharedTurns> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (shards > 1).then(|| lock().entry(service_id).or_default().clone())
    }
}
