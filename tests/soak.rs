//! RC-27: two processes, a real socket, many channels, calls as fast as they go.
//!
//! Counters decide, never the clock: no BUSY, nothing sent again by a timer at either end, no call lost; and the
//! server's own account of the numbers in the requests: no call run twice. `RXRPC_SOAK_CALLS` sets the number of
//! calls, `RXRPC_SOAK_LOSSY_CALLS` that of calls through loss; the slowest is printed. Ten million, a tenth of them
//! through loss:
//! `RXRPC_SOAK_CALLS=9000000 RXRPC_SOAK_LOSSY_CALLS=1000000 cargo test --release --test soak -- --nocapture`

#[path = "support/processes.rs"]
mod processes;
#[path = "support/runs.rs"]
mod runs;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use processes::{Other, is_other, number_of, say, wait_for_dismissal};
use rxrpc::net::{FaultControl, Faults, FaultyNetwork, UdpOptions, network_source};
use rxrpc::proto::Counters;
use rxrpc::{ConnectOptions, Endpoint, ServiceOptions};

/// As many calls at once as there are channels.
const CHANNELS_PER_CONNECTION: usize = 4;
/// Who waits for a timer keeps a channel: with many, a million lossy calls end the same day.
const LOSSY_CONNECTIONS: usize = 32;
const LOSS: f64 = 0.01;
/// A call that took so long has waited for a timer: none is shorter, but for tail probes.
const WAIT_MIN: Duration = Duration::from_millis(300);
/// How often the machine is looked at, for how many ticks back, and how many calls that waited are told.
const TICK: Duration = Duration::from_millis(50);
const TICKS_MAX: usize = 1000;
const TOLD_MAX: u64 = 50;

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

/// A hundredth of the datagrams is lost, each way. Counters decide: every call is good and ran once, none met
/// BUSY; whatever stalled, stalled for a loss: a lost datagram makes a timer send again at either end, and no more.
#[test]
fn calls_through_loss_are_good_and_run_once() {
    let calls = number_of("RXRPC_SOAK_LOSSY_CALLS", 2_000);
    let mut server = Other::run("the_other_process", &[]);
    let address: SocketAddr = server.word("address ").parse().unwrap();
    let control = FaultControl::new();
    control.set(Faults { loss_probability: LOSS, ..Faults::default() });
    let network = {
        let control = control.clone();
        network_source(move || {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            Ok(FaultyNetwork::new(UdpOptions::bind_to(any).bind()?.open()?, 7, control))
        })
    };
    let lost = move || {
        let counters = [control.outgoing_counters(), control.incoming_counters()];
        counters.iter().map(|counters| counters.lost_datagrams).sum::<u64>()
    };
    let watched = lost.clone();
    let Made { ours, slowest, waited, took } = actix_rt::System::new().block_on(async move {
        let client = Endpoint::builder().network(network).start().await.unwrap();
        make_calls(client, address, calls, LOSSY_CONNECTIONS, watched).await
    });
    server.dismiss();
    let [served, ran, again, strange, busy, resent, aborts] = server.numbers("counters ");
    let lost = lost();
    println!(
        "{calls} calls through loss in {took:.1?}, slowest {slowest:.1?}: {ran} ran, {again} again; {lost} datagrams \
         lost, {} and {resent} sent again by a timer, {waited} calls waited {WAIT_MIN:?} or longer",
        ours.resent_by_timer
    );
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    assert_eq!((ours.busy_received, ours.aborts_received), (0, 0));
    assert_eq!((served, ran, again, strange), (calls, calls, 0, 0), "each call ran once");
    assert_eq!((busy, aborts), (0, 0), "BUSY sent, aborts sent");
    assert!(calls < 2_000 || lost > 0, "nothing was lost");
    assert!(ours.resent_by_timer + resent <= 2 * lost, "a timer sent again what was not lost");
}

#[test]
fn rc_27_calls_between_two_processes_meet_no_busy_and_no_timer() {
    let calls = number_of("RXRPC_SOAK_CALLS", 100_000);
    let mut server = Other::run("the_other_process", &[]);
    let address: SocketAddr = server.word("address ").parse().unwrap();
    let Made { ours, slowest, waited, took } = actix_rt::System::new().block_on(async move {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let client = Endpoint::builder().bind(any).start().await.unwrap();
        make_calls(client, address, calls, 1, || 0).await
    });
    server.dismiss();
    let [served, ran, again, strange, busy, resent, aborts] = server.numbers("counters ");
    println!(
        "{calls} calls in {took:.1?} ({:.0}/s), slowest {slowest:.1?}: {ran} ran, {again} again, {waited} waited",
        calls as f64 / took.as_secs_f64()
    );
    assert_eq!((ours.client_calls, ours.calls_good, ours.calls_failed), (calls, calls, 0));
    assert_eq!((ours.busy_received, ours.resent_by_timer, ours.aborts_received), (0, 0, 0));
    assert_eq!((served, ran, again, strange), (calls, calls, 0, 0), "each call ran once");
    assert_eq!((busy, resent, aborts), (0, 0, 0), "BUSY, packets sent again by timer, aborts");
}

