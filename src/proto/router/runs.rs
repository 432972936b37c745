//! Cutting what was received into runs: consecutive packets of one channel go to it together, in order.

use std::net::SocketAddr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::{
    ChannelIndex, DropReason, Header, Key, NOWHERE, Opening, RouteId, Router, RouterOutput,
    is_raw_reject,
};
use crate::proto::connection::Handshake;
use crate::proto::event::type_slot;
use crate::security::{ConnectionIds, ServerClass};
use crate::wire::{
    ABORT_LEN, ACK_FIXED_LEN, AbortCode, CallNumber, Flags, HEADER_LEN, PacketType, Seq, ServiceId,
    check_jumbo,
};

/// What to do with the next part of a batch.
#[derive(Debug)]
pub enum Step {
    /// Hand these datagrams to a channel.
    Run {
        /// The connection.
        route: RouteId,
        /// The channel.
        channel: ChannelIndex,
        /// Their place in the batch.
        at: Range<usize>,
    },
    /// Hand this datagram to a connection.
    Control {
        /// The connection.
        route: RouteId,
        /// Its place in the batch.
        at: Range<usize>,
    },
    /// Make this connection, insert it, and ask for the next step: the datagram is still there.
    Open(Box<Opening>),
    /// Hand these datagrams to another shard, which cuts them as if they had come to it. Never of an endpoint
    /// that is not divided.
    Stray {
        /// The shard that owns them.
        shard: usize,
        /// Their place in the batch.
        at: Range<usize>,
    },
}

/// What is offered to the client of a first DATA packet.
struct Offered {
    class: Arc<dyn ServerClass>,
    /// The one that answers: another than asked for after an upgrade.
    service_id: ServiceId,
    needs_reach: bool,
}

/// Where a datagram belongs.
enum Place {
    Channel(RouteId, ChannelIndex),
    Connection(RouteId),
    Open(Box<Opening>),
    Nowhere,
}

impl<T> Router<T> {
    /// Counts a batch before it is cut: `data` holds datagrams of `stride` bytes, the last may be shorter.
    pub fn begin_batch(&mut self, now: Instant, from: SocketAddr, len: usize, stride: usize) {
        let datagrams = if len == 0 { 1 } else { len.div_ceil(stride.max(1)) };
        self.counters.receives += 1;
        self.counters.datagrams_received += datagrams as u64;
        self.counters.bytes_received += len as u64;
        if self.is_sharded() {
            // What is another shard's is credited there.
            self.is_uncredited = true;
        } else if let Some(peer) = self.peers.find(from) {
            self.peers.get_mut(peer).peer.received(now, datagrams, len);
        }
    }

    /// The next step for a batch; `at` is how far it has been cut, 0 at first. `None` = all of it is.
    pub fn next_step(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &[u8],
        stride: usize,
        at: &mut usize,
        out: &mut RouterOutput,
    ) -> Option<Step> {
        let stride = stride.max(1);
        if data.is_empty() && *at == 0 {
            *at = 1;
            self.ignore(DropReason::TooShort);
        }
        while *at < data.len() {
            let start = *at;
            if self.is_sharded()
                && let Some((shard, end)) = self.strays(now, from, data, stride, start)
            {
                *at = end;
                return Some(Step::Stray { shard, at: start..end });
            }
            let end = (start + stride).min(data.len());
            let datagram = &data[start..end];
            match self.place(now, from, datagram, out) {
                Place::Open(opening) => {
                    self.begin_peer(now, from, &data[start..], stride);
                    return Some(Step::Open(opening));
                }
                Place::Nowhere => *at = end,
                Place::Connection(route) => {
                    *at = end;
                    return Some(Step::Control { route, at: start..end });
                }
                Place::Channel(route, channel) => {
                    let end = self.extend_run(data, stride, start, end, route);
                    *at = end;
                    return Some(Step::Run { route, channel, at: start..end });
                }
            }
        }
        None
    }

    /// Takes in the datagrams that follow in the same channel: the same ids, nothing to be looked at.
    fn extend_run(
        &mut self,
        data: &[u8],
        stride: usize,
        start: usize,
        end: usize,
        route: RouteId,
    ) -> usize {
        let first = &data[start..end];
        let mut end = end;
        // Not the first datagram's index: that may be a raw reject, whose index means nothing.
        let Some(index) = self.table.get(route).map(|route| route.ids.security_index.0) else {
            return end;
        };
        while end < data.len() {
            let next = &data[end..(end + stride).min(data.len())];
            let Some(header) = Header::decode(next) else { break };
            let same = first[..8] == next[..8]
                && next[23] == index
                && Flags(first[21]).has(Flags::CLIENT_INITIATED) == header.is_from_client();
            if !same || !is_call_packet(&header) || check(&header, next).is_err() {
                break;
            }
            self.counters.received_by_type[type_slot(header.packet_type)] += 1;
            end += next.len();
        }
        end
    }

