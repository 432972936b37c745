//! Datagrams and addresses: the contract [`Network`] and what implements it.
//!
//! Knows how to bring runs of datagrams to an address and back, and what the network says about an
//! address (ICMP). Deliberately knows nothing of Rx: no headers, no connections, no retransmission,
//! and no policy about errors; it only reports them.

mod capture;
mod faults;
mod memory;
mod udp;

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

pub use capture::CaptureNetwork;
pub use faults::{
    FaultControl, FaultCounters, Faults, FaultyNetwork, HELD_BYTES_MAX, REORDER_HOLD_MS_MAX,
};
pub use memory::{MemoryCounters, MemoryHub, MemoryLimits, MemoryNetwork};
pub use udp::{BoundUdp, UdpNetwork, UdpOptions};

/// Datagrams to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The destination.
    pub to: SocketAddr,
    /// The datagrams, one behind the other.
    pub contents: &'a [u8],
    /// Bytes per datagram: `contents` is cut here, the last may be shorter. Anything not less than
    /// the length of `contents` means one datagram. Not zero.
    pub segment_size: usize,
    /// Whether the IP layer may cut a datagram that is larger than the path's MTU. Otherwise such a
    /// datagram does not arrive, and the network may say so ([`PathError::TooBig`]).
    pub may_fragment: bool,
}

impl<'a> Transmit<'a> {
    /// A single datagram, not to be fragmented.
    pub fn datagram(to: SocketAddr, contents: &'a [u8]) -> Transmit<'a> {
        Transmit::run(to, contents, contents.len().max(1))
    }

    /// Datagrams of `segment_size` bytes, the last may be shorter; none to be fragmented.
    pub fn run(to: SocketAddr, contents: &'a [u8], segment_size: usize) -> Transmit<'a> {
        Transmit { to, contents, segment_size, may_fragment: false }
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        cut(self.contents, self.segment_size)
    }
}

/// What a receive gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// One or more datagrams from one address, in the order in which they came.
    Datagrams {
        /// The sender. IPv4 senders are always plain IPv4, on dual-stack sockets too.
        from: SocketAddr,
        /// The datagrams, one behind the other; empty for a single empty datagram.
        data: Bytes,
        /// Bytes per datagram: cut `data` here ([`cut`]), the last may be shorter. Never zero.
        stride: usize,
    },
    /// The network says that datagrams to this address do not arrive. Such messages can be forged.
    PathError {
        /// The destination of the datagram that did not arrive.
        to: SocketAddr,
        /// Why it did not arrive.
        error: PathError,
    },
}

/// Why datagrams to an address do not arrive, as the network (ICMP, ICMPv6) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The host answers, but nobody listens at the port.
    #[error("port unreachable")]
    PortUnreachable,
    /// No way to the host, or it is down.
    #[error("host unreachable")]
    HostUnreachable,
    /// No way to the host's network.
    #[error("network unreachable")]
    NetUnreachable,
    /// Somebody on the way, or the host itself, forbids it.
    #[error("prohibited")]
    Prohibited,
    /// A datagram is larger than a link on the way carries.
    #[error("too big, the path's MTU is {mtu} bytes")]
    TooBig {
        /// Largest IP packet that passes, IP and UDP headers included. Zero: the router did not say.
        mtu: u32,
    },
    /// Anything else: hop limit exceeded, parameter problem, protocol unreachable.
    #[error("undeliverable (errno {errno})")]
    Other {
        /// What the operating system makes of it.
        errno: i32,
    },
}

/// A place to send datagrams from and to receive them at.
///
/// One task uses it: there is one waker for receiving and one for sending.
///
/// The lifetimes are named because `mockall` needs it; implementations may leave them out.
pub trait Network: 'static {
    /// The address that peers on this host can send to, wildcard address included.
    fn local_addr(&self) -> SocketAddr;

    /// Most datagrams that one [`Transmit`] carries at the price of one; 1 if there is no offload.
    /// Can fall while running. A longer `Transmit` is not an error, only slower.
    fn max_segments(&self) -> usize;

    /// Appends what has arrived, a bounded amount per call. `Ready(Ok)` appended at least one.
    ///
    /// An error means that nothing will be received any more: what the network says about single
    /// addresses comes as [`Incoming::PathError`].
    fn poll_receive<'cx>(
        &mut self,
        cx: &mut Context<'cx>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>>;

    /// Sends all datagrams of `transmit`, or none and [`io::ErrorKind::WouldBlock`]: try again after
    /// [`poll_send_ready`](Network::poll_send_ready). Other errors concern this destination only,
    /// and some of the datagrams may have gone out.
    fn try_send<'data>(&mut self, transmit: &Transmit<'data>) -> io::Result<()>;

    /// Ready once a send that would have blocked is worth trying again.
    fn poll_send_ready<'cx>(&mut self, cx: &mut Context<'cx>) -> Poll<io::Result<()>>;

    /// Leaves what comes to gather: for `time` from now on [`poll_receive`](Network::poll_receive) is pending, and
    /// nothing that comes wakes whoever waits in it; then it gives what there is. Sending is as ever. A rest
    /// that is under way ends, and this one begins. For times well below a millisecond.
    ///
    /// Whether it does: a network that cannot (as most, unless they say otherwise) goes on receiving.
    fn rest(&mut self, time: Duration) -> bool {
        let _ = time;
        false
    }
}

