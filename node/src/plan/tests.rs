//! Tests of the planner as a whole, and what they share: small problems built by hand or at
//! random, and the plain way to an optimum, which is to try every plan.

mod big;
mod effort;
mod every_plan;
mod forks;
mod goals;
mod hand_cases;
mod instances;
mod losses;
mod metamorphic;
mod nearby;
mod refusals;
mod replicated;
mod shared_instances;
mod splits;
mod streams;

use stormo_protocol::codec::payload::Codec;

use super::{
    Coding, Extra, Factors, Kind, KnownRange, Link, Links, Node, PlanShape, Priced, Problem, StageShape,
    Watts,
};

/// Numbers that look random and are the same on every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn list<T>(&mut self, count: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..count).map(|_| make(self)).collect()
    }
}

/// A problem whose nodes hold two blocks of ten each, so that an exact search looks at many partial plans.
pub(super) fn tight_problem() -> Problem {
    big::mesh(8, 20)
}

/// Whether two latencies agree to within what rounding explains.
fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

/// A node with ample memory on which loading is free.
fn node(block_ms: &[f64]) -> Node {
    Node {
        can_compute: true,
        queue_wait_ms: 0.0,
        memory_free_bytes: u64::MAX,
        overhead_ms: 0.0,
        block_ms: block_ms.to_vec(),
        extra_factor: 1.0,
        known: vec![],
        cold_fixed_ms: 0.0,
        cold_ms_per_byte: 0.0,
        encode_factors: Factors::same(1.0),
        decode_factors: Factors::same(1.0),
        watts: Watts::default(),
        tail_mj: 0.0,
        uplink_ms_per_byte: 0.0,
    }
}

fn link(latency_ms: f64, ms_per_byte: f64) -> Link {
    Link { latency_ms, ms_per_byte }
}

/// Stages with nothing coded between them.
fn shape(stages: &[(usize, u16, u16)]) -> PlanShape {
    PlanShape {
        stages: stages.iter().map(|&(node, first, end)| StageShape { node, first, end }).collect(),
        codecs: vec![Codec::Raw; stages.len() + 1],
    }
}

/// A small problem with a bit of everything: tight memory, loaded ranges, missing links, codecs.
fn random_problem(seed: u64) -> Problem {
    let mut numbers = Numbers(seed);
    let blocks = 1 + numbers.below(5) as usize;
    let nodes = 1 + numbers.below(if blocks == 5 { 3 } else { 4 }) as usize;
    let is_tight = numbers.one_in(2);
    let mut links = Links::new(nodes);
    for from in 0..nodes {
        for to in 0..nodes {
            if !numbers.one_in(8) {
                links.set(from, to, random_link(&mut numbers));
            }
        }
    }
    let cut_bytes = numbers.list(blocks + 1, |numbers| numbers.below(20));
    Problem {
        codings: cut_bytes
            .iter()
            .map(|bytes| random_coding(&mut numbers, *bytes).into_iter().collect())
            .collect(),
        loss_max: 0.0,
        cut_bytes,
        block_weights_bytes: numbers.list(blocks, |numbers| numbers.below(6)),
        block_peak_bytes: numbers.list(blocks, |numbers| numbers.below(4)),
        extra: random_extra(&mut numbers, blocks),
        nodes: numbers.list(nodes, |numbers| random_node(numbers, blocks, is_tight)),
        links,
        force_first: numbers.one_in(6),
        force_last: numbers.one_in(6),
    }
}

/// Perhaps a lossless coding of a quarter of the bytes.
fn random_coding(numbers: &mut Numbers, raw_bytes: u64) -> Option<Coding> {
    let times_ms = [numbers.below(8) as f64 / 4.0, numbers.below(8) as f64 / 4.0];
    let [encode_ms, decode_ms] = times_ms;
    let coding = Coding { codec: Codec::ShuffleLz4, bytes: raw_bytes / 4, encode_ms, decode_ms, loss: 0.0 };
    numbers.one_in(3).then_some(coding)
}

/// Costs of borders and some exceptions, or none.
fn random_extra(numbers: &mut Numbers, blocks: usize) -> Extra {
    if numbers.one_in(3) {
        return Extra::none();
    }
    let mut ms = vec![vec![0.0f64; blocks + 1]; blocks];
    for len in 1..=blocks {
        for first in 0..=blocks - len {
            let end = first + len;
            let parts = (first + 1..end).map(|cut| ms[first][cut] + ms[cut][end]);
            ms[first][end] = parts.fold(numbers.below(12) as f64, f64::min);
        }
    }
    Extra::of(blocks, |range| ms[range.start][range.end])
}

