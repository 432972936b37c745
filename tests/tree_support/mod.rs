//! A real tree of actors under test (T) against a scripted peer (P), over a network in memory and under a
//! paused clock: packets in the notation of rx-scenarios.md, as in `tests/scenarios/`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use rxrpc::actors::snapshot::Snapshot;
use rxrpc::net::{Incoming, MemoryHub, MemoryNetwork, Network, Transmit, cut};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::Identity;
use rxrpc::proto::{CallState, DropReason};
pub use rxrpc::testkit::notation;
use rxrpc::testkit::tree;
use rxrpc::wire::{Cid, DATA_PAYLOAD_MAX, Epoch, Flags};
use rxrpc::{AbortCode, Connection, Endpoint, EndpointBuilder, IncomingCall, ServiceOptions};

#[path = "../scenarios/support/fake_class.rs"]
pub mod fake_class;

use notation::{Defaults, parse, show};

const EPOCH: u32 = 0x8f3a_21c4;
const CID: u32 = 0x5d0e_9a34;
/// How long "none" watches.
const SILENCE: Duration = ms(500);
/// What a slow channel rests after each message.
pub const REST: Duration = ms(50);

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Stops Tokio's clock, once for all scenarios of a test: each test has a thread of its own.
pub fn pause_clock() {
    thread_local!(static IS_PAUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if !IS_PAUSED.replace(true) {
        tokio::time::pause();
    }
}

/// Where T is.
pub fn tree_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 7000))
}

/// Where P is.
pub fn peer_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7001))
}

/// How packets that were received one after the other reach T (rx-race.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each is handled, and what it causes too, before the next.
    OneByOne,
    /// All before T does anything: as one batch where their sizes allow it.
    Burst,
    /// As a burst, and T's channels rest 50 ms after each message.
    Slow,
}

pub const WAYS: [Way; 3] = [Way::OneByOne, Way::Burst, Way::Slow];

/// What T's service does with a request once it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Replies with it.
    Echo,
    /// Replies with so many full packets.
    Reply(usize),
    /// Nothing, until the test says so.
    Manual,
}

/// What a test tells a manual application.
#[derive(Debug)]
enum Act {
    Write(Vec<u8>),
    Abort(AbortCode),
}

/// What T's service is told, and what it is to do.
#[derive(Debug)]
pub struct Service {
    mode: App,
    /// One line for each thing it was told, in order.
    pub log: Vec<String>,
    pub calls: Vec<u32>,
    pub bytes: BTreeMap<u32, Vec<u8>>,
    acts: BTreeMap<u32, mpsc::UnboundedSender<Act>>,
}

#[derive(Clone)]
pub struct Shared(Arc<Mutex<Service>>);

impl Shared {
    fn new() -> Shared {
        Shared(Arc::new(Mutex::new(Service {
            mode: App::Echo,
            log: Vec::new(),
            calls: Vec::new(),
            bytes: BTreeMap::new(),
            acts: BTreeMap::new(),
        })))
    }

    pub fn get(&self) -> MutexGuard<'_, Service> {
        self.0.lock().unwrap()
    }

    fn note(&self, line: String) {
        self.get().log.push(line);
    }

    pub async fn serve(self, mut call: IncomingCall) {
        let number = call.info().call_number.0;
        let (act, mut acts) = mpsc::unbounded();
        {
            let mut service = self.get();
            service.calls.push(number);
            service.log.push(format!("n{number} comes in"));
            service.acts.insert(number, act);
            service.bytes.insert(number, Vec::new());
        }
        while let Some(piece) = call.next().await {
            match piece {
                Ok(piece) => self.get().bytes.entry(number).or_default().extend(piece),
                Err(error) => return self.note(format!("n{number} failed: {error}")),
            }
        }
        let mode = self.get().mode;
        let reply = match mode {
            App::Echo => self.get().bytes[&number].clone(),
            App::Reply(packets) => vec![0x55; packets * DATA_PAYLOAD_MAX],
            App::Manual => match acts.next().await {
                Some(Act::Write(bytes)) => bytes,
                Some(Act::Abort(code)) => return call.abort(code),
                None => return,
            },
        };
        let mut writer = call.into_reply();
        let outcome = match writer.write(reply).await {
            Ok(()) => writer.finish_acknowledged().await,
            Err(error) => Err(error),
        };
        self.note(match outcome {
            Ok(wholly) => format!("n{number} acknowledged: {wholly}"),
            Err(error) => format!("n{number} failed: {error}"),
        });
    }
}

