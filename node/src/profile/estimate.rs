//! The time of any range of blocks on a node: the reference carried over by the two nodes' speeds, then
//! corrected by the ranges that the node has measured itself.

use std::ops::Range;

use stormo_protocol::model::{Block, Manifest};
use stormo_protocol::profile::{Speeds, WorkClass, range_index};

/// A ratio of two measured speeds is believed as far as it goes beyond this (natural logarithm): two
/// calibrations of the same machine differ by some percent, and that is no difference of machines.
const SPEED_NOISE: f64 = 0.06;
/// The largest correction that a node's own measurements may bring (natural logarithm): a factor of 20.
const CORRECTION_MAX: f64 = 3.0;
/// Share of a variant's time whose measurement is believed by half, where it speaks of other blocks.
const HALF_BELIEVED_SHARE: f64 = 0.05;
/// How far a range's ratio goes for its own blocks; the rest is the node's mean ratio.
const OWN_BLOCKS_SHARE: f64 = 0.8;

/// A range's time as its host measured it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Blocks of the graph.
    pub blocks: Range<u16>,
    /// One run, microseconds.
    pub time_us: f64,
}

/// A variant's reference times, made ready to be carried over to many nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictor {
    reference: Speeds,
    /// The graph's part of all blocks.
    graph: Range<usize>,
    /// What each block adds on the reference node, microseconds, by class of work. Ends are of no class;
    /// their time is spread over all.
    block_us: Vec<[f64; WorkClass::COUNT]>,
    /// What each range of the graph takes there beyond its blocks, by [`range_index`].
    extra_us: Vec<f64>,
}

/// Times of a variant's blocks on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// What each block adds to a range, microseconds; ends included.
    pub block_us: Vec<f64>,
    /// How many times as long as on the reference node a range takes beyond its blocks.
    pub extra_factor: f64,
}

impl Predictor {
    /// Of a manifest that passed its check.
    pub fn new(manifest: &Manifest) -> Self {
        let reference = manifest.reference.speeds;
        let graph = manifest.graph_blocks();
        let graph = usize::from(graph.start)..usize::from(graph.end);
        let mut extra_us = Vec::with_capacity(manifest.reference.range_ns.len());
        let mut ranges_ns = manifest.reference.range_ns.iter();
        for first in graph.clone() {
            let mut blocks_ns = 0;
            for block in &manifest.blocks[first..graph.end] {
                blocks_ns += block.time_ns;
                let range_ns = ranges_ns.next().copied().unwrap_or(0);
                extra_us.push(micros(range_ns.saturating_sub(blocks_ns)));
            }
        }
        let block_us = manifest.blocks.iter().map(|block| by_class(block, &reference)).collect();
        Self { reference, graph, block_us, extra_us }
    }

    /// What a range takes on the reference node beyond its blocks, microseconds. Ends take nothing more.
    pub fn extra_us(&self, blocks: Range<usize>) -> f64 {
        let (first, end) = (blocks.start.max(self.graph.start), blocks.end.min(self.graph.end));
        if first >= end {
            return 0.0;
        }
        let start = self.graph.start;
        self.extra_us[range_index(self.graph.len(), first - start, end - start)]
    }

    /// What a node of these speeds takes, which has measured these ranges of the variant.
    pub fn on_node(&self, speeds: &Speeds, measured: &[Measured]) -> Estimate {
        let ratios = WorkClass::ALL.map(|class| believed(self.reference.of(class) / speeds.of(class)));
        let block_us =
            self.block_us.iter().map(|times| times.iter().zip(ratios).map(|(us, ratio)| us * ratio).sum());
        let mut estimate =
            Estimate { block_us: block_us.collect(), extra_factor: ratios[WorkClass::Memory as usize] };
        self.correct(&mut estimate, measured);
        estimate
    }

    /// What these blocks take together on nodes that have measured nothing, by their speeds, microseconds.
    pub fn unmeasured_us(&self, blocks: Range<usize>) -> impl Fn(&Speeds) -> f64 + use<> {
        let mut all_us = [0.0; WorkClass::COUNT];
        for times in &self.block_us[blocks] {
            all_us.iter_mut().zip(times).for_each(|(all_us, us)| *all_us += us);
        }
        let reference = self.reference;
        move |speeds| {
            let ratio = |class: WorkClass| believed(reference.of(class) / speeds.of(class));
            WorkClass::ALL.into_iter().zip(all_us).map(|(class, us)| us * ratio(class)).sum()
        }
    }

    /// Time of a range on a node, microseconds.
    pub fn range_us(&self, estimate: &Estimate, blocks: Range<usize>) -> f64 {
        let own: f64 = estimate.block_us[blocks.clone()].iter().sum();
        own + estimate.extra_factor * self.extra_us(blocks)
    }

    fn correct(&self, estimate: &mut Estimate, measured: &[Measured]) {
        let all_us: f64 = estimate.block_us.iter().sum();
        let (mut seen_us, mut sum) = (0.0, 0.0);
        // For each block the weights and weighted ratios of the ranges that it is in.
        let mut own = vec![(0.0, 0.0); estimate.block_us.len()];
        for Measured { blocks, time_us } in measured {
            let blocks = usize::from(blocks.start)..usize::from(blocks.end);
            if blocks.is_empty() || blocks.start < self.graph.start || blocks.end > self.graph.end {
                continue;
            }
            let expected_us = self.range_us(estimate, blocks.clone());
            let ratio = (time_us / expected_us).ln();
            if !ratio.is_finite() {
                continue;
            }
            let ratio = ratio.clamp(-CORRECTION_MAX, CORRECTION_MAX);
            (seen_us, sum) = (seen_us + expected_us, sum + expected_us * ratio);
            // A shorter range says more of each of its blocks.
            let weight = 1.0 / blocks.len() as f64;
            for (weights, ratios) in &mut own[blocks] {
                *weights += weight;
                *ratios += weight * ratio;
            }
        }
        if seen_us <= 0.0 {
            return;
        }
        let mean = sum / (seen_us + HALF_BELIEVED_SHARE * all_us);
        for (block_us, (weights, ratios)) in estimate.block_us.iter_mut().zip(own) {
            let own = if weights > 0.0 { ratios / weights } else { mean };
            *block_us *= (OWN_BLOCKS_SHARE * own + (1.0 - OWN_BLOCKS_SHARE) * mean).exp();
        }
        estimate.extra_factor *= mean.exp();
    }
}

/// A block's time, shared out by what each class of its work takes at these speeds.
fn by_class(block: &Block, speeds: &Speeds) -> [f64; WorkClass::COUNT] {
    let shares = WorkClass::ALL.map(|class| block.work.of(class) as f64 / speeds.of(class));
    let all: f64 = shares.iter().sum();
    let time_us = micros(block.time_ns);
    shares.map(|share| time_us * if all > 0.0 { share / all } else { 1.0 / WorkClass::COUNT as f64 })
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// A ratio without what may be noise.
fn believed(ratio: f64) -> f64 {
    let log = ratio.ln();
    (log.signum() * (log.abs() - SPEED_NOISE).max(0.0)).exp()
}
