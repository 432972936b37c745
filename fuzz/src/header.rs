//! The header of every datagram.

use rxrpc::wire::{HEADER_LEN, Header};

/// The 28 bytes come back as they were, and names of connection and channel fit together.
pub fn run(datagram: &[u8]) {
    let Some(header) = Header::decode(datagram) else {
        return assert!(datagram.len() < HEADER_LEN);
    };
    assert_eq!(header.encode(), datagram[..HEADER_LEN]);
    let cid = header.cid;
    assert_eq!(cid.connection().with_channel(cid.channel()), cid);
}
