//! The native ends of a model: its card as the first and last block of the chain, so that the encoded
//! image itself is a cut. Any node runs them; what they mean is said by `card`.

use std::num::NonZero;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use stormo_protocol::model::{
    Block, BlockKind, Cut, ENCODED_IMAGE, IMAGE_FRAME, MEANING, Manifest, ObjectRef, VariableTensor,
};
use stormo_protocol::profile;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::card::{Card, Frame, Meaning, PrepareError};
use crate::engine::{AtOnce, Partition, Ran, RunError, Running};
use crate::sample;

/// Longest encoded image that a request may bring, bytes.
pub const ENCODED_BYTES_MAX: u64 = 32 << 20;
/// Longest meaning, bytes: some hundred thousand detections.
const MEANING_BYTES_MAX: u64 = 16 << 20;
/// Length of a typical meaning, bytes: some ten detections. A guess; it is small beside any image.
const MEANING_BYTES_TYPICAL: u64 = 1_000;

/// More images are not decoded at once, however many cores there are.
const PLACES_MAX: usize = 4;
/// A run on made-up values, to see whose fault a failure is, takes no longer.
const CHECK_RUN_MAX: Duration = Duration::from_secs(5);

/// A manifest with its card read.
#[derive(Debug)]
pub struct Described {
    /// What describes the model.
    pub manifest: Manifest,
    /// Its card, if it has one.
    pub card: Option<Card>,
}

impl Deref for Described {
    type Target = Manifest;

    fn deref(&self) -> &Manifest {
        &self.manifest
    }
}

/// What was measured of the ends on a sample image.
#[derive(Debug, Clone, Copy)]
pub struct EndTimes {
    /// Bytes of the sample.
    pub encoded_bytes: u64,
    /// Decoding and preparing it, microseconds.
    pub decode_us: u64,
    /// Reading the outputs, microseconds.
    pub read_us: u64,
}

