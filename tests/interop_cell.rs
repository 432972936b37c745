//! Our client with the servers of a real AFS cell: vlserver and ptserver of OpenAFS.
//!
//! Brings up a one-machine cell (`interop/openafs/cell.sh`) in a network namespace of its own, which
//! needs root, and puts the questions of `interop/openafs/PROBES.md` to it. Where no namespaces can be
//! made (many containers), `RXRPC_INTEROP_CELL=optional` lets it skip in spite of
//! `RXRPC_INTEROP=required`.

#[path = "support/openafs.rs"]
mod openafs;

use openafs::{Ours, Rig, ours, rig, run, say, serial, set_to, skip};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const ADDRESS: &str = "10.254.77.1";

/// What must be answered; the names are those of PROBES.md.
const VL_PROBES: [&str; 10] = [
    "VL_ProbeServer",
    "VL_GetEntryByNameO",
    "VL_GetEntryByNameN",
    "VL_GetEntryByNameU",
    "VL_GetEntryByID",
    "VL_GetEntryByNameO, no such volume",
    "VL_ListEntry",
    "VL_ListAttributesN",
    "unknown operation",
    "name without its length",
];
const PTS_PROBES: [&str; 6] = [
    "PR_NameToID",
    "PR_NameToID, request of two packets",
    "PR_IDToName",
    "PR_IDToName, reply of four packets",
    "unknown operation",
    "list without its length",
];

/// A cell; it goes down when this is dropped.
struct Cell<'a> {
    rig: &'a Rig,
    folder: PathBuf,
}

impl<'a> Cell<'a> {
    /// `Err` says why there can be none on this machine.
    fn up(rig: &'a Rig) -> Result<Cell<'a>, String> {
        let root = run(Command::new("id").arg("-u"), 5).stdout.trim() == "0";
        if !root {
            return Err("a cell needs root".into());
        }
        let cell = Cell { rig, folder: rig.work.join("cell") };
        let _ = cell.script("down", &[] as &[&str]);
        let _ = std::fs::remove_dir_all(&cell.folder);
        let ran = cell.script("up", &["--noauth", "--netns", "--addr", ADDRESS]);
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

    fn script<S: AsRef<OsStr>>(&self, verb: &str, arguments: &[S]) -> openafs::Ran {
        let script = self.rig.scripts.join("cell.sh");
        run(Command::new(script).arg(verb).arg(&self.folder).args(arguments), 180)
    }

    /// Runs a program where the cell can be reached.
    fn exec(&self, program: &Path, arguments: &[&str]) -> openafs::Ran {
        let mut all = vec![program.as_os_str()];
        all.extend(arguments.iter().map(OsStr::new));
        self.script("exec", &all)
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        let _ = self.script("down", &[] as &[&str]);
    }
}

/// The example, built now: `cargo test --test` alone builds no examples.
fn vl_probe() -> PathBuf {
    if let Some(stand_in) = std::env::var_os("RXRPC_INTEROP_VL_PROBE") {
        return stand_in.into();
    }
    let folder = Path::new(env!("CARGO_BIN_EXE_rx")).parent().expect("a binary lies in a folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", "vl_probe", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(folder.parent().expect("target/profile"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let ran = run(&mut cargo, 600);
    assert_eq!(ran.code, Some(0), "vl_probe does not build: {}", ran.stderr);
    folder.join("examples/vl_probe")
}

/// Each name must be there, `ok`, and nothing may have failed. A name may be followed by more
/// (`VL_ListEntry, index 0`).
fn assert_all_ok(who: &str, ran: &openafs::Ran, names: &[&str]) {
    say(&format!("\n== {who}\n{}", ran.stdout.trim_end()));
    assert_eq!(ran.code, Some(0), "{who}: {ran:?}");
    assert!(!ran.stdout.lines().any(|line| line.starts_with("FAIL")), "{who}: {ran:?}");
    for name in names {
        let told = ran.stdout.lines().any(|line| {
            line.strip_prefix("ok").is_some_and(|rest| rest.trim_start().starts_with(name))
        });
        assert!(told, "{who} does not mention {name}: {}", ran.stdout);
    }
}

#[test]
fn a_real_vlserver_and_ptserver_answer_our_client() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let vl_probe = vl_probe();
    let cell = match Cell::up(rig) {
        Ok(cell) => cell,
        Err(why) if set_to("RXRPC_INTEROP_CELL", "optional") => {
            return say(&format!("SKIPPED: {why}"));
        }
        Err(why) => return skip(&why),
    };
    let (vl, pts) = (format!("{ADDRESS}:7003"), format!("{ADDRESS}:7002"));

    // The cell itself, by a client that shares nothing with ours.
    let reference = rig.scripts.join("probe.py");
    assert_all_ok("probe.py vl", &cell.exec(&reference, &["vl", &vl]), &VL_PROBES);
    assert_all_ok("probe.py pts", &cell.exec(&reference, &["pts", &pts]), &PTS_PROBES);

    assert_all_ok("vl_probe", &cell.exec(&vl_probe, &[&vl]), &VL_PROBES);
    assert_all_ok("vl_probe --pts", &cell.exec(&vl_probe, &["--pts", &pts]), &PTS_PROBES);

    let ran = cell.exec(&ours(Ours::Rx), &["version", &vl]);
    assert!(ran.code == Some(0) && ran.stdout.contains("OpenAFS 1."), "rx version: {ran:?}");
}
