//! `rx demo`: a server and a client over real UDP, and what they look like inside.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use futures::future::{join, join_all};
use rxrpc::{CallOptions, Connection, Endpoint, EndpointBuilder, ServiceOptions};
use tokio::time::Instant;

use crate::common::args::trouble;
use crate::common::chaos::ChaosArgs;
use crate::common::pieces::Pieces;
use crate::common::service::{ECHO_SERVICE, PERF_SERVICE, PERF_VERSION, echo, op, perf, words};
use crate::load::Moved;
use crate::perf::Plan;
use crate::{CLOSE_GRACE, NAME, tree};

/// Bytes that the demonstration's services echo at most.
const REQUEST_MAX: u64 = 1 << 20;
/// Each of the four slow calls gets so many bytes, so many at a time.
const SLOW_BYTES: u32 = 320 << 10;
const SLOW_PIECE: u32 = 8 << 10;
/// Pauses after each piece: the first call is the fastest.
const SLOW_MICROS: [u32; 4] = [20_000, 26_000, 32_000, 38_000];
const LARGE_BYTES: u32 = 256 << 20;
const SMALL_CALLS: u32 = 20_000;
const SMALL_AT_ONCE: u32 = 16;

/// Prints a line; whoever does not want it ends the demonstration.
macro_rules! say {
    ($($text:tt)*) => {
        writeln!(io::stdout(), $($text)*)?
    };
}

/// Arguments of `rx demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    chaos: ChaosArgs,
}

/// Shows it.
pub async fn run(args: Args) -> ExitCode {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = || args.chaos.bind(Endpoint::builder(), any, 1);
    let (server, client) = match bind().and_then(|server| Ok((server, bind()?))) {
        Ok(both) => both,
        Err(stop) => return stop.tell(NAME),
    };
    match show(server, client).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => trouble(NAME, error),
    }
}

async fn show(
    server: EndpointBuilder,
    client: EndpointBuilder,
) -> Result<(), Box<dyn std::error::Error>> {
    let style = Style { is_terminal: io::stdout().is_terminal() };
    // The server has a thread of its own, as it would have a process of its own.
    let server = server
        .service_with(ECHO_SERVICE, echo(REQUEST_MAX), ServiceOptions::small_replies())
        .service(PERF_SERVICE, perf(REQUEST_MAX))
        .own_thread(true)
        .start()
        .await?;
    let client = client.start().await?;
    let (at, from) = (server.local_addr(), client.local_addr());
    say!("A server listens on {at}, a client calls from {from}: two UDP sockets,");
    say!("two threads, and nothing between them but Rx packets.");

    style.title("One call")?;
    let echoes = client.connect(at, ECHO_SERVICE).await?;
    let began = Instant::now();
    let reply = echoes.call("Hello, Rx!").await?;
    let took = began.elapsed().as_micros();
    say!("asked \"Hello, Rx!\", got {:?} after {took} us", String::from_utf8_lossy(&reply));

    style.title("Four calls at once, one on each channel of a connection")?;
    let perf = client.connect(at, PERF_SERVICE).await?;
    let (trees, slow) = join(trees(&client, &server), four_calls(&perf, &style)).await;
    slow?;

    style.title("The actors, half a second into that")?;
    if let Some((of_client, of_server)) = trees {
        say!("{of_client}\n{of_server}");
    }

    style.title("A large transfer")?;
    let before = datagrams_received(&client).await;
    let began = Instant::now();
    let options = CallOptions::default();
    Plan::recv(LARGE_BYTES).call(&perf, options, 0, &Moved::default()).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (megabytes, rate) = (LARGE_BYTES >> 20, f64::from(LARGE_BYTES) / 1e6 / seconds);
    let datagrams = datagrams_received(&client).await - before;
    say!("{megabytes} MiB in {seconds:.2} s: {rate:.0} MB/s, in {datagrams} datagrams");

    style.title("Many small calls")?;
    let began = Instant::now();
    let left = Cell::new(SMALL_CALLS);
    let carriers = (0..SMALL_AT_ONCE).map(|_| small_calls(&echoes, &left));
    for result in join_all(carriers).await {
        result?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = f64::from(SMALL_CALLS) / seconds;
    say!("{SMALL_CALLS} calls, {SMALL_AT_ONCE} at once, in {seconds:.2} s: {rate:.0} calls/s");

    style.title("The end")?;
    let counters = server.inspect().await.map(|snapshot| snapshot.counters).unwrap_or_default();
    say!(
        "The server had {} calls in {} datagrams, sent {}, and sent {} packets again.",
        counters.server_calls,
        counters.datagrams_received,
        counters.datagrams_sent,
        counters.resent
    );
    drop((echoes, perf));
    let cut = client.shutdown(CLOSE_GRACE).await.calls_cut;
    let cut = cut + server.shutdown(CLOSE_GRACE).await.calls_cut;
    say!("Both shut down in order, {cut} calls cut off.");
    say!("\nNow with two processes:\n  echo-server &\n  rx call 127.0.0.1:7009 --data hello");
    say!("  rx perf 127.0.0.1:7009 recv --bytes 1G");
    Ok(())
}

async fn datagrams_received(endpoint: &Endpoint) -> u64 {
    endpoint.inspect().await.map_or(0, |snapshot| snapshot.counters.datagrams_received)
}

/// Both trees, while the slow calls run.
async fn trees(client: &Endpoint, server: &Endpoint) -> Option<(String, String)> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    Some((tree::draw(&client.inspect().await?), tree::draw(&server.inspect().await?)))
}

