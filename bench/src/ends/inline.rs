//! The same core over the same socket, driven by a plain loop: no actors, no mailboxes, no streams. What the
//! actors cost is the difference to [`super::ours`]. Bulk transfers to the client only.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rxrpc::net::{Incoming, Network, Transmit, UdpNetwork, UdpOptions};
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{Cid, Epoch};

use super::ours::{MAGIC, OP_RECV, PERF, perf_head};
use super::{Caller, attend, attend_loads};
use crate::spec::{End, Net};

const PIECE_BYTES: usize = 64 << 10;

/// What an application does with a notice.
type Application = Box<dyn FnMut(CallRef, Notice, &mut Vec<(CallRef, Command)>)>;

struct Loop {
    network: UdpNetwork,
    endpoint: InlineEndpoint,
    application: Application,
    batch: Vec<Incoming>,
    commands: Vec<(CallRef, Command)>,
    /// What the socket did not take.
    held: std::collections::VecDeque<(SocketAddr, Vec<u8>, usize)>,
    sends: u64,
}

impl Loop {
    fn open(application: Application) -> Result<Loop> {
        let network = UdpOptions::bind_to(([127, 0, 0, 1], 0).into()).bind()?.open()?;
        let port = network.local_addr().port();
        let mut config = EndpointConfig::default();
        // Nothing happens between transfers, so nothing may be due then.
        config.client.call.final_ack_delay = Duration::ZERO;
        let epoch = Epoch(0x4000_0000 | u32::from(port));
        let identity = Identity { epoch, first_cid: Cid(4), hash_seed: 7 };
        let mut endpoint = InlineEndpoint::new(config, identity, Instant::now());
        endpoint.keep_batches();
        Ok(Loop {
            network,
            endpoint,
            application,
            batch: Vec::new(),
            commands: Vec::new(),
            held: Default::default(),
            sends: 0,
        })
    }

    fn net(&self) -> Net {
        let counters = self.endpoint.counters();
        Net {
            datagrams_sent: counters.datagrams_sent,
            bytes_sent: counters.bytes_sent,
            sends: self.sends,
            datagrams_received: counters.datagrams_received,
            receives: counters.receives,
            resent: counters.resent,
            resent_by_timer: counters.resent_by_timer,
            dropped: counters.dropped_total(),
        }
    }

    /// Applications, then the socket.
    fn settle(&mut self, now: Instant) {
        loop {
            let notices = self.endpoint.take_notices();
            if notices.is_empty() {
                break;
            }
            for (call, notice) in notices {
                (self.application)(call, notice, &mut self.commands);
            }
            for (call, command) in std::mem::take(&mut self.commands) {
                self.endpoint.command(now, call, command);
            }
        }
        self.endpoint.take_events();
        self.held.extend(self.endpoint.take_batches());
        while let Some((to, contents, segment_size)) = self.held.front() {
            let transmit = Transmit::run(*to, contents, *segment_size);
            if self.network.try_send(&transmit).is_err() {
                return;
            }
            self.sends += 1;
            self.held.pop_front();
        }
    }
}

