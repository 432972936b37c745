//! Every limit, window and timer of connections and calls, with its range.
//!
//! Defaults are those of `docs/protocol/rx-calls.md` 13 and `rx-flow.md` 5 to 8. A time that may not be zero
//! says so; what is out of range keeps an endpoint from starting ([`ConfigError`]).
//!
//! ```
//! use std::time::Duration;
//! # use rxrpc::Endpoint;
//! let builder = Endpoint::builder().configure(|config| {
//!     config.debug_responder = true;
//!     config.server.call.idle_timeout = Some(Duration::from_secs(300));
//!     config.client.call.receive_window_max_packets = 4096;
//! });
//! ```

use std::time::Duration;

use super::Role;
use super::path::{DATAGRAM_DEFAULT, DATAGRAM_MAX};
use super::room::CALL_BYTES_MIN;
use crate::wire::AbortCode;

/// How a call's congestion window follows losses and delays (docs/recovery.md 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CongestionControl {
    /// RFC 5681 and 6582: half the window after a loss, one packet more for each round trip.
    NewReno,
    /// RFC 9438: seven tenths after a loss, then a curve of time up to the old window and beyond.
    Cubic,
    /// CUBIC that does not go below what the path still delivers without a queue, and so keeps its window
    /// where packets are lost at random.
    #[default]
    Westwood,
}

/// Settings of the calls of a connection. Shared by its four channels and never changed while they run.
#[derive(Clone, Debug, PartialEq)]
pub struct CallConfig {
    /// Receive window before the application has read anything, in packets: 1..=`receive_window_max_packets`.
    pub receive_window_initial_packets: u32,
    /// Receive window at the most, in packets: 1..=65535. Once the application reads it is up to 255; beyond
    /// that it is twice what the application takes in a round trip, and never more than
    /// `receive_buffer_max_bytes` hold (docs/recovery.md 4). Above 255 the SACK table does not describe it
    /// whole (rx-flow.md 6.2).
    pub receive_window_max_packets: u32,
    /// Most packets outstanding in one call, whatever the peer and the congestion window allow: 1..=65535.
    /// What the application may queue follows what may be in flight.
    pub send_window_max_packets: u32,
    /// Send window until the peer's first ACK: 1..=`send_window_max_packets`.
    pub send_window_initial_packets: u32,
    /// Congestion window of a first call to a peer, in packets: 1..=255. Ten unless set, as TCP and QUIC have it
    /// (RFC 6928).
    pub congestion_window_initial_packets: u32,
    /// How the congestion window follows losses and delays.
    pub congestion_control: CongestionControl,
    /// Bytes buffered for one call in its receive direction before the window stops opening: at least 1412,
    /// one packet.
    pub receive_buffer_max_bytes: usize,
    /// Packets per datagram that our ACKs offer to take: 1..=6. 1 = no jumbograms (rx-flow.md 9.3).
    pub jumbo_receive_packets: u32,
    /// Packets per datagram sent to a peer that takes jumbograms, over a path that a padded PING has shown to
    /// carry them unfragmented: 1..=6. 1 = no jumbograms (rx-flow.md 9.3).
    pub jumbo_send_packets: u32,
    /// Largest datagram of a single DATA packet, in bytes of UDP payload: 1440..=65000. Above 1440 only to a peer
    /// that says it takes such, over a path that a padded PING has shown to carry them unfragmented, in calls
    /// that last long enough; and a peer that asks by such PINGs is told that we take as much (rx-flow.md 9.3).
    /// 1440 = none above the usual size, and no PINGs for it. Without effect on sending where
    /// `jumbo_send_packets` is above 1.
    pub datagram_max_bytes: u32,
    /// How long an acknowledgement may wait for a reason to be sent sooner (rx-flow.md 4). Zero: not at all.
    pub delayed_ack: Duration,
    /// How long a client waits, after the end of a call, for the next call's DATA to acknowledge the reply
    /// (rx-calls.md 7.3). On a channel whose calls follow each other within `delayed_ack` it waits as long as
    /// with any other ACK, until `delayed_ack` after the reply. Zero: the final ACK leaves at once.
    pub final_ack_delay: Duration,
    /// Retransmission timeout without an RTT sample (rx-flow.md 5.3): above zero, at most `rto_max`.
    pub rto_initial: Duration,
    /// Least retransmission timeout: above zero, at most `rto_max`.
    pub rto_min: Duration,
    /// Greatest retransmission timeout, backoff included.
    pub rto_max: Duration,
    /// Silence of the peer after which a call is dead: above zero, at least 6 s in the field
    /// (rx-calls.md 9.1).
    pub dead_timeout: Duration,
    /// Whether a call that sends nothing for a sixth of `dead_timeout` sends a PING. Off: nobody asks again for
    /// what was lost while both sides wait, an ACK that opens the window or the proof of an address, and the call
    /// is dead then (rx-flow.md 4).
    pub keepalive: bool,
    /// How long an application may wait for data or for window space while the peer is alive; `None` = for
    /// ever. Not below `dead_timeout`.
    pub idle_timeout: Option<Duration>,
    /// Longest whole call; `None` = no limit. Not below `idle_timeout`.
    pub hard_timeout: Option<Duration>,
    /// Whether DATA of a higher call number ends a call that still runs (rx-calls.md 8). Off: BUSY.
    pub takeover: bool,
    /// How long a proof that the peer's address is its own holds. Zero: each call asks anew.
    pub reach_ttl: Duration,
    /// How often the proof is asked for while a call waits for it: above zero.
    pub reach_ping_interval: Duration,
    /// Identical aborts answered at once, per channel, before they are throttled. Zero: throttled from the
    /// second one on.
    pub abort_burst: u32,
    /// Least time between identical aborts after that. Zero: no throttle.
    pub abort_interval: Duration,
    /// Unlikely choices of channels in a simulation. None by default.
    #[cfg(feature = "testkit")]
    pub choices: crate::testkit::ChoiceOptions,
}

