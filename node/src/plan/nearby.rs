//! Nodes of a large mesh that a plan would be quicker with, though they were not chosen to plan over: for each, a run
//! of its own somewhere along the plan, the rest staying as it is.

use stormo_protocol::codec::payload::Codec;

use super::coding::Hop;
use super::costs::{Codings, Stock};
use super::goal::ROUNDING;
use super::price::{PlanShape, StageShape};
use super::problem::Problem;
use super::through::cuts;

/// A cut along a plan.
struct Place {
    cut: usize,
    /// Who has its tensors, and when.
    holder: usize,
    had_ms: f64,
    /// Who runs what is behind it, and how long it takes from there to the result.
    runner: usize,
    rest_ms: f64,
}

/// Those of some nodes, none of which the plan runs on, that would make it quicker; the one that helps most first.
pub(super) fn quicker_with(
    stock: &Stock,
    (shape, latency_ms): (&PlanShape, f64),
    nodes: impl Iterator<Item = usize>,
) -> Vec<usize> {
    let places = places(stock.problem, shape);
    let codings = stock.worthwhile(stock.problem.loss_price_min_ms());
    let below_ms = latency_ms * (1.0 - ROUNDING);
    let with = |node| with_ms(stock, &codings, &places, (node, below_ms)).map(|ms| (ms, node));
    let mut found: Vec<(f64, usize)> = nodes.filter_map(with).collect();
    found.sort_by(|one, other| one.0.total_cmp(&other.0));
    found.into_iter().map(|(_, node)| node).collect()
}

/// The least latency with a run on this node, if that is below what matters.
fn with_ms(
    stock: &Stock,
    codings: &Codings,
    places: &[Place],
    (node, below_ms): (usize, f64),
) -> Option<f64> {
    let problem = stock.problem;
    let hop_ms = |from: usize, to: usize, cut: usize| match problem.links.get(from, to) {
        Some(link) => codings.hop_ms(&problem.nodes[from], link, &problem.nodes[to], cut),
        None => f64::INFINITY,
    };
    let last = problem.block_count();
    let end_ms = |place: &Place| match place.cut == 0 || (problem.force_last && place.cut == last) {
        true => f64::INFINITY,
        false => hop_ms(node, place.runner, place.cut) + place.rest_ms,
    };
    let ends_ms: Vec<f64> = places.iter().map(end_ms).collect();
    // By place: the least of the ends behind it.
    let mut behind_ms = vec![f64::INFINITY; places.len()];
    for index in (1..places.len()).rev() {
        behind_ms[index - 1] = behind_ms[index].min(ends_ms[index]);
    }
    let mut least_ms = below_ms;
    for (index, place) in places.iter().enumerate().filter(|(_, place)| place.cut < last) {
        let is_hopeless = |start_ms: f64| start_ms + behind_ms[index] >= least_ms;
        if (problem.force_first && place.cut == 0) || is_hopeless(place.had_ms) {
            continue;
        }
        let start_ms = place.had_ms + hop_ms(place.holder, node, place.cut);
        if is_hopeless(start_ms) {
            continue;
        }
        let runs = stock.runs(node);
        for (end, end_ms) in places.iter().zip(&ends_ms).skip(index + 1) {
            if start_ms + end_ms < least_ms {
                let run_ms = runs.run_ms(&stock.ranges.extra, place.cut, end.cut);
                least_ms = least_ms.min(start_ms + run_ms + end_ms);
            }
        }
    }
    (least_ms < below_ms).then_some(least_ms)
}

/// The plan's own cuts, and some between.
fn places(problem: &Problem, shape: &PlanShape) -> Vec<Place> {
    let mut all = cuts(problem);
    all.extend(shape.stages.iter().map(|stage| usize::from(stage.first)));
    all.sort_unstable();
    all.dedup();
    let run_ms = |stage: StageShape, first: usize, end: usize| {
        let part = StageShape { node: stage.node, first: first as u16, end: end as u16 };
        let run_ms = problem.cold_ms(part) + problem.range_ms(part);
        if first < end { problem.nodes[stage.node].queue_wait_ms + run_ms } else { 0.0 }
    };
    let hop_ms = |(hop, codec): (Hop, &Codec)| {
        let coding = problem.codings(hop.cut).find(|coding| coding.codec == *codec);
        match (problem.links.get(hop.from, hop.to), coding) {
            (Some(link), Some(coding)) => {
                coding.transfer_ms(&problem.nodes[hop.from], link, &problem.nodes[hop.to])
            }
            _ => 0.0,
        }
    };
    let hops: Vec<f64> = problem.hops(&shape.stages).zip(&shape.codecs).map(hop_ms).collect();
    let whole_ms = |stage: &StageShape| run_ms(*stage, stage.first.into(), stage.end.into());
    // When each stage begins, and what there is still to do then.
    let (mut begins_ms, mut now_ms) = (vec![], 0.0);
    for (stage, hop_ms) in shape.stages.iter().zip(&hops) {
        begins_ms.push(now_ms + hop_ms);
        now_ms += hop_ms + whole_ms(stage);
    }
    let mut after_ms = vec![0.0; shape.stages.len()];
    let mut rest_ms = hops.last().copied().unwrap_or(0.0);
    for (index, stage) in shape.stages.iter().enumerate().rev() {
        after_ms[index] = rest_ms;
        rest_ms += whole_ms(stage) + hops[index];
    }
    let place = |cut: usize| {
        let of = |is_it: &dyn Fn(&StageShape) -> bool| shape.stages.iter().position(is_it);
        let before = of(&|stage| usize::from(stage.first) < cut && cut <= usize::from(stage.end));
        let behind = of(&|stage| usize::from(stage.first) <= cut && cut < usize::from(stage.end));
        let (holder, had_ms) = before.map_or((0, 0.0), |index| {
            let stage = shape.stages[index];
            (stage.node, begins_ms[index] + run_ms(stage, stage.first.into(), cut))
        });
        let (runner, rest_ms) = behind.map_or((0, 0.0), |index| {
            let stage = shape.stages[index];
            (stage.node, run_ms(stage, cut, stage.end.into()) + after_ms[index])
        });
        Place { cut, holder, had_ms, runner, rest_ms }
    };
    all.into_iter().map(place).collect()
}
