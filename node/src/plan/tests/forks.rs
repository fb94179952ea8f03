//! Plans that fork once or more, into branches, strips or shares of a batch, against the price of every one.

use serde_json::json;

use crate::plan::instance::{Instance, Reply};
use crate::plan::tests::hand_cases;
use crate::plan::tests::{Numbers, is_close, random_problem};
use crate::plan::{
    Branch, EXPANSIONS_DEFAULT, ForkedShape, Forks, Infeasible, Method, Part, Problem, Region,
    SPLIT_GAIN_MIN, Scope, Search, Share, StageShape, Strips, best, best_forked,
};

const SEEDS: std::ops::Range<u64> = 50_000..51_500;
const EXACT: Scope = Scope { method: Method::Exact, expansions_max: usize::MAX, below_ms: f64::INFINITY };
const GREEDY: Scope = Scope { method: Method::Greedy, expansions_max: 0, below_ms: f64::INFINITY };

/// Every order and place of branches.
fn placings(nodes: usize, left: &[Branch]) -> Vec<Vec<StageShape>> {
    let mut found = if left.is_empty() { vec![vec![]] } else { vec![] };
    for (index, branch) in left.iter().enumerate() {
        let mut others = left.to_vec();
        others.remove(index);
        for rest in placings(nodes, &others) {
            for node in 0..nodes {
                let stage = StageShape { node, first: branch.first, end: branch.end };
                found.push([&[stage][..], &rest].concat());
            }
        }
    }
    found
}

/// Every order of nodes, and so many units shared out among them.
fn sharings(nodes: &[usize], units: u32) -> Vec<Vec<Share>> {
    let mut found = if units == 0 { vec![vec![]] } else { vec![] };
    for (index, node) in nodes.iter().enumerate() {
        let mut others = nodes.to_vec();
        others.remove(index);
        for here in 1..=units {
            for rest in sharings(&others, units - here) {
                found.push([&[Share { node: *node, units: here }][..], &rest].concat());
            }
        }
    }
    found
}

/// Every part of a plan that begins at a cut.
fn parts(problem: &Problem, forks: &Forks, first: u16) -> Vec<Part> {
    let nodes: Vec<usize> = (0..problem.nodes.len()).collect();
    let blocks = problem.block_count() as u16;
    let mut found = vec![];
    for end in first + 1..=blocks {
        found.extend(nodes.iter().map(|node| Part::Stage(StageShape { node: *node, first, end })));
        if forks.items > 1 {
            let all = sharings(&nodes, forks.items).into_iter().filter(|shares| shares.len() > 1);
            found.extend(all.map(|shares| Part::Items { first, end, shares }));
        }
    }
    for (region, of) in forks.regions.iter().enumerate().filter(|(_, of)| of.blocks().0 == first) {
        let all = placings(nodes.len(), &of.branches).into_iter();
        found.extend(all.map(|branches| Part::Branches { region, branches }));
    }
    for (strips, of) in forks.strips.iter().enumerate().filter(|(_, of)| of.first == first) {
        let all = sharings(&nodes, of.rows).into_iter().filter(|shares| shares.len() > 1);
        found.extend(all.map(|shares| Part::Rows { strips, shares }));
    }
    found
}

/// The least of all plans with a fork; behind these parts, which end at a cut.
fn least_ms(problem: &Problem, forks: &Forks, before: &mut Vec<Part>, cut: u16, least: &mut Option<f64>) {
    if usize::from(cut) == problem.block_count() {
        let shape = ForkedShape { parts: before.clone() };
        if let Some(priced) = problem.price_forked(forks, &shape).ok().filter(|_| shape.has_fork()) {
            *least = Some(least.unwrap_or(f64::INFINITY).min(priced.latency_ms));
        }
        return;
    }
    for part in parts(problem, forks, cut) {
        let (_, end) = forks.blocks(&part);
        before.push(part);
        least_ms(problem, forks, before, end, least);
        before.pop();
    }
}

