//! Enctype 16, triple DES in CBC mode with HMAC-SHA1 (RFC 3961 section 6.3): what cells had before AES.

use des::TdesEde3;
use des::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hmac::Hmac;
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Krb5Error;
use super::des::{BLOCK_LEN, is_weak, set_odd_parity};
use super::fold::n_fold;
use super::mac::hmac;
use super::modes::{cbc_decrypt, cbc_encrypt};

/// Bytes of a key: three of DES.
pub(super) const KEY_LEN: usize = 24;

const CONFOUNDER_LEN: usize = 8;
const MAC_LEN: usize = 20;

/// Bytes of a key without its parity bits.
const RANDOM_LEN: usize = 21;

/// What a derived key is for: the byte behind the usage number.
const FOR_ENCRYPTION: u8 = 0xaa;
const FOR_INTEGRITY: u8 = 0x55;

type Key = Zeroizing<[u8; KEY_LEN]>;

/// Confounder, plain text, zeros to the end of the block; behind the cipher text a code over all of that.
pub(super) fn encrypt(
    key: &[u8; KEY_LEN],
    usage: u32,
    confounder: &[u8; CONFOUNDER_LEN],
    plain: &[u8],
) -> Vec<u8> {
    let len = (CONFOUNDER_LEN + plain.len()).next_multiple_of(BLOCK_LEN);
    // Room for all of it: a vector that grows leaves the plain text where it was before.
    let mut text = Vec::with_capacity(len + MAC_LEN);
    text.extend_from_slice(confounder);
    text.extend_from_slice(plain);
    text.resize(len, 0);
    let mac = mac(key, usage, &text);
    let cipher = schedule(&derive(key, &label(usage, FOR_ENCRYPTION)));
    cbc_encrypt::<BLOCK_LEN>(&[0; BLOCK_LEN], &mut text, |block| {
        cipher.encrypt_block(block.into());
    });
    text.extend_from_slice(&mac);
    text
}

/// Undoes [`encrypt`]; up to seven zeros may stand behind the plain text.
pub(super) fn decrypt(
    key: &[u8; KEY_LEN],
    usage: u32,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Krb5Error> {
    let is_right = |len: &usize| *len >= CONFOUNDER_LEN && len.is_multiple_of(BLOCK_LEN);
    let len = sealed.len().checked_sub(MAC_LEN).filter(is_right).ok_or(Krb5Error::Damaged)?;
    let (text, found) = sealed.split_at(len);
    let mut plain = Zeroizing::new(text.to_vec());
    let cipher = schedule(&derive(key, &label(usage, FOR_ENCRYPTION)));
    cbc_decrypt::<BLOCK_LEN>(&[0; BLOCK_LEN], &mut plain, |block| {
        cipher.decrypt_block(block.into());
    });
    if !bool::from(mac(key, usage, &plain).ct_eq(found)) {
        return Err(Krb5Error::Damaged);
    }
    plain.drain(..CONFOUNDER_LEN);
    Ok(plain)
}

fn mac(key: &[u8; KEY_LEN], usage: u32, text: &[u8]) -> Zeroizing<Vec<u8>> {
    hmac::<Hmac<Sha1>>(&*derive(key, &label(usage, FOR_INTEGRITY)), &[text])
}

fn label(usage: u32, purpose: u8) -> [u8; 5] {
    let [a, b, c, d] = usage.to_be_bytes();
    [a, b, c, d, purpose]
}

fn schedule(key: &[u8; KEY_LEN]) -> TdesEde3 {
    TdesEde3::new(key.into())
}

/// DK of RFC 3961 section 5.1.
fn derive(key: &[u8; KEY_LEN], label: &[u8]) -> Key {
    random_to_key(&derive_random(key, label))
}

/// DR: the folded label, encrypted over and over until there is enough of it.
fn derive_random(key: &[u8; KEY_LEN], label: &[u8]) -> Zeroizing<[u8; RANDOM_LEN]> {
    let cipher = schedule(key);
    let mut block = Zeroizing::new([0; BLOCK_LEN]);
    block.copy_from_slice(&n_fold(label, BLOCK_LEN));
    let mut random = Zeroizing::new([0; RANDOM_LEN]);
    for part in random.chunks_mut(BLOCK_LEN) {
        cipher.encrypt_block((&mut *block).into());
        part.copy_from_slice(&block[..part.len()]);
    }
    random
}

/// Seven bytes become eight: the low bit of each moves into the eighth, that of the first lowest, and its place
/// is the parity's (RFC 3961 section 6.3.1).
fn random_to_key(random: &[u8; RANDOM_LEN]) -> Key {
    let mut key = Key::default();
    let parts = key.as_chunks_mut::<BLOCK_LEN>().0.iter_mut().zip(random.as_chunks::<7>().0);
    for (des, bytes) in parts {
        let (first, last) = des.split_at_mut(7);
        first.copy_from_slice(bytes);
        last[0] = bytes.iter().rev().fold(0, |low, byte| low << 1 | byte & 1) << 1;
        set_odd_parity(des);
        if is_weak(des) {
            des[7] ^= 0xf0;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex<const N: usize>(hex: &str) -> [u8; N] {
        assert_eq!(hex.len(), 2 * N);
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    #[test]
    fn keys_are_derived_as_in_rfc_3961() {
        // Appendix A.3: key, label, DR, DK.
        let published: [(&str, &[u8], &str, &str); 5] = [
            (
                "dce06b1f64c857a11c3db57c51899b2cc1791008ce973b92",
                &[0, 0, 0, 1, 0x55],
                "935079d14490a75c3093c4a6e8c3b049c71e6ee705",
                "925179d04591a79b5d3192c4a7e9c289b049c71f6ee604cd",
            ),
            (
                "5e13d31c70ef765746578531cb51c15bf11ca82c97cee9f2",
                &[0, 0, 0, 1, 0xaa],
                "9f58e5a047d894101c469845d67ae3c5249ed812f2",
                "9e58e5a146d9942a101c469845d67a20e3c4259ed913f207",
            ),
            (
                "98e6fd8a04a4b6859b75a176540b9752bad3ecd610a252bc",
                &[0, 0, 0, 1, 0x55],
                "12fff90c773f956d13fc2ca0d0840349dbd39908eb",
                "13fef80d763e94ec6d13fd2ca1d085070249dad39808eabf",
            ),
            (
                "622aec25a2fe2cad7094680b7c64940280084c1a7cec92b5",
                &[0, 0, 0, 1, 0xaa],
                "f8debf05b097e7dc0603686aca35d91fd9a5516a70",
                "f8dfbf04b097e6d9dc0702686bcb3489d91fd9a4516b703e",
            ),
            (
                "d3f8298ccb166438dcb9b93ee5a7629286a491f838f802fb",
                b"kerberos",
                "2270db565d2a3d64cfbfdc5305d4f778a6de42d9da",
                "2370da575d2a3da864cebfdc5204d56df779a7df43d9da43",
            ),
        ];
        for (key, label, random, derived) in published {
            let key = unhex(key);
            assert_eq!(*derive_random(&key, label), unhex(random), "{label:?}");
            assert_eq!(*derive(&key, label), unhex(derived), "{label:?}");
        }
    }

    #[test]
    fn a_part_that_would_be_a_weak_key_is_another() {
        // 56 zeros are the weak key 0101..01.
        let key = random_to_key(&[0; RANDOM_LEN]);
        for part in key.as_chunks::<BLOCK_LEN>().0 {
            assert_eq!(part, &[1, 1, 1, 1, 1, 1, 1, 0xf1]);
        }
    }
}
