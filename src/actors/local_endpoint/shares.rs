//! How much of what was received together is handed over in one turn.
//!
//! Many calls with a packet each are handed over in shares, so that the peer works on the answers to the first while
//! we work on the rest. A share is about a third of the calls that are on their way between both ends: each end
//! works on one, and one waits where work is slower. More of them would only cost more turns and sends.
//!
//! What is received at once does not say how many calls there are: it is what the peer has sent at once, which is
//! what we have sent, so that shares of it would become smaller each time. But whoever makes one call after the other
//! comes round: as many runs pass as there are calls until one is of the same channel again.

use crate::proto::router::RouteId;
use crate::wire::ChannelIndex;

/// Shares of all calls.
const SHARES: usize = 3;
/// The smallest share, in runs: smaller ones cost more in turns and sends than the peer gains.
const RUNS_MIN: usize = 4;
/// The largest: what a turn and a send cost by themselves is hardly to be seen there.
const RUNS_MAX: usize = 32;
/// A round is no longer: there may be few calls at once, over many channels.
const ROUND_RUNS_MAX: usize = 256;
/// A round counts for so much of what is expected of the next: one in so many.
const SMOOTHING: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Whose next run ends the round.
    mark: Option<(RouteId, ChannelIndex)>,
    /// Runs of this round so far.
    runs: usize,
    /// Runs of a round, smoothed; times [`SMOOTHING`].
    smoothed: usize,
}

impl Shares {
    /// A run is handed over.
    pub fn note(&mut self, whose: (RouteId, ChannelIndex)) {
        self.runs += 1;
        if self.mark == Some(whose) {
            self.smoothed = self.smoothed - self.smoothed / SMOOTHING + self.runs;
        } else if self.runs >= ROUND_RUNS_MAX {
            self.smoothed -= self.smoothed / SMOOTHING;
        } else if self.mark.is_some() {
            return;
        }
        self.mark = Some(whose);
        self.runs = 0;
    }

    /// The share, in steps, of so many runs that were received together: all are about as large. A run may take two
    /// steps.
    pub fn of(&self, received: usize) -> usize {
        let calls = received.max(self.smoothed / SMOOTHING);
        let share = (calls.saturating_sub(RUNS_MIN) / SHARES).clamp(RUNS_MIN, RUNS_MAX);
        let shares = (received + (share - 1) / 2) / share;
        received.div_ceil(shares.max(1)).max(RUNS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::config::EndpointConfig;
    use crate::proto::router::{Identity, Router, RouterOutput};
    use crate::wire::{Cid, Epoch, SecurityIndex, ServiceId};

    /// Four channels of each of so many connections.
    fn channels(connections: usize) -> Vec<(RouteId, ChannelIndex)> {
        let identity = Identity { epoch: Epoch(1), first_cid: Cid(4), hash_seed: 1 };
        let now = std::time::Instant::now();
        let mut router = Router::<()>::new(EndpointConfig::default().into(), identity, now);
        let mut out = RouterOutput::default();
        let mut route = || {
            let ids = router.allocate(ServiceId(1), SecurityIndex::NULL);
            router.insert_client(now, ids, ([10, 0, 0, 1], 7000).into(), (), &mut out)
        };
        (0..connections)
            .flat_map(|_| {
                let route = route();
                ChannelIndex::ALL.map(|index| (route, index))
            })
            .collect()
    }

    fn note_rounds(shares: &mut Shares, channels: &[(RouteId, ChannelIndex)], rounds: usize) {
        (0..rounds).flat_map(|_| channels).for_each(|whose| shares.note(*whose));
    }

    #[test]
    fn a_share_grows_with_the_calls_that_come_round_and_not_with_what_comes_at_once() {
        for (calls, share) in [(4, 4), (16, 4), (32, 9), (64, 19), (128, 32), (248, 32)] {
            let mut shares = Shares::default();
            note_rounds(&mut shares, &channels(calls / 4), 40);
            for received in 1..=share {
                assert_eq!(shares.of(received), received.max(4), "of {calls} calls");
            }
            assert_eq!(shares.of(share * 2), share, "of {calls} calls");
        }
    }

    #[test]
    fn what_comes_together_is_divided_evenly() {
        let shares = Shares::default();
        let of = |received| shares.of(received);
        assert_eq!([1, 4, 6, 7, 12, 13, 16].map(of), [4, 4, 6, 4, 4, 5, 4]);
        assert_eq!([32, 64, 1000].map(of), [8, 22, 33]);
    }

    #[test]
    fn few_calls_over_many_channels_have_small_shares() {
        let mut shares = Shares::default();
        let (some, many) = (channels(16), channels(80));
        note_rounds(&mut shares, &some, 40);
        assert_eq!(shares.of(16), 16);
        note_rounds(&mut shares, &many, 40);
        assert_eq!(shares.of(16), 4);
        note_rounds(&mut shares, &some[..1], 40);
        assert_eq!(shares.of(16), 4);
    }
}
