//! `rx version`: a VERSION packet from a plain socket. It needs no connection, so it needs no endpoint.

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rxrpc::net::{Incoming, Network, PathError, Transmit};
use rxrpc::wire::{HEADER_LEN, Header, PacketType, Version, encode_version_request};

use crate::NAME;
use crate::common::args::{HostPort, Stop, seconds, trouble};
use crate::common::chaos::ChaosArgs;

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
    #[command(flatten)]
    chaos: ChaosArgs,
    /// Print the result as a line of JSON
    #[arg(long)]
    json: bool,
}

/// What came.
struct Answer {
    text: String,
    /// How often the question was asked again.
    retransmitted: u64,
    took: Duration,
}

/// Asks, and prints the answer.
pub async fn run(args: Args) -> ExitCode {
    let printed = match start(&args).await {
        Ok(answer) if args.json => answer.print_json(),
        Ok(answer) => writeln!(io::stdout(), "{}", answer.text),
        Err(failure) if args.json => return failure.tell_json("version"),
        Err(failure) => return failure.tell(NAME),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => trouble(NAME, format_args!("cannot print the version: {error}")),
    }
}

impl Answer {
    /// With the names that every such line has; a question is no call.
    fn print_json(&self) -> io::Result<()> {
        let line = serde_json::json!({
            "ok": true,
            "op": "version",
            "calls": 0,
            "failed": 0,
            "bytes": self.text.len(),
            "seconds": self.took.as_secs_f64(),
            "busy": 0,
            "retransmitted": self.retransmitted,
            "version": self.text,
        });
        writeln!(io::stdout(), "{line}")
    }
}

async fn start(args: &Args) -> Result<Answer, Stop> {
    let (peer, spent) = args.server.resolve(args.timeout).await.map_err(Stop::failed)?;
    let began = Instant::now();
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let end = began + args.timeout.saturating_sub(spent);
    let asked = match args.chaos.network(any)? {
        Some(network) => ask_through(network, peer, end).await,
        None => {
            let socket = UdpSocket::bind(any)
                .map_err(|error| Stop::trouble(format_args!("no socket: {error}")))?;
            socket.connect(peer).and_then(|()| ask(&socket, end))
        }
    };
    let took = began.elapsed();
    match asked {
        Ok((text, retransmitted)) => Ok(Answer { text, retransmitted, took }),
        Err(error) => Err(Stop::failed(format_args!(
            "expected the version of {peer}, got none: {error}; after {:.3} s",
            took.as_secs_f64()
        ))),
    }
}

/// As [`ask`], through a network that misbehaves.
async fn ask_through(
    mut network: impl Network,
    peer: SocketAddr,
    end: Instant,
) -> io::Result<(String, u64)> {
    let (number, question) = question();
    let transmit = Transmit {
        to: peer,
        contents: &question,
        segment_size: question.len(),
        may_fragment: false,
    };
    for again in 0.. {
        network.try_send(&transmit)?;
        let retry = (Instant::now() + RETRY).min(end);
        let mut came = Vec::new();
        while let Ok(received) = tokio::time::timeout_at(
            retry.into(),
            poll_fn(|task| network.poll_receive(task, &mut came)),
        )
        .await
        {
            received?;
            for incoming in came.drain(..) {
                match incoming {
                    Incoming::Datagrams { from, data, stride } if from == peer => {
                        let mut each = data.chunks(stride.max(1));
                        if let Some(text) = each.find_map(|datagram| answer(number, datagram)) {
                            return Ok((text, again));
                        }
                    }
                    Incoming::PathError { to, error: PathError::PortUnreachable } if to == peer => {
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    _ => {}
                }
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

/// A question, and the number that its answer names.
fn question() -> (u32, Vec<u8>) {
    let number = rand::random();
    let mut question = Vec::new();
    encode_version_request(number, &mut question);
    (number, question)
}

/// The answer, and how often it was asked for again.
fn ask(socket: &UdpSocket, end: Instant) -> io::Result<(String, u64)> {
    let (number, question) = question();
    let mut datagram = [0; 1500];
    for again in 0.. {
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
                        return Ok((text, again));
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
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
