//! The binaries as a shell sees them: exit status, one line of explanation, and what goes on when the
//! other side misbehaves.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const RX: &str = env!("CARGO_BIN_EXE_rx");
const ECHO_SERVER: &str = env!("CARGO_BIN_EXE_echo-server");

/// How a program ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
    took: Duration,
}

impl Ran {
    /// Its one line of JSON.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// With every name that is promised, and this in its error.
    fn failed_in_json(&self, code: i32, word: &str) {
        let json = self.json();
        assert_eq!((self.code, &json["ok"]), (Some(code), &false.into()), "{self:?}");
        assert!(json["error"].as_str().is_some_and(|error| error.contains(word)), "{self:?}");
        has_promised_names(&json);
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
    }

    fn failed_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "one line on standard error: {self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word}: {self:?}");
        }
    }
}

/// Whoever reads a line of JSON counts on these.
fn has_promised_names(json: &Value) {
    assert!(json["ok"].is_boolean(), "{json}");
    for name in ["calls", "failed", "bytes", "seconds", "busy", "retransmitted"] {
        assert!(json[name].is_number(), "{name}: {json}");
    }
    assert_eq!(json["ok"] == true, json.get("error").is_none(), "{json}");
}

/// No program here takes so long, however busy the machine is: who does is stuck.
const RUN_MAX: Duration = Duration::from_secs(300);

fn run(program: &str, arguments: &[&str]) -> Ran {
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id().to_string();
    let (done, ended) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let output = child.wait_with_output();
        // Nobody waits any more for one that had to be killed.
        let _ = done.send(());
        output
    });
    if ended.recv_timeout(RUN_MAX).is_err() {
        let _ = Command::new("kill").args(["-KILL", &id]).status();
        let output = waiting.join().unwrap();
        panic!("{program} {arguments:?} has not ended within {RUN_MAX:?}: {output:?}");
    }
    let done = waiting.join().unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (code, out, err) = (done.status.code(), text(done.stdout), text(done.stderr));
    Ran { code, out, err, took: began.elapsed() }
}

fn rx(arguments: &[&str]) -> Ran {
    run(RX, arguments)
}

