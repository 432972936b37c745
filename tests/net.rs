//! Real sockets on the loopback interface: what the kernel does, seen through the contract.
//! Nothing here knows Rx. Memory, faults and the mock are used as a test of a service would.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use rxrpc::net::{
    FaultControl, Faults, FaultyNetwork, Incoming, MemoryHub, Network, NetworkSource, PathError,
    Transmit, UdpNetwork, UdpOptions, cut, network_source,
};

/// Only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn open(addr: SocketAddr) -> UdpNetwork {
    UdpOptions::bind_to(addr).bind().unwrap().open().unwrap()
}

/// Two sockets on the loopback address of `text`'s family; `None` where the host has no such family.
fn pair(text: &str) -> Option<(UdpNetwork, UdpNetwork)> {
    match UdpOptions::bind_to(addr(text)).bind() {
        Ok(bound) => Some((bound.open().unwrap(), open(addr(text)))),
        Err(error) => {
            println!("no {text} here: {error}");
            None
        }
    }
}

async fn send(network: &mut impl Network, transmit: &Transmit<'_>) -> io::Result<()> {
    loop {
        match network.try_send(transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| network.poll_send_ready(cx)).await?;
            }
            result => return result,
        }
    }
}

async fn receive(network: &mut impl Network) -> Vec<Incoming> {
    let mut into = Vec::new();
    let received = poll_fn(|cx| network.poll_receive(cx, &mut into));
    tokio::time::timeout(PATIENCE, received).await.expect("nothing came").unwrap();
    into
}

/// Receives until there are `count` datagrams; the path errors besides come second.
async fn receive_datagrams(
    network: &mut impl Network,
    count: usize,
) -> (Vec<(SocketAddr, Vec<u8>)>, Vec<(SocketAddr, PathError)>) {
    let (mut datagrams, mut errors) = (Vec::new(), Vec::new());
    while datagrams.len() < count {
        for incoming in receive(network).await {
            match incoming {
                Incoming::Datagrams { from, data, stride } => {
                    datagrams.extend(cut(&data, stride).map(|datagram| (from, datagram.to_vec())));
                }
                Incoming::PathError { to, error } => errors.push((to, error)),
            }
        }
    }
    (datagrams, errors)
}

/// Datagrams come through a socket that looks for them, while it looks and after it has gone to sleep.
#[tokio::test]
async fn busy_polling_misses_nothing() {
    let any = UdpOptions::bind_to(addr("127.0.0.1:0"));
    let mut busy = any.busy_poll(Duration::from_millis(5)).bind().unwrap().open().unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    for pause_ms in [0, 0, 1, 30, 0, 30] {
        let (other, to) = (other.try_clone().unwrap(), busy.local_addr());
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(pause_ms));
            other.send_to(&[pause_ms as u8], to).unwrap();
        });
        let (datagrams, errors) = receive_datagrams(&mut busy, 1).await;
        assert_eq!(datagrams[0].1, [pause_ms as u8]);
        assert!(errors.is_empty());
        sender.join().unwrap();
    }
}

/// An address at which nobody listens.
fn closed(text: &str) -> SocketAddr {
    UdpSocket::bind(text).unwrap().local_addr().unwrap()
}

/// `count` datagrams of `size` bytes, the last one byte shorter, each recognisable.
fn run(count: usize, size: usize, seed: usize) -> Vec<u8> {
    let mut run: Vec<u8> =
        (0..count * size).map(|at| (at / size * 7 + at % size + seed * 13) as u8).collect();
    run.pop();
    run
}

#[tokio::test]
async fn datagrams_arrive_over_ipv4_and_ipv6() {
    for family in ["127.0.0.1:0", "[::1]:0"] {
        let Some((mut a, mut b)) = pair(family) else { continue };
        let to = b.local_addr();
        for contents in [&b"hello"[..], b"", &[7; 1444]] {
            send(&mut a, &Transmit::datagram(to, contents)).await.unwrap();
            let (datagrams, _) = receive_datagrams(&mut b, 1).await;
            assert_eq!(datagrams, [(a.local_addr(), contents.to_vec())]);
        }
    }
}

