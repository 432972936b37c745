//! A call in pieces: write the request, then read the reply.

use bytes::Bytes;

use super::connection::Place;
use crate::error::StreamError;
use crate::stream::{Link, reads, writes};
use crate::wire::AbortCode;

/// The request of a call: written in pieces, or as an `AsyncWrite`. Dropped before it is finished, the call
/// is aborted with `RX_USER_ABORT`.
///
/// Write without long pauses: Linux servers from 6.12 on give up a request that pauses for 250 ms
/// (docs/protocol/linux-observed.md 7).
#[derive(Debug)]
pub struct RequestWriter {
    pub(super) link: Link,
    pub(super) is_closed: bool,
    /// The place among the connection's calls; given back when the call ends.
    pub(super) place: Place,
}

writes!(RequestWriter);

impl RequestWriter {
    /// Ends the request and turns to the reply. An Rx call has no other order: the reply's first packet
    /// acknowledges the whole request.
    ///
    /// # Errors
    /// The call has failed already; for example the server aborted it before it had all of the request.
    pub fn finish(mut self) -> Result<ReplyReader, StreamError> {
        if let Some(failure) = self.link.failure() {
            return Err(failure.into());
        }
        if !self.is_closed {
            self.link.finish_writing(Bytes::new());
        }
        Ok(ReplyReader { link: self.link, _place: self.place })
    }

    /// Ends the call with this code.
    pub fn abort(mut self, code: AbortCode) {
        self.link.abort(code);
    }
}

/// The reply of a call: a `Stream` of `Bytes`, or an `AsyncRead`. Dropped before its end, the call is
/// aborted with `RX_USER_ABORT`.
#[derive(Debug)]
pub struct ReplyReader {
    link: Link,
    _place: Place,
}

reads!(ReplyReader);

impl ReplyReader {
    /// Ends the call with this code.
    pub fn abort(mut self, code: AbortCode) {
        self.link.abort(code);
    }
}
