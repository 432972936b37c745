//! Command lines: sizes, addresses, settings, and errors of one line.

use std::error::Error as _;
use std::fmt::Display;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use rxrpc::proto::config::CallConfig;

use super::mask::mask_keys;

/// It could not start, or broke while it ran.
const EXIT_TROUBLE: u8 = 1;
/// The command line was wrong, or what it names is of no use.
const EXIT_USAGE: u8 = 2;
/// A call failed.
const EXIT_FAILED: u8 = 3;

/// Longest time that an option takes, in seconds: more than thirty years.
const SECONDS_MAX: f64 = 1e9;

/// Reads the command line. `Err` is the exit status: help was printed, or one line that says what is wrong.
/// If JSON was asked for, `print_json` gets that line too.
pub fn parse<A: Parser>(name: &str, print_json: impl FnOnce(Stop)) -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads it: no error.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(EXIT_USAGE)
        }
        _ => {
            let wrong = explanation(&error);
            eprintln!("{name}: {wrong}; see {name} --help");
            if asks_for_json(std::env::args_os().skip(1)) {
                print_json(Stop::usage(wrong));
            }
            ExitCode::from(EXIT_USAGE)
        }
    })
}

/// Whether `--json` is on a command line that could not be understood as a whole.
fn asks_for_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// What is wrong, on one line. Clap repeats what was given: of a key, that must not be, whatever option it was
/// given to.
fn explanation(error: &clap::Error) -> String {
    if let (Some(ContextValue::String(argument)), Some(reason)) =
        (error.get(ContextKind::InvalidArg), error.source())
        && ["--key ", "--session "].iter().any(|secret| argument.starts_with(secret))
    {
        return format!("invalid value for '{argument}': {reason}");
    }
    mask_keys(&one_line(&error.to_string()))
}

/// The first paragraph of clap's explanation.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

/// Says on one line why nothing goes on.
pub fn trouble(name: &str, error: impl Display) -> ExitCode {
    Stop::trouble(error).tell(name)
}

/// How to exit after calls.
pub fn status(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

/// Why nothing goes on, and how to exit. No key is repeated that was given for something else.
#[derive(Debug)]
pub struct Stop {
    status: u8,
    error: String,
}

impl Stop {
    /// It could not start, or broke while it ran.
    pub fn trouble(error: impl Display) -> Stop {
        Stop::new(EXIT_TROUBLE, error)
    }

    /// The command line was wrong, or what it names is of no use.
    pub fn usage(error: impl Display) -> Stop {
        Stop::new(EXIT_USAGE, error)
    }

    /// A call failed.
    pub fn failed(error: impl Display) -> Stop {
        Stop::new(EXIT_FAILED, error)
    }

    fn new(status: u8, error: impl Display) -> Stop {
        Stop { status, error: mask_keys(&error.to_string()) }
    }

    /// What went wrong.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// Says it on one line of standard error.
    pub fn tell(self, name: &str) -> ExitCode {
        eprintln!("{name}: {}", self.error);
        ExitCode::from(self.status)
    }

    /// Says it as whoever asked for JSON expects it: as a line of that, with every name that is always there.
    pub fn tell_json(self, op: &str) -> ExitCode {
        let line = serde_json::json!({
            "ok": false,
            "op": op,
            "calls": 0,
            "failed": 0,
            "bytes": 0,
            "seconds": 0.0,
            "busy": 0,
            "retransmitted": 0,
            "error": self.error,
        });
        // Nobody reads it: the status still says so.
        let _ = writeln!(std::io::stdout(), "{line}");
        ExitCode::from(self.status)
    }
}

/// A number of bytes: `1500`, `64k`, `100M`, `2G`; the letters are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err("expected a number, or one with k, M or G behind it".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(unit).ok_or_else(|| "it is too large".to_owned())
}

/// As [`size`], for what goes over the wire as a signed 32-bit number.
pub fn wire_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    if bytes > i32::MAX as u64 {
        return Err(format!("expected at most {} bytes, got {bytes}", i32::MAX));
    }
    Ok(bytes as u32)
}

/// Seconds above 0, with a fraction if need be.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|number| *number <= SECONDS_MAX);
    match number.map(Duration::try_from_secs_f64) {
        Some(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("expected seconds above 0, at most {SECONDS_MAX}")),
    }
}

