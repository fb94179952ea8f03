//! What is answered to a planning instance, as it is written.

use serde::Serialize;

use super::{Instance, MJ_PER_J};
use crate::plan::backups::backups;
use crate::plan::{
    Answer, Binding, Method, NoAnswer, NoPlan, Objective, Part, Priced, PricedForked, Problem,
    SPLIT_GAIN_MIN, Scope, Share, SplitRun, StageShape, alternatives, best_forked, best_replicated,
};

/// Other plans that are told.
const RUNNERS_UP_MAX: usize = 8;
/// Programmes that an exact search for a stream of several routes solves to prove its answer; beyond that it is the best
/// so far.
const RELAXATIONS_MAX: usize = 500;

/// The answer. Times in ms, energy in J.
#[derive(Debug, Clone, Serialize)]
pub struct Reply {
    /// Whether a plan meets all limits.
    pub feasible: bool,
    /// What forbids it, if not: the name of a limit, or of what the mesh lacks.
    pub binding: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The plan; if not feasible, the closest.
    pub plan: Option<PlanOf>,
    /// No plan takes less, of those over the nodes that were looked at.
    pub lower_bound_ms: Option<f64>,
    /// The same for what was to be least, in its own unit, where that is not latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_bound: Option<f64>,
    /// Whether the bound shows that there is none better.
    pub proven: bool,
    /// A plan that forks, once or more, and takes a tenth less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitOf>,
    /// For a stream: the one over several routes, if its period is shorter than that of any plan that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<ReplicatedOf>,
    /// Nodes that were not looked at, since the mesh is large.
    pub nodes_left_out: usize,
    /// Fields of the instance that no plan uses yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_considered: Vec<&'static str>,
    /// What planning took, filled in by who has a clock.
    pub planning_ms: f64,
    /// Other plans within the limits, the best first.
    pub runners_up: Vec<PlanOf>,
}

/// A plan by names.
#[derive(Debug, Clone, Serialize)]
pub struct PlanOf {
    /// Which variant of the model.
    pub variant: String,
    /// Who runs what.
    pub stages: Vec<StageOf>,
    /// How the result comes home.
    pub result_codec: String,
    /// From request to result.
    pub latency_ms: f64,
    /// From one result to the next, when requests follow each other as fast as can be.
    pub period_ms: f64,
    /// What the requester draws.
    pub energy_j: f64,
    /// The variant's, less what codecs lose.
    pub accuracy: Option<f64>,
    /// What goes over links.
    pub bytes: u64,
}

/// A plan that forks, by names.
#[derive(Debug, Clone, Serialize)]
pub struct SplitOf {
    /// One after the other. The node behind a fork joins it; the requester, if the fork is the last; and the one before
    /// it, or the requester, sends what its parts need.
    pub parts: Vec<PartOf>,
    /// From request to result.
    pub latency_ms: f64,
    /// No plan that forks takes less, of those over the nodes and stretches that were looked at.
    pub lower_bound_ms: f64,
    /// What goes over links.
    pub bytes: u64,
    /// Whether a mesh can run it now: with one fork, into branches.
    pub runnable: bool,
}

/// A part of a plan that forks, by names.
#[derive(Debug, Clone, Serialize)]
pub struct PartOf {
    /// `stage`, on one node; or `branches`, `strips` or `batch`, beside each other.
    pub kind: &'static str,
    /// Who runs what, in the order that a fork serves them.
    pub on: Vec<PlacedOf>,
}

