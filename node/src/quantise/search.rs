//! Finds out which parts of a model are better left in floats, by measuring: the way to small integers
//! and back costs time, and some kernels are slower on them than on floats.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::MakeError;
use super::judge::{Judge, SHORT};
use crate::engine::Partition;
use crate::model::{Candidate, Observed, Quantiser, RangeMethod};

/// A smaller gain is not told from noise.
const GAIN_MIN: f64 = 0.015;
/// How often a gain must show: of many tries some look better by chance.
const MEASURED: usize = 2;
/// Further steps from an end of the model that are tried after one that gained nothing.
const MISSES_MAX: usize = 3;

pub(super) struct Search<'a> {
    pub quantiser: &'a Quantiser,
    pub observed: &'a HashMap<String, Observed>,
    pub judge: &'a Judge<'a>,
    pub candidates: &'a [Candidate],
}

/// The candidates that stay in floats, and what that makes.
pub(super) struct Found {
    pub floats: HashSet<usize>,
    /// The model, by plain ranges.
    partition: Arc<Partition>,
    /// Its time as a share of the float model's.
    time_ratio: f64,
}

impl Search<'_> {
    /// Searches until the deadline; `kept` stay in floats in any case.
    pub(super) async fn run(
        &self,
        kept: &HashSet<usize>,
        deadline: Instant,
        progress: &dyn Fn(&str),
    ) -> Result<Found, MakeError> {
        let slower = (0..self.candidates.len()).filter(|index| self.candidates[*index].slower);
        let mut start: HashSet<usize> = kept.iter().copied().chain(slower).collect();
        if start.len() == self.candidates.len() {
            // Something must be left to do; if it does not pay, the report says so.
            start.clone_from(kept);
        }
        let partition = self.load(&start).await?;
        let time_ratio = self.judge.time_ratio(&partition, SHORT).await?;
        let mut best = Found { floats: start, partition, time_ratio };
        let products = (0..self.candidates.len()).filter(|index| self.candidates[*index].op_type != "Conv");
        let without_products = best.floats.iter().copied().chain(products).collect();
        self.attempt(&mut best, without_products, progress).await?;
        let forward: Vec<usize> = (0..self.candidates.len()).collect();
        let backward: Vec<usize> = forward.iter().rev().copied().collect();
        for from_an_end in [forward, backward] {
            let mut floats = best.floats.clone();
            let mut misses = 0;
            for index in from_an_end {
                if !floats.insert(index) {
                    continue;
                }
                if misses == MISSES_MAX || Instant::now() > deadline {
                    break;
                }
                let gained = self.attempt(&mut best, floats.clone(), progress).await?;
                misses = if gained { 0 } else { misses + 1 };
            }
        }
        Ok(best)
    }

    /// Whether these are better left in floats than those so far.
    async fn attempt(
        &self,
        best: &mut Found,
        floats: HashSet<usize>,
        progress: &dyn Fn(&str),
    ) -> Result<bool, MakeError> {
        if floats.len() == self.candidates.len() || floats == best.floats {
            return Ok(false);
        }
        let partition = self.load(&floats).await?;
        let mut shares = Vec::new();
        while shares.len() < MEASURED && shares.iter().all(|share| *share < 1.0 - GAIN_MIN) {
            shares.push(self.judge.time_share(&partition, &best.partition, SHORT).await?);
        }
        let share = shares.into_iter().fold(0.0, f64::max);
        let gained = share < 1.0 - GAIN_MIN;
        if gained {
            *best = Found { floats, partition, time_ratio: best.time_ratio * share };
        }
        progress(&format!(
            "searching: {:.2} of the FP32 model's time with {} of {} products in floats",
            best.time_ratio,
            best.floats.len(),
            self.candidates.len()
        ));
        Ok(gained)
    }

    async fn load(&self, floats: &HashSet<usize>) -> Result<Arc<Partition>, MakeError> {
        let model = self.quantiser.quantise(self.observed, RangeMethod::MinMax, floats)?;
        self.judge.load(&model).await
    }
}
