//! Which nodes of a large mesh are worth planning over. Small meshes are taken whole.

use std::collections::HashMap;

use super::bounds::Bounds;
use super::costs::{Costs, Member};
use super::problem::{Node, Problem};
use super::ranges::Ranges;

/// Hosts of each loaded range that are taken before nodes that would have to load. A guess: a
/// second host lets the planner avoid the first where its links are bad.
const HOSTS_PER_RANGE: usize = 2;

/// A node that may be worth a seat.
struct Applicant {
    member: Member,
    /// The least latency with the origin and this node alone; infinite if they cannot.
    pair_ms: f64,
    /// That, or what a chain of machines like this one would take, whichever is less.
    score_ms: f64,
}

/// The origin, and of the others that compute at most `count_max - 1`.
///
/// Half of the seats go to the best by the one-remote bound (so that a plan that two nodes can run
/// is never lost), then to the best hosts of each loaded range, then to the best by score. A node
/// that the origin cannot reach directly comes last.
pub(super) fn choose(problem: &Problem, ranges: &Ranges, count_max: usize) -> Vec<Member> {
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let computing = (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute);
    let mut others: Vec<Member> = computing.map(|node| Member { node, computes: true }).collect();
    if others.len() < count_max {
        others.insert(0, origin);
        return others;
    }
    let apply = |member: Member| {
        let costs = Costs::new(problem, ranges, vec![origin, member], problem.loss_price_min_ms());
        let pair_ms = Bounds::over_all(&costs).total_ms(0);
        Applicant { member, pair_ms, score_ms: pair_ms.min(chain_ms(problem, ranges, member.node)) }
    };
    let mut applicants: Vec<Applicant> = others.into_iter().map(apply).collect();
    applicants.sort_by(|a, b| a.pair_ms.total_cmp(&b.pair_ms));
    let in_pairs = applicants.iter().take_while(|applicant| applicant.pair_ms.is_finite()).count();
    let mut by_score = applicants.split_off(in_pairs.min(count_max / 2));
    by_score.sort_by(|a, b| a.score_ms.total_cmp(&b.score_ms));
    let mut hosts: HashMap<(u16, u16), usize> = HashMap::new();
    let (of_ranges, rest): (Vec<_>, Vec<_>) = by_score.into_iter().partition(|applicant| {
        let mut is_needed = false;
        for range in problem.nodes[applicant.member.node].known.iter().filter(|range| range.is_loaded) {
            let count = hosts.entry((range.first, range.end)).or_default();
            *count += 1;
            is_needed |= *count <= HOSTS_PER_RANGE;
        }
        is_needed
    });
    let seats = applicants.into_iter().chain(of_ranges).chain(rest).take(count_max.saturating_sub(1));
    std::iter::once(origin).chain(seats.map(|applicant| applicant.member)).collect()
}

/// What the model would take on as many machines like this one as it needs, each as far from the
/// next as this one is from the origin.
fn chain_ms(problem: &Problem, ranges: &Ranges, index: usize) -> f64 {
    let node: &Node = &problem.nodes[index];
    let Some(link) = problem.links.get(0, index) else { return f64::INFINITY };
    let cuts = 0..=problem.block_count() as u16;
    let thinnest_bytes = cuts.flat_map(|cut| problem.codings(cut)).map(|coding| coding.bytes).min();
    let transfer_ms = link.latency_ms + link.ms_per_byte * thinnest_bytes.unwrap_or(0) as f64;
    let hop_ms = transfer_ms + node.queue_wait_ms;
    let whole_ms: f64 = node.block_ms.iter().sum();
    let known = node.known.iter().map(|range| {
        let blocks_ms: f64 = node.block_ms[usize::from(range.first)..usize::from(range.end)].iter().sum();
        let estimate_ms =
            || node.estimate_ms(&problem.extra, usize::from(range.first), usize::from(range.end));
        let run_ms = range.time_ms.unwrap_or_else(estimate_ms);
        let machines = if blocks_ms > 0.0 { whole_ms / blocks_ms } else { ranges.block_count() as f64 };
        machines * (hop_ms + run_ms)
    });
    let least_known_ms = known.fold(f64::INFINITY, f64::min);
    least_known_ms.min(cold_chain_ms(ranges, node, hop_ms + node.overhead_ms + node.cold_fixed_ms, whole_ms))
}

fn cold_chain_ms(ranges: &Ranges, node: &Node, stage_ms: f64, whole_ms: f64) -> f64 {
    let blocks = ranges.block_count();
    let smallest_bytes = (0..blocks).map(|block| ranges.memory_bytes(block, block + 1)).min().unwrap_or(0);
    if node.memory_free_bytes < smallest_bytes {
        return f64::INFINITY;
    }
    let weights_bytes = ranges.weights_bytes(0, blocks);
    let machines = weights_bytes.div_ceil(node.memory_free_bytes.max(1)).clamp(1, blocks as u64) as f64;
    whole_ms + node.cold_ms_per_byte * weights_bytes as f64 + machines * stage_ms
}
