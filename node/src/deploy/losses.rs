//! What rounding a cut costs the answers: the rest of the graph is run on what a codec leaves of real
//! samples, and its meaning compared with that of the unrounded run. Which cuts are worth it is decided
//! before, by what they would take.

use std::time::{Duration, Instant};

use stormo_protocol::codec::payload::{Codec, CodedTensor, Scratch};
use stormo_protocol::model::{CodecFigures, Manifest};
use stormo_protocol::tensor::Tensor;

use super::PrepareError;
use super::divided::{Divided, Tensors, by_name, run};
use crate::card::{Agreement, Card, Frame, Meaning, ReadError};
use crate::engine::Partition;
use crate::sample::Sample;

/// Samples that losses are measured on; one answer of 16 is 6 % of them.
pub const SAMPLES_MAX: usize = 16;
/// Time for loading the parts behind cuts and for coding.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Time for running them, in runs of the whole model.
const WHOLE_RUNS_MAX: u32 = 200;
/// And not longer than this.
const RUN_TIME_MAX: Duration = Duration::from_secs(10);
/// But so long at least: a small model's cuts are all measured, however its few runs were timed.
const RUN_TIME_MIN: Duration = Duration::from_secs(1);
/// What crosses the cuts of all samples is in memory at once, bytes.
const CROSSING_BYTES_MAX: u64 = 512 << 20;
/// Codecs whose loss is that of all forms of them: how they are packed loses nothing.
const ROUNDING: [Codec; 2] = [Codec::F16, Codec::Int8];
/// The work is looked at in so many parts: plans want cuts in each.
const DEPTHS: u64 = 8;

/// An image as a card makes it an input, and how.
pub(super) struct Shown {
    inputs: Tensors,
    frame: Frame,
}

impl Shown {
    /// A sample that came through a card; what the answers to others mean cannot be said.
    pub(super) fn of(sample: &Sample) -> Option<Self> {
        Some(Self { inputs: by_name(sample.inputs.iter().cloned()), frame: sample.frame? })
    }
}

/// What the whole model took here.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeTimes {
    pub(super) load: Duration,
    pub(super) run: Duration,
}

impl WholeTimes {
    fn time_for_runs(self) -> Duration {
        self.run.saturating_mul(WHOLE_RUNS_MAX).clamp(RUN_TIME_MIN, RUN_TIME_MAX)
    }
}

/// Cuts whose losses are measured in time, in the order in which they matter: the thinnest of each part of
/// the work, then the next.
pub(super) fn worthwhile(manifest: &Manifest, cuts: &[u16], samples: usize, whole: WholeTimes) -> Vec<u16> {
    let graph = manifest.graph_blocks();
    let time_ns = |from: u16, to: u16| -> u64 {
        let blocks = &manifest.blocks[usize::from(from)..usize::from(to)];
        blocks.iter().map(|block| block.time_ns).sum()
    };
    let all_ns = time_ns(graph.start, graph.end).max(1);
    let mut cuts: Vec<u16> = cuts.to_vec();
    cuts.sort_by_key(|cut| manifest.cut_bytes(*cut));
    let mut places = [0u32; DEPTHS as usize + 1];
    let mut ranked: Vec<(u32, u16)> = Vec::new();
    for cut in cuts {
        let place = &mut places[(time_ns(graph.start, cut) * DEPTHS / all_ns).min(DEPTHS) as usize];
        ranked.push((*place, cut));
        *place += 1;
    }
    ranked.sort_by_key(|(place, _)| *place);
    let mut load_left = TIME_MAX;
    let mut run_left = whole.time_for_runs();
    let mut bytes_left = CROSSING_BYTES_MAX;
    let is_in_time = |(_, cut): &(u32, u16)| {
        let rest = time_ns(*cut, graph.end) as f64 / all_ns as f64;
        let load = whole.load.mul_f64(rest);
        let run = whole.run.mul_f64(rest).saturating_mul((samples * ROUNDING.len()) as u32);
        let bytes = manifest.cut_bytes(*cut).saturating_mul(samples as u64);
        let lefts = (load_left.checked_sub(load), run_left.checked_sub(run), bytes_left.checked_sub(bytes));
        let (Some(load), Some(run), Some(bytes)) = lefts else { return false };
        (load_left, run_left, bytes_left) = (load, run, bytes);
        true
    };
    ranked.into_iter().filter(is_in_time).map(|(_, cut)| cut).collect()
}

