//! Plans that fork: the branches of a parallel region on several nodes at once, joined again behind it. What one is, and
//! what it costs, straight from the problem; how a good one is found is said in `split/search.rs`.
//!
//! The fork is the node that has the region's input. It sends the branches their inputs one after the other, since
//! they share its way out, while it runs what branches it keeps. A node runs its branches in that order too, and
//! sends their outputs one after the other to the join, which goes on when all are there. Each tensor goes by the
//! lossless coding that takes least, in proportion to what is coded at the region's own cuts.

mod search;
mod tables;

use super::coding::{Coding, Hop};
use super::price::{Infeasible, StageShape};
use super::problem::Problem;

pub use search::{Split, best_split};

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

/// What moving a tensor takes: of the sender's way out, and then of the receiver; and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Moved {
    out_ms: f64,
    in_ms: f64,
    bytes: u64,
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

impl SplitShape {
    fn fork(&self) -> usize {
        self.before.last().map_or(0, |stage| stage.node)
    }

    fn join(&self) -> usize {
        self.after.first().map_or(0, |stage| stage.node)
    }
}

impl Problem {
    /// What a plan with a fork costs.
    ///
    /// # Errors
    /// Why it cannot run, forks apart.
    pub fn price_split(&self, region: &Region, shape: &SplitShape) -> Result<PricedSplit, Infeasible> {
        self.check_split(region, shape)?;
        let mut bytes: u64 = 0;
        let mut latency_ms = 0.0;
        let (first, end) = region.blocks();
        let blocks = self.block_count() as u16;
        let ways = [(0, &shape.before), (shape.join(), &shape.after)];
        let (mut runs, mut forked_ms) = (vec![], 0.0);
        for (mut holder, stages) in ways {
            forked_ms = latency_ms;
            for stage in stages {
                let moved = self.moved(holder, stage.node, stage.first, None)?;
                let takes_ms = self.stage_ms(*stage);
                runs.push(SplitRun { start_ms: latency_ms + moved.out_ms + moved.in_ms, takes_ms });
                latency_ms += moved.out_ms + moved.in_ms + takes_ms;
                bytes = bytes.saturating_add(moved.bytes);
                holder = stage.node;
            }
        }
        if let Some(last) = shape.after.last() {
            let home = self.moved(last.node, 0, blocks, None)?;
            latency_ms += home.out_ms + home.in_ms;
            bytes = bytes.saturating_add(home.bytes);
        }
        let mut branch_runs = vec![];
        let (region_ms, moved_bytes) = self.region_ms(region, shape, (first, end), &mut branch_runs)?;
        branch_runs.iter_mut().for_each(|run| run.start_ms += forked_ms);
        let mut behind = runs.split_off(shape.before.len());
        behind.iter_mut().for_each(|run| run.start_ms += region_ms);
        let runs = [runs, branch_runs, behind].concat();
        let bytes = bytes.saturating_add(moved_bytes);
        let latency_ms = latency_ms + region_ms;
        Ok(PricedSplit { shape: shape.clone(), latency_ms, region_ms, bytes, runs })
    }

    /// From the fork's input to the join's, and the bytes moved between; when the branches run, from the fork's input on.
    fn region_ms(
        &self,
        region: &Region,
        shape: &SplitShape,
        (first, end): (u16, u16),
        runs: &mut Vec<SplitRun>,
    ) -> Result<(f64, u64), Infeasible> {
        let (fork, join) = (shape.fork(), shape.join());
        let mut out_free_ms = vec![0.0; self.nodes.len()];
        let mut free_ms = vec![0.0; self.nodes.len()];
        let mut finished_ms = vec![];
        let mut bytes: u64 = 0;
        for stage in &shape.branches {
            let branch = region.branches.iter().find(|branch| branch.first == stage.first);
            let (in_bytes, out_bytes) = branch.map_or((0, 0), |branch| (branch.in_bytes, branch.out_bytes));
            let moved = self.moved(fork, stage.node, first, Some(in_bytes))?;
            out_free_ms[fork] += moved.out_ms;
            let arrived_ms = if stage.node == fork { 0.0 } else { out_free_ms[fork] + moved.in_ms };
            let free_ms: &mut f64 = &mut free_ms[stage.node];
            let (start_ms, takes_ms) = (free_ms.max(arrived_ms), self.stage_ms(*stage));
            *free_ms = start_ms + takes_ms;
            runs.push(SplitRun { start_ms, takes_ms });
            finished_ms.push((*free_ms, stage.node, out_bytes));
            bytes = bytes.saturating_add(moved.bytes);
        }
        let mut joined_ms: f64 = 0.0;
        for (finished_ms, node, out_bytes) in finished_ms {
            let moved = self.moved(node, join, end, Some(out_bytes))?;
            let arrived_ms = if node == join {
                finished_ms
            } else {
                out_free_ms[node] = finished_ms.max(out_free_ms[node]) + moved.out_ms;
                out_free_ms[node] + moved.in_ms
            };
            joined_ms = joined_ms.max(arrived_ms);
            bytes = bytes.saturating_add(moved.bytes);
        }
        Ok((joined_ms, bytes))
    }

