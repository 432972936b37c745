//! Sizes of datagrams between two endpoints of the bare core, over links that take no more than so much
//! (rx-flow.md 9.3): reported or in silence, from the beginning or from some time on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint, SentDatagram};
use rxrpc::wire::{
    Ack, Cid, Epoch, Flags, Header, PacketType, ServiceId, check_jumbo, sub_packets,
};

const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 7001);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 7009);
const LATENCY: Duration = Duration::from_millis(2);

/// A client that sends a request, and a server that reads it and answers with a byte.
struct World {
    now: Instant,
    /// The client first.
    ends: [InlineEndpoint; 2],
    flying: VecDeque<(Instant, usize, Vec<u8>)>,
    mtu: usize,
    reports: bool,
    /// Of DATA datagrams, one in so many is lost; 0 = none.
    lost_every: usize,
    data_sent: usize,
    requests: HashMap<CallRef, Vec<u8>>,
    replied: Vec<Vec<u8>>,
    is_answered: bool,
    /// Sizes of the client's datagrams that could not be fragmented, without those lost.
    passed: Vec<usize>,
    too_big: usize,
    /// Sizes of PINGs above that of an ordinary one.
    probed: Vec<usize>,
    /// First seq and packets of the client's DATA datagrams.
    data: Vec<(u32, usize)>,
}

impl World {
    fn new(mtu: usize, reports: bool, adjust: impl Fn(&mut EndpointConfig)) -> World {
        let now = Instant::now();
        let mut config = EndpointConfig::default();
        adjust(&mut config);
        let end = |seed: u32| {
            let epoch = Epoch::from_random(seed);
            let identity = Identity { epoch, first_cid: Cid(4), hash_seed: 1 };
            InlineEndpoint::new(config.clone(), identity, now)
        };
        let mut ends = [end(1), end(2)];
        let classes: Vec<Arc<dyn rxrpc::security::ServerClass>> = vec![Arc::new(RxNull)];
        ends[1].offer(ServiceId(1), Offer { classes, needs_reach: false, upgrades_to: None });
        World {
            now,
            ends,
            flying: VecDeque::new(),
            mtu,
            reports,
            lost_every: 0,
            data_sent: 0,
            requests: HashMap::new(),
            replied: Vec::new(),
            is_answered: false,
            passed: Vec::new(),
            too_big: 0,
            probed: Vec::new(),
            data: Vec::new(),
        }
    }

    /// One call with a request of `len` bytes; returns how long it took.
    fn call(&mut self, len: usize) -> Duration {
        self.call_with(len, |_| {})
    }

