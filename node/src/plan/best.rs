//! The plan with the least latency, or why there is none. Other plans worth knowing are listed
//! elsewhere.

use super::candidates::choose;
use super::costs::Stock;
use super::losses::{Within, solve_within};
use super::price::Priced;
use super::problem::{Problem, ProblemError};
use super::ranges::Ranges;
use super::solve::Unsolved;
use super::{CANDIDATES_MAX, CANDIDATES_RETRY_MAX};

/// The plan with the least latency.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The plan and its cost.
    pub priced: Priced,
    /// No plan over the nodes that were considered takes less. The plan is proven best if this
    /// equals its latency.
    pub bound_ms: f64,
    /// Nodes that compute but were not considered, since the mesh is large.
    pub nodes_left_out: usize,
}

/// Why there is no plan, and what binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// The problem itself is wrong.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// All are stale or draining.
    #[error("no node takes stages at the moment")]
    NobodyComputes,
    /// A block fits nowhere.
    #[error("no node can hold block {block}: it needs {need_bytes} bytes, the most free is {free_bytes_max}")]
    BlockMemory { block: usize, need_bytes: u64, free_bytes_max: u64 },
    /// Forced stages cannot run at the origin.
    #[error(
        "block {block} must run where the request entered, and cannot: {need_bytes} bytes needed, {free_bytes} free"
    )]
    Forced { block: usize, need_bytes: u64, free_bytes: u64 },
    /// Each block fits somewhere, but no chain of links and ranges joins them.
    #[error("every block fits on some node, but no links lead from the input through all blocks and back")]
    Unreachable,
    /// Each block fits somewhere, but not all at once.
    #[error(
        "the nodes' memory cannot hold the model: it needs {need_bytes} bytes, {free_bytes} are free in all"
    )]
    TotalMemory { need_bytes: u64, free_bytes: u64 },
    /// Too many steps for a linear programme.
    #[error(
        "{arcs} possible steps are too many for the linear programme, which takes {most}: use another planner"
    )]
    TooLarge { arcs: usize, most: usize },
    /// Too many nodes and blocks for a search over all of them.
    #[error("{steps} steps are too many for an exact search, which takes {most}: use the greedy planner")]
    TooLong { steps: usize, most: usize },
    /// Too many blocks for the nodes that are looked at closely.
    #[error(
        "{steps} runs of blocks on nodes are too many to plan over, which takes {most}: divide the model into fewer blocks, or leave nodes out"
    )]
    TooManyRuns { steps: usize, most: usize },
    /// Whoever asked is gone.
    #[error("nobody waits for a plan any more")]
    Unwanted,
    /// No plan found within the work allowed; there may be one.
    #[error("no plan was found within the work allowed, though there may be one: memory is tight")]
    GaveUp,
}

/// The plan with the least latency from the origin's input to the result at the origin, with codings that
/// lose no more than the problem allows.
///
/// Exact for up to [`CANDIDATES_MAX`] nodes, unless proving it takes more than `expansions_max`
/// looks at labels, which only shared memory can make so many, or losses are allowed and bind; see
/// [`Best::bound_ms`].
///
/// # Errors
/// Why there is no plan.
pub fn best(problem: &Problem, expansions_max: usize) -> Result<Best, NoPlan> {
    best_at_price(problem, expansions_max).map(|(best, _)| best)
}

/// The best plan, and the price of all agreement that led to it.
pub(super) fn best_at_price(problem: &Problem, expansions_max: usize) -> Result<(Best, f64), NoPlan> {
    problem.check()?;
    let ranges = Ranges::new(problem);
    let stock = Stock::new(problem, &ranges);
    let (mut solved, mut considered) = solve_over(&stock, CANDIDATES_MAX, expansions_max);
    let computing = problem.nodes.iter().filter(|node| node.can_compute).count();
    if solved.is_err() && considered < computing {
        (solved, considered) = solve_over(&stock, CANDIDATES_RETRY_MAX, expansions_max);
    }
    let nodes_left_out = computing - considered;
    match solved {
        Ok(Within { priced, bound_ms, loss_price_ms }) => {
            Ok((Best { priced, bound_ms, nodes_left_out }, loss_price_ms))
        }
        Err(reason) => Err(why_none(problem, &ranges, reason)),
    }
}

fn solve_over(stock: &Stock, count_max: usize, expansions_max: usize) -> (Result<Within, Unsolved>, usize) {
    let members = choose(stock, count_max);
    let considered = members.iter().filter(|member| member.computes).count();
    (solve_within(stock, &members, expansions_max), considered)
}

/// What binds, looked for from the simplest on.
pub(super) fn why_none(problem: &Problem, ranges: &Ranges, reason: Unsolved) -> NoPlan {
    if !problem.nodes.iter().any(|node| node.can_compute) {
        return NoPlan::NobodyComputes;
    }
    let blocks = problem.block_count();
    let all = 0..problem.nodes.len();
    if let Some(block) =
        (0..blocks).find(|block| !all.clone().any(|node| holds(problem, ranges, node, *block)))
    {
        let free = problem.nodes.iter().filter(|node| node.can_compute).map(|node| node.memory_free_bytes);
        let need_bytes = ranges.memory_bytes(block, block + 1);
        return NoPlan::BlockMemory { block, need_bytes, free_bytes_max: free.max().unwrap_or(0) };
    }
    for (is_forced, block) in [(problem.force_first, 0), (problem.force_last, blocks - 1)] {
        if is_forced && !holds(problem, ranges, 0, block) {
            let need_bytes = ranges.memory_bytes(block, block + 1);
            return NoPlan::Forced { block, need_bytes, free_bytes: problem.nodes[0].memory_free_bytes };
        }
    }
    match reason {
        Unsolved::GaveUp => NoPlan::GaveUp,
        Unsolved::NoWay if !has_way_with_ample_memory(problem, ranges) => NoPlan::Unreachable,
        Unsolved::NoWay | Unsolved::SharedMemory => {
            let free =
                problem.nodes.iter().filter(|node| node.can_compute).map(|node| node.memory_free_bytes);
            let free_bytes = free.fold(0, u64::saturating_add);
            NoPlan::TotalMemory { need_bytes: ranges.weights_bytes(0, blocks), free_bytes }
        }
    }
}

fn has_way_with_ample_memory(problem: &Problem, ranges: &Ranges) -> bool {
    let mut ample = problem.clone();
    ample.nodes.iter_mut().for_each(|node| node.memory_free_bytes = u64::MAX);
    solve_over(&Stock::new(&ample, ranges), CANDIDATES_RETRY_MAX, 0).0.is_ok()
}

/// Whether a node could run a range with this block in it.
fn holds(problem: &Problem, ranges: &Ranges, index: usize, block: usize) -> bool {
    let node = &problem.nodes[index];
    let is_loaded = || {
        node.known
            .iter()
            .any(|range| range.has_memory && (range.first.into()..range.end.into()).contains(&block))
    };
    node.can_compute && (ranges.memory_bytes(block, block + 1) <= node.memory_free_bytes || is_loaded())
}