/// A small problem of which something may run beside itself.
fn random_case(seed: u64) -> Option<(Problem, Forks)> {
    let mut problem = random_problem(seed);
    let mut numbers = Numbers(seed ^ 0x5eed);
    let blocks = problem.block_count() as u16;
    if problem.nodes.len() < 2 || problem.nodes.len() > 3 || problem.force_first || problem.force_last {
        return None;
    }
    if numbers.one_in(2) {
        problem.nodes.iter_mut().for_each(|node| node.memory_free_bytes = u64::MAX);
    }
    // Much to compute, so that one fork is seldom enough.
    if numbers.one_in(2) {
        problem.nodes.iter_mut().flat_map(|node| &mut node.block_ms).for_each(|block_ms| *block_ms *= 10.0);
    }
    let mut forks = Forks::default();
    let mut cut = numbers.below(2) as u16;
    // Regions and strips with a block between them, so that a plan may fork in several.
    while cut < blocks {
        let length = 1 + numbers.below(2) as u16;
        let end = (cut + length).min(blocks);
        if end == cut + 2 && numbers.one_in(2) {
            let branch = |first: u16, numbers: &mut Numbers| Branch {
                first,
                end: first + 1,
                in_bytes: numbers.below(20),
                out_bytes: numbers.below(20),
            };
            let branches = vec![branch(cut, &mut numbers), branch(cut + 1, &mut numbers)];
            let past_bytes = if numbers.one_in(2) { numbers.below(20) } else { 0 };
            forks.regions.push(Region { branches, past_bytes });
        } else {
            forks.strips.push(Strips {
                first: cut,
                end,
                rows: 2 + numbers.below(3) as u32,
                halo_bytes: numbers.below(4),
                halo_ms: numbers.list(problem.nodes.len(), |numbers| numbers.below(3) as f64),
            });
        }
        cut = end + 1;
    }
    if blocks <= 3 && numbers.one_in(3) {
        forks.items = 2 + numbers.below(2) as u32;
    }
    Some((problem, forks))
}

#[test]
fn forked_plans_are_the_best_of_all() {
    let (mut cases, mut proven, mut several, mut worth_it, mut found_best) = (0, 0, 0, 0, 0);
    for seed in SEEDS {
        let Some((problem, forks)) = random_case(seed) else { continue };
        let mut least = None;
        least_ms(&problem, &forks, &mut vec![], 0, &mut least);
        let exact = best_forked(&problem, &forks, &EXACT);
        let greedy = best_forked(&problem, &forks, &GREEDY);
        let Some(least_ms) = least else {
            assert!(exact.is_none() && greedy.is_none(), "seed {seed}");
            continue;
        };
        cases += 1;
        for found in [&exact, &greedy].into_iter().flatten() {
            let priced = problem.price_forked(&forks, &found.priced.shape);
            assert_eq!(priced.as_ref(), Ok(&found.priced), "seed {seed}");
            assert!(found.priced.latency_ms >= least_ms * (1.0 - 1e-9), "seed {seed}");
            assert!(found.priced.shape.has_fork(), "seed {seed}");
            let bound_ms = found.bound_ms;
            assert!(bound_ms <= least_ms * (1.0 + 1e-9), "seed {seed}: {bound_ms} of {least_ms}");
        }
        if let Some(exact) = exact.filter(|exact| is_close(exact.bound_ms, exact.priced.latency_ms)) {
            proven += 1;
            several += u32::from(exact.priced.forks_ms.len() > 1);
            assert!(is_close(exact.priced.latency_ms, least_ms), "seed {seed}: {exact:?}, not {least_ms}");
        }
        // Elsewhere there is nothing to fork for, and little is looked for.
        let chain_ms =
            best(&problem, EXPANSIONS_DEFAULT).map_or(f64::INFINITY, |best| best.priced.latency_ms);
        if least_ms <= chain_ms * (1.0 - SPLIT_GAIN_MIN) {
            worth_it += 1;
            found_best +=
                u32::from(greedy.is_some_and(|greedy| is_close(greedy.priced.latency_ms, least_ms)));
        }
    }
    assert!(cases > 300 && proven * 10 > cases * 9, "{proven} of {cases} proven");
    assert!(several > 10, "{several} fork more than once");
    assert!(worth_it > 70 && found_best * 10 > worth_it * 9, "{found_best} of {worth_it}");
}

const DEVICE: usize = 0;
const EDGE: usize = 1;

/// The design's hand case with twenty times the compute and without its cloud: 322.8 ms on the edge alone.
fn heavy() -> Problem {
    let mut problem = hand_cases::problem();
    problem.nodes[2].can_compute = false;
    problem.nodes.iter_mut().flat_map(|node| &mut node.block_ms).for_each(|block_ms| *block_ms *= 20.0);
    problem
}

fn all_rows(rows: u32, halo_bytes: u64, halo_ms: f64) -> Forks {
    let strips = Strips { first: 0, end: 3, rows, halo_bytes, halo_ms: vec![halo_ms; 3] };
    Forks { strips: vec![strips], ..Forks::default() }
}

