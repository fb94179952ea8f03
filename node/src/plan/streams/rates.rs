//! The highest rate of a stream whose requests take different routes, no resource being busy for longer than there is
//! time: a packing programme with a column for each route and a row for each resource. Columns are generated (Gilmore
//! and Gomory, "A linear programming approach to the cutting-stock problem", Operations Research 9, 1961): the dual
//! prices of resources say which route would help most, and how much any could (Lasdon, "Optimization theory for large
//! systems", 1970). Prices are smoothed towards the best ones known (Wentges, ITOR 4, 1997), which saves passes.

use std::collections::{HashMap, HashSet};

use super::Streams;
use super::routes::{Prices, RunTimes, cheapest};
use super::simplex::Simplex;
use crate::plan::effort::Resource;
use crate::plan::goal::ROUNDING;
use crate::plan::price::PlanShape;

/// Columns generated for one programme, at most.
const PASSES_MAX: usize = 600;
/// How far prices are drawn towards the best known.
const SMOOTHING: f64 = 0.6;

/// A route and what it keeps busy.
pub(super) struct Column {
    pub(super) shape: PlanShape,
    /// By the numbers of resources.
    busy: Vec<(usize, f64)>,
}

/// The stream of highest rate, each run's memory looked at alone.
pub(super) struct Relaxed {
    /// Indices of columns, and the share of requests that takes each.
    pub(super) shares: Vec<(usize, f64)>,
    /// No stream has a shorter period.
    pub(super) bound_ms: f64,
}

/// Routes that are known.
pub(super) struct Rates<'a> {
    streams: &'a Streams<'a>,
    member_of: HashMap<usize, usize>,
    pub(super) columns: Vec<Column>,
    known: HashSet<PlanShape>,
    resources: Vec<Resource>,
    numbers: HashMap<Resource, usize>,
}

impl<'a> Rates<'a> {
    pub(super) fn new(streams: &'a Streams<'a>) -> Self {
        let members = streams.workers.iter().enumerate();
        Self {
            streams,
            member_of: members.map(|(index, worker)| (worker.member.node, index)).collect(),
            columns: vec![],
            known: HashSet::new(),
            resources: vec![],
            numbers: HashMap::new(),
        }
    }

    /// Which member a node is.
    pub(super) fn member(&self, node: usize) -> usize {
        self.member_of.get(&node).copied().unwrap_or(0)
    }

    /// Takes a route in, if it is new and can be one: that its runs may not fit together is no matter here.
    pub(super) fn know(&mut self, shape: PlanShape) -> Option<usize> {
        let problem = self.streams.problem;
        if shape.stages.iter().any(|stage| !self.member_of.contains_key(&stage.node))
            || self.known.contains(&shape)
        {
            return None;
        }
        let priced = problem.price_in_ample_memory(&shape).ok()?;
        if priced.loss > problem.loss_max + ROUNDING {
            return None;
        }
        let busy = problem.busy(&shape, &priced.stages, &priced.edges);
        let mut busy: Vec<(Resource, f64)> = busy.into_iter().filter(|(_, busy_ms)| *busy_ms > 0.0).collect();
        busy.sort_unstable_by_key(|(resource, _)| *resource);
        let busy = busy.into_iter().map(|(resource, busy_ms)| (self.number(resource), busy_ms)).collect();
        self.known.insert(shape.clone());
        self.columns.push(Column { shape, busy });
        Some(self.columns.len() - 1)
    }

    fn number(&mut self, resource: Resource) -> usize {
        let next = self.resources.len();
        let number = *self.numbers.entry(resource).or_insert(next);
        if number == next {
            self.resources.push(resource);
        }
        number
    }

    /// The highest rate with these runs, to within a factor; none if no route is left.
    pub(super) fn relax(&mut self, runs: &RunTimes, near: f64) -> Option<Relaxed> {
        let may = |stage: &_, member: usize| runs.of(member, *stage).is_finite();
        let is_open =
            |column: &Column| column.shape.stages.iter().all(|stage| may(stage, self.member(stage.node)));
        let mut open: Vec<usize> =
            (0..self.columns.len()).filter(|index| is_open(&self.columns[*index])).collect();
        let mut simplex = Simplex::new();
        let mut bound_ms = 0.0;
        let mut center: Option<Vec<f64>> = None;
        let mut smoothing = SMOOTHING;
        for _ in 0..PASSES_MAX {
            if let Some(free) = open.iter().find(|index| self.columns[**index].busy.is_empty()) {
                return Some(Relaxed { shares: vec![(*free, 1.0)], bound_ms: 0.0 });
            }
            let columns = || open.iter().map(|index| (*index, &self.columns[*index].busy[..]));
            simplex.solve(columns);
            let rate = simplex.rate();
            if rate > 0.0 && 1.0 / rate <= bound_ms * near {
                break;
            }
            let own = simplex.prices();
            let asked = match &center {
                Some(center) if smoothing > 0.0 => blend(&own, center, smoothing),
                _ => own.clone(),
            };
            let prices = self.prices(&asked);
            let Some(route) = cheapest(self.streams, runs, &prices, false) else { break };
            let sum: f64 = asked.iter().sum();
            if sum > 0.0 && route.cost / sum > bound_ms {
                bound_ms = route.cost / sum;
                center = Some(asked.iter().map(|price| price / route.cost).collect());
            }
            let mut new = self.know(route.shape);
            if new.is_none() && self.streams.problem.loss_max > 0.0 {
                let lossless = cheapest(self.streams, runs, &prices, true);
                new = lossless.and_then(|route| self.know(route.shape));
            }
            match new {
                Some(index) => {
                    let cost = cost(&own, &self.columns[index].busy);
                    smoothing = if cost >= 1.0 { 0.0 } else { SMOOTHING };
                    open.push(index);
                }
                None if smoothing > 0.0 => smoothing = 0.0,
                None => break,
            }
        }
        let rate = simplex.rate();
        let shares = simplex.amounts().map(|(column, amount)| (column, amount / rate)).collect();
        (rate > 0.0).then(|| Relaxed { shares, bound_ms: bound_ms.min(1.0 / rate) })
    }

    fn prices(&self, of: &[f64]) -> Prices {
        let count = self.streams.count();
        let mut prices = Prices::none(count);
        for (resource, price) in self.resources.iter().zip(of) {
            let price = price.max(f64::MIN_POSITIVE);
            match resource {
                Resource::Node(node) => prices.members[self.member(*node)] = price,
                Resource::Uplink(node) => prices.uplinks[self.member(*node)] = price,
                Resource::Link(from, to) => {
                    prices.links[self.member(*from) * count + self.member(*to)] = price;
                }
            }
        }
        prices
    }
}

/// What a route costs at prices by resources' numbers.
fn cost(prices: &[f64], busy: &[(usize, f64)]) -> f64 {
    busy.iter().map(|(number, busy_ms)| busy_ms * prices.get(*number).copied().unwrap_or(0.0)).sum()
}

/// Prices between two lists, the second of which may not know the last resources yet.
fn blend(one: &[f64], other: &[f64], share: f64) -> Vec<f64> {
    let others = other.iter().copied().chain(std::iter::repeat(0.0));
    one.iter().zip(others).map(|(one, other)| one * (1.0 - share) + other * share).collect()
}
