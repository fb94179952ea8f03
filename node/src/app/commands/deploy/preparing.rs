//! The variants of a deployment, each divided and measured on this machine: the model itself, those that
//! the user has, and one that is made of it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::here;
use super::super::local::{Progress, engine_here, read_card, read_file, read_model};
use super::super::samples::{CALIBRATION_MAX, For, read_samples};
use super::super::table::ms;
use crate::app::cli::{DeployArgs, ModelFileArgs, QUANTISE_SEARCH_S, VariantArg};
use crate::app::client::CommandError;
use crate::card::Card;
use crate::deploy::{Prepared, RUN_MAX, SAMPLES_MAX, Source, SourceCard, interchangeable, prepare};
use crate::ends::ENCODED_BYTES_MAX;
use crate::engine::Engine;
use crate::model::Graph;
use crate::quantise::{self, Made};
use crate::sample::Sample;

/// Label of the model itself.
const BASE: &str = "base";
/// Answers that must have been compared before their agreement is called an accuracy.
const ANSWERS_MIN: u64 = 20;
/// Label of the one that is made.
const INT8: &str = "int8";

/// A variant, ready to be uploaded.
pub(super) struct Ready {
    pub(super) label: String,
    pub(super) accuracy: Option<f64>,
    pub(super) prepared: Prepared,
}

/// All variants, the model itself first; and what to say of them.
pub(super) fn prepare_all(
    args: &DeployArgs,
    progress: &Progress,
) -> Result<(Vec<Ready>, Vec<String>), CommandError> {
    check_labels(args)?;
    let (engine, runtime) = engine_here(progress)?;
    let workshop = Workshop { args, progress, engine, runtime };
    let bytes = read_model(&args.model)?;
    let base = workshop.ready(BASE, &args.model.path, bytes.clone(), args.accuracy)?;
    let mut all = vec![base];
    for VariantArg { label, file, accuracy } in &args.variant {
        let external_data = args.model.external_data;
        let bytes = read_model(&ModelFileArgs { path: file.clone(), external_data })?;
        let made = workshop.ready(label, file, bytes, *accuracy)?;
        interchangeable(&all[0].prepared.manifest, &made.prepared.manifest).map_err(here)?;
        all.push(made);
    }
    let mut notes = Vec::new();
    if args.quantize.is_some() {
        let Made { model, report } = workshop.quantise(&bytes)?;
        let share = format!(
            "`{INT8}` takes {:.2} of the time of `{BASE}` ({} ms on one thread) and gives {}",
            report.time_ratio,
            ms(report.fp32_ms),
            match report.answers_same.zip(report.answers) {
                Some((same, answers)) => format!("{same} of {answers} answers as `{BASE}` does"),
                None => format!("outputs that are off by {:.2} %", 100.0 * report.output_error),
            }
        );
        if report.time_ratio < 1.0 {
            let of_base = args.accuracy.unwrap_or(1.0);
            let is_known = report.answers.is_some_and(|answers| answers >= ANSWERS_MIN);
            let accuracy = report.agreement().filter(|_| is_known).map(|share| of_base * share);
            all.push(workshop.ready(INT8, &args.model.path, model, accuracy)?);
            let too_few = format!("; fewer than {ANSWERS_MIN} tell no accuracy: give more samples");
            notes.push(if is_known { share } else { format!("{share}{too_few}") });
        } else {
            notes.push(format!("{share}: it is no faster on this machine, so it is not deployed"));
        }
    }
    Ok((all, notes))
}

/// A label twice is told before the work, not after it.
fn check_labels(args: &DeployArgs) -> Result<(), CommandError> {
    let mut known = vec![BASE];
    known.extend(args.quantize.map(|_| INT8));
    for VariantArg { label, .. } in &args.variant {
        if known.contains(&label.as_str()) {
            let taken =
                "is the label of another variant (`base` is the model itself, `int8` the one that is made)";
            return Err(CommandError::Here(format!("--variant {label}=...: `{label}` {taken}")));
        }
        known.push(label);
    }
    Ok(())
}

/// What variants are made with.
struct Workshop<'a> {
    args: &'a DeployArgs,
    progress: &'a Progress,
    engine: Engine,
    runtime: Runtime,
}

impl Workshop<'_> {
    fn ready(
        &self,
        label: &str,
        file: &Path,
        bytes: Vec<u8>,
        accuracy: Option<f64>,
    ) -> Result<Ready, CommandError> {
        let Self { args, progress, engine, runtime } = self;
        let mut source = Source {
            bytes,
            name: args.name.clone(),
            variant: label.to_owned(),
            level: args.ort_level.into(),
            shapes: self.shapes(),
            card: self.card_text()?.map(|text| self.source_card(text)).transpose()?,
            samples: Vec::new(),
            run_max: RUN_MAX,
        };
        source.samples = self.samples(&source.bytes, file, SAMPLES_MAX)?;
        let prepared =
            runtime.block_on(prepare(engine, source, &|step| progress.step(&format!("{label}: {step}"))));
        let prepared = prepared.map_err(|error| {
            progress.end();
            CommandError::Here(format!("`{}` (variant `{label}`): {error}", file.display()))
        })?;
        Ok(Ready { label: label.to_owned(), accuracy, prepared })
    }

    fn shapes(&self) -> HashMap<String, Vec<u64>> {
        self.args.sample_shape.iter().cloned().collect()
    }

    fn card_text(&self) -> Result<Option<String>, CommandError> {
        let card = self.args.card.as_deref();
        card.map(read_card).transpose()
    }

    fn source_card(&self, text: String) -> Result<SourceCard, CommandError> {
        let sample =
            self.args.sample_image.as_deref().map(|path| read_file(path, ENCODED_BYTES_MAX)).transpose()?;
        Ok(SourceCard { text, sample })
    }

    /// What a model is for, as far as a folder of it is given.
    fn samples(&self, model: &[u8], file: &Path, count_max: usize) -> Result<Vec<Sample>, CommandError> {
        let Some(folder) = &self.args.samples else { return Ok(Vec::new()) };
        let graph = Graph::parse(model)
            .map_err(|error| CommandError::Here(format!("`{}`: {error}", file.display())))?;
        let card = self.card_text()?.as_deref().map(Card::parse).transpose().map_err(here)?;
        let (inputs, shapes) = (graph.inputs(), &self.shapes());
        read_samples(folder, &For { inputs, shapes, card: card.as_ref(), count_max })
    }

    fn quantise(&self, model: &[u8]) -> Result<Made, CommandError> {
        let Self { args, progress, engine, runtime } = self;
        let file = &args.model.path;
        let samples = self.samples(model, file, CALIBRATION_MAX)?;
        let card = self.card_text()?.as_deref().map(Card::parse).transpose().map_err(here)?;
        let source = quantise::Source {
            model,
            card: card.as_ref(),
            samples: &samples,
            keep_float: &args.keep_float,
            level: args.ort_level.into(),
            search_max: Duration::from_secs(QUANTISE_SEARCH_S),
        };
        let say = |step: &str| progress.step(&format!("{INT8}: {step}"));
        runtime.block_on(quantise::make(engine, &source, &say)).map_err(|error| {
            progress.end();
            CommandError::Here(format!("--quantize, `{}`: {error}", file.display()))
        })
    }
}
