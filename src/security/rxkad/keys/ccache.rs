//! A Kerberos credential cache, FILE format, versions 3 and 4: what `kinit` and `kvno afs/CELL` leave behind.
//! So that a user needs neither a kernel nor `aklog`.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::files::{KeyFileError, Reader};
use super::read_file;
use crate::security::rxkad::krb5::{EncType, session_key};
use crate::security::rxkad::ticket::KVNO_K5_WHOLE;
use crate::security::rxkad::{SessionKey, TICKET_LEN, Token};

/// Caches hold a handful of tickets; those of Active Directory have some kilobytes each.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// The realm of entries that are settings, not tickets.
const SETTINGS_REALM: &[u8] = b"X-CACHECONF:";

/// What is wrong with a cache, or not in it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CcacheError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// Another version, or no cache.
    #[error("not a Kerberos credential cache of version 3 or 4")]
    NotACcache,
    /// It ends early.
    #[error("the credential cache ends in the middle of entry {0}")]
    Truncated(usize),
    /// There are tickets for others.
    #[error("no ticket for {principal} in the cache; `kvno {principal}` gets one")]
    NoTicket {
        /// Who was looked for.
        principal: String,
    },
    /// There was one.
    #[error("the ticket for {principal} has expired; `kinit` and `kvno {principal}` get another")]
    Expired {
        /// Who was looked for.
        principal: String,
    },
    /// Its session key is of a kind that rxkad cannot use.
    #[error("the session key of the ticket for {principal} is of no use to rxkad")]
    SessionKey {
        /// Who was looked for.
        principal: String,
    },
    /// No server takes a ticket of this length.
    #[error(
        "the ticket for {principal} has {len} bytes: rxkad takes {} to {}",
        TICKET_LEN.start(),
        TICKET_LEN.end()
    )]
    TicketLen {
        /// Who was looked for.
        principal: String,
        /// Bytes of the ticket.
        len: usize,
    },
}

/// A cache.
pub struct Ccache {
    tickets: Vec<Ticket>,
}

struct Ticket {
    server: Name,
    ends: u32,
    /// `None` = the session key is of no use.
    key: Option<Box<SessionKey>>,
    ticket: Vec<u8>,
}

/// Whose ticket it is.
#[derive(PartialEq, Eq)]
struct Name {
    /// Components with `/` between them; `/`, `@` and `\` that belong to one of them stand behind a `\`.
    components: Vec<u8>,
    realm: Vec<u8>,
}

/// As Kerberos's own tools write it.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.components);
        write!(f, "\"{text}@{}\"", String::from_utf8_lossy(&self.realm))
    }
}

impl fmt::Debug for Ccache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tickets.iter().map(|ticket| &ticket.server)).finish()
    }
}

impl Ccache {
    /// Reads a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Ccache, CcacheError> {
        Ccache::parse(&read_file(path.as_ref(), FILE_MAX_BYTES)?)
    }

    /// Reads a file's contents.
    pub fn parse(file: &[u8]) -> Result<Ccache, CcacheError> {
        let (version, mut reader) = match file {
            [5, version @ (3 | 4), rest @ ..] => (*version, Reader(rest)),
            _ => return Err(CcacheError::NotACcache),
        };
        let start = |reader: &mut Reader<'_>| {
            if version == 4 {
                reader.counted_u16()?;
            }
            principal(reader)
        };
        start(&mut reader).ok_or(CcacheError::Truncated(0))?;
        let mut tickets = Vec::new();
        for number in 1.. {
            if reader.0.is_empty() {
                break;
            }
            tickets.extend(entry(&mut reader, version).ok_or(CcacheError::Truncated(number))?);
        }
        Ok(Ccache { tickets })
    }

    /// The token for a service: `afs/CELL@REALM`, or without `@REALM` that of any realm. Of several tickets
    /// the one that lasts longest. A `/` or `@` inside a component is written `\/` or `\@`, as Kerberos's own
    /// tools do; what is no principal has no ticket.
    pub fn token(&self, principal: &str, now: SystemTime) -> Result<Token, CcacheError> {
        let name = || principal.to_owned();
        let wanted = wanted(principal);
        let is_meant = |server: &Name| match &wanted {
            Some((components, None)) => server.components == *components,
            Some((components, Some(realm))) => {
                server.components == *components && server.realm == *realm
            }
            None => false,
        };
        let meant = self.tickets.iter().filter(|ticket| is_meant(&ticket.server));
        let ticket = meant.max_by_key(|ticket| (ticket.key.is_some(), ticket.ends));
        let ticket = ticket.ok_or_else(|| CcacheError::NoTicket { principal: name() })?;
        let expires = UNIX_EPOCH + Duration::from_secs(ticket.ends.into());
        if expires <= now {
            return Err(CcacheError::Expired { principal: name() });
        }
        let key = ticket.key.as_deref().cloned();
        let key = key.ok_or_else(|| CcacheError::SessionKey { principal: name() })?;
        let len = ticket.ticket.len();
        if !TICKET_LEN.contains(&len) {
            return Err(CcacheError::TicketLen { principal: name(), len });
        }
        Ok(Token { kvno: KVNO_K5_WHOLE, ticket: ticket.ticket.clone(), key, expires })
    }
}

