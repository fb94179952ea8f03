//! Runs a model once and tells what every output is: how the divider learns the element types and
//! shapes of activations. Gives no data.

use std::sync::Arc;

use ort::session::{NoSelectedOutputs, RunOptions, Session};
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{Tensor, TensorSpec};
use tokio::sync::oneshot;

use super::ending::{EndRun, Ending};
use super::partition::STACK_BYTES;
use super::served::caught;
use super::session::{self, LoadError, Weight, Weights};
use super::values::{self, bounded};
use super::{Engine, memory};

/// What an output of a probed model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// A tensor that may cross between nodes.
    Tensor(TensorSpec),
    /// Something else, in words: a sequence, complex numbers, a name or rank beyond the limits.
    Unsupported(String),
}

/// Why a model could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No session could be built.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It does not run on these inputs.
    #[error("the model does not run on the sample input: {0}")]
    Run(String),
}

impl Engine {
    /// Runs a model once on these inputs; every output by name, in the model's order. Dropping the
    /// future ends the run. All outputs are in memory at once meanwhile.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the model or the inputs.
    pub async fn probe(
        &self,
        model: Vec<u8>,
        weights: Vec<Weight>,
        inputs: Vec<Tensor>,
        level: OrtLevel,
    ) -> Result<Vec<(String, Probed)>, ProbeError> {
        let shared = self.shared.clone();
        let (reply, answer) = oneshot::channel();
        let ending = Ending::new().map_err(|error| ProbeError::Run(bounded(error.message())))?;
        let ending = Arc::new(ending);
        let _end_run = EndRun(ending.clone());
        let counted = shared.count_session();
        std::thread::Builder::new()
            .name("probe".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _counted = counted;
                let one_at_a_time = shared.building.acquire();
                if !reply.is_closed() {
                    let weights = Weights::InMemory(weights);
                    let probed = caught(|| {
                        let mut session = session::build(&shared.environment, &model, weights, level)?;
                        run_once(&mut session, &inputs, ending.options())
                    });
                    memory::give_back_freed();
                    // A caller that gave up meanwhile needs no answer.
                    let _ = reply.send(probed.unwrap_or(Err(LoadError::BrokeDown.into())));
                }
                drop(one_at_a_time);
            })
            .map_err(LoadError::Thread)?;
        answer.await.unwrap_or(Err(LoadError::BrokeDown.into()))
    }
}

fn run_once(
    session: &mut Session,
    inputs: &[Tensor],
    options: &RunOptions<NoSelectedOutputs>,
) -> Result<Vec<(String, Probed)>, ProbeError> {
    let mut input_values = Vec::with_capacity(inputs.len());
    for tensor in inputs {
        let value = values::input_value(tensor).map_err(|error| ProbeError::Run(error.to_string()))?;
        input_values.push((tensor.spec().name.as_str(), value));
    }
    let failed = |error: ort::Error| ProbeError::Run(bounded(error.message()));
    let outputs = session.run_with_options(input_values, options).map_err(failed)?;
    let probed = outputs.iter().map(|(name, value)| {
        let probed = match values::spec_of(name, &value) {
            Ok(spec) => Probed::Tensor(spec),
            Err(error) => Probed::Unsupported(error.to_string()),
        };
        (name.to_owned(), probed)
    });
    Ok(probed.collect())
}
