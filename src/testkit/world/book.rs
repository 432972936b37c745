//! What is known of each call of a plan while it runs, and the rules that calls keep.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::net::World;
use super::plan::{CallPlan, HostIndex, Plan};
use super::receipts::Proof;
use crate::proto::CallFailure;
use crate::testkit::Unlikely;

/// How a call ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientEnd {
    Good,
    Failed(CallFailure),
    GivenUp,
    /// Its host died.
    Died,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    begun: bool,
    client: Option<ClientEnd>,
    /// The life of the server that was given it last, and began to read it.
    delivered: Option<u32>,
    /// The service has written the whole reply.
    replied: bool,
    /// The server was told that the client has the whole reply, while the client had the call.
    acknowledged: bool,
}

/// See the module.
pub(super) struct Book {
    pub plan: Rc<Plan>,
    pub world: World,
    records: RefCell<BTreeMap<u32, Record>>,
    /// What each call asks, made when it is first looked at.
    requests: RefCell<BTreeMap<u32, Rc<Vec<u8>>>>,
    /// Services at work, by host.
    serving: RefCell<BTreeMap<HostIndex, i64>>,
    open: Cell<usize>,
}

impl Book {
    pub fn new(plan: Rc<Plan>, world: World) -> Book {
        let records = plan.calls.iter().map(|call| (call.id, Record::default())).collect();
        let open = Cell::new(plan.calls.len());
        Book {
            plan,
            world,
            records: RefCell::new(records),
            requests: RefCell::default(),
            serving: RefCell::default(),
            open,
        }
    }

    /// Calls whose clients do not know their end yet.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Services that have not come to their end.
    pub fn serving(&self) -> i64 {
        self.serving.borrow().values().sum()
    }

    pub fn host_died(&self, host: HostIndex) {
        self.serving.borrow_mut().remove(&host);
        let plan = self.plan.clone();
        for call in plan.calls.iter().filter(|call| call.client == host) {
            let record = self.records.borrow()[&call.id];
            if record.begun && record.client.is_none() {
                self.set_client_end(call.id, ClientEnd::Died);
            }
        }
    }

    pub fn client_began(&self, id: u32) {
        self.with(id, |record| record.begun = true);
    }

    pub fn client_ended(&self, host: HostIndex, life: u32, id: u32, end: ClientEnd, reply: &[u8]) {
        let Some(call) = self.plan.call(id) else { return };
        if self.with(id, |record| record.client.is_some()) {
            return self.blame(id, "ended twice for its client");
        }
        let record = self.with(id, |record| *record);
        let text = match end {
            ClientEnd::Good => {
                if reply != call.reply() {
                    self.blame(id, "the reply is not what was sent");
                }
                if !record.replied {
                    self.blame(id, "good for its client, but the service has not replied");
                }
                format!("good, {} bytes", reply.len())
            }
            ClientEnd::Failed(failure) => format!("failed: {failure:?}"),
            ClientEnd::GivenUp => "given up".to_owned(),
            ClientEnd::Died => "died".to_owned(),
        };
        // A send that is lost after all waits for a timer, and a clogged link may have made that longer than the
        // dead time.
        let may_be_dead = self.plan.config.client.call.choices.one_in[Unlikely::LoseSend as usize]
            > 0
            && matches!(end, ClientEnd::Failed(CallFailure::Dead(_)));
        if call.must_be_good && end != ClientEnd::Good && !may_be_dead {
            self.blame(id, &format!("came when all was well, and {text}"));
        }
        self.world.note(self.plan.address(host), life, id, format!("client: {text}"));
        self.set_client_end(id, end);
    }

    fn set_client_end(&self, id: u32, end: ClientEnd) {
        self.with(id, |record| record.client = Some(end));
        self.open.set(self.open.get() - 1);
        self.world.stir();
    }

    /// A service is given a call; whose, it reads in the request.
    pub fn service_began(&self, host: HostIndex) {
        *self.serving.borrow_mut().entry(host).or_default() += 1;
    }

    pub fn service_ended(&self, host: HostIndex, life: u32) {
        if self.lives(host, life) {
            *self.serving.borrow_mut().entry(host).or_default() -= 1;
            self.world.stir();
        }
    }

    /// Bytes of a request so far, of which the first `checked` were shown before: they must be what was sent.
    /// The id, once it is known. A call may begin once in a server's life, read to its end or not.
    pub fn request_so_far(
        &self,
        host: HostIndex,
        life: u32,
        bytes: &[u8],
        checked: usize,
    ) -> Option<u32> {
        let id = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
        let Some(call) = self.plan.call(id) else {
            if self.plan.hostile.is_empty() || id != u32::MAX {
                self.blame(id, "a request of no call");
            }
            return None;
        };
        if call.server != host {
            self.blame(id, "a request at the wrong host");
        }
        if checked < 4 && self.lives(host, life) {
            let before = self.with(id, |record| record.delivered.replace(life));
            if before == Some(life) {
                self.blame(id, "delivered twice");
            }
        }
        let request = self.request(call);
        let from = if checked < 4 { 0 } else { checked };
        if request.get(from..bytes.len()) != Some(&bytes[from..]) {
            self.blame(id, "the request is not what was sent");
        }
        Some(id)
    }

