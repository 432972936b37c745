//! The service of a plan at a bare core, step by step: what [`super::tree`] writes as an async function.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::book::Book;
use super::half::Half;
use super::plan::{Answer, HostIndex};
use crate::proto::CallFailure;
use crate::proto::channel::{Command, Notice};

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
    half: Half,
    id: Option<u32>,
    bytes: Vec<u8>,
    read: u32,
}

impl Serving {
    pub fn new(credit: u64) -> Serving {
        let half = Half::new(credit);
        Serving { stage: Stage::Reading, half, id: None, bytes: Vec::new(), read: 0 }
    }

    pub fn tell(&mut self, notice: Notice) {
        self.half.tell(notice);
    }

    pub fn take_commands(&mut self) -> Vec<Command> {
        self.half.take_commands()
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
                Stage::Writing(bytes) => match self.half.poll_write(bytes) {
                    Poll::Pending => return Wish::Wait,
                    Poll::Ready(Err(failure)) => return self.fail(book, host, life, failure),
                    Poll::Ready(Ok(())) => {
                        book.replied(host, life, self.id.unwrap_or(0));
                        self.half.finish_writing();
                        self.stage = Stage::AwaitAcknowledged;
                    }
                },
                Stage::AwaitAcknowledged => match self.half.poll_acknowledged() {
                    Poll::Pending => return Wish::Wait,
                    Poll::Ready(Err(failure)) => return self.fail(book, host, life, failure),
                    Poll::Ready(Ok(wholly)) => {
                        book.acknowledged(host, life, self.id.unwrap_or(0), wholly);
                        return self.over();
                    }
                },
            }
            is_awake = false;
        }
    }

    /// Reads on; `None` = the request is whole, and the service has thought.
    fn read(&mut self, book: &Book, host: HostIndex, life: u32) -> Option<Wish> {
        loop {
            let piece = match self.half.poll_piece() {
                Poll::Pending => return Some(Wish::Wait),
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(failure))) => {
                    return Some(self.fail(book, host, life, failure));
                }
                Poll::Ready(Some(Ok(piece))) => piece,
            };
            let checked = self.bytes.len();
            self.bytes.extend_from_slice(&piece);
            self.id = book.request_so_far(host, life, &self.bytes, checked).or(self.id);
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
                self.half.abort(code);
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

    fn fail(&mut self, book: &Book, host: HostIndex, life: u32, failure: CallFailure) -> Wish {
        if let Some(id) = self.id {
            book.service_note(host, life, id, format!("failed: {failure:?}"));
        }
        self.over()
    }

    fn over(&mut self) -> Wish {
        self.half.let_go();
        Wish::Over
    }
}