/// `echo-server` on a free port.
struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        Server::start_at("127.0.0.1:0", arguments)
    }

    fn start_at(listen: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(ECHO_SERVER);
        command.args(["--listen", listen]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        Server { child, out, address: address.trim_end().to_owned() }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Sends a signal and waits for the end; returns the status, the rest of its output, and its errors.
    fn stop(mut self, signal: &str) -> (Option<i32>, String, String) {
        self.signal(signal);
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address where nobody listens.
fn nobody() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Not even one that was mistyped: it is almost the right one. Nor where its option was.
#[test]
fn no_key_is_repeated() {
    const KEY: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e";
    const SESSION: &str = "0123456789abcde";
    let call = ["call", "127.0.0.1:1", "--security", "rxkad"];
    let good = ["--key", "1:2:a7838acbc783ec94", "--session", SESSION];
    for ran in [
        rx(&[&call[..], &["--key", KEY]].concat()),
        rx(&[&call[..], &good].concat()),
        run(ECHO_SERVER, &["--security", "rxkad", "--key", KEY]),
    ] {
        ran.failed_with(2, &["invalid value for"]);
        for secret in ["000102", "0123456789"] {
            assert!(!ran.err.contains(secret), "{}", ran.err);
        }
    }
    const GOOD: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let glued = |option: &str| format!("{option}{GOOD}");
    let call = ["perf", "127.0.0.1:1", "echo"];
    let wrong: [&[&str]; 11] = [
        &["--security", "rxkad", GOOD],
        &["--security", GOOD],
        &["--security", "rxkad", "--key", GOOD, &glued("--ticket4=")],
        &[&glued("--key")],
        &[&glued("--kye=")],
        &["--security", "rxkad", "--key-file", GOOD],
        &["--security", "rxkad", "--ccache", GOOD, "--principal", "afs/x"],
        &["--security", "rxkad", "--ccache", "/dev/null", "--principal", GOOD],
        &["--security", "rxkad", "--key", GOOD, "--level", GOOD],
        &["--bytes", GOOD],
        &["--timeout", GOOD],
    ];
    let clients = wrong.iter().flat_map(|arguments| {
        let line = rx(&[&call[..], arguments].concat());
        let json = rx(&[&call[..], arguments, &["--json"]].concat());
        [line, json]
    });
    let alone = [&["call", GOOD][..], &["call", "127.0.0.1:1", "--file", GOOD], &[GOOD]];
    let clients = clients.chain(alone.map(rx));
    let wrong: [&[&str]; 6] = [
        &["--security", "rxkad", GOOD],
        &[&glued("--key")],
        &["--security", "rxkad", "--key-file", GOOD],
        &["--minimum-level", GOOD],
        &["--listen", GOOD],
        &["--require", &glued("--version-1=")],
    ];
    let servers = wrong.iter().map(|arguments| run(ECHO_SERVER, arguments));
    for ran in clients.chain(servers) {
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(!said.is_empty());
        for part in ["000102", "1d1e1f"] {
            assert!(!said.contains(part), "{said}");
        }
    }
}

#[test]
fn credentials_belong_to_rxkad_and_are_of_one_kind() {
    const KEY: &str = "1:2:a7838acbc783ec94";
    let call = ["call", "127.0.0.1:1"];
    let wrong: [(&[&str], &str); 15] = [
        (&["--security", "rxgk"], "rxgk"),
        (&["--security", "rxkad"], "--ccache, --key-file or --key"),
        (&["--key", KEY], "need --security rxkad"),
        (&["--security", "rxkad", "--key", "1:2"], "ENCTYPE:KVNO:HEX"),
        (&["--security", "rxkad", "--key", "18:1:00"], "1 bytes does not belong"),
        (&["--security", "rxkad", "--key", "99:1:00"], "99 is not known"),
        (&["--security", "rxkad", "--key", KEY, "--session", "00"], "8 bytes"),
        (&["--security", "rxkad", "--key", KEY, "--level", "high"], "high"),
        (&["--security", "rxkad", "--ccache", "/x"], "--principal"),
        (&["--security", "rxkad", "--key", KEY, "--key-file", "/x"], "cannot be used with"),
        (&["--security", "rxkad", "--key-file", "/x", "--ticket4"], "--key"),
        (&["--level", "crypt"], "--level need --security rxkad"),
        (&["--security", "rxkad", "--principal", "afs/x"], "--ccache"),
        (
            &["--security", "rxkad", "--key", KEY, "--principal", "afs/x"],
            "--principal needs --ccache",
        ),
        (
            &["--security", "rxkad", "--key-file", "/x", "--principal", "afs/x"],
            "--principal needs --ccache",
        ),
    ];
    for (arguments, word) in wrong {
        rx(&[&call[..], arguments].concat()).failed_with(2, &[word]);
    }
    let wrong: [(&[&str], &str); 6] = [
        (&["--security", "rxkad"], "--key-file or --key"),
        (&["--require"], "need --security rxkad"),
        (&["--version-1"], "need --security rxkad"),
        (&["--minimum-level", "crypt"], "need --security rxkad"),
        (&["--key", KEY], "need --security rxkad"),
        (&["--security", "rxkad", "--key", KEY, "--minimum-level", "none"], "none"),
    ];
    for (arguments, word) in wrong {
        run(ECHO_SERVER, arguments).failed_with(2, &[word]);
    }
    // What is there, but is of no use.
    let with = |option: &str, file: &str| {
        rx(&["call", "127.0.0.1:1", "--security", "rxkad", option, file, "--principal", "afs/x"])
    };
    with("--ccache", "/nonexistent/cc").failed_with(2, &["/nonexistent/cc"]);
    // As in KRB5CCNAME.
    with("--ccache", "FILE:/nonexistent/cc").failed_with(2, &["cannot read /nonexistent/cc"]);
    with("--ccache", "DIR:/tmp").failed_with(2, &["of type FILE", "DIR"]);
    with("--ccache", "/dev/null").failed_with(2, &["/dev/null", "not a Kerberos credential cache"]);
    let keys = ["--security", "rxkad", "--key-file", "/nonexistent/KeyFileExt"];
    rx(&[&call[..], &keys].concat()).failed_with(2, &["/nonexistent/KeyFileExt"]);
    run(ECHO_SERVER, &keys).failed_with(2, &["/nonexistent/KeyFileExt"]);
    // A ticket of Kerberos 4 is sealed with DES.
    let aes = format!("18:1:{}", "00".repeat(32));
    rx(&["call", "127.0.0.1:1", "--security", "rxkad", "--key", &aes, "--ticket4"])
        .failed_with(2, &["needs a single-DES key"]);
}

/// OpenAFS refuses tickets under weak keys and under those of wrong parity, and so do we: at the start, not at each
/// call.
#[test]
fn keys_that_open_no_ticket_are_named_at_the_start() {
    for key in ["1:2:0101010101010101", "1:2:0023456789abcdef"] {
        let keys = ["--security", "rxkad", "--key", key];
        let words = ["version 2", "weak or of wrong parity"];
        run(ECHO_SERVER, &keys).failed_with(2, &words);
        rx(&[&["call", "127.0.0.1:1"][..], &keys].concat()).failed_with(2, &words);
    }
    // In a file that has a good one too it is only said.
    let folder = std::env::temp_dir().join(format!("rxrpc-weak-key-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("KeyFile");
    let good = [0xa7, 0x83, 0x8a, 0xcb, 0xc7, 0x83, 0xec, 0x94];
    let keys = [&[0, 0, 0, 2, 0, 0, 0, 3][..], &[1; 8], &[0, 0, 0, 4], &good].concat();
    std::fs::write(&path, keys).unwrap();
    let keys = ["--security", "rxkad", "--key-file", path.to_str().unwrap()];
    let server = Server::start(&keys);
    let ran = rx(&[&["call", &server.address, "--data", "x"], &keys[..]].concat());
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "x"), "{ran:?}");
    let (code, _, err) = server.stop("-TERM");
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((code, err.lines().count()), (Some(0), 1), "{err}");
    assert!(err.contains("version 3") && err.contains("weak"), "{err}");
}

#[test]
fn rxkad_proves_its_client_at_every_level() {
    const KEY: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let keys = ["--security", "rxkad", "--key", KEY];
    let server = Server::start(&[&keys[..], &["--require", "--minimum-level", "auth"]].concat());
    let call = |more: &[&str]| {
        let all = [&["call", &server.address, "--data", "hello"], more].concat();
        rx(&all)
    };
    for level in ["auth", "crypt"] {
        let ran = call(&[&keys[..], &["--level", level]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "hello"), "{level}: {ran:?}");
    }
    let low = call(&[&keys[..], &["--level", "clear"]].concat());
    low.failed_with(3, &["RXKADLEVELFAIL", "what the server's challenge asks for"]);
    call(&[]).failed_with(3, &["-2"]);
}

#[test]
fn wrong_command_lines_say_what_is_wrong_on_one_line() {
    let wrong: [(&str, &[&str], &str); 32] = [
        (RX, &["frobnicate"], "frobnicate"),
        (RX, &["call"], "<HOST:PORT>"),
        (RX, &["call", "127.0.0.1:1", "--frob"], "--frob"),
        (RX, &["call", "127.0.0.1:1", "--service", "0"], "1..=65535"),
        (RX, &["call", "127.0.0.1:1", "--data", "x", "--zero", "1"], "--zero"),
        (RX, &["call", "127.0.0.1:1", "--service", "70000"], "1..=65535"),
        (RX, &["call", "127.0.0.1:1", "--service", "-1"], "1..=65535"),
        (RX, &["call", "127.0.0.1:1", "--timeout", "0"], "seconds above 0"),
        (RX, &["call", "127.0.0.1:1", "--timeout", "-1"], "seconds above 0"),
        (RX, &["call", "127.0.0.1:1", "--timeout", "1e30"], "at most 1000000000"),
        (RX, &["version", "127.0.0.1:1", "--timeout", "-1"], "seconds above 0"),
        (ECHO_SERVER, &["--grace", "-1"], "seconds above 0"),
        (RX, &["call", "127.0.0.1"], "HOST:PORT"),
        (RX, &["call", "127.0.0.1:99999"], "HOST:PORT"),
        (RX, &["perf", "::1:7009", "send"], "[::1]:7009"),
        (RX, &["version", "nowhere"], "HOST:PORT"),
        (ECHO_SERVER, &["--listen", "nowhere"], "HOST:PORT"),
        (ECHO_SERVER, &["--listen", "127.0.0.1:65536"], "HOST:PORT"),
        (RX, &["call", "127.0.0.1:1", "--file", "/no/such/file"], "/no/such/file"),
        (RX, &["call", "127.0.0.1:1", "--count", "0"], "--count"),
        (RX, &["perf", "127.0.0.1:1", "shout"], "shout"),
        (RX, &["perf", "127.0.0.1:1", "send", "--bytes", "2G"], "2147483647"),
        (RX, &["perf", "127.0.0.1:1", "rpc", "--bytes", "1"], "--send and --recv"),
        (RX, &["perf", "127.0.0.1:1", "send", "--send", "100"], "--bytes"),
        (RX, &["perf", "127.0.0.1:1", "echo", "--code", "5"], "no --code"),
        (RX, &["perf", "127.0.0.1:1", "rpc", "--piece", "5"], "no --piece or --micros"),
        (RX, &["perf", "127.0.0.1:1", "recv", "--micros", "5"], "no --piece or --micros"),
        (ECHO_SERVER, &["--jumbo", "7"], "1..=6"),
        (ECHO_SERVER, &["--shards", "65"], "1..=64"),
        (RX, &["perf", "127.0.0.1:1", "rpc", "--shards", "0"], "1..=64"),
        (ECHO_SERVER, &["--window", "70000"], "65535"),
        (ECHO_SERVER, &["--request-max", "lots"], "k, M or G"),
    ];
    for (program, arguments, word) in wrong {
        run(program, arguments).failed_with(2, &[word]);
    }
    for program in [RX, ECHO_SERVER] {
        let ran = run(program, &["--help"]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("Usage:") && ran.err.is_empty(), "{ran:?}");
    }
    assert_eq!(rx(&[]).code, Some(2));
}

#[test]
fn what_cannot_start_exits_with_1() {
    let server = Server::start(&[]);
    run(ECHO_SERVER, &["--listen", &server.address])
        .failed_with(1, &["cannot bind", &server.address]);
    // An address that is not this machine's.
    run(ECHO_SERVER, &["--listen", "192.0.2.1:0"]).failed_with(1, &["192.0.2.1"]);
    run(ECHO_SERVER, &["--listen", "no-such-host.invalid:0"])
        .failed_with(1, &["no-such-host.invalid:0"]);
    // With JSON, the same and a line of that.
    let ran = run(ECHO_SERVER, &["--listen", &server.address, "--json"]);
    ran.failed_with(1, &["cannot bind", &server.address]);
    ran.failed_in_json(1, "cannot bind");
}

#[test]
fn a_host_without_an_address_is_a_failed_call() {
    const NOWHERE: &str = "no-such-host.invalid:7009";
    for arguments in [&["call", NOWHERE][..], &["perf", NOWHERE, "send"], &["version", NOWHERE]] {
        rx(&[arguments, &["--timeout", "30"]].concat())
            .failed_with(3, &["expected an address for", NOWHERE, "got none: ", "; after "]);
    }
}

#[test]
fn with_json_a_failure_before_the_first_call_is_a_line_of_json_too() {
    let failures: [(&[&str], i32, &str); 5] = [
        (&["call", "no-such-host.invalid:7009", "--timeout", "30"], 3, "expected an address for"),
        (&["call", "127.0.0.1:1", "--file", "/no/such/file"], 2, "/no/such/file"),
        (&["call", "127.0.0.1:1", "--security", "rxkad"], 2, "--ccache, --key-file or --key"),
        (&["perf", "127.0.0.1:1", "rpc", "--bytes", "1"], 2, "--send and --recv"),
        (&["perf", "no-such-host.invalid:7009", "send"], 3, "expected an address for"),
    ];
    for (arguments, code, word) in failures {
        let ran = rx(&[arguments, &["--json"]].concat());
        ran.failed_in_json(code, word);
        assert_eq!(ran.err, "", "{ran:?}");
    }
}

#[test]
fn with_json_a_wrong_command_line_is_a_line_of_json_too() {
    let wrong: [(&str, &[&str], &str, Option<&str>); 8] = [
        (RX, &["perf", "127.0.0.1:1", "rpc", "--parallel", "0"], "--parallel", Some("rpc")),
        (RX, &["perf", "127.0.0.1:1", "shout"], "shout", Some("perf")),
        (RX, &["call", "127.0.0.1"], "HOST:PORT", Some("call")),
        (RX, &["call"], "<HOST:PORT>", Some("call")),
        (RX, &["version", "127.0.0.1:1", "--timeout", "0"], "--timeout", Some("version")),
        (RX, &["frobnicate"], "frobnicate", Some("rx")),
        (ECHO_SERVER, &["--jumbo", "7"], "1..=6", None),
        (ECHO_SERVER, &["--require"], "--security rxkad", None),
    ];
    for (program, arguments, word, op) in wrong {
        let ran = run(program, &[arguments, &["--json"]].concat());
        ran.failed_with(2, &[word]);
        ran.failed_in_json(2, word);
        assert_eq!(ran.json()["op"].as_str(), op, "{ran:?}");
        // Without it, standard output stays empty.
        assert_eq!(run(program, arguments).out, "");
    }
    // No key there either.
    let ran = rx(&["call", "127.0.0.1:1", "--key", "18:1:00010203", "--json"]);
    ran.failed_in_json(2, "invalid value for");
    assert!(!ran.out.contains("000102"), "{ran:?}");
    for arguments in [&["--help"][..], &["perf", "--json", "--help"]] {
        let ran = rx(arguments);
        assert!(ran.code == Some(0) && ran.out.contains("Usage:") && !ran.out.contains("\"ok\""));
    }
}

#[test]
fn both_ends_may_have_several_threads_with_faults_too() {
    for faults in [&[][..], &["--loss", "2%", "--seed", "7"]] {
        let server = Server::start(&[&["--shards", "2", "--json"], faults].concat());
        let perf = ["perf", &server.address, "echo", "--bytes", "200k", "--shards", "3", "--json"];
        let load = ["--parallel", "12", "--count", "60"];
        let ran = rx(&[&perf, &load[..], faults].concat());
        let json = ran.json();
        assert_eq!((ran.code, &json["calls"], &json["failed"]), (Some(0), &60.into(), &0.into()));
        assert!(json["strays"].as_u64() > Some(0), "{json}");
        let (code, out, err) = server.stop("-TERM");
        let totals: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &totals["calls"]), (Some(0), &60.into()), "{out}{err}");
        assert_eq!(totals["strays"], 0, "a client's packets come to one socket: {out}");
    }
}

#[test]
fn calls_print_their_reply_or_a_line_of_json() {
    let server = Server::start(&[]);
    let ran = rx(&["call", &server.address, "--data", "hello"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "hello", ""));
    let ran = rx(&[
        "call",
        &server.address,
        "--file",
        file!(),
        "--count",
        "9",
        "--parallel",
        "5",
        "--json",
    ]);
    let json = ran.json();
    assert_eq!(ran.code, Some(0));
    let size = std::fs::metadata(file!()).unwrap().len();
    assert_eq!(
        (&json["ok"], &json["calls"], &json["failed"]),
        (&true.into(), &9.into(), &0.into())
    );
    assert_eq!(json["bytes"], 2 * 9 * size);
    for name in ["seconds", "calls_per_second", "bytes_per_second", "p50_us", "p99_us", "max_us"] {
        assert!(json[name].is_number(), "{name}: {json}");
    }
    assert_eq!((&json["busy"], &json["retransmitted"]), (&0.into(), &0.into()));
    assert_eq!(json.get("error"), None);
    let (code, out, err) = server.stop("-TERM");
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
}

#[test]
fn every_operation_checks_its_reply() {
    let server = Server::start(&["--json"]);
    for op in ["send", "recv", "echo", "sum", "pattern"] {
        for bytes in ["0", "1k", "70k", "3M"] {
            let ran =
                rx(&["perf", &server.address, op, "--bytes", bytes, "--count", "3", "--json"]);
            assert_eq!(
                (ran.code, &ran.json()["ok"]),
                (Some(0), &true.into()),
                "{op} {bytes}: {ran:?}"
            );
        }
    }
    for arguments in [
        &["rpc", "--send", "100k", "--recv", "100k"][..],
        &["rpc", "--count", "500", "--parallel", "16", "--connections", "4"],
        &["abort"],
        &["abort", "--code", "-17", "--send", "50k", "--recv", "50k"],
        &["slowread", "--bytes", "10k"],
        &["slowwrite", "--bytes", "100k", "--piece", "10k", "--micros", "5000"],
    ] {
        let ran = run(RX, &[&["perf", &server.address], arguments].concat());
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    }
    let (code, out, _) = server.stop("-INT");
    assert_eq!(code, Some(0));
    let totals: Value = serde_json::from_str(&out).unwrap();
    has_promised_names(&totals);
    assert_eq!((&totals["ok"], &totals["calls"]), (&true.into(), &565.into()), "{totals}");
    // The two operations "abort", each a call that the server aborted.
    let ends = ["calls_good", "calls_failed", "failed", "calls_cut"];
    assert_eq!(ends.map(|name| totals[name].as_u64().unwrap()), [563, 2, 2, 0], "{totals}");
    let [bytes, received, sent] =
        ["bytes", "bytes_received", "bytes_sent"].map(|name| totals[name].as_u64().unwrap());
    // send, echo and sum to it, recv, echo and pattern from it: 3 times 3M each way, and more.
    assert!(bytes == received + sent && received > 27 << 20 && sent > 27 << 20, "{totals}");
}

#[test]
fn hosts_have_names_and_addresses_of_both_families() {
    let server = Server::start(&[]);
    let port = server.address.rsplit_once(':').unwrap().1;
    assert_eq!(rx(&["call", &format!("localhost:{port}"), "--data", "x"]).out, "x");
    let ran = rx(&["version", &format!("localhost:{port}")]);
    assert_eq!(
        (ran.code, ran.out.trim_end()),
        (Some(0), concat!("rxrpc ", env!("CARGO_PKG_VERSION")))
    );
    let ran = rx(&["version", &format!("localhost:{port}"), "--json"]);
    let json = ran.json();
    has_promised_names(&json);
    assert_eq!((&json["ok"], &json["op"]), (&true.into(), &"version".into()), "{json}");
    assert_eq!(json["version"], concat!("rxrpc ", env!("CARGO_PKG_VERSION")));
    if UdpSocket::bind("[::1]:0").is_ok() {
        let server = Server::start_at("[::1]:0", &[]);
        assert_eq!(rx(&["call", &server.address, "--data", "six"]).out, "six");
        assert_eq!(rx(&["version", &server.address]).code, Some(0));
    }
}

#[test]
fn nobody_at_the_port_is_told_at_once() {
    let address = nobody();
    for arguments in [&["call", &address][..], &["perf", &address, "send"], &["version", &address]]
    {
        let ran = rx(arguments);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        assert!(ran.err.contains("expected") && ran.err.contains("after "), "{ran:?}");
        // Not by the dead time of 20 s: the network has said so.
        assert!(ran.took < Duration::from_secs(15), "{ran:?}");
    }
    let json = rx(&["perf", &address, "send", "--count", "50", "--json"]).json();
    assert_eq!(
        (&json["ok"], &json["calls"], &json["failed"]),
        (&false.into(), &1.into(), &1.into())
    );
    assert!(json["error"].as_str().unwrap().contains("port unreachable"), "{json}");
    let json = rx(&["perf", &address, "send", "--count", "5", "--keep-going", "--json"]).json();
    assert_eq!((&json["calls"], &json["failed"]), (&5.into(), &5.into()), "{json}");
}

#[test]
fn a_silent_host_is_given_up_at_the_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for arguments in [&["call", &address][..], &["perf", &address, "recv"], &["version", &address]]
    {
        let ran = rx(&[arguments, &["--timeout", "1"]].concat());
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.err.contains("after 1."), "{ran:?}");
    }
}

