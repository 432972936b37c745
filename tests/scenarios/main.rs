//! The conformance scenarios of `docs/protocol/rx-scenarios.md` and `rx-race.md`, each by its id: an
//! endpoint of the bare core under test (T) against a scripted peer (P), in virtual time.

mod acks;
mod busy_abort;
mod call_numbers;
mod channels;
mod client_states;
mod conformance;
mod data;
mod found_by_fuzzing;
mod found_by_simulation;
mod identity;
mod jumbograms;
mod limits;
mod look_alikes;
mod loss;
mod malformed;
mod monkey;
mod race;
mod security;
mod storm;
#[allow(dead_code, unused_imports)]
mod support;
mod timers;
mod tools;
mod wrap_around;
