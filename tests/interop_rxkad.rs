//! rxkad between our binaries and OpenAFS's Rx library, both ways round.
//!
//! Each side is told the same key and makes its own ticket, or takes one as a KDC makes it from a cache;
//! `tests/interop_cell_rxkad.rs` uses those of a KDC.
//! Needs OpenAFS's packages, and is short or long, as `tests/interop_openafs.rs`.

#[path = "support/kdc.rs"]
mod kdc;
#[path = "support/openafs.rs"]
mod openafs;

use openafs::{BOTH_WAYS, Expect, Load, Outcome, Rig, Server, Table, Way};
use openafs::{echo_server, full, number, ours, rig, run, serial};

const LEVELS: [&str; 3] = ["clear", "auth", "crypt"];

/// Enctype 18, as in the captures.
const AES: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// Single DES.
const DES: &str = "1:2:a7838acbc783ec94";
const SESSION: &str = "0123456789abcdef";

const OPERATIONS: [&str; 6] = ["send", "recv", "rpc", "echo", "sum", "pattern"];

/// Full packets carry 1412 (clear), 1408 (auth) or 1400 (crypt) bytes of ours, from OpenAFS 4 more at each
/// level but crypt; requests and replies have words around what is counted here.
const SIZES: [u64; 14] =
    [0, 1, 3, 4, 1376, 1380, 1392, 1396, 1400, 1411, 1412, 1413, 64 * 1024, 1 << 20];
const SIZES_SHORT: [u64; 4] = [0, 1380, 1396, 64 * 1024];

const PARALLEL: [(u32, u32); 4] = [(1, 1), (4, 1), (16, 1), (16, 4)];
const PARALLEL_SHORT: [(u32, u32); 2] = [(4, 1), (16, 4)];

// What both sides abort with.
const NO_SUCH_CLASS: i32 = -2;
const INCONSISTENCY: i32 = 19_270_400;
const PACKET_SHORT: i32 = 19_270_401;
const LEVEL_FAIL: i32 = 19_270_402;
const TICKET_LEN: i32 = 19_270_403;
const OUT_OF_SEQUENCE: i32 = 19_270_404;
const BAD_TICKET: i32 = 19_270_407;
const UNKNOWN_KEY: i32 = 19_270_408;
const EXPIRED: i32 = 19_270_409;
const SEALED_INCONSISTENT: i32 = 19_270_410;
const DATA_LEN: i32 = 19_270_411;

/// The caller's options: what is particular comes behind.
fn credentials(way: Way, level: &str, key: &str, more: &[&str]) -> Vec<String> {
    let mut options: Vec<String> = match way {
        Way::OursToOpenAfs => ["--security", "rxkad", "--level", level].map(String::from).into(),
        Way::OpenAfsToOurs => vec!["--security".into(), format!("rxkad-{level}")],
    };
    options.extend(["--key", key, "--session", SESSION].map(String::from));
    options.extend(more.iter().copied().map(String::from));
    options
}

/// The caller's options, if the ticket is in a cache.
fn from_cache(way: Way, level: &str, cache: &std::path::Path) -> Vec<String> {
    let class = format!("rxkad-{level}");
    let cache = cache.to_str().expect("the build folder has a name in UTF-8");
    let options = match way {
        Way::OursToOpenAfs => &["--security", "rxkad", "--level", level, "--ccache", cache][..],
        Way::OpenAfsToOurs => &["--security", &class],
    };
    let service = if way == Way::OursToOpenAfs { "--principal" } else { "--krb5" };
    options.iter().chain(&[service, kdc::SERVICE]).map(|option| option.to_string()).collect()
}

/// A server that demands rxkad at this level at least.
fn server(rig: &Rig, way: Way, level: &str, key: &str) -> Server {
    match way {
        Way::OursToOpenAfs => {
            rig.peer(&["--security", &format!("rxkad-{level}"), "--require", "--key", key])
        }
        Way::OpenAfsToOurs => {
            let options = ["--security", "rxkad", "--require", "--key", key, "--minimum-level"];
            echo_server(&[&options[..], &[level]].concat())
        }
    }
}

