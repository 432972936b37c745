//! What came of each call's packets, and what was acknowledged of them.
//!
//! Who acknowledges a packet has it; and who is told that all was acknowledged was told so by an ACK, or by the next
//! call on the channel (rx-calls.md 6: a client begins one only when it is done with the last).

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use crate::wire::{Ack, Cid, Epoch, Flags, Header, SecurityIndex, sub_packets};

/// Who sends the DATA, to whom, and on which channel.
type Way = (SocketAddr, SocketAddr, Epoch, Cid);

/// Sequence numbers: all below `next`, and some beyond.
#[derive(Debug)]
struct Seqs {
    next: u32,
    beyond: BTreeSet<u32>,
}

/// One direction of one call.
#[derive(Debug, Default)]
struct Direction {
    came: Seqs,
    /// As its sender was told.
    acked: Seqs,
    last: Option<u32>,
    /// All of it came in an earlier life of its receiver, who may have gone on to the next call.
    had_come: bool,
}

/// Why a server may take a reply to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// ACKs of all of it have come to the server.
    Acks,
    /// DATA of a later call on its channel has, and the client has the whole reply.
    NextCall,
    /// The same, but the client does not have it: it has given the call up.
    NextCallOnly,
    /// Nothing.
    None,
    /// It cannot be seen which call that is.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    directions: HashMap<(Way, u32), Direction>,
    /// Where clients have asked for each call of a plan, by their DATA.
    asked: HashMap<u32, Vec<(Way, u32)>>,
    /// The last call of which a server has DATA.
    numbers: HashMap<Way, u32>,
}

impl Default for Seqs {
    fn default() -> Seqs {
        Seqs { next: 1, beyond: BTreeSet::new() }
    }
}

impl Seqs {
    fn add(&mut self, seq: u32) {
        if seq >= self.next {
            self.beyond.insert(seq);
            self.fill();
        }
    }

    fn add_below(&mut self, end: u32) {
        self.next = self.next.max(end);
        self.beyond = self.beyond.split_off(&self.next);
        self.fill();
    }

    fn fill(&mut self) {
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
    }

    fn has(&self, seq: u32) -> bool {
        seq < self.next || self.beyond.contains(&seq)
    }
}

impl Direction {
    fn is_whole(&self, seqs: &Seqs) -> bool {
        self.last.is_some_and(|last| seqs.next > last)
    }
}

fn way(from: SocketAddr, to: SocketAddr, header: &Header) -> Way {
    (from, to, header.epoch, header.cid)
}

/// The packets of a datagram of DATA.
fn each(header: &Header, datagram: &[u8], mut take: impl FnMut(&Header, &[u8])) {
    let mut packets = sub_packets(*header, datagram.len());
    while let Some(packet) = packets.next_in(datagram) {
        take(&packet.header, &datagram[packet.payload]);
    }
}

impl Receipts {
    pub fn data_sent(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        datagram: &[u8],
    ) {
        let (way, number) = (way(from, to, header), header.call_number.0);
        let direction = self.directions.entry((way, number)).or_default();
        each(header, datagram, |header, payload| {
            if header.flags.has(Flags::LAST_PACKET) {
                direction.last = Some(header.seq.0);
            }
            let is_plain = header.security_index == SecurityIndex::NULL;
            if let (true, true, 1, Some(id)) =
                (is_plain, header.is_from_client(), header.seq.0, payload.first_chunk())
            {
                let places = self.asked.entry(u32::from_be_bytes(*id)).or_default();
                if !places.contains(&(way, number)) {
                    places.push((way, number));
                }
            }
        });
    }

    pub fn data_arrived(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        datagram: &[u8],
    ) {
        let (way, number) = (way(from, to, header), header.call_number.0);
        let direction = self.directions.entry((way, number)).or_default();
        each(header, datagram, |header, _| direction.came.add(header.seq.0));
        let last = self.numbers.entry(way).or_default();
        *last = number.max(*last);
    }

    /// The first packet that `from` acknowledges and that has not come to it, if there is one.
    pub fn ack_sent(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        ack: &Ack<'_>,
    ) -> Option<u32> {
        let key = (way(to, from, header), header.call_number.0);
        let nothing = Seqs::default();
        let came = self.directions.get(&key).map_or(&nothing, |direction| &direction.came);
        let hard = (ack.first_packet.0 > came.next).then_some(came.next);
        hard.or_else(|| acked(ack).find(|seq| !came.has(*seq)))
    }

    pub fn ack_arrived(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        ack: &Ack<'_>,
    ) {
        let key = (way(to, from, header), header.call_number.0);
        let Some(direction) = self.directions.get_mut(&key) else { return };
        direction.acked.add_below(ack.first_packet.0);
        acked(ack).for_each(|seq| direction.acked.add(seq));
    }

    pub fn ack_all_arrived(&mut self, from: SocketAddr, to: SocketAddr, header: &Header) {
        let key = (way(to, from, header), header.call_number.0);
        if let Some(direction) = self.directions.get_mut(&key) {
            direction.acked.add_below(u32::MAX);
        }
    }

    /// Why its server may take the reply of this call of a plan to be acknowledged.
    pub fn proof(&self, id: u32) -> Proof {
        let Some(places) = self.asked.get(&id) else { return Proof::Unknown };
        let nothing = Direction::default();
        let proofs = places.iter().map(|((client, server, epoch, cid), number)| {
            let reply = ((*server, *client, *epoch, *cid), *number);
            let reply = self.directions.get(&reply).unwrap_or(&nothing);
            let next = self.numbers.get(&(*client, *server, *epoch, *cid));
            let is_followed = next.is_some_and(|next| next > number);
            match is_followed {
                _ if reply.is_whole(&reply.acked) => Proof::Acks,
                true if reply.had_come || reply.is_whole(&reply.came) => Proof::NextCall,
                true => Proof::NextCallOnly,
                false => Proof::None,
            }
        });
        // Asked for at several connections, since one was closed: any will do.
        proofs.min_by_key(|proof| *proof as u8).unwrap_or(Proof::Unknown)
    }

