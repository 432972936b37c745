//! The channel's end of a client's call, which travels there by way of the connection.

use std::sync::Arc;

use actix::Addr;
use bytes::{Bytes, BytesMut};
use futures::channel::{mpsc, oneshot};

use crate::actors::Channel;
use crate::error::CallError;
use crate::proto::channel::{Command, Notice, Pieces, Start};
use crate::proto::{CallFailure, CallTag};
use crate::wire::AbortCode;

/// How a call ended, or that it never began.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// It ended, or began.
    Done(Result<T, CallError>),
    /// No connection took it: nothing was sent, another may have it.
    NotTaken,
}

/// A streaming call has its channel.
#[derive(Debug)]
pub(crate) struct Opened {
    pub channel: Arc<Addr<Channel>>,
    pub tag: CallTag,
}

/// Where the answers of a client's call go.
#[derive(Debug)]
pub struct ClientPort {
    kind: Kind,
    /// A connection has it: from here on a lost port is a broken call, and the call is not made again.
    is_taken: bool,
}

#[derive(Debug)]
enum Kind {
    Whole {
        reply: Option<oneshot::Sender<Answer<Bytes>>>,
        pieces: Pieces,
        len: usize,
        max_bytes: usize,
    },
    Stream {
        opened: Option<oneshot::Sender<Answer<Opened>>>,
        events: mpsc::UnboundedSender<Notice>,
    },
}

impl ClientPort {
    pub(crate) fn whole(reply: oneshot::Sender<Answer<Bytes>>, max_bytes: usize) -> ClientPort {
        let kind = Kind::Whole { reply: Some(reply), pieces: Pieces::new(), len: 0, max_bytes };
        ClientPort { kind, is_taken: false }
    }

    pub(crate) fn stream(
        opened: oneshot::Sender<Answer<Opened>>,
        events: mpsc::UnboundedSender<Notice>,
    ) -> ClientPort {
        ClientPort { kind: Kind::Stream { opened: Some(opened), events }, is_taken: false }
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_canceled(&self) -> bool {
        match &self.kind {
            Kind::Whole { reply, .. } => reply.as_ref().is_none_or(oneshot::Sender::is_canceled),
            Kind::Stream { events, .. } => events.is_closed(),
        }
    }

    pub(crate) fn taken(&mut self) {
        self.is_taken = true;
    }

    /// Whether the user will speak to the channel itself.
    pub(crate) fn wants_link(&self) -> bool {
        matches!(self.kind, Kind::Stream { .. })
    }

    /// The call has its channel.
    pub(crate) fn opened(&mut self, channel: Arc<Addr<Channel>>, tag: CallTag) {
        if let Kind::Stream { opened, .. } = &mut self.kind
            && let Some(opened) = opened.take()
        {
            // A user that went away is noticed by the next notice.
            let _ = opened.send(Answer::Done(Ok(Opened { channel, tag })));
        }
    }

    /// Tells the user; returns what the channel shall do in its place.
    pub(crate) fn notify(&mut self, notice: Notice) -> Option<Command> {
        match &mut self.kind {
            Kind::Stream { events, .. } => {
                // A user that went away has said so itself.
                let _ = events.unbounded_send(notice);
                None
            }
            Kind::Whole { reply, pieces, len, max_bytes } => match notice {
                Notice::Data(more) => {
                    let bytes: usize = more.iter().map(Bytes::len).sum();
                    let packets = more.len() as u32;
                    *len += bytes;
                    if *len > *max_bytes {
                        let error = CallError::ReplyTooLarge(*max_bytes);
                        answer(reply, Answer::Done(Err(error)));
                        return Some(Command::Abort(AbortCode::USER_ABORT));
                    }
                    if pieces.is_empty() {
                        *pieces = more;
                    } else {
                        pieces.extend(more);
                    }
                    Some(Command::Consumed { packets, bytes })
                }
                Notice::End => Some(Command::End),
                Notice::Failed(failure) => {
                    answer(reply, Answer::Done(Err(failure.into())));
                    None
                }
                _ => None,
            },
        }
    }

    /// The whole reply is there, and the channel is free.
    pub(crate) fn finish(mut self) {
        if let Kind::Whole { reply, pieces, len, .. } = &mut self.kind {
            let bytes = match pieces.len() {
                0 => Bytes::new(),
                1 => pieces.swap_remove(0),
                _ => {
                    let mut joined = BytesMut::with_capacity(*len);
                    pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                    joined.freeze()
                }
            };
            answer(reply, Answer::Done(Ok(bytes)));
        }
    }

    /// The call never began.
    pub(crate) fn refuse(mut self, failure: CallFailure) {
        match &mut self.kind {
            Kind::Whole { reply, .. } => answer(reply, Answer::Done(Err(failure.into()))),
            Kind::Stream { opened, .. } => answer(opened, Answer::Done(Err(failure.into()))),
        }
    }

    /// Another connection has to take the call.
    pub(crate) fn give_back(mut self, _: Start) {
        self.is_taken = false;
    }
}

impl Drop for ClientPort {
    fn drop(&mut self) {
        if self.is_taken {
            // Its sender goes with it, which tells the user that the call broke.
            return;
        }
        match &mut self.kind {
            Kind::Whole { reply, .. } => answer(reply, Answer::NotTaken),
            Kind::Stream { opened, .. } => answer(opened, Answer::NotTaken),
        }
    }
}

/// A user that does not wait any more does not want to know.
fn answer<T>(to: &mut Option<oneshot::Sender<Answer<T>>>, answer: Answer<T>) {
    if let Some(to) = to.take() {
        let _ = to.send(answer);
    }
}
