//! Which variant by which plan: a request's limits put to a planner, and what is said where nothing keeps to them.

use crate::app::calls::{PlanLimits, PlannerName};
use crate::app::planning::Posed;
use crate::plan::{
    Answer, Binding, EXPANSIONS_DEFAULT, Found, Goal, Ilp, Method, NoAnswer, Objective, Priced, Question,
    Search, Variant, Wanted, While,
};

/// Partial plans that the exact planner looks at for a list of plans: some seconds.
const EXPANSIONS_EXACT: usize = 20_000_000;

/// A variant, by its place among those posed, and its plan.
#[derive(Debug)]
pub(super) struct Chosen {
    pub posed: usize,
    pub found: Found,
}

/// Why none was.
#[derive(Debug)]
pub(super) enum NotChosen {
    /// Limits forbid it: which, and the plan that exceeds them least.
    Limits { binding: Binding, posed: usize, closest: Box<Priced> },
    /// The mesh cannot run it.
    NoPlan(String),
}

/// The best plan of these variants within the limits.
///
/// # Errors
/// Why there is none.
pub(super) fn choose(
    posed: &[Posed],
    limits: &PlanLimits,
    planner: PlannerName,
) -> Result<Chosen, NotChosen> {
    choose_while(posed, limits, planner, Wanted::default())
}

/// The same, as long as it is wanted.
///
/// # Errors
/// Why there is none, which may be that nobody waits for it.
pub(super) fn choose_while(
    posed: &[Posed],
    limits: &PlanLimits,
    planner: PlannerName,
    wanted: Wanted<'_>,
) -> Result<Chosen, NotChosen> {
    answered(posed, limits.goal(), limits.min_accuracy, (planner, wanted))
}

/// The plan for a request: if none is as quick as wished, the soonest that keeps to all else.
///
/// # Errors
/// Why there is none.
pub(super) fn for_request(posed: &[Posed], limits: &PlanLimits) -> Result<Chosen, NotChosen> {
    match choose(posed, limits, PlannerName::Greedy) {
        Err(NotChosen::Limits { .. }) if limits.max_latency_ms.is_some() => {
            let goal = Goal { objective: Objective::Latency, latency_ms_max: None, ..limits.goal() };
            // Of all variants, whatever their accuracy: codecs that round are there only if the caller said so.
            let enough = limits.min_accuracy.or(Some(0.0));
            answered(posed, goal, enough, (PlannerName::Greedy, Wanted::default()))
        }
        chosen => chosen,
    }
}

fn answered(
    posed: &[Posed],
    goal: Goal,
    min_accuracy: Option<f64>,
    (planner, wanted): (PlannerName, Wanted<'_>),
) -> Result<Chosen, NotChosen> {
    let variant = |posed: &Posed| Variant {
        name: posed.label.clone(),
        accuracy: Some(posed.accuracy),
        problem: posed.problem.clone(),
    };
    let question = Question { variants: posed.iter().map(variant).collect(), goal, min_accuracy };
    let search = |method, expansions_max| {
        question.answer(&While { planner: Search { method, expansions_max }, wanted })
    };
    let answer = match planner {
        PlannerName::Greedy => search(Method::Greedy, EXPANSIONS_DEFAULT),
        PlannerName::Exact => search(Method::Exact, EXPANSIONS_EXACT),
        PlannerName::Ilp => question.answer(&While { planner: Ilp, wanted }),
    };
    match answer {
        Ok(Answer { variant, found }) => Ok(Chosen { posed: variant, found }),
        Err(NoAnswer::Limits { binding, variant, closest }) => {
            Err(NotChosen::Limits { binding, posed: variant, closest })
        }
        Err(NoAnswer::NoPlan(none)) => Err(NotChosen::NoPlan(none.to_string())),
        Err(NoAnswer::Accuracy(_)) => Err(NotChosen::NoPlan("no variant is as accurate".to_owned())),
    }
}

/// The limits that a plan exceeds, by the names that callers set them by.
pub(super) fn exceeded(limits: &PlanLimits, posed: &Posed, priced: &Priced) -> Vec<&'static str> {
    let goal = limits.goal();
    let only = |limit: Goal| limit.is_met(priced);
    let loss_max = limits.min_accuracy.map_or(0.0, |enough| (posed.accuracy - enough).max(0.0));
    let all = [
        ("max_latency_ms", only(Goal { energy_mj_max: None, ..goal })),
        ("max_energy_j", only(Goal { latency_ms_max: None, ..goal })),
        ("min_accuracy", limits.min_accuracy.is_none() || priced.loss <= loss_max + 1e-9),
    ];
    all.into_iter().filter(|(_, is_kept)| !is_kept).map(|(name, _)| name).collect()
}

