//! VERSION: a question for the software's version, its answer, and the NAT keepalive (rx-wire.md 4.8).
//!
//! Needs no connection: the asker puts a number of its own into the call number and matches the reply
//! by it.

use super::{
    CallNumber, Cid, Epoch, Flags, HEADER_LEN, Header, PacketType, SecurityIndex, Seq, Serial,
    ServiceId,
};

/// Bytes of a reply's payload: ASCII padded with NUL, which a long text leaves no room for.
pub const VERSION_TEXT_LEN: usize = 65;
/// The payload of a request and of a NAT keepalive.
pub const VERSION_REQUEST_PAYLOAD: [u8; 1] = [0];
/// Bytes of a request or of a NAT keepalive.
pub const VERSION_REQUEST_LEN: usize = HEADER_LEN + VERSION_REQUEST_PAYLOAD.len();

/// Payload of a VERSION packet. Which kind it is, the header's CLIENT_INITIATED says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version<'a> {
    /// All of it.
    pub payload: &'a [u8],
}

impl<'a> Version<'a> {
    /// Any payload is one.
    pub const fn decode(payload: &'a [u8]) -> Version<'a> {
        Version { payload }
    }

    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.payload);
    }

    /// Whether a packet with this header and payload is to be answered: from a client, first byte 0.
    ///
    /// A NAT keepalive is not, nor is a reply, so that two servers cannot answer each other for ever.
    pub fn is_request(&self, header: &Header) -> bool {
        header.is_from_client() && self.payload.first() == Some(&0)
    }

    /// Whether a reply with this payload is a Linux kernel's: "linux-RELEASE AF_RXRPC".
    pub fn is_linux(&self) -> bool {
        self.text().starts_with(b"linux-") && self.text().ends_with(b" AF_RXRPC")
    }

    /// The text of a reply: up to the first NUL, at most 65 bytes; ASCII is usual, not certain.
    pub fn text(&self) -> &'a [u8] {
        let text = &self.payload[..self.payload.len().min(VERSION_TEXT_LEN)];
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        &text[..end]
    }
}

/// Appends a whole request datagram of 29 bytes. `number` comes back in the reply's call number.
pub fn encode_version_request(number: u32, buffer: &mut Vec<u8>) {
    let flags = Flags::CLIENT_INITIATED.with(Flags::LAST_PACKET);
    let header = tools_header(PacketType::Version, flags, Epoch::TOOLS, CallNumber(number));
    buffer.extend_from_slice(&header.encode());
    buffer.extend_from_slice(&VERSION_REQUEST_PAYLOAD);
}

/// Appends a whole NAT keepalive datagram of 29 bytes, which nobody answers.
///
/// The epoch is [`Epoch::TOOLS`] from OpenAFS and the sender's own from Linux.
pub fn encode_nat_keepalive(epoch: Epoch, buffer: &mut Vec<u8>) {
    let header = tools_header(PacketType::Version, Flags::LAST_PACKET, epoch, CallNumber::NONE);
    buffer.extend_from_slice(&header.encode());
    buffer.extend_from_slice(&VERSION_REQUEST_PAYLOAD);
}

/// Appends a whole reply datagram of 93 bytes to the request with this header.
///
/// Of `text` the first 64 bytes are sent, so that a reader that does expect a NUL finds one.
pub fn encode_version_reply(request: &Header, text: &str, buffer: &mut Vec<u8>) {
    let header = Header {
        cid: request.cid,
        service_id: request.service_id,
        ..tools_header(PacketType::Version, Flags::LAST_PACKET, request.epoch, request.call_number)
    };
    let text = &text.as_bytes()[..text.len().min(VERSION_TEXT_LEN - 1)];
    let mut payload = [0; VERSION_TEXT_LEN];
    payload[..text.len()].copy_from_slice(text);
    buffer.extend_from_slice(&header.encode());
    buffer.extend_from_slice(&payload);
}

/// The header of a packet that belongs to no connection.
pub(super) fn tools_header(
    packet_type: PacketType,
    flags: Flags,
    epoch: Epoch,
    call_number: CallNumber,
) -> Header {
    Header {
        epoch,
        cid: Cid(0),
        call_number,
        seq: Seq(0),
        serial: Serial::NONE,
        packet_type,
        flags,
        user_status: 0,
        security_index: SecurityIndex::NULL,
        cksum: 0,
        service_id: ServiceId(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{W1, W11, W12, bytes};
    use super::*;

    fn decode(datagram: &[u8]) -> (Header, Version<'_>) {
        (Header::decode(datagram).unwrap(), Version::decode(&datagram[HEADER_LEN..]))
    }

    #[test]
    fn requests_and_keepalives_are_those_of_openafs() {
        let mut buffer = Vec::new();
        encode_version_request(101, &mut buffer);
        assert_eq!(buffer, bytes(W11));
        assert_eq!(buffer.len(), VERSION_REQUEST_LEN);
        buffer.clear();
        encode_nat_keepalive(Epoch::TOOLS, &mut buffer);
        assert_eq!(buffer, bytes(W12));
    }

    #[test]
    fn only_a_client_that_sends_a_zero_byte_is_answered() {
        // S-141 to S-144.
        let (request, keepalive) = (bytes(W11), bytes(W12));
        let (header, version) = decode(&request);
        assert!(version.is_request(&header));
        assert!(!Version::decode(&[]).is_request(&header));
        assert!(!Version::decode(&[1]).is_request(&header));
        assert!(Version::decode(&[0, 1]).is_request(&header));
        let (header, version) = decode(&keepalive);
        assert!(!version.is_request(&header));
    }

    #[test]
    fn a_reply_echoes_the_places_and_clears_the_rest() {
        // S-141, in the way of Linux: seq, serial and security index of the request are not echoed.
        let request = Header {
            cksum: 7,
            user_status: 1,
            security_index: SecurityIndex(2),
            ..Header::decode(&bytes(W1)).unwrap()
        };
        let mut reply = Vec::new();
        encode_version_reply(&request, "rxrpc 0.1", &mut reply);
        assert_eq!(reply.len(), 93);
        assert_eq!(
            reply[..HEADER_LEN],
            bytes("8f3a21c4 5d0e9a36 00000001 00000000 00000000 0d040000 00000001")
        );
        let (header, version) = decode(&reply);
        assert!(!version.is_request(&header));
        assert_eq!(version.text(), b"rxrpc 0.1");
        assert!(reply[HEADER_LEN + 9..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_text_without_a_nul_is_read_to_its_65th_byte() {
        assert_eq!(Version::decode(&[b'x'; 65]).text(), [b'x'; 65]);
        assert_eq!(Version::decode(&[b'x'; 66]).text(), [b'x'; 65]);
        assert_eq!(Version::decode(&[b'x'; 64]).text(), [b'x'; 64]);
        assert_eq!(Version::decode(&[]).text(), b"");
        assert_eq!(Version::decode(b"\0late").text(), b"");
    }

    #[test]
    fn a_long_text_is_cut_and_keeps_its_nul() {
        let request = Header::decode(&bytes(W11)).unwrap();
        for (len, sent) in [(63, 63), (64, 64), (65, 64), (1000, 64)] {
            let mut reply = Vec::new();
            encode_version_reply(&request, &"v".repeat(len), &mut reply);
            assert_eq!(reply.len(), 93);
            assert_eq!(decode(&reply).1.text().len(), sent);
            assert_eq!(reply.last(), Some(&0));
        }
    }
}
