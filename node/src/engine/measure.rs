//! Measures: the time of a partition, warm; and the speed of this machine by a small convolution.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::model::OrtLevel;
use stormo_protocol::tensor::{DType, Tensor, TensorData};

use super::tiny_onnx::{self, ExternalWeight, Node};
use super::{Engine, LoadError, Partition, PartitionSource, RunError, Weight};

/// How much measuring is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileBudget {
    /// Runs before the first that counts: caches, the arena and the clock of the core warm up.
    pub warm_up_runs: u32,
    /// At least one is measured, at most these.
    pub runs_max: u32,
    /// No further run is begun after this time.
    pub time_max: Duration,
}

/// Times of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Half of the runs were faster, microseconds.
    pub median_us: u64,
    /// Nine in ten were faster, microseconds.
    pub p90_us: u64,
    /// Runs measured.
    pub runs: u32,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The calibration graph does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A run gave no result.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Another time than zero is needed to divide by.
    #[error("the clock stood still")]
    Clock,
}

/// Runs a partition again and again on the same inputs, among whatever else the node does.
///
/// # Errors
/// That of the first run that fails.
pub async fn profile(
    partition: &Partition,
    inputs: &[Tensor],
    budget: ProfileBudget,
) -> Result<Profile, RunError> {
    for _ in 0..budget.warm_up_runs {
        partition.run(inputs.to_vec()).await?;
    }
    let start = Instant::now();
    let mut times_us = Vec::new();
    while times_us.is_empty()
        || (times_us.len() < budget.runs_max as usize && start.elapsed() < budget.time_max)
    {
        let ran = partition.run(inputs.to_vec()).await?.ran;
        times_us.push(u64::try_from(ran.as_micros()).unwrap_or(u64::MAX));
    }
    times_us.sort_unstable();
    let at = |share: usize| times_us[(times_us.len() * share / 100).min(times_us.len() - 1)];
    Ok(Profile { median_us: at(50), p90_us: at(90), runs: times_us.len() as u32 })
}

/// Channels of the calibration graph, in and out: as in the middle of a small detector.
const CHANNELS: u64 = 32;
/// Height and width of its image.
const SIDE: u64 = 56;
/// Height and width of its filters.
const KERNEL: u64 = 3;
/// Multiply-adds times two of one run.
const FLOPS: u64 = 2 * CHANNELS * CHANNELS * KERNEL * KERNEL * SIDE * SIDE;
/// A run takes 0.3 ms on a server's core with AVX-512 and some 30 ms on a small board's: enough runs
/// for a median on the one, and an end in sight on the other.
const BUDGET: ProfileBudget =
    ProfileBudget { warm_up_runs: 2, runs_max: 200, time_max: Duration::from_millis(50) };

/// Speed of one core of this machine, in millions of floating-point operations a second, by one
/// 3x3 convolution over 32 channels: the kind of work that vision models spend their time on.
///
/// # Errors
/// When this ONNX Runtime cannot even run that.
pub async fn calibrate(engine: &Engine) -> Result<f64, MeasureError> {
    let input = tiny_onnx::spec("x", DType::F32, &[1, CHANNELS, SIDE, SIDE]);
    let output = tiny_onnx::spec("y", DType::F32, &[1, CHANNELS, SIDE, SIDE]);
    let filters = tiny_onnx::spec("w", DType::F32, &[CHANNELS, CHANNELS, KERNEL, KERNEL]);
    let node = Node {
        op: "Conv",
        inputs: &["x", "w"],
        outputs: &["y"],
        ints: &[("pads", &[1, 1, 1, 1]), ("kernel_shape", &[KERNEL, KERNEL])],
    };
    let weight = ExternalWeight { spec: &filters, location: "w" };
    let (inputs, outputs) = (vec![input.clone()], vec![output]);
    let model = tiny_onnx::model(&[node], &[weight], &inputs, &outputs);
    let bytes = constant_bytes(CHANNELS * CHANNELS * KERNEL * KERNEL, 0.01).into();
    let weights = vec![Weight { location: "w".into(), bytes }];
    let source = PartitionSource { model, weights, inputs, outputs, level: OrtLevel::All, batch: None };
    let partition: Arc<Partition> = engine.load("calibration".into(), source).await?;
    let image = TensorData::copied_from(&constant_bytes(CHANNELS * SIDE * SIDE, 1.0));
    let image = Tensor::new(input, image).map_err(|error| RunError::WrongInputs(error.to_string()))?;
    let profile = profile(&partition, &[image], BUDGET).await?;
    match profile.median_us {
        0 => Err(MeasureError::Clock),
        // Operations a microsecond are millions of operations a second.
        median_us => Ok(FLOPS as f64 / median_us as f64),
    }
}

fn constant_bytes(elements: u64, value: f32) -> Vec<u8> {
    value.to_ne_bytes().repeat(elements as usize)
}
