//! A flood on a real socket: one process sends forged connections, malformed packets and replays as fast as it
//! can, while another makes good calls of a third, the server.
//!
//! The flood stands on the good client's way and passes on all that goes either way, so it can also repeat the
//! client's own datagrams: from the client's address, as the server knows it, and from its own, which proves
//! nothing. Itself it comes from many addresses and ports of the loopback network; in one run from none that is the good
//! client's, in another from ports of that very host, which shares the limits by IP address with it then.
//!
//! `RXRPC_FLOOD_DATAGRAMS` sets how many, in each run; 50 000 if nothing is said.

#[path = "support/processes.rs"]
#[allow(dead_code)]
mod processes;
#[path = "support/runs.rs"]
#[allow(dead_code)]
mod runs;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use processes::{Other, is_other, number_of, say, wait_for_dismissal};
use rxrpc::Endpoint;
use rxrpc::testkit::notation::{Defaults, parse};
use rxrpc::testkit::world::{Seed, Stream};

const TARGET: &str = "RXRPC_FLOOD_TARGET";
/// The hosts that the flood comes from: the last numbers of 127.0.0.x, the first and the last of them.
const HOSTS: &str = "RXRPC_FLOOD_HOSTS";
const PORTS_PER_HOST: u32 = 8;
/// The server's resident memory at its highest. 16 MB are the program and what it receives in; the rest is 4096 unproved
/// connections (`unproved_connections_max`, docs/limits.md) with a call each, some 10 kB: 51 MB after 50,000 datagrams, 58
/// after 200,000, 59 after 800,000. What grows with the datagrams is seen: 20 bytes kept of each of a million pass it.
const RESIDENT_MAX_KIB: u64 = 72 * 1024;
/// Datagrams that may be sent again as they were.
const REMEMBERED: usize = 4096;
/// No datagram here is larger.
const DATAGRAM_MAX: usize = 65_536;

fn count() -> u64 {
    number_of("RXRPC_FLOOD_DATAGRAMS", 50_000)
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The server: serves until it is dismissed, then tells what it did and what memory it took.
#[test]
fn the_server() {
    if !is_other() {
        return;
    }
    actix_rt::System::new().block_on(async {
        let (echo, account) = runs::counting_echo();
        let server = Endpoint::builder().bind(any()).service(1, echo).start().await.unwrap();
        say(&format!("address {}", server.local_addr()));
        actix_rt::task::spawn_blocking(wait_for_dismissal).await.unwrap();
        let counters = server.inspect().await.unwrap().counters;
        let runs = account();
        say(&format!(
            "counters {} {} {} {} {} {} {} {}",
            counters.datagrams_received,
            counters.bytes_received,
            counters.bytes_sent,
            counters.busy_sent,
            runs.ran,
            runs.again,
            runs.strange,
            resident_peak_kib()
        ));
        server.shutdown(Duration::from_secs(5)).await;
    });
}

/// Datagrams that were seen, the newest in place of any other.
#[derive(Default)]
struct Remembered(Vec<Vec<u8>>);

impl Remembered {
    fn keep(&mut self, datagram: &[u8], stream: &mut Stream) {
        if self.0.len() < REMEMBERED {
            self.0.push(datagram.to_vec());
        } else {
            self.0[stream.below(REMEMBERED as u64) as usize] = datagram.to_vec();
        }
    }

    fn any(&self, stream: &mut Stream) -> Option<Vec<u8>> {
        let at = stream.below(self.0.len().max(1) as u64);
        self.0.get(at as usize).cloned()
    }
}

/// Datagrams and their bytes.
#[derive(Clone, Copy, Default)]
struct Sum {
    datagrams: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }
}

/// The way of the good client: what it sends leaves from `back`, whose address is the client's for the server.
struct Way {
    front: UdpSocket,
    back: UdpSocket,
    client: Mutex<Option<SocketAddr>>,
    seen: Mutex<Remembered>,
    up: Mutex<Sum>,
    down: Mutex<Sum>,
}

impl Way {
    fn new(target: SocketAddr) -> Arc<Way> {
        let (front, back) = (UdpSocket::bind(any()).unwrap(), UdpSocket::bind(any()).unwrap());
        back.connect(target).unwrap();
        let way = Arc::new(Way {
            front,
            back,
            client: Mutex::default(),
            seen: Mutex::default(),
            up: Mutex::default(),
            down: Mutex::default(),
        });
        let (up, down) = (way.clone(), way.clone());
        std::thread::spawn(move || up.pass_up());
        std::thread::spawn(move || down.pass_down());
        way
    }

    fn pass_up(&self) {
        let mut stream = Seed(7).stream("seen");
        let mut buffer = vec![0; DATAGRAM_MAX];
        while let Ok((bytes, from)) = self.front.recv_from(&mut buffer) {
            *self.client.lock().unwrap() = Some(from);
            self.seen.lock().unwrap().keep(&buffer[..bytes], &mut stream);
            if self.back.send(&buffer[..bytes]).is_ok() {
                self.up.lock().unwrap().add(bytes);
            }
        }
    }

