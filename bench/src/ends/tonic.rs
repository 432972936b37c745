//! tonic without TLS: one HTTP/2 connection, raw bytes in place of protobuf (which is to its advantage), large
//! windows.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt};
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{NamedService, ServerStreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower_service::Service;

use super::{Caller, attend, attend_loads};
use crate::spec::{End, Net};

const PIECE_BYTES: usize = 64 << 10;
const WINDOW_BYTES: u32 = 4 << 20;
const ECHO: &str = "/bench.Bench/Echo";
const RECV: &str = "/bench.Bench/Recv";
const SEND: &str = "/bench.Bench/Send";

/// Messages are bytes.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let count = from.remaining();
        Ok(Some(from.copy_to_bytes(count)))
    }
}

#[derive(Clone)]
struct Bench;

impl NamedService for Bench {
    const NAME: &'static str = "bench.Bench";
}

impl UnaryService<Bytes> for Bench {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

impl ServerStreamingService<Bytes> for Bench {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let bytes = request.into_inner().get_u64();
        std::future::ready(Ok(Response::new(pieces(bytes).map(Ok).boxed())))
    }
}

struct Sink;

impl tonic::server::ClientStreamingService<Bytes> for Sink {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<tonic::Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let mut stream = request.into_inner();
            while stream.message().await?.is_some() {}
            Ok(Response::new(Bytes::from_static(&[1])))
        })
    }
}

fn pieces(bytes: u64) -> impl futures::Stream<Item = Bytes> + Send {
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let mut left = bytes;
    futures::stream::iter(std::iter::from_fn(move || {
        let most = left.min(PIECE_BYTES as u64) as usize;
        left -= most as u64;
        (most > 0).then(|| piece.slice(..most))
    }))
}

impl Service<http::Request<Body>> for Bench {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut grpc = tonic::server::Grpc::new(Plain);
        Box::pin(async move {
            Ok(match request.uri().path() {
                ECHO => grpc.unary(Bench, request).await,
                RECV => grpc.server_streaming(Bench, request).await,
                SEND => grpc.client_streaming(Sink, request).await,
                _ => Status::unimplemented("no such call").into_http(),
            })
        })
    }
}

pub async fn server() -> Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(Bench)
        .serve_with_incoming(incoming);
    tokio::spawn(server.inspect_err(|error| eprintln!("tonic: {error}")));
    attend(port, async || None).await
}

#[derive(Clone)]
struct Client(Channel);

impl Client {
    async fn grpc(&self) -> Result<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await?;
        Ok(grpc)
    }
}

pub async fn client(end: End) -> Result<()> {
    let port = end.client.as_ref().map_or(0, |client| client.port);
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true)
        .connect()
        .await?;
    attend_loads(&end, Client(channel), async |_, _| anyhow::bail!("tonic has no such load")).await
}

impl Caller for Client {
    async fn call(&self, request: Bytes) -> Result<usize> {
        let path = PathAndQuery::from_static(ECHO);
        let reply = self.grpc().await?.unary(Request::new(request), path, Plain).await?;
        Ok(reply.into_inner().len())
    }

    async fn recv(&self, bytes: u64, within: Option<Duration>) -> Result<u64> {
        let request = Request::new(Bytes::copy_from_slice(&bytes.to_be_bytes()));
        let path = PathAndQuery::from_static(RECV);
        let reply = self.grpc().await?.server_streaming(request, path, Plain).await?;
        let (began, mut came) = (Instant::now(), 0);
        let mut stream = reply.into_inner();
        while within.is_none_or(|within| began.elapsed() < within)
            && let Some(piece) = stream.message().await?
        {
            came += piece.len() as u64;
        }
        Ok(came)
    }

    async fn send(&self, bytes: u64) -> Result<()> {
        let path = PathAndQuery::from_static(SEND);
        let mut grpc = self.grpc().await?;
        grpc.client_streaming(Request::new(pieces(bytes)), path, Plain).await?;
        Ok(())
    }

    async fn net(&self) -> Option<Net> {
        None
    }
}
