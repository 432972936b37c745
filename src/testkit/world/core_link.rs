//! The service of a plan at a bare core, step by step: what [`super::tree`] writes as an async function.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::book::Book;
use super::plan::{Answer, HostIndex};
use crate::proto::CallFailure;
use crate::proto::channel::{Command, Notice};

/// As much as the user's half of a call gathers before it hands it on (see `stream.rs`).
const GATHER_BYTES: usize = 16 * 1024;

/// What a service waits for.
pub(super) enum Wish {
    /// A word of its channel.
    Wait,
    /// So much time, on behalf of this call.
    Sleep(u32, Duration),
    /// Nothing any more.
    Over,
}

enum Stage {
    Reading,
    Pausing,
    Thinking,
    Writing(Bytes),
    AwaitAcknowledged,
}

/// See the module.
pub(super) struct Serving {
    stage: Stage,
    events: VecDeque<Notice>,
    pieces: VecDeque<Bytes>,
    owed_packets: u32,
    owed_bytes: usize,
    has_ended: bool,
    failure: Option<CallFailure>,
    acknowledged: Option<bool>,
    gathered: Vec<u8>,
    credit: u64,
    is_finished: bool,
    commands: Vec<Command>,
    id: Option<u32>,
    bytes: Vec<u8>,
    read: u32,
}

impl Serving {
    pub fn new(credit: u64) -> Serving {
        Serving {
            stage: Stage::Reading,
            events: VecDeque::new(),
            pieces: VecDeque::new(),
            owed_packets: 0,
            owed_bytes: 0,
            has_ended: false,
            failure: None,
            acknowledged: None,
            gathered: Vec::new(),
            credit,
            is_finished: false,
            commands: Vec::new(),
            id: None,
            bytes: Vec::new(),
            read: 0,
        }
    }

    pub fn tell(&mut self, notice: Notice) {
        self.events.push_back(notice);
    }

    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Goes on as far as it can. `is_awake` = its sleep is over.
    pub fn poll(&mut self, book: &Book, host: HostIndex, life: u32, mut is_awake: bool) -> Wish {
        loop {
            match &mut self.stage {
                Stage::Pausing if is_awake => self.stage = Stage::Reading,
                Stage::Thinking if is_awake => {
                    if self.answer(book, host, life) {
                        return self.over();
                    }
                }
                Stage::Pausing | Stage::Thinking => return Wish::Wait,
                Stage::Reading => match self.read(book, host, life) {
                    Some(wish) => return wish,
                    None => {
                        if self.answer(book, host, life) {
                            return self.over();
                        }
                    }
                },
                Stage::Writing(_) => match self.write() {
                    None => return Wish::Wait,
                    Some(Err(failure)) => return self.fail(book, host, life, failure),
                    Some(Ok(())) => {
                        book.replied(host, life, self.id.unwrap_or(0));
                        let bytes = Bytes::from(std::mem::take(&mut self.gathered));
                        self.commands.push(Command::Write { bytes, ends: true, flushes: false });
                        self.stage = Stage::AwaitAcknowledged;
                    }
                },
                Stage::AwaitAcknowledged => {
                    if let Some(wholly) = self.acknowledged {
                        book.acknowledged(host, life, self.id.unwrap_or(0), wholly);
                        return self.over();
                    }
                    if let Some(failure) = self.failure {
                        return self.fail(book, host, life, failure);
                    }
                    if !self.take_event() {
                        return Wish::Wait;
                    }
                }
            }
            is_awake = false;
        }
    }

    /// Reads on; `None` = the request is whole, and the service has thought.
    fn read(&mut self, book: &Book, host: HostIndex, life: u32) -> Option<Wish> {
        loop {
            while let Some(piece) = self.pieces.pop_front() {
                self.owed_packets += 1;
                self.owed_bytes += piece.len();
                if piece.is_empty() {
                    continue;
                }
                let checked = self.bytes.len();
                self.bytes.extend_from_slice(&piece);
                self.id = book.request_so_far(host, &self.bytes, checked).or(self.id);
                self.read += 1;
                let call = self.id.and_then(|id| book.plan.call(id));
                if let Some(call) = call
                    && let Some(every) = call.pause_every
                    && self.read.is_multiple_of(every)
                {
                    self.stage = Stage::Pausing;
                    return Some(Wish::Sleep(call.id, call.pause));
                }
            }
            if self.has_ended {
                break;
            }
            if let Some(failure) = self.failure {
                return Some(self.fail(book, host, life, failure));
            }
            if !self.take_event() {
                if self.owed_packets > 0 {
                    let (packets, bytes) = (self.owed_packets, self.owed_bytes);
                    (self.owed_packets, self.owed_bytes) = (0, 0);
                    self.commands.push(Command::Consumed { packets, bytes });
                }
                return Some(Wish::Wait);
            }
        }
        let id = self.id.unwrap_or(u32::MAX);
        book.request_whole(host, life, id, &self.bytes);
        let think = book.plan.call(id).map_or(Duration::ZERO, |call| call.think);
        if think.is_zero() {
            return None;
        }
        self.stage = Stage::Thinking;
        Some(Wish::Sleep(id, think))
    }

