//! A client of one's own against a server that loses a packet of its reply, played packet by packet.
//!
//! `cargo run --example script_a_peer --features testkit`

use rxrpc::Endpoint;
use rxrpc::testkit::script::Peer;
use rxrpc::testkit::world::simulate;

fn main() {
    simulate(7, async |world| {
        let (here, there) = (([10, 0, 0, 1], 7001).into(), ([10, 0, 0, 2], 7000).into());
        let mut server = Peer::server(&world, there);
        let client = Endpoint::builder().network(world.network(here));
        let client = client.start().await.expect("it starts");
        let connection = client.connect(there, 147).await.expect("it connects");

        let script = server.play(
            r#"
            expect D n1 q1 svc147 [CL] "when?"
            send   D n1 q2 svc147 [L] "day"             // the second packet of the reply
            expect A n1 f1 a[0,1] =OUT_OF_SEQUENCE      // the client tells that the first is missing
            send   D n1 q1 svc147 "to"
            expect within 20 ms A n1 f3                 // and then that it has all
            "#,
        );
        let (reply, ()) = futures::join!(connection.call("when?"), script);
        assert_eq!(reply.expect("a reply"), "today");
        println!("{}", world.ladder(20));
        client.shutdown(std::time::Duration::ZERO).await;
    });
}
