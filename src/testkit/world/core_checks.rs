//! What can be checked of bare cores and of nothing else: memory within its limits, and timers.

use super::core::{Cores, Host};
use super::plan::{Plan, Sabotage};
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
/// Packets that a writer may have waiting, however small the windows are.
const QUEUE_PACKETS_MIN: u32 = 64;
/// What a call holds is told when it has grown by half of what was told, but within these.
const TOLD_STEPS: (usize, usize) = (CALL_BYTES_MIN, 64 * 1024);

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
        Sabotage::ResentDataDiffers | Sabotage::LimitsIgnored | Sabotage::NothingForgotten => {}
    }
}

/// The settings of an endpoint, which need not be those of its plan.
pub(super) fn settings_of(plan: &Plan) -> EndpointConfig {
    let mut config = plan.config.clone();
    match plan.sabotage {
        Some(Sabotage::LimitsIgnored) => ignore_limits(&mut config),
        Some(Sabotage::NothingForgotten) => config.server.server_idle *= 100,
        _ => {}
    }
    config
}

fn ignore_limits(config: &mut EndpointConfig) {
    config.buffered_max_bytes = usize::MAX / 4;
    config.unproved_buffered_max_bytes = usize::MAX / 4;
    config.amplification_max = None;
    for connection in [&mut config.client, &mut config.server] {
        connection.buffered_max_bytes = usize::MAX / 4;
        connection.call.receive_window_max_packets = 255;
        connection.call.receive_window_initial_packets = 255;
        connection.call.send_window_max_packets = 255;
    }
}

fn fault_of(endpoint: &InlineEndpoint, config: &EndpointConfig) -> Option<String> {
    let deadline = endpoint.next_deadline();
    let (mut all, mut count) = (0, 0);
    // What is held, and how much of it need not have been told.
    let (mut held, mut untold, mut unproved, mut unproved_untold) = (0, 0, 0, 0);
    for route in endpoint.routes() {
        let role = endpoint.router().role_of(route)?;
        let of_role = match role {
            Role::Client => &config.client,
            Role::Server => &config.server,
        };
        // A proof may lapse, and what was let in before stays.
        let has_never_proved = endpoint.router().hint(route).proved_until.is_none();
        let is_unproved = role == Role::Server && has_never_proved;
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
            let written = channel.written_bytes();
            if written > written_bytes_max(&of_role.call) {
                return fault(&format!("holds {written} bytes that its application wrote"));
            }
            let step = (channel.told_bytes() / 2).clamp(TOLD_STEPS.0, TOLD_STEPS.1);
            held += channel.held_bytes();
            untold += step;
            if is_unproved {
                unproved += bytes;
                unproved_untold += step;
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
    if all > sum_bytes_max(config.buffered_max_bytes, count) {
        return Some(format!("{all} bytes buffered in all"));
    }
    let told = endpoint.router().buffered_bytes();
    if held > told + untold {
        return Some(format!("{held} bytes held, of which the endpoint knows {told}"));
    }
    let unproved_max = config.unproved_buffered_max_bytes + JUMBO_PACKETS_MAX * PACKET_BYTES;
    (unproved > unproved_max + unproved_untold).then(|| {
        format!("{unproved} bytes buffered for peers that have not proved their addresses")
    })
}

/// Credit (docs/limits.md): twice what may be in flight.
fn written_bytes_max(call: &CallConfig) -> usize {
    QUEUE_PACKETS_MIN.max(2 * call.send_window_max_packets) as usize * PACKET_BYTES
}

/// Twice a window full of packets (docs/limits.md, `receive_buffer_max_bytes`), or one that is larger.
pub(super) fn call_bytes_max(call: &CallConfig) -> usize {
    let tuned = call.receive_buffer_max_bytes / PACKET_BYTES;
    let most = (call.receive_window_max_packets as usize).min(tuned.max(255));
    let window = 2 * most.max(call.receive_window_initial_packets as usize) * PACKET_BYTES;
    window.max(call.datagram_max_bytes as usize)
}

/// Twice the limit, of which channels have told all but a third at the least (docs/architecture.md, "Bytes,
/// added up"), what each of them may hold in any case and may not have told yet, and one datagram.
pub(super) fn sum_bytes_max(limit: usize, channels: usize) -> usize {
    limit.saturating_mul(3) + 2 * CALL_BYTES_MIN * channels + JUMBO_PACKETS_MAX * PACKET_BYTES
}