fn load(way: Way, op: &'static str, bytes: u64, level: &str, key: &str, more: &[&str]) -> Load {
    Load::new(op, bytes).credentials(level, credentials(way, level, key, more))
}

fn matrix(rig: &Rig, way: Way, title: &'static str) {
    let mut table = Table::new(title);
    let server = server(rig, way, "clear", AES);
    let sizes = if full() { &SIZES[..] } else { &SIZES_SHORT[..] };
    let at_once = if full() { &PARALLEL[..] } else { &PARALLEL_SHORT[..] };
    for level in LEVELS {
        for op in OPERATIONS {
            for &bytes in sizes {
                for &(parallel, connections) in at_once {
                    let load = load(way, op, bytes, level, AES, &[]);
                    let mut load = load.parallel(parallel, connections);
                    if bytes < 2000 {
                        load.calls *= 3; // the channel's next call acknowledges the last one
                    }
                    table.load(rig, way, server.port, &load);
                }
            }
        }
    }
    server.stop();
    table.finish();
}

#[test]
fn every_level_operation_and_size_against_an_openafs_server() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    matrix(rig, Way::OursToOpenAfs, "rxkad, all operations, our client");
}

#[test]
fn every_level_operation_and_size_from_an_openafs_client() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    matrix(rig, Way::OpenAfsToOurs, "rxkad, all operations, our server");
}

/// What a relay does between the two sides.
const LOSSY: [&str; 10] =
    ["--drop", "5", "--dup", "3", "--reorder", "5", "--delay", "1", "--seed", "7"];

/// Ways through loss that are tried beside each other: most of their time they wait for timers.
const LOSSY_AT_ONCE: usize = 8;

/// Where a kind of ticket comes from.
#[derive(Clone, Copy)]
enum Maker {
    /// Each client prints its own; these options say how.
    Client(&'static [&'static str]),
    /// Our client alone: OpenAFS's cannot make it.
    OurClient,
    /// It lies in a credential cache, for both.
    Kdc,
}

#[test]
fn each_kind_of_ticket_is_accepted() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("kinds of tickets");
    let half = "17:3:000102030405060708090a0b0c0d0e0f";
    let rc4 = "23:4:00112233445566778899aabbccddeeff";
    let des3 = "16:5:dce06b1f64c857a11c3db57c51899b2cc1791008ce973b92";
    let kinds = [
        ("Kerberos 4, DES", DES, Maker::Client(&["--ticket4"])),
        ("213, DES-CBC-CRC", DES, Maker::OurClient),
        ("213, DES-CBC-MD4", "2:2:a7838acbc783ec94", Maker::OurClient),
        ("213, DES-CBC-MD5", "3:2:a7838acbc783ec94", Maker::OurClient),
        ("213, AES-128", half, Maker::Client(&[])),
        ("213, AES-256", AES, Maker::Client(&[])),
        ("213, RC4", rc4, Maker::Client(&[])),
        ("213, triple DES", des3, Maker::Client(&[])),
        ("256, DES-CBC-CRC", DES, Maker::Kdc),
        ("256, AES-128", half, Maker::Kdc),
        ("256, AES-256", AES, Maker::Kdc),
        ("256, RC4", rc4, Maker::Kdc),
        ("256, triple DES", des3, Maker::Kdc),
    ];
    let (mut caches, mut lossy, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, key, maker) in kinds {
        let cache = matches!(maker, Maker::Kdc).then(|| kdc::cache(&rig.work, key));
        for way in BOTH_WAYS {
            if way == Way::OpenAfsToOurs && matches!(maker, Maker::OurClient) {
                continue;
            }
            let load = |bytes, level, note: &str, (calls, connections)| {
                let options = match (&cache, maker) {
                    (Some(cache), _) => from_cache(way, level, cache),
                    (None, Maker::Client(more)) => credentials(way, level, key, more),
                    (None, _) => credentials(way, level, key, &[]),
                };
                let load = Load::new("echo", bytes).credentials(note, options);
                Load { cache: cache.clone(), ..load.parallel(calls, connections) }
            };
            let server = server(rig, way, "clear", key);
            for level in LEVELS {
                let note = format!("{level}, {kind}");
                for calls in [(1, 1), (4, 1), (16, 4)] {
                    table.load(rig, way, server.port, &load(20_000, level, &note, calls));
                }
            }
            let relay = rig.relay(&server, &LOSSY);
            let levels = if full() { &LEVELS[..] } else { &LEVELS[2..] };
            let through_loss = levels
                .iter()
                .map(|level| load(5_000, level, &format!("{level}, {kind}, through loss"), (4, 1)));
            lossy.push((way, relay.port, through_loss.collect()));
            servers.extend([relay, server]);
        }
        caches.extend(cache);
    }
    for some in lossy.chunks(LOSSY_AT_ONCE) {
        table.load_beside(rig, some);
    }
    for server in servers {
        server.stop();
    }
    for cache in caches {
        std::fs::remove_file(cache).expect("it was there");
    }
    table.finish();
}

