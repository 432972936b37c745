//! Cipher block chaining, and the form of it with ciphertext stealing that Kerberos uses.
//!
//! Over any function from one block to one block. Written here because of one case: the crate `cts` treats a
//! message of exactly one block as no standard does (it encrypts the block twice).

/// CBC; what does not fill a block at the end is left as it is. The IV is borrowed, for it can be a key, of which
/// there is to be no copy.
pub(super) fn cbc_encrypt<const N: usize>(
    iv: &[u8; N],
    data: &mut [u8],
    encrypt: impl Fn(&mut [u8; N]),
) {
    let mut chain = iv;
    for block in data.as_chunks_mut::<N>().0 {
        xor(block, chain);
        encrypt(block);
        chain = block;
    }
}

/// Undoes [`cbc_encrypt`].
pub(super) fn cbc_decrypt<const N: usize>(
    iv: &[u8; N],
    data: &mut [u8],
    decrypt: impl Fn(&mut [u8; N]),
) {
    // From the end, where what a block is chained to is still what it was.
    let mut blocks = data.as_chunks_mut::<N>().0;
    while let Some((block, before)) = blocks.split_last_mut() {
        decrypt(block);
        xor(block, before.last().unwrap_or(iv));
        blocks = before;
    }
}

/// CBC with ciphertext stealing, IV zero (RFC 3962 section 5): the last two blocks change places, and the one
/// that is now last is cut to what the message needs. One block alone is plain CBC. The message has at least
/// one block.
pub(super) fn cts_encrypt<const N: usize>(data: &mut [u8], encrypt: impl Fn(&mut [u8; N])) {
    let (head, tail) = split(data, N);
    cbc_encrypt(&[0; N], head, &encrypt);
    if tail.is_empty() {
        return;
    }
    let before_last = last_block(head);
    let mut last = *before_last;
    xor(&mut last, tail);
    encrypt(&mut last);
    tail.copy_from_slice(&before_last[..tail.len()]);
    *before_last = last;
}

/// Undoes [`cts_encrypt`].
pub(super) fn cts_decrypt<const N: usize>(data: &mut [u8], decrypt: impl Fn(&mut [u8; N])) {
    let (head, tail) = split(data, N);
    if !tail.is_empty() {
        let last = last_block(head);
        decrypt(last);
        // What was stolen from the block before stands at the end of the last one.
        let mut before = *last;
        before[..tail.len()].copy_from_slice(tail);
        xor(last, &before);
        tail.copy_from_slice(&last[..tail.len()]);
        *last = before;
    }
    cbc_decrypt(&[0; N], head, decrypt);
}

/// Whole blocks, and behind them 1 to `block` bytes; none if there is but one block.
fn split(data: &mut [u8], block: usize) -> (&mut [u8], &mut [u8]) {
    let len = data.len();
    let tail = if len <= block { 0 } else { (len - 1) % block + 1 };
    data.split_at_mut(len - tail)
}

fn last_block<const N: usize>(head: &mut [u8]) -> &mut [u8; N] {
    head.last_chunk_mut().expect("a message has at least one block")
}

fn xor(block: &mut [u8], with: &[u8]) {
    block.iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3962 appendix B, in the words of its AES-128 key "chicken teriyaki"; lengths 17, 31, 32, 47, 48, 64.
    const PLAIN: &[u8; 64] = b"I would like the General Gau's Chicken, please, and wonton soup.";

    fn aes() -> aes::Aes128 {
        use aes::cipher::KeyInit;
        aes::Aes128::new(b"chicken teriyaki".into())
    }

    #[test]
    fn ciphertext_stealing_agrees_with_rfc_3962() {
        use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt};
        let last_two = [
            (17, "c6353568f2bf8cb4d8a580362da7ff7f", "97"),
            (31, "fc00783e0efdb2c1d445d4c8eff7ed22", "97687268d6ecccc0c07b25e25ecfe5"),
            (32, "39312523a78662d5be7fcbcc98ebf5a8", "97687268d6ecccc0c07b25e25ecfe584"),
            (47, "b3fffd940c16a18c1b5549d2f838029e", "39312523a78662d5be7fcbcc98ebf5"),
            (48, "9dad8bbb96c4cdc03bc103e1a194bbd8", "39312523a78662d5be7fcbcc98ebf5a8"),
            (64, "4807efe836ee89a526730dbc2f7bc840", "9dad8bbb96c4cdc03bc103e1a194bbd8"),
        ];
        let aes = aes();
        for (len, before, last) in last_two {
            let mut data = PLAIN[..len].to_vec();
            cts_encrypt::<16>(&mut data, |block| aes.encrypt_block(block.into()));
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(hex.ends_with(&format!("{before}{last}")), "{len}: {hex}");
            cts_decrypt::<16>(&mut data, |block| aes.decrypt_block(block.into()));
            assert_eq!(data, &PLAIN[..len]);
        }
    }

    #[test]
    fn one_block_alone_is_encrypted_once() {
        use aes::cipher::BlockCipherEncrypt;
        let aes = aes();
        let mut expected: [u8; 16] = *PLAIN.first_chunk().unwrap();
        aes.encrypt_block((&mut expected).into());
        let mut data = PLAIN[..16].to_vec();
        cts_encrypt::<16>(&mut data, |block| aes.encrypt_block(block.into()));
        assert_eq!(data, expected);
    }
}
