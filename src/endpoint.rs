//! The handle of an endpoint, and how one is made.

pub(crate) mod shards;
mod start;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::future::join_all;

use crate::actors::LocalEndpoint;
use crate::actors::lifetime::Held;
use crate::actors::messages::{Inspect, Shutdown};
use crate::actors::snapshot::Snapshot;
use crate::client::{ConnectOptions, Connection};
use crate::error::{CloseReason, ConnectError, ShutdownReport, StartError};
use crate::net::{BoundUdp, NetworkSource, UdpOptions};
use crate::proto::config::{ConfigError, EndpointConfig};
use crate::proto::event::{LogSubscriber, Subscriber};
use crate::proto::router::Identity;
use crate::server::{Service, ServiceOptions};
use crate::wire::ServiceId;
use shards::Shards;
use start::{Closed, Plan, ShardParts, Started};

/// A local endpoint: one port, client and server at once. Cheap to clone, usable from any thread and
/// runtime. When the last clone, and the last connection made from one, are dropped, it shuts down at once;
/// [`Endpoint::shutdown`] does it gently.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shards: Shards,
    local_addr: SocketAddr,
    closed: Closed,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for shard in self.shards.all() {
            shard.do_send(Shutdown { grace: Duration::ZERO, reply: None });
        }
    }
}

impl Endpoint {
    /// Begins to make an endpoint.
    pub fn builder() -> EndpointBuilder {
        EndpointBuilder::default()
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// Opens a connection to `service` at `peer`, without security. Nothing is sent before the first call, so
    /// this says nothing about whether the peer is there.
    ///
    /// The peer's address family must be that of the endpoint's socket; names are looked up outside, with
    /// `tokio::net::lookup_host` for example.
    ///
    /// # Errors
    /// The endpoint is closed or closing, or has as many connections as it may have.
    pub async fn connect(
        &self,
        peer: SocketAddr,
        service: impl Into<ServiceId>,
    ) -> Result<Connection, ConnectError> {
        self.connect_with(peer, service, ConnectOptions::default()).await
    }

    /// As [`Endpoint::connect`], with options.
    pub async fn connect_with(
        &self,
        peer: SocketAddr,
        service: impl Into<ServiceId>,
        options: ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        let keep: Arc<dyn Held> = self.inner.clone();
        Connection::open(self.inner.shards.clone(), keep, peer, service.into(), options).await
    }

    /// Offers a service from now on, in place of an earlier one with the same id. Calls that have begun, and
    /// connections that are open, keep the service they began with.
    pub fn offer(&self, service: impl Into<ServiceId>, answer: impl Service) {
        self.offer_with(service, answer, ServiceOptions::default());
    }

    /// As [`Endpoint::offer`], with options.
    pub fn offer_with(
        &self,
        service: impl Into<ServiceId>,
        answer: impl Service,
        options: ServiceOptions,
    ) {
        let service_id = service.into();
        let service: Arc<dyn Service> = Arc::new(answer);
        self.inner.shards.offer(service_id, &service, &options);
    }

    /// The tree as it is now, that of all shards together; `None` if the endpoint is closed.
    pub async fn inspect(&self) -> Option<Snapshot> {
        let ask = |shard: &Addr<LocalEndpoint>| {
            let (to, parts) = mpsc::unbounded();
            shard.do_send(Inspect { to });
            // Each actor drops its sender when it has answered: then the parts are complete.
            parts.collect()
        };
        let shards = join_all(self.inner.shards.all().iter().map(ask)).await;
        Snapshot::of_shards(shards.into_iter().map(Snapshot::assemble))
    }

    /// Takes no new calls, lets those that run end for `grace` at most, cuts off the rest, and closes the
    /// socket. Always ends; says what was cut off, and the totals. A grace of zero cuts off at once. Asked for
    /// again, the shorter grace counts.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let ask = |shard: &Addr<LocalEndpoint>| {
            let (reply, report) = oneshot::channel();
            shard.do_send(Shutdown { grace, reply: Some(reply) });
            report
        };
        let mut sum = ShutdownReport::default();
        // One that is closed already has nothing left to cut off.
        for report in join_all(self.inner.shards.all().iter().map(ask)).await.into_iter().flatten()
        {
            sum.calls_cut += report.calls_cut;
            sum.connections_closed += report.connections_closed;
            sum.counters.merge(&report.counters);
        }
        sum
    }

    /// Resolves when the endpoint is closed and all its connections are gone, with the reason. Waiting for it
    /// does not keep the endpoint open: what is returned holds no handle.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        self.inner.closed.clone()
    }

    /// The LocalEndpoint actor, for those who speak its messages; of several shards the first.
    pub fn actor(&self) -> &Addr<LocalEndpoint> {
        &self.actors()[0]
    }

    /// The LocalEndpoint actors of all shards, in order.
    pub fn actors(&self) -> &[Addr<LocalEndpoint>] {
        self.inner.shards.all()
    }
}