/// `HOST:PORT`; an IPv6 literal is written `[::1]:7009`.
#[derive(Clone, Debug)]
pub struct HostPort(String);

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let is_name = |host: &str| !host.is_empty() && !host.contains([':', '[', ']']);
        let is_good = text.parse::<SocketAddr>().is_ok()
            || text
                .rsplit_once(':')
                .is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok());
        if is_good {
            return Ok(HostPort(text.to_owned()));
        }
        Err("expected HOST:PORT with a port of 0 to 65535; an IPv6 address as [::1]:7009"
            .to_owned())
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl HostPort {
    /// The address behind it, if it is found within `limit`, and how much of that went: nothing where it is
    /// an address itself. Of several the first IPv4 one is taken, since most servers of Rx listen there only.
    pub async fn resolve(&self, limit: Duration) -> Result<(SocketAddr, Duration), String> {
        if let Ok(address) = self.0.parse() {
            return Ok((address, Duration::ZERO));
        }
        let began = Instant::now();
        let address = self.look_up(limit).await?;
        Ok((address, began.elapsed()))
    }

    async fn look_up(&self, limit: Duration) -> Result<SocketAddr, String> {
        let began = Instant::now();
        let no_address = |why: &dyn Display| {
            let after = began.elapsed().as_secs_f64();
            format!("expected an address for {self}, got none: {why}; after {after:.3} s")
        };
        let (sender, found) = tokio::sync::oneshot::channel();
        let text = self.0.clone();
        // A thread that nobody waits for: the runtime would not end before a look-up on one of its own.
        let look_up = move || {
            let found = text.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Given up meanwhile.
            let _ = sender.send(found);
        };
        let thread = std::thread::Builder::new().name("look-up".to_owned());
        thread.spawn(look_up).map_err(|error| no_address(&error))?;
        let Ok(found) = tokio::time::timeout(limit, found).await else {
            return Err(no_address(&"the look-up is not over"));
        };
        let found = found.map_err(|error| no_address(&error))?;
        let addresses = found.map_err(|error| no_address(&error))?;
        let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        first.copied().ok_or_else(|| no_address(&"the name has none"))
    }
}

/// Offers to take jumbograms of so many packets, and sends them where peer and path take them.
pub fn set_jumbo(call: &mut CallConfig, packets: u32) {
    call.jumbo_receive_packets = packets;
    call.jumbo_send_packets = packets;
}

/// Windows of so many packets at most.
pub fn set_window(call: &mut CallConfig, packets: u32) {
    call.receive_window_max_packets = packets;
    call.send_window_max_packets = packets;
    call.receive_window_initial_packets = call.receive_window_initial_packets.min(packets);
    call.send_window_initial_packets = call.send_window_initial_packets.min(packets);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_a_unit() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("1500"), Ok(1500));
        assert_eq!(size("64k"), Ok(64 << 10));
        assert_eq!(size("100M"), Ok(100 << 20));
        assert_eq!(size("2G"), Ok(2 << 30));
        for bad in ["", "k", "1.5k", "-1", "3T", "1kk", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_on_the_wire_end_at_31_bits() {
        assert_eq!(wire_size("2147483647"), Ok(0x7fff_ffff));
        assert_eq!(
            wire_size("2G").unwrap_err(),
            "expected at most 2147483647 bytes, got 2147483648"
        );
    }

    #[test]
    fn json_is_asked_for_before_the_end_of_the_options() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(Into::into));
        assert!(asks("perf host:1 rpc --parallel 0 --json"));
        assert!(!asks("perf host:1 rpc -- --json"));
        assert!(!asks("call host:1 --data=--json"));
    }

    #[test]
    fn seconds_are_above_zero() {
        assert_eq!(seconds("0.5"), Ok(std::time::Duration::from_millis(500)));
        assert_eq!(seconds("1e9"), Ok(std::time::Duration::from_secs(1_000_000_000)));
        for bad in ["0", "-1", "inf", "NaN", "x", "1e-30", "1000000001", "1e30"] {
            assert_eq!(seconds(bad).unwrap_err(), "expected seconds above 0, at most 1000000000");
        }
    }

    fn found(text: &str) -> Result<String, String> {
        let address: HostPort = text.parse()?;
        let limit = Duration::from_secs(60);
        let (found, _) = actix_rt::System::new().block_on(address.resolve(limit))?;
        Ok(found.to_string())
    }

    #[test]
    fn addresses_of_both_families_and_names_resolve() {
        for text in ["127.0.0.1:7009", "[::1]:7009", "127.0.0.1:0", "127.0.0.1:65535"] {
            assert_eq!(found(text).as_deref(), Ok(text));
        }
        assert_eq!(found("localhost:1").as_deref(), Ok("127.0.0.1:1"));
        for bad in ["", ":", ":1", "127.0.0.1", "a:", "a:x", "a:65536", "a:-1", "::1:7009", "[::1]"]
        {
            assert!(found(bad).unwrap_err().starts_with("expected HOST:PORT"), "{bad}");
        }
    }

    #[test]
    fn an_error_of_many_lines_becomes_one() {
        let text = "error: these were not provided:\n  <HOST>\n  <OP>\n\nUsage: rx\n";
        assert_eq!(one_line(text), "these were not provided: <HOST> <OP>");
    }

    #[test]
    fn any_window_in_range_is_a_valid_setting() {
        for packets in [1, 2, 31, 255, 65_535] {
            let mut call = CallConfig::default();
            set_window(&mut call, packets);
            assert_eq!(call.validate(), Ok(()), "{packets}");
        }
    }
}
