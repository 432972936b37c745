//! Whatever comes from an address that has not proved itself, and whenever: it draws no more than three
//! times its bytes. VERSION and DEBUG answers stand outside the sum; they have limits of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use rxrpc::proto::channel::{Command, Notice};
use rxrpc::proto::config::EndpointConfig;
use rxrpc::proto::router::Offer;
use rxrpc::testkit::InlineEndpoint;
use rxrpc::wire::{
    Ack, AckReason, CallNumber, Cid, Epoch, Flags, FullTrailer, Header, PacketType, SecurityIndex,
    Seq, Serial, ServiceId, Trailer,
};

use crate::fake_class::FakeClass;
use crate::support::{offer, server_with};

/// What somebody does who cannot see our answers.
#[derive(Clone, Debug)]
enum Step {
    /// A datagram from address `from`.
    Send { from: u8, datagram: Vec<u8> },
    /// A datagram so many times at once: they are one batch.
    Batch { from: u8, datagram: Vec<u8>, times: usize },
    /// What was sent before, from the same address or another one.
    Replay { from: u8, index: usize },
    /// Time passes.
    Pass { ms: u64 },
}

fn header() -> impl Strategy<Value = Header> {
    let epoch = prop_oneof![9 => Just(0x8f3a_21c4), 1 => any::<u32>()];
    let cid = prop_oneof![9 => 4u32..16, 1 => any::<u32>()];
    let number = prop_oneof![8 => 0u32..4, 1 => any::<u32>()];
    let seq = prop_oneof![8 => 0u32..6, 2 => 0u32..40, 1 => any::<u32>()];
    let serial = prop_oneof![4 => 0u32..100, 1 => any::<u32>()];
    let packet_type = prop_oneof![6 => Just(1u8), 3 => Just(2), 4 => 0u8..16];
    let flags = prop_oneof![6 => 0u8..8, 1 => any::<u8>()];
    let service = prop_oneof![9 => 1u16..5, 1 => any::<u16>()];
    let index = prop_oneof![4 => Just(0u8), 2 => Just(2), 1 => any::<u8>()];
    ((epoch, cid, number, seq, serial), (packet_type, flags, service, index, any::<bool>()))
        .prop_map(
            |((epoch, cid, number, seq, serial), (packet_type, flags, service, index, server))| {
                Header {
                    epoch: Epoch(epoch),
                    cid: Cid(cid),
                    call_number: CallNumber(number),
                    seq: Seq(seq),
                    serial: Serial(serial),
                    packet_type: PacketType::from_byte(packet_type),
                    // Mostly as a client's.
                    flags: Flags(flags).with_if(!server || flags & 4 != 0, Flags::CLIENT_INITIATED),
                    user_status: flags & 1,
                    security_index: SecurityIndex(index),
                    cksum: 0,
                    service_id: ServiceId(service),
                }
            },
        )
}

fn ack_body(first: u32, previous: u32, serial: u32, reason: u8, sacks: &[u8]) -> Vec<u8> {
    let ack = Ack {
        buffer_space: 0,
        max_skew: 0,
        first_packet: Seq(first),
        previous_packet: Seq(previous),
        serial: Serial(serial),
        reason: AckReason::from_byte(reason),
        sacks,
        padding: [0; 3],
        trailer: Trailer::Full(FullTrailer {
            max_mtu: 1444,
            if_mtu: 1444,
            rwind: 255,
            jumbo_max: 1,
        }),
        excess: &[],
    };
    let mut body = Vec::new();
    ack.encode(&mut body);
    body
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(Vec::new()),
        3 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 1412..=1412),
        3 => (0u32..6, 0u32..6, 0u32..100, 0u8..11, prop::collection::vec(0u8..2, 0..6))
            .prop_map(|(first, previous, serial, reason, sacks)| {
                ack_body(first, previous, serial, reason, &sacks)
            }),
    ]
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let whole = (header(), payload())
        .prop_map(|(header, payload)| [&header.encode()[..], &payload].concat());
    prop_oneof![
        12 => whole,
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..6, datagram()).prop_map(|(from, datagram)| Step::Send { from, datagram }),
        2 => (0u8..6, datagram(), 1usize..40)
            .prop_map(|(from, datagram, times)| Step::Batch { from, datagram, times }),
        3 => (0u8..6, any::<prop::sample::Index>())
            .prop_map(|(from, index)| Step::Replay { from, index: index.index(1 << 16) }),
        3 => prop_oneof![0u64..20, 0u64..3000, Just(61_000)].prop_map(|ms| Step::Pass { ms }),
    ]
}

/// Three ports of each of two hosts.
fn from(index: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 4 + index % 2], 7001 + u16::from(index / 2)))
}

struct Attack {
    now: Instant,
    server: InlineEndpoint,
    drawn: BTreeMap<SocketAddr, (usize, usize)>,
    proved: BTreeSet<SocketAddr>,
    sent: Vec<Vec<u8>>,
    answers: u64,
}