/// Why a model cannot have these ends.
#[derive(Debug, thiserror::Error)]
pub enum EndsError {
    /// The model uses a name that the ends need.
    #[error("the model has a tensor `{0}`, a name that cards need; rename it")]
    Name(&'static str),
    /// The card does not fit the model's inputs.
    #[error("the card does not fit the model: {0}")]
    Inputs(#[from] PrepareError),
    /// The card does not fit the model's outputs.
    #[error("the card does not fit the model: {0}")]
    Outputs(#[from] crate::card::ReadError),
}

/// Adds the ends to a manifest: a first block from the encoded image to the inputs, and a last one from
/// the outputs to their meaning, unless the card leaves them raw.
///
/// # Errors
/// When the model has tensors of the ends' names.
pub fn add_ends(
    manifest: &mut Manifest,
    card: ObjectRef,
    gives_meaning: bool,
    times: EndTimes,
) -> Result<(), EndsError> {
    for name in [ENCODED_IMAGE, IMAGE_FRAME, MEANING] {
        if manifest.tensors.iter().any(|spec| spec.name == name) {
            return Err(EndsError::Name(name));
        }
    }
    manifest.card = Some(card);
    let encoded = add_tensor(manifest, ENCODED_IMAGE, DType::U8, times.encoded_bytes);
    manifest.variable.push(VariableTensor { tensor: encoded, bytes_max: ENCODED_BYTES_MAX });
    let frame = add_tensor(manifest, IMAGE_FRAME, DType::F32, Frame::NUMBERS as u64);
    for cut in &mut manifest.cuts {
        cut.tensors.push(frame);
    }
    manifest.cuts.insert(0, Cut::crossed_by(vec![encoded]));
    manifest.blocks.insert(0, end(BlockKind::Decode, 0, times.decode_us));
    for branch in manifest.regions.iter_mut().flat_map(|region| &mut region.branches) {
        (branch.first, branch.end) = (branch.first + 1, branch.end + 1);
    }
    if gives_meaning {
        let meaning = add_tensor(manifest, MEANING, DType::U8, MEANING_BYTES_TYPICAL);
        manifest.variable.push(VariableTensor { tensor: meaning, bytes_max: MEANING_BYTES_MAX });
        manifest.cuts.push(Cut::crossed_by(vec![meaning]));
        let nodes = manifest.blocks.last().map_or(0, |block| block.end_node);
        manifest.blocks.push(end(BlockKind::Read, nodes, times.read_us));
    }
    Ok(())
}

fn add_tensor(manifest: &mut Manifest, name: &str, dtype: DType, length: u64) -> u32 {
    manifest.tensors.push(TensorSpec { name: name.to_owned(), dtype, shape: vec![length] });
    manifest.tensors.len() as u32 - 1
}

fn end(kind: BlockKind, node: u32, time_us: u64) -> Block {
    Block {
        kind,
        first_node: node,
        end_node: node,
        weights: Vec::new(),
        inline_bytes: 0,
        flops: 0,
        peak_activation_bytes: 0,
        work: profile::Work::default(),
        time_ns: time_us.saturating_mul(1000),
    }
}

/// Bytes as the tensor that travels under a name.
pub fn bytes_tensor(name: &str, bytes: &[u8]) -> Option<Tensor> {
    let spec = TensorSpec { name: name.to_owned(), dtype: DType::U8, shape: vec![bytes.len() as u64] };
    Tensor::new(spec, TensorData::copied_from(bytes)).ok()
}

/// A frame of an image that is not there: what a request with tensors sends along.
pub fn no_frame() -> Option<Tensor> {
    frame_tensor(&[0.0; Frame::NUMBERS])
}

fn frame_tensor(numbers: &[f32; Frame::NUMBERS]) -> Option<Tensor> {
    let spec =
        TensorSpec { name: IMAGE_FRAME.to_owned(), dtype: DType::F32, shape: vec![Frame::NUMBERS as u64] };
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Tensor::new(spec, TensorData::copied_from(&bytes)).ok()
}

/// Why a stage gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The graph's part.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The image.
    #[error(transparent)]
    Image(#[from] PrepareError),
    /// The outputs, or what came with them.
    #[error("the answer could not be read: {0}")]
    Read(String),
}

/// A stage's work: its blocks on its input, ends included.
pub struct Work {
    /// The model.
    pub described: Arc<Described>,
    /// The stage's blocks.
    pub blocks: Range<u16>,
    /// The graph's part of them, if they have one.
    pub partition: Option<Arc<Partition>>,
    /// The tensors of the cut before.
    pub input: Vec<Tensor>,
}

impl Work {
    /// Does it; gives what it made, which the next cut is taken from, or what failed. The graph's part has begun
    /// before anything is awaited, unless an image is to be decoded for it. With what the graph's part gives something
    /// may be done at once, if that is all that the work gives.
    pub fn begin(self, at_once: Option<AtOnce>) -> impl Future<Output = Result<Ran, WorkError>> + Send {
        let graph = self.described.graph_blocks();
        let partition = self.partition.as_ref().filter(|_| self.blocks.start >= graph.start);
        let at_once = at_once.filter(|_| self.blocks.end <= graph.end);
        let begun = partition.map(|partition| partition.begin(wanted(partition, &self.input), at_once));
        self.go_on(begun)
    }

    async fn go_on(self, begun: Option<Result<Running, RunError>>) -> Result<Ran, WorkError> {
        let Self { described, blocks, partition, mut input } = self;
        let mut ran = Ran::default();
        let graph = described.graph_blocks();
        if blocks.start < graph.start {
            let (described, given) = (described.clone(), std::mem::take(&mut input));
            let (made, time) = apart(move || decode(&described, &given)).await?;
            (input, ran.ran) = (made, time);
            ran.outputs.clone_from(&input);
        }
        if let Some(partition) = partition {
            let begun = begun.unwrap_or_else(|| partition.begin(wanted(&partition, &input), None))?;
            let graph_ran = match begun.ran().await {
                Err(RunError::Failed(why)) => return Err(whose_fault(&partition, why).await.into()),
                other => other?,
            };
            ran.queued = graph_ran.queued;
            ran.ran += graph_ran.ran;
            (ran.computed, ran.items) = (graph_ran.computed, graph_ran.items);
            ran.outputs.extend(graph_ran.outputs);
        }
        if blocks.end > graph.end {
            input.extend(ran.outputs.iter().cloned());
            let (made, time) = apart(move || read(&described, &input)).await?;
            ran.ran += time;
            ran.outputs.push(made);
        }
        Ok(ran)
    }
}

/// Those tensors that a partition reads.
fn wanted(partition: &Partition, tensors: &[Tensor]) -> Vec<Tensor> {
    partition.inputs().iter().filter_map(|spec| named(tensors, &spec.name).cloned()).collect()
}

/// Whether a run failed over the values that it was given: the session then runs on others. Memory that was lacking
/// may be there the next moment, so that says nothing.
async fn whose_fault(partition: &Partition, why: String) -> RunError {
    if why.to_lowercase().contains("alloc") {
        return RunError::Failed(why);
    }
    let inputs: Result<Vec<Tensor>, _> = partition.inputs().iter().cloned().map(sample::tensor).collect();
    let Ok(inputs) = inputs else { return RunError::Failed(why) };
    match timeout(CHECK_RUN_MAX, partition.run(inputs)).await {
        Ok(Err(RunError::Failed(_))) => RunError::Failed(why),
        // A queue that is full says nothing against the host; nor does a loop that does not end on made-up values.
        _ => RunError::BadValues(why),
    }
}

/// Images that are decoded and answers that are read at once: as many as there are cores to do it, since each may take
/// hundreds of megabytes for the while.
fn places() -> &'static Semaphore {
    static PLACES: OnceLock<Semaphore> = OnceLock::new();
    PLACES.get_or_init(|| {
        Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get).min(PLACES_MAX))
    })
}

