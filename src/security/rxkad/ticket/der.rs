//! A strict reader of DER, for the three structures of a ticket; and as much of a writer.
//!
//! Lengths are definite and as short as they can be, and lie within what encloses them. Fields that a
//! structure may have and we do not know are skipped, in the order of their tags.

use zeroize::{Zeroize, Zeroizing};

use super::RxkadError;

/// Tags, with the class and the bit for "constructed" in them.
pub(super) mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const GENERAL_STRING: u8 = 0x1b;
    pub const SEQUENCE: u8 = 0x30;

    /// `[APPLICATION n]`.
    pub const fn application(number: u8) -> u8 {
        0x60 | number
    }

    /// `[n]`.
    pub const fn field(number: u8) -> u8 {
        0xa0 | number
    }
}

/// Bytes that are still to be read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, RxkadError>;

const BAD: RxkadError = RxkadError::BadTicket;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// The contents of the next element, whatever its tag.
    fn any(&mut self) -> Read<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first().ok_or(BAD)?;
        // A tag of more than one byte: none of our structures has one.
        if tag & 0x1f == 0x1f {
            return Err(BAD);
        }
        let (first, rest) = rest.split_first().ok_or(BAD)?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // 0x80 is a length that only the end tells, which DER has not.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(BAD)?;
                let len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
                // In as few bytes as can be.
                if len < 0x80 || digits[0] == 0 {
                    return Err(BAD);
                }
                (len, rest)
            }
            _ => return Err(BAD),
        };
        let (contents, rest) = rest.split_at_checked(len).ok_or(BAD)?;
        self.0 = rest;
        Ok((*tag, contents))
    }

    /// The contents of the next element, which has this tag.
    pub(super) fn element(&mut self, tag: u8) -> Read<&'a [u8]> {
        match self.any()? {
            (found, contents) if found == tag => Ok(contents),
            _ => Err(BAD),
        }
    }

    /// The next element, to be read in turn.
    pub(super) fn inside(&mut self, tag: u8) -> Read<Reader<'a>> {
        self.element(tag).map(Reader)
    }

    /// The element inside field `number`, which has to be there and holds nothing else.
    pub(super) fn field(&mut self, number: u8, tag: u8) -> Read<&'a [u8]> {
        let mut field = self.inside(tag::field(number))?;
        let contents = field.element(tag)?;
        field.end()?;
        Ok(contents)
    }

    /// As [`Reader::field`], for one that may be absent.
    pub(super) fn optional(&mut self, number: u8, tag: u8) -> Read<Option<&'a [u8]>> {
        if self.0.first() == Some(&tag::field(number)) {
            return self.field(number, tag).map(Some);
        }
        Ok(None)
    }

    /// Skips a field that has to be there.
    pub(super) fn skip(&mut self, number: u8) -> Read<()> {
        self.element(tag::field(number)).map(drop)
    }

    /// What is left are fields with numbers above `number`, rising; they are not looked into.
    pub(super) fn skip_rest(mut self, mut number: u8) -> Read<()> {
        while !self.0.is_empty() {
            let (tag, _) = self.any()?;
            if tag <= tag::field(number) || tag & 0xe0 != 0xa0 {
                return Err(BAD);
            }
            number = tag & 0x1f;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn end(self) -> Read<()> {
        if self.is_empty() { Ok(()) } else { Err(BAD) }
    }
}

/// An INTEGER of up to 32 bits, signed or not.
pub(super) fn integer(contents: &[u8]) -> Read<i64> {
    let is_padded = |first: u8, next: u8| matches!((first, next), (0, 0..0x80) | (0xff, 0x80..));
    match *contents {
        [] => return Err(BAD),
        [first, next, ..] if is_padded(first, next) => return Err(BAD),
        _ if contents.len() > 5 => return Err(BAD),
        _ => {}
    }
    let sign = if contents[0] & 0x80 == 0 { 0 } else { -1 };
    let value = contents.iter().fold(sign, |value: i64, byte| value << 8 | i64::from(*byte));
    if value < i32::MIN.into() || value > u32::MAX.into() {
        return Err(BAD);
    }
    Ok(value)
}

/// The bits of a BIT STRING by number, the first is 0.
pub(super) fn has_bit(contents: &[u8], number: usize) -> Read<bool> {
    let (unused, bits) = contents.split_first().ok_or(BAD)?;
    if *unused > 7 || (bits.is_empty() && *unused > 0) {
        return Err(BAD);
    }
    Ok(bits.get(number / 8).is_some_and(|byte| byte & 0x80 >> (number % 8) != 0))
}

pub(super) fn text(contents: &[u8]) -> Read<&str> {
    std::str::from_utf8(contents).map_err(|_| BAD)
}

/// Seconds since 1970 of a `YYYYMMDDHHMMSSZ`: Kerberos has no fractions and no other zones.
pub(super) fn time(contents: &[u8]) -> Read<i64> {
    let [digits @ .., b'Z'] = contents else { return Err(BAD) };
    if digits.len() != 14 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let number = |from: usize, to: usize| {
        digits[from..to].iter().fold(0, |sum: i64, digit| sum * 10 + i64::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
    let (hour, minute, second) = (number(8, 10), number(10, 12), number(12, 14));
    let days = days_since_1970(year, month, day).ok_or(BAD)?;
    if hour > 23 || minute > 59 || second > 60 {
        return Err(BAD);
    }
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const MONTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

fn days_of(year: i64, month: usize) -> i64 {
    MONTHS[month] + i64::from(month == 1 && is_leap(year))
}

/// Days before 1 January of the year, counted from the year 0.
fn days_before(year: i64) -> i64 {
    let leaps = |years: i64| years / 4 - years / 100 + years / 400;
    // The year 0 is one of them.
    year * 365 + if year == 0 { 0 } else { leaps(year - 1) + 1 }
}

/// `None` if there is no such day.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let month = usize::try_from(month - 1).ok().filter(|month| *month < 12)?;
    if !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let months: i64 = (0..month).map(|month| days_of(year, month)).sum();
    Some(days_before(year) - days_before(1970) + months + day - 1)
}

// ---- writing ------------------------------------------------------------------------------------

/// An element. Made in one piece, since a vector that grows leaves secrets where it was before.
pub(super) fn write(tag: u8, contents: &[u8]) -> Vec<u8> {
    let len = contents.len();
    let digits = len.to_be_bytes();
    let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
    let mut element = Vec::with_capacity(2 + digits.len() + len);
    element.push(tag);
    if len < 0x80 {
        element.push(len as u8);
    } else {
        element.push(0x80 | digits.len() as u8);
        element.extend_from_slice(digits);
    }
    element.extend_from_slice(contents);
    element
}

/// An element around others, which are wiped.
pub(super) fn write_all<const N: usize>(tag: u8, mut parts: [Vec<u8>; N]) -> Vec<u8> {
    let contents = Zeroizing::new(parts.concat());
    parts.iter_mut().for_each(Zeroize::zeroize);
    write(tag, &contents)
}

/// A field and the element in it, which is wiped.
pub(super) fn write_field(number: u8, element: Vec<u8>) -> Vec<u8> {
    write(tag::field(number), &Zeroizing::new(element))
}

pub(super) fn write_integer(value: u32) -> Vec<u8> {
    let bytes = i64::from(value).to_be_bytes();
    let zeros = bytes.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
    write(tag::INTEGER, &bytes[zeros..])
}

/// Seconds since 1970, up to the year 9999.
pub(super) fn write_time(seconds: i64) -> Vec<u8> {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + days_before(1970);
    let mut year = days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_before(year);
    let mut month = 0;
    while day >= days_of(year, month) {
        day -= days_of(year, month);
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (month, day) = (month + 1, day + 1);
    let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    write(tag::GENERALIZED_TIME, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        let read = |bytes: &[u8]| Reader::new(bytes).element(4).map(<[u8]>::len);
        assert_eq!(read(&[4, 2, 1, 2]), Ok(2));
        let long = |prefix: &[u8], len: usize| [prefix, &vec![7; len]].concat();
        assert_eq!(read(&long(&[4, 0x81, 0x80], 0x80)), Ok(0x80));
        assert_eq!(read(&long(&[4, 0x82, 1, 0], 0x100)), Ok(0x100));
        for bad in [
            &[4, 0x81, 2, 1, 2][..],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 1, 2, 0, 0],
            &[4, 0x84, 0, 0, 0, 1, 7],
            &[4, 3, 1, 2],
            &[4],
            &[],
            &[0x1f, 4, 1, 7],
            &[2, 1, 7],
        ] {
            assert_eq!(read(&[bad, &[0; 300]].concat()[..bad.len()]), Err(BAD), "{bad:02x?}");
        }
    }

    #[test]
    fn integers_have_up_to_32_bits_and_no_padding() {
        let good: [(&[u8], i64); 7] = [
            (&[0], 0),
            (&[0x7f], 127),
            (&[0xff], -1),
            (&[0, 0x80], 128),
            (&[0, 0xff, 0xff, 0xff, 0xff], u32::MAX.into()),
            (&[0x80, 0, 0, 0], i32::MIN.into()),
            (&[1, 44], 300),
        ];
        for (bytes, value) in good {
            assert_eq!(integer(bytes), Ok(value));
        }
        let bad: [&[u8]; 6] =
            [&[], &[0, 1], &[0xff, 0x80], &[1, 0, 0, 0, 0], &[0xfe; 5], &[0, 0x80, 0, 0, 0, 0]];
        for bytes in bad {
            assert_eq!(integer(bytes), Err(BAD), "{bytes:02x?}");
        }
    }

    #[test]
    fn times_are_read_and_written() {
        let known = [
            ("19700101000000Z", 0),
            ("19700101000001Z", 1),
            ("20000229235959Z", 951_868_799),
            ("20231114221320Z", 1_700_000_000),
            ("20380119031407Z", 2_147_483_647),
            ("21060207062815Z", 4_294_967_295),
            ("99991231235959Z", 253_402_300_799),
            ("00000101000000Z", -62_167_219_200),
        ];
        for (written, seconds) in known {
            assert_eq!(time(written.as_bytes()), Ok(seconds), "{written}");
            let element = write_time(seconds);
            assert_eq!(&element[2..], written.as_bytes(), "{seconds}");
        }
        for bad in [
            "20230229000000Z",
            "20231301000000Z",
            "20230001000000Z",
            "20230100000000Z",
            "20230132000000Z",
            "20230101240000Z",
            "20230101006000Z",
            "20230101000061Z",
            "20230101000000",
            "2023010100000Z",
            "20230101000000.5Z",
            "2023010100000+Z",
            "Z",
            "",
        ] {
            assert_eq!(time(bad.as_bytes()), Err(BAD), "{bad}");
        }
    }

    #[test]
    fn fields_behind_those_we_know_rise_and_are_skipped() {
        let rest = |bytes: &[u8]| Reader::new(bytes).skip_rest(7).is_ok();
        assert!(rest(&[]) && rest(&[0xa8, 1, 0, 0xaa, 0]));
        assert!(!rest(&[0xa7, 0]) && !rest(&[0xa9, 0, 0xa8, 0]) && !rest(&[0xa8, 2, 0]));
        assert!(!rest(&[0xc9, 0]));
    }
}
