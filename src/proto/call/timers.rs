//! The clocks of one call: plain values, compared with the `now` that comes with each input.

use std::time::Instant;

use crate::proto::config::CallConfig;

/// When things are due, or last happened.
#[derive(Clone, Debug, Hash)]
pub struct Timers {
    /// Retransmission timeout of what is in flight, or the next probe of a closed window.
    pub retransmit: Option<Instant>,
    /// When what is in flight is probed, before it is given up.
    pub probe: Option<Instant>,
    /// Probes since something was last acknowledged.
    pub probes_sent: u32,
    /// When packets may leave that the windows allow, and that were held back not to leave in one burst.
    pub pace: Option<Instant>,
    /// When packets that others have overtaken count as lost.
    pub reorder: Option<Instant>,
    /// When something was last sent: a PING is due after a sixth of the dead time.
    pub last_sent: Instant,
    /// When DATA was last sent.
    pub last_data_sent: Option<Instant>,
    /// When something valid last came: the call is dead after the dead time.
    pub last_received: Instant,
    /// Since when the application has been waiting.
    pub waiting_since: Option<Instant>,
    /// The call's end, whatever happens.
    pub hard: Option<Instant>,
    /// The next PING that asks for the proof of the peer's address.
    pub reach_ping: Option<Instant>,
}

impl Timers {
    /// Nothing is in flight.
    pub fn stop_recovery(&mut self) {
        self.retransmit = None;
        self.probe = None;
        self.probes_sent = 0;
        self.reorder = None;
        self.pace = None;
    }
}

impl Timers {
    /// All of a call that begins now.
    pub fn new(now: Instant, config: &CallConfig) -> Timers {
        Timers {
            retransmit: None,
            probe: None,
            probes_sent: 0,
            reorder: None,
            pace: None,
            last_sent: now,
            last_data_sent: None,
            last_received: now,
            waiting_since: None,
            hard: config.hard_timeout.and_then(|limit| now.checked_add(limit)),
            reach_ping: None,
        }
    }
}
