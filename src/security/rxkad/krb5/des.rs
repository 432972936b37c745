//! Single DES: what rxkad's oldest tickets are sealed with, and helpers for keys.
//!
//! Broken for decades; here only because servers and tickets of that kind exist.

use des::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use md5::Md5;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::modes::{cbc_decrypt, cbc_encrypt};
use super::{EncType, Krb5Error};

/// Bytes of a block, and of a key.
pub const BLOCK_LEN: usize = 8;

const CONFOUNDER_LEN: usize = 8;

/// The weak and the semi-weak keys, with odd parity.
const WEAK: [u64; 16] = [
    0x0101_0101_0101_0101,
    0xfefe_fefe_fefe_fefe,
    0xe0e0_e0e0_f1f1_f1f1,
    0x1f1f_1f1f_0e0e_0e0e,
    0x011f_011f_010e_010e,
    0x1f01_1f01_0e01_0e01,
    0x01e0_01e0_01f1_01f1,
    0xe001_e001_f101_f101,
    0x01fe_01fe_01fe_01fe,
    0xfe01_fe01_fe01_fe01,
    0x1fe0_1fe0_0ef1_0ef1,
    0xe01f_e01f_f10e_f10e,
    0x1ffe_1ffe_0efe_0efe,
    0xfe1f_fe1f_fe0e_fe0e,
    0xe0fe_e0fe_f1fe_f1fe,
    0xfee0_fee0_fef1_fef1,
];

/// Whether each byte has an odd number of ones.
pub fn has_odd_parity(key: &[u8; BLOCK_LEN]) -> bool {
    key.iter().all(|byte| byte.count_ones() % 2 == 1)
}

/// Sets the low bit of each byte so that the number of ones is odd.
pub fn set_odd_parity(key: &mut [u8; BLOCK_LEN]) {
    for byte in key {
        *byte = *byte & !1 | u8::from((*byte >> 1).count_ones() % 2 == 0);
    }
}

/// Whether DES is still weaker with this key; its parity is taken as right.
pub fn is_weak(key: &[u8; BLOCK_LEN]) -> bool {
    WEAK.contains(&u64::from_be_bytes(*key))
}

/// A key ready for use.
pub struct Des(des::Des);

impl Des {
    /// Any eight bytes: parity and weakness are the caller's affair.
    pub fn new(key: &[u8; BLOCK_LEN]) -> Des {
        Des(des::Des::new(key.into()))
    }

    /// One block.
    pub fn encrypt_block(&self, block: &mut [u8; BLOCK_LEN]) {
        self.0.encrypt_block(block.into());
    }

    /// One block.
    pub fn decrypt_block(&self, block: &mut [u8; BLOCK_LEN]) {
        self.0.decrypt_block(block.into());
    }

    /// PCBC, the mode of Kerberos 4: each block is chained with plain and cipher of the one before. The IV can
    /// be a key: what is left of it at the end is wiped.
    pub fn pcbc_encrypt(&self, iv: &[u8; BLOCK_LEN], data: &mut [u8]) {
        let mut chain = Zeroizing::new(u64::from_be_bytes(*iv));
        for block in data.as_chunks_mut().0 {
            let plain = u64::from_be_bytes(*block);
            *block = (plain ^ *chain).to_be_bytes();
            self.encrypt_block(block);
            *chain = plain ^ u64::from_be_bytes(*block);
        }
    }

    /// Undoes [`Des::pcbc_encrypt`].
    pub fn pcbc_decrypt(&self, iv: &[u8; BLOCK_LEN], data: &mut [u8]) {
        let mut chain = Zeroizing::new(u64::from_be_bytes(*iv));
        for block in data.as_chunks_mut().0 {
            let cipher = u64::from_be_bytes(*block);
            self.decrypt_block(block);
            let plain = u64::from_be_bytes(*block) ^ *chain;
            *block = plain.to_be_bytes();
            *chain = plain ^ cipher;
        }
    }
}

/// Bytes of the checksum behind the confounder.
fn checksum_len(enctype: EncType) -> usize {
    if enctype == EncType::DES_CBC_CRC { 4 } else { 16 }
}

fn iv(enctype: EncType, key: &[u8; BLOCK_LEN]) -> &[u8; BLOCK_LEN] {
    if enctype == EncType::DES_CBC_CRC { key } else { &[0; BLOCK_LEN] }
}

/// Over all of the plain text, the checksum's own place zero.
fn checksum(enctype: EncType, plain: &[u8]) -> Vec<u8> {
    match enctype {
        EncType::DES_CBC_MD4 => Md4::digest(plain).to_vec(),
        EncType::DES_CBC_MD5 => Md5::digest(plain).to_vec(),
        _ => crc32(plain).to_le_bytes().to_vec(),
    }
}

/// CRC-32 without the inversions at both ends that everybody else makes.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let mask = (crc & 1).wrapping_neg();
            crc >> 1 ^ 0xedb8_8320 & mask
        })
    })
}

