//! The same through the actors: what they hold is told, added up, and windows follow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::net::MemoryHub;
use rxrpc::{Endpoint, IncomingCall, StreamError};
use tokio::sync::Notify;

use crate::support::{SERVER, address};

const LAG: usize = 64 << 10;

#[actix_rt::test]
async fn calls_of_a_connection_beyond_its_bytes_are_slow_and_not_dead() {
    tokio::time::pause();
    let max = 64 << 10;
    let hub = MemoryHub::new();
    let (at, source) = hub.bind_source(SERVER.into()).unwrap();
    let open = Arc::new(Notify::new());
    let gate = open.clone();
    let hoard = move |mut call: IncomingCall| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            let bytes = call.read_all(1 << 20).await?;
            call.reply(bytes);
            Ok::<_, StreamError>(())
        }
    };
    let echo = async |mut call: IncomingCall| {
        let bytes = call.read_all(1 << 20).await?;
        call.reply(bytes);
        Ok::<_, StreamError>(())
    };
    let server = Endpoint::builder()
        .network(source)
        .configure(|config| config.buffered_max_bytes = max)
        .service(1, hoard)
        .service(2, echo)
        .start()
        .await
        .unwrap();
    let (_, source) = hub.bind_source(address(7001)).unwrap();
    let client = Endpoint::builder().network(source).start().await.unwrap();
    let hoarder = client.connect(at, 1).await.unwrap();
    let hoards = (0..3).map(|_| {
        let connection = hoarder.clone();
        actix_rt::spawn(async move { connection.call(Bytes::from(vec![7; 400 << 10])).await })
    });
    let hoards: Vec<_> = hoards.collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let snapshot = server.inspect().await.unwrap();
    assert_eq!(snapshot.counters.memory_limits, 1);
    let channels = snapshot.connections.iter().flat_map(|connection| &connection.channels);
    let held: usize = channels.map(|channel| channel.buffered_bytes).sum();
    assert!(held > max && held <= 2 * max + 4 * LAG, "{held}");
    // Another connection, another service: slower, but served.
    let honest = client.connect(at, 2).await.unwrap();
    let request = Bytes::from(vec![1; 100 << 10]);
    assert_eq!(honest.call(request.clone()).await.unwrap(), request);
    open.notify_waiters();
    for hoard in hoards {
        assert_eq!(hoard.await.unwrap().unwrap().len(), 400 << 10);
    }
    // And as fast as ever.
    let began = tokio::time::Instant::now();
    assert_eq!(honest.call(request.clone()).await.unwrap(), request);
    assert!(began.elapsed() < Duration::from_millis(100));
    let snapshot = server.inspect().await.unwrap();
    assert_eq!(snapshot.counters.calls_failed, 0);
    client.shutdown(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
}