fn rows(shares: &[(usize, u32)]) -> Part {
    Part::Rows { strips: 0, shares: shares_of(shares) }
}

fn shares_of(shares: &[(usize, u32)]) -> Vec<Share> {
    shares.iter().map(|(node, units)| Share { node: *node, units: *units }).collect()
}

#[track_caller]
fn assert_best(problem: &Problem, forks: &Forks, latency_ms: f64, parts: &[Part]) {
    for scope in [EXACT, GREEDY] {
        let found = best_forked(problem, forks, &scope).unwrap();
        assert!(is_close(found.priced.latency_ms, latency_ms), "{found:?}");
        assert_eq!(found.priced.shape.parts, parts);
        assert!(found.bound_ms <= latency_ms * (1.0 + 1e-9));
    }
}

#[test]
fn strips_by_hand() {
    // Two rows of ten here: 240. Eight there: 64 + 1 in, 192, 0.64 + 1 home. With three rows here it were 360.
    assert_best(&heavy(), &all_rows(10, 0, 0.0), 258.64, &[rows(&[(DEVICE, 2), (EDGE, 8)])]);
    // A border takes 20 kB more to the edge, 1.6, and 5 on either side.
    let forks = all_rows(10, 20_000, 5.0);
    let parts = [rows(&[(DEVICE, 2), (EDGE, 8)])];
    assert_best(&heavy(), &forks, 265.24, &parts);
    let priced = heavy().price_forked(&forks, &ForkedShape { parts: parts.to_vec() }).unwrap();
    assert_eq!(priced.bytes, 800_000 + 20_000 + 8_000);
    let ends: Vec<f64> = priced.runs.iter().map(|run| run.start_ms + run.takes_ms).collect();
    assert!(is_close(ends[0], 245.0) && is_close(ends[1], 65.6 + 1.0 + 197.0), "{priced:?}");
}

#[test]
fn strips_fill_all_nodes_to_one_level() {
    // Rows as fine as water: 1200 x here, 2 + 320.8 (1 - x) there, which is one for x = 322.8 / 1520.8.
    let rows = 10_000;
    let found = best_forked(&heavy(), &all_rows(rows, 0, 0.0), &GREEDY).unwrap();
    let level_ms = 1200.0 * 322.8 / 1520.8;
    let row_ms = 1200.0 / f64::from(rows);
    let over_ms = found.priced.latency_ms - level_ms;
    assert!((-1e-9..=row_ms).contains(&over_ms), "{over_ms} ms above {level_ms}");
    assert!(is_close(found.bound_ms, level_ms) || found.bound_ms < level_ms, "{found:?}");
}

#[test]
fn a_middle_strip_has_two_borders() {
    let mut problem = heavy();
    problem.nodes[2] = problem.nodes[EDGE].clone();
    let forks = all_rows(4, 10_000, 7.0);
    let price = |shares: &[(usize, u32)]| {
        problem.price_forked(&forks, &ForkedShape { parts: vec![rows(shares)] }).unwrap()
    };
    let priced = price(&[(EDGE, 2), (DEVICE, 1), (2, 1)]);
    let takes: Vec<f64> = priced.runs.iter().map(|run| run.takes_ms).collect();
    assert_eq!(takes, [120.0 + 7.0, 300.0 + 14.0, 60.0 + 7.0]);
    // To the edge first, then to the cloud, by the same way out.
    assert!(is_close(priced.runs[0].start_ms, 0.51 * 80.0 + 1.0), "{priced:?}");
    assert!(is_close(priced.runs[2].start_ms, 0.51 * 80.0 + 0.26 * 160.0 + 25.0), "{priced:?}");
    assert!(is_close(priced.latency_ms, 314.0), "{priced:?}");
}

#[test]
fn a_batch_by_hand() {
    // Eight requests at once: one here takes 150, seven there 70 + 1 in, 210, 0.7 + 1 home.
    let forks = Forks { items: 8, ..Forks::default() };
    let shares = shares_of(&[(DEVICE, 1), (EDGE, 7)]);
    let all = Part::Items { first: 0, end: 3, shares };
    let priced = heavy().price_forked(&forks, &ForkedShape { parts: vec![all] }).unwrap();
    assert!(is_close(priced.latency_ms, 282.7), "{priced:?}");
    // Better: two of eight here for two blocks, 150, and 2 + 1 on their way; meanwhile six there, 60 + 1 in and 90; then the
    // last block of all of them there, 120, and 1.8 home.
    let shares = shares_of(&[(DEVICE, 2), (EDGE, 6)]);
    let last = Part::Stage(StageShape { node: EDGE, first: 2, end: 3 });
    assert_best(&heavy(), &forks, 274.8, &[Part::Items { first: 0, end: 2, shares }, last]);
}

