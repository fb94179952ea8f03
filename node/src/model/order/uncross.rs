//! Improves an order by single cuts: "all that some node needs" or "all but what needs some node" is put in
//! front of the rest, both as they were, and stays there if the order is the better for it. Cuts that lie
//! across the new one are not lost: what both have in front is a cut, and so is what either has, and the
//! two together are no wider.

use super::judge;
use crate::model::dag::Dag;

/// Node visits that this may spend: a guess, some tens of milliseconds.
const VISITS_MAX: usize = 10_000_000;
/// Visits of one try for each node of the graph, about: collecting, arranging, judging.
const VISITS_PER_NODE: usize = 8;

/// The order, improved as far as the visits reach, and how it is judged.
pub(super) fn improve(dag: &Dag, mut judged: f64, mut order: Vec<usize>) -> (f64, Vec<usize>) {
    let mut tries_left = VISITS_MAX / VISITS_PER_NODE / dag.len().max(1);
    let mut mark = vec![false; dag.len()];
    loop {
        let before = judged;
        // Large graphs try a sample of their nodes.
        let step = (2 * dag.len()).div_ceil(tries_left.max(1)).max(1);
        for seed in (0..dag.len()).step_by(step) {
            for near in [&dag.before, &dag.after] {
                let Some(left) = tries_left.checked_sub(1) else { return (judged, order) };
                tries_left = left;
                // What a node needs comes before the rest; what needs it behind.
                let comes_first = std::ptr::eq(near, &dag.before);
                let arranged = arranged(&order, near, seed, comes_first, &mut mark);
                // Many are cuts of the order already.
                if arranged == order {
                    continue;
                }
                let better = judge(dag, &arranged);
                if better < judged {
                    (judged, order) = (better, arranged);
                }
            }
        }
        if judged >= before {
            return (judged, order);
        }
    }
}

/// The order with a node, and all that is reached from it, first or last.
fn arranged(
    order: &[usize],
    near: &[Vec<usize>],
    seed: usize,
    comes_first: bool,
    mark: &mut [bool],
) -> Vec<usize> {
    let mut found = vec![seed];
    mark[seed] = true;
    let mut next = 0;
    while let Some(node) = found.get(next).copied() {
        next += 1;
        for other in &near[node] {
            if !std::mem::replace(&mut mark[*other], true) {
                found.push(*other);
            }
        }
    }
    let (front, back): (Vec<usize>, Vec<usize>) = order.iter().partition(|node| mark[**node] == comes_first);
    found.into_iter().for_each(|node| mark[node] = false);
    [front, back].concat()
}
