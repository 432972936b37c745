//! The class itself, as an endpoint offers it and as a client connects with it.

use std::fmt;
use std::sync::Arc;

use super::handshake::{ClientSide, ServerSide};
use super::session::{ReadyKey, RxkadSession};
use super::{Level, TicketOpener, Token};
use crate::security::{
    ClientClass, ClientStart, ConnectionIds, Entropy, SecurityBrief, ServerClass, ServerHandshake,
};
use crate::wire::SecurityIndex;
use crate::wire::debug::security_type;

/// The index of rxkad.
pub const INDEX: SecurityIndex = SecurityIndex(2);

/// What DEBUG answers say of a connection whose ticket has not been seen.
pub(super) fn brief(level: Level) -> SecurityBrief {
    SecurityBrief {
        security_type: security_type::KAD,
        level: level.wire() as u8,
        checks_headers: true,
        expires: None,
    }
}

/// rxkad as a service demands it.
#[derive(Clone, Debug)]
pub struct Server {
    tickets: Arc<dyn TicketOpener>,
    minimum_level: Level,
    takes_version_1: bool,
}

impl Server {
    /// Clients need a ticket that `tickets` opens, and a level of at least `minimum_level`.
    pub fn new(tickets: Arc<dyn TicketOpener>, minimum_level: Level) -> Server {
        Server { tickets, minimum_level, takes_version_1: false }
    }

    /// Challenges in the form of version 1 a client whose first packet has no checksum in its header, as OpenAFS
    /// does, and takes its packets without checksums until one comes that has one. Off by default: a checksum is
    /// what binds a packet to its place, a response of version 1 is bound to no connection, and whoever can
    /// forge a client's first packet can make its connection one of these. At [`Level::Clear`] nothing else
    /// keeps forged packets out.
    pub fn with_version_1(self) -> Server {
        Server { takes_version_1: true, ..self }
    }
}

impl ServerClass for Server {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn accept(&self, ids: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
        Some(Box::new(ServerSide {
            ids,
            tickets: self.tickets.clone(),
            minimum_level: self.minimum_level,
            takes_version_1: self.takes_version_1,
            is_old: false,
            nonce: None,
        }))
    }
}

/// rxkad as a client uses it: one token and one level for all its connections.
#[derive(Clone)]
pub struct Client {
    token: Arc<Token>,
    level: Level,
    key: ReadyKey,
    takes_version_1: bool,
}

impl Client {
    /// Connections prove themselves with `token` and protect their packets as `level` says. A server that
    /// demands a higher one is refused.
    pub fn new(token: Token, level: Level) -> Client {
        let (key, token) = (ReadyKey::new(&token.key), Arc::new(token));
        Client { token, level, key, takes_version_1: true }
    }

    /// Refuses servers that challenge in the form of version 1: the connection ends with
    /// [`RxkadError::Inconsistency`](super::RxkadError::Inconsistency), as it does for any other version than
    /// 2. An answer in that form is not bound to its connection: whoever passes another server's challenge
    /// on to us has an answer for it. Without this, both forms are answered, as OpenAFS does.
    pub fn without_version_1(self) -> Client {
        Client { takes_version_1: false, ..self }
    }
}

impl ClientClass for Client {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn connect(&self, ids: ConnectionIds, _: &Entropy) -> ClientStart {
        let session = RxkadSession::new(&ids, self.key.clone(), self.level, None);
        let (token, level, key) = (self.token.clone(), self.level, self.key.clone());
        let takes_version_1 = self.takes_version_1;
        ClientStart {
            session: Some(Arc::new(session)),
            handshake: Some(Box::new(ClientSide { ids, token, level, key, takes_version_1 })),
        }
    }
}

/// The key is not printed.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("level", &self.level)
            .field("expires", &self.token.expires)
            .finish_non_exhaustive()
    }
}
