//! DATA packets above the usual size through the whole library: actors, sockets, loopback, at every level of rxkad.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rxrpc::security::rxkad::keys::{KeyArgument, ServerKeys, TicketForm};
use rxrpc::security::rxkad::ticket::Print;
use rxrpc::security::rxkad::{Level, Principal, SessionKey};
use rxrpc::security::{rxkad_client, rxkad_server};
use rxrpc::{ConnectOptions, Connection, Endpoint, EndpointBuilder, ServiceOptions, unary};

const KEY: &str = "18:1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const BYTES: usize = 4_000_000;
const REQUEST_MAX: usize = 16 << 20;

fn pattern(len: usize) -> Bytes {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}

fn builder(datagram_max: u32) -> EndpointBuilder {
    Endpoint::builder().bind(([127, 0, 0, 1], 0)).configure(move |config| {
        for side in [&mut config.client, &mut config.server] {
            side.call.datagram_max_bytes = datagram_max;
        }
    })
}

/// What the datagrams of three long calls are on the average, each way.
async fn average_sizes(client: &Endpoint, server: &Endpoint, connection: &Connection) -> [u64; 2] {
    let request = pattern(BYTES);
    for _ in 0..3 {
        let reply = connection.call(request.clone()).await.expect("a reply");
        assert!(reply == request, "what came back is what was sent");
    }
    let mut sizes = [0; 2];
    for (size, end) in sizes.iter_mut().zip([client, server]) {
        let counters = end.inspect().await.expect("an endpoint").counters;
        let [_, data, ..] = counters.sent_by_type;
        *size = counters.bytes_sent / data;
    }
    sizes
}

#[actix_rt::test]
async fn loopback_takes_what_is_configured_both_ways() {
    for (datagram_max, least, most) in
        [(1440, 1300, 1500), (8124, 5000, 8300), (65_000, 12_000, 66_000)]
    {
        let echo = unary(async |request| Ok(request.bytes)).request_max_bytes(REQUEST_MAX);
        let server = builder(datagram_max).service(1, echo).start().await.expect("a server");
        let client = builder(datagram_max).start().await.expect("a client");
        let connection = client.connect(server.local_addr(), 1).await.expect("a connection");
        let sizes = average_sizes(&client, &server, &connection).await;
        assert!(sizes.iter().all(|size| (least..most).contains(size)), "{datagram_max}: {sizes:?}");
        client.shutdown(Duration::from_secs(1)).await;
        server.shutdown(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn sealed_packets_are_as_large_at_every_level() {
    let key = || KEY.parse::<KeyArgument>().expect("a key");
    let classes = vec![rxkad_server(ServerKeys::from(key()), Level::Clear)];
    let options = ServiceOptions { security_classes: classes, ..ServiceOptions::default() };
    let echo = unary(async |request| Ok(request.bytes)).request_max_bytes(REQUEST_MAX);
    let server = builder(8124).service_with(4, echo, options).start().await.expect("a server");
    for level in [Level::Clear, Level::Auth, Level::Crypt] {
        let session = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        let [name, instance, cell] = ["alice", "", "EXAMPLE.ORG"].map(str::to_owned);
        let hour = Duration::from_secs(3600);
        let alice = Principal { name, instance, cell };
        let print = Print::from_now(&alice, &session, SystemTime::now(), hour);
        let token = key().print_token(TicketForm::Krb5, &print, &[5; 32]).expect("a token");
        let client = builder(8124).start().await.expect("a client");
        let security = rxkad_client(token, level);
        let options = ConnectOptions { security, ..ConnectOptions::default() };
        let connection = client.connect_with(server.local_addr(), 4, options).await.expect("one");
        let [sent, _] = average_sizes(&client, &server, &connection).await;
        assert!((5000..8300).contains(&sent), "{level}: {sent}");
        client.shutdown(Duration::from_secs(1)).await;
    }
    server.shutdown(Duration::from_secs(1)).await;
}
