//! The records themselves. Counters that OpenAFS keeps signed are unsigned here: they only grow, and a
//! negative one has passed 2^31.

use std::net::Ipv4Addr;

use super::fields::{Field, one_layout, record};
use crate::wire::{AbortCode, CallNumber, Cid, Epoch, SecurityIndex, Serial};

record! {
    /// The endpoint in short.
    Stats, 56 bytes {
        /// Packets not in use.
        free_packets: u32,
        /// How often packets were taken back from idle calls.
        packet_reclaims: u32,
        /// Calls served.
        calls_executed: u32,
        /// Whether someone waits for a free packet.
        waiting_for_packets: u8,
        /// File descriptors in use.
        used_fds: u8,
        /// ASCII letter: which of these fields and requests exist; L is the first usable one.
        version: u8,
        /// Unused.
        spare: u8,
        /// Calls waiting for a thread; from version N on.
        waiting: u32,
        /// Threads waiting for a call; from version O on.
        idle_threads: u32,
        /// Calls that have waited for a thread; from version R on.
        waited: u32,
        /// Packets in all; from version S on.
        packets: u32,
        /// Unused.
        spare_words: [u32; 6],
    }
}

record! {
    /// One connection. After the last one comes a record whose cid is
    /// [`CONNECTIONS_END`](super::CONNECTIONS_END).
    Connection, 176 bytes {
        /// The peer's IPv4 address.
        host: Ipv4Addr,
        /// The connection's id.
        cid: Cid,
        /// Serial of the last packet sent.
        serial: Serial,
        /// Each channel's present or last call.
        call_number: [CallNumber; 4],
        /// What the connection was aborted with; 0 if it was not.
        error: AbortCode,
        /// The peer's UDP port.
        port: u16,
        /// See [`connection_flags`](super::connection_flags).
        flags: u8,
        /// See [`connection_type`](super::connection_type).
        connection_type: u8,
        /// The security class.
        security_index: SecurityIndex,
        /// Unused; not there in version L.
        padding: [u8; 3],
        /// Per channel; see [`call_state`](super::call_state).
        call_state: [u8; 4],
        /// Per channel; see [`call_mode`](super::call_mode).
        call_mode: [u8; 4],
        /// Per channel; see [`call_flags`](super::call_flags).
        call_flags: [u8; 4],
        /// Per channel; see [`call_other`](super::call_other).
        call_other: [u8; 4],
        /// What the security class tells.
        security: SecurityStats,
        /// The connection's epoch; not there in version L.
        epoch: Epoch,
        /// As [`Peer::nat_mtu`]; not there in version L.
        nat_mtu: u32,
        /// Unused.
        spare_words: [u32; 9],
    }
}

record! {
    /// What a security class tells about a connection; all 0 for rxnull, from OpenAFS 1.8.9 at least.
    SecurityStats, 76 bytes {
        /// See [`security_type`](super::security_type).
        security_type: u8,
        /// The class's own level: for rxkad 0 clear, 1 auth, 2 crypt.
        level: u8,
        /// Unused.
        padding: [u8; 10],
        /// See [`security_flags`](super::security_flags).
        flags: u32,
        /// When the ticket ends, in seconds since 1970; 0 if there is none.
        expires: u32,
        /// Packets the class has opened.
        packets_received: u32,
        /// Packets the class has sealed.
        packets_sent: u32,
        /// Bytes the class has opened.
        bytes_received: u32,
        /// Bytes the class has sealed.
        bytes_sent: u32,
        /// Unused.
        spare_halves: [u16; 4],
        /// Unused.
        spare_words: [u32; 8],
    }
}

record! {
    /// A time or a span of time.
    TimeValue, 8 bytes {
        /// Whole seconds.
        seconds: u32,
        /// Microseconds: 0..=999999.
        microseconds: u32,
    }
}

