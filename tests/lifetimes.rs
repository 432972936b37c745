//! Lifetimes over random schedules: opening, calling, cancelling, dropping, closing, shutting down, and panics
//! of services, channels, connections, endpoints and receive loops, over a network in memory that may lose
//! packets, under a paused clock. In three of four schedules one endpoint or both are divided into shards.
//!
//! After each schedule nothing is alive, each actor started after its parent and stopped before it (but for
//! a parent that broke: then whoever is above has waited), every user's future has resolved, and no call ran
//! twice. `RXRPC_SCHEDULES` sets in how many of them something has to break, `RXRPC_SEED` runs one.

#[path = "shards/split.rs"]
#[allow(dead_code)]
mod split;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rxrpc::actors::messages::{Break, BreakAt};
use rxrpc::net::{
    FaultControl, Faults, FaultyNetwork, Incoming, MemoryHub, Network, NetworkSource, Transmit,
    network_source,
};
use rxrpc::testkit::tree::{self, Moment, What};
use rxrpc::wire::ChannelIndex;
use rxrpc::{
    AbortCode, CallOptions, CloseReason, Connection, Endpoint, IncomingCall, ServiceFault,
    ServiceOptions, StreamError,
};
use split::Split;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// So many of them have something that breaks; a few have not, and are not counted.
const SCHEDULES: u64 = 10_000;
/// How often a schedule in which nothing has broken tries to break something, before it ends.
const LAST_TRIES: usize = 4;
/// What can break, by the last word of its panic.
const KINDS: [&str; 5] = ["service", "channel", "connection", "endpoint", "network"];
/// How often each of them broke.
static BROKE: [AtomicU64; KINDS.len()] = [const { AtomicU64::new(0) }; KINDS.len()];
/// Longer than anything may take: the dead time is 20 s, and no grace is longer than 5 s.
const PATIENCE: Duration = Duration::from_secs(300);
const REQUEST_MAX: usize = 1 << 20;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn time(&mut self) -> Duration {
        match self.below(4) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.below(20)),
            2 => Duration::from_millis(self.below(1000)),
            _ => Duration::from_millis(self.below(5000)),
        }
    }
}

/// What a request asks the service to do: its ninth byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Echo,
    Late,
    Streamed,
    Fault,
    Panic,
    Drop,
    Never,
}

const WISHES: [Wish; 10] = [
    Wish::Echo,
    Wish::Echo,
    Wish::Echo,
    Wish::Late,
    Wish::Late,
    Wish::Streamed,
    Wish::Fault,
    Wish::Panic,
    Wish::Drop,
    Wish::Never,
];

/// How often each call ran.
type Executions = Arc<Mutex<HashMap<u64, u32>>>;

async fn serve(mut call: IncomingCall, executions: Executions) -> Result<(), ServiceFault> {
    let mut head = Vec::new();
    while head.len() < 9 {
        match call.next().await {
            Some(piece) => head.extend_from_slice(&piece?),
            None => return Err(AbortCode(1).into()),
        }
    }
    let id = u64::from_be_bytes(head[..8].try_into().unwrap());
    *executions.lock().unwrap().entry(id).or_default() += 1;
    let wish = WISHES[usize::from(head[8])];
    match wish {
        Wish::Fault => return Err(AbortCode(4711).into()),
        Wish::Panic => panic!("a test broke this service"),
        Wish::Drop => return Ok(()),
        Wish::Never => {
            call.failed().await;
            return Ok(());
        }
        Wish::Late => tokio::time::sleep(Duration::from_millis(id % 3000)).await,
        Wish::Echo | Wish::Streamed => {}
    }
    let rest = call.read_all(REQUEST_MAX).await?;
    head.extend_from_slice(&rest);
    if wish == Wish::Streamed {
        let mut reply = call.into_reply();
        for piece in head.chunks(10_000) {
            reply.write(Bytes::copy_from_slice(piece)).await?;
        }
        reply.finish_acknowledged().await?;
    } else {
        call.reply(head);
    }
    Ok(())
}

/// Breaks the receive loop that next asks it, once it is told to.
struct Brittle {
    inner: Box<dyn Network>,
    breaks: Arc<AtomicBool>,
}

