//! Tools for tests: the protocol core without actors, in virtual time.

mod inline;
pub mod notation;
pub mod script;
mod states;
pub mod tree;
pub mod world;

pub use inline::{CallRef, InlineEndpoint, SentDatagram, StartToken};
pub use states::StateWord;
pub(crate) use states::Watch;
