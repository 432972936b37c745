//! The user's end of a call that streams: bytes that come with credit to give back, bytes that go with
//! credit to use up. Client and server share it; which half may run when is a matter of their types.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix::Addr;
use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use futures::channel::mpsc;

use crate::actors::Channel;
use crate::actors::messages::{CallCommand, RunningCall};
use crate::error::StreamError;
use crate::proto::channel::{Command, Notice, Pieces};
use crate::proto::{CallFailure, CallTag};
use crate::wire::AbortCode;

/// Bytes that a writer gathers before it hands them on: several packets, so that a message is worth it.
const GATHER_BYTES: usize = 16 * 1024;

/// A call's link to its channel.
#[derive(Debug)]
pub(crate) struct Link {
    channel: Arc<Addr<Channel>>,
    tag: CallTag,
    /// `None` = there is nothing to hear: all of the request came with the call, and no more is wanted.
    events: Option<mpsc::UnboundedReceiver<Notice>>,
    pieces: VecDeque<Bytes>,
    /// The piece that is being read, and its whole length.
    reading: Option<(Bytes, usize)>,
    owed_packets: u32,
    owed_bytes: usize,
    has_ended: bool,
    failure: Option<CallFailure>,
    /// A stream has given its failure, and ends.
    has_told_failure: bool,
    acknowledged: Option<bool>,
    gathered: BytesMut,
    credit: u64,
    is_finished: bool,
    /// Shared with a [`LinkGuard`], if there is one.
    guarded: Option<Arc<AtomicU8>>,
    /// The deadline that the caller set, for what it is told when that has passed.
    deadline: Option<Duration>,
    /// Given back when the service lets go of its call.
    _place: Option<RunningCall>,
}

/// The part of a request that came with the call itself: no queue for it.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    pieces: Pieces,
    has_ended: bool,
}

impl Begun {
    /// Whether this notice can be taken in.
    pub fn takes(notice: &Notice) -> bool {
        matches!(notice, Notice::Data(_) | Notice::End)
    }

    /// Whether all of the request is in it.
    pub fn is_whole(&self) -> bool {
        self.has_ended
    }

    /// Takes the next notice in.
    pub fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Data(pieces) if self.pieces.is_empty() => self.pieces = pieces,
            Notice::Data(pieces) => self.pieces.extend(pieces),
            Notice::End => self.has_ended = true,
            _ => debug_assert!(false, "asked before"),
        }
    }
}

impl Link {
    pub fn new(
        channel: Arc<Addr<Channel>>,
        tag: CallTag,
        credit: u64,
        events: Option<mpsc::UnboundedReceiver<Notice>>,
    ) -> Link {
        Link {
            channel,
            tag,
            events,
            pieces: VecDeque::new(),
            reading: None,
            owed_packets: 0,
            owed_bytes: 0,
            has_ended: false,
            failure: None,
            has_told_failure: false,
            acknowledged: None,
            gathered: BytesMut::new(),
            credit,
            is_finished: false,
            guarded: None,
            deadline: None,
            _place: None,
        }
    }

    /// It keeps its call's place among those of the service that run at once.
    pub fn with_place(mut self, place: Option<RunningCall>) -> Link {
        self._place = place;
        self
    }

    /// What has come before the link was made.
    pub fn with_begun(mut self, begun: Begun) -> Link {
        let mut pieces = begun.pieces.into_iter().peekable();
        // One piece, the usual case, needs no queue.
        self.reading = pieces.next_if(|first| !first.is_empty()).map(|first| {
            let len = first.len();
            (first, len)
        });
        self.pieces.extend(pieces);
        self.has_ended = begun.has_ended;
        self
    }

    /// Of the deadline, the channel only knows what was left when the call began.
    pub fn with_deadline(mut self, deadline: Option<Duration>) -> Link {
        self.deadline = deadline;
        self
    }

