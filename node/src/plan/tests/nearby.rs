//! Nodes that a plan would be quicker with, against the price of every plan with a run there.

use crate::plan::costs::Stock;
use crate::plan::nearby::quicker_with;
use crate::plan::ranges::Ranges;
use crate::plan::tests::{every_plan, is_close, least_ms, random_problem, shape};
use crate::plan::{Priced, Problem};

const SEEDS: std::ops::Range<u64> = 70_000..71_500;

/// The least latency of plans with one run on a node, the rest at the origin.
fn with_one_run_ms(problem: &Problem, every: &[Priced], node: usize) -> Option<f64> {
    let is_such = |plan: &&Priced| {
        let nodes: Vec<usize> = plan.shape.stages.iter().map(|stage| stage.node).collect();
        let forms = [vec![node], vec![0, node], vec![node, 0], vec![0, node, 0]];
        forms.contains(&nodes) && plan.loss <= problem.loss_max
    };
    least_ms(every.iter().filter(is_such))
}

#[test]
fn the_node_that_helps_most_comes_first() {
    let (mut cases, mut longest) = (0, 0);
    for seed in SEEDS {
        let mut problem = random_problem(seed);
        problem.nodes.iter_mut().for_each(|node| node.memory_free_bytes = u64::MAX);
        let here = shape(&[(0, 0, problem.block_count() as u16)]);
        let Ok(local) = problem.price(&here) else { continue };
        let (every, ranges) = (every_plan(&problem), Ranges::new(&problem));
        let others = (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute);
        let quicker = quicker_with(&Stock::new(&problem, &ranges), (&here, local.latency_ms), others);
        let found: Vec<f64> = quicker
            .iter()
            .map(|node| with_one_run_ms(&problem, &every, *node).unwrap_or(f64::INFINITY))
            .collect();
        let all = (1..problem.nodes.len()).filter_map(|node| with_one_run_ms(&problem, &every, node));
        let mut expected: Vec<f64> = all.filter(|ms| *ms < local.latency_ms * (1.0 - 1e-9)).collect();
        expected.sort_by(f64::total_cmp);
        cases += 1;
        longest = longest.max(found.len());
        let are_same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(one, other)| is_close(*one, *other));
        assert!(are_same, "seed {seed}: {found:?}, not {expected:?}");
    }
    assert!(cases > 800 && longest == 3, "{cases} cases, at most {longest} nodes");
}
