//! The machine's limits. Bulk: GSO and GRO in full batches, with credits through shared memory instead of a
//! protocol, so that nothing is lost. Calls: a ping-pong of single datagrams on Tokio.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use memmap2::MmapMut;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rxrpc::wire::{CallNumber, Cid, Epoch, Flags, Header, PacketType, SecurityIndex, Seq, Serial};

use super::{Caller, Parent, attend, attend_loads, say};
use crate::alloc::allocations;
use crate::spec::{CALL_BYTES, End, GO, Load, Net, Outcome, Said, Stat};

/// Bytes on their way at the most.
const WINDOW_BYTES: u64 = 512 << 10;
const SEND_BYTES_MAX: usize = 65_000;
const SEGMENTS_MAX: usize = 64;
const WARM: Duration = Duration::from_millis(50);
/// Rx's header, so that pings are as large as calls.
const HEADER_BYTES: usize = 28;

/// A counter that both processes see.
struct Credits(MmapMut);

impl Credits {
    fn open(path: &Path) -> Result<Credits> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        // SAFETY: the file is the bench's own, of eight bytes, and nobody shortens it; both processes use it
        // through an atomic only.
        let map = unsafe { MmapMut::map_mut(&file)? };
        if map.len() < 8 {
            bail!("the shared file is too short");
        }
        Ok(Credits(map))
    }

    fn count(&self) -> &AtomicU64 {
        // SAFETY: mapped, page-aligned, of eight bytes at least, and alive as long as `self`.
        unsafe { &*self.0.as_ptr().cast::<AtomicU64>() }
    }
}

fn socket() -> Result<(UdpSocket, UdpSocketState)> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(4 << 20)?;
    options.set_send_buffer_size(4 << 20)?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    Ok((socket, state))
}

pub fn server(end: End) -> Result<()> {
    if end.datagram == 0 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(pong());
    }
    let credits = Credits::open(Path::new(&end.shared))?;
    let (socket, state) = socket()?;
    let port = socket.local_addr()?.port();
    let counters: Arc<[AtomicU64; 2]> = Arc::default();
    let counted = counters.clone();
    std::thread::spawn(move || {
        if let Err(error) = receive(&socket, &state, &credits, &counted) {
            say(&Said::Failed(format!("raw: {error}")));
            std::process::exit(1);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(attend(port, async || {
        let [datagrams_received, receives] = [0, 1].map(|at| counters[at].load(Ordering::Relaxed));
        Some(Net { datagrams_received, receives, ..Net::default() })
    }))
}

fn receive(
    socket: &UdpSocket,
    state: &UdpSocketState,
    credits: &Credits,
    counted: &[AtomicU64; 2],
) -> Result<()> {
    let mut buffers = vec![vec![0u8; 1 << 16]; BATCH_SIZE];
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        match state.recv(UdpSockRef::from(socket), &mut slices, &mut meta) {
            Ok(count) => {
                for meta in &meta[..count] {
                    let datagrams = meta.len.div_ceil(meta.stride.max(1));
                    counted[0].fetch_add(datagrams as u64, Ordering::Relaxed);
                    counted[1].fetch_add(1, Ordering::Relaxed);
                    credits.count().fetch_add(meta.len as u64, Ordering::Release);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut wanted, PollTimeout::NONE)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

pub fn client(end: End) -> Result<()> {
    let client = end.client.clone().context("no port")?;
    if let [Load::Flood { .. }] = client.loads[..] {
        return flood(client.port);
    }
    if end.datagram == 0 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(ping(end));
    }
    let mut parent = Parent::listen();
    let credits = Credits::open(Path::new(&end.shared))?;
    let (socket, state) = socket()?;
    let to = SocketAddr::from(([127, 0, 0, 1], client.port));
    let mut sender = Sender { socket, state, to, credits, net: Net::default(), sent: 0 };
    for load in &client.loads {
        let Load::Bulk { seconds, .. } = *load else { bail!("raw has no such load") };
        sender.send_for(WARM, end.datagram)?;
        say(&Said::Begin);
        while parent.blocking_line() != GO {
            say(&Said::Stat(sender.stat()));
        }
        say(&Said::Done(sender.send_for(Duration::from_secs_f64(seconds), end.datagram)?));
    }
    loop {
        parent.blocking_line();
        say(&Said::Stat(sender.stat()));
    }
}

struct Sender {
    socket: UdpSocket,
    state: UdpSocketState,
    to: SocketAddr,
    credits: Credits,
    net: Net,
    sent: u64,
}

impl Sender {
    fn stat(&self) -> Stat {
        Stat { allocations: allocations(), net: Some(self.net) }
    }

    /// Sends for so long, and waits until all of it was received.
    fn send_for(&mut self, time: Duration, datagram: usize) -> Result<Outcome> {
        let segments = (SEND_BYTES_MAX / datagram).clamp(1, SEGMENTS_MAX);
        let contents = vec![0u8; segments * datagram];
        let bytes = contents.len() as u64;
        let transmit = Transmit {
            destination: self.to,
            ecn: None,
            contents: &contents,
            segment_size: (segments > 1).then_some(datagram),
            src_ip: None,
        };
        let (began, start, mut spun) = (Instant::now(), self.sent, Duration::ZERO);
        while began.elapsed() < time {
            spun += self.wait(WINDOW_BYTES - bytes)?;
            while let Err(error) = self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
                if error.kind() != ErrorKind::WouldBlock {
                    return Err(error.into());
                }
                let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut wanted, PollTimeout::NONE)?;
            }
            self.sent += bytes;
            self.net.sends += 1;
            self.net.datagrams_sent += segments as u64;
            self.net.bytes_sent += bytes;
        }
        spun += self.wait(0)?;
        let wall_s = began.elapsed().as_secs_f64();
        let units = self.sent - start;
        Ok(Outcome { wall_s, units, spun_s: spun.as_secs_f64(), micros: None })
    }

    /// Spins until no more than so many bytes are on their way; says how much CPU time that took.
    fn wait(&self, most: u64) -> Result<Duration> {
        let on_way = || self.sent.saturating_sub(self.credits.count().load(Ordering::Acquire));
        if on_way() <= most {
            return Ok(Duration::ZERO);
        }
        let (began, cpu) = (Instant::now(), thread_cpu()?);
        while on_way() > most {
            std::hint::spin_loop();
            if began.elapsed() > Duration::from_secs(2) {
                bail!("stall: {} bytes never arrived", on_way());
            }
        }
        Ok(thread_cpu()?.saturating_sub(cpu))
    }
}

fn thread_cpu() -> Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.into())
}

