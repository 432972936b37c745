//! The processes at both ends of a sample.

mod calls;
mod inline;
mod ours;
mod quic;
mod raw;
mod tarpc;
mod tcp;
mod tonic;

use std::future::Future;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::alloc::allocations;
use crate::spec::{End, GO, Load, Net, Outcome, Said, Stack, Stat, Way};

/// Bytes of the warm-up transfer, and of the one that finds the rate.
const WARM_BYTES: u64 = 8 << 20;
const PROBE_BYTES: u64 = 32 << 20;
/// A transfer is never larger: services of Rx count in 32 bits.
const BULK_BYTES_MAX: f64 = 4.0e9;
/// Warm-up of small calls.
const WARM_CALLS: Duration = Duration::from_millis(60);

/// A client of any stack.
pub trait Caller: Clone + 'static {
    /// A small call; its reply has as many bytes.
    fn call(&self, request: Bytes) -> impl Future<Output = Result<usize>>;
    /// One transfer to us; ends early after `within`. Returns the bytes that came.
    fn recv(&self, bytes: u64, within: Option<Duration>) -> impl Future<Output = Result<u64>>;
    /// One transfer to the server, which says that it has all.
    fn send(&self, bytes: u64) -> impl Future<Output = Result<()>>;
    /// What the network did.
    fn net(&self) -> impl Future<Output = Option<Net>>;
}

/// Runs one end until its parent lets go of it.
pub fn run(end: End) -> Result<()> {
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match (end.stack, end.client.is_some()) {
        // In a task, as users of actors have it: what wakes the future of `block_on` itself costs one look at
        // the poller more each time, which with one call in flight is each call.
        (Stack::Ours, true) => {
            let system = actix_rt::System::new();
            system.block_on(async { actix_rt::spawn(ours::client(end)).await? })
        }
        (Stack::Ours, false) => actix_rt::System::new().block_on(ours::server(end)),
        (Stack::Inline, true) => single()?.block_on(inline::client(end)),
        (Stack::Inline, false) => single()?.block_on(inline::server(end)),
        (Stack::Raw, true) => raw::client(end),
        (Stack::Raw, false) => raw::server(end),
        (Stack::Tcp, true) => single()?.block_on(tcp::client(end)),
        (Stack::Tcp, false) => single()?.block_on(tcp::server()),
        (Stack::Quinn, true) => single()?.block_on(quic::client(end)),
        (Stack::Quinn, false) => single()?.block_on(quic::server()),
        (Stack::Tonic, true) => single()?.block_on(tonic::client(end)),
        (Stack::Tonic, false) => single()?.block_on(tonic::server()),
        (Stack::Tarpc, true) => single()?.block_on(tarpc::client(end)),
        (Stack::Tarpc, false) => single()?.block_on(tarpc::server()),
        (Stack::OpenAfs | Stack::OpenAfsJumbo, _) => bail!("OpenAFS is a program of its own"),
    }
}

/// The parent's lines. At their end the process ends, whatever it does.
pub struct Parent {
    lines: mpsc::UnboundedReceiver<String>,
}

impl Parent {
    pub fn listen() -> Parent {
        let (to, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                match line {
                    Ok(line) => drop(to.send(line)),
                    Err(_) => break,
                }
            }
            std::process::exit(0);
        });
        Parent { lines }
    }

    pub async fn line(&mut self) -> String {
        match self.lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }

    pub fn blocking_line(&mut self) -> String {
        self.lines.blocking_recv().unwrap_or_else(|| std::process::exit(0))
    }

    /// Answers questions until the word to go.
    pub async fn go(&mut self, net: impl AsyncFn() -> Option<Net>) {
        while self.line().await != GO {
            say(&Said::Stat(Stat { allocations: allocations(), net: net().await }));
        }
    }
}

pub fn say(said: &Said) {
    let line = serde_json::to_string(said).expect("plain values");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A server answers questions about itself for ever.
pub async fn attend(port: u16, net: impl AsyncFn() -> Option<Net>) -> Result<()> {
    let mut parent = Parent::listen();
    say(&Said::Ready(port));
    loop {
        parent.go(&net).await;
    }
}

/// Does a client's loads, those that every stack can do; `other` does the rest.
pub async fn attend_loads<C: Caller>(
    end: &End,
    caller: C,
    mut other: impl AsyncFnMut(&Load, &mut Parent) -> Result<Outcome>,
) -> Result<()> {
    let mut parent = Parent::listen();
    let loads = end.client.as_ref().context("a client without loads")?.loads.clone();
    let net = async || caller.net().await;
    for load in &loads {
        let outcome = match *load {
            Load::Bulk { way, seconds } => {
                let bytes = bytes_for(&caller, way, seconds).await?;
                say(&Said::Begin);
                parent.go(net).await;
                let began = Instant::now();
                transfer(&caller, way, bytes).await?;
                let wall_s = began.elapsed().as_secs_f64();
                Outcome { wall_s, units: bytes, ..Outcome::default() }
            }
            Load::Timed { seconds } => {
                caller.call(Bytes::from_static(&[1; crate::spec::CALL_BYTES])).await?;
                say(&Said::Begin);
                parent.go(net).await;
                let began = Instant::now();
                let within = Duration::from_secs_f64(seconds);
                let units = caller.recv(BULK_BYTES_MAX as u64, Some(within)).await?;
                let wall_s = began.elapsed().as_secs_f64();
                Outcome { wall_s, units, ..Outcome::default() }
            }
            Load::Calls { in_flight, seconds } => {
                calls::closed_loop(&caller, in_flight, WARM_CALLS).await?;
                say(&Said::Begin);
                parent.go(net).await;
                calls::closed_loop(&caller, in_flight, Duration::from_secs_f64(seconds)).await?
            }
            _ => other(load, &mut parent).await?,
        };
        say(&Said::Done(outcome));
        // Questions about it, until the next one is wanted.
        parent.go(net).await;
    }
    loop {
        parent.go(net).await;
    }
}

async fn transfer<C: Caller>(caller: &C, way: Way, bytes: u64) -> Result<()> {
    match way {
        Way::Recv => {
            let came = caller.recv(bytes, None).await?;
            if came != bytes {
                bail!("expected {bytes} bytes, got {came}");
            }
        }
        Way::Send => caller.send(bytes).await?,
    }
    Ok(())
}

/// How much takes so long; what finds it out is the warm-up too.
async fn bytes_for<C: Caller>(caller: &C, way: Way, seconds: f64) -> Result<u64> {
    transfer(caller, way, WARM_BYTES).await?;
    let began = Instant::now();
    transfer(caller, way, PROBE_BYTES).await?;
    let rate = PROBE_BYTES as f64 / began.elapsed().as_secs_f64();
    Ok((rate * seconds).clamp(PROBE_BYTES as f64, BULK_BYTES_MAX) as u64)
}