impl Network for Brittle {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.inner.max_segments()
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        assert!(!self.breaks.load(Ordering::Relaxed), "a test broke this network");
        self.inner.poll_receive(task, into)
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_send_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_send_ready(task)
    }
}

/// A schedule under way.
struct World {
    random: Random,
    executions: Executions,
    /// Calls whose user got the whole reply.
    good: Rc<RefCell<Vec<u64>>>,
    next_id: u64,
    endpoints: [Option<Endpoint>; 2],
    /// Whether each endpoint's network breaks.
    breaks: [Arc<AtomicBool>; 2],
    connections: Vec<Connection>,
    tasks: Vec<JoinHandle<()>>,
    closed: Vec<JoinHandle<CloseReason>>,
    server_addr: SocketAddr,
}

const CLIENT: usize = 1;

impl World {
    async fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let hub = MemoryHub::new();
        let control = FaultControl::new();
        if random.chance(50) {
            control.set(Faults {
                loss_probability: 0.1,
                duplicate_probability: 0.1,
                delay_ms: random.below(20),
                ..Faults::default()
            });
        }
        let executions = Executions::default();
        let server_addr = SocketAddr::from(([10, 0, 0, 1], 7000));
        let breaks: [Arc<AtomicBool>; 2] = Default::default();
        // By themselves, so that a seed's schedule is the same however many shards there are.
        let mut shards = Random(seed ^ 0x5eed_0f54_a2d5);
        let mut start = async |port: u16, breaks: &Arc<AtomicBool>| {
            let address = SocketAddr::from(([10, 0, 0, 1], port));
            let count = [1, 1, 2, 3][shards.below(4) as usize];
            let mut arrivals = Random(shards.next());
            // The kernel gives a client's packets to one socket, by its address. A server's it gives to one too; here
            // they come to any.
            let choose = move |incoming: &Incoming| match incoming {
                Incoming::Datagrams { from, data, .. } if data[21] & 1 != 0 => {
                    usize::from(from.port())
                }
                _ => arrivals.below(64) as usize,
            };
            let (_, sources) = Split::new(&hub, address, count, choose);
            let faults = random.next();
            let brittle = |(shard, source): (u64, NetworkSource)| {
                let (control, breaks) = (control.clone(), breaks.clone());
                network_source(move || {
                    let inner = Box::new(FaultyNetwork::new(source()?, faults ^ shard, control));
                    Ok(Brittle { inner, breaks })
                })
            };
            let networks = (0..).zip(sources).map(brittle).collect();
            let executions = executions.clone();
            let service = move |call: IncomingCall| serve(call, executions.clone());
            let small = random.chance(50);
            let options =
                if small { ServiceOptions::small_replies() } else { ServiceOptions::default() };
            let takeover = random.chance(80);
            Endpoint::builder()
                .networks(networks)
                .own_thread(false)
                .configure(|config| config.server.call.takeover = takeover)
                .service_with(1, service, options)
                .start()
                .await
                .unwrap()
        };
        let endpoints = [start(7000, &breaks[0]).await, start(7001, &breaks[1]).await];
        let closed = endpoints.each_ref().map(|endpoint| actix_rt::spawn(endpoint.closed()));
        World {
            random,
            executions,
            good: Rc::default(),
            next_id: 1,
            endpoints: endpoints.map(Some),
            breaks,
            connections: Vec::new(),
            tasks: Vec::new(),
            closed: closed.into(),
            server_addr,
        }
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..=39 => self.call(),
            40..=54 => self.stream(),
            55..=64 => self.cancel(),
            65..=72 => self.connect().await,
            73..=77 => {
                if !self.connections.is_empty() {
                    let index = self.random.below(self.connections.len() as u64) as usize;
                    self.connections.swap_remove(index);
                }
            }
            78..=85 => self.break_something(),
            86 => self.shut_down(),
            87 => {
                let which = self.random.below(2) as usize;
                self.endpoints[which] = None;
            }
            _ => tokio::time::sleep(self.random.time()).await,
        }
        if self.random.chance(50) {
            tokio::task::yield_now().await;
        }
    }

    async fn connect(&mut self) {
        let Some(client) = &self.endpoints[CLIENT] else { return };
        let connecting = client.connect(self.server_addr, 1);
        if let Ok(connection) = connecting.await {
            self.connections.push(connection);
        }
    }

    /// A connection of those there are, and a request with an id of its own.
    fn request(&mut self) -> Option<(Connection, u64, Bytes)> {
        if self.connections.is_empty() {
            return None;
        }
        let index = self.random.below(self.connections.len() as u64) as usize;
        let id = self.next_id;
        self.next_id += 1;
        let mut request = id.to_be_bytes().to_vec();
        request.push(self.random.below(WISHES.len() as u64) as u8);
        let len = match self.random.below(10) {
            0..=5 => self.random.below(100),
            6..=8 => self.random.below(5000),
            _ => self.random.below(60_000),
        };
        request.extend((0..len).map(|at| (at + id) as u8));
        Some((self.connections[index].clone(), id, request.into()))
    }

    fn options(&mut self) -> CallOptions {
        CallOptions {
            deadline: self.random.chance(20).then(|| self.random.time()),
            exclusive: self.random.chance(10),
            ..CallOptions::default()
        }
    }

    fn call(&mut self) {
        let options = self.options();
        let Some((connection, id, request)) = self.request() else { return };
        let good = self.good.clone();
        self.tasks.push(actix_rt::spawn(async move {
            if let Ok(reply) = connection.call_with(request.clone(), options).await {
                assert!(reply == request, "another call's reply");
                good.borrow_mut().push(id);
            }
        }));
    }

    fn stream(&mut self) {
        let options = self.options();
        let Some((connection, id, request)) = self.request() else { return };
        let good = self.good.clone();
        let pause = self.random.chance(30).then(|| self.random.time());
        let reads_max = if self.random.chance(20) { 1 } else { usize::MAX };
        self.tasks.push(actix_rt::spawn(async move {
            let attempt = async {
                let mut writer = connection.open_call(options).await.map_err(|_| None)?;
                drop(connection);
                for piece in request.chunks(7000) {
                    writer.write(Bytes::copy_from_slice(piece)).await.map_err(Some)?;
                    if let Some(pause) = pause {
                        writer.flush_now().map_err(Some)?;
                        tokio::time::sleep(pause).await;
                    }
                }
                let mut reader = writer.finish().map_err(Some)?;
                let mut reply = Vec::new();
                let mut reads = 0;
                while let Some(piece) = reader.next().await {
                    reply.extend_from_slice(&piece.map_err(Some)?);
                    reads += 1;
                    if reads == reads_max {
                        return Ok(());
                    }
                }
                assert!(reply == request, "another call's reply");
                good.borrow_mut().push(id);
                Ok::<(), Option<StreamError>>(())
            };
            // Whatever became of it is fine, if only it becomes something.
            let _ = attempt.await;
        }));
    }

    fn cancel(&mut self) {
        if !self.tasks.is_empty() {
            let index = self.random.below(self.tasks.len() as u64) as usize;
            self.tasks[index].abort();
        }
    }

    fn break_something(&mut self) {
        let which = self.random.below(2) as usize;
        let place = self.random.below(4) as usize;
        let channel = ChannelIndex::ALL[self.random.below(4) as usize];
        let at = match self.random.below(20) {
            0 => None,
            1 => return self.breaks[which].store(true, Ordering::Relaxed),
            2..=8 => Some(BreakAt::Connection(place)),
            _ => Some(BreakAt::Channel(place, channel)),
        };
        if let Some(endpoint) = &self.endpoints[which] {
            let shards = endpoint.actors();
            shards[place % shards.len()].do_send(Break { at });
        }
    }

    fn shut_down(&mut self) {
        let which = self.random.below(2) as usize;
        let grace = self.random.time();
        if let Some(endpoint) = self.endpoints[which].clone() {
            self.tasks.push(actix_rt::spawn(async move {
                let began = Instant::now();
                endpoint.shutdown(grace).await;
                let took = began.elapsed();
                assert!(took <= grace + Duration::from_millis(100), "{took:?} for {grace:?}");
            }));
        }
    }

    /// Lets go of everything, or shuts down: in both ways all comes to an end.
    async fn end(mut self) {
        if self.random.chance(50) {
            self.shut_down();
        }
        self.endpoints = [None, None];
        self.connections.clear();
        for task in self.tasks.into_iter().chain(
            // Their endpoints close when the last call has let go of its handle.
            self.closed.into_iter().map(|closed| actix_rt::spawn(async { drop(closed.await) })),
        ) {
            let outcome = tokio::time::timeout(PATIENCE, task).await.expect("an end to everything");
            if let Err(error) = outcome
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let executions = self.executions.lock().unwrap();
        assert!(executions.values().all(|count| *count == 1), "a call ran twice: {executions:?}");
        for id in self.good.borrow().iter() {
            assert_eq!(executions.get(id), Some(&1), "call {id} was good and did not run");
        }
    }
}

