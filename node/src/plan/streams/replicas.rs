//! A stream over several routes of the shortest period: first with each run's memory looked at alone (`rates.rs`), then
//! so that all that runs on a node fits there. Greedy: where too much would have to be on a node, what carries most stays,
//! and the programme is solved again without the rest. Exact: of ranges that do not fit together, one is forbidden, each in
//! turn (branch and bound).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use super::Streams;
use super::rates::{Rates, Relaxed};
use super::routes::RunTimes;
use crate::plan::costs::Member;
use crate::plan::goal::{Method, ROUNDING};
use crate::plan::price::{PlanShape, StageShape};
use crate::plan::problem::Problem;
use crate::plan::ranges::Ranges;
use crate::plan::replicated::{PricedReplicated, ReplicatedShape};

/// How near a greedy search comes to what routes allow.
const NEAR_ENOUGH: f64 = 1.003;
/// Run times that are tabled, at most: some 80 MB.
const TABLE_MAX: usize = 10_000_000;

/// A stream, and below which period there is none.
pub(in crate::plan) struct Found {
    pub(in crate::plan) priced: PricedReplicated,
    pub(in crate::plan) bound_ms: f64,
}

/// The shortest period over these members, with routes that are known to begin with. `relaxations_max` bounds how many
/// programmes [`Method::Exact`] solves. None if no stream is found, or the problem is too large for it.
pub(in crate::plan) fn search(
    problem: &Problem,
    ranges: &Ranges,
    members: &[Member],
    known: Vec<PlanShape>,
    (method, relaxations_max): (Method, usize),
) -> Option<Found> {
    if members.len().saturating_mul((problem.block_count() + 1).pow(2)) > TABLE_MAX {
        return None;
    }
    let streams = Streams::new(problem, ranges, members);
    let mut search = Search {
        problem,
        runs: RunTimes::new(&streams),
        rates: Rates::new(&streams),
        best: None,
        near: if method == Method::Exact { 1.0 + ROUNDING } else { NEAR_ENOUGH },
    };
    let whole =
        |member: &Member| StageShape { node: member.node, first: 0, end: problem.block_count() as u16 };
    let alone = members.iter().map(|member| problem.lossless(vec![whole(member)]));
    for route in alone.chain(known) {
        search.rates.know(route.clone());
        search.consider(ReplicatedShape { routes: vec![(route, 1.0)] });
    }
    let relaxed = search.rates.relax(&search.runs, search.near)?;
    let mut bound_ms = relaxed.bound_ms;
    search.dive(&relaxed);
    if method == Method::Exact {
        bound_ms = search.branch(relaxed, relaxations_max);
    }
    let bound_ms = search.best.as_ref().map_or(bound_ms, |best| bound_ms.min(best.period_ms));
    search.best.map(|priced| Found { priced, bound_ms })
}

struct Search<'a> {
    problem: &'a Problem,
    runs: RunTimes,
    rates: Rates<'a>,
    best: Option<PricedReplicated>,
    near: f64,
}

/// What some stages weigh on their node, and whether they may stay.
struct Host {
    stage: StageShape,
    /// Share of requests times how long each keeps the node busy.
    busy_ms: f64,
}