impl Attack {
    fn new(first_serial: u32, adjust: impl FnOnce(&mut EndpointConfig)) -> Attack {
        let now = Instant::now();
        let mut config = EndpointConfig { debug_responder: true, ..EndpointConfig::default() };
        adjust(&mut config);
        let mut server = server_with(config, now);
        server.set_first_serial(Serial(first_serial));
        // 1 waits for proofs, 2 and 4 answer anybody, 3 challenges; 4 has little time.
        server.offer(ServiceId(1), offer(true));
        server.offer(ServiceId(2), offer(false));
        let classes = vec![Arc::new(FakeClass::default()) as _];
        server.offer(ServiceId(3), Offer { classes, needs_reach: true, upgrades_to: None });
        server.offer(ServiceId(4), offer(false));
        server.limit_service(ServiceId(4), NonZeroUsize::new(1));
        // Each answers at once and at length: what could not be worse.
        server.answer_notices(|_, notice| match notice {
            Notice::Incoming(_) => {
                let bytes = Bytes::from_static(&[7; 100_000]);
                Some(Command::Write { bytes, ends: true, flushes: false })
            }
            _ => None,
        });
        Attack {
            now,
            server,
            drawn: BTreeMap::new(),
            proved: BTreeSet::new(),
            sent: Vec::new(),
            answers: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send { from: index, datagram } => self.send(from(*index), datagram, 1),
            Step::Batch { from: index, datagram, times } => {
                self.send(from(*index), datagram, *times);
            }
            Step::Replay { from: index, index: which } => {
                if !self.sent.is_empty() {
                    let datagram = self.sent[which % self.sent.len()].clone();
                    self.send(from(*index), &datagram, 1);
                }
            }
            Step::Pass { ms } => self.pass(Duration::from_millis(*ms)),
        }
        self.count();
    }

    fn send(&mut self, from: SocketAddr, datagram: &[u8], times: usize) {
        let data = Bytes::from(datagram.repeat(times));
        self.drawn.entry(from).or_default().0 += data.len();
        self.server.receive_batch(self.now, from, data, datagram.len());
        self.sent.push(datagram.to_vec());
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.server.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.server.advance(self.now);
        }
        self.now = end;
    }

    fn count(&mut self) {
        for (to, datagram) in self.server.take_sent() {
            let packet_type = Header::decode(&datagram).unwrap().packet_type;
            if !matches!(packet_type, PacketType::Version | PacketType::Debug) {
                self.drawn.entry(to).or_default().1 += datagram.len();
                self.answers += 1;
            }
        }
        for (address, (received, sent)) in &self.drawn {
            if self.server.router().hint_of(*address).proved_until.is_some() {
                self.proved.insert(*address);
            }
            let is_proved = self.proved.contains(address);
            assert!(is_proved || *sent <= 3 * received, "{address}: {received} drew {sent}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_unproved_address_draws_more_than_three_times_its_bytes(
        steps in prop::collection::vec(step(), 1..150),
        first_serial in 1_000_000u32..0x7fff_0000,
        unproved_connections_max in prop_oneof![Just(1usize), 2usize..6, Just(4096)],
        takeover in any::<bool>(),
        strict_address in any::<bool>(),
    ) {
        let mut attack = Attack::new(first_serial, |config| {
            config.unproved_connections_max = unproved_connections_max;
            config.server.call.takeover = takeover;
            config.strict_address = strict_address;
            config.queued_calls_max = Some(1);
        });
        for step in &steps {
            attack.take(step);
        }
        attack.pass(Duration::from_secs(200));
        attack.count();
        // An attack that is none would prove nothing.
        prop_assert!(attack.proved.is_empty(), "serials cannot be guessed");
    }
}

/// The property is not held by silence: an ordinary first packet is answered.
#[test]
fn an_unproved_address_is_answered_up_to_the_limit() {
    let mut attack = Attack::new(1_000_000, |_| {});
    let datagram = crate::support::data(4, 1, Flags::LAST_PACKET, &[1; 500]);
    attack.take(&Step::Send { from: 0, datagram: datagram.clone() });
    assert!(attack.answers > 0);
    let mut large = datagram;
    large[27] = 2;
    attack.take(&Step::Send { from: 1, datagram: large });
    let (received, sent) = attack.drawn[&from(1)];
    assert!(sent <= 3 * received);
}

/// Found by the property: ABORTs without a connection were not counted among what a connection may send.
#[test]
fn answers_with_and_without_a_connection_stay_within_the_limit_together() {
    let mut attack = Attack::new(1_000_000, |_| {});
    let datagram = crate::support::data(4, 1, Flags::LAST_PACKET, b"x");
    attack.take(&Step::Send { from: 0, datagram });
    for cid in 2..7 {
        let mut datagram = crate::support::data(4 * cid, 1, Flags::LAST_PACKET, b"");
        datagram[27] = 9;
        attack.take(&Step::Send { from: 0, datagram });
    }
    assert_eq!(attack.answers, 6, "a PING and five ABORTs");
    attack.pass(Duration::from_secs(30));
    attack.count();
    assert!(attack.answers > 8, "the PING is repeated as far as may be");
}
