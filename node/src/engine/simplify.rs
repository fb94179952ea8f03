//! Has ONNX Runtime do the rewriting that needs no kernels of its own (constants computed, additions
//! and factors folded into convolutions) and gives the model as it is then.

use std::path::Path;

use ort::session::builder::GraphOptimizationLevel;

use super::partition::STACK_BYTES;
use super::served::caught;
use super::session::{LoadError, options_at, refused};
use super::{Engine, Shared, memory};

/// Why a model could not be simplified.
#[derive(Debug, thiserror::Error)]
pub enum SimplifyError {
    /// ONNX Runtime does not take it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The result goes through a file.
    #[error("the simplified model could not be kept in the folder for temporary files: {0}")]
    Temporary(#[from] std::io::Error),
}

impl Engine {
    /// The model, simplified. It must hold all its weights.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the model, or the disk for temporary files is full.
    pub async fn simplify(&self, model: Vec<u8>) -> Result<Vec<u8>, SimplifyError> {
        let shared = self.shared.clone();
        let (reply, answer) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("simplify".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let one_at_a_time = shared.building.acquire();
                let simplified = caught(|| simplified(&shared, &model));
                memory::give_back_freed();
                drop(one_at_a_time);
                // A caller that gave up meanwhile needs no answer.
                let _ = reply.send(simplified.unwrap_or(Err(LoadError::BrokeDown.into())));
            })
            .map_err(LoadError::Thread)?;
        answer.await.unwrap_or(Err(LoadError::BrokeDown.into()))
    }
}

fn simplified(shared: &Shared, model: &[u8]) -> Result<Vec<u8>, SimplifyError> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("simplified.onnx");
    write_simplified(shared, model, &path)?;
    Ok(std::fs::read(path)?)
}

fn write_simplified(shared: &Shared, model: &[u8], path: &Path) -> Result<(), LoadError> {
    // The level that leaves plain ONNX; those above put in operators of ONNX Runtime's own.
    let builder =
        options_at(&shared.environment, GraphOptimizationLevel::Level1).map_err(|error| refused(&error))?;
    let mut builder =
        builder.with_optimized_model_path(path).map_err(|error| LoadError::Refused(error.to_string()))?;
    builder.commit_from_memory(model).map_err(|error| refused(&error)).map(drop)
}