impl Default for CallConfig {
    fn default() -> Self {
        CallConfig {
            receive_window_initial_packets: 32,
            receive_window_max_packets: 1024,
            send_window_max_packets: 4096,
            send_window_initial_packets: 16,
            congestion_window_initial_packets: 10,
            congestion_control: CongestionControl::default(),
            receive_buffer_max_bytes: 8 << 20,
            jumbo_receive_packets: 1,
            jumbo_send_packets: 1,
            datagram_max_bytes: 8124,
            delayed_ack: Duration::from_millis(100),
            final_ack_delay: Duration::from_millis(10),
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(350),
            rto_max: Duration::from_secs(60),
            dead_timeout: Duration::from_secs(20),
            keepalive: true,
            idle_timeout: None,
            hard_timeout: None,
            takeover: true,
            reach_ttl: Duration::from_secs(60),
            reach_ping_interval: Duration::from_secs(2),
            abort_burst: 10,
            abort_interval: Duration::from_secs(3),
            #[cfg(feature = "testkit")]
            choices: Default::default(),
        }
    }
}

impl CallConfig {
    /// The defaults of a server's calls: as the client's, with the application's idle limit of 60 s.
    pub fn server() -> CallConfig {
        CallConfig { idle_timeout: Some(Duration::from_secs(60)), ..CallConfig::default() }
    }

    /// How long a call may send nothing before it sends a PING: a sixth of the dead time.
    pub fn ping_interval(&self) -> Duration {
        self.dead_timeout / 6
    }