impl Search<'_> {
    /// Takes a stream over if it is the best yet and fits.
    fn consider(&mut self, shape: ReplicatedShape) -> bool {
        let Ok(priced) = self.problem.price_replicated(&shape) else { return false };
        let is_better = self.best.as_ref().is_none_or(|best| priced.period_ms < best.period_ms);
        if priced.loss <= self.problem.loss_max + ROUNDING && is_better {
            self.best = Some(priced);
        }
        true
    }

    fn take(&mut self, relaxed: &Relaxed) -> bool {
        let routes =
            relaxed.shares.iter().map(|(column, share)| (self.rates.columns[*column].shape.clone(), *share));
        self.consider(ReplicatedShape { routes: routes.collect() })
    }

    /// Whether none can be better by more than rounding.
    fn is_beaten(&self, bound_ms: f64) -> bool {
        self.best.as_ref().is_some_and(|best| best.period_ms <= bound_ms * (1.0 + ROUNDING))
    }

    /// Nodes that would have to hold more than they can, with all that runs there.
    fn too_full(&self, relaxed: &Relaxed) -> Vec<Vec<Host>> {
        let mut hosts: Vec<Host> = vec![];
        for (column, share) in &relaxed.shares {
            for stage in &self.rates.columns[*column].shape.stages {
                let busy_ms = share * self.runs.of(self.rates.member(stage.node), *stage);
                match hosts.iter_mut().find(|host| host.stage == *stage) {
                    Some(host) => host.busy_ms += busy_ms,
                    None => hosts.push(Host { stage: *stage, busy_ms }),
                }
            }
        }
        hosts.sort_by(|one, other| {
            one.stage.node.cmp(&other.stage.node).then(other.busy_ms.total_cmp(&one.busy_ms))
        });
        let mut by_node: Vec<Vec<Host>> = vec![];
        for host in hosts {
            match by_node.last_mut().filter(|hosts| hosts[0].stage.node == host.stage.node) {
                Some(hosts) => hosts.push(host),
                None => by_node.push(vec![host]),
            }
        }
        by_node.retain(|hosts| {
            let stages: Vec<StageShape> = hosts.iter().map(|host| host.stage).collect();
            self.problem.check_memory(&stages).is_err()
        });
        by_node
    }

    /// What carries most stays; what does not fit beside it goes, until all fits.
    fn dive(&mut self, relaxed: &Relaxed) {
        let kept = self.runs.clone();
        let mut first = None;
        let mut staying: Vec<StageShape> = vec![];
        loop {
            let now = first.as_ref().unwrap_or(relaxed);
            if self.is_beaten(now.bound_ms) {
                break;
            }
            let full = self.too_full(now);
            if full.is_empty() {
                self.take(first.as_ref().unwrap_or(relaxed));
                break;
            }
            for hosts in full {
                self.make_room(&hosts, &mut staying);
            }
            first = self.rates.relax(&self.runs, self.near);
            if first.is_none() {
                break;
            }
        }
        self.runs = kept;
    }

    /// Forbids on a node all that does not fit beside what stays.
    fn make_room(&mut self, hosts: &[Host], staying: &mut Vec<StageShape>) {
        let node = hosts[0].stage.node;
        let mut here: Vec<StageShape> = staying.iter().copied().filter(|stage| stage.node == node).collect();
        let fits = |here: &[StageShape], stage: StageShape| {
            here.contains(&stage) || self.problem.check_memory(&[here, &[stage]].concat()).is_ok()
        };
        for host in hosts {
            if !here.contains(&host.stage) && fits(&here, host.stage) {
                here.push(host.stage);
                staying.push(host.stage);
            }
        }
        let member = self.rates.member(node);
        let ranges = self.runs.ranges(member).map(|(first, end)| StageShape { node, first, end });
        let out: Vec<StageShape> = ranges.filter(|stage| !fits(&here, *stage)).collect();
        out.into_iter().for_each(|stage| self.runs.forbid(member, stage));
    }

    /// The bound of all streams.
    fn branch(&mut self, root: Relaxed, relaxations_max: usize) -> f64 {
        let mut open = BinaryHeap::from([Branch { forbidden: vec![], relaxed: root }]);
        let mut seen: HashSet<Vec<(usize, u16, u16)>> = HashSet::new();
        let all = self.runs.clone();
        let mut relaxations = 0;
        while let Some(Branch { forbidden, relaxed }) = open.pop() {
            if self.is_beaten(relaxed.bound_ms) || relaxations >= relaxations_max {
                return relaxed.bound_ms;
            }
            let full = self.too_full(&relaxed);
            let Some(hosts) = full.into_iter().next() else {
                self.take(&relaxed);
                return relaxed.bound_ms;
            };
            for stage in self.conflict(&hosts) {
                let mut forbidden = forbidden.clone();
                forbidden.push((stage.node, stage.first, stage.end));
                forbidden.sort_unstable();
                if !seen.insert(forbidden.clone()) {
                    continue;
                }
                relaxations += 1;
                self.runs = all.clone();
                for (node, first, end) in &forbidden {
                    let stage = StageShape { node: *node, first: *first, end: *end };
                    self.runs.forbid(self.rates.member(*node), stage);
                }
                if let Some(mut child) = self.rates.relax(&self.runs, self.near) {
                    child.bound_ms = child.bound_ms.max(relaxed.bound_ms);
                    if self.too_full(&child).is_empty() {
                        self.take(&child);
                    }
                    if !self.is_beaten(child.bound_ms) {
                        open.push(Branch { forbidden, relaxed: child });
                    }
                }
            }
        }
        self.runs = all;
        self.best.as_ref().map_or(f64::INFINITY, |best| best.period_ms)
    }

    /// Few ranges that do not fit together, of those on a node.
    fn conflict(&self, hosts: &[Host]) -> Vec<StageShape> {
        let mut stages: Vec<StageShape> = hosts.iter().map(|host| host.stage).collect();
        let mut index = stages.len();
        while index > 0 {
            index -= 1;
            let without: Vec<StageShape> =
                stages.iter().copied().filter(|stage| *stage != stages[index]).collect();
            if self.problem.check_memory(&without).is_err() {
                stages = without;
            }
        }
        stages
    }
}

/// Some ranges forbidden, and what is possible then.
struct Branch {
    forbidden: Vec<(usize, u16, u16)>,
    relaxed: Relaxed,
}

impl Ord for Branch {
    /// The shortest bound comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.relaxed.bound_ms.total_cmp(&self.relaxed.bound_ms)
    }
}

impl PartialOrd for Branch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Branch {}

impl PartialEq for Branch {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
