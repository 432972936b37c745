//! Propagating cipher block chaining with fcrypt. Each block is chained to the plain and the sealed form
//! of the block before it. OpenAFS calls the same thing CBC.
//!
//! A chain is encrypted one block after the other, so speed comes from taking several chains at once;
//! decryption has no such order, and takes several blocks of one chain at once.
//!
//! The IV is the session key. It is borrowed, and what a chain begins with is what its first block puts something
//! else in the place of, so that no copy is left behind to be wiped on each packet's way.

use std::ops::Range;

use super::fcrypt::{BLOCK_LEN, Fcrypt};

/// Chains that are encrypted at once, and blocks that are decrypted at once: beyond this, more state than
/// there are registers eats what is gained (measured on x86-64).
pub(super) const LANES: usize = 8;

/// Encrypts a chain in place. Bytes after the last whole block stay as they are.
pub(super) fn encrypt(cipher: &Fcrypt, iv: &u64, data: &mut [u8]) {
    encrypt_rest(cipher, *iv, data.as_chunks_mut().0);
}

/// Decrypts a chain in place. Bytes after the last whole block stay as they are.
pub(super) fn decrypt(cipher: &Fcrypt, iv: &u64, data: &mut [u8]) {
    let mut chain = *iv;
    let (groups, rest) = data.as_chunks_mut::<BLOCK_LEN>().0.as_chunks_mut::<LANES>();
    for group in groups {
        chain = decrypt_group(cipher, chain, group);
    }
    for block in rest.as_chunks_mut::<1>().0 {
        chain = decrypt_group(cipher, chain, block);
    }
}

/// Encrypts chains in place, each from its own start, all with one IV. The ranges must not overlap.
pub(super) fn encrypt_many(cipher: &Fcrypt, iv: &u64, buffer: &mut [u8], chains: &[Range<usize>]) {
    let (groups, rest) = chains.as_chunks::<LANES>();
    for group in groups {
        encrypt_group(cipher, iv, buffer, group.clone());
    }
    let chain = |at: usize| rest[at].clone();
    match rest.len() {
        7 => encrypt_group::<7>(cipher, iv, buffer, std::array::from_fn(chain)),
        6 => encrypt_group::<6>(cipher, iv, buffer, std::array::from_fn(chain)),
        5 => encrypt_group::<5>(cipher, iv, buffer, std::array::from_fn(chain)),
        4 => encrypt_group::<4>(cipher, iv, buffer, std::array::from_fn(chain)),
        3 => encrypt_group::<3>(cipher, iv, buffer, std::array::from_fn(chain)),
        2 => encrypt_group::<2>(cipher, iv, buffer, std::array::from_fn(chain)),
        _ => rest.iter().for_each(|chain| encrypt(cipher, iv, &mut buffer[chain.clone()])),
    }
}

/// Encrypts as many chains as there are lanes: together as far as all of them go, then each to its end.
fn encrypt_group<const N: usize>(
    cipher: &Fcrypt,
    iv: &u64,
    buffer: &mut [u8],
    chains: [Range<usize>; N],
) {
    let Ok(lanes) = buffer.get_disjoint_mut(chains) else {
        unreachable!("chains lie in the buffer, one after the other");
    };
    let lanes = lanes.map(|lane| lane.as_chunks_mut::<BLOCK_LEN>().0);
    let common = lanes.iter().map(|lane| lane.len()).min().unwrap_or(0);
    let mut state = [*iv; N];
    let lanes = lanes.map(|lane| lane.split_at_mut(common));
    for at in 0..common {
        let plain: [u64; N] = std::array::from_fn(|lane| u64::from_be_bytes(lanes[lane].0[at]));
        let sealed =
            cipher.encrypt_lanes(std::array::from_fn::<_, N, _>(|lane| plain[lane] ^ state[lane]));
        for lane in 0..N {
            lanes[lane].0[at] = sealed[lane].to_be_bytes();
            state[lane] = plain[lane] ^ sealed[lane];
        }
    }
    for (lane, chain) in lanes.into_iter().zip(state) {
        encrypt_rest(cipher, chain, lane.1);
    }
}

fn encrypt_rest(cipher: &Fcrypt, mut chain: u64, blocks: &mut [[u8; BLOCK_LEN]]) {
    for block in blocks {
        let plain = u64::from_be_bytes(*block);
        let sealed = cipher.encrypt(plain ^ chain);
        *block = sealed.to_be_bytes();
        chain = plain ^ sealed;
    }
}

/// Decrypts consecutive blocks and returns what the next one is chained to.
#[inline]
fn decrypt_group<const N: usize>(
    cipher: &Fcrypt,
    mut chain: u64,
    blocks: &mut [[u8; BLOCK_LEN]; N],
) -> u64 {
    let sealed = blocks.map(u64::from_be_bytes);
    let opened = cipher.decrypt_lanes(sealed);
    for lane in 0..N {
        let plain = opened[lane] ^ chain;
        blocks[lane] = plain.to_be_bytes();
        chain = plain ^ sealed[lane];
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::rxkad::vectors;

    #[test]
    fn chains_are_as_published() {
        for vector in vectors::get("fcrypt_pcbc").list() {
            let cipher = Fcrypt::new(&vector.at("key").key());
            let iv = &vector.at("iv").block();
            let mut data = vector.at("plain").bytes();
            encrypt(&cipher, iv, &mut data);
            assert_eq!(data, vector.at("cipher").bytes());
            decrypt(&cipher, iv, &mut data);
            assert_eq!(data, vector.at("plain").bytes());
        }
    }

    #[test]
    fn chains_taken_together_are_what_each_is_alone() {
        let cipher = Fcrypt::new(&crate::security::rxkad::SessionKey::new(*b"abcdefgh"));
        // Of up to sixteen chains, some longer than others, some empty, with gaps between them.
        for count in 0..17 {
            for step in [0, 3, 8] {
                let mut ranges = Vec::new();
                let mut end = 0;
                for chain in 0..count {
                    let start = end + chain % 3;
                    end = start + step * chain;
                    ranges.push(start..end);
                }
                let plain: Vec<u8> = (0..end + 5).map(|at| at as u8).collect();
                let mut together = plain.clone();
                encrypt_many(&cipher, &99, &mut together, &ranges);
                let mut alone = plain.clone();
                for range in ranges.clone() {
                    encrypt(&cipher, &99, &mut alone[range]);
                }
                assert_eq!(together, alone, "{count} chains, step {step}");
                for range in ranges {
                    decrypt(&cipher, &99, &mut alone[range]);
                }
                assert_eq!(alone, plain, "{count} chains, step {step}");
            }
        }
    }
}
