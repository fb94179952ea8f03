//! Makes an int8 variant of a model: calibrates it on samples, tries which parts are better left in
//! floats and how ranges are best chosen, and measures what came out. How a graph is rewritten is the
//! business of `model`.

mod calibrate;
mod judge;
mod search;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Serialize;
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{Tensor, TensorSpec};

use crate::card::{Agreement, Card};
use crate::deploy::{PrepareError, RUN_MAX, probe};
use crate::engine::{Engine, LoadError, RunError, SimplifyError};
use crate::model::{Graph, ModelError, QuantiseError, Quantiser, RangeMethod, raise_opset};
use crate::sample::Sample;

use calibrate::calibrate;
use judge::{Judge, Judged};
use search::Search;

/// From so many samples on, a part of them is kept from calibration and only judged by.
const HELD_OUT_FROM: usize = 8;
/// Which part: every so manieth.
const HELD_OUT_EVERY: usize = 4;

/// What is wanted.
pub struct Source<'a> {
    /// The FP32 model.
    pub model: &'a [u8],
    /// What its outputs mean.
    pub card: Option<&'a Card>,
    /// What it will be asked, more or less.
    pub samples: &'a [Sample],
    /// Prefixes of nodes that stay in floats.
    pub keep_float: &'a [String],
    /// ONNX Runtime's level that times are measured at.
    pub level: OrtLevel,
    /// Longest search for parts that are better left in floats.
    pub search_max: Duration,
}

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The model.
    #[error(transparent)]
    Quantise(#[from] QuantiseError),
    /// Likewise.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// ONNX Runtime could not simplify it.
    #[error("ONNX Runtime cannot simplify this model: {0}")]
    Simplify(#[from] SimplifyError),
    /// It made a model that ONNX Runtime does not take.
    #[error("ONNX Runtime cannot load the model: {0}")]
    Load(#[from] LoadError),
    /// Or not run.
    #[error("the model does not run on a sample: {0}")]
    Run(#[from] RunError),
    /// There is nothing to calibrate on.
    #[error("there are no samples: give a folder of images, .npy or .npz files")]
    NoSamples,
    /// Samples of several shapes.
    #[error("sample {number} is {got} where the first is {expected}: give samples of one shape")]
    MixedSamples {
        /// Counted from 1.
        number: usize,
        /// Its inputs.
        got: String,
        /// Those of the first.
        expected: String,
    },
    /// The outputs are not numbers that can be compared.
    #[error("the output `{0}` is not FP32, so that the loss cannot be measured")]
    OutputType(String),
}

impl From<ModelError> for MakeError {
    fn from(error: ModelError) -> Self {
        Self::Quantise(error.into())
    }
}

/// What was made, measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Length of the FP32 file, bytes.
    pub fp32_bytes: u64,
    /// Length of the int8 file, bytes.
    pub int8_bytes: u64,
    /// Time of a run of the FP32 model, milliseconds.
    pub fp32_ms: f64,
    /// Time of a run, int8 to FP32: below 1 is faster.
    pub time_ratio: f64,
    /// Answers by the card that are those of the FP32 model (classes, or detections matched with its
    /// own); absent without a card.
    pub answers_same: Option<u64>,
    /// Of so many; detections are counted from both sides.
    pub answers: Option<u64>,
    /// Error of the outputs, root mean square as a share of the outputs'; median over the samples of the
    /// worst output.
    pub output_error: f64,
    /// Cosine between outputs; likewise.
    pub output_cosine: f64,
    /// Samples that ranges were chosen by.
    pub samples_calibrated: usize,
    /// Samples that the loss was measured on.
    pub samples_judged: usize,
    /// Whether these were others.
    pub held_out: bool,
    /// How ranges were chosen.
    pub range_method: String,
    /// Convolutions and matrix products on small integers.
    pub nodes_int8: usize,
    /// Those left in floats, by name.
    pub nodes_float: Vec<String>,
}

/// An int8 variant.
pub struct Made {
    /// The ONNX file.
    pub model: Vec<u8>,
    /// What it is worth.
    pub report: Report,
}

/// Makes the variant; `progress` hears of each step.
///
/// # Errors
/// What is wrong with the model or the samples, and what to do.
pub async fn make(engine: &Engine, source: &Source<'_>, progress: &dyn Fn(&str)) -> Result<Made, MakeError> {
    let inputs = one_shape(source.samples)?;
    let graph = Graph::parse(source.model)?;
    progress("running once on a sample");
    let specs = probe(engine, &graph, inputs, source.level, RUN_MAX).await?;
    let raised = raise_opset(&graph, &specs)?;
    let simple = Graph::parse(&engine.simplify(raised).await?)?;
    let outputs: Vec<TensorSpec> =
        graph.outputs().iter().filter_map(|name| specs.get(name).cloned()).collect();
    let specs = probe(engine, &simple, inputs, source.level, RUN_MAX).await?;
    let quantiser = Quantiser::new(simple, specs)?;

    let (calibrated, judged) = held_out(source.samples);
    let observed = calibrate(engine, &quantiser, &calibrated, progress).await?;
    let judge = Judge::new(engine, source, graph.whole_model()?, outputs, &judged).await?;
    let candidates = quantiser.candidates();
    let kept = quantiser.with_prefix(source.keep_float)?;
    let search =
        Search { quantiser: &quantiser, observed: &observed, judge: &judge, candidates: &candidates };
    let deadline = Instant::now() + source.search_max;
    let found = search.run(&kept, deadline, progress).await?;

    let mut best: Option<(RangeMethod, Vec<u8>, Judged)> = None;
    for method in RangeMethod::ALL {
        progress(&format!("judging ranges by {}", method.name()));
        let model = quantiser.quantise(&observed, method, &found.floats)?;
        let judged = judge.loss(&model).await?;
        if best.as_ref().is_none_or(|(_, _, best)| judged.is_better_than(best)) {
            best = Some((method, model, judged));
        }
    }
    let Some((method, model, loss)) = best else { return Err(MakeError::NoSamples) };
    progress("measuring its speed");
    let time_ratio = judge.time_ratio(&*judge.load(&model).await?, judge::LONG).await?;
    let report = Report {
        fp32_bytes: source.model.len() as u64,
        int8_bytes: model.len() as u64,
        fp32_ms: judge.fp32_ms().await?,
        time_ratio,
        answers_same: loss.agreement.map(|agreement| agreement.same),
        answers: loss.agreement.map(|agreement| agreement.answers),
        output_error: loss.error,
        output_cosine: loss.cosine,
        samples_calibrated: calibrated.len(),
        samples_judged: judged.len(),
        held_out: source.samples.len() >= HELD_OUT_FROM,
        range_method: method.name().to_owned(),
        nodes_int8: candidates.len() - found.floats.len(),
        nodes_float: in_order(&found.floats).map(|index| candidates[index].name.clone()).collect(),
    };
    Ok(Made { model, report })
}

impl Report {
    /// The share of answers that are those of the FP32 model, where a card tells answers.
    pub fn agreement(&self) -> Option<f64> {
        Agreement { same: self.answers_same?, answers: self.answers? }.share()
    }
}

fn in_order(set: &HashSet<usize>) -> impl Iterator<Item = usize> {
    let mut list: Vec<usize> = set.iter().copied().collect();
    list.sort_unstable();
    list.into_iter()
}

/// The first sample's inputs, if all others are of their shape.
fn one_shape(samples: &[Sample]) -> Result<&[Tensor], MakeError> {
    let first = samples.first().ok_or(MakeError::NoSamples)?;
    let describe = |sample: &Sample| {
        let parts = sample.inputs.iter().map(|input| {
            let spec = input.spec();
            format!("{} {} {:?}", spec.name, spec.dtype.oip_name(), spec.shape)
        });
        parts.collect::<Vec<_>>().join(", ")
    };
    let is_like_first = |sample: &Sample| {
        sample.inputs.len() == first.inputs.len()
            && sample.inputs.iter().zip(&first.inputs).all(|(one, other)| one.spec() == other.spec())
    };
    match samples.iter().position(|sample| !is_like_first(sample)) {
        Some(index) => Err(MakeError::MixedSamples {
            number: index + 1,
            got: describe(&samples[index]),
            expected: describe(first),
        }),
        None => Ok(&first.inputs),
    }
}

/// Samples to calibrate on, and samples to judge by.
fn held_out(samples: &[Sample]) -> (Vec<&Sample>, Vec<&Sample>) {
    if samples.len() < HELD_OUT_FROM {
        return (samples.iter().collect(), samples.iter().collect());
    }
    let is_judged = |index: &usize| index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1;
    let part = |judged: bool| {
        let chosen = (0..samples.len()).filter(|index| is_judged(index) == judged);
        chosen.map(|index| &samples[index]).collect()
    };
    (part(false), part(true))
}
