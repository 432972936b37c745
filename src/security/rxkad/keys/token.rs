//! One's own token, printed with a server's key: what `-localauth` does.

use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::{KeyArgument, NOT_A_VERSION, ServerKeys};
use crate::security::Entropy;
use crate::security::rxkad::krb5::des::{is_weak, set_odd_parity};
use crate::security::rxkad::krb5::{EncType, Krb5Key};
use crate::security::rxkad::ticket::{KVNO_K5_PART, Print};
use crate::security::rxkad::{Principal, RxkadError, SessionKey, Token};

/// Of several keys of the newest version the first of these is taken. All servers know the first four.
const PREFERRED: [EncType; 6] = [
    EncType::AES256_SHA1,
    EncType::AES128_SHA1,
    EncType::RC4_HMAC,
    EncType::DES3_SHA1,
    EncType::AES256_SHA384,
    EncType::AES128_SHA256,
];

/// The form of a printed ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketForm {
    /// The encrypted part of a Kerberos 5 ticket (213), under a key of any enctype.
    Krb5,
    /// Kerberos 4 style, under a single-DES key.
    V4,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// There are no keys.
    #[error("there is no server key to print a ticket with")]
    NoKey,
    /// A Kerberos 4 style ticket is sealed with DES.
    #[error(
        "a Kerberos 4 style ticket needs a single-DES key of a version up to 255 other than 213"
    )]
    NotV4,
    /// It cannot be made of this.
    #[error("no ticket can be made of this: {0}")]
    Rxkad(#[from] RxkadError),
}

impl ServerKeys {
    /// A token for `client` at this server, good for `lifetime` (at most [`LIFETIME_MAX`]), printed with the
    /// newest key. `afs`, without instance and cell, is who may do everything in a cell.
    ///
    /// [`LIFETIME_MAX`]: crate::security::rxkad::ticket::LIFETIME_MAX
    pub fn print_token(
        &self,
        client: &Principal,
        now: SystemTime,
        lifetime: Duration,
        entropy: &Entropy,
    ) -> Result<Token, TokenError> {
        let key = new_session_key(entropy)?;
        let (kvno, server_key) = self.newest().ok_or(TokenError::NoKey)?;
        let has_v4_version = kvno <= 255 && kvno != KVNO_K5_PART;
        let form = match server_key.enctype().is_des() && has_v4_version {
            true => TicketForm::V4,
            false => TicketForm::Krb5,
        };
        let print = Print::from_now(client, &key, now, lifetime);
        print_token(&server_key, kvno, form, &print, entropy)
    }

    /// Kerberos 5 keys before DES keys, then by version, then by enctype.
    fn newest(&self) -> Option<(u32, Krb5Key)> {
        let rank = |key: &Krb5Key| PREFERRED.iter().position(|known| *known == key.enctype());
        let best = |(version, key): &&(u32, Krb5Key)| (*version, std::cmp::Reverse(rank(key)));
        if let Some((kvno, key)) = self.krb5.iter().max_by_key(best) {
            return Some((*kvno, key.clone()));
        }
        let versions = self.des.iter().filter(|(kvno, _)| *kvno != NOT_A_VERSION);
        let (kvno, key) = versions.max_by_key(|(kvno, _)| *kvno)?;
        Some((*kvno, Krb5Key::new(EncType::DES_CBC_CRC, &***key).ok()?))
    }
}

impl KeyArgument {
    /// A token of this form.
    pub fn print_token(
        &self,
        form: TicketForm,
        print: &Print<'_>,
        entropy: &Entropy,
    ) -> Result<Token, TokenError> {
        print_token(&self.key, self.kvno, form, print, entropy)
    }
}

fn print_token(
    server_key: &Krb5Key,
    kvno: u32,
    form: TicketForm,
    print: &Print<'_>,
    entropy: &Entropy,
) -> Result<Token, TokenError> {
    let (kvno, ticket) = match form {
        TicketForm::Krb5 => (KVNO_K5_PART, print.seal_k5(server_key, kvno, entropy)),
        TicketForm::V4 => {
            let des = server_key.expose().try_into().ok();
            let des = des.filter(|_| server_key.enctype().is_des());
            let des = des.filter(|_| kvno <= 255 && kvno != KVNO_K5_PART);
            (kvno, print.seal_v4(des.ok_or(TokenError::NotV4)?)?)
        }
    };
    Ok(Token { kvno, ticket, key: print.key.clone(), expires: print.expires })
}

/// A session key from the second half of the random bytes; the first is for the ticket's confounder.
pub fn new_session_key(entropy: &Entropy) -> Result<SessionKey, RxkadError> {
    let (_, second) = entropy.split_at(16);
    for bytes in second.as_chunks().0 {
        let mut key = Zeroizing::new(*bytes);
        set_odd_parity(&mut key);
        if !is_weak(&key) {
            return Ok(SessionKey::new(*key));
        }
    }
    // Twice in a row: once in 2^104 times, or the source is broken.
    Err(RxkadError::BadKey)
}
