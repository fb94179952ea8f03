//! Kinds of plans beside those that are found for their latency: of parts that several nodes have loaded, so that each
//! stage can be taken over; and with the branches of a parallel region beside each other.

use stormo_protocol::ids::PlanId;
use stormo_protocol::plan::Plan;

use super::Driver;
use crate::app::calls::PlanLimits;
use crate::app::planning::Posed;
use crate::plan::{
    self, EXPANSIONS_DEFAULT, KnownRange, Method, Objective, Priced, PricedSplit, Problem, SPLIT_GAIN_MIN,
};
use crate::serve::json::{SplitStageView, SplitView};

/// What nobody waits for, ms: a plan that has it is none, and one that could load for so long loads nothing.
pub(super) const NEVER_MS: f64 = 1e8;

/// The best plan of ranges that two nodes or more have loaded; `None` if there is none.
pub(super) fn redundant(problem: &Problem) -> Option<Priced> {
    let mut shared = problem.clone();
    let hosts = |known: &KnownRange| {
        let is_it =
            |other: &KnownRange| other.is_loaded && (other.first, other.end) == (known.first, known.end);
        let able = problem.nodes.iter().filter(|node| node.can_compute);
        able.filter(|node| node.known.iter().any(is_it)).count()
    };
    for node in &mut shared.nodes {
        node.known.retain(|known| known.is_loaded && hosts(known) > 1);
        (node.cold_fixed_ms, node.cold_ms_per_byte) = (NEVER_MS, 0.0);
    }
    let best = plan::best(&shared, EXPANSIONS_DEFAULT).ok()?;
    if best.priced.latency_ms >= NEVER_MS {
        return None;
    }
    problem.price(&best.priced.shape).ok()
}

/// The best plan with a fork, on more than one node; `None` where the model has no parallel region.
pub(super) fn split(posed: &Posed) -> Option<PricedSplit> {
    if posed.regions.is_empty() {
        return None;
    }
    let found = plan::best_split(&posed.problem, &posed.regions, Method::Greedy, EXPANSIONS_DEFAULT)?.priced;
    let first = found.shape.branches.first()?.node;
    found.shape.branches.iter().any(|stage| stage.node != first).then_some(found)
}

/// The plan with a fork for a request, if it saves enough beside the best one without.
pub(super) fn better_split(posed: &Posed, limits: &PlanLimits, chain_ms: f64) -> Option<Plan> {
    // What a fork draws is not in its price.
    if limits.goal().objective != Objective::Latency || limits.needs_energy() {
        return None;
    }
    let split = split(posed)?;
    (split.latency_ms <= (1.0 - SPLIT_GAIN_MIN) * chain_ms).then(|| posed.forked_plan(&split))?
}

impl Driver {
    /// A plan with a fork as the mesh API shows it.
    pub(super) fn split_view(&self, id: PlanId, posed: &Posed, split: &PricedSplit) -> SplitView {
        let shape = &split.shape;
        let before = shape.before.iter().map(|stage| (stage, None));
        let mut places: Vec<u16> = shape.branches.iter().map(|stage| stage.first).collect();
        places.sort_unstable();
        let branch = |first: u16| places.iter().position(|place| *place == first).map(|index| index as u16);
        let branches = shape.branches.iter().map(|stage| (stage, branch(stage.first)));
        let after = shape.after.iter().map(|stage| (stage, None));
        let stages = before.chain(branches).chain(after).zip(&split.runs);
        let stage =
            |((stage, branch), run): ((&plan::StageShape, Option<u16>), &plan::SplitRun)| SplitStageView {
                node: posed.nodes[stage.node],
                label: self.label_of(posed.nodes[stage.node]),
                blocks: [posed.cut(stage.first), posed.cut(stage.end)],
                branch,
                start_ms: run.start_ms,
                takes_ms: run.takes_ms,
            };
        SplitView {
            id,
            kind: "split-merge".to_owned(),
            variant: posed.label.clone(),
            stages: stages.map(stage).collect(),
            latency_ms: split.latency_ms,
            bytes: split.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::planning::tests::two_nodes;
    use crate::plan::{Branch, Region};

    #[test]
    fn a_plan_that_can_be_taken_over_is_of_parts_that_two_nodes_have() {
        let mut posed = two_nodes("base", 1.0, &[30.0, 30.0]);
        let loaded = |first: u16, end: u16| KnownRange {
            first,
            end,
            time_ms: None,
            is_loaded: true,
            has_memory: true,
        };
        posed.problem.nodes[0].known = vec![loaded(0, 1), loaded(1, 2)];
        posed.problem.nodes[1].known = vec![loaded(0, 2), loaded(1, 2)];
        assert_eq!(redundant(&posed.problem), None, "nobody but this node has the first block alone");
        posed.problem.nodes[1].known.push(loaded(0, 1));
        let found = redundant(&posed.problem).expect("both parts are on both nodes");
        let parts: Vec<(u16, u16)> =
            found.shape.stages.iter().map(|stage| (stage.first, stage.end)).collect();
        assert_eq!(parts, [(0, 1), (1, 2)]);
        let backups = posed.plan(&found.shape).stages.into_iter().map(|stage| stage.backups.len());
        assert_eq!(backups.collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_fork_is_priced_where_branches_gain_by_it() {
        let mut posed = two_nodes("base", 1.0, &[1.0, 60.0, 60.0, 1.0]);
        posed.problem.nodes[1].block_ms = posed.problem.nodes[0].block_ms.clone();
        let branch = |first: u16| Branch { first, end: first + 1, in_bytes: 100, out_bytes: 100 };
        assert_eq!(split(&posed), None);
        posed.regions = vec![Region { branches: vec![branch(1), branch(2)], past_bytes: 0 }];
        let found = split(&posed).expect("two branches on two nodes");
        assert_eq!(found.runs.len(), 4);
        let ends = found.runs.iter().map(|run| run.start_ms + run.takes_ms);
        assert!(ends.clone().all(|end_ms| end_ms <= found.latency_ms + 1e-9), "{found:?}");
        // The branches run beside each other.
        let [one, other] = [&found.runs[1], &found.runs[2]];
        // Beside a plan without a fork it has to save a tenth, and nobody knows what it draws.
        let (chain_ms, limits) = (found.latency_ms / 0.9, PlanLimits::default());
        assert!(better_split(&posed, &limits, chain_ms * 1.01).is_some_and(|plan| plan.is_forked()));
        assert_eq!(better_split(&posed, &limits, chain_ms * 0.99), None);
        let limits = PlanLimits { max_energy_j: Some(1.0), ..limits };
        assert_eq!(better_split(&posed, &limits, chain_ms * 2.0), None);
        assert!(
            one.start_ms < other.start_ms + other.takes_ms && other.start_ms < one.start_ms + one.takes_ms
        );
    }
}
