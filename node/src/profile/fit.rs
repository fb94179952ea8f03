//! From the measured times of some ranges of blocks to the time of every range.
//!
//! A range takes a constant, what each of its blocks takes alone, and what each tensor costs that enters or
//! leaves its session: conversion to and from the layout that ONNX Runtime computes in, and the copy out.
//! It saves what ONNX Runtime gains from having a few neighbouring blocks in one session: fusion, and
//! kernels that only neighbours in the right layout allow (a pooling of 8-bit integers takes ten times as
//! long without its convolution). And it takes the longer the more the rest of it displaces from the caches,
//! which goes with the square of its time. None of these is negative.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use stormo_protocol::profile::range_count;

use super::choice::BlockRange;
use super::least::{Equation, solve};
use super::structure::Structure;

/// How far off a measured time may be, as a share of it.
const MEASURED_SHARE: f64 = 0.02;
/// A fitted time that is further than this from what was measured, as a share of it, does not count: more than clocks err.
const FAR_SHARE: f64 = 0.1;
/// Sessions of one, two and more blocks are off by more: where both ends of an operation's neighbourhood are
/// missing, costs do not add up. And the errors of short ranges pile up in long ones.
const SHORT_SHARES: [f64; 4] = [0.3, 0.1, 0.05, 0.05];
/// The part of an error that does not shrink with the time, microseconds: the clock, and waking.
const MEASURED_US: f64 = 1.0;
/// How many deviations off a measured time begins to count less, an expectation, and an expected saving.
const MEASURED_OUTLIER: f64 = 6.0;
const EXPECTED_OUTLIER: f64 = 2.0;
const SAVING_OUTLIER: f64 = 1.0;
/// How far a block's own time may be from its share of the whole, by measurements of single blocks.
const BLOCK_SHARE: f64 = 0.5;
/// How far a tensor's cost may be from what its bytes let expect, as a share of a mean block's time.
const TENSOR_SHARE: f64 = 0.5;
/// How much neighbours may save, as a share of what the slowest of them takes alone. Most save nothing.
const SAVING_SHARE: f64 = 0.01;
/// How many neighbours are thought to save something together. What two save is no different from what the
/// tensors between them cost.
const NEIGHBOURS: RangeInclusive<usize> = 3..=8;
/// How much longer the whole may take by what it displaces from the caches.
const CROWDING_SHARE: f64 = 0.1;
/// The constant part of a run, microseconds, and how far it may be from that.
const CONSTANT_US: (f64, f64) = (5.0, 20.0);

/// Times of a variant's graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// What each block adds to a range at least, nanoseconds.
    pub block_ns: Vec<u64>,
    /// The time of each range, nanoseconds, by [`stormo_protocol::profile::range_index`].
    pub range_ns: Vec<u64>,
}

/// Fits times, in microseconds, of which the whole should be one. What many others contradict is let go, but a range that was
/// measured and is told far off takes what was measured: it may be slow in a way that no longer one is.
pub fn fit(structure: &Structure, measured: &[(BlockRange, f64)]) -> Fitted {
    let unknowns = Unknowns::new(structure, measured);
    let x_us = unknowns.solve(measured);
    let block_ns = unknowns.blocks_with_savings(&x_us);
    let measured_us: HashMap<BlockRange, f64> = measured.iter().copied().collect();
    let mut range_ns = Vec::with_capacity(range_count(unknowns.blocks));
    for first in 0..unknowns.blocks {
        let mut blocks_ns = 0;
        for end in first + 1..=unknowns.blocks {
            blocks_ns += block_ns[end - 1];
            let range = BlockRange { first, end };
            let terms = unknowns.terms(range);
            let fitted_us: f64 = terms.into_iter().map(|(unknown, factor)| factor * x_us[unknown]).sum();
            let is_far = |time_us: &f64| (fitted_us - time_us).abs() > FAR_SHARE * time_us;
            let time_us = measured_us.get(&range).copied().filter(is_far).unwrap_or(fitted_us);
            range_ns.push(nanos(time_us).max(blocks_ns));
        }
    }
    Fitted { block_ns, range_ns }
}

