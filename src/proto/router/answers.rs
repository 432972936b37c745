//! What is answered without a connection: VERSION, DEBUG, and aborts for what is not offered.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use super::table::Route;
use super::{DropReason, Header, NOWHERE, Role, Router, event};
use crate::proto::call::Rtt;
use crate::proto::channel::SealedTraffic;
use crate::proto::peer::PeerHint;
use crate::proto::{CallState, Counters};
use crate::wire::debug::{self, Record, Request, RequestType, TimeValue};
use crate::wire::{
    AbortCode, CallNumber, Flags, HEADER_LEN, PacketType, Seq, Serial, Version, encode_abort,
    encode_nat_keepalive, encode_version_reply, encode_version_request,
};

/// Gathers what leaves without a connection.
#[derive(Debug, Default)]
pub struct RouterOutput {
    /// Single datagrams, each to an address.
    pub answers: Vec<(SocketAddr, Vec<u8>)>,
}

impl<T> Router<T> {
    /// VERSION or DEBUG.
    pub(super) fn answer_tool(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        datagram: &[u8],
        out: &mut RouterOutput,
    ) {
        let payload = &datagram[HEADER_LEN..];
        if !header.is_from_client() {
            if header.packet_type == PacketType::Version
                && self.take_version(from, header.call_number, Version::decode(payload))
            {
                return;
            }
            return self.note_at(NOWHERE, DropReason::ToolAnswer.into());
        }
        let is_version = header.packet_type == PacketType::Version;
        let answer = match is_version {
            true => self.version_answer(header, payload),
            false => self.debug_answer(header, payload),
        };
        let Some(answer) = answer else {
            return self.note_at(NOWHERE, DropReason::Unanswered.into());
        };
        let may_go = match is_version {
            true => self.versions.allows(from, now),
            false => self.debugs.allows(from, now),
        };
        if !may_go {
            return self.note_at(NOWHERE, DropReason::Throttled.into());
        }
        let packet_type = header.packet_type;
        self.note_at(NOWHERE, event::ToolAnswered { packet_type }.into());
        self.answer(from, answer, out);
    }

    fn answer(&mut self, to: SocketAddr, datagram: Vec<u8>, out: &mut RouterOutput) {
        self.counters.record_sent(datagram.len(), &datagram);
        out.answers.push((to, datagram));
    }

    /// Asks a peer for its version, once, if that is wanted: a Linux peer need not be waited for as long as
    /// others (rx-flow.md 5.3). The number that comes back is one that nobody else can know.
    pub(super) fn ask_version(&mut self, peer: SocketAddr, out: &mut RouterOutput) {
        let Some(id) = self.peers.find(peer).filter(|_| self.config.ask_version) else { return };
        let peer_state = &mut self.peers.get_mut(id).peer;
        if peer_state.hint.is_linux || peer_state.version_asked.is_some() {
            return;
        }
        let number = self.hasher.hash_one((peer, self.counters.connections_opened)) as u32;
        let number = self.shard.own_number(number);
        peer_state.version_asked = Some(CallNumber(number));
        let mut datagram = Vec::new();
        encode_version_request(number, &mut datagram);
        self.answer(peer, datagram, out);
    }

    /// Whether this is the answer to a question of ours.
    fn take_version(&mut self, from: SocketAddr, number: CallNumber, version: Version<'_>) -> bool {
        let Some(id) = self.peers.find(from) else { return false };
        let peer = &mut self.peers.get_mut(id).peer;
        if peer.version_asked != Some(number) || version.text().is_empty() {
            return false;
        }
        peer.hint.is_linux |= version.is_linux();
        true
    }

    /// An ABORT for a packet that has no connection (rx-wire.md 4.5).
    pub(super) fn abort_raw(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        code: AbortCode,
        out: &mut RouterOutput,
    ) {
        if !self.aborts.allows(from, now) {
            return self.note_at(NOWHERE, DropReason::Throttled.into());
        }
        let reply = Header {
            seq: Seq(0),
            serial: Serial::NONE,
            packet_type: PacketType::Abort,
            flags: Flags::NONE.with_if(!header.is_from_client(), Flags::CLIENT_INITIATED),
            user_status: 0,
            cksum: 0,
            ..*header
        };
        let mut datagram = reply.encode().to_vec();
        datagram.extend(encode_abort(code));
        if !self.may_answer(now, from, datagram.len()) {
            return self.note_at(NOWHERE, DropReason::Amplification.into());
        }
        let number = header.call_number;
        let origin = event::Origin { epoch: header.epoch, cid: header.cid };
        self.note_at(origin, event::Aborted { number, code, sent: true }.into());
        self.answer(from, datagram, out);
    }

    /// Whether an answer of `len` bytes to a packet without a connection fits into the share of its sender: the
    /// same as that of the sender's connections. Of somebody unknown only that packet counts.
    fn may_answer(&mut self, now: Instant, from: SocketAddr, len: usize) -> bool {
        let factor = self.config.amplification_max;
        match self.peers.find(from) {
            Some(peer) => self.peers.get_mut(peer).peer.may_send(now, 1, len, factor),
            None => factor.is_none_or(|factor| len as u64 <= u64::from(factor) * HEADER_LEN as u64),
        }
    }

