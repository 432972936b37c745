//! CHALLENGE and RESPONSE: bodies that belong to the security class (rx-wire.md 4.6).
//!
//! Opaque here: what stands in them, and whether they are long enough, the security class knows. Both
//! are connection-level packets (call 0, seq 0) with serials of the connection. The checksum field of
//! their headers may hold old bytes of the sender; it is kept, and means nothing but in rxgk's RESPONSE.
//!
//! PARAMS (types 9 to 11) were meant to follow them and were never used: [`super::Payload::Params`]
//! keeps the bytes, and everyone discards them (rx-wire.md 4.7).

/// Body of a CHALLENGE, server to client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Challenge<'a> {
    /// As the security class wrote it.
    pub body: &'a [u8],
}

/// Body of a RESPONSE, client to server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    /// As the security class wrote it.
    pub body: &'a [u8],
}

impl<'a> Challenge<'a> {
    /// Any payload is one.
    pub const fn decode(payload: &'a [u8]) -> Challenge<'a> {
        Challenge { body: payload }
    }

    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.body);
    }
}

impl<'a> Response<'a> {
    /// Any payload is one.
    pub const fn decode(payload: &'a [u8]) -> Response<'a> {
        Response { body: payload }
    }

    /// Appends the payload to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_any_length_is_kept() {
        for len in [0, 1, 16, 1500] {
            let body = vec![0xa5; len];
            let mut buffer = vec![1];
            Challenge::decode(&body).encode(&mut buffer);
            assert_eq!(buffer[1..], body);
            buffer.truncate(1);
            Response::decode(&body).encode(&mut buffer);
            assert_eq!(buffer[1..], body);
        }
    }
}
