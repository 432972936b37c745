//! A server's keys: from the files of an AFS server, from a keytab, from a command line.
//!
//! Single-DES keys are known by their version alone, all others by version and enctype. The readers of files
//! are strict, and reserve no memory by a number that stands in a file.

mod argument;
pub mod ccache;
mod files;
mod keytab;
mod token;

pub use argument::{KeyArgument, KeyArgumentError};
pub use files::KeyFileError;
pub use token::{TicketForm, TokenError, new_session_key};

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::krb5::des::{has_odd_parity, is_weak};
use super::krb5::{EncType, Krb5Key};
use super::{OpenedTicket, RxkadError, TicketOpener, ticket};

/// The version that marks a KeyFile as not to be used: it has no newest key.
const NOT_A_VERSION: u32 = 999;

/// Key files have a few hundred bytes; what is larger is something else.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Room for what is read first of a file: more than most have.
const READ_BYTES: usize = 16 << 10;

/// In a place of its own: a list that grows leaves what it held behind.
type DesKey = Box<Zeroizing<[u8; 8]>>;

/// A server's keys. Wiped when dropped, never printed.
#[derive(Clone, Default)]
pub struct ServerKeys {
    des: Vec<(u32, DesKey)>,
    krb5: Vec<(u32, Krb5Key)>,
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let des: Vec<u32> = self.des.iter().map(|(kvno, _)| *kvno).collect();
        let krb5: Vec<_> = self.krb5.iter().map(|(kvno, key)| (*kvno, key.enctype().0)).collect();
        f.debug_struct("ServerKeys")
            .field("des kvno", &des)
            .field("(kvno, enctype)", &krb5)
            .finish()
    }
}

impl ServerKeys {
    /// No key: every ticket is refused.
    pub fn new() -> ServerKeys {
        ServerKeys::default()
    }

    /// Reads a KeyFileExt, a keytab (`rxkad.keytab`), or a KeyFile. The last is known by that name; under
    /// another name, as [`ServerKeys::parse`] knows it.
    pub fn load(path: impl AsRef<Path>) -> Result<ServerKeys, KeyFileError> {
        let path = path.as_ref();
        let file = read_file(path, FILE_MAX_BYTES)?;
        match path.file_name() {
            Some(name) if name == "KeyFile" => ServerKeys::parse_key_file(&file),
            _ => ServerKeys::parse(&file),
        }
    }

    /// As [`ServerKeys::load`], of a file's contents. A KeyFile begins like a KeyFileExt; it is taken for one
    /// if its first key's version is below 16, so that no KeyFileExt that was cut short is.
    pub fn parse(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
        if keytab::is_keytab(file) {
            return ServerKeys::parse_keytab(file);
        }
        match ServerKeys::parse_key_file_ext(file) {
            Err(KeyFileError::Metadata(1, _)) => ServerKeys::parse_key_file(file),
            result => result,
        }
    }

    /// The keys of a KeyFile.
    pub fn parse_key_file(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
        files::key_file(file)
    }

    /// The keys of a KeyFileExt that are for rxkad and of an enctype that is known here.
    pub fn parse_key_file_ext(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
        files::key_file_ext(file)
    }

    /// The keys of a keytab whose principal is `afs` or `afs/...` and whose enctype is known here.
    pub fn parse_keytab(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
        keytab::keytab(file)
    }

    /// Adds a key.
    pub fn insert(&mut self, kvno: u32, key: Krb5Key) {
        if !key.enctype().is_des() {
            return self.krb5.push((kvno, key));
        }
        let mut des = DesKey::default();
        des.copy_from_slice(key.expose());
        self.des.push((kvno, des));
    }

