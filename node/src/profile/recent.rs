//! The times of a partition's last runs: half of them were faster than the one, nearly all than the other.

use std::collections::VecDeque;

/// Runs that count. Enough that two slow ones in a row do not look like a slow partition, and few enough
/// that a machine that became busy is noticed within a second of work.
const RUNS_MAX: usize = 40;

/// The last runs, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent {
    times_us: VecDeque<u64>,
}

impl Recent {
    /// Counts a run.
    pub fn note(&mut self, time_us: u64) {
        if self.times_us.len() == RUNS_MAX {
            self.times_us.pop_front();
        }
        self.times_us.push_back(time_us);
    }

    /// Half of the runs were faster; 0 before the first.
    pub fn median_us(&self) -> u64 {
        self.quantile_us(50)
    }

    /// Of twenty runs nineteen were faster.
    pub fn p95_us(&self) -> u64 {
        self.quantile_us(95)
    }

    fn quantile_us(&self, percent: usize) -> u64 {
        let mut sorted: Vec<u64> = self.times_us.iter().copied().collect();
        sorted.sort_unstable();
        let index = sorted.len() * percent / 100;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

impl FromIterator<u64> for Recent {
    fn from_iter<I: IntoIterator<Item = u64>>(times_us: I) -> Self {
        let mut recent = Self::default();
        times_us.into_iter().for_each(|time_us| recent.note(time_us));
        recent
    }
}
