//! Plans that fork, against the price of every one.

use serde_json::json;

use crate::plan::instance::Instance;
use crate::plan::tests::{Numbers, is_close, link, node, random_problem};
use crate::plan::{
    Branch, EXPANSIONS_DEFAULT, Extra, Infeasible, Links, Method, Problem, Region, Search, SplitShape,
    StageShape, best_split,
};

const SEEDS: std::ops::Range<u64> = 40_000..43_000;

/// Every chain of stages over some blocks.
fn chains(problem: &Problem, first: u16, end: u16) -> Vec<Vec<StageShape>> {
    if first == end {
        return vec![vec![]];
    }
    let mut found = vec![];
    for middle in first + 1..=end {
        for rest in chains(problem, middle, end) {
            for node in 0..problem.nodes.len() {
                found.push([&[StageShape { node, first, end: middle }][..], &rest].concat());
            }
        }
    }
    found
}

/// Every order and place of branches.
fn placings(problem: &Problem, left: &[Branch]) -> Vec<Vec<StageShape>> {
    let mut found = if left.is_empty() { vec![vec![]] } else { vec![] };
    for (index, branch) in left.iter().enumerate() {
        let mut others = left.to_vec();
        others.remove(index);
        for rest in placings(problem, &others) {
            for node in 0..problem.nodes.len() {
                let stage = StageShape { node, first: branch.first, end: branch.end };
                found.push([&[stage][..], &rest].concat());
            }
        }
    }
    found
}

fn least_ms(problem: &Problem, region: &Region) -> Option<f64> {
    let (first, end) = region.blocks();
    let (befores, afters) = (chains(problem, 0, first), chains(problem, end, problem.block_count() as u16));
    let mut least_ms: Option<f64> = None;
    for branches in placings(problem, &region.branches) {
        for before in &befores {
            for after in &afters {
                let shape =
                    SplitShape { before: before.clone(), branches: branches.clone(), after: after.clone() };
                if let Ok(priced) = problem.price_split(region, &shape) {
                    let known_ms = least_ms.unwrap_or(f64::INFINITY);
                    least_ms = Some(known_ms.min(priced.latency_ms));
                }
            }
        }
    }
    least_ms
}

/// A small problem in which some blocks are branches.
fn random_case(seed: u64) -> Option<(Problem, Region)> {
    let mut problem = random_problem(seed);
    let mut numbers = Numbers(seed ^ 0xf08c);
    let blocks = problem.block_count() as u64;
    if blocks < 2 || problem.nodes.len() > 3 {
        return None;
    }
    if numbers.one_in(2) {
        problem.nodes.iter_mut().for_each(|node| node.memory_free_bytes = u64::MAX);
    }
    let branches = (2 + numbers.below(2)).min(blocks);
    let first = numbers.below(blocks - branches + 1);
    let branch = |index: u64, numbers: &mut Numbers| Branch {
        first: (first + index) as u16,
        end: (first + index + 1) as u16,
        in_bytes: numbers.below(20),
        out_bytes: numbers.below(20),
    };
    let branches = (0..branches).map(|index| branch(index, &mut numbers)).collect();
    let past_bytes = if numbers.one_in(2) { numbers.below(20) } else { 0 };
    let region = Region { branches, past_bytes };
    // Where an end is forced there is nothing to fork.
    let (first, end) = region.blocks();
    let is_forced = (problem.force_first && first == 0) || (problem.force_last && u64::from(end) == blocks);
    (!is_forced).then_some((problem, region))
}

#[test]
fn forks_are_the_best_of_all_forks() {
    let (mut cases, mut best, mut proven) = (0, 0, 0);
    for seed in SEEDS {
        let Some((problem, region)) = random_case(seed) else { continue };
        let least_ms = least_ms(&problem, &region);
        let regions = [region];
        let exact = best_split(&problem, &regions, Method::Exact, usize::MAX);
        let greedy = best_split(&problem, &regions, Method::Greedy, 0);
        let Some(least_ms) = least_ms else {
            assert!(exact.is_none() && greedy.is_none(), "seed {seed}");
            continue;
        };
        cases += 1;
        for found in [&exact, &greedy].into_iter().flatten() {
            let priced = problem.price_split(&regions[found.region], &found.priced.shape);
            assert_eq!(priced.as_ref(), Ok(&found.priced), "seed {seed}");
            assert!(found.priced.latency_ms >= least_ms * (1.0 - 1e-9), "seed {seed}");
            assert!(
                found.bound_ms <= least_ms * (1.0 + 1e-9),
                "seed {seed}: {} of {least_ms}",
                found.bound_ms
            );
        }
        if let Some(exact) = exact.filter(|exact| is_close(exact.bound_ms, exact.priced.latency_ms)) {
            proven += 1;
            assert!(is_close(exact.priced.latency_ms, least_ms), "seed {seed}: {exact:?}, not {least_ms}");
        }
        best += u32::from(greedy.is_some_and(|greedy| is_close(greedy.priced.latency_ms, least_ms)));
    }
    assert!(cases > 700 && proven * 10 > cases * 6, "{proven} of {cases} proven");
    assert!(best * 10 > cases * 8, "{best} of {cases}");
}

