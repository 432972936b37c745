//! How a socket comes to be: an address or an inherited socket, buffers, port sharing.
//!
//! Knows socket options, and needs no runtime: a socket is bound on any thread, early enough to report
//! errors and its port, and opened later in the runtime that uses it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{super::NetworkSource, UdpNetwork};
use crate::net::network_source;

/// Asked for in each direction: some milliseconds of loopback at full speed.
const BUFFER_BYTES_DEFAULT: usize = 4 << 20;

/// More cannot have come between two binds; a flood shall not keep us.
const DISCARDED_MAX: usize = 10_000;

/// How to bind a UDP socket.
#[derive(Debug)]
pub struct UdpOptions {
    origin: Origin,
    reuse_port: bool,
    socket: SocketOptions,
}

/// What every socket gets, however it came to be.
#[derive(Clone, Copy, Debug)]
struct SocketOptions {
    send_buffer_bytes: usize,
    receive_buffer_bytes: usize,
    busy_poll: Duration,
}

#[derive(Debug)]
enum Origin {
    Bind(SocketAddr),
    Inherited(UdpSocket),
}

impl UdpOptions {
    /// A new socket at `addr`; port 0 asks for a free one. `[::]` takes IPv4 as well as IPv6.
    pub fn bind_to(addr: SocketAddr) -> UdpOptions {
        UdpOptions::with(Origin::Bind(addr))
    }

    /// A socket that somebody else bound, such as a supervisor; it must not be connected.
    pub fn inherited(socket: UdpSocket) -> UdpOptions {
        UdpOptions::with(Origin::Inherited(socket))
    }

    fn with(origin: Origin) -> UdpOptions {
        UdpOptions {
            origin,
            reuse_port: false,
            socket: SocketOptions {
                send_buffer_bytes: BUFFER_BYTES_DEFAULT,
                receive_buffer_bytes: BUFFER_BYTES_DEFAULT,
                busy_poll: Duration::ZERO,
            },
        }
    }

    /// Bytes to ask for as the kernel's send buffer; 4 MiB unless set. The kernel may grant less.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> UdpOptions {
        self.socket.send_buffer_bytes = bytes;
        self
    }

    /// Bytes to ask for as the kernel's receive buffer; 4 MiB unless set. The kernel may grant less.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> UdpOptions {
        self.socket.receive_buffer_bytes = bytes;
        self
    }

    /// Whether other sockets that also ask for it may share the port (`SO_REUSEPORT`): the kernel
    /// then spreads peers over them. No unless set; without effect on an inherited socket.
    #[must_use]
    pub fn reuse_port(mut self, reuse: bool) -> UdpOptions {
        self.reuse_port = reuse;
        self
    }

    /// For how long after a datagram to look for the next one before sleeping; zero, no such looking, unless set.
    ///
    /// Waking a thread that sleeps costs some 25 µs, and costs whoever sends to it too. A few times ten
    /// microseconds save that where answers come quickly, for a processor that is busy meanwhile. Other tasks of
    /// the thread run between two looks.
    #[must_use]
    pub fn busy_poll(mut self, time: Duration) -> UdpOptions {
        self.socket.busy_poll = time;
        self
    }

    /// Binds the socket and sets its options.
    pub fn bind(self) -> io::Result<BoundUdp> {
        let socket = match self.origin {
            Origin::Bind(addr) => bound(addr, self.reuse_port)?,
            Origin::Inherited(socket) => socket,
        };
        self.socket.prepare(socket)
    }

    /// Binds `count` sockets to one port, for a shard each; all from the same address and port comes to the same
    /// of them. An address that others have is refused, unless [`UdpOptions::reuse_port`] says that it may be shared.
    ///
    /// # Errors
    /// The address cannot be bound, the system does not share ports, or the socket is an inherited one and
    /// `count` is not 1.
    pub fn bind_shared(self, count: usize) -> io::Result<Vec<BoundUdp>> {
        let addr = match self.origin {
            _ if count == 1 => return Ok(vec![self.bind()?]),
            Origin::Bind(addr) => addr,
            Origin::Inherited(_) => {
                let why = "an inherited socket cannot be divided: bring one for each shard";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        };
        let first = bound(addr, self.reuse_port)?;
        // Only now, so that it was refused what somebody else has.
        share_port(&SockRef::from(&first))?;
        let addr = first.local_addr()?;
        let mut sockets = vec![first];
        while sockets.len() < count {
            sockets.push(bound(addr, true)?);
        }
        // What came before all were there may be on another socket than what follows it.
        sockets.iter().try_for_each(discard)?;
        sockets.into_iter().map(|socket| self.socket.prepare(socket)).collect()
    }
}

impl SocketOptions {
    fn prepare(self, socket: UdpSocket) -> io::Result<BoundUdp> {
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let options = SockRef::from(&socket);
        // Less than asked for is no error: it costs throughput, not function.
        let _ = options.set_send_buffer_size(self.send_buffer_bytes);
        let _ = options.set_recv_buffer_size(self.receive_buffer_bytes);
        log::info!(
            "{addr}: send buffer {} of {} bytes, receive buffer {} of {} bytes",
            granted(options.send_buffer_size()),
            self.send_buffer_bytes,
            granted(options.recv_buffer_size()),
            self.receive_buffer_bytes,
        );
        Ok(BoundUdp { socket, addr, busy_poll: self.busy_poll })
    }
}

/// A bound socket that no runtime knows yet. Datagrams wait in the kernel until it is opened.
#[derive(Debug)]
pub struct BoundUdp {
    socket: UdpSocket,
    addr: SocketAddr,
    busy_poll: Duration,
}

impl BoundUdp {
    /// Where it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes it a network of the current Tokio runtime.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with I/O enabled.
    pub fn open(self) -> io::Result<UdpNetwork> {
        UdpNetwork::open(self.socket, self.busy_poll)
    }

    /// Leaves opening to the thread that will use it.
    pub fn into_source(self) -> NetworkSource {
        network_source(move || self.open())
    }
}

fn bound(addr: SocketAddr, reuse_port: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if reuse_port {
        share_port(&socket)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

#[cfg(unix)]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn share_port(_socket: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Loses what has arrived.
fn discard(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    for _ in 0..DISCARDED_MAX {
        if socket.recv(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            break;
        }
    }
    Ok(())
}

/// Linux keeps twice the bytes, for its own bookkeeping, and says so.
fn granted(bytes: io::Result<usize>) -> usize {
    bytes.unwrap_or(0) / if cfg!(target_os = "linux") { 2 } else { 1 }
}
