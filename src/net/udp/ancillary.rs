//! What the kernel tells beside each datagram (Linux; elsewhere it stays as quinn-udp has it).
//!
//! quinn-udp asks for the time, the local address and the congestion mark of each. Nobody reads them here, and they
//! were 6 % of the CPU time of receiving bulk in single datagrams.

#[cfg(target_os = "linux")]
pub(super) fn spare(socket: &std::net::UdpSocket, is_ipv6: bool) {
    use nix::sys::socket::{setsockopt, sockopt};
    let mut result = setsockopt(socket, sockopt::ReceiveTimestampns, &false)
        .and(setsockopt(socket, sockopt::Ipv4PacketInfo, &false))
        .and(setsockopt(socket, sockopt::IpRecvTos, &false));
    if is_ipv6 {
        result = result
            .and(setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &false))
            .and(setsockopt(socket, sockopt::Ipv6RecvTClass, &false));
    }
    if let Err(error) = result {
        log::debug!("what is told beside datagrams cannot be switched off: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn spare(_socket: &std::net::UdpSocket, _is_ipv6: bool) {}
