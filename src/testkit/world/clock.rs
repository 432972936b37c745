//! A System of its own under a paused clock, where time passes only when nothing else is left to do.

use std::future::poll_fn;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{FutureExt, select};
use futures::stream::FuturesUnordered;

use super::net::World;

/// Looks at the network without a change after which nothing moves any more: each look lets every task that
/// can run have its turn.
const QUIET_LOOKS: u32 = 3;

/// Runs `test` in a world of this seed: a System on this thread, Tokio's clock paused, links quiet at first.
/// Endpoints come to be with [`World::network`]; time passes when everybody waits.
///
/// ```
/// use rxrpc::testkit::world::{LinkOptions, Loss, simulate};
/// use rxrpc::{Endpoint, unary};
///
/// simulate(7, async |world| {
///     let (here, there) = (([10, 0, 0, 1], 7001).into(), ([10, 0, 0, 2], 7000).into());
///     world.set_default_link(LinkOptions { loss: Loss::Random(0.3), ..Default::default() });
///     let echo = unary(async |request| Ok(request.bytes));
///     let server = Endpoint::builder().network(world.network(there)).service(1, echo);
///     let _server = server.start().await.unwrap();
///     let client = Endpoint::builder().network(world.network(here)).start().await.unwrap();
///     let connection = client.connect(there, 1).await.unwrap();
///     assert_eq!(connection.call("hello").await.unwrap(), "hello");
/// });
/// ```
///
/// # Panics
/// If `test` does, or if an endpoint broke a rule of Rx on the wire; a ladder of the last packets and the seed
/// are printed then.
pub fn simulate<T>(seed: u64, test: impl AsyncFnOnce(World) -> T) -> T {
    in_system(
        || World::under_tokio(seed, true),
        async move |world| {
            let teller = Teller { world: world.clone(), seed };
            let mover = actix_rt::spawn(move_datagrams(world.clone()));
            // Polled when it is woken, and at no other time: looks that a test has at the network, as the part of
            // the System that is polled with everybody else, would pass for something that happens.
            let mut only = FuturesUnordered::from_iter([test(world.clone())]);
            let result = only.next().await.expect("there is one");
            mover.abort();
            if let Some(violation) = world.violation() {
                panic!("a rule of Rx was broken: {violation}");
            }
            drop(teller);
            result
        },
    )
}

/// The seeds that a test tries: these, or the one of the environment's `RXRPC_SIM_SEED` alone.
///
/// ```
/// use rxrpc::testkit::world::{seeds, simulate};
///
/// for seed in seeds(0..10) {
///     simulate(seed, async |world| assert!(world.now().is_zero()));
/// }
/// ```
pub fn seeds(usual: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    let one = std::env::var("RXRPC_SIM_SEED").ok().and_then(|text| text.parse().ok());
    let range = one.map_or(usual, |seed: u64| seed..seed.saturating_add(1));
    range.into_iter()
}

/// One line with which the test that runs on this thread, or on the thread of this name, runs again with this seed
/// alone, if it takes its seeds from [`seeds`]. In programs that are no tests: the setting alone.
pub fn reproduce(seed: u64) -> String {
    let seed = format!("RXRPC_SIM_SEED={seed}");
    let binary = std::env::current_exe().ok();
    let stem = binary.as_deref().and_then(|path| path.file_stem()?.to_str());
    // Cargo appends a hash to the names of test binaries.
    let is_test = stem.is_some_and(|stem| stem.contains('-'));
    let thread = std::thread::current();
    // No target: which one it is, a library or a program or a test, the name of its file does not tell.
    match thread.name().filter(|name| is_test && *name != "main") {
        Some(test) => format!("reproduce: {seed} cargo test {test} -- --exact --nocapture\n"),
        None => format!("reproduce: {seed}\n"),
    }
}

/// Prints the ladder when a test panics.
struct Teller {
    world: World,
    seed: u64,
}

impl Drop for Teller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}the last packets:\n{}", reproduce(self.seed), self.world.ladder(60));
        }
    }
}

pub(super) fn in_system<T>(make: impl FnOnce() -> World, run: impl AsyncFnOnce(World) -> T) -> T {
    let system = actix_rt::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing")
    });
    system.block_on(async move { run(make()).await })
}

/// Everything that can happen at this time happens.
pub(super) async fn settle(world: &World) {
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        let before = world.activity();
        tokio::task::yield_now().await;
        quiet = if world.activity() == before { quiet + 1 } else { 0 };
    }
}

/// Until this time, or until a datagram is sent: it may arrive earlier.
pub(super) async fn wait_until(world: &World, at: Duration) {
    let seen = world.posted();
    let sleep = tokio::time::sleep(at.saturating_sub(world.now()));
    let sent = poll_fn(|task| world.poll_sent(seen, task));
    select(Box::pin(sleep), sent.boxed_local()).await;
}

/// Brings what is sent to where it arrives, for ever.
async fn move_datagrams(world: World) {
    const FOREVER: Duration = Duration::from_secs(1 << 30);
    loop {
        settle(&world).await;
        if world.deliver().is_some() {
            continue;
        }
        let next = world.next_arrival().unwrap_or(world.now() + FOREVER);
        wait_until(&world, next).await;
    }
}
