//! The handle of an endpoint, and how one is made.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context};
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::future::{FutureExt, Shared};

use crate::actors::LocalEndpoint;
use crate::actors::lifetime::Held;
use crate::actors::local_endpoint::LocalEndpointParts;
use crate::actors::messages::{Inspect, OfferService, Shutdown};
use crate::actors::snapshot::Snapshot;
use crate::client::{ConnectOptions, Connection};
use crate::error::{CloseReason, ConnectError, ShutdownReport, StartError};
use crate::net::{Network, NetworkSource, UdpOptions};
use crate::proto::config::EndpointConfig;
use crate::proto::event::{LogSubscriber, Subscriber};
use crate::proto::router::Identity;
use crate::server::{Service, ServiceOptions};
use crate::wire::ServiceId;

/// A local endpoint: one socket, client and server at once. Cheap to clone, usable from any thread and
/// runtime. When the last clone, and the last connection made from one, are dropped, it shuts down at once;
/// [`Endpoint::shutdown`] does it gently.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: Addr<LocalEndpoint>,
    local_addr: SocketAddr,
    closed: Shared<futures::future::BoxFuture<'static, CloseReason>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.address.do_send(Shutdown { grace: Duration::ZERO, reply: None });
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
        Connection::open(self.inner.address.clone(), keep, peer, service.into(), options).await
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
        let service = Arc::new(answer);
        self.inner.address.do_send(OfferService { service_id, service, options });
    }

    /// The tree as it is now; `None` if the endpoint is closed.
    pub async fn inspect(&self) -> Option<Snapshot> {
        let (to, parts) = mpsc::unbounded();
        self.inner.address.do_send(Inspect { to });
        // Each actor drops its sender when it has answered: then the parts are complete.
        Snapshot::assemble(parts.collect().await)
    }

    /// Takes no new calls, lets those that run end for `grace` at most, cuts off the rest, and closes the
    /// socket. Always ends; says what was cut off, and the totals. A grace of zero cuts off at once. Asked for
    /// again, the shorter grace counts.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let (reply, report) = oneshot::channel();
        self.inner.address.do_send(Shutdown { grace, reply: Some(reply) });
        // An endpoint that is closed already has nothing left to cut off.
        report.await.unwrap_or_default()
    }

    /// Resolves when the endpoint is closed and all its connections are gone, with the reason. Waiting for it
    /// does not keep the endpoint open: what is returned holds no handle.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        self.inner.closed.clone()
    }

    /// The LocalEndpoint actor, for those who speak its messages.
    pub fn actor(&self) -> &Addr<LocalEndpoint> {
        &self.inner.address
    }
}

/// Makes an [`Endpoint`].
pub struct EndpointBuilder {
    network: NetworkChoice,
    config: EndpointConfig,
    services: Vec<(ServiceId, Arc<dyn Service>, ServiceOptions)>,
    subscribers: Vec<Box<dyn Subscriber>>,
    own_thread: Option<bool>,
    identity: Option<Identity>,
}

enum NetworkChoice {
    Bind(SocketAddr),
    Udp(UdpOptions),
    Source(NetworkSource),
}

impl Default for EndpointBuilder {
    fn default() -> Self {
        EndpointBuilder {
            network: NetworkChoice::Bind((Ipv4Addr::UNSPECIFIED, 0).into()),
            config: EndpointConfig::default(),
            services: Vec::new(),
            subscribers: Vec::new(),
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
    /// need none: they are written where the `log` level is Info or finer when the endpoint starts.
    pub fn subscribe(mut self, subscriber: impl Subscriber) -> Self {
        self.subscribers.push(Box::new(subscriber));
        self
    }

    /// Whether the endpoint has a thread of its own, named `rxrpc`. Without this: it runs on the caller's arbiter where
    /// there is an actix System, and on a thread of its own elsewhere.
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
        if log::log_enabled!(log::Level::Info) {
            self.subscribers.push(Box::new(LogSubscriber));
        }
        let source = match self.network {
            NetworkChoice::Bind(address) => UdpOptions::bind_to(address)
                .bind()
                .map_err(|source| StartError::Bind { address, source })?
                .into_source(),
            NetworkChoice::Udp(options) => {
                options.bind().map_err(StartError::Network)?.into_source()
            }
            NetworkChoice::Source(source) => source,
        };
        let (closed_sender, closed) = oneshot::channel();
        let (life, gone) = oneshot::channel::<std::convert::Infallible>();
        let closed = async {
            let reason = closed.await.unwrap_or(CloseReason::Broken);
            // Whoever ends a thread or a System now leaves no actor behind. It is never sent, only dropped.
            let _ = gone.await;
            reason
        };
        let closed = closed.boxed().shared();
        let plan = Plan {
            source,
            config: Arc::new(self.config),
            services: self.services,
            subscribers: self.subscribers,
            identity: self.identity,
            closed: closed_sender,
            life: Arc::new(life),
        };
        let in_system = actix_rt::System::try_current().is_some();
        let (address, local_addr) = if self.own_thread.unwrap_or(!in_system) {
            on_own_thread(plan, closed.clone()).await?
        } else {
            plan.run().map_err(StartError::Network)?
        };
        Ok(Endpoint { inner: Arc::new(Inner { address, local_addr, closed }) })
    }
}

/// What goes to the endpoint's thread.
struct Plan {
    source: NetworkSource,
    config: Arc<EndpointConfig>,
    services: Vec<(ServiceId, Arc<dyn Service>, ServiceOptions)>,
    subscribers: Vec<Box<dyn Subscriber>>,
    identity: Option<Identity>,
    closed: oneshot::Sender<CloseReason>,
    life: Arc<dyn Held>,
}

impl Plan {
    /// Starts the actor on the present arbiter.
    fn run(self) -> std::io::Result<(Addr<LocalEndpoint>, SocketAddr)> {
        let network = (self.source)()?;
        let local_addr = network.local_addr();
        let actor = LocalEndpoint::new(LocalEndpointParts {
            network,
            config: self.config,
            subscribers: self.subscribers,
            closed: self.closed,
            life: self.life,
            identity: self.identity,
        });
        let address = LocalEndpoint::create(|_: &mut Context<LocalEndpoint>| actor);
        for (service_id, service, options) in self.services {
            address.do_send(OfferService { service_id, service, options });
        }
        Ok((address, local_addr))
    }
}

async fn on_own_thread(
    plan: Plan,
    closed: Shared<futures::future::BoxFuture<'static, CloseReason>>,
) -> Result<(Addr<LocalEndpoint>, SocketAddr), StartError> {
    let (started, start) = oneshot::channel();
    std::thread::Builder::new()
        .name("rxrpc".to_owned())
        .spawn(move || {
            actix_rt::System::new().block_on(async move {
                let result = plan.run();
                let runs = result.is_ok();
                if started.send(result).is_ok() && runs {
                    closed.await;
                }
            });
        })
        .map_err(StartError::Thread)?;
    match start.await {
        Ok(result) => result.map_err(StartError::Network),
        Err(oneshot::Canceled) => {
            Err(StartError::Thread(std::io::Error::other("the endpoint's thread broke")))
        }
    }
}
