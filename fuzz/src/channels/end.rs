//! One side of the pair: its channel, its application, and what is on its way to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use arbitrary::Arbitrary;
use bytes::Bytes;
use rxrpc::proto::channel::{
    Channel, ChannelOutput, ChannelSetup, ChannelToConnection, Command, Notice, Run, Security,
    Start,
};
use rxrpc::proto::config::CallConfig;
use rxrpc::proto::path::PathSize;
use rxrpc::proto::peer::{Peer, PeerHint};
use rxrpc::proto::{CallFailure, CallState, CallTag, NetworkProblem, Role, SerialCounter};
use rxrpc::security::rxkad::{Client, Level, SessionKey, Token};
use rxrpc::security::{ClientClass, ConnectionIds, RxNull};
use rxrpc::wire::{
    Ack, CallNumber, ChannelIndex, Cid, Epoch, HEADER_LEN, Header, PacketType, SecurityIndex,
    Serial, ServiceId, check_jumbo,
};

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// How both sides are set.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Options {
    secured: bool,
    small_windows: bool,
    no_takeover: bool,
    needs_reach: bool,
    no_keepalive: bool,
    jumbograms: bool,
    wraps: bool,
    idle_limits: bool,
}

/// A call, as its application knows it. The bytes of a call are told by its name and direction.
#[derive(Debug, Default)]
struct Call {
    tag: CallTag,
    number: CallNumber,
    written: u64,
    has_ended_writing: bool,
    credit: u64,
    received: u64,
    has_whole: bool,
    /// Delivered, not taken: packets and bytes.
    owed: (u32, usize),
    discards: bool,
    has_let_go: bool,
    is_over: bool,
    is_good: bool,
    /// It has failed, and the channel waits for its application all the same (rx-calls.md 4.2).
    is_overtaken: bool,
    /// Pieces that were not compared yet with what was sent, from `received` backwards.
    unproved: Vec<Bytes>,
    /// It was compared with the other end's since it was over: nothing more is said about it.
    is_settled: bool,
}

/// See the module.
pub struct End {
    side: Side,
    pub channel: Channel,
    setup: ChannelSetup,
    out: ChannelOutput,
    pub inbox: VecDeque<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    /// Calls by their tags. The client's have numbers when their first packet has left.
    calls: BTreeMap<u32, Call>,
    takes_over: bool,
    serial: Option<Serial>,
    peer: Peer,
    /// Of the ACKs sent: of which call the last was, and its firstPacket.
    first_packet: (CallNumber, u32),
    pub good_calls: usize,
}

impl End {
    pub fn pair(options: Options, now: Instant) -> [End; 2] {
        let ids = ConnectionIds {
            epoch: Epoch(0x8f3a_21c4),
            cid: Cid(4),
            service_id: ServiceId(1),
            security_index: SecurityIndex(if options.secured { 2 } else { 0 }),
        };
        let session = if options.secured {
            let key = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
            let expires = SystemTime::UNIX_EPOCH;
            let token = Token { kvno: 213, ticket: Vec::new(), key, expires };
            Client::new(token, Level::Auth).connect(ids, &[0; 32]).session
        } else {
            RxNull.connect(ids, &[0; 32]).session
        };
        [Side::Client, Side::Server].map(|side| {
            let role = match side {
                Side::Client => Role::Client,
                Side::Server => Role::Server,
            };
            let setup = ChannelSetup {
                role,
                epoch: ids.epoch,
                cid: ids.cid,
                index: ChannelIndex::ALL[1],
                security_index: ids.security_index,
                service_id: ids.service_id,
                config: Arc::new(config(options)),
                serials: SerialCounter::starting_at(Serial(if options.wraps {
                    u32::MAX - 5
                } else {
                    1
                })),
                security: Security::Ready(session.clone()),
                needs_reach: options.needs_reach && side == Side::Server,
                hint: PeerHint::default().into(),
                memory: Default::default(),
            };
            End {
                side,
                channel: Channel::new(setup.clone(), now),
                setup,
                out: ChannelOutput::default(),
                inbox: VecDeque::new(),
                sent: Vec::new(),
                calls: BTreeMap::new(),
                takes_over: !options.no_takeover,
                serial: None,
                peer: Peer::new(now),
                first_packet: (CallNumber(0), 0),
                good_calls: 0,
            }
        })
    }

