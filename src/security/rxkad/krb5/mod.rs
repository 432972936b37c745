//! As much of Kerberos 5's cryptography as a ticket needs: sealing and opening one message under a key, for
//! the enctypes of RFC 3961 (1 to 3, 16), 3962 (17, 18), 8009 (19, 20) and 4757 (23); and the way from a session
//! key of any enctype to the DES key of rxkad.
//!
//! It knows keys and byte strings. What is inside a message, and which key belongs to it, is known elsewhere.

mod aes;
pub mod des;
mod des3;
mod fold;
mod kdf;
mod mac;
mod modes;
mod rc4;

pub use kdf::session_key;

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::security::Entropy;

/// The key usage number of a ticket.
pub const TICKET_USAGE: u32 = 2;

/// An encryption type by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncType(pub i32);

impl EncType {
    /// DES, CBC, CRC-32.
    pub const DES_CBC_CRC: EncType = EncType(1);
    /// DES, CBC, MD4.
    pub const DES_CBC_MD4: EncType = EncType(2);
    /// DES, CBC, MD5.
    pub const DES_CBC_MD5: EncType = EncType(3);
    /// Triple DES, CBC, HMAC-SHA1.
    pub const DES3_SHA1: EncType = EncType(16);
    /// AES-128 with SHA-1.
    pub const AES128_SHA1: EncType = EncType(17);
    /// AES-256 with SHA-1.
    pub const AES256_SHA1: EncType = EncType(18);
    /// AES-128 with SHA-256.
    pub const AES128_SHA256: EncType = EncType(19);
    /// AES-256 with SHA-384.
    pub const AES256_SHA384: EncType = EncType(20);
    /// RC4 with HMAC-MD5.
    pub const RC4_HMAC: EncType = EncType(23);

    /// Whether its keys are single-DES keys: in AFS they are kept apart from all others.
    pub const fn is_des(self) -> bool {
        matches!(self.0, 1..=3)
    }

    /// Bytes of a key; `None` = we do not know this type.
    pub fn key_len(self) -> Option<usize> {
        match self {
            _ if self.is_des() => Some(des::BLOCK_LEN),
            EncType::DES3_SHA1 => Some(des3::KEY_LEN),
            EncType::RC4_HMAC => Some(16),
            _ => aes::Kind::of(self).map(|kind| kind.key_len()),
        }
    }
}

impl fmt::Display for EncType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What fails here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Krb5Error {
    /// There is no code for this type.
    #[error("encryption type {0} is not known here")]
    UnknownEncType(EncType),
    /// The key has a length that its type does not have.
    #[error("a key of {len} bytes does not belong to encryption type {enctype}")]
    KeyLength {
        /// The type.
        enctype: EncType,
        /// The length in bytes.
        len: usize,
    },
    /// Too short, or not what was sealed under this key.
    #[error("the message is damaged, or was sealed under another key")]
    Damaged,
}

/// A key and its type. Wiped when dropped, never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Krb5Key {
    #[zeroize(skip)]
    enctype: EncType,
    bytes: Vec<u8>,
}

impl fmt::Debug for Krb5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Krb5Key(enctype {}, ..)", self.enctype)
    }
}

impl Krb5Key {
    /// A key of a type that we know, of the length that belongs to it.
    pub fn new(enctype: EncType, bytes: &[u8]) -> Result<Krb5Key, Krb5Error> {
        match enctype.key_len() {
            None => Err(Krb5Error::UnknownEncType(enctype)),
            Some(len) if len == bytes.len() => Ok(Krb5Key { enctype, bytes: bytes.to_vec() }),
            Some(_) => Err(Krb5Error::KeyLength { enctype, len: bytes.len() }),
        }
    }

    /// The type.
    pub fn enctype(&self) -> EncType {
        self.enctype
    }