#[test]
fn forks_that_are_none_are_refused() {
    let problem = heavy();
    let forks = Forks { items: 4, ..all_rows(10, 0, 0.0) };
    let refused = |forks: &Forks, parts: &[Part]| {
        problem.price_forked(forks, &ForkedShape { parts: parts.to_vec() }).unwrap_err()
    };
    // Nine rows of ten; one node twice, alone, or with nothing; strips that there are not.
    for shares in [
        &[(DEVICE, 4), (EDGE, 5)][..],
        &[(DEVICE, 5), (DEVICE, 5)],
        &[(EDGE, 10)],
        &[(DEVICE, 10), (EDGE, 0)],
    ] {
        assert_eq!(refused(&forks, &[rows(shares)]), Infeasible::Coverage, "{shares:?}");
    }
    let unknown = Part::Rows { strips: 1, shares: shares_of(&[(DEVICE, 5), (EDGE, 5)]) };
    assert_eq!(refused(&forks, &[unknown]), Infeasible::Coverage);
    let items = |first, end| Part::Items { first, end, shares: shares_of(&[(DEVICE, 2), (EDGE, 2)]) };
    assert_eq!(refused(&forks, &[items(0, 2)]), Infeasible::Coverage);
    assert_eq!(refused(&forks, &[items(0, 2), items(2, 3)]), Infeasible::Join { cut: 2 });
    assert_eq!(refused(&Forks::default(), &[items(0, 3)]), Infeasible::Coverage);
    assert_eq!(refused(&forks, &[rows(&[(DEVICE, 5), (9, 5)])]), Infeasible::Node { node: 9 });
    assert_eq!(refused(&forks, &[rows(&[(DEVICE, 5), (2, 5)])]), Infeasible::Node { node: 2 });
    let mut forced = problem.clone();
    forced.force_last = true;
    let shape = ForkedShape { parts: vec![rows(&[(DEVICE, 5), (EDGE, 5)])] };
    assert_eq!(forced.price_forked(&forks, &shape), Err(Infeasible::Forced));
    assert_eq!(best_forked(&forced, &all_rows(10, 0, 0.0), &EXACT), None);
    let mut small = problem;
    small.nodes[EDGE].memory_free_bytes = 119;
    let found = small.price_forked(&forks, &shape).unwrap_err();
    assert_eq!(found, Infeasible::Memory { node: EDGE, need_bytes: 120, free_bytes: 119 });
    assert_eq!(best_forked(&small, &all_rows(10, 0, 0.0), &EXACT), None);
}

#[test]
fn plans_fork_as_often_as_it_pays() {
    // Two stretches to divide between two machines that are alike, with a block before, between and behind.
    let mut problem = heavy();
    let block_ms = vec![1.0, 100.0, 1.0, 100.0, 1.0];
    problem.nodes.truncate(2);
    problem.nodes.iter_mut().for_each(|node| node.block_ms.clone_from(&block_ms));
    problem.links = crate::plan::Links::new(2);
    for (from, to) in [(0, 1), (1, 0)] {
        problem.links.set(from, to, crate::plan::tests::link(1.0, 1e-5));
    }
    (problem.cut_bytes, problem.codings) = (vec![100_000; 6], vec![vec![]; 6]);
    (problem.block_weights_bytes, problem.block_peak_bytes) = (vec![0; 5], vec![0; 5]);
    let strips =
        |first: u16| Strips { first, end: first + 1, rows: 10, halo_bytes: 0, halo_ms: vec![0.0; 2] };
    let branch = |first: u16| Branch { first, end: first + 1, in_bytes: 0, out_bytes: 0 };
    let forks = Forks {
        regions: vec![Region { branches: vec![branch(0), branch(1)], past_bytes: 0 }],
        strips: vec![strips(1), strips(3)],
        items: 0,
    };
    // Each half takes 50 and is 0.5 + 1 on its way, one there and one back, since who joins is who did not fork: 203 go to
    // 106.
    for scope in [EXACT, GREEDY] {
        let found = best_forked(&problem, &forks, &scope).unwrap();
        assert!(is_close(found.priced.latency_ms, 106.0), "{found:?}");
        assert_eq!(found.priced.forks_ms.len(), 2);
        assert!(found.priced.forks_ms.iter().all(|fork_ms| is_close(*fork_ms, 51.5)), "{found:?}");
        assert_eq!(best_forked(&problem, &forks, &Scope { below_ms: 106.0, ..scope }), None);
    }
}

