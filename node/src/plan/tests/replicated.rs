//! Streams over several routes: by hand, and against a linear programme over every plan there is, for every choice of
//! what nodes hold.

use std::collections::HashMap;

use good_lp::{Expression, ProblemVariables, Solution, SolverModel, constraint, microlp, variable};
use stormo_protocol::codec::payload::Codec;

use crate::plan::effort::Resource;
use crate::plan::tests::{every_plan, hand_cases, is_close, link, node, random_problem, shape};
use crate::plan::{
    EXPANSIONS_DEFAULT, Goal, Infeasible, Links, Method, Objective, Planner, Priced, Problem,
    ReplicatedShape, Search, StageShape, best_replicated,
};

const SEEDS: std::ops::Range<u64> = 60_000..61_500;
/// Choices of what nodes hold; beyond that, a case is left out.
const CHOICES_MAX: usize = 300;
const PLANS_MAX: usize = 3_000;
const RELAXATIONS: usize = 5_000;

#[test]
fn two_nodes_that_run_it_all_add_their_rates() {
    let mut links = Links::new(2);
    links.set(0, 1, link(1.0, 0.0));
    links.set(1, 0, link(1.0, 0.0));
    let problem = Problem {
        cut_bytes: vec![10, 10],
        codings: vec![vec![]; 2],
        block_weights_bytes: vec![1],
        block_peak_bytes: vec![0],
        nodes: vec![node(&[30.0]), node(&[20.0])],
        links,
        ..hand_cases::problem()
    };
    let found = best_replicated(&problem, vec![], Method::Exact, RELAXATIONS).unwrap();
    // 1 / (1 / 30 + 1 / 20), at weights of 2 to 3; 30 ms here, and 1 + 20 + 1 there.
    assert!(is_close(found.priced.period_ms, 12.0) && is_close(found.bound_ms, 12.0), "{found:?}");
    let weights: Vec<f64> = found.priced.replicas.iter().map(|replica| replica.weight).collect();
    assert!(is_close(weights[0], 0.6) && is_close(weights[1], 0.4), "{found:?}");
    assert!(is_close(found.priced.latency_ms, 0.4 * 30.0 + 0.6 * 22.0), "{found:?}");
    assert!(is_close(found.priced.latency_ms_max, 30.0), "{found:?}");
}

#[test]
fn shares_must_be_shares() {
    let (problem, here) = (hand_cases::problem(), shape(&[(0, 0, 3)]));
    for shares in [vec![], vec![0.5], vec![1.5, -0.5], vec![1.0, 0.0], vec![f64::NAN]] {
        let routes = shares.into_iter().map(|share| (here.clone(), share)).collect();
        assert_eq!(problem.price_replicated(&ReplicatedShape { routes }), Err(Infeasible::Shares));
    }
    let mut tight = problem;
    tight.nodes[1].memory_free_bytes = 100;
    let routes = vec![(shape(&[(0, 0, 1), (1, 1, 3)]), 0.5), (shape(&[(0, 0, 2), (1, 2, 3)]), 0.5)];
    // Each fits by itself: 80 and 40.
    let priced = tight.price_replicated(&ReplicatedShape { routes });
    assert_eq!(priced, Err(Infeasible::Memory { node: 1, need_bytes: 120, free_bytes: 100 }));
}

type Hosts = Vec<StageShape>;

/// The largest sets of ranges that fit on a node together, of those that some plan runs there.
fn choices(problem: &Problem, plans: &[Priced], node: usize) -> Option<Vec<Hosts>> {
    let mut ranges: Hosts = plans.iter().flat_map(|plan| plan.shape.stages.iter().copied()).collect();
    ranges.retain(|stage| stage.node == node);
    ranges.sort_unstable_by_key(|stage| (stage.first, stage.end));
    ranges.dedup();
    if problem.check_memory(&ranges).is_ok() {
        return Some(vec![ranges]);
    }
    if ranges.len() > 12 {
        return None;
    }
    let subset = |bits: u32| -> Hosts {
        (0..ranges.len()).filter(|index| bits >> index & 1 == 1).map(|index| ranges[index]).collect()
    };
    let fits = |bits: u32| problem.check_memory(&subset(bits)).is_ok();
    let all = 0..1u32 << ranges.len();
    let is_largest = |bits: &u32| {
        fits(*bits) && (0..ranges.len()).all(|index| bits >> index & 1 == 1 || !fits(bits | 1 << index))
    };
    Some(all.filter(is_largest).map(subset).collect())
}

