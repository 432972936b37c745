//! What state each channel of this thread is in, for ladders of packets. Only while a world keeps what happens.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

use crate::proto::CallState;
use crate::proto::channel::Channel;
use crate::wire::{CallNumber, Cid, Epoch, Header};

/// A channel's state in a word: `n3 Reply+2` = call 3, its reply is on its way, two packets unacknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateWord {
    /// Number of the present call, or else of the last one.
    pub number: CallNumber,
    /// State of the present call.
    pub state: Option<CallState>,
    /// Packets sent and not acknowledged.
    pub in_flight_packets: u32,
}

impl StateWord {
    fn of(channel: &Channel) -> StateWord {
        StateWord {
            number: channel.call_number(),
            state: channel.state(),
            in_flight_packets: channel.in_flight_packets(),
        }
    }
}

impl fmt::Display for StateWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            None => write!(f, "n{} idle", self.number)?,
            Some(state) => {
                let name = format!("{state:?}");
                // Whose side it is, its address says.
                let name = name.trim_start_matches("Client").trim_start_matches("Server");
                write!(f, "n{} {name}", self.number)?;
            }
        }
        if self.in_flight_packets > 0 {
            write!(f, "+{}", self.in_flight_packets)?;
        }
        Ok(())
    }
}

/// A channel, seen by its owner: whether it is the client's, epoch, id with channel bits.
type Key = (bool, Epoch, Cid);

thread_local! {
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
    static STATES: RefCell<HashMap<Key, StateWord>> = RefCell::default();
}

/// Whether channels of this thread tell their states from now on. Forgets what they told.
pub(crate) fn watch(is_watched: bool) {
    IS_WATCHED.set(is_watched);
    STATES.with_borrow_mut(HashMap::clear);
}

/// State of the channel that a packet is for, or comes from.
pub(crate) fn of_packet(datagram: &[u8], is_receiver: bool) -> Option<StateWord> {
    if !IS_WATCHED.get() {
        return None;
    }
    let header = Header::decode(datagram)?;
    let is_client = header.is_from_client() != is_receiver;
    STATES.with_borrow(|states| states.get(&(is_client, header.epoch, header.cid)).copied())
}

/// One channel's line among the states. Held by whoever drives the channel, and dropped with it.
#[derive(Debug)]
pub(crate) struct Watch(Key);

impl Watch {
    pub fn new(is_client: bool, epoch: Epoch, cid: Cid) -> Watch {
        Watch((is_client, epoch, cid))
    }

    pub fn note(&self, channel: &Channel) {
        if IS_WATCHED.get() {
            let word = StateWord::of(channel);
            STATES.with_borrow_mut(|states| states.insert(self.0, word));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Actors are dropped at the very end of a thread too, when there are no states any more.
        let _ = STATES.try_with(|states| {
            if let Ok(mut states) = states.try_borrow_mut() {
                states.remove(&self.0);
            }
        });
    }
}