/// What it took to make all calls, each of them good.
struct Made {
    ours: Counters,
    slowest: Duration,
    /// Calls of [`WAIT_MIN`] or longer.
    waited: u64,
    took: Duration,
}

/// What explains a call that waited: what was lost meanwhile, how late this thread's own timers were, and how long
/// it waited for a processor.
struct Watch<L> {
    began: Instant,
    lost: L,
    ticks: RefCell<VecDeque<Tick>>,
    told: Cell<u64>,
    /// Calls that waited, and nobody knows for what.
    unexplained: Cell<u64>,
}

/// What there was at one time.
struct Tick {
    at: Instant,
    queued: Duration,
    pressure: Duration,
    lost: u64,
}

impl<L: Fn() -> u64> Watch<L> {
    fn tick(&self) {
        let mut ticks = self.ticks.borrow_mut();
        if ticks.len() == TICKS_MAX {
            ticks.pop_front();
        }
        let (at, lost) = (Instant::now(), (self.lost)());
        ticks.push_back(Tick { at, queued: queued(), pressure: pressure(), lost });
    }

    fn tell(&self, number: u64, began: Instant, took: Duration) {
        self.told.set(self.told.get() + 1);
        self.tick();
        let ticks = self.ticks.borrow();
        let since = ticks.iter().rposition(|tick| tick.at <= began).unwrap_or(0);
        let times = ticks.iter().skip(since).map(|tick| tick.at);
        let gaps = times.clone().zip(times.skip(1)).map(|(one, next)| next - one);
        let late = gaps.max().unwrap_or_default().saturating_sub(TICK);
        let (first, last) = (&ticks[since], &ticks[ticks.len() - 1]);
        // A loss, or a machine that had no time for us for as long as nothing else explains.
        let machine = late + last.pressure.saturating_sub(first.pressure);
        let is_explained = last.lost > first.lost || took.saturating_sub(machine) < WAIT_MIN;
        self.unexplained.set(self.unexplained.get() + u64::from(!is_explained));
        if self.told.get() > TOLD_MAX && is_explained {
            return;
        }
        println!(
            "call {number}, {:.1?} after the first, took {took:.2?}: meanwhile {} datagrams were lost, our own timer \
             was {late:.2?} late, and this thread {:.2?} without a processor",
            began - self.began,
            last.lost - first.lost,
            last.queued.saturating_sub(first.queued)
        );
    }
}

/// How long this thread has waited for a processor (Linux: /proc/thread-self/schedstat); zero elsewhere.
fn queued() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// How long anybody on this machine, the server too, has waited for a processor (Linux: /proc/pressure/cpu); zero
/// elsewhere.
fn pressure() -> Duration {
    let some = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = some.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok());
    total.map_or_else(queued, Duration::from_micros)
}

async fn make_calls(
    client: Endpoint,
    address: SocketAddr,
    calls: u64,
    connections: usize,
    lost: impl Fn() -> u64 + 'static,
) -> Made {
    let options = ConnectOptions { connections_max: connections, ..ConnectOptions::default() };
    let connection = client.connect_with(address, 1, options).await.unwrap();
    let began = Instant::now();
    let channels = CHANNELS_PER_CONNECTION * connections;
    let watch = Watch {
        began,
        lost,
        ticks: RefCell::default(),
        told: Cell::new(0),
        unexplained: Cell::new(0),
    };
    let watch = Rc::new(watch);
    let ticking = watch.clone();
    let ticks = actix_rt::spawn(async move {
        loop {
            ticking.tick();
            tokio::time::sleep(TICK).await;
        }
    });
    let workers = (0..channels as u64).map(|worker| {
        let connection = connection.clone();
        let watch = watch.clone();
        async move {
            let (mut slowest, mut waited) = (Duration::ZERO, 0);
            for number in (worker..calls).step_by(channels) {
                let request = runs::request(number, 0);
                let began = Instant::now();
                let reply = connection.call(request.clone()).await.unwrap();
                assert_eq!(reply, request);
                let took = began.elapsed();
                slowest = slowest.max(took);
                if took >= WAIT_MIN {
                    waited += 1;
                    watch.tell(number, began, took);
                }
            }
            (slowest, waited)
        }
    });
    let all = futures::future::join_all(workers).await;
    let took = began.elapsed();
    ticks.abort();
    let unexplained = watch.unexplained.get();
    assert_eq!(unexplained, 0, "calls that waited for nothing that was lost, nor for a processor");
    Made {
        ours: client.inspect().await.unwrap().counters,
        slowest: all.iter().map(|(slowest, _)| *slowest).max().unwrap(),
        waited: all.iter().map(|(_, waited)| waited).sum(),
        took,
    }
}
