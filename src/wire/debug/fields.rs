//! Records of fixed size without pads of their own: fields in their order on the wire, big-endian.

use std::net::Ipv4Addr;

use crate::wire::{AbortCode, CallNumber, Cid, Epoch, SecurityIndex, Serial};

/// A value of fixed size.
pub(super) trait Field: Sized {
    const LEN: usize;
    const ZERO: Self;

    /// Reads it from the front of `bytes` and moves `bytes` on; `None` if too few are left.
    fn take(bytes: &mut &[u8]) -> Option<Self>;

    fn put(&self, buffer: &mut Vec<u8>);
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl Field for $integer {
            const LEN: usize = size_of::<$integer>();
            const ZERO: Self = 0;

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (first, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_be_bytes(*first))
            }

            fn put(&self, buffer: &mut Vec<u8>) {
                buffer.extend_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}
integers!(u8 i16 u16 i32 u32 u64);

macro_rules! numbers {
    ($($number:ident($inner:ty))*) => {$(
        impl Field for $number {
            const LEN: usize = <$inner>::LEN;
            const ZERO: Self = $number(0);

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                <$inner>::take(bytes).map($number)
            }

            fn put(&self, buffer: &mut Vec<u8>) {
                self.0.put(buffer);
            }
        }
    )*};
}
numbers!(AbortCode(i32) CallNumber(u32) Cid(u32) Epoch(u32) SecurityIndex(u8) Serial(u32));

impl Field for Ipv4Addr {
    const LEN: usize = 4;
    const ZERO: Self = Ipv4Addr::UNSPECIFIED;

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u32::take(bytes).map(Ipv4Addr::from)
    }

    fn put(&self, buffer: &mut Vec<u8>) {
        u32::from(*self).put(buffer);
    }
}

impl<T: Field + Copy, const N: usize> Field for [T; N] {
    const LEN: usize = T::LEN * N;
    const ZERO: Self = [T::ZERO; N];

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut all = Self::ZERO;
        for one in &mut all {
            *one = T::take(bytes)?;
        }
        Some(all)
    }

    fn put(&self, buffer: &mut Vec<u8>) {
        for one in self {
            one.put(buffer);
        }
    }
}

/// A struct whose fields stand on the wire in the order given; the size is checked by the compiler.
macro_rules! record {
    (
        $(#[$doc:meta])*
        $name:ident, $len:literal bytes {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Bytes of the record.
            pub const LEN: usize = $len;

            /// Appends the record to `buffer`.
            pub fn encode(&self, buffer: &mut Vec<u8>) {
                self.put(buffer);
            }
        }

        impl Field for $name {
            const LEN: usize = 0 $(+ <$type as Field>::LEN)*;
            const ZERO: Self = $name { $($field: <$type as Field>::ZERO,)* };

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some($name { $($field: <$type as Field>::take(bytes)?,)* })
            }

            fn put(&self, buffer: &mut Vec<u8>) {
                $(self.$field.put(buffer);)*
            }
        }

        const _: () = assert!(<$name as Field>::LEN == $len);

        impl Default for $name {
            /// All bytes 0.
            fn default() -> Self {
                Self::ZERO
            }
        }
    };
}

/// `decode` of a record that has only one layout.
macro_rules! one_layout {
    ($($name:ident)*) => {$(
        impl $name {
            /// Reads the record; `None` if the payload is shorter. More bytes are ignored.
            pub fn decode(payload: &[u8]) -> Option<Self> {
                let mut rest = payload;
                Self::take(&mut rest)
            }
        }
    )*};
}

pub(super) use {one_layout, record};
