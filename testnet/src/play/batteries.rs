//! What batteries gave while the load was on, and what it means that one is empty.

use std::time::Instant;

use crate::ground::BatteryState;
use crate::history::{BatteryUse, FaultEvent};
use crate::scenario::Scenario;

/// From what they held when the load began, and at its end.
pub(super) fn used(
    scenario: &Scenario,
    first: &[BatteryState],
    last: &[BatteryState],
    begun: Instant,
) -> Vec<BatteryUse> {
    let use_of = |(first, last): (&BatteryState, &BatteryState)| {
        let emptied = last.empty_since.map(|at| at.saturating_duration_since(begun).as_micros() as u64);
        Some(BatteryUse {
            node: scenario.place(&last.label)? as u16,
            drawn_j: last.drawn_j - first.drawn_j,
            level: last.level,
            emptied_us: emptied,
        })
    };
    first.iter().zip(last).filter_map(use_of).collect()
}

/// A machine whose battery is empty is off: for the judge as lost as by any fault.
pub(super) fn losses(scenario: &Scenario, batteries: &[BatteryUse]) -> Vec<FaultEvent> {
    let emptied = batteries.iter().filter_map(|used| Some((used, used.emptied_us?)));
    let loss = |(used, begun_us): (&BatteryUse, u64)| FaultEvent {
        what: format!("battery of {} empty", scenario.topology.nodes[usize::from(used.node)].label),
        nodes: vec![used.node],
        is_loss: true,
        is_split: false,
        is_link: false,
        begun_us,
        healed_us: None,
        failed: None,
        times: None,
    };
    emptied.map(loss).collect()
}
