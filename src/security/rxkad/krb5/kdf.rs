//! rxkad-kdf: the DES key that stands for a Kerberos session key of any enctype.

use hmac::Hmac;
use md5::Md5;
use zeroize::Zeroizing;

use super::EncType;
use super::des::{BLOCK_LEN, is_weak, set_odd_parity};
use super::mac::hmac;
use crate::security::rxkad::{RxkadError, SessionKey};

/// The key of the connection. A single-DES session key is it; from others it is derived, by both sides alike.
pub fn session_key(enctype: EncType, key: &[u8]) -> Result<SessionKey, RxkadError> {
    match enctype.0 {
        1..=3 => Ok(SessionKey::new(key.try_into().map_err(|_| RxkadError::BadKey)?)),
        5 | 7 | 16 => derive(&without_parity(key)?),
        0 | 4 | 6 | 8..=15 | i32::MIN..0 => Err(RxkadError::BadKey),
        _ => derive(key),
    }
}

/// A triple-DES key without its parity bits: seven bytes of every eight, the bits that the eighth has to give
/// in the places of their parity bits.
fn without_parity(key: &[u8]) -> Result<Zeroizing<Vec<u8>>, RxkadError> {
    let (blocks, rest) = key.as_chunks::<BLOCK_LEN>();
    if blocks.len() != 3 || !rest.is_empty() {
        return Err(RxkadError::BadKey);
    }
    let mut squeezed = Zeroizing::new(Vec::with_capacity(21));
    for block in blocks {
        let [bytes @ .., last] = block;
        for (n, byte) in bytes.iter().enumerate() {
            squeezed.push(byte & !1 | last >> (n + 1) & 1);
        }
    }
    Ok(squeezed)
}

/// The first of 255 candidates that is no weak key of DES.
fn derive(key: &[u8]) -> Result<SessionKey, RxkadError> {
    // Fewer bits than the result must have would promise more than there is.
    if key.len() < 7 {
        return Err(RxkadError::BadKey);
    }
    for number in 1..=255u8 {
        let bits = 64u32.to_be_bytes();
        let digest = hmac::<Hmac<Md5>>(key, &[&[number], b"rxkad\0", &bits]);
        let mut candidate = Zeroizing::new([0; BLOCK_LEN]);
        candidate.copy_from_slice(&digest[..BLOCK_LEN]);
        set_odd_parity(&mut candidate);
        if !is_weak(&candidate) {
            return Ok(SessionKey::new(*candidate));
        }
    }
    Err(RxkadError::BadKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_without_a_session_key_are_refused() {
        for enctype in [0, 4, 6, 8, 15, -1, i32::MIN] {
            assert_eq!(session_key(EncType(enctype), &[0; 32]), Err(RxkadError::BadKey));
        }
    }

    #[test]
    fn lengths_are_checked_at_the_edge() {
        let tried = |enctype, len| session_key(EncType(enctype), &vec![1; len]).is_ok();
        assert_eq!([7, 8, 9].map(|len| tried(1, len)), [false, true, false]);
        assert_eq!([23, 24, 25, 32].map(|len| tried(16, len)), [false, true, false, false]);
        assert_eq!([0, 6, 7].map(|len| tried(18, len)), [false, false, true]);
    }
}
