//! Percentiles.

use serde::Serialize;

/// A distribution of latencies, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Half are faster.
    pub p50_ms: f64,
    /// Nine in ten are faster.
    pub p90_ms: f64,
    /// Ninety-nine in a hundred are faster.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latency {
    /// Of latencies in microseconds; `None` of none.
    pub fn of(latencies_us: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<u64> = latencies_us.collect();
        sorted.sort_unstable();
        let at = |share| percentile(&sorted, share).map(|us| us as f64 / 1000.0);
        Some(Self {
            count: sorted.len() as u64,
            p50_ms: at(0.5)?,
            p90_ms: at(0.9)?,
            p99_ms: at(0.99)?,
            max_ms: at(1.0)?,
        })
    }
}

/// The least of sorted values that is not below this share of them (nearest rank); `None` of none.
pub fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.99), Some(99));
        assert_eq!(percentile(&values, 0.5), Some(50));
        assert_eq!(percentile(&values, 1.0), Some(100));
        assert_eq!(percentile(&values[..3], 0.99), Some(3));
        assert_eq!(percentile(&values[..1], 0.0), Some(1));
        assert_eq!(percentile::<u64>(&[], 0.5), None);
    }
}
