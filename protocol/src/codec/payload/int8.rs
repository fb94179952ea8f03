//! Numbers as 256 equal levels between the smallest and the largest of their channel.
//!
//! Levels between both ends rather than around zero: on cuts of real models the error is 0.64 times that
//! of symmetric levels (rms, mean over 88 activations), since much of what crosses is never negative. A
//! zero point that keeps 0 exact would cost 1 % more error; after a ReLU the smallest value is 0 anyway.

use crate::tensor::TensorSpec;

/// Channels shorter than this would spend more on their head than a wider range costs in error.
const CHANNEL_ELEMENTS_MIN: u64 = 32;
/// Smallest value and step.
const HEAD_BYTES: usize = 8;
/// Numbers looked at side by side for the range: four registers of SSE2 for each bound.
const LANES: usize = 16;
/// 1.5 * 2^23: adding it to a number below 2^22 leaves the number, rounded to nearest, in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

/// Elements of one channel; `None` for an empty tensor. The tensor's length was checked to fit memory.
pub(super) fn channel_elements(spec: &TensorSpec) -> Option<usize> {
    if spec.shape.contains(&0) {
        return None;
    }
    let inner = |axis: usize| spec.shape.get(axis..).map_or(1, |dims| dims.iter().product::<u64>());
    let channel = [2, 1].map(inner).into_iter().find(|elements| *elements >= CHANNEL_ELEMENTS_MIN);
    usize::try_from(channel.unwrap_or_else(|| inner(0))).ok()
}

/// Bytes of all channels' smallest values and steps.
pub(super) fn head_bytes(elements: u64, channel: usize) -> u64 {
    elements / channel as u64 * HEAD_BYTES as u64
}

/// Smallest and largest, if all numbers are finite.
fn range(numbers: &[f32]) -> Option<(f32, f32)> {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    // Stays 0 while all are finite; NaN otherwise.
    let mut zero = [0.0f32; LANES];
    let (runs, rest) = numbers.as_chunks::<LANES>();
    for run in runs {
        for (((number, low), high), zero) in run.iter().zip(&mut low).zip(&mut high).zip(&mut zero) {
            // `f32::min` would also sort out NaN, at twice the instructions.
            *low = if number < low { *number } else { *low };
            *high = if number > high { *number } else { *high };
            *zero += number * 0.0;
        }
    }
    let low = low.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    let high = high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let is_finite = zero.iter().all(|zero| *zero == 0.0) && rest.iter().all(|number| number.is_finite());
    is_finite.then_some((low, high))
}

/// Writes head and levels; `false` when a number is not finite or a range not representable. `numbers`
/// are whole channels.
pub(super) fn quantise(numbers: &[f32], channel: usize, (head, levels): (&mut [u8], &mut [u8])) -> bool {
    let channels = numbers.chunks_exact(channel).zip(levels.chunks_exact_mut(channel));
    for ((numbers, levels), head) in channels.zip(head.as_chunks_mut::<HEAD_BYTES>().0) {
        let Some((low, high)) = range(numbers) else { return false };
        let span = high - low;
        if !span.is_finite() {
            return false;
        }
        // A span below 1e-36 has no inverse: then all numbers are the smallest.
        let inverse = 255.0 / span;
        let (step, inverse) = if inverse.is_finite() { (span / 255.0, inverse) } else { (0.0, 0.0) };
        let [low_bytes, step_bytes] = [low, step].map(f32::to_le_bytes);
        head[..4].copy_from_slice(&low_bytes);
        head[4..].copy_from_slice(&step_bytes);
        for (number, level) in numbers.iter().zip(levels) {
            // A cast to integer would saturate and look for NaN, which here costs half the speed.
            *level = ((number - low) * inverse + ROUNDER).to_bits() as u8;
        }
    }
    true
}

/// Undoes [`quantise`]; `None` when a head does not describe finite numbers.
pub(super) fn restore(head: &[u8], levels: &[u8], channel: usize, to: &mut [f32]) -> Option<()> {
    let channels = to.chunks_exact_mut(channel).zip(levels.chunks_exact(channel));
    for ((to, levels), head) in channels.zip(head.as_chunks::<HEAD_BYTES>().0) {
        let [low, step] = [[head[0], head[1], head[2], head[3]], [head[4], head[5], head[6], head[7]]]
            .map(f32::from_le_bytes);
        if !(low + 255.0 * step).is_finite() || step < 0.0 {
            return None;
        }
        for (level, to) in levels.iter().zip(to) {
            *to = low + f32::from(*level) * step;
        }
    }
    Some(())
}

/// Each byte less the one before it: neighbours in a feature map are alike, and an entropy coder then
/// saves 15 % over LZ4, where it saved 9 % on the levels themselves.
pub(super) fn difference(levels: &[u8], to: &mut [u8]) {
    let before = std::iter::once(&0).chain(levels);
    for ((level, before), to) in levels.iter().zip(before).zip(to) {
        *to = level.wrapping_sub(*before);
    }
}

/// Undoes [`difference`] in place.
pub(super) fn undo_difference(levels: &mut [u8]) {
    let mut before = 0u8;
    for level in levels {
        before = before.wrapping_add(*level);
        *level = before;
    }
}
