//! What went wrong under lists of operations that a fuzzer made: one test for each, named after it.

use crate::support::{App, server};

/// A service wrote its whole reply, read nothing of a long request and went away without a word about it. Nobody
/// took from the window any more, so that the rest of the request never fitted in, and each side kept the other
/// alive with PINGs.
#[test]
fn a_request_that_its_service_has_left_unread_never_ends() {
    let mut t = server("unread-request");
    t.app(App::Manual);
    t.send("D n1 q1 [C] \"x\"").write(1, b"reply", true).end(1);
    for seq in 2..40 {
        t.send(&format!("D n1 q{seq} [C] \"x\""));
    }
    t.ignore_left().send("D n1 q40 [CL] \"x\"").expect(&["D n1 q1 [L] \"reply\""]);
    t.send("A n1 f2 p1 [C] =IDLE").expect_acknowledged(1, Some(true));
    t.done();
}
