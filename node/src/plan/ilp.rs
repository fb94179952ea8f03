//! The same question as an integer linear programme, for a solver that knows nothing of plans: an independent
//! check of the searches. Far slower than they are.
//!
//! Variables are the arcs of a graph whose nodes are (cut, member), before and after the way there: runs from one
//! cut to a later one, hops between members by one coding each. A plan is one unit of flow from the input at the
//! origin to the result there; memory, losses, energy and periods are linear in it.

use good_lp::variable::UnsolvedProblem;
use good_lp::{
    Expression, ProblemVariables, Solution, SolutionStatus, SolverModel, Variable, WithTimeLimit, constraint,
    variable,
};
use stormo_protocol::codec::payload::Codec;

use super::best::{NoPlan, why_none};
use super::coding::Coding;
use super::costs::{Costs, Member, Stock};
use super::effort::{Resource, Weights};
use super::goal::{Found, Goal, Missed, Objective, Planner};
use super::periods::Periods;
use super::price::{PlanShape, Priced, StageShape};
use super::problem::Problem;
use super::ranges::Ranges;
use super::solve::Unsolved;
use super::wanted::{Wanted, While};

/// Larger programmes are refused: this many arcs take minutes.
#[cfg(not(feature = "highs"))]
const ARCS_MAX: usize = 20_000;
#[cfg(feature = "highs")]
const ARCS_MAX: usize = 200_000;
/// The solver gives up then, seconds.
const TIME_LIMIT_S: f64 = 120.0;
/// What sums in another order may differ by, and what is meant by zero.
const ROUNDING: f64 = 1e-9;

/// Plans by an integer linear programme.
#[derive(Debug, Clone, Copy)]
pub struct Ilp;

/// A step of a plan.
#[derive(Debug, Clone, Copy)]
enum Step {
    Run {
        member: usize,
        first: usize,
        end: usize,
    },
    Hop {
        from: usize,
        to: usize,
        cut: usize,
        coding: usize,
    },
    /// Tensors stay, and the same member runs next; or they are home.
    Stay {
        member: usize,
        cut: usize,
    },
}

/// A step that a plan may take.
struct Arc {
    step: Step,
    taken: Variable,
}

struct Programme<'a> {
    problem: &'a Problem,
    goal: Goal,
    costs: Costs<'a>,
    energy: Costs<'a>,
    periods: Periods<'a>,
    ranges: &'a Ranges,
    arcs: Vec<Arc>,
}

impl Planner for Ilp {
    fn best_for(&self, problem: &Problem, goal: &Goal) -> Result<Found, Missed> {
        best_for(problem, goal, Wanted::default())
    }
}

/// The solver itself goes on to its end or time limit.
impl Planner for While<'_, Ilp> {
    fn best_for(&self, problem: &Problem, goal: &Goal) -> Result<Found, Missed> {
        best_for(problem, goal, self.wanted)
    }
}

fn best_for(problem: &Problem, goal: &Goal, wanted: Wanted<'_>) -> Result<Found, Missed> {
    let solve = |goal: &Goal| match wanted.is_wanted() {
        true => solve(problem, goal),
        false => Err(Missed::NoPlan(NoPlan::Unwanted)),
    };
    problem.check().map_err(|error| Missed::NoPlan(error.into()))?;
    let arcs = arc_count(problem);
    if arcs > ARCS_MAX {
        return Err(Missed::NoPlan(NoPlan::TooLarge { arcs, most: ARCS_MAX }));
    }
    if let Some(priced) = solve(goal)? {
        return Ok(Found { bound: goal.value(&priced), priced, nodes_left_out: 0 });
    }
    let without = |objective| Goal { objective, latency_ms_max: None, energy_mj_max: None };
    let quickest = solve(&without(Objective::Latency))?;
    let thriftiest = solve(&without(Objective::Energy))?;
    let (Some(quickest), Some(thriftiest)) = (quickest, thriftiest) else {
        let ranges = Ranges::new(problem);
        return Err(Missed::NoPlan(why_none(problem, &ranges, Unsolved::NoWay)));
    };
    let binding = goal.binding((quickest.latency_ms, thriftiest.energy_mj));
    let closest = if goal.excess(&quickest) <= goal.excess(&thriftiest) { quickest } else { thriftiest };
    Err(Missed::Limits { binding, closest: Box::new(closest) })
}

#[cfg(not(feature = "highs"))]
fn solver(programme: UnsolvedProblem) -> good_lp::solvers::microlp::MicroLpProblem {
    good_lp::microlp(programme)
}

/// To the optimum, not near it; and limits are kept as closely as the solver can.
#[cfg(feature = "highs")]
fn solver(programme: UnsolvedProblem) -> good_lp::solvers::highs::HighsProblem {
    let exact = good_lp::highs(programme).set_option("mip_rel_gap", 0.0).set_option("mip_abs_gap", 0.0);
    exact
        .set_option("mip_feasibility_tolerance", ROUNDING)
        .set_option("primal_feasibility_tolerance", ROUNDING)
}

