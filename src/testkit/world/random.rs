//! One seed, and streams of numbers named after what they decide: a draw more in one stream shifts nothing in
//! another.

/// What a world is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of this name: the same for the same seed and name.
    pub fn stream(self, name: &str) -> Stream {
        // FNV-1a: names are short and ours.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Stream { state: mix(self.0 ^ mix(hash)) }
    }
}

/// Numbers drawn one after the other (SplitMix64).
#[derive(Clone, Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least).saturating_add(1))
    }

    /// `true` with this probability, 0 to 1. Draws in any case.
    pub fn chance(&mut self, probability: f64) -> bool {
        let unit = (self.draw() >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }

    /// One of these, of which there must be some.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

pub(super) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_more_in_one_stream_shifts_no_other() {
        let seed = Seed(7);
        let (mut loss, mut delay) = (seed.stream("loss"), seed.stream("delay"));
        let alone = delay.clone().draw();
        loss.draw();
        loss.draw();
        assert_eq!(delay.draw(), alone);
        assert_ne!(seed.stream("loss").draw(), Seed(8).stream("loss").draw());
    }

    #[test]
    fn numbers_stay_within_their_limits() {
        let mut stream = Seed(1).stream("limits");
        let drawn: Vec<u64> = (0..1000).map(|_| stream.between(3, 5)).collect();
        assert!(drawn.iter().all(|number| (3..=5).contains(number)));
        assert!((3..=5).all(|number| drawn.contains(&number)));
        assert_eq!(stream.below(0), 0);
        assert!(!stream.chance(0.0) && stream.chance(1.0));
    }
}
