//! Rx / RxRPC, the RPC protocol of AFS, in user space.
//!
//! ```
//! use rxrpc::{AbortCode, Endpoint, unary};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A server: a service is an async function from a request to a reply.
//! let shout = unary(async |request| match request.bytes.is_ascii() {
//!     true => Ok(request.bytes.to_ascii_uppercase().into()),
//!     false => Err(AbortCode(4711)),
//! });
//! let server = Endpoint::builder().bind(([127, 0, 0, 1], 0)).service(147, shout).start().await?;
//!
//! // A client: any endpoint, a connection to a service of a peer, calls on it.
//! let client = Endpoint::builder().start().await?;
//! let connection = client.connect(server.local_addr(), 147).await?;
//! assert_eq!(connection.call("hello").await?, "HELLO");
//! let error = connection.call("caf\u{e9}").await.unwrap_err();
//! assert_eq!(error.abort_code(), Some(AbortCode(4711)));
//!
//! // Both stop, at the latest when the grace is over.
//! let grace = std::time::Duration::from_secs(1);
//! client.shutdown(grace).await;
//! server.shutdown(grace).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is where
//!
//! | module | for whom |
//! |---|---|
//! | [`Endpoint`], [`EndpointBuilder`] | everybody: one UDP socket, client and server at once |
//! | [`client`] | who makes calls: [`Connection`], [`CallOptions`], [`RequestWriter`], [`ReplyReader`] |
//! | [`server`] | who answers them: [`Service`], [`unary`], [`IncomingCall`], [`ReplyWriter`] |
//! | [`error`] | one enum for each thing that can fail |
//! | [`net`] | who brings a network: UDP options, in memory, with faults, with a capture, a mock |
//! | [`security`] | who writes a security class |
//! | [`actors`] | who speaks the actors' messages, and who wants to know how it runs: order, stop, restart |
//! | [`proto`] | the protocol itself, without I/O: settings ([`proto::config`]), events ([`proto::event`]) |
//! | [`wire`] | packets as values: for tools and tests |
//! | `testkit` | who tests the protocol in virtual time (feature `testkit`) |
//!
//! # Runtimes
//!
//! Where an actix System runs, an endpoint lives on the arbiter that [`EndpointBuilder::start`] is called
//! on, unless [`EndpointBuilder::own_thread`] says otherwise; elsewhere, as under plain Tokio, it has a
//! thread of its own. Handles ([`Endpoint`], [`Connection`]) are cheap to clone and work from any thread
//! and any runtime.
//!
//! # How things end
//!
//! A call ends with its reply, or with an error that says who ended it: the peer ([`CallFailure::PeerAborted`]
//! and its code), we ([`CallFailure::Aborted`], its code and [`Why`]), or nobody (silence, a deadline, the
//! network). Dropping the future or the reader of a call aborts it. Dropping the last [`Connection`] closes
//! what lies behind it; dropping the last [`Endpoint`], when no connection is held any more, ends the
//! endpoint at once; [`Endpoint::shutdown`] ends it gently.
//!
//! # Security
//!
//! Built in are rxnull, which proves and encrypts nothing, and [`security::rxkad`] (feature `rxkad`), which AFS
//! cells demand and which is weak; see docs/rxkad.md before you rely on it. Everything a peer sends is checked before
//! it is used; bytes from the network make no panic, and memory is bounded by windows and limits
//! ([`proto::config`]).
#![forbid(unsafe_code)]

pub mod actors;
pub mod client;
mod endpoint;
pub mod error;
pub mod net;
pub mod proto;
pub mod security;
pub mod server;
mod stream;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod wire;

pub use client::{CallOptions, ConnectOptions, Connection, ReplyReader, RequestWriter};
pub use endpoint::{Endpoint, EndpointBuilder};
pub use error::{CallError, CloseReason, ConnectError, ShutdownReport, StartError, StreamError};
pub use proto::{CallFailure, NetworkProblem, Why};
pub use server::{
    CallInfo, IncomingCall, ReplyWriter, Request, Service, ServiceFault, ServiceOptions, unary,
};
pub use wire::{AbortCode, ServiceId};

/// The README's code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// That of docs/rxkad.md too.
#[cfg(all(doctest, feature = "rxkad"))]
#[doc = include_str!("../docs/rxkad.md")]
pub struct RxkadDoc;