fn instance(change: impl Fn(&mut serde_json::Value)) -> Result<Instance, String> {
    let mut written = json!({
        "requester": "device",
        "nodes": [
            {"name": "edge", "block_ms": [20, 40, 60], "slowdown": 2},
            {"name": "device", "block_ms": [200, 400, 600]}
        ],
        "links": [{"from": "device", "to": "edge", "latency_ms": 1, "ms_per_mb": 80, "both_ways": true}],
        "variants": [{
            "name": "fp32", "cut_bytes": [1e6, 5e5, 1e5, 1e4],
            "strips": [{"blocks": [0, 3], "rows": 10, "halo_bytes": 2e4, "halo_ms": {"edge": 1.25, "device": 5}}]
        }]
    });
    change(&mut written);
    Instance::parse(&written.to_string()).map_err(|error| error.to_string())
}

fn reply(instance: &Instance) -> Reply {
    let search = Search { method: Method::Greedy, expansions_max: EXPANSIONS_DEFAULT };
    instance.reply(instance.question.answer(&search), Method::Greedy, EXPANSIONS_DEFAULT)
}

#[test]
fn an_instance_with_strips_or_a_batch_is_told_what_dividing_saves() {
    let told = reply(&instance(|_| {}).unwrap());
    let split = told.split.unwrap();
    assert!(is_close(told.plan.unwrap().latency_ms, 322.8));
    // As by hand, the edge's border in half the time.
    assert!(is_close(split.latency_ms, 262.74), "{split:?}");
    let kinds: Vec<_> = split.parts.iter().map(|part| part.kind).collect();
    let rows: Vec<_> = split.parts[0].on.iter().map(|on| (on.node.as_str(), on.rows, on.items)).collect();
    assert_eq!(kinds, ["strips"]);
    assert_eq!(rows, [("device", Some(2), None), ("edge", Some(8), None)]);
    assert!(!split.runnable && told.not_considered.is_empty());
    let batch = |items: u32| {
        reply(
            &instance(|written| {
                written["batch"] = json!(items);
                written["variants"][0]["strips"] = json!([]);
            })
            .unwrap(),
        )
    };
    let split = batch(8).split.unwrap();
    assert!(is_close(split.latency_ms, 274.8), "{split:?}");
    let items: Vec<_> = split.parts[0].on.iter().map(|on| (on.node.as_str(), on.rows, on.items)).collect();
    assert_eq!(
        (split.parts[0].kind, items),
        ("batch", vec![("device", None, Some(2)), ("edge", None, Some(6))])
    );
    assert_eq!((split.parts[1].kind, split.parts[1].on[0].blocks), ("stage", [2, 3]));
    // Half of two blocks here takes as long as all of it there.
    assert!(batch(2).split.is_none() && batch(1).split.is_none());
    let energy = instance(|written| {
        written["objective"] = json!("energy");
        written["batch"] = json!(2);
    });
    let told = reply(&energy.unwrap());
    assert_eq!(told.not_considered, ["strips", "batch"]);
    assert!(told.split.is_none());
}

#[test]
fn wrong_strips_and_batches_are_told_with_their_place() {
    let strips = |field: &str, value: serde_json::Value| {
        instance(|written| written["variants"][0]["strips"][0][field] = value.clone()).unwrap_err()
    };
    let starts = |text: String, with: &str| assert!(text.contains(with), "{text}");
    starts(strips("blocks", json!([2, 2])), "variants[0] `fp32`: strips[0].blocks: [2, 2] is no range");
    starts(strips("blocks", json!([0, 4])), "strips[0].blocks: [0, 4] is no range of the model's 3 blocks");
    starts(strips("rows", json!(1)), "strips[0].rows is 1, and must be from 2 to 65536");
    starts(strips("halo_ms", json!(-1)), "strips[0].halo_ms is -1, and must be from 0 to 1e9");
    starts(
        strips("halo_ms", json!({"cloud": 1})),
        "strips[0].halo_ms: `cloud` is not listed among the nodes",
    );
    starts(strips("columns", json!(1)), "unknown field `columns`");
    starts(instance(|written| written["batch"] = json!(0)).unwrap_err(), "batch is 0, and must be from 1 to");
    let many = json!(vec![json!({"blocks": [0, 3], "rows": 10}); 257]);
    let many = instance(|written| written["variants"][0]["strips"] = many.clone()).unwrap_err();
    starts(many, "strips of a variant: 257 are more than are planned over, which is 256");
}
