//! When the requests of an open loop arrive: decided before the first is sent, from a seed.

use crate::random::Random;

/// Requests of one run: a gigabyte of notes at most.
pub const ARRIVALS_MAX: usize = 2_000_000;

/// A request that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When, since the load's beginning.
    pub at_us: u64,
    /// Place of the node where it enters.
    pub entry: u16,
    /// Which input.
    pub input: u16,
}

/// All arrivals from one time up to another; `ARRIVALS_MAX` at most. Nodes are entered in turns, inputs
/// drawn.
pub fn arrivals(
    per_s: f64,
    is_poisson: bool,
    [from_us, until_us]: [u64; 2],
    at: &[u16],
    inputs: u16,
    random: &mut Random,
) -> Vec<Arrival> {
    let mean_us = 1e6 / per_s;
    let mut gap_us = || if is_poisson { random.exponential(mean_us) } else { mean_us };
    let mut times = Vec::new();
    let mut at_us = from_us as f64 + gap_us();
    while at_us < until_us as f64 && times.len() < ARRIVALS_MAX {
        times.push(at_us as u64);
        at_us += gap_us();
    }
    let entered = |(index, at_us): (usize, u64)| Arrival {
        at_us,
        entry: at.get(index % at.len().max(1)).copied().unwrap_or(0),
        input: random.below(usize::from(inputs)) as u16,
    };
    times.into_iter().enumerate().map(entered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_arrivals() {
        let draw = |seed| arrivals(200.0, true, [0, 5_000_000], &[0, 2], 7, &mut Random::new(seed));
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        let drawn = draw(3);
        // A Poisson process of 200/s: 1000 in 5 s, give or take 5 standard deviations.
        assert!((840..1160).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|arrival| arrival.at_us < 5_000_000 && arrival.input < 7));
        assert!(
            drawn.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us && pair[0].entry != pair[1].entry)
        );
    }

    #[test]
    fn even_gaps_are_equal() {
        let even = arrivals(10.0, false, [1_000_000, 2_000_000], &[1], 1, &mut Random::new(0));
        let times: Vec<u64> = even.iter().map(|arrival| arrival.at_us).collect();
        assert_eq!(
            times,
            [
                1_100_000, 1_200_000, 1_300_000, 1_400_000, 1_500_000, 1_600_000, 1_700_000, 1_800_000,
                1_900_000
            ]
        );
    }
}
