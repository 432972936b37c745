//! Who the client of a secured connection is, and how its packets are protected.

use std::fmt;
use std::time::SystemTime;

/// Who the client of a secured connection is, in the words of its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The name, for example `admin@EXAMPLE.ORG`.
    pub name: String,
    /// When the credentials end.
    pub expires: Option<SystemTime>,
    /// The name in its parts, where the class knows them.
    pub principal: Option<Principal>,
    /// How the connection's packets are protected, where the class has levels.
    pub level: Option<Level>,
}

/// Who somebody is, in the words of Kerberos.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Never empty.
    pub name: String,
    /// Often empty.
    pub instance: String,
    /// The cell or realm; empty = the server's own cell.
    pub cell: String,
}

/// `name`, `name.instance`, `name@cell` or `name.instance@cell`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.instance.is_empty() {
            write!(f, ".{}", self.instance)?;
        }
        if !self.cell.is_empty() {
            write!(f, "@{}", self.cell)?;
        }
        Ok(())
    }
}

/// How much of a packet a class protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// No byte of the body.
    Clear,
    /// Proof of who sent the body. (rxkad, which has none, encrypts its first eight bytes.)
    Auth,
    /// The whole body is encrypted.
    #[default]
    Crypt,
}

impl Level {
    /// The number in challenges and responses.
    pub const fn wire(self) -> u32 {
        self as u32
    }

    /// The level of a number; `None` = there is none.
    pub const fn from_wire(number: u32) -> Option<Level> {
        match number {
            0 => Some(Level::Clear),
            1 => Some(Level::Auth),
            2 => Some(Level::Crypt),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Clear => "clear",
            Level::Auth => "auth",
            Level::Crypt => "crypt",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_leaves_out_what_is_empty() {
        let principal = |name: &str, instance: &str, cell: &str| {
            let [name, instance, cell] = [name, instance, cell].map(str::to_owned);
            Principal { name, instance, cell }.to_string()
        };
        assert_eq!(principal("admin", "", ""), "admin");
        assert_eq!(principal("admin", "", "EXAMPLE.ORG"), "admin@EXAMPLE.ORG");
        assert_eq!(principal("rcmd", "host", "EXAMPLE.ORG"), "rcmd.host@EXAMPLE.ORG");
    }

    #[test]
    fn levels_have_the_numbers_of_the_wire() {
        for level in [Level::Clear, Level::Auth, Level::Crypt] {
            assert_eq!(Level::from_wire(level.wire()), Some(level));
        }
        assert_eq!(Level::from_wire(3), None);
        assert!(Level::Clear < Level::Auth && Level::Auth < Level::Crypt);
    }
}