async fn four_calls(
    connection: &Connection,
    style: &Style,
) -> Result<(), Box<dyn std::error::Error>> {
    let got: [Cell<u32>; 4] = Default::default();
    let began = Instant::now();
    let calls = join_all(
        got.iter().zip(SLOW_MICROS).map(|(got, micros)| slow_call(connection, micros, got)),
    );
    let calls = std::pin::pin!(calls);
    let done = if style.is_terminal {
        let bars = std::pin::pin!(animate(&got));
        match futures::future::select(calls, bars).await {
            futures::future::Either::Left((done, _)) => {
                write!(io::stdout(), "\x1b[4A")?;
                done
            }
            futures::future::Either::Right((stopped, _)) => match stopped? {},
        }
    } else {
        calls.await
    };
    draw_bars(&got)?;
    done.into_iter().collect::<Result<(), _>>()?;
    let (kib, seconds) = (SLOW_BYTES >> 10, began.elapsed().as_secs_f64());
    say!("4 x {kib} KiB from a server that takes its time, all done after {seconds:.2} s");
    Ok(())
}

async fn slow_call(
    connection: &Connection,
    micros: u32,
    got: &Cell<u32>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut request = connection.open_call(CallOptions::default()).await?;
    request
        .write(words([PERF_VERSION, op::SLOW_WRITE, 0, 0, SLOW_BYTES, SLOW_PIECE, micros]))
        .await?;
    let mut reply = Pieces::new(request.finish()?);
    reply.run(SLOW_BYTES.into(), |piece| got.set(got.get() + piece.len() as u32)).await?;
    reply.drain().await?;
    Ok(())
}

async fn small_calls(connection: &Connection, left: &Cell<u32>) -> Result<(), rxrpc::CallError> {
    while let Some(less) = left.get().checked_sub(1) {
        left.set(less);
        connection.call("ping").await?;
    }
    Ok(())
}

/// Draws the bars over and over.
async fn animate(got: &[Cell<u32>; 4]) -> io::Result<std::convert::Infallible> {
    draw_bars(got)?;
    let mut ticks = tokio::time::interval(Duration::from_millis(40));
    loop {
        ticks.tick().await;
        write!(io::stdout(), "\x1b[4A")?;
        draw_bars(got)?;
        io::stdout().flush()?;
    }
}

fn draw_bars(got: &[Cell<u32>; 4]) -> io::Result<()> {
    const CELLS: usize = 32;
    for (got, name) in got.iter().zip('A'..) {
        let percent = 100 * u64::from(got.get()) / u64::from(SLOW_BYTES);
        let full = CELLS * percent as usize / 100;
        say!("call {name}  {}{}  {percent:3} %", "█".repeat(full), "░".repeat(CELLS - full));
    }
    Ok(())
}

struct Style {
    is_terminal: bool,
}

impl Style {
    fn title(&self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            say!("\n\x1b[1;36m{text}\x1b[0m");
        } else {
            say!("\n== {text}");
        }
        Ok(())
    }
}
