//! The protocol core, without I/O: packets and `now` go in; datagrams, events and one deadline come out.
//!
//! It knows no socket, no clock, no actor and no randomness: times and random numbers are values that come
//! in. Whoever drives it (the actors, or a simulator) hands the inputs of one channel over in order; nothing
//! more is asked of them.
//!
//! | room | what it decides |
//! |---|---|
//! | [`channel`] | one channel: call numbers, both state tables, ACKs, retransmission, timers |
//! | `call` | one call by noun: send and receive window, ACK policy, congestion, RTT |
//! | [`connection`] | channels for calls that wait, the security phase, expiry |
//! | [`router`] | which channel or connection a datagram is for; limits; answers without a connection |
//! | [`peer`] | what is remembered of an address |
//! | [`event`] | every observable fact |
//! | [`Moderation`] | how long what is received may gather first |
//! | [`config`] | every number that can be set |

mod call;
pub mod channel;
pub mod config;
pub mod connection;
mod datagrams;
pub mod event;
mod failure;
mod moderation;
pub mod path;
pub mod peer;
mod room;
pub mod router;
mod serial;

pub use call::CallState;
pub use datagrams::{BATCH_BYTES_MAX, BATCH_SEGMENTS_MAX, Batch, Datagrams};
pub use event::{Counters, DropReason, Event};
pub use failure::{CallFailure, ConnectionFailure, NetworkProblem, Why};
pub use moderation::Moderation;
pub use peer::{ServiceLoad, TurnWord};
pub use room::{CALL_BYTES_MIN, Holding, Room};
pub use serial::SerialCounter;

/// Our side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We make the calls.
    Client,
    /// We answer them.
    Server,
}

/// Names one call of a channel among all that the channel has had, also those that took no call number.
/// Whatever an application says carries it, so that nothing it says can reach another call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallTag(pub u32);
