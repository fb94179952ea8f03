//! Which nodes of a large mesh are worth planning over. Small meshes are taken whole.

use std::collections::HashMap;

use super::bounds::Bounds;
use super::costs::{Costs, Member};
use super::problem::Problem;
use super::ranges::Ranges;
use super::through::promises;

/// Hosts of each loaded range that are taken before nodes that would have to load. A guess: a
/// second host lets the planner avoid the first where its links are bad.
const HOSTS_PER_RANGE: usize = 2;

/// So many times as many nodes as there are seats are looked at closely beside the origin, the most promising. A
/// guess.
const PAIRS_TRIED: usize = 2;

/// The origin, and of the others that compute at most `count_max - 1`: see [`ranked`].
pub(super) fn choose(problem: &Problem, ranges: &Ranges, count_max: usize) -> Vec<Member> {
    choose_with_next(problem, ranges, count_max, 0).0
}

/// Likewise, and so many that come next.
pub(super) fn choose_with_next(
    problem: &Problem,
    ranges: &Ranges,
    count_max: usize,
    next_max: usize,
) -> (Vec<Member>, Vec<usize>) {
    let mut chosen = ranked(problem, ranges, count_max);
    let mut next = chosen.split_off(chosen.len().min(count_max.saturating_sub(1)));
    next.truncate(next_max);
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let others = chosen.into_iter().map(|node| Member { node, computes: true });
    (std::iter::once(origin).chain(others).collect(), next)
}

/// The nodes beside the origin that compute, if there are more than seats, ranked: half of the seats for those that are best
/// beside the origin alone (so that a plan that two nodes can run is hardly lost), then the best hosts of each
/// loaded range, then those through which the quickest plans seem to lead.
fn ranked(problem: &Problem, ranges: &Ranges, count_max: usize) -> Vec<usize> {
    let mut others = computing(problem);
    if others.len() >= count_max {
        let promises = promises(problem, ranges);
        sort_by(&mut others, |node| promises[node].pair_ms);
        let mut by_promise = others.split_off(others.len().min(PAIRS_TRIED * count_max));
        let pair_ms: HashMap<usize, f64> =
            others.iter().map(|node| (*node, pair_ms(problem, ranges, *node))).collect();
        sort_by(&mut others, |node| pair_ms[&node]);
        let in_pairs = others.iter().take_while(|node| pair_ms[node].is_finite()).count();
        by_promise.extend(others.split_off(in_pairs.min(count_max / 2)));
        sort_by(&mut by_promise, |node| promises[node].any_ms);
        let mut hosts: HashMap<(u16, u16), usize> = HashMap::new();
        let (of_ranges, rest): (Vec<usize>, Vec<usize>) = by_promise.into_iter().partition(|node| {
            let mut is_needed = false;
            for range in problem.nodes[*node].known.iter().filter(|range| range.is_loaded) {
                let count = hosts.entry((range.first, range.end)).or_default();
                *count += 1;
                is_needed |= *count <= HOSTS_PER_RANGE;
            }
            is_needed
        });
        others.extend(of_ranges.into_iter().chain(rest));
    }
    others
}

fn computing(problem: &Problem) -> Vec<usize> {
    (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute).collect()
}

fn sort_by(nodes: &mut [usize], key: impl Fn(usize) -> f64) {
    nodes.sort_by(|one, other| key(*one).total_cmp(&key(*other)));
}

/// The least latency with the origin and this node alone; infinite if they cannot.
fn pair_ms(problem: &Problem, ranges: &Ranges, node: usize) -> f64 {
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let pair = vec![origin, Member { node, computes: true }];
    let costs = Costs::new(problem, ranges, pair, problem.loss_price_min_ms());
    Bounds::over_all(&costs).total_ms(0)
}
