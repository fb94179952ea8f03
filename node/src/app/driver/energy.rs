//! What requests cost the machine where they entered, in joules: as foretold with the plan, and as accounted from the
//! times that were measured, both by what its owner says that it draws.

use stormo_protocol::frame::{ORIGIN, StageTrace};
use stormo_protocol::ids::{NodeId, PlanId};
use stormo_protocol::plan::Plan;

use super::latest::Latest;
use crate::app::calls::CallError;
use crate::app::power::Power;

/// Plans whose energy is remembered.
const FORETOLD_MAX: usize = 4096;

/// What plans were foretold to draw when they were last made or listed, mJ.
#[derive(Debug)]
pub(super) struct Foretold(Latest<PlanId, f64>);

impl Default for Foretold {
    fn default() -> Self {
        Self(Latest::of(FORETOLD_MAX))
    }
}

impl Foretold {
    /// A plan draws so much, mJ.
    pub(super) fn note(&mut self, plan: PlanId, energy_mj: f64) {
        self.0.insert(plan, energy_mj);
    }

    /// What a plan draws, J; `None` if it was never told here.
    pub(super) fn energy_j(&self, plan: PlanId) -> Option<f64> {
        self.0.get(&plan).map(|energy_mj| energy_mj / 1000.0)
    }

    /// Whether a plan that was asked for by its id draws no more than this, J.
    ///
    /// # Errors
    /// A conflict that says what it draws.
    pub(super) fn check(&self, plan: PlanId, most_j: f64) -> Result<(), CallError> {
        match self.energy_j(plan) {
            Some(energy_j) if energy_j <= most_j => Ok(()),
            Some(energy_j) => Err(CallError::Conflict(format!(
                "max_energy_j {most_j}: plan {plan} is foretold to draw {energy_j:.4} J; allow that much, or list \
                 others with `stormo plan NAME --all --max-energy {most_j}J`"
            ))),
            None => Err(CallError::Conflict(format!(
                "max_energy_j {most_j}: what plan {plan} draws is not known here any more; list the plans of this \
                 node again with `stormo plan NAME --all`"
            ))),
        }
    }
}

/// The times of an answer, as its origin knows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured<'a> {
    /// Who ran each stage of the plan.
    pub hosts: &'a [NodeId],
    pub traces: &'a [StageTrace],
    /// From the last stage's first result byte to its last, and decoding it.
    pub result_receive_ms: f64,
    pub result_decode_ms: f64,
    /// From the request to its answer.
    pub latency_ms: f64,
}

