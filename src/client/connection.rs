//! A client's connection to a service: as many calls at once as its channels carry, and more connections
//! of the same bundle when they do not, up to a limit; then calls wait their turn.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Addr, Handler, Message};
use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::port::{Answer, ClientPort};
use super::streaming::RequestWriter;
use crate::actors::lifetime::Held;
use crate::actors::local_endpoint::Target;
use crate::actors::messages::{CallKey, CancelCall, Close, Connect, Connected, StartCall, Wake};
use crate::actors::{self, LocalEndpoint};
use crate::endpoint::shards::Shards;
use crate::error::{CallError, ConnectError};
use crate::proto::CallFailure;
use crate::proto::channel::Start;
use crate::security::{ClientClass, RxNull};
use crate::stream::Link;
use crate::wire::{ChannelIndex, ServiceId};

/// Tries of one call with connections that turn out to be closed, before the call fails.
const TRIES_MAX: usize = 4;

/// How a connection is made.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The security class and its credentials.
    pub security: Arc<dyn ClientClass>,
    /// Connections of the bundle: 1..=64, values outside count as the nearest. Each carries four calls at
    /// once; calls beyond them wait their turn.
    pub connections_max: usize,
    /// Whether the first call of each connection asks for a service upgrade (rx-calls.md 12).
    pub asks_upgrade: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions { security: Arc::new(RxNull), connections_max: 4, asks_upgrade: false }
    }
}

/// How a call is made.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// Longest time for the whole call, waiting for a channel included; `None` = the connection's setting,
    /// which is no limit unless configured. Zero fails at once.
    pub deadline: Option<Duration>,
    /// Largest reply of a whole call, in bytes: 256 MiB unless set. A streamed reply has no limit.
    pub reply_max_bytes: usize,
    /// Whether the call has a connection of its own, closed when the call ends.
    pub exclusive: bool,
    /// The application byte (userStatus) of its packets; no peer is known to use it.
    pub user_status: u8,
}

impl Default for CallOptions {
    fn default() -> Self {
        CallOptions { deadline: None, reply_max_bytes: 256 << 20, exclusive: false, user_status: 0 }
    }
}

impl CallOptions {
    /// A call that fails if it has not ended within `deadline`.
    pub fn within(deadline: Duration) -> CallOptions {
        CallOptions { deadline: Some(deadline), ..CallOptions::default() }
    }
}

/// A connection to a service: cheap to clone, usable from any thread and runtime. The connections behind
/// it are closed when its last clone and its last call are gone.
#[derive(Clone, Debug)]
pub struct Connection {
    bundle: Arc<Bundle>,
}

impl Connection {
    /// Opens the first connection of a bundle.
    pub(crate) async fn open(
        endpoint: Shards,
        keep: Arc<dyn Held>,
        peer: SocketAddr,
        service_id: ServiceId,
        options: ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        let count = options.connections_max.clamp(1, 64);
        let bundle = Arc::new(Bundle {
            first_shard: endpoint.next(),
            endpoint,
            peer,
            service_id,
            options,
            places: Semaphore::new(count * ChannelIndex::COUNT),
            slots: (0..count).map(|_| Slot::default()).collect(),
            next_key: AtomicU64::new(0),
            _keep: keep,
        });
        let opened = bundle.open(0).await?;
        bundle.slots[0].set(opened.keep());
        Ok(Connection { bundle })
    }

    /// The peer.
    pub fn peer(&self) -> SocketAddr {
        self.bundle.peer
    }

    /// The service.
    pub fn service_id(&self) -> ServiceId {
        self.bundle.service_id
    }

    /// Makes a whole call: all of the request now, all of the reply at the end. Dropping the future aborts
    /// the call.
    ///
    /// Without a deadline it waits for as long as the server works and its machine answers keep-alives; a
    /// server that falls silent is given up after `CallConfig::dead_timeout` (20 s).
    ///
    /// # Errors
    /// The server aborted the call ([`CallError::abort_code`]), it fell silent or cannot be reached, the
    /// deadline passed, or the reply is larger than allowed. A call that failed may have run at the server.
    pub async fn call(&self, request: impl Into<Bytes>) -> Result<Bytes, CallError> {
        self.call_with(request, CallOptions::default()).await
    }