/// The limit that binds, with what was asked and what the closest plan has.
pub(super) fn unmet(limits: &PlanLimits, binding: Binding, closest: &Priced) -> String {
    let latency = || {
        let most = limits.max_latency_ms.unwrap_or_default();
        format!("max_latency_ms {most}: the closest plan takes {:.2} ms", closest.latency_ms)
    };
    let energy = || {
        let most = limits.max_energy_j.unwrap_or_default();
        format!("max_energy_j {most}: the closest plan draws {:.4} J", closest.energy_mj / 1000.0)
    };
    match binding {
        Binding::Latency => latency(),
        Binding::Energy => energy(),
        Binding::LatencyWithEnergy => format!(
            "{} with max_energy_j {}, and draws {:.4} J",
            latency(),
            limits.max_energy_j.unwrap_or_default(),
            closest.energy_mj / 1000.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::planning::tests::two_nodes;

    fn limits(
        max_latency_ms: Option<f64>,
        max_energy_j: Option<f64>,
        min_accuracy: Option<f64>,
    ) -> PlanLimits {
        PlanLimits { max_latency_ms, max_energy_j, min_accuracy, ..PlanLimits::default() }
    }

    /// A right variant of 60 ms here, a quick one of 6; both three times as fast there, 10 ms away.
    fn variants() -> [Posed; 2] {
        [two_nodes("right", 0.9, &[10.0, 20.0, 30.0]), two_nodes("quick", 0.7, &[1.0, 2.0, 3.0])]
    }

    fn label(chosen: Result<Chosen, NotChosen>) -> String {
        chosen.map(|chosen| variants()[chosen.posed].label.clone()).unwrap()
    }

    #[test]
    fn accuracy_comes_first_unless_the_caller_says_what_is_enough() {
        let chosen = |latency, accuracy| label(for_request(&variants(), &limits(latency, None, accuracy)));
        assert_eq!(chosen(None, None), "right");
        assert_eq!(chosen(None, Some(0.6)), "quick");
        assert_eq!(chosen(None, Some(0.8)), "right");
        assert_eq!(chosen(Some(45.0), None), "right");
        assert_eq!(chosen(Some(20.0), None), "quick");
        // Too late in any case: as soon as possible.
        assert_eq!(chosen(Some(1.0), None), "quick");
        assert_eq!(chosen(Some(1.0), Some(0.8)), "right");
    }

    #[test]
    fn energy_is_a_limit_and_latency_a_wish() {
        let posed = variants();
        // Here alone 3 W for 60 ms are 180 mJ; there, 40 ms of waiting take 0.4 W.
        let alone = PlanLimits { force_first: true, ..limits(None, Some(0.05), None) };
        let chosen = for_request(&posed[..1], &limits(None, Some(0.05), None)).unwrap();
        assert!(chosen.found.priced.energy_mj <= 50.0 && chosen.found.priced.shape.stages[0].node == 1);
        let mut forced = posed[0].clone();
        (forced.problem.force_first, forced.problem.force_last) = (true, true);
        let Err(NotChosen::Limits { binding, closest, .. }) =
            for_request(&[forced], &PlanLimits { max_latency_ms: Some(1.0), ..alone })
        else {
            panic!("nothing draws so little")
        };
        assert_eq!(binding, Binding::Energy, "the latency is only wished for");
        let told = unmet(&alone, binding, &closest);
        assert!(
            told.contains("max_energy_j 0.05") && told.contains(&format!("{:.4} J", closest.energy_mj / 1e3))
        );
    }

    #[test]
    fn what_a_plan_exceeds_is_told_by_name() {
        let posed = &variants()[0];
        let chosen = choose(std::slice::from_ref(posed), &PlanLimits::default(), PlannerName::Exact).unwrap();
        let exceeds = |limits| exceeded(&limits, posed, &chosen.found.priced);
        assert!(exceeds(limits(None, None, Some(0.9))).is_empty());
        assert_eq!(exceeds(limits(Some(0.1), Some(1e-6), None)), ["max_latency_ms", "max_energy_j"]);
    }

    #[test]
    fn all_planners_find_the_same() {
        for planner in [PlannerName::Greedy, PlannerName::Exact, PlannerName::Ilp] {
            let chosen = choose(&variants(), &limits(None, None, None), planner).unwrap();
            assert_eq!(chosen.posed, 0);
            assert!((chosen.found.priced.latency_ms - 40.0).abs() < 1e-6, "{planner:?}: {chosen:?}");
        }
    }
}
