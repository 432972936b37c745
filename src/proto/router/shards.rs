//! Endpoints of several shards: sockets that share a port, each with a router of its own.
//!
//! The kernel gives a datagram to a socket by its addresses, so it may come to another shard than its
//! connection lives in. Who owns it follows from the header alone: there is no directory that could be late, or
//! grow. A shard takes what it owns and says of all else whose it is ([`Step::Stray`](super::Step::Stray)).
//!
//! - To us as client: the shard is in the connection id, since we choose it. All shards have one epoch, so a
//!   stranger who does not know it makes nobody forward anything.
//! - To us as server, the peer's address being part of the key: where it came, for the kernel always gives the
//!   same socket to the same addresses.
//! - To us as server, named by epoch and id alone (rx-calls.md 1.1): a seeded hash of both, so that a client whose
//!   address has changed finds its connection, whatever socket it reaches.
//! - An answer to a VERSION request of ours: the shard is in its number.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Instant;

use super::Router;
use super::runs::check;
use crate::wire::{CallNumber, Cid, Header, PacketType};

/// Connection ids without their channel bits.
const CID_PLACES: u32 = 1 << 30;

/// Which of an endpoint's shards a router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// An endpoint that is not divided.
    pub const ALONE: Shard = Shard { index: 0, count: 1 };

    /// The shard at `index` of `count`; `None` if there is none, or more than an id can name.
    pub fn new(index: usize, count: usize) -> Option<Shard> {
        let (index, count) = (u32::try_from(index).ok()?, u32::try_from(count).ok()?);
        (index < count && count < CID_PLACES).then_some(Shard { index, count })
    }

    /// Its place among the shards.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.count as usize
    }

    fn is_alone(self) -> bool {
        self.count == 1
    }

    /// Our first id, near `start`.
    pub(super) fn first_cid(self, start: Cid) -> Cid {
        let place = start.0 >> 2;
        self.cid_at(place - place % self.count + self.index)
    }

    /// Our next id.
    pub(super) fn next_cid(self, cid: Cid) -> Cid {
        self.cid_at((cid.0 >> 2) + self.count)
    }

    /// Past the last id the first comes again, and it has to be ours.
    fn cid_at(self, place: u32) -> Cid {
        Cid(if place < CID_PLACES { place << 2 } else { self.index << 2 })
    }

    fn owner_of_cid(self, cid: Cid) -> u32 {
        (cid.0 >> 2) % self.count
    }

    /// A number near `number` that says who has drawn it.
    pub(super) fn own_number(self, number: u32) -> u32 {
        (number - number % self.count).checked_add(self.index).unwrap_or(self.index)
    }
}

impl<T> Router<T> {
    /// Makes it a shard of an endpoint whose shards all have the same
    /// [`Identity`](super::Identity). Before anything else.
    pub fn enter_shard(&mut self, shard: Shard) {
        self.shard = shard;
        self.next_cid = shard.first_cid(self.next_cid);
    }

    /// Counts bytes of its peer where they are ours: what it may be answered depends on them.
    fn credit_own(&mut self, now: Instant, from: SocketAddr, data: &[u8], stride: usize) {
        let Some(peer) = self.peers.find(from) else { return };
        let (datagrams, bytes) = self.own_part(data, stride);
        if datagrams > 0 {
            self.peers.get_mut(peer).peer.received(now, datagrams, bytes);
        }
    }

    /// How many datagrams, and bytes, of `data` are ours.
    pub(super) fn own_part(&self, data: &[u8], stride: usize) -> (usize, usize) {
        if self.shard.is_alone() {
            return (data.len().div_ceil(stride), data.len());
        }
        let own = data.chunks(stride).filter(|datagram| self.owner(datagram).is_none());
        own.fold((0, 0), |(count, bytes), datagram| (count + 1, bytes + datagram.len()))
    }

    #[inline]
    pub(super) fn is_sharded(&self) -> bool {
        !self.shard.is_alone()
    }

    /// Before [`Router::next_step`] for what another shard has received and handed over: it has counted it.
    pub fn begin_forwarded(&mut self) {
        self.is_uncredited = true;
    }

