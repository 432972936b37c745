//! Security classes: what proves a client, and what seals its packets.
//!
//! A class is a value that an endpoint offers to its clients ([`ServerClass`]) or that a client connects
//! with ([`ClientClass`]). For each connection it makes a handshake, which ends in a [`Session`]: immutable,
//! shared by the connection's four channels, and the only thing on the packet path. rxnull has neither:
//! its connections are secured from the start and its packets are left as they are.
//!
//! Nothing here reads a clock or draws random numbers: both come in as values.

mod identity;
mod null;
#[cfg(feature = "rxkad")]
pub mod rxkad;

pub use identity::{Identity, Level, Principal};
pub use null::RxNull;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use crate::wire::{AbortCode, CallNumber, Cid, Epoch, SecurityIndex, Seq, ServiceId};

/// rxkad for a client's connections: who has `token`, at `level`.
#[cfg(feature = "rxkad")]
pub fn rxkad_client(token: rxkad::Token, level: Level) -> Arc<dyn ClientClass> {
    Arc::new(rxkad::Client::new(token, level))
}

/// rxkad for a service: clients need a ticket that `keys` opens, and protect their packets at least as
/// `minimum_level` says.
#[cfg(feature = "rxkad")]
pub fn rxkad_server(
    keys: impl rxkad::TicketOpener + 'static,
    minimum_level: Level,
) -> Arc<dyn ServerClass> {
    Arc::new(rxkad::Server::new(Arc::new(keys), minimum_level))
}

/// Random bytes for one step of a handshake, drawn outside.
pub type Entropy = [u8; 32];

/// Draws random bytes when a handshake asks for them. What it draws from is the driver's choice: the
/// operating system, or a seed.
pub struct EntropySource(Box<dyn FnMut() -> Entropy + Send>);

impl EntropySource {
    /// A source that calls `draw` each time.
    pub fn new(draw: impl FnMut() -> Entropy + Send + 'static) -> EntropySource {
        EntropySource(Box::new(draw))
    }

    /// Fresh bytes.
    pub fn draw(&mut self) -> Entropy {
        (self.0)()
    }
}

impl fmt::Debug for EntropySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntropySource")
    }
}

/// What names a connection: seals are bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionIds {
    /// The client's incarnation.
    pub epoch: Epoch,
    /// The connection, channel bits clear.
    pub cid: Cid,
    /// The service that was asked for.
    pub service_id: ServiceId,
    /// The class.
    pub security_index: SecurityIndex,
}

/// The fields of a DATA packet that a seal is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketIds {
    /// The connection and channel.
    pub cid: Cid,
    /// The call.
    pub call_number: CallNumber,
    /// The packet.
    pub seq: Seq,
    /// Whether the connection's client sends it.
    pub from_client: bool,
}

/// A secured connection. Immutable; a new key is a new session.
pub trait Session: fmt::Debug + Send + Sync {
    /// Most plain bytes whose sealed form fits into `room` bytes of DATA payload.
    fn plain_max(&self, room: usize) -> usize;

    /// Appends the sealed form of `plain` to `out` and returns the header's checksum field.
    fn seal(&self, packet: &PacketIds, plain: &[u8], out: &mut BytesMut) -> u16;

    /// The plain form of a payload that came with `cksum` in its header; the error is the code to abort with.
    fn open(&self, packet: &PacketIds, cksum: u16, sealed: Bytes) -> Result<Bytes, AbortCode>;

    /// Seals packets that leave together, to the same end as [`Session::seal`] does it one by one. `plain` is
    /// their bytes, one packet after the other; for each packet, `out` gets its sealed form and `sealed`
    /// where that ends in `out`. A class whose packets do not depend on each other may take several at once.
    fn seal_run(
        &self,
        packets: &[PlainPacket],
        mut plain: &[u8],
        out: &mut BytesMut,
        sealed: &mut Vec<SealedEnd>,
    ) {
        for packet in packets {
            let (own, rest) = plain.split_at(packet.len);
            let cksum = self.seal(&packet.ids, own, out);
            sealed.push(SealedEnd { end: out.len(), cksum });
            plain = rest;
        }
    }

    /// Opens packets that came together, as [`Session::open`] does it one by one. `plain` gets their plain
    /// forms, in order, up to the first that does not open. `memory` is empty, before and afterwards, with room
    /// for the packets as they came: a class that changes bytes does it there, and splits off what it delivers.
    /// It is handed on from run to run, so that none has to ask for memory of its own.
    fn open_run(
        &self,
        packets: &[SealedPacket],
        memory: &mut BytesMut,
        plain: &mut Vec<Bytes>,
    ) -> Result<(), AbortCode> {
        let _ = memory;
        for packet in packets {
            plain.push(self.open(&packet.ids, packet.cksum, packet.payload.clone())?);
        }
        Ok(())
    }