    fn stage_ms(&self, stage: StageShape) -> f64 {
        self.nodes[stage.node].queue_wait_ms + self.cold_ms(stage) + self.range_ms(stage)
    }

    /// Moves what crosses a cut, or so many bytes in its place.
    fn moved(&self, from: usize, to: usize, cut: u16, part_bytes: Option<u64>) -> Result<Moved, Infeasible> {
        if from == to {
            return Ok(Moved::default());
        }
        let link = self.links.get(from, to).ok_or(Infeasible::Unreachable { from, to })?;
        let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
        let whole_bytes = self.cut_bytes[usize::from(cut)];
        let coding = match part_bytes {
            None => {
                self.best_coding(Hop { from, to, cut }, f64::INFINITY).unwrap_or(Coding::raw(whole_bytes))
            }
            Some(bytes) => {
                let share = bytes as f64 / whole_bytes.max(1) as f64;
                let coded = self.codings(cut).skip(1).filter(|coding| coding.loss == 0.0 && whole_bytes > 0);
                let scaled = coded.map(|coding| Coding {
                    bytes: (coding.bytes as f64 * share).ceil() as u64,
                    encode_ms: coding.encode_ms * share,
                    decode_ms: coding.decode_ms * share,
                    ..coding
                });
                let takes_ms = |coding: &Coding| coding.transfer_ms(sender, link, receiver);
                scaled.fold(Coding::raw(bytes), |best, coding| {
                    if takes_ms(&coding) < takes_ms(&best) { coding } else { best }
                })
            }
        };
        let encode_ms = coding.encode_ms * sender.encode_factors.of(coding.codec);
        let decode_ms = coding.decode_ms * receiver.decode_factors.of(coding.codec);
        Ok(Moved {
            out_ms: encode_ms + link.ms_per_byte * coding.bytes as f64,
            in_ms: link.latency_ms + decode_ms,
            bytes: coding.bytes,
        })
    }

    fn check_split(&self, region: &Region, shape: &SplitShape) -> Result<(), Infeasible> {
        let (first, end) = region.blocks();
        let covers = |stages: &[StageShape], from: u16, to: u16| {
            let follow = stages.windows(2).all(|pair| pair[0].end == pair[1].first);
            let ends = stages.first().map_or(to, |stage| stage.first) == from
                && stages.last().map_or(from, |stage| stage.end) == to;
            follow && ends && stages.iter().all(|stage| stage.first < stage.end)
        };
        let mut branches = shape.branches.clone();
        branches.sort_by_key(|stage| stage.first);
        let are_all = branches.len() == region.branches.len()
            && branches
                .iter()
                .zip(&region.branches)
                .all(|(stage, branch)| (stage.first, stage.end) == (branch.first, branch.end));
        let is_whole = region.is_valid(self.block_count())
            && covers(&shape.before, 0, first)
            && covers(&shape.after, end, self.block_count() as u16);
        if !are_all || !is_whole {
            return Err(Infeasible::Coverage);
        }
        let stages = [&shape.before[..], &shape.branches, &shape.after].concat();
        if let Some(stage) =
            stages.iter().find(|stage| !self.nodes.get(stage.node).is_some_and(|node| node.can_compute))
        {
            return Err(Infeasible::Node { node: stage.node });
        }
        // Who forces an end means that nobody else sees it: all branches would have to stay there.
        let is_elsewhere = |stages: &[StageShape], branches: &[StageShape]| match stages.is_empty() {
            true => branches.iter().any(|stage| stage.node != 0),
            false => false,
        };
        let is_first_elsewhere = shape.before.first().is_some_and(|stage| stage.node != 0);
        let is_last_elsewhere = shape.after.last().is_some_and(|stage| stage.node != 0);
        if (self.force_first && (is_first_elsewhere || is_elsewhere(&shape.before, &shape.branches)))
            || (self.force_last && (is_last_elsewhere || is_elsewhere(&shape.after, &shape.branches)))
        {
            return Err(Infeasible::Forced);
        }
        self.check_memory(&stages)
    }
}