    fn call_with(&mut self, len: usize, mut each_ms: impl FnMut(&mut World)) -> Duration {
        let request: Vec<u8> = (0..len).map(|index| (index * 31 % 251) as u8).collect();
        let route = match self.ends[0].routes().first() {
            Some(route) => *route,
            None => self.ends[0].connect(self.now, SERVER.into(), ServiceId(1), &RxNull, false),
        };
        let bytes = Bytes::from(request.clone());
        let start = Start { request: bytes, is_whole: true, ..Start::default() };
        let began = self.now;
        self.is_answered = false;
        self.ends[0].start(self.now, route, start);
        while !self.is_answered {
            self.pass(Duration::from_millis(1));
            each_ms(self);
            assert!(self.now < began + Duration::from_secs(120), "the call stalls");
        }
        assert!(self.replied.pop() == Some(request), "the request arrived as it was");
        self.now - began
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while self.step() {}
            let next = self.ends.iter().filter_map(InlineEndpoint::next_deadline).min();
            let arrival = self.flying.front().map(|(at, ..)| *at);
            let Some(next) = next.into_iter().chain(arrival).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while self.flying.front().is_some_and(|(at, ..)| *at <= self.now) {
                let Some((_, to, datagram)) = self.flying.pop_front() else { break };
                let from = if to == 1 { CLIENT } else { SERVER };
                self.ends[to].receive(self.now, from.into(), &datagram);
            }
            for end in &mut self.ends {
                end.advance(self.now);
            }
        }
        self.now = end;
    }

    fn step(&mut self) -> bool {
        let mut moved = false;
        for from in 0..2 {
            for sent in self.ends[from].take_sent_datagrams() {
                moved = true;
                self.send(from, sent);
            }
            for (call, notice) in self.ends[from].take_notices() {
                moved = true;
                self.act(from, call, notice);
            }
        }
        moved
    }

    fn send(&mut self, from: usize, sent: SentDatagram) {
        let SentDatagram { to, datagram, may_fragment } = sent;
        let header = Header::decode(&datagram).unwrap();
        if from == 0 {
            self.note(&header, &datagram);
        }
        if datagram.len() > self.mtu && !may_fragment {
            self.too_big += 1;
            if self.reports {
                self.ends[from].path_size(self.now, to, self.mtu);
            }
            return;
        }
        if from == 0 && !may_fragment {
            self.passed.push(datagram.len());
        }
        if header.packet_type == PacketType::Data {
            self.data_sent += 1;
            if self.lost_every > 0 && self.data_sent.is_multiple_of(self.lost_every) {
                return;
            }
        }
        self.flying.push_back((self.now + LATENCY, 1 - from, datagram));
    }

    fn note(&mut self, header: &Header, datagram: &[u8]) {
        match header.packet_type {
            PacketType::Data => {
                let packets = check_jumbo(header, datagram).unwrap();
                self.data.push((header.seq.0, packets));
                let mut walk = sub_packets(*header, datagram.len());
                while let Some(packet) = walk.next_in(datagram) {
                    let is_followed = packet.header.flags.has(Flags::JUMBO_PACKET);
                    assert!(!is_followed || packet.payload.len() == 1412);
                }
            }
            PacketType::Ack if datagram.len() > 400 => {
                let ack = Ack::decode(&datagram[28..]).unwrap();
                assert!(ack.excess.iter().all(|byte| *byte == 0), "padded with zeros");
                self.probed.push(datagram.len());
            }
            _ => {}
        }
    }

    fn act(&mut self, at: usize, call: CallRef, notice: Notice) {
        match notice {
            Notice::Data(pieces) => {
                let bytes = pieces.iter().map(Bytes::len).sum();
                if at == 1 {
                    let request = self.requests.entry(call).or_default();
                    pieces.iter().for_each(|piece| request.extend_from_slice(piece));
                }
                let packets = pieces.len() as u32;
                self.ends[at].command(self.now, call, Command::Consumed { packets, bytes });
            }
            Notice::End if at == 1 => {
                self.replied.push(self.requests.remove(&call).unwrap_or_default());
                let bytes = Bytes::from_static(b"!");
                let write = Command::Write { bytes, ends: true, flushes: false };
                self.ends[1].command(self.now, call, write);
            }
            Notice::End => {
                self.is_answered = true;
                self.ends[0].command(self.now, call, Command::End);
            }
            Notice::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }

    /// Largest datagram that the client believes in.
    fn datagram_max(&self) -> u16 {
        let to = SocketAddr::from(SERVER);
        let summaries = self.ends[0].router().peer_summaries();
        summaries.iter().find(|peer| peer.address == to).map_or(0, |peer| peer.datagram_max)
    }
}

/// Jumbograms of up to `packets` packets, both ways.
fn jumbograms(packets: u32) -> impl Fn(&mut EndpointConfig) {
    move |config| {
        for call in [&mut config.client.call, &mut config.server.call] {
            call.jumbo_receive_packets = packets;
            call.jumbo_send_packets = packets;
        }
    }
}

#[test]
fn a_path_that_says_too_big_costs_no_timer() {
    let mut world = World::new(1252, true, |_| {});
    let took = world.call(200_000);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.datagram_max(), 1252);
    let counters = world.ends[0].counters();
    assert_eq!(counters.resent_by_timer, 0);
    assert_eq!((world.too_big, counters.resent), (10, 10), "the first burst, once");
    world.call(200_000);
    assert_eq!(world.too_big, 10, "the next call knows");
}

#[test]
fn a_black_hole_is_noticed_and_the_next_call_knows() {
    let mut world = World::new(1252, false, |config| config.client.call.jumbo_send_packets = 2);
    let took = world.call(200_000);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(world.datagram_max(), 1200);
    let lost = world.too_big;
    let took = world.call(200_000);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.too_big, lost);
}

#[test]
fn a_black_hole_is_noticed_by_a_call_of_one_packet() {
    let mut world = World::new(1252, false, |config| config.client.call.jumbo_send_packets = 2);
    world.call(1412);
    world.call(1412);
    assert_eq!(world.datagram_max(), 1200);
    let lost = world.too_big;
    let took = world.call(1412);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.too_big, lost);
}

#[test]
fn an_ordinary_loss_makes_no_datagram_smaller() {
    let mut world = World::new(1440, false, |config| config.client.call.jumbo_send_packets = 2);
    world.lost_every = 7;
    world.call(300_000);
    assert_eq!((world.datagram_max(), world.too_big), (1440, 0));
}

