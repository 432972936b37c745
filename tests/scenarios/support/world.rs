//! The endpoint under test, its applications and its scripted peer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::channel::{Command, Notice, Start};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::{Identity, Offer, RouteId};
use rxrpc::proto::{CallFailure, CallState, DropReason};
use rxrpc::security::{ClientClass, RxNull};
use rxrpc::testkit::notation::{Defaults, Line, parse, show};
use rxrpc::testkit::{CallRef, InlineEndpoint, StartToken};
use rxrpc::wire::{
    AbortCode, Ack, AckReason, CallNumber, ChannelIndex, Cid, DATA_PAYLOAD_MAX, Epoch, Flags,
    Header, Packet, PacketType, Payload, Serial, ServiceId, Trailer,
};

mod more;

pub use more::{WAYS, Way};

/// Connection K of rx-scenarios.md. Also the names of T's own first client connection.
pub const EPOCH: u32 = 0x8f3a_21c4;
/// Connection K, channel bits clear.
pub const CID: u32 = 0x5d0e_9a34;
/// Where P is, unless the row says otherwise.
pub const PEER: ([u8; 4], u16) = ([10, 0, 0, 1], 7001);

/// How long "none" watches.
const SILENCE: Duration = Duration::from_millis(500);

/// Milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Seconds.
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What T's service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Reads at once and replies with the request when it is complete.
    Echo,
    /// Reads at once and replies with so many full packets when the request is complete.
    Reply(usize),
    /// Reads nothing, writes nothing, until the row says so.
    Manual,
}

/// One call as T's application sees it.
#[derive(Clone, Debug)]
pub struct AppCall {
    pub at: CallRef,
    pub is_client: bool,
    pub number: u32,
    pub service: u16,
    pub user_status: u8,
    /// What was delivered.
    pub bytes: Vec<u8>,
    /// Whether the peer's direction is complete.
    pub ended: bool,
    pub failure: Option<CallFailure>,
    pub acknowledged: Option<bool>,
    unread: (u32, usize),
}

/// One direction of one call: where to, whether from the client, epoch, cid, number.
type CallKey = (SocketAddr, bool, u32, u32, u32);

/// Number and state of each channel of a connection.
type States = [(CallNumber, Option<CallState>); 4];

/// A running scenario.
pub struct Scenario {
    id: &'static str,
    now: Instant,
    start: Instant,
    pub t: InlineEndpoint,
    pub calls: Vec<AppCall>,
    /// T's client connection, where the row has one.
    pub route: Option<RouteId>,
    /// Where the next packets come from.
    pub from: SocketAddr,
    app: App,
    p_is_client: bool,
    serials: [u32; 2],
    highest_number: u32,
    sent: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    ladder: Vec<String>,
    seen_serials: BTreeMap<(SocketAddr, bool, u32, u32), Serial>,
    /// firstPacket and upper edge of each call's last ACK.
    edges: BTreeMap<CallKey, (u32, u32)>,
    starts: BTreeMap<StartToken, bool>,
    pub refused: Vec<CallFailure>,
    pub returned: usize,
}

/// T is the server of service 1 and P its client.
#[track_caller]
pub fn server(id: &'static str) -> Scenario {
    server_with(id, |_| {})
}

/// As [`server`], with other settings.
#[track_caller]
pub fn server_with(id: &'static str, adjust: impl FnOnce(&mut EndpointConfig)) -> Scenario {
    Scenario::new(id, true, adjust)
}

/// T has a client connection to P, with the names of K.
#[track_caller]
pub fn client(id: &'static str) -> Scenario {
    client_with(id, |_| {})
}

/// As [`client`], with other settings.
#[track_caller]
pub fn client_with(id: &'static str, adjust: impl FnOnce(&mut EndpointConfig)) -> Scenario {
    let mut scenario = Scenario::new(id, false, adjust);
    scenario.connect();
    scenario
}