    /// Forgets old peers and keeps NATs open. Call when [`Router::next_deadline`] is due.
    pub fn sweep(&mut self, now: Instant, out: &mut RouterOutput) {
        if !self.peers.is_sweep_due(now) {
            return;
        }
        for peer in self.peers.sweep(now, self.config.peer_linger, self.config.nat_ping) {
            let mut datagram = Vec::new();
            encode_nat_keepalive(self.epoch, &mut datagram);
            self.answer(peer, datagram, out);
        }
    }

    fn version_answer(&self, header: &Header, payload: &[u8]) -> Option<Vec<u8>> {
        if !Version::decode(payload).is_request(header) || payload.first() != Some(&0) {
            return None;
        }
        let mut answer = Vec::new();
        encode_version_reply(header, &self.config.version_text, &mut answer);
        Some(answer)
    }

    fn debug_answer(&self, header: &Header, payload: &[u8]) -> Option<Vec<u8>> {
        if !self.config.debug_responder {
            return None;
        }
        let request = Request::decode(payload)?;
        let index = request.index.max(0) as usize;
        let record = match request.request_type {
            RequestType::Stats => Record::Stats(self.debug_stats()),
            RequestType::Connections => Record::Connection(self.debug_connection(index, true)),
            RequestType::AllConnections => Record::Connection(self.debug_connection(index, false)),
            RequestType::Statistics => Record::Statistics(Box::new(self.debug_statistics())),
            RequestType::Peers => Record::Peer(self.debug_peer(index)),
            RequestType::Other(_) => Record::BadType,
        };
        let mut answer = debug::reply_header(header).encode().to_vec();
        record.encode(&mut answer);
        Some(answer)
    }

    fn debug_stats(&self) -> debug::Stats {
        debug::Stats {
            calls_executed: self.counters.server_calls as u32,
            waiting: self.queued_calls() as u32,
            version: debug::VERSION_CURRENT,
            ..debug::Stats::default()
        }
    }

    fn debug_connection(&self, index: usize, only_interesting: bool) -> debug::Connection {
        let route = self
            .table
            .iter()
            .map(|(_, route)| route)
            .filter(|route| {
                !only_interesting || route.briefs().iter().any(|brief| brief.state.is_some())
            })
            .nth(index);
        let Some(route) = route else {
            return debug::Connection {
                cid: debug::CONNECTIONS_END,
                ..debug::Connection::default()
            };
        };
        let mut record = debug::Connection {
            host: ipv4(route.peer),
            port: route.peer.port(),
            cid: route.ids.cid,
            epoch: route.ids.epoch,
            serial: last_serial(route),
            flags: if route.is_closing { debug::connection_flags::DESTROY_ME } else { 0 },
            nat_mtu: u32::from(nat_mtu(&self.peers.get(route.peer_id).peer.hint)),
            security_index: route.ids.security_index,
            connection_type: match route.role {
                Role::Client => debug::connection_type::CLIENT,
                Role::Server => debug::connection_type::SERVER,
            },
            ..debug::Connection::default()
        };
        record.security = security_stats(route);
        for (slot, brief) in route.briefs().iter().enumerate() {
            record.call_number[slot] = brief.number;
            record.call_state[slot] = debug_state(brief.state, !brief.number.is_none());
            record.call_mode[slot] = debug_mode(brief.state);
        }
        record
    }

