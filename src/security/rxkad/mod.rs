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
//! The class knows the packets and the handshake. What is in a ticket is the business of whoever implements
//! [`TicketOpener`]: [`keys::ServerKeys`] with a server's own keys ([`ticket`], [`krb5`]). A client has its
//! token from Kerberos's cache ([`keys::ccache`]), or prints one with a server key.

mod class;
mod error;
mod fcrypt;
mod handshake;
mod key;
pub mod keys;
pub mod krb5;
mod pcbc;
mod session;
pub mod ticket;
#[cfg(test)]
mod vectors;

pub use class::{Client, INDEX, Server};
pub use error::RxkadError;
pub use key::SessionKey;

pub use super::{Level, Principal};

use std::fmt;
use std::ops::RangeInclusive;
use std::time::SystemTime;

/// Bytes of a ticket that OpenAFS takes (its `MINKTCTICKETLEN` and `MAXKTCTICKETLEN`).
const TICKET_LEN: RangeInclusive<usize> = 32..=12_000;

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

/// What a client proves itself with. Neither ticket nor key is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The version of the server's key, or 213 or 256 for a Kerberos 5 ticket.
    pub kvno: u32,
    /// Only the server can open it. One of other than 32 to 12000 bytes is not sent: the connection ends with
    /// [`RxkadError::TicketLen`].
    pub ticket: Vec<u8>,
    /// The session key, which is in the ticket as well.
    pub key: SessionKey,
    /// When the ticket ends.
    pub expires: SystemTime,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("kvno", &self.kvno)
            .field("ticket", &format_args!("{} bytes", self.ticket.len()))
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_ticket_nor_key_of_a_token_is_printed() {
        let (ticket, key) = (vec![171; 3], SessionKey::new([205; 8]));
        let token = Token { kvno: 256, ticket, key, expires: SystemTime::UNIX_EPOCH };
        let printed = format!("{token:?}");
        assert!(printed.starts_with("Token { kvno: 256, ticket: 3 bytes, expires: "), "{printed}");
        assert!(!printed.contains("171") && !printed.contains("205"), "{printed}");
    }
}
