//! The numbers of the header, each a type of its own, and their comparisons.
//!
//! Sequence numbers and serials wrap and are compared by signed difference; call numbers do not wrap
//! (a connection is retired before they could) and are compared as plain unsigned numbers
//! (rx-wire.md 1.3, peers-differ.md row 43).

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

macro_rules! shown {
    ($name:ident, $format:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

macro_rules! wrapping {
    ($name:ident) => {
        impl $name {
            /// Whether `self` comes before `other`, by signed difference.
            #[inline]
            pub const fn before(self, other: Self) -> bool {
                (self.0.wrapping_sub(other.0) as i32) < 0
            }

            /// Whether `self` comes after `other`, by signed difference.
            #[inline]
            pub const fn after(self, other: Self) -> bool {
                other.before(self)
            }

            /// The later of the two.
            #[inline]
            pub const fn later(self, other: Self) -> Self {
                if self.before(other) { other } else { self }
            }

            /// The earlier of the two.
            #[inline]
            pub const fn earlier(self, other: Self) -> Self {
                if self.before(other) { self } else { other }
            }

            /// `self` moved forward by `count`, wrapping.
            #[inline]
            pub const fn plus(self, count: u32) -> Self {
                Self(self.0.wrapping_add(count))
            }

            /// `self` moved back by `count`, wrapping.
            #[inline]
            pub const fn minus(self, count: u32) -> Self {
                Self(self.0.wrapping_sub(count))
            }

            /// How far `self` lies behind `other`, as a wrapping distance: `other - self`.
            #[inline]
            pub const fn distance_to(self, other: Self) -> u32 {
                other.0.wrapping_sub(self.0)
            }
        }
    };
}

number! {
    /// Incarnation of the client endpoint of a connection; both directions carry it (rx-wire.md 1.1).
    Epoch(u32)
}
shown!(Epoch, "{:08x}");

impl Epoch {
    /// The epoch that OpenAFS puts into VERSION and DEBUG packets; it names no connection.
    pub const TOOLS: Epoch = Epoch(999);

    /// Whether the connection is keyed by (epoch, cid) without the peer's address (rx-wire.md 1.1, bit 31).
    pub const fn is_address_free(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }

    /// An epoch from 32 random bits: bit 31 set, bit 30 clear, so never 0 and never [`Epoch::TOOLS`].
    pub const fn from_random(bits: u32) -> Epoch {
        Epoch((bits & !0x4000_0000) | 0x8000_0000)
    }
}

number! {
    /// Connection id; the low two bits name the channel (rx-wire.md 1.2).
    Cid(u32)
}
shown!(Cid, "{:08x}");

impl Cid {
    /// The connection's id: channel bits cleared.
    #[inline]
    pub const fn connection(self) -> Cid {
        Cid(self.0 & !3)
    }

    /// The channel that the low two bits name.
    #[inline]
    pub const fn channel(self) -> ChannelIndex {
        ChannelIndex((self.0 & 3) as u8)
    }

    /// This connection's id with the bits of `channel`.
    #[inline]
    pub const fn with_channel(self, channel: ChannelIndex) -> Cid {
        Cid((self.0 & !3) | channel.0 as u32)
    }
}

/// One of the four channels of a connection: 0..=3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ChannelIndex(u8);

impl ChannelIndex {
    /// Channels of a connection.
    pub const COUNT: usize = 4;

    /// All four, lowest first.
    pub const ALL: [ChannelIndex; 4] =
        [ChannelIndex(0), ChannelIndex(1), ChannelIndex(2), ChannelIndex(3)];

    /// The channel with this number; `None` if it is above 3.
    pub const fn new(index: u8) -> Option<ChannelIndex> {
        if index < 4 { Some(ChannelIndex(index)) } else { None }
    }

    /// For indexing an array of four.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for ChannelIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
shown!(ChannelIndex, "{}");

number! {
    /// Number of a call on its channel, from 1; 0 marks a connection-level packet (rx-wire.md 1.3).
    #[derive(PartialOrd, Ord)]
    CallNumber(u32)
}
shown!(CallNumber, "{}");

impl CallNumber {
    /// A connection-level packet, or "no call yet".
    pub const NONE: CallNumber = CallNumber(0);
    /// The highest number used: the connection is retired when a channel reaches it (rx-wire.md 1.3).
    pub const MAX: CallNumber = CallNumber(0x7fff_ffff);

    /// The next number on the channel; `None` when the channel is used up.
    pub const fn next(self) -> Option<CallNumber> {
        if self.0 >= Self::MAX.0 { None } else { Some(CallNumber(self.0 + 1)) }
    }

    /// Whether this is 0.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

number! {
    /// Sequence number of a DATA packet in one direction of one call, from 1; 0 in other packets.
    Seq(u32)
}
shown!(Seq, "{}");
wrapping!(Seq);

impl Seq {
    /// First packet of each direction of each call.
    pub const FIRST: Seq = Seq(1);
}

number! {
    /// Per-sender, per-connection number of every transmitted packet; 0 = sent without a connection.
    Serial(u32)
}
shown!(Serial, "{}");
wrapping!(Serial);

impl Serial {
    /// "None": in an ACK's serial field, or on a packet sent without a connection.
    pub const NONE: Serial = Serial(0);

    /// Whether this is 0.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

number! {
    /// Application protocol addressed on a port.
    #[derive(PartialOrd, Ord)]
    ServiceId(u16)
}
shown!(ServiceId, "{}");

number! {
    /// Security class of a connection: 0 rxnull, 2 rxkad, 4 rxgk, 6 YFS-rxgk (rx-wire.md 1).
    #[derive(PartialOrd, Ord)]
    SecurityIndex(u8)
}
shown!(SecurityIndex, "{}");

impl SecurityIndex {
    /// rxnull: no security.
    pub const NULL: SecurityIndex = SecurityIndex(0);
    /// rxkad.
    pub const RXKAD: SecurityIndex = SecurityIndex(2);
}

number! {
    /// What an ABORT says: negative for Rx and rxgen, positive for applications and security classes
    /// (rx-wire.md 6).
    #[derive(PartialOrd, Ord)]
    AbortCode(i32)
}

impl AbortCode {
    /// Peer silent or gone, or its call was overtaken.
    pub const CALL_DEAD: AbortCode = AbortCode(-1);
    /// Unknown service or security index.
    pub const INVALID_OPERATION: AbortCode = AbortCode(-2);
    /// Idle or hard timeout.
    pub const CALL_TIMEOUT: AbortCode = AbortCode(-3);
    /// Unused on the wire.
    pub const EOF: AbortCode = AbortCode(-4);
    /// Malformed or impossible packet.
    pub const PROTOCOL_ERROR: AbortCode = AbortCode(-5);
    /// The application gave up.
    pub const USER_ABORT: AbortCode = AbortCode(-6);
    /// The server is restarting.
    pub const RESTARTING: AbortCode = AbortCode(-100);
    /// The server's stub could not decode the arguments.
    pub const RXGEN_SS_UNMARSHAL: AbortCode = AbortCode(-453);
    /// The operation number could not be read.
    pub const RXGEN_DECODE: AbortCode = AbortCode(-454);
    /// Unknown operation.
    pub const RXGEN_OPCODE: AbortCode = AbortCode(-455);

    /// The field's name of the code, where it has one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            -1 => "RX_CALL_DEAD",
            -2 => "RX_INVALID_OPERATION",
            -3 => "RX_CALL_TIMEOUT",
            -4 => "RX_EOF",
            -5 => "RX_PROTOCOL_ERROR",
            -6 => "RX_USER_ABORT",
            -7 => "RX_ADDRINUSE",
            -8 => "RX_MSGSIZE",
            -100 => "RX_RESTARTING",
            -450 => "RXGEN_CC_MARSHAL",
            -451 => "RXGEN_CC_UNMARSHAL",
            -452 => "RXGEN_SS_MARSHAL",
            -453 => "RXGEN_SS_UNMARSHAL",
            -454 => "RXGEN_DECODE",
            -455 => "RXGEN_OPCODE",
            -456 => "RXGEN_SS_XDRFREE",
            -457 => "RXGEN_CC_XDRFREE",
            19270400 => "RXKADINCONSISTENCY",
            19270401 => "RXKADPACKETSHORT",
            19270402 => "RXKADLEVELFAIL",
            19270403 => "RXKADTICKETLEN",
            19270404 => "RXKADOUTOFSEQUENCE",
            19270405 => "RXKADNOAUTH",
            19270406 => "RXKADBADKEY",
            19270407 => "RXKADBADTICKET",
            19270408 => "RXKADUNKNOWNKEY",
            19270409 => "RXKADEXPIRED",
            19270410 => "RXKADSEALEDINCON",
            19270411 => "RXKADDATALEN",
            19270412 => "RXKADILLEGALLEVEL",
            1233242880 => "RXGKINCONSISTENCY",
            1233242881 => "RXGKPACKETSHORT",
            1233242882 => "RXGKBADCHALLENGE",
            1233242883 => "RXGKBADETYPE",
            1233242884 => "RXGKBADLEVEL",
            1233242885 => "RXGKBADKEYNO",
            1233242886 => "RXGKEXPIRED",
            1233242887 => "RXGKNOTAUTH",
            1233242888 => "RXGKBADTOKEN",
            1233242889 => "RXGKSEALEDINCON",
            1233242890 => "RXGKDATALEN",
            1233242891 => "RXGKBADQOP",
            _ => return None,
        })
    }
}

impl fmt::Display for AbortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// So that `?` takes it where any error goes.
impl std::error::Error for AbortCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        // S-134: windows keep their order across 2^31 and across 2^32.
        assert!(Seq(0x7fff_fff0).before(Seq(0x8000_0010)));
        assert!(Seq(0xffff_fff0).before(Seq(5)));
        assert!(Serial(5).after(Serial(0xffff_fff0)));
        assert!(!Seq(7).before(Seq(7)) && !Seq(7).after(Seq(7)));
        assert_eq!(Seq(0xffff_ffff).plus(2), Seq(1));
        assert_eq!(Seq(1).minus(2), Seq(0xffff_ffff));
        assert_eq!(Seq(0xffff_ffff).distance_to(Seq(1)), 2);
        assert_eq!(Seq(3).later(Seq(2)), Seq(3));
        assert_eq!(Seq(3).earlier(Seq(2)), Seq(2));
    }

    #[test]
    fn a_cid_is_a_connection_and_a_channel() {
        let cid = Cid(0x5d0e_9a36);
        assert_eq!(cid.connection(), Cid(0x5d0e_9a34));
        assert_eq!(cid.channel().index(), 2);
        assert_eq!(cid.connection().with_channel(cid.channel()), cid);
    }

    #[test]
    fn a_random_epoch_is_address_free_and_never_that_of_the_tools() {
        for bits in [0, 1, 999, 0xffff_ffff, 0x4000_0000] {
            let epoch = Epoch::from_random(bits);
            assert!(epoch.is_address_free() && epoch.0 & 0x4000_0000 == 0);
            assert_ne!(epoch, Epoch::TOOLS);
        }
    }

    #[test]
    fn call_numbers_end_at_the_highest_positive_one() {
        assert_eq!(CallNumber(0x7fff_fffe).next(), Some(CallNumber::MAX));
        assert_eq!(CallNumber::MAX.next(), None);
    }

    #[test]
    fn codes_are_shown_with_their_names() {
        assert_eq!(AbortCode::CALL_DEAD.to_string(), "-1 (RX_CALL_DEAD)");
        assert_eq!(AbortCode(4711).to_string(), "4711");
    }
}