    /// The next piece of what the peer sends; `None` at its end. A piece counts as taken when it is given.
    pub fn poll_piece(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamError>>> {
        if let Some((rest, whole)) = self.reading.take() {
            self.owe(whole);
            if !rest.is_empty() {
                return Poll::Ready(Some(Ok(rest)));
            }
        }
        loop {
            while let Some(piece) = self.pieces.pop_front() {
                self.owe(piece.len());
                if !piece.is_empty() {
                    return Poll::Ready(Some(Ok(piece)));
                }
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            if let Some(failure) = self.failure {
                return Poll::Ready(Some(Err(failure.into())));
            }
            // Credit goes back once a batch, and only if more is expected.
            if self.poll_event(task).is_pending() {
                self.give_credit();
                return Poll::Pending;
            }
        }
    }

    /// As [`Link::poll_piece`], for a stream: a failure is its last item.
    pub fn poll_item(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamError>>> {
        if self.has_told_failure {
            return Poll::Ready(None);
        }
        let item = ready!(self.poll_piece(task));
        self.has_told_failure = matches!(item, Some(Err(_)));
        Poll::Ready(item)
    }

    /// As [`Link::poll_piece`], into a buffer: 0 at the end.
    pub fn poll_read(
        &mut self,
        task: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.reading.is_none() {
            match ready!(self.poll_piece(task)) {
                None => return Poll::Ready(Ok(0)),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(piece)) => {
                    // Not wholly taken yet.
                    let whole = piece.len();
                    self.owed_packets -= 1;
                    self.owed_bytes -= whole;
                    self.reading = Some((piece, whole));
                }
            }
        }
        let Some((piece, whole)) = &mut self.reading else { return Poll::Ready(Ok(0)) };
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        piece.advance(count);
        if piece.is_empty() {
            let whole = *whole;
            self.reading = None;
            self.owe(whole);
        }
        Poll::Ready(Ok(count))
    }

    /// Whether the peer's direction is wholly here.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether the peer's direction is wholly read.
    pub fn is_at_end(&self) -> bool {
        self.has_ended && self.pieces.is_empty() && self.reading.is_none()
    }

    /// Room to write: at least one byte.
    pub fn poll_room(&mut self, task: &mut Context<'_>) -> Poll<Result<u64, StreamError>> {
        // A failure stops a writer at once, however much room it has.
        while self.failure.is_none() && self.poll_event(task).is_ready() {}
        loop {
            if let Some(failure) = self.failure {
                return Poll::Ready(Err(failure.into()));
            }
            let room = self.credit.saturating_sub(self.gathered.len() as u64);
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            if !self.gathered.is_empty() {
                self.send_gathered(false);
                continue;
            }
            ready!(self.poll_event(task));
        }
    }

    /// Takes bytes to be sent, as many as there is room for.
    pub fn poll_write(
        &mut self,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(task))?;
        let count = bytes.len().min(room as usize).min(GATHER_BYTES);
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() >= GATHER_BYTES {
            self.send_gathered(false);
        }
        Poll::Ready(Ok(count))
    }

    /// Takes bytes without copying them, as many as there is room for; the rest stays in `bytes`.
    pub fn poll_write_bytes(
        &mut self,
        task: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        while !bytes.is_empty() {
            if bytes.len() < GATHER_BYTES {
                let count = ready!(self.poll_write(task, bytes))?;
                bytes.advance(count);
                continue;
            }
            let room = ready!(self.poll_room(task))?;
            self.send_gathered(false);
            let count = bytes.len().min(room as usize);
            let piece = bytes.split_to(count);
            self.credit -= count as u64;
            self.command(Command::Write { bytes: piece, ends: false, flushes: false });
        }
        Poll::Ready(Ok(()))
    }

    /// What was written so far leaves, in a short packet if need be.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        if let Some(failure) = self.failure {
            return Err(failure.into());
        }
        self.send_gathered(true);
        Ok(())
    }

    /// Ends our direction.
    pub fn finish_writing(&mut self, last: Bytes) {
        let bytes = if self.gathered.is_empty() {
            last
        } else {
            self.gathered.extend_from_slice(&last);
            self.gathered.split().freeze()
        };
        self.command(Command::Write { bytes, ends: true, flushes: false });
    }

    /// The peer's direction is not wanted any more.
    pub fn discard(&mut self) {
        self.pieces.clear();
        self.reading = None;
        if !self.has_ended {
            self.command(Command::Discard);
        }
    }

    /// Whether our direction was acknowledged to its end.
    pub fn poll_acknowledged(&mut self, task: &mut Context<'_>) -> Poll<Result<bool, StreamError>> {
        loop {
            if let Some(acknowledged) = self.acknowledged {
                return Poll::Ready(Ok(acknowledged));
            }
            if let Some(failure) = self.failure {
                return Poll::Ready(Err(failure.into()));
            }
            ready!(self.poll_event(task));
        }
    }

    /// Why the call failed, as soon as it has. What comes meanwhile is kept for the reader.
    pub fn poll_failure(&mut self, task: &mut Context<'_>) -> Poll<CallFailure> {
        loop {
            if let Some(failure) = self.failure {
                return Poll::Ready(failure);
            }
            ready!(self.poll_event(task));
        }
    }

    /// Ends the call with this code.
    pub fn abort(&mut self, code: AbortCode) {
        if !self.is_finished {
            self.is_finished = true;
            self.command(Command::Abort(code));
        }
    }

    /// Nothing more is said: the channel needs no word when this is dropped.
    pub fn settle(&mut self) {
        self.is_finished = true;
    }

    /// Whether the call has failed, as far as we have looked.
    pub fn failure(&self) -> Option<CallFailure> {
        self.failure
    }

    /// From now on, a drop of this link alone does not end the call as long as the guard is there.
    pub fn guard(&mut self) -> LinkGuard {
        let state = Arc::new(AtomicU8::new(GUARDED));
        self.guarded = Some(state.clone());
        LinkGuard { channel: self.channel.clone(), tag: self.tag, state }
    }

    fn poll_event(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let notice = match &mut self.events {
            Some(events) => ready!(Pin::new(events).poll_next(task)),
            None => None,
        };
        match notice {
            Some(Notice::Data(pieces)) => self.pieces.extend(pieces),
            Some(Notice::End) => self.has_ended = true,
            Some(Notice::Credit(bytes)) => self.credit += bytes,
            Some(Notice::Failed(failure)) => {
                self.failure = Some(match (failure, self.deadline) {
                    (CallFailure::Deadline(_), Some(asked)) => CallFailure::Deadline(asked),
                    _ => failure,
                });
                // Where calls are not taken over, the channel waits until its application has let go of it.
                self.is_finished = failure != CallFailure::Overtaken;
            }
            Some(Notice::Acknowledged(wholly)) => {
                self.acknowledged = Some(wholly);
                self.is_finished = true;
            }
            Some(Notice::Incoming(_) | Notice::Started(_)) => {}
            // The channel broke, or its endpoint is gone.
            None => {
                self.failure.get_or_insert(CallFailure::Broken);
                self.is_finished = true;
            }
        }
        Poll::Ready(())
    }

    fn owe(&mut self, bytes: usize) {
        self.owed_packets += 1;
        self.owed_bytes += bytes;
    }

    fn give_credit(&mut self) {
        if self.owed_packets > 0 && !self.has_ended {
            let (packets, bytes) = (self.owed_packets, self.owed_bytes);
            self.owed_packets = 0;
            self.owed_bytes = 0;
            self.command(Command::Consumed { packets, bytes });
        }
    }

    fn send_gathered(&mut self, flushes: bool) {
        if self.gathered.is_empty() && !flushes {
            return;
        }
        let bytes = self.gathered.split().freeze();
        self.credit = self.credit.saturating_sub(bytes.len() as u64);
        self.command(Command::Write { bytes, ends: false, flushes });
    }

    fn command(&self, command: Command) {
        self.channel.do_send(CallCommand { tag: self.tag, command });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let waits_for_guard = self.guarded.as_ref().is_some_and(|state| {
            state.compare_exchange(GUARDED, DROPPED, Ordering::AcqRel, Ordering::Acquire).is_ok()
        });
        if !waits_for_guard {
            self.command(Command::End);
        }
    }
}

