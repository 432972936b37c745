//! What can be checked of bare cores and of nothing else: memory within its limits, and timers.

use super::core::{Cores, Host};
use super::plan::Sabotage;
use crate::proto::channel::Channel;
use crate::proto::channel::exploring::Timer;
use crate::proto::config::{CallConfig, EndpointConfig};
use crate::proto::{CALL_BYTES_MIN, Role};
use crate::testkit::InlineEndpoint;
use crate::wire::ChannelIndex;

/// Payload of the largest packet, as docs/limits.md counts windows.
const PACKET_BYTES: usize = 1444;
/// Packets of one datagram: what comes with it was taken before the sum was known.
const JUMBO_PACKETS_MAX: usize = 6;

impl Cores {
    /// What can be seen inside of a core only: memory, and that whoever waits has a time at which it acts.
    pub(super) fn check_cores(&mut self) {
        for index in self.plan.hosts() {
            let Some(host) = &mut self.hosts[index] else { continue };
            if let Some(sabotage) = self.plan.sabotage {
                commit(sabotage, host);
            }
            let fault = fault_of(&host.endpoint, &self.plan.config);
            if let Some(fault) = fault {
                let text = format!("{}: {fault}", self.plan.address(index));
                self.world.with_referee(|referee| referee.blame(|| text));
            }
        }
    }
}

fn commit(sabotage: Sabotage, host: &mut Host) {
    match sabotage {
        Sabotage::RetransmissionForgotten => {
            host.endpoint.channels_mut().for_each(Channel::forget_retransmission);
        }
        Sabotage::DeadlinesForgotten => host.endpoint.forget_deadlines(),
        Sabotage::ResentDataDiffers | Sabotage::LimitsIgnored => {}
    }
}

/// What an endpoint is given that ignores the limits of its plan.
pub(super) fn without_limits(config: &EndpointConfig) -> EndpointConfig {
    let mut config = config.clone();
    config.buffered_max_bytes = usize::MAX / 4;
    for connection in [&mut config.client, &mut config.server] {
        connection.buffered_max_bytes = usize::MAX / 4;
        connection.call.receive_window_max_packets = 255;
        connection.call.receive_window_initial_packets = 255;
    }
    config
}

fn fault_of(endpoint: &InlineEndpoint, config: &EndpointConfig) -> Option<String> {
    let deadline = endpoint.next_deadline();
    let (mut all, mut count) = (0, 0);
    for route in endpoint.routes() {
        let role = endpoint.router().role_of(route)?;
        let of_role = match role {
            Role::Client => &config.client,
            Role::Server => &config.server,
        };
        let mut of_connection = 0;
        for channel in ChannelIndex::ALL.iter().filter_map(|at| endpoint.channel(route, *at)) {
            let fault = |text: &str| {
                Some(format!("call {}: {:?} {text}", channel.call_number(), channel.state()))
            };
            let bytes = channel.buffered_bytes();
            of_connection += bytes;
            if bytes > call_bytes_max(&of_role.call) {
                return fault(&format!("buffers {bytes} bytes"));
            }
            if channel.in_flight_packets() > 0 && channel.timer(Timer::Retransmit).is_none() {
                return fault("has packets in flight and no timer for them");
            }
            if let Some(at) = channel.next_deadline()
                && deadline.is_none_or(|deadline| deadline > at)
            {
                return fault("has a timer that the endpoint does not know");
            }
        }
        if of_connection > sum_bytes_max(of_role.buffered_max_bytes, ChannelIndex::COUNT) {
            return Some(format!("a connection buffers {of_connection} bytes"));
        }
        all += of_connection;
        count += ChannelIndex::COUNT;
    }
    (all > sum_bytes_max(config.buffered_max_bytes, count))
        .then(|| format!("{all} bytes buffered in all"))
}

/// Twice a window full of packets (docs/limits.md, `receive_buffer_max_bytes`).
fn call_bytes_max(call: &CallConfig) -> usize {
    let tuned = call.receive_buffer_max_bytes / PACKET_BYTES;
    let most = (call.receive_window_max_packets as usize).min(tuned.max(255));
    2 * most.max(call.receive_window_initial_packets as usize) * PACKET_BYTES
}

/// Twice the limit, of which channels have told all but a third at the least (docs/architecture.md, "Bytes,
/// added up"), what each of them may hold in any case and may not have told yet, and one datagram.
fn sum_bytes_max(limit: usize, channels: usize) -> usize {
    limit.saturating_mul(3) + 2 * CALL_BYTES_MIN * channels + JUMBO_PACKETS_MAX * PACKET_BYTES
}
