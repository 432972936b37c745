//! The other shards of an endpoint: what is handed over to them, and that all of them end together.
//!
//! A shard that has ended would lose what comes to its socket for the others, and the kernel would give its
//! peers to other sockets. So one that has no connections left stays, and hands over, until all are so far. One
//! that breaks or fails takes the others with it: half of an endpoint would take calls that it never answers.

use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler};
use bytes::Bytes;

use super::LocalEndpoint;
use super::receive::ReceiveLoop;
use crate::actors::messages::{
    Join, Receive, ShardEnd, ShardEnds, Shutdown, Strays, StraysTaken, TurnFree,
};
use crate::error::CloseReason;
use crate::net::Incoming;
use crate::proto::router::Shard;
use crate::wire::ServiceId;

/// What an entry of a message costs beside its bytes.
const ENTRY_BYTES: usize = 128;
/// Least share of one sibling: whatever a receive gives fits in, also when a part of the share is taken and not told.
const SHARE_BYTES_MIN: usize = 128 << 10;
/// What is taken is told when it is such a part of the share: telling wakes a thread, and is needed only by one that
/// is near the end of its share.
const TOLD_PART: usize = 4;

/// One of the others.
#[derive(Debug)]
struct Sibling {
    address: Addr<LocalEndpoint>,
    /// Leaves at the end of this turn.
    gathered: Vec<Incoming>,
    gathered_bytes: usize,
    /// What it has not told us that it took, `gathered` included.
    outstanding_bytes: usize,
    /// What we took of its and have not told.
    taken_bytes: usize,
    /// It has no connections left, and waits for the others; or it is gone.
    is_finished: bool,
}

/// See the module. Held by a shard; dropped with it, also by a panic, it tells the others.
#[derive(Debug)]
pub(crate) struct Siblings {
    shard: Shard,
    /// By shard; `None` = ourselves.
    all: Vec<Option<Sibling>>,
    /// What may be on its way to each of them.
    share_bytes: usize,
    is_finished: bool,
}

impl Siblings {
    /// Those of `shard` among `addresses`, to which `max_bytes` may be on their way at once.
    pub fn new(shard: Shard, addresses: &[Addr<LocalEndpoint>], max_bytes: usize) -> Siblings {
        let sibling = |(index, address): (usize, &Addr<LocalEndpoint>)| {
            (index != shard.index()).then(|| Sibling {
                address: address.clone(),
                gathered: Vec::new(),
                gathered_bytes: 0,
                outstanding_bytes: 0,
                taken_bytes: 0,
                is_finished: false,
            })
        };
        Siblings {
            shard,
            all: addresses.iter().enumerate().map(sibling).collect(),
            share_bytes: (max_bytes / (addresses.len() - 1).max(1)).max(SHARE_BYTES_MIN),
            is_finished: false,
        }
    }

    fn others(&mut self) -> impl Iterator<Item = &mut Sibling> {
        self.all.iter_mut().flatten()
    }

    /// Takes datagrams for `shard`; `false` = as much as may be is on its way, and they are lost.
    pub fn take(&mut self, shard: usize, incoming: Incoming) -> bool {
        let share_bytes = self.share_bytes;
        let Some(sibling) = self.all.get_mut(shard).and_then(Option::as_mut) else { return false };
        let bytes = cost(&incoming);
        if sibling.outstanding_bytes + bytes > share_bytes {
            return false;
        }
        sibling.outstanding_bytes += bytes;
        sibling.gathered_bytes += bytes;
        sibling.gathered.push(incoming);
        true
    }

    /// Takes what concerns all of them.
    pub fn take_for_all(&mut self, incoming: &Incoming) {
        for shard in 0..self.all.len() {
            // News of the network is a hint: what does not fit is lost.
            self.take(shard, incoming.clone());
        }
    }

    /// Hands over what was gathered: a message for each sibling that there is something for.
    pub fn hand_over(&mut self) {
        let from = self.shard.index();
        for sibling in self.others().filter(|sibling| !sibling.gathered.is_empty()) {
            let incoming = std::mem::take(&mut sibling.gathered);
            let bytes = std::mem::take(&mut sibling.gathered_bytes);
            sibling.address.do_send(Strays { from, incoming, bytes });
        }
    }

    /// A sibling took what we had handed over.
    pub fn note_taken(&mut self, taken: StraysTaken) {
        if let Some(sibling) = self.all.get_mut(taken.by).and_then(Option::as_mut) {
            sibling.outstanding_bytes = sibling.outstanding_bytes.saturating_sub(taken.bytes);
        }
    }