pub struct Tree {
    id: &'static str,
    pub way: Way,
    pub hub: MemoryHub,
    pub t: Endpoint,
    pub connection: Option<Connection>,
    pub service: Shared,
    peer: MemoryNetwork,
    p_is_client: bool,
    serials: [u32; 2],
    highest_number: u32,
    left: VecDeque<Vec<u8>>,
    ladder: Vec<String>,
    began: tokio::time::Instant,
}

impl Drop for Tree {
    fn drop(&mut self) {
        tree::slow_down_channels(None);
    }
}

/// T offers service 1.
pub async fn server(id: &'static str, way: Way) -> Tree {
    server_with(id, way, |_| {}).await
}

pub async fn server_with(
    id: &'static str,
    way: Way,
    adjust: impl FnOnce(&mut EndpointConfig),
) -> Tree {
    Tree::start(id, way, true, adjust, |builder| builder).await
}

/// T has a client connection to P.
pub async fn client(id: &'static str, way: Way) -> Tree {
    let mut t = Tree::start(id, way, false, |_| {}, |builder| builder).await;
    t.connection = Some(t.t.connect(peer_addr(), 1).await.unwrap());
    t
}

/// The settings of all scenarios.
pub fn settings() -> EndpointConfig {
    let mut config = EndpointConfig {
        strict_address: false,
        debug_responder: true,
        amplification_max: None,
        ..EndpointConfig::default()
    };
    for call in [&mut config.server.call, &mut config.client.call] {
        call.keepalive = false;
        call.receive_window_max_packets = 32;
    }
    config
}

pub fn identity() -> Identity {
    Identity { epoch: Epoch(EPOCH), first_cid: Cid(CID), hash_seed: 1 }
}

impl Tree {
    async fn start(
        id: &'static str,
        way: Way,
        p_is_client: bool,
        adjust: impl FnOnce(&mut EndpointConfig),
        build: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
    ) -> Tree {
        pause_clock();
        tree::slow_down_channels((way == Way::Slow).then_some(REST));
        let hub = MemoryHub::new();
        let (_, source) = hub.bind_source(tree_addr()).unwrap();
        let service = Shared::new();
        let serve = service.clone();
        let mut config = settings();
        adjust(&mut config);
        let builder = Endpoint::builder().network(source).config(config).identity(identity());
        let builder = builder.service_with(
            1,
            move |call| serve.clone().serve(call).map(Ok::<_, AbortCode>),
            ServiceOptions::small_replies(),
        );
        let t = build(builder).start().await.unwrap();
        let peer = hub.bind(peer_addr()).unwrap();
        Tree {
            id,
            way,
            hub,
            t,
            connection: None,
            service,
            peer,
            p_is_client,
            serials: [0; 2],
            highest_number: 0,
            left: VecDeque::new(),
            ladder: Vec::new(),
            began: tokio::time::Instant::now(),
        }
    }

    pub fn app(&mut self, mode: App) -> &mut Self {
        self.service.get().mode = mode;
        self
    }

    // ---- P's packets ----

    /// P sends this, and T does what it has to do.
    pub async fn send(&mut self, line: &str) -> &mut Self {
        let datagram = self.datagram(line);
        self.transmit(&datagram, datagram.len());
        self.settle().await;
        self
    }

    /// P's packets arrive in this order, in the way of this scenario.
    pub async fn deliver(&mut self, lines: &[&str]) -> &mut Self {
        match self.way {
            Way::OneByOne => {
                for line in lines {
                    self.send(line).await;
                }
            }
            Way::Burst | Way::Slow => {
                self.burst(lines);
                self.settle().await;
            }
        }
        self
    }