/// Enctypes 1 to 3: confounder, checksum, data, zeros to the end of the block.
pub(super) fn encrypt(
    enctype: EncType,
    key: &[u8; BLOCK_LEN],
    confounder: &[u8; CONFOUNDER_LEN],
    plain: &[u8],
) -> Vec<u8> {
    let sum_end = CONFOUNDER_LEN + checksum_len(enctype);
    let mut data = Vec::with_capacity((sum_end + plain.len()).next_multiple_of(BLOCK_LEN));
    data.extend_from_slice(confounder);
    data.resize(sum_end, 0);
    data.extend_from_slice(plain);
    data.resize(data.len().next_multiple_of(BLOCK_LEN), 0);
    let sum = checksum(enctype, &data);
    data[CONFOUNDER_LEN..sum_end].copy_from_slice(&sum);
    let des = Des::new(key);
    cbc_encrypt(iv(enctype, key), &mut data, |block| des.encrypt_block(block));
    data
}

/// Undoes [`encrypt`]; up to seven zeros may stand behind the data.
pub(super) fn decrypt(
    enctype: EncType,
    key: &[u8; BLOCK_LEN],
    cipher: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Krb5Error> {
    let sum_end = CONFOUNDER_LEN + checksum_len(enctype);
    if !cipher.len().is_multiple_of(BLOCK_LEN) || cipher.len() < sum_end {
        return Err(Krb5Error::Damaged);
    }
    let mut data = Zeroizing::new(cipher.to_vec());
    let des = Des::new(key);
    cbc_decrypt(iv(enctype, key), &mut data, |block| des.decrypt_block(block));
    let found = data[CONFOUNDER_LEN..sum_end].to_vec();
    data[CONFOUNDER_LEN..sum_end].fill(0);
    if !bool::from(checksum(enctype, &data).ct_eq(&found)) {
        return Err(Krb5Error::Damaged);
    }
    data.drain(..sum_end);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::rxkad::vectors;

    #[test]
    fn parity_is_set_and_seen() {
        let mut key = [0, 1, 2, 3, 0xfe, 0xff, 0x80, 0x7f];
        assert!(!has_odd_parity(&key));
        set_odd_parity(&mut key);
        assert_eq!(key, [1, 1, 2, 2, 0xfe, 0xfe, 0x80, 0x7f]);
        assert!(has_odd_parity(&key));
    }

    #[test]
    fn weak_keys_undo_themselves_or_each_other() {
        // Encrypting with a weak key twice, or with both of a pair, gives the plain text back.
        for pair in 0..8 {
            let keys = [WEAK[pair * 2].to_be_bytes(), WEAK[pair * 2 + 1].to_be_bytes()];
            let second = if pair < 2 { [keys[0], keys[1]] } else { [keys[1], keys[0]] };
            for (first, second) in keys.iter().zip(&second) {
                assert!(is_weak(first) && has_odd_parity(first));
                let mut block = *b"12345678";
                Des::new(first).encrypt_block(&mut block);
                Des::new(second).encrypt_block(&mut block);
                assert_eq!(&block, b"12345678", "{first:02x?}");
            }
        }
        assert!(!is_weak(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]));
    }

    #[test]
    fn chains_are_as_published() {
        for vector in vectors::get("des_pcbc").list() {
            let key: [u8; BLOCK_LEN] = vector.at("key").bytes().try_into().unwrap();
            let iv: [u8; BLOCK_LEN] = vector.at("iv").bytes().try_into().unwrap();
            let mut data = vector.at("cipher").bytes();
            Des::new(&key).pcbc_decrypt(&iv, &mut data);
            assert_eq!(data, vector.at("plain").bytes());
            Des::new(&key).pcbc_encrypt(&iv, &mut data);
            assert_eq!(data, vector.at("cipher").bytes());
        }
    }

    #[test]
    fn the_crc_is_that_of_rfc_3961() {
        // Appendix A.5.
        assert_eq!(crc32(b"foo").to_le_bytes(), [0x33, 0xbc, 0x32, 0x73]);
        assert_eq!(crc32(b"test0123456789").to_le_bytes(), [0xd6, 0x88, 0x3e, 0xb8]);
        assert_eq!(
            crc32(b"MASSACHVSETTS INSTITVTE OF TECHNOLOGY").to_le_bytes(),
            [0xf7, 0x80, 0x41, 0xe3]
        );
        assert_eq!(crc32(&[0x80, 0]).to_le_bytes(), [0x4b, 0x98, 0x83, 0x3b]);
    }

    #[test]
    fn each_kind_opens_what_it_sealed_and_nothing_else() {
        let key = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        for enctype in [EncType::DES_CBC_CRC, EncType::DES_CBC_MD4, EncType::DES_CBC_MD5] {
            let sealed = encrypt(enctype, &key, b"confound", b"some plain text");
            let opened = decrypt(enctype, &key, &sealed).unwrap();
            assert_eq!(&opened[..15], b"some plain text");
            assert!(opened[15..].iter().all(|byte| *byte == 0) && opened.len() < 23);
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decrypt(enctype, &key, &bad).is_err(), "{enctype:?}, bit {bit}");
            }
            for len in 0..sealed.len() {
                assert!(decrypt(enctype, &key, &sealed[..len]).is_err());
            }
        }
    }
}
