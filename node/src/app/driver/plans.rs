//! Planning, beside the loop: for one request, or a list to choose from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{NodeId, PlanId, RequestId};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;

use super::variants::{Choice, accurate_enough, with_any};
use super::{Driver, Event};
use crate::app::calls::{CallError, PlanLimits, Reply};
use crate::app::planning::{Candidate, Posed, Question, loss_max};
use crate::plan::{self, Alternative, EXPANSIONS_DEFAULT, Kind, Priced};
use crate::serve::json::PlansView;

/// Plans that can be asked for by id without listing them again.
const KNOWN_PLANS_MAX: usize = 4096;

/// A plan for a request, or why there is none.
#[derive(Debug)]
pub struct Planned {
    pub request: RequestId,
    pub result: Result<Plan, String>,
    /// If there is none: plan again, without these only.
    pub or_without: Option<Vec<NodeId>>,
}

/// Plans for a call.
#[derive(Debug)]
pub struct Listed {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) choices: Vec<Choice>,
    pub(super) plans: Result<Vec<PricedPlan>, String>,
    pub(super) reply: Reply<PlansView>,
}

/// A plan, its kind, and what it takes.
type PricedPlan = (Plan, Kind, Priced);

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

/// Of variants in their order the first that is fast enough; if none is, the fastest.
fn first_or_fastest<T>(
    answers: impl Iterator<Item = Result<(f64, T), String>>,
    enough_ms: f64,
) -> Result<T, String> {
    let (mut fastest, mut why): (Option<(f64, T)>, Option<String>) = (None, None);
    for answer in answers {
        match answer {
            Ok((latency_ms, found)) if latency_ms <= enough_ms => return Ok(found),
            Ok((latency_ms, found)) => {
                if fastest.as_ref().is_none_or(|(known_ms, _)| latency_ms < *known_ms) {
                    fastest = Some((latency_ms, found));
                }
            }
            Err(error) => why = why.or(Some(error)),
        }
    }
    fastest.map(|(_, found)| found).ok_or_else(|| why.unwrap_or_else(|| "it has no variants".to_owned()))
}

/// The best plan that all who look at the mesh from here would find.
fn best(posed: &[Posed], enough_ms: f64) -> Result<Plan, String> {
    let plans = posed.iter().map(|posed| match plan::best(&posed.problem, EXPANSIONS_DEFAULT) {
        Ok(best) => Ok((best.priced.latency_ms, posed.plan(&best.priced.shape))),
        Err(none) => Err(none.to_string()),
    });
    first_or_fastest(plans, enough_ms)
}

/// Latency from which on a more accurate variant is worth waiting for: any, unless the caller says what is
/// fast enough, or which accuracy is enough and so that it is all the same to him beyond.
pub(super) fn enough_ms(max_latency_ms: Option<f64>, limits: PlanLimits) -> f64 {
    max_latency_ms.unwrap_or(if limits.min_accuracy.is_some() { 0.0 } else { f64::INFINITY })
}

/// What a list of plans is asked for.
pub(super) struct Asked {
    pub model: String,
    /// Of this variant only.
    pub variant: Option<String>,
    /// All kinds, not only the best.
    pub all: bool,
    /// For an encoded image, or for tensors; if absent, for an image where the model has a card.
    pub image: Option<bool>,
    pub limits: PlanLimits,
    /// Wherever it is possible, instead of the best codecs.
    pub codec: Option<Codec>,
}

/// All kinds of plans of all variants, the soonest first; or the best alone.
fn listed(
    posed: &[Posed],
    all: bool,
    codec: Option<Codec>,
    enough_ms: f64,
) -> Result<Vec<PricedPlan>, String> {
    let of_each = posed.iter().map(|posed| listed_of(posed, all, codec));
    if !all {
        let soonest = |plans: Vec<PricedPlan>| {
            let latency_ms = plans.first().map_or(f64::INFINITY, |(.., priced)| priced.latency_ms);
            (latency_ms, plans)
        };
        return first_or_fastest(of_each.map(|plans| plans.map(soonest)), enough_ms);
    }
    let (mut plans, mut why) = (Vec::new(), None);
    for of_one in of_each {
        match of_one {
            Ok(found) => plans.extend(found),
            Err(error) => why = why.or(Some(error)),
        }
    }
    plans.sort_by(|(.., one), (.., other)| one.latency_ms.total_cmp(&other.latency_ms));
    why.filter(|_| plans.is_empty()).map_or(Ok(plans), Err)
}

fn listed_of(posed: &Posed, all: bool, codec: Option<Codec>) -> Result<Vec<PricedPlan>, String> {
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
            "`{}` has no card, so it takes tensors (texts as UTF-8 without zero bytes); deploy it with --card FILE to send images",
            manifest.model
        )));
    }
    Ok(if image { 0..manifest.block_count() } else { manifest.graph_blocks() })
}

