//! What leaves: batches of datagrams in order, joined for one peer where they are small, each with one
//! send call.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::actors::step::give_back;
use crate::net::{Network, Transmit};
use crate::proto::router::{RouteId, Router};
use crate::proto::{BATCH_BYTES_MAX, Batch, Datagrams, NetworkProblem};

/// Batches that are looked at for one to join. More peers at once than this rarely share a flush.
const JOIN_REACH: usize = 8;
/// A batch up to this size is copied behind another; a larger one leaves as it is.
const JOIN_BYTES_MAX: usize = 4096;
/// Datagrams that there is room for, once one has joined.
const JOIN_ROOM: usize = 8;

#[derive(Debug)]
struct Item {
    to: SocketAddr,
    bytes: Contents,
    segment: usize,
    count: usize,
    may_fragment: bool,
}

#[derive(Debug)]
enum Contents {
    /// A buffer of its own: others may join it.
    Own(Vec<u8>),
    /// A part of a channel's buffer, as it is.
    Part(Bytes),
}

impl std::ops::Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Contents::Own(bytes) => bytes,
            Contents::Part(bytes) => bytes,
        }
    }
}

impl Item {
    /// Whether another datagram may follow: all so far are full.
    fn is_open(&self) -> bool {
        self.bytes.len() == self.segment * self.count
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Egress {
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// Bytes that may wait for the socket; beyond it the oldest are lost, as a full socket would lose them.
    queued_max_bytes: usize,
    /// Datagrams that were lost so since the last flush.
    overflowed: u64,
    segments_max: usize,
    is_blocked: bool,
    /// Destinations that the system has no way to.
    unreachable: Vec<(SocketAddr, NetworkProblem)>,
}

impl Egress {
    pub fn new(segments_max: usize, queued_max_bytes: usize) -> Egress {
        Egress {
            queue: VecDeque::new(),
            queued_bytes: 0,
            queued_max_bytes,
            overflowed: 0,
            segments_max: segments_max.max(1),
            is_blocked: false,
            unreachable: Vec::new(),
        }
    }

    /// Destinations that the last flushes found no way to (rx-calls.md 10).
    pub fn take_unreachable(&mut self) -> Vec<(SocketAddr, NetworkProblem)> {
        std::mem::take(&mut self.unreachable)
    }

    /// Whether the socket took no more at the last flush.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Takes the datagrams of a connection, as far as its peer may be sent them.
    pub fn push<T>(
        &mut self,
        now: Instant,
        route: RouteId,
        datagrams: &mut Datagrams,
        router: &mut Router<T>,
    ) {
        if let Some((batch, bytes)) = datagrams.take_only_batch() {
            // The usual case: the channel's own buffer is what the socket gets.
            let Some(to) = router.admit(now, route, batch.count, &bytes) else { return };
            router.counters_mut().record_sent(batch.segment, &bytes);
            return self.enqueue(to, batch, bytes);
        }
        let is_small = datagrams.byte_count() <= JOIN_BYTES_MAX;
        let (mut bytes, batches) = datagrams.take().into_parts();
        for batch in batches {
            let bytes = bytes.split_to(batch.len);
            let Some(to) = router.admit(now, route, batch.count, &bytes) else { continue };
            router.counters_mut().record_sent(batch.segment, &bytes);
            if is_small {
                self.enqueue(to, batch, bytes.to_vec());
            } else {
                self.queued_bytes += bytes.len();
                self.append(to, batch, Contents::Part(bytes));
            }
        }
    }

    /// Takes a datagram that has no connection.
    pub fn push_single(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        let len = datagram.len();
        let batch = Batch { segment: len, len, count: 1, may_fragment: false };
        self.enqueue(to, batch, datagram);
    }

    fn enqueue(&mut self, to: SocketAddr, batch: Batch, bytes: Vec<u8>) {
        self.queued_bytes += bytes.len();
        if bytes.len() <= JOIN_BYTES_MAX && self.join(to, &batch, &bytes) {
            return give_back(bytes);
        }
        self.append(to, batch, Contents::Own(bytes));
    }

    fn append(&mut self, to: SocketAddr, batch: Batch, bytes: Contents) {
        let Batch { segment, count, may_fragment, .. } = batch;
        self.queue.push_back(Item { to, bytes, segment, count, may_fragment });
        while self.queued_bytes > self.queued_max_bytes
            && let Some(item) = self.queue.pop_front()
        {
            self.queued_bytes -= item.bytes.len();
            self.overflowed += item.count as u64;
        }
    }

    /// Appends to the last batch for the same peer, if that is of one size and near the end.
    fn join(&mut self, to: SocketAddr, batch: &Batch, bytes: &[u8]) -> bool {
        let Batch { segment, count, may_fragment, .. } = *batch;
        let Some(item) = self.queue.iter_mut().rev().take(JOIN_REACH).find(|item| item.to == to)
        else {
            return false;
        };
        let fits = item.is_open()
            && item.may_fragment == may_fragment
            && item.count + count <= self.segments_max
            && item.bytes.len() + bytes.len() <= BATCH_BYTES_MAX
            && (segment == item.segment || (count == 1 && segment < item.segment));
        match &mut item.bytes {
            Contents::Own(own) if fits => {
                if own.capacity() - own.len() < bytes.len() {
                    // One that joins is rarely the last.
                    own.reserve(JOIN_ROOM * segment.max(bytes.len()));
                }
                own.extend_from_slice(bytes);
                item.count += count;
                true
            }
            _ => false,
        }
    }

    /// Hands the network what it takes. What it refuses for its destination is lost and counted: the
    /// protocol sends it again.
    pub fn flush<T>(&mut self, network: &mut dyn Network, router: &mut Router<T>) {
        self.is_blocked = false;
        router.counters_mut().send_failures += std::mem::take(&mut self.overflowed);
        while let Some(item) = self.queue.front() {
            let transmit = Transmit {
                to: item.to,
                contents: &item.bytes,
                segment_size: item.segment.max(1),
                may_fragment: item.may_fragment,
            };
            match network.try_send(&transmit) {
                Ok(()) => router.counters_mut().sends += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return;
                }
                Err(error) => {
                    log::debug!("{} datagrams to {} lost: {error}", item.count, item.to);
                    router.counters_mut().send_failures += item.count as u64;
                    if let Some(problem) = problem_of(&error) {
                        self.unreachable.push((item.to, problem));
                    }
                }
            }
            if let Some(item) = self.queue.pop_front() {
                self.queued_bytes -= item.bytes.len();
                if let Contents::Own(bytes) = item.bytes {
                    give_back(bytes);
                }
            }
        }
    }
}

fn problem_of(error: &io::Error) -> Option<NetworkProblem> {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Some(NetworkProblem::NetUnreachable)
        }
        io::ErrorKind::HostUnreachable => Some(NetworkProblem::HostUnreachable),
        io::ErrorKind::ConnectionRefused => Some(NetworkProblem::PortUnreachable),
        io::ErrorKind::PermissionDenied => Some(NetworkProblem::Prohibited),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::MockNetwork;
    use crate::proto::config::EndpointConfig;
    use crate::proto::router::Identity;
    use crate::wire::{Cid, Epoch};

    #[test]
    fn bytes_wait_up_to_the_limit_and_one_datagram_beyond_loses_the_oldest() {
        for (count, lost) in [(64, 0), (65, 1)] {
            let identity = Identity { epoch: Epoch(1), first_cid: Cid(4), hash_seed: 1 };
            let config = EndpointConfig::default();
            let mut router = Router::<()>::new(config.into(), identity, Instant::now());
            let mut egress = Egress::new(64, 64 * 1024);
            // Each to somebody else, so that none joins another.
            for last in 1..=count {
                egress.push_single(SocketAddr::from(([10, 0, 0, last], 7001)), vec![0; 1024]);
            }
            let mut network = MockNetwork::new();
            let first = SocketAddr::from(([10, 0, 0, 1], 7001));
            network.expect_try_send().times(64).returning(move |transmit| {
                assert!(lost == 0 || transmit.to != first, "the oldest is gone");
                Ok(())
            });
            egress.flush(&mut network, &mut router);
            assert_eq!(router.counters().send_failures, lost);
            assert_eq!(router.counters().sends, 64);
        }
    }
}
