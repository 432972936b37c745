//! RC-27: two processes, a real socket, four channels, calls as fast as they go.
//!
//! Counters decide, never the clock: no BUSY, nothing sent again by a timer at either end, no call lost.
//! `RXRPC_SOAK_CALLS` sets the number of calls; the slowest is printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rxrpc::proto::Counters;
use rxrpc::{ConnectOptions, Endpoint, Request, ServiceOptions, unary};

const CHILD: &str = "RXRPC_SOAK_CHILD";
const CHANNELS: usize = 4;

/// Ends the other process however the test ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other process: serves until its standard input ends, then tells its counters.
#[test]
fn the_other_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    actix_rt::System::new().block_on(async {
        let echo = unary(async |request: Request| Ok(request.bytes));
        let server = Endpoint::builder()
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .service_with(1, echo, ServiceOptions::small_replies())
            .start()
            .await
            .unwrap();
        println!("address {}", server.local_addr());
        std::io::stdout().flush().unwrap();
        let input = actix_rt::task::spawn_blocking(|| {
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
        });
        input.await.unwrap();
        let counters = server.inspect().await.unwrap().counters;
        println!(
            "counters {} {} {} {} {}",
            counters.server_calls,
            counters.calls_good,
            counters.busy_sent,
            counters.resent_by_timer,
            counters.aborts_sent
        );
        server.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn rc_27_calls_between_two_processes_meet_no_busy_and_no_timer() {
    let calls: usize =
        std::env::var("RXRPC_SOAK_CALLS").map_or(100_000, |text| text.parse().unwrap());
    let mut server = Server(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let mut line_of = |name: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(name)).unwrap();
        line.split_once(name).unwrap().1.trim().to_owned()
    };
    let address: SocketAddr = line_of("address ").parse().unwrap();
    let (ours, slowest, took) =
        actix_rt::System::new().block_on(async move { make_calls(address, calls).await });
    drop(server.0.stdin.take());
    let theirs: Vec<u64> =
        line_of("counters ").split(' ').map(|number| number.parse().unwrap()).collect();
    println!(
        "{calls} calls in {took:.1?} ({:.0}/s), slowest {slowest:.1?}",
        calls as f64 / took.as_secs_f64()
    );
    let calls = calls as u64;
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    assert_eq!((ours.busy_received, ours.resent_by_timer, ours.aborts_received), (0, 0, 0));
    assert_eq!(theirs[0], calls, "each call ran once");
    assert_eq!(theirs[2..], [0, 0, 0], "BUSY sent, packets sent again by timer, aborts sent");
}

async fn make_calls(address: SocketAddr, calls: usize) -> (Counters, Duration, Duration) {
    let client =
        Endpoint::builder().bind(SocketAddr::from(([127, 0, 0, 1], 0))).start().await.unwrap();
    let options = ConnectOptions { connections_max: 1, ..ConnectOptions::default() };
    let connection = client.connect_with(address, 1, options).await.unwrap();
    let began = Instant::now();
    let workers = (0..CHANNELS).map(|worker| {
        let connection = connection.clone();
        let own = calls / CHANNELS + usize::from(worker < calls % CHANNELS);
        async move {
            let mut slowest = Duration::ZERO;
            for _ in 0..own {
                let began = Instant::now();
                let reply = connection.call(bytes::Bytes::new()).await.unwrap();
                assert!(reply.is_empty());
                slowest = slowest.max(began.elapsed());
            }
            slowest
        }
    });
    let slowest = futures::future::join_all(workers).await.into_iter().max().unwrap();
    let took = began.elapsed();
    (client.inspect().await.unwrap().counters, slowest, took)
}
