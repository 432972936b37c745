//! Anything in any order: packets that make sense and that do not, words of applications alive and gone,
//! timers, ICMP, broken channels. Nothing panics, no timer is lost or fires without end, memory is bounded,
//! and afterwards the endpoint still serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::NetworkProblem;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{
    AbortCode, Ack, AckReason, CallNumber, ChannelIndex, Cid, Epoch, Flags, FullTrailer, Header,
    PacketType, SecurityIndex, Seq, Serial, ServiceId, Trailer,
};

use crate::support::fake_class::INDEX;
use crate::support::{CID, EPOCH, FakeClass, PEER, ms};

const STEPS: u32 = 20_000;
/// A call may hold a window of the largest packets that were sent, and what its application was given.
const BUFFERED_MAX: usize = 4 << 20;

struct Monkey {
    state: u64,
    now: Instant,
    t: InlineEndpoint,
    clients: Vec<RouteId>,
    /// P's last serial, and T's next one on the connection that was aimed at last.
    serial: u32,
    next_serial: Serial,
    calls: Vec<CallRef>,
    class: FakeClass,
}

impl Monkey {
    fn new(seed: u64) -> Monkey {
        let now = Instant::now();
        let mut config = EndpointConfig {
            strict_address: seed.is_multiple_of(2),
            debug_responder: true,
            nat_ping: Some(ms(20_000)),
            connections_per_peer_max: 8,
            ..EndpointConfig::default()
        };
        config.server.call.takeover = !seed.is_multiple_of(3);
        config.client.call.receive_window_max_packets = 300;
        config.client.call.send_window_max_packets = 600;
        let identity = Identity { epoch: Epoch(EPOCH), first_cid: Cid(CID), hash_seed: 1 };
        let mut t = InlineEndpoint::new(config, identity, now);
        let class =
            FakeClass { is_slow: seed.is_multiple_of(5), seal_len: 4, ..FakeClass::default() };
        let classes: Offer = Offer {
            classes: vec![Arc::new(RxNull), Arc::new(class.clone())],
            needs_reach: seed.is_multiple_of(7),
            upgrades_to: Some(ServiceId(9052)),
        };
        t.offer(ServiceId(1), classes);
        let clients = vec![
            t.connect(now, PEER.into(), ServiceId(1), &RxNull, seed.is_multiple_of(2)),
            t.connect(now, PEER.into(), ServiceId(1), &class, false),
        ];
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Monkey {
            state,
            now,
            t,
            clients,
            serial: 0,
            next_serial: Serial(1),
            calls: Vec::new(),
            class,
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 32) % u64::from(below.max(1))) as u32
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.random(values.len() as u32) as usize]
    }

    /// Mostly small, sometimes at an edge.
    fn number(&mut self, below: u32) -> u32 {
        match self.random(40) {
            0 => self.one_of(&[0, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 1, 255, 256]),
            _ => self.random(below),
        }
    }

    fn datagram(&mut self) -> Vec<u8> {
        if self.random(50) == 0 {
            return (0..self.random(80)).map(|_| self.random(256) as u8).collect();
        }
        let packet_type = match self.random(20) {
            0..8 => 1,
            8..14 => 2,
            _ => self.random(15) as u8,
        };
        let mut flags = self.random(256) as u8 & if self.random(16) == 0 { 0xfe } else { 0x02 };
        if self.random(8) == 0 {
            flags |= Flags::LAST_PACKET.0;
        }
        flags |= u8::from(self.random(2) == 0);
        let control = matches!(packet_type, 6 | 7);
        let cid = CID + 4 * self.random(3);
        let mut header = Header {
            epoch: Epoch(EPOCH),
            cid: Cid(if control { cid } else { cid + self.random(4) }),
            call_number: CallNumber(if control { 0 } else { self.number(12) }),
            seq: Seq(if packet_type == 1 { self.number(40) } else { 0 }),
            serial: Serial(self.number(200)),
            packet_type: PacketType::from_byte(packet_type),
            flags: Flags(flags),
            user_status: self.random(2) as u8,
            security_index: self.one_of(&[SecurityIndex::NULL, INDEX]),
            cksum: 0,
            service_id: ServiceId(self.one_of(&[1, 1, 1, 0, 9052, 999])),
        };
        let routes = self.t.routes();
        let mut aimed = false;
        if self.random(4) != 0 && !routes.is_empty() {
            let route = self.one_of(&routes);
            aimed = self.aim(route, &mut header);
        }
        let mut datagram = header.encode().to_vec();
        match packet_type {
            2 => self.ack(&mut datagram, aimed),
            7 => datagram.extend(self.one_of::<&[u8]>(&[b"me", b"me", b"you"])),
            8 | 13 => datagram.extend(vec![0; self.random(9) as usize]),
            _ => {
                let len = self.one_of(&[0, 3, 4, 5, 100, 1412, 1416, 1430]);
                datagram.extend(vec![0; len]);
            }
        }
        if self.random(50) == 0 {
            datagram.truncate(self.random(datagram.len() as u32 + 1) as usize);
        }
        datagram
    }

    /// Makes a packet one that could be meant for a connection: what is random in it stays near.
    fn aim(&mut self, route: RouteId, header: &mut Header) -> bool {
        let Some(ids) = self.t.ids(route) else { return false };
        let from_client = Flags::CLIENT_INITIATED;
        header.flags = header.flags.without(from_client);
        header.flags = header.flags.with_if(!self.clients.contains(&route), from_client);
        (header.epoch, header.security_index) = (ids.epoch, ids.security_index);
        (header.service_id, header.cid) = (ids.service_id, ids.cid);
        self.next_serial = self.t.next_serial(route).unwrap_or(Serial(1));
        self.serial += 1;
        header.serial = Serial(self.serial);
        if !header.call_number.is_none() {
            let index = self.one_of(&ChannelIndex::ALL);
            header.cid = ids.cid.with_channel(index);
            let current = self.t.channel(route, index).map_or(0, |it| it.call_number().0);
            let number = current.wrapping_add(self.one_of(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]));
            header.call_number = CallNumber(number.saturating_sub(self.random(10) / 9));
        }
        if header.packet_type == PacketType::Data {
            header.seq = Seq(1 + self.one_of(&[0, 0, 1, 1, 2, 3, 4, 5, 33, 40]));
        }
        true
    }

    fn ack(&mut self, datagram: &mut Vec<u8>, aimed: bool) {
        let len = if aimed { self.random(6) } else { self.number(20).min(255) };
        let sacks: Vec<u8> = (0..len).map(|_| self.random(2) as u8).collect();
        let (max_mtu, if_mtu) = (self.number(3000), self.number(3000));
        let rwind = self.number(300);
        let trailer = match self.random(8) {
            0 => Trailer::None,
            1 => Trailer::Sizes { max_mtu, if_mtu },
            2 => Trailer::Window { max_mtu, if_mtu, rwind },
            _ => {
                let jumbo_max = self.number(8);
                Trailer::Full(FullTrailer { max_mtu, if_mtu, rwind, jumbo_max })
            }
        };
        let ack = Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: Seq(if aimed { 1 + self.random(5) } else { self.number(30) }),
            previous_packet: Seq(self.number(30)),
            serial: if aimed {
                self.next_serial.minus(self.random(8))
            } else {
                Serial(self.number(200))
            },
            reason: AckReason::from_byte(self.random(11) as u8),
            sacks: &sacks,
            padding: [0; 3],
            trailer,
            excess: &[],
        };
        ack.encode(datagram);
    }

    fn command(&mut self) {
        let at = self.random(self.calls.len() as u32) as usize;
        let Some(call) = self.calls.get(at).copied() else { return };
        let command = match self.random(12) {
            0..5 => Command::Write {
                bytes: Bytes::from(vec![1; self.number(20_000).min(200_000) as usize]),
                ends: self.random(4) == 0,
                flushes: self.random(2) == 0,
            },
            5..9 => {
                Command::Consumed { packets: self.number(20), bytes: self.number(30_000) as usize }
            }
            9 => Command::Discard,
            10 => Command::End,
            _ => Command::Abort(AbortCode(self.random(3) as i32 - 6)),
        };
        self.t.command(self.now, call, command);
    }

    fn step(&mut self) {
        let from = (self.one_of(&[PEER.0, [10, 0, 0, 9]]), self.one_of(&[7001, 7001, 7001, 7002]));
        let routes = self.t.routes();
        match self.random(100) {
            0..45 => {
                let datagram = self.datagram();
                self.t.receive(self.now, from.into(), &datagram);
            }
            45..55 => {
                let first = self.datagram();
                let mut data = first.clone();
                for _ in 0..self.random(6) {
                    let mut next = self.datagram();
                    next.resize(first.len(), 0);
                    data.extend(next);
                }
                self.t.receive_batch(self.now, from.into(), Bytes::from(data), first.len());
            }
            55..75 => self.command(),
            75..80 => {
                let start = Start {
                    request: Bytes::from(vec![2; self.random(5000) as usize]),
                    is_whole: self.random(2) == 0,
                    deadline: (self.random(4) == 0).then(|| ms(u64::from(self.random(5000)))),
                    ..Start::default()
                };
                let at = self.random(self.clients.len() as u32) as usize;
                self.t.start(self.now, self.clients[at], start);
            }
            80..95 => {
                let time = self.one_of(&[0, 1, 10, 100, 1000, 5000]);
                let time = self.random(time + 1);
                self.now += ms(u64::from(time));
                self.t.advance(self.now);
                assert!(self.t.next_deadline().is_none_or(|at| at > self.now), "a timer spins");
            }
            95 => self.t.finish_verifications(self.now),
            96 => {
                let problem = NetworkProblem::PortUnreachable;
                self.t.network_problem(self.now, from.into(), problem);
            }
            97 => {
                let size = self.number(2000) as usize;
                self.t.path_size(self.now, from.into(), size);
            }
            98 if !routes.is_empty() => {
                let (route, index) = (self.one_of(&routes), self.one_of(&ChannelIndex::ALL));
                self.t.break_channel(self.now, route, index);
            }
            99 if self.random(20) == 0 && !routes.is_empty() => {
                let route = self.one_of(&routes);
                self.t.close_connection(self.now, route);
                let class = self.class.clone();
                let to = PEER.into();
                self.clients = vec![
                    self.t.connect(self.now, to, ServiceId(1), &RxNull, false),
                    self.t.connect(self.now, to, ServiceId(1), &class, false),
                ];
            }
            _ => {}
        }
        for (call, notice) in self.t.take_notices() {
            if matches!(notice, Notice::Incoming(_) | Notice::Started(_)) {
                self.calls.push(call);
            }
        }
        self.calls.extend(self.t.take_started().into_iter().map(|(_, call)| call));
        if self.calls.len() > 64 {
            self.calls.drain(..32);
        }
        self.t.take_sent();
        self.t.take_events();
        self.t.take_refused();
        self.t.take_returned();
        self.class.take_record();
    }

    fn check(&self) {
        for route in self.t.routes() {
            for index in ChannelIndex::ALL {
                let held = self.t.channel(route, index).map_or(0, |it| it.buffered_bytes());
                assert!(held <= BUFFERED_MAX, "{held} bytes buffered");
            }
        }
    }
}

#[test]
fn anything_in_any_order_leaves_a_working_endpoint() {
    for seed in 1..=8 {
        let mut monkey = Monkey::new(seed);
        for _ in 0..STEPS {
            monkey.step();
            monkey.check();
        }
        // What runs comes to an end, and then nothing is left that could wake it.
        for call in std::mem::take(&mut monkey.calls) {
            monkey.t.command(monkey.now, call, Command::End);
        }
        monkey.t.close(monkey.now);
        assert_eq!(monkey.t.routes(), []);
        monkey.now += Duration::from_secs(1000);
        monkey.t.advance(monkey.now);
        assert_eq!(monkey.t.next_deadline(), None, "seed {seed}");
        assert_eq!(monkey.t.router().peer_summaries(), []);
    }
}
