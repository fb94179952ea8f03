//! The same models in this one process, through the node's own library: what a mesh's answers are
//! compared with. Errors are `anyhow`'s: whoever calls can only report them.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use stormo::app::config::library_search;
use stormo::deploy::{self, Prepared, Source};
use stormo::engine::{Engine, EngineConfig, PartitionSource, runtime_library};
use stormo::model::Skeleton;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Manifest, OrtLevel};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use tokio::runtime::{Builder, Runtime};

use crate::oip::FloatTensor;

/// A model, whole and divided, in this process.
pub struct Reference {
    runtime: Runtime,
    engine: Engine,
    file: Vec<u8>,
    prepared: Prepared,
}

impl Reference {
    /// Reads a model and divides it as `stormo deploy` does.
    ///
    /// # Errors
    /// When ONNX Runtime is not to be had, or the model cannot be used.
    pub fn of(name: &str, model: &Path, level: OrtLevel) -> Result<Self> {
        Self::within(deploy::RUN_MAX, name, model, level)
    }

    /// The same with another bound of the time of a run.
    ///
    /// # Errors
    /// Likewise.
    pub fn within(run_max: Duration, name: &str, model: &Path, level: OrtLevel) -> Result<Self> {
        let library = runtime_library::find_or_obtain(&library_search(None), &|_| {})?;
        let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let file = fs::read(model).with_context(|| model.display().to_string())?;
        let source = Source {
            bytes: file.clone(),
            name: name.to_owned(),
            variant: "base".to_owned(),
            level,
            shapes: HashMap::new(),
            card: None,
            samples: Vec::new(),
            run_max,
        };
        let prepared = runtime.block_on(deploy::prepare(&engine, source, &|_| {}))?;
        Ok(Self { runtime, engine, file, prepared })
    }

    /// How it is divided.
    pub fn manifest(&self) -> &Manifest {
        &self.prepared.manifest
    }

    /// What it is stored as, by name.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &[u8])> {
        self.prepared.objects.iter().map(|(object, bytes)| (object.id, bytes.as_ref()))
    }

    /// The answer of the file as it is, in one session.
    ///
    /// # Errors
    /// When the model does not load or run.
    pub fn whole(&self, inputs: &[FloatTensor]) -> Result<Vec<FloatTensor>> {
        let manifest = self.manifest();
        let source = PartitionSource {
            model: self.file.clone(),
            weights: Vec::new(),
            inputs: manifest.input_specs().cloned().collect(),
            outputs: manifest.output_specs().cloned().collect(),
            level: manifest.ort_level,
            batch: deploy::open_batch(manifest, ends_that(manifest, Manifest::is_batched)),
            variable: ends_that(manifest, Manifest::is_variable),
        };
        let mut tensors = by_name(inputs)?;
        self.run(source, &mut tensors)?;
        self.outputs(&tensors)
    }

    /// The answer of these parts, one session after the other.
    ///
    /// # Errors
    /// When one does not load or run.
    pub fn parts(&self, blocks: &[[u16; 2]], inputs: &[FloatTensor]) -> Result<Vec<FloatTensor>> {
        let manifest = self.manifest();
        let objects: HashMap<ObjectId, Arc<[u8]>> =
            self.prepared.objects.iter().map(|(object, bytes)| (object.id, bytes.clone())).collect();
        let skeleton = objects.get(&manifest.skeleton.id).context("the skeleton is there")?;
        let skeleton = Skeleton::parse(skeleton, manifest)?;
        let mut tensors = by_name(inputs)?;
        for [first, end] in blocks {
            let weight = |id| objects.get(&id).cloned();
            let source = deploy::partition_source(&skeleton, manifest, *first..*end, weight)?;
            self.run(source, &mut tensors)?;
        }
        self.outputs(&tensors)
    }

    fn run(&self, source: PartitionSource, tensors: &mut HashMap<String, Tensor>) -> Result<()> {
        let inputs: Vec<Tensor> =
            source.inputs.iter().filter_map(|spec| tensors.get(&spec.name).cloned()).collect();
        let ran = self.runtime.block_on(async {
            let partition = self.engine.load("reference".to_owned(), source).await?;
            anyhow::Ok(partition.run(inputs).await?)
        })?;
        tensors.extend(ran.outputs.into_iter().map(|tensor| (tensor.spec().name.clone(), tensor)));
        Ok(())
    }

    fn outputs(&self, tensors: &HashMap<String, Tensor>) -> Result<Vec<FloatTensor>> {
        let outputs = self.manifest().output_specs().map(|spec| {
            let tensor = tensors.get(&spec.name).with_context(|| format!("no output `{}`", spec.name))?;
            let data = tensor.data().as_slice_of::<f32>().context("outputs are 32-bit floats")?.to_vec();
            let datatype = spec.dtype.oip_name().to_owned();
            let shape = tensor.spec().shape.clone();
            Ok(FloatTensor { name: spec.name.clone(), shape, datatype, data })
        });
        outputs.collect()
    }
}

/// Names of those inputs and outputs that are so.
fn ends_that(manifest: &Manifest, is_so: impl Fn(&Manifest, u32) -> bool) -> Vec<String> {
    let ends = manifest.inputs.iter().chain(&manifest.outputs).filter(|tensor| is_so(manifest, **tensor));
    ends.map(|tensor| manifest.tensors[*tensor as usize].name.clone()).collect()
}

fn by_name(inputs: &[FloatTensor]) -> Result<HashMap<String, Tensor>> {
    let tensor = |input: &FloatTensor| {
        let bytes: Vec<u8> = input.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        let spec = TensorSpec { name: input.name.clone(), dtype: DType::F32, shape: input.shape.clone() };
        Ok((input.name.clone(), Tensor::new(spec, TensorData::copied_from(&bytes))?))
    };
    inputs.iter().map(tensor).collect()
}