    /// The host at this address begins another life, and has nothing.
    pub fn lives_again(&mut self, host: SocketAddr) {
        for ((way, _), direction) in &mut self.directions {
            if way.1 == host {
                direction.had_come |= direction.is_whole(&direction.came);
                direction.came = Seqs::default();
            }
            if way.0 == host {
                direction.acked = Seqs::default();
            }
        }
        self.numbers.retain(|way, _| way.1 != host);
    }
}

/// What an ACK acknowledges beyond its first packet.
fn acked<'a>(ack: &'a Ack<'_>) -> impl Iterator<Item = u32> + use<'a> {
    let each = ack.sacks.iter().enumerate().filter(|(_, sack)| **sack & 1 != 0);
    each.map(|(index, _)| ack.first_packet.0.wrapping_add(index as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::notation::{Defaults, parse};
    use crate::wire::{Packet, Payload};

    const ID: u32 = 0x6162_6364;

    fn client() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 7001))
    }

    fn server() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 2], 7000))
    }

    /// A packet in the notation of docs/protocol; `C>` those of the client.
    fn datagram(line: &str) -> (bool, Vec<u8>) {
        let from_client = line.contains('C');
        let defaults =
            Defaults { epoch: 0x8000_0001, cid: 4, serial: 1, flags: u8::from(from_client) };
        (from_client, parse(line).encode(&defaults))
    }

    fn ends(from_client: bool) -> (SocketAddr, SocketAddr) {
        if from_client { (client(), server()) } else { (server(), client()) }
    }

    fn sends(receipts: &mut Receipts, line: &str) -> Option<u32> {
        let (from_client, bytes) = datagram(line);
        let (from, to) = ends(from_client);
        let packet = Packet::decode(&bytes).unwrap();
        match packet.payload {
            Payload::Data(_) => receipts.data_sent(from, to, &packet.header, &bytes),
            Payload::Ack(ack) => return receipts.ack_sent(from, to, &packet.header, &ack),
            _ => panic!("{line}"),
        }
        None
    }

    fn arrives(receipts: &mut Receipts, line: &str) {
        let (from_client, bytes) = datagram(line);
        let (from, to) = ends(from_client);
        let packet = Packet::decode(&bytes).unwrap();
        match packet.payload {
            Payload::Data(_) => receipts.data_arrived(from, to, &packet.header, &bytes),
            Payload::Ack(ack) => receipts.ack_arrived(from, to, &packet.header, &ack),
            _ => panic!("{line}"),
        }
    }

    /// A request and a reply of two packets, both sent.
    fn replied() -> Receipts {
        let mut receipts = Receipts::default();
        sends(&mut receipts, "D n1 q1 [CL] \"abcd\"");
        arrives(&mut receipts, "D n1 q1 [CL] \"abcd\"");
        sends(&mut receipts, "D n1 q1 [] \"x\"");
        sends(&mut receipts, "D n1 q2 [L] \"y\"");
        receipts
    }

    #[test]
    fn who_acknowledges_has_it() {
        let mut receipts = replied();
        assert_eq!(sends(&mut receipts, "A n1 f2 p1 a[] =DELAY [C]"), Some(1));
        arrives(&mut receipts, "D n1 q1 [] \"x\"");
        assert_eq!(sends(&mut receipts, "A n1 f2 p1 a[] =DELAY [C]"), None);
        assert_eq!(sends(&mut receipts, "A n1 f2 p1 a[0] =DELAY [C]"), None);
        assert_eq!(sends(&mut receipts, "A n1 f2 p1 a[1] =DELAY [C]"), Some(2));
        receipts.lives_again(client());
        assert_eq!(sends(&mut receipts, "A n1 f2 p1 a[] =DELAY [C]"), Some(1), "another life");
    }

    #[test]
    fn a_reply_is_acknowledged_by_acks_or_by_the_next_call_and_by_nothing_else() {
        let mut receipts = replied();
        assert_eq!(receipts.proof(ID), Proof::None);
        assert_eq!(receipts.proof(ID + 1), Proof::Unknown);
        arrives(&mut receipts, "A n1 f2 p2 a[] =DELAY [C]");
        assert_eq!(receipts.proof(ID), Proof::None, "one of two");
        let before = "D n1 q1 [CL] \"abcd\"";
        arrives(&mut receipts, before);
        assert_eq!(receipts.proof(ID), Proof::None, "the same call again");
        arrives(&mut receipts, "D n2 q1 [C] \"next\"");
        assert_eq!(receipts.proof(ID), Proof::NextCallOnly);
        arrives(&mut receipts, "D n1 q1 [] \"x\"");
        arrives(&mut receipts, "D n1 q2 [L] \"y\"");
        assert_eq!(receipts.proof(ID), Proof::NextCall);
        receipts.lives_again(client());
        assert_eq!(receipts.proof(ID), Proof::NextCall, "its client had it when it went on");
        // Soft ACKs suffice (rx-calls.md 4.2).
        arrives(&mut receipts, "A n1 f2 p2 a[1] =DELAY [C]");
        assert_eq!(receipts.proof(ID), Proof::Acks);
        receipts.lives_again(server());
        assert_eq!(receipts.proof(ID), Proof::None);
    }
}
