//! Whole calls between two endpoints of the bare core, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::Role;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{Cid, Epoch, ServiceId};

struct World {
    now: Instant,
    client: InlineEndpoint,
    server: InlineEndpoint,
    requests: std::collections::HashMap<CallRef, Vec<u8>>,
    replies: Vec<Vec<u8>>,
    reply: Vec<u8>,
    datagrams: usize,
}

const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 7001);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 7009);

impl World {
    fn new() -> World {
        let now = Instant::now();
        let identity = |seed: u32| Identity {
            epoch: Epoch::from_random(seed),
            first_cid: Cid(4),
            hash_seed: 1,
        };
        let mut server = InlineEndpoint::new(EndpointConfig::default(), identity(2), now);
        server.offer(
            ServiceId(1),
            Offer { classes: vec![Arc::new(RxNull)], needs_reach: true, upgrades_to: None },
        );
        World {
            now,
            client: InlineEndpoint::new(EndpointConfig::default(), identity(1), now),
            server,
            requests: Default::default(),
            replies: Vec::new(),
            reply: Vec::new(),
            datagrams: 0,
        }
    }

    fn step(&mut self) -> bool {
        let mut moved = false;
        for (to, datagram) in self.client.take_sent() {
            assert_eq!(to, SocketAddr::from(SERVER));
            self.datagrams += 1;
            self.server.receive(self.now, CLIENT.into(), &datagram);
            moved = true;
        }
        for (_, datagram) in self.server.take_sent() {
            self.datagrams += 1;
            self.client.receive(self.now, SERVER.into(), &datagram);
            moved = true;
        }
        for (call, notice) in self.server.take_notices() {
            moved = true;
            match notice {
                Notice::Data(pieces) => {
                    let bytes = pieces.iter().map(Bytes::len).sum();
                    let request = self.requests.entry(call).or_default();
                    pieces.iter().for_each(|piece| request.extend_from_slice(piece));
                    let packets = pieces.len() as u32;
                    self.server.command(self.now, call, Command::Consumed { packets, bytes });
                }
                Notice::End => {
                    let mut bytes = self.requests.remove(&call).unwrap_or_default();
                    bytes.extend_from_slice(&self.reply);
                    let bytes = Bytes::from(bytes);
                    let write = Command::Write { bytes, ends: true, flushes: false };
                    self.server.command(self.now, call, write);
                }
                _ => {}
            }
        }
        for (call, notice) in self.client.take_notices() {
            moved = true;
            match notice {
                Notice::Data(pieces) => {
                    let bytes = pieces.iter().map(Bytes::len).sum();
                    let reply = self.replies.last_mut().unwrap();
                    pieces.iter().for_each(|piece| reply.extend_from_slice(piece));
                    let packets = pieces.len() as u32;
                    self.client.command(self.now, call, Command::Consumed { packets, bytes });
                }
                Notice::End => self.client.command(self.now, call, Command::End),
                Notice::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        moved
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = [self.client.next_deadline(), self.server.next_deadline()];
            let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.client.advance(self.now);
            self.server.advance(self.now);
        }
        self.now = end;
    }
}

#[test]
fn requests_of_every_size_come_back() {
    let mut world = World::new();
    let class = RxNull;
    let route = world.client.connect(world.now, SERVER.into(), ServiceId(1), &class, false);
    for size in [0, 1, 1411, 1412, 1413, 65_536, 1_000_000] {
        let request: Vec<u8> = (0..size).map(|index| (index * 31 % 251) as u8).collect();
        world.replies.push(Vec::new());
        let start =
            Start { request: Bytes::from(request.clone()), is_whole: true, ..Start::default() };
        world.client.start(world.now, route, start);
        let began = world.now;
        world.settle();
        assert_eq!(world.now, began, "no timer was needed");
        assert!(world.replies.last() == Some(&request), "{size} bytes");
    }
    world.pass(Duration::from_millis(100));
    let counters = world.server.counters();
    assert_eq!((counters.calls_good, counters.calls_failed, counters.resent), (7, 0, 0));
    assert_eq!(world.client.counters().client_calls, 7);
    assert_eq!(world.client.counters().resent, 0);
    let _ = Role::Client;
}

#[test]
fn idle_connections_end_and_leave_nothing() {
    let mut world = World::new();
    let route = world.client.connect(world.now, SERVER.into(), ServiceId(1), &RxNull, false);
    world.replies.push(Vec::new());
    world.client.start(world.now, route, Start { is_whole: true, ..Start::default() });
    world.pass(Duration::from_secs(119));
    assert_eq!((world.client.routes().len(), world.server.routes().len()), (1, 1));
    world.pass(Duration::from_secs(2));
    assert_eq!((world.client.routes().len(), world.server.routes().len()), (0, 1));
    world.pass(Duration::from_secs(480));
    assert_eq!(world.server.routes().len(), 0);
    world.pass(Duration::from_secs(200));
    assert_eq!(world.server.next_deadline(), None);
}
