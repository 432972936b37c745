//! What can be checked of bare cores and of nothing else.

use super::core::Cores;
use crate::proto::CallState;
use crate::wire::ChannelIndex;

impl Cores {
    /// What can be seen inside of a core only: memory, and that whoever waits has a time at which it acts.
    pub(super) fn check_cores(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(host) = host else { continue };
            let config = &self.plan.config;
            for route in host.endpoint.routes() {
                for channel in ChannelIndex::ALL {
                    let Some(channel) = host.endpoint.channel(route, channel) else { continue };
                    let waits_for_application = matches!(
                        channel.state(),
                        None | Some(
                            CallState::ClientReserved
                                | CallState::ClientDone
                                | CallState::ServerDying
                        )
                    );
                    let call = &config.server.call;
                    // What the window allows, what the application may be ahead with, and a request in one.
                    let bound = call.receive_buffer_max_bytes
                        + 4 * 1412 * call.send_window_max_packets as usize
                        + 400_000;
                    let text = if channel.buffered_bytes() > bound {
                        format!("{} bytes buffered", channel.buffered_bytes())
                    } else if !waits_for_application && channel.next_deadline().is_none() {
                        format!("{:?} without a timer", channel.state())
                    } else {
                        continue;
                    };
                    let at = self.plan.address(index);
                    let text = format!("{at}: call {}: {text}", channel.call_number());
                    self.world.with_referee(|referee| referee.blame(|| text));
                }
            }
        }
    }
}