    /// P's packets are all in T's socket before T runs.
    pub fn burst(&mut self, lines: &[&str]) {
        let datagrams: Vec<_> = lines.iter().map(|line| self.datagram(line)).collect();
        let stride = datagrams[0].len();
        let (last, others) = datagrams.split_last().unwrap();
        if others.iter().all(|datagram| datagram.len() == stride) && last.len() <= stride {
            self.transmit(&datagrams.concat(), stride);
        } else {
            datagrams.iter().for_each(|datagram| self.transmit(datagram, datagram.len()));
        }
    }

    fn transmit(&mut self, contents: &[u8], stride: usize) {
        for datagram in cut(contents, stride) {
            self.note("P>T", &show(datagram));
        }
        let transmit = Transmit::run(tree_addr(), contents, stride);
        self.peer.try_send(&transmit).unwrap();
    }

    fn datagram(&mut self, line: &str) -> Vec<u8> {
        let line = parse(line);
        let from_client = line.is_from_client(self.p_is_client);
        let serial = &mut self.serials[usize::from(from_client)];
        let default = serial.wrapping_add(1);
        let named = if line.packet_type == 2 { line.header_serial } else { line.serial };
        *serial = named.unwrap_or(default);
        let flags = if from_client { Flags::CLIENT_INITIATED.0 } else { 0 };
        if from_client {
            self.highest_number = self.highest_number.max(line.number.unwrap_or(0));
        }
        line.encode(&Defaults { epoch: EPOCH, cid: CID, serial: *serial, flags })
    }

    // ---- time ----

    /// T does what it has to do now; slow channels get the time for it.
    pub async fn settle(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        if self.way == Way::Slow {
            tokio::time::sleep(ms(400)).await;
        }
        self.collect();
    }

    pub async fn pass(&mut self, time: Duration) -> &mut Self {
        tokio::time::sleep(time).await;
        self.settle().await;
        self
    }

    // ---- what is expected ----

    fn collect(&mut self) {
        let mut into = Vec::new();
        let task = &mut Context::from_waker(Waker::noop());
        while self.peer.poll_receive(task, &mut into).is_ready() {}
        for incoming in into {
            let Incoming::Datagrams { data, stride, .. } = incoming else { continue };
            for datagram in cut(&data, stride) {
                self.note("T>P", &show(datagram));
                self.left.push_back(datagram.to_vec());
            }
        }
    }

    /// Exactly these packets have left T since the last look, in this order. A slow channel's delayed ACKs
    /// are its own affair: it has missed the time for saying the same with its reply.
    #[track_caller]
    pub fn expect(&mut self, lines: &[&str]) -> &mut Self {
        let is_slow = self.way == Way::Slow;
        let is_delayed = |datagram: &Vec<u8>| is_slow && show(datagram).contains("=DELAY");
        for line in lines {
            while !line.contains("=DELAY") && self.left.front().is_some_and(is_delayed) {
                self.left.pop_front();
            }
            let Some(datagram) = self.left.pop_front() else {
                self.fail(&format!("expected {line}, nothing left"))
            };
            let differences = parse(line).differences(&datagram);
            if !differences.is_empty() {
                let (got, why) = (show(&datagram), differences.join("; "));
                self.fail(&format!("expected {line}\n  left {got}\n  {why}"));
            }
        }
        self.left.retain(|datagram| !is_delayed(datagram));
        if let Some(datagram) = self.left.front() {
            self.fail(&format!("unexpected: {}", show(datagram)));
        }
        self
    }

    pub fn take_left(&mut self) -> Vec<Vec<u8>> {
        self.left.drain(..).collect()
    }

    /// Nothing leaves T within `time`.
    pub async fn silent(&mut self, time: Duration) -> &mut Self {
        self.expect(&[]);
        self.pass(time).await.expect(&[])
    }

    pub async fn none(&mut self) -> &mut Self {
        self.silent(SILENCE).await
    }

