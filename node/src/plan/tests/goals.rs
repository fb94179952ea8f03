//! Plans for every goal against the price of every plan.

use crate::plan::tests::{Numbers, every_plan, is_close, random_problem};
use crate::plan::{
    Binding, Coding, EXPANSIONS_DEFAULT, Goal, Ilp, Method, Missed, Objective, Planner, Priced, Problem,
    Search,
};
use stormo_protocol::codec::payload::Codec;

const OBJECTIVES: [Objective; 4] =
    [Objective::Latency, Objective::Throughput, Objective::Energy, Objective::Loss];
const CASES: u64 = 4_000;
const CASES_OF_THE_ILP: u64 = 300;

fn search(method: Method, expansions_max: usize) -> Search {
    Search { method, expansions_max }
}

/// A small problem in which some codings lose accuracy, and a goal with limits that bind now and then.
pub(super) fn random_case(seed: u64) -> (Problem, Goal) {
    let mut problem = random_problem(seed);
    let mut numbers = Numbers(seed ^ 0x5eed);
    if problem.nodes.len() < 4 && problem.block_count() < 5 && numbers.one_in(3) {
        problem.loss_max = numbers.below(4) as f64 / 100.0;
        for (codings, raw_bytes) in problem.codings.iter_mut().zip(&problem.cut_bytes) {
            let (encode_ms, decode_ms) = (numbers.below(4) as f64 / 4.0, numbers.below(4) as f64 / 4.0);
            let (bytes, loss) = (raw_bytes / 4, (1 + numbers.below(2)) as f64 / 100.0);
            codings.push(Coding { codec: Codec::Int8, bytes, encode_ms, decode_ms, loss });
        }
    }
    let mut limit = |most: u64| numbers.one_in(2).then(|| 1.0 + numbers.below(most) as f64);
    let (latency_ms_max, energy_mj_max) = (limit(120), limit(300));
    let goal = Goal { objective: OBJECTIVES[(seed % 4) as usize], latency_ms_max, energy_mj_max };
    (problem, goal)
}

fn meets(goal: &Goal, problem: &Problem, plan: &Priced) -> bool {
    let is_within = |value: f64, limit: Option<f64>| limit.is_none_or(|limit| value <= limit * (1.0 + 1e-9));
    is_within(plan.latency_ms, goal.latency_ms_max)
        && is_within(plan.energy_mj, goal.energy_mj_max)
        && plan.loss <= problem.loss_max + 1e-9
}

fn least(goal: &Goal, problem: &Problem, every: &[Priced]) -> Option<f64> {
    let within = every.iter().filter(|plan| meets(goal, problem, plan));
    within.map(|plan| goal.value(plan)).min_by(f64::total_cmp)
}

#[test]
fn exact_plans_are_the_best_of_all() {
    let (mut met, mut missed) = (0, 0);
    for seed in 0..CASES {
        let (problem, goal) = random_case(seed);
        let every = every_plan(&problem);
        let least = least(&goal, &problem, &every);
        match (search(Method::Exact, usize::MAX).best_for(&problem, &goal), least) {
            (Ok(found), Some(least)) => {
                met += 1;
                assert!(meets(&goal, &problem, &found.priced), "seed {seed}: {goal:?} {found:?}");
                let value = goal.value(&found.priced);
                assert!(
                    is_close(value, least),
                    "seed {seed}: {value} instead of {least}, {goal:?} {found:?}"
                );
                assert!(is_close(found.bound, least), "seed {seed}: bound {} of {least}", found.bound);
                assert_eq!(problem.price(&found.priced.shape).as_ref(), Ok(&found.priced), "seed {seed}");
            }
            (Err(Missed::NoPlan(_)), None) => assert!(
                !every.iter().any(|plan| plan.loss <= problem.loss_max + 1e-9),
                "seed {seed}: there are plans"
            ),
            (Err(Missed::Limits { binding, .. }), None) => {
                missed += 1;
                let of = |goal: Goal| super::goals::least(&goal, &problem, &every).is_some();
                let latency = of(Goal { energy_mj_max: None, ..goal });
                let energy = of(Goal { latency_ms_max: None, ..goal });
                let expected = match (latency, energy) {
                    (false, true) => Binding::Latency,
                    (true, false) => Binding::Energy,
                    _ => Binding::LatencyWithEnergy,
                };
                assert_eq!(binding, expected, "seed {seed}");
            }
            (found, least) => panic!("seed {seed}: {found:?} where {least:?} is the least, {goal:?}"),
        }
    }
    assert!(met > CASES / 4 && missed > CASES / 10, "{met} met, {missed} missed");
}

