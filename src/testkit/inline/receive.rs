//! What arrives: cut into runs and handed to channels, as the actors' receive loop does it.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::InlineEndpoint;
use crate::proto::channel::Run;
use crate::proto::router::{RouteId, RouterOutput, Step};
use crate::wire::ChannelIndex;

/// Runs for one channel, in order, until another's come.
type Gathered = ((RouteId, ChannelIndex), SmallVec<[Run; 1]>);

impl InlineEndpoint {
    /// One datagram arrives.
    pub fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.receive_batch(now, from, Bytes::copy_from_slice(datagram), datagram.len());
    }

    /// Datagrams arrive together: each of `stride` bytes, the last may be shorter.
    pub fn receive_batch(&mut self, now: Instant, from: SocketAddr, data: Bytes, stride: usize) {
        self.receive_together(now, [(from, data, stride)]);
    }

    /// Batches that one receive has brought: all of them are handed over before anything that they cause, and what a
    /// channel has of several in a row is one step for it, as in the actors' receive loop.
    pub fn receive_together(
        &mut self,
        now: Instant,
        batches: impl IntoIterator<Item = (SocketAddr, Bytes, usize)>,
    ) {
        let mut out = RouterOutput::default();
        let mut gathered = None;
        for (from, data, stride) in batches {
            self.route(now, from, &data, stride, &mut gathered, &mut out);
        }
        self.hand_over(now, &mut gathered);
        self.note_answers(&mut out);
        self.settle(now);
    }

    fn route(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &Bytes,
        stride: usize,
        gathered: &mut Option<Gathered>,
        out: &mut RouterOutput,
    ) {
        self.router.begin_batch(now, from, data.len(), stride);
        let mut at = 0;
        while let Some(step) = self.router.next_step(now, from, data, stride, &mut at, out) {
            match step {
                Step::Run { route, channel, at } => {
                    let run = Run { data: data.slice(at), stride };
                    match gathered {
                        Some((to, runs)) if *to == (route, channel) => runs.push(run),
                        _ => {
                            self.hand_over(now, gathered);
                            *gathered = Some(((route, channel), smallvec![run]));
                        }
                    }
                }
                Step::Control { route, at } => {
                    self.hand_over(now, gathered);
                    self.control(now, route, &data[at]);
                }
                Step::Open(opening) => {
                    self.hand_over(now, gathered);
                    self.open(now, *opening);
                    while let Some(oldest) = self.router.excess(now) {
                        self.close_connection(now, oldest);
                    }
                }
                Step::Stray { .. } => unreachable!("this endpoint is not divided"),
            }
            // Mailboxes hold all runs of a batch before what they cause comes back.
        }
    }

    fn hand_over(&mut self, now: Instant, gathered: &mut Option<Gathered>) {
        let Some(((route, channel), runs)) = gathered.take() else { return };
        let hint = self.router.hint(route);
        let Some(tree) = self.trees.get_mut(&route) else { return };
        let mut out = self.spare.take().unwrap_or_default();
        tree.channels[channel.index()].handle_runs(now, &hint, &runs, &mut out);
        self.take_channel(now, route, channel, out);
    }
}
