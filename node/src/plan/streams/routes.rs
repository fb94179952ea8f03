//! The cheapest route of one request when each resource's time has a price: a backward dynamic programme over
//! (cut, member). Each run's memory is looked at alone.

use stormo_protocol::codec::payload::Codec;

use super::Streams;
use crate::plan::price::{PlanShape, StageShape};

/// What a millisecond of each resource costs, by members.
pub(super) struct Prices {
    pub(super) members: Vec<f64>,
    pub(super) uplinks: Vec<f64>,
    /// `[from][to]`
    pub(super) links: Vec<f64>,
}

/// How long each range keeps each member busy; infinite where it must not run.
#[derive(Clone)]
pub(super) struct RunTimes {
    cuts: usize,
    /// `[member][first][end]`
    ms: Vec<f64>,
}

/// A route and what it costs.
pub(super) struct Route {
    pub(super) cost: f64,
    pub(super) shape: PlanShape,
}

impl Prices {
    /// Of nothing at all: no time is free, so that what is impossible stays so.
    pub(super) fn none(count: usize) -> Self {
        let none = |count: usize| vec![f64::MIN_POSITIVE; count];
        Self { members: none(count), uplinks: none(count), links: none(count * count) }
    }
}

impl RunTimes {
    pub(super) fn new(streams: &Streams) -> Self {
        let cuts = streams.blocks + 1;
        let mut ms = vec![f64::INFINITY; streams.count() * cuts * cuts];
        for (member, worker) in streams.workers.iter().enumerate() {
            for first in 0..streams.blocks {
                let row = &mut ms[(member * cuts + first) * cuts..][..cuts];
                worker.runs.each(streams.ranges, first, f64::MAX, |end, run_ms| row[end] = run_ms);
            }
        }
        Self { cuts, ms }
    }

    fn row(&self, member: usize, first: usize) -> &[f64] {
        &self.ms[(member * self.cuts + first) * self.cuts..][..self.cuts]
    }

    pub(super) fn of(&self, member: usize, stage: StageShape) -> f64 {
        self.row(member, stage.first.into())[usize::from(stage.end)]
    }

    pub(super) fn forbid(&mut self, member: usize, stage: StageShape) {
        let (first, end) = (usize::from(stage.first), usize::from(stage.end));
        self.ms[(member * self.cuts + first) * self.cuts + end] = f64::INFINITY;
    }

    /// Every range that a member may run.
    pub(super) fn ranges(&self, member: usize) -> impl Iterator<Item = (u16, u16)> {
        let may = move |first: usize, end: usize| self.row(member, first)[end].is_finite();
        let ranges =
            (0..self.cuts).flat_map(move |first| (first + 1..self.cuts).map(move |end| (first, end)));
        ranges.filter(move |(first, end)| may(*first, *end)).map(|(first, end)| (first as u16, end as u16))
    }
}

/// Costs to the result, of a sweep from there back.
struct Costs<'a> {
    streams: &'a Streams<'a>,
    runs: &'a RunTimes,
    prices: &'a Prices,
    /// `[from][to]` of a byte: on the link and on the sender's way out.
    byte: Vec<f64>,
    is_lossless: bool,
    /// `[member][cut]`: the cut's tensors are there.
    at: Vec<f64>,
    /// `[cut][member]`: about to run.
    start: Vec<f64>,
}

/// The cheapest route, if there is any; with codings that lose nothing, or with any that plans may use.
pub(super) fn cheapest(
    streams: &Streams,
    runs: &RunTimes,
    prices: &Prices,
    is_lossless: bool,
) -> Option<Route> {
    let (count, cuts) = (streams.count(), streams.blocks + 1);
    let byte = |link: usize| {
        let uplink = &streams.workers[link / count].uplink_ms_per_byte;
        prices.links[link] * streams.ms_per_byte[link] + prices.uplinks[link / count] * uplink
    };
    let mut costs = Costs {
        streams,
        runs,
        prices,
        byte: (0..count * count).map(byte).collect(),
        is_lossless,
        at: vec![f64::INFINITY; count * cuts],
        start: vec![f64::INFINITY; count * cuts],
    };
    costs.fill();
    costs.follow()
}

