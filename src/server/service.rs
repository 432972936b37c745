//! Services: an async function, a trait object, or an actix recipient.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use actix::Recipient;
use bytes::Bytes;
use futures::FutureExt;

use super::{CallInfo, IncomingCall};
use crate::error::{CallError, StreamError};
use crate::proto::channel::Command;
use crate::security::{RxNull, ServerClass};
use crate::wire::{AbortCode, ServiceId};

/// Answers the calls of a service.
///
/// Implemented by async functions from an [`IncomingCall`] to `Result<(), impl Into<ServiceFault>>`, by
/// [`unary`] functions from a request to a reply, and by `Recipient<IncomingCall>` of an actor anywhere.
pub trait Service: Send + Sync + 'static {
    /// A call has come. Runs on the endpoint's arbiter and must return at once: spawn what takes time. A
    /// panic, in here as in a spawned task, ends that call with `RX_CALL_DEAD` and nothing else.
    fn serve(self: Arc<Self>, call: IncomingCall);

    /// Whether it may want to hear of a call when it has all of its request: credit for the reply, or a failure.
    /// Those that cannot, since they answer with a whole reply, need no queue.
    #[doc(hidden)]
    fn listens(&self) -> bool {
        true
    }

    /// As [`Service::serve`]; what it has answered by the time it returns needs no message to the call's channel.
    #[doc(hidden)]
    fn serve_now(self: Arc<Self>, call: IncomingCall) -> Option<Answered> {
        self.serve(call);
        None
    }
}

/// The last word of a service on a call that it has let go of.
#[doc(hidden)]
#[derive(Debug)]
pub struct Answered(Command);

impl Answered {
    fn of(result: Result<Bytes, AbortCode>) -> Answered {
        Answered(match result {
            Ok(bytes) => Command::Write { bytes, ends: true, flushes: false },
            Err(code) => Command::Abort(code),
        })
    }

    pub(crate) fn into_command(self) -> Command {
        self.0
    }
}

/// How a service is offered.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Whether a call waits until its client has proved its address. On, but for services whose reply is
    /// never larger than the request: else we could be made to flood somebody else. Without it, and without a
    /// security class that knows its clients, requests run from addresses that are not the sender's, and a copy of
    /// a client's request that comes from elsewhere runs once more.
    pub reach_check: bool,
    /// Security classes that clients may use.
    pub security_classes: Vec<Arc<dyn ServerClass>>,
    /// The service that a client is upgraded to, if it asks for an upgrade.
    pub upgrades_to: Option<ServiceId>,
    /// Calls of the service at once: from when it is given the [`IncomingCall`] until it lets go of that, or of
    /// its [`ReplyWriter`](super::ReplyWriter). More wait, in order, up to
    /// [`queued_calls_max`](crate::proto::config::EndpointConfig::queued_calls_max). `None` = any number; so
    /// is what `NonZeroUsize::new(0)` gives.
    pub running_calls_max: Option<NonZeroUsize>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        ServiceOptions {
            reach_check: true,
            security_classes: vec![Arc::new(RxNull)],
            upgrades_to: None,
            running_calls_max: None,
        }
    }
}

impl ServiceOptions {
    /// For a service whose reply is never larger than the request: its calls start at once.
    pub fn small_replies() -> ServiceOptions {
        ServiceOptions { reach_check: false, ..ServiceOptions::default() }
    }
}

/// Why a service does not answer: the code that the client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service aborts the call with code {0}")]
pub struct ServiceFault(pub AbortCode);

impl From<AbortCode> for ServiceFault {
    fn from(code: AbortCode) -> Self {
        ServiceFault(code)
    }
}

impl From<StreamError> for ServiceFault {
    /// The client is gone, or sent too much: what it is told hardly matters.
    fn from(_: StreamError) -> Self {
        ServiceFault(AbortCode::CALL_DEAD)
    }
}

impl From<CallError> for ServiceFault {
    /// A service that asks another one passes on the code of that one's abort.
    fn from(error: CallError) -> Self {
        ServiceFault(error.abort_code().unwrap_or(AbortCode::CALL_DEAD))
    }
}

