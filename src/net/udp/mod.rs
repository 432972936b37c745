//! UDP through the kernel, with segmentation offload in both directions.
//!
//! Knows sockets: batches, readiness, the error queue, what the kernel refuses and what of that is
//! passing. Does not know what the datagrams mean, and keeps no state about peers.

mod ancillary;
mod buffers;
mod busy_poll;
mod error_queue;
mod fragmentation;
mod options;
mod rest;
mod watch;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;

use self::{
    buffers::Buffers, busy_poll::BusyPoll, error_queue::ErrorQueue, rest::Rest, watch::Watch,
};
use super::{Incoming, Network, PathError, Transmit, cut};

pub use options::{BoundUdp, UdpOptions};

/// Largest UDP payload over IPv4, and so the most bytes that one send may carry.
const SEND_BYTES_MAX: usize = 65_507;

/// Most failed receives in a row that one poll takes for news of the network. Each such failure
/// consumes its news; when more follow and the error queue stays empty, the socket is broken.
const RECEIVE_FAILURES_MAX: u32 = 16;

/// Most failed sends in a row that are taken for news about other datagrams.
const SEND_FAILURES_MAX: u32 = 8;

/// Most entries of the error queue read at a time: a flood of ICMP must not hold up data.
const ERRORS_PER_READ_MAX: usize = 64;

/// Most path errors that wait for a receive; ICMP is a hint, so more are dropped.
const PATH_ERRORS_MAX: usize = 256;

/// A UDP socket. Made by [`UdpOptions`].
pub struct UdpNetwork {
    socket: Arc<std::net::UdpSocket>,
    /// `None` while the network rests: then nothing that comes wakes anybody.
    watch: Option<Watch>,
    state: UdpSocketState,
    local_addr: SocketAddr,
    buffers: Buffers,
    meta: Box<[RecvMeta; BATCH_SIZE]>,
    /// The tail of a [`Transmit`] whose head went out before the kernel's buffer was full.
    backlog: Option<Backlog>,
    error_queue: ErrorQueue,
    path_errors: Vec<Incoming>,
    /// Whoever waits in `poll_receive`, for news that a send came upon.
    receiver: Option<Waker>,
    busy: BusyPoll,
    rest: Rest,
    /// Nothing is left of what there was when the last rest ended.
    is_emptied: bool,
}

struct Backlog {
    to: SocketAddr,
    data: Bytes,
    segment_size: usize,
    may_fragment: bool,
}

impl UdpNetwork {
    fn open(socket: std::net::UdpSocket, busy_poll: Duration) -> io::Result<UdpNetwork> {
        let local_addr = socket.local_addr()?;
        let state = socket_state(&socket, local_addr.is_ipv6())?;
        error_queue::enable(&socket, local_addr.is_ipv6())?;
        let watch = Some(Watch::new(&socket)?);
        log::debug!("{local_addr}: up to {} segments per send", state.max_gso_segments());
        Ok(UdpNetwork {
            socket: Arc::new(socket),
            watch,
            state,
            local_addr,
            buffers: Buffers::new(),
            meta: Box::new([RecvMeta::default(); BATCH_SIZE]),
            backlog: None,
            error_queue: ErrorQueue::new(),
            path_errors: Vec::new(),
            receiver: None,
            busy: BusyPoll::new(busy_poll),
            rest: Rest::default(),
            is_emptied: false,
        })
    }

    /// How many 64 KiB receive buffers were allocated so far; constant while readers keep up.
    pub fn receive_buffers_allocated(&self) -> u64 {
        self.buffers.made()
    }
}

impl fmt::Debug for UdpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpNetwork")
            .field("local_addr", &self.local_addr)
            .field("segments_max", &self.state.max_gso_segments())
            .finish_non_exhaustive()
    }
}

