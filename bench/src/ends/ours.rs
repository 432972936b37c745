//! rxrpc as a user has it: the tree of actors on the arbiter of its user.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use rxrpc::{
    AbortCode, CallOptions, ConnectOptions, Connection, Endpoint, EndpointBuilder, IncomingCall,
    ServiceFault, ServiceOptions, unary,
};

use super::calls::{latencies, looped, micros};
use super::{Caller, Parent, attend, attend_loads, say};
use crate::spec::{CALL_BYTES, End, Load, Net, Outcome, Said};

/// Service 1 gives back what it gets; 147 is that of OpenAFS's rxperf (`send`, `recv` and `rpc`).
const ECHO: u16 = 1;
pub const PERF: u16 = 147;
pub const OP_SEND: u32 = 0;
pub const OP_RECV: u32 = 1;
const OP_RPC: u32 = 3;
pub const MAGIC: u32 = 0x4711;
const PIECE_BYTES: usize = 64 << 10;
/// Connections of the bundle for calls: 64 in flight.
const BUNDLE: usize = 16;
/// Connections that are opened at once.
const OPENING: usize = 64;

/// Limits out of the way; nothing else is changed, but the windows if that is asked for.
fn builder(end: &End) -> EndpointBuilder {
    let (jumbo, window, datagram) = (end.jumbo, end.window, end.datagram);
    Endpoint::builder().bind(([127, 0, 0, 1], 0)).configure(|config| {
        config.connections_max = 1_000_000;
        config.connections_per_peer_max = 1_000_000;
        config.unproved_connections_max = 1_000_000;
        for side in [&mut config.client, &mut config.server] {
            side.client_idle = Duration::from_secs(3600);
            side.server_idle = Duration::from_secs(3600);
            side.unserved_idle = Duration::from_secs(3600);
            side.call.jumbo_receive_packets = jumbo;
            if datagram > 0 {
                side.call.datagram_max_bytes = datagram as u32;
            }
            if window > 0 {
                side.call.receive_window_max_packets = window;
                side.call.send_window_max_packets = window;
                let initial = &mut side.call.receive_window_initial_packets;
                *initial = window.min(*initial);
                let initial = &mut side.call.send_window_initial_packets;
                *initial = window.min(*initial);
            }
        }
    })
}

fn with_services(builder: EndpointBuilder) -> EndpointBuilder {
    let echo = unary(async |request| Ok(request.bytes));
    builder.service_with(ECHO, echo, ServiceOptions::small_replies()).service(PERF, perf)
}

pub async fn server(end: End) -> Result<()> {
    let endpoint = with_services(builder(&end)).start().await?;
    let port = endpoint.local_addr().port();
    attend(port, async || net_of(&endpoint).await).await
}

async fn net_of(endpoint: &Endpoint) -> Option<Net> {
    let counters = endpoint.inspect().await?.counters;
    Some(Net {
        datagrams_sent: counters.datagrams_sent,
        bytes_sent: counters.bytes_sent,
        sends: counters.sends,
        datagrams_received: counters.datagrams_received,
        receives: counters.receives,
        resent: counters.resent,
        resent_by_timer: counters.resent_by_timer,
        dropped: counters.dropped_total(),
    })
}

async fn perf(mut call: IncomingCall) -> Result<(), ServiceFault> {
    const WORDS: AbortCode = AbortCode(-453);
    let mut head = BytesMut::new();
    let mut need = 20;
    while head.len() < need {
        head.extend_from_slice(&call.next().await.ok_or(WORDS)??);
        if head.len() >= need && word(&head, 1) == OP_RPC {
            need = 24;
        }
    }
    let (op, first) = (word(&head, 1), word(&head, 4));
    let reply = match op {
        OP_SEND => 0,
        OP_RECV => first,
        OP_RPC => word(&head, 5),
        _ => return Err(AbortCode(-455).into()),
    };
    if op != OP_RECV {
        let mut left = (first as usize).saturating_sub(head.len() - need);
        while left > 0 {
            left -= call.next().await.ok_or(WORDS)??.len().min(left);
        }
    }
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let mut left = reply as usize;
    let last = |count: usize| {
        let mut bytes = BytesMut::zeroed(count);
        bytes.extend_from_slice(&MAGIC.to_be_bytes());
        bytes.freeze()
    };
    if left <= 1024 {
        call.reply(last(left));
        return Ok(());
    }
    let mut writer = call.into_reply();
    while left > 0 {
        let most = left.min(PIECE_BYTES);
        writer.write(piece.slice(..most)).await?;
        left -= most;
    }
    writer.write(last(0)).await?;
    writer.finish()?;
    Ok(())
}

