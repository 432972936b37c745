//! A plan played by real endpoints: the whole tree of actors and its public API, under Tokio's paused clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{Either, FutureExt, select};

use super::agenda::{Agenda, Event, WakeKey};
use super::book::{Book, ClientEnd};
use super::clock::{settle, wait_until};
use super::core_checks::settings_of;
use super::net::World;
use super::plan::{Answer, CallPlan, HostIndex, Plan, SERVICE, Streamed, UPGRADED};
use super::run::{Outcome, outcome};
use super::secured;
use super::tree_checks;
use crate::actors::snapshot::Snapshot;
use crate::error::StreamError;
use crate::proto::CallFailure;
use crate::{
    AbortCode, CallError, CallOptions, ConnectOptions, Connection, Endpoint, IncomingCall,
    ServiceId, ServiceOptions,
};

thread_local! {
    /// The play of this thread: services must be `Send`, so they look here.
    static PLAY: RefCell<Option<Rc<Play>>> = const { RefCell::new(None) };
}

/// What tasks share.
struct Play {
    book: Book,
    agenda: RefCell<Agenda>,
    sleeping: RefCell<BTreeMap<WakeKey, oneshot::Sender<()>>>,
    given_up: RefCell<BTreeMap<u32, oneshot::Sender<()>>>,
}

struct Host {
    life: u32,
    endpoint: Endpoint,
    connections: BTreeMap<HostIndex, Connection>,
    calls: Vec<tokio::task::JoinHandle<()>>,
}

/// Events between two looks at what the trees say of themselves.
const LOOKS_EVERY: u32 = 8;

/// Plays until all is over, or a rule is broken; then waits until all is forgotten, of which the trace tells nothing.
pub(super) async fn play(plan: Rc<Plan>, world: World) -> Outcome {
    let play = Rc::new(Play {
        book: Book::new(plan.clone(), world.clone()),
        agenda: RefCell::new(Agenda::new(&plan)),
        sleeping: RefCell::default(),
        given_up: RefCell::default(),
    });
    PLAY.set(Some(play.clone()));
    let mut hosts: Vec<Option<Host>> = plan.hosts().map(|_| None).collect();
    for index in plan.hosts().rev() {
        hosts[index] = Some(start(&plan, &world, index).await);
    }
    let mut events = 0u32;
    loop {
        settle(&world).await;
        events += 1;
        if events.is_multiple_of(LOOKS_EVERY) {
            look(&plan, &world, &hosts, |tree| tree_checks::fault_of(tree, &plan.config)).await;
        }
        if world.violation().is_some() {
            break;
        }
        let event = play.agenda.borrow_mut().take_due_of_actors(&world);
        if let Some(event) = event {
            happen(&play, &mut hosts, event).await;
            continue;
        }
        if play.agenda.borrow().is_over(&play.book) {
            break;
        }
        let next = play.agenda.borrow().next(&world);
        let Some(next) = next else { break };
        wait_until(&world, next).await;
    }
    play.book.check_end();
    let mut outcome = outcome(&world);
    if outcome.violation.is_none() {
        let until = world.now() + tree_checks::forgotten_after(&plan.config);
        pass_time(&world, until).await;
        look(&plan, &world, &hosts, tree_checks::left_of).await;
        outcome.violation = world.violation();
    }
    PLAY.set(None);
    // What still runs is not part of the play.
    for index in plan.hosts() {
        if world.life(plan.address(index)).is_some() {
            world.mute(plan.address(index));
        }
    }
    for host in hosts.into_iter().flatten() {
        end(host).await;
    }
    outcome
}

/// Asks every tree what it looks like.
async fn look(
    plan: &Plan,
    world: &World,
    hosts: &[Option<Host>],
    fault_of: impl Fn(&Snapshot) -> Option<String>,
) {
    for (index, host) in hosts.iter().enumerate() {
        let Some(host) = host else { continue };
        let tree = host.endpoint.inspect().await;
        if let Some(fault) = tree.as_ref().and_then(&fault_of) {
            let text = format!("{}: {fault}", plan.address(index));
            world.with_referee(|referee| referee.blame(|| text));
        }
    }
}

/// Nothing happens any more but what endpoints do by themselves.
async fn pass_time(world: &World, until: Duration) {
    while world.now() < until {
        settle(world).await;
        if world.deliver().is_none() {
            let next = world.next_arrival().map_or(until, |at| at.min(until));
            wait_until(world, next).await;
        }
    }
    settle(world).await;
}

