//! What happens at which time, and in which order what is due at one time: timers of endpoints first, then
//! faults, then arrivals by link, then applications by call. One thing at a time, and all that it causes,
//! before the next.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::book::Book;
use super::hostile::HostilePlan;
use super::link::LinkOptions;
use super::net::{Arrival, World};
use super::plan::{FaultKind, HostIndex, Plan};

/// Names who sleeps: one side of a call, and the life of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WakeKey {
    pub id: u32,
    pub life: u32,
    pub is_client: bool,
}

/// The order is that of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Begin(u32),
    GiveUp(u32),
    Wake(WakeKey),
}

/// What happens to hosts. What happens to links, the agenda does itself.
#[derive(Debug)]
pub(super) enum Event {
    Crash(HostIndex),
    Restart(HostIndex),
    Arrival(Arrival),
    Begin(u32),
    GiveUp(u32),
    Wake(WakeKey),
}

/// See the module.
pub(super) struct Agenda {
    plan: Rc<Plan>,
    faults: VecDeque<(Duration, Change)>,
    due: BTreeSet<(Duration, Due)>,
    last_begin: Duration,
    over_at: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Fault(FaultKind),
    Hostile(HostilePlan),
    AllWell,
}

impl Agenda {
    pub fn new(plan: &Rc<Plan>) -> Agenda {
        let faults = plan.faults.iter().map(|fault| (fault.at, Change::Fault(fault.what)));
        let hostile = plan.hostile.iter().map(|it| (it.at, Change::Hostile(*it)));
        let mut faults: Vec<(Duration, Change)> = faults.chain(hostile).collect();
        // What is due at one time stays in order: faults before harm.
        faults.sort_by_key(|(at, _)| *at);
        let mut faults = VecDeque::from(faults);
        let restarts = plan.hosts().map(|host| Change::Fault(FaultKind::Restart(host)));
        faults.extend(restarts.map(|change| (plan.faults_end, change)));
        faults.push_back((plan.faults_end, Change::AllWell));
        let mut due = BTreeSet::new();
        let mut last_begin = Duration::ZERO;
        for call in &plan.calls {
            due.insert((call.at, Due::Begin(call.id)));
            last_begin = last_begin.max(call.at);
            if let Some(time) = call.given_up_after {
                due.insert((call.at + time, Due::GiveUp(call.id)));
            }
        }
        let over_at = plan.faults_end.max(last_begin) + plan.patience;
        Agenda { plan: plan.clone(), faults, due, last_begin, over_at }
    }

    pub fn wake_at(&mut self, at: Duration, key: WakeKey) {
        self.due.insert((at, Due::Wake(key)));
    }

    /// When something happens next, timers of endpoints aside.
    pub fn next(&self, world: &World) -> Option<Duration> {
        let fault = self.faults.front().map(|(at, _)| *at);
        let due = self.due.first().map(|(at, _)| *at);
        [fault, due, world.next_arrival(), Some(self.over_at)].into_iter().flatten().min()
    }

    /// The next thing that is due.
    pub fn take_due(&mut self, world: &World) -> Option<Event> {
        self.take(world, World::take_arrival)
    }

    /// As [`Agenda::take_due`]; what arrives is in its host's network already, and needs no more than time.
    pub fn take_due_of_actors(&mut self, world: &World) -> Option<Event> {
        self.take(world, World::deliver)
    }

    fn take(&mut self, world: &World, arrive: impl Fn(&World) -> Option<Arrival>) -> Option<Event> {
        let now = world.now();
        while let Some((_, change)) = pop_due(&mut self.faults, now) {
            if let Some(event) = self.change(world, change) {
                return Some(event);
            }
        }
        if let Some(arrival) = arrive(world) {
            return Some(Event::Arrival(arrival));
        }
        let first = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&first);
        Some(match first.1 {
            Due::Begin(id) => Event::Begin(id),
            Due::GiveUp(id) => Event::GiveUp(id),
            Due::Wake(key) => Event::Wake(key),
        })
    }

    /// Whether all is over; if time is over first, somebody is to blame.
    pub fn is_over(&self, book: &Book) -> bool {
        let now = book.world.now();
        let is_quiet = self.faults.is_empty() && now >= self.last_begin;
        if is_quiet && book.open() == 0 && book.serving() == 0 {
            return true;
        }
        if now >= self.over_at {
            book.blame_unfinished();
            return true;
        }
        false
    }

    fn change(&self, world: &World, change: Change) -> Option<Event> {
        let at = |host: HostIndex| self.plan.address(host);
        match change {
            Change::Hostile(hostile) => world.harm(&self.plan, &hostile),
            Change::AllWell => world.set_all_links(LinkOptions::default()),
            Change::Fault(FaultKind::Link(from, to, options)) => {
                world.set_link(at(from), at(to), options);
            }
            Change::Fault(FaultKind::Part(from, to)) => world.part(at(from), at(to)),
            Change::Fault(FaultKind::Join(from, to)) => world.join(at(from), at(to)),
            Change::Fault(FaultKind::Clog(from, to)) => world.clog(at(from), at(to)),
            Change::Fault(FaultKind::Unclog(from, to)) => world.unclog(at(from), at(to)),
            Change::Fault(FaultKind::Crash(host)) => return Some(Event::Crash(host)),
            Change::Fault(FaultKind::Restart(host)) => return Some(Event::Restart(host)),
        }
        None
    }
}

fn pop_due(faults: &mut VecDeque<(Duration, Change)>, now: Duration) -> Option<(Duration, Change)> {
    if faults.front()?.0 <= now { faults.pop_front() } else { None }
}
