//! Worlds that are alike are brought into one form: times are taken out, serials numbered anew, in their
//! order.

use std::sync::Arc;

use rxrpc::proto::Role;
use rxrpc::proto::channel::Channel;
use rxrpc::proto::channel::exploring::settle_hint;
use rxrpc::wire::{HEADER_LEN, PacketType, Serial};

use crate::physics::Physics;
use crate::world::{Flight, Host, World, fingerprint};

/// Where a datagram has its serial and type, and an ACK the serial that it is about.
const SERIAL_AT: usize = 16;
const TYPE_AT: usize = 20;
const ACK_SERIAL_AT: usize = HEADER_LEN + 12;

impl Physics {
    /// Brings a world into the one form of all that are alike.
    pub fn settle(&self, world: &mut World) {
        for host in [&mut world.client, &mut world.server] {
            if host.serials.is_none() {
                self.note_serials(Arc::make_mut(host));
            }
        }
        if self.renumbers {
            self.renumber(world);
        }
        world.net.sort_by_key(|flight| (flight.to as u8, serial_of(flight)));
        for host in [&mut world.client, &mut world.server] {
            if host.fingerprint == 0 {
                let host = Arc::make_mut(host);
                settle_hint(&mut host.hint);
                host.fingerprint = fingerprint(&(&*host.channel, host.hint, host.obligations));
            }
            self.kept.host(host);
        }
    }

    fn note_serials(&self, host: &mut Host) {
        let channel = own(&mut host.channel);
        channel.settle(self.now);
        let mut serials = Vec::with_capacity(8);
        channel.each_serial(&mut |by, serial| serials.push((by, *serial)));
        host.serials = Some(serials.into());
    }

    /// Numbers each side's serials from 1, in their order. What does not change is shared with the world
    /// before.
    fn renumber(&self, world: &mut World) {
        let mut given = [vec![0], vec![0]];
        let mut note = |by: Role, serial: &mut Serial| given[by as usize].push(serial.0);
        for host in [&world.client, &world.server] {
            let serials = host.serials.iter().flat_map(|serials| serials.iter());
            serials.for_each(|(by, serial)| note(*by, &mut serial.clone()));
        }
        let World { net, parked, .. } = world;
        net.iter_mut().chain(parked).for_each(|flight| self.each_serial_of(flight, &mut note));
        for serials in &mut given {
            serials.sort_unstable();
            serials.dedup();
        }
        let place = |by: Role, serial: Serial| {
            Serial(given[by as usize].binary_search(&serial.0).map_or(0, |place| place as u32))
        };
        let mut change = |by: Role, serial: &mut Serial| *serial = place(by, *serial);
        let World { net, parked, client, server, .. } = world;
        net.iter_mut().chain(parked).for_each(|flight| self.each_serial_of(flight, &mut change));
        for host in [client, server] {
            let serials = host.serials.iter().flat_map(|serials| serials.iter());
            if serials.clone().all(|(by, serial)| place(*by, *serial) == *serial) {
                continue;
            }
            let serials = serials.map(|(by, serial)| (*by, place(*by, *serial))).collect();
            let host = Arc::make_mut(host);
            host.serials = Some(serials);
            host.fingerprint = 0;
            own(&mut host.channel).each_serial(&mut change);
        }
    }

    /// The serials of a datagram, with the side that gave each out.
    fn each_serial_of(&self, flight: &mut Flight, visit: &mut dyn FnMut(Role, &mut Serial)) {
        let (from, to) = match flight.to {
            Role::Client => (Role::Server, Role::Client),
            Role::Server => (Role::Client, Role::Server),
        };
        let is_ack = flight.datagram[TYPE_AT] == PacketType::Ack.byte();
        let places = [(SERIAL_AT, from), (ACK_SERIAL_AT, to)];
        for (at, by) in places.into_iter().take(1 + usize::from(is_ack)) {
            let before = Serial(word_at(&flight.datagram, at));
            let mut serial = before;
            visit(by, &mut serial);
            if serial != before {
                let mut datagram = flight.datagram.to_vec();
                datagram[at..at + 4].copy_from_slice(&serial.0.to_be_bytes());
                flight.datagram = self.kept.datagram(&datagram);
            }
        }
    }
}

/// The channel, to be changed: itself if nobody else has it, else a copy.
fn own(channel: &mut Arc<Channel>) -> &mut Channel {
    if Arc::get_mut(channel).is_none() {
        *channel = Arc::new(channel.fork());
    }
    Arc::get_mut(channel).expect("a channel of our own")
}

/// The serial that the channel's next packet will have.
pub fn next_serial(channel: &mut Channel) -> Serial {
    let mut next = None;
    channel.each_serial(&mut |_, serial| {
        next.get_or_insert(*serial);
    });
    next.unwrap_or_default()
}

fn serial_of(flight: &Flight) -> u32 {
    word_at(&flight.datagram, SERIAL_AT)
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_be_bytes)
}
