//! A plan: which node runs which blocks of a divided variant, from the origin's input to its result.
//! Which tensors travel between its stages is said in `model/ways.rs`.

mod wire;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::payload::Codec;
use crate::codec::{decode, encode};
use crate::frame::{Edge, ORIGIN};
use crate::ids::{NodeId, PlanId, VariantId};
use crate::limits::{BACKUPS_MAX, PLAN_BYTES_MAX, STAGES_MAX};

/// One partition in a plan and who runs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "wire::WireStage", into = "wire::WireStage")]
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
    /// Of a branch that runs beside its neighbours: when its turn is to be sent its input, counted from 0.
    pub branch: Option<u16>,
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

/// A chain of stages: each passes all tensors of its last cut to the next, the last to the origin. Stages that are
/// branches run beside each other: the one before them, the *fork*, sends each what it reads; the one behind them, the
/// *join*, waits for all. Where there is none before or behind, that is the origin.
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
    /// A branch alone, or branches of which two have the same turn.
    #[error("branches come in twos or more, each with its turn")]
    Branches,
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
        let mut branches = self.stages.chunk_by(|one, other| one.branch.is_some() == other.branch.is_some());
        let take_turns = |branches: &[Stage]| {
            let mut turns: Vec<u16> = branches.iter().filter_map(|stage| stage.branch).collect();
            turns.sort_unstable();
            turns.len() != 1 && turns.iter().zip(0u16..).all(|(turn, wanted)| *turn == wanted)
        };
        if branches.all(take_turns) { Ok(first.first..next) } else { Err(BadPlan::Branches) }
    }

    /// The stages that run beside one, itself included: it alone, unless it is a branch.
    pub fn beside(&self, stage: u16) -> Range<u16> {
        let is_branch = |stage: &Stage| stage.branch.is_some();
        let place = usize::from(stage);
        if !self.stages.get(place).is_some_and(is_branch) {
            return stage..stage.saturating_add(1);
        }
        let before = self.stages[..place].iter().rev().take_while(|stage| is_branch(stage)).count();
        let behind = self.stages[place..].iter().take_while(|stage| is_branch(stage)).count();
        (place - before) as u16..(place + behind) as u16
    }

    /// The stage before those that run beside this one; the origin, if there is none.
    pub fn before(&self, stage: u16) -> u16 {
        self.beside(stage).start.checked_sub(1).unwrap_or(ORIGIN)
    }

    /// The stage behind those that run beside this one; the origin, if there is none.
    pub fn behind(&self, stage: u16) -> u16 {
        let end = self.beside(stage).end;
        if usize::from(end) < self.stages.len() { end } else { ORIGIN }
    }

    /// Whether a stage waits for branches.
    pub fn is_join(&self, stage: u16) -> bool {
        let is_branch = |stage: u16| self.stages.get(usize::from(stage)).is_some_and(|s| s.branch.is_some());
        let is_stage = usize::from(stage) < self.stages.len();
        is_stage && !is_branch(stage) && stage.checked_sub(1).is_some_and(is_branch)
    }

    /// The stages that may send to a join: its branches and their fork. None for other stages.
    pub fn senders(&self, join: u16) -> Vec<u16> {
        let Some(last) = join.checked_sub(1).filter(|_| self.is_join(join)) else { return Vec::new() };
        let fork = self.before(last);
        self.beside(last).chain((fork != ORIGIN).then_some(fork)).collect()
    }

    /// Whether some stages run beside each other.
    pub fn is_forked(&self) -> bool {
        self.stages.iter().any(|stage| stage.branch.is_some())
    }

    /// Whether tensors may travel over an edge to a stage: from the one before, and to a join also from the branches'
    /// fork.
    fn is_edge(&self, edge: Edge) -> bool {
        let Some(stage) = self.stages.get(usize::from(edge.to)) else { return false };
        match edge.to.checked_sub(1) {
            Some(last) if stage.branch.is_none() => {
                self.beside(last).contains(&edge.from)
                    || (self.is_join(edge.to) && edge.from == self.before(last))
            }
            _ => edge.from == self.before(edge.to),
        }
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

    /// Whether a node may send over an edge that leads to a stage: any host of a stage before, or the origin.
    pub fn is_sent_by(&self, edge: Edge, from: NodeId) -> bool {
        let is_sender = match self.stages.get(usize::from(edge.from)) {
            Some(stage) => stage.host_index(from).is_some(),
            None => edge.from == ORIGIN && self.origin == from,
        };
        is_sender && self.is_edge(edge)
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
        for (index, stage) in self.stages.iter().enumerate() {
            if let Some(turn) = stage.branch {
                hasher.update(&(index as u16).to_le_bytes());
                hasher.update(&turn.to_le_bytes());
            }
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        PlanId(id)
    }
}

/// A plan as frames carry it. Plans stay while requests come and go, so what is read, hashed and written of one is so once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPlan {
    plan: Arc<Plan>,
    id: PlanId,
    bytes: Arc<[u8]>,
}

