//! The applications of both ends of a call: what they have done, were told, and may do next.

use bytes::Bytes;
use rxrpc::proto::channel::{Command, Notice};
use rxrpc::proto::{CallTag, Role};
use rxrpc::wire::AbortCode;

use crate::bounds::Shape;
use crate::rules::Rule;

/// What an application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// Client: begins its next call.
    Start,
    /// Takes what it was given.
    Read,
    /// Writes its next packet, or all that is left.
    Write,
    /// Client: has the whole reply.
    End,
    /// Aborts the call.
    Abort,
}

/// How a call ended for one of its applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Good,
    Failed,
}

/// One direction of a call, as its two applications know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Direction {
    /// Packets written.
    pub written: u8,
    /// Whether that was all.
    pub closed: bool,
    /// Packets delivered.
    pub got: u8,
    /// Of those, packets that the application has taken.
    pub read: u8,
    /// Whether its end was delivered.
    pub whole: bool,
}

/// One end of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Side {
    pub tag: Option<CallTag>,
    pub end: Option<End>,
}

/// One call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Call {
    /// Its number, once it has one.
    pub number: u32,
    pub client: Side,
    pub server: Side,
    pub request: Direction,
    pub reply: Direction,
    /// An application aborted it, or silence ended it at one side: then it may fail.
    pub is_excused: bool,
}

impl Call {
    pub fn side(&self, role: Role) -> &Side {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    /// It may fail from now on.
    pub fn excuse(&mut self) {
        self.is_excused = true;
    }

    fn side_mut(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// What this side receives.
    fn incoming(&mut self, role: Role) -> &mut Direction {
        match role {
            Role::Client => &mut self.reply,
            Role::Server => &mut self.request,
        }
    }

    /// Whether neither end has anything left to do or to hear.
    pub fn is_over(&self) -> bool {
        self.client.end.is_some() && (self.server.tag.is_none() || self.server.end.is_some())
    }

    /// Whether an abort of this side would be one: not once it has, or has given, the whole reply.
    pub fn may_abort(&self, role: Role) -> bool {
        let side = self.side(role);
        let is_late = if role == Role::Client { self.reply.whole } else { self.reply.closed };
        side.tag.is_some() && side.end.is_none() && !is_late
    }

    /// What an application may do now, aborts apart. `eager` = services reply before they have the request.
    pub fn words(&self, role: Role, eager: bool) -> impl Iterator<Item = Word> {
        let begun = self.side(role).tag.is_some();
        let ended = self.side(role).end.is_some();
        let incoming = if role == Role::Client { self.reply } else { self.request };
        let reads = !ended && incoming.read < incoming.got;
        let writes = match role {
            Role::Client => !ended && !self.request.closed,
            // A service that was told of a failure may not have noticed yet.
            Role::Server => !self.reply.closed && (ended || eager || self.request.whole),
        };
        let ends = role == Role::Client && !ended && self.reply.whole;
        [(reads, Word::Read), (writes, Word::Write), (ends, Word::End)]
            .into_iter()
            .filter_map(move |(may, word)| (begun && may).then_some(word))
    }
}

/// What one packet of a call carries.
pub fn byte(call: usize, role: Role, packet: u8) -> u8 {
    let from = if role == Role::Server { 0x80 } else { 0 };
    from | (call as u8 + 1) << 4 | packet
}

/// The command for a word, and what the call is afterwards.
pub fn command(call: &mut Call, index: usize, role: Role, word: Word, shape: Shape) -> Command {
    match word {
        Word::Read => {
            let incoming = call.incoming(role);
            let packets = incoming.got - incoming.read;
            incoming.read = incoming.got;
            Command::Consumed { packets: packets.into(), bytes: packets.into() }
        }
        Word::Write => {
            let (bytes, ends) = write(call, index, role, shape);
            Command::Write { bytes, ends, flushes: true }
        }
        Word::End => Command::End,
        Word::Abort => {
            call.is_excused = true;
            Command::Abort(AbortCode(7))
        }
        Word::Start => unreachable!("not a command"),
    }
}

/// The next bytes of this side, and whether they end its direction.
pub fn write(call: &mut Call, index: usize, role: Role, shape: Shape) -> (Bytes, bool) {
    let (direction, packets) = match role {
        Role::Client => (&mut call.request, shape.request),
        Role::Server => (&mut call.reply, shape.reply),
    };
    let from = direction.written;
    direction.written = if shape.is_piecewise { from + 1 } else { packets };
    direction.closed = direction.written == packets;
    let bytes = (from + 1..=direction.written).map(|packet| byte(index, role, packet));
    (bytes.collect(), direction.closed)
}

/// What an application is told. The server's tells of a call by its number.
pub fn hear(call: &mut Call, index: usize, role: Role, notice: &Notice) -> Option<Rule> {
    match notice {
        Notice::Data(pieces) => {
            let direction = call.incoming(role);
            let from = if role == Role::Client { Role::Server } else { Role::Client };
            for piece in pieces {
                direction.got += 1;
                if direction.got > direction.written
                    || piece[..] != [byte(index, from, direction.got)]
                {
                    return Some(Rule::NotWhatWasSent);
                }
            }
            None
        }
        Notice::End => {
            let direction = call.incoming(role);
            direction.whole = true;
            let is_all = direction.closed && direction.got == direction.written;
            (!is_all).then_some(Rule::NotWhatWasSent)
        }
        Notice::Failed(_) => {
            call.side_mut(role).end = Some(End::Failed);
            (!call.is_excused).then_some(Rule::FailedWithoutCause)
        }
        Notice::Acknowledged(true) => {
            call.side_mut(role).end = Some(End::Good);
            // Who gave up, or lost patience, may have had it all or not: its next call cannot tell.
            (!call.reply.whole && !call.is_excused).then_some(Rule::GoodAtOneEnd)
        }
        Notice::Acknowledged(false) => {
            call.side_mut(role).end = Some(End::Failed);
            (!call.is_excused).then_some(Rule::FailedWithoutCause)
        }
        Notice::Started(number) => {
            call.number = number.0;
            None
        }
        Notice::Incoming(_) | Notice::Credit(_) => None,
    }
}

/// The client has the reply and says so.
pub fn client_ends(call: &mut Call) -> Option<Rule> {
    call.client.end = Some(End::Good);
    let is_good = call.reply.whole && call.reply.closed && call.request.whole;
    (!is_good).then_some(Rule::GoodAtOneEnd)
}