    /// When the session ends, and the code that the connection then ends with. `None` = it outlives the
    /// connection.
    fn expires(&self) -> Option<(SystemTime, AbortCode)> {
        None
    }

    /// What DEBUG answers say of it.
    fn brief(&self) -> SecurityBrief {
        SecurityBrief::default()
    }
}

/// What a class tells about a connection to whoever asks with DEBUG (`rx_securityObjectStats`); the default is what
/// is said of rxnull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityBrief {
    /// See [`security_type`](crate::wire::debug::security_type).
    pub security_type: u8,
    /// The class's own level.
    pub level: u8,
    /// Whether it compares the checksum fields of headers.
    pub checks_headers: bool,
    /// When the client's credentials end; `None` = never, or nobody knows.
    pub expires: Option<SystemTime>,
}

/// A packet to be sealed with others; its bytes are beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainPacket {
    /// What its seal is bound to.
    pub ids: PacketIds,
    /// Plain bytes.
    pub len: usize,
}

/// What became of a packet that was sealed with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedEnd {
    /// Where its sealed form ends in the common buffer.
    pub end: usize,
    /// The checksum field of its header.
    pub cksum: u16,
}

/// A packet to be opened with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPacket {
    /// What its seal is bound to.
    pub ids: PacketIds,
    /// The checksum field of its header.
    pub cksum: u16,
    /// What came.
    pub payload: Bytes,
}

/// What a verified RESPONSE gives the server.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Opens and seals from now on; `None` leaves packets as they are.
    pub session: Option<Arc<dyn Session>>,
    /// The client's call numbers, one a channel (rx-wire.md 4.6).
    pub call_numbers: [CallNumber; 4],
    /// The client.
    pub identity: Option<Identity>,
}

/// The outcome of looking at a RESPONSE.
pub enum Verification {
    /// Known at once.
    Done(Result<Verified, AbortCode>),
    /// Worked out elsewhere; the connection goes on meanwhile.
    Later(VerificationFuture),
}

/// A verification that takes its time.
pub type VerificationFuture = Pin<Box<dyn Future<Output = Result<Verified, AbortCode>> + Send>>;

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verification::Done(result) => f.debug_tuple("Done").field(result).finish(),
            Verification::Later(_) => f.write_str("Later"),
        }
    }
}

/// The server's half of one connection's handshake.
pub trait ServerHandshake: fmt::Debug + Send {
    /// The checksum field of the DATA packet that the connection begins with. Told once, before anything is
    /// asked.
    fn begin(&mut self, cksum: u16) {
        let _ = cksum;
    }

    /// What DEBUG answers say of the connection until the client has proved itself.
    fn brief(&self) -> SecurityBrief {
        SecurityBrief::default()
    }

    /// The body of a CHALLENGE. Asked again for each repetition.
    fn challenge(&mut self, entropy: &Entropy) -> Vec<u8>;

    /// Judges a RESPONSE.
    fn verify(&mut self, response: &[u8], now: SystemTime) -> Verification;
}

/// A class that an endpoint offers.
pub trait ServerClass: fmt::Debug + Send + Sync {
    /// The index that clients ask for.
    fn index(&self) -> SecurityIndex;

    /// The handshake of a new connection; `None` = secured from the start, packets as they are.
    fn accept(&self, ids: ConnectionIds) -> Option<Box<dyn ServerHandshake>>;
}

/// The client's half of one connection's handshake.
pub trait ClientHandshake: fmt::Debug + Send {
    /// The body of the RESPONSE to a CHALLENGE; the error is the code to abort the connection with.
    /// Each CHALLENGE is answered anew.
    fn respond(
        &mut self,
        challenge: &[u8],
        call_numbers: [CallNumber; 4],
        entropy: &Entropy,
    ) -> Result<Vec<u8>, AbortCode>;
}

/// What a client connection starts with.
#[derive(Debug, Default)]
pub struct ClientStart {
    /// Seals from the first packet on; `None` leaves packets as they are.
    pub session: Option<Arc<dyn Session>>,
    /// Answers challenges; `None` = they are ignored.
    pub handshake: Option<Box<dyn ClientHandshake>>,
}

/// A class that a client connects with.
pub trait ClientClass: fmt::Debug + Send + Sync {
    /// The index in the client's packets.
    fn index(&self) -> SecurityIndex;

    /// Session and handshake of a new connection.
    fn connect(&self, ids: ConnectionIds, entropy: &Entropy) -> ClientStart;
}
