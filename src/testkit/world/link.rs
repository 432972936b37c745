//! One direction between two hosts: what it does to a datagram, drawn from streams of its own.
//!
//! Knows times and sizes of datagrams, not what is in them, nor who sends.

use std::time::Duration;

use super::random::{Seed, Stream};

/// How datagrams are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// Each by itself, with this probability.
    Random(f64),
    /// In bursts (Gilbert-Elliott): the link is good or bad, and each datagram may change that.
    Bursts {
        /// Probability that a good link turns bad.
        turns_bad: f64,
        /// Probability that a bad link turns good.
        turns_good: f64,
        /// Probability that a bad link loses a datagram; a good one loses none.
        lost_while_bad: f64,
    },
}

/// What a link does. All of it may change while datagrams are under way: it holds for those that are sent
/// from then on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkOptions {
    /// Time from end to end. At least a millisecond: nothing arrives at the instant that it was sent.
    pub latency: Duration,
    /// What is added at most: evenly from zero to this. Reorders.
    pub jitter: Duration,
    /// How datagrams are lost.
    pub loss: Loss,
    /// Probability that a datagram comes twice.
    pub duplicated: f64,
    /// Probability that a datagram is held back, by up to [`LinkOptions::held_back`].
    pub reordered: f64,
    /// See [`LinkOptions::reordered`].
    pub held_back: Duration,
    /// Bytes a second; `None` = any number at once.
    pub rate: Option<u64>,
    /// Bytes that may wait for a limited rate; what comes beyond is lost.
    pub queue_bytes_max: u64,
    /// Largest datagram that passes, in bytes of UDP payload. A larger one is lost, unless it may be fragmented.
    pub mtu: usize,
}

impl Default for LinkOptions {
    /// A quiet link of one millisecond that takes any datagram.
    fn default() -> Self {
        LinkOptions {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            loss: Loss::None,
            duplicated: 0.0,
            reordered: 0.0,
            held_back: Duration::ZERO,
            rate: None,
            queue_bytes_max: 256 * 1024,
            mtu: 65_507,
        }
    }
}

/// Why a datagram does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It does.
    Arrives,
    /// The link lost it.
    Lost,
    /// The queue of a limited rate was full.
    Overflowed,
    /// It is larger than the link's MTU.
    TooBig,
    /// The two hosts are parted.
    Parted,
    /// Nobody is there any more when it arrives.
    NobodyThere,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub options: LinkOptions,
    pub is_parted: bool,
    pub is_clogged: bool,
    /// Datagrams that wait until the link is unclogged.
    pub clogged: Vec<(Duration, bytes::Bytes)>,
    /// Datagrams sent so far.
    pub sent: u64,
    loss: Stream,
    weather: Stream,
    jitter: Stream,
    duplicates: Stream,
    order: Stream,
    is_bad: bool,
    free_at: Duration,
}

impl Link {
    pub fn new(seed: Seed, name: &str, options: LinkOptions) -> Link {
        let stream = |what: &str| seed.stream(&format!("{name} {what}"));
        Link {
            options,
            is_parted: false,
            is_clogged: false,
            clogged: Vec::new(),
            sent: 0,
            loss: stream("loss"),
            weather: stream("weather"),
            jitter: stream("jitter"),
            duplicates: stream("duplicates"),
            order: stream("order"),
            is_bad: false,
            free_at: Duration::ZERO,
        }
    }

    /// What becomes of a datagram of `len` bytes that is sent at `now`: when its copies arrive, or why not.
    /// Each stream is drawn from once a datagram, whatever the options: a changed option changes no other.
    /// `by_name` = whether it is lost, if that is said of each datagram.
    pub fn send(
        &mut self,
        now: Duration,
        len: usize,
        may_fragment: bool,
        by_name: Option<bool>,
        arrivals: &mut Vec<Duration>,
    ) -> Fate {
        let options = self.options;
        let by_chance = self.loses();
        let is_lost = by_name.unwrap_or(by_chance);
        let jitter = scaled(options.jitter, self.jitter.draw());
        let comes_twice = self.duplicates.chance(options.duplicated);
        let second_jitter =
            scaled(options.jitter.max(Duration::from_millis(1)), self.jitter.draw());
        let is_held_back = self.order.chance(options.reordered);
        let held_back = scaled(options.held_back, self.order.draw());
        if self.is_parted {
            return Fate::Parted;
        }
        if len > options.mtu && !may_fragment {
            return Fate::TooBig;
        }
        let mut leaves = now;
        if let Some(rate) = options.rate {
            let rate = rate.max(1);
            let begins = self.free_at.max(now);
            let backlog = (begins - now).as_nanos() * u128::from(rate) / 1_000_000_000;
            if backlog > u128::from(options.queue_bytes_max) {
                return Fate::Overflowed;
            }
            let takes = len as u64 * 1_000_000_000 / rate;
            self.free_at = begins + Duration::from_nanos(takes);
            leaves = self.free_at;
        }
        if is_lost {
            return Fate::Lost;
        }
        let base = leaves + options.latency.max(Duration::from_millis(1));
        let late = if is_held_back { held_back } else { Duration::ZERO };
        arrivals.push(whole_ms(base + jitter + late));
        if comes_twice {
            arrivals.push(whole_ms(base + jitter + second_jitter));
        }
        Fate::Arrives
    }

