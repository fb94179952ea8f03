//! How the optimum must move when the problem changes: better means never make it worse.

use stormo_protocol::codec::payload::Codec;

use crate::plan::tests::{Numbers, is_close, random_coding, random_link, random_node, random_problem};
use crate::plan::{Coding, EXPANSIONS_DEFAULT, Links, Problem, best};

const SEEDS: std::ops::Range<u64> = 10_000..11_500;

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

#[test]
fn one_more_node_is_never_worse() {
    assert_never_worse(|problem, numbers| {
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
    });
}

#[test]
fn a_faster_node_is_never_worse() {
    assert_never_worse(|problem, numbers| {
        let index = numbers.below(problem.nodes.len() as u64) as usize;
        let node = &mut problem.nodes[index];
        node.block_ms.iter_mut().for_each(|time_ms| *time_ms /= 2.0);
        node.known.iter_mut().filter_map(|range| range.time_ms.as_mut()).for_each(|time_ms| *time_ms /= 2.0);
    });
}

#[test]
fn more_memory_is_never_worse() {
    assert_never_worse(|problem, numbers| {
        let index = numbers.below(problem.nodes.len() as u64) as usize;
        let node = &mut problem.nodes[index];
        node.memory_free_bytes = node.memory_free_bytes.saturating_add(numbers.below(6));
    });
}

#[test]
fn all_times_scaled_scale_the_optimum() {
    const FACTOR: f64 = 3.5;
    for seed in SEEDS {
        let before = random_problem(seed);
        let mut after = before.clone();
        for node in &mut after.nodes {
            for time_ms in [
                &mut node.queue_wait_ms,
                &mut node.overhead_ms,
                &mut node.extra_factor,
                &mut node.cold_fixed_ms,
                &mut node.cold_ms_per_byte,
            ]
            .into_iter()
            .chain(&mut node.block_ms)
            .chain(node.known.iter_mut().filter_map(|range| range.time_ms.as_mut()))
            {
                *time_ms *= FACTOR;
            }
        }
        for coding in after.codings.iter_mut().flatten() {
            coding.encode_ms *= FACTOR;
            coding.decode_ms *= FACTOR;
        }
        for from in 0..after.nodes.len() {
            for to in 0..after.nodes.len() {
                let Some(mut link) = after.links.get(from, to) else { continue };
                link.latency_ms *= FACTOR;
                link.ms_per_byte *= FACTOR;
                after.links.set(from, to, link);
            }
        }
        let (before_ms, after_ms) = (optimum_ms(&before), optimum_ms(&after));
        let is_scaled = if before_ms.is_finite() {
            is_close(after_ms, before_ms * FACTOR)
        } else {
            after_ms.is_infinite()
        };
        assert!(is_scaled, "seed {seed}: {before_ms} -> {after_ms}");
    }
}
