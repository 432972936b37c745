//! The three actors: thin shells around the protocol core, which give it its order.
//!
//! ```text
//! LocalEndpoint            one a socket, which is one a shard: receive loop, route table, peers, egress, deadlines
//!  └─ Connection           one a peer and service: handshake, channels for waiting calls, expiry
//!      └─ Channel × 4      one call at a time: its packets, its application, its timers
//! ```
//!
//! # Order
//! Every message between actors is a `do_send` into a synchronous handler, so each mailbox is a strict
//! queue. One thing goes another way: what channels and connections put out for the endpoint (datagrams, events,
//! a deadline) is in one queue of its own, in the order in which it was put there, and the endpoint empties it before
//! it handles anything else (docs/shared-state.md). The receive loop hands each run of packets straight to its channel: one hash look-up finds the
//! connection, `cid & 3` the channel. Packets of one channel, the channel's timers and the commands of its
//! application meet in that one mailbox; sending a packet and the change of state that goes with it are one
//! handler. Between two channels, and between a channel and its connection, no order is promised, and none
//! is needed (docs/protocol/rx-race.md 4 and 5). Commands and timers carry the tag of their call, so that
//! one that comes late does nothing.
//!
//! An endpoint of several shards is as many such trees, on a thread each. What comes to the socket of one and belongs
//! to another is handed over in the order in which it came, in one message a turn: `Strays`, which the
//! owner cuts into runs as if it had received them. Between strays of two shards, and between strays and what the
//! owner receives itself, no order is promised; all that one address and port sends comes to one socket, so a
//! connection's packets have one way as long as its peer has one address.
//!
//! # Stop
//! A parent outlives its children. A child is built with a [`lifetime::Lease`], which only the parent's
//! [`lifetime::Children`] hands out and which cannot be cloned. `Close` goes down, the dropping of a lease
//! comes up; a parent stops when its registry is closed and empty. A connection that drains keeps its key in
//! the route table until it is gone, so no second one is made for it. `Endpoint::shutdown` lets calls that
//! run end within its grace, cuts off the rest, and says how many those were.
//!
//! The shards of an endpoint end together. One that has no connections left says so (`ShardEnd::Finished`), stays, and
//! hands over what comes to its socket for the others, until all have said so.
//!
//! # Panic and restart
//! A panic in a service is caught by the task it runs in, or by the channel that hands it its call: the call is
//! aborted with `RX_CALL_DEAD`. A panic
//! in a Channel loses that channel's call and nothing else: its lease reports the channel's last call number
//! while it unwinds, and the Connection starts another Channel that knows it, so no call runs twice. After
//! [`connection::CHANNEL_RESTARTS_MAX`] of them the connection is aborted. A panic in a Connection ends its
//! channels; with it the knowledge is lost of which calls a server has run, so for a while the endpoint
//! refuses the packets of that connection with an ABORT, and its client opens another. A panic in the
//! LocalEndpoint, or in its receive loop, ends all trees of its endpoint: its own in order, children first; as it is
//! dropped it tells the other shards (`ShardEnd::Gone`), which cut off their calls and end. Every waiting user gets an
//! error, and `Endpoint::closed` says so when the last of them is gone. A socket that fails does the same.
//! actix's `Supervisor` is not used: it survives no panic, and nothing here stops and goes on.
//!
//! # Back-pressure
//! actix's mailboxes bound nothing, so the protocol's windows do. A reader gives credit back for what it
//! has taken, and the receive window opens by no more than that; a writer may be ahead by twice what may be
//! in flight, at least 64 packets. The receive loop takes a bounded number of batches and then lets every
//! other actor of the arbiter run before it takes more: what does not fit is lost in the socket's buffer,
//! where the protocol repairs it. Between shards, too, there is a bound: what one has handed over to another and the other
//! has not told that it took is at most an equal share of `strays_max_bytes` (docs/limits.md); beyond it datagrams are
//! lost and counted.

pub mod channel;
pub mod connection;
mod context;
pub mod lifetime;
pub mod local_endpoint;
mod marks;
pub mod messages;
pub mod snapshot;
mod step;

pub use channel::Channel;
pub use connection::Connection;
pub use local_endpoint::LocalEndpoint;
