//! A network that misbehaves as the command line says.

use std::net::SocketAddr;
use std::time::Duration;

use rxrpc::EndpointBuilder;
use rxrpc::net::{
    BoundUdp, FaultControl, Faults, FaultyNetwork, Network, UdpOptions, network_source,
};

use super::args::Stop;

/// How many of the datagrams are overtaken, where any shall be.
const REORDERED: f64 = 0.1;
/// Longest delay, in milliseconds.
const DELAY_MS_MAX: u64 = 60_000;

/// What happens to datagrams on their way out and in, each direction for itself; the same seed and the same
/// datagrams give the same faults.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct ChaosArgs {
    /// Lose so many of the datagrams
    #[arg(long, help_heading = "Chaos", value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    loss: f64,
    /// Send so many of them twice
    #[arg(long, help_heading = "Chaos", value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    dup: f64,
    /// Let a tenth of them be overtaken by up to so many others
    #[arg(long, help_heading = "Chaos", value_name = "DATAGRAMS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    reorder: u32,
    /// Delay each of them: 10ms, 2s
    #[arg(long, help_heading = "Chaos", value_name = "TIME", default_value = "0ms", value_parser = delay)]
    delay: Duration,
    /// What faults are drawn from
    #[arg(long, help_heading = "Chaos", value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

impl ChaosArgs {
    /// The endpoint's socket at `at`, or one for each of its shards, with its faults.
    pub fn bind(
        &self,
        builder: EndpointBuilder,
        at: SocketAddr,
        shards: u32,
    ) -> Result<EndpointBuilder, Stop> {
        let shards = shards as usize;
        let faults = self.faults();
        if faults.are_none() {
            return Ok(builder.bind(at).shards(shards));
        }
        let all = UdpOptions::bind_to(at).bind_shared(shards);
        let all = all.map_err(|error| Stop::trouble(format_args!("{at}: {error}")))?;
        let control = FaultControl::new();
        control.set(faults);
        let faulty = |(shard, bound): (u64, BoundUdp)| {
            let (seed, control) = (self.seed.wrapping_add(shard), control.clone());
            network_source(move || Ok(FaultyNetwork::new(bound.open()?, seed, control)))
        };
        Ok(builder.networks((0..).zip(all).map(faulty).collect()))
    }

    /// A socket at `at` with faults; `None` = there are no faults.
    #[allow(dead_code, reason = "only rx speaks without an endpoint")]
    pub fn network(&self, at: SocketAddr) -> Result<Option<impl Network + use<>>, Stop> {
        let faults = self.faults();
        if faults.are_none() {
            return Ok(None);
        }
        let opened = UdpOptions::bind_to(at).bind().and_then(BoundUdp::open);
        let opened = opened.map_err(|error| Stop::trouble(format_args!("{at}: {error}")))?;
        let control = FaultControl::new();
        control.set(faults);
        Ok(Some(FaultyNetwork::new(opened, self.seed, control)))
    }

    fn faults(&self) -> Faults {
        Faults {
            loss_probability: self.loss,
            duplicate_probability: self.dup,
            reorder_probability: if self.reorder > 0 { REORDERED } else { 0.0 },
            reorder_datagrams_max: self.reorder,
            delay_ms: self.delay.as_millis() as u64,
            ..Faults::default()
        }
    }
}

/// `5%` or `0.5%`, as a probability.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let part = number.filter(|number| (0.0..=100.0).contains(number)).map(|number| number / 100.0);
    part.ok_or_else(|| "expected a percentage of 0% to 100%".to_owned())
}

/// `10ms` or `2s`.
fn delay(text: &str) -> Result<Duration, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let in_ms = text.strip_suffix("ms").and_then(number);
    let in_s = || text.strip_suffix('s').and_then(number)?.checked_mul(1000);
    let ms = in_ms.or_else(in_s).filter(|ms| *ms <= DELAY_MS_MAX);
    ms.map(Duration::from_millis).ok_or_else(|| "expected a time of 0ms to 60s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of each datagram then is a matter of the seed and of nothing else: `net::faults` tests that.
    #[test]
    fn the_flags_say_what_happens_and_what_it_is_drawn_from() {
        #[derive(clap::Parser, Debug)]
        struct Only {
            #[command(flatten)]
            chaos: ChaosArgs,
        }
        let read = |line: &str| {
            let words = std::iter::once("x").chain(line.split_whitespace());
            <Only as clap::Parser>::try_parse_from(words).expect("good flags").chaos
        };
        let chaos = read("--loss 5% --dup 1% --reorder 3 --delay 10ms --seed 7");
        let faults = Faults {
            loss_probability: 0.05,
            duplicate_probability: 0.01,
            reorder_probability: REORDERED,
            reorder_datagrams_max: 3,
            delay_ms: 10,
            ..Faults::default()
        };
        assert_eq!((chaos.seed, chaos.faults()), (7, faults));
        let none = read("");
        assert!(none.faults().are_none() && none.seed == 1);
    }

    #[test]
    fn percentages_and_delays_are_read_or_refused() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("0.5%"), Ok(0.005));
        assert_eq!(percent("100%"), Ok(1.0));
        for bad in ["5", "-1%", "101%", "x%", "NaN%", "%", ""] {
            assert!(percent(bad).is_err(), "{bad}");
        }
        assert_eq!(delay("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(delay("60s"), Ok(Duration::from_secs(60)));
        for bad in ["10", "-1ms", "61s", "1.5s", "60001ms", "ms", "s", "18446744073709551615s"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }
}
