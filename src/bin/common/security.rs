//! Security classes on command lines.
//!
//! A key on a command line can be read by everybody on the machine: it is for tests. Files are for the rest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::TryRngCore;
use rand::rngs::OsRng;
use rxrpc::security::rxkad::keys::ccache::Ccache;
use rxrpc::security::rxkad::keys::{
    KeyArgument, ServerKeys, TicketForm, TokenError, new_session_key,
};
use rxrpc::security::rxkad::ticket::Print;
use rxrpc::security::rxkad::{Server, SessionKey, Token};
use rxrpc::security::{ClientClass, Entropy, Level, Principal, RxNull, ServerClass, rxkad_client};
use zeroize::Zeroizing;

/// How long a ticket lasts that we print.
const LIFETIME: Duration = Duration::from_secs(36_000);
/// Older than any difference of clocks that a server forgives.
const EXPIRED_SINCE: Duration = Duration::from_secs(7200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ClassName {
    Null,
    Rxkad,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LevelName {
    /// Only the client is proved
    Clear,
    /// And the first eight bytes of each packet are encrypted
    Auth,
    /// And the rest of it
    Crypt,
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Level {
        match name {
            LevelName::Clear => Level::Clear,
            LevelName::Auth => Level::Auth,
            LevelName::Crypt => Level::Crypt,
        }
    }
}

/// What a server demands.
#[derive(clap::Args, Debug)]
pub struct ServerArgs {
    /// rxkad: also clients that prove who they are are served
    #[arg(long, value_enum, default_value = "null")]
    security: ClassName,
    /// A KeyFileExt, a KeyFile or an rxkad.keytab; can be given more than once
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
    /// A server key, for tests: others can see it. Enctype 1 is single DES. Can be given more than once
    #[arg(long, value_name = "ENCTYPE:KVNO:HEX")]
    key: Vec<KeyArgument>,
    /// What rxkad's clients have to encrypt at least [default: clear]
    #[arg(long, value_enum)]
    minimum_level: Option<LevelName>,
    /// Serve nobody else
    #[arg(long)]
    require: bool,
    /// rxkad: challenge clients whose packets have no checksums in version 1, and take such packets: see docs/rxkad.md
    #[arg(long)]
    version_1: bool,
}

impl ServerArgs {
    /// What is wrong with the options, taken together.
    pub fn check(&self) -> Result<(), String> {
        let has_keys = !self.key.is_empty() || !self.key_file.is_empty();
        match self.security {
            ClassName::Rxkad if !has_keys => {
                Err("--security rxkad needs --key-file or --key".to_owned())
            }
            ClassName::Null
                if has_keys || self.require || self.version_1 || self.minimum_level.is_some() =>
            {
                let options = "--key-file, --key, --minimum-level, --require and --version-1";
                Err(format!("{options} need --security rxkad"))
            }
            _ => self.key.iter().try_for_each(check_key),
        }
    }

    /// The classes to offer.
    pub fn classes(&self) -> Result<Vec<Arc<dyn ServerClass>>, String> {
        let mut classes: Vec<Arc<dyn ServerClass>> = Vec::new();
        if !self.require {
            classes.push(Arc::new(RxNull));
        }
        if self.security == ClassName::Rxkad {
            let mut keys = load(&self.key_file)?;
            for kvno in keys.unusable() {
                // There may be better keys beside it, and the file is not ours to change.
                eprintln!("{}: key version {kvno} in a file: {UNUSABLE}", env!("CARGO_BIN_NAME"));
            }
            self.key.iter().cloned().for_each(|key| keys.extend(key.into()));
            if keys.is_empty() {
                return Err("there is no key for rxkad in the files".to_owned());
            }
            let level = self.minimum_level.map_or(Level::Clear, Level::from);
            let server = Server::new(Arc::new(keys), level);
            classes.push(Arc::new(if self.version_1 { server.with_version_1() } else { server }));
        }
        Ok(classes)
    }
}

/// What a client proves itself with.
#[derive(clap::Args, Debug)]
pub struct ClientArgs {
    /// rxkad: prove who we are, with one of --ccache, --key-file and --key
    #[arg(long, value_enum, default_value = "null")]
    security: ClassName,
    /// How much rxkad encrypts [default: crypt]
    #[arg(long, value_enum)]
    level: Option<LevelName>,
    /// A Kerberos cache with a ticket for --principal, as kinit and kvno leave it; of type FILE
    #[arg(long, value_name = "FILE", requires = "principal", conflicts_with_all = ["key", "key_file"])]
    ccache: Option<PathBuf>,
    /// The server: afs/CELL or afs/CELL@REALM
    #[arg(long, value_name = "PRINCIPAL", requires = "ccache")]
    principal: Option<String>,
    /// Print a ticket for `afs`, who may do everything, with the newest key of a server's key file
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// Print a ticket with this server key, for tests: others can see it. Enctype 1 is single DES
    #[arg(long, value_name = "ENCTYPE:KVNO:HEX")]
    key: Option<KeyArgument>,
    /// The session key in the ticket; without it a random one
    #[arg(long, value_name = "HEX", requires = "key")]
    session: Option<SessionKey>,
    /// A ticket in the style of Kerberos 4; needs a DES key
    #[arg(long, requires = "key")]
    ticket4: bool,
    /// A ticket that has expired, to see it refused
    #[arg(long, requires = "key", hide = true)]
    expired: bool,
}

impl ClientArgs {
    /// What is wrong with the options, taken together.
    pub fn check(&self) -> Result<(), String> {
        let has_credentials =
            self.ccache.is_some() || self.key_file.is_some() || self.key.is_some();
        match self.security {
            ClassName::Rxkad if !has_credentials => {
                Err("--security rxkad needs --ccache, --key-file or --key".to_owned())
            }
            // Clap forgets what an option requires if another forbids it.
            _ if self.key.is_none() && (self.ticket4 || self.session.is_some() || self.expired) => {
                Err("--session and --ticket4 need --key".to_owned())
            }
            _ if self.principal.is_some() && self.ccache.is_none() => {
                Err("--principal needs --ccache".to_owned())
            }
            ClassName::Null if has_credentials || self.level.is_some() => {
                Err("--ccache, --key-file, --key and --level need --security rxkad".to_owned())
            }
            _ => self.key.iter().try_for_each(check_key),
        }
    }

    /// The class to connect with.
    pub fn class(&self) -> Result<Arc<dyn ClientClass>, String> {
        match self.security {
            ClassName::Null => Ok(Arc::new(RxNull)),
            ClassName::Rxkad => {
                let level = self.level.map_or(Level::Crypt, Level::from);
                Ok(rxkad_client(self.token()?, level))
            }
        }
    }

    fn token(&self) -> Result<Token, String> {
        let now = SystemTime::now();
        if let Some(key) = &self.key {
            let entropy = entropy()?;
            return self.printed(key, now, &entropy).map_err(|error| error.to_string());
        }
        if let Some(file) = &self.key_file {
            let keys = load(std::slice::from_ref(file))?;
            let entropy = entropy()?;
            let token = keys.print_token(&principal("afs", ""), now, LIFETIME, &entropy);
            return token.map_err(|error| about(file, error));
        }
        // Both are there, or neither: the command line was checked.
        let both = self.ccache.as_ref().zip(self.principal.as_ref());
        let (file, server) = both.ok_or("no credentials")?;
        let file = cache_file(file)?;
        let token = Ccache::load(file).and_then(|cache| cache.token(server, now));
        token.map_err(|error| about(file, error))
    }

    /// As rxpeer prints it.
    fn printed(
        &self,
        key: &KeyArgument,
        now: SystemTime,
        entropy: &Entropy,
    ) -> Result<Token, TokenError> {
        let (form, cell) = match self.ticket4 {
            true => (TicketForm::V4, ""),
            false => (TicketForm::Krb5, "RXTEST.LOCAL"),
        };
        let client = principal("rxtest", cell);
        let (now, lifetime) = match self.expired {
            true => (now - EXPIRED_SINCE, Duration::from_secs(60)),
            false => (now, LIFETIME),
        };
        let session = match &self.session {
            Some(session) => session.clone(),
            None => new_session_key(entropy)?,
        };
        let print = Print::from_now(&client, &session, now, lifetime);
        key.print_token(form, &print, entropy)
    }
}

/// What is said of a key that [`ServerKeys::unusable`] names.
const UNUSABLE: &str = "a single-DES key that is weak or of wrong parity opens no ticket";

fn check_key(key: &KeyArgument) -> Result<(), String> {
    match ServerKeys::from(key.clone()).unusable().next() {
        Some(kvno) => Err(format!("--key of version {kvno}: {UNUSABLE}")),
        None => Ok(()),
    }
}

/// The path of a cache that is named as in KRB5CCNAME, with or without its type.
fn cache_file(name: &Path) -> Result<&Path, String> {
    const OTHER_TYPES: [&str; 6] = ["API", "DIR", "KCM", "KEYRING", "MEMORY", "MSLSA"];
    match name.to_str().and_then(|name| name.split_once(':')) {
        Some(("FILE", path)) => Ok(Path::new(path)),
        Some((other, _)) if OTHER_TYPES.contains(&other) => {
            Err(format!("--ccache: expected a cache of type FILE, got one of type {other}"))
        }
        _ => Ok(name),
    }
}

/// The session key is made of it: it is wiped like one.
fn entropy() -> Result<Zeroizing<Entropy>, String> {
    let mut entropy = Zeroizing::new(Entropy::default());
    OsRng.try_fill_bytes(&mut *entropy).map_err(|error| format!("no randomness: {error}"))?;
    Ok(entropy)
}

fn principal(name: &str, cell: &str) -> Principal {
    Principal { name: name.to_owned(), instance: String::new(), cell: cell.to_owned() }
}

/// What is wrong with a file; some errors name it themselves.
fn about(file: &Path, error: impl std::fmt::Display) -> String {
    let (path, text) = (file.display().to_string(), error.to_string());
    if text.contains(&path) { text } else { format!("{path}: {text}") }
}

fn load(files: &[PathBuf]) -> Result<ServerKeys, String> {
    let mut keys = ServerKeys::new();
    for file in files {
        let loaded = ServerKeys::load(file);
        keys.extend(loaded.map_err(|error| about(file, error))?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_session_keys_are_made_of_is_drawn_anew_and_wiped() {
        // The type is what is tested, since nobody can look where it was.
        let draw = || -> Zeroizing<Entropy> { entropy().expect("randomness") };
        assert!(*draw() != *draw());
    }
}
