//! ABORT payload: one 32-bit code (rx-wire.md 4.5).

use super::AbortCode;

/// Bytes of the payload that count; more are ignored.
pub const ABORT_LEN: usize = 4;

/// The code; `None` if the payload is shorter than four bytes.
pub fn decode_abort(payload: &[u8]) -> Option<AbortCode> {
    payload.first_chunk::<ABORT_LEN>().map(|bytes| AbortCode(i32::from_be_bytes(*bytes)))
}

/// The payload of an ABORT with this code.
pub fn encode_abort(code: AbortCode) -> [u8; ABORT_LEN] {
    code.0.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::HEADER_LEN;
    use super::super::examples::{W8, W9, bytes};
    use super::*;

    #[test]
    fn codes_are_those_of_the_examples() {
        for (example, code) in [(W8, AbortCode::RXGEN_OPCODE), (W9, AbortCode(19_270_407))] {
            let datagram = bytes(example);
            assert_eq!(decode_abort(&datagram[HEADER_LEN..]), Some(code));
            assert_eq!(encode_abort(code), datagram[HEADER_LEN..]);
        }
    }

    #[test]
    fn a_short_payload_has_no_code_and_a_long_one_has() {
        for len in 0..ABORT_LEN {
            assert_eq!(decode_abort(&[0xff; 8][..len]), None);
        }
        assert_eq!(decode_abort(&[0, 0, 0, 7, 1, 2]), Some(AbortCode(7)));
    }

    #[test]
    fn odd_codes_come_out_as_they_went_in() {
        for code in [0, 1, -1, i32::MIN, i32::MAX] {
            assert_eq!(decode_abort(&encode_abort(AbortCode(code))), Some(AbortCode(code)));
        }
    }
}
