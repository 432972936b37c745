//! A server and its clients in the bare core, without a network between them, in virtual time.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::CallFailure;
use rxrpc::proto::channel::{Command, Notice, Pieces, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::security::RxNull;
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{
    CallNumber, Cid, Epoch, Flags, Header, PacketType, SecurityIndex, Seq, Serial, ServiceId,
};

pub const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7000);
const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 2], 7001);

pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 3], port))
}

/// A server of service 1 and nothing else.
pub fn server(
    now: Instant,
    needs_reach: bool,
    adjust: impl FnOnce(&mut EndpointConfig),
) -> InlineEndpoint {
    let mut config = EndpointConfig::default();
    adjust(&mut config);
    let mut server = server_with(config, now);
    server.offer(ServiceId(1), offer(needs_reach));
    server
}

/// An endpoint without services.
pub fn server_with(config: EndpointConfig, now: Instant) -> InlineEndpoint {
    config.validate().unwrap();
    let mut server = InlineEndpoint::new(config, identity(2), now);
    server.keep_router_events();
    server
}

fn identity(seed: u32) -> Identity {
    Identity { epoch: Epoch::from_random(seed), first_cid: Cid(4), hash_seed: 1 }
}

pub fn offer(needs_reach: bool) -> Offer {
    Offer { classes: vec![Arc::new(RxNull)], needs_reach, upgrades_to: None }
}

/// A DATA packet of call 1 of a client that somebody made up.
pub fn data(cid: u32, seq: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        epoch: Epoch(0x8f3a_21c4),
        cid: Cid(cid),
        call_number: CallNumber(1),
        seq: Seq(seq),
        serial: Serial(seq),
        packet_type: PacketType::Data,
        flags: flags.with(Flags::CLIENT_INITIATED),
        user_status: 0,
        security_index: SecurityIndex::NULL,
        cksum: 0,
        service_id: ServiceId(1),
    };
    [&header.encode()[..], payload].concat()
}

/// Bytes that the applications of an endpoint have not taken.
pub fn unread_bytes(endpoint: &InlineEndpoint) -> usize {
    endpoint.channels().map(|channel| channel.buffered_bytes()).sum()
}

/// What a server's application has of a call. The first byte of a request says what becomes of it: `h` is
/// not read until [`World::release`], `w` is answered by so many bytes as the next four say, all else is
/// echoed.
#[derive(Default)]
struct Served {
    request: Vec<u8>,
    unread: (u32, usize),
    ended: bool,
    /// What is left to write, and how much may be.
    reply_left: Option<usize>,
    credit: u64,
}

/// What a client's application has of a call.
#[derive(Default)]
struct Asked {
    id: u32,
    reads: bool,
    reply: Vec<u8>,
    unread: (u32, usize),
}

pub struct World {
    pub now: Instant,
    pub client: InlineEndpoint,
    pub server: InlineEndpoint,
    served: HashMap<CallRef, Served>,
    asked: HashMap<CallRef, Asked>,
    starting: BTreeMap<u64, Asked>,
    hoards: bool,
    /// How each call ended, by its id.
    pub ended: BTreeMap<u32, Result<Vec<u8>, CallFailure>>,
    /// Most bytes that the server's applications ever left unread.
    pub unread_max: usize,
}

impl World {
    pub fn new(adjust: impl FnOnce(&mut EndpointConfig)) -> World {
        let now = Instant::now();
        World {
            now,
            client: InlineEndpoint::new(EndpointConfig::default(), identity(1), now),
            server: server(now, true, adjust),
            served: HashMap::new(),
            asked: HashMap::new(),
            starting: BTreeMap::new(),
            hoards: true,
            ended: BTreeMap::new(),
            unread_max: 0,
        }
    }

    pub fn connect(&mut self) -> RouteId {
        self.client.connect(self.now, SERVER.into(), ServiceId(1), &RxNull, false)
    }

    /// A call whose reply is read, or not before [`World::read`].
    pub fn call(&mut self, route: RouteId, id: u32, request: Vec<u8>, reads: bool) {
        let start = Start { request: Bytes::from(request), is_whole: true, ..Start::default() };
        let token = self.client.start(self.now, route, start);
        self.starting.insert(token.0, Asked { id, reads, ..Asked::default() });
        self.settle();
    }

    /// Whether call `id` ended well, with this reply.
    pub fn is_answered(&self, id: u32, reply: &[u8]) -> bool {
        matches!(self.ended.get(&id), Some(Ok(got)) if got == reply)
    }