#[test]
fn a_server_that_vanishes_in_the_middle_of_a_call_is_noticed() {
    let mut server = Server::start(&[]);
    let arguments =
        ["perf", &server.address, "slowwrite", "--bytes", "1M", "--piece", "1k", "--json"];
    let call = Command::new(RX).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    server.child.kill().unwrap();
    let killed = Instant::now();
    let done = call.wait_with_output().unwrap();
    // The next keepalive finds nobody at the port: far sooner than the dead time of 20 s.
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    assert_eq!(done.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(json["error"].as_str().unwrap().contains("unreachable"), "{json}");
}

#[test]
fn a_reply_after_the_deadline_fails_its_call_and_nothing_else() {
    let server = Server::start(&["--json"]);
    // 300 pieces, 100 ms each.
    let slow = ["--bytes", "300", "--piece", "1", "--micros", "100000"];
    let ran = rx(&[&["perf", &server.address, "slowread", "--timeout", "0.5"], &slow[..]].concat());
    ran.failed_with(3, &["deadline passed", "after 0."]);
    assert!(ran.took < Duration::from_secs(15), "half of the 30 s that the reply takes: {ran:?}");
    assert_eq!(rx(&["call", &server.address, "--data", "still here"]).out, "still here");
    let (code, out, _) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    let totals: Value = serde_json::from_str(&out).unwrap();
    // The late call was aborted by its client: nothing of it is left to be cut off.
    assert_eq!((&totals["calls"], &totals["calls_cut"]), (&2.into(), &0.into()), "{totals}");
}

#[test]
fn a_server_that_is_told_to_end_lets_its_calls_end() {
    let server = Server::start(&["--json"]);
    let arguments = ["perf", &server.address, "slowread", "--bytes", "20", "--piece", "1"];
    let call =
        Command::new(RX).args(arguments).args(["--micros", "100000"]).stdout(Stdio::null()).spawn();
    let mut call = call.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (code, out, err) = server.stop("-TERM");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(call.wait().unwrap().success(), "it had a second to go, of the three of grace");
    // It ended after the signal, and counts.
    let totals: Value = serde_json::from_str(&out).unwrap();
    has_promised_names(&totals);
    let ends = ["calls", "calls_good", "calls_failed", "calls_cut", "aborts_sent"];
    assert_eq!(ends.map(|name| totals[name].as_u64().unwrap()), [1, 1, 0, 0, 0], "{totals}");
    assert_eq!(totals["ok"], true, "{totals}");
}

#[test]
fn a_second_signal_cuts_off_what_the_grace_would_let_end() {
    let server = Server::start(&["--json", "--grace", "600"]);
    let arguments = ["perf", &server.address, "slowread", "--bytes", "600", "--piece", "1"];
    let mut call = Command::new(RX);
    call.args(arguments).args(["--micros", "100000", "--json"]).stdout(Stdio::null());
    let mut call = call.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(500));
    let (code, out, err) = server.stop("-INT");
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    let totals: Value = serde_json::from_str(&out).unwrap();
    has_promised_names(&totals);
    assert!(totals["error"].as_str().unwrap().contains("second signal"), "{totals}");
    let ends = ["calls", "calls_good", "calls_failed", "calls_cut"];
    assert_eq!(ends.map(|name| totals[name].as_u64().unwrap()), [1, 0, 1, 1], "{totals}");
    assert!(totals["aborts_sent"].as_u64().unwrap() >= 1, "{totals}");
    assert_eq!(call.wait().unwrap().code(), Some(3));
}

