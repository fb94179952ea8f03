//! Meshes too large to try every plan: what is left out is said, and tight memory is still planned.

use crate::plan::tests::{Numbers, link, node, shape};
use crate::plan::{
    CANDIDATES_MAX, EXPANSIONS_DEFAULT, Extra, Kind, KnownRange, Links, Problem, alternatives, best,
};

/// Ten blocks on an origin and others of differing speed and distance, each with this much memory
/// for blocks of 10 bytes.
pub(super) fn mesh(nodes: usize, memory_free_bytes: u64) -> Problem {
    let mut numbers = Numbers(nodes as u64);
    let mut links = Links::new(nodes);
    for from in 0..nodes {
        for to in 0..nodes {
            links.set(from, to, link(1.0 + numbers.below(20) as f64, 1e-6 * numbers.below(100) as f64));
        }
    }
    let mut machine = |_| {
        let mut machine = node(&numbers.list(10, |numbers| 1.0 + numbers.below(50) as f64));
        machine.memory_free_bytes = memory_free_bytes;
        machine
    };
    Problem {
        cut_bytes: vec![100_000; 11],
        codings: vec![vec![]; 11],
        loss_max: 0.0,
        block_weights_bytes: vec![10; 10],
        block_peak_bytes: vec![0; 10],
        extra: Extra::none(),
        nodes: (0..nodes).map(&mut machine).collect(),
        links,
        force_first: false,
        force_last: false,
    }
}

#[test]
fn a_large_mesh_is_planned_over_its_best_nodes() {
    let problem = mesh(120, 1_000);
    let found = best(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(found.nodes_left_out, 120 - CANDIDATES_MAX);
    let listed = alternatives(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(listed[0].priced, found.priced);
    for kind in [Kind::Local, Kind::RemoteWhole].into_iter().chain((2..=8).map(Kind::Chain)) {
        assert!(listed.iter().any(|plan| plan.kind == kind), "{kind:?}");
    }
}

#[test]
fn a_model_larger_than_any_two_nodes_is_spread() {
    let problem = mesh(40, 20);
    let found = best(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert!(found.priced.shape.stages.len() >= 5);
    assert!(found.bound_ms <= found.priced.latency_ms);
}

#[test]
fn a_model_larger_than_the_best_nodes_together_gets_more_of_them() {
    let mut problem = mesh(60, 2);
    for node in &mut problem.nodes[50..] {
        node.memory_free_bytes = 10;
    }
    let found = best(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(found.priced.shape.stages.len(), 10);
}

#[test]
fn the_same_problem_gives_the_same_plans() {
    let problem = mesh(50, 30);
    let list = || alternatives(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(list(), list());
}

#[test]
fn little_work_still_gives_a_plan_and_an_honest_bound() {
    let problem = mesh(12, 20);
    let (hasty, thorough) = (best(&problem, 0).unwrap(), best(&problem, 10_000_000).unwrap());
    assert!(thorough.priced.latency_ms <= hasty.priced.latency_ms);
    assert!(hasty.bound_ms <= thorough.priced.latency_ms + 1e-9);
}

#[test]
fn hosts_of_the_model_are_found_among_many_faster_machines() {
    let mut problem = mesh(100, 30);
    for machine in &mut problem.nodes {
        machine.cold_fixed_ms = 10_000.0;
    }
    let slow = problem.nodes.len() - 2;
    for (node, (first, end)) in problem.nodes[slow..].iter_mut().zip([(0, 5), (5, 10)]) {
        node.block_ms = vec![60.0; 10];
        node.memory_free_bytes = 0;
        node.known = vec![KnownRange { first, end, time_ms: None, is_loaded: true, has_memory: true }];
    }
    let found = best(&problem, EXPANSIONS_DEFAULT).unwrap();
    assert_eq!(found.priced.shape, shape(&[(slow, 0, 5), (slow + 1, 5, 10)]));
}
