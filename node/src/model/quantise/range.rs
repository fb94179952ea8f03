//! From what was seen of a tensor to the range that its 256 steps cover.

use super::observe::Histogram;

/// Steps between the smallest and the largest small integer.
const STEPS: f32 = 255.0;
/// Share of the values that may lie outside on either side, for [`RangeMethod::Percentile`].
const OUTSIDE_SHARE: f64 = 1e-4;
/// Ranges tried for [`RangeMethod::LeastSquares`]: down to a fifth of the whole in steps of a fiftieth.
const TRIES: std::ops::RangeInclusive<u16> = 10..=50;

/// How a range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeMethod {
    /// Everything that was seen.
    MinMax,
    /// All but one value in ten thousand on either side.
    Percentile,
    /// Where the mean square error of rounding and cutting off together is least.
    LeastSquares,
}

impl RangeMethod {
    /// Every method, the plainest first.
    pub const ALL: [Self; 3] = [Self::MinMax, Self::Percentile, Self::LeastSquares];

    /// A word for it in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile => "percentile",
            Self::LeastSquares => "least-squares",
        }
    }
}

/// Scale and zero point of a tensor of unsigned 8-bit integers: `value = (q - zero) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Steps {
    pub scale: f32,
    pub zero: u8,
}

/// A range of values that contains zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub low: f32,
    pub high: f32,
}

impl Range {
    /// Of these ends, zero included: padding and Relu need an exact zero.
    pub(super) fn new(low: f32, high: f32) -> Self {
        Self { low: low.min(0.0), high: high.max(0.0) }
    }

    pub(super) fn of(histogram: &Histogram, method: RangeMethod) -> Self {
        let (min, max) = histogram.ends();
        let whole = Self::new(min, max);
        match method {
            RangeMethod::MinMax => whole,
            RangeMethod::Percentile => percentile(histogram, whole),
            RangeMethod::LeastSquares => least_squares(histogram, whole),
        }
    }

    pub(super) fn width(self) -> f32 {
        self.high - self.low
    }

    /// The smallest range that holds both.
    pub(super) fn with(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    pub(super) fn steps(self) -> Steps {
        let scale = self.width() / STEPS;
        // A tensor that is always zero, or so small that its scale is no normal number.
        if !scale.is_normal() {
            return Steps { scale: 1.0, zero: 0 };
        }
        Steps { scale, zero: (-self.low / scale).round().clamp(0.0, STEPS) as u8 }
    }
}

impl Steps {
    /// The small integer nearest to a value; ties to even, as `QuantizeLinear` has it.
    pub(super) fn quantise(self, value: f32) -> u8 {
        let steps = (value / self.scale).round_ties_even() + f32::from(self.zero);
        steps.clamp(0.0, STEPS) as u8
    }
}

fn percentile(histogram: &Histogram, whole: Range) -> Range {
    let outside = (histogram.count() as f64 * OUTSIDE_SHARE) as u64;
    fn end(mut bins: impl Iterator<Item = (f32, u64)>, outside: u64) -> Option<f32> {
        let mut passed = 0;
        bins.find_map(|(middle, count)| {
            passed += count;
            (passed > outside).then_some(middle)
        })
    }
    let half = histogram.bin_width() / 2.0;
    let low = end(histogram.bins(), outside).map_or(whole.low, |middle| middle - half);
    let high = end(histogram.bins().rev(), outside).map_or(whole.high, |middle| middle + half);
    Range::new(low.max(whole.low), high.min(whole.high))
}

fn least_squares(histogram: &Histogram, whole: Range) -> Range {
    let part = |low: u16, high: u16| {
        let of = |end: f32, share: u16| end * (f32::from(share) / f32::from(*TRIES.end()));
        Range { low: of(whole.low, low), high: of(whole.high, high) }
    };
    let best = |candidates: &mut dyn Iterator<Item = (u16, u16)>| {
        candidates.map(|(low, high)| (squares(histogram, part(low, high)), (low, high))).fold(
            (f64::INFINITY, (*TRIES.end(), *TRIES.end())),
            |best, next| if next.0 < best.0 { next } else { best },
        )
    };
    // Both ends together, then each by itself: thrice 41 candidates instead of 41 squared.
    let (_, (_, high)) = best(&mut TRIES.rev().map(|share| (share, share)));
    let (_, (low, _)) = best(&mut TRIES.rev().map(|low| (low, high)));
    let (_, (low, high)) = best(&mut TRIES.rev().map(|high| (low, high)));
    part(low, high)
}

/// Sum of the squared errors that a range makes.
fn squares(histogram: &Histogram, range: Range) -> f64 {
    let step = f64::from(range.width() / STEPS);
    // Rounding errors are as good as even over a step.
    let rounding = step * step / 12.0;
    let half_bin = histogram.bin_width() / 2.0;
    let of_bin = |(middle, count): (f32, u64)| {
        let outside = f64::from((range.low - middle).max(middle - range.high).max(0.0));
        // Exact zeros, which a Relu leaves many of, have a step of their own and no error. They share
        // their bin with few others.
        let error = if middle.abs() <= half_bin { 0.0 } else { rounding };
        count as f64 * (error + outside * outside)
    };
    histogram.bins().map(of_bin).sum()
}

#[cfg(test)]
mod tests {
    use super::super::observe::Observed;
    use super::*;
    use proptest::prelude::*;

    fn seen(values: &[f32]) -> Histogram {
        let mut observed = Observed::default();
        observed.add("x", values, &[values.len() as u64], None).unwrap();
        observed.histogram
    }

    /// What is left of a value.
    fn through(steps: Steps, value: f32) -> f32 {
        (f32::from(steps.quantise(value)) - f32::from(steps.zero)) * steps.scale
    }

    fn error(values: &[f32], range: Range) -> f64 {
        let steps = range.steps();
        values.iter().map(|value| f64::from(through(steps, *value) - value).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn within_the_range_no_value_moves_by_more_than_half_a_step(
            values in prop::collection::vec(-1e4f32..1e4, 1..100),
        ) {
            let steps = Range::of(&seen(&values), RangeMethod::MinMax).steps();
            for value in values {
                // The zero point is rounded, which moves the ends by up to half a step.
                prop_assert!((through(steps, value) - value).abs() <= steps.scale * 1.001);
            }
            prop_assert_eq!(through(steps, 0.0), 0.0);
        }

        #[test]
        fn every_method_stays_within_what_was_seen(values in prop::collection::vec(-10f32..10.0, 1..300)) {
            let whole = Range::of(&seen(&values), RangeMethod::MinMax);
            for method in RangeMethod::ALL {
                let range = Range::of(&seen(&values), method);
                prop_assert!(range.low >= whole.low && range.high <= whole.high);
                prop_assert!(range.low <= 0.0 && range.high >= 0.0);
            }
        }
    }

    #[test]
    fn an_outlier_is_cut_off_where_that_costs_less() {
        let mut values: Vec<f32> = (0..1_000_000).map(|index| (index % 1000) as f32 / 1000.0).collect();
        values.push(3.0);
        let histogram = seen(&values);
        let [min_max, percentile, least] = RangeMethod::ALL.map(|method| Range::of(&histogram, method));
        assert_eq!(min_max.high, 3.0);
        assert!(percentile.high < 1.01, "{percentile:?}");
        assert!(error(&values, least) < 0.6 * error(&values, min_max), "{least:?}");
    }
}
