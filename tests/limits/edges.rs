//! Fixed limits at their edges: packets of one burst, and connections that a call tries.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use rxrpc::net::{MemoryHub, MemoryNetwork, Network, Transmit};
use rxrpc::proto::channel::Start;
use rxrpc::proto::config::EndpointConfig;
use rxrpc::security::{ClientClass, ClientStart, ConnectionIds, Entropy, RxNull};
use rxrpc::testkit::InlineEndpoint;
use rxrpc::wire::{
    Ack, AckReason, CallNumber, Flags, FullTrailer, Header, PacketType, SecurityIndex, Seq, Serial,
    ServiceId, Trailer,
};
use rxrpc::{CallError, ConnectError, ConnectOptions, Endpoint};

use crate::support::{SERVER, server_with};

/// `BURST_PACKETS_MAX` of `src/proto/channel/transmit.rs`.
const BURST: usize = 512;
/// `TRIES_MAX` of `src/client/connection.rs`.
const TRIES: usize = 4;
const PAYLOAD: usize = 1412;

/// A client that writes so many packets to somebody with a large window; at each step, how many leave.
struct Writer {
    now: Instant,
    client: InlineEndpoint,
    header: Option<Header>,
    sent: u32,
}

impl Writer {
    fn new(packets: usize) -> Writer {
        let now = Instant::now();
        let mut config = EndpointConfig::default();
        config.client.call.send_window_initial_packets = 255;
        config.client.call.congestion_window_initial_packets = 255;
        let mut client = server_with(config, now);
        let route = client.connect(now, SERVER.into(), ServiceId(1), &RxNull, false);
        let request = Bytes::from(vec![1; packets * PAYLOAD]);
        client.start(now, route, Start { request, is_whole: true, ..Start::default() });
        Writer { now, client, header: None, sent: 0 }
    }

    /// The DATA packets that have left.
    fn burst(&mut self) -> usize {
        let mut count = 0;
        for (_, datagram) in self.client.take_sent() {
            let header = Header::decode(&datagram).unwrap();
            if header.packet_type == PacketType::Data {
                self.header = Some(header);
                self.sent = self.sent.max(header.seq.0);
                count += 1;
            }
        }
        count
    }

    /// All packets below `first` are acknowledged, and there is room for thousands.
    fn acknowledge(&mut self, first: u32) {
        let header = self.header.unwrap();
        let header = Header {
            packet_type: PacketType::Ack,
            flags: Flags::NONE,
            seq: Seq(0),
            serial: Serial(first),
            ..header
        };
        let mut datagram = header.encode().to_vec();
        Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: Seq(first),
            previous_packet: Seq(first - 1),
            serial: Serial(0),
            reason: AckReason::Delay,
            sacks: &[],
            padding: [0; 3],
            trailer: Trailer::Full(FullTrailer {
                max_mtu: 1444,
                if_mtu: 1444,
                rwind: 4000,
                jumbo_max: 1,
            }),
            excess: &[],
        }
        .encode(&mut datagram);
        self.client.receive(self.now, SERVER.into(), &datagram);
    }

    /// Steps of full windows, until nothing more leaves: how many packets each had.
    fn steps(packets: usize) -> Vec<usize> {
        let mut writer = Writer::new(packets);
        let mut steps = vec![writer.burst()];
        while *steps.last().unwrap() > 0 {
            writer.acknowledge(writer.sent + 1);
            steps.push(writer.burst());
        }
        steps.pop();
        assert_eq!(steps.iter().sum::<usize>(), packets);
        steps
    }
}

/// However large the windows: a step sends 512 packets, and what is left goes with the next.
#[test]
fn a_step_sends_a_whole_burst_and_the_packet_beyond_waits_for_the_next_step() {
    let wide = Writer::steps(5000);
    assert_eq!(wide.iter().max(), Some(&BURST), "{wide:?}");
    // What goes before the first whole burst, while the windows are small.
    let before: usize = wide.iter().take_while(|step| **step < BURST).sum();
    let whole = Writer::steps(before + BURST);
    assert_eq!(whole.last(), Some(&BURST), "{whole:?}");
    let beyond = Writer::steps(before + BURST + 1);
    assert_eq!(beyond[beyond.len() - 2..], [BURST, 1], "{beyond:?}");
}

/// Connections that are aborted as soon as they are made, before their call reaches them.
#[derive(Debug)]
struct Doomed {
    made: AtomicUsize,
    doomed: usize,
    peer: Mutex<MemoryNetwork>,
    client: SocketAddr,
}

impl ClientClass for Doomed {
    fn index(&self) -> SecurityIndex {
        SecurityIndex::NULL
    }

    fn connect(&self, ids: ConnectionIds, entropy: &Entropy) -> ClientStart {
        if self.made.fetch_add(1, Ordering::Relaxed) < self.doomed {
            let header = Header {
                epoch: ids.epoch,
                cid: ids.cid,
                call_number: CallNumber(0),
                seq: Seq(0),
                serial: Serial(1),
                packet_type: PacketType::Abort,
                flags: Flags::NONE,
                user_status: 0,
                security_index: SecurityIndex::NULL,
                cksum: 0,
                service_id: ServiceId(1),
            };
            let datagram = [&header.encode()[..], &(-1i32).to_be_bytes()].concat();
            let transmit = Transmit::datagram(self.client, &datagram);
            self.peer.lock().unwrap().try_send(&transmit).unwrap();
        }
        RxNull.connect(ids, entropy)
    }
}

/// A call whose connections turn out to be closed, so many of them, and how many were made for it.
async fn call_over(doomed: usize) -> (Result<Bytes, CallError>, usize) {
    let hub = MemoryHub::new();
    let client = SocketAddr::from(([10, 0, 0, 9], 7001));
    let bound = hub.bind(SERVER.into()).unwrap();
    let (_, source) = hub.bind_source(client).unwrap();
    let endpoint = Endpoint::builder().network(source).own_thread(false).start().await.unwrap();
    let class =
        Arc::new(Doomed { made: AtomicUsize::new(0), doomed, peer: Mutex::new(bound), client });
    let options = ConnectOptions { security: class.clone(), ..ConnectOptions::default() };
    let connection = endpoint.connect_with(SERVER.into(), 1, options).await.unwrap();
    let within = rxrpc::CallOptions::within(std::time::Duration::from_secs(5));
    let result = connection.call_with("x", within).await;
    (result, class.made.load(Ordering::Relaxed))
}

#[actix_rt::test]
async fn a_call_tries_four_connections_and_no_fifth() {
    tokio::time::pause();
    // The fourth takes it: nobody answers there.
    let (result, made) = call_over(TRIES - 1).await;
    assert!(matches!(result, Err(CallError::Failed(_))), "{result:?}");
    assert_eq!(made, TRIES);
    let (result, made) = call_over(TRIES).await;
    assert!(matches!(result, Err(CallError::Connect(ConnectError::Closed))), "{result:?}");
    assert_eq!(made, TRIES);
}
