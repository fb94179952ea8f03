//! The order in which nodes run: many are right, few keep little alive. Several are made, each is
//! refined by bisection, judged by the cuts that it offers, and the best is improved cut by cut.

mod bisect;
mod uncross;

use std::cmp::Reverse;

use super::dag::{Dag, Frontier, Position};

/// Ready nodes that the greedy order weighs at each step, the newest: bounds its time on graphs that
/// are wide rather than deep.
const READY_WEIGHED_MAX: usize = 256;
/// Places along the work at which an order is judged: about as many as stages a plan could have.
const PLACES: usize = 32;

/// An order with small frontiers: for each node of it, its index in the graph.
pub(super) fn best_order(dag: &Dag) -> Vec<usize> {
    let height = heights(dag);
    let candidates = [
        (0..dag.len()).collect(),
        depth_first(dag, Reverse),
        depth_first(dag, |node| Reverse(height[node])),
        depth_first(dag, |node| height[node]),
        greedy(dag),
    ];
    let refined = candidates.iter().map(|order| bisect::refine(dag, order)).collect::<Vec<_>>();
    let all = candidates.into_iter().chain(refined).map(|order| late(dag, &order));
    let judged = all.map(|order| (judge(dag, &order), order));
    // The file's own order comes first and wins ties.
    let best = judged.min_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map(|(judged, order)| uncross::improve(dag, judged, order).1).unwrap_or_default()
}

/// How wide the best cuts of an order are: the mean over places along the work of the logarithm of
/// the fewest bytes near it. The logarithm, so that halving a thin cut counts as much as a wide one.
pub(super) fn judge(dag: &Dag, order: &[usize]) -> f64 {
    let positions = dag.crossings(order);
    let total = dag.total_work();
    let widest = positions.iter().map(|position| position.bytes).max().unwrap_or(0);
    // A place without any cut is worse than the widest.
    let mut best = [2.0 * widest as f64; PLACES];
    let mut done = 0u64;
    for (node, Position { bytes, possible }) in order.iter().zip(&positions[1..]) {
        done = done.saturating_add(dag.work[*node]);
        let place = (done as f64 / total as f64 * PLACES as f64) as usize;
        if let Some(best) = best.get_mut(place)
            && *possible
        {
            *best = best.min(*bytes as f64);
        }
    }
    best.iter().map(|bytes| bytes.ln_1p()).sum()
}

/// Node -> work on the heaviest path that ends with it.
fn heights(dag: &Dag) -> Vec<u64> {
    let mut heights = vec![0u64; dag.len()];
    for node in 0..dag.len() {
        let below = dag.before[node].iter().map(|before| heights[*before]).max().unwrap_or(0);
        heights[node] = below.saturating_add(dag.work[node]);
    }
    heights
}

/// The order with every node that makes more than it reads put right before its first reader. That keeps
/// no more alive, and `DequantizeLinear` is one of those nodes: small integers cross instead.
fn late(dag: &Dag, order: &[usize]) -> Vec<usize> {
    let bytes =
        |edges: &[usize]| edges.iter().map(|edge| dag.edges[*edge].bytes).fold(0, u64::saturating_add);
    let mut place = vec![0; dag.len()];
    order.iter().enumerate().for_each(|(index, node)| place[*node] = index);
    // Node -> place of the node that it comes right before, or its own.
    let mut before = place.clone();
    for node in order.iter().rev().copied() {
        let first_reader = dag.after[node].iter().map(|after| before[*after]).min();
        if let Some(first_reader) = first_reader
            && bytes(&dag.writes[node]) > bytes(&dag.reads[node])
        {
            before[node] = first_reader;
        }
    }
    let mut order = order.to_vec();
    order.sort_unstable_by_key(|node| (before[*node], place[*node]));
    order
}

/// Everything that a node needs, then the node; what it needs in the order of the key, smallest last.
fn depth_first<K: Ord>(dag: &Dag, key: impl Fn(usize) -> K) -> Vec<usize> {
    let mut order = Vec::with_capacity(dag.len());
    let mut seen = vec![false; dag.len()];
    for root in (0..dag.len()).filter(|node| dag.after[*node].is_empty()) {
        let mut open = vec![(root, false)];
        while let Some((node, is_ready)) = open.pop() {
            if is_ready {
                order.push(node);
            } else if !std::mem::replace(&mut seen[node], true) {
                open.push((node, true));
                let mut before: Vec<usize> =
                    dag.before[node].iter().copied().filter(|node| !seen[*node]).collect();
                before.sort_by_key(|node| key(*node));
                open.extend(before.into_iter().map(|node| (node, false)));
            }
        }
    }
    order
}