    /// Checks every range; the error names the field, what was expected and what came.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("receive_window_max_packets", self.receive_window_max_packets, 1, 65_535)?;
        range(
            "receive_window_initial_packets",
            self.receive_window_initial_packets,
            1,
            self.receive_window_max_packets,
        )?;
        range("send_window_max_packets", self.send_window_max_packets, 1, 65_535)?;
        range(
            "send_window_initial_packets",
            self.send_window_initial_packets,
            1,
            self.send_window_max_packets,
        )?;
        range("congestion_window_initial_packets", self.congestion_window_initial_packets, 1, 255)?;
        range("jumbo_receive_packets", self.jumbo_receive_packets, 1, 6)?;
        range("jumbo_send_packets", self.jumbo_send_packets, 1, 6)?;
        range(
            "datagram_max_bytes",
            self.datagram_max_bytes,
            DATAGRAM_DEFAULT.into(),
            DATAGRAM_MAX.into(),
        )?;
        if self.receive_buffer_max_bytes < 1412 {
            return Err(ConfigError::new(
                "receive_buffer_max_bytes",
                "at least 1412",
                self.receive_buffer_max_bytes,
            ));
        }
        above_zero("rto_initial", self.rto_initial)?;
        above_zero("rto_min", self.rto_min)?;
        above_zero("reach_ping_interval", self.reach_ping_interval)?;
        if self.rto_min > self.rto_max || self.rto_initial > self.rto_max {
            return Err(ConfigError::new(
                "rto_max",
                "not below the others",
                self.rto_max.as_millis(),
            ));
        }
        above_zero("dead_timeout", self.dead_timeout)?;
        if self.idle_timeout.is_some_and(|idle| idle < self.dead_timeout) {
            return Err(ConfigError::new(
                "idle_timeout",
                "not below dead_timeout",
                self.idle_timeout.unwrap_or_default().as_millis(),
            ));
        }
        if let (Some(idle), Some(hard)) = (self.idle_timeout, self.hard_timeout)
            && hard < idle
        {
            return Err(ConfigError::new(
                "hard_timeout",
                "not below idle_timeout",
                hard.as_millis(),
            ));
        }
        Ok(())
    }
}

/// Settings of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionConfig {
    /// A client connection without a call is closed after this: above zero. The handle stays usable; its
    /// next call opens another connection.
    pub client_idle: Duration,
    /// A server connection without a call is forgotten after this: not below `call.dead_timeout`, or a client
    /// that sends its request again for want of an answer would have it run again.
    pub server_idle: Duration,
    /// A server connection of which no call has ever reached its service is forgotten after this.
    pub unserved_idle: Duration,
    /// An aborted connection is remembered this long, to answer what still comes. Zero: not at all.
    pub aborted_linger: Duration,
    /// How often a CHALLENGE is sent again: above zero.
    pub challenge_interval: Duration,
    /// How often a CHALLENGE is sent at the most: at least 1.
    pub challenge_max: u32,
    /// How long a refused RESPONSE waits for its ABORT, against guessing. Zero: not at all.
    pub refusal_delay: Duration,
    /// Bytes buffered for all its calls, either direction: at least 8192, those that each call has in any case.
    /// Beyond it their windows stay as they are and writers wait; beyond twice as much, DATA is dropped
    /// without an ACK. No call ends for it, and each goes on with its own 8 KiB (rx-flow.md 6).
    pub buffered_max_bytes: usize,
    /// Calls that may wait for a free channel of one connection: at least 1, since a call waits until it is
    /// given its channel.
    pub waiting_calls_max: usize,
    /// Settings of the calls.
    pub call: CallConfig,
}

impl ConnectionConfig {
    /// Defaults of a client connection.
    pub fn client() -> ConnectionConfig {
        ConnectionConfig {
            client_idle: Duration::from_secs(120),
            server_idle: Duration::from_secs(600),
            unserved_idle: Duration::from_secs(30),
            aborted_linger: Duration::from_secs(10),
            challenge_interval: Duration::from_secs(2),
            challenge_max: 10,
            refusal_delay: Duration::from_secs(1),
            buffered_max_bytes: 16 << 20,
            waiting_calls_max: 1024,
            call: CallConfig::default(),
        }
    }

    /// Defaults of a server connection.
    pub fn server() -> ConnectionConfig {
        ConnectionConfig { call: CallConfig::server(), ..ConnectionConfig::client() }
    }

