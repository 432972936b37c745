//! How a call, or a whole connection, ends badly. Three kinds stay apart: the peer aborted, we aborted
//! (and why), nothing came or the network refused.

use std::time::Duration;

use crate::wire::AbortCode;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The peer ended the call with this code.
    #[error("the peer aborted the call with code {0}")]
    PeerAborted(AbortCode),
    /// The peer ended the whole connection with this code.
    #[error("the peer aborted the connection with code {0}")]
    PeerAbortedConnection(AbortCode),
    /// We ended the call with this code.
    #[error("the call was aborted here with code {code}: {why}")]
    Aborted {
        /// The code that the peer was sent.
        code: AbortCode,
        /// What made us.
        why: Why,
    },
    /// Nothing valid came from the peer for the dead time.
    #[error("the peer was silent for {0:?}: call dead")]
    Dead(Duration),
    /// The application waited too long for data or window space.
    #[error("no data moved for {0:?}: idle timeout")]
    Idle(Duration),
    /// The call's deadline passed.
    #[error("the call did not end within {0:?}: deadline passed")]
    Deadline(Duration),
    /// The network said that the peer cannot be reached.
    #[error("the network reports the peer unreachable: {0}")]
    Network(NetworkProblem),
    /// The server lost the call (a Linux habit: EXCEEDS_WINDOW before anything was accepted).
    #[error("the server has lost the call: net reset")]
    NetReset,
    /// A newer call of the same client took the channel.
    #[error("a newer call took the channel")]
    Overtaken,
    /// Our side closed the connection or endpoint.
    #[error("the connection was closed here")]
    Closed,
    /// Too many calls wait for a channel already.
    #[error("{0} calls wait for a channel already")]
    Queue(usize),
    /// An actor of ours broke while it carried the call.
    #[error("the channel that carried the call failed")]
    Broken,
}

impl CallFailure {
    /// The abort code that came or went, if one did.
    pub fn abort_code(&self) -> Option<AbortCode> {
        match self {
            CallFailure::PeerAborted(code)
            | CallFailure::PeerAbortedConnection(code)
            | CallFailure::Aborted { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Why we ended a call or connection ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// The application asked for it.
    #[error("the application aborted it")]
    Application,
    /// An ACK hard-acknowledged packets that were never sent.
    #[error("an ACK acknowledged packets that were never sent")]
    AckBeyondSent,
    /// DATA past the packet that was marked as the last.
    #[error("DATA came after the last packet")]
    DataAfterLast,
    /// LAST on two different packets, or before one already held.
    #[error("a second, different last packet")]
    DifferentLast,
    /// Reply DATA before the request was complete.
    #[error("a reply came before the request was complete")]
    EarlyReply,
    /// More packets than one direction of a call may have.
    #[error("too many packets in one direction")]
    TooManyPackets,
    /// The security class refused a packet.
    #[error("the security class refused a packet")]
    Security,
    /// The security class refused a CHALLENGE: it asks for more than the client offers, or is none.
    #[error("the security class refused what the server's challenge asks for")]
    Challenge,
    /// The security class refused the proof of the client.
    #[error("the security class refused the client's response")]
    BadResponse,
    /// The client never answered the challenge.
    #[error("the client did not answer the challenge")]
    Unchallenged,
    /// Too many calls wait for the service.
    #[error("too many calls wait for the service")]
    Overload,
    /// The reply was larger than the caller allows.
    #[error("the reply was larger than the caller's limit")]
    ReplyTooLarge,
}

/// What the network says about the path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NetworkProblem {
    /// Nobody listens on the port.
    #[error("port unreachable")]
    PortUnreachable,
    /// No route to the host.
    #[error("host unreachable")]
    HostUnreachable,
    /// No route to the network.
    #[error("network unreachable")]
    NetUnreachable,
    /// Forbidden by a filter.
    #[error("administratively prohibited")]
    Prohibited,
}

/// Why a whole connection failed; its channels fail their calls with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionFailure {
    /// The peer aborted it.
    PeerAborted(AbortCode),
    /// We aborted it.
    Aborted {
        /// The code that the peer was sent.
        code: AbortCode,
        /// What made us.
        why: Why,
    },
    /// Closed here.
    Closed,
}

impl ConnectionFailure {
    /// What a call of the connection is told.
    pub fn of_call(self) -> CallFailure {
        match self {
            ConnectionFailure::PeerAborted(code) => CallFailure::PeerAbortedConnection(code),
            ConnectionFailure::Aborted { code, why } => CallFailure::Aborted { code, why },
            ConnectionFailure::Closed => CallFailure::Closed,
        }
    }

    /// The code that later packets of the connection are answered with.
    pub fn code(self) -> AbortCode {
        match self {
            ConnectionFailure::PeerAborted(code) | ConnectionFailure::Aborted { code, .. } => code,
            ConnectionFailure::Closed => AbortCode::CALL_DEAD,
        }
    }
}
