//! Reads words and runs of bytes from a stream of pieces, without copying the pieces.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use rxrpc::StreamError;
use tokio::time::Instant;

/// Why what was expected did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The stream ended.
    #[error("expected {0} bytes more, got the end")]
    Short(u64),
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] StreamError),
}

/// A stream of pieces, read in other portions than it came.
#[derive(Debug)]
pub struct Pieces<S> {
    from: S,
    rest: Bytes,
    slow: Option<Slow>,
}

/// A pause after each `chunk` bytes, of which `left` are to come.
#[derive(Debug)]
struct Slow {
    chunk: u64,
    left: u64,
    pace: Pace,
}

impl<S: Stream<Item = Result<Bytes, StreamError>> + Unpin> Pieces<S> {
    /// Reads from a stream.
    pub fn new(from: S) -> Pieces<S> {
        Pieces { from, rest: Bytes::new(), slow: None }
    }

    /// From now on, runs are read so slowly: `pace` pauses after each `chunk` bytes, which are at least one.
    pub fn slow_down(&mut self, chunk: usize, pace: Pace) {
        let chunk = chunk.max(1) as u64;
        self.slow = Some(Slow { chunk, left: chunk, pace });
    }

    /// Some of the next bytes, at least one and at most `most`; `None` = the end.
    pub async fn next(&mut self, most: u64) -> Result<Option<Bytes>, StreamError> {
        while self.rest.is_empty() {
            match self.from.next().await {
                None => return Ok(None),
                Some(piece) => self.rest = piece?,
            }
        }
        let count = self.rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(Some(self.rest.split_to(count)))
    }

    /// The next 32-bit word.
    pub async fn word(&mut self) -> Result<u32, ReadError> {
        if self.rest.len() >= 4 {
            return Ok(self.rest.get_u32());
        }
        let mut word = [0; 4];
        let mut got = 0;
        self.run(4, |bytes| {
            word[got..got + bytes.len()].copy_from_slice(&bytes);
            got += bytes.len();
        })
        .await?;
        Ok(u32::from_be_bytes(word))
    }

    /// Hands the next `count` bytes to `take`, piece by piece.
    pub async fn run(&mut self, count: u64, mut take: impl FnMut(Bytes)) -> Result<(), ReadError> {
        let mut left = count;
        while left > 0 {
            let most = self.slow.as_ref().map_or(left, |slow| left.min(slow.left));
            let piece = self.next(most).await?.ok_or(ReadError::Short(left))?;
            let count = piece.len() as u64;
            left -= count;
            take(piece);
            if let Some(slow) = &mut self.slow {
                slow.left -= count;
                if slow.left == 0 {
                    slow.left = slow.chunk;
                    slow.pace.pause().await;
                }
            }
        }
        Ok(())
    }

    /// Throws away what is left, and says how much it was.
    pub async fn drain(&mut self) -> Result<u64, StreamError> {
        let mut count = 0;
        while let Some(piece) = self.next(u64::MAX).await? {
            count += piece.len() as u64;
        }
        Ok(count)
    }
}

/// Pauses that keep their rate although a sleep takes a millisecond at least: short ones are saved up.
#[derive(Debug)]
pub struct Pace {
    due: Instant,
    pause: Duration,
}

impl Pace {
    /// So long after each piece.
    pub fn new(pause: Duration) -> Pace {
        Pace { due: Instant::now(), pause }
    }

    /// The pause after a piece.
    pub async fn pause(&mut self) {
        if self.pause.is_zero() {
            return;
        }
        let now = Instant::now();
        // Time that the peer took is not made up for: pauses never get shorter than asked for, as a whole.
        self.due =
            self.due.max(now.checked_sub(Duration::from_millis(2)).unwrap_or(now)) + self.pause;
        if self.due.saturating_duration_since(now) >= Duration::from_millis(1) {
            tokio::time::sleep_until(self.due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(
        parts: &[&'static [u8]],
    ) -> Pieces<impl Stream<Item = Result<Bytes, StreamError>> + use<>> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
        Pieces::new(futures::stream::iter(parts))
    }

    #[actix_rt::test]
    async fn words_and_runs_may_lie_across_pieces() {
        let mut from = pieces(&[b"\0\0", b"", b"\0\x05\0\0\0\x06ab", b"cdefg"]);
        assert_eq!(from.word().await, Ok(5));
        assert_eq!(from.word().await, Ok(6));
        let mut run = Vec::new();
        from.run(5, |bytes| run.extend_from_slice(&bytes)).await.unwrap();
        assert_eq!(run, b"abcde");
        assert_eq!(from.drain().await, Ok(2));
    }

    #[actix_rt::test]
    async fn a_slow_run_pauses_after_each_chunk() {
        tokio::time::pause();
        let began = Instant::now();
        let mut from = pieces(&[b"abcde", b"f", b"g"]);
        from.slow_down(3, Pace::new(Duration::from_secs(1)));
        let mut sizes = Vec::new();
        from.run(7, |bytes| sizes.push(bytes.len())).await.unwrap();
        assert_eq!(sizes, [3, 2, 1, 1]);
        let pauses = began.elapsed().as_millis();
        assert!((1990..=2010).contains(&pauses), "{pauses} ms");
    }

    #[actix_rt::test]
    async fn an_early_end_says_what_is_missing() {
        assert_eq!(pieces(&[b"\0\0\0"]).word().await, Err(ReadError::Short(1)));
        let mut from = pieces(&[b"abc", b"d"]);
        assert_eq!(from.run(6, drop).await, Err(ReadError::Short(2)));
    }
}
