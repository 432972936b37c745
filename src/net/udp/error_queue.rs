//! What the kernel learnt from ICMP, read from the socket's error queue (Linux; elsewhere nothing).
//!
//! Knows the queue's entries and what they say about a destination. Decides nothing: not what is
//! retried, nor who hears of it.

use std::net::SocketAddr;

use super::super::PathError;

/// An entry of the error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuedError {
    /// The destination of the datagram; port 0 where the kernel does not say.
    pub(super) to: SocketAddr,
    pub(super) error: PathError,
    /// Whether this host's own kernel refused, so that the send call failed as well.
    pub(super) is_local: bool,
}

#[cfg(target_os = "linux")]
pub(super) use linux::{ErrorQueue, enable};
#[cfg(not(target_os = "linux"))]
pub(super) use none::{ErrorQueue, enable};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io::{self, IoSliceMut},
        net::{SocketAddr, SocketAddrV4, SocketAddrV6},
        os::fd::{AsFd, AsRawFd},
    };

    use nix::{
        errno::Errno,
        libc::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SO_EE_ORIGIN_LOCAL, sock_extended_err},
        sys::socket::{
            ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
        },
    };

    use super::{PathError, QueuedError};

    /// Room for the error with its offender, and the packet information and timestamps that the
    /// socket may ask for besides.
    const CONTROL_BYTES: usize = 512;

    pub(in super::super) fn enable(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
        // The IPv4 option on IPv6 sockets too: a dual-stack one gets ICMP as well as ICMPv6.
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        if is_ipv6 {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        }
        Ok(())
    }

    pub(in super::super) struct ErrorQueue {
        control: Vec<u8>,
    }

    impl ErrorQueue {
        pub(in super::super) fn new() -> ErrorQueue {
            ErrorQueue { control: vec![0; CONTROL_BYTES] }
        }

        /// Takes the next entry: `None` if there is none, `Some(None)` if it says nothing to us.
        pub(in super::super) fn next(
            &mut self,
            socket: &(impl AsFd + ?Sized),
        ) -> Option<Option<QueuedError>> {
            // The start of the datagram that did not arrive would come as data: not needed.
            let mut unused = [0];
            let mut data = [IoSliceMut::new(&mut unused)];
            let message = loop {
                match recvmsg::<SockaddrStorage>(
                    socket.as_fd().as_raw_fd(),
                    &mut data,
                    Some(&mut self.control),
                    MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
                ) {
                    Ok(message) => break message,
                    Err(Errno::EINTR) => {}
                    Err(_) => return None,
                }
            };
            let error = message.cmsgs().ok().and_then(|mut messages| {
                messages.find_map(|message| match message {
                    ControlMessageOwned::Ipv4RecvErr(error, _)
                    | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error),
                    _ => None,
                })
            });
            let to = message.address.as_ref().and_then(socket_addr);
            Some(error.zip(to).and_then(|(error, to)| decode(&error, to)))
        }
    }

    fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = addr.as_sockaddr_in().map(|&addr| SocketAddrV4::from(addr).into());
        v4.or_else(|| addr.as_sockaddr_in6().map(|&addr| SocketAddrV6::from(addr).into()))
    }

    fn decode(raw: &sock_extended_err, to: SocketAddr) -> Option<QueuedError> {
        let other = PathError::Other { errno: raw.ee_errno as i32 };
        let error = match raw.ee_origin {
            // RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1.
            SO_EE_ORIGIN_ICMP => match (raw.ee_type, raw.ee_code) {
                (3, 0 | 6 | 11) => PathError::NetUnreachable,
                (3, 1 | 7 | 8 | 12) => PathError::HostUnreachable,
                (3, 3) => PathError::PortUnreachable,
                (3, 4) => PathError::TooBig { mtu: raw.ee_info },
                (3, 9 | 10 | 13) => PathError::Prohibited,
                _ => other,
            },
            // RFC 4443 3.1, 3.2.
            SO_EE_ORIGIN_ICMP6 => match (raw.ee_type, raw.ee_code) {
                (1, 0) => PathError::NetUnreachable,
                (1, 2 | 3) => PathError::HostUnreachable,
                (1, 4) => PathError::PortUnreachable,
                (1, 1 | 5 | 6) => PathError::Prohibited,
                (2, _) => PathError::TooBig { mtu: raw.ee_info },
                _ => other,
            },
            SO_EE_ORIGIN_LOCAL if raw.ee_errno == Errno::EMSGSIZE as u32 => {
                PathError::TooBig { mtu: raw.ee_info }
            }
            SO_EE_ORIGIN_LOCAL => other,
            _ => return None,
        };
        Some(QueuedError { to, error, is_local: raw.ee_origin == SO_EE_ORIGIN_LOCAL })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn icmp_and_icmpv6_say_the_same_in_other_numbers() {
            let to: SocketAddr = "192.0.2.1:7000".parse().unwrap();
            let decode = |ee_origin, ee_type, ee_code, ee_info| {
                let raw = sock_extended_err {
                    ee_errno: Errno::EPROTO as u32,
                    ee_origin,
                    ee_type,
                    ee_code,
                    ee_pad: 0,
                    ee_info,
                    ee_data: 0,
                };
                decode(&raw, to).map(|queued| (queued.error, queued.is_local))
            };
            let (v4, v6) = (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6);
            let other = PathError::Other { errno: Errno::EPROTO as i32 };
            let expected = [
                (PathError::NetUnreachable, (3, 0, 0), (1, 0, 0)),
                (PathError::HostUnreachable, (3, 1, 0), (1, 3, 0)),
                (PathError::PortUnreachable, (3, 3, 0), (1, 4, 0)),
                (PathError::Prohibited, (3, 13, 0), (1, 1, 0)),
                (PathError::TooBig { mtu: 1280 }, (3, 4, 1280), (2, 0, 1280)),
                (other, (11, 0, 0), (3, 0, 0)),
            ];
            for (error, (t4, c4, i4), (t6, c6, i6)) in expected {
                assert_eq!(decode(v4, t4, c4, i4), Some((error, false)));
                assert_eq!(decode(v6, t6, c6, i6), Some((error, false)));
            }
            assert_eq!(decode(SO_EE_ORIGIN_LOCAL, 0, 0, 0), Some((other, true)));
            // Transmit timestamps, zero-copy completions: not about a path.
            assert_eq!(decode(4, 0, 0, 0), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::io;

    use super::QueuedError;

    pub(in super::super) fn enable<S>(_socket: &S, _is_ipv6: bool) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) struct ErrorQueue;

    impl ErrorQueue {
        pub(in super::super) fn new() -> ErrorQueue {
            ErrorQueue
        }

        pub(in super::super) fn next<S: ?Sized>(
            &mut self,
            _socket: &S,
        ) -> Option<Option<QueuedError>> {
            None
        }
    }
}
