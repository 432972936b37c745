//! Each example runs to its end by itself, and one of them answers over real HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest time for one example; they take a second at the most.
const LIMIT: Duration = Duration::from_secs(60);

/// The example's program. Built here, since `cargo test --test` alone builds no examples.
fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let own = std::env::current_exe().expect("a test knows its path");
        let profile = own.parent().and_then(Path::parent).expect("target/profile/deps").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples", "--features", "testkit", "--manifest-path"]);
        cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().expect("target"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the examples do not build");
        profile.join("examples")
    });
    folder.join(name)
}

/// Ends a program that does not end by itself.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs an example to its end.
fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(example(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().expect("it starts"));
    let began = Instant::now();
    // What they print fits into a pipe, so nobody has to read meanwhile.
    let status = loop {
        match child.0.try_wait().expect("it can be waited for") {
            Some(status) => break status,
            None if began.elapsed() > LIMIT => panic!("{name} does not end"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.0.stdout.take().expect("piped").read_to_end(&mut stdout).expect("read");
    child.0.stderr.take().expect("piped").read_to_end(&mut stderr).expect("read");
    Output { status, stdout, stderr }
}

/// What a good run prints.
fn printed(name: &str) -> String {
    let output = run(name, &[]);
    assert!(output.status.success(), "{name}: {output:?}");
    assert!(output.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn hello_is_greeted() {
    assert!(printed("hello").starts_with("hello world, you call from 127.0.0.1:"));
}

#[test]
fn streams_flow_both_ways() {
    let printed = printed("streaming");
    assert!(printed.contains("server counted 33554432 bytes"), "{printed}");
    assert!(printed.contains("33554432 zeros came"), "{printed}");
    assert!(printed.contains("the client has all"), "{printed}");
}

#[test]
fn a_deadline_and_a_cancelled_call_reach_the_server() {
    let printed = printed("deadline_and_cancel");
    for part in ["within 200ms: deadline", "RX_CALL_TIMEOUT", "RX_USER_ABORT", "code 42"] {
        assert!(printed.contains(part), "{part} is not in:\n{printed}");
    }
}

#[test]
fn a_shutdown_waits_for_its_grace_and_no_longer() {
    let printed = printed("shutdown");
    assert!(printed.contains("with grace: 0 calls cut off, 4 good"), "{printed}");
    assert!(printed.contains("in haste: 1 calls cut off, 0 good"), "{printed}");
}

#[test]
fn plain_tokio_needs_no_system() {
    assert!(printed("plain_tokio").contains("100 replies"));
}

#[test]
fn shards_share_the_calls() {
    let printed = printed("shards");
    assert!(printed.contains("1 shards: ") && printed.contains("[1600] on each"), "{printed}");
}

#[test]
fn an_actor_answers() {
    assert!(printed("actor_service").contains("300 makes 321"));
}

#[test]
fn a_service_is_tested_without_a_network() {
    let printed = printed("mock_network");
    for part in ["silent for 20s", "sent again", "byte by byte"] {
        assert!(printed.contains(part), "{part} is not in:\n{printed}");
    }
}

#[test]
fn a_service_is_simulated_by_seed() {
    let printed = printed("simulate_your_service");
    assert_eq!(printed.matches(": over after ").count(), 20, "{printed}");
}

#[test]
fn a_peer_is_played_by_a_script() {
    assert!(printed("script_a_peer").contains("OUT_OF_SEQUENCE"));
}

#[test]
fn the_probe_says_how_it_is_used() {
    let output = run("vl_probe", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage:"), "{output:?}");
}

/// `--levle clear` would otherwise run at crypt.
#[test]
fn a_mistyped_option_of_the_afs_examples_is_refused() {
    for name in ["afs_user", "afs_store"] {
        let output = run(name, &["127.0.0.1:1", "7", "--levle", "clear"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("--levle is no option"), "{said}");
    }
}

#[test]
fn the_web_server_asks_itself() {
    let printed = printed("embed_actix_web");
    assert!(printed.contains("/shout/hello: HTTP/1.1 200 OK: HELLO"), "{printed}");
    assert!(printed.contains("/shout/silence: HTTP/1.1 502 Bad Gateway"), "{printed}");
}

/// Several HTTP clients at once, on connections that stay: each answer is an Rx call's reply.
#[test]
fn an_http_request_becomes_an_rx_call() {
    let mut command = Command::new(example("embed_actix_web"));
    command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().expect("it starts"));
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    let address = line.trim().strip_prefix("listening on ").expect("its address").to_owned();
    let clients = (0..4).map(|client| {
        let address = address.clone();
        std::thread::spawn(move || {
            let mut socket = BufReader::new(TcpStream::connect(&address).expect("connected"));
            socket.get_ref().set_read_timeout(Some(LIMIT)).expect("a timeout");
            for turn in 0..10 {
                let word = format!("word-{client}-{turn}");
                let request = format!("GET /shout/{word} HTTP/1.1\r\nHost: {address}\r\n\r\n");
                socket.get_mut().write_all(request.as_bytes()).expect("asked");
                assert_eq!(answer(&mut socket), ("HTTP/1.1 200 OK".into(), word.to_uppercase()));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().expect("every answer is right");
    }
}

/// Status line and body of one HTTP answer.
fn answer(socket: &mut BufReader<TcpStream>) -> (String, String) {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).expect("answered");
        match line.trim() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines
        .iter()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    socket.read_exact(&mut body).expect("a body");
    (lines[0].clone(), String::from_utf8(body).expect("text"))
}
