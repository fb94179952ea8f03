//! How well times of ranges that nobody measured are foretold, and how long finding out takes: real
//! networks profiled as for deployment, then random ranges of their blocks told, loaded and measured.

mod errors;
mod study;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use stormo_testnet::{digits, interrupt, surroundings};

use crate::options;
use crate::table::{Align, Table};
use crate::told::tell;
use errors::{Error, Errors};
use study::{Studied, Study};

/// Half of the ranges should be told to within this share of their time, and nineteen in twenty to within
/// that one.
const TARGET: (f64, f64) = (0.05, 0.15);
/// Time for dividing and profiling beyond one run of the model.
const PREPARE_SECONDS_MAX: f64 = 5.0;

/// What to measure, and how thoroughly.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Only this network; may be repeated
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Ranges to foretell of each network
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = options::count(1..=100_000))]
    ranges: usize,
    /// Which ranges: the same seed draws the same ones, if the same were measured
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    models: Vec<Studied>,
    /// Of the ranges of all networks together.
    all: Errors,
    /// Networks that were not measured, and why.
    left_out: Vec<String>,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let mut left_out = Vec::new();
    let files = files(&mut left_out)?;
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    super::ensure_known(&options.model, &names)?;
    let study = Study::new(options.ranges, options.seed)?;
    let mut models: Vec<Studied> = Vec::new();
    let mut all = errors::Told::default();
    for (name, file) in files {
        let is_wanted = options.model.is_empty() || options.model.contains(&name);
        if !is_wanted || interrupt::is_noted() {
            continue;
        }
        note!("{name}: dividing and profiling it, then measuring other ranges of its blocks");
        match fs::read(&file).map_err(anyhow::Error::from).and_then(|bytes| study.of(&name, bytes)) {
            Ok((studied, told)) => {
                models.push(studied);
                all.extend(told);
            }
            Err(error) => left_out.push(format!("{name}: {error:#}")),
        }
    }
    let all = all.errors();
    let report = Report { seed: options.seed, models, all, left_out };
    super::kept::show("predict", options.json, &report, print)
}

/// The network of the tree and the shared ones, if they are there.
fn files(left_out: &mut Vec<String>) -> Result<Vec<(String, PathBuf)>> {
    let mut files = vec![("digits".to_owned(), digits::model())];
    match surroundings::shared_models() {
        Some(folder) => {
            note!("shared models: {}", folder.display());
            let mut shared: Vec<PathBuf> =
                fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            shared.retain(|file| file.extension().is_some_and(|extension| extension == "onnx"));
            shared.sort();
            let name = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.extend(shared.into_iter().map(|file| (name(&file), file)));
        }
        None => left_out.push(format!(
            "the shared models: set {} to the folder that holds `models`",
            surroundings::SHARED
        )),
    }
    Ok(files)
}

fn print(report: &Report) {
    tell!(
        "Times of ranges of blocks that nobody measured, foretold from others and then measured (seed {}): how \
         far off\nhalf of them and nineteen in twenty of them are at most.\n",
        report.seed
    );
    let titles =
        ["ranges", "told", "", "again", "", "before", "", "again", "", "other node", "", "by shares", ""];
    let mut table = table(&titles);
    for model in &report.models {
        table.row(row(&model.model, &model.errors));
    }
    table.row(row("all", &report.all));
    table.lines().iter().for_each(|line| tell!("{line}"));
    tell!(
        "\ntold: by ranges that were measured in turns with these; again: the same range in another session, \
         likewise.\nbefore: by the profile made at deployment, seconds earlier; again: measured ranges now and \
         then.\nother node: told for a node of which nothing is known but its speeds and three ranges that it \
         hosts.\nby shares: by single blocks' times scaled to the whole's, as a comparison.\nWanted: {:.0} % and \
         {:.0} %. All networks together: told {}, before {}, other node {}.\n",
        TARGET.0 * 100.0,
        TARGET.1 * 100.0,
        verdict(report.all.told),
        verdict(report.all.before),
        verdict(report.all.other_node),
    );
    let mut prepared =
        self::table(&["nodes", "blocks", "measured", "one run, ms", "prepared, s", "beyond a run, s"]);
    for model in &report.models {
        prepared.row([
            model.model.clone(),
            model.nodes.to_string(),
            model.blocks.to_string(),
            model.ranges_measured.to_string(),
            format!("{:.2}", model.whole_ms),
            format!("{:.2}", model.prepare_seconds),
            format!("{:.2}", model.beyond_seconds()),
        ]);
    }
    prepared.lines().iter().for_each(|line| tell!("{line}"));
    tell!(
        "\nprepared: from the file's bytes to the manifest: read, run on a sample, divided, profiled, but no cut coded;\n\
         measured: ranges of blocks run for that. Wanted: at most {PREPARE_SECONDS_MAX} s beyond a run."
    );
    report.left_out.iter().for_each(|why| tell!("left out: {why}"));
}

fn verdict(error: Error) -> &'static str {
    if error.is_within(TARGET) { "holds" } else { "missed" }
}

fn table(figures: &[&'static str]) -> Table {
    let figures = figures.iter().map(|title| (*title, Align::Right));
    Table::new(&[("model", Align::Left)].into_iter().chain(figures).collect::<Vec<_>>())
}

fn row(name: &str, errors: &Errors) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let figures =
        [errors.told, errors.again, errors.before, errors.again_before, errors.other_node, errors.by_shares];
    let figures = figures.into_iter().flat_map(|error| [percent(error.median), percent(error.p95)]);
    [name.to_owned(), errors.ranges.to_string()].into_iter().chain(figures).collect()
}
