//! `stormo plan`: how a request would be run from the node that is asked, and what it would take.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use stormo_protocol::codec::payload::Codec;

use super::table::{Column, Screen, Tone, bytes, fitted, ms, plain, toned};
use super::timeline::{short, split_timeline, timeline};
use super::{here, say, say_json};
use crate::app::cli::PlanArgs;
use crate::app::client::{Client, CommandError, encoded};
use crate::files;
use crate::serve::json::{PlanView, PlansView, SplitStageView, SplitView};

pub(super) fn run(args: &PlanArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.api)?;
    if let Some(path) = &args.export {
        let instance: Value = client.get_made(&format!("/v1/plans/instance?{}", query(args)))?;
        return export(path, &instance);
    }
    let view: PlansView = client.get_made(&format!("/v1/plans?{}", query(args)))?;
    if args.api.json {
        return say_json(&view);
    }
    show(args, &view);
    Ok(())
}

fn query(args: &PlanArgs) -> String {
    let limits = &args.limits;
    let number = |value: Option<f64>| value.map(|value| value.to_string());
    let pairs = [
        ("model", Some(encoded(&args.name))),
        ("all", args.all.then(|| "true".to_owned())),
        ("planner", Some(format!("{:?}", args.planner).to_lowercase())),
        ("warm", args.warm.then(|| "true".to_owned())),
        ("without", (!args.without.is_empty()).then(|| encoded(&args.without.join(",")))),
        ("image", args.tensors.then(|| "false".to_owned())),
        ("force_first", limits.force_first.then(|| "true".to_owned())),
        ("force_last", limits.force_last.then(|| "true".to_owned())),
        ("min_accuracy", number(limits.min_accuracy)),
        ("max_latency_ms", number(limits.max_latency)),
        ("max_energy_j", number(limits.max_energy)),
        ("objective", Some(limits.objective.name().to_owned())),
        ("codec", args.codec.map(|codec| encoded(codec.name()))),
        ("variant", args.variant.as_deref().map(encoded)),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    pairs.collect::<Vec<_>>().join("&")
}

fn export(path: &Path, instance: &Value) -> Result<(), CommandError> {
    if path == Path::new("-") {
        return say_json(instance);
    }
    let text = serde_json::to_vec_pretty(instance).map_err(here)?;
    files::write_whole(path, &text).map_err(|error| here(format!("`{}`: {error}", path.display())))?;
    let path = path.display();
    say(format!("the mesh and the model as they are now: {path}; plan with it by `cargo mesh plan {path}`"));
    Ok(())
}

fn show(args: &PlanArgs, view: &PlansView) {
    let screen = Screen::of_stdout();
    say(format!("`{}` version {}, planned in {:.2} ms", view.model, view.version, view.planning_ms));
    let columns = [
        Column::always("PLAN"),
        Column::always("KIND"),
        Column::with_room("VARIANT", 5),
        Column::always("LATENCY ms"),
        Column::with_room("LOADING ms", 2),
        Column::with_room("ENERGY J", 1),
        Column::with_room("ACCURACY", 4),
        Column::with_room("SENT", 1),
        Column::with_room("LOSS", 6),
        Column::with_room("BACKUPS", 2),
        Column::with_room("EXCEEDS", 3),
        Column::always("STAGES"),
    ];
    // What no plan has needs no column.
    let is_told = [
        true,
        true,
        true,
        true,
        true,
        view.plans.iter().any(|plan| plan.energy_j.is_some()),
        view.plans.iter().any(|plan| plan.accuracy.is_some()),
        true,
        view.plans.iter().any(|plan| plan.loss > 0.0),
        view.plans.iter().any(|plan| plan.redundant),
        view.plans.iter().any(|plan| !plan.exceeds.is_empty()),
        true,
    ];
    let kept = |cells: Vec<super::table::Cell>| {
        cells.into_iter().zip(is_told).filter(|(_, told)| *told).map(|(cell, _)| cell).collect::<Vec<_>>()
    };
    let columns: Vec<Column> =
        columns.into_iter().zip(is_told).filter(|(_, told)| *told).map(|(column, _)| column).collect();
    let plans = view.plans.iter().map(row).chain(view.forked.iter().map(split_row));
    let rows: Vec<_> = plans.map(kept).collect();
    say(fitted(&columns, &rows, &screen));
    let mut shown = BTreeSet::new();
    for plan in &view.plans {
        if args.timelines || shown.insert(&plan.kind) {
            say("");
            timeline(plan, &screen).into_iter().for_each(say);
        }
    }
    for split in &view.forked {
        say("");
        split_timeline(split, &screen).into_iter().for_each(say);
    }
}

/// From one stage to the next, with the codec if there is one.
fn arrow(codec: Codec) -> String {
    match codec {
        Codec::Raw => " > ".to_owned(),
        codec => format!(" {}> ", codec.name()),
    }
}

/// How many nodes can take each stage over at once, at least.
fn backups(plan: &PlanView) -> String {
    let least = plan.stages.iter().map(|stage| stage.backups.len()).min().unwrap_or(0);
    if least == 0 { "-".to_owned() } else { format!("{least} each") }
}

/// A plan with a fork: its branches are between brackets, beside each other.
fn split_row(plan: &SplitView) -> Vec<super::table::Cell> {
    let name = |stage: &SplitStageView| {
        let [first, end] = stage.blocks;
        format!("{} {first}-{}", stage.label, end - 1)
    };
    let mut parts: Vec<String> = Vec::new();
    for run in plan.stages.chunk_by(|one, other| one.branch.is_some() == other.branch.is_some()) {
        let names: Vec<String> = run.iter().map(name).collect();
        let is_fork = run.first().is_some_and(|stage| stage.branch.is_some());
        parts.push(if is_fork { format!("[{}]", names.join(" | ")) } else { names.join(" > ") });
    }
    let nothing = || plain("-".to_owned());
    vec![
        plain(short(plan.id)),
        plain(plan.kind.clone()),
        plain(plan.variant.clone()),
        plain(ms(plan.latency_ms)),
        nothing(),
        nothing(),
        nothing(),
        plain(bytes(plan.bytes)),
        nothing(),
        nothing(),
        nothing(),
        plain(parts.join(" > ")),
    ]
}

fn row(plan: &PlanView) -> Vec<super::table::Cell> {
    let stages = plan.stages.iter().map(|stage| {
        let [first, end] = stage.blocks;
        let codec = stage.inputs.first().map_or(Codec::Raw, |input| input.codec);
        let before = if stage.id == 0 && codec == Codec::Raw { String::new() } else { arrow(codec) };
        format!("{before}{} {first}-{}", stage.label, end - 1)
    });
    let home = (plan.result_codec != Codec::Raw).then(|| arrow(plan.result_codec));
    let stages: Vec<String> = stages.chain(home).collect();
    let number = |value: Option<f64>, digits: usize| {
        plain(value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}")))
    };
    vec![
        plain(short(plan.id)),
        plain(plan.kind.clone()),
        plain(plan.variant.clone()),
        plain(ms(plan.latency_ms)),
        plain(ms(plan.cold_ms)),
        number(plan.energy_j, 4),
        number(plan.accuracy, 4),
        plain(bytes(plan.bytes)),
        plain(format!("{:.2} %", 100.0 * plan.loss)),
        plain(backups(plan)),
        toned(plan.exceeds.join(", "), Tone::Bad),
        plain(stages.concat()),
    ]
}