/// Always the ready node that lets the live bytes grow least; of equals the newest, which goes on with
/// what was begun.
fn greedy(dag: &Dag) -> Vec<usize> {
    let mut waits_for: Vec<usize> = dag.before.iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..dag.len()).rev().filter(|node| waits_for[*node] == 0).collect();
    let mut frontier = Frontier::new(dag);
    let mut order = Vec::with_capacity(dag.len());
    while !ready.is_empty() {
        let first = ready.len().saturating_sub(READY_WEIGHED_MAX);
        let cheapest = (first..ready.len()).rev().min_by_key(|index| frontier.growth(ready[*index]));
        let node = ready.remove(cheapest.unwrap_or(first));
        frontier.run(node);
        order.push(node);
        for after in dag.after[node].iter().rev() {
            waits_for[*after] -= 1;
            if waits_for[*after] == 0 {
                ready.push(*after);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dag::{Crossing, Edge};

    /// Nodes as lists of what they read; node `i` makes edge `i + 1` of the given bytes, edge 0 is the
    /// input, and what nobody reads is an output.
    fn dag(reads: &[&[usize]], bytes: &[u64]) -> Dag {
        let readers = |edge: usize| reads.iter().filter(|reads| reads.contains(&edge)).count() as u32;
        let edge = |(index, bytes): (usize, &u64)| Edge {
            bytes: *bytes,
            readers: readers(index),
            is_kept: readers(index) == 0,
            crossing: Crossing::Allowed,
        };
        let before = |reads: &&[usize]| reads.iter().filter(|edge| **edge > 0).map(|edge| edge - 1).collect();
        let after =
            |node: usize| (0..reads.len()).filter(|other| reads[*other].contains(&(node + 1))).collect();
        Dag {
            reads: reads.iter().map(|reads| reads.to_vec()).collect(),
            writes: (1..=reads.len()).map(|edge| vec![edge]).collect(),
            before: reads.iter().map(before).collect(),
            after: (0..reads.len()).map(after).collect(),
            work: vec![1; reads.len()],
            edges: bytes.iter().enumerate().map(edge).collect(),
            inputs: vec![0],
        }
    }

    fn is_topological(dag: &Dag, order: &[usize]) -> bool {
        let mut place = vec![usize::MAX; dag.len()];
        order.iter().enumerate().for_each(|(index, node)| place[*node] = index);
        order.len() == dag.len()
            && (0..dag.len()).all(|node| dag.before[node].iter().all(|before| place[*before] < place[node]))
    }

    #[test]
    fn branches_that_the_file_interleaves_are_run_one_after_the_other() {
        // Two chains of three that widen in the middle, written in turns, joined at the end.
        let reads: [&[usize]; 7] = [&[0], &[0], &[1], &[2], &[3], &[4], &[5, 6]];
        let dag = dag(&reads, &[8, 100, 100, 100, 100, 1, 1, 1]);
        let order = best_order(&dag);
        assert!(is_topological(&dag, &order));
        let thinnest = |order: &[usize]| dag.crossings(order)[1..7].iter().map(|p| p.bytes).min();
        assert_eq!(thinnest(&[0, 1, 2, 3, 4, 5, 6]), Some(2));
        assert_eq!(dag.crossings(&order)[3].bytes, 9, "{order:?}");
    }

    #[test]
    fn what_no_frame_holds_crosses_no_cut() {
        let most = stormo_protocol::limits::FRAME_PAYLOAD_BYTES_MAX;
        let reads: [&[usize]; 4] = [&[0], &[1], &[2], &[3]];
        let dag = dag(&reads, &[8, most, most + 1, 8, 1]);
        let possible: Vec<bool> = dag.crossings(&[0, 1, 2, 3]).iter().map(|at| at.possible).collect();
        assert_eq!(possible, [true, true, false, true, true]);
    }

    #[test]
    fn every_candidate_is_topological() {
        let reads: [&[usize]; 6] = [&[0], &[1], &[1, 2], &[2], &[0, 4], &[3, 5]];
        let dag = dag(&reads, &[9, 5, 4, 7, 2, 8, 3]);
        let height = heights(&dag);
        let orders = [
            greedy(&dag),
            late(&dag, &[0, 1, 2, 3, 4, 5]),
            depth_first(&dag, |node| height[node]),
            uncross::improve(&dag, f64::INFINITY, vec![0, 1, 2, 3, 4, 5]).1,
            bisect::refine(&dag, &[0, 1, 2, 3, 4, 5]),
        ];
        for order in orders.iter().chain([&best_order(&dag)]) {
            assert!(is_topological(&dag, order), "{order:?}");
        }
    }
}