/// A guard and its link are there; the link is gone; the guard is gone.
const GUARDED: u8 = 0;
const DROPPED: u8 = 1;
const RELEASED: u8 = 2;

/// The last word on a call. A service's future drops its call as it returns an error, before anybody can
/// look at the error: the guard lets the error's code be the one that the client is sent. Both may be on
/// any thread, hence the atomic.
#[derive(Debug)]
pub(crate) struct LinkGuard {
    channel: Arc<Addr<Channel>>,
    tag: CallTag,
    state: Arc<AtomicU8>,
}

impl LinkGuard {
    /// Ends the call with this code, unless it is over.
    pub fn abort(&self, code: AbortCode) {
        self.channel.do_send(CallCommand { tag: self.tag, command: Command::Abort(code) });
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        if self.state.swap(RELEASED, Ordering::AcqRel) == DROPPED {
            self.channel.do_send(CallCommand { tag: self.tag, command: Command::End });
        }
    }
}

/// The traits of a reading half around its `link` field.
macro_rules! reads {
    ($name:ident) => {
        impl futures::Stream for $name {
            type Item = Result<bytes::Bytes, $crate::error::StreamError>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                task: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.link.poll_item(task)
            }
        }

        impl futures::AsyncRead for $name {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                task: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.link.poll_read(task, buffer).map_err(Into::into)
            }
        }

        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                task: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let count =
                    std::task::ready!(self.link.poll_read(task, buffer.initialize_unfilled()))?;
                buffer.advance(count);
                std::task::Poll::Ready(Ok(()))
            }
        }

        impl $name {
            /// All that is left, at most `max_bytes`.
            ///
            /// # Errors
            /// The call failed, or more came: then the call goes on, and dropping the reader ends it.
            pub async fn read_all(
                &mut self,
                max_bytes: usize,
            ) -> Result<bytes::Bytes, $crate::error::StreamError> {
                let mut first = bytes::Bytes::new();
                let mut joined = bytes::BytesMut::new();
                while let Some(piece) =
                    std::future::poll_fn(|task| self.link.poll_piece(task)).await
                {
                    let piece = piece?;
                    if first.len() + joined.len() + piece.len() > max_bytes {
                        return Err($crate::error::StreamError::TooLarge(max_bytes));
                    }
                    if first.is_empty() && joined.is_empty() {
                        // One piece needs no copy.
                        first = piece;
                        continue;
                    }
                    if joined.is_empty() {
                        joined.extend_from_slice(&first);
                        first = bytes::Bytes::new();
                    }
                    joined.extend_from_slice(&piece);
                }
                Ok(if joined.is_empty() { first } else { joined.freeze() })
            }
        }
    };
}
pub(crate) use reads;

