//! Do the servers of this AFS cell answer? Asks a vlserver or a ptserver what a client can ask without any
//! AFS code: requests as raw bytes, without security. The questions, and what OpenAFS says to them, are in
//! interop/openafs/PROBES.md.
//!
//! ```text
//! vl_probe HOST:PORT            a vlserver (port 7003) that has a volume root.cell
//! vl_probe --pts HOST:PORT      a ptserver (port 7002)
//! ```
//!
//! One line per probe, `ok NAME …` or `FAIL NAME …`. Exit status 0 if all were good, 1 if one was not, 2 if
//! the command line was not understood.

#[path = "afs/xdr.rs"]
#[allow(dead_code)]
mod xdr;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::{AbortCode, CallOptions, Connection, Endpoint, ServiceId};
use tokio::net::lookup_host;
use xdr::{characters, chars, string, word, words};

const VL_SERVICE: ServiceId = ServiceId(52);
const PTS_SERVICE: ServiceId = ServiceId(73);

const VL_NOENT: AbortCode = AbortCode(363_524);

/// Longest wait for one answer.
const DEADLINE: Duration = Duration::from_secs(10);

const USAGE: &str = "usage: vl_probe HOST:PORT | vl_probe --pts HOST:PORT";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (is_pts, host) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--pts", host] => (true, host),
        [host] if !host.starts_with('-') => (false, host),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match probe_all(is_pts, host).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            println!("FAIL {host}: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn probe_all(is_pts: bool, host: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let peer = lookup_host(host).await?.find(|address| address.is_ipv4());
    let peer = peer.ok_or("the host has no IPv4 address")?;
    let endpoint = Endpoint::builder().start().await?;
    let service = if is_pts { PTS_SERVICE } else { VL_SERVICE };
    let connection = endpoint.connect(peer, service).await?;
    let mut probes = Probes { connection, failed: 0 };
    if is_pts {
        probes.pts().await
    } else {
        probes.vl().await
    }
    let Probes { connection, failed } = probes;
    drop(connection);
    endpoint.shutdown(Duration::from_secs(1)).await;
    Ok(failed == 0)
}

/// What a look at a reply finds: something to print, or what is wrong.
type Finding = Result<String, String>;

struct Probes {
    connection: Connection,
    failed: usize,
}

impl Probes {
    async fn vl(&mut self) {
        let name = string("root.cell");
        self.reply("VL_ProbeServer", words(&[514]), |reply| size(reply, 0)).await;
        // The volume's number, from the first reply that names it; all others must agree.
        let mut root = None;
        for (probe, operation, layout) in [
            ("VL_GetEntryByNameO", 504, ENTRY_O),
            ("VL_GetEntryByNameN", 519, ENTRY_N),
            ("VL_GetEntryByNameU", 527, ENTRY_U),
        ] {
            let request = [words(&[operation]), name.clone()].concat();
            self.reply(probe, request, |reply| layout.check(reply, &mut root)).await;
        }
        let request = words(&[503, root.unwrap_or(0), 0xffff_ffff]);
        self.reply("VL_GetEntryByID", request, |reply| ENTRY_O.check(reply, &mut root)).await;
        let request = [words(&[504]), string("no.such.volume")].concat();
        self.abort("VL_GetEntryByNameO, no such volume", request, VL_NOENT).await;
        let listed = self.list_entries().await;
        self.reply("VL_ListAttributesN", words(&[522, 0, 0, 0, 0, 0, 0]), |reply| {
            all_attributes(reply, &listed)
        })
        .await;
        self.abort("unknown operation", words(&[599]), AbortCode::RXGEN_OPCODE).await;
        self.abort("name without its length", words(&[504]), AbortCode::RXGEN_SS_UNMARSHAL).await;
    }

    /// Walks through the database; returns the names of its volumes.
    async fn list_entries(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let mut index = 0;
        // A server that never comes to an end must not keep us here.
        for _ in 0..100 {
            let mut next = 0;
            self.reply(&format!("VL_ListEntry, index {index}"), words(&[510, index]), |reply| {
                size(reply, 392)?;
                let left = word(reply, 0)?;
                next = word(reply, 1)?;
                if next == 0 {
                    return Ok("end".to_owned());
                }
                let name = characters(reply, 2, 65)?;
                names.push(name.clone());
                Ok(format!("{name}, {left} left, next index {next}"))
            })
            .await;
            index = next;
            if index == 0 {
                break;
            }
        }
        names
    }