impl Network for UdpNetwork {
    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        if self.backlog.is_some() {
            self.poll_backlog(cx)?;
        }
        if self.rest.poll_over(cx)?.is_pending() {
            self.keep_receiver(cx);
            return Poll::Pending;
        }
        let had = into.len();
        let mut failures = 0;
        loop {
            let received = self.receive(into);
            into.append(&mut self.path_errors);
            if into.len() > had {
                self.busy.received();
                return Poll::Ready(Ok(()));
            }
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.poll_errors(cx)?.is_ready() {
                        continue;
                    }
                    if self.busy.looks_again(std::time::Instant::now) {
                        // After whatever else there is to do on this thread.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    if self.watched()?.poll_recv_ready(cx)?.is_pending() {
                        self.keep_receiver(cx);
                        return Poll::Pending;
                    }
                }
                Err(error) => {
                    failures += 1;
                    if failures > RECEIVE_FAILURES_MAX {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.backlog.is_some() {
            self.flush_backlog()?;
        }
        let to = self.kernel_addr(transmit.to)?;
        let (sent, result) = self.send_as(
            to,
            transmit.contents,
            transmit.segment_size.max(1),
            transmit.may_fragment,
        );
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && sent > 0 => {
                // Some are gone, so trying all again would double them: keep the rest here.
                self.backlog = Some(Backlog {
                    to,
                    data: Bytes::copy_from_slice(&transmit.contents[sent..]),
                    segment_size: transmit.segment_size,
                    may_fragment: transmit.may_fragment,
                });
                self.wake_receiver();
                Ok(())
            }
            result => result,
        }
    }

    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.watched()?.poll_send_ready(cx))?;
        if !self.watched()?.is_write_closed(cx) {
            return Poll::Ready(Ok(()));
        }
        self.read_errors(None);
        self.watch = None;
        // It waits at the old registration.
        self.wake_receiver();
        self.watched()?.poll_send_ready(cx)
    }

    fn rest(&mut self, time: Duration) -> bool {
        // Whoever looks all the time shall not rest; what could not be sent needs the socket's readiness.
        if self.busy.is_on() || self.backlog.is_some() || self.rest.begin(time).is_err() {
            return false;
        }
        self.watch = None;
        self.is_emptied = false;
        true
    }
}

/// Receiving.
impl UdpNetwork {
    /// Receives one batch. `WouldBlock` if there is none; after other errors, which were about some
    /// datagram sent earlier, their reasons are in `path_errors`.
    fn receive(&mut self, into: &mut Vec<Incoming>) -> io::Result<()> {
        let mut slices = self.buffers.slices();
        let mut count = 0;
        let mut receive = || {
            let socket = UdpSockRef::from(&*self.socket);
            count = self.state.recv(socket, &mut slices, &mut self.meta[..])?;
            // A batch that is not full has emptied the socket: saying so at once saves the call
            // that would only learn that. What arrives meanwhile makes it readable again.
            if count < BATCH_SIZE { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        // While we do not sleep, Tokio hardly ever looks what has come.
        let result = match &self.watch {
            _ if self.busy.is_looking() => receive(),
            Some(watch) => watch.try_io(Interest::READABLE, receive),
            None if self.is_emptied => Err(io::ErrorKind::WouldBlock.into()),
            None => receive(),
        };
        self.is_emptied =
            result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        for (index, meta) in self.meta[..count].iter().enumerate() {
            into.push(Incoming::Datagrams {
                from: canonical(meta.addr),
                data: self.buffers.take(index, meta.len),
                stride: meta.stride.max(1),
            });
        }
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.read_errors(None);
                Err(error)
            }
            result => result,
        }
    }