#[test]
fn tickets_that_openafs_cannot_make_or_read_work_between_our_two_sides() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("AES with SHA-2, ours with ours");
    for key in [
        "19:1:000102030405060708090a0b0c0d0e0f",
        "20:300:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ] {
        let server = server(rig, Way::OpenAfsToOurs, "crypt", key);
        let mut command = std::process::Command::new(ours(openafs::Ours::Rx));
        command.args(["perf", &server.address(), "echo", "--bytes", "20000", "--json"]);
        command.args(credentials(Way::OursToOpenAfs, "crypt", key, &[]));
        let ran = run(&mut command, 20);
        table.check(&format!("enctype {}", &key[..2]), ran.code == Some(0), &format!("{ran:?}"));
        server.stop();
    }
    table.finish();
}

#[test]
fn bulk_is_moved_at_every_level() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxkad, bulk");
    let bytes = if full() { 100_000_000 } else { 2_000_000 };
    for way in BOTH_WAYS {
        let server = server(rig, way, "clear", AES);
        for level in LEVELS {
            for op in ["send", "recv", "sum", "pattern"] {
                let load = load(way, op, bytes, level, AES, &[]).limit_s(180);
                table.load(rig, way, server.port, &load);
            }
        }
        server.stop();
    }
    table.finish();
}

#[test]
fn loss_repeats_and_reordering_are_survived_at_every_level() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxkad through a relay: 5 % lost, 3 % repeated, 5 % late");
    let sizes = if full() { &[1, 20_000, 200_000, 1_000_000][..] } else { &[20_000][..] };
    let (mut lossy, mut servers) = (Vec::new(), Vec::new());
    for way in BOTH_WAYS {
        for level in LEVELS {
            let server = server(rig, way, "clear", AES);
            let relay = rig.relay(&server, &LOSSY);
            let mut loads = Vec::new();
            for op in ["sum", "pattern", "echo"] {
                loads.extend(sizes.iter().map(|&bytes| load(way, op, bytes, level, AES, &[])));
            }
            loads.push(load(way, "sum", 5_000, level, AES, &[]).parallel(16, 4));
            lossy.push((way, relay.port, loads));
            servers.extend([relay, server]);
        }
    }
    table.load_beside(rig, &lossy);
    for server in servers {
        server.stop();
    }
    table.finish();
}

