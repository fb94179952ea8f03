//! The figures that benchmarks and the demo state: the one in the middle, and others by their rank.

use stormo_testnet::judge::percentile;

/// The middle one; of an even number, the mean of the two in the middle; NaN of none.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

/// The smallest figure that this share of all is not above; NaN of none.
pub(crate) fn quantile(figures: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    percentile(&figures, share).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn a_quantile_is_one_of_the_figures() {
        let hundred = || (1..=100).rev().map(f64::from);
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(hundred(), share)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(quantile([3.0].into_iter(), 0.99), 3.0);
        assert!(quantile(std::iter::empty(), 0.5).is_nan());
    }
}
