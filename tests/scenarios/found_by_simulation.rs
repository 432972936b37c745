//! What went wrong in simulated worlds: one test for each, named after it.

use rxrpc::proto::router::Offer;
use rxrpc::wire::ServiceId;

use crate::support::{App, Scenario, secs, server, server_with};

/// A server heard nothing of its reply for the dead time and let go of the call. Its client was only unheard
/// for so long: its PINGs were answered as if the reply could still come, and it waited for ever.
#[test]
fn a_client_whose_reply_was_given_up_waits_for_it_for_ever() {
    let mut t = server("given-up-reply");
    t.app(App::Reply(2));
    t.send("D n1 q1 [CL] \"x\"").pass(secs(25)).ignore_left();
    t.expect_acknowledged(1, Some(false));
    t.send("A n1 f2 p1 s0 [CR] =PING").expect(&["ABORT n1 -1"]);
    t.done();
}

/// Where a proof of the address holds for no time, each call is to ask anew; but then none was believed, and no
/// call ever reached its service.
#[test]
fn a_proof_that_holds_for_no_time_does_not_hold_for_the_call_that_asked() {
    let mut t = server_with("no-ttl", |config| config.server.call.reach_ttl = secs(0));
    t.t.offer(ServiceId(1), Offer { needs_reach: true, ..Scenario::plain_offer() });
    t.app(App::Manual);
    t.send("D n1 q1 [CL] \"x\"").expect(&["A n1 [R] =PING"]).expect_calls(&[]);
    let serial = t.last_serial();
    t.send(&format!("A n1 f1 p0 s{serial} [C] =PING_RESPONSE")).expect_calls(&[1]);
    t.write(1, b"y", true).expect(&["D n1 q1 [L]"]);
    // The next call asks again.
    t.send("D n2 q1 [CL] \"x\"").expect(&["A n2 [R] =PING"]).expect_calls(&[1]);
    t.t.offer(ServiceId(1), Scenario::plain_offer());
    t.done_elsewhere();
}
