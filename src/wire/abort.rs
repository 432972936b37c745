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