#[test]
fn a_call_longer_than_the_grace_is_cut_off() {
    let server = Server::start(&["--json", "--grace", "0.3"]);
    let arguments = ["perf", &server.address, "slowread", "--bytes", "100", "--piece", "1"];
    let call = Command::new(RX)
        .args(arguments)
        .args(["--micros", "100000", "--json"])
        .stdout(Stdio::piped())
        .spawn();
    let call = call.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (code, out, err) = server.stop("-TERM");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let totals: Value = serde_json::from_str(&out).unwrap();
    has_promised_names(&totals);
    // What is cut off has failed, and its client is told.
    let ends = ["calls", "calls_good", "calls_failed", "calls_cut"];
    assert_eq!(ends.map(|name| totals[name].as_u64().unwrap()), [1, 0, 1, 1], "{totals}");
    assert!(totals["aborts_sent"].as_u64().unwrap() >= 1, "{totals}");
    assert_eq!(totals["ok"], true, "it ended in order: {totals}");
    let done = call.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(3), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn a_request_that_is_too_large_to_echo_is_refused() {
    let server = Server::start(&["--request-max", "100k"]);
    assert_eq!(rx(&["call", &server.address, "--zero", "100k"]).out.len(), 100 << 10);
    rx(&["call", &server.address, "--zero", "102401"]).failed_with(3, &["-5"]);
    rx(&["perf", &server.address, "echo", "--bytes", "102401"]);
    let ran = rx(&["perf", &server.address, "sum", "--bytes", "10M"]);
    assert_eq!(ran.code, Some(0), "only echo is limited: {ran:?}");
}

#[test]
fn the_demonstration_ends_well_and_needs_no_terminal() {
    let ran = rx(&["demo"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.out.contains("└─ Channel 3") && !ran.out.contains('\x1b'), "{ran:?}");
}

/// On a terminal, which `script` of util-linux plays.
#[cfg(target_os = "linux")]
#[test]
fn a_long_call_says_on_a_terminal_how_far_it_is() {
    if Command::new("script").arg("--version").output().is_err() {
        return eprintln!("not run: there is no script");
    }
    let server = Server::start(&[]);
    // 100k now and then 100k every 0.7 s: the line is written every 0.5 s.
    let slow = "slowwrite --bytes 400k --piece 100k --micros 700000";
    let line = format!("{RX} perf {} {slow}", server.address);
    let ran = run("script", &["-qec", &line, "/dev/null"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<_> = ran.out.split('\r').filter(|line| line.contains("0 of 1 calls")).collect();
    let megabytes = |line: &str| line.split(", ").nth(2)?.strip_suffix(" MB")?.parse::<f64>().ok();
    let moved: Vec<_> = lines.iter().filter_map(|line| megabytes(line)).collect();
    assert!(moved.len() == lines.len() && moved.is_sorted(), "{lines:?}");
    assert!(moved.iter().any(|moved| (0.1..0.4).contains(moved)), "some, not all: {lines:?}");
    assert!(lines.iter().all(|line| line.contains(" MB/s")), "{lines:?}");
}

#[test]
fn output_that_goes_nowhere_is_one_line_of_trouble() {
    // The demonstration's endpoints end before their actors have run.
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let done = Command::new(RX).arg("demo").stdout(full).stderr(Stdio::piped()).output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), err.lines().count()), (Some(1), 1), "{err}");
}

#[test]
fn calls_get_through_a_network_that_misbehaves_as_told() {
    let chaos = ["--loss", "5%", "--dup", "1%", "--reorder", "3", "--delay", "1ms", "--seed", "7"];
    let server = Server::start(&[&chaos[..], &["--json"]].concat());
    let call = ["call", &server.address, "--zero", "200k", "--count", "3", "--json"];
    let ran = rx(&[&call[..], &chaos].concat());
    assert_eq!((ran.code, &ran.json()["failed"]), (Some(0), &Value::from(0)), "{ran:?}");
    let (_, totals, _) = server.stop("-TERM");
    let totals: Value = serde_json::from_str(&totals).unwrap();
    assert_eq!((&totals["calls"], &totals["busy"]), (&Value::from(3), &Value::from(0)), "{totals}");
    assert!(totals["retransmitted"].as_u64().unwrap() > 0, "{totals}");
}

/// A question that the network loses is asked again.
#[test]
fn a_version_is_asked_for_through_a_network_that_misbehaves() {
    let server = Server::start(&[]);
    let ask = ["version", &server.address, "--json", "--timeout", "60"];
    let mut again = 0;
    for seed in ["1", "2", "3", "4", "5", "6"] {
        let chaos = ["--loss", "40%", "--dup", "30%", "--delay", "1ms", "--seed", seed];
        let ran = rx(&[&ask[..], &chaos].concat());
        let json = ran.json();
        assert_eq!((ran.code, &json["ok"]), (Some(0), &true.into()), "{ran:?}");
        again += json["retransmitted"].as_u64().unwrap();
    }
    assert!(again > 0, "the seeds lose some of the questions, or of the answers");
    let lost = rx(&["version", &server.address, "--timeout", "0.7", "--loss", "100%"]);
    lost.failed_with(3, &["no answer"]);
}

#[test]
fn the_demonstration_works_through_a_network_that_misbehaves() {
    let ran = rx(&["demo", "--dup", "1%", "--reorder", "3", "--seed", "7"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn chaos_out_of_range_is_one_line() {
    let bad = [
        (["--loss", "5"], "0% to 100%"),
        (["--loss", "101%"], "0% to 100%"),
        (["--dup", "many"], "0% to 100%"),
        (["--reorder", "1001"], "0..=1000"),
        (["--delay", "10"], "0ms to 60s"),
        (["--delay", "61s"], "0ms to 60s"),
        (["--seed", "x"], "invalid digit"),
    ];
    for (flags, why) in bad {
        run(ECHO_SERVER, &flags).failed_with(2, &[flags[0], why]);
        rx(&[&["call", "127.0.0.1:1"], &flags[..]].concat()).failed_with(2, &[flags[0], why]);
        rx(&[&["perf", "127.0.0.1:1", "rpc"], &flags[..]].concat())
            .failed_with(2, &[flags[0], why]);
        rx(&[&["version", "127.0.0.1:1"], &flags[..]].concat()).failed_with(2, &[flags[0], why]);
        rx(&[&["demo"], &flags[..]].concat()).failed_with(2, &[flags[0], why]);
    }
}
