//! The speed of this machine at each class of work, by a small graph of each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::model::OrtLevel;
use stormo_protocol::profile::{Speeds, WorkClass};
use stormo_protocol::tensor::{BadTensor, DType, Tensor, TensorData, TensorSpec};

use super::tiny_onnx::{self, ExternalWeight, Node};
use super::{Engine, LoadError, Partition, PartitionSource, RunError, Weight};

/// Height and width of the images.
const SIDE: u64 = 56;
/// Height and width of the filters.
const KERNEL: u64 = 3;
/// Channels of the convolutions: as in the middle of a small detector.
const CHANNELS: u64 = 32;
/// Channels of the convolution of each channel by itself, and of the image that is only passed through.
const SEPARATE_CHANNELS: u64 = 128;
/// Rows of the product's left factor.
const ROWS: u64 = 64;
/// Columns of the left factor; rows and columns of the right one.
const COLUMNS: u64 = 512;

/// Runs of each graph before the first that counts.
const WARM_UP_RUNS: usize = 2;
/// Runs of each graph that count, at most. A run takes 0.1 to 0.5 ms on a server's core.
const RUNS_MAX: usize = 60;
/// No further round is begun after this time: a small board needs 30 ms for a run.
const TIME_MAX: Duration = Duration::from_millis(400);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// A graph does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A run gave no result.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A graph's own tensor is none.
    #[error(transparent)]
    Tensor(#[from] BadTensor),
}

/// A graph that does one class of work, loaded.
struct Loaded {
    partition: Arc<Partition>,
    input: Tensor,
    amount: u64,
    times: Vec<Duration>,
}

/// Runs all graphs in turns, so that what else the machine does slows them alike.
///
/// # Errors
/// When this ONNX Runtime cannot even run these.
pub async fn calibrate(engine: &Engine) -> Result<Speeds, CalibrateError> {
    let mut graphs = Vec::with_capacity(WorkClass::COUNT);
    for class in WorkClass::ALL {
        let graph = Graph::of(class);
        let input = Tensor::new(graph.input.clone(), TensorData::copied_from(&ones(&graph.input)))?;
        let amount = graph.amount;
        let partition = engine.load(format!("calibrate {}", class.name()), graph.source()).await?;
        graphs.push(Loaded { partition, input, amount, times: Vec::with_capacity(RUNS_MAX) });
    }
    let start = Instant::now();
    for round in 0..WARM_UP_RUNS + RUNS_MAX {
        if round > WARM_UP_RUNS && start.elapsed() > TIME_MAX {
            break;
        }
        for graph in &mut graphs {
            let computed = graph.partition.run(vec![graph.input.clone()]).await?.computed;
            if round >= WARM_UP_RUNS {
                graph.times.push(computed);
            }
        }
    }
    let mut speeds = graphs.iter_mut().map(Loaded::millions_per_second);
    Ok(Speeds::new(std::array::from_fn(|_| speeds.next().unwrap_or(f64::NAN))))
}

impl Loaded {
    /// By the lower quartile of the times: what disturbs a run only makes it longer.
    fn millions_per_second(&mut self) -> f64 {
        self.times.sort_unstable();
        let time = self.times.get(self.times.len() / 4).copied().unwrap_or_default();
        self.amount as f64 / 1e6 / time.as_secs_f64()
    }
}