/// What rounding costs at a cut.
pub(super) struct CutLoss {
    pub(super) cut: u16,
    /// By each of [`ROUNDING`]; `None` where the samples' answers state nothing.
    pub(super) lost: [Option<f64>; ROUNDING.len()],
}

/// The losses at these cuts, in their order; fewer if time runs out all the same.
pub(super) async fn measure(
    divided: &Divided<'_>,
    cuts: &[u16],
    card: &Card,
    samples: &[Shown],
    time_max: Duration,
) -> Result<Vec<CutLoss>, PrepareError> {
    let started = Instant::now();
    let open = divided.load_open(cuts).await?;
    let mut runs = Vec::with_capacity(samples.len());
    for sample in samples {
        let tensors = run(&open, &sample.inputs).await?;
        runs.push(Reference { meaning: meaning(divided, card, &tensors, &sample.frame)?, tensors, sample });
    }
    drop(open);
    let mut losses = Vec::new();
    for cut in cuts {
        if started.elapsed() > time_max {
            break;
        }
        losses.push(CutLoss { cut: *cut, lost: at_cut(divided, *cut, card, &runs).await? });
    }
    Ok(losses)
}

/// What [`measure`] may take for cuts that were found worthwhile: twice what was expected.
pub(super) fn time_max(whole: WholeTimes) -> Duration {
    2 * (TIME_MAX + whole.time_for_runs())
}

/// A sample's unrounded run.
struct Reference<'a> {
    sample: &'a Shown,
    tensors: Tensors,
    meaning: Meaning,
}

async fn at_cut(
    divided: &Divided<'_>,
    cut: u16,
    card: &Card,
    runs: &[Reference<'_>],
) -> Result<[Option<f64>; ROUNDING.len()], PrepareError> {
    let end = divided.manifest.graph_blocks().end;
    let behind = if cut < end { Some(divided.load(cut..end).await?) } else { None };
    let mut lost = [None; ROUNDING.len()];
    for (codec, lost) in ROUNDING.into_iter().zip(&mut lost) {
        let mut agreement = Agreement::default();
        for reference in runs {
            let rounded = rounded_run(divided, cut, codec, behind.as_deref(), reference).await?;
            let meaning = meaning(divided, card, &rounded, &reference.sample.frame)?;
            agreement = agreement.and(Agreement::of(&reference.meaning, &meaning));
        }
        *lost = agreement.share().map(|same| 1.0 - same);
    }
    Ok(lost)
}

/// All tensors once those of a cut were coded and decoded, and the part behind it has run on them.
async fn rounded_run(
    divided: &Divided<'_>,
    cut: u16,
    codec: Codec,
    behind: Option<&Partition>,
    reference: &Reference<'_>,
) -> Result<Tensors, PrepareError> {
    let mut scratch = Scratch::default();
    let crossing = divided.manifest.cut_specs(cut).filter_map(|spec| reference.tensors.get(&spec.name));
    let round = |tensor: &Tensor| CodedTensor::encode(codec, tensor, &mut scratch).decode(&mut scratch);
    let rounded: Result<Vec<Tensor>, _> = crossing.map(round).collect();
    let rounded = rounded.map_err(|error| PrepareError::Runtime(error.to_string()))?;
    let rounded = by_name(rounded);
    match behind {
        Some(behind) => run(behind, &rounded).await,
        None => Ok(rounded),
    }
}

/// What the outputs mean. Where classes have scores that are no numbers, there is no likeliest.
fn meaning(
    divided: &Divided<'_>,
    card: &Card,
    tensors: &Tensors,
    frame: &Frame,
) -> Result<Meaning, PrepareError> {
    let outputs = divided.manifest.output_specs().filter_map(|spec| tensors.get(&spec.name).cloned());
    match card.read(&outputs.collect::<Vec<_>>(), frame) {
        Err(ReadError::NotFinite(_)) => Ok(Meaning::Classes(Vec::new())),
        read => Ok(read.map_err(crate::ends::EndsError::from)?),
    }
}

/// Writes losses into the manifest.
pub(super) fn note(manifest: &mut Manifest, losses: &[CutLoss], samples: usize) {
    manifest.loss_samples = samples as u16;
    for CutLoss { cut, lost } in losses {
        for figures in &mut manifest.cuts[usize::from(*cut)].codecs {
            let rounding = ROUNDING.iter().zip(lost).find(|(codec, _)| figures.codec.may_become(**codec));
            if let Some((_, Some(lost))) = rounding {
                figures.loss_ppm = Some(CodecFigures::ppm(*lost));
            }
        }
    }
}
