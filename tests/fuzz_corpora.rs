//! Each fuzz target over its stored corpus, as an ordinary test: what a fuzzer found once stays found
//! (docs/fuzzing.md).

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code)]
mod bodies;

use std::path::Path;

/// What would show that a corpus is not there: less than any that is.
const INPUTS_MIN: usize = 5;

#[test]
fn every_target_takes_its_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, run) in bodies::TARGETS {
        let files = std::fs::read_dir(folder.join(target)).expect("a corpus for each target");
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= INPUTS_MIN, "{target} has a corpus of {}", paths.len());
        for path in &paths {
            let input = std::fs::read(path).unwrap();
            if let Err(panic) = std::panic::catch_unwind(|| run(&input)) {
                eprintln!("found again: {}", path.display());
                std::panic::resume_unwind(panic);
            }
        }
        println!("{target:16} {:5} inputs", paths.len());
    }
}
