//! Which of many nodes a stream is planned over: for each cut those that get furthest from it within the period.

use super::Streams;
use crate::plan::costs::Member;

/// By how much the period grows until enough nodes are found.
const STEPS: [f64; 4] = [1.0, 1.05, 1.25, 2.0];

pub(super) fn choose(streams: &Streams, period_ms: f64, count_max: usize) -> Vec<Member> {
    let mut is_taken = vec![false; streams.count()];
    is_taken[0] = true;
    let mut members = vec![streams.workers[0].member];
    for step in STEPS {
        let by_cut = ranked(streams, period_ms * step);
        let longest = by_cut.iter().map(Vec::len).max().unwrap_or(0);
        for rank in 0..longest {
            for ranked in &by_cut {
                if members.len() >= count_max {
                    return members;
                }
                let Some(member) = ranked.get(rank).filter(|member| !is_taken[**member]) else { continue };
                is_taken[*member] = true;
                members.push(streams.workers[*member].member);
            }
        }
    }
    members
}

/// For each cut, the members that a run from there may be on, the one that gets furthest first.
fn ranked(streams: &Streams, period_ms: f64) -> Vec<Vec<usize>> {
    let rest = streams.rest(period_ms);
    let reached = streams.reached(period_ms, &rest);
    let (count, cuts) = (streams.count(), streams.blocks + 1);
    let of_cut = |cut: usize| {
        let furthest = |member: usize| {
            let begun_ms = reached.start_ms[member * cuts + cut];
            let leads_home = |end: usize, run_ms: f64| begun_ms + run_ms <= rest.at_ms[member * cuts + end];
            let (runs, left_ms) = (&streams.workers[member].runs, period_ms - begun_ms);
            let end = || runs.furthest(streams.ranges, cut, left_ms, leads_home);
            begun_ms.is_finite().then(end).flatten().map(|end| (end, member))
        };
        let mut ends: Vec<(usize, usize)> = (0..count).filter_map(furthest).collect();
        ends.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        ends.into_iter().map(|(_, member)| member).collect()
    };
    (0..streams.blocks).map(of_cut).collect()
}
