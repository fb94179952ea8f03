//! A model's way into the mesh: scanned, run once on a sample, divided, each part measured. Runs where
//! the file is, so that no small node has to hold a large model whole.

mod codecs;
mod divided;
mod inputs;
mod interchangeable;
mod losses;
mod profiling;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::codec::encode;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::limits::{BATCH_ITEMS_MAX, BLOCKS_MAX};
use stormo_protocol::model::{BadManifest, Manifest, ObjectRef, OrtLevel};
use stormo_protocol::profile::Reference;
use stormo_protocol::tensor::{Tensor, TensorSpec};

use crate::card::{Card, CardError, ReadError};
use crate::ends::{EndTimes, EndsError, add_ends};
use crate::engine::{
    self, CalibrateError, Engine, LoadError, OpenBatch, PartitionSource, ProbeError, Probed, RunError, Weight,
};
use crate::model::{DivideOptions, Graph, ModelError, Skeleton, divide, extract};
use crate::profile::BlockRange;
use crate::sample::{self, Sample};
use divided::{Divided, Tensors, by_name};
pub use interchangeable::{NotInterchangeable, interchangeable};
pub use losses::SAMPLES_MAX;
use losses::{Shown, WholeTimes};
pub use profiling::Profiled;
use profiling::Profiler;

/// Most bytes of tensors that a run on many items may give out.
const PROBE_BYTES_MAX: u64 = 512 << 20;
/// Runs of the card's work that are timed.
const END_RUNS: usize = 5;
/// A model that needs longer for one run is no model for this machine, or one whose loop does not end. Far above
/// what the largest models take on a small board.
pub const RUN_MAX: Duration = Duration::from_secs(300);

/// A model as the user gives it.
pub struct Source {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    /// Name to deploy it under.
    pub name: String,
    /// Label of the variant.
    pub variant: String,
    /// ONNX Runtime's level.
    pub level: OrtLevel,
    /// Shapes of inputs whose axes the model leaves open, by name.
    pub shapes: HashMap<String, Vec<u64>>,
    /// The model's card (TOML, labels in it), and an encoded image to measure it on.
    pub card: Option<SourceCard>,
    /// Inputs of what the model is for: the first is what everything is measured on, and its shapes are those
    /// of axes that nobody fixed; on the first few is measured what codecs cost.
    pub samples: Vec<Sample>,
    /// How long one run may take; usually [`RUN_MAX`].
    pub run_max: Duration,
}

/// A card as the user gives it.
pub struct SourceCard {
    /// TOML.
    pub text: String,
    /// A JPEG or PNG; a made-up one is used if absent.
    pub sample: Option<Vec<u8>>,
}

/// A model ready for the mesh.
pub struct Prepared {
    /// What describes it.
    pub manifest: Manifest,
    /// Name and length of the encoded manifest.
    pub manifest_object: ObjectRef,
    /// All objects, the manifest's first.
    pub objects: Vec<(ObjectRef, Arc<[u8]>)>,
    /// Time of the whole model on this machine, microseconds.
    pub whole_us: u64,
    /// The ranges of the graph's blocks that were measured, and the time of each, microseconds.
    pub measured: Vec<(BlockRange, f64)>,
    /// How much of the time went into coding what crosses the cuts.
    pub coding: Duration,
}

/// Why a model cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An open axis and no shape for it.
    #[error(
        "input `{input}` has no fixed shape ({shape}); say which one to use: --sample-shape {input}=1x3x224x224, or \
         give --samples DIR with inputs as they will come"
    )]
    OpenShape {
        /// The input.
        input: String,
        /// As the model declares it.
        shape: String,
    },
    /// A shape for an input that there is not, or one that does not fit.
    #[error("the shape {given:?} for `{input}` does not fit the model, which has {declared}")]
    Shape {
        /// The input.
        input: String,
        /// As given.
        given: Vec<u64>,
        /// What the model has.
        declared: String,
    },
    /// A sample that is not of the shape that was asked for.
    #[error(
        "the samples' `{input}` is of shape {given:?}, but --sample-shape says {fixed:?}; leave that option out, or give \
         samples of that shape"
    )]
    SampleShape {
        /// The input.
        input: String,
        /// Of the sample.
        given: Vec<u64>,
        /// As asked for.
        fixed: Vec<u64>,
    },
    /// An output that no frame can carry.
    #[error("{what}: leave this output out, or let the model give numbers")]
    Output {
        /// Which one, and what it is.
        what: String,
    },
    /// A run that does not end.
    #[error(
        "one run takes longer than {} s, so it was ended: if a loop of the model ends on some inputs only, give such \
         ones by --samples DIR; else the model is too large for this machine", .0.as_secs()
    )]
    Endless(Duration),
    /// ONNX Runtime does not take it.
    #[error("ONNX Runtime cannot run this model: {0}")]
    Runtime(String),
    /// The card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The card does not go with the model.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// What came out breaks the rules of manifests.
    #[error("the model cannot be described: {0}")]
    Manifest(#[from] BadManifest),
}

