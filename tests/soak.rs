//! RC-27: two processes, a real socket, four channels, calls as fast as they go.
//!
//! Counters decide, never the clock: no BUSY, nothing sent again by a timer at either end, no call lost.
//! `RXRPC_SOAK_CALLS` sets the number of calls, `RXRPC_SOAK_LOSSY_CALLS` that of calls through loss; the slowest
//! is printed. Ten million, a tenth of them through loss:
//! `RXRPC_SOAK_CALLS=9000000 RXRPC_SOAK_LOSSY_CALLS=1000000 cargo test --release --test soak -- --nocapture`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rxrpc::net::{FaultControl, Faults, FaultyNetwork, UdpOptions, network_source};
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

/// A server process, and the way to its last words.
fn serve() -> (Server, impl FnMut(&str) -> String) {
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
    let line_of = move |name: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(name)).unwrap();
        line.split_once(name).unwrap().1.trim().to_owned()
    };
    (server, line_of)
}

fn calls_of(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// A hundredth of the datagrams is lost, each way. Counters decide: every call is good and ran once, none met
/// BUSY; whatever stalled, stalled for a loss: a lost datagram makes a timer send again at either end, and no more.
#[test]
fn calls_through_loss_are_good_and_run_once() {
    let calls = calls_of("RXRPC_SOAK_LOSSY_CALLS", 2_000);
    let (mut server, mut line_of) = serve();
    let address: SocketAddr = line_of("address ").parse().unwrap();
    let control = FaultControl::new();
    control.set(Faults { loss_probability: 0.01, ..Faults::default() });
    let network = {
        let control = control.clone();
        network_source(move || {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            Ok(FaultyNetwork::new(UdpOptions::bind_to(any).bind()?.open()?, 7, control))
        })
    };
    let (ours, slowest, took) = actix_rt::System::new().block_on(async move {
        let client = Endpoint::builder().network(network).start().await.unwrap();
        make_calls(client, address, calls).await
    });
    drop(server.0.stdin.take());
    let theirs: Vec<u64> =
        line_of("counters ").split(' ').map(|number| number.parse().unwrap()).collect();
    let lost = [control.outgoing_counters(), control.incoming_counters()]
        .map(|counters| counters.lost_datagrams)
        .iter()
        .sum::<u64>();
    println!(
        "{calls} calls through loss in {took:.1?}, slowest {slowest:.1?}: {lost} datagrams lost, {} and {} sent \
         again by a timer",
        ours.resent_by_timer, theirs[3]
    );
    let calls = calls as u64;
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    assert_eq!((ours.busy_received, ours.aborts_received), (0, 0));
    assert_eq!(theirs[0], calls, "each call ran once");
    assert_eq!((theirs[2], theirs[4]), (0, 0), "BUSY sent, aborts sent");
    assert!(calls < 2_000 || lost > 0, "nothing was lost");
    assert!(ours.resent_by_timer + theirs[3] <= 2 * lost, "a timer sent again what was not lost");
}

#[test]
fn rc_27_calls_between_two_processes_meet_no_busy_and_no_timer() {
    let calls = calls_of("RXRPC_SOAK_CALLS", 100_000);
    let (mut server, mut line_of) = serve();
    let address: SocketAddr = line_of("address ").parse().unwrap();
    let (ours, slowest, took) = actix_rt::System::new().block_on(async move {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let client = Endpoint::builder().bind(any).start().await.unwrap();
        make_calls(client, address, calls).await
    });
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

async fn make_calls(
    client: Endpoint,
    address: SocketAddr,
    calls: usize,
) -> (Counters, Duration, Duration) {
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
