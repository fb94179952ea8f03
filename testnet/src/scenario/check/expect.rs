//! What must hold: each bound within what can be, and none that no run could keep. What only the faults that are
//! scheduled cannot show is told by `shown`.

use toml::Spanned;

use super::super::entries::ExpectEntry;
use super::super::{Expectations, LoadSpec, Pace, Rate, Scheduled};
use super::{Around, Wrong, micros, within_if};

/// Times and growths that are asked for stay below this.
const FIGURE_MAX: f64 = 1e6;
/// What is demanded after faults without being asked for: seconds until all is well again.
const PROGRESS_WITHIN_S: f64 = 5.0;
/// Likewise, of each request.
const PROGRESS_LATENCY_MS: f64 = 5000.0;
/// How far a number of random arrivals strays from its mean at most, standard deviations of a Poisson process.
const POISSON_DEVIATIONS: f64 = 6.0;

pub(super) fn read(
    around: &Around,
    entry: &Spanned<ExpectEntry>,
    loads: &[LoadSpec],
    faults: &[Scheduled],
) -> Result<Expectations, Wrong> {
    let span = entry.span();
    let entry = entry.get_ref();
    contradictions(around, entry, loads)?;
    toothless(entry, loads)?;
    let count = |value: &Option<Spanned<u64>>| value.as_ref().map(|count| *count.get_ref());
    let share = |field: &str, value: &Option<Spanned<f64>>| within_if(field, value.as_ref(), 0.0, 1.0);
    let figure =
        |field: &str, value: &Option<Spanned<f64>>| within_if(field, value.as_ref(), 0.0, FIGURE_MAX);
    // Nothing takes no time and no memory.
    let above = |field: &str, value: &Option<Spanned<f64>>| match value {
        Some(none) if *none.get_ref() == 0.0 => Err(Wrong::at(
            &none.span(),
            format!("`{field}` is 0, which nothing keeps; leave it out, or give more"),
        )),
        value => figure(field, value),
    };
    let seconds = |value: Option<f64>| value.map(|seconds| seconds * 1000.0);
    let progress_s = figure("progress_within_s", &entry.progress_within_s)?;
    let progress_ms = above("progress_latency_ms_max", &entry.progress_latency_ms_max)?;
    let has_progress = !faults.is_empty() || progress_s.is_some() || progress_ms.is_some();
    let or_default = |given: Option<f64>, default: f64| has_progress.then(|| given.unwrap_or(default));
    let warm_up_s = figure("warm_up_s", &entry.warm_up_s)?.unwrap_or(0.0);
    Ok(Expectations {
        at: span.start,
        lost_max: count(&entry.lost_max).unwrap_or(0),
        wrong_max: count(&entry.wrong_max).unwrap_or(0),
        answered_twice_max: count(&entry.answered_twice_max).unwrap_or(0),
        failed_share_max: share("failed_share_max", &entry.failed_share_max)?.unwrap_or(0.0),
        rejected_share_max: share("rejected_share_max", &entry.rejected_share_max)?.unwrap_or(0.0),
        unknown_share_max: share("unknown_share_max", &entry.unknown_share_max)?.unwrap_or(0.0),
        answers_min: entry.answers_min.as_ref().map_or(1, |answers| *answers.get_ref()),
        p50_ms_max: above("p50_ms_max", &entry.p50_ms_max)?,
        p99_ms_max: above("p99_ms_max", &entry.p99_ms_max)?,
        added_p99_ms_max: figure("added_p99_ms_max", &entry.added_p99_ms_max)?,
        affected_min: count(&entry.affected_min),
        progress_within_ms: seconds(or_default(progress_s, PROGRESS_WITHIN_S)),
        progress_latency_ms_max: or_default(progress_ms, PROGRESS_LATENCY_MS),
        left_out_within_ms: seconds(above("left_out_within_s", &entry.left_out_within_s)?),
        back_within_ms: seconds(above("back_within_s", &entry.back_within_s)?),
        restored_within_ms: seconds(above("restored_within_s", &entry.restored_within_s)?),
        formed_within_ms: seconds(above("formed_within_s", &entry.formed_within_s)?),
        own_memory_mib_max: above("own_memory_mib_max", &entry.own_memory_mib_max)?,
        avoided_within_ms: seconds(figure("avoided_within_s", &entry.avoided_within_s)?),
        false_losses_max: entry.false_losses_max,
        healthy_left_out_ms_max: seconds(figure("healthy_left_out_s_max", &entry.healthy_left_out_s_max)?),
        goodput_share_min: share("goodput_share_min", &entry.goodput_share_min)?,
        reject_within_ms_max: above("reject_within_ms_max", &entry.reject_within_ms_max)?,
        divided_share_min: share("divided_share_min", &entry.divided_share_min)?,
        memory_growth_mib_per_h_max: figure(
            "memory_growth_mib_per_h_max",
            &entry.memory_growth_mib_per_h_max,
        )?,
        descriptors_growth_max: entry.descriptors_growth_max,
        threads_growth_max: entry.threads_growth_max,
        warm_up_us: micros(warm_up_s),
        generator_share_max: above("generator_share_max", &entry.generator_share_max)?,
    })
}

