//! Command lines: sizes, addresses, settings, and errors of one line.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use rxrpc::proto::config::CallConfig;

/// The command line was wrong.
pub const EXIT_USAGE: u8 = 2;
/// It could not start, or broke while it ran.
pub const EXIT_TROUBLE: u8 = 1;

/// Reads the command line. `Err` is the exit status: help was printed, or one line that says what is wrong.
pub fn parse<A: Parser>(name: &str) -> Result<A, ExitCode> {
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
            eprintln!("{name}: {}; see {name} --help", one_line(&error.to_string()));
            ExitCode::from(EXIT_USAGE)
        }
    })
}

/// The first paragraph of clap's explanation.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

/// Says on one line why nothing goes on.
pub fn trouble(name: &str, error: impl Display) -> ExitCode {
    eprintln!("{name}: {error}");
    ExitCode::from(EXIT_TROUBLE)
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
pub fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match std::time::Duration::try_from_secs_f64(number) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected seconds above 0".to_owned()),
    }
}

/// The address behind `HOST:PORT`; an IPv6 literal is written `[::1]:7009`. Of several addresses the
/// first IPv4 one is taken, since most servers of Rx listen there only.
pub fn resolve(text: &str) -> Result<SocketAddr, String> {
    let addresses: Vec<_> = text
        .to_socket_addrs()
        .map_err(|error| format!("no address for {text}: {error}"))?
        .collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| format!("no address for {text}"))
}

/// Offers to take jumbograms of so many packets.
pub fn set_jumbo(call: &mut CallConfig, packets: u32) {
    call.jumbo_receive_packets = packets;
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
    fn seconds_are_above_zero() {
        assert_eq!(seconds("0.5"), Ok(std::time::Duration::from_millis(500)));
        for bad in ["0", "-1", "inf", "NaN", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_both_families_and_names_resolve() {
        assert_eq!(resolve("127.0.0.1:7009").unwrap().to_string(), "127.0.0.1:7009");
        assert_eq!(resolve("[::1]:7009").unwrap().to_string(), "[::1]:7009");
        assert_eq!(resolve("localhost:1").unwrap().to_string(), "127.0.0.1:1");
        assert!(resolve("127.0.0.1").unwrap_err().contains("127.0.0.1"));
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
