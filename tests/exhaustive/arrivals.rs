//! A datagram reaches its host: one that is right, or a server that is broken on purpose.

use bytes::Bytes;
use rxrpc::proto::channel::{Channel, ChannelMemory, ChannelOutput, Run};
use rxrpc::proto::{CallState, Role};
use rxrpc::wire::{CallNumber, Flags, HEADER_LEN, Header, PacketType};

use crate::alike::next_serial;
use crate::physics::Physics;
use crate::rules::Rule;
use crate::story::Story;
use crate::world::{Flight, Host, World, fingerprint};

impl Physics {
    /// A datagram has reached its host.
    pub fn arrive(&self, world: &mut World, flight: Flight, story: &mut Story) {
        let is_ack = Header::decode(&flight.datagram)
            .is_some_and(|header| header.packet_type == PacketType::Ack);
        if self.bounds.broken.ack_queue && flight.to == Role::Server && is_ack {
            world.parked.push(flight);
        } else {
            self.receive(world, &flight, story);
        }
    }

    /// A host looks at a datagram.
    pub fn receive(&self, world: &mut World, flight: &Flight, story: &mut Story) {
        let Some(mut header) = Header::decode(&flight.datagram) else {
            return world.break_rule(Some(Rule::HonestPacketRefused));
        };
        let role = flight.to;
        let mut datagram = flight.datagram.to_vec();
        if role == Role::Server {
            if self.bounds.broken.no_implicit_end && self.is_refused(&world.server, &header) {
                return self.refuse(world, header, story);
            }
            if self.bounds.broken.no_number_check {
                self.forget_numbers(world.host_mut(role), &mut header);
                datagram[..HEADER_LEN].copy_from_slice(&header.encode());
            }
        }
        let host = world.host_mut(role);
        host.obligations.receive(&datagram);
        let hint = host.hint;
        let is_old = header.call_number < host.channel.call_number();
        let nothing = is_old.then(|| self.after_nothing(host));
        let run = Run { stride: datagram.len(), data: Bytes::from(datagram) };
        let mut acts = false;
        self.drive(world, role, story, |channel, out| {
            channel.handle_run(self.now, &hint, &run, out);
            acts = nothing.is_some_and(|nothing| nothing != outcome(channel, out));
        });
        world.break_rule(acts.then_some(Rule::OldPacketActs));
    }

    /// Two datagrams as one run: the channel answers once.
    pub fn arrive_together(
        &self,
        world: &mut World,
        first: usize,
        second: usize,
        story: &mut Story,
    ) {
        let flights = [first, second].map(|index| world.net[index].clone());
        world.net.remove(first.max(second));
        world.net.remove(first.min(second));
        let host = world.host_mut(flights[0].to);
        flights.iter().for_each(|flight| host.obligations.receive(&flight.datagram));
        let (hint, stride) = (host.hint, flights[0].datagram.len());
        let data = flights.iter().flat_map(|flight| flight.datagram.iter().copied()).collect();
        self.drive(world, flights[0].to, story, |channel, out| {
            channel.handle_run(self.now, &hint, &Run { data, stride }, out);
        });
    }

    /// What becomes of a channel to which a run without packets comes.
    fn after_nothing(&self, host: &Host) -> (u64, usize, usize) {
        let mut channel = host.channel.fork();
        let mut out = ChannelOutput::default();
        let run = Run { data: Bytes::new(), stride: 1 };
        channel.handle_run(self.now, &host.hint, &run, &mut out);
        outcome(&channel, &out)
    }

    /// Without the implicit end, a call that waits for its final ACK keeps the next one out.
    fn is_refused(&self, server: &Host, header: &Header) -> bool {
        header.packet_type == PacketType::Data
            && header.call_number > server.channel.call_number()
            && server.channel.state() == Some(CallState::ServerAwaitAck)
    }

    fn refuse(&self, world: &mut World, header: Header, story: &mut Story) {
        self.drive(world, Role::Server, story, |channel, out| {
            let (packet_type, serial) = (PacketType::Busy, next_serial(channel));
            let (flags, seq) = (Flags::NONE, Default::default());
            let busy = Header { packet_type, serial, flags, seq, ..header };
            out.datagrams.push(&busy, &[]);
        });
    }

    /// Without the check of call numbers, a packet belongs to the present call, or begins one.
    fn forget_numbers(&self, server: &mut Host, header: &mut Header) {
        let channel = &server.channel;
        if channel.state().is_some() {
            header.call_number = channel.call_number();
        } else if header.packet_type == PacketType::Data {
            let last = CallNumber(header.call_number.0 - 1);
            let memory = ChannelMemory { last, tag: channel.tag(), ..ChannelMemory::default() };
            let mut forgetful = self.new_channel(Role::Server, server.hint, memory);
            let next = next_serial(&mut channel.fork());
            let mut is_first = true;
            forgetful.each_serial(&mut |_, serial| {
                if std::mem::take(&mut is_first) {
                    *serial = next;
                }
            });
            server.replace(forgetful);
        }
    }
}

/// What can be seen of a step.
fn outcome(channel: &Channel, out: &ChannelOutput) -> (u64, usize, usize) {
    (fingerprint(channel), out.datagrams.count(), out.notices.len())
}