fn random_link(numbers: &mut Numbers) -> Link {
    link(numbers.below(10) as f64, numbers.below(16) as f64 / 8.0)
}

fn random_factors(numbers: &mut Numbers) -> Factors {
    let mut factors = Factors::same(numbers.below(4) as f64 / 2.0);
    if numbers.one_in(3) {
        factors.set(Codec::ShuffleLz4, numbers.below(4) as f64);
    }
    factors
}

fn random_node(numbers: &mut Numbers, blocks: usize, is_tight: bool) -> Node {
    let known_count = numbers.below(3) as usize;
    let mut known = numbers.list(known_count, |numbers| {
        let first = numbers.below(blocks as u64);
        let end = first + 1 + numbers.below(blocks as u64 - first);
        let time_ms = numbers.one_in(2).then(|| numbers.below(60) as f64);
        let is_loaded = !numbers.one_in(3);
        KnownRange {
            first: first as u16,
            end: end as u16,
            time_ms,
            is_loaded,
            has_memory: is_loaded && !numbers.one_in(3),
        }
    });
    known.sort_by_key(|range| (range.first, range.end));
    known.dedup_by_key(|range| (range.first, range.end));
    Node {
        can_compute: !numbers.one_in(8),
        queue_wait_ms: if numbers.one_in(3) { numbers.below(10) as f64 } else { 0.0 },
        memory_free_bytes: if is_tight { 3 + numbers.below(9) } else { u64::MAX },
        overhead_ms: numbers.below(4) as f64,
        block_ms: numbers.list(blocks, |numbers| numbers.below(30) as f64),
        extra_factor: numbers.below(3) as f64,
        known,
        cold_fixed_ms: numbers.below(8) as f64,
        cold_ms_per_byte: numbers.below(3) as f64 / 2.0,
        encode_factors: random_factors(numbers),
        decode_factors: random_factors(numbers),
        watts: Watts {
            idle: numbers.below(3) as f64 / 4.0,
            compute: numbers.below(12) as f64 / 2.0,
            send: numbers.below(6) as f64 / 2.0,
            receive: numbers.below(6) as f64 / 4.0,
        },
        tail_mj: numbers.below(20) as f64,
        uplink_ms_per_byte: numbers.below(4) as f64 / 8.0,
    }
}

/// Prices every plan there is: all divisions times all assignments times all codings.
fn every_plan(problem: &Problem) -> Vec<Priced> {
    let (blocks, nodes) = (problem.block_count(), problem.nodes.len());
    let mut found = vec![];
    // A bit between two blocks says whether they are parted there.
    for borders in 0..1u32 << (blocks - 1) {
        let stages = borders.count_ones() as usize + 1;
        for mut assignment in 0..nodes.pow(stages as u32) {
            let mut stages = vec![];
            let mut first = 0;
            for end in 1..=blocks {
                if end == blocks || borders >> (end - 1) & 1 == 1 {
                    stages.push(StageShape { node: assignment % nodes, first, end: end as u16 });
                    assignment /= nodes;
                    first = end as u16;
                }
            }
            let shapes = every_coding(problem, &stages);
            found.extend(shapes.into_iter().flat_map(|shape| problem.price(&shape)));
        }
    }
    found
}

/// These stages with every combination of codings between them.
fn every_coding(problem: &Problem, stages: &[StageShape]) -> Vec<PlanShape> {
    let mut holder = 0;
    let mut codecs = vec![vec![]];
    let home = StageShape { node: 0, first: problem.block_count() as u16, end: 0 };
    for to in stages.iter().chain([&home]) {
        let coded = problem.codings[usize::from(to.first)].iter().filter(|_| holder != to.node);
        let ways: Vec<Codec> = [Codec::Raw].into_iter().chain(coded.map(|coding| coding.codec)).collect();
        codecs = codecs
            .iter()
            .flat_map(|before: &Vec<Codec>| ways.iter().map(|codec| [&before[..], &[*codec]].concat()))
            .collect();
        holder = to.node;
    }
    codecs.into_iter().map(|codecs| PlanShape { stages: stages.to_vec(), codecs }).collect()
}

fn least_ms<'a>(plans: impl IntoIterator<Item = &'a Priced>) -> Option<f64> {
    plans.into_iter().map(|priced| priced.latency_ms).min_by(f64::total_cmp)
}

/// Local, remote whole, or a chain whose nodes are all distinct.
fn is_of_kind(priced: &Priced, kind: Kind) -> bool {
    let mut nodes: Vec<usize> = priced.shape.stages.iter().map(|stage| stage.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    match kind {
        Kind::Chain(stages) => nodes.len() == stages && priced.shape.kind() == kind,
        _ => priced.shape.kind() == kind,
    }
}
