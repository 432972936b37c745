//! A scripted peer of real endpoints, under Tokio's paused clock.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::select;

use super::player::{Move, Player};
use super::steps::{Act, Step, Told, read};
use crate::net::{Incoming, Network};
use crate::testkit::world::World;

/// One end of a connection, played packet by packet. See the module.
pub struct Peer {
    world: World,
    network: Box<dyn Network + Send>,
    at: SocketAddr,
    life: u32,
    to: Option<SocketAddr>,
    player: Player,
    pub(super) told: Option<mpsc::UnboundedReceiver<Told>>,
    pub(super) acts: Option<mpsc::UnboundedSender<Act>>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Peer {
    /// A client at `at` of the endpoint at `server`. Its connection is K of `docs/protocol/rx-scenarios.md`, and
    /// service 1, where a line names no other.
    pub fn client(world: &World, at: SocketAddr, server: SocketAddr) -> Peer {
        Peer::new(world, at, Some(server))
    }

    /// A server at `at`. It answers whoever speaks to it first, and on the connection of the first packet that
    /// comes, where a line names no other.
    pub fn server(world: &World, at: SocketAddr) -> Peer {
        Peer::new(world, at, None)
    }

    fn new(world: &World, at: SocketAddr, to: Option<SocketAddr>) -> Peer {
        world.exempt(at);
        let (network, life) = world.host(at);
        let player = Player::new(to.is_some());
        let world = world.clone();
        Peer { world, network, at, life, to, player, told: None, acts: None }
    }

    /// Plays a script to its end. What comes afterwards is kept for the next.
    ///
    /// # Panics
    /// If something does not go as the script says, with the line and what happened instead; or if the script
    /// cannot be read.
    pub async fn play(&mut self, script: &str) {
        if let Err(failure) = self.try_play(script).await {
            panic!("{failure}");
        }
    }

    /// As [`Peer::play`].
    ///
    /// # Errors
    /// Instead of panics.
    pub async fn try_play(&mut self, script: &str) -> Result<(), String> {
        self.play_steps(read(script)?).await
    }

    pub(super) async fn play_steps(&mut self, steps: Vec<Step>) -> Result<(), String> {
        self.player.add(self.world.now(), steps);
        loop {
            self.take_all().await;
            match self.player.step(self.world.now()) {
                Move::Done => return Ok(()),
                Move::Failed(why) => return Err(why),
                Move::Send(datagram) => {
                    let Some(to) = self.to else {
                        return Err("nobody has spoken to this server yet".to_owned());
                    };
                    self.world.send(self.at, self.life, to, datagram, false);
                }
                Move::Act(act) => {
                    let sender = self.acts.as_ref().ok_or("only a bench has an application")?;
                    // Whoever stopped to listen fails the script later on.
                    let _ = sender.unbounded_send(act);
                }
                Move::WaitUntil(at) => {
                    let time = at.saturating_sub(self.world.now());
                    let sleep = pin!(tokio::time::sleep(time));
                    select(sleep, pin!(self.take_one())).await;
                }
            }
        }
    }

    async fn take_all(&mut self) {
        loop {
            let taken = pin!(self.take_one());
            let ready = select(taken, futures::future::ready(())).await;
            if matches!(ready, futures::future::Either::Right(_)) {
                return;
            }
        }
    }

    /// Takes what comes next: a datagram, or a word of the application.
    async fn take_one(&mut self) {
        poll_fn(|task| {
            if let Some(told) = &mut self.told
                && let Poll::Ready(Some(told)) = told.poll_next_unpin(task)
            {
                self.player.tell(self.world.now(), told);
                return Poll::Ready(());
            }
            let mut incoming = Vec::new();
            if self.network.poll_receive(task, &mut incoming).is_pending() {
                return Poll::Pending;
            }
            for incoming in incoming {
                if let Incoming::Datagrams { from, data, .. } = incoming {
                    self.to.get_or_insert(from);
                    self.player.receive(self.world.now(), data);
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}
