//! How the optimum must move when the problem changes: better means never make it worse.

use stormo_protocol::codec::payload::Codec;

use crate::plan::tests::goals::random_case;
use crate::plan::tests::{Numbers, is_close, random_coding, random_link, random_node, random_problem};
use crate::plan::{
    Coding, EXPANSIONS_DEFAULT, Goal, Link, Links, Method, Objective, Planner, Problem, Search, best,
};

const SEEDS: std::ops::Range<u64> = 10_000..11_500;
/// For each rule, over all four goals.
const GOAL_SEEDS: std::ops::Range<u64> = 20_000..22_000;

/// The optimum, infinite if there is no plan.
fn optimum_ms(problem: &Problem) -> f64 {
    best(problem, EXPANSIONS_DEFAULT).map_or(f64::INFINITY, |best| best.priced.latency_ms)
}

#[track_caller]
fn assert_never_worse(change: impl Fn(&mut Problem, &mut Numbers)) {
    for seed in SEEDS {
        let before = random_problem(seed);
        let mut after = before.clone();
        change(&mut after, &mut Numbers(seed));
        let (before_ms, after_ms) = (optimum_ms(&before), optimum_ms(&after));
        assert!(
            after_ms <= before_ms || is_close(after_ms, before_ms),
            "seed {seed}: {before_ms} -> {after_ms}"
        );
    }
}

#[test]
fn more_bandwidth_is_never_worse() {
    assert_never_worse(|problem, numbers| {
        let count = problem.nodes.len() as u64;
        let (from, to) = (numbers.below(count) as usize, numbers.below(count) as usize);
        if let Some(mut link) = problem.links.get(from, to) {
            link.ms_per_byte /= 2.0;
            problem.links.set(from, to, link);
        }
    });
}

#[test]
fn one_more_coding_is_never_worse() {
    assert_never_worse(|problem, numbers| {
        let cut = numbers.below(problem.cut_bytes.len() as u64) as usize;
        let coding = random_coding(numbers, problem.cut_bytes[cut]);
        problem.codings[cut].extend(coding.map(|coding| Coding { codec: Codec::F16, ..coding }));
    });
}

fn add_node(problem: &mut Problem, numbers: &mut Numbers) {
    let count = problem.nodes.len();
    problem.nodes.push(random_node(numbers, problem.block_count(), true));
    let mut links = Links::new(count + 1);
    for from in 0..=count {
        for to in 0..=count {
            let is_new = from == count || to == count;
            let link = if is_new { Some(random_link(numbers)) } else { problem.links.get(from, to) };
            if let Some(link) = link {
                links.set(from, to, link);
            }
        }
    }
    problem.links = links;
}

#[test]
fn one_more_node_is_never_worse() {
    assert_never_worse(add_node);
}

fn make_faster(problem: &mut Problem, numbers: &mut Numbers) {
    let index = numbers.below(problem.nodes.len() as u64) as usize;
    let node = &mut problem.nodes[index];
    node.block_ms.iter_mut().for_each(|time_ms| *time_ms /= 2.0);
    node.known.iter_mut().filter_map(|range| range.time_ms.as_mut()).for_each(|time_ms| *time_ms /= 2.0);
}

#[test]
fn a_faster_node_is_never_worse() {
    assert_never_worse(make_faster);
}

#[test]
fn more_memory_is_never_worse() {
    assert_never_worse(|problem, numbers| {
        let index = numbers.below(problem.nodes.len() as u64) as usize;
        let node = &mut problem.nodes[index];
        node.memory_free_bytes = node.memory_free_bytes.saturating_add(numbers.below(6));
    });
}

/// All times, and the radio's tail, so many times as long.
fn scale(problem: &mut Problem, factor: f64) {
    for node in &mut problem.nodes {
        for time_ms in [
            &mut node.queue_wait_ms,
            &mut node.overhead_ms,
            &mut node.extra_factor,
            &mut node.cold_fixed_ms,
            &mut node.cold_ms_per_byte,
            &mut node.uplink_ms_per_byte,
            &mut node.tail_mj,
        ]
        .into_iter()
        .chain(&mut node.block_ms)
        .chain(node.known.iter_mut().filter_map(|range| range.time_ms.as_mut()))
        {
            *time_ms *= factor;
        }
    }
    for coding in problem.codings.iter_mut().flatten() {
        coding.encode_ms *= factor;
        coding.decode_ms *= factor;
    }
    problem.links.change(|_, _, link| Link {
        latency_ms: link.latency_ms * factor,
        ms_per_byte: link.ms_per_byte * factor,
    });
}