    /// As [`Connection::call`], with options.
    pub async fn call_with(
        &self,
        request: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Bytes, CallError> {
        let start = Start { request: request.into(), is_whole: true, ..Start::default() };
        let (_place, answer) = self
            .begin(start, options, |reply| (ClientPort::whole(reply, options.reply_max_bytes), ()))
            .await?;
        Ok(answer.0)
    }

    /// Begins a call whose request is written in pieces. Returns when it has a channel; nothing is sent
    /// before the first packet is full, flushed or finished.
    ///
    /// # Errors
    /// As [`Connection::call`], as far as it can fail before anything is sent.
    pub async fn open_call(&self, options: CallOptions) -> Result<RequestWriter, CallError> {
        let (place, (opened, events)) = self
            .begin(Start::default(), options, |reply| {
                let (sender, events) = mpsc::unbounded();
                (ClientPort::stream(reply, sender), events)
            })
            .await?;
        let link =
            Link::new(opened.channel, opened.tag, 0, Some(events)).with_deadline(options.deadline);
        Ok(RequestWriter { link, is_closed: false, place })
    }

    /// Finds a place, a connection and a channel for a call; `port` makes what is told of it.
    async fn begin<T, E>(
        &self,
        start: Start,
        options: CallOptions,
        port: impl Fn(oneshot::Sender<Answer<T>>) -> (ClientPort, E),
    ) -> Result<(Place, (T, E)), CallError> {
        let began = options.deadline.map(|_| tokio::time::Instant::now());
        let start = Start { user_status: options.user_status, ..start };
        let bundle =
            if options.exclusive { self.bundle.alone().await? } else { self.bundle.clone() };
        bundle.permit(options.deadline).await?;
        let place = Place::taken(bundle);
        for _ in 0..TRIES_MAX {
            let target = place.connection().await?;
            // A channel that broke has another in its place, which the connection knows.
            for asked in [Asked::Channel(place.channel), Asked::Connection] {
                let left = options.deadline.zip(began);
                let left = left.map(|(deadline, began)| deadline.saturating_sub(began.elapsed()));
                if let (Some(Duration::ZERO), Some(deadline)) = (left, options.deadline) {
                    return Err(CallFailure::Deadline(deadline).into());
                }
                let key = CallKey(place.bundle.next_key.fetch_add(1, Ordering::Relaxed));
                let (reply, answer) = oneshot::channel();
                let (port, events) = port(reply);
                let start = Start { deadline: left, ..start.clone() };
                asked.tell(&target, StartCall { key, index: place.channel, start, port });
                let mut guard = CancelGuard { of: Some((&target, asked)), key };
                let answer = answer.await;
                guard.of = None;
                match answer {
                    Ok(Answer::Done(Ok(result))) => return Ok((place, (result, events))),
                    Ok(Answer::Done(Err(error))) => return Err(as_asked(error, options.deadline)),
                    Ok(Answer::NotTaken) => {}
                    // Its channel, its connection or its endpoint broke; it may have run.
                    Err(oneshot::Canceled) => return Err(CallFailure::Broken.into()),
                }
            }
            place.forget(&target);
        }
        Err(ConnectError::Closed.into())
    }
}

/// A deadline that passed is told as the caller set it, not as what was left of it when the call began.
fn as_asked(error: CallError, deadline: Option<Duration>) -> CallError {
    match (error, deadline) {
        (CallError::Failed(CallFailure::Deadline(_)), Some(deadline)) => {
            CallFailure::Deadline(deadline).into()
        }
        _ => error,
    }
}

/// Who is asked to make a call.
#[derive(Clone, Copy)]
enum Asked {
    Channel(ChannelIndex),
    Connection,
}

impl Asked {
    fn tell<M>(self, target: &Target, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        actors::Channel: Handler<M>,
        actors::Connection: Handler<M>,
    {
        match self {
            Asked::Channel(index) => target.channels[index.index()].do_send(message),
            Asked::Connection => target.connection.do_send(message),
        }
    }
}

/// Aborts a call whose future is dropped.
struct CancelGuard<'a> {
    of: Option<(&'a Target, Asked)>,
    key: CallKey,
}

impl Drop for CancelGuard<'_> {
    fn drop(&mut self) {
        if let Some((target, asked)) = self.of {
            asked.tell(target, CancelCall { key: self.key });
        }
    }
}

/// The connections behind one handle. Not on the packet path: touched once when a call begins and once
/// when it ends, by whatever thread the user is on, hence the atomics and the lock.
#[derive(Debug)]
struct Bundle {
    endpoint: Shards,
    /// Of the first connection; the others follow in turn.
    first_shard: usize,
    peer: SocketAddr,
    service_id: ServiceId,
    options: ConnectOptions,
    /// One permit for each channel: calls beyond them wait here, first come first served.
    places: Semaphore,
    slots: Vec<Slot>,
    next_key: AtomicU64,
    /// The endpoint's handle: it stays while a connection to it is held.
    _keep: Arc<dyn Held>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Channels that calls have been sent to, or will be: a bit each.
    taken: AtomicU8,
    connection: Mutex<Option<Arc<Target>>>,
    /// Held while a connection is opened: calls that come meanwhile wait for that one.
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    fn get(&self) -> Option<Arc<Target>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, connection: Option<Arc<Target>>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// The lowest channel that no call has, if there is one.
    fn take(&self) -> Option<ChannelIndex> {
        let lowest = |taken: u8| ChannelIndex::new(taken.trailing_ones() as u8);
        let taking = |taken| lowest(taken).map(|_| taken | (taken + 1));
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, taking);
        before.ok().and_then(lowest)
    }