/// By a solver that knows nothing of plans: no resource is busy for longer than a period.
fn least_period_ms(problem: &Problem, plans: &[&Priced]) -> f64 {
    let mut variables = ProblemVariables::new();
    let period = variables.add(variable().min(0.0));
    let shares: Vec<_> = plans.iter().map(|_| variables.add(variable().min(0.0))).collect();
    let mut busy: HashMap<Resource, Expression> = HashMap::new();
    for (plan, share) in plans.iter().zip(&shares) {
        for (resource, busy_ms) in problem.busy(&plan.shape, &plan.stages, &plan.edges) {
            *busy.entry(resource).or_default() += busy_ms * *share;
        }
    }
    let all: Expression = shares.iter().copied().map(Expression::from).sum();
    let mut model = variables.minimise(period).using(microlp).with(constraint!(all == 1.0));
    for busy in busy.into_values() {
        model = model.with(constraint!(busy <= period));
    }
    model.solve().unwrap().value(period)
}

/// Over every choice of what nodes hold; none if there are too many.
fn least_of_all(problem: &Problem) -> Option<f64> {
    let mut plans = every_plan(problem);
    plans.retain(|plan| plan.loss <= problem.loss_max);
    if plans.is_empty() || plans.len() > PLANS_MAX {
        return None;
    }
    let mut all: Vec<Hosts> = vec![vec![]];
    for node in 0..problem.nodes.len() {
        let of_node = choices(problem, &plans, node)?;
        if all.len() * of_node.len() > CHOICES_MAX {
            return None;
        }
        let with = |hosts: &Hosts| of_node.iter().map(|more| [&hosts[..], more].concat()).collect::<Vec<_>>();
        all = all.iter().flat_map(with).collect();
    }
    let of_choice = |hosts: &Hosts| {
        let may = |plan: &&Priced| plan.shape.stages.iter().all(|stage| hosts.contains(stage));
        let plans: Vec<&Priced> = plans.iter().filter(may).collect();
        (!plans.is_empty()).then(|| least_period_ms(problem, &plans))
    };
    all.iter().filter_map(of_choice).min_by(f64::total_cmp)
}

#[test]
fn streams_are_the_best_of_all() {
    let (mut cases, mut divided, mut coupled, mut met) = (0, 0, 0, 0);
    for seed in SEEDS {
        let problem = random_problem(seed);
        let Some(least_ms) = least_of_all(&problem) else { continue };
        cases += 1;
        let is_same =
            |one: f64, other: f64| (one - other).abs() <= 1e-6 * one.abs().max(other.abs()).max(1e-3);
        let exact = best_replicated(&problem, vec![], Method::Exact, RELAXATIONS);
        let exact = exact.unwrap_or_else(|| panic!("seed {seed}: none, where {least_ms} is the least"));
        assert!(is_same(exact.priced.period_ms, least_ms), "seed {seed}: not {least_ms}: {exact:?}");
        assert!(is_same(exact.bound_ms, least_ms), "seed {seed}: not {least_ms}: {exact:?}");
        assert_eq!(problem.price_replicated(&exact.priced.shape).as_ref(), Ok(&exact.priced), "seed {seed}");
        divided += u32::from(exact.priced.routes.len() > 1);
        let goal = Goal { objective: Objective::Throughput, ..Goal::default() };
        let single = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
        let single = single.best_for(&problem, &goal).unwrap().priced;
        assert!(least_ms <= single.period_ms * (1.0 + 1e-6) + 1e-9, "seed {seed}");
        let greedy = best_replicated(&problem, vec![single.shape], Method::Greedy, 0).unwrap();
        assert!(greedy.bound_ms <= least_ms * (1.0 + 1e-6) + 1e-9, "seed {seed}: {greedy:?}");
        met += u32::from(greedy.priced.period_ms <= least_ms * 1.003 + 1e-9);
        coupled += u32::from(greedy.bound_ms < least_ms * 0.99);
    }
    println!("{cases} cases, {divided} of several routes, {coupled} coupled by memory, greedy meets {met}");
    assert!(cases > 700 && divided * 2 > cases && coupled > 20, "{cases}, {divided}, {coupled}");
    assert!(met * 100 > cases * 90, "greedy met {met} of {cases}");
}

#[test]
fn a_stream_is_never_longer_than_a_plan_that_is_known() {
    let problem = hand_cases::problem();
    let known = shape(&[(0, 0, 2), (1, 2, 3)]);
    let period_ms = problem.price(&known).unwrap().period_ms;
    for method in [Method::Greedy, Method::Exact] {
        let found = best_replicated(&problem, vec![known.clone()], method, RELAXATIONS).unwrap();
        assert!(found.priced.period_ms < period_ms, "{found:?}");
        assert!(
            found.priced.routes.iter().all(|route| route
                .shape
                .codecs
                .iter()
                .all(|codec| *codec == Codec::Raw))
        );
    }
}
