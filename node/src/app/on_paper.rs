//! A mesh that is only written down and a model that is divided, put together as a planning instance.

use serde_json::Value;
use stormo_protocol::ids::{DeploymentId, VariantId};
use stormo_protocol::model::Manifest;
use stormo_protocol::state::NodeRecord;

use super::calls::PlanLimits;
use super::exporting;
use super::planning::{Candidate, Question};
use super::power::Power;

/// The instance of these nodes, the requester first, each under its label, and of a model's graph without the ends of
/// its card. Nothing takes time to load.
pub fn instance(
    nodes: &[NodeRecord],
    manifest: &Manifest,
    limits: &PlanLimits,
    power: Option<Power>,
) -> Value {
    let PlanLimits { force_first, force_last, min_accuracy, .. } = *limits;
    let posed = Question {
        manifest,
        variant: VariantId { deployment: DeploymentId([0; 16]), index: 0 },
        blocks: manifest.graph_blocks(),
        candidates: nodes.iter().map(|record| Candidate { record, takes_work: true, late_ms: 0.0 }).collect(),
        force_first,
        force_last,
        accuracy: 1.0,
        min_accuracy,
        power,
    }
    .pose();
    let names: Vec<String> = nodes.iter().map(|record| record.machine.label.clone()).collect();
    exporting::instance(&[posed], &names, limits)
}