    fn pass_down(&self) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while let Ok(bytes) = self.back.recv(&mut buffer) {
            self.down.lock().unwrap().add(bytes);
            if let Some(client) = *self.client.lock().unwrap() {
                // A send that fails is a lost datagram.
                let _ = self.front.send_to(&buffer[..bytes], client);
            }
        }
    }

    /// Something that the client has sent.
    fn replay(&self, stream: &mut Stream) -> Option<Vec<u8>> {
        self.seen.lock().unwrap().any(stream)
    }
}

/// One of the flood's own addresses.
struct Source {
    socket: UdpSocket,
    sent: Sum,
    come: Sum,
    /// At some time more than three times what was sent.
    has_drawn_more: bool,
}

impl Source {
    /// Takes what has come.
    fn drain(&mut self, buffer: &mut [u8]) {
        while let Ok(bytes) = self.socket.recv(buffer) {
            self.come.add(bytes);
            self.has_drawn_more |= self.come.bytes > 3 * self.sent.bytes;
        }
    }
}

fn sources(target: SocketAddr) -> Vec<Source> {
    let hosts = std::env::var(HOSTS).unwrap();
    let (first, last) = hosts.split_once('-').unwrap();
    let hosts = first.parse::<u8>().unwrap()..=last.parse::<u8>().unwrap();
    let all = hosts.flat_map(|host| (0..PORTS_PER_HOST).map(move |_| host));
    all.map(|host| {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
        socket.connect(target).unwrap();
        socket.set_nonblocking(true).unwrap();
        Source { socket, sent: Sum::default(), come: Sum::default(), has_drawn_more: false }
    })
    .collect()
}

/// What the flood sends next, and whether as if it were the good client.
fn draw(stream: &mut Stream, own: &Remembered, way: &Way) -> (Vec<u8>, bool) {
    let drawn = match stream.below(6) {
        0 => own.any(stream).map(|datagram| (datagram, false)),
        1 => way.replay(stream).map(|datagram| (datagram, false)),
        2 => way.replay(stream).map(|datagram| (datagram, true)),
        3 => Some((malformed(stream), false)),
        _ => None,
    };
    drawn.unwrap_or_else(|| (forged(stream), false))
}

/// The flood: all datagrams of which none asks for a tool's answer, then a word of how many bytes went and came;
/// and when it is dismissed, of what it has passed on.
#[test]
fn the_flood() {
    if !is_other() {
        return;
    }
    let target: SocketAddr = std::env::var(TARGET).unwrap().parse().unwrap();
    let way = Way::new(target);
    say(&format!("way {}", way.front.local_addr().unwrap()));
    let mut sources = sources(target);
    let mut stream = Seed(7).stream("flood");
    let mut own = Remembered::default();
    let mut replayed = Sum::default();
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut strange_datagrams = 0;
    let began = Instant::now();
    while strange_datagrams + replayed.datagrams < count() {
        let (datagram, as_client) = draw(&mut stream, &own, &way);
        if as_client {
            if let Ok(bytes) = way.back.send(&datagram) {
                replayed.add(bytes);
            }
            continue;
        }
        let at = stream.below(sources.len() as u64) as usize;
        if let Ok(bytes) = sources[at].socket.send(&datagram) {
            sources[at].sent.add(bytes);
            strange_datagrams += 1;
            own.keep(&datagram, &mut stream);
        }
        sources[at].drain(&mut buffer);
    }
    let took = began.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    sources.iter_mut().for_each(|source| source.drain(&mut buffer));
    let sum = |of: fn(&Source) -> u64| sources.iter().map(of).sum::<u64>();
    say(&format!(
        "sums {strange_datagrams} {} {} {} {} {} {} {}",
        sum(|source| source.sent.bytes),
        replayed.datagrams,
        replayed.bytes,
        sum(|source| source.come.bytes),
        sources.len(),
        sum(|source| u64::from(source.has_drawn_more)),
        took.as_millis()
    ));
    wait_for_dismissal();
    let (up, down) = (*way.up.lock().unwrap(), *way.down.lock().unwrap());
    say(&format!("passed {} {} {}", up.datagrams, up.bytes, down.bytes));
}

/// A packet of a connection that nobody opened.
fn forged(stream: &mut Stream) -> Vec<u8> {
    let line = stream.pick(&[
        "D n1 q1 [CL] \"x\"",
        "D n1 q1 [C] len1412",
        "D n2 q7 [C] len100",
        "D n1 q1 [CJ] len1412 + [CL] len10",
        "D n1 q1 [CL] svc99",
        "D n1 q1 [CL] idx2 len100",
        "A n1 f1 p3 a[0,1,1] =PING [CR]",
        "A n1 f9 p300 a[1x255]",
        "ABORT n1 -1 [C]",
        "RESPONSE n0 [C] idx2 len200",
        "CHALLENGE n0 idx2 len12",
        "BUSY n1",
        "ACKALL n1 [C]",
    ]);
    let (epoch, cid) = (stream.draw() as u32 | 1, stream.draw() as u32 & !3);
    let flags = u8::from(line.contains('C') || stream.chance(0.9));
    parse(line).encode(&Defaults { epoch, cid, serial: stream.below(9) as u32 + 1, flags })
}

