//! fcrypt, the cipher of rxkad: 16 Feistel rounds on 64-bit blocks, of which the key has 56 bits.
//!
//! Rounds look up tables, so a block waits for memory most of its time; several independent blocks taken
//! through the rounds together wait together. That is all the speed there is.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::SessionKey;

/// Bytes of a block.
pub(super) const BLOCK_LEN: usize = 8;

const ROUNDS: usize = 16;

/// A key, ready for use. The low bit of each key byte is dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Fcrypt([u32; ROUNDS]);

impl Fcrypt {
    /// The key schedule.
    pub fn new(key: &SessionKey) -> Fcrypt {
        let mut k = key.expose().iter().fold(0, |k, byte| k << 7 | u64::from(byte >> 1));
        let schedule = std::array::from_fn(|_| {
            let word = k as u32;
            k = k >> 11 | (k & 0x7ff) << 45;
            word
        });
        k.zeroize();
        Fcrypt(schedule)
    }

    /// Encrypts a block.
    pub fn encrypt(&self, block: u64) -> u64 {
        self.encrypt_lanes([block])[0]
    }

    /// Encrypts blocks that have nothing to do with each other.
    #[inline]
    pub fn encrypt_lanes<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let (mut left, mut right) = split(blocks);
        for pair in self.0.as_chunks::<2>().0 {
            for lane in 0..N {
                left[lane] ^= f(pair[0] ^ right[lane]);
            }
            for lane in 0..N {
                right[lane] ^= f(pair[1] ^ left[lane]);
            }
        }
        join(left, right)
    }

    /// Decrypts blocks that have nothing to do with each other.
    #[inline]
    pub fn decrypt_lanes<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let (mut left, mut right) = split(blocks);
        for pair in self.0.as_chunks::<2>().0.iter().rev() {
            for lane in 0..N {
                right[lane] ^= f(pair[1] ^ left[lane]);
            }
            for lane in 0..N {
                left[lane] ^= f(pair[0] ^ right[lane]);
            }
        }
        join(left, right)
    }
}

#[inline]
fn split<const N: usize>(blocks: [u64; N]) -> ([u32; N], [u32; N]) {
    (blocks.map(|block| (block >> 32) as u32), blocks.map(|block| block as u32))
}

#[inline]
fn join<const N: usize>(left: [u32; N], right: [u32; N]) -> [u64; N] {
    std::array::from_fn(|lane| u64::from(left[lane]) << 32 | u64::from(right[lane]))
}

/// The round function: S-boxes, a permutation of the bytes, a rotation; all but the look-up is in the tables.
#[inline]
fn f(x: u32) -> u32 {
    // Halves first: of these the processor has the two bytes without shifting.
    let (high, low) = (x >> 16, x & 0xffff);
    T[0][(high >> 8) as usize]
        ^ T[1][(high & 0xff) as usize]
        ^ T[2][(low >> 8) as usize]
        ^ T[3][(low & 0xff) as usize]
}

/// One table: the addresses of four would take registers away from the lanes.
static T: [[u32; 256]; 4] = [widen(&S0, 8), widen(&S1, 0), widen(&S2, 16), widen(&S3, 24)];

/// An S-box whose values stand where the round function puts them.
const fn widen(sbox: &[u8; 256], shift: u32) -> [u32; 256] {
    let mut wide = [0; 256];
    let mut index = 0;
    while index < 256 {
        wide[index] = ((sbox[index] as u32) << shift).rotate_right(5);
        index += 1;
    }
    wide
}

/// A table written in hex.
const fn table(hex: &str) -> [u8; 256] {
    const fn digit(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => panic!("no hex digit"),
        }
    }
    let hex = hex.as_bytes();
    assert!(hex.len() == 512);
    let mut bytes = [0; 256];
    let mut index = 0;
    while index < 256 {
        bytes[index] = digit(hex[2 * index]) << 4 | digit(hex[2 * index + 1]);
        index += 1;
    }
    bytes
}

const S0: [u8; 256] = table(
    "\
     ea7fb2649db0d911cd8686910ab293060e06d26573c52860f220b5387eda9fe3\
     d2cfc43c61ff4a4a35acaa5f2bbbbc534e9d78a3dc093210c66f66d6aba9affd\
     3b95e8349a8172809cf3ecda9f2676153e554dde84eeadc7f16b3dd30449aa24\
     0b8a83bafa85a0a8b1d401d87064f051d2c3a7758ca564ef104eb7c66103eb44\
     3de5b35baed5ad1dfa5a1e33ab93a2b7e7a845a4cd296344b6697e2e6203c8e0\
     17bbc7f33f36ba718e97656069b6f6e66ee08159e8afdd952299fd63197461b1\
     b65bae54b370ffc63b3ec1d7e10e76e5364f59c7086e82a693c4aa2649e02164\
     079f64819cbff9d143f8b6b9f1247503e4b099463df5d1397212f6ba0c0d422e",
);

