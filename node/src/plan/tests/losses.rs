//! Codings that lose agreement, under a limit: against every plan, on small problems.

use stormo_protocol::codec::payload::Codec;

use crate::plan::tests::{Numbers, every_plan, is_close, random_problem};
use crate::plan::{Coding, EXPANSIONS_DEFAULT, Priced, Problem, alternatives, best};

const SEEDS: std::ops::Range<u64> = 30_000..34_000;

/// A small problem with lossy codings on half of its cuts; `None` if it is too large to try every plan.
fn lossy_problem(seed: u64) -> Option<Problem> {
    let mut numbers = Numbers(seed);
    let mut problem = random_problem(seed);
    if problem.block_count() > 4 || problem.nodes.len() > 3 {
        return None;
    }
    // Work elsewhere over slow links, so that coding matters.
    problem.nodes[0].block_ms.iter_mut().for_each(|time_ms| *time_ms += 200.0);
    problem.nodes[0].known.clear();
    problem.cut_bytes.iter_mut().for_each(|bytes| *bytes += 20);
    for (codings, bytes) in problem.codings.iter_mut().zip(&problem.cut_bytes) {
        let loss = (1 + numbers.below(9)) as f64 / 100.0;
        let coding = Coding { codec: Codec::Int8, bytes: bytes / 8, encode_ms: 1.0, decode_ms: 1.0, loss };
        codings.extend(numbers.one_in(2).then_some(coding));
    }
    problem.force_first = false;
    problem.force_last = false;
    problem.loss_max = numbers.below(16) as f64 / 100.0;
    Some(problem)
}

fn is_within(problem: &Problem, priced: &Priced) -> bool {
    priced.loss <= problem.loss_max + 1e-9
}

#[test]
fn plans_keep_the_limit_and_are_nearly_always_the_best_that_do() {
    let (mut planned, mut binding, mut optimal, mut gaps) = (0, 0, 0, 0.0);
    for problem in SEEDS.filter_map(lossy_problem) {
        let every = every_plan(&problem);
        let within = every.iter().filter(|priced| is_within(&problem, priced));
        let least_ms = within.map(|priced| priced.latency_ms).min_by(f64::total_cmp);
        let Some(least_ms) = least_ms else {
            assert!(best(&problem, EXPANSIONS_DEFAULT).is_err());
            continue;
        };
        let found = best(&problem, EXPANSIONS_DEFAULT).unwrap();
        let latency_ms = found.priced.latency_ms;
        assert!(is_within(&problem, &found.priced), "{found:?}");
        assert_eq!(problem.price(&found.priced.shape).as_ref(), Ok(&found.priced));
        assert!(latency_ms >= least_ms || is_close(latency_ms, least_ms), "{found:?}, not {least_ms}");
        assert!(
            found.bound_ms <= least_ms || is_close(found.bound_ms, least_ms),
            "{found:?}, not {least_ms}"
        );
        planned += 1;
        binding += u32::from(every.iter().any(|priced| priced.latency_ms < least_ms - 1e-9));
        optimal += u32::from(is_close(latency_ms, least_ms));
        gaps += latency_ms / least_ms.max(1e-9) - 1.0;
    }
    assert!(binding > 200, "the limit bound only {binding} of {planned} problems");
    assert!(f64::from(optimal) >= 0.98 * f64::from(planned), "{optimal} of {planned} plans were the best");
    assert!(gaps / f64::from(planned) < 0.002, "mean gap {}", gaps / f64::from(planned));
}

#[test]
fn all_that_is_listed_keeps_the_limit_the_best_first() {
    for problem in SEEDS.step_by(5).filter_map(lossy_problem) {
        let listed = alternatives(&problem, EXPANSIONS_DEFAULT).unwrap_or_default();
        for plan in &listed {
            assert!(is_within(&problem, &plan.priced), "{plan:?}");
            assert_eq!(problem.price(&plan.priced.shape).as_ref(), Ok(&plan.priced));
        }
        if let (Some(first), Ok(best)) = (listed.first(), best(&problem, EXPANSIONS_DEFAULT)) {
            assert!(first.priced.latency_ms <= best.priced.latency_ms, "{first:?}, not {best:?}");
        }
    }
}

#[test]
fn without_a_limit_to_spend_nothing_is_lost() {
    for mut problem in SEEDS.step_by(5).filter_map(lossy_problem) {
        problem.force_first = false;
        problem.force_last = false;
        problem.loss_max = 0.0;
        let found = best(&problem, EXPANSIONS_DEFAULT).map(|best| best.priced);
        problem.codings.iter_mut().for_each(|codings| codings.retain(|coding| coding.loss == 0.0));
        assert_eq!(found, best(&problem, EXPANSIONS_DEFAULT).map(|best| best.priced));
    }
}
