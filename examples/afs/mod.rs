//! What the examples for a real AFS cell share: who we are, and a little XDR.
//!
//! ```text
//! --ccache FILE --principal afs/CELL   a user, with the ticket that kinit and kvno left
//! --key-file FILE [--as NAME[@REALM]]  anybody, by a server's KeyFileExt; `afs`, who may do everything, if
//!                                      nobody is named
//! --level clear|auth|crypt             crypt if nothing is said
//! ```
#![allow(dead_code)] // each example uses a part of it

pub mod xdr;

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rand::TryRngCore;
use rand::rngs::OsRng;
use rxrpc::security::rxkad::Token;
use rxrpc::security::rxkad::keys::ServerKeys;
use rxrpc::security::rxkad::keys::ccache::Ccache;
use rxrpc::security::{Entropy, Level, Principal, rxkad_client};
use rxrpc::{CallOptions, ConnectOptions};
use zeroize::Zeroizing;

pub type Problem = Box<dyn Error>;

/// Longest time of one call.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub fn options() -> CallOptions {
    CallOptions::within(DEADLINE)
}

/// The command line: what stands alone, and the values of options.
pub struct Arguments {
    pub plain: Vec<String>,
    options: HashMap<String, String>,
}

/// The options that both examples have.
const OPTIONS: [&str; 5] = ["ccache", "principal", "key-file", "as", "level"];

impl Arguments {
    /// `more`: options of the example itself.
    pub fn read(more: &[&str]) -> Result<Arguments, Problem> {
        let mut arguments = std::env::args().skip(1);
        let (mut plain, mut options) = (Vec::new(), HashMap::new());
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some(name) => {
                    if !OPTIONS.iter().chain(more).any(|known| *known == name) {
                        return Err(format!("--{name} is no option").into());
                    }
                    let value = arguments.next().ok_or(format!("--{name} needs a value"))?;
                    options.insert(name.to_owned(), value);
                }
                None => plain.push(argument),
            }
        }
        Ok(Arguments { plain, options })
    }

    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub async fn server(&self) -> Result<SocketAddr, Problem> {
        let host = self.plain.first().ok_or("no HOST:PORT")?;
        let mut addresses = tokio::net::lookup_host(host).await?;
        addresses.find(|address| address.is_ipv4()).ok_or("no IPv4 address".into())
    }

    fn level(&self) -> Result<Level, Problem> {
        match self.option("level") {
            Some("clear") => Ok(Level::Clear),
            Some("auth") => Ok(Level::Auth),
            Some("crypt") | None => Ok(Level::Crypt),
            Some(other) => Err(format!("--level {other}: clear, auth or crypt").into()),
        }
    }

    fn token(&self) -> Result<Token, Problem> {
        let now = SystemTime::now();
        if let Some(file) = self.option("ccache") {
            let server = self.option("principal").ok_or("--ccache needs --principal")?;
            // As in KRB5CCNAME, or a path alone.
            let file = file.strip_prefix("FILE:").unwrap_or(file);
            return Ok(Ccache::load(file)?.token(server, now)?);
        }
        let file = self.option("key-file").ok_or("no --ccache and no --key-file")?;
        let whom = self.option("as").unwrap_or("afs");
        let (name, cell) = whom.split_once('@').unwrap_or((whom, ""));
        let client = Principal { name: name.into(), instance: "".into(), cell: cell.into() };
        let hour = Duration::from_secs(3600);
        // The session key is made of it: from nobody but the operating system, and wiped like a key.
        let mut entropy = Zeroizing::new(Entropy::default());
        OsRng.try_fill_bytes(&mut *entropy)?;
        Ok(ServerKeys::load(file)?.print_token(&client, now, hour, &entropy)?)
    }

    /// How to connect: as who, and with how much encryption.
    pub fn connect_options(&self) -> Result<ConnectOptions, Problem> {
        let security = rxkad_client(self.token()?, self.level()?);
        Ok(ConnectOptions { security, ..ConnectOptions::default() })
    }
}
