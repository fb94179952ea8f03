//! Planning, beside the loop: for one request, or a list to choose from.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{NodeId, PlanId, RequestId};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::Plan;

use super::latest::Latest;
use super::plan_kinds::{better_split, redundant, split};
use super::plan_views::kind_name;
use super::ready_plans::MadeFor;
use super::variants::{Choice, accurate_enough, with_any};
use super::{Driver, Event};
use crate::app::calls::{CallError, PlanLimits, PlanName, PlannerName, PlansAsked, Reply};
use crate::app::choosing::{self, Chosen, NotChosen};
use crate::app::exporting;
use crate::app::planning::Posed;
use crate::plan::{self, EXPANSIONS_DEFAULT, Kind, Priced, PricedSplit, Wanted};
use crate::serve::json::PlansView;

/// Plans that can be asked for by id without listing them again.
const KNOWN_PLANS_MAX: usize = 4096;

/// A plan for a request, or why there is none.
#[derive(Debug)]
pub struct Planned {
    pub request: RequestId,
    pub result: Result<Made, Unplanned>,
    /// If there is none: plan again, without these only.
    pub or_without: Option<Vec<NodeId>>,
    /// Others may ask the same, of the same mesh.
    pub made_for: Option<MadeFor>,
}

/// A plan as it was made.
#[derive(Debug)]
pub struct Made {
    pub plan: Plan,
    /// What the origin draws for it, mJ; of worth only where its owner said what it draws, and not known of plans with
    /// a fork.
    pub energy_mj: Option<f64>,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum Unplanned {
    /// Nobody can run it.
    Nobody(String),
    /// A limit of the request forbids all; the closest, which can be asked for by its id.
    Limit(String, Made),
}

/// Plans for a call.
#[derive(Debug)]
pub struct Listed {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) choices: Vec<Choice>,
    pub(super) result: Result<PlanList, Unplanned>,
    pub(super) reply: Reply<PlansView>,
}

/// What was found, the best first.
#[derive(Debug)]
pub(super) struct PlanList {
    plans: Vec<PricedPlan>,
    /// The best plan with a fork of each variant that has one.
    splits: Vec<(Posed, PricedSplit, Plan)>,
    /// No plan has less of what is to be least, where it was looked for; in the objective's unit.
    lower_bound: Option<f64>,
    planning_ms: f64,
}

/// A plan, and what is told of it.
#[derive(Debug, Clone)]
pub(super) struct PricedPlan {
    pub(super) plan: Plan,
    pub(super) kind: Kind,
    pub(super) priced: Priced,
    /// What a loss in the plan's price has to be divided by to be a share of agreement.
    pub(super) loss_unit: f64,
    /// Limits that it exceeds.
    pub(super) exceeds: Vec<&'static str>,
}

/// Plans that were listed, the latest.
pub(super) struct KnownPlans(Latest<PlanId, Plan>);

impl Default for KnownPlans {
    fn default() -> Self {
        Self(Latest::of(KNOWN_PLANS_MAX))
    }
}

impl KnownPlans {
    pub(super) fn remember(&mut self, plan: &Plan) {
        self.0.insert(plan.id(), plan.clone());
    }

    /// The plan of this name; if the beginning of an id fits several, the one that was listed last.
    pub(super) fn get(&self, name: &PlanName) -> Option<&Plan> {
        match name.digits().parse() {
            Ok(id) => self.0.get(&id),
            Err(_) => {
                let fits = |(id, _): &(&PlanId, &Plan)| id.to_string().starts_with(name.digits());
                self.0.newest_first().find(fits).map(|(_, plan)| plan)
            }
        }
    }
}

/// The plan of a request that all who look at the mesh from here would find.
pub(super) fn best(posed: &[Posed], limits: &PlanLimits) -> Result<Made, Unplanned> {
    match choosing::for_request(posed, limits) {
        Ok(Chosen { posed: index, found }) => {
            let Priced { shape, energy_mj, latency_ms, .. } = &found.priced;
            if let Some(plan) = better_split(&posed[index], limits, *latency_ms) {
                return Ok(Made { plan, energy_mj: None });
            }
            Ok(Made { plan: posed[index].plan(shape), energy_mj: Some(*energy_mj) })
        }
        Err(none) => Err(unplanned(posed, limits, none)),
    }
}

