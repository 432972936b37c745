//! docs/limits.md lists every limit that can be set, and none that is not there.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Public fields of a source file.
fn fields(source: &str) -> BTreeSet<&str> {
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub "))
        .filter_map(|rest| rest.split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|char| char.is_ascii_lowercase() || char == '_'))
        .collect()
}

#[test]
fn the_list_of_limits_is_whole_and_true() {
    let list = read("docs/limits.md");
    let config = read("src/proto/config.rs");
    let limits: BTreeSet<_> = fields(&config)
        .into_iter()
        .filter(|name| {
            ["_max", "per_second", "_idle", "_linger", "_burst", "_per_turn", "_timeout"]
                .iter()
                .any(|word| name.contains(word))
        })
        .collect();
    assert!(limits.len() > 25, "{limits:?}");
    let named: BTreeSet<_> = list.split('`').skip(1).step_by(2).collect();
    let missing: Vec<_> = limits.iter().filter(|name| !named.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/limits.md does not name {missing:?}");
    // What its first column names is somewhere in the source.
    let sources = [
        "src/proto/config.rs",
        "src/proto/room.rs",
        "src/proto/connection.rs",
        "src/proto/channel/transmit.rs",
        "src/proto/call/mod.rs",
        "src/actors/connection.rs",
        "src/actors/local_endpoint/egress.rs",
        "src/client/connection.rs",
        "src/server/service.rs",
        "src/net/udp/options.rs",
        "src/net/memory.rs",
        "src/net/faults/mod.rs",
        "src/net/faults/lane.rs",
        "src/security/rxkad/handshake.rs",
    ]
    .map(read)
    .concat();
    let is_of_a_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let names: BTreeSet<_> = sources.split(|char| !is_of_a_name(char)).collect();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut count = 0;
    for row in rows {
        let name = row.split('`').next().unwrap();
        assert!(names.contains(name), "{name} of docs/limits.md is nowhere in the source");
        count += 1;
    }
    assert!(count > 35, "{count} rows");
}