/// Runs the loop until `is_over`.
async fn run(of: &Rc<RefCell<Loop>>, mut is_over: impl FnMut() -> bool) -> Result<()> {
    let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut rounds = 0u32;
    std::future::poll_fn(|task| {
        let this = &mut *of.borrow_mut();
        let now = Instant::now();
        this.endpoint.advance(now);
        this.settle(now);
        loop {
            if is_over() {
                return Poll::Ready(Ok(()));
            }
            if !this.held.is_empty() && this.network.poll_send_ready(task)?.is_ready() {
                this.settle(Instant::now());
            }
            match this.network.poll_receive(task, &mut this.batch) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    let Some(at) = this.endpoint.next_deadline() else { return Poll::Pending };
                    sleep.as_mut().reset(at.into());
                    if Future::poll(sleep.as_mut(), task).is_ready() {
                        task.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
            let now = Instant::now();
            let together = this.batch.drain(..).filter_map(|incoming| match incoming {
                Incoming::Datagrams { from, data, stride } => Some((from, data, stride)),
                _ => None,
            });
            this.endpoint.receive_together(now, together);
            this.settle(now);
            // As the receive loop of the actors: a bounded amount in one turn.
            rounds += 1;
            if rounds.is_multiple_of(4) {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    })
    .await
}

pub async fn server(_: End) -> Result<()> {
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let mut request = Vec::new();
    let (mut left, mut credit) = (None, 0);
    let application: Application = Box::new(move |call, notice, commands| {
        match notice {
            Notice::Incoming(incoming) => {
                request.clear();
                (left, credit) = (None, incoming.credit);
            }
            Notice::Data(pieces) => {
                let bytes = pieces.iter().map(Bytes::len).sum();
                let packets = pieces.len() as u32;
                pieces.iter().for_each(|piece| request.extend_from_slice(piece));
                commands.push((call, Command::Consumed { packets, bytes }));
            }
            Notice::End => {
                let word = request[16..20].try_into().expect("a request of rxperf");
                left = Some(u64::from(u32::from_be_bytes(word)));
            }
            Notice::Credit(more) => credit += more,
            _ => return,
        }
        while let Some(count) = &mut left
            && credit >= (*count).clamp(4, PIECE_BYTES as u64)
        {
            if *count == 0 {
                left = None;
                let bytes = Bytes::copy_from_slice(&MAGIC.to_be_bytes());
                commands.push((call, Command::Write { bytes, ends: true, flushes: false }));
                return;
            }
            let most = (*count).min(credit).min(PIECE_BYTES as u64);
            *count -= most;
            credit -= most;
            let bytes = piece.slice(..most as usize);
            commands.push((call, Command::Write { bytes, ends: false, flushes: false }));
        }
    });
    let mut this = Loop::open(application)?;
    let classes = vec![Arc::new(RxNull) as _];
    this.endpoint.offer(PERF.into(), Offer { classes, needs_reach: true, upgrades_to: None });
    let port = this.network.local_addr().port();
    let this = Rc::new(RefCell::new(this));
    let net = async || Some(this.borrow().net());
    tokio::select! {
        result = run(&this, || false) => result,
        result = attend(port, net) => result,
    }
}

#[derive(Clone)]
struct Client {
    this: Rc<RefCell<Loop>>,
    route: RouteId,
    came: Rc<RefCell<(u64, Option<Result<()>>)>>,
}

pub async fn client(end: End) -> Result<()> {
    let port = end.client.as_ref().context("no port")?.port;
    let came: Rc<RefCell<(u64, Option<Result<()>>)>> = Rc::default();
    let counted = came.clone();
    let application: Application = Box::new(move |call, notice, commands| match notice {
        Notice::Data(pieces) => {
            let bytes: usize = pieces.iter().map(Bytes::len).sum();
            let packets = pieces.len() as u32;
            counted.borrow_mut().0 += bytes as u64;
            commands.push((call, Command::Consumed { packets, bytes }));
        }
        Notice::End => {
            counted.borrow_mut().1 = Some(Ok(()));
            commands.push((call, Command::End));
        }
        Notice::Failed(failure) => counted.borrow_mut().1 = Some(Err(failure.into())),
        _ => {}
    });
    let mut this = Loop::open(application)?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let route = this.endpoint.connect(Instant::now(), to, PERF.into(), &RxNull, false);
    let caller = Client { this: Rc::new(RefCell::new(this)), route, came };
    attend_loads(&end, caller, async |_, _| bail!("the inline loop has no such load")).await
}

impl Caller for Client {
    async fn call(&self, _: Bytes) -> Result<usize> {
        bail!("the inline loop has no calls")
    }

    async fn recv(&self, bytes: u64, _: Option<Duration>) -> Result<u64> {
        *self.came.borrow_mut() = (0, None);
        let request = perf_head(OP_RECV, bytes)?;
        let start = Start { request, is_whole: true, ..Start::default() };
        {
            let this = &mut *self.this.borrow_mut();
            this.endpoint.start(Instant::now(), self.route, start);
        }
        run(&self.this, || self.came.borrow().1.is_some()).await?;
        self.came.borrow_mut().1.take().unwrap_or(Ok(()))?;
        Ok(self.came.borrow().0.saturating_sub(4))
    }

    async fn send(&self, _: u64) -> Result<()> {
        bail!("the inline loop only receives")
    }

    async fn net(&self) -> Option<Net> {
        Some(self.this.borrow().net())
    }
}
