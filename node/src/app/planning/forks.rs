//! From a plan with a fork, as the planner has it, to one that runs.

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::plan::{Plan, Stage};

use super::Posed;
use crate::plan::{PlanShape, PricedSplit, Region, StageShape, backups};

/// A stage, when it is served if it is a branch, and how its input is coded.
struct Placed {
    stage: StageShape,
    turn: Option<u16>,
    codec: Codec,
}

impl Posed {
    /// A shape in terms of nodes, with those named who can take a stage over at once. `None` if it is of no region here.
    pub(in crate::app) fn forked_plan(&self, split: &PricedSplit) -> Option<Plan> {
        let shape = &split.shape;
        let is_of = |region: &&Region| {
            let is_one = |stage: &StageShape| {
                region.branches.iter().any(|branch| (branch.first, branch.end) == (stage.first, stage.end))
            };
            region.branches.len() == shape.branches.len() && shape.branches.iter().all(is_one)
        };
        let region = self.regions.iter().find(is_of)?;
        let codecs = self.problem.split_codecs(region, shape);
        let result_codec = codecs.last().copied().unwrap_or_default();
        let alone = |stages: &[StageShape]| stages.iter().map(|stage| (*stage, None)).collect::<Vec<_>>();
        let turns = (0u16..).zip(&shape.branches).map(|(turn, stage)| (*stage, Some(turn)));
        let all = [alone(&shape.before), turns.collect(), alone(&shape.after)].concat();
        let mut stages: Vec<Placed> =
            all.into_iter().zip(codecs).map(|((stage, turn), codec)| Placed { stage, turn, codec }).collect();
        stages.sort_by_key(|placed| placed.stage.first);
        // Who could take over, as if the branches ran one behind the other.
        let chain = PlanShape {
            stages: stages.iter().map(|placed| placed.stage).collect(),
            codecs: vec![Codec::Raw; stages.len() + 1],
        };
        let backups = backups(&self.problem, &chain, true, |one, other| self.share_domain(one, other));
        let stage = |(Placed { stage, turn, codec }, backups): (Placed, Vec<usize>)| Stage {
            node: self.nodes[stage.node],
            first: self.cut(stage.first),
            end: self.cut(stage.end),
            codec,
            backups: backups.into_iter().map(|node| self.nodes[node]).collect(),
            branch: turn,
        };
        let stages = stages.into_iter().zip(backups).map(stage).collect();
        Some(Plan { variant: self.variant, origin: self.nodes[0], stages, result_codec })
    }

    /// Whether the same may take two nodes away.
    pub(super) fn share_domain(&self, one: usize, other: usize) -> bool {
        self.domains[one].iter().any(|domain| self.domains[other].contains(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::planning::tests::two_nodes;
    use crate::plan::{Branch, EXPANSIONS_DEFAULT, Method, best_split};

    #[test]
    fn branches_stand_in_the_order_of_blocks_and_keep_their_turns() {
        let mut posed = two_nodes("base", 1.0, &[1.0, 60.0, 50.0, 1.0]);
        posed.problem.nodes[1].block_ms = posed.problem.nodes[0].block_ms.clone();
        let branch = |first: u16| Branch { first, end: first + 1, in_bytes: 100, out_bytes: 100 };
        posed.regions = vec![Region { branches: vec![branch(1), branch(2)], past_bytes: 0 }];
        posed.cuts = (1..=5).collect();
        let split = best_split(&posed.problem, &posed.regions, Method::Exact, EXPANSIONS_DEFAULT).unwrap();
        let plan = posed.forked_plan(&split.priced).unwrap();
        assert_eq!(plan.check(), Ok(1..5));
        let branches: Vec<&Stage> = plan.stages.iter().filter(|stage| stage.branch.is_some()).collect();
        assert_eq!(branches.iter().map(|stage| stage.first).collect::<Vec<_>>(), [2, 3]);
        for stage in branches {
            let turn = usize::from(stage.branch.unwrap());
            let shape = split.priced.shape.branches[turn];
            assert_eq!((shape.first + 1, posed.nodes[shape.node]), (stage.first, stage.node));
        }
        posed.regions.clear();
        assert_eq!(posed.forked_plan(&split.priced), None);
    }
}
