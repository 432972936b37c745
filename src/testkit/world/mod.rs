//! Simulated worlds: hosts and a hostile network between them, drawn from one seed, in virtual time.

mod agenda;
mod book;
mod clock;
mod core;
mod core_link;
mod link;
mod net;
mod plan;
mod random;
mod referee;
mod run;
mod trace;
mod tree;

pub use clock::{reproduce, seeds, simulate};
pub use link::{Fate, LinkOptions, Loss};
pub use net::{Arrival, World};
pub use plan::{Answer, CallPlan, Fault, FaultKind, HostIndex, Plan};
pub use random::{Seed, Stream};
pub use run::{Outcome, Wiring, check, play, shrink};
pub use trace::{Entry, Trace, What, ladder};
