//! Simulated worlds: hosts and a hostile network between them, drawn from one seed, in virtual time.

mod agenda;
mod book;
mod clock;
mod core;
mod core_caller;
mod core_checks;
mod core_link;
mod core_stream;
mod half;
mod hostile;
mod link;
mod net;
mod plan;
mod random;
mod receipts;
mod referee;
mod run;
mod secured;
mod settings;
mod shrink;
mod trace;
mod tree;
mod tree_checks;

pub use clock::{reproduce, seeds, simulate};
pub use hostile::{HostileKind, HostilePlan};
pub use link::{Fate, LinkOptions, Loss};
pub use net::{Arrival, World};
pub use plan::{Answer, CallPlan, Fault, FaultKind, HostIndex, Plan, Sabotage, Streamed};
pub use random::{Seed, Stream};
pub use run::{Outcome, Wiring, check, check_plan, play};
pub use shrink::{Nth, shrink};
pub use trace::{Entry, Trace, What, ladder};
