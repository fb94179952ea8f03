//! The planner's problems as this node sees them now.

use std::ops::Range;

use stormo_protocol::ids::NodeId;
use stormo_protocol::state::NodeRecord;

use super::Driver;
use super::variants::Choice;
use crate::app::calls::PlanLimits;
use crate::app::planning::{Candidate, Posed, Question, Wanted, foremost, links};

impl Driver {
    /// What is asked of all usable nodes; posing it takes the square of their number.
    pub(super) fn asked_of_all<'a>(
        &'a self,
        choice: &'a Choice,
        own: &'a NodeRecord,
        without: &[NodeId],
    ) -> Question<'a> {
        let blocks = choice.manifest.manifest.graph_blocks();
        let mut candidates = self.candidates(own, without);
        for candidate in candidates.iter_mut().filter(|candidate| candidate.record.node == own.node) {
            // Its own requests it runs anyway, but it hosts for others only as its owner lets it.
            candidate.takes_work &= own.offer.takes_work();
        }
        self.question(choice, blocks, candidates, PlanLimits::default())
    }

    /// Over the foremost of the usable nodes, the same for all variants.
    pub(super) fn pose_foremost(
        &self,
        variants: Vec<(&Choice, Range<u16>)>,
        without: &[NodeId],
        limits: PlanLimits,
    ) -> Vec<Posed> {
        let own = self.record();
        let wanted = variants.iter().map(|(choice, blocks)| Wanted {
            manifest: &choice.manifest.manifest,
            variant: choice.id,
            blocks: blocks.clone(),
        });
        let candidates = foremost(&wanted.collect::<Vec<_>>(), self.candidates(&own, without));
        let links = links(&candidates);
        let pose = |(choice, blocks)| {
            self.question(choice, blocks, candidates.clone(), limits).pose_with(links.clone())
        };
        variants.into_iter().map(pose).collect()
    }

    /// This node first, then all others that may be used.
    fn candidates<'a>(&'a self, own: &'a NodeRecord, without: &[NodeId]) -> Vec<Candidate<'a>> {
        let (now_ms, view) = (self.now_ms(), self.member.view());
        let takes_work = |node: NodeId| !without.contains(&node);
        let own_takes_work = takes_work(own.node) && !self.leaving;
        let own = Candidate { record: own, takes_work: own_takes_work, late_ms: 0.0 };
        let usable = view.iter().filter(|known| view.is_usable(now_ms, known.record.node));
        let others = usable.map(|known| Candidate {
            record: &known.record,
            takes_work: takes_work(known.record.node) && known.record.offer.takes_work(),
            late_ms: self.hedging.hedges.late_us(now_ms, known.record.node) as f64 / 1000.0,
        });
        std::iter::once(own).chain(others).collect()
    }

    fn question<'a>(
        &self,
        choice: &'a Choice,
        blocks: Range<u16>,
        candidates: Vec<Candidate<'a>>,
        limits: PlanLimits,
    ) -> Question<'a> {
        let PlanLimits { force_first, force_last, min_accuracy, .. } = limits;
        Question {
            manifest: &choice.manifest.manifest,
            variant: choice.id,
            blocks,
            candidates,
            force_first,
            force_last,
            accuracy: choice.accuracy_known(),
            min_accuracy,
            power: self.parts.power,
        }
    }
}
