//! n-fold of RFC 3961 section 5.1: stretches or shrinks a string to a given length.

/// The copies of `input`, each turned right by 13 bits against the one before, that fill a common multiple of
/// both lengths, added up in pieces of `len` bytes with end-around carry.
pub(super) fn n_fold(input: &[u8], len: usize) -> Vec<u8> {
    let bits = input.len() * 8;
    let total = input.len() * len / gcd(input.len(), len);
    let mut copies = vec![0u8; total];
    for at in 0..total * 8 {
        let (copy, bit) = (at / bits, at % bits);
        let from = (bit + bits - 13 * copy % bits) % bits;
        let is_set = input[from / 8] >> (7 - from % 8) & 1;
        copies[at / 8] |= is_set << (7 - at % 8);
    }
    let mut sum = vec![0u8; len];
    for piece in copies.chunks(len) {
        add(&mut sum, piece);
    }
    sum
}

/// Ones' complement addition of numbers of the same length.
fn add(sum: &mut [u8], piece: &[u8]) {
    let mut carry = 0;
    for (byte, more) in sum.iter_mut().zip(piece).rev() {
        carry += u16::from(*byte) + u16::from(*more);
        *byte = carry as u8;
        carry >>= 8;
    }
    // Adding the carry that came out can carry once more, but not out again.
    for byte in sum.iter_mut().rev() {
        carry += u16::from(*byte);
        *byte = carry as u8;
        carry >>= 8;
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::n_fold;

    #[test]
    fn agrees_with_rfc_3961() {
        let published: [(&str, usize, &[u8]); 8] = [
            ("012345", 8, &[0xbe, 0x07, 0x26, 0x31, 0x27, 0x6b, 0x19, 0x55]),
            ("password", 7, &[0x78, 0xa0, 0x7b, 0x6c, 0xaf, 0x85, 0xfa]),
            (
                "Rough Consensus, and Running Code",
                8,
                &[0xbb, 0x6e, 0xd3, 0x08, 0x70, 0xb7, 0xf0, 0xe0],
            ),
            (
                "Q",
                21,
                &[
                    0x51, 0x8a, 0x54, 0xa2, 0x15, 0xa8, 0x45, 0x2a, 0x51, 0x8a, 0x54, 0xa2, 0x15,
                    0xa8, 0x45, 0x2a, 0x51, 0x8a, 0x54, 0xa2, 0x15,
                ],
            ),
            (
                "ba",
                21,
                &[
                    0xfb, 0x25, 0xd5, 0x31, 0xae, 0x89, 0x74, 0x49, 0x9f, 0x52, 0xfd, 0x92, 0xea,
                    0x98, 0x57, 0xc4, 0xba, 0x24, 0xcf, 0x29, 0x7e,
                ],
            ),
            ("kerberos", 8, b"kerberos"),
            (
                "kerberos",
                16,
                &[
                    0x6b, 0x65, 0x72, 0x62, 0x65, 0x72, 0x6f, 0x73, 0x7b, 0x9b, 0x5b, 0x2b, 0x93,
                    0x13, 0x2b, 0x93,
                ],
            ),
            (
                "kerberos",
                32,
                &[
                    0x6b, 0x65, 0x72, 0x62, 0x65, 0x72, 0x6f, 0x73, 0x7b, 0x9b, 0x5b, 0x2b, 0x93,
                    0x13, 0x2b, 0x93, 0x5c, 0x9b, 0xdc, 0xda, 0xd9, 0x5c, 0x98, 0x99, 0xc4, 0xca,
                    0xe4, 0xde, 0xe6, 0xd6, 0xca, 0xe4,
                ],
            ),
        ];
        for (text, len, expected) in published {
            assert_eq!(n_fold(text.as_bytes(), len), expected, "{len}-fold of {text:?}");
        }
    }
}
