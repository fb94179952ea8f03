//! The planner against trying every plan, on thousands of small problems.

use std::collections::HashSet;

use crate::plan::bounds::Bounds;
use crate::plan::candidates::choose;
use crate::plan::costs::{Costs, Stock};
use crate::plan::ranges::Ranges;
use crate::plan::tests::{every_plan, is_close, is_of_kind, least_ms, random_problem};
use crate::plan::{CANDIDATES_MAX, EXPANSIONS_DEFAULT, Kind, NoPlan, Problem, alternatives, best};

const SEEDS: std::ops::Range<u64> = 0..4_000;

/// Whether the plain dynamic programme's plan asks too much of a node's memory.
fn is_coupled(problem: &Problem) -> bool {
    let ranges = Ranges::new(problem);
    let stock = Stock::new(problem, &ranges);
    let members = choose(&stock, CANDIDATES_MAX);
    let costs = Costs::new(&stock, members, f64::INFINITY);
    let stages = Bounds::over_all(&costs).follow(&costs);
    stages.is_some_and(|stages| problem.price(&problem.lossless(stages)).is_err())
}

#[test]
fn the_best_plan_is_the_best_of_all_plans() {
    let (mut planned, mut coupled) = (0, 0);
    for seed in SEEDS {
        let problem = random_problem(seed);
        coupled += u32::from(is_coupled(&problem));
        match (best(&problem, EXPANSIONS_DEFAULT), least_ms(&every_plan(&problem))) {
            (Ok(best), Some(least_ms)) => {
                planned += 1;
                assert!(is_close(best.priced.latency_ms, least_ms), "seed {seed}: {best:?}, not {least_ms}");
                assert!(is_close(best.bound_ms, least_ms), "seed {seed}: {best:?}");
                assert_eq!(problem.price(&best.priced.shape).as_ref(), Ok(&best.priced), "seed {seed}");
                assert_eq!(best.nodes_left_out, 0);
            }
            (Err(reason), None) => {
                assert!(!matches!(reason, NoPlan::Problem(_) | NoPlan::GaveUp), "seed {seed}: {reason}");
            }
            (found, least_ms) => panic!("seed {seed}: {found:?}, not {least_ms:?}"),
        }
    }
    assert!(planned > 2_000, "only {planned} problems had a plan");
    assert!(coupled > 50, "only {coupled} problems went beyond the plain dynamic programme");
}

#[test]
fn every_possible_kind_is_listed_with_its_best_plan() {
    for seed in SEEDS {
        let problem = random_problem(seed);
        let every = every_plan(&problem);
        let found = alternatives(&problem, EXPANSIONS_DEFAULT).unwrap_or_default();
        assert!(found.len() <= 64, "seed {seed}");
        assert_eq!(found.is_empty(), every.is_empty(), "seed {seed}");
        let kinds = [Kind::Local, Kind::RemoteWhole].into_iter().chain((2..=5).map(Kind::Chain));
        for kind in kinds {
            let expected = least_ms(every.iter().filter(|priced| is_of_kind(priced, kind)));
            let listed =
                least_ms(found.iter().map(|plan| &plan.priced).filter(|priced| is_of_kind(priced, kind)));
            let is_equal = match (listed, expected) {
                (Some(listed), Some(expected)) => is_close(listed, expected),
                (listed, expected) => listed == expected,
            };
            assert!(is_equal, "seed {seed}, {kind:?}: {listed:?}, not {expected:?}");
        }
        let mut shapes = HashSet::new();
        for plan in &found {
            assert_eq!(problem.price(&plan.priced.shape).as_ref(), Ok(&plan.priced), "seed {seed}");
            assert_eq!(plan.kind, plan.priced.shape.kind());
            assert!(shapes.insert(plan.priced.shape.clone()), "seed {seed}: a plan is listed twice");
        }
        if let Some(first) = found.first() {
            let least_ms = least_ms(&every).unwrap();
            assert!(is_close(first.priced.latency_ms, least_ms), "seed {seed}");
        }
    }
}
