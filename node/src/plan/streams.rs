//! The shortest period of a stream of requests. At a given period, each node has that much time for its runs and its
//! coding, and each link for its bytes: a question of yes or no, narrowed down by bisection. A relaxation that forgets
//! what a node did before answers it for all nodes at once, and so bounds the period (`streams/reach.rs`); nodes are
//! chosen among those that it passes through (`streams/seats.rs`), and plans packed over these (`streams/packing.rs`).

mod packing;
mod rates;
mod reach;
pub(super) mod replicas;
mod routes;
mod seats;
mod simplex;

use super::coding::Coding;
use super::costs::Member;
use super::price::PlanShape;
use super::problem::{Factors, Problem};
use super::ranges::Ranges;
use super::runs::BusyRuns;

/// How near bisection has to come.
const NEAR_ENOUGH: f64 = 1.003;
/// Likewise, to choose nodes by.
const NEAR_ENOUGH_TO_CHOOSE: f64 = 1.05;
/// Periods that are looked for, ms.
const PERIOD_MS_MIN: f64 = 1e-6;
const PERIOD_MS_MAX: f64 = 1e15;
/// Packings tried.
const PACKING_PASSES: usize = 12;
/// The first step up from a period that is too short; each further one is the square of the one before.
const STEP: f64 = 1.02;
/// Likewise, to choose nodes by.
const STEP_TO_CHOOSE: f64 = 1.15;
/// Nodes that the relaxation looks at to choose among them: its time and memory grow with the square.
const CHOSEN_AMONG_MAX: usize = 512;
/// What sums in another order may differ by.
const ROUNDING: f64 = 1e-12;

/// Who may be busy with what, and for how long, over some members.
struct Streams<'a> {
    problem: &'a Problem,
    ranges: &'a Ranges,
    blocks: usize,
    workers: Vec<Worker>,
    /// Ways to send each cut that lose no more than any plan may.
    codings: Vec<Vec<Coding>>,
    /// `[from][to]`: infinite where no link leads.
    ms_per_byte: Vec<f64>,
    /// `[to][from]`: likewise.
    ms_per_byte_into: Vec<f64>,
}

/// A member as it works for a stream.
struct Worker {
    member: Member,
    runs: BusyRuns,
    uplink_ms_per_byte: f64,
    /// The quickest way out, ms a byte.
    way_out: f64,
    /// The quickest way in.
    way_in: f64,
    encode_factors: Factors,
    decode_factors: Factors,
}

impl<'a> Streams<'a> {
    /// `members[0]` must be the origin.
    pub(super) fn new(problem: &'a Problem, ranges: &'a Ranges, members: &[Member]) -> Self {
        let count = members.len();
        let (mut ms_per_byte, mut ms_per_byte_into) =
            (vec![f64::INFINITY; count * count], vec![f64::INFINITY; count * count]);
        for (from, sender) in members.iter().enumerate() {
            for (to, receiver) in members.iter().enumerate() {
                if let Some(link) = problem.links.get(sender.node, receiver.node) {
                    ms_per_byte[from * count + to] = link.ms_per_byte;
                    ms_per_byte_into[to * count + from] = link.ms_per_byte;
                }
            }
        }
        let least = |row: &[f64]| row.iter().copied().fold(f64::INFINITY, f64::min);
        let worker = |(index, member): (usize, &Member)| {
            let node = &problem.nodes[member.node];
            Worker {
                member: *member,
                runs: BusyRuns::new(problem, ranges, *member),
                uplink_ms_per_byte: node.uplink_ms_per_byte,
                way_out: least(&ms_per_byte[index * count..][..count]),
                way_in: least(&ms_per_byte_into[index * count..][..count]),
                encode_factors: node.encode_factors,
                decode_factors: node.decode_factors,
            }
        };
        let allowed = |cut: usize| {
            let codings = problem.codings(cut as u16);
            codings.filter(|coding| coding.loss <= problem.loss_max + super::goal::ROUNDING).collect()
        };
        Self {
            workers: members.iter().enumerate().map(worker).collect(),
            codings: (0..problem.cut_bytes.len()).map(allowed).collect(),
            blocks: problem.block_count(),
            ms_per_byte,
            ms_per_byte_into,
            problem,
            ranges,
        }
    }

    fn count(&self) -> usize {
        self.workers.len()
    }

    fn encode_ms(&self, member: usize, coding: &Coding) -> f64 {
        coding.encode_ms * self.workers[member].encode_factors.of(coding.codec)
    }

    fn decode_ms(&self, member: usize, coding: &Coding) -> f64 {
        coding.decode_ms * self.workers[member].decode_factors.of(coding.codec)
    }

    /// Whether a member may start a stage at a cut.
    fn may_start(&self, member: usize, cut: usize) -> bool {
        cut > 0 || !self.problem.force_first || member == 0
    }

    fn may_end(&self, member: usize) -> bool {
        !self.problem.force_last || member == 0
    }

    /// The shortest period that the relaxation allows: below the first, no plan is; at the second, it finds one.
    /// None if it finds none at all. They are as near to each other as asked.
    fn bound(&self, low: f64, near: f64, mut step: f64) -> Option<(f64, f64)> {
        let mut low = low.max(self.leaving_ms());
        if self.is_possible(low) {
            return Some((low, low));
        }
        let mut high = f64::INFINITY;
        while high > low * near {
            let middle = if high.is_finite() { (low * high).sqrt() } else { (low * step).max(PERIOD_MS_MIN) };
            if middle > PERIOD_MS_MAX {
                return None;
            }
            if self.is_possible(middle) {
                high = middle;
            } else {
                low = middle;
            }
            step *= step;
        }
        Some((low, high))
    }

