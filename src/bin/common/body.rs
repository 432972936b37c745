//! The bytes that service 147 moves: zeros, and the pattern that a receiver can check.
//!
//! A transfer of any size is made and checked piece by piece; zeros are never copied.

use bytes::Bytes;

/// Bytes of one piece.
pub const PIECE_BYTES: usize = 64 << 10;

/// The word that ends every reply.
pub const MAGIC: u32 = 0x4711;

/// Bytes of a word.
pub const WORD: usize = 4;

/// Zeros, and the magic word behind them: a reply without content ends with a slice of it.
static ZEROS: [u8; PIECE_BYTES + WORD] = {
    let mut bytes = [0; PIECE_BYTES + WORD];
    let magic = MAGIC.to_be_bytes();
    let mut at = 0;
    while at < WORD {
        bytes[PIECE_BYTES + at] = magic[at];
        at += 1;
    }
    bytes
};

/// So many zeros; at most [`PIECE_BYTES`].
pub fn zeros(count: usize) -> Bytes {
    Bytes::from_static(&ZEROS[..count])
}

/// So many zeros, at most [`PIECE_BYTES`], and the magic word.
pub fn zeros_and_magic(count: usize) -> Bytes {
    Bytes::from_static(&ZEROS[PIECE_BYTES - count..])
}

/// A row of the pattern: within 256 bytes it is a ramp with this step, from row to row it starts elsewhere.
const STEP: u8 = 167;
/// `STEP * STEP_INVERSE` is 1 modulo 256: how far into the ramp a row starts.
const STEP_INVERSE: u8 = 23;
const ROW: usize = 256;

/// Two rows: one that starts anywhere is a slice of it.
static RAMP: [u8; 2 * ROW] = {
    let mut ramp = [0; 2 * ROW];
    let mut at = 0;
    while at < ramp.len() {
        ramp[at] = (at as u8).wrapping_mul(STEP);
        at += 1;
    }
    ramp
};

/// Where in a transfer we are: byte `i` with `seed` is `i*167 + (i>>8)*59 + (i>>16)*31 + seed`, modulo 256.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u8,
    at: u64,
}

impl Pattern {
    /// The beginning of a transfer.
    pub fn new(seed: u32) -> Pattern {
        Pattern { seed: seed as u8, at: 0 }
    }

    /// The rest of the present row, which is never empty.
    fn row(&self) -> &'static [u8] {
        let start = ((self.at >> 8) as u8)
            .wrapping_mul(59)
            .wrapping_add(((self.at >> 16) as u8).wrapping_mul(31))
            .wrapping_add(self.seed)
            .wrapping_mul(STEP_INVERSE);
        let start = usize::from(start);
        &RAMP[start + self.at as usize % ROW..start + ROW]
    }

    /// Appends the next `count` bytes.
    pub fn extend(&mut self, count: usize, into: &mut Vec<u8>) {
        let mut left = count;
        while left > 0 {
            let row = self.row();
            let row = &row[..row.len().min(left)];
            into.extend_from_slice(row);
            self.at += row.len() as u64;
            left -= row.len();
        }
    }

    /// The next `count` bytes.
    pub fn piece(&mut self, count: usize) -> Bytes {
        let mut piece = Vec::with_capacity(count);
        self.extend(count, &mut piece);
        piece.into()
    }

    /// Whether the next bytes are these; if not, the place of the row that differs first.
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            let row = self.row();
            let (now, later) = bytes.split_at(row.len().min(bytes.len()));
            if now != &row[..now.len()] {
                let same = now.iter().zip(row).take_while(|(came, expected)| came == expected);
                return Err(self.at + same.count() as u64);
            }
            self.at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(i: u64, seed: u64) -> u8 {
        (i * 167 + (i >> 8) * 59 + (i >> 16) * 31 + seed) as u8
    }

    #[test]
    fn the_pattern_is_that_of_the_readme_however_it_is_cut() {
        let count = 200_000;
        for seed in [0u32, 1, 255, 256, 0xffff_ffff] {
            let expected: Vec<u8> = (0..count).map(|i| byte(i, seed.into())).collect();
            for step in [1, 255, 256, 257, 1412, PIECE_BYTES] {
                let (mut made, mut check) = (Pattern::new(seed), Pattern::new(seed));
                let mut bytes = Vec::new();
                while bytes.len() < expected.len() {
                    let piece = made.piece(step.min(expected.len() - bytes.len()));
                    assert_eq!(check.check(&piece), Ok(()));
                    bytes.extend_from_slice(&piece);
                }
                assert!(bytes == expected, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn the_place_of_a_wrong_byte_is_told() {
        let mut bytes = Vec::new();
        Pattern::new(7).extend(70_000, &mut bytes);
        bytes[66_001] ^= 1;
        assert_eq!(Pattern::new(7).check(&bytes), Err(66_001));
    }

    #[test]
    fn zeros_end_with_the_magic_word() {
        assert_eq!(zeros_and_magic(0)[..], MAGIC.to_be_bytes());
        assert_eq!(zeros_and_magic(2)[..], [0, 0, 0, 0, 0x47, 0x11]);
        assert_eq!(zeros_and_magic(PIECE_BYTES).len(), PIECE_BYTES + WORD);
        assert!(zeros(PIECE_BYTES).iter().all(|byte| *byte == 0));
    }
}
