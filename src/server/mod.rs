//! What answers calls: services, and the calls they are given.

mod incoming;
pub(crate) mod port;
mod service;

pub use incoming::{CallInfo, IncomingCall, ReplyWriter};
pub use service::{Request, Service, ServiceFault, ServiceOptions, Unary, unary};
