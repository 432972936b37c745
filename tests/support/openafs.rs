//! What the tests against OpenAFS share: the rig of `interop/openafs`, processes with a time limit,
//! and the table of results.
//!
//! It knows command lines and JSON lines, and nothing of the protocol: the two sides of each test are
//! programs, so that a test cannot agree with itself by sharing a mistake with the library.
#![allow(dead_code)] // each test binary uses a part of it

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Longest wait for a server to say that it is ready, and to end.
const SERVER_START_LIMIT: Duration = Duration::from_secs(20);
const SERVER_STOP_LIMIT: Duration = Duration::from_secs(15);

/// Prints a line past the test harness, which would hide it when the test passes.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// All tests that use the rig run one after another: they measure time and load the machine.
pub fn serial() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Says that a test did not run. With `RXRPC_INTEROP=required` that is a failure.
pub fn skip(why: &str) {
    say(&format!("SKIPPED: {why}"));
    if set_to("RXRPC_INTEROP", "required") {
        panic!("skipped although RXRPC_INTEROP=required: {why}");
    }
}

/// Whether to run everything (`RXRPC_INTEROP_FULL=1`) or a short selection.
pub fn full() -> bool {
    set_to("RXRPC_INTEROP_FULL", "1")
}

pub fn set_to(variable: &str, value: &str) -> bool {
    std::env::var(variable).is_ok_and(|v| v == value)
}

/// The scripts, and the C peer built.
pub struct Rig {
    pub scripts: PathBuf,
    pub work: PathBuf,
    rxpeer: PathBuf,
}

/// The rig, or `None` after saying why not: OpenAFS's packages are missing.
pub fn rig() -> Option<&'static Rig> {
    static RIG: OnceLock<Result<Rig, String>> = OnceLock::new();
    match RIG.get_or_init(make_rig) {
        Ok(rig) => Some(rig),
        Err(why) => {
            skip(why);
            None
        }
    }
}

fn make_rig() -> Result<Rig, String> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/openafs");
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openafs");
    std::fs::create_dir_all(&work).map_err(|e| format!("cannot make {}: {e}", work.display()))?;
    let check = run(Command::new(scripts.join("install.sh")).arg("--check"), 60);
    if check.code != Some(0) {
        return Err(format!(
            "OpenAFS's packages: {}; as root, `interop/openafs/install.sh` installs them (Debian)",
            check.stdout.trim()
        ));
    }
    let build = run(Command::new(scripts.join("peer.sh")).arg("build").arg(&work), 120);
    if build.code != Some(0) {
        return Err(format!("rxpeer does not build: {}", build.stderr.trim()));
    }
    let rxpeer = work.join("bin/rxpeer");
    Ok(Rig { scripts, work, rxpeer })
}

#[derive(Clone, Copy)]
pub enum Ours {
    Rx,
    EchoServer,
}

/// Our binaries. The variables put a stand-in in their place, to try out the rig itself.
pub fn ours(which: Ours) -> PathBuf {
    let (variable, built) = match which {
        Ours::Rx => ("RXRPC_INTEROP_RX", env!("CARGO_BIN_EXE_rx")),
        Ours::EchoServer => ("RXRPC_INTEROP_ECHO_SERVER", env!("CARGO_BIN_EXE_echo-server")),
    };
    std::env::var_os(variable).map_or_else(|| built.into(), PathBuf::from)
}

/// OpenAFS's own socket buffer of 64 KiB overflows with 16 calls at once, and its sender then stalls
/// for about 8 s. That says nothing about the two sides' agreement.
const ROOMY_SOCKET: [&str; 2] = ["--udpbuf", "2048"];

// ---- processes ----------------------------------------------------------------------------------

/// How a program ended; `code` is `None` if a signal ended it, ours after the time limit among them.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub seconds: f64,
}

impl Ran {
    /// The last JSON line.
    pub fn json(&self) -> &str {
        self.stdout.lines().rev().find(|line| line.starts_with('{')).unwrap_or("")
    }

    /// What went wrong, short enough for a table.
    fn trouble(&self) -> String {
        let said: String = [self.json(), self.stderr.trim(), self.stdout.trim()]
            .into_iter()
            .find(|s| !s.is_empty())
            .unwrap_or("said nothing")
            .chars()
            .take(400)
            .collect();
        match self.code {
            Some(code) => format!("exit {code}: {said}"),
            None => format!("killed after {:.0} s: {said}", self.seconds),
        }
    }
}

