//! One address of a network in memory, divided among shards as a test says.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use rxrpc::net::{
    Incoming, MemoryHub, MemoryNetwork, Network, NetworkSource, Transmit, network_source,
};

/// What stands in for the kernel: the shard that gets this, of so many.
pub type Choose = Box<dyn FnMut(&Incoming) -> usize + Send>;

/// What a test does to the networks of a divided address.
#[derive(Clone)]
pub struct Split(Arc<Mutex<Divided>>);

struct Divided {
    network: MemoryNetwork,
    choose: Choose,
    shards: Vec<Part>,
}

#[derive(Default)]
struct Part {
    inbox: VecDeque<Incoming>,
    waker: Option<Waker>,
    /// What its next receive fails with.
    failure: Option<io::ErrorKind>,
}

impl Split {
    /// Networks for `count` shards at `addr`.
    pub fn new(
        hub: &MemoryHub,
        addr: SocketAddr,
        count: usize,
        choose: impl FnMut(&Incoming) -> usize + Send + 'static,
    ) -> (Split, Vec<NetworkSource>) {
        let network = hub.bind(addr).unwrap();
        let shards = (0..count).map(|_| Part::default()).collect();
        let divided = Divided { network, choose: Box::new(choose), shards };
        let split = Split(Arc::new(Mutex::new(divided)));
        let source = |shard| {
            let split = split.clone();
            network_source(move || Ok(SplitNetwork { split, shard }))
        };
        let sources = (0..count).map(source).collect();
        (split, sources)
    }

    /// The network of a shard fails.
    pub fn fail(&self, shard: usize, kind: io::ErrorKind) {
        let mut divided = self.0.lock().unwrap();
        divided.shards[shard].failure = Some(kind);
        divided.shards[shard].wake();
    }
}

impl Part {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

struct SplitNetwork {
    split: Split,
    shard: usize,
}

impl Drop for SplitNetwork {
    fn drop(&mut self) {
        // The network may hold our waker and no other's.
        let divided = self.split.0.lock().unwrap();
        divided.shards.iter().for_each(Part::wake);
    }
}

impl Network for SplitNetwork {
    fn local_addr(&self) -> SocketAddr {
        self.split.0.lock().unwrap().network.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.split.0.lock().unwrap().network.max_segments()
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let Divided { network, choose, shards } = &mut *self.split.0.lock().unwrap();
        let mut arrived = Vec::new();
        while network.poll_receive(task, &mut arrived)?.is_ready() {
            for incoming in arrived.drain(..) {
                let shard = choose(&incoming) % shards.len();
                shards[shard].inbox.push_back(incoming);
                if shard != self.shard {
                    shards[shard].wake();
                }
            }
        }
        let part = &mut shards[self.shard];
        part.waker = Some(task.waker().clone());
        if let Some(kind) = part.failure {
            return Poll::Ready(Err(kind.into()));
        }
        if part.inbox.is_empty() {
            return Poll::Pending;
        }
        into.extend(part.inbox.drain(..part.inbox.len().min(32)));
        Poll::Ready(Ok(()))
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.split.0.lock().unwrap().network.try_send(transmit)
    }

    fn poll_send_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.split.0.lock().unwrap().network.poll_send_ready(task)
    }
}

/// A host with two addresses: the first call of `poll_send` leaves from `home`, and if it `roams` then each from the
/// other one in turn. It receives at both.
pub fn homes(home: MemoryNetwork, other: MemoryNetwork, roams: bool) -> NetworkSource {
    network_source(move || Ok(Homes { all: [home, other], sent: 0, roams }))
}

struct Homes {
    all: [MemoryNetwork; 2],
    sent: usize,
    roams: bool,
}

impl Network for Homes {
    fn local_addr(&self) -> SocketAddr {
        self.all[0].local_addr()
    }

    fn max_segments(&self) -> usize {
        self.all[0].max_segments()
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let polls = self.all.each_mut().map(|network| network.poll_receive(task, into));
        if polls.iter().any(Poll::is_ready) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sent += 1;
        let home = if self.roams { (self.sent - 1) % 2 } else { 0 };
        self.all[home].try_send(transmit)
    }

    fn poll_send_ready(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.all[0].poll_send_ready(task)
    }
}
