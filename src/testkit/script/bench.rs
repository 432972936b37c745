//! One endpoint of ours on a bench: a script plays its peer, and its application too, in both wirings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::lock::Mutex;
use futures::{FutureExt, StreamExt, select_biased};

use super::bare::play_bare;
use super::peer::Peer;
use super::steps::{Act, Step, Told, read};
use crate::proto::config::EndpointConfig;
use crate::proto::router::Identity;
use crate::testkit::world::{LinkOptions, Wiring, World, reproduce, simulate};
use crate::wire::{Cid, Epoch};
use crate::{AbortCode, Connection, Endpoint, IncomingCall, ServiceOptions};

/// What the service on a bench does with a whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Replies with it.
    Echo,
    /// Replies with so many bytes.
    Reply(usize),
    /// What the script says: `reply` or `abort`.
    Script,
}

/// See [`Bench::server`] and [`Bench::client`].
#[derive(Clone, Debug)]
pub struct Bench {
    pub(super) app: Option<App>,
    pub(super) config: EndpointConfig,
    pub(super) link: LinkOptions,
    pub(super) needs_reach: bool,
    seed: u64,
}

impl Bench {
    /// A server of service 1; the script is its client.
    pub fn server(app: App) -> Bench {
        let mut config = EndpointConfig::default();
        config.server.call.keepalive = false;
        Bench { app: Some(app), config, link: LinkOptions::default(), needs_reach: false, seed: 1 }
    }

    /// A client with one connection to service 1; the script is its server.
    pub fn client() -> Bench {
        let mut config = EndpointConfig::default();
        config.client.call.keepalive = false;
        Bench { app: None, config, link: LinkOptions::default(), needs_reach: false, seed: 1 }
    }

    /// Other settings of the endpoint than the usual. Keep-alive is off, unless they put it on.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut EndpointConfig)) -> Bench {
        change(&mut self.config);
        self
    }

    /// What lies between endpoint and peer: nothing but a millisecond each way, if nothing else is said.
    #[must_use]
    pub fn link(mut self, link: LinkOptions) -> Bench {
        self.link = link;
        self
    }

    /// Whether the service waits for the proof of its client's address. It does not, if nothing else is said.
    #[must_use]
    pub fn reach_check(mut self, needs_reach: bool) -> Bench {
        self.needs_reach = needs_reach;
        self
    }

    /// What the link draws from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Bench {
        self.seed = seed;
        self
    }

    /// Plays the script against a bare core, then against the tree of actors.
    ///
    /// # Panics
    /// If something does not go as the script says: with its line, what happened instead, a ladder of all
    /// packets, and one line with which it happens again. Or if the script cannot be read.
    #[track_caller]
    pub fn play(&self, script: &str) {
        for wiring in [Wiring::Core, Wiring::Actors] {
            if let Err(failure) = self.try_play(wiring, script) {
                panic!("{failure}");
            }
        }
    }

    /// Plays the script in one wiring.
    ///
    /// # Errors
    /// Instead of the panics of [`Bench::play`].
    pub fn try_play(&self, wiring: Wiring, script: &str) -> Result<(), String> {
        let steps = read(script)?;
        let (result, ladder) = match wiring {
            Wiring::Core => play_bare(self, self.seed, steps),
            Wiring::Actors => {
                simulate(self.seed, async |world| self.play_actors(&world, steps).await)
            }
        };
        result.map_err(|failure| format!("{wiring:?}: {failure}\n{ladder}{}", reproduce(self.seed)))
    }

    /// What came of it, and the ladder.
    async fn play_actors(&self, world: &World, steps: Vec<Step>) -> (Result<(), String>, String) {
        let result = self.try_play_actors(world, steps).await;
        (result.and_then(|()| verdict(world)), world.ladder(usize::MAX))
    }

    async fn try_play_actors(&self, world: &World, steps: Vec<Step>) -> Result<(), String> {
        world.set_default_link(self.link);
        let (told, tells) = mpsc::unbounded();
        let (acts, acting) = mpsc::unbounded();
        let builder = Endpoint::builder().config(self.config.clone()).identity(identity());
        let builder = builder.network(world.network(bench_addr()));
        let mut peer = match self.app {
            Some(_) => Peer::client(world, peer_addr(), bench_addr()),
            None => Peer::server(world, peer_addr()),
        };
        (peer.told, peer.acts) = (Some(tells), Some(acts));
        let (endpoint, calling) = match self.app {
            Some(app) => {
                let acting = Arc::new(Mutex::new(acting));
                let service = move |call| {
                    let (told, acting) = (told.clone(), acting.clone());
                    serve(app, call, told, acting).map(Ok::<_, AbortCode>)
                };
                let reach_check = self.needs_reach;
                let options = ServiceOptions { reach_check, ..ServiceOptions::default() };
                let endpoint = builder.service_with(1, service, options).start().await;
                (endpoint.map_err(|error| error.to_string())?, None)
            }
            None => {
                let endpoint = builder.start().await.map_err(|error| error.to_string())?;
                let connection = endpoint.connect(peer_addr(), 1).await;
                let connection = connection.map_err(|error| error.to_string())?;
                (endpoint, Some(actix_rt::spawn(call_as_told(connection, acting, told))))
            }
        };
        let result = peer.play_steps(steps).await;
        if let Some(calling) = calling {
            calling.abort();
        }
        // What it says when it ends is no part of the script.
        world.mute(bench_addr());
        endpoint.shutdown(Duration::ZERO).await;
        result
    }
}

