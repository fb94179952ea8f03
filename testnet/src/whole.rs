//! A model's file in one session in this process, without a node: what it takes where nothing is
//! divided and nothing is sent.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use stormo::app::config::library_search;
use stormo::engine::{Engine, EngineConfig, Partition, PartitionSource, Ran, runtime_library};
use stormo::serve::json::TensorView;
use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use tokio::runtime::{Builder, Runtime};

use crate::history::Output;
use crate::oip::FloatTensor;

/// The loaded session.
pub struct Whole {
    runtime: Runtime,
    partition: Arc<Partition>,
}

impl Whole {
    /// Loads a file with the inputs and outputs that a node lists for the model, at the default level.
    ///
    /// # Errors
    /// When ONNX Runtime is not to be had or refuses the file.
    pub fn load(model: &Path, inputs: &[TensorView], outputs: &[TensorView]) -> Result<Self> {
        Self::load_at(OrtLevel::All, model, inputs, outputs)
    }

    /// The same at a level of optimisation.
    ///
    /// # Errors
    /// As [`Whole::load`].
    pub fn load_at(
        level: OrtLevel,
        model: &Path,
        inputs: &[TensorView],
        outputs: &[TensorView],
    ) -> Result<Self> {
        let library = runtime_library::find_or_obtain(&library_search(None), &|_| {})?;
        let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let variable = outputs.iter().filter(|output| output.is_variable).map(|output| output.name.clone());
        let source = PartitionSource {
            model: fs::read(model).with_context(|| model.display().to_string())?,
            weights: Vec::new(),
            inputs: inputs.iter().map(spec).collect::<Result<_>>()?,
            outputs: outputs.iter().map(spec).collect::<Result<_>>()?,
            level,
            batch: None,
            variable: variable.collect(),
        };
        let partition = runtime.block_on(engine.load("whole".to_owned(), source))?;
        Ok(Self { runtime, partition })
    }

    /// One run, and how long it took.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, inputs: &[FloatTensor]) -> Result<Duration> {
        Ok(self.ran(inputs)?.ran)
    }

    /// What it answers.
    ///
    /// # Errors
    /// When it fails, or answers something else than 32-bit floats.
    pub fn answer(&self, inputs: &[FloatTensor]) -> Result<Vec<FloatTensor>> {
        let outputs = self.ran(inputs)?.outputs;
        let floats = outputs.iter().map(|tensor| {
            let spec = tensor.spec();
            let data = tensor.data().as_slice_of::<f32>().filter(|_| spec.dtype == DType::F32);
            Ok(FloatTensor {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                datatype: spec.dtype.oip_name().to_owned(),
                data: data.with_context(|| format!("output `{}` is no 32-bit float", spec.name))?.to_vec(),
            })
        });
        floats.collect()
    }

    /// What it answers, of any type but texts.
    ///
    /// # Errors
    /// When it fails, or answers texts.
    pub fn outputs(&self, inputs: &[FloatTensor]) -> Result<Vec<Output>> {
        let output = |tensor: &Tensor| {
            let TensorSpec { name, dtype, shape } = tensor.spec();
            Output::from_bytes(name, *dtype, shape, tensor.data().as_bytes()).map_err(anyhow::Error::msg)
        };
        self.ran(inputs)?.outputs.iter().map(output).collect()
    }

    fn ran(&self, inputs: &[FloatTensor]) -> Result<Ran> {
        let tensors = inputs.iter().map(|input| {
            let bytes: Vec<u8> = input.data.iter().flat_map(|value| value.to_le_bytes()).collect();
            let spec = TensorSpec { name: input.name.clone(), dtype: DType::F32, shape: input.shape.clone() };
            Ok(Tensor::new(spec, TensorData::copied_from(&bytes))?)
        });
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(self.runtime.block_on(self.partition.run(tensors))?)
    }
}

fn spec(view: &TensorView) -> Result<TensorSpec> {
    let dtype = DType::from_oip_name(&view.datatype).with_context(|| format!("type {}", view.datatype))?;
    Ok(TensorSpec { name: view.name.clone(), dtype, shape: view.shape.clone() })
}
