//! `docs/conformance.md` names a test for every scenario and race, and every test that it names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first cell of each row of a table that is an id, with the rest of the row.
fn rows(text: &str) -> Vec<(&str, &str)> {
    let is_id = |cell: &str| {
        let digits = cell.strip_prefix("S-").or_else(|| cell.strip_prefix("RC-"));
        digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
    };
    let row = |line: &'_ str| -> Option<(usize, usize)> {
        let cell = line.strip_prefix("| ")?.split(" |").next()?;
        is_id(cell).then_some((2, 2 + cell.len()))
    };
    text.lines()
        .filter_map(|line| row(line).map(|(from, to)| (&line[from..to], &line[to..])))
        .collect()
}

/// The id in a test's name: `s_059_...` is S-59.
fn id_of(test: &str) -> Option<String> {
    let (prefix, rest) = test.split_once('_')?;
    let kind = match prefix {
        "s" => "S",
        "rc" => "RC",
        _ => return None,
    };
    let number: u32 = rest.split('_').next()?.parse().ok()?;
    Some(format!("{kind}-{number:02}"))
}

/// Every test function below `folder`, as `module::name`.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_in(&path, found);
        }
    }
}

/// Every test function of a file.
fn tests_in(path: &Path, found: &mut BTreeSet<String>) {
    let module = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = read(path);
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let name = function.and_then(|rest| rest.split('(').next());
        if let Some(name) = name.filter(|_| is_test) {
            found.insert(format!("{module}::{name}"));
        }
        let begins = matches!(line, "#[test]" | "#[actix_rt::test]");
        is_test = begins || (is_test && line.starts_with("#["));
    }
}

#[test]
fn every_scenario_has_a_test_and_every_test_is_named() {
    let protocol = root().join("docs/protocol");
    let (scenarios, races) =
        (read(&protocol.join("rx-scenarios.md")), read(&protocol.join("rx-race.md")));
    let wanted: Vec<&str> =
        [rows(&scenarios), rows(&races)].concat().iter().map(|row| row.0).collect();
    assert_eq!(wanted.len(), wanted.iter().collect::<BTreeSet<_>>().len(), "an id twice");

    let text = read(&root().join("docs/conformance.md"));
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, rest) in rows(&text) {
        let tests = rest.split('`').skip(1).step_by(2).collect();
        assert!(named.insert(id, tests).is_none(), "{id} stands twice in docs/conformance.md");
    }

    let mut tests = BTreeSet::new();
    tests_below(&root().join("tests/scenarios"), &mut tests);
    tests_in(&root().join("tests/tree_race.rs"), &mut tests);
    let own: Vec<String> = tests.iter().cloned().collect();
    tests_below(&root().join("src"), &mut tests);
    tests_below(&root().join("tests"), &mut tests);
    for (id, of_id) in &named {
        assert!(wanted.contains(id), "{id} is no scenario");
        assert!(!of_id.is_empty(), "{id} names no test");
        for test in of_id {
            assert!(tests.contains(*test), "{id} names {test}, which does not exist");
        }
    }
    for test in &own {
        let name = test.split("::").last().unwrap_or_default();
        let Some(id) = id_of(name) else { continue };
        let listed = named.get(id.as_str()).is_some_and(|tests| tests.contains(&test.as_str()));
        assert!(listed, "docs/conformance.md does not name {test} for {id}");
    }
    let missing: Vec<&str> = wanted.iter().copied().filter(|id| !named.contains_key(id)).collect();
    println!("{} of {} scenarios and races have tests", named.len(), wanted.len());
    assert!(missing.is_empty(), "docs/conformance.md names no test for {missing:?}");
}