    /// The least that keeps the origin or its way out busy: all runs, or some and sending what they lead to.
    fn leaving_ms(&self) -> f64 {
        let origin = &self.workers[0];
        let wire_ms = |cut: usize| {
            let bytes = self.codings[cut].iter().map(|coding| coding.bytes).min().unwrap_or(0);
            bytes as f64 * origin.way_out.max(origin.uplink_ms_per_byte)
        };
        let mut least_ms = if self.problem.force_first { f64::INFINITY } else { wire_ms(0) };
        let mut first_ms = f64::INFINITY;
        // Where nothing is known of any range, one run takes no longer than two that come to the same.
        let is_least = !origin.runs.has_known();
        for end in 1..=self.blocks {
            let run_ms = origin.runs.ms(self.ranges, 0, end);
            first_ms = if is_least { run_ms } else { run_ms.min(first_ms) };
            let wire_ms = if end == self.blocks { 0.0 } else { wire_ms(end) };
            least_ms = least_ms.min(first_ms.max(wire_ms));
        }
        if least_ms.is_finite() { least_ms } else { 0.0 }
    }

    /// So many nodes through which the shortest periods seem to lead, the origin first; and a bound.
    fn seats(&self, count_max: usize) -> Seats {
        match self.bound(0.0, NEAR_ENOUGH_TO_CHOOSE, STEP_TO_CHOOSE) {
            Some((bound_ms, period_ms)) => {
                Seats { members: seats::choose(self, period_ms, count_max), bound_ms }
            }
            None => Seats { members: vec![self.workers[0].member], bound_ms: 0.0 },
        }
    }

    /// Packs plans of ever shorter periods, none below what is known to be too short, until that is nearly met.
    fn pack(&self, mut low: f64, mut price: impl FnMut(PlanShape) -> Option<f64>) {
        let mut high = f64::INFINITY;
        let (mut middle, mut step) = (low * (1.0 + ROUNDING), STEP);
        for _ in 0..PACKING_PASSES {
            match packing::pack(self, middle).and_then(&mut price) {
                Some(period_ms) => high = high.min(period_ms),
                None => low = low.max(middle),
            }
            if high <= low * NEAR_ENOUGH {
                return;
            }
            middle = if high.is_finite() { (low * high).sqrt() } else { (low * step).max(PERIOD_MS_MIN) };
            step *= step;
        }
    }
}

/// Nodes to plan over.
pub(super) struct Seats {
    pub(super) members: Vec<Member>,
    /// No stream has a shorter period, whatever it runs on; zero if nothing is known of that.
    pub(super) bound_ms: f64,
}

/// The origin, and at most `count_max - 1` others that compute: those through which the shortest periods lead.
pub(super) fn choose(problem: &Problem, ranges: &Ranges, count_max: usize) -> Seats {
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let others = (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute);
    let others: Vec<usize> = others.collect();
    let with_origin = |others: &[usize]| {
        let others = others.iter().map(|node| Member { node: *node, computes: true });
        std::iter::once(origin).chain(others).collect::<Vec<Member>>()
    };
    if others.len() < count_max {
        return Seats { members: with_origin(&others), bound_ms: 0.0 };
    }
    if others.len() < CHOSEN_AMONG_MAX {
        return Streams::new(problem, ranges, &with_origin(&others)).seats(count_max);
    }
    let seats = Streams::new(problem, ranges, &with_origin(&prominent(problem, others))).seats(count_max);
    Seats { bound_ms: 0.0, ..seats }
}

/// Half of those that may be chosen among by how quickly bytes come there from the origin, half by how quick they are.
fn prominent(problem: &Problem, mut nodes: Vec<usize>) -> Vec<usize> {
    let of_link = |node: usize| problem.links.get(0, node).map_or(f64::INFINITY, |link| link.ms_per_byte);
    let of_runs = |node: usize| problem.nodes[node].block_ms.iter().sum::<f64>();
    nodes.sort_by(|one, other| of_link(*one).total_cmp(&of_link(*other)));
    let mut rest = nodes.split_off(nodes.len().min(CHOSEN_AMONG_MAX / 2));
    rest.sort_by(|one, other| of_runs(*one).total_cmp(&of_runs(*other)));
    nodes.extend(rest.into_iter().take(CHOSEN_AMONG_MAX / 2 - 1));
    nodes
}

/// Looks for plans of short periods over these members, each of which is priced; and says below which period there
/// is none, given such a bound to begin with. Limits of anything else are not looked at.
pub(super) fn search(
    problem: &Problem,
    ranges: &Ranges,
    members: &[Member],
    bound_ms: f64,
    price: impl FnMut(PlanShape) -> Option<f64>,
) -> f64 {
    let streams = Streams::new(problem, ranges, members);
    let Some((bound_ms, _)) = streams.bound(bound_ms, NEAR_ENOUGH, STEP) else { return bound_ms };
    if members.len() <= packing::MEMBERS_MAX {
        streams.pack(bound_ms, price);
    } else {
        let seats = seats::choose(&streams, bound_ms, packing::MEMBERS_MAX);
        Streams::new(problem, ranges, &seats).pack(bound_ms, price);
    }
    bound_ms
}