    /// Whether no call is under way.
    pub fn is_idle(&self) -> bool {
        self.channel.state().is_none()
            && self.calls.values().all(|call| call.is_over || call.has_let_go)
    }

    // ---- inputs ----

    pub fn start(&mut self, now: Instant, len: usize, is_whole: bool, deadline: Option<Duration>) {
        if self.channel.state().is_some() {
            return;
        }
        let tag = self.channel.tag().0.wrapping_add(1);
        let request = pattern(tag, Side::Client, 0, len).to_vec();
        let call = Call {
            tag: CallTag(tag),
            written: len as u64,
            has_ended_writing: is_whole,
            ..Call::default()
        };
        self.calls.insert(tag, call);
        let start = Start { request: request.into(), is_whole, deadline, ..Start::default() };
        self.channel.handle_start(now, start, &mut self.out);
        assert_eq!(self.channel.tag(), CallTag(tag));
        self.conclude(now);
    }

    pub fn arrive(&mut self, now: Instant, which: u8, stays: bool) {
        if self.inbox.is_empty() {
            return;
        }
        let at = usize::from(which) % self.inbox.len();
        let datagram = if stays { self.inbox.get(at).cloned() } else { self.inbox.remove(at) };
        let Some(datagram) = datagram else { return };
        self.run(now, datagram.len(), datagram.into());
    }

    pub fn arrive_together(&mut self, now: Instant, count: u8) {
        let Some(stride) = self.inbox.front().map(Vec::len) else { return };
        let mut data = Vec::new();
        for _ in 0..=count {
            match self.inbox.front() {
                Some(next) if next.len() <= stride => data.extend_from_slice(next),
                _ => break,
            }
            let len = self.inbox.pop_front().map_or(0, |datagram| datagram.len());
            if len < stride {
                break;
            }
        }
        self.run(now, stride, data.into());
    }

    fn run(&mut self, now: Instant, stride: usize, data: Bytes) {
        let hint = self.peer.hint;
        self.channel.handle_run(now, &hint, &Run { data, stride }, &mut self.out);
        self.conclude(now);
    }

    pub fn lose(&mut self, which: u8) {
        if !self.inbox.is_empty() {
            self.inbox.remove(usize::from(which) % self.inbox.len());
        }
    }

    pub fn look_at_timers(&mut self, now: Instant) {
        self.channel.handle_deadline(now, &mut self.out);
        self.conclude(now);
        let next = self.channel.next_deadline();
        if next.is_some_and(|at| at <= now) {
            // Once more at the most: what is due was done.
            self.channel.handle_deadline(now, &mut self.out);
            self.conclude(now);
            let next = self.channel.next_deadline();
            assert!(next.is_none_or(|at| at > now), "due for ever: {:?}", self.channel.state());
        }
    }

    pub fn problem(&mut self, now: Instant, problem: NetworkProblem) {
        self.channel.handle_network_problem(now, problem, &mut self.out);
        self.conclude(now);
    }

    pub fn narrow(&mut self, now: Instant, payload_max: u16) {
        let mut path = PathSize::default();
        path.shrink(now, payload_max.saturating_add(HEADER_LEN as u16));
        self.channel.handle_path_size(now, &path, &mut self.out);
        self.conclude(now);
    }

    /// The channel is lost and another takes its place, as after a panic.
    pub fn break_channel(&mut self, now: Instant) {
        if let Some(call) = self.calls.get_mut(&self.channel.tag().0) {
            call.is_over = true;
        }
        let memory = self.channel.memory();
        self.channel = Channel::new(ChannelSetup { memory, ..self.setup.clone() }, now);
    }

    // ---- the application ----

    fn present(&mut self) -> Option<&mut Call> {
        let tag = self.channel.tag().0;
        self.calls.get_mut(&tag).filter(|call| call.is_live())
    }

    pub fn write(&mut self, now: Instant, len: usize, ends: bool, flushes: bool) {
        let side = self.side;
        let Some(call) = self.present() else { return };
        if call.has_ended_writing || call.is_over {
            return;
        }
        let len = (len as u64).min(call.credit);
        let name = if side == Side::Client { call.tag.0 } else { call.number.0 };
        let bytes = pattern(name, side, call.written, len as usize).to_vec();
        call.credit -= len;
        call.written += len;
        call.has_ended_writing = ends;
        let tag = call.tag;
        self.command(now, tag, Command::Write { bytes: bytes.into(), ends, flushes });
    }

