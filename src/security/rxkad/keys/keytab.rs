//! MIT's keytab, version 2: `rxkad.keytab`, and what `ktadd` writes.

use super::files::{KeyFileError, Reader, insert};
use super::{EncType, ServerKeys};

const MAGIC: &[u8] = &[5, 2];

/// The service of an AFS cell: `afs/cell`, or just `afs`.
const SERVICE: &[u8] = b"afs";

pub(super) fn is_keytab(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

pub(super) fn keytab(file: &[u8]) -> Result<ServerKeys, KeyFileError> {
    let mut reader = Reader(file.strip_prefix(MAGIC).ok_or(KeyFileError::NotAKeytab)?);
    let mut keys = ServerKeys::new();
    for number in 1.. {
        if reader.0.is_empty() {
            break;
        }
        let truncated = || KeyFileError::Truncated(number);
        let size = reader.u32().ok_or_else(truncated)? as i32;
        if size == 0 {
            break;
        }
        // A negative size is that of a hole, where a key was removed.
        let record = reader.bytes(size.unsigned_abs() as usize).ok_or_else(truncated)?;
        if size < 0 {
            continue;
        }
        let entry = entry(record).ok_or(KeyFileError::Damaged(number))?;
        if entry.is_afs {
            insert(&mut keys, number, entry.kvno, entry.enctype, entry.key)?;
        }
    }
    Ok(keys)
}

struct Entry<'a> {
    is_afs: bool,
    kvno: u32,
    enctype: EncType,
    key: &'a [u8],
}

fn entry(record: &[u8]) -> Option<Entry<'_>> {
    let mut reader = Reader(record);
    let components = reader.u16()?;
    let _realm = reader.counted_u16()?;
    let mut is_afs = false;
    for component in 0..components {
        let text = reader.counted_u16()?;
        is_afs |= component == 0 && text == SERVICE;
    }
    let _name_type = reader.u32()?;
    let _timestamp = reader.u32()?;
    let short_kvno = reader.u8()?;
    let enctype = reader.u16()? as i16;
    let key = reader.counted_u16()?;
    // Newer files repeat the version where there is room for all of it.
    let kvno = reader.u32().filter(|kvno| *kvno != 0).unwrap_or(short_kvno.into());
    Some(Entry { is_afs, kvno, enctype: EncType(enctype.into()), key })
}