#[cfg(any(test, feature = "mock"))]
mockall::mock! {
    /// A [`Network`] that does as it is told. It never rests.
    pub Network {}

    impl Network for Network {
        fn local_addr(&self) -> SocketAddr;

        fn max_segments(&self) -> usize;

        fn poll_receive<'cx>(
            &mut self,
            cx: &mut Context<'cx>,
            into: &mut Vec<Incoming>,
        ) -> Poll<io::Result<()>>;

        fn try_send<'data>(&mut self, transmit: &Transmit<'data>) -> io::Result<()>;

        fn poll_send_ready<'cx>(&mut self, cx: &mut Context<'cx>) -> Poll<io::Result<()>>;
    }
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn local_addr(&self) -> SocketAddr {
        (**self).local_addr()
    }

    fn max_segments(&self) -> usize {
        (**self).max_segments()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        (**self).poll_receive(cx, into)
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        (**self).try_send(transmit)
    }

    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_send_ready(cx)
    }

    fn rest(&mut self, time: Duration) -> bool {
        (**self).rest(time)
    }
}

/// Opens a [`Network`] on the thread, and in the runtime, that will use it: networks themselves need
/// not be `Send`, and a socket belongs to the runtime that it was opened in.
pub type NetworkSource = Box<dyn FnOnce() -> io::Result<Box<dyn Network>> + Send>;

/// Boxes `open` as a [`NetworkSource`].
pub fn network_source<N: Network>(
    open: impl FnOnce() -> io::Result<N> + Send + 'static,
) -> NetworkSource {
    Box::new(|| Ok(Box::new(open()?)))
}

/// The datagrams of a run: every `stride` bytes one, the last may be shorter. No bytes are one empty
/// datagram. A `stride` of zero counts as one datagram.
pub fn cut(data: &[u8], stride: usize) -> impl Iterator<Item = &[u8]> {
    let stride = if stride == 0 { usize::MAX } else { stride };
    let empty = data.is_empty().then_some(data);
    empty.into_iter().chain(data.chunks(stride))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn a_run_is_cut_and_the_last_may_be_shorter() {
        let cut = |data: &'static [u8], stride| cut(data, stride).collect::<Vec<_>>();
        assert_eq!(cut(b"abcde", 2), [&b"ab"[..], b"cd", b"e"]);
        assert_eq!(cut(b"abcd", 2), [b"ab", b"cd"]);
        assert_eq!(cut(b"ab", 9), [b"ab"]);
        assert_eq!(cut(b"ab", 0), [b"ab"]);
        assert_eq!(cut(b"", 2), [b""]);
    }

    #[test]
    fn the_mock_network_answers_as_told_even_behind_a_source() {
        let peer: SocketAddr = "192.0.2.1:7001".parse().unwrap();
        let arrived =
            Incoming::Datagrams { from: peer, data: Bytes::from_static(b"hello"), stride: 5 };
        let mut mock = MockNetwork::new();
        mock.expect_local_addr().return_const(peer);
        mock.expect_max_segments().return_const(64usize);
        let give = arrived.clone();
        mock.expect_poll_receive().once().returning(move |_cx, into| {
            into.push(give.clone());
            Poll::Ready(Ok(()))
        });
        mock.expect_poll_receive().returning(|_cx, _into| Poll::Pending);
        mock.expect_try_send()
            .withf(move |transmit| transmit.to == peer && transmit.contents == b"bye")
            .once()
            .returning(|_transmit| Ok(()));
        mock.expect_poll_send_ready().returning(|_cx| Poll::Ready(Ok(())));

        let source = network_source(move || Ok(mock));
        let mut network = source().unwrap();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut into = Vec::new();
        assert_eq!(network.local_addr(), peer);
        assert_eq!(network.max_segments(), 64);
        assert!(matches!(network.poll_receive(cx, &mut into), Poll::Ready(Ok(()))));
        assert!(network.poll_receive(cx, &mut into).is_pending());
        assert_eq!(into, [arrived]);
        network.try_send(&Transmit::datagram(peer, b"bye")).unwrap();
        assert!(network.poll_send_ready(cx).is_ready());
    }
}
