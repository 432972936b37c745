//! DATA packets above the usual size (rx-flow.md 9.3).

use std::time::Duration;

use rxrpc::proto::DropReason;
use rxrpc::proto::config::EndpointConfig;
use rxrpc::wire::AckReason;

use crate::world::{SERVER, World};

const HOUR: Duration = Duration::from_secs(3600);

/// Connections that outlive hours without calls.
fn lasting(config: &mut EndpointConfig) {
    config.client.client_idle = 10 * HOUR;
    config.server.server_idle = 10 * HOUR;
}

impl World {
    fn largest_data(&self) -> usize {
        self.data_sizes.iter().copied().max().unwrap_or(0)
    }

    fn forget(&mut self) {
        self.data_sizes.clear();
        self.probed.clear();
        self.passed.clear();
    }
}

#[test]
fn a_long_call_finds_the_larger_size_with_two_pings_and_the_next_one_knows_it() {
    let mut world = World::new(65_000, false, |_| {});
    world.call(3_000_000);
    assert_eq!((&world.probed[..], world.largest_data()), (&[2856, 8124][..], 8124));
    let large = world.data_sizes.iter().filter(|size| **size == 8124).count();
    assert!(large > 280, "{large} of 370");
    world.forget();
    world.call(3_000_000);
    assert_eq!((world.probed.len(), world.largest_data()), (0, 8124));
    // Until the peer has said in this call what it takes.
    let usual = world.data_sizes.iter().take_while(|size| **size == 1440).count();
    assert!((1..=64).contains(&usual), "{usual}");
    assert_eq!(world.data_sizes.len(), usual + (3_000_000 - usual * 1412).div_ceil(8096));
    assert_eq!(world.ends[0].counters().resent, 0);
}

#[test]
fn calls_that_are_soon_over_send_no_padded_pings() {
    let mut world = World::new(65_000, false, |_| {});
    for _ in 0..50 {
        world.call(180_000);
    }
    assert_eq!((world.probed.len(), world.largest_data()), (0, 1440));
}

#[test]
fn an_ethernet_costs_two_pings_an_hour_in_silence_and_one_if_it_says_so() {
    for (reports, pings) in [(false, 2), (true, 1)] {
        let mut world = World::new(1472, reports, lasting);
        for _ in 0..3 {
            for _ in 0..10 {
                world.call(3_000_000);
                world.pass(Duration::from_secs(60));
            }
            assert_eq!(world.probed, vec![2856; pings], "reported: {reports}");
            assert_eq!((world.largest_data(), world.datagram_max()), (1440, 1440));
            world.forget();
            world.pass(HOUR - Duration::from_secs(400));
        }
        let counters = world.ends[0].counters();
        assert_eq!((counters.resent, world.too_big), (0, 3 * pings), "only PINGs are lost");
    }
}

#[test]
fn what_lies_between_is_found_by_halves() {
    // The padded PINGs of 2856 and of all that is wanted, then those between.
    for (mtu, best, pings) in
        [(8972, 8124, 2), (4324, 4060, 6), (7000, 5692, 6), (3000, 2856, 8), (1500, 1440, 2)]
    {
        let mut world = World::new(mtu, false, |config| {
            // Calls that last long enough for probes to get lost.
            config.server.call.receive_window_max_packets = 32;
        });
        for _ in 0..6 {
            world.call(3_000_000);
        }
        let best = (best, if best == 1440 { 1440 } else { best as u16 });
        assert_eq!((world.largest_data(), world.datagram_max()), best, "{mtu}");
        assert!(world.probed.len() <= pings, "{mtu}: {:?}", world.probed);
        assert_eq!(world.ends[0].counters().resent, 0, "{mtu}: only PINGs are lost");
    }
}

#[test]
fn the_proof_is_renewed_every_hour_and_a_path_that_has_shrunk_meanwhile_is_noticed_by_it() {
    let mut world = World::new(65_000, false, lasting);
    world.call(3_000_000);
    world.forget();
    world.pass(HOUR - Duration::from_secs(60));
    world.call(3_000_000);
    assert_eq!((world.probed.len(), world.largest_data()), (0, 8124));
    world.pass(Duration::from_secs(120));
    world.forget();
    world.call(3_000_000);
    assert_eq!((&world.probed[..], world.largest_data()), (&[8124][..], 8124));
    world.pass(HOUR + Duration::from_secs(60));
    world.forget();
    world.mtu = 1472;
    for _ in 0..4 {
        world.call(3_000_000);
    }
    assert_eq!((world.largest_data(), world.datagram_max()), (1440, 1440));
    assert_eq!(world.ends[0].counters().resent, 0, "no DATA was too large");
}