#[test]
fn all_times_scaled_scale_the_optimum() {
    const FACTOR: f64 = 3.5;
    for seed in SEEDS {
        let before = random_problem(seed);
        let mut after = before.clone();
        scale(&mut after, FACTOR);
        let (before_ms, after_ms) = (optimum_ms(&before), optimum_ms(&after));
        let is_scaled = if before_ms.is_finite() {
            is_close(after_ms, before_ms * FACTOR)
        } else {
            after_ms.is_infinite()
        };
        assert!(is_scaled, "seed {seed}: {before_ms} -> {after_ms}");
    }
}

/// The least of what a goal asks for, infinite if no plan keeps its limits.
fn least(problem: &Problem, goal: &Goal) -> f64 {
    let exact = Search { method: Method::Exact, expansions_max: usize::MAX };
    exact.best_for(problem, goal).map_or(f64::INFINITY, |found| goal.value(&found.priced))
}

/// Holds a change against every goal: the least before and after it, which `holds` compares.
#[track_caller]
fn assert_of_every_goal(
    change: impl Fn(&mut Problem, &mut Goal, &mut Numbers),
    holds: impl Fn(&Goal, f64, f64) -> bool,
) {
    let mut planned = 0;
    for seed in GOAL_SEEDS {
        let (before, goal) = random_case(seed);
        let (mut after, mut goal_after) = (before.clone(), goal);
        change(&mut after, &mut goal_after, &mut Numbers(seed));
        let (before, after) = (least(&before, &goal), least(&after, &goal_after));
        planned += u64::from(before.is_finite());
        assert!(holds(&goal, before, after), "seed {seed}: {before} -> {after}, {goal:?}");
    }
    assert!(planned * 3 > GOAL_SEEDS.end - GOAL_SEEDS.start, "only {planned} had a plan");
}

fn is_no_worse(_: &Goal, before: f64, after: f64) -> bool {
    after <= before || is_close(after, before)
}

fn is_same(_: &Goal, before: f64, after: f64) -> bool {
    before == after || is_close(after, before)
}

#[test]
fn better_means_are_never_worse_for_any_goal() {
    assert_of_every_goal(
        |problem, _, numbers| {
            let count = problem.nodes.len() as u64;
            let (from, to) = (numbers.below(count) as usize, numbers.below(count) as usize);
            if let Some(link) = problem.links.get(from, to) {
                let (latency_ms, ms_per_byte) = (link.latency_ms / 2.0, link.ms_per_byte / 2.0);
                problem.links.set(from, to, Link { latency_ms, ms_per_byte });
            }
        },
        is_no_worse,
    );
    assert_of_every_goal(|problem, _, numbers| add_node(problem, numbers), is_no_worse);
    assert_of_every_goal(|problem, _, numbers| make_faster(problem, numbers), is_no_worse);
}

#[test]
fn a_tighter_limit_is_never_better() {
    assert_of_every_goal(
        |problem, goal, numbers| {
            let share = 0.5 + numbers.below(50) as f64 / 100.0;
            for limit in [&mut goal.latency_ms_max, &mut goal.energy_mj_max].into_iter().flatten() {
                *limit *= share;
            }
            problem.loss_max *= share;
        },
        |goal, before, after| is_no_worse(goal, after, before),
    );
}

#[test]
fn times_and_limits_scaled_scale_what_any_goal_gets() {
    const FACTOR: f64 = 3.5;
    assert_of_every_goal(
        |problem, goal, _| {
            scale(problem, FACTOR);
            for limit in [&mut goal.latency_ms_max, &mut goal.energy_mj_max].into_iter().flatten() {
                *limit *= FACTOR;
            }
        },
        |goal, before, after| match goal.objective {
            Objective::Loss => is_same(goal, before, after),
            _ => is_same(goal, before * FACTOR, after),
        },
    );
}

#[test]
fn another_order_of_nodes_changes_nothing() {
    assert_of_every_goal(
        |problem, _, _| {
            let count = problem.nodes.len();
            problem.nodes[1..].reverse();
            let place = |node: usize| if node == 0 { 0 } else { count - node };
            let mut links = Links::new(count);
            for from in 0..count {
                for to in 0..count {
                    if let Some(link) = problem.links.get(from, to) {
                        links.set(place(from), place(to), link);
                    }
                }
            }
            problem.links = links;
        },
        is_same,
    );
}