/// Most shards of an endpoint.
const SHARDS_MAX: usize = 64;

/// Makes an [`Endpoint`].
pub struct EndpointBuilder {
    network: NetworkChoice,
    config: EndpointConfig,
    services: Vec<(ServiceId, Arc<dyn Service>, ServiceOptions)>,
    watchers: Vec<Watcher>,
    shards: Option<usize>,
    own_thread: Option<bool>,
    identity: Option<Identity>,
}

enum NetworkChoice {
    Bind(SocketAddr),
    Udp(UdpOptions),
    Source(NetworkSource),
    Sources(Vec<NetworkSource>),
}

impl Default for EndpointBuilder {
    fn default() -> Self {
        EndpointBuilder {
            network: NetworkChoice::Bind((Ipv4Addr::UNSPECIFIED, 0).into()),
            config: EndpointConfig::default(),
            services: Vec::new(),
            watchers: Vec::new(),
            shards: None,
            own_thread: None,
            identity: None,
        }
    }
}

impl std::fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl EndpointBuilder {
    /// The address to bind; port 0 = any free one. Without it, any IPv4 address and a free port.
    pub fn bind(mut self, address: impl Into<SocketAddr>) -> Self {
        self.network = NetworkChoice::Bind(address.into());
        self
    }

    /// A UDP socket with options, or an inherited one.
    pub fn udp(mut self, options: UdpOptions) -> Self {
        self.network = NetworkChoice::Udp(options);
        self
    }

    /// Any network: in memory, with faults, a mock. Opened on the endpoint's thread.
    pub fn network(mut self, source: NetworkSource) -> Self {
        self.network = NetworkChoice::Source(source);
        self
    }

    /// A network for each shard, opened on its thread: sockets that a supervisor bound to one port, or a test's. All
    /// have the same address. Sets the number of shards.
    pub fn networks(mut self, sources: Vec<NetworkSource>) -> Self {
        self.network = NetworkChoice::Sources(sources);
        self
    }

    /// All settings at once.
    pub fn config(mut self, config: EndpointConfig) -> Self {
        self.config = config;
        self
    }

