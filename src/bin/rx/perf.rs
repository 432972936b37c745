//! `rx perf`: the operations of service 147, every reply checked to its last byte.

use std::process::ExitCode;

use bytes::Bytes;
use futures::Stream;
use rxrpc::{AbortCode, CallError, CallOptions, ConnectOptions, Connection, StreamError};

use crate::common::args::{EXIT_USAGE, resolve, trouble, wire_size};
use crate::common::body::{MAGIC, PIECE_BYTES, Pattern, zeros};
use crate::common::pieces::{Pieces, ReadError};
use crate::common::service::{PERF_SERVICE, PERF_VERSION, op, words};
use crate::{CLOSE_GRACE, NAME, client, load};

/// A call with no more bytes than this each way is one message each way; others stream.
const WHOLE_MAX: u64 = PIECE_BYTES as u64;
/// The hints for the server's reads and writes.
const HINT: u32 = PIECE_BYTES as u32;

/// Arguments of `rx perf`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server; an IPv6 address as [::1]:7009
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// What the calls do
    #[arg(value_enum)]
    op: Op,
    /// Bytes per call [default: 1M]
    #[arg(long, value_parser = wire_size)]
    bytes: Option<u32>,
    /// rpc and abort: bytes of the request [default: 32 and 0]
    #[arg(long, value_name = "BYTES", value_parser = wire_size)]
    send: Option<u32>,
    /// rpc and abort: bytes of the reply [default: 32 and 0]
    #[arg(long, value_name = "BYTES", value_parser = wire_size)]
    recv: Option<u32>,
    /// slowread and slowwrite: bytes that the server takes or gives at a time
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = wire_size)]
    piece: u32,
    /// slowread and slowwrite: how long it then sleeps
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 1000)]
    micros: u32,
    /// abort: the code that is asked for, and expected
    #[arg(long, default_value_t = 4711, allow_negative_numbers = true)]
    code: i32,
    #[command(flatten)]
    load: load::LoadArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Op {
    /// Bytes to the server
    Send,
    /// Bytes from the server
    Recv,
    /// Bytes there and back
    Rpc,
    /// The same bytes there and back, compared
    Echo,
    /// Bytes to the server, which returns their checksum
    Sum,
    /// Bytes from the server, compared, and their checksum
    Pattern,
    /// The server aborts the call; that it does so is success
    Abort,
    /// Bytes to a server that reads slowly
    #[value(name = "slowread")]
    SlowRead,
    /// Bytes from a server that writes slowly
    #[value(name = "slowwrite")]
    SlowWrite,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Send => "send",
            Op::Recv => "recv",
            Op::Rpc => "rpc",
            Op::Echo => "echo",
            Op::Sum => "sum",
            Op::Pattern => "pattern",
            Op::Abort => "abort",
            Op::SlowRead => "slowread",
            Op::SlowWrite => "slowwrite",
        }
    }
}

/// Measures.
pub async fn run(args: Args) -> ExitCode {
    let plan = match Plan::new(&args) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match start(&args, plan).await {
        Ok(status) => status,
        Err(error) => trouble(NAME, error),
    }
}

async fn start(args: &Args, plan: Plan) -> Result<ExitCode, String> {
    let peer = resolve(&args.server)?;
    let endpoint = client(peer, args.load.jumbo).await?;
    let options =
        ConnectOptions { connections_max: args.load.connections(), ..ConnectOptions::default() };
    let connection = endpoint
        .connect_with(peer, PERF_SERVICE, options)
        .await
        .map_err(|error| error.to_string())?;
    let options = CallOptions::within(args.load.timeout);
    let outcome = load::run(&args.load, async |index| {
        plan.call(&connection, options, index as u32).await.map_err(|error| error.to_string())
    })
    .await;
    let status = outcome.print(args.op.name(), args.load.json, &endpoint).await;
    drop(connection);
    endpoint.shutdown(CLOSE_GRACE).await;
    Ok(status)
}

/// What is asked of the server, the same for each call but for the pattern's seed.
#[derive(Debug)]
pub struct Plan {
    op: Op,
    /// Bytes of content to the server and back.
    send: u32,
    recv: u32,
    piece: u32,
    micros: u32,
    code: i32,
    /// The request of all calls, if it is small and always the same.
    same: Option<Bytes>,
}

