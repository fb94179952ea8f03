//! Which tensors travel between the stages of a plan, by what their blocks read and make.

use std::ops::Range;

use super::{Manifest, Region};
use crate::codec::payload::Codec;
use crate::frame::ORIGIN;
use crate::ids::{DeploymentId, NodeId, VariantId};
use crate::plan::{Plan, Stage};

/// Tensors that travel together, to one stage or from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The other end: a stage, or the origin.
    pub other: u16,
    /// What travels, as indices into [`Manifest::tensors`], in the order of the frame. Never empty.
    pub tensors: Vec<u32>,
}

/// All ways to and from a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// What it waits for; of a join one way for each sender.
    pub inputs: Vec<Way>,
    /// What it sends, in this order: a fork's branches in their turns, then what passes them by, then what
    /// goes to the origin.
    pub outputs: Vec<Way>,
}

impl Ways {
    /// The tensors that come from there.
    pub fn from(&self, other: u16) -> Option<&[u32]> {
        self.inputs.iter().find(|way| way.other == other).map(|way| way.tensors.as_slice())
    }

    /// The tensors that go there.
    pub fn to(&self, other: u16) -> Option<&[u32]> {
        self.outputs.iter().find(|way| way.other == other).map(|way| way.tensors.as_slice())
    }

    /// All tensors that a stage waits for.
    pub fn read(&self) -> Vec<u32> {
        self.inputs.iter().flat_map(|way| way.tensors.iter().copied()).collect()
    }
}

impl Manifest {
    /// The ways to and from a stage of a plan that has passed its own check and covers blocks of this manifest.
    /// `None` if its branches are not those of a region, or one of them has nothing to read or nobody to send to.
    pub fn ways(&self, plan: &Plan, stage: u16) -> Option<Ways> {
        self.forks_at(plan, stage)?;
        let inputs = self.inputs_of(plan, stage)?;
        let next = plan.behind(stage);
        let mut outputs = self.outputs_to(plan, stage, next)?;
        let results = self.results(plan, stage)?;
        if !results.is_empty() {
            outputs.push(Way { other: ORIGIN, tensors: results });
        }
        (!outputs.is_empty()).then_some(Ways { inputs, outputs })
    }

    /// What the origin sends for a plan, in this order. As [`Manifest::ways`].
    pub fn ways_from_origin(&self, plan: &Plan) -> Option<Vec<Way>> {
        self.outputs_to(plan, ORIGIN, 0)
    }

    /// What a stage of a plan sends to the origin; empty if nothing. As [`Manifest::ways`].
    pub fn results(&self, plan: &Plan, stage: u16) -> Option<Vec<u32>> {
        let covered = plan.stages.first()?.first..plan.stages.last()?.end;
        let this = plan.stages.get(usize::from(stage))?;
        let last = plan.beside(plan.stages.len() as u16 - 1);
        let is_forked_at_end = last.len() > 1;
        if !is_forked_at_end || stage.saturating_add(1) < last.start {
            return Some(self.results_of(&this.blocks(), &covered));
        }
        // What is there at the end, each tensor from one who has it.
        let gone = &self.cut(this_of(plan, last.start)?.first)?.settled;
        let there = self.cut(covered.end)?.there().filter(|tensor| !gone.contains(tensor));
        let owned = there.filter(|tensor| self.owner(plan, &last, *tensor) == Some(stage));
        let early = if last.contains(&stage) { vec![] } else { self.results_of(&this.blocks(), &covered) };
        Some(early.into_iter().chain(owned).collect())
    }

    /// Whether a plan's branches are those of regions, and all of its tensors get where they are needed. Such a plan
    /// has passed its own check and covers blocks of this manifest.
    pub fn has_ways(&self, plan: &Plan) -> bool {
        let stages = 0..plan.stages.len() as u16;
        let last = plan.beside(stages.end.saturating_sub(1));
        let all_leave = || {
            let there = plan.stages.last().and_then(|stage| self.cut(stage.end));
            there.is_some_and(|cut| cut.there().all(|tensor| self.owner(plan, &last, tensor).is_some()))
        };
        self.ways_from_origin(plan).is_some()
            && stages.into_iter().all(|stage| self.ways(plan, stage).is_some())
            && (last.len() < 2 || all_leave())
    }