/// Runs a program to its end, or kills it after `limit_s` seconds.
pub fn run(command: &mut Command, limit_s: u64) -> Ran {
    run_telling(command, limit_s, |_| ())
}

/// The same; `began_as` is told its process id.
pub fn run_telling(command: &mut Command, limit_s: u64, began_as: impl FnOnce(u32)) -> Ran {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    began_as(child.id());
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let code = wait(&mut child, Duration::from_secs(limit_s));
    let seconds = began.elapsed().as_secs_f64();
    // A grandchild may hold the pipe open; its words are not waited for.
    let text = |r: Receiver<String>| {
        r.recv_timeout(Duration::from_secs(2)).unwrap_or_else(|_| "...".into())
    };
    Ran { code, stdout: text(out), stderr: text(err), seconds }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = tx.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    rx
}

/// Waits for the exit code; kills the process when `limit` is over.
fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let end = Instant::now() + limit;
    let mut nap = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.code(),
            Ok(None) if Instant::now() < end => std::thread::sleep(nap),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
        nap = (nap * 2).min(Duration::from_millis(20));
    }
}

/// A server in the background: an OpenAFS peer, `echo-server`, or the relay.
pub struct Server {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    pub port: u16,
}

impl Server {
    /// Starts it and waits for the line in which `port_of` finds the port.
    fn start(mut command: Command, port_of: fn(&str) -> Option<u16>) -> Server {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (tx, rx) = channel();
        let reader = BufReader::new(child.stdout.take().expect("piped above"));
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if let Some(port) = port_of(&line) {
                    let _ = tx.send(port);
                }
                kept.lock().expect("no panic under this lock").push(line);
            }
        });
        match rx.recv_timeout(SERVER_START_LIMIT) {
            Ok(port) => Server { name, child, lines, port },
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("did not say that it is ready: {name}");
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has said so far, line by line.
    pub fn said(&self) -> Vec<String> {
        self.lines.lock().expect("no panic under this lock").clone()
    }

    /// SIGTERM; returns its last JSON line, and checks that it ended well and in time.
    pub fn stop(mut self) -> String {
        self.terminate();
        let code = wait(&mut self.child, SERVER_STOP_LIMIT);
        assert_eq!(code, Some(0), "after SIGTERM: {}", self.name);
        std::thread::sleep(Duration::from_millis(20)); // the last line, on its way through the pipe
        let lines = self.lines.lock().expect("no panic under this lock");
        lines.iter().rev().find(|line| line.starts_with('{')).cloned().unwrap_or_default()
    }

    fn terminate(&self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            wait(&mut self.child, Duration::from_secs(2));
        }
    }
}

/// Our echo server on a free port.
pub fn echo_server<S: AsRef<OsStr>>(options: &[S]) -> Server {
    let mut command = Command::new(ours(Ours::EchoServer));
    command.args(["--listen", "127.0.0.1:0"]).args(options);
    Server::start(command, |line| {
        line.strip_prefix("listening on ")?.rsplit_once(':')?.1.trim().parse().ok()
    })
}

impl Rig {
    /// OpenAFS as a server, on a free port.
    pub fn peer<S: AsRef<OsStr>>(&self, options: &[S]) -> Server {
        let mut command = Command::new(&self.rxpeer);
        command.args(["server", "0", "--bind", "127.0.0.1", "--quiet"]);
        command.args(ROOMY_SOCKET).args(options);
        Server::start(command, |line| number(line, "port").map(|n| n as u16))
    }

    /// The same, with a line for each call that has ended.
    pub fn telling_peer(&self) -> Server {
        let mut command = Command::new(&self.rxpeer);
        command.args(["server", "0", "--bind", "127.0.0.1"]).args(ROOMY_SOCKET);
        Server::start(command, |line| number(line, "port").map(|n| n as u16))
    }

    /// The lossy relay in front of a server.
    pub fn relay<S: AsRef<OsStr>>(&self, to: &Server, options: &[S]) -> Server {
        let mut command = Command::new(self.scripts.join("udpmangle.py"));
        command.args(["--listen", "127.0.0.1:0", "--to", &to.address()]).args(options);
        Server::start(command, |line| {
            let (_, list) = line.strip_suffix("]}")?.split_once("\"listen\": [")?;
            list.rsplit_once(", ")?.1.parse().ok()
        })
    }

