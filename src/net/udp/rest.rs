//! Resting: a while in which datagrams are left to gather in the kernel (Linux; elsewhere never).
//!
//! Tokio's timers are of a millisecond, so this is the kernel's.

#[cfg(not(target_os = "linux"))]
pub(super) use none::Rest;
#[cfg(target_os = "linux")]
pub(super) use timer::Rest;

#[cfg(target_os = "linux")]
mod timer {
    use std::{
        io,
        os::fd::OwnedFd,
        task::{Context, Poll, ready},
        time::Duration,
    };

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    /// Deprecated because a type that closes its descriptor early would be trouble; what Tokio has instead is
    /// unsafe to call. An `OwnedFd` keeps its descriptor as long as it is.
    #[allow(deprecated)]
    fn watched(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(timer, Interest::READABLE)
    }

    /// One rest at a time.
    #[derive(Default)]
    pub(in super::super) struct Rest {
        /// Made for the first rest.
        timer: Option<AsyncFd<OwnedFd>>,
        is_resting: bool,
    }

    impl Rest {
        /// Rests from now on; not if the system has no timer for us.
        pub fn begin(&mut self, time: Duration) -> io::Result<()> {
            let timer = match self.timer.take() {
                Some(timer) => timer,
                None => {
                    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
                    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
                    watched(timer)?
                }
            };
            let it_value = Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                // Zero would stop it.
                tv_nsec: i64::from(time.subsec_nanos()).max(1),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            // It also forgets an earlier expiry.
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
            self.timer = Some(timer);
            self.is_resting = true;
            Ok(())
        }

        /// Ready when there is no rest, or not any more.
        pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.is_resting
                && let Some(timer) = &self.timer
            {
                ready!(timer.poll_read_ready(cx))?.clear_ready();
                self.is_resting = false;
            }
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::{
        io,
        task::{Context, Poll},
        time::Duration,
    };

    #[derive(Default)]
    pub(in super::super) struct Rest;

    impl Rest {
        pub fn begin(&mut self, _time: Duration) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn poll_over(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