fn arc_count(problem: &Problem) -> usize {
    let (blocks, nodes) = (problem.block_count(), problem.nodes.len());
    let codings: usize = problem.codings.iter().map(|codings| codings.len() + 1).sum();
    let runs = nodes.saturating_mul(blocks.saturating_mul(blocks + 1) / 2);
    runs.saturating_add(nodes.saturating_mul(nodes).saturating_mul(codings))
}

/// The best plan; none if the solver finds that there is none.
fn solve(problem: &Problem, goal: &Goal) -> Result<Option<Priced>, Missed> {
    let ranges = Ranges::new(problem);
    let others = (1..problem.nodes.len()).filter(|node| problem.nodes[*node].can_compute);
    let others = others.map(|node| Member { node, computes: true });
    let origin = Member { node: 0, computes: problem.nodes[0].can_compute };
    let members: Vec<Member> = std::iter::once(origin).chain(others).collect();
    let costs = Costs::by_coding(&Stock::new(problem, &ranges), members.clone());
    let in_energy = problem.weighed(&members, Weights::ENERGY);
    let programme = Programme {
        problem,
        goal: *goal,
        periods: Periods::new(problem, &costs),
        energy: Costs::by_coding(&Stock::new(&in_energy.problem, &ranges), in_energy.members.clone()),
        costs,
        ranges: &ranges,
        arcs: vec![],
    };
    programme.solve()
}

