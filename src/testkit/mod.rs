//! Tools for tests: the protocol core without actors, in virtual time.

mod inline;
pub mod tree;
pub mod world;

pub use inline::{CallRef, InlineEndpoint, StartToken};
