//! What each fuzz target does with its bytes: plain functions, so that `tests/fuzz_corpora.rs` runs them over
//! the stored corpora as well.

pub mod ack;
pub mod channels;
pub mod data;
pub mod debug;
pub mod endpoint;
pub mod handshake;
pub mod header;
pub mod key_arguments;
pub mod key_files;
pub mod packet;
pub mod sessions;
pub mod structures;
pub mod tickets;

/// A target: its name, that of its corpus too, and its body, which panics if something is wrong.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("packet", packet::run),
    ("header", header::run),
    ("data", data::run),
    ("ack", ack::run),
    ("debug", debug::run),
    ("structures", structures::run),
    ("endpoint", endpoint::run),
    ("channels", channels::run),
    ("tickets", tickets::run),
    ("key_files", key_files::run),
    ("key_arguments", key_arguments::run),
    ("handshake", handshake::run),
    ("sessions", sessions::run),
];

/// All that is left of the bytes.
fn rest<'a>(source: &mut arbitrary::Unstructured<'a>) -> &'a [u8] {
    source.bytes(source.len()).unwrap_or_default()
}
