//! Meshes in three tiers, and a network for them, drawn from a seed: handhelds, boxes near them, servers far away.
//! All figures are guesses at what there is; ranges, not points.

use stormo::plan::{
    Branch, Coding, Extra, Factors, Goal, Link, Links, Node, Objective, Problem, Region, Watts,
};
use stormo_protocol::codec::payload::Codec;
use stormo_testnet::random::Random;

/// What is asked of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    /// Least latency; memory so tight that runs compete for it.
    LatencyWithMemory,
    /// Least latency within budgets of energy and accuracy that bind.
    LatencyWithBudgets,
    /// The shortest period.
    Throughput,
    /// Least latency with branches beside each other.
    Regions,
    /// The shortest period of requests that take several routes.
    Replicated,
}

impl Asked {
    pub(super) const ALL: [Self; 5] = [
        Self::LatencyWithMemory,
        Self::LatencyWithBudgets,
        Self::Throughput,
        Self::Regions,
        Self::Replicated,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Device,
    Edge,
    Cloud,
}

/// A problem and its goal; budgets lie where they bind only once they are set.
pub(super) fn draw(asked: Asked, nodes: usize, seed: u64) -> (Problem, Goal) {
    let mut random = Random::of(seed, "plan");
    let blocks = 20 + random.below(41);
    let tiers: Vec<Tier> = (0..nodes).map(|index| tier(index, &mut random)).collect();
    let block_ms: Vec<f64> =
        (0..blocks).map(|_| random.between(0.3, 2.0) * random.between(0.3, 2.0)).collect();
    let weights_bytes: Vec<u64> = (0..blocks).map(|_| random.between(0.1e6, 4e6) as u64).collect();
    let all_weights: u64 = weights_bytes.iter().sum();
    let cut_bytes = cuts(blocks, &mut random);
    let is_tight = asked == Asked::LatencyWithMemory;
    let problem = Problem {
        codings: cut_bytes.iter().map(|bytes| codings(*bytes, &mut random)).collect(),
        loss_max: 0.0,
        block_peak_bytes: cut_bytes.windows(2).map(|ends| ends[0] + ends[1]).collect(),
        cut_bytes,
        extra: Extra::none(),
        nodes: tiers.iter().map(|tier| node(*tier, &block_ms, all_weights, is_tight, &mut random)).collect(),
        links: links(&tiers, &mut random),
        force_first: false,
        force_last: false,
        block_weights_bytes: weights_bytes,
    };
    let is_stream = matches!(asked, Asked::Throughput | Asked::Replicated);
    let objective = if is_stream { Objective::Throughput } else { Objective::Latency };
    (problem, Goal { objective, ..Goal::default() })
}

/// A region of two to four branches of one to five blocks each, somewhere in a network; each reads and leaves a part of
/// what crosses its ends.
pub(super) fn region(problem: &Problem, seed: u64) -> Region {
    let mut random = Random::of(seed, "region");
    let lengths: Vec<usize> = (0..2 + random.below(3)).map(|_| 1 + random.below(5)).collect();
    let blocks = problem.block_weights_bytes.len();
    // At most 20, which every network has.
    let all = lengths.iter().sum::<usize>();
    let fork = random.below(blocks - all + 1);
    let mut first = fork;
    let mut branches = vec![];
    let bytes =
        |cut: usize, random: &mut Random| (problem.cut_bytes[cut] as f64 * random.between(0.3, 1.0)) as u64;
    for length in lengths {
        let end = first + length;
        let (in_bytes, out_bytes) = (bytes(fork, &mut random), bytes(fork + all, &mut random));
        branches.push(Branch { first: first as u16, end: end as u16, in_bytes, out_bytes });
        first = end;
    }
    Region { branches, past_bytes: 0 }
}

/// The first is the device that asks.
fn tier(index: usize, random: &mut Random) -> Tier {
    match random.below(10) {
        _ if index == 0 => Tier::Device,
        0..4 => Tier::Device,
        4..8 => Tier::Edge,
        _ => Tier::Cloud,
    }
}

/// Activations shrink on the way, with a thin cut now and then.
fn cuts(blocks: usize, random: &mut Random) -> Vec<u64> {
    let cut = |cut: usize| {
        let depth = cut as f64 / blocks as f64;
        let thick = 1.5e6 * (1.0 - depth).powi(2) + 4e3;
        let share = if random.below(5) == 0 { 0.15 } else { 1.0 };
        (thick * share * random.between(0.5, 1.5)) as u64
    };
    (0..=blocks).map(cut).collect()
}

fn codings(raw_bytes: u64, random: &mut Random) -> Vec<Coding> {
    let mb = raw_bytes as f64 / 1e6;
    let coded = |codec, ratio: f64, ms_per_mb: f64, loss| {
        let (encode_ms, decode_ms) = (0.01 + ms_per_mb * mb, 0.01 + ms_per_mb * mb);
        Coding { codec, bytes: (raw_bytes as f64 * ratio) as u64, encode_ms, decode_ms, loss }
    };
    vec![
        coded(Codec::ShuffleLz4, random.between(0.6, 0.95), 0.3, 0.0),
        coded(Codec::Int8, 0.25, 0.2, random.between(0.001, 0.006)),
    ]
}

fn node(tier: Tier, block_ms: &[f64], all_weights: u64, is_tight: bool, random: &mut Random) -> Node {
    let (times, share) = match tier {
        Tier::Device => (random.between(5.0, 15.0), random.between(0.1, 0.5)),
        Tier::Edge => (random.between(1.0, 4.0), random.between(0.2, 0.9)),
        Tier::Cloud => (random.between(0.3, 1.0), random.between(0.3, 1.2)),
    };
    let share = if is_tight { share } else { share * 8.0 };
    // No two machines like the same blocks.
    let own = |time_ms: &f64| time_ms * times * random.between(0.8, 1.25);
    let block_ms = block_ms.iter().map(own).collect();
    Node {
        can_compute: true,
        queue_wait_ms: if random.below(4) == 0 { random.between(0.0, 10.0) } else { 0.0 },
        memory_free_bytes: (all_weights as f64 * share) as u64 + 4_000_000,
        overhead_ms: 0.05 * times,
        block_ms,
        extra_factor: 0.0,
        known: vec![],
        cold_fixed_ms: 0.0,
        cold_ms_per_byte: 0.0,
        encode_factors: Factors::same(times),
        decode_factors: Factors::same(times),
        watts: Watts { idle: 0.4, compute: 3.0, send: 1.6, receive: 0.9 },
        tail_mj: 20.0,
        uplink_ms_per_byte: 0.0,
    }
}

fn links(tiers: &[Tier], random: &mut Random) -> Links {
    let mut links = Links::new(tiers.len());
    for (from, one) in tiers.iter().enumerate() {
        for (to, other) in tiers.iter().enumerate().filter(|(to, _)| *to != from) {
            let (latency_ms, ms_per_mb) = match (one, other) {
                (Tier::Cloud, Tier::Cloud) => (1.0, 1.0),
                (Tier::Edge, Tier::Edge) => (1.0, 10.0),
                (Tier::Device, Tier::Cloud) => (40.0, 160.0),
                (Tier::Cloud, Tier::Device) => (40.0, 40.0),
                (Tier::Edge, Tier::Cloud) | (Tier::Cloud, Tier::Edge) => (30.0, 20.0),
                (Tier::Device, _) | (_, Tier::Device) => (3.0, 60.0),
            };
            let latency_ms = latency_ms * random.between(0.5, 2.0);
            let ms_per_byte = ms_per_mb * random.between(0.5, 2.0) / 1e6;
            links.set(from, to, Link { latency_ms, ms_per_byte });
        }
    }
    links
}