async fn end(host: Host) {
    host.calls.iter().for_each(tokio::task::JoinHandle::abort);
    drop(host.connections);
    host.endpoint.shutdown(Duration::ZERO).await;
}

async fn start(plan: &Rc<Plan>, world: &World, index: HostIndex) -> Host {
    let source = world.network(plan.address(index));
    let life = world.life(plan.address(index)).unwrap_or(0);
    let mut builder = Endpoint::builder()
        .network(source)
        .config(settings_of(plan))
        .identity(plan.identity(index, life));
    if !plan.is_client(index) {
        let upgrades_to = plan.upgrades.then_some(ServiceId(UPGRADED));
        for (service_id, upgrades_to) in [(SERVICE, upgrades_to), (UPGRADED, None)] {
            let options = ServiceOptions {
                reach_check: plan.needs_reach,
                running_calls_max: plan.running_calls_max,
                security_classes: secured::server_classes(plan.security),
                upgrades_to,
            };
            let service = move |call| serve(index, life, call).map(Ok::<_, AbortCode>);
            builder = builder.service_with(service_id, service, options);
        }
    }
    let endpoint = builder.start().await.expect("an endpoint in a simulated network starts");
    let mut connections = BTreeMap::new();
    if plan.is_client(index) {
        for server in plan.clients..plan.clients + plan.servers {
            let options = ConnectOptions {
                security: secured::client_class(plan.security),
                connections_max: plan.connections_max,
                asks_upgrade: plan.upgrades,
            };
            let peer = plan.address(server);
            let connection = endpoint.connect_with(peer, SERVICE, options).await;
            connections.insert(server, connection.expect("a new endpoint takes connections"));
        }
    }
    Host { life, endpoint, connections, calls: Vec::new() }
}

async fn happen(play: &Rc<Play>, hosts: &mut [Option<Host>], event: Event) {
    let (plan, world) = (&play.book.plan, &play.book.world);
    match event {
        // Those have gone to their hosts' networks.
        Event::Arrival(_) => {}
        Event::Crash(index) => {
            if let Some(host) = hosts[index].take() {
                world.crash(plan.address(index));
                play.book.host_died(index);
                end(host).await;
            }
        }
        Event::Restart(index) => {
            if hosts[index].is_none() {
                hosts[index] = Some(start(plan, world, index).await);
            }
        }
        Event::Begin(id) => {
            let Some(call) = plan.call(id) else { return };
            let Some(host) = &mut hosts[call.client] else {
                return play.book.never_begins(id);
            };
            let connection = host.connections[&call.server].clone();
            let task = call_once(play.clone(), connection, host.life, id);
            host.calls.push(actix_rt::spawn(task));
        }
        Event::GiveUp(id) => {
            let sender = play.given_up.borrow_mut().remove(&id);
            if let Some(sender) = sender {
                // A call that is over does not want to know.
                let _ = sender.send(());
            }
        }
        Event::Wake(key) => {
            let sender = play.sleeping.borrow_mut().remove(&key);
            if let Some(sender) = sender {
                let _ = sender.send(());
            }
        }
    }
}

async fn call_once(play: Rc<Play>, connection: Connection, life: u32, id: u32) {
    let book = &play.book;
    let Some(call) = book.plan.call(id) else { return };
    book.client_began(id);
    let options = CallOptions {
        deadline: call.deadline,
        exclusive: call.exclusive,
        ..CallOptions::default()
    };
    let (give_up, given_up) = oneshot::channel();
    play.given_up.borrow_mut().insert(id, give_up);
    let going = async {
        match call.streamed {
            Some(streamed) => stream(&play, &connection, life, call, streamed, options).await,
            None => match connection.call_with(call.request(), options).await {
                Ok(reply) => Ok(reply.to_vec()),
                Err(error) => Err(failure_of(&error)),
            },
        }
    };
    let end = select(Box::pin(going), given_up).await;
    let (end, reply) = match end {
        Either::Left((Ok(reply), _)) => (ClientEnd::Good, reply),
        Either::Left((Err(failure), _)) => (ClientEnd::Failed(failure), Default::default()),
        Either::Right((_, going)) => {
            drop(going);
            (ClientEnd::GivenUp, Default::default())
        }
    };
    book.client_ended(call.client, life, id, end, &reply);
}