/// A block on the device, two of 40 and 30 ms beside each other, and one behind.
fn diamond() -> (Problem, Region) {
    let mut links = Links::new(2);
    links.set(0, 1, link(1.0, 1e-5));
    links.set(1, 0, link(1.0, 1e-5));
    let problem = Problem {
        cut_bytes: vec![1_000_000, 200_000, 250_000, 100_000, 1_000],
        codings: vec![vec![]; 5],
        loss_max: 0.0,
        block_weights_bytes: vec![0; 4],
        block_peak_bytes: vec![0; 4],
        extra: Extra::none(),
        nodes: vec![node(&[5.0, 40.0, 30.0, 5.0]), node(&[5.0, 40.0, 30.0, 5.0])],
        links,
        force_first: false,
        force_last: false,
    };
    let branch = |first, in_bytes, out_bytes| Branch { first, end: first + 1, in_bytes, out_bytes };
    let branches = vec![branch(1, 200_000, 50_000), branch(2, 200_000, 50_000)];
    (problem, Region { branches, past_bytes: 0 })
}

#[test]
fn a_diamond_by_hand() {
    let (problem, region) = diamond();
    // 5 here, then 40 here beside 2 + 1 there, 30 there, 0.5 + 1 back; and 5 here.
    let shape = SplitShape {
        before: vec![StageShape { node: 0, first: 0, end: 1 }],
        branches: vec![StageShape { node: 1, first: 2, end: 3 }, StageShape { node: 0, first: 1, end: 2 }],
        after: vec![StageShape { node: 0, first: 3, end: 4 }],
    };
    let priced = problem.price_split(&region, &shape).unwrap();
    assert!(is_close(priced.latency_ms, 50.0) && is_close(priced.region_ms, 40.0), "{priced:?}");
    assert_eq!(priced.bytes, 250_000);
    for method in [Method::Greedy, Method::Exact] {
        let found = best_split(&problem, std::slice::from_ref(&region), method, EXPANSIONS_DEFAULT).unwrap();
        assert!(is_close(found.priced.latency_ms, 50.0), "{found:?}");
    }
    let mut there = shape.clone();
    there.branches[1].node = 1;
    // Both there: the second waits for its input and for the first: 4 + 1 on the way in, 70, 0.5 + 1 back; that the
    // first's output goes back meanwhile helps nobody.
    let priced = problem.price_split(&region, &there).unwrap();
    assert!(is_close(priced.region_ms, 2.0 + 1.0 + 70.0 + 0.5 + 1.0), "{priced:?}");
}

#[test]
fn forks_that_are_none_are_refused() {
    let (problem, region) = diamond();
    let stage = |node, first, end| StageShape { node, first, end };
    let shape = SplitShape {
        before: vec![stage(0, 0, 1)],
        branches: vec![stage(0, 1, 2), stage(0, 2, 3)],
        after: vec![stage(0, 3, 4)],
    };
    let refused = |shape: &SplitShape| problem.price_split(&region, shape).unwrap_err();
    let mut twice = shape.clone();
    twice.branches[1] = twice.branches[0];
    assert_eq!(refused(&twice), Infeasible::Coverage);
    let mut short = shape.clone();
    short.after.clear();
    assert_eq!(refused(&short), Infeasible::Coverage);
    let mut nobody = shape.clone();
    nobody.branches[0].node = 7;
    assert_eq!(refused(&nobody), Infeasible::Node { node: 7 });
    let one = Region { branches: region.branches[..1].to_vec(), past_bytes: 0 };
    assert!(!one.is_valid(4) && !region.is_valid(2) && region.is_valid(4));
    let mut forced = problem.clone();
    forced.force_last = true;
    assert!(forced.price_split(&region, &shape).is_ok());
    let mut elsewhere = shape;
    elsewhere.after[0].node = 1;
    assert_eq!(forced.price_split(&region, &elsewhere).unwrap_err(), Infeasible::Forced);
}

#[test]
fn an_instance_with_regions_is_told_what_a_fork_saves() {
    let case = |out_bytes: u64, first: u16| {
        json!({
            "requester": "one",
            "nodes": [
                {"name": "one", "block_ms": [5, 40, 30, 5]}, {"name": "other", "block_ms": [5, 40, 30, 5]}
            ],
            "links": [{"from": "one", "to": "other", "latency_ms": 1, "ms_per_mb": 10, "both_ways": true}],
            "variants": [{
                "name": "fp32", "cut_bytes": [1e6, 2e5, 2.5e5, 1e5, 1e3],
                "regions": [{"branches": [
                    {"blocks": [first, 2], "in_bytes": 2e5, "out_bytes": out_bytes},
                    {"blocks": [2, 3], "in_bytes": 2e5, "out_bytes": out_bytes}
                ]}]
            }]
        })
        .to_string()
    };
    let reply = |text: &str| {
        let instance = Instance::parse(text).unwrap();
        let search = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
        instance.reply(instance.question.answer(&search), Method::Greedy, EXPANSIONS_DEFAULT)
    };
    let told = reply(&case(50_000, 1));
    let split = told.split.unwrap();
    assert!(is_close(told.plan.unwrap().latency_ms, 80.0) && is_close(split.latency_ms, 50.0));
    assert!(split.runnable && told.not_considered.is_empty());
    // With 3.5 MB to bring back nothing is saved worth a tenth.
    assert!(reply(&case(3_500_000, 1)).split.is_none());
    let bad = Instance::parse(&case(1, 2)).unwrap_err().to_string();
    assert!(bad.contains("variants[0] `fp32`: regions[0]"), "{bad}");
}
