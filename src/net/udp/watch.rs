//! A socket's readiness, by Tokio.

use std::{
    io,
    net::UdpSocket as StdSocket,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{Interest, Ready},
    net::UdpSocket,
};

/// A registration of a socket: a duplicate of its own, so that it ends when this is dropped.
pub(super) struct Watch {
    socket: Arc<UdpSocket>,
    errors: ErrorWatch,
}

/// Resolves when the socket has an error. Tokio's readable and writable do not include that, and only
/// this future keeps its waker registered.
type ErrorWatch = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send>>;

impl Watch {
    pub fn new(socket: &StdSocket) -> io::Result<Watch> {
        let socket = Arc::new(UdpSocket::from_std(SockRef::from(socket).try_clone()?.into())?);
        Ok(Watch { errors: watch_errors(&socket), socket })
    }

    /// As Tokio's.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.socket.try_io(interest, io)
    }

    pub fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(cx)
    }

    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    /// Ready when the socket has had an error since the last time.
    pub fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<UdpSocket>>> {
        ready!(self.errors.as_mut().poll(cx))?;
        self.errors = watch_errors(&self.socket);
        Poll::Ready(Ok(self.socket.clone()))
    }

    /// An error makes Tokio believe that the socket is closed for writing: "ready" for good, and
    /// whoever waits for a full buffer to drain would spin. Only a new registration forgets it.
    pub fn is_write_closed(&self, cx: &mut Context<'_>) -> bool {
        let readiness = pin!(self.socket.ready(Interest::WRITABLE));
        matches!(readiness.poll(cx), Poll::Ready(Ok(ready)) if ready.is_write_closed())
    }
}

fn watch_errors(socket: &Arc<UdpSocket>) -> ErrorWatch {
    let socket = Arc::clone(socket);
    Box::pin(async move { socket.ready(Interest::ERROR).await })
}
