//! The `rx` command.
fn main() {}
