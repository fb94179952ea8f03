//! How good a plan through a node could be: a guess from below for each node of a large mesh, quick enough to make
//! for all. Between nodes it takes the best link that leads to each, and looks at thin cuts only. What is a loop over
//! nodes lies in lists by node, in single precision: the guesses only rank them.

mod table;

use self::table::{Row, Times};
use super::costs::Stock;
use super::problem::{Link, Problem};

/// Cuts looked at, beside input and result.
const CUTS_MAX: usize = 15;
/// Senders looked at for the best way to a node, the quickest machines.
const SENDERS_MAX: usize = 48;

/// What a plan could take that runs something on a node; infinite if there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    /// Of plans over the origin and this node.
    pub(super) pair_ms: f32,
    /// Of any plans.
    pub(super) any_ms: f32,
}

/// The least that moving to or from each node costs, of several ways.
struct Ways {
    latency_ms: Row,
    ms_per_byte: Row,
}

impl Ways {
    fn none(nodes: usize) -> Self {
        Self { latency_ms: vec![f32::INFINITY; nodes], ms_per_byte: vec![f32::INFINITY; nodes] }
    }

    /// By node, of a list of links; there is none from a node to itself.
    fn add<'a>(&mut self, links: impl Iterator<Item = &'a Option<Link>>) {
        let ways = self.latency_ms.iter_mut().zip(&mut self.ms_per_byte);
        for ((latency_ms, ms_per_byte), link) in ways.zip(links) {
            if let Some(link) = link {
                *latency_ms = least(*latency_ms, link.latency_ms as f32);
                *ms_per_byte = least(*ms_per_byte, link.ms_per_byte as f32);
            }
        }
    }

    /// Of moving so many bytes, and something more; infinite where no link leads.
    fn ms(&self, bytes: f32, more_ms: f32, all_ms: &mut [f32]) {
        let ways = self.latency_ms.iter().zip(&self.ms_per_byte);
        for (all_ms, (latency_ms, ms_per_byte)) in all_ms.iter_mut().zip(ways) {
            let ms_per_byte = if *latency_ms < f32::INFINITY { *ms_per_byte } else { 0.0 };
            *all_ms = latency_ms + ms_per_byte * bytes + more_ms;
        }
    }
}

/// For each node but the origin about the least latency of plans that run something on it.
pub(super) fn promises(stock: &Stock) -> Vec<Promise> {
    let problem = stock.problem;
    let (nodes, cuts) = (problem.nodes.len(), cuts(problem));
    let mut ways = [Ways::none(nodes), Ways::none(nodes), Ways::none(nodes)];
    let [input, between, home] = &mut ways;
    let times = Times::new(stock, &cuts);
    for sender in times.quickest(SENDERS_MAX) {
        between.add(problem.links.from(sender).iter());
    }
    input.add(problem.links.from(0).iter());
    home.add((0..nodes).map(|node| &problem.links.from(node)[0]));
    let coarse = Coarse {
        bytes: cuts.iter().map(|cut| fewest_bytes(problem, *cut)).collect(),
        times,
        origin_ms: origin_times(stock, &cuts),
        nodes,
        ways,
    };
    coarse.promises()
}

struct Coarse {
    nodes: usize,
    bytes: Vec<f32>,
    times: Times,
    /// What the origin takes up to each cut, and from each on.
    origin_ms: (Vec<f32>, Vec<f32>),
    /// From the origin, between any others, to the origin.
    ways: [Ways; 3],
}

impl Coarse {
    fn promises(&self) -> Vec<Promise> {
        let (last, nodes) = (self.bytes.len() - 1, self.nodes);
        let (pair_rest_ms, any_rest_ms) = self.rests_ms();
        let none = || vec![f32::INFINITY; nodes];
        let (mut pair_ms, mut any_ms, mut before_ms) = (none(), none(), vec![f32::INFINITY; last + 1]);
        let [mut from_origin_ms, mut start_ms, mut run_ms] = [none(), none(), none()];
        let [input, between, _] = &self.ways;
        for first in 0..last {
            input.ms(self.bytes[first], self.origin_ms.0[first], &mut from_origin_ms);
            between.ms(self.bytes[first], before_ms[first], &mut start_ms);
            least_of(&mut start_ms, &from_origin_ms);
            least_sum_of(&mut pair_ms, &from_origin_ms, &pair_rest_ms[first]);
            least_sum_of(&mut any_ms, &start_ms, &any_rest_ms[first]);
            // From the input to a cut's tensors at some other node than the origin.
            for (end, before_ms) in before_ms.iter_mut().enumerate().skip(first + 1) {
                self.times.runs_ms(first, end, &mut run_ms);
                *before_ms = before_ms.min(least_sum(&start_ms, &run_ms));
            }
        }
        let both = pair_ms.into_iter().zip(any_ms);
        both.map(|(pair_ms, any_ms)| Promise { pair_ms, any_ms }).collect()
    }

