//! Ways to send what crosses a cut: what each costs between two nodes, and which is best there. Where its
//! figures come from is not said here.

use stormo_protocol::codec::payload::Codec;

use super::price::{PlanShape, StageShape};
use super::problem::{Link, Node, Problem};

/// A way to send a cut's tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coding {
    /// How they are coded; each at most once for a cut.
    pub codec: Codec,
    /// Bytes on the link.
    pub bytes: u64,
    /// Encoding them, at a factor of 1.
    pub encode_ms: f64,
    /// Decoding them, at a factor of 1.
    pub decode_ms: f64,
    /// Share of agreement that answers lose by it.
    pub loss: f64,
}

impl Coding {
    /// As they are.
    pub(super) fn raw(bytes: u64) -> Self {
        Self { codec: Codec::Raw, bytes, encode_ms: 0.0, decode_ms: 0.0, loss: 0.0 }
    }

    /// Time from the sender's last byte computed to the receiver's start.
    pub(super) fn transfer_ms(&self, sender: &Node, link: Link, receiver: &Node) -> f64 {
        let encode_ms = self.encode_ms * sender.encode_factors.of(self.codec);
        let coding_ms = encode_ms + self.decode_ms * receiver.decode_factors.of(self.codec);
        link.latency_ms + link.ms_per_byte * self.bytes as f64 + coding_ms
    }

    /// What its loss counts as, at a price for all agreement; nothing if there is none, whatever the price.
    pub(super) fn loss_ms(&self, loss_price_ms: f64) -> f64 {
        if self.loss > 0.0 { self.loss * loss_price_ms } else { 0.0 }
    }
}

/// Between whom a cut's tensors go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) cut: u16,
}

impl Problem {
    /// All ways to send a cut: as it is first.
    pub(super) fn codings(&self, cut: u16) -> impl Iterator<Item = Coding> {
        let cut = usize::from(cut);
        std::iter::once(Coding::raw(self.cut_bytes[cut])).chain(self.codings[cut].iter().copied())
    }

    /// The hops of stages: one before each, and last the result's way to the origin.
    pub(super) fn hops<'a>(&self, stages: &'a [StageShape]) -> impl Iterator<Item = Hop> + use<'a> {
        let senders = std::iter::once(0).chain(stages.iter().map(|stage| stage.node));
        let end = Some((0, self.block_count() as u16));
        let receivers = stages.iter().map(|stage| (stage.node, stage.first)).chain(end);
        senders.zip(receivers).map(|(from, (to, cut))| Hop { from, to, cut })
    }

    /// The least time of a hop, and its coding, where agreement has a price. The first of equals: as it is,
    /// if that is one. `None` if no link leads there or nothing has to move.
    pub(super) fn best_coding(&self, hop: Hop, loss_price_ms: f64) -> Option<Coding> {
        let link = self.links.get(hop.from, hop.to)?;
        let (sender, receiver) = (&self.nodes[hop.from], &self.nodes[hop.to]);
        let cost_ms =
            |coding: &Coding| coding.transfer_ms(sender, link, receiver) + coding.loss_ms(loss_price_ms);
        self.codings(hop.cut).min_by(|one, other| cost_ms(one).total_cmp(&cost_ms(other)))
    }

    /// These stages with the best coding on each hop, where agreement has a price; infinite: lossless.
    pub(super) fn coded(&self, stages: Vec<StageShape>, loss_price_ms: f64) -> PlanShape {
        let best = |hop| self.best_coding(hop, loss_price_ms).map_or(Codec::Raw, |coding| coding.codec);
        let codecs = self.hops(&stages).map(best).collect();
        PlanShape { stages, codecs }
    }

    /// These stages with lossless codings only, the best on each hop.
    pub fn lossless(&self, stages: Vec<StageShape>) -> PlanShape {
        self.coded(stages, f64::INFINITY)
    }

    /// A plan with this codec on every hop between two nodes that it is possible on, and raw elsewhere.
    pub fn all_by(&self, codec: Codec, stages: Vec<StageShape>) -> PlanShape {
        let of_hop = |hop: Hop| {
            let is_possible = hop.from != hop.to && self.codings(hop.cut).any(|coding| coding.codec == codec);
            if is_possible { codec } else { Codec::Raw }
        };
        let codecs = self.hops(&stages).map(of_hop).collect();
        PlanShape { stages, codecs }
    }
}
