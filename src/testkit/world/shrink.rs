//! Makes a failing plan small: fewer calls, hosts and faults, smaller requests, quieter links, and in the end only
//! those losses without which it does not fail.

use std::collections::BTreeSet;
use std::time::Duration;

use super::link::{Fate, LinkOptions, Loss};
use super::plan::{Answer, CallPlan, FaultKind, HostIndex, Plan};
use super::run::{Wiring, play};
use super::trace::What;
use crate::proto::config::CallConfig;

/// Plays of one shrinking.
const TRIES_MAX: usize = 3000;
/// Rounds over all that can be made smaller: what one round made smaller lets the next make more of it so.
const ROUNDS_MAX: usize = 4;

/// A datagram of a link: sender, receiver, and which of the link's it is.
pub type Nth = (HostIndex, HostIndex, u64);

/// A smaller plan that fails too.
pub fn shrink(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut shrinking = Shrinking { small: plan.clone(), fails, tries: 0 };
    for _ in 0..ROUNDS_MAX {
        if !shrinking.round() {
            break;
        }
    }
    shrinking.small
}

struct Shrinking<F> {
    small: Plan,
    fails: F,
    tries: usize,
}

impl<F: Fn(&Plan) -> bool> Shrinking<F> {
    /// Whether anything became smaller.
    fn round(&mut self) -> bool {
        let mut any = self.leave_out(|plan| &mut plan.calls);
        any |= self.calls_before_a_loss();
        any |= self.leave_out(|plan| &mut plan.faults);
        any |= self.leave_out(|plan| &mut plan.hostile);
        any |= self.hosts();
        any |= self.settings();
        any |= self.links();
        any |= self.calls();
        any |= self.times();
        any | self.losses()
    }

    /// Keeps the change if the plan still fails with it.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut tried = self.small.clone();
        change(&mut tried);
        // Plans are compared as they are printed: not all that they are made of can be compared.
        if self.tries >= TRIES_MAX || format!("{tried:?}") == format!("{:?}", self.small) {
            return false;
        }
        self.tries += 1;
        let still = (self.fails)(&tried);
        if still {
            self.small = tried;
        }
        still
    }

    /// Elements of a list: by halves, then one by one.
    fn leave_out<T>(&mut self, list: fn(&mut Plan) -> &mut Vec<T>) -> bool {
        let mut any = false;
        let mut size = list(&mut self.small).len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < list(&mut self.small).len() {
                let cut = self.attempt(|plan| {
                    let list = list(plan);
                    let end = (at + size).min(list.len());
                    list.drain(at..end);
                });
                any |= cut;
                at += if cut { 0 } else { size };
            }
            size /= 2;
        }
        any
    }

    /// One datagram is lost, and calls before it only decide which it is: without them it is an earlier one.
    fn calls_before_a_loss(&mut self) -> bool {
        let mut any = false;
        let mut index = 0;
        while index < self.small.calls.len() {
            let Some(&[(from, to, nth)]) = self.small.lost.as_deref() else { break };
            let cut = (0..=nth).any(|earlier| {
                self.attempt(|plan| {
                    plan.calls.remove(index);
                    plan.lost = Some(vec![(from, to, earlier)]);
                })
            });
            any |= cut;
            index += usize::from(!cut);
        }
        any
    }

    fn hosts(&mut self) -> bool {
        let mut any = self.attempt(|plan| move_hosts(plan, 1, 1));
        any |= self.attempt(|plan| move_hosts(plan, 1, plan.servers));
        any |= self.attempt(|plan| move_hosts(plan, plan.clients, 1));
        any | self.attempt(|plan| plan.connections_max = 1)
    }

    fn settings(&mut self) -> bool {
        let mut any = self.attempt(|plan| plan.config = Default::default());
        any |= self.attempt(|plan| plan.needs_reach = false);
        any |= self.attempt(|plan| plan.running_calls_max = None);
        any |= self.attempt(|plan| plan.reports_unreachable = false);
        any |= self.attempt(|plan| plan.security = None);
        any |= self.attempt(|plan| plan.upgrades = false);
        for kind in 0..crate::testkit::Unlikely::ALL.len() {
            any |= self.attempt(|plan| {
                plan.config.client.call.choices.one_in[kind] = 0;
                plan.config.server.call.choices.one_in[kind] = 0;
            });
        }
        let plain: [fn(&mut CallConfig, CallConfig); 6] = [
            |call, plain| {
                call.send_window_initial_packets = plain.send_window_initial_packets;
                call.send_window_max_packets = plain.send_window_max_packets;
            },
            |call, plain| {
                call.receive_window_initial_packets = plain.receive_window_initial_packets;
                call.receive_window_max_packets = plain.receive_window_max_packets;
                call.receive_buffer_max_bytes = plain.receive_buffer_max_bytes;
            },
            |call, plain| {
                call.rto_initial = plain.rto_initial;
                call.rto_min = plain.rto_min;
                call.rto_max = plain.rto_max;
            },
            |call, plain| {
                call.delayed_ack = plain.delayed_ack;
                call.final_ack_delay = plain.final_ack_delay;
            },
            |call, plain| call.keepalive = plain.keepalive,
            |call, plain| {
                call.congestion_window_initial_packets = plain.congestion_window_initial_packets;
            },
        ];
        for simplify in plain {
            any |= self.attempt(|plan| {
                simplify(&mut plan.config.client.call, CallConfig::default());
                simplify(&mut plan.config.server.call, CallConfig::server());
            });
        }
        any
    }

    fn links(&mut self) -> bool {
        let simpler: [fn(&mut LinkOptions); 7] = [
            |link| *link = LinkOptions::default(),
            |link| link.jitter = Duration::ZERO,
            |link| link.duplicated = 0.0,
            |link| link.reordered = 0.0,
            |link| link.rate = None,
            |link| link.loss = Loss::None,
            |link| link.latency = Duration::from_millis(1),
        ];
        let mut any = false;
        for simplify in simpler {
            any |= self.attempt(|plan| simplify(&mut plan.link));
            any |= self.attempt(|plan| {
                for fault in &mut plan.faults {
                    if let FaultKind::Link(_, _, options) = &mut fault.what {
                        simplify(options);
                    }
                }
            });
        }
        any
    }

    fn calls(&mut self) -> bool {
        let simpler: [fn(&mut CallPlan); 12] = [
            |call| call.streamed = None,
            |call| call.exclusive = false,
            |call| call.think = Duration::ZERO,
            |call| call.pause_every = None,
            |call| call.deadline = None,
            |call| call.given_up_after = None,
            |call| call.answer = Answer::Reply,
            |call| call.reply_bytes = 0,
            |call| call.request_bytes = 4,
            |call| call.reply_bytes /= 2,
            |call| call.request_bytes = (call.request_bytes / 2).max(4),
            |call| call.at = half(call.at),
        ];
        let mut any = false;
        for simplify in simpler {
            // All at once is often enough.
            any |= self.attempt(|plan| plan.calls.iter_mut().for_each(simplify));
            for index in 0..self.small.calls.len() {
                while self.attempt(|plan| simplify(&mut plan.calls[index])) {
                    any = true;
                }
            }
        }
        any
    }

    fn times(&mut self) -> bool {
        let mut any = false;
        while self.attempt(|plan| {
            plan.faults_end = half(plan.faults_end);
            plan.faults.iter_mut().for_each(|fault| fault.at = fault.at.min(plan.faults_end));
            plan.hostile.iter_mut().for_each(|harm| harm.at = harm.at.min(plan.faults_end));
        }) {
            any = true;
        }
        any
    }

    /// From losses by chance to losses by name, and of these to the fewest.
    fn losses(&mut self) -> bool {
        let mut any = false;
        if self.small.lost.is_none() {
            let lost = lost(&self.small);
            any |= self.attempt(|plan| {
                plan.link.loss = Loss::None;
                for fault in &mut plan.faults {
                    if let FaultKind::Link(_, _, options) = &mut fault.what {
                        options.loss = Loss::None;
                    }
                }
                plan.lost = Some(lost);
            });
        }
        if self.small.lost.is_some() {
            any |= self.leave_out(|plan| plan.lost.get_or_insert_default());
        }
        any
    }
}

