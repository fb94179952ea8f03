//! A plan: which node runs which blocks of a divided variant, from the origin's input to its result.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::codec::payload::Codec;
use crate::frame::{Edge, ORIGIN};
use crate::ids::{NodeId, PlanId, VariantId};
use crate::limits::{BACKUPS_MAX, STAGES_MAX};

/// One partition in a plan and who runs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stage {
    /// The primary host.
    pub node: NodeId,
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// How the tensors of its input are coded on their way here.
    pub codec: Codec,
    /// Redundant successors, the first to take over first.
    pub backups: Vec<NodeId>,
}

impl Stage {
    /// The blocks of this stage.
    pub fn blocks(&self) -> Range<u16> {
        self.first..self.end
    }

    /// Who may run it: the primary, then the backups in their order.
    pub fn hosts(&self) -> impl Iterator<Item = NodeId> {
        [self.node].into_iter().chain(self.backups.iter().copied())
    }

    /// A node's place among the hosts, if it is one.
    pub fn host_index(&self, node: NodeId) -> Option<usize> {
        self.hosts().position(|host| host == node)
    }
}

/// A chain of stages: each passes all tensors of its last cut to the next, the last to the origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// What the blocks belong to.
    pub variant: VariantId,
    /// Where the request enters and the result is wanted.
    pub origin: NodeId,
    /// Stages in order; together they cover all blocks.
    pub stages: Vec<Stage>,
    /// How the result is coded on its way to the origin.
    pub result_codec: Codec,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    /// No stage, or more than allowed.
    #[error("a plan has 1 to {STAGES_MAX} stages")]
    StageCount,
    /// The stages leave blocks out, overlap, or are empty.
    #[error("the stages do not follow one another")]
    Coverage,
    /// More successors than allowed.
    #[error("a stage has at most {BACKUPS_MAX} backups")]
    BackupCount,
}

impl Plan {
    /// Checks that the stages follow one another, and gives the blocks that they cover.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<Range<u16>, BadPlan> {
        let Some(first) = self.stages.first().filter(|_| self.stages.len() <= STAGES_MAX) else {
            return Err(BadPlan::StageCount);
        };
        let mut next = first.first;
        for stage in &self.stages {
            if stage.first != next || stage.end <= stage.first {
                return Err(BadPlan::Coverage);
            }
            if stage.backups.len() > BACKUPS_MAX {
                return Err(BadPlan::BackupCount);
            }
            next = stage.end;
        }
        Ok(first.first..next)
    }

    /// The same plan, with nobody to take a stage over.
    #[must_use]
    pub fn without_backups(&self) -> Self {
        let stages = self.stages.iter().map(|stage| Stage { backups: Vec::new(), ..stage.clone() });
        Self { stages: stages.collect(), ..self.clone() }
    }

    /// How tensors are coded on all edges: before each stage, and behind the last.
    pub fn codecs(&self) -> impl Iterator<Item = Codec> {
        self.stages.iter().map(|stage| stage.codec).chain([self.result_codec])
    }

    /// Whether a node may send over an edge that leads to a stage: any host of the stage before, or the origin.
    pub fn is_sent_by(&self, edge: Edge, from: NodeId) -> bool {
        match edge.to.checked_sub(1) {
            Some(before) => {
                let stage = self.stages.get(usize::from(before));
                edge.from == before && stage.is_some_and(|stage| stage.host_index(from).is_some())
            }
            None => edge.from == ORIGIN && self.origin == from,
        }
    }

    /// How tensors are coded on an edge.
    pub fn codec_of(&self, edge: Edge) -> Codec {
        match self.stages.get(usize::from(edge.to)) {
            Some(stage) => stage.codec,
            None => self.result_codec,
        }
    }

    /// The plan's name: the same at every node and as long as the deployment's version lives.
    /// Backups do not count; they may change while the plan stays.
    pub fn id(&self) -> PlanId {
        let mut hasher = blake3::Hasher::new_derive_key("stormo 1 plan id");
        hasher.update(&self.variant.deployment.0);
        hasher.update(&[self.variant.index]);
        hasher.update(&self.origin.0);
        for stage in &self.stages {
            hasher.update(&stage.node.0);
            hasher.update(&stage.first.to_le_bytes());
            hasher.update(&stage.end.to_le_bytes());
            hasher.update(&[stage.codec as u8]);
        }
        hasher.update(&[self.result_codec as u8]);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        PlanId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeploymentId;

    fn plan(ranges: &[(u16, u16)]) -> Plan {
        let stages = ranges
            .iter()
            .map(|&(first, end)| Stage {
                node: NodeId([end as u8; 32]),
                first,
                end,
                codec: Codec::Raw,
                backups: vec![],
            })
            .collect();
        let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
        Plan { variant, origin: NodeId([0; 32]), stages, result_codec: Codec::Raw }
    }

    #[test]
    fn stages_follow_one_another() {
        assert_eq!(plan(&[(0, 2), (2, 5)]).check(), Ok(0..5));
        assert_eq!(plan(&[(1, 5)]).check(), Ok(1..5));
        for gaps in [&[(0, 2), (3, 5)][..], &[(0, 5), (5, 5)], &[(2, 4), (0, 2)]] {
            assert_eq!(plan(gaps).check(), Err(BadPlan::Coverage), "{gaps:?}");
        }
        assert_eq!(plan(&[]).check(), Err(BadPlan::StageCount));
    }

    #[test]
    fn the_id_follows_division_hosts_and_codecs_but_not_backups() {
        let a = plan(&[(0, 2), (2, 5)]);
        let mut b = a.clone();
        b.stages[0].backups.push(NodeId([9; 32]));
        assert_eq!(a.id(), b.id());
        b.stages[0].node = NodeId([9; 32]);
        assert_ne!(a.id(), b.id());
        assert_ne!(a.id(), plan(&[(0, 3), (3, 5)]).id());
        let mut other_variant = a.clone();
        other_variant.variant.index = 1;
        assert_ne!(a.id(), other_variant.id());
        let coded = |plan: &mut Plan, edge: Edge| match plan.stages.get_mut(usize::from(edge.to)) {
            Some(stage) => stage.codec = Codec::Int8,
            None => plan.result_codec = Codec::Int8,
        };
        let edges = [(ORIGIN, 0), (0, 1), (1, ORIGIN)].map(|(from, to)| Edge { from, to });
        let mut ids = vec![a.id()];
        for edge in edges {
            let mut plan = a.clone();
            coded(&mut plan, edge);
            assert_eq!(
                edges.map(|edge| plan.codec_of(edge)).iter().filter(|codec| **codec == Codec::Int8).count(),
                1
            );
            assert_eq!(plan.codec_of(edge), Codec::Int8);
            ids.push(plan.id());
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4);
    }
}
