//! How do I answer an HTTP request with an Rx call?
//!
//! The endpoint runs beside the HTTP server in one actix System; the workers, each on a thread of its own,
//! share one connection.
//!
//! ```text
//! embed_actix_web                      asks itself once, and ends
//! embed_actix_web --listen ADDR:PORT   runs until it is stopped; GET /shout/WORD
//! ```

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, ResponseError, get, web};
use rxrpc::{CallError, CallFailure, CallOptions, Connection, Endpoint, unary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHOUT: u16 = 147;

/// What went wrong upstream, in HTTP's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Upstream(#[from] CallError);

impl ResponseError for Upstream {
    fn status_code(&self) -> StatusCode {
        match &self.0 {
            CallError::Failed(CallFailure::Deadline(_) | CallFailure::Dead(_)) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

#[get("/shout/{word}")]
async fn shout(
    word: web::Path<String>,
    connection: web::Data<Connection>,
) -> Result<HttpResponse, Upstream> {
    // If the browser goes away, actix-web drops this future, and that aborts the call.
    let options = CallOptions::within(Duration::from_secs(5));
    let reply = connection.call_with(word.into_inner(), options).await?;
    Ok(HttpResponse::Ok().content_type("text/plain").body(reply))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listen = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--listen", address] => Some(address),
        _ => return Err("usage: embed_actix_web [--listen ADDR:PORT]".into()),
    };

    // The service would be on another machine; here it is in this program.
    let answer = unary(async |request| match &request.bytes[..] {
        b"silence" => Err(rxrpc::AbortCode(4711)),
        word => Ok(word.to_ascii_uppercase().into()),
    });
    let rx = Endpoint::builder().bind(([127, 0, 0, 1], 0)).service(SHOUT, answer).start().await?;
    let connection = web::Data::new(rx.connect(rx.local_addr(), SHOUT).await?);

    let http = HttpServer::new(move || App::new().app_data(connection.clone()).service(shout))
        .workers(2)
        .bind(listen.unwrap_or("127.0.0.1:0"))?;
    let address = http.addrs()[0];
    println!("listening on {address}");
    let running = http.run();
    let handle = running.handle();
    let server = actix_web::rt::spawn(running);
    if listen.is_none() {
        println!("{}", ask(address, "/shout/hello").await?);
        println!("{}", ask(address, "/shout/silence").await?);
        handle.stop(true).await;
    }
    server.await??;
    // The HTTP server is gone, and nobody calls any more.
    rx.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// The smallest HTTP client there is.
async fn ask(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(format!("{path}: {status}: {body}"))
}
