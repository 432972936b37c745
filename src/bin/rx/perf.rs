//! `rx perf`: the operations of service 147, every reply checked to its last byte.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use rxrpc::{AbortCode, CallError, CallOptions, ConnectOptions, Connection, StreamError};

use crate::common::args::{HostPort, Stop, wire_size};
use crate::common::body::{MAGIC, PIECE_BYTES, Pattern, zeros};
use crate::common::pieces::{Pace, Pieces, ReadError};
use crate::common::security::ClientArgs;
use crate::common::service::{PERF_SERVICE, PERF_VERSION, op, words};
use crate::load::Moved;
use crate::{CLOSE_GRACE, client, load};

/// A call with no more bytes than this each way is one message each way; others stream.
const WHOLE_MAX: u64 = PIECE_BYTES as u64;
/// The hints for the server's reads and writes.
const HINT: u32 = PIECE_BYTES as u32;

/// Arguments of `rx perf`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server; an IPv6 address as [::1]:7009
    #[arg(value_name = "HOST:PORT")]
    server: HostPort,
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
    /// slowread and slowwrite: bytes that the server takes or gives at a time [default: 1024]
    #[arg(long, value_name = "BYTES", value_parser = wire_size)]
    piece: Option<u32>,
    /// slowread and slowwrite: how long it then sleeps [default: 1000]
    #[arg(long, value_name = "MICROSECONDS")]
    micros: Option<u32>,
    /// Write and read the content so many bytes at a time [default: 64k]
    #[arg(long, value_name = "BYTES", value_parser = wire_size)]
    chunk: Option<u32>,
    /// Sleep so long after each chunk
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    pace: u32,
    /// abort: the code that is asked for, and expected [default: 4711]
    #[arg(long, allow_negative_numbers = true)]
    code: Option<i32>,
    #[command(flatten)]
    load: load::LoadArgs,
    #[command(flatten)]
    security: ClientArgs,
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

/// Whether `word` names an operation.
pub fn is_op(word: &str) -> bool {
    <Op as clap::ValueEnum>::from_str(word, false).is_ok()
}

/// Measures.
pub async fn run(args: Args) -> ExitCode {
    match start(&args).await {
        Ok(status) => status,
        Err(failure) => args.load.tell(failure, args.op.name()),
    }
}