    /// Adds the keys of another set.
    pub fn extend(&mut self, other: ServerKeys) {
        self.des.extend(other.des);
        self.krb5.extend(other.krb5);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.des.len() + self.krb5.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Versions of single-DES keys that are weak, or of wrong parity: tickets under them are refused with
    /// RXKADBADKEY, as OpenAFS refuses them.
    pub fn unusable(&self) -> impl Iterator<Item = u32> {
        let is_unusable = |key: &[u8; 8]| !has_odd_parity(key) || is_weak(key);
        self.des.iter().filter(move |(_, key)| is_unusable(key)).map(|(kvno, _)| *kvno)
    }

    /// The single-DES keys of a version: more than one if the cell has several realms.
    pub(super) fn des(&self, kvno: u32) -> impl Iterator<Item = &[u8; 8]> {
        let of_version = move |(version, _): &&(u32, DesKey)| *version == kvno;
        self.des.iter().filter(of_version).map(|(_, key)| &***key)
    }

    /// The other keys of a version and enctype: more than one if the cell has several realms.
    pub(super) fn krb5(&self, kvno: u32, enctype: EncType) -> impl Iterator<Item = &Krb5Key> {
        let matches =
            move |version: u32, key: &Krb5Key| version == kvno && key.enctype() == enctype;
        self.krb5.iter().filter(move |(version, key)| matches(*version, key)).map(|(_, key)| key)
    }
}

impl TicketOpener for ServerKeys {
    fn open_ticket(
        &self,
        kvno: u32,
        ticket: &[u8],
        now: SystemTime,
    ) -> Result<OpenedTicket, RxkadError> {
        ticket::open(self, kvno, ticket, now)
    }
}

/// The contents of a file with secrets in it, if it is not larger than that.
fn read_file(path: &Path, max_bytes: u64) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    use std::io::Read;
    let unreadable = |source: std::io::Error| KeyFileError::Unreadable {
        path: path.to_owned(),
        source: source.into(),
    };
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Zeroizing::new(vec![0; READ_BYTES]);
    let mut len = 0;
    loop {
        if len == bytes.len() {
            // A vector that grows by itself leaves its contents where it was before, and unwiped.
            let mut larger = Zeroizing::new(vec![0; 2 * len]);
            larger[..len].copy_from_slice(&bytes);
            bytes = larger;
        }
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
        if len as u64 > max_bytes {
            return Err(KeyFileError::TooLarge(max_bytes));
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::rxkad::vectors;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_keys_in_the_files_of_openafs_are_those_that_it_reads() {
        let file = vectors::get("key_files").at("KeyFile");
        let keys = ServerKeys::parse(&file.at("bytes").bytes()).expect("keys");
        let expected = file.at("meaning").list();
        assert_eq!(keys.len(), expected.len());
        for entry in expected {
            let entry = entry.list();
            let key = keys.des(entry[0].number()).next().expect("a key");
            assert_eq!(hex(key), entry[1].text());
        }
        let file = vectors::get("key_files").at("KeyFileExt");
        let keys = ServerKeys::parse(&file.at("bytes").bytes()).expect("keys");
        let expected = file.at("meaning").list();
        assert_eq!(keys.len(), expected.len());
        for entry in expected {
            let enctype = EncType(entry.at("subtype").number() as i32);
            let found = keys.krb5(entry.at("kvno").number(), enctype);
            let found: Vec<_> = found.map(|key| hex(key.expose())).collect();
            assert_eq!(found, [entry.at("key").text()]);
        }
    }

    #[test]
    fn a_file_is_read_whole_whatever_its_length() {
        let path = std::env::temp_dir().join(format!("rxrpc-read-file-{}", std::process::id()));
        for len in [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 5 * READ_BYTES] {
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &content).expect("a temporary file");
            let max = len as u64;
            assert!(*read_file(&path, max).expect("a file") == content, "{len} bytes");
            if len > 0 {
                let refused = read_file(&path, max - 1);
                assert!(matches!(refused, Err(KeyFileError::TooLarge(most)) if most == max - 1));
            }
        }
        std::fs::remove_file(&path).expect("it was there");
    }
}
