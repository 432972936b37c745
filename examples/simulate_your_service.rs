//! A service and its client through loss and a parted network, in virtual time, by seed.
//!
//! `cargo run --example simulate_your_service --features testkit`

use std::time::Duration;

use rxrpc::testkit::world::{LinkOptions, Loss, seeds, simulate};
use rxrpc::{Endpoint, unary};

fn main() {
    for seed in seeds(0..20) {
        simulate(seed, async |world| {
            let (here, there) = (([10, 0, 0, 1], 7001).into(), ([10, 0, 0, 2], 7000).into());
            let loss = Loss::Bursts { turns_bad: 0.05, turns_good: 0.3, lost_while_bad: 0.9 };
            world.set_default_link(LinkOptions { loss, ..LinkOptions::default() });

            let service = unary(async |request| Ok(request.bytes.to_ascii_uppercase().into()));
            let server = Endpoint::builder().network(world.network(there)).service(147, service);
            let server = server.start().await.expect("it starts");
            let client = Endpoint::builder().network(world.network(here));
            let client = client.start().await.expect("it starts");
            let connection = client.connect(there, 147).await.expect("it connects");

            world.part(here, there);
            let joins = async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                world.join(here, there);
            };
            let (reply, ()) = futures::join!(connection.call("hello"), joins);
            // Sooner or later, or not at all: but never anything else.
            match reply {
                Ok(reply) => assert_eq!(reply, "HELLO"),
                Err(error) => println!("seed {seed}: {error}"),
            }
            println!("seed {seed}: over after {:?}", world.now());

            client.shutdown(Duration::from_secs(1)).await;
            server.shutdown(Duration::from_secs(1)).await;
        });
    }
}