    /// Whether the branches of a region can be run beside each other in plans over these blocks, which hold them.
    pub fn can_fork(&self, region: &Region, blocks: &Range<u16>) -> bool {
        let nobody = NodeId([0; 32]);
        let stage = |first, end, branch| Stage {
            node: nobody,
            first,
            end,
            codec: Codec::Raw,
            backups: Vec::new(),
            branch,
        };
        let turns = region.branches.iter().zip(0u16..);
        let mut stages: Vec<Stage> =
            turns.map(|(branch, turn)| stage(branch.first, branch.end, Some(turn))).collect();
        let (Some(first), Some(end)) = (stages.first().map(|s| s.first), stages.last().map(|s| s.end)) else {
            return false;
        };
        if blocks.start < first {
            stages.insert(0, stage(blocks.start, first, None));
        }
        if end < blocks.end {
            stages.push(stage(end, blocks.end, None));
        }
        let variant = VariantId { deployment: DeploymentId([0; 16]), index: 0 };
        let plan = Plan { variant, origin: nobody, stages, result_codec: Codec::Raw };
        plan.check().as_ref() == Ok(blocks) && self.has_ways(&plan)
    }

    /// Who sends a tensor to the origin that is there behind the branches that end a plan.
    fn owner(&self, plan: &Plan, branches: &Range<u16>, tensor: u32) -> Option<u16> {
        let makes = |stage: &u16| {
            this_of(plan, *stage).is_some_and(|this| self.made_by(this.blocks()).contains(&tensor))
        };
        let fork = plan.before(branches.start);
        let reads = |stage: &u16| {
            let branch = this_of(plan, *stage).and_then(|this| self.reads(this));
            branch.is_some_and(|reads| reads.contains(&tensor))
        };
        let or_fork = || if fork == ORIGIN { branches.clone().find(reads) } else { Some(fork) };
        branches.clone().find(makes).or_else(or_fork)
    }

    fn cut(&self, index: u16) -> Option<&super::Cut> {
        self.cuts.get(usize::from(index))
    }

    /// What a branch reads.
    fn reads(&self, stage: &Stage) -> Option<&[u32]> {
        let mut branches = self.regions.iter().flat_map(|region| &region.branches);
        let branch = branches.find(|branch| (branch.first..branch.end) == stage.blocks())?;
        Some(branch.reads.as_slice()).filter(|reads| !reads.is_empty())
    }

    /// Where a stage is a branch, or before or behind some, they are those of a region.
    fn forks_at(&self, plan: &Plan, stage: u16) -> Option<()> {
        let around = [plan.beside(stage), plan.beside(plan.behind(stage)), plan.beside(plan.before(stage))];
        let is_region = |branches: &Range<u16>| {
            let stages = &plan.stages[usize::from(branches.start)..usize::from(branches.end)];
            let are = |region: &&Region| {
                let blocks = region.branches.iter().map(|branch| branch.first..branch.end);
                blocks.eq(stages.iter().map(Stage::blocks))
            };
            self.regions.iter().any(|region| are(&region))
        };
        around.iter().filter(|stages| stages.len() > 1).all(is_region).then_some(())
    }

    fn outputs_to(&self, plan: &Plan, from: u16, next: u16) -> Option<Vec<Way>> {
        if next == ORIGIN {
            return Some(vec![]);
        }
        let mut receivers: Vec<u16> = plan.beside(next).collect();
        receivers.sort_by_key(|stage| this_of(plan, *stage).and_then(|this| this.branch));
        if receivers.len() > 1 {
            receivers.extend(Some(plan.behind(next)).filter(|join| *join != ORIGIN));
        }
        let mut ways = vec![];
        for to in receivers {
            let inputs = self.inputs_of(plan, to)?;
            ways.extend(
                inputs.into_iter().filter(|way| way.other == from).map(|way| Way { other: to, ..way }),
            );
        }
        Some(ways)
    }

    fn inputs_of(&self, plan: &Plan, stage: u16) -> Option<Vec<Way>> {
        let this = this_of(plan, stage)?;
        let before = plan.before(stage);
        if this.branch.is_some() {
            return Some(vec![Way { other: before, tensors: self.reads(this)?.to_vec() }]);
        }
        let there = &self.cut(this.first)?.tensors;
        if !plan.is_join(stage) {
            return Some(vec![Way { other: before, tensors: there.clone() }]);
        }
        let branches = plan.beside(before);
        let mut left = there.clone();
        let mut ways = vec![];
        for branch in branches {
            let made = self.made_by(this_of(plan, branch)?.blocks());
            let (from_here, others) = left.iter().partition(|tensor| made.contains(tensor));
            left = others;
            ways.push(Way { other: branch, tensors: from_here });
        }
        ways.push(Way { other: plan.before(before), tensors: left });
        ways.retain(|way| !way.tensors.is_empty());
        Some(ways)
    }
}

fn this_of(plan: &Plan, stage: u16) -> Option<&Stage> {
    plan.stages.get(usize::from(stage))
}

#[cfg(test)]
mod tests;
