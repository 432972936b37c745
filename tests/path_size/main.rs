//! Sizes of datagrams between two endpoints of the bare core, over links that take no more than so much
//! (rx-flow.md 9.3): reported or in silence, from the beginning or from some time on.

mod larger;
mod world;

use std::collections::HashSet;
use std::time::Duration;

use rxrpc::proto::config::EndpointConfig;

use world::World;

/// Jumbograms of up to `packets` packets, both ways.
fn jumbograms(packets: u32) -> impl Fn(&mut EndpointConfig) {
    move |config| {
        for call in [&mut config.client.call, &mut config.server.call] {
            call.jumbo_receive_packets = packets;
            call.jumbo_send_packets = packets;
        }
    }
}

#[test]
fn a_path_that_says_too_big_costs_no_timer() {
    let mut world = World::new(1252, true, |_| {});
    let took = world.call(200_000);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.datagram_max(), 1252);
    let counters = world.ends[0].counters();
    assert_eq!(counters.resent_by_timer, 0);
    assert_eq!((world.too_big, counters.resent), (10, 10), "the first burst, once");
    world.call(200_000);
    assert_eq!(world.too_big, 10, "the next call knows");
}

#[test]
fn a_black_hole_is_noticed_and_the_next_call_knows() {
    let mut world = World::new(1252, false, |config| config.client.call.jumbo_send_packets = 2);
    let took = world.call(200_000);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(world.datagram_max(), 1200);
    let lost = world.too_big;
    let took = world.call(200_000);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.too_big, lost);
}

#[test]
fn a_black_hole_is_noticed_by_a_call_of_one_packet() {
    let mut world = World::new(1252, false, |config| config.client.call.jumbo_send_packets = 2);
    world.call(1412);
    world.call(1412);
    assert_eq!(world.datagram_max(), 1200);
    let lost = world.too_big;
    let took = world.call(1412);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.too_big, lost);
}

#[test]
fn an_ordinary_loss_makes_no_datagram_smaller() {
    let mut world = World::new(1440, false, |config| config.client.call.jumbo_send_packets = 2);
    world.lost_every = 7;
    world.call(300_000);
    assert_eq!((world.datagram_max(), world.too_big), (1440, 0));
}

#[test]
fn no_datagram_is_above_the_usual_size_unless_asked_for() {
    let mut world = World::new(65_000, false, |config| {
        config.client.call.datagram_max_bytes = 1440;
        config.server.call.jumbo_receive_packets = 6;
    });
    world.call(1_000_000);
    assert_eq!((world.passed.iter().max(), world.probed.len()), (Some(&1440), 0));
}

#[test]
fn jumbograms_are_sent_where_peer_and_path_take_them() {
    let mut world = World::new(65_000, false, jumbograms(4));
    world.call(1_000_000);
    assert_eq!(world.probed, [5688], "one padded PING proves it");
    assert_eq!(world.data.iter().map(|(_, packets)| *packets).max(), Some(4));
    let in_jumbograms: usize =
        world.data.iter().map(|(_, packets)| *packets).filter(|packets| *packets == 4).sum();
    assert!(in_jumbograms > 500, "{in_jumbograms} of 709");
    assert_eq!(world.ends[0].counters().resent, 0);
}

#[test]
fn a_peer_that_takes_no_jumbograms_gets_none_and_is_not_probed() {
    let mut world = World::new(65_000, false, |config| {
        config.client.call.jumbo_send_packets = 6;
    });
    world.call(1_000_000);
    assert_eq!((world.passed.iter().max(), world.probed.len()), (Some(&1440), 0));
}

#[test]
fn the_path_decides_how_many_packets_a_jumbogram_has() {
    // In silence each size is tried three times; a report settles it at once.
    for (mtu, reports, packets) in
        [(4272, false, 3), (2900, true, 2), (2900, false, 2), (1472, true, 1), (1472, false, 1)]
    {
        // A small window makes calls last long enough for three probes.
        let mut world = World::new(mtu, reports, |config| {
            jumbograms(4)(config);
            config.server.call.receive_window_max_packets = 32;
        });
        for _ in 0..4 {
            world.call(3_000_000);
        }
        let most = world.data.iter().map(|(_, packets)| *packets).max();
        assert_eq!(most, Some(packets), "{mtu} {reports}");
        assert!(world.probed.len() <= 10, "{mtu} {reports}: {:?}", world.probed);
        assert_eq!(world.ends[0].counters().resent, 0, "{mtu} {reports}: only PINGs are lost");
    }
}

#[test]
fn a_path_that_takes_less_in_mid_call_loses_no_call() {
    for reports in [true, false] {
        let mut world = World::new(9000, reports, jumbograms(4));
        let mut left = 20;
        let took = world.call_with(3_000_000, |world| {
            left -= 1;
            if left == 0 {
                assert_eq!(world.datagram_max(), 5688);
                world.mtu = 1472;
            }
        });
        assert!(took < Duration::from_secs(10), "{took:?}");
        let expected = if reports { 1472 } else { 1440 };
        // Recovery may be over before the three padded PINGs of a verdict are.
        for _ in 0..4 {
            if world.datagram_max() != expected {
                world.call(1_000_000);
            }
        }
        assert_eq!(world.datagram_max(), expected, "reported: {reports}");
        let lost = world.too_big;
        world.call(1_000_000);
        assert_eq!(world.too_big, lost);
    }
}

#[test]
fn packets_go_again_singly() {
    let mut world = World::new(9000, false, jumbograms(6));
    world.lost_every = 11;
    for _ in 0..5 {
        world.call(500_000);
    }
    let mut calls = 0;
    let mut seen = HashSet::new();
    for (seq, packets) in &world.data {
        if *seq == 1 && *packets >= 1 && seen.len() > 300 {
            calls += 1;
            seen.clear();
        }
        let again = (0..*packets as u32).any(|behind| !seen.insert(seq + behind));
        assert!(!again || *packets == 1, "{packets} packets from {seq}");
    }
    assert!(calls >= 4 && world.data.iter().any(|(_, packets)| *packets > 1));
}

#[test]
fn what_did_not_pass_is_tried_again_after_ten_minutes() {
    let mut world = World::new(1252, true, |config| {
        config.client.call.datagram_max_bytes = 1440;
        config.client.client_idle = Duration::from_secs(3600);
        config.server.server_idle = Duration::from_secs(3600);
    });
    world.call(200_000);
    world.mtu = 1500;
    world.pass(Duration::from_secs(590));
    world.call(200_000);
    assert_eq!((world.datagram_max(), world.probed.len()), (1252, 0));
    world.pass(Duration::from_secs(20));
    world.call(200_000);
    assert_eq!((world.datagram_max(), &world.probed[..]), (1440, &[1440][..]));
}
