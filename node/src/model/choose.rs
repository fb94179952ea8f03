//! Which positions of an order become cuts: those that are thinner than everything near them, "near"
//! measured in work, so that thin places and an even spread are one criterion.

use super::dag::{Dag, Position};

/// Of a block's even share of the work, the part below which a cut is not worth its block.
const WORTH_OF_SHARE: f64 = 0.25;

/// Ascending positions (node counts before the cut) that divide an order into at most `blocks_max`.
pub(super) fn choose_cuts(dag: &Dag, order: &[usize], input_bytes: u64, blocks_max: usize) -> Vec<usize> {
    let positions = dag.crossings(order);
    let total = dag.total_work() as f64;
    let mut done = 0.0;
    // (position, share of work before it, bytes)
    let mut candidates = Vec::new();
    for (index, node) in order.iter().enumerate().take(order.len().saturating_sub(1)) {
        done += dag.work[*node] as f64 / total;
        let Position { bytes, possible } = positions[index + 1];
        if possible {
            candidates.push((index + 1, done, bytes));
        }
    }
    let distances = distances_to_thinner(&candidates);
    // A cut wider than the input itself serves only where nothing better is near.
    let thinness = |bytes: u64| (input_bytes.max(1) as f64 / bytes.max(1) as f64).min(1.0);
    let least = WORTH_OF_SHARE / blocks_max.max(1) as f64;
    let mut ranked: Vec<(f64, usize)> = candidates
        .iter()
        .zip(distances)
        .filter(|(_, distance)| *distance >= least)
        .map(|((position, _, bytes), distance)| (distance * thinness(*bytes), *position))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.truncate(blocks_max.saturating_sub(1));
    let mut cuts: Vec<usize> = ranked.into_iter().map(|(_, position)| position).collect();
    cuts.sort_unstable();
    cuts
}

/// For each candidate, the work to the nearest one that is thinner, or 1. Of equals the later counts as
/// thinner: behind an activation function rather than before it, which lets the two be fused.
fn distances_to_thinner(candidates: &[(usize, f64, u64)]) -> Vec<f64> {
    let mut distances = vec![1.0f64; candidates.len()];
    let mut open: Vec<usize> = Vec::new();
    for (index, (_, done, bytes)) in candidates.iter().enumerate() {
        while let Some(last) = open.last().copied()
            && candidates[last].2 >= *bytes
        {
            distances[last] = distances[last].min(done - candidates[last].1);
            open.pop();
        }
        if let Some(last) = open.last() {
            distances[index] = done - candidates[*last].1;
        }
        open.push(index);
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_to_the_nearest_thinner_or_later_equal() {
        let candidates = [(1, 0.1, 50), (2, 0.2, 20), (3, 0.3, 20), (4, 0.6, 90), (5, 0.8, 10)];
        let rounded: Vec<i32> =
            distances_to_thinner(&candidates).iter().map(|value| (value * 10.0).round() as i32).collect();
        assert_eq!(rounded, [1, 1, 5, 2, 10]);
    }
}
