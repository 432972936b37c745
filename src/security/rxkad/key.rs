//! The session key.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key that client and server share for one ticket. Wiped when dropped, compared in constant time,
/// never printed. The low bit of each byte is not used by the cipher, but is by its chaining.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 8]);

impl SessionKey {
    /// A key of these bytes.
    pub const fn new(bytes: [u8; 8]) -> SessionKey {
        SessionKey(bytes)
    }

    /// The bytes, to be used and not kept.
    pub const fn expose(&self) -> &[u8; 8] {
        &self.0
    }
}

impl PartialEq for SessionKey {
    fn eq(&self, other: &SessionKey) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SessionKey {}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_compared_and_not_printed() {
        let key = SessionKey::new([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(key, key.clone());
        assert_ne!(key, SessionKey::new([1, 2, 3, 4, 5, 6, 7, 9]));
        assert_eq!(format!("{key:?}"), "SessionKey(..)");
    }
}
