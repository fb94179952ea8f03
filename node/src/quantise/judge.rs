//! What a small model is worth: its time as a share of the float model's, in turn on the same thread,
//! and how far its outputs and answers are from the float model's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{DType, Tensor, TensorSpec};

use super::{MakeError, Source};
use crate::card::{Agreement, Card, Meaning};
use crate::engine::{Engine, Partition, PartitionSource};
use crate::sample::Sample;

/// How long times are compared, and how often at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    time_max: Duration,
    rounds_min: usize,
    rounds_max: usize,
}

/// Enough to see a few per cent.
pub(super) const SHORT: Effort =
    Effort { time_max: Duration::from_millis(300), rounds_min: 7, rounds_max: 100 };
/// For figures that are reported.
pub(super) const LONG: Effort = Effort { time_max: Duration::from_secs(2), rounds_min: 11, rounds_max: 400 };
/// Runs before the first that counts.
const WARM_UP: usize = 3;

/// What is lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub error: f64,
    pub cosine: f64,
    pub agreement: Option<Agreement>,
}

impl Judged {
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        // The error, not the agreement: on few samples that hardly differs.
        self.error < other.error
    }
}

/// The float model and what it says of the samples.
pub(super) struct Judge<'a> {
    engine: &'a Engine,
    card: Option<&'a Card>,
    level: OrtLevel,
    samples: &'a [&'a Sample],
    outputs: Vec<TensorSpec>,
    float: Arc<Partition>,
    reference: Vec<Vec<Tensor>>,
    meanings: Vec<Option<Meaning>>,
}

impl<'a> Judge<'a> {
    pub(super) async fn new(
        engine: &'a Engine,
        source: &Source<'a>,
        float: Vec<u8>,
        outputs: Vec<TensorSpec>,
        samples: &'a [&'a Sample],
    ) -> Result<Self, MakeError> {
        if let Some(other) = outputs.iter().find(|spec| spec.dtype != DType::F32) {
            return Err(MakeError::OutputType(other.name.clone()));
        }
        let level = source.level;
        let float = load(engine, float, samples, &outputs, level).await?;
        let mut reference = Vec::with_capacity(samples.len());
        for sample in samples {
            reference.push(float.run(sample.inputs.clone()).await?.outputs);
        }
        let meanings = samples.iter().zip(&reference);
        let meanings = meanings.map(|(sample, outputs)| meaning(source.card, sample, outputs)).collect();
        Ok(Self { engine, card: source.card, level, samples, outputs, float, reference, meanings })
    }

    /// A model, ready to run on the samples.
    pub(super) async fn load(&self, model: &[u8]) -> Result<Arc<Partition>, MakeError> {
        load(self.engine, model.to_vec(), self.samples, &self.outputs, self.level).await
    }

    /// How far a model is from the float one on the samples.
    pub(super) async fn loss(&self, model: &[u8]) -> Result<Judged, MakeError> {
        let small = self.load(model).await?;
        let (mut errors, mut cosines) = (Vec::new(), Vec::new());
        let mut agreement: Option<Agreement> = None;
        for ((sample, reference), expected) in self.samples.iter().zip(&self.reference).zip(&self.meanings) {
            let outputs = small.run(sample.inputs.clone()).await?.outputs;
            let compared = outputs.iter().zip(reference).map(|(one, other)| compare(one, other));
            let worst = compared
                .fold((0f64, 1f64), |worst, (error, cosine)| (worst.0.max(error), worst.1.min(cosine)));
            errors.push(worst.0);
            cosines.push(worst.1);
            if let (Some(expected), Some(got)) = (expected, meaning(self.card, sample, &outputs)) {
                agreement = Some(agreement.unwrap_or_default().and(Agreement::of(&got, expected)));
            }
        }
        Ok(Judged { error: median(errors), cosine: median(cosines), agreement })
    }

    /// Time of a model as a share of the float model's.
    pub(super) async fn time_ratio(&self, model: &Partition, effort: Effort) -> Result<f64, MakeError> {
        self.time_share(model, &self.float, effort).await
    }

    /// Time of a model as a share of another's: the median of rounds in which each runs once.
    pub(super) async fn time_share(
        &self,
        one: &Partition,
        other: &Partition,
        effort: Effort,
    ) -> Result<f64, MakeError> {
        let Some(sample) = self.samples.first() else { return Err(MakeError::NoSamples) };
        for _ in 0..WARM_UP {
            other.run(sample.inputs.clone()).await?;
            one.run(sample.inputs.clone()).await?;
        }
        let started = Instant::now();
        let mut ratios = Vec::new();
        while ratios.len() < effort.rounds_min
            || (ratios.len() < effort.rounds_max && started.elapsed() < effort.time_max)
        {
            let other = other.run(sample.inputs.clone()).await?.computed;
            let one = one.run(sample.inputs.clone()).await?.computed;
            ratios.push(one.as_secs_f64() / other.as_secs_f64().max(1e-9));
        }
        Ok(median(ratios))
    }

    /// Time of a run of the float model, milliseconds.
    pub(super) async fn fp32_ms(&self) -> Result<f64, MakeError> {
        let Some(sample) = self.samples.first() else { return Err(MakeError::NoSamples) };
        let mut times = Vec::new();
        for _ in 0..SHORT.rounds_min {
            times.push(self.float.run(sample.inputs.clone()).await?.computed.as_secs_f64() * 1000.0);
        }
        Ok(median(times))
    }
}

async fn load(
    engine: &Engine,
    model: Vec<u8>,
    samples: &[&Sample],
    outputs: &[TensorSpec],
    level: OrtLevel,
) -> Result<Arc<Partition>, MakeError> {
    let first = samples.first().ok_or(MakeError::NoSamples)?;
    let inputs = first.inputs.iter().map(|input| input.spec().clone()).collect();
    let source = PartitionSource {
        model,
        weights: Vec::new(),
        inputs,
        outputs: outputs.to_vec(),
        level,
        batch: None,
        variable: Vec::new(),
    };
    Ok(engine.load("quantise".into(), source).await?)
}

fn meaning(card: Option<&Card>, sample: &Sample, outputs: &[Tensor]) -> Option<Meaning> {
    let card = card.filter(|card| card.gives_meaning())?;
    card.read(outputs, sample.frame.as_ref()?).ok()
}

/// Root mean square of the difference as a share of that of `expected`, and the cosine between them.
fn compare(got: &Tensor, expected: &Tensor) -> (f64, f64) {
    let values =
        |tensor: &'_ Tensor| tensor.data().as_slice_of::<f32>().map(<[f32]>::to_vec).unwrap_or_default();
    let (mut difference, mut both, mut of_got, mut of_expected) = (0.0, 0.0, 0.0, 0.0);
    for (got, expected) in values(got).into_iter().zip(values(expected)) {
        let (got, expected) = (f64::from(got), f64::from(expected));
        difference += (got - expected).powi(2);
        both += got * expected;
        of_got += got * got;
        of_expected += expected * expected;
    }
    if of_expected == 0.0 || of_got == 0.0 {
        let same = of_got == of_expected;
        return if same { (0.0, 1.0) } else { (1.0, 0.0) };
    }
    ((difference / of_expected).sqrt(), both / (of_got * of_expected).sqrt())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
