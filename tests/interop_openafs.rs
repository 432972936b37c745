//! Our binaries with OpenAFS's Rx library, both ways round.
//!
//! Needs OpenAFS's packages (`interop/openafs/install.sh`); without them each test says `SKIPPED`,
//! and fails if `RXRPC_INTEROP=required`. `RXRPC_INTEROP_FULL=1` runs the whole matrix (build with
//! `--release` for that), otherwise a short selection of it.

#[path = "support/openafs.rs"]
mod openafs;

use futures::StreamExt;
use openafs::{BOTH_WAYS, Expect, Load, Rig, Server, Table, Way};
use openafs::{echo_server, field, full, number, ours, rig, run, serial, words};
use rxrpc::wire::ServiceId;
use rxrpc::{AbortCode, CallOptions, Connection, Endpoint, RequestWriter};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const NO_OPTIONS: [&str; 0] = [];

const OPERATIONS: [&str; 6] = ["send", "recv", "rpc", "echo", "sum", "pattern"];

/// A full packet carries 1412 bytes, or 1416 from OpenAFS to a peer that takes no jumbograms. A `send`
/// or `echo` request of 1392 (1396) and a `recv` reply of 1408 (1412) bytes fill it to the last byte,
/// with the words around them; the others are beside the edge.
const SIZES: [u64; 10] = [0, 1, 1392, 1396, 1408, 1411, 1412, 1413, 64 * 1024, 1 << 20];
const SIZES_SHORT: [u64; 5] = [0, 1392, 1396, 1412, 64 * 1024];

/// Calls at once, and the connections they share: 16 on one have to wait for its four channels.
const PARALLEL: [(u32, u32); 5] = [(1, 1), (4, 1), (4, 4), (16, 1), (16, 4)];
const PARALLEL_SHORT: [(u32, u32); 2] = [(1, 1), (16, 4)];

/// The server that belongs to the direction.
fn server(rig: &Rig, way: Way) -> Server {
    match way {
        Way::OursToOpenAfs => rig.peer(&NO_OPTIONS),
        Way::OpenAfsToOurs => echo_server(&NO_OPTIONS),
    }
}

fn matrix(rig: &Rig, way: Way, title: &'static str) {
    let mut table = Table::new(title);
    let server = server(rig, way);
    let sizes = if full() { &SIZES[..] } else { &SIZES_SHORT[..] };
    let at_once = if full() { &PARALLEL[..] } else { &PARALLEL_SHORT[..] };
    for op in OPERATIONS {
        for &bytes in sizes {
            for &(parallel, connections) in at_once {
                let mut load = Load::new(op, bytes).parallel(parallel, connections);
                if bytes < 2000 {
                    load.calls *= 3; // the channel's next call acknowledges the last one
                }
                table.load(rig, way, server.port, &load);
            }
        }
    }
    server.stop();
    table.finish();
}

#[test]
fn every_operation_and_size_against_an_openafs_server() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    matrix(rig, Way::OursToOpenAfs, "all operations, our client");
}

#[test]
fn every_operation_and_size_from_an_openafs_client() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    matrix(rig, Way::OpenAfsToOurs, "all operations, our server");
}

#[test]
fn a_hundred_megabytes_each_way() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("bulk");
    let bytes = if full() { 100_000_000 } else { 4_000_000 };
    for way in BOTH_WAYS {
        let server = server(rig, way);
        for op in ["send", "recv"] {
            table.load(rig, way, server.port, &Load::new(op, bytes).limit_s(60));
        }
        server.stop();
    }
    table.finish();
}

// The codes that OpenAFS answers with; a caller can tell these cases apart only by them.
const NO_SUCH_SERVICE: i32 = -2;
const NO_SUCH_OPERATION: i32 = -455;

/// An `abort` request of service 147, without its data.
fn abort_request(code: i32, send: i32, recv: i32) -> Vec<u8> {
    let mut request = words(&[3, 257, 65536, 65536, code, send, recv]);
    request.resize(request.len() + send as usize, 0);
    request
}