/// A stream of requests that take several routes, by names.
#[derive(Debug, Clone, Serialize)]
pub struct ReplicatedOf {
    /// What runs where, by its blocks: a range that is there several times has so many replicas.
    pub replicas: Vec<ReplicaOf>,
    /// The ways that requests take, each a plan by itself.
    pub routes: Vec<RouteOf>,
    /// From one result to the next, on average.
    pub period_ms: f64,
    /// From request to result while the pipeline fills, on average.
    pub latency_ms: f64,
    /// The same by the slowest route.
    pub latency_max_ms: f64,
    /// What the requester draws for a request, on average.
    pub energy_j: f64,
    /// The variant's, less what the codecs of that route lose which loses most.
    pub accuracy: Option<f64>,
    /// What goes over links for a request, on average.
    pub bytes: f64,
    /// No stream over the nodes that were looked at has a shorter period.
    pub lower_bound_ms: f64,
    /// Whether the bound shows that there is none better.
    pub proven: bool,
    /// Nodes that were not looked at, since the mesh is large.
    pub nodes_left_out: usize,
    /// Whether a mesh can run it now: each route is a plan that it can, but no node deals requests out among several.
    pub runnable: bool,
}

/// A range of blocks on a node, by its name.
#[derive(Debug, Clone, Serialize)]
pub struct ReplicaOf {
    /// Who runs it.
    pub node: String,
    /// First block, and one past the last.
    pub blocks: [u16; 2],
    /// Share of all requests that run there.
    pub weight: f64,
}

/// A way through the mesh, by names.
#[derive(Debug, Clone, Serialize)]
pub struct RouteOf {
    /// Share of all requests that take it.
    pub share: f64,
    /// The plan.
    pub plan: PlanOf,
}

/// Blocks on a node, by its name.
#[derive(Debug, Clone, Serialize)]
pub struct PlacedOf {
    /// Who runs it.
    pub node: String,
    /// First block, and one past the last.
    pub blocks: [u16; 2],
    /// Of a strip: its rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u32>,
    /// Of a batch: so many of its items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
    /// From the request until its input is there and its node free.
    pub start_ms: f64,
    /// Waiting for its turn, loading and running.
    pub takes_ms: f64,
}

/// A stage by names.
#[derive(Debug, Clone, Serialize)]
pub struct StageOf {
    /// Who runs it.
    pub node: String,
    /// First block, and one past the last.
    pub blocks: [u16; 2],
    /// How its input comes.
    pub codec: String,
    /// Who takes over, in this order.
    pub backups: Vec<String>,
}

impl Instance {
    /// The answer in names. What else it tells, a fork or several routes, is looked for by the method.
    pub fn reply(&self, answer: Result<Answer, NoAnswer>, method: Method, expansions_max: usize) -> Reply {
        match answer {
            Ok(answer) => self.found(&answer, method, expansions_max),
            Err(none) => self.none(none),
        }
    }

    fn found(&self, answer: &Answer, method: Method, expansions_max: usize) -> Reply {
        let goal = &self.question.goal;
        let (found, value) = (&answer.found, goal.value(&answer.found.priced));
        let bound = match goal.objective {
            Objective::Energy => found.bound / MJ_PER_J,
            _ => found.bound,
        };
        let is_latency = goal.objective == Objective::Latency;
        Reply {
            plan: Some(self.plan(answer.variant, &found.priced)),
            lower_bound_ms: is_latency.then_some(bound),
            lower_bound: (!is_latency).then_some(bound),
            proven: value <= found.bound * (1.0 + 1e-9),
            split: self.split(answer),
            replicated: self.replicated(answer, method),
            nodes_left_out: found.nodes_left_out,
            runners_up: self.runners_up(answer, expansions_max),
            ..self.blank(true, None, None)
        }
    }

