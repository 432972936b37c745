//! What went wrong in simulated worlds: one test for each, named after it.

use crate::support::{App, secs, server};

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
