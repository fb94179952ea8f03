//! Streams of requests that take several routes at once: stages on several nodes, each with a weight. What one is, and
//! what it costs, straight from the problem; how a good one is found is said in `streams/replicas.rs`.
//!
//! A route is a plan of its own, and so many of a hundred requests take it. A stage that several routes run on other
//! nodes is a replicated stage, and its replicas' weights are the shares of the routes through them. Where two nodes
//! run the whole model in `a` and `b` ms, each at its own rate, the period is `1 / (1/a + 1/b)`.

use std::collections::HashMap;

use super::costs::Member;
use super::goal::Method;
use super::price::{Infeasible, PlanShape, Priced, StageShape};
use super::problem::Problem;
use super::ranges::Ranges;
use super::{CANDIDATES_MAX, streams};

/// What the shares of routes may miss one by.
const SHARES_OFF_MAX: f64 = 1e-6;

/// Routes and how many of the requests take each.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicatedShape {
    /// Shares above zero, which add up to one.
    pub routes: Vec<(PlanShape, f64)>,
}

/// A range of blocks on a node, and how many of the requests run there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replica {
    /// Which blocks, and where.
    pub stage: StageShape,
    /// Share of all requests.
    pub weight: f64,
}

/// A stream over several routes, and its cost.
#[derive(Debug, Clone, PartialEq)]
pub struct PricedReplicated {
    /// What was priced.
    pub shape: ReplicatedShape,
    /// As many as the shape has, each by itself.
    pub routes: Vec<Priced>,
    /// What runs where, by its blocks.
    pub replicas: Vec<Replica>,
    /// Time from one answer to the next: what the busiest node, link or uplink does for a request, on average.
    pub period_ms: f64,
    /// From request to result while the pipeline fills, nothing being in the way, on average over requests.
    pub latency_ms: f64,
    /// The same by the slowest route.
    pub latency_ms_max: f64,
    /// What the origin draws for a request, mJ, on average.
    pub energy_mj: f64,
    /// What goes over links for a request, on average.
    pub bytes: f64,
    /// Share of agreement that the route loses whose codings lose most.
    pub loss: f64,
}

impl Problem {
    /// What a stream over several routes costs. All that its routes run on a node must fit there together.
    ///
    /// # Errors
    /// Why it cannot run; [`Infeasible::Shares`] if the shares are none.
    pub fn price_replicated(&self, shape: &ReplicatedShape) -> Result<PricedReplicated, Infeasible> {
        let sum: f64 = shape.routes.iter().map(|(_, share)| share).sum();
        let are_above = shape.routes.iter().all(|(_, share)| *share > 0.0);
        if !are_above || (sum - 1.0).abs() > SHARES_OFF_MAX {
            return Err(Infeasible::Shares);
        }
        let routes = shape.routes.iter().map(|(route, _)| self.price(route));
        let routes: Vec<Priced> = routes.collect::<Result<_, _>>()?;
        let replicas = replicas(shape);
        let stages: Vec<StageShape> = replicas.iter().map(|replica| replica.stage).collect();
        self.check_memory(&stages)?;
        let shares = || shape.routes.iter().map(|(_, share)| *share).zip(&routes);
        let mut busy = HashMap::new();
        for (share, route) in shares() {
            for (resource, busy_ms) in self.busy(&route.shape, &route.stages, &route.edges) {
                *busy.entry(resource).or_default() += share * busy_ms;
            }
        }
        let mean =
            |of: &dyn Fn(&Priced) -> f64| shares().map(|(share, route)| share * of(route)).sum::<f64>();
        let most = |of: &dyn Fn(&Priced) -> f64| routes.iter().map(of).fold(0.0, f64::max);
        Ok(PricedReplicated {
            period_ms: busy.into_values().fold(0.0, f64::max),
            latency_ms: mean(&|route| route.latency_ms),
            latency_ms_max: most(&|route| route.latency_ms),
            energy_mj: mean(&|route| route.energy_mj),
            bytes: mean(&|route| route.bytes as f64),
            loss: most(&|route| route.loss),
            shape: shape.clone(),
            replicas,
            routes,
        })
    }
}

/// The best stream found.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicated {
    /// The stream and its cost.
    pub priced: PricedReplicated,
    /// No stream over the nodes that were looked at has a shorter period.
    pub bound_ms: f64,
    /// Nodes that compute but were not looked at.
    pub nodes_left_out: usize,
}

/// The stream over several routes of the shortest period; never a longer one than that of any plan in `known`.
/// [`Method::Greedy`] looks at the most promising nodes; [`Method::Exact`] at all, and solves so many programmes at most
/// to prove its answer. None if there is no stream, or the problem is too large.
pub fn best_replicated(
    problem: &Problem,
    known: Vec<PlanShape>,
    method: Method,
    relaxations_max: usize,
) -> Option<Replicated> {
    let ranges = Ranges::new(problem);
    let count_max = if method == Method::Exact { usize::MAX } else { CANDIDATES_MAX };
    let mut members = streams::choose(problem, &ranges, count_max).members;
    for stage in known.iter().flat_map(|plan| &plan.stages) {
        if !members.iter().any(|member| member.node == stage.node) {
            members.push(Member { node: stage.node, computes: true });
        }
    }
    let found = streams::replicas::search(problem, &ranges, &members, known, (method, relaxations_max))?;
    let computing = problem.nodes.iter().filter(|node| node.can_compute).count();
    let considered = members.iter().filter(|member| member.computes).count();
    let streams::replicas::Found { priced, bound_ms } = found;
    Some(Replicated { priced, bound_ms, nodes_left_out: computing.saturating_sub(considered) })
}

/// By blocks, then by weight.
fn replicas(shape: &ReplicatedShape) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = vec![];
    for (route, share) in &shape.routes {
        for stage in &route.stages {
            match replicas.iter_mut().find(|replica| replica.stage == *stage) {
                Some(replica) => replica.weight += share,
                None => replicas.push(Replica { stage: *stage, weight: *share }),
            }
        }
    }
    let blocks = |replica: &Replica| (replica.stage.first, replica.stage.end);
    replicas.sort_by(|one, other| blocks(one).cmp(&blocks(other)).then(other.weight.total_cmp(&one.weight)));
    replicas
}
