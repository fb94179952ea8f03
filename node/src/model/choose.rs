//! Which positions of an order become cuts: those that are thinner than everything near them, "near"
//! measured in work, so that thin places and an even spread are one criterion; then the borders of
//! branches, as far as thin places leave them room.

use super::dag::{Dag, Position};
use super::parallel::Parallel;

/// Of a block's even share of the work, the part below which a cut is not worth its block.
const WORTH_OF_SHARE: f64 = 0.25;
/// Places along the work whose thinnest cut is kept, however much a branch would like its room: half as
/// many as blocks, so that plans of any number of stages find one near where they want it.
const PLACES_KEPT: f64 = 32.0;

/// Share of a graph's work that a block, or a branch, should have at least.
pub(super) fn least_share(blocks_max: usize) -> f64 {
    WORTH_OF_SHARE / blocks_max.max(1) as f64
}

/// Where an order is divided.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    /// Ascending positions (node counts before the cut), neither the first nor the last.
    pub cuts: Vec<usize>,
    /// Regions all of whose bounds are among them, from the first to the last in the order.
    pub regions: Vec<Parallel>,
}

/// A position where a cut may lie.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    position: usize,
    /// Share of the work before it.
    done: f64,
    bytes: u64,
    /// How much it is wished for; 0 when it is no cut by itself.
    worth: f64,
}

/// Divides an order into at most `blocks_max` blocks. `regions` come best first.
pub(super) fn choose(
    dag: &Dag,
    order: &[usize],
    regions: Vec<Parallel>,
    input_bytes: u64,
    blocks_max: usize,
) -> Chosen {
    let mut candidates = candidates(dag, order);
    let distances = distances_to_thinner(&candidates);
    // A cut wider than the input itself serves only where nothing better is near.
    let thinness = |bytes: u64| (input_bytes.max(1) as f64 / bytes.max(1) as f64).min(1.0);
    let least = least_share(blocks_max);
    for (candidate, distance) in candidates.iter_mut().zip(distances) {
        if distance >= least {
            candidate.worth = distance * thinness(candidate.bytes);
        }
    }
    let mut cuts: Vec<Candidate> =
        candidates.iter().filter(|candidate| candidate.worth > 0.0).copied().collect();
    cuts.sort_by(|a, b| b.worth.total_cmp(&a.worth).then(a.position.cmp(&b.position)));
    cuts.truncate(blocks_max.saturating_sub(1));
    let mut room = Room { cuts, cuts_max: blocks_max.saturating_sub(1), bounds: Vec::new(), least };
    let inner = |bounds: &[usize]| -> Vec<Candidate> {
        bounds
            .iter()
            .filter_map(|bound| candidates.iter().find(|one| one.position == *bound))
            .copied()
            .collect()
    };
    let mut kept: Vec<Parallel> =
        regions.into_iter().filter(|region| room.take(&inner(&region.bounds))).collect();
    kept.sort_by_key(|region| region.bounds[0]);
    let mut cuts: Vec<usize> = room.cuts.into_iter().map(|cut| cut.position).collect();
    cuts.sort_unstable();
    Chosen { cuts, regions: kept }
}

/// Positions with a block before and behind them.
fn candidates(dag: &Dag, order: &[usize]) -> Vec<Candidate> {
    let positions = dag.crossings(order);
    let total = dag.total_work() as f64;
    let mut done = 0.0;
    let mut candidates = Vec::new();
    for (index, node) in order.iter().enumerate().take(order.len().saturating_sub(1)) {
        done += dag.work[*node] as f64 / total;
        let Position { bytes, possible } = positions[index + 1];
        if possible {
            candidates.push(Candidate { position: index + 1, done, bytes, worth: 0.0 });
        }
    }
    candidates
}

/// The cuts there are, and what may still be changed about them.
struct Room {
    /// Most worth first.
    cuts: Vec<Candidate>,
    cuts_max: usize,
    /// Positions that bound a branch.
    bounds: Vec<usize>,
    least: f64,
}

impl Room {
    /// Makes cuts of a region's bounds, unless thin cuts would have to go.
    fn take(&mut self, bounds: &[Candidate]) -> bool {
        let mut cuts = self.cuts.clone();
        let positions = bounds.iter().map(|bound| bound.position);
        let all_bounds: Vec<usize> = self.bounds.iter().copied().chain(positions).collect();
        for bound in bounds {
            // A cut next to it that is no thinner is the same cut.
            let is_near = |cut: &Candidate| (cut.done - bound.done).abs() < self.least;
            let is_replaced = |cut: &Candidate| is_near(cut) && cut.bytes >= bound.bytes;
            cuts.retain(|cut| all_bounds.contains(&cut.position) || !is_replaced(cut));
            if cuts.iter().all(|cut| cut.position != bound.position) {
                cuts.push(*bound);
            }
        }
        while cuts.len() > self.cuts_max {
            let thinnest = thinnest(&cuts);
            let spare =
                |cut: &Candidate| !all_bounds.contains(&cut.position) && !thinnest.contains(&cut.position);
            let Some(last) = cuts.iter().rposition(spare) else { return false };
            cuts.remove(last);
        }
        (self.cuts, self.bounds) = (cuts, all_bounds);
        true
    }
}

/// Of each place along the work, the position of its thinnest cut.
fn thinnest(cuts: &[Candidate]) -> Vec<usize> {
    let place = |cut: &Candidate| (cut.done * PLACES_KEPT) as usize;
    let mut thinnest: Vec<Candidate> = cuts.to_vec();
    thinnest.sort_by_key(|cut| (place(cut), cut.bytes, cut.position));
    thinnest.dedup_by_key(|cut| place(cut));
    thinnest.into_iter().map(|cut| cut.position).collect()
}

/// For each candidate, the work to the nearest one that is thinner, or 1. Of equals the later counts as
/// thinner: behind an activation function rather than before it, which lets the two be fused.
fn distances_to_thinner(candidates: &[Candidate]) -> Vec<f64> {
    let mut distances = vec![1.0f64; candidates.len()];
    let mut open: Vec<usize> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        while let Some(last) = open.last().copied()
            && candidates[last].bytes >= candidate.bytes
        {
            distances[last] = distances[last].min(candidate.done - candidates[last].done);
            open.pop();
        }
        if let Some(last) = open.last() {
            distances[index] = candidate.done - candidates[*last].done;
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
        let candidates = [(1, 0.1, 50), (2, 0.2, 20), (3, 0.3, 20), (4, 0.6, 90), (5, 0.8, 10)]
            .map(|(position, done, bytes)| Candidate { position, done, bytes, worth: 0.0 });
        let rounded: Vec<i32> =
            distances_to_thinner(&candidates).iter().map(|value| (value * 10.0).round() as i32).collect();
        assert_eq!(rounded, [1, 1, 5, 2, 10]);
    }
}