    pub fn take(&mut self, now: Instant) {
        let Some(call) = self.present() else { return };
        let (packets, bytes) = std::mem::take(&mut call.owed);
        let tag = call.tag;
        if packets > 0 {
            self.command(now, tag, Command::Consumed { packets, bytes });
        }
    }

    pub fn discard(&mut self, now: Instant) {
        let Some(call) = self.present() else { return };
        call.discards = true;
        let tag = call.tag;
        self.command(now, tag, Command::Discard);
    }

    pub fn finish(&mut self, now: Instant, command: Command) {
        let Some(call) = self.present() else { return };
        call.has_let_go = true;
        let tag = call.tag;
        self.command(now, tag, command);
    }

    /// What a well-behaved application does next.
    pub fn apply(&mut self, now: Instant) {
        self.take(now);
        let side = self.side;
        let Some(call) = self.present() else { return };
        match side {
            _ if call.is_over => self.finish(now, Command::End),
            Side::Client if call.has_whole => self.finish(now, Command::End),
            Side::Client if !call.has_ended_writing => self.write(now, 100, true, true),
            Side::Server if (call.has_whole || call.discards) && !call.has_ended_writing => {
                self.write(now, 3000, true, false);
            }
            _ => {}
        }
    }

    fn command(&mut self, now: Instant, tag: CallTag, command: Command) {
        self.channel.handle_command(now, tag, command, &mut self.out);
        self.conclude(now);
    }

    // ---- outputs ----

    fn conclude(&mut self, now: Instant) {
        let mut out = std::mem::take(&mut self.out);
        let datagrams: Vec<_> = out.datagrams.iter().map(<[u8]>::to_vec).collect();
        out.datagrams.take();
        for datagram in datagrams {
            self.note_sent(&datagram);
            self.sent.push(datagram);
        }
        for (tag, notice) in out.notices.drain(..) {
            self.note(tag, notice);
        }
        for word in out.connection.drain(..) {
            // There is no connection between the two that could fail.
            assert!(!matches!(word, ChannelToConnection::DataAfterFailure), "{word:?}");
        }
        assert!(out.events.len() < 1000);
        out.events.clear();
        let report = std::mem::take(&mut out.peer);
        let config = &self.setup.config;
        self.peer.learn(now, &report, config.reach_ttl, config.dead_timeout);
        self.out = out;
    }

    fn note_sent(&mut self, datagram: &[u8]) {
        let header = Header::decode(datagram).expect("we send packets");
        assert_eq!(header.cid.channel(), ChannelIndex::ALL[1]);
        assert!(!header.serial.is_none() && !header.call_number.is_none());
        assert!(self.serial.is_none_or(|last| last.before(header.serial)), "{header:?}");
        let mut packets = 1;
        match header.packet_type {
            PacketType::Data => {
                packets = check_jumbo(&header, datagram).expect("a good jumbogram") as u32;
            }
            PacketType::Ack => {
                let ack = Ack::decode(&datagram[HEADER_LEN..]).expect("a good ACK");
                let (number, first) = self.first_packet;
                assert!(number != header.call_number || first <= ack.first_packet.0, "{ack:?}");
                self.first_packet = (header.call_number, ack.first_packet.0);
            }
            PacketType::Busy => assert!(!self.takes_over),
            _ => {}
        }
        self.serial = Some(header.serial.plus(packets - 1));
    }

