//! What is asked of a plan: least latency, energy, loss or period, within limits of the others; and what is answered.
//! How it is found is not said here.

use super::best::NoPlan;
use super::front::Criterion;
use super::hunt;
use super::price::Priced;
use super::problem::Problem;
use super::wanted::{Wanted, While};

/// What sums in another order may differ by.
pub(super) const ROUNDING: f64 = 1e-9;

/// What is to be least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Time from request to result.
    #[default]
    Latency,
    /// The period of a stream of requests.
    Throughput,
    /// What the origin draws.
    Energy,
    /// What codings lose of accuracy.
    #[serde(skip)]
    Loss,
}

/// What is asked of a plan. How much accuracy it may lose is said by [`Problem::loss_max`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Goal {
    /// What is to be least.
    pub objective: Objective,
    /// Longest latency, ms.
    pub latency_ms_max: Option<f64>,
    /// Most energy that the origin may draw, mJ.
    pub energy_mj_max: Option<f64>,
}

/// Whatever finds the best plan for a goal.
pub trait Planner {
    /// The best plan found.
    ///
    /// # Errors
    /// Why there is none, with the closest where only limits forbid it.
    fn best_for(&self, problem: &Problem, goal: &Goal) -> Result<Found, Missed>;
}

/// A search of this method that looks at so many partial plans at most, once relaxations did not prove their
/// answer.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// How thoroughly to look.
    pub method: Method,
    /// Partial plans looked at.
    pub expansions_max: usize,
}

impl Planner for Search {
    fn best_for(&self, problem: &Problem, goal: &Goal) -> Result<Found, Missed> {
        hunt::best_for(problem, goal, self, Wanted::default())
    }
}

impl Planner for While<'_, Search> {
    fn best_for(&self, problem: &Problem, goal: &Goal) -> Result<Found, Missed> {
        hunt::best_for(problem, goal, &self.planner, self.wanted)
    }
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Over the nodes that promise most, with few partial plans remembered.
    Greedy,
    /// Over all nodes, with all partial plans remembered that may matter.
    Exact,
}

/// The best plan found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The plan and its cost.
    pub priced: Priced,
    /// No plan over the nodes that were looked at has less of what is to be least.
    pub bound: f64,
    /// Nodes that compute but were not looked at.
    pub nodes_left_out: usize,
}

/// Which limit cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// No plan is as quick.
    Latency,
    /// No plan draws as little.
    Energy,
    /// Either can be met, but no plan was found that meets both.
    LatencyWithEnergy,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Missed {
    /// None, whatever the limits.
    NoPlan(NoPlan),
    /// None within the limits.
    Limits {
        /// Which limit binds.
        binding: Binding,
        /// The plan that exceeds them least, as a factor.
        closest: Box<Priced>,
    },
}

impl Goal {
    pub(super) fn criterion(&self) -> Criterion {
        match self.objective {
            Objective::Latency => Criterion::Latency,
            Objective::Throughput => Criterion::Period,
            Objective::Energy => Criterion::Energy,
            Objective::Loss => Criterion::Loss,
        }
    }

    /// What is to be least, of a plan.
    pub fn value(&self, priced: &Priced) -> f64 {
        match self.objective {
            Objective::Latency => priced.latency_ms,
            Objective::Throughput => priced.period_ms,
            Objective::Energy => priced.energy_mj,
            Objective::Loss => priced.loss,
        }
    }

    /// How far a plan exceeds the limits: at most 1 if it meets them.
    pub(super) fn excess(&self, priced: &Priced) -> f64 {
        let of = |value: f64, limit: Option<f64>| match limit {
            Some(limit) if value > limit => value / limit.max(f64::MIN_POSITIVE),
            _ => 0.0,
        };
        of(priced.latency_ms, self.latency_ms_max).max(of(priced.energy_mj, self.energy_mj_max))
    }

    /// Whether a plan keeps the limits.
    pub fn is_met(&self, priced: &Priced) -> bool {
        self.excess(priced) <= 1.0 + ROUNDING
    }

    pub(super) fn needs_energy(&self) -> bool {
        self.objective == Objective::Energy || self.energy_mj_max.is_some()
    }

    /// By the least latency and energy of any plan.
    pub(super) fn binding(&self, (least_ms, least_mj): (f64, f64)) -> Binding {
        let is_over = |least: f64, limit: Option<f64>| limit.is_some_and(|limit| least > limit);
        match (is_over(least_ms, self.latency_ms_max), is_over(least_mj, self.energy_mj_max)) {
            (true, false) => Binding::Latency,
            (false, true) => Binding::Energy,
            _ => Binding::LatencyWithEnergy,
        }
    }
}