    /// Reads the error queue when the socket has an error: with no data about, nothing else would
    /// look. Ready if there is something in `path_errors`.
    fn poll_errors(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let socket = ready!(self.watched()?.poll_error(cx))?;
            let _ = socket.try_io(Interest::ERROR, || {
                // Only an empty queue ends the readiness; a long one is read on by the next poll.
                if self.read_errors(None).is_empty {
                    Err(io::ErrorKind::WouldBlock)
                } else {
                    Ok(())
                }
                .map_err(io::Error::from)
            });
            if !self.path_errors.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Moves entries of the error queue to `path_errors`. Reading them also takes back the error
    /// that the next call on the socket would have failed with.
    ///
    /// `sending_to` is the destination of the send that failed, if one did: entries by this host's
    /// own kernel lack the port, and mean that one.
    fn read_errors(&mut self, sending_to: Option<SocketAddr>) -> ErrorsRead {
        let mut read = ErrorsRead { from_network: 0, is_empty: false };
        for _ in 0..ERRORS_PER_READ_MAX {
            let Some(entry) = self.error_queue.next(&*self.socket) else {
                read.is_empty = true;
                break;
            };
            let Some(entry) = entry else { continue };
            let to = if entry.is_local { sending_to } else { Some(entry.to) };
            read.from_network += usize::from(!entry.is_local);
            if let Some(to) = to {
                self.report(canonical(to), entry.error);
            }
        }
        read
    }

    fn report(&mut self, to: SocketAddr, error: PathError) {
        log::debug!("{}: {to}: {error}", self.local_addr);
        let news = Incoming::PathError { to, error };
        if self.path_errors.len() < PATH_ERRORS_MAX && self.path_errors.last() != Some(&news) {
            self.path_errors.push(news);
        }
    }

    fn keep_receiver(&mut self, cx: &Context<'_>) {
        match &mut self.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.receiver = Some(cx.waker().clone()),
        }
    }

    fn wake_receiver(&mut self) {
        if let Some(waker) = &self.receiver {
            waker.wake_by_ref();
        }
    }
}

struct ErrorsRead {
    from_network: usize,
    is_empty: bool,
}

/// Sending.
impl UdpNetwork {
    /// The address as the socket's family writes it.
    fn kernel_addr(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        if to.port() == 0 {
            // The kernel would answer EINVAL, as it does where offload is refused.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "destination port 0"));
        }
        Ok(match to {
            SocketAddr::V4(v4) if self.local_addr.is_ipv6() => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            to => to,
        })
    }

    /// As `send`; what may be fragmented goes without offload, since offload never fragments, and with
    /// the socket's don't-fragment off for so long. That is rare, and costs two calls.
    fn send_as(
        &mut self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: usize,
        may_fragment: bool,
    ) -> (usize, io::Result<()>) {
        if !may_fragment {
            return self.send(to, contents, segment_size);
        }
        let _allowed = fragmentation::allow(&self.socket, self.local_addr.is_ipv6());
        let mut sent = 0;
        for datagram in cut(contents, segment_size) {
            match self.send(to, datagram, datagram.len().max(1)) {
                (_, Ok(())) => sent += datagram.len(),
                (_, Err(error)) => return (sent, Err(error)),
            }
        }
        (sent, Ok(()))
    }

    /// Sends as many of the datagrams as possible; returns how many bytes of them are gone.
    fn send(
        &mut self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: usize,
    ) -> (usize, io::Result<()>) {
        let mut sent = 0;
        loop {
            let rest = &contents[sent..];
            let part = &rest[..rest.len().min(self.part_bytes_max(segment_size))];
            match self.send_part(to, part, segment_size) {
                Ok(()) => sent += part.len(),
                Err(error) if is_refusal(&error) => {
                    match self.send_after_refusal(to, part, segment_size, error) {
                        Ok(gone) => sent += gone,
                        Err(error) => return (sent, Err(error)),
                    }
                }
                Err(error) => return (sent, Err(error)),
            }
            if sent == contents.len() {
                return (sent, Ok(()));
            }
        }
    }