impl From<LoadError> for PrepareError {
    fn from(error: LoadError) -> Self {
        Self::Runtime(error.to_string())
    }
}

impl From<RunError> for PrepareError {
    fn from(error: RunError) -> Self {
        Self::Runtime(error.to_string())
    }
}

impl From<ProbeError> for PrepareError {
    fn from(error: ProbeError) -> Self {
        Self::Runtime(error.to_string())
    }
}

impl From<CalibrateError> for PrepareError {
    fn from(error: CalibrateError) -> Self {
        Self::Runtime(error.to_string())
    }
}

/// Does it all; `progress` hears of each step.
///
/// # Errors
/// What is wrong with the model, and what to do.
pub async fn prepare(
    engine: &Engine,
    source: Source,
    progress: &dyn Fn(&str),
) -> Result<Prepared, PrepareError> {
    let mut graph = Graph::parse(&source.bytes)?;
    let card = source.card.as_ref().map(|card| Card::parse(&card.text)).transpose()?;
    let inputs = inputs::of(&graph, &source.shapes, source.samples.first())?;
    progress(&format!("read {} nodes; running once on a sample", graph.node_count()));
    let specs = probe(engine, &graph, &inputs, source.level, source.run_max).await?;
    let batches = try_batches(engine, &graph, &inputs, &specs, &source, progress).await?;
    let is_fixed =
        |name: &String, spec: &TensorSpec| batches.iter().all(|(_, sizes)| sizes.get(name) == Some(spec));
    let fixed = specs.iter().filter(|(name, spec)| is_fixed(name, spec));
    graph.fix_shapes(&fixed.map(|(name, spec)| (name.clone(), spec.clone())).collect())?;
    // The ends take two of the blocks that a variant may have.
    let ends = if card.is_some() { 2 } else { 0 };
    let options = DivideOptions {
        blocks_max: BLOCKS_MAX - ends,
        keeps_outputs: card.as_ref().is_some_and(Card::gives_meaning),
    };
    let mut division = divide(&graph, &specs, &options)?;
    if !batches.is_empty()
        && let Err(tensor) = division.keep_batch(&batches)
    {
        progress(&format!("one item at a time: `{tensor}` does not follow the batch axis"));
    }
    let mut manifest = division.manifest(&source.name, &source.variant, source.level);
    manifest.check()?;
    let skeleton = Skeleton::parse(&division.skeleton, &manifest)?;
    let mut objects = vec![object(division.skeleton.into())];
    objects.extend(division.weights.into_iter().map(|(object, bytes)| (object, bytes.into())));
    let weights = by_id(&objects);
    let draft = manifest.clone();
    let parts = Divided { engine, manifest: &draft, skeleton: &skeleton, weights: &weights };
    let (measured, outputs) = profile(&parts, &mut manifest, &inputs, progress).await?;
    let whole_us = manifest.whole_us();
    let mut shown = inputs;
    if let (Some(card), Some(given)) = (&card, source.card) {
        progress("measuring the card's work on an image");
        let sample = given.sample.map_or_else(sample::photo, Ok).map_err(EndsError::from)?;
        let times = measure_ends(card, &manifest, &sample, &outputs)?;
        let text = object(given.text.into_bytes().into());
        let specs: Vec<TensorSpec> = manifest.input_specs().cloned().collect();
        shown = card.prepare(&sample, &specs).map_err(EndsError::from)?.0;
        add_ends(&mut manifest, text.0, card.gives_meaning(), times)?;
        objects.push(text);
    }
    progress("coding what crosses the cuts");
    let began_coding = Instant::now();
    let parts = Divided { manifest: &manifest.clone(), ..parts };
    if let Some(first) = source.samples.first() {
        shown.clone_from(&first.inputs);
    }
    let seen = Seen { inputs: by_name(shown), card: card.as_ref(), samples: &source.samples };
    measure_codecs(&parts, &mut manifest, &seen, Duration::from_micros(whole_us), progress).await?;
    let coding = began_coding.elapsed();
    manifest.check()?;
    let described = object(encode(&manifest).into());
    let manifest_object = described.0;
    objects.insert(0, described);
    Ok(Prepared { manifest, manifest_object, objects, whole_us, measured, coding })
}

/// Ranges that were measured, and the time of each, microseconds.
type MeasuredRanges = Vec<(BlockRange, f64)>;

