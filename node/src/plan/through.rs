//! How good a plan through a node could be: a guess from below for each node of a large mesh, quick enough to make
//! for all. Between nodes it takes the best link that leads to each, and looks at thin cuts only.

use super::costs::Runs;
use super::problem::Problem;
use super::ranges::Ranges;

/// Cuts looked at, beside input and result.
const CUTS_MAX: usize = 15;
/// Senders looked at for the best way to a node, the quickest machines.
const SENDERS_MAX: usize = 48;

/// The least that moving costs, of several ways.
#[derive(Clone, Copy)]
struct Way {
    latency_ms: f64,
    ms_per_byte: f64,
}

impl Way {
    const NONE: Self = Self { latency_ms: f64::INFINITY, ms_per_byte: f64::INFINITY };

    fn ms(self, bytes: f64) -> f64 {
        if self.latency_ms.is_finite() { self.latency_ms + self.ms_per_byte * bytes } else { f64::INFINITY }
    }

    fn or(self, other: Self) -> Self {
        let latency_ms = self.latency_ms.min(other.latency_ms);
        Self { latency_ms, ms_per_byte: self.ms_per_byte.min(other.ms_per_byte) }
    }
}

/// What a plan could take that runs something on a node; infinite if there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    /// Of plans over the origin and this node.
    pub(super) pair_ms: f64,
    /// Of any plans.
    pub(super) any_ms: f64,
}

/// For each node about the least latency of plans that run something on it.
pub(super) fn promises(problem: &Problem, ranges: &Ranges) -> Vec<Promise> {
    let cuts = cuts(problem);
    let last = cuts.len() - 1;
    let of = |from: usize, to: usize| match problem.links.get(from, to) {
        Some(link) => Way { latency_ms: link.latency_ms, ms_per_byte: link.ms_per_byte },
        None => Way::NONE,
    };
    let senders = quickest(problem);
    let nodes: Vec<NodeCosts> = (0..problem.nodes.len())
        .map(|node| {
            let here = Way { latency_ms: 0.0, ms_per_byte: 0.0 };
            let others = senders.iter().filter(|sender| **sender != node);
            NodeCosts {
                input: if node == 0 { here } else { of(0, node) },
                between: others.map(|sender| of(*sender, node)).fold(Way::NONE, Way::or),
                home: if node == 0 { here } else { of(node, 0) },
                run_ms: run_times(problem, ranges, node, &cuts),
            }
        })
        .collect();
    let bytes: Vec<f64> = cuts.iter().map(|cut| fewest_bytes(problem, *cut)).collect();
    let costs = Coarse { nodes, bytes };
    let (before_ms, after_ms) = (costs.before_ms(), costs.after_ms());
    let none_ms = vec![f64::INFINITY; last + 1];
    let promise = |node: &NodeCosts| Promise {
        pair_ms: costs.through_ms(node, &none_ms, &none_ms),
        any_ms: costs.through_ms(node, &before_ms, &after_ms),
    };
    costs.nodes.iter().map(promise).collect()
}

struct NodeCosts {
    input: Way,
    between: Way,
    home: Way,
    /// `[first][end]`, by the cuts looked at.
    run_ms: Vec<f64>,
}

struct Coarse {
    nodes: Vec<NodeCosts>,
    bytes: Vec<f64>,
}

impl Coarse {
    fn run_ms(&self, node: &NodeCosts, first: usize, end: usize) -> f64 {
        if first == end { 0.0 } else { node.run_ms[first * self.bytes.len() + end] }
    }

    /// From the input to a cut's tensors at a node: from the origin, which ran what is before, or from others.
    fn start_ms(&self, node: &NodeCosts, cut: usize, before_ms: &[f64]) -> f64 {
        let at_origin_ms = self.run_ms(&self.nodes[0], 0, cut);
        let from_origin_ms = at_origin_ms + node.input.ms(self.bytes[cut]);
        from_origin_ms.min(before_ms[cut] + node.between.ms(self.bytes[cut]))
    }

