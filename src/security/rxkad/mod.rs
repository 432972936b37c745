//! rxkad, security index 2: what AFS cells use.
//!
//! The client has a [`Token`]: a ticket that only the server can open, and the session key that is in it. A
//! server opens the ticket with its own keys ([`TicketOpener`]); from then on both hold the session key,
//! and a challenge and its response have proved it.
//!
//! rxkad is broken as cryptography: the session key has 56 bits, the cipher is weak, nothing protects
//! the integrity of the data at any level, and the table look-ups of the cipher leak timing. It exists to
//! talk to AFS cells, not to keep secrets.
//!
//! This module knows the packets and the handshake. What is in a ticket is the business of whoever
//! implements [`TicketOpener`].

mod error;
mod fcrypt;
mod key;
mod pcbc;
#[cfg(test)]
mod vectors;

pub use error::RxkadError;
pub use key::SessionKey;

use std::fmt;
use std::time::SystemTime;

/// Who a ticket was made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Never empty.
    pub name: String,
    /// Often empty.
    pub instance: String,
    /// Empty = the server's own cell.
    pub cell: String,
}

/// `name`, `name.instance`, `name@cell` or `name.instance@cell`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.instance.is_empty() {
            write!(f, ".{}", self.instance)?;
        }
        if !self.cell.is_empty() {
            write!(f, "@{}", self.cell)?;
        }
        Ok(())
    }
}

/// What a server finds in a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedTicket {
    /// Shared with the client.
    pub key: SessionKey,
    /// The client.
    pub client: Principal,
    /// When the ticket begins to be valid.
    pub starts: SystemTime,
    /// When it ends. A ticket that never expires has the last second that 32 bits hold.
    pub expires: SystemTime,
}

/// Opens tickets with a server's keys.
pub trait TicketOpener: fmt::Debug + Send + Sync {
    /// What is in `ticket`, if it is good at `now`. `kvno` is the key version of the RESPONSE: 213 and 256
    /// stand for the two forms of Kerberos 5 tickets. The length of the ticket has been checked against
    /// the limits of OpenAFS (32 to 12000 bytes), nothing else.
    fn open_ticket(
        &self,
        kvno: u32,
        ticket: &[u8],
        now: SystemTime,
    ) -> Result<OpenedTicket, RxkadError>;
}

/// What a client proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The version of the server's key, or 213 or 256 for a Kerberos 5 ticket.
    pub kvno: u32,
    /// Only the server can open it.
    pub ticket: Vec<u8>,
    /// The session key, which is in the ticket as well.
    pub key: SessionKey,
    /// When the ticket ends.
    pub expires: SystemTime,
}

/// How much of a packet rxkad protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The header checksum only.
    Clear,
    /// And the first eight bytes of the body, encrypted.
    Auth,
    /// And the whole body, encrypted.
    #[default]
    Crypt,
}

impl Level {
    /// The number in challenges and responses.
    pub const fn wire(self) -> u32 {
        self as u32
    }

    /// The level of a number; `None` = there is none.
    pub const fn from_wire(number: u32) -> Option<Level> {
        match number {
            0 => Some(Level::Clear),
            1 => Some(Level::Auth),
            2 => Some(Level::Crypt),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Clear => "clear",
            Level::Auth => "auth",
            Level::Crypt => "crypt",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_leaves_out_what_is_empty() {
        let principal = |name: &str, instance: &str, cell: &str| {
            let [name, instance, cell] = [name, instance, cell].map(str::to_owned);
            Principal { name, instance, cell }.to_string()
        };
        assert_eq!(principal("admin", "", ""), "admin");
        assert_eq!(principal("admin", "", "EXAMPLE.ORG"), "admin@EXAMPLE.ORG");
        assert_eq!(principal("rcmd", "host", "EXAMPLE.ORG"), "rcmd.host@EXAMPLE.ORG");
    }

    #[test]
    fn levels_have_the_numbers_of_the_wire() {
        for level in [Level::Clear, Level::Auth, Level::Crypt] {
            assert_eq!(Level::from_wire(level.wire()), Some(level));
        }
        assert_eq!(Level::from_wire(3), None);
        assert!(Level::Clear < Level::Auth && Level::Auth < Level::Crypt);
    }
}
