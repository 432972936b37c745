//! How long does a call take at most, and how do I give up?
//!
//! A call has a deadline of its own; dropping what you hold of it aborts it. Either way the server is told by
//! an ABORT, and a service that looks (`failed`) can stop its work.

use std::time::Duration;

use rxrpc::{CallError, CallFailure, CallOptions, Endpoint, IncomingCall, StreamError};
use tokio::sync::mpsc;

const SLOW: u16 = 1;

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (told, mut given_up) = mpsc::unbounded_channel();
    // Works for ten seconds, or until nobody wants the answer any more.
    let slow = move |mut call: IncomingCall| {
        let told = told.clone();
        async move {
            call.read_all(1024).await?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(10)) => call.reply("at last"),
                failure = call.failed() => {
                    let _ = told.send(failure);
                }
            }
            Ok::<_, StreamError>(())
        }
    };
    let server = Endpoint::builder().bind(([127, 0, 0, 1], 0)).service(SLOW, slow).start().await?;
    let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;
    let connection = client.connect(server.local_addr(), SLOW).await?;

    // A deadline for the whole call, waiting for a free channel included.
    let limit = Duration::from_millis(200);
    let error = connection.call_with("please", CallOptions::within(limit)).await.unwrap_err();
    println!("client: {error}");
    assert!(matches!(error, CallError::Failed(CallFailure::Deadline(_))));
    println!("server: {}", given_up.recv().await.ok_or("the service is gone")?);

    // Whatever drops the future of a call gives it up: a select, a timeout, an aborted task.
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call("please").await }
    });
    tokio::time::sleep(limit).await;
    call.abort();
    println!("server: {}", given_up.recv().await.ok_or("the service is gone")?);

    // The same for a streamed call; `abort` chooses the code that the server sees.
    let request = connection.open_call(CallOptions::default()).await?;
    let reply = request.finish()?;
    tokio::time::sleep(limit).await;
    reply.abort(rxrpc::AbortCode(42));
    println!("server: {}", given_up.recv().await.ok_or("the service is gone")?);
    Ok(())
}