impl Programme<'_> {
    fn solve(mut self) -> Result<Option<Priced>, Missed> {
        let mut variables = ProblemVariables::new();
        for step in self.steps() {
            self.arcs.push(Arc { step, taken: variables.add(variable().binary()) });
        }
        let busiest = variables.add(variable().min(0));
        let tail = variables.add(variable().binary());
        let peaks: Vec<Variable> =
            (0..self.costs.member_count()).map(|_| variables.add(variable().min(0).max(1))).collect();
        let latency = self.sum(|step| self.time_ms(&self.costs, step));
        let energy = self.sum(|step| self.time_ms(&self.energy, step)) + tail * self.problem.nodes[0].tail_mj;
        let loss = self.sum(|step| self.loss(step));
        let objective = match self.goal.objective {
            Objective::Latency => latency.clone(),
            Objective::Energy => energy.clone(),
            Objective::Loss => loss.clone(),
            Objective::Throughput => busiest.into(),
        };
        let mut model = solver(variables.minimise(objective)).with_time_limit(TIME_LIMIT_S);
        for balance in self.balances() {
            model = model.with(balance);
        }
        model = model.with(constraint!(loss <= self.problem.loss_max + ROUNDING));
        if let Some(most) = self.goal.latency_ms_max {
            model = model.with(constraint!(latency <= most));
        }
        if let Some(most) = self.goal.energy_mj_max {
            model = model.with(constraint!(energy <= most));
        }
        for arc in &self.arcs {
            if let Step::Hop { from: 0, .. } = arc.step {
                model = model.with(constraint!(tail >= arc.taken));
            }
        }
        for needs in self.memory(&peaks) {
            model = model.with(needs);
        }
        if self.goal.objective == Objective::Throughput {
            for (_, busy) in self.busy() {
                model = model.with(constraint!(busiest >= busy));
            }
        }
        match model.solve() {
            // What was found when the time was up may be any plan.
            Ok(solution) if matches!(solution.status(), SolutionStatus::Optimal) => {
                let priced = self.follow(|taken| solution.value(taken) > 0.5);
                priced.map(Some).ok_or(Missed::NoPlan(NoPlan::GaveUp))
            }
            Err(good_lp::ResolutionError::Infeasible) => Ok(None),
            Ok(_) | Err(_) => Err(Missed::NoPlan(NoPlan::GaveUp)),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let (blocks, members) = (self.costs.block_count(), self.costs.member_count());
        let mut steps = vec![];
        for member in 0..members {
            for cut in 0..=blocks {
                let goes_on = cut < blocks && self.costs.may_start(member, cut);
                let is_home = cut == blocks && member == 0;
                if goes_on || (is_home && self.costs.may_end(0)) {
                    steps.push(Step::Stay { member, cut });
                }
                let fits = |end: &usize| goes_on && self.costs.run_ms(member, cut, *end).is_finite();
                steps.extend((cut + 1..=blocks).filter(fits).map(|end| Step::Run {
                    member,
                    first: cut,
                    end,
                }));
                for to in (0..members).filter(|to| *to != member) {
                    let may = match cut == blocks {
                        true => to == 0 && self.costs.may_end(member),
                        false => self.costs.may_start(to, cut),
                    };
                    let hops = (0..=self.problem.codings[cut].len())
                        .filter(|coding| self.costs.hop_by_ms(member, to, cut, *coding).is_finite())
                        .map(|coding| Step::Hop { from: member, to, cut, coding });
                    steps.extend(hops.filter(|_| may));
                }
            }
        }
        steps
    }

    /// The states that a step leads from and to: (cut, member, whether it is about to run or at home).
    fn ends(step: Step) -> [(usize, usize, bool); 2] {
        match step {
            Step::Run { member, first, end } => [(first, member, true), (end, member, false)],
            Step::Hop { from, to, cut, .. } => [(cut, from, false), (cut, to, true)],
            Step::Stay { member, cut } => [(cut, member, false), (cut, member, true)],
        }
    }

    /// What flows into each state flows out of it, but for the input and the result.
    fn balances(&self) -> Vec<good_lp::Constraint> {
        let mut flows = std::collections::BTreeMap::<(usize, usize, bool), Expression>::new();
        let (input, result) = ((0, 0, false), (self.costs.block_count(), 0, true));
        flows.entry(input).or_default();
        flows.entry(result).or_default();
        for arc in &self.arcs {
            let [from, to] = Self::ends(arc.step);
            *flows.entry(from).or_default() -= arc.taken;
            *flows.entry(to).or_default() += arc.taken;
        }
        let balance = |(state, flow)| {
            let gain = match state {
                state if state == input => -1.0,
                state if state == result => 1.0,
                _ => 0.0,
            };
            constraint!(flow == gain)
        };
        flows.into_iter().map(balance).collect()
    }

    fn sum(&self, of: impl Fn(Step) -> f64) -> Expression {
        self.arcs.iter().map(|arc| of(arc.step) * arc.taken).sum()
    }

    fn time_ms(&self, costs: &Costs, step: Step) -> f64 {
        match step {
            Step::Run { member, first, end } => costs.run_ms(member, first, end),
            Step::Hop { from, to, cut, coding } => costs.hop_by_ms(from, to, cut, coding),
            Step::Stay { .. } => 0.0,
        }
    }

    fn coding(&self, cut: usize, coding: usize) -> Option<Coding> {
        self.problem.codings(cut as u16).nth(coding)
    }

    fn loss(&self, step: Step) -> f64 {
        let Step::Hop { cut, coding, .. } = step else { return 0.0 };
        self.coding(cut, coding).map_or(0.0, |coding| coding.loss)
    }

    /// Weights of a member's runs, and the largest peak among them, in parts of its memory.
    fn memory(&self, peaks: &[Variable]) -> Vec<good_lp::Constraint> {
        let mut constraints = vec![];
        for (member, peak) in peaks.iter().enumerate() {
            let node = self.costs.node(member);
            let free = self.problem.nodes[node].memory_free_bytes.max(1) as f64;
            let mut weights = Expression::from(*peak);
            for arc in &self.arcs {
                let Step::Run { member: of, first, end } = arc.step else { continue };
                let stage = StageShape { node, first: first as u16, end: end as u16 };
                if of != member || self.problem.memory_bytes(stage) == 0 {
                    continue;
                }
                weights += self.ranges.weights_bytes(first, end) as f64 / free * arc.taken;
                let peak_share = self.ranges.peak_bytes(first, end) as f64 / free;
                constraints.push(constraint!(*peak >= peak_share * arc.taken));
            }
            constraints.push(constraint!(weights <= 1.0 + ROUNDING));
        }
        constraints
    }

    fn busy(&self) -> std::collections::BTreeMap<Resource, Expression> {
        let mut busy = std::collections::BTreeMap::<Resource, Expression>::new();
        for arc in &self.arcs {
            match arc.step {
                Step::Run { member, first, end } => {
                    let run_ms = self.periods.run_ms(member, first, end);
                    *busy.entry(Resource::Node(member)).or_default() += run_ms * arc.taken;
                }
                Step::Hop { from, to, cut, coding } => {
                    for (resource, busy_ms) in self.periods.hop(from, to, cut, coding) {
                        *busy.entry(resource).or_default() += busy_ms * arc.taken;
                    }
                }
                Step::Stay { .. } => {}
            }
        }
        busy
    }

    /// The plan that the flow takes.
    fn follow(&self, is_taken: impl Fn(Variable) -> bool) -> Option<Priced> {
        let taken: Vec<Step> =
            self.arcs.iter().filter(|arc| is_taken(arc.taken)).map(|arc| arc.step).collect();
        let (mut stages, mut codecs) = (vec![], vec![]);
        let mut state = (0, 0, false);
        while state != (self.costs.block_count(), 0, true) {
            let step = *taken.iter().find(|step| Self::ends(**step)[0] == state)?;
            match step {
                Step::Run { member, first, end } => {
                    let node = self.costs.node(member);
                    stages.push(StageShape { node, first: first as u16, end: end as u16 });
                }
                Step::Hop { cut, coding, .. } => codecs.push(self.coding(cut, coding)?.codec),
                Step::Stay { .. } => codecs.push(Codec::Raw),
            }
            state = Self::ends(step)[1];
        }
        self.problem.price(&PlanShape { stages, codecs }).ok()
    }
}
