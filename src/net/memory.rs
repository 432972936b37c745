//! A network in memory: endpoints of one [`MemoryHub`] reach each other, and nobody else.
//!
//! Knows addresses, bounded queues and ports that nobody listens at. Delivery is immediate, in order
//! and without loss until a queue is full; delay and faults are added by
//! [`FaultyNetwork`](super::FaultyNetwork). It needs no runtime and reads no clock.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{Incoming, Network, NetworkSource, PathError, Transmit, network_source};

/// First of the ports given to endpoints that ask for port 0: the dynamic range of RFC 6335.
const DYNAMIC_PORT_FIRST: u16 = 49_152;

/// Most entries that one receive hands out: as many as a socket's.
const RECEIVE_ENTRIES_MAX: usize = 32;

/// What a [`MemoryHub`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes that wait at one endpoint; what comes beyond is lost.
    pub queue_bytes_max: usize,
    /// Datagrams that wait at one endpoint; what comes beyond is lost.
    pub queue_datagrams_max: usize,
    /// Largest datagram; a larger one is refused as the kernel refuses it (EMSGSIZE).
    pub datagram_bytes_max: usize,
    /// Largest datagram that passes unfragmented; a larger one that must not be fragmented is lost.
    pub unfragmented_bytes_max: usize,
    /// Whether the sender of such a datagram hears of it ([`PathError::TooBig`]); otherwise it disappears.
    pub reports_too_big: bool,
    /// Datagrams per [`Transmit`]; 1 imitates a kernel without offload.
    pub segments_max: usize,
    /// Whether a datagram to an address without endpoint is answered by
    /// [`PathError::PortUnreachable`]; otherwise it disappears.
    pub reports_unreachable: bool,
}

impl Default for MemoryLimits {
    /// As a UDP socket: 4 MiB, 16 384 datagrams, 65 507 bytes per datagram, 64 segments.
    fn default() -> MemoryLimits {
        MemoryLimits {
            queue_bytes_max: 4 << 20,
            queue_datagrams_max: 16_384,
            datagram_bytes_max: 65_507,
            unfragmented_bytes_max: 65_507,
            reports_too_big: true,
            segments_max: 64,
            reports_unreachable: true,
        }
    }
}

/// What a [`MemoryHub`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounters {
    /// Datagrams put into a queue.
    pub delivered_datagrams: u64,
    /// Datagrams lost because the receiver's queue was full.
    pub overflowed_datagrams: u64,
    /// Datagrams to an address without endpoint.
    pub unreachable_datagrams: u64,
    /// Datagrams lost because they were too large to pass unfragmented.
    pub too_big_datagrams: u64,
}

/// The wire between [`MemoryNetwork`]s. Clones are the same wire; endpoints may be on any thread.
#[derive(Clone, Debug, Default)]
pub struct MemoryHub {
    wire: Arc<Mutex<Wire>>,
}

impl MemoryHub {
    /// A wire with the default limits.
    pub fn new() -> MemoryHub {
        MemoryHub::default()
    }

    /// A wire with these limits.
    pub fn with_limits(limits: MemoryLimits) -> MemoryHub {
        let hub = MemoryHub::new();
        hub.set_limits(limits);
        hub
    }

