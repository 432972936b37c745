//! A call that has come: read the request, then write the reply.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Addr, Message};
use bytes::Bytes;
use futures::channel::mpsc;

use super::port::ServerPort;
use crate::actors::Channel;
use crate::actors::messages::RunningCall;
use crate::error::StreamError;
use crate::proto::{CallFailure, CallTag};
use crate::security::Identity;
use crate::stream::{Begun, Link, reads, writes};
use crate::wire::{AbortCode, CallNumber, ServiceId};

/// What is known of a call before it is read.
///
/// How long its client will wait is not: Rx carries no deadline to the server. A service sees that a client
/// has given up by `failed()` of [`IncomingCall`](IncomingCall::failed) or of its
/// [`ReplyWriter`](ReplyWriter::failed).
#[derive(Clone, Debug)]
pub struct CallInfo {
    /// Who calls.
    pub peer: SocketAddr,
    /// The service that was asked for, after an upgrade if there was one.
    pub service_id: ServiceId,
    /// The call's number on its channel, from 1.
    pub call_number: CallNumber,
    /// The application byte (userStatus) of the latest DATA that had come when the service started: where
    /// nothing had to be waited for, that of the first packet.
    pub user_status: u8,
    /// Who the client has proved to be; `None` without security.
    pub identity: Option<Arc<Identity>>,
}

/// A call that has come, its request to be read: a `Stream` of `Bytes`, or an `AsyncRead`. Dropped without
/// a reply, the call is aborted with `RX_CALL_DEAD`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct IncomingCall {
    info: CallInfo,
    pub(super) link: Link,
}

reads!(IncomingCall);

impl IncomingCall {
    pub(crate) fn new(
        info: CallInfo,
        tag: CallTag,
        credit: u64,
        channel: Arc<Addr<Channel>>,
        running: Option<RunningCall>,
        begun: Begun,
        listens: bool,
    ) -> (ServerPort, IncomingCall) {
        let (sender, events) = if listens || !begun.is_whole() {
            let (sender, events) = mpsc::unbounded();
            (Some(sender), Some(events))
        } else {
            (None, None)
        };
        let link = Link::new(channel, tag, credit, events).with_place(running).with_begun(begun);
        (ServerPort::new(sender), IncomingCall { info, link })
    }

    /// What is known of the call.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }

    /// Who calls.
    pub fn peer(&self) -> SocketAddr {
        self.info.peer
    }

    /// Resolves when the call has failed, before it is answered: the client aborted it or fell silent, or
    /// it was cut off here. Pending for as long as the call goes on, so that long work can be given up in
    /// a `select!`. What the client sends meanwhile is not lost.
    pub async fn failed(&mut self) -> CallFailure {
        std::future::poll_fn(|task| self.link.poll_failure(task)).await
    }

    /// Answers with all of `bytes`. The rest of the request, if it is not read to its end, is thrown away:
    /// the reply leaves when the request is complete, since a reply acknowledges it.
    pub fn reply(self, bytes: impl Into<Bytes>) {
        let mut writer = self.into_reply();
        writer.link.finish_writing(bytes.into());
        writer.link.settle();
    }

    /// Whether all of the request is here.
    pub(super) fn is_whole(&self) -> bool {
        self.link.has_ended()
    }

    /// The last word is said by somebody else.
    pub(super) fn settle(&mut self) {
        self.link.settle();
    }

    /// Turns to the reply. The rest of the request is thrown away, as for [`IncomingCall::reply`].
    pub fn into_reply(mut self) -> ReplyWriter {
        if !self.link.is_at_end() {
            self.link.discard();
        }
        ReplyWriter { link: self.link, is_closed: false }
    }

    /// Ends the call with this code instead of a reply.
    pub fn abort(mut self, code: AbortCode) {
        self.link.abort(code);
    }
}

/// The reply of a call: written in pieces, or as an `AsyncWrite`. Dropped before it is finished, the call is
/// aborted with `RX_CALL_DEAD`.
#[derive(Debug)]
pub struct ReplyWriter {
    pub(super) link: Link,
    is_closed: bool,
}

writes!(ReplyWriter);

impl ReplyWriter {
    /// Ends the reply. It goes on its way without us: this does not wait, and whether it arrives nobody is
    /// told.
    ///
    /// # Errors
    /// The call has failed already.
    pub fn finish(mut self) -> Result<(), StreamError> {
        self.poll_close_once().ok();
        if let Some(failure) = self.link.failure() {
            return Err(failure.into());
        }
        self.link.settle();
        Ok(())
    }

    /// Ends the reply and waits until the client has all of it: `true`. `false` = the client fell silent,
    /// so it may or may not.
    pub async fn finish_acknowledged(mut self) -> Result<bool, StreamError> {
        self.poll_close_once().ok();
        std::future::poll_fn(|task| self.link.poll_acknowledged(task)).await
    }

    /// Ends the call with this code; what was written so far may have arrived.
    pub fn abort(mut self, code: AbortCode) {
        self.link.abort(code);
    }
}
