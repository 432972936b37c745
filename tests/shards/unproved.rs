//! Strangers and answers where an endpoint is divided: what holds, holds in sum over the shards.

use std::collections::BTreeMap;
use std::task::Waker;

use rxrpc::net::{Incoming, MemoryHub, MemoryNetwork, Network, Transmit, cut};
use rxrpc::testkit::notation::{Defaults, parse};
use rxrpc::testkit::world::{Seed, Stream};
use rxrpc::wire::{Header, PacketType};
use rxrpc::{Endpoint, ServiceOptions};
use tokio::time::sleep;

use super::split::Split;
use super::*;

const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 7000);

/// A server of `count` shards, which a datagram comes to as `choose` says. Service 1 waits for proofs, 2 does not;
/// both answer at length.
async fn server(
    hub: &MemoryHub,
    count: usize,
    choose: impl FnMut(&Incoming) -> usize + Send + 'static,
) -> Endpoint {
    let (_, sources) = Split::new(hub, SERVER, count, choose);
    let replies = async |mut call: IncomingCall| {
        call.read_all(1 << 20).await?;
        call.reply(Bytes::from_static(&[7; 20_000]));
        Ok::<_, StreamError>(())
    };
    Endpoint::builder()
        .networks(sources)
        .own_thread(false)
        .configure(|config| config.debug_responder = true)
        .service(1, replies)
        .service_with(2, replies, ServiceOptions::small_replies())
        .start()
        .await
        .unwrap()
}

/// Sends from it, and takes what has come to it: the types and sizes of datagrams.
fn send(network: &mut MemoryNetwork, datagram: &[u8]) {
    network.try_send(&Transmit::datagram(SERVER, datagram)).unwrap();
}

fn take(network: &mut MemoryNetwork) -> Vec<(PacketType, usize)> {
    let (mut into, mut taken) = (Vec::new(), Vec::new());
    let task = &mut std::task::Context::from_waker(Waker::noop());
    while network.poll_receive(task, &mut into).is_ready() {
        for incoming in into.drain(..) {
            let Incoming::Datagrams { data, stride, .. } = incoming else { continue };
            let each = cut(&data, stride);
            taken.extend(each.map(|one| (Header::decode(one).unwrap().packet_type, one.len())));
        }
    }
    taken
}

fn datagram(line: &str, cid: u32, serial: u32) -> Vec<u8> {
    let mut bytes = parse(line).encode(&Defaults { epoch: 0x8765_4321, cid, serial, flags: 1 });
    if line.contains("svc2") || bytes[27] == 0 {
        bytes[27] = if line.contains("svc2") { 2 } else { 1 };
    }
    bytes
}

/// Anything that draws an answer: calls of both services, of several connections, with and without more to come,
/// strange services, ACKs and ABORTs, and what is sent again.
fn drawn(stream: &mut Stream) -> Vec<u8> {
    let line = stream.pick(&[
        "D n1 q1 [CL] \"x\"",
        "D n1 q1 [CL] svc2 \"x\"",
        "D n1 q1 [CLR] svc2 len300",
        "D n2 q1 [CL] svc2 \"x\"",
        "D n1 q1 [CR] len1412",
        "D n1 q3 [CR] svc2 len100",
        "D n1 q1 [CL] svc99",
        "D n1 q1 [CL] idx2 len100",
        "A n1 f1 p3 a[0,1,1] =PING [CR]",
        "A n1 f1 p1 a[1x20] =DELAY [C]",
        "ABORT n1 -1 [C]",
        "BUSY n1 [C]",
    ]);
    let cid = 4 * stream.between(1, 9) as u32;
    datagram(line, cid, stream.between(1, 99) as u32)
}

/// Whatever comes from an address, and to whichever shards: at every moment all of them together have sent it no more
/// than three times its bytes.
#[actix_rt::test]
async fn all_shards_together_draw_no_more_than_three_times_the_bytes_of_an_address() {
    tokio::time::pause();
    for (seed, count) in [(1, 1), (2, 2), (3, 3), (4, 8), (5, 8)] {
        let hub = MemoryHub::new();
        let mut shard = Seed(seed).stream("shard");
        // Worse than any kernel: each datagram to another shard, wherever it is from.
        let endpoint = server(&hub, count, move |_| shard.below(64) as usize).await;
        let address = |index: u64| {
            SocketAddr::from(([10, 0, 1, (index % 2) as u8], 7001 + (index / 2) as u16))
        };
        let mut from: Vec<_> = (0..4).map(|index| hub.bind(address(index)).unwrap()).collect();
        let mut sums: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut stream = Seed(seed).stream("strangers");
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut answers = 0;
        for _ in 0..1500 {
            let index = stream.below(4) as usize;
            let datagram = match sent.len() as u64 {
                len if len > 0 && stream.chance(0.3) => sent[stream.below(len) as usize].clone(),
                _ => drawn(&mut stream),
            };
            sums.entry(index).or_default().0 += datagram.len();
            send(&mut from[index], &datagram);
            sent.push(datagram);
            sleep(Duration::from_millis(stream.pick(&[0, 0, 1, 50, 2500]))).await;
            for (index, network) in from.iter_mut().enumerate() {
                let (received, went) = sums.entry(index).or_default();
                for (_, len) in take(network) {
                    *went += len;
                    answers += 1;
                }
                assert!(*went <= 3 * *received, "{count} shards: {received} drew {went}");
            }
        }
        assert!(answers > 200, "an attack that draws nothing shows nothing: {answers}");
        let spread = endpoint.inspect().await.unwrap();
        assert!(spread.shards.iter().all(|shard| shard.datagrams_received > 50));
    }
}