    /// Checks every range, those of the calls included.
    pub fn validate(&self) -> Result<(), ConfigError> {
        above_zero("client_idle", self.client_idle)?;
        above_zero("server_idle", self.server_idle)?;
        above_zero("unserved_idle", self.unserved_idle)?;
        above_zero("challenge_interval", self.challenge_interval)?;
        range("challenge_max", self.challenge_max, 1, u32::MAX)?;
        enough_bytes("buffered_max_bytes", self.buffered_max_bytes)?;
        if self.waiting_calls_max == 0 {
            return Err(ConfigError::new("waiting_calls_max", "above 0", 0));
        }
        if self.server_idle < self.call.dead_timeout {
            return Err(ConfigError::new(
                "server_idle",
                "not below dead_timeout",
                self.server_idle.as_millis(),
            ));
        }
        self.call.validate()
    }
}

/// Settings of a local endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointConfig {
    /// Whether a server connection is keyed by the peer's address too, whatever bit 31 of the epoch says
    /// (rx-calls.md 1.1).
    pub strict_address: bool,
    /// Whether DEBUG requests are answered.
    pub debug_responder: bool,
    /// What VERSION requests are answered with: at most 65 bytes, more is cut. Not a secret: anybody may ask.
    pub version_text: String,
    /// Whether a peer is asked for its VERSION when a client connection to it is opened, once as long as it is
    /// remembered: of a Linux kernel we need not wait 400 ms longer for an ACK of a request's end. Only older
    /// kernels (before 6.14) do not tell by themselves.
    pub ask_version: bool,
    /// Connections at once, those that we opened and those that were opened to us. Zero: none.
    pub connections_max: usize,
    /// Server connections at once from one address and port. Zero: none.
    pub connections_per_peer_max: usize,
    /// Server connections at once whose peers have not proved their addresses: 1..=`connections_max`. One
    /// more closes the oldest of them.
    pub unproved_connections_max: usize,
    /// Bytes buffered for all calls of the endpoint: at least 8192. Beyond it, as for
    /// [`ConnectionConfig::buffered_max_bytes`].
    pub buffered_max_bytes: usize,
    /// Bytes buffered for the calls of peers that have not proved their addresses: at least 8192. Beyond it
    /// their DATA is dropped without an ACK, but for 8 KiB a call.
    pub unproved_buffered_max_bytes: usize,
    /// To an address that has not proved itself, at most so many times the bytes that came from it;
    /// `None` = no limit, `Some(0)` = nothing.
    pub amplification_max: Option<u32>,
    /// A peer's memory (RTT, congestion, sizes) is dropped this long after its last use: above zero.
    pub peer_linger: Duration,
    /// Whether peers with client connections get a NAT keepalive, and after how much silence of ours: above
    /// zero; `None` = no keepalive.
    pub nat_ping: Option<Duration>,
    /// VERSION answers, and raw aborts, per second and address. Zero: none.
    pub answers_per_peer_per_second: u32,
    /// The same for all addresses together. Zero: none.
    pub answers_per_second: u32,
    /// PINGs per second and address that ask for the proof of the address: 1..=`reach_pings_per_second`. One
    /// too many is sent after `reach_ping_interval`.
    pub reach_pings_per_peer_per_second: u32,
    /// The same for all addresses together: 1 to a million.
    pub reach_pings_per_second: u32,
    /// Receives of one turn of the receive loop, before every other actor of its thread has a turn: 1 to
    /// 1024. Each gives up to 32 buffers.
    pub receives_per_turn: u32,
    /// Datagrams that end a turn of the receive loop, however few receives they came in: 1 to a million. What a
    /// receive brings is not divided by this, and may be up to 2048 of them.
    pub datagrams_per_turn: u32,
    /// How long DATA of calls that move much may gather before it is received, at the most, where it comes in single
    /// datagrams: at most 1 ms. Zero: not at all.
    ///
    /// Only where the network can ([`Network::rest`](crate::net::Network::rest)), and only while nothing else comes.
    /// How long it really is depends on how quickly they come.
    pub receive_moderation: Duration,
    /// Bytes that may wait for the socket: at least 65,536. Beyond it the oldest are lost, and counted in
    /// [`Counters::send_failures`](crate::proto::Counters::send_failures).
    pub egress_max_bytes: usize,
    /// Bytes on their way from one shard to others: in equal shares for each of them, of 128 KiB at the least. Beyond it
    /// they are lost ([`DropReason::StrayOverflow`](crate::proto::DropReason::StrayOverflow)). Without effect on an
    /// endpoint of one shard.
    pub strays_max_bytes: usize,
    /// DEBUG answers per second and IP address, where `debug_responder` is on, in the long run:
    /// 1..=`debug_answers_per_second`.
    pub debug_answers_per_peer_per_second: u32,
    /// The same for all addresses together: 1 to a million.
    pub debug_answers_per_second: u32,
    /// DEBUG answers that one IP address may draw at once, before that rate holds: 1..=`debug_answers_burst`.
    /// `rxdebug` asks once for each connection and each peer: so many it lists without a pause.
    pub debug_answers_per_peer_burst: u32,
    /// The same for all addresses together: 1 to a million.
    pub debug_answers_burst: u32,
    /// Calls that may wait for services that run only so many at once
    /// ([`ServiceOptions::running_calls_max`](crate::ServiceOptions::running_calls_max)), all services
    /// together. One more is ended with `overload_code`, and nothing else is. `Some(0)` = none waits, `None`
    /// = any number (rx-calls.md 4.1).
    pub queued_calls_max: Option<usize>,
    /// Code of the ABORT for a call past a limit: of connections, or of calls that wait for a service.
    pub overload_code: AbortCode,
    /// Settings of server connections.
    pub server: ConnectionConfig,
    /// Settings of client connections.
    pub client: ConnectionConfig,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        EndpointConfig {
            strict_address: true,
            debug_responder: false,
            version_text: concat!("rxrpc ", env!("CARGO_PKG_VERSION")).to_owned(),
            ask_version: false,
            connections_max: 100_000,
            connections_per_peer_max: 1024,
            unproved_connections_max: 4096,
            buffered_max_bytes: 1 << 30,
            unproved_buffered_max_bytes: 64 << 20,
            amplification_max: Some(3),
            peer_linger: Duration::from_secs(60),
            nat_ping: None,
            answers_per_peer_per_second: 10,
            answers_per_second: 100,
            reach_pings_per_peer_per_second: 1024,
            reach_pings_per_second: 10_000,
            receives_per_turn: 4,
            datagrams_per_turn: 1024,
            receive_moderation: Duration::from_micros(100),
            egress_max_bytes: 32 << 20,
            strays_max_bytes: 8 << 20,
            debug_answers_per_peer_per_second: 10,
            debug_answers_per_second: 100,
            debug_answers_per_peer_burst: 1000,
            debug_answers_burst: 2000,
            queued_calls_max: Some(1024),
            overload_code: AbortCode::CALL_DEAD,
            server: ConnectionConfig::server(),
            client: ConnectionConfig::client(),
        }
    }
}