    /// What a sibling has handed over is taken: it is told, in large sums.
    pub fn acknowledge(&mut self, from: usize, bytes: usize) {
        let (by, share_bytes) = (self.shard.index(), self.share_bytes);
        let Some(sibling) = self.all.get_mut(from).and_then(Option::as_mut) else { return };
        sibling.taken_bytes += bytes;
        if sibling.taken_bytes >= share_bytes / TOLD_PART {
            let bytes = std::mem::take(&mut sibling.taken_bytes);
            sibling.address.do_send(StraysTaken { by, bytes });
        }
    }

    /// Tells the next shard that a call of a service has ended, if it has still so far to go. Back with us it has
    /// been everywhere.
    pub fn pass_turn(&mut self, service_id: ServiceId, hops: usize) {
        let Some(hops) = hops.checked_sub(1) else { return };
        let next = (self.shard.index() + 1) % self.shard.count();
        let free = TurnFree { service_id, hops };
        if let Some(sibling) = self.all.get(next).and_then(Option::as_ref) {
            sibling.address.do_send(free);
        }
    }

    /// Tells the others how we end.
    pub fn tell(&mut self, end: ShardEnd) {
        let shard = self.shard.index();
        self.others().for_each(|sibling| sibling.address.do_send(ShardEnds { shard, end }));
    }

    /// We begin to end, and they shall too.
    pub fn end_with(&mut self, grace: Duration, reason: CloseReason) {
        if reason == CloseReason::Shutdown {
            let shutdown = || Shutdown { grace, reply: None };
            self.others().for_each(|sibling| sibling.address.do_send(shutdown()));
        } else {
            self.tell(ShardEnd::Failed(reason));
        }
    }

    /// We have no connections left; whether nobody else has.
    pub fn finish(&mut self) -> bool {
        if !self.is_finished {
            self.is_finished = true;
            self.hand_over();
            self.tell(ShardEnd::Finished);
        }
        self.others().all(|sibling| sibling.is_finished)
    }

    /// What a sibling says of its end: why we have to end at once, if we do.
    pub fn note_end(&mut self, ends: ShardEnds) -> Option<CloseReason> {
        let is_finished = self.is_finished;
        let sibling = self.all.get_mut(ends.shard).and_then(Option::as_mut)?;
        match ends.end {
            ShardEnd::Failed(reason) => Some(reason),
            ShardEnd::Finished => {
                sibling.is_finished = true;
                None
            }
            // In order it goes only when all are finished.
            ShardEnd::Gone => {
                sibling.is_finished = true;
                (!is_finished).then_some(CloseReason::Broken)
            }
        }
    }
}

impl Handler<Join> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, join: Join, _: &mut Context<LocalEndpoint>) {
        self.siblings = Some(join.0);
    }
}

impl Handler<Receive> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, _: Receive, context: &mut Context<LocalEndpoint>) {
        context.spawn(ReceiveLoop::new(context.address()));
    }
}

impl Handler<ShardEnds> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, ends: ShardEnds, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        let reason = self.siblings.as_mut().and_then(|siblings| siblings.note_end(ends));
        if let Some(reason) = reason {
            self.end_at_once(reason);
        }
        self.end_if_finished(context);
    }
}

impl Handler<TurnFree> for LocalEndpoint {
    type Result = ();

    fn handle(&mut self, free: TurnFree, context: &mut Context<LocalEndpoint>) {
        self.take_outputs(|| context.address());
        self.give_turns(free.service_id, &context.address());
        if let Some(siblings) = &mut self.siblings {
            siblings.pass_turn(free.service_id, free.hops);
        }
    }
}

impl Drop for Siblings {
    fn drop(&mut self) {
        self.tell(ShardEnd::Gone);
    }
}

fn cost(incoming: &Incoming) -> usize {
    match incoming {
        Incoming::Datagrams { data, .. } => data.len() + ENTRY_BYTES,
        Incoming::PathError { .. } => ENTRY_BYTES,
    }
}

/// A part of what was received, for another shard. Copied if it is the smaller part: on its way it shall not keep
/// much more memory than it counts for.
pub(super) fn part(data: &Bytes, at: std::ops::Range<usize>) -> Bytes {
    if at.len() < data.len() / 2 { Bytes::copy_from_slice(&data[at]) } else { data.slice(at) }
}
