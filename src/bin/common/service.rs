//! Service 147, the operations of rxperf and ours (`interop/openafs/README.md`), and service 1, echo.
//!
//! Transfers of any size need no memory, but for `echo` and service 1: an Rx reply begins when the request
//! is complete, so that what is sent back has to be held until then. It is held in the pieces in which it
//! came, up to a limit.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rxrpc::{AbortCode, IncomingCall, ReplyWriter, Service, ServiceFault, StreamError};

use super::body::{MAGIC, PIECE_BYTES, Pattern, WORD, zeros, zeros_and_magic};
use super::pieces::{Pace, Pieces, ReadError};

/// The service that echoes.
pub const ECHO_SERVICE: u16 = 1;
/// The service of rxperf.
pub const PERF_SERVICE: u16 = 147;
/// The first word of a request.
pub const PERF_VERSION: u32 = 3;
/// The largest hint for the size of a read or write.
pub const HINT_MAX: u32 = 524_288;

/// What rxperf answers to a version or a size that it does not take.
const REFUSED: AbortCode = AbortCode(-1);
/// RXGEN_SS_UNMARSHAL: the request ended early.
const UNMARSHAL: AbortCode = AbortCode(-453);
/// RXGEN_OPCODE: no such operation.
const OPCODE: AbortCode = AbortCode(-455);

/// Operations of service 147 by their numbers on the wire.
pub mod op {
    pub const SEND: u32 = 0;
    pub const RECV: u32 = 1;
    pub const RPC: u32 = 3;
    pub const ECHO: u32 = 256;
    pub const ABORT: u32 = 257;
    pub const SLOW_READ: u32 = 258;
    pub const SLOW_WRITE: u32 = 259;
    pub const SUM: u32 = 260;
    pub const PATTERN: u32 = 261;
}

/// Sends back what came: requests of up to `request_max` bytes, larger ones are refused.
pub fn echo(request_max: u64) -> impl Service {
    move |call| send_back(call, request_max)
}

/// Service 147; its `echo` holds up to `request_max` bytes.
pub fn perf(request_max: u64) -> impl Service {
    move |call| answer(call, request_max)
}

impl From<ReadError> for ServiceFault {
    fn from(error: ReadError) -> ServiceFault {
        match error {
            ReadError::Short(_) => UNMARSHAL.into(),
            ReadError::Failed(failed) => failed.into(),
        }
    }
}

async fn send_back(mut call: IncomingCall, request_max: u64) -> Result<(), ServiceFault> {
    let mut pieces = Pieces::new(&mut call);
    let mut held = Held::new(request_max);
    while let Some(piece) = pieces.next(u64::MAX).await? {
        held.push(piece)?;
    }
    held.reply(call, None).await
}

