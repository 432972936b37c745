//! Processes at both ends, pinned, and the clocks read around a load.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::sample::Sample;
use crate::spec::{End, GO, Load, Outcome, STAT, Said, Stack, Stat};

/// An end that says nothing for so much longer than it should take has stalled.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the ends run.
pub const SERVER_CPU: usize = 0;
pub const CLIENT_CPU: usize = 1;

/// A child process that ends with this value.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a program on one processor; on a machine with a single one, wherever.
    pub fn start(mut command: Command, cpu: usize) -> Result<Process> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let mut only = CpuSet::new();
        only.set(cpu)?;
        // The child inherits it; where there is no such processor, nothing changes.
        let _ = sched_setaffinity(Pid::from_raw(0), &only);
        let child = command.spawn();
        sched_setaffinity(Pid::from_raw(0), &before)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = child.with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("no output")?;
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Ok(Process { child, stdin, lines })
    }

    fn end(spec: &End, cpu: usize) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("end").arg(serde_json::to_string(spec)?);
        Process::start(command, cpu)
    }

    /// A server of ours, and its port.
    pub fn server(spec: &End) -> Result<(Process, u16)> {
        let mut server = Process::end(spec, SERVER_CPU)?;
        match server.said(PATIENCE).context("server")? {
            Said::Ready(port) => Ok((server, port)),
            _ => bail!("a server that does not listen"),
        }
    }

    /// A process that sends until it is dropped, on the server's processor.
    pub fn flooder(spec: &End) -> Result<Process> {
        let mut flooder = Process::end(spec, SERVER_CPU)?;
        match flooder.said(PATIENCE).context("flooder")? {
            Said::Begin => Ok(flooder),
            other => bail!("expected a flood, got {other:?}"),
        }
    }

    /// Its next line, within so long.
    pub fn line(&mut self, within: Duration) -> Result<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("stall: nothing for {within:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended: {:?}", self.child.wait()?),
        }
    }

    fn said(&mut self, within: Duration) -> Result<Said> {
        let line = self.line(within)?;
        match serde_json::from_str(&line).with_context(|| line)? {
            Said::Failed(why) => bail!(why),
            said => Ok(said),
        }
    }

    fn say(&mut self, word: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("no input")?;
        writeln!(stdin, "{word}")?;
        Ok(stdin.flush()?)
    }

    fn stat(&mut self) -> Result<Stat> {
        self.say(STAT)?;
        match self.said(PATIENCE)? {
            Said::Stat(stat) => Ok(stat),
            other => bail!("expected counters, got {other:?}"),
        }
    }

    /// CPU seconds of all its threads so far.
    pub fn cpu_s(&self) -> Result<f64> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id() as i32))?;
        let time = clock_gettime(clock)?;
        Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
    }

    /// Resident bytes.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib << 10)
    }

    /// Waits for its end; says whether it was good.
    pub fn wait(&mut self, within: Duration) -> Result<bool> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if began.elapsed() > within {
                bail!("stall: it goes on after {within:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds of this process, its ended children not included.
pub fn own_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// CPU seconds of children that have ended and were waited for.
pub fn children_cpu_s() -> f64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

/// CPU seconds that all processors have worked.
pub fn machine_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = ticks.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4);
    busy.map(|(_, ticks)| ticks).sum::<f64>() / 100.0
}

/// Datagrams that the kernel has thrown away for want of buffer at the sockets of a process.
pub fn kernel_drops(process: u32) -> Result<u64> {
    let mut inodes = std::collections::HashSet::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let Ok(link) = std::fs::read_link(entry?.path()) else { continue };
        let link = link.to_string_lossy().into_owned();
        if let Some(inode) = link.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']')) {
            inodes.insert(inode.to_owned());
        }
    }
    let table = std::fs::read_to_string("/proc/net/udp")?;
    let drops = table.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_ours = inodes.contains(*words.get(9)?);
        is_ours.then(|| words.get(12)?.parse::<u64>().ok()).flatten()
    });
    Ok(drops.sum())
}

/// Both ends of one stack, alive.
pub struct Pair {
    pub server: Process,
    pub client: Process,
    loads: std::vec::IntoIter<Load>,
    has_begun: bool,
    /// Of the client, where it has one of its own to tell.
    pub client_port: Option<u16>,
}

/// What was read around one load.
pub struct Reading {
    pub outcome: Outcome,
    pub client_cpu_s: f64,
    pub server_cpu_s: f64,
    pub client: Stat,
    pub server: Stat,
    pub kernel_drops: u64,
    /// CPU that neither end nor this process used, as a share of the machine.
    pub foreign: f64,
    /// Resident bytes of client and server, before and after.
    pub resident: [[u64; 2]; 2],
}

impl Pair {
    pub fn start(server: &End, client_of: &End, loads: Vec<Load>) -> Result<Pair> {
        Pair::through(server, client_of, loads, |port| Ok((port, ()))).map(|(pair, ())| pair)
    }

