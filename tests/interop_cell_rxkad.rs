//! Our clients with the servers of a real AFS cell that has keys: ptserver, vlserver and fileserver of OpenAFS,
//! with a KDC's tickets and with tickets that we print with the cell's key.

#[path = "support/cell.rs"]
mod cell;
#[path = "support/openafs.rs"]
mod openafs;

use cell::{ADDRESS, Cell, example};
use openafs::{Ours, Ran, Table, field, ours, rig, serial, words};

const LEVELS: [&str; 3] = ["clear", "auth", "crypt"];
const FILE_BYTES: &str = "20000000";
const SERVICE: &str = "afs/rxtest.local";

/// PRPERM: the protection server knows who it is, and that is not enough.
const NOT_PERMITTED: i32 = 267_269;
/// VL_PERM: the same of the vlserver.
const VL_NOT_PERMITTED: i32 = 363_546;
/// VL_ProbeServer: anybody may.
const VL_PROBE_SERVER: i32 = 514;
/// VL_GetNewVolumeId, of one: administrators may, for it changes the database.
const VL_GET_NEW_VOLUME_ID: [i32; 2] = [505, 1];

/// `kinit` and `kvno` for a user, into a cache of this name.
fn log_in(cell: &Cell<'_>, user: &str) -> String {
    let cache = cell.file(&format!("krb5/cc.{user}"));
    let name = format!("KRB5CCNAME=FILE:{cache}");
    let keytab = cell.file("krb5/users.keytab");
    let ran = cell.exec("env", &[&name, "kinit", "-k", "-t", &keytab, user]);
    assert_eq!(ran.code, Some(0), "kinit {user}: {ran:?}");
    let ran = cell.exec("env", &[&name, "kvno", SERVICE]);
    assert_eq!(ran.code, Some(0), "kvno {SERVICE}: {ran:?}");
    cache
}

/// The number of the volume that is there to write in.
fn volume(cell: &Cell<'_>) -> String {
    let ran = cell.exec("vos", &["examine", "rx.data", "-localauth", "-noresolve"]);
    let id = ran.stdout.split_whitespace().nth(1).unwrap_or_default().to_owned();
    assert!(id.parse::<u32>().is_ok(), "vos examine: {ran:?}");
    id
}

fn row(table: &mut Table, what: &str, ran: &Ran, good: bool) {
    let tells = |line: &&str| {
        line.ends_with(" s") || line.contains("creator") || line.ends_with("callbacks")
    };
    let said: Vec<_> = ran.stdout.lines().filter(tells).collect();
    table.check(&format!("{what:<52} {}", said.join("; ")), good, &format!("{ran:?}"));
}

