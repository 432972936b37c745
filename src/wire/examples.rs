//! The examples W1 to W15 of rx-wire.md 7, for the tests of this folder.

pub(super) const W1: &str =
    "8f3a21c4 5d0e9a36 00000001 00000001 00000001 01050000 00000001 70696e67";
pub(super) const W2: &str =
    "8f3a21c4 5d0e9a36 00000001 00000001 00000001 01040000 00000001 706f6e67";
pub(super) const W3: &str = "8f3a21c4 5d0e9a36 00000001 00000000 00000002 02210000 00000001 \
    00000000 00000002 00000001 00000001 09000000 00000016 3c000005 a4000000 20000000 04";
pub(super) const W4: &str = "8f3a21c4 5d0e9a36 00000001 00000000 00000007 02200000 00000001 \
    00000000 00000003 00000005 00000009 03030001 01000000 0000163c 000005a4 00000020 00000004";
pub(super) const W5: &str = "8f3a21c4 5d0e9a36 00000001 00000000 00000008 02220000 00000001 \
    00000000 00000001 00000000 00000000 06000000 00000005 a4000005 a4000000 10000000 01";
pub(super) const W6: &str = "8f3a21c4 5d0e9a36 00000001 00000000 00000003 02210000 00000001 \
    00000000 00000001 00000000 00000008 07000000 00000005 a4000005 a4000000 10000000 01";
pub(super) const W7: &str = "8f3a21c4 5d0e9a36 00000006 00000000 00000028 03000000 00000001";
pub(super) const W8: &str =
    "8f3a21c4 5d0e9a36 00000001 00000000 00000004 04000000 00000001 fffffe39";
pub(super) const W9: &str =
    "8f3a21c4 5d0e9a34 00000000 00000000 00000005 04000002 00000001 01260b07";
pub(super) const W10: &str = "8f3a21c4 5d0e9a36 00000001 00000000 00000006 05010000 00000001";
pub(super) const W11: &str = "000003e7 00000000 00000065 00000000 00000000 0d050000 00000000 00";
pub(super) const W12: &str = "000003e7 00000000 00000000 00000000 00000000 0d040000 00000000 00";
pub(super) const W13: &str =
    "000003e7 00000000 00000066 00000000 00000000 08050000 00000000 00000001 00000000";
pub(super) const W14: &str =
    "000003e7 00000000 00000067 00000000 00000000 08040000 00000000 fffffff8 fffffff8";

/// W15, a jumbogram of two; its data bytes count up from 0.
pub(super) fn w15() -> Vec<u8> {
    let mut datagram = bytes("8f3a21c4 5d0e9a34 00000003 00000005 00000046 01290000 00000001");
    datagram.extend((0..1412).map(|at| at as u8));
    datagram.extend(bytes("05000000"));
    datagram.extend((0..10).map(|at| at as u8));
    datagram
}

/// All fifteen.
pub(super) fn all() -> Vec<Vec<u8>> {
    let short = [W1, W2, W3, W4, W5, W6, W7, W8, W9, W10, W11, W12, W13, W14];
    short.into_iter().map(bytes).chain([w15()]).collect()
}

/// The bytes of hexadecimal digits; blanks are skipped.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}
