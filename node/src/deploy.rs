//! A model's way into the mesh: scanned, run once on a sample, divided, each part measured. Runs where
//! the file is, so that no small node has to hold a large model whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::codec::encode;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{BadManifest, Manifest, ObjectRef, OrtLevel};
use stormo_protocol::tensor::{Tensor, TensorSpec};

use crate::engine::{
    self, Engine, LoadError, MeasureError, PartitionSource, ProbeError, Probed, ProfileBudget, RunError,
    Weight,
};
use crate::model::{DivideOptions, Division, Graph, InputDecl, ModelError, Skeleton, divide, extract};
use crate::sample;

/// Longest measuring of one part. Short parts get many runs, long ones a few.
const PART_TIME_MAX: Duration = Duration::from_millis(250);
/// Longest measuring of the whole model.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(2);

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
}

/// Why a model cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An open axis and no shape for it.
    #[error(
        "input `{input}` has no fixed shape ({shape}); say which one to use: --sample-shape {input}=1x3x224x224"
    )]
    OpenShape {
        /// The input.
        input: String,
        /// As the model declares it.
        shape: String,
    },
    /// A shape for an input that there is not, or one that does not fit.
    #[error("--sample-shape {input}={given:?} does not fit the model, which has {declared}")]
    Shape {
        /// The input.
        input: String,
        /// As given.
        given: Vec<u64>,
        /// What the model has.
        declared: String,
    },
    /// ONNX Runtime does not take it.
    #[error("ONNX Runtime cannot run this model: {0}")]
    Runtime(String),
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

impl From<MeasureError> for PrepareError {
    fn from(error: MeasureError) -> Self {
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
    let graph = Graph::parse(&source.bytes)?;
    let inputs = sample_inputs(&graph, &source.shapes)?;
    progress(&format!("read {} nodes; running once on a sample", graph.node_count()));
    let specs = probe(engine, &graph, &inputs, source.level).await?;
    let mut division = divide(&graph, &specs, &DivideOptions::default())?;
    let whole_us = measure_whole(engine, &graph, &division, &inputs, source.level).await?;
    let mflops = engine::calibrate(engine).await?;
    let draft = division.manifest(&source.name, &source.variant, source.level, mflops);
    draft.check()?;
    let block_us = measure_blocks(engine, &division, &draft, &inputs, progress).await?;
    division.set_times(&block_us, whole_us as f64);
    let manifest = division.manifest(&source.name, &source.variant, source.level, mflops);
    Ok(with_objects(manifest, division, whole_us))
}

fn with_objects(manifest: Manifest, division: Division, whole_us: u64) -> Prepared {
    let encoded: Arc<[u8]> = encode(&manifest).into();
    let manifest_object = ObjectRef { id: ObjectId::of(&encoded), bytes: encoded.len() as u64 };
    let mut objects = vec![(manifest_object, encoded), (manifest.skeleton, division.skeleton.into())];
    objects.extend(division.weights.into_iter().map(|(object, bytes)| (object, bytes.into())));
    Prepared { manifest, manifest_object, objects, whole_us }
}

fn declared(input: &InputDecl) -> String {
    let dims = input.dims.as_deref().map(|dims| {
        let dims: Vec<String> =
            dims.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string())).collect();
        dims.join("x")
    });
    format!("input `{}` of shape {}", input.name, dims.unwrap_or_else(|| "unknown".to_owned()))
}

/// One sample per input. A single open first axis is the batch: one image at a time.
fn sample_inputs(graph: &Graph, shapes: &HashMap<String, Vec<u64>>) -> Result<Vec<Tensor>, PrepareError> {
    if let Some((name, given)) =
        shapes.iter().find(|(name, _)| graph.inputs().iter().all(|input| input.name != **name))
    {
        let all: Vec<String> = graph.inputs().iter().map(declared).collect();
        return Err(PrepareError::Shape {
            input: name.clone(),
            given: given.clone(),
            declared: all.join(", "),
        });
    }
    graph.inputs().iter().map(|input| sample_input(input, shapes.get(&input.name))).collect()
}

