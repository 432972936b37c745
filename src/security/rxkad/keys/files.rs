//! KeyFile and KeyFileExt, the files of OpenAFS's servers.

use std::path::PathBuf;
use std::sync::Arc;

use super::{EncType, Krb5Key, ServerKeys};
use crate::security::rxkad::krb5::Krb5Error;

/// Most keys of a KeyFile.
const KEY_FILE_KEYS_MAX: u32 = 8;
/// Bytes of the numbers that describe a key of a KeyFileExt, the length of them all included.
const METADATA_LEN: u32 = 16;
/// The type of rxkad's keys in a KeyFileExt. 0 would be single DES, which is in KeyFile; 1 is another class's.
const TYPE_RXKAD_KRB5: u32 = 2;

/// What is wrong with a file of keys.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The operating system does not give it to us.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// More bytes than a file of keys has.
    #[error("larger than {0} bytes: this is no file of keys")]
    TooLarge(u64),
    /// It ends early.
    #[error("the file ends in the middle of entry {0}")]
    Truncated(usize),
    /// Bytes that belong to nothing.
    #[error("{0} bytes too many behind the last key")]
    Trailing(usize),
    /// More keys than there may be.
    #[error("{0} keys, where at most 8 can be")]
    TooManyKeys(u32),
    /// The length of what describes a key is less than what is always there.
    #[error("entry {0}: {1} bytes of metadata, where there are at least 16")]
    Metadata(usize, u32),
    /// A key and its type do not belong together.
    #[error("entry {entry}: {source}")]
    Key {
        /// Its place, from 1.
        entry: usize,
        /// What is wrong.
        source: Krb5Error,
    },
    /// It does not begin as a keytab does.
    #[error("not a keytab of version 2")]
    NotAKeytab,
    /// A length in it makes no sense.
    #[error("entry {0} is damaged")]
    Damaged(usize),
}

/// Bytes of one file, read from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes behind their number in two bytes.
    pub fn counted_u16(&mut self) -> Option<&'a [u8]> {
        let count = self.u16()?;
        self.bytes(count.into())
    }

    /// Bytes behind their number in four bytes.
    pub fn counted_u32(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.bytes(usize::try_from(count).ok()?)
    }
}

/// A number of keys, then for each its version and eight bytes. What follows the last is ignored, as OpenAFS
/// ignores it: it writes all eight places.
pub(super) fn key_file(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
    let mut reader = Reader(file);
    let count = reader.u32().ok_or(KeyFileError::Truncated(0))?;
    if count > KEY_FILE_KEYS_MAX {
        return Err(KeyFileError::TooManyKeys(count));
    }
    let mut keys = ServerKeys::new();
    for entry in 1..=count as usize {
        let mut read = || Some((reader.u32()?, reader.bytes(8)?));
        let (kvno, key) = read().ok_or(KeyFileError::Truncated(entry))?;
        insert(&mut keys, entry, kvno, EncType::DES_CBC_CRC, key)?;
    }
    Ok(keys)
}

/// A number of keys, then for each: length of the numbers that describe it, type, version, sub-type (the
/// enctype), and whatever a later version may add; then the key behind its length.
pub(super) fn key_file_ext(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
    let mut reader = Reader(file);
    let count = reader.u32().ok_or(KeyFileError::Truncated(0))?;
    let mut keys = ServerKeys::new();
    for entry in 1..=count as usize {
        let truncated = || KeyFileError::Truncated(entry);
        let metadata = reader.u32().ok_or_else(truncated)?;
        if metadata < METADATA_LEN {
            return Err(KeyFileError::Metadata(entry, metadata));
        }
        let mut numbers = || Some((reader.u32()?, reader.u32()?, reader.u32()?));
        let (key_type, kvno, enctype) = numbers().ok_or_else(truncated)?;
        let excess = metadata - METADATA_LEN;
        usize::try_from(excess).ok().and_then(|len| reader.bytes(len)).ok_or_else(truncated)?;
        let key = reader.counted_u32().ok_or_else(truncated)?;
        if key_type == TYPE_RXKAD_KRB5 {
            let enctype = i32::try_from(enctype).map_err(|_| KeyFileError::Damaged(entry))?;
            insert(&mut keys, entry, kvno, EncType(enctype), key)?;
        }
    }
    match reader.0.len() {
        0 => Ok(keys),
        more => Err(KeyFileError::Trailing(more)),
    }
}

/// Adds a key, unless there is no code for its enctype: other servers may know it.
pub(super) fn insert(
    keys: &mut ServerKeys,
    entry: usize,
    kvno: u32,
    enctype: EncType,
    key: &[u8],
) -> Result<(), KeyFileError> {
    match Krb5Key::new(enctype, key) {
        Ok(key) => keys.insert(kvno, key),
        Err(Krb5Error::UnknownEncType(enctype)) => {
            log::info!("key {entry}, version {kvno}: enctype {enctype} is not known here");
        }
        Err(source) => return Err(KeyFileError::Key { entry, source }),
    }
    Ok(())
}