    /// As [`Pair::start`], with something between: `between` is given the server's port and gives that which
    /// the client uses.
    pub fn through<T>(
        server: &End,
        client_of: &End,
        loads: Vec<Load>,
        between: impl FnOnce(u16) -> Result<(u16, T)>,
    ) -> Result<(Pair, T)> {
        let (server, port) = Process::server(server)?;
        let (port, kept) = between(port)?;
        Ok((Pair::with_server(server, port, client_of, loads)?, kept))
    }

    /// A client of ours to a server that runs already, perhaps a foreign one.
    pub fn with_server(
        server: Process,
        port: u16,
        client_of: &End,
        loads: Vec<Load>,
    ) -> Result<Pair> {
        let client = Process::end(&client_of.client(port, loads.clone()), CLIENT_CPU)?;
        Ok(Pair { server, client, loads: loads.into_iter(), has_begun: false, client_port: None })
    }

    /// Until the client is warm.
    pub fn warm(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.has_begun, true) {
            self.client.say(GO)?;
        }
        loop {
            match self.client.said(PATIENCE).context("client")? {
                Said::Begin => return Ok(()),
                Said::Ready(port) => self.client_port = Some(port),
                other => bail!("expected the client to be ready, got {other:?}"),
            }
        }
    }

    fn kernel_drops(&self) -> Result<u64> {
        Ok(kernel_drops(self.client.child.id())? + kernel_drops(self.server.child.id())?)
    }

    /// Runs the next load.
    pub fn run(&mut self) -> Result<Reading> {
        self.warm()?;
        self.go()
    }

    /// Runs the load that the client is warm for.
    pub fn go(&mut self) -> Result<Reading> {
        self.measure(true)
    }

    /// As [`Pair::run`], with a server that answers no questions.
    pub fn run_foreign(&mut self) -> Result<Reading> {
        self.warm()?;
        self.measure(false)
    }

    fn measure(&mut self, asks_server: bool) -> Result<Reading> {
        let load = self.loads.next().context("no loads are left")?;
        let of_server = |server: &mut Process| match asks_server {
            true => server.stat(),
            false => Ok(Stat::default()),
        };
        let before = [self.client.stat()?, of_server(&mut self.server)?];
        let resident = [self.client.resident()?, self.server.resident()?];
        let drops = self.kernel_drops()?;
        let cpu = [self.client.cpu_s()?, self.server.cpu_s()?, own_cpu_s(), machine_cpu_s()];
        let began = Instant::now();
        self.client.say(GO)?;
        let said = self.client.said(PATIENCE + longest(&load)).context("client")?;
        let Said::Done(outcome) = said else { bail!("expected an outcome, got {said:?}") };
        let took = began.elapsed().as_secs_f64();
        let now = [self.client.cpu_s()?, self.server.cpu_s()?, own_cpu_s(), machine_cpu_s()];
        let [client_s, server_s, own_s, machine_s] = std::array::from_fn(|at| now[at] - cpu[at]);
        let kernel_drops = self.kernel_drops()?.saturating_sub(drops);
        let resident =
            [[resident[0], self.client.resident()?], [resident[1], self.server.resident()?]];
        let cpus = std::thread::available_parallelism()?.get() as f64;
        Ok(Reading {
            client_cpu_s: client_s - outcome.spun_s,
            server_cpu_s: server_s,
            client: self.client.stat()?.since(&before[0]),
            server: of_server(&mut self.server)?.since(&before[1]),
            kernel_drops,
            foreign: ((machine_s - client_s - server_s - own_s) / (took * cpus)).max(0.0),
            resident,
            outcome,
        })
    }
}

fn longest(load: &Load) -> Duration {
    let seconds = match load {
        Load::Bulk { seconds, .. }
        | Load::Timed { seconds }
        | Load::Calls { seconds, .. }
        | Load::Rounds { seconds, .. }
        | Load::Beside { seconds, .. } => 4.0 * seconds,
        Load::Open { connections } => *connections as f64 / 2000.0,
        Load::Deadlines { count, deadline_ms, .. } => *count as f64 * *deadline_ms as f64 / 100.0,
        Load::Flood {} => 0.0,
    };
    Duration::from_secs_f64(seconds)
}

/// One sample: both ends started, one load, both ended.
pub fn sample(
    bench: &str,
    case: &str,
    pair: usize,
    end: &End,
    client_of: &End,
    load: Load,
) -> Result<Sample> {
    let reading = Pair::start(end, client_of, vec![load])?.run()?;
    Ok(Sample::from_reading(bench, case, stack_name(end.stack, client_of.stack), pair, &reading))
}

fn stack_name(server: Stack, client: Stack) -> &'static str {
    debug_assert_eq!(server, client);
    client.name()
}
