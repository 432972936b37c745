//! What makes calls: connections, whole calls, streaming calls.

mod connection;
pub(crate) mod port;
mod streaming;

pub use connection::{CallOptions, ConnectOptions, Connection};
pub use streaming::{ReplyReader, RequestWriter};
