//! Keys in what is printed: a key that landed behind the wrong option is repeated by whoever complains of it.

/// As many hexadecimal digits in a row are a key, wherever they stand: 64 bits, the shortest key there is.
const KEY_DIGITS_MIN: usize = 16;
/// As many behind `KVNO:` are a key that was cut short.
const CUT_KEY_DIGITS_MIN: usize = 8;

/// `text` with `…` for whatever may be a key. What stands around it stays: `18:1:…`.
pub fn mask_keys(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, word) = rest.split_at(start);
        masked.push_str(before);
        let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
        let (word, behind) = word.split_at(end);
        let min = if is_number_before(&masked) { CUT_KEY_DIGITS_MIN } else { KEY_DIGITS_MIN };
        masked.push_str(if hex_digits(word) < min { word } else { "…" });
        rest = behind;
    }
    masked.push_str(rest);
    masked
}

/// The longest row of hexadecimal digits.
fn hex_digits(word: &str) -> usize {
    let rows = word.split(|c: char| !c.is_ascii_hexdigit());
    rows.map(str::len).max().unwrap_or(0)
}

/// Whether this ends as `KVNO:` does.
fn is_number_before(text: &str) -> bool {
    text.strip_suffix(':').is_some_and(|number| number.ends_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::mask_keys;

    #[test]
    fn keys_are_masked_whole_and_nothing_else_is() {
        for (text, masked) in [
            (
                "unexpected '18:1:000102030405060708090a0b0c0d0e0f' found",
                "unexpected '18:1:…' found",
            ),
            ("--key1:2:A7838ACBC783EC94", "--key1:2:…"),
            ("a7838acbc783ec94, twice: a7838acbc783ec94", "…, twice: …"),
            // Not the half before a wrong letter alone, nor that behind `0x`.
            ("0123456789abcdefg0123", "…"),
            ("0x0123456789abcdef", "…"),
            // Cut short.
            ("1:2:a7838acb", "1:2:…"),
            ("1:2:a7838ac", "1:2:a7838ac"),
            ("a7838acbc783ec9", "a7838acbc783ec9"),
        ] {
            assert_eq!(mask_keys(text), masked, "{text}");
        }
        for text in [
            "",
            "cannot read /tmp/deadbeef/KeyFileExt: No such file or directory (os error 2)",
            "no address for [2001:db8:1234:5678:9abc:def0:1234:5678]:65535: timed out",
            "invalid value '127.0.0.1:99999' for '<HOST:PORT>': é…",
            "expected at most 2147483647 bytes, got 2147483648",
        ] {
            assert_eq!(mask_keys(text), text);
        }
    }
}
