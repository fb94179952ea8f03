//! The least latency over given nodes, losses at a given price: the dynamic programme first, label setting where its plan
//! asks more of a node's memory than there is. Which nodes to plan over is chosen elsewhere.

use super::bounds::Bounds;
use super::costs::{Costs, Member, Stock};
use super::labels::{Completion, Rule, Search};
use super::price::Priced;

/// Labels per state of the sweeps, in turn: each is pruned by the plan that the one before found.
/// One label finds some plan, a few find nearly the best, no limit proves it.
const LABELS_FIRST: usize = 1;
const LABELS_PER_STATE: [usize; 3] = [4, 16, usize::MAX];

/// How far above the bound the first sweep looks for a plan, in turn. Without any such limit it looks at a hundred times as
/// many labels as where one is near.
const WINDOWS: [f64; 4] = [1.02, 1.1, 1.5, f64::INFINITY];

/// The best plan found, and how good any could be.
pub(super) struct Solved {
    pub(super) priced: Priced,
    /// No plan over these nodes takes less, losses at their price.
    pub(super) bound_ms: f64,
}

/// Why no plan was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsolved {
    /// There is none, even with memory looked at run by run.
    NoWay,
    /// There is none that the nodes' memory can hold as a whole.
    SharedMemory,
    /// The work ran out first.
    GaveUp,
}

/// Whether a plan is as good as any can be, but for rounding.
pub(super) fn is_at_bound(plan: Option<&Completion>, bound_ms: f64) -> bool {
    plan.is_some_and(|plan| plan.latency_ms <= bound_ms * (1.0 + 1e-9))
}

/// The least latency over the members, the first of which is the origin, where all agreement has a price;
/// at an infinite one, codings are lossless.
pub(super) fn solve(
    stock: &Stock,
    members: Vec<Member>,
    loss_price_ms: f64,
    expansions_max: usize,
) -> Result<Solved, Unsolved> {
    let costs = Costs::new(stock, members, loss_price_ms);
    let bounds = Bounds::over_all(&costs);
    let bound_ms = bounds.total_ms(0);
    let price = |stages| stock.problem.price(&stock.problem.coded(stages, loss_price_ms));
    let stages = bounds.follow(&costs).ok_or(Unsolved::NoWay)?;
    if let Ok(priced) = price(stages) {
        return Ok(Solved { priced, bound_ms });
    }
    let sweep = |labels_per_state, below_ms, work_max| {
        let rule = Rule::SharedMemory;
        let (costs, bounds) = (&costs, &bounds);
        Search { costs, bounds, rule, stages_counted: 0, below_ms, labels_per_state, work_max }.run()
    };
    let (mut best, mut is_proven): (Option<Completion>, bool) = (None, false);
    // Short sweeps, and always done, so that there is a plan to return.
    for window in WINDOWS {
        let found = sweep(LABELS_FIRST, bound_ms * window, usize::MAX);
        best = found.completions.into_iter().next();
        is_proven = found.is_exact && (best.is_some() || window.is_infinite());
        if best.is_some() {
            break;
        }
    }
    let mut work_left = expansions_max;
    for labels_per_state in LABELS_PER_STATE {
        is_proven |= is_at_bound(best.as_ref(), bound_ms);
        if is_proven || work_left == 0 {
            break;
        }
        let below_ms = best.as_ref().map_or(f64::INFINITY, |best| best.latency_ms);
        let found = sweep(labels_per_state, below_ms, work_left);
        best = found.completions.into_iter().next().or(best);
        is_proven = found.is_exact;
        work_left = work_left.saturating_sub(found.work);
    }
    is_proven |= is_at_bound(best.as_ref(), bound_ms);
    let none = if is_proven { Unsolved::SharedMemory } else { Unsolved::GaveUp };
    let best = best.ok_or(none)?;
    let bound_ms = if is_proven { best.latency_ms } else { bound_ms };
    Ok(Solved { priced: price(best.stages).map_err(|_| Unsolved::GaveUp)?, bound_ms })
}