    /// Changes settings in place.
    pub fn configure(mut self, change: impl FnOnce(&mut EndpointConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Offers a service. Its calls wait until their client has proved its address; see
    /// [`ServiceOptions::small_replies`]. Service ids are 1 to 65535; a packet for service 0 is dropped. Well
    /// known ones of AFS: 1 (file server), 4 (volume server), 52 (vlserver), 73 (ptserver).
    pub fn service(self, id: impl Into<ServiceId>, service: impl Service) -> Self {
        self.service_with(id, service, ServiceOptions::default())
    }

    /// As [`EndpointBuilder::service`], with options.
    pub fn service_with(
        mut self,
        id: impl Into<ServiceId>,
        service: impl Service,
        options: ServiceOptions,
    ) -> Self {
        self.services.push((id.into(), Arc::new(service), options));
        self
    }

    /// Somebody who is told of every event, on the endpoint's thread: it must return at once. Log lines
    /// need none: they are written where the `log` level is Info or finer when the endpoint starts. An endpoint of
    /// several shards refuses it: [`EndpointBuilder::subscribe_each`].
    pub fn subscribe(mut self, subscriber: impl Subscriber) -> Self {
        self.watchers.push(Watcher::One(Some(Box::new(subscriber))));
        self
    }

    /// As [`EndpointBuilder::subscribe`], for an endpoint of several shards: `make` makes one for each, given
    /// its place from 0 on, and each is told on its shard's thread of that shard's events.
    pub fn subscribe_each<S: Subscriber>(
        mut self,
        mut make: impl FnMut(usize) -> S + Send + 'static,
    ) -> Self {
        self.watchers.push(Watcher::Each(Box::new(move |shard| Box::new(make(shard)))));
        self
    }

    /// Divides the endpoint into `count` shards, 1 to 64: 1 unless set. Each has a thread of its own, named
    /// `rxrpc-0` and so on, its own socket at the same port (`SO_REUSEPORT`) and its own share of connections; the
    /// handle is one for all.
    ///
    /// The kernel gives all that comes from one address and port to one socket, so a server's clients are spread by
    /// their addresses, and a single busy client keeps one shard busy. Client connections are spread in turn, those
    /// of a bundle too ([`ConnectOptions::connections_max`]); what comes to another shard than its connection's is
    /// handed over. Services are shared by all shards: they run on the thread of their caller's connection.
    ///
    /// - Limits of [`EndpointConfig`] for all connections, bytes or answers are divided, and rates of one IP address;
    ///   those for one address and port are each shard's own (docs/limits.md). [`ServiceOptions::running_calls_max`] holds for all shards together.
    /// - What is known of a peer, and what DEBUG shows, is each shard's own.
    /// - With [`EndpointConfig::strict_address`] off, a client's connection belongs to the shard that epoch and
    ///   connection id name, and most of its packets are handed over.
    /// - A shard that breaks, or whose socket fails, ends the others too; [`Endpoint::closed`] says why.
    /// - With an inherited socket, or [`EndpointBuilder::network`], more than one is an error: see
    ///   [`EndpointBuilder::networks`]. So it is with [`EndpointBuilder::subscribe`]: see
    ///   [`EndpointBuilder::subscribe_each`].
    pub fn shards(mut self, count: usize) -> Self {
        self.shards = Some(count);
        self
    }

    /// Whether the endpoint has a thread of its own, named `rxrpc`; with several shards, a thread for each, or
    /// all of them on the caller's arbiter, which is for tests. Without this: one shard runs on the
    /// caller's arbiter where there is an actix System, and on a thread of its own elsewhere; several have threads.
    pub fn own_thread(mut self, own_thread: bool) -> Self {
        self.own_thread = Some(own_thread);
        self
    }

    /// Names and seeds instead of random ones, for tests that repeat exactly.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Binds the socket and starts the endpoint.
    ///
    /// # Errors
    /// A setting is out of its range, the socket cannot be bound, the network cannot be opened, or the
    /// endpoint's thread cannot be started. Nothing is left running then.
    pub async fn start(mut self) -> Result<Endpoint, StartError> {
        self.config.validate()?;
        let given = match &self.network {
            NetworkChoice::Sources(sources) => Some(sources.len()),
            _ => None,
        };
        let count = self.shards.or(given).unwrap_or(1);
        if !(1..=SHARDS_MAX).contains(&count) {
            return Err(ConfigError::new("shards", format_args!("1 to {SHARDS_MAX}"), count).into());
        }
        if let Some(given) = given.filter(|given| *given != count) {
            let expected = format_args!("{count}, one for each shard");
            return Err(ConfigError::new("networks", expected, given).into());
        }
        let sources = EndpointBuilder::sources(self.network, count)?;
        let count = sources.len();
        let mut parts = Vec::with_capacity(count);
        for (shard, source) in sources.into_iter().enumerate() {
            let subscribers = self.watchers.iter_mut().map(|watcher| watcher.of(shard, count));
            let mut subscribers = subscribers.collect::<Result<Vec<_>, _>>()?;
            if log::log_enabled!(log::Level::Info) {
                subscribers.push(Box::new(LogSubscriber));
            }
            parts.push(ShardParts { source, subscribers });
        }
        let in_system = actix_rt::System::try_current().is_some();
        let plan = Plan {
            config: self.config,
            services: self.services,
            identity: self.identity,
            has_own_threads: self.own_thread.unwrap_or(count > 1 || !in_system),
        };
        let Started { shards, local_addr, closed } = start::start(plan, parts).await?;
        Ok(Endpoint { inner: Arc::new(Inner { shards, local_addr, closed }) })
    }

    /// A network for each shard.
    fn sources(network: NetworkChoice, count: usize) -> Result<Vec<NetworkSource>, StartError> {
        let into_sources =
            |bound: Vec<BoundUdp>| bound.into_iter().map(BoundUdp::into_source).collect();
        match network {
            NetworkChoice::Bind(address) => UdpOptions::bind_to(address)
                .bind_shared(count)
                .map_err(|source| StartError::Bind { address, source })
                .map(into_sources),
            NetworkChoice::Udp(options) => {
                options.bind_shared(count).map_err(StartError::Network).map(into_sources)
            }
            NetworkChoice::Source(source) if count == 1 => Ok(vec![source]),
            NetworkChoice::Source(_) => {
                let expected = "one for each shard (EndpointBuilder::networks)";
                Err(ConfigError::new("network", expected, "one").into())
            }
            NetworkChoice::Sources(sources) => Ok(sources),
        }
    }
}

/// Somebody who is told of events.
enum Watcher {
    One(Option<Box<dyn Subscriber>>),
    Each(Box<dyn FnMut(usize) -> Box<dyn Subscriber> + Send>),
}

impl Watcher {
    /// The one for this shard.
    fn of(&mut self, shard: usize, count: usize) -> Result<Box<dyn Subscriber>, ConfigError> {
        match self {
            Watcher::One(one) if count == 1 => one.take(),
            Watcher::One(_) => None,
            Watcher::Each(make) => Some(make(shard)),
        }
        .ok_or_else(|| {
            let expected = "one for each shard (EndpointBuilder::subscribe_each)";
            ConfigError::new("subscribe", expected, "one")
        })
    }
}
