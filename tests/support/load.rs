//! Calls as fast as they go over many channels at once, each with a number, and what became of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::net::{FaultControl, Faults, FaultyNetwork, NetworkSource, UdpOptions, network_source};
use rxrpc::proto::Counters;
use rxrpc::{ConnectOptions, Endpoint};

use crate::ledger::{Channel, Ledger, Stand, Tap, Trace};
use crate::stalls::Stalls;

/// As many calls at once as there are channels.
pub const CHANNELS_PER_CONNECTION: usize = 4;

/// What is called, and how often.
#[derive(Clone, Copy)]
pub struct Load {
    pub server: SocketAddr,
    pub service: u16,
    pub calls: u64,
    pub connections: usize,
    /// The request with this number.
    pub request: fn(u64) -> Bytes,
    /// Whether that is the reply to this request.
    pub is_reply: fn(&[u8], &[u8]) -> bool,
}

impl Load {
    pub fn at_once(&self) -> usize {
        CHANNELS_PER_CONNECTION * self.connections
    }
}

/// What it took to make all calls, each of them good.
pub struct Made {
    pub ours: Counters,
    pub stalls: Stalls,
    pub began: Instant,
    pub took: Duration,
}

/// A socket of the loopback interface, and taps that note what goes over it; with a loss each way, about that.
pub fn tapped(loss: Option<(f64, &FaultControl)>, ledger: &Arc<Mutex<Ledger>>) -> NetworkSource {
    let ledger = ledger.clone();
    let open = || UdpOptions::bind_to(SocketAddr::from(([127, 0, 0, 1], 0))).bind()?.open();
    let Some((loss_probability, control)) = loss else {
        return network_source(move || Ok(Tap::new(open()?, &ledger, Stand::Alone)));
    };
    control.set(Faults { loss_probability, ..Faults::default() });
    let control = control.clone();
    network_source(move || {
        let far = Tap::new(open()?, &ledger, Stand::Far);
        Ok(Tap::new(FaultyNetwork::new(far, 7, control), &ledger, Stand::Near))
    })
}

/// Datagrams that were lost, either way.
pub fn lost(control: &FaultControl) -> u64 {
    let counters = [control.outgoing_counters(), control.incoming_counters()];
    counters.iter().map(|counters| counters.lost_datagrams).sum()
}

/// Makes them all from `client`, whose datagrams are in `ledger`.
pub async fn make_calls(client: Endpoint, load: Load, ledger: Arc<Mutex<Ledger>>) -> Made {
    let options = ConnectOptions { connections_max: load.connections, ..ConnectOptions::default() };
    let connection = client.connect_with(load.server, load.service, options).await.unwrap();
    let stalls = Stalls::default();
    let began = Instant::now();
    let at_once = load.at_once();
    let workers = (0..at_once as u64).map(|worker| {
        let (connection, stalls, ledger) = (connection.clone(), stalls.clone(), ledger.clone());
        async move {
            for number in (worker..load.calls).step_by(at_once) {
                let request = (load.request)(number);
                let from = Instant::now();
                let reply = connection.call(request.clone()).await;
                let to = Instant::now();
                let reply = reply.unwrap_or_else(|error| panic!("call {number}: {error}"));
                assert!((load.is_reply)(&request, &reply), "call {number}: {reply:02x?}");
                let trace = ledger.lock().unwrap().take(number);
                let trace = trace.unwrap_or_else(|| Trace {
                    channel: Channel { epoch: 0, cid: 0 },
                    call_number: 0,
                    events: Vec::new(),
                });
                let name = || {
                    let Channel { epoch, cid } = trace.channel;
                    format!("number {number}, call {} of {epoch:08x}/{cid:08x}", trace.call_number)
                };
                stalls.add(name, from, to, &trace.events);
            }
        }
    });
    futures::future::join_all(workers).await;
    let took = began.elapsed();
    let ours = client.inspect().await.unwrap().counters;
    Made { ours, stalls, began, took }
}
