//! DEBUG: what `rxdebug` asks an endpoint, and the bare records it gets back (rx-wire.md 4.9).
//!
//! One datagram per record, no length and no type in the reply: the asker knows what it asked for, and
//! the sizes of the records differ. Records are read and written whole, spare bytes included; what they
//! say about an endpoint, and whether to answer at all, others decide.

mod fields;
mod records;

pub use records::{Connection, Peer, SecurityStats, Statistics, Stats, TimeValue};

use std::net::Ipv4Addr;

use self::fields::Field;
use super::version::tools_header;
use super::{CallNumber, Cid, Epoch, Flags, Header, PacketType};

/// Bytes of a request's payload that count.
pub const REQUEST_LEN: usize = 8;
/// Both words of the reply to a type that the endpoint does not know.
pub const BAD_TYPE: u32 = 0xffff_fff8;
/// Bytes of that reply.
pub const BAD_TYPE_LEN: usize = 8;
/// In [`Connection::cid`]: there is no connection with this index or above.
pub const CONNECTIONS_END: Cid = Cid(0xffff_ffff);
/// In [`Peer::host`]: there is no peer with this index or above.
pub const PEERS_END: Ipv4Addr = Ipv4Addr::BROADCAST;
/// In [`Stats::version`]: all fields of this module are filled.
pub const VERSION_CURRENT: u8 = b'S';

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestType {
    /// 1: [`Stats`].
    Stats,
    /// 2: [`Connection`], only those that have something to show.
    Connections,
    /// 3: [`Connection`], all; from version M on.
    AllConnections,
    /// 4: [`Statistics`]; from version M on.
    Statistics,
    /// 5: [`Peer`]; from version Q on.
    Peers,
    /// Any other value; the reply is [`BAD_TYPE`] twice.
    Other(i32),
}

impl RequestType {
    /// The type of this number.
    pub const fn from_number(number: i32) -> RequestType {
        match number {
            1 => RequestType::Stats,
            2 => RequestType::Connections,
            3 => RequestType::AllConnections,
            4 => RequestType::Statistics,
            5 => RequestType::Peers,
            other => RequestType::Other(other),
        }
    }

    /// The number of this type.
    pub const fn number(self) -> i32 {
        match self {
            RequestType::Stats => 1,
            RequestType::Connections => 2,
            RequestType::AllConnections => 3,
            RequestType::Statistics => 4,
            RequestType::Peers => 5,
            RequestType::Other(number) => number,
        }
    }
}

/// Payload of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What is asked for.
    pub request_type: RequestType,
    /// Which connection or peer, from 0; OpenAFS takes a negative one as 0. Unused by the others.
    pub index: i32,
}

impl Request {
    /// Reads a request's payload; `None` if it is shorter than eight bytes. More are ignored.
    pub fn decode(payload: &[u8]) -> Option<Request> {
        let mut rest = payload;
        Some(Request {
            request_type: RequestType::from_number(i32::take(&mut rest)?),
            index: i32::take(&mut rest)?,
        })
    }

    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        self.request_type.number().put(buffer);
        self.index.put(buffer);
    }

    /// Appends a whole request datagram of 36 bytes. `number` comes back in the reply's call number.
    pub fn encode_datagram(&self, number: u32, buffer: &mut Vec<u8>) {
        let flags = Flags::CLIENT_INITIATED.with(Flags::LAST_PACKET);
        let header = tools_header(PacketType::Debug, flags, Epoch::TOOLS, CallNumber(number));
        buffer.extend_from_slice(&header.encode());
        self.encode(buffer);
    }
}

/// The header of the reply to the request with this one: the same without CLIENT_INITIATED.
pub fn reply_header(request: &Header) -> Header {
    Header { flags: request.flags.without(Flags::CLIENT_INITIATED), ..*request }
}