/// Runs of full-size packets, and how many of them a receive brings.
#[tokio::test]
async fn runs_keep_order_and_content() {
    for family in ["127.0.0.1:0", "[::1]:0"] {
        let Some((mut a, mut b)) = pair(family) else { continue };
        let (to, per_run) = (b.local_addr(), 45);
        let (mut packets, mut pieces, mut receives) = (0, 0, 0);
        for seed in 0..50 {
            let contents = run(per_run, 1444, seed);
            send(&mut a, &Transmit::run(to, &contents, 1444)).await.unwrap();
            let mut got: Vec<u8> = Vec::new();
            while got.len() < contents.len() {
                let incoming = receive(&mut b).await;
                receives += 1;
                pieces += incoming.len();
                for incoming in incoming {
                    let Incoming::Datagrams { data, stride, from } = incoming else { continue };
                    assert!(from == a.local_addr() && stride == 1444);
                    packets += cut(&data, stride).count();
                    got.extend_from_slice(&data);
                }
            }
            assert!(got == contents, "run {seed} arrived changed");
        }
        assert_eq!(packets, 50 * per_run);
        println!(
            "{family}: {} segments per send, {:.1} packets per receive in {:.1} pieces, {} buffers",
            a.max_segments(),
            packets as f64 / receives as f64,
            pieces as f64 / receives as f64,
            b.receive_buffers_allocated(),
        );
    }
}

/// More datagrams, or more bytes, than one call to the kernel takes.
#[tokio::test]
async fn a_long_transmit_is_sent_in_parts() {
    let (mut a, mut b) = pair("127.0.0.1:0").unwrap();
    let to = b.local_addr();
    for (count, size) in [(200, 100), (9, 16_000), (3, 60_000)] {
        let contents = run(count, size, 1);
        send(&mut a, &Transmit::run(to, &contents, size)).await.unwrap();
        let (datagrams, _) = receive_datagrams(&mut b, count).await;
        let sent = cut(&contents, size);
        assert!(datagrams.iter().map(|(_, datagram)| &datagram[..]).eq(sent), "{count} x {size}");
    }
}

#[tokio::test]
async fn a_dual_stack_socket_speaks_plain_ipv4() {
    let Some((mut dual, mut v6)) = pair("[::]:0") else { return };
    let mut v4 = open(addr("127.0.0.1:0"));
    let port = dual.local_addr().port();

    let to = SocketAddr::new(addr("127.0.0.1:0").ip(), port);
    send(&mut v4, &Transmit::datagram(to, b"from v4")).await.unwrap();
    let to = SocketAddr::new(addr("[::1]:0").ip(), port);
    send(&mut v6, &Transmit::datagram(to, b"from v6")).await.unwrap();
    let (mut datagrams, _) = receive_datagrams(&mut dual, 2).await;
    datagrams.sort();
    assert_eq!(datagrams[0], (v4.local_addr(), b"from v4".to_vec()));
    assert_eq!(datagrams[1].1, b"from v6");

    let contents = run(20, 1000, 0);
    let transmit = Transmit::run(v4.local_addr(), &contents, 1000);
    send(&mut dual, &transmit).await.unwrap();
    let (datagrams, _) = receive_datagrams(&mut v4, 20).await;
    assert!(datagrams.iter().map(|(_, datagram)| &datagram[..]).eq(transmit.datagrams()));
    assert_eq!(datagrams[0].0, SocketAddr::new(addr("127.0.0.1:0").ip(), port));
}

/// The error queue is the only thing that wakes the receiver here.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_unreachable_port_is_seen_as_a_path_error() {
    for (bind, dead) in
        [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0")]
    {
        let Some((mut a, _)) = pair(bind) else { continue };
        let dead = closed(dead);
        for _ in 0..3 {
            // The waiter is registered first, then the error comes.
            let mut into = Vec::new();
            let waiting = poll_fn(|cx| std::task::Poll::Ready(a.poll_receive(cx, &mut into)));
            assert!(waiting.await.is_pending());
            send(&mut a, &Transmit::datagram(dead, b"anybody?")).await.unwrap();
            let expected = Incoming::PathError { to: dead, error: PathError::PortUnreachable };
            assert_eq!(receive(&mut a).await, [expected], "{bind} to {dead}");
        }
    }
}

/// Errors about one address, between datagrams from and to another, cost none of those.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn path_errors_lose_no_datagrams() {
    const ROUNDS: usize = 200;
    let (mut a, mut b) = pair("127.0.0.1:0").unwrap();
    let dead = closed("127.0.0.1:0");
    for round in 0..ROUNDS as u32 {
        send(&mut b, &Transmit::datagram(a.local_addr(), &round.to_be_bytes())).await.unwrap();
        send(&mut a, &Transmit::datagram(dead, b"anybody?")).await.unwrap();
        send(&mut a, &Transmit::datagram(b.local_addr(), &round.to_be_bytes())).await.unwrap();
        send(&mut a, &Transmit::datagram(dead, b"anybody?")).await.unwrap();
    }
    let rounds = (0..ROUNDS as u32).map(|round| round.to_be_bytes().to_vec());
    let (at_a, errors) = receive_datagrams(&mut a, ROUNDS).await;
    assert!(at_a.into_iter().map(|(_, datagram)| datagram).eq(rounds.clone()));
    assert!(!errors.is_empty() && errors.iter().all(|&(to, _)| to == dead));
    let (at_b, errors) = receive_datagrams(&mut b, ROUNDS).await;
    assert!(at_b.into_iter().map(|(_, datagram)| datagram).eq(rounds));
    assert_eq!(errors, []);
}

