//! A client's streamed call at a bare core, step by step: what [`super::tree`] writes as an async function.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::book::ClientEnd;
use super::half::Half;
use super::plan::{CallPlan, Streamed};
use crate::proto::channel::{Command, Notice};

/// What the client waits for.
pub(super) enum StreamWish {
    /// A word of its channel.
    Wait,
    /// So much time.
    Sleep(Duration),
    /// Nothing any more.
    Over(ClientEnd),
}

enum Stage {
    Writing(Bytes),
    PausingWriter,
    Reading,
    PausingReader,
}

/// See the module.
pub(super) struct Streaming {
    half: Half,
    plan: Streamed,
    stage: Stage,
    request: Bytes,
    read: u32,
    pub reply: Vec<u8>,
}

impl Streaming {
    pub fn new(call: &CallPlan, plan: Streamed) -> Streaming {
        let mut request = Bytes::from(call.request());
        let first = request.split_to(plan.piece_bytes.min(request.len()));
        let stage = Stage::Writing(first);
        Streaming { half: Half::new(0), plan, stage, request, read: 0, reply: Vec::new() }
    }

    pub fn tell(&mut self, notice: Notice) {
        self.half.tell(notice);
    }

    pub fn take_commands(&mut self) -> Vec<Command> {
        self.half.take_commands()
    }

    /// Goes on as far as it can. `is_awake` = its sleep is over.
    pub fn poll(&mut self, mut is_awake: bool) -> StreamWish {
        loop {
            match &mut self.stage {
                Stage::PausingWriter if is_awake => {
                    if let Some(end) = self.next_piece() {
                        return end;
                    }
                }
                Stage::PausingReader if is_awake => self.stage = Stage::Reading,
                Stage::PausingWriter | Stage::PausingReader => return StreamWish::Wait,
                Stage::Writing(bytes) => {
                    match self.half.poll_write(bytes) {
                        Poll::Pending => return StreamWish::Wait,
                        Poll::Ready(Err(failure)) => return self.over(ClientEnd::Failed(failure)),
                        Poll::Ready(Ok(())) => {}
                    }
                    if self.plan.flushes
                        && let Err(failure) = self.half.flush()
                    {
                        return self.over(ClientEnd::Failed(failure));
                    }
                    if !self.plan.pause.is_zero() {
                        self.stage = Stage::PausingWriter;
                        return StreamWish::Sleep(self.plan.pause);
                    }
                    if let Some(end) = self.next_piece() {
                        return end;
                    }
                }
                Stage::Reading => match self.half.poll_piece() {
                    Poll::Pending => return StreamWish::Wait,
                    Poll::Ready(None) => return self.over(ClientEnd::Good),
                    Poll::Ready(Some(Err(failure))) => {
                        return self.over(ClientEnd::Failed(failure));
                    }
                    Poll::Ready(Some(Ok(piece))) => {
                        self.reply.extend_from_slice(&piece);
                        self.read += 1;
                        if let Some(every) = self.plan.reads_every
                            && self.read.is_multiple_of(every)
                        {
                            self.stage = Stage::PausingReader;
                            return StreamWish::Sleep(self.plan.pause);
                        }
                    }
                },
            }
            is_awake = false;
        }
    }

    /// What is written next; after the last piece, the reply is read.
    fn next_piece(&mut self) -> Option<StreamWish> {
        if !self.request.is_empty() {
            let len = self.plan.piece_bytes.min(self.request.len());
            self.stage = Stage::Writing(self.request.split_to(len));
            return None;
        }
        if let Some(failure) = self.half.failure() {
            return Some(self.over(ClientEnd::Failed(failure)));
        }
        self.half.finish_writing();
        self.stage = Stage::Reading;
        None
    }

    fn over(&mut self, end: ClientEnd) -> StreamWish {
        self.half.let_go();
        StreamWish::Over(end)
    }
}
