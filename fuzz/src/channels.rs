//! A client's and a server's channel with a network between them that loses, repeats and reorders, timers that
//! come early, late or together, and applications that do anything: a list of operations.
//!
//! All along: no call runs twice, what is delivered is what was sent, serials and firstPacket only grow, nobody
//! is told BUSY where newer calls take over. In the end the network is good, and the next call must be too.

mod end;

use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use rxrpc::proto::NetworkProblem;
use rxrpc::proto::channel::Command;
use rxrpc::wire::AbortCode;

use end::{End, Options, Side};

/// One thing that happens.
#[derive(Arbitrary, Debug)]
enum Operation {
    /// The client's application asks for a call, if the channel is free.
    Start {
        len: u16,
        is_whole: bool,
        deadline_s: Option<u8>,
    },
    /// A datagram on its way to a side arrives: the oldest is 0.
    Deliver {
        to: Side,
        which: u8,
    },
    /// The oldest of one size arrive together.
    DeliverRun {
        to: Side,
        count: u8,
    },
    /// It arrives, and will once more.
    Repeat {
        to: Side,
        which: u8,
    },
    Lose {
        to: Side,
        which: u8,
    },
    /// Everything on its way to a side is lost.
    LoseAll {
        to: Side,
    },
    Wait {
        ms: u16,
    },
    /// Time goes on to the side's next deadline, which fires.
    Fire {
        side: Side,
    },
    /// Its timers are looked at, due or not.
    LookAtTimers {
        side: Side,
    },
    Write {
        side: Side,
        len: u16,
        ends: bool,
        flushes: bool,
    },
    Take {
        side: Side,
    },
    Discard,
    Finish {
        side: Side,
    },
    Abort {
        side: Side,
        code: i32,
    },
    Problem {
        side: Side,
    },
    /// The path takes smaller packets from now on.
    Narrow {
        side: Side,
        payload_max: u16,
    },
    Break {
        side: Side,
    },
}

/// Longer than any call may take after the last fault.
const END_WITHIN: Duration = Duration::from_secs(200);
/// Far more events than a clean end has.
const END_STEPS_MAX: usize = 20_000;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    let Ok(options) = source.arbitrary::<Options>() else { return };
    let mut pair = Pair::new(options);
    while let Ok(operation) = source.arbitrary()
        && !source.is_empty()
    {
        pair.happen(operation);
    }
    pair.end();
}

struct Pair {
    client: End,
    server: End,
    now: Instant,
}

impl Pair {
    fn new(options: Options) -> Pair {
        let now = Instant::now();
        let [client, server] = End::pair(options, now);
        Pair { client, server, now }
    }

    fn of(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn happen(&mut self, operation: Operation) {
        let now = self.now;
        match operation {
            Operation::Start { len, is_whole, deadline_s } => {
                let deadline = deadline_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
                self.client.start(now, usize::from(len), is_whole, deadline);
            }
            Operation::Deliver { to, which } => self.of(to).arrive(now, which, false),
            Operation::Repeat { to, which } => self.of(to).arrive(now, which, true),
            Operation::DeliverRun { to, count } => self.of(to).arrive_together(now, count),
            Operation::Lose { to, which } => self.of(to).lose(which),
            Operation::LoseAll { to } => self.of(to).inbox.clear(),
            Operation::Wait { ms } => self.now += Duration::from_millis(u64::from(ms)),
            Operation::Fire { side } => {
                if let Some(at) = self.of(side).channel.next_deadline() {
                    self.now = now.max(at);
                    let now = self.now;
                    self.of(side).look_at_timers(now);
                }
            }
            Operation::LookAtTimers { side } => self.of(side).look_at_timers(now),
            Operation::Write { side, len, ends, flushes } => {
                self.of(side).write(now, usize::from(len), ends, flushes);
            }
            Operation::Take { side } => self.of(side).take(now),
            Operation::Discard => self.server.discard(now),
            Operation::Finish { side } => self.of(side).finish(now, Command::End),
            Operation::Abort { side, code } => {
                self.of(side).finish(now, Command::Abort(AbortCode(code)));
            }
            Operation::Problem { side } => {
                self.of(side).problem(now, NetworkProblem::HostUnreachable);
            }
            Operation::Narrow { side, payload_max } => {
                self.of(side).narrow(now, payload_max.max(492));
            }
            Operation::Break { side } => self.of(side).break_channel(now),
        }
        self.exchange();
    }

    /// What a side has sent is on its way; what was said at one side is compared with the other.
    fn exchange(&mut self) {
        self.server.inbox.extend(self.client.sent.drain(..));
        self.client.inbox.extend(self.server.sent.drain(..));
        self.server.compare(&self.client);
        self.client.compare(&self.server);
        self.client.check();
        self.server.check();
    }

    /// The faults are over. Applications read and answer what there is; then one more call, which is good.
    fn end(mut self) {
        self.exchange();
        self.settle();
        assert!(
            self.client.is_idle(),
            "the client has not ended: {:?}",
            self.client.channel.state()
        );
        let before = self.client.good_calls;
        let now = self.now;
        self.client.start(now, 5000, true, None);
        self.exchange();
        self.settle();
        assert_eq!(self.client.good_calls, before + 1, "the call after the faults failed");
        for end in [&self.client, &self.server] {
            assert!(end.is_idle(), "a side has not ended: {:?}", end.channel.state());
        }
    }

    fn settle(&mut self) {
        let until = self.now + END_WITHIN;
        for _ in 0..END_STEPS_MAX {
            let now = self.now;
            self.client.apply(now);
            self.server.apply(now);
            self.exchange();
            if !self.server.inbox.is_empty() || !self.client.inbox.is_empty() {
                self.server.arrive_together(now, u8::MAX);
                self.exchange();
                self.client.arrive_together(now, u8::MAX);
                self.exchange();
                continue;
            }
            let deadlines = [&self.client, &self.server].map(|end| end.channel.next_deadline());
            let Some(at) = deadlines.into_iter().flatten().min() else { return };
            self.now = now.max(at);
            assert!(self.now < until, "not over {END_WITHIN:?} after the last fault");
            let now = self.now;
            self.client.look_at_timers(now);
            self.server.look_at_timers(now);
            self.exchange();
        }
        panic!("{END_STEPS_MAX} steps and not over");
    }
}
