//! The channel's end of a server's call.

use futures::channel::mpsc;

use crate::proto::channel::{Command, Notice};

/// Where a channel puts what the service is told. What is in it is bounded by the receive window.
#[derive(Debug)]
pub(crate) struct ServerPort {
    /// `None` = it has all of its request and wants to hear no more.
    events: Option<mpsc::UnboundedSender<Notice>>,
}

impl ServerPort {
    pub fn new(events: Option<mpsc::UnboundedSender<Notice>>) -> ServerPort {
        ServerPort { events }
    }

    /// Tells the service. One that has gone away has said so itself.
    pub fn notify(&mut self, notice: Notice) -> Option<Command> {
        if let Some(events) = &self.events {
            let _ = events.unbounded_send(notice);
        }
        None
    }
}
