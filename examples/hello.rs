//! What is the least that a server and a client need?
//!
//! A service is a number and an async function. Whatever has an endpoint can offer services and call those
//! of others; here both are in one program.

use rxrpc::{Endpoint, unary};

const GREETER: u16 = 147;

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let greet = unary(async |request| {
        let name = String::from_utf8_lossy(&request.bytes);
        Ok(format!("hello {name}, you call from {}", request.info.peer).into())
    });
    let server =
        Endpoint::builder().bind(([127, 0, 0, 1], 0)).service(GREETER, greet).start().await?;

    let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;
    let connection = client.connect(server.local_addr(), GREETER).await?;
    let reply = connection.call("world").await?;
    println!("{}", String::from_utf8_lossy(&reply));

    // Not needed at a program's end, but it says good-bye to the peer.
    client.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}
