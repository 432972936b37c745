//! The rules of Rx that can be seen on the wire, checked at every datagram.
//!
//! Knows packets as they leave and arrive; knows nothing of endpoints. What it has to know of calls it is told:
//! which of them their clients gave up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::hostile;
use super::receipts::{Proof, Receipts};
use crate::wire::{
    Cid, Epoch, Header, Packet, PacketType, Payload, Seq, Serial, Trailer, check_jumbo,
};

/// A sender, and a connection or channel of it.
type Party = (SocketAddr, SocketAddr, Epoch, Cid);

/// First packets of a server's connection that nobody sees, since an address that is not proved may not be sent them.
const REFUSED_FIRST_MAX: u32 = 8;

/// A connection as its sender knows it. A server that has forgotten one, by a crash or because nothing was
/// called for long, begins again with the first serial.
#[derive(Debug, Default)]
struct Knowledge {
    first: Serial,
    last: Serial,
    /// The other end was asked for a proof by a CHALLENGE.
    challenged: bool,
    life: u32,
    began: Duration,
    /// How often it began.
    times: u32,
}

/// What is known of one direction of one call, by its sender's packets.
#[derive(Debug, Default)]
struct Direction {
    /// The first seq that the receiver has not allowed yet, as far as the sender has heard.
    limit: u32,
}

/// Bytes between a server, in its present life, and an address.
#[derive(Debug, Default)]
struct Exchange {
    came: u64,
    /// While the address was not proved, and since it was last.
    went: u64,
    /// Until then it may be: it has named a serial that was sent there, or has answered a challenge.
    proved_until: Option<Duration>,
}

