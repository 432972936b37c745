//! Tickets: opened with a server's keys, and printed with them.
//!
//! Three forms, told apart by the key version number of the RESPONSE: Kerberos 4 style, Kerberos 5's `Ticket`
//! (256), and the encrypted part of one alone (213). Nothing here reads a clock, draws random numbers or
//! looks for keys: they come in as values.

mod der;
mod identity;
mod k5;
mod life;
mod times;
mod v4;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::keys::ServerKeys;
use super::krb5::Krb5Key;
use super::{OpenedTicket, Principal, RxkadError, SessionKey};

/// The key version number that stands for the encrypted part of a Kerberos 5 ticket.
pub const KVNO_K5_PART: u32 = 213;
/// The key version number that stands for a whole Kerberos 5 ticket.
pub const KVNO_K5_WHOLE: u32 = 256;

/// Bytes of a name, an instance or a cell, without the NUL of Kerberos 4.
const NAME_MAX: usize = 63;

/// The end of a ticket that never expires, in seconds since 1970.
const NEVER: i64 = u32::MAX as i64;

/// What a ticket says, before anything is checked against the clock. Seconds since 1970.
struct Contents {
    key: SessionKey,
    client: Principal,
    start: i64,
    end: i64,
}

/// Opens a ticket of any form, and checks that it is valid at `now`.
pub fn open(
    keys: &ServerKeys,
    kvno: u32,
    ticket: &[u8],
    now: SystemTime,
) -> Result<OpenedTicket, RxkadError> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let contents = match kvno {
        KVNO_K5_PART => k5::open_part(keys, ticket, now)?,
        KVNO_K5_WHOLE => k5::open_whole(keys, ticket, now)?,
        0..=255 => first_good(keys.des(kvno), |key| v4::open(key, ticket))?,
        // Among them the range that was reserved for a translator of DFS.
        _ => return Err(RxkadError::UnknownKey),
    };
    times::check(contents.start, contents.end, now)?;
    let Contents { key, client, start, end } = contents;
    Ok(OpenedTicket { key, client, starts: time(start)?, expires: time(end)? })
}

/// What the first key opens that does; else what the last one said.
fn first_good<K, T>(
    keys: impl Iterator<Item = K>,
    open: impl Fn(K) -> Result<T, RxkadError>,
) -> Result<T, RxkadError> {
    let mut outcome = Err(RxkadError::UnknownKey);
    for key in keys {
        outcome = open(key);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn time(seconds: i64) -> Result<SystemTime, RxkadError> {
    let seconds = u64::try_from(seconds).map_err(|_| RxkadError::BadTicket)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(RxkadError::BadTicket)
}

/// What is to be printed into a ticket.
#[derive(Clone, Debug)]
pub struct Print<'a> {
    /// For whom.
    pub client: &'a Principal,
    /// Shared with whoever gets the ticket.
    pub key: &'a SessionKey,
    /// When it begins to be valid; whole seconds count.
    pub starts: SystemTime,
    /// When it ends; whole seconds count.
    pub expires: SystemTime,
}

/// How long before now a printed ticket begins to be valid: the server's clock may be behind.
const BEGINS_BEFORE: Duration = Duration::from_secs(300);

/// The longest that a printed ticket lasts from now on.
pub const LIFETIME_MAX: Duration =
    Duration::from_secs(times::LIFE_MAX as u64).saturating_sub(BEGINS_BEFORE);

impl<'a> Print<'a> {
    /// A ticket that is valid from now on for so long, at most [`LIFETIME_MAX`].
    pub fn from_now(
        client: &'a Principal,
        key: &'a SessionKey,
        now: SystemTime,
        lifetime: Duration,
    ) -> Print<'a> {
        let lifetime = lifetime.min(LIFETIME_MAX);
        Print { client, key, starts: now - BEGINS_BEFORE, expires: now + lifetime }
    }

    /// The encrypted part of a Kerberos 5 ticket: what goes with [`KVNO_K5_PART`]. `kvno` is the key's.
    pub fn seal_k5(&self, key: &Krb5Key, kvno: u32, entropy: &crate::security::Entropy) -> Vec<u8> {
        k5::seal_part(self, key, kvno, entropy)
    }

    /// A ticket in the style of Kerberos 4; it goes with the key's own version number. `Err` if a name, or the
    /// time that the ticket is to last, does not fit, or if the key is none that a server accepts.
    pub fn seal_v4(&self, key: &[u8; 8]) -> Result<Vec<u8>, RxkadError> {
        v4::seal(self, key)
    }
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}
