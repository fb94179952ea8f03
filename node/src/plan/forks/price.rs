//! What a plan that forks costs, straight from the problem.
//!
//! The fork sends the parts their inputs one after the other, since they share its way out, then what passes them by, while
//! it runs what it keeps. A node runs its parts in that order too, and sends their outputs one after the other to the join, which goes on when
//! all are there. Each tensor goes by the lossless coding that takes least, in proportion to what is coded at the cuts
//! that the fork begins and ends at.

use super::lanes::{Lane, Moved};
use super::{Division, ForkedShape, Forks, Part, PricedForked, SHARES_MAX, Share, borders};
use crate::plan::coding::{Coding, Hop};
use crate::plan::price::{Infeasible, StageShape};
use crate::plan::problem::Problem;
use crate::plan::split::SplitRun;

/// What a part of a fork reads, runs and leaves.
struct Task {
    node: usize,
    in_bytes: u64,
    out_bytes: u64,
    takes_ms: f64,
}

impl Problem {
    /// What a plan costs that may fork.
    ///
    /// # Errors
    /// Why it cannot run, forks apart.
    pub fn price_forked(&self, forks: &Forks, shape: &ForkedShape) -> Result<PricedForked, Infeasible> {
        self.check_forked(forks, shape)?;
        let mut priced =
            PricedForked { shape: shape.clone(), latency_ms: 0.0, forks_ms: vec![], bytes: 0, runs: vec![] };
        let mut holder = 0;
        for (index, part) in shape.parts.iter().enumerate() {
            let next = shape.goes_on(index);
            match part {
                Part::Stage(stage) => {
                    let moved = self.moved(holder, stage.node, stage.first)?;
                    priced.latency_ms += moved.out_ms + moved.in_ms;
                    priced.bytes = priced.bytes.saturating_add(moved.bytes);
                    let takes_ms = self.stage_ms(*stage);
                    priced.runs.push(SplitRun { start_ms: priced.latency_ms, takes_ms });
                    priced.latency_ms += takes_ms;
                }
                _ => self.add_fork(forks, part, (holder, next), &mut priced)?,
            }
            holder = next;
        }
        let home = self.moved(holder, 0, self.block_count() as u16)?;
        priced.latency_ms += home.out_ms + home.in_ms;
        priced.bytes = priced.bytes.saturating_add(home.bytes);
        Ok(priced)
    }

    fn add_fork(
        &self,
        forks: &Forks,
        part: &Part,
        ends: (usize, usize),
        priced: &mut PricedForked,
    ) -> Result<(), Infeasible> {
        let (first, end) = forks.blocks(part);
        let tasks = self.tasks(forks, part);
        let mut runs = vec![];
        let past_bytes = match part {
            Part::Branches { region, .. } => forks.regions[*region].past_bytes,
            _ => 0,
        };
        let (fork_ms, bytes) = self.fork_ms((&tasks, past_bytes), ends, (first, end), &mut runs)?;
        runs.iter_mut().for_each(|run| run.start_ms += priced.latency_ms);
        priced.runs.extend(runs);
        priced.latency_ms += fork_ms;
        priced.forks_ms.push(fork_ms);
        priced.bytes = priced.bytes.saturating_add(bytes);
        Ok(())
    }

    fn tasks(&self, forks: &Forks, part: &Part) -> Vec<Task> {
        let divided = |division: Division, shares: &[Share]| {
            let task = |(place, share): (usize, &Share)| {
                let borders = borders(place, shares.len());
                let (first, end) = (usize::from(division.first), usize::from(division.end));
                Task {
                    node: share.node,
                    in_bytes: division.in_bytes(self.cut_bytes[first], share.units, borders),
                    out_bytes: division.bytes(self.cut_bytes[end], share.units),
                    takes_ms: self.share_ms(division, *share, borders),
                }
            };
            shares.iter().enumerate().map(task).collect()
        };
        match part {
            Part::Stage(_) => vec![],
            Part::Branches { region, branches } => {
                let known = &forks.regions[*region].branches;
                let task = |stage: &StageShape| {
                    let branch = known.iter().find(|branch| branch.first == stage.first);
                    let (in_bytes, out_bytes) =
                        branch.map_or((0, 0), |branch| (branch.in_bytes, branch.out_bytes));
                    Task { node: stage.node, in_bytes, out_bytes, takes_ms: self.stage_ms(*stage) }
                };
                branches.iter().map(task).collect()
            }
            Part::Rows { strips, shares } => {
                forks.of_rows(*strips).map_or(vec![], |division| divided(division, shares))
            }
            Part::Items { first, end, shares } => divided(forks.of_items(*first, *end), shares),
        }
    }