fn sample_input(input: &InputDecl, given: Option<&Vec<u64>>) -> Result<Tensor, PrepareError> {
    let shape = match (given, &input.dims) {
        (Some(given), _) if input.accepts(given) => given.clone(),
        (Some(given), _) => {
            return Err(PrepareError::Shape {
                input: input.name.clone(),
                given: given.clone(),
                declared: declared(input),
            });
        }
        (None, Some(dims)) if dims.iter().skip(1).all(Option::is_some) => {
            dims.iter().map(|dim| dim.unwrap_or(1)).collect()
        }
        (None, _) => {
            return Err(PrepareError::OpenShape { input: input.name.clone(), shape: declared(input) });
        }
    };
    let spec = TensorSpec { name: input.name.clone(), dtype: input.dtype, shape };
    sample::tensor(spec).map_err(|error| PrepareError::Manifest(error.into()))
}

/// Element type and shape of every tensor, from one run with all of them as outputs.
async fn probe(
    engine: &Engine,
    graph: &Graph,
    inputs: &[Tensor],
    level: OrtLevel,
) -> Result<HashMap<String, TensorSpec>, PrepareError> {
    let probe = graph.probe_model()?;
    let found = engine.probe(probe.model, Vec::new(), inputs.to_vec(), level).await?;
    let mut specs: HashMap<String, TensorSpec> =
        inputs.iter().map(|input| (input.spec().name.clone(), input.spec().clone())).collect();
    for (name, probed) in found {
        // What no frame can carry stays inside a block.
        if let Probed::Tensor(spec) = probed {
            specs.insert(name, spec);
        }
    }
    Ok(specs)
}

async fn measure_whole(
    engine: &Engine,
    graph: &Graph,
    division: &Division,
    inputs: &[Tensor],
    level: OrtLevel,
) -> Result<u64, PrepareError> {
    let outputs = division.outputs.iter().map(|index| division.tensors[*index as usize].clone()).collect();
    let source = PartitionSource {
        model: graph.whole_model()?,
        weights: Vec::new(),
        inputs: inputs.iter().map(|input| input.spec().clone()).collect(),
        outputs,
        level,
    };
    let whole = engine.load("whole".into(), source).await?;
    let budget = ProfileBudget { warm_up_runs: 2, runs_max: 50, time_max: WHOLE_TIME_MAX };
    Ok(engine::profile(&whole, inputs, budget).await?.median_us)
}

/// Each block by itself on what the blocks before it gave.
async fn measure_blocks(
    engine: &Engine,
    division: &Division,
    manifest: &Manifest,
    inputs: &[Tensor],
    progress: &dyn Fn(&str),
) -> Result<Vec<f64>, PrepareError> {
    let skeleton = Skeleton::parse(&division.skeleton, manifest)?;
    let weights: HashMap<ObjectId, Arc<[u8]>> =
        division.weights.iter().map(|(object, bytes)| (object.id, bytes.as_slice().into())).collect();
    let mut live: HashMap<String, Tensor> =
        inputs.iter().map(|input| (input.spec().name.clone(), input.clone())).collect();
    let mut times = Vec::with_capacity(manifest.blocks.len());
    for block in 0..manifest.block_count() {
        progress(&format!("measuring block {} of {}", block + 1, manifest.block_count()));
        let part = partition_source(&skeleton, manifest, block..block + 1, |id| weights.get(&id).cloned())?;
        let part_inputs: Vec<Tensor> =
            part.inputs.iter().filter_map(|spec| live.get(&spec.name).cloned()).collect();
        let loaded = engine.load(format!("block {block}"), part).await?;
        for output in loaded.run(part_inputs.clone()).await?.outputs {
            live.insert(output.spec().name.clone(), output);
        }
        let budget = ProfileBudget { warm_up_runs: 2, runs_max: 50, time_max: PART_TIME_MAX };
        times.push(engine::profile(&loaded, &part_inputs, budget).await?.median_us as f64);
    }
    Ok(times)
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
    let part = extract(skeleton, manifest, blocks)?;
    let mut weights: Vec<Weight> = Vec::new();
    for wanted in &part.weights {
        let location = wanted.object.id.to_string();
        if weights.iter().any(|weight| weight.location == location) {
            continue;
        }
        let bytes = weight(wanted.object.id).ok_or_else(|| ModelError::Mismatch {
            what: format!("the weight `{}` is not at hand", wanted.name),
        })?;
        weights.push(Weight { location, bytes });
    }
    Ok(PartitionSource {
        model: part.model,
        weights,
        inputs: part.inputs,
        outputs: part.outputs,
        level: manifest.ort_level,
    })
}
