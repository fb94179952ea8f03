//! ONNX Runtime: the only room that names it. Finds its library, opens it once, and runs partitions
//! on threads of their own. Which partition is loaded when, and where requests go, is decided elsewhere.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ort::environment::Environment;
use ort::logging::LogLevel;
use tokio::sync::watch;

mod batch;
mod calibrate;
mod ending;
mod measure;
mod memory;
mod partition;
mod permits;
mod pip;
mod probe;
pub mod runtime_library;
mod served;
mod session;
mod simplify;
mod telemetry;
mod thread_time;
mod tiny_onnx;
mod together;
mod values;

pub use batch::OpenBatch;
pub use calibrate::{CalibrateError, calibrate};
pub use measure::{ProfileBudget, profile};
pub use partition::{AtOnce, Partition, PartitionSource, QUEUE_JOBS_MIN, Ran, RunError, Running};
pub use probe::{ProbeError, Probed};
pub use session::{LoadError, Weight};
pub use simplify::SimplifyError;
pub use telemetry::forbid_telemetry;

use permits::Permits;
use runtime_library::{OLDEST_VERSION, Version};
use served::caught;

/// What the engine is opened with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The library, as [`runtime_library::find_or_obtain`] gives it.
    pub library: PathBuf,
    /// Sessions that may compute at once; the cores that a node may use.
    pub permits: NonZeroUsize,
    /// Jobs of several callers for the same partition run together where its first axis is open, the first of them waiting
    /// so long for others; never, if `None`.
    pub batch_within: Option<Duration>,
}

/// Why ONNX Runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file cannot be loaded: another machine's, damaged, or something else.
    #[error(
        "ONNX Runtime could not be loaded from {path}: {text}\n\
         Set ORT_DYLIB_PATH to a libonnxruntime of version {OLDEST_VERSION} or newer for this machine."
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's own words.
        text: String,
    },
    /// The version is too old.
    #[error(
        "{path} is ONNX Runtime {version}; version {OLDEST_VERSION} or newer is needed. Set ORT_DYLIB_PATH to one."
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// The library is loaded once per process, and that was another one.
    #[error("this process already runs ONNX Runtime from {0}")]
    OtherLibrary(PathBuf),
}

/// ONNX Runtime, opened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What the engine and the threads of its partitions use together.
#[derive(Debug)]
struct Shared {
    environment: Environment,
    version: Option<Version>,
    permits: Permits,
    building: Permits,
    batch_within: Option<Duration>,
    sessions: watch::Sender<usize>,
}

impl Shared {
    fn count_session(self: &Arc<Self>) -> CountedSession {
        self.sessions.send_modify(|count| *count += 1);
        CountedSession(self.clone())
    }
}

/// Counts a session for as long as its thread may hold memory.
struct CountedSession(Arc<Shared>);

impl Drop for CountedSession {
    fn drop(&mut self) {
        self.0.sessions.send_modify(|count| *count -= 1);
    }
}

impl Engine {
    /// Loads the library and makes the environment. Blocks for some 20 ms; call it once, at start.
    /// Further engines in the same process share the library and have permits of their own.
    ///
    /// # Errors
    /// When the file is no ONNX Runtime that runs here.
    pub fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        let opened = environment(&config.library)?;
        let shared = Shared {
            environment: opened.environment,
            version: opened.version,
            permits: Permits::new(config.permits.get()),
            building: Permits::new(1),
            batch_within: config.batch_within,
            sessions: watch::Sender::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Loads a partition; `label` names its thread and appears in logs. The async caller only waits.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the model, or it is not what was declared.
    pub async fn load(&self, label: String, source: PartitionSource) -> Result<Arc<Partition>, LoadError> {
        Partition::load(self.shared.clone(), label, source, None).await.map(Arc::new)
    }

    /// The same with the weights in files under their locations, in a folder in which nothing else is; those in `source` are
    /// left out. ONNX Runtime maps the files, so that no weight is in memory twice, and reads on where it makes no copy in a
    /// form of its own: what is in a file must not change as long as the partition lives. The folder may go once it is loaded.
    ///
    /// # Errors
    /// Likewise.
    pub async fn load_beside(
        &self,
        label: String,
        source: PartitionSource,
        folder: &Path,
    ) -> Result<Arc<Partition>, LoadError> {
        Partition::load(self.shared.clone(), label, source, Some(folder.to_owned())).await.map(Arc::new)
    }

    /// The version of ONNX Runtime; `None` when the library's file does not tell.
    pub fn version(&self) -> Option<Version> {
        self.shared.version
    }

    /// How many sessions there are, those being built and freed included: when the count falls, their
    /// memory is free.
    pub fn sessions(&self) -> watch::Receiver<usize> {
        self.shared.sessions.subscribe()
    }
}

#[derive(Clone)]
struct Opened {
    library: PathBuf,
    version: Option<Version>,
    environment: Environment,
}

/// ONNX Runtime allows one environment per process, so it is kept for the process's life.
static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

fn environment(library: &Path) -> Result<Opened, EngineError> {
    let version = runtime_library::version_of(library);
    if let Some(version) = version.filter(|version| *version < OLDEST_VERSION) {
        return Err(EngineError::TooOld { path: library.to_owned(), version });
    }
    let mut slot = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(opened) = slot.as_ref() {
        return match opened.library == library {
            true => Ok(opened.clone()),
            false => Err(EngineError::OtherLibrary(opened.library.clone())),
        };
    }
    let environment = caught(|| new_environment(library))
        .unwrap_or_else(|| Err("it does not offer the interface that is needed".into()))
        .map_err(|text| EngineError::Load { path: library.to_owned(), text: values::bounded(&text) })?;
    let opened = Opened { library: library.to_owned(), version, environment };
    *slot = Some(opened.clone());
    Ok(opened)
}

fn new_environment(library: &Path) -> Result<Environment, String> {
    let environment = ort::init_from(library)
        .map_err(|error| loader_text(&error))?
        .with_name("stormo")
        .with_telemetry(false)
        .with_logger(Arc::new(|level, _category, _id, _location, text| log(level, text)))
        .build()
        .map_err(|error| error.to_string())?;
    // The binding starts at the most verbose level, which formats a line per node and run.
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// The binding's error leaves out what the system's loader said.
fn loader_text(error: &ort::LoadDynamicError) -> String {
    let source = match error {
        ort::LoadDynamicError::Dlopen { error, .. } => std::error::Error::source(error),
        _ => None,
    };
    source.map_or_else(|| error.to_string(), |source| source.to_string())
}

/// ONNX Runtime's log in ours, a step lower: what it calls an error is, here, a model that a user or a
/// peer sent, and is answered to them; its warnings are about a model's style.
fn log(level: LogLevel, text: &str) {
    let text = values::bounded(text);
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", "{text}"),
        LogLevel::Error => tracing::info!(target: "onnxruntime", "{text}"),
        LogLevel::Warning | LogLevel::Info | LogLevel::Verbose => {
            tracing::debug!(target: "onnxruntime", "{text}");
        }
    }
}

#[cfg(test)]
pub(crate) mod for_tests;
#[cfg(test)]
mod tests;