    /// The C peer itself.
    pub fn rxpeer(&self) -> &Path {
        &self.rxpeer
    }

    /// OpenAFS as a client.
    pub fn client(&self, port: u16) -> Command {
        let mut command = Command::new(&self.rxpeer);
        command.args(["client", "127.0.0.1", &port.to_string()]).args(ROOMY_SOCKET);
        command
    }
}

// ---- JSON lines ---------------------------------------------------------------------------------

/// The value of `key` in a flat JSON object, as it stands there.
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    let rest = rest.trim_start();
    match rest.strip_prefix('"') {
        Some(text) => {
            let mut escaped = false;
            let end = text.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            Some(&text[..end])
        }
        None => Some(rest[..rest.find([',', '}', ']']).unwrap_or(rest.len())].trim()),
    }
}

pub fn number(line: &str, key: &str) -> Option<i64> {
    let text = field(line, key)?;
    text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|f| f as i64))
}

// ---- results ------------------------------------------------------------------------------------

/// Who calls whom.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    OursToOpenAfs,
    OpenAfsToOurs,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::OursToOpenAfs => "ours->OpenAFS",
            Way::OpenAfsToOurs => "OpenAFS->ours",
        }
    }
}

pub const BOTH_WAYS: [Way; 2] = [Way::OursToOpenAfs, Way::OpenAfsToOurs];

#[derive(Clone, Copy)]
pub enum Expect {
    /// All calls succeed and their content is right.
    Good,
    /// The call ends with this abort code.
    Abort(i32),
}

/// What came of one load.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All went well.
    Good,
    /// The call was ended with this code.
    Refused(i32),
    /// It ended with content that is not what was sent.
    Wrong,
    /// Anything else; it may not have ended.
    Other(String),
}

/// One line of the matrix: `calls` calls of an operation of service 147, `parallel` at once.
#[derive(Clone)]
pub struct Load {
    pub op: &'static str,
    pub bytes: u64,
    pub calls: u32,
    pub parallel: u32,
    pub connections: u32,
    /// Piece in bytes and pause in microseconds of `slowread` and `slowwrite`.
    pub slow: Option<(u32, u32)>,
    /// For the caller's command line, as it stands.
    pub options: Vec<&'static str>,
    /// Security options of the caller, and what the table calls them.
    pub credentials: Vec<String>,
    /// Where OpenAFS's client finds its ticket, if `credentials` name a service.
    pub cache: Option<PathBuf>,
    pub note: String,
    pub limit_s: u64,
    pub expect: Expect,
}

impl Load {
    pub fn new(op: &'static str, bytes: u64) -> Load {
        Load {
            op,
            bytes,
            calls: 1,
            parallel: 1,
            connections: 1,
            slow: None,
            options: Vec::new(),
            credentials: Vec::new(),
            cache: None,
            note: String::new(),
            limit_s: 60,
            expect: Expect::Good,
        }
    }

    pub fn parallel(mut self, parallel: u32, connections: u32) -> Load {
        (self.calls, self.parallel, self.connections) = (parallel, parallel, connections);
        self
    }

    pub fn slow(mut self, piece: u32, micros: u32) -> Load {
        self.slow = Some((piece, micros));
        self
    }