/// Why a call was not good.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("expected a reply, got none: {0}")]
    Call(CallError),
    #[error("expected {expected}, got {got}")]
    Wrong { expected: String, got: String },
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure::Call(error)
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Failure {
        Failure::Call(error.into())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error {
            ReadError::Failed(failed) => failed.into(),
            ReadError::Short(bytes) => wrong(format!("{bytes} bytes more"), "the reply's end"),
        }
    }
}

fn wrong(expected: impl ToString, got: impl ToString) -> Failure {
    Failure::Wrong { expected: expected.to_string(), got: got.to_string() }
}

fn equal(what: &str, expected: u32, got: u32) -> Result<(), Failure> {
    if expected == got {
        return Ok(());
    }
    Err(wrong(format!("{what} {expected:#x}"), format!("{got:#x}")))
}

impl Plan {
    fn new(args: &Args) -> Result<Plan, String> {
        let op = args.op;
        let both = matches!(op, Op::Rpc | Op::Abort);
        if both && args.bytes.is_some() {
            return Err(format!("{} takes --send and --recv, not --bytes", op.name()));
        }
        if !both && (args.send.is_some() || args.recv.is_some()) {
            return Err(format!("{} takes --bytes, not --send or --recv", op.name()));
        }
        let bytes = args.bytes.unwrap_or(1 << 20);
        let default = if op == Op::Rpc { 32 } else { 0 };
        let (send, recv) = match op {
            Op::Rpc | Op::Abort => (args.send.unwrap_or(default), args.recv.unwrap_or(default)),
            Op::Echo => (bytes, bytes),
            Op::Send | Op::Sum | Op::SlowRead => (bytes, 0),
            Op::Recv | Op::Pattern | Op::SlowWrite => (0, bytes),
        };
        let (piece, micros, code) = (args.piece, args.micros, args.code);
        let mut plan = Plan { op, send, recv, piece, micros, code, same: None };
        if plan.is_whole() && plan.has_one_request() {
            plan.same = Some(plan.content(0).whole(&plan.head(0)));
        }
        Ok(plan)
    }

    /// A single transfer from the server.
    pub fn recv(bytes: u32) -> Plan {
        Plan { op: Op::Recv, send: 0, recv: bytes, piece: 0, micros: 0, code: 0, same: None }
    }

    fn has_one_request(&self) -> bool {
        !matches!(self.op, Op::Echo | Op::Sum | Op::Pattern)
    }

    fn is_whole(&self) -> bool {
        u64::from(self.send) <= WHOLE_MAX && u64::from(self.recv) <= WHOLE_MAX
    }

    /// The words before the content.
    fn head(&self, seed: u32) -> Bytes {
        let (send, recv) = (self.send, self.recv);
        let begin = |operation| [PERF_VERSION, operation, HINT, HINT];
        let with = |operation, more: &[u32]| {
            let mut bytes = words(begin(operation)).to_vec();
            more.iter().for_each(|word| bytes.extend_from_slice(&word.to_be_bytes()));
            bytes.into()
        };
        match self.op {
            Op::Send => with(op::SEND, &[send]),
            Op::Recv => with(op::RECV, &[recv]),
            Op::Rpc => with(op::RPC, &[send, recv]),
            Op::Echo => with(op::ECHO, &[send]),
            Op::Sum => with(op::SUM, &[send]),
            Op::Pattern => with(op::PATTERN, &[recv, seed]),
            Op::Abort => with(op::ABORT, &[self.code as u32, send, recv]),
            Op::SlowRead => with(op::SLOW_READ, &[send, self.piece, self.micros]),
            Op::SlowWrite => with(op::SLOW_WRITE, &[recv, self.piece, self.micros]),
        }
    }

    fn content(&self, seed: u32) -> Content {
        let has_pattern = matches!(self.op, Op::Echo | Op::Sum);
        Content {
            left: self.send as usize,
            pattern: has_pattern.then(|| Pattern::new(seed)),
            crc: crc32fast::Hasher::new(),
        }
    }

