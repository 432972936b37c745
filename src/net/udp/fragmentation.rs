//! Don't-fragment, which quinn-udp sets for a socket, off for single datagrams (Linux; elsewhere it stays as
//! it is).
//!
//! IPv4 knows it by the socket only, so it is switched there and back.

use std::{net::UdpSocket, sync::Arc};

/// Datagrams may be fragmented until this is dropped.
pub(super) struct Allowed {
    socket: Arc<UdpSocket>,
    is_ipv6: bool,
}

pub(super) fn allow(socket: &Arc<UdpSocket>, is_ipv6: bool) -> Allowed {
    set(socket, is_ipv6, true);
    Allowed { socket: Arc::clone(socket), is_ipv6 }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        set(&self.socket, self.is_ipv6, false);
    }
}

#[cfg(target_os = "linux")]
fn set(socket: &UdpSocket, is_ipv6: bool, allowed: bool) {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    let (v4, v6) = if allowed {
        (Ipv4PathMtuDiscovery::DONT, Ipv6PathMtuDiscovery::DONT)
    } else {
        (Ipv4PathMtuDiscovery::PROBE, Ipv6PathMtuDiscovery::PROBE)
    };
    // The IPv4 option on IPv6 sockets too: a dual-stack one sends both.
    let mut result = set_ip_mtu_discover(socket, v4);
    if is_ipv6 {
        result = result.and(set_ipv6_mtu_discover(socket, v6));
    }
    if let Err(error) = result {
        log::debug!("don't-fragment cannot be switched: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn set(_socket: &UdpSocket, _is_ipv6: bool, _allowed: bool) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover, ipv6_mtu_discover};

    use crate::net::{Network, Transmit, UdpOptions};

    #[tokio::test]
    async fn dont_fragment_is_off_for_one_send_and_on_again() {
        for (own, other) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::]:0", "127.0.0.1:0")] {
            let bind = |addr: &str| UdpOptions::bind_to(addr.parse().unwrap()).bind().unwrap();
            let (mut a, b) = (bind(own).open().unwrap(), bind(other));
            let is_ipv6 = own.starts_with('[');
            let now = |network: &crate::net::UdpNetwork| {
                let v4 = ip_mtu_discover(&*network.socket).unwrap() == Ipv4PathMtuDiscovery::PROBE;
                let v6 = !is_ipv6
                    || ipv6_mtu_discover(&*network.socket).unwrap()
                        == rustix::net::sockopt::Ipv6PathMtuDiscovery::PROBE;
                (v4, v6)
            };
            assert_eq!(now(&a), (true, true));
            let allowed = super::allow(&a.socket, is_ipv6);
            assert_eq!(now(&a), (false, !is_ipv6));
            drop(allowed);
            let transmit =
                Transmit { may_fragment: true, ..Transmit::run(b.local_addr(), b"aabbc", 2) };
            a.try_send(&transmit).unwrap();
            assert_eq!(now(&a), (true, true));
            let mut b = b.open().unwrap();
            let mut into = Vec::new();
            let mut came = Vec::new();
            while came.len() < 5 {
                std::future::poll_fn(|cx| b.poll_receive(cx, &mut into)).await.unwrap();
                for incoming in into.drain(..) {
                    let crate::net::Incoming::Datagrams { data, .. } = incoming else { continue };
                    came.extend_from_slice(&data);
                }
            }
            assert_eq!(came, b"aabbc");
        }
    }
}
