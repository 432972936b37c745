//! The channel's end of a server's call.

use futures::channel::mpsc;

use crate::proto::channel::{Command, Notice};

/// Where a channel puts what the service is told. What is in it is bounded by the receive window.
#[derive(Debug)]
pub(crate) struct ServerPort {
    events: mpsc::UnboundedSender<Notice>,
}

impl ServerPort {
    pub fn new(events: mpsc::UnboundedSender<Notice>) -> ServerPort {
        ServerPort { events }
    }

    /// Tells the service. One that has gone away has said so itself.
    pub fn notify(&mut self, notice: Notice) -> Option<Command> {
        let _ = self.events.unbounded_send(notice);
        None
    }
}