    /// The whole request is there.
    pub fn request_whole(&self, host: HostIndex, life: u32, id: u32, bytes: &[u8]) {
        let Some(call) = self.plan.call(id).filter(|_| self.lives(host, life)) else { return };
        if bytes.len() != self.request(call).len() {
            self.blame(id, "the request ended early");
        }
        self.service_note(host, life, id, format!("request of {} bytes", bytes.len()));
    }

    pub fn replied(&self, host: HostIndex, life: u32, id: u32) {
        if self.lives(host, life) {
            self.with(id, |record| record.replied = true);
        }
    }

    /// The service is told that its client has the whole reply. So it may be by an ACK of all of it, or by the next
    /// call on the channel (rx-calls.md 4.2, 6). While its client has the call, or had it to a good end, it has the
    /// reply then; the next call of one that has given it up tells the same and means less.
    pub fn acknowledged(&self, host: HostIndex, life: u32, id: u32, wholly: bool) {
        if wholly && self.lives(host, life) {
            let client = self.with(id, |record| {
                record.acknowledged |= record.client.is_none();
                record.client
            });
            let has_it = matches!(client, None | Some(ClientEnd::Good));
            match self.world.with_referee(|referee| referee.proof(id)) {
                Proof::None => {
                    self.blame(id, "nobody has acknowledged it, and its server was told so")
                }
                Proof::NextCallOnly if has_it => {
                    self.blame(
                        id,
                        "ended by the next call of a client that has not the whole reply",
                    );
                }
                _ => {}
            }
        }
        self.service_note(host, life, id, format!("acknowledged: {wholly}"));
    }

    pub fn service_note(&self, host: HostIndex, life: u32, id: u32, what: String) {
        self.world.note(self.plan.address(host), life, id, format!("service: {what}"));
    }

    pub fn blame(&self, id: u32, what: &str) {
        let text = format!("call {id}: {what}");
        self.world.with_referee(|referee| referee.blame(|| text));
    }

    /// What can be said only when all is over.
    pub fn check_end(&self) {
        for (id, record) in self.records.borrow().iter() {
            // Who gave up, died, or ran out of time may have had it all before it had read it: only the core says
            // what it has (rx-calls.md 4.2: soft ACKs suffice). Whatever else fails a call fails it for want of it.
            let may_be_acknowledged = match record.client {
                Some(ClientEnd::Failed(failure)) => matches!(failure, CallFailure::Deadline(_)),
                _ => true,
            };
            if record.acknowledged && !may_be_acknowledged {
                self.blame(*id, "good for its server, but its client failed");
            }
        }
    }

    /// A call whose host is down when it should begin.
    pub fn never_begins(&self, id: u32) {
        self.set_client_end(id, ClientEnd::Died);
    }

    /// Time is over.
    pub fn blame_unfinished(&self) {
        let plan = self.plan.clone();
        let is_open = |id: &u32| self.records.borrow()[id].client.is_none();
        if let Some(call) = plan.calls.iter().find(|call| is_open(&call.id)) {
            self.blame(call.id, "has not ended in time");
        } else {
            self.blame(u32::MAX, "a service has not ended in time");
        }
    }

    fn request(&self, call: &CallPlan) -> Rc<Vec<u8>> {
        let mut requests = self.requests.borrow_mut();
        requests.entry(call.id).or_insert_with(|| Rc::new(call.request())).clone()
    }

    fn lives(&self, host: HostIndex, life: u32) -> bool {
        self.world.life(self.plan.address(host)) == Some(life)
    }

    fn with<T>(&self, id: u32, change: impl FnOnce(&mut Record) -> T) -> T {
        change(self.records.borrow_mut().entry(id).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_delivery_is_seen_though_it_is_not_read_to_its_end() {
        let plan = Rc::new(Plan::drawn(0));
        let call = plan.calls[0].clone();
        let world = World::new(0, false);
        let life = world.place(plan.address(call.server));
        let book = Book::new(plan, world.clone());
        let request = call.request();
        let begins = |life| book.request_so_far(call.server, life, &request[..4], 0);
        assert_eq!(begins(life), Some(call.id));
        book.request_so_far(call.server, life, &request, 4);
        book.request_whole(call.server, life, call.id, &request);
        assert_eq!(world.violation(), None);
        // Another life of the server knows nothing of the first.
        world.crash(book.plan.address(call.server));
        let next = world.place(book.plan.address(call.server));
        begins(next);
        assert_eq!(world.violation(), None);
        begins(next);
        assert_eq!(world.violation(), Some(format!("call {}: delivered twice", call.id)));
    }
}
