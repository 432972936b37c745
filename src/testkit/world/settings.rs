//! How a plan's endpoints are set, drawn from the seed: each group of settings from streams of its own.

use std::num::NonZeroUsize;

use super::plan::ms;
use super::random::{Seed, Stream};
use crate::proto::config::{CallConfig, CongestionControl, EndpointConfig};
use crate::testkit::{ChoiceOptions, Unlikely};
use crate::wire::AbortCode;

/// What calls are aborted with that find too many waiting.
const OVERLOADED: AbortCode = AbortCode(4712);

/// Settings, and how many calls of a service run at once.
pub(super) fn drawn(seed: u64) -> (EndpointConfig, Option<NonZeroUsize>) {
    let of = |name: &str| Seed(seed).stream(name);
    let mut config = drawn_config(&mut of("plan config"));
    draw_memory(&mut of("plan memory"), &mut config);
    if of("plan unproved").chance(0.15) {
        config.unproved_buffered_max_bytes = of("plan unproved").pick(&[8192, 30_000]) as usize;
    }
    let running_calls_max = draw_running(&mut of("plan running"), &mut config);
    let mut choices = drawn_choices(seed, &mut of("plan choices"));
    if !config.server.call.keepalive {
        // Who only waits is not told again what was lost (see `CallConfig::keepalive`).
        choices.one_in[Unlikely::LoseSend as usize] = 0;
    }
    config.client.call.choices = choices;
    config.server.call.choices = choices;
    (config, running_calls_max)
}

/// Settings that came to be drawn later: each kind from a stream of its own.
pub(super) fn draw_more(seed: u64, config: &mut EndpointConfig) {
    let of = |name: &str| Seed(seed).stream(name);
    draw_sizes(&mut of("plan sizes"), config);
    if config.queued_calls_max == EndpointConfig::default().queued_calls_max {
        // Where calls wait for others, those that come when all is well must not wait longer.
        draw_ends(&mut of("plan ends"), config);
    }
    draw_rates(&mut of("plan rates"), config);
    draw_handshakes(&mut of("plan handshakes"), config);
    draw_endpoint(&mut of("plan endpoint"), config);
}

fn of_calls(config: &mut EndpointConfig, change: impl Fn(&mut CallConfig)) {
    change(&mut config.client.call);
    change(&mut config.server.call);
}

/// How much leaves at once, and how large it is.
fn draw_sizes(stream: &mut Stream, config: &mut EndpointConfig) {
    if stream.chance(0.3) {
        let size = stream.pick(&[1440, 1441, 2856, 16_248, 65_000]) as u32;
        of_calls(config, |call| call.datagram_max_bytes = size);
    }
    if stream.chance(0.25) {
        let packets = stream.pick(&[2, 4, 6]) as u32;
        of_calls(config, |call| call.jumbo_send_packets = packets);
    }
    if stream.chance(0.4) {
        let control = stream.pick(&[CongestionControl::NewReno, CongestionControl::Cubic]);
        of_calls(config, |call| call.congestion_control = control);
    }
}

/// When calls end that nobody ends. Not sooner than by default: a retransmission may wait for a timer that a clogged link
/// has made long, and a clogged link may still have copies of a call that its server has forgotten.
fn draw_ends(stream: &mut Stream, config: &mut EndpointConfig) {
    if stream.chance(0.2) {
        let dead = stream.pick(&[25_000, 40_000]);
        of_calls(config, |call| call.dead_timeout = ms(dead));
    }
    let dead = config.server.call.dead_timeout;
    if stream.chance(0.2) {
        let idle = stream.pick(&[None, Some(dead), Some(dead + ms(20_000))]);
        config.server.call.idle_timeout = idle;
    }
    if stream.chance(0.1) {
        config.client.call.idle_timeout = Some(dead + ms(stream.pick(&[0, 20_000])));
    }
    if stream.chance(0.15) {
        let longer = ms(stream.pick(&[60_000, 100_000]));
        of_calls(config, |call| {
            call.hard_timeout = Some(call.idle_timeout.unwrap_or(call.dead_timeout) + longer);
        });
    }
}

/// How often something is said.
fn draw_rates(stream: &mut Stream, config: &mut EndpointConfig) {
    if stream.chance(0.2) {
        let (burst, interval) = (stream.pick(&[0, 1, 10]) as u32, ms(stream.pick(&[0, 100, 3000])));
        of_calls(config, |call| (call.abort_burst, call.abort_interval) = (burst, interval));
    }
    if stream.chance(0.2) {
        config.answers_per_peer_per_second = stream.pick(&[0, 1, 10]) as u32;
        config.answers_per_second = stream.pick(&[0, 1, 100]) as u32;
    }
    if stream.chance(0.2) {
        config.reach_pings_per_peer_per_second = stream.pick(&[1, 2]) as u32;
        config.reach_pings_per_second = stream.pick(&[2, 10]) as u32;
    }
}

