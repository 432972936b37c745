//! A one-machine AFS cell for a test (`interop/openafs/cell.sh`), in a network namespace of its own: that
//! needs root. Where no namespaces can be made (many containers), `RXRPC_INTEROP_CELL=optional` lets a test
//! skip in spite of `RXRPC_INTEROP=required`.
#![allow(dead_code)] // each test binary uses a part of it

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::openafs::{Ran, Rig, run, say, set_to, skip};

/// Where its servers listen.
pub const ADDRESS: &str = "10.254.77.1";

/// A cell; it goes down when this is dropped.
pub struct Cell<'a> {
    rig: &'a Rig,
    /// Its databases, logs and keys.
    pub folder: PathBuf,
    /// Servers of ours in it.
    ours: RefCell<Vec<Child>>,
}

impl<'a> Cell<'a> {
    /// Brings one up in a folder of this name. `None`, after saying why, if there can be none on this machine.
    pub fn up(rig: &'a Rig, name: &str, options: &[&str]) -> Option<Cell<'a>> {
        match Cell::try_up(rig, name, options) {
            Ok(cell) => return Some(cell),
            Err(why) if set_to("RXRPC_INTEROP_CELL", "optional") => say(&format!("SKIPPED: {why}")),
            Err(why) => skip(&why),
        }
        None
    }

    fn try_up(rig: &'a Rig, name: &str, options: &[&str]) -> Result<Cell<'a>, String> {
        let root = run(Command::new("id").arg("-u"), 5).stdout.trim() == "0";
        if !root {
            return Err("a cell needs root".into());
        }
        let cell = Cell { rig, folder: rig.work.join(name), ours: RefCell::default() };
        let _ = cell.script("down", &[] as &[&str]);
        let _ = std::fs::remove_dir_all(&cell.folder);
        let ran = cell.script("up", &[&["--netns", "--addr", ADDRESS], options].concat());
        say(ran.stdout.trim());
        match ran.code {
            Some(0) => Ok(cell),
            _ => Err(format!(
                "the cell does not come up: {} {}",
                ran.stdout.trim(),
                ran.stderr.trim()
            )),
        }
    }

    fn script<S: AsRef<OsStr>>(&self, verb: &str, arguments: &[S]) -> Ran {
        let script = self.rig.scripts.join("cell.sh");
        run(Command::new(script).arg(verb).arg(&self.folder).args(arguments), 180)
    }

    /// Runs a program where the cell can be reached.
    pub fn exec(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Ran {
        let mut all = vec![program.as_ref().as_os_str()];
        all.extend(arguments.iter().map(OsStr::new));
        self.script("exec", &all)
    }

    /// Starts a server where the cell can be reached, and waits until it prints a line. It ends with the cell,
    /// whose namespace takes all with it.
    pub fn serve(&self, program: impl AsRef<Path>, arguments: &[&str]) {
        let mut command = Command::new(self.rig.scripts.join("cell.sh"));
        command.arg("exec").arg(&self.folder).arg(program.as_ref()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the script was there before");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        let read = BufReader::new(out).read_line(&mut line);
        self.ours.borrow_mut().push(child);
        assert!(read.is_ok_and(|bytes| bytes > 0), "not ready: {}", program.as_ref().display());
    }

    /// A file of the cell, as text for a command line.
    pub fn file(&self, path: &str) -> String {
        self.folder.join(path).to_str().expect("the build folder has a name in UTF-8").to_owned()
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        let _ = self.script("down", &[] as &[&str]);
        for server in self.ours.get_mut() {
            let _ = server.wait();
        }
    }
}

/// An example, built now: `cargo test --test` alone builds none.
pub fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_rx")).parent().expect("a binary lies in a folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name, "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(folder.parent().expect("target/profile"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let ran = run(&mut cargo, 600);
    assert_eq!(ran.code, Some(0), "{name} does not build: {}", ran.stderr);
    folder.join("examples").join(name)
}
