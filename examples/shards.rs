//! How do I use more than one core?
//!
//! A server of several shards has a thread and a socket for each, at one port. The kernel spreads clients over them
//! by their addresses, so a service that computes is worked at by all threads at once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rxrpc::{AbortCode, Endpoint, unary};

const SUMS: u16 = 1;
const CLIENTS: usize = 16;
const CALLS: usize = 100;

/// What a service may have to do for each call: some 50 µs of work.
fn sum(bytes: &[u8]) -> u64 {
    (0..30_000).fold(bytes.len() as u64, |sum, step| {
        black_box(sum.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step)
    })
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism()?.get().min(64);
    let mut counts = vec![1, cores];
    counts.dedup();
    for shards in counts {
        let service = unary(async |request| {
            Ok::<_, AbortCode>(sum(&request.bytes).to_be_bytes().to_vec().into())
        });
        let server = Endpoint::builder()
            .bind(([127, 0, 0, 1], 0))
            .shards(shards)
            .own_thread(true)
            .service(SUMS, service)
            .start()
            .await?;
        // Each has a port of its own. Those of one client would all come to one shard.
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;
            connections.push(client.connect(server.local_addr(), SUMS).await?);
        }
        let began = Instant::now();
        let calls = connections.iter().map(async |connection| {
            for _ in 0..CALLS {
                connection.call("numbers").await?;
            }
            Ok::<_, rxrpc::CallError>(())
        });
        for result in join_all(calls).await {
            result?;
        }
        let rate = (CLIENTS * CALLS) as f64 / began.elapsed().as_secs_f64();
        let snapshot = server.inspect().await.ok_or("the server ended")?;
        let by_shard: Vec<_> = snapshot.shards.iter().map(|shard| shard.server_calls).collect();
        println!("{shards} shards: {rate:.0} calls per second, {by_shard:?} on each");
        drop(connections);
        server.shutdown(Duration::from_secs(1)).await;
    }
    Ok(())
}