#[test]
fn aborts_carry_their_code_both_ways() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("aborts");

    let peer = rig.peer(&NO_OPTIONS);
    let port = peer.port;
    let mut call = |what, service, request: &[u8], code| {
        table.call(rig, port, what, service, request, Expect::Abort(code));
    };
    call("server aborts at once", 147, &abort_request(4711, 0, 0), 4711);
    call("after the request", 147, &abort_request(4712, 50_000, 0), 4712);
    call("in the reply", 147, &abort_request(4713, 50_000, 50_000), 4713);
    call("a negative code", 147, &abort_request(-17, 0, 0), -17);
    call("unknown service", 999, b"hello", NO_SUCH_SERVICE);
    call("unknown operation", 147, &words(&[3, 999, 0, 0]), NO_SUCH_OPERATION);
    // And the server serves on.
    table.load(rig, Way::OursToOpenAfs, port, &Load::new("sum", 10_000));
    peer.stop();

    let server = echo_server(&NO_OPTIONS);
    let port = server.port;
    let mut call = |op, bytes, options: &[&'static str], code| {
        let load = Load::new(op, bytes).options(options).expect(Expect::Abort(code));
        table.load(rig, Way::OpenAfsToOurs, port, &load);
    };
    call("abort", 0, &["--code", "4711"], 4711);
    call("abort", 50_000, &["--code", "4712", "--recv", "0"], 4712);
    call("abort", 50_000, &["--code", "4713"], 4713);
    call("abort", 0, &["--code", "-17"], -17);
    call("cabort", 200_000, &["--code", "4714", "--after", "0"], 4714);
    call("cabort", 200_000, &["--code", "4715", "--after", "20000"], 4715);
    call("send", 5, &["--service", "999"], NO_SUCH_SERVICE);
    call("send", 5, &["--opcode", "999"], NO_SUCH_OPERATION);
    // Aborts one after another on one connection: OpenAFS reuses a channel at once, and waits 3.6 s
    // when that draws BUSY.
    let mut many = Load::new("abort", 0).expect(Expect::Abort(4711)).limit_s(3);
    many.calls = 12;
    table.load(rig, Way::OpenAfsToOurs, port, &many);
    table.load(rig, Way::OpenAfsToOurs, port, &Load::new("sum", 10_000));
    server.stop();
    table.finish();
}

/// How the test ends its calls, and what OpenAFS's server then sees.
const CUTS: [(&str, Option<AbortCode>, i64); 2] =
    [("aborted", Some(AbortCode(4716)), 4716), ("dropped", None, -6)];

#[test]
fn calls_that_we_cut_off_leave_their_connection_good() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("our client cuts calls off");
    let peer = rig.telling_peer();
    actix_rt::System::new().block_on(cut_calls_off(&peer, &mut table));
    peer.stop();
    table.finish();
}

async fn cut_calls_off(peer: &Server, table: &mut Table) {
    let endpoint = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await.expect("loopback");
    let server = SocketAddr::from(([127, 0, 0, 1], peer.port));
    let connection = endpoint.connect(server, ServiceId(147)).await.expect("an endpoint");
    for round in 1..=3 {
        for (how, code, seen) in CUTS {
            let mut request = open(&connection, 0).await;
            request.write(vec![0; 200_000]).await.expect("a part of the content");
            match code {
                Some(code) => request.abort(code),
                None => drop(request),
            }
            let told = is_told(peer, "send", seen, round).await;
            table.check(&format!("{round}: {how} while sending, seen as {seen}"), told, "");
            let next = next_call(&connection).await;
            table.check("the next call", next.is_ok(), &format!("{next:?}"));

            let mut reply = open(&connection, 1).await.finish().expect("the request's end");
            let mut count = 0;
            while count < 100_000 {
                count += reply.next().await.expect("more of it").expect("a piece").len();
            }
            match code {
                Some(code) => reply.abort(code),
                None => drop(reply),
            }
            let told = is_told(peer, "recv", seen, round).await;
            table.check(&format!("{round}: {how} while receiving, seen as {seen}"), told, "");
            let next = next_call(&connection).await;
            table.check("the next call", next.is_ok(), &format!("{next:?}"));
        }
    }
    drop(connection);
    endpoint.shutdown(Duration::from_secs(1)).await;
}

/// A call of this operation with 4 MB to come, more than any window takes.
async fn open(connection: &Connection, operation: i32) -> RequestWriter {
    let mut request = connection.open_call(CallOptions::default()).await.expect("a channel");
    request.write(words(&[3, operation, 65536, 65536, 4_000_000])).await.expect("the head");
    request
}

