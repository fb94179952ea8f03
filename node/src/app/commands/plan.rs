//! `stormo plan`: how a request would be run from the node that is asked, and what it would take.

use stormo_protocol::codec::payload::Codec;

use super::table::{bytes, ms, table};
use super::{say, say_json};
use crate::app::cli::PlanArgs;
use crate::app::client::{Client, CommandError, encoded};
use crate::serve::json::{PlanView, PlansView};

pub(super) fn run(args: &PlanArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    let image = if args.tensors { "&image=false" } else { "" };
    let min_accuracy = args.limits.min_accuracy.map(|enough| format!("&min_accuracy={enough}"));
    let codec = args.codec.map(|codec| format!("&codec={}", encoded(codec.name())));
    let variant = args.variant.as_deref().map(|label| format!("&variant={}", encoded(label)));
    let path = format!(
        "/v1/plans?model={}&all={}&force_first={}&force_last={}{image}{}{}{}",
        encoded(&args.name),
        args.all,
        args.limits.force_first,
        args.limits.force_last,
        min_accuracy.unwrap_or_default(),
        codec.unwrap_or_default(),
        variant.unwrap_or_default()
    );
    let view: PlansView = client.get(&path)?;
    if args.api.json {
        return say_json(&view);
    }
    say(format!("`{}` version {}", view.model, view.version));
    let rows: Vec<Vec<String>> = view.plans.iter().map(row).collect();
    say(table(&["PLAN", "VARIANT", "KIND", "LATENCY ms", "LOADING ms", "SENT", "LOSS", "STAGES"], &rows));
    Ok(())
}

/// From one stage to the next, with the codec if there is one.
fn arrow(codec: Codec) -> String {
    match codec {
        Codec::Raw => " > ".to_owned(),
        codec => format!(" {}> ", codec.name()),
    }
}

fn row(plan: &PlanView) -> Vec<String> {
    let stages = plan.stages.iter().map(|stage| {
        let [first, end] = stage.blocks;
        let codec = stage.inputs.first().map_or(Codec::Raw, |input| input.codec);
        let before = if stage.id == 0 && codec == Codec::Raw { String::new() } else { arrow(codec) };
        format!("{before}{} {first}-{}", stage.label, end - 1)
    });
    let home = (plan.result_codec != Codec::Raw).then(|| arrow(plan.result_codec));
    let stages: Vec<String> = stages.chain(home).collect();
    vec![
        plan.id.to_string(),
        plan.variant.clone(),
        plan.kind.clone(),
        ms(plan.latency_ms),
        ms(plan.cold_ms),
        bytes(plan.bytes),
        format!("{:.2} %", 100.0 * plan.loss),
        stages.concat(),
    ]
}
