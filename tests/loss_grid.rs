//! Bulk transfer over links with loss, delay and a limited rate: the bare core in virtual time, so that each
//! figure is the same on every machine.
//!
//!     cargo test --release --test loss_grid -- --nocapture

#[path = "support/bottleneck.rs"]
mod bottleneck;

use std::time::Duration;

use bottleneck::{Bottleneck, Path};
use rxrpc::proto::config::{CongestionControl, EndpointConfig};
use rxrpc::wire::DATA_PAYLOAD_MAX;

const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.05];
const ROUND_TRIPS: [Duration; 3] =
    [Duration::from_micros(100), Duration::from_millis(10), Duration::from_millis(100)];
/// The least goodput of each cell in MB/s, of a gigabit: well below what comes out.
const LEAST: [[f64; 4]; 3] =
    [[110.0, 110.0, 100.0, 60.0], [75.0, 35.0, 22.0, 9.0], [16.0, 6.0, 2.8, 1.7]];

/// Goodput in MB/s of one call, the median of some seeds.
fn goodput(
    control: CongestionControl,
    rtt: Duration,
    loss: f64,
    packets: u64,
    is_send: bool,
    seeds: u64,
) -> f64 {
    let bytes = packets * DATA_PAYLOAD_MAX as u64;
    let mut rates: Vec<f64> = (1..=seeds)
        .map(|seed| {
            let path = Path { rtt, loss, seed, ..Path::default() };
            let adjust = |config: &mut EndpointConfig| {
                for call in [&mut config.client.call, &mut config.server.call] {
                    call.congestion_control = control;
                    // 100 ms want more than the default.
                    call.receive_window_max_packets = 4096;
                }
            };
            let mut world = Bottleneck::with_server(path, adjust);
            let client = world.client(adjust);
            let call = world.start(client, bytes, is_send);
            let time = world.finish(Duration::from_secs(1000));
            assert!(world.is_good(call));
            bytes as f64 / 1e6 / time.as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[test]
#[cfg_attr(debug_assertions, ignore = "half a million packets: with --release")]
fn bulk_goodput_over_loss_and_delay() {
    for is_send in [false, true] {
        println!("{} MB/s at a loss of {LOSSES:?}", if is_send { "send" } else { "recv" });
        for (rtt, least) in ROUND_TRIPS.into_iter().zip(LEAST) {
            let cells = LOSSES.map(|loss| {
                let packets = if loss > 0.0 { 20_000 } else { 40_000 };
                goodput(CongestionControl::default(), rtt, loss, packets, is_send, 3)
            });
            let text = cells.map(|cell| format!("{cell:8.2}")).join(" ");
            println!("{:>6} ms {text}", rtt.as_secs_f64() * 1e3);
            assert!(cells.iter().zip(least).all(|(cell, least)| *cell >= least), "{least:?}");
        }
    }
}

#[test]
fn every_control_gets_through() {
    use CongestionControl::{Cubic, NewReno, Westwood};
    for control in [NewReno, Cubic, Westwood] {
        for rtt in ROUND_TRIPS {
            let cells = LOSSES.map(|loss| goodput(control, rtt, loss, 2000, true, 1));
            println!("{control:?} {rtt:?} {cells:.2?}");
            // A retransmission timer for each of the losses would be 0.08 at 1 % of them, 0.01 at 5 %.
            assert!(cells[2] > 0.1 && cells[3] > 0.04, "{control:?} {rtt:?} {cells:?}");
        }
    }
}

/// The first flow's share of 10 MB/s beside another, of this and that control.
fn share(ours: CongestionControl, theirs: CongestionControl, queue_bytes_max: u64) -> f64 {
    let rtt = Duration::from_millis(20);
    let path = Path { rtt, rate: 10_000_000, queue_bytes_max, ..Path::default() };
    let mut world = Bottleneck::new(path);
    let calls = [ours, theirs].map(|control| {
        let client = world.client(|config| config.client.call.congestion_control = control);
        world.start(client, 1 << 30, true)
    });
    world.pass(Duration::from_secs(10));
    let before = calls.map(|call| world.arrived(call));
    world.pass(Duration::from_secs(10));
    let traffic = world.traffic()[0];
    let lost = traffic.overflowed as f64 / traffic.datagrams as f64;
    let [a, b] = calls.map(|call| world.arrived(call));
    let sum = (a - before[0] + b - before[1]) as f64;
    let share = (a - before[0]) as f64 / sum;
    println!("{ours:?} beside {theirs:?}, queue {queue_bytes_max}: {share:.2}, lost {lost:.4}");
    assert!(lost < 0.01, "{ours:?} with {theirs:?}: {lost} lost");
    assert!(sum > 80_000_000.0, "{ours:?} with {theirs:?}: {sum} in 10 s");
    share
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a million packets: with --release")]
fn flows_leave_each_other_room() {
    use CongestionControl::{Cubic, NewReno, Westwood};
    // A fifth of what the path holds, a whole one, four.
    for queue in [46_080, 200_000, 800_000] {
        for (ours, theirs) in [
            (NewReno, NewReno),
            (Cubic, Cubic),
            (Westwood, Westwood),
            (Westwood, Cubic),
            (Westwood, NewReno),
        ] {
            let share = share(ours, theirs, queue);
            assert!((0.15..0.85).contains(&share), "{ours:?} with {theirs:?}: {share}");
        }
    }
}