    /// One call, from request to checked reply; returns the bytes of content that it moved.
    pub async fn call(
        &self,
        connection: &Connection,
        options: CallOptions,
        seed: u32,
    ) -> Result<u64, Failure> {
        let result = if self.is_whole() {
            self.call_whole(connection, options, seed).await
        } else {
            self.call_streaming(connection, options, seed).await
        };
        let expected = AbortCode(self.code);
        match (self.op, result) {
            (Op::Abort, Err(Failure::Call(error))) if error.abort_code() == Some(expected) => Ok(0),
            (Op::Abort, Err(Failure::Call(error))) => {
                Err(wrong(format!("an abort with code {expected}"), error))
            }
            (_, result) => result.map(|()| u64::from(self.send) + u64::from(self.recv)),
        }
    }

    async fn call_whole(
        &self,
        connection: &Connection,
        options: CallOptions,
        seed: u32,
    ) -> Result<(), Failure> {
        let mut content = self.content(seed);
        let request = match &self.same {
            Some(same) => same.clone(),
            None => content.whole(&self.head(seed)),
        };
        let reply = connection.call_with(request, options).await?;
        let mut pieces = Pieces::new(futures::stream::iter([Ok(reply)]));
        self.check(&mut pieces, seed, content.crc).await
    }

    async fn call_streaming(
        &self,
        connection: &Connection,
        options: CallOptions,
        seed: u32,
    ) -> Result<(), Failure> {
        let mut request = connection.open_call(options).await?;
        request.write(self.head(seed)).await?;
        let mut content = self.content(seed);
        while let Some(piece) = content.next() {
            request.write(piece).await?;
        }
        self.check(&mut Pieces::new(request.finish()?), seed, content.crc).await
    }

    /// Reads the reply to its end.
    async fn check<S>(
        &self,
        reply: &mut Pieces<S>,
        seed: u32,
        sent: crc32fast::Hasher,
    ) -> Result<(), Failure>
    where
        S: Stream<Item = Result<Bytes, StreamError>> + Unpin,
    {
        match self.op {
            Op::Send | Op::SlowRead => {}
            Op::Recv | Op::SlowWrite | Op::Rpc => reply.run(self.recv.into(), drop).await?,
            Op::Echo => {
                self.check_pattern(reply, seed).await?;
            }
            Op::Sum => {
                equal("the count", self.send, reply.word().await?)?;
                equal("the checksum", sent.finalize(), reply.word().await?)?;
            }
            Op::Pattern => {
                let crc = self.check_pattern(reply, seed).await?;
                equal("the checksum", crc, reply.word().await?)?;
            }
            Op::Abort => {
                let count = reply.drain().await?;
                let expected = format!("an abort with code {}", self.code);
                return Err(wrong(expected, format!("a reply of {count} bytes")));
            }
        }
        equal("the magic word", MAGIC, reply.word().await?)?;
        match reply.drain().await? {
            0 => Ok(()),
            more => Err(wrong("the reply's end", format!("{more} bytes more"))),
        }
    }

    /// Compares the content with the pattern; returns its checksum.
    async fn check_pattern<S>(&self, reply: &mut Pieces<S>, seed: u32) -> Result<u32, Failure>
    where
        S: Stream<Item = Result<Bytes, StreamError>> + Unpin,
    {
        let mut pattern = Pattern::new(seed);
        let mut crc = crc32fast::Hasher::new();
        let mut same = Ok(());
        reply
            .run(self.recv.into(), |piece| {
                crc.update(&piece);
                if same.is_ok() {
                    same = pattern.check(&piece);
                }
            })
            .await?;
        match same {
            Ok(()) => Ok(crc.finalize()),
            Err(at) => Err(wrong("the pattern", format!("another byte at {at}"))),
        }
    }
}

/// The content of a request, piece by piece.
struct Content {
    left: usize,
    pattern: Option<Pattern>,
    crc: crc32fast::Hasher,
}

impl Content {
    fn next(&mut self) -> Option<Bytes> {
        let count = self.left.min(PIECE_BYTES);
        self.left -= count;
        let piece = match &mut self.pattern {
            _ if count == 0 => return None,
            None => zeros(count),
            Some(pattern) => pattern.piece(count),
        };
        if self.pattern.is_some() {
            self.crc.update(&piece);
        }
        Some(piece)
    }

    fn whole(&mut self, head: &[u8]) -> Bytes {
        let mut request = Vec::with_capacity(head.len() + self.left);
        request.extend_from_slice(head);
        while let Some(piece) = self.next() {
            request.extend_from_slice(&piece);
        }
        request.into()
    }
}
