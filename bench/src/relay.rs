//! A path between two ends: delay, independent loss from a seed, and an MTU, in a thread of this process.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// UDP payload that passes: Ethernet's.
const PAYLOAD_MAX: usize = 1472;
/// Bytes that may be on their way in one direction; more would be a loss that nobody asked for.
const QUEUE_BYTES_MAX: usize = 64 << 20;
const SEND_BYTES_MAX: usize = 65_000;
const SEGMENTS_MAX: usize = 64;
/// The kernel's timers are late by this much: spin over it.
const SPIN: Duration = Duration::from_micros(120);

#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub round_trip: Duration,
    pub loss: f64,
    pub seed: u64,
}

/// Ends with this value.
pub struct Relay {
    pub port: u16,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

/// What became of datagrams.
#[derive(Default)]
struct Counts {
    injected: AtomicU64,
    /// Too many on their way.
    overflowed: AtomicU64,
}

impl Relay {
    pub fn start(to: u16, path: Path) -> Result<Relay> {
        let front = Side::open()?;
        let back = Side::open()?;
        let port = front.socket.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let (stopped, counted) = (stop.clone(), counts.clone());
        let server = SocketAddr::from(([127, 0, 0, 1], to));
        let thread = std::thread::spawn(move || {
            let way = |seed| Way {
                path,
                random: SmallRng::seed_from_u64(path.seed ^ seed),
                queue: VecDeque::new(),
                bytes: 0,
            };
            relay([front, back], [way(0), way(1 << 32)], server, &stopped, &counted)
        });
        Ok(Relay { port, stop, counts, thread: Some(thread) })
    }

    /// Dropped on purpose.
    pub fn injected(&self) -> u64 {
        self.counts.injected.load(Ordering::Relaxed)
    }

    /// Lost here without being asked for.
    pub fn overflowed(&self) -> u64 {
        self.counts.overflowed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("bench: relay: {error}");
        }
    }
}

struct Side {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Side {
    fn open() -> Result<Side> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        let options = socket2::SockRef::from(&socket);
        options.set_recv_buffer_size(4 << 20)?;
        options.set_send_buffer_size(4 << 20)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Side { socket, state })
    }
}

struct Held {
    due: Instant,
    bytes: Vec<u8>,
}

/// One direction.
struct Way {
    path: Path,
    random: SmallRng,
    queue: VecDeque<Held>,
    bytes: usize,
}

impl Way {
    fn take(&mut self, now: Instant, datagram: &[u8], counts: &Counts) {
        if datagram.len() > PAYLOAD_MAX {
            return;
        }
        // Drawn for each that fits, so that one seed loses the same numbers whatever the rest does.
        if self.path.loss > 0.0 && self.random.random_bool(self.path.loss) {
            counts.injected.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.bytes + datagram.len() > QUEUE_BYTES_MAX {
            counts.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.bytes += datagram.len();
        let due = now + self.path.round_trip / 2;
        self.queue.push_back(Held { due, bytes: datagram.to_vec() });
    }

    /// Sends what is due: equal sizes together.
    fn give(&mut self, now: Instant, side: &Side, to: SocketAddr) -> Result<()> {
        while self.queue.front().is_some_and(|held| held.due <= now) {
            let mut contents = Vec::new();
            let mut segment = 0;
            let mut count = 0;
            while let Some(held) = self.queue.front()
                && held.due <= now
                && count < SEGMENTS_MAX
                && (count == 0 || held.bytes.len() <= segment)
                && contents.len() + held.bytes.len() <= SEND_BYTES_MAX
            {
                segment = segment.max(held.bytes.len());
                contents.extend_from_slice(&held.bytes);
                let is_short = held.bytes.len() < segment;
                self.bytes -= held.bytes.len();
                count += 1;
                self.queue.pop_front();
                if is_short {
                    break;
                }
            }
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: &contents,
                segment_size: (count > 1).then_some(segment),
                src_ip: None,
            };
            while let Err(error) = side.state.try_send(UdpSockRef::from(&side.socket), &transmit) {
                match error.kind() {
                    ErrorKind::WouldBlock => {
                        let mut wanted = [PollFd::new(side.socket.as_fd(), PollFlags::POLLOUT)];
                        ppoll(&mut wanted, Some(TimeSpec::new(0, 1_000_000)), None)?;
                    }
                    // An end that is gone already.
                    ErrorKind::ConnectionRefused => break,
                    _ => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

fn relay(
    [front, back]: [Side; 2],
    [mut up, mut down]: [Way; 2],
    server: SocketAddr,
    stop: &AtomicBool,
    counts: &Counts,
) -> Result<()> {
    let mut client = None;
    let mut buffers = vec![vec![0u8; 1 << 16]; BATCH_SIZE];
    while !stop.load(Ordering::Relaxed) {
        let from_client = receive(&front, &mut buffers, |now, from, datagram| {
            client = Some(from);
            up.take(now, datagram, counts);
        })?;
        let from_server =
            receive(&back, &mut buffers, |now, _, datagram| down.take(now, datagram, counts))?;
        let now = Instant::now();
        up.give(now, &back, server)?;
        if let Some(client) = client {
            down.give(now, &front, client)?;
        }
        if from_client || from_server {
            continue;
        }
        let due = [&up, &down].into_iter().filter_map(|way| way.queue.front()).map(|it| it.due);
        let left = due.min().map(|due| due.saturating_duration_since(Instant::now()));
        let sleep = left.unwrap_or(Duration::from_millis(20)).saturating_sub(SPIN);
        if sleep.is_zero() {
            std::hint::spin_loop();
            continue;
        }
        let mut wanted = [
            PollFd::new(front.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(back.socket.as_fd(), PollFlags::POLLIN),
        ];
        ppoll(&mut wanted, Some(TimeSpec::from_duration(sleep)), None)?;
    }
    Ok(())
}

/// Whether something came.
fn receive(
    side: &Side,
    buffers: &mut [Vec<u8>],
    mut take: impl FnMut(Instant, SocketAddr, &[u8]),
) -> Result<bool> {
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
    match side.state.recv(UdpSockRef::from(&side.socket), &mut slices, &mut meta) {
        Ok(count) => {
            let now = Instant::now();
            for (meta, buffer) in meta[..count].iter().zip(buffers) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    take(now, meta.addr, datagram);
                }
            }
            Ok(count > 0)
        }
        Err(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