    fn note(&mut self, tag: CallTag, notice: Notice) {
        let side = self.side;
        if let Notice::Incoming(incoming) = notice {
            assert!(self.calls.values().all(|call| call.number < incoming.number), "it ran twice");
            let call =
                Call { tag, number: incoming.number, credit: incoming.credit, ..Call::default() };
            assert!(self.calls.insert(tag.0, call).is_none());
            return;
        }
        let call = self.calls.get_mut(&tag.0).expect("a call that has begun");
        assert!(!call.is_over, "{notice:?} for a call that is over");
        match notice {
            Notice::Started(number) => call.number = number,
            Notice::Data(pieces) => {
                assert!(!call.has_whole && !call.discards);
                for piece in pieces {
                    call.owed.0 += 1;
                    call.owed.1 += piece.len();
                    call.received += piece.len() as u64;
                    call.unproved.push(piece);
                }
            }
            Notice::End => {
                assert!(!std::mem::replace(&mut call.has_whole, true));
                if side == Side::Client {
                    call.is_good = true;
                    self.good_calls += 1;
                }
            }
            Notice::Credit(bytes) => call.credit += bytes,
            Notice::Failed(failure) => {
                call.is_over = true;
                call.is_overtaken = failure == CallFailure::Overtaken;
                // Good news is not taken back.
                assert!(side == Side::Server || !call.is_good, "{failure}");
            }
            Notice::Acknowledged(wholly) => {
                call.is_over = true;
                call.is_good = wholly;
            }
            Notice::Incoming(_) => {}
        }
    }

    /// What the two ends of a call say about it fits together.
    pub fn compare(&mut self, other: &End) {
        let side = self.side;
        for call in self.calls.values_mut().filter(|call| !call.is_settled) {
            let theirs = other.calls.values().find(|theirs| theirs.number == call.number);
            let Some(theirs) = theirs.filter(|_| !call.number.is_none()) else {
                assert!(call.received == 0, "bytes from nobody");
                continue;
            };
            assert!(call.received <= theirs.written);
            // A request is named by the tag of its client, a reply by the call's number.
            let name = if side == Side::Client { call.number.0 } else { theirs.tag.0 };
            call.prove(name, other.side);
            if call.has_whole {
                assert!(theirs.has_ended_writing && call.received == theirs.written);
            }
            call.is_settled = call.is_over;
        }
    }

    pub fn check(&self) {
        let state = self.channel.state();
        let waits = state.is_some_and(|state| {
            let for_application =
                [CallState::ClientReserved, CallState::ClientDone, CallState::ServerDying];
            !for_application.contains(&state)
        });
        let deadline = self.channel.next_deadline();
        assert!(!waits || deadline.is_some(), "{state:?} without a timer");
        let config = &self.setup.config;
        let window = config.receive_window_max_packets as usize;
        assert!(
            self.channel.buffered_bytes()
                <= config.receive_buffer_max_bytes + 2 * window * 1444 + 70_000
        );
        assert!(self.channel.in_flight_packets() <= config.send_window_max_packets);
    }
}

impl Call {
    fn is_live(&self) -> bool {
        !self.has_let_go && (!self.is_over || self.is_overtaken)
    }

    fn prove(&mut self, name: u32, writer: Side) {
        let len: usize = self.unproved.iter().map(Bytes::len).sum();
        let mut at = self.received - len as u64;
        for piece in self.unproved.drain(..) {
            let end = at + piece.len() as u64;
            assert!(piece == pattern(name, writer, at, piece.len()), "bytes {at} to {end}");
            at = end;
        }
    }
}

fn config(options: Options) -> CallConfig {
    let mut config = CallConfig::default();
    if options.small_windows {
        config.receive_window_initial_packets = 3;
        config.receive_window_max_packets = 9;
        config.send_window_initial_packets = 2;
        config.send_window_max_packets = 5;
        config.receive_buffer_max_bytes = 4000;
    }
    if options.jumbograms {
        config.jumbo_receive_packets = 4;
    }
    if options.idle_limits {
        config.idle_timeout = Some(Duration::from_secs(60));
    }
    config.takeover = !options.no_takeover;
    config.keepalive = !options.no_keepalive;
    config
}

/// What one piece of a call may have at the most: a length is of 16 bits.
const PIECE_MAX: usize = 1 << 16;
/// After so many bytes they are the same again; no two calls begin in the same place.
const PATTERN_LEN: usize = 65_521;

/// Bytes of a call's direction, from a place on.
fn pattern(name: u32, writer: Side, at: u64, len: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 0u32;
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let once: Vec<u8> = (0..PATTERN_LEN).map(byte).collect();
        once.iter().cycle().take(PATTERN_LEN + PIECE_MAX).copied().collect()
    });
    let salt = if writer == Side::Client { 17 } else { 91 };
    let begin = (at + u64::from(name) * 7919 + salt) as usize % PATTERN_LEN;
    &PATTERN[begin..begin + len]
}
