//! OpenAFS's own library, through the peer of `interop/openafs`: with itself, and with ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::harness::{CLIENT_CPU, Process, SERVER_CPU, children_cpu_s, machine_cpu_s, own_cpu_s};
use crate::sample::Sample;
use crate::spec::{CALL_BYTES, Stack, Way};

/// KiB of its socket buffers: ours asks for as much.
const SOCKET_KIB: &str = "4096";
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, built.
#[derive(Clone, Debug)]
pub struct OpenAfs {
    rxpeer: PathBuf,
}

impl OpenAfs {
    /// Builds it; `None` if its packages are not installed.
    pub fn build(into: &Path) -> Result<Option<OpenAfs>> {
        let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/openafs");
        let quiet = |command: &mut Command| {
            command.stdout(std::process::Stdio::null());
            command.status()
        };
        let checked = quiet(Command::new(interop.join("install.sh")).arg("--check"));
        if !checked.is_ok_and(|status| status.success()) {
            eprintln!(
                "bench: OpenAFS's packages are missing (interop/openafs/install.sh): its rows stay empty"
            );
            return Ok(None);
        }
        if !quiet(Command::new(interop.join("peer.sh")).arg("build").arg(into))?.success() {
            bail!("rxpeer does not build");
        }
        Ok(Some(OpenAfs { rxpeer: into.join("bin/rxpeer") }))
    }

    fn command(&self, stack: Stack) -> Command {
        let mut command = Command::new(&self.rxpeer);
        command.args(["--udpbuf", SOCKET_KIB]);
        if stack != Stack::OpenAfsJumbo {
            command.arg("--nojumbo");
        }
        command
    }

    /// A server, and its port.
    pub fn server(&self, stack: Stack) -> Result<(Process, u16)> {
        let options = self.command(stack);
        let mut command = Command::new(&self.rxpeer);
        command.args(["server", "0", "--bind", "127.0.0.1", "--quiet"]).args(options.get_args());
        let mut server = Process::start(command, SERVER_CPU)?;
        let line = server.line(PATIENCE)?;
        let value: serde_json::Value = serde_json::from_str(&line).with_context(|| line)?;
        let port = value["port"].as_u64().context("rxpeer told no port")?;
        Ok((server, port as u16))
    }

    /// A client's run against any server, to its end: wall seconds as it tells them, and its CPU seconds.
    fn client(&self, stack: Stack, port: u16, load: &[String]) -> Result<(f64, f64)> {
        let options = self.command(stack);
        let mut command = Command::new(&self.rxpeer);
        command
            .args(["client", "127.0.0.1", &port.to_string()])
            .args(load)
            .args(options.get_args());
        let before = children_cpu_s();
        let mut client = Process::start(command, CLIENT_CPU)?;
        let line = client.line(PATIENCE)?;
        if !client.wait(PATIENCE)? {
            bail!("rxpeer failed: {line}");
        }
        let value: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let seconds = value["seconds"].as_f64().with_context(|| line)?;
        Ok((seconds, children_cpu_s() - before))
    }

    /// One sample against a server that runs already.
    pub fn sample(
        &self,
        names: [&str; 3],
        pair: usize,
        stack: Stack,
        server: &mut Process,
        port: u16,
        load: &AfsLoad,
    ) -> Result<Sample> {
        let before = [server.cpu_s()?, own_cpu_s(), machine_cpu_s()];
        let (wall_s, client_cpu_s) = self.client(stack, port, &load.words())?;
        let after = [server.cpu_s()?, own_cpu_s(), machine_cpu_s()];
        let [server_cpu_s, own_s, machine_s] = std::array::from_fn(|at| after[at] - before[at]);
        let cpus = std::thread::available_parallelism()?.get() as f64;
        let [bench, case, stack] = names.map(str::to_owned);
        Ok(Sample {
            bench,
            case,
            stack,
            pair,
            wall_s,
            units: load.units(),
            client_cpu_s,
            server_cpu_s,
            foreign: ((machine_s - client_cpu_s - server_cpu_s - own_s) / (wall_s * cpus)).max(0.0),
            ..Sample::default()
        })
    }
}

/// What its client does.
#[derive(Clone, Copy, Debug)]
pub enum AfsLoad {
    Bulk { way: Way, bytes: u64 },
    Calls { threads: u64, each: u64 },
}

impl AfsLoad {
    fn words(&self) -> Vec<String> {
        let words: Vec<String> = match *self {
            AfsLoad::Bulk { way, bytes } => {
                vec![way.name().into(), "--bytes".into(), bytes.to_string()]
            }
            AfsLoad::Calls { threads, each } => {
                let call = CALL_BYTES.to_string();
                let conns = threads.div_ceil(4).to_string();
                let (threads, each) = (threads.to_string(), each.to_string());
                ["rpc", "--send", &call, "--recv", &call, "--count", &each, "--threads", &threads]
                    .into_iter()
                    .chain(["--conns", &conns])
                    .map(str::to_owned)
                    .collect()
            }
        };
        words
    }

    fn units(&self) -> u64 {
        match *self {
            AfsLoad::Bulk { bytes, .. } => bytes,
            AfsLoad::Calls { threads, each } => threads * each,
        }
    }
}
