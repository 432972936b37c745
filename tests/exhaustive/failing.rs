//! That the search can fail: with hosts made wrong on purpose it finds each rule broken, and shows the way.

use crate::bounds::{Bounds, Flaw};
use crate::rules::Rule;
use crate::{ONE, PIECEWISE, TWO, holds, visit};

/// By one thread, which finds the shortest way. Returns its ladder.
#[track_caller]
fn breaks(name: &str, bounds: Bounds, rule: Rule) -> String {
    let (why, ladder) = failure(name, bounds);
    assert_eq!(why, format!("broken: {rule}"), "{name}");
    ladder
}

#[track_caller]
fn failure(name: &str, bounds: Bounds) -> (String, String) {
    let found = visit(name, bounds, 1);
    found.failure.unwrap_or_else(|| panic!("{name}: nothing is found"))
}

/// The ladder has lines with these, in this order.
#[track_caller]
fn shows(ladder: &str, lines: &[&str]) {
    let mut rest = ladder;
    for line in lines {
        let Some(at) = rest.find(line) else { panic!("no {line:?} here, or too late:\n{ladder}") };
        rest = &rest[at + line.len()..];
    }
}

/// rx-race.md R3, R4: the next call's DATA may be all that ends a call.
#[test]
fn without_the_implicit_end_a_client_is_told_busy() {
    let bounds = Bounds { flaws: &[Flaw::NoImplicitEnd], ..Bounds::new(&[ONE, ONE]) };
    let ladder = breaks("no implicit end", bounds, Rule::Busy);
    shows(
        &ladder,
        &[
            "server >> client  #0 D n1 q1",
            "Client application, call 2: Start",
            "client -> server  #0 D n2 q1",
            "server >> client  #0 BUSY n2",
            "broken: no BUSY to a client that keeps the rules",
        ],
    );
}

/// rx-race.md R6.
#[test]
fn without_the_check_of_call_numbers_a_call_runs_twice() {
    let flaws = &[Flaw::NoNumberCheck];
    let bounds = Bounds { flaws, in_flight: 3, repeats: 1, ..Bounds::new(&[ONE, ONE]) };
    let ladder = breaks("no check of call numbers", bounds, Rule::DeliveredTwice);
    shows(
        &ladder,
        &[
            "the network will deliver this once more:",
            "client -> server  #0 D n1 q1",
            "is told Incoming",
            "client -> server  #0 D n1 q1",
            "is told Incoming",
            "broken: a call is delivered once",
        ],
    );
}

/// The same by a timer: the request that is sent again is the copy.
#[test]
fn without_the_check_of_call_numbers_a_retransmission_runs_a_call_again() {
    let flaws = &[Flaw::NoNumberCheck];
    let bounds = Bounds { flaws, in_flight: 3, resends: 1, ..Bounds::new(&[ONE, ONE]) };
    let ladder = breaks("no check, resends", bounds, Rule::DeliveredTwice);
    let first = ["Client: timer Retransmit is due", "client >> server  #0 D n1 q1"];
    shows(&ladder, &[&first[..], &["is told Incoming", "is told Incoming"]].concat());
}

/// rx-race.md R1: a network without a fault, a client that acknowledges each reply before it calls again.
/// With one queue all is well even without the implicit end; with a queue for ACKs it is not.
#[test]
fn acks_on_a_queue_of_their_own_are_the_race_of_2014() {
    use Flaw::{AckQueue, ClientAcksFirst, NoImplicitEnd};
    let with = |flaws| Bounds { reorders: false, flaws, ..Bounds::new(&[ONE, ONE]) };
    holds("one queue", with(&[NoImplicitEnd, ClientAcksFirst]));
    let two_queues = with(&[NoImplicitEnd, ClientAcksFirst, AckQueue]);
    let ladder = breaks("two queues", two_queues, Rule::Busy);
    shows(
        &ladder,
        &[
            "client >> server  #0 A n1",
            "client -> server  #0 A n1",
            "Client application, call 2: Start",
            "client -> server  #0 D n2 q1",
            "server >> client  #0 BUSY n2",
        ],
    );
    // It came, and was not looked at.
    assert!(!ladder.contains("next in the queue of ACKs"), "{ladder}");
    holds("two queues and the implicit end", with(&[ClientAcksFirst, AckQueue]));
}