/// Where the endpoint is.
pub(super) fn bench_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 7000))
}

/// Where its peer is.
pub(super) fn peer_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7001))
}

/// The names of the endpoint's own connections: those of K.
pub(super) fn identity() -> Identity {
    Identity { epoch: Epoch(0x8f3a_21c4), first_cid: Cid(0x5d0e_9a34), hash_seed: 1 }
}

/// Whether the endpoint kept the rules of Rx meanwhile.
pub(super) fn verdict(world: &World) -> Result<(), String> {
    match world.violation() {
        None => Ok(()),
        Some(violation) => Err(format!("a rule of Rx was broken: {violation}")),
    }
}

async fn call_as_told(
    connection: Connection,
    mut acting: mpsc::UnboundedReceiver<Act>,
    told: mpsc::UnboundedSender<Told>,
) {
    while let Some(act) = acting.next().await {
        let Act::Call(request) = act else { continue };
        let (connection, told) = (connection.clone(), told.clone());
        actix_rt::spawn(async move {
            let said = match connection.call(request).await {
                Ok(reply) => Told::Good(reply.into()),
                Err(_) => Told::Failed,
            };
            // The script may be over.
            let _ = told.unbounded_send(said);
        });
    }
}

async fn serve(
    app: App,
    mut call: IncomingCall,
    told: mpsc::UnboundedSender<Told>,
    acting: Arc<Mutex<mpsc::UnboundedReceiver<Act>>>,
) {
    let tell = |what| {
        // The script may be over.
        let _ = told.unbounded_send(what);
    };
    let mut request = Vec::new();
    while let Some(piece) = call.next().await {
        match piece {
            Ok(piece) => request.extend_from_slice(&piece),
            Err(_) => return tell(Told::Failed),
        }
    }
    tell(Told::Asked(request.clone()));
    let act = match app {
        App::Echo => Act::Reply(request),
        App::Reply(len) => Act::Reply(vec![0x55; len]),
        App::Script => {
            // Oldest first: whoever waits longest has the lock.
            let acting = async { acting.lock().await.next().await };
            let mut acting = std::pin::pin!(acting.fuse());
            select_biased! {
                _ = std::pin::pin!(call.failed().fuse()) => return tell(Told::Failed),
                act = acting => match act {
                    Some(act) => act,
                    None => return,
                },
            }
        }
    };
    let reply = match act {
        Act::Reply(reply) => reply,
        Act::Abort(code) => return call.abort(AbortCode(code)),
        Act::Call(_) => return,
    };
    let mut writer = call.into_reply();
    let outcome = match writer.write(reply).await {
        Ok(()) => writer.finish_acknowledged().await,
        Err(error) => Err(error),
    };
    tell(outcome.map_or(Told::Failed, Told::Acknowledged));
}