/// Least bytes that may wait for the socket: one large send.
const EGRESS_BYTES_MIN: usize = 65_536;

const RECEIVE_MODERATION_MAX: Duration = Duration::from_millis(1);

impl EndpointConfig {
    /// Checks every range, those of connections and calls included.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // A time of zero would be due for ever.
        above_zero("peer_linger", self.peer_linger)?;
        if let Some(interval) = self.nat_ping {
            above_zero("nat_ping", interval)?;
        }
        if !(1..=self.connections_max).contains(&self.unproved_connections_max) {
            return Err(ConfigError::new(
                "unproved_connections_max",
                format_args!("1 to connections_max, which is {}", self.connections_max),
                self.unproved_connections_max,
            ));
        }
        enough_bytes("buffered_max_bytes", self.buffered_max_bytes)?;
        enough_bytes("unproved_buffered_max_bytes", self.unproved_buffered_max_bytes)?;
        // What is counted by address is remembered for a second.
        range("debug_answers_per_second", self.debug_answers_per_second, 1, 1_000_000)?;
        range(
            "debug_answers_per_peer_per_second",
            self.debug_answers_per_peer_per_second,
            1,
            self.debug_answers_per_second,
        )?;
        range("debug_answers_burst", self.debug_answers_burst, 1, 1_000_000)?;
        range(
            "debug_answers_per_peer_burst",
            self.debug_answers_per_peer_burst,
            1,
            self.debug_answers_burst,
        )?;
        range("reach_pings_per_second", self.reach_pings_per_second, 1, 1_000_000)?;
        range(
            "reach_pings_per_peer_per_second",
            self.reach_pings_per_peer_per_second,
            1,
            self.reach_pings_per_second,
        )?;
        range("receives_per_turn", self.receives_per_turn, 1, 1024)?;
        range("datagrams_per_turn", self.datagrams_per_turn, 1, 1_000_000)?;
        if self.receive_moderation > RECEIVE_MODERATION_MAX {
            return Err(ConfigError::new(
                "receive_moderation",
                format_args!("at most {RECEIVE_MODERATION_MAX:?}"),
                format_args!("{:?}", self.receive_moderation),
            ));
        }
        if self.egress_max_bytes < EGRESS_BYTES_MIN {
            return Err(ConfigError::new(
                "egress_max_bytes",
                format_args!("at least {EGRESS_BYTES_MIN}"),
                self.egress_max_bytes,
            ));
        }
        self.server.validate()?;
        self.client.validate()
    }

    /// The settings of one of an endpoint's `shards`: what holds for all together is divided, never below what
    /// each needs. So are the rates of one IP address, whose ports come to any shard; rates are rounded down, so that
    /// they hold in sum, but for one in each shard. What holds for one address and port stays.
    pub(crate) fn share(&self, shards: usize) -> EndpointConfig {
        let count = |max: usize| max.div_ceil(shards);
        let rate =
            |max: u32| (max / u32::try_from(shards).unwrap_or(u32::MAX)).max(u32::from(max > 0));
        let connections_max = count(self.connections_max);
        EndpointConfig {
            connections_max,
            unproved_connections_max: count(self.unproved_connections_max),
            buffered_max_bytes: count(self.buffered_max_bytes).max(CALL_BYTES_MIN),
            unproved_buffered_max_bytes: count(self.unproved_buffered_max_bytes)
                .max(CALL_BYTES_MIN),
            answers_per_peer_per_second: rate(self.answers_per_peer_per_second),
            answers_per_second: rate(self.answers_per_second),
            reach_pings_per_peer_per_second: rate(self.reach_pings_per_peer_per_second),
            reach_pings_per_second: rate(self.reach_pings_per_second),
            debug_answers_per_peer_per_second: rate(self.debug_answers_per_peer_per_second),
            debug_answers_per_second: rate(self.debug_answers_per_second),
            debug_answers_per_peer_burst: rate(self.debug_answers_per_peer_burst),
            debug_answers_burst: rate(self.debug_answers_burst),
            egress_max_bytes: count(self.egress_max_bytes).max(EGRESS_BYTES_MIN),
            queued_calls_max: self.queued_calls_max.map(count),
            ..self.clone()
        }
    }

    /// Bytes buffered for one connection.
    pub(crate) fn buffered_max_bytes_of(&self, role: Role) -> usize {
        match role {
            Role::Client => self.client.buffered_max_bytes,
            Role::Server => self.server.buffered_max_bytes,
        }
    }
}