/// Writes times into the manifest; gives those that they were told from, and the model's outputs.
async fn profile(
    parts: &Divided<'_>,
    manifest: &mut Manifest,
    inputs: &[Tensor],
    progress: &dyn Fn(&str),
) -> Result<(MeasuredRanges, Vec<Tensor>), PrepareError> {
    let speeds = engine::calibrate(parts.engine).await?;
    let profiled = Profiler::new(parts, inputs).measure(&[], progress).await?;
    for (block, time_ns) in manifest.blocks.iter_mut().zip(profiled.fitted.block_ns) {
        block.time_ns = time_ns;
    }
    manifest.reference = Reference { speeds, range_ns: profiled.fitted.range_ns };
    Ok((profiled.measured, profiled.outputs))
}

/// Profiles a prepared graph anew on these inputs, and in turns with that measures other ranges of its
/// blocks, to see how well their times are foretold.
///
/// # Errors
/// That of the first session that does not load or run.
pub async fn profile_beside(
    engine: &Engine,
    prepared: &Prepared,
    inputs: &[Tensor],
    apart: &[BlockRange],
) -> Result<Profiled, PrepareError> {
    let manifest = &prepared.manifest;
    let weights = by_id(&prepared.objects);
    let skeleton = weights.get(&manifest.skeleton.id).cloned().unwrap_or_default();
    let skeleton = Skeleton::parse(&skeleton, manifest)?;
    let parts = Divided { engine, manifest, skeleton: &skeleton, weights: &weights };
    Profiler::new(&parts, inputs).measure(apart, &|_| {}).await
}

fn by_id(objects: &[(ObjectRef, Arc<[u8]>)]) -> HashMap<ObjectId, Arc<[u8]>> {
    objects.iter().map(|(object, bytes)| (object.id, bytes.clone())).collect()
}

fn object(bytes: Arc<[u8]>) -> (ObjectRef, Arc<[u8]>) {
    (ObjectRef { id: ObjectId::of(&bytes), bytes: bytes.len() as u64 }, bytes)
}

