//! A network divided, and run whole or in parts, all in this process.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use half::f16;
use stormo::app::config::library_search;
use stormo::deploy::partition_source;
use stormo::engine::{Engine, EngineConfig, PartitionSource, Probed, runtime_library};
use stormo::model::{DivideOptions, Graph, Skeleton, divide};
use stormo::sample;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Manifest, OrtLevel};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use stormo_testnet::{arrays, trial};
use tokio::runtime::{Builder, Runtime};

use crate::models::Model;

/// Tensors by name.
pub(crate) type Tensors = HashMap<String, Tensor>;

/// A divided network, its sample input, and what runs it.
pub(crate) struct Divided {
    runtime: Runtime,
    engine: Engine,
    file: Vec<u8>,
    /// The network with all that may cross a cut among its outputs; if all that is tensors.
    open: Option<(Vec<u8>, Vec<TensorSpec>)>,
    manifest: Manifest,
    skeleton: Skeleton,
    weights: HashMap<ObjectId, Arc<[u8]>>,
    inputs: Tensors,
}

impl Divided {
    /// Reads and divides a model.
    pub(crate) fn of(model: &Model) -> Result<Self> {
        let library = runtime_library::find_or_obtain(&library_search(None), &|_| {})?;
        let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let file = fs::read(&model.file).with_context(|| model.file.display().to_string())?;
        let started = Instant::now();
        let mut graph = Graph::parse(&file)?;
        let parsed = started.elapsed();
        let inputs = inputs(&graph, model)?;
        let given: Vec<Tensor> = inputs.values().cloned().collect();
        let open = graph.probe_model()?.model;
        let probed = runtime.block_on(engine.probe(open.clone(), Vec::new(), given, OrtLevel::Off))?;
        let count = probed.len();
        let tensors = probed.into_iter().filter_map(|(_, probed)| match probed {
            Probed::Tensor(spec) => Some(spec),
            Probed::Unsupported(_) => None,
        });
        let tensors: Vec<TensorSpec> = tensors.collect();
        let specs = inputs.values().map(Tensor::spec).chain(&tensors);
        let sizes = specs.map(|spec| (spec.name.clone(), spec.clone())).collect::<HashMap<_, _>>();
        let open = (tensors.len() == count).then_some((open, tensors));
        let started = Instant::now();
        graph.fix_shapes(&sizes)?;
        let division = divide(&graph, &sizes, &DivideOptions::default())?;
        trial::told(&format!(
            "{}: {} nodes parsed in {:.3} s, divided in {:.3} s{}",
            model.name,
            graph.node_count(),
            parsed.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            if cfg!(debug_assertions) { " by an unoptimised build" } else { "" }
        ));
        let manifest = division.manifest("model", "base", OrtLevel::Off);
        manifest.check()?;
        let skeleton = Skeleton::parse(&division.skeleton, &manifest)?;
        let weights = division.weights.into_iter().map(|(object, bytes)| (object.id, bytes.into())).collect();
        Ok(Self { runtime, engine, file, open, manifest, skeleton, weights, inputs })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the network gives in one piece: unoptimised, with all that it computes on the way; else only
    /// its outputs, since what is asked for is not fused.
    pub(crate) fn whole(&self, level: OrtLevel) -> Result<Tensors> {
        let (model, outputs) = match (&self.open, level) {
            (Some((open, outputs)), OrtLevel::Off) => (open, outputs.clone()),
            _ => (&self.file, self.manifest.output_specs().cloned().collect()),
        };
        let inputs = self.manifest.input_specs().cloned().collect();
        let mut tensors = self.inputs.clone();
        let (model, weights, batch, variable) = (model.clone(), Vec::new(), None, Vec::new());
        self.run(PartitionSource { model, weights, inputs, outputs, level, batch, variable }, &mut tensors)?;
        Ok(tensors)
    }

    /// Runs the parts between these cuts, only what crosses travelling and settled outputs kept. `look` sees
    /// what is there at each cut behind a part.
    pub(crate) fn chain(
        &self,
        bounds: &[u16],
        level: OrtLevel,
        mut look: impl FnMut(u16, &Tensors) -> Result<()>,
    ) -> Result<()> {
        let mut tensors = self.inputs.clone();
        for (first, end) in bounds.iter().zip(&bounds[1..]) {
            self.run(self.part(*first..*end, level)?, &mut tensors)?;
            let there: Vec<u32> = self.manifest.cuts[usize::from(*end)].there().collect();
            tensors = self.named(&tensors, &there);
            look(*end, &tensors)?;
        }
        Ok(())
    }

    /// Runs all blocks, those of parallel regions branch by branch, each on what it reads alone.
    pub(crate) fn branch_by_branch(&self, level: OrtLevel) -> Result<Tensors> {
        let manifest = &self.manifest;
        let mut tensors = self.inputs.clone();
        let mut block = 0;
        while block < manifest.block_count() {
            let region = manifest.regions.iter().find(|region| region.branches[0].first == block);
            let end = match region.and_then(|region| region.branches.last()) {
                Some(last) => last.end,
                None => block + 1,
            };
            let mut made = tensors.clone();
            for branch in region.map(|region| region.branches.as_slice()).unwrap_or_default() {
                let mut apart = self.named(&tensors, &branch.reads);
                self.run(self.part(branch.first..branch.end, level)?, &mut apart)?;
                made.extend(self.named(&apart, &manifest.made_by(branch.first..branch.end)));
            }
            if region.is_none() {
                self.run(self.part(block..end, level)?, &mut made)?;
            }
            let there: Vec<u32> = manifest.cuts[usize::from(end)].there().collect();
            tensors = self.named(&made, &there);
            block = end;
        }
        Ok(tensors)
    }

    fn named(&self, tensors: &Tensors, wanted: &[u32]) -> Tensors {
        let names = wanted.iter().map(|tensor| &self.manifest.tensors[*tensor as usize].name);
        names.filter_map(|name| Some((name.clone(), tensors.get(name)?.clone()))).collect()
    }

    fn part(&self, blocks: Range<u16>, level: OrtLevel) -> Result<PartitionSource> {
        let weight = |id| self.weights.get(&id).cloned();
        let manifest = Manifest { ort_level: level, ..self.manifest.clone() };
        Ok(partition_source(&self.skeleton, &manifest, blocks, weight)?)
    }

    fn run(&self, source: PartitionSource, tensors: &mut Tensors) -> Result<()> {
        let given = |spec: &TensorSpec| tensors.get(&spec.name).cloned();
        let inputs: Vec<Tensor> = source.inputs.iter().filter_map(given).collect();
        let ran = self.runtime.block_on(async {
            let partition = self.engine.load("part".to_owned(), source).await?;
            anyhow::Ok(partition.run(inputs).await?)
        })?;
        tensors.extend(ran.outputs.into_iter().map(|tensor| (tensor.spec().name.clone(), tensor)));
        Ok(())
    }
}

/// The golden inputs where there are some, else made-up ones.
fn inputs(graph: &Graph, model: &Model) -> Result<Tensors> {
    let golden = match &model.golden {
        Some(path) => arrays::read_golden(path)?.inputs,
        None => Vec::new(),
    };
    let tensor = |input: &stormo::model::InputDecl| {
        let dims = input.dims.iter().flatten().map(|dim| dim.unwrap_or(1));
        let spec = TensorSpec { name: input.name.clone(), dtype: input.dtype, shape: dims.collect() };
        match golden.iter().find(|given| given.name == input.name) {
            Some(given) => {
                let bytes: Vec<u8> = match input.dtype {
                    DType::F16 => {
                        given.data.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
                    }
                    _ => given.data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                };
                anyhow::Ok((input.name.clone(), Tensor::new(spec, TensorData::copied_from(&bytes))?))
            }
            None if input.dtype == DType::Text => {
                let texts: Vec<String> = (0..spec.elements()?).map(|index| index.to_string()).collect();
                let data = TensorData::of_texts(texts.iter().map(String::as_str))?;
                Ok((input.name.clone(), Tensor::new(spec, data)?))
            }
            None => Ok((input.name.clone(), sample::tensor(spec)?)),
        }
    };
    graph.inputs().iter().map(tensor).collect()
}

/// 0 when every bit is the same; else the largest difference relative to the largest element.
pub(crate) fn relative_difference(expected: &Tensor, got: &Tensor) -> Result<f64> {
    ensure!(expected.spec() == got.spec(), "{:?} instead of {:?}", got.spec(), expected.spec());
    if expected.data() == got.data() {
        return Ok(0.0);
    }
    let (Some(expected), Some(got)) = (numbers(expected), numbers(got)) else { return Ok(f64::INFINITY) };
    let largest = expected.iter().map(|value| value.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let apart = expected.iter().zip(&got).map(|(a, b)| (a - b).abs());
    // `f64::max` passes over what is not a number, which here is the largest difference of all.
    let apart = apart.map(|apart| if apart.is_nan() { f64::INFINITY } else { apart });
    Ok(apart.fold(f64::MIN_POSITIVE, f64::max) / largest)
}

/// Floating-point elements; whatever else must agree bit by bit.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.spec().dtype {
        DType::F32 => {
            Some(tensor.data().as_slice_of::<f32>()?.iter().map(|value| f64::from(*value)).collect())
        }
        DType::F16 => {
            let elements = tensor.data().as_bytes().chunks_exact(2);
            Some(elements.map(|bits| f16::from_le_bytes([bits[0], bits[1]]).to_f64()).collect())
        }
        _ => None,
    }
}
