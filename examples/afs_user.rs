//! How do I prove who I am to an AFS server? Makes a user in the protection server, reads it back, and
//! removes it again.
//!
//! ```text
//! afs_user HOST:7002 NAME --ccache FILE --principal afs/CELL [--level clear|auth|crypt]
//! afs_user HOST:7002 NAME --key-file /etc/openafs/server/KeyFileExt
//! ```
//!
//! Requests and replies are raw XDR, of OpenAFS's `ptint.xg`.

mod afs;

use std::time::Duration;

use afs::xdr::{all_words, characters, chars, string, word, words};
use afs::{Arguments, Problem, options};
use bytes::Bytes;
use rxrpc::{Connection, Endpoint};

/// The protection server's service.
const PTS: u16 = 73;

const NAME_TO_ID: u32 = 504;
const DELETE: u32 = 506;
const NEW_ENTRY: u32 = 509;
const LIST_ENTRY: u32 = 512;

/// What an unknown name has for an id.
const ANONYMOUS: u32 = 32766;

const NAME_LEN: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Problem> {
    let arguments = Arguments::read(&[])?;
    let name = arguments.plain.get(1).ok_or("no NAME")?;
    let endpoint = Endpoint::builder().start().await?;
    let server = arguments.server().await?;
    let pts = endpoint.connect_with(server, PTS, arguments.connect_options()?).await?;

    // PR_NewEntry: name, flag 0 = a user, owner 0 = us.
    let reply =
        call_words(&pts, [words(&[NEW_ENTRY]), string(name), words(&[0, 0])].concat()).await?;
    let [id] = reply[..] else { return Err("PR_NewEntry: not one word".into()) };
    println!("made {name}, id {id}");

    if id_of(&pts, name).await? != id {
        return Err(format!("{name} has another id").into());
    }
    // PR_ListEntry: flags, id, owner, creator, eight more numbers, then the name.
    let reply = call(&pts, words(&[LIST_ENTRY, id])).await?;
    let (found, creator) = (word(&reply, 1)?, word(&reply, 3)?);
    let entry = characters(&reply, 12, NAME_LEN)?;
    if found != id || entry != *name {
        return Err(format!("the entry says {entry:?}, id {found}").into());
    }
    println!("read back {entry}, id {id}, creator {}", creator as i32);

    call(&pts, words(&[DELETE, id])).await?;
    if id_of(&pts, name).await? != ANONYMOUS {
        return Err(format!("{name} is still there").into());
    }
    println!("removed {name}");
    drop(pts);
    endpoint.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

async fn call(pts: &Connection, request: Vec<u8>) -> Result<Bytes, Problem> {
    Ok(pts.call_with(request, options()).await?)
}

async fn call_words(pts: &Connection, request: Vec<u8>) -> Result<Vec<u32>, Problem> {
    Ok(all_words(&call(pts, request).await?)?)
}

/// PR_NameToID: a list of names, a list of ids.
async fn id_of(pts: &Connection, name: &str) -> Result<u32, Problem> {
    let request = [words(&[NAME_TO_ID, 1]), chars(name, NAME_LEN)].concat();
    match call_words(pts, request).await?[..] {
        [1, id] => Ok(id),
        _ => Err("PR_NameToID: not one id".into()),
    }
}