/// Runs the card's work a few times; that it runs at all shows that card and model fit together.
fn measure_ends(
    card: &Card,
    manifest: &Manifest,
    sample: &[u8],
    outputs: &[Tensor],
) -> Result<EndTimes, EndsError> {
    let specs: Vec<TensorSpec> = manifest.input_specs().cloned().collect();
    let (_, frame) = card.prepare(sample, &specs)?;
    let decode_us = shortest_us(|| card.prepare(sample, &specs).is_ok());
    // On made-up inputs a detector finds what it finds: the outputs' shapes are what is checked.
    match card.read(outputs, &frame) {
        Ok(_) | Err(ReadError::NotFinite(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let read_us = shortest_us(|| card.read(outputs, &frame).is_ok());
    Ok(EndTimes { encoded_bytes: sample.len() as u64, decode_us, read_us })
}

/// The shortest of a few runs: what interrupts a run only makes it longer.
fn shortest_us(mut work: impl FnMut() -> bool) -> u64 {
    let times = (0..END_RUNS).map(|_| {
        let started = Instant::now();
        std::hint::black_box(work());
        started.elapsed().as_micros() as u64
    });
    times.min().unwrap_or(0)
}

/// Element type and shape of every tensor in runs on two items, and on as many as a request may ever bring:
/// what was padded to eight is no constant then. None where the first axis is not open.
async fn try_batches(
    engine: &Engine,
    graph: &Graph,
    inputs: &[Tensor],
    of_one: &HashMap<String, TensorSpec>,
    source: &Source,
    progress: &dyn Fn(&str),
) -> Result<Vec<(u64, HashMap<String, TensorSpec>)>, PrepareError> {
    let bytes =
        of_one.values().map(|spec| spec.byte_length().unwrap_or(u64::MAX)).fold(1, u64::saturating_add);
    let most = (PROBE_BYTES_MAX / bytes).clamp(2, BATCH_ITEMS_MAX);
    let mut tried = Vec::new();
    for items in [2, most].into_iter().take(if most > 2 { 2 } else { 1 }) {
        let Some(batch) = inputs::batch(graph, inputs, &source.shapes, items)? else { break };
        progress(&format!("running once on {items} items, to keep the batch axis open"));
        match probe(engine, graph, &batch, source.level, source.run_max).await {
            Ok(sizes) => tried.push((items, sizes)),
            Err(PrepareError::Runtime(why)) => {
                progress(&format!("one item at a time: {items} are refused ({why})"));
                return Ok(Vec::new());
            }
            Err(other) => return Err(other),
        }
    }
    Ok(tried)
}

/// Element type and shape of every tensor, from one run with all of them as outputs.
pub(crate) async fn probe(
    engine: &Engine,
    graph: &Graph,
    inputs: &[Tensor],
    level: OrtLevel,
    run_max: Duration,
) -> Result<HashMap<String, TensorSpec>, PrepareError> {
    let probe = graph.probe_model()?;
    let run = engine.probe(probe.model, Vec::new(), inputs.to_vec(), level);
    // Given up, the run is ended.
    let found = tokio::time::timeout(run_max, run).await.map_err(|_| PrepareError::Endless(run_max))??;
    let mut specs: HashMap<String, TensorSpec> =
        inputs.iter().map(|input| (input.spec().name.clone(), input.spec().clone())).collect();
    for (name, probed) in found {
        match probed {
            Probed::Tensor(spec) => {
                specs.insert(name, spec);
            }
            Probed::Unsupported(what) if graph.outputs().contains(&name) => {
                return Err(PrepareError::Output { what });
            }
            // What no frame can carry stays inside a block.
            Probed::Unsupported(_) => {}
        }
    }
    Ok(specs)
}

/// What a model is shown while its cuts are measured.
struct Seen<'a> {
    /// Inputs as typical as they are at hand.
    inputs: Tensors,
    /// Says what the answers mean.
    card: Option<&'a Card>,
    samples: &'a [Sample],
}

/// Writes into the manifest what codecs make of its cuts and, where there are samples whose answers mean
/// something, what rounding costs them.
async fn measure_codecs(
    parts: &Divided<'_>,
    manifest: &mut Manifest,
    seen: &Seen<'_>,
    whole_run: Duration,
    progress: &dyn Fn(&str),
) -> Result<(), PrepareError> {
    let cuts = codecs::thin_cuts(manifest);
    let coded = codecs::measure(parts, &cuts, &seen.inputs).await?;
    for (cut, figures) in cuts.iter().zip(coded.figures) {
        manifest.cuts[usize::from(*cut)].codecs = figures;
    }
    let Some(card) = seen.card.filter(|card| card.gives_meaning()) else { return Ok(()) };
    let samples: Vec<Shown> = seen.samples.iter().filter_map(Shown::of).take(SAMPLES_MAX).collect();
    if samples.is_empty() {
        return Ok(());
    }
    let whole = WholeTimes { load: coded.load, run: whole_run };
    let worthwhile = losses::worthwhile(manifest, &cuts, samples.len(), whole);
    let all = manifest.graph_blocks().len() + 1;
    let others = if worthwhile.len() < all { "; at the others it would take too long" } else { "" };
    progress(&format!(
        "measuring on {} samples what rounding costs at {} of {all} cuts{others}",
        samples.len(),
        worthwhile.len()
    ));
    let measured = losses::measure(parts, &worthwhile, card, &samples, losses::time_max(whole)).await?;
    losses::note(manifest, &measured, samples.len());
    Ok(())
}

/// The open first axis of a part, of which these tensors have it.
pub fn open_batch(manifest: &Manifest, tensors: Vec<String>) -> Option<OpenBatch> {
    let items_max = manifest.batch.as_ref()?.items_max;
    (!tensors.is_empty()).then_some(OpenBatch { tensors, items_max })
}

/// A range of blocks for the engine, with its weights; `weight` gives the bytes of an object.
///
/// # Errors
/// When skeleton and manifest do not fit, or a weight is missing.
pub fn partition_source(
    skeleton: &Skeleton,
    manifest: &Manifest,
    blocks: std::ops::Range<u16>,
    weight: impl Fn(ObjectId) -> Option<Arc<[u8]>>,
) -> Result<PartitionSource, ModelError> {
    let (mut source, wanted) = partition_source_beside(skeleton, manifest, blocks)?;
    for object in wanted {
        let location = object.id.to_string();
        if source.weights.iter().any(|weight| weight.location == location) {
            continue;
        }
        let bytes = weight(object.id).ok_or(ModelError::WeightMissing { object: object.id })?;
        source.weights.push(Weight { location, bytes });
    }
    Ok(source)
}

/// A range of blocks for the engine, and the weights that have to lie beside it: files whose names are those of their
/// objects.
///
/// # Errors
/// When skeleton and manifest do not fit.
pub fn partition_source_beside(
    skeleton: &Skeleton,
    manifest: &Manifest,
    blocks: std::ops::Range<u16>,
) -> Result<(PartitionSource, Vec<ObjectRef>), ModelError> {
    let part = extract(skeleton, manifest, blocks)?;
    let source = PartitionSource {
        model: part.model,
        weights: Vec::new(),
        inputs: part.inputs,
        outputs: part.outputs,
        level: manifest.ort_level,
        batch: open_batch(manifest, part.batched),
        variable: part.variable,
    };
    Ok((source, part.weights.into_iter().map(|weight| weight.object).collect()))
}