/// How connections are secured, and how long they are remembered.
fn draw_handshakes(stream: &mut Stream, config: &mut EndpointConfig) {
    for connection in [&mut config.client, &mut config.server] {
        if stream.chance(0.2) {
            connection.challenge_interval = ms(stream.pick(&[50, 500, 5000]));
            connection.challenge_max = stream.pick(&[5, 30]) as u32;
        }
        if stream.chance(0.2) {
            connection.refusal_delay = ms(stream.pick(&[0, 100]));
        }
        // Not shorter: copies come for 8 s (see `HostileKind::Repeat`).
        if stream.chance(0.2) {
            connection.aborted_linger = ms(stream.pick(&[10_001, 60_000]));
        }
        if stream.chance(0.2) {
            connection.unserved_idle = ms(stream.pick(&[1000, 10_000, 100_000]));
        }
        if stream.chance(0.2) {
            connection.waiting_calls_max = stream.pick(&[1, 2, 10]) as usize;
        }
    }
}

/// What endpoints say without being asked, or when anybody asks; and how much they take in at a time.
fn draw_endpoint(stream: &mut Stream, config: &mut EndpointConfig) {
    config.ask_version = stream.chance(0.2);
    config.debug_responder = stream.chance(0.2);
    if stream.chance(0.2) {
        config.nat_ping = Some(ms(stream.pick(&[5000, 20_000])));
    }
    if stream.chance(0.2) {
        config.receives_per_turn = stream.pick(&[1, 2, 64]) as u32;
    }
    if stream.chance(0.2) {
        config.datagrams_per_turn = stream.pick(&[1, 16, 1_000_000]) as u32;
    }
}

/// Each setting stays as it is more often than not, so that a seed differs in few of them.
fn drawn_config(stream: &mut Stream) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    let mut call = CallConfig::server();
    if stream.chance(0.3) {
        call.receive_window_max_packets = stream.pick(&[1, 2, 8, 32, 64, 255]) as u32;
    }
    call.receive_window_initial_packets =
        stream.pick(&[1, 16, 32, 32]).min(call.receive_window_max_packets);
    if stream.chance(0.3) {
        call.send_window_max_packets = stream.pick(&[1, 2, 8, 32]);
    }
    call.send_window_initial_packets =
        call.send_window_initial_packets.min(call.send_window_max_packets);
    if stream.chance(0.2) {
        call.send_window_initial_packets = 1;
    }
    if stream.chance(0.3) {
        call.congestion_window_initial_packets = stream.pick(&[1, 2, 10, 255]);
    }
    if stream.chance(0.2) {
        call.receive_buffer_max_bytes = stream.pick(&[1412, 3000, 20_000]);
    }
    if stream.chance(0.3) {
        call.jumbo_receive_packets = stream.pick(&[2, 4, 6]);
    }
    if stream.chance(0.3) {
        call.delayed_ack = ms(stream.pick(&[0, 1, 20, 400]));
    }
    if stream.chance(0.3) {
        call.final_ack_delay = ms(stream.pick(&[0, 1, 100, 1000]));
    }
    if stream.chance(0.3) {
        call.rto_initial = ms(stream.pick(&[50, 350, 3000]));
        call.rto_min = ms(stream.pick(&[20, 200, 350])).min(call.rto_initial);
    }
    if stream.chance(0.3) {
        call.rto_max = ms(stream.pick(&[3000, 8000]));
    }
    call.keepalive = stream.chance(0.8);
    if stream.chance(0.2) {
        call.reach_ttl = ms(stream.pick(&[0, 100, 5000]));
    }
    if stream.chance(0.2) {
        call.reach_ping_interval = ms(stream.pick(&[100, 500]));
    }
    if stream.chance(0.2) {
        config.amplification_max = None;
    }
    if stream.chance(0.2) {
        config.peer_linger = ms(stream.pick(&[10, 2000]));
    }
    config.strict_address = stream.chance(0.5);
    call.takeover = stream.chance(0.85);
    config.client.call = CallConfig { idle_timeout: None, ..call.clone() };
    config.server.call = call;
    if stream.chance(0.2) {
        config.client.client_idle = ms(stream.pick(&[50, 3000]));
    }
    if stream.chance(0.2) {
        config.server.server_idle = ms(stream.pick(&[50_000, 100_000]));
    }
    config
}

/// In a third of the seeds room for payload is short.
fn draw_memory(stream: &mut Stream, config: &mut EndpointConfig) {
    if stream.chance(0.33) {
        config.buffered_max_bytes = stream.pick(&[8192, 30_000, 1 << 30]) as usize;
        config.server.buffered_max_bytes = stream.pick(&[8192, 30_000, 16 << 20]) as usize;
        config.client.buffered_max_bytes = stream.pick(&[8192, 30_000, 16 << 20]) as usize;
    }
}

/// In a sixth of the seeds services run few calls at once. As many may wait as come when all is well again.
fn draw_running(stream: &mut Stream, config: &mut EndpointConfig) -> Option<NonZeroUsize> {
    let is_limited = stream.chance(0.17);
    let (running_max, queued_max) = (stream.pick(&[1, 1, 2, 4]), stream.pick(&[2, 3, 1024]));
    if !is_limited {
        return None;
    }
    config.queued_calls_max = Some(queued_max as usize);
    config.overload_code = OVERLOADED;
    NonZeroUsize::new(running_max as usize)
}