#[test]
fn no_datagram_is_above_the_usual_size_unless_asked_for() {
    let mut world = World::new(65_000, false, |config| {
        config.server.call.jumbo_receive_packets = 6;
    });
    world.call(1_000_000);
    assert_eq!((world.passed.iter().max(), world.probed.len()), (Some(&1440), 0));
}

#[test]
fn jumbograms_are_sent_where_peer_and_path_take_them() {
    let mut world = World::new(65_000, false, jumbograms(4));
    world.call(1_000_000);
    assert_eq!(world.probed, [5688], "one padded PING proves it");
    assert_eq!(world.data.iter().map(|(_, packets)| *packets).max(), Some(4));
    let in_jumbograms: usize =
        world.data.iter().map(|(_, packets)| *packets).filter(|packets| *packets == 4).sum();
    assert!(in_jumbograms > 500, "{in_jumbograms} of 709");
    assert_eq!(world.ends[0].counters().resent, 0);
}

#[test]
fn a_peer_that_takes_no_jumbograms_gets_none_and_is_not_probed() {
    let mut world = World::new(65_000, false, |config| {
        config.client.call.jumbo_send_packets = 6;
    });
    world.call(1_000_000);
    assert_eq!((world.passed.iter().max(), world.probed.len()), (Some(&1440), 0));
}

#[test]
fn the_path_decides_how_many_packets_a_jumbogram_has() {
    // In silence each size is tried three times; a report settles it at once.
    for (mtu, reports, packets) in
        [(4272, false, 3), (2900, true, 2), (2900, false, 2), (1472, true, 1), (1472, false, 1)]
    {
        // A small window makes calls last long enough for three probes.
        let mut world = World::new(mtu, reports, |config| {
            jumbograms(4)(config);
            config.server.call.receive_window_max_packets = 32;
        });
        for _ in 0..4 {
            world.call(3_000_000);
        }
        let most = world.data.iter().map(|(_, packets)| *packets).max();
        assert_eq!(most, Some(packets), "{mtu} {reports}");
        assert!(world.probed.len() <= 10, "{mtu} {reports}: {:?}", world.probed);
        assert_eq!(world.ends[0].counters().resent, 0, "{mtu} {reports}: only PINGs are lost");
    }
}

#[test]
fn a_path_that_takes_less_in_mid_call_loses_no_call() {
    for reports in [true, false] {
        let mut world = World::new(9000, reports, jumbograms(4));
        let mut left = 20;
        let took = world.call_with(3_000_000, |world| {
            left -= 1;
            if left == 0 {
                assert_eq!(world.datagram_max(), 5688);
                world.mtu = 1472;
            }
        });
        assert!(took < Duration::from_secs(10), "{took:?}");
        let expected = if reports { 1472 } else { 1440 };
        // Recovery may be over before the three padded PINGs of a verdict are.
        for _ in 0..4 {
            if world.datagram_max() != expected {
                world.call(1_000_000);
            }
        }
        assert_eq!(world.datagram_max(), expected, "reported: {reports}");
        let lost = world.too_big;
        world.call(1_000_000);
        assert_eq!(world.too_big, lost);
    }
}

#[test]
fn packets_go_again_singly() {
    let mut world = World::new(9000, false, jumbograms(6));
    world.lost_every = 11;
    for _ in 0..5 {
        world.call(500_000);
    }
    let mut calls = 0;
    let mut seen = HashSet::new();
    for (seq, packets) in &world.data {
        if *seq == 1 && *packets >= 1 && seen.len() > 300 {
            calls += 1;
            seen.clear();
        }
        let again = (0..*packets as u32).any(|behind| !seen.insert(seq + behind));
        assert!(!again || *packets == 1, "{packets} packets from {seq}");
    }
    assert!(calls >= 4 && world.data.iter().any(|(_, packets)| *packets > 1));
}

#[test]
fn what_did_not_pass_is_tried_again_after_ten_minutes() {
    let mut world = World::new(1252, true, |config| {
        config.client.client_idle = Duration::from_secs(3600);
        config.server.server_idle = Duration::from_secs(3600);
    });
    world.call(200_000);
    world.mtu = 1500;
    world.pass(Duration::from_secs(590));
    world.call(200_000);
    assert_eq!((world.datagram_max(), world.probed.len()), (1252, 0));
    world.pass(Duration::from_secs(20));
    world.call(200_000);
    assert_eq!((world.datagram_max(), &world.probed[..]), (1440, &[1440][..]));
}