#[test]
fn greedy_plans_keep_the_limits_and_are_mostly_the_best() {
    let (mut cases, mut best) = (0, 0);
    for seed in 0..CASES {
        let (problem, goal) = random_case(seed);
        let every = every_plan(&problem);
        let Some(least) = least(&goal, &problem, &every) else {
            let found = search(Method::Greedy, EXPANSIONS_DEFAULT).best_for(&problem, &goal);
            assert!(found.is_err(), "seed {seed}: {found:?}");
            continue;
        };
        cases += 1;
        if let Ok(found) = search(Method::Greedy, EXPANSIONS_DEFAULT).best_for(&problem, &goal) {
            let value = goal.value(&found.priced);
            assert!(meets(&goal, &problem, &found.priced), "seed {seed}");
            assert!(found.bound <= least * (1.0 + 1e-9), "seed {seed}: bound {} of {least}", found.bound);
            best += u32::from(is_close(value, least));
        }
    }
    assert!(f64::from(best) >= 0.97 * f64::from(cases), "{best} of {cases}");
}

/// A limit between the least that any plan has and what the best plan without a limit has, so that it forbids that one.
fn binding_limit(problem: &Problem, goal: &mut Goal, every: &[Priced], share: f64) -> Option<()> {
    let allowed = || every.iter().filter(|plan| plan.loss <= problem.loss_max + 1e-9);
    let by_energy = goal.objective != Objective::Energy;
    let limited = |plan: &Priced| if by_energy { plan.energy_mj } else { plan.latency_ms };
    let best = allowed().min_by(|one, other| goal.value(one).total_cmp(&goal.value(other)))?;
    let least = allowed().map(limited).min_by(f64::total_cmp)?;
    let limit = least + (limited(best) - least) * share;
    if limit < limited(best) * 0.999 {
        let place = if by_energy { &mut goal.energy_mj_max } else { &mut goal.latency_ms_max };
        *place = Some(limit);
        return Some(());
    }
    None
}

#[test]
fn bounds_hold_where_limits_bind() {
    let (mut cases, mut best) = (0, 0);
    for seed in 200_000..200_000 + CASES / 2 {
        let (problem, goal) = random_case(seed);
        let mut goal = Goal { latency_ms_max: None, energy_mj_max: None, ..goal };
        let every = every_plan(&problem);
        let share = (seed % 10) as f64 / 10.0;
        if binding_limit(&problem, &mut goal, &every, share).is_none() {
            continue;
        }
        cases += 1;
        let least = least(&goal, &problem, &every).unwrap();
        let exact = search(Method::Exact, usize::MAX).best_for(&problem, &goal).unwrap();
        assert!(is_close(goal.value(&exact.priced), least), "seed {seed}: {exact:?}, not {least}");
        if let Ok(found) = search(Method::Greedy, EXPANSIONS_DEFAULT).best_for(&problem, &goal) {
            assert!(meets(&goal, &problem, &found.priced), "seed {seed}");
            assert!(found.bound <= least * (1.0 + 1e-9), "seed {seed}: bound {} of {least}", found.bound);
            best += u64::from(is_close(goal.value(&found.priced), least));
        }
    }
    assert!(cases > CASES / 20 && best * 10 > cases * 9, "{best} of {cases}");
}

#[test]
fn an_integer_programme_finds_the_same() {
    let (mut met, mut missed) = (0, 0);
    for seed in 100_000..100_000 + CASES_OF_THE_ILP {
        let (problem, goal) = random_case(seed);
        match (search(Method::Exact, usize::MAX).best_for(&problem, &goal), Ilp.best_for(&problem, &goal)) {
            (Ok(exact), Ok(ilp)) => {
                met += 1;
                let (exact, ilp) = (goal.value(&exact.priced), goal.value(&ilp.priced));
                assert!((exact - ilp).abs() <= 1e-6 * exact.max(1.0), "seed {seed}: {exact} {ilp}, {goal:?}");
            }
            (Err(Missed::Limits { binding: one, .. }), Err(Missed::Limits { binding: other, .. })) => {
                missed += 1;
                assert_eq!(one, other, "seed {seed}");
            }
            (Err(Missed::NoPlan(one)), Err(Missed::NoPlan(other))) => assert_eq!(one, other, "seed {seed}"),
            (exact, ilp) => panic!("seed {seed}: {exact:?} {ilp:?}, {goal:?}"),
        }
    }
    assert!(met > CASES_OF_THE_ILP / 4 && missed > CASES_OF_THE_ILP / 20, "{met} met, {missed} missed");
}
