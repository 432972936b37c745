//! As much of XDR (RFC 4506) as the examples for AFS need.

/// 32-bit big-endian words.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A string: its length, its bytes, zeros up to a multiple of four.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = words(&[text.len() as u32]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A fixed array of characters: a word for each.
pub fn chars(text: &str, length: usize) -> Vec<u8> {
    text.bytes().chain(std::iter::repeat(0)).take(length).flat_map(|c| words(&[c.into()])).collect()
}

/// The words of a reply that consists of such.
pub fn all_words(reply: &[u8]) -> Result<Vec<u32>, String> {
    let (words, rest) = reply.as_chunks();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no words", reply.len()));
    }
    Ok(words.iter().map(|word| u32::from_be_bytes(*word)).collect())
}

/// A word of a reply, by its number; never beyond its end.
pub fn word(reply: &[u8], number: usize) -> Result<u32, String> {
    let bytes = reply.get(number * 4..).and_then(|rest| rest.first_chunk());
    bytes.copied().map(u32::from_be_bytes).ok_or_else(|| format!("no word {number}"))
}

/// The text in a fixed array of characters that begins at a word.
pub fn characters(reply: &[u8], first: usize, length: usize) -> Result<String, String> {
    (first..first + length)
        .map(|number| word(reply, number))
        .take_while(|word| *word != Ok(0))
        .map(|word| word.map(|word| char::from(word as u8)))
        .collect()
}
