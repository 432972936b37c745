//! AES enctypes: 17 and 18 (RFC 3962, on RFC 3961's simplified profile), 19 and 20 (RFC 8009).

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use hmac::Hmac;
use sha1::Sha1;
use sha2::{Sha256, Sha384};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::fold::n_fold;
use super::mac::hmac;
use super::modes::{cts_decrypt, cts_encrypt};
use super::{EncType, Krb5Error};

pub(super) const BLOCK_LEN: usize = 16;

/// What a derived key is for: the byte behind the usage number.
const FOR_ENCRYPTION: u8 = 0xaa;
const FOR_INTEGRITY: u8 = 0x55;

type Secret = Zeroizing<Vec<u8>>;

/// One of the four.
pub(super) struct Kind {
    key_len: usize,
    integrity_key_len: usize,
    mac_len: usize,
    is_sha2: bool,
}

impl Kind {
    pub(super) fn of(enctype: EncType) -> Option<Kind> {
        let (key_len, integrity_key_len, mac_len, is_sha2) = match enctype {
            EncType::AES128_SHA1 => (16, 16, 12, false),
            EncType::AES256_SHA1 => (32, 32, 12, false),
            EncType::AES128_SHA256 => (16, 16, 16, true),
            EncType::AES256_SHA384 => (32, 24, 24, true),
            _ => return None,
        };
        Some(Kind { key_len, integrity_key_len, mac_len, is_sha2 })
    }

    pub(super) fn key_len(&self) -> usize {
        self.key_len
    }

    pub(super) fn encrypt(
        &self,
        key: &[u8],
        usage: u32,
        confounder: &[u8; BLOCK_LEN],
        plain: &[u8],
    ) -> Vec<u8> {
        let mut text = [confounder, plain].concat();
        let cipher = Aes::new(&self.derive(key, usage, FOR_ENCRYPTION));
        let mac = if self.is_sha2 {
            cts_encrypt(&mut text, |block| cipher.encrypt(block));
            self.mac(key, usage, &text)
        } else {
            let mac = self.mac(key, usage, &text);
            cts_encrypt(&mut text, |block| cipher.encrypt(block));
            mac
        };
        text.extend_from_slice(&mac);
        text
    }

    pub(super) fn decrypt(
        &self,
        key: &[u8],
        usage: u32,
        sealed: &[u8],
    ) -> Result<Secret, Krb5Error> {
        let text_len = sealed.len().checked_sub(self.mac_len).filter(|len| *len >= BLOCK_LEN);
        let (text, found) = sealed.split_at(text_len.ok_or(Krb5Error::Damaged)?);
        let mut plain = Zeroizing::new(text.to_vec());
        let cipher = Aes::new(&self.derive(key, usage, FOR_ENCRYPTION));
        cts_decrypt(&mut plain, |block| cipher.decrypt(block));
        let mac = self.mac(key, usage, if self.is_sha2 { text } else { &plain });
        if !bool::from(mac.ct_eq(found)) {
            return Err(Krb5Error::Damaged);
        }
        plain.drain(..BLOCK_LEN);
        Ok(plain)
    }

    /// Over plain text with SHA-1, over the IV and the cipher text with SHA-2.
    fn mac(&self, key: &[u8], usage: u32, text: &[u8]) -> Secret {
        let key = self.derive(key, usage, FOR_INTEGRITY);
        let iv = [0; BLOCK_LEN];
        let mut mac = match (self.is_sha2, self.key_len) {
            (false, _) => hmac::<Hmac<Sha1>>(&key, &[text]),
            (true, 16) => hmac::<Hmac<Sha256>>(&key, &[&iv, text]),
            (true, _) => hmac::<Hmac<Sha384>>(&key, &[&iv, text]),
        };
        mac.truncate(self.mac_len);
        mac
    }

    fn derive(&self, key: &[u8], usage: u32, purpose: u8) -> Secret {
        let [a, b, c, d] = usage.to_be_bytes();
        let label = [a, b, c, d, purpose];
        if !self.is_sha2 {
            return derive_by_folding(key, &label);
        }
        let len = if purpose == FOR_INTEGRITY { self.integrity_key_len } else { self.key_len };
        // RFC 8009 section 3: one block of the KDF is as long as any key.
        let bits = (len as u32 * 8).to_be_bytes();
        let input: [&[u8]; 4] = [&1u32.to_be_bytes(), &label, &[0], &bits];
        let mut derived = match self.key_len {
            16 => hmac::<Hmac<Sha256>>(key, &input),
            _ => hmac::<Hmac<Sha384>>(key, &input),
        };
        derived.truncate(len);
        derived
    }
}

/// DK of RFC 3961: the folded label, encrypted over and over until there is enough of it.
fn derive_by_folding(key: &[u8], label: &[u8]) -> Secret {
    let cipher = Aes::new(key);
    let folded: [u8; BLOCK_LEN] = n_fold(label, BLOCK_LEN).try_into().expect("as asked for");
    let mut block = Zeroizing::new(folded);
    let mut derived = Zeroizing::new(Vec::with_capacity(key.len()));
    while derived.len() < key.len() {
        cipher.encrypt(&mut block);
        derived.extend_from_slice(&*block);
    }
    derived
}

/// A key schedule.
enum Aes {
    Short(Box<Aes128>),
    Long(Box<Aes256>),
}

impl Aes {
    /// Of 16 or 32 bytes.
    fn new(key: &[u8]) -> Aes {
        match key.len() {
            16 => Aes::Short(Box::new(Aes128::new_from_slice(key).expect("16 bytes"))),
            _ => Aes::Long(Box::new(Aes256::new_from_slice(key).expect("32 bytes"))),
        }
    }

    fn encrypt(&self, block: &mut [u8; BLOCK_LEN]) {
        match self {
            Aes::Short(aes) => aes.encrypt_block(block.into()),
            Aes::Long(aes) => aes.encrypt_block(block.into()),
        }
    }

    fn decrypt(&self, block: &mut [u8; BLOCK_LEN]) {
        match self {
            Aes::Short(aes) => aes.decrypt_block(block.into()),
            Aes::Long(aes) => aes.decrypt_block(block.into()),
        }
    }
}
