//! How do I stop without cutting off calls?
//!
//! `shutdown(grace)` refuses new calls at once, lets those that run end for the grace, and cuts off the rest.
//! It always ends, and says how many it cut.

use std::time::{Duration, Instant};

use rxrpc::{AbortCode, Endpoint, unary};

const SLEEP: u16 = 1;

async fn server() -> Result<Endpoint, rxrpc::StartError> {
    // Sleeps for as many tenths of a second as it is asked to.
    let sleep = unary(async |request| {
        let tenths = *request.bytes.first().ok_or(AbortCode::PROTOCOL_ERROR)?;
        tokio::time::sleep(Duration::from_millis(100) * tenths.into()).await;
        Ok("well rested".into())
    });
    Endpoint::builder().bind(([127, 0, 0, 1], 0)).service(SLEEP, sleep).start().await
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;

    // Enough time: every call that has begun gets its reply.
    let gentle = server().await?;
    let connection = client.connect(gentle.local_addr(), SLEEP).await?;
    let calls = (1..=4u8).map(|tenths| {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call(vec![tenths]).await })
    });
    let calls: Vec<_> = calls.collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let report = gentle.shutdown(Duration::from_secs(10)).await;
    let (cut, good, took) = (report.calls_cut, report.counters.calls_good, began.elapsed());
    println!("with grace: {cut} calls cut off, {good} good, after {:.1} s", took.as_secs_f32());
    assert_eq!((cut, good), (0, 4));
    for call in calls {
        assert_eq!(call.await??, "well rested");
    }
    println!("closed: {}", gentle.closed().await);

    // Too little: the call fails at the client, with a code.
    let hasty = server().await?;
    let connection = client.connect(hasty.local_addr(), SLEEP).await?;
    let call = tokio::spawn(async move { connection.call(vec![100]).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let report = hasty.shutdown(Duration::from_millis(200)).await;
    let (cut, good) = (report.calls_cut, report.counters.calls_good);
    println!("in haste: {cut} calls cut off, {good} good");
    assert_eq!((cut, good), (1, 0));
    println!("client: {}", call.await?.unwrap_err());
    Ok(())
}