#[test]
fn a_cells_servers_take_our_tickets_at_every_level() {
    let _one = serial();
    let Some(rig) = rig() else { return };
    let (afs_user, afs_store) = (example("afs_user"), example("afs_store"));
    let Some(cell) = Cell::up(rig, "cell-rxkad", &[]) else { return };
    let server = |port: u16| format!("{ADDRESS}:{port}");
    let (files, pts, vl) = (server(7000), server(7002), server(7003));
    let volume = volume(&cell);
    let admin = log_in(&cell, "admin");
    let key_file = cell.file("etc/server/KeyFileExt");
    let keytab = cell.file("krb5/afs.keytab");

    let mut table = Table::new("a cell with keys");
    // As whom, with what. OpenAFS's file server has no rights for `afs` itself, in no client's hands.
    let kdc = ["--ccache", &admin, "--principal", SERVICE];
    let printed = ["--key-file", &key_file];
    let printed_for_admin = ["--key-file", &key_file, "--as", "admin@RXTEST.LOCAL"];
    let from_keytab = ["--key-file", &keytab, "--as", "admin@RXTEST.LOCAL"];
    let cases: [(&str, &[&str], bool); 4] = [
        ("KDC's ticket, admin", &kdc, true),
        ("printed, afs", &printed, false),
        ("printed, admin", &printed_for_admin, true),
        ("printed with the keytab, admin", &from_keytab, true),
    ];
    for (ticket, credentials, may_store) in cases {
        for level in LEVELS {
            let with = |first: &[&'static str], own: [&str; 2]| -> Vec<String> {
                let all = [&own[..], first, credentials, &["--level", level]].concat();
                all.into_iter().map(String::from).collect()
            };
            let user = format!("user.{level}");
            let arguments = with(&[], [&pts, &user]);
            let ran =
                cell.exec(&afs_user, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            let is_read_back = ran.stdout.contains(&format!("read back {user}, id "));
            row(
                &mut table,
                &format!("ptserver, {level}, {ticket}"),
                &ran,
                ran.code == Some(0) && is_read_back,
            );
            if may_store {
                let arguments = with(&["--bytes", FILE_BYTES], [&files, &volume]);
                let ran = cell
                    .exec(&afs_store, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
                let is_fetched =
                    ran.stdout.contains(&format!("fetched {FILE_BYTES} bytes, all the same"));
                // It calls a client that it does not know before it serves it.
                let called_back = ran.stdout.lines().find_map(|line| {
                    line.strip_prefix("answered ")?.strip_suffix(" callbacks")?.parse().ok()
                });
                row(
                    &mut table,
                    &format!("fileserver, {level}, {ticket}"),
                    &ran,
                    ran.code == Some(0) && is_fetched && called_back > Some(0u32),
                );
            }
        }
    }

    // `rx` at the vlserver.
    let request = cell.file("request");
    std::fs::write(&request, words(&[VL_PROBE_SERVER])).expect("the cell's folder can be written");
    let new_volume = cell.file("request.new-volume");
    std::fs::write(&new_volume, words(&VL_GET_NEW_VOLUME_ID)).expect("as above");
    let call_with = |file: &str, server: &str, service: &str, credentials: &[&str]| {
        let call = ["call", server, "--service", service, "--file", file, "--json"];
        cell.exec(ours(Ours::Rx), &[&call[..], credentials].concat())
    };
    let call = |server: &str, service: &str, credentials: &[&str]| {
        call_with(&request, server, service, credentials)
    };
    for level in LEVELS {
        for (ticket, credentials) in [("KDC's ticket", &kdc[..]), ("printed, afs", &printed)] {
            let all = [&["--security", "rxkad", "--level", level], credentials].concat();
            let ran = call(&vl, "52", &all);
            let good = ran.code == Some(0) && field(ran.json(), "ok") == Some("true");
            row(&mut table, &format!("vlserver, {level}, rx call, {ticket}"), &ran, good);
            let ran = call_with(&new_volume, &vl, "52", &all);
            let good = ran.code == Some(0) && field(ran.json(), "ok") == Some("true");
            let what = format!("vlserver, {level}, a new volume id, {ticket}");
            row(&mut table, &what, &ran, good);
        }
    }

    // Our server with the cell's keys, OpenAFS's client with a KDC's ticket and with a printed one.
    let echo = format!("{ADDRESS}:7009");
    let server = ["--listen", &echo, "--security", "rxkad", "--key-file", &key_file, "--require"];
    cell.serve(ours(Ours::EchoServer), &server);
    let cache = format!("KRB5CCNAME=FILE:{admin}");
    let confdir = cell.file("etc/server");
    let is = |ran: &Ran, key, value| field(ran.json(), key) == Some(value);
    for level in LEVELS {
        let class = format!("rxkad-{level}");
        for (ticket, option) in
            [("KDC's ticket", ["--krb5", SERVICE]), ("printed", ["--confdir", &confdir])]
        {
            let rxpeer = rig.rxpeer().to_str().expect("the build folder has a name in UTF-8");
            let call = [&cache, rxpeer, "client", ADDRESS, "7009", "echo", "--bytes", "100000"];
            let all = [&call[..], &["--security", &class], &option].concat();
            let ran = cell.exec("env", &all);
            let good =
                ran.code == Some(0) && is(&ran, "errors", "0") && is(&ran, "bad_content", "0");
            row(&mut table, &format!("OpenAFS at echo-server, {level}, {ticket}"), &ran, good);
        }
        let call = ["perf", &echo, "echo", "--bytes", "100000", "--json"];
        let all = [&call[..], &["--security", "rxkad", "--level", level], &kdc].concat();
        let ran = cell.exec(ours(Ours::Rx), &all);
        let good = ran.code == Some(0) && is(&ran, "ok", "true");
        row(&mut table, &format!("rx at echo-server, {level}, KDC's ticket"), &ran, good);
    }

    // Who is somebody else, or nobody, may not do it.
    let user1 = log_in(&cell, "user1");
    let arguments = [&pts, "nobody1", "--ccache", &user1, "--principal", SERVICE];
    let ran = cell.exec(&afs_user, &arguments);
    let good = ran.code == Some(1) && ran.stderr.contains(&NOT_PERMITTED.to_string());
    row(&mut table, "ptserver: an ordinary user makes no user", &ran, good);
    // PR_NewEntry of `x`.
    std::fs::write(&request, [words(&[509, 1]), b"x\0\0\0".to_vec(), words(&[0, 0])].concat())
        .expect("as above");
    let ordinary = ["--security", "rxkad", "--ccache", &user1, "--principal", SERVICE];
    for (who, credentials) in [("an ordinary user", &ordinary[..]), ("nobody", &[])] {
        let ran = call_with(&new_volume, &vl, "52", credentials);
        let good = ran.code == Some(3) && ran.stdout.contains(&VL_NOT_PERMITTED.to_string());
        row(&mut table, &format!("vlserver: {who} gets no new volume id"), &ran, good);
    }
    let ran = call(&pts, "73", &[]);
    let good = ran.code == Some(3) && ran.stdout.contains(&NOT_PERMITTED.to_string());
    row(&mut table, "ptserver: without security nobody does", &ran, good);
    let ran = call(
        &pts,
        "73",
        &["--security", "rxkad", "--ccache", &admin, "--principal", "afs/elsewhere"],
    );
    let good = ran.code == Some(2) && ran.stdout.contains("no ticket for afs/elsewhere");
    row(&mut table, "rx says which ticket the cache has not", &ran, good);
    table.finish();
}