const S1: [u8; 256] = table(
    "\
     7714a6feb25e8c3e676ca10dc2a2c1856c7b67c623e3f289509c03b773e6e139\
     312c279fa56944d62383987d3cb42d991c1f8c20037c5fadf4fa95ca7644cdb6\
     b8a1a1be9e548f0b1674318a231704fa7984b1f513abb52eaa0c606b5bc44bbc\
     e2af4573fac949cd00927d977a18603dcf5bdec6e2e6bb8b06da08151b886a17\
     89d0a9c1c9706be543f468c8d384280a5266a3caf2e37f7a31f788945e9c63d5\
     2466fcb35725be8944c4e08f233c1252f51ef4cb18331ff869109dd3f728f830\
     055e32c0d519bd458b5bfdbce25ca996ef70cfc22ab361ad804881b71d43d9d7\
     45f0d88a597c57c179c734d643dfe4781606da927651e1d47003e02f96918280",
);

const S2: [u8; 256] = table(
    "\
     f03724532a038386d1ec50f042782f6dbf80872795e2c55df96fdbb4656ee724\
     c81abb49b50a7db9e8dcb7d945201bce599d6bbd0e8fa3a9bc74a6f67f5fb168\
     84bca9fd5550e9b6135e07b89502c0d06a1a85bdb6fdfe173f09a38dfbedda1d\
     6d1c6c015ae5713e8b6bbe29eb121934cdb3bd35ea4bd5ae2a795aa532127bdc\
     2cd0224bb1855980c0309f73d3144840072d8f800fce0b5eb75eac24944a1815\
     05e80277a9c7404589d1eade0c792a996c3e95dd8c7dad6fdcfffd6247b3218a\
     ec8e1918b46e3dfd74541e0485d8bc1f56e73a5667d6c8a5f38edeae3749b7fa\
     c8f41fe02a9b15d1340eb5e044788459566877a51406f52f8c8a738076b41086",
);

const S3: [u8; 256] = table(
    "\
     a92a4851847e49e2b5b742337d5da61244486d28aa206d57d66b5d72f0925a1b\
     538024709acca766a101a54197413182f114cf530da010cc2a7dd2bf4b1adb16\
     47f65136edf3b91aa7df2943015470a4bfd40b5344609e23a118684ff02f82c2\
     2a41b2420ced0c1d133a3c6e35dc606585e964029a3f9f8796dfbef2cbe56cd4\
     5a83bf921b940042cf4b0075ba8f765f5d3a4d091208389517e4011d4ca9cc85\
     824c9d2f3b66a13410cd5989a531cf05c884fac7ba4e8b1a19f1a13b181217b0\
     988d0b23c33a2d20df13a0a84c0d6c2f471313521f2df5793da254bd69c86bf3\
     0528f1164640b011d3b79549cfc31d8fd8e173dbadc8c9a9a1c2c5e3bafc0e25",
);

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::security::rxkad::vectors::{self, Vector};

    #[test]
    fn s_boxes_are_as_published() {
        for (ours, theirs) in [S0, S1, S2, S3].iter().zip(vectors::get("sboxes").list()) {
            assert_eq!(ours.as_slice(), theirs.bytes());
        }
        for (ours, theirs) in [S0, S1, S2, S3].iter().zip(vectors::get("sbox_sha256").list()) {
            assert_eq!(Sha256::digest(ours).as_slice(), theirs.bytes());
        }
    }

    #[test]
    fn key_schedules_are_as_published() {
        for vector in vectors::get("fcrypt_key_schedule").list() {
            let schedule: Vec<u32> =
                vector.at("schedule").list().iter().map(Vector::hex_word).collect();
            assert_eq!(Fcrypt::new(&vector.at("key").key()).0.as_slice(), schedule);
        }
    }

    #[test]
    fn single_blocks_are_as_published() {
        for vector in vectors::get("fcrypt_ecb").list() {
            let cipher = Fcrypt::new(&vector.at("key").key());
            let (plain, sealed) = (vector.at("plain").block(), vector.at("cipher").block());
            assert_eq!(cipher.encrypt(plain), sealed);
            assert_eq!(cipher.decrypt_lanes([sealed]), [plain]);
        }
    }

    #[test]
    fn lanes_do_not_touch_each_other() {
        let cipher = Fcrypt::new(&SessionKey::new(*b"\x01#Eg\x89\xab\xcd\xef"));
        let plain: [u64; 7] = std::array::from_fn(|lane| 0x0123_4567_89ab_cdef << lane);
        let sealed = cipher.encrypt_lanes(plain);
        assert_eq!(sealed, plain.map(|block| cipher.encrypt(block)));
        assert_eq!(cipher.decrypt_lanes(sealed), plain);
    }
}
