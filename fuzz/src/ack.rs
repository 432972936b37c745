//! The payload of an ACK, with every length of table and trailer.

use rxrpc::wire::{ACK_FIXED_LEN, Ack, AckError, SACK_ENTRIES_MAX};

/// What is read is written again byte for byte, and is within the payload.
pub fn run(payload: &[u8]) {
    let ack = match Ack::decode(payload) {
        Ok(ack) => ack,
        Err(AckError::Short) => return assert!(payload.len() < ACK_FIXED_LEN),
        Err(AckError::TableCut) => {
            return assert!(payload.len() < ACK_FIXED_LEN + usize::from(payload[17]));
        }
    };
    assert!(ack.sacks.len() <= SACK_ENTRIES_MAX);
    assert!(!ack.is_acked(ack.sacks.len()) && !ack.is_acked(usize::MAX));
    let mut written = Vec::with_capacity(payload.len());
    ack.encode(&mut written);
    assert_eq!(written, payload);
}
