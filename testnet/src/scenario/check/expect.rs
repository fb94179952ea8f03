//! What must hold.

use toml::Spanned;

use super::super::entries::ExpectEntry;
use super::super::{Expectations, Scheduled};
use super::{Wrong, micros, within_if};

/// Times and growths that are asked for stay below this.
const FIGURE_MAX: f64 = 1e9;
/// What is demanded after faults without being asked for: seconds until all is well again.
const PROGRESS_WITHIN_S: f64 = 5.0;
/// Likewise, of each request.
const PROGRESS_LATENCY_MS: f64 = 5000.0;

pub(super) fn read(entry: &ExpectEntry, faults: &[Scheduled]) -> Result<Expectations, Wrong> {
    let share = |field: &str, value: &Option<Spanned<f64>>| within_if(field, value.as_ref(), 0.0, 1.0);
    let figure =
        |field: &str, value: &Option<Spanned<f64>>| within_if(field, value.as_ref(), 0.0, FIGURE_MAX);
    let seconds = |field: &str, value: &Option<Spanned<f64>>| {
        Ok::<_, Wrong>(figure(field, value)?.map(|seconds| seconds * 1000.0))
    };
    let has_faults = !faults.is_empty();
    let after_faults = |given: Option<f64>, default: f64| given.or(has_faults.then_some(default));
    Ok(Expectations {
        lost_max: entry.lost_max.unwrap_or(0),
        wrong_max: entry.wrong_max.unwrap_or(0),
        answered_twice_max: entry.answered_twice_max.unwrap_or(0),
        failed_share_max: share("failed_share_max", &entry.failed_share_max)?.unwrap_or(0.0),
        rejected_share_max: share("rejected_share_max", &entry.rejected_share_max)?.unwrap_or(0.0),
        unknown_share_max: share("unknown_share_max", &entry.unknown_share_max)?.unwrap_or(0.0),
        answers_min: entry.answers_min.unwrap_or(1),
        p50_ms_max: figure("p50_ms_max", &entry.p50_ms_max)?,
        p99_ms_max: figure("p99_ms_max", &entry.p99_ms_max)?,
        added_p99_ms_max: figure("added_p99_ms_max", &entry.added_p99_ms_max)?,
        affected_min: entry.affected_min.unwrap_or(1),
        progress_within_ms: after_faults(
            seconds("progress_within_s", &entry.progress_within_s)?,
            PROGRESS_WITHIN_S * 1000.0,
        ),
        progress_latency_ms_max: after_faults(
            figure("progress_latency_ms_max", &entry.progress_latency_ms_max)?,
            PROGRESS_LATENCY_MS,
        ),
        left_out_within_ms: seconds("left_out_within_s", &entry.left_out_within_s)?,
        back_within_ms: seconds("back_within_s", &entry.back_within_s)?,
        restored_within_ms: seconds("restored_within_s", &entry.restored_within_s)?,
        formed_within_ms: seconds("formed_within_s", &entry.formed_within_s)?,
        own_memory_mib_max: figure("own_memory_mib_max", &entry.own_memory_mib_max)?,
        avoided_within_ms: seconds("avoided_within_s", &entry.avoided_within_s)?,
        false_losses_max: entry.false_losses_max,
        goodput_share_min: share("goodput_share_min", &entry.goodput_share_min)?,
        reject_within_ms_max: figure("reject_within_ms_max", &entry.reject_within_ms_max)?,
        divided_share_min: share("divided_share_min", &entry.divided_share_min)?,
        memory_growth_mib_per_h_max: figure(
            "memory_growth_mib_per_h_max",
            &entry.memory_growth_mib_per_h_max,
        )?,
        descriptors_growth_max: entry.descriptors_growth_max,
        threads_growth_max: entry.threads_growth_max,
        warm_up_us: micros(figure("warm_up_s", &entry.warm_up_s)?.unwrap_or(0.0)),
        generator_share_max: figure("generator_share_max", &entry.generator_share_max)?,
    })
}