async fn start(args: &Args) -> Result<ExitCode, Stop> {
    let plan = args.security.check().and_then(|()| Plan::new(args)).map_err(Stop::usage)?;
    let security = args.security.class().map_err(Stop::usage)?;
    let (peer, spent) = args.server.resolve(args.load.timeout).await.map_err(Stop::failed)?;
    let endpoint = client(peer, &args.load).await?;
    let options = ConnectOptions {
        connections_max: args.load.connections(),
        security,
        ..ConnectOptions::default()
    };
    let connection =
        endpoint.connect_with(peer, PERF_SERVICE, options).await.map_err(Stop::failed)?;
    let outcome = load::run(&args.load, async |index, moved| {
        let options = args.load.options(index, spent);
        plan.call(&connection, options, index as u32, moved)
            .await
            .map_err(|error| error.to_string())
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
    /// Bytes that are written or read at a time, and the pause after them.
    chunk: usize,
    pace: Duration,
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
        let is_slow = matches!(op, Op::SlowRead | Op::SlowWrite);
        if !is_slow && (args.piece.is_some() || args.micros.is_some()) {
            let name = op.name();
            return Err(format!("{name} takes no --piece or --micros: slowread and slowwrite do"));
        }
        if op != Op::Abort && args.code.is_some() {
            return Err(format!("{} takes no --code: abort does", op.name()));
        }
        let bytes = args.bytes.unwrap_or(1 << 20);
        let default = if op == Op::Rpc { 32 } else { 0 };
        let (send, recv) = match op {
            Op::Rpc | Op::Abort => (args.send.unwrap_or(default), args.recv.unwrap_or(default)),
            Op::Echo => (bytes, bytes),
            Op::Send | Op::Sum | Op::SlowRead => (bytes, 0),
            Op::Recv | Op::Pattern | Op::SlowWrite => (0, bytes),
        };
        let (piece, micros) = (args.piece.unwrap_or(1024), args.micros.unwrap_or(1000));
        let code = args.code.unwrap_or(4711);
        let chunk = args.chunk.map_or(PIECE_BYTES, |chunk| (chunk as usize).clamp(1, PIECE_BYTES));
        let pace = Duration::from_micros(args.pace.into());
        let mut plan = Plan { op, send, recv, piece, micros, code, chunk, pace, same: None };
        if plan.is_whole() && plan.has_one_request() {
            plan.same = Some(plan.content(0).whole(&plan.head(0)));
        }
        Ok(plan)
    }

    /// A single transfer from the server.
    pub fn recv(bytes: u32) -> Plan {
        Plan {
            op: Op::Recv,
            send: 0,
            recv: bytes,
            piece: 0,
            micros: 0,
            code: 0,
            chunk: PIECE_BYTES,
            pace: Duration::ZERO,
            same: None,
        }
    }

    fn has_one_request(&self) -> bool {
        !matches!(self.op, Op::Echo | Op::Sum | Op::Pattern)
    }

    fn is_whole(&self) -> bool {
        u64::from(self.send) <= WHOLE_MAX && u64::from(self.recv) <= WHOLE_MAX && !self.is_slow()
    }

    fn is_slow(&self) -> bool {
        !self.pace.is_zero() || self.chunk < PIECE_BYTES
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
            chunk: self.chunk,
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
        moved: &Moved,
    ) -> Result<u64, Failure> {
        let result = if self.is_whole() {
            self.call_whole(connection, options, seed, moved).await
        } else {
            self.call_streaming(connection, options, seed, moved).await
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
        moved: &Moved,
    ) -> Result<(), Failure> {
        let mut content = self.content(seed);
        let request = match &self.same {
            Some(same) => same.clone(),
            None => content.whole(&self.head(seed)),
        };
        let sent = request.len();
        let reply = connection.call_with(request, options).await?;
        moved.add(sent + reply.len());
        let mut pieces = Pieces::new(futures::stream::iter([Ok(reply)]));
        self.check(&mut pieces, seed, content.crc).await
    }

    async fn call_streaming(
        &self,
        connection: &Connection,
        options: CallOptions,
        seed: u32,
        moved: &Moved,
    ) -> Result<(), Failure> {
        let mut request = connection.open_call(options).await?;
        request.write(self.head(seed)).await?;
        let mut content = self.content(seed);
        let mut pace = Pace::new(self.pace);
        while let Some(piece) = content.next() {
            let sent = piece.len();
            request.write(piece).await?;
            moved.add(sent);
            pace.pause().await;
        }
        let reply = request.finish()?.inspect_ok(|piece| moved.add(piece.len()));
        let mut reply = Pieces::new(reply);
        if self.is_slow() {
            reply.slow_down(self.chunk, pace);
        }
        self.check(&mut reply, seed, content.crc).await
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
    chunk: usize,
    pattern: Option<Pattern>,
    crc: crc32fast::Hasher,
}

impl Content {
    fn next(&mut self) -> Option<Bytes> {
        let count = self.left.min(self.chunk);
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use clap::{Parser, ValueEnum};
    use rxrpc::net::MemoryHub;
    use rxrpc::{Endpoint, Service, unary};

    use super::*;
    use crate::common::service::perf;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let words = "perf host:1".split(' ').chain(line.split(' '));
        Plan::new(&Line::try_parse_from(words).unwrap().args)
    }

    /// A connection to a service in memory.
    async fn connect(service: impl Service) -> Connection {
        let hub = MemoryHub::new();
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let network = |port| hub.bind_source(at(port)).unwrap().1;
        let server = Endpoint::builder().network(network(7009)).service(PERF_SERVICE, service);
        let server = server.start().await.unwrap();
        let client = Endpoint::builder().network(network(7001)).start().await.unwrap();
        let connection = client.connect(at(7009), PERF_SERVICE).await.unwrap();
        actix_rt::spawn(async move { server.closed().await });
        connection
    }

    async fn call(connection: &Connection, line: &str) -> Result<u64, String> {
        let plan = plan(line).unwrap();
        plan.call(connection, CallOptions::default(), 7, &Moved::default())
            .await
            .map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_have_defaults_that_suit_the_operation() {
        let sizes = |line| plan(line).map(|plan| (plan.send, plan.recv));
        assert_eq!(sizes("send"), Ok((1 << 20, 0)));
        assert_eq!(sizes("pattern --bytes 3k"), Ok((0, 3072)));
        assert_eq!(sizes("echo --bytes 5"), Ok((5, 5)));
        assert_eq!(sizes("rpc"), Ok((32, 32)));
        assert_eq!(sizes("rpc --send 0"), Ok((0, 32)));
        assert_eq!(sizes("abort"), Ok((0, 0)));
        assert!(sizes("abort --bytes 1").unwrap_err().contains("--send and --recv"));
        assert!(sizes("sum --send 1").unwrap_err().contains("takes --bytes"));
        for op in Op::value_variants().iter().map(|op| op.name()) {
            let is_slow = op.starts_with("slow");
            assert_eq!(plan(&format!("{op} --piece 1")).is_ok(), is_slow, "{op}");
            assert_eq!(plan(&format!("{op} --micros 1")).is_ok(), is_slow, "{op}");
            assert_eq!(plan(&format!("{op} --code 1")).is_ok(), op == "abort", "{op}");
        }
    }

    #[test]
    fn a_request_that_is_always_the_same_is_made_once() {
        let same = |line| plan(line).unwrap().same.map(|same| same.len());
        assert_eq!(same("rpc --send 3 --recv 30"), Some(4 * 6 + 3));
        assert_eq!(same("send --bytes 64k"), Some(4 * 5 + 65_536));
        assert_eq!(same("send --bytes 65537"), None);
        assert_eq!(same("echo --bytes 3"), None);
    }

    #[actix_rt::test]
    async fn a_good_server_passes_every_check_whole_and_streaming() {
        tokio::time::pause();
        let connection = connect(perf(1 << 20)).await;
        for (op, ways) in [("send", 1), ("recv", 1), ("echo", 2), ("sum", 1), ("pattern", 1)] {
            for bytes in [0, 65_536, 65_537, 200_000] {
                let moved = call(&connection, &format!("{op} --bytes {bytes}")).await;
                assert_eq!(moved, Ok(ways * bytes), "{op}");
            }
        }
        assert_eq!(call(&connection, "rpc --send 100k --recv 1").await, Ok(102_401));
        assert_eq!(call(&connection, "abort --code -5").await, Ok(0));
        assert_eq!(call(&connection, "abort --recv 100k").await, Ok(0));
        assert_eq!(call(&connection, "slowread --bytes 10 --piece 1").await, Ok(10));
        assert_eq!(call(&connection, "slowwrite --bytes 10 --piece 1").await, Ok(10));
        for op in ["send", "recv", "sum", "pattern"] {
            let began = tokio::time::Instant::now();
            let line = format!("{op} --bytes 10k --chunk 1k --pace 20000");
            assert_eq!(call(&connection, &line).await, Ok(10_240), "{op}");
            assert!(began.elapsed() >= Duration::from_millis(195), "{op}: ten pauses of 20 ms");
        }
    }

    #[actix_rt::test]
    async fn a_wrong_reply_is_told_with_what_was_expected() {
        let replies: [(&str, &'static [u8], &str); 8] = [
            ("send", b"\0\0\x47\x12", "expected the magic word 0x4711, got 0x4712"),
            ("send", b"\0\0\x47", "expected 1 bytes more, got the reply's end"),
            ("send", b"\0\0\x47\x11\0", "expected the reply's end, got 1 bytes more"),
            ("recv --bytes 9", b"12345", "expected 4 bytes more, got the reply's end"),
            (
                "echo --bytes 3",
                &[7, 174, 0, 0, 0, 0x47, 0x11],
                "expected the pattern, got another byte at 2",
            ),
            ("sum --bytes 3", b"\0\0\0\x04", "expected the count 0x3, got 0x4"),
            ("sum --bytes 0", b"\0\0\0\0\0\0\0\x01", "expected the checksum 0x0, got 0x1"),
            ("abort", b"no", "expected an abort with code 4711, got a reply of 2 bytes"),
        ];
        for (line, reply, error) in replies {
            let lies = unary(async |_| Ok::<_, AbortCode>(Bytes::from_static(reply)));
            assert_eq!(call(&connect(lies).await, line).await, Err(error.to_owned()));
        }
    }

    #[actix_rt::test]
    async fn another_abort_than_asked_for_is_a_failure() {
        let refuses = unary(async |_| Err::<Bytes, _>(AbortCode(5)));
        let connection = connect(refuses).await;
        let error = call(&connection, "abort").await.unwrap_err();
        assert!(error.contains("code 4711, got the peer aborted the call with code 5"), "{error}");
        let error = call(&connection, "send").await.unwrap_err();
        assert!(error.contains("expected a reply, got none"), "{error}");
    }
}