#[tokio::test]
async fn too_long_a_datagram_is_an_error_of_that_send_only() {
    let (mut a, mut b) = pair("127.0.0.1:0").unwrap();
    let too_long = vec![0; 65_508];
    let segments = a.max_segments();
    assert!(send(&mut a, &Transmit::datagram(b.local_addr(), &too_long)).await.is_err());
    send(&mut a, &Transmit::datagram(b.local_addr(), &too_long[1..])).await.unwrap();
    assert_eq!(receive_datagrams(&mut b, 1).await.0[0].1.len(), 65_507);
    // Nor do addresses that the kernel calls invalid.
    assert!(send(&mut a, &Transmit::datagram(addr("127.0.0.1:0"), b"x")).await.is_err());
    assert!(send(&mut a, &Transmit::datagram(addr("[::1]:9"), b"x")).await.is_err());
    assert_eq!(a.max_segments(), segments);
}

#[cfg(unix)]
#[tokio::test]
async fn ports_are_shared_only_on_request() {
    let first = UdpOptions::bind_to(addr("127.0.0.1:0")).reuse_port(true).bind().unwrap();
    let again = || UdpOptions::bind_to(first.local_addr());
    let second = again().reuse_port(true).bind().unwrap();
    assert_eq!(first.local_addr(), second.local_addr());
    assert_eq!(again().bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

/// Bound here, and opened by its source in another thread's runtime.
#[tokio::test]
async fn an_inherited_socket_is_opened_elsewhere() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bound = UdpOptions::inherited(socket).receive_buffer_bytes(100_000).bind().unwrap();
    let (to, source) = (bound.local_addr(), bound.into_source());
    let mut a = open(addr("127.0.0.1:0"));
    send(&mut a, &Transmit::datagram(to, b"early")).await.unwrap();
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut network = source().unwrap();
            receive_datagrams(&mut network, 1).await.0
        })
    });
    assert_eq!(elsewhere.join().unwrap(), [(a.local_addr(), b"early".to_vec())]);
}

/// Two faulty ends in memory, each behind a source; the same seed gives the same datagrams.
#[tokio::test(start_paused = true)]
async fn faults_in_memory_follow_their_seed() {
    async fn arriving(seed: u64) -> Vec<(SocketAddr, Vec<u8>)> {
        let hub = MemoryHub::new();
        let control = FaultControl::new();
        control.set_outgoing(Faults {
            loss_probability: 0.3,
            delay_ms: 10,
            jitter_ms: 10,
            ..Faults::default()
        });
        let end = |seed| {
            let (addr, inner) = hub.bind_source(addr("127.0.0.1:0")).unwrap();
            let control = control.clone();
            let source: NetworkSource =
                network_source(move || Ok(FaultyNetwork::new(inner()?, seed, control)));
            (addr, source)
        };
        let ((_, a), (to, b)) = (end(seed), end(seed + 1));
        let (mut a, mut b) = (a().unwrap(), b().unwrap());
        let contents: Vec<u8> = (0..100).collect();
        send(&mut a, &Transmit::run(to, &contents, 1)).await.unwrap();
        let left = 100 - control.outgoing_counters().lost_datagrams as usize;
        // Nobody else would send what is due.
        let sending = tokio::task::spawn_local(async move {
            poll_fn(|cx| a.poll_receive(cx, &mut Vec::new())).await
        });
        let (datagrams, _) = receive_datagrams(&mut b, left).await;
        sending.abort();
        datagrams
    }
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async {
            let first = arriving(1).await;
            assert!(first.len() < 100 && !first.is_sorted_by_key(|(_, datagram)| datagram[0]));
            assert_eq!(first, arriving(1).await);
            assert_ne!(first, arriving(3).await);
        })
        .await;
}

#[cfg(feature = "mock")]
#[tokio::test]
async fn a_mock_stands_in_for_a_network() {
    let mut mock = rxrpc::net::MockNetwork::new();
    let peer = addr("192.0.2.1:7001");
    mock.expect_try_send()
        .withf(move |transmit| transmit.to == peer && transmit.contents == b"hello")
        .once()
        .returning(|_| Ok(()));
    let mut network: Box<dyn Network> = Box::new(mock);
    send(&mut network, &Transmit::datagram(peer, b"hello")).await.unwrap();
}