    /// From the fork's input to the join's, and the bytes moved between; when the parts run, from the fork's input on.
    fn fork_ms(
        &self,
        (tasks, past_bytes): (&[Task], u64),
        (fork, join): (usize, usize),
        (first, end): (u16, u16),
        runs: &mut Vec<SplitRun>,
    ) -> Result<(f64, u64), Infeasible> {
        let mut out_free_ms = vec![0.0; self.nodes.len()];
        let mut free_ms = vec![0.0; self.nodes.len()];
        let mut finished_ms = vec![];
        let mut bytes: u64 = 0;
        for task in tasks {
            let moved = Lane::new(self, fork, task.node, first)?.moved(task.in_bytes);
            out_free_ms[fork] += moved.out_ms;
            let arrived_ms = if task.node == fork { 0.0 } else { out_free_ms[fork] + moved.in_ms };
            let free_ms: &mut f64 = &mut free_ms[task.node];
            let start_ms = free_ms.max(arrived_ms);
            *free_ms = start_ms + task.takes_ms;
            runs.push(SplitRun { start_ms, takes_ms: task.takes_ms });
            finished_ms.push(*free_ms);
            bytes = bytes.saturating_add(moved.bytes);
        }
        let mut joined_ms: f64 = 0.0;
        if past_bytes > 0 {
            let moved = Lane::new(self, fork, join, end)?.moved(past_bytes);
            out_free_ms[fork] += moved.out_ms;
            joined_ms = if fork == join { 0.0 } else { out_free_ms[fork] + moved.in_ms };
            bytes = bytes.saturating_add(moved.bytes);
        }
        for (task, finished_ms) in tasks.iter().zip(finished_ms) {
            let moved = Lane::new(self, task.node, join, end)?.moved(task.out_bytes);
            let arrived_ms = if task.node == join {
                finished_ms
            } else {
                out_free_ms[task.node] = finished_ms.max(out_free_ms[task.node]) + moved.out_ms;
                out_free_ms[task.node] + moved.in_ms
            };
            joined_ms = joined_ms.max(arrived_ms);
            bytes = bytes.saturating_add(moved.bytes);
        }
        Ok((joined_ms, bytes))
    }

    fn stage_ms(&self, stage: StageShape) -> f64 {
        self.nodes[stage.node].queue_wait_ms + self.cold_ms(stage) + self.range_ms(stage)
    }

    /// Waiting, loading and running a share: all of a run but a session's overhead is in proportion.
    fn share_ms(&self, division: Division, share: Share, borders: u64) -> f64 {
        let stage = StageShape { node: share.node, first: division.first, end: division.end };
        let (base_ms, whole_ms) = self.divided_ms(stage);
        let part = f64::from(share.units) / f64::from(division.units);
        base_ms + whole_ms * part + division.halo_ms(share.node, borders)
    }

    /// What each share of a run takes, however small, and what all of them take together beside it.
    pub(super) fn divided_ms(&self, stage: StageShape) -> (f64, f64) {
        let node = &self.nodes[stage.node];
        let range_ms = self.range_ms(stage);
        let overhead_ms = node.overhead_ms.min(range_ms);
        (node.queue_wait_ms + self.cold_ms(stage) + overhead_ms, range_ms - overhead_ms)
    }

    /// Moves what crosses a cut, whole.
    fn moved(&self, from: usize, to: usize, cut: u16) -> Result<Moved, Infeasible> {
        if from == to {
            return Ok(Moved::default());
        }
        let link = self.links.get(from, to).ok_or(Infeasible::Unreachable { from, to })?;
        let coding = self.best_coding(Hop { from, to, cut }, f64::INFINITY);
        let coding = coding.unwrap_or(Coding::raw(self.cut_bytes[usize::from(cut)]));
        let encode_ms = coding.encode_ms * self.nodes[from].encode_factors.of(coding.codec);
        let decode_ms = coding.decode_ms * self.nodes[to].decode_factors.of(coding.codec);
        Ok(Moved {
            out_ms: encode_ms + link.ms_per_byte * coding.bytes as f64,
            in_ms: link.latency_ms + decode_ms,
            bytes: coding.bytes,
        })
    }

