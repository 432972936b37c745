//! How the shards of an endpoint come to be, each where it will run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context};
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt, Shared, join_all};

use super::shards::{AllTurns, Shards};
use crate::actors::LocalEndpoint;
use crate::actors::local_endpoint::siblings::Siblings;
use crate::actors::local_endpoint::{LocalEndpointParts, random_identity};
use crate::actors::messages::{Join, OfferService, Receive, Shutdown};
use crate::error::{CloseReason, StartError};
use crate::net::NetworkSource;
use crate::proto::config::{ConfigError, EndpointConfig};
use crate::proto::event::Subscriber;
use crate::proto::router::{Identity, Shard};
use crate::server::{Service, ServiceOptions};
use crate::wire::ServiceId;

/// Why it is closed, once it is.
pub(super) type Closed = Shared<BoxFuture<'static, CloseReason>>;

/// What all shards have in common.
pub(super) struct Plan {
    pub config: EndpointConfig,
    pub services: Vec<(ServiceId, Arc<dyn Service>, ServiceOptions)>,
    pub identity: Option<Identity>,
    pub has_own_threads: bool,
}

/// What one of them has for itself.
pub(super) struct ShardParts {
    pub source: NetworkSource,
    pub subscribers: Vec<Box<dyn Subscriber>>,
}

/// What became of it.
pub(super) struct Started {
    pub shards: Shards,
    pub local_addr: SocketAddr,
    pub closed: Closed,
}

/// An actor, and the address of its network.
type Running = (Addr<LocalEndpoint>, SocketAddr);

/// Starts all shards, or none: when one cannot be started, those that have been are ended again.
pub(super) async fn start(plan: Plan, parts: Vec<ShardParts>) -> Result<Started, StartError> {
    let count = parts.len();
    let config = if count == 1 { plan.config } else { plan.config.share(count) };
    let strays_max_bytes = config.strays_max_bytes;
    let config = Arc::new(config);
    let has_random_serials = plan.identity.is_none();
    let identity = plan.identity.unwrap_or_else(random_identity);
    let shard_at = |index| Shard::new(index, count).unwrap_or(Shard::ALONE);

    let turns = AllTurns::default();
    let mut starts = Vec::with_capacity(count);
    let mut closed = Vec::with_capacity(count);
    for (index, parts) in parts.into_iter().enumerate() {
        let (closed_sender, closed_receiver) = oneshot::channel();
        let (life, gone) = oneshot::channel::<std::convert::Infallible>();
        let is_closed = async {
            let reason = closed_receiver.await.unwrap_or(CloseReason::Broken);
            // Whoever ends a thread or a System now leaves no actor behind. It is never sent, only dropped.
            let _ = gone.await;
            reason
        };
        let is_closed: Closed = is_closed.boxed().shared();
        let (config, shard) = (config.clone(), shard_at(index));
        let ShardParts { source, subscribers } = parts;
        let offers = plan.services.iter().cloned().map(|(service_id, service, options)| {
            let turns = turns.of(service_id, count);
            OfferService { service_id, service, options, turns }
        });
        let offers: Vec<_> = offers.collect();
        let run = move || {
            let network = source()?;
            let local_addr = network.local_addr();
            let actor = LocalEndpoint::new(LocalEndpointParts {
                network,
                config,
                subscribers,
                closed: closed_sender,
                life: Arc::new(life),
                identity,
                has_random_serials,
                shard,
            });
            let address = LocalEndpoint::create(|_: &mut Context<LocalEndpoint>| actor);
            // Before it receives anything.
            offers.into_iter().for_each(|offer| address.do_send(offer));
            Ok((address, local_addr))
        };
        let (started, start) = oneshot::channel();
        if plan.has_own_threads {
            let name = if count == 1 { "rxrpc".to_owned() } else { format!("rxrpc-{index}") };
            on_own_thread(name, run, started, is_closed.clone())?;
        } else {
            // The other end is right here.
            let _ = started.send(run());
        }
        starts.push(start);
        closed.push(is_closed);
    }
    let closed = join_all(closed).map(worst).boxed().shared();
    let (addresses, local_addr) = match all(starts).await {
        Ok(all) => all,
        Err(error) => {
            // They have all been told.
            closed.await;
            return Err(error);
        }
    };
    let shards = Shards::new(addresses, turns);
    if count > 1 {
        for (index, address) in shards.all().iter().enumerate() {
            let siblings = Siblings::new(shard_at(index), shards.all(), strays_max_bytes);
            address.do_send(Join(Box::new(siblings)));
        }
        shards.all().iter().for_each(|address| address.do_send(Receive));
    }
    Ok(Started { shards, local_addr, closed })
}

/// Waits for all; if one fails, the others are told to end.
async fn all(
    starts: Vec<oneshot::Receiver<std::io::Result<Running>>>,
) -> Result<(Vec<Addr<LocalEndpoint>>, SocketAddr), StartError> {
    let (mut running, mut failure) = (Vec::<Running>::new(), None);
    for start in starts {
        match start.await {
            Ok(Ok(one)) => running.push(one),
            Ok(Err(error)) => failure = Some(StartError::Network(error)),
            Err(oneshot::Canceled) => {
                let broke = std::io::Error::other("the endpoint's thread broke");
                failure = Some(StartError::Thread(broke));
            }
        }
    }
    if let Some((_, at)) = running.iter().find(|(_, at)| *at != running[0].1) {
        let one = format_args!("that of the first, {}", running[0].1).to_string();
        failure.get_or_insert(ConfigError::new("networks: address", one, at).into());
    }
    match failure {
        None => {
            let local_addr = running[0].1;
            Ok((running.into_iter().map(|(address, _)| address).collect(), local_addr))
        }
        Some(error) => {
            for (address, _) in running {
                address.do_send(Shutdown { grace: Duration::ZERO, reply: None });
            }
            Err(error)
        }
    }
}

fn on_own_thread(
    name: String,
    run: impl FnOnce() -> std::io::Result<Running> + Send + 'static,
    started: oneshot::Sender<std::io::Result<Running>>,
    closed: Closed,
) -> Result<(), StartError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            actix_rt::System::new().block_on(async move {
                let result = run();
                let runs = result.is_ok();
                if started.send(result).is_ok() && runs {
                    closed.await;
                }
            });
        })
        .map(drop)
        .map_err(StartError::Thread)
}

/// The reason of an endpoint whose shards have ended for these.
fn worst(reasons: Vec<CloseReason>) -> CloseReason {
    let badness = |reason: &CloseReason| match reason {
        CloseReason::Shutdown => 0,
        CloseReason::Network(_) => 1,
        CloseReason::Broken => 2,
    };
    reasons.into_iter().max_by_key(badness).unwrap_or(CloseReason::Broken)
}