    /// Where another shard's datagrams end, and which shard that is, if the one at `start` is such a one: as
    /// many as follow for the same shard, of whatever connections. To be asked first of a batch's beginning.
    pub(super) fn strays(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &[u8],
        stride: usize,
        start: usize,
    ) -> Option<(usize, usize)> {
        if std::mem::take(&mut self.is_uncredited) {
            self.credit_own(now, from, data, stride);
        }
        let datagram = |at: usize| &data[at..(at + stride).min(data.len())];
        let shard = self.owner(datagram(start))?;
        let mut end = start;
        while end < data.len() && self.owner(datagram(end)) == Some(shard) {
            end += datagram(end).len();
        }
        Some((shard as usize, end))
    }

    /// The shard that owns a datagram, if that is another one. What is malformed is nobody's, and dropped here.
    fn owner(&self, datagram: &[u8]) -> Option<u32> {
        let header = Header::decode(datagram)?;
        let owner = match header.packet_type {
            PacketType::Version => self.owner_of_version(&header)?,
            PacketType::Debug | PacketType::Params(_) | PacketType::Unknown(_) => return None,
            _ if header.is_from_client() => self.owner_of_server(&header)?,
            _ if header.epoch == self.epoch => self.shard.owner_of_cid(header.cid),
            _ => return None,
        };
        let is_stray = owner != self.shard.index
            && (header.packet_type == PacketType::Version || check(&header, datagram).is_ok());
        is_stray.then_some(owner)
    }

    fn owner_of_server(&self, header: &Header) -> Option<u32> {
        if self.config.strict_address || !header.epoch.is_address_free() {
            return None;
        }
        let hash = self.hasher.hash_one((header.epoch, header.cid.connection()));
        Some((hash % u64::from(self.shard.count)) as u32)
    }