record! {
    /// One peer. After the last one comes a record whose host is [`PEERS_END`](super::PEERS_END).
    Peer, 132 bytes {
        /// IPv4 address.
        host: Ipv4Addr,
        /// UDP port.
        port: u16,
        /// Packet size that the interface suggests, Rx header included.
        if_mtu: u16,
        /// When it fell idle, in seconds since 1970.
        idle_when: u32,
        /// Connections that use it.
        ref_count: i16,
        /// Of a send rate limit that is no more.
        burst_size: u8,
        /// Of a send rate limit that is no more.
        burst: u8,
        /// Of a send rate limit that is no more.
        burst_wait: TimeValue,
        /// Smoothed round trip time, in 1/8 ms.
        rtt: u32,
        /// Its variation, in 1/4 ms.
        rtt_dev: u32,
        /// Retransmission timeout.
        timeout: TimeValue,
        /// DATA packets sent.
        sent: u32,
        /// DATA packets sent again.
        resends: u32,
        /// How far packets arrive out of order.
        in_packet_skew: u32,
        /// How far ours arrive out of order.
        out_packet_skew: u32,
        /// Of a send rate limit that is no more.
        rate_flag: u32,
        /// Smaller of `if_mtu` and what the peer's interface suggests.
        nat_mtu: u16,
        /// Largest packet the peer takes.
        max_mtu: u16,
        /// Packets in a datagram that the peer takes.
        max_dgram_packets: u16,
        /// Packets in a datagram that the interface suggests.
        if_dgram_packets: u16,
        /// Packet size in use.
        mtu: u16,
        /// Congestion window, in packets.
        cwind: u16,
        /// Packets in a datagram, in use.
        dgram_packets: u16,
        /// Counts losses, so that a call can tell whether another saw one.
        congest_seq: u16,
        /// Bytes sent.
        bytes_sent: u64,
        /// Bytes received.
        bytes_received: u64,
        /// Unused.
        spare_words: [u32; 10],
    }
}

record! {
    /// The endpoint's counters.
    Statistics, 284 bytes {
        /// Packets asked for.
        packet_requests: u32,
        /// No packet to receive into.
        receive_packet_alloc_failures: u32,
        /// No packet to send with.
        send_packet_alloc_failures: u32,
        /// No packet for an ACK or the like.
        special_packet_alloc_failures: u32,
        /// Whether the socket got the buffers it asked for.
        socket_greedy: u32,
        /// Datagrams too short for a header.
        bogus_packet_on_read: u32,
        /// Address of the last sender of such a datagram.
        bogus_host: Ipv4Addr,
        /// Reads that brought nothing.
        no_packet_on_read: u32,
        /// Datagrams lost because no packet was free.
        no_packet_buffers_on_read: u32,
        /// Waits for the socket.
        selects: u32,
        /// Waits for the socket in order to send.
        send_selects: u32,
        /// Packets received, by type: index 0 is type 1.
        packets_read: [u32; 13],
        /// DATA packets received.
        data_packets_read: u32,
        /// ACK packets received.
        ack_packets_read: u32,
        /// DATA packets received again.
        dup_packets_read: u32,
        /// Packets of calls that are over.
        spurious_packets_read: u32,
        /// Packets sent, by type: index 0 is type 1.
        packets_sent: [u32; 13],
        /// ACK packets sent.
        ack_packets_sent: u32,
        /// PINGs sent.
        ping_packets_sent: u32,
        /// ABORT packets sent.
        abort_packets_sent: u32,
        /// BUSY packets sent.
        busy_packets_sent: u32,
        /// DATA packets sent for the first time.
        data_packets_sent: u32,
        /// DATA packets sent again.
        data_packets_resent: u32,
        /// DATA packets sent again early, because a later one was acknowledged.
        data_packets_pushed: u32,
        /// DATA packets that were acknowledged before they were sent.
        ignore_acked_packet: u32,
        /// Sum of all round trip times.
        total_rtt: TimeValue,
        /// The shortest one.
        min_rtt: TimeValue,
        /// The longest one.
        max_rtt: TimeValue,
        /// How many there were.
        rtt_samples: u32,
        /// Connections as server.
        server_connections: u32,
        /// Connections as client.
        client_connections: u32,
        /// Peers.
        peers: u32,
        /// Call records.
        calls: u32,
        /// Call records not in use.
        free_calls: u32,
        /// Sends that the system refused.
        net_send_failures: u32,
        /// Errors that OpenAFS calls fatal.
        fatal_errors: u32,
        /// Packets ignored because their call was over.
        ignore_packet_dally: u32,
        /// No buffer to receive into; from version P on.
        receive_cbuf_packet_alloc_failures: u32,
        /// No buffer to send with; from version P on.
        send_cbuf_packet_alloc_failures: u32,
        /// Calls refused because too many waited for a thread.
        busies: u32,
        /// Unused.
        spare_words: [u32; 4],
    }
}

