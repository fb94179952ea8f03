//! `stormo quantize`: makes an int8 model on this machine, and says what it is worth.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::local::{Progress, engine_here, read_card, read_model};
use super::samples::{CALIBRATION_MAX, For, read_samples};
use super::table::bytes;
use super::{here, say, say_json};
use crate::app::cli::QuantiseArgs;
use crate::app::client::CommandError;
use crate::card::Card;
use crate::model::Graph;
use crate::quantise::{Made, Report, Source, make};

/// Nodes left in floats that are named.
const NAMED_MAX: usize = 8;

#[derive(Serialize)]
struct Answer<'a> {
    output: &'a Path,
    #[serde(flatten)]
    report: &'a Report,
    agreement: Option<f64>,
}

pub(super) fn run(args: &QuantiseArgs) -> Result<(), CommandError> {
    let output = args.output.clone().unwrap_or_else(|| beside(&args.model.path));
    let progress = Progress::begin();
    let made = made(args, &progress);
    progress.end();
    let made = made?;
    std::fs::write(&output, &made.model)
        .map_err(|error| CommandError::Here(format!("`{}`: {error}", output.display())))?;
    if args.json {
        let report = &made.report;
        return say_json(&Answer { output: &output, report, agreement: report.agreement() });
    }
    show(&output, &made.report, &progress);
    Ok(())
}

fn made(args: &QuantiseArgs, progress: &Progress) -> Result<Made, CommandError> {
    let told = |error: &dyn std::fmt::Display| {
        CommandError::Here(format!("`{}`: {error}", args.model.path.display()))
    };
    let model = read_model(&args.model)?;
    let graph = Graph::parse(&model).map_err(|error| told(&error))?;
    let card = args.card.as_deref().map(read_card).transpose()?;
    let card = card.as_deref().map(Card::parse).transpose().map_err(here)?;
    let shapes = args.sample_shape.iter().cloned().collect();
    let (inputs, count_max) = (graph.inputs(), CALIBRATION_MAX);
    let wanted = For { inputs, shapes: &shapes, card: card.as_ref(), count_max };
    let samples = read_samples(&args.samples, &wanted)?;
    let source = Source {
        model: &model,
        card: card.as_ref(),
        samples: &samples,
        keep_float: &args.keep_float,
        level: args.ort_level.into(),
        search_max: Duration::from_secs(args.search_s),
    };
    let (engine, runtime) = engine_here(progress)?;
    runtime.block_on(make(&engine, &source, &|step| progress.step(step))).map_err(|error| told(&error))
}

/// `model.onnx` -> `model.int8.onnx`.
fn beside(model: &Path) -> PathBuf {
    model.with_extension("int8.onnx")
}

fn show(output: &Path, report: &Report, progress: &Progress) {
    say(format!(
        "`{}`: {} instead of {}; made in {:.1} s",
        output.display(),
        bytes(report.int8_bytes),
        bytes(report.fp32_bytes),
        progress.elapsed().as_secs_f64()
    ));
    let speed = if report.time_ratio < 1.0 { "faster" } else { "no faster: keep the FP32 model" };
    say(format!(
        "time: {:.2} of the FP32 model's {:.2} ms on one thread ({speed})",
        report.time_ratio, report.fp32_ms
    ));
    let judged_on = format!(
        "{} sample{} {}",
        report.samples_judged,
        if report.samples_judged == 1 { "" } else { "s" },
        if report.held_out { "kept from calibration" } else { "that it was calibrated on" }
    );
    if let (Some(same), Some(answers), Some(share)) =
        (report.answers_same, report.answers, report.agreement())
    {
        say(format!(
            "answers: {same} of {answers} are the FP32 model's ({:.1} %), on {judged_on}",
            100.0 * share
        ));
    }
    say(format!(
        "outputs: off by {:.2} % of their size, cosine {:.5}, on {judged_on}",
        100.0 * report.output_error,
        report.output_cosine
    ));
    say(format!(
        "{} products on small integers, {} in floats{}; ranges by {}",
        report.nodes_int8,
        report.nodes_float.len(),
        named(&report.nodes_float),
        report.range_method
    ));
}

fn named(nodes: &[String]) -> String {
    let some: Vec<&str> = nodes.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = if nodes.len() > NAMED_MAX { ", ..." } else { "" };
    if some.is_empty() { String::new() } else { format!(" ({}{more})", some.join(", ")) }
}