    fn debug_peer(&self, index: usize) -> debug::Peer {
        let Some(entry) = self.peers.iter().nth(index) else {
            return debug::Peer { host: debug::PEERS_END, ..debug::Peer::default() };
        };
        let hint = &entry.peer.hint;
        let mtu = hint.payload_max() + HEADER_LEN as u16;
        let millis = |time: Duration, unit: u128| (time.as_micros() * unit / 1000) as u32;
        let config = match entry.peer.server_connections {
            0 => &self.config.client,
            _ => &self.config.server,
        };
        let timeout = Rtt::new(hint.rtt).rto(&config.call, Duration::ZERO);
        debug::Peer {
            host: ipv4(entry.address),
            port: entry.address.port(),
            if_mtu: hint.path.datagram_max(),
            nat_mtu: nat_mtu(hint),
            max_mtu: hint.sizes.datagram_max,
            mtu,
            rtt: hint.rtt.map_or(0, |rtt| millis(rtt.srtt, 8)),
            rtt_dev: hint.rtt.map_or(0, |rtt| millis(rtt.var, 4)),
            timeout: TimeValue {
                seconds: u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX),
                microseconds: timeout.subsec_micros(),
            },
            ref_count: (entry.peer.client_connections + entry.peer.server_connections) as i16,
            sent: entry.peer.datagrams_sent as u32,
            resends: entry.peer.packets_resent as u32,
            max_dgram_packets: u16::from(hint.sizes.jumbo_max),
            if_dgram_packets: 1,
            dgram_packets: 1,
            cwind: hint.congestion.map_or(0, |memory| memory.window) as u16,
            bytes_sent: entry.peer.bytes_sent,
            bytes_received: entry.peer.bytes_received,
            ..debug::Peer::default()
        }
    }

    fn debug_statistics(&self) -> debug::Statistics {
        let Counters { received_by_type, sent_by_type, resent, .. } = &self.counters;
        let briefs = || self.table.iter().flat_map(|(_, route)| route.briefs());
        let calls = briefs().filter(|brief| !brief.number.is_none()).count();
        let present_calls = briefs().filter(|brief| brief.state.is_some()).count();
        let dropped = |reason| self.counters.dropped_for(reason) as u32;
        let mut record = debug::Statistics {
            data_packets_sent: sent_by_type[1].saturating_sub(*resent) as u32,
            data_packets_resent: *resent as u32,
            ack_packets_sent: sent_by_type[2] as u32,
            busy_packets_sent: sent_by_type[3] as u32,
            abort_packets_sent: sent_by_type[4] as u32,
            net_send_failures: self.counters.send_failures as u32,
            data_packets_read: received_by_type[1] as u32,
            ack_packets_read: received_by_type[2] as u32,
            dup_packets_read: self.counters.duplicates as u32,
            spurious_packets_read: dropped(DropReason::StaleCall),
            ignore_packet_dally: dropped(DropReason::CallOver),
            no_packet_buffers_on_read: dropped(DropReason::NoBuffer),
            busies: dropped(DropReason::Overload),
            bogus_packet_on_read: dropped(DropReason::TooShort),
            server_connections: self.count_role(Role::Server),
            client_connections: self.count_role(Role::Client),
            peers: self.peers.iter().count() as u32,
            calls: calls as u32,
            free_calls: calls.saturating_sub(present_calls) as u32,
            ..debug::Statistics::default()
        };
        for (slot, count) in record.packets_read.iter_mut().enumerate() {
            *count = received_by_type[slot + 1] as u32;
        }
        for (slot, count) in record.packets_sent.iter_mut().enumerate() {
            *count = sent_by_type[slot + 1] as u32;
        }
        record
    }

    fn count_role(&self, role: Role) -> u32 {
        self.table.iter().filter(|(_, route)| route.role == role).count() as u32
    }
}

/// The newest that one of its channels told of.
fn last_serial<T>(route: &Route<T>) -> Serial {
    let told = route.briefs().map(|brief| brief.serial).into_iter();
    told.filter(|serial| *serial != Serial::NONE)
        .reduce(|last, serial| {
            let is_later = serial.0.wrapping_sub(last.0) < 1 << 31;
            if is_later { serial } else { last }
        })
        .unwrap_or(Serial::NONE)
}

/// The smaller of what the path takes and what the peer suggests.
fn nat_mtu(hint: &PeerHint) -> u16 {
    hint.path.datagram_max().min(hint.sizes.suggested_max)
}

/// As rxkad of OpenAFS tells it (rxkad.md 3); of a class without a type, nothing.
fn security_stats<T>(route: &Route<T>) -> debug::SecurityStats {
    let brief = &route.security;
    if brief.security_type == debug::security_type::UNKNOWN {
        return debug::SecurityStats::default();
    }
    let sum = |count: fn(&SealedTraffic) -> u32| {
        route.briefs().iter().fold(0, |sum: u32, brief| sum.wrapping_add(count(&brief.sealed)))
    };
    let packets_received = sum(|sealed| sealed.opened_packets);
    let mut flags = 0;
    if route.is_secured {
        flags |= debug::security_flags::AUTHENTICATED;
    }
    if brief.checks_headers && packets_received > 0 {
        flags |= debug::security_flags::CHECKSUMMED;
    }
    let since_1970 = brief.expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    debug::SecurityStats {
        security_type: brief.security_type,
        level: brief.level,
        flags,
        expires: since_1970.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX)),
        packets_received,
        packets_sent: sum(|sealed| sealed.sealed_packets),
        bytes_received: sum(|sealed| sealed.opened_bytes),
        bytes_sent: sum(|sealed| sealed.sealed_bytes),
        ..debug::SecurityStats::default()
    }
}

/// A peer on IPv6 is shown as 0: the record has room for four bytes.
fn ipv4(address: SocketAddr) -> Ipv4Addr {
    match address.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn debug_state(state: Option<CallState>, had_call: bool) -> u8 {
    match state {
        None if had_call => debug::call_state::DALLY,
        None => debug::call_state::NOT_INIT,
        Some(CallState::ServerAwaitAck) => debug::call_state::HOLD,
        Some(_) => debug::call_state::ACTIVE,
    }
}

fn debug_mode(state: Option<CallState>) -> u8 {
    match state {
        Some(
            CallState::ClientReserved
            | CallState::ClientSend
            | CallState::ServerWork
            | CallState::ServerReply
            | CallState::ServerAwaitAck,
        ) => debug::call_mode::SENDING,
        Some(CallState::ClientDone) => debug::call_mode::EOF,
        Some(CallState::ServerDying) => debug::call_mode::ERROR,
        _ => debug::call_mode::RECEIVING,
    }
}