/// Bits flipped in what rxkad looks at: the header's checksum, the first block of a sealed body, challenges and
/// responses. Whatever is changed there is seen, and the call ends with a name; what is good arrives whole. What
/// rxkad does not look at, a checksum of UDP has to keep whole: that is not tried here.
#[test]
fn what_is_changed_where_rxkad_looks_is_refused_by_name_and_never_taken_for_data() {
    const NAMES: [i32; 9] = [
        INCONSISTENCY,
        PACKET_SHORT,
        LEVEL_FAIL,
        TICKET_LEN,
        OUT_OF_SEQUENCE,
        BAD_TICKET,
        UNKNOWN_KEY,
        SEALED_INCONSISTENT,
        DATA_LEN,
    ];
    /// OpenAFS's server hands on what its reader of ASN.1 says of a ticket (com_err table asn1 of Heimdal).
    const ASN1: std::ops::RangeInclusive<i32> = 1_859_794_432..=1_859_794_463;
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxkad, one datagram in twelve changed where it is checked");
    let calls = if full() { 60 } else { 15 };
    for way in BOTH_WAYS {
        let server = server(rig, way, "clear", AES);
        for level in ["auth", "crypt"] {
            for op in ["echo", "sum", "pattern"] {
                let relay = rig.relay(&server, &["--corrupt-sealed", "8", "--seed", "11"]);
                let (mut good, mut refused, mut other) =
                    (0, std::collections::BTreeMap::new(), vec![]);
                for _ in 0..calls {
                    let load = load(way, op, 6000, level, AES, &[]).limit_s(40);
                    match Table::outcome(rig, way, relay.port, &load) {
                        Outcome::Good => good += 1,
                        Outcome::Refused(code)
                            if NAMES.contains(&code)
                                || (way == Way::OursToOpenAfs && ASN1.contains(&code)) =>
                        {
                            *refused.entry(code).or_insert(0) += 1;
                        }
                        outcome => other.push(outcome),
                    }
                }
                let changed = number(&relay.stop(), "corrupted").unwrap_or(0);
                let what = format!(
                    "{}, {level}, {op}: {calls} calls, {changed} datagrams changed, {good} whole, refused {refused:?}",
                    way.name()
                );
                // Nothing would be seen if all went well, or nothing did.
                let is_tried = good > 0 && !refused.is_empty() && changed > 0;
                table.check(&what, is_tried && other.is_empty(), &format!("{other:?}"));
            }
        }
        // And the server serves on.
        table.load(rig, way, server.port, &load(way, "sum", 10_000, "crypt", AES, &[]));
        server.stop();
    }
    table.finish();
}

/// Bits flipped anywhere, also where rxkad does not look: behind the first block of a body it sees nothing. Calls
/// end all the same, some of them with other bytes than were sent, and nobody else's suffers.
#[test]
fn what_is_changed_anywhere_ends_calls_and_no_server() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxkad, one datagram in fifty changed anywhere");
    let calls = if full() { 40 } else { 20 };
    let mut ended_badly = 0;
    for way in BOTH_WAYS {
        let server = server(rig, way, "clear", AES);
        for level in ["auth", "crypt"] {
            let relay = rig.relay(&server, &["--corrupt", "2", "--seed", "5"]);
            let (mut good, mut refused, mut wrong, mut other) = (0, 0, 0, vec![]);
            for _ in 0..calls {
                let load = load(way, "sum", 20_000, level, AES, &[]).limit_s(60);
                match Table::outcome(rig, way, relay.port, &load) {
                    Outcome::Good => good += 1,
                    Outcome::Refused(_) => refused += 1,
                    Outcome::Wrong => wrong += 1,
                    outcome => other.push(outcome),
                }
            }
            let changed = number(&relay.stop(), "corrupted").unwrap_or(0);
            let what = format!(
                "{}, {level}: {calls} calls, {changed} datagrams changed, {good} whole, {refused} refused, {wrong} with other bytes",
                way.name()
            );
            ended_badly += calls - good;
            table.check(&what, good > 0 && changed > 0 && other.is_empty(), &format!("{other:?}"));
        }
        table.load(rig, way, server.port, &load(way, "sum", 10_000, "crypt", AES, &[]));
        server.stop();
    }
    // Nothing would be seen if the bits fell on nothing that matters.
    let seen = format!("{ended_badly} calls refused or with other bytes");
    table.check(&seen, ended_badly > 0, "every call was whole");
    table.finish();
}