    /// Whatever the server's application has not read, it reads from now on.
    pub fn release(&mut self) {
        self.hoards = false;
        let calls: Vec<_> = self.served.keys().copied().collect();
        for call in calls {
            let served = self.served.get_mut(&call).unwrap();
            let (packets, bytes) = std::mem::take(&mut served.unread);
            self.server.command(self.now, call, Command::Consumed { packets, bytes });
            self.serve(call);
        }
        self.settle();
    }

    /// All replies are read from now on.
    pub fn read(&mut self) {
        let calls: Vec<_> = self.asked.keys().copied().collect();
        for call in calls {
            let asked = self.asked.get_mut(&call).unwrap();
            asked.reads = true;
            let (packets, bytes) = std::mem::take(&mut asked.unread);
            self.client.command(self.now, call, Command::Consumed { packets, bytes });
        }
        self.settle();
    }

    pub fn pass(&mut self, time: Duration) {
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

    fn settle(&mut self) {
        while self.step() {
            self.unread_max = self.unread_max.max(unread_bytes(&self.server));
        }
    }

    fn step(&mut self) -> bool {
        let (up, down) = (self.client.take_sent(), self.server.take_sent());
        let mut moved = !up.is_empty() || !down.is_empty();
        for (_, datagram) in up {
            self.server.receive(self.now, CLIENT.into(), &datagram);
        }
        for (_, datagram) in down {
            self.client.receive(self.now, SERVER.into(), &datagram);
        }
        for (token, call) in self.client.take_started() {
            if let Some(asked) = self.starting.remove(&token.0) {
                self.asked.insert(call, asked);
            }
        }
        for (call, notice) in self.server.take_notices() {
            moved = true;
            self.notice_server(call, notice);
        }
        for (call, notice) in self.client.take_notices() {
            moved = true;
            self.notice_client(call, notice);
        }
        moved
    }

    fn notice_server(&mut self, call: CallRef, notice: Notice) {
        let served = self.served.entry(call).or_default();
        match notice {
            Notice::Incoming(incoming) => served.credit = incoming.credit,
            Notice::Credit(more) => served.credit += more,
            Notice::Data(pieces) => {
                let (packets, bytes) = take(&mut served.request, &pieces);
                if self.hoards && served.request[0] == b'h' {
                    served.unread.0 += packets;
                    served.unread.1 += bytes;
                } else {
                    self.server.command(self.now, call, Command::Consumed { packets, bytes });
                }
            }
            Notice::End => served.ended = true,
            Notice::Failed(_) | Notice::Acknowledged(_) => {
                self.served.remove(&call);
                return;
            }
            Notice::Started(_) => {}
        }
        self.serve(call);
    }

    fn serve(&mut self, call: CallRef) {
        let Some(served) = self.served.get_mut(&call).filter(|served| served.ended) else { return };
        if served.unread.0 > 0 {
            return;
        }
        let (bytes, ends) = match (served.request[0], served.reply_left) {
            (b'w', left) => {
                let want = u32::from_be_bytes(served.request[1..5].try_into().unwrap()) as usize;
                let left = left.unwrap_or(want);
                let count = left.min(served.credit as usize);
                served.credit -= count as u64;
                served.reply_left = Some(left - count);
                if count == 0 {
                    return;
                }
                (vec![b'w'; count], count == left)
            }
            (_, Some(_)) => return,
            (_, None) => {
                served.reply_left = Some(0);
                (served.request.clone(), true)
            }
        };
        let bytes = Bytes::from(bytes);
        self.server.command(self.now, call, Command::Write { bytes, ends, flushes: false });
    }

    fn notice_client(&mut self, call: CallRef, notice: Notice) {
        match notice {
            Notice::Data(pieces) => {
                let asked = self.asked.get_mut(&call).unwrap();
                let (packets, bytes) = take(&mut asked.reply, &pieces);
                if asked.reads {
                    self.client.command(self.now, call, Command::Consumed { packets, bytes });
                } else {
                    asked.unread.0 += packets;
                    asked.unread.1 += bytes;
                }
            }
            Notice::End => {
                self.client.command(self.now, call, Command::End);
                let asked = self.asked.remove(&call).unwrap();
                self.ended.insert(asked.id, Ok(asked.reply));
            }
            Notice::Failed(failure) => {
                let asked = self.asked.remove(&call).unwrap();
                self.ended.insert(asked.id, Err(failure));
            }
            _ => {}
        }
    }
}

fn take(to: &mut Vec<u8>, pieces: &Pieces) -> (u32, usize) {
    pieces.iter().for_each(|piece| to.extend_from_slice(piece));
    (pieces.len() as u32, pieces.iter().map(Bytes::len).sum())
}