    pub fn options(mut self, options: &[&'static str]) -> Load {
        self.options.extend(options);
        self
    }

    pub fn credentials(mut self, note: &str, options: Vec<String>) -> Load {
        (self.note, self.credentials) = (note.to_owned(), options);
        self
    }

    pub fn limit_s(mut self, limit_s: u64) -> Load {
        self.limit_s = limit_s;
        self
    }

    pub fn expect(mut self, expect: Expect) -> Load {
        self.expect = expect;
        self
    }

    /// `rx perf` with this load.
    fn ours(&self, port: u16) -> Command {
        let mut c = Command::new(ours(Ours::Rx));
        c.args(["perf", &format!("127.0.0.1:{port}"), self.op]);
        if matches!(self.op, "rpc" | "abort") {
            c.args(["--send", &self.bytes.to_string(), "--recv", &self.bytes.to_string()]);
        } else {
            c.args(["--bytes", &self.bytes.to_string()]);
        }
        if let Some((piece, micros)) = self.slow {
            c.args(["--piece", &piece.to_string(), "--micros", &micros.to_string()]);
        } else {
            c.args(["--count", &self.calls.to_string(), "--parallel", &self.parallel.to_string()]);
            c.args(["--connections", &self.connections.to_string()]);
            c.args(["--timeout", &self.limit_s.to_string()]);
        }
        c.arg("--json").args(&self.options).args(&self.credentials);
        c
    }

    /// `rxpeer client` with this load.
    pub fn openafs(&self, rig: &Rig, port: u16) -> Command {
        let mut c = rig.client(port);
        let bytes = self.bytes.to_string();
        c.args([self.op, "--bytes", &bytes, "--send", &bytes, "--recv", &bytes]);
        c.args(["--count", &(self.calls / self.parallel).max(1).to_string()]);
        c.args(["--threads", &self.parallel.to_string(), "--conns", &self.connections.to_string()]);
        if let Some((piece, micros)) = self.slow {
            c.args(["--after", &piece.to_string(), "--delay", &micros.to_string()]);
        }
        c.args(&self.options).args(&self.credentials);
        if let Some(cache) = &self.cache {
            c.env("KRB5CCNAME", format!("FILE:{}", cache.display()));
        }
        c
    }
}

/// Collects results, prints them aligned as they come, and fails the test at its end.
pub struct Table {
    title: &'static str,
    rows: usize,
    bad: Vec<String>,
    began: Instant,
}

impl Table {
    pub fn new(title: &'static str) -> Table {
        say(&format!("\n== {title}"));
        say(&format!(
            "{:<16} {:<10} {:>10} {:>4} {:>4} {:<28} {:<7} {:>8} {:>5} {:>6}",
            "direction",
            "operation",
            "bytes",
            "par",
            "conn",
            "options",
            "outcome",
            "seconds",
            "busy",
            "resent"
        ));
        Table { title, rows: 0, bad: Vec::new(), began: Instant::now() }
    }

    /// Runs one load against the server at `port`.
    pub fn load(&mut self, rig: &Rig, way: Way, port: u16, load: &Load) {
        let (ran, good) = attempt(rig, way, port, load);
        self.ran(way, load, &ran, good);
    }

    /// Runs several lists of loads beside each other: what mostly waits for timers need not wait in line. The loads
    /// of a list follow each other.
    pub fn load_beside(&mut self, rig: &Rig, lists: &[(Way, u16, Vec<Load>)]) {
        let results: Vec<Vec<_>> = std::thread::scope(|scope| {
            let run = |(way, port, loads): &(Way, u16, Vec<Load>)| {
                loads.iter().map(|load| attempt(rig, *way, *port, load)).collect()
            };
            let running: Vec<_> = lists.iter().map(|list| scope.spawn(move || run(list))).collect();
            running.into_iter().map(|one| one.join().expect("it does not panic")).collect()
        });
        for ((way, _, loads), results) in lists.iter().zip(results) {
            for (load, (ran, good)) in loads.iter().zip(results) {
                self.ran(*way, load, &ran, good);
            }
        }
    }

    fn ran(&mut self, way: Way, load: &Load, ran: &Ran, good: bool) {
        let mut options = format!("{} {}", load.note, load.options.join(" "));
        if let Some((piece, micros)) = load.slow {
            options = format!("{piece} per {micros} us {options}");
        }
        let what = (load.op, load.bytes, load.parallel, load.connections);
        self.row(way, what, options.trim(), ran, good);
    }

    /// Runs one load, and says what came of it; nothing is printed.
    pub fn outcome(rig: &Rig, way: Way, port: u16, load: &Load) -> Outcome {
        let (ran, good) = attempt(rig, way, port, load);
        let json = ran.json();
        let code = match way {
            _ if good => return Outcome::Good,
            // What it got, and should have got, are numbers too.
            Way::OursToOpenAfs
                if field(json, "error").is_some_and(|error| !error.contains("got none")) =>
            {
                return Outcome::Wrong;
            }
            // A code is no such small number as how many calls failed, and when.
            Way::OursToOpenAfs => field(json, "error").and_then(|error| {
                let mut words = error.split(|c: char| !c.is_ascii_digit() && c != '-');
                words.by_ref().flat_map(str::parse).find(|code: &i32| !(0..10_000).contains(code))
            }),
            Way::OpenAfsToOurs if number(json, "bad_content") > Some(0) => return Outcome::Wrong,
            Way::OpenAfsToOurs => number(json, "last_error").map(|code| code as i32),
        };
        match code {
            Some(code) if ran.code == Some(3) => Outcome::Refused(code),
            _ => Outcome::Other(ran.trouble()),
        }
    }