fn unplanned(posed: &[Posed], limits: &PlanLimits, none: NotChosen) -> Unplanned {
    match none {
        NotChosen::NoPlan(why) => Unplanned::Nobody(why),
        NotChosen::Limits { binding, posed: index, closest } => {
            let plan = posed[index].plan(&closest.shape);
            let (unmet, kind) = (choosing::unmet(limits, binding, &closest), kind_name(closest.shape.kind()));
            let why = format!(
                "no plan keeps to {unmet} (plan {}, {kind}); allow that much, or ask for it by its id",
                plan.id()
            );
            Unplanned::Limit(why, Made { plan, energy_mj: Some(closest.energy_mj) })
        }
    }
}

/// The best plan alone; or all kinds of plans of all variants, those within the limits first, then by what is to
/// be least.
fn listed(
    posed: &[Posed],
    asked: &PlansAsked,
    wanted: Wanted<'_>,
) -> Result<(Vec<PricedPlan>, Option<f64>), Unplanned> {
    let limits = &asked.limits;
    if let Some(codec) = asked.codec {
        let mut plans = by_codec(posed, codec, asked, wanted)?;
        plans.sort_by(|one, other| one.priced.latency_ms.total_cmp(&other.priced.latency_ms));
        plans.truncate(if asked.all { usize::MAX } else { 1 });
        return Ok((plans, None));
    }
    let chosen = choosing::choose_while(posed, limits, asked.planner, wanted);
    let (first, lower_bound) = match chosen {
        Ok(Chosen { posed: index, found }) => {
            (Some(told(&posed[index], found.priced, limits)), Some(found.bound))
        }
        Err(NotChosen::Limits { posed: index, closest, .. }) if asked.all => {
            (Some(told(&posed[index], *closest, limits)), None)
        }
        Err(none) => return Err(unplanned(posed, limits, none)),
    };
    let mut plans: Vec<PricedPlan> = first.into_iter().collect();
    if asked.all {
        let others = posed.iter().take_while(|_| wanted.is_wanted()).flat_map(|posed| {
            let found = plan::alternatives(&posed.problem, EXPANSIONS_DEFAULT).unwrap_or_default();
            found.into_iter().map(|other| told(posed, other.priced, limits)).collect::<Vec<_>>()
        });
        plans.extend(others);
        let wanted_still = posed.iter().take_while(|_| wanted.is_wanted());
        plans.extend(wanted_still.filter_map(|posed| Some(told(posed, redundant(&posed.problem)?, limits))));
        // The sort is stable: what was chosen stays in front of what is as good.
        let goal = limits.goal();
        let value = |plan: &PricedPlan| goal.value(&plan.priced);
        plans.sort_by(|one, other| {
            let by_limits = one.exceeds.is_empty().cmp(&other.exceeds.is_empty()).reverse();
            by_limits.then(value(one).total_cmp(&value(other)))
        });
        leave_once(&mut plans);
    }
    Ok((plans, lower_bound))
}

/// All kinds of plans with this codec wherever it is possible.
fn by_codec(
    posed: &[Posed],
    codec: Codec,
    asked: &PlansAsked,
    wanted: Wanted<'_>,
) -> Result<Vec<PricedPlan>, Unplanned> {
    let PlansAsked { limits, all, .. } = asked;
    let nobody = |why: &dyn std::fmt::Display| Unplanned::Nobody(why.to_string());
    let (mut plans, mut why) = (Vec::new(), None);
    for posed in posed.iter().take_while(|_| wanted.is_wanted()) {
        let problem = &posed.problem;
        let shapes = match *all {
            true => plan::alternatives(problem, EXPANSIONS_DEFAULT)
                .map(|all| all.into_iter().map(|one| one.priced.shape).collect::<Vec<_>>()),
            false => plan::best(problem, EXPANSIONS_DEFAULT).map(|best| vec![best.priced.shape]),
        };
        match shapes {
            Err(none) => why = why.or(Some(nobody(&none))),
            Ok(shapes) => {
                for shape in shapes {
                    let priced = problem.price(&problem.all_by(codec, shape.stages));
                    plans.push(told(posed, priced.map_err(|none| nobody(&none))?, limits));
                }
            }
        }
    }
    // Plans that differed in their codecs may be the same now.
    leave_once(&mut plans);
    why.filter(|_| plans.is_empty()).map_or(Ok(plans), Err)
}