/// At most a quarter of an hour.
fn nanos(time_us: f64) -> u64 {
    (time_us * 1000.0).min(1e12) as u64
}

/// Where each unknown stands: the blocks' times, the tensors' costs of entering and of leaving, the two
/// costs per byte that these are expected to follow, the constant, what the caches cost the whole, and what
/// neighbours save, threes first.
struct Unknowns<'a> {
    structure: &'a Structure,
    blocks: usize,
    tensors: usize,
    whole_us: f64,
    /// Time of each block by itself.
    alone_us: Vec<f64>,
    /// Parts of the whole before each block, by these times.
    before: Vec<f64>,
}

impl<'a> Unknowns<'a> {
    fn new(structure: &'a Structure, measured: &[(BlockRange, f64)]) -> Self {
        let (blocks, tensors) = (structure.blocks(), structure.tensor_bytes.len());
        let time_of = |range| measured.iter().find(|one| one.0 == range).map(|one| one.1);
        let longest_us = || measured.iter().map(|one| one.1).fold(0.0, f64::max);
        let whole_us = time_of(BlockRange { first: 0, end: blocks }).unwrap_or_else(longest_us);
        let alone = (0..blocks).map(|first| BlockRange { first, end: first + 1 });
        let alone_us: Vec<f64> =
            alone.map(|range| time_of(range).unwrap_or(whole_us / blocks as f64)).collect();
        let all_us = alone_us.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut before = vec![0.0];
        before.extend(alone_us.iter().scan(0.0, |sum_us, alone_us| {
            *sum_us += alone_us;
            Some(*sum_us / all_us)
        }));
        Self { structure, blocks, tensors, whole_us, alone_us, before }
    }

    fn enters(&self, tensor: usize) -> usize {
        self.blocks + tensor
    }

    fn leaves(&self, tensor: usize) -> usize {
        self.blocks + self.tensors + tensor
    }

    fn entering_byte(&self) -> usize {
        self.blocks + 2 * self.tensors
    }

    fn leaving_byte(&self) -> usize {
        self.entering_byte() + 1
    }

    fn constant(&self) -> usize {
        self.entering_byte() + 2
    }

    fn crowding(&self) -> usize {
        self.entering_byte() + 3
    }

    /// All neighbours within a range, and the unknown that they save.
    fn savings(&self, range: BlockRange) -> impl Iterator<Item = (BlockRange, usize)> {
        let (blocks, mut next) = (self.blocks, self.crowding() + 1);
        let lens = NEIGHBOURS.take_while(move |len| *len <= blocks).map(move |len| {
            let of_len = next;
            next += blocks + 1 - len;
            (len, of_len)
        });
        lens.take_while(move |(len, _)| *len <= range.blocks()).flat_map(move |(len, of_len)| {
            (range.first..=range.end - len)
                .map(move |first| (BlockRange { first, end: first + len }, of_len + first))
        })
    }

    fn all(&self) -> BlockRange {
        BlockRange { first: 0, end: self.blocks }
    }

    fn count(&self) -> usize {
        self.crowding() + 1 + self.savings(self.all()).count()
    }

    /// What the time of a range is the sum of: unknowns and their factors.
    fn terms(&self, range: BlockRange) -> Vec<(usize, f64)> {
        let enters = self.structure.inputs(range).into_iter().map(|tensor| self.enters(tensor));
        let leaves = self.structure.outputs(range).map(|tensor| self.leaves(tensor));
        let costs = (range.first..range.end).chain(enters).chain(leaves).chain([self.constant()]);
        let part_of_whole = self.before[range.end] - self.before[range.first];
        let saved = self.savings(range).map(|(_, unknown)| (unknown, -1.0));
        let costs = costs.map(|unknown| (unknown, 1.0));
        costs.chain([(self.crowding(), part_of_whole.powi(2))]).chain(saved).collect()
    }

