//! HMAC over anything, for all that is made of one.

use hmac::{KeyInit, Mac};
use zeroize::Zeroizing;

/// The code of `pieces`, one after the other.
pub(super) fn hmac<M: Mac + KeyInit>(key: &[u8], pieces: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    pieces.iter().for_each(|piece| mac.update(piece));
    // Wiped when it is dropped, as long as it is only looked into.
    let code = mac.finalize();
    Zeroizing::new(code.as_bytes().to_vec())
}
