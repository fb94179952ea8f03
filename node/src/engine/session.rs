//! Builds sessions: their options, weights in memory or in a folder, and the comparison with what was declared.

use std::path::PathBuf;
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep;
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, ValueType};
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::TensorSpec;

use super::values::{bounded, dtype_of};

/// Bytes of one initialiser, or of several, that a model refers to as external data.
#[derive(Debug, Clone)]
pub struct Weight {
    /// The `location` that the model's `external_data` entries name; offsets count from its start.
    pub location: String,
    /// The bytes. ONNX Runtime copies what it needs, so they are not held once a session is built.
    pub bytes: Arc<[u8]>,
}

/// Where the weights are that a model refers to.
#[derive(Debug)]
pub(super) enum Weights {
    /// All here.
    InMemory(Vec<Weight>),
    /// Files in this folder, under their locations.
    InFolder(PathBuf),
}

/// The option by which ONNX Runtime looks for external data of a model in memory in a folder, and nowhere else: absolute
/// names, names that lead out of it and symbolic links that do are refused.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Name of a file in memory that no model refers to. As soon as one such file is given, ONNX Runtime
/// takes external data from memory only; so with this one, no model can make it read this disk.
const NO_FILE: &str = "stormo/none";

/// Why a session could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// ONNX Runtime's own words: no ONNX, an operator it lacks, shapes that do not fit.
    #[error("ONNX Runtime refuses the model: {0}")]
    Refused(String),
    /// Inputs or outputs are not those that were declared.
    #[error("the model does not have the inputs and outputs that were declared: {0}")]
    Declaration(String),
    /// ONNX Runtime takes names of folders in UTF-8 only.
    #[error(
        "the path of the node's folder is no UTF-8, so ONNX Runtime cannot read weights there: choose another --data"
    )]
    FolderName,
    /// The system gave no thread.
    #[error("no thread for the partition (free memory, or raise the limit of threads): {0}")]
    Thread(std::io::Error),
    /// ONNX Runtime, or its binding, broke down over this model.
    #[error("building the session broke down; the model cannot be used here")]
    BrokeDown,
}

/// A session as every partition has it: one thread that never spins, so that `permits` times one
/// thread is all that a node computes with.
pub(super) fn build(
    environment: &Environment,
    model: &[u8],
    weights: Weights,
    level: OrtLevel,
) -> Result<Session, LoadError> {
    let builder = options(environment, level).map_err(|error| refused(&error))?;
    let builder = match weights {
        Weights::InMemory(weights) => with_memory(builder, weights),
        Weights::InFolder(folder) => {
            let folder = folder.into_os_string().into_string().map_err(|_| LoadError::FolderName)?;
            builder
                .with_config_entry(WEIGHTS_FOLDER, folder)
                .map_err(|error| LoadError::Refused(bounded(error.message())))
        }
    };
    builder?.commit_from_memory(model).map_err(|error| refused(&error))
}

fn with_memory(mut builder: SessionBuilder, weights: Vec<Weight>) -> Result<SessionBuilder, LoadError> {
    let nothing = Weight { location: NO_FILE.into(), bytes: Arc::from([0u8]) };
    for weight in weights.into_iter().chain([nothing]) {
        // Not as single external initialisers: those stay in memory beside the packed copies that
        // ONNX Runtime makes of them (measured on one 64 MB matrix: 137 MB instead of 73).
        builder = builder
            .with_external_initializer_file_in_memory(&weight.location, weight.bytes)
            .map_err(|error| LoadError::Refused(bounded(error.message())))?;
    }
    Ok(builder)
}

pub(super) fn refused(error: &ort::Error) -> LoadError {
    LoadError::Refused(bounded(error.message()))
}

fn options(environment: &Environment, level: OrtLevel) -> Result<SessionBuilder, ort::Error> {
    let level = match level {
        OrtLevel::Off => GraphOptimizationLevel::Disable,
        OrtLevel::Basic => GraphOptimizationLevel::Level1,
        OrtLevel::Extended => GraphOptimizationLevel::Level2,
        OrtLevel::All => GraphOptimizationLevel::All,
    };
    options_at(environment, level)
}

pub(super) fn options_at(
    environment: &Environment,
    level: GraphOptimizationLevel,
) -> Result<SessionBuilder, ort::Error> {
    // The arena keeps a session's activations between runs (SqueezeNet: 8 MB). Without it glibc kept
    // more (15 to 22 MB), and with glibc told to keep nothing each run took 25 to 50 % longer.
    let cpu = ep::CPU::default().with_arena_allocator(true).build();
    Ok(Session::builder(environment)?
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_execution_providers([cpu])?
        .with_optimization_level(level)?
        .with_parallel_execution(false)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_memory_pattern(true)?)
}

/// Compares a session's own inputs and outputs with the declared ones: same names, element types and
/// ranks, and the same dimensions where the session fixes them.
pub(super) fn compare(
    session: &Session,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Result<(), LoadError> {
    for (kind, outlets, specs) in
        [("input", session.inputs(), inputs), ("output", session.outputs(), outputs)]
    {
        for spec in specs {
            let Some(outlet) = outlets.iter().find(|outlet| outlet.name() == spec.name) else {
                return Err(LoadError::Declaration(format!("there is no {kind} `{}`", spec.name)));
            };
            if !fits(outlet, spec) {
                let declared = format!("{} {:?}", spec.dtype.oip_name(), spec.shape);
                let text = format!("{kind} `{}` is {}, not {declared}", spec.name, outlet.dtype());
                return Err(LoadError::Declaration(bounded(&text)));
            }
        }
        if let Some(outlet) =
            outlets.iter().find(|outlet| specs.iter().all(|spec| spec.name != outlet.name()))
        {
            return Err(LoadError::Declaration(bounded(&format!("{kind} `{}` is missing", outlet.name()))));
        }
    }
    Ok(())
}

fn fits(outlet: &Outlet, spec: &TensorSpec) -> bool {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else { return false };
    // An output may have no known rank at all before the first run; ONNX Runtime then gives rank 0.
    let rank_unknown = shape.is_empty();
    let dimensions_fit = shape.len() == spec.shape.len()
        && shape.iter().zip(&spec.shape).all(|(known, declared)| {
            // A negative dimension is one that the model leaves open.
            u64::try_from(*known).map_or(true, |known| known == *declared)
        });
    dtype_of(*ty) == Some(spec.dtype) && (rank_unknown || dimensions_fit)
}
