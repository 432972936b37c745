//! The security class of a plan: none, or rxkad at a level. Ticket, key and nonces are always the same, so that the
//! same plan has the same packets; and the ticket does not expire, since the clock on the wall is none of a plan's.

use std::sync::Arc;

use super::random::Stream;
use crate::security::{ClientClass, Level, RxNull, ServerClass};

/// What a client connects with.
pub(super) fn client_class(level: Option<Level>) -> Arc<dyn ClientClass> {
    #[cfg(feature = "rxkad")]
    if let Some(level) = level {
        return rxkad::client(level);
    }
    let _ = level;
    Arc::new(RxNull)
}

/// What a service takes.
pub(super) fn server_classes(level: Option<Level>) -> Vec<Arc<dyn ServerClass>> {
    #[cfg(feature = "rxkad")]
    if let Some(level) = level {
        return vec![rxkad::server(level)];
    }
    let _ = level;
    vec![Arc::new(RxNull)]
}

/// None in most plans, and without feature `rxkad` in all.
pub(super) fn drawn(stream: &mut Stream) -> Option<Level> {
    let is_secured = stream.chance(0.2);
    let level = stream.pick(&[Level::Clear, Level::Auth, Level::Crypt]);
    (cfg!(feature = "rxkad") && is_secured).then_some(level)
}

#[cfg(feature = "rxkad")]
mod rxkad {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use crate::security::rxkad::{
        Client, OpenedTicket, Principal, RxkadError, Server, SessionKey, TicketOpener, Token,
    };
    use crate::security::{
        ClientClass, ConnectionIds, Entropy, Level, ServerClass, ServerHandshake, Verification,
    };
    use crate::wire::SecurityIndex;

    const KVNO: u32 = 256;
    const NONCE: Entropy = [0x5a; 32];

    fn key() -> SessionKey {
        SessionKey::new([0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe])
    }

    fn never() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX))
    }

    pub fn client(level: Level) -> Arc<dyn ClientClass> {
        let token = Token { kvno: KVNO, ticket: vec![0x77; 60], key: key(), expires: never() };
        Arc::new(Client::new(token, level))
    }

    pub fn server(level: Level) -> Arc<dyn ServerClass> {
        Arc::new(SameNonce(Server::new(Arc::new(OneTicket), level)))
    }

    /// Opens every ticket, to the same key.
    #[derive(Debug)]
    struct OneTicket;

    impl TicketOpener for OneTicket {
        fn open_ticket(&self, _: u32, _: &[u8], _: SystemTime) -> Result<OpenedTicket, RxkadError> {
            let client =
                Principal { name: "plan".into(), instance: String::new(), cell: String::new() };
            let starts = SystemTime::UNIX_EPOCH;
            Ok(OpenedTicket { key: key(), client, starts, expires: never() })
        }
    }

    /// rxkad whose challenges are not random.
    #[derive(Debug)]
    struct SameNonce(Server);

    impl ServerClass for SameNonce {
        fn index(&self) -> SecurityIndex {
            self.0.index()
        }

        fn accept(&self, ids: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
            Some(Box::new(SameChallenge(self.0.accept(ids)?)))
        }
    }

    #[derive(Debug)]
    struct SameChallenge(Box<dyn ServerHandshake>);

    impl ServerHandshake for SameChallenge {
        fn challenge(&mut self, _: &Entropy) -> Vec<u8> {
            self.0.challenge(&NONCE)
        }

        fn verify(&mut self, response: &[u8], now: SystemTime) -> Verification {
            self.0.verify(response, now)
        }
    }
}
