//! Which nodes of a large mesh are worth planning over. Small meshes are taken whole.

use std::collections::HashMap;

use super::bounds::Bounds;
use super::costs::{Costs, Member, Stock};
use super::problem::Problem;
use super::through::promises;

/// Hosts of each loaded range that are taken before nodes that would have to load. A guess: a
/// second host lets the planner avoid the first where its links are bad.
const HOSTS_PER_RANGE: usize = 2;

/// So many times as many nodes as there are seats are looked at closely beside the origin, the most promising. A
/// guess.
const PAIRS_TRIED: usize = 2;

/// The origin, and of the others that compute at most `count_max - 1`: see [`ranked`].
pub(super) fn choose(stock: &Stock, count_max: usize) -> Vec<Member> {
    choose_with_next(stock, count_max, 0).0
}

/// Likewise, and so many that come next.
pub(super) fn choose_with_next(
    stock: &Stock,
    count_max: usize,
    next_max: usize,
) -> (Vec<Member>, Vec<usize>) {
    let (problem, seats) = (stock.problem, count_max.saturating_sub(1));
    let mut chosen = ranked(stock, count_max, seats.saturating_add(next_max));
    let next = chosen.split_off(chosen.len().min(seats));
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let others = chosen.into_iter().map(|node| Member { node, computes: true });
    (std::iter::once(origin).chain(others).collect(), next)
}

/// So many of the nodes beside the origin that compute, if there are more than seats, ranked: half of the seats for those
/// that are best beside the origin alone (so that a plan that two nodes can run is hardly lost), then the best hosts of
/// each loaded range, then those through which the quickest plans seem to lead.
fn ranked(stock: &Stock, count_max: usize, wanted: usize) -> Vec<usize> {
    let problem = stock.problem;
    let mut rest = computing(problem);
    if rest.len() < count_max {
        return rest;
    }
    let promises = promises(stock);
    let tried = take_least(&mut rest, PAIRS_TRIED * count_max, |node| promises[node].pair_ms);
    let mut pairs: Vec<(f64, usize)> = tried.into_iter().map(|node| (pair_ms(stock, node), node)).collect();
    pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let in_pairs = pairs.iter().take_while(|(pair_ms, _)| pair_ms.is_finite()).count();
    rest.extend(pairs.split_off(in_pairs.min(count_max / 2)).into_iter().map(|(_, node)| node));
    let mut chosen: Vec<usize> = pairs.into_iter().map(|(_, node)| node).collect();
    let is_host = |node: &usize| problem.nodes[*node].known.iter().any(|range| range.is_loaded);
    let (mut hosts, mut rest): (Vec<usize>, Vec<usize>) = rest.into_iter().partition(is_host);
    let count = hosts.len();
    let mut hosts_of: HashMap<(u16, u16), usize> = HashMap::new();
    for node in take_least(&mut hosts, count, |node| promises[node].any_ms) {
        let mut is_needed = false;
        for range in problem.nodes[node].known.iter().filter(|range| range.is_loaded) {
            let count = hosts_of.entry((range.first, range.end)).or_default();
            *count += 1;
            is_needed |= *count <= HOSTS_PER_RANGE;
        }
        if is_needed { chosen.push(node) } else { rest.push(node) }
    }
    let more = wanted.saturating_sub(chosen.len());
    chosen.extend(take_least(&mut rest, more, |node| promises[node].any_ms));
    chosen.truncate(wanted);
    chosen
}

fn computing(problem: &Problem) -> Vec<usize> {
    (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute).collect()
}

/// Takes so many of some nodes out, those whose keys are least, in their order.
pub(super) fn take_least(nodes: &mut Vec<usize>, count: usize, key: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut keyed: Vec<(f32, usize)> = nodes.drain(..).map(|node| (key(node), node)).collect();
    let by_key =
        |one: &(f32, usize), other: &(f32, usize)| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1));
    if count < keyed.len() {
        keyed.select_nth_unstable_by(count, by_key);
        nodes.extend(keyed.drain(count..).map(|(_, node)| node));
    }
    keyed.sort_unstable_by(by_key);
    keyed.into_iter().map(|(_, node)| node).collect()
}

/// The least latency with the origin and this node alone; infinite if they cannot.
fn pair_ms(stock: &Stock, node: usize) -> f64 {
    let problem = stock.problem;
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let pair = vec![origin, Member { node, computes: true }];
    let costs = Costs::new(stock, pair, problem.loss_price_min_ms());
    Bounds::over_all(&costs).total_ms(0)
}
