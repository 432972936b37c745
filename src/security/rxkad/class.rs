//! The class itself, as an endpoint offers it and as a client connects with it.

use std::fmt;
use std::sync::Arc;

use super::handshake::{ClientSide, ServerSide};
use super::session::{ReadyKey, RxkadSession};
use super::{Level, TicketOpener, Token};
use crate::security::{
    ClientClass, ClientStart, ConnectionIds, Entropy, ServerClass, ServerHandshake,
};
use crate::wire::SecurityIndex;

/// The index of rxkad.
pub const INDEX: SecurityIndex = SecurityIndex(2);

/// rxkad as a service demands it.
#[derive(Clone, Debug)]
pub struct Server {
    tickets: Arc<dyn TicketOpener>,
    minimum_level: Level,
}

impl Server {
    /// Clients need a ticket that `tickets` opens, and a level of at least `minimum_level`.
    pub fn new(tickets: Arc<dyn TicketOpener>, minimum_level: Level) -> Server {
        Server { tickets, minimum_level }
    }
}

impl ServerClass for Server {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn accept(&self, ids: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
        let (tickets, minimum_level) = (self.tickets.clone(), self.minimum_level);
        Some(Box::new(ServerSide { ids, tickets, minimum_level, nonce: None }))
    }
}

/// rxkad as a client uses it: one token and one level for all its connections.
#[derive(Clone)]
pub struct Client {
    token: Arc<Token>,
    level: Level,
    key: ReadyKey,
}

impl Client {
    /// Connections prove themselves with `token` and protect their packets as `level` says. A server that
    /// demands a higher one is refused.
    pub fn new(token: Token, level: Level) -> Client {
        Client { key: ReadyKey::new(&token.key), token: Arc::new(token), level }
    }
}

impl ClientClass for Client {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn connect(&self, ids: ConnectionIds, _: &Entropy) -> ClientStart {
        let session = RxkadSession::new(&ids, self.key.clone(), self.level, None);
        let (token, level, key) = (self.token.clone(), self.level, self.key.clone());
        ClientStart {
            session: Some(Arc::new(session)),
            handshake: Some(Box::new(ClientSide { ids, token, level, key })),
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