impl Exchange {
    fn is_proved(&self, now: Duration) -> bool {
        self.proved_until.is_some_and(|until| now < until)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Referee {
    connections: HashMap<Party, Knowledge>,
    numbers: HashMap<Party, u32>,
    /// `firstPacket` of the last ACK, by call, and by how often its sender's connection began.
    firsts: HashMap<(Party, u32, u32), Seq>,
    directions: HashMap<(Party, u32), Direction>,
    /// Packets that may be sent before the first ACK.
    initial_window: u32,
    /// Whether a BUSY is never right: servers take channels over.
    is_busy_wrong: bool,
    /// After this time a server may have forgotten a connection.
    server_idle: Duration,
    /// What servers and addresses that may not have proved themselves have exchanged.
    unproved: HashMap<(SocketAddr, SocketAddr), Exchange>,
    amplification_max: Option<u32>,
    /// How long a proof of an address stands.
    proof_time: Duration,
    /// First packets of a connection that may be lost before they are seen here.
    lost_first_max: u32,
    receipts: Receipts,
    violation: Option<String>,
}

impl Referee {
    /// With the rules of endpoints as they are by default.
    pub fn new() -> Referee {
        let config = crate::proto::config::EndpointConfig::default();
        Referee {
            initial_window: config.server.call.send_window_initial_packets,
            amplification_max: config.amplification_max,
            proof_time: Duration::MAX,
            ..Referee::default()
        }
    }

    /// What the endpoints' settings allow.
    pub fn set_rules(&mut self, initial_window: u32, is_busy_wrong: bool, server_idle: Duration) {
        self.initial_window = initial_window;
        self.server_idle = server_idle;
        self.is_busy_wrong = is_busy_wrong;
    }

    /// To an address that has not proved itself go at most so many times the bytes that came from it, at every moment.
    pub fn set_amplification(&mut self, amplification_max: Option<u32>) {
        self.amplification_max = amplification_max;
    }

    /// How long a proof of an address stands; for ever, unless it is said.
    pub fn set_proof_time(&mut self, proof_time: Duration) {
        self.proof_time = proof_time;
    }

    /// Senders lose so many packets at the most, of one connection.
    pub fn set_lost_first(&mut self, lost_first_max: u32) {
        self.lost_first_max = lost_first_max;
    }

    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The first rule that was broken is kept.
    pub fn blame(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// A host, in this life of it, sends a datagram.
    pub fn sent(
        &mut self,
        now: Duration,
        life: u32,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) {
        let Ok(packet) = Packet::decode(datagram) else {
            return self.blame(|| format!("{from} sent what is no packet: {datagram:02x?}"));
        };
        let header = packet.header;
        if header.packet_type == PacketType::Version || header.packet_type == PacketType::Debug {
            return;
        }
        if !header.is_from_client() {
            self.check_amplification(now, from, to, datagram.len());
        }
        if hostile::is_his(header.epoch) {
            // He keeps no rules, so that none holds for what he is answered.
            return;
        }
        // The flag means something else in an ACK, and a padded one is long enough to be taken for two.
        let packets = match header.packet_type {
            PacketType::Data => check_jumbo(&header, datagram).unwrap_or(1) as u32,
            _ => 1,
        };
        let times = self.check_serial(now, life, (from, to), &header, packets);
        if header.packet_type == PacketType::Busy && self.is_busy_wrong {
            self.blame(|| format!("{from} answered call {} with BUSY", header.call_number));
        }
        let channel = (from, to, header.epoch, header.cid);
        match packet.payload {
            Payload::Data(_) => {
                self.receipts.data_sent(from, to, &header, datagram);
                self.check_data(channel, &header);
            }
            Payload::Ack(ack) => {
                if let Some(seq) = self.receipts.ack_sent(from, to, &header, &ack) {
                    let number = header.call_number;
                    self.blame(|| {
                        format!("{from} acknowledged q{seq} of call {number}, which it has not")
                    });
                }
                let call = (channel, header.call_number.0, times);
                let last = self.firsts.insert(call, ack.first_packet);
                if let Some(last) = last.filter(|last| ack.first_packet.before(*last)) {
                    self.blame(|| {
                        let (number, first) = (header.call_number, ack.first_packet);
                        format!("{from}: firstPacket of call {number} went from {last} to {first}")
                    });
                }
            }
            _ => {}
        }
    }

    pub fn arrived(&mut self, now: Duration, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        self.unproved.entry((to, from)).or_default().came += datagram.len() as u64;
        let Ok(Packet { header, payload }) = Packet::decode(datagram) else { return };
        if self.may_prove(from, to, &header, &payload) {
            let exchange = self.unproved.entry((to, from)).or_default();
            exchange.went = 0;
            exchange.proved_until = Some(now.saturating_add(self.proof_time));
        }
        match &payload {
            Payload::Data(_) => self.receipts.data_arrived(from, to, &header, datagram),
            Payload::Ack(ack) => self.receipts.ack_arrived(from, to, &header, ack),
            _ if header.packet_type == PacketType::AckAll => {
                self.receipts.ack_all_arrived(from, to, &header);
            }
            _ => {}
        }
        let Payload::Ack(ack) = payload else { return };
        let window = match ack.trailer {
            Trailer::Full(full) => full.rwind,
            Trailer::Window { rwind, .. } => rwind,
            _ => return,
        };
        let direction = ((to, from, header.epoch, header.cid), header.call_number.0);
        let known = self.directions.entry(direction).or_default();
        // A window of 0 is probed with one packet.
        known.limit = known.limit.max(ack.first_packet.0.saturating_add(window.max(1)));
    }

    /// The host at this address begins another life, and knows nobody.
    pub fn lives_again(&mut self, host: SocketAddr) {
        self.unproved.retain(|(its, _), _| *its != host);
        self.receipts.lives_again(host);
    }

    /// Why a server may take the reply of this call to be acknowledged.
    pub fn proof(&self, id: u32) -> Proof {
        self.receipts.proof(id)
    }

    /// Whether only somebody who has received at this address can have sent that.
    fn may_prove(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        payload: &Payload<'_>,
    ) -> bool {
        let party = (to, from, header.epoch, header.cid.connection());
        // Nobody can prove where nobody is, and he has no key.
        let Some(known) = self.connections.get(&party) else { return false };
        match payload {
            Payload::Ack(ack) => {
                let first = known.first.0.saturating_sub(self.lost_first_max);
                ack.serial.0 >= first.max(1) && !ack.serial.after(known.last)
            }
            _ => header.packet_type == PacketType::Response && known.challenged,
        }
    }

    fn check_amplification(&mut self, now: Duration, host: SocketAddr, to: SocketAddr, len: usize) {
        let Some(times) = self.amplification_max else { return };
        let exchange = self.unproved.entry((host, to)).or_default();
        if exchange.is_proved(now) {
            return;
        }
        exchange.went += len as u64;
        let Exchange { came, went, .. } = *exchange;
        if went > came.saturating_mul(u64::from(times)) {
            let text = format!("{host} sent {went} bytes to an unproved address, for {came}");
            self.blame(|| text);
        }
    }

    /// How often the sender has begun to know the connection.
    fn check_serial(
        &mut self,
        now: Duration,
        life: u32,
        (from, to): (SocketAddr, SocketAddr),
        header: &Header,
        packets: u32,
    ) -> u32 {
        if header.serial.is_none() {
            return 0;
        }
        let server_idle = self.server_idle;
        let lost_first_max = self.lost_first_max;
        let party = (from, to, header.epoch, header.cid.connection());
        let known = self.connections.entry(party).or_default();
        let is_forgotten = !header.is_from_client() && now - known.began >= server_idle;
        let begins = header.serial == Serial(1)
            || (header.serial.0 <= 1 + lost_first_max + REFUSED_FIRST_MAX
                && !header.serial.after(known.last));
        if known.life != life || (begins && is_forgotten) {
            let times = known.times + 1;
            *known =
                Knowledge { life, began: now, times, first: header.serial, ..Knowledge::default() };
        }
        let (last, times) = (known.last, known.times);
        // Each packet of a jumbogram has one of its own.
        known.last = header.serial.plus(packets - 1);
        known.challenged |= header.packet_type == PacketType::Challenge;
        if !header.serial.after(last) {
            self.blame(|| {
                format!("{from}: serial {} of {} after {last}", header.serial, header.cid)
            });
        }
        times
    }

    fn check_data(&mut self, channel: Party, header: &Header) {
        let number = header.call_number.0;
        if header.is_from_client() {
            let last = self.numbers.entry(channel).or_default();
            let known = *last;
            *last = number.max(known);
            if number < known {
                self.blame(|| format!("{}: DATA of call {number} after {known}", channel.0));
            }
        }
        let initial = self.initial_window;
        let known = self.directions.entry((channel, number)).or_default();
        let limit = known.limit.max(1 + initial);
        if header.seq.0 >= limit {
            self.blame(|| {
                format!(
                    "{}: q{} of call {number} beyond the window, {limit}",
                    channel.0, header.seq
                )
            });
        }
    }
}
