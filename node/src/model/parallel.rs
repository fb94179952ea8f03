//! Parallel regions: stretches of an order whose nodes fall into branches that do not depend on each
//! other. Finds them, and puts the nodes of each branch side by side, so that a branch is a stretch too.

use std::ops::Range;

use super::dag::{Dag, Position};
use super::order::judge;

/// Node visits that the search may spend. A guess, as for the refinement of orders: graphs of a few
/// thousand nodes are searched wholly, larger ones for regions of some hundred nodes.
const VISITS_MAX: usize = 20_000_000;
/// Sequences of branches that are tried in all, those of the best stretches; fewer on large graphs.
const SEQUENCES_MAX: usize = 1024;
/// Visits of a sequence for each node of the graph, about: arranged and judged.
const VISITS_PER_SEQUENCE: usize = 8;
/// Branches of which every sequence is tried: 24 of four, and one of them keeps alive for the shortest time
/// what only some of them read.
const PERMUTED_MAX: usize = 4;
/// Shortest look ahead from each position, nodes, however large the graph.
const AHEAD_MIN: usize = 256;

/// A stretch of an order whose branches lie side by side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parallel {
    /// Where each branch begins, and where the last one ends: positions of the order, ascending.
    pub bounds: Vec<usize>,
    /// Share of the graph's work that a machine for each branch would take off the way: all but the
    /// heaviest branch.
    pub gain: f64,
}

/// Finds parallel regions and arranges the order so that each branch is a stretch of it. No order gets
/// worse by it for a chain of parts. Branches hold at least `least` of the graph's work each; what is
/// smaller goes with the lightest of the others. The regions do not overlap; best first.
pub(super) fn arrange(dag: &Dag, order: &mut Vec<usize>, least: f64) -> Vec<Parallel> {
    let mut found = find(dag, order, least);
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.within.start.cmp(&b.within.start)));
    let mut best = judge(dag, order);
    let mut regions: Vec<Parallel> = Vec::new();
    let mut sequences_left = (VISITS_MAX / VISITS_PER_SEQUENCE / dag.len().max(1)).min(SEQUENCES_MAX);
    for stretch in found {
        let overlaps = |region: &Parallel| {
            let (first, end) = (region.bounds[0], region.bounds[region.bounds.len() - 1]);
            first < stretch.within.end && stretch.within.start < end
        };
        if regions.iter().any(overlaps) || sequences_left == 0 {
            continue;
        }
        let branches = branches(dag, &order[stretch.within.clone()], least);
        let mut sequences = sequences(branches);
        sequences.truncate(sequences_left);
        sequences_left -= sequences.len();
        if let Some((judged, arranged, bounds)) = side_by_side(dag, order, &stretch.within, sequences, best) {
            (best, *order) = (judged, arranged);
            regions.push(Parallel { bounds, gain: stretch.gain });
        }
    }
    regions
}

/// A stretch that holds at least two branches.
struct Stretch {
    within: Range<usize>,
    gain: f64,
}

/// For each position where a cut may lie, the stretch behind it with the most to gain.
fn find(dag: &Dag, order: &[usize], least: f64) -> Vec<Stretch> {
    let positions = dag.crossings(order);
    let mut place = vec![0; dag.len()];
    order.iter().enumerate().for_each(|(index, node)| place[*node] = index);
    let needed_until = needed_until(dag, order);
    let ahead_max = (VISITS_MAX / dag.len().max(1)).max(AHEAD_MIN);
    let mut groups = Groups::new(dag, least);
    let from = (0..order.len()).filter(|start| positions[*start].possible);
    from.filter_map(|start| {
        groups.clear();
        let mut best: Option<Stretch> = None;
        for end in start + 1..=order.len().min(start + ahead_max) {
            let node = order[end - 1];
            groups.add(node, dag.before[node].iter().copied().filter(|before| place[*before] >= start));
            let gain = groups.gain();
            let Position { possible, .. } = positions[end];
            if possible && groups.large >= 2 && best.as_ref().is_none_or(|best| gain > best.gain) {
                best = Some(Stretch { within: start..end, gain });
            }
            // Whatever follows depends on the one group that there is.
            if groups.count == 1 && end > needed_until[start] {
                break;
            }
        }
        best
    })
    .collect()
}

/// For each position, the index in the order of the last node that reads something made before it.
fn needed_until(dag: &Dag, order: &[usize]) -> Vec<usize> {
    let mut last_reader = vec![0; dag.edges.len()];
    for (index, node) in order.iter().enumerate() {
        dag.reads[*node].iter().for_each(|edge| last_reader[*edge] = index);
    }
    let latest = |edges: &[usize]| edges.iter().map(|edge| last_reader[*edge]).max().unwrap_or(0);
    let mut until = latest(&dag.inputs);
    let mut result = Vec::with_capacity(order.len() + 1);
    for node in order {
        result.push(until);
        until = until.max(latest(&dag.writes[*node]));
    }
    result.push(until);
    result
}

/// Nodes grouped by what hangs together (a union-find), with the work of each group.
struct Groups<'a> {
    dag: &'a Dag,
    least: f64,
    total: f64,
    /// Node -> another one of its group, or itself; only of those that were added.
    parent: Vec<usize>,
    added: Vec<usize>,
    /// Of the node that stands for its group.
    work: Vec<f64>,
    count: usize,
    /// Groups with work enough for a branch.
    large: usize,
    heaviest: f64,
    all: f64,
}

