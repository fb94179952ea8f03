//! Planning, beside the loop: for one request, or a list to choose from.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, NodeId, PlanId, RequestId};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;

use super::{Driver, Event};
use crate::app::calls::{CallError, Reply};
use crate::app::planning::{Candidate, Posed, Question};
use crate::ends::Described;
use crate::flow::OriginEvent;
use crate::plan::{self, Alternative, EXPANSIONS_DEFAULT, Kind, Priced};
use crate::serve::json::PlansView;

/// Plans that can be asked for by id without listing them again.
const KNOWN_PLANS_MAX: usize = 4096;

/// A plan for a request, or why there is none.
#[derive(Debug)]
pub struct Planned {
    pub request: RequestId,
    pub result: Result<Plan, String>,
}

/// Plans for a call.
#[derive(Debug)]
pub struct Listed {
    pub model: String,
    pub version: u64,
    pub variant: String,
    pub plans: Result<Vec<(Plan, Kind, Priced)>, String>,
    pub reply: Reply<PlansView>,
}

/// Plans that were listed, the latest.
#[derive(Default)]
pub(super) struct KnownPlans {
    by_id: BTreeMap<PlanId, Plan>,
    order: VecDeque<PlanId>,
}

impl KnownPlans {
    fn remember(&mut self, plan: &Plan) {
        let id = plan.id();
        if self.by_id.insert(id, plan.clone()).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > KNOWN_PLANS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    pub(super) fn get(&self, id: PlanId) -> Option<&Plan> {
        self.by_id.get(&id)
    }
}

/// The best plan that all who look at the mesh from here would find.
pub(super) fn best(posed: &Posed) -> Result<Plan, String> {
    match plan::best(&posed.problem, EXPANSIONS_DEFAULT) {
        Ok(best) => Ok(posed.plan(&best.priced.shape)),
        Err(none) => Err(none.to_string()),
    }
}

fn listed(posed: &Posed, all: bool) -> Result<Vec<(Plan, Kind, Priced)>, String> {
    let priced: Vec<(Kind, Priced)> = if all {
        let found =
            plan::alternatives(&posed.problem, EXPANSIONS_DEFAULT).map_err(|none| none.to_string())?;
        found.into_iter().map(|Alternative { kind, priced }| (kind, priced)).collect()
    } else {
        let best = plan::best(&posed.problem, EXPANSIONS_DEFAULT).map_err(|none| none.to_string())?;
        vec![(best.priced.shape.kind(), best.priced)]
    };
    Ok(priced.into_iter().map(|(kind, priced)| (posed.plan(&priced.shape), kind, priced)).collect())
}

/// The blocks that a request runs: all for an encoded image, without the ends for tensors.
pub(super) fn blocks_of(manifest: &Manifest, image: bool) -> Result<Range<u16>, CallError> {
    if image && manifest.card.is_none() {
        return Err(CallError::BadRequest(format!(
            "`{}` has no card, so it takes tensors; deploy it with --card FILE to send images",
            manifest.model
        )));
    }
    Ok(if image { 0..manifest.block_count() } else { manifest.graph_blocks() })
}

impl Driver {
    /// The planner's problem as this node sees it now.
    pub(super) fn pose(
        &self,
        deployment: DeploymentId,
        manifest: &Manifest,
        blocks: Range<u16>,
        without: &[NodeId],
        (force_first, force_last): (bool, bool),
    ) -> Posed {
        let now_ms = self.now_ms();
        let own = self.record();
        let takes_work = |node: NodeId| !without.contains(&node);
        let mut candidates =
            vec![Candidate { record: &own, takes_work: takes_work(own.node) && !self.leaving }];
        candidates.extend(
            self.view
                .iter()
                .filter(|known| self.view.is_usable(now_ms, known.record.node))
                .map(|known| Candidate { record: &known.record, takes_work: takes_work(known.record.node) }),
        );
        Question { manifest, deployment, blocks, candidates, force_first, force_last }.pose()
    }

    /// Plans for a request, beside the loop.
    pub(super) fn plan_request(&self, request: RequestId, posed: Posed) {
        self.beside(async move {
            let planned = tokio::task::spawn_blocking(move || best(&posed)).await;
            let result = planned.unwrap_or_else(|error| Err(format!("the planner failed: {error}")));
            Event::Planned(Planned { request, result })
        });
    }

    pub(super) fn on_planned(&mut self, planned: Planned) {
        let event = match planned.result {
            Ok(plan) => OriginEvent::Planned(plan),
            Err(why) => OriginEvent::NoPlan(why),
        };
        self.on_origin(planned.request, event);
    }

    pub(super) fn on_plans(
        &mut self,
        model: &str,
        all: bool,
        image: Option<bool>,
        forced: (bool, bool),
        reply: Reply<PlansView>,
    ) {
        let (id, version, manifest) = match self.find_model(model, None) {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let blocks = match blocks_of(&manifest, image.unwrap_or(manifest.card.is_some())) {
            Ok(blocks) => blocks,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let posed = self.pose(id, &manifest, blocks, &[], forced);
        let (model, variant) = (model.to_owned(), manifest.variant.clone());
        self.beside(async move {
            let plans = tokio::task::spawn_blocking(move || listed(&posed, all)).await;
            let plans = plans.unwrap_or_else(|error| Err(format!("the planner failed: {error}")));
            Event::Listed(Listed { model, version, variant, plans, reply })
        });
    }

    pub(super) fn on_listed(&mut self, listed: Listed) {
        let Listed { model, version, variant, plans, reply } = listed;
        let answer = plans.map_err(CallError::Unavailable).map(|plans| {
            for (plan, ..) in &plans {
                self.plans.remember(plan);
            }
            let plans = plans
                .iter()
                .map(|(plan, kind, priced)| self.plan_view(plan, *kind, priced, &variant))
                .collect();
            PlansView { model, version, plans }
        });
        let _ = reply.send(answer);
    }

    /// A live deployment of this name whose manifest is here.
    pub(super) fn find_model(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<(DeploymentId, u64, Arc<Described>), CallError> {
        let Some(deployment) = self.deployments.by_name(name) else {
            let known: Vec<&str> = self.deployments.live().map(|known| known.name.as_str()).collect();
            let known = if known.is_empty() {
                "none is deployed".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(CallError::NotFound(format!(
                "no model `{name}` is deployed ({known}); deploy one with `stormo deploy`"
            )));
        };
        if let Some(version) = version.filter(|version| *version != deployment.version) {
            let current = deployment.version;
            return Err(CallError::NotFound(format!(
                "version {version} of `{name}` is not deployed; the deployed one is {current}"
            )));
        }
        let id = deployment.id();
        match self.manifests.get(&id) {
            Some(manifest) => Ok((id, deployment.version, manifest.clone())),
            None => Err(CallError::Unavailable(format!(
                "the description of `{name}` has not arrived at this node yet; try again in a second"
            ))),
        }
    }
}
