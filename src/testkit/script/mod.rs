//! Scripts: a test plays the other side of a connection packet by packet.
//!
//! A script is text, one step a line; `//` begins a comment. Packets are in the notation of
//! [`crate::testkit::notation`]; what a line does not name is as usual when it is sent, and anything when it is
//! expected.
//!
//! | step | meaning |
//! |---|---|
//! | `send D n1 q1 [CL] "x"` | this packet leaves; serials count up by themselves |
//! | `expect A n1 =DELAY` | the next packet that comes is this, at once: within 50 ms |
//! | `expect within 2 s …`, `expect after 1 s …` | by then; or then, and not before; `after 1 s within 3 s` is both |
//! | `quiet 500 ms` | nothing comes for so long |
//! | `wait 1 s` | time passes; what comes is kept |
//! | `ignore A =PING` | such packets do not count from here on |
//! | `forget` | what has come so far does not matter |
//! | `call "x"` | on a [`Bench`]: the client's application calls; bytes are `"text"` or `len3000` |
//! | `reply "x"`, `abort -5` | on a bench: the service answers its oldest call |
//! | `app good "x"`, `app asked "x"`, `app failed`, `app acknowledged`, `app unacknowledged` | on a bench: what the application is told next; with `within` or `after`, as above |
//!
//! Times count from the end of the step before: when a packet came, or left. The way takes a millisecond each
//! way, if the world says nothing else.
//!
//! # A service of yours
//!
//! [`Peer`] stands in a world of [`crate::testkit::world::simulate`], beside real endpoints:
//!
//! ```
//! use rxrpc::testkit::script::Peer;
//! use rxrpc::testkit::world::simulate;
//! use rxrpc::{Endpoint, unary};
//!
//! simulate(7, async |world| {
//!     let (here, there) = (([10, 0, 0, 1], 7001).into(), ([10, 0, 0, 2], 7000).into());
//!     let shout = unary(async |request| Ok(request.bytes.to_ascii_uppercase().into()));
//!     let server = Endpoint::builder().network(world.network(there)).service(1, shout);
//!     let _server = server.start().await.unwrap();
//!
//!     Peer::client(&world, here, there)
//!         .play(
//!             r#"
//!             send   D n1 q1 [C] "hello, "       // the first packet of a request
//!             expect A n1 =PING                  // does somebody live at our address?
//!             send   D n1 q3 [CL] "!"            // and the third
//!             expect A n1 f2 a[0,1] =OUT_OF_SEQUENCE
//!             "#,
//!         )
//!         .await;
//! });
//! ```
//!
//! # The protocol itself
//!
//! [`Bench`] plays a script against a bare core and against the tree of actors, and the application too:
//!
//! ```
//! use rxrpc::testkit::script::{App, Bench};
//!
//! Bench::server(App::Echo).play(
//!     r#"
//!     send   D n1 q1 [CL] "x"
//!     expect D n1 q1 [L] "x"
//!     expect after 1 s D n1 q1 [L] "x"           // no ACK: the timer
//!     send   A n1 f2 =IDLE
//!     app    asked "x"
//!     app    acknowledged
//!     quiet  5 s
//!     "#,
//! );
//! ```

mod bare;
mod bench;
mod peer;
mod player;
mod steps;

pub use bench::{App, Bench};
pub use peer::Peer;
