//! What calibration sees of a tensor, in bounded memory: how often which values come, and the mean of
//! each channel. What range follows from it is chosen in `range`.

use super::error::QuantiseError;

/// Bins of a histogram. Half of them lie on the empty side of a tensor that is never negative; the other
/// half are still eight times as fine as the 256 steps.
const BINS: usize = 4096;

/// How often which values came. Grows by doubling its width, so one pass over the samples is enough.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    /// Values within `-limit..=limit` are counted in bins of equal width.
    limit: f32,
    counts: Vec<u64>,
    min: f32,
    max: f32,
}

impl Histogram {
    fn new() -> Self {
        Self { limit: 0.0, counts: vec![0; BINS], min: f32::INFINITY, max: f32::NEG_INFINITY }
    }

    fn add(&mut self, values: &[f32]) {
        let (min, max) = values
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), value| (min.min(*value), max.max(*value)));
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        self.widen(self.max.max(-self.min));
        // Zeros alone need no bins: there is nothing to choose.
        let scale = if self.limit > 0.0 { BINS as f32 / 2.0 / self.limit } else { 0.0 };
        for value in values {
            let bin = (value * scale + BINS as f32 / 2.0) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// Makes room for values up to `reach`.
    fn widen(&mut self, reach: f32) {
        if self.limit == 0.0 {
            // What was counted so far were zeros, which stay in the middle.
            self.limit = reach;
            return;
        }
        while self.limit < reach {
            let mut counts = vec![0; BINS];
            for (bin, count) in self.counts.iter().enumerate() {
                counts[BINS / 4 + bin / 2] += count;
            }
            self.counts = counts;
            self.limit *= 2.0;
        }
    }

    /// Smallest and largest value; both zero before the first.
    pub(super) fn ends(&self) -> (f32, f32) {
        if self.min <= self.max { (self.min, self.max) } else { (0.0, 0.0) }
    }

    /// How many values came.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The middle of each bin that holds anything, with its count.
    pub(super) fn bins(&self) -> impl DoubleEndedIterator<Item = (f32, u64)> {
        let width = 2.0 * self.limit / BINS as f32;
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(move |(bin, count)| ((bin as f32 + 0.5) * width - self.limit, *count))
    }

    /// Width of a bin.
    pub(super) fn bin_width(&self) -> f32 {
        2.0 * self.limit / BINS as f32
    }
}

/// What was seen of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    pub(super) histogram: Histogram,
    /// Sum of each channel's values, and how many values of each there were.
    sums: Vec<f64>,
    per_channel: u64,
}

impl Default for Observed {
    fn default() -> Self {
        Self { histogram: Histogram::new(), sums: Vec::new(), per_channel: 0 }
    }
}

impl Observed {
    /// Counts the values of one run. `channel_axis` is where the channels of this shape lie, if their
    /// means are wanted.
    ///
    /// # Errors
    /// When a value is not finite, or the values are not as many as the shape says.
    pub fn add(
        &mut self,
        name: &str,
        values: &[f32],
        shape: &[u64],
        channel_axis: Option<usize>,
    ) -> Result<(), QuantiseError> {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(QuantiseError::NotFinite { tensor: name.to_owned() });
        }
        self.histogram.add(values);
        let Some(axis) = channel_axis.filter(|axis| *axis < shape.len()) else { return Ok(()) };
        let channels = shape[axis] as usize;
        let inner = shape[axis + 1..].iter().product::<u64>() as usize;
        if channels == 0 || inner == 0 {
            return Ok(());
        }
        self.sums.resize(channels, 0.0);
        for (row, run) in values.chunks_exact(inner).enumerate() {
            self.sums[row % channels] += run.iter().map(|value| f64::from(*value)).sum::<f64>();
        }
        self.per_channel += (values.len() / channels) as u64;
        Ok(())
    }

    /// Mean of each channel; empty if none were asked for.
    pub(super) fn means(&self) -> Vec<f64> {
        let count = self.per_channel.max(1) as f64;
        self.sums.iter().map(|sum| sum / count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_when_the_width_grows(runs in prop::collection::vec(
            prop::collection::vec(-1e3f32..1e3, 1..50), 1..8,
        )) {
            let mut histogram = Histogram::new();
            runs.iter().for_each(|run| histogram.add(run));
            let all: Vec<f32> = runs.concat();
            prop_assert_eq!(histogram.count(), all.len() as u64);
            let (min, max) = histogram.ends();
            prop_assert!(all.iter().all(|value| (min..=max).contains(value)));
            // Each value lies in a filled bin: no farther from its middle than half a width, and a little
            // for rounding.
            let reach = histogram.bin_width() * 0.51;
            let middles: Vec<f32> = histogram.bins().map(|(middle, _)| middle).collect();
            for value in all {
                prop_assert!(middles.iter().any(|middle| (middle - value).abs() <= reach), "{} is in no bin", value);
            }
        }
    }

    #[test]
    fn channels_have_their_own_means() {
        let mut observed = Observed::default();
        observed.add("x", &[1.0, 3.0, 10.0, 20.0], &[1, 2, 2], Some(1)).unwrap();
        observed.add("x", &[5.0, 7.0, 30.0, 40.0], &[1, 2, 2], Some(1)).unwrap();
        assert_eq!(observed.means(), [4.0, 25.0]);
        let mut rows = Observed::default();
        rows.add("x", &[1.0, 3.0, 5.0, 7.0], &[2, 2], Some(1)).unwrap();
        assert_eq!(rows.means(), [3.0, 5.0]);
        assert!(rows.add("x", &[f32::NAN], &[1], None).is_err());
    }

    #[test]
    fn zeros_alone_are_no_range() {
        let mut histogram = Histogram::new();
        histogram.add(&[0.0; 9]);
        assert_eq!((histogram.ends(), histogram.count()), ((0.0, 0.0), 9));
        histogram.add(&[4.0]);
        assert_eq!(histogram.bins().map(|(_, count)| count).collect::<Vec<_>>(), [9, 1]);
    }
}
