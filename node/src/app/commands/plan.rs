//! `stormo plan`: how a request would be run from the node that is asked, and what it would take.

use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::PlanArgs;
use crate::app::client::{Client, CommandError, encoded};
use crate::serve::json::{PlanView, PlansView};

pub(super) fn run(args: &PlanArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    let image = if args.tensors { "&image=false" } else { "" };
    let min_accuracy = args.limits.min_accuracy.map(|enough| format!("&min_accuracy={enough}"));
    let variant = args.variant.as_deref().map(|label| format!("&variant={}", encoded(label)));
    let path = format!(
        "/v1/plans?model={}&all={}&force_first={}&force_last={}{image}{}{}",
        encoded(&args.name),
        args.all,
        args.limits.force_first,
        args.limits.force_last,
        min_accuracy.unwrap_or_default(),
        variant.unwrap_or_default()
    );
    let view: PlansView = client.get(&path)?;
    if args.api.json {
        return say_json(&view);
    }
    say(format!("`{}` version {}", view.model, view.version));
    let rows: Vec<Vec<String>> = view.plans.iter().map(row).collect();
    say(table(&["PLAN", "VARIANT", "KIND", "LATENCY ms", "LOADING ms", "SENT", "STAGES"], &rows));
    Ok(())
}

fn row(plan: &PlanView) -> Vec<String> {
    let stages = plan.stages.iter().map(|stage| {
        let [first, end] = stage.blocks;
        format!("{} {first}-{}", stage.label, end - 1)
    });
    let stages: Vec<String> = stages.collect();
    vec![
        plan.id.to_string(),
        plan.variant.clone(),
        plan.kind.clone(),
        ms(plan.latency_ms),
        ms(plan.cold_ms),
        bytes(plan.bytes),
        stages.join(" > "),
    ]
}