/// Payload of a reply as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// All of it.
    pub payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Any payload is one.
    pub const fn decode(payload: &'a [u8]) -> Reply<'a> {
        Reply { payload }
    }

    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.payload);
    }

    /// The record, told by its size, which differs between all of them; `None` if no record has it.
    pub fn record(&self) -> Option<Record> {
        match self.payload.len() {
            BAD_TYPE_LEN => (self.payload == BAD_TYPE_PAYLOAD).then_some(Record::BadType),
            Stats::LEN => Stats::decode(self.payload).map(Record::Stats),
            Peer::LEN => Peer::decode(self.payload).map(Record::Peer),
            Connection::LEN | Connection::LEN_OF_VERSION_L => {
                Connection::decode(self.payload).map(Record::Connection)
            }
            Statistics::LEN => {
                Statistics::decode(self.payload).map(|all| Record::Statistics(Box::new(all)))
            }
            _ => None,
        }
    }
}

const BAD_TYPE_PAYLOAD: [u8; BAD_TYPE_LEN] = [0xff, 0xff, 0xff, 0xf8, 0xff, 0xff, 0xff, 0xf8];

/// What a reply says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// To [`RequestType::Stats`].
    Stats(Stats),
    /// To [`RequestType::Connections`] and [`RequestType::AllConnections`].
    Connection(Connection),
    /// To [`RequestType::Statistics`].
    Statistics(Box<Statistics>),
    /// To [`RequestType::Peers`].
    Peer(Peer),
    /// The endpoint does not know the type asked for.
    BadType,
}

impl Record {
    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match self {
            Record::Stats(stats) => stats.encode(buffer),
            Record::Connection(connection) => connection.encode(buffer),
            Record::Statistics(statistics) => statistics.encode(buffer),
            Record::Peer(peer) => peer.encode(buffer),
            Record::BadType => buffer.extend_from_slice(&BAD_TYPE_PAYLOAD),
        }
    }
}

/// Values of [`Connection::connection_type`].
pub mod connection_type {
    /// The endpoint is the connection's client.
    pub const CLIENT: u8 = 0;
    /// The endpoint is the connection's server.
    pub const SERVER: u8 = 1;
}

/// Bits of [`Connection::flags`].
pub mod connection_flags {
    /// A caller waits for a channel.
    pub const MAKE_CALL_WAITING: u8 = 1;
    /// To be destroyed when its last call ends.
    pub const DESTROY_ME: u8 = 2;
    /// A packet with a non-zero checksum was seen.
    pub const USING_PACKET_CKSUM: u8 = 4;
    /// The window size is known.
    pub const KNOW_WINDOW: u8 = 8;
    /// Reset by the application.
    pub const RESET: u8 = 16;
    /// The peer was busy.
    pub const BUSY: u8 = 32;
    /// Waits for the answer to a reachability check.
    pub const ATTACH_WAIT: u8 = 64;
    /// A caller is being given a channel.
    pub const MAKE_CALL_ACTIVE: u8 = 128;
}

/// Values of [`Connection::call_state`].
pub mod call_state {
    /// The channel has never had a call.
    pub const NOT_INIT: u8 = 0;
    /// Packets came, no thread serves the call yet.
    pub const PRECALL: u8 = 1;
    /// The call runs.
    pub const ACTIVE: u8 = 2;
    /// The call is over, its record is kept.
    pub const DALLY: u8 = 3;
    /// The reply is sent, its acknowledgement is awaited.
    pub const HOLD: u8 = 4;
    /// The call is being reset.
    pub const RESET: u8 = 5;
}

/// Values of [`Connection::call_mode`].
pub mod call_mode {
    /// The application sends.
    pub const SENDING: u8 = 1;
    /// The application receives.
    pub const RECEIVING: u8 = 2;
    /// The call failed.
    pub const ERROR: u8 = 3;
    /// The application has read everything.
    pub const EOF: u8 = 4;
}

/// Bits of [`Connection::call_flags`].
pub mod call_flags {
    /// A reader waits for data.
    pub const READER_WAIT: u8 = 1;
    /// A writer waits for the window, before it has a packet.
    pub const WINDOW_ALLOC_WAIT: u8 = 2;
    /// A writer waits for the window, to send.
    pub const WINDOW_SEND_WAIT: u8 = 4;
    /// Waits for a free packet.
    pub const PACKET_WAIT: u8 = 8;
    /// Waits for a server thread.
    pub const PROCESS_WAIT: u8 = 16;
    /// All of the peer's data has come.
    pub const RECEIVE_DONE: u8 = 32;
    /// The receive queue was cleared.
    pub const CLEARED: u8 = 64;
    /// The transmit queue is in use.
    pub const TRANSMIT_QUEUE_BUSY: u8 = 128;
}