    /// What each block takes where its neighbours are with it, nanoseconds: of what these save, each has a
    /// part by its time. A range takes no less than the sum, for it has its neighbours at most.
    fn blocks_with_savings(&self, x_us: &[f64]) -> Vec<u64> {
        let mut left_us = x_us[..self.blocks].to_vec();
        for (neighbours, unknown) in self.savings(self.all()) {
            let blocks = neighbours.first..neighbours.end;
            let of_all_us: f64 = x_us[blocks.clone()].iter().sum();
            for block in blocks {
                left_us[block] -= x_us[unknown] * x_us[block] / of_all_us.max(f64::MIN_POSITIVE);
            }
        }
        left_us.into_iter().map(nanos).collect()
    }

    /// Each unknown in microseconds.
    fn solve(&self, measured: &[(BlockRange, f64)]) -> Vec<f64> {
        let mut equations: Vec<Equation> =
            measured.iter().map(|(range, time_us)| self.measured(*range, *time_us)).collect();
        let mut guess = vec![0.0; self.count()];
        for ((block, guess_us), parts) in guess.iter_mut().enumerate().zip(self.before.windows(2)) {
            *guess_us = self.whole_us * (parts[1] - parts[0]);
            equations.push(expected(vec![(block, 1.0)], *guess_us, BLOCK_SHARE * *guess_us));
        }
        self.expect_costs_by_bytes(&mut equations);
        let (value, deviation) = CONSTANT_US;
        equations.push(expected(vec![(self.constant(), 1.0)], value, deviation));
        equations.push(expected(vec![(self.crowding(), 1.0)], 0.0, CROWDING_SHARE * self.whole_us));
        equations.extend(self.savings(self.all()).map(|(neighbours, unknown)| {
            let alone_us = &self.alone_us[neighbours.first..neighbours.end];
            let slowest_us = alone_us.iter().copied().fold(0.0, f64::max);
            let expected = expected(vec![(unknown, 1.0)], 0.0, SAVING_SHARE * slowest_us);
            Equation { outlier: SAVING_OUTLIER, ..expected }
        }));
        solve(&equations, guess)
    }

    fn measured(&self, range: BlockRange, time_us: f64) -> Equation {
        let share = SHORT_SHARES.get(range.blocks() - 1).copied().unwrap_or(MEASURED_SHARE);
        let deviation = share * time_us + MEASURED_US;
        Equation { terms: self.terms(range), value: time_us, deviation, outlier: MEASURED_OUTLIER }
    }

    /// Costs per byte are the same for all tensors unless measurements say otherwise; they are counted
    /// for the mean tensor here, so that all unknowns are times of about the same size.
    fn expect_costs_by_bytes(&self, equations: &mut Vec<Equation>) {
        let mean_us = self.whole_us / self.blocks as f64;
        let tensor_bytes = &self.structure.tensor_bytes;
        let sum: f64 = tensor_bytes.iter().map(|bytes| *bytes as f64).sum();
        let mean_bytes = (sum / self.tensors as f64).max(1.0);
        for (tensor, bytes) in tensor_bytes.iter().enumerate() {
            let size = *bytes as f64 / mean_bytes;
            let deviation = TENSOR_SHARE * mean_us * (0.2 + 0.8 * size);
            let ways =
                [(self.enters(tensor), self.entering_byte()), (self.leaves(tensor), self.leaving_byte())];
            equations.extend(ways.map(|(unknown, per_byte)| {
                expected(vec![(unknown, 1.0), (per_byte, -size)], 0.0, deviation)
            }));
        }
        let per_byte = [self.entering_byte(), self.leaving_byte()];
        equations.extend(per_byte.map(|unknown| expected(vec![(unknown, 1.0)], 0.0, mean_us)));
    }
}

/// What is believed until measurements say otherwise, to within a deviation and what no clock tells.
fn expected(terms: Vec<(usize, f64)>, value: f64, deviation_us: f64) -> Equation {
    Equation { terms, value, deviation: deviation_us + MEASURED_US, outlier: EXPECTED_OUTLIER }
}