/// Version 1 of the handshake: with a relay that takes the checksums from a client's packets, OpenAFS's server asks
/// our client in it, and ours, told to, OpenAFS's client.
#[test]
fn version_1_is_spoken_with_openafs_both_ways() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxkad, version 1, no checksums from the client");
    for way in BOTH_WAYS {
        for level in LEVELS {
            let server = match way {
                Way::OursToOpenAfs => server(rig, way, level, AES),
                Way::OpenAfsToOurs => {
                    let options = ["--security", "rxkad", "--require", "--key", AES, "--version-1"];
                    echo_server(&[&options[..], &["--minimum-level", level]].concat())
                }
            };
            let relay = rig.relay(&server, &["--no-cksum"]);
            for op in ["echo", "sum", "pattern"] {
                for bytes in [0, 1, 20_000, 200_000] {
                    table.load(rig, way, relay.port, &load(way, op, bytes, level, AES, &[]));
                }
                let many = load(way, op, 5_000, level, AES, &[]).parallel(16, 4);
                table.load(rig, way, relay.port, &many);
            }
            // Without the relay all have checksums, and version 2.
            table.load(rig, way, server.port, &load(way, "sum", 20_000, level, AES, &[]));
            relay.stop();
            server.stop();
        }
    }
    // By default ours hears no packet without a checksum.
    let way = Way::OpenAfsToOurs;
    let server = server(rig, way, "clear", AES);
    let relay = rig.relay(&server, &["--no-cksum"]);
    for level in LEVELS {
        let load =
            load(way, "sum", 1000, level, AES, &[]).expect(Expect::Abort(SEALED_INCONSISTENT));
        table.load(rig, way, relay.port, &load.limit_s(20));
    }
    relay.stop();
    server.stop();
    table.finish();
}

#[test]
fn jumbograms_are_sealed_packet_by_packet() {
    // OpenAFS joins packets that are full to the last byte: at crypt, with a multiple of eight, none is, and
    // at auth it depends on how they were cut.
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxkad, jumbograms from OpenAFS");
    let largest = |totals: &str, way: &str| number(totals, &format!("largest_{way}")).unwrap_or(0);
    for level in LEVELS {
        let is_right = |size| match level {
            "clear" => size > 1444,
            "crypt" => size <= 1444,
            _ => true,
        };
        let peer = server(rig, Way::OursToOpenAfs, level, AES);
        let relay = rig.relay(&peer, &[] as &[&str]);
        let way = Way::OursToOpenAfs;
        let received = load(way, "pattern", 1 << 20, level, AES, &[]).options(&["--jumbo", "4"]);
        table.load(rig, way, relay.port, &received);
        let size = largest(&relay.stop(), "down");
        let came = format!("{level}: a datagram of {size} bytes came");
        table.check(&came, size > 0 && is_right(size), "clear joins packets, crypt does not");
        peer.stop();

        let options = ["--security", "rxkad", "--require", "--key", AES, "--jumbo", "4"];
        let ours = echo_server(&options);
        let relay = rig.relay(&ours, &[] as &[&str]);
        let way = Way::OpenAfsToOurs;
        table.load(rig, way, relay.port, &load(way, "sum", 1 << 20, level, AES, &[]));
        let size = largest(&relay.stop(), "up");
        let came = format!("{level}: a datagram of {size} bytes came");
        table.check(&came, size > 0 && is_right(size), "clear joins packets, crypt does not");
        ours.stop();
    }
    table.finish();
}

#[test]
fn who_is_not_good_enough_is_told_why() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("refusals");
    let wrong = AES.replace(":0001", ":ff01");
    let unknown = AES.replace(":1:", ":9:");
    for way in BOTH_WAYS {
        let server = server(rig, way, "auth", AES);
        let mut refused = |note: &str, options: Vec<String>, code| {
            let load = Load::new("sum", 1000).credentials(note, options);
            table.load(rig, way, server.port, &load.expect(Expect::Abort(code)).limit_s(20));
        };
        refused("wrong key", credentials(way, "crypt", &wrong, &[]), BAD_TICKET);
        refused("unknown key version", credentials(way, "crypt", &unknown, &[]), UNKNOWN_KEY);
        refused("no DES key there", credentials(way, "crypt", DES, &["--ticket4"]), UNKNOWN_KEY);
        refused("expired", credentials(way, "crypt", AES, &["--expired"]), EXPIRED);
        refused("level too low", credentials(way, "clear", AES, &[]), LEVEL_FAIL);
        refused("null", vec!["--security".into(), "null".into()], NO_SUCH_CLASS);
        // And the server serves on.
        for level in ["auth", "crypt"] {
            table.load(rig, way, server.port, &load(way, "sum", 10_000, level, AES, &[]));
        }
        server.stop();
    }
    // Where it is not required, both are served.
    for way in BOTH_WAYS {
        let server = match way {
            Way::OursToOpenAfs => rig.peer(&["--security", "rxkad-crypt", "--key", AES]),
            Way::OpenAfsToOurs => {
                echo_server(&["--security", "rxkad", "--key", AES, "--minimum-level", "crypt"])
            }
        };
        table.load(rig, way, server.port, &Load::new("sum", 10_000));
        table.load(rig, way, server.port, &load(way, "sum", 10_000, "crypt", AES, &[]));
        let low = load(way, "sum", 10_000, "auth", AES, &[]).expect(Expect::Abort(LEVEL_FAIL));
        table.load(rig, way, server.port, &low);
        server.stop();
    }
    table.finish();
}

