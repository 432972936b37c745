//! The user's end of a call at a bare core: word for word what `stream.rs` does for users of actors.

use std::collections::VecDeque;
use std::task::Poll;

use bytes::Bytes;

use crate::proto::CallFailure;
use crate::proto::channel::{Command, Notice};

/// As much as a user's end gathers before it hands it on (see `stream.rs`).
const GATHER_BYTES: usize = 16 * 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Half {
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
}

impl Half {
    pub fn new(credit: u64) -> Half {
        Half { credit, ..Half::default() }
    }

    pub fn tell(&mut self, notice: Notice) {
        self.events.push_back(notice);
    }

    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Why the call failed, as far as was looked.
    pub fn failure(&self) -> Option<CallFailure> {
        self.failure
    }

    /// The next piece of what the peer sends; `None` at its end.
    pub fn poll_piece(&mut self) -> Poll<Option<Result<Bytes, CallFailure>>> {
        loop {
            while let Some(piece) = self.pieces.pop_front() {
                self.owed_packets += 1;
                self.owed_bytes += piece.len();
                if !piece.is_empty() {
                    return Poll::Ready(Some(Ok(piece)));
                }
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            if let Some(failure) = self.failure {
                return Poll::Ready(Some(Err(failure)));
            }
            if !self.take_event() {
                self.give_credit();
                return Poll::Pending;
            }
        }
    }

    /// Writes on; what there is no room for stays in `bytes`.
    pub fn poll_write(&mut self, bytes: &mut Bytes) -> Poll<Result<(), CallFailure>> {
        while !bytes.is_empty() {
            let room = match self.poll_room() {
                Poll::Ready(Ok(room)) => room,
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => return Poll::Pending,
            };
            let is_small = bytes.len() < GATHER_BYTES;
            let count = bytes.len().min(room as usize);
            if is_small {
                self.gathered.extend_from_slice(&bytes.split_to(count));
                if self.gathered.len() >= GATHER_BYTES {
                    self.send_gathered(false);
                }
            } else {
                self.send_gathered(false);
                let piece = bytes.split_to(count);
                self.credit -= count as u64;
                self.commands.push(Command::Write { bytes: piece, ends: false, flushes: false });
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What was written so far leaves.
    pub fn flush(&mut self) -> Result<(), CallFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.send_gathered(true);
        Ok(())
    }

    /// Ends our direction.
    pub fn finish_writing(&mut self) {
        let bytes = Bytes::from(std::mem::take(&mut self.gathered));
        self.commands.push(Command::Write { bytes, ends: true, flushes: false });
    }

    /// Whether our direction was acknowledged to its end.
    pub fn poll_acknowledged(&mut self) -> Poll<Result<bool, CallFailure>> {
        loop {
            if let Some(wholly) = self.acknowledged {
                return Poll::Ready(Ok(wholly));
            }
            if let Some(failure) = self.failure {
                return Poll::Ready(Err(failure));
            }
            if !self.take_event() {
                return Poll::Pending;
            }
        }
    }

    pub fn abort(&mut self, code: crate::wire::AbortCode) {
        self.is_finished = true;
        self.commands.push(Command::Abort(code));
    }

    /// The user lets go of the call.
    pub fn let_go(&mut self) {
        if !self.is_finished {
            self.is_finished = true;
            self.commands.push(Command::End);
        }
    }

    fn poll_room(&mut self) -> Poll<Result<u64, CallFailure>> {
        while self.failure.is_none() && self.take_event() {}
        loop {
            if let Some(failure) = self.failure {
                return Poll::Ready(Err(failure));
            }
            let room = self.credit.saturating_sub(self.gathered.len() as u64);
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            if !self.gathered.is_empty() {
                self.send_gathered(false);
                continue;
            }
            if !self.take_event() {
                return Poll::Pending;
            }
        }
    }

    fn send_gathered(&mut self, flushes: bool) {
        if self.gathered.is_empty() && !flushes {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.gathered));
        self.credit = self.credit.saturating_sub(bytes.len() as u64);
        self.commands.push(Command::Write { bytes, ends: false, flushes });
    }

    fn give_credit(&mut self) {
        if self.owed_packets > 0 && !self.has_ended {
            let (packets, bytes) = (self.owed_packets, self.owed_bytes);
            (self.owed_packets, self.owed_bytes) = (0, 0);
            self.commands.push(Command::Consumed { packets, bytes });
        }
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
