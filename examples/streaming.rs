//! How do I send and receive more than fits into memory?
//!
//! A request is written in pieces, then the reply is read in pieces. Windows hold back whoever is faster, so
//! neither side ever holds more than a few hundred packets. In an Rx call the reply follows the request:
//! `finish` turns from writing to reading.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rxrpc::{CallOptions, Endpoint, IncomingCall, StreamError};
// Tokio's traits work too, and those of `futures`.
use tokio::io::AsyncReadExt;

const COUNT: u16 = 1;
const ZEROS: u16 = 2;

const MEGABYTE: usize = 1 << 20;

/// Reads a request of any size, and says how many bytes that were.
async fn count(mut call: IncomingCall) -> Result<(), StreamError> {
    let mut total = 0;
    // Each piece is a slice of what the socket received: nothing is copied.
    while let Some(piece) = call.next().await {
        total += piece?.len() as u64;
    }
    call.reply(total.to_be_bytes().to_vec());
    Ok(())
}

/// Reads a number, and answers with as many zeros.
async fn zeros(mut call: IncomingCall) -> std::io::Result<()> {
    let mut left = call.read_u64().await? as usize;
    let piece = Bytes::from(vec![0; MEGABYTE]);
    let mut reply = call.into_reply();
    while left > 0 {
        let count = left.min(piece.len());
        // Waits while the client is slower than we are.
        reply.write(piece.slice(..count)).await?;
        left -= count;
    }
    // Waits until the client has it all; `finish` would not.
    let arrived = reply.finish_acknowledged().await?;
    println!("server: the client {} all", if arrived { "has" } else { "may not have" });
    Ok(())
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Endpoint::builder()
        .bind(([127, 0, 0, 1], 0))
        .service(COUNT, count)
        .service(ZEROS, zeros)
        .start()
        .await?;
    let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;

    let connection = client.connect(server.local_addr(), COUNT).await?;
    let mut request = connection.open_call(CallOptions::default()).await?;
    for _ in 0..32 {
        request.write(vec![b'x'; MEGABYTE]).await?;
    }
    let mut reply = request.finish()?;
    let counted = reply.read_u64().await?;
    println!("client: the server counted {counted} bytes");
    assert_eq!(counted, 32 << 20);

    let connection = client.connect(server.local_addr(), ZEROS).await?;
    let mut request = connection.open_call(CallOptions::default()).await?;
    request.write((32u64 << 20).to_be_bytes().to_vec()).await?;
    let mut reply = request.finish()?;
    let mut total = 0;
    while let Some(piece) = reply.next().await {
        total += piece?.len();
    }
    println!("client: {total} zeros came");
    assert_eq!(total, 32 << 20);

    // The client's last word is an ACK: with a shutdown it is said now, and not after a timeout.
    client.shutdown(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
