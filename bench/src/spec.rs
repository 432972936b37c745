//! What the parent tells its ends, and what they answer: JSON, a line each way.

use serde::{Deserialize, Serialize};

/// Bytes of a small call's request and of its reply.
pub const CALL_BYTES: usize = 64;

/// What an end speaks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Stack {
    /// rxrpc, as a user has it.
    Ours,
    /// The same core over the same socket, without actors and without streams.
    Inline,
    /// Plain UDP: GSO and GRO with credits for bulk, Tokio ping-pong for calls.
    Raw,
    /// Tokio TCP.
    Tcp,
    /// QUIC, a stream for each call.
    Quinn,
    /// gRPC without TLS.
    Tonic,
    /// tarpc over TCP with bincode.
    Tarpc,
    /// OpenAFS's library without jumbograms, through rxpeer.
    OpenAfs,
    /// OpenAFS's library with jumbograms.
    OpenAfsJumbo,
}

impl Stack {
    pub fn name(self) -> &'static str {
        match self {
            Stack::Ours => "ours",
            Stack::Inline => "inline",
            Stack::Raw => "raw",
            Stack::Tcp => "tcp",
            Stack::Quinn => "quinn",
            Stack::Tonic => "tonic",
            Stack::Tarpc => "tarpc",
            Stack::OpenAfs => "openafs",
            Stack::OpenAfsJumbo => "openafs-jumbo",
        }
    }
}

/// Which way the bytes of a bulk transfer go, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Recv,
    Send,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Recv => "recv",
            Way::Send => "send",
        }
    }
}

/// A process at one end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct End {
    pub stack: Stack,
    /// Server: `None`. Client: the server's port, and what to do, one after the other.
    pub client: Option<Client>,
    /// Packets per datagram that ours offers to take.
    #[serde(default = "one")]
    pub jumbo: u32,
    /// Receive and send window of ours, packets; 0 = the defaults.
    #[serde(default)]
    pub window: u32,
    /// Raw: bytes of a datagram, and the file that both ends map. Ours: the most bytes of a datagram; 0 = the default.
    #[serde(default)]
    pub datagram: usize,
    #[serde(default)]
    pub shared: String,
}

fn one() -> u32 {
    1
}

impl End {
    pub fn server(stack: Stack) -> End {
        End { stack, client: None, jumbo: 1, window: 0, datagram: 0, shared: String::new() }
    }

    pub fn client(&self, port: u16, loads: Vec<Load>) -> End {
        End { client: Some(Client { port, loads }), ..self.clone() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    pub port: u16,
    pub loads: Vec<Load>,
}

/// One thing that a client does between two looks at the clocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Load {
    /// One transfer that takes about this long.
    Bulk { way: Way, seconds: f64 },
    /// One transfer that is cut off after this long.
    Timed { seconds: f64 },
    /// Small calls in a closed loop.
    Calls { in_flight: usize, seconds: f64 },
    /// Ours only: so many connections in all, each with one call made on it.
    Open { connections: usize },
    /// Ours only: as `Calls`, each on the next of the connections that are open.
    Rounds { in_flight: usize, seconds: f64 },
    /// Ours only: calls with a deadline to somebody who never answers, beside so many bulk transfers.
    Deadlines { count: usize, deadline_ms: u64, beside: usize },
    /// Raw only: the same first DATA of one call, as fast as it goes, until the process is ended.
    Flood {},
    /// Ours only: small calls, one in flight, beside so many bulk transfers.
    Beside { seconds: f64, bulk: usize },
}

/// How a load went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub wall_s: f64,
    /// Bytes or calls.
    pub units: u64,
    /// CPU seconds that an end spent spinning for want of credit, to be taken off.
    #[serde(default)]
    pub spun_s: f64,
    /// Of calls, or how late deadlines were: p50, p99, p99.9, the greatest; microseconds.
    #[serde(default)]
    pub micros: Option<[f64; 4]>,
}

/// Totals of an end since it began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Stat {
    pub allocations: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<Net>,
}

/// What it sent and received, where the stack can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Net {
    pub datagrams_sent: u64,
    pub bytes_sent: u64,
    pub sends: u64,
    pub datagrams_received: u64,
    pub receives: u64,
    pub resent: u64,
    pub resent_by_timer: u64,
    pub dropped: u64,
}

impl Stat {
    pub fn since(&self, before: &Stat) -> Stat {
        let net = match (self.net, before.net) {
            (Some(now), Some(then)) => Some(Net {
                datagrams_sent: now.datagrams_sent - then.datagrams_sent,
                bytes_sent: now.bytes_sent - then.bytes_sent,
                sends: now.sends - then.sends,
                datagrams_received: now.datagrams_received - then.datagrams_received,
                receives: now.receives - then.receives,
                resent: now.resent - then.resent,
                resent_by_timer: now.resent_by_timer - then.resent_by_timer,
                dropped: now.dropped - then.dropped,
            }),
            _ => None,
        };
        Stat { allocations: self.allocations - before.allocations, net }
    }
}

/// What an end says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Said {
    /// Server: it listens here.
    Ready(u16),
    /// Client: warm; `GO` begins the load.
    Begin,
    Done(Outcome),
    Stat(Stat),
    /// It could not go on.
    Failed(String),
}

/// What the parent says to an end.
pub const GO: &str = "go";
pub const STAT: &str = "stat";
