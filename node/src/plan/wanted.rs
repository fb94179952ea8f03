//! Whether anybody still waits for what is looked for. Searches ask now and then, and end where nobody does; by what it is
//! told is not known here.

/// Asked by a search whether to go on.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a>(Option<&'a dyn Fn() -> bool>);

impl<'a> Wanted<'a> {
    /// As long as this says so.
    pub fn as_long_as(is_wanted: &'a dyn Fn() -> bool) -> Self {
        Self(Some(is_wanted))
    }

    /// Whether to go on.
    pub fn is_wanted(self) -> bool {
        self.0.is_none_or(|is_wanted| is_wanted())
    }
}

/// A planner that ends without a plan once nobody waits for one.
#[derive(Clone, Copy)]
pub struct While<'a, P> {
    /// How to look.
    pub planner: P,
    /// How long.
    pub wanted: Wanted<'a>,
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::plan::tests::tight_problem;
    use crate::plan::{Goal, Ilp, Method, Missed, NoPlan, Objective, Planner, Search};

    const SEARCH: Search = Search { method: Method::Exact, expansions_max: usize::MAX };

    /// How often a search asked, which was told that it is no longer wanted from the so many-th time on.
    fn asked(most: u64, goal: &Goal) -> (u64, bool) {
        let asked = Cell::new(0);
        let is_wanted = || {
            asked.set(asked.get() + 1);
            asked.get() < most
        };
        let planner = While { planner: SEARCH, wanted: Wanted::as_long_as(&is_wanted) };
        let found = planner.best_for(&tight_problem(), goal);
        (asked.get(), found.is_ok_and(|found| goal.value(&found.priced) <= found.bound * (1.0 + 1e-9)))
    }

    #[test]
    fn a_search_ends_soon_after_nobody_waits_for_it() {
        for objective in [Objective::Latency, Objective::Throughput] {
            let goal = Goal { objective, ..Goal::default() };
            let (all, is_proven) = asked(u64::MAX, &goal);
            assert!(is_proven && all > 2000, "{objective:?}: asked {all} times, proven: {is_proven}");
            let (some, is_proven) = asked(1000, &goal);
            // What the sweeps under way ask before they have left their loops.
            assert!(!is_proven && some < 1500, "{objective:?}: asked {some} times, not {all}");
        }
    }

    #[test]
    fn nothing_is_looked_for_where_nobody_waits() {
        let nobody = || false;
        let wanted = Wanted::as_long_as(&nobody);
        let problem = tight_problem();
        let found = [
            While { planner: SEARCH, wanted }.best_for(&problem, &Goal::default()),
            While { planner: Ilp, wanted }.best_for(&problem, &Goal::default()),
        ];
        assert!(found.into_iter().all(|found| found == Err(Missed::NoPlan(NoPlan::Unwanted))));
    }
}