    /// Changes the limits, for datagrams sent from now on.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.wire().limits = limits;
    }

    /// What the wire did so far.
    pub fn counters(&self) -> MemoryCounters {
        self.wire().counters
    }

    /// An endpoint at `addr`. Port 0 asks for a free one; the wildcard address means localhost.
    ///
    /// Fails with [`io::ErrorKind::AddrInUse`] if there is an endpoint already. The endpoint is gone
    /// when the network is dropped.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<MemoryNetwork> {
        let mut wire = self.wire();
        let addr = wire.free_addr(specified(addr))?;
        wire.endpoints.insert(addr, Inbox::default());
        drop(wire);
        Ok(MemoryNetwork { hub: self.clone(), addr })
    }

    /// Binds now and gives the network as a source.
    pub fn bind_source(&self, addr: SocketAddr) -> io::Result<(SocketAddr, NetworkSource)> {
        let network = self.bind(addr)?;
        Ok((network.addr, network_source(move || Ok(network))))
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        // No code panics while it holds the lock; a test that did is failing already.
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endpoint of a [`MemoryHub`].
#[derive(Debug)]
pub struct MemoryNetwork {
    hub: MemoryHub,
    addr: SocketAddr,
}

impl Network for MemoryNetwork {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn max_segments(&self) -> usize {
        self.hub.wire().limits.segments_max.max(1)
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.hub.wire();
        let Some(inbox) = wire.endpoints.get_mut(&self.addr) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if inbox.queue.is_empty() {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for entry in inbox.queue.drain(..inbox.queue.len().min(RECEIVE_ENTRIES_MAX)) {
            if let Incoming::Datagrams { data, stride, .. } = &entry {
                inbox.bytes -= data.len();
                inbox.datagrams -= datagrams_in(data.len(), *stride);
            }
            into.push(entry);
        }
        Poll::Ready(Ok(()))
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Copied before the lock is taken: what is slow stays outside.
        let data = Bytes::copy_from_slice(transmit.contents);
        let waker = self.hub.wire().deliver(self.addr, transmit, data)?;
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn poll_send_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryNetwork {
    fn drop(&mut self) {
        self.hub.wire().endpoints.remove(&self.addr);
    }
}

#[derive(Debug, Default)]
struct Wire {
    endpoints: HashMap<SocketAddr, Inbox>,
    limits: MemoryLimits,
    counters: MemoryCounters,
    ports_given: u16,
}

#[derive(Debug, Default)]
struct Inbox {
    queue: VecDeque<Incoming>,
    bytes: usize,
    datagrams: usize,
    waker: Option<Waker>,
}

impl Wire {
    fn free_addr(&mut self, addr: SocketAddr) -> io::Result<SocketAddr> {
        if addr.port() != 0 {
            let taken = self.endpoints.contains_key(&addr);
            return if taken { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(addr) };
        }
        let ports = u16::MAX - DYNAMIC_PORT_FIRST + 1;
        for _ in 0..ports {
            let port = DYNAMIC_PORT_FIRST + self.ports_given % ports;
            self.ports_given = (self.ports_given + 1) % ports;
            let addr = SocketAddr::new(addr.ip(), port);
            if !self.endpoints.contains_key(&addr) {
                return Ok(addr);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Puts a run into its receiver's queue, or the word that there is none into the sender's.
    /// Returns whom to wake once the lock is free.
    fn deliver(
        &mut self,
        from: SocketAddr,
        transmit: &Transmit<'_>,
        mut data: Bytes,
    ) -> io::Result<Option<Waker>> {
        let stride = transmit.segment_size.max(1);
        if data.len().min(stride) > self.limits.datagram_bytes_max {
            return Err(message_too_long());
        }
        let offered = datagrams_in(data.len(), stride);
        if data.len().min(stride) > self.limits.unfragmented_bytes_max && !transmit.may_fragment {
            return Ok(self.lose_too_big(from, transmit));
        }
        let Some(inbox) = self.endpoints.get_mut(&specified(transmit.to)) else {
            self.counters.unreachable_datagrams += offered as u64;
            return Ok(self.report_unreachable(from, transmit.to));
        };
        // As a full socket buffer: the head of the run still fits, the tail is lost.
        let room = self.limits.queue_bytes_max.saturating_sub(inbox.bytes);
        let mut taken =
            offered.min(self.limits.queue_datagrams_max.saturating_sub(inbox.datagrams));
        if data.len() > room {
            taken = taken.min(room / stride);
        }
        self.counters.delivered_datagrams += taken as u64;
        self.counters.overflowed_datagrams += (offered - taken) as u64;
        if taken == 0 {
            return Ok(None);
        }
        data.truncate(taken.saturating_mul(stride));
        inbox.bytes += data.len();
        inbox.datagrams += taken;
        inbox.queue.push_back(Incoming::Datagrams { from, data, stride });
        Ok(inbox.waker.take())
    }

    /// All of a run is lost, but for a shorter last datagram that passes.
    fn lose_too_big(&mut self, from: SocketAddr, transmit: &Transmit<'_>) -> Option<Waker> {
        let most = self.limits.unfragmented_bytes_max;
        let lost = transmit.datagrams().filter(|datagram| datagram.len() > most).count();
        self.counters.too_big_datagrams += lost as u64;
        let last = transmit.datagrams().last().filter(|datagram| datagram.len() <= most);
        let mut waker = None;
        if let Some(last) = last {
            let transmit = Transmit::datagram(transmit.to, last);
            waker = self.deliver(from, &transmit, Bytes::copy_from_slice(last)).ok().flatten();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        let headers = if transmit.to.is_ipv4() { 28 } else { 48 };
        let error = PathError::TooBig { mtu: (most + headers) as u32 };
        if self.limits.reports_too_big { self.report(from, transmit.to, error) } else { None }
    }

    fn report_unreachable(&mut self, sender: SocketAddr, to: SocketAddr) -> Option<Waker> {
        if !self.limits.reports_unreachable {
            return None;
        }
        self.report(sender, to, PathError::PortUnreachable)
    }

    fn report(&mut self, sender: SocketAddr, to: SocketAddr, error: PathError) -> Option<Waker> {
        let inbox = self.endpoints.get_mut(&sender)?;
        // Reports count against no limit but their own, so that they never push out datagrams.
        if inbox.queue.len() < self.limits.queue_datagrams_max {
            inbox.queue.push_back(Incoming::PathError { to, error });
        }
        inbox.waker.take()
    }
}

/// Number of datagrams in a run; no bytes are one empty datagram.
fn datagrams_in(bytes: usize, stride: usize) -> usize {
    bytes.div_ceil(stride).max(1)
}

/// The wildcard address as localhost, as the kernel takes it in a destination.
fn specified(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// The same error that a socket gives, so that callers recognise both alike.
fn message_too_long() -> io::Error {
    #[cfg(target_os = "linux")]
    return io::Error::from_raw_os_error(nix::libc::EMSGSIZE);
    #[cfg(not(target_os = "linux"))]
    return io::Error::new(io::ErrorKind::InvalidInput, "message too long");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// What is waiting, without waiting.
    fn received(network: &mut MemoryNetwork) -> Vec<Incoming> {
        let mut into = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(result) = network.poll_receive(cx, &mut into) {
            result.unwrap();
        }
        into
    }

    #[test]
    fn a_transmit_arrives_as_one_run() {
        let hub = MemoryHub::new();
        let (mut a, mut b) = (hub.bind(any()).unwrap(), hub.bind(any()).unwrap());
        a.try_send(&Transmit::run(b.addr, b"aabbc", 2)).unwrap();
        a.try_send(&Transmit::datagram(b.addr, b"")).unwrap();
        assert_eq!(
            received(&mut b),
            [
                Incoming::Datagrams { from: a.addr, data: Bytes::from_static(b"aabbc"), stride: 2 },
                Incoming::Datagrams { from: a.addr, data: Bytes::new(), stride: 1 },
            ]
        );
        assert_eq!(hub.counters().delivered_datagrams, 4);
    }

    #[test]
    fn addresses_are_taken_once_and_free_after_drop() {
        let hub = MemoryHub::new();
        let a = hub.bind("0.0.0.0:7001".parse().unwrap()).unwrap();
        assert_eq!(a.addr, "127.0.0.1:7001".parse().unwrap());
        assert_eq!(hub.bind(a.addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let addr = a.addr;
        drop(a);
        hub.bind(addr).unwrap();
        let (b, c) = (hub.bind(any()).unwrap(), hub.bind(any()).unwrap());
        assert_ne!(b.addr, c.addr);
    }

    #[test]
    fn nobody_there_is_reported_unless_switched_off() {
        let hub = MemoryHub::new();
        let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut a = hub.bind(any()).unwrap();
        a.try_send(&Transmit::datagram(nowhere, b"x")).unwrap();
        let report = Incoming::PathError { to: nowhere, error: PathError::PortUnreachable };
        assert_eq!(received(&mut a), [report]);
        hub.set_limits(MemoryLimits { reports_unreachable: false, ..Default::default() });
        a.try_send(&Transmit::datagram(nowhere, b"x")).unwrap();
        assert_eq!(received(&mut a), []);
        assert_eq!(hub.counters().unreachable_datagrams, 2);
    }

    /// A queue of 10 bytes: at the limit everything fits, one step beyond the tail is lost.
    #[test]
    fn a_full_queue_loses_the_tail_and_counts_it() {
        let hub =
            MemoryHub::with_limits(MemoryLimits { queue_bytes_max: 10, ..Default::default() });
        let (mut a, mut b) = (hub.bind(any()).unwrap(), hub.bind(any()).unwrap());
        a.try_send(&Transmit::run(b.addr, &[0; 10], 4)).unwrap();
        assert_eq!(hub.counters().overflowed_datagrams, 0);
        assert_eq!(received(&mut b).len(), 1);
        a.try_send(&Transmit::run(b.addr, &[0; 11], 4)).unwrap();
        assert_eq!(hub.counters().overflowed_datagrams, 1);
        a.try_send(&Transmit::datagram(b.addr, &[0; 3])).unwrap();
        assert_eq!(hub.counters().overflowed_datagrams, 2);
        let run = Incoming::Datagrams { from: a.addr, data: vec![0; 8].into(), stride: 4 };
        assert_eq!(received(&mut b), [run]);
        a.try_send(&Transmit::datagram(b.addr, &[0; 10])).unwrap();
        assert_eq!(received(&mut b).len(), 1);
    }

    #[test]
    fn queued_datagrams_are_bounded_in_number_too() {
        let hub =
            MemoryHub::with_limits(MemoryLimits { queue_datagrams_max: 2, ..Default::default() });
        let (mut a, mut b) = (hub.bind(any()).unwrap(), hub.bind(any()).unwrap());
        for _ in 0..3 {
            a.try_send(&Transmit::datagram(b.addr, b"")).unwrap();
        }
        assert_eq!(received(&mut b).len(), 2);
        assert_eq!(hub.counters().overflowed_datagrams, 1);
    }

    #[test]
    fn a_datagram_over_the_limit_is_refused() {
        let hub =
            MemoryHub::with_limits(MemoryLimits { datagram_bytes_max: 4, ..Default::default() });
        let (mut a, mut b) = (hub.bind(any()).unwrap(), hub.bind(any()).unwrap());
        a.try_send(&Transmit::run(b.addr, &[0; 8], 4)).unwrap();
        let error = a.try_send(&Transmit::run(b.addr, &[0; 8], 5)).unwrap_err();
        assert_eq!(error.raw_os_error(), message_too_long().raw_os_error());
        assert_eq!(received(&mut b).len(), 1);
    }

    /// A receiver on another thread and runtime is woken by a send from here.
    #[test]
    fn a_datagram_above_the_mtu_passes_only_in_fragments() {
        for reports_too_big in [true, false] {
            let hub = MemoryHub::with_limits(MemoryLimits {
                unfragmented_bytes_max: 4,
                reports_too_big,
                ..MemoryLimits::default()
            });
            let (mut a, mut b) = (hub.bind(any()).unwrap(), hub.bind(any()).unwrap());
            a.try_send(&Transmit::run(b.addr, b"aaaaabbbbbcccc", 5)).unwrap();
            let data = |data| Incoming::Datagrams { from: a.addr, data, stride: 4 };
            assert_eq!(received(&mut b), [data(Bytes::from_static(b"cccc"))]);
            let report = Incoming::PathError { to: b.addr, error: PathError::TooBig { mtu: 32 } };
            let expected = if reports_too_big { vec![report] } else { vec![] };
            assert_eq!(received(&mut a), expected);
            assert_eq!(hub.counters().too_big_datagrams, 2);
            let whole = Transmit { may_fragment: true, ..Transmit::run(b.addr, b"aaaaabb", 5) };
            a.try_send(&whole).unwrap();
            assert!(matches!(&received(&mut b)[..], [Incoming::Datagrams { stride: 5, .. }]));
        }
    }

    #[test]
    fn a_send_wakes_a_receiver_on_another_thread() {
        let hub = MemoryHub::new();
        let mut a = hub.bind(any()).unwrap();
        let (to, source) = hub.bind_source(any()).unwrap();
        let receiver = std::thread::spawn(move || {
            let mut network = source().unwrap();
            let mut into = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime
                .block_on(std::future::poll_fn(|cx| network.poll_receive(cx, &mut into)))
                .unwrap();
            into.len()
        });
        while hub.wire().endpoints[&to].waker.is_none() {
            std::thread::yield_now();
        }
        a.try_send(&Transmit::datagram(to, b"wake up")).unwrap();
        assert_eq!(receiver.join().unwrap(), 1);
    }
}
