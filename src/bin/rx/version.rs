//! `rx version`: a VERSION packet from a plain socket. It needs no connection, so it needs no endpoint.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rxrpc::wire::{HEADER_LEN, Header, PacketType, Version, encode_version_request};

use crate::NAME;
use crate::common::args::{resolve, seconds, trouble};
use crate::load::EXIT_FAILED;

/// A question that is not answered is asked again after this.
const RETRY: Duration = Duration::from_millis(500);

/// Arguments of `rx version`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server; an IPv6 address as [::1]:7009
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// How long to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
}

/// Asks, and prints the answer.
pub fn run(args: Args) -> ExitCode {
    let (peer, socket) = match resolve(&args.server).and_then(|peer| Ok((peer, open(peer)?))) {
        Ok(ready) => ready,
        Err(error) => return trouble(NAME, error),
    };
    let began = Instant::now();
    match ask(&socket, args.timeout) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let after = began.elapsed().as_secs_f64();
            eprintln!(
                "{NAME}: expected the version of {peer}, got none: {error}; after {after:.3} s"
            );
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn open(peer: SocketAddr) -> Result<UdpSocket, String> {
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(peer).map(|()| socket));
    socket.map_err(|error| format!("no socket to {peer}: {error}"))
}

fn ask(socket: &UdpSocket, timeout: Duration) -> io::Result<String> {
    let number: u32 = rand::random();
    let mut question = Vec::new();
    encode_version_request(number, &mut question);
    let end = Instant::now() + timeout;
    let mut datagram = [0; 1500];
    loop {
        socket.send(&question)?;
        let retry = (Instant::now() + RETRY).min(end);
        loop {
            let left = retry.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut datagram) {
                Ok(count) => {
                    if let Some(text) = answer(number, &datagram[..count]) {
                        return Ok(text);
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// The text, if this is the answer to our question.
fn answer(number: u32, datagram: &[u8]) -> Option<String> {
    let header = Header::decode(datagram)?;
    let is_ours = header.packet_type == PacketType::Version
        && !header.is_from_client()
        && header.call_number.0 == number;
    let version = Version::decode(&datagram[HEADER_LEN..]);
    is_ours.then(|| String::from_utf8_lossy(version.text()).escape_debug().to_string())
}
