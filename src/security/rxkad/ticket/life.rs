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
    use crate::security::rxkad::vectors::{self, Vector};

    /// Pairs of numbers.
    fn pairs(name: &str) -> Vec<(u32, u32)> {
        let pair = |pair: &Vector| match &pair.list()[..] {
            [first, second] => (first.number(), second.number()),
            _ => panic!("no pair"),
        };
        vectors::get("ticket_life").at(name).list().iter().map(pair).collect()
    }

    #[test]
    fn the_table_is_that_of_openafs() {
        let table = vectors::get("ticket_life").at("table_0x80_0xbf").list();
        let table: Vec<_> = table.iter().map(|entry| i64::from(entry.number())).collect();
        assert_eq!(TABLE.as_slice(), table);
    }

    #[test]
    fn a_byte_lasts_as_long_as_openafs_says() {
        for (byte, expected) in pairs("life_to_time") {
            assert_eq!(end(1000, byte as u8), i64::from(expected), "{byte:#x}");
        }
        assert_eq!(end(u32::MAX, 0xbf), NEVER + LIFE_MAX);
    }

    #[test]
    fn a_time_has_the_byte_that_openafs_gives_it() {
        for (seconds, byte) in pairs("time_to_life") {
            // 0 is its word for "too long".
            let expected = Some(byte as u8).filter(|byte| *byte != 0);
            assert_eq!(life(1000, 1000 + i64::from(seconds)), expected, "{seconds}");
        }
        assert_eq!([0, -1, LIFE_MAX + 1].map(|seconds| life(1000, 1000 + seconds)), [None; 3]);
        assert_eq!(life(0, NEVER), Some(0xff));
    }
}