    fn give_back(&self, channel: ChannelIndex) {
        self.taken.fetch_and(!(1 << channel.index()), Ordering::AcqRel);
    }
}

impl Bundle {
    /// The right to a channel, within `deadline`. The endpoint watches the time: users may be where there is
    /// no clock of Tokio's.
    async fn permit(&self, deadline: Option<Duration>) -> Result<(), CallError> {
        let closed = |_| CallError::from(ConnectError::Closed);
        // Given back by the place.
        let keep = SemaphorePermit::forget;
        if let Ok(permit) = self.places.try_acquire() {
            keep(permit);
            return Ok(());
        }
        let permit = self.places.acquire();
        let Some(deadline) = deadline else { return permit.await.map(keep).map_err(closed) };
        let (reply, passed) = oneshot::channel();
        if let Some(shard) = self.shards(0).next() {
            shard.do_send(Wake { after: deadline, reply });
        }
        match select(Box::pin(permit), passed).await {
            Either::Left((permit, _)) => permit.map(keep).map_err(closed),
            Either::Right((Ok(()), _)) => Err(CallFailure::Deadline(deadline).into()),
            Either::Right((Err(oneshot::Canceled), _)) => Err(ConnectError::Closed.into()),
        }
    }

    /// The shards that a slot's connection may live on: its own, and when that is full the others.
    fn shards(&self, slot: usize) -> impl Iterator<Item = &Addr<LocalEndpoint>> {
        self.endpoint.from(self.first_shard + slot)
    }

    async fn open(&self, slot: usize) -> Result<Connected, ConnectError> {
        let mut connections = 0;
        for shard in self.shards(slot) {
            let (reply, answer) = oneshot::channel();
            shard.do_send(Connect {
                peer: self.peer,
                service_id: self.service_id,
                class: self.options.security.clone(),
                asks_upgrade: self.options.asks_upgrade,
                reply,
            });
            match answer.await.unwrap_or(Err(ConnectError::Closed)) {
                Err(ConnectError::TooMany(of_shard)) => connections += of_shard,
                opened => return opened,
            }
        }
        Err(ConnectError::TooMany(connections))
    }

    /// A bundle for one call.
    async fn alone(&self) -> Result<Arc<Bundle>, ConnectError> {
        let options = ConnectOptions { connections_max: 1, ..self.options.clone() };
        let endpoint = self.endpoint.clone();
        let keep = self._keep.clone();
        let connection =
            Box::pin(Connection::open(endpoint, keep, self.peer, self.service_id, options)).await?;
        Ok(connection.bundle)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for slot in &self.slots {
            if let Some(connection) = slot.get() {
                connection.connection.do_send(Close);
            }
        }
    }
}

/// One call's place in a bundle, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    bundle: Arc<Bundle>,
    slot: usize,
    channel: ChannelIndex,
}

impl Place {
    /// A call with a permit has a channel in some slot: the first with fewer than four calls.
    fn taken(bundle: Arc<Bundle>) -> Place {
        loop {
            for slot in 0..bundle.slots.len() {
                if let Some(channel) = bundle.slots[slot].take() {
                    return Place { bundle, slot, channel };
                }
            }
        }
    }

    async fn connection(&self) -> Result<Arc<Target>, ConnectError> {
        let slot = &self.bundle.slots[self.slot];
        if let Some(connection) = slot.get() {
            return Ok(connection);
        }
        let _opening = slot.opening.lock().await;
        if let Some(connection) = slot.get() {
            return Ok(connection);
        }
        let opened = self.bundle.open(self.slot).await?.keep();
        slot.set(opened.clone());
        opened.ok_or(ConnectError::Closed)
    }

    /// The connection takes no calls any more: the next one opens another.
    fn forget(&self, connection: &Arc<Target>) {
        let slot = &self.bundle.slots[self.slot];
        let mut held = slot.connection.lock().unwrap_or_else(PoisonError::into_inner);
        held.take_if(|held| Arc::ptr_eq(held, connection));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bundle.slots[self.slot].give_back(self.channel);
        self.bundle.places.add_permits(1);
    }
}
