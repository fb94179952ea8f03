//! Plans that fork once, into the branches of a parallel region on several nodes at once, joined again behind it: what
//! one is. It is priced and found as all plans that fork are, see `forks.rs`.

use stormo_protocol::codec::payload::Codec;

use super::coding::Hop;
use super::forks::{Count, ForkedShape, Forks, Part, PricedForked, Scope, best_of};
use super::goal::Method;
use super::price::{Infeasible, StageShape};
use super::problem::Problem;

/// A fork must save so much of the latency, beside a plan without one: what it takes to keep its branches together
/// is not in the price.
pub const SPLIT_GAIN_MIN: f64 = 0.1;

/// Branches of a region.
pub(super) const BRANCHES_MAX: usize = 8;

/// Blocks that fall into branches which do not depend on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// One behind the other in the model's order, without gaps; at least two, at most [`BRANCHES_MAX`].
    pub branches: Vec<Branch>,
    /// What passes them by: crosses the cut behind them and none of them makes. The fork sends it to the join, last.
    pub past_bytes: u64,
}

/// A stretch of blocks beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// What it reads of the region's input.
    pub in_bytes: u64,
    /// What is read of it behind the region.
    pub out_bytes: u64,
}

/// A plan with one fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitShape {
    /// Stages up to the region; none if it begins the model: then the origin is the fork.
    pub before: Vec<StageShape>,
    /// The region's branches in the order that the fork serves them.
    pub branches: Vec<StageShape>,
    /// Stages behind the region; none if it ends the model: then the origin is the join.
    pub after: Vec<StageShape>,
}

/// A plan with one fork, and its cost.
#[derive(Debug, Clone, PartialEq)]
pub struct PricedSplit {
    /// What was priced.
    pub shape: SplitShape,
    /// From request to result.
    pub latency_ms: f64,
    /// The part of it from the fork's input to the join's.
    pub region_ms: f64,
    /// What goes over links, as coded.
    pub bytes: u64,
    /// When its stages run: those up to the region, the branches in the order of the shape, those behind it.
    pub runs: Vec<SplitRun>,
}

/// When a stage of a plan with a fork runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitRun {
    /// From the request until its inputs are there, and its node is done with what it ran before.
    pub start_ms: f64,
    /// Waiting for its turn, loading and running.
    pub takes_ms: f64,
}

/// The best plan found with a fork in one of a model's regions.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Which of the regions.
    pub region: usize,
    /// The plan.
    pub priced: PricedSplit,
    /// No plan with one fork in any of the regions takes less, over the nodes looked at.
    pub bound_ms: f64,
}

/// The plan with one fork that takes least, if there is any; of [`Method::Greedy`], over the most promising nodes.
/// `expansions_max` bounds how many partial schedules [`Method::Exact`] looks at. A region is not forked where the
/// model's end that it is must run at the origin.
pub fn best_split(
    problem: &Problem,
    regions: &[Region],
    method: Method,
    expansions_max: usize,
) -> Option<Split> {
    let forks = Forks { regions: regions.to_vec(), ..Forks::default() };
    let scope = Scope { method, expansions_max, below_ms: f64::INFINITY };
    let found = best_of(problem, &forks, &scope, Count::One)?;
    let (region, priced) = PricedSplit::of(found.priced)?;
    Some(Split { region, priced, bound_ms: found.bound_ms })
}

impl Region {
    /// First block and one past the last; empty without branches.
    pub fn blocks(&self) -> (u16, u16) {
        let first = self.branches.first().map_or(0, |branch| branch.first);
        (first, self.branches.last().map_or(first, |branch| branch.end))
    }

    /// Whether its branches are some stretches of a model's blocks, one behind the other.
    pub fn is_valid(&self, blocks: usize) -> bool {
        let follow = self.branches.windows(2).all(|pair| pair[0].end == pair[1].first);
        let are_some = self.branches.iter().all(|branch| branch.first < branch.end);
        (2..=BRANCHES_MAX).contains(&self.branches.len())
            && follow
            && are_some
            && usize::from(self.blocks().1) <= blocks
    }
}

impl PricedSplit {
    /// A plan that forks once, into branches, and which of the regions these are.
    fn of(priced: PricedForked) -> Option<(usize, Self)> {
        let PricedForked { shape, latency_ms, forks_ms, bytes, runs } = priced;
        let mut split = SplitShape { before: vec![], branches: vec![], after: vec![] };
        let mut forked = None;
        for part in shape.parts {
            match (part, forked) {
                (Part::Stage(stage), None) => split.before.push(stage),
                (Part::Stage(stage), Some(_)) => split.after.push(stage),
                (Part::Branches { region, branches }, None) => {
                    (forked, split.branches) = (Some(region), branches);
                }
                _ => return None,
            }
        }
        let region_ms = forks_ms.first().copied()?;
        Some((forked?, Self { shape: split, latency_ms, region_ms, bytes, runs }))
    }
}

impl Problem {
    /// What a plan with a fork costs, as [`Problem::price_forked`] says.
    ///
    /// # Errors
    /// Why it cannot run, forks apart.
    pub fn price_split(&self, region: &Region, shape: &SplitShape) -> Result<PricedSplit, Infeasible> {
        let stages = |stages: &[StageShape]| stages.iter().copied().map(Part::Stage).collect::<Vec<_>>();
        let branches = Part::Branches { region: 0, branches: shape.branches.clone() };
        let parts = [stages(&shape.before), vec![branches], stages(&shape.after)].concat();
        let forks = Forks { regions: vec![region.clone()], ..Forks::default() };
        let priced = self.price_forked(&forks, &ForkedShape { parts })?;
        PricedSplit::of(priced).map(|(_, split)| split).ok_or(Infeasible::Coverage)
    }

    /// How the input of each stage is coded: those up to the region, the branches in the order of the shape, those behind
    /// it; and last the result. Parts of a cut go as all of it would; of what comes from several nodes, the longest output
    /// decides.
    pub fn split_codecs(&self, region: &Region, shape: &SplitShape) -> Vec<Codec> {
        let codec = |from: usize, to: usize, cut: u16| {
            let coding = self.best_coding(Hop { from, to, cut }, f64::INFINITY).filter(|_| from != to);
            coding.map_or(Codec::Raw, |coding| coding.codec)
        };
        let (first, end) = region.blocks();
        let (mut codecs, mut holder) = (vec![], 0);
        for stage in &shape.before {
            codecs.push(codec(holder, stage.node, stage.first));
            holder = stage.node;
        }
        codecs.extend(shape.branches.iter().map(|stage| codec(holder, stage.node, first)));
        let join = shape.after.first().map_or(0, |stage| stage.node);
        let out_bytes = |stage: &StageShape| {
            let branch = region.branches.iter().find(|branch| branch.first == stage.first);
            branch.map_or(0, |branch| branch.out_bytes)
        };
        let outputs = shape.branches.iter().map(|stage| (out_bytes(stage), stage.node));
        let outputs = outputs.chain([(region.past_bytes, holder)]).filter(|(_, from)| *from != join);
        let longest = outputs.max_by_key(|(bytes, _)| *bytes);
        codecs.push(longest.map_or(Codec::Raw, |(_, from)| codec(from, join, end)));
        codecs.extend(shape.after.windows(2).map(|pair| codec(pair[0].node, pair[1].node, pair[1].first)));
        codecs.extend(shape.after.last().map(|last| codec(last.node, 0, self.block_count() as u16)));
        codecs
    }
}