    /// rx-calls.md 1, steps 1 to 8.
    fn place(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut RouterOutput,
    ) -> Place {
        let Some(header) = Header::decode(datagram) else {
            return self.ignore(DropReason::TooShort);
        };
        self.counters.received_by_type[type_slot(header.packet_type)] += 1;
        match header.packet_type {
            PacketType::Version | PacketType::Debug => {
                self.answer_tool(now, from, &header, datagram, out);
                return Place::Nowhere;
            }
            PacketType::Params(_) => return self.ignore(DropReason::Params),
            PacketType::Unknown(_) => return self.ignore(DropReason::UnknownType),
            _ => {}
        }
        if let Err(reason) = check(&header, datagram) {
            return self.ignore(reason);
        }
        let route = if header.is_from_client() {
            self.table.find(&self.server_key(header.epoch, header.cid, from))
        } else {
            self.find_client(from, &header)
        };
        match route {
            Some(id) if self.table.get(id).is_some_and(|route| route.is_broken) => {
                self.reject(now, from, &header, out)
            }
            Some(id) => self.place_known(id, &header),
            None if header.is_from_client() => self.open(now, from, &header, out),
            None => self.ignore(DropReason::UnknownClientConnection),
        }
    }

    /// A client's connection is its id; epoch and port must fit, the address may have changed.
    fn find_client(&self, from: SocketAddr, header: &Header) -> Option<RouteId> {
        let id = self.table.find(&Key::Client(header.cid.connection()))?;
        let route = self.table.get(id)?;
        let fits = route.ids.epoch == header.epoch && route.peer.port() == from.port();
        fits.then_some(id)
    }

    /// A packet of a connection that was lost: its client opens another.
    fn reject(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        out: &mut RouterOutput,
    ) -> Place {
        if header.packet_type == PacketType::Data {
            let cid = header.cid.connection();
            let header = Header { cid, call_number: CallNumber::NONE, ..*header };
            self.abort_raw(now, from, &header, AbortCode::CALL_DEAD, out);
        }
        self.ignore(DropReason::OutOfState)
    }

    fn place_known(&mut self, id: RouteId, header: &Header) -> Place {
        let Some(route) = self.table.get(id) else { return Place::Nowhere };
        if route.is_closing {
            return self.ignore(DropReason::OutOfState);
        }
        let raw_reject = matches!(header.packet_type, PacketType::Abort | PacketType::Busy)
            && is_raw_reject(header);
        if header.security_index != route.ids.security_index && !raw_reject {
            return self.ignore(DropReason::SecurityMismatch);
        }
        if header.call_number.is_none() {
            Place::Connection(id)
        } else {
            Place::Channel(id, header.cid.channel())
        }
    }

    /// Only a DATA packet that could begin a call makes a connection (rx-calls.md 1.2 and 4.1).
    fn open(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        out: &mut RouterOutput,
    ) -> Place {
        if header.packet_type != PacketType::Data {
            return self.ignore(DropReason::UnknownServerConnection);
        }
        if self.is_closing {
            return self.ignore(DropReason::OutOfState);
        }
        let Some(offered) = self.offered(header) else {
            if header.seq == Seq::FIRST {
                let code = crate::wire::AbortCode::INVALID_OPERATION;
                self.abort_raw(now, from, header, code, out);
                return Place::Nowhere;
            }
            return self.ignore(DropReason::NotOffered);
        };
        let window = self.config.server.call.receive_window_initial_packets;
        // Plain, not modulo: seq 2^31 and above is far ahead too, not behind.
        if header.seq.0 > window {
            return self.ignore(DropReason::FarAhead);
        }
        let of_peer =
            self.peers.find(from).map_or(0, |peer| self.peers.get(peer).peer.server_connections);
        if self.table.len() >= self.config.connections_max
            || of_peer >= self.config.connections_per_peer_max
        {
            if header.seq == Seq::FIRST {
                self.abort_raw(now, from, header, self.config.overload_code, out);
            }
            return self.ignore(DropReason::ConnectionLimit);
        }
        let Some(opening) = self.opening(from, header, offered) else {
            if header.seq == Seq::FIRST {
                self.abort_raw(now, from, header, AbortCode::CALL_DEAD, out);
            }
            return self.ignore(DropReason::SecurityBroke);
        };
        // It is placed, and counted, again when its connection is there.
        self.counters.received_by_type[type_slot(header.packet_type)] -= 1;
        Place::Open(Box::new(opening))
    }

