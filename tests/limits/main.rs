//! Each limit of docs/limits.md at its value, where all is good, and one beyond, where what is written there
//! happens, is counted, and nothing else is lost. In the bare core with literal times, and through the tree
//! of actors where they have a part in it.

mod amplification;
mod bytes_core;
mod bytes_tree;
mod edges;
mod listed;
mod support;
mod table;
mod times;
mod turns_core;
mod turns_tree;
mod unproved;
mod work_tree;

#[path = "../scenarios/support/fake_class.rs"]
#[allow(dead_code)]
mod fake_class;
