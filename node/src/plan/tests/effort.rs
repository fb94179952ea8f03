//! A weighed problem against the prices of every plan.

use crate::plan::costs::Member;
use crate::plan::effort::Weights;
use crate::plan::tests::{every_plan, is_close, random_problem};

#[test]
fn a_weighed_problem_has_the_weighed_costs_of_every_plan() {
    for seed in 0..300 {
        let problem = random_problem(seed);
        let weights = Weights { per_ms: 0.5, per_mj: 2.0 };
        let all =
            (0..problem.nodes.len()).map(|node| Member { node, computes: problem.nodes[node].can_compute });
        let weighed = problem.weighed(&all.collect::<Vec<_>>(), weights).problem;
        for plan in every_plan(&problem) {
            let moves = plan.edges.iter().any(|edge| edge.from != edge.to);
            let tail_mj = if moves { problem.nodes[0].tail_mj } else { 0.0 };
            let expected = weights.per_ms * plan.latency_ms + weights.per_mj * (plan.energy_mj - tail_mj);
            let cost = weighed.price(&plan.shape).unwrap().latency_ms;
            assert!(is_close(cost, expected), "seed {seed}: {cost} {expected} {plan:?}");
        }
    }
}
