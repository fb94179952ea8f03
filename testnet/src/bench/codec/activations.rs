//! Real activations: a model divided as for deployment, and run up to a cut.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use stormo::app::config::library_search;
use stormo::deploy::partition_source;
use stormo::engine::{Engine, EngineConfig, Partition, Probed, runtime_library};
use stormo::model::{DivideOptions, Graph, Skeleton, divide};
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Manifest, OrtLevel};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use stormo_testnet::oip::FloatTensor;
use tokio::runtime::{Builder, Runtime};

/// Cuts measured of each model: the thinnest of each quarter of its work.
const QUARTERS: u64 = 4;

/// ONNX Runtime, and what waits for it.
pub(super) struct Opened {
    engine: Engine,
    runtime: Runtime,
}

impl Opened {
    pub(super) fn new() -> Result<Self> {
        let library = runtime_library::find_or_obtain(&library_search(None), &|text| note!("{text}"))?;
        let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })?;
        Ok(Self { engine, runtime: Builder::new_current_thread().enable_all().build()? })
    }
}

/// The tensor of an array.
pub(super) fn tensor(array: &FloatTensor) -> Result<Tensor> {
    let data: Vec<u8> = array.data.iter().flat_map(|number| number.to_le_bytes()).collect();
    let spec = TensorSpec { name: array.name.clone(), dtype: DType::F32, shape: array.shape.clone() };
    Ok(Tensor::new(spec, TensorData::copied_from(&data))?)
}

/// A divided model and its inputs.
pub(super) struct Divided<'a> {
    opened: &'a Opened,
    pub(super) manifest: Manifest,
    skeleton: Skeleton,
    weights: HashMap<ObjectId, Arc<[u8]>>,
    samples: Vec<Tensors>,
}

/// Tensors by name.
pub(super) type Tensors = HashMap<String, Tensor>;

/// What crosses a cut, for each sample, and the two parts beside it.
pub(super) struct Crossed {
    pub(super) samples: Vec<Tensors>,
    pub(super) behind: Arc<Partition>,
}

impl Crossed {
    /// What crosses in the first sample.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.samples.first().into_iter().flat_map(HashMap::values)
    }
}

impl<'a> Divided<'a> {
    /// Divides a model. A nameless input is the model's only one.
    pub(super) fn of(opened: &'a Opened, name: &str, file: &[u8], samples: Vec<Vec<Tensor>>) -> Result<Self> {
        let graph = Graph::parse(file)?;
        let only = graph.inputs().first().context("the model has no input")?.name.clone();
        let samples: Vec<Tensors> =
            samples.into_iter().map(|inputs| named(inputs, &only)).collect::<Result<_>>()?;
        let first: Vec<Tensor> = samples.first().context("no input is at hand")?.values().cloned().collect();
        let mut specs: HashMap<String, TensorSpec> =
            first.iter().map(|input| (input.spec().name.clone(), input.spec().clone())).collect();
        let probe = graph.probe_model()?;
        let probing = opened.engine.probe(probe.model, Vec::new(), first, OrtLevel::All);
        for (name, probed) in opened.runtime.block_on(probing)? {
            if let Probed::Tensor(spec) = probed {
                specs.insert(name, spec);
            }
        }
        let division = divide(&graph, &specs, &DivideOptions::default())?;
        let manifest = division.manifest(name, "base", OrtLevel::All);
        let skeleton = Skeleton::parse(&division.skeleton, &manifest)?;
        let weights = division.weights.into_iter().map(|(object, bytes)| (object.id, bytes.into())).collect();
        Ok(Self { opened, manifest, skeleton, weights, samples })
    }

    /// The thinnest cut of each quarter of the work, ends excepted.
    pub(super) fn cuts(&self) -> Vec<u16> {
        let quarter = |cut: &u16| self.work_before(*cut).0 * QUARTERS / self.work_before(*cut).1.max(1);
        let inner: Vec<u16> = (1..self.manifest.block_count()).collect();
        let of_quarter = |wanted| {
            let cuts = inner.iter().copied().filter(|cut| quarter(cut) == wanted);
            cuts.min_by_key(|cut| self.manifest.cut_bytes(*cut))
        };
        (0..QUARTERS).filter_map(of_quarter).collect()
    }

    /// Floating-point operations before a cut, and of the whole model.
    pub(super) fn work_before(&self, cut: u16) -> (u64, u64) {
        let flops = |blocks: &[stormo_protocol::model::Block]| blocks.iter().map(|block| block.flops).sum();
        (flops(&self.manifest.blocks[..usize::from(cut)]), flops(&self.manifest.blocks))
    }

    /// Runs all samples up to a cut.
    pub(super) fn cross(&self, cut: u16) -> Result<Crossed> {
        let before = self.load(0..cut)?;
        let behind = self.load(cut..self.manifest.block_count())?;
        let samples = self.samples.iter().map(|inputs| -> Result<Tensors> {
            let mut tensors = inputs.clone();
            tensors.extend(self.run(&before, inputs)?);
            let crossing = self.manifest.cut_specs(cut).map(|spec| {
                let tensor = tensors.remove(&spec.name);
                anyhow::Ok((spec.name.clone(), tensor.with_context(|| format!("no tensor `{}`", spec.name))?))
            });
            crossing.collect()
        });
        Ok(Crossed { samples: samples.collect::<Result<_>>()?, behind })
    }

    fn load(&self, blocks: Range<u16>) -> Result<Arc<Partition>> {
        let weight = |id| self.weights.get(&id).cloned();
        let source = partition_source(&self.skeleton, &self.manifest, blocks, weight)?;
        Ok(self.opened.runtime.block_on(self.opened.engine.load("bench".into(), source))?)
    }

    /// What a part makes of these.
    pub(super) fn run(&self, part: &Partition, tensors: &Tensors) -> Result<Tensors> {
        let inputs = part.inputs().iter().filter_map(|spec| tensors.get(&spec.name).cloned()).collect();
        let ran = self.opened.runtime.block_on(part.run(inputs))?;
        Ok(ran.outputs.into_iter().map(|tensor| (tensor.spec().name.clone(), tensor)).collect())
    }
}

fn named(inputs: Vec<Tensor>, only: &str) -> Result<Tensors> {
    let named = inputs.into_iter().map(|input| {
        let (mut spec, data) = input.into_parts();
        if spec.name.is_empty() {
            only.clone_into(&mut spec.name);
        }
        anyhow::Ok((spec.name.clone(), Tensor::new(spec, data)?))
    });
    let tensors: Tensors = named.collect::<Result<_>>()?;
    if tensors.is_empty() { bail!("no input is at hand") } else { Ok(tensors) }
}