    /// The memory of a peer begins with the rest of a batch: what it may be answered with
    /// depends on them. One that is known had them counted at the batch's beginning.
    fn begin_peer(&mut self, now: Instant, from: SocketAddr, rest: &[u8], stride: usize) {
        if self.peers.find(from).is_none() {
            let (datagrams, bytes) = self.own_part(rest, stride);
            let peer = self.peers.enter(now, from);
            self.peers.get_mut(peer).peer.received(now, datagrams, bytes);
        }
        self.peers.arm_sweep(now, self.config.peer_linger, self.config.nat_ping);
    }

    /// The class by which the service that is asked for is offered.
    fn offered(&self, header: &Header) -> Option<Offered> {
        let offer = self.offers.get(&header.service_id)?;
        let class = offer.classes.iter().find(|class| class.index() == header.security_index)?;
        let upgrade = (header.user_status == 1).then_some(offer.upgrades_to).flatten();
        Some(Offered {
            class: class.clone(),
            service_id: upgrade.unwrap_or(header.service_id),
            needs_reach: offer.needs_reach,
        })
    }

    /// The class is asked last, when nothing else refuses the connection: it may cost something. It is not ours;
    /// `None` = it panicked, which is to cost this connection and no other.
    fn opening(&self, from: SocketAddr, header: &Header, offered: Offered) -> Option<Opening> {
        let ids = ConnectionIds {
            epoch: header.epoch,
            cid: header.cid.connection(),
            service_id: header.service_id,
            security_index: header.security_index,
        };
        let accepted = catch_unwind(AssertUnwindSafe(|| {
            let mut handshake = offered.class.accept(ids);
            let brief = handshake.as_mut().map(|handshake| {
                handshake.begin(header.cksum);
                handshake.brief()
            });
            (handshake, brief.unwrap_or_default())
        }));
        let Ok((handshake, security)) = accepted else {
            log::error!("security class {} broke as it took a connection", ids.security_index);
            return None;
        };
        Some(Opening {
            ids,
            service_id: offered.service_id,
            peer: from,
            hint: self.hint_of(from),
            needs_reach: offered.needs_reach,
            handshake: handshake.map_or(Handshake::None, Handshake::Server),
            security,
        })
    }

    fn ignore(&mut self, reason: DropReason) -> Place {
        self.note_at(NOWHERE, reason.into());
        Place::Nowhere
    }
}

/// Types that go to a channel.
fn is_call_packet(header: &Header) -> bool {
    matches!(
        header.packet_type,
        PacketType::Data
            | PacketType::Ack
            | PacketType::Busy
            | PacketType::Abort
            | PacketType::AckAll
    ) && !header.call_number.is_none()
}

/// The rules that need no state (rx-wire.md 3).
pub(super) fn check(header: &Header, datagram: &[u8]) -> Result<(), DropReason> {
    let payload = datagram.len() - HEADER_LEN;
    let from_client = header.is_from_client();
    let needs_call = match header.packet_type {
        PacketType::Data => {
            if header.seq == Seq(0) {
                return Err(DropReason::SeqZero);
            }
            if header.flags.has(Flags::JUMBO_PACKET) && check_jumbo(header, datagram).is_err() {
                return Err(DropReason::BadJumbogram);
            }
            true
        }
        PacketType::Ack if payload < ACK_FIXED_LEN => return Err(DropReason::PayloadShort),
        PacketType::Abort if payload < ABORT_LEN => return Err(DropReason::PayloadShort),
        PacketType::Abort => !header.call_number.is_none(),
        PacketType::Busy if from_client => return Err(DropReason::WrongDirection),
        PacketType::Challenge if from_client => return Err(DropReason::WrongDirection),
        PacketType::Response if !from_client => return Err(DropReason::WrongDirection),
        PacketType::Challenge | PacketType::Response => false,
        _ => true,
    };
    if needs_call == header.call_number.is_none() {
        return Err(DropReason::BadCallNumber);
    }
    if header.packet_type == PacketType::Data && header.service_id == ServiceId(0) {
        return Err(DropReason::ServiceZero);
    }
    Ok(())
}