/// Each child starts after and stops before its parent, and nothing is left alive. A parent that broke could
/// not wait, but whoever is above it did.
fn check(record: &[Moment]) {
    #[derive(Default)]
    struct Life {
        parent: Option<u64>,
        started: Option<usize>,
        stopped: Option<(usize, bool)>,
    }

    let mut lives: HashMap<u64, Life> = HashMap::new();
    for (at, moment) in record.iter().enumerate() {
        let life = lives.entry(moment.actor).or_default();
        life.parent = moment.parent;
        match moment.what {
            What::Started => assert!(life.started.replace(at).is_none(), "started twice"),
            what => {
                let before = life.stopped.replace((at, what == What::Broke));
                assert!(before.is_none(), "stopped twice");
            }
        }
    }
    for (actor, life) in &lives {
        let (stopped, _) = life.stopped.unwrap_or_else(|| panic!("{actor} is still alive"));
        let mut above = life.parent;
        while let Some(ancestor) = above {
            let ancestor = &lives[&ancestor];
            if let (Some(child), Some(parent)) = (life.started, ancestor.started) {
                assert!(child > parent, "{actor} started before its parent");
            }
            let (ended, broke) = ancestor.stopped.expect("an end");
            assert!(broke || stopped < ended, "{actor} outlived what is above it");
            above = ancestor.parent;
        }
    }
}