impl Scenario {
    fn new(id: &'static str, p_is_client: bool, adjust: impl FnOnce(&mut EndpointConfig)) -> Self {
        let mut config = EndpointConfig {
            strict_address: false,
            debug_responder: true,
            amplification_max: None,
            ..EndpointConfig::default()
        };
        for call in [&mut config.server.call, &mut config.client.call] {
            call.keepalive = false;
            call.receive_window_max_packets = 32;
        }
        // The rows speak of one connection, also where no call of it reaches its service.
        config.server.unserved_idle = config.server.server_idle;
        adjust(&mut config);
        let now = Instant::now();
        let identity = Identity { epoch: Epoch(EPOCH), first_cid: Cid(CID), hash_seed: 1 };
        let mut t = InlineEndpoint::new(config, identity, now);
        t.offer(ServiceId(1), Scenario::plain_offer());
        Scenario {
            id,
            now,
            start: now,
            t,
            calls: Vec::new(),
            route: None,
            from: PEER.into(),
            app: App::Echo,
            p_is_client,
            serials: [0; 2],
            highest_number: 0,
            sent: VecDeque::new(),
            ladder: Vec::new(),
            seen_serials: BTreeMap::new(),
            edges: BTreeMap::new(),
            starts: BTreeMap::new(),
            refused: Vec::new(),
            returned: 0,
        }
    }

    /// rxnull, no reach check, no upgrade.
    pub fn plain_offer() -> Offer {
        Offer { classes: vec![Arc::new(RxNull)], needs_reach: false, upgrades_to: None }
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// From now on T's service does this.
    pub fn app(&mut self, app: App) -> &mut Self {
        self.app = app;
        self
    }

    /// Opens a client connection of T to P.
    pub fn connect(&mut self) -> RouteId {
        self.connect_with(&RxNull)
    }

    /// As [`Scenario::connect`], with any class.
    pub fn connect_with(&mut self, class: &dyn ClientClass) -> RouteId {
        let route = self.t.connect(self.now, self.from, ServiceId(1), class, false);
        self.route.get_or_insert(route);
        route
    }

    // ---- P's packets -------------------------------------------------------------------------

    /// P sends this packet.
    #[track_caller]
    pub fn send(&mut self, line: &str) -> &mut Self {
        let datagram = self.datagram(line);
        self.send_raw(&datagram)
    }

    /// P sends these packets, one by one.
    #[track_caller]
    pub fn send_all(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            self.send(line);
        }
        self
    }

    /// P's packets arrive together, as one batch; all but the last must have the same size.
    #[track_caller]
    pub fn send_together(&mut self, lines: &[&str]) -> &mut Self {
        let mut data = Vec::new();
        let mut stride = 0;
        for line in lines {
            let datagram = self.datagram(line);
            self.note("P>T together", &show(&datagram));
            stride = stride.max(datagram.len());
            data.extend(datagram);
        }
        self.t.receive_batch(self.now, self.from, Bytes::from(data), stride);
        self.pump();
        self
    }

    /// P sends these bytes.
    #[track_caller]
    pub fn send_raw(&mut self, datagram: &[u8]) -> &mut Self {
        self.note("P>T", &show(datagram));
        self.t.receive(self.now, self.from, datagram);
        self.pump();
        self
    }

    /// The datagram of a line, with P's next serial where it names none.
    #[track_caller]
    pub fn datagram(&mut self, line: &str) -> Vec<u8> {
        let line: Line = parse(line);
        let from_client = line.is_from_client(self.p_is_client);
        let serial = &mut self.serials[usize::from(from_client)];
        let default = serial.wrapping_add(1).max(1);
        let named = if line.packet_type == 2 { line.header_serial } else { line.serial };
        *serial = named.map_or(default, |named| if named == 0 { *serial } else { named });
        *serial = serial.wrapping_add(line.more.len() as u32);
        let flags = if from_client { Flags::CLIENT_INITIATED.0 } else { 0 };
        if from_client {
            self.highest_number = self.highest_number.max(line.number.unwrap_or(0));
        }
        line.encode(&Defaults { epoch: EPOCH, cid: CID, serial: named.unwrap_or(default), flags })
    }

    // ---- what is expected --------------------------------------------------------------------