    /// These leave T after `time`, give or take two milliseconds. (Timers of Tokio are a millisecond wide.)
    pub async fn after(&mut self, time: Duration, lines: &[&str]) -> &mut Self {
        self.expect(&[]).pass(time - ms(2)).await.expect(&[]);
        self.pass(ms(4)).await.expect(lines)
    }

    pub async fn snapshot(&mut self) -> Snapshot {
        self.t.inspect().await.expect("an endpoint that lives")
    }

    /// The state of channel 0 of T's first connection.
    pub async fn expect_state(&mut self, state: Option<CallState>) -> &mut Self {
        let got = self.snapshot().await.connections[0].channels[0].state;
        if got != state {
            self.fail(&format!("expected {state:?}, is {got:?}"));
        }
        self
    }

    pub async fn expect_dropped(&mut self, reason: DropReason, count: u64) -> &mut Self {
        let got = self.snapshot().await.counters.dropped_for(reason);
        if got != count {
            self.fail(&format!("expected {count} dropped as {reason}, were {got}"));
        }
        self
    }

    /// The calls that T's service was given, in order.
    #[track_caller]
    pub fn expect_calls(&mut self, numbers: &[u32]) -> &mut Self {
        let calls = self.service.get().calls.clone();
        if calls != numbers {
            self.fail(&format!("expected calls {numbers:?}, were {calls:?}"));
        }
        self
    }

    /// The request of a call, as far as it was delivered.
    #[track_caller]
    pub fn expect_bytes(&mut self, number: u32, bytes: &[u8]) -> &mut Self {
        let got = self.service.get().bytes.get(&number).cloned().unwrap_or_default();
        if got != bytes {
            self.fail(&format!("call {number}: expected {bytes:?}, got {got:?}"));
        }
        self
    }

    /// Lines of the service's log in this order, whatever lies between.
    #[track_caller]
    pub fn expect_log(&mut self, lines: &[&str]) -> &mut Self {
        let log = self.service.get().log.clone();
        let mut rest = log.iter();
        for line in lines {
            if !rest.any(|entry| entry == line) {
                self.fail(&format!("{line:?} is not in its place in {log:?}"));
            }
        }
        self
    }

    /// No BUSY and no ABORT was sent, and nothing twice.
    pub async fn expect_smooth(&mut self) -> &mut Self {
        let counters = self.snapshot().await.counters;
        assert_eq!((counters.busy_sent, counters.aborts_sent, counters.resent), (0, 0, 0));
        self
    }

    /// Whatever happened, T answers the next call.
    pub async fn done(&mut self) {
        self.expect(&[]).app(App::Echo);
        let number = self.highest_number + 1;
        self.send(&format!("D n{number} q1 [CL] \"alive\"")).await;
        self.expect(&[&format!("D n{number} q1 [L] \"alive\"")]);
        let report = self.t.shutdown(Duration::ZERO).await;
        assert_eq!(report.calls_cut, 0);
        self.t.closed().await;
    }

    // ---- T's application ----

    /// The application of a manual call writes its whole reply.
    pub async fn write(&mut self, number: u32, bytes: &[u8]) -> &mut Self {
        self.act(number, Act::Write(bytes.to_vec())).await
    }

    pub async fn abort(&mut self, number: u32, code: i32) -> &mut Self {
        self.act(number, Act::Abort(AbortCode(code))).await
    }

    async fn act(&mut self, number: u32, act: Act) -> &mut Self {
        self.note("app", &format!("n{number}: {act:?}"));
        self.service.get().acts[&number].unbounded_send(act).unwrap();
        self.settle().await;
        self
    }

    // ---- inside ----

    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        let log = self.service.get().log.join("\n  ");
        let ladder = self.ladder.join("\n");
        panic!("{} {:?}: {what}\n{ladder}\nservice:\n  {log}", self.id, self.way);
    }

    fn note(&mut self, who: &str, what: &str) {
        if self.ladder.len() > 200 {
            self.ladder.drain(..100);
        }
        let at = self.began.elapsed().as_millis();
        self.ladder.push(format!("  {at:>6} ms {who:<4} {what}"));
    }
}
