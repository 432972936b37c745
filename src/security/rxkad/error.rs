//! What goes wrong in rxkad, by the names and codes of the field (com_err table RXK).

use thiserror::Error;

use crate::wire::AbortCode;

/// An error of rxkad. On the wire it is an ABORT with [`RxkadError::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum RxkadError {
    /// The internal state is wrong, or a challenge or response is of an unknown version.
    #[error("RXKADINCONSISTENCY: inconsistent state or unknown version")]
    Inconsistency,
    /// A challenge or response is shorter than its fixed part, or than the ticket it claims.
    #[error("RXKADPACKETSHORT: challenge or response too short")]
    PacketShort,
    /// The challenge asks for more than the client's level, or the response offers less than the server's.
    #[error("RXKADLEVELFAIL: security level out of bounds")]
    LevelFail,
    /// The ticket's length is out of range.
    #[error("RXKADTICKETLEN: ticket length out of range")]
    TicketLen,
    /// The response does not answer the challenge that is out.
    #[error("RXKADOUTOFSEQUENCE: response to another challenge")]
    OutOfSequence,
    /// The ticket is not valid yet or flagged invalid, or the server refuses the user.
    #[error("RXKADNOAUTH: not authorised")]
    NoAuth,
    /// The server's key is no good DES key, or no session key can be derived.
    #[error("RXKADBADKEY: bad key")]
    BadKey,
    /// The ticket does not decrypt or parse, or its times make no sense.
    #[error("RXKADBADTICKET: bad ticket")]
    BadTicket,
    /// The server has no key of this version and type.
    #[error("RXKADUNKNOWNKEY: no server key of this version")]
    UnknownKey,
    /// The ticket has expired.
    #[error("RXKADEXPIRED: ticket expired")]
    Expired,
    /// A checksum, a sealed sequence check or the sealed part of a response is wrong.
    #[error("RXKADSEALEDINCON: sealed data inconsistent")]
    SealedInconsistent,
    /// The sealed length is larger than the packet.
    #[error("RXKADDATALEN: sealed length larger than the packet")]
    DataLen,
    /// Defined by the table, raised by nobody.
    #[error("RXKADILLEGALLEVEL: illegal security level")]
    IllegalLevel,
}

impl RxkadError {
    /// All of them, in the order of their codes.
    pub const ALL: [RxkadError; 13] = [
        RxkadError::Inconsistency,
        RxkadError::PacketShort,
        RxkadError::LevelFail,
        RxkadError::TicketLen,
        RxkadError::OutOfSequence,
        RxkadError::NoAuth,
        RxkadError::BadKey,
        RxkadError::BadTicket,
        RxkadError::UnknownKey,
        RxkadError::Expired,
        RxkadError::SealedInconsistent,
        RxkadError::DataLen,
        RxkadError::IllegalLevel,
    ];

    /// The code of the first entry of the table.
    const BASE: i32 = 19_270_400;

    /// The code in an ABORT.
    pub const fn code(self) -> AbortCode {
        AbortCode(RxkadError::BASE + self as i32)
    }

    /// The error that a code stands for.
    pub fn from_code(code: AbortCode) -> Option<RxkadError> {
        RxkadError::ALL.into_iter().find(|error| error.code() == code)
    }
}

impl From<RxkadError> for AbortCode {
    fn from(error: RxkadError) -> AbortCode {
        error.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_run_from_19270400_and_have_the_names_of_the_table() {
        for (offset, error) in (0..).zip(RxkadError::ALL) {
            let code = AbortCode(19_270_400 + offset);
            assert_eq!(error.code(), code);
            assert_eq!(RxkadError::from_code(code), Some(error));
            let name = code.name().expect("a name");
            assert!(error.to_string().starts_with(&format!("{name}:")), "{error}");
        }
        assert_eq!(RxkadError::from_code(AbortCode(19_270_413)), None);
        assert_eq!(AbortCode(19_270_413).name(), None);
    }
}
