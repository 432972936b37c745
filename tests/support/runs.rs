//! A server's account of which calls it has run: requests begin with the number of their call.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rxrpc::{Request, Service, unary};

const NUMBER_BYTES: usize = 8;
/// Requests with later numbers are nobody's.
const NUMBERS_MAX: u64 = 1 << 30;

/// The request of call `number`, of `bytes` at least.
pub fn request(number: u64, bytes: usize) -> Bytes {
    let mut request = vec![number as u8; bytes.max(NUMBER_BYTES)];
    request[..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
    request.into()
}

/// What a server has run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls that ran, each counted once.
    pub ran: u64,
    /// Runs of a call that had run.
    pub again: u64,
    /// Runs of requests without a number.
    pub strange: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Runs {
    seen: Vec<u64>,
    sums: Sums,
}

impl Runs {
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// A request of which this is the beginning runs.
    pub fn note(&mut self, request: &[u8]) {
        let number = request.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let Some(number) = number.filter(|number| *number < NUMBERS_MAX) else {
            self.sums.strange += 1;
            return;
        };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_again = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        *(if is_again { &mut self.sums.again } else { &mut self.sums.ran }) += 1;
    }
}

/// A service that sends back what comes, and its account.
pub fn counting_echo() -> (impl Service, impl Fn() -> Sums) {
    let runs = Arc::new(Mutex::new(Runs::default()));
    let kept = runs.clone();
    let echo = unary(move |request: Request| {
        runs.lock().unwrap().note(&request.bytes);
        std::future::ready(Ok(request.bytes))
    });
    (echo, move || kept.lock().unwrap().sums())
}
