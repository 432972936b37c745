//! Receive moderation through an endpoint: when its network is asked to rest, and what goes on meanwhile.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rxrpc::net::{Incoming, Network, Transmit, network_source};
use rxrpc::{CallError, CallFailure, CallOptions, Endpoint, IncomingCall, ServiceFault};

const DATA: u8 = 1;
const ACK: u8 = 2;

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 7001))
}

/// What a test sees of the network, and does to it.
#[derive(Default)]
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    can_rest: bool,
    /// Each rest that was asked for.
    rests: Vec<Duration>,
    is_resting: bool,
    receiver: Option<Waker>,
}

/// A network whose rests end when the test says so.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<Wire>>);

impl Network for Net {
    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 2], 7000))
    }

    fn max_segments(&self) -> usize {
        1
    }

    fn poll_receive(
        &mut self,
        task: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.lock().unwrap();
        if wire.is_resting || wire.arrived.is_empty() {
            wire.receiver = Some(task.waker().clone());
            return Poll::Pending;
        }
        into.extend(wire.arrived.drain(..).map(|datagram| {
            let stride = datagram.len();
            Incoming::Datagrams { from: peer(), data: datagram.into(), stride }
        }));
        Poll::Ready(Ok(()))
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.lock().unwrap().sent.extend(transmit.datagrams().map(<[u8]>::to_vec));
        Ok(())
    }

    fn poll_send_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn rest(&mut self, time: Duration) -> bool {
        let mut wire = self.0.lock().unwrap();
        wire.rests.push(time);
        wire.is_resting = wire.can_rest;
        wire.can_rest
    }
}

impl Net {
    /// An endpoint whose service reads all that comes.
    async fn endpoint(can_rest: bool, longest: Duration) -> (Net, Endpoint) {
        let net = Net::default();
        net.0.lock().unwrap().can_rest = can_rest;
        let network = net.clone();
        let endpoint = Endpoint::builder()
            .network(network_source(move || Ok(network)))
            .configure(|config| config.receive_moderation = longest)
            .service(1, async |mut call: IncomingCall| {
                call.read_all(1 << 20).await?;
                Ok::<_, ServiceFault>(())
            });
        (net, endpoint.start().await.unwrap())
    }

    /// A client's DATA packet arrives, and wakes the endpoint unless it rests.
    fn arrive(&self, seq: u32) {
        let mut datagram = vec![0x8f, 0x3a, 0x21, 0xc4, 0x5d, 0x0e, 0x9a, 0x34, 0, 0, 0, 1];
        datagram.extend(seq.to_be_bytes());
        datagram.extend(seq.to_be_bytes());
        datagram.extend([DATA, 1, 0, 0, 0, 0, 0, 1]);
        datagram.extend([7; 1412]);
        let mut wire = self.0.lock().unwrap();
        wire.arrived.push_back(datagram);
        if !wire.is_resting
            && let Some(receiver) = wire.receiver.take()
        {
            receiver.wake();
        }
    }

    /// One after the other, each taken before the next.
    async fn arrive_singly(&self, seqs: std::ops::RangeInclusive<u32>) {
        for seq in seqs {
            self.arrive(seq);
            no_time_passes().await;
        }
    }

    fn end_rest(&self) {
        let mut wire = self.0.lock().unwrap();
        wire.is_resting = false;
        if let Some(receiver) = wire.receiver.take() {
            receiver.wake();
        }
    }

    /// Types of the packets that were sent since the last look.
    fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap().sent).iter().map(|sent| sent[20]).collect()
    }

    fn rests(&self) -> usize {
        self.0.lock().unwrap().rests.len()
    }
}

/// All others have their turns, and the clock stands still.
async fn no_time_passes() {
    let before = tokio::time::Instant::now();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokio::time::Instant::now(), before);
}

#[actix_rt::test]
async fn bulk_in_single_packets_gathers_and_one_ack_answers_it() {
    tokio::time::pause();
    let (net, endpoint) = Net::endpoint(true, Duration::from_micros(100)).await;
    net.arrive_singly(1..=67).await;
    assert_eq!(net.rests(), 0, "not before the fourth after the first 64");
    net.arrive_singly(68..=68).await;
    assert_eq!(net.0.lock().unwrap().rests, [Duration::from_micros(30)]);
    net.sent();
    (69..=80).for_each(|seq| net.arrive(seq));
    no_time_passes().await;
    assert_eq!(net.sent(), [], "the endpoint rests");
    net.end_rest();
    no_time_passes().await;
    assert_eq!(net.sent(), [ACK]);
    assert_eq!(net.rests(), 2);
    let snapshot = endpoint.inspect().await.unwrap();
    assert_eq!(snapshot.counters.datagrams_received, 80);
}

/// What users want leaves at once, and deadlines are kept, while the network rests and for however long.
#[actix_rt::test]
async fn a_rest_delays_nothing_but_receiving() {
    tokio::time::pause();
    let (net, endpoint) = Net::endpoint(true, Duration::from_micros(100)).await;
    let connection = endpoint.connect(peer(), 2).await.unwrap();
    net.arrive_singly(1..=68).await;
    assert_eq!(net.rests(), 1);
    net.sent();
    let within = Duration::from_millis(20);
    let mut call = Box::pin(connection.call_with("ping", CallOptions::within(within)));
    assert!(futures::poll!(&mut call).is_pending());
    no_time_passes().await;
    assert_eq!(net.sent(), [DATA], "the request of a new call");
    let before = tokio::time::Instant::now();
    assert_eq!(call.await, Err(CallError::Failed(CallFailure::Deadline(within))));
    let late = before.elapsed() - within;
    assert!(late <= Duration::from_millis(2), "{late:?}, beyond the clock's millisecond");
    assert!(net.0.lock().unwrap().is_resting);
}

#[actix_rt::test]
async fn nobody_is_asked_to_rest_twice_who_cannot_or_where_it_is_off() {
    tokio::time::pause();
    for (can_rest, longest, asked) in
        [(false, Duration::from_micros(100), 1), (true, Duration::ZERO, 0)]
    {
        let (net, endpoint) = Net::endpoint(can_rest, longest).await;
        net.arrive_singly(1..=100).await;
        assert_eq!(net.rests(), asked);
        let snapshot = endpoint.inspect().await.unwrap();
        assert_eq!(snapshot.counters.datagrams_received, 100);
        endpoint.shutdown(Duration::ZERO).await;
    }
}
