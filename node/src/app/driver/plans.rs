//! Planning, beside the loop: for one request, or a list to choose from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{DeploymentId, NodeId, PlanId, RequestId};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;

use super::{Driver, Event};
use crate::app::calls::{CallError, PlanLimits, Reply};
use crate::app::planning::{Candidate, Posed, Question, loss_max};
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

/// What a list of plans is asked for.
pub(super) struct Asked {
    pub model: String,
    /// All kinds, not only the best.
    pub all: bool,
    /// For an encoded image, or for tensors; if absent, for an image where the model has a card.
    pub image: Option<bool>,
    pub limits: PlanLimits,
    /// Wherever it is possible, instead of the best codecs.
    pub codec: Option<Codec>,
}

fn listed(posed: &Posed, all: bool, codec: Option<Codec>) -> Result<Vec<(Plan, Kind, Priced)>, String> {
    let mut priced: Vec<(Kind, Priced)> = if all {
        let found =
            plan::alternatives(&posed.problem, EXPANSIONS_DEFAULT).map_err(|none| none.to_string())?;
        found.into_iter().map(|Alternative { kind, priced }| (kind, priced)).collect()
    } else {
        let best = plan::best(&posed.problem, EXPANSIONS_DEFAULT).map_err(|none| none.to_string())?;
        vec![(best.priced.shape.kind(), best.priced)]
    };
    if let Some(codec) = codec {
        for (_, priced) in &mut priced {
            let shape = posed.problem.all_by(codec, std::mem::take(&mut priced.shape.stages));
            *priced = posed.problem.price(&shape).map_err(|why| why.to_string())?;
        }
        priced.sort_by(|(_, one), (_, other)| one.latency_ms.total_cmp(&other.latency_ms));
    }
    // Plans that differed in their codecs may be the same now.
    let mut known = BTreeSet::new();
    let plans = priced.into_iter().map(|(kind, priced)| (posed.plan(&priced.shape), kind, priced));
    Ok(plans.filter(|(plan, ..)| known.insert(plan.id())).collect())
}

/// Share of agreement that a plan's codecs may lose under these limits.
pub(super) fn loss_allowed(manifest: &Manifest, limits: PlanLimits) -> Result<f64, CallError> {
    loss_max(manifest, limits.min_accuracy).map_err(|best| {
        let enough = limits.min_accuracy.unwrap_or(1.0);
        CallError::Conflict(format!(
            "no plan for `{}` reaches an accuracy of {enough}: the closest is {best}, its variant `{}` with \
             nothing lost on the way; lower min_accuracy to {best}",
            manifest.model, manifest.variant
        ))
    })
}

/// Whether a codec may be asked for by name.
fn check_codec(manifest: &Manifest, codec: Codec) -> Result<(), CallError> {
    let is_measured = |codec| {
        let figures = manifest.cuts.iter().filter_map(|cut| cut.figures(codec));
        figures.filter_map(|figures| figures.loss()).next().is_some()
    };
    if codec == Codec::Raw || is_measured(codec) {
        return Ok(());
    }
    let why = if codec.is_lossless() {
        "makes none of its cuts smaller"
    } else {
        "loses something, and how much was not measured; deploy it with --card FILE --samples DIR"
    };
    Err(CallError::Conflict(format!(
        "`{}` has no cut for the codec {}: it {why}",
        manifest.model,
        codec.name()
    )))
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
        limits: PlanLimits,
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
        let PlanLimits { force_first, force_last, min_accuracy } = limits;
        // What is out of reach was said when the request came.
        let loss_max = loss_max(manifest, min_accuracy).unwrap_or(0.0);
        let rounds = min_accuracy.is_some();
        Question { manifest, deployment, blocks, candidates, force_first, force_last, rounds, loss_max }
            .pose()
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

    pub(super) fn on_plans(&mut self, asked: Asked, reply: Reply<PlansView>) {
        let Asked { model, all, image, limits, codec } = asked;
        let found = self.find_model(&model, None).and_then(|found| {
            let manifest = &found.2;
            loss_allowed(manifest, limits)?;
            codec.map_or(Ok(()), |codec| check_codec(manifest, codec))?;
            let blocks = blocks_of(manifest, image.unwrap_or(manifest.card.is_some()))?;
            Ok((found, blocks))
        });
        let ((id, version, manifest), blocks) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let mut posed = self.pose(id, &manifest, blocks, &[], limits);
        if let Some(codec) = codec {
            posed.leave_only(codec, &manifest);
        }
        let variant = manifest.variant.clone();
        self.beside(async move {
            let plans = tokio::task::spawn_blocking(move || listed(&posed, all, codec)).await;
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