    /// Runs one load, and says whether it went as expected; nothing is printed.
    pub fn try_load(rig: &Rig, way: Way, port: u16, load: &Load) -> bool {
        attempt(rig, way, port, load).1
    }

    /// `rx call` with a request made by hand.
    pub fn call(
        &mut self,
        rig: &Rig,
        port: u16,
        what: &'static str,
        service: u16,
        request: &[u8],
        expect: Expect,
    ) {
        let file = rig.work.join("request");
        std::fs::write(&file, request).expect("the work directory can be written");
        let mut c = Command::new(ours(Ours::Rx));
        c.args(["call", &format!("127.0.0.1:{port}"), "--service", &service.to_string()]);
        c.arg("--file").arg(&file).args(["--timeout", "20", "--json"]);
        let ran = run(&mut c, 30);
        let good = ours_is(&ran, expect);
        self.row(Way::OursToOpenAfs, ("call", request.len() as u64, 1, 1), what, &ran, good);
    }

    pub fn row(
        &mut self,
        way: Way,
        what: (&str, u64, u32, u32),
        options: &str,
        ran: &Ran,
        good: bool,
    ) {
        let direction = way.name();
        let (op, bytes, parallel, connections) = what;
        let line = format!(
            "{direction:<16} {op:<10} {bytes:>10} {parallel:>4} {connections:>4} {options:<28} {:<7} {:>8.3} {:>5} {:>6}",
            if good { "ok" } else { "FAILED" },
            field(ran.json(), "seconds").and_then(|s| s.parse().ok()).unwrap_or(ran.seconds),
            field(ran.json(), "busy").unwrap_or("-"),
            field(ran.json(), "retransmitted").unwrap_or("-"),
        );
        say(&line);
        self.rows += 1;
        if !good {
            let trouble = ran.trouble();
            say(&format!("    {trouble}"));
            self.bad.push(format!("{line}\n    {trouble}"));
        }
    }

    /// A check that is not a call.
    pub fn check(&mut self, what: &str, good: bool, detail: &str) {
        self.rows += 1;
        say(&format!("{:<7} {what}", if good { "ok" } else { "FAILED" }));
        if !good {
            say(&format!("    {detail}"));
            self.bad.push(format!("{what}: {detail}"));
        }
    }

    pub fn finish(self) {
        let seconds = self.began.elapsed().as_secs_f64();
        say(&format!("-- {}: {} of {} bad, {seconds:.1} s", self.title, self.bad.len(), self.rows));
        assert!(self.bad.is_empty(), "{}:\n{}", self.title, self.bad.join("\n"));
    }
}

/// Runs one load, and says whether it went as expected.
pub fn attempt(rig: &Rig, way: Way, port: u16, load: &Load) -> (Ran, bool) {
    let limit_s = load.limit_s + 5;
    match way {
        Way::OursToOpenAfs => {
            let ran = run(&mut load.ours(port), limit_s);
            let good = ours_is(&ran, load.expect);
            (ran, good)
        }
        Way::OpenAfsToOurs => {
            let ran = run(&mut load.openafs(rig, port), limit_s);
            let good = openafs_is(&ran, load.expect);
            (ran, good)
        }
    }
}

fn ours_is(ran: &Ran, expect: Expect) -> bool {
    let json = ran.json();
    match expect {
        Expect::Good => {
            ran.code == Some(0)
                && field(json, "ok") == Some("true")
                && number(json, "failed").unwrap_or(0) == 0
        }
        // The code as a number of its own, not within a longer one.
        Expect::Abort(code) => {
            ran.code == Some(3)
                && field(json, "error").is_some_and(|error| {
                    error
                        .split(|c: char| !c.is_ascii_digit() && c != '-')
                        .any(|word| word.parse() == Ok(code))
                })
        }
    }
}

pub fn openafs_is(ran: &Ran, expect: Expect) -> bool {
    let json = ran.json();
    match expect {
        Expect::Good => {
            ran.code == Some(0)
                && number(json, "errors") == Some(0)
                && number(json, "bad_content") == Some(0)
        }
        Expect::Abort(code) => number(json, "last_error") == Some(code.into()),
    }
}

/// 32-bit big-endian words.
pub fn words(words: &[i32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
