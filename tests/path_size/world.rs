//! Two endpoints of the bare core, and the path between them.

use std::collections::{HashMap, VecDeque};
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

pub const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 7001);
pub const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 7009);
const LATENCY: Duration = Duration::from_millis(2);

/// A client that sends a request, and a server that reads it and answers with a byte.
pub struct World {
    pub now: Instant,
    /// The client first.
    pub ends: [InlineEndpoint; 2],
    flying: VecDeque<(Instant, usize, Vec<u8>)>,
    pub mtu: usize,
    pub reports: bool,
    /// Of DATA datagrams, one in so many is lost; 0 = none.
    pub lost_every: usize,
    data_sent: usize,
    requests: HashMap<CallRef, Vec<u8>>,
    replied: Vec<Vec<u8>>,
    is_answered: bool,
    /// Sizes of the client's datagrams that could not be fragmented, without those lost.
    pub passed: Vec<usize>,
    pub too_big: usize,
    /// Sizes of PINGs above that of an ordinary one.
    pub probed: Vec<usize>,
    /// First seq and packets of the client's DATA datagrams.
    pub data: Vec<(u32, usize)>,
    /// Serials of these PINGs.
    pub probe_serials: Vec<u32>,
    /// The server's last ACK.
    pub last_ack: Vec<u8>,
    /// What the server's ACKs say that it takes, if that is not what they say.
    pub said: Option<u32>,
    /// Sizes of the client's DATA datagrams.
    pub data_sizes: Vec<usize>,
    /// The server reads nothing of a request beyond so many bytes, until it is `usize::MAX`.
    pub reads_max: usize,
    unread: Vec<(CallRef, u32, usize)>,
    /// Most bytes that the server ever held.
    pub held_max: usize,
}

impl World {
    pub fn new(mtu: usize, reports: bool, adjust: impl Fn(&mut EndpointConfig)) -> World {
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
            probe_serials: Vec::new(),
            last_ack: Vec::new(),
            said: None,
            data_sizes: Vec::new(),
            reads_max: usize::MAX,
            unread: Vec::new(),
            held_max: 0,
        }
    }

    /// One call with a request of `len` bytes; returns how long it took.
    pub fn call(&mut self, len: usize) -> Duration {
        self.call_with(len, |_| {})
    }

    pub fn call_with(&mut self, len: usize, mut each_ms: impl FnMut(&mut World)) -> Duration {
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

    pub fn pass(&mut self, time: Duration) {
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
            let held = self.ends[1].channels().map(|channel| channel.buffered_bytes()).sum();
            self.held_max = self.held_max.max(held);
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
        let SentDatagram { to, mut datagram, may_fragment } = sent;
        let header = Header::decode(&datagram).unwrap();
        if from == 0 {
            self.note(&header, &datagram);
        } else if header.packet_type == PacketType::Ack {
            let table_len = usize::from(datagram[28 + 17]);
            if let Some(said) = self.said {
                let word = 28 + 18 + table_len + 3;
                datagram[word..word + 4].copy_from_slice(&said.to_be_bytes());
            }
            self.last_ack.clone_from(&datagram);
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
                self.data_sizes.push(datagram.len());
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
                self.probe_serials.push(header.serial.0);
            }
            _ => {}
        }
    }

    fn act(&mut self, at: usize, call: CallRef, notice: Notice) {
        match notice {
            Notice::Data(pieces) => {
                let bytes = pieces.iter().map(Bytes::len).sum();
                let packets = pieces.len() as u32;
                if at == 1 {
                    let request = self.requests.entry(call).or_default();
                    pieces.iter().for_each(|piece| request.extend_from_slice(piece));
                    if request.len() > self.reads_max {
                        return self.unread.push((call, packets, bytes));
                    }
                }
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

    /// The server reads what it has left.
    pub fn read(&mut self) {
        self.reads_max = usize::MAX;
        for (call, packets, bytes) in std::mem::take(&mut self.unread) {
            self.ends[1].command(self.now, call, Command::Consumed { packets, bytes });
        }
    }

    /// Largest datagram that the client believes in.
    pub fn datagram_max(&self) -> u16 {
        let to = SocketAddr::from(SERVER);
        let summaries = self.ends[0].router().peer_summaries();
        summaries.iter().find(|peer| peer.address == to).map_or(0, |peer| peer.datagram_max)
    }
}