/// Each rule has a flaw that breaks it and nothing before it; the same bounds hold without the flaw.
#[test]
fn every_rule_can_be_broken() {
    let two = Bounds { in_flight: 3, ..Bounds::new(&[ONE, ONE]) };
    let request = Bounds { in_flight: 3, repeats: 1, ..Bounds::new(&[TWO]) };
    let small = Bounds { window: 1, in_flight: 2, ..Bounds::new(&[TWO]) };
    let plain = Bounds { in_flight: 2, ..Bounds::new(&[ONE]) };
    let slow = Bounds { in_flight: 2, ..Bounds::new(&[PIECEWISE]) };
    let copied = Bounds { in_flight: 3, repeats: 1, ..Bounds::new(&[ONE, ONE]) };
    let cases: [(Rule, &'static [Flaw], &Bounds); 15] = [
        (Rule::DeliveredTwice, &[Flaw::NoNumberCheck], &copied),
        (Rule::NotWhatWasSent, &[Flaw::NoSequenceCheck], &request),
        (Rule::NobodysCall, &[Flaw::CountsCalls], &plain),
        (Rule::GoodAtOneEnd, &[Flaw::SoftIsHard], &request),
        (Rule::FailedWithoutCause, &[Flaw::AbortsForOld], &two),
        (Rule::Busy, &[Flaw::NoImplicitEnd], &two),
        (Rule::BeyondWindow, &[Flaw::WideWindow], &small),
        (Rule::SerialWentBack, &[Flaw::SerialIsSeq], &plain),
        (Rule::FirstWentBack, &[Flaw::DuplicatesReset], &request),
        (Rule::OldCallSpeaks, &[Flaw::AcksLeaveLate], &two),
        (Rule::OldPacketActs, &[Flaw::OldAcksCount], &two),
        (Rule::NextBeforeEnd, &[Flaw::EndsToldLate], &two),
        (Rule::StateBehindOutput, &[Flaw::AlwaysLast], &slow),
        (Rule::HonestPacketRefused, &[Flaw::CutAcks], &plain),
        (Rule::NoTimer, &[Flaw::NoRetransmission], &plain),
    ];
    for (rule, flaws, bounds) in cases {
        let ladder = breaks(&format!("{flaws:?}"), Bounds { flaws, ..bounds.clone() }, rule);
        shows(&ladder, &[" >> ", " -> ", &format!("broken: {rule}")]);
    }
    for rule in Rule::ALL {
        assert!(cases.iter().any(|case| case.0 == rule), "nothing breaks {rule:?}");
    }
    for (index, bounds) in [two, request, small, plain, slow, copied].into_iter().enumerate() {
        holds(&format!("without a flaw, {index}"), bounds);
    }
}

/// Liveness: from every state a clean end can be reached.
#[test]
fn what_never_ends_is_found() {
    let ends = |flaws| {
        let bounds = Bounds { in_flight: 2, losses: 1, flaws, ..Bounds::new(&[ONE]) };
        let (why, ladder) = failure(&format!("{flaws:?}"), bounds);
        shows(&ladder, &["from here on nothing more goes wrong", &why]);
        (why, ladder)
    };
    // The server sends its reply again, for ever.
    let (why, ladder) = ends(&[Flaw::NoFinalAck]);
    assert_eq!(why, "goes round for ever");
    shows(
        &ladder,
        &["nothing more goes wrong", "Server: timer Retransmit", "server >> client  #0 D n1 q1"],
    );
    // What is lost stays lost.
    let (why, ladder) = ends(&[Flaw::EmptyRetransmission]);
    assert_eq!(why, "goes round for ever");
    shows(&ladder, &["nothing more goes wrong", "Server: timer Retransmit"]);
}