    /// A run and what comes after it: at the origin, or at others.
    fn go_on_ms(&self, node: &NodeCosts, first: usize, end: usize, after_ms: &[f64]) -> f64 {
        let last = self.bytes.len() - 1;
        let at_origin_ms = self.run_ms(&self.nodes[0], end, last);
        let at_home_ms = node.home.ms(self.bytes[end]) + at_origin_ms;
        self.run_ms(node, first, end) + at_home_ms.min(after_ms[end])
    }

    /// The least of a run on a node with what is before and after it.
    fn through_ms(&self, node: &NodeCosts, before_ms: &[f64], after_ms: &[f64]) -> f64 {
        let last = self.bytes.len() - 1;
        let starts = (0..last).map(|first| {
            let ends = (first + 1..=last).map(|end| self.go_on_ms(node, first, end, after_ms));
            self.start_ms(node, first, before_ms) + ends.fold(f64::INFINITY, f64::min)
        });
        starts.fold(f64::INFINITY, f64::min)
    }

    /// From the input to a cut's tensors at some other node than the origin.
    fn before_ms(&self) -> Vec<f64> {
        let last = self.bytes.len() - 1;
        let mut before_ms = vec![f64::INFINITY; last + 1];
        for first in 0..last {
            for node in &self.nodes[1..] {
                let start_ms = self.start_ms(node, first, &before_ms);
                let row = &node.run_ms[first * self.bytes.len()..][..self.bytes.len()];
                for (least_ms, run_ms) in before_ms[first + 1..].iter_mut().zip(&row[first + 1..]) {
                    *least_ms = least_ms.min(start_ms + *run_ms);
                }
            }
        }
        before_ms
    }

    /// From a cut's tensors at another node to the result.
    fn after_ms(&self) -> Vec<f64> {
        let last = self.bytes.len() - 1;
        let mut after_ms = vec![f64::INFINITY; last + 1];
        for first in (1..last).rev() {
            let of_node = |node: &NodeCosts| {
                let ends = (first + 1..=last).map(|end| self.go_on_ms(node, first, end, &after_ms));
                let rest_ms = ends.fold(f64::INFINITY, f64::min);
                node.between.ms(self.bytes[first]) + rest_ms
            };
            after_ms[first] = self.nodes[1..].iter().map(of_node).fold(f64::INFINITY, f64::min);
        }
        after_ms
    }
}

/// Input and result, and between them the thinnest cut of each stretch.
pub(super) fn cuts(problem: &Problem) -> Vec<usize> {
    let blocks = problem.block_count();
    let stretches = CUTS_MAX.min(blocks - 1);
    let inner = (0..stretches).filter_map(|stretch| {
        let start = 1 + stretch * (blocks - 1) / stretches;
        let end = 1 + (stretch + 1) * (blocks - 1) / stretches;
        (start..end).min_by_key(|cut| problem.cut_bytes[*cut])
    });
    std::iter::once(0).chain(inner).chain([blocks]).collect()
}

fn fewest_bytes(problem: &Problem, cut: usize) -> f64 {
    problem.codings(cut as u16).map(|coding| coding.bytes).min().unwrap_or(0) as f64
}

/// The machines that take least for all blocks, and the origin.
fn quickest(problem: &Problem) -> Vec<usize> {
    let computing = (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute);
    let whole_ms = |node: usize| problem.nodes[node].block_ms.iter().sum::<f64>();
    let mut by_time: Vec<(f64, usize)> = computing.map(|node| (whole_ms(node), node)).collect();
    by_time.sort_by(|one, other| one.0.total_cmp(&other.0));
    std::iter::once(0).chain(by_time.into_iter().map(|(_, node)| node)).take(SENDERS_MAX).collect()
}

fn run_times(problem: &Problem, ranges: &Ranges, node: usize, cuts: &[usize]) -> Vec<f64> {
    let mut run_ms = vec![f64::INFINITY; cuts.len() * cuts.len()];
    if !problem.nodes[node].can_compute {
        return run_ms;
    }
    let runs = Runs::new(problem, ranges, &problem.nodes[node]);
    for (from, first) in cuts.iter().enumerate() {
        for (to, end) in cuts.iter().enumerate().skip(from + 1) {
            run_ms[from * cuts.len() + to] = runs.run_ms(&ranges.extra, *first, *end);
        }
    }
    run_ms
}
