//! Calls of a service at once, and calls that wait for it (rx-calls.md 4.1).

use std::num::NonZeroUsize;
use std::time::Instant;

use rxrpc::proto::channel::{Command, Notice};
use rxrpc::proto::{CallFailure, DropReason};
use rxrpc::testkit::{CallRef, InlineEndpoint};
use rxrpc::wire::{AbortCode, Flags, Header, PacketType, ServiceId};

use crate::support::{World, address, data, offer, secs, server};

/// A server that runs two calls at once, of which `waiting` more may wait.
fn limited(waiting: Option<usize>, now: Instant) -> InlineEndpoint {
    let mut server = server(now, false, |config| {
        config.queued_calls_max = waiting;
        config.overload_code = AbortCode(49);
    });
    server.limit_service(ServiceId(1), NonZeroUsize::new(2));
    server
}

fn call(server: &mut InlineEndpoint, now: Instant, client: u16) {
    server.receive(now, address(client), &data(4, 1, Flags::LAST_PACKET, b"x"));
}

/// Calls that have reached their service since the last look.
fn begun(server: &mut InlineEndpoint) -> Vec<CallRef> {
    let notices = server.take_notices();
    notices
        .into_iter()
        .filter(|(_, notice)| matches!(notice, Notice::Incoming(_)))
        .map(|(call, _)| call)
        .collect()
}

/// Whom ABORTs with the code of too many calls have left for since the last look.
fn refused(server: &mut InlineEndpoint) -> Vec<u16> {
    let sent = server.take_sent();
    sent.into_iter()
        .filter(|(_, datagram)| {
            Header::decode(datagram).unwrap().packet_type == PacketType::Abort
                && datagram[28..] == 49u32.to_be_bytes()
        })
        .map(|(to, _)| to.port())
        .collect()
}

#[test]
fn calls_wait_up_to_the_limit_and_one_beyond_is_told() {
    for (waiting, taken) in [(Some(0), 2), (Some(1), 3), (Some(3), 5), (None, 40)] {
        let now = Instant::now();
        let mut server = limited(waiting, now);
        for client in 0..taken {
            call(&mut server, now, 1 + client);
        }
        let running = begun(&mut server);
        assert_eq!(running.len(), 2, "{waiting:?}");
        assert_eq!(server.router().queued_calls(), usize::from(taken) - 2);
        assert_eq!((refused(&mut server), server.counters().aborts_sent), (vec![], 0));
        if waiting.is_some() {
            call(&mut server, now, 100);
            assert_eq!(refused(&mut server), [100]);
            assert_eq!(server.counters().dropped_for(DropReason::Overload), 1);
            // A repeated packet is answered again, but it is no other call.
            call(&mut server, now, 100);
            assert_eq!(refused(&mut server), [100]);
            assert_eq!(server.counters().dropped_for(DropReason::Overload), 1);
        }
        // The others have their turn, in order, as those before them end.
        let mut all = running.clone();
        for index in 0..usize::from(taken) {
            server.command(now, all[index], Command::Abort(AbortCode(7)));
            let more = begun(&mut server);
            assert_eq!(more.len(), usize::from(all.len() < usize::from(taken)));
            all.extend(more);
        }
        assert!(all.is_sorted_by_key(|call| call.route), "first come, first served");
        assert_eq!(server.router().queued_calls(), 0);
        call(&mut server, now, 101);
        assert_eq!(begun(&mut server).len(), 1);
    }
}

#[test]
fn who_waits_no_more_makes_room_and_takes_no_turn() {
    let now = Instant::now();
    let mut server = limited(Some(2), now);
    for client in 1..=4 {
        call(&mut server, now, client);
    }
    let running = begun(&mut server);
    // The third gives up.
    let mut abort = data(4, 0, Flags::NONE, &(-6i32).to_be_bytes());
    abort[20] = PacketType::Abort.byte();
    server.receive(now, address(3), &abort);
    assert_eq!(server.router().queued_calls(), 1);
    call(&mut server, now, 5);
    assert_eq!((refused(&mut server), server.router().queued_calls()), (vec![], 2));
    for call in running {
        server.command(now, call, Command::Abort(AbortCode(7)));
    }
    let peers: Vec<_> =
        begun(&mut server).iter().map(|call| server.router().peer_of(call.route)).collect();
    assert_eq!(peers, [Some(address(4)), Some(address(5))]);
    assert_eq!(server.router().queued_calls(), 0);
}

#[test]
fn calls_wait_for_their_own_service_and_other_services_are_free() {
    let now = Instant::now();
    let mut server = limited(Some(0), now);
    server.offer(ServiceId(2), offer(false));
    for client in 1..=3 {
        call(&mut server, now, client);
    }
    assert_eq!((begun(&mut server).len(), refused(&mut server)), (2, vec![3]));
    let mut other = data(4, 1, Flags::LAST_PACKET, b"x");
    other[27] = 2;
    server.receive(now, address(4), &other);
    assert_eq!((begun(&mut server).len(), refused(&mut server)), (1, vec![]));
    // A limit that is raised lets those go on that wait; without one all do.
    server.limit_service(ServiceId(1), None);
    for client in 10..30 {
        call(&mut server, now, client);
    }
    assert_eq!((begun(&mut server).len(), refused(&mut server)), (20, vec![]));
}

#[test]
fn the_client_of_a_refused_call_has_one_error_and_its_other_calls_go_on() {
    let mut world = World::new(|config| config.queued_calls_max = Some(1));
    world.server.limit_service(ServiceId(1), NonZeroUsize::new(1));
    let route = world.connect();
    for id in 0..3 {
        world.call(route, id, vec![b'h'; 20_000], true);
    }
    world.pass(secs(1));
    let code = AbortCode::CALL_DEAD;
    assert_eq!(world.ended.len(), 1);
    assert_eq!(world.ended[&2], Err(CallFailure::PeerAborted(code)));
    world.pass(secs(30));
    assert_eq!(world.ended.len(), 1, "who waits is not dead");
    world.release();
    world.pass(secs(1));
    assert!(world.is_answered(0, &[b'h'; 20_000]) && world.is_answered(1, &[b'h'; 20_000]));
}
