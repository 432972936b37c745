//! Any packets in any order, with applications that do anything: the rules that hold for every packet of
//! ours hold (the harness checks them), nothing storms, nothing is forgotten by its timers, and T still
//! answers.

use rxrpc::proto::channel::exploring::Timer;
use rxrpc::proto::channel::{Command, Start};
use rxrpc::wire::{AbortCode, ChannelIndex, Header, PacketType};

use crate::support::{App, Scenario, client_with, ms, server_with};

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32 % limit
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }
}

/// P's packets: well formed, and sensible often enough that calls get somewhere.
struct Script {
    dice: Dice,
    from_client: bool,
    /// Highest seq of T's DATA by channel, in the call it belongs to.
    tops: [(u32, u32); 2],
}

impl Script {
    fn packet(&mut self, channel: usize, number: u32) -> String {
        let dice = &mut self.dice;
        let side = if self.from_client { "C" } else { "" };
        match dice.below(40) {
            0..=17 => {
                // Every fourth call is a long one.
                let seq = if number.is_multiple_of(4) {
                    dice.of(&[1, 2, 3, 4, 5, 6, 20, 32, 33, 300])
                } else {
                    1 + dice.below(7)
                };
                // The last packet is the seventh, but for a few mistakes.
                let is_last = (seq == 7) != (dice.below(400) == 0);
                let last = if is_last { "L" } else { "" };
                let asks = dice.of(&["", "", "R"]);
                let len = dice.of(&[0, 1, 1412, 1416]);
                format!("D n{number} q{seq} [{side}{asks}{last}] ch{channel} len{len}")
            }
            18 | 19 => format!("D n{number} q6 [{side}J] ch{channel} len1412 + [{side}L] len7"),
            20..=35 => {
                let top = if self.tops[channel].0 == number { self.tops[channel].1 } else { 0 };
                let first = 1 + dice.below(top + 1);
                let beyond = u32::from(dice.below(200) == 0);
                let table = dice.below(top + 2 - first + beyond).min(20);
                let entries: Vec<String> =
                    (0..table).map(|_| dice.of(&["0", "1", "1"]).to_owned()).collect();
                let reason = dice.below(11);
                let flags = dice.of(&["", "", "", "R"]);
                let window = dice.of(&[0, 1, 2, 4, 32, 32, 300]);
                let words = dice.of(&[4, 4, 4, 4, 0, 2, 3]);
                let (sacks, serial) = (entries.join(","), dice.below(30));
                format!(
                    "A n{number} f{first} r{reason} s{serial} [{side}{flags}] a[{sacks}] \
                     w{window} words{words} ch{channel}"
                )
            }
            36 => format!("ACKALL n{number} ch{channel} [{side}]"),
            37 if dice.below(3) == 0 => format!("ABORT n{number} -6 ch{channel} [{side}]"),
            _ => format!("BUSY n{number} ch{channel} [{side}]"),
        }
    }

    fn note_left(&mut self, left: &[(std::net::SocketAddr, Vec<u8>)]) {
        for (_, datagram) in left {
            let Some(header) = Header::decode(datagram) else { continue };
            let Some(top) = self.tops.get_mut(header.cid.channel().index()) else { continue };
            if header.packet_type == PacketType::Data {
                let seq = if top.0 == header.call_number.0 { top.1 } else { 0 };
                *top = (header.call_number.0, seq.max(header.seq.0));
            }
        }
    }
}

fn storm(t: &mut Scenario, seed: u64, from_client: bool) {
    let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut script = Script { dice, from_client, tops: [(0, 0); 2] };
    let mut numbers = [1u32; 2];
    for _ in 0..400 {
        let dice = &mut script.dice;
        match dice.below(20) {
            0 => {
                let time = dice.of(&[1, 10, 100, 350, 1000, 1000, 4000, 21_000]);
                t.pass(ms(time));
            }
            1 => {
                t.app(dice.of(&[App::Echo, App::Manual, App::Reply(3), App::Reply(40)]));
            }
            2..=4 if !t.calls.is_empty() => {
                let recent = t.calls.len().saturating_sub(3);
                let at = recent + dice.below((t.calls.len() - recent) as u32) as usize;
                let bytes = vec![1; dice.of(&[0, 1, 1412, 20_000])].into();
                let command = match dice.below(20) {
                    0..=6 => Command::Write { bytes, ends: false, flushes: dice.below(2) == 0 },
                    7..=9 => Command::Write { bytes, ends: true, flushes: false },
                    10..=16 => Command::Consumed { packets: dice.below(40), bytes: 30_000 },
                    17 => Command::Discard,
                    18 => Command::End,
                    _ => Command::Abort(AbortCode(77)),
                };
                t.note("app", &format!("{command:?}"));
                t.t.command(t.now(), t.calls[at].at, command);
                t.pump();
            }
            5 | 6 if !from_client => {
                let request = vec![3; dice.of(&[0, 1, 1413, 9000])].into();
                let is_whole = dice.below(4) > 0;
                t.start_with(Start { request, is_whole, ..Start::default() });
            }
            _ => {
                let channel = dice.of(&[0, 0, 1]);
                if from_client {
                    numbers[channel] += u32::from(dice.below(25) == 0);
                } else {
                    let channel_of_t = t.t.channel(t.t.routes()[0], ChannelIndex::ALL[channel]);
                    numbers[channel] = channel_of_t.map_or(1, |of_t| of_t.call_number().0).max(1);
                }
                let number = match dice.below(20) {
                    0 => numbers[channel].saturating_sub(1).max(1),
                    1 if !from_client => numbers[channel] + 1,
                    _ => numbers[channel],
                };
                let line = script.packet(channel, number);
                t.send(&line);
            }
        }
        let left = t.take_left();
        // One packet may open a window; no answer of ours calls for another.
        if left.len() > 300 {
            t.fail(&format!("{} packets left in one step", left.len()));
        }
        script.note_left(&left);
        check_timers(t);
    }
}

/// What is in flight has its timer, and the endpoint knows of it.
fn check_timers(t: &Scenario) {
    for route in t.t.routes() {
        for index in ChannelIndex::ALL {
            let Some(channel) = t.t.channel(route, index) else { continue };
            if channel.in_flight_packets() > 0 && channel.timer(Timer::Retransmit).is_none() {
                t.fail(&format!("channel {index}: {:?} without a timer", channel.state()));
            }
            if let Some(at) = channel.next_deadline()
                && t.t.next_deadline().is_none_or(|all| all > at)
            {
                t.fail(&format!("channel {index}: its timer is not known to the endpoint"));
            }
        }
    }
}

#[test]
fn a_server_stands_a_storm_of_any_packets() {
    for seed in 0..60 {
        let mut t = server_with("storm", |config| {
            config.server.call.keepalive = seed % 2 == 0;
            config.server.call.takeover = seed % 3 > 0;
            config.server.call.receive_buffer_max_bytes =
                if seed % 5 == 0 { 3000 } else { 4 << 20 };
        });
        t.note("", &format!("seed {seed}"));
        storm(&mut t, seed + 1, true);
        t.done_elsewhere();
    }
}

#[test]
fn a_client_stands_a_storm_of_any_packets() {
    for seed in 0..60 {
        let mut t = client_with("storm", |config| {
            config.client.call.keepalive = seed % 2 == 0;
            config.client.call.receive_buffer_max_bytes =
                if seed % 5 == 0 { 3000 } else { 4 << 20 };
        });
        t.note("", &format!("seed {seed}"));
        storm(&mut t, seed + 1, false);
        t.done_elsewhere();
    }
}
