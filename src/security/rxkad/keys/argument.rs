//! A key on a command line: `ENCTYPE:KVNO:HEX`.

use std::str::FromStr;

use zeroize::Zeroizing;

use super::{EncType, Krb5Key, ServerKeys};
use crate::security::rxkad::SessionKey;
use crate::security::rxkad::krb5::Krb5Error;

/// A server key as it is written on a command line: enctype and version in decimal, the key in hexadecimal.
/// `1:2:a7838acbc783ec94` is a single-DES key.
#[derive(Clone, Debug)]
pub struct KeyArgument {
    /// The version.
    pub kvno: u32,
    /// The key.
    pub key: Krb5Key,
}

/// What is wrong with such an argument. The argument itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyArgumentError {
    /// It has not the three parts.
    #[error("expected ENCTYPE:KVNO:HEX")]
    Form,
    /// A number is none.
    #[error("expected numbers for enctype and version")]
    Number,
    /// Not hexadecimal, or an odd number of digits.
    #[error("expected an even number of hexadecimal digits")]
    Hex,
    /// The key is of no type that is known here, or of another length.
    #[error(transparent)]
    Key(#[from] Krb5Error),
    /// A session key has eight bytes.
    #[error("expected a key of 8 bytes")]
    SessionLength,
}

impl FromStr for KeyArgument {
    type Err = KeyArgumentError;

    fn from_str(text: &str) -> Result<KeyArgument, KeyArgumentError> {
        let (enctype, rest) = text.split_once(':').ok_or(KeyArgumentError::Form)?;
        let (kvno, hex) = rest.split_once(':').ok_or(KeyArgumentError::Form)?;
        let enctype = enctype.parse().map_err(|_| KeyArgumentError::Number)?;
        let kvno = kvno.parse().map_err(|_| KeyArgumentError::Number)?;
        let key = Krb5Key::new(EncType(enctype), &unhex(hex)?)?;
        Ok(KeyArgument { kvno, key })
    }
}

impl From<KeyArgument> for ServerKeys {
    fn from(argument: KeyArgument) -> ServerKeys {
        let mut keys = ServerKeys::new();
        keys.insert(argument.kvno, argument.key);
        keys
    }
}

/// Sixteen hexadecimal digits.
impl FromStr for SessionKey {
    type Err = KeyArgumentError;

    fn from_str(text: &str) -> Result<SessionKey, KeyArgumentError> {
        let bytes = unhex(text)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| KeyArgumentError::SessionLength)?;
        Ok(SessionKey::new(bytes))
    }
}

fn unhex(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyArgumentError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(KeyArgumentError::Hex);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(KeyArgumentError::Hex);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_mistakes_named() {
        let key: KeyArgument = "1:2:a7838acbc783ec94".parse().unwrap();
        assert_eq!((key.kvno, key.key.enctype()), (2, EncType::DES_CBC_CRC));
        assert_eq!(key.key.expose(), [0xa7, 0x83, 0x8a, 0xcb, 0xc7, 0x83, 0xec, 0x94]);
        let wrong = |text: &str| text.parse::<KeyArgument>().unwrap_err();
        assert_eq!(wrong(""), KeyArgumentError::Form);
        assert_eq!(wrong("18:1"), KeyArgumentError::Form);
        assert_eq!(wrong("x:1:00"), KeyArgumentError::Number);
        assert_eq!(wrong("18:-1:00"), KeyArgumentError::Number);
        assert_eq!(wrong("17:1:000"), KeyArgumentError::Hex);
        assert_eq!(wrong("17:1:0g"), KeyArgumentError::Hex);
        assert_eq!(wrong("17:1:\u{e9}"), KeyArgumentError::Hex);
        assert!(matches!(wrong("17:1:00"), KeyArgumentError::Key(Krb5Error::KeyLength { .. })));
        assert!(matches!(wrong("99:1:00"), KeyArgumentError::Key(Krb5Error::UnknownEncType(_))));
        assert!("0123456789abcdef".parse::<SessionKey>().is_ok());
        assert_eq!("01".parse::<SessionKey>(), Err(KeyArgumentError::SessionLength));
        assert!(!format!("{key:?}").contains("a7"));
    }
}
