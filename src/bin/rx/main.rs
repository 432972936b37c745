//! `rx`: calls to any Rx server from the command line, and a demonstration.

#[path = "../common/mod.rs"]
mod common;

mod call;
mod demo;
mod load;
mod perf;
mod tree;
mod version;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use common::args::{self, Stop};
use rxrpc::Endpoint;

const NAME: &str = "rx";

/// Rx / RxRPC, the RPC protocol of AFS, from the command line.
///
/// Exit status: 0 all is well, 1 it could not start, 2 the command line was wrong or names what is of no
/// use, 3 a call failed, also because its host has no address.
/// Sizes take k, M or G; times are in seconds. RUST_LOG=debug shows what happens.
#[derive(Parser, Debug)]
#[command(name = NAME, version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what Rx is: a server, a client, and the actors inside, in a few seconds
    Demo(demo::Args),
    /// Make calls, and print the reply
    Call(call::Args),
    /// Measure a server of service 147: echo-server, or OpenAFS's or Linux's rxperf
    Perf(perf::Args),
    /// Ask a server for its version
    Version(version::Args),
}

fn main() -> ExitCode {
    env_logger::init();
    let print_json = |wrong: Stop| {
        wrong.tell_json(&op_of(std::env::args_os().skip(1)));
    };
    let args = match args::parse::<Args>(NAME, print_json) {
        Ok(args) => args,
        Err(status) => return status,
    };
    actix_rt::System::new().block_on(async move {
        // In a task: what wakes the future of `block_on` itself costs one look at the poller more each time.
        let task = actix_rt::spawn(async move {
            match args.command {
                Command::Demo(args) => demo::run(args).await,
                Command::Call(args) => call::run(args).await,
                Command::Perf(args) => perf::run(args).await,
                Command::Version(args) => version::run(args).await,
            }
        });
        match task.await {
            Ok(status) => status,
            Err(broke) => std::panic::resume_unwind(broke.into_panic()),
        }
    })
}

/// What a command line asked for that could not be understood as a whole: as near as it can be told.
fn op_of(arguments: impl Iterator<Item = std::ffi::OsString>) -> String {
    let mut words = arguments.map(|word| word.to_string_lossy().into_owned());
    let first = words.next().unwrap_or_default();
    match first.as_str() {
        "perf" => words.find(|word| perf::is_op(word)).unwrap_or(first),
        "call" | "version" | "demo" => first,
        _ => NAME.to_owned(),
    }
}

/// An endpoint for calls to `peer`, from any port.
async fn client(peer: SocketAddr, load: &load::LoadArgs) -> Result<Endpoint, Stop> {
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    load.chaos
        .bind(Endpoint::builder(), any, load.shards)?
        .configure(|config| args::set_jumbo(&mut config.client.call, load.jumbo))
        .start()
        .await
        .map_err(Stop::trouble)
}

/// How long what still has to be said may take at the end.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn a_line_that_is_wrong_still_tells_its_operation() {
        let op = |line: &str| super::op_of(line.split(' ').map(Into::into));
        assert_eq!(op("perf host:1 rpc --parallel 0 --json"), "rpc");
        assert_eq!(op("perf --count 0 host:1 slowread"), "slowread");
        assert_eq!(op("perf host:1 shout"), "perf");
        assert_eq!(op("call host:1 --frob"), "call");
        assert_eq!(op("--frob call"), "rx");
        assert_eq!(op(""), "rx");
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::Args::command().debug_assert();
    }
}
