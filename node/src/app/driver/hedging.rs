//! Deliveries that take long: another host is sent the same, within a budget, and plans turn to others.

use std::time::Duration;

use stormo_protocol::frame::{DeliveryKey, Edge, ORIGIN, Redundancy, StageTrace};
use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::plan::Plan;

use super::Driver;
use super::latest::Latest;
use super::stages::StageKey;
use crate::flow::{Hedges, OriginEvent, Part, StageEvent};
use crate::net::Sent;

/// Deliveries under way whose part is remembered; a node has fewer, and of what ended in vain the oldest go.
const WATCHED_MAX: usize = 1024;

/// What this node knows of its deliveries.
pub(super) struct Hedging {
    pub(super) hedges: Hedges,
    /// To which part each goes, and after how many microseconds it is late.
    watched: Latest<(DeliveryKey, NodeId), (Part, Option<u64>)>,
    /// Deliveries that were hedged since the node started.
    pub(super) begun: u64,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { hedges: Hedges::default(), watched: Latest::of(WATCHED_MAX), begun: 0 }
    }
}

impl Driver {
    /// A delivery to a stage begins: after how long it is late, if the request may be hedged.
    pub(super) fn late_after(
        &mut self,
        key: DeliveryKey,
        to: NodeId,
        (plan, traces): (&Plan, &[StageTrace]),
    ) -> Option<Duration> {
        if Redundancy::of(traces) != Redundancy::Hedge {
            return None;
        }
        // A join takes as long as the branches that it waits for.
        let stage = plan.stages.get(usize::from(key.edge.to)).filter(|_| !plan.is_join(key.edge.to))?;
        let part = Part { node: to, variant: plan.variant, first: stage.first, end: stage.end };
        let round_trip_us = self.member.links().round_trip_us(to).unwrap_or(0.0) as u64;
        let is_chained = plan.behind(key.edge.to) != ORIGIN;
        let after_us = self.hedging.hedges.begun(part, round_trip_us, is_chained);
        self.hedging.watched.insert((key, to), (part, after_us));
        after_us.map(Duration::from_micros)
    }

    /// A delivery was passed on.
    pub(super) fn note_passed(&mut self, key: DeliveryKey, to: NodeId, sent: Sent) {
        if let Some(watched) = self.hedging.watched.get(&(key, to)) {
            let (now_ms, time_us) = (self.now_ms(), sent.time.as_micros() as u64);
            self.hedging.hedges.passed(now_ms, key, *watched, time_us);
        }
    }

    /// A delivery is late: the next host of its stage that is not late itself, nor busy, is sent the same, if there is one and
    /// there were few such deliveries.
    pub(super) fn on_late(&mut self, key: DeliveryKey, to: NodeId, so_far: Duration) {
        let Some((part, _)) = self.hedging.watched.get(&(key, to)).copied() else { return };
        self.hedging.hedges.waits(self.now_ms(), key, part, so_far.as_micros() as u64);
        if self.is_quiet(to) {
            self.doubt(to);
        }
        let others = self.may_hedge(key, to);
        let other = others.into_iter().find(|node| self.may_help(*node));
        if let Some(other) = other.filter(|_| self.hedging.hedges.may_begin()) {
            tracing::debug!(
                request = %key.request, attempt = key.attempt, stage = key.edge.to, peer = %to.short(),
                other = %other.short(), ?so_far, "a host takes long; another one is sent the same"
            );
            self.hedging.begun += 1;
            self.hedge(key, other);
        }
    }

    /// What was asked to be sent to two hosts from the start is sent to the second.
    pub(super) fn duplicate(&mut self, key: DeliveryKey, to: NodeId) {
        if self.redundancy_of(key) == Redundancy::Duplicate {
            let others = self.may_hedge(key, to);
            if let Some(other) = others.into_iter().find(|node| !self.suspects.is_out(*node)) {
                self.hedge(key, other);
            }
        }
    }

    fn hedge(&mut self, key: DeliveryKey, to: NodeId) {
        let DeliveryKey { request, attempt, edge } = key;
        if edge.from == ORIGIN {
            return self.on_origin(request, OriginEvent::Hedge { attempt, stage: edge.to, to });
        }
        let stage = StageKey { request, attempt, stage: edge.from };
        if let Some(hosted) = self.stages.get_mut(&stage) {
            hosted.has_hedged = true;
        }
        self.on_stage(stage, StageEvent::Hedge(edge, to));
    }

    fn redundancy_of(&self, key: DeliveryKey) -> Redundancy {
        if key.edge.from == ORIGIN {
            let pending = self.origins.get(&key.request);
            return pending.map_or(Redundancy::Warm, |pending| pending.options.redundancy);
        }
        let stage = StageKey { request: key.request, attempt: key.attempt, stage: key.edge.from };
        self.stages.get(&stage).map_or(Redundancy::Warm, |hosted| Redundancy::of(&hosted.traces))
    }

    /// Who may be sent the same, in the plan's order.
    pub(super) fn may_hedge(&self, key: DeliveryKey, behind: NodeId) -> Vec<NodeId> {
        let DeliveryKey { request, attempt, edge } = key;
        if edge.from == ORIGIN {
            let pending = self.origins.get(&request);
            return pending
                .map(|pending| pending.machine.may_hedge(attempt, edge.to, behind))
                .unwrap_or_default();
        }
        let hosted = self.stages.get(&StageKey { request, attempt, stage: edge.from });
        hosted.map(|hosted| hosted.machine.may_hedge(edge, behind)).unwrap_or_default()
    }

    /// Whether a host would be quicker than one that is late. If it is late as well, or has work waiting, then it is the load, which
    /// more work does not mend.
    fn may_help(&self, node: NodeId) -> bool {
        let now_ms = self.now_ms();
        if node != self.own() && !self.member.view().is_usable(now_ms, node) || self.suspects.is_out(node) {
            return false;
        }
        let hosted = match self.member.view().get(node) {
            Some(known) if node != self.own() => known.record.hosted.clone(),
            _ => self.hosting.hosted(),
        };
        let is_busy = hosted.iter().any(|hosted| hosted.queue_wait_us > hosted.time_us);
        !is_busy && self.hedging.hedges.late_us(now_ms, node) == 0
    }

    /// What an answer tells of hosts that others sent to: a backup ran what was late where it was to run. Who was sent to from
    /// here and had to wait for that is excused.
    pub(super) fn learn_from(
        &mut self,
        (request, attempt): (RequestId, u16),
        plan: &Plan,
        traces: &[StageTrace],
    ) {
        if Redundancy::of(traces) != Redundancy::Hedge {
            return;
        }
        let now_ms = self.now_ms();
        for trace in traces {
            let from = plan.before(trace.stage);
            let Some(stage) = plan.stages.get(usize::from(trace.stage)).filter(|_| from != ORIGIN) else {
                continue;
            };
            let key = DeliveryKey { request, attempt, edge: Edge { from, to: trace.stage } };
            let is_known = stage.node == self.own() || self.suspects.is_out(stage.node);
            if !is_known && !plan.is_join(trace.stage) {
                let usual_us = u64::from(trace.run_us);
                self.hedging.hedges.heard(now_ms, key, stage.node, (trace.host > 0).then_some(usual_us));
            }
            if trace.host > 0 {
                self.hedging.hedges.excuse(request);
                if !is_known {
                    self.doubt(stage.node);
                }
            }
        }
    }
}
