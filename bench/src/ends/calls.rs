//! Small calls in a closed loop.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;

use super::Caller;
use crate::spec::{CALL_BYTES, Outcome};

/// `in_flight` carriers, each with one call after the other, for so long.
pub async fn closed_loop<C: Caller>(
    caller: &C,
    in_flight: usize,
    time: Duration,
) -> Result<Outcome> {
    let request = Bytes::from(vec![7u8; CALL_BYTES]);
    looped(in_flight, time, async |_| {
        let count = caller.call(request.clone()).await?;
        if count != CALL_BYTES {
            bail!("expected {CALL_BYTES} bytes of reply, got {count}");
        }
        Ok(())
    })
    .await
}

/// As [`closed_loop`], with any call; it is given its number.
pub async fn looped(
    in_flight: usize,
    time: Duration,
    call: impl AsyncFn(u64) -> Result<()>,
) -> Result<Outcome> {
    let latencies = RefCell::new(latencies());
    let begun = Cell::new(0u64);
    let began = Instant::now();
    let carrier = async || {
        let mut at = Instant::now();
        while at.duration_since(began) < time {
            begun.set(begun.get() + 1);
            call(begun.get() - 1).await?;
            let now = Instant::now();
            latencies.borrow_mut().saturating_record(now.duration_since(at).as_nanos() as u64);
            at = now;
        }
        anyhow::Ok(())
    };
    let mut carriers: FuturesUnordered<_> = (0..in_flight).map(|_| carrier()).collect();
    while let Some(result) = carriers.next().await {
        result?;
    }
    drop(carriers);
    let wall_s = began.elapsed().as_secs_f64();
    let latencies = latencies.into_inner();
    Ok(Outcome { wall_s, units: latencies.len(), micros: Some(micros(&latencies)), spun_s: 0.0 })
}

/// Nanoseconds up to a minute.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("good bounds")
}

pub fn micros(of: &Histogram<u64>) -> [f64; 4] {
    let at = |quantile| of.value_at_quantile(quantile) as f64 / 1e3;
    [at(0.5), at(0.99), at(0.999), of.max() as f64 / 1e3]
}
