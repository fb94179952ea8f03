//! What each codec makes of each cut: bytes, and times on one core, measured on what crosses it for one
//! input. What rounding costs the answers is measured elsewhere.

use std::time::{Duration, Instant};

use stormo_protocol::codec::payload::{Codec, CodedTensor, Scratch};
use stormo_protocol::model::{CodecFigures, Manifest};
use stormo_protocol::tensor::{DType, Tensor, total_bytes};

use super::PrepareError;
use super::divided::{Divided, Tensors, run};

/// Bytes that are coded in all: the thinnest cuts, which plans use. Every codec both ways takes some 4 ns a
/// byte on a core of a server, and is run [`RUNS`] times: about a second.
const CODED_BYTES_MAX: u64 = 80 << 20;
/// Runs of each codec on each cut; the shortest counts.
const RUNS: usize = 3;

/// The graph's cuts that are worth measuring, in order: as many of the thinnest as are coded in time.
pub(super) fn thin_cuts(manifest: &Manifest) -> Vec<u16> {
    let graph = manifest.graph_blocks();
    let mut cuts: Vec<u16> = (graph.start..=graph.end).collect();
    cuts.sort_by_key(|cut| manifest.cut_bytes(*cut));
    let mut bytes = 0u64;
    cuts.retain(|cut| {
        bytes = bytes.saturating_add(manifest.cut_bytes(*cut));
        bytes <= CODED_BYTES_MAX
    });
    cuts.sort_unstable();
    cuts
}

/// What was measured of some cuts.
pub(super) struct Coded {
    /// For each of them.
    pub(super) figures: Vec<Vec<CodecFigures>>,
    /// Loading the whole graph took so long.
    pub(super) load: Duration,
}

/// The figures of each of these cuts when these inputs are given.
pub(super) async fn measure(
    divided: &Divided<'_>,
    cuts: &[u16],
    inputs: &Tensors,
) -> Result<Coded, PrepareError> {
    let started = Instant::now();
    let open = divided.load_open(cuts).await?;
    let load = started.elapsed();
    let tensors = run(&open, inputs).await?;
    let mut scratch = Scratch::default();
    let of_cut = |cut: &u16| {
        let crossing = divided.manifest.cuts[usize::from(*cut)].tensors.iter();
        let fixed = crossing.filter(|tensor| !divided.manifest.is_variable(**tensor));
        let numbers = fixed.map(|tensor| &divided.manifest.tensors[*tensor as usize]);
        let numbers = numbers.filter(|spec| spec.dtype != DType::Text);
        let crossing: Vec<Tensor> = numbers.filter_map(|spec| tensors.get(&spec.name).cloned()).collect();
        // What is not there counts as uncoded: texts, what has another size each time, and the place of the
        // image, a few bytes.
        let beside_bytes = divided.manifest.cut_bytes(*cut).saturating_sub(total_bytes(&crossing));
        figures(&crossing, beside_bytes, &mut scratch)
    };
    Ok(Coded { figures: cuts.iter().map(of_cut).collect(), load })
}

/// The codecs that make fewer bytes of these tensors, each than all simpler ones.
fn figures(tensors: &[Tensor], beside_bytes: u64, scratch: &mut Scratch) -> Vec<CodecFigures> {
    let mut found: Vec<CodecFigures> = Vec::new();
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::Raw) {
        let Some(figures) = figures_of(codec, tensors, beside_bytes, scratch) else { continue };
        let is_simpler = |known: &CodecFigures| codec.may_become(known.codec);
        let known = found.iter().filter(|known| is_simpler(known)).map(|known| known.coded_bytes).min();
        if known.is_none_or(|bytes| figures.coded_bytes < bytes) {
            found.push(figures);
        }
    }
    found
}

fn figures_of(
    codec: Codec,
    tensors: &[Tensor],
    beside_bytes: u64,
    scratch: &mut Scratch,
) -> Option<CodecFigures> {
    let (mut encode_us, mut decode_us, mut coded_bytes) = (u32::MAX, u32::MAX, u64::MAX);
    for _ in 0..RUNS {
        let started = Instant::now();
        let coded: Vec<CodedTensor> =
            tensors.iter().map(|tensor| CodedTensor::encode(codec, tensor, scratch)).collect();
        encode_us = encode_us.min(micros_since(started));
        coded_bytes = coded.iter().map(|tensor| tensor.bytes().len() as u64).sum();
        let started = Instant::now();
        for tensor in coded {
            tensor.decode(scratch).ok()?;
        }
        decode_us = decode_us.min(micros_since(started));
    }
    let saves = coded_bytes < total_bytes(tensors);
    let loss_ppm = codec.is_lossless().then_some(0);
    let coded_bytes = coded_bytes + beside_bytes;
    saves.then_some(CodecFigures { codec, coded_bytes, encode_us, decode_us, loss_ppm })
}

fn micros_since(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::tensor::{TensorData, TensorSpec};

    fn tensor(numbers: &[f32]) -> Tensor {
        let spec =
            TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, 1, numbers.len() as u64] };
        Tensor::new(spec, TensorData::copied_from(bytemuck::cast_slice(numbers))).unwrap()
    }

    #[test]
    fn only_codecs_that_save_are_listed_each_more_than_simpler_ones() {
        let smooth: Vec<f32> = (0..10_000).map(|index| (index as f32 * 1e-3).sin().max(0.0)).collect();
        let listed = figures(&[tensor(&smooth)], 7, &mut Scratch::default());
        let bytes = |codec: Codec| listed.iter().find(|known| known.codec == codec).unwrap().coded_bytes;
        assert_eq!(bytes(Codec::F16), 20_007);
        assert!(bytes(Codec::Int8Lz4) < bytes(Codec::Int8) && bytes(Codec::Int8) < bytes(Codec::F16));
        assert!(listed.iter().all(|known| known.loss_ppm == known.codec.is_lossless().then_some(0)));
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32
        };
        let noise: Vec<f32> = (0..1000).map(|_| noise()).collect();
        let listed = figures(&[tensor(&noise)], 0, &mut Scratch::default());
        assert!(listed.iter().all(|known| known.codec != Codec::Int8Lz4), "{listed:?}");
        assert_eq!(figures(&[tensor(&[1.0; 8])], 0, &mut Scratch::default()).len(), 1);
    }
}
