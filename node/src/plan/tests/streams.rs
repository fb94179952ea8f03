//! Streams: what the relaxation says of periods against the price of every plan, and what is packed.

use crate::plan::costs::Member;
use crate::plan::ranges::Ranges;
use crate::plan::streams::{choose, search};
use crate::plan::tests::{every_plan, is_close, random_problem};
use crate::plan::{Priced, Problem};

const SEEDS: std::ops::Range<u64> = 30_000..32_000;

fn least_period_ms(problem: &Problem) -> Option<f64> {
    let lossless = |plan: &Priced| plan.loss <= problem.loss_max + 1e-9;
    let periods = every_plan(problem).into_iter().filter(lossless).map(|plan| plan.period_ms);
    periods.min_by(f64::total_cmp)
}

#[test]
fn no_stream_has_a_shorter_period_than_the_relaxation_says() {
    let (mut cases, mut met, mut tight) = (0, 0, 0);
    for seed in SEEDS {
        let problem = random_problem(seed);
        let Some(least_ms) = least_period_ms(&problem) else { continue };
        cases += 1;
        let ranges = Ranges::new(&problem);
        let member = |node: usize| Member { node, computes: problem.nodes[node].can_compute };
        let members: Vec<Member> = (0..problem.nodes.len()).map(member).collect();
        let mut packed_ms = f64::INFINITY;
        let bound_ms = search(&problem, &ranges, &members, 0.0, |shape| {
            let priced = problem.price(&shape).ok()?;
            packed_ms = packed_ms.min(priced.period_ms);
            Some(priced.period_ms)
        });
        assert!(bound_ms <= least_ms * (1.0 + 1e-9), "seed {seed}: {bound_ms} is above {least_ms}");
        assert!(packed_ms >= least_ms * (1.0 - 1e-9), "seed {seed}: {packed_ms} is below {least_ms}");
        met += u32::from(packed_ms <= least_ms * 1.003);
        tight += u32::from(is_close(bound_ms, least_ms) || bound_ms * 1.01 >= least_ms);
    }
    assert!(cases > 1_000, "only {cases} problems had a plan");
    assert!(met * 100 > cases * 80, "{met} of {cases} packed");
    assert!(tight * 100 > cases * 50, "{tight} of {cases} bounds were tight");
}

#[test]
fn seats_come_with_a_bound_of_all_nodes() {
    for seed in SEEDS {
        let problem = random_problem(seed);
        let Some(least_ms) = least_period_ms(&problem) else { continue };
        let ranges = Ranges::new(&problem);
        for count_max in 1..=problem.nodes.len() {
            let seats = choose(&problem, &ranges, count_max);
            assert!(
                seats.bound_ms <= least_ms * (1.0 + 1e-9),
                "seed {seed}: {} of {least_ms}",
                seats.bound_ms
            );
            assert_eq!(seats.members[0].node, 0, "seed {seed}");
            assert!(seats.members.len() <= count_max.max(1), "seed {seed}");
        }
    }
}