async fn stream(
    play: &Rc<Play>,
    connection: &Connection,
    life: u32,
    call: &CallPlan,
    streamed: Streamed,
    options: CallOptions,
) -> Result<Vec<u8>, CallFailure> {
    let rest = || sleep(play, call.id, life, true, streamed.pause);
    let opened = connection.open_call(options).await;
    let mut writer = opened.map_err(|error| failure_of(&error))?;
    let mut request = Bytes::from(call.request());
    while !request.is_empty() {
        let piece = request.split_to(streamed.piece_bytes.min(request.len()));
        writer.write(piece).await.map_err(failure_of_stream)?;
        if streamed.flushes {
            writer.flush_now().map_err(failure_of_stream)?;
        }
        if !streamed.pause.is_zero() {
            rest().await;
        }
    }
    let mut reader = writer.finish().map_err(failure_of_stream)?;
    let (mut reply, mut read) = (Vec::new(), 0u32);
    while let Some(piece) = reader.next().await {
        reply.extend_from_slice(&piece.map_err(failure_of_stream)?);
        read += 1;
        if streamed.reads_every.is_some_and(|every| read.is_multiple_of(every)) {
            rest().await;
        }
    }
    Ok(reply)
}

fn failure_of_stream(error: StreamError) -> CallFailure {
    match error {
        StreamError::Failed(failure) => failure,
        _ => CallFailure::Closed,
    }
}

fn failure_of(error: &CallError) -> CallFailure {
    match error {
        CallError::Failed(failure) => *failure,
        _ => CallFailure::Closed,
    }
}

fn current() -> Option<Rc<Play>> {
    PLAY.with_borrow(Clone::clone)
}

async fn sleep(play: &Rc<Play>, id: u32, life: u32, is_client: bool, time: Duration) {
    let key = WakeKey { id, life, is_client };
    let (wake, awake) = oneshot::channel();
    let at = play.book.world.now() + time;
    play.agenda.borrow_mut().wake_at(at, key);
    // Perhaps nothing else happens before.
    play.book.world.stir();
    play.sleeping.borrow_mut().insert(key, wake);
    // Dropped at the end of the play: the same.
    let _ = awake.await;
}

async fn serve(index: HostIndex, life: u32, call: IncomingCall) {
    let Some(play) = current() else { return };
    play.book.service_began(index);
    answer(&play, index, life, call).await;
    play.book.service_ended(index, life);
}

async fn answer(play: &Rc<Play>, index: HostIndex, life: u32, mut call: IncomingCall) {
    let book = &play.book;
    let (mut bytes, mut id, mut read) = (Vec::new(), None, 0u32);
    while let Some(piece) = call.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return note_failure(book, index, life, id, &error),
        };
        let checked = bytes.len();
        bytes.extend_from_slice(&piece);
        id = book.request_so_far(index, life, &bytes, checked).or(id);
        read += 1;
        if let Some(planned) = id.and_then(|id| book.plan.call(id))
            && let Some(every) = planned.pause_every
            && read.is_multiple_of(every)
        {
            sleep(play, planned.id, life, false, planned.pause).await;
        }
    }
    let id = id.unwrap_or(u32::MAX);
    book.request_whole(index, life, id, &bytes);
    let Some(planned) = book.plan.call(id) else { return };
    if !planned.think.is_zero() {
        sleep(play, id, life, false, planned.think).await;
    }
    match planned.answer {
        Answer::Abort(code) => {
            book.service_note(index, life, id, "aborts".to_owned());
            call.abort(code);
        }
        Answer::Drop => book.service_note(index, life, id, "drops".to_owned()),
        Answer::Reply => {
            let mut writer = call.into_reply();
            if let Err(error) = writer.write(planned.reply()).await {
                return note_failure(book, index, life, Some(id), &error);
            }
            book.replied(index, life, id);
            match writer.finish_acknowledged().await {
                Ok(wholly) => book.acknowledged(index, life, id, wholly),
                Err(error) => note_failure(book, index, life, Some(id), &error),
            }
        }
    }
}

fn note_failure(book: &Book, index: HostIndex, life: u32, id: Option<u32>, error: &StreamError) {
    if let (Some(id), StreamError::Failed(failure)) = (id, error) {
        book.service_note(index, life, id, format!("failed: {failure:?}"));
    }
}