impl Costs<'_> {
    fn fill(&mut self) {
        let (count, cuts) = (self.streams.count(), self.streams.blocks + 1);
        for cut in (0..cuts).rev() {
            for member in (0..count).filter(|member| self.streams.may_start(*member, cut)) {
                self.start[cut * count + member] = match cut + 1 == cuts {
                    true if member == 0 => 0.0,
                    true => f64::INFINITY,
                    false => self.best_run(cut, member).0,
                };
            }
            // The input is nowhere but at the origin.
            for member in 0..if cut == 0 { 1 } else { count } {
                if cut + 1 < cuts || self.streams.may_end(member) {
                    let moved = self.best_hop(cut, member).map_or(f64::INFINITY, |hop| hop.0);
                    self.at[member * cuts + cut] = moved.min(self.start[cut * count + member]);
                }
            }
        }
    }

    /// The least cost of a run from a cut and what comes after it, and where it ends.
    fn best_run(&self, cut: usize, member: usize) -> (f64, usize) {
        let cuts = self.streams.blocks + 1;
        let price = self.prices.members[member];
        let runs = &self.runs.row(member, cut)[cut + 1..];
        let after = &self.at[member * cuts + cut + 1..(member + 1) * cuts];
        let mut best = (f64::INFINITY, cut);
        for (index, (run_ms, after)) in runs.iter().zip(after).enumerate() {
            let cost = price * run_ms + after;
            if cost < best.0 {
                best = (cost, cut + 1 + index);
            }
        }
        best
    }

    /// The least cost of sending a cut on and what comes after that, whom to, and how coded.
    fn best_hop(&self, cut: usize, from: usize) -> Option<(f64, usize, Codec)> {
        let (streams, count) = (self.streams, self.streams.count());
        let mut best = None;
        let mut best_cost = f64::INFINITY;
        let bytes_costs = &self.byte[from * count..][..count];
        let starts = &self.start[cut * count..][..count];
        for coding in streams.codings[cut].iter().filter(|coding| !self.is_lossless || coding.loss == 0.0) {
            let bytes = (coding.bytes as f64).max(f64::MIN_POSITIVE);
            let encode = self.prices.members[from] * streams.encode_ms(from, coding);
            for (to, (start, byte)) in starts.iter().zip(bytes_costs).enumerate() {
                let before_decoding = encode + byte * bytes + start;
                if before_decoding < best_cost && to != from {
                    let cost = before_decoding + self.prices.members[to] * streams.decode_ms(to, coding);
                    if cost < best_cost {
                        best_cost = cost;
                        best = Some((cost, to, coding.codec));
                    }
                }
            }
        }
        best
    }

    fn follow(&self) -> Option<Route> {
        let (count, last) = (self.streams.count(), self.streams.blocks);
        let cost = self.at[0];
        if !cost.is_finite() {
            return None;
        }
        let (mut cut, mut holder) = (0, 0);
        let (mut stages, mut codecs) = (vec![], vec![]);
        while cut < last {
            let mut codec = Codec::Raw;
            if let Some((moved, to, coded)) = self.best_hop(cut, holder)
                && moved < self.start[cut * count + holder]
            {
                (holder, codec) = (to, coded);
            }
            let (_, end) = self.best_run(cut, holder);
            let node = self.streams.workers[holder].member.node;
            stages.push(StageShape { node, first: cut as u16, end: end as u16 });
            codecs.push(codec);
            cut = end;
        }
        let home = if holder == 0 { None } else { self.best_hop(last, holder) };
        codecs.push(home.map_or(Codec::Raw, |(_, _, codec)| codec));
        Some(Route { cost, shape: PlanShape { stages, codecs } })
    }
}