impl Driver {
    /// The planner's problem as this node sees it now.
    pub(super) fn pose(
        &self,
        choice: &Choice,
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
            self.member
                .view()
                .iter()
                .filter(|known| self.member.view().is_usable(now_ms, known.record.node))
                .map(|known| Candidate {
                    record: &known.record,
                    takes_work: takes_work(known.record.node) && known.record.offer.takes_work(),
                }),
        );
        let PlanLimits { force_first, force_last, min_accuracy } = limits;
        // What is out of reach was said when the request came.
        let loss_max = loss_max(choice.accuracy_known(), min_accuracy).unwrap_or(0.0);
        let rounds = min_accuracy.is_some();
        let (manifest, variant) = (&choice.manifest.manifest, choice.id);
        Question { manifest, variant, blocks, candidates, force_first, force_last, rounds, loss_max }.pose()
    }

    /// Plans for a request, beside the loop; variants in the order of preference.
    pub(super) fn plan_request(
        &self,
        request: RequestId,
        posed: Vec<Posed>,
        enough_ms: f64,
        or_without: Option<Vec<NodeId>>,
    ) {
        self.beside(async move {
            let planned = tokio::task::spawn_blocking(move || best(&posed, enough_ms)).await;
            let result = planned.unwrap_or_else(|error| Err(format!("the planner failed: {error}")));
            Event::Planned(Planned { request, result, or_without })
        });
    }

    pub(super) fn on_plans(&mut self, asked: Asked, reply: Reply<PlansView>) {
        let Asked { model, variant, all, image, limits, codec } = asked;
        let found = self.find_deployment(&model, None).and_then(|deployment| {
            let choices = self.variants_of(deployment, variant.as_deref())?;
            let choices = accurate_enough(choices, limits)?;
            let with_blocks = with_any(choices, |choice| {
                codec.map_or(Ok(()), |codec| check_codec(&choice.manifest, codec))?;
                blocks_of(&choice.manifest, image.unwrap_or(choice.manifest.card.is_some()))
            });
            Ok((deployment.version, with_blocks?))
        });
        let (version, choices) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let posed = choices.iter().map(|(choice, blocks)| {
            let mut posed = self.pose(choice, blocks.clone(), &self.suspects.out(), limits);
            if let Some(codec) = codec {
                posed.leave_only(codec, &choice.manifest);
            }
            posed
        });
        let posed: Vec<Posed> = posed.collect();
        let choices = choices.into_iter().map(|(choice, _)| choice).collect();
        let enough_ms = enough_ms(None, limits);
        self.beside(async move {
            let plans = tokio::task::spawn_blocking(move || listed(&posed, all, codec, enough_ms)).await;
            let plans = plans.unwrap_or_else(|error| Err(format!("the planner failed: {error}")));
            Event::Listed(Listed { model, version, choices, plans, reply })
        });
    }

    pub(super) fn on_listed(&mut self, listed: Listed) {
        let Listed { model, version, choices, plans, reply } = listed;
        let answer = plans.map_err(CallError::Unavailable).map(|plans| {
            for (plan, ..) in &plans {
                self.plans.remember(plan);
            }
            let view = |(plan, kind, priced): &PricedPlan| {
                let choice = choices.iter().find(|choice| choice.id == plan.variant)?;
                Some(self.plan_view(plan, *kind, priced, choice))
            };
            PlansView { model, version, plans: plans.iter().filter_map(view).collect() }
        });
        let _ = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_comes_first_unless_the_caller_says_what_is_enough() {
        let limits = |min_accuracy| PlanLimits { min_accuracy, ..PlanLimits::default() };
        let variants = || [Ok((30.0, "right")), Err("too large".to_owned()), Ok((10.0, "quick"))].into_iter();
        let chosen = |max_ms, accuracy| first_or_fastest(variants(), enough_ms(max_ms, limits(accuracy)));
        assert_eq!(chosen(None, None), Ok("right"));
        assert_eq!(chosen(None, Some(0.9)), Ok("quick"));
        assert_eq!(chosen(Some(30.0), Some(0.9)), Ok("right"));
        assert_eq!(chosen(Some(20.0), None), Ok("quick"));
        // Too late in any case: as soon as possible.
        assert_eq!(chosen(Some(1.0), None), Ok("quick"));
        let none =
            first_or_fastest([Err::<(f64, ()), _>("a".to_owned()), Err("b".to_owned())].into_iter(), 1.0);
        assert_eq!(none, Err("a".to_owned()));
    }
}