/// A graph of one node.
struct Graph {
    op: &'static str,
    ints: &'static [(&'static str, &'static [u64])],
    int: Option<(&'static str, u64)>,
    input: TensorSpec,
    /// Constants, in the order in which the node reads them behind its input.
    constants: Vec<TensorSpec>,
    output: TensorSpec,
    /// Operations, or bytes, of a run.
    amount: u64,
}

impl Graph {
    fn of(class: WorkClass) -> Self {
        const FILTERED: &[(&str, &[u64])] = &[("pads", &[1, 1, 1, 1]), ("kernel_shape", &[KERNEL, KERNEL])];
        let image = |name, dtype, channels| tiny_onnx::spec(name, dtype, &[1, channels, SIDE, SIDE]);
        let filters = |dtype, count, depth| tiny_onnx::spec("w", dtype, &[count, depth, KERNEL, KERNEL]);
        let filtering = |channels, depth| 2 * channels * depth * KERNEL * KERNEL * SIDE * SIDE;
        let convolution = Self {
            op: "Conv",
            ints: FILTERED,
            int: None,
            input: image("x", DType::F32, CHANNELS),
            constants: vec![filters(DType::F32, CHANNELS, CHANNELS)],
            output: image("y", DType::F32, CHANNELS),
            amount: filtering(CHANNELS, CHANNELS),
        };
        match class {
            WorkClass::Convolution => convolution,
            WorkClass::Depthwise => Self {
                int: Some(("group", SEPARATE_CHANNELS)),
                input: image("x", DType::F32, SEPARATE_CHANNELS),
                constants: vec![filters(DType::F32, SEPARATE_CHANNELS, 1)],
                output: image("y", DType::F32, SEPARATE_CHANNELS),
                amount: filtering(SEPARATE_CHANNELS, 1),
                ..convolution
            },
            WorkClass::Matrix => Self {
                op: "MatMul",
                ints: &[],
                input: tiny_onnx::spec("x", DType::F32, &[ROWS, COLUMNS]),
                constants: vec![tiny_onnx::spec("w", DType::F32, &[COLUMNS, COLUMNS])],
                output: tiny_onnx::spec("y", DType::F32, &[ROWS, COLUMNS]),
                amount: 2 * ROWS * COLUMNS * COLUMNS,
                ..convolution
            },
            WorkClass::Integer => {
                let scalar = |name, dtype| tiny_onnx::spec(name, dtype, &[]);
                Self {
                    op: "QLinearConv",
                    input: image("x", DType::U8, CHANNELS),
                    constants: vec![
                        scalar("x_scale", DType::F32),
                        scalar("x_zero", DType::U8),
                        filters(DType::I8, CHANNELS, CHANNELS),
                        scalar("w_scale", DType::F32),
                        scalar("w_zero", DType::I8),
                        scalar("y_scale", DType::F32),
                        scalar("y_zero", DType::U8),
                    ],
                    output: image("y", DType::U8, CHANNELS),
                    ..convolution
                }
            }
            WorkClass::Memory => {
                let input = image("x", DType::F32, SEPARATE_CHANNELS);
                let amount = 2 * input.shape.iter().product::<u64>() * size_of::<f32>() as u64;
                let output = image("y", DType::F32, SEPARATE_CHANNELS);
                Self { op: "Relu", ints: &[], input, constants: vec![], output, amount, ..convolution }
            }
        }
    }

    fn source(self) -> PartitionSource {
        let names = std::iter::once(&self.input).chain(&self.constants).map(|spec| spec.name.as_str());
        let names: Vec<&str> = names.collect();
        let node = Node {
            op: self.op,
            inputs: &names,
            outputs: &[&self.output.name],
            ints: self.ints,
            int: self.int,
        };
        let constants: Vec<ExternalWeight<'_>> =
            self.constants.iter().map(|spec| ExternalWeight { spec, location: &spec.name }).collect();
        let (inputs, outputs) = (vec![self.input.clone()], vec![self.output.clone()]);
        let model = tiny_onnx::model(&[node], &constants, &inputs, &outputs);
        let weight = |spec: &TensorSpec| Weight { location: spec.name.clone(), bytes: ones(spec).into() };
        let weights = self.constants.iter().map(weight).collect();
        PartitionSource {
            model,
            weights,
            inputs,
            outputs,
            level: OrtLevel::All,
            batch: None,
            variable: Vec::new(),
        }
    }
}

/// Ones, as many as a tensor has elements. Products stay numbers of ordinary size.
fn ones(spec: &TensorSpec) -> Vec<u8> {
    let one: &[u8] = match spec.dtype {
        DType::F32 => &1.0f32.to_ne_bytes(),
        _ => &[1],
    };
    one.repeat(spec.shape.iter().product::<u64>() as usize)
}
