//! What can go wrong for a user: one enum per operation.

use std::io;
use std::net::SocketAddr;

use crate::proto::config::ConfigError;
use crate::proto::{CallFailure, Counters};
use crate::wire::AbortCode;

/// Why an endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket could not be bound.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The network could not be opened in the endpoint's runtime.
    #[error("cannot open the network: {0}")]
    Network(io::Error),
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The endpoint's thread could not be started.
    #[error("cannot start the endpoint's thread: {0}")]
    Thread(io::Error),
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is closed, or closing.
    #[error("the endpoint is closed")]
    Closed,
    /// The endpoint has as many connections as it may have.
    #[error("the endpoint has {0} connections already, which is its limit")]
    TooMany(usize),
    /// The security class panicked. Nothing else came of it.
    #[error("the security class broke")]
    SecurityClass,
}

/// Why a call gave no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] CallFailure),
    /// There was no connection for it.
    #[error("no connection for the call: {0}")]
    Connect(#[from] ConnectError),
    /// The reply was larger than the caller allows.
    #[error("the reply is larger than {0} bytes, which is the caller's limit")]
    ReplyTooLarge(usize),
}

impl CallError {
    /// The abort code that came or went, if one did.
    pub fn abort_code(&self) -> Option<AbortCode> {
        match self {
            CallError::Failed(failure) => failure.abort_code(),
            _ => None,
        }
    }
}

impl From<CallError> for io::Error {
    /// As that of a [`StreamError`]; without a connection, [`io::ErrorKind::NotConnected`].
    fn from(error: CallError) -> io::Error {
        match error {
            CallError::Failed(failure) => StreamError::Failed(failure).into(),
            CallError::ReplyTooLarge(limit) => StreamError::TooLarge(limit).into(),
            CallError::Connect(_) => io::Error::new(io::ErrorKind::NotConnected, error),
        }
    }
}

/// Why a stream of a call ended too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] CallFailure),
    /// More bytes came than the reader allows.
    #[error("more than {0} bytes came, which is the reader's limit")]
    TooLarge(usize),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> io::Error {
        let kind = match error {
            StreamError::Failed(
                CallFailure::PeerAborted(_) | CallFailure::PeerAbortedConnection(_),
            ) => io::ErrorKind::ConnectionReset,
            StreamError::Failed(
                CallFailure::Dead(_) | CallFailure::Idle(_) | CallFailure::Deadline(_),
            ) => io::ErrorKind::TimedOut,
            StreamError::Failed(_) => io::ErrorKind::ConnectionAborted,
            StreamError::TooLarge(_) => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

impl From<StreamError> for CallError {
    fn from(error: StreamError) -> CallError {
        match error {
            StreamError::Failed(failure) => CallError::Failed(failure),
            StreamError::TooLarge(limit) => CallError::ReplyTooLarge(limit),
        }
    }
}

/// What a shutdown cut off, and what the endpoint did in its life. Of an endpoint that was closed already
/// everything is 0: its totals are gone with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Calls that were still running when the grace was over. Those of which no packet had been sent are not
    /// among them: nothing is lost with them.
    pub calls_cut: usize,
    /// Connections that were still there then.
    pub connections_closed: usize,
    /// Totals at the very end: calls that ended within the grace are among them, and so are those that were
    /// cut off, with their aborts. `connections_closed` there counts every connection since the start.
    pub counters: Counters,
}

/// Why an endpoint is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Somebody shut it down, or dropped its last handle.
    #[error("it was shut down")]
    Shutdown,
    /// Its network failed.
    #[error("its network failed: {0}")]
    Network(io::ErrorKind),
    /// It broke: a bug, of which the log says more.
    #[error("it broke")]
    Broken,
}