fn leave_once(plans: &mut Vec<PricedPlan>) {
    let mut known = BTreeSet::new();
    plans.retain(|plan| known.insert(plan.plan.id()));
}

/// A plan with all that is told of it.
fn told(posed: &Posed, priced: Priced, limits: &PlanLimits) -> PricedPlan {
    PricedPlan {
        plan: posed.plan(&priced.shape),
        kind: priced.shape.kind(),
        loss_unit: posed.loss_unit(),
        exceeds: choosing::exceeded(limits, posed, &priced),
        priced,
    }
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
    /// Plans for a request, beside the loop; variants in the order of preference.
    pub(super) fn plan_request(
        &self,
        request: RequestId,
        posed: Vec<Posed>,
        limits: PlanLimits,
        (or_without, made_for): (Option<Vec<NodeId>>, Option<MadeFor>),
    ) {
        self.beside(async move {
            let planned = tokio::task::spawn_blocking(move || best(&posed, &limits)).await;
            let result = planned.unwrap_or_else(|error| Err(planner_failed(&error)));
            Event::Planned(Planned { request, result, or_without, made_for })
        });
    }

    /// Whether a node may be held to limits of what it draws.
    pub(super) fn check_energy(&self, limits: &PlanLimits) -> Result<(), CallError> {
        if self.parts.power.is_some() || !limits.needs_energy() {
            return Ok(());
        }
        Err(CallError::Conflict(
            "this node does not know what its machine draws, so plans have no energy: start it with --power \
             idle=WATTS,compute=WATTS,send=WATTS,receive=WATTS, or ask without energy"
                .to_owned(),
        ))
    }

    /// What is asked, put to a planner for each variant.
    fn posed(&self, asked: &PlansAsked) -> Result<(u64, Vec<Choice>, Vec<Posed>), CallError> {
        self.check_energy(&asked.limits)?;
        let deployment = self.find_deployment(&asked.model, None)?;
        let choices = self.variants_of(deployment, asked.variant.as_deref())?;
        let choices = accurate_enough(choices, asked.limits)?;
        let with_blocks = with_any(choices, |choice| {
            asked.codec.map_or(Ok(()), |codec| check_codec(&choice.manifest, codec))?;
            blocks_of(&choice.manifest, asked.image.unwrap_or(choice.manifest.card.is_some()))
        })?;
        let left_out = asked.without.iter().map(|name| self.node_called(name));
        let without = [self.suspects.out(), left_out.collect::<Result<_, _>>()?].concat();
        let of = with_blocks.iter().map(|(choice, blocks)| (choice, blocks.clone()));
        let mut posed = self.pose_foremost(of.collect(), &without, asked.limits);
        for (posed, (choice, _)) in posed.iter_mut().zip(&with_blocks) {
            if let Some(codec) = asked.codec {
                posed.leave_only(codec, &choice.manifest);
            }
            if asked.warm {
                posed.problem.nodes.iter_mut().for_each(|node| {
                    (node.cold_fixed_ms, node.cold_ms_per_byte) = (0.0, 0.0);
                });
            }
        }
        Ok((deployment.version, with_blocks.into_iter().map(|(choice, _)| choice).collect(), posed))
    }

    pub(super) fn on_plans(&mut self, asked: PlansAsked, mut reply: Reply<PlansView>) {
        let (version, choices, posed) = match self.posed(&asked) {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        // These may take minutes; whoever asks again and again leaves inference its cores.
        let place = match asked.planner {
            PlannerName::Greedy => None,
            PlannerName::Exact | PlannerName::Ilp => match self.thorough.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    let text =
                        "a thorough planner is at work at this node already; try again when it is done";
                    let _ = reply.send(Err(CallError::Overloaded(text.to_owned())));
                    return;
                }
            },
        };
        let model = asked.model.clone();
        self.beside(async move {
            let find = move |is_wanted: &dyn Fn() -> bool| {
                let _place = place;
                let began = Instant::now();
                let wanted = Wanted::as_long_as(is_wanted);
                let (plans, lower_bound) = listed(&posed, &asked, wanted)?;
                let is_asked = asked.all && asked.codec.is_none();
                let of_all = posed.into_iter().filter(|_| is_asked && wanted.is_wanted());
                let forked = |posed: Posed| {
                    let priced = split(&posed)?;
                    let plan = posed.forked_plan(&priced)?;
                    Some((posed, priced, plan))
                };
                let splits = of_all.filter_map(forked).collect();
                Ok(PlanList {
                    plans,
                    splits,
                    lower_bound,
                    planning_ms: began.elapsed().as_secs_f64() * 1000.0,
                })
            };
            let is_gone = Arc::new(AtomicBool::new(false));
            let told = is_gone.clone();
            let mut finding = tokio::task::spawn_blocking(move || find(&|| !told.load(Ordering::Relaxed)));
            // Who hung up does not wait, and others want the cores, and the place of a thorough planner.
            let found = tokio::select! {
                found = &mut finding => found,
                () = reply.closed() => {
                    is_gone.store(true, Ordering::Relaxed);
                    finding.await
                }
            };
            let result = found.unwrap_or_else(|error| Err(planner_failed(&error)));
            Event::Listed(Listed { model, version, choices, result, reply })
        });
    }

    /// A plan can be asked for by its id from now on.
    pub(super) fn remember(&mut self, plan: &Plan, energy_mj: Option<f64>) {
        self.plans.remember(plan);
        self.foretell(plan, energy_mj);
    }

    /// What a plan draws, for the answers that it gives.
    pub(super) fn foretell(&mut self, plan: &Plan, energy_mj: Option<f64>) {
        if let Some(energy_mj) = energy_mj.filter(|_| self.parts.power.is_some()) {
            self.foretold.note(plan.id(), energy_mj);
        }
    }

    pub(super) fn on_listed(&mut self, listed: Listed) {
        let Listed { model, version, choices, result, reply } = listed;
        let answer = match result {
            Ok(PlanList { plans, splits, lower_bound, planning_ms }) => {
                plans.iter().for_each(|plan| self.remember(&plan.plan, Some(plan.priced.energy_mj)));
                let view = |plan: &PricedPlan| {
                    let choice = choices.iter().find(|choice| choice.id == plan.plan.variant)?;
                    Some(self.plan_view(plan, choice))
                };
                let plans = plans.iter().filter_map(view).collect();
                splits.iter().for_each(|(_, _, plan)| self.remember(plan, None));
                let view = |(posed, priced, plan): &(Posed, PricedSplit, Plan)| {
                    self.split_view(plan.id(), posed, priced)
                };
                let forked = splits.iter().map(view).collect();
                Ok(PlansView { model, version, plans, forked, lower_bound, planning_ms })
            }
            Err(Unplanned::Nobody(why)) => Err(CallError::Unavailable(why)),
            Err(Unplanned::Limit(why, closest)) => {
                self.remember(&closest.plan, closest.energy_mj);
                Err(CallError::Conflict(why))
            }
        };
        let _ = reply.send(answer);
    }

    /// What plans are made of here and now, for others to plan with; written beside the loop.
    pub(super) fn on_instance(&self, asked: &PlansAsked, reply: Reply<serde_json::Value>) {
        let posed = match self.posed(asked) {
            Ok((_, _, posed)) => posed,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let names = posed.first().map(|posed| self.names(&posed.nodes)).unwrap_or_default();
        let limits = asked.limits;
        tokio::task::spawn_blocking(move || {
            let _ = reply.send(Ok(exporting::instance(&posed, &names, &limits)));
        });
    }

    /// Labels, with the end of the id where two have the same.
    fn names(&self, nodes: &[NodeId]) -> Vec<String> {
        let labels: Vec<String> = nodes.iter().map(|node| self.label_of(*node)).collect();
        let name = |(node, label): (&NodeId, &String)| {
            let is_one = labels.iter().filter(|other| *other == label).count() == 1;
            if is_one { label.clone() } else { format!("{label} {}", node.short()) }
        };
        nodes.iter().zip(&labels).map(name).collect()
    }
}

fn planner_failed(error: &tokio::task::JoinError) -> Unplanned {
    Unplanned::Nobody(format!("the planner failed: {error}"))
}
