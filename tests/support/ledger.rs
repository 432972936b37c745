//! Every datagram of every call that is not over long, and whether it came through: what a stall is judged by.
//!
//! [`Tap`]s note what passes them. Two of them stand about a network that loses datagrams, so that one that passed the
//! first and not the second was lost there, whatever that network counts; one alone notes what goes and comes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use rxrpc::net::{Incoming, Network, Transmit, cut};
use rxrpc::wire::{AckReason, Flags, HEADER_LEN, Packet, PacketType, Payload};

/// Calls of a channel that are remembered: the last one, and one before it whose packets may still come.
const CALLS_PER_CHANNEL: usize = 2;
/// Events of one call; it stalls long before.
const EVENTS_MAX: usize = 4096;

/// A channel, by the epoch and the connection id that is in its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channel {
    pub epoch: u32,
    pub cid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Data {
        seq: u32,
        is_last: bool,
    },
    /// Asks for an answer; a server whose service waits for a proof of the address does.
    Ping,
    /// That answer.
    Pong,
    Other(PacketType),
}

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub at: Instant,
    pub from_client: bool,
    pub serial: u32,
    pub what: What,
    pub is_through: bool,
}

/// A call's datagrams.
#[derive(Clone, Debug)]
pub struct Trace {
    pub channel: Channel,
    pub call_number: u32,
    pub events: Vec<Event>,
}

/// See the module. `number_of` reads a call's number in the first packet of its request.
pub struct Ledger {
    channels: HashMap<Channel, VecDeque<Trace>>,
    numbers: HashMap<u64, (Channel, u32)>,
    number_of: fn(&[u8]) -> Option<u64>,
    over: Option<Box<dyn FnMut(Trace) + Send>>,
}

impl Ledger {
    pub fn new(number_of: fn(&[u8]) -> Option<u64>) -> Ledger {
        Ledger { channels: HashMap::new(), numbers: HashMap::new(), number_of, over: None }
    }

    /// `over` is given each call that is forgotten, which is long after its end.
    pub fn telling(over: impl FnMut(Trace) + Send + 'static) -> Ledger {
        Ledger { over: Some(Box::new(over)), ..Ledger::new(|_| None) }
    }

    /// A datagram sets out, or is seen for the first time; `is_through` = and has come, too.
    pub fn sets_out(&mut self, datagram: &[u8], is_through: bool) {
        let Ok(packet) = Packet::decode(datagram) else { return };
        let header = packet.header;
        let what = match packet.payload {
            Payload::Data(_) => {
                What::Data { seq: header.seq.0, is_last: header.flags.has(Flags::LAST_PACKET) }
            }
            Payload::Ack(ack) if ack.reason == AckReason::Ping => What::Ping,
            Payload::Ack(ack) if ack.reason == AckReason::PingResponse => What::Pong,
            _ => What::Other(header.packet_type),
        };
        let from_client = header.is_from_client();
        let channel = Channel { epoch: header.epoch.0, cid: header.cid.0 };
        let call_number = header.call_number.0;
        let event =
            Event { at: Instant::now(), from_client, serial: header.serial.0, what, is_through };
        if from_client
            && matches!(what, What::Data { seq: 1, .. })
            && let Some(number) = (self.number_of)(&datagram[HEADER_LEN..])
        {
            self.numbers.insert(number, (channel, call_number));
        }
        if matches!(what, What::Ping | What::Pong) {
            // It is about the connection: all its channels may wait for it.
            for index in 0..4 {
                let sibling = Channel { cid: channel.cid & !3 | index, ..channel };
                if let Some(calls) = self.channels.get_mut(&sibling)
                    && let Some(last) = calls.back_mut()
                {
                    last.note(event);
                }
            }
            return;
        }
        let calls = self.channels.entry(channel).or_default();
        if let Some(trace) = calls.iter_mut().find(|trace| trace.call_number == call_number) {
            return trace.note(event);
        }
        if calls.back().is_some_and(|last| last.call_number > call_number) {
            // A late copy of a call that is forgotten.
            return;
        }
        calls.push_back(Trace { channel, call_number, events: vec![event] });
        if calls.len() > CALLS_PER_CHANNEL
            && let Some(trace) = calls.pop_front()
        {
            self.numbers.retain(|_, at| *at != (trace.channel, trace.call_number));
            if let Some(over) = &mut self.over {
                over(trace);
            }
        }
    }