/// Whether the server says within 10 s that it has had `count` such calls that ended with this code.
async fn is_told(server: &Server, op: &str, code: i64, count: usize) -> bool {
    let is_such =
        |line: &&String| field(line, "op") == Some(op) && number(line, "rx_error") == Some(code);
    for _ in 0..1000 {
        if server.said().iter().filter(is_such).count() == count {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// An `rpc` of 3 bytes there and 5 back.
async fn next_call(connection: &Connection) -> Result<(), String> {
    let mut request = words(&[3, 3, 65536, 65536, 3, 5]);
    request.extend_from_slice(b"abc");
    let call = tokio::time::timeout(Duration::from_secs(10), connection.call(request));
    let reply = call.await.map_err(|_| "not answered in 10 s")?.map_err(|e| e.to_string())?;
    if reply.len() == 9 && reply.ends_with(&[0, 0, 0x47, 0x11]) {
        return Ok(());
    }
    Err(format!("{reply:?}"))
}

#[test]
fn slow_readers_and_writers_are_waited_for() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("slow readers and writers");
    for way in BOTH_WAYS {
        let server = server(rig, way);
        // The server reads slowly: the client's window shuts. It writes slowly: packets in trickles.
        table.load(rig, way, server.port, &Load::new("slowread", 300_000).slow(8192, 20_000));
        table.load(rig, way, server.port, &Load::new("slowread", 5_000).slow(1, 100));
        table.load(rig, way, server.port, &Load::new("slowwrite", 50_000).slow(2_000, 20_000));
        if full() {
            // One pause longer than OpenAFS's ping interval of 4 s.
            table.load(rig, way, server.port, &Load::new("slowread", 4).slow(4, 5_000_000));
            table.load(
                rig,
                way,
                server.port,
                &Load::new("slowwrite", 4_000).slow(4_000, 5_000_000),
            );
        }
        // The client is the slow one: the window of the server's reply shuts, or the request trickles.
        let pace = ["--chunk", "8192", "--pace", "20000"];
        for op in ["recv", "pattern", "send", "sum"] {
            table.load(rig, way, server.port, &Load::new(op, 300_000).options(&pace));
        }
        server.stop();
    }
    table.finish();
}

#[test]
fn loss_repeats_and_reordering_are_survived() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("relay: 5 % lost, 3 % repeated, 5 % late");
    let faults = ["--drop", "5", "--dup", "3", "--reorder", "5", "--delay", "1", "--seed", "7"];
    let sizes = if full() { &[1, 20_000, 200_000, 1 << 20][..] } else { &[20_000][..] };
    for way in BOTH_WAYS {
        let server = server(rig, way);
        let relay = rig.relay(&server, &faults);
        let operations = if full() {
            &["sum", "pattern", "send", "recv", "echo"][..]
        } else {
            &["sum", "pattern"]
        };
        for &op in operations {
            for &bytes in sizes {
                table.load(rig, way, relay.port, &Load::new(op, bytes));
            }
        }
        if full() {
            for op in ["rpc", "sum", "pattern"] {
                table.load(rig, way, relay.port, &Load::new(op, 20_000).parallel(16, 4));
            }
        }
        relay.stop();
        server.stop();
    }
    table.finish();
}

#[test]
fn jumbograms_from_openafs_are_taken_when_we_advertise_them() {
    // A relay without faults says how large the datagrams were: one of 5692 bytes holds four packets.
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("jumbograms");
    let largest = |totals: &str, way: &str| number(totals, &format!("largest_{way}")).unwrap_or(0);

    for (jumbo, expected) in [("1", 1444), ("4", 5692)] {
        let peer = rig.peer(&NO_OPTIONS);
        let relay = rig.relay(&peer, &NO_OPTIONS);
        for op in ["recv", "pattern"] {
            let load =
                Load::new(op, 1 << 20).options(if jumbo == "4" { &["--jumbo", "4"] } else { &[] });
            table.load(rig, Way::OursToOpenAfs, relay.port, &load);
        }
        let size = largest(&relay.stop(), "down");
        let right =
            if expected > 1444 { size > 1444 && size <= expected } else { size <= expected };
        table.check(
            &format!("largest datagram to a client that takes {jumbo} packets: {size}"),
            right,
            &format!("limit {expected}"),
        );
        peer.stop();

        let server = echo_server(if jumbo == "4" { &["--jumbo", "4"][..] } else { &[] });
        let relay = rig.relay(&server, &NO_OPTIONS);
        for op in ["send", "sum", "echo"] {
            table.load(rig, Way::OpenAfsToOurs, relay.port, &Load::new(op, 1 << 20));
        }
        let size = largest(&relay.stop(), "up");
        let right =
            if expected > 1444 { size > 1444 && size <= expected } else { size <= expected };
        table.check(
            &format!("largest datagram to a server that takes {jumbo} packets: {size}"),
            right,
            &format!("limit {expected}"),
        );
        server.stop();
    }
    table.finish();
}

#[test]
fn jumbograms_of_ours_are_taken_by_openafs() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("jumbograms from us");
    let largest = |totals: &str, way: &str| number(totals, &format!("largest_{way}")).unwrap_or(0);
    let bytes = if full() { 20_000_000 } else { 4_000_000 };
    for (options, jumbo) in [(&NO_OPTIONS[..], true), (&["--nojumbo"][..], false)] {
        let peer = rig.peer(options);
        let relay = rig.relay(&peer, &NO_OPTIONS);
        for op in ["send", "sum", "echo"] {
            let load = Load::new(op, bytes).options(&["--jumbo", "4"]);
            table.load(rig, Way::OursToOpenAfs, relay.port, &load);
        }
        let size = largest(&relay.stop(), "up");
        let right = if jumbo { size > 2000 && size <= 5692 } else { size <= 1444 };
        table.check(&format!("largest datagram of ours, {options:?}: {size}"), right, "");
        peer.stop();
    }
    let server = echo_server(&["--jumbo", "4"]);
    let relay = rig.relay(&server, &NO_OPTIONS);
    for op in ["recv", "pattern", "echo"] {
        table.load(rig, Way::OpenAfsToOurs, relay.port, &Load::new(op, bytes));
    }
    let size = largest(&relay.stop(), "down");
    table.check(&format!("largest datagram of our server: {size}"), size > 2000, "");
    server.stop();
    table.finish();
}