    /// Exactly these packets have left T since the last look, in this order.
    #[track_caller]
    pub fn expect(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            match self.sent.pop_front() {
                None => self.fail(&format!("expected {line}, nothing left")),
                Some((at, _, datagram)) => self.compare(line, at, &datagram),
            }
        }
        if let Some((_, _, datagram)) = self.sent.front() {
            self.fail(&format!("unexpected: {}", show(datagram)));
        }
        self
    }

    /// One packet has left T, to this address.
    #[track_caller]
    pub fn expect_to(&mut self, to: SocketAddr, line: &str) -> &mut Self {
        if let Some((_, got, _)) = self.sent.front()
            && *got != to
        {
            self.fail(&format!("expected {line} to {to}, went to {got}"));
        }
        self.expect(&[line])
    }

    /// What has left T since the last look does not matter.
    pub fn ignore_left(&mut self) -> &mut Self {
        self.sent.clear();
        self
    }

    /// Nothing leaves T now nor within 500 ms.
    #[track_caller]
    pub fn none(&mut self) -> &mut Self {
        self.silent(SILENCE)
    }

    /// Nothing leaves T now nor within `time`.
    #[track_caller]
    pub fn silent(&mut self, time: Duration) -> &mut Self {
        self.expect(&[]);
        self.pass(time);
        self.expect(&[])
    }

    /// Nothing leaves T before `time` has passed; then, at that instant, exactly these packets do.
    #[track_caller]
    pub fn after(&mut self, time: Duration, lines: &[&str]) -> &mut Self {
        self.expect(&[]);
        let due = self.now + time;
        self.pass(time);
        if let Some((at, _, datagram)) = self.sent.front()
            && *at != due
        {
            let shown = show(datagram);
            self.fail(&format!("left {:?} too early: {shown}", due - *at));
        }
        self.expect(lines)
    }

    /// P sends this, nothing leaves T, the counter of `reason` rises by one and nothing else changes.
    #[track_caller]
    pub fn dropped(&mut self, reason: DropReason, line: &str) -> &mut Self {
        let datagram = self.datagram(line);
        self.dropped_raw(reason, &datagram)
    }

    /// As [`Scenario::dropped`], for any bytes.
    #[track_caller]
    pub fn dropped_raw(&mut self, reason: DropReason, datagram: &[u8]) -> &mut Self {
        let states = self.states();
        let before = self.t.counters().clone();
        self.send_raw(datagram);
        let after = self.t.counters();
        let mut expected = before.clone();
        expected.dropped[reason as usize] += 1;
        expected.receives = after.receives;
        expected.datagrams_received = after.datagrams_received;
        expected.bytes_received = after.bytes_received;
        expected.received_by_type = after.received_by_type;
        if *after != expected {
            let rose: Vec<_> = DropReason::ALL
                .into_iter()
                .filter(|reason| after.dropped_for(*reason) != before.dropped_for(*reason))
                .map(DropReason::name)
                .collect();
            self.fail(&format!("expected a drop as {reason}, counters say {rose:?}"));
        }
        if self.states() != states {
            self.fail("a dropped packet changed the state of a channel");
        }
        self.none()
    }

    /// As far as anybody can see from outside: each channel's number and state.
    pub fn states(&self) -> Vec<(RouteId, States)> {
        let of = |route| {
            ChannelIndex::ALL.map(|index| match self.t.channel(route, index) {
                Some(channel) => (channel.call_number(), channel.state()),
                None => (CallNumber::NONE, None),
            })
        };
        self.t.routes().into_iter().map(|route| (route, of(route))).collect()
    }

    /// State of a channel of T's connection K (the first one).
    pub fn state(&self, channel: u8) -> Option<CallState> {
        let route = self.t.routes().first().copied()?;
        self.t.channel(route, ChannelIndex::new(channel)?)?.state()
    }

    #[track_caller]
    pub fn expect_state(&mut self, state: Option<CallState>) -> &mut Self {
        if self.state(0) != state {
            self.fail(&format!("expected {state:?}, is {:?}", self.state(0)));
        }
        self
    }

    /// The number of connections of T.
    #[track_caller]
    pub fn expect_connections(&mut self, count: usize) -> &mut Self {
        if self.t.routes().len() != count {
            self.fail(&format!("expected {count} connections, are {}", self.t.routes().len()));
        }
        self
    }

    /// The numbers of the calls that T's application was told of, in order.
    #[track_caller]
    pub fn expect_calls(&mut self, numbers: &[u32]) -> &mut Self {
        let got: Vec<u32> = self.calls.iter().map(|call| call.number).collect();
        if got != numbers {
            self.fail(&format!("expected calls {numbers:?}, were {got:?}"));
        }
        self
    }

    /// What the application of call `number` got as its request or reply, which must be complete.
    #[track_caller]
    pub fn expect_bytes(&mut self, number: u32, bytes: &[u8]) -> &mut Self {
        let call = self.call(number);
        if !call.ended || call.bytes != bytes {
            let got = (call.ended, call.bytes.len());
            self.fail(&format!("call {number}: expected {} bytes, got {got:?}", bytes.len()));
        }
        self
    }

    /// How the application of call `number` was told that it failed; `None` = it was not.
    #[track_caller]
    pub fn expect_failure(&mut self, number: u32, failure: Option<CallFailure>) -> &mut Self {
        let got = self.call(number).failure;
        if got != failure {
            self.fail(&format!("call {number}: expected {failure:?}, got {got:?}"));
        }
        self
    }

    /// What the application of call `number` was told of its reply.
    #[track_caller]
    pub fn expect_acknowledged(&mut self, number: u32, wholly: Option<bool>) -> &mut Self {
        let got = self.call(number).acknowledged;
        if got != wholly {
            self.fail(&format!("call {number}: expected {wholly:?}, got {got:?}"));
        }
        self
    }

    /// The latest call with this number.
    #[track_caller]
    pub fn call(&mut self, number: u32) -> AppCall {
        match self.calls.iter().rev().find(|call| call.number == number) {
            Some(call) => call.clone(),
            None => self.fail(&format!("no application has call {number}")),
        }
    }

    /// The row's last line: whatever happened, T answers the next call on K.
    #[track_caller]
    pub fn done(&mut self) {
        self.expect(&[]);
        self.app = App::Echo;
        let number = self.highest_number + 1;
        self.send(&format!("D n{number} q1 [CL] \"alive\""));
        self.expect(&[&format!("D n{number} q1 [L] \"alive\"")]);
    }

    /// As [`Scenario::done`] where K is dead: on a connection of its own.
    #[track_caller]
    pub fn done_elsewhere(&mut self) {
        self.expect(&[]);
        self.app = App::Echo;
        self.send("D n1 q1 s1 [CL] cid00123450 \"alive\"");
        self.expect(&["D n1 q1 [L] cid00123450 \"alive\""]);
    }

    // ---- T's applications --------------------------------------------------------------------

    /// T's application starts a call with this request, which is whole.
    #[track_caller]
    pub fn start(&mut self, request: &[u8]) -> StartToken {
        let request = Bytes::copy_from_slice(request);
        self.start_with(Start { request, is_whole: true, ..Start::default() })
    }

    /// T's application starts a call.
    #[track_caller]
    pub fn start_with(&mut self, start: Start) -> StartToken {
        let Some(route) = self.route else { self.fail("no client connection") };
        self.start_on(route, start)
    }

    /// T's application starts a call on one of its connections.
    pub fn start_on(&mut self, route: RouteId, start: Start) -> StartToken {
        self.note("app", &format!("starts a call, {} bytes", start.request.len()));
        let token = self.t.start(self.now, route, start);
        self.pump();
        token
    }

    /// The application of call `number` says this.
    #[track_caller]
    pub fn command(&mut self, number: u32, command: Command) -> &mut Self {
        let at = self.call(number).at;
        let shown = match &command {
            Command::Write { bytes, ends, .. } => format!("writes {} bytes, {ends}", bytes.len()),
            other => format!("{other:?}"),
        };
        self.note("app", &format!("n{number}: {shown}"));
        self.t.command(self.now, at, command);
        self.pump();
        self
    }

    /// The application of call `number` writes.
    #[track_caller]
    pub fn write(&mut self, number: u32, bytes: &[u8], ends: bool) -> &mut Self {
        let bytes = Bytes::copy_from_slice(bytes);
        self.command(number, Command::Write { bytes, ends, flushes: false })
    }

    /// The application of call `number` writes so many full packets.
    #[track_caller]
    pub fn write_packets(&mut self, number: u32, packets: usize, ends: bool) -> &mut Self {
        self.write(number, &vec![0x55; packets * DATA_PAYLOAD_MAX], ends)
    }

    /// The application of call `number` takes all that was delivered.
    #[track_caller]
    pub fn read_all(&mut self, number: u32) -> &mut Self {
        let at = self.call(number).at;
        let call = self.calls.iter_mut().find(|call| call.at == at);
        let (packets, bytes) =
            call.map(|call| std::mem::take(&mut call.unread)).unwrap_or_default();
        self.command(number, Command::Consumed { packets, bytes })
    }

    /// The application of call `number` ends it.
    #[track_caller]
    pub fn end(&mut self, number: u32) -> &mut Self {
        self.command(number, Command::End)
    }

    /// The application of call `number` ends it with this code.
    #[track_caller]
    pub fn abort(&mut self, number: u32, code: i32) -> &mut Self {
        self.command(number, Command::Abort(AbortCode(code)))
    }

    // ---- time --------------------------------------------------------------------------------

    /// Time passes, with all that is due in it.
    pub fn pass(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        while let Some(next) = self.t.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.t.advance(self.now);
            self.pump();
        }
        self.now = end;
        self
    }

    // ---- inside ------------------------------------------------------------------------------

    /// Ends the test with the ladder so far.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}\n{}", self.id, self.ladder.join("\n"));
    }

    /// Adds a line to the ladder.
    pub fn note(&mut self, who: &str, what: &str) {
        let at = self.now - self.start;
        self.ladder.push(format!("  {:>9.3} ms {who:<5} {what}", at.as_secs_f64() * 1000.0));
    }

    #[track_caller]
    fn compare(&self, line: &str, at: Instant, datagram: &[u8]) {
        let differences = parse(line).differences(datagram);
        if !differences.is_empty() {
            let at = (at - self.start).as_secs_f64() * 1000.0;
            let (got, why) = (show(datagram), differences.join("; "));
            self.fail(&format!("expected {line}\n  at {at:.3} ms left {got}\n  {why}"));
        }
    }

    /// Takes what left T, and lets its applications act, until nothing moves.
    #[track_caller]
    pub fn pump(&mut self) {
        loop {
            for (to, datagram) in self.t.take_sent() {
                self.note("T>P", &show(&datagram));
                self.check_invariants(to, &datagram);
                self.sent.push_back((self.now, to, datagram));
            }
            self.refused.extend(self.t.take_refused().into_iter().map(|(_, failure)| failure));
            self.returned += self.t.take_returned().len();
            for (token, at) in self.t.take_started() {
                self.starts.insert(token, true);
                self.calls.push(AppCall::new(at, true));
            }
            let notices = self.t.take_notices();
            if notices.is_empty() {
                return;
            }
            for (at, notice) in notices {
                self.take_notice(at, notice);
            }
        }
    }

    fn take_notice(&mut self, at: CallRef, notice: Notice) {
        if let Notice::Incoming(incoming) = &notice {
            let mut call = AppCall::new(at, false);
            call.number = incoming.number.0;
            call.service = incoming.service_id.0;
            call.user_status = incoming.user_status;
            self.note("app", &format!("n{} comes in", call.number));
            self.calls.push(call);
            return;
        }
        let app = self.app;
        if !self.calls.iter().any(|call| call.at == at) {
            self.calls.push(AppCall::new(at, true));
        }
        let Some(call) = self.calls.iter_mut().find(|call| call.at == at) else { return };
        match notice {
            Notice::Started(number) => call.number = number.0,
            Notice::Data(pieces) => {
                let bytes: usize = pieces.iter().map(Bytes::len).sum();
                pieces.iter().for_each(|piece| call.bytes.extend_from_slice(piece));
                let packets = pieces.len() as u32;
                if app == App::Manual {
                    call.unread.0 += packets;
                    call.unread.1 += bytes;
                } else {
                    self.t.command(self.now, at, Command::Consumed { packets, bytes });
                }
            }
            Notice::End => {
                call.ended = true;
                let reply = match app {
                    _ if call.is_client => return,
                    App::Manual => return,
                    App::Echo => Bytes::from(call.bytes.clone()),
                    App::Reply(packets) => Bytes::from(vec![0x55; packets * DATA_PAYLOAD_MAX]),
                };
                let write = Command::Write { bytes: reply, ends: true, flushes: false };
                self.t.command(self.now, at, write);
            }
            Notice::Failed(failure) => {
                call.failure = Some(failure);
                let number = call.number;
                self.note("app", &format!("n{number} failed: {failure}"));
            }
            Notice::Acknowledged(wholly) => {
                call.acknowledged = Some(wholly);
                let number = call.number;
                self.note("app", &format!("n{number} acknowledged: {wholly}"));
            }
            Notice::Credit(_) | Notice::Incoming(_) => {}
        }
    }

    /// Rules that hold for every packet of ours.
    #[track_caller]
    fn check_invariants(&mut self, to: SocketAddr, datagram: &[u8]) {
        let packet = match Packet::decode(datagram) {
            Ok(packet) => packet,
            Err(error) => self.fail(&format!("T sent what cannot be read: {error}")),
        };
        let header = packet.header;
        if !header.serial.is_none() {
            let key = (to, header.is_from_client(), header.epoch.0, header.cid.connection().0);
            let last = self.seen_serials.insert(key, header.serial);
            if last.is_some_and(|last| !header.serial.after(last)) {
                self.fail("T's serials do not rise");
            }
        }
        if header.seq.0 != 0 && header.packet_type != PacketType::Data {
            self.fail("seq in a packet that is not DATA");
        }
        match packet.payload {
            Payload::Data(data) => {
                if data.bytes.len() > DATA_PAYLOAD_MAX {
                    self.fail("DATA larger than 1412 bytes");
                }
                let asks = header.flags.has(Flags::REQUEST_ACK);
                if !header.is_from_client() && header.flags.has(Flags::LAST_PACKET) && asks {
                    self.fail("REQUEST_ACK on the last DATA of a reply");
                }
            }
            Payload::Ack(ack) => self.check_ack(to, &header, &ack),
            _ => {}
        }
    }

    /// "As a sender obey the strictest reader" (rx-wire.md 4.4.3), and rx-flow.md 6.1.
    #[track_caller]
    fn check_ack(&mut self, to: SocketAddr, header: &Header, ack: &Ack<'_>) {
        let Trailer::Full(full) = ack.trailer else { self.fail("an ACK without four words") };
        let asks_size = ack.reason == AckReason::Ping && ack.excess.iter().all(|byte| *byte == 0);
        let plain = ack.padding == [0; 3]
            && (ack.excess.is_empty() || asks_size)
            && ack.buffer_space == 0
            && ack.max_skew == 0
            && ack.sacks.iter().all(|entry| *entry <= 1)
            && header.flags.has(Flags::SLOW_START_OK)
            && full.jumbo_max >= 1;
        if !plain {
            self.fail("an ACK that the strictest reader might refuse");
        }
        let is_ping = ack.reason == AckReason::Ping;
        if header.flags.has(Flags::REQUEST_ACK) != is_ping {
            self.fail("REQUEST_ACK belongs to PING and nothing else");
        }
        let (first, previous) = (ack.first_packet.0, ack.previous_packet.0);
        if first == 0 || first > previous + 1 || first + ack.sacks.len() as u32 > previous + 1 {
            self.fail("an ACK describes packets above the highest accepted");
        }
        if ack.sacks.len() < 255 && first + ack.sacks.len() as u32 != previous + 1 {
            self.fail("an ACK does not describe all packets up to the highest accepted");
        }
        if matches!(ack.reason, AckReason::OutOfSequence | AckReason::ExceedsWindow)
            && previous == 0
        {
            self.fail("a Linux client would take this ACK for a net reset");
        }
        let key = (to, header.is_from_client(), header.epoch.0, header.cid.0, header.call_number.0);
        let edge = first + full.rwind;
        let (low, high) = self.edges.insert(key, (first, edge)).unwrap_or_default();
        if first < low || edge < high {
            self.fail("an ACK takes back what an earlier one promised");
        }
    }
}

impl AppCall {
    fn new(at: CallRef, is_client: bool) -> AppCall {
        AppCall {
            at,
            is_client,
            number: 0,
            service: 0,
            user_status: 0,
            bytes: Vec::new(),
            ended: false,
            failure: None,
            acknowledged: None,
            unread: (0, 0),
        }
    }
}