fn word(head: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(head[4 * at..4 * at + 4].try_into().expect("four bytes"))
}

pub fn perf_head(op: u32, bytes: u64) -> Result<Bytes> {
    let bytes = u32::try_from(bytes).context("services of Rx count in 32 bits")?;
    let words = [3, op, PIECE_BYTES as u32, PIECE_BYTES as u32, bytes];
    Ok(words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>().into())
}

#[derive(Clone)]
struct Client {
    endpoint: Endpoint,
    server: SocketAddr,
    echo: Connection,
    perf: Connection,
}

pub async fn client(end: End) -> Result<()> {
    let endpoint = with_services(builder(&end)).start().await?;
    say(&Said::Ready(endpoint.local_addr().port()));
    let port = end.client.as_ref().context("no port")?.port;
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let bundle = ConnectOptions { connections_max: BUNDLE, ..ConnectOptions::default() };
    let echo = endpoint.connect_with(server, ECHO, bundle.clone()).await?;
    let perf = endpoint.connect_with(server, PERF, bundle).await?;
    let caller = Client { endpoint, server, echo, perf };
    let opened = std::cell::RefCell::new(Vec::new());
    attend_loads(&end, caller.clone(), async |load, parent| match *load {
        Load::Open { connections } => caller.open(parent, connections, &opened).await,
        Load::Rounds { in_flight, seconds } => {
            let opened = opened.borrow().clone();
            caller.rounds(parent, in_flight, seconds, opened).await
        }
        Load::Deadlines { count, deadline_ms, beside } => {
            caller.deadlines(parent, count, deadline_ms, beside).await
        }
        Load::Beside { seconds, bulk } => caller.beside(parent, seconds, bulk).await,
        _ => bail!("ours has no such load"),
    })
    .await
}

impl Caller for Client {
    async fn call(&self, request: Bytes) -> Result<usize> {
        Ok(self.echo.call(request).await?.len())
    }

    async fn recv(&self, bytes: u64, within: Option<Duration>) -> Result<u64> {
        let mut request = self.perf.open_call(CallOptions::default()).await?;
        request.write(perf_head(OP_RECV, bytes)?).await?;
        let mut reply = request.finish()?;
        let came = Cell::new(0);
        let reading = async {
            while let Some(piece) = reply.next().await {
                came.set(came.get() + piece?.len() as u64);
            }
            anyhow::Ok(())
        };
        match within {
            None => reading.await?,
            Some(within) => match tokio::time::timeout(within, reading).await {
                Ok(done) => done?,
                Err(_) => return Ok(came.get()),
            },
        }
        Ok(came.get().saturating_sub(4))
    }

    async fn send(&self, bytes: u64) -> Result<()> {
        let mut request = self.perf.open_call(CallOptions::default()).await?;
        request.write(perf_head(OP_SEND, bytes)?).await?;
        let (piece, mut left) = (Bytes::from(vec![0; PIECE_BYTES]), bytes);
        while left > 0 {
            let most = left.min(PIECE_BYTES as u64) as usize;
            request.write(piece.slice(..most)).await?;
            left -= most as u64;
        }
        let reply = request.finish()?.read_all(4).await?;
        if reply[..] != MAGIC.to_be_bytes() {
            bail!("expected the magic word, got {reply:?}");
        }
        Ok(())
    }

    async fn net(&self) -> Option<Net> {
        net_of(&self.endpoint).await
    }
}

