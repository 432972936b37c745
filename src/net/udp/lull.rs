//! Short lulls.

use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Lull {
    max: Duration,
    since: Option<Instant>,
    is_short: bool,
    is_looking: bool,
}

impl Lull {
    pub fn new() -> Lull {
        let us = std::env::var("SPIN_US").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
        Lull { max: Duration::from_micros(us), since: None, is_short: false, is_looking: false }
    }

    pub fn is_looking(&self) -> bool {
        self.is_looking
    }

    pub fn end(&mut self) {
        self.is_looking = false;
        if let Some(since) = self.since.take() {
            self.is_short = since.elapsed() < 2 * self.max;
        }
    }

    pub fn looks_again(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.is_looking = self.is_short && since.elapsed() < self.max;
        if !self.is_looking { self.is_short = false; }
        self.is_looking
    }
}