/// A setting outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, got {got}")]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// What it may be.
    pub expected: String,
    /// What it was.
    pub got: String,
}

impl ConfigError {
    pub(crate) fn new(
        field: &'static str,
        expected: impl ToString,
        got: impl ToString,
    ) -> ConfigError {
        ConfigError { field, expected: expected.to_string(), got: got.to_string() }
    }
}

fn range(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(field, format_args!("{least} to {most}"), value))
}

/// Less than what each call has in any case would be no limit.
fn enough_bytes(field: &'static str, value: usize) -> Result<(), ConfigError> {
    if value >= CALL_BYTES_MIN {
        return Ok(());
    }
    Err(ConfigError::new(field, format_args!("at least {CALL_BYTES_MIN}"), value))
}

fn above_zero(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.is_zero() { Err(ConfigError::new(field, "above 0", 0)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(CallConfig::default().validate(), Ok(()));
        assert_eq!(CallConfig::server().validate(), Ok(()));
        assert_eq!(EndpointConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_window_is_taken_at_its_limit_and_refused_one_beyond() {
        let with =
            |packets| CallConfig { receive_window_max_packets: packets, ..CallConfig::default() };
        assert_eq!(with(65_535).validate(), Ok(()));
        let error = with(65_536).validate().unwrap_err();
        assert_eq!(error.to_string(), "receive_window_max_packets: expected 1 to 65535, got 65536");
    }

    /// Found by simulation: forgotten while its client still asked, a call ran twice.
    #[test]
    fn a_server_that_forgets_sooner_than_clients_give_up_is_refused() {
        let mut config = ConnectionConfig::server();
        config.server_idle = config.call.dead_timeout;
        assert_eq!(config.validate(), Ok(()));
        config.server_idle -= Duration::from_millis(1);
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), "server_idle: expected not below dead_timeout, got 19999");
    }

    #[test]
    fn debug_answers_are_limited_within_a_range() {
        let with = |per_peer, in_all| EndpointConfig {
            debug_answers_per_peer_per_second: per_peer,
            debug_answers_per_second: in_all,
            ..EndpointConfig::default()
        };
        for good in [(1, 1), (7, 7), (1, 1_000_000), (1_000_000, 1_000_000)] {
            assert_eq!(with(good.0, good.1).validate(), Ok(()), "{good:?}");
        }
        for (bad, error) in [
            ((1, 0), "debug_answers_per_second: expected 1 to 1000000, got 0"),
            ((1, 1_000_001), "debug_answers_per_second: expected 1 to 1000000, got 1000001"),
            ((0, 7), "debug_answers_per_peer_per_second: expected 1 to 7, got 0"),
            ((8, 7), "debug_answers_per_peer_per_second: expected 1 to 7, got 8"),
        ] {
            assert_eq!(with(bad.0, bad.1).validate().unwrap_err().to_string(), error);
        }
        let with = |per_peer, in_all| EndpointConfig {
            debug_answers_per_peer_burst: per_peer,
            debug_answers_burst: in_all,
            ..EndpointConfig::default()
        };
        for good in [(1, 1), (7, 7), (1_000_000, 1_000_000)] {
            assert_eq!(with(good.0, good.1).validate(), Ok(()), "{good:?}");
        }
        for (bad, error) in [
            ((1, 0), "debug_answers_burst: expected 1 to 1000000, got 0"),
            ((0, 7), "debug_answers_per_peer_burst: expected 1 to 7, got 0"),
            ((8, 7), "debug_answers_per_peer_burst: expected 1 to 7, got 8"),
        ] {
            assert_eq!(with(bad.0, bad.1).validate().unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn a_time_that_would_always_be_due_is_refused() {
        type Change = fn(&mut EndpointConfig, Duration);
        let changes: [(&str, Change); 5] = [
            ("peer_linger", |config, time| config.peer_linger = time),
            ("nat_ping", |config, time| config.nat_ping = Some(time)),
            ("client_idle", |config, time| config.client.client_idle = time),
            ("challenge_interval", |config, time| config.server.challenge_interval = time),
            ("rto_min", |config, time| config.client.call.rto_min = time),
        ];
        for (field, change) in changes {
            let mut config = EndpointConfig::default();
            change(&mut config, Duration::from_nanos(1));
            assert_eq!(config.validate(), Ok(()), "{field}");
            change(&mut config, Duration::ZERO);
            assert_eq!(
                config.validate().unwrap_err().to_string(),
                format!("{field}: expected above 0, got 0")
            );
        }
    }

    #[test]
    fn timeouts_keep_their_order() {
        // rx-calls.md 9.1: dead <= idle <= hard.
        let config =
            CallConfig { idle_timeout: Some(Duration::from_secs(19)), ..CallConfig::default() };
        assert_eq!(config.validate().unwrap_err().field, "idle_timeout");
    }
}
