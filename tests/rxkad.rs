//! rxkad between two endpoints of the bare core, in virtual time, and recorded sessions of OpenAFS played
//! to our server and to our client.
#![cfg(feature = "rxkad")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::proto::{CallFailure, ConnectionFailure, Why};
use rxrpc::security::rxkad::keys::{KeyArgument, ServerKeys, TicketForm};
use rxrpc::security::rxkad::ticket::Print;
use rxrpc::security::rxkad::{
    Client, INDEX, Level, Principal, RxkadError, Server, SessionKey, Token,
};
use rxrpc::security::{
    ClientClass, ConnectionIds, Entropy, PacketIds, SealedPacket, ServerClass, Session,
    Verification, Verified, rxkad_client, rxkad_server,
};
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::debug::{
    Connection, Request, RequestType, SecurityStats, security_flags, security_type,
};
use rxrpc::wire::{
    AbortCode, CallNumber, ChannelIndex, Cid, Epoch, Flags, HEADER_LEN, Header, JumboWriter,
    PacketType, ServiceId,
};
use rxrpc::{ConnectOptions, Endpoint, ServiceOptions, unary};
use serde_json::Value;

const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 7001);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 7009);
const SERVICE: ServiceId = ServiceId(4);
const LEVELS: [Level; 3] = [Level::Clear, Level::Auth, Level::Crypt];
const AES_KEY: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const DES_KEY: &str = "1:2:a7838acbc783ec94";
const NOW: SystemTime = UNIX_EPOCH;

// ---- two endpoints ------------------------------------------------------------------------------

/// Two endpoints and a network that loses what its seed says. The service answers with the request.
struct World {
    start: Instant,
    now: Instant,
    client: InlineEndpoint,
    server: InlineEndpoint,
    requests: HashMap<CallRef, Vec<u8>>,
    replies: HashMap<CallRef, Vec<u8>>,
    ended: Vec<CallRef>,
    failures: Vec<CallFailure>,
    seed: u64,
    /// Of a hundred datagrams.
    lost: u64,
    /// Changes what goes to the server.
    mangle: Option<fn(&mut [u8])>,
    /// Bytes of the bodies of the server's challenges.
    challenges: Vec<usize>,
    /// Whether the client's full packets are joined to jumbograms, and how many were.
    joins: bool,
    joined: usize,
}

impl World {
    fn new(minimum_level: Level, lost: u64) -> World {
        World::with_server(lost, rxkad_server(server_keys(), minimum_level))
    }

    fn with_server(lost: u64, class: Arc<dyn ServerClass>) -> World {
        let now = Instant::now();
        let endpoint = |seed| {
            let (epoch, first_cid) = (Epoch::from_random(seed), Cid(4));
            let identity = Identity { epoch, first_cid, hash_seed: 1 };
            let config = EndpointConfig { debug_responder: true, ..EndpointConfig::default() };
            let mut endpoint = InlineEndpoint::new(config, identity, now);
            endpoint.set_wall_clock(wall_clock());
            endpoint
        };
        let mut server = endpoint(2);
        let classes = vec![class];
        server.offer(SERVICE, Offer { classes, needs_reach: false, upgrades_to: None });
        World {
            start: now,
            now,
            client: endpoint(1),
            server,
            requests: HashMap::new(),
            replies: HashMap::new(),
            ended: Vec::new(),
            failures: Vec::new(),
            seed: 0x9e37_79b9_7f4a_7c15,
            lost,
            mangle: None,
            challenges: Vec::new(),
            joins: false,
            joined: 0,
        }
    }

    fn connect(&mut self, token: Token, level: Level) -> RouteId {
        let class = rxkad_client(token, level);
        self.client.connect(self.now, SERVER.into(), SERVICE, &*class, false)
    }

    fn call(&mut self, route: RouteId, request: &[u8]) {
        let request = Bytes::copy_from_slice(request);
        let start = Start { request, is_whole: true, ..Start::default() };
        self.client.start(self.now, route, start);
    }

    fn is_lost(&mut self) -> bool {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % 100 < self.lost
    }

    /// What was not lost, in batches of one size, as the kernel hands them over.
    fn carry(&mut self, sent: Vec<(SocketAddr, Vec<u8>)>) -> Vec<(usize, Vec<u8>)> {
        let mut batches: Vec<(usize, Vec<u8>)> = Vec::new();
        for (_, datagram) in sent {
            if self.is_lost() {
                continue;
            }
            match batches.last_mut() {
                Some((stride, batch))
                    if batch.len().is_multiple_of(*stride)
                        && datagram.len() <= *stride
                        && batch.len() < 60_000 =>
                {
                    batch.extend_from_slice(&datagram);
                }
                _ => batches.push((datagram.len(), datagram)),
            }
        }
        batches
    }

