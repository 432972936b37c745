//! RC-27: two processes, a real socket, many channels, calls as fast as they go.
//!
//! Counters decide, never the clock: no BUSY, nothing sent again by a timer at either end, no call lost; and the
//! server's own account of the numbers in the requests: no call run twice. A call that stalled is explained by its own
//! datagrams, or by a machine that stood still, or it fails the run. `RXRPC_SOAK_CALLS` sets the number of calls,
//! `RXRPC_SOAK_LOSSY_CALLS` that of calls through loss. Ten million, a tenth of them through loss:
//! `RXRPC_SOAK_CALLS=9000000 RXRPC_SOAK_LOSSY_CALLS=1000000 cargo test --release --test soak -- --nocapture`

#[path = "support/ledger.rs"]
#[allow(dead_code)]
mod ledger;
#[path = "support/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "support/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "support/processes.rs"]
#[allow(dead_code)]
mod processes;
#[path = "support/runs.rs"]
#[allow(dead_code)]
mod runs;
#[path = "support/stalls.rs"]
#[allow(dead_code)]
mod stalls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger::Ledger;
use load::{Load, Made, lost, make_calls, tapped};
use machine::Machine;
use processes::{Other, is_other, number_of, say, wait_for_dismissal};
use rxrpc::net::{FaultControl, Incoming, Network, NetworkSource, Transmit, network_source};
use rxrpc::{Endpoint, ServiceOptions};
use stalls::{Cause, Patience, Verdict, our_patience};

/// Who waits for a timer keeps a channel: with many, a million lossy calls end the same day.
const LOSSY_CONNECTIONS: usize = 32;
const LOSS: f64 = 0.01;
const OURS: Patience = Patience(our_patience, our_patience);

/// The other process: serves until it is dismissed, then tells its counters.
#[test]
fn the_other_process() {
    if !is_other() {
        return;
    }
    actix_rt::System::new().block_on(async {
        let (echo, account) = runs::counting_echo();
        let server = Endpoint::builder()
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .service_with(1, echo, ServiceOptions::small_replies())
            .start()
            .await
            .unwrap();
        say(&format!("address {}", server.local_addr()));
        actix_rt::task::spawn_blocking(wait_for_dismissal).await.unwrap();
        let counters = server.inspect().await.unwrap().counters;
        let runs = account();
        say(&format!(
            "counters {} {} {} {} {} {} {}",
            counters.server_calls,
            runs.ran,
            runs.again,
            runs.strange,
            counters.busy_sent,
            counters.resent_by_timer,
            counters.aborts_sent
        ));
        server.shutdown(Duration::from_secs(5)).await;
    });
}

/// What came of a run.
struct Came {
    made: Made,
    verdict: Verdict,
    /// Why the stalls fail it, if they do.
    trouble: Option<String>,
    /// Sent again by a timer of the server.
    resent: u64,
}

/// Makes `calls` over `connections` through `network`, checks what both ends say, and says it in a line.
fn run(
    title: &str,
    calls: u64,
    connections: usize,
    network: NetworkSource,
    ledger: Arc<Mutex<Ledger>>,
    lost: impl Fn() -> u64,
) -> Came {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = Other::run("the_other_process", &[]);
    let machine = Machine::watch(&[std::process::id(), server.id()]);
    let load = Load {
        server: server.word("address ").parse().unwrap(),
        service: 1,
        calls,
        connections,
        request: |number| runs::request(number, 0),
        is_reply: |request, reply| request == reply,
    };
    let made = actix_rt::System::new().block_on(async move {
        let client = Endpoint::builder().network(network).start().await.unwrap();
        make_calls(client, load, ledger).await
    });
    let pauses = machine.pauses();
    server.dismiss();
    let [served, ran, again, strange, busy, resent, aborts] = server.numbers("counters ");
    let ours = &made.ours;
    let verdict = made.stalls.judge(&format!("{title}.log"), made.began, OURS, &pauses);
    println!(
        "{title}: calls {calls}, lost {}, doubled {again}, of nobody {strange}, BUSY sent {busy}, BUSY received {}, \
         aborts {}, datagrams lost {}, sent again by a timer {} and {resent}, {verdict}; slowest {:.2?}, took {:.1?} \
         ({:.0}/s)",
        calls - ran.min(ours.calls_good),
        ours.busy_received,
        aborts + ours.aborts_received,
        lost(),
        ours.resent_by_timer,
        made.stalls.slowest(),
        made.took,
        calls as f64 / made.took.as_secs_f64()
    );
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    assert_eq!((ours.busy_received, ours.aborts_received), (0, 0));
    assert_eq!((served, ran, again, strange), (calls, calls, 0, 0), "each call ran once");
    assert_eq!((busy, aborts), (0, 0), "BUSY sent, aborts sent");
    let trouble = verdict.trouble(calls, load.at_once() as u64);
    Came { made, verdict, trouble, resent }
}

