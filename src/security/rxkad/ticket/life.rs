//! The byte in which a Kerberos 4 ticket says how long it lasts.

use super::NEVER;
use super::times::LIFE_MAX;

const UNIT: i64 = 300;
/// Up to here the byte counts units.
const TABLE_FIRST: u8 = 0x80;
const FOREVER: u8 = 0xff;

/// Seconds of the bytes from 0x80 on.
const TABLE: [i64; 64] = [
    38400, 41055, 43894, 46929, 50174, 53643, 57352, 61318, 65558, 70091, 74937, 80119, 85658,
    91581, 97914, 104_684, 111_922, 119_661, 127_935, 136_781, 146_239, 156_350, 167_161, 178_720,
    191_077, 204_289, 218_415, 233_517, 249_664, 266_926, 285_383, 305_116, 326_213, 348_769,
    372_885, 398_668, 426_234, 455_705, 487_215, 520_904, 556_921, 595_430, 636_601, 680_618,
    727_680, 777_995, 831_789, 889_303, 950_794, 1_016_537, 1_086_825, 1_161_973, 1_242_318,
    1_328_218, 1_420_057, 1_518_247, 1_623_226, 1_735_464, 1_855_462, 1_983_758, 2_120_925,
    2_267_576, 2_424_367, 2_592_000,
];

/// When a ticket ends.
pub(super) fn end(start: u32, life: u8) -> i64 {
    let start = i64::from(start);
    match life {
        FOREVER => NEVER,
        0..TABLE_FIRST => start + i64::from(life) * UNIT,
        _ => start + TABLE.get(usize::from(life - TABLE_FIRST)).unwrap_or(&LIFE_MAX),
    }
}

/// The byte for a ticket, rounded up; `None` = it would end before it starts, or last too long.
pub(super) fn life(start: i64, end: i64) -> Option<u8> {
    if end == NEVER {
        return Some(FOREVER);
    }
    let seconds = end - start;
    if !(1..=LIFE_MAX).contains(&seconds) {
        return None;
    }
    if seconds < TABLE[0] {
        // Up to 128, which is the table's first.
        return Some(((seconds + UNIT - 1) / UNIT) as u8);
    }
    Some(TABLE_FIRST + TABLE.partition_point(|entry| *entry < seconds) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_lasts_as_long_as_openafs_says() {
        let known = [
            (0, 1000),
            (1, 1300),
            (127, 39100),
            (128, 39400),
            (129, 42055),
            (190, 2_425_367),
            (191, 2_593_000),
            (192, 2_593_000),
            (254, 2_593_000),
            (255, 4_294_967_295),
        ];
        for (byte, expected) in known {
            assert_eq!(end(1000, byte), expected, "{byte:#x}");
        }
        assert_eq!(end(u32::MAX, 0xbf), NEVER + LIFE_MAX);
    }

    #[test]
    fn a_time_has_the_byte_that_openafs_gives_it() {
        let known = [
            (1, 1),
            (299, 1),
            (300, 1),
            (301, 2),
            (36000, 120),
            (38099, 127),
            (38100, 127),
            (38101, 128),
            (38399, 128),
            (38400, 128),
            (38401, 129),
            (41055, 129),
            (41056, 130),
            (86400, 141),
            (604_800, 170),
            (2_591_999, 191),
            (2_592_000, 191),
        ];
        for (seconds, byte) in known {
            assert_eq!(life(1000, 1000 + seconds), Some(byte), "{seconds}");
        }
        assert_eq!([0, -1, 2_592_001].map(|seconds| life(1000, 1000 + seconds)), [None; 3]);
        assert_eq!(life(0, NEVER), Some(0xff));
    }
}
