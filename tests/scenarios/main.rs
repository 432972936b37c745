//! The conformance scenarios of `docs/protocol/rx-scenarios.md` and `rx-race.md`, each by its id: an
//! endpoint of the bare core under test (T) against a scripted peer (P), in virtual time.

mod call_numbers;
mod race;
#[allow(dead_code, unused_imports)]
mod support;