    async fn pts(&mut self) {
        let names = ["system:administrators", "system:anyuser", "anonymous", "no-such-user"];
        let request = [words(&[504, 4]), names.map(|name| chars(name, 64)).concat()].concat();
        let ids = words(&[4, 0xffff_ff34, 0xffff_ff9b, 0x7ffe, 0x7ffe]);
        self.reply("PR_NameToID", request, |reply| same(reply, &ids, "-204 -101 32766 32766"))
            .await;
        let request = [words(&[504, 8]), chars("system:anyuser", 64).repeat(8)].concat();
        let ids = [words(&[8]), words(&[0xffff_ff9b]).repeat(8)].concat();
        self.reply("PR_NameToID, request of two packets", request, |reply| {
            same(reply, &ids, "8 times -101")
        })
        .await;
        let request = words(&[505, 2, 0xffff_ff34, 0x7ffe]);
        let names =
            [words(&[2]), chars("system:administrators", 64), chars("anonymous", 64)].concat();
        self.reply("PR_IDToName", request, |reply| {
            same(reply, &names, "system:administrators, anonymous")
        })
        .await;
        let request = [words(&[505, 20]), words(&[0xffff_ff9b]).repeat(20)].concat();
        let names = [words(&[20]), chars("system:anyuser", 64).repeat(20)].concat();
        self.reply("PR_IDToName, reply of four packets", request, |reply| {
            same(reply, &names, "20 times system:anyuser")
        })
        .await;
        self.abort("unknown operation", words(&[599]), AbortCode::RXGEN_OPCODE).await;
        self.abort("list without its length", words(&[504]), AbortCode::RXGEN_SS_UNMARSHAL).await;
    }

    /// A call that must be answered; `check` looks at the reply.
    async fn reply(&mut self, probe: &str, request: Vec<u8>, check: impl FnOnce(&[u8]) -> Finding) {
        let finding = match self.call(request).await {
            Ok(reply) => check(&reply).map(|found| format!("{} bytes, {found}", reply.len())),
            Err(error) => Err(error.to_string()),
        };
        self.print(probe, finding);
    }

    /// A call that the server must abort with this code.
    async fn abort(&mut self, probe: &str, request: Vec<u8>, expected: AbortCode) {
        let finding = match self.call(request).await {
            Ok(reply) => Err(format!("{} bytes, not an abort", reply.len())),
            Err(error) if error.abort_code() == Some(expected) => Ok(format!("abort {expected}")),
            Err(error) => Err(error.to_string()),
        };
        self.print(probe, finding);
    }

    async fn call(&self, request: Vec<u8>) -> Result<Bytes, rxrpc::CallError> {
        self.connection.call_with(request, CallOptions::within(DEADLINE)).await
    }

    fn print(&mut self, probe: &str, finding: Finding) {
        match finding {
            Ok(found) => println!("ok   {probe}: {found}"),
            Err(problem) => {
                println!("FAIL {probe}: {problem}");
                self.failed += 1;
            }
        }
    }
}

/// Where a VLDB entry keeps what we look at: the reply's size in bytes, then word numbers.
#[derive(Clone, Copy)]
struct EntryLayout {
    bytes: usize,
    servers: usize,
    volume: usize,
}

const ENTRY_O: EntryLayout = EntryLayout { bytes: 384, servers: 66, volume: 91 };
const ENTRY_N: EntryLayout = EntryLayout { bytes: 476, servers: 65, volume: 105 };
const ENTRY_U: EntryLayout = EntryLayout { bytes: 1048, servers: 65, volume: 248 };

impl EntryLayout {
    fn check(self, reply: &[u8], root: &mut Option<u32>) -> Finding {
        size(reply, self.bytes)?;
        let name = characters(reply, 0, 65)?;
        let (servers, volume) = (word(reply, self.servers)?, word(reply, self.volume)?);
        if name != "root.cell" || servers != 1 {
            return Err(format!("entry of {name:?} on {servers} servers"));
        }
        match *root {
            Some(before) if before != volume => Err(format!("volume {volume}, before {before}")),
            _ => {
                *root = Some(volume);
                Ok(format!("{name}, {servers} server, volume {volume}"))
            }
        }
    }
}

/// The bulk listing names the same volumes as the walk did.
fn all_attributes(reply: &[u8], listed: &[String]) -> Finding {
    let (count, length) = (word(reply, 0)? as usize, word(reply, 1)? as usize);
    size(reply, 8 + listed.len() * ENTRY_N.bytes)?;
    if (count, length) != (listed.len(), listed.len()) {
        return Err(format!("count {count}, array of {length}, but {} volumes", listed.len()));
    }
    let mut found = (0..count)
        .map(|entry| characters(reply, 2 + entry * ENTRY_N.bytes / 4, 65))
        .collect::<Result<Vec<_>, _>>()?;
    let mut listed = listed.to_vec();
    found.sort();
    listed.sort();
    if found == listed { Ok(found.join(" ")) } else { Err(format!("{found:?}, not {listed:?}")) }
}

fn size(reply: &[u8], expected: usize) -> Finding {
    match reply.len() {
        len if len == expected => Ok("the right size".to_owned()),
        len => Err(format!("{len} bytes instead of {expected}")),
    }
}

fn same(reply: &[u8], expected: &[u8], in_words: &str) -> Finding {
    if reply == expected { Ok(in_words.to_owned()) } else { Err(format!("not {in_words}")) }
}