#[test]
fn a_reachability_check_comes_before_the_call() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("reachability check");
    let peer = rig.peer(&["--checkreach"]);
    let server = echo_server(&["--reach-check"]);
    for (way, port) in [(Way::OursToOpenAfs, peer.port), (Way::OpenAfsToOurs, server.port)] {
        for op in ["rpc", "sum", "pattern"] {
            table.load(rig, way, port, &Load::new(op, 1));
            table.load(rig, way, port, &Load::new(op, 100_000));
            table.load(rig, way, port, &Load::new(op, 5_000).parallel(8, 2));
        }
    }
    peer.stop();
    server.stop();
    table.finish();
}

#[test]
fn rxdebug_reads_our_server_and_we_read_openafs_version() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxdebug and version");
    let peer = rig.peer(&NO_OPTIONS);
    let ran = run(Command::new(ours(openafs::Ours::Rx)).args(["version", &peer.address()]), 20);
    let good = ran.code == Some(0) && ran.stdout.contains("OpenAFS 1.");
    table.row(Way::OursToOpenAfs, ("version", 0, 1, 1), "", &ran, good);
    peer.stop();

    // Two clients, so that there is something to list; the second stays while rxdebug looks.
    let server = echo_server(&["--debug"]);
    let port = server.port.to_string();
    table.load(rig, Way::OpenAfsToOurs, server.port, &Load::new("sum", 10_000));
    // And one whose packets get lost, in both directions, or come twice.
    let relay = rig.relay(&server, &["--drop", "10", "--dup", "10", "--seed", "7"]);
    for op in ["sum", "pattern"] {
        table.load(rig, Way::OpenAfsToOurs, relay.port, &Load::new(op, 200_000));
    }
    relay.stop();
    let mut busy = rig
        .client(server.port)
        .args(["slowread", "--bytes", "6", "--after", "2", "--delay", "700000"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("rxpeer was built");
    std::thread::sleep(std::time::Duration::from_millis(300));

    let rxdebug = |options: &[&str]| {
        run(Command::new("rxdebug").args(["127.0.0.1", &port]).args(options), 30)
    };
    let mut check = |what: &str, ran: &openafs::Ran, found: bool| {
        table.check(&format!("rxdebug: {what}"), found, &format!("{ran:?}"));
    };
    let ran = rxdebug(&["-version"]);
    let version =
        ran.stdout.lines().find_map(|l| l.strip_prefix("AFS version:")).unwrap_or("").trim();
    check(&format!("version `{version}`"), &ran, !version.is_empty());
    let ran = rxdebug(&["-rxstats", "-noconns"]);
    check("statistics", &ran, ran.stdout.contains("packets read: data"));
    for what in ["dup", "resends"] {
        let count = values(&ran.stdout, what).into_iter().fold(0.0, f64::max);
        check(&format!("statistics: {what} {count}"), &ran, count > 0.0);
    }
    let ran = rxdebug(&["-allconnections"]);
    let connections =
        ran.stdout.lines().filter(|l| l.starts_with("Connection from host 127.0.0.1")).count();
    check(&format!("{connections} connections"), &ran, connections >= 1);
    for what in ["serial", "natMTU"] {
        let told = values(&ran.stdout, what);
        let good = told.len() == connections && told.iter().all(|value| *value > 0.0);
        check(&format!("{what} of each connection: {told:?}"), &ran, good);
    }
    let active = ran.stdout.lines().any(|l| l.contains("state") && l.contains("active"));
    check("a call in progress", &ran, active);
    let ran = rxdebug(&["-peers", "-noconns"]);
    let peers = ran.stdout.lines().filter(|l| l.starts_with("Peer at host 127.0.0.1")).count();
    check(&format!("{peers} peers"), &ran, peers >= 1);
    // Not the timeout: rxdebug of 1.8.9 prints 0.000 whatever the record says.
    for what in ["ifMTU", "natMTU", "maxMTU", "packets sent", "low"] {
        let told = values(&ran.stdout, what);
        let good = told.len() >= peers && told.iter().all(|value| *value > 0.0);
        check(&format!("{what} of each peer: {told:?}"), &ran, good);
    }
    let resends = values(&ran.stdout, "packet resends");
    check(&format!("resends: {resends:?}"), &ran, resends.iter().any(|count| *count > 0.0));
    // Without -version, after which rxdebug ends. What it lists is what it listed one by one.
    let ran = rxdebug(&["-allconnections", "-peers", "-rxstats"]);
    let lines = |start: &str| ran.stdout.lines().filter(|l| l.trim().starts_with(start)).count();
    let listed =
        (lines("Connection from host 127.0.0.1"), lines("Peer at host 127.0.0.1"), lines("Done."));
    let counted = format!("{connections} server connections, 0 client connections, {peers} peer");
    let statistics = [
        "rx stats:",
        "packets read: data",
        "other read counters: data",
        "packets sent: data",
        "other send counters: ack",
        counted.as_str(),
    ];
    let told = statistics.iter().filter(|start| lines(start) == 1).count();
    let all = listed == (connections, peers, 2) && told == statistics.len();
    let what = format!("at once {} connections, {} peers, {told} statistics", listed.0, listed.1);
    check(&what, &ran, ran.code == Some(0) && all);
    let ended = busy.wait().expect("it was started");
    table.check("the call went on meanwhile", ended.success(), &format!("{ended}"));
    server.stop();

    // Not asked for, not given.
    let closed = echo_server(&NO_OPTIONS);
    let ran = run(
        Command::new("timeout").args([
            "3",
            "rxdebug",
            "127.0.0.1",
            &closed.port.to_string(),
            "-peers",
        ]),
        10,
    );
    let told = ran.stdout.lines().any(|l| l.starts_with("Peer at host"));
    table.check("no peers told without --debug", !told, &ran.stdout);
    closed.stop();
    table.finish();
}

/// The numbers that stand behind this name in what rxdebug prints.
fn values(printed: &str, name: &str) -> Vec<f64> {
    let name = format!("{name} ");
    let behind = printed.split(&name).skip(1);
    let number = |text: &str| {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').next().and_then(|n| n.parse().ok())
    };
    behind.filter_map(number).collect()
}

#[test]
fn fields_of_json_lines_are_found() {
    let line = r#"{"ok":true, "failed": 2,"seconds":0.5,"error":"aborted: \"x\" (-455)","busy":0}"#;
    assert_eq!(field(line, "ok"), Some("true"));
    assert_eq!(number(line, "failed"), Some(2));
    assert_eq!(field(line, "error"), Some(r#"aborted: \"x\" (-455)"#));
    assert_eq!(number(line, "busy"), Some(0));
    assert_eq!(number(line, "none"), None);
}
