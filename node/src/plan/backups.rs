//! Who takes a stage over when its host is gone: the others that could run it, the least delayed first, and those
//! that would not go for the same reason before the rest.

use super::coding::Hop;
use super::price::{PlanShape, StageShape};
use super::problem::Problem;

/// Successors named for each stage.
const BACKUPS_MAX: usize = 2;

/// For each stage of a plan, nodes in the order in which they should be tried. Only those are named that have the
/// stage loaded, if `only_loaded`. `shares_domain` says whether two nodes would fail together.
pub fn backups(
    problem: &Problem,
    shape: &PlanShape,
    only_loaded: bool,
    shares_domain: impl Fn(usize, usize) -> bool,
) -> Vec<Vec<usize>> {
    let stages = &shape.stages;
    let of_stage = |index: usize| {
        let stage = stages[index];
        let before = index.checked_sub(1).map_or(0, |index| stages[index].node);
        let after = stages.get(index + 1).map_or(0, |stage| stage.node);
        let delay = |node: usize| {
            let is_needed = (stages.iter()).any(|other| other.node == node);
            let is_free = problem.nodes[node].can_compute && node != stage.node && !is_needed;
            let stage_there = StageShape { node, ..stage };
            let is_ready = !only_loaded || problem.is_loaded(stage_there);
            let way_ms = (is_free && is_ready).then(|| way_ms(problem, stage_there, before, after))??;
            Some((shares_domain(node, stage.node), way_ms, node))
        };
        let mut others: Vec<(bool, f64, usize)> = (0..problem.nodes.len()).filter_map(delay).collect();
        others.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        others.into_iter().take(BACKUPS_MAX).map(|(_, _, node)| node).collect()
    };
    (0..stages.len()).map(of_stage).collect()
}

/// Time of a stage and of the ways to and from it, lossless; none if it cannot run there or nobody reaches it.
fn way_ms(problem: &Problem, stage: StageShape, before: usize, after: usize) -> Option<f64> {
    if problem.memory_bytes(stage) > problem.nodes[stage.node].memory_free_bytes {
        return None;
    }
    let is_forced = (stage.first == 0 && problem.force_first)
        || (usize::from(stage.end) == problem.block_count() && problem.force_last);
    if is_forced && stage.node != 0 {
        return None;
    }
    let hop_ms = |from: usize, to: usize, cut: u16| match from == to {
        true => Some(0.0),
        false => {
            let coding = problem.best_coding(Hop { from, to, cut }, f64::INFINITY)?;
            let link = problem.links.get(from, to)?;
            Some(coding.transfer_ms(&problem.nodes[from], link, &problem.nodes[to]))
        }
    };
    let ways_ms = hop_ms(before, stage.node, stage.first)? + hop_ms(stage.node, after, stage.end)?;
    let node = &problem.nodes[stage.node];
    Some(ways_ms + node.queue_wait_ms + problem.cold_ms(stage) + problem.range_ms(stage))
}