    fn owner_of_version(&self, header: &Header) -> Option<u32> {
        let is_answer = self.config.ask_version
            && !header.is_from_client()
            && header.call_number != CallNumber::NONE;
        is_answer.then_some(header.call_number.0 % self.shard.count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proto::config::EndpointConfig;
    use crate::proto::router::{Identity, Offer, RouterOutput, Step};
    use crate::security::RxNull;
    use crate::wire::{Epoch, Flags, SecurityIndex, Seq, Serial, ServiceId};

    const EPOCH: Epoch = Epoch(0x8000_0001);
    const LEN: usize = 40;

    fn peer() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 7009))
    }

    fn router(index: usize, count: usize) -> Router<()> {
        let identity = Identity { epoch: EPOCH, first_cid: Cid(400), hash_seed: 7 };
        let config = EndpointConfig { strict_address: false, ..EndpointConfig::default() };
        let mut router = Router::new(Arc::new(config), identity, Instant::now());
        router.enter_shard(Shard::new(index, count).unwrap());
        let classes = vec![Arc::new(RxNull) as _];
        router.offer(ServiceId(1), Offer { classes, needs_reach: false, upgrades_to: None });
        router
    }

    fn data(cid: u32, flags: Flags) -> Vec<u8> {
        let header = Header {
            epoch: EPOCH,
            cid: Cid(cid),
            call_number: CallNumber(1),
            seq: Seq(1),
            serial: Serial(1),
            packet_type: PacketType::Data,
            flags,
            user_status: 0,
            security_index: SecurityIndex::NULL,
            cksum: 0,
            service_id: ServiceId(1),
        };
        let mut datagram = header.encode().to_vec();
        datagram.resize(LEN, 0);
        datagram
    }

    /// All steps of a batch, and the router's place in it after each; connections are made on the way.
    fn steps(router: &mut Router<()>, batch: &[u8]) -> Vec<(String, usize)> {
        let (now, mut at, mut all) = (Instant::now(), 0, Vec::new());
        let mut out = RouterOutput::default();
        router.begin_batch(now, peer(), batch.len(), LEN);
        while let Some(step) = router.next_step(now, peer(), batch, LEN, &mut at, &mut out) {
            let what = match step {
                Step::Run { channel, .. } => format!("run {}", channel.index()),
                Step::Control { .. } => "control".to_owned(),
                Step::Stray { shard, at } => format!("{} to {shard}", at.len() / LEN),
                Step::Open(opening) => {
                    router.insert_server(now, &opening, ());
                    "open".to_owned()
                }
            };
            all.push((what, at / LEN));
        }
        all
    }

    #[test]
    fn a_batch_is_cut_into_what_is_ours_and_what_goes_to_whom() {
        let mut router = router(1, 3);
        let now = Instant::now();
        let ids = router.allocate(ServiceId(1), SecurityIndex::NULL);
        assert_eq!(ids.cid, Cid(400), "100 is 1 modulo 3: ours");
        router.insert_client(now, ids, peer(), (), &mut RouterOutput::default());
        let (own, next, last) = (ids.cid.0, ids.cid.0 + 4, ids.cid.0 + 8);
        let malformed = data(next, Flags::JUMBO_PACKET);
        let mut batch = Vec::new();
        for cid in [next, next | 1, next + 12, last, own, own, own | 2, next] {
            batch.extend(data(cid, Flags::NONE));
        }
        batch.extend(malformed);
        let found = steps(&mut router, &batch);
        let expected = [("3 to 2", 3), ("1 to 0", 4), ("run 0", 6), ("run 2", 7), ("1 to 2", 8)];
        assert_eq!(found, expected.map(|(what, at)| (what.to_owned(), at)));
        let counters = router.counters();
        assert_eq!((counters.datagrams_received, counters.dropped_total()), (9, 1));
        assert_eq!(counters.received_by_type[1], 4, "each by its owner, and the malformed one");
    }

    /// What another shard owns earns its sender nothing here: the limit of amplification holds in sum.
    #[test]
    fn bytes_are_credited_once_in_all_shards() {
        let (now, count) = (Instant::now(), 4);
        let mut shards: Vec<_> = (0..count).map(|index| router(index, count)).collect();
        let mut batch = Vec::new();
        let cids: Vec<u32> = (1..=40).map(|place| place << 2).collect();
        for cid in &cids {
            batch.extend(data(*cid, Flags::CLIENT_INITIATED));
        }
        // As if it had all come to the first.
        let mut parts = vec![Vec::new(); count];
        let (mut at, mut own) = (0, 0);
        shards[0].begin_batch(now, peer(), batch.len(), LEN);
        let mut out = RouterOutput::default();
        while let Some(step) = shards[0].next_step(now, peer(), &batch, LEN, &mut at, &mut out) {
            match step {
                Step::Stray { shard, at } => parts[shard].extend_from_slice(&batch[at]),
                Step::Open(opening) => {
                    own += 1;
                    shards[0].insert_server(now, &opening, ());
                }
                _ => {}
            }
        }
        for (index, part) in parts.iter().enumerate().skip(1) {
            shards[index].begin_forwarded();
            let mut at = 0;
            let router = &mut shards[index];
            while let Some(step) = router.next_step(now, peer(), part, LEN, &mut at, &mut out) {
                match step {
                    Step::Stray { shard, .. } => panic!("{index} hands on to {shard}"),
                    Step::Open(opening) => _ = router.insert_server(now, &opening, ()),
                    _ => {}
                }
            }
        }
        assert!(own > 0 && own < 40 && parts.iter().skip(1).all(|part| !part.is_empty()));
        let mut sent = 0;
        for router in &mut shards {
            let routes: Vec<_> = router.iter().map(|(route, ())| route).collect();
            let datagram = data(4, Flags::NONE);
            while router.admit(now, routes[0], 1, &datagram).is_some() {
                sent += LEN;
            }
        }
        assert_eq!(sent, 3 * batch.len());
    }

    #[test]
    fn ids_of_shards_never_meet_and_name_their_owner_past_the_last_one_too() {
        for count in [1, 2, 3, 7, 64] {
            for index in 0..count {
                let shard = Shard::new(index, count).unwrap();
                for start in [0, 4, 0x1234_5678, u32::MAX - 40, u32::MAX] {
                    let mut cid = shard.first_cid(Cid(start));
                    for _ in 0..200 {
                        assert_eq!(cid.0 & 3, 0, "{cid:?}");
                        assert_eq!(shard.owner_of_cid(cid), shard.index, "{cid:?} of {shard:?}");
                        cid = shard.next_cid(cid);
                    }
                }
                for number in [0, 1, 101, u32::MAX] {
                    assert_eq!(shard.own_number(number) % shard.count, shard.index);
                }
            }
        }
        assert_eq!(Shard::new(2, 2), None);
        assert_eq!(Shard::new(0, 0), None);
    }
}
