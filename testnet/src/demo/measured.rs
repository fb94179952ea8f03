//! Predicted beside measured, stage by stage and edge by edge.

use stormo::serve::json::{EdgeView, PlanView, RequestView};

use super::Demo;
use super::report::{Measured, StageTimes};
use crate::median::median;
use crate::table::{Align, Table};

/// Medians over requests that ran by the same plan.
pub(super) fn medians(plan: &PlanView, requests: &[RequestView]) -> Measured {
    let of = |figure: &dyn Fn(&RequestView) -> f64| median(requests.iter().map(figure));
    let stage = |id: u16, figure: fn(&stormo::serve::json::StageTraceView) -> f64| {
        of(&|request| request.stages.iter().find(|stage| stage.id == id).map_or(f64::NAN, figure))
    };
    let stages = plan.stages.iter().map(|planned| StageTimes {
        id: planned.id,
        wait_ms: stage(planned.id, |stage| stage.wait_ms),
        run_ms: stage(planned.id, |stage| stage.run_ms),
    });
    let stages: Vec<StageTimes> = stages.collect();
    let edge = |edge: &EdgeView| match edge.to {
        Some(to) => stage(to, |stage| stage.receive_ms),
        None => of(&|request| request.result_receive_ms),
    };
    let rest = |request: &RequestView| {
        let stages = request.stages.iter().map(|stage| stage.receive_ms + stage.wait_ms + stage.run_ms);
        request.latency_ms - request.result_receive_ms - stages.sum::<f64>()
    };
    Measured {
        requests: requests.len(),
        stages,
        edges_ms: plan.edges.iter().map(edge).collect(),
        latency_ms: of(&|request| request.latency_ms),
        rest_ms: of(&rest),
    }
}

/// Tells it as tables.
pub(super) fn show(demo: &Demo, plan: &PlanView, measured: &Measured) {
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("node", Align::Left),
        ("blocks", Align::Left),
        ("wait: predicted", Align::Right),
        ("measured", Align::Right),
        ("run: predicted", Align::Right),
        ("measured", Align::Right),
    ]);
    for (planned, seen) in plan.stages.iter().zip(&measured.stages) {
        table.row([
            planned.id.to_string(),
            planned.label.clone(),
            blocks(planned.blocks),
            milliseconds(planned.wait_ms),
            milliseconds(seen.wait_ms),
            milliseconds(planned.compute_ms),
            milliseconds(seen.run_ms),
        ]);
    }
    demo.narrator.table(&table);
    let mut table = Table::new(&[
        ("edge", Align::Left),
        ("bytes", Align::Right),
        ("transfer: predicted", Align::Right),
        ("first byte to last, measured", Align::Right),
    ]);
    for (planned, seen) in plan.edges.iter().zip(&measured.edges_ms) {
        table.row([
            format!("{} → {}", end(planned.from), end(planned.to)),
            planned.bytes.to_string(),
            milliseconds(planned.transfer_ms),
            milliseconds(*seen),
        ]);
    }
    demo.narrator.table(&table);
    demo.narrator.say(&format!(
        "Latency: predicted {}, measured {} (medians of {} requests). Of the latter, {} are in\n\
         no line above: the way itself, making and reading frames, the origin's own work.",
        milliseconds(plan.latency_ms),
        milliseconds(measured.latency_ms),
        measured.requests,
        milliseconds(measured.rest_ms),
    ));
}

/// A range of blocks, its last block included.
pub(super) fn blocks([first, end]: [u16; 2]) -> String {
    match end.saturating_sub(1) {
        last if last <= first => first.to_string(),
        last => format!("{first}-{last}"),
    }
}

/// The first characters of an id: enough to tell a few apart.
pub(super) fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

fn milliseconds(time_ms: f64) -> String {
    format!("{time_ms:.2} ms")
}

fn end(stage: Option<u16>) -> String {
    stage.map_or_else(|| "origin".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_show_their_last_block() {
        assert_eq!(blocks([0, 4]), "0-3");
        assert_eq!(blocks([4, 5]), "4");
    }
}
