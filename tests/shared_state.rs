//! Whatever is shared in `src/` is listed, with its reason, in docs/shared-state.md.
//!
//! Words are looked for in code, not in comments; test modules count. A row of the document covers a file, or
//! a folder if it ends with a slash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What shares, or changes through a shared reference.
const WORDS: [&str; 17] = [
    "Rc",
    "Arc",
    "Weak",
    "Cell",
    "RefCell",
    "UnsafeCell",
    "OnceCell",
    "OnceLock",
    "LazyCell",
    "LazyLock",
    "Mutex",
    "RwLock",
    "Condvar",
    "Semaphore",
    "Notify",
    "mpsc",
    "oneshot",
];

/// File to words, in the code or in the document.
type Shared = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_shared_value_is_listed_with_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document =
        std::fs::read_to_string(root.join("docs/shared-state.md")).expect("the document");
    let (files, folders) = listed(&document);
    assert!(files.len() > 10, "the table of docs/shared-state.md is not understood");

    let mut found = Shared::new();
    walk(&root.join("src"), root, &mut found);
    assert!(found.contains_key("src/proto/serial.rs"), "the search finds nothing");
    found.retain(|file, _| !folders.iter().any(|folder| file.starts_with(folder)));

    let mut problems = Vec::new();
    for (file, words) in &found {
        for word in words.iter().filter(|word| !has(&files, file, word)) {
            problems.push(format!("{file} uses {word}: say why in docs/shared-state.md"));
        }
    }
    for (file, words) in &files {
        for word in words.iter().filter(|word| !has(&found, file, word)) {
            problems.push(format!("docs/shared-state.md lists {word} in {file}, which has none"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn has(shared: &Shared, file: &str, word: &str) -> bool {
    shared.get(file).is_some_and(|words| words.contains(word))
}

/// The rows of the document: files with their words, and folders that are covered as a whole.
fn listed(document: &str) -> (Shared, Vec<String>) {
    let (mut files, mut folders) = (Shared::new(), Vec::new());
    for row in document.lines().filter(|line| line.starts_with("| `src/")) {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (file, words) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let reason = cells.next().unwrap_or_default();
        assert!(!reason.is_empty(), "no reason in: {row}");
        let file = file.trim_matches('`');
        match file.ends_with('/') {
            true => folders.push(file.to_owned()),
            false => {
                let words = words.split(", ").map(|word| word.trim_matches('`').to_owned());
                files.entry(file.to_owned()).or_default().extend(words);
            }
        }
    }
    (files, folders)
}

fn walk(folder: &Path, root: &Path, found: &mut Shared) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"))
    {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let words = shared_in(&std::fs::read_to_string(&path).expect("text"));
            if !words.is_empty() {
                let file = path.strip_prefix(root).expect("below the root").to_string_lossy();
                found.insert(file.replace('\\', "/"), words);
            }
        }
    }
}

fn shared_in(source: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let code = line.split(" // ").next().unwrap_or_default();
        let tokens: Vec<&str> = code
            .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '\''))
            .filter(|token| !token.is_empty())
            .collect();
        for (at, token) in tokens.iter().enumerate() {
            let is_atomic = token.starts_with("Atomic") && *token != "Atomic";
            // `futures::future::Shared`, told from a type of ours by what it wraps.
            let is_shared = *token == "Shared" && code.contains("Shared<");
            // A `static` item, not the lifetime.
            let is_static = *token == "static" && at <= 2;
            if WORDS.contains(token) || is_atomic || is_shared || is_static {
                words.insert((*token).to_owned());
            }
            if token.starts_with("thread_local") {
                words.insert("thread_local".to_owned());
            }
        }
    }
    words
}

#[test]
fn the_search_tells_code_from_comments_and_lifetimes() {
    let of = |source: &str| shared_in(source).into_iter().collect::<Vec<_>>();
    assert_eq!(of("use std::sync::{Arc, atomic::AtomicU64};"), ["Arc", "AtomicU64"]);
    assert_eq!(of("/// An `Arc`.\n    // RefCell\nlet x = 1; // Mutex"), [""; 0]);
    assert_eq!(of("fn f(name: &'static str) -> Archive {}"), [""; 0]);
    assert_eq!(of("pub(crate) static COUNT: u32 = 1;"), ["static"]);
    assert_eq!(of("std::thread_local! { static A: Cell<u8> }"), ["Cell", "static", "thread_local"]);
    assert_eq!(of("closed: Shared<BoxFuture<'static, ()>>"), ["Shared"]);
}