    /// Bytes that one send call takes.
    fn part_bytes_max(&self, segment_size: usize) -> usize {
        let fitting = (SEND_BYTES_MAX / segment_size).max(1);
        segment_size.saturating_mul(fitting.min(self.state.max_gso_segments()))
    }

    /// Who is to blame, the offload or the destination? At EINVAL and EIO quinn-udp blames the
    /// offload and has just switched it off for all destinations. A segment too large for one
    /// interface (EINVAL before Linux 6.14) or an address without its scope must not cost everybody
    /// else the offload; so ask with a single datagram, whose EMSGSIZE also comes with the MTU.
    /// Returns the bytes that went out.
    fn send_after_refusal(
        &mut self,
        to: SocketAddr,
        part: &[u8],
        segment_size: usize,
        refusal: io::Error,
    ) -> io::Result<usize> {
        let single = &part[..part.len().min(segment_size)];
        let asked = if single.len() < part.len() {
            self.send_part(to, single, segment_size)
        } else {
            Err(refusal)
        };
        match asked {
            Ok(()) => {
                if self.state.max_gso_segments() == 1 {
                    log::warn!("{}: offload refused towards {to}", self.local_addr);
                }
                Ok(single.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => {
                if self.state.max_gso_segments() == 1 {
                    self.state = socket_state(&self.socket, self.local_addr.is_ipv6())?;
                }
                Err(error)
            }
        }
    }

    /// One send call, repeated where it failed for another datagram's sake.
    fn send_part(
        &mut self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: usize,
    ) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: (contents.len() > segment_size).then_some(segment_size),
            src_ip: None,
        };
        let mut failures = 0;
        loop {
            let send = || self.state.try_send(UdpSockRef::from(&*self.socket), &transmit);
            let error = match send() {
                // Once more, so that Tokio hears of it and `poll_send_ready` waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match watched(&mut self.watch, &self.socket)?.try_io(Interest::WRITABLE, send) {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => error,
                        result => return result,
                    }
                }
                Err(error) => error,
                Ok(()) => return Ok(()),
            };
            // News about any earlier datagram fails whichever call comes next, and is consumed by
            // that. So an error is this send's own only if it comes again without fresh news.
            failures += 1;
            let news = self.read_errors(Some(to)).from_network;
            if !self.path_errors.is_empty() {
                self.wake_receiver();
            }
            if failures > SEND_FAILURES_MAX || (failures > 1 && news == 0) {
                return Err(error);
            }
        }
    }

    /// `WouldBlock` while there is a backlog.
    fn flush_backlog(&mut self) -> io::Result<()> {
        let Some(mut backlog) = self.backlog.take() else { return Ok(()) };
        let Backlog { to, data, segment_size, may_fragment } = &backlog;
        let (sent, result) = self.send_as(*to, data, *segment_size, *may_fragment);
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                backlog.data = backlog.data.slice(sent..);
                self.backlog = Some(backlog);
                Err(error)
            }
            Err(error) => {
                // Nobody waits for this result; like any datagram it may be lost.
                log::debug!("{}: {}: {error}", self.local_addr, backlog.to);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sends the backlog, or sees to being called again when that is possible.
    fn poll_backlog(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.flush_backlog().is_err() {
            if self.poll_send_ready(cx)?.is_pending() {
                break;
            }
        }
        Ok(())
    }

    /// The socket's readiness; known from now on, if it was not.
    fn watched(&mut self) -> io::Result<&mut Watch> {
        watched(&mut self.watch, &self.socket)
    }
}

fn watched<'watch>(
    watch: &'watch mut Option<Watch>,
    socket: &std::net::UdpSocket,
) -> io::Result<&'watch mut Watch> {
    match watch {
        Some(watch) => Ok(watch),
        unwatched => Ok(unwatched.insert(Watch::new(socket)?)),
    }
}

/// Sets the socket's options for offload, and finds out what it can do.
fn socket_state(socket: &std::net::UdpSocket, is_ipv6: bool) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    ancillary::spare(socket, is_ipv6);
    Ok(state)
}

