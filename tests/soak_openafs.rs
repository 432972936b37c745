//! A soak with OpenAFS's library, both ways: calls as fast as they go, a tenth of them through loss.
//!
//! Counters of both ends decide, never the clock: every call is good and its content right, each ran once, nobody
//! was told BUSY, and nothing was sent again but for a datagram that was lost. `RXRPC_SOAK_OPENAFS_CALLS` sets the
//! number of calls each way. A million:
//! `RXRPC_SOAK_OPENAFS_CALLS=1000000 cargo test --release --test soak_openafs -- --nocapture`

#[path = "support/openafs.rs"]
mod openafs;

use openafs::{Load, Ran, Rig, Server, Table, Way, attempt, echo_server, number, rig, say, serial};

const CALLS: u32 = 4_000;
/// One call in so many goes through loss.
const LOSSY_PART: u32 = 10;
const LOSS: [&str; 4] = ["--drop", "1", "--seed", "7"];
/// The server has to run each call itself, and to see that what came is what was sent.
const OPERATION: &str = "sum";
const REQUEST_BYTES: u64 = 20;
/// Calls at once, and their connections: as many as there are channels. Who waits for a timer keeps one.
const CLEAN: (u32, u32) = (4, 1);
const LOSSY: (u32, u32) = (64, 16);
/// Far longer than any machine takes for a call, those that wait for a timer among them.
const CALL_LIMIT_MS: u64 = 20;
/// Where a reply is lost, the request goes again too.
const RESENT_PER_LOSS_MAX: i64 = 2;

fn calls() -> u32 {
    let text = std::env::var("RXRPC_SOAK_OPENAFS_CALLS");
    text.map_or(CALLS, |text| text.parse().expect("RXRPC_SOAK_OPENAFS_CALLS is a number"))
}

fn load(calls: u32, (parallel, connections): (u32, u32)) -> Load {
    let mut load = Load::new(OPERATION, REQUEST_BYTES).parallel(parallel, connections);
    load.calls = calls.next_multiple_of(parallel);
    load.limit_s(60 + u64::from(calls) * CALL_LIMIT_MS / 1000)
}

fn server(rig: &Rig, way: Way) -> Server {
    match way {
        Way::OursToOpenAfs => rig.peer::<&str>(&[]),
        Way::OpenAfsToOurs => echo_server(&["--json"]),
    }
}

/// What both ends say of `calls` calls, of which `lost` datagrams were lost on the way.
fn judge(
    table: &mut Table,
    what: &str,
    ran: &Ran,
    good: bool,
    totals: &str,
    calls: u32,
    lost: i64,
) {
    let of = |line: &str, key: &str| number(line, key).unwrap_or(-1);
    let (client, server) = (ran.json(), totals);
    let made = of(client, "calls");
    let served = of(server, "calls");
    let failed = number(server, "errors").or(number(server, "calls_failed")).unwrap_or(-1);
    let busy = of(client, "busy") + of(server, "busy");
    let resent = [of(client, "retransmitted"), of(server, "retransmitted")];
    let slowest = number(client, "max_us").or(number(client, "us_max")).unwrap_or(-1);
    say(&format!(
        "        {made} calls made, {served} served, {failed} failed; {busy} busy; {lost} datagrams lost, {} and \
         {} sent again; slowest {slowest} us",
        resent[0], resent[1]
    ));
    let detail = format!("client {client}, server {server}");
    table.check(&format!("{what}: every call is good"), good && made == calls.into(), &detail);
    table.check(&format!("{what}: each ran once"), served == calls.into() && failed == 0, &detail);
    table.check(&format!("{what}: no BUSY"), busy == 0, &detail);
    let explained = resent.iter().all(|resent| *resent >= 0)
        && resent.iter().sum::<i64>() <= RESENT_PER_LOSS_MAX * lost;
    table.check(&format!("{what}: nothing is sent again without a loss"), explained, &detail);
}

fn soak(way: Way, title: &'static str) {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new(title);
    let lossy = calls() / LOSSY_PART;

    let clean = load(calls() - lossy, CLEAN);
    let peer = server(rig, way);
    let (ran, good) = attempt(rig, way, peer.port, &clean);
    judge(&mut table, "without loss", &ran, good, &peer.stop(), clean.calls, 0);

    let lossy = load(lossy, LOSSY);
    let peer = server(rig, way);
    let relay = rig.relay(&peer, &LOSS);
    let (ran, good) = attempt(rig, way, relay.port, &lossy);
    let totals = peer.stop();
    let lost = number(&relay.stop(), "dropped").unwrap_or(0);
    judge(&mut table, "through 1 % loss", &ran, good, &totals, lossy.calls, lost);
    table.check("something was lost", lost > 0, &lost.to_string());
    table.finish();
}

#[test]
fn calls_of_ours_to_openafs_are_good_and_run_once() {
    soak(Way::OursToOpenAfs, "soak, our client");
}

#[test]
fn calls_of_openafs_to_us_are_good_and_run_once() {
    soak(Way::OpenAfsToOurs, "soak, our server");
}
