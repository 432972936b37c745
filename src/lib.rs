//! Rx / RxRPC, the RPC protocol of AFS, in user space.
#![forbid(unsafe_code)]

pub mod net;
pub mod proto;
pub mod security;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod wire;