#[test]
fn a_path_that_takes_less_in_mid_call_loses_no_call_and_is_not_tried_again_at_once() {
    for reports in [true, false] {
        let mut world = World::new(9000, reports, lasting);
        world.call(3_000_000);
        let mut left = 12;
        let took = world.call_with(6_000_000, |world| {
            left -= 1;
            if left == 0 {
                assert_eq!(world.largest_data(), 8124);
                world.mtu = 1472;
            }
        });
        assert!(took < Duration::from_secs(10), "{took:?}");
        for _ in 0..3 {
            world.call(1_000_000);
        }
        let expected = if reports { 1472 } else { 1440 };
        assert_eq!(world.datagram_max(), expected, "reported: {reports}");
        let lost = world.too_big;
        world.forget();
        for _ in 0..10 {
            world.call(3_000_000);
            world.pass(Duration::from_secs(60));
        }
        assert_eq!((world.too_big, world.largest_data()), (lost, 1440), "reported: {reports}");
        // And again after an hour.
        world.mtu = 9000;
        world.pass(HOUR);
        world.call(3_000_000);
        world.call(3_000_000);
        assert_eq!(world.largest_data(), 8124, "reported: {reports}");
    }
}

#[test]
fn losses_of_any_packets_make_no_datagram_smaller() {
    for every in [7, 50, 300] {
        let mut world = World::new(65_000, false, |_| {});
        world.call(3_000_000);
        world.lost_every = every;
        world.call(6_000_000);
        assert_eq!((world.datagram_max(), world.too_big), (8124, 0), "one in {every}");
        world.forget();
        world.call(3_000_000);
        assert_eq!(world.largest_data(), 8124, "one in {every}");
    }
}

/// What OpenAFS says that takes jumbograms: 5692 bytes, and 32 packets.
#[test]
fn a_peer_gets_no_more_than_it_says_and_no_more_bytes_than_its_window_means() {
    let mut world = World::new(65_000, false, |config| {
        config.server.call.datagram_max_bytes = 1440;
        config.server.call.jumbo_receive_packets = 4;
        config.server.call.receive_window_max_packets = 32;
    });
    for _ in 0..3 {
        world.call(3_000_000);
    }
    assert_eq!((&world.probed[..], world.largest_data()), (&[2856, 5692][..], 5692));
    assert_eq!(world.ends[1].counters().dropped_for(DropReason::NoBuffer), 0);
    // 32 packets of the usual size are 8 of these: half of them unread, at the most, when the others come.
    assert!(world.held_max <= 48 * 1444, "{}", world.held_max);
}

#[test]
fn a_peer_that_takes_no_more_than_the_usual_is_asked_once() {
    let mut world = World::new(65_000, false, |config| {
        config.server.call.datagram_max_bytes = 1440;
    });
    for _ in 0..10 {
        world.call(3_000_000);
    }
    assert_eq!((&world.probed[..], world.largest_data()), (&[2856][..], 1440));
}

#[test]
fn a_slow_reader_holds_no_more_bytes_of_large_packets_than_of_others() {
    for datagram_max in [1440, 8124, 65_000] {
        let mut world = World::new(65_000, false, |config| {
            config.client.call.datagram_max_bytes = datagram_max;
            config.server.call.datagram_max_bytes = datagram_max;
        });
        world.call(3_000_000);
        world.held_max = 0;
        world.reads_max = 1_000_000;
        let mut ms = 0;
        world.call_with(6_000_000, |world| {
            ms += 1;
            if ms == 5000 {
                // Twice a window of as many full packets of the usual size as windows may have.
                let most = 2 * 1024 * 1444;
                assert!(world.held_max <= most, "{datagram_max}: {}", world.held_max);
                world.read();
            }
        });
        let dropped = world.ends[1].counters().dropped_for(DropReason::NoBuffer);
        assert_eq!(dropped, 0, "{datagram_max}: nothing comes that was not allowed");
        assert_eq!(world.largest_data(), datagram_max as usize);
        assert!(ms < 8000, "{datagram_max}: it goes on at once");
    }
}

#[test]
fn an_answer_with_another_serial_proves_nothing() {
    let mut world = World::new(1472, false, |_| {});
    let mut forged = 0;
    world.call_with(3_000_000, |world| {
        if world.probed.is_empty() {
            return;
        }
        for serial in (0..3000).filter(|serial| !world.probe_serials.contains(serial)) {
            let mut answer = world.last_ack.clone();
            answer[28 + 12..28 + 16].copy_from_slice(&serial.to_be_bytes());
            answer[28 + 16] = AckReason::PingResponse.byte();
            let now = world.now;
            world.ends[0].receive(now, SERVER.into(), &answer);
            forged += 1;
        }
    });
    assert!(forged > 10_000, "{forged}");
    assert_eq!((world.largest_data(), world.datagram_max()), (1440, 1440));
}

#[test]
fn sizes_that_nobody_can_mean_are_harmless() {
    for (said, largest) in
        [(0, 520), (519, 520), (1439, 1439), (65_535, 8124), (u32::MAX, 8124), (2857, 2857)]
    {
        let mut world = World::new(65_000, false, |_| {});
        world.said = Some(said);
        world.call(3_000_000);
        world.forget();
        world.call(1_000_000);
        assert_eq!(world.largest_data(), largest, "{said}");
    }
}