    fn check_forked(&self, forks: &Forks, shape: &ForkedShape) -> Result<(), Infeasible> {
        let (mut next, mut stages, mut was_fork) = (0, vec![], false);
        for part in &shape.parts {
            let is_fork = !matches!(part, Part::Stage(_));
            if !self.is_whole(forks, part) || forks.blocks(part).0 != next {
                return Err(Infeasible::Coverage);
            }
            if is_fork && was_fork {
                return Err(Infeasible::Join { cut: next });
            }
            stages.extend(forks.stages(part));
            (next, was_fork) = (forks.blocks(part).1, is_fork);
        }
        if usize::from(next) != self.block_count() {
            return Err(Infeasible::Coverage);
        }
        let computes = |stage: &&StageShape| self.nodes.get(stage.node).is_some_and(|node| node.can_compute);
        if let Some(stage) = stages.iter().find(|stage| !computes(stage)) {
            return Err(Infeasible::Node { node: stage.node });
        }
        // Who forces an end means that nobody else sees it: all parts of a fork would have to stay there.
        let is_elsewhere = |part: Option<&Part>| {
            part.is_some_and(|part| forks.stages(part).iter().any(|stage| stage.node != 0))
        };
        if (self.force_first && is_elsewhere(shape.parts.first()))
            || (self.force_last && is_elsewhere(shape.parts.last()))
        {
            return Err(Infeasible::Forced);
        }
        self.check_memory(&stages)
    }

    /// Whether a part names what there is, and all of it.
    fn is_whole(&self, forks: &Forks, part: &Part) -> bool {
        let blocks = self.block_count();
        let are_all = |units: u32, shares: &[Share]| {
            let mut nodes: Vec<usize> = shares.iter().map(|share| share.node).collect();
            nodes.sort_unstable();
            (2..=SHARES_MAX).contains(&shares.len())
                && nodes.windows(2).all(|pair| pair[0] != pair[1])
                && shares.iter().all(|share| share.units > 0)
                && shares.iter().map(|share| u64::from(share.units)).sum::<u64>() == u64::from(units)
        };
        match part {
            Part::Stage(stage) => stage.first < stage.end && usize::from(stage.end) <= blocks,
            Part::Branches { region, branches } => forks.regions.get(*region).is_some_and(|region| {
                let mut placed: Vec<(u16, u16)> =
                    branches.iter().map(|stage| (stage.first, stage.end)).collect();
                placed.sort_unstable();
                let known = region.branches.iter().map(|branch| (branch.first, branch.end));
                region.is_valid(blocks) && placed.into_iter().eq(known)
            }),
            Part::Rows { strips, shares } => forks.strips.get(*strips).is_some_and(|strips| {
                strips.is_valid(blocks, self.nodes.len()) && are_all(strips.rows, shares)
            }),
            Part::Items { first, end, shares } => {
                first < end && usize::from(*end) <= blocks && are_all(forks.items, shares)
            }
        }
    }
}

impl Forks {
    /// First block of a part and one past the last; empty if it names what is not there.
    pub fn blocks(&self, part: &Part) -> (u16, u16) {
        match part {
            Part::Stage(stage) => (stage.first, stage.end),
            Part::Branches { region, .. } => self.regions.get(*region).map_or((0, 0), super::Region::blocks),
            Part::Rows { strips, .. } => {
                self.strips.get(*strips).map_or((0, 0), |strips| (strips.first, strips.end))
            }
            Part::Items { first, end, .. } => (*first, *end),
        }
    }

    /// What runs where in a part, in its order.
    pub fn stages(&self, part: &Part) -> Vec<StageShape> {
        let (first, end) = self.blocks(part);
        match part {
            Part::Stage(stage) => vec![*stage],
            Part::Branches { branches, .. } => branches.clone(),
            Part::Rows { shares, .. } | Part::Items { shares, .. } => {
                shares.iter().map(|share| StageShape { node: share.node, first, end }).collect()
            }
        }
    }
}
