//! How do I write a file in AFS, without a cache manager? Makes a file in the root folder of a volume, stores
//! bytes in it, fetches them back, compares, and removes the file.
//!
//! ```text
//! afs_store HOST:7000 VOLUME-ID [--bytes N] --ccache FILE --principal afs/CELL [--level clear|auth|crypt]
//! afs_store HOST:7000 VOLUME-ID [--bytes N] --key-file /etc/openafs/server/KeyFileExt
//! ```
//!
//! A file server calls its clients back, on the port that they call from, before it serves them and when a
//! file changes: so the endpoint is client and server at once. Requests and replies are raw XDR, of OpenAFS's
//! `afsint.xg` and `afscbint.xg`.

mod afs;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use afs::xdr::{all_words, string, words};
use afs::{Arguments, Problem, options};
use bytes::Bytes;
use rxrpc::{AbortCode, Connection, Endpoint, Request, unary};
use tokio::io::AsyncReadExt;

/// The service of file servers, and of cache managers: each calls the other by it.
const FILES: u16 = 1;

const FETCH_DATA: u32 = 130;
const STORE_DATA: u32 = 133;
const REMOVE_FILE: u32 = 136;
const CREATE_FILE: u32 = 137;

/// Words of AFSFetchStatus, AFSVolSync, AFSCallBack.
const STATUS: usize = 21;
const SYNC: usize = 6;
const CALLBACK: usize = 3;

const PIECE: usize = 64 << 10;

/// How often the file server has called back.
static CALLED_BACK: AtomicUsize = AtomicUsize::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Problem> {
    let arguments = Arguments::read(&["bytes"])?;
    let volume: u32 = arguments.plain.get(1).ok_or("no VOLUME-ID")?.parse()?;
    let count: u32 = arguments.option("bytes").unwrap_or("20000000").parse()?;
    let endpoint = Endpoint::builder().service(FILES, unary(call_back)).start().await?;
    let server = arguments.server().await?;
    let files = endpoint.connect_with(server, FILES, arguments.connect_options()?).await?;

    let name = format!("afs_store.{}.{}", std::process::id(), endpoint.local_addr().port());
    // The root folder of a volume.
    let folder = [volume, 1, 1];
    // RXAFS_CreateFile: the folder, a name, and of the new status only the mode bits.
    let status = [8, 0, 0, 0, 0o644, 0];
    let request = [words(&[CREATE_FILE]), words(&folder), string(&name), words(&status)].concat();
    let reply = all_words(&files.call_with(request, options()).await?)?;
    size("RXAFS_CreateFile", reply.len(), 3 + 2 * STATUS + CALLBACK + SYNC)?;
    let file: [u32; 3] = [reply[0], reply[1], reply[2]];
    println!("made {name}, {}.{}.{}", file[0], file[1], file[2]);

    let result = store_and_fetch(&files, file, count).await;

    let request = [words(&[REMOVE_FILE]), words(&folder), string(&name)].concat();
    let reply = files.call_with(request, options()).await?;
    result?;
    size("RXAFS_RemoveFile", all_words(&reply)?.len(), STATUS + SYNC)?;
    println!("removed {name}");
    println!("answered {} callbacks", CALLED_BACK.load(Ordering::Relaxed));
    drop(files);
    endpoint.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

async fn store_and_fetch(files: &Connection, file: [u32; 3], count: u32) -> Result<(), Problem> {
    // RXAFS_StoreData: status (nothing of it), offset, bytes, length of the file; then the bytes.
    let began = Instant::now();
    let mut request = files.open_call(options()).await?;
    let status = [0; 6];
    let head = [words(&[STORE_DATA]), words(&file), words(&status), words(&[0, count, count])];
    request.write(head.concat()).await?;
    for from in (0..count as usize).step_by(PIECE) {
        request.write(content(from, count as usize)).await?;
    }
    let mut reply = request.finish()?;
    let mut bytes = Vec::new();
    reply.read_to_end(&mut bytes).await?;
    size("RXAFS_StoreData", all_words(&bytes)?.len(), STATUS + SYNC)?;
    println!("stored {count} bytes in {:.2} s", began.elapsed().as_secs_f64());

    // RXAFS_FetchData: offset, bytes; the reply has their number, then them.
    let began = Instant::now();
    let request = [words(&[FETCH_DATA]), words(&file), words(&[0, count])].concat();
    let mut call = files.open_call(options()).await?;
    call.write(request).await?;
    let mut reply = call.finish()?;
    let announced = reply.read_u32().await?;
    if announced != count {
        return Err(format!("{announced} bytes are there, not {count}").into());
    }
    for from in (0..count as usize).step_by(PIECE) {
        let expected = content(from, count as usize);
        let mut piece = vec![0; expected.len()];
        reply.read_exact(&mut piece).await?;
        if piece != expected {
            return Err(format!("other bytes came back, within {PIECE} of {from}").into());
        }
    }
    let mut rest = Vec::new();
    reply.read_to_end(&mut rest).await?;
    size("RXAFS_FetchData", all_words(&rest)?.len(), STATUS + CALLBACK + SYNC)?;
    println!("fetched {count} bytes, all the same, in {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn size(call: &str, words: usize, expected: usize) -> Result<(), Problem> {
    if words != expected {
        return Err(format!("{call}: a reply of {words} words, not {expected}").into());
    }
    Ok(())
}

/// A piece of the content, without any period that divides a packet's size.
fn content(from: usize, end: usize) -> Vec<u8> {
    (from..end.min(from + PIECE))
        .map(|at| (at * 167 + (at >> 8) * 59 + (at >> 16) * 31) as u8)
        .collect()
}

/// The least that satisfies a file server: we have no cache, so there is nothing to forget.
async fn call_back(request: Request) -> Result<Bytes, AbortCode> {
    let operation = request.bytes.first_chunk().map(|word| u32::from_be_bytes(*word));
    CALLED_BACK.fetch_add(1, Ordering::Relaxed);
    match operation {
        // CallBack, InitCallBackState, Probe, InitCallBackState3, ProbeUuid.
        Some(204 | 205 | 206 | 213 | 214) => Ok(Bytes::new()),
        // WhoAreYou: no interfaces, our UUID, room for 32 interfaces. TellMeAboutYourself: and no capabilities.
        Some(operation @ (212 | 65538)) => {
            let mut reply = words(&[0]);
            reply.extend(words(&uuid()));
            reply.extend(words(&[0; 3 * 32]));
            if operation == 65538 {
                reply.extend(words(&[0]));
            }
            Ok(reply.into())
        }
        _ => Err(AbortCode::RXGEN_OPCODE),
    }
}

/// A host with another UUID at the same address is another client: one for each run. Eleven words.
fn uuid() -> [u32; 11] {
    static UUID: std::sync::OnceLock<[u32; 11]> = std::sync::OnceLock::new();
    *UUID.get_or_init(|| {
        let random: [u32; 11] = rand::random();
        // Two shorts and eight characters among them.
        std::array::from_fn(|at| match at {
            0 => random[at],
            1 | 2 => random[at] & 0xffff,
            _ => random[at] & 0x7f,
        })
    })
}