/// What a machine drew for an answer that entered there, J: what it draws idle all the time, more while it ran a stage
/// or coded, sent or received, and its radio's tail if anything moved. As a plan's price, but by the times that were
/// measured: receivers tell how long bytes were on their way, traces how long runs took.
pub(super) fn accounted_j(power: Power, own: NodeId, plan: &Plan, measured: &Measured<'_>) -> f64 {
    let ms = |micros: u32| f64::from(micros) / 1000.0;
    let host = |index: u16| measured.hosts.get(usize::from(index)).copied();
    let (mut computed_ms, mut sent_ms, mut received_ms) = (0.0, 0.0, 0.0);
    for trace in measured.traces {
        if trace.stage == ORIGIN {
            computed_ms += ms(trace.encode_us);
            continue;
        }
        let before = trace.stage.checked_sub(1).map_or(Some(own), host);
        match (host(trace.stage) == Some(own), before == Some(own)) {
            (true, is_from_here) => {
                computed_ms += ms(trace.decode_us) + ms(trace.run_us) + ms(trace.encode_us);
                received_ms += if is_from_here { 0.0 } else { ms(trace.receive_us) };
            }
            (false, true) => sent_ms += ms(trace.receive_us),
            (false, false) => {}
        }
    }
    let is_home = plan.stages.len().checked_sub(1).and_then(|last| host(last as u16)) == Some(own);
    if !is_home {
        received_ms += measured.result_receive_ms;
        computed_ms += measured.result_decode_ms;
    }
    let has_moved = measured.hosts.iter().any(|host| *host != own);
    let watts = power.watts;
    let busy_mj = (watts.compute - watts.idle) * computed_ms
        + (watts.send - watts.idle) * sent_ms
        + (watts.receive - watts.idle) * received_ms;
    let tail_mj = if has_moved { power.tail_mj } else { 0.0 };
    (watts.idle * measured.latency_ms + busy_mj + tail_mj) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::ids::{DeploymentId, VariantId};
    use stormo_protocol::plan::Stage;

    fn plan(hosts: &[NodeId]) -> Plan {
        let stage = |(index, node): (usize, &NodeId)| Stage {
            node: *node,
            first: index as u16,
            end: index as u16 + 1,
            codec: Codec::Raw,
            backups: vec![],
            branch: None,
        };
        Plan {
            variant: VariantId { deployment: DeploymentId([1; 16]), index: 0 },
            origin: NodeId([1; 32]),
            stages: hosts.iter().enumerate().map(stage).collect(),
            result_codec: Codec::Raw,
        }
    }

    fn trace(stage: u16, receive_us: u32, run_us: u32, encode_us: u32) -> StageTrace {
        StageTrace { stage, receive_us, run_us, encode_us, ..StageTrace::default() }
    }

    fn accounted(hosts: &[NodeId], traces: &[StageTrace], result_receive_ms: f64) -> f64 {
        let power: Power = "idle=1,compute=5,send=3,receive=2,tail=0.01".parse().unwrap();
        let measured =
            Measured { hosts, traces, result_receive_ms, result_decode_ms: 0.0, latency_ms: 100.0 };
        accounted_j(power, NodeId([1; 32]), &plan(hosts), &measured)
    }

    #[test]
    fn what_was_done_elsewhere_costs_the_waiting_and_the_way() {
        let [here, there] = [NodeId([1; 32]), NodeId([2; 32])];
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        // 100 ms at 1 W, and 50 ms of them at 4 W more.
        close(accounted(&[here], &[trace(0, 7_000, 50_000, 0)], 9.0), 0.100 + 0.200);
        // Sent for 20 ms at 2 W more, received for 10 ms at 1 W more, the tail.
        let away = [trace(ORIGIN, 0, 0, 5_000), trace(0, 20_000, 50_000, 1_000)];
        close(accounted(&[there], &away, 10.0), 0.100 + 0.020 + 0.040 + 0.010 + 0.010);
        // First here, then there and home.
        let chain = [trace(0, 0, 10_000, 1_000), trace(1, 20_000, 50_000, 1_000)];
        close(accounted(&[here, there], &chain, 10.0), 0.100 + 0.044 + 0.040 + 0.010 + 0.010);
        // There first, then here: what comes is received here, and nothing comes at the end.
        let back = [trace(0, 20_000, 50_000, 1_000), trace(1, 30_000, 10_000, 0)];
        close(accounted(&[there, here], &back, 10.0), 0.100 + 0.040 + 0.030 + 0.040 + 0.010);
    }

    #[test]
    fn a_plan_by_its_id_is_held_to_its_energy() {
        let mut foretold = Foretold::default();
        let id = plan(&[NodeId([1; 32])]).id();
        assert!(
            matches!(foretold.check(id, 1.0), Err(CallError::Conflict(why)) if why.contains("not known"))
        );
        foretold.note(id, 500.0);
        assert!(foretold.check(id, 0.5).is_ok());
        assert!(matches!(foretold.check(id, 0.4), Err(CallError::Conflict(why)) if why.contains("0.5000 J")));
        for number in 0..=FORETOLD_MAX {
            foretold.note(PlanId((number as u128).to_le_bytes()), 1.0);
        }
        assert_eq!(foretold.energy_j(id), None);
    }
}