async fn pong() -> Result<()> {
    let socket = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await?;
    let port = socket.local_addr()?.port();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            if socket.send_to(&buffer[..count], from).await.is_err() {
                break;
            }
        }
    });
    attend(port, async || None).await
}

#[derive(Clone)]
struct Ping(Arc<tokio::net::UdpSocket>);

async fn ping(end: End) -> Result<()> {
    let port = end.client.as_ref().context("no port")?.port;
    let socket = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(("127.0.0.1", port)).await?;
    attend_loads(&end, Ping(Arc::new(socket)), async |_, _| bail!("raw has no such load")).await
}

impl Caller for Ping {
    async fn call(&self, _: Bytes) -> Result<usize> {
        self.0.send(&[7; HEADER_BYTES + CALL_BYTES]).await?;
        let mut buffer = [0; 2048];
        Ok(self.0.recv(&mut buffer).await?.saturating_sub(HEADER_BYTES))
    }

    async fn recv(&self, _: u64, _: Option<Duration>) -> Result<u64> {
        bail!("a ping-pong has no bulk")
    }

    async fn send(&self, _: u64) -> Result<()> {
        bail!("a ping-pong has no bulk")
    }

    async fn net(&self) -> Option<Net> {
        None
    }
}

/// Sends the same first DATA of one call over and over, in full batches, until it is ended.
fn flood(port: u16) -> Result<()> {
    drop(Parent::listen());
    let (socket, state) = socket()?;
    let header = Header {
        epoch: Epoch(0x1234_5678),
        cid: Cid(0x0bad_cafc),
        call_number: CallNumber(1),
        seq: Seq(1),
        serial: Serial(1),
        packet_type: PacketType::Data,
        flags: Flags::CLIENT_INITIATED,
        user_status: 0,
        security_index: SecurityIndex::NULL,
        cksum: 0,
        service_id: rxrpc::ServiceId(1),
    };
    let mut datagram = header.encode().to_vec();
    datagram.resize(1440, 0);
    let contents = datagram.repeat(45);
    let destination = SocketAddr::from(([127, 0, 0, 1], port));
    let segment_size = Some(datagram.len());
    let transmit =
        Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
    let mut buffer = [0; 2048];
    say(&Said::Begin);
    loop {
        if state.try_send(UdpSockRef::from(&socket), &transmit).is_err() {
            let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            poll(&mut wanted, PollTimeout::NONE)?;
        }
        // Answers do not matter.
        while socket.recv(&mut buffer).is_ok() {}
    }
}
