//! Plans worth knowing beside the best: all here, all on one other node, chains of each length.

use std::collections::HashSet;

use super::best::{NoPlan, best_at_price};
use super::bounds::Bounds;
use super::candidates::choose;
use super::costs::{Costs, Member, Stock};
use super::labels::{Completion, Rule, Search};
use super::price::{PlanShape, Priced, StageShape};
use super::problem::Problem;
use super::ranges::Ranges;
use super::solve::{is_at_bound, solve};
use super::{CANDIDATES_MAX, CHAIN_STAGES_MAX};

/// Nodes listed as hosts of the whole model, the best first.
const REMOTE_WHOLES_MAX: usize = 16;

/// How far from the best a plan may be to be listed as a near-tie, as a factor.
const NEAR_TIE_FACTOR: f64 = 1.03;

/// Labels per state of the sweep over all chains. Few, since it tells lengths apart too; it leads
/// to the best chain of a length in most cases, and the exact sweep looks after the rest.
const CHAIN_LABELS_PER_STATE: usize = 2;

/// How a plan divides the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// All at the origin.
    Local,
    /// All on one other node.
    RemoteWhole,
    /// This many stages on more than one node.
    Chain(usize),
}

/// A plan to choose from.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// How it divides the work.
    pub kind: Kind,
    /// The plan and its cost.
    pub priced: Priced,
}

impl PlanShape {
    /// How it divides the work.
    pub fn kind(&self) -> Kind {
        let node = self.stages.first().map_or(0, |stage| stage.node);
        match self.stages.iter().all(|stage| stage.node == node) {
            true if node == 0 => Kind::Local,
            true => Kind::RemoteWhole,
            false => Kind::Chain(self.stages.len()),
        }
    }
}

/// At least one plan of each kind that is possible, in order of latency, [`best`]'s plan first: all
/// here, all on each of the best other nodes, the best chain of each length up to
/// [`CHAIN_STAGES_MAX`] on as many distinct nodes, and near-ties. What would have to be loaded
/// first is listed too, at its price. At most 64 plans. Chains are the best of their length
/// unless proving it takes more than `expansions_max` looks at labels.
///
/// # Errors
/// Why there is no plan at all.
pub fn alternatives(problem: &Problem, expansions_max: usize) -> Result<Vec<Alternative>, NoPlan> {
    let (best, loss_price_ms) = best_at_price(problem, expansions_max)?;
    let ranges = Ranges::new(problem);
    let stock = Stock::new(problem, &ranges);
    let mut found = vec![best.priced];
    let near_ms = found[0].latency_ms * NEAR_TIE_FACTOR;
    found.extend(wholes(&stock, loss_price_ms, expansions_max));
    found.extend(chains(&stock, near_ms, loss_price_ms, expansions_max));
    let mut known = HashSet::new();
    found.retain(|priced| known.insert(priced.shape.clone()));
    // The sort is stable: among equals, `best`'s plan and then the simpler kinds stay in front.
    found.sort_by(|a, b| a.latency_ms.total_cmp(&b.latency_ms));
    Ok(found.into_iter().map(|priced| Alternative { kind: priced.shape.kind(), priced }).collect())
}

/// All here, and all on each other node: the best few.
fn wholes(stock: &Stock, loss_price_ms: f64, expansions_max: usize) -> Vec<Priced> {
    let problem = stock.problem;
    let whole_on = |node: usize| {
        let origin = Member { node: 0, computes: node == 0 };
        let other = (node != 0).then_some(Member { node, computes: true });
        let members = std::iter::once(origin).chain(other).collect();
        let solve = || solve(stock, members, loss_price_ms, expansions_max).ok();
        let solved = problem.nodes[node].can_compute.then(solve).flatten()?;
        within(problem, solved.priced.shape.stages)
    };
    let mut remote: Vec<Priced> = (1..problem.nodes.len()).filter_map(whole_on).collect();
    remote.sort_by(|a, b| a.latency_ms.total_cmp(&b.latency_ms));
    remote.truncate(REMOTE_WHOLES_MAX);
    whole_on(0).into_iter().chain(remote).collect()
}

/// These stages, coded within the limit of losses.
fn within(problem: &Problem, stages: Vec<StageShape>) -> Option<Priced> {
    problem.price(&problem.coded_within(stages)).ok()
}

/// The best chain of each length on distinct nodes, and others that take at most `near_ms`.
fn chains(stock: &Stock, near_ms: f64, loss_price_ms: f64, expansions_max: usize) -> Vec<Priced> {
    let problem = stock.problem;
    let members = choose(stock, CANDIDATES_MAX);
    let computing = members.iter().filter(|member| member.computes).count();
    let stages_max = computing.min(problem.block_count()).min(CHAIN_STAGES_MAX);
    if stages_max < 2 {
        return vec![];
    }
    let costs = Costs::new(stock, members, loss_price_ms);
    let bounds = Bounds::over_all(&costs);
    let quick = Search {
        costs: &costs,
        bounds: &bounds,
        rule: Rule::DistinctNodes { stages_max },
        stages_counted: 0,
        below_ms: f64::INFINITY,
        labels_per_state: CHAIN_LABELS_PER_STATE,
        work_max: usize::MAX,
    }
    .run();
    let mut found: Vec<Vec<Completion>> = (0..=stages_max).map(|_| vec![]).collect();
    for completion in quick.completions {
        found[completion.stages.len()].push(completion);
    }
    if !quick.is_exact {
        improve(&costs, &mut found, expansions_max);
    }
    let worth = |chains: Vec<Completion>| {
        let ties =
            chains.into_iter().enumerate().filter(|(rank, chain)| *rank == 0 || chain.latency_ms <= near_ms);
        ties.map(|(_, chain)| chain.stages).collect::<Vec<_>>()
    };
    found.into_iter().skip(2).flat_map(worth).filter_map(|stages| within(problem, stages)).collect()
}

/// Puts the best chain of each length first, as far as the work reaches.
fn improve(costs: &Costs, found: &mut [Vec<Completion>], expansions_max: usize) {
    let stages_max = found.len() - 1;
    let bounds = Bounds::over_chains(costs, stages_max);
    let mut work_left = expansions_max;
    for (stages, chains) in found.iter_mut().enumerate().skip(2) {
        let below_ms = chains.first().map_or(f64::INFINITY, |chain| chain.latency_ms);
        let bound_ms = bounds.total_ms(stages);
        if bound_ms.is_infinite() || is_at_bound(chains.first(), bound_ms) {
            continue;
        }
        let search = Search {
            costs,
            bounds: &bounds,
            rule: Rule::DistinctNodes { stages_max: stages },
            stages_counted: stages,
            below_ms,
            labels_per_state: usize::MAX,
            work_max: work_left,
        };
        let better = search.run();
        work_left = work_left.saturating_sub(better.work);
        if let Some(chain) = better.completions.into_iter().find(|chain| chain.stages.len() == stages) {
            chains.insert(0, chain);
        }
    }
}
