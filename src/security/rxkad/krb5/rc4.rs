//! Enctype 23, RC4 with HMAC-MD5 (RFC 4757): what an old Active Directory seals tickets with.

use hmac::Hmac;
use md5::Md5;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::Krb5Error;
use super::mac::hmac;

const CHECKSUM_LEN: usize = 16;
const CONFOUNDER_LEN: usize = 8;

fn hmac_md5(key: &[u8], data: &[u8]) -> Zeroizing<Vec<u8>> {
    hmac::<Hmac<Md5>>(key, &[data])
}

/// Usages 3 and 9 have other numbers here; a ticket's is 2.
fn usage_key(key: &[u8], usage: u32) -> Zeroizing<Vec<u8>> {
    let usage = match usage {
        3 | 9 => 8,
        usage => usage,
    };
    hmac_md5(key, &usage.to_le_bytes())
}

pub(super) fn encrypt(
    key: &[u8],
    usage: u32,
    confounder: &[u8; CONFOUNDER_LEN],
    plain: &[u8],
) -> Vec<u8> {
    let key = usage_key(key, usage);
    let mut data = [&[0; CHECKSUM_LEN], &confounder[..], plain].concat();
    let (sum, text) = data.split_at_mut(CHECKSUM_LEN);
    sum.copy_from_slice(&hmac_md5(&key, text));
    rc4(&hmac_md5(&key, sum), text);
    data
}

pub(super) fn decrypt(
    key: &[u8],
    usage: u32,
    cipher: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Krb5Error> {
    if cipher.len() < CHECKSUM_LEN + CONFOUNDER_LEN {
        return Err(Krb5Error::Damaged);
    }
    let key = usage_key(key, usage);
    let (sum, text) = cipher.split_at(CHECKSUM_LEN);
    let mut text = Zeroizing::new(text.to_vec());
    rc4(&hmac_md5(&key, sum), &mut text);
    if !bool::from(hmac_md5(&key, &text).ct_eq(sum)) {
        return Err(Krb5Error::Damaged);
    }
    text.drain(..CONFOUNDER_LEN);
    Ok(text)
}

fn rc4(key: &[u8], data: &mut [u8]) {
    let mut state: [u8; 256] = std::array::from_fn(|at| at as u8);
    let mut j = 0u8;
    for i in 0..256 {
        j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
        state.swap(i, j.into());
    }
    let (mut i, mut j) = (0u8, 0u8);
    for byte in data {
        i = i.wrapping_add(1);
        j = j.wrapping_add(state[usize::from(i)]);
        state.swap(i.into(), j.into());
        let at = state[usize::from(i)].wrapping_add(state[usize::from(j)]);
        *byte ^= state[usize::from(at)];
    }
    state.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_is_rc4() {
        // RFC 6229, key 0102030405: the first 16 bytes of the key stream.
        let mut stream = [0; 16];
        rc4(&[1, 2, 3, 4, 5], &mut stream);
        assert_eq!(
            stream,
            [
                0xb2, 0x39, 0x63, 0x05, 0xf0, 0x3d, 0xc0, 0x27, 0xcc, 0xc3, 0x52, 0x4a, 0x0a, 0x11,
                0x18, 0xa8
            ]
        );
    }
}