fn ledger() -> Arc<Mutex<Ledger>> {
    let ledger = Ledger::new(|request| Some(u64::from_be_bytes(*request.first_chunk()?)));
    Arc::new(Mutex::new(ledger))
}

/// A hundredth of the datagrams is lost, each way. Counters decide: every call is good and ran once, none met BUSY;
/// each that stalled was waiting for a datagram of its own that was lost, and timers sent again what was lost, and no
/// more.
#[test]
fn calls_through_loss_are_good_and_run_once() {
    let calls = number_of("RXRPC_SOAK_LOSSY_CALLS", 2_000);
    let (control, ledger) = (FaultControl::new(), ledger());
    let network = tapped(Some((LOSS, &control)), &ledger);
    let title = "soak-through-loss";
    let came = run(title, calls, LOSSY_CONNECTIONS, network, ledger, || lost(&control));
    assert_eq!(came.trouble, None);
    let lost = lost(&control);
    assert!(calls < 2_000 || lost > 0, "nothing was lost");
    let resent = came.made.ours.resent_by_timer + came.resent;
    assert!(resent <= 2 * lost, "a timer sent again what was not lost");
}

#[test]
fn rc_27_calls_between_two_processes_meet_no_busy_and_no_timer() {
    let calls = number_of("RXRPC_SOAK_CALLS", 100_000);
    let ledger = ledger();
    let came = run("soak", calls, 1, tapped(None, &ledger), ledger, || 0);
    assert_eq!(came.trouble, None);
    let resent = (came.made.ours.resent_by_timer, came.resent);
    assert_eq!(resent, (0, 0), "packets sent again by timer");
}

/// Behind the tap that sees what was lost: it loses one datagram in two hundred, and nobody is told.
struct Thief<N> {
    inner: N,
    seen: u64,
}

impl<N: Network> Network for Thief<N> {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn max_segments(&self) -> usize {
        1
    }

    fn poll_receive(
        &mut self,
        cx: &mut std::task::Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.inner.poll_receive(cx, into)
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> std::io::Result<()> {
        self.seen += 1;
        if self.seen.is_multiple_of(200) { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_send_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.inner.poll_send_ready(cx)
    }
}

/// The judge is not to be bribed: where losses abound, also those of which the loss that is noted says nothing stand
/// out, and are told call by call.
#[test]
fn a_stall_for_a_loss_that_was_not_noted_is_found_among_those_that_were() {
    let (control, ledger) = (FaultControl::new(), ledger());
    let network = {
        use ledger::{Stand, Tap};
        use rxrpc::net::{Faults, FaultyNetwork, UdpOptions};
        control.set(Faults { loss_probability: LOSS, ..Faults::default() });
        let (control, ledger) = (control.clone(), ledger.clone());
        network_source(move || {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let thief = Thief { inner: UdpOptions::bind_to(any).bind()?.open()?, seen: 0 };
            let far = Tap::new(thief, &ledger, Stand::Far);
            Ok(Tap::new(FaultyNetwork::new(far, 7, control), &ledger, Stand::Near))
        })
    };
    let came = run("soak-with-a-thief", 2_000, 4, network, ledger, || lost(&control));
    let lost = came.verdict.of(Cause::RequestLost) + came.verdict.of(Cause::ReplyLost);
    let stolen = came.verdict.of(Cause::Unexplained) + came.verdict.of(Cause::Machine);
    assert!(lost > 0, "those of the others are explained: {}", came.verdict);
    assert!(stolen > 0, "{}", came.verdict);
    let trouble = came.trouble.expect("it fails the run");
    assert!(trouble.contains("that nothing explains, the first: stall: number "), "{trouble}");
}