impl<'a> Groups<'a> {
    fn new(dag: &'a Dag, least: f64) -> Self {
        let total = dag.total_work() as f64;
        Self {
            dag,
            least,
            total,
            parent: vec![usize::MAX; dag.len()],
            added: Vec::new(),
            work: vec![0.0; dag.len()],
            count: 0,
            large: 0,
            heaviest: 0.0,
            all: 0.0,
        }
    }

    fn clear(&mut self) {
        self.added.drain(..).for_each(|node| self.parent[node] = usize::MAX);
        (self.count, self.large, self.heaviest, self.all) = (0, 0, 0.0, 0.0);
    }

    /// Share of the work outside the heaviest group.
    fn gain(&self) -> f64 {
        self.all - self.heaviest
    }

    /// Adds a node, which joins the groups of those that it depends on.
    fn add(&mut self, node: usize, before: impl Iterator<Item = usize>) {
        self.parent[node] = node;
        self.added.push(node);
        let own = self.dag.work[node] as f64 / self.total;
        self.work[node] = own;
        self.all += own;
        self.count += 1;
        let mut merged = 0;
        for other in before {
            let root = self.find(other);
            if root != node {
                merged += usize::from(self.work[root] >= self.least);
                self.parent[root] = node;
                self.work[node] += self.work[root];
                self.count -= 1;
            }
        }
        self.large += usize::from(self.work[node] >= self.least);
        self.large -= merged;
        self.heaviest = self.heaviest.max(self.work[node]);
    }

    /// The node that stands for a node's group.
    fn find(&mut self, node: usize) -> usize {
        let mut node = node;
        while self.parent[node] != node {
            self.parent[node] = self.parent[self.parent[node]];
            node = self.parent[node];
        }
        node
    }
}

/// The branches of a stretch, each in the stretch's order, first come first.
fn branches(dag: &Dag, stretch: &[usize], least: f64) -> Vec<Branch> {
    let mut groups = Groups::new(dag, least);
    let mut inside = vec![false; dag.len()];
    stretch.iter().for_each(|node| inside[*node] = true);
    for node in stretch {
        groups.add(*node, dag.before[*node].iter().copied().filter(|before| inside[*before]));
    }
    let mut branches: Vec<Branch> = Vec::new();
    let mut branch_of = vec![None; dag.len()];
    for node in stretch {
        let root = groups.find(*node);
        let work = groups.work[root];
        let branch = *branch_of[root].get_or_insert_with(|| {
            branches.push(Branch { root, work, nodes: Vec::new() });
            branches.len() - 1
        });
        branches[branch].nodes.push(*node);
    }
    let (mut large, small): (Vec<Branch>, Vec<Branch>) =
        branches.into_iter().partition(|branch| branch.work >= least);
    let lightest = large.iter_mut().min_by(|a, b| a.work.total_cmp(&b.work));
    if let Some(lightest) = lightest {
        let mut place = vec![0; dag.len()];
        stretch.iter().enumerate().for_each(|(index, node)| place[*node] = index);
        for branch in small {
            lightest.work += branch.work;
            lightest.nodes.extend(branch.nodes);
        }
        lightest.nodes.sort_unstable_by_key(|node| place[*node]);
    }
    large
}

/// Nodes that depend on none of another branch.
#[derive(Debug, Clone)]
struct Branch {
    /// Tells apart branches of equal work.
    root: usize,
    work: f64,
    nodes: Vec<usize>,
}

/// Sequences of branches that are worth a try: all of a few; of many, those in their order and by their work.
fn sequences(branches: Vec<Branch>) -> Vec<Vec<Branch>> {
    if branches.len() <= PERMUTED_MAX {
        return permutations(&branches);
    }
    let by_work = |a: &Branch, b: &Branch| a.work.total_cmp(&b.work).then(a.root.cmp(&b.root));
    let mut ascending = branches.clone();
    ascending.sort_by(by_work);
    let reversed = |branches: &[Branch]| branches.iter().rev().cloned().collect::<Vec<_>>();
    vec![reversed(&branches), reversed(&ascending), branches, ascending]
}

fn permutations(branches: &[Branch]) -> Vec<Vec<Branch>> {
    if branches.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |first: usize| {
        let mut others = branches.to_vec();
        let first = others.remove(first);
        permutations(&others).into_iter().map(move |mut rest| {
            rest.insert(0, first.clone());
            rest
        })
    };
    (0..branches.len()).flat_map(with_first).collect()
}

/// The order with the branches one after the other, in the sequence that suits a chain best; `None`
/// when each is worse than `best`, or no cut may lie between two branches.
fn side_by_side(
    dag: &Dag,
    order: &[usize],
    within: &Range<usize>,
    sequences: Vec<Vec<Branch>>,
    best: f64,
) -> Option<(f64, Vec<usize>, Vec<usize>)> {
    let arranged = sequences.into_iter().filter_map(|branches| {
        let mut arranged = order.to_vec();
        let mut bounds = vec![within.start];
        for branch in &branches {
            let start = bounds[bounds.len() - 1];
            arranged[start..start + branch.nodes.len()].copy_from_slice(&branch.nodes);
            bounds.push(start + branch.nodes.len());
        }
        let positions = dag.crossings(&arranged);
        let can_be_cut = bounds.iter().all(|bound| positions[*bound].possible);
        can_be_cut.then(|| (judge(dag, &arranged), arranged, bounds))
    });
    arranged.filter(|(judged, ..)| *judged <= best).min_by(|(a, ..), (b, ..)| a.total_cmp(b))
}
