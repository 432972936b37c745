//! `rx version`: a VERSION packet from a plain socket. It needs no connection, so it needs no endpoint.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rxrpc::wire::{HEADER_LEN, Header, PacketType, Version, encode_version_request};

use crate::NAME;
use crate::common::args::{HostPort, Stop, seconds};

/// A question that is not answered is asked again after this.
const RETRY: Duration = Duration::from_millis(500);

/// Arguments of `rx version`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server; an IPv6 address as [::1]:7009
    #[arg(value_name = "HOST:PORT")]
    server: HostPort,
    /// How long to wait for an answer, looking up the host's name included
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,
}

/// Asks, and prints the answer.
pub async fn run(args: Args) -> ExitCode {
    match start(&args).await {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => failure.tell(NAME),
    }
}

async fn start(args: &Args) -> Result<String, Stop> {
    let (peer, spent) = args.server.resolve(args.timeout).await.map_err(Stop::failed)?;
    let began = Instant::now();
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket =
        UdpSocket::bind(any).map_err(|error| Stop::trouble(format_args!("no socket: {error}")))?;
    let asked = socket
        .connect(peer)
        .and_then(|()| ask(&socket, began + args.timeout.saturating_sub(spent)));
    asked.map_err(|error| {
        let after = began.elapsed().as_secs_f64();
        Stop::failed(format_args!(
            "expected the version of {peer}, got none: {error}; after {after:.3} s"
        ))
    })
}

fn ask(socket: &UdpSocket, end: Instant) -> io::Result<String> {
    let number: u32 = rand::random();
    let mut question = Vec::new();
    encode_version_request(number, &mut question);
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