/// Runs work of milliseconds beside the async threads, once there is a place for it.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkError> + Send + 'static,
) -> Result<(T, Duration), WorkError> {
    let _place = places().acquire().await.map_err(|error| WorkError::Read(error.to_string()))?;
    let timed = move || {
        let started = Instant::now();
        work().map(|made| (made, started.elapsed()))
    };
    let done = tokio::task::spawn_blocking(timed).await;
    done.unwrap_or_else(|error| Err(WorkError::Read(error.to_string())))
}

fn decode(described: &Described, input: &[Tensor]) -> Result<Vec<Tensor>, WorkError> {
    let missing = || WorkError::Read("there is no encoded image, or no card".to_owned());
    let card = described.card.as_ref().ok_or_else(missing)?;
    let encoded = named(input, ENCODED_IMAGE).ok_or_else(missing)?;
    let specs: Vec<TensorSpec> = described.input_specs().cloned().collect();
    let (mut tensors, frame) = card.prepare(encoded.data().as_bytes(), &specs)?;
    tensors.extend(frame_tensor(&frame.to_numbers()));
    Ok(tensors)
}

fn read(described: &Described, tensors: &[Tensor]) -> Result<Tensor, WorkError> {
    let wrong = |what: &str| WorkError::Read(what.to_owned());
    let card = described.card.as_ref().ok_or_else(|| wrong("the model has no card"))?;
    let numbers = named(tensors, IMAGE_FRAME).and_then(|tensor| tensor.data().as_slice_of::<f32>());
    let frame =
        numbers.and_then(Frame::from_numbers).ok_or_else(|| wrong("the image's frame makes no sense"))?;
    let outputs: Vec<Tensor> =
        described.output_specs().filter_map(|spec| named(tensors, &spec.name).cloned()).collect();
    let meaning = card.read(&outputs, &frame).map_err(|error| wrong(&error.to_string()))?;
    meaning_tensor(&meaning).ok_or_else(|| wrong("the meaning is too long"))
}

fn meaning_tensor(meaning: &Meaning) -> Option<Tensor> {
    let text = serde_json::to_vec(meaning).ok()?;
    if text.len() as u64 > MEANING_BYTES_MAX { None } else { bytes_tensor(MEANING, &text) }
}

/// The newest tensor of a name.
fn named<'a>(tensors: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    tensors.iter().rev().find(|tensor| tensor.spec().name == name)
}
