//! Tokio TCP: a connection for each bulk transfer, one for calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::{Caller, attend, attend_loads};
use crate::spec::{CALL_BYTES, End, Net, Way};

const PIECE_BYTES: usize = 64 << 10;
const CALLS: u8 = 0;

pub async fn server() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    attend(port, async || None).await
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; PIECE_BYTES];
    match stream.read_u8().await? {
        CALLS => loop {
            stream.read_exact(&mut buffer[..CALL_BYTES]).await?;
            stream.write_all(&buffer[..CALL_BYTES]).await?;
        },
        way => {
            let mut left = stream.read_u64().await?;
            while left > 0 {
                let most = left.min(PIECE_BYTES as u64) as usize;
                if way == Way::Recv as u8 + 1 {
                    stream.write_all(&buffer[..most]).await?;
                    left -= most as u64;
                } else {
                    left -= stream.read(&mut buffer[..most]).await? as u64;
                }
            }
            stream.write_u8(1).await?;
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Client {
    port: u16,
    calls: Arc<Mutex<Option<TcpStream>>>,
}

impl Client {
    async fn begin(&self, way: Way, bytes: u64) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        stream.write_u8(way as u8 + 1).await?;
        stream.write_u64(bytes).await?;
        Ok(stream)
    }
}

pub async fn client(end: End) -> Result<()> {
    let port = end.client.as_ref().map_or(0, |client| client.port);
    let caller = Client { port, calls: Arc::default() };
    attend_loads(&end, caller, async |_, _| anyhow::bail!("TCP has no such load")).await
}

impl Caller for Client {
    async fn call(&self, request: Bytes) -> Result<usize> {
        let mut held = self.calls.lock().await;
        if held.is_none() {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.set_nodelay(true)?;
            stream.write_u8(CALLS).await?;
            *held = Some(stream);
        }
        let stream = held.as_mut().expect("just made");
        stream.write_all(&request).await?;
        let mut reply = [0; CALL_BYTES];
        Ok(stream.read_exact(&mut reply).await?)
    }

    async fn recv(&self, bytes: u64, within: Option<Duration>) -> Result<u64> {
        let mut stream = self.begin(Way::Recv, bytes).await?;
        let mut buffer = vec![0; PIECE_BYTES];
        let (began, mut came) = (Instant::now(), 0);
        while came < bytes && within.is_none_or(|within| began.elapsed() < within) {
            let most = (bytes - came).min(PIECE_BYTES as u64) as usize;
            came += stream.read(&mut buffer[..most]).await? as u64;
        }
        Ok(came)
    }

    async fn send(&self, bytes: u64) -> Result<()> {
        let mut stream = self.begin(Way::Send, bytes).await?;
        let (buffer, mut left) = (vec![0; PIECE_BYTES], bytes);
        while left > 0 {
            let most = left.min(PIECE_BYTES as u64) as usize;
            stream.write_all(&buffer[..most]).await?;
            left -= most as u64;
        }
        stream.read_u8().await?;
        Ok(())
    }

    async fn net(&self) -> Option<Net> {
        None
    }
}
