//! Measures the time of a partition, warm. In processor time, so that what else the machine does at the
//! moment does not count as the partition's own.

use std::time::{Duration, Instant};

use stormo_protocol::tensor::Tensor;

use super::{Partition, RunError};

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

/// Runs a partition again and again on the same inputs, among whatever else the node does: the times of
/// the runs in microseconds, the shortest first; at least one.
///
/// # Errors
/// That of the first run that fails.
pub async fn profile(
    partition: &Partition,
    inputs: &[Tensor],
    budget: ProfileBudget,
) -> Result<Vec<u64>, RunError> {
    for _ in 0..budget.warm_up_runs {
        partition.run(inputs.to_vec()).await?;
    }
    let start = Instant::now();
    let mut times_us = Vec::new();
    while times_us.is_empty()
        || (times_us.len() < budget.runs_max as usize && start.elapsed() < budget.time_max)
    {
        let computed = partition.run_between(inputs.to_vec()).await?.computed;
        times_us.push(u64::try_from(computed.as_micros()).unwrap_or(u64::MAX));
    }
    times_us.sort_unstable();
    Ok(times_us)
}