/// Injected panics are counted, and not worth a line each.
fn count_what_breaks() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<&str>();
        let kind = message.and_then(|message| message.strip_prefix("a test broke this "));
        match kind.and_then(|kind| KINDS.iter().position(|it| *it == kind)) {
            Some(kind) => _ = BROKE[kind].fetch_add(1, Ordering::Relaxed),
            None => before(panic),
        }
    }));
}

fn broke() -> [u64; KINDS.len()] {
    BROKE.each_ref().map(|count| count.load(Ordering::Relaxed))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn children_live_within_their_parents_and_calls_run_once_whatever_happens() {
    count_what_breaks();
    let only = setting("RXRPC_SEED");
    let schedules =
        if only.is_some() { 0 } else { setting("RXRPC_SCHEDULES").unwrap_or(SCHEDULES) };
    let (mut seed, mut actors, mut with_panics, mut without) = (only.unwrap_or(0), 0, 0, 0);
    loop {
        let before = broke();
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(count) => actors += count,
            Err(panic) => {
                eprintln!("schedule failed: RXRPC_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
        *(if broke() == before { &mut without } else { &mut with_panics }) += 1;
        seed += 1;
        if with_panics >= schedules {
            break;
        }
        assert!(without <= with_panics + 100, "nothing breaks in {without} of {seed} schedules");
    }
    println!(
        "{actors} actors lived and died; schedules: {with_panics} with panics, {without} without"
    );
    for (kind, count) in KINDS.iter().zip(broke()) {
        println!("{kind}: {count} panics");
        assert!(count >= schedules / 50, "{count} panics of a {kind} in {schedules} schedules");
    }
}

/// Runs one schedule, and says how many actors it had.
fn run(seed: u64) -> usize {
    actix_rt::System::new().block_on(async {
        tokio::time::pause();
        tree::record();
        let mut world = World::new(seed).await;
        world.connect().await;
        let before = broke();
        for _ in 0..world.random.below(30) {
            world.step().await;
        }
        for _ in 0..LAST_TRIES {
            if broke() == before {
                world.call();
                world.break_something();
                tokio::time::sleep(world.random.time()).await;
            }
        }
        world.end().await;
        let record = tree::take_record();
        check(&record);
        record.len() / 2
    })
}
