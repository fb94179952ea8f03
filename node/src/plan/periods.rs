//! Who is busy with a request for how long, and the least that any of them must be: for the period of a stream.

use super::coding::Coding;
use super::costs::Costs;
use super::effort::Resource;
use super::problem::{Factors, Problem};
use super::ranges::Ranges;
use super::runs::BusyRuns;

/// How long each resource is busy with a partial plan, ms; by members, not nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Vec<(Resource, f64)>);

impl Busy {
    pub(super) fn uses_no_more_than(&self, other: &Self) -> bool {
        let covers = |(resource, busy_ms): &(Resource, f64)| {
            other.0.iter().any(|(known, more_ms)| known == resource && more_ms >= busy_ms)
        };
        self.0.iter().all(covers)
    }

    /// How long a resource would be busy with some work more.
    pub(super) fn with(&self, (resource, busy_ms): (Resource, f64)) -> f64 {
        let known = self.0.iter().find(|(known, _)| *known == resource);
        busy_ms + known.map_or(0.0, |(_, known_ms)| *known_ms)
    }

    /// Adds work of a resource.
    pub(super) fn add(&mut self, (resource, busy_ms): (Resource, f64)) {
        match self.0.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, all_ms)) => *all_ms += busy_ms,
            None if busy_ms > 0.0 => self.0.push((resource, busy_ms)),
            None => {}
        }
    }
}

/// Busy times of a problem's runs and hops, and the least that the busiest still has to do.
pub(super) struct Periods<'a> {
    blocks: usize,
    members: usize,
    ranges: &'a Ranges,
    /// By member. Times of all their ranges would take gigabytes where there are thousands of blocks.
    runs: Vec<BusyRuns>,
    /// `[cut][coding]`.
    codings: Vec<Vec<Coding>>,
    links_ms_per_byte: Vec<f64>,
    uplinks_ms_per_byte: Vec<f64>,
    encode_factors: Vec<Factors>,
    decode_factors: Vec<Factors>,
    /// `[cut][member]`.
    at_ms: Vec<f64>,
    start_ms: Vec<f64>,
}

impl<'a> Periods<'a> {
    pub(super) fn new(problem: &Problem, costs: &Costs<'a>) -> Self {
        let (blocks, members) = (costs.block_count(), costs.member_count());
        let node = |member: usize| &problem.nodes[costs.node(member)];
        let all = || 0..members;
        let link = |from, to| {
            let link = problem.links.get(costs.node(from), costs.node(to));
            link.map_or(f64::INFINITY, |link| link.ms_per_byte)
        };
        let of_cut = |cut: usize| problem.codings(cut as u16).collect();
        let mut periods = Self {
            blocks,
            members,
            ranges: costs.ranges,
            runs: all().map(|member| BusyRuns::new(problem, costs.ranges, costs.member(member))).collect(),
            codings: (0..=blocks).map(of_cut).collect(),
            links_ms_per_byte: all().flat_map(|from| all().map(move |to| link(from, to))).collect(),
            uplinks_ms_per_byte: all().map(|member| node(member).uplink_ms_per_byte).collect(),
            encode_factors: all().map(|member| node(member).encode_factors).collect(),
            decode_factors: all().map(|member| node(member).decode_factors).collect(),
            at_ms: vec![f64::INFINITY; (blocks + 1) * members],
            start_ms: vec![f64::INFINITY; (blocks + 1) * members],
        };
        periods.fill(costs);
        periods
    }

    fn fill(&mut self, costs: &Costs) {
        for cut in (0..=self.blocks).rev() {
            for member in 0..self.members {
                if cut == self.blocks || !costs.may_start(member, cut) {
                    continue;
                }
                let mut start_ms = f64::INFINITY;
                self.runs[member].each(self.ranges, cut, f64::INFINITY, |end, run_ms| {
                    start_ms = start_ms.min(run_ms.max(self.at_ms(end, member)));
                });
                self.start_ms[cut * self.members + member] = start_ms;
            }
            for member in 0..self.members {
                let index = cut * self.members + member;
                self.at_ms[index] = match cut == self.blocks {
                    true if !costs.may_end(member) => f64::INFINITY,
                    true if member == 0 => 0.0,
                    true => self.busiest_of_hop(member, 0, cut),
                    false => {
                        let others = (0..self.members).filter(|to| *to != member);
                        let moved =
                            others.map(|to| self.busiest_of_hop(member, to, cut).max(self.start_ms(cut, to)));
                        moved.fold(self.start_ms(cut, member), f64::min)
                    }
                };
            }
        }
    }

    fn busiest_of_hop(&self, from: usize, to: usize, cut: usize) -> f64 {
        let busiest = |coding| self.hop(from, to, cut, coding).map(|(_, busy_ms)| busy_ms);
        let of_codings = (0..self.codings[cut].len()).map(busiest);
        of_codings.map(|busy| busy.into_iter().fold(0.0, f64::max)).fold(f64::INFINITY, f64::min)
    }

    /// The least that the busiest has to do once a cut's tensors are at a member.
    pub(super) fn at_ms(&self, cut: usize, member: usize) -> f64 {
        self.at_ms[cut * self.members + member]
    }

    /// The least that the busiest has to do once a member is about to run.
    pub(super) fn start_ms(&self, cut: usize, member: usize) -> f64 {
        self.start_ms[cut * self.members + member]
    }

    /// How long a run keeps its member busy; infinite if it does not fit.
    pub(super) fn run_ms(&self, member: usize, first: usize, end: usize) -> f64 {
        self.runs[member].ms(self.ranges, first, end)
    }

    /// Whom a hop keeps busy, and how long.
    pub(super) fn hop(&self, from: usize, to: usize, cut: usize, coding: usize) -> [(Resource, f64); 4] {
        let Coding { codec, encode_ms, decode_ms, bytes, .. } = self.codings[cut][coding];
        let bytes = bytes as f64;
        [
            (Resource::Node(from), encode_ms * self.encode_factors[from].of(codec)),
            (Resource::Node(to), decode_ms * self.decode_factors[to].of(codec)),
            (Resource::Link(from, to), self.links_ms_per_byte[from * self.members + to] * bytes),
            (Resource::Uplink(from), self.uplinks_ms_per_byte[from] * bytes),
        ]
    }
}
