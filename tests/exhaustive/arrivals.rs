//! A datagram reaches its host.

use bytes::Bytes;
use rxrpc::proto::Role;
use rxrpc::proto::channel::{Channel, ChannelOutput, Run};
use rxrpc::wire::Header;

use crate::bounds::Flaw;
use crate::flaws::is_ack;
use crate::physics::Physics;
use crate::rules::Rule;
use crate::story::Story;
use crate::world::{Flight, Host, World, fingerprint};

impl Physics {
    /// A datagram has reached its host.
    pub fn arrive(&self, world: &mut World, flight: Flight, story: &mut Story) {
        if self.bounds.has(Flaw::AckQueue) && flight.to == Role::Server && is_ack(&flight.datagram)
        {
            world.parked.push(flight);
        } else {
            self.receive(world, &flight, story);
        }
    }

    /// A host looks at a datagram.
    pub fn receive(&self, world: &mut World, flight: &Flight, story: &mut Story) {
        let Some(header) = Header::decode(&flight.datagram) else {
            return world.break_rule(Some(Rule::HonestPacketRefused));
        };
        let role = flight.to;
        let Some(datagram) = self.misread(world, role, header, &flight.datagram, story) else {
            return;
        };
        // Without the check of call numbers none is old.
        let number = match self.bounds.has(Flaw::NoNumberCheck) {
            true => {
                Header::decode(&datagram).map_or(header.call_number, |header| header.call_number)
            }
            false => header.call_number,
        };
        let host = world.host_mut(role);
        host.obligations.receive(&flight.datagram);
        let hint = host.hint;
        let is_old = number < host.channel.call_number();
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
}

/// What can be seen of a step.
fn outcome(channel: &Channel, out: &ChannelOutput) -> (u64, usize, usize) {
    (fingerprint(channel), out.datagrams.count(), out.notices.len())
}
