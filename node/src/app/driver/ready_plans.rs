//! Plans at hand: looked up by requests, made again beside the loop when the mesh changes.

use std::ops::Range;
use std::time::Instant;

use stormo_protocol::ids::{NodeId, RequestId};
use stormo_protocol::plan::Plan;

use super::plans::{Made, Unplanned, best};
use super::variants::{Bound, Choice};
use super::{Driver, Event};
use crate::app::calls::PlanLimits;
use crate::app::plan_table::{Basis, Figures, Key, Own, PlanTable};
use crate::flow::OriginEvent;

/// Plans made again at once, at most.
const REFRESHED_AT_ONCE: usize = 4;
/// Of the loop's time, one part in so many may go into posing what is planned again.
const POSING_SHARE: u32 = 20;

/// What planning again takes.
pub(super) type Again = (Vec<(Choice, Range<u16>)>, PlanLimits);

/// What a plan was made for, and of what.
#[derive(Debug, Clone)]
pub struct MadeFor {
    key: Key,
    basis: Basis,
}

/// A plan made again.
#[derive(Debug)]
pub struct Refreshed {
    made_for: MadeFor,
    result: Result<Made, Unplanned>,
}

/// The plans, and when they may be made again.
#[derive(Debug, Default)]
pub(super) struct ReadyPlans {
    table: PlanTable<Again>,
    not_before_ms: u64,
}

impl Driver {
    /// All that plans are made of, as it is now.
    fn basis(&self) -> Basis {
        let (now_ms, view) = (self.now_ms(), self.member.view());
        let usable = view.iter().filter(|known| view.is_usable(now_ms, known.record.node));
        let usable = usable.map(|known| (known.record.node, known.record.stamp));
        let takes_work = self.offer().takes_work() && !self.leaving;
        let mut links = self.member.links().estimates();
        links.sort_unstable_by_key(|link| link.peer);
        let (said, hosted) = (self.member.stamp(), self.hosting.hosted());
        let late: Vec<(NodeId, u64)> = self.hedging.hedges.late(now_ms).collect();
        let own = Own { said, hosted: &hosted, links: &links, takes_work, late: &late };
        Basis::of(usable, &self.suspects.out(), &own)
    }

    /// Begins a request by the plan that is ready for it; else tells for what one is to be made.
    pub(super) fn by_ready_plan(&mut self, request: RequestId) -> Option<MadeFor> {
        let pending = self.origins.get(&request)?;
        let variants = pending.variants.iter().map(|bound| (bound.choice.id, bound.blocks.clone()));
        let key = Key::new(variants, &pending.options.limits);
        let basis = self.basis();
        match self.ready_plans.table.look_up(self.now_ms(), &key, basis).cloned() {
            Some(plan) => {
                self.on_origin(request, OriginEvent::Planned(plan));
                None
            }
            None => Some(MadeFor { key, basis }),
        }
    }

    /// A plan was made for a request; others may ask the same.
    pub(super) fn keep_ready(&mut self, request: RequestId, made_for: MadeFor, plan: &Plan) {
        let Some(pending) = self.origins.get(&request) else { return };
        let of = |Bound { choice, blocks, .. }: &Bound| (choice.clone(), blocks.clone());
        let again = (pending.variants.iter().map(of).collect(), pending.options.limits);
        let MadeFor { key, basis } = made_for;
        self.ready_plans.table.keep(self.now_ms(), key, basis, plan.clone(), again);
    }

    /// Makes plans again whose mesh is another one now.
    pub(super) fn refresh_plans(&mut self) {
        let now_ms = self.now_ms();
        if now_ms < self.ready_plans.not_before_ms {
            return;
        }
        let (began, basis) = (Instant::now(), self.basis());
        for (key, (asked, limits)) in self.ready_plans.table.stale(now_ms, basis, REFRESHED_AT_ONCE) {
            let out = self.suspects.out();
            let of = asked.iter().map(|(choice, blocks)| (choice, blocks.clone()));
            let posed = self.pose_foremost(of.collect(), &out, limits);
            let made_for = MadeFor { key, basis };
            self.beside(async move {
                let planned = tokio::task::spawn_blocking(move || best(&posed, &limits)).await;
                let failed = |error| Err(Unplanned::Nobody(format!("the planner failed: {error}")));
                let result = planned.unwrap_or_else(failed);
                Event::Refreshed(Refreshed { made_for, result })
            });
        }
        let pause_ms = (began.elapsed() * POSING_SHARE).as_millis() as u64;
        self.ready_plans.not_before_ms = now_ms + pause_ms;
    }

    pub(super) fn on_refreshed(&mut self, refreshed: Refreshed) {
        let Refreshed { made_for: MadeFor { key, basis }, result } = refreshed;
        if let Ok(Made { plan, energy_mj }) = &result {
            self.foretell(plan, *energy_mj);
        }
        self.ready_plans.table.refreshed(&key, basis, result.ok().map(|made| made.plan));
    }

    /// How often a plan was ready.
    pub(super) fn plan_figures(&self) -> Figures {
        self.ready_plans.table.figures()
    }
}
