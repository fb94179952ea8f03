//! Plans for the next attempt at a request: without the hosts that failed it, and without suspects as long as others
//! are there.

use stormo_protocol::ids::{NodeId, RequestId};

use super::Driver;
use super::plans::{Made, Planned, Unplanned};
use super::ready_plans::MadeFor;
use super::variants::Bound;
use crate::app::planning::Posed;
use crate::flow::OriginEvent;

impl Driver {
    /// Plans a request, without these nodes, and without suspects as long as that is possible.
    pub(super) fn plan_without(&mut self, request: RequestId, nodes: Vec<NodeId>) {
        // Hosts that failed this request are no reason for others to do without them.
        let made_for = if nodes.is_empty() {
            let Some(made_for) = self.by_ready_plan(request) else { return };
            Some(made_for)
        } else {
            None
        };
        let suspects: Vec<NodeId> =
            self.suspects.out().into_iter().filter(|suspect| !nodes.contains(suspect)).collect();
        let without = [&nodes[..], &suspects[..]].concat();
        let or_without = (!suspects.is_empty()).then_some(nodes);
        self.plan_within(request, &without, or_without, made_for);
    }

    fn plan_within(
        &self,
        request: RequestId,
        without: &[NodeId],
        or_without: Option<Vec<NodeId>>,
        made_for: Option<MadeFor>,
    ) {
        let Some(pending) = self.origins.get(&request) else { return };
        let limits = pending.options.limits;
        // A host that has nothing loaded may refuse to load it, and each attempt could find another such one. (What loading
        // counts here is no energy.)
        let is_again = pending.machine.attempts() > 0 && limits.max_energy_j.is_none();
        let of = pending.variants.iter().map(|Bound { choice, blocks, .. }| (choice, blocks.clone()));
        let mut posed = self.pose_foremost(of.collect(), without, limits);
        if is_again {
            posed.iter_mut().for_each(Posed::prefer_loaded);
        }
        self.plan_request(request, posed, limits, (or_without, made_for));
    }

    pub(super) fn on_planned(&mut self, planned: Planned) {
        let Planned { request, result, or_without, made_for } = planned;
        match (result, or_without) {
            (Ok(Made { plan, energy_mj }), _) => {
                self.foretell(&plan, energy_mj);
                if let Some(made_for) = made_for {
                    self.keep_ready(request, made_for, &plan);
                }
                self.on_origin(request, OriginEvent::Planned(plan));
            }
            // Rather somebody who may be dead than nobody.
            (Err(_), Some(without)) => self.plan_within(request, &without, None, None),
            (Err(Unplanned::Nobody(why)), None) => self.on_origin(request, OriginEvent::NoPlan(why)),
            (Err(Unplanned::Limit(why, closest)), None) => self.refuse_by_limit(request, why, &closest),
        }
    }
}