/// How many answers of a type come for 40 requests from each of `ports` ports of each of `hosts` hosts, at once.
async fn answered(hub: &MemoryHub, request: &[u8], hosts: u8, ports: u16) -> Vec<usize> {
    let mut all = Vec::new();
    for host in 0..hosts {
        for port in 0..ports {
            let at = SocketAddr::from(([10, 1, 0, host], 7001 + port));
            all.push((host, hub.bind(at).unwrap()));
        }
    }
    for _ in 0..40 {
        all.iter_mut().for_each(|(_, network)| send(network, request));
        sleep(Duration::from_micros(1)).await;
    }
    sleep(Duration::from_millis(1)).await;
    let mut by_host = vec![0; usize::from(hosts)];
    for (host, network) in &mut all {
        by_host[usize::from(*host)] += take(network).len();
    }
    by_host
}

fn by_port(incoming: &Incoming) -> usize {
    match incoming {
        Incoming::Datagrams { from, .. } => usize::from(from.port()),
        Incoming::PathError { .. } => 0,
    }
}

fn version_request() -> Vec<u8> {
    let line = "D n1 q1 [CL] len17";
    let mut request = datagram(line, 4, 1);
    request[20] = PacketType::Version.byte();
    request[28..].fill(0);
    request
}

/// Ten VERSION answers a second to one host, of however many ports, and a hundred in all, however many shards there
/// are; but for one that each shard has. The same for ABORTs without a connection.
#[actix_rt::test]
async fn answers_by_host_and_in_all_hold_in_sum() {
    tokio::time::pause();
    let stranger = datagram("D n1 q1 [CL] svc99", 4, 1);
    for request in [version_request(), stranger] {
        for count in [1, 2, 3, 7, 10] {
            let hub = MemoryHub::new();
            let _server = server(&hub, count, by_port).await;
            let one = answered(&hub, &request, 1, 20).await[0];
            assert!(one <= 10, "{count} shards: {one} to one host");
            assert!(one >= 10 / count * count, "{count} shards: each has its part, {one}");
            sleep(secs(2)).await;
            let hub = MemoryHub::new();
            let _server = server(&hub, count, by_port).await;
            let all: usize = answered(&hub, &request, 40, 10).await.iter().sum();
            assert!(all <= 100, "{count} shards: {all} in all");
            assert!(all >= 100 / count * count, "{count} shards: {all} in all");
        }
    }
    // More shards than answers: one for each.
    let hub = MemoryHub::new();
    let _server = server(&hub, 16, by_port).await;
    assert_eq!(answered(&hub, &version_request(), 1, 32).await, [16]);
}

/// A burst, and then ten a second, to one host, over all shards; but for what a shard gets back meanwhile.
#[actix_rt::test]
async fn debug_answers_hold_in_sum_after_their_burst() {
    tokio::time::pause();
    for count in [1, 2, 4] {
        let hub = MemoryHub::new();
        let (_, sources) = Split::new(&hub, SERVER, count, by_port);
        let builder = Endpoint::builder().networks(sources).own_thread(false);
        let _server = builder
            .configure(|config| {
                config.debug_responder = true;
                config.debug_answers_per_peer_burst = 40;
                config.debug_answers_burst = 100;
            })
            .service(1, echo)
            .start()
            .await
            .unwrap();
        // rx_debugIn: the type, an index.
        let mut request = datagram("D n1 q1 [CL] len8", 4, 1);
        request[20] = PacketType::Debug.byte();
        request[28..].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        let burst = answered(&hub, &request, 1, 8).await[0];
        assert_eq!(burst, 40, "{count} shards");
        let mut ports: Vec<_> = (0..8)
            .map(|port| hub.bind(SocketAddr::from(([10, 1, 0, 0], 8001 + port))).unwrap())
            .collect();
        let mut later = 0;
        for _ in 0..100 {
            sleep(Duration::from_millis(100)).await;
            for network in &mut ports {
                send(network, &request);
            }
            sleep(Duration::from_micros(10)).await;
            later += ports.iter_mut().map(|network| take(network).len()).sum::<usize>();
        }
        let (least, most) = (10 * (10 / count * count), 100);
        assert!(
            (least - 10..=most + 2 * (count + 1)).contains(&later),
            "{count} shards: {later} in ten seconds"
        );
    }
}
