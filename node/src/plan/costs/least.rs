//! Least sums over lists.

/// The least of `a[i] + b[i]`. Four lanes, since one chain of comparisons would wait for itself.
pub(in crate::plan) fn least_sum(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [f64::INFINITY; 4];
    let (a_lanes, b_lanes) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder());
    for (a, b) in a_lanes.zip(b_lanes) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            let sum = a + b;
            *lane = if sum < *lane { sum } else { *lane };
        }
    }
    rest.map(|(a, b)| a + b).chain(lanes).fold(f64::INFINITY, f64::min)
}

/// The least of `a[i] + b[i] + factor * c[i]`, likewise.
pub(super) fn least_sum_with(a: &[f64], b: &[f64], c: &[f64], factor: f64) -> f64 {
    let mut lanes = [f64::INFINITY; 4];
    let (a_lanes, b_lanes, c_lanes) = (a.chunks_exact(4), b.chunks_exact(4), c.chunks_exact(4));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder()).zip(c_lanes.remainder());
    for ((a, b), c) in a_lanes.zip(b_lanes).zip(c_lanes) {
        for (lane, ((a, b), c)) in lanes.iter_mut().zip(a.iter().zip(b).zip(c)) {
            let sum = a + b + factor * c;
            *lane = if sum < *lane { sum } else { *lane };
        }
    }
    rest.map(|((a, b), c)| a + b + factor * c).chain(lanes).fold(f64::INFINITY, f64::min)
}

/// Keeps the least of `all[i]` and `a + b[i] + factor * c[i]`.
pub(super) fn keep_least_sums(all: &mut [f64], a: f64, b: &[f64], (c, factor): (&[f64], f64)) {
    for (all, (b, c)) in all.iter_mut().zip(b.iter().zip(c)) {
        let sum = a + b + factor * c;
        *all = if sum < *all { sum } else { *all };
    }
}