async fn answer(mut call: IncomingCall, request_max: u64) -> Result<(), ServiceFault> {
    let mut request = Pieces::new(&mut call);
    let version = request.word().await?;
    let operation = request.word().await?;
    let (read_hint, write_hint) = (request.word().await?, request.word().await?);
    if version != PERF_VERSION || read_hint > HINT_MAX || write_hint > HINT_MAX {
        return Err(REFUSED.into());
    }
    match operation {
        op::SEND => {
            let count = request.word().await?;
            request.run(count.into(), drop).await?;
            call.reply(zeros_and_magic(0));
        }
        op::RECV => {
            let count = request.word().await?;
            reply_zeros(call, count).await?;
        }
        op::RPC => {
            let (count, reply) = (request.word().await?, request.word().await?);
            request.run(count.into(), drop).await?;
            reply_zeros(call, reply).await?;
        }
        op::ECHO => {
            let count = request.word().await?;
            let mut held = Held::new(request_max);
            held.room_for(count)?;
            request.run(count.into(), |piece| held.pieces.push(piece)).await?;
            held.reply(call, Some(zeros_and_magic(0))).await?;
        }
        op::ABORT => {
            let code = request.word().await?;
            let (count, reply) = (request.word().await?, request.word().await?);
            request.run(count.into(), drop).await?;
            if reply > 0 {
                let mut writer = call.into_reply();
                write_zeros(&mut writer, reply.into()).await?;
                writer.flush_now()?;
                writer.abort(AbortCode(code as i32));
            } else {
                call.abort(AbortCode(code as i32));
            }
        }
        op::SLOW_READ => {
            let count = request.word().await?;
            let (piece, mut pace) = slowness(&mut request).await?;
            let mut left = u64::from(count);
            while left > 0 {
                let now = left.min(piece);
                request.run(now, drop).await?;
                left -= now;
                pace.pause().await;
            }
            call.reply(zeros_and_magic(0));
        }
        op::SLOW_WRITE => {
            let count = request.word().await?;
            let (piece, mut pace) = slowness(&mut request).await?;
            let mut writer = call.into_reply();
            let mut left = u64::from(count);
            while left > 0 {
                let now = left.min(piece);
                write_zeros(&mut writer, now).await?;
                writer.flush_now()?;
                left -= now;
                pace.pause().await;
            }
            finish(writer, zeros_and_magic(0)).await?;
        }
        op::SUM => {
            let count = request.word().await?;
            let mut crc = crc32fast::Hasher::new();
            request.run(count.into(), |piece| crc.update(&piece)).await?;
            call.reply(words([count, crc.finalize(), MAGIC]));
        }
        op::PATTERN => {
            let (count, seed) = (request.word().await?, request.word().await?);
            let mut writer = call.into_reply();
            let mut pattern = Pattern::new(seed);
            let mut crc = crc32fast::Hasher::new();
            let mut left = count as usize;
            while left > 0 {
                let piece = pattern.piece(left.min(PIECE_BYTES));
                left -= piece.len();
                crc.update(&piece);
                writer.write(piece).await?;
            }
            finish(writer, words([crc.finalize(), MAGIC])).await?;
        }
        _ => return Err(OPCODE.into()),
    }
    Ok(())
}

/// The bytes of 32-bit words.
pub fn words<const N: usize>(words: [u32; N]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(N * WORD);
    words.iter().for_each(|word| bytes.put_u32(*word));
    bytes.freeze()
}

/// Piece and pause of the slow operations; a piece is 1 to [`HINT_MAX`] bytes.
async fn slowness(request: &mut Pieces<&mut IncomingCall>) -> Result<(u64, Pace), ReadError> {
    let (piece, micros) = (request.word().await?, request.word().await?);
    let pace = Pace::new(Duration::from_micros(micros.into()));
    Ok((u64::from(piece.clamp(1, HINT_MAX)), pace))
}

/// A reply of so many zeros and the magic word.
async fn reply_zeros(call: IncomingCall, count: u32) -> Result<(), StreamError> {
    let count = count as usize;
    if count <= PIECE_BYTES {
        call.reply(zeros_and_magic(count));
        return Ok(());
    }
    let mut writer = call.into_reply();
    let rest = count % PIECE_BYTES;
    write_zeros(&mut writer, (count - rest) as u64).await?;
    finish(writer, zeros_and_magic(rest)).await
}

async fn write_zeros(writer: &mut ReplyWriter, count: u64) -> Result<(), StreamError> {
    let mut left = count;
    while left > 0 {
        let piece = zeros(left.min(PIECE_BYTES as u64) as usize);
        left -= piece.len() as u64;
        writer.write(piece).await?;
    }
    Ok(())
}

async fn finish(mut writer: ReplyWriter, last: Bytes) -> Result<(), StreamError> {
    writer.write(last).await?;
    writer.finish()
}

/// A request that waits to be sent back.
struct Held {
    pieces: Vec<Bytes>,
    bytes: u64,
    most: u64,
}

impl Held {
    fn new(most: u64) -> Held {
        Held { pieces: Vec::new(), bytes: 0, most }
    }

    fn room_for(&self, bytes: u32) -> Result<(), ServiceFault> {
        if self.bytes + u64::from(bytes) > self.most {
            return Err(AbortCode::PROTOCOL_ERROR.into());
        }
        Ok(())
    }

