//! Rx / RxRPC, the RPC protocol of AFS, in user space.
#![forbid(unsafe_code)]

pub mod net;
pub mod proto;
pub mod security;
pub mod wire;