/// The traits of a writing half around its `link` field. Closing through a trait ends the direction.
macro_rules! writes {
    ($name:ident) => {
        impl $name {
            /// Sends bytes, without copying large ones; waits while the peer or the network is slower. Less
            /// than a packet may stay here until more is written, or it is flushed or finished.
            ///
            /// # Errors
            /// The call has failed.
            pub async fn write(
                &mut self,
                bytes: impl Into<bytes::Bytes>,
            ) -> Result<(), $crate::error::StreamError> {
                let mut bytes = bytes.into();
                std::future::poll_fn(|task| self.link.poll_write_bytes(task, &mut bytes)).await
            }

            /// Resolves when the call has failed: the peer aborted it or fell silent, or it was cut off
            /// here. Pending for as long as the call goes on, so that long work can be given up in a
            /// `select!`. What the peer sends meanwhile is not lost.
            pub async fn failed(&mut self) -> $crate::proto::CallFailure {
                std::future::poll_fn(|task| self.link.poll_failure(task)).await
            }

            /// Lets everything written so far leave now, in a short packet if need be.
            pub fn flush_now(&mut self) -> Result<(), $crate::error::StreamError> {
                self.link.flush()
            }

            fn poll_close_once(&mut self) -> std::io::Result<()> {
                if let Some(failure) = self.link.failure() {
                    return Err($crate::error::StreamError::Failed(failure).into());
                }
                if !std::mem::replace(&mut self.is_closed, true) {
                    self.link.finish_writing(bytes::Bytes::new());
                }
                Ok(())
            }
        }

        impl futures::AsyncWrite for $name {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                task: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.link.poll_write(task, bytes).map_err(Into::into)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(self.link.flush().map_err(Into::into))
            }

            fn poll_close(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(self.poll_close_once())
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                task: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.link.poll_write(task, bytes).map_err(Into::into)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(self.link.flush().map_err(Into::into))
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(self.poll_close_once())
            }
        }
    };
}
pub(crate) use writes;