/// Bits of [`Connection::call_other`].
pub mod call_other {
    /// Packets in the receive queue.
    pub const RECEIVE_QUEUE: u8 = 1;
    /// Packets in the transmit queue.
    pub const TRANSMIT_QUEUE: u8 = 2;
}

/// Values of [`SecurityStats::security_type`].
pub mod security_type {
    /// Not told: what OpenAFS says of rxnull.
    pub const UNKNOWN: u8 = 0;
    /// rxnull.
    pub const NULL: u8 = 1;
    /// vab, which nobody uses.
    pub const VAB: u8 = 2;
    /// rxkad.
    pub const KAD: u8 = 3;
    /// rxgk.
    pub const GK: u8 = 4;
}

/// Bits of [`SecurityStats::flags`].
pub mod security_flags {
    /// The connection has no security data.
    pub const UNALLOCATED: u32 = 1;
    /// The client has proved itself.
    pub const AUTHENTICATED: u32 = 2;
    /// The ticket's time is over.
    pub const EXPIRED: u32 = 4;
    /// The headers of the peer's packets have checksums.
    pub const CHECKSUMMED: u32 = 8;
}

#[cfg(test)]
mod tests {
    use super::super::HEADER_LEN;
    use super::super::examples::{W13, W14, bytes};
    use super::*;

    #[test]
    fn a_request_is_that_of_openafs() {
        let datagram = bytes(W13);
        let request = Request::decode(&datagram[HEADER_LEN..]).unwrap();
        assert_eq!(request, Request { request_type: RequestType::Stats, index: 0 });
        let mut buffer = Vec::new();
        request.encode_datagram(102, &mut buffer);
        assert_eq!(buffer, datagram);
    }

    #[test]
    fn a_cut_request_is_refused_and_a_long_one_is_read() {
        // S-149.
        let payload = &bytes(W13)[HEADER_LEN..];
        for len in 0..REQUEST_LEN {
            assert_eq!(Request::decode(&payload[..len]), None);
        }
        let long = [payload, &[1, 2, 3]].concat();
        assert_eq!(Request::decode(&long), Request::decode(payload));
    }

    #[test]
    fn odd_requests_are_values() {
        // S-151.
        for (number, index) in [(-1, 0), (0, -1), (6, i32::MAX), (i32::MIN, i32::MIN)] {
            let request = Request { request_type: RequestType::from_number(number), index };
            assert_eq!(request.request_type, RequestType::Other(number));
            let mut buffer = Vec::new();
            request.encode(&mut buffer);
            assert_eq!(Request::decode(&buffer), Some(request));
        }
        for number in 1..=5 {
            let known = RequestType::from_number(number);
            assert!(!matches!(known, RequestType::Other(_)));
            assert_eq!(known.number(), number);
        }
    }

    #[test]
    fn an_unknown_type_is_answered_as_openafs_does() {
        // S-148.
        let mut request = Vec::new();
        Request { request_type: RequestType::Other(99), index: 0 }
            .encode_datagram(103, &mut request);
        let mut reply = reply_header(&Header::decode(&request).unwrap()).encode().to_vec();
        Record::BadType.encode(&mut reply);
        assert_eq!(reply, bytes(W14));
        assert_eq!(Reply::decode(&reply[HEADER_LEN..]).record(), Some(Record::BadType));
        assert_eq!(BAD_TYPE_PAYLOAD[..4], BAD_TYPE.to_be_bytes());
    }

    #[test]
    fn records_are_told_by_their_sizes() {
        // Every byte has its own value, so a field read from a wrong place would be written elsewhere.
        for len in 0..=300 {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let record = Reply::decode(&payload).record();
            let Some(record) = record else {
                assert!(![56, 132, 172, 176, 284].contains(&len), "{len}");
                continue;
            };
            let mut buffer = Vec::new();
            record.encode(&mut buffer);
            match len {
                172 => assert_eq!(buffer.len(), 176, "read as L, written as current"),
                _ => assert_eq!(buffer, payload),
            }
        }
        assert_eq!(Reply::decode(&[0; BAD_TYPE_LEN]).record(), None);
    }
}
