//! Files with keys and tickets: KeyFile, KeyFileExt, keytab, Kerberos's cache.

use std::time::{Duration, UNIX_EPOCH};

use rxrpc::security::rxkad::keys::ServerKeys;
use rxrpc::security::rxkad::keys::ccache::Ccache;

/// Reads the file as each of them. What is read takes no more memory than the file allows for, and is not
/// printed.
pub fn run(file: &[u8]) {
    let readers = [
        ServerKeys::parse,
        ServerKeys::parse_key_file,
        ServerKeys::parse_key_file_ext,
        ServerKeys::parse_keytab,
    ];
    for read in readers {
        if let Ok(keys) = read(file) {
            assert!(keys.len() * 8 <= file.len());
            let mut twice = keys.clone();
            twice.extend(keys.clone());
            assert_eq!(twice.len(), 2 * keys.len());
        }
    }
    let Ok(cache) = Ccache::parse(file) else { return };
    assert!(format!("{cache:?}").len() <= 8 * file.len() + 64);
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for principal in ["afs/example.org@EXAMPLE.ORG", "afs/example.org", "afs@EXAMPLE.ORG", "", "@"]
    {
        if let Ok(token) = cache.token(principal, now) {
            assert!(token.expires > now && token.ticket.len() <= file.len());
        }
    }
}