    /// The service's answer; `true` = that is all.
    fn answer(&mut self, book: &Book, host: HostIndex, life: u32) -> bool {
        let id = self.id.unwrap_or(u32::MAX);
        let Some(call) = book.plan.call(id) else { return true };
        match call.answer {
            Answer::Abort(code) => {
                self.is_finished = true;
                self.commands.push(Command::Abort(code));
                book.service_note(host, life, id, "aborts".to_owned());
                true
            }
            Answer::Drop => {
                book.service_note(host, life, id, "drops".to_owned());
                true
            }
            Answer::Reply => {
                self.stage = Stage::Writing(call.reply().into());
                false
            }
        }
    }

    /// Writes on; `None` = there is no room.
    fn write(&mut self) -> Option<Result<(), CallFailure>> {
        let Stage::Writing(bytes) = &mut self.stage else { return Some(Ok(())) };
        let mut bytes = std::mem::take(bytes);
        while !bytes.is_empty() {
            match self.room() {
                Some(Ok(room)) => {
                    let is_small = bytes.len() < GATHER_BYTES;
                    let count = bytes.len().min(room as usize);
                    if is_small {
                        self.gathered.extend_from_slice(&bytes.split_to(count));
                        if self.gathered.len() >= GATHER_BYTES {
                            self.send_gathered();
                        }
                    } else {
                        self.send_gathered();
                        let piece = bytes.split_to(count);
                        self.credit -= count as u64;
                        let write = Command::Write { bytes: piece, ends: false, flushes: false };
                        self.commands.push(write);
                    }
                }
                Some(Err(failure)) => return Some(Err(failure)),
                None => {
                    self.stage = Stage::Writing(bytes);
                    return None;
                }
            }
        }
        Some(Ok(()))
    }

    fn room(&mut self) -> Option<Result<u64, CallFailure>> {
        while self.failure.is_none() && self.take_event() {}
        loop {
            if let Some(failure) = self.failure {
                return Some(Err(failure));
            }
            let room = self.credit.saturating_sub(self.gathered.len() as u64);
            if room > 0 {
                return Some(Ok(room));
            }
            if !self.gathered.is_empty() {
                self.send_gathered();
                continue;
            }
            if !self.take_event() {
                return None;
            }
        }
    }

    fn send_gathered(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.gathered));
        self.credit = self.credit.saturating_sub(bytes.len() as u64);
        self.commands.push(Command::Write { bytes, ends: false, flushes: false });
    }

    fn fail(&mut self, book: &Book, host: HostIndex, life: u32, failure: CallFailure) -> Wish {
        if let Some(id) = self.id {
            book.service_note(host, life, id, format!("failed: {failure:?}"));
        }
        self.over()
    }

    /// The user's half is dropped.
    fn over(&mut self) -> Wish {
        if !self.is_finished {
            self.commands.push(Command::End);
        }
        Wish::Over
    }

    fn take_event(&mut self) -> bool {
        let Some(notice) = self.events.pop_front() else { return false };
        match notice {
            Notice::Data(pieces) => self.pieces.extend(pieces),
            Notice::End => self.has_ended = true,
            Notice::Credit(bytes) => self.credit += bytes,
            Notice::Failed(failure) => {
                self.failure = Some(failure);
                self.is_finished = failure != CallFailure::Overtaken;
            }
            Notice::Acknowledged(wholly) => {
                self.acknowledged = Some(wholly);
                self.is_finished = true;
            }
            Notice::Incoming(_) | Notice::Started(_) => {}
        }
        true
    }
}
