//! Rx / RxRPC, the RPC protocol of AFS, in user space.
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