/// What contradicts itself, or what the loads can send.
fn contradictions(around: &Around, entry: &ExpectEntry, loads: &[LoadSpec]) -> Result<(), Wrong> {
    let none_rejected = entry.rejected_share_max.as_ref().is_none_or(|share| *share.get_ref() == 0.0);
    if let Some(within) = entry.reject_within_ms_max.as_ref().filter(|_| none_rejected) {
        let message =
            "`reject_within_ms_max` wants refusals, and `rejected_share_max` (0) none: give that, too";
        return Err(Wrong::at(&within.span(), message));
    }
    if let Some(goodput) = &entry.goodput_share_min
        && (0.0..=1.0).contains(goodput.get_ref())
        && loads.iter().any(|load| matches!(load.pace, Pace::Closed { .. }))
    {
        let message = "`goodput_share_min` is a share of what is sent: with `clients`, who send as they are answered, it would \
                       always hold; give `rate_per_s` or `capacity_share`";
        return Err(Wrong::at(&goodput.span(), message));
    }
    let sent_max = loads.iter().map(sent_max).sum::<Option<f64>>();
    if let (Some(answers), Some(sent)) = (&entry.answers_min, sent_max)
        && *answers.get_ref() as f64 > sent
    {
        let message =
            format!("`answers_min` is {}; the loads send {sent:.0} requests at most", answers.get_ref());
        return Err(Wrong::at(&answers.span(), message));
    }
    let has_growth = entry.memory_growth_mib_per_h_max.is_some()
        || entry.descriptors_growth_max.is_some()
        || entry.threads_growth_max.is_some();
    match &entry.warm_up_s {
        Some(warm_up) if !has_growth => {
            let message = "`warm_up_s` is for `memory_growth_mib_per_h_max`, `descriptors_growth_max` and \
                           `threads_growth_max`; none is given";
            Err(Wrong::at(&warm_up.span(), message))
        }
        Some(warm_up) if warm_up.get_ref() * 1e6 >= around.duration_us as f64 => {
            let message = format!(
                "`warm_up_s` is {}; nothing is left of the scenario's {} s to look at growth",
                warm_up.get_ref(),
                around.duration_us as f64 / 1e6
            );
            Err(Wrong::at(&warm_up.span(), message))
        }
        _ => Ok(()),
    }
}

/// Bounds that no run could miss: whoever writes one means something else.
fn toothless(entry: &ExpectEntry, loads: &[LoadSpec]) -> Result<(), Wrong> {
    let sent_max = loads.iter().map(sent_max).sum::<Option<f64>>().unwrap_or(FIGURE_MAX);
    let counts = [
        ("lost_max", &entry.lost_max),
        ("wrong_max", &entry.wrong_max),
        ("answered_twice_max", &entry.answered_twice_max),
    ];
    let mut counts = counts.into_iter().filter_map(|(field, value)| Some((field, value.as_ref()?)));
    if let Some((field, most)) = counts.find(|(_, most)| *most.get_ref() as f64 >= sent_max) {
        let message = format!(
            "`{field}` is {}, which always holds: the loads send {sent_max:.0} requests at most; give less",
            most.get_ref()
        );
        return Err(Wrong::at(&most.span(), message));
    }
    let shares = [
        ("failed_share_max", &entry.failed_share_max, 1.0, "less"),
        ("rejected_share_max", &entry.rejected_share_max, 1.0, "less"),
        ("unknown_share_max", &entry.unknown_share_max, 1.0, "less"),
        ("goodput_share_min", &entry.goodput_share_min, 0.0, "more, or leave it out"),
        ("divided_share_min", &entry.divided_share_min, 0.0, "more, or leave it out"),
    ];
    let shares =
        shares.into_iter().filter_map(|(field, value, all, more)| Some((field, value.as_ref()?, all, more)));
    for (field, share, all, more) in shares {
        if *share.get_ref() == all {
            return Err(Wrong::at(
                &share.span(),
                format!("`{field}` is {all}, which always holds; give {more}"),
            ));
        }
    }
    for (field, least) in [("affected_min", &entry.affected_min), ("answers_min", &entry.answers_min)] {
        if let Some(none) = least.as_ref().filter(|least| *least.get_ref() == 0) {
            let message = format!("`{field}` is 0, which always holds; give more, or leave it out");
            return Err(Wrong::at(&none.span(), message));
        }
    }
    Ok(())
}

/// Requests that a load can send at most; `None` where that depends on the answers.
fn sent_max(load: &LoadSpec) -> Option<f64> {
    let Pace::Open { rate: Rate::PerSecond(per_s), is_poisson } = load.pace else { return None };
    let mean = per_s * (load.until_us - load.from_us) as f64 / 1e6;
    Some((mean + if is_poisson { POISSON_DEVIATIONS * mean.sqrt() } else { 0.0 }).ceil())
}
