//! rxnull, index 0: no security.

use super::{ClientClass, ClientStart, ConnectionIds, Entropy, ServerClass, ServerHandshake};
use crate::wire::SecurityIndex;

/// No security: nothing is proved and nothing is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxNull;

impl ServerClass for RxNull {
    fn index(&self) -> SecurityIndex {
        SecurityIndex::NULL
    }

    fn accept(&self, _: ConnectionIds) -> Option<Box<dyn ServerHandshake>> {
        None
    }
}

impl ClientClass for RxNull {
    fn index(&self) -> SecurityIndex {
        SecurityIndex::NULL
    }

    fn connect(&self, _: ConnectionIds, _: &Entropy) -> ClientStart {
        ClientStart::default()
    }
}
