//! Which variant of a model, by which plan: the choice over variants whose accuracy differs, by what is asked.

use super::goal::{Binding, Found, Goal, Missed, Objective, Planner};
use super::price::Priced;
use super::problem::Problem;

/// What sums of losses may be off by.
const ROUNDING: f64 = 1e-9;

/// One of several ways to compute about the same.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What it is called.
    pub name: String,
    /// Share of right answers; `None` if nobody measured it: then it comes last.
    pub accuracy: Option<f64>,
    /// The mesh and this variant's sizes and times. How much codings may lose is set by the question.
    pub problem: Problem,
}

/// What is asked of all variants together.
#[derive(Debug, Clone)]
pub struct Question {
    /// At least one.
    pub variants: Vec<Variant>,
    /// What is to be least, and the limits.
    pub goal: Goal,
    /// Accuracy that is enough: then the best plan counts among all that reach it. Without it, the most
    /// accurate that meets the limits.
    pub min_accuracy: Option<f64>,
}

/// A variant and its plan.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Index into [`Question::variants`].
    pub variant: usize,
    /// The plan.
    pub found: Found,
}

/// Why no variant can be run as asked.
#[derive(Debug, Clone)]
pub enum NoAnswer {
    /// No variant is as accurate; the best plan of the most accurate, if there is one.
    Accuracy(Option<Box<Answer>>),
    /// Limits forbid it; the variant and plan that exceed them least.
    Limits {
        /// Which limit binds.
        binding: Binding,
        /// Index into [`Question::variants`].
        variant: usize,
        /// The closest plan.
        closest: Box<Priced>,
    },
    /// The mesh cannot run it at all.
    NoPlan(super::best::NoPlan),
}

impl Variant {
    fn accuracy(&self) -> f64 {
        self.accuracy.unwrap_or(0.0)
    }

    fn allowing(&self, loss_max: f64) -> Problem {
        Problem { loss_max: loss_max.max(0.0), ..self.problem.clone() }
    }

    fn may_lose(&self) -> bool {
        self.problem.codings.iter().flatten().any(|coding| coding.loss > 0.0)
    }
}

impl Question {
    /// The best variant and plan.
    ///
    /// # Errors
    /// Why there is none, with the closest where only limits forbid it.
    pub fn answer(&self, planner: &impl Planner) -> Result<Answer, NoAnswer> {
        match self.min_accuracy {
            Some(enough) => self.accurate_enough(enough, planner),
            None => self.most_accurate(planner),
        }
    }

    fn accurate_enough(&self, enough: f64, planner: &impl Planner) -> Result<Answer, NoAnswer> {
        let (mut best, mut missed): (Option<Answer>, Vec<(usize, Missed)>) = (None, vec![]);
        for (index, variant) in self.variants.iter().enumerate() {
            let spare = variant.accuracy() - enough;
            if spare < -ROUNDING {
                continue;
            }
            match planner.best_for(&variant.allowing(spare), &self.goal) {
                Ok(found) => self.keep_better(&mut best, Answer { variant: index, found }),
                Err(none) => missed.push((index, none)),
            }
        }
        if best.is_none() && missed.is_empty() {
            let without = Self {
                min_accuracy: None,
                goal: Goal { latency_ms_max: None, energy_mj_max: None, ..self.goal },
                ..self.clone()
            };
            return Err(NoAnswer::Accuracy(without.answer(planner).ok().map(Box::new)));
        }
        best.ok_or_else(|| self.closest(missed))
    }

    /// From the most accurate variant on: as it is, and if limits forbid that, with as little loss as will do.
    fn most_accurate(&self, planner: &impl Planner) -> Result<Answer, NoAnswer> {
        let mut order: Vec<usize> = (0..self.variants.len()).collect();
        order.sort_by(|a, b| self.variants[*b].accuracy().total_cmp(&self.variants[*a].accuracy()));
        let (mut best, mut best_accuracy, mut missed): (Option<Answer>, f64, Vec<(usize, Missed)>) =
            (None, f64::NEG_INFINITY, vec![]);
        for index in order {
            let variant = &self.variants[index];
            if variant.accuracy() < best_accuracy - ROUNDING {
                break;
            }
            match self.with_least_loss(variant, planner) {
                Ok(found) => {
                    let accuracy = variant.accuracy() - found.priced.loss;
                    if accuracy > best_accuracy + ROUNDING {
                        (best, best_accuracy) = (None, accuracy);
                    }
                    if accuracy >= best_accuracy - ROUNDING {
                        self.keep_better(&mut best, Answer { variant: index, found });
                    }
                }
                Err(none) => missed.push((index, none)),
            }
        }
        best.ok_or_else(|| self.closest(missed))
    }

    fn with_least_loss(&self, variant: &Variant, planner: &impl Planner) -> Result<Found, Missed> {
        let lossless = planner.best_for(&variant.allowing(0.0), &self.goal);
        if !matches!(lossless, Err(Missed::Limits { .. })) || !variant.may_lose() {
            return lossless;
        }
        let any = variant.allowing(variant.accuracy.unwrap_or(1.0));
        let least = planner.best_for(&any, &Goal { objective: Objective::Loss, ..self.goal })?;
        planner.best_for(&variant.allowing(least.priced.loss), &self.goal).or(Ok(least))
    }

    fn keep_better(&self, best: &mut Option<Answer>, answer: Answer) {
        let value = |answer: &Answer| self.goal.value(&answer.found.priced);
        if best.as_ref().is_none_or(|best| value(&answer) < value(best)) {
            *best = Some(answer);
        }
    }

    fn closest(&self, missed: Vec<(usize, Missed)>) -> NoAnswer {
        let mut closest: Option<(usize, Binding, Box<Priced>)> = None;
        let mut reason = None;
        for (variant, none) in missed {
            match none {
                Missed::Limits { binding, closest: plan } => {
                    let is_closer = closest
                        .as_ref()
                        .is_none_or(|(_, _, known)| self.goal.excess(&plan) < self.goal.excess(known));
                    if is_closer {
                        closest = Some((variant, binding, plan));
                    }
                }
                Missed::NoPlan(none) => reason = reason.or(Some(none)),
            }
        }
        match (closest, reason) {
            (Some((variant, binding, closest)), _) => NoAnswer::Limits { binding, variant, closest },
            (None, reason) => NoAnswer::NoPlan(reason.unwrap_or(super::best::NoPlan::GaveUp)),
        }
    }
}
