//! Tools for tests: the protocol core without actors, in virtual time.

mod choices;
mod inline;
pub mod notation;
pub mod script;
mod states;
pub mod tree;
pub mod world;

pub(crate) use choices::Choices;
pub use choices::{ChoiceOptions, Unlikely, taken};
pub use inline::{CallRef, InlineEndpoint, SentDatagram, StartToken};
pub use states::StateWord;
pub(crate) use states::Watch;
