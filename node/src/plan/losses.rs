//! The least latency when codings may lose some agreement, but not more than so much in all: agreement is
//! given a price, under which losses are times like any others, and the price is searched for at which the
//! limit is met (Lagrangian relaxation). Each pass is a search without the limit.

use super::coding::Hop;
use super::costs::{Member, Stock};
use super::price::{PlanShape, Priced, StageShape};
use super::problem::Problem;
use super::solve::{Solved, Unsolved, solve};
use stormo_protocol::codec::payload::Codec;

/// Passes of the search for a price. One is enough on the small problems of the tests; that larger ones take
/// no more than these is a guess.
const PASSES_MAX: usize = 4;
/// Ways to code the hops so far of given stages that are remembered.
const LABELS_MAX: usize = 64;
/// Losses are sums of millionths; less than this is rounding.
const LOSS_ROUNDING: f64 = 1e-9;

/// A plan within the limit.
pub(super) struct Within {
    pub(super) priced: Priced,
    /// No plan over these nodes and within the limit takes less.
    pub(super) bound_ms: f64,
    /// The price of all agreement under which it was found; infinite if only lossless codings may be used.
    pub(super) loss_price_ms: f64,
}

/// The codings of some hops.
#[derive(Clone, Default)]
struct Label {
    transfer_ms: f64,
    loss: f64,
    codecs: Vec<Codec>,
}

impl Problem {
    /// The price of all agreement at which nothing is ruled out that the limit allows.
    pub(super) fn loss_price_min_ms(&self) -> f64 {
        let is_lossy = self.codings.iter().flatten().any(|coding| coding.loss > 0.0);
        if is_lossy && self.loss_max > 0.0 { 0.0 } else { f64::INFINITY }
    }

    fn is_within(&self, loss: f64) -> bool {
        loss <= self.loss_max + LOSS_ROUNDING
    }

    /// These stages with the codings that take least within the limit.
    pub(super) fn coded_within(&self, stages: Vec<StageShape>) -> PlanShape {
        let mut labels = vec![Label::default()];
        for hop in self.hops(&stages) {
            labels = self.extended(&labels, hop);
        }
        let codecs = labels.into_iter().next().map(|label| label.codecs).unwrap_or_default();
        PlanShape { stages, codecs }
    }

    /// Labels with one hop more, the quickest first. None is a dead end: a cut can always go as it is.
    fn extended(&self, labels: &[Label], hop: Hop) -> Vec<Label> {
        let with = |label: &Label, codec, transfer_ms: f64, loss: f64| {
            let codecs = label.codecs.iter().copied().chain([codec]).collect();
            Label { transfer_ms: label.transfer_ms + transfer_ms, loss: label.loss + loss, codecs }
        };
        let Some(link) = self.links.get(hop.from, hop.to) else {
            return labels.iter().map(|label| with(label, Codec::Raw, 0.0, 0.0)).collect();
        };
        let (sender, receiver) = (&self.nodes[hop.from], &self.nodes[hop.to]);
        let all = labels.iter().flat_map(|label| {
            self.codings(hop.cut).map(move |coding| {
                with(label, coding.codec, coding.transfer_ms(sender, link, receiver), coding.loss)
            })
        });
        let mut all: Vec<Label> = all.filter(|label| self.is_within(label.loss)).collect();
        all.sort_by(|one, other| one.transfer_ms.total_cmp(&other.transfer_ms));
        let mut least_loss = f64::INFINITY;
        all.retain(|label| {
            let is_better = label.loss < least_loss;
            least_loss = least_loss.min(label.loss);
            is_better
        });
        all.truncate(LABELS_MAX);
        all
    }
}

/// The best plan found within the problem's limit of losses.
pub(super) fn solve_within(
    stock: &Stock,
    members: &[Member],
    expansions_max: usize,
) -> Result<Within, Unsolved> {
    let problem = stock.problem;
    let solve_at = |price_ms| solve(stock, members.to_vec(), price_ms, expansions_max);
    let at = |solved: Solved, loss_price_ms| Within {
        priced: solved.priced,
        bound_ms: solved.bound_ms,
        loss_price_ms,
    };
    if problem.loss_price_min_ms().is_infinite() {
        return Ok(at(solve_at(f64::INFINITY)?, f64::INFINITY));
    }
    // Mostly the limit does not bind.
    let free = solve_at(0.0)?;
    if problem.is_within(free.priced.loss) {
        return Ok(at(free, 0.0));
    }
    let lossless = solve_at(f64::INFINITY)?;
    let mut best = at(lossless, f64::INFINITY);
    best.bound_ms = free.bound_ms;
    // The two corners of the hull over (loss, latency) between which the limit lies.
    let (mut above, mut below) = (free.priced, best.priced.clone());
    best.improve(problem, &above);
    for _ in 0..PASSES_MAX {
        let price_ms = (below.latency_ms - above.latency_ms) / (above.loss - below.loss);
        if price_ms <= 0.0 || !price_ms.is_finite() {
            break;
        }
        let Ok(found) = solve_at(price_ms) else { break };
        best.bound_ms = best.bound_ms.max(found.bound_ms - price_ms * problem.loss_max);
        best.loss_price_ms = price_ms;
        best.improve(problem, &found.priced);
        let value_ms = |priced: &Priced| priced.latency_ms + price_ms * priced.loss;
        if value_ms(&found.priced) >= value_ms(&below) * (1.0 - 1e-9) {
            break;
        }
        if problem.is_within(found.priced.loss) { below = found.priced } else { above = found.priced }
    }
    Ok(best)
}

impl Within {
    /// Takes over another plan's stages, coded within the limit, if that is quicker.
    fn improve(&mut self, problem: &Problem, other: &Priced) {
        let shape = problem.coded_within(other.shape.stages.clone());
        if let Ok(priced) = problem.price(&shape)
            && priced.latency_ms < self.priced.latency_ms
        {
            self.priced = priced;
        }
    }
}