    /// The bytes, to be used and not kept.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    fn des(&self) -> &[u8; des::BLOCK_LEN] {
        self.bytes.first_chunk().expect("a DES key has eight bytes")
    }

    fn des3(&self) -> &[u8; des3::KEY_LEN] {
        self.bytes.first_chunk().expect("a triple-DES key has 24 bytes")
    }

    /// Seals `plain`. Of `entropy`, as much is used as the type's confounder is long.
    pub fn encrypt(&self, usage: u32, entropy: &Entropy, plain: &[u8]) -> Vec<u8> {
        let short = entropy.first_chunk().expect("32 bytes");
        let long = entropy.first_chunk().expect("32 bytes");
        match aes::Kind::of(self.enctype) {
            Some(kind) => kind.encrypt(&self.bytes, usage, long, plain),
            None if self.enctype.is_des() => des::encrypt(self.enctype, self.des(), short, plain),
            None if self.enctype == EncType::DES3_SHA1 => {
                des3::encrypt(self.des3(), usage, short, plain)
            }
            None => rc4::encrypt(&self.bytes, usage, short, plain),
        }
    }

    /// Opens what [`Krb5Key::encrypt`] sealed. With a DES type, single or triple, up to seven zeros can
    /// stand behind the plain text.
    pub fn decrypt(&self, usage: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Krb5Error> {
        match aes::Kind::of(self.enctype) {
            Some(kind) => kind.decrypt(&self.bytes, usage, sealed),
            None if self.enctype.is_des() => des::decrypt(self.enctype, self.des(), sealed),
            None if self.enctype == EncType::DES3_SHA1 => des3::decrypt(self.des3(), usage, sealed),
            None => rc4::decrypt(&self.bytes, usage, sealed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let key = Krb5Key::new(EncType::AES128_SHA1, &[0xab; 16]).unwrap();
        assert_eq!(format!("{key:?}"), "Krb5Key(enctype 17, ..)");
    }

    #[test]
    fn a_key_has_a_known_type_and_its_length() {
        for (enctype, right) in
            [(1, 8), (2, 8), (3, 8), (16, 24), (17, 16), (18, 32), (19, 16), (20, 32), (23, 16)]
        {
            let enctype = EncType(enctype);
            for len in [right - 1, right, right + 1] {
                let made = Krb5Key::new(enctype, &vec![0; len]);
                assert_eq!(made.is_ok(), len == right, "{enctype}, {len}");
            }
        }
        for enctype in [-1, 0, 4, 5, 7, 15, 21, 24, 25] {
            let made = Krb5Key::new(EncType(enctype), &[0; 16]);
            assert_eq!(made.unwrap_err(), Krb5Error::UnknownEncType(EncType(enctype)));
        }
    }

    #[test]
    fn what_is_sealed_opens_and_every_flipped_bit_is_seen() {
        for enctype in [16, 17, 18, 19, 20, 23].map(EncType) {
            let key = Krb5Key::new(enctype, &vec![7; enctype.key_len().unwrap()]).unwrap();
            for len in [0, 1, 15, 16, 17, 40] {
                let plain = vec![3; len];
                let sealed = key.encrypt(TICKET_USAGE, &[5; 32], &plain);
                let opened = key.decrypt(TICKET_USAGE, &sealed).unwrap();
                // Triple DES fills its last block with zeros.
                let is_padded = enctype == EncType::DES3_SHA1;
                let padding =
                    if is_padded { plain.len().next_multiple_of(8) - plain.len() } else { 0 };
                assert_eq!(*opened, [plain, vec![0; padding]].concat());
                assert!(key.decrypt(TICKET_USAGE + 1, &sealed).is_err());
                for bit in 0..sealed.len() * 8 {
                    let mut bad = sealed.clone();
                    bad[bit / 8] ^= 1 << (bit % 8);
                    let opened = key.decrypt(TICKET_USAGE, &bad);
                    assert_eq!(opened, Err(Krb5Error::Damaged), "{enctype}, bit {bit}");
                }
                for cut in 0..sealed.len() {
                    let opened = key.decrypt(TICKET_USAGE, &sealed[..cut]);
                    assert_eq!(opened, Err(Krb5Error::Damaged), "{enctype}, {cut} bytes");
                }
            }
        }
    }
}
