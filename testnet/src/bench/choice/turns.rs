//! The ways measured in turns, so that whatever else goes on meets all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use stormo::serve::json::PlanView;
use stormo_protocol::ids::PlanId;
use stormo_testnet::battery::Spent;
use stormo_testnet::interrupt;

use super::ways::{Asked, Way};
use crate::median::median;

/// Requests by each way before anything counts: the first loads, the others show what runs take.
const WARM_UP: usize = 4;
/// What hosts measured is known everywhere after this.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What came out for one way.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) is_free: bool,
    /// Kind and stages of its plan; of the free choice, of the last one.
    pub(super) kind: String,
    pub(super) stages: String,
    /// All that its requests took.
    pub(super) plans: BTreeSet<PlanId>,
    /// Bytes between nodes.
    pub(super) bytes: u64,
    pub(super) predicted_ms: f64,
    /// Of that, loading: parts that their hosts had not announced yet.
    pub(super) predicted_cold_ms: f64,
    /// Median over turns of the median in a turn.
    pub(super) latency_ms: f64,
    /// How far the median turn is from that, as a share of it.
    pub(super) noise: f64,
    pub(super) predicted_j: Option<f64>,
    /// Median over turns of the mean of a turn's requests.
    pub(super) energy_j: Option<f64>,
}

#[derive(Default)]
struct Turns {
    latency_ms: Vec<f64>,
    energy_j: Vec<f64>,
    last_plan: Option<PlanId>,
    plans: BTreeSet<PlanId>,
}

/// Measures all of them.
pub(super) fn measure(
    asked: &Asked<'_>,
    ways: Vec<Way>,
    rounds: usize,
    requests: usize,
) -> Result<Vec<Measured>> {
    for way in &ways {
        for _ in 0..WARM_UP {
            asked.ask(way.plan.as_ref().map(|plan| plan.id)).with_context(|| way.name.clone())?;
        }
    }
    std::thread::sleep(TOLD_WITHIN);
    let predicted = asked.plans(false, &[])?.plans;
    let mut turns: Vec<Turns> = ways.iter().map(|_| Turns::default()).collect();
    for _ in 0..rounds {
        for (way, turns) in ways.iter().zip(&mut turns) {
            if interrupt::is_noted() {
                break;
            }
            turn(asked, way, turns, requests)?;
        }
    }
    let last = asked.plans(false, &[])?.plans;
    let told = |(way, turns): (Way, Turns)| result(way, turns, &predicted, &last);
    Ok(ways.into_iter().zip(turns).map(told).collect())
}

fn turn(asked: &Asked<'_>, way: &Way, turns: &mut Turns, requests: usize) -> Result<()> {
    let plan = way.plan.as_ref().map(|plan| plan.id);
    // The first finds connections and caches as the way before left them.
    asked.ask(plan)?;
    let origin = &asked.deployed.origin;
    let (began, before) = (Instant::now(), asked.mesh.spent(origin)?);
    let mut latencies = Vec::new();
    for _ in 1..requests.max(2) {
        let answer = asked.ask(plan)?;
        latencies.push(answer.latency_ms);
        turns.last_plan = Some(answer.plan_id);
        turns.plans.insert(answer.plan_id);
    }
    let after = asked.mesh.spent(origin)?;
    let spent = Spent {
        time_us: began.elapsed().as_micros() as u64,
        compute_us: after.compute_us.saturating_sub(before.compute_us),
        send_us: after.send_us.saturating_sub(before.send_us),
        receive_us: after.receive_us.saturating_sub(before.receive_us),
    };
    if let Some(watts) = asked.deployed.watts {
        turns.energy_j.push(watts.energy_j(spent) / latencies.len() as f64);
    }
    turns.latency_ms.push(median(latencies.into_iter()));
    Ok(())
}

fn result(way: Way, turns: Turns, predicted: &[PlanView], last: &[PlanView]) -> Measured {
    let id = way.plan.as_ref().map(|plan| plan.id).or(turns.last_plan);
    let listed = |plans: &[PlanView]| plans.iter().find(|plan| Some(plan.id) == id).cloned();
    // Near-ties come and go between two lists.
    let plan = listed(predicted).or_else(|| listed(last)).or(way.plan);
    let latency_ms = median(turns.latency_ms.iter().copied());
    let stages = plan.iter().flat_map(|plan| &plan.stages);
    let stages = stages.map(|stage| format!("{} {}-{}", stage.label, stage.blocks[0], stage.blocks[1] - 1));
    Measured {
        is_free: way.name == "free choice",
        name: way.name,
        kind: plan.as_ref().map_or_else(String::new, |plan| plan.kind.clone()),
        stages: stages.collect::<Vec<_>>().join(" > "),
        bytes: plan.as_ref().map_or(0, |plan| plan.bytes),
        predicted_ms: plan.as_ref().map_or(f64::NAN, |plan| plan.latency_ms),
        predicted_cold_ms: plan.as_ref().map_or(f64::NAN, |plan| plan.cold_ms),
        latency_ms,
        noise: median(turns.latency_ms.iter().map(|turn_ms| (turn_ms / latency_ms - 1.0).abs())),
        predicted_j: plan.as_ref().and_then(|plan| plan.energy_j),
        energy_j: (!turns.energy_j.is_empty()).then(|| median(turns.energy_j.iter().copied())),
        plans: turns.plans,
    }
}