#[test]
fn a_wrong_key_on_one_connection_disturbs_no_other() {
    // A slow call at crypt goes on while others knock with a wrong key.
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("a wrong key beside a good one");
    let wrong = AES.replace(":0001", ":ff01");
    for way in BOTH_WAYS {
        let server = server(rig, way, "crypt", AES);
        let slow = load(way, "slowread", 400_000, "crypt", AES, &[]).slow(8192, 100_000);
        let port = server.port;
        std::thread::scope(|scope| {
            let knocking = scope.spawn(|| {
                let mut codes = Vec::new();
                for _ in 0..3 {
                    let load = load(way, "sum", 1000, "crypt", &wrong, &[]).limit_s(20);
                    codes.push(Table::try_load(
                        rig,
                        way,
                        port,
                        &load.expect(Expect::Abort(BAD_TICKET)),
                    ));
                }
                codes
            });
            table.load(rig, way, port, &slow);
            let codes = knocking.join().expect("it does not panic");
            table.check(
                "three wrong keys refused meanwhile",
                codes == [true; 3],
                &format!("{codes:?}"),
            );
        });
        server.stop();
    }
    table.finish();
}

#[test]
fn rxdebug_reads_level_expiry_and_traffic_of_our_server() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let mut table = Table::new("rxdebug at our server with rxkad");
    for level in LEVELS {
        let options = ["--security", "rxkad", "--require", "--key", AES, "--debug"];
        let server = echo_server(&options);
        let way = Way::OpenAfsToOurs;
        table.load(rig, way, server.port, &load(way, "sum", 100_000, level, AES, &[]));
        let port = server.port.to_string();
        let mut rxdebug = std::process::Command::new("rxdebug");
        rxdebug.args(["127.0.0.1", &port, "-allconnections", "-long"]);
        let ran = run(&mut rxdebug, 30);
        let is_of_security = |line: &&str| {
            line.starts_with("rxkad:") || (line.contains(" bytes in ") && line.contains(" packets"))
        };
        let said: Vec<_> = ran.stdout.lines().map(str::trim).filter(is_of_security).collect();
        let says = |what: &str| said.iter().any(|line| line.contains(what));
        // rxpeer's tickets last 36,000 seconds.
        let is_told = says(&format!("level {level},"))
            && says(" authenticated ")
            && (says("expires in 10.0 hours") || says("expires in 9.9 hours"));
        let bytes = |direction: &str| -> Option<u64> {
            let line = said.iter().find_map(|line| line.strip_prefix(direction))?;
            line.split_once(" bytes in ")?.0.trim().parse().ok()
        };
        // The request and what each packet of it has for the seal; the sum that is answered.
        let (received, sent) = (bytes("Received"), bytes("Sent"));
        let is_counted = received.is_some_and(|bytes| (100_000..102_000).contains(&bytes))
            && sent.is_some_and(|bytes| (1..100).contains(&bytes));
        let good = is_told && is_counted;
        table.check(&format!("{level}: {}", said.join("; ")), good, &format!("{ran:?}"));
        server.stop();
    }
    table.finish();
}
