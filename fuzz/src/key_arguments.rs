//! Keys on a command line.

use rxrpc::security::rxkad::SessionKey;
use rxrpc::security::rxkad::keys::KeyArgument;

/// A key is read or refused; neither its print nor a refusal repeats it.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let said = match text.parse::<KeyArgument>() {
        Ok(argument) => {
            assert_eq!(argument.key.enctype().key_len(), Some(argument.key.expose().len()));
            format!("{argument:?}")
        }
        Err(error) => error.to_string(),
    };
    let secret = text.rsplit(':').next().unwrap_or_default();
    let is_hex = secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(!is_hex || secret.len() < 16 || !said.contains(secret));
    if let Ok(key) = text.parse::<SessionKey>() {
        let hex: String = key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text.eq_ignore_ascii_case(&hex));
    }
}