    fn none(&self, none: NoAnswer) -> Reply {
        match none {
            NoAnswer::Accuracy(closest) => {
                let plan = closest.map(|closest| self.plan(closest.variant, &closest.found.priced));
                let reason = "no variant is as accurate".to_owned();
                Reply { plan, ..self.blank(false, Some("min_accuracy"), Some(reason)) }
            }
            NoAnswer::Limits { binding, variant, closest } => {
                let (binding, reason) = match binding {
                    Binding::Latency => ("max_latency_ms", "no plan is as quick"),
                    Binding::Energy => ("max_energy_j", "no plan draws as little"),
                    Binding::LatencyWithEnergy => {
                        ("max_latency_ms with max_energy_j", "no plan was found that meets both limits")
                    }
                };
                let plan = Some(self.plan(variant, &closest));
                Reply { plan, ..self.blank(false, Some(binding), Some(reason.to_owned())) }
            }
            NoAnswer::NoPlan(none) => {
                let binding = match none {
                    NoPlan::BlockMemory { .. } | NoPlan::TotalMemory { .. } | NoPlan::GaveUp => {
                        "memory_bytes"
                    }
                    NoPlan::Forced { .. } => "force_first or force_last",
                    NoPlan::Unreachable => "links",
                    NoPlan::NobodyComputes
                    | NoPlan::Problem(_)
                    | NoPlan::Unwanted
                    | NoPlan::TooLarge { .. }
                    | NoPlan::TooLong { .. }
                    | NoPlan::TooManyRuns { .. } => "nodes",
                };
                self.blank(false, Some(binding), Some(none.to_string()))
            }
        }
    }

    fn blank(&self, feasible: bool, binding: Option<&str>, reason: Option<String>) -> Reply {
        Reply {
            feasible,
            binding: binding.map(str::to_owned),
            reason,
            plan: None,
            lower_bound_ms: None,
            lower_bound: None,
            proven: false,
            split: None,
            replicated: None,
            nodes_left_out: 0,
            not_considered: self.not_considered.clone(),
            planning_ms: 0.0,
            runners_up: vec![],
        }
    }

    /// Of the same variant, if it is worth it.
    fn split(&self, answer: &Answer) -> Option<SplitOf> {
        if !self.not_considered.is_empty() {
            return None;
        }
        let (problem, forks) = (&self.question.variants[answer.variant].problem, &self.forks[answer.variant]);
        let most_ms = answer.found.priced.latency_ms * (1.0 - SPLIT_GAIN_MIN);
        // What takes just as long is taken, so the next number is the first that is not.
        let scope = Scope { method: Method::Greedy, expansions_max: 0, below_ms: most_ms.next_up() };
        let found = best_forked(problem, forks, &scope)?;
        let PricedForked { shape, latency_ms, bytes, runs, .. } = found.priced;
        let mut runs = runs.into_iter();
        let parts = shape.parts.iter().map(|part| self.part(part, forks.stages(part), &mut runs)).collect();
        let mut forked = shape.parts.iter().filter(|part| !matches!(part, Part::Stage(_)));
        let runnable = matches!((forked.next(), forked.next()), (Some(Part::Branches { .. }), None));
        Some(SplitOf { parts, latency_ms, lower_bound_ms: found.bound_ms, bytes, runnable })
    }

    fn part(
        &self,
        part: &Part,
        stages: Vec<StageShape>,
        runs: &mut impl Iterator<Item = SplitRun>,
    ) -> PartOf {
        let units = |shares: &[Share], place: usize| shares.get(place).map(|share| share.units);
        let (kind, rows, items): (_, &[Share], &[Share]) = match part {
            Part::Stage(_) => ("stage", &[], &[]),
            Part::Branches { .. } => ("branches", &[], &[]),
            Part::Rows { shares, .. } => ("strips", shares, &[]),
            Part::Items { shares, .. } => ("batch", &[], shares),
        };
        let placed = |(place, (stage, run)): (usize, (StageShape, SplitRun))| PlacedOf {
            node: self.node_names[stage.node].clone(),
            blocks: [stage.first, stage.end],
            rows: units(rows, place),
            items: units(items, place),
            start_ms: run.start_ms,
            takes_ms: run.takes_ms,
        };
        PartOf { kind, on: stages.into_iter().zip(runs).enumerate().map(placed).collect() }
    }

