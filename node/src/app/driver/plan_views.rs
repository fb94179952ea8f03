//! Plans as the mesh API shows them: who does what when, and what it costs.

use super::Driver;
use super::plans::PricedPlan;
use super::variants::Choice;
use crate::app::planning::accuracy;
use crate::plan::{Kind, Priced};
use crate::serve::json::{EdgeView, PlanView, StageInputView, StageView};

impl Driver {
    pub(super) fn plan_view(&self, of: &PricedPlan, choice: &Choice) -> PlanView {
        let PricedPlan { plan, kind, priced, loss_unit, exceeds } = of;
        let count = plan.stages.len() as u16;
        let (stage_starts_ms, edge_starts_ms) = starts_ms(priced);
        let stages = plan.stages.iter().zip(&priced.stages).enumerate().map(|(index, (stage, cost))| {
            let input =
                StageInputView { stage: (index as u16).checked_sub(1), slice: None, codec: stage.codec };
            StageView {
                id: index as u16,
                node: stage.node,
                label: self.label_of(stage.node),
                blocks: [stage.first, stage.end],
                branch: None,
                inputs: vec![input],
                backups: stage.backups.iter().map(ToString::to_string).collect(),
                start_ms: stage_starts_ms[index],
                wait_ms: cost.wait_ms,
                cold_ms: cost.cold_ms,
                compute_ms: cost.compute_ms,
            }
        });
        let edges = priced.edges.iter().enumerate().map(|(index, edge)| EdgeView {
            from: (index as u16).checked_sub(1),
            to: (index as u16 != count).then_some(index as u16),
            bytes: edge.bytes,
            codec: edge.codec,
            loss: edge.loss / loss_unit,
            start_ms: edge_starts_ms[index],
            encode_ms: edge.encode_ms,
            wire_ms: edge.wire_ms,
            decode_ms: edge.decode_ms,
            transfer_ms: edge.transfer_ms,
        });
        let loss = priced.loss / loss_unit;
        PlanView {
            id: plan.id(),
            kind: kind_name(*kind),
            variant: choice.manifest.variant.clone(),
            stages: stages.collect(),
            edges: edges.collect(),
            result_codec: plan.result_codec,
            latency_ms: priced.latency_ms,
            period_ms: priced.period_ms,
            energy_j: self.parts.power.map(|_| priced.energy_mj / 1000.0),
            accuracy: choice.accuracy.map(|of_variant| accuracy(of_variant, loss)),
            loss,
            bytes: priced.bytes,
            cold_ms: priced.cold_ms,
            redundant: plan.stages.iter().all(|stage| !stage.backups.is_empty()),
            exceeds: exceeds.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

pub(super) fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Local => "local".to_owned(),
        Kind::RemoteWhole => "remote".to_owned(),
        Kind::Chain(stages) => format!("chain-{stages}"),
    }
}

/// When each stage begins to wait for its turn, and when each edge's sender begins to encode, from the request on.
fn starts_ms(priced: &Priced) -> (Vec<f64>, Vec<f64>) {
    let (mut now_ms, mut stages, mut edges) = (0.0, Vec::new(), Vec::new());
    for (index, edge) in priced.edges.iter().enumerate() {
        edges.push(now_ms);
        now_ms += edge.transfer_ms;
        if let Some(stage) = priced.stages.get(index) {
            stages.push(now_ms);
            now_ms += stage.wait_ms + stage.cold_ms + stage.compute_ms;
        }
    }
    (stages, edges)
}
