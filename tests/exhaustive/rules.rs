//! What must hold after every step, and what it takes to tell.

use std::fmt;

use rxrpc::proto::channel::Channel;
use rxrpc::proto::{CallState, Role};
use rxrpc::wire::{CallNumber, Flags, Header, Packet, PacketType, Payload, Serial, Trailer};

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    DeliveredTwice,
    NotWhatWasSent,
    NobodysCall,
    GoodAtOneEnd,
    FailedWithoutCause,
    Busy,
    BeyondWindow,
    SerialWentBack,
    FirstWentBack,
    OldCallSpeaks,
    OldPacketActs,
    NextBeforeEnd,
    StateBehindOutput,
    HonestPacketRefused,
    NoTimer,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 15] = [
        Rule::DeliveredTwice,
        Rule::NotWhatWasSent,
        Rule::NobodysCall,
        Rule::GoodAtOneEnd,
        Rule::FailedWithoutCause,
        Rule::Busy,
        Rule::BeyondWindow,
        Rule::SerialWentBack,
        Rule::FirstWentBack,
        Rule::OldCallSpeaks,
        Rule::OldPacketActs,
        Rule::NextBeforeEnd,
        Rule::StateBehindOutput,
        Rule::HonestPacketRefused,
        Rule::NoTimer,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::DeliveredTwice => "a call is delivered once",
            Rule::NotWhatWasSent => "what is delivered is what was sent",
            Rule::NobodysCall => "a call that is delivered was made",
            Rule::GoodAtOneEnd => "a call reported good is good at both ends",
            Rule::FailedWithoutCause => "no call fails but by an abort or a death",
            Rule::Busy => "no BUSY to a client that keeps the rules",
            Rule::BeyondWindow => "DATA stays within the window",
            Rule::SerialWentBack => "serials grow",
            Rule::FirstWentBack => "firstPacket of a call never goes back",
            Rule::OldCallSpeaks => "nothing of a call leaves once a later one has begun",
            Rule::OldPacketActs => "a packet of an earlier call does nothing",
            Rule::NextBeforeEnd => "a service hears the end of a call before the next is delivered",
            Rule::StateBehindOutput => "the reply's last packet leaves with the change of state",
            Rule::HonestPacketRefused => "no packet of an honest peer is malformed",
            Rule::NoTimer => "what is in flight has a timer",
        })
    }
}

/// What a host's own packets, and those that came to it, oblige it to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Obligations {
    /// The highest call number sent.
    number: u32,
    /// firstPacket of that call's last ACK.
    first: u32,
    /// The first seq of the call in `edge_number` that the peer has not allowed.
    edge: u32,
    edge_number: u32,
}

impl Obligations {
    /// A datagram leaves in a step that began with `before`.
    pub fn send(&mut self, datagram: &[u8], before: CallNumber, window: u32) -> Option<Rule> {
        let Ok(packet) = Packet::decode(datagram) else { return Some(Rule::HonestPacketRefused) };
        let header = packet.header;
        let number = header.call_number.0;
        if number < before.0 || number < self.number {
            return Some(Rule::OldCallSpeaks);
        }
        if number > self.number {
            (self.number, self.first) = (number, 0);
        }
        match packet.payload {
            Payload::Ack(ack) => {
                if ack.first_packet.0 < self.first {
                    return Some(Rule::FirstWentBack);
                }
                self.first = ack.first_packet.0;
                None
            }
            Payload::Data(_) => {
                let edge = if self.edge_number == number { self.edge } else { 0 };
                (header.seq.0 >= edge.max(1 + window)).then_some(Rule::BeyondWindow)
            }
            _ => None,
        }
    }

    /// A datagram comes.
    pub fn receive(&mut self, datagram: &[u8]) {
        let Ok(Packet { header, payload: Payload::Ack(ack) }) = Packet::decode(datagram) else {
            return;
        };
        let Trailer::Full(trailer) = ack.trailer else { return };
        let number = header.call_number.0;
        if number > self.edge_number {
            (self.edge_number, self.edge) = (number, 0);
        }
        if number == self.edge_number {
            self.edge = self.edge.max(ack.first_packet.0 + trailer.rwind.max(1));
        }
    }
}

/// Each packet's serial is later than all before; `next` is the least that is right.
pub fn serial_grows(next: &mut Serial, datagram: &[u8]) -> Option<Rule> {
    let serial = Header::decode(datagram)?.serial;
    let expected = std::mem::replace(next, serial.plus(1));
    serial.before(expected).then_some(Rule::SerialWentBack)
}

/// The reply's last packet and AwaitAck are one step (rx-race.md R2).
pub fn state_follows(role: Role, datagram: &[u8], after: &Channel) -> Option<Rule> {
    let header = Header::decode(datagram)?;
    let ends = role == Role::Server
        && header.packet_type == PacketType::Data
        && header.flags.has(Flags::LAST_PACKET)
        && header.call_number == after.call_number();
    let waits = matches!(after.state(), None | Some(CallState::ServerAwaitAck));
    (ends && !waits).then_some(Rule::StateBehindOutput)
}

/// Whoever has something in flight will look after it.
pub fn has_timer(channel: &Channel) -> Option<Rule> {
    use rxrpc::proto::channel::exploring::Timer;
    let lacks = channel.in_flight_packets() > 0 && channel.timer(Timer::Retransmit).is_none();
    lacks.then_some(Rule::NoTimer)
}
