//! How do I use it without actix, from many threads?
//!
//! As any other library: where no actix System runs, an endpoint brings a thread of its own, and its handles
//! work from everywhere.

use std::time::Duration;

use rxrpc::{Endpoint, unary};

const DOUBLE: u16 = 1;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let double = unary(async |request| Ok(request.bytes.repeat(2).into()));
    let server =
        Endpoint::builder().bind(([127, 0, 0, 1], 0)).service(DOUBLE, double).start().await?;
    let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;

    // One connection for all tasks: sixteen calls at once, the others wait their turn.
    let connection = client.connect(server.local_addr(), DOUBLE).await?;
    let tasks = (0..100).map(|number: u32| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let reply = connection.call(number.to_string()).await?;
            assert_eq!(reply, format!("{number}{number}"));
            Ok::<_, rxrpc::CallError>(reply.len())
        })
    });
    let mut bytes = 0;
    for task in tasks.collect::<Vec<_>>() {
        bytes += task.await??;
    }
    println!("100 replies, {bytes} bytes");

    let snapshot = client.inspect().await.ok_or("the endpoint is closed")?;
    println!("{} connections were needed", snapshot.connections.len());
    drop(connection);
    client.shutdown(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