/// Errors that can mean "not with offload", among other things.
#[cfg(target_os = "linux")]
fn is_refusal(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EIO, EMSGSIZE};
    matches!(error.raw_os_error(), Some(EINVAL | EIO | EMSGSIZE))
}

/// Without offload there is nothing to refuse.
#[cfg(not(target_os = "linux"))]
fn is_refusal(_error: &io::Error) -> bool {
    false
}

/// IPv4 as plain IPv4, on dual-stack sockets too.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(addr.ip().to_canonical(), v6.port())
        }
        addr => addr,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::net::cut;
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicU32, Ordering},
        task::Wake,
    };

    fn open() -> UdpNetwork {
        UdpOptions::bind_to("127.0.0.1:0".parse().unwrap()).bind().unwrap().open().unwrap()
    }

    async fn received(network: &mut UdpNetwork) -> Vec<Incoming> {
        let mut into = Vec::new();
        poll_fn(|cx| network.poll_receive(cx, &mut into)).await.unwrap();
        into
    }

    /// Sends to a port that nobody has, and takes the error.
    async fn provoke_error(network: &mut UdpNetwork) {
        let dead = open().local_addr();
        network.try_send(&Transmit::datagram(dead, b"anybody?")).unwrap();
        let report = Incoming::PathError { to: dead, error: PathError::PortUnreachable };
        assert_eq!(received(network).await, [report]);
    }

    /// The kernel takes no offload any more, in the middle of everything: runs are sent one by one.
    #[tokio::test]
    async fn refused_offload_loses_nothing() {
        let (mut a, mut b) = (open(), open());
        assert!(a.max_segments() > 1);
        let refused =
            quinn_udp::Transmit { destination: "127.0.0.1:0".parse().unwrap(), ..plain(b"x") };
        a.state.try_send((&*a.socket).into(), &refused).unwrap_err();
        assert_eq!(a.max_segments(), 1);
        let contents: Vec<u8> = (0..45 * 100 - 1).map(|at| (at / 100) as u8).collect();
        a.try_send(&Transmit::run(b.local_addr, &contents, 100)).unwrap();
        let mut datagrams = Vec::new();
        while datagrams.len() < 45 {
            for incoming in received(&mut b).await {
                let Incoming::Datagrams { data, stride, .. } = incoming else { continue };
                datagrams.extend(cut(&data, stride).map(<[u8]>::to_vec));
            }
        }
        assert!(datagrams.iter().map(|datagram| &datagram[..]).eq(cut(&contents, 100)));
    }

    fn plain(contents: &[u8]) -> quinn_udp::Transmit<'_> {
        let destination = "127.0.0.1:9".parse().unwrap();
        quinn_udp::Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    /// EINVAL for the destination's sake, single or as a run: the offload stays for others.
    #[tokio::test]
    async fn an_invalid_destination_does_not_end_offload() {
        let mut a = open();
        let segments = a.max_segments();
        let invalid = "127.0.0.1:0".parse().unwrap();
        for contents in [&[0; 10][..], &[0; 100]] {
            let (sent, result) = a.send(invalid, contents, 10);
            assert_eq!((sent, result.unwrap_err().kind()), (0, io::ErrorKind::InvalidInput));
            assert_eq!(a.max_segments(), segments);
        }
    }

    /// After an error Tokio holds the socket for writable for good; waiting must not spin on that.
    #[tokio::test]
    async fn waiting_to_send_forgets_an_old_error() {
        let (mut a, mut b) = (open(), open());
        provoke_error(&mut a).await;
        assert!(poll_fn(|cx| Poll::Ready(a.watched().unwrap().is_write_closed(cx))).await);
        poll_fn(|cx| a.poll_send_ready(cx)).await.unwrap();
        assert!(!poll_fn(|cx| Poll::Ready(a.watched().unwrap().is_write_closed(cx))).await);
        b.try_send(&Transmit::datagram(a.local_addr, b"still here?")).unwrap();
        assert!(matches!(&received(&mut a).await[..], [Incoming::Datagrams { .. }]));
        provoke_error(&mut a).await;
    }

    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Wakes>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Once an error is read, nothing wakes the receiver until something new comes.
    #[tokio::test]
    async fn an_error_wakes_once() {
        let (mut a, mut b) = (open(), open());
        provoke_error(&mut a).await;
        let wakes = Arc::new(Wakes(AtomicU32::new(0)));
        let waker = Arc::clone(&wakes).into();
        let mut into = Vec::new();
        assert!(a.poll_receive(&mut Context::from_waker(&waker), &mut into).is_pending());
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        b.try_send(&Transmit::datagram(a.local_addr, b"news")).unwrap();
        while wakes.0.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// What comes in a rest gathers, wakes nobody, and is there when the rest is over.
    #[tokio::test]
    async fn a_rest_gathers() {
        let (mut a, mut b) = (open(), open());
        let wakes = Arc::new(Wakes(AtomicU32::new(0)));
        let waker = Arc::clone(&wakes).into();
        let mut into = Vec::new();
        assert!(a.poll_receive(&mut Context::from_waker(&waker), &mut into).is_pending());
        assert!(a.rest(Duration::from_secs(1)));
        assert!(a.poll_receive(&mut Context::from_waker(&waker), &mut into).is_pending());
        for _ in 0..5 {
            b.try_send(&Transmit::datagram(a.local_addr, b"one of five")).unwrap();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert!(a.poll_receive(&mut Context::from_waker(&waker), &mut into).is_pending());
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        // Sending is as ever.
        a.try_send(&Transmit::datagram(b.local_addr, b"meanwhile")).unwrap();
        assert_eq!(received(&mut b).await.len(), 1);
        assert_eq!(received(&mut a).await.len(), 5);
    }

    /// After a rest that brought nothing, datagrams and errors wake as before.
    #[tokio::test]
    async fn after_a_rest_it_sleeps_as_before() {
        let (mut a, mut b) = (open(), open());
        for _ in 0..3 {
            assert!(a.rest(Duration::from_micros(10)));
            let to = a.local_addr;
            let (came, ()) = tokio::join!(received(&mut a), async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                b.try_send(&Transmit::datagram(to, b"late")).unwrap();
            });
            assert!(matches!(&came[..], [Incoming::Datagrams { .. }]));
            assert!(a.rest(Duration::from_micros(10)));
            provoke_error(&mut a).await;
        }
    }

    #[tokio::test]
    async fn whoever_polls_busily_does_not_rest() {
        let options = UdpOptions::bind_to("127.0.0.1:0".parse().unwrap());
        let mut busy = options.busy_poll(Duration::from_micros(20)).bind().unwrap().open().unwrap();
        assert!(!busy.rest(Duration::from_micros(50)));
    }

    /// What stayed behind goes out with the next receive or send, in order.
    #[tokio::test]
    async fn a_backlog_goes_first() {
        let (mut a, mut b) = (open(), open());
        let to = b.local_addr;
        let backlog = |data| Backlog {
            to,
            data: Bytes::from_static(data),
            segment_size: 2,
            may_fragment: false,
        };
        a.backlog = Some(backlog(b"1122"));
        a.try_send(&Transmit::datagram(to, b"33")).unwrap();
        a.backlog = Some(backlog(b"44"));
        assert!(poll_fn(|cx| Poll::Ready(a.poll_receive(cx, &mut Vec::new()))).await.is_pending());
        let mut all = Vec::new();
        while all.len() < 8 {
            for incoming in received(&mut b).await {
                let Incoming::Datagrams { data, .. } = incoming else { continue };
                all.extend_from_slice(&data);
            }
        }
        assert_eq!(all, b"11223344");
    }
}
