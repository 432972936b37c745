//! Applications of the endpoint's calls: they keep to the contract of [`Command`], and do anything within it.

use arbitrary::Arbitrary;
use bytes::Bytes;
use rxrpc::CallFailure;
use rxrpc::proto::channel::exploring::Timer;
use rxrpc::proto::channel::{Channel, Command, Notice};
use rxrpc::proto::config::CallConfig;
use rxrpc::testkit::CallRef;
use rxrpc::wire::AbortCode;

/// What an application does.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Act {
    Write { len: u16, ends: bool, flushes: bool },
    Take,
    Discard,
    End,
    Abort(i32),
}

/// One call, as its application knows it.
#[derive(Debug, Default)]
struct App {
    /// Delivered and not taken.
    pieces: Vec<Bytes>,
    credit: u64,
    has_ended_writing: bool,
    /// It wants no more.
    has_let_go: bool,
    /// The channel has said its last word.
    is_over: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Apps {
    calls: Vec<(CallRef, App)>,
    /// Calls that broke with their channels: no event tells their end.
    pub broken_max: u64,
}

impl Apps {
    pub fn note(&mut self, notices: Vec<(CallRef, Notice)>) {
        for (call, notice) in notices {
            let app = self.app(call);
            let is_broken = notice == Notice::Failed(CallFailure::Broken);
            assert!(!app.is_over || is_broken, "{notice:?} for a call that is over");
            match notice {
                Notice::Incoming(incoming) => app.credit += incoming.credit,
                Notice::Data(pieces) => app.pieces.extend(pieces),
                Notice::Credit(bytes) => app.credit += bytes,
                // Without takeover its channel waits for the application all the same (rx-calls.md 4.2).
                Notice::Failed(CallFailure::Overtaken) => app.pieces.clear(),
                Notice::Failed(_) | Notice::Acknowledged(_) => {
                    app.is_over = true;
                    app.pieces.clear();
                }
                Notice::Started(_) | Notice::End => {}
            }
            self.broken_max += u64::from(is_broken);
        }
    }

    fn app(&mut self, call: CallRef) -> &mut App {
        let at = self.calls.iter().position(|(known, _)| *known == call);
        let at = at.unwrap_or_else(|| {
            self.calls.push((call, App::default()));
            self.calls.len() - 1
        });
        &mut self.calls[at].1
    }

    /// A word to the channel, of one of the calls that are not over.
    pub fn act(&mut self, which: u8, act: Act) -> Option<(CallRef, Command)> {
        let mut live: Vec<_> = self.calls.iter_mut().filter(|(_, app)| app.is_live()).collect();
        let count = live.len();
        let (call, app) = live.get_mut(usize::from(which).checked_rem(count)?)?;
        let command = match act {
            Act::Write { len, ends, flushes } => {
                if app.has_ended_writing {
                    return None;
                }
                let len = u64::from(len % super::LEN_MAX).min(app.credit);
                app.credit -= len;
                app.has_ended_writing = ends;
                Command::Write { bytes: vec![9; len as usize].into(), ends, flushes }
            }
            Act::Take => {
                let pieces = std::mem::take(&mut app.pieces);
                let bytes = pieces.iter().map(Bytes::len).sum();
                Command::Consumed { packets: pieces.len() as u32, bytes }
            }
            Act::Discard => {
                app.pieces.clear();
                Command::Discard
            }
            Act::End => {
                app.has_let_go = true;
                Command::End
            }
            Act::Abort(code) => {
                app.has_let_go = true;
                Command::Abort(AbortCode(code))
            }
        };
        Some((*call, command))
    }

    /// All that are not over let go.
    pub fn let_go(&mut self) -> Vec<CallRef> {
        let live = self.calls.iter_mut().filter(|(_, app)| app.is_live());
        live.map(|(call, app)| {
            app.has_let_go = true;
            *call
        })
        .collect()
    }
}

impl App {
    fn is_live(&self) -> bool {
        !self.has_let_go && !self.is_over
    }
}

/// What a channel holds is bounded whatever its application does, and what is in flight has its timer.
pub fn check_channel(channel: &Channel, config: &CallConfig) {
    // Twice a window full of packets (docs/limits.md). Beyond 255 it opens only as far as the buffer's limit.
    let tuned = config.receive_buffer_max_bytes / 1444;
    let most = (config.receive_window_max_packets as usize).min(tuned.max(255));
    let window = most.max(config.receive_window_initial_packets as usize);
    // A single packet is taken however large it is.
    let bytes_max = (2 * window * 1444).max(65_507);
    assert!(channel.buffered_bytes() <= bytes_max, "{} bytes", channel.buffered_bytes());
    assert!(channel.in_flight_packets() <= config.send_window_max_packets);
    let has_timer = channel.timer(Timer::Retransmit).is_some();
    assert!(channel.in_flight_packets() == 0 || has_timer, "{:?} without a timer", channel.state());
}
