//! Other processes of a test: its own program, run for one of its tests.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

const CHILD: &str = "RXRPC_TEST_CHILD";

/// One of them. It ends with this, however the test ends.
pub struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    /// Runs the test `name`, which finds `variables` in its environment.
    pub fn run(name: &str, variables: &[(&str, &str)]) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Other { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says after `word`: the lines before that are passed over.
    pub fn word(&mut self, word: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        let line = lines.find(|line| line.contains(word));
        let line = line.unwrap_or_else(|| panic!("the other process ended before it said {word}"));
        line.split_once(word).unwrap().1.trim().to_owned()
    }

    /// The same, numbers.
    pub fn numbers<const COUNT: usize>(&mut self, word: &str) -> [u64; COUNT] {
        let numbers: Vec<u64> =
            self.word(word).split(' ').map(|number| number.parse().unwrap()).collect();
        numbers.try_into().unwrap_or_else(|got| panic!("{COUNT} numbers after {word}, got {got:?}"))
    }

    /// It may end.
    pub fn dismiss(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this is one.
pub fn is_other() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Says a line to the process that began this one.
pub fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Waits until this process may end.
pub fn wait_for_dismissal() {
    // Whether the input ends or breaks: nobody is there any more.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A number from the environment.
pub fn number_of(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}
