//! Tools for tests: the protocol core without actors, in virtual time.

mod inline;

pub use inline::{CallRef, InlineEndpoint, StartToken};