impl From<std::io::Error> for ServiceFault {
    fn from(_: std::io::Error) -> Self {
        ServiceFault(AbortCode::CALL_DEAD)
    }
}

impl<F, Fut, E> Service for F
where
    F: Fn(IncomingCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + 'static,
    E: Into<ServiceFault>,
{
    fn serve(self: Arc<Self>, mut call: IncomingCall) {
        let guard = call.link.guard();
        actix_rt::spawn(async move {
            // Called here, not in the channel: what it does before its first await may panic too.
            if let Err(fault) = self(call).await {
                let ServiceFault(code) = fault.into();
                guard.abort(code);
            }
        });
    }
}

impl Service for Recipient<IncomingCall> {
    fn serve(self: Arc<Self>, call: IncomingCall) {
        self.do_send(call);
    }
}

/// A whole request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks, and for what.
    pub info: CallInfo,
    /// The request.
    pub bytes: Bytes,
}

/// A service of whole requests and whole replies; see [`unary`].
#[derive(Clone, Copy, Debug)]
pub struct Unary<F> {
    answer: F,
    request_max_bytes: usize,
}

/// Makes a service of a function from a whole request to a whole reply, or to the code that the call is
/// aborted with. Requests of more than 16 MiB are refused; see [`Unary::request_max_bytes`].
///
/// It runs on the endpoint's arbiter. Where all of the request came together, as small ones do, it begins in the
/// turn of the call's channel, and only if it has to wait it becomes a task of its own. So up to its first `await` that
/// is not ready it sees the channel's `tokio::task::id()`, and shares the channel's budget of Tokio's cooperative
/// scheduling; it holds up the other channels for as long as it computes, as on a task of its own.
///
/// ```
/// let shout = rxrpc::unary(async |request| Ok(request.bytes.to_ascii_uppercase().into()));
/// # let _ = rxrpc::Endpoint::builder().service(1, shout);
/// ```
pub fn unary<F, Fut>(answer: F) -> Unary<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, AbortCode>> + 'static,
{
    Unary { answer, request_max_bytes: 16 << 20 }
}

impl<F> Unary<F> {
    /// Requests of more bytes than this are aborted with `RX_PROTOCOL_ERROR`.
    pub fn request_max_bytes(mut self, bytes: usize) -> Unary<F> {
        self.request_max_bytes = bytes;
        self
    }
}

impl<F, Fut> Service for Unary<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, AbortCode>> + 'static,
{
    fn serve(self: Arc<Self>, mut call: IncomingCall) {
        actix_rt::spawn(async move {
            let bytes = match call.read_all(self.request_max_bytes).await {
                Ok(bytes) => bytes,
                Err(StreamError::TooLarge(_)) => return call.abort(AbortCode::PROTOCOL_ERROR),
                Err(StreamError::Failed(_)) => return,
            };
            let request = Request { info: call.info().clone(), bytes };
            match (self.answer)(request).await {
                Ok(reply) => call.reply(reply),
                Err(code) => call.abort(code),
            }
        });
    }

    fn listens(&self) -> bool {
        false
    }

    fn serve_now(self: Arc<Self>, mut call: IncomingCall) -> Option<Answered> {
        if !call.is_whole() {
            self.serve(call);
            return None;
        }
        let bytes = match call.read_all(self.request_max_bytes).now_or_never()? {
            Ok(bytes) => bytes,
            Err(StreamError::TooLarge(_)) => {
                call.settle();
                return Some(Answered::of(Err(AbortCode::PROTOCOL_ERROR)));
            }
            Err(StreamError::Failed(_)) => return None,
        };
        let request = Request { info: call.info().clone(), bytes };
        let mut answer = Box::pin((self.answer)(request));
        // A task polls it again, if it has to wait: nobody needs to be woken before.
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => {
                call.settle();
                Some(Answered::of(result))
            }
            Poll::Pending => {
                actix_rt::spawn(async move {
                    match answer.await {
                        Ok(reply) => call.reply(reply),
                        Err(code) => call.abort(code),
                    }
                });
                None
            }
        }
    }
}
