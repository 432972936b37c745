//! The harness: packets in the notation of rx-scenarios.md ([`notation`]) and the endpoint under test with
//! its scripted peer ([`world`]).

mod notation;
mod world;

pub use world::{App, Scenario, client, client_with, ms, secs, server, server_with};
