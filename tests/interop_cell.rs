//! Our client with the servers of a real AFS cell: vlserver and ptserver of OpenAFS.
//!
//! Puts the questions of `interop/openafs/PROBES.md` to a cell without keys.

#[path = "support/cell.rs"]
mod cell;
#[path = "support/openafs.rs"]
mod openafs;

use cell::{ADDRESS, Cell, example};
use openafs::{Ours, ours, rig, say, serial};
use std::path::PathBuf;

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

fn vl_probe() -> PathBuf {
    std::env::var_os("RXRPC_INTEROP_VL_PROBE").map_or_else(|| example("vl_probe"), PathBuf::from)
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
    let Some(cell) = Cell::up(rig, "cell", &["--noauth"]) else { return };
    let (vl, pts) = (format!("{ADDRESS}:7003"), format!("{ADDRESS}:7002"));

    // The cell itself, by a client that shares nothing with ours.
    let reference = rig.scripts.join("probe.py");
    assert_all_ok("probe.py vl", &cell.exec(&reference, &["vl", &vl]), &VL_PROBES);
    assert_all_ok("probe.py pts", &cell.exec(&reference, &["pts", &pts]), &PTS_PROBES);

    assert_all_ok("vl_probe", &cell.exec(&vl_probe, &[&vl]), &VL_PROBES);
    assert_all_ok("vl_probe --pts", &cell.exec(&vl_probe, &["--pts", &pts]), &PTS_PROBES);

    let ran = cell.exec(ours(Ours::Rx), &["version", &vl]);
    assert!(ran.code == Some(0) && ran.stdout.contains("OpenAFS 1."), "rx version: {ran:?}");
}