impl EncodedPlan {
    /// Encodes a plan like a control message.
    pub fn of(plan: Arc<Plan>) -> Self {
        Self { id: plan.id(), bytes: encode(&*plan).into(), plan }
    }

    /// Decodes a plan; `None` when malformed. Nothing of what it says is checked.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let plan = decode::<Plan, PLAN_BYTES_MAX>(bytes).ok()?;
        Some(Self { id: plan.id(), bytes: bytes.into(), plan: Arc::new(plan) })
    }

    /// Decoded.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Its name.
    pub fn id(&self) -> PlanId {
        self.id
    }

    /// Encoded.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
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
                branch: None,
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

    /// Stages 1, 2 and 3 are branches.
    fn forked() -> Plan {
        let mut plan = plan(&[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
        for (stage, turn) in [(1, 2), (2, 0), (3, 1)] {
            plan.stages[stage].branch = Some(turn);
        }
        plan
    }

    #[test]
    fn branches_lie_between_a_fork_and_a_join() {
        let plan = forked();
        assert_eq!(plan.check(), Ok(0..5));
        let places = (0..5).map(|stage| (plan.beside(stage), plan.before(stage), plan.behind(stage)));
        let branch = (1..4, 0, 4);
        let expected = [(0..1, ORIGIN, 1), branch.clone(), branch.clone(), branch, (4..5, 3, ORIGIN)];
        assert_eq!(places.collect::<Vec<_>>(), expected);
        assert_eq!((0..6).filter(|stage| plan.is_join(*stage)).collect::<Vec<_>>(), [4]);
        let mut edges = vec![];
        for from in (0..6).chain([ORIGIN]) {
            edges.extend((0..6).map(|to| (from, to)).filter(|(from, to)| {
                let node = plan.stages.get(usize::from(*from)).map_or(plan.origin, |stage| stage.node);
                plan.is_sent_by(Edge { from: *from, to: *to }, node)
            }));
        }
        assert_eq!(edges, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4), (ORIGIN, 0)]);
        let stranger = NodeId([99; 32]);
        assert!(!plan.is_sent_by(Edge { from: 1, to: 4 }, stranger));
    }

    #[test]
    fn a_branch_is_not_alone_and_has_its_own_turn() {
        for turns in [&[(1, 0)][..], &[(1, 0), (2, 0)], &[(1, 1), (2, 2)], &[(1, 0), (3, 1)]] {
            let mut plan = plan(&[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
            turns.iter().for_each(|(stage, turn)| plan.stages[*stage].branch = Some(*turn));
            assert_eq!(plan.check(), Err(BadPlan::Branches), "{turns:?}");
        }
        // At both ends it is the origin that forks and joins.
        let mut whole = plan(&[(0, 2), (2, 5)]);
        (whole.stages[0].branch, whole.stages[1].branch) = (Some(0), Some(1));
        assert_eq!((whole.check(), whole.before(1), whole.behind(0)), (Ok(0..5), ORIGIN, ORIGIN));
    }

    #[test]
    fn turns_are_told_and_part_of_the_name() {
        let plan = forked();
        let sent = crate::codec::encode(&plan);
        assert_eq!(crate::codec::decode::<Plan, 1000>(&sent), Ok(plan.clone()));
        let mut chain = plan.clone();
        chain.stages.iter_mut().for_each(|stage| stage.branch = None);
        let mut swapped = plan.clone();
        (swapped.stages[2].branch, swapped.stages[3].branch) = (Some(1), Some(0));
        let mut ids = [plan, chain, swapped].map(|plan| plan.id()).to_vec();
        ids.dedup();
        assert_eq!(ids.len(), 3);
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
