//! How does an actor of mine answer calls?
//!
//! A `Recipient<IncomingCall>` is a service: each call comes to the actor as a message, so the actor's state
//! needs no lock, whichever thread it lives on.

use actix::prelude::*;
use rxrpc::{AbortCode, Endpoint, IncomingCall};

const COUNTER: u16 = 1;
const REQUEST_BYTES_MAX: usize = 1024;

/// Adds up what it is sent.
struct Counter {
    total: u64,
}

impl Actor for Counter {
    type Context = Context<Counter>;
}

impl Handler<IncomingCall> for Counter {
    type Result = ();

    fn handle(&mut self, mut call: IncomingCall, context: &mut Context<Counter>) {
        // The request may come in pieces: read it beside other calls, then come back to the actor.
        let read = async move { (call.read_all(REQUEST_BYTES_MAX).await, call) };
        let answer = read.into_actor(self).map(|(request, call), counter, _| {
            let Ok(request) = request else { return };
            match std::str::from_utf8(&request).ok().and_then(|text| text.parse::<u64>().ok()) {
                Some(number) => {
                    counter.total += number;
                    call.reply(counter.total.to_string());
                }
                None => call.abort(AbortCode::RXGEN_SS_UNMARSHAL),
            }
        });
        context.spawn(answer);
    }
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // On another arbiter than the endpoint, to show that it may be.
    let counter = Counter::start_in_arbiter(&Arbiter::new().handle(), |_| Counter { total: 0 });
    let server = Endpoint::builder()
        .bind(([127, 0, 0, 1], 0))
        .service(COUNTER, counter.recipient())
        .start()
        .await?;

    let client = Endpoint::builder().bind(([127, 0, 0, 1], 0)).start().await?;
    let connection = client.connect(server.local_addr(), COUNTER).await?;
    for number in ["1", "20", "300"] {
        let total = connection.call(number).await?;
        println!("{number} makes {}", String::from_utf8_lossy(&total));
    }
    assert_eq!(connection.call("4000").await?, "4321");
    let error = connection.call("many").await.unwrap_err();
    println!("many: {error}");
    assert_eq!(error.abort_code(), Some(AbortCode::RXGEN_SS_UNMARSHAL));
    Ok(())
}
