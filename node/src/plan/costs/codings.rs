//! Ways to send each cut, by what they cost whoever sends and receives.

use stormo_protocol::codec::payload::Codec;

use crate::plan::coding::Coding;
use crate::plan::problem::{Link, Node, Problem};

/// What a way to send a cut costs, wherever it goes.
pub(super) struct CodingCosts {
    pub(super) codec: Codec,
    pub(super) bytes: f64,
    pub(super) encode_ms: f64,
    pub(super) decode_ms: f64,
    /// Its loss, at the price of agreement.
    pub(super) loss_ms: f64,
}

/// Ways to send each cut.
pub(in crate::plan) struct Codings {
    all: Vec<CodingCosts>,
    /// Where each cut's begin, and last where all end.
    begins: Vec<usize>,
}

impl Codings {
    /// Every coding of each cut in the problem's order, as it is first, at no price.
    pub(super) fn every(problem: &Problem) -> Self {
        Self::of_cuts(problem, 0.0, |codings, kept| kept.extend(codings))
    }

    /// Those that may be best somewhere, at a price of all agreement; at an infinite one, they are lossless.
    pub(super) fn worthwhile(problem: &Problem, loss_price_ms: f64) -> Self {
        let are_same = |node: &Node| node.encode_factors.are_same() && node.decode_factors.are_same();
        // Where a codec is quicker than another here and slower there, neither beats the other.
        let may_drop = problem.nodes.iter().all(are_same);
        Self::of_cuts(problem, loss_price_ms, |codings, kept| keep_worthwhile(codings, may_drop, kept))
    }

    fn of_cuts(
        problem: &Problem,
        loss_price_ms: f64,
        keep: impl Fn(&mut dyn Iterator<Item = CodingCosts>, &mut Vec<CodingCosts>),
    ) -> Self {
        let cuts = 0..=problem.block_count() as u16;
        let mut codings = Self { all: vec![], begins: vec![0] };
        for cut in cuts {
            let costs = |coding: Coding| CodingCosts {
                codec: coding.codec,
                bytes: coding.bytes as f64,
                encode_ms: coding.encode_ms,
                decode_ms: coding.decode_ms,
                loss_ms: coding.loss_ms(loss_price_ms),
            };
            let mut kept = vec![];
            keep(&mut problem.codings(cut).map(costs), &mut kept);
            codings.all.append(&mut kept);
            codings.begins.push(codings.all.len());
        }
        codings
    }

    /// The least that sending a cut takes, by any way to.
    pub(in crate::plan) fn hop_ms(&self, sender: &Node, link: Link, receiver: &Node, cut: usize) -> f64 {
        let coded_ms = |coding: &CodingCosts| {
            let encode_ms = coding.encode_ms * sender.encode_factors.of(coding.codec);
            let coding_ms = encode_ms + coding.decode_ms * receiver.decode_factors.of(coding.codec);
            link.latency_ms + link.ms_per_byte * coding.bytes + coding_ms + coding.loss_ms
        };
        self.of(cut).iter().map(coded_ms).fold(f64::INFINITY, f64::min)
    }

    /// Ways to send one cut.
    pub(super) fn of(&self, cut: usize) -> &[CodingCosts] {
        &self.all[self.begins[cut]..self.begins[cut + 1]]
    }
}

/// Leaves those out that another one beats in every respect.
fn keep_worthwhile(
    codings: &mut dyn Iterator<Item = CodingCosts>,
    may_drop: bool,
    kept: &mut Vec<CodingCosts>,
) {
    for costs in codings.filter(|costs| costs.loss_ms.is_finite()) {
        if !may_drop {
            kept.push(costs);
        } else if !kept.iter().any(|known| known.is_never_worse_than(&costs)) {
            kept.retain(|known| !costs.is_never_worse_than(known));
            kept.push(costs);
        }
    }
}

impl CodingCosts {
    fn is_never_worse_than(&self, other: &Self) -> bool {
        self.bytes <= other.bytes
            && self.encode_ms <= other.encode_ms
            && self.decode_ms <= other.decode_ms
            && self.loss_ms <= other.loss_ms
    }
}