    fn push(&mut self, piece: Bytes) -> Result<(), ServiceFault> {
        self.room_for(piece.len() as u32)?;
        self.bytes += piece.len() as u64;
        self.pieces.push(piece);
        Ok(())
    }

    /// Each piece is let go when it is sent.
    async fn reply(mut self, call: IncomingCall, last: Option<Bytes>) -> Result<(), ServiceFault> {
        self.pieces.extend(last);
        if self.pieces.len() == 1
            && let Some(only) = self.pieces.pop()
        {
            call.reply(only);
            return Ok(());
        }
        let mut writer = call.into_reply();
        for piece in self.pieces {
            writer.write(piece).await?;
        }
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rxrpc::net::MemoryHub;
    use rxrpc::{CallError, CallFailure, CallOptions, Connection, Endpoint};
    use tokio::time::Instant;

    use super::*;

    /// A client of both services, in memory and virtual time. Echoes 1000 bytes at most.
    async fn client(service: u16) -> Connection {
        tokio::time::pause();
        let hub = MemoryHub::new();
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let network = |port| hub.bind_source(at(port)).unwrap().1;
        let server = Endpoint::builder()
            .network(network(7009))
            .service(ECHO_SERVICE, echo(1000))
            .service(PERF_SERVICE, perf(1000));
        let server = server.start().await.unwrap();
        let client = Endpoint::builder().network(network(7001)).start().await.unwrap();
        // The server ends with the client's connection.
        let connection = client.connect(at(7009), service).await.unwrap();
        actix_rt::spawn(async move { server.closed().await });
        connection
    }

    /// A request: the header, more words, content.
    fn request<const N: usize>(operation: u32, more: [u32; N], content: &[u8]) -> Bytes {
        let head = words([PERF_VERSION, operation, 65_536, 65_536]);
        [&head[..], &words(more), content].concat().into()
    }

    fn code(result: Result<Bytes, CallError>) -> i32 {
        match result.unwrap_err() {
            CallError::Failed(CallFailure::PeerAborted(code)) => code.0,
            other => panic!("{other}"),
        }
    }

    const MAGIC_BYTES: [u8; 4] = [0, 0, 0x47, 0x11];

    #[actix_rt::test]
    async fn replies_are_those_of_the_readme() {
        let perf = client(PERF_SERVICE).await;
        let call = async |request: Bytes| perf.call(request).await.unwrap();
        let content = b"123456789";
        assert_eq!(call(request(0, [9], content)).await, MAGIC_BYTES[..]);
        assert_eq!(call(request(1, [2], b"")).await, [0, 0, 0, 0, 0x47, 0x11][..]);
        assert_eq!(call(request(3, [9, 1], content)).await, [0, 0, 0, 0x47, 0x11][..]);
        let echoed = call(request(256, [9], content)).await;
        assert_eq!(echoed, [&content[..], &MAGIC_BYTES].concat());
        assert_eq!(call(request(258, [9, 4, 1], content)).await, MAGIC_BYTES[..]);
        let written = call(request(259, [9, 4, 1], b"")).await;
        assert_eq!(written, [&[0; 9][..], &MAGIC_BYTES].concat());
        // The check value of CRC-32.
        let sum = call(request(260, [9], content)).await;
        assert_eq!(sum, words([9, 0xcbf4_3926, MAGIC]));
        let pattern = call(request(261, [300, 5], b"")).await;
        assert_eq!((pattern[0], pattern[1], pattern[256]), (5, 172, 64));
        assert_eq!(pattern[300..304], crc32fast::hash(&pattern[..300]).to_be_bytes());
        assert_eq!(pattern[304..], MAGIC_BYTES);
    }

    #[actix_rt::test]
    async fn replies_of_many_pieces_have_their_exact_length() {
        let perf = client(PERF_SERVICE).await;
        for count in [65_535, 65_536, 65_537, 131_072, 1_000_000] {
            let reply = perf.call(request(op::RECV, [count], b"")).await.unwrap();
            assert_eq!(reply.len(), count as usize + 4);
            let reply = perf.call(request(op::PATTERN, [count, 1], b"")).await.unwrap();
            assert_eq!(reply.len(), count as usize + 8);
            assert_eq!(Pattern::new(1).check(&reply[..count as usize]), Ok(()));
        }
    }

    #[actix_rt::test]
    async fn what_is_not_understood_is_aborted_with_rxperfs_codes() {
        let perf = client(PERF_SERVICE).await;
        let call = async |bytes: Bytes| code(perf.call(bytes).await);
        assert_eq!(call(request(2, [0], b"")).await, -455);
        assert_eq!(call(words([4, 0, 0, 0, 0])).await, -1);
        assert_eq!(call(words([3, 0, 524_289, 0, 0])).await, -1);
        assert_eq!(call(words([3, 0, 0, 524_289, 0])).await, -1);
        assert_eq!(call(Bytes::new()).await, -453);
        assert_eq!(call(words([3, 0, 0])).await, -453);
        assert_eq!(call(request(0, [10], b"123456789")).await, -453);
        // At the limits, and with more than was announced.
        let good = async |bytes: Bytes| perf.call(bytes).await.unwrap();
        assert_eq!(good(words([3, 0, 524_288, 524_288, 0])).await, MAGIC_BYTES[..]);
        assert_eq!(good(request(0, [8], b"123456789")).await, MAGIC_BYTES[..]);
    }

    #[actix_rt::test]
    async fn an_abort_carries_the_code_that_was_asked_for() {
        let perf = client(PERF_SERVICE).await;
        for (asked, reply) in [(4711, 0), (-17, 0), (4713, 50_000)] {
            let request = request(op::ABORT, [asked as u32, 3, reply], b"abc");
            assert_eq!(code(perf.call(request).await), asked);
        }
    }

    #[actix_rt::test]
    async fn slow_operations_take_their_time() {
        let perf = client(PERF_SERVICE).await;
        let began = Instant::now();
        perf.call(request(op::SLOW_READ, [10, 3, 50_000], &[0; 10])).await.unwrap();
        assert_eq!(began.elapsed().as_millis() / 10, 20);
        let began = Instant::now();
        perf.call(request(op::SLOW_WRITE, [1000, 1, 100], b"")).await.unwrap();
        assert_eq!(began.elapsed().as_millis() / 10, 10);
    }

    #[actix_rt::test]
    async fn only_what_is_echoed_is_limited() {
        let perf = client(PERF_SERVICE).await;
        let body = Bytes::from_static(&[7; 1001]);
        let whole = perf.call(request(op::ECHO, [1000], &body[..1000])).await.unwrap();
        assert_eq!(whole.len(), 1004);
        // RX_PROTOCOL_ERROR.
        assert_eq!(code(perf.call(request(op::ECHO, [1001], &body)).await), -5);
        assert!(perf.call(request(op::SUM, [1001], &body)).await.is_ok());
    }

    #[actix_rt::test]
    async fn service_1_sends_back_what_it_gets_up_to_its_limit() {
        let body = Bytes::from_static(&[7; 1001]);
        let echo = client(ECHO_SERVICE).await;
        assert_eq!(echo.call(body.slice(..1000)).await.unwrap(), body[..1000]);
        assert_eq!(echo.call(Bytes::new()).await.unwrap(), Bytes::new());
        assert_eq!(code(echo.call(body).await), -5);
    }

    #[actix_rt::test]
    async fn a_reply_of_gigabytes_is_made_as_it_is_read() {
        let perf = client(PERF_SERVICE).await;
        let mut writer = perf.open_call(CallOptions::default()).await.unwrap();
        writer.write(request(op::PATTERN, [0x7fff_ffff, 9], b"")).await.unwrap();
        let mut reply = Pieces::new(writer.finish().unwrap());
        let mut pattern = Pattern::new(9);
        reply.run(1 << 20, |piece| assert_eq!(pattern.check(&piece), Ok(()))).await.unwrap();
    }
}