    /// Of the same variant and no less accurate, if it is worth it and keeps the limits.
    fn replicated(&self, answer: &Answer, method: Method) -> Option<ReplicatedOf> {
        let goal = &self.question.goal;
        if goal.objective != Objective::Throughput {
            return None;
        }
        let (problem, single) = (self.no_less_accurate(answer), &answer.found.priced);
        let found = best_replicated(&problem, vec![single.shape.clone()], method, RELAXATIONS_MAX)?;
        let priced = &found.priced;
        let keeps = |value: f64, limit: Option<f64>| limit.is_none_or(|most| value <= most * (1.0 + 1e-9));
        let is_worth_it = priced.period_ms < single.period_ms * (1.0 - 1e-9)
            && keeps(priced.latency_ms_max, goal.latency_ms_max)
            && keeps(priced.energy_mj, goal.energy_mj_max);
        let replicas = priced.replicas.iter().map(|replica| ReplicaOf {
            node: self.node_names[replica.stage.node].clone(),
            blocks: [replica.stage.first, replica.stage.end],
            weight: replica.weight,
        });
        let routes = priced.shape.routes.iter().zip(&priced.routes);
        let routes = routes
            .map(|((_, share), route)| RouteOf { share: *share, plan: self.plan(answer.variant, route) });
        let accuracy = self.question.variants[answer.variant].accuracy;
        is_worth_it.then(|| ReplicatedOf {
            replicas: replicas.collect(),
            routes: routes.collect(),
            period_ms: priced.period_ms,
            latency_ms: priced.latency_ms,
            latency_max_ms: priced.latency_ms_max,
            energy_j: priced.energy_mj / MJ_PER_J,
            accuracy: accuracy.map(|accuracy| accuracy - priced.loss),
            bytes: priced.bytes,
            lower_bound_ms: found.bound_ms,
            proven: priced.period_ms <= found.bound_ms * (1.0 + 1e-9),
            nodes_left_out: found.nodes_left_out,
            runnable: false,
        })
    }

    /// The answer's variant, allowed to lose what the answer loses.
    fn no_less_accurate(&self, answer: &Answer) -> Problem {
        let problem = &self.question.variants[answer.variant].problem;
        Problem { loss_max: answer.found.priced.loss, ..problem.clone() }
    }

    /// Of the same variant, and no less accurate.
    fn runners_up(&self, answer: &Answer, expansions_max: usize) -> Vec<PlanOf> {
        let problem = self.no_less_accurate(answer);
        let goal = &self.question.goal;
        let others = alternatives(&problem, expansions_max).unwrap_or_default();
        let mut others: Vec<Priced> = others.into_iter().map(|other| other.priced).collect();
        others.retain(|other| goal.is_met(other) && other.shape != answer.found.priced.shape);
        others.sort_by(|one, other| goal.value(one).total_cmp(&goal.value(other)));
        others.iter().take(RUNNERS_UP_MAX).map(|priced| self.plan(answer.variant, priced)).collect()
    }

    fn plan(&self, variant: usize, priced: &Priced) -> PlanOf {
        let of = &self.question.variants[variant];
        let shares_domain = |one: usize, other: usize| {
            self.domains[one].iter().any(|domain| self.domains[other].contains(domain))
        };
        let backups = backups(&of.problem, &priced.shape, false, shares_domain);
        let stages = priced.shape.stages.iter().zip(&priced.shape.codecs).zip(backups);
        let stage = |((stage, codec), backups): ((&StageShape, &_), Vec<usize>)| StageOf {
            node: self.node_names[stage.node].clone(),
            blocks: [stage.first, stage.end],
            codec: self.codec_name(*codec).to_owned(),
            backups: backups.into_iter().map(|node| self.node_names[node].clone()).collect(),
        };
        PlanOf {
            variant: of.name.clone(),
            stages: stages.map(stage).collect(),
            result_codec: self.codec_name(priced.shape.codecs.last().copied().unwrap_or_default()).to_owned(),
            latency_ms: priced.latency_ms,
            period_ms: priced.period_ms,
            energy_j: priced.energy_mj / MJ_PER_J,
            accuracy: of.accuracy.map(|accuracy| accuracy - priced.loss),
            bytes: priced.bytes,
        }
    }
}