/// In half of the seeds none; else each with a chance of its own.
fn drawn_choices(seed: u64, stream: &mut Stream) -> ChoiceOptions {
    let mut choices = ChoiceOptions { seed, ..ChoiceOptions::default() };
    if stream.chance(0.5) {
        for one_in in &mut choices.one_in {
            *one_in = stream.pick(&[0, 0, 2, 8, 50]) as u32;
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::proto::config::ConnectionConfig;
    use crate::testkit::world::Plan;

    /// Settings that are the same in all plans, and why.
    const NOT_DRAWN: [(&str, &str); 11] = [
        ("receive_moderation", "only sockets can rest"),
        ("version_text", "a text"),
        ("connections_max", "what it refuses need not be good: tests/limits"),
        ("connections_per_peer_max", "the same"),
        (
            "unproved_connections_max",
            "who is closed for it may have a call run again: tests/limits",
        ),
        ("egress_max_bytes", "simulated sockets always have room: tests/mock_network"),
        ("strays_max_bytes", "endpoints of plans have one shard: tests/shards"),
        ("debug_answers_per_peer_per_second", "nobody asks often: tests/limits"),
        ("debug_answers_per_second", "the same"),
        ("debug_answers_per_peer_burst", "the same"),
        ("debug_answers_burst", "the same"),
    ];

    /// Name and value of each field; a new one does not compile before it is named here, and drawn or not drawn.
    macro_rules! fields {
        ($of:expr, $kind:ident, $prefix:literal, [$($field:ident),*], [$($within:ident),*]) => {{
            let $kind { $($field,)* $($within: _,)* } = $of;
            vec![$((concat!($prefix, stringify!($field)), format!("{:?}", $field))),*]
        }};
    }

    fn fields_of_calls(call: &CallConfig) -> Vec<(&'static str, String)> {
        fields!(
            call,
            CallConfig,
            "",
            [
                receive_window_initial_packets,
                receive_window_max_packets,
                send_window_max_packets,
                send_window_initial_packets,
                congestion_window_initial_packets,
                congestion_control,
                receive_buffer_max_bytes,
                jumbo_receive_packets,
                jumbo_send_packets,
                datagram_max_bytes,
                delayed_ack,
                final_ack_delay,
                rto_initial,
                rto_min,
                rto_max,
                dead_timeout,
                keepalive,
                idle_timeout,
                hard_timeout,
                takeover,
                reach_ttl,
                reach_ping_interval,
                abort_burst,
                abort_interval,
                choices
            ],
            []
        )
    }

    fn fields_of_connections(connection: &ConnectionConfig) -> Vec<(&'static str, String)> {
        fields!(
            connection,
            ConnectionConfig,
            "",
            [
                client_idle,
                server_idle,
                unserved_idle,
                aborted_linger,
                challenge_interval,
                challenge_max,
                refusal_delay,
                buffered_max_bytes,
                waiting_calls_max
            ],
            [call]
        )
    }

    fn fields_of_endpoints(config: &EndpointConfig) -> Vec<(&'static str, String)> {
        fields!(
            config,
            EndpointConfig,
            "endpoint: ",
            [
                strict_address,
                debug_responder,
                version_text,
                ask_version,
                connections_max,
                connections_per_peer_max,
                unproved_connections_max,
                buffered_max_bytes,
                unproved_buffered_max_bytes,
                amplification_max,
                peer_linger,
                nat_ping,
                answers_per_peer_per_second,
                answers_per_second,
                reach_pings_per_peer_per_second,
                reach_pings_per_second,
                receives_per_turn,
                datagrams_per_turn,
                receive_moderation,
                egress_max_bytes,
                strays_max_bytes,
                debug_answers_per_peer_per_second,
                debug_answers_per_second,
                debug_answers_per_peer_burst,
                debug_answers_burst,
                queued_calls_max,
                overload_code
            ],
            [server, client]
        )
    }

    #[test]
    fn every_setting_is_drawn_or_it_is_said_why_not_and_all_are_valid() {
        let mut seen = BTreeMap::<&str, BTreeSet<String>>::new();
        for seed in 0..3000 {
            let config = Plan::drawn(seed).config;
            assert_eq!(config.validate(), Ok(()), "seed {seed}");
            for connection in [&config.client, &config.server] {
                for (field, value) in fields_of_calls(&connection.call)
                    .into_iter()
                    .chain(fields_of_connections(connection))
                {
                    seen.entry(field).or_default().insert(value);
                }
            }
            for (field, value) in fields_of_endpoints(&config) {
                seen.entry(field).or_default().insert(value);
            }
        }
        for (field, values) in seen {
            let name = field.trim_start_matches("endpoint: ");
            let is_drawn = values.len() > 1;
            let is_said = field != name && NOT_DRAWN.iter().any(|(other, _)| *other == name);
            assert!(is_drawn != is_said, "{field}: {} values", values.len());
        }
    }
}
