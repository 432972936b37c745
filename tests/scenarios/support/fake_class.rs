//! A security class that proves nothing and writes down what it is asked.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use rxrpc::proto::router::Offer;
use rxrpc::security::{
    ClientClass, ClientHandshake, ClientStart, ConnectionIds, Entropy, Identity, PacketIds,
    ServerClass, ServerHandshake, Session, Verification, Verified,
};
use rxrpc::wire::{AbortCode, CallNumber, SecurityIndex};

/// What its CHALLENGE says.
pub const CHALLENGE: &[u8] = b"who?";
/// The RESPONSE that it takes; any other is refused with [`REFUSAL`].
pub const GOOD_RESPONSE: &[u8] = b"me";
/// RXKADBADTICKET.
pub const REFUSAL: AbortCode = AbortCode(19_270_407);
/// RXKADEXPIRED.
pub const EXPIRED: AbortCode = AbortCode(19_270_409);
/// Index of the class.
pub const INDEX: SecurityIndex = SecurityIndex(2);

/// See the module. Clones write to the same record.
#[derive(Clone, Debug, Default)]
pub struct FakeClass {
    pub record: Arc<Mutex<Vec<String>>>,
    /// Verification takes its time.
    pub is_slow: bool,
    /// Verification takes its time, and panics.
    pub breaks: bool,
    /// What the RESPONSE says of the call numbers.
    pub call_numbers: [CallNumber; 4],
    /// Bytes that a seal adds: each the low byte of seq.
    pub seal_len: usize,
    /// How long its sessions last from 1970, when all RESPONSES come.
    pub lifetime: Option<Duration>,
}

impl FakeClass {
    /// What it was asked since the last call of this.
    pub fn take_record(&self) -> Vec<String> {
        std::mem::take(&mut self.record.lock().expect("a record"))
    }

    /// A service that wants this class.
    pub fn offer(&self) -> Offer {
        Offer { classes: vec![Arc::new(self.clone())], needs_reach: false, upgrades_to: None }
    }

    fn note(&self, what: String) {
        self.record.lock().expect("a record").push(what);
    }
}

impl ServerClass for FakeClass {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn accept(&self, _: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
        self.note("accept".into());
        Some(Box::new(self.clone()))
    }
}

impl ServerHandshake for FakeClass {
    fn challenge(&mut self, _: &Entropy) -> Vec<u8> {
        self.note("challenge".into());
        CHALLENGE.to_vec()
    }

    fn verify(&mut self, response: &[u8], _: SystemTime) -> Verification {
        self.note(format!("verify {}", String::from_utf8_lossy(response)));
        let result = if response == GOOD_RESPONSE {
            Ok(Verified {
                session: Some(Arc::new(self.clone())),
                call_numbers: self.call_numbers,
                identity: Some(Identity { name: "me@EXAMPLE.ORG".into(), ..Identity::default() }),
            })
        } else {
            Err(REFUSAL)
        };
        if self.breaks {
            return Verification::Later(Box::pin(async { panic!("a test broke this class") }));
        }
        if self.is_slow {
            Verification::Later(Box::pin(std::future::ready(result)))
        } else {
            Verification::Done(result)
        }
    }
}

impl ClientClass for FakeClass {
    fn index(&self) -> SecurityIndex {
        INDEX
    }

    fn connect(&self, _: ConnectionIds, _: &Entropy) -> ClientStart {
        self.note("connect".into());
        ClientStart {
            session: Some(Arc::new(self.clone())),
            handshake: Some(Box::new(self.clone())),
        }
    }
}

impl ClientHandshake for FakeClass {
    fn respond(
        &mut self,
        challenge: &[u8],
        call_numbers: [CallNumber; 4],
        _: &Entropy,
    ) -> Result<Vec<u8>, AbortCode> {
        let numbers = call_numbers.map(|number| number.0);
        self.note(format!("respond {} {numbers:?}", String::from_utf8_lossy(challenge)));
        Ok(GOOD_RESPONSE.to_vec())
    }
}

impl Session for FakeClass {
    fn plain_max(&self, room: usize) -> usize {
        room - self.seal_len
    }

    fn expires(&self) -> Option<(SystemTime, AbortCode)> {
        Some((SystemTime::UNIX_EPOCH + self.lifetime?, EXPIRED))
    }

    fn seal(&self, packet: &PacketIds, plain: &[u8], out: &mut BytesMut) -> u16 {
        self.note(format!("seal n{} q{}", packet.call_number, packet.seq));
        out.extend_from_slice(plain);
        out.extend(std::iter::repeat_n(packet.seq.0 as u8, self.seal_len));
        packet.seq.0 as u16
    }

    fn open(&self, packet: &PacketIds, _: u16, sealed: Bytes) -> Result<Bytes, AbortCode> {
        self.note(format!("open n{} q{}", packet.call_number, packet.seq));
        let len = sealed.len().checked_sub(self.seal_len).ok_or(AbortCode(19_270_401))?;
        Ok(sealed.slice(..len))
    }
}