/// Bytes that are no packet, or almost one. Not of the types that tools send, whose answers have limits of their
/// own.
fn malformed(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = forged(stream);
    match stream.below(4) {
        0 => bytes.truncate(stream.below(bytes.len() as u64) as usize),
        1 => bytes[20] = stream.pick(&[0, 9, 12, 14, 99, 255]),
        2 => bytes[21] = stream.draw() as u8,
        _ => {
            for _ in 0..8 {
                let at = stream.below(bytes.len() as u64) as usize;
                if at != 20 {
                    bytes[at] = stream.draw() as u8;
                }
            }
        }
    }
    bytes
}

/// The flood is from other hosts than the good client: limits by address are theirs, and it notices nothing of them.
#[test]
fn good_calls_succeed_in_a_flood_that_costs_little_and_draws_little() {
    flood("2-9");
}

/// It is from ports of the client's own host, which draws the answers of that host: PINGs that ask for a proof (1024 a
/// second to a host, docs/limits.md), ABORTs and VERSION answers (10 a second). What is promised then: all good calls
/// succeed, and none runs twice. The first may have to wait for its PING, `reach_ping_interval` each time; once the
/// client's address and port are proved, nothing of it is shared.
#[test]
fn good_calls_succeed_in_a_flood_from_their_own_host() {
    flood("1-1");
}

fn flood(hosts: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = Other::run("the_server", &[]);
    let address = server.word("address ");
    let mut flood = Other::run("the_flood", &[(TARGET, &address), (HOSTS, hosts)]);
    let way: SocketAddr = flood.word("way ").parse().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let watch = std::thread::spawn(move || {
        let sums =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flood.numbers("sums ")));
        // However it ended: who calls has to know.
        over.store(true, Ordering::Relaxed);
        (flood, sums.expect("the flood tells its sums"))
    });
    let (ours, calls, slowest) =
        actix_rt::System::new().block_on(async move { call_until(way, &is_over).await });
    let (mut flood, sums) = watch.join().unwrap();
    let [strange, strange_bytes, replayed, _, come_bytes, sources, more, took_ms] = sums;
    flood.dismiss();
    let [up, _, down_bytes] = flood.numbers("passed ");
    server.dismiss();
    let [datagrams, received, answered, busy, ran, again, nobodys, resident_kib] =
        server.numbers("counters ");
    println!(
        "{strange} datagrams of the flood from {sources} addresses of its own (127.0.0.{hosts}) and {replayed} from the client's in {took_ms} ms, of \
         which at least {} came: {strange_bytes} bytes from its own, {come_bytes} came back; {more} of them drew more than three times their bytes",
        datagrams.saturating_sub(up)
    );
    println!(
        "{calls} good calls, slowest {slowest:.1?}: {ran} ran, {again} again, {nobodys} of nobody; server's memory at \
         most {resident_kib} KiB"
    );
    assert_eq!(strange + replayed, count());
    assert!(calls > 0, "no call was made meanwhile");
    assert!(replayed > count() / 10, "the client's own datagrams were hardly repeated");
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    assert_eq!((ran, again, nobodys), (calls, 0, 0), "each good call ran once, and no other did");
    assert_eq!((busy, ours.busy_received), (0, 0), "BUSY sent and received");
    // What did not reach the client's address counts as an answer to the flood.
    let drawn = answered.saturating_sub(down_bytes);
    let flooded = strange_bytes.min(received);
    assert!(drawn <= 3 * flooded, "{drawn} bytes drawn by {flooded}");
    assert!(come_bytes > 0, "an attack that draws nothing shows nothing");
    assert_eq!(more, 0, "addresses that drew more than three times their bytes, at some time");
    assert!(resident_kib < RESIDENT_MAX_KIB, "{resident_kib} KiB");
}

/// Good calls, until the flood is over; and one more, when it is.
async fn call_until(
    server: SocketAddr,
    is_over: &AtomicBool,
) -> (rxrpc::proto::Counters, u64, Duration) {
    let client = Endpoint::builder().bind(any()).start().await.unwrap();
    let connection = client.connect(server, 1).await.unwrap();
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let request = runs::request(calls, 1 + (calls as usize * 97) % 5000);
        let began = Instant::now();
        let reply = connection.call(request.clone()).await;
        assert_eq!(reply.expect("a good call"), request);
        slowest = slowest.max(began.elapsed());
        calls += 1;
        if is_last {
            break;
        }
    }
    (client.inspect().await.unwrap().counters, calls, slowest)
}

/// Resident memory of this process at its highest.
fn resident_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