impl Client {
    async fn open(
        &self,
        parent: &mut Parent,
        connections: usize,
        opened: &std::cell::RefCell<Vec<Connection>>,
    ) -> Result<Outcome> {
        self.call(Bytes::from_static(&[1; CALL_BYTES])).await?;
        say(&Said::Begin);
        parent.go(async || self.net().await).await;
        let began = Instant::now();
        let one = ConnectOptions { connections_max: 1, ..ConnectOptions::default() };
        let more = connections.saturating_sub(opened.borrow().len());
        let mut opening = futures::stream::iter(0..more)
            .map(|_| async {
                let connection = self.endpoint.connect_with(self.server, ECHO, one.clone()).await?;
                connection.call(Bytes::from_static(&[1; CALL_BYTES])).await?;
                anyhow::Ok(connection)
            })
            .buffer_unordered(OPENING);
        while let Some(connection) = opening.next().await {
            opened.borrow_mut().push(connection?);
        }
        let wall_s = began.elapsed().as_secs_f64();
        // Connections rest when the timers of their last calls have run out.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(Outcome { wall_s, units: more as u64, ..Outcome::default() })
    }

    async fn rounds(
        &self,
        parent: &mut Parent,
        in_flight: usize,
        seconds: f64,
        opened: Vec<Connection>,
    ) -> Result<Outcome> {
        if opened.is_empty() {
            bail!("no connections are open");
        }
        let request = Bytes::from(vec![7u8; CALL_BYTES]);
        let call = async |number: u64| {
            let connection = &opened[number as usize % opened.len()];
            let reply = connection.call(request.clone()).await?;
            if reply.len() != CALL_BYTES {
                bail!("expected {CALL_BYTES} bytes of reply, got {}", reply.len());
            }
            Ok(())
        };
        looped(in_flight, super::WARM_CALLS, &call).await?;
        say(&Said::Begin);
        parent.go(async || self.net().await).await;
        looped(in_flight, Duration::from_secs_f64(seconds), &call).await
    }

    /// Bulk transfers, one after the other on each of so many channels, until the flag falls.
    fn flood(&self, bulk: usize) -> Rc<Cell<bool>> {
        let goes_on = Rc::new(Cell::new(true));
        for _ in 0..bulk {
            let (caller, goes_on) = (self.clone(), goes_on.clone());
            actix_rt::spawn(async move {
                while goes_on.get() {
                    if let Err(error) = caller.recv(256 << 20, None).await {
                        eprintln!("bench: bulk beside: {error}");
                        return;
                    }
                }
            });
        }
        goes_on
    }

    async fn deadlines(
        &self,
        parent: &mut Parent,
        count: usize,
        deadline_ms: u64,
        beside: usize,
    ) -> Result<Outcome> {
        let silent = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
        let nobody = self.endpoint.connect(silent.local_addr()?, ECHO).await?;
        say(&Said::Begin);
        parent.go(async || self.net().await).await;
        let goes_on = self.flood(beside);
        let deadline = Duration::from_millis(deadline_ms);
        tokio::time::sleep(deadline).await;
        let (began, mut late) = (Instant::now(), latencies());
        for _ in 0..count {
            let at = Instant::now();
            let result = nobody.call_with("nobody", CallOptions::within(deadline)).await;
            let took = at.elapsed();
            if result.is_ok() || took < deadline {
                bail!("a call to nobody ended with {result:?} after {took:?}");
            }
            late.saturating_record((took - deadline).as_nanos() as u64);
        }
        goes_on.set(false);
        let wall_s = began.elapsed().as_secs_f64();
        Ok(Outcome { wall_s, units: count as u64, micros: Some(micros(&late)), spun_s: 0.0 })
    }

    async fn beside(&self, parent: &mut Parent, seconds: f64, bulk: usize) -> Result<Outcome> {
        super::calls::closed_loop(self, 1, super::WARM_CALLS).await?;
        say(&Said::Begin);
        parent.go(async || self.net().await).await;
        let goes_on = self.flood(bulk);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let time = Duration::from_secs_f64(seconds);
        let outcome = super::calls::closed_loop(self, 1, time).await?;
        goes_on.set(false);
        Ok(outcome)
    }
}