    /// It is through.
    pub fn comes(&mut self, datagram: &[u8]) {
        let Ok(packet) = Packet::decode(datagram) else { return };
        let header = packet.header;
        let from_client = header.is_from_client();
        for index in 0..4 {
            let channel = Channel { epoch: header.epoch.0, cid: header.cid.0 & !3 | index };
            let Some(calls) = self.channels.get_mut(&channel) else { continue };
            for event in calls.iter_mut().flat_map(|trace| &mut trace.events) {
                if (event.serial, event.from_client) == (header.serial.0, from_client) {
                    event.is_through = true;
                }
            }
        }
    }

    /// What is known of the call with this number, which is over.
    pub fn take(&mut self, number: u64) -> Option<Trace> {
        let (channel, call_number) = self.numbers.remove(&number)?;
        let calls = self.channels.get(&channel)?;
        calls.iter().find(|trace| trace.call_number == call_number).cloned()
    }

    /// Gives all that is left to `over`.
    pub fn finish(&mut self) {
        let Some(over) = &mut self.over else { return };
        self.channels.drain().flat_map(|(_, calls)| calls).for_each(over);
    }
}

impl Trace {
    fn note(&mut self, event: Event) {
        let is_known = |known: &&mut Event| {
            (known.serial, known.from_client) == (event.serial, event.from_client)
        };
        if let Some(known) = self.events.iter_mut().find(is_known) {
            // The same datagram tried again: the socket was full.
            known.is_through |= event.is_through;
        } else if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        }
    }
}

/// Where a tap stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// With nobody behind it who loses anything.
    Alone,
    /// Between the endpoint and the network that loses.
    Near,
    /// Behind that network.
    Far,
}

/// See the module.
pub struct Tap<N> {
    inner: N,
    ledger: Arc<Mutex<Ledger>>,
    stand: Stand,
}

impl<N> Tap<N> {
    pub fn new(inner: N, ledger: &Arc<Mutex<Ledger>>, stand: Stand) -> Tap<N> {
        Tap { inner, ledger: ledger.clone(), stand }
    }
}

impl<N: Network> Network for Tap<N> {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.inner.max_segments()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Incoming>,
    ) -> Poll<io::Result<()>> {
        let had = into.len();
        let result = self.inner.poll_receive(cx, into);
        if into.len() > had {
            let mut ledger = self.ledger.lock().unwrap();
            for incoming in &into[had..] {
                let Incoming::Datagrams { data, stride, .. } = incoming else { continue };
                for datagram in cut(data, *stride) {
                    match self.stand {
                        Stand::Alone => ledger.sets_out(datagram, true),
                        Stand::Far => ledger.sets_out(datagram, false),
                        Stand::Near => ledger.comes(datagram),
                    }
                }
            }
        }
        result
    }

    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.stand == Stand::Near {
            let mut ledger = self.ledger.lock().unwrap();
            transmit.datagrams().for_each(|datagram| ledger.sets_out(datagram, false));
        }
        let result = self.inner.try_send(transmit);
        if result.is_ok() && self.stand != Stand::Near {
            let mut ledger = self.ledger.lock().unwrap();
            for datagram in transmit.datagrams() {
                match self.stand {
                    Stand::Alone => ledger.sets_out(datagram, true),
                    _ => ledger.comes(datagram),
                }
            }
        }
        result
    }

    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_send_ready(cx)
    }
}
