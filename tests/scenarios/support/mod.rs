//! The harness: packets in the notation of rx-scenarios.md ([`rxrpc::testkit::notation`]) and the endpoint under
//! test with its scripted peer ([`world`]).

pub mod fake_class;
pub mod relay;
mod world;

pub use fake_class::FakeClass;
pub use rxrpc::testkit::notation::{bytes_of_hex, parse, show};
pub use world::{
    App, CID, EPOCH, PEER, Scenario, WAYS, Way, client, client_with, ms, secs, server, server_with,
};