one_layout!(Stats SecurityStats TimeValue Peer Statistics);

impl Connection {
    /// Bytes of the record of version L, which lacks the padding, the epoch and the NAT MTU.
    pub const LEN_OF_VERSION_L: usize = 172;

    /// Reads the record, that of version L where the payload is shorter than the current one; `None` if
    /// it is shorter than both. More bytes are ignored.
    pub fn decode(payload: &[u8]) -> Option<Connection> {
        let mut rest = payload;
        if payload.len() >= Self::LEN { Self::take(&mut rest) } else { Self::decode_l(payload) }
    }

    /// Moves the bytes of version L to their present places and reads those.
    fn decode_l(payload: &[u8]) -> Option<Connection> {
        const PADDING_AT: usize = 37;
        const CHANNELS_LEN: usize = 16;
        const SECURITY_AT: usize = 56;
        const EPOCH_AT: usize = SECURITY_AT + SecurityStats::LEN;
        let payload = payload.get(..Self::LEN_OF_VERSION_L)?;
        let mut current = [0; Self::LEN];
        current[..PADDING_AT].copy_from_slice(&payload[..PADDING_AT]);
        current[PADDING_AT + 3..][..CHANNELS_LEN]
            .copy_from_slice(&payload[PADDING_AT..][..CHANNELS_LEN]);
        current[SECURITY_AT..EPOCH_AT].copy_from_slice(&payload[SECURITY_AT..EPOCH_AT]);
        Self::take(&mut current.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload in which the byte at each place is the place's number.
    fn counted(len: usize) -> Vec<u8> {
        (0..len).map(|at| at as u8).collect()
    }

    fn word(at: u8) -> u32 {
        u32::from_be_bytes([at, at + 1, at + 2, at + 3])
    }

    fn half(at: u8) -> u16 {
        u16::from_be_bytes([at, at + 1])
    }

    #[test]
    fn stats_have_their_fields_at_the_offsets_of_openafs() {
        let stats = Stats::decode(&counted(56)).unwrap();
        assert_eq!(stats.calls_executed, word(8));
        assert_eq!((stats.waiting_for_packets, stats.used_fds, stats.version), (12, 13, 14));
        assert_eq!((stats.waiting, stats.idle_threads), (word(16), word(20)));
        assert_eq!((stats.waited, stats.packets), (word(24), word(28)));
        assert_eq!(stats.spare_words[5], word(52));
    }

    #[test]
    fn connections_have_their_fields_at_the_offsets_of_openafs() {
        let connection = Connection::decode(&counted(176)).unwrap();
        assert_eq!(connection.host, Ipv4Addr::new(0, 1, 2, 3));
        assert_eq!((connection.cid, connection.serial), (Cid(word(4)), Serial(word(8))));
        assert_eq!(connection.call_number[3], CallNumber(word(24)));
        assert_eq!(connection.error, AbortCode(word(28) as i32));
        assert_eq!((connection.port, connection.flags), (half(32), 34));
        assert_eq!((connection.connection_type, connection.security_index.0), (35, 36));
        assert_eq!((connection.call_state[0], connection.call_mode[0]), (40, 44));
        assert_eq!((connection.call_flags[0], connection.call_other[3]), (48, 55));
        assert_eq!((connection.security.security_type, connection.security.level), (56, 57));
        assert_eq!((connection.security.flags, connection.security.expires), (word(68), word(72)));
        assert_eq!(connection.security.bytes_sent, word(88));
        assert_eq!(
            (connection.security.spare_halves[0], connection.epoch.0),
            (half(92), word(132))
        );
        assert_eq!((connection.nat_mtu, connection.spare_words[0]), (word(136), word(140)));
    }

    #[test]
    fn a_connection_of_version_l_is_read_without_the_padding() {
        let connection = Connection::decode(&counted(172)).unwrap();
        assert_eq!((connection.security_index.0, connection.padding), (36, [0; 3]));
        assert_eq!((connection.call_state[0], connection.call_other[3]), (37, 52));
        assert_eq!((connection.security.security_type, connection.epoch), (56, Epoch(0)));
        assert_eq!(connection.security.spare_words[7], word(128));
        assert_eq!(connection.nat_mtu, 0);
    }

    #[test]
    fn peers_have_their_fields_at_the_offsets_of_openafs() {
        let peer = Peer::decode(&counted(132)).unwrap();
        assert_eq!((peer.port, peer.if_mtu, peer.idle_when), (half(4), half(6), word(8)));
        assert_eq!((peer.ref_count, peer.burst_size, peer.burst), (half(12) as i16, 14, 15));
        assert_eq!(
            (peer.burst_wait.seconds, peer.rtt, peer.rtt_dev),
            (word(16), word(24), word(28))
        );
        assert_eq!(
            (peer.timeout.microseconds, peer.sent, peer.resends),
            (word(36), word(40), word(44))
        );
        assert_eq!((peer.in_packet_skew, peer.rate_flag), (word(48), word(56)));
        assert_eq!((peer.nat_mtu, peer.max_mtu, peer.mtu), (half(60), half(62), half(68)));
        assert_eq!((peer.cwind, peer.congest_seq), (half(70), half(74)));
        assert_eq!(peer.bytes_sent, u64::from(word(76)) << 32 | u64::from(word(80)));
        assert_eq!((peer.bytes_received >> 32, peer.spare_words[0]), (word(84).into(), word(92)));
    }

    #[test]
    fn statistics_have_their_words_in_the_order_of_openafs() {
        let payload: Vec<u8> = (0..71u32).flat_map(u32::to_be_bytes).collect();
        let all = Statistics::decode(&payload).unwrap();
        assert_eq!((all.packet_requests, all.send_selects), (0, 10));
        assert_eq!(
            (all.packets_read[0], all.packets_read[12], all.data_packets_read),
            (11, 23, 24)
        );
        assert_eq!((all.packets_sent[0], all.packets_sent[12], all.ack_packets_sent), (28, 40, 41));
        assert_eq!((all.ignore_acked_packet, all.total_rtt.seconds), (48, 49));
        assert_eq!((all.max_rtt.microseconds, all.rtt_samples, all.free_calls), (54, 55, 60));
        assert_eq!((all.ignore_packet_dally, all.busies, all.spare_words[0]), (63, 66, 67));
    }

    #[test]
    fn every_truncation_is_refused_and_more_is_ignored() {
        for len in 0..300 {
            let payload = counted(len);
            assert_eq!(Stats::decode(&payload).is_some(), len >= 56, "{len}");
            assert_eq!(Connection::decode(&payload).is_some(), len >= 172, "{len}");
            assert_eq!(Peer::decode(&payload).is_some(), len >= 132, "{len}");
            assert_eq!(Statistics::decode(&payload).is_some(), len >= 284, "{len}");
        }
    }
}