    fn step(&mut self) -> bool {
        let mut sent = self.client.take_sent();
        if let Some(mangle) = self.mangle {
            sent.iter_mut().for_each(|(_, datagram)| mangle(datagram));
        }
        if self.joins {
            let (joined, datagrams) = join(sent);
            self.joined += joined;
            sent = datagrams;
        }
        let to_server = self.carry(sent);
        let sent = self.server.take_sent();
        let challenges = sent.iter().filter(|(_, it)| it[20] == PacketType::Challenge.byte());
        self.challenges.extend(challenges.map(|(_, it)| it.len() - HEADER_LEN));
        let to_client = self.carry(sent);
        let mut moved = !to_server.is_empty() || !to_client.is_empty();
        for (stride, batch) in to_server {
            self.server.receive_batch(self.now, CLIENT.into(), batch.into(), stride);
        }
        for (stride, batch) in to_client {
            self.client.receive_batch(self.now, SERVER.into(), batch.into(), stride);
        }
        for (call, notice) in self.server.take_notices() {
            moved = true;
            match notice {
                Notice::Data(pieces) => {
                    let request = self.requests.entry(call).or_default();
                    let taken = take(&pieces, request);
                    self.server.command(self.now, call, taken);
                }
                Notice::End => {
                    let bytes = self.requests.remove(&call).unwrap_or_default().into();
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
                    let taken = take(&pieces, self.replies.entry(call).or_default());
                    self.client.command(self.now, call, taken);
                }
                Notice::End => {
                    self.ended.push(call);
                    self.client.command(self.now, call, Command::End);
                }
                Notice::Failed(failure) => self.failures.push(failure),
                _ => {}
            }
        }
        moved
    }

    /// Until all calls have ended and nothing moves, or so much time is over.
    fn run(&mut self, calls: usize, limit: Duration) {
        let end = self.now + limit;
        loop {
            while self.step() {}
            if self.ended.len() + self.failures.len() >= calls {
                return;
            }
            let next = [self.client.next_deadline(), self.server.next_deadline()];
            match next.into_iter().flatten().min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => return,
            }
            let wall_clock = wall_clock() + (self.now - self.start);
            self.client.set_wall_clock(wall_clock);
            self.server.set_wall_clock(wall_clock);
            self.client.advance(self.now);
            self.server.advance(self.now);
        }
    }
}

fn server_keys() -> ServerKeys {
    let mut keys = ServerKeys::from(argument(AES_KEY));
    keys.extend(argument(DES_KEY).into());
    keys
}

/// Makes of a client's packet one of a client that knows of no checksums.
fn without_checksum(datagram: &mut [u8]) {
    if datagram[20] == PacketType::Data.byte() {
        datagram[24..26].fill(0);
    }
}

/// Appends what was delivered, and gives the credit for it.
fn take(pieces: &[Bytes], to: &mut Vec<u8>) -> Command {
    pieces.iter().for_each(|piece| to.extend_from_slice(piece));
    let bytes = pieces.iter().map(Bytes::len).sum();
    Command::Consumed { packets: pieces.len() as u32, bytes }
}

fn wall_clock() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn argument(text: &str) -> KeyArgument {
    text.parse().expect("a key")
}

fn alice() -> Principal {
    let [name, instance, cell] = ["alice", "admin", "EXAMPLE.ORG"].map(str::to_owned);
    Principal { name, instance, cell }
}

fn token(key: &str, form: TicketForm) -> Token {
    token_at(key, form, wall_clock(), Duration::from_secs(36_000))
}

fn token_at(key: &str, form: TicketForm, at: SystemTime, lifetime: Duration) -> Token {
    let session = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    let client = alice();
    let print = Print::from_now(&client, &session, at, lifetime);
    argument(key).print_token(form, &print, &[5; 32]).expect("a token")
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 31 % 251) as u8).collect()
}

fn aborted(error: RxkadError, why: Why) -> ConnectionFailure {
    ConnectionFailure::Aborted { code: error.code(), why }
}

#[test]
fn requests_of_every_size_come_back_at_every_level_with_every_ticket() {
    for level in LEVELS {
        for token in [token(AES_KEY, TicketForm::Krb5), token(DES_KEY, TicketForm::V4)] {
            let mut world = World::new(Level::Clear, 0);
            let route = world.connect(token, level);
            let sizes = [0, 1, 3, 4, 1395, 1396, 1397, 1400, 1401, 1408, 1409, 1412, 1413, 300_000];
            for (index, size) in sizes.into_iter().enumerate() {
                world.call(route, &pattern(size));
                world.run(index + 1, Duration::ZERO);
                assert_eq!(world.failures, [], "{level}");
                let last = world.ended.last().expect("an end");
                let reply = world.replies.get(last).cloned().unwrap_or_default();
                assert!(reply == pattern(size), "{level}, {size} bytes");
            }
            assert_eq!(world.now, world.start, "no timer was needed");
            assert_eq!(world.server.counters().resent, 0);
        }
    }
}