/// Components and realm of a principal that a user wrote; `None` = it is none.
fn wanted(text: &str) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (mut components, mut realm) = (Vec::new(), None::<Vec<u8>>);
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let (byte, is_literal) = match byte {
            b'\\' => {
                let byte = match rest.next()? {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'b' => 8,
                    b'0' => 0,
                    other => other,
                };
                (byte, true)
            }
            byte => (byte, false),
        };
        match (byte, &mut realm) {
            (b'@', Some(_)) if !is_literal => return None,
            (b'@', None) if !is_literal => realm = Some(Vec::new()),
            (byte, Some(realm)) => realm.push(byte),
            (b'/', None) if !is_literal => components.push(byte),
            (byte, None) => push_escaped(&mut components, byte),
        }
    }
    Some((components, realm))
}

fn push_escaped(name: &mut Vec<u8>, byte: u8) {
    if matches!(byte, b'/' | b'@' | b'\\') {
        name.push(b'\\');
    }
    name.push(byte);
}

/// One entry; it can be no ticket, but a setting.
fn entry(reader: &mut Reader<'_>, version: u8) -> Option<Option<Ticket>> {
    principal(reader)?;
    let server = principal(reader)?;
    let enctype = reader.u16()? as i16;
    if version == 3 {
        // The same again.
        reader.u16()?;
    }
    let key = session_key(EncType(enctype.into()), reader.counted_u32()?).ok().map(Box::new);
    let _authenticated = reader.u32()?;
    let _starts = reader.u32()?;
    let ends = reader.u32()?;
    let _renewable_until = reader.u32()?;
    let is_for_user_to_user = reader.u8()? != 0;
    let _flags = reader.u32()?;
    // Addresses, then authorization data.
    for _ in 0..2 {
        let count = reader.u32()?;
        for _ in 0..count {
            reader.u16()?;
            reader.counted_u32()?;
        }
    }
    let ticket = reader.counted_u32()?.to_vec();
    let _second_ticket = reader.counted_u32()?;
    let server = server.filter(|_| !is_for_user_to_user);
    Some(server.map(|server| Ticket { server, ends, key, ticket }))
}

/// A name with its realm; the inner `None` is that of a setting.
fn principal(reader: &mut Reader<'_>) -> Option<Option<Name>> {
    let _name_type = reader.u32()?;
    let count = reader.u32()?;
    let realm = reader.counted_u32()?;
    let mut components = Vec::new();
    for number in 0..count {
        let component = reader.counted_u32()?;
        if number > 0 {
            components.push(b'/');
        }
        component.iter().for_each(|byte| push_escaped(&mut components, *byte));
    }
    let is_setting = realm == SETTINGS_REALM;
    Some((!is_setting).then(|| Name { components, realm: realm.to_vec() }))
}