    fn loses(&mut self) -> bool {
        let turns = self.weather.draw() as f64 / u64::MAX as f64;
        match self.options.loss {
            Loss::None => {
                self.loss.draw();
                false
            }
            Loss::Random(probability) => self.loss.chance(probability),
            Loss::Bursts { turns_bad, turns_good, lost_while_bad } => {
                self.is_bad = if self.is_bad { turns >= turns_good } else { turns < turns_bad };
                self.loss.chance(if self.is_bad { lost_while_bad } else { 0.0 })
            }
        }
    }
}

/// `drawn` as a part of `whole`.
fn scaled(whole: Duration, drawn: u64) -> Duration {
    Duration::from_nanos(((whole.as_nanos() * u128::from(drawn)) >> 64) as u64)
}

/// The next whole millisecond: time in a world has no smaller steps, as Tokio's has none.
pub(super) fn whole_ms(time: Duration) -> Duration {
    Duration::from_millis(time.as_nanos().div_ceil(1_000_000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(link: &mut Link, count: usize) -> Vec<(Fate, Vec<Duration>)> {
        (0..count)
            .map(|_| {
                let mut arrivals = Vec::new();
                (link.send(Duration::ZERO, 100, false, None, &mut arrivals), arrivals)
            })
            .collect()
    }

    #[test]
    fn bursts_lose_several_in_a_row() {
        let loss = Loss::Bursts { turns_bad: 0.02, turns_good: 0.2, lost_while_bad: 1.0 };
        let mut link = Link::new(Seed(3), "link", LinkOptions { loss, ..Default::default() });
        let fates: Vec<bool> = sent(&mut link, 4000).iter().map(|it| it.0 == Fate::Lost).collect();
        let lost = fates.iter().filter(|lost| **lost).count();
        let runs = fates.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((100..1000).contains(&lost), "{lost} lost");
        assert!(lost / runs.max(1) >= 3, "{lost} lost in {runs} runs");
    }

    #[test]
    fn duplicates_do_not_change_what_is_lost() {
        let options = LinkOptions { loss: Loss::Random(0.3), ..Default::default() };
        let mut plain = Link::new(Seed(3), "link", options);
        let mut doubling = Link::new(Seed(3), "link", LinkOptions { duplicated: 0.5, ..options });
        let fates = |sent: Vec<(Fate, Vec<Duration>)>| -> Vec<Fate> {
            sent.into_iter().map(|it| it.0).collect()
        };
        let (plain, doubled) = (sent(&mut plain, 200), sent(&mut doubling, 200));
        assert!(doubled.iter().any(|it| it.1.len() == 2));
        assert_eq!(fates(plain), fates(doubled));
    }

    /// 100 bytes at 1 000 bytes a second take 100 ms each; the queue holds so many and not one more.
    #[test]
    fn a_rate_spaces_datagrams_and_its_queue_is_bounded() {
        let options =
            LinkOptions { rate: Some(1000), queue_bytes_max: 199, ..LinkOptions::default() };
        let mut link = Link::new(Seed(3), "link", options);
        let sent = sent(&mut link, 3);
        let ms = |count| vec![Duration::from_millis(count)];
        assert_eq!(
            sent,
            [(Fate::Arrives, ms(101)), (Fate::Arrives, ms(201)), (Fate::Overflowed, Vec::new())]
        );
    }

    #[test]
    fn a_datagram_of_the_mtu_passes_and_one_byte_more_does_not() {
        let mut link = Link::new(Seed(3), "link", LinkOptions { mtu: 100, ..Default::default() });
        assert_eq!(sent(&mut link, 1)[0].0, Fate::Arrives);
        link.options.mtu = 99;
        assert_eq!(sent(&mut link, 1)[0].0, Fate::TooBig);
    }
}