#[test]
fn calls_at_once_arrive_whole_through_a_lossy_network() {
    for level in LEVELS {
        for seed in 1..=10 {
            let mut world = World::new(level, 10);
            world.seed ^= seed * 0x1234_5678_9abc;
            let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
            for _ in 0..6 {
                world.call(route, &pattern(60_000));
            }
            world.run(6, Duration::from_secs(600));
            assert_eq!(world.failures, [], "{level}, seed {seed}");
            assert_eq!(world.ended.len(), 6, "{level}, seed {seed}");
            for reply in world.replies.values() {
                assert!(*reply == pattern(60_000), "{level}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_service_sees_who_calls() {
    let mut world = World::new(Level::Auth, 0);
    let token = token(AES_KEY, TicketForm::Krb5);
    let expires = token.expires;
    let route = world.connect(token, Level::Crypt);
    world.call(route, b"who am I?");
    world.run(1, Duration::ZERO);
    let channel = world.server.channel(world.server.routes()[0], ChannelIndex::ALL[0]);
    let identity = channel.and_then(|channel| channel.identity()).expect("an identity");
    assert_eq!(identity.name, "alice.admin@EXAMPLE.ORG");
    assert_eq!(identity.principal, Some(alice()));
    assert_eq!(identity.level, Some(Level::Crypt));
    assert_eq!(identity.expires, Some(expires));
}

#[test]
fn a_client_below_the_servers_level_ends_the_connection_itself() {
    for (level, minimum) in
        [(Level::Clear, Level::Auth), (Level::Clear, Level::Crypt), (Level::Auth, Level::Crypt)]
    {
        let mut world = World::new(minimum, 0);
        let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
        world.call(route, b"x");
        world.run(1, Duration::ZERO);
        assert_eq!(world.ended, []);
        let failure = aborted(RxkadError::LevelFail, Why::Challenge);
        assert_eq!(world.client.failure(route), Some(failure));
        let heard = ConnectionFailure::PeerAborted(RxkadError::LevelFail.code());
        assert_eq!(world.server.failure(world.server.routes()[0]), Some(heard));
    }
}

#[test]
fn a_client_with_a_ticket_that_no_server_takes_ends_the_connection_itself() {
    // The last two fit into no datagram.
    for len in [0, 31, 12_001, 20_000, 70_000, 1_000_000] {
        let mut world = World::new(Level::Auth, 0);
        let bad = Token { ticket: vec![1; len], ..token(AES_KEY, TicketForm::Krb5) };
        let route = world.connect(bad, Level::Crypt);
        world.call(route, b"x");
        world.run(1, Duration::ZERO);
        assert_eq!(world.ended, [], "{len} bytes");
        let failure = aborted(RxkadError::TicketLen, Why::Challenge);
        assert_eq!(world.client.failure(route), Some(failure), "{len} bytes");
        let heard = ConnectionFailure::PeerAborted(RxkadError::TicketLen.code());
        assert_eq!(world.server.failure(world.server.routes()[0]), Some(heard), "{len} bytes");
    }
}

#[test]
fn a_ticket_that_is_no_good_is_refused_by_name_after_a_second_and_harms_nobody_else() {
    let hour = Duration::from_secs(3600);
    let unknown = AES_KEY.replace("18:1:", "18:9:");
    let wrong = AES_KEY.replace("1e1f", "1f1e");
    let krb5 = TicketForm::Krb5;
    let long_ago = wall_clock() - 2 * hour;
    let other_key = Token { key: SessionKey::new([9; 8]), ..token(AES_KEY, krb5) };
    for (bad, error) in [
        (token(&unknown, krb5), RxkadError::UnknownKey),
        (token(&wrong, krb5), RxkadError::BadTicket),
        (token_at(AES_KEY, krb5, long_ago, hour), RxkadError::Expired),
        (token_at(AES_KEY, krb5, wall_clock() + hour, hour), RxkadError::NoAuth),
        (other_key, RxkadError::SealedInconsistent),
    ] {
        let mut world = World::new(Level::Auth, 0);
        let good = world.connect(token(AES_KEY, krb5), Level::Crypt);
        let bad = world.connect(bad, Level::Crypt);
        world.call(good, b"good");
        world.call(bad, b"bad");
        world.run(2, Duration::from_secs(2));
        assert_eq!(world.now - world.start, Duration::from_secs(1), "{error}");
        let failure = ConnectionFailure::PeerAborted(error.code());
        assert_eq!(world.client.failure(bad), Some(failure), "{error}");
        assert_eq!(world.client.failure(good), None, "{error}");
        assert_eq!(world.ended.len(), 1, "{error}");
        world.call(good, b"still good");
        world.run(3, Duration::ZERO);
        assert_eq!(world.ended.len(), 2, "{error}");
    }
}

#[test]
fn a_connection_ends_with_its_ticket() {
    let mut world = World::new(Level::Auth, 0);
    // Shorter than either side keeps a connection without calls.
    let life = Duration::from_secs(15);
    let short = token_at(AES_KEY, TicketForm::Krb5, wall_clock(), life);
    let route = world.connect(short, Level::Crypt);
    world.call(route, b"x");
    world.run(1, Duration::ZERO);
    assert_eq!(world.ended.len(), 1);
    world.run(2, life);
    assert_eq!(world.now - world.start, life);
    let expired = RxkadError::Expired.code();
    assert_eq!(world.client.failure(route), Some(ConnectionFailure::PeerAborted(expired)));
    // Within the tolerance of the clocks the ticket opens, but no call runs on it.
    let short = token_at(AES_KEY, TicketForm::Krb5, wall_clock(), life);
    world.run(2, Duration::from_secs(5));
    let route = world.connect(short, Level::Crypt);
    world.call(route, b"y");
    world.run(2, Duration::from_secs(5));
    assert_eq!(world.ended.len(), 1);
    assert_eq!(world.client.failure(route), Some(ConnectionFailure::PeerAborted(expired)));
}

/// A client of our own, as if it knew of no checksums, and what a server makes of it that takes version 1 or not.
#[test]
fn a_client_without_checksums_is_served_in_version_1_where_that_is_taken() {
    for level in LEVELS {
        for minimum in LEVELS {
            let class = Server::new(Arc::new(server_keys()), minimum).with_version_1();
            let mut world = World::with_server(10, Arc::new(class));
            world.mangle = Some(without_checksum);
            let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
            for _ in 0..6 {
                world.call(route, &pattern(30_000));
            }
            // Of the six, two wait for a channel, and never begin if there is none.
            let calls = if level < minimum { 4 } else { 6 };
            world.run(calls, Duration::from_secs(600));
            assert!(world.challenges.iter().all(|len| *len == 8), "{:?}", world.challenges);
            if level < minimum {
                let failure = aborted(RxkadError::LevelFail, Why::Challenge);
                assert_eq!(world.client.failure(route), Some(failure), "{level} {minimum}");
                continue;
            }
            assert_eq!(world.failures, [], "{level} {minimum}");
            assert_eq!(world.ended.len(), 6, "{level} {minimum}");
            assert!(world.replies.values().all(|reply| *reply == pattern(30_000)));
            let channel = world.server.channel(world.server.routes()[0], ChannelIndex::ALL[0]);
            let identity = channel.and_then(|channel| channel.identity()).expect("an identity");
            assert_eq!(identity.principal, Some(alice()));
            assert_eq!(identity.level, Some(level));
            // From the first checksum on, there is one in each packet.
            world.mangle = None;
            world.call(route, b"with");
            world.run(7, Duration::from_secs(60));
            world.mangle = Some(without_checksum);
            world.call(route, b"without");
            world.run(8, Duration::from_secs(60));
            let code = RxkadError::SealedInconsistent.code();
            assert_eq!(world.ended.len(), 7, "{level} {minimum}");
            assert_eq!(world.failures, [CallFailure::PeerAborted(code)], "{level} {minimum}");
        }
        // As it is by default: asked in version 2, answered, and then not heard without its checksums.
        let mut world = World::new(Level::Clear, 0);
        world.mangle = Some(without_checksum);
        let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
        world.call(route, b"x");
        world.run(1, Duration::from_secs(60));
        let code = RxkadError::SealedInconsistent.code();
        assert_eq!(
            (&world.challenges[..], &world.failures[..]),
            (&[16][..], &[CallFailure::PeerAborted(code)][..])
        );
        // Who sends checksums is asked in version 2 wherever.
        let class = Server::new(Arc::new(server_keys()), level).with_version_1();
        let mut world = World::with_server(0, Arc::new(class));
        let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
        world.call(route, b"x");
        world.run(1, Duration::ZERO);
        assert_eq!((&world.challenges[..], world.ended.len()), (&[16][..], 1));
    }
}

/// A client that refuses version 1 says so, and the server hears it.
#[test]
fn a_client_that_wants_version_2_ends_the_connection_of_a_server_that_asks_in_version_1() {
    let class = Server::new(Arc::new(server_keys()), Level::Clear).with_version_1();
    let mut world = World::with_server(0, Arc::new(class));
    world.mangle = Some(without_checksum);
    let client = Client::new(token(AES_KEY, TicketForm::Krb5), Level::Crypt).without_version_1();
    let route = world.client.connect(world.now, SERVER.into(), SERVICE, &client, false);
    world.call(route, b"x");
    world.run(1, Duration::ZERO);
    let failure = aborted(RxkadError::Inconsistency, Why::Challenge);
    assert_eq!(world.client.failure(route), Some(failure));
    let heard = ConnectionFailure::PeerAborted(RxkadError::Inconsistency.code());
    assert_eq!(world.server.failure(world.server.routes()[0]), Some(heard));
}

/// What DEBUG answers say of a connection's class, before and after the client has proved itself.
#[test]
fn tools_are_told_level_expiry_and_traffic() {
    for level in LEVELS {
        let mut world = World::new(Level::Clear, 0);
        let token = token(AES_KEY, TicketForm::Krb5);
        let expires = token.expires.duration_since(UNIX_EPOCH).expect("later").as_secs() as u32;
        let route = world.connect(token, level);
        let size = 3000;
        world.call(route, &pattern(size));
        // The first DATA has come, and the challenge has not been answered.
        let sent = world.client.take_sent();
        for (stride, batch) in world.carry(sent) {
            world.server.receive_batch(world.now, CLIENT.into(), batch.into(), stride);
        }
        let asked = security_of(&mut world.server, world.now);
        let expected = SecurityStats { security_type: 3, level: 0, ..SecurityStats::default() };
        assert_eq!(asked, expected, "{level}");
        // The question took the challenge with it: there is another in a while.
        world.run(1, Duration::from_secs(60));
        let (header, padded) = match level {
            Level::Clear => (0, size),
            Level::Auth => (4, size + 3 * 4),
            Level::Crypt => (8, (size + 3 * 8).next_multiple_of(8)),
        };
        let at_server = security_of(&mut world.server, world.now);
        let expected = SecurityStats {
            security_type: security_type::KAD,
            level: level.wire() as u8,
            flags: security_flags::AUTHENTICATED | security_flags::CHECKSUMMED,
            expires,
            packets_received: 3,
            packets_sent: 3,
            bytes_received: padded as u32,
            bytes_sent: size as u32,
            ..SecurityStats::default()
        };
        assert_eq!(at_server, expected, "{level}, {header} bytes before each packet");
        let at_client = security_of(&mut world.client, world.now);
        let flags = security_flags::CHECKSUMMED;
        assert_eq!(at_client, SecurityStats { flags, expires: 0, ..expected }, "{level}");
    }
}

/// What the one connection of an endpoint is said to be, in answer to a DEBUG request.
fn security_of(endpoint: &mut InlineEndpoint, now: Instant) -> SecurityStats {
    let mut request = Vec::new();
    Request { request_type: RequestType::AllConnections, index: 0 }
        .encode_datagram(1, &mut request);
    let len = request.len();
    endpoint.receive_batch(now, ([127, 0, 0, 1], 7777).into(), request.into(), len);
    let mut answers = endpoint.take_sent().into_iter();
    let answer = answers.rfind(|(to, _)| to.port() == 7777).expect("an answer").1;
    Connection::decode(&answer[HEADER_LEN..]).expect("a record").security
}

#[test]
fn a_packet_that_was_changed_on_its_way_ends_its_call_and_not_the_connection() {
    for level in [Level::Auth, Level::Crypt] {
        let mut world = World::new(level, 0);
        let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
        world.mangle = Some(|datagram| {
            if datagram[20] == PacketType::Data.byte() && datagram[19] == 1 {
                datagram[HEADER_LEN] ^= 1;
            }
        });
        world.call(route, &pattern(5000));
        world.run(1, Duration::from_secs(2));
        let code = RxkadError::SealedInconsistent.code();
        assert_eq!(world.failures, [CallFailure::PeerAborted(code)], "{level}");
        world.mangle = None;
        world.call(route, b"again");
        world.run(2, Duration::from_secs(2));
        assert_eq!(world.ended.len(), 1, "{level}");
    }
}

#[test]
fn each_packet_of_a_jumbogram_has_its_own_seal_and_checksum() {
    // Full packets at crypt are not full enough: only the last packet of a jumbogram may have 1408 bytes.
    for (level, jumbograms) in [(Level::Clear, true), (Level::Auth, true), (Level::Crypt, false)] {
        let mut world = World::new(level, 0);
        world.joins = true;
        let route = world.connect(token(AES_KEY, TicketForm::Krb5), level);
        world.call(route, &pattern(100_000));
        world.run(1, Duration::from_secs(2));
        assert_eq!(world.failures, [], "{level}");
        let last = world.ended.last().expect("an end");
        assert!(world.replies[last] == pattern(100_000), "{level}");
        assert_eq!(world.joined > 0, jumbograms, "{level}");
    }
}

/// Puts consecutive full DATA packets of a call into jumbograms, as OpenAFS does.
fn join(sent: Vec<(SocketAddr, Vec<u8>)>) -> (usize, Vec<(SocketAddr, Vec<u8>)>) {
    let mut joined = 0;
    let mut out: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    let mut rest = sent.into_iter().peekable();
    while let Some((to, datagram)) = rest.next() {
        let first = Header::decode(&datagram).expect("a header");
        if first.packet_type != PacketType::Data {
            out.push((to, datagram));
            continue;
        }
        let mut buffer = Vec::new();
        let mut writer = JumboWriter::start(&mut buffer, &first, &datagram[HEADER_LEN..]);
        while let Some((_, next)) = rest.peek() {
            let header = Header::decode(next).expect("a header");
            let at = writer.packets() as u32;
            let follows = header.packet_type == PacketType::Data
                && (header.cid, header.call_number) == (first.cid, first.call_number)
                && header.seq.0 == first.seq.0 + at
                && at < 4
                && writer.append(header.flags, header.cksum, &next[HEADER_LEN..]).is_ok();
            if !follows {
                break;
            }
            joined += 1;
            rest.next();
        }
        out.push((to, buffer));
    }
    (joined, out)
}

/// The whole library: actors, sockets, the machine's clock.
#[tokio::test]
async fn a_service_behind_actors_knows_its_caller_and_refuses_others() {
    let keys = ServerKeys::from(argument(AES_KEY));
    let classes = vec![rxkad_server(keys, Level::Auth)];
    let options = ServiceOptions { security_classes: classes, ..ServiceOptions::default() };
    let service = unary(async |request| {
        let identity = request.info.identity.expect("an identity");
        let mut reply = format!("{} {:?} ", identity.name, identity.level).into_bytes();
        reply.extend_from_slice(&request.bytes);
        Ok(reply.into())
    });
    let server = Endpoint::builder().bind(([127, 0, 0, 1], 0)).service_with(4, service, options);
    let server = server.start().await.expect("a server");
    let client = Endpoint::builder().start().await.expect("a client");
    let hour = Duration::from_secs(3600);
    let token = || token_at(AES_KEY, TicketForm::Krb5, SystemTime::now(), hour);
    for level in [Level::Auth, Level::Crypt] {
        let security = rxkad_client(token(), level);
        let options = ConnectOptions { security, ..ConnectOptions::default() };
        let connection = client.connect_with(server.local_addr(), 4, options).await.expect("one");
        let calls = (0..8).map(|_| connection.call(pattern(200_000)));
        for reply in futures::future::join_all(calls).await {
            let expected = format!("alice.admin@EXAMPLE.ORG Some({level:?}) ").into_bytes();
            assert!(reply.expect("a reply") == [expected, pattern(200_000)].concat(), "{level}");
        }
    }
    let security = rxkad_client(token(), Level::Clear);
    let options = ConnectOptions { security, ..ConnectOptions::default() };
    let connection = client.connect_with(server.local_addr(), 4, options).await.expect("one");
    let error = connection.call("x").await.expect_err("a level too low");
    assert_eq!(error.abort_code(), Some(RxkadError::LevelFail.code()), "{error}");
    let without = client.connect(server.local_addr(), 4).await.expect("one");
    let error = without.call("x").await.expect_err("no security");
    assert_eq!(error.abort_code(), Some(AbortCode::INVALID_OPERATION), "{error}");
    client.shutdown(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
}

// ---- recorded sessions --------------------------------------------------------------------------

struct Recording {
    name: String,
    ids: ConnectionIds,
    level: Level,
    token: Token,
    challenge: Vec<u8>,
    response: Option<Vec<u8>>,
    packets: Vec<(bool, Vec<u8>)>,
}

fn recordings() -> (ServerKeys, SystemTime, Vec<Recording>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/rxkad.json");
    let text = std::fs::read_to_string(path).expect("the vectors");
    let captures = serde_json::from_str::<Value>(&text).expect("JSON")["captures"].take();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let clock = UNIX_EPOCH + Duration::from_secs(captures["clock"].as_u64().expect("seconds"));
    let sessions = captures["sessions"].as_object().expect("sessions");
    let recordings: Vec<_> = sessions
        .iter()
        .map(|(name, session)| {
            let packets = session["packets"].as_array().expect("packets");
            let packets: Vec<_> =
                packets.iter().map(|packet| (packet[0] == "c", unhex(&text(&packet[1])))).collect();
            let body = |wanted| {
                let of_type = |(_, it): &&(bool, Vec<u8>)| it[20] == wanted;
                packets.iter().find(of_type).map(|(_, it)| it[HEADER_LEN..].to_vec())
            };
            let header = Header::decode(&packets[0].1).expect("a header");
            let key = unhex(&text(&session["session_key"])).try_into().expect("8 bytes");
            let response = body(7);
            let word = |at: usize| match &response {
                Some(body) => u32::from_be_bytes(body[at..at + 4].try_into().expect("a word")),
                None => 0,
            };
            Recording {
                name: name.clone(),
                ids: ConnectionIds {
                    epoch: header.epoch,
                    cid: Cid(header.cid.0 & !3),
                    service_id: header.service_id,
                    security_index: INDEX,
                },
                level: Level::from_wire(session["level"].as_u64().expect("a level") as u32)
                    .expect("a level"),
                token: Token {
                    kvno: word(48),
                    ticket: response.as_ref().map_or(vec![0; 32], |body| body[56..].to_vec()),
                    key: SessionKey::new(key),
                    expires: clock,
                },
                challenge: body(6).expect("a challenge"),
                response,
                packets,
            }
        })
        .collect();
    // The inner key versions are in the tickets; the recordings do not list them.
    let mut keys = ServerKeys::new();
    for kvno in 0..16 {
        keys.extend(argument(&format!("1:{kvno}:{}", text(&captures["server_des_key"]))).into());
        for key in captures["server_k5"].as_array().expect("keys") {
            let (enctype, key) = (key["enctype"].as_i64().expect("one"), text(&key["key"]));
            keys.extend(argument(&format!("{enctype}:{kvno}:{key}")).into());
        }
    }
    (keys, clock, recordings)
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digits).collect()
}

impl Recording {
    /// Entropy that makes our challenge the recorded one.
    fn entropy(&self) -> Entropy {
        let mut entropy = [0; 32];
        entropy[..4].copy_from_slice(&self.challenge[4..8]);
        entropy
    }

    fn server(&self, keys: &ServerKeys) -> Server {
        let level = u32::from_be_bytes(self.challenge[8..12].try_into().expect("a word"));
        let minimum = Level::from_wire(level).expect("a level");
        Server::new(Arc::new(keys.clone()), minimum)
    }

    fn verify(&self, keys: &ServerKeys, response: &[u8], now: SystemTime) -> Verdict {
        let mut handshake = self.server(keys).accept(self.ids).expect("a handshake");
        assert_eq!(handshake.challenge(&self.entropy()), self.challenge, "{}", self.name);
        let Verification::Done(result) = handshake.verify(response, now) else {
            panic!("rxkad verifies at once");
        };
        result.map_err(|code| RxkadError::from_code(code).expect("a name"))
    }

    fn session(&self) -> Arc<dyn Session> {
        let client = Client::new(self.token.clone(), self.level);
        client.connect(self.ids, &[0; 32]).session.expect("a session")
    }

    /// Payloads by direction, call and seq, as recorded and as plain bytes.
    fn data(&self) -> Data {
        let session = self.session();
        let datagrams = self.packets.iter().map(|(_, datagram)| datagram.as_slice());
        data(&*session, &self.name, datagrams)
    }
}

type Verdict = Result<Verified, RxkadError>;

/// Direction (from the client), call, seq, and what is there: header checksum, payload, plain bytes.
type Data = BTreeMap<(bool, u32, u32), (u16, Vec<u8>, Vec<u8>)>;

fn data<'a>(session: &dyn Session, name: &str, datagrams: impl Iterator<Item = &'a [u8]>) -> Data {
    let mut found = Data::new();
    for datagram in datagrams {
        let header = Header::decode(datagram).expect("a header");
        if header.packet_type != PacketType::Data {
            continue;
        }
        let from_client = header.flags.has(Flags::CLIENT_INITIATED);
        let (cid, call_number, seq) = (header.cid, header.call_number, header.seq);
        let ids = PacketIds { cid, call_number, seq, from_client };
        let payload = datagram[HEADER_LEN..].to_vec();
        let plain = session.open(&ids, header.cksum, payload.clone().into());
        let plain = plain.unwrap_or_else(|code| panic!("{name} {ids:?}: {code}"));
        let key = (from_client, call_number.0, seq.0);
        found.insert(key, (header.cksum, payload, plain.to_vec()));
    }
    found
}

/// The whole of one direction of a call.
fn stream(data: &Data, from_client: bool, call: u32) -> Vec<u8> {
    let range = (from_client, call, 0)..(from_client, call, u32::MAX);
    data.range(range).flat_map(|(_, (_, _, plain))| plain.clone()).collect()
}

/// Ours and theirs, where padding and what it is chained to may differ.
fn assert_same_data(name: &str, level: Level, ours: &Data, theirs: &Data, from_client: bool) {
    for (key, (cksum, payload, plain)) in theirs.iter().filter(|(key, _)| key.0 == from_client) {
        let (our_cksum, our_payload, our_plain) =
            ours.get(key).unwrap_or_else(|| panic!("{name}: no {key:?}"));
        assert_eq!((our_cksum, our_plain), (cksum, plain), "{name} {key:?}");
        if level != Level::Crypt || plain.len().is_multiple_of(8) {
            assert_eq!(our_payload, payload, "{name} {key:?}");
        }
    }
}

#[test]
fn recorded_sessions_are_taken_and_answered_by_the_class() {
    let (keys, clock, recordings) = recordings();
    assert_eq!(recordings.len(), 7);
    for recording in &recordings {
        let client = Client::new(recording.token.clone(), recording.level);
        let mut handshake = client.connect(recording.ids, &[0; 32]).handshake.expect("one");
        assert!(!recording.data().is_empty());
        let Some(response) = &recording.response else {
            let refused = handshake.respond(&recording.challenge, [CallNumber(1); 4], &[0; 32]);
            assert_eq!(refused, Err(RxkadError::LevelFail.code()));
            continue;
        };
        let verified = recording.verify(&keys, response, clock).expect("a good response");
        let again = handshake.respond(&recording.challenge, verified.call_numbers, &[0; 32]);
        assert_eq!(again.as_ref(), Ok(response), "{}", recording.name);
        let session = verified.session.expect("a session");
        let datagrams = recording.packets.iter().map(|(_, datagram)| datagram.as_slice());
        assert_eq!(data(&*session, &recording.name, datagrams), recording.data());
        println!("{} {}", recording.name, verified.identity.expect("an identity").name);
    }
}

/// An endpoint with the names and the clock of a recording.
fn endpoint(recording: &Recording, clock: SystemTime, now: Instant) -> InlineEndpoint {
    let (epoch, first_cid) = (recording.ids.epoch, recording.ids.cid);
    let identity = Identity { epoch, first_cid, hash_seed: 1 };
    let mut endpoint = InlineEndpoint::new(EndpointConfig::default(), identity, now);
    endpoint.set_wall_clock(clock);
    endpoint.set_entropy(recording.entropy());
    endpoint
}

#[test]
fn a_recorded_client_is_served() {
    let (keys, clock, recordings) = recordings();
    let now = Instant::now();
    for recording in recordings.iter().filter(|it| it.response.is_some()) {
        let mut server = endpoint(recording, clock, now);
        let classes: Vec<Arc<dyn ServerClass>> = vec![Arc::new(recording.server(&keys))];
        let offer = Offer { classes, needs_reach: false, upgrades_to: None };
        server.offer(recording.ids.service_id, offer);
        let theirs = recording.data();
        let mut requests: HashMap<CallRef, Vec<u8>> = HashMap::new();
        let mut numbers: HashMap<CallRef, u32> = HashMap::new();
        let mut sent = Vec::new();
        for (_, datagram) in recording.packets.iter().filter(|(from_client, _)| *from_client) {
            server.receive(now, CLIENT.into(), datagram);
            for (call, notice) in server.take_notices() {
                match notice {
                    Notice::Incoming(incoming) => {
                        numbers.insert(call, incoming.number.0);
                    }
                    Notice::Data(pieces) => {
                        let taken = take(&pieces, requests.entry(call).or_default());
                        server.command(now, call, taken);
                    }
                    Notice::End => {
                        let number = numbers[&call];
                        let request = requests.remove(&call).unwrap_or_default();
                        assert!(request == stream(&theirs, true, number), "{}", recording.name);
                        let bytes = stream(&theirs, false, number).into();
                        let write = Command::Write { bytes, ends: true, flushes: false };
                        server.command(now, call, write);
                    }
                    Notice::Failed(failure) => panic!("{}: {failure}", recording.name),
                    _ => {}
                }
            }
            sent.extend(server.take_sent().into_iter().map(|(_, datagram)| datagram));
        }
        let challenge = sent.iter().find(|datagram| datagram[20] == 6).expect("a challenge");
        assert_eq!(challenge[HEADER_LEN..], recording.challenge, "{}", recording.name);
        let session = recording.session();
        let ours = data(&*session, &recording.name, sent.iter().map(Vec::as_slice));
        assert_same_data(&recording.name, recording.level, &ours, &theirs, false);
    }
}

#[test]
fn a_recorded_server_is_called() {
    let (_, clock, recordings) = recordings();
    let now = Instant::now();
    for recording in &recordings {
        let mut client = endpoint(recording, clock, now);
        let class = Client::new(recording.token.clone(), recording.level);
        let service = recording.ids.service_id;
        let route = client.connect(now, SERVER.into(), service, &class, false);
        assert_eq!(client.ids(route), Some(recording.ids), "{}", recording.name);
        let theirs = recording.data();
        let calls = theirs.keys().map(|key| key.1).max().expect("a call");
        let start = |client: &mut InlineEndpoint, number| {
            let request = stream(&theirs, true, number).into();
            client.start(now, route, Start { request, is_whole: true, ..Start::default() });
        };
        let mut number = 1;
        start(&mut client, number);
        let mut sent = Vec::new();
        let mut reply = Vec::new();
        let mut from_server: Vec<_> =
            recording.packets.iter().filter(|(from_client, _)| !from_client).collect();
        // The last packets of the longest call were not recorded: the first ones are all there is.
        from_server.sort_by_key(|(_, datagram)| datagram[20] == 1);
        for (_, datagram) in from_server {
            sent.extend(client.take_sent().into_iter().map(|(_, datagram)| datagram));
            client.receive(now, SERVER.into(), datagram);
            for (call, notice) in client.take_notices() {
                match notice {
                    Notice::Data(pieces) => {
                        let taken = take(&pieces, &mut reply);
                        client.command(now, call, taken);
                    }
                    Notice::End => {
                        let whole = std::mem::take(&mut reply);
                        assert!(whole == stream(&theirs, false, number), "{}", recording.name);
                        client.command(now, call, Command::End);
                        number += 1;
                        if number <= calls {
                            start(&mut client, number);
                        }
                    }
                    _ => {}
                }
            }
        }
        sent.extend(client.take_sent().into_iter().map(|(_, datagram)| datagram));
        let session = recording.session();
        let ours = data(&*session, &recording.name, sent.iter().map(Vec::as_slice));
        assert_same_data(&recording.name, recording.level, &ours, &theirs, true);
        let body = |wanted| {
            let found = sent.iter().find(|datagram| datagram[20] == wanted);
            found.map(|datagram| datagram[HEADER_LEN..].to_vec())
        };
        assert_eq!(body(7), recording.response, "{}", recording.name);
        if recording.response.is_none() {
            let code = AbortCode(i32::from_be_bytes(
                body(4).expect("an abort")[..4].try_into().expect("a code"),
            ));
            assert_eq!(code, RxkadError::LevelFail.code());
        }
    }
}

// ---- damage -------------------------------------------------------------------------------------

#[test]
fn a_recorded_response_that_is_damaged_has_an_error_with_a_name() {
    let (keys, clock, recordings) = recordings();
    for recording in &recordings {
        let Some(response) = &recording.response else { continue };
        let whole = recording.verify(&keys, response, clock).expect("a good response");
        for len in 0..response.len() {
            let verdict = recording.verify(&keys, &response[..len], clock);
            assert_eq!(verdict.err(), Some(RxkadError::PacketShort), "{} bytes", len);
        }
        for bit in 0..response.len() * 8 {
            let mut damaged = response.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let claimed = u32::from_be_bytes(damaged[52..56].try_into().expect("a word"));
            let is_v4 = !matches!(recording.token.kvno, 213 | 256);
            use RxkadError::{
                BadTicket, Expired, Inconsistency, NoAuth, PacketShort, SealedInconsistent,
                TicketLen, UnknownKey,
            };
            let expected: &[RxkadError] = match bit / 8 {
                0..4 => &[Inconsistency],
                4..48 => &[SealedInconsistent],
                // Of another version there is no key, or it is another, or it is the same key, and then the
                // checksum tells.
                48..52 => &[UnknownKey, BadTicket, SealedInconsistent],
                52..56 if claimed as usize > response.len() - 56 => &[PacketShort],
                52..56 if claimed < 32 => &[TicketLen],
                52..56 => &[BadTicket],
                // Nothing proves a Kerberos 4 style ticket: what does not parse is no ticket; else it has
                // other times, or another key.
                _ if is_v4 => &[BadTicket, Expired, NoAuth, SealedInconsistent],
                // Another version or enctype in the clear part.
                _ => &[BadTicket, UnknownKey],
            };
            match recording.verify(&keys, &damaged, clock) {
                Err(error) => {
                    assert!(expected.contains(&error), "{} bit {bit}: {error}", recording.name);
                }
                Ok(verified) => {
                    // Where a whole ticket names its server, which nobody looks at; or beyond what is checked
                    // in a Kerberos 4 style ticket.
                    assert!(bit >= 56 * 8, "{} bit {bit}", recording.name);
                    let identity = |verified: &Verified| verified.identity.clone();
                    assert_eq!(identity(&verified), identity(&whole), "{} {bit}", recording.name);
                }
            }
        }
    }
}

#[test]
fn a_packet_with_any_bit_flipped_is_refused_by_its_first_block_or_is_other_data() {
    let (_, _, recordings) = recordings();
    let names = [RxkadError::SealedInconsistent, RxkadError::DataLen].map(RxkadError::code);
    let (mut refused, mut taken) = (0, 0);
    for recording in &recordings {
        let session = recording.session();
        for (from_client, datagram) in &recording.packets {
            let header = Header::decode(datagram).expect("a header");
            if header.packet_type != PacketType::Data || datagram.len() > 200 {
                continue;
            }
            let (cid, call_number, seq) = (header.cid, header.call_number, header.seq);
            let ids = PacketIds { cid, call_number, seq, from_client: *from_client };
            let payload = Bytes::copy_from_slice(&datagram[HEADER_LEN..]);
            let mut whole = Vec::new();
            let run = [SealedPacket { ids, cksum: header.cksum, payload }];
            assert_eq!(
                session.open_run(&run, &mut BytesMut::new(), &mut whole),
                Ok(()),
                "{}",
                recording.name
            );
            for bit in 0..(datagram.len() - HEADER_LEN) * 8 {
                let mut payload = datagram[HEADER_LEN..].to_vec();
                payload[bit / 8] ^= 1 << (bit % 8);
                let run = [SealedPacket { ids, cksum: header.cksum, payload: payload.into() }];
                let mut opened = Vec::new();
                let outcome = session.open_run(&run, &mut BytesMut::new(), &mut opened);
                let place = format!("{} {ids:?} bit {bit}", recording.name);
                // At auth and crypt check and length stand in the first eight bytes; the rest is data.
                if recording.level >= Level::Auth && bit < 64 {
                    let code = outcome.expect_err(&place);
                    assert!(names.contains(&code) && opened.is_empty(), "{place}: {code}");
                    refused += 1;
                } else {
                    assert_eq!(outcome, Ok(()), "{place}");
                    assert_eq!(opened[0].len(), whole[0].len(), "{place}");
                    taken += 1;
                }
            }
        }
    }
    assert_eq!((refused, taken), (640, 1512), "what the recordings have");
}
