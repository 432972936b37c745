//! Tools for tests: simulated worlds in virtual time, in which the bare protocol core and whole endpoints of actors
//! play, and scripted peers (docs/testkit.md).

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
