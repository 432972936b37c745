//! CUBIC (RFC 9438) in whole numbers: windows in thousandths of a packet, times in milliseconds.

use std::time::Instant;

use super::{Controller, Path};

const MILLI: u64 = 1000;
/// What is left after a loss: beta = 0.7.
const LEFT: (u64, u64) = (7, 10);
/// 3 (1 - beta) / (1 + beta), in thousandths: packets in a round trip that match Reno's growth.
const RENO_GROWTH: u64 = 529;

/// Since the last loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Epoch {
    began: Instant,
    /// Where the curve is flat, and when.
    origin: u64,
    flat_at_ms: u64,
    /// The window that Reno would have, and when it may grow as Reno itself.
    reno: u64,
    reno_prior: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub struct Cubic {
    /// The window before the last loss.
    before_loss: u64,
    epoch: Option<Epoch>,
    /// What the window has beyond whole packets.
    carry: u64,
}

impl Cubic {
    fn begin(&self, now: Instant, window: u64) -> Epoch {
        let (origin, flat_at_ms) = match self.before_loss.checked_sub(window) {
            // K = cbrt(difference / 0.4) seconds.
            Some(less) => (self.before_loss, cube_root(less.saturating_mul(2_500_000))),
            None => (window, 0),
        };
        Epoch { began: now, origin, flat_at_ms, reno: window, reno_prior: self.before_loss }
    }

    /// The loss was nobody's fault: growth begins anew from where it is.
    pub fn restart(&mut self) {
        self.epoch = None;
        self.before_loss = 0;
    }
}

impl Controller for Cubic {
    fn grow(&mut self, path: &Path, window: u32, packets: u32) -> u32 {
        let now_milli = u64::from(window) * MILLI + self.carry;
        let mut epoch = self.epoch.unwrap_or_else(|| self.begin(path.now, now_milli));
        let age = path.now.saturating_duration_since(epoch.began) + path.srtt.unwrap_or_default();
        let age_ms = age.as_millis().min(1 << 20) as i64;
        let from_flat = i128::from(age_ms - epoch.flat_at_ms as i64);
        // 0.4 t^3.
        let curve = epoch.origin as i128 + from_flat.pow(3) * 4 / 10_000_000;
        let growth = if epoch.reno < epoch.reno_prior { RENO_GROWTH } else { MILLI };
        epoch.reno += growth * u64::from(packets) / u64::from(window.max(1));
        let curve = curve.clamp(0, i128::from(now_milli) * 3 / 2) as u64;
        let target = curve.max(epoch.reno);
        self.epoch = Some(epoch);
        let more = target.saturating_sub(now_milli) * u64::from(packets) / u64::from(window.max(1));
        let grown = now_milli + more;
        self.carry = grown % MILLI;
        (grown / MILLI) as u32
    }

    fn reduce(&mut self, _: &Path, window: u32, in_flight: u32) -> u32 {
        let now_milli = u64::from(window) * MILLI;
        self.before_loss = if now_milli < self.before_loss {
            // Another flow has come: leave it room.
            now_milli * (LEFT.0 + LEFT.1) / (2 * LEFT.1)
        } else {
            now_milli
        };
        self.epoch = None;
        self.carry = 0;
        (u64::from(in_flight) * LEFT.0 / LEFT.1) as u32
    }

    fn on_idle(&mut self) {
        self.epoch = None;
    }
}

/// The greatest number whose cube is at most `of`.
fn cube_root(of: u64) -> u64 {
    let (mut low, mut high) = (0_u64, 2_642_245_u64);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if u128::from(middle).pow(3) <= u128::from(of) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cube_roots() {
        for (of, root) in [(0, 0), (1, 1), (7, 1), (8, 2), (26, 2), (27, 3), (u64::MAX, 2_642_245)]
        {
            assert_eq!(cube_root(of), root);
        }
    }

    #[test]
    fn the_window_is_concave_then_flat_then_convex() {
        // RFC 9438 figure 1: from 700 back to 1000 in K = cbrt(300 / 0.4) = 9.09 s.
        let start = Instant::now();
        let rtt = Duration::from_millis(100);
        let path = |now| Path {
            now,
            srtt: Some(rtt),
            pipe: 0,
            is_queueing: false,
            is_filling: false,
            lost_in_round: 0,
        };
        let mut cubic = Cubic::default();
        let mut window = cubic.reduce(&path(start), 1000, 1000);
        assert_eq!(window, 700);
        let mut at = Vec::new();
        for round in 0..140u32 {
            at.push(window);
            window = cubic.grow(&path(start + rtt * round), window, window);
        }
        let grown = |from: usize, to: usize| at[to] - at[from];
        assert!(grown(0, 30) > 2 * grown(30, 60), "it rises fast at first: {at:?}");
        assert!(grown(80, 100) <= 5, "and hardly near the old window: {at:?}");
        assert!(at[91].abs_diff(1000) <= 5, "{at:?}");
        assert!(grown(110, 139) > 2 * grown(91, 110), "then ever faster: {at:?}");
    }

    #[test]
    fn a_small_window_grows_as_renos() {
        // RFC 9438 4.3: where the curve is slower than Reno, Reno's growth holds.
        let start = Instant::now();
        let rtt = Duration::from_millis(1);
        let mut cubic = Cubic::default();
        let path = Path {
            now: start,
            srtt: Some(rtt),
            pipe: 0,
            is_queueing: false,
            is_filling: false,
            lost_in_round: 0,
        };
        let mut window = cubic.reduce(&path, 20, 20);
        for round in 0..12u32 {
            window = cubic.grow(&Path { now: start + rtt * round, ..path }, window, window);
        }
        assert!((19..=21).contains(&window), "14 and half a packet for each round trip: {window}");
    }
}
