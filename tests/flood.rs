//! A flood on a real socket: one process sends forged connections, malformed packets and replays as fast as it
//! can, from an address that proves nothing, while another makes good calls of a third, the server.
//!
//! `RXRPC_FLOOD_DATAGRAMS` sets how many; 50 000 if nothing is said.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rxrpc::testkit::notation::{Defaults, parse};
use rxrpc::testkit::world::{Seed, Stream};
use rxrpc::{Endpoint, Request, unary};

const CHILD: &str = "RXRPC_FLOOD_CHILD";
const TARGET: &str = "RXRPC_FLOOD_TARGET";
/// The server's resident memory at its highest.
const RESIDENT_MAX_KIB: u64 = 256 * 1024;
/// Datagrams that may be sent again as they were.
const REMEMBERED: usize = 4096;

/// Ends the other process however the test ends.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn other(test: &str, target: &str) -> Other {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env(TARGET, target)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Other(child.unwrap())
}

fn count() -> u64 {
    std::env::var("RXRPC_FLOOD_DATAGRAMS").map_or(50_000, |text| text.parse().unwrap())
}

/// The server: serves until its standard input ends, then tells what it did and what memory it took.
#[test]
fn the_server() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    actix_rt::System::new().block_on(async {
        let echo = unary(async |request: Request| Ok(request.bytes));
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Endpoint::builder().bind(at).service(1, echo).start().await.unwrap();
        println!("address {}", server.local_addr());
        std::io::stdout().flush().unwrap();
        let input = actix_rt::task::spawn_blocking(|| {
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
        });
        input.await.unwrap();
        let counters = server.inspect().await.unwrap().counters;
        println!(
            "counters {} {} {} {} {}",
            counters.datagrams_received,
            counters.bytes_received,
            counters.bytes_sent,
            counters.server_calls,
            resident_peak_kib()
        );
        server.shutdown(Duration::from_secs(5)).await;
    });
}

/// The flood: all datagrams of which none asks for a tool's answer, then a word of how many bytes went and came.
#[test]
fn the_flood() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let target: SocketAddr = std::env::var(TARGET).unwrap().parse().unwrap();
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket.connect(target).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = Seed(7).stream("flood");
    let mut remembered: Vec<Vec<u8>> = Vec::new();
    let (mut sent, mut bytes_sent, mut bytes_come) = (0_u64, 0_u64, 0_u64);
    let mut buffer = [0; 2048];
    let began = Instant::now();
    while sent < count() {
        let datagram = match stream.below(4) {
            0 if !remembered.is_empty() => {
                remembered[stream.below(remembered.len() as u64) as usize].clone()
            }
            1 => malformed(&mut stream),
            _ => forged(&mut stream),
        };
        if let Ok(bytes) = socket.send(&datagram) {
            sent += 1;
            bytes_sent += bytes as u64;
        }
        if remembered.len() < REMEMBERED {
            remembered.push(datagram);
        } else {
            let at = stream.below(REMEMBERED as u64) as usize;
            remembered[at] = datagram;
        }
        while let Ok(bytes) = socket.recv(&mut buffer) {
            bytes_come += bytes as u64;
        }
    }
    let took = began.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    while let Ok(bytes) = socket.recv(&mut buffer) {
        bytes_come += bytes as u64;
    }
    println!("sums {sent} {bytes_sent} {bytes_come} {}", took.as_millis());
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

#[test]
fn good_calls_succeed_in_a_flood_that_costs_little_and_draws_little() {
    let mut server = other("the_server", "");
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let address = line_of(&mut lines, "address ");
    let mut flood = other("the_flood", &address);
    let flood_lines = BufReader::new(flood.0.stdout.take().unwrap()).lines();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let watch = std::thread::spawn(move || {
        let mut flood_lines = flood_lines;
        let line = flood_lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("sums ")));
        // However it ended: who calls has to know.
        over.store(true, Ordering::Relaxed);
        let line = line.expect("the flood tells its sums").unwrap();
        numbers(line.split_once("sums ").unwrap().1.trim())
    });
    let at: SocketAddr = address.parse().unwrap();
    let (ours, calls, slowest) =
        actix_rt::System::new().block_on(async move { call_until(at, &is_over).await });
    let [sent, bytes_sent, bytes_come, took_ms] = watch.join().unwrap()[..] else {
        panic!("four numbers of the flood")
    };
    drop(server.0.stdin.take());
    let theirs = numbers(&line_of(&mut lines, "counters "));
    let [datagrams, received, answered, _, resident_kib] = theirs[..] else {
        panic!("five numbers of the server")
    };
    println!(
        "{sent} datagrams of the flood in {took_ms} ms, of which at least {} came: {bytes_sent} bytes sent, \
         {bytes_come} came back",
        datagrams.saturating_sub(ours.datagrams_sent)
    );
    println!(
        "{calls} good calls, slowest {slowest:.1?}; server's memory at most {resident_kib} KiB"
    );
    assert_eq!(sent, count());
    assert!(calls > 0, "no call was made meanwhile");
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    // What did not arrive at our client counts as an answer to the flood, and what did not arrive of our client
    // at the server counts as none of it: the true sum is not larger.
    let flooded = received.saturating_sub(ours.bytes_sent);
    let drawn = answered.saturating_sub(ours.bytes_received);
    assert!(flooded > 0, "nothing of the flood came");
    assert!(drawn <= 3 * flooded, "{drawn} bytes drawn by {flooded}");
    assert!(bytes_come <= 3 * bytes_sent, "{bytes_come} bytes came back for {bytes_sent}");
    assert!(resident_kib < RESIDENT_MAX_KIB, "{resident_kib} KiB");
}

/// Good calls, until the flood is over; and one more, when it is.
async fn call_until(
    server: SocketAddr,
    is_over: &AtomicBool,
) -> (rxrpc::proto::Counters, u64, Duration) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let client = Endpoint::builder().bind(any).start().await.unwrap();
    let connection = client.connect(server, 1).await.unwrap();
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let request = vec![calls as u8; 1 + (calls as usize * 97) % 5000];
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

fn line_of(lines: &mut impl Iterator<Item = std::io::Result<String>>, name: &str) -> String {
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(name)).unwrap();
    line.split_once(name).unwrap().1.trim().to_owned()
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').map(|number| number.parse().unwrap()).collect()
}

/// Resident memory of this process at its highest.
fn resident_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