    /// By cut and node: the least from a run there on, to go on at the origin alone, and anywhere.
    fn rests_ms(&self) -> (Vec<Row>, Vec<Row>) {
        let (last, nodes) = (self.bytes.len() - 1, self.nodes);
        let none = || vec![f32::INFINITY; nodes];
        let (mut pair_ms, mut any_ms) = (vec![none(); last + 1], vec![none(); last + 1]);
        let [mut run_ms, mut moved_ms] = [none(), none()];
        let [_, between, home] = &self.ways;
        let to_origin_ms = |end: usize| {
            let mut at_home_ms = none();
            home.ms(self.bytes[end], self.origin_ms.1[end], &mut at_home_ms);
            at_home_ms
        };
        let at_home_ms: Vec<Row> = (0..=last).map(to_origin_ms).collect();
        // From a cut's tensors at another node to the result.
        let mut after_ms = vec![f32::INFINITY; last + 1];
        for first in (0..last).rev() {
            let (pair_ms, any_ms) = (&mut pair_ms[first], &mut any_ms[first]);
            for end in first + 1..=last {
                self.times.runs_ms(first, end, &mut run_ms);
                let rests = pair_ms.iter_mut().zip(&mut *any_ms);
                for ((pair_ms, any_ms), (run_ms, home_ms)) in rests.zip(run_ms.iter().zip(&at_home_ms[end])) {
                    let (home_ms, after_ms) = (run_ms + home_ms, run_ms + after_ms[end]);
                    *pair_ms = least(*pair_ms, home_ms);
                    *any_ms = least(*any_ms, least(home_ms, after_ms));
                }
            }
            between.ms(self.bytes[first], 0.0, &mut moved_ms);
            after_ms[first] = least_sum(&moved_ms, any_ms);
        }
        (pair_ms, any_ms)
    }
}

// As `f32::min`, but one instruction.
fn least(one: f32, other: f32) -> f32 {
    if other < one { other } else { one }
}

fn least_of(all_ms: &mut [f32], others_ms: &[f32]) {
    for (all_ms, other_ms) in all_ms.iter_mut().zip(others_ms) {
        *all_ms = least(*all_ms, *other_ms);
    }
}

fn least_sum_of(all_ms: &mut [f32], ones_ms: &[f32], others_ms: &[f32]) {
    for (all_ms, (one_ms, other_ms)) in all_ms.iter_mut().zip(ones_ms.iter().zip(others_ms)) {
        *all_ms = least(*all_ms, one_ms + other_ms);
    }
}

/// The least of all sums, in lanes that do not wait for each other.
fn least_sum(ones_ms: &[f32], others_ms: &[f32]) -> f32 {
    let mut lanes = [f32::INFINITY; 16];
    let (ones, others) = (ones_ms.chunks_exact(16), others_ms.chunks_exact(16));
    let rest = ones.remainder().iter().zip(others.remainder());
    for (ones, others) in ones.zip(others) {
        for (lane, (one, other)) in lanes.iter_mut().zip(ones.iter().zip(others)) {
            *lane = least(*lane, one + other);
        }
    }
    rest.map(|(one, other)| one + other).chain(lanes).fold(f32::INFINITY, least)
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

fn fewest_bytes(problem: &Problem, cut: usize) -> f32 {
    problem.codings(cut as u16).map(|coding| coding.bytes).min().unwrap_or(0) as f32
}

fn origin_times(stock: &Stock, cuts: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let last = stock.ranges.block_count();
    let run_ms = |first: usize, end: usize| match first == end {
        true => 0.0,
        false if stock.problem.nodes[0].can_compute => {
            stock.runs(0).run_ms(&stock.ranges.extra, first, end) as f32
        }
        false => f32::INFINITY,
    };
    (cuts.iter().map(|cut| run_ms(0, *cut)).collect(), cuts.iter().map(|cut| run_ms(*cut, last)).collect())
}
