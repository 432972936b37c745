//! Hosts that are made wrong on purpose, to see that each rule can fail: outside of the core, which stays as it is.

use rxrpc::proto::channel::{ChannelMemory, ChannelOutput, Notice};
use rxrpc::proto::{CallState, CallTag, Role};
use rxrpc::wire::{AckReason, CallNumber, Flags, HEADER_LEN, Header, PacketType, Seq, Serial};

use crate::alike::next_serial;
use crate::bounds::Flaw;
use crate::physics::Physics;
use crate::story::Story;
use crate::world::{Host, World};

/// Where an ACK has what it is about, and from its end, where it has its window.
const FIRST_AT: usize = HEADER_LEN + 4;
const PREVIOUS_AT: usize = HEADER_LEN + 8;
const REASON_AT: usize = HEADER_LEN + 16;
const COUNT_AT: usize = HEADER_LEN + 17;
const WINDOW_AT_FROM_END: usize = 8;

pub fn is_ack(datagram: &[u8]) -> bool {
    Header::decode(datagram).is_some_and(|header| header.packet_type == PacketType::Ack)
}

impl Physics {
    /// What a host takes a datagram for; `None` = it was answered, and is not looked at.
    pub fn misread(
        &self,
        world: &mut World,
        role: Role,
        mut header: Header,
        datagram: &[u8],
        story: &mut Story,
    ) -> Option<Vec<u8>> {
        let has = |flaw| self.bounds.has(flaw);
        let mut datagram = datagram.to_vec();
        let is_ack = header.packet_type == PacketType::Ack;
        if role == Role::Client {
            if has(Flaw::CutAcks) && is_ack {
                datagram.truncate(REASON_AT);
            }
            return Some(datagram);
        }
        if has(Flaw::NoImplicitEnd) && is_refused(&world.server, &header) {
            self.refuse(world, header, story);
            return None;
        }
        let present = world.server.channel.call_number();
        let is_old = header.call_number < present;
        if has(Flaw::AbortsForOld) && is_old {
            self.abort(world, Header { call_number: present, ..header }, story);
            return None;
        }
        if has(Flaw::NoNumberCheck) {
            self.forget_numbers(world.host_mut(role), &mut header);
        }
        if has(Flaw::OldAcksCount) && is_ack && is_old {
            header.call_number = present;
        }
        if header.packet_type == PacketType::Data {
            if has(Flaw::CountsCalls) && world.server.channel.state().is_none() {
                header.call_number = CallNumber(header.call_number.0 + 1);
            }
            let call = world.calls.iter().find(|call| call.number == header.call_number.0);
            if let Some(call) =
                call.filter(|call| has(Flaw::NoSequenceCheck) && !call.request.whole)
            {
                header.seq = Seq(u32::from(call.request.got) + 1);
            }
        }
        datagram[..HEADER_LEN].copy_from_slice(&header.encode());
        if has(Flaw::SoftIsHard) && is_ack {
            let first = word(&datagram, FIRST_AT).max(word(&datagram, PREVIOUS_AT) + 1);
            datagram[FIRST_AT..FIRST_AT + 4].copy_from_slice(&first.to_be_bytes());
            let count = usize::from(std::mem::take(&mut datagram[COUNT_AT]));
            datagram.drain(COUNT_AT + 1..COUNT_AT + 1 + count);
        }
        if has(Flaw::WideWindow) && is_ack {
            let at = datagram.len() - WINDOW_AT_FROM_END;
            let window = word(&datagram, at) + 8;
            datagram[at..at + 4].copy_from_slice(&window.to_be_bytes());
        }
        Some(datagram)
    }

    /// What leaves in the place of a datagram, if anything does. `resends` = the retransmission timer made it.
    pub fn misspeak(
        &self,
        world: &World,
        role: Role,
        resends: bool,
        datagram: &[u8],
    ) -> Option<Vec<u8>> {
        let has = |flaw| self.bounds.has(flaw);
        let Some(mut header) = Header::decode(datagram) else { return Some(datagram.to_vec()) };
        let mut datagram = datagram.to_vec();
        if role == Role::Client {
            let ended = |number| {
                let mut calls = world.calls.iter();
                calls.any(|call| call.number == number && call.reply.whole)
            };
            let is_kept_back =
                has(Flaw::NoFinalAck) && is_ack(&datagram) && ended(header.call_number.0);
            return (!is_kept_back).then_some(datagram);
        }
        if has(Flaw::EmptyRetransmission) && resends {
            return None;
        }
        if header.packet_type == PacketType::Data {
            if has(Flaw::SerialIsSeq) {
                header.serial = Serial(header.seq.0);
            }
            if has(Flaw::AlwaysLast) {
                header.flags = header.flags.with(Flags::LAST_PACKET);
            }
            datagram[..HEADER_LEN].copy_from_slice(&header.encode());
        }
        if has(Flaw::DuplicatesReset)
            && is_ack(&datagram)
            && datagram[REASON_AT] == AckReason::Duplicate.byte()
        {
            datagram[FIRST_AT..FIRST_AT + 4].copy_from_slice(&1u32.to_be_bytes());
        }
        Some(datagram)
    }

    /// In which order applications are told.
    pub fn reorder(&self, role: Role, notices: &mut [(CallTag, Notice)]) {
        if self.bounds.has(Flaw::EndsToldLate) && role == Role::Server {
            notices.sort_by_key(|(_, notice)| !matches!(notice, Notice::Incoming(_)));
        }
    }

    fn refuse(&self, world: &mut World, header: Header, story: &mut Story) {
        self.answer(world, PacketType::Busy, header, &[], story);
    }

    fn abort(&self, world: &mut World, header: Header, story: &mut Story) {
        self.answer(world, PacketType::Abort, header, &7u32.to_be_bytes(), story);
    }

    fn answer(
        &self,
        world: &mut World,
        packet_type: PacketType,
        header: Header,
        payload: &[u8],
        story: &mut Story,
    ) {
        self.drive(world, Role::Server, story, |channel, out: &mut ChannelOutput| {
            let serial = next_serial(channel);
            let (flags, seq) = (Flags::NONE, Default::default());
            let header = Header { packet_type, serial, flags, seq, ..header };
            out.datagrams.push(&header, payload);
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

/// Without the implicit end, a call that waits for its final ACK keeps the next one out.
fn is_refused(server: &Host, header: &Header) -> bool {
    header.packet_type == PacketType::Data
        && header.call_number > server.channel.call_number()
        && server.channel.state() == Some(CallState::ServerAwaitAck)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_be_bytes)
}
