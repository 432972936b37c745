//! Ways to hand packets over, time that passes unnoticed, and order among what applications see.

use std::net::SocketAddr;

use super::*;

/// How packets that were received one after the other reach T (rx-race.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each is handled, and what it causes too, before the next.
    OneByOne,
    /// All before T's applications get a word in.
    Burst,
}

/// Each of the two.
pub const WAYS: [Way; 2] = [Way::OneByOne, Way::Burst];

impl Scenario {
    /// P's packets arrive in this order.
    #[track_caller]
    pub fn deliver(&mut self, way: Way, lines: &[&str]) -> &mut Self {
        match way {
            Way::OneByOne => self.send_all(lines),
            Way::Burst => self.send_burst(lines),
        }
    }

    /// P's packets arrive in one burst: as one batch where their sizes allow it, else one call after the
    /// other, and either way before an application of T acts.
    #[track_caller]
    pub fn send_burst(&mut self, lines: &[&str]) -> &mut Self {
        let datagrams: Vec<_> = lines.iter().map(|line| self.datagram(line)).collect();
        self.burst(&datagrams)
    }

    /// As [`Scenario::send_burst`], for any bytes.
    #[track_caller]
    pub fn burst(&mut self, datagrams: &[Vec<u8>]) -> &mut Self {
        for datagram in datagrams {
            self.note("P>T burst", &show(datagram));
        }
        let stride = datagrams.first().map_or(0, Vec::len);
        let (last, others) = datagrams.split_last().expect("a burst of something");
        if others.iter().all(|datagram| datagram.len() == stride) && last.len() <= stride {
            self.t.receive_batch(self.now, self.from, Bytes::from(datagrams.concat()), stride);
        } else {
            for datagram in datagrams {
                self.t.receive(self.now, self.from, datagram);
            }
        }
        self.pump();
        self
    }

    /// Time passes, but T's timers have not been looked at yet.
    pub fn skip(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// What happened so far is of no interest any more: for scenarios of many rounds.
    pub fn forget(&mut self) -> &mut Self {
        self.ladder.clear();
        self.calls.clear();
        self.edges.clear();
        self
    }

    /// T's next connection to P may begin its serials anew.
    pub fn forget_serials(&mut self) -> &mut Self {
        self.seen_serials.clear();
        self
    }

    /// These words stand in the ladder in this order.
    #[track_caller]
    pub fn expect_order(&mut self, words: &[&str]) -> &mut Self {
        let mut from = 0;
        for word in words {
            match self.ladder[from..].iter().position(|line| line.contains(word)) {
                Some(at) => from += at + 1,
                None => self.fail(&format!("{word:?} does not come in this order: {words:?}")),
            }
        }
        self
    }

    /// What has left T since the last look.
    pub fn take_left(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.sent.drain(..).map(|(_, to, datagram)| (to, datagram)).collect()
    }

    /// When the packets that nobody has looked at left T, since the scenario began.
    pub fn left_at(&self) -> Vec<Duration> {
        self.sent.iter().map(|(at, ..)| *at - self.start).collect()
    }

    /// T's counter of packets ignored for this reason.
    #[track_caller]
    pub fn expect_dropped(&mut self, reason: DropReason, count: u64) -> &mut Self {
        let got = self.t.counters().dropped_for(reason);
        if got != count {
            self.fail(&format!("expected {count} dropped as {reason}, were {got}"));
        }
        self
    }
}