/// Half of it, in whole milliseconds: time in a world has no smaller steps.
fn half(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64 / 2)
}

/// What links lose when the plan is played.
fn lost(plan: &Plan) -> Vec<Nth> {
    let host = |at| plan.hosts().find(|host| plan.address(*host) == at);
    let played = play(plan, Wiring::Core, true);
    let lost: BTreeSet<Nth> = played
        .entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Sent { from, to, number, fate: Fate::Lost, .. } => {
                Some((host(*from)?, host(*to)?, *number))
            }
            _ => None,
        })
        .collect();
    lost.into_iter().collect()
}

/// Only so many clients and servers are left; others' calls and faults go to the last of them.
fn move_hosts(plan: &mut Plan, clients: usize, servers: usize) {
    let before = plan.clients;
    let (clients, servers) = (clients.min(before), servers.min(plan.servers));
    let moved = |host: HostIndex| {
        if host < before {
            host.min(clients - 1)
        } else {
            clients + (host - before).min(servers - 1)
        }
    };
    (plan.clients, plan.servers) = (clients, servers);
    for call in &mut plan.calls {
        (call.client, call.server) = (moved(call.client), moved(call.server));
    }
    for hostile in &mut plan.hostile {
        (hostile.from, hostile.to) = (moved(hostile.from), moved(hostile.to));
    }
    for fault in &mut plan.faults {
        match &mut fault.what {
            FaultKind::Link(from, to, _)
            | FaultKind::Part(from, to)
            | FaultKind::Join(from, to)
            | FaultKind::Clog(from, to)
            | FaultKind::Unclog(from, to) => (*from, *to) = (moved(*from), moved(*to)),
            FaultKind::Crash(host) | FaultKind::Restart(host) => *host = moved(*host),
        }
    }
    if let Some(lost) = &mut plan.lost {
        lost.iter_mut().for_each(|(from, to, _)| (*from, *to) = (moved(*from), moved(*to)));
    }
}
